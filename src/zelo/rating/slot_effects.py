"""What standing at a slot of a block adds to a document, for each judge, together with the Elos.

Judge k chooses from what is there with probability ∝ `exp(e_d + h_k,s)`, where `s` is the slot at
which document `d` was shown: the position bias of comparisons (`zelo.rating.judges`), for lists.
Blocks are shown in random order, so that slots and Elos can be told apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import block_diag
from scipy.special import logsumexp

from zelo.rating.comparisons import Reals, Wholes
from zelo.rating.plackett_luce import RankingChoices

MAX_STEPS = 100
EFFECT_PRIOR = 1.0  # precision of the prior on an effect


@dataclass(frozen=True)
class ShownChoices:
    """The choices of one ranking, or of comparisons of two, and where documents were shown."""

    choices: RankingChoices
    effect: Wholes  # (n,) which of the effects is that of each document's slot; −1: none


@dataclass(frozen=True)
class SlotFit:
    """Effects `h` (H,), of mean 0 for each judge, and their standard errors, which allow for those
    of the Elos."""

    effect: Reals
    stderr: Reals
    converged: bool


def fit_slot_effects(
    queries: Sequence[Sequence[ShownChoices]],
    slots: Sequence[int],
    prior: float,
    tolerance: float = 1e-6,
) -> SlotFit:
    """The effects of highest posterior, jointly with the Elos of all queries.

    `queries` has the choices of each, `slots` how many effects each judge has, one judge after
    another; `prior` is the precision of the Gaussian prior on an Elo. Damped Newton steps on both,
    the Elos of each query eliminated (Schur's complement).
    """
    effects = sum(slots)
    elos = [np.zeros(len(shown[0].choices.chosen)) for shown in queries]
    h: Reals = np.zeros(effects)
    value, terms, matrix, gradient = _terms(queries, elos, h, prior)
    for steps in range(MAX_STEPS + 1):
        move = -np.linalg.solve(matrix, gradient)
        moves = [-(slope + cross @ move) for slope, cross in terms]
        largest = max([np.abs(move).max(initial=0.0), *(np.abs(m).max() for m in moves)])
        if largest <= tolerance or steps == MAX_STEPS:
            break
        step = 1.0
        while True:
            tried = [e + step * m for e, m in zip(elos, moves, strict=True)]
            trial = _terms(queries, tried, h + step * move, prior)
            if trial[0] <= value + 1e-12 * (1 + abs(value)) or step < 1e-6:
                break
            step /= 2
        elos, h = tried, h + step * move
        value, terms, matrix, gradient = trial
    # Of a judge's effects only the differences are known.
    centred = block_diag(*(np.eye(n) - 1 / n for n in slots))
    variance = (centred @ np.linalg.inv(matrix) @ centred).diagonal()
    return SlotFit(centred @ h, np.sqrt(np.maximum(variance, 0.0)), bool(largest <= tolerance))


def _terms(
    queries: Sequence[Sequence[ShownChoices]], elos: Sequence[Reals], h: Reals, prior: float
) -> tuple[float, list[tuple[Reals, Reals]], Reals, Reals]:
    """Penalised negative log-likelihood; of each query `H_ee⁻¹ g_e` (n,) and `H_ee⁻¹ H_eh` (n, H);
    Hessian (H, H) and gradient (H,) of the effects with the Elos eliminated."""
    value = EFFECT_PRIOR / 2 * float(h @ h)
    matrix, gradient = EFFECT_PRIOR * np.eye(len(h)), EFFECT_PRIOR * h
    eliminated: list[tuple[Reals, Reals]] = []
    for shown, e in zip(queries, elos, strict=True):
        n = len(e)
        value += prior / 2 * float(e @ e)
        g_e, h_ee, h_eh = prior * e, prior * np.eye(n), np.zeros((n, len(h)))
        for part in shown:
            choices, there = part.choices, part.effect >= 0
            at = part.effect[there]
            moved = e.copy()
            moved[there] += h[at]
            left = moved + choices.log_weight
            total = logsumexp(left, axis=1)
            chance = np.exp(left - total[:, None])
            expected = choices.weight @ chance
            value += float(choices.weight @ total) - float(choices.chosen @ moved)
            curvature = np.diag(expected) - chance.T @ (choices.weight[:, None] * chance)
            slope = expected - choices.chosen
            g_e = g_e + slope
            h_ee += curvature
            h_eh[:, at] += curvature[:, there]
            gradient[at] += slope[there]
            matrix[np.ix_(at, at)] += curvature[np.ix_(there, there)]
        solved = np.linalg.solve(h_ee, np.column_stack([g_e, h_eh]))
        eliminated.append((np.array(solved[:, 0]), np.array(solved[:, 1:])))
        gradient = gradient - h_eh.T @ solved[:, 0]
        matrix -= h_eh.T @ solved[:, 1:]
    return value, eliminated, matrix, gradient
