"""Texts of all requests together: a model reads several at a time faster than one by one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

Read = Callable[[Hashable, Sequence[Any]], Sequence[Any]]


class FullError(Exception):
    """More is waiting than may."""


class Item(NamedTuple):
    """One text, or pair of texts, of a request."""

    kind: Hashable  # only items of one kind are read together
    content: Any
    result: asyncio.Future[Any]


class Batcher:
    """Has items read in one thread, in the order in which they came, up to `most` at once.

    `read` gives the results of items of one kind. Where it fails, the items of that time are read
    one by one, so that an item that cannot be read fails its own request alone. An item whose
    request is gone is not read.
    """

    def __init__(self, read: Read, most: int, waiting: int) -> None:
        self.read, self.most, self.waiting = read, most, waiting
        self.items: deque[Item] = deque()
        self.there = asyncio.Event()
        self.thread = ThreadPoolExecutor(1, "model")
        self.largest = 0  # items that were read together, at most

    async def results(self, kind: Hashable, contents: Sequence[Any]) -> list[Any]:
        """Results of some items, in their order; `FullError` where too many are waiting."""
        if len(self.items) + len(contents) > self.waiting:
            self.items = deque(item for item in self.items if not item.result.done())
        if len(self.items) + len(contents) > self.waiting:
            raise FullError
        loop = asyncio.get_running_loop()
        items = [Item(kind, content, loop.create_future()) for content in contents]
        self.items.extend(items)
        self.there.set()
        try:
            return list(await asyncio.gather(*(item.result for item in items)))
        finally:  # of a request that is given up
            for item in items:
                item.result.cancel()

    async def run(self) -> None:
        """Read what comes, until it is cancelled."""
        try:
            while True:
                await self.there.wait()
                part = self.next()
                if part:
                    await self.answer(part)
        finally:
            self.thread.shutdown(wait=False, cancel_futures=True)

    def next(self) -> list[Item]:
        """The items that are read next: of one kind, those that came first."""
        part: list[Item] = []
        while self.items and len(part) < self.most:
            if self.items[0].result.done():
                self.items.popleft()
            elif part and self.items[0].kind != part[0].kind:
                break
            else:
                part.append(self.items.popleft())
        if not self.items:
            self.there.clear()
        self.largest = max(self.largest, len(part))
        return part

    async def answer(self, part: Sequence[Item]) -> None:
        """Give some items of one kind their results."""
        loop = asyncio.get_running_loop()
        contents = [item.content for item in part]
        try:
            results = await loop.run_in_executor(self.thread, self.read, part[0].kind, contents)
        except Exception as error:
            if len(part) > 1:
                for item in part:
                    await self.answer([item])
            elif not part[0].result.done():
                part[0].result.set_exception(error)
            return
        for item, result in zip(part, results, strict=True):
            if not item.result.done():
                item.result.set_result(result)
