"""Metrics against references, significance and calibration."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np

from benchmarks.fuzz.inputs import expect
from zelo.evaluation import calibration, significance
from zelo.evaluation.elo_truth import elo_ndcg, pairwise_accuracy, top_recall
from zelo.evaluation.metrics import evaluate_rankings

MEASURES = [f"{n}{k}" for n in ("NDCG", "Recall", "Precision", "MRR", "MAP", "Judged")
            for k in ("", "@1", "@3", "@10")]  # fmt: skip

Graded = tuple[dict[str, list[str]], dict[str, dict[str, int]]]


def draw_graded(rng: random.Random) -> Graded:
    """Rankings of a few queries, and grades: of all, some or none; large and negative too."""
    pool = [f"d{i}" for i in range(rng.choice((1, 3, 20)))]
    rankings, grades = {}, {}
    for q in range(rng.randrange(1, 4)):
        rankings[f"q{q}"] = rng.sample(pool, rng.randrange(len(pool) + 1))
        judged = rng.sample(pool, rng.randrange(len(pool) + 1))
        grades[f"q{q}"] = {d: rng.choice((-2, 0, 0, 1, 1, 2, 3, 100)) for d in judged}
    if rng.random() < 0.1:
        grades.popitem()
    return rankings, grades


def naive(measure: str, ranked: list[str], known: dict[str, int]) -> float:
    """A measure by its definition."""
    name, _, cut = measure.partition("@")
    top = ranked[: int(cut)] if cut else ranked
    relevant = sum(grade >= 1 for grade in known.values())
    hits = [known.get(d, 0) >= 1 for d in top]
    if name == "NDCG":
        best = sorted((g for g in known.values() if g > 0), reverse=True)[
            : int(cut) if cut else None
        ]
        ideal = sum(g / math.log2(r + 2) for r, g in enumerate(best))
        gain = sum(max(known.get(d, 0), 0) / math.log2(r + 2) for r, d in enumerate(top))
        return gain / ideal if ideal else 0.0
    if name == "MRR":
        return next((1 / r for r, hit in enumerate(hits, 1) if hit), 0.0)
    if name == "MAP":
        total = sum(sum(hits[:r]) / r for r, hit in enumerate(hits, 1) if hit)
        return total / relevant if relevant else 0.0
    if name == "Judged":
        return sum(d in known for d in top) / len(top) if top else 0.0
    whole = relevant if name == "Recall" else (int(cut) if cut else len(ranked))
    return sum(hits) / whole if whole else 0.0


def check_metrics(example: Graded) -> None:
    """Every measure is what its definition says, in [0, 1]."""
    rankings, grades = example
    for measure, values in evaluate_rankings(rankings, grades, MEASURES).items():
        wanted = [naive(measure, ranked, grades.get(q, {})) for q, ranked in rankings.items()]
        expect(np.allclose(values, wanted, rtol=0, atol=1e-9), f"{measure} differs", values, wanted)
        expect(((values >= 0) & (values <= 1 + 1e-12)).all(), f"{measure} out of range", values)


def check_metrics_by_ir_measures(example: Graded) -> None:
    """Every measure is trec_eval's, for the queries that have grades and a ranking."""
    import ir_measures
    from ir_measures import AP, RR, Judged, P, R, nDCG

    rankings, grades = example
    theirs = {
        "NDCG@10": nDCG @ 10,
        "NDCG": nDCG,
        "Recall@3": R @ 3,
        "Precision@3": P @ 3,
        "MRR": RR,
        "MRR@3": RR @ 3,
        "MAP": AP,
        "MAP@3": AP @ 3,
        "Judged@3": Judged @ 3,
    }
    grades = {  # trec_eval crashes below −1, and hangs on some without a relevant document
        q: {d: min(max(grade, -1), 4) for d, grade in known.items()}
        for q, known in grades.items()
        if rankings.get(q) and max(known.values(), default=0) > 0
    }
    if not grades:
        return
    run = {q: {d: -float(r) for r, d in enumerate(rankings[q])} for q in grades}
    found = evaluate_rankings({q: rankings[q] for q in grades}, grades, list(theirs))
    names = {str(theirs[name]): name for name in theirs}
    for value in ir_measures.iter_calc(list(theirs.values()), grades, run):
        name = names[str(value.measure)]
        ours = found[name][list(grades).index(value.query_id)]
        expect(abs(ours - value.value) < 1e-6, f"{name} is not trec_eval's", ours, value)


NUMBERS = (0.0, -0.0, 1.0, 0.5, 1 / 3, 5e-324, 1e-300, 1e-9, -1.0, 1e9, 1e300, -1e300)


def draw_values(rng: random.Random) -> tuple[list[float], list[float], int]:
    """Values of two systems; some equal, some constant, some huge."""
    n, kind = rng.randrange(1, 12), rng.randrange(3)
    pool = (NUMBERS[:4], NUMBERS[:8], NUMBERS)[kind]
    a = [rng.choice(pool) for _ in range(n)]
    b = [x if rng.random() < 0.3 else rng.choice(pool) for x in a]
    return a, b, rng.randrange(2**32)


def check_significance(example: tuple[list[float], list[float], int]) -> None:
    """Intervals within the values, p-values in (0, 1], Holm's at least as large."""
    a, b, seed = np.array(example[0]), np.array(example[1]), example[2]
    low, high = significance.bootstrap_interval(a, np.random.default_rng(seed), 200)
    slack = 1e-12 * (1 + np.abs(a).max())
    expect(a.min() - slack <= low <= high <= a.max() + slack, "interval out of range", a, low, high)
    p = significance.randomisation_test(a, b, np.random.default_rng(seed), 200)
    expect(0 < p <= 1, "p out of range", p)
    expect(p == 1 or not (a == b).all(), "equal systems differ", p)
    mirrored = significance.randomisation_test(b, a, np.random.default_rng(seed), 200)
    expect(p == mirrored, "p depends on which comes first", p, mirrored)
    ps = np.random.default_rng(seed).random(4).round(1).tolist()
    adjusted = significance.holm(ps)
    expect(
        all(p <= q <= 1 for p, q in zip(ps, adjusted, strict=True)), "Holm's too small", adjusted
    )


def draw_pairs(rng: random.Random) -> tuple[Any, Any]:
    """Scored pairs to choose a threshold on, and to test it on."""
    scale = rng.choice((1.0, 1.0, 1e-9, 1e9, 1e-300, 1e150))

    def some() -> tuple[dict[str, list[tuple[str, float]]], dict[str, dict[str, int]]]:
        rankings, grades = draw_graded(rng)
        scored = {
            q: [(d, scale * rng.choice((rng.gauss(0, 1), 0.0, 1.0))) for d in ranked]
            for q, ranked in rankings.items()
        }
        return scored, grades

    return some(), some()


def check_calibration(example: tuple[Any, Any]) -> None:
    """Probabilities, precision, recall and AUC are in [0, 1]; no threshold has a higher F1."""
    chosen, tested = (calibration.Pairs.of(*given) for given in example)
    found = calibration.calibrate("s", chosen, tested)
    if "reason" in found:
        return
    best = max(calibration.keep(chosen, float(t)).f1 for t in chosen.score)
    expect(abs(found["chosen"]["f1"] - best) < 1e-12, "not the best threshold", found, best)
    shares = {**found["reliability"], **found["tested"], **found["chosen"]}
    for name in ("error", "brier", "auc", "precision", "recall", "f1", "recall_possible"):
        expect(-1e-12 <= shares[name] <= 1 + 1e-12, f"{name} out of range", shares[name])
    numbers = (found["probability"]["slope"], found["probability"]["intercept"])
    expect(np.isfinite(numbers).all(), "no probability", numbers)


def draw_elo_truth(rng: random.Random) -> tuple[dict[str, float], list[str], float]:
    """Elos, an order of their documents, and what is added to all."""
    pool = (0.0, 1.0, rng.uniform(-3, 3), rng.gauss(0, 1), rng.gauss(0, 1))
    elos = {f"d{i}": rng.choice(pool) for i in range(rng.randrange(2, 13))}
    return elos, rng.sample(list(elos), len(elos)), rng.uniform(-50, 50)


def check_elo_truth(example: tuple[dict[str, float], list[str], float]) -> None:
    """Measures by Elos are in their range, 1 for the best order, and of differences alone."""
    elos, ranked, shift = example
    best = sorted(elos, key=lambda d: -elos[d])
    value, accuracy = elo_ndcg(ranked, elos), pairwise_accuracy(ranked, elos)
    expect(0 <= value <= elo_ndcg(best, elos) + 1e-12, "NDCG above the best", value, example)
    expect(abs(elo_ndcg(best, elos) - 1) < 1e-9, "the best order is not 1", example)
    moved = elo_ndcg(ranked, {d: elo + shift for d, elo in elos.items()})
    expect(abs(moved - value) < 1e-6, "NDCG of moved Elos", moved, value, example)
    if len(set(elos.values())) > 1:
        turned = pairwise_accuracy(ranked[::-1], elos)
        expect(abs(accuracy + turned - 1) < 1e-9, "accuracy turned round", accuracy, example)
        expect(pairwise_accuracy(best, elos) == 1, "accuracy of the best", example)
    else:
        expect(math.isnan(accuracy), "accuracy of ties", accuracy)
    expect(top_recall(best, elos, 3) == 1, "recall of the best", example)
