"""What a run rated, in the files of other trainers, and read by sentence-transformers' own."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Cli
from tests.end_to_end.test_run import run_folder

from zelo.artifacts import table, write_table
from zelo.data.training_files import FORMS, RatedDocument, export_training, training_example
from zelo.errors import UserError

DOCUMENTS = {f"d{n}": f"document {n} \x85 of many words" for n in range(6)}
ELOS = {"q0": {"d0": 2.0, "d1": 1.9, "d2": 0.5, "d3": -1.0}, "q1": {"d4": 0.1, "d5": 0.0}}
ERROR = 0.3


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A collection and its ratings."""
    data, ratings = tmp_path / "data", tmp_path / "ratings"
    data.mkdir()
    ratings.mkdir()
    titles = ["title" if n == 0 else "" for n in range(len(DOCUMENTS))]
    write_table(data, "documents", table("documents", doc_id=[*DOCUMENTS], title=titles,
                text=[*DOCUMENTS.values()]))  # fmt: skip
    write_table(data, "queries", table("queries", query_id=["q0", "q1"], text=["one?", "two?"],
                split=["train"] * 2, instruction=["be exact", None]))  # fmt: skip
    rows = [(q, d, elo) for q, elos in ELOS.items() for d, elo in elos.items()]
    q, d, elo = zip(*rows, strict=True)
    write_table(ratings, "ratings", table("ratings", query_id=q, doc_id=d, elo=elo,
                stderr=[ERROR] * len(d), target=[x / 10 for x in elo]))  # fmt: skip
    return data, ratings


def rows_of(path: Path) -> list[dict[str, Any]]:
    """A file's objects."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def test_what_is_surely_less_relevant_is_a_negative() -> None:
    best = RatedDocument("a", 1.0, 0.3, 0.0)
    worse = RatedDocument("b", 1.0 - 1.97 * 0.5, 0.4, 0.0)  # a difference of error 0.5
    as_good = RatedDocument("c", 1.0 - 1.95 * 0.5, 0.4, 0.0)
    found = training_example("q", [worse, as_good, best])
    assert (found.positive, found.negatives, found.false_negatives) == (best, [worse], [as_good])
    assert [one.doc_id for one in found.documents] == ["a", "c", "b"]


def test_each_form(folders: tuple[Path, Path], tmp_path: Path) -> None:
    counts = {form: export_training(*folders, tmp_path / form, form, 1) for form in FORMS}
    assert counts["tevatron"] == counts["flagembedding"] == counts["sentence-transformers"] == {
        "queries": 2,
        "queries without a sure negative": 1,
        "negatives": 1,
        "false negatives": 2,
    }  # fmt: skip
    for form in FORMS:
        with (tmp_path / form / "false_negatives.csv").open() as file:
            unsure = list(csv.DictReader(file))
        assert [(row["query_id"], row["doc_id"]) for row in unsure] == [("q0", "d1"), ("q1", "d5")]
        assert unsure[0]["positive_id"] == "d0"
        # The trainers read every file of JSON lines in a folder
        columns = {
            name for path in (tmp_path / form).glob("train*.jsonl") for name in rows_of(path)[0]
        }
        assert columns <= {"query", "pos", "neg", "pos_scores", "neg_scores", "query_id",
                           "positive_passages", "negative_passages"}  # fmt: skip
    first, negative = f"title {DOCUMENTS['d0']}", DOCUMENTS["d2"]
    ours = tmp_path / "sentence-transformers"
    assert len(rows_of(ours / "scored.jsonl")) == 6
    lists = rows_of(ours / "lists.jsonl")
    assert lists[0]["documents"] == [first, *(DOCUMENTS[f"d{n}"] for n in (1, 2, 3))]
    assert lists[0]["scores"] == [0.2, 0.19, 0.05, -0.1]
    assert rows_of(ours / "triplets.jsonl") == [
        {
            "query": "be exact\none?",
            "positive": first,
            "negative": negative,
            "score": pytest.approx(0.15),
        }
    ]
    assert rows_of(tmp_path / "flagembedding" / "train.jsonl") == [
        {
            "query": "be exact\none?",
            "pos": [first],
            "neg": [negative],
            "pos_scores": [0.2],
            "neg_scores": [0.05],
        }
    ]
    assert rows_of(tmp_path / "tevatron" / "train.jsonl") == [
        {
            "query_id": "q0",
            "query": "be exact\none?",
            "positive_passages": [{"docid": "d0", "text": first, "score": 0.2}],
            "negative_passages": [{"docid": "d2", "text": negative, "score": 0.05}],
        }
    ]


def test_a_folder_that_cannot_be_written(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file: cannot be written"):
        export_training(*folders, tmp_path / "file", "tevatron", 15)
    with pytest.raises(UserError, match="negatives=0: at least 1"):
        export_training(*folders, tmp_path / "out", "tevatron", 0)


def test_sentence_transformers_trains_on_them(
    cli: Cli, tmp_path: Path, toy: list[str], tiny_model: Path
) -> None:
    """On the files of a run: both of its trainers, with a loss for each file."""
    from datasets import load_dataset
    from sentence_transformers import (
        CrossEncoder,
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.cross_encoder import (
        CrossEncoderTrainer,
        CrossEncoderTrainingArguments,
    )
    from sentence_transformers.cross_encoder.losses import ListNetLoss, MSELoss
    from sentence_transformers.sentence_transformer.losses import (
        CosineSimilarityLoss,
        MarginMSELoss,
        MultipleNegativesRankingLoss,
    )

    folder, _ = run_folder(
        cli, tmp_path, *toy, "retriever=bm25", "stages=[load,retrieve,compare,judge,rate]",
        "sampler.cycles=8",
    )  # fmt: skip
    done = cli("export", str(folder), f"out={tmp_path / 'out'}", "as=sentence-transformers")
    assert done.returncode == 0, done.stderr
    assert "queries" in done.stdout

    def rows(name: str) -> Any:
        path = str(tmp_path / "out" / f"{name}.jsonl")
        cache = str(tmp_path / "cache")
        return load_dataset("json", data_files=path, split="train", cache_dir=cache)

    settings: dict[str, Any] = {
        "output_dir": str(tmp_path / "trained"),
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
    }

    def train(trainer: Any, arguments: Any, model: Any, name: str, loss: Any) -> None:
        trained = trainer(model, arguments(**settings), rows(name), loss=loss(model)).train()
        assert trained.global_step == 2
        assert 0 < trained.training_loss < 100

    of_embedders = SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    embedder = SentenceTransformer(str(tiny_model))
    train(*of_embedders, embedder, "triplets", MarginMSELoss)
    train(*of_embedders, embedder, "triplets", MultipleNegativesRankingLoss)
    train(*of_embedders, embedder, "scored", CosineSimilarityLoss)
    of_rerankers = CrossEncoderTrainer, CrossEncoderTrainingArguments
    reranker = CrossEncoder(str(tiny_model), num_labels=1)
    train(*of_rerankers, reranker, "scored", MSELoss)
    train(*of_rerankers, reranker, "lists", ListNetLoss)
