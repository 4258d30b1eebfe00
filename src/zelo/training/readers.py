"""Token ids of rated queries and documents on the disk, as a kind of model reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from zelo.models.tokens import Encoded, Flatten, TokenFile, flatten, tokenize
from zelo.training.lessons import RatedQuery


class Reader(Protocol):
    """How a kind of model reads queries and documents."""

    @staticmethod
    def tokenize(
        model: Any,
        rated: Sequence[RatedQuery],
        queries: Mapping[str, str],
        documents: Mapping[str, str],
        out: Path,
    ) -> None:
        """Write token ids of texts by their id, as `model` reads them, below `out`."""
        ...

    @classmethod
    def open(cls, model: Any, rated: Sequence[RatedQuery], out: Path, budget: int) -> Reader:
        """Read what `tokenize` wrote for the same `rated`, `budget` tokens at a time."""
        ...

    def texts(
        self, drawn: Sequence[tuple[RatedQuery, Sequence[int]]]
    ) -> tuple[dict[str, Encoded], list[list[int]]]:
        """Inputs of queries with the drawn places of their documents, and each one's index."""
        ...

    def length(self, query: RatedQuery, picks: Sequence[int]) -> int:
        """Tokens that these documents of a query take."""
        ...


TOKENS = "tokens"  # folder of token files within a stage's output


@dataclass(frozen=True)
class PairReader:
    """A cross-encoder's: one row of tokens per query and document, query after query."""

    tokens: TokenFile
    start: Mapping[str, int]  # first row of each query
    budget: int
    flat: Flatten | None = None

    @staticmethod
    def tokenize(
        model: Any,
        rated: Sequence[RatedQuery],
        queries: Mapping[str, str],
        documents: Mapping[str, str],
        out: Path,
    ) -> None:
        """Write token ids of every pair, unless they are there."""
        pairs = [(queries[one.query_id], documents[i]) for one in rated for i in one.doc_ids]
        prompt = model.prompts.get(model.default_prompt_name)
        tokenize(model, pairs, prompt, out / TOKENS / "pairs.arrow", "pairs")

    @classmethod
    def open(cls, model: Any, rated: Sequence[RatedQuery], out: Path, budget: int) -> PairReader:
        """Read what `tokenize` wrote for the same `rated`."""
        ends = np.cumsum([0, *(len(query.doc_ids) for query in rated)])
        start = {query.query_id: int(end) for query, end in zip(rated, ends, strict=False)}
        return cls(TokenFile(out / TOKENS / "pairs.arrow"), start, budget, flatten(model))

    def texts(
        self, drawn: Sequence[tuple[RatedQuery, Sequence[int]]]
    ) -> tuple[dict[str, Encoded], list[list[int]]]:
        """One input per query and document."""
        rows: list[int] = []
        places: list[list[int]] = []
        for query, picks in drawn:
            places.append(list(range(len(rows), len(rows) + len(picks))))
            rows += [self.start[query.query_id] + int(pick) for pick in picks]
        return {"pairs": self.tokens.encoded(rows, self.budget, self.flat)}, places

    def length(self, query: RatedQuery, picks: Sequence[int]) -> int:
        """Tokens of the pairs."""
        start = self.start[query.query_id]
        return int(self.tokens.lengths[[start + int(pick) for pick in picks]].sum())


@dataclass(frozen=True)
class TextReader:
    """A bi-encoder's: each distinct text of a batch is read once."""

    queries: TokenFile
    documents: TokenFile
    query_row: Mapping[str, int]
    document_row: Mapping[str, int]
    budget: int
    flat: Flatten | None = None

    @staticmethod
    def tokenize(
        model: Any,
        rated: Sequence[RatedQuery],
        queries: Mapping[str, str],
        documents: Mapping[str, str],
        out: Path,
    ) -> None:
        """Write token ids of every query and every document, unless they are there."""
        texts = [queries[one.query_id] for one in rated]
        prompt = model.prompts.get("query")
        tokenize(model, texts, prompt, out / TOKENS / "queries.arrow", "queries")
        texts = [documents[doc_id] for doc_id in document_rows(rated)]
        prompt = model.prompts.get("document")
        tokenize(model, texts, prompt, out / TOKENS / "documents.arrow", "documents")

    @classmethod
    def open(cls, model: Any, rated: Sequence[RatedQuery], out: Path, budget: int) -> TextReader:
        """Read what `tokenize` wrote for the same `rated`."""
        queries, documents = (
            TokenFile(out / TOKENS / f"{name}.arrow") for name in ("queries", "documents")
        )
        query_row = {query.query_id: row for row, query in enumerate(rated)}
        return cls(queries, documents, query_row, document_rows(rated), budget, flatten(model))

    def texts(
        self, drawn: Sequence[tuple[RatedQuery, Sequence[int]]]
    ) -> tuple[dict[str, Encoded], list[list[int]]]:
        """One input per query, one per distinct document."""
        index: dict[str, int] = {}
        places = [
            [index.setdefault(query.doc_ids[pick], len(index)) for pick in picks]
            for query, picks in drawn
        ]
        q = [self.query_row[query.query_id] for query, _ in drawn]
        d = [self.document_row[doc_id] for doc_id in index]
        return {
            "queries": self.queries.encoded(q, self.budget, self.flat),
            "documents": self.documents.encoded(d, self.budget, self.flat),
        }, places

    def length(self, query: RatedQuery, picks: Sequence[int]) -> int:
        """Tokens of the query and the documents."""
        rows = [self.document_row[query.doc_ids[pick]] for pick in picks]
        own = self.queries.lengths[self.query_row[query.query_id]]
        return int(own + self.documents.lengths[rows].sum())


def document_rows(rated: Sequence[RatedQuery]) -> dict[str, int]:
    """Row of each distinct document, in the order of their first appearance."""
    rows: dict[str, int] = {}
    for query in rated:
        for doc_id in query.doc_ids:
            rows.setdefault(doc_id, len(rows))
    return rows
