"""How a language model is asked about a block of documents, and what its reply says.

It reads each document once for a whole order, where comparisons of two read it once for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zelo.judging import prompt
from zelo.judging.list_reply import read_best, read_order
from zelo.judging.lists import shown_texts
from zelo.judging.question import Question
from zelo.judging.reply import Reply
from zelo.judging.wire import RequestOutcome

READERS = {"order": read_order, "best": read_best}  # by the prompt


def form(name: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    """What a reply has to look like: an object with these properties and no others."""
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


LABEL = {"type": "string"}
LABELS = {"type": "array", "items": LABEL}
ORDER = form(
    "order", {"order": {"type": "array", "items": LABELS}, "relevant": {"type": "integer"}}
)
BEST = form("best", {"best": LABEL})


def messages_about(question: Question, limit: int, asked_by: str) -> prompt.Messages:
    """The conversation about a block by a prompt, its documents under random labels."""
    texts = shown_texts(question)
    labels = prompt.labels_of(question.query, texts)
    told = question.instruction
    return prompt.list_messages(question.query, texts, labels, told, limit, asked_by)


def read_list(outcome: RequestOutcome, question: Question, asked_by: str) -> Reply:
    """The order in a reply, as JSON; a score of 0 says that there is one."""
    labels = prompt.labels_of(question.query, shown_texts(question))
    found = READERS[asked_by](outcome.text, labels, outcome.kind == "reply")
    if found.problem:
        return Reply(None, outcome.text, found.problem)
    return Reply(0.0, found.as_json())
