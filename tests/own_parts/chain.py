"""A comparison graph: each document against the next ones."""

import numpy as np

from zelo.comparison.sampler import BaseSampler
from zelo.config import option


class Chain(BaseSampler):
    reach: int = option(1, "how many of the next", ge=1)

    def edges(self, n, rng):
        pairs = [(i, j) for i in range(n) for j in range(i + 1, min(i + 1 + self.reach, n))]
        return np.array(pairs, dtype=np.int64).reshape(-1, 2)
