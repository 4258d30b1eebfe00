"""Each row of the table in CONTRIBUTING.md, by a part of `tests/own_parts`: one file, one YAML.

`docs/extending.md` has others, which `tests/test_documents.py` runs.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from sentence_transformers import SentenceTransformer
from tests.conftest import Cli
from tests.judging.endpoint import running

from zelo.artifacts import read_json, read_table
from zelo.data.texts import document_texts, query_texts
from zelo.data.trec import read_run
from zelo.models.pretrained import PretrainedModel

PARTS = Path(__file__).parents[1] / "own_parts"
ON_NUMBERS = ["data=numbers", "retriever=shared_words", "hydra.searchpath=[file://conf]"]
SMALL = ["top_k=5", "depth=5", "evaluation.resamples=100"]

Command = Callable[..., str]


@pytest.fixture
def work(cli: Cli, tmp_path: Path) -> Path:
    """The folder that commands run in, with files of one's own."""
    return shutil.copytree(PARTS, tmp_path / "work", dirs_exist_ok=True)


@pytest.fixture
def zelo(cli: Cli, work: Path) -> Command:
    """A command that finds them; what it printed."""
    found = os.pathsep.join([".", *filter(None, [os.environ.get("PYTHONPATH")])])

    def run(*words: str, **environment: str) -> str:
        done = cli(*words, PYTHONPATH=found, **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def stage_folders(work: Path, said: str) -> dict[str, Path]:
    """Folder of each stage of a run, by its label."""
    folder = work / re.findall(r"run folder\s+(\S+)", said)[0]
    stages = read_json(folder / "manifest.json")["stages"]
    return {"run": folder} | {each["label"]: work / each["path"] for each in stages}


def test_data_retriever_graph_judge_model_objective_optimizer_schedule_and_logger(
    zelo: Command, work: Path, tiny_model: Path
) -> None:
    said = zelo(
        *("run", *ON_NUMBERS, *SMALL, f"pretrained.path={tiny_model}", "sampler=chain"),
        *("judge=alphabet", "model=distance", "objective=absolute_error", "logger=notebook"),
        *("training/optimizer=sign_descent", "training/schedule=quarter"),
        *("training.batch_size=99", "training.max_epochs=2"),
    )
    folders = stage_folders(work, said)
    queries = query_texts(folders["load"])
    documents = document_texts(folders["load"])
    assert len(queries) == 13
    assert len(documents) == 4 * 9

    # The retriever: the first candidates share a word with the query.
    assert read_json(folders["retrieve"] / "systems.json") == ["shared-words"]
    candidates = read_table(folders["retrieve"], "candidates").to_pylist()
    assert {row["doc_id"] for row in candidates if row["query_id"] == "q-three"} == {
        *("twenty-three", "thirty-three", "forty-three", "fifty-three"),
        "twenty-one",  # none that is left shares one, and this is the first
    }

    # The graph: 4 pairs of neighbours, 3 of next neighbours. The judge: what the alphabet says.
    judged = read_table(folders["judge"], "judgments").to_pylist()
    assert len(judged) == 9 * (4 + 3)
    for row in judged:
        assert row["judge"] == "alphabet"
        assert (row["score"] < 0) == (documents[row["doc_a"]] < documents[row["doc_b"]])

    # The model and the objective: the loss of the first of two steps.
    start = SentenceTransformer(str(tiny_model), similarity_fn_name="euclidean")
    rated: dict[str, list[tuple[str, float]]] = {}
    for row in read_table(folders["rate"], "ratings").to_pylist():
        rated.setdefault(row["query_id"], []).append((documents[row["doc_id"]], row["target"]))
    errors: list[float] = []
    for query_id, rows in rated.items():
        scores = similarities(start, queries[query_id], [text for text, _ in rows])
        targets = np.array([target for _, target in rows])
        errors += list(np.abs(scores - scores.mean() - (targets - targets.mean())))
    losses = read_table(folders["train"], "losses")["loss"].to_pylist()
    assert len(losses) == 2
    assert losses[0] == pytest.approx(np.mean(errors), abs=1e-4)

    # The optimizer and the schedule: each weight moved by the rate, then by a quarter of it.
    before, after = (
        load_file(folder / "model.safetensors")
        for folder in (tiny_model, folders["train"] / "model")
    )
    moved = np.concatenate([np.abs(after[name] - before[name]).ravel() for name in before])
    quarters = moved / (0.0625 / 4)
    assert np.abs(quarters - quarters.round()).max() < 1e-3
    assert {3, 5} <= set(quarters.round()) <= {0, 1, 3, 4, 5}  # in a step it may have no gradient

    # What ships measures as it was measured: similarities by Euclid are never positive.
    shipped = SentenceTransformer(str(folders["train"] / "model"))
    measured = read_run(folders["evaluate"] / "runs" / "zelo.trec")
    assert len(measured) == 4
    for query_id, ranking in measured.items():
        scores = similarities(shipped, queries[query_id], [documents[i] for i, _ in ranking])
        assert [score for _, score in ranking] == pytest.approx(scores.tolist(), abs=1e-4)
        assert max(scores) < 0

    # The logger: results, and the training's loss.
    told = json.loads((folders["run"] / "notebook.json").read_text())
    assert told == json.loads((folders["run"] / "metrics.json").read_text())
    assert "train/loss" in (folders["run"] / "notebook" / "train" / "metrics.csv").read_text()


def similarities(model: Any, query: str, documents: list[str]) -> np.ndarray:
    found = model.similarity(model.encode_query([query]), model.encode_document(documents))
    return np.asarray(found[0], dtype=np.float64)


def test_a_sampler_that_learns_from_the_answers_and_a_pairwise_model(
    zelo: Command, work: Path, tiny_model: Path
) -> None:
    said = zelo(
        *("run", *ON_NUMBERS, *SMALL, f"pretrained.path={tiny_model}", "sampler=challengers"),
        *("judge=alphabet", "distil=on", "distil/model=first_token", "distil.sampler.k_min=2"),
        *("distil.training.max_steps=2", "stages=[load,retrieve,compare,judge,distil]"),
    )
    folders = stage_folders(work, said)
    model = folders["distil"] / "model"
    assert (model / "first_token_head.safetensors").is_file()

    # What it answers is what the model that was saved says.
    spec = importlib.util.spec_from_file_location("first_token", work / "first_token.py")
    assert spec is not None
    assert spec.loader is not None
    own = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(own)
    asked = own.FirstToken(pretrained=PretrainedModel(name=str(model)), max_length=64).load(model)
    queries, documents = query_texts(folders["load"]), document_texts(folders["load"])
    rounds = [
        {row["query_id"]: row for row in read_table(folder, "judgments").to_pylist()}
        for label, folder in folders.items()
        if label.startswith("judge (the distilled model)")
    ]
    for row in rounds[0].values():
        shown = (queries[row["query_id"]], documents[row["doc_a"]], documents[row["doc_b"]])
        p = float(asked.preference([shown])[0])
        assert row["score"] == pytest.approx(1 - 2 * p, abs=1e-5)

    # Each round asks about the best of the one before.
    assert len(rounds) == 3
    for before, after in pairwise(rounds):
        assert len(after) == 9
        for query_id, row in before.items():
            best = row["doc_a"] if row["score"] <= 0 else row["doc_b"]
            assert best in (after[query_id]["doc_a"], after[query_id]["doc_b"])


def test_a_provider_of_language_models(zelo: Command, work: Path) -> None:
    """No code: a YAML file says where it is, whose key it takes, what it charges."""
    words = [
        *("run", *ON_NUMBERS, *SMALL, "sampler=chain", "judge=corner_shop"),
        "stages=[load,retrieve,compare,judge]",
    ]
    with running(words=True, key="sk-corner") as endpoint:
        words.append(f"judge.judges.corner_shop.provider.base_url={endpoint.base_url}")
        folders = stage_folders(work, zelo(*words, CORNER_SHOP_KEY="sk-corner"))
        asked = endpoint.counts()
    counts = read_json(folders["judge"] / "stage.json")["counts"]
    assert counts["judgments"] == 9 * (4 + 3)
    assert asked["body"]["model"] == "household-name"
    with sqlite3.connect(work / "outputs" / "ledger.sqlite") as ledger:
        rows = ledger.execute("SELECT tokens_in, tokens_out, usd FROM answers").fetchall()
    assert len(rows) == asked["requests"]
    for tokens_in, tokens_out, usd in rows:
        assert usd == pytest.approx((1.0 * tokens_in + 2.0 * tokens_out) / 1e6)


def test_a_reranker_to_compare(zelo: Command, work: Path) -> None:
    said = zelo(
        "evaluate", *ON_NUMBERS, "reranker=[reversed]", "top_k=9", "evaluation.resamples=100"
    )
    runs = work / said.split()[-1] / "runs"
    first, reverse = (read_run(runs / f"{name}.trec") for name in ("shared-words", "reversed"))
    assert len(first) == 4
    for query_id, ranking in first.items():
        order = [doc_id for doc_id, _ in ranking[:9]]
        assert [doc_id for doc_id, _ in reverse[query_id][:9]] == order[::-1]


def test_a_writer_of_queries(zelo: Command, work: Path) -> None:
    said = zelo("run", *ON_NUMBERS, "queries=sums", "stages=[load,queries]")
    folder = stage_folders(work, said)["queries"]
    written = [row for row in read_table(folder, "written").to_pylist() if row["status"] == "kept"]
    assert len(written) == 5
    for row in written:
        assert row["text"] == f"{row['doc_id'].replace('-', ' ')} and one more"
        assert (row["kind"], row["writer"]) == ("sum", "sums.Sums")
