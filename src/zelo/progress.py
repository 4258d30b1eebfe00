"""Progress on the screen: a bar in a terminal, a line now and then in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")
LOG_EVERY = 20.0  # seconds between two lines where there is no terminal
BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]"
WIDTH, HEIGHT = 78, 24  # of a terminal that does not say its size


class Progress:
    """Shows how far some work of `total` steps is."""

    def __init__(self, total: int | None, what: str) -> None:
        self.total, self.what = total, what
        self.start = self.said = time.monotonic()
        self.bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            form = BAR if total is not None else None
            self.bar = tqdm(
                desc=f"  {what}",
                total=total,
                leave=False,
                ncols=WIDTH,
                nrows=HEIGHT,
                unit="",
                bar_format=form,
            )

    def show(self, done: int, note: str = "") -> None:
        """Say that `done` steps are done."""
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(done - self.bar.n)
            return
        now = time.monotonic()
        if now - self.said > LOG_EVERY:
            self.said = now
            rate = done / (now - self.start)
            said = [f"{done:,}", f"{now - self.start:.0f} s", f"{rate:.3g}/s"]
            if self.total is not None:
                said[0] += f" of {self.total:,}"
                if done:
                    left = timedelta(seconds=round((self.total - done) / rate))
                    said.append(f"{left} left")
            said += [note] if note else []
            print(f"  {self.what}: {', '.join(said)}", file=sys.stderr, flush=True)

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


def say(line: str) -> None:
    """Tell what happens."""
    print(f"  {line}", file=sys.stderr, flush=True)


@cache
def tell(line: str) -> None:
    """Tell something once."""
    say(line)
