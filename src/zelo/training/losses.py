"""Losses of a query's predictions, as pure functions.

Shapes: Q queries, K places for candidates. `prediction` and `target` are (Q, K) float32; `weight`
(Q, K) float32 is 0 where a place holds no document, 1 or the document's weight where it does.
Each returns (Q,), the sum over the query's terms; what a sum is divided by is told by `documents`,
`pairs` or `queries` of the weights, so that a batch that is spread over devices or steps has the
mean that it would have in one piece.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def documents(weight: Tensor) -> Tensor:
    """Weight (Q,) of each query's documents together."""
    return weight.sum(1)


def pairs(weight: Tensor, target: Tensor | None = None) -> Tensor:
    """Weight (Q,) of each query's ordered pairs i ≠ j; with `target`, of those with y_i > y_j."""
    return (outer(weight) * apart(weight, target)).sum((1, 2))


def queries(weight: Tensor) -> Tensor:
    """1 for each query (Q,) that has a document."""
    return (weight > 0).any(1).float()


def outer(weight: Tensor) -> Tensor:
    """Weight (Q, K, K) of a pair: the product of the documents' weights."""
    return weight[:, :, None] * weight[:, None, :]


def apart(weight: Tensor, target: Tensor | None) -> Tensor:
    """Which pairs (Q, K, K) count: i ≠ j, or y_i > y_j where there are targets."""
    if target is not None:
        return target[:, :, None] > target[:, None, :]
    return ~torch.eye(weight.shape[1], dtype=torch.bool, device=weight.device)[None]


def centre(values: Tensor, weight: Tensor) -> Tensor:
    """Subtract from each row (Q, K) its weighted mean; 0 where there is no document."""
    mean = (values * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp_min(1e-12)
    return (values - mean) * (weight > 0)


def squared_error(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Σ_i w_i (s_i − y_i)², per `documents`."""
    return ((prediction - target).square() * weight).sum(1)


def cross_entropy(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Σ_i w_i BCE(sigmoid(s_i), y_i) for y ∈ [0, 1], per `documents`."""
    loss = F.binary_cross_entropy_with_logits(prediction, target, reduction="none")
    return (loss * weight).sum(1)


def margin_error(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Σ_{i≠j} w_i w_j ((s_i − s_j) − (y_i − y_j))², per `pairs` (MarginMSE, arXiv 2010.02666)."""
    error = prediction - target
    difference = error[:, :, None] - error[:, None, :]
    return (difference.square() * outer(weight) * apart(weight, None)).sum((1, 2))


def listwise_divergence(
    prediction: Tensor, target: Tensor, weight: Tensor, temperature: float
) -> Tensor:
    """KL(softmax(y / T) ‖ softmax(s / T)) over a query's documents, per `queries`.

    ListNet's top-one loss (Cao et al. 2007) less the entropy of the targets, a constant.
    """
    absent = weight <= 0
    logits, wanted = (
        (values / temperature).masked_fill(absent, -torch.inf) for values in (prediction, target)
    )
    empty = absent.all(1)[:, None]  # a query without documents: softmax of nothing is no number
    log_p = logits.masked_fill(empty, 0.0).log_softmax(1).masked_fill(absent, 0.0)
    log_y = wanted.masked_fill(empty, 0.0).log_softmax(1).masked_fill(absent, 0.0)
    return (log_y.exp() * (log_y - log_p) * ~absent).sum(1)


def ranknet(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """−Σ_{y_i > y_j} w_i w_j log sigmoid(s_i − s_j), per `pairs` of the targets (Burges 2005)."""
    difference = prediction[:, :, None] - prediction[:, None, :]
    return -(F.logsigmoid(difference) * outer(weight) * apart(weight, target)).sum((1, 2))


def lambda_loss(
    prediction: Tensor, target: Tensor, weight: Tensor, k: int | None, mu: float = 10.0
) -> Tensor:
    """NDCG-Loss2++ in bits, per `pairs` of the targets (LambdaLoss, Wang et al. 2018).

    `−Σ_{y_i > y_j} (μ δ_ij + |1/D_i − 1/D_j|) |G_i − G_j| log2 sigmoid(s_i − s_j)`, where D is the
    discount at the rank that the predictions give, G = (2^y − 1) / maxDCG@k with y below 0 taken
    as 0, and δ_ij is the difference of 1/D at the distance of the two ranks and one further. Pairs
    of which neither stands in the first `k` are left out. Documents have weight 1.
    """
    absent = weight <= 0
    order = prediction.detach().masked_fill(absent, -torch.inf).argsort(1, descending=True)
    s, y, held = (values.gather(1, order) for values in (prediction, target, ~absent))
    n = y.shape[1]
    k = min(k or n, n)
    rank = torch.arange(1, n + 1, device=y.device)
    discount = torch.log2(1.0 + rank)
    gain = (torch.pow(2.0, y.clamp_min(0)) - 1) * held
    ideal = (gain.sort(1, descending=True).values / discount)[:, :k].sum(1, keepdim=True)
    gain = gain / ideal.clamp_min(1e-10)
    distance = (rank[:, None] - rank[None, :]).abs()
    reach = torch.log2(1.0 + torch.arange(0, n + 1, device=y.device).clamp_min(1))
    delta = (1 / reach[distance] - 1 / reach[(distance + 1)]).abs() * (distance > 0)
    swap = (1 / discount[:, None] - 1 / discount[None, :]).abs()
    both = held[:, :, None] & held[:, None, :]
    top = (rank <= k)[:, None] | (rank <= k)[None, :]
    counts = both & apart(s, y) & top
    scale = (mu * delta + swap) * (gain[:, :, None] - gain[:, None, :]).abs()
    loss = F.logsigmoid(s[:, :, None] - s[:, None, :]) / math.log(2)
    summed: Tensor = (scale * loss * counts).sum((1, 2))
    return -summed


def ndcg(prediction: Tensor, elo: Tensor, weight: Tensor, k: int) -> Tensor:
    """NDCG@k (Q,) of the predictions' order with gains exp(e); 0 for a query without a document.

    Documents that are predicted to be equal share the mean of their gains (McSherry and Najork,
    ECIR 2008).
    """
    held = weight > 0
    gain = elo.exp() * held
    scores, order = prediction.masked_fill(~held, -torch.inf).sort(1, descending=True)
    n = scores.shape[1]
    discount = 1 / torch.log2(torch.arange(n, device=scores.device) + 2.0)
    discount = discount.masked_fill(torch.arange(n, device=scores.device) >= k, 0.0)
    one = torch.eye(
        n, dtype=torch.bool, device=scores.device
    )  # even if its prediction is no number
    equal = (scores[:, :, None] == scores[:, None, :]) | one
    shared = (equal * gain.gather(1, order)[:, None, :]).sum(2) / equal.sum(2)
    best = (gain.sort(1, descending=True).values * discount).sum(1)
    found: Tensor = (shared * discount).sum(1) / best.masked_fill(best == 0, 1.0)
    return found


def contrastive(
    prediction: Tensor, target: Tensor, weight: Tensor, others: Tensor | None
) -> Tensor:
    """−log softmax of the query's best document among its candidates and `others`, per `queries`.

    The best is the first of the highest target; `others` (Q, D) are scores of documents of other
    queries, −inf where there is none (InfoNCE with mined and in-batch negatives).
    """
    absent = weight <= 0
    best = target.masked_fill(absent, -torch.inf).argmax(1)
    scores = prediction.masked_fill(absent, -torch.inf)
    if others is not None:
        scores = torch.cat([scores, others], dim=1)
    empty = absent.all(1)
    loss = F.cross_entropy(scores.masked_fill(empty[:, None], 0.0), best, reduction="none")
    kept: Tensor = loss.masked_fill(empty, 0.0)
    return kept


def pairwise_likelihood(
    first: Tensor, second: Tensor, preference: Tensor, thurstone: bool
) -> Tensor:
    """−[p log P + (1 − p) log(1 − P)] (M,) of M comparisons (METHOD, stage 5).

    `first` and `second` (M,) are predictions, `preference` (M,) is p ∈ [0, 1] for the first. P is
    `(1 + erf(s_i − s_j)) / 2` by Thurstone, `sigmoid(s_i − s_j)` by Bradley–Terry.
    """
    difference = first - second
    if thurstone:
        # Φ(√2 x) = (1 + erf x) / 2, of which torch has a logarithm that does not underflow
        for_first, for_second = (
            torch.special.log_ndtr(sign * math.sqrt(2) * difference) for sign in (1, -1)
        )
    else:
        for_first, for_second = F.logsigmoid(difference), F.logsigmoid(-difference)
    loss: Tensor = -(preference * for_first + (1 - preference) * for_second)
    return loss
