"""How much of its prompts a server that keeps beginnings has read before.

    python experiments/judging_cost/kept_prefixes.py

Four cycles among 100 documents of each query, in the order in which they are asked. The server
keeps blocks of 16 tokens, reckoned as four characters each, of every prompt that it has answered,
and drops nothing; with some requests in flight it has not yet kept those. Prints the share of all
tokens that stood in such blocks.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from zelo.comparison.graphs import Cycles
from zelo.judging.prompt import messages
from zelo.judging.question import Question

BLOCK = 64  # characters
QUERIES, DOCUMENTS = 5, 100


def text(rng: np.random.Generator, words: int) -> str:
    """Words of some six characters."""
    return " ".join(f"w{number:05d}" for number in rng.integers(0, 99_999, words))


def share_kept(words: int, in_flight: int) -> float:
    """Share of the tokens of all prompts that the server has kept."""
    rng = np.random.default_rng(0)
    kept: set[int] = set()
    flying: deque[list[int]] = deque()
    read = found = 0
    for _ in range(QUERIES):
        query, docs = text(rng, 8), [text(rng, words) for _ in range(DOCUMENTS)]
        for a, b in Cycles(cycles=4).edges(DOCUMENTS, rng).tolist():
            question = Question("q", f"{a}", f"{b}", 0, query, docs[a], docs[b])
            whole = "\n".join(part["content"] for part in messages(question, 10_000))
            blocks = [hash(whole[:end]) for end in range(BLOCK, len(whole) + 1, BLOCK)]
            read += len(whole)
            found += BLOCK * next((n for n, b in enumerate(blocks) if b not in kept), len(blocks))
            flying.append(blocks)
            if len(flying) >= in_flight:
                kept.update(flying.popleft())
    return found / read


if __name__ == "__main__":
    for words in (60, 170, 500):
        for in_flight in (1, 16):
            print(f"{words} words, {in_flight} in flight: {share_kept(words, in_flight):.1%}")
