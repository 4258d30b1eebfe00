"""A user's mistake ends in one clear line and exit status 2, with nothing half-written."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import Cli, append


def repeat_first_line(path: Path) -> None:
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[0]]) + "\n")


SPLITS = ("train", "test")

MISTAKES: dict[str, tuple[Callable[[Path], object], str]] = {
    "an empty data set": (
        lambda f: (f / "corpus.jsonl").write_text(""),
        "corpus.jsonl: empty",
    ),
    "a duplicate id": (
        lambda f: repeat_first_line(f / "corpus.jsonl"),
        "corpus.jsonl:33: id 'd0-apples' was used before",
    ),
    "labels of unknown queries alone": (
        lambda f: [(f / f"qrels/{split}.tsv").write_text("q\td0-apples\t1\n") for split in SPLITS],
        "qrels/train.tsv:1: query 'q' is not in queries.jsonl, nor is any other",
    ),
    "labels of an unknown document alone": (
        lambda f: [
            (f / f"qrels/{split}.tsv").write_text(f"q-apples-{kind}\td\t1\n")
            for split, kind in zip(SPLITS, ("history", "theory"), strict=True)
        ],
        "qrels/train.tsv:1: document 'd' is not in corpus.jsonl, nor is any other",
    ),
    "a missing file": (lambda f: (f / "queries.jsonl").unlink(), "queries.jsonl: not found"),
    "a malformed line": (
        lambda f: append(f / "queries.jsonl", '{"_id": '),
        "queries.jsonl:17: not JSON",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_in_the_data(cli: Cli, tmp_path: Path, beir_folder: Path, mistake: str) -> None:
    spoil, message = MISTAKES[mistake]
    spoil(beir_folder)
    done = cli("run", "data=beir", f"data.path={beir_folder}")
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in done.stderr + done.stdout
    assert not list((tmp_path / "work").rglob("*.parquet"))
    for manifest in (tmp_path / "work").rglob("manifest.json"):
        assert json.loads(manifest.read_text())["status"] == "failed"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["run", "sampler.cycles=0"],
            "error: sampler.cycles=0: input should be greater than or equal to 1",
        ),
        (["run", "sampler.cylces=4"], "error: sampler.cylces: no such option"),
        (
            ["run", "sampler=circles"],
            "error: Could not find 'sampler/circles' Available options in 'sampler'",
        ),
        (["run", "sampler=5"], "error: Config group override must be a string"),
        (["run", "sampler=[["], "error: "),
        (["run", "data=beir"], "error: data.path: "),
        (
            ["run", "pretrained.path=/nowhere"],
            "error: model configured path /nowhere: no config.json",
        ),
        (["run", "home=/proc/nowhere"], "error: "),
        (["run", "retriever.bm25.language=klingon"], "no such stemmer; there are auto, none, "),
        (["run", "trainer.precision=banana"], "error: trainer.precision='banana'"),
        (
            ["run", "pretrained.path=None"],
            "error: pretrained.path=None: what is not given is called null",
        ),
        (["plan", "training.max_steps=None"], "error: training.max_steps=None: what is not given"),
        (["walk"], "error: walk: no such command; see zelo --help"),
        (["plan", "-m", "seed=0,1"], "error: -m: no option of this command, which takes GROUP="),
    ],
)
def test_in_the_command(cli: Cli, tmp_path: Path, arguments: list[str], message: str) -> None:
    done = cli(*arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert len(done.stderr.splitlines()) == 1
    assert not [
        path
        for path in (tmp_path / "work").rglob("*")
        if path.is_file() and path.name != "manifest.json"
    ]


def test_a_crash_says_what_ran_in_which_stage_and_where_to_report_it(
    cli: Cli, toy: list[str], tmp_path: Path
) -> None:
    """A component of one's own that divides by zero: a traceback, and one line after it."""
    (tmp_path / "work" / "broken.py").write_text(
        "from zelo.comparison.sampler import BaseSampler\n"
        "class Broken(BaseSampler):\n"
        "    def edges(self, n, rng):\n"
        "        return 1 / 0\n"
    )
    own = ["~sampler", "+sampler={_target_: broken.Broken}"]
    for sweep in ([], ["-m"]):
        done = cli("run", *sweep, *toy, *own, PYTHONPATH=".")
        assert done.returncode != 0
        assert "ZeroDivisionError: division by zero" in done.stderr
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("bug: ")]
        assert line.startswith("bug: `zelo run")
        assert "crashed in the stage compare: ZeroDivisionError" in line
        assert "report it as an issue" in line


@pytest.mark.parametrize("name", ["mün (a),b=c", 'it\'s "1"', "a#b", "[x]{y}", "日本"])
def test_a_path_that_hydra_does_not_read_is_quoted_twice(
    cli: Cli, tmp_path: Path, beir_folder: Path, name: str
) -> None:
    """And what the message says to write is read."""
    folder = beir_folder.rename(tmp_path / name)
    done = cli("data", "describe", "data=beir", f"data.path={folder}")
    assert done.returncode == 2
    said = done.stderr.partition("for the shell and for Hydra: ")[2].partition("; a list")[0]
    (word,) = shlex.split(said)
    again = cli("data", "describe", "data=beir", word)
    assert again.returncode == 0, again.stderr
    assert "documents" in again.stdout
    assert cli("run", "data=beir", f"data.path={folder}").stderr == done.stderr


def test_a_collection_without_queries_says_what_can_be_done(
    cli: Cli, tmp_path: Path, beir_folder: Path
) -> None:
    (beir_folder / "qrels" / "train.tsv").rename(beir_folder / "qrels" / "dev.tsv")
    for arguments in (["run"], ["plan"], ["data", "describe"]):
        done = cli(*arguments, "data=beir", f"data.path={beir_folder}")
        assert done.returncode == (0 if "describe" in arguments else 2)
        said = done.stdout if "describe" in arguments else done.stderr
        said = " ".join(said.split())
        assert "no query is left to train on" in said
        assert "data.train_share=0.5" in said
        assert "queries=auto or extractive, with judges that need no labels" in said
    done = cli("run", "data=beir", f"data.path={beir_folder}", "data.train_share=0.5",
               "retriever=bm25", "stages=[load,retrieve]")  # fmt: skip
    assert done.returncode == 0, done.stderr
    (beir_folder / "queries.jsonl").unlink()
    done = cli("run", "data=beir", f"data.path={beir_folder}")
    assert done.returncode == 2
    assert "queries.jsonl: not found; write what users ask" in done.stderr
    assert "data=corpus has queries written" in done.stderr


@pytest.mark.parametrize("word", ["home=~/out", "home='~/out'"])
def test_a_home_is_found_whatever_the_shell(
    cli: Cli, tmp_path: Path, beir_folder: Path, word: str
) -> None:
    """Some shells put it in place of `~` after a `=`, others leave that to the command."""
    home = tmp_path / "user"
    home.mkdir()
    beir_folder.rename(home / "mine")
    words = ["data=beir", "data.path=~/mine", "stages=[load]", word]
    done = cli("run", *words, HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert list((home / "out" / "store" / "load").glob("*/documents.parquet"))
    assert not (tmp_path / "work" / "~").exists()
    done = cli("data", "describe", "data=beir", "data.path=~/mine", HOME=str(home))
    assert done.returncode == 0, done.stderr
