"""How fast a provider may be asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

WINDOW = 60.0  # seconds: limits are per minute


@dataclass
class Bucket:
    """At most `per_minute` units in any minute; a second's worth may be used at once.

    Units come back evenly. A request for more than the bucket holds waits until it is full and
    leaves a debt. Times are seconds of a clock that never goes back.
    """

    per_minute: float
    level: float = field(init=False)
    at: float = field(init=False)

    def __post_init__(self) -> None:
        self.capacity = max(self.per_minute / WINDOW, 1.0)
        self.rate = max(self.per_minute - self.capacity, 0.5 * self.per_minute) / WINDOW
        self.level, self.at = self.capacity, time.monotonic()

    def wait(self, units: float, now: float) -> float:
        """Seconds until `units` may be taken; 0: now."""
        self.level = min(self.capacity, self.level + self.rate * (now - self.at))
        self.at = now
        return max(min(units, self.capacity) - self.level, 0.0) / self.rate

    def take(self, units: float) -> None:
        """Take `units`, more than there are if need be; a negative number gives back."""
        self.level -= units


class Limiter:
    """What all requests to one provider share: in flight, requests and tokens per minute, pauses.

    Belongs to one event loop.
    """

    def __init__(
        self, in_flight: int, requests: float | None = None, tokens: float | None = None
    ) -> None:
        self.slots = asyncio.Semaphore(in_flight)
        self.requests = Bucket(requests) if requests else None
        self.tokens = Bucket(tokens) if tokens else None
        self.paused_until = 0.0
        self._turn = asyncio.Lock()  # first come, first served

    async def admit(self, tokens: float, sleep: Callable[[float], Awaitable[bool]]) -> None:
        """Wait until a request of about `tokens` may be sent.

        `sleep` sleeps for so many seconds; it returns True where waiting has become pointless.
        """
        if self.requests is None and self.tokens is None and time.monotonic() >= self.paused_until:
            return
        async with self._turn:
            while (pause := self._wait(tokens)) > 0:
                if await sleep(pause):
                    return
            if self.requests:
                self.requests.take(1.0)
            if self.tokens:
                self.tokens.take(tokens)

    def _wait(self, tokens: float) -> float:
        now = time.monotonic()
        return max(
            self.paused_until - now,
            self.requests.wait(1.0, now) if self.requests else 0.0,
            self.tokens.wait(tokens, now) if self.tokens else 0.0,
        )

    def correct(self, tokens: float) -> None:
        """Take the difference between the tokens a request had and those it was admitted with."""
        if self.tokens:
            self.tokens.take(tokens)

    def pause(self, seconds: float) -> None:
        """Send nothing for so long: the provider asked for it."""
        self.paused_until = max(self.paused_until, time.monotonic() + seconds)
