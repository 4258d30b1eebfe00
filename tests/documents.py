"""Runs what a page of the documentation tells its reader to run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from tests.conftest import INSTALLED

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A block of code: `sh` and `python` are run, `python` with a title is a file."""

    language: str
    title: str
    code: str
    line: int


def blocks(page: str) -> list[Block]:
    """All blocks of code of a page, in their order."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return [
        Block(found[1], found[2] or "", found[3], text.count("\n", 0, found.start()) + 1)
        for found in BLOCK.finditer(text)
    ]


def joined(found: list[Block]) -> list[Block]:
    """Blocks, those of Python that follow one another put together."""
    cells: list[Block] = []
    for block in found:
        last = cells[-1] if cells else None
        if last and not (last.title or block.title) and last.language == block.language == "python":
            cells[-1] = replace(last, code=f"{last.code}\n{block.code}")
        else:
            cells.append(block)
    return cells


def follow(page: str, folder: Path, zelo: str = INSTALLED, **environment: str) -> list[str]:
    """Do in `folder` what a page says, with the command `zelo`; what each block printed.

    Blocks of Python that follow one another are one program, like the cells of a notebook.
    """
    said = []
    found_in = [str(Path(program).parent) for program in (zelo, sys.executable)]
    for block in joined(blocks(page)):
        if block.title:
            (folder / block.title).write_text(block.code, encoding="utf-8")
            continue
        if block.language not in ("sh", "python"):
            continue
        command = {"sh": ["bash", "-euo", "pipefail"], "python": [sys.executable]}[block.language]
        done = subprocess.run(
            command,
            input=block.code,
            cwd=folder,
            env={
                **os.environ,
                "PATH": os.pathsep.join([*found_in, os.environ["PATH"]]),
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, f"docs/{page}:{block.line}\n{done.stdout}\n{done.stderr}"
        said.append(done.stdout)
    return said
