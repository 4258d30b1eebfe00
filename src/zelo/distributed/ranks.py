"""Several processes for one training: a process group of its own, started from a file.

The stage prepares what the ranks share, writes a job (a function and its arguments, resolved) and
starts one process per device, by torch's elastic launcher on one machine and by `srun` on several.
No rank replays retrieval or judging; a rank that fails ends the others, and its message is the
stage's.

    python -m zelo.distributed.ranks JOB.json torch|srun
"""

from __future__ import annotations

import atexit
import ctypes
import faulthandler
import importlib
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from zelo.artifacts import read_json, write_json
from zelo.config import build, dump
from zelo.distributed.trainer import LightningTrainer
from zelo.errors import UserError

Result = TypeVar("Result")


def on_devices(
    function: Callable[..., Result], out: Path, trainer: LightningTrainer, **arguments: Any
) -> Result | None:
    """Call `function(out=…, trainer=…, **arguments)` on each of the trainer's devices.

    One device is this process, and its result is returned; more are processes of their own, whose
    results are None. `function` is named by its module, arguments are paths, components and plain
    data. Raises the `UserError` of the rank that failed.
    """
    if trainer.processes == 1:
        return function(out=out, trainer=trainer, **arguments)
    job = out / "job.json"
    values = {"out": out, "trainer": trainer, **arguments}
    paths = {name: str(v.absolute()) for name, v in values.items() if isinstance(v, Path)}
    rest = {name: dump(v) for name, v in values.items() if name not in paths}
    where = f"{function.__module__}:{function.__name__}"
    write_json(job, {"function": where, "paths": paths, "arguments": rest})
    for old in out.glob("rank-*.error"):
        old.unlink()
    failed = by_srun(job, trainer) if trainer.num_nodes > 1 else by_torch(job, trainer)
    if failed:
        said = sorted(out.glob("rank-*.error"), key=lambda path: path.stat().st_mtime_ns)
        if said:
            raise UserError(said[0].read_text(encoding="utf-8"))
        raise RuntimeError(f"{where} on {trainer.processes} devices: {failed}")
    job.unlink()
    return None


def by_torch(job: Path, trainer: LightningTrainer) -> str | None:
    """One process per device of this machine; why it failed, if it did."""
    import logging

    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=trainer.devices,
        run_id=uuid.uuid4().hex,
        rdzv_backend="static",  # the dynamic one unpickles what anybody writes to its port
        rdzv_endpoint=f"127.0.0.1:{free_port()}",
        rdzv_configs={"rank": 0},
        max_restarts=0,
        monitor_interval=0.2,
    )
    taken = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    handlers = {number: signal.getsignal(number) for number in taken}
    try:
        elastic_launch(config, sys.executable)("-m", __name__, str(job), TORCH)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        return f"rank {rank} ended with status {failure.exitcode}"
    except SignalException:  # whichever it was: a batch queue's SIGTERM is an interrupt too
        raise KeyboardInterrupt from None
    finally:  # the launcher leaves its own behind
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return None


def free_port() -> int:
    """A port on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def by_srun(job: Path, trainer: LightningTrainer) -> str | None:
    """A step of the SLURM allocation that this process runs in; why it failed, if it did."""
    command = [
        "srun",
        f"--nodes={trainer.num_nodes}",
        f"--ntasks-per-node={trainer.devices}",
        "--kill-on-bad-exit=1",
        *(sys.executable, "-m", __name__, str(job), SRUN),
    ]
    trainer.check()  # whoever calls a stage alone has not
    status = subprocess.run(command, check=False).returncode
    return f"srun ended with status {status}" if status else None


def main(file: str, launcher: str) -> None:
    """Do a job as one of its ranks."""
    faulthandler.enable()  # a crash in a library's code says where
    die_with_parent()
    end_when_told()
    job = read_json(Path(file))
    arguments = build(job["arguments"]) | {name: Path(p) for name, p in job["paths"].items()}
    trainer = arguments["trainer"]
    assert isinstance(trainer, LightningTrainer)
    share_cores(trainer)
    module, _, name = job["function"].partition(":")
    rank = keep_rank(launcher)
    try:
        getattr(importlib.import_module(module), name)(**arguments)
    except UserError as error:
        (arguments["out"] / f"rank-{rank}.error").write_text(str(error), encoding="utf-8")
        os._exit(2)  # not by way of the process group, whose other ranks still wait for this one
    end_well()


def end_well() -> None:
    """End a rank whose work is done, without taking the interpreter apart.

    Threads of torch that still hold Python objects then abort the process now and again
    ("terminate called without an active exception"), and with it a training that is complete.
    """
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    atexit._run_exitfuncs()  # trackers send what they hold
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def end_when_told() -> None:
    """Have SIGTERM end this rank at once: what there is to keep is kept already.

    Lightning's own handler, which goes before any other, talks to ranks that may be gone.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(130))


def share_cores(trainer: LightningTrainer) -> None:
    """Leave the other processes of this machine their share of its cores, where these compute."""
    if trainer.accelerator == "cpu":
        import torch

        torch.set_num_threads(max(len(os.sched_getaffinity(0)) // trainer.devices, 1))


VARIABLE = "ZELO_RANK"  # variable of a rank; what other launchers set may be meant for others
TORCH, SRUN = "torch", "srun"
SAYS = {  # what a launcher calls a process's rank, how many there are, its rank on its machine
    TORCH: ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    SRUN: ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
}


def keep_rank(launcher: str) -> int:
    """Keep which rank this process is, as the launcher that started it says; the rank."""
    os.environ[VARIABLE] = " ".join([*(os.environ[name] for name in SAYS[launcher]), launcher])
    return this_process().rank


class Process(NamedTuple):
    """Which process this is of those that do a job together."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0  # on its machine


def this_process() -> Process:
    """As the launcher that started it says; one alone is the first of one."""
    return Process(*map(int, os.environ.get(VARIABLE, "0 1 0").split()[:3]))


def environment() -> Any:
    """What tells Lightning its rank: as this process was started, and not as it finds by itself.

    A job's variables (of SLURM, LSF, Kubeflow, another torchrun) are about what a cluster manager
    started, which need not be what trains: one task of four, or a shell, runs a process of its own.
    """
    from lightning.fabric.utilities.rank_zero import rank_zero_only
    from lightning.pytorch.plugins.environments import (
        LightningEnvironment,
        SLURMEnvironment,
        TorchElasticEnvironment,
    )

    class Alone(LightningEnvironment):  # type: ignore[misc]
        """One process; its base reads ranks from variables too."""

        creates_processes_externally = True

        def local_rank(self) -> int:
            return 0

        def node_rank(self) -> int:
            return 0

        def teardown(self) -> None:
            """Leave the variables as they are."""

    rank_zero_only.rank = (
        this_process().rank
    )  # who logs: found in the variables when it was imported
    launcher = os.environ.get(VARIABLE, "").split()[3:]
    return {TORCH: TorchElasticEnvironment, SRUN: SLURMEnvironment}.get("".join(launcher), Alone)()


def die_with_parent() -> None:
    """Have the kernel end this process when the one that started it ends, `kill -9` included."""
    if sys.platform == "linux":
        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
