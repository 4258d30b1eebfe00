"""Elos as ground truth, and the audit of a log by a real endpoint on loopback."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import Cli, write_beir
from tests.judging.endpoint import running

from zelo.artifacts import read_json
from zelo.data.log import Log
from zelo.errors import UserError
from zelo.evaluation.elo_truth import (
    agreement_of_verdicts,
    elo_ndcg,
    pairwise_accuracy,
    top_recall,
)

ELOS = {"a": 1.0, "b": 0.0, "c": -1.0}


def test_ndcg_of_elos_is_the_formula_written_out() -> None:
    ideal = math.e / math.log2(2) + 1 / math.log2(3) + math.exp(-1) / math.log2(4)
    got = 1 / math.log2(2) + math.e / math.log2(4)
    assert elo_ndcg(["b", "unrated", "a"], ELOS) == pytest.approx(got / ideal)
    cut = 1 / math.log2(2) + math.e / math.log2(3)
    assert elo_ndcg(["b", "a", "c"], ELOS, k=2) == pytest.approx(cut / (math.e + 1 / math.log2(3)))
    assert elo_ndcg(["a"], {}) == 0.0


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=12), st.randoms(), st.floats(-50, 50))
def test_properties(values: list[float], chance: random.Random, shift: float) -> None:
    elos = {f"d{i}": value for i, value in enumerate(values)}
    ranked = list(elos)
    chance.shuffle(ranked)
    best = sorted(elos, key=lambda d: -elos[d])
    assert 0 <= elo_ndcg(ranked, elos) <= elo_ndcg(best, elos) + 1e-12
    assert elo_ndcg(best, elos) == pytest.approx(1)
    moved = {d: elo + shift for d, elo in elos.items()}
    assert elo_ndcg(ranked, moved) == pytest.approx(elo_ndcg(ranked, elos), rel=1e-6)
    accuracy = pairwise_accuracy(ranked, elos)
    if len(set(values)) > 1:
        assert accuracy + pairwise_accuracy(ranked[::-1], elos) == pytest.approx(1)
        assert pairwise_accuracy(best, elos) == 1
    else:
        assert math.isnan(accuracy)
    assert top_recall(best, elos, 3) == 1


def test_recall_of_the_top() -> None:
    assert top_recall(["c", "a"], ELOS, 2) == 0.5
    assert top_recall(["c"], ELOS, 10) == pytest.approx(1 / 3)
    assert top_recall(["a"], {}) == 0.0


def test_what_is_rated_and_not_ranked_stands_below_all_others() -> None:
    elos = {"a": 1.0, "b": 0.0, "c": 5.0, "d": 4.0}
    # a ≻ b is right; c and d belong above both, and are in no order.
    assert pairwise_accuracy(["a", "b", "unrated"], elos) == pytest.approx((1 + 0.5) / 6)
    assert pairwise_accuracy([], elos) == 0.5


def test_verdicts_that_agree() -> None:
    labels = {"x": [0.5, 0.6], "y": [0.4, 0.5], "z": [0.9, 0.9]}
    elos = {"x": [0.8, 0.8], "y": [0.9, 0.9], "z": [0.95, 0.95]}
    assert agreement_of_verdicts(labels, elos) == (pytest.approx(2 / 3), 3, pytest.approx(2 / 3), 6)
    none = agreement_of_verdicts({"x": [1.0], "y": [1.0]}, {"x": [1.0], "y": [0.0]})
    assert none.of_systems is None
    assert (none.pairs, none.decided) == (0, 0)
    mixed = agreement_of_verdicts(
        {"x": [1, 0, 2], "y": [0, 1, 2]}, {"x": [1, 1, 0], "y": [0, 0, 1]}
    )
    assert (mixed.pairs, mixed.of_queries, mixed.decided) == (0, 0.5, 2)


def test_judges_stand_beside_labels_or_in_their_place(cli: Cli, tmp_path: Path) -> None:
    """Judges who read worth; labels say the same, or there are none."""
    documents = {f"d{i}": f"subject {'subject ' * (i % 3)}worth={i / 4:.2f}" for i in range(12)}
    queries = {f"q{i}": f"subject about {i}" for i in range(4)}
    labels = {"test": [(q, f"d{i}", 1 + i // 11) for q in queries for i in (10, 11)]}
    labelled = write_beir(tmp_path / "labelled", documents, queries, labels)
    bare = write_beir(tmp_path / "bare", documents, queries, {})
    with running() as endpoint:
        options = [
            "data=beir", "retriever=bm25", "reranker=[pairwise]", "truth=elo", "truth.top=10",
            "judge=vllm", f"judge.judges.vllm.provider.base_url={endpoint.base_url}",
            "judge.vote=soft", "evaluation.resamples=100",
        ]  # fmt: skip
        done = cli("evaluate", *options, f"data.path={labelled}", "out=both")
        assert done.returncode == 0, done.stderr
        assert (
            "labels and Elos find the same of two systems better in 100% of 1 pairs" in done.stdout
        )
        assert read_json(tmp_path / "work/both/evaluation.json")["agreement"]["decided"] == 4
        done = cli("evaluate", *options, f"data.path={bare}", "out=bare", "evaluation.split=all")
        assert done.returncode == 0, done.stderr
        assert "NDCG@10 (exp Elo), pairwise against BM25: +" in done.stdout
        assert "Recall" not in done.stdout
        asked = endpoint.counts()["requests"]
        assert (
            cli("evaluate", *options, f"data.path={bare}", "evaluation.split=all").returncode == 0
        )
        assert endpoint.counts()["requests"] == asked  # all of it is in the ledger
        refused = cli("evaluate", "data=beir", f"data.path={bare}")
        assert refused.returncode == 2
        assert "no query of the test split has labels" in refused.stderr


def write_log(path: Path, queries: int, results: int) -> dict[str, list[float]]:
    """Queries with results of drawn worth, in nearly random order; worth as returned."""
    chance = random.Random(0)
    worth, lines = {}, []
    for q in range(queries):
        values = [round(chance.uniform(0, 4), 3) for _ in range(results)]
        order = sorted(range(results), key=lambda i: -values[i] + chance.gauss(0, 4))
        rows = [{"id": f"{q}-{i}", "text": f"about {q} worth={values[i]:.3f}"} for i in order]
        worth[f"q{q}"] = [values[i] for i in order]
        lines.append({"query_id": f"q{q}", "query": f"subject {q}", "results": rows})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return worth


def test_an_audit_measures_the_live_order(cli: Cli, tmp_path: Path) -> None:
    work = tmp_path / "work"
    worth = write_log(work / "live.jsonl", 12, 8)
    with running() as endpoint:
        arguments = [
            "audit",
            "live.jsonl",
            "judge=vllm",
            "judge.vote=soft",
            f"judge.judges.vllm.provider.base_url={endpoint.base_url}",
            "data.sample=10",
        ]
        done = cli(*arguments)
        assert done.returncode == 0, done.stderr
        asked = endpoint.counts()["requests"]
        again = cli(*arguments)
        assert endpoint.counts()["requests"] == asked
    assert again.stdout == done.stdout
    found = read_json(work / "live.audit" / "audit.json")
    assert found["queries"] == 10
    for row in found["worst_queries"]:
        values = worth[row["query_id"]]
        above = np.triu_indices(len(values), 1)
        right = np.mean([values[i] > values[j] for i, j in zip(*above, strict=True)])
        assert row["pairwise accuracy"] == pytest.approx(right, abs=0.08)  # four cycles, no noise
    scores = [row["NDCG@10 (exp Elo)"] for row in found["worst_queries"]]
    assert scores == sorted(scores)
    assert found["means"]["NDCG@10 (exp Elo)"]["value"] == pytest.approx(np.mean(scores))
    assert found["returned_too_low"]
    for row in found["returned_too_low"]:
        values = worth[row["query_id"]]
        assert values[row["rank"] - 1] > values[0]  # it is truly better than what stood first
    assert "returned too low" in done.stdout


def test_a_sample_is_drawn_by_place_and_texts_that_differ_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    write_log(path, 40, 3)
    first, other = ([line.query_id for line in Log(path=path, sample=10, draw=d).lines()]
                    for d in (0, 1))  # fmt: skip
    assert len(first) == len(other) == 10
    assert first != other
    assert Log(path=path, sample=99).load().queries.num_rows == 40
    rows = [{"query": q, "results": [{"id": "x", "text": t}]} for q, t in (("a", "1"), ("b", "2"))]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ids = [doc.doc_id for line in Log(path=path).lines() for doc in line.results]
    assert ids == ["line-1/x", "line-2/x"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"query": "x"}', r"log\.jsonl:1: field 'results' must be a list of objects"),
        ('{"query": "x", "results": [{"id": 7.5}]}', r"log\.jsonl:1: field 'id' must be a string"),
        ('{"results": []}', r"log\.jsonl:1: field 'query' must be a string, found nothing"),
        (
            '{"query": "x", "results": [{"id": "a", "text": ""}, {"id": "a", "text": ""}]}',
            r"log\.jsonl:1: result 'a' was returned twice",
        ),
    ],
)
def test_a_mistake_in_a_log_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(UserError, match=message):
        Log(path=path).lines()
