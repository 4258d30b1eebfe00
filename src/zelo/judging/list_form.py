"""How a language model is asked about a block of documents, and what its reply says.

The model reads each document once for a whole order, where comparisons of two have it read once
for each.
"""

from __future__ import annotations

from zelo.judging import prompt
from zelo.judging.list_reply import read_best, read_order
from zelo.judging.lists import shown_texts
from zelo.judging.question import Question
from zelo.judging.reply import Reply, form
from zelo.judging.wire import RequestOutcome

READERS = {"order": read_order, "best": read_best}  # by the prompt


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
