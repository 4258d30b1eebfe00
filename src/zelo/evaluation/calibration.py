"""Whether scores mean the same for every query, and what a threshold on them does.

A ranking needs scores that are right within a query; a threshold ("show nothing that is not
relevant") needs scores that are comparable across queries. Pairs of a query and a document count
as relevant where the grade is at least 1; pairs without a grade count as not relevant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zelo.retrieval.ranking import Ranking

Reals = NDArray[np.float64]
BINS = 10


@dataclass(frozen=True)
class Pairs:
    """N scored pairs of Q queries and their documents."""

    score: Reals  # (N,)
    relevant: NDArray[np.bool_]  # (N,)
    query: NDArray[np.int64]  # (N,), 0 … Q − 1
    queries: int  # Q, including those without a document
    all_relevant: int  # relevant documents of the queries, including those that were not scored

    @classmethod
    def of(
        cls, rankings: Ranking, grades: Mapping[str, Mapping[str, float]], depth: int | None = None
    ) -> Pairs:
        """The first `depth` documents of every ranking."""
        rows = [
            (score, grades.get(query_id, {}).get(doc_id, 0) >= 1, q)
            for q, (query_id, ranked) in enumerate(rankings.items())
            for doc_id, score in ranked[:depth]
        ]
        score, relevant, query = zip(*rows, strict=True) if rows else ((), (), ())
        return cls(
            np.array(score, float),
            np.array(relevant, bool),
            np.array(query, int),
            len(rankings),
            sum(grade >= 1 for q in rankings for grade in grades.get(q, {}).values()),
        )


@dataclass(frozen=True)
class Probability:
    """P(relevant) = sigmoid(slope · score + intercept)."""

    slope: float
    intercept: float

    def __call__(self, score: Reals) -> Reals:
        """Probabilities (N,) of scores (N,)."""
        from scipy.special import expit

        return np.asarray(expit(self.slope * score + self.intercept))


def fit_probability(pairs: Pairs) -> Probability:
    """Logistic regression of relevance on the score (Platt, 1999).

    Raises `ValueError` where all pairs are relevant, or none.
    """
    from sklearn.linear_model import LogisticRegression

    spread = (
        float(pairs.score.std()) or 1.0
    )  # on scores of another scale the solver stops too early
    fitted = LogisticRegression(C=np.inf).fit(pairs.score[:, None] / spread, pairs.relevant)
    return Probability(float(fitted.coef_[0, 0]) / spread, float(fitted.intercept_[0]))


@dataclass(frozen=True)
class Reliability:
    """How far predicted probabilities are from the shares that are observed.

    `curve` has a row per bin of equally many pairs: mean prediction, share relevant. `error` is
    their mean distance (expected calibration error), `brier` the mean squared error of the
    probabilities, `brier_of_rate` that of always predicting the share of relevant pairs. `auc` is
    the chance that a relevant pair scores above one that is not, of any queries; `auc_within` the
    same among pairs of one query, averaged over queries: the difference of the two shows how far
    scores mean different things for different queries.
    """

    pairs: int
    rate: float  # share of relevant pairs
    error: float
    brier: float
    brier_of_rate: float
    auc: float
    auc_within: float
    curve: list[tuple[float, float]]


def reliability(pairs: Pairs, probability: Probability, bins: int = BINS) -> Reliability:
    """Measure `probability` on pairs that it was not fitted on."""
    p, relevant = probability(pairs.score), pairs.relevant
    order = np.argsort(p, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    curve = [(float(p[part].mean()), float(relevant[part].mean())) for part in parts]
    sizes = [len(part) for part in parts]
    rate = float(relevant.mean())
    return Reliability(
        pairs=len(p),
        rate=rate,
        error=float(
            np.average([abs(predicted - observed) for predicted, observed in curve], weights=sizes)
        ),
        brier=float(((p - relevant) ** 2).mean()),
        brier_of_rate=rate * (1 - rate),
        auc=auc(pairs.score, relevant),
        auc_within=auc_within(pairs),
        curve=curve,
    )


def auc(score: Reals, relevant: NDArray[np.bool_]) -> float:
    """Area under the ROC curve, ties counting half; NaN where all pairs are relevant, or none."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(relevant, score)) if 0 < relevant.sum() < len(relevant) else np.nan


def auc_within(pairs: Pairs) -> float:
    """AUC among the pairs of one query, averaged over the queries for which it is defined."""
    order = np.argsort(pairs.query, kind="stable")
    ends = np.searchsorted(pairs.query[order], np.arange(1, pairs.queries))
    values = [auc(pairs.score[of], pairs.relevant[of]) for of in np.split(order, ends)]
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else np.nan


@dataclass(frozen=True)
class Kept:
    """What a threshold does to pairs: those that score at least as high are kept."""

    threshold: float
    precision: float  # of what is kept
    recall: float  # of all relevant documents
    recall_possible: float  # the recall if every pair were kept: the rest was not retrieved
    f1: float
    kept_per_query: float
    queries_with_nothing: float  # share of the queries


def best_threshold(pairs: Pairs) -> float:
    """The score that as a threshold has the highest F1; of several such scores the highest."""
    order = np.argsort(-pairs.score, kind="stable")
    score = pairs.score[order]
    right = np.cumsum(pairs.relevant[order])
    f1 = 2 * right / (np.arange(1, len(score) + 1) + pairs.all_relevant)
    last = np.append(score[1:] != score[:-1], True)  # of equal scores all are kept
    return float(score[np.where(last, f1, -1.0).argmax()])


def keep(pairs: Pairs, threshold: float) -> Kept:
    """Precision, recall and F1 of a threshold over all pairs, and how much it keeps."""
    kept = pairs.score >= threshold
    right = int((kept & pairs.relevant).sum())
    precision = right / max(int(kept.sum()), 1)
    recall = right / max(pairs.all_relevant, 1)
    queries = max(pairs.queries, 1)
    return Kept(
        threshold=threshold,
        precision=precision,
        recall=recall,
        recall_possible=float(pairs.relevant.sum() / max(pairs.all_relevant, 1)),
        f1=2 * precision * recall / (precision + recall) if right else 0.0,
        kept_per_query=float(kept.sum() / queries),
        queries_with_nothing=1 - len(np.unique(pairs.query[kept])) / queries,
    )


def calibrate(system: str, chosen_on: Pairs, tested_on: Pairs) -> dict[str, Any]:
    """Probability and threshold of one system, chosen on one set of pairs and tested on another.

    Where all pairs of one of the sets are relevant, or none, the result is a `reason` instead.
    """
    for what, pairs in (("chosen", chosen_on), ("tested", tested_on)):
        if not 0 < pairs.relevant.sum() < len(pairs.relevant):
            reason = (
                f"of the {len(pairs.relevant)} pairs that a threshold is {what} on, "
                f"{int(pairs.relevant.sum())} are relevant; some must be and some not"
            )
            return {"system": system, "reason": reason}
    probability = fit_probability(chosen_on)
    threshold = best_threshold(chosen_on)
    return {
        "system": system,
        "probability": asdict(probability),
        "reliability": asdict(reliability(tested_on, probability)),
        "chosen": asdict(keep(chosen_on, threshold)),
        "tested": asdict(keep(tested_on, threshold)),
        "best_possible": asdict(keep(tested_on, best_threshold(tested_on))),
    }


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Reliability diagrams of what `calibrate` returned, one line per system."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="gray", linewidth=0.8)
    for row in rows:
        if "reason" in row:
            continue
        predicted, observed = zip(*row["reliability"]["curve"], strict=True)
        axes.plot(predicted, observed, marker="o", markersize=3, label=row["system"])
    axes.set(xlabel="predicted probability of relevance", ylabel="share relevant")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=130)
