"""Elos as ground truth: how good a ranking is where there are judges and no labels.

Documents without an Elo (unrated) are worth nothing, as unjudged ones are to the measures of
`zelo.evaluation.metrics`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from zelo.evaluation.metrics import dcg


def elo_ndcg(ranked: Sequence[str], elos: Mapping[str, float], k: int = 10) -> float:
    """NDCG of the first `k` with gains exp(Elo), in [0, 1]; 0 where nothing is rated.

    A constant added to all Elos changes nothing. Source: zbench's definition.
    """
    highest = max(elos.values(), default=0.0)
    gain = {doc_id: float(np.exp(elo - highest)) for doc_id, elo in elos.items()}
    best = np.array([sorted(gain.values(), reverse=True)[:k]])
    got = np.array([[gain.get(doc_id, 0.0) for doc_id in ranked[:k]]])
    return float(dcg(got)[0] / dcg(best)[0]) if gain else 0.0


def pairwise_accuracy(ranked: Sequence[str], elos: Mapping[str, float]) -> float:
    """Share of the pairs of rated, ranked documents that stand in the order of their Elos.

    Pairs of equal Elos do not count; NaN where there is no other pair.
    """
    elo = np.array([elos[doc_id] for doc_id in ranked if doc_id in elos])
    above, below = np.triu_indices(len(elo), 1)
    d = elo[above] - elo[below]
    decided = d != 0
    return float((d[decided] > 0).mean()) if decided.any() else float("nan")


def top_recall(ranked: Sequence[str], elos: Mapping[str, float], k: int = 10) -> float:
    """Share of the `k` documents of highest Elo (of all, if fewer) among the first `k` ranked."""
    best = sorted(elos, key=lambda doc_id: -elos[doc_id])[:k]
    return len(set(best) & set(ranked[:k])) / len(best) if best else 0.0


def agreement_of_verdicts(
    labels: Mapping[str, Sequence[float]], elos: Mapping[str, Sequence[float]]
) -> tuple[float, int]:
    """How often labels and Elos find the same of two systems better, by mean; of how many pairs.

    Both map systems to a measure's values, one per query. Pairs that one of the two finds equal do
    not count; NaN where there is no other.
    """
    systems = list(labels)
    same = []
    for i, a in enumerate(systems):
        for b in systems[i + 1 :]:
            by_labels = float(np.mean(labels[a]) - np.mean(labels[b]))
            by_elos = float(np.mean(elos[a]) - np.mean(elos[b]))
            if by_labels and by_elos:
                same.append((by_labels > 0) == (by_elos > 0))
    return (float(np.mean(same)), len(same)) if same else (float("nan"), 0)
