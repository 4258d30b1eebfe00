"""What a model thought aloud, told apart from its answer.

Served models write their thoughts before the answer: between tags (`<think>` and its kin, of which
the first may stand in the prompt, so that only the end tag is seen), or in a channel of its own
(`<|channel|>analysis`). A score that is named in a thought is no answer.
"""

from __future__ import annotations

import re

from zelo.judging.objects import objects

NAMES = "think|thinking|thought|thoughts|reasoning|seed:think"
BEGIN = re.compile(rf"\s*(?:<(?:{NAMES})>|\[THINK\]|◁think▷|<\|begin_of_thought\|>)", re.IGNORECASE)
END = re.compile(rf"</(?:{NAMES})>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>", re.IGNORECASE)
# Channels as they are written, and as they look where a server has dropped the control tokens.
ANALYSIS = re.compile(
    r"\s*(?:<\|start\|>\s*assistant)?\s*<\|channel\|>\s*analysis(?:<\|message\|>)?|\s*analysis(?=\S)"
)
FINAL = re.compile(r"<\|channel\|>\s*final\b[^<]{0,100}<\|message\|>|assistantfinal")
LEFT_OVER = re.compile(
    r"<\|start\|>(?:assistant)?|<\|(?:end|return|message|channel)\|>|</?answer>", re.IGNORECASE
)
OBJECT = re.compile(r"\s*(?:```(?:json)?\s*)?\{", re.IGNORECASE)
NEAR = 50_000  # characters from either end in which objects are looked for
ANSWER = re.compile(r"\s*<answer>(.*)</answer>\s*", re.IGNORECASE | re.DOTALL)


def answer_and_thoughts(text: str) -> tuple[str, str, bool]:
    """The answer, the thoughts before it, and whether these came to an end.

    A tag within a JSON object that begins or ends the text is part of its words.
    """
    marks = [*END.finditer(text)]
    if ANALYSIS.match(text):
        marks = [*FINAL.finditer(text)]
        if not marks and "<|channel|>" in text:
            return "", plain(text), False
    if marks:
        begins = OBJECT.match(text) is not None
        late = max(len(text) - NEAR, 0 if begins else marks[0].end())
        spans = [(late + start, late + end) for (start, end), _ in objects(text[late:])]
        spans += [span for span, _ in objects(text[:NEAR])] if begins else []
        marks = [m for m in marks if not any(start <= m.start() < end for start, end in spans)]
    answer = text[marks[-1].end() :] if marks else text
    if BEGIN.match(answer):
        return "", plain(text), False
    if not marks:
        return text, "", True
    inner = ANSWER.fullmatch(answer)
    return inner[1] if inner else LEFT_OVER.sub("", answer), plain(text[: marks[-1].start()]), True


def plain(text: str) -> str:
    """Thoughts without the marks around them."""
    for mark in (ANALYSIS, BEGIN):
        text = mark.sub("", text, count=1) if mark.match(text) else text
    return LEFT_OVER.sub("", END.sub("", text)).strip()
