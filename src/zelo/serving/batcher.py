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

    number: int  # in the order in which they came
    content: Any
    result: asyncio.Future[Any]


class Batcher:
    """Has items read in one thread, in the order in which they came, `most` of a kind at once.

    `read` gives the results of items of one kind. Where it fails, the items of that time are read
    one by one, so that an item that cannot be read fails its own request alone. An item whose
    request is gone is not read.
    """

    def __init__(self, read: Read, most: int, limit: int) -> None:
        self.read, self.most, self.limit = read, most, limit
        self.kinds: dict[Hashable, deque[Item]] = {}
        self.there = asyncio.Event()
        self.thread = ThreadPoolExecutor(1, "model")
        self.came = 0
        self.largest = 0  # items that were read together, at most

    @property
    def waiting(self) -> int:
        """Items that are not read yet."""
        return sum(not item.result.done() for items in self.kinds.values() for item in items)

    async def results(self, kind: Hashable, contents: Sequence[Any]) -> list[Any]:
        """Results of some items, in their order; `FullError` where too many are waiting."""
        if self.waiting + len(contents) > self.limit:
            raise FullError
        loop = asyncio.get_running_loop()
        items = [
            Item(self.came + n, content, loop.create_future()) for n, content in enumerate(contents)
        ]
        self.came += len(items)
        self.kinds.setdefault(kind, deque()).extend(items)
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
                kind, part = self.next()
                if part:
                    await self.answer(kind, part)
        finally:
            self.thread.shutdown(wait=False, cancel_futures=True)

    def next(self) -> tuple[Hashable, list[Item]]:
        """The items that are read next: of the kind whose first one has waited longest."""
        for items in self.kinds.values():
            while items and items[0].result.done():
                items.popleft()
        self.kinds = {kind: items for kind, items in self.kinds.items() if items}
        if not self.kinds:
            self.there.clear()
            return None, []
        kind, items = min(self.kinds.items(), key=lambda one: one[1][0].number)
        part: list[Item] = []
        while items and len(part) < self.most:
            if not (item := items.popleft()).result.done():
                part.append(item)
        self.largest = max(self.largest, len(part))
        return kind, part

    async def answer(self, kind: Hashable, part: Sequence[Item]) -> None:
        """Give some items of one kind their results."""
        loop = asyncio.get_running_loop()
        contents = [item.content for item in part]
        try:
            results = await loop.run_in_executor(self.thread, self.read, kind, contents)
            if len(results) != len(part):
                raise ValueError(f"{len(results)} results of {len(part)} texts")
        except Exception as error:
            if len(part) > 1:
                for item in part:
                    if not item.result.done():  # of a request that has failed, or is gone
                        await self.answer(kind, [item])
            elif not part[0].result.done():
                part[0].result.set_exception(error)
            return
        for item, result in zip(part, results, strict=True):
            if not item.result.done():
                item.result.set_result(result)
