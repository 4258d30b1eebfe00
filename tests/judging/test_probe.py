"""A judge that guesses is noticed before the rest is paid for."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import Cli, write_beir
from tests.judging.endpoint import running
from tests.judging.test_local import by_hand, causal, language_model  # noqa: F401  (a fixture)

from zelo.errors import UserError
from zelo.judging.ensemble import Ensemble
from zelo.judging.ledger import Ledger
from zelo.judging.probe import chosen, consistency
from zelo.judging.question import Question
from zelo.judging.spending import Budget, Spending
from zelo.judging.votes import ComparisonVotes, VoteCollector

JUDGED = "stages=[load,retrieve,compare,judge]"


def collection(folder: Path, queries: int = 12, documents: int = 16) -> Path:
    """Documents of a worth that the endpoint reads."""
    worth = np.random.default_rng(0).permutation(documents) / 4
    return write_beir(
        folder,
        {f"d{i}": f"subject worth={w}" for i, w in enumerate(worth)},
        {f"q{i}": "subject" + " more" * i for i in range(queries)},
        {"test": [("q0", "d0", 1)]},
    )


def words(folder: Path, base_url: str, *more: str) -> list[str]:
    return [
        "run", "data=beir", f"data.path={folder}", "retriever=bm25", "sampler.cycles=2",
        "judge=vllm", f"judge.judges.vllm.provider.base_url={base_url}", JUDGED, *more,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("first", r"same document in 0 of the 40 without a tie; 100% of its choices stood first"),
        ("always_tie", r"in 0 of the 0 without a tie; .* 100% of its answers are ties"),
    ],
)
def test_a_judge_that_guesses_ends_the_run(kind: str, said: str, cli: Cli, tmp_path: Path) -> None:
    folder = collection(tmp_path / "c")
    with running(always=kind) as endpoint:
        done = cli(*words(folder, endpoint.base_url))
        assert done.returncode == 2
        assert re.search(rf"judge vllm: it seems to guess: .*{said}.*judge\.probe=0", done.stderr)
        assert endpoint.counts()["requests"] == 80  # of 352 comparisons
        done = cli(*words(folder, endpoint.base_url))
        assert done.returncode == 2  # as often as it is tried, and nothing is asked again
        assert endpoint.counts()["requests"] == 80
        done = cli(*words(folder, endpoint.base_url, "judge.probe=0"))
        assert done.returncode == 0, done.stderr


def test_a_judge_that_reads_is_asked_the_rest_and_its_consistency_kept(
    cli: Cli, tmp_path: Path
) -> None:
    folder = collection(tmp_path / "c")
    with running() as endpoint:
        done = cli(*words(folder, endpoint.base_url))
        assert done.returncode == 0, done.stderr
        asked = endpoint.counts()["requests"]
    assert "vllm: of 40 comparisons asked in both orders it names the same document in" in (
        done.stdout + done.stderr
    )
    (manifest,) = (tmp_path / "work").glob("outputs/runs/*/manifest.json")
    stages = {one["stage"]: one for one in json.loads(manifest.read_text())["stages"]}
    counts = stages["judge"]["counts"]
    assert asked == counts["comparisons"] + 40
    with running() as endpoint:  # further comparisons: it has passed
        done = cli(*words(folder, endpoint.base_url, "seed=1"))
        assert done.returncode == 0, done.stderr
        assert "asked in both orders" not in done.stdout + done.stderr
    assert counts["probed"]["vllm"]["same"] == counts["probed"]["vllm"]["decided"]


def test_a_language_model_here_is_looked_at_in_one_order(
    causal: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    """Both orders averaged its answers are the same either way: one of random weights, that knows
    nothing of what it reads, is noticed all the same."""
    judge = language_model(causal)
    asked = [
        Question(f"q{i}", "a", "b", 0, f"query {i}", f"text {i}", f"words {i * i} more")
        for i in range(90)
    ]
    some = [asked[i] for i in chosen(90, 40)]
    shown, back = (
        [np.sign(1 - 2 * by_hand(judge, q, turned)) for q in some] for turned in (False, True)
    )
    same = sum(a == -b for a, b in zip(shown, back, strict=True))
    ensemble = Ensemble(judges={"local": judge.judge})
    votes = [ComparisonVotes(question) for question in asked]
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        collector = VoteCollector(ensemble, {"local": judge}, ledger, Spending(Budget()), "run")
        with pytest.raises(UserError, match=rf"judge local: .* in {same} of the 40 without"):
            collector.collect(votes)


def test_what_a_coin_and_a_reader_would_say() -> None:
    """Of a thousand judges each: three of four coins are stopped, of those that name the same
    document in three of four comparisons one in a hundred."""
    rng = np.random.default_rng(0)

    def stopped(same: float) -> float:
        count = 0
        for _ in range(1000):
            votes = [(-1.0, 1.0) if one < same else (-1.0, -1.0) for one in rng.uniform(size=40)]
            count += consistency({"j": votes}, "j").guesses
        return count / 1000

    assert stopped(0.5) == pytest.approx(0.785, abs=0.04)
    assert stopped(0.75) == pytest.approx(0.005, abs=0.006)
    assert stopped(0.1) == 1.0


def test_consistency_counts() -> None:
    votes = {
        "a": [(-1.0, 1.0), (-1.0, -1.0), (0.0, 1.0), None, (1.0, -1.0)],
        "b": [(-1.0, 1.0), (1.0, -1.0), (1.0, -1.0), (1.0, -1.0), (-1.0, 1.0)],
    }
    found = consistency(votes, "a")
    assert (found.comparisons, found.decided, found.same) == (4, 3, 2)
    assert found.first == pytest.approx(4 / 7)
    assert found.ties == pytest.approx(1 / 8)
    # The first agrees, the second has no side of its own, of the third both say B is worse.
    assert found.agreement == pytest.approx(1 / 3)
    assert chosen(100, 4) == [0, 33, 66, 99]
    assert chosen(3, 0) == []
