"""Queries written by a language model behind an endpoint, paid for as judges are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import field_validator

from zelo.config import option
from zelo.errors import UserError
from zelo.judging import prompt
from zelo.judging.api import ApiJudge, ApiSession
from zelo.judging.ensemble import Ensemble
from zelo.judging.estimate import JudgeEstimate, JudgeWorkload
from zelo.judging.objects import objects
from zelo.judging.question import Answer, Question
from zelo.judging.reply import Reply, form
from zelo.judging.thoughts import answer_and_thoughts
from zelo.judging.wire import RequestOutcome
from zelo.queries.base import BaseWriter, Draft, SourceDocument, WriterSession, WritingContext
from zelo.queries.paid_answers import first_asked, paid_answers
from zelo.seeding import stream

PROMPT = "write"
KINDS = ("question", "keywords", "claim", "instruction")
EXAMPLES = 8  # of the collection's own queries that one request shows
EXAMPLE_TOKENS = 40  # of one of them
NAME = "queries"  # what messages call the one who writes
QUERY = {
    "type": "object",
    "properties": {"kind": {"type": "string", "enum": list(KINDS)}, "text": {"type": "string"}},
    "required": ["kind", "text"],
    "additionalProperties": False,
}


def check_kinds(kinds: Sequence[str]) -> None:
    """Raises UserError for a kind of query that there is not, for one twice, or for none."""
    unknown = ", ".join(sorted(set(kinds) - set(KINDS)))
    if unknown or not kinds:
        raise UserError(f"queries.writer.kinds: {unknown or 'none'}: there are {', '.join(KINDS)}")
    if len({*kinds}) < len(kinds):
        raise UserError(f"queries.writer.kinds: {', '.join(kinds)}: name each once")


class LanguageModelWriter(BaseWriter):
    """`queries=llm`: asks a judge's model for queries of several kinds, by `prompts/write.md`.

    What it wrote lies in the ledger as a judge's answers do, and is paid for once; budget, limits
    and faults are those of judges.
    """

    model: ApiJudge | None = option(
        None,
        "who writes, a judge's model (judge@queries.writer.model=openai); null: the first judge of "
        "the run that is asked at an endpoint",
    )
    kinds: tuple[str, ...] = option(KINDS, "kinds of queries, drawn anew for each document")

    @field_validator("model", mode="before")
    @classmethod
    def _one_of(cls, model: Any) -> Any:
        """Of judges, as a file of `conf/judge` has them, the first that can write."""
        if not isinstance(model, Ensemble):
            return model
        if (first := first_asked(model)) is None:
            raise ValueError(f"none of {', '.join(model.judges)} is asked at an endpoint")
        return first

    @property
    def asks(self) -> ApiJudge | None:
        """The model that writes."""
        return self.model

    def in_run_with(self, judges: Ensemble) -> LanguageModelWriter:
        """With the first judge that is asked at an endpoint, where no model is named."""
        if self.model is not None or (model := first_asked(judges)) is None:
            return self
        return self.model_copy(update={"model": model})

    def drafts_of_each(self, wanted: int) -> int:
        """One of each kind."""
        return min(wanted, len(self.kinds))

    def estimate(self, name: str, workload: JudgeWorkload) -> JudgeEstimate | None:
        """As its model is paid; each document is shown once."""
        if self.model is None:
            return None
        return self.model.estimate(name, workload, asked_by=PROMPT, documents=1)

    def prepare(self, context: WritingContext) -> LanguageModelWriterSession:
        """Nothing is asked yet."""
        if self.model is None:
            raise UserError(
                "queries.writer.model: no judge of this run is asked at an endpoint: choose one "
                "(judge@queries.writer.model=openai, or judge=openai, which judges too), or "
                "queries=extractive, which needs none"
            )
        check_kinds(self.kinds)
        return LanguageModelWriterSession(self.model, self.kinds, context)


@dataclass
class WritingSession(ApiSession):
    """An endpoint that is asked for queries; the answer's `reasons` are a JSON list of them."""

    formats: ClassVar[Mapping[str, Any]] = form(
        NAME, {"queries": {"type": "array", "items": QUERY}}
    )

    def prompt_for(self, question: Question) -> str:
        """The prompt for writing."""
        return PROMPT

    def read(self, outcome: RequestOutcome, question: Question) -> Reply:
        """The queries in a reply, as JSON; a score of 0 says that there is an answer."""
        text, whole = outcome.text, outcome.kind == "reply"
        answer, _, ended = answer_and_thoughts(text)
        if not answer.strip():
            return Reply(None, text, "empty" if ended and whole else "cut_off")
        drafts = drafts_in(answer) if whole else None
        if drafts is None:
            return Reply(None, text, "unparsable" if whole else "cut_off")
        return Reply(0.0, json.dumps([draft._asdict() for draft in drafts], ensure_ascii=False))

    def kept(self, reply: Reply, thoughts: str) -> str:
        """The queries alone."""
        return reply.reasons


class LanguageModelWriterSession(WriterSession):
    """A model and what it is asked for."""

    def __init__(self, model: ApiJudge, kinds: Sequence[str], context: WritingContext) -> None:
        self.kinds, self.context = kinds, context
        self.session = WritingSession(model.session_fingerprint(PROMPT), model)

    def write(self, documents: Sequence[SourceDocument]) -> list[list[Draft]]:
        """Ask about every document; `UserError` as `paid_answers` raises it."""
        questions = [self.question(document) for document in documents]
        answers = paid_answers(NAME, self.session, questions, self.context)
        self.missing += answers.count(None)
        self.failed += sum(answer is not None and answer.score is None for answer in answers)
        return [written(answer) for answer in answers]

    def question(self, document: SourceDocument) -> Question:
        """The request for one document, as the ledger knows it."""
        random = stream(self.context.seed, "write", document.doc_id)
        chosen = random.permutation(len(self.kinds))[: self.context.per_document]
        kinds = [self.kinds[i] for i in chosen]
        wanted = f"Write one query of each of these kinds: {', '.join(kinds)}."
        examples = self.context.examples
        if examples:
            chosen = random.permutation(len(examples))[:EXAMPLES]
            shown = (" ".join(prompt.shown(examples[i], EXAMPLE_TOKENS)[0].split()) for i in chosen)
            wanted += (
                "\n\nPeople who search here have asked the following. Yours should read as if the "
                "same people had typed them: their language, length, tone and spelling.\n"
            ) + "\n".join(f"- {text}" for text in shown)
        return Question("", document.doc_id, "", 0, wanted, document.whole, "")


def drafts_in(text: str) -> list[Draft] | None:
    """The queries in the last JSON object of a text that has a list of them; None without one."""
    lists = [
        found["queries"] for _, found in objects(text) if isinstance(found.get("queries"), list)
    ]
    if not lists:
        return None
    drafts = []
    for item in lists[-1]:
        entry = {"text": item} if isinstance(item, str) else item
        if not isinstance(entry, dict) or not isinstance(entry.get("text"), str):
            return None
        kind = entry.get("kind")
        query = " ".join(prompt.clean(entry["text"]).split())
        if query:
            drafts.append(Draft(query, kind if kind in KINDS else "query"))
    return drafts


def written(answer: Answer | None) -> list[Draft]:
    """The drafts that an answer holds."""
    if answer is None or answer.score is None:
        return []
    return [Draft(**entry) for entry in json.loads(answer.reasons)]
