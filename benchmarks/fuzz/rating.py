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
    fit,
    fit_query_biases,
    fit_rankings,
    reference,
    standard_errors,
)
from zelo.rating.judges import fit_judges
from zelo.rating.plackett_luce import choices_of
from zelo.rating.plackett_luce import derivatives as ranking_derivatives
from zelo.rating.solver import MODELS, Fit, left_by_doubles
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


def left_of(fitted: Fit, c: Comparisons, prior: float) -> Any:
    """What rounding may leave of each query (Q,), in standard errors; see `solver.fit`."""
    degree = np.zeros(int(c.offsets[-1]))
    np.add.at(degree, c.base + c.i, c.weight)
    np.add.at(degree, c.base + c.j, c.weight)
    heaviest = np.maximum.reduceat(degree, c.offsets[:-1])
    return left_by_doubles(fitted.elo, c.offsets, heaviest, prior)


def slack_of(c: Comparisons, *fits: Fit, model: str, prior: float) -> Any:
    """How far apart the Elos (D,) of fits with one minimum may be, by what each promises."""
    stderr = standard_errors(c, fits[0].elo, model, prior)
    return np.repeat(sum(fitted.error for fitted in fits), c.sizes) * stderr


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
        expect(fitted.converged.all(), "not converged", fitted.error, example)
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
    slack = slack_of(c, fitted, other, model=model, prior=prior)
    apart = np.abs(other.elo[place] - fitted.elo)
    expect((apart <= slack).all(), "another order, other Elos", apart, slack, example)


def check_sameness(example: Rows) -> None:
    """Weights, repetition, direction and averages of answers are one to the solver."""
    c, model, prior = split(example)
    if c.weight.max(initial=0) > 1e12 * prior or np.abs(c.known).max(initial=0) > 4:
        return  # float64 is not enough
    known = c.known if len(c.known) else None

    def again(i: Any, j: Any, p: Any, known: Any) -> Comparisons:
        """Each comparison two times over."""
        query, weight = np.r_[c.query, c.query], np.r_[c.weight, c.weight]
        return Comparisons(query, i, j, p, weight, c.sizes, known)

    heavy = Comparisons(c.query, c.i, c.j, c.p, 2 * c.weight, c.sizes, known)
    same = None if known is None else np.r_[known, known]
    other = None if known is None else np.r_[known, -known]
    low, high = np.maximum(0, 2 * c.p - 1), np.minimum(1, 2 * c.p)  # two answers of mean p
    one = fit(heavy, model, prior)
    for name, twice in (
        ("repetition", again(np.r_[c.i, c.i], np.r_[c.j, c.j], np.r_[c.p, c.p], same)),
        ("direction", again(np.r_[c.i, c.j], np.r_[c.j, c.i], np.r_[c.p, 1 - c.p], other)),
        ("average", again(np.r_[c.i, c.i], np.r_[c.j, c.j], np.r_[low, high], same)),
    ):
        found = fit(twice, model, prior)
        apart = np.abs(found.elo - one.elo)
        slack = slack_of(heavy, one, found, model=model, prior=prior)
        # 1 − p and 2 p − 1 round, and a preference is worth its weight.
        slack += np.repeat(left_of(one, heavy, prior), c.sizes) * standard_errors(
            heavy, one.elo, model, prior
        )
        expect((apart <= slack).all(), f"{name}: other Elos", apart, slack, example)


def check_reference(example: Rows) -> None:
    """The compiled solver finds what the readable one finds."""
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
    fitted = fit(c, model, prior)
    stderr = standard_errors(c, theirs, model, prior)
    left = left_of(fitted, c, prior)  # of the reference, too
    apart = np.abs(fitted.elo - theirs)
    slack = np.repeat(fitted.error + left + 1e-12, c.sizes) * stderr
    expect((apart <= slack).all(), "not the reference's Elos", apart, slack, example)


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
    expect(found.converged.all(), "rankings: not converged", found.error, example)
    for q in set(query):
        mine = [r for of, r in zip(query, rankings, strict=True) if of == q]
        (choices,) = choices_of([0] * len(mine), mine, [len(found.of(q))])
        gradient = ranking_derivatives(found.of(q), choices, prior)[1]
        expect(np.abs(gradient).max() < 1e-6 * (1 + len(mine)), "rankings: a gradient", gradient)


def draw_query_biases(rng: random.Random) -> tuple[Any, ...]:
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


def check_query_biases(example: tuple[Any, ...]) -> None:
    """Biases of queries are finite and sum to 0; what cannot be is a `ValueError`."""
    *columns, model = example
    try:
        found = fit_query_biases(*columns, model=model)
    except ValueError as error:
        expect(str(error).startswith("row "), "no row", error)
        return
    expect(np.isfinite([found.bias, found.stderr]).all(), "query biases: not finite", found)
    expect(found.converged, "query biases: not converged", example)
    top = np.abs(found.bias).max(initial=1.0)
    expect(abs(found.bias.sum()) < 1e-9 * top, "query biases do not sum to 0", found)


def draw_elos(rng: random.Random) -> tuple[list[float], list[int], list[float] | None]:
    """Elos of queries of some sizes, and perhaps biases."""
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
