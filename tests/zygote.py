"""Runs `zelo` commands in processes forked from one that has imported what they import.

Imports take most of the time of a small run, and so does taking them apart at its end. A request on
the socket is a JSON line with the command's words and folder, and carries the descriptors of its
standard output and error; process id and exit status come back, a line each.

    python -m tests.zygote SOCKET
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import socket
import sys
import threading
import traceback

HEAVY = (
    "torch", "lightning.pytorch", "transformers", "sentence_transformers", "torchmetrics",
    "sklearn.feature_extraction.text", "scipy.special", "scipy.sparse", "networkx",
    "matplotlib.figure", "zelo.cli", "zelo.runs.run_folder", "zelo.training.cross_encoder_module",
    "zelo.training.bi_encoder_module", "zelo.training.data_modules",
    "zelo.training.pairwise_module",
    "zelo.training.fit", "zelo.models.cross_encoder", "zelo.models.pairwise", "zelo.rating.solver",
    "zelo.reporting.plots", "hydra", "pydantic", "jinja2",
)  # fmt: skip


def serve(path: str) -> None:
    """Answer requests, one at a time, until the socket's other side is gone for good."""
    for name in HEAVY:
        importlib.import_module(name)
    gc.freeze()  # collections in a forked process need not visit, and so copy, what is imported
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()
    parent = os.getppid()
    listening.settimeout(1.0)
    while os.getppid() == parent:
        try:
            connection, _ = listening.accept()
        except TimeoutError:
            continue
        with connection:
            said, descriptors, _, _ = socket.recv_fds(connection, 1 << 20, 2)
            pid = os.fork()
            if pid == 0:
                listening.close()
                connection.close()
                act(json.loads(said), descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
            connection.sendall(f"{pid}\n".encode())
            _, status = os.waitpid(pid, 0)
            connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def act(request: dict[str, str], descriptors: list[int]) -> None:
    """Be the process of a command, and end."""
    from zelo.cli import main

    for target, descriptor in zip((1, 2), descriptors, strict=True):
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.chdir(request["folder"])
    sys.argv = ["zelo", *request["words"]]
    status = 0
    try:
        main(list(request["words"]))
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    # As Python ends, but for taking apart all that was imported, which takes seconds
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    serve(sys.argv[1])
