"""Retrieval metrics of one query, by torchmetrics, with trec_eval's definitions.

A ranking is a list of grades, best document first, as ranked: there are no ties left to break.
NDCG has linear gains `grade / log2(rank + 1)` and an ideal over all relevant documents, retrieved
or not; Recall counts grades above 0. A query without relevant documents scores 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torchmetrics.functional.retrieval import retrieval_normalized_dcg, retrieval_recall

METRICS = ("NDCG@10", "Recall@10", "Recall@100")


def evaluate_ranking(ranked: Sequence[str], grades: Mapping[str, int]) -> dict[str, float]:
    """Each of `METRICS` for one query; `grades` maps judged documents to graded relevance."""
    values = {}
    for metric in METRICS:
        name, _, cutoff = metric.partition("@")
        prediction, target = _aligned(ranked, grades, int(cutoff))
        if name == "NDCG":
            value = retrieval_normalized_dcg(prediction, target, top_k=int(cutoff))
        else:
            value = retrieval_recall(prediction, target > 0, top_k=int(cutoff))
        values[metric] = float(value)
    return values


def _aligned(
    ranked: Sequence[str], grades: Mapping[str, int], cutoff: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Strictly falling scores and grades: the ranking, then what it missed, below the cutoff."""
    found = [max(grades.get(doc_id, 0), 0) for doc_id in ranked]
    padding = [0] * max(cutoff - len(found), 0)
    in_ranking = set(ranked)
    missed = [max(grade, 0) for doc_id, grade in grades.items() if doc_id not in in_ranking]
    target = torch.tensor(found + padding + missed)
    return torch.arange(len(target), 0, -1, dtype=torch.float64), target
