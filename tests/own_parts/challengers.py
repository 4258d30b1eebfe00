"""A sampler that learns from the answers: in each round the best so far meets the next one."""

import numpy as np

from zelo.comparison.sampler import BaseSampler
from zelo.config import option


class Challengers(BaseSampler):
    rounds: int = option(3, "rounds, the first included", ge=2)

    @property
    def max_rounds(self):
        return self.rounds

    def edges(self, n, rng):
        return np.array([(0, 1)], dtype=np.int64)

    def next_edges(self, n, edges, p, rounds_left, rng):
        challenger = len(edges) + 1
        if challenger >= n:
            return edges[:0]
        champion, other = edges[-1]
        best = champion if p[-1] >= 0.5 else other
        return np.array([(best, challenger)], dtype=np.int64)
