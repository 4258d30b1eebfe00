"""Maximum a posteriori Elos of many queries at once, by damped Newton steps.

Shapes: `Q` queries in the batch, `N` documents of the largest, `M` comparisons over all queries.
Everything is float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zelo.rating.likelihood import Likelihood

MAX_ITERATIONS = 100
MAX_HALVINGS = 40


@dataclass(frozen=True)
class Fit:
    """Elos of a batch of queries; places beyond a query's documents hold 0."""

    elo: Tensor  # (Q, N) float64, zero-sum within each query
    stderr: Tensor  # (Q, N) float64, standard error of elo within the zero-sum subspace
    iterations: Tensor  # (Q,) int64
    converged: Tensor  # (Q,) bool


def fit(
    sizes: Tensor,
    query_M: Tensor,
    i_M: Tensor,
    j_M: Tensor,
    p_M: Tensor,
    likelihood: Likelihood,
    prior: float,
    weight_M: Tensor | None = None,
    tolerance: float = 1e-10,
) -> Fit:
    """Elos `e` that minimise `Σ w · nll(e_i − e_j, p) + prior/2 · Σ e²` per query.

    `sizes` (Q,) documents per query; `query_M`, `i_M`, `j_M` (M,) int64 say which query and which
    two of its documents a comparison is about; `p_M` (M,) in [0, 1] is P(i ≻ j); `weight_M` (M,)
    ≥ 0, default 1. `prior` > 0 is the precision of a Gaussian prior on each Elo: it keeps
    separable and disconnected comparisons finite and, being the same for all documents, makes the
    solution zero-sum. Stops where no gradient entry of a query exceeds `tolerance` times (1 + the
    largest total weight that one of its documents has). Queries do not influence one another.

    Raises `ValueError` on preferences outside [0, 1], indices out of range, self-comparisons,
    negative weights or a prior that is not positive. Source: METHOD, stage 5.
    """
    weight_M = torch.ones_like(p_M) if weight_M is None else weight_M.double()
    check(sizes, query_M, i_M, j_M, p_M, weight_M, prior)
    queries, width = len(sizes), int(sizes.max()) if len(sizes) else 0
    p_M = p_M.double()
    flat_i, flat_j = query_M * width + i_M, query_M * width + j_M
    real = torch.arange(width, device=sizes.device)[None, :] < sizes[:, None]

    def per_document(value_i: Tensor, value_j: Tensor) -> Tensor:
        total = torch.zeros(queries * width, dtype=torch.float64, device=p_M.device)
        return (
            total.index_add(0, flat_i, value_i).index_add(0, flat_j, value_j).view(queries, width)
        )

    def objective(elo: Tensor) -> Tensor:
        loss = weight_M * likelihood(elo.view(-1)[flat_i] - elo.view(-1)[flat_j], p_M)[0]
        total = torch.zeros(queries, dtype=torch.float64, device=p_M.device)
        return total.index_add(0, query_M, loss) + 0.5 * prior * elo.square().sum(1)

    def derivatives(elo: Tensor) -> tuple[Tensor, Tensor]:
        _, slope, curvature = likelihood(elo.view(-1)[flat_i] - elo.view(-1)[flat_j], p_M)
        slope, curvature = weight_M * slope, weight_M * curvature
        gradient = per_document(slope, -slope) + prior * elo
        hessian = torch.zeros(queries * width * width, dtype=torch.float64, device=p_M.device)
        hessian = hessian.index_add(0, flat_i * width + j_M, -curvature)
        hessian = hessian.index_add(0, flat_j * width + i_M, -curvature)
        hessian = hessian.view(queries, width, width)
        diagonal = per_document(curvature, curvature) + prior
        return gradient, hessian + torch.diag_embed(diagonal)

    elo = torch.zeros(queries, width, dtype=torch.float64, device=p_M.device)
    if width == 0:
        nothing = torch.zeros(queries, dtype=torch.int64)
        return Fit(elo, elo.clone(), nothing, nothing == 0)
    scale = 1.0 + per_document(weight_M, weight_M).amax(1)
    iterations = torch.zeros(queries, dtype=torch.int64, device=p_M.device)
    value = objective(elo)
    for _ in range(MAX_ITERATIONS):
        gradient, hessian = derivatives(elo)
        active = gradient.abs().amax(1) > tolerance * scale
        if not active.any():
            break
        iterations += active
        direction = -torch.linalg.solve(hessian, gradient.unsqueeze(2)).squeeze(2)
        decrease = (gradient * direction).sum(1)  # negative: the Hessian is positive definite
        step = active.double()
        for _ in range(MAX_HALVINGS):
            trial = objective(elo + step[:, None] * direction)
            # Armijo's rule, with slack for the rounding of sums near the optimum.
            slack = 1e-14 * (1.0 + value.abs())
            bad = trial > value + 1e-4 * step * decrease + slack
            if not bad.any():
                break
            step = torch.where(bad, step / 2, step)
        step = torch.where(bad, torch.zeros_like(step), step)
        elo = elo + step[:, None] * direction
        elo = torch.where(
            real, elo - (elo * real).sum(1, keepdim=True) / sizes.clamp_min(1)[:, None], 0.0
        )
        value = objective(elo)
    gradient, hessian = derivatives(elo)
    converged = gradient.abs().amax(1) <= tolerance * scale
    return Fit(elo, standard_errors(hessian, sizes, real), iterations, converged)


def standard_errors(hessian: Tensor, sizes: Tensor, real: Tensor) -> Tensor:
    """Square roots of the diagonal of the inverse Hessian on the zero-sum subspace.

    `hessian` (Q, N, N) with the prior on its diagonal; `sizes` (Q,); `real` (Q, N) marks documents.
    The constant vector is an eigenvector of the Hessian (eigenvalue: the prior). Raising that
    eigenvalue to the size of the others before inverting, and taking its share out again, avoids
    the cancellation that a weak prior would cause.
    """
    n = sizes.clamp_min(1).double()[:, None, None]
    ones = real.double()
    constant = ones.unsqueeze(2) * ones.unsqueeze(1) / n
    stiff = hessian.diagonal(dim1=1, dim2=2).amax(1)[:, None, None]
    raised = hessian + stiff * constant
    eigenvalue = (ones.unsqueeze(1) @ raised @ ones.unsqueeze(2)) / n
    inverse = torch.linalg.inv(raised) - constant / eigenvalue
    variance = inverse.diagonal(dim1=1, dim2=2).clamp_min(0.0)
    return torch.where(real, variance.sqrt(), 0.0)


def check(
    sizes: Tensor,
    query_M: Tensor,
    i_M: Tensor,
    j_M: Tensor,
    p_M: Tensor,
    weight_M: Tensor,
    prior: float,
) -> None:
    """Raise `ValueError` naming the first comparison that cannot be rated."""
    if not prior > 0:
        raise ValueError(f"prior must be positive, found {prior}")
    if len(query_M) and not (int(query_M.min()) >= 0 and int(query_M.max()) < len(sizes)):
        raise ValueError(f"query index out of range for {len(sizes)} queries")
    problems = {
        "preference is not in [0, 1]": ~((p_M >= 0) & (p_M <= 1)),
        "weight is not a number of at least 0": ~((weight_M >= 0) & weight_M.isfinite()),
        "document is compared with itself": i_M == j_M,
        "document index out of range": (torch.minimum(i_M, j_M) < 0)
        | (torch.maximum(i_M, j_M) >= sizes[query_M]),
    }
    for problem, bad in problems.items():
        if bad.any():
            row = int(bad.nonzero()[0, 0])
            raise ValueError(f"comparison {row} of query {int(query_M[row])}: {problem}")
