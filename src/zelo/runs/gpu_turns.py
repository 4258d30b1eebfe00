"""Runs side by side on one machine (`hydra/launcher=joblib`) share its GPUs without colliding.

Each process keeps to as many GPUs as a training has. Where the same GPUs fall to several processes,
one trains or evaluates at a time, while the others load, compare or ask.
"""

from __future__ import annotations

import gc
import getpass
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from zelo.distributed.trainer import LightningTrainer

VISIBLE = "CUDA_VISIBLE_DEVICES"


class Share(NamedTuple):
    """GPUs that a process keeps to."""

    gpus: tuple[str, ...]  # as `CUDA_VISIBLE_DEVICES` names them
    place: FileLock  # of the process, held to its end
    turn: FileLock  # held while they are used


_share: Share | None = None  # of this process


def keep_to_a_share(devices: int) -> None:
    """Have this process see as many GPUs as it uses; must be called before CUDA is. Without a GPU
    nothing happens."""
    global _share
    if _share is not None:
        return
    if gpus := visible():
        folder = Path(tempfile.gettempdir()) / f"zelo-gpus-{getpass.getuser()}"
        _share = share_of(gpus, devices, folder)
        os.environ[VISIBLE] = ",".join(_share.gpus)


def visible() -> list[str]:
    """The GPUs that this process may use, by the names that it would be told."""
    if VISIBLE in os.environ:
        return [name for name in os.environ[VISIBLE].split(",") if name]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def share_of(gpus: list[str], devices: int, folder: Path) -> Share:
    """The share of a process that comes after those whose places are taken."""
    folder.mkdir(exist_ok=True)
    groups = [tuple(gpus[i : i + devices]) for i in range(0, len(gpus) - devices + 1, devices)]
    groups = groups or [tuple(gpus)]  # too few, which the trainer will say
    for number in count():
        place = FileLock(folder / f"process-{number}.lock")
        try:
            place.acquire(blocking=False)
        except Timeout:
            continue
        group = groups[number % len(groups)]
        return Share(group, place, FileLock(folder / f"{'-'.join(group)}.lock"))
    raise AssertionError("counted to the end")


@contextmanager
def turn_on_gpus(arguments: Mapping[str, Any], say: Callable[[str], None]) -> Iterator[None]:
    """Within, a stage that trains or evaluates on this process's share of GPUs has it alone."""
    trainer = arguments.get("trainer")
    if _share is None or not isinstance(trainer, LightningTrainer) or trainer.accelerator == "cpu":
        yield
        return
    try:
        _share.turn.acquire(blocking=False)
    except Timeout:
        say(f"waiting for GPU {','.join(_share.gpus)}, on which another run trains or evaluates")
        _share.turn.acquire()
    try:
        yield
    finally:
        gc.collect()
        if "torch" in sys.modules:  # the next one needs the memory that this one had
            sys.modules["torch"].cuda.empty_cache()
        _share.turn.release()
