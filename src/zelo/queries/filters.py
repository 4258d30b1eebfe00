"""Which drafts become queries: filters, each of which can be switched off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from zelo.config import Component, option
from zelo.data.texts import Corpus
from zelo.queries.base import CorpusTerms, SourceDocument
from zelo.queries.prose import CHARACTERS, UNSPACED, WORD, spaced
from zelo.retrieval.retrieve import Retriever

KEPT = "kept"
COPY, DUPLICATE, GENERIC, NOT_FOUND = "copy", "duplicate", "generic", "not found"
UNREALISTIC = "unrealistic"  # or nothing that can be used was said of it
UNANSWERED = "not answered yet"  # how realistic it is: the next run asks again
SURPLUS = "surplus"  # as many as were wanted had been kept before


class Filters(Component):
    """What a draft must not be, or must do, to become a query; null switches a filter off."""

    longest_copy: int | None = option(
        20, "words that a query may have in a row as its document has them", ge=1
    )
    share_of_document: float | None = option(
        0.5, "share of its document's words that a query may have", gt=0, le=1
    )
    near_duplicates: float | None = option(
        0.8, "words that two queries share, of all that they have, from which on one goes", gt=0
    )
    most_matches: int | None = option(
        50, "documents that have all of a query's words: of more the query is too general", ge=1
    )
    round_trip: int | None = option(
        20, "its own document must be among so many that the first stage finds", ge=1
    )
    realistic: float | None = option(
        None,
        "how likely a language model must find it that a person asks this, from -1 to 1; it is the "
        "one that writes, or the first judge of the run that is asked at an endpoint",
        ge=-1,
        le=1,
        added=True,
    )

    def is_copy(self, text: str, document: SourceDocument) -> bool:
        """Whether a query is mostly its document, or a long piece of its text, word by word."""
        if self.share_of_document is not None:
            distinct = distinct_words(document.text) | distinct_words(document.title)
            if len(distinct_words(text) & distinct) > self.share_of_document * len(distinct):
                return True
        if self.longest_copy is None:
            return False
        query, source = words_of(text), words_of(document.text)
        # In scripts without spaces two characters count as a word.
        return longest_run(query, source) > self.longest_copy * (1 if spaced(text) else 2)

    def is_generic(self, text: str, terms: CorpusTerms) -> bool:
        """Whether many documents have all of a query's words, or it has no word that counts."""
        if self.most_matches is None:
            return False
        words = terms.words(text)
        return not words or terms.matching(words) > self.most_matches

    def found_again(
        self, drafts: Mapping[str, tuple[str, int]], retriever: Retriever, corpus: Corpus
    ) -> set[str]:
        """Which drafts (id → text, index of its document) find their own document."""
        if self.round_trip is None or not drafts:
            return set(drafts)
        n = min(self.round_trip, len(corpus))
        texts = {key: text for key, (text, _) in drafts.items()}
        *_, hits = retriever.search(texts, corpus, n).values()
        own = np.array([index for _, index in drafts.values()])
        found = (hits.doc_QK[:, :n] == own[:, None]).any(1)
        return {key for key, there in zip(drafts, found.tolist(), strict=True) if there}


class NearDuplicates:
    """The queries that there are, to which new ones are compared by the words that they share."""

    def __init__(self, terms: CorpusTerms, threshold: float | None, texts: Sequence[str]) -> None:
        self.terms, self.threshold = terms, threshold
        self.sizes: list[int] = []  # distinct words of each query
        self.having: dict[str, list[int]] = {}  # word → the queries that have it
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        """Count a query in."""
        words = set(self.terms.words(text))
        for word in words:
            self.having.setdefault(word, []).append(len(self.sizes))
        self.sizes.append(len(words))

    def has(self, text: str) -> bool:
        """Whether a query shares so many of its words with one that was counted in (Jaccard)."""
        words = set(self.terms.words(text))
        if self.threshold is None or not words:
            return False
        ids = [i for word in words for i in self.having.get(word, ())]
        query, shared = np.unique(np.array(ids, dtype=np.int64), return_counts=True)
        sizes = np.array(self.sizes, dtype=np.int64)[query]
        similar: NDArray[np.float64] = shared / (len(words) + sizes - shared)
        return bool((similar >= self.threshold).any())


def words_of(text: str) -> list[str]:
    """Words of a text in lower case, in their order; characters of scripts without spaces."""
    return [part for word in WORD.findall(text.lower()) for part in CHARACTERS.findall(word)]


def distinct_words(text: str) -> set[str]:
    """Words of a text in lower case; in scripts without spaces, of which some have few letters,
    runs of three characters."""
    found: set[str] = set()
    for word in WORD.findall(text.lower()):
        if UNSPACED.search(word):
            found |= {word[i : i + 3] for i in range(max(len(word) - 2, 1))}
        else:
            found.add(word)
    return found


def longest_run(query: Sequence[str], source: Sequence[str]) -> int:
    """The most words of a query that stand one after the other in a source too."""
    best = 0
    ends = {-1: 0}  # index in the source → words up to there that agree
    where: dict[str, list[int]] = {}
    for index, word in enumerate(source):
        where.setdefault(word, []).append(index)
    for word in query:
        ends = {index: ends.get(index - 1, 0) + 1 for index in where.get(word, ())}
        best = max([best, *ends.values()])
    return best
