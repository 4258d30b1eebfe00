"""Stage `assess`: how close a pass comes to the ensemble, on all pairs of a sample of queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from zelo.artifacts import read_table, write_json
from zelo.evaluation.significance import bootstrap_interval
from zelo.rating.preferences import average
from zelo.rating.rate import Rating, rate_judgments
from zelo.seeding import stream
from zelo.store import stage

RESAMPLES = 10_000
ASSESSMENT = "assessment.json"


@stage(version=1)
def assess(
    *,
    out: Path,
    ensemble: Path,
    distilled: Path,
    ratings: Path,
    rating: Rating,
    vote: str,
    seed: int,
    **learned: Path,
) -> Mapping[str, Any]:
    """Compare a pass with the ensemble and write `assessment.json`.

    `ensemble` and `distilled` are the judgments of the ensemble and of the distilled model about
    the same pairs, `ratings` those of the pass, `learned` the judgments that the distilled model
    learned from. Each measure is a mean over queries of the sample with a 95 % bootstrap interval:

    - `agreement`: of the pairs in which all judges chose the same document, and which the model was
      not trained on, the share in which the model chose that document too (the paper's figure 8);
    - `elo_mse`: mean squared difference of the pass's Elos from those of the dense answers, both
      centred on the same documents (figure 9);
    - `elo_tau`: Kendall's τ between the two.
    """
    from scipy.stats import kendalltau  # takes most of a second, which runs without `assess` save

    judgments = read_table(ensemble, "judgments")
    trained_on = preferences_of(
        pa.concat_tables([read_table(folder, "judgments") for folder in learned.values()])
    )
    wanted = average(judgments, vote)
    given = preferences_of(read_table(distilled, "judgments"))
    right: dict[str, list[float]] = {}
    rows = zip(
        wanted.query_ids, wanted.doc_a, wanted.doc_b, wanted.p.tolist(),
        wanted.unanimous.tolist(), strict=True,
    )  # fmt: skip
    for q, a, b, p, unanimous in rows:
        if unanimous and (q, a, b) not in trained_on and (q, a, b) in given:
            right.setdefault(q, []).append(float((given[q, a, b] > 0.5) == (p > 0.5)))
    pass_elo = elos(read_table(ratings, "ratings"))
    squared: list[float] = []
    tau: list[float] = []
    for q, dense in elos(rate_judgments(judgments, rating, vote).ratings).items():
        both = [d for d in dense if d in pass_elo.get(q, {})]
        if len(both) < 2:
            continue
        x, y = (np.array([elo[d] for d in both]) for elo in (dense, pass_elo[q]))
        x, y = x - x.mean(), y - y.mean()
        squared.append(float(np.mean((x - y) ** 2)))
        tau.append(float(np.nan_to_num(kendalltau(x, y).statistic)))
    measures = {
        "agreement": mean_with_interval(
            [float(np.mean(values)) for values in right.values()], seed
        ),
        "elo_mse": mean_with_interval(squared, seed),
        "elo_tau": mean_with_interval(tau, seed),
    }
    write_json(out / ASSESSMENT, measures)
    return {"unanimous_pairs": sum(map(len, right.values())), "queries": len(squared)}


def mean_with_interval(values: Sequence[float], seed: int) -> dict[str, float | int | None]:
    """Mean and interval of one value per query; None where there is no query."""
    if not values:
        return {"value": None, "low": None, "high": None, "queries": 0}
    sample = np.array(values)
    low, high = bootstrap_interval(sample, stream(seed, "bootstrap"), RESAMPLES)
    return {"value": float(sample.mean()), "low": low, "high": high, "queries": len(values)}


def preferences_of(judgments: pa.Table) -> dict[tuple[str, str, str], float]:
    """P(a ≻ b) of each query and pair, in both orders."""
    mean = average(judgments, "soft")
    found: dict[tuple[str, str, str], float] = {}
    for q, a, b, p in zip(mean.query_ids, mean.doc_a, mean.doc_b, mean.p.tolist(), strict=True):
        found[q, a, b], found[q, b, a] = p, 1 - p
    return found


def elos(ratings: pa.Table) -> dict[str, dict[str, float]]:
    """Query → document → Elo."""
    found: dict[str, dict[str, float]] = {}
    names = ("query_id", "doc_id", "elo")
    for q, d, e in zip(*(ratings[name].to_pylist() for name in names), strict=True):
        found.setdefault(q, {})[d] = e
    return found
