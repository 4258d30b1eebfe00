"""A run whose judges order blocks: simulated ones, and one behind an endpoint beside BM25."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import Cli
from tests.judging.endpoint import running

from zelo.artifacts import read_table
from zelo.finished_run import FinishedRun

BLOCKS = ["sampler=blocks", "sampler.size=4", "sampler.times=2"]
SMALL = ["top_k=9", "depth=9", "evaluation.resamples=100"]


def test_simulated_judges_order_blocks_and_then_windows(
    cli: Cli, toy: list[str], tmp_path: Path
) -> None:
    words = ["run", "experiment=quickstart", *toy, *BLOCKS, *SMALL, f"home={tmp_path}"]
    words += ["sampler.window_rounds=1", "sampler.top=6", "sampler.step=2"]
    done = cli(*words, f"hydra.run.dir={tmp_path}/run", "rating.joint_judges=true")
    assert done.returncode == 0, done.stderr
    run = FinishedRun.at(tmp_path / "run")
    folders = {
        stage["label"]: tmp_path / "store" / stage["stage"] / stage["fingerprint"]
        for stage in run.manifest["stages"]
    }
    first, second = (folders[f"compare, round {n}"] for n in (1, 2))
    blocks = read_table(first, "blocks").to_pylist()
    of_query: dict[str, list[str]] = {}
    for block in blocks:
        of_query.setdefault(block["query_id"], []).extend(block["doc_ids"])
    assert {len(set(ids)) for ids in of_query.values()} == {9}
    assert all(len(ids) == 18 for ids in of_query.values())
    later = read_table(second, "blocks").to_pylist()
    assert [len(b["doc_ids"]) for b in later] == [4, 4] * len(of_query)
    orders = read_table(folders["judge, round 1"], "list_judgments").to_pylist()
    judges = {row["judge"] for row in orders}
    assert len(orders) == len(judges) * len(blocks)
    assert all(sorted(row["places"]) == list(range(len(row["doc_ids"]))) for row in orders)
    ratings = read_table(run.ratings_folder(), "ratings").to_pylist()
    assert len(ratings) == 9 * len(of_query)
    rated = next(f for label, f in folders.items() if label == "rate")
    effects = read_table(rated, "slot_effects").to_pylist()
    assert len(effects) == 4 * len(judges)
    # What the orders imply of pairs is what other readers see.
    implied = read_table(folders["judge, round 1"], "judgments")
    assert len(implied) == len(judges) * len(read_table(first, "comparisons"))
    elo = {(r["query_id"], r["doc_id"]): r["elo"] for r in ratings}
    agree = [
        (elo[q, b] - elo[q, a]) * s > 0
        for q, a, b, s in zip(
            *(implied[n].to_pylist() for n in ("query_id", "doc_a", "doc_b", "score")), strict=True
        )
        if s
    ]
    assert np.mean(agree) > 0.7
    assert (tmp_path / "run" / "report.html").is_file()


def test_an_endpoint_orders_blocks_beside_one_that_grades_and_one_that_compares_two(
    cli: Cli, toy: list[str], tmp_path: Path
) -> None:
    """Orders, grades and comparisons are rated in one likelihood."""
    with running(words=True, logprobs="both") as endpoint:
        judges = [
            "judge=[vllm,vllm_grades,local_ensemble]", "~judge.judges.embedding",
            "~judge.weights.embedding", "judge.judges.vllm.model=m",
            f"judge.judges.vllm.provider.base_url={endpoint.base_url}",
            f"judge.judges.vllm_grades.provider.base_url={endpoint.base_url}",
        ]  # fmt: skip
        words = ["experiment=quickstart", *toy, *BLOCKS, *SMALL, *judges, f"home={tmp_path}"]
        plan = cli("plan", *words)
        assert plan.returncode == 0, plan.stderr
        done = cli("run", *words, f"hydra.run.dir={tmp_path}/run")
        assert done.returncode == 0, done.stderr
        requests = endpoint.counts()["requests"]
        again = cli("run", *words, f"hydra.run.dir={tmp_path}/again", "rating.prior=0.1")
        assert again.returncode == 0, again.stderr
        assert endpoint.counts()["requests"] == requests
    run = FinishedRun.at(tmp_path / "run")
    (judged,) = [stage for stage in run.stages if stage["stage"] == "judge"]
    (compared,) = [stage for stage in run.stages if stage["stage"] == "compare"]
    blocks = judged["counts"]["blocks"]
    assert blocks == compared["counts"]["blocks"]
    folder = tmp_path / "store" / "judge" / judged["fingerprint"]
    rows = [r for r in read_table(folder, "judgments").to_pylist() if r["judge"] == "vllm_grades"]
    graded = {(row["query_id"], row[side]) for row in rows for side in ("doc_a", "doc_b")}
    assert len(graded) - 3 <= requests - blocks <= len(graded)  # of one text one grade
    elo = {
        (row["query_id"], row["doc_id"]): row["elo"]
        for row in read_table(run.ratings_folder(), "ratings").to_pylist()
    }
    assert graded <= elo.keys()
    agree = [
        (elo[row["query_id"], row["doc_b"]] - elo[row["query_id"], row["doc_a"]]) * row["score"] > 0
        for row in rows if row["score"]
    ]  # fmt: skip
    assert np.mean(agree) > 0.7
    labels = judged["counts"]["labels"]
    assert 0 < labels.pop("relevant") <= 1
    assert labels == {"missing": 0, "invented": 0, "doubled": 0}
    said = re.search(r"vllm \(m\)\s+([\d,]+)", plan.stdout)
    assert said is not None, plan.stdout
    assert int(said[1].replace(",", "")) == pytest.approx(blocks, rel=0.01)
    orders = read_table(folder, "list_judgments")
    assert set(orders["judge"].to_pylist()) == {"vllm"}
    assert {"bm25", "vllm", "vllm_grades"} == set(
        read_table(folder, "judgments")["judge"].to_pylist()
    )
