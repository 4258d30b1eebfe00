"""Candidates that another engine found: a TREC run, or JSON lines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from zelo.config import Component, option
from zelo.data.texts import Corpus
from zelo.data.trec import encoded, read_run
from zelo.errors import UserError
from zelo.retrieval.ranking import Hits
from zelo.store import digest_files

NAME = r"^\w[\w.+-]*$"  # it becomes the name of a file


class RunFile(Component):
    """`retriever=run retriever.path=FILE`: what Lucene, Elasticsearch, Vespa or a log returned."""

    path: Path = option(
        help="TREC run (`qid Q0 docid rank score tag`), `qid docid score|rank` or JSON lines",
        exclude=True,
    )
    order: str | None = option(
        None,
        "what documents are ordered by, `score` or `rank`; null: scores, as trec_eval, and ranks "
        "where the last of three fields counts 1, 2, 3 ...",
        pattern="^(score|rank)$",
    )
    name: str = option("run", "what the ranking is called in tables and files", pattern=NAME)

    def fingerprint(self) -> str:
        """Digest of the file; `UserError` where it is not there."""
        path = self.path.expanduser()
        if not path.is_file():
            raise UserError(f"{path}: not found; retriever.path must name a run")
        return digest_files([path])

    def search(self, queries: Mapping[str, str], corpus: Corpus, k: int) -> dict[str, Hits]:
        """What the file holds of each query, at most `k`; `UserError` names unknown documents.

        Queries that the file lacks get no candidates; queries that the collection lacks are left
        out.
        """
        path = self.path.expanduser()
        run = read_run(path, self.order, "retriever.order")
        hits = Hits.empty(len(queries), k)
        ids = [(q, query_id if query_id in run else encoded(query_id))
               for q, query_id in enumerate(queries)]  # fmt: skip
        wanted = {doc_id for _, i in ids for doc_id, _ in run.get(i, [])[:k]}
        known = pa.array(sorted(wanted), pa.string())
        index_of = dict(zip(known.to_pylist(), pc.index_in(known, corpus.ids).to_pylist(),
                          strict=True))  # fmt: skip
        for q, query_id in ids:
            for rank, (doc_id, score) in enumerate(run.get(query_id, [])[:k]):
                index = index_of[doc_id]
                if index is None:  # runs are written with white space in ids encoded
                    index = corpus.ids.index(unquote(doc_id)).as_py()
                if index is None or index < 0:
                    raise UserError(
                        f"{path}: query {query_id!r}: document {doc_id!r} is not in the collection"
                    )
                hits.doc_QK[q, rank], hits.score_QK[q, rank] = index, score
        if queries and not wanted:
            raise UserError(f"{path}: has none of the collection's queries")
        return {self.name: hits}
