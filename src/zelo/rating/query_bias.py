"""The bias of each query: what makes Elos comparable across queries (METHOD, stage 6).

Elos are only relative within a query. Cross-query comparisons ask whether `d` answers `q` better
than `d'` answers `q'`; the bias `b_q` of each query is fitted by the same likelihood, with the Elos
given: `P = P(e_i + b_q − e_j − b_q')`. On this common scale all documents of a query that nothing
answers are low.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from zelo.rating.comparisons import Comparisons, Reals, Wholes, whole
from zelo.rating.solver import fit, standard_errors

EXACT_UP_TO = 4096  # queries: standard errors of more are estimated
PROBES = 64  # random vectors that they are estimated by


@dataclass(frozen=True)
class QueryBiases:
    """Biases of `Q` queries, on the scale of the Elos."""

    bias: Reals  # (Q,) float64, zero-sum
    stderr: Reals  # (Q,) float64, given the Elos
    components: int  # of the graph of queries: biases compare only within one
    converged: bool


def fit_query_biases(
    elo: Reals,
    offsets: Wholes,
    first: ArrayLike,
    second: ArrayLike,
    p: ArrayLike,
    weight: ArrayLike | None = None,
    model: str = "thurstone",
    prior: float = 0.05,
) -> QueryBiases:
    """Biases `b_q` (Q,) from cross-query comparisons.

    `elo` (D,) are the Elos within queries, `offsets` (Q + 1,) where each query begins; `first` and
    `second` (M,) are indices of the compared documents in `elo`, of different queries; `p` (M,) in
    [0, 1] is the preference for `first`. Standard errors take the Elos as given: exact up to 4,096
    queries, and by 64 random probes (about 10 % of their size) beyond.

    Raises `ValueError` naming the row where a comparison is within one query or out of range.
    """
    first, second = whole("first", first), whole("second", second)
    for name, side in (("first", first), ("second", second)):
        strange = (side < 0) | (side >= len(elo))
        if strange.any():
            row = int(strange.argmax())
            raise ValueError(
                f"row {row}: {name}={side[row]} is out of range for {len(elo)} documents"
            )
    queries = len(offsets) - 1
    of = np.repeat(np.arange(queries), np.diff(offsets))
    same = of[first] == of[second]
    if same.any():
        row = int(same.argmax())
        raise ValueError(f"row {row}: both documents are of query {of[first[row]]}")
    # One rating problem whose "documents" are the queries.
    comparisons = Comparisons(
        np.zeros(len(first), np.int64),
        of[first],
        of[second],
        p,
        weight,
        sizes=[queries],
        known=elo[first] - elo[second],
    )
    fitted = fit(comparisons, model, prior)
    stderr = (
        standard_errors(comparisons, fitted.elo, model, prior)
        if queries <= EXACT_UP_TO
        else _probed_errors(comparisons, fitted.elo, model, prior)
    )
    return QueryBiases(
        fitted.elo, stderr, int(comparisons.components[0]), bool(fitted.converged[0])
    )


def _probed_errors(comparisons: Comparisons, bias: Reals, model: str, prior: float) -> Reals:
    """Standard errors (Q,) without a dense matrix: the inverse's diagonal, estimated by probes.

    For a vector z of random signs, `z ⊙ H⁻¹z` has the diagonal of the inverse as its expectation
    (Hutchinson; Bekas et al., 2007). The diagonal's own inverse, known exactly, is taken out first.
    """
    from scipy.sparse import coo_matrix, diags
    from scipy.sparse.linalg import cg

    from zelo.rating.likelihood import LIKELIHOODS

    n = len(bias)
    curvature = (
        comparisons.weight * LIKELIHOODS[model](comparisons.differences(bias), comparisons.p)[2]
    )
    i, j = comparisons.i, comparisons.j
    half = coo_matrix((curvature, (i, j)), (n, n))
    adjacency = (half + half.T).tocsr()
    diagonal = np.asarray(adjacency.sum(1)).ravel() + prior
    matrix, scale = diags(diagonal) - adjacency, diags(1 / diagonal)
    rng, total = np.random.default_rng(0), np.zeros(n)
    for _ in range(PROBES):
        z = rng.choice([-1.0, 1.0], n)
        z -= z.mean()
        solved, _ = cg(matrix, z, rtol=1e-4, M=scale)
        total += z * (solved - z / diagonal)
    return np.sqrt(np.maximum(1 / diagonal + total / PROBES, 0.5 / diagonal))
