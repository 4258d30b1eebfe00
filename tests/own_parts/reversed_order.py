"""A reranker to compare: the first stage's order, the other way round."""

from zelo.config import Component


class ReversedOrder(Component):
    def score(self, pool, folder):
        return {
            query_id: [float(place) for place in range(len(doc_ids))]
            for query_id, doc_ids in pool.candidates.items()
        }
