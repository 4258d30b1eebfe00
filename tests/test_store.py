from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from zelo.errors import UserError
from zelo.store import Stage, Store, digest_files, stage

ALL = frozenset({"one", "two", "slow"})


@stage(version=1)
def one(*, out: Path, value: int) -> Mapping[str, Any]:
    with (out / "calls").open("a") as file:
        file.write("x")
    (out / "value").write_text(str(value))
    return {"values": 1}


@stage(version=1)
def two(*, out: Path, first: Path, factor: int) -> Mapping[str, Any]:
    (out / "value").write_text(str(factor * int((first / "value").read_text())))
    return {}


def test_a_stage_runs_once_for_one_fingerprint(tmp_path: Path) -> None:
    said: list[str] = []
    store = Store(tmp_path, ALL, said.append)
    made = [store.run(one, {}, {"value": 3}) for _ in range(2)]
    assert made[0] == made[1]
    assert (made[0].path / "calls").read_text() == "x"
    assert said[-1] == "one: already done"
    assert [entry.made for entry in store.used] == [True, False]
    assert made[0].record["counts"] == {"values": 1}


def test_a_stage_runs_within_what_is_around_it(tmp_path: Path) -> None:
    told: list[Mapping[str, Any]] = []

    @contextmanager
    def around(arguments: Mapping[str, Any]) -> Iterator[None]:
        told.append(arguments)
        time.sleep(0.2)  # it may wait for a GPU, which is no work of the stage
        yield

    store = Store(tmp_path, ALL, around=around)
    made = [store.run(one, {}, {"value": 3}) for _ in range(2)]
    assert told == [{"value": 3}]
    assert made[0].record["seconds"] < 0.2


def test_options_inputs_and_version_make_the_fingerprint(tmp_path: Path) -> None:
    store = Store(tmp_path, ALL)
    a, b = store.run(one, {}, {"value": 3}), store.run(one, {}, {"value": 4})
    twice_a = store.run(two, {"first": a}, {"factor": 2})
    twice_b = store.run(two, {"first": b}, {"factor": 2})
    newer = store.run(Stage(one.make, version=2), {}, {"value": 3})
    assert len({x.fingerprint for x in (a, b, newer)}) == 3
    assert twice_a.fingerprint != twice_b.fingerprint
    assert (twice_b.path / "value").read_text() == "8"


def test_a_failure_leaves_nothing_that_looks_complete_and_work_is_found_again(
    tmp_path: Path,
) -> None:
    @stage(version=1)
    def flaky(*, out: Path) -> Mapping[str, Any]:
        if not (out / "half").exists():
            (out / "half").write_text("done before")
            raise UserError("no")
        return {}

    store = Store(tmp_path, frozenset({"flaky"}))
    with pytest.raises(UserError):
        store.run(flaky, {}, {})
    assert [p.name[0] for p in (tmp_path / "flaky").iterdir()] == [".", "."]
    made = store.run(flaky, {}, {})
    assert made.record["resumed"]
    assert (made.path / "half").read_text() == "done before"


def test_an_input_that_may_not_run_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path, frozenset({"two"}))
    first = store.run(one, {}, {"value": 3})
    with pytest.raises(UserError, match="stage two needs one"):
        store.run(two, {"first": first}, {"factor": 2})


@stage(version=1)
def slow(*, out: Path, log: Path) -> Mapping[str, Any]:
    with log.open("a") as file:
        file.write("made\n")
    time.sleep(1)
    return {}


def run_slow(root: Path) -> None:
    Store(root, ALL).run(slow, {}, {}, {"log": root / "log"})


def test_of_two_processes_one_makes_it_and_one_waits(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=run_slow, args=(tmp_path,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "made\n"


def test_the_digest_of_files_follows_their_content(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("1")
    before = digest_files([path])
    path.write_text("22")
    assert digest_files([path]) != before
    (tmp_path / "b").write_text("22")
    assert digest_files([tmp_path / "b"]) == digest_files([path])


def test_what_misses_something_is_made_again_and_what_came_of_it_too(tmp_path: Path) -> None:
    down = {"gone": True}

    @stage(version=1)
    def asks(*, out: Path) -> Mapping[str, Any]:
        (out / "answers.parquet").write_text("half" if down["gone"] else "all")
        return {"missing": 3 if down["gone"] else 0}

    @stage(version=1)
    def reads(*, out: Path, asked: Path) -> Mapping[str, Any]:
        (out / "read").write_text((asked / "answers.parquet").read_text())
        return {}

    def run(*selected: str) -> str:
        store = Store(tmp_path, frozenset(selected or ("asks", "reads")))
        read = store.run(reads, {"asked": store.run(asks, {}, {})}, {})
        return (read.path / "read").read_text()

    assert run() == "half"
    assert run("reads") == "half"  # what there is of it can be read
    down["gone"] = False
    assert run() == "all"
    down["gone"] = True
    assert run() == "all"  # complete: not made again
    assert run("reads") == "all"
