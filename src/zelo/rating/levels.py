"""Levels of the rated queries, from judgments across queries, and the targets that follow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zelo.artifacts import Table, table
from zelo.rating.crossquery import fit_levels
from zelo.rating.targets import targets

if TYPE_CHECKING:
    from zelo.rating.rate import Rating

Place = tuple[str, str]  # query and document


def leveled(
    ratings: Table, said: Table, rating: Rating, vote: str
) -> tuple[Table, Table, dict[str, int]]:
    """`ratings` with targets of `e_i + b_q`, the table `levels`, and counts.

    `said` are judgments across queries; those of documents that were not rated are left out, and
    counted. All answers to a comparison are averaged.
    """
    names = ("query_id", "doc_id")
    keys = list(zip(*(ratings[name].to_pylist() for name in names), strict=True))
    place = {key: row for row, key in enumerate(keys)}
    query_ids = list(dict.fromkeys(query_id for query_id, _ in keys))
    sizes: dict[str, int] = {}
    for query_id, _ in keys:
        sizes[query_id] = sizes.get(query_id, 0) + 1
    offsets = np.concatenate([[0], np.cumsum([sizes[q] for q in query_ids])])
    preferences = across(said, vote)
    known = {pair: p for pair, p in preferences.items() if pair[0] in place and pair[1] in place}
    elo = ratings["elo"].to_numpy()
    levels = fit_levels(
        elo,
        offsets,
        [place[first] for first, _ in known],
        [place[second] for _, second in known],
        list(known.values()),
        model=rating.model,
        prior=rating.prior,
    )
    target = targets(rating.target, rating.model, elo, offsets, levels.bias)
    column = ratings.schema.get_field_index("target")
    counts = {
        "cross_comparisons": len(known),
        "cross_left_out": len(preferences) - len(known),
        "cross_components": levels.components,
    }
    return (
        ratings.set_column(column, "target", [target]),
        table("levels", query_id=query_ids, level=levels.bias, stderr=levels.stderr),
        counts,
    )


def across(said: Table, vote: str) -> dict[tuple[Place, Place], float]:
    """P(first ≻ second) of each comparison across queries that a judge answered."""
    votes: dict[tuple[Place, Place], list[float]] = {}
    names = ("query_id", "doc_a", "query_b", "doc_b", "score")
    for q, a, r, b, score in zip(*(said[name].to_pylist() for name in names), strict=True):
        if score is None:
            continue
        value = float(np.sign(score)) if vote == "sign" else score
        turned = ((r, b), (q, a)) in votes
        key = ((r, b), (q, a)) if turned else ((q, a), (r, b))
        votes.setdefault(key, []).append(-value if turned else value)
    return {pair: (1 - sum(given) / len(given)) / 2 for pair, given in votes.items()}
