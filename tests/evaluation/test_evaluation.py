from __future__ import annotations

import itertools
from pathlib import Path

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import Recall, nDCG

from zelo.evaluation.metrics import METRICS, evaluate_ranking
from zelo.evaluation.significance import bootstrap_interval, randomisation_test
from zelo.evaluation.trec import write_run

REFERENCE = {"NDCG@10": nDCG @ 10, "Recall@10": Recall @ 10, "Recall@100": Recall @ 100}


def reference(ranked: list[str], grades: dict[str, int]) -> dict[str, float]:
    run = {"q": {doc_id: float(len(ranked) - i) for i, doc_id in enumerate(ranked)}}
    found = ir_measures.calc_aggregate(list(REFERENCE.values()), {"q": grades}, run)
    return {name: found[measure] for name, measure in REFERENCE.items()}


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 130), judged=st.integers(1, 150))
def test_metrics_are_trec_evals(seed: int, n: int, judged: int) -> None:
    rng = np.random.default_rng(seed)
    universe = [f"d{i}" for i in range(200)]
    ranked = rng.permutation(universe)[:n].tolist()
    ids = rng.permutation(universe)[:judged].tolist()
    grades = {doc_id: int(g) for doc_id, g in zip(ids, rng.integers(0, 4, judged), strict=True)}
    grades[ids[0]] = 1  # trec_eval leaves a query without relevant documents out
    assert evaluate_ranking(ranked, grades) == pytest.approx(reference(ranked, grades), abs=1e-6)


def test_negative_grades_are_not_relevant() -> None:
    grades = {"a": -1, "b": 2}
    assert evaluate_ranking(["a", "b"], grades) == pytest.approx(reference(["a", "b"], grades))


@pytest.mark.parametrize(
    ("ranked", "grades"), [([], {"a": 1}), (["b"], {"a": 1}), (["a"], {"a": 0})]
)
def test_nothing_found_is_zero(ranked: list[str], grades: dict[str, int]) -> None:
    assert evaluate_ranking(ranked, grades) == dict.fromkeys(METRICS, 0.0)


def test_the_randomisation_test_is_the_exact_one() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.4, 1, 12), rng.normal(0, 1, 12)
    difference = a - b
    signs = np.array(list(itertools.product((-1, 1), repeat=12)))
    exact = (np.abs(signs @ difference) >= abs(difference.sum()) - 1e-12).mean()
    assert randomisation_test(a, b, rng, 40_000) == pytest.approx(exact, abs=0.01)


def test_equal_systems_are_not_different() -> None:
    a = np.array([0.0, 1.0, 0.5])
    assert randomisation_test(a, a, np.random.default_rng(0)) == 1.0


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        low, high = bootstrap_interval(rng.exponential(1.0, 80), rng, 500)
        hits += low <= 1.0 <= high
    assert 0.89 <= hits / 300 <= 0.98
    assert np.isnan(bootstrap_interval(np.zeros(0), rng)).all()


def test_runs_are_read_by_the_fields_tools(tmp_path: Path) -> None:
    path = tmp_path / "run.trec"
    write_run(path, {"q 1": [("a b", 0.5), ("c", 0.5)], "q2": [("d", 2.0), ("c", -1.0)]}, "tag")
    lines = path.read_text().splitlines()
    assert lines[0] == "q%201 Q0 a%20b 1 2 tag"
    assert lines[2] == "q2 Q0 d 1 2.0 tag"
    found = list(ir_measures.read_trec_run(str(path)))
    assert [
        (r.query_id, r.doc_id) for r in sorted(found, key=lambda r: (r.query_id, -r.score))
    ] == [
        ("q%201", "a%20b"),
        ("q%201", "c"),
        ("q2", "d"),
        ("q2", "c"),
    ]
