"""How many of a run's training queries validate where nobody says how many."""

from __future__ import annotations

SHARE, ENOUGH, MOST, LEAST = 0.1, 50, 0.2, 5  # of `queries_to_hold_out`


def queries_to_hold_out(rated: int) -> int:
    """How many of so many rated queries validate where nobody says how many.

    A tenth; of fewer than 500 queries it is 50, as fewer hardly tell two models apart, but at most
    a fifth. Of fewer than 25 it is none: fewer than five can show nothing at a level of 5 %.
    """
    count = int(max(SHARE * rated, min(ENOUGH, MOST * rated)))
    return count if count >= LEAST else 0
