"""Which of a run's training queries validate where nobody says how many."""

from __future__ import annotations

from collections.abc import Collection

SHARE, ENOUGH, MOST, LEAST = 0.1, 50, 0.2, 5  # of `queries_to_hold_out`


def queries_to_hold_out(rated: int) -> int:
    """How many of so many rated queries validate where nobody says how many.

    A tenth; of fewer than 500 queries it is 50, as fewer hardly tell two models apart, but at most
    a fifth. Of fewer than 25 it is none: fewer than five can show nothing at a level of 5 %.
    """
    count = int(max(SHARE * rated, min(ENOUGH, MOST * rated)))
    return count if count >= LEAST else 0


def limit_to_hold_out(shares: Collection[float]) -> float:
    """The queries whose `hash_share` is below it validate: the lowest, so many as
    `queries_to_hold_out` says, and none that shares its number with one that does not."""
    return [*sorted(shares), 1.0][queries_to_hold_out(len(shares))]
