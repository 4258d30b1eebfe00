"""JSON objects in a text, wherever they stand."""

from __future__ import annotations

import json
import math
import re
from typing import Any, TypeAlias

START = re.compile(r"\{")
PASSES, ENOUGH = 20, 1_000_000  # how often a text is read in vain, or so many characters of it

Span: TypeAlias = tuple[int, int]  # first character, and the one after the last


def number(value: Any) -> float | None:
    """A score as a number, also where it was written as text; None where it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    if isinstance(value, str):
        try:
            return float(value.strip().replace("\u2212", "-").replace("\u2013", "-"))
        except ValueError:
            return None
    return None


def with_one_score(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; where it has several scores that differ, its score is None."""
    found = dict(pairs)
    if len({number(value) for name, value in pairs if name == "score"}) > 1:
        found["score"] = None
    return found


DECODER = json.JSONDecoder(object_pairs_hook=with_one_score)


def objects(text: str) -> list[tuple[Span, dict[str, Any]]]:
    """The outermost JSON objects in a text, in order, and where they stand.

    What begins as an object and breaks off is given up once all such beginnings have been read for
    long: of a thousand that are nested, each would be read to the end.
    """
    found = []
    end = in_vain = 0
    for match in START.finditer(text):
        if match.start() < end:
            continue
        try:
            item, end = DECODER.raw_decode(text, match.start())
        except json.JSONDecodeError as error:
            in_vain += error.pos - match.start()
            if in_vain > max(ENOUGH, PASSES * len(text)):
                break
            continue
        except ValueError:  # a number of too many digits
            continue
        except RecursionError:
            break  # no answer is nested a thousand deep
        if isinstance(item, dict):
            found.append(((match.start(), end), item))
    return found
