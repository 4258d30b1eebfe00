"""The command, quick and from an installed wheel."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path

from tests.conftest import INSTALLED, Cli

ROOT = Path(__file__).parents[2]


def test_help_and_version_are_quick(cli: Cli) -> None:
    seconds = []
    for _ in range(5):
        start = time.monotonic()
        done = subprocess.run([INSTALLED, "--help"], capture_output=True, text=True, check=True)
        seconds.append(time.monotonic() - start)
        assert "zelo run experiment=quickstart" in done.stdout
    assert statistics.median(seconds) < 0.5
    assert cli("--version").stdout.startswith("zelo 0.")


def test_the_command_works_from_a_wheel_outside_the_checkout(
    tmp_path: Path, tiny_model: Path, toy: list[str]
) -> None:
    subprocess.run(
        [
            sys.executable,
            "-m",
            "build",
            "--wheel",
            "--no-isolation",
            "--outdir",
            str(tmp_path),
            str(ROOT),
        ],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("zelo-*.whl")
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", str(wheel)], check=True
    )
    # The dependencies are those of this environment; its own zelo stands behind the wheel's.
    site = Path(sysconfig.get_paths(vars={"base": str(tmp_path / "env")})["purelib"])
    (site / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    where = subprocess.run(
        [python, "-c", "import zelo.config; print(zelo.config.conf_folder())"],
        cwd=tmp_path, check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    assert Path(where) == site / "zelo" / "conf"
    done = subprocess.run(
        [tmp_path / "env" / "bin" / "zelo", "run", "experiment=quickstart", *toy],
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "outputs" / "runs").is_dir()
    assert "zELO-trained" in done.stdout
