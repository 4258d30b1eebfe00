"""The stage store: what a stage made is kept under its fingerprint and never made twice.

A fingerprint is a digest of the stage's name and version, of the options it reads and of the
fingerprints of its inputs, so it is known before anything runs. A stage works in
`STORE/<stage>/.<fingerprint>.partial`, which outlives a kill so that the stage can go on from what
it finds there, and which is renamed to `STORE/<stage>/<fingerprint>` when it is complete. A file
lock makes two processes that want the same stage wait for one another.

A stage that counts something as `missing` (a judge was down) is provisional: it is kept under a
fingerprint of its content, which those after it go by, and the next run makes it again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from zelo.artifacts import TEMPORARY, read_json, write_json
from zelo.config import Component, describe
from zelo.errors import UserError

RECORD = "stage.json"  # written last: a folder without it is not complete


@dataclass(frozen=True)
class Stage:
    """A stage: a function of folders and options that writes into the folder `out`.

    It returns counts worth recording. `version` is raised when the same inputs would give another
    output.
    """

    make: Callable[..., Mapping[str, Any]]
    version: int

    @property
    def name(self) -> str:
        """The function's name."""
        return self.make.__name__

    def __call__(self, **arguments: Any) -> Mapping[str, Any]:
        """Run it on its inputs alone, outside any store."""
        return self.make(**arguments)


def stage(version: int) -> Callable[[Callable[..., Mapping[str, Any]]], Stage]:
    """Declare a function to be a stage."""
    return lambda make: Stage(make, version)


@dataclass(frozen=True)
class Artifact:
    """The output of one stage, made or yet to be made: where it lies and what it stands for."""

    stage: str
    fingerprint: str
    path: Path

    @property
    def complete(self) -> bool:
        """Whether the stage has run to its end."""
        return (self.path / RECORD).is_file()

    @property
    def record(self) -> dict[str, Any]:
        """Seconds, counts and options of the run that made it."""
        content: dict[str, Any] = read_json(self.path / RECORD, "counts", "seconds", "inputs")
        return content

    def check(self) -> None:
        """`UserError` where a file is not as the stage left it."""
        for name, digest in self.record.get("files", {}).items():
            path = self.path / name
            if not path.is_file() or digest_files([path]) != digest:
                raise UserError(
                    f"{path}: not as its stage left it; delete the folder {self.path} and run "
                    f"again, which makes it anew"
                )


@dataclass(frozen=True)
class Used:
    """One stage of a run: what it was called there, its output, whether it was made just now."""

    label: str
    artifact: Artifact
    made: bool


@dataclass
class Store:
    """Runs stages and keeps what they make below `root`.

    `selected` are the stages that may run; of the others only what exists is used. `say` is told
    what happens, in lines fit to print. A stage runs within
    `around(arguments)`, which may help it and changes nothing of what it makes.
    """

    root: Path
    selected: frozenset[str]
    say: Callable[[str], None] = lambda line: None
    used: list[Used] = field(default_factory=list)
    around: Callable[[Mapping[str, Any]], AbstractContextManager[Any]] = nullcontext

    def run(
        self,
        stage: Stage,
        inputs: Mapping[str, Artifact],
        options: Mapping[str, Any],
        context: Mapping[str, Any] | None = None,
        label: str | None = None,
    ) -> Artifact:
        """Return the output of `stage`, running it where it does not exist yet.

        `inputs` are handed to it as folders, `options` as they are; both are fingerprinted.
        `context` is handed over too and must not change the result (a ledger, a logger). `label`
        tells two uses of one stage apart on the screen. Raises `UserError` where an input is
        missing because its stage was not selected.
        """
        label = label or stage.name
        artifact, record = self._place(stage, inputs, options)
        made = False
        if artifact.complete:
            artifact.check()
        if stage.name not in self.selected and not artifact.complete:
            artifact = provisional(artifact) or artifact
        if stage.name in self.selected and artifact.complete:
            self.say(f"{label}: already done")
        elif stage.name in self.selected:
            missing = [value.stage for value in inputs.values() if not value.complete]
            if missing:
                raise UserError(
                    f"stage {stage.name} needs {', '.join(missing)}, which has not run with this "
                    f"configuration: add it to stages=[...], or leave stages out to run them all"
                )
            folders = {key: value.path for key, value in inputs.items()}
            arguments = {**options, **folders, **(context or {})}
            artifact, made = self._make(artifact, stage, arguments, record, label)
        self.used.append(Used(label, artifact, made))
        return artifact

    def fingerprint(self, component: Component) -> str:
        """What tells a component from others that give other results."""
        return digest(describe(component))

    def pending(
        self, stage: Stage, inputs: Mapping[str, Artifact], options: Mapping[str, Any]
    ) -> bool:
        """Whether `run` would run the stage."""
        artifact, _ = self._place(stage, inputs, options)
        return stage.name in self.selected and not artifact.complete

    def _place(
        self, stage: Stage, inputs: Mapping[str, Artifact], options: Mapping[str, Any]
    ) -> tuple[Artifact, dict[str, Any]]:
        """What the stage makes of inputs and options, and the record of these."""
        record = {
            "options": describe(options),
            "inputs": {key: value.fingerprint for key, value in inputs.items()},
        }
        fingerprint = digest({"stage": stage.name, "version": stage.version, **record})
        return Artifact(stage.name, fingerprint, self.root / stage.name / fingerprint), record

    def _make(
        self,
        artifact: Artifact,
        stage: Stage,
        arguments: Mapping[str, Any],
        record: Mapping[str, Any],
        label: str,
    ) -> tuple[Artifact, bool]:
        """Run the stage under its lock; False where another process made it meanwhile."""
        partial_folder = artifact.path.with_name(f".{artifact.fingerprint}.partial")
        try:
            partial_folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{partial_folder.parent}: cannot be written ({error.strerror})"
            ) from None
        with self._lock(artifact, label):
            if artifact.complete:
                self.say(f"{label}: done by another process")
                return artifact, False
            resumed = partial_folder.exists()
            self.say(f"{label}: going on where it stopped" if resumed else f"{label} ...")
            partial_folder.mkdir(exist_ok=True)
            for left in partial_folder.rglob(f".*{TEMPORARY}"):  # by a process that was killed
                left.unlink()
            try:
                with self.around(arguments):
                    start = time.monotonic()
                    counts = stage.make(**arguments, out=partial_folder)
                    seconds = time.monotonic() - start
            except Exception as error:
                error.add_note(f"the stage {label}")
                raise
            about = {
                "stage": artifact.stage,
                "fingerprint": artifact.fingerprint,
                "seconds": round(seconds, 2),
                "resumed": resumed,
                "counts": dict(counts),
                "files": digests(partial_folder),
            }
            write_json(partial_folder / RECORD, {**about, **record})
            if counts.get("missing"):
                artifact = keep_provisional(artifact, partial_folder)
            if artifact.path.exists():  # left without its record by something that was not us
                shutil.rmtree(artifact.path)
            partial_folder.rename(artifact.path)
            sizes = [
                f"{value:,} {key}" for key, value in counts.items() if type(value) is int and value
            ]
            validated = [f"{key} {value}" for key, value in counts.items() if key[:4] == "val/"]
            said = ", ".join([f"{about['seconds']:.1f} s", *sizes, *validated])
            self.say(f"{label}: {said.replace('_', ' ')}")
        return artifact, True

    @contextmanager
    def _lock(self, artifact: Artifact, label: str) -> Iterator[None]:
        lock = FileLock(artifact.path.with_name(f".{artifact.fingerprint}.lock"))
        try:
            lock.acquire(timeout=0.2)
        except Timeout:
            self.say(f"{label}: waiting for another process that runs it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file below `folder`, by its path from there."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): digest_files([path]) for path in paths}


def provisional(artifact: Artifact) -> Artifact | None:
    """What was last kept in place of `artifact` because something is missing in it."""
    note = _provisional_note(artifact)
    return (
        _renamed(artifact, read_json(note, "fingerprint")["fingerprint"]) if note.exists() else None
    )


def keep_provisional(artifact: Artifact, made: Path) -> Artifact:
    """Note that what lies in `made` is all there is of `artifact` for now; what it is called."""
    content = digest_files(sorted(made.glob("*.parquet")))
    fingerprint = digest([artifact.fingerprint, content])
    write_json(_provisional_note(artifact), {"fingerprint": fingerprint})
    return _renamed(artifact, fingerprint)


def _provisional_note(artifact: Artifact) -> Path:
    return artifact.path.with_name(f".{artifact.fingerprint}.provisional.json")


def _renamed(artifact: Artifact, fingerprint: str) -> Artifact:
    return Artifact(artifact.stage, fingerprint, artifact.path.with_name(fingerprint))


def digest(content: Any) -> str:
    """First 16 hexadecimal digits of the SHA-256 of `content` as canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def digest_files(paths: list[Path]) -> str:
    """SHA-256 over the contents of `paths`, in their order; names do not count."""
    total = hashlib.sha256()
    for path in paths:
        about = path.stat()
        total.update(_digest_file(path, about.st_size, about.st_mtime_ns))
    return total.hexdigest()


@cache
def _digest_file(path: Path, size: int, changed: int) -> bytes:
    """SHA-256 of a file, taken once per process while size and time of change stay."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
