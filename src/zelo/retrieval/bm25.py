"""BM25 over stemmed words, without a Python object for each token of the corpus.

The index is a sparse matrix of the scores that each word gives each document, 16 bytes per pair
while it is built and 8 afterwards; documents are read in parts. (bm25s, against which tests check
the scores, holds every token of the corpus as a Python object.)
"""

from __future__ import annotations

import math
import re
import unicodedata
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import regex
from numpy.typing import NDArray
from pydantic import field_validator

from zelo.config import Component, option
from zelo.data.texts import Corpus
from zelo.retrieval.languages import SAMPLE, language_of, stop_words
from zelo.retrieval.ranking import Hits, top_documents
from zelo.store import digest

# Marks that join a letter (vowel signs, accents that stand alone) belong to its word. A character
# of a script without spaces is a word by itself.
SPACELESS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
WORD = regex.compile(rf"[\w\p{{M}}\u200c\u200d]{{2,}}|[{SPACELESS}]")
ASCII_WORD = re.compile(r"\w\w+", re.ASCII)
# Where names in code are split: at underscores, and between a small letter and a capital.
JOINT = re.compile(r"_+|(?<=[a-z0-9])(?=[A-Z])")
# Scripts that put no space between words: every two neighbouring characters are a term.
UNSPACED = regex.compile(rf"[{SPACELESS}][{SPACELESS}\p{{M}}ー]*")

Words = Callable[[str], list[str]]


class BM25(Component):
    """`retriever=bm25`: words are stemmed and stop words left out, by the rules of the language."""

    k1: float = option(0.9, "how soon repeats of a word stop counting", ge=0)
    b: float = option(0.4, "how much long documents are discounted", ge=0, le=1)
    language: str = option(
        "auto", "Snowball's name of it; `auto`: as the documents are; `none`: words as they stand"
    )
    split_names: bool = option(
        False, "read `parse_args` and `parseArgs` as their words too, for collections of code"
    )

    @field_validator("language")
    @classmethod
    def _has_stemmer(cls, language: str) -> str:
        import Stemmer

        if language not in (known := ["auto", "none", *Stemmer.algorithms()]):
            raise ValueError(f"no such stemmer; there are {', '.join(known)}")
        return language

    def search(self, queries: Mapping[str, str], corpus: Corpus, k: int) -> dict[str, Hits]:
        """Best `k` documents of each query that share a word with it; may be fewer, or none."""
        from zelo.progress import track

        words = self.words_of(corpus)
        index = build_index(corpus, words, self.k1, self.b)
        k = min(k, len(corpus))
        hits = Hits.empty(len(queries), k)
        score_N = np.zeros(len(corpus), dtype=np.float32)
        for q, text in enumerate(track(list(queries.values()), "BM25")):
            index.add(words(text), score_N)
            best = top_documents(score_N, k)
            hits.doc_QK[q, : len(best)] = best
            hits.score_QK[q, : len(best)] = score_N[best]
            score_N[:] = 0
        return {"bm25": hits}

    def words_of(self, corpus: Corpus) -> Words:
        """What turns a text into index terms."""
        import Stemmer

        language = self.language
        if language == "auto":
            language = language_of(corpus.sample(SAMPLE))
        stem = Stemmer.Stemmer(language).stemWords if language != "none" else list
        stop = stop_words(language)
        lower_case = turkish if language == "turkish" else str.lower

        def words(text: str) -> list[str]:
            plain = text.isascii()
            if not plain:
                text = unicodedata.normalize("NFC", text)
                text = (
                    text if lower_case is turkish else text.replace("İ", "I")
                )  # in lower case it would be two characters
            found: list[str] = (ASCII_WORD if plain else WORD).findall(text)
            if self.split_names:
                parts = [part for word in found for part in JOINT.split(word) if len(part) > 1]
                found = parts + [word for word in found if JOINT.search(word)]
            found = [lowered for word in found if (lowered := lower_case(word)) not in stop]
            if not plain and UNSPACED.search(text):
                found = [term for word in found for term in pairs_of_characters(word)]
            terms: list[str] = stem(found)
            return terms

        return words


def turkish(word: str) -> str:
    """A word in lower case by the rules of Turkish: İ becomes i, and I becomes ı."""
    return word.replace("İ", "i").replace("I", "ı").lower()


def pairs_of_characters(word: str) -> Iterator[str]:
    """Pairs of neighbouring characters where a word is in an unspaced script; other parts whole."""
    end = 0
    for match in UNSPACED.finditer(word):
        if match.start() > end:
            yield word[end : match.start()]
        run, end = match.group(), match.end()
        yield from (run[i : i + 2] for i in range(max(len(run) - 1, 1)))
    if end < len(word):
        yield word[end:]


@dataclass(frozen=True)
class Index:
    """Scores by word: word `v` gives `score[i]` to `document[i]`, for `i` from `start_V[v]` up to
    `start_V[v + 1]`."""

    vocabulary: Mapping[str, int]
    start_V: NDArray[np.int64]  # (words + 1,)
    document: NDArray[np.int32]
    score: NDArray[np.float32]

    def add(self, words: Iterable[str], score_N: NDArray[np.float32]) -> None:
        """Add the scores of a query's words to those of the documents (N,)."""
        for word in words:
            v = self.vocabulary.get(word)
            if v is not None:
                here = slice(self.start_V[v], self.start_V[v + 1])
                score_N[self.document[here]] += self.score[here]


def build_index(corpus: Corpus, words: Words, k1: float, b: float) -> Index:
    """Index of the documents with Lucene's formula:

    Σ over words of ln(1 + (N − n + ½) / (n + ½)) · f / (f + k1 (1 − b + b · length / mean length)),
    n documents of N having the word, f times in this one. Source: Kamphuis et al., ECIR 2020.
    """
    from zelo.progress import Progress

    numbers: Any = defaultdict()
    numbers.default_factory = numbers.__len__  # a new word gets the next number
    terms: list[tuple[NDArray[np.int32], NDArray[np.int32]]] = []  # of each part: word, frequency
    distinct, length = array("i"), array("i")  # of each document: distinct words, words
    sizes = []
    progress = Progress(len(corpus), "indexing")
    for part in corpus.parts():
        word, frequency = array("i"), array("i")
        for text in part:
            counted = Counter(words(text))
            word.extend(numbers[term] for term in counted)
            frequency.extend(counted.values())
            distinct.append(len(counted))
            length.append(counted.total())
        sizes.append(len(part))
        terms.append((np.array(word, np.int32), np.array(frequency, np.int32)))
        progress.show(len(length))
    progress.close()
    numbers.default_factory = None

    n_V = np.zeros(len(numbers), np.int64)
    for word_M, _ in terms:
        n_V += np.bincount(word_M, minlength=len(numbers))
    start_V = np.concatenate([[0], n_V.cumsum()])
    idf_V = np.log1p((len(corpus) - n_V + 0.5) / (n_V + 0.5))
    distinct_N, length_N = np.array(distinct), np.array(length)
    norm_N = k1 * (1 - b + b * length_N / max(length_N.mean(), 1e-9))
    document, score = np.empty(start_V[-1], np.int32), np.empty(start_V[-1], np.float32)
    free_V = start_V[:-1].copy()  # where the next document of each word is written
    first = 0
    while terms:
        word_M, frequency_M = terms.pop(0)  # so that its memory is freed
        last = first + sizes.pop(0)
        doc_M = np.repeat(np.arange(first, last), distinct_N[first:last])
        order = np.argsort(word_M, kind="stable")
        word_M, doc_M, frequency_M = word_M[order], doc_M[order], frequency_M[order]
        found, begin, count = np.unique(word_M, return_index=True, return_counts=True)
        at_M = free_V[word_M] + np.arange(len(word_M)) - np.repeat(begin, count)
        document[at_M] = doc_M
        score[at_M] = idf_V[word_M] * frequency_M / (frequency_M + norm_N[doc_M])
        free_V[found] += count
        first = last
    return Index(dict(numbers), start_V, document, score)


@dataclass(frozen=True)
class TermStatistics:
    """What BM25 knows of a collection: enough to score any document by its words, without an
    index."""

    documents: int
    mean_length: float  # words of a document
    frequency: Mapping[str, int]  # word → documents that have it

    @classmethod
    def of(cls, corpus: Corpus, words: Words) -> TermStatistics:
        """Count the words of all documents."""
        from zelo.progress import Progress

        frequency: Counter[str] = Counter()
        documents = length = 0
        progress = Progress(len(corpus), "counting words")
        for part in corpus.parts():
            for text in part:
                found = words(text)
                frequency.update(set(found))
                length += len(found)
            documents += len(part)
            progress.show(documents)
        progress.close()
        return cls(documents, length / max(documents, 1), frequency)

    def fingerprint(self) -> str:
        """Digest of all of it."""
        return digest([self.documents, self.mean_length, sorted(self.frequency.items())])

    def score(self, query: Sequence[str], document: Sequence[str], k1: float, b: float) -> float:
        """Score of a document's words for a query's, by the formula of `build_index`."""
        counts = Counter(document)
        norm = k1 * (1 - b + b * len(document) / max(self.mean_length, 1e-9))
        total = 0.0
        for word in query:
            if (f := counts[word]) and (n := self.frequency.get(word, 0)):
                total += math.log1p((self.documents - n + 0.5) / (n + 0.5)) * f / (f + norm)
        return total
