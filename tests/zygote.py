"""`zelo` for tests: every command is a process forked from one that has imported what they import,
the zygote.

Imports take most of the time of a small run, and so does taking them apart at its end. The command
of `command_in` is a small program that is used as the installed `zelo` is: it hands its words,
folder, environment and descriptors over, passes signals on, and ends as the forked process does.
When it is killed, so is that, a moment later: its pipes are closed only then. Variables that Python
or a library reads when it starts (PYTHONHASHSEED, HF_ENDPOINT) have no effect: for these there is
the installed command.

    python -m tests.zygote SOCKET OWNER
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import random
import secrets
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from pkgutil import walk_packages
from typing import Any, NoReturn

import numpy as np

import zelo

HEAVY = (
    "torch", "lightning.pytorch", "transformers", "sentence_transformers", "torchmetrics",
    "sklearn.feature_extraction.text", "scipy.special", "scipy.sparse", "networkx",
    "matplotlib.figure", "hydra", "pydantic", "jinja2",
)  # fmt: skip
ROOT = Path(__file__).parents[1]
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)
COMMAND = """#!{python} -ISu
import json, os, signal, socket, sys, time

SIGNALS = {signals}
end = time.monotonic() + 120
connection = socket.socket(socket.AF_UNIX)
while True:
    try:
        connection.connect({place!r})
        break
    except OSError:  # it is importing
        if time.monotonic() > end:
            sys.exit("the zygote does not answer; it said:\\n" + open({log!r}).read())
        time.sleep(0.02)
ignored = [n for n in SIGNALS if signal.getsignal(n) is signal.SIG_IGN]  # as in the background
said = json.dumps({{
    "words": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ),
    "ignored": ignored,
}}).encode() + b"\\n"
sent = socket.send_fds(connection, [said], [0, 1, 2])
connection.sendall(said[sent:])
lines = connection.makefile()
child = int(lines.readline())
def pass_on(number, frame):
    try:
        os.kill(child, number)
    except ProcessLookupError:  # it has just ended
        pass

for number in SIGNALS:  # ignored or not: that is for the other to say
    signal.signal(number, pass_on)
status = int(lines.readline())
if status < 0:
    if -status != signal.SIGKILL:
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
os._exit(status)
"""


def command_in(folder: Path, owner: int) -> str:
    """The path of the command in a folder; whoever comes first starts the zygote behind it.

    That ends when the process `owner` has.
    """
    command, place, log = folder / "zelo", folder / "socket", folder / "log"
    try:
        folder.mkdir()
    except FileExistsError:  # by another worker of the same suite, just now perhaps
        while not command.exists():
            time.sleep(0.02)
        return str(command)
    signals = [int(number) for number in PASSED_ON]
    program = COMMAND.format(python=sys.executable, place=str(place), log=str(log), signals=signals)
    new = folder / "new"
    new.write_text(program, encoding="utf-8")
    new.chmod(0o755)
    new.rename(command)
    words = [sys.executable, "-m", "tests.zygote", str(place), str(owner)]
    with log.open("w") as said:
        subprocess.Popen(
            words, cwd=ROOT, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
    return str(command)


def warm() -> None:
    """Do what a small run does once in a process: imports, built-in data, compiled kernels."""
    for name in (*HEAVY, *(module.name for module in walk_packages(zelo.__path__, "zelo."))):
        importlib.import_module(name)
    from zelo.data.stdlib import library_functions, stdlib_root
    from zelo.rating import Comparisons, fit, standard_errors
    from zelo.retrieval.languages import language_of

    library_functions(stdlib_root())
    language_of(["What language is this?"])
    comparisons = Comparisons(query=[0, 0], i=[0, 1], j=[1, 2], p=[0.9, 0.8])
    for likelihood in ("thurstone", "bradley_terry"):
        standard_errors(comparisons, fit(comparisons, likelihood, prior=0.05).elo)


def serve(path: str, owner: int) -> None:
    """Answer requests until the process `owner` is gone."""
    warm()
    gc.freeze()  # collections in a forked process need not visit, and so copy, what is imported
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"{path}.new")
    listening.listen()
    os.rename(f"{path}.new", path)  # nobody finds it before it listens
    running: dict[socket.socket, int] = {}
    try:
        answer(listening, owner, running)
    finally:
        for pid in running.values():
            os.kill(pid, signal.SIGKILL)


def answer(listening: socket.socket, owner: int, running: dict[socket.socket, int]) -> None:
    """Fork what is asked for and tell how it ended; `running` has the processes by connection."""
    with selectors.DefaultSelector() as selector:
        selector.register(listening, selectors.EVENT_READ)
        while Path(f"/proc/{owner}").exists():
            ready = [key.fileobj for key, _ in selector.select(0.02 if running else 1.0)]
            for connection, pid in [*running.items()]:
                if connection in ready:  # its command says nothing more: it was killed
                    os.kill(pid, signal.SIGKILL)
                ended, status = os.waitpid(pid, 0 if connection in ready else os.WNOHANG)
                if ended:
                    selector.unregister(connection)
                    del running[connection]
                    with connection, suppress(OSError):
                        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
            if listening in ready:  # after the dead: who killed a command may start it anew
                connection, _ = listening.accept()
                if pid := fork(connection, [listening, *running]):
                    running[connection] = pid
                    selector.register(connection, selectors.EVENT_READ)


def fork(connection: socket.socket, others: list[socket.socket]) -> int | None:
    """Start the process that is asked for, which needs none of the other sockets; its id, or None
    where the command was killed before it had asked."""
    said, descriptors, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    while not said.endswith(b"\n") and (part := connection.recv(1 << 20)):
        said += part
    request = json.loads(said) if said.endswith(b"\n") else None
    pid = os.fork() if request else None
    if pid == 0:
        for other in (connection, *others):
            other.close()
        act(request, descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    if pid is None:
        connection.close()
    else:
        with suppress(OSError):
            connection.sendall(f"{pid}\n".encode())
    return pid


def act(request: dict[str, Any], descriptors: list[int]) -> NoReturn:
    """Be the process of a command, and end."""
    status = 1
    try:
        become(request, descriptors)
        status = status_of(request["words"])
        # As Python ends, but for taking apart all that was imported, which takes seconds
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        status = status or 1
        traceback.print_exc()
    finally:
        os._exit(status)


def become(request: dict[str, Any], descriptors: list[int]) -> None:
    """Take over a command's folder, environment, signals and streams; draw as nobody else does."""
    from zelo.judging import prompt

    for number in PASSED_ON:
        usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number in request["ignored"] else usual)
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
        os.close(descriptor)
    # The streams that are there may remember a position in a file.
    lines = 1 if "PYTHONUNBUFFERED" in request["environment"] else -1
    sys.stdin = os.fdopen(0, encoding="utf-8")
    sys.stdout = os.fdopen(1, "w", lines, encoding="utf-8")
    sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", errors="backslashreplace")
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = ["zelo", *request["words"]]
    prompt.SECRET = secrets.token_bytes(32)
    prompt.CODES.seed(secrets.randbits(128))
    for seed in (random.seed, np.random.seed):
        seed()


def status_of(words: Sequence[str]) -> int:
    """The exit status of a command that was run."""
    from zelo.cli import main

    try:
        main(list(words))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
