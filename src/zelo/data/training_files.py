"""What a run rated, as the files that other trainers read: `zelo export RUN as=...`.

Of a query the document with the highest Elo is the positive. Those whose Elo is surely lower (95 %)
are negatives, the hardest first; the others may be relevant too, and are false negatives where they
are trained as negatives: they are named in a file of their own, and in no list of negatives.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from zelo.artifacts import read_table, write_csv
from zelo.data.texts import document_texts, query_instructions, query_texts
from zelo.data.zbench import write_lines
from zelo.errors import UserError

Form = Literal["sentence-transformers", "flagembedding", "tevatron"]
FORMS: tuple[Form, ...] = ("sentence-transformers", "flagembedding", "tevatron")
FALSE_NEGATIVES = ["query_id", "doc_id", "elo", "stderr", "positive_id", "positive_elo"]
SURE = 1.96  # standard errors of a difference of Elos, for 95 %


@dataclass(frozen=True)
class RatedDocument:
    """A document of a query, as it was rated."""

    doc_id: str
    elo: float
    stderr: float
    target: float


@dataclass(frozen=True)
class TrainingExample:
    """The rated documents of a query, each list by falling Elo."""

    query_id: str
    positive: RatedDocument
    negatives: Sequence[RatedDocument]
    false_negatives: Sequence[RatedDocument]  # that may be as relevant as the positive

    @property
    def documents(self) -> list[RatedDocument]:
        """All of them."""
        rest = [*self.negatives, *self.false_negatives]
        return [self.positive, *sorted(rest, key=lambda one: (-one.elo, one.doc_id))]


def training_example(query_id: str, rated: Sequence[RatedDocument]) -> TrainingExample:
    """Divide the rated documents of a query; the errors of two Elos count as independent."""
    positive, *others = sorted(rated, key=lambda one: (-one.elo, one.doc_id))
    surely_worse: list[RatedDocument] = []
    unsure: list[RatedDocument] = []
    for one in others:
        error = math.hypot(positive.stderr, one.stderr)
        worse = positive.elo - one.elo > SURE * error
        (surely_worse if worse else unsure).append(one)
    return TrainingExample(query_id, positive, surely_worse, unsure)


def training_examples(ratings: Path) -> list[TrainingExample]:
    """One of each query in the folder `ratings`, in its order."""
    by_query: dict[str, list[RatedDocument]] = {}
    for row in read_table(ratings, "ratings").to_pylist():
        rated = RatedDocument(row["doc_id"], row["elo"], row["stderr"], row["target"])
        by_query.setdefault(row["query_id"], []).append(rated)
    return [training_example(query_id, rated) for query_id, rated in by_query.items()]


@dataclass(frozen=True)
class TrainingTexts:
    """The texts of a collection that was rated."""

    queries: dict[str, str]  # behind their instructions
    documents: dict[str, str]  # with their titles, as models read them


def export_training(
    data: Path, ratings: Path, out: Path, form: Form, most_negatives: int
) -> dict[str, int]:
    """Write the training files of one form into the folder `out`.

    `data` and `ratings` are the folders of a run's collection and Elos. Of each query at most
    `most_negatives` are written; a query that has none surely worse is left out of what needs
    negatives, and counted. Scores are the targets that the Elos became. Raises `UserError` where
    `out` cannot be written, or fewer than one is asked for.
    """
    if most_negatives < 1:
        raise UserError(f"negatives={most_negatives}: at least 1 is needed")
    examples = training_examples(ratings)
    wanted = {one.doc_id for example in examples for one in example.documents}
    documents = document_texts(data, wanted)
    told = query_instructions(data)
    queries = {
        query_id: f"{told[query_id]}\n{text}" if query_id in told else text
        for query_id, text in query_texts(data).items()
    }
    texts = TrainingTexts(queries, documents)
    cut = [replace(one, negatives=one.negatives[:most_negatives]) for one in examples]
    files: dict[str, list[dict[str, Any]]] = {}
    unsure = list(false_negatives(examples))
    with_negatives = [example for example in cut if example.negatives]
    match form:
        case "sentence-transformers":
            files["scored"] = list(scored_rows(examples, texts))
            files["lists"] = list(list_rows(examples, texts))
            files["triplets"] = list(triplet_rows(cut, texts))
        case "flagembedding":
            files["train"] = [flagembedding_row(one, texts) for one in with_negatives]
        case "tevatron":
            files["train"] = [tevatron_row(one, texts) for one in with_negatives]
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, rows in files.items():
            write_lines(out / f"{name}.jsonl", rows)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror})") from None
    # Not as JSON lines: FlagEmbedding reads every such file of a folder
    write_csv(out / "false_negatives.csv", FALSE_NEGATIVES, unsure)
    return {
        "queries": len(examples),
        "queries without a sure negative": len(examples) - len(with_negatives),
        "negatives": sum(len(example.negatives) for example in cut),
        "false negatives": len(unsure),
    }


def scored_rows(
    examples: Sequence[TrainingExample], texts: TrainingTexts
) -> Iterator[dict[str, Any]]:
    """A row of each rated document: for losses of a pair and its score."""
    for example in examples:
        for one in example.documents:
            yield {
                "query": texts.queries[example.query_id],
                "document": texts.documents[one.doc_id],
                "score": one.target,
            }


def list_rows(
    examples: Sequence[TrainingExample], texts: TrainingTexts
) -> Iterator[dict[str, Any]]:
    """A row of each query: for listwise losses of cross-encoders."""
    for example in examples:
        yield {
            "query": texts.queries[example.query_id],
            "documents": [texts.documents[one.doc_id] for one in example.documents],
            "scores": [one.target for one in example.documents],
        }


def triplet_rows(
    examples: Sequence[TrainingExample], texts: TrainingTexts
) -> Iterator[dict[str, Any]]:
    """A row of each negative, with the margin: for MarginMSE, and for contrastive losses, which do
    not read the score."""
    for example in examples:
        for one in example.negatives:
            yield {
                "query": texts.queries[example.query_id],
                "positive": texts.documents[example.positive.doc_id],
                "negative": texts.documents[one.doc_id],
                "score": example.positive.target - one.target,
            }


def flagembedding_row(example: TrainingExample, texts: TrainingTexts) -> dict[str, Any]:
    """A line of FlagEmbedding's training files; scores are for `knowledge_distillation`."""
    return {
        "query": texts.queries[example.query_id],
        "pos": [texts.documents[example.positive.doc_id]],
        "neg": [texts.documents[one.doc_id] for one in example.negatives],
        "pos_scores": [example.positive.target],
        "neg_scores": [one.target for one in example.negatives],
    }


def tevatron_row(example: TrainingExample, texts: TrainingTexts) -> dict[str, Any]:
    """A line of Tevatron's training files that hold their passages."""

    def passage(one: RatedDocument) -> dict[str, Any]:
        return {"docid": one.doc_id, "text": texts.documents[one.doc_id], "score": one.target}

    return {
        "query_id": example.query_id,
        "query": texts.queries[example.query_id],
        "positive_passages": [passage(example.positive)],
        "negative_passages": [passage(one) for one in example.negatives],
    }


def false_negatives(examples: Sequence[TrainingExample]) -> Iterator[Sequence[Any]]:
    """A row of each document that may be as relevant as the positive."""
    for example in examples:
        best = example.positive
        for one in example.false_negatives:
            yield example.query_id, one.doc_id, one.elo, one.stderr, best.doc_id, best.elo
