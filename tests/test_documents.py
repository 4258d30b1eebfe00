"""The documentation is built without a warning, and what it tells its reader to run, runs."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer
from tests.conftest import write_model
from tests.documents import DOCS, blocks, follow
from tests.judging.endpoint import running
from tests.judging.storm import rows
from tests.test_rooms import ROOMS, SOURCE

from zelo.artifacts import read_json
from zelo.data.texts import document_texts, query_texts
from zelo.data.trec import read_run

KEY = "sk-tutorial-1234"


def test_the_tutorial(zelo_command: str, tmp_path: Path) -> None:
    with running(words=True) as endpoint:
        address = {"OPENAI_BASE_URL": endpoint.base_url}
        said = follow("tutorial.md", tmp_path, zelo_command, OPENAI_API_KEY=KEY, **address)
        counts = endpoint.counts()
    text = "\n".join(said)
    assert re.search(r"test queries +12 ", text)
    assert "12 queries, mean and 95 % interval" in text
    assert re.search(r"The (starting|trained) model ships", text)
    assert "NDCG@10 (exp Elo)" in text
    assert text.count('"score"') == 2  # two lines, ranked
    assert counts["requests"] == rows(tmp_path / "outputs/ledger.sqlite")  # nothing asked twice
    assert (tmp_path / "outputs/runs/help/report.html").is_file()
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes(), path


@pytest.mark.slow  # test_bare_corpus.py has most of it
def test_from_a_folder_to_a_search_engine(tmp_path: Path, tiny_model: Path) -> None:
    other = str(write_model(tmp_path / "other", seed=1))
    said = follow("folder.md", tmp_path, JUDGE_MODEL=str(tiny_model), SMALL_JUDGE_MODEL=other)
    lines = said[-1].splitlines()
    assert len(lines) == 3
    assert all(re.match(r"\S+\.md(#\d+)? \| ", line) for line in lines)


@pytest.mark.slow  # test_own_parts.py has most of it
def test_parts_of_ones_own(tmp_path: Path) -> None:
    said = follow("extending.md", tmp_path)
    assert "anchors: 2" in said[-1]
    report = (tmp_path / "outputs/runs/own/report.html").read_text()
    for name in ("stars.Star", "shortest.Length", "huber.Huber", "narrow.Narrow"):
        assert name in report
    store = tmp_path / "outputs" / "store"
    what_ships_is_what_was_measured(store)
    planned = re.search(r"compare: (\d+) comparisons", said[-2])
    assert planned is not None
    assert int(planned[1]) == 12 * 15  # of six documents, all pairs
    rounds = [
        read_json(path)["counts"]["comparisons"] for path in store.glob("compare/*/stage.json")
    ]
    assert len(rounds) == 1 + 3  # the stars, and the tournament's rounds
    assert 12 * 5 < sum(rounds) <= 12 * (9 + 15)
    (distilled,) = (tmp_path / "outputs/distilled/store").glob("distil/*/stage.json")
    assert read_json(distilled)["options"]["model"]["class"] == "first_token.FirstToken"
    (logged,) = (tmp_path / "outputs/watched").glob("debug/*/logs/train/metrics.csv")
    assert "train/grad_norm" in logged.read_text()


def what_ships_is_what_was_measured(store: Path) -> None:
    """Of the last run, by the folder that ships, without a line of the project's or of its own."""
    (model,) = store.glob("train/*/model")
    (run,) = store.glob("evaluate/*/runs/zelo.trec")
    (record,) = store.glob("load/*/stage.json")
    shipped = SentenceTransformer(str(model), local_files_only=True)
    assert shipped.get_embedding_dimension() == 16
    measured = read_run(run)
    queries = query_texts(record.parent, "test")
    texts = document_texts(
        record.parent, {doc_id for row in measured.values() for doc_id, _ in row}
    )
    assert len(measured) == 10
    for query_id, ranking in measured.items():
        documents = shipped.encode_document([texts[doc_id] for doc_id, _ in ranking])
        cosines = shipped.similarity(shipped.encode_query(queries[query_id]), documents)[0]
        assert [score for _, score in ranking] == pytest.approx(cosines.tolist(), abs=1e-4)


@pytest.mark.slow
def test_hydra_in_a_notebook_and_debugging(tmp_path: Path) -> None:
    composed, components, planned, debugged = follow("hydra.md", tmp_path)
    assert "CosineSchedule" in composed
    assert "Adafactor" in composed
    assert components.startswith("cycles=2 [[")
    assert planned.endswith("refused\n")
    assert debugged.endswith("outputs/debug/one/report.html\n")


@pytest.mark.slow  # test_standalone.py has most of it
def test_training_in_a_notebook(tmp_path: Path) -> None:
    """On one process and on two, which end with the same model."""
    said = follow("lightning.md", tmp_path, HOME=str(tmp_path))
    one, two = (re.findall(r"rank \d: NDCG@10 (\S+)", text) for text in said[1:3])
    assert two == 2 * one
    difference = re.search(r"largest difference (\S+)", said[3])
    assert difference is not None
    assert float(difference[1]) < 1e-5
    assert SentenceTransformer(str(tmp_path / "embedder")).encode(["a"]).shape == (1, 384)


def test_the_map_of_the_code_names_every_file_and_no_other() -> None:
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    tree = page.partition("```console\n")[2].partition("```")[0]
    named: set[str] = set()
    rooms: list[str] = []
    room = ""
    for line in tree.splitlines():
        if not line.startswith(" "):
            first = line.split()[0]
            room = first if first.endswith("/") else ""
            rooms += [room.removesuffix("/")] if room else re.findall(r"(\w+)\.py", line)
        inner = re.match(r"  (\w+/) ", line)
        folder = room + (inner[1] if inner else "")
        for names in re.findall(r"(\w+(?:, \w+)*) ?\.py", line):  # `name.py`, or `a, b, c .py`
            named |= {f"{folder}{name}.py" for name in names.split(", ")}
    there = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if path.name != "__init__.py"
    }
    assert named == there
    assert tuple(rooms) == ROOMS
    way = page.partition("## The way of")[2].partition("\n## ")[0]
    for name in re.findall(r"`((?:\w+\.){2,}\w+)`", way):
        room, file, *attributes = name.split(".")
        if (SOURCE / room).is_dir():
            found = importlib.import_module(f"zelo.{room}.{file}")
            for attribute in attributes:
                found = getattr(found, attribute)


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=DOCS.parent,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    options = (tmp_path / "configuration/index.html").read_text()
    elsewhere = ("experiment", "debug", "hydra", "module", "data_module")
    for group in (DOCS.parent / "conf").iterdir():
        if group.is_dir() and group.name not in elsewhere:
            for path in group.glob("*.yaml"):
                assert f"{group.name}={path.stem}" in options
    method = (tmp_path / "method/index.html").read_text()
    assert "<math" in method
    assert "\\frac" not in method
    for page in tmp_path.rglob("*.html"):
        fetched = re.findall(
            r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)', page.read_text()
        )
        assert not fetched, page


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_blocks_are_run_or_say_that_they_are_not(page: str) -> None:
    fences = (DOCS / page).read_text(encoding="utf-8").count("\n```")
    assert fences == 2 * len(blocks(page))
    assert {block.language for block in blocks(page)} <= {"sh", "python", "console"}
