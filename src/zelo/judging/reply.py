"""Reading what an LLM judge wrote: strictly what it says, tolerantly how it says it."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

NUMBER = r"[+\-\u2212\u2013]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+\-]?\d+)?"
# A line of its own, since reasons may quote what a document claims about its score.
LABELLED = re.compile(
    rf"^(?:[^\S\n]|[\"'*_`#>-])*(?:(?:the|my|final)[^\S\n]+){{0,3}}score\b[\"'*_`]*\s*(?:[:=]|\bis\b)"
    rf"[\s\"'*_`]*({NUMBER}|-?nan|-?inf(?:inity)?)[\"'*_`.]*[^\S\n]*$",
    re.IGNORECASE | re.MULTILINE,
)
BARE = re.compile(rf"\s*({NUMBER})\s*[.]?\s*")
START = re.compile(r"\{")
LONGEST = 50_000  # characters that are read of a reply


@dataclass(frozen=True, slots=True)
class Reply:
    """A score in [−1, 1] with the reasons given for it; or what is wrong with it.

    `problem` is one of `empty`, `unparsable`, `not_a_number`, `out_of_range`; "" where all is well.
    """

    score: float | None
    reasons: str
    problem: str = ""


def read_reply(text: str | None, whole: bool = True) -> Reply:
    """Read a reply: a JSON object, fenced or with words around it, a line `score: -1`, or a number.

    Scores that differ from one another are no answer. Neither is what began as an object and did
    not become one, nor words that are not `whole` (cut off): the score that they speak of may be a
    document's claim.
    """
    text = (text or "").strip()[:LONGEST]
    if not text:
        return Reply(None, "", "empty")
    found = [
        item
        for outer in objects(text)
        for item in (outer, *outer.values())
        if isinstance(item, dict) and "score" in item
    ]
    if found:
        reasons = found[-1].get("reasons", found[-1].get("reason", ""))
        values = [number(item["score"]) for item in found]
        return judged(values, reasons if isinstance(reasons, str) else json.dumps(reasons), text)
    if not whole or "{" in text:
        return Reply(None, text, "unparsable")
    labelled = LABELLED.findall(text)
    if labelled:
        return judged([number(value) for value in labelled], text, text)
    bare = BARE.fullmatch(text)
    if bare:
        return judged([number(bare[1])], "", text)
    return Reply(None, text, "unparsable")


def judged(values: list[float | None], reasons: str, text: str) -> Reply:
    """The one score that `values` agree on."""
    if any(value is None for value in values):
        return Reply(None, text, "unparsable")
    score = values[-1]
    assert score is not None
    if any(math.isnan(value) for value in values if value is not None):
        return Reply(None, text, "not_a_number")
    if len(set(values)) > 1:
        return Reply(None, text, "unparsable")
    if not -1 <= score <= 1:
        return Reply(None, text, "out_of_range")
    return Reply(score + 0.0, reasons)


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


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; one that gives several scores gives none."""
    found = dict(pairs)
    if len({number(value) for name, value in pairs if name == "score"}) > 1:
        found["score"] = None
    return found


DECODER = json.JSONDecoder(object_pairs_hook=once)


def objects(text: str) -> list[dict[str, Any]]:
    """The outermost JSON objects in a text, in order."""
    found = []
    end = 0
    for match in START.finditer(text):
        if match.start() < end:
            continue
        try:
            item, end = DECODER.raw_decode(text, match.start())
        except ValueError:
            continue
        except RecursionError:
            break  # no answer is nested a thousand deep
        if isinstance(item, dict):
            found.append(item)
    return found
