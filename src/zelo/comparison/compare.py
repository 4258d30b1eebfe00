"""Stage `compare`: candidates in, the pairs to ask about out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from zelo.artifacts import read_table, table, write_table
from zelo.comparison.graphs import Edges
from zelo.data.texts import query_texts
from zelo.retrieval.ranking import candidates_from
from zelo.seeding import stream
from zelo.store import stage


@runtime_checkable
class Sampler(Protocol):
    """A way to choose pairs (`conf/sampler/`)."""

    def edges(self, n: int, rng: np.random.Generator) -> Edges:
        """Edges (m, 2) over documents 0..n−1, best candidate first."""
        ...


@stage(version=1)
def compare(
    *, out: Path, data: Path, candidates: Path, sampler: Sampler, depth: int, seed: int
) -> Mapping[str, Any]:
    """Draw pairs among the top `depth` candidates of every training query.

    Which document of a pair is shown first is drawn at random, so that a judge's preference for
    a position cancels. A query with fewer than two candidates has nothing to compare; it is
    counted, and not rated.
    """
    ranked = candidates_from(read_table(candidates, "candidates"))
    query_ids: list[str] = []
    shown: list[tuple[str, str]] = []
    too_few = 0
    for query_id in query_texts(data, "train"):
        documents = ranked.get(query_id, [])[:depth]
        too_few += len(documents) < 2
        rng = stream(seed, "compare", query_id)
        for i, j in present(sampler.edges(len(documents), rng), rng):
            query_ids.append(query_id)
            shown.append((documents[i], documents[j]))
    write_table(
        out,
        "comparisons",
        table(
            "comparisons",
            query_id=query_ids,
            doc_a=[a for a, _ in shown],
            doc_b=[b for _, b in shown],
            repeat=[0] * len(shown),
        ),
    )
    return {
        "comparisons": len(shown),
        "queries": len(set(query_ids)),
        "queries_too_few_candidates": too_few,
    }


def present(edges: Edges, rng: np.random.Generator) -> Edges:
    """Swap each edge with probability one half: the first document is the one shown first."""
    swapped = rng.random(len(edges)) < 0.5
    return np.where(swapped[:, None], edges[:, ::-1], edges)
