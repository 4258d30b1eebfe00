"""Progress on the screen: a bar in a terminal, a line now and then in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")
LOG_EVERY = 30.0  # seconds between two lines where there is no terminal


def track(items: Iterable[T], what: str) -> Iterator[T]:
    """Yield `items`, showing how far it is; silent where it ends within seconds in a log."""
    total = len(items) if isinstance(items, Sized) else None
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, desc=f"  {what}", total=total, leave=False, ncols=78)
        return
    start = said = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - said > LOG_EVERY:
            said = now
            of = f" of {total}" if total is not None else ""
            print(f"  {what}: {done}{of}, {now - start:.0f} s", file=sys.stderr, flush=True)
        yield item
