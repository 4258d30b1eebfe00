"""Embeddings kept on the disk: what one model makes of a text is computed once below one home.

A *shelf*, `home/embeddings/KEY/`, has the embeddings of one model that reads in one way: `KEY` is a
digest of all that changes the numbers. It consists of *segments*, files that never change: hashes
of texts, sorted, and the embedding of each. A segment is written under another name and renamed,
and is memory-mapped by whoever reads it, so that readers take no lock, a writer that is killed
leaves nothing that passes for a segment, and any file may be removed at any time: what is not
found is computed. Writers take turns.

A new segment takes up those that are not much larger than itself, so that there are few. Where all
of them would need more room than is allowed, those go that were used longest ago.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from filelock import FileLock
from numpy.typing import NDArray

from zelo.artifacts import TEMPORARY, replacing
from zelo.errors import UserError
from zelo.progress import tell
from zelo.store import digest

FOLDER = "embeddings"  # below a home
SUFFIX = ".arrow"
KEEP_EVERY = 60.0  # seconds of embedding that a kill may cost
SMALL, LARGEST = 2**20, 2**28  # bytes of segments that any takes up, and that none does
SHARE = 10  # a segment takes a tenth of the free room at most: the run needs the rest
HASH = "S16"
ABOUT = b"zelo"  # in a segment's metadata: the model, and what the shelf's key is a digest of

Hashes = NDArray[np.bytes_]
Rows = NDArray[np.float32]
Compute = Callable[[Sequence[str]], Iterable[tuple[list[int], Rows]]]


class Segment(NamedTuple):
    """Views of a file: sorted hashes (texts,) and embeddings (texts, dimensions)."""

    hashes: Hashes
    rows: Rows
    about: Mapping[str, Any]  # the shelf's, and `model`, what it is called


@dataclass(frozen=True)
class Shelf:
    """The embeddings of one model, read in one way."""

    store: EmbeddingStore
    about: Mapping[str, Any]
    model: str  # what it is called, for people

    @property
    def folder(self) -> Path:
        """Where its segments lie."""
        return self.store.folder / digest(self.about)

    def complete(self, rows_ND: Rows, texts: Sequence[str], compute: Compute) -> None:
        """Write the embeddings of N distinct texts into `rows_ND`, 0 where there are none.

        `compute` is handed the texts that are not kept, and gives some of their indices and the
        embeddings of these at a time, which are kept as they come.
        """
        hashes_N = hashes_of(texts)
        missing = np.flatnonzero(~self.fill(rows_ND, hashes_N))
        new: list[int] = []
        kept = time.monotonic()
        try:
            for part, found in compute([texts[i] for i in missing.tolist()]):
                rows_ND[missing[part]] = found
                new += missing[part].tolist()
                if time.monotonic() - kept > KEEP_EVERY:
                    self.keep(hashes_N[new], rows_ND[new])
                    new, kept = [], time.monotonic()
        finally:
            if new:
                self.keep(hashes_N[new], rows_ND[new])

    def fill(self, rows_ND: Rows, hashes: Hashes) -> NDArray[np.bool_]:
        """Write the kept embeddings of N texts into `rows_ND`; which of them there were (N,)."""
        found_N = np.zeros(len(hashes), dtype=bool)
        for path in segments(self.folder):
            left = np.flatnonzero(~found_N)
            segment = read(path) if len(left) else None
            if segment is None:
                continue
            place = np.searchsorted(segment.hashes, hashes[left]) % len(segment.hashes)
            hit = segment.hashes[place] == hashes[left]
            if hit.any():
                rows_ND[left[hit]] = segment.rows[place[hit]]
                found_N[left[hit]] = True
                with suppress(OSError):  # another process has removed it meanwhile
                    os.utime(path)
        return found_N

    def keep(self, hashes: Hashes, rows_ND: Rows) -> None:
        """Keep the embeddings of N texts, if there is room; what cannot be written is said."""
        try:
            self.store.folder.mkdir(parents=True, exist_ok=True)
            with self.store.lock():
                self.folder.mkdir(exist_ok=True)
                for left in self.folder.glob(f".*{TEMPORARY}"):  # by a process that was killed
                    left.unlink()
                self._keep(hashes, rows_ND)
        except (UserError, OSError) as error:
            tell(f"embeddings are not kept ({error})")

    def _keep(self, hashes: Hashes, rows_ND: Rows) -> None:
        taken_up: list[Path] = []
        about = {"model": self.model, **self.about}
        parts, new = [Segment(hashes, rows_ND, about)], hashes.nbytes + rows_ND.nbytes
        size = new
        for path in sorted(segments(self.folder), key=size_of):
            if size_of(path) > min(max(2 * size, SMALL), LARGEST):
                break
            taken_up.append(path)
            if (segment := read(path)) is not None:  # else it is damaged
                parts.append(segment)
                size += size_of(path)
        self.store.make_room(new, size, taken_up)
        whole, first = np.unique(np.concatenate([part.hashes for part in parts]), return_index=True)
        name = hashlib.sha256(whole.tobytes()).hexdigest()[:16] + SUFFIX
        rows = np.concatenate([part.rows for part in parts])[first]
        write(self.folder / name, Segment(whole, rows, about))
        for path in taken_up:
            if path.name != name:
                path.unlink(missing_ok=True)


@dataclass(frozen=True)
class EmbeddingStore:
    """All shelves below a home."""

    folder: Path
    most_bytes: int
    opened: float  # seconds since 1970: what was used since then is not removed to make room

    def lock(self) -> FileLock:
        """What a writer holds."""
        return FileLock(self.folder / ".lock")

    def make_room(self, new: int, size: int, taken_up: Sequence[Path]) -> None:
        """Remove what was used longest ago until `new` more bytes are allowed.

        A segment of `size` bytes is about to be written in place of those that it has `taken_up`.
        Raises `UserError` where it does not fit, or what would have to go is of this very run.
        """
        if size * SHARE > shutil.disk_usage(self.folder).free:
            raise UserError(f"{self.folder}: its disk is nearly full")
        there = [path for folder in shelves(self.folder) for path in segments(folder)]
        total = new + sum(map(size_of, there))
        for path in reversed(newest_first(there)):
            if total <= self.most_bytes:
                break
            if path not in taken_up and used(path) < self.opened:
                total -= size_of(path)
                path.unlink(missing_ok=True)
                with suppress(OSError):  # not empty
                    path.parent.rmdir()
        if total > self.most_bytes:
            raise UserError(f"{self.folder}: full; embeddings_gib=... allows more")


_open: list[EmbeddingStore] = []  # of the stages that run; threads of judges use it as well


@contextmanager
def embeddings_kept(home: Path, gib: float) -> Iterator[None]:
    """Have embeddings kept below `home`, `gib` GiB at most, and found there again; 0: none."""
    if not gib:
        yield
        return
    _open.append(EmbeddingStore(home / FOLDER, int(gib * 2**30), time.time()))
    try:
        yield
    finally:
        _open.pop()


def keeping_embeddings(
    home: Path, gib: float
) -> Callable[[Mapping[str, Any]], AbstractContextManager[None]]:
    """What a `Store` runs its stages within, so that they have `embeddings_kept`."""
    return lambda arguments: embeddings_kept(home, gib)


def open_store() -> EmbeddingStore | None:
    """Where embeddings are kept now; None: nowhere."""
    return _open[-1] if _open else None


def hashes_of(texts: Sequence[str]) -> Hashes:
    """First 16 bytes of the SHA-256 of each text (texts,)."""
    found = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16] for text in texts]
    return np.frombuffer(b"".join(found), dtype=HASH)


def write(path: Path, segment: Segment) -> None:
    """Write a segment, whole or not at all."""
    hashes, rows, about = segment
    columns = {
        "text": pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(16), len(hashes), [None, pa.py_buffer(hashes)]
        ),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1]),
    }
    batch = pa.record_batch(columns).replace_schema_metadata({ABOUT: json.dumps(about)})
    with replacing(path) as temporary, pa.ipc.new_file(str(temporary), batch.schema) as file:
        file.write_batch(batch)


def read(path: Path) -> Segment | None:
    """A segment; None where it is not there any more, or damaged."""
    try:
        batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
        about = json.loads(batch.schema.metadata[ABOUT])
        text, embedding = batch.columns
        hashes = np.frombuffer(text.buffers()[1], dtype=HASH, count=len(text))
        return Segment(hashes, embedding.values.to_numpy().reshape(len(text), -1), about)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def shelves(store: Path) -> list[Path]:
    """Folders of a store that hold segments."""
    return sorted({path.parent for path in store.glob(f"*/*{SUFFIX}")})


def segments(shelf: Path) -> list[Path]:
    """Segments in a folder, the one used last first."""
    return newest_first(list(shelf.glob(f"*{SUFFIX}")))


def newest_first(paths: Sequence[Path]) -> list[Path]:
    """Files by the time of their last use."""
    return sorted(paths, key=lambda path: (-used(path), path))


def used(path: Path) -> float:
    """When a segment was used last, in seconds since 1970; 0 where it is gone."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def size_of(path: Path) -> int:
    """Bytes of a segment; 0 where it is gone."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


class ShelfSize(NamedTuple):
    """What `zelo clean` shows of a shelf."""

    about: Mapping[str, Any]
    texts: int
    size: int  # bytes
    used: float  # seconds since 1970


def sizes(home: Path) -> list[ShelfSize]:
    """What is kept below a home, the largest first."""
    found = []
    for folder in shelves(home / FOLDER):
        there = segments(folder)
        whole = [segment for path in there if (segment := read(path)) is not None]
        texts, size = sum(len(one.hashes) for one in whole), sum(map(size_of, there))
        found += [ShelfSize(one.about, texts, size, used(there[0])) for one in whole[:1]]
    return sorted(found, key=lambda shelf: -shelf.size)


def remove(home: Path) -> None:
    """Remove all embeddings that are kept below a home; runs that are under way go on."""
    store = EmbeddingStore(home / FOLDER, most_bytes=0, opened=time.time())
    if store.folder.is_dir():
        with store.lock():
            for folder in shelves(store.folder):
                shutil.rmtree(folder)
