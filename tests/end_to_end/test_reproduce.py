"""`zelo reproduce`: a manifest is enough to make a run again, bit for bit."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from tests.conftest import Cli
from tests.end_to_end.test_run import STAGES, run_folder


def test_a_run_is_made_again_from_its_manifest_alone(
    cli: Cli, tmp_path: Path, toy: list[str]
) -> None:
    folder, _ = run_folder(cli, tmp_path, "experiment=quickstart", *toy)
    work = tmp_path / "work"
    manifest = json.loads((folder / "manifest.json").read_text())
    kept = work / "kept.json"
    shutil.copy(folder / "manifest.json", kept)
    shutil.rmtree(work / "outputs")  # nothing else is left of it
    done = cli("reproduce", "kept.json", "home=again")
    assert done.returncode == 0, done.stdout + done.stderr
    same = re.findall(r"^  (\w+): the same, (\d+) files", done.stdout, re.MULTILINE)
    assert [stage for stage, _ in same] == [stage for stage in STAGES if stage != "report"]
    assert "report: made again, not compared" in done.stdout
    assert "the same, bit for bit" in done.stdout
    now = json.loads((work / "again" / "run" / "manifest.json").read_text())
    assert now["results"] == manifest["results"]

    # What differs is said: another artefact, another result, other packages.
    stages = {stage["stage"]: stage for stage in manifest["stages"]}
    stages["rate"]["files"]["ratings.parquet"] = "0" * 64
    manifest["results"]["zelo/NDCG@10"] = 0.123456
    manifest["packages"]["numpy"] = "0.1"
    kept.write_text(json.dumps(manifest))
    done = cli("reproduce", "kept.json", "home=third")
    assert done.returncode == 1
    assert "rate: differs in ratings.parquet" in done.stdout
    assert "zelo/NDCG@10: 0.123456 then" in done.stdout
    assert "! numpy: 0.1 then" in done.stdout
    assert "not the same" in done.stdout

    for words, said in (
        (["kept.json", "home=third"], "not empty"),
        (["nowhere"], "no run lies there"),
        (["third/run/metrics.json"], "not the manifest of a run"),
    ):
        refused = cli("reproduce", *words)
        assert refused.returncode == 2
        assert said in refused.stderr
