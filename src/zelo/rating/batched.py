"""The solver for CUDA devices: damped Newton steps with dense Hessians, many queries at once.

Sizes: `Q` queries of a block, `N` documents of its largest, `M` comparisons. Blocks are of queries
of similar size and as many as `BYTES` of Hessians allow. Everything is float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zelo.rating.comparisons import Comparisons, Reals, Wholes
from zelo.rating.likelihood_torch import LIKELIHOODS

MAX_STEPS = 200
MAX_HALVINGS = 40
BYTES = 2**31


class Block:
    """Some queries of a set of comparisons, padded to the largest of them."""

    def __init__(
        self, comparisons: Comparisons, queries: Wholes, model: str, prior: float, device: Any
    ) -> None:
        rows = np.concatenate([comparisons.rows_of(int(q)) for q in queries])
        index = np.zeros(comparisons.queries, np.int64)
        index[queries] = np.arange(len(queries))
        self.width = int(comparisons.sizes[queries].max())
        self.likelihood, self.prior = LIKELIHOODS[model], prior

        def tensor(values: Any) -> Tensor:
            return torch.as_tensor(values).to(device)

        self.sizes = tensor(comparisons.sizes[queries])
        self.query_M = tensor(index[comparisons.query[rows]])
        self.i_M = tensor(comparisons.i[rows])
        self.j_M = tensor(comparisons.j[rows])
        self.p_M = tensor(comparisons.p[rows])
        self.weight_M = tensor(comparisons.weight[rows])
        self.known_M = tensor(comparisons.known[rows] if len(comparisons.known) else 0.0)
        self.flat_i = self.query_M * self.width + self.i_M
        self.flat_j = self.query_M * self.width + self.j_M
        self.real = torch.arange(self.width, device=device)[None, :] < self.sizes[:, None]
        # Where each document of the block lies in arrays of all documents.
        first = comparisons.offsets[queries]
        self.documents = np.concatenate(
            [np.arange(a, a + n) for a, n in zip(first, comparisons.sizes[queries], strict=True)]
        )
        self.heaviest = self.per_document(self.weight_M, self.weight_M).amax(1)
        self.steep = 2.0 if model == "thurstone" else 0.0

    def per_document(self, value_i: Tensor, value_j: Tensor) -> Tensor:
        """Sum over the comparisons of each document, (Q, N)."""
        total = torch.zeros(self.real.numel(), dtype=torch.float64, device=value_i.device)
        total = total.index_add(0, self.flat_i, value_i).index_add(0, self.flat_j, value_j)
        return total.view(self.real.shape)

    def differences(self, elo: Tensor) -> Tensor:
        """`e_i − e_j` (M,) with what is known of it, at the Elos (Q, N)."""
        flat = elo.reshape(-1)
        return flat[self.flat_i] - flat[self.flat_j] + self.known_M

    def bend_per_length(self, elo: Tensor) -> Tensor:
        """The bend (Q,) of `likelihood.error_bounds` for a step of length 1, at the Elos (Q, N)."""
        farthest = torch.zeros(len(elo), dtype=torch.float64, device=elo.device)
        farthest = farthest.scatter_reduce(0, self.query_M, self.differences(elo).abs(), "amax")
        return (self.steep * farthest + 1.0) * math.sqrt(2.0 / self.prior)

    def objective(self, elo: Tensor) -> Tensor:
        """Penalised loss per query (Q,) at the Elos (Q, N)."""
        d = self.differences(elo)
        total = torch.zeros(len(elo), dtype=torch.float64, device=elo.device)
        total = total.index_add(0, self.query_M, self.weight_M * self.likelihood(d, self.p_M)[0])
        return total + 0.5 * self.prior * elo.square().sum(1)

    def derivatives(self, elo: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient (Q, N) and Hessian (Q, N, N) at the Elos (Q, N)."""
        d = self.differences(elo)
        _, slope, curvature = self.likelihood(d, self.p_M)
        slope, curvature = self.weight_M * slope, self.weight_M * curvature
        gradient = self.per_document(slope, -slope) + self.prior * elo
        hessian = torch.zeros(
            self.real.numel() * self.width, dtype=torch.float64, device=elo.device
        )
        hessian = hessian.index_add(0, self.flat_i * self.width + self.j_M, -curvature)
        hessian = hessian.index_add(0, self.flat_j * self.width + self.i_M, -curvature)
        diagonal = self.per_document(curvature, curvature) + self.prior
        return gradient, hessian.view(*self.real.shape, -1) + torch.diag_embed(diagonal)


def blocks(
    comparisons: Comparisons, model: str, prior: float, device: Any
) -> Iterator[tuple[Wholes, Block]]:
    """All queries in blocks, the small ones first."""
    order = np.argsort(comparisons.sizes, kind="stable")
    first = 0
    while first < len(order):
        # The largest of a block is its last, and a Hessian is held a few times over.
        fits = 4 * 8 * comparisons.sizes[order[first:]] ** 2 * np.arange(1, len(order) - first + 1)
        last = first + max(1, int(np.searchsorted(fits, BYTES)))
        yield order[first:last], Block(comparisons, order[first:last], model, prior, device)
        first = last


def fit(
    comparisons: Comparisons, model: str, prior: float, tolerance: float, start: Reals | None
) -> tuple[Reals, Wholes, Reals, Reals]:
    """Elos (D,), Newton steps, errors and heaviest documents (Q,); see `kernels/newton.py`."""
    elos = np.zeros(int(comparisons.offsets[-1]))
    iterations = np.zeros(comparisons.queries, np.int64)
    errors, heaviest = np.zeros(comparisons.queries), np.zeros(comparisons.queries)
    for queries, block in blocks(comparisons, model, prior, comparisons.device):
        elo = torch.zeros(block.real.shape, dtype=torch.float64, device=comparisons.device)
        if start is not None:
            elo[block.real] = torch.as_tensor(start[block.documents]).to(elo.device)
            elo = centred(elo, block)
        elo, steps, error = newton(elo, block, tolerance)
        elos[block.documents] = elo[block.real].cpu().numpy()
        iterations[queries], errors[queries] = steps.cpu().numpy(), error.cpu().numpy()
        heaviest[queries] = block.heaviest.cpu().numpy()
    return elos, iterations, errors, heaviest


def newton(elo: Tensor, block: Block, tolerance: float) -> tuple[Tensor, Tensor, Tensor]:
    """Newton steps with Armijo's rule, each query with its own step, until all have converged."""
    steps = torch.zeros(len(elo), dtype=torch.int64, device=elo.device)
    value = block.objective(elo)
    gradient, hessian = block.derivatives(elo)
    done = torch.zeros_like(steps, dtype=torch.bool)
    error = torch.full_like(value, torch.inf)
    for _ in range(MAX_STEPS + 1):
        factor = torch.linalg.cholesky_ex(hessian)[0]
        direction = -torch.cholesky_solve(gradient.unsqueeze(2), factor).squeeze(2)
        # The bounds of `likelihood.error_bounds`
        pull = (hessian @ direction.unsqueeze(2)).squeeze(2)
        left = (gradient + pull).square().sum(1).sqrt() / math.sqrt(block.prior)
        decrement = (direction * pull).sum(1).clamp_min(0.0).sqrt() + left
        bend = block.bend_per_length(elo) * decrement
        before = torch.where(bend <= 0.1, 1.2 * decrement, torch.inf)
        after = torch.where(bend <= 0.1, 1.1 * left + bend * decrement, torch.inf)
        error = torch.where(done, error, before)
        done |= error <= tolerance
        active = ~done & (steps < MAX_STEPS)
        if not active.any():
            break
        last = active & (after <= tolerance)
        steps += active
        decrease = (gradient * direction).sum(1)  # negative: the Hessian is positive definite
        step = active.double()
        for _ in range(MAX_HALVINGS):
            trial = block.objective(elo + step[:, None] * direction)
            # Slack for the rounding of sums near the optimum.
            bad = trial > value + 1e-4 * step * decrease + 1e-14 * (1.0 + value.abs())
            bad &= active & ~last
            if not bad.any():
                break
            step = torch.where(bad, step / 2, step)
        step = torch.where(bad, torch.zeros_like(step), step)
        error = torch.where(last, after, error)
        done |= last | bad
        elo = centred(elo + step[:, None] * direction, block)
        value = block.objective(elo)
        gradient, hessian = block.derivatives(elo)
    return elo, steps, error


def centred(elo: Tensor, block: Block) -> Tensor:
    """Elos (Q, N) moved to zero sum within each query, and 0 beyond its documents."""
    mean = (elo * block.real).sum(1, keepdim=True) / block.sizes[:, None]
    return torch.where(block.real, elo - mean, 0.0)


def standard_errors(comparisons: Comparisons, elos: Reals, model: str, prior: float) -> Reals:
    """Standard errors (D,); see `solver.standard_errors`, and `kernels/uncertainty.py` for how."""
    stderr = np.zeros(int(comparisons.offsets[-1]))
    for _, block in blocks(comparisons, model, prior, comparisons.device):
        elo = torch.zeros(block.real.shape, dtype=torch.float64, device=comparisons.device)
        elo[block.real] = torch.as_tensor(elos[block.documents]).to(elo.device)
        _, hessian = block.derivatives(elo)
        ones, n = block.real.double(), block.sizes.double()[:, None, None]
        constant = ones.unsqueeze(2) * ones.unsqueeze(1) / n
        stiff = hessian.diagonal(dim1=1, dim2=2).amax(1)[:, None, None]
        factor = torch.linalg.cholesky_ex(hessian + stiff * constant)[0]
        inverse = torch.cholesky_inverse(factor) - constant / (prior + stiff)
        variance = inverse.diagonal(dim1=1, dim2=2).clamp_min(0.0)
        stderr[block.documents] = variance.sqrt()[block.real].cpu().numpy()
    return stderr
