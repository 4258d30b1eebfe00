"""`zelo plan`: the numbers are those of the run that follows, and nothing is called or written."""

from __future__ import annotations

import json
import re
from datetime import date, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from hydra import compose, initialize_config_dir
from tests.conftest import Cli
from tests.judging.endpoint import running
from torch.utils.flop_counter import FlopCounterMode

from zelo.artifacts import read_json
from zelo.config import build_from, conf_folder
from zelo.data.token_estimate import estimated_tokens
from zelo.errors import UserError
from zelo.judging.base import BaseJudge
from zelo.judging.prices import entry_of, listed
from zelo.models.lora import Lora, prepare
from zelo.models.pretrained import PretrainedModel
from zelo.queries.local_model import FRAME, LINE
from zelo.runs.plan import Plan, plan
from zelo.runs.show_plan import throughput
from zelo.runs.workload import Device, Parameters, Work, parameters
from zelo.training.base_module import freeze
from zelo.training.options import TrainingOptions

TODAY = date(2026, 11, 26)
SMALL = ["data=planned", "data.train_queries=100", "data.documents=1000"]


def planned(*overrides: str, today: date = TODAY) -> Plan:
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return plan(build_from(compose("config", overrides=list(overrides))), today)


def test_the_papers_run_has_the_papers_scale(cli: Cli, tmp_path: Path) -> None:
    made = planned("experiment=paper_scale")
    assert made.size.queries == 112_000
    few, many = made.comparisons.values()
    assert few == 112_000  # one pair per query
    assert 112_000 * 380 < many <= 112_000 * 400  # four cycles of a hundred documents
    assert [asked.judge for asked in made.asked] == ["openai", "anthropic", "gemini"]
    for asked in made.asked:
        # up to nine answers of three judges, and 40 comparisons turned round, to notice who guesses
        assert asked.calls == (112_040, 336_040)
        assert asked.usd is not None
    hours = {work.stage: work.hours(395.0) for work in made.work}
    assert set(hours) == {"retrieve (embedding)", "distil", "judge (the distilled model)", "train"}
    assert 100 < sum(hours.values()) < 10_000  # the paper: less than 10,000 hours of an H100
    done = cli("plan", "experiment=paper_scale")
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 110
    words = " ".join(done.stdout.split())
    for device in throughput():
        assert f"{device.name}: {device.source}." in words
    assert list((tmp_path / "work").iterdir()) == []


def test_hours_are_those_of_the_nearest_size() -> None:
    small, large = {"parameters": 1e7, "inference": 1, "training": 2}, {"parameters": 1e9}
    device = Device("a GPU", "measured", [small, {**large, "inference": 4, "training": 8}])
    for count, training, tera in ((1e6, False, 1), (9e7, True, 2), (2e8, False, 4)):
        work = Work("train", 1e6, count, 2 * count, training)
        assert device.hours(work) == work.hours(tera)
    assert device.hours(Work("train", 1e6, None, None)) is None


def test_embedding_models_read_a_document_once(tmp_path: Path) -> None:
    """However many queries it is a candidate of; in training those of one neighbourhood."""
    lines = [
        json.dumps({"_id": f"d{n}", "text": f"the {n}th of many words " * 9}) for n in range(96)
    ]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines), encoding="utf-8")
    made = planned("experiment=bare_corpus", f"data.path={tmp_path}")
    tokens = {work.stage: work.tokens for work in made.work}
    size = made.size
    query, document = size.lengths.query_tokens, size.lengths.truncated(256)
    assert (size.queries, size.documents) == (192, 96)
    assert tokens["judge (embedding)"] == pytest.approx(192 * query + 96 * document)
    assert tokens["train"] == pytest.approx(4 * 192 * (query + 0.5 * document))
    assert "queries (written)" not in tokens
    local = planned("data=corpus", "queries=local", f"data.path={tmp_path}")
    (written,) = [work for work in local.work if work.stage == "queries (written)"]
    frame = estimated_tokens(FRAME) + estimated_tokens(LINE["question"])
    assert written.tokens == pytest.approx(192 * (frame + document + 32))
    uneven = planned("experiment=bare_corpus", f"data.path={tmp_path}", "training.batch_size=64")
    (work,) = [work for work in uneven.work if work.stage == "train"]
    assert work.tokens == pytest.approx(4 * 192 * (query + document))  # 2 steps for 96 queries


def test_a_plan_counts_what_the_run_then_asks(cli: Cli, tmp_path: Path, beir_folder: Path) -> None:
    """And knows the tokens once the ledger does. Nothing is asked while planning."""
    arguments = [
        "data=beir",
        f"data.path={beir_folder}",
        "queries=off",
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


def test_a_judge_that_scores_reads_a_document_once_however_often_it_is_compared() -> None:
    def tokens(judge: str, cycles: int) -> float:
        work = planned(*SMALL, f"judge={judge}", f"sampler.cycles={cycles}", "depth=20").work
        return next(w.tokens for w in work if w.stage.startswith("judge"))

    for judge in ("likelihood", "cross_encoder"):
        assert tokens(judge, 4) == tokens(judge, 1)
        assert 100 * 20 * 100 < tokens(judge, 4) < 100 * 20 * 600
    assert tokens("local", 4) > 3 * tokens("local", 1)


def test_both_orders_and_repeats_are_counted() -> None:
    unprobed = ["judge=openai", "judge.probe=0", "data=stdlib"]
    base = planned(*unprobed)
    both = planned("judge=openai", "judge.both_orders=true", "data=stdlib")  # as a probe asks
    more = planned(*unprobed, "judge.max_stderr=0.1", "judge.max_answers=5")
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
    assert made.asked[0].hours == pytest.approx(112_040 / 100 / 60)


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


def test_operations_are_the_textbooks() -> None:
    """Forward 2, gradients of activations 2, of what learns 2."""
    p = Parameters(1000.0, {0: 400.0, 1: 400.0}, {0: 30.0, 1: 30.0})
    lora, all_of_it = Lora(rank=2), TrainingOptions()
    lowest, cached = TrainingOptions(frozen_layers=1), TrainingOptions(gradient_cache=True)
    assert p.to_read == 2000
    assert p.to_learn(None, all_of_it, gradient_checkpointing=False) == 6000
    assert p.to_learn(lora, all_of_it, gradient_checkpointing=False) == 4000 + 6 * 2 * 60
    assert p.to_learn(None, all_of_it, gradient_checkpointing=True) == 8000
    assert p.to_learn(lora, all_of_it, gradient_checkpointing=True) == 6000 + 6 * 2 * 60
    assert p.to_learn(None, lowest, gradient_checkpointing=True) == 2 * 400 + 8 * 600
    assert p.to_learn(None, cached, gradient_checkpointing=False) == 8000
    assert p.to_learn(None, lowest, gradient_checkpointing=False) == 2 * 400 + 6 * 600
    low = p.to_learn(lora, lowest, gradient_checkpointing=False)
    assert low == 2 * 400 + 4 * 600 + 2 * 2 * 30 + 6 * 2 * 30


@pytest.mark.parametrize("lora", [None, Lora(rank=4)])
@pytest.mark.parametrize("frozen", [0, 4])
@pytest.mark.parametrize("anew", [False, True])
def test_operations_are_those_that_torch_counts(
    tmp_path: Path, lora: Lora | None, frozen: int, anew: bool
) -> None:
    """Products with weights, that is: attention itself is left out by both."""
    from transformers import Qwen3Config, Qwen3Model

    config = Qwen3Config(
        vocab_size=100, hidden_size=64, intermediate_size=192, num_hidden_layers=12,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16,
    )  # fmt: skip
    model: Any = Qwen3Model(config)
    model.save_pretrained(tmp_path)
    counted = parameters(PretrainedModel(name=str(tmp_path)))
    assert counted is not None
    prepare(model, lora, anew)
    freeze(model, frozen)
    model.eval()
    for module in model.modules():  # as in training, where dropout is off
        if getattr(module, "gradient_checkpointing", False) is True:
            module.training = True
    ids = torch.randint(0, 100, (16, 4))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state.sum().backward()
    products = counter.get_flop_counts()["Global"]
    of_matrices = sum(n for operation, n in products.items() if "bmm" not in str(operation))
    training = TrainingOptions(frozen_layers=frozen)
    said = ids.numel() * counted.to_learn(lora, training, anew)
    # Of a layer that is made anew, torch leaves out what comes after the last saved activation.
    assert of_matrices == pytest.approx(said, rel=0.08 if anew else 0.02)


def test_lora_is_planned_with_fewer_hours() -> None:
    options = ["experiment=paper_scale", "model=qwen3_4b"]
    whole = next(w for w in planned(*options, "model.lora=null").work if w.stage == "train")
    adapted = next(w for w in planned(*options).work if w.stage == "train")
    more = next(
        w for w in planned(*options, "model.gradient_checkpointing=true").work if w.stage == "train"
    )
    hours = [work.hours(395.0) or 0.0 for work in (whole, adapted, more)]
    assert hours[1] / hours[0] == pytest.approx(4 / 6)
    assert hours[2] / hours[0] == pytest.approx(6 / 6)


def test_every_price_has_a_day_and_a_source() -> None:
    for model in listed()["models"]:
        entry = entry_of(model)
        assert entry is not None
        assert date(2025, 11, 1) < entry.seen <= date.today(), model
        assert listed()["sources"][entry.source].startswith("https://")
    used = {row["source"] for row in listed()["models"].values()}
    assert used == set(listed()["sources"])


def test_prices_that_are_old_or_end_are_doubted() -> None:
    entry = entry_of("openai/gpt-6.1-sol")
    assert entry is not None
    assert entry.doubts(entry.seen + timedelta(days=183)) is None
    assert entry.doubts(entry.seen + timedelta(days=184)) == (
        f"is of {entry.seen}, more than six months ago"
    )
    ending = entry_of("openai/gpt-5")
    assert ending is not None
    assert ending.until == date(2026, 12, 10)
    assert ending.doubts(date(2026, 11, 1)) is None
    assert str(ending.doubts(date(2026, 12, 10))).startswith("holds until 2026-12-10")
    assert str(ending.doubts(date(2026, 12, 11))).startswith("held until 2026-12-10")


def test_a_plan_says_which_price_is_doubted(cli: Cli) -> None:
    old = ["judge=together", "judge.judges.together.model=Qwen/Qwen3-235B-A22B-Instruct-2507-tput"]
    made = planned(*old, *SMALL)
    assert made.asked[0].price_doubts == "is of 2025-11-15, more than six months ago"
    own = "judge.judges.together.price={_target_: zelo.judging.spending.Price, input: 1, output: 1}"
    assert planned(*old, own, *SMALL).asked[0].price_doubts is None
    assert planned(*old, *SMALL, today=date(2026, 1, 1)).asked[0].price_doubts is None
    done = cli("plan", *old, *SMALL)
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "Qwen3-235B-A22B-Instruct-2507-tput is of 2025-11-15, more than six months ago" in text


class Free(BaseJudge):
    """A judge of one's own that costs nothing, and says so."""

    usd_per_answer: ClassVar[float] = 0.0

    def prepare(self, data: Path, pairs: object, seed: int) -> Any:
        raise NotImplementedError


class Crowd(Free):
    """People, paid by the answer."""

    compares_queries: ClassVar[bool] = True
    usd_per_answer: ClassVar[float] = 0.05


class Silent(BaseJudge):
    """One that says nothing."""

    def prepare(self, data: Path, pairs: object, seed: int) -> Any:
        raise NotImplementedError


def with_judge(name: str) -> list[str]:
    ensemble = "_target_: zelo.judging.ensemble.Ensemble"
    own = f"{{{ensemble}, judges: {{own: {{_target_: {__name__}.{name}}}}}}}"
    return [*SMALL, "~judge", f"+judge={own}"]


def test_a_judge_of_ones_own_says_what_it_costs() -> None:
    assert planned(*with_judge("Free")).asked == []
    (crowd,) = planned(*with_judge("Crowd")).asked
    (silent,) = planned(*with_judge("Silent")).asked
    assert crowd.usd == pytest.approx((0.05 * crowd.calls[0],) * 2)
    assert silent.usd is None
    assert silent.calls == crowd.calls == (38_700, 38_700)  # 100 queries, four cycles of 100


def test_whether_judges_compare_across_queries_is_known_before_anything_runs() -> None:
    across = ["cross=on", "objective=mse"]
    with pytest.raises(UserError, match="judge own: it compares documents of one query only"):
        planned(*with_judge("Silent"), *across)
    for judge in (with_judge("Crowd"), [*SMALL, "judge=simulated"], [*SMALL, "judge=paper"]):
        assert "cross (between queries)" in planned(*judge, *across).comparisons
