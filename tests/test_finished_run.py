"""What a run leaves can be read by what comes after it."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import pytest
from tests.conftest import Cli
from tests.end_to_end.test_run import run_folder

from zelo.artifacts import read_table
from zelo.finished_run import FinishedRun
from zelo.runs.run_folder import link_tables, linked_tables
from zelo.store import RECORD, Artifact

RATED = "stages=[load,retrieve,compare,judge,rate]"


def linked(folder: Path) -> set[str]:
    """Names of the tables in a run folder."""
    return {path.name for path in linked_tables(folder)}


def test_a_run_folder_has_its_ratings_and_judgments(
    cli: Cli, tmp_path: Path, toy: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after all of it is moved; another run in the folder leaves no old link."""
    where = [*toy, "retriever=bm25", RATED, "hydra.run.dir=outputs/runs/one"]
    folder, _ = run_folder(cli, tmp_path, *where)
    assert linked(folder) == {"ratings", "judgments"}
    assert not Path(os.readlink(folder / "ratings")).is_absolute()
    ratings = read_table(folder / "ratings", "ratings")
    assert len(set(ratings["query_id"].to_pylist())) == 12
    assert len(read_table(folder / "judgments", "judgments"))
    monkeypatch.chdir(tmp_path / "work")
    run = FinishedRun.at(Path("outputs/runs/one"))
    assert run.ratings_folder().samefile(folder / "ratings")
    assert [path.resolve() for path in run.judgments_folders()] == [
        (folder / "judgments").resolve()
    ]
    assert (run.collection_folder() / "documents.parquet").is_file()

    scored = run.scored_dataset()
    assert scored.column_names == ["query", "document", "score"]
    assert scored["score"] == ratings["target"].to_pylist()
    assert all(scored["query"])
    assert all(scored["document"])
    monkeypatch.setattr("zelo.finished_run.find_spec", lambda name: None)
    assert run.scored_dataset() == {name: list(scored[name]) for name in scored.column_names}

    rounds, _ = run_folder(cli, tmp_path, *where, "sampler=informative", "sampler.rounds=2",
                           "sampler.comparisons=10")  # fmt: skip
    assert rounds == folder
    assert linked(folder) == {"ratings", "judgments_1", "judgments_2"}
    assert len(FinishedRun.at(Path("outputs/runs/one")).judgments_folders()) == 2
    shutil.move(tmp_path / "work" / "outputs", tmp_path / "moved")
    moved = tmp_path / "moved" / "runs" / "one"
    assert len(read_table(moved / "ratings", "ratings"))
    shutil.rmtree(moved)  # takes the links, and not what they lead to
    assert list((tmp_path / "moved" / "store" / "rate").glob("*/ratings.parquet"))


def test_scored_rows_are_what_sentence_transformers_trains_on() -> None:
    """Two columns of texts, and a label under a name that its trainers take for one."""
    if importlib.util.find_spec("datasets") is None:
        pytest.skip("datasets is not installed")
    from datasets import Dataset
    from sentence_transformers.sentence_transformer.data_collator import (
        SentenceTransformerDataCollator,
    )

    rows = Dataset.from_dict({"query": ["q"], "document": ["d"], "score": [0.5]})
    collate = SentenceTransformerDataCollator(preprocess_fn=lambda texts, **_: {"read": texts})
    batch = collate(list(rows))
    assert batch["label"].tolist() == [0.5]


def test_where_there_are_no_links_tables_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no links here")

    made = {}
    for name, stage in (("ratings", "rate"), ("cross", "judge"), ("judgments", "judge")):
        path = tmp_path / "store" / name
        path.mkdir(parents=True)
        (path / RECORD).write_text(name)
        made[name] = Artifact(stage, name, path)
    folder = tmp_path / "run"
    (folder / "my_judgments").mkdir(parents=True)
    monkeypatch.setattr(Path, "symlink_to", refuse)
    link_tables(made, folder)
    link_tables(made, folder)
    assert linked(folder) == {"ratings", "judgments", "cross_judgments"}
    assert (folder / "cross_judgments" / RECORD).read_text() == "cross"
    assert (folder / "my_judgments").is_dir()
