"""Progress on the screen: a bar in a terminal, a line now and then in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any, TypeVar

T = TypeVar("T")
LOG_EVERY = 20.0  # seconds between two lines where there is no terminal


class Progress:
    """Shows how far some work of `total` steps is."""

    def __init__(self, total: int | None, what: str) -> None:
        self.total, self.what = total, what
        self.start = self.said = time.monotonic()
        self.bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(desc=f"  {what}", total=total, leave=False, ncols=78)

    def show(self, done: int, note: str = "") -> None:
        """Say that `done` steps are done."""
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(done - self.bar.n)
            return
        now = time.monotonic()
        if now - self.said > LOG_EVERY:
            self.said = now
            of = f" of {self.total}" if self.total is not None else ""
            note = f", {note}" if note else ""
            line = f"  {self.what}: {done}{of}, {now - self.start:.0f} s{note}"
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Take the bar off the screen."""
        if self.bar is not None:
            self.bar.close()


def track(items: Iterable[T], what: str) -> Iterator[T]:
    """Yield `items`, showing how far it is; silent in a log where it ends within seconds."""
    progress = Progress(len(items) if isinstance(items, Sized) else None, what)
    try:
        for done, item in enumerate(items):
            progress.show(done)
            yield item
    finally:
        progress.close()
