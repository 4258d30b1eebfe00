"""Lists that people order: which documents are in them, and what an order says of pairs."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from zelo.annotation.desk import Desk
from zelo.annotation.lists import DocumentList, ListDesk, lists_of
from zelo.annotation.pairs import Ids
from zelo.judging.ledger import Ledger


def cycle(n: int, query: str = "q") -> list[Ids]:
    ids = [(f"d{i:02}", f"d{(i + 1) % n:02}") for i in range(n)]
    return [(query, min(pair), max(pair)) for pair in ids]


@pytest.mark.parametrize("size", [3, 5, 8])
def test_lists_have_every_pair_and_documents_that_were_compared(size: int) -> None:
    pairs = [*cycle(20), *cycle(7, "other"), ("two", "a", "b")]
    documents = {doc_id: f"text of {doc_id}" for ids in pairs for doc_id in ids[1:]}
    found = lists_of(pairs, size, documents)
    covered = {ids for one in found for ids in one.pairs}
    assert covered >= {*pairs}
    assert all(2 <= len({*one.doc_ids}) == len(one.doc_ids) <= size for one in found)
    for one in found:  # each document was compared with another one of its list
        asked = {ids for ids in one.pairs if ids in pairs}
        assert {doc_id for ids in asked for doc_id in ids[1:]} == {*one.doc_ids}
    assert len(found) < len(pairs) / 1.4
    assert {*pairs[0][1:]} <= {*found[0].doc_ids}  # what would be asked first
    documents["d01"] = documents["d02"]
    apart = lists_of(pairs, size, documents)
    assert not any({"d01", "d02"} <= {*one.doc_ids} for one in apart)
    covered = {ids for one in apart for ids in one.pairs}
    assert covered >= {*pairs} - {("q", "d01", "d02"), ("other", "d01", "d02")}


def test_of_documents_that_were_all_compared_one_list_has_all() -> None:
    pairs = [("q", a, b) for a, b in combinations("abcdef", 2)]
    (one,) = lists_of(pairs, 6, {d: d for d in "abcdef"})
    assert sorted(one.doc_ids) == [*"abcdef"]


@pytest.fixture
def desk(tmp_path: Path) -> ListDesk:
    lists = [DocumentList("q", ("a", "b", "c")), DocumentList("q", ("b", "c", "d"))]
    pairs = list(dict.fromkeys(ids for one in lists for ids in one.pairs))
    documents = {d: f"text of {d}" for d in "abcd"}
    ledger = Ledger(tmp_path / "ledger.sqlite")
    return ListDesk(Desk(pairs, ledger, {"q": "a query"}, documents, {"q": "recent"}), lists)


def order(desk: ListDesk, person: str, number: int, **place: int | None) -> bool:
    shown = desk.shown(person, number)
    return desk.answer(person, number, [place[doc_id] for doc_id in shown.doc_ids])


def said(desk: ListDesk, person: str) -> dict[tuple[str, str], float | None]:
    found: dict[tuple[str, str], float | None] = {}
    for q, _, answer in desk.desk.answered([person]):
        low, high = sorted((q.doc_a, q.doc_b))
        score = answer.score
        found[low, high] = -score if score and low != q.doc_a else score
    return found


def test_an_order_says_what_is_better_of_each_pair(desk: ListDesk) -> None:
    shown = desk.next("Ann")
    assert shown is not None
    assert shown.content()["texts"] == [f"text of {doc_id}" for doc_id in shown.doc_ids]
    assert order(desk, "Ann", 0, a=1, b=0, c=1)
    assert said(desk, "Ann") == {("a", "b"): 1, ("b", "c"): -1, ("a", "c"): 0}
    assert desk.progress("Ann") == {"answered": 1, "asked": 2}
    assert order(desk, "Ann", 1, b=2, c=0, d=None)  # of what is answered the first answer counts
    assert said(desk, "Ann")["b", "c"] == -1
    assert [said(desk, "Ann")[pair] for pair in [("b", "d"), ("c", "d")]] == [None, None]
    assert desk.next("Ann") is None
    assert not order(desk, "Ann", 0, a=0, b=1, c=2)
    assert desk.next("Bob") is not None


def test_an_order_is_taken_back_with_all_that_it_said(desk: ListDesk, tmp_path: Path) -> None:
    order(desk, "Ann", 0, a=0, b=1, c=2)
    order(desk, "Ann", 1, b=0, c=1, d=2)
    back = desk.undo("Ann")
    assert back is not None
    assert back.number == 1
    assert dict(zip(back.doc_ids, back.places, strict=True)) == {"b": 0, "c": 1, "d": 2}
    assert set(said(desk, "Ann")) == {("a", "b"), ("a", "c"), ("b", "c")}
    with Ledger(tmp_path / "ledger.sqlite") as ledger:  # another process
        parts = (desk.desk.queries, desk.desk.documents, desk.desk.instructions)
        other = ListDesk(Desk(desk.desk.pairs, ledger, *parts), desk.lists)
        assert said(other, "Ann") == said(desk, "Ann")
        assert other.undo("Ann") is None
        assert order(other, "Ann", 1, b=0, c=1, d=2)
    assert not order(desk, "Ann", 1, b=2, c=1, d=0)  # was ordered there meanwhile
    assert desk.next("Ann") is None
    assert said(desk, "Ann")["b", "d"] == -1
    assert desk.undo("Ann") is not None  # the first list
    assert desk.undo("Ann") is None
    assert desk.progress("Ann")["answered"] == 0


@pytest.mark.parametrize(
    "places", ["left", None, [0, 1], [0, 1, 2, 3], [0, 1, -1], [0, 1, True], [0, 1, 0.5]]
)
def test_what_is_no_order_is_refused(desk: ListDesk, places: object) -> None:
    with pytest.raises(ValueError, match="places"):
        desk.answer("Ann", 0, places)
    with pytest.raises(ValueError, match="list 2"):
        desk.answer("Ann", 2, [0, 1, 2])
    assert said(desk, "Ann") == {}


def test_answers_of_lists_are_reported_and_exported(tmp_path: Path) -> None:
    """Those about pairs that no judge compared, too; of pairs of equal texts one alone."""
    judged = [("q", "a", "b"), ("q", "c", "d")]
    documents = {d: f"text of {d}" for d in "abcd"} | {"twin": "text of a"}
    ledger = Ledger(tmp_path / "ledger.sqlite")
    told = {"q": "recent"}
    every = [("q", *pair) for pair in combinations("abcd", 2)]
    lists = ListDesk(Desk(every, ledger, {"q": "a query"}, documents, told), [
        DocumentList("q", tuple("abcd"))
    ])  # fmt: skip
    order(lists, "Ann", 0, a=0, b=1, c=2, d=2)
    desk = Desk(judged, ledger, {"q": "a query", "other": "another"}, documents, told)
    assert len(desk.answered(["Ann"])) == 2
    whole = desk.with_pairs_beyond({"q": [*"abcd", "twin"], "other": [*"abcd"]})
    assert whole.pairs[:2] == judged
    assert len(whole.pairs) == 6
    assert len(whole.answered(["Ann"])) == 6
    given = [("q", "b", "twin"), ("other", "a", "b"), ("none", "a", "b"), ("other", "a", "x")]
    more = desk.with_pairs_beyond({"q": [*"abcd", "twin"], "other": [*"abcd"]}, given)
    assert set(more.pairs) - set(whole.pairs) == {("other", "a", "b")}
