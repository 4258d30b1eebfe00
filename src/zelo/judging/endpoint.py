"""What whoever asks an HTTP endpoint needs: its secrets, waits between attempts, redaction."""

from __future__ import annotations

import os
import random
import re
import time
from email.utils import parsedate_to_datetime

from zelo.errors import UserError

FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0  # seconds of the exponential backoff
LOOKS_LIKE_A_KEY = re.compile(r"\b(?:(?:sk|pk|key|gsk)[-_]|AIza)[-\w*]{8,}|(?<=://)[^/\s@]+(?=@)")


def secret(variable: str, whose: str, advice: str = "") -> str:
    """The value of an environment variable, which is never kept in anything written.

    Raises `UserError` where it is not set.
    """
    value = os.environ.get(variable, "").strip()
    if not value:
        raise UserError(f"{whose}: the environment variable {variable} is not set{advice}")
    return value


def redact(text: str, key: str) -> str:
    """A text of the endpoint's without the key, should it say it back, and without passwords."""
    return LOOKS_LIKE_A_KEY.sub("***", text.replace(key, "***") if key else text)


def backoff(attempt: int, first: float = FIRST_WAIT) -> float:
    """Seconds before the next attempt, doubling from `first`, with jitter."""
    return float(min(LONGEST_WAIT, first * 2.0 ** min(attempt, 50)) * random.uniform(0.5, 1.0))


def wait_before_retry(
    attempt: int, asked_for: float | None = None, first: float = FIRST_WAIT
) -> float:
    """Seconds to wait: what the endpoint asks for, and no less than the backoff."""
    return max(asked_for or 0.0, backoff(attempt, first))


def retry_after(headers: object) -> float | None:
    """Seconds that a response's `Retry-After` (or `retry-after-ms`) asks to wait, at most an hour.

    A number of seconds or an HTTP date; None where there is none or it cannot be read.
    """
    get = getattr(headers, "get", lambda name: None)
    for name, unit in (("retry-after-ms", 0.001), ("Retry-After", 1.0)):
        value = get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            try:
                seconds = parsedate_to_datetime(value).timestamp() - time.time()
            except (TypeError, ValueError, OverflowError):
                continue
        if seconds == seconds:
            return min(max(seconds, 0.0), 3600.0)
    return None
