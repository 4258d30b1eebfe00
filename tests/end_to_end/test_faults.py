"""Faults of the machine: one clear line each, and nothing lost that had been kept."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.conftest import INSTALLED, Cli
from tests.end_to_end.test_run import LONG, begin, run_folder
from tests.judging.endpoint import running
from tests.judging.storm import DEGREE, collection, command, rows

from zelo.artifacts import read_table


def one_line(done: subprocess.CompletedProcess[str], *said: str) -> None:
    """The command ended with one line that says so."""
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    for part in said:
        assert part in errors[0]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a cut Parquet file": ("judge/*/judgments.parquet", cut),
    "a flipped bit in it": ("judge/*/judgments.parquet", flip),
    "documents that are gone": ("load/*/documents.parquet", Path.unlink),
    "a flipped bit in the trained model": ("train/*/model/model.safetensors", flip),
    "a record of another shape": ("rate/*/stage.json", lambda path: path.write_text("[1]")),
    "a test that says nothing": ("evaluate/*/significance.json", lambda p: p.write_text("{}")),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, zelo_command: str) -> Path:
    """A working folder with a run in it that is done."""
    from tests.conftest import small

    work = tmp_path_factory.mktemp("finished")
    words = [zelo_command, "run", "experiment=quickstart", *small(tiny_model), "hydra.run.dir=run"]
    subprocess.run(words, cwd=work, check=True, capture_output=True)
    return work


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_store_is_noticed(
    cli: Cli, tmp_path: Path, toy: list[str], finished: Path, damage: str
) -> None:
    work = tmp_path / "work"
    shutil.copytree(finished, work, dirs_exist_ok=True)
    pattern, spoil = DAMAGE[damage]
    (path,) = (work / "outputs/store").glob(pattern)
    spoil(path)
    words = ["experiment=quickstart", *toy, "hydra.run.dir=again"]
    one_line(cli("run", *words), path.name, "delete")
    assert json.loads((work / "again/manifest.json").read_text())["status"] == "failed"
    store = work / "outputs/store"
    shutil.rmtree(store / path.relative_to(store).parts[0] / path.relative_to(store).parts[1])
    assert cli("run", *words).returncode == 0
    kept = (finished / "run/metrics.json").read_text()
    assert (work / "again/metrics.json").read_text() == kept


def test_a_run_of_other_options_does_not_pass_for_the_one_before(
    cli: Cli, tmp_path: Path, toy: list[str], finished: Path
) -> None:
    work = tmp_path / "work"
    shutil.copytree(finished, work, dirs_exist_ok=True)
    words = ["experiment=quickstart", *toy, "hydra.run.dir=run", "stages=[load,retrieve]"]
    done = cli("run", *words, "seed=7")
    assert done.returncode == 0
    assert "what a run of another configuration left there is replaced" in done.stderr
    assert {path.name for path in (work / "run").iterdir()} == {"manifest.json", "logs"}


def test_two_runs_in_one_folder(
    cli: Cli, zelo_command: str, tmp_path: Path, toy: list[str]
) -> None:
    process = begin(zelo_command, tmp_path, *toy, *LONG, "hydra.run.dir=run")
    try:
        until(lambda: (tmp_path / "work/run/manifest.json").is_file(), process)
        one_line(cli("run", *toy, *LONG, "hydra.run.dir=run"), "run: another run is writing")
    finally:
        process.kill()
        process.communicate()


def until(reached: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Wait for something that a process does."""
    end = time.monotonic() + 240
    while not reached():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(
    "spoil",
    [cut, pytest.param(lambda path: path.write_bytes(b""), marks=pytest.mark.slow)],
)
def test_a_checkpoint_that_cannot_be_read(
    cli: Cli,
    zelo_command: str,
    tmp_path: Path,
    toy: list[str],
    spoil: Callable[[Path], object],
) -> None:
    work = tmp_path / "work"
    process = begin(zelo_command, tmp_path, *toy, *LONG)
    until(lambda: list(work.glob("outputs/store/train/.*.partial/checkpoints/last.ckpt")), process)
    process.kill()
    process.communicate()
    (partial,) = work.glob("outputs/store/train/.*.partial")
    spoil(partial / "checkpoints/last.ckpt")
    (partial / ".left.ckpt.123.tmp").write_text("x")
    _, done = run_folder(cli, tmp_path, *toy, *LONG)
    assert "the training begins anew, a checkpoint cannot be read" in done.stderr
    assert not list(work.rglob("*.tmp"))


def test_a_batch_queue_ends_a_training_on_two_processes(
    zelo_command: str, tmp_path: Path, toy: list[str]
) -> None:
    words = [*toy, *LONG, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2",
             "trainer.precision=32-true"]  # fmt: skip
    work = tmp_path / "work"
    work.mkdir()
    process = begin(zelo_command, tmp_path, *words)
    until(lambda: list(work.glob("outputs/store/train/.*.partial/checkpoints/last.ckpt")), process)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert "interrupted; the same command goes on where it stopped" in stderr
    assert "Traceback" not in stderr
    (manifest,) = work.glob("outputs/runs/*/manifest.json")
    assert json.loads(manifest.read_text())["status"] == "interrupted"


@pytest.fixture
def bought(zelo_command: str, tmp_path: Path) -> Iterator[tuple[list[str], Path]]:
    """A command whose judge costs money, run to its end, and its ledger."""
    data, home = collection(tmp_path / "data", 4, 12), tmp_path / "home"
    with running() as server:
        words = command(zelo_command, data, home, server)
        subprocess.run(words, check=True, capture_output=True)
        yield words, home / "ledger.sqlite"


def test_a_ledger_with_a_bad_page(bought: tuple[list[str], Path]) -> None:
    words, ledger = bought
    whole = ledger.read_bytes()
    noise = random.Random(0)
    for page in range(1, len(whole) // 4096):
        spoilt = bytearray(whole)
        spoilt[4096 * page : 4096 * (page + 1)] = noise.randbytes(4096)
        ledger.write_bytes(spoilt)
        shutil.rmtree(ledger.parent / "store/judge")
        done = subprocess.run(words, capture_output=True, text=True)
        one_line(done, "the ledger is damaged", ".recover")
        break
    ledger.write_bytes(whole)
    assert subprocess.run(words, capture_output=True).returncode == 0


@pytest.mark.parametrize(
    "sent",
    [
        signal.SIGTERM,
        signal.SIGINT,
        pytest.param(signal.SIGUSR1, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
    ],
)
def test_what_ends_a_job_loses_no_answer(
    zelo_command: str, tmp_path: Path, sent: signal.Signals
) -> None:
    data, home = collection(tmp_path / "data", 10, 12), tmp_path / "home"
    with running(latency=0.2) as server:
        words = [
            *command(zelo_command, data, home, server),
            "judge.judges.vllm.provider.in_flight=16",
        ]
        process = subprocess.Popen(words, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        until(lambda: rows(home / "ledger.sqlite") > 20, process)
        process.send_signal(sent)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 130, stderr
        assert "interrupted; the same command goes on where it stopped" in stderr
        (manifest,) = home.glob("runs/*/manifest.json")
        assert json.loads(manifest.read_text())["status"] == "interrupted"
        assert subprocess.run(words, capture_output=True).returncode == 0
        counts = server.counts()
    # 40 of them in both orders, to notice judges that guess
    assert len(counts["answered"]) == 10 * 12 * DEGREE // 2 + 40
    assert set(counts["answered"].values()) == {1}  # nothing was bought twice


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of sixteen megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    made = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(made, capture_output=True).returncode != 0:
        pytest.skip("needs to mount a file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_no_answer_is_bought_that_may_not_fit_on_the_disk(
    zelo_command: str, tmp_path: Path, small_disk: Path
) -> None:
    data = collection(tmp_path / "data", 4, 12)
    free = shutil.disk_usage(small_disk).free
    (small_disk / "filler").write_bytes(bytes(free - 3 * 2**20))
    with running() as server:
        words = command(zelo_command, data, small_disk / "home", server)
        done = subprocess.run(words, capture_output=True, text=True)
        one_line(done, "KiB are left on its disk", "make room")
        assert server.counts()["requests"] == 0


@pytest.mark.parametrize(  # KiB
    "room",
    [
        8,
        pytest.param(200, marks=pytest.mark.slow),
        4500,
        pytest.param(7000, marks=pytest.mark.slow),
    ],
)
def test_a_full_disk(cli: Cli, tmp_path: Path, toy: list[str], small_disk: Path, room: int) -> None:
    filler = small_disk / "filler"
    free = shutil.disk_usage(small_disk).free // 1024
    filler.write_bytes(bytes(1024 * (free - room)))
    words = ["experiment=quickstart", *toy, f"home={small_disk / 'home'}"]
    done = cli("run", *words)
    one_line(done, str(small_disk), "run the same command again")
    assert "cannot be written" in done.stderr or "left on its disk" in done.stderr
    assert not list(small_disk.rglob("*.tmp"))
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=90m", str(small_disk)], check=True)
    assert cli("run", *words).returncode == 0


def test_a_read_only_folder(cli: Cli, tmp_path: Path, toy: list[str], small_disk: Path) -> None:
    readonly = ["mount", "-o", "remount,ro", str(small_disk)]
    subprocess.run(readonly, check=True, capture_output=True)
    one_line(cli("run", "experiment=quickstart", *toy, f"home={small_disk}"), "ead-only")
    (tmp_path / "work/c.jsonl").write_text('{"query_id":"q","doc_a":"a","doc_b":"b","p":1}\n')
    one_line(cli("rate", "c.jsonl", f"out={small_disk}/ratings"), "ead-only")


def test_an_installation_that_cannot_be_written(cli: Cli, tmp_path: Path, small_disk: Path) -> None:
    """Nor the home folder: what numba compiles is kept nowhere, and the ratings are the same."""
    root = Path(__file__).parents[2]
    for part in ("src", "conf"):
        shutil.copytree(
            root / part, small_disk / part, ignore=shutil.ignore_patterns("__pycache__")
        )
    readonly = ["mount", "-o", "remount,ro", str(small_disk)]
    subprocess.run(readonly, check=True, capture_output=True)
    rows = [("a", "b", 0.9), ("b", "c", 0.7), ("a", "c", 0.8)]
    lines = [json.dumps({"query_id": "q", "doc_a": a, "doc_b": b, "p": p}) for a, b, p in rows]
    (tmp_path / "c.jsonl").write_text("\n".join(lines))
    unset = ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")
    there = {name: value for name, value in os.environ.items() if name not in unset}
    there |= {"HOME": str(small_disk), "PYTHONPATH": str(small_disk / "src")}
    words = [INSTALLED, "rate", "c.jsonl", "out=there"]
    done = subprocess.run(words, cwd=tmp_path, env=there, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("NUMBA_CACHE_DIR=FOLDER names one") == 1
    done = cli("rate", str(tmp_path / "c.jsonl"), f"out={tmp_path}/here")
    assert "NUMBA_CACHE_DIR" not in done.stderr
    ratings = [read_table(tmp_path / out, "ratings") for out in ("there", "here")]
    assert ratings[0].equals(ratings[1])
    assert ratings[0]["doc_id"].to_pylist() == ["a", "b", "c"]


def test_a_model_that_is_not_whole(cli: Cli, tmp_path: Path, tiny_model: Path) -> None:
    work = tmp_path / "work"
    (work / "docs.txt").write_text("rivers\napples\n")
    for spoil in ("tokenizer.json", "model.safetensors", "modules.json", "config.json"):
        model = work / spoil / "model"
        shutil.copytree(tiny_model, model)
        cut(model / spoil) if spoil != "tokenizer.json" else (model / spoil).unlink()
        one_line(cli("rerank", "--model", str(model), "--query", "rivers", "docs.txt"), str(model))


def test_who_reads_the_output_may_stop_reading(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "docs.txt").write_text("".join(f"line {n}\n" for n in range(2000)))
    rerank = f"{INSTALLED} rerank --model {tiny_model} --query x docs.txt"
    for reader in (f"{rerank} | head -1", f"{INSTALLED} --help | true", f"{rerank} > /dev/full"):
        done = subprocess.run(
            ["bash", "-c", reader], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert "Exception ignored" not in done.stderr


def test_a_terminal_that_knows_ascii_alone(cli: Cli, finished: Path) -> None:
    done = subprocess.run(
        [INSTALLED, "plan", "data=planned", "judge=openai"],
        cwd=finished,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
