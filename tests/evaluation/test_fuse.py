"""How much a model counts beside the first stage: chosen on judged queries, used where it ships."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from scipy.stats import zscore

from zelo.artifacts import read_json, table, write_json, write_table
from zelo.distributed.trainer import LightningTrainer
from zelo.errors import UserError
from zelo.evaluation.fuse import WEIGHTS, best_weight, fuse
from zelo.models.fusion import FUSION, fused_scores, z_scores
from zelo.models.rerank_file import rerank_file
from zelo.retrieval.fusion import fused_by_score
from zelo.retrieval.retrieve import SYSTEMS
from zelo.training.train import HELD_OUT
from zelo.training.trainable import MODEL, TrainableModel


def test_scores_are_normalised_within_a_query() -> None:
    rng = np.random.default_rng(0)
    first, model = rng.normal(3, 2, 12), rng.normal(0, 0.01, 12)
    np.testing.assert_allclose(z_scores(first.tolist()), zscore(first))
    fused = fused_scores(first.tolist(), model.tolist(), 0.3)
    np.testing.assert_allclose(fused, 0.7 * zscore(first) + 0.3 * zscore(model))
    assert fused_scores([0.1] * 3, [0.3, 0.1 + 0.2, 0.3], 0.5).tolist() == [0.0] * 3
    assert fused_scores([], [], 0.5).tolist() == []


def test_a_weight_must_earn_its_distance_from_equal_shares() -> None:
    rng = np.random.default_rng(0)
    noise = 0.1 * rng.normal(size=(len(WEIGHTS), 100))
    assert best_weight(np.zeros((len(WEIGHTS), 20))) == 0.5
    assert best_weight(noise) == 0.5
    better = np.array(WEIGHTS)[:, None] * np.ones(100)
    assert best_weight(better) == 0.75  # halfway
    assert best_weight(better[::-1]) == 0.25
    peak = -0.5 * np.abs(np.array(WEIGHTS) - 0.8)[:, None] + 0.1 * noise
    assert 0.6 <= best_weight(peak) <= 0.7


class Given(TrainableModel):
    """A model whose scores are given: the trained one is right, the starting one reversed."""

    def score(self, folder: Path | None, *texts: Any, **_: Any) -> dict[str, list[float]]:
        sign = 1 if folder else -1
        candidates = texts[2]
        return {q: [sign * float(d[1:]) for d in docs] for q, docs in candidates.items()}


@pytest.mark.parametrize("held_out", [9, 10])
def test_the_weight_is_chosen_on_held_out_judged_queries(tmp_path: Path, held_out: int) -> None:
    """The first stage ranks at random, and what it found beyond the judged documents is left out;
    of few queries the weight is the default."""
    rng = np.random.default_rng(0)
    ids, docs = [f"q{i}" for i in range(held_out)], [f"d{i}" for i in range(20)]
    rows = [(q, d, float(d[1:]) / 5) for q in ids for d in docs[:12]]
    candidates = [(q, d, r, 1.0 / r) for q in ids for r, d in enumerate(rng.permutation(docs), 1)]
    folders = {name: tmp_path / name for name in ("data", "candidates", "ratings", "trained",
                                                   "out")}  # fmt: skip
    for folder in folders.values():
        folder.mkdir()
    write_table(folders["data"], "queries",
                table("queries", query_id=ids, text=ids, split=["train"] * len(ids)))  # fmt: skip
    write_table(folders["data"], "documents",
                table("documents", doc_id=docs, title=[""] * 20, text=docs))  # fmt: skip
    q, d, rank, score = zip(*candidates, strict=True)
    write_table(folders["candidates"], "candidates",
                table("candidates", query_id=q, doc_id=d, rank=rank, score=score))  # fmt: skip
    write_json(folders["candidates"] / SYSTEMS, ["bm25", "hybrid"])
    q, d, elo = zip(*rows, strict=True)
    write_table(folders["ratings"], "ratings", table("ratings", query_id=q, doc_id=d, elo=elo,
                stderr=[0.1] * len(elo), target=elo))  # fmt: skip
    write_json(folders["trained"] / HELD_OUT, ids)
    model = cast(TrainableModel, Given.model_construct())
    found = fuse(**folders, model=model, trainer=LightningTrainer(), tokens=64,
                 search_at_most=100)  # fmt: skip
    assert found["first_stage"] == "hybrid"
    assert found["queries"] == (held_out if held_out == 10 else 0)
    kept = read_json(folders["out"] / FUSION)
    if held_out < 10:
        assert (found["weight"], found["start_weight"], kept["ndcg_at_10"]) == (0.5, 0.5, {})
        return
    assert kept["ndcg_at_10"]["weight"]["1.0"] == 1.0
    assert found["weight"] > 0.5 > found["start_weight"]


def test_a_search_is_fused_with_words_over_all_that_either_found() -> None:
    lexical = {"q": [("a", 9.0), ("b", 5.0), ("c", 1.0)]}
    dense = {"q": [("c", 0.9), ("d", 0.8), ("a", 0.1)], "r": [("a", 0.5)]}
    fused = fused_by_score(lexical, dense, 0.6, 3)
    sums = 0.4 * zscore([9, 5, 1, 1]) + 0.6 * zscore([0.1, 0.1, 0.9, 0.8])
    expected = sorted(zip("abcd", sums.tolist(), strict=True), key=lambda hit: -hit[1])
    assert fused["q"] == [(doc_id, pytest.approx(score)) for doc_id, score in expected[:3]]
    assert fused["r"] == [("a", 0.0)]  # a query without a word that BM25 knows


def test_rerank_fuses_where_the_first_stage_gave_scores(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    model = tmp_path / MODEL
    shutil.copytree(tiny_model, model)
    texts = ["rain and snow", "the sea", "sun"]
    plain, scored = tmp_path / "plain.jsonl", tmp_path / "scored.jsonl"
    plain.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    lines = [
        {"text": text, "first_stage_score": n} for text, n in zip(texts, (3, 2, 9), strict=True)
    ]
    scored.write_text("".join(json.dumps(line) + "\n" for line in lines))
    alone = {row["text"]: row["score"] for row in rerank_file(model, "sea", str(plain))}
    assert [row["score"] for row in rerank_file(model, "sea", str(scored))] == sorted(
        alone.values(), reverse=True
    )  # no weight came with it
    write_json(model / FUSION, {"weight": 0.25, "normalisation": "z-score"})
    fused = rerank_file(model, "sea", str(scored))
    assert "0.25 of the model + 0.75 of first_stage_score" in capsys.readouterr().err
    expected = fused_scores([3, 2, 9], [alone[text] for text in texts], 0.25)
    for row in fused:
        assert row["score"] == pytest.approx(expected[texts.index(row["text"])])
        assert row["model_score"] == pytest.approx(alone[row["text"]])
    assert [row["rank"] for row in fused] == [1, 2, 3]
    only = rerank_file(model, "sea", str(scored), weight=1.0)
    assert {row["text"]: row["score"] for row in only} == alone
    for weight, file, words in (
        (0.5, plain, "no document has a first_stage_score"),
        (1.5, scored, "--weight 1.5: a share of the model from 0 to 1"),
    ):
        with pytest.raises(UserError, match=words):
            rerank_file(model, "sea", str(file), weight)
    with scored.open("a") as file:
        file.write("a document without a score\n")
    with pytest.raises(UserError, match="3 of 4 documents have a first_stage_score"):
        rerank_file(model, "sea", str(scored))
