"""Tables that tests of the report make."""

from __future__ import annotations

from collections.abc import Sequence

from zelo.artifacts import Table, table


def judgments_of_one_judge(rows: Sequence[tuple[str, str, str, float]]) -> Table:
    """Its answers: query, document shown first, the other one, score."""
    n = len(rows)
    return table(
        "judgments",
        query_id=[r[0] for r in rows],
        doc_a=[r[1] for r in rows],
        doc_b=[r[2] for r in rows],
        repeat=[0] * n,
        judge=["j"] * n,
        score=[r[3] for r in rows],
        status=["answered"] * n,
        reasons=[""] * n,
    )
