"""Reading what an LLM judge wrote: strictly what it says, tolerantly how it says it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zelo.judging.objects import DECODER, Span, number, objects
from zelo.judging.thoughts import answer_and_thoughts

NUMBER = r"[+\-\u2212\u2013]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+\-]?\d+)?|-?nan|-?inf(?:inity)?"
MARKS = "\"'*_`$"  # quotation marks, emphasis, a formula's dollars
DOCUMENT = rf"(?:(?:the[ ]+)?(?:document|doc|passage|option)[ _-]*)?[(\[{MARKS}]*(?P<choice>[AB])"
# What stands for an answer: a number (of 1, which changes nothing), or A or B.
VALUE = (
    rf"[\s{MARKS}(\[]*(?:(?P<number>{NUMBER})(?:[ ]*/[ ]*1(?:\.0*)?)?(?![\d/])|{DOCUMENT})"
    rf"[)\]{MARKS}]*"
)
REASON = (
    rf"[{MARKS}.,;:!]*[^\S\n]*(?:(?:,|;|:|-|–|—)?[ ]*(?:because|since)\b[^\n]*|\([^()\n]*\)[.]?)?"
)
# A line of its own, since reasons may quote what a document claims about its score.
LABELLED = re.compile(
    rf"^(?:[^\S\n]|[\"'*_`#>-])*(?:(?:the|my|final)[^\S\n]+){{0,3}}"
    rf"(?:score|answer|verdict|preference|winner|choice|"
    rf"(?:better|best|preferred|more[ ]relevant)(?:[ ]document)?)\b[\"'*_`]*\s*"
    rf"(?:[:=]|\bis\b){VALUE}{REASON}[^\S\n]*$",
    re.IGNORECASE | re.MULTILINE,
)
ALONE = re.compile(rf"{VALUE}{REASON}\s*", re.IGNORECASE)
BOXED = re.compile(r"\\boxed[ ]*\{[ ]*(?:\\text[ ]*\{)?([^{}\n]{1,20})\}{1,2}")
TIE = re.compile(r"[\"'*_`]*(?:tie|tied|equal|draw)[\"'*_`.]*", re.IGNORECASE)
CHOICE = re.compile(rf"[\s{MARKS}(\[]*{DOCUMENT}[)\]{MARKS}.]*", re.IGNORECASE)
# Fields of an object that name a document
CHOSEN_BY = frozenset(
    {
        "answer",
        "preferred",
        "preference",
        "winner",
        "choice",
        "verdict",
        "better",
        "more_relevant",
        "preferred_document",
        "better_document",
        "final_answer",
    }
)
FENCE = re.compile(r"\s*(?:```(?:json)?\s*)?", re.IGNORECASE)  # what may stand before an object
LONGEST = 50_000  # characters that are read of an answer, and kept of thoughts
MOST = 1_000_000  # characters that are read of both together


def form(name: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    """What a reply has to look like, by `provider.structured`: an object with these properties and
    no others."""
    schema = {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    }
    return {
        "json_schema": {
            "type": "json_schema",
            "json_schema": {"name": name, "strict": True, "schema": schema},
        },
        "json_object": {"type": "json_object"},
    }


@dataclass(frozen=True, slots=True)
class Reply:
    """A score in [−1, 1] with the reasons given for it; or what is wrong with it.

    `problem` is one of `empty`, `unparsable`, `not_a_number`, `out_of_range`, `cut_off`; "" where
    all is well.
    """

    score: float | None
    reasons: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """One place that says what the answer is."""

    value: float | None  # None: it is no number
    chosen: bool = False  # A or B was named, and no strength


def read_reply(text: str | None, whole: bool = True) -> Reply:
    r"""Read a reply: a JSON object, fenced or with words around it, a labelled line (`score: -1`,
    `**Answer:** B`), or a first or last line that is an answer and nothing else (`-1`, `**A**`,
    `\boxed{B}`).

    What a model thought aloud before its answer is taken off and kept as reasons. Where two places
    say different things there is no answer, but lines before an object count for nothing: they may
    quote a document. Neither is there an answer in what began as an object and did not become one;
    nor, of words that are not `whole` (cut off), in anything but an object that begins them. A
    document that is named without a strength has −1 (A) or +1 (B).
    """
    if whole and text and (reply := as_asked_for(text)):
        return reply
    return read_tolerantly(text, whole)


def as_asked_for(text: str) -> Reply | None:
    """The reply where it is what the prompt asks for and nothing else, as most are; or None.

    What reads it tolerantly finds the same, at several times the cost.
    """
    text = text.strip()
    if not text.startswith("{") or len(text) > LONGEST:
        return None
    try:
        item = DECODER.decode(text)
    except (ValueError, RecursionError):
        return None
    if item.keys() != {"reasons", "score"}:
        return None
    score, reasons = item["score"], item["reasons"]
    if type(score) not in (int, float) or not -1 <= score <= 1 or type(reasons) is not str:
        return None
    return Reply(score + 0.0, reasons)


def read_tolerantly(text: str | None, whole: bool) -> Reply:
    """Read a reply in any of the forms of `read_reply`."""
    if not (text or "").strip():
        return Reply(None, "", "empty")
    answer, thoughts, ended = answer_and_thoughts((text or "")[-MOST:])
    if not ended:
        return Reply(None, thoughts, "cut_off")
    answer = answer.strip()[:LONGEST]
    if not answer:
        return Reply(None, thoughts, "cut_off" if not whole else "empty")
    found = read_answer(answer, whole)
    reasons = f"{thoughts[-LONGEST:]}\n\n{found.reasons}".strip() if thoughts else found.reasons
    return Reply(found.score, reasons, found.problem)


def read_answer(text: str, whole: bool) -> Reply:
    """Read a reply without thoughts."""
    spans, items = scored(text)
    if not whole:
        if not spans or not FENCE.fullmatch(text[: spans[0][0]]):
            return Reply(None, text, "unparsable")
        return judged(claims_of(items[0]), reasons_of(items[0]), text)
    if items:
        after = text[spans[-1][1] :]
        claims = [claim for item in items for claim in claims_of(item)]
        claims += lines(after) if after else []
        return judged(claims, reasons_of(items[-1]), text)
    claims = [] if "{" in unboxed(text) else lines(text)
    if not claims:
        return Reply(None, text, "unparsable")
    return judged(claims, text if " " in text else "", text)


def scored(text: str) -> tuple[list[Span], list[dict[str, Any]]]:
    """The outermost JSON objects that hold an answer: where they stand, and what holds it, which
    may be an object within."""
    found = [
        (span, item)
        for span, outer in objects(text)
        for item in (outer, *outer.values())
        if isinstance(item, dict) and ("score" in item or choice_of(item) is not None)
    ]
    return [span for span, _ in found], [item for _, item in found]


def choice_of(item: dict[str, Any]) -> float | None:
    """−1 or +1 where fields of an object name a document, 0 where they name a tie; None where none
    does, or two do not agree."""
    keys = CHOSEN_BY & item.keys()
    named = {named_by(item[key]) for key in keys if isinstance(item[key], str)} - {None}
    return named.pop() if len(named) == 1 else None


def named_by(text: str) -> float | None:
    """What a text names and nothing else: −1 document A, +1 document B, 0 a tie."""
    text = text.strip()
    if TIE.fullmatch(text):
        return 0.0
    found = CHOICE.fullmatch(text)
    return None if found is None else side(found["choice"])


def side(letter: str) -> float:
    """The end of the scale at which a document stands."""
    return -1.0 if letter.upper() == "A" else 1.0


def claims_of(item: dict[str, Any]) -> list[Claim]:
    """What an object says. A confidence between 0 and 1 is the strength of a choice."""
    choice = choice_of(item)
    if "score" in item:
        chosen = [] if choice is None else [Claim(choice, chosen=True)]
        return [Claim(number(item["score"])), *chosen]
    confidence = number(item.get("confidence"))
    if choice is None or confidence is None or not 0 <= confidence <= 1:
        return [Claim(choice, chosen=True)]
    return [Claim(choice * confidence)]


def reasons_of(item: dict[str, Any]) -> str:
    """The reasons that an object gives, as text."""
    reasons = item.get("reasons", item.get("reason", ""))
    return reasons if isinstance(reasons, str) else json.dumps(reasons)


def lines(text: str) -> list[Claim]:
    """What lines of plain words say: labelled ones, and the first and the last where they are an
    answer and nothing else, or box one."""
    rows = text.strip().split("\n")
    alone = [unboxed(rows[0]), *(BOXED.findall(rows[-1]) or rows[-1:])]
    found = [ALONE.fullmatch(part) for part in alone]
    return [claim_on(match) for match in (*LABELLED.finditer(unboxed(text)), *found) if match]


def unboxed(text: str) -> str:
    """A text with what a formula frames in the frame's place."""
    return BOXED.sub(lambda boxed: boxed[1], text)


def claim_on(found: re.Match[str]) -> Claim:
    """What a matched line says."""
    if found["choice"]:
        return Claim(side(found["choice"]), chosen=True)
    return Claim(number(found["number"]))


def judged(claims: list[Claim], reasons: str, text: str) -> Reply:
    """The one score that all claims agree on; a choice agrees with a score on its side."""
    if any(claim.value is None for claim in claims):
        return Reply(None, text, "unparsable")
    values = [claim.value for claim in claims if claim.value is not None]
    if any(math.isnan(value) for value in values):
        return Reply(None, text, "not_a_number")
    strengths = {claim.value for claim in claims if not claim.chosen}
    choices = {claim.value for claim in claims if claim.chosen}
    if len(strengths) > 1 or len(choices) > 1:
        return Reply(None, text, "unparsable")
    score = values[-1] if not strengths else next(v for v in strengths if v is not None)
    if any(choice is not None and choice * score < 0 for choice in choices):
        return Reply(None, text, "unparsable")
    if not -1 <= score <= 1:
        return Reply(None, text, "out_of_range")
    return Reply(score + 0.0, reasons)
