"""Dense retrieval: cosine similarity of embeddings, exact."""

from __future__ import annotations

from collections.abc import Mapping

from zelo.config import Component, option
from zelo.models.weights import Weights
from zelo.retrieval.ranking import Ranking


class Dense(Component):
    """`retriever=dense`: an embedding model's cosine similarity."""

    weights: Weights = option(help="embedding model to search with")
    max_tokens: int = option(256, "longer texts are cut here", ge=8)
    batch_size: int = option(64, "texts embedded at once", ge=1, exclude=True)

    def search(
        self, queries: Mapping[str, str], documents: Mapping[str, str], k: int
    ) -> dict[str, Ranking]:
        """Best `k` documents of each query, with their cosine similarity."""
        from zelo.models.embedding import load_embedding_model, top_k

        model = load_embedding_model(self.weights.locate(), self.max_tokens)
        return {"dense": top_k(model, queries, documents, k, self.batch_size)}
