"""Stage `cross`: which documents of different queries to ask about (METHOD, stage 6)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zelo.artifacts import read_table, table, write_table
from zelo.comparison.compare import in_random_order
from zelo.comparison.crossquery import cross_pairs
from zelo.config import Component, option
from zelo.data.texts import query_texts
from zelo.retrieval.ranking import candidates_from
from zelo.seeding import stream
from zelo.store import stage


class CrossQuery(Component):
    """`cross=on`: documents of different queries are compared, which puts Elos on one scale."""

    cycles: int = option(2, "cycles through all queries; each meets about twice as many", ge=1)
    per_edge: int = option(1, "comparisons between two queries that meet", ge=1)


@stage(version=1)
def cross(
    *, out: Path, data: Path, candidates: Path, cross: CrossQuery, depth: int, seed: int
) -> Mapping[str, Any]:
    """Pair documents at equal ranks, among the top `depth`, of training queries that meet.

    Ranks are those of the first stage, which do not change from pass to pass: what was asked once
    serves all. Queries with fewer than two candidates are not rated, and are left out. Which
    document is shown first is drawn at random.
    """
    ranked = candidates_from(read_table(candidates, "candidates"))
    pool = {q: ranked.get(q, [])[:depth] for q in query_texts(data, "train")}
    pool = {query_id: docs for query_id, docs in pool.items() if len(docs) > 1}
    offsets = np.concatenate([[0], np.cumsum([len(docs) for docs in pool.values()])]).astype(int)
    of = [query_id for query_id, docs in pool.items() for _ in docs]
    flat = [doc_id for docs in pool.values() for doc_id in docs]
    rng = stream(seed, "cross")
    first, second = cross_pairs(offsets, cross.cycles, rng, cross.per_edge)
    a, b = in_random_order(np.stack([first, second], 1), rng).T
    write_table(
        out,
        "comparisons",
        table(
            "comparisons",
            query_id=[of[i] for i in a],
            doc_a=[flat[i] for i in a],
            doc_b=[flat[i] for i in b],
            repeat=[0] * len(a),
            query_b=[of[i] for i in b],
        ),
    )
    return {"comparisons": len(a), "queries": len(pool)}
