"""`debug=...`: each file is run as it is, on a few documents."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.conftest import Cli

from zelo.artifacts import read_table
from zelo.config import conf_folder

NAMES = sorted(path.stem for path in (conf_folder() / "debug").glob("*.yaml"))
TRAINED = {  # queries and steps
    "default": (8, 3),
    "limit": (5, 20),
    "one_query": (1, 3),
    "overfit": (4, 100),
    "profiler": (8, 3),
}


@pytest.mark.parametrize("name", NAMES)
def test_each_runs(
    cli: Cli, tmp_path: Path, beir_folder: Path, tiny_model: Path, name: str
) -> None:
    model = f"pretrained.path={tiny_model}"
    more = ["training.validation_fraction=0.5"] if name == "limit" else []  # of eight queries
    done = cli("run", f"debug={name}", "data=beir", f"data.path={beir_folder}", model, *more)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "work" / "outputs" / "debug").iterdir()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "done"
    (trained,) = [stage for stage in manifest["stages"] if stage["stage"] == "train"]
    counts = trained["counts"]
    assert (counts["queries"], counts["steps"]) == TRAINED[name]
    assert ("Profiler Report" in done.stderr) == (name == "profiler")
    if name == "overfit":
        losses = read_table(tmp_path / "work" / trained["path"], "losses")["loss"].to_pylist()
        assert losses[-1] < 0.1 * losses[0]
