from __future__ import annotations

import json
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zelo.judging.reply import as_asked_for, read_reply, read_tolerantly


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
        # As models write that do not keep to the format, each clear to a person.
        (r"\boxed{-1}", -1.0),
        (r"So the answer is $\boxed{A}$.", -1.0),
        ("It is off topic.\n\nTherefore I say \\boxed{\\text{B}}", 1.0),
        ("Score: -1/1", -1.0),
        ("-1.0 because A names the year", -1.0),
        ("0.5\n\nB is on topic, A is not.", 0.5),
        ("A is on topic, B is not.\n\n**A**", -1.0),
        ("**A**", -1.0),
        ("[[B]]", 1.0),
        ("Document B", 1.0),
        ("Answer: B", 1.0),
        ("Verdict: **Document A** because it is on topic", -1.0),
        ("The better document is B.", 1.0),
        ("Score: 0.5 (B is somewhat better)", 0.5),
        ('{"answer": "A"}', -1.0),
        ('{"winner": "document_b"}', 1.0),
        ('{"preferred": "B", "confidence": 0.8}', 0.8),
        ('{"preferred": "A", "confidence": "high"}', -1.0),
        ('{"verdict": "tie"}', 0.0),
        ('{"preferred": "B", "score": 0.5}', 0.5),
        ('Document A says\nscore: -1\nof itself.\n{"reasons": "x", "score": 1}', 1.0),
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
        ("score: -1/10", "unparsable"),
        ("answer: both", "unparsable"),
        ('{"winner": "both"}', "unparsable"),
        ('{"answer": "A", "preferred": "B"}', "unparsable"),
        ('{"preferred": "B", "score": -1}', "unparsable"),
        ('{"score": -0.4}\nNo, wait.\nscore: 0.6', "unparsable"),
        ("Score: -1\n\n**B**", "unparsable"),
        (r"\boxed{-7}", "out_of_range"),
        # What a document claims, quoted.
        ("Document A says \\boxed{-1}, which is its claim.\nI prefer the other.", "unparsable"),
        ('Document A says "score: -1", which is manipulation. I prefer B.', "unparsable"),
        ('{"reasons": "Document A says\nscore: -1\nfor itself, which', "unparsable"),
    ],
)
def test_what_is_no_answer_has_a_name(text: str | None, problem: str) -> None:
    reply = read_reply(text)
    assert reply.score is None
    assert reply.problem == problem


PIECES = st.sampled_from(
    [
        '"',
        "\\n",
        "{",
        "}",
        "</think>",
        "<think>",
        "</answer>",
        "<|channel|>final",
        "score: 1",
        "\u00a0",
        "A",
    ]
)


@given(
    st.lists(PIECES).map("".join),
    st.one_of(st.integers(-2, 2), st.floats(-2, 2), st.sampled_from([True, None, math.nan, "1"])),
    st.sampled_from(["{}", " {}\n", "{} ", "{}.", "[{}]", "```{}```", "<think></think>{}"]),
)
def test_what_is_asked_for_is_read_quickly_and_the_same(
    reasons: str, score: object, form: str
) -> None:
    for item in ({"reasons": reasons, "score": score}, {"score": score, "reasons": reasons}):
        text = form.replace("{}", json.dumps(item))
        quick = as_asked_for(text)
        assert quick in (None, read_tolerantly(text, True))
        plain = type(score) in (int, float) and -1 <= score <= 1  # type: ignore[operator]
        assert (quick is not None) == (plain and form.strip() == "{}")


THOUGHTS = [
    ("<think>{}</think>\n\n{}", True),
    ("<thinking>{}</thinking>{}", True),
    ("{}</think>{}", True),  # the first tag stands in the prompt
    ("<think>One.</think><think>{}</think>{}", True),
    ("[THINK]{}[/THINK]{}", True),
    ("<reasoning>{}</reasoning><answer>{}</answer>", True),
    (
        "<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>{}",
        True,
    ),
    ("analysis{}assistantfinal{}", False),  # control tokens dropped on the way
]


@pytest.mark.parametrize(("form", "begins"), THOUGHTS)
@pytest.mark.parametrize(
    "thought",
    [
        'First guess {"reasons": "A", "score": -0.4}. No, B is closer.',
        "Perhaps\nscore: -0.4\nbut B is closer.",
        "A is **better**.\n-0.4\n",
        "Hm.",
    ],
)
@pytest.mark.parametrize(
    "answer", ["score: 0.6", '{"reasons": "I </think> so", "score": 0.6}', "0.6"]
)
def test_thoughts_are_reasons_and_no_answer(
    form: str, begins: bool, thought: str, answer: str
) -> None:
    reply = read_reply(form.format(thought, answer))
    assert (reply.score, reply.problem) == (0.6, "")
    assert thought.strip() in reply.reasons
    if begins:  # a reply that was cut off within its thoughts
        cut = form.format(thought, "\0").split("</")[0].split("[/")[0].split("<|end|>")[0]
        if form.startswith("{}"):
            return
        for whole in (True, False):
            assert read_reply(cut, whole).score is None
            assert read_reply(cut, whole).problem == "cut_off"


def test_thoughts_alone_are_no_answer() -> None:
    assert read_reply("<think>score: 1</think>").problem == "empty"
    assert read_reply("<think>score: 1</think>", whole=False).problem == "cut_off"
    assert read_reply('{"reasons": "it says <think>score: 1", "score": -1}').score == -1
    assert read_reply("analysis of both: score: 0.5").problem == "unparsable"


def test_thoughts_may_be_long() -> None:
    start = time.monotonic()
    for filling in ("hm ", "</think>", "{", '{"score": ', "<think>", "score: 1\n"):
        text = "<think>" + filling * (400_000 // len(filling)) + '</think>{"score": 0.5}'
        assert read_reply(text).score == 0.5, filling
    assert time.monotonic() - start < 10


def test_of_what_was_cut_off_only_an_object_that_begins_it_counts() -> None:
    assert read_reply("A claims:\nscore: -1\n", whole=False).problem == "unparsable"
    assert read_reply('{"reasons": "x", "score": -1} And', whole=False).score == -1
    assert read_reply('```json\n{"reasons": "x", "score": -1}\n``', whole=False).score == -1
    assert read_reply("<think>x</think>\n" + '{"score": -1} And', whole=False).score == -1
    guess = 'First guess {"reasons": "x", "score": -1}. But'
    assert read_reply(guess, whole=False).problem == "unparsable"


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
