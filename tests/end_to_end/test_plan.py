"""`zelo plan`: the numbers are those of the run that follows, and nothing is called or written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from tests.conftest import Cli
from tests.judging.endpoint import running

from zelo.artifacts import read_json
from zelo.config import build_from, conf_folder
from zelo.judging.prices import listed
from zelo.plan import Plan, plan


def planned(*overrides: str) -> Plan:
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return plan(build_from(compose("config", overrides=list(overrides))))


def test_the_papers_run_has_the_papers_scale(cli: Cli, tmp_path: Path) -> None:
    made = planned("experiment=paper_scale")
    assert made.size.queries == 112_000
    few, many = made.comparisons.values()
    assert few == 112_000  # one pair per query
    assert 112_000 * 380 < many <= 112_000 * 400  # four cycles of a hundred documents
    assert [asked.judge for asked in made.asked] == ["openai", "anthropic", "gemini"]
    for asked in made.asked:
        assert asked.calls == (112_000, 336_000)  # up to nine answers of three judges
        assert asked.usd is not None
    hours = {work.stage: work.hours(395.0) for work in made.work}
    assert set(hours) == {"retrieve (embedding)", "distil", "judge (the distilled model)", "train"}
    assert 100 < sum(hours.values()) < 10_000  # the paper: less than 10,000 hours of an H100
    done = cli("plan", "experiment=paper_scale")
    assert done.returncode == 0, done.stderr
    assert listed()["as_of"] in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 110
    assert list((tmp_path / "work").iterdir()) == []


def test_a_plan_counts_what_the_run_then_asks(cli: Cli, tmp_path: Path, beir_folder: Path) -> None:
    """And knows the tokens once the ledger does. Nothing is asked while planning."""
    arguments = [
        "data=beir",
        f"data.path={beir_folder}",
        "retriever=bm25",
        "sampler=regular",
        "sampler.degree=3",
        "depth=4",
        "judge=vllm",
        "judge.judges.vllm.price={_target_: zelo.judging.spending.Price, input: 100, output: 100}",
    ]
    with running() as endpoint:
        arguments.append(f"judge.judges.vllm.provider.base_url={endpoint.base_url}")
        before = cli("plan", *arguments)
        assert before.returncode == 0, before.stderr
        assert endpoint.counts()["requests"] == 0
        assert list((tmp_path / "work").iterdir()) == []
        assert "Tokens are estimated" in before.stdout
        done = cli("run", "stages=[load,retrieve,compare,judge,rate]", *arguments)
        assert done.returncode == 0, done.stderr
        asked = endpoint.counts()["requests"]
        after = cli("plan", *arguments)
        assert endpoint.counts()["requests"] == asked
    row = re.search(
        r"vllm \(Qwen/Qwen3-8B\) +([\d,]+) +[\d.]+ M +[\d.]+ M +([\d.]+)", before.stdout
    )
    assert row is not None
    assert int(row[1]) == asked
    assert f"Tokens are of {asked} answers in the ledger" in after.stdout
    (record,) = (tmp_path / "work" / "outputs" / "store" / "judge").glob("*/stage.json")
    spent = read_json(record)["counts"]["usd"]
    row = re.search(r"vllm \(Qwen/Qwen3-8B\) +[\d,]+ +[\d.]+ M +[\d.]+ M +([\d.]+)", after.stdout)
    assert row is not None
    assert float(row[1]) == pytest.approx(spent, abs=0.01)


def test_both_orders_and_repeats_are_counted() -> None:
    base = planned("judge=openai", "data=stdlib")
    both = planned("judge=openai", "judge.both_orders=true", "data=stdlib")
    more = planned("judge=openai", "judge.stderr=0.1", "judge.cap=5", "data=stdlib")
    assert both.asked[0].calls[0] == 2 * base.asked[0].calls[0]
    assert more.asked[0].calls == (base.asked[0].calls[0], 5 * base.asked[0].calls[0])


def test_a_price_that_is_not_listed_is_unknown_not_nothing(cli: Cli) -> None:
    done = cli("plan", "judge=openai", "judge.judges.openai.model=gpt-99", "data=stdlib")
    assert done.returncode == 0, done.stderr
    assert re.search(r"openai \(gpt-99\).*unknown", done.stdout)


def test_the_time_is_the_least_that_the_limits_allow() -> None:
    made = planned(
        "experiment=paper_scale",
        "judge=openai",
        "judge.judges.openai.provider.requests_per_minute=100",
        "judge.judges.openai.provider.tokens_per_minute=null",
    )
    assert made.asked[0].hours == pytest.approx(112_000 / 100 / 60)


def test_a_size_that_is_only_planned_cannot_be_run(cli: Cli) -> None:
    done = cli("run", "experiment=paper_scale")
    assert done.returncode == 2
    assert "use it with `zelo plan`" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_collection_that_is_not_there_is_named(cli: Cli) -> None:
    done = cli("plan", "data=beir", "data.path=nowhere")
    assert done.returncode == 2
    assert "nowhere/corpus.jsonl: not found" in done.stderr
    assert json.dumps(done.stdout) == '""'
