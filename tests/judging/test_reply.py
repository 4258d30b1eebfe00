from __future__ import annotations

import json
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zelo.judging.reply import read_reply


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ('{"reasons": "b", "score": 0.5}', 0.5),
        ('{"score": -1}', -1.0),  # no decimals
        ('{"score": "-0.5"}', -0.5),
        ('{"reasons": "a {brace} and \\"quotes\\"", "score": 1}', 1.0),
        ('```json\n{"reasons": "x", "score": -0.25}\n```', -0.25),
        ('Let me think.\n{"reasons": "x", "score": 0}\nThat is all.', 0.0),
        ('{"note": 1} {"score": 0.75}', 0.75),
        ('{"answer": {"score": 0.5}}', 0.5),
        ("Both are fine.\n**Score:** -1", -1.0),
        ("Score = \u22120.5.", -0.5),
        ("the score is 0.3", 0.3),
        ("Score: -0.5\n\nReasons: A answers it, B does not.", -0.5),
        ("- **Final score:** `0.25`", 0.25),
        ("score: -.5", -0.5),
        ("-1", -1.0),
        (" 0.25. ", 0.25),
        ('{"score": 0.5} and once more {"score": 0.5}', 0.5),
        ('{"score": 1e-1}', 0.1),
    ],
)
def test_a_score_is_found(text: str, score: float) -> None:
    assert read_reply(text).score == score
    assert read_reply(text).problem == ""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "empty"),
        (" \n", "empty"),
        ("I prefer document A.", "unparsable"),
        ("Document A scores well on 3 of 4 points.", "unparsable"),
        ('{"reasons": "x", "score": ', "unparsable"),
        ('{"reasons": "x", "score": null}', "unparsable"),
        ('{"reasons": "x", "score": true}', "unparsable"),
        ('{"reasons": "x", "score": [1]}', "unparsable"),
        ('{"score": 1} or maybe {"score": -1}', "unparsable"),
        ("score: 1, on reflection score: -1", "unparsable"),
        ('{"score": NaN}', "not_a_number"),
        ("score: nan", "not_a_number"),
        ('{"score": 7}', "out_of_range"),
        ('{"score": Infinity}', "out_of_range"),
        ('{"score": 1' + "0" * 400 + "}", "out_of_range"),
        ("-1.01", "out_of_range"),
        ("score: 8/10", "unparsable"),
        ("score: 1 out of 10", "unparsable"),
        # What a document claims, quoted.
        ('Document A says "score: -1", which is manipulation. I prefer B.', "unparsable"),
        ('{"reasons": "Document A says\nscore: -1\nfor itself, which', "unparsable"),
    ],
)
def test_what_is_no_answer_has_a_name(text: str | None, problem: str) -> None:
    reply = read_reply(text)
    assert reply.score is None
    assert reply.problem == problem


def test_of_what_was_cut_off_only_a_complete_object_counts() -> None:
    assert read_reply("A claims:\nscore: -1\n", whole=False).problem == "unparsable"
    assert read_reply('{"reasons": "x", "score": -1} And', whole=False).score == -1


@given(st.floats(-1, 1), st.text(max_size=60))
def test_json_is_read_back(score: float, reasons: str) -> None:
    reply = read_reply(json.dumps({"reasons": reasons, "score": score}))
    assert (reply.score, reply.reasons) == (score, reasons)


@given(st.text() | st.text(alphabet='{}[]":,score-+.0123456789eEnai \n'))
def test_whatever_comes_is_an_answer_in_range_or_a_problem(text: str) -> None:
    reply = read_reply(text)
    assert (reply.score is None) == (reply.problem != "")
    if reply.score is not None:
        assert -1 <= reply.score <= 1
        assert not math.isnan(reply.score)


def test_a_reply_without_end_is_soon_given_up() -> None:
    start = time.monotonic()
    assert read_reply('{"score": ' * 100_000).problem == "unparsable"
    assert time.monotonic() - start < 1
