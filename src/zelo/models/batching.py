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


def by_size_and_tokens(lengths: Sequence[int], size: int, max_tokens: int) -> list[list[int]]:
    """Indices in batches of at most `size` texts and `max_tokens` tokens, padding included.

    The longest come first. A text that has more tokens than that is a batch by itself.
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        last = batches[-1] if batches else []
        if 0 < len(last) < size and (len(last) + 1) * lengths[last[0]] <= max_tokens:
            last.append(i)
        else:
            batches.append([i])
    return batches


def by_own_tokens(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Indices in batches of at most `max_tokens` tokens, read without padding, longest first.

    A text that has more tokens than that is a batch by itself.
    """
    batches: list[list[int]] = []
    room = 0
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not batches or lengths[i] > room:
            batches.append([])
            room = max_tokens
        batches[-1].append(i)
        room -= lengths[i]
    return batches


OVERHEAD = 16  # a batch by itself costs about as much as a 16th of what one may hold, in padding


def by_tokens(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Indices in batches of at most `max_tokens` tokens, padding included, longest first.

    Of all ways to cut the texts, sorted by length, into batches it is the one with the fewest
    padded tokens, each batch counted as `max_tokens / OVERHEAD` tokens more. A text that has more
    tokens than that is a batch by itself.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    cost, start = [0.0], [0]  # of the best cut of the first n texts; where its last batch starts
    for end in range(1, len(order) + 1):
        best, at = float("inf"), end - 1
        for begin in range(end - 1, -1, -1):
            tokens = (end - begin) * lengths[order[begin]]
            if tokens > max_tokens and begin < end - 1:
                break
            if cost[begin] + tokens < best:
                best, at = cost[begin] + tokens, begin
        cost.append(best + max_tokens / OVERHEAD)
        start.append(at)
    batches: list[list[int]] = []
    end = len(order)
    while end:
        batches.append(order[start[end] : end])
        end = start[end]
    return batches[::-1]
