"""Judges that compare scores: the factor that their differences have, and BM25."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import write_beir, write_topics

from zelo.data.beir import BeirFolder
from zelo.data.collection import load
from zelo.data.texts import Corpus, document_texts, query_texts
from zelo.judging.lexical import BM25Judge
from zelo.judging.question import Question
from zelo.judging.scorer import Scorer
from zelo.judging.scoring import ScoringJudge, ScoringSession, TextPair, sample, spread_within
from zelo.models.pretrained import PretrainedModel
from zelo.retrieval.bm25 import BM25


@dataclass
class LengthSession(ScoringSession):
    """Scores by length, and counts what it is asked to score."""

    scored: list[TextPair] = field(default_factory=list)

    def score(self, pairs: Sequence[TextPair]) -> list[float]:
        self.scored += pairs
        return [float(len(text)) for _, text in pairs]


class ByLength(ScoringJudge):
    def session(self, data: Path) -> LengthSession:
        return LengthSession("by length")


def loaded(source: Path, out: Path) -> Path:
    out.mkdir()
    load(out=out, source=BeirFolder(path=str(source)))
    return out


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return loaded(write_topics(tmp_path / "collection"), tmp_path / "data")


def pairs_of(data: Path) -> dict[str, list[str]]:
    """Every query with the documents of its topic and of the next ones."""
    documents = list(document_texts(data))
    return {q: documents[n : n + 8] for n, q in enumerate(query_texts(data))}


def questions(data: Path, pairs: Mapping[str, Sequence[str]]) -> list[Question]:
    queries, texts = query_texts(data), document_texts(data)
    return [
        Question(q, a, b, 0, queries[q], texts[a], texts[b])
        for q, docs in pairs.items()
        for a, b in pairwise(docs)
    ]


def test_the_spread_of_scores_is_that_within_queries() -> None:
    rows = [[1.0, 3.0], [100.0, 100.0, 103.0], [7.0]]
    assert spread_within(rows) == pytest.approx(math.sqrt((2 + 6) / 3))
    assert spread_within([[5.0, 5.0], [7.0, 7.0]]) == 0.0
    assert spread_within([[0.5, 0.5 + 1e-8]]) == 0.0  # but for rounding
    assert spread_within([[5.0], [7.0]]) == spread_within([]) == 0.0


def test_a_factor_is_matched_to_the_scores_of_what_is_compared(data: Path) -> None:
    """One standard deviation is worth `gain`, whatever the seed; and no score is computed twice."""
    pairs = pairs_of(data)
    session = ByLength().prepare(data, pairs, 0)
    texts = document_texts(data)
    spread = np.sqrt(np.mean([np.var([len(texts[d]) for d in docs], ddof=1)
                              for docs in pairs.values()]))  # fmt: skip
    assert session.logit_scale == pytest.approx(2 / spread, rel=5e-3)
    assert session.logit_scale == float(f"{session.logit_scale:.3g}")
    asked = questions(data, pairs)
    (first, *_) = session.answer(asked)
    gap = len(asked[0].text_a) - len(asked[0].text_b)
    assert first.score == pytest.approx(1 - 2 / (1 + math.exp(-session.logit_scale * gap)))
    assert len(session.scored) == len(set(session.scored))
    known = ByLength().prepare(data, pairs, 1).fingerprint
    assert known == session.fingerprint
    assert known != ByLength(gain=3.0).prepare(data, pairs, 0).fingerprint
    fixed = ByLength(logit_scale=session.logit_scale).prepare(data, {}, 0)
    assert fixed.fingerprint == known  # the same answers, however the factor was come by
    assert fixed.scored == []


def test_scores_that_are_all_equal_give_ties(tmp_path: Path) -> None:
    source = write_beir(tmp_path / "c", {"a": "one word", "b": "two word"}, {"q": "else"}, {})
    data = loaded(source, tmp_path / "data")
    for judge in (BM25Judge(), ByLength()):
        session = judge.prepare(data, {"q": ["a", "b"]}, 0)
        assert session.logit_scale == 2.0
        assert [a.score for a in session.answer(questions(data, {"q": ["a", "b"]}))] == [0.0]


def test_the_sample_is_of_many_queries_and_one_more_changes_no_other() -> None:
    pairs = {f"q{n}": [f"d{m}" for m in range(50)] for n in range(200)} | {"single": ["d"]}
    found = sample(pairs, 1000)
    assert sum(map(len, found.values())) == pytest.approx(1000, abs=32)
    assert {len(docs) for docs in found.values()} == {32}
    assert "single" not in found
    more = sample({**pairs, "new": ["d1", "d2"]}, 1000)
    assert len(set(found) - set(more)) <= 1
    assert all(more[query_id] == docs for query_id, docs in found.items() if query_id in more)


@pytest.mark.parametrize("options", [{}, {"k1": 1.2, "b": 0.75, "language": "none"}])
def test_bm25_judges_by_the_scores_that_it_retrieves_by(
    data: Path, options: dict[str, object]
) -> None:
    formula, corpus = BM25(**options), Corpus.at(data)
    queries, texts = query_texts(data), document_texts(data)
    session = BM25Judge(formula=formula, logit_scale=1.0).prepare(data, {}, 0)
    hits = formula.search(queries, corpus, 8)["bm25"]
    ids = corpus.ids.to_pylist()
    for n, (query_id, query) in enumerate(queries.items()):
        found = {ids[d]: s for d, s in zip(hits.doc_QK[n], hits.score_QK[n], strict=True) if d >= 0}
        scores = session.scores([(query, texts[d]) for d in found])
        assert scores == pytest.approx(list(found.values()), rel=1e-5), query_id
        assert scores[0] > 0
    other = BM25Judge(formula=BM25(k1=2.0)).prepare(data, {}, 0)
    assert other.fingerprint != BM25Judge().prepare(data, {}, 0).fingerprint


def test_bm25_is_another_judge_where_the_collection_is_another(data: Path, tmp_path: Path) -> None:
    known = BM25Judge(logit_scale=1.0).prepare(data, {}, 0).fingerprint
    same = loaded(write_topics(tmp_path / "again"), tmp_path / "same")
    assert BM25Judge(logit_scale=1.0).prepare(same, {}, 0).fingerprint == known
    small = write_beir(tmp_path / "small", {"a": "apples"}, {"q": "apples"}, {})
    other = loaded(small, tmp_path / "other")
    assert BM25Judge(logit_scale=1.0).prepare(other, {}, 0).fingerprint != known


def test_a_model_is_as_sure_as_bm25(data: Path, tiny_model: Path) -> None:
    """Whatever the unit of scores, answers are as far from a tie."""
    pairs = pairs_of(data)
    model = PretrainedModel(name="tiny/bi", path=str(tiny_model))
    sure = [
        np.abs([a.score for a in judge.prepare(data, pairs, 0).answer(questions(data, pairs))])
        for judge in (Scorer(kind="bi_encoder", pretrained=model), BM25Judge())
    ]
    assert [0.3 < values.mean() < 0.9 for values in sure] == [True, True]
    fixed = Scorer(kind="bi_encoder", pretrained=model, logit_scale=1.0).prepare(data, {}, 0)
    assert np.abs([a.score for a in fixed.answer(questions(data, pairs))]).mean() < 0.1
