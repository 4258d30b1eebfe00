"""BM25 as a judge: the words that query and document share, weighted by the whole collection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zelo.config import describe, option
from zelo.data.texts import Corpus
from zelo.judging.scoring import ScoringJudge, ScoringSession, TextPair
from zelo.retrieval.bm25 import BM25, TermStatistics, Words
from zelo.store import digest


class BM25Judge(ScoringJudge):
    """Compares by the BM25 scores of the documents, which have no common level across queries."""

    formula: BM25 = option(BM25(), "how words are found and weighted, as by `retriever=bm25`")

    def session(self, data: Path) -> BM25Session:
        """Count the words of the collection."""
        corpus = Corpus.at(data)
        words = self.formula.words_of(corpus)
        statistics = TermStatistics.of(corpus, words)
        known_by = [describe(self.formula), statistics.fingerprint()]
        return BM25Session(digest(["bm25", *known_by]), self.formula, words, statistics)


@dataclass
class BM25Session(ScoringSession):
    """What is known of the words of the collection."""

    formula: BM25
    words: Words
    statistics: TermStatistics

    def score(self, pairs: Sequence[TextPair]) -> list[float]:
        """Lucene's BM25, by the words of both texts; each text is read once."""
        words = {
            text: self.words(text) for text in dict.fromkeys(t for pair in pairs for t in pair)
        }
        k1, b = self.formula.k1, self.formula.b
        return [self.statistics.score(words[q], words[d], k1, b) for q, d in pairs]
