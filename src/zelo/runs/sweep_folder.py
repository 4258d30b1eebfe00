"""A sweep that was stopped goes on in its folder, by the same command: its runs keep their names,
and what they log goes on in the same place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from zelo.artifacts import read_json, write_json

COMMAND = "command.json"  # words of the sweep, and whether all of its runs are done
MULTIRUN = {"-m", "--multirun"}
SEARCH = "hydra/sweeper=search"  # draws the same trials when it is told the same results
ANEW = (
    "hydra/sweeper=",
    "hydra.sweep.dir=",
    "hydra.sweeper.storage=",
    "hydra.sweeper.sampler.seed=null",
)
_held: list[FileLock] = []  # of the sweep that this process runs


def folder_to_go_on_in(words: Sequence[str]) -> Path | None:
    """Folder of the latest sweep by the same words that did not come to its end, and that nobody is
    running; None where there is none, and of a search whose trials would be others: without a seed,
    or with a storage of its own, to which more trials are added."""
    if not MULTIRUN & {*words} or any(word.startswith(ANEW) and word != SEARCH for word in words):
        return None
    home = next((word[5:] for word in reversed(words) if word.startswith("home=")), "outputs")
    for path in sorted(Path(home.strip("'\"")).glob(f"sweeps/*/{COMMAND}"), reverse=True):
        about = read_json(path)
        if about["words"] != list(words):
            continue
        if about["done"]:
            return None
        lock = FileLock(path.with_name(".lock"))
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return None
        lock.release()
        return path.parent.absolute()
    return None


def begin_sweep(folder: Path, words: Sequence[str]) -> None:
    """Note what a sweep was told, and that this process runs it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    lock.acquire()
    _held.append(lock)
    kept = [word for word in words if not word.startswith("hydra.sweep.dir=")]
    write_json(folder / COMMAND, {"words": kept, "done": False})


def end_sweep(folder: Path, done: bool) -> None:
    """Note whether all of its runs are done."""
    if done:
        write_json(folder / COMMAND, {**read_json(folder / COMMAND), "done": True})
    while _held:
        _held.pop().release()
