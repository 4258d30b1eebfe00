"""What a reply about a block says, and what it does not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zelo.judging.list_reply import ListReply, read_best, read_order

SHOWN = ["K7", "B2", "M4", "T5"]


@pytest.mark.parametrize(
    ("text", "places", "relevant"),
    [
        ('{"order": [["M4"], ["K7", "T5"], ["B2"]], "relevant": 1}', [1, 2, 0, 1], 1),
        ('{"order": ["M4", "K7", "T5", "B2"]}', [1, 3, 0, 2], None),
        ('```json\n{"order": [["m4"], ["K7 = T5"], ["B2"]], "relevant": 0}\n```', [1, 2, 0, 1], 0),
        ('<think>B2 > M4?</think>{"order": ["M4", "K7", "T5", "B2"]}', [1, 3, 0, 2], None),
        ("M4 > K7 = T5 > B2", [1, 2, 0, 1], None),
        ("Here is the order:\n**M4 > K7 > T5 > B2**", [1, 3, 0, 2], None),
        ("1. M4: the one\n2. K7\n3. [T5]\n4. **B2**, off topic", [1, 3, 0, 2], None),
        ('{"order": ["M4", "K7", "T5", "B2"], "relevant": 9}', [1, 3, 0, 2], None),
        ('{"order": ["M4", "K7", "T5", "B2"], "relevant": true}', [1, 3, 0, 2], None),
        ('{"order": [["K7", "B2", "M4", "T5"]], "relevant": 0}', [0, 0, 0, 0], 0),
        ('{"order": ["M4 > K7 = T5 > B2"]}', [1, 2, 0, 1], None),
    ],
)
def test_orders_are_read(text: str, places: list[int], relevant: int | None) -> None:
    found = read_order(text, SHOWN)
    assert (found.places, found.relevant, found.problem) == (places, relevant, "")
    assert (found.missing, found.invented, found.doubled) == (0, 0, 0)


@pytest.mark.parametrize(
    ("order", "places", "counts"),
    [
        (["M4", "K7"], [1, None, 0, None], (2, 0, 0)),
        (["M4", "Q9", "K7", "T5", "B2"], [1, 3, 0, 2], (0, 1, 0)),
        (["M4", "K7", "T5", "B2", "M4"], [0, 2, None, 1], (0, 0, 1)),
        ([["M4", "M4"], "K7", "T5", "B2"], [1, 3, 0, 2], (0, 0, 1)),
        (["M4", 3, "K7", None, "T5"], [1, None, 0, 2], (1, 2, 0)),
        (["M4", "K7 (clearer than B2)", "T5", "B2"], [None, 2, 0, 1], (1, 1, 0)),
    ],
)
def test_of_a_wrong_label_nothing_is_guessed(
    order: list[object], places: list[int | None], counts: tuple[int, int, int]
) -> None:
    found = read_order(json.dumps({"order": order}), SHOWN)
    assert found.places == places
    assert (found.missing, found.invented, found.doubled) == counts


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ('{"order": [["M4"], ["K7"], ["T', [1, -1, 0, -1]),
        ('{"order": [["M4"], ["K7", "T5"', [-1, -1, 0, -1]),  # who else is at that place?
        ('{"order": ["M4", "K7", "B2", "T5"], "rel', [1, 2, 0, 3]),
        ('{"order": ["M4", "K7"', [1, -1, 0, -1]),
    ],
)
def test_what_a_cut_reply_does_not_come_to_is_below(text: str, places: list[int]) -> None:
    found = read_order(text, SHOWN, whole=False)
    assert (found.places, found.missing, found.problem) == (places, 0, "")


@pytest.mark.parametrize(
    ("text", "whole", "problem"),
    [
        ("", True, "empty"),
        ("", False, "cut_off"),
        ("<think>M4 > K7 > T5 > B2", True, "cut_off"),
        ("They are all fine.", True, "unparsable"),
        ('{"order": ["M4"]}', True, "unparsable"),
        ('{"order": ["M4", "K7"', True, "unparsable"),
        ('{"ranking": ["M4", "K7"]}', True, "unparsable"),
        ("M4 > K7\nor rather\nK7 > M4", True, "unparsable"),
        ('{"order": [[', False, "cut_off"),
        ("M4 is good, K7", False, "cut_off"),
    ],
)
def test_what_is_no_order(text: str, whole: bool, problem: str) -> None:
    found = read_order(text, SHOWN, whole)
    assert (found.problem, found.places) == (problem, [None] * 4)


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ('{"best": "M4"}', [-1, -1, 0, -1]),
        ("**M4**.", [-1, -1, 0, -1]),
        ('Well. {"best": "document m4"}', [-1, -1, 0, -1]),
        ('{"best": "M4"} {"best": "K7"}', None),
        ('{"best": "Q9"}', None),
        ('{"best": "M4 or K7"}', None),
        ("I think that M4 is.", None),
    ],
)
def test_the_best_is_read(text: str, places: list[int] | None) -> None:
    found = read_best(text, SHOWN)
    assert found.places == (places or [None] * 4)
    assert found.problem == ("" if places else "unparsable")


@given(st.permutations(SHOWN), st.lists(st.booleans(), min_size=3, max_size=3), st.integers(0, 4))
def test_an_order_comes_back(order: list[str], tied: list[bool], relevant: int) -> None:
    groups = [[order[0]]]
    for label, same in zip(order[1:], tied, strict=True):
        if same:
            groups[-1].append(label)
        else:
            groups.append([label])
    said = json.dumps({"order": groups, "relevant": relevant})
    found = read_order(said, SHOWN)
    assert found == ListReply(
        [next(i for i, group in enumerate(groups) if label in group) for label in SHOWN], relevant
    )
    assert ListReply.from_json(found.as_json()) == found
    in_words = " > ".join(" = ".join(group) for group in groups)
    assert read_order(in_words, SHOWN).places == found.places
    for end in range(len(said)):  # nothing else is read of its beginning
        begun = read_order(said[:end], SHOWN, whole=False)
        if not begun.problem:
            for i in range(4):
                for j in range(4):
                    a, b = (4 if p == -1 else p for p in (begun.places[i], begun.places[j]))
                    assert a is not None
                    assert b is not None
                    if a < b:
                        assert found.places[i] < found.places[j]  # type: ignore[operator]


@given(st.text(max_size=200), st.booleans())
def test_any_text_is_read(text: str, whole: bool) -> None:
    for read in (read_order, read_best):
        found = read(text, SHOWN, whole)
        assert len(found.places) == 4
        assert bool(found.problem) == (found.places == [None] * 4)
