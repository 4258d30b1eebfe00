"""Published suites by name, on small local copies in their own layouts."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from tests.conftest import Cli, write_beir

from zelo.errors import UserError
from zelo.evaluation.suites import SuiteWords, collections_of, suites

SETS = {
    "NanoSciFact": ["cells divide", "stars are hot", "water boils", "iron rusts"],
    "NanoNQ": ["who wrote it", "when was it", "where is it", "why is it"],
}


@pytest.fixture
def nanobeir(tmp_path: Path) -> Path:
    """A copy as it is downloaded: three subsets, in each a split for every collection."""
    folder = tmp_path / "copy"
    folder.mkdir()
    card = ""
    for subset in ("corpus", "queries", "qrels"):
        card += f"- config_name: {subset}\n  data_files:\n"
        for name, texts in SETS.items():
            rows: list[dict[str, Any]] = {
                "corpus": [
                    {"_id": f"d{i}", "text": f"{text} number {i % 7} of all"}
                    for i, text in enumerate(texts * 6)
                ] + [{"_id": "q0", "text": texts[0]}],  # a query that is a document too
                "queries": [{"_id": f"q{i}", "text": text} for i, text in enumerate(texts)],
                "qrels": [
                    {"query-id": f"q{i}", "corpus-id": f"d{i + 4 * k}"}
                    for i in range(len(texts)) for k in range(1 + i)
                ],
            }[subset]  # fmt: skip
            file = f"{subset}-{name}.jsonl"
            (folder / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
            card += f"  - split: {name}\n    path: {file}\n"
    (folder / "README.md").write_text(f"---\nconfigs:\n{card}---\n")
    return folder


def test_nanobeir_is_as_sentence_transformers_has_it(
    nanobeir: Path, tiny_model: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same model, by its own evaluator: to 1e-6, on each collection and on average."""
    import datasets
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.evaluation import NanoBEIREvaluator

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    words = [
        "evaluate", "suite=nanobeir", f"suite.path={nanobeir}", "suite.only=[NanoSciFact, NanoNQ]",
        "retriever=dense", f"pretrained.path={tiny_model}", f"out={tmp_path}/out",
        f"home={tmp_path}/home",
    ]  # fmt: skip
    done = cli(*words)
    assert done.returncode == 0, done.stderr
    evaluator = NanoBEIREvaluator(["scifact", "nq"], dataset_id=str(nanobeir), write_csv=False)
    expected = evaluator(SentenceTransformer(str(tiny_model)))
    with (tmp_path / "out" / "table.csv").open() as file:
        rows = {(row["name"], row["system"]): row for row in csv.DictReader(file)}
    assert rows["NanoSciFact", "dense"]["kind"] == "collection"
    assert rows["science", "dense"]["kind"] == "domain"
    index = OmegaConf.load(tmp_path / "out" / "model-index.yaml")["model-index"]
    (dense,) = [system for system in index if system.name == tiny_model.name]
    assert [(one.dataset.type, one.dataset.split) for one in dense.results] == [
        ("sentence-transformers/NanoBEIR-en", name) for name in ("NanoNQ", "NanoSciFact")
    ]
    values = {
        (one.dataset.name, metric.type): metric.value
        for one in dense.results for metric in one.metrics
    }  # fmt: skip
    for name in SETS:
        exact = [expected[f"{name}_cosine_{metric}@10"] for metric in ("ndcg", "recall")]
        assert 0 < exact[0] < 1
        folder = tmp_path / "out" / name
        from zelo.artifacts import read_table

        found = {
            row["metric"]: row["value"] for row in read_table(folder, "metrics").to_pylist()
            if row["system"] == "dense"
        }  # fmt: skip
        assert [found["NDCG@10"], found["Recall@10"]] == pytest.approx(exact, abs=1e-6)
        assert values[name, "ndcg_at_10"] == pytest.approx(exact[0], abs=1e-5)
    average = float(rows["average of collections", "dense"]["value"])
    assert average == pytest.approx(expected["NanoBEIR_mean_cosine_ndcg@10"], abs=1e-4)
    again = cli(*words)
    assert again.stderr.count("already done") + again.stdout.count("already done") >= 2


def test_copies_in_beirs_own_layout(tmp_path: Path, cli: Cli, tiny_model: Path) -> None:
    for name in ("scifact", "fiqa"):
        write_beir(
            tmp_path / "copies" / name, {f"d{i}": f"text {i} of {name}" for i in range(20)},
            {"q1": "text 1", "q2": "text 2"}, {"test": [("q1", "d1", 1), ("q2", "d2", 1)]},
        )  # fmt: skip
    done = cli(
        "evaluate", "suite=beir", f"suite.path={tmp_path}/copies", "suite.only=scifact,fiqa",
        "retriever=bm25", f"out={tmp_path}/out", f"pretrained.path={tiny_model}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "scifact" / "evaluation.json").is_file()
    for name in ("science", "finance", "average of collections", "average of domains"):
        assert name in done.stdout
    (tmp_path / "copies" / "fiqa" / "corpus.jsonl").write_text("{")
    words = [
        "evaluate", "suite=beir", f"suite.path={tmp_path}/copies", "suite.only=scifact,fiqa",
        "retriever=bm25", f"home={tmp_path}/home", f"pretrained.path={tiny_model}",
    ]  # fmt: skip
    broken = cli(*words)
    assert broken.returncode == 2
    assert "! not done: fiqa: " in broken.stdout
    assert "scifact" in broken.stdout
    again = cli(*words)  # in the same folder
    assert "already done" in again.stderr
    (folder,) = (tmp_path / "home" / "evaluations").iterdir()
    assert folder.name.startswith("beir-")
    lacking = cli("evaluate", "suite=beir", f"suite.path={tmp_path}/copies")
    assert lacking.returncode == 2
    assert "has no folder arguana" in lacking.stderr


def asked(*words: str) -> SuiteWords:
    found = SuiteWords.of(words)
    assert found is not None
    return found


def test_what_is_asked_of_a_suite() -> None:
    assert SuiteWords.of(["data=beir", "data.path=suite=x"]) is None
    named = [one.name for one in collections_of(asked("suite=nanobeir", "depth=10"))]
    assert len(named) == 13
    assert len(collections_of(asked("suite=mteb"))) == 10
    sources = [one.hub for one in collections_of(asked("suite=beir"))]
    assert len(set(sources)) == len(sources) == 26
    (nq,) = collections_of(asked("suite=nanobeir", "suite.only=NanoNQ"))
    assert (nq.hub, nq.split) == ("sentence-transformers/NanoBEIR-en", "NanoNQ")
    assert nq.values["data.name"] == "NanoNQ"
    (msmarco,) = collections_of(asked("suite=beir", "suite.only=[msmarco]"))
    assert "evaluation.split=dev" in msmarco.words
    assert all(entry["domain"] for suite in suites().values()
               for entry in suite["collections"].values())  # fmt: skip


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["suite=nano"], "no such suite; there are nanobeir, beir, mteb"),
        (["suite=beir", "suite.only=[scifact,x]"], "suite.only=x: not in beir, which has arguana"),
        (["suite=beir", "data=hub"], "data=hub: suite=beir has its own collections"),
        (["suite=beir", "suite.path=/nowhere"], "suite.path=/nowhere: has no folder arguana"),
        (["suite=nanobeir", "suite.path=/nowhere"], "suite.path=/nowhere: no such folder"),
        (["suite.path=/nowhere"], "suite=NAME is missing"),
        (["suite=beir", "suite.of=x"], "suite.of: no such option"),
        (["suite", "nanobeir"], "suite: suite=NAME, suite.path=FOLDER"),
        (["suite=beir", "suite=mteb"], "once each"),
    ],
)
def test_mistakes_about_a_suite_are_named(words: list[str], why: str) -> None:
    with pytest.raises(UserError, match=why.replace("[", r"\[")):
        collections_of(asked(*words))
