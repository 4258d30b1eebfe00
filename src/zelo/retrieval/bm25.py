"""BM25 over stemmed words, by bm25s with Snowball stemmers."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
from pydantic import field_validator

from zelo.config import Component, option
from zelo.retrieval.ranking import Ranking

WORD = re.compile(r"\w\w+")
# Where a name in code falls apart: at underscores, and before a capital after a small letter.
JOINT = re.compile(r"_+|(?<=[a-z0-9])(?=[A-Z])")


class BM25(Component):
    """`retriever=bm25`: words, stemmed; English stop words left out."""

    k1: float = option(0.9, "how soon repeats of a word stop counting", ge=0)
    b: float = option(0.4, "how much long documents are discounted", ge=0, le=1)
    language: str = option(
        "english", "Snowball stemmer, stop words too where it is english; `none` for neither"
    )

    @field_validator("language")
    @classmethod
    def _has_stemmer(cls, language: str) -> str:
        import Stemmer

        if language not in (known := ["none", *Stemmer.algorithms()]):
            raise ValueError(f"no such stemmer; there are {', '.join(known)}")
        return language

    split_names: bool = option(
        False, "read `parse_args` and `parseArgs` as their words too, for collections of code"
    )

    def search(
        self, queries: Mapping[str, str], documents: Mapping[str, str], k: int
    ) -> dict[str, Ranking]:
        """Best `k` documents of each query that share a word with it; may be fewer, or none."""
        import bm25s

        doc_ids = list(documents)
        index = bm25s.BM25(k1=self.k1, b=self.b, method="lucene")
        corpus = self._words(documents)
        if not any(corpus):
            return {"bm25": {query_id: [] for query_id in queries}}
        index.index(corpus, show_progress=False)
        found: dict[str, list[tuple[str, float]]] = {}
        for query_id, words in zip(queries, self._words(queries), strict=True):
            known = [word for word in words if word in index.vocab_dict]
            if not known:
                found[query_id] = []
                continue
            scores = index.get_scores(known)
            best = np.argsort(-scores, kind="stable")[:k]
            found[query_id] = [(doc_ids[i], float(scores[i])) for i in best if scores[i] > 0]
        return {"bm25": found}

    def _words(self, texts: Mapping[str, str]) -> list[list[str]]:
        """Index terms of each text, in its order."""
        import Stemmer
        from bm25s.stopwords import STOPWORDS_EN

        stem = Stemmer.Stemmer(self.language).stemWords if self.language != "none" else list
        stop = frozenset(STOPWORDS_EN) if self.language == "english" else frozenset()
        words = []
        for text in texts.values():
            found = WORD.findall(text)
            if self.split_names:
                parts = [part for word in found for part in JOINT.split(word) if len(part) > 1]
                found = parts + [word for word in found if JOINT.search(word)]
            words.append(stem([word.lower() for word in found if word.lower() not in stop]))
        return words
