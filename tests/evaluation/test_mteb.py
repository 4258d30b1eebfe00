"""A trained model handed to `mteb` runs as it is, and measures the same there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import mteb
import pytest
from mteb.abstasks import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from sentence_transformers import CrossEncoder as StockCrossEncoder
from sentence_transformers import SentenceTransformer
from tests.conftest import Cli, write_beir
from tests.models.test_export import moved

from zelo.artifacts import read_table
from zelo.models.pretrained import PretrainedModel
from zelo.training.bi_encoder import BiEncoder
from zelo.training.cross_encoder import CrossEncoder
from zelo.training.objectives import MSE, CentredMSE
from zelo.training.options import TrainingOptions

WORDS = ["apple", "pear", "plum", "cherry", "quince", "medlar"]
DOCUMENTS = {
    f"d{i}": f"{WORDS[i % 6]} and {WORDS[(i * 5 + 1) % 6]}, {i % 4} of them" for i in range(24)
}
QUERIES = {f"q{i}": f"which {word} is it" for i, word in enumerate(WORDS)}
LABELS = {q: {d: 1 for d, text in DOCUMENTS.items() if text.startswith(QUERIES[q].split()[1])}
          for q in QUERIES}  # fmt: skip


class Orchard(AbsTaskRetrieval):
    """A retrieval task of the texts above; a reranking one where `candidates` are given."""

    candidates: dict[str, list[str]] | None = None
    metadata = TaskMetadata(
        name="Orchard", description="fruit", type="Retrieval", category="t2t", modalities=["text"],
        dataset={"path": "local/orchard", "revision": "1"}, eval_splits=["test"],
        eval_langs=["eng-Latn"], main_score="ndcg_at_10", reference=None, date=None, domains=None,
        task_subtypes=None, license=None, annotations_creators=None, dialect=None,
        sample_creation=None, bibtex_citation=None,
    )  # fmt: skip

    def load_data(self, **_: Any) -> None:
        rows = [{"id": i, "title": "", "text": text} for i, text in DOCUMENTS.items()]
        asked = [{"id": i, "text": text} for i, text in QUERIES.items()]
        self.dataset = {
            "default": {
                "test": {
                    "corpus": datasets.Dataset.from_list(rows),
                    "queries": datasets.Dataset.from_list(asked),
                    "relevant_docs": LABELS,
                    "top_ranked": self.candidates,
                }
            }
        }
        self.data_loaded = True


def by_mteb(model: Any, task: Orchard) -> float:
    """NDCG@10 as mteb finds it."""
    found = mteb.evaluate(
        model, task, cache=None, show_progress_bar=False, co2_tracker=False,
        overwrite_strategy="always",
    )  # fmt: skip
    return float(found.task_results[0].scores["test"][0]["ndcg_at_10"])


@pytest.fixture
def collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    labels = [(q, d, grade) for q, of in LABELS.items() for d, grade in of.items()]
    write_beir(tmp_path / "orchard", DOCUMENTS, QUERIES, {"test": labels})
    return tmp_path / "orchard"


def ndcg(cli: Cli, folder: Path, system: str, *words: str) -> float:
    done = cli("evaluate", "data=beir", f"data.path={folder}", f"out={folder}/out", *words)
    assert done.returncode == 0, done.stderr
    rows = read_table(folder / "out", "metrics").to_pylist()
    return next(
        row["value"] for row in rows if (row["system"], row["metric"]) == (system, "NDCG@10")
    )


def test_an_embedding_model(collection: Path, tmp_path: Path, tiny_model: Path, cli: Cli) -> None:
    model = BiEncoder(pretrained=PretrainedModel(name=str(tiny_model)), max_length=64)
    folder = tmp_path / "model"
    moved(model.module(CentredMSE(), TrainingOptions())).save_pretrained(folder)
    ours = ndcg(cli, collection, "dense", "retriever=dense", f"pretrained.path={folder}")
    assert 0.1 < ours < 0.95
    assert by_mteb(SentenceTransformer(str(folder)), Orchard()) == pytest.approx(ours, abs=1e-4)


def test_a_reranker(collection: Path, tmp_path: Path, tiny_model: Path, cli: Cli) -> None:
    model = CrossEncoder(pretrained=PretrainedModel(name=str(tiny_model)), max_length=64)
    folder = tmp_path / "model"
    moved(model.module(MSE(), TrainingOptions())).save_pretrained(folder)
    ours = ndcg(
        cli, collection, "cross_encoder", "retriever=dense", f"pretrained.path={tiny_model}",
        "reranker=[cross_encoder]", f"rerankers.cross_encoder.pretrained.path={folder}", "top_k=24",
    )  # fmt: skip
    task = Orchard()
    task.candidates = {q: [*DOCUMENTS] for q in QUERIES}
    assert by_mteb(StockCrossEncoder(str(folder)), task) == pytest.approx(ours, abs=1e-4)
