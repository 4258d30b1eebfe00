"""What is kept of compiled functions is made anew where a file beside theirs has changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

INNER = """
from zelo.rating.kernels.compiling import ELEMENTWISE, compiled

@compiled(**ELEMENTWISE)
def inner(x):
    return x + {added}
"""
OUTER = """
from pair.inner import inner
from zelo.rating.kernels.compiling import ELEMENTWISE, compiled

@compiled(**ELEMENTWISE)
def outer(x):
    return inner(x)
"""


def test_a_change_in_another_file_of_the_folder_is_seen(tmp_path: Path) -> None:
    folder = tmp_path / "pair"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "outer.py").write_text(OUTER)
    program = (
        "from pair.outer import outer; print(outer(1.0), sum(outer.stats.cache_hits.values()))"
    )
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths, "NUMBA_CACHE_DIR": str(tmp_path / "kept")}

    def said() -> str:
        command = [sys.executable, "-c", program]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        ).stdout.strip()

    (folder / "inner.py").write_text(INNER.format(added="1.0"))
    assert said() == "2.0 0"
    assert said() == "2.0 1"
    (folder / "inner.py").write_text(INNER.format(added="10.0"))
    assert said() == "11.0 0"
