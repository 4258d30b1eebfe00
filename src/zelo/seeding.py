"""Random streams that do not depend on one another.

Each stage and each query draws from a stream of its own, derived from the seed and from names, so
that adding a query changes no other query's pairs.
"""

from __future__ import annotations

import hashlib

import numpy as np


def derived_seed(seed: int, *names: str) -> int:
    """Seed in [0, 2⁶³) for the stream called `names` under `seed`."""
    text = "\x1f".join([str(seed), *names])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(seed: int, *names: str) -> np.random.Generator:
    """Random generator of the stream called `names` under `seed`."""
    return np.random.default_rng(derived_seed(seed, *names))
