"""Losses against formulas and against sentence-transformers, which has most of them."""

from __future__ import annotations

import math
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import erf, expit, log_ndtr
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder import losses as stock
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torchmetrics.functional.retrieval import retrieval_normalized_dcg

from zelo.artifacts import table, write_table
from zelo.training import losses
from zelo.training.batches import ScoredBatch, scored_batch
from zelo.training.objectives import (
    BCE,
    MSE,
    BaseObjective,
    CentredMSE,
    InfoNCE,
    LambdaLoss,
    ListwiseKL,
    MarginMSE,
    PairwiseLikelihood,
    RankNet,
)
from zelo.training.rated_queries import read_rated

Q, K = 4, 5
SIZES = [5, 3, 2, 5]


def draw(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Predictions, targets in [0, 1] and weights of queries with 5, 3, 2 and 5 documents."""
    rng = torch.Generator().manual_seed(seed)
    prediction = torch.randn(Q, K, generator=rng)
    target = torch.rand(Q, K, generator=rng)
    weight = torch.zeros(Q, K)
    for row, size in enumerate(SIZES):
        weight[row, :size] = 1
    return prediction, target * weight, weight


class Scores(CrossEncoder):
    """In the place of a cross-encoder: its scores are given."""

    num_labels = 1
    device = torch.device("cpu")

    def __init__(self, scores: torch.Tensor) -> None:
        torch.nn.Module.__init__(self)
        self.scores, self.given = scores, 0

    def preprocess(self, pairs: list[Any], **_: Any) -> dict[str, Any]:
        self.given += len(pairs)
        return {"rows": torch.arange(self.given - len(pairs), self.given)}

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        return {"scores": self.scores[features["rows"]].unsqueeze(1)}


def lists(weight: torch.Tensor, target: torch.Tensor) -> tuple[list[Any], list[torch.Tensor]]:
    """Inputs and labels as listwise losses of sentence-transformers take them."""
    docs = [["d"] * size for size in SIZES]
    labels = [target[row, :size] for row, size in enumerate(SIZES)]
    return [["q"] * Q, docs], labels


def mean(total: torch.Tensor, size: torch.Tensor) -> float:
    return float(total.sum() / size.sum())


def test_mse_and_cross_entropy_are_those_of_sentence_transformers() -> None:
    prediction, target, weight = draw()
    held = weight > 0
    inputs = [["q"] * int(held.sum()), ["d"] * int(held.sum())]
    theirs = stock.MSELoss(Scores(prediction[held]))(inputs, target[held])
    ours = losses.squared_error(prediction, target, weight)
    assert mean(ours, losses.documents(weight)) == pytest.approx(float(theirs))
    theirs = stock.BinaryCrossEntropyLoss(Scores(prediction[held]))(inputs, target[held])
    ours = losses.cross_entropy(prediction, target, weight)
    assert mean(ours, losses.documents(weight)) == pytest.approx(float(theirs))


def test_margin_mse_of_two_documents_is_that_of_sentence_transformers() -> None:
    prediction, target, _ = draw()
    prediction, target, weight = prediction[:, :2], target[:, :2], torch.ones(Q, 2)
    flat = torch.cat([prediction[:, 0], prediction[:, 1]])
    theirs = stock.MarginMSELoss(Scores(flat))(
        [["q"] * Q, ["a"] * Q, ["b"] * Q], target[:, 0] - target[:, 1]
    )
    ours = losses.margin_error(prediction, target, weight)
    assert mean(ours, losses.pairs(weight)) == pytest.approx(float(theirs), rel=1e-5)


def test_ranknet_and_lambda_loss_are_those_of_sentence_transformers() -> None:
    prediction, target, weight = draw()
    held = weight > 0
    inputs, labels = lists(weight, target)
    count = losses.pairs(weight, target)
    theirs = stock.RankNetLoss(Scores(prediction[held]), reduction_log="natural")(inputs, labels)
    assert mean(losses.ranknet(prediction, target, weight), count) == pytest.approx(float(theirs))
    labels = [4 * label for label in labels]
    theirs = stock.LambdaLoss(Scores(prediction[held]))(inputs, labels)
    ours = losses.lambda_loss(prediction, 4 * target, weight, None)
    assert mean(ours, count) == pytest.approx(float(theirs), rel=1e-5)
    if tuple(map(int, version("sentence-transformers").split(".")[:2])) < (6, 2):
        return  # theirs counted other pairs there
    # With a cut theirs divides by the pairs that are left; the sums are the same.
    theirs = stock.LambdaLoss(Scores(prediction[held]), k=2)(inputs, labels)
    ours = losses.lambda_loss(prediction, 4 * target, weight, 2)
    left = sum(
        int(y[i] > y[j] and (i in top or j in top))
        for row, size in enumerate(SIZES)
        for y in [target[row, :size]]
        for top in [prediction[row, :size].argsort(descending=True)[:2].tolist()]
        for i in range(size)
        for j in range(size)
    )
    assert float(ours.sum()) == pytest.approx(float(theirs) * left, rel=1e-5)


def test_listwise_divergence_is_listnet_less_the_entropy_of_the_targets() -> None:
    prediction, target, weight = draw()
    inputs, labels = lists(weight, target)
    theirs = stock.ListNetLoss(Scores(prediction[weight > 0]))(inputs, labels)
    entropy = np.mean([float(-(y.softmax(0) * y.log_softmax(0)).sum()) for y in labels])
    ours = losses.listwise_divergence(prediction, target, weight, 1.0)
    assert mean(ours, losses.queries(weight)) == pytest.approx(float(theirs) - entropy, rel=1e-5)
    same = losses.listwise_divergence(target, target, weight, 0.3)
    torch.testing.assert_close(same, torch.zeros(Q), atol=1e-6, rtol=0)


def test_contrastive_is_multiple_negatives_ranking() -> None:
    """A positive and a hard negative per query, and those of the other queries."""
    torch.manual_seed(0)
    q, positive, negative = (
        torch.nn.functional.normalize(torch.randn(Q, 8), dim=1) for _ in range(3)
    )
    theirs = MultipleNegativesRankingLoss(None, scale=20.0).compute_loss_from_embeddings(
        [q, positive, negative], None
    )
    scores = 20 * q @ torch.cat([positive, negative]).T
    place = torch.stack([torch.arange(Q), torch.arange(Q, 2 * Q)], dim=1)
    own = torch.zeros(Q, 2 * Q, dtype=torch.bool).scatter(1, place, True)
    target = torch.tensor([[1.0, 0.0]] * Q)
    ours = losses.contrastive(
        scores.gather(1, place), target, torch.ones(Q, 2), scores.masked_fill(own, -math.inf)
    )
    assert float(ours.mean()) == pytest.approx(float(theirs), rel=1e-5)


@pytest.mark.parametrize("thurstone", [True, False])
def test_the_likelihood_of_judgments_is_that_of_the_rating_model(thurstone: bool) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 50)) * 2
    p = rng.uniform(size=50)
    if thurstone:  # Φ(√2 x) = (1 + erf x) / 2
        log_first, log_second = (log_ndtr(s * np.sqrt(2) * (first - second)) for s in (1, -1))
        near = np.abs(first - second) < 3
        chance = (1 + erf(first - second)) / 2
        np.testing.assert_allclose(log_first[near], np.log(chance[near]), rtol=1e-6)
    else:
        log_first, log_second = np.log(expit(first - second)), np.log(expit(second - first))
    expected = -(p * log_first + (1 - p) * log_second)
    ours = losses.pairwise_likelihood(*(torch.tensor(x) for x in (first, second, p)), thurstone)
    np.testing.assert_allclose(ours, expected, rtol=1e-6)
    far = torch.tensor([30.0], requires_grad=True)
    losses.pairwise_likelihood(far, torch.zeros(1), torch.zeros(1), thurstone).sum().backward()
    assert torch.isfinite(far.grad).all()
    assert float(far.grad) > 0.9  # a wrong answer that is far away still pulls


OBJECTIVES: list[BaseObjective] = [
    MSE(),
    BCE(),
    CentredMSE(),
    MarginMSE(),
    ListwiseKL(),
    RankNet(),
    LambdaLoss(k=3),
    InfoNCE(),
    PairwiseLikelihood(),
    PairwiseLikelihood(model="bradley_terry"),
]


def batch_of(target: torch.Tensor, weight: torch.Tensor, rows: list[int]) -> ScoredBatch:
    """A batch of some of the queries; each one's documents are compared in a row."""
    compared = [
        (row, i, i + 1) for row, source in enumerate(rows) for i in range(SIZES[source] - 1)
    ]
    preference = [float(target[rows[row], i]) for row, i, _ in compared]
    return ScoredBatch(
        query_ids=[f"q{row}" for row in rows],
        inputs={},
        document_index=torch.zeros(len(rows), K, dtype=torch.long),
        target=target[rows],
        elo=target[rows],
        weight=weight[rows],
        compared=torch.tensor(compared).T,
        preference=torch.tensor(preference),
    )


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: f"{type(o).__name__}")
def test_parts_of_a_batch_add_up_to_the_whole(objective: BaseObjective) -> None:
    """Summed over parts and divided once, so that devices and accumulation change nothing."""
    prediction, target, weight = draw()
    whole = batch_of(target, weight, [0, 1, 2, 3])
    total, size = objective.total(prediction, whole, None), objective.size(whole)
    assert total.shape == size.shape == (Q,)
    for rows in ([0, 2], [3], [1]):
        part = batch_of(target, weight, rows)
        torch.testing.assert_close(objective.total(prediction[rows], part, None), total[rows])
        torch.testing.assert_close(objective.size(part), size[rows])


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: f"{type(o).__name__}")
def test_places_without_a_document_change_nothing(objective: BaseObjective) -> None:
    prediction, target, weight = draw()
    batch = batch_of(target, weight, [0, 1, 2, 3])
    expected = objective.total(prediction, batch, None)
    moved = torch.where(weight > 0, prediction, torch.tensor(77.0)).requires_grad_()
    found = objective.total(moved, batch, None)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert torch.isfinite(moved.grad).all()
    assert (moved.grad[weight == 0] == 0).all()
    assert moved.grad[weight > 0].abs().sum() > 0


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: f"{type(o).__name__}")
def test_shift_invariant_objectives_leave_the_level_of_a_query_free(
    objective: BaseObjective,
) -> None:
    prediction, target, weight = draw()
    batch = batch_of(target, weight, [0, 1, 2, 3])
    moved = prediction + torch.tensor([[3.0], [-7.0], [1.0], [0.5]])
    before, after = (objective.total(p, batch, None) for p in (prediction, moved))
    same = torch.allclose(before, after, rtol=1e-4, atol=1e-5)
    assert same == objective.shift_invariant


@pytest.mark.parametrize(
    ("stderr", "equal"),
    [([0.1, 0.1, 0.4, 0.8], False), ([0.3] * 4, True), ([0.0] * 4, True)],
)
def test_weights_of_standard_errors(stderr: list[float], equal: bool, tmp_path: Path) -> None:
    elo = [1.0, 0.5, -0.5, -1.0]
    table_of = table(
        "ratings", query_id=["q"] * 4, doc_id=list("abcd"), elo=elo, stderr=stderr, target=elo
    )
    write_table(tmp_path, "ratings", table_of)
    assert read_rated(["q"], tmp_path, [], stderr_weights=False)[0].weights is None
    weight = read_rated(["q"], tmp_path, [], stderr_weights=True)[0].weights
    assert weight is not None
    assert np.mean(weight) == pytest.approx(1.0)
    if equal:
        assert weight == pytest.approx([1.0] * 4)
    else:
        assert weight[0] == weight[1] > weight[2] > weight[3] > 0


def test_elos_are_read_beside_targets(tmp_path: Path) -> None:
    elo, target = [1.0, 0.5, -1.5], [0.9, 0.7, 0.1]
    table_of = table(
        "ratings", query_id=["q"] * 3, doc_id=list("abc"), elo=elo, stderr=[0.1] * 3, target=target
    )
    write_table(tmp_path, "ratings", table_of)
    (found,) = read_rated(["q"], tmp_path, [], stderr_weights=False)
    batch = scored_batch([(found, [0, 2])], {}, [[0, 0]])
    assert batch.elo.tolist() == [[1.0, -1.5]]
    assert batch.target[0].tolist() == pytest.approx([0.9, 0.1])


def test_weights_count_in_the_loss() -> None:
    prediction, target, ones = draw()
    precise = ones.clone()
    precise[0] = torch.tensor([2.0, 1.0, 1.0, 0.5, 0.5])
    row = prediction[0] - target[0]
    expected = (row**2 * precise[0]).sum()
    torch.testing.assert_close(losses.squared_error(prediction, target, precise)[0], expected)


def test_ndcg_of_all_queries_is_that_of_each() -> None:
    """As torchmetrics has it, with ties, places without a document and queries without any."""
    rng = torch.Generator().manual_seed(0)
    q, n = 50, 14
    prediction = torch.randint(0, 6, (q, n), generator=rng) / 3
    target = torch.randn(q, n, generator=rng)
    weight = (torch.rand(q, n, generator=rng) < 0.8).float() * 0.5
    weight[0] = 0
    weight[1, 1:] = 0
    found = losses.ndcg(prediction, target * (weight > 0), weight, k=10)
    assert found[0] == 0
    for row in range(1, q):
        held = weight[row] > 0
        gains = target[row][held].exp()
        expected = retrieval_normalized_dcg(prediction[row][held], gains, top_k=10)
        torch.testing.assert_close(found[row], expected, atol=1e-6, rtol=0)
