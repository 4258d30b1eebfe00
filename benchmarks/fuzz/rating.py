"""The solver against its reference, and what goes with it."""

from __future__ import annotations

import math
import random
from itertools import pairwise
from typing import Any

import numpy as np
from benchmarks.fuzz.inputs import expect

from zelo.rating import (
    ComparisonError,
    Comparisons,
    batched,
    fit,
    fit_levels,
    fit_rankings,
    reference,
    standard_errors,
)
from zelo.rating.judges import fit_judges
from zelo.rating.plackett_luce import derivatives as ranking_derivatives
from zelo.rating.solver import EVEN, MODELS
from zelo.rating.targets import TARGETS, targets, weights

Rows = dict[str, Any]  # columns of `Comparisons`, with `model` and `prior`


def draw_comparisons(rng: random.Random) -> Rows:
    """Valid comparisons of a few queries; of all strengths, and of weights from 0 to enormous."""
    draw = np.random.default_rng(rng.getrandbits(64))
    sizes = draw.integers(1, rng.choice((3, 9)), rng.randrange(1, 4))
    m = rng.choice((0, 1, 5, 30)) if (sizes > 1).any() else 0
    query = draw.choice(np.flatnonzero(sizes > 1), m) if m else np.zeros(0, np.int64)
    i = (draw.random(m) * sizes[query]).astype(np.int64)
    j = (i + 1 + (draw.random(m) * (sizes[query] - 1)).astype(np.int64)) % sizes[query]
    p = rng.choice((draw.random(m), draw.integers(0, 2, m), draw.choice([0, 0.5, 1, 5e-324], m)))
    heavy = rng.choice((1.0, 1.0, 1.0, 1e4, 1e9, 1e11))
    weight = draw.choice([0.0, 1e-9, 0.5, 1.0, 3.0], m) * draw.choice([1.0, heavy], m)
    known = rng.choice((None, None, draw.normal(0, 1, m), draw.uniform(-20, 20, m)))
    return {"query": query, "i": i, "j": j, "p": p.astype(float), "weight": weight, "sizes": sizes,
            "known": known, "model": rng.choice(MODELS),
            "prior": rng.choice((0.05, 0.05, 1e-3, 1.0, 1e-9, 1e6))}  # fmt: skip


def split(example: Rows) -> tuple[Comparisons, str, float]:
    """Comparisons, model and prior of drawn columns."""
    columns = {key: value for key, value in example.items() if key not in ("model", "prior")}
    return Comparisons(**columns), example["model"], example["prior"]


def slack_of(c: Comparisons, gradient: Any, unit: float, prior: float) -> Any:
    """How far Elos (D,) may be from the optimum: the loss is at least as curved as the prior."""
    degree = np.zeros(int(c.offsets[-1]))
    np.add.at(degree, c.base + c.i, c.weight)
    np.add.at(degree, c.base + c.j, c.weight)
    scale = np.maximum.reduceat(degree, c.offsets[:-1])
    off = (np.asarray(gradient) + 1e-14) * (1 + scale) * unit * np.sqrt(c.sizes) / prior
    return np.repeat(2 * off + 1e-9, c.sizes)


def check_solver(example: Rows) -> None:
    """Elos are finite, sum to 0, have a gradient of 0, and follow their documents."""
    c, model, prior = split(example)
    fitted = fit(c, model, prior)
    far = np.abs(c.known).max(initial=0) > 4 and c.weight.max(initial=0) > 1e3
    if far and not fitted.converged.all():
        return  # a loss that is flat to the last bit; it says so
    expect(np.isfinite(fitted.elo).all(), "an Elo is not finite", fitted)
    stderr = standard_errors(c, fitted.elo, model, prior)
    expect(np.isfinite(stderr).all() and (stderr >= 0).all(), "no standard error", stderr)
    if c.weight.max(initial=0) <= 1e12 * prior:  # float64 is enough
        expect(fitted.converged.all(), "not converged", fitted.gradient, example)
    else:
        gradient = fitted.gradient
        expect((gradient < 1e-7).all(), "not nearly converged", gradient, example)
    sums = np.add.reduceat(fitted.elo, c.offsets[:-1])
    top = np.abs(fitted.elo).max(initial=1.0)
    expect((np.abs(sums) < 1e-9 * top).all(), "Elos do not sum to 0", sums)
    turn = [np.random.default_rng(0).permutation(n) for n in c.sizes]
    place = np.concatenate([a + t for a, t in zip(c.offsets, turn, strict=False)])
    i, j = ((place[c.base + side] - c.base) for side in (c.i, c.j))
    back = np.arange(len(c))[::-1]
    known = c.known[back] if len(c.known) else None
    other = fit(Comparisons(c.query[back], i[back], j[back], c.p[back], c.weight[back], c.sizes,
                            known), model, prior)  # fmt: skip
    slack = slack_of(c, np.maximum(fitted.gradient, other.gradient), EVEN[model], prior)
    apart = np.abs(other.elo[place] - fitted.elo)
    expect((apart <= slack).all(), "another order, other Elos", apart, example)


def check_reference(example: Rows) -> None:
    """The compiled and the batched solver find what the readable one finds."""
    import torch

    c, model, prior = split(example)
    known = np.abs(c.known).max(initial=0)
    if not len(c) or c.weight.max() > 1e12 * prior or known > 4:  # float64 is not enough
        return
    found = []
    for q, n in enumerate(c.sizes):
        rows = c.rows_of(q)
        known = c.known[rows] if len(c.known) else 0.0
        columns = (column[rows] for column in (c.i, c.j, c.p, c.weight))
        elo = reference.newton(int(n), *columns, model, prior, known)
        found.append(elo)
    theirs = np.concatenate(found)
    off = np.zeros(c.queries)
    for q in range(c.queries):
        rows = c.rows_of(q)
        known = c.known[rows] if len(c.known) else 0.0
        columns = (column[rows] for column in (c.i, c.j, c.p, c.weight))
        gradient = reference.derivatives(found[q], *columns, model, prior, known)[1]
        off[q] = np.abs(gradient).max(initial=0.0)
    left = np.repeat(off * np.sqrt(c.sizes) / prior, c.sizes)
    fitted = fit(c, model, prior)
    apart = np.abs(fitted.elo - theirs)
    slack = slack_of(c, fitted.gradient, EVEN[model], prior) + left
    expect((apart <= slack).all(), "not the reference's Elos", apart, slack, example)
    tensors = Comparisons(c.query, c.i, c.j, torch.from_numpy(c.p), c.weight, c.sizes,
                          c.known if len(c.known) else None)  # fmt: skip
    elo, _, gradient = batched.fit(tensors, model, prior, 1e-9 * EVEN[model], None)
    expect(np.isfinite(elo).all(), "batched: an Elo is not finite", elo, example)
    apart = np.abs(elo - theirs)
    slack = slack_of(c, gradient, 1.0, prior) + left
    expect((apart <= slack).all(), "batched: not the reference's Elos", apart, slack, example)
    pairs = (standard_errors(c, theirs, model, prior),
             batched.standard_errors(tensors, theirs, model, prior))  # fmt: skip
    expect(np.allclose(*pairs, rtol=1e-4, atol=1e-6), "batched: other standard errors", pairs)


def draw_bad_comparisons(rng: random.Random) -> tuple[list[Any], ...]:
    """Columns most of which cannot be rated."""
    m = rng.randrange(4)
    numbers = (0, 0, 1, 1, 2, -1, 3)
    reals = (0.0, 0.5, 1.0, -0.1, 1.1, math.nan, math.inf, -math.inf, 5e-324, 1e308)
    columns: list[Any] = [rng.choices(numbers, k=m) for _ in range(3)]
    columns += [rng.choices(reals, k=m), rng.choice((None, rng.choices(reals, k=m)))]
    columns += [rng.choice((None, rng.choices(numbers, k=2))), rng.choice((None, [0.0] * m))]
    if rng.random() < 0.1:
        columns[rng.randrange(4)].append(0)
    return tuple(columns)


def check_bad_comparisons(example: tuple[list[Any], ...]) -> None:
    """Comparisons that cannot be rated are refused by a `ValueError`, others are rated."""
    try:
        c = Comparisons(*example)
    except ValueError as error:
        expect("\n" not in str(error), "two lines", error)
        expect(not isinstance(error, ComparisonError) or error.row >= 0, "no row", error)
        return
    rows = zip(c.i.tolist(), c.j.tolist(), c.p.tolist(), strict=True)
    expect(all(i != j and 0 <= p <= 1 for i, j, p in rows), "a bad row was taken", example)
    if c.weight.max(initial=0) < 1e100:
        expect(np.isfinite(fit(c).elo).all(), "not finite", example)


def check_judges(example: tuple[Rows, int]) -> None:
    """Judges of mean scale 1, Elos and errors that are finite."""
    c, model, prior = split(example[0])
    if c.weight.max(initial=0) > 1e10:
        return
    judge = np.random.default_rng(example[1]).integers(0, 3, len(c))
    found = fit_judges(c, judge, 3, model, None if example[1] % 2 else prior)
    for name in ("elo", "stderr", "bias", "bias_stderr", "scale", "log_scale_stderr"):
        values = getattr(found, name)
        expect(np.isfinite(values).all(), f"judges: {name} is not finite", values, example)
    expect(abs(found.scale.mean() - 1) < 1e-9, "the mean scale is not 1", found.scale)


def draw_rankings(rng: random.Random) -> tuple[list[int], list[list[int]], float]:
    """Rankings, a few of which cannot be."""
    query = [
        rng.choice((0, 0, 1, 2, -1) if rng.random() < 0.1 else (0, 0, 1))
        for _ in range(rng.randrange(6))
    ]
    rankings = [rng.sample(range(6), rng.randrange(2, 6)) for _ in query]
    if rankings and rng.random() < 0.1:
        rankings[0] = rng.choices((-1, 0, 1, 5), k=rng.randrange(4))
    return query, rankings, rng.choice((0.05, 0.05, 1.0, 1e-3, 1e-9, 1e-12, 1e6))


def check_rankings(example: tuple[list[int], list[list[int]], float]) -> None:
    """Elos of whole rankings have a gradient of 0; what cannot be is a `ValueError`."""
    query, rankings, prior = example
    try:
        found = fit_rankings(query, rankings, prior)
    except ValueError:
        counts = max(query, default=-1) + 1
        tiny = f" at a prior of {prior:g}" if prior < 1e-9 else ""
        good = all(len(set(r)) == len(r) >= 2 and min(r) >= 0 for r in rankings)
        expect(
            not good or set(query) != set(range(counts)),
            f"good rankings were refused{tiny}",
            example,
        )
        return
    expect(np.isfinite(found.elo).all(), "rankings: not finite", found.elo)
    expect(found.converged.all(), "rankings: not converged", found.gradient, example)
    for q in set(query):
        mine = [np.array(r) for of, r in zip(query, rankings, strict=True) if of == q]
        gradient = ranking_derivatives(found.of(q), mine, prior)[1]
        expect(np.abs(gradient).max() < 1e-6 * (1 + len(mine)), "rankings: a gradient", gradient)


def draw_levels(rng: random.Random) -> tuple[Any, ...]:
    """Elos of three queries, and comparisons across them."""
    draw = np.random.default_rng(rng.getrandbits(64))
    sizes = draw.integers(1, 4, 3)
    m, total = rng.randrange(6), int(sizes.sum())
    elo = draw.normal(0, rng.choice((1.0, 100.0, 1e6)), total)
    low = -1 if rng.random() < 0.05 else 0
    first, second = draw.integers(low, total, m), draw.integers(0, total + (low < 0), m)
    offsets = np.concatenate([[0], sizes.cumsum()])
    if low == 0:
        of = np.repeat(np.arange(3), sizes)
        other = of[first] != of[second]
        first, second = first[other], second[other]
    return (
        elo,
        offsets,
        first,
        second,
        draw.choice([0, 0.5, 1, 0.3], len(first)),
        rng.choice(MODELS),
    )


def check_levels(example: tuple[Any, ...]) -> None:
    """Levels are finite and sum to 0; what cannot be is a `ValueError`."""
    *columns, model = example
    try:
        found = fit_levels(*columns, model=model)
    except ValueError as error:
        expect(str(error).startswith("row "), "no row", error)
        return
    expect(np.isfinite([found.bias, found.stderr]).all(), "levels: not finite", found)
    expect(found.converged, "levels: not converged", example)
    top = np.abs(found.bias).max(initial=1.0)
    expect(abs(found.bias.sum()) < 1e-9 * top, "levels do not sum to 0", found)


def draw_elos(rng: random.Random) -> tuple[list[float], list[int], list[float] | None]:
    """Elos of queries of some sizes, and perhaps levels."""
    sizes = [rng.randrange(4) for _ in range(rng.randrange(4))]
    pool = (0.0, -0.0, 1.0, -1.0, 30.0, -1e6, 5e-324, 1e-9, rng.gauss(0, 1))
    bias = [rng.choice(pool) for _ in sizes] if rng.random() < 0.5 else None
    return [rng.choice(pool) for _ in range(sum(sizes))], sizes, bias


def check_targets(example: tuple[list[float], list[int], list[float] | None]) -> None:
    """Targets keep the order of Elos and their range; weights are of mean 1."""
    elo, offsets = np.array(example[0]), np.concatenate([[0], np.cumsum(example[1])]).astype(int)
    bias = None if example[2] is None else np.array(example[2])
    for kind in TARGETS:
        for model in MODELS:
            found = targets(kind, model, elo, offsets, bias)
            expect(found.shape == elo.shape and np.isfinite(found).all(), "targets", kind, found)
            if kind != "centred":
                expect(((found >= 0) & (found <= 1)).all(), "targets out of range", kind, found)
            for a, b in pairwise(offsets):
                order = np.argsort(elo[a:b], kind="stable")
                expect((np.diff(found[a:b][order]) >= 0).all(), "another order", kind, found)
    if len(elo):
        found = weights(elo, np.abs(elo[::-1]))
        expect(np.isfinite(found).all() and abs(found.mean() - 1) < 1e-9, "weights", found)
