"""The words of the command: what is passed on, what is read here, and how soon help is there."""

from __future__ import annotations

import subprocess
import sys

import pytest

from zelo.cli import parsed
from zelo.errors import UserError

COMMANDS = (
    "plan", "evaluate", "compare", "table", "rerank", "audit", "data", "data describe", "rate",
    "inspect", "reproduce", "clean", "publish", "import", "export",
)  # fmt: skip
FOR_HYDRA = [
    "-m",
    "a=b",
    "+a=b",
    "++a.b=1",
    "~a",
    "~a=b",
    "--cfg",
    "job",
    "a=[x,y]",
    "a='-h'",
    "--",
]

OWN_WORK = """
import sys, time
start = time.process_time()
from zelo.cli import main
try:
    main(["--help"])
except SystemExit:
    print(time.process_time() - start, *sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed([*command.split(), "--help"])
    assert not ended.value.code
    assert capsys.readouterr().out.startswith(f"usage: zelo {command} ")


@pytest.mark.parametrize(
    "command", ["run", "plan", "evaluate", "data describe", "rate f", "audit f"]
)
def test_words_for_hydra_are_passed_on_as_they_are(command: str) -> None:
    given = parsed([*command.split(), *FOR_HYDRA])
    assert given.overrides == FOR_HYDRA
    assert command.partition(" ")[2] in ("describe", getattr(given, "file", ""))


def test_help_of_a_run_is_hydras() -> None:
    assert parsed(["run", "--help"]).overrides == ["--help"]


def test_an_option_may_be_written_as_hydras_are() -> None:
    for words in (["qrels=f", "a", "b"], ["a", "b", "--qrels", "f"], ["a", "qrels=f", "b"]):
        given = parsed(["compare", *words])
        assert (given.qrels, given.paths) == ("f", ["a", "b"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("walk", "walk: no such command; see zelo --help"),
        ("compare a colour=red", "colour: no such option; there are qrels, order"),
        ("publish a repo=b/c private=perhaps", "invalid choice: 'perhaps'"),
        ("publish a", "the following arguments are required: --repo; usage: zelo publish"),
        ("rate", "FILE is missing; usage: zelo rate"),
        ("audit judge=openai", "LOG.jsonl is missing"),
        ("reproduce", "the following arguments are required: RUN|MANIFEST"),
        ("inspect a --top 3", "the following arguments are required: --query"),
    ],
)
def test_a_mistake_is_one_line(words: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        parsed(words.split())
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_help_takes_a_tenth_of_a_second_and_imports_nothing_heavy() -> None:
    seconds = []
    for _ in range(3):
        command = [sys.executable, "-c", OWN_WORK]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        taken, *modules = done.stderr.split()
        seconds.append(float(taken))
        rooms = {name.partition(".")[0] for name in modules}
        assert not rooms & {"torch", "numpy", "hydra", "omegaconf", "pydantic", "pyarrow", "scipy"}
    assert min(seconds) < 0.1
