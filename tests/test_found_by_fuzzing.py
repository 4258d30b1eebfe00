"""What `benchmarks/fuzz.py` once found, each on its own."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zelo.comparison.graphs import Regular, TopPairs
from zelo.data.columns import row_of
from zelo.data.log import Log
from zelo.data.preference_file import read_preferences
from zelo.data.trec import read_run, read_topics, write_run
from zelo.data.zbench import import_zbench
from zelo.errors import UserError
from zelo.judging.endpoint import retry_after
from zelo.judging.ledger import ledger_question
from zelo.judging.question import Question
from zelo.judging.reply import read_reply
from zelo.launch import composed
from zelo.models.rerank_file import documents_of, is_cross_encoder
from zelo.rating import Comparisons, fit_rankings
from zelo.rating.judges import fit_judges
from zelo.rating.rate import Rating
from zelo.rating.rate_file import RateFile

DEEP = '{"a":' + "[" * 3000
ROW = {"query_id": "q", "doc_a": "a", "doc_b": "b", "p": 1}


def file(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    raw = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    path.write_bytes(raw)
    return path


def refused(call: Callable[[], Any], *said: str) -> None:
    """The call is refused on one line that says so."""
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    for part in said:
        assert part in str(caught.value)


def test_ids_that_look_like_times_stay_as_they_are(tmp_path: Path) -> None:
    path = file(tmp_path, "p.jsonl", json.dumps({**ROW, "doc_a": "2020-01-01"}))
    assert read_preferences(path)["doc_a"].to_pylist() == ["2020-01-01"]
    out, counts = RateFile(file=path, rating=Rating()).run()
    assert counts["documents"] == 2
    assert "2020-01-01" in pq.read_table(out / "ratings.parquet")["doc_id"].to_pylist()


@pytest.mark.parametrize("bad", [True, 1.5, ["a"]])
def test_recorded_ids_must_be_text(tmp_path: Path, bad: object) -> None:
    path = file(tmp_path, "p.jsonl", json.dumps({**ROW, "doc_a": bad}))
    refused(lambda: read_preferences(path), "p.jsonl", "doc_a must be text")


@pytest.mark.parametrize("column", ["reasons", "judge"])
def test_what_goes_with_them_too(tmp_path: Path, column: str) -> None:
    path = file(tmp_path, "p.jsonl", json.dumps({**ROW, column: 7}))
    refused(lambda: read_preferences(path), f"{column} must be text")


def test_two_texts_of_one_id_are_not_one_document(tmp_path: Path) -> None:
    line = {"query": {"id": "q", "query": "w"}}
    twice = [{"id": "a", "content": "x"}, {"id": "a", "content": "y"}]
    path = file(tmp_path, "d.jsonl", json.dumps({**line, "documents": twice}))
    refused(lambda: import_zbench(path, tmp_path / "out"), "'q/a' has two texts")


def test_ids_of_a_log_that_meet_when_they_are_told_apart(tmp_path: Path) -> None:
    rows = [
        {"query": "x", "query_id": "a", "results": [{"id": "a", "text": "an apple"}]},
        {"query": "x", "query_id": "b", "results": [
            {"id": "a", "text": "x"}, {"id": "b", "text": "x"}, {"id": "b/a", "text": "an apple"}]},
    ]  # fmt: skip
    path = file(tmp_path, "log.jsonl", "\n".join(map(json.dumps, rows)))
    refused(Log(path=path).load, "log.jsonl", "'b/a' is the id of two documents")


def test_a_topic_without_an_end(tmp_path: Path) -> None:
    text = "<top><num> Number: 1 <title> a </top>\n<top><num> Number: 2 <title> b"
    path = file(tmp_path, "topics.txt", text)
    refused(lambda: list(read_topics(path)), "topic 2 begins and does not end")


@pytest.mark.parametrize("text", ["<", "<top>\n<num> 1\n<title> a\n</top>\n<top"])
def test_what_is_hardly_a_topic(tmp_path: Path, text: str) -> None:
    path = file(tmp_path, "topics.txt", text)
    refused(lambda: list(read_topics(path)), "topics.txt")


@pytest.mark.parametrize("bad", [None, True, ["d"], "\ud800", ""])
def test_candidates_are_named_by_text(tmp_path: Path, bad: object) -> None:
    row = {"query": {"qid": "q"}, "candidates": [{"docid": bad, "score": 1}]}
    path = file(tmp_path, "run.jsonl", json.dumps(row))
    refused(lambda: read_run(path), "run.jsonl:1", "docid" if bad != "" else "an id is empty")


def test_an_answer_of_two_scores_is_none() -> None:
    assert read_reply('{"score": 1, "score": -1}').problem == "unparsable"
    assert read_reply('{"score": 1, "score": 1.0}').score == 1


def test_keys_of_other_texts_are_other_keys() -> None:
    def key(query_id: str, query: str, doc: str, text: str) -> tuple[str, str]:
        q = ledger_question(Question(query_id, doc, "b", 0, query, text, "y"), depends_on_ids=True)
        return q.query, q.text_a

    assert key("a", "b\0c", "d", "t")[0] != key("a\0b", "c", "d", "t")[0]
    assert key("a", "q", "d", "t\0u")[1] != key("a", "q", "d\0t", "u")[1]
    assert key("a", "q", "d", "t") == ("a\0q", "d\0t")  # as ledgers have them


@pytest.mark.parametrize("column", ["query_id", "doc_a", "judge"])
def test_bytes_that_are_no_text(tmp_path: Path, column: str) -> None:
    raw = json.dumps({**ROW, "judge": "j", column: "@"}).encode().replace(b"@", b"a\xff")
    path = file(tmp_path, "p.jsonl", raw)
    refused(lambda: read_preferences(path), "p.jsonl")
    refused(RateFile(file=path, rating=Rating()).run, "p.jsonl")


@pytest.mark.parametrize(("query_id", "doc_id"), [("", "a"), ("q", "")])
def test_empty_ids(tmp_path: Path, query_id: str, doc_id: str) -> None:
    line = {"query": {"id": query_id, "query": "w"}, "documents": [{"id": doc_id, "content": "x"}]}
    path = file(tmp_path, "d.jsonl", json.dumps(line))
    refused(lambda: import_zbench(path, tmp_path / "out"), "d.jsonl:1: an id is empty")


def test_judges_of_weights_that_are_far_apart() -> None:
    draw = np.random.default_rng(0)
    i = draw.integers(0, 8, 30)
    comparisons = Comparisons(
        np.zeros(30, int), i, (i + 1) % 8, draw.integers(0, 2, 30) * 1.0,
        weight=draw.choice([0, 1e-9, 1e10], 30), sizes=[8],
    )  # fmt: skip
    found = fit_judges(comparisons, draw.integers(0, 3, 30), 3, "thurstone", 1e-9)
    assert np.isfinite(found.elo).all()
    assert np.isfinite(found.stderr).all()


def test_a_score_that_is_no_number_of_zbench(tmp_path: Path) -> None:
    for score in ("NaN", "Infinity", "1" + "0" * 400):
        line = '{"query": {"id": "q", "query": "w"}, "documents": [{"id": "a", "content": "x", '
        path = file(tmp_path, "d.jsonl", f'{line}"score": {score}}}]}}')
        refused(lambda path=path: import_zbench(path, tmp_path / "out"), "must be a finite number")


def test_deep_nesting(tmp_path: Path) -> None:
    path = file(tmp_path, "deep.jsonl", DEEP)
    refused(lambda: list(documents_of(str(path))), "deep.jsonl:1: not JSON")
    refused(lambda: read_run(path), "deep.jsonl:1: not JSON")


def test_numbers_of_four_hundred_digits(tmp_path: Path) -> None:
    row = '{"query_id": "q", "doc_id": "d", "score": 1' + "0" * 400 + "}"
    refused(lambda: read_run(file(tmp_path, "run.jsonl", row)), "the score must be a number")


@pytest.mark.parametrize("label", [float("nan"), float("inf"), 10**400])
def test_labels_that_are_no_whole_numbers(label: float) -> None:
    row = {"query": "q", "text": "t", "label": label}
    if isinstance(label, int):
        assert row_of(row, "f:1")[1] == ["t"]
    else:
        refused(lambda: row_of(row, "f:1"), "f:1", "whole numbers")


def test_columns_that_are_there_twice(tmp_path: Path) -> None:
    ids = [pa.array(["q"]), pa.array(["a"]), pa.array(["b"]), pa.array([1.0]), pa.array(["c"])]
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table(ids, names=["query_id", "doc_a", "doc_b", "p", "doc_a"]), path)
    refused(lambda: RateFile(file=path, rating=Rating()).run(), "column doc_a is there more")


def test_ids_that_are_lists(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    pq.write_table(
        pa.table({"query_id": ["q"], "doc_a": [["a"]], "doc_b": ["b"], "p": [1.0]}), path
    )
    refused(lambda: RateFile(file=path, rating=Rating()).run(), "doc_a must be text")


def test_a_file_of_comparisons_that_begins_with_no_object(tmp_path: Path) -> None:
    path = file(tmp_path, "n.jsonl", "null\n")
    refused(lambda: RateFile(file=path, rating=Rating()).run(), "must be a JSON object")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rate", ["rating.prior=inf"]),
        ("rate", ["rating=1"]),
        ("rate", ["rating=null"]),
        ("rate", ["+=x"]),
        ("config", ["retriever=[[[[1]]]]"]),
        ("rate", ["rating._target_=5"]),
        ("rate", ["rating._target_=null"]),
        ("rate", ["rating._target_=..x.Dense"]),
        ("rate", ["~_target_"]),
        ("config", ["judge=" + 40 * "2020-01-01"]),  # longer than a file may be called
    ],
)
def test_words_that_cannot_be_composed(name: str, words: list[str]) -> None:
    refused(lambda: composed(name, words, **({"file": "x"} if name == "rate" else {})))


def test_a_date_beyond_all_dates() -> None:
    assert retry_after({"Retry-After": "99999999999999999999 Jan 21 07:28:00"}) is None


@pytest.mark.parametrize("name", ["config.json", "config_sentence_transformers.json"])
@pytest.mark.parametrize("content", ["", "{", "[1]", "null", '"x"'])
def test_settings_of_a_model_that_are_damaged(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_text(content)
    refused(lambda: is_cross_encoder(tmp_path), name)


def test_a_ranking_of_no_query() -> None:
    with pytest.raises(ValueError, match="out of range"):
        fit_rankings([-1], [[0, 1]])


def test_a_message_is_one_line() -> None:
    assert str(UserError("a\nb\rc")) == "a\\nb\\rc"


def test_a_half_character_to_rerank(tmp_path: Path) -> None:
    path = file(tmp_path, "d.jsonl", '{"text": "x", "id": "\\ud800"}')
    refused(lambda: list(documents_of(str(path))), "d.jsonl:1")


def test_replies_that_repeat_themselves_are_read_at_once() -> None:
    began = time.process_time()
    for text in ("the\n" * 12_500, "final \n" * 7_000):
        assert read_reply(text).score is None
    assert time.process_time() - began < 1


@pytest.mark.parametrize("degree", [90, 97, 98])
def test_graphs_of_almost_all_pairs(degree: int) -> None:
    edges = Regular(degree=degree).edges(100, np.random.default_rng(0))
    counts = np.bincount(edges.ravel(), minlength=100)
    assert (counts == degree).all()
    assert len(np.unique(np.sort(edges, axis=1), axis=0)) == len(edges)


def test_almost_all_pairs_of_the_top() -> None:
    edges = TopPairs(pairs=4_949).edges(100, np.random.default_rng(0))
    assert len(np.unique(np.sort(edges, axis=1), axis=0)) == 4_949


def test_weights_beyond_what_doubles_hold() -> None:
    with pytest.raises(ValueError, match="weight is above"):
        Comparisons([0], [0], [1], [1.0], weight=[1e160])
    with pytest.raises(ValueError, match="known part"):
        Comparisons([0], [0], [1], [1.0], known=[1e200])


def test_what_is_written_as_a_run_can_be_read(tmp_path: Path) -> None:
    write_run(tmp_path / "a.trec", {"q 1": [("d\t1", 1.0), ("d\u2003", 0.5)]}, "t")
    assert len(read_run(tmp_path / "a.trec")["q%201"]) == 2
