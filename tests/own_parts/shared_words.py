"""A retriever: documents by the number of words that they share with the query."""

import numpy as np

from zelo.config import Component, option
from zelo.retrieval.ranking import Hits


class SharedWords(Component):
    name: str = option("shared words", "what the ranking is called")

    def search(self, queries, corpus, k):
        documents = [set(text.split()) for part in corpus.parts() for text in part]
        hits = Hits.empty(len(queries), k)
        for row, query in enumerate(queries.values()):
            shared = np.array([len(words & set(query.split())) for words in documents])
            best = np.argsort(-shared, kind="stable")[:k]
            hits.doc_QK[row, : len(best)] = best
            hits.score_QK[row, : len(best)] = shared[best]
        return {self.name: hits}
