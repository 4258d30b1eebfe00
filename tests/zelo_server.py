"""A command of `zelo` that serves, in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess


class ZeloServer:
    """The process, and the address that it says."""

    def __init__(self, zelo: str, *words: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [zelo, *words],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
        )  # fmt: skip
        assert self.process.stdout is not None
        said = ""
        while not (found := re.search(r"http://\S+", said)):
            line = self.process.stdout.readline()
            assert line, said
            said += line
        self.address = found[0]
