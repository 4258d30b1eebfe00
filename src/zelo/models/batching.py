"""Which texts are read together."""

from __future__ import annotations

from collections.abc import Sequence


def by_length(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Indices in batches of `size`, shortest first, so that a batch pads little.

    Negative `lengths` put the longest first: a batch that does not fit into memory then fails at
    once, and progress is told by the slowest part.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return [order[start : start + size] for start in range(0, len(order), size)]


def by_tokens(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices in batches of at most `budget` tokens, padding included, longest first.

    A text that is longer than the budget is a batch by itself.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    batches: list[list[int]] = []
    for i in order:
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= budget:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches
