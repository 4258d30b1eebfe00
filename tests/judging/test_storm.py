"""A run that meets every fault and is killed on the way ends as one that was left in peace."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.judging.storm import Storm, collection, storm

QUERIES, DOCUMENTS = 10, 16
COMPARISONS = QUERIES * DOCUMENTS * 2
ASKED = COMPARISONS + 40  # so many are asked in both orders


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return collection(tmp_path_factory.mktemp("data") / "collection", QUERIES, DOCUMENTS)


@pytest.fixture(scope="module")
def calm(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Storm:
    return storm(tmp_path_factory.mktemp("calm"), data, COMPARISONS)


@pytest.mark.slow
def test_faults_change_nothing(calm: Storm, data: Path, tmp_path: Path) -> None:
    assert calm.requests == calm.in_ledger == ASKED
    assert len(calm.judgments) == COMPARISONS
    found = storm(tmp_path, data, COMPARISONS, faults=0.2)
    assert found.faults.total() > 0.15 * found.requests
    assert found.in_ledger == found.questions == ASKED
    assert found.answered_twice == 0
    assert found.judgments == calm.judgments
    assert found.elos == calm.elos


@pytest.mark.slow
def test_kills_change_nothing(calm: Storm, data: Path, tmp_path: Path) -> None:
    found = storm(tmp_path, data, COMPARISONS, kills=2, faults=0.2, latency=0.2)
    assert found.in_ledger == found.questions == ASKED
    assert found.answered_twice <= 2 * 128  # what was in flight
    assert found.judgments == calm.judgments
    assert found.elos == calm.elos
    # A request is counted before it is sent, and what is counted is written a moment later: each
    # kill may come between any two of these, for as many as were in flight.
    assert abs(found.requests - found.calls_counted) <= 2 * 128
