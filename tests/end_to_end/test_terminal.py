"""What is printed reads well in a terminal of 80 columns and in a log file."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from pathlib import Path

import pytest
from tests.conftest import Cli

from zelo.artifacts import read_table

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b\][^\x07]*\x07")


def in_a_terminal(zelo: str, words: list[str], folder: Path, columns: int = 80) -> str:
    """What a command writes to a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [zelo, *words],
        cwd=folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment, "TERM": "xterm-256color"},
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            part = os.read(ours, 65_536)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        written += part
    os.close(ours)
    assert process.wait() == 0, written.decode()
    return written.decode()


def lines(written: str) -> list[str]:
    return [ESCAPES.sub("", line) for line in re.split(r"[\r\n]+", written)]


def test_a_run_fits_into_eighty_columns(zelo_command: str, tmp_path: Path, toy: list[str]) -> None:
    words = ["run", "experiment=quickstart", *toy, "hydra.run.dir=run"]
    written = in_a_terminal(zelo_command, words, tmp_path)
    too_long = [line for line in lines(written) if len(line) > 80 and "/" not in line]
    assert not too_long
    text = "\n".join(lines(written))
    assert re.search(r"zELO-trained +\d\.\d{3} \[", text)
    assert re.search(r"judge +\d+\.\d", text)
    (queries,) = tmp_path.glob("outputs/store/load/*/queries.parquet")
    query_id = read_table(queries.parent, "queries")["query_id"][0].as_py()
    shown = in_a_terminal(zelo_command, ["inspect", "run", "--query", query_id], tmp_path)
    assert not [line for line in lines(shown) if len(line) > 80]


@pytest.mark.parametrize(
    "words",
    [
        ["plan", "data=planned", "judge=paper", "distil=on"],
        ["plan", "data=planned", "judge=openai", "refine=on", "distil=on"],
    ],
)
def test_a_plan_too(zelo_command: str, tmp_path: Path, words: list[str]) -> None:
    assert not [
        line for line in lines(in_a_terminal(zelo_command, words, tmp_path)) if len(line) > 80
    ]


def test_a_log_file_holds_lines_and_nothing_else(cli: Cli, toy: list[str]) -> None:
    done = cli("run", "experiment=quickstart", *toy)
    assert done.returncode == 0
    for written in (done.stdout, done.stderr):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", written)
    assert max(map(len, done.stdout.splitlines())) <= 110
