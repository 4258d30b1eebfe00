"""Averages over collections and domains, and the command that prints them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.conftest import Cli

from zelo.errors import UserError
from zelo.evaluation.macro_average import (
    COLLECTIONS,
    DOMAINS,
    Evaluated,
    against_baseline,
    shared_systems,
    table_rows,
)


def evaluated(name: str, domain: str | None, queries: int, base: float, gain: float) -> Evaluated:
    rng = np.random.default_rng(queries)
    values = rng.normal(base, 0.1, queries)
    return Evaluated(
        name,
        domain,
        {"bm25": values, "ours": values + gain, "same": values, "ceiling": values + 1},
    )


SETS = [
    evaluated("small", "legal", 20, 0.2, 0.1),
    evaluated("large", "legal", 400, 0.6, 0.1),
    evaluated("other", "medical", 50, 0.5, -0.02),
]


def test_collections_and_domains_count_the_same_whatever_their_size() -> None:
    found = {row.name: row for row in table_rows(SETS)}
    assert list(found) == ["small", "large", "other", "legal", "medical", COLLECTIONS, DOMAINS]
    means = [e.values["ours"].mean() for e in SETS]
    assert found["legal"].values["ours"][0] == pytest.approx(np.mean(means[:2]))
    assert found[COLLECTIONS].values["ours"][0] == pytest.approx(np.mean(means))
    domains = (np.mean(means[:2]) + means[2]) / 2
    assert found[DOMAINS].values["ours"][0] == pytest.approx(domains)
    assert found[DOMAINS].queries == 470
    assert found["legal"].queries == 420
    for row in found.values():
        mean, low, high = row.values["ours"]
        assert low < mean < high
    # The interval of an average is that of independent samples.
    mean, low, high = found[COLLECTIONS].values["ours"]
    spread = np.sqrt(sum(e.values["ours"].var() / len(e.values["ours"]) for e in SETS)) / 3
    assert (high - low) / 2 == pytest.approx(1.96 * spread, rel=0.05)


def test_without_domains_there_is_one_average() -> None:
    sets = [Evaluated(e.name, None, e.values) for e in SETS]
    assert [row.name for row in table_rows(sets)][3:] == [COLLECTIONS]


def test_a_gain_over_all_collections_is_found_and_equality_is_not() -> None:
    ours, same = against_baseline(SETS, "bm25")
    assert ours.system == "ours"
    assert ours.difference == pytest.approx((0.1 + 0.1 - 0.02) / 3)
    assert (ours.better, ours.worse) == (2, 1)
    assert ours.p_corrected == pytest.approx(2 * ours.p_value)
    assert ours.p_value < 0.001
    assert (same.difference, same.p_value) == (0, 1)


def test_systems_are_those_that_all_collections_have() -> None:
    less = Evaluated("less", None, {"ours": SETS[0].values["ours"]})
    assert shared_systems([SETS[0], less]) == ["ours"]
    with pytest.raises(UserError, match="baseline bm25: not in every evaluation"):
        against_baseline([SETS[0], less], "bm25")
    with pytest.raises(UserError, match="no system in common"):
        shared_systems([SETS[0], Evaluated("none", None, {})])


def test_table_of_two_collections(cli: Cli, tmp_path: Path, beir_folder: Path) -> None:
    evaluate = ["evaluate", "data=beir", f"data.path={beir_folder}", "retriever=bm25"]
    evaluate += ["evaluation.resamples=100"]
    for name, split in (("one", "test"), ("two", "train")):
        done = cli(*evaluate, f"data.name={name}", f"domain={name}s", f"out={name}",
                   f"evaluation.split={split}")  # fmt: skip
        assert done.returncode == 0, done.stderr
    done = cli("table", "one", "two", "csv=table.csv")
    assert done.returncode == 0, done.stderr
    for name in ("one", "two", "ones", COLLECTIONS, DOMAINS, "ideal order", "BM25"):
        assert name in done.stdout
    assert "! split differs: test of one; train of two" in done.stdout
    lines = (tmp_path / "work" / "table.csv").read_text().splitlines()
    assert lines[0] == "name,kind,queries,system,value,low,high"
    assert len(lines) == 1 + 6 * 2
    for arguments, message in (
        (["one", "nowhere"], "nowhere: has no evaluation.json"),
        (["one", "one"], "one: collection one is there already"),
        (["one", "metric=NDCG@7"], "one: has no NDCG@7; there are NDCG@10,"),
        (["one", "colour=red"], "colour: no such option"),
        (["one", "baseline=x"], "baseline x: not in every evaluation"),
        (["one", "csv=no/folder.csv"], "no/folder.csv: cannot be written (No such file"),
        (["metric=NDCG@10"], "table: name at least one folder"),
    ):
        done = cli("table", *arguments)
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: {message}")
