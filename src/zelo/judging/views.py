"""What a simulated judge sees: hidden relevance scores of documents for queries.

A view gives every (query, document) a hidden score `s` in the units of METHOD's noise model, where
differences mostly lie in −4..4. Views of text compare the query with the document's *privileged*
text (a docstring, say), which no model ever reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zelo.config import Component, option
from zelo.data.preference_file import existing, read_rows
from zelo.data.texts import privileged_texts, query_texts, relevance_grades
from zelo.errors import UserError
from zelo.models.pretrained import PretrainedModel
from zelo.store import digest_files

Scores = Mapping[tuple[str, str], float]  # (query id, document id) → hidden score
Pairs = Mapping[str, Sequence[str]]  # query id → document ids


class Lexical(Component):
    """TF-IDF cosine of words or of character n-grams."""

    analyzer: str = option("word", "what is counted", pattern="^(word|char_wb)$")
    n_min: int = option(1, "shortest n-gram", ge=1)
    n_max: int = option(1, "longest n-gram", ge=1)
    gain: float = option(2.0, "standard deviation of the hidden scores", gt=0)

    def hidden_scores(self, data: Path, pairs: Pairs) -> Scores:
        """Cosine of query and privileged text, scaled to a standard deviation of `gain`."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        queries, privileged = readable(data, pairs)
        vectorizer = TfidfVectorizer(
            analyzer=self.analyzer, ngram_range=(self.n_min, self.n_max), sublinear_tf=True
        )
        doc_ids = list(privileged)
        try:
            d = vectorizer.fit_transform(privileged.values())
        except ValueError:  # not one word in all the texts
            return scaled(pairs, {i: np.zeros(len(docs)) for i, docs in pairs.items()}, self.gain)
        place = {doc_id: i for i, doc_id in enumerate(doc_ids)}
        q = vectorizer.transform([queries[query_id] for query_id in pairs])
        similarity = {
            query_id: (d[[place[doc_id] for doc_id in docs]] @ q[row].T).toarray().ravel()
            for row, (query_id, docs) in enumerate(pairs.items())
            if docs
        }
        return scaled(pairs, similarity, self.gain)


class Embedding(Component):
    """Cosine of embeddings."""

    pretrained: PretrainedModel = option(help="embedding model that compares")
    max_length: int = option(64, "longer texts are cut here", ge=8)
    gain: float = option(2.0, "standard deviation of the hidden scores", gt=0)
    batch_size: int = option(64, "texts embedded at once", ge=1, exclude=True)

    def hidden_scores(self, data: Path, pairs: Pairs) -> Scores:
        """Cosine of query and privileged text, scaled to a standard deviation of `gain`."""
        from zelo.models.embedding import load_embedding_model, rerank_by_cosine

        queries, privileged = readable(data, pairs)
        model = load_embedding_model(self.pretrained.locate(), self.max_length)
        cosines = rerank_by_cosine(model, queries, privileged, pairs, self.batch_size)
        return scaled(pairs, {i: np.asarray(row) for i, row in cosines.items()}, self.gain)


NO_GRADES = (
    "judge: the simulated judges read graded labels of the queries they compare, and these have "
    "none: choose judges that need none (judge=local_ensemble asks models here, judge=openai a "
    "provider), or give qrels/train.tsv or data.train_share=0.5"
)


class Grades(Component):
    """Graded human judgments as hidden scores: for experiments on what judges' noise does.

    Documents without a grade count as 0, as in NDCG. A run compares training queries alone, so it
    sees nothing that is tested; where `zelo evaluate` asks, such judges are the labels with noise.
    """

    gain: float = option(2.0, "hidden score of one grade", gt=0)

    def hidden_scores(self, data: Path, pairs: Pairs) -> Scores:
        """`gain` times the grade."""
        grades = relevance_grades(data, "all")
        grades = {query_id: grades[query_id] for query_id in pairs if query_id in grades}
        if not grades:
            raise UserError(NO_GRADES)
        return {
            (query_id, doc_id): self.gain * grades.get(query_id, {}).get(doc_id, 0)
            for query_id, docs in pairs.items()
            for doc_id in docs
        }


class Planted(Component):
    """Hidden scores from a file: Parquet or JSON lines with `query_id`, `doc_id` and `score`."""

    path: Path = option(help="the file", exclude=True)
    gain: float = option(1.0, "factor of the scores", gt=0)

    def fingerprint(self) -> str:
        """Digest of the file."""
        return digest_files([existing(self.path)])

    def hidden_scores(self, data: Path, pairs: Pairs) -> Scores:
        """`gain` times the score; `UserError` where the file has none for a document."""
        rows = read_rows(self.path)
        names = ("query_id", "doc_id", "score")
        missing = [name for name in names if name not in rows.column_names]
        if missing:
            raise UserError(f"{self.path}: no column {', '.join(missing)}")
        columns = (rows[name].to_pylist() for name in names)
        planted = {(query_id, doc_id): s for query_id, doc_id, s in zip(*columns, strict=True)}
        wanted = [(query_id, doc_id) for query_id, docs in pairs.items() for doc_id in docs]
        for key in wanted:
            if not isinstance(planted.get(key), int | float):
                raise UserError(f"{self.path}: no score for query {key[0]!r}, document {key[1]!r}")
        return {key: self.gain * planted[key] for key in wanted}


def readable(data: Path, pairs: Pairs) -> tuple[dict[str, str], dict[str, str]]:
    """Queries and the privileged texts of the documents in `pairs`."""
    privileged = privileged_texts(data)
    if privileged is None:
        raise UserError(
            "judge: this view reads privileged text, which only the built-in collection has: "
            "choose judge=graded, or judges of your own"
        )
    wanted = sorted({doc_id for docs in pairs.values() for doc_id in docs})
    return query_texts(data), {doc_id: privileged[doc_id] for doc_id in wanted}


def scaled(pairs: Pairs, similarity: Mapping[str, NDArray[np.float64]], gain: float) -> Scores:
    """Similarities in units of their standard deviation over all pairs, times `gain`."""
    values = np.concatenate([np.zeros(0), *similarity.values()])
    spread = float(values.std()) if len(values) else 0.0
    factor = gain / spread if spread > 0 else 0.0
    return {
        (query_id, doc_id): factor * float(value)
        for query_id, row in similarity.items()
        for doc_id, value in zip(pairs[query_id], row, strict=True)
    }
