"""A ranking of documents per query, and its form as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zelo.artifacts import Table, table

# Query id → (document id, score), best first. Ties keep the order of the collection.
Ranking = Mapping[str, Sequence[tuple[str, float]]]


def ranking_columns(ranking: Ranking) -> dict[str, list[str] | list[int] | list[float]]:
    """Columns query_id, doc_id, rank (from 1) and score of a ranking."""
    rows = [
        (query_id, doc_id, rank, score)
        for query_id, ranked in ranking.items()
        for rank, (doc_id, score) in enumerate(ranked, start=1)
    ]
    return {
        "query_id": [row[0] for row in rows],
        "doc_id": [row[1] for row in rows],
        "rank": [row[2] for row in rows],
        "score": [row[3] for row in rows],
    }


def rankings_table(name: str, rankings: Mapping[str, Ranking]) -> Table:
    """Several systems' rankings as one table of the schema called `name`."""
    columns: dict[str, list[object]] = {}
    for system, ranking in rankings.items():
        part = ranking_columns(ranking)
        columns.setdefault("system", []).extend([system] * len(part["rank"]))
        for column, values in part.items():
            columns.setdefault(column, []).extend(values)
    return table(name, **columns)


def rankings_from(content: Table) -> dict[str, dict[str, list[tuple[str, float]]]]:
    """Read `rankings_table` back: system → query id → (document id, score), best first."""
    rankings: dict[str, dict[str, list[tuple[str, float]]]] = {}
    ordered = content.sort_by(
        [("system", "ascending"), ("query_id", "ascending"), ("rank", "ascending")]
    )
    names = ("system", "query_id", "doc_id", "score")
    for system, query_id, doc_id, score in zip(
        *(ordered[name].to_pylist() for name in names), strict=True
    ):
        rankings.setdefault(system, {}).setdefault(query_id, []).append((doc_id, score))
    return rankings


def candidates_from(content: Table) -> dict[str, list[str]]:
    """Read a candidates table back: query id → document ids, best first."""
    candidates: dict[str, list[str]] = {}
    ordered = content.sort_by([("query_id", "ascending"), ("rank", "ascending")])
    for query_id, doc_id in zip(
        ordered["query_id"].to_pylist(), ordered["doc_id"].to_pylist(), strict=True
    ):
        candidates.setdefault(query_id, []).append(doc_id)
    return candidates
