"""What ships is what was trained: the libraries that serve a model give the same scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.training.collection import data_module

from zelo.config import Component
from zelo.distributed.trainer import LightningTrainer
from zelo.models.pairwise import PairwiseCrossEncoder
from zelo.models.pretrained import PretrainedModel
from zelo.training.bi_encoder import BiEncoder
from zelo.training.cross_encoder import CrossEncoder
from zelo.training.objectives import MSE, CentredMSE
from zelo.training.options import TrainingOptions
from zelo.training.rated_queries import RatedQuery

QUERIES = {"q1": "how to sort a list", "q2": "größer 東京 \U0001f40d", "q3": "x"}
DOCUMENTS = {
    "short": "sorted(list)",
    "empty": "",
    "long": "def f(x):\n    return x\n" * 200,
    "other": "Ελληνικά и русский",
}
CANDIDATES = {query_id: list(DOCUMENTS) for query_id in QUERIES}
PAIRS = [(q, d) for q in QUERIES.values() for d in DOCUMENTS.values()]


def moved(module: torch.nn.Module) -> torch.nn.Module:
    """Weights away from where they started, as after training."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return module.eval()


def predictions(module: Any, folder: Path) -> np.ndarray:
    """What the LightningModule says of every pair, from the token ids of a training."""
    rated = [RatedQuery(i, list(DOCUMENTS), [0.0] * len(DOCUMENTS)) for i in QUERIES]
    data = data_module(
        module, folder, rated, 3, documents=DOCUMENTS, texts=QUERIES, max_tokens_per_forward=2048
    )
    with torch.inference_mode():
        out = module(data.batch_of([(query, range(len(DOCUMENTS))) for query in rated]))
    return out.numpy()


def test_a_bi_encoder_loads_in_sentence_transformers(tiny_model: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model = BiEncoder(
        pretrained=PretrainedModel(name=str(tiny_model)), max_length=64, logit_scale=6.0
    )
    module = moved(model.module(CentredMSE(), TrainingOptions()))
    expected = predictions(module, tmp_path)
    module.save_pretrained(tmp_path / "model")
    stock = SentenceTransformer(str(tmp_path / "model"))
    assert stock.max_seq_length == 64
    cosine = stock.similarity(
        stock.encode_query(list(QUERIES.values())), stock.encode_document(list(DOCUMENTS.values()))
    ).numpy()
    np.testing.assert_allclose(6.0 * cosine, expected, atol=1e-5)
    ours = model.score(
        tmp_path / "model", QUERIES, DOCUMENTS, CANDIDATES, tmp_path, LightningTrainer()
    )
    np.testing.assert_allclose([ours[q] for q in QUERIES], cosine, atol=1e-5)
    assert not list((tmp_path / "model").rglob("*.bin"))


@pytest.mark.parametrize("objective", [CentredMSE(), MSE()], ids=["identity", "sigmoid"])
@pytest.mark.parametrize("head", ["segments", "mean", "cls"])
def test_a_cross_encoder_loads_in_sentence_transformers(
    tiny_model: Path, tmp_path: Path, head: str, objective: Component
) -> None:
    from sentence_transformers import CrossEncoder as Stock

    model = CrossEncoder(pretrained=PretrainedModel(name=str(tiny_model)), head=head, max_length=64)
    module = moved(model.module(objective, TrainingOptions()))
    expected = predictions(module, tmp_path)
    if isinstance(objective, MSE):
        expected = 1 / (1 + np.exp(-expected))
    module.save_pretrained(tmp_path / "model")
    stock = Stock(str(tmp_path / "model"), trust_remote_code=head == "segments")
    assert [row["corpus_id"] for row in stock.rank("q", ["a", "b", "c"])] != []
    flat = stock.predict(PAIRS)
    assert flat.shape == (len(PAIRS),)
    scores = flat.reshape(len(QUERIES), -1)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    ours = model.score(
        tmp_path / "model", QUERIES, DOCUMENTS, CANDIDATES, tmp_path, LightningTrainer()
    )
    np.testing.assert_allclose([ours[q] for q in QUERIES], scores, atol=1e-5)


def test_an_untrained_segment_head_ranks_as_a_cosine_of_pools(tiny_model: Path) -> None:
    model = CrossEncoder(
        pretrained=PretrainedModel(name=str(tiny_model)), head="segments", logit_scale=6.0
    )
    module = model.module(CentredMSE(), TrainingOptions()).eval()
    features = module.model.preprocess(PAIRS[:4])
    with torch.inference_mode():
        scores = module.score(dict(features))
        tokens = module.model[0](dict(features))["token_embeddings"]
    first = (features["token_type_ids"] == 0) & features["attention_mask"].bool()
    second = (features["token_type_ids"] == 1) & features["attention_mask"].bool()
    for row in range(4):
        cosine = torch.cosine_similarity(
            tokens[row][first[row]].mean(0), tokens[row][second[row]].mean(0), dim=0
        )
        assert float(scores[row]) == pytest.approx(6.0 * float(cosine), abs=0.05)


def test_the_pairwise_reranker_is_antisymmetric_and_survives_the_disk(
    tiny_model: Path, tmp_path: Path
) -> None:
    model = moved(PairwiseCrossEncoder(tiny_model, 16, 64))
    triples = [
        (q, a, b) for q in QUERIES.values() for a in DOCUMENTS.values() for b in DOCUMENTS.values()
    ]
    p = model.preference(triples)
    turned = model.preference([(q, b, a) for q, a, b in triples])
    torch.testing.assert_close(p, 1 - turned, atol=1e-6, rtol=0)
    assert p.std() > 0.01
    model.save(tmp_path / "pair")
    torch.testing.assert_close(PairwiseCrossEncoder.load(tmp_path / "pair").preference(triples), p)
    assert model.preference([]).shape == (0,)


def test_the_pairwise_reranker_always_sees_both_documents(tiny_model: Path) -> None:
    model = PairwiseCrossEncoder(tiny_model, 16, 64)
    features = model.encode([("query " * 100, DOCUMENTS["long"], DOCUMENTS["long"])])
    assert features["input_ids"].shape[1] <= 64
    counts = [int((features["segment"] == part).sum()) for part in (1, 2, 3)]
    assert counts[1] == counts[2] > 20
