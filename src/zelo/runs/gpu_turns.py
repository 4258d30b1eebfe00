"""Runs side by side on one machine (`hydra/launcher=joblib`) share its GPUs without colliding.

Each process keeps to as many GPUs as a training has. Where the same GPUs fall to several processes,
one computes on them at a time, while the others load, compare, rate or ask.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from zelo.config import Component
from zelo.distributed.trainer import LightningTrainer
from zelo.errors import UserError
from zelo.judging.api import ApiJudge
from zelo.models.pretrained import PretrainedModel
from zelo.store import digest

VISIBLE = "CUDA_VISIBLE_DEVICES"


class Share(NamedTuple):
    """GPUs that a process keeps to."""

    gpus: tuple[str, ...]  # as `CUDA_VISIBLE_DEVICES` names them
    devices: int  # that its trainings have
    place: FileLock  # of the process, held to its end
    turns: list[FileLock]  # of the GPUs, held while they are used


_share: Share | None = None  # of this process


def keep_to_a_share(devices: int) -> None:
    """Have this process see as many GPUs as a training has; must be called before CUDA is.

    Without a GPU nothing happens. Raises `UserError` where an earlier run of this process had
    trainings of other sizes.
    """
    global _share
    if _share is not None:
        if _share.devices != devices:
            raise UserError(
                f"trainer.devices={devices}: processes that stand side by side keep to their GPUs, "
                f"{_share.devices} in this sweep; give each number a sweep of its own"
            )
        return
    if gpus := visible():
        owner = os.getuid() if hasattr(os, "getuid") else os.getlogin()
        _share = share_of(gpus, devices, Path(tempfile.gettempdir()) / f"zelo-gpus-{owner}")
        os.environ[VISIBLE] = ",".join(_share.gpus)


def visible() -> list[str]:
    """The CUDA devices that this process may use, by the names that it would be told."""
    import torch

    number = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return (named or [str(n) for n in range(number)])[:number]


def share_of(gpus: Sequence[str], devices: int, folder: Path) -> Share:
    """The share of a process that comes after those whose places at the same GPUs are taken."""
    folder.mkdir(exist_ok=True)
    groups = [tuple(gpus[i : i + devices]) for i in range(0, len(gpus) - devices + 1, devices)]
    groups = groups or [tuple(gpus)]  # too few, which the trainer will say
    same = digest([*gpus])[:12]
    for number in count():
        place = FileLock(folder / f"{same}-process-{number}.lock")
        try:
            place.acquire(blocking=False)
        except Timeout:
            continue
        group = groups[number % len(groups)]
        turns = [FileLock(folder / f"{digest([gpu])[:12]}.lock") for gpu in sorted(group)]
        return Share(group, devices, place, turns)
    raise AssertionError("counted to the end")


@contextmanager
def turn_on_gpus(arguments: Mapping[str, Any], say: Callable[[str], None]) -> Iterator[None]:
    """Within, a stage that computes on this process's share of GPUs has it alone."""
    if _share is None or not on_gpu(arguments):
        yield
        return
    with ExitStack() as held:
        for turn in _share.turns:  # in one order everywhere: nobody waits for one who waits for him
            try:
                turn.acquire(blocking=False)
            except Timeout:
                say(f"waiting for GPU {','.join(_share.gpus)}, on which another run computes")
                turn.acquire()
            held.callback(turn.release)
        try:
            yield
        finally:
            gc.collect()
            if "torch" in sys.modules:  # the next one needs the memory that this one had
                sys.modules["torch"].cuda.empty_cache()


def on_gpu(arguments: Mapping[str, Any]) -> bool:
    """Whether a stage with these arguments computes on a GPU where there is one; not where it waits
    for endpoints, which takes hours."""
    found = list(components(arguments))
    if any(isinstance(each, ApiJudge) for each in found):
        return False
    trainers = [each for each in found if isinstance(each, LightningTrainer)]
    if trainers:
        return any(trainer.accelerator != "cpu" for trainer in trainers)
    return any(isinstance(each, PretrainedModel) for each in found)


def components(value: Any) -> Iterator[Component]:
    """All components in a value."""
    if isinstance(value, Component):
        yield value
        value = {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from components(each)
