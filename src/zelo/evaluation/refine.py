"""Stage `refine`: pairs to ask about where the trained model fails (METHOD, stage 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zelo.artifacts import read_table, table, write_table
from zelo.comparison.compare import in_random_order
from zelo.comparison.sampler import OneRoundSampler
from zelo.config import Component, option
from zelo.data.texts import (
    document_texts,
    documents_left_out,
    documents_there,
    labelled_queries,
    query_texts,
    told_with,
)
from zelo.distributed.trainer import LightningTrainer
from zelo.errors import UserError
from zelo.retrieval.ranking import candidates_from, rank_by_score
from zelo.seeding import stream
from zelo.store import stage
from zelo.training.trainable import MODEL, TrainableModel


class Refinement(Component):
    """`refine=on`: what the first pass got wrong is asked about, and learned in another."""

    passes: int = option(2, "passes in all, the first included", ge=2)
    threshold: int = option(
        10, "a known relevant document that the trained model ranks lower than this is asked about",
        ge=1,
    )  # fmt: skip
    sample: OneRoundSampler = option(help="pairs of the sample that passes are measured on")
    sample_queries: int = option(20, "training queries of the sample", ge=1)
    sample_depth: int = option(12, "documents of each, best candidates first", ge=2)


@stage(version=2)
def refine(
    *,
    out: Path,
    data: Path,
    candidates: Path,
    trained: Path,
    model: TrainableModel,
    threshold: int,
    seed: int,
    trainer: LightningTrainer,
    tokens: int,
) -> Mapping[str, Any]:
    """Pair each known relevant document that is ranked too low with the one just above it.

    A document is known if a training query's labels give it the highest grade of those that are
    there; it is ranked among the candidates, to which it is added where retrieval missed it. The
    document above it is the nearest that is not known to be relevant itself. Raises `UserError`
    where no training query has labels.
    """
    known = known_to_refine(data)
    ranked = candidates_from(read_table(candidates, "candidates"))
    pool = {q: list(dict.fromkeys([*ranked.get(q, []), *docs])) for q, docs in known.items()}
    texts = document_texts(data, {doc_id for docs in pool.values() for doc_id in docs})
    queries = query_texts(data, "train")
    asked = {query_id: queries[query_id] for query_id in pool}
    told = told_with(data)
    scores = model.score(trained / MODEL, asked, texts, pool, out, trainer, tokens, **told)
    rows: list[tuple[str, str, str]] = []
    for query_id, ranking in rank_by_score(pool, scores).items():
        pairs = failures([doc_id for doc_id, _ in ranking], known[query_id], threshold)
        rng = stream(seed, "refine", query_id)
        edges = in_random_order(np.arange(2 * len(pairs)).reshape(-1, 2), rng)
        flat = [doc_id for pair in pairs for doc_id in pair]
        rows += [(query_id, flat[a], flat[b]) for a, b in edges.tolist()]
    columns = zip(*rows, strict=True) if rows else ([], [], [])
    names = dict(zip(("query_id", "doc_a", "doc_b"), map(list, columns), strict=True))
    write_table(out, "comparisons", table("comparisons", **names, repeat=[0] * len(rows)))
    return {
        "comparisons": len(rows),
        "queries": len({query_id for query_id, _, _ in rows}),
        "queries_with_labels": len(known),
        "known_documents": sum(map(len, known.values())),
    }


def known_to_refine(data: Path) -> dict[str, list[str]]:
    """Training query → documents of its highest grade that are in the collection and are not its
    own text; `UserError` where no query has any."""
    labels = labelled_queries(data, "train")
    existing = documents_there(data, {doc_id for row in labels.values() for doc_id in row})
    left_out = documents_left_out(data)
    grades: dict[str, dict[str, int]] = {}
    for query_id, row in labels.items():
        for doc_id, grade in row.items():
            if doc_id in existing and grade > 0 and left_out.get(query_id) != doc_id:
                grades.setdefault(query_id, {})[doc_id] = grade
    if not grades:
        raise UserError(
            "refine: no training query has a known relevant document; give qrels/train.tsv, or "
            "choose refine=off"
        )
    return {
        query_id: [d for d, grade in row.items() if grade == max(row.values())]
        for query_id, row in grades.items()
    }


def failures(order: Sequence[str], known: Sequence[str], threshold: int) -> list[tuple[str, str]]:
    """Each of `known` that stands below rank `threshold` in `order`, and the document just above.

    None where all that stands above is known as well.
    """
    found = []
    for rank, doc_id in enumerate(order, 1):
        if doc_id in known and rank > threshold:
            above = next((d for d in reversed(order[: rank - 1]) if d not in known), None)
            if above is not None:
                found.append((doc_id, above))
    return found
