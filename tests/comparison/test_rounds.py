"""A sampler that works in rounds runs all of them wherever it is chosen, or is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from tests.conftest import Cli
from tests.evaluation.test_elo_truth import write_log
from tests.judging.endpoint import running

from zelo.artifacts import read_json, table, write_table
from zelo.comparison.adaptive import AdaptiveSampler, Closest, Informative
from zelo.config import build_from, conf_folder
from zelo.errors import UserError
from zelo.evaluation.pair_judging import PairJudging
from zelo.judging.base import BaseJudge, LocalSession
from zelo.judging.ensemble import Ensemble
from zelo.judging.question import FAILED, Answer, Question

DOCUMENTS = {f"d{i}": str(i) for i in range(12)}


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """A collection whose queries have no instruction."""
    folder = tmp_path / "collection"
    folder.mkdir()
    ids = ["q", "r"]
    queries = table("queries", query_id=ids, text=["largest"] * 2, split=["test"] * 2)
    write_table(folder, "queries", queries)
    return folder


@dataclass(frozen=True)
class Reads(LocalSession):
    fingerprint: str = "larger"

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        found = []
        for q in questions:
            a, b = int(q.text_a), int(q.text_b)
            failed = {a, b} == {0, 1}
            found.append(Answer(None, FAILED) if failed else Answer(float(np.tanh((b - a) / 4))))
        return found


class Larger(BaseJudge):
    """Prefers the larger number; fails on 0 against 1."""

    def prepare(self, data: Path, pairs: object, seed: int) -> Reads:
        return Reads()


@pytest.mark.parametrize("kind", [Closest, Informative])
def test_judges_of_a_pool_are_asked_in_all_rounds(
    tmp_path: Path, collection: Path, kind: type[AdaptiveSampler]
) -> None:
    judging = PairJudging(
        judge=Ensemble(judges={"larger": Larger()}),
        sampler=kind(comparisons=30, random_share=0.5, rounds=4),
        ledger=tmp_path / "ledger.sqlite",
    )
    queries = {"q": "largest", "r": "largest"}
    pool = {"q": list(DOCUMENTS), "r": list(DOCUMENTS)[:5]}
    judged = judging.elos("test", collection, queries, DOCUMENTS, pool)
    # The first round is one cycle: 12 and 5. Five documents have 10 pairs, all of them asked.
    assert judged.comparisons == 30 + 10
    assert judged.unanswered in (1, 2)  # 0 against 1, which all of five documents meet
    for elos in judged.elos.values():
        best = sorted(elos, key=lambda doc_id: -elos[doc_id])
        assert best == sorted(elos, key=lambda doc_id: -int(doc_id[1:]))
    assert judging.elos("test", collection, queries, DOCUMENTS, pool) == judged


def test_a_query_that_needs_no_more_is_left_alone(tmp_path: Path, collection: Path) -> None:
    judging = PairJudging(
        judge=Ensemble(judges={"larger": Larger()}),
        sampler=Closest(comparisons=30, rounds=4, stop_stderr=100.0),
        ledger=tmp_path / "ledger.sqlite",
    )
    judged = judging.elos("test", collection, {"q": "x"}, DOCUMENTS, {"q": list(DOCUMENTS)})
    assert judged.comparisons == 12


def test_an_audit_runs_all_rounds(cli: Cli, tmp_path: Path) -> None:
    write_log(tmp_path / "work" / "live.jsonl", 6, 8)
    with running() as endpoint:
        done = cli(
            "audit", "live.jsonl", "judge=vllm", "judge.vote=soft", "sampler=informative",
            "sampler.comparisons=20", "sampler.random_share=0.5", "sampler.rounds=3",
            f"judge.judges.vllm.provider.base_url={endpoint.base_url}",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        asked = endpoint.counts()["requests"]
    found = read_json(tmp_path / "work" / "live.audit" / "audit.json")
    assert found["comparisons"] == asked == 6 * 20
    assert found["unanswered"] == 0
    assert "judge, round 3" in done.stderr + done.stdout


@pytest.mark.parametrize("name", ["informative", "closest"])
def test_they_can_be_chosen_for_rerankers_and_for_the_truth(name: str) -> None:
    options = ["reranker=[pairwise]", f"sampler@rerankers.pairwise.sampler={name}", "truth=elo",
               f"sampler@truth.sampler={name}"]  # fmt: skip
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        made = build_from(compose("evaluate", overrides=options))
    assert isinstance(made.rerankers["pairwise"].sampler, AdaptiveSampler)
    assert isinstance(made.truth.sampler, AdaptiveSampler)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        (["distil=on", "sampler@distil.sampler=closest"], "distil.sampler"),
        (["distil=on", "refine=on", "sampler@refine.sample=informative"], "refine.sample"),
    ],
)
def test_where_all_is_asked_at_once_they_are_refused(options: list[str], key: str) -> None:
    with (
        initialize_config_dir(str(conf_folder()), version_base="1.3"),
        pytest.raises(UserError, match=f"{key}=.*chooses pairs from the answers") as caught,
    ):
        build_from(compose("config", overrides=options))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["sampler._target_=zelo.judging.ensemble.Ensemble"], "judges: required"),
        (["~sampler", "+sampler={cycles: 4}"], "sampler=.*should be an instance of BaseSampler"),
        (
            ["distil=on", "+distil.sampler.path=p", "~distil.sampler.pairs",
             "~distil.sampler.k_min", "~distil.sampler.k_max",
             "distil.sampler._target_=zelo.comparison.recorded.RecordedPairs"],
            "distil.sampler=.*its pairs are those of a file",
        ),
    ],
)  # fmt: skip
def test_what_is_no_sampler_for_the_place_is_refused(options: list[str], message: str) -> None:
    with (
        initialize_config_dir(str(conf_folder()), version_base="1.3"),
        pytest.raises(UserError, match=message) as caught,
    ):
        build_from(compose("config", overrides=options))
    assert "\n" not in str(caught.value)
