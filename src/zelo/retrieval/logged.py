"""A first stage that returns what a live system returned, in its order."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zelo.config import Component, option
from zelo.data.log import Log
from zelo.data.texts import Corpus
from zelo.retrieval.ranking import Hits


class LoggedOrder(Component):
    """The order in which a log's results were returned."""

    log: Log = option(help="the log")

    def search(self, queries: Mapping[str, str], corpus: Corpus, k: int) -> dict[str, Hits]:
        """What was returned for each query, at most `k`; the score is the negative rank."""
        lines = {line.query_id: line.results for line in self.log.lines()}
        hits = Hits.empty(len(queries), k)
        for q, query_id in enumerate(queries):
            ids = pa.array([doc.doc_id for doc in lines[query_id]][:k], pa.string())
            found = pc.index_in(ids, corpus.ids).to_numpy(zero_copy_only=False)
            hits.doc_QK[q, : len(found)] = found
            hits.score_QK[q, : len(found)] = -np.arange(1, len(found) + 1)
        return {"logged": hits}
