"""What a writer of queries has to be: a component, and the session that writes.

A writer is chosen by configuration (`conf/queries/`). `prepare` gets what it may need, and returns
a session that is handed documents and returns drafts; filters decide which become queries.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from zelo.config import Component
from zelo.data.texts import Corpus
from zelo.judging.api import ApiJudge
from zelo.judging.ensemble import Ensemble
from zelo.judging.estimate import JudgeEstimate, JudgeWorkload, LocalReading, TextLengths
from zelo.judging.spending import Budget
from zelo.retrieval.bm25 import BM25, Index, Words, build_index
from zelo.retrieval.languages import SAMPLE, language_of


class SourceDocument(NamedTuple):
    """A document from which queries are written."""

    position: int  # in the collection
    doc_id: str
    title: str
    text: str

    @property
    def whole(self) -> str:
        """Title and text, a line below."""
        return "\n".join(part for part in (self.title, self.text) if part)


class Draft(NamedTuple):
    """A query that was written, not filtered yet."""

    text: str
    kind: str  # what sort of query it is, in the writer's own words: title, keywords, question


@dataclass(frozen=True)
class WritingContext:
    """What a writer may need besides the documents."""

    data: Path  # folder of the collection
    corpus: Corpus
    terms: CorpusTerms
    per_document: int  # drafts that are wanted of a document, at most
    examples: Sequence[str]  # queries of the collection's own, to imitate
    seed: int  # of `zelo.seeding.stream(seed, ..., doc_id)`: documents are independent
    ledger: Path | None = None  # of answers that were paid for; what a writer asks is kept there
    budget: Budget | None = None
    run: str = ""  # what is spent counts for it


class WriterSession(ABC):
    """A writer that is ready."""

    missing: int = 0  # documents about which there is no answer yet: the next run asks again
    failed: int = 0  # documents about which no usable answer came

    @abstractmethod
    def write(self, documents: Sequence[SourceDocument]) -> list[list[Draft]]:
        """The drafts of each document, in their order; none for one that says too little."""


class BaseWriter(Component):
    """Anything that writes queries from documents (`conf/queries/`)."""

    @property
    def asks(self) -> ApiJudge | None:
        """Whom it asks at an endpoint, if anyone."""
        return None

    def in_run_with(self, judges: Ensemble) -> Self:
        """Itself, with what it takes over from the judges of a run."""
        return self

    def drafts_of_each(self, wanted: int) -> int:
        """How many drafts of one document it writes, as far as it can be told, where so many are
        wanted."""
        return wanted

    def estimate(self, name: str, workload: JudgeWorkload) -> JudgeEstimate | None:
        """What it would be asked and cost under the name `name`; None where it costs nothing."""
        return None

    def local_reading(self, lengths: TextLengths) -> LocalReading | None:
        """What a model on this machine reads and writes for one draft; None where none does."""
        return None

    @abstractmethod
    def prepare(self, context: WritingContext) -> WriterSession:
        """Get ready to write; raise `UserError` where something is missing."""


@dataclass(frozen=True)
class CorpusTerms:
    """Which words a collection has, stemmed and without stop words, and in how many documents."""

    corpus: Corpus
    language: str  # Snowball's name; `none` where it has no stemmer for it
    words: Words

    @classmethod
    def of(cls, corpus: Corpus) -> CorpusTerms:
        """By the language of the documents; names in code are their words too."""
        language = language_of(corpus.sample(SAMPLE))
        return cls(corpus, language, BM25(language=language, split_names=True).words_of(corpus))

    @cached_property
    def index(self) -> Index:
        """Which documents have a word."""
        return build_index(self.corpus, self.words, k1=0.9, b=0.4)

    def documents_with(self, term: str) -> int:
        """How many documents have a term."""
        v = self.index.vocabulary.get(term)
        return 0 if v is None else int(self.index.start_V[v + 1] - self.index.start_V[v])

    def matching(self, terms: Sequence[str]) -> int:
        """How many documents have all of these terms; 0 of none."""
        found: NDArray[np.int32] | None = None
        for term in sorted(set(terms), key=self.documents_with):
            v = self.index.vocabulary.get(term)
            if v is None:
                return 0
            here = self.index.document[self.index.start_V[v] : self.index.start_V[v + 1]]
            found = here if found is None else np.intersect1d(found, here, assume_unique=True)
        return 0 if found is None else len(found)
