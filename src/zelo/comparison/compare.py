"""Stage `compare`: candidates in, the pairs to ask about out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from zelo.artifacts import read_table, table, write_table
from zelo.comparison.blocks import Block, cycles_through
from zelo.comparison.sampler import BaseSampler, Edges
from zelo.data.collection import hash_share
from zelo.data.texts import document_texts, query_texts
from zelo.errors import UserError
from zelo.progress import track
from zelo.rating.comparisons import Wholes
from zelo.rating.preferences import average
from zelo.rating.rate_lists import which_is_above
from zelo.retrieval.ranking import candidates_from
from zelo.seeding import stream
from zelo.store import stage


@stage(version=2)
def compare(
    *,
    out: Path,
    data: Path,
    candidates: Path,
    sampler: BaseSampler,
    depth: int,
    seed: int,
    vote: str = "soft",
    queries: int | None = None,
    **judgments: Path,
) -> Mapping[str, Any]:
    """Draw pairs among the top `depth` candidates of every training query.

    `judgments` are the folders of earlier rounds, none in the first; `vote` says how their answers
    are averaged. With `queries` only so many are compared, chosen by a hash of their texts. Which
    document of a pair is shown first is drawn at random, so that a judge's preference for a
    position cancels. A sampler `in_blocks` has its `blocks` written besides. A query with fewer
    than two candidates has nothing to compare; it is counted, and not rated.
    """
    recorded = checked_pairs(sampler.recorded_pairs(), data) if sampler.recorded else None
    ranked = candidates_from(read_table(candidates, "candidates"))
    rounds = [answers_of_round(folder, vote) for folder in judgments.values()]
    # A query that the last round did not ask about needs no more.
    going_on = set(rounds[-1]) if rounds else set()
    before: dict[str, list[tuple[str, str, float]]] = {}
    for answers in rounds:
        for query_id, answered in answers.items():
            before.setdefault(query_id, []).extend(answered)
    query_ids: list[str] = []
    pairs: list[tuple[str, str]] = []  # of documents, the one shown first in front
    shown: list[Block] = []
    too_few = 0
    texts = query_texts(data, "train")
    chosen = list(texts)
    if queries is not None:
        chosen = sorted(chosen, key=lambda query_id: hash_share(texts[query_id]))[:queries]
    for query_id in track(chosen, "choosing pairs"):
        if recorded is not None:
            pairs += recorded.get(query_id, [])
            query_ids += [query_id] * len(recorded.get(query_id, []))
            continue
        documents = ranked.get(query_id, [])[:depth]
        too_few += not judgments and len(documents) < 2
        rng = stream(seed, "compare", query_id, *[str(len(judgments))] * bool(judgments))
        blocks: list[Wholes] = []
        if not judgments and sampler.in_blocks:
            blocks = sampler.blocks(len(documents), rng)
        elif not judgments:
            edges = sampler.edges(len(documents), rng)
        elif query_id in going_on:
            index = {doc_id: i for i, doc_id in enumerate(documents)}
            asked = [(index[a], index[b]) for a, b, _ in before[query_id]]
            p = np.array([p for _, _, p in before[query_id]])
            left = sampler.max_rounds - len(judgments)
            so_far = (len(documents), np.array(asked, dtype=np.int64), p, left, rng)
            if sampler.in_blocks:
                blocks = sampler.next_blocks(*so_far)
            else:
                edges = sampler.next_edges(*so_far)
        else:
            continue
        if sampler.in_blocks:
            edges = cycles_through(blocks)
            ids = [[documents[i] for i in block] for block in blocks]
            shown += [Block(query_id, i, block) for i, block in enumerate(ids)]
        for i, j in in_random_order(edges, rng):
            query_ids.append(query_id)
            pairs.append((documents[i], documents[j]))
    if too_few == len(chosen) > 0 and not pairs:
        raise UserError(
            f"compare: none of {len(chosen)} training queries has two candidates, so there is "
            f"nothing to compare: the retriever found too little (retriever=dense finds "
            f"something for every query), or the collection has a single document"
        )
    write_table(
        out,
        "comparisons",
        table(
            "comparisons",
            query_id=query_ids,
            doc_a=[a for a, _ in pairs],
            doc_b=[b for _, b in pairs],
            repeat=[0] * len(pairs),
        ),
    )
    if sampler.in_blocks:
        write_table(
            out,
            "blocks",
            table(
                "blocks",
                query_id=[block.query_id for block in shown],
                block=[block.number for block in shown],
                doc_ids=[block.doc_ids for block in shown],
            ),
        )
    return {
        **({"blocks": len(shown)} if sampler.in_blocks else {}),
        "comparisons": len(pairs),
        "queries": len(set(query_ids)),
        "queries_too_few_candidates": too_few,
    }


def checked_pairs(
    pairs: Mapping[str, Sequence[tuple[str, str]]], data: Path
) -> Mapping[str, Sequence[tuple[str, str]]]:
    """`pairs`; `UserError` where a query or a document is not in the collection."""
    wanted = {doc_id for rows in pairs.values() for row in rows for doc_id in row}
    documents, queries = document_texts(data, wanted), query_texts(data)
    for query_id, rows in pairs.items():
        if query_id not in queries:
            raise UserError(f"sampler: the recorded query {query_id!r} is not in the collection")
        for doc_id in (doc_id for row in rows for doc_id in row):
            if doc_id not in documents:
                raise UserError(
                    f"sampler: query {query_id!r}: the recorded document {doc_id!r} is not in the "
                    f"collection"
                )
    return pairs


def answers_of_round(folder: Path, vote: str) -> dict[str, list[tuple[str, str, float]]]:
    """Query → `doc_a`, `doc_b` and P(a ≻ b) of each comparison that judges were asked about; NaN
    where no judge answered."""
    found: dict[str, list[tuple[str, str, float]]] = {}
    mean = average(read_table(folder, "judgments"), vote)
    rows = zip(mean.query_ids, mean.doc_a, mean.doc_b, mean.p.tolist(), strict=True)
    unanswered = ((*key, np.nan) for key in mean.unanswered)
    for query_id, a, b, p in [*rows, *unanswered, *pairs_of_orders(folder)]:
        found.setdefault(query_id, []).append((a, b, p))
    return found


def pairs_of_orders(folder: Path) -> Iterator[tuple[str, str, str, float]]:
    """What orders of blocks say of all pairs within them, as comparisons; none where there are no
    orders."""
    if not (folder / "list_judgments.parquet").is_file():
        return
    rows = read_table(folder, "list_judgments")
    names = ("query_id", "doc_ids", "places")
    for query_id, doc_ids, places in zip(*(rows[n].to_pylist() for n in names), strict=True):
        if places is None:  # no order came
            continue
        for (a, place_a), (b, place_b) in combinations(zip(doc_ids, places, strict=True), 2):
            score = which_is_above(place_a, place_b)
            if score is not None:
                yield query_id, a, b, (1 - score) / 2


def in_random_order(edges: Edges, rng: np.random.Generator) -> Edges:
    """Swap each edge with probability one half: the first document is the one shown first."""
    swapped = rng.random(len(edges)) < 0.5
    return np.where(swapped[:, None], edges[:, ::-1], edges)
