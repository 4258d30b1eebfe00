"""A sweep that was stopped goes on in its folder, by the same command: its runs keep their names,
and what they log goes on in the same place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from zelo.artifacts import read_json, write_json

COMMAND = "command.json"  # words of the sweep, whether it can go on, and whether all of it is done
MULTIRUN = {"-m", "--multirun"}
SEARCH = "hydra/sweeper=search"
_held: list[FileLock] = []  # of the sweep that this process runs


def folder_to_go_on_in(words: Sequence[str]) -> Path | None:
    """Folder of the latest sweep by the same words that did not come to its end, and that nobody is
    running; None where there is none, and of a search that would draw other trials."""
    if not MULTIRUN & {*words} or any(word.startswith("hydra.sweep.dir=") for word in words):
        return None
    home = next((word[5:] for word in reversed(words) if word.startswith("home=")), "outputs")
    for path in sorted(Path(home.strip("'\"")).glob(f"sweeps/*/{COMMAND}"), reverse=True):
        about = read_json(path)
        if about["words"] != list(words):
            continue
        if about["done"] or about.get("draws") == "anew":
            return None
        if about.get("draws") == "by results" and any_failed(path.parent):
            return None  # if that run succeeds now, others are drawn after it
        lock = FileLock(path.with_name(".lock"))
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return None
        lock.release()
        return path.parent.absolute()
    return None


def any_failed(folder: Path) -> bool:
    """Whether a run of a sweep failed."""
    return any(read_json(path)["status"] == "failed" for path in folder.glob("*/manifest.json"))


def seeded(words: Sequence[str]) -> list[str]:
    """What a search is told beside its words so that the same command draws the same trials: a seed
    of its sampler, but where it has one, where another sampler is chosen, and where a storage keeps
    the study, to which each search adds other trials."""
    told = ("hydra.sweeper.storage", "hydra.sweeper.sampler.seed", "hydra/sweeper/sampler")
    if SEARCH not in words or any(word.lstrip("+").startswith(told) for word in words):
        return []
    return ["hydra.sweeper.sampler.seed=0"]


def how_it_draws(sweeper: Mapping[str, Any]) -> str:
    """Whether a composed sweeper's runs are given beforehand, drawn by the results so far in a way
    that repeats, or drawn anew each time."""
    if "basic_sweeper" in sweeper["_target_"]:
        return "beforehand"
    repeats = (sweeper.get("sampler") or {}).get("seed") is not None
    return "by results" if repeats and sweeper.get("storage") is None else "anew"


def begin_sweep(folder: Path, words: Sequence[str], draws: str = "beforehand") -> None:
    """Note what a sweep was told and how it draws its runs, and that this process runs it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    lock.acquire()
    _held.append(lock)
    about = {"words": list(words), "draws": draws, "done": False}
    write_json(folder / COMMAND, about)


def end_sweep(folder: Path, done: bool) -> None:
    """Note whether all of its runs are done."""
    if done:
        write_json(folder / COMMAND, {**read_json(folder / COMMAND), "done": True})
    while _held:
        _held.pop().release()
