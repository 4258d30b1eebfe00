"""Stage `retrieve`: queries and documents in, the candidates of each query out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from zelo.artifacts import read_json, read_table, write_json, write_parts
from zelo.data.texts import Corpus, neighbourhoods_of_written, query_texts
from zelo.models.pretrained import PretrainedModel
from zelo.retrieval.ranking import Hits, Ranking, documents_left_out_of, rankings_from
from zelo.store import stage


@runtime_checkable
class Retriever(Protocol):
    """A first stage (`conf/retriever/`)."""

    def search(self, queries: Mapping[str, str], corpus: Corpus, k: int) -> dict[str, Hits]:
        """Best `k` documents of each query (id → text), by the name of the ranking.

        The last one is the retriever's result, the others are what it was fused from.
        """
        ...


@runtime_checkable
class EmbeddingRetriever(Protocol):
    """A first stage that embeds all documents: `zelo plan` counts what that takes."""

    def embeds_with(self) -> tuple[PretrainedModel, int]:
        """The model that embeds, and the tokens at which documents are cut."""
        ...


SYSTEMS = "systems.json"
RANKED = 100  # ranks that are kept at least: what Recall@100 needs


@stage(version=6)
def retrieve(*, out: Path, data: Path, retriever: Retriever, top_k: int) -> Mapping[str, Any]:
    """Write the `first_stage` rankings and the top `top_k` of the last one, the `candidates`.

    The document that is a query's own text, or from which it was written (where
    `queries.source_is_candidate` is false), is in none of them. Written queries with a
    neighbourhood (`queries.neighbourhood`) have its documents as candidates, whatever `top_k` is.
    """
    queries, corpus = query_texts(data), Corpus.at(data)
    query_ids, depth = list(queries), max(top_k, RANKED)
    left_out_Q = documents_left_out_of(queries, corpus)
    found = {
        system: hits.without(left_out_Q).top(depth)
        for system, hits in retriever.search(queries, corpus, depth + bool(corpus.left_out)).items()
    }
    write_parts(out, "first_stage", (system_table(system, hits, query_ids, corpus.ids)
                                     for system, hits in found.items()))  # fmt: skip
    write_json(out / SYSTEMS, list(found))  # a system that found nothing has no row in the table
    name, last = list(found.items())[-1]
    candidates = with_neighbourhoods(last.top(top_k), query_ids, corpus, data, left_out_Q)
    rows = write_parts(out, "candidates", [candidates.table("candidates", query_ids, corpus.ids)])
    sizes = (candidates.doc_QK >= 0).sum(1)
    return {
        "retriever": name,
        "candidates": rows,
        "queries_without_candidates": int((sizes == 0).sum()),
        "queries_with_one_candidate": int((sizes == 1).sum()),
    }


def with_neighbourhoods(
    candidates: Hits,
    query_ids: Sequence[str],
    corpus: Corpus,
    data: Path,
    left_out_Q: NDArray[np.int64],
) -> Hits:
    """Candidates, those of queries with a neighbourhood replaced by its documents.

    They are in the order of the first stage; what it did not find comes after that, with the score
    of the last that it did: it is not known to be higher.
    """
    number = neighbourhoods_of_written(data)
    if not number:
        return candidates
    near = read_table(data, "neighbourhoods")
    documents: dict[int, list[int]] = {}
    indices = pc.index_in(near["doc_id"], corpus.ids).to_pylist()
    for n, index in zip(near["neighbourhood"].to_pylist(), indices, strict=True):
        documents.setdefault(n, []).append(index)
    k = candidates.doc_QK.shape[1]
    found = Hits.empty(len(query_ids), max(k, *map(len, documents.values())))
    found.doc_QK[:, :k], found.score_QK[:, :k] = candidates.doc_QK, candidates.score_QK
    for q, query_id in enumerate(query_ids):
        if query_id not in number:
            continue
        doc_K, score_K = found.doc_QK[q], found.score_QK[q]
        hits = {d: s for d, s in zip(doc_K.tolist(), score_K.tolist(), strict=True) if d >= 0}
        least = min(hits.values(), default=0.0)
        here = [d for d in documents[number[query_id]] if d != left_out_Q[q]]
        ranked = sorted(here, key=lambda d: -hits.get(d, least))
        doc_K[:], score_K[:] = -1, -np.inf
        doc_K[: len(ranked)] = ranked
        score_K[: len(ranked)] = [hits.get(d, least) for d in ranked]
    return found


def first_stage_of(folder: Path, query_ids: Collection[str]) -> dict[str, Ranking]:
    """The `first_stage` rankings of these queries by system; an empty one where a system found
    nothing."""
    wanted = pc.field("query_id").isin(pa.array(list(query_ids), pa.string()))
    found = rankings_from(read_table(folder, "first_stage", wanted))
    return {system: found.get(system, {}) for system in sorted(read_json(folder / SYSTEMS))}


def system_table(system: str, hits: Hits, query_ids: Sequence[str], doc_ids: pa.Array) -> pa.Table:
    """A ranking as a table, with its name as the first column."""
    rows = hits.table("first_stage", query_ids, doc_ids)
    return rows.add_column(0, "system", pa.repeat(pa.scalar(system), len(rows)))
