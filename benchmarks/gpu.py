"""Everything that needs a GPU, in one go of less than eight minutes: one table beside the goals.

    python benchmarks/gpu.py                              `make gpu`
    python benchmarks/gpu.py --parts qwen3-4b demo        some parts, after one that had no time
    python benchmarks/gpu.py --seconds 300                where less time is left
    python benchmarks/gpu.py --cpu                        every part at toy size, to try this script

- `tests`: `pytest -m gpu`.
- `qwen3-...`: `training.decoders` of that shape, random weights and real lengths, scoring and LoRA
  training by the modules of the stages; MFU is the share of the peak, attention included.
- `minilm`: training of a cross-encoder of MiniLM's shape, `training.ours`, and by
  sentence-transformers' trainer, the better of its padded ways, and without padding where
  flash-attn is installed.
- `demo`: `zelo run experiment=quickstart trainer=gpu`, nothing stored before.

A part is a process of its own. None is started that is not expected to end in time, and one that
takes longer is ended; the table says which are left out. What a part found is in
`results/gpu_DEVICE.csv` as soon as it ends. Ends with 1 where a test or a part failed, with 2 where
there is no GPU.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from machine import RESULTS, save

ROOT = Path(__file__).parents[1]
BUDGET = 460.0  # seconds for all parts: eight minutes, less what imports and the table take
Figures = dict[str, float | None]

# Parameters without embeddings, as `zelo plan` counts operations (conf/throughput.yaml).
PARAMETERS = {"qwen3-0.6b": 0.440e9, "qwen3-1.7b": 1.409e9, "qwen3-4b": 3.633e9}


def tests(cpu: bool) -> Figures:
    """How many tests passed, failed and were skipped."""
    which = ["tests/test_seeding.py"]
    if not cpu:  # the files that have such tests: others may need packages that are not there
        files = [p for p in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in p.read_text()]
        which = ["-m", "gpu", "-n", "4", "--dist", "worksteal", *map(str, files)]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *which]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        suite = ElementTree.parse(report).getroot().find("testsuite")
    assert suite is not None
    counted = {key: int(suite.attrib[key]) for key in ("tests", "failures", "errors", "skipped")}
    failed = counted["failures"] + counted["errors"]
    if failed:
        print(done.stdout, file=sys.stderr)
    passed = counted["tests"] - failed - counted["skipped"]
    return {"passed": passed, "failed": failed, "skipped": counted["skipped"]}


def decoder(shape: str) -> Callable[[bool], Figures]:
    """Scoring and LoRA training of a shape."""

    def run(cpu: bool) -> Figures:
        import training

        if cpu:
            training.LONGEST = 320
        figures: Figures = {}
        for row in training.decoders(1 if cpu else 6, ["qwen3-toy" if cpu else shape]):
            work = row["work"]
            figures[f"{work} MFU"] = row["MFU"]
            figures[f"{work} tokens/s"] = row["tokens/s"]
            figures[f"{work} peak GiB"] = row["peak GiB"]
            if not cpu:
                each = (2 if work == "scoring" else 4) * PARAMETERS[shape]
                figures[f"{work} 10¹² operations/s"] = round(row["tokens/s"] * each / 1e12, 1)
        return figures

    return run


def minilm(cpu: bool) -> Figures:
    """Tokens per second of a training, and how many times the peer's they are."""
    import training

    found = {}
    for who in ("zelo", *training.PEERS):
        if cpu:
            training.STEP, training.MAX_TOKENS = 8, 32
            found[who] = training.one(who, "cross-encoder", "32-true", 3, "cpu")
            continue
        setting = json.dumps([who, "cross-encoder", "bf16-mixed", 30, "gpu"])
        command = [sys.executable, training.__file__, "--one", setting]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found[who] = json.loads(done.stdout.splitlines()[-1])
    rate = found["zelo"]["rate"]
    losses = [one["losses"] for one in found.values()]
    apart = max(abs(a - b) for curve in losses for a, b in zip(losses[0], curve, strict=True))
    padded = [found[who]["rate"] for who in training.PEERS if "unpadded" not in who]
    unpadded = [one["rate"] for who, one in found.items() if "unpadded" in who]
    return {
        "tokens/s": round(rate * found["zelo"]["tokens"]),
        "times padded peer": round(rate / max(padded), 2),
        "times unpadded peer": round(rate / max(unpadded), 2) if unpadded else None,
        "largest difference of losses": float(f"{apart:.1e}"),
    }


def demo(cpu: bool) -> Figures:
    """Seconds of the whole demo by its own clock, and of each stage."""
    toy = ["data.documents=200", "data.train_queries=20", "data.dev_queries=10", "depth=4",
           "data.test_queries=10", "training.max_steps=2"]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        zelo = [sys.executable, "-c", "import sys; from zelo.cli import main; sys.exit(main())"]
        command = [*zelo, "run", "experiment=quickstart", f"trainer={'cpu' if cpu else 'gpu'}",
                   f"home={folder}/home", f"hydra.run.dir={folder}/run",
                   *(toy if cpu else [])]  # fmt: skip
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        manifest = json.loads((Path(folder) / "run" / "manifest.json").read_text())
    figures: Figures = {"seconds": manifest["seconds"]}
    for stage in manifest["stages"]:
        name = f"{stage['stage']} seconds"
        figures[name] = round((figures.get(name) or 0.0) + stage["seconds"], 2)
    return figures


# What each part does, and the seconds that it is expected to take.
PARTS: dict[str, tuple[Callable[[bool], Figures], float]] = {
    "tests": (tests, 100.0),
    "qwen3-0.6b": (decoder("qwen3-0.6b"), 50.0),
    "minilm": (minilm, 80.0),
    "demo": (demo, 60.0),
    "qwen3-1.7b": (decoder("qwen3-1.7b"), 60.0),
    "qwen3-4b": (decoder("qwen3-4b"), 100.0),
}
GOALS: dict[tuple[str, str], tuple[str, float]] = {  # at least, or at most, so much
    ("tests", "failed"): ("≤", 0),
    ("qwen3-0.6b", "scoring MFU"): ("≥", 0.48),
    ("qwen3-1.7b", "scoring MFU"): ("≥", 0.56),
    ("qwen3-4b", "scoring MFU"): ("≥", 0.58),
    ("qwen3-0.6b", "training MFU"): ("≥", 0.30),
    ("qwen3-1.7b", "training MFU"): ("≥", 0.42),
    ("qwen3-4b", "training MFU"): ("≥", 0.46),
    ("qwen3-4b", "training peak GiB"): ("≤", 74.5),  # 80 GB
    ("minilm", "tokens/s"): ("≥", 1.8e6),
    ("minilm", "times padded peer"): ("≥", 2.0),
    ("minilm", "times unpadded peer"): ("≥", 1.2),
    ("demo", "seconds"): ("≤", 30.0),
    ("demo", "train seconds"): ("≤", 6.0),
}


def run_part(name: str, cpu: bool, limit: float) -> tuple[Figures | None, str]:
    """A part's figures, and what came of it in words.

    It is a process, which is ended after `limit` seconds with all that it started.
    """
    command = [sys.executable, __file__, "--one", name, *(["--cpu"] if cpu else [])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    start = time.monotonic()
    try:
        output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        return None, f"left out: ended after {limit:.0f} s"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode:
        return None, "failed: see above"
    return json.loads(output.splitlines()[-1]), f"{time.monotonic() - start:.0f} s"


def rows_of(device: str, part: str, figures: Figures, toy: bool) -> list[dict[str, Any]]:
    """A row for each figure, beside its goal where it has one; toy sizes meet none."""
    rows = []
    for what, reached in figures.items():
        sign, asked = GOALS.get((part, what), ("", None))
        met = ""
        if asked is not None and not toy:
            met = "not measured"
            if reached is not None:
                met = "yes" if (reached >= asked if sign == "≥" else reached <= asked) else "no"
        row = {"device": device, "part": part, "what": what, "met": met}
        row |= {"asked": "" if asked is None else f"{sign} {asked:,.10g}", "reached": reached}
        rows.append(row)
    return rows


def other_parts(path: Path, done: set[str]) -> list[dict[str, Any]]:
    """Rows of an earlier run of parts that were not done now."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["part"] not in done]
    return [{key: row[key] for key in row if key != "machine"} for row in rows]  # `save` adds it


def keep(device: str, rows: list[dict[str, Any]], tried: set[str]) -> None:
    """Write what is known of a device: of parts that were not tried, what an earlier run found."""
    name = f"gpu_{re.sub(r'[^a-z0-9]+', '_', device.lower()).strip('_')}.csv"
    if known := [*other_parts(RESULTS / name, tried), *rows]:
        save(name, known)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cpu", action="store_true", help="every part at toy size, on the CPU")
    parser.add_argument("--seconds", type=float, default=BUDGET, help="for all parts")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--one", choices=PARTS, help="a part in this process, as JSON")
    args = parser.parse_args()
    import torch

    if not (args.cpu or torch.cuda.is_available()):
        print("benchmarks/gpu.py: no GPU is available; --cpu tries its parts at toy size",
              file=sys.stderr)  # fmt: skip
        return 2
    if args.one:
        print(json.dumps(PARTS[args.one][0](args.cpu)))
        return 0
    device = "CPU, toy sizes" if args.cpu else torch.cuda.get_device_name()
    begun = time.monotonic()
    rows: list[dict[str, Any]] = []
    ended: dict[str, str] = {}
    tried: set[str] = set()
    for name in args.parts:
        left = args.seconds - (time.monotonic() - begun)
        expected = 1.0 if args.cpu else PARTS[name][1]
        if left < expected:
            ended[name] = f"left out: {expected:.0f} s are expected, {left:.0f} s were left"
        else:
            print(f"{name} ...", file=sys.stderr)
            tried.add(name)
            figures, ended[name] = run_part(name, args.cpu, left)
            rows += rows_of(device, name, figures or {}, args.cpu)
            if not args.cpu:
                keep(device, rows, tried)
    print(f"\n{device}")
    print(f"{'part':<12}{'what':<32}{'asked':>12}{'reached':>14}  met")
    for row in rows:
        reached = "-" if row["reached"] is None else f"{row['reached']:,.10g}"
        print(f"{row['part']:<12}{row['what']:<32}{row['asked']:>12}{reached:>14}  {row['met']}")
    for name, what in ended.items():
        print(f"{name}: {what}")
    print(f"all: {time.monotonic() - begun:.0f} s")
    failed = any(row["what"] == "failed" and row["reached"] for row in rows)
    return int(failed or any(what.startswith("failed") for what in ended.values()))


if __name__ == "__main__":
    sys.exit(main())
