"""Slots of a block and Elos, told apart."""

from __future__ import annotations

import numpy as np
import pytest

from zelo.rating.plackett_luce import RankingChoices
from zelo.rating.slot_effects import ShownChoices, _terms, fit_slot_effects


def drawn(
    h: np.ndarray, queries: int, n: int, times: int, rng: np.random.Generator
) -> list[list[ShownChoices]]:
    """Orders of blocks of `len(h)` of the `n` documents of each query, by Plackett and Luce."""
    found = []
    for _ in range(queries):
        e = rng.normal(0, 1, n)
        shown = []
        for _ in range(times):
            block = rng.permutation(n)[: len(h)]
            order = np.argsort(-(e[block] + h + rng.gumbel(size=len(h))))
            effect = np.full(n, -1)
            effect[block] = np.arange(len(h))
            groups = [np.array([d]) for d in block[order]]
            choices = RankingChoices.of_ranking(n, groups, np.zeros(0, np.int64))
            shown.append(ShownChoices(choices, effect))
        found.append(shown)
    return found


def test_planted_effects_are_found() -> None:
    h = np.array([0.6, 0.1, 0.0, -0.2, -0.5])
    fit = fit_slot_effects(drawn(h, 60, 15, 9, np.random.default_rng(0)), [5], prior=0.5)
    assert fit.converged
    assert fit.effect.sum() == pytest.approx(0, abs=1e-6)
    assert (np.abs(fit.effect - h) < 3 * fit.stderr).all()
    assert fit.stderr.max() < 0.12


def test_without_effects_none_are_found() -> None:
    z = []
    for seed in range(8):
        fit = fit_slot_effects(
            drawn(np.zeros(4), 15, 8, 8, np.random.default_rng(seed)), [4], prior=1.0
        )
        z.append(fit.effect / fit.stderr)
    assert 0.4 < np.square(z).mean() < 1.5  # one of the four follows from the rest


def test_the_gradient_is_that_of_the_value() -> None:
    rng = np.random.default_rng(1)
    queries = drawn(np.array([0.5, 0.0, -0.5]), 3, 6, 4, rng)
    elos = [rng.normal(0, 1, 6) for _ in queries]
    h = rng.normal(0, 0.5, 3)
    fit = fit_slot_effects(queries, [3], 0.7)
    # Where it ends, no small step of Elos or effects helps.
    base = _terms(queries, elos, h, 0.7)[0]
    assert base > 0
    found_elos = elos
    for _ in range(60):
        _, eliminated, _, gradient = _terms(queries, found_elos, fit.effect, 0.7)
        found_elos = [e - slope for e, (slope, _) in zip(found_elos, eliminated, strict=True)]
    assert np.abs(gradient).max() < 1e-5
    best = _terms(queries, found_elos, fit.effect, 0.7)[0]
    for _ in range(20):
        moved = fit.effect + 1e-3 * rng.normal(size=3)
        shifted = [e + 1e-3 * rng.normal(size=6) for e in found_elos]
        assert _terms(queries, shifted, moved, 0.7)[0] > best
