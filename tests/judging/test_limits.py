from __future__ import annotations

import asyncio
import time
from email.utils import formatdate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zelo.judging.endpoint import backoff, retry_after
from zelo.judging.limits import Bucket, Limiter


@settings(max_examples=50)
@given(st.floats(2, 10_000), st.lists(st.floats(0, 5), min_size=1, max_size=80))
def test_no_minute_has_more_than_the_limit(per_minute: float, gaps: list[float]) -> None:
    bucket = Bucket(per_minute)
    bucket.at = 0.0  # the clock's own time would round otherwise at every run
    now, sent = bucket.at, []
    for gap in gaps:
        now += gap
        now += bucket.wait(1.0, now)
        assert bucket.wait(1.0, now) == pytest.approx(0, abs=1e-6)
        bucket.take(1.0)
        sent.append(now)
    for start in sent:
        assert sum(start <= time < start + 59.999 for time in sent) <= per_minute + 1e-6


def test_a_request_larger_than_a_second_s_worth_leaves_a_debt() -> None:
    bucket = Bucket(6000)  # 100 at once, 99.0 per second
    assert bucket.wait(500, bucket.at) == 0
    bucket.take(500)
    assert bucket.wait(1, bucket.at) == pytest.approx(401 / bucket.rate)
    bucket.take(-500)  # it was smaller than estimated
    assert bucket.wait(100, bucket.at) == pytest.approx(0)


async def rest(seconds: float) -> bool:
    await asyncio.sleep(seconds)
    return False


def test_a_pause_holds_for_all() -> None:
    async def run() -> float:
        limiter = Limiter(4)
        await limiter.admit(1, rest)
        limiter.pause(0.2)
        start = time.monotonic()
        await asyncio.gather(*(limiter.admit(1, rest) for _ in range(3)))
        return time.monotonic() - start

    assert 0.19 < asyncio.run(run()) < 1.0


def test_the_wait_doubles_and_is_never_the_same() -> None:
    for attempt, longest in ((0, 0.5), (3, 4.0), (20, 60.0)):
        waits = {backoff(attempt) for _ in range(20)}
        assert longest / 2 <= min(waits) < max(waits) <= longest


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "2"}, 2.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "Retry-After": "9"}, 0.25),
        ({"Retry-After": "-3"}, 0.0),
        ({"Retry-After": "1000000"}, 3600.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "nan"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_retry_after_may_be_a_date() -> None:
    wait = retry_after({"Retry-After": formatdate(time.time() + 30, usegmt=True)})
    assert wait == pytest.approx(30, abs=2)
