from __future__ import annotations

import itertools
from pathlib import Path

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import AP, RR, Judged, P, Recall, nDCG

from zelo.data.trec import write_run
from zelo.errors import UserError
from zelo.evaluation.metrics import evaluate_rankings
from zelo.evaluation.significance import bootstrap_interval, holm, randomisation_test

REFERENCE = {
    "NDCG@10": nDCG @ 10,
    "NDCG": nDCG,
    "Recall@10": Recall @ 10,
    "Recall@100": Recall @ 100,
    "Precision@10": P @ 10,
    "MRR": RR,
    "MRR@10": RR @ 10,
    "MAP": AP,
    "MAP@100": AP @ 100,
    "Judged@10": Judged @ 10,
}


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**6), queries=st.integers(1, 6), judged=st.integers(1, 150))
def test_metrics_are_trec_evals(seed: int, queries: int, judged: int) -> None:
    """With documents that are unjudged, of negative grade, or not retrieved; grades up to 4."""
    rng = np.random.default_rng(seed)
    universe = [f"d{i}" for i in range(200)]
    rankings, grades = {}, {}
    for q in range(queries):
        rankings[f"q{q}"] = rng.permutation(universe)[: rng.integers(1, 130)].tolist()
        ids = rng.permutation(universe)[:judged].tolist()
        grades[f"q{q}"] = dict(zip(ids, rng.integers(-1, 5, judged).tolist(), strict=True))
        grades[f"q{q}"][ids[0]] = 1
    found = evaluate_rankings(rankings, grades, list(REFERENCE))
    run = {
        query_id: {doc_id: float(-rank) for rank, doc_id in enumerate(ranked)}
        for query_id, ranked in rankings.items()
    }
    names = {str(measure): name for name, measure in REFERENCE.items()}
    seen = 0
    for metric in ir_measures.iter_calc(list(REFERENCE.values()), grades, run):
        value = found[names[str(metric.measure)]][list(rankings).index(metric.query_id)]
        assert value == pytest.approx(metric.value, abs=1e-6), metric
        seen += 1
    assert seen == queries * len(REFERENCE)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 20))
def test_properties_of_measures(seed: int, k: int) -> None:
    """Within [0, 1]; the ideal order scores 1; moving a better document up lowers nothing."""
    rng = np.random.default_rng(seed)
    docs = [f"d{i}" for i in range(12)]
    grades = {
        "q": {d: int(g) for d, g in zip(docs, rng.integers(0, 4, 12), strict=True)} | {"x": 1}
    }
    measures = [f"{name}@{k}" for name in ("NDCG", "Recall", "Precision", "MRR", "MAP")]
    ranked = rng.permutation([*docs, "x"]).tolist()
    before = evaluate_rankings({"q": ranked}, grades, measures)
    assert all(0 <= value[0] <= 1 for value in before.values())
    i = int(rng.integers(0, 12))
    if grades["q"][ranked[i]] < grades["q"][ranked[i + 1]]:
        better = [*ranked]
        better[i], better[i + 1] = ranked[i + 1], ranked[i]
        after = evaluate_rankings({"q": better}, grades, measures)
        assert all(after[m][0] >= before[m][0] - 1e-12 for m in measures)
    ideal = sorted(ranked, key=lambda d: -grades["q"][d])
    assert evaluate_rankings({"q": ideal}, grades, [f"NDCG@{k}"])[f"NDCG@{k}"][0] == pytest.approx(
        1
    )


@pytest.mark.parametrize(
    ("ranked", "grades"), [([], {"a": 1}), (["b"], {"a": 1}), (["a"], {"a": 0}), (["a"], {})]
)
def test_nothing_found_is_zero(ranked: list[str], grades: dict[str, int]) -> None:
    found = evaluate_rankings({"q": ranked}, {"q": grades})
    found.pop("Judged@10")
    assert all(value.tolist() == [0.0] for value in found.values())


def test_an_unknown_measure_is_named() -> None:
    with pytest.raises(UserError, match="nDCG@10: no such measure; there are NDCG, Recall"):
        evaluate_rankings({"q": ["a"]}, {"q": {"a": 1}}, ["nDCG@10"])


def test_the_randomisation_test_is_the_exact_one() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.4, 1, 12), rng.normal(0, 1, 12)
    difference = a - b
    signs = np.array(list(itertools.product((-1, 1), repeat=12)))
    exact = (np.abs(signs @ difference) >= abs(difference.sum()) - 1e-12).mean()
    assert randomisation_test(a, b, rng, 40_000) == pytest.approx(exact, abs=0.01)


def test_holm_is_holms() -> None:
    """The example of the paper's procedure: 0.01, 0.04, 0.03, 0.005."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


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
