"""A judge that grades documents one by one, over real HTTP."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit
from tests.conftest import Cli, write_beir
from tests.judging.endpoint import Running, running
from tests.judging.test_api import RUN, ask, questions

from zelo.artifacts import read_table
from zelo.finished_run import FinishedRun
from zelo.judging.api import ApiSession
from zelo.judging.ensemble import Ensemble
from zelo.judging.graded import Grader
from zelo.judging.ledger import Ledger
from zelo.judging.provider import Provider
from zelo.judging.question import Answer, Question
from zelo.judging.spending import Budget, Price, Spending
from zelo.judging.votes import ComparisonVotes, VoteCollector


def graded(endpoint: Running, **options: Any) -> Grader:
    provider = Provider(name="fake", timeout=2.0, in_flight=8, base_url=endpoint.base_url)
    return Grader(provider=provider, model="m", price=Price(input=1.0, output=10.0), **options)


def session(judge: Grader) -> ApiSession:
    return judge.prepare(Path(), {}, 0)


def documents(*worth: float) -> list[Question]:
    return [Question("q", f"d{i}", "", 0, "query", f"worth={w}", "") for i, w in enumerate(worth)]


def test_a_grade_is_the_mean_of_the_digits(tmp_path: Path) -> None:
    asked = documents(0, 0.25, 1.5, 2.9, 3, 7)
    with running(logprobs="both") as endpoint:
        found, _ = ask(session(graded(endpoint)), asked, tmp_path)
        body = endpoint.counts()["body"]
    grades = [0, 0.25, 1.5, 2.9, 3, 3]
    answers = [answer for answer in found.answers["judge"] if answer]
    assert [a.score for a in answers] == pytest.approx([2 * g / 3 - 1 for g in grades])
    assert answers[1].reasons == "grade 0.25"
    assert (body["logprobs"], body["max_tokens"]) == (True, 1)


def test_whole_grades_are_read_where_there_are_no_probabilities(tmp_path: Path) -> None:
    with running() as endpoint:
        judge = graded(endpoint, whole=True, max_tokens=16)
        found, _ = ask(session(judge), documents(0.2, 1.4, 2.6), tmp_path)
        body = endpoint.counts()["body"]
        other, _ = ask(session(graded(endpoint)), documents(*range(30)), tmp_path)
    assert [a.score for a in found.answers["judge"] if a] == pytest.approx([-1, -1 / 3, 1])
    assert "logprobs" not in body
    assert "whole=true" not in other.given_up["judge"]
    assert "no_logprobs" in other.given_up["judge"]


def test_without_a_digit_there_is_no_grade(tmp_path: Path) -> None:
    with running(logprobs="none") as endpoint:
        found, _ = ask(session(graded(endpoint)), documents(*range(30)), tmp_path)
    assert "no_grade" in found.given_up["judge"]
    assert "switch thinking off" in found.given_up["judge"]


def test_each_document_is_asked_about_once_and_pairs_follow(tmp_path: Path) -> None:
    worth = [0.0, 0.5, 1.0, 2.5]
    texts = [f"worth={w}" for w in worth]
    pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
    comparisons = [
        ComparisonVotes(Question("q", f"d{i}", f"d{j}", 0, "query", texts[i], texts[j]))
        for i, j in pairs
    ]
    with running(logprobs="both") as endpoint, Ledger(tmp_path / "l.sqlite") as ledger:
        judge = graded(endpoint)
        ensemble = Ensemble(judges={"g": judge}).model_copy(update={"judges": {}})
        spending = Spending(Budget())
        VoteCollector(ensemble, {"g": session(judge)}, ledger, spending, RUN).collect(comparisons)
        assert endpoint.counts()["requests"] == 4
    for comparison, (i, j) in zip(comparisons, pairs, strict=True):
        ((name, _, answer),) = comparison.answers
        assert name == "g"
        assert answer is not None
        assert (1 - answer.score) / 2 == pytest.approx(expit(2 * (worth[i] - worth[j])))  # type: ignore[operator]


def test_a_document_without_a_grade_fails_its_pairs() -> None:
    judge = Grader(provider=Provider(name="f", base_url="http://127.0.0.1:1/v1"), model="m")
    of = session(judge)
    assert of.compared(Answer(None, "refused"), Answer(1.0)).status == "refused"
    assert of.compared(Answer(1.0), Answer(-1.0)).score == pytest.approx(-np.tanh(3))
    assert questions(1)[0].text_b  # comparisons have two


def test_a_run_is_judged_by_grades_beside_another_judge(
    cli: Cli, toy: list[str], tmp_path: Path
) -> None:
    with running(words=True, logprobs="both") as endpoint:
        judges = [
            "judge=[vllm_grades,bm25]",
            f"judge.judges.vllm_grades.provider.base_url={endpoint.base_url}",
        ]
        words = ["experiment=quickstart", *toy, *judges, f"home={tmp_path}"]
        plan = cli("plan", *words)
        assert plan.returncode == 0, plan.stderr
        done = cli("run", *words, f"hydra.run.dir={tmp_path}/run")
        assert done.returncode == 0, done.stderr
        requests = endpoint.counts()["requests"]
    run = FinishedRun.at(tmp_path / "run")
    (folder,) = run.judgments_folders()
    rows = read_table(folder, "judgments").to_pylist()
    of = {name: [row for row in rows if row["judge"] == name] for name in ("vllm_grades", "bm25")}
    assert len(of["vllm_grades"]) == len(of["bm25"])
    assert all(row["status"] == "answered" for row in of["vllm_grades"])
    asked = {(row["query_id"], d) for row in rows for d in (row["doc_a"], row["doc_b"])}
    assert len(asked) - 3 <= requests <= len(asked)  # documents of one text have one grade
    said = re.search(r"vllm_grades \(\S+\)\s+([\d,]+)", plan.stdout)
    assert said is not None, plan.stdout
    assert int(said[1].replace(",", "")) == len(asked)


def test_grades_put_queries_on_one_level(cli: Cli, toy: list[str], tmp_path: Path) -> None:
    """With `cross=on`: the documents of one query are all better than those of the other, which no
    comparison within a query tells."""
    documents = {f"{q}{i}": f"{q} words worth={level + i / 10}" for q, level in
                 (("rich", 2.0), ("poor", 0.2)) for i in range(6)}  # fmt: skip
    queries = {"q-rich": "rich words", "q-poor": "poor words", "q-test": "words"}
    labels = {"train": [("q-rich", "rich0", 1), ("q-poor", "poor0", 1)],
              "test": [("q-test", "rich0", 1)]}  # fmt: skip
    write_beir(tmp_path / "own", documents, queries, labels)
    with running(logprobs="both") as endpoint:
        run = [
            "run", "data=beir", f"data.path={tmp_path / 'own'}", "retriever=bm25", toy[0],
            "queries=off", "depth=6", "judge=vllm_grades", "objective=mse", f"home={tmp_path}",
            f"judge.judges.vllm_grades.provider.base_url={endpoint.base_url}",
            "stages=[load,retrieve,compare,cross,judge,rate]", "cross.per_edge=4",
        ]  # fmt: skip
        done = cli(*run, "cross=on", f"hydra.run.dir={tmp_path}/run")
        assert done.returncode == 0, done.stderr
        requests = endpoint.counts()["requests"]
    rows = read_table(FinishedRun.at(tmp_path / "run").ratings_folder(), "ratings").to_pylist()
    target = {(row["query_id"], row["doc_id"]): row["target"] for row in rows}
    rich = [value for (q, d), value in target.items() if q == "q-rich" and d.startswith("rich")]
    poor = [value for (q, d), value in target.items() if q == "q-poor" and d.startswith("poor")]
    assert min(rich) > max(poor)
    assert requests <= 2 * 12 + 3  # a grade for each document of each query, once
