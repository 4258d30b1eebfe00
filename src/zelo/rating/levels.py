"""Levels of the rated queries, from judgments across queries, and the targets that follow."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from zelo.artifacts import Table, table
from zelo.judging.ensemble import mean_preference, votes_by_pair
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
    sizes = Counter(query_id for query_id, _ in keys)  # queries in their order
    offsets = np.concatenate([[0], np.cumsum(list(sizes.values()))])
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
        table("levels", query_id=list(sizes), level=levels.bias, stderr=levels.stderr),
        counts,
    )


def across(said: Table, vote: str) -> dict[tuple[Place, Place], float]:
    """P(first ≻ second) of each comparison across queries that a judge answered."""
    return {
        ((q, a), (r, b)): mean_preference(votes)
        for (q, a, r, b), votes in votes_by_pair(said, vote).items()
        if votes
    }
