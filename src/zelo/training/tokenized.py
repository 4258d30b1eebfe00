"""Tokenised inputs of rated queries and documents on the disk, as a kind of model reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from zelo.models.instructions import Told, as_read, base_prompt
from zelo.models.tokens import Chunking, Chunks, Prompt, TokenFile, in_memory, tokenize
from zelo.training.batches import Drawn, ScoredBatch, scored_batch
from zelo.training.rated_queries import RatedQuery


@dataclass(frozen=True)
class RatedTexts:
    """Rated queries, the texts of queries and documents by id, and the instructions of queries that
    have one."""

    rated: Sequence[RatedQuery]
    queries: Mapping[str, str]
    documents: Mapping[str, str]
    instructions: Mapping[str, str] = field(default_factory=dict)

    def told(self, network: Any) -> dict[str, Told]:
        """Each rated query as the network reads it, by its id."""
        asked = {query.query_id: self.queries[query.query_id] for query in self.rated}
        return as_read(network, asked, self.instructions)


class TokenizedInputs:
    """What a kind of model reads: tokenised once into a folder, read from there batch by batch.

    `network` is a sentence-transformers model, whose own preprocessing says what it reads.
    """

    files: ClassVar[tuple[str, ...]]  # names of what is tokenised, a file each

    @classmethod
    def write(cls, network: Any, texts: RatedTexts, folder: Path) -> None:
        """Write token ids into `folder`, a file for each of `inputs_of`, unless they are there."""
        for name, (inputs, prompt) in cls.inputs_of(network, texts).items():
            tokenize(network, inputs, prompt, folder / f"{name}.arrow", name)

    @classmethod
    def written(cls, folder: Path) -> bool:
        """Whether all of it is in `folder`."""
        return all((folder / f"{name}.arrow").is_file() for name in cls.files)

    @classmethod
    def inputs_of(cls, network: Any, texts: RatedTexts) -> dict[str, tuple[Sequence[Any], Prompt]]:
        """Of each file the texts or pairs in the order of its rows, and the prompt before them."""
        raise NotImplementedError

    @classmethod
    def open(cls, rated: Sequence[RatedQuery], folder: Path) -> Self:
        """Read what `write` wrote of the same `rated`."""
        raise NotImplementedError

    def batch(self, drawn: Drawn, chunking: Chunking) -> ScoredBatch:
        """Queries with the drawn of their documents, a chunk of tokens at a time."""
        raise NotImplementedError

    def length(self, query: RatedQuery, picks: Sequence[int]) -> int:
        """Tokens that these documents of a query take."""
        raise NotImplementedError

    @classmethod
    def of_rows(
        cls, network: Any, queries: Sequence[str], documents: Sequence[str]
    ) -> tuple[dict[str, Chunks], list[int]]:
        """Inputs of rows of a query and a document, tokenised now, and each row's index."""
        raise NotImplementedError


@dataclass(frozen=True)
class CrossEncoderInputs(TokenizedInputs):
    """One row of tokens per query and document, query after query."""

    tokens: TokenFile
    start: Mapping[str, int]  # first row of each query

    files: ClassVar[tuple[str, ...]] = ("pairs",)

    @classmethod
    def inputs_of(cls, network: Any, texts: RatedTexts) -> dict[str, tuple[Sequence[Any], Prompt]]:
        """Every query with each of its documents."""
        told, documents = texts.told(network), texts.documents
        rows = [(told[q.query_id], documents[i]) for q in texts.rated for i in q.doc_ids]
        pairs = [(query.text, document) for query, document in rows]
        return {"pairs": (pairs, common([query.prompt for query, _ in rows]))}

    @classmethod
    def open(cls, rated: Sequence[RatedQuery], folder: Path) -> Self:
        """Read what `write` wrote for the same `rated`."""
        ends = np.cumsum([0, *(len(query.doc_ids) for query in rated)])
        start = {query.query_id: int(end) for query, end in zip(rated, ends, strict=False)}
        return cls(TokenFile(folder / "pairs.arrow"), start)

    def batch(self, drawn: Drawn, chunking: Chunking) -> ScoredBatch:
        """One input per query and document."""
        rows: list[int] = []
        index: list[range] = []
        for query, picks in drawn:
            index.append(range(len(rows), len(rows) + len(picks)))
            rows += [self.start[query.query_id] + int(pick) for pick in picks]
        pairs = self.tokens.chunks(rows, chunking)
        return scored_batch(drawn, {"pairs": pairs}, index)

    def length(self, query: RatedQuery, picks: Sequence[int]) -> int:
        """Tokens of the pairs."""
        start = self.start[query.query_id]
        return int(self.tokens.lengths[[start + int(pick) for pick in picks]].sum())

    @classmethod
    def of_rows(
        cls, network: Any, queries: Sequence[str], documents: Sequence[str]
    ) -> tuple[dict[str, Chunks], list[int]]:
        """One input per row."""
        pairs = list(zip(queries, documents, strict=True))
        return {"pairs": in_memory(network, pairs, base_prompt(network))}, list(range(len(pairs)))


def common(prompts: Sequence[str | None]) -> Prompt:
    """The one prompt that there is, or all of them."""
    return prompts[0] if len(set(prompts)) == 1 else prompts


@dataclass(frozen=True)
class BiEncoderInputs(TokenizedInputs):
    """One row of tokens per text; each distinct text of a batch is read once."""

    queries: TokenFile
    documents: TokenFile
    query_row: Mapping[str, int]
    document_row: Mapping[str, int]

    files: ClassVar[tuple[str, ...]] = ("queries", "documents")

    @classmethod
    def inputs_of(cls, network: Any, texts: RatedTexts) -> dict[str, tuple[Sequence[Any], Prompt]]:
        """Every query, and every document once."""
        told = texts.told(network)
        queries = [told[one.query_id] for one in texts.rated]
        documents = [texts.documents[doc_id] for doc_id in document_rows(texts.rated)]
        return {
            "queries": ([query.text for query in queries], common([q.prompt for q in queries])),
            "documents": (documents, network.prompts.get("document")),
        }

    @classmethod
    def open(cls, rated: Sequence[RatedQuery], folder: Path) -> Self:
        """Read what `write` wrote for the same `rated`."""
        queries, documents = (
            TokenFile(folder / f"{name}.arrow") for name in ("queries", "documents")
        )
        query_row = {query.query_id: row for row, query in enumerate(rated)}
        return cls(queries, documents, query_row, document_rows(rated))

    def batch(self, drawn: Drawn, chunking: Chunking) -> ScoredBatch:
        """One input per query, one per distinct document."""
        position: dict[str, int] = {}
        index = [
            [position.setdefault(query.doc_ids[pick], len(position)) for pick in picks]
            for query, picks in drawn
        ]
        q = [self.query_row[query.query_id] for query, _ in drawn]
        d = [self.document_row[doc_id] for doc_id in position]
        inputs = {
            "queries": self.queries.chunks(q, chunking),
            "documents": self.documents.chunks(d, chunking),
        }
        return scored_batch(drawn, inputs, index)

    def length(self, query: RatedQuery, picks: Sequence[int]) -> int:
        """Tokens of the query and the documents."""
        rows = [self.document_row[query.doc_ids[pick]] for pick in picks]
        own = self.queries.lengths[self.query_row[query.query_id]]
        return int(own + self.documents.lengths[rows].sum())

    @classmethod
    def of_rows(
        cls, network: Any, queries: Sequence[str], documents: Sequence[str]
    ) -> tuple[dict[str, Chunks], list[int]]:
        """One input per distinct query, one per distinct document."""
        position = {text: i for i, text in enumerate(dict.fromkeys(documents))}
        prompts = network.prompts
        inputs = {
            "queries": in_memory(network, list(dict.fromkeys(queries)), prompts.get("query")),
            "documents": in_memory(network, list(position), prompts.get("document")),
        }
        return inputs, [position[text] for text in documents]


def document_rows(rated: Sequence[RatedQuery]) -> dict[str, int]:
    """Row of each distinct document, in the order of their first appearance."""
    rows: dict[str, int] = {}
    for query in rated:
        for doc_id in query.doc_ids:
            rows.setdefault(doc_id, len(rows))
    return rows
