from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest

from zelo.artifacts import read_table, table, write_table
from zelo.models.weights import Weights
from zelo.retrieval.bm25 import BM25
from zelo.retrieval.dense import Dense
from zelo.retrieval.fusion import Hybrid, reciprocal_rank_fusion
from zelo.retrieval.ranking import candidates_from, rankings_from, rankings_table
from zelo.retrieval.retrieve import retrieve

DOCUMENTS = {
    "a": "Running runners run quickly",
    "b": "A runner walks; the walker runs",
    "c": "Nothing to see",
    "d": "",
}


def test_bm25_scores_are_lucenes_formula() -> None:
    """Against the formula written out, on texts where stemming and stop words change nothing."""
    documents = {"x": "cat dog dog fish", "y": "cat bird", "z": "bird bird bird tree tree wind"}
    found = dict(BM25(k1=1.2, b=0.75).search({"q": "dog cat"}, documents, 10)["bm25"]["q"])
    words = {doc_id: Counter(text.split()) for doc_id, text in documents.items()}
    mean = sum(sum(count.values()) for count in words.values()) / 3

    def score(doc_id: str) -> float:
        total = 0.0
        length = sum(words[doc_id].values())
        for word in ("dog", "cat"):
            holding = sum(word in count for count in words.values())
            idf = math.log(1 + (3 - holding + 0.5) / (holding + 0.5))
            tf = words[doc_id][word]
            total += idf * tf / (tf + 1.2 * (1 - 0.75 + 0.75 * length / mean))
        return total

    assert found == pytest.approx({"x": score("x"), "y": score("y")}, rel=1e-5)


def test_bm25_stems_and_returns_nothing_for_nothing() -> None:
    found = BM25().search({"q": "RUN", "none": "zebra", "empty": "", "stop": "the"}, DOCUMENTS, 10)
    assert {doc_id for doc_id, _ in found["bm25"]["q"]} == {"a", "b"}
    assert found["bm25"]["none"] == found["bm25"]["empty"] == found["bm25"]["stop"] == []
    assert BM25().search({"q": "a"}, {"d": ""}, 10) == {"bm25": {"q": []}}


def test_bm25_reads_names_in_code_when_asked() -> None:
    documents = {
        "snake": "def parse_args(): pass",
        "camel": "def parseArgs(): pass",
        "no": "def f(): pass",
    }
    assert BM25().search({"q": "parse"}, documents, 5)["bm25"]["q"] == []
    found = BM25(split_names=True).search({"q": "parse"}, documents, 5)["bm25"]["q"]
    assert {doc_id for doc_id, _ in found} == {"snake", "camel"}


def test_rrf_is_the_sum_of_reciprocal_ranks() -> None:
    fused = reciprocal_rank_fusion([["a", "b", "c"], ["c", "a"]], constant=60)
    assert [doc_id for doc_id, _ in fused] == ["a", "c", "b"]
    assert dict(fused) == pytest.approx({"a": 1 / 61 + 1 / 62, "c": 1 / 63 + 1 / 61, "b": 1 / 62})


def test_dense_is_exact_search_by_cosine(tiny_model: Path) -> None:
    from sentence_transformers import SentenceTransformer, util

    queries = {"q1": "walking", "q2": "Größe 東京 \U0001f40d"}
    weights = Weights(name="x", path=str(tiny_model))
    found = Dense(weights=weights, max_tokens=32).search(queries, DOCUMENTS, 3)["dense"]
    model = SentenceTransformer(str(tiny_model))
    expected = util.semantic_search(
        model.encode(list(queries.values())), model.encode(list(DOCUMENTS.values())), top_k=3
    )
    ids = list(DOCUMENTS)
    for ranked, hits in zip(found.values(), expected, strict=True):
        assert [doc_id for doc_id, _ in ranked] == [ids[hit["corpus_id"]] for hit in hits]
        assert [s for _, s in ranked] == pytest.approx([hit["score"] for hit in hits], abs=1e-5)


def test_hybrid_shows_what_went_into_it(tiny_model: Path) -> None:
    weights = Weights(name="x", path=str(tiny_model))
    hybrid = Hybrid(bm25=BM25(), dense=Dense(weights=weights, max_tokens=32))
    found = hybrid.search({"q": "run"}, DOCUMENTS, 2)
    assert list(found) == ["bm25", "dense", "hybrid"]
    assert len(found["hybrid"]["q"]) == 2


def test_rankings_survive_the_disk() -> None:
    ranking = {"q2": [("b", 2.0), ("a", 1.0)], "q1": [("a", 0.5)]}
    stored = rankings_table("rankings", {"bm25": ranking})
    assert rankings_from(stored) == {"bm25": ranking}
    candidates = table(
        "candidates", query_id=["q", "q"], doc_id=["a", "b"], rank=[2, 1], score=[0.0, 1.0]
    )
    assert candidates_from(candidates) == {"q": ["b", "a"]}


def test_rankings_are_long_enough_for_the_metrics_whatever_is_reranked(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    out.mkdir()
    ids = [f"d{i}" for i in range(150)]
    write_table(data, "queries", table("queries", query_id=["q"], text=["word"], split=["test"]))
    write_table(
        data, "documents", table("documents", doc_id=ids, title=[""] * 150, text=["a word"] * 150)
    )
    counts = retrieve(out=out, data=data, retriever=BM25(), top_k=30)
    assert counts["candidates"] == 30
    assert candidates_from(read_table(out, "candidates")) == {"q": ids[:30]}
    assert [
        doc_id for doc_id, _ in rankings_from(read_table(out, "first_stage"))["bm25"]["q"]
    ] == ids[:100]
