"""A judge that answers with one letter, over real HTTP."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest
from tests.judging.endpoint import Running, running
from tests.judging.test_api import ask, expected, questions

from zelo.config import describe
from zelo.judging.api import ApiJudge, ApiSession
from zelo.judging.estimate import JudgeWorkload, TextLengths
from zelo.judging.one_token import OneToken
from zelo.judging.provider import Provider
from zelo.judging.spending import Price


def judge(endpoint: Running, **options: int) -> ApiSession:
    provider = Provider(name="fake", timeout=2.0, in_flight=8, base_url=endpoint.base_url)
    price = Price(input=1.0, output=10.0)
    return OneToken(provider=provider, model="m", price=price, **options).prepare(Path(), {}, 0)


@pytest.mark.parametrize("how", ["both", "space"])
def test_the_score_is_the_difference_of_the_letters_probabilities(how: str, tmp_path: Path) -> None:
    asked = questions(30)
    with running(logprobs=how) as endpoint:
        found, spending = ask(judge(endpoint, max_tokens=1 + (how == "space")), asked, tmp_path)
        body, counts = endpoint.counts()["body"], endpoint.counts()
        again, _ = ask(judge(endpoint, max_tokens=1 + (how == "space")), asked, tmp_path)
    answers = found.answers["judge"]
    assert [a.score for a in answers if a] == pytest.approx([expected(q) for q in asked])
    assert all(a is not None and a.reasons.startswith("log P(B)/P(A) = ") for a in answers)
    assert spending.usd == pytest.approx(30 * (900e-6 + 10e-6))  # one token is written
    assert (body["logprobs"], body["top_logprobs"]) == (True, 20)
    assert "response_format" not in body
    assert counts["requests"] == 30
    assert (again.new_answers, again.answers) == (0, found.answers)


def test_a_letter_that_is_not_listed_is_less_likely_than_all_that_are(tmp_path: Path) -> None:
    asked = questions(6)
    with running(logprobs="alone") as endpoint:
        found, _ = ask(judge(endpoint), asked, tmp_path)
    for question, answer in zip(asked, found.answers["judge"], strict=True):
        assert answer is not None
        assert answer.score is not None
        better = expected(question) or -1  # of equal ones A is listed
        assert answer.score * better > 0
        likelier = 0.4 * (1 + abs(expected(question))) / 2
        assert abs(answer.score) == pytest.approx((likelier - 0.01) / (likelier + 0.01))


@pytest.mark.parametrize(
    ("how", "problem", "advice"),
    [("none", "no_letter", "switch thinking off"), ("", "no_logprobs", "judge=vllm")],
)
def test_what_is_no_answer_is_said_and_nothing_more_is_asked(
    how: str, problem: str, advice: str, tmp_path: Path
) -> None:
    with running(logprobs=how) as endpoint:
        found, _ = ask(judge(endpoint), questions(60), tmp_path)
        counts = endpoint.counts()
    given_up = found.given_up["judge"]
    assert problem in given_up
    assert advice in given_up
    assert counts["requests"] < 60
    assert counts["corrected"] == 0  # a correction would ask for another form
    assert set(found.answers["judge"]) == {None}  # none is kept: they are asked when it is mended


def test_faults_of_the_wire_are_tried_again(tmp_path: Path) -> None:
    asked = questions(30)
    kinds = "rate_limited,server_error,connection,truncated,invalid_json"
    with running(logprobs="both", faults=0.4, kinds=kinds, seed=4, retry_after=0.01) as endpoint:
        session = judge(endpoint)
        session.judge = session.judge.model_copy(
            update={"provider": session.judge.provider.model_copy(update={"attempts": 20})}
        )
        found, _ = ask(session, asked, tmp_path)
        assert set(endpoint.counts()["answered"].values()) == {1}
    assert [a.score for a in found.answers["judge"] if a] == pytest.approx(
        [expected(q) for q in asked]
    )


def test_its_answers_are_its_own(tmp_path: Path) -> None:
    """Neither those of the same model that gives reasons, nor planned as dear as those."""
    provider = Provider(name="fake", base_url="http://localhost:1/v1")
    options = {"provider": provider, "model": "m", "price": Price(input=1.0, output=10.0)}
    plain, one = ApiJudge(**options), OneToken(**options)
    assert plain.prepare(Path(), {}, 0).fingerprint != one.prepare(Path(), {}, 0).fingerprint
    assert describe(plain) != describe(one)
    lengths = TextLengths(10.0, np.array([200.0]))
    workload = JudgeWorkload((100, 100), 0, lengths, tmp_path / "none", date(2026, 11, 27))
    dear, cheap = (each.estimate("judge", workload).usd for each in (plain, one))
    assert dear is not None
    assert cheap is not None
    assert cheap[0] < 0.5 * dear[0]
