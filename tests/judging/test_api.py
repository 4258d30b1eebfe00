"""Judges asked over real HTTP, by an endpoint that goes wrong on purpose."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.judging.endpoint import CONTENT, WIRE, Running, running, score

from zelo.comparison.graphs import Cycles
from zelo.config import describe
from zelo.errors import UserError
from zelo.judging import prompt
from zelo.judging.api import ApiJudge, ApiSession
from zelo.judging.asking import AskOutcome, ask_all
from zelo.judging.base import LocalSession, RequestContext
from zelo.judging.endpoint import redact
from zelo.judging.ledger import Ledger
from zelo.judging.provider import Provider
from zelo.judging.question import Answer, Question
from zelo.judging.spending import Budget, Price, Spending

RUN = "run"


def judge(endpoint: Running | str, model: str = "m", **options: Any) -> ApiSession:
    base_url = endpoint if isinstance(endpoint, str) else endpoint.base_url
    provider = {"name": "fake", "timeout": 0.5, "in_flight": 8, "base_url": base_url}
    provider |= options.pop("provider", {})
    options.setdefault("price", Price(input=1.0, output=10.0))
    made = ApiJudge(provider=Provider(**provider), model=model, **options)
    return made.prepare(Path(), {}, 0)


def questions(n: int, first: int = 0) -> list[Question]:
    """Each with two documents whose worth the endpoint reads, all texts different."""
    worth = [(i / 100, ((i * 37 + 11) % 200) / 100) for i in range(first, first + n)]
    return [
        Question(f"q{i}", f"a{i}", f"b{i}", 0, f"query {i}", f"worth={a}", f"worth={b}")
        for i, (a, b) in enumerate(worth, first)
    ]


def expected(question: Question) -> float:
    a, b = (text.removeprefix("worth=") for text in (question.text_a, question.text_b))
    return score(a, b)


def ask(
    judges: ApiSession | Mapping[str, ApiSession],
    asked: list[Question],
    folder: Path,
    retry: int = 0,
    **limits: Any,
) -> tuple[AskOutcome, Spending]:
    named = {"judge": judges} if isinstance(judges, ApiSession) else judges
    with Ledger(folder / "ledger.sqlite") as ledger:
        spending = Spending(Budget(**limits), *ledger.spent(RUN))
        result = ask_all(named, dict.fromkeys(named, asked), ledger, spending, RUN, retry)
        assert ledger.spent(RUN) == (spending.calls, spending.usd)
    return result, spending


def test_each_question_is_asked_once_and_its_answer_kept(tmp_path: Path) -> None:
    asked = questions(100)
    with running(latency=0.01) as endpoint:
        first, spending = ask(judge(endpoint), asked, tmp_path)
        again, _ = ask(judge(endpoint), asked, tmp_path)
        counts = endpoint.counts()
    answers = first.answers["judge"]
    assert [answer.score for answer in answers if answer] == [expected(q) for q in asked]
    assert answers[1] is not None
    assert answers[1].reasons.startswith("worth 0.01 and")
    assert (answers[1].tokens_in, answers[1].tokens_out) == (900, 60)
    assert answers[1].usd == pytest.approx(0.0009 + 0.0006)
    assert spending.usd == pytest.approx(100 * 0.0015)
    assert (spending.calls, spending.open) == (100, 0)
    assert set(counts["answered"].values()) == {1}
    assert counts["requests"] == 100
    assert counts["most_in_flight"] <= 8
    assert (again.new_answers, again.answers) == (0, first.answers)


def test_a_server_that_keeps_beginnings_reads_them_once(tmp_path: Path) -> None:
    """Four cycles of twenty documents of some 150 tokens: the prompts of a query begin alike up to
    the first document that differs, and what was kept is cheaper."""
    rng = np.random.default_rng(0)
    asked = []
    for n in range(3):
        docs = [
            f"worth={(7 * n + 13 * i) % 40 / 10} {'several words here ' * 30}" for i in range(20)
        ]
        for a, b in Cycles(cycles=4).edges(20, rng).tolist():
            asked.append(Question(f"q{n}", f"{a}", f"{b}", 0, f"query {n}", docs[a], docs[b]))
    price = Price(input=1.0, output=0.0, cached=0.1)
    with running(cache=True) as endpoint:
        session = judge(endpoint, price=price, provider={"in_flight": 1})
        found, spending = ask(session, asked, tmp_path)
        kept = endpoint.counts()["kept"]
    assert kept > 0.6
    assert session.cached_tokens / session.read_tokens == pytest.approx(kept)
    read = sum(answer.tokens_in for answer in found.answers["judge"] if answer)
    assert read == session.read_tokens
    assert spending.usd == pytest.approx(read * (kept * 0.1 + (1 - kept)) / 1e6)


@pytest.mark.parametrize("kind", [*WIRE, *CONTENT])
def test_what_may_help_is_tried_again(kind: str, tmp_path: Path) -> None:
    """Half the requests go wrong, and every answer is there in the end, once."""
    asked = questions(12)
    with running(faults=0.5, kinds=kind, hang=1, seed=3, retry_after=0.05) as endpoint:
        provider = {"attempts": 20, "timeout": 0.4}
        found, _ = ask(judge(endpoint, provider=provider), asked, tmp_path)
        counts = endpoint.counts()
    assert [a.score for a in found.answers["judge"] if a] == [expected(q) for q in asked]
    assert counts["faults"][kind] > 0
    assert found.failed_attempts["judge"][kind] == counts["faults"][kind]
    assert set(counts["answered"].values()) == {1}
    if kind in CONTENT and kind not in ("empty", "cut_off"):  # told what was wrong
        assert counts["corrected"] > 0


@pytest.mark.parametrize(
    ("kind", "requests"),
    [("refused", 1), ("too_long", 1), *((kind, 2) for kind in CONTENT)],
)
def test_what_does_not_help_is_a_failed_answer_and_no_tie(
    kind: str, requests: int, tmp_path: Path
) -> None:
    asked = questions(3)
    with running(always=kind) as endpoint:
        found, spending = ask(judge(endpoint), asked, tmp_path)
        again, _ = ask(judge(endpoint), asked, tmp_path)
        counts = endpoint.counts()
    answers = found.answers["judge"]
    assert all(isinstance(answer, Answer) for answer in answers)
    assert [(a.score, a.status) for a in answers if a] == [(None, kind)] * 3
    assert counts["requests"] == 3 * requests  # one corrective request, where it may help
    assert again.new_answers == 0  # and never again
    if kind not in ("too_long",):
        assert spending.usd == pytest.approx(3 * requests * 0.0015)  # paid for all the same


@pytest.mark.parametrize("kind", ["thinks", "beside", "tool", "no_usage"])
def test_an_answer_is_found_wherever_an_endpoint_puts_it(kind: str, tmp_path: Path) -> None:
    asked = questions(5)
    with running(always=kind) as endpoint:
        found, _ = ask(judge(endpoint), asked, tmp_path)
        assert endpoint.counts()["requests"] == 5
    answers = [a for a in found.answers["judge"] if a]
    assert [a.score for a in answers] == [expected(q) for q in asked]
    assert kind != "thinks" or all("Maybe score: 0.123" in a.reasons for a in answers)


def test_thoughts_without_an_answer_are_told_from_nothing(tmp_path: Path) -> None:
    with running(always="thoughts_only") as endpoint:
        found, _ = ask(judge(endpoint), questions(3), tmp_path)
    answers = [a for a in found.answers["judge"] if a]
    assert {a.status for a in answers} == {"thoughts_only"}
    assert {a.reasons for a in answers} == {"I think of score: 1"}


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("unparsable", r"20 unparsable \('Hard to say.*structured=json_schema"),
        ("cut_off", r"20 cut_off .*max_tokens=1024 is too little"),
        ("thoughts_only", r"20 thoughts_only .*enable_thinking: false"),
        ("too_long", r"20 too_long .*max_document_tokens=1000"),
        ("refused", r"20 refused .*another model"),
    ],
)
def test_a_judge_of_no_use_is_given_up_and_asked_again_when_mended(
    kind: str, advice: str, tmp_path: Path
) -> None:
    asked = questions(150)
    with running(always=kind) as endpoint:
        found, _ = ask(judge(endpoint, provider={"in_flight": 64}), asked, tmp_path)
        assert endpoint.counts()["requests"] <= 2 * 39  # 20, and 19 that were in flight by then
    assert found.answers["judge"] == [None] * 150
    assert re.search(advice, found.given_up["judge"])
    with running() as mended:
        found, _ = ask(judge(mended), asked, tmp_path)
        assert mended.counts()["requests"] == 150
    assert [a.score for a in found.answers["judge"] if a] == [expected(q) for q in asked]


def test_failures_after_an_answer_are_kept_and_asked_again_on_demand(tmp_path: Path) -> None:
    """All of them may fail again: what was paid for stays, and the last answer counts."""
    asked = questions(60)
    with running(faults=0.3, kinds="refused", seed=1) as endpoint:
        first, _ = ask(judge(endpoint), asked, tmp_path)
        again, _ = ask(judge(endpoint), asked, tmp_path)
        assert again.new_answers == 0
        failed = [i for i, a in enumerate(first.answers["judge"]) if a and a.score is None]
        assert 5 < len(failed) < 40
        second, _ = ask(judge(endpoint), asked, tmp_path, retry=1)
        assert second.new_answers == len(failed)
        still = [i for i in failed if second.answers["judge"][i].score is None]
        assert 0 < len(still) < len(failed)
    with running() as mended:
        third, _ = ask(judge(mended), asked, tmp_path, retry=2)
        assert mended.counts()["requests"] == len(still)
        once_more, _ = ask(judge(mended), asked, tmp_path, retry=2)
    assert [a.score for a in third.answers["judge"] if a] == [expected(q) for q in asked]
    assert once_more.new_answers == 0
    assert once_more.answers == third.answers


@pytest.mark.parametrize(
    ("kind", "status", "words"),
    [
        ("flat", "too_long", "maximum context length is 8192"),
        ("detail", "rejected", "Extra inputs are not permitted"),
        ("page", "rejected", "Bad gateway to nowhere"),
    ],
)
def test_the_words_of_an_error_are_kept_whatever_its_form(
    kind: str, status: str, words: str, tmp_path: Path
) -> None:
    asked = questions(6)
    with running(always=kind, mended_after=1) as endpoint:
        found, _ = ask(judge(endpoint, provider={"in_flight": 1}), asked, tmp_path)
    (failed,) = [a for a in found.answers["judge"] if a and a.score is None]
    assert failed.status == status
    assert words in failed.reasons


def test_an_endpoint_that_cuts_prompts_is_noticed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(always="reads_half") as endpoint:
        ask(judge(endpoint), questions(9), tmp_path)
        said = capsys.readouterr()
    lines = [line for line in (said.out + said.err).splitlines() if "it read 40 tokens" in line]
    assert len(lines) == 1
    assert "num_ctx" in lines[0]


@pytest.mark.parametrize(
    ("shape", "tokens_out"),
    [("of_azure", 3), ("of_bedrock", 30), ("of_vertex", 23), ("of_openrouter", 3)],
)
def test_answers_in_the_shapes_of_providers(shape: str, tokens_out: int, tmp_path: Path) -> None:
    """As Azure, Bedrock, Vertex AI and OpenRouter write them; what was thought is paid for too."""
    asked = questions(5)
    with running(always=shape) as endpoint:
        session = judge(endpoint)
        found, _ = ask(session, asked, tmp_path)
    answers = [answer for answer in found.answers["judge"] if answer]
    assert [answer.score for answer in answers] == [expected(q) for q in asked]
    assert {answer.tokens_out for answer in answers} == {tokens_out}
    assert session.cached_tokens == (5 * 4 if shape == "of_openrouter" else 0)


def test_what_a_provider_filters_is_refused_and_what_is_behind_a_gateway_comes_back(
    tmp_path: Path,
) -> None:
    with running(always="of_azure_filter") as endpoint:
        found, _ = ask(judge(endpoint), questions(3), tmp_path)
    assert {answer.status for answer in found.answers["judge"] if answer} == {"refused"}
    with running(always="of_openrouter_error", mended_after=4) as endpoint:
        session = judge(endpoint, "other", provider={"attempts": 20})
        found, _ = ask(session, questions(3), tmp_path)
    assert [a.score for a in found.answers["judge"] if a] == [expected(q) for q in questions(3)]
    assert found.failed_attempts["judge"]["server_error"] == 4


def test_azure_and_gateways_by_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_KEY", "0123abc")
    with running(azure="0123abc") as endpoint:
        provider = {
            "base_url": f"{endpoint.base_url}?api-version=2024-10-21",
            "key_variable": "AZURE_KEY",
            "key_header": "api-key",
            "headers": {"X-Team": "TEAM"},
        }
        made = judge("http://one/v1", provider=provider)
        with pytest.raises(UserError, match="TEAM is not set; put the value of the header X-Team"):
            ask(made, questions(2), tmp_path)
        monkeypatch.setenv("TEAM", "search")
        found, _ = ask(made, questions(2), tmp_path)
    assert [a.score for a in found.answers["judge"] if a] == [expected(q) for q in questions(2)]


def test_a_question_alone_that_is_rejected_is_a_failed_answer(tmp_path: Path) -> None:
    asked = questions(60)
    with running(faults=0.1, kinds="rejected_once", seed=2) as endpoint:
        found, _ = ask(judge(endpoint), asked, tmp_path)
        rejected = endpoint.counts()["faults"]["rejected_once"]
    failed = [a for a in found.answers["judge"] if a and a.score is None]
    assert [a.status for a in failed] == ["rejected"] * rejected != []
    assert "Invalid value in this one" in failed[0].reasons
    assert None not in found.answers["judge"]
    assert found.given_up == {}


@pytest.mark.parametrize(
    ("kind", "status"),
    [("no_code", "too_long"), ("surrogate", "answered"), ("huge_usage", "answered")],
)
def test_what_endpoints_do_against_the_rules(kind: str, status: str, tmp_path: Path) -> None:
    with running(always=kind) as endpoint:
        found, _ = ask(judge(endpoint), questions(3), tmp_path)
        again, _ = ask(judge(endpoint), questions(3), tmp_path)
    assert [a.status for a in found.answers["judge"] if a] == [status] * 3
    assert again.new_answers == 0
    if kind == "surrogate":
        assert {a.reasons for a in found.answers["judge"] if a} == {"half a ?"}


def test_tokens_that_were_thought_are_billed(tmp_path: Path) -> None:
    with running(always="thinking") as endpoint:
        found, spending = ask(judge(endpoint), questions(1), tmp_path)
    (answer,) = found.answers["judge"]
    assert answer is not None
    assert (answer.tokens_in, answer.tokens_out) == (9, 96)
    assert spending.usd == pytest.approx((9 * 1 + 96 * 10) / 1e6)


@pytest.mark.parametrize(("retry_after", "patience"), [(0, 60), (0.001, 0.5)])
def test_a_wait_that_is_none_is_no_licence(
    retry_after: float, patience: float, tmp_path: Path
) -> None:
    """An endpoint that says no and `Retry-After: 0` is not asked as fast as it can say so."""
    provider = {"attempts": 2, "patience": patience, "in_flight": 2}
    with running(always="rate_limited", retry_after=retry_after) as endpoint:
        found, _ = ask(judge(endpoint, provider=provider), questions(20), tmp_path)
        assert endpoint.counts()["requests"] < 80
    assert "rate_limited" in found.given_up["judge"]


@pytest.mark.parametrize("kind", ["unauthorised", "rejected", "server_error", "timeout"])
def test_a_judge_that_is_down_is_given_up_and_the_others_go_on(kind: str, tmp_path: Path) -> None:
    asked = questions(40)
    provider = {"attempts": 2, "timeout": 0.2, "in_flight": 4}
    with running(always=kind, hang=1) as broken, running() as well:
        both = {"down": judge(broken, "a", provider=provider), "up": judge(well, "b")}
        found, _ = ask(both, asked, tmp_path)
        assert broken.counts()["requests"] < 25
        assert found.answers["down"] == [None] * 40
        assert [a.score for a in found.answers["up"] if a] == [expected(q) for q in asked]
        assert list(found.given_up) == ["down"]
        assert kind in found.given_up["down"]
    with running() as mended:
        both["down"] = judge(mended, "a", provider=provider)
        found, _ = ask(both, asked, tmp_path)
        assert mended.counts()["requests"] == 40  # the next run asks for what is missing alone
    assert None not in found.answers["down"]
    assert found.new_answers == 40


def test_an_endpoint_that_is_not_there(tmp_path: Path) -> None:
    provider = {"attempts": 2}
    found, spending = ask(judge("http://127.0.0.1:9/v1", provider=provider), questions(9), tmp_path)
    assert found.answers["judge"] == [None] * 9
    assert "connection" in found.given_up["judge"]
    assert spending.usd == pytest.approx(0.0)


def test_retry_after_is_honoured_by_all_requests(tmp_path: Path) -> None:
    with running(faults=0.1, kinds="rate_limited", retry_after=0.4, seed=1) as endpoint:
        start = time.monotonic()
        ask(judge(endpoint), questions(60), tmp_path)
        seconds = time.monotonic() - start
        counts = endpoint.counts()
    # Requests that were under way when the first 429 was sent may still arrive, no others.
    assert counts["early"] <= 7 * counts["faults"]["rate_limited"]
    assert seconds > 0.4


def test_requests_per_minute_are_kept_to(tmp_path: Path) -> None:
    with running(rpm=True) as endpoint:
        provider = {"requests_per_minute": 600}
        ask(judge(endpoint, provider=provider), questions(40), tmp_path)
        times = endpoint.counts()["times"]
    # Ten at once, then 9.8 a second.
    assert times[-1] - times[0] == pytest.approx(30 / 9.833, rel=0.25)


def test_tokens_per_minute_are_kept_to(tmp_path: Path) -> None:
    with running(rpm=True) as endpoint:
        # 960 tokens a request: 20 a second.
        provider = {"tokens_per_minute": 960 * 20 * 60}
        ask(judge(endpoint, provider=provider), questions(80), tmp_path)
        times = endpoint.counts()["times"]
    assert times[-1] - times[0] == pytest.approx(60 / 20, rel=0.35)


@pytest.mark.parametrize("limits", [{"calls": 25}, {"usd": 0.04}])
def test_a_budget_is_never_passed_and_counts_on_after_a_stop(
    limits: dict[str, float], tmp_path: Path
) -> None:
    asked = questions(100)
    with running(latency=0.005, faults=0.2, kinds="server_error,unparsable") as endpoint:
        found, spending = ask(judge(endpoint, max_tokens=64), asked, tmp_path, **limits)
        counts = endpoint.counts()
        answers = [answer for answer in found.answers["judge"] if answer]
        assert spending.exhausted
        assert next(iter(limits)) in spending.reached
        assert 5 < len(answers) < 30
        assert counts["requests"] == spending.calls <= limits.get("calls", 1000)
        assert spending.usd <= limits.get("usd", 1000)
        _, spending = ask(judge(endpoint, max_tokens=64), asked, tmp_path, **limits)
        assert endpoint.counts()["requests"] - counts["requests"] <= 2
        done, spending = ask(judge(endpoint, max_tokens=64), asked, tmp_path, calls=1000)
        assert None not in done.answers["judge"]
        assert spending.calls == endpoint.counts()["requests"]  # those of all three attempts


def test_a_price_must_be_known_under_a_budget(tmp_path: Path) -> None:
    with running() as endpoint, pytest.raises(UserError, match=r"price of fake/m is not in"):
        ask(judge(endpoint, price=None), questions(1), tmp_path, usd=1.0)


def test_a_key_comes_from_the_environment_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "sk-planted-0123456789"
    with running(key=key) as endpoint:
        keyed = judge(endpoint, provider={"key_variable": "SOME_KEY"})
        with pytest.raises(UserError, match="SOME_KEY is not set"):
            ask(keyed, questions(2), tmp_path)
        monkeypatch.setenv("SOME_KEY", key)
        found, _ = ask(keyed, questions(2), tmp_path)
    assert None not in found.answers["judge"]
    monkeypatch.delenv("SOME_KEY")  # nothing is missing, so no key is needed
    found, _ = ask(keyed, questions(2), tmp_path)
    assert found.new_answers == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key_variable": "sk-my-secret-key"}, "the NAME of an environment variable"),
        ({"base_url": "https://user:password@host/v1"}, "a password has no place"),
        ({"base_url": "localhost:8000"}, "an http"),
        ({"base_url": "https://h/v1?api-key=my-secret-key"}, "a key has no place"),
        ({"headers": {"X-Key": "my-secret-key"}}, "the NAME of an environment variable"),
    ],
)
def test_a_secret_in_the_configuration_is_refused_and_not_repeated(
    options: dict[str, str], message: str
) -> None:
    from zelo.config import build

    node = {"_target_": "zelo.judging.provider.Provider", "name": "x", "base_url": "http://h/v1"}
    with pytest.raises(UserError, match=message) as error:
        build({**node, **options}, "provider")
    assert "secret" not in str(error.value)
    assert "password@" not in str(error.value)


def test_a_key_that_is_said_back_is_taken_out() -> None:
    assert redact("Bearer abc123xyz failed", "abc123xyz") == "Bearer *** failed"
    assert redact("Incorrect key: sk-planted***9999", "other-key") == "Incorrect key: ***"
    assert redact("none at all", "") == "none at all"
    assert redact("key AIzaSyD0123456789abc no", "other") == "key *** no"
    assert redact("407 http://me:secret@proxy:8080 no", "other") == "407 http://***@proxy:8080 no"


def test_nor_is_its_beginning_left_where_a_text_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "plain0123456789abcdefghij0123456789")
    with running(always="listed") as endpoint:
        keyed = judge(endpoint, provider={"key_variable": "SOME_KEY"})
        found, _ = ask(keyed, questions(9), tmp_path)
    assert "Listed trouble" in found.given_up["judge"]
    assert "plain" not in found.given_up["judge"]


def test_the_schema_and_the_limit_are_sent_as_the_endpoint_wants_them(tmp_path: Path) -> None:
    provider = {"structured": "json_schema", "token_limit_field": "max_completion_tokens"}
    with running() as endpoint:
        ask(judge(endpoint, provider=provider, max_tokens=77), questions(1), tmp_path)
        body = endpoint.counts()["body"]
    schema = body.pop("response_format")["json_schema"]
    assert body == {"model": "m", "max_completion_tokens": 77}
    assert schema["strict"]
    assert list(schema["schema"]["properties"]) == ["reasons", "score"]  # in this order


def test_a_model_without_a_system_role(tmp_path: Path) -> None:
    """Chat templates that know none refuse the whole request: the instructions go elsewhere."""
    asked = questions(8)
    with running(no_system=True) as endpoint:
        found, _ = ask(judge(endpoint), asked, tmp_path)
        assert (
            "System role not supported; judge.judges.NAME.system_role=false"
            in found.given_up["judge"]
        )
        merged = judge(endpoint, system_role=False)
        assert merged.fingerprint != judge(endpoint).fingerprint
        found, _ = ask(merged, asked, tmp_path)
    for question, answer in zip(asked, found.answers["judge"], strict=True):
        assert answer is not None
        assert answer.score == pytest.approx(expected(question))


def test_an_address_where_nothing_is_served_says_what_to_look_at(tmp_path: Path) -> None:
    with running() as endpoint:
        found, _ = ask(judge(endpoint.base_url.removesuffix("/v1")), questions(3), tmp_path)
    assert "does provider.base_url end in /v1" in found.given_up["judge"]


@pytest.mark.parametrize("field", ["max_tokens", "n", "messages"])
def test_the_budget_is_not_undone_by_more_fields(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field}: set by the judge's own options"):
        judge("http://one/v1", extra_body={field: 5})


class Broken(LocalSession):
    """A judge that computes here and breaks."""

    fingerprint = "broken"

    def answer(self, questions: list[Question]) -> list[Answer]:
        raise RuntimeError("CUDA out of memory\nand more lines")


class Odd(Broken):
    """One that gives scores which are none."""

    fingerprint = "odd"

    def answer(self, questions: list[Question]) -> list[Answer]:
        return [Answer((math.nan, 2.0, 0.5)[i % 3]) for i, _ in enumerate(questions)]


def test_a_judge_that_breaks_leaves_the_others_alone(tmp_path: Path) -> None:
    asked = questions(30)
    with running(latency=0.05) as endpoint:
        found, _ = ask({"here": Broken(), "there": judge(endpoint)}, asked, tmp_path)
    assert None not in found.answers["there"]
    assert found.answers["here"] == [None] * 30
    assert found.given_up == {"here": "RuntimeError: CUDA out of memory"}
    with pytest.raises(RuntimeError, match="CUDA"):  # nobody is left: it is our own mistake
        ask({"here": Broken()}, asked, tmp_path)


def test_a_score_that_is_none_is_a_failed_answer(tmp_path: Path) -> None:
    found, _ = ask({"odd": Odd()}, questions(3), tmp_path)
    assert [(a.score, a.status) for a in found.answers["odd"] if a] == [
        (None, "not_a_number"),
        (None, "out_of_range"),
        (0.5, "answered"),
    ]


def test_who_waits_looks_whether_there_is_still_a_reason_to() -> None:
    async def waiting() -> float:
        stop = asyncio.Event()
        wait = asyncio.Event().wait
        context = RequestContext(print, print, Spending(Budget()), {}, stop, wait, Path(), RUN, str)
        start = time.monotonic()
        rest = asyncio.create_task(context.sleep(60))
        await asyncio.sleep(0.1)
        context.given_up = "gone"
        assert await rest
        return time.monotonic() - start

    assert asyncio.run(waiting()) < 2


def test_two_judges_of_a_provider_share_its_limits(tmp_path: Path) -> None:
    with running(latency=0.02) as endpoint:
        two = {name: judge(endpoint, name, provider={"in_flight": 4}) for name in "xy"}
        ask(two, questions(30), tmp_path)
        assert endpoint.counts()["most_in_flight"] <= 4


@pytest.mark.parametrize("name", ["compare", "cross", "order", "best"])
def test_a_changed_prompt_is_another_stage(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the store would go on serving what was said to the old one."""
    asked = judge("http://one/v1").judge
    before, hashed = describe(asked), prompt.prompt_hash
    changed = lambda of="compare": "another" if of == name else hashed(of)  # noqa: E731
    monkeypatch.setattr(prompt, "prompt_hash", changed)
    now = describe(asked)
    assert now["content"] != before["content"]
    assert {**now, "content": ""} == {**before, "content": ""}


def test_what_an_answer_is_known_by() -> None:
    """Model, prompt, cut and sampling are part of the key; where and how fast is not."""
    base = judge("http://one/v1")
    same = [judge("http://two/v1"), judge("http://one/v1", provider={"in_flight": 99})]
    other = [
        judge("http://one/v1", "another"),
        judge("http://one/v1", temperature=0.5),
        judge("http://one/v1", max_tokens=99),
        judge("http://one/v1", max_document_tokens=99),
        judge("http://one/v1", extra_body={"top_p": 0.5}),
        judge("http://one/v1", provider={"name": "another"}),
        judge("http://one/v1", provider={"structured": "json_schema"}),
    ]
    assert {j.fingerprint for j in same} == {base.fingerprint}
    assert len({j.fingerprint for j in [base, *other]}) == len(other) + 1
