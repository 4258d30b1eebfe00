from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import write_beir

from zelo.artifacts import read_table, table, write_table
from zelo.data.beir import BeirFolder
from zelo.data.collection import Data, load
from zelo.data.log import Log
from zelo.data.texts import Corpus
from zelo.errors import UserError
from zelo.models.pretrained import PretrainedModel
from zelo.retrieval.bm25 import BM25, build_index
from zelo.retrieval.dense import Dense, split
from zelo.retrieval.fusion import Hybrid, fused, reciprocal_ranks, unit_scores
from zelo.retrieval.languages import language_of
from zelo.retrieval.logged import LoggedOrder
from zelo.retrieval.ranking import (
    Hits,
    candidates_from,
    rankings_from,
    rankings_table,
    top_documents,
)
from zelo.retrieval.retrieve import Retriever, retrieve
from zelo.retrieval.run_file import RunFile

DOCUMENTS = {
    "a": "Running runners run quickly",
    "b": "A runner walks; the walker runs",
    "c": "Nothing to see",
    "d": "",
}


Ranked = dict[str, dict[str, list[tuple[str, float]]]]


def search(
    retriever: Retriever, queries: dict[str, str], documents: dict[str, str], k: int
) -> Ranked:
    """What a retriever finds, as lists."""
    corpus = Corpus.of(documents)
    found = retriever.search(queries, corpus, k)
    return {name: hits.ranking(list(queries), corpus.ids) for name, hits in found.items()}


def test_bm25_scores_are_lucenes_formula() -> None:
    """Against the formula written out, on texts where stemming and stop words change nothing."""
    documents = {"x": "cat dog dog fish", "y": "cat bird", "z": "bird bird bird tree tree wind"}
    found = dict(
        search(BM25(k1=1.2, b=0.75, language="english"), {"q": "dog cat"}, documents, 10)["bm25"][
            "q"
        ]
    )
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
    found = search(
        BM25(language="english"),
        {"q": "RUN", "none": "zebra", "empty": "", "stop": "the"},
        DOCUMENTS,
        10,
    )
    assert {doc_id for doc_id, _ in found["bm25"]["q"]} == {"a", "b"}
    assert found["bm25"]["none"] == found["bm25"]["empty"] == found["bm25"]["stop"] == []
    assert search(BM25(language="english"), {"q": "a"}, {"d": ""}, 10) == {"bm25": {"q": []}}


def test_bm25_reads_names_in_code_when_asked() -> None:
    documents = {
        "snake": "def parse_args(): pass",
        "camel": "def parseArgs(): pass",
        "no": "def f(): pass",
    }
    assert search(BM25(language="english"), {"q": "parse"}, documents, 5)["bm25"]["q"] == []
    found = search(BM25(split_names=True), {"q": "parse"}, documents, 5)["bm25"]["q"]
    assert {doc_id for doc_id, _ in found} == {"snake", "camel"}


def hits(*rows: list[tuple[int, float]], k: int = 3) -> Hits:
    found = Hits.empty(len(rows), k)
    for q, row in enumerate(rows):
        for rank, (place, score) in enumerate(row):
            found.doc_QK[q, rank], found.score_QK[q, rank] = place, score
    return found


def test_rrf_is_the_sum_of_reciprocal_ranks() -> None:
    both = [hits([(0, 3.0), (1, 2.0), (2, 1.0)]), hits([(2, 0.9), (0, 0.8)])]
    found = fused(both, [reciprocal_ranks(h, 60) for h in both], (1.0, 1.0), 3)
    assert found.doc_QK.tolist() == [[0, 2, 1]]
    assert found.score_QK[0] == pytest.approx([1 / 61 + 1 / 62, 1 / 63 + 1 / 61, 1 / 62])


def test_scores_are_fused_by_their_place_between_worst_and_best() -> None:
    both = [hits([(0, 30.0), (1, 20.0), (2, 10.0)]), hits([(2, 0.9), (0, 0.8)])]
    found = fused(both, [unit_scores(h) for h in both], (0.25, 0.75), 2)
    assert found.doc_QK.tolist() == [[2, 0]]
    assert found.score_QK[0] == pytest.approx([0.75, 0.25])
    assert unit_scores(hits([(1, 5.0)], [])).tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]


def test_dense_is_exact_search_by_cosine(tiny_model: Path) -> None:
    from sentence_transformers import SentenceTransformer, util

    queries = {"q1": "walking", "q2": "Größe 東京 \U0001f40d"}
    weights = PretrainedModel(name="x", path=str(tiny_model))
    found = search(Dense(pretrained=weights, max_length=32), queries, DOCUMENTS, 3)["dense"]
    model = SentenceTransformer(str(tiny_model))
    expected = util.semantic_search(
        model.encode(list(queries.values())), model.encode(list(DOCUMENTS.values())), top_k=3
    )
    ids = list(DOCUMENTS)
    for ranked, hits in zip(found.values(), expected, strict=True):
        assert [doc_id for doc_id, _ in ranked] == [ids[hit["corpus_id"]] for hit in hits]
        assert [s for _, s in ranked] == pytest.approx([hit["score"] for hit in hits], abs=1e-5)


def test_hybrid_shows_what_went_into_it(tiny_model: Path) -> None:
    weights = PretrainedModel(name="x", path=str(tiny_model))
    hybrid = Hybrid(bm25=BM25(), dense=Dense(pretrained=weights, max_length=32))
    found = search(hybrid, {"q": "run"}, DOCUMENTS, 2)
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


def test_bm25_is_bm25s() -> None:
    """Ranks and scores of the library on 300 documents of drawn words, read in parts."""
    import bm25s

    rng = np.random.default_rng(0)
    vocabulary = np.array([f"w{i}" for i in range(400)])
    chance = 1 / np.arange(1, 401)
    texts = [
        " ".join(rng.choice(vocabulary, rng.integers(0, 80), p=chance / chance.sum()))
        for _ in range(300)
    ]
    corpus = Corpus.of({f"d{i}": text for i, text in enumerate(texts)})
    index = build_index(Parted(corpus.ids, corpus.source), str.split, 1.2, 0.75)
    reference = bm25s.BM25(k1=1.2, b=0.75, method="lucene")
    reference.index([text.split() for text in texts], show_progress=False)
    for _ in range(50):
        query = rng.choice(vocabulary, 5, p=chance / chance.sum()).tolist()
        score_N = np.zeros(300, dtype=np.float32)
        index.add(query, score_N)
        known = [word for word in query if word in reference.vocab_dict]
        assert score_N == pytest.approx(reference.get_scores(known), rel=1e-5, abs=1e-6)


class Parted(Corpus):
    """A corpus that comes in parts of seven."""

    def parts(self, size: int = 7) -> Iterator[list[str]]:
        return super().parts(7)


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), max_size=30), st.integers(1, 10))
def test_the_top_is_a_stable_sort(scores: list[float], k: int) -> None:
    score_N = np.array(scores, dtype=np.float32)
    expected = [i for i in np.argsort(-score_N, kind="stable") if score_N[i] > 0][:k]
    assert top_documents(score_N, k).tolist() == expected


@pytest.mark.parametrize(
    ("language", "text", "word", "form"),
    [
        (
            "german",
            "Die Katzen schliefen auf den warmen Dächern des alten Hauses",
            "Katze",
            "Katzen",
        ),
        (
            "french",
            "Les chevaux couraient librement dans les grandes prairies vertes",
            "prairie",
            "",
        ),
        ("english", "The horses were running freely through the wide green meadows", "horse", ""),
        (
            "spanish",
            "Los caballos corrían libremente por las grandes praderas verdes",
            "caballo",
            "",
        ),
        ("russian", "Лошади свободно бегали по широким зелёным лугам у реки", "луг", ""),
    ],
)
def test_words_are_stemmed_as_the_language_of_the_documents_has_it(
    language: str, text: str, word: str, form: str
) -> None:
    assert language_of([text] * 3) == language
    documents = {"a": text, "b": "xyz"}
    assert [d for d, _ in search(BM25(), {"q": word}, documents, 5)["bm25"]["q"]] == ["a"]
    assert search(BM25(language="none"), {"q": word}, documents, 5)["bm25"]["q"] == []
    first = text.split()[0]
    if language != "russian":  # its first word is no stop word
        assert search(BM25(), {"q": first}, documents, 5)["bm25"]["q"] == []


def test_turkish_has_two_letters_i() -> None:
    """Capitals are not what `str.lower` makes of them: İ is that of i, I that of ı."""
    documents = {"a": "İSTANBUL BÜYÜK BİR ŞEHİRDİR", "b": "ISPARTA bir ildir", "c": "İzmir"}
    queries = {"a": "istanbul", "b": "ısparta", "c": "İZMİR", "none": "ispArta"}
    found = search(BM25(language="turkish"), queries, documents, 5)["bm25"]
    assert {q: [doc_id for doc_id, _ in ranked] for q, ranked in found.items()} == {
        "a": ["a"], "b": ["b"], "c": ["c"], "none": [],
    }  # fmt: skip
    elsewhere = search(BM25(language="english"), {"q": "istanbul"}, {"a": "in İstanbul"}, 5)
    assert [doc_id for doc_id, _ in elsewhere["bm25"]["q"]] == ["a"]


def test_scripts_without_spaces_are_read_by_pairs_of_characters() -> None:
    documents = {"a": "東京都は日本の首都である", "b": "京都は古い都である", "c": "Python入門"}
    found = search(BM25(language="none"), {"q": "東京都", "p": "python"}, documents, 5)["bm25"]
    assert [doc_id for doc_id, _ in found["q"]] == ["a", "b"]
    assert [doc_id for doc_id, _ in found["p"]] == ["c"]


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("हिन्दी भाषा में खोज", ["हिन्दी", "भाषा", "में", "खोज"]),
        ("தமிழ் மொழி", ["தமிழ்", "மொழி"]),
        ("re\u0301sume\u0301", ["r\u00e9sum\u00e9"]),
        ("水 と 火", ["水", "と", "火"]),
        ("snake_case x", ["snake_case"]),
    ],
)
def test_words_of_every_script_stay_whole(text: str, terms: list[str]) -> None:
    assert BM25(language="none").words_of(Corpus.of({"a": "x"}))(text) == terms


def test_the_best_passage_of_a_document_counts(tiny_model: Path) -> None:
    """What stands at the end of a long document is found by its passages, not by a cut."""
    from transformers import AutoTokenizer

    weights = PretrainedModel(name="x", path=str(tiny_model))
    documents = {"long": "filler words here " * 60 + "the needle", "short": "nothing like it"}
    queries = {"q": "the needle"}
    cut, whole = (
        dict(search(Dense(pretrained=weights, max_length=16, passages=p), queries, documents, 2)
             ["dense"]["q"])
        for p in (False, True)
    )  # fmt: skip
    assert whole["short"] == pytest.approx(cut["short"], abs=1e-6)
    assert whole["long"] > cut["long"]
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    pieces = split(tokenizer, documents["long"], 16)
    assert all(len(tokenizer(piece)["input_ids"]) <= 17 for piece in pieces)
    assert documents["long"].startswith(pieces[0])
    assert documents["long"].endswith(pieces[-1])
    assert split(tokenizer, "short", 16) == ["short"]


def test_parts_of_a_corpus_are_merged_exactly(tiny_model: Path) -> None:
    rng = np.random.default_rng(0)
    documents = {f"d{i}": " ".join(rng.choice(list("abcdefgh"), 5)) for i in range(40)}
    queries = {f"q{i}": " ".join(rng.choice(list("abcdefgh"), 3)) for i in range(5)}
    dense = Dense(pretrained=PretrainedModel(name="x", path=str(tiny_model)), max_length=16)
    corpus = Corpus.of(documents)
    whole, parted = (
        dense.search(queries, source, 10)["dense"]
        for source in (corpus, Parted(corpus.ids, corpus.source))
    )
    assert parted.score_QK == pytest.approx(whole.score_QK, abs=1e-5)


def test_what_faiss_does_not_take_is_one_line(tmp_path: Path, tiny_model: Path) -> None:
    weights = PretrainedModel(name="x", path=str(tiny_model))
    for factory in ("Nonsense", "IVF64,Flat"):  # no such index; more cells than documents
        with pytest.raises(UserError, match=rf"retriever\.faiss={factory}: "):
            search(Dense(pretrained=weights, faiss=factory), {"q": "x"}, DOCUMENTS, 2)


def run_file(
    tmp_path: Path, content: str, name: str = "some.run", order: str | None = None
) -> RunFile:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    return RunFile(path=path, order=order)


def test_candidates_of_any_engine(tmp_path: Path) -> None:
    queries = {"q1": "x", "q 2": "y", "q3": "z"}
    trec = "q1 Q0 b 1 2.5 lucene\nq1 Q0 a 2 2.5 lucene\nq%202 Q0 c 1 1 lucene\nother Q0 x 1 1 l\n"
    found = search(run_file(tmp_path, trec), queries, DOCUMENTS, 5)["run"]
    # Equal scores: the higher id first, as trec_eval has it, whatever the ranks say.
    assert found == {"q1": [("b", 2.5), ("a", 2.5)], "q 2": [("c", 1.0)], "q3": []}
    spaced = {**DOCUMENTS, "a b": "x"}
    found = search(run_file(tmp_path, "q1 Q0 a%20b 1 1 l\n"), queries, spaced, 5)["run"]
    assert found["q1"] == [("a b", 1.0)]
    for name, content in (
        ("three.run", "q1 b 2.5\nq1 a 2.4\n"),
        ("log.jsonl", '{"query_id": "q1", "doc_id": "b", "score": 2}\n'
                      '{"query_id": "q1", "doc_id": "a", "score": 1}\n'),
        ("rank_llm.jsonl", '{"query": {"qid": "q1"}, "candidates": [{"docid": "b", "score": 2}, '
                           '{"docid": "a", "score": 1}]}\n'),
    ):  # fmt: skip
        found = search(run_file(tmp_path, content, name), queries, DOCUMENTS, 5)["run"]
        assert [doc_id for doc_id, _ in found["q1"]] == ["b", "a"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("q1 Q0 a 1 2.5\n", r"some\.run:1: expected 6 fields .* found 5"),
        ("q1 Q0 a 1 high l\n", r"some\.run:1: the score must be a number, found 'high'"),
        ("q1 Q0 a 1 nan l\n", r"some\.run:1: the score must be a number"),
        ("q1 Q0 a 1 2 l\nq1 Q0 a 2 1 l\n", r"some\.run:2: query 'q1' has document 'a' twice"),
        ("q1 Q0 zz 1 2 l\n", r"query 'q1': document 'zz' is not in the collection"),
        ("q9 Q0 a 1 2 l\n", "has none of the collection's queries"),
        ("\n", r"some\.run: empty"),
    ],
)
def test_a_mistake_in_a_run_is_named(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        search(run_file(tmp_path, content), {"q1": "x"}, DOCUMENTS, 5)


def test_ranks_in_a_run_are_no_scores(tmp_path: Path) -> None:
    """MS MARCO's form: the last of three fields counts from 1."""
    content = "q1\tb\t1\nq1\ta\t2\nq2\tc\t1\nq1\td\t3\nq2\ta\t2\n"
    found = search(run_file(tmp_path, content), {"q1": "x", "q2": "y"}, DOCUMENTS, 5)["run"]
    assert found == {
        "q1": [("b", -1.0), ("a", -2.0), ("d", -3.0)],
        "q2": [("c", -1.0), ("a", -2.0)],
    }
    for said, order in (("rank", "badc"), ("score", "cdab")):
        content = "q1 b 1\nq1 a 2\nq1 d 4\nq1 c 7\n"
        found = search(run_file(tmp_path, content, order=said), {"q1": "x"}, DOCUMENTS, 5)["run"]
        assert "".join(doc_id for doc_id, _ in found["q1"]) == order
        content = "q1 Q0 b 1 0.1 t\nq1 Q0 a 2 0.2 t\nq1 Q0 d 3 0.3 t\nq1 Q0 c 4 0.3 t\n"
        found = search(run_file(tmp_path, content, order=said), {"q1": "x"}, DOCUMENTS, 5)["run"]
        assert "".join(doc_id for doc_id, _ in found["q1"]) == (
            "badc" if said == "rank" else "dcab"
        )


@pytest.mark.parametrize(
    ("content", "order"),
    [
        ("q1 b 2.5\nq1 a 2\nq1 c 1\n", "bac"),  # scores, as they fall
        ("q1 b 3\nq1 a 2\nq1 c 1\n", "bac"),
        ("q1 b 30\nq1 a 1\nq1 c 2\n", "bca"),
        ("q1 b -3\nq1 a -2\nq1 c -1\n", "cab"),
        ("q1 b 0.1\nq1 a 0.2\nq1 c 0.3\n", "cab"),
        ("q1 Q0 b 1 1 t\nq1 Q0 a 1 2 t\nq1 Q0 c 1 3 t\n", "cab"),  # ranks that say nothing
        ("q1 Q0 b 1 0.1 t\nq1 Q0 a 3 0.2 t\nq1 Q0 c 2 0.3 t\n", "cab"),
    ],
)
def test_scores_in_a_run_stay_scores(tmp_path: Path, content: str, order: str) -> None:
    found = search(run_file(tmp_path, content), {"q1": "x"}, DOCUMENTS, 5)["run"]
    assert "".join(doc_id for doc_id, _ in found["q1"]) == order


@pytest.mark.parametrize(
    "content",
    [
        "q1 b 1\nq1 a 3\nq1 c 4\n",  # ranks with a gap, or scores that rise
        "q1 b 0\nq1 a 1\nq1 c 2\n",
        "q1 b 2\nq1 a 1\nq1 c 3\n",  # ranks in another order, or scores
        "q1 Q0 b 1 1 t\nq1 Q0 a 2 2 t\n",  # ranks in the place of scores
        "q1 Q0 b 2 0.5 t\nq1 Q0 a 1 0.2 t\n",  # distances
    ],
)
def test_what_could_be_ranks_is_asked(tmp_path: Path, content: str) -> None:
    with pytest.raises(UserError, match=r"say retriever\.order=rank or retriever\.order=score"):
        search(run_file(tmp_path, content), {"q1": "x"}, DOCUMENTS, 5)
    for order in ("rank", "score"):
        found = search(run_file(tmp_path, content, order=order), {"q1": "x"}, DOCUMENTS, 5)["run"]
        ranks = [line.split() for line in content.splitlines()]
        column = 3 if order == "rank" and len(ranks[0]) == 6 else -2 if len(ranks[0]) == 6 else 2
        ranks.sort(key=lambda row: float(row[column]), reverse=order == "score")
        assert [d for d, _ in found["q1"]] == [row[-4 if len(row) == 6 else 1] for row in ranks]


def test_ranks_without_scores_in_json(tmp_path: Path) -> None:
    rows = [{"query_id": 1, "doc_id": d, "rank": n} for n, d in ((2, "a"), (1, "b"))]
    content = "".join(json.dumps(row) + "\n" for row in rows)
    found = search(run_file(tmp_path, content, "r.jsonl"), {"1": "x"}, DOCUMENTS, 5)["run"]
    assert found["1"] == [("b", -1.0), ("a", -2.0)]


def test_a_querys_own_text_is_not_found_for_it(tmp_path: Path, tiny_model: Path) -> None:
    """As if it were not in the collection for that query, and for no other one."""
    texts = {"a": "apples and pears", "b": "apples and plums", "c": "pears and plums", "d": "plums"}
    queries = {"a": "Apples  and pears", "b": "apples and something else", "x": "apples and pears"}
    weights = PretrainedModel(name="x", path=str(tiny_model))
    dense = Dense(pretrained=weights, max_length=16)
    hybrid = Hybrid(bm25=BM25(language="none"), dense=dense)

    def stages(name: str, documents: dict[str, str], asked: dict[str, str]) -> dict[str, list[str]]:
        folder = write_beir(tmp_path / name / "c", documents, asked, {})
        data, out = tmp_path / name / "data", tmp_path / name / "out"
        for path in (data, out):
            path.mkdir()
        load(out=data, source=BeirFolder(path=str(folder)))
        retrieve(out=out, data=data, retriever=hybrid, top_k=3)
        first = rankings_from(read_table(out, "first_stage"))
        assert candidates_from(read_table(out, "candidates")) == {
            q: [d for d, _ in ranked][:3] for q, ranked in first["hybrid"].items()
        }
        return {
            f"{system} {q}": [d for d, _ in ranked]
            for system, ranking in first.items()
            for q, ranked in ranking.items()
        }

    found = stages("whole", texts, queries)
    without = {doc_id: text for doc_id, text in texts.items() if doc_id != "a"}
    assert stages("without", without, {"a": queries["a"]}) == {
        key: ranked for key, ranked in found.items() if key.endswith(" a")
    }
    assert set(found["dense b"]) == set(texts)  # another text has that id
    assert found["bm25 x"][0] == "a"  # the same text under another id


def test_a_querys_own_text_is_no_result_of_a_run_or_a_log(tmp_path: Path) -> None:
    texts = {"a": "apples", "b": "plums", "c": "pears"}
    folder = write_beir(tmp_path / "c", texts, {"a": "Apples", "q": "apples"}, {})
    run = run_file(tmp_path, "a a 1\na b 2\na c 3\nq a 1\nq b 2\n")
    rows = [
        {"query_id": q, "query": text, "results": [{"id": i, "text": texts[i]} for i in "abc"]}
        for q, text in (("a", "apples"), ("q", "apples"))
    ]
    log = Log(path=tmp_path / "log.jsonl")
    log.path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources: list[tuple[str, Data, Retriever, dict[str, list[str]]]] = [
        ("run", BeirFolder(path=str(folder)), run, {"a": ["b", "c"], "q": ["a", "b"]}),
        ("log", log, LoggedOrder(log=log), {"a": ["b", "c"], "q": ["a", "b", "c"]}),
    ]
    for name, source, retriever, expected in sources:
        data, out = tmp_path / f"{name}-data", tmp_path / name
        for path in (data, out):
            path.mkdir()
        load(out=data, source=source)
        retrieve(out=out, data=data, retriever=retriever, top_k=3)
        assert candidates_from(read_table(out, "candidates")) == expected


def test_own_texts_are_taken_out_and_the_rest_moves_up() -> None:
    both = hits([(4, 3.0), (2, 2.0), (7, 1.0)], [(2, 1.0)])
    found = both.without(np.array([2, -1]))
    assert found.doc_QK.tolist() == [[4, 7, -1], [2, -1, -1]]
    assert found.score_QK.tolist() == [[3.0, 1.0, -np.inf], [1.0, -np.inf, -np.inf]]


@pytest.mark.parametrize("factory", ["Flat", "IVF4,Flat"])
def test_faiss_finds_what_exact_search_finds(tiny_model: Path, factory: str) -> None:
    rng = np.random.default_rng(0)
    documents = {f"d{i}": " ".join(rng.choice(list("abcdefghij"), 6)) for i in range(200)}
    queries = {f"q{i}": " ".join(rng.choice(list("abcdefghij"), 4)) for i in range(20)}
    weights = PretrainedModel(name="x", path=str(tiny_model))
    exact, approximate = (
        search(Dense(pretrained=weights, max_length=16, faiss=index), queries, documents, k)[
            "dense"
        ]
        for index, k in ((None, 200), (factory, 10))
    )
    for query_id, ranked in approximate.items():
        cosine = dict(exact[query_id])
        assert 0 < len({doc_id for doc_id, _ in ranked}) == len(ranked) <= 10
        assert [s for _, s in ranked] == pytest.approx([cosine[d] for d, _ in ranked], abs=1e-5)
        if factory == "Flat":
            best = [score for _, score in exact[query_id][:10]]
            assert [score for _, score in ranked] == pytest.approx(best, abs=1e-5)
