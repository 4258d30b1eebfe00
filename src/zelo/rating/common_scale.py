"""Targets on one scale for all queries, from judgments across queries."""

from __future__ import annotations

from collections import Counter

import numpy as np

from zelo.artifacts import Table, table
from zelo.rating.preferences import mean_preference, votes_by_pair
from zelo.rating.query_bias import fit_query_biases
from zelo.rating.targets import targets

Candidate = tuple[str, str]  # query and document


def on_common_scale(
    ratings: Table, judgments: Table, vote: str, *, model: str, prior: float, target: str
) -> tuple[Table, Table, dict[str, int]]:
    """`ratings` with targets of `e_i + b_q`, the table `query_biases`, and counts.

    `judgments` are those across queries; of documents that were not rated they are left out, and
    counted. All answers to a comparison are averaged. `model`, `prior` and `target` are those of
    the ratings.
    """
    names = ("query_id", "doc_id")
    keys = list(zip(*(ratings[name].to_pylist() for name in names), strict=True))
    row_of = {key: row for row, key in enumerate(keys)}
    sizes = Counter(query_id for query_id, _ in keys)  # queries in their order
    offsets = np.concatenate([[0], np.cumsum(list(sizes.values()))])
    preferences = preferences_across(judgments, vote)
    known = {pair: p for pair, p in preferences.items() if pair[0] in row_of and pair[1] in row_of}
    elo = ratings["elo"].to_numpy()
    found = fit_query_biases(
        elo,
        offsets,
        [row_of[first] for first, _ in known],
        [row_of[second] for _, second in known],
        list(known.values()),
        model=model,
        prior=prior,
    )
    values = targets(target, model, elo, offsets, found.bias)
    column = ratings.schema.get_field_index("target")
    counts = {
        "cross_comparisons": len(known),
        "cross_left_out": len(preferences) - len(known),
        "cross_components": found.components,
    }
    return (
        ratings.set_column(column, "target", [values]),
        table("query_biases", query_id=list(sizes), bias=found.bias, stderr=found.stderr),
        counts,
    )


def preferences_across(judgments: Table, vote: str) -> dict[tuple[Candidate, Candidate], float]:
    """P(first ≻ second) of each comparison across queries that a judge answered."""
    return {
        ((q, a), (r, b)): mean_preference(votes)
        for (q, a, r, b), votes in votes_by_pair(judgments, vote).items()
        if votes
    }
