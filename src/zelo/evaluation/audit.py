"""`zelo audit`: the method as a monitor of a live system.

Queries of a log are drawn; the judges compare the documents that were returned for each, which are
rated; and the order in which they were returned is measured by their Elos. Source: the monitoring
that the paper proposes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zelo.artifacts import read_table, write_json
from zelo.comparison.compare import compare
from zelo.comparison.rounds import count, in_rounds
from zelo.comparison.sampler import DrawingSampler
from zelo.config import Component, check, describe, option
from zelo.data.collection import load
from zelo.data.log import Log
from zelo.data.texts import document_texts, query_texts
from zelo.errors import UserError
from zelo.evaluation.elo_truth import ELO_MEASURES, ELO_NDCG, elo_values
from zelo.evaluation.significance import bootstrap_interval
from zelo.judging.ensemble import Ensemble
from zelo.judging.judge import judge
from zelo.judging.spending import Budget
from zelo.models.embedding_store import keeping_embeddings
from zelo.models.pretrained import PretrainedModel
from zelo.rating.rate import Rating, rate
from zelo.retrieval.logged import LoggedOrder
from zelo.retrieval.ranking import candidates_from
from zelo.retrieval.retrieve import retrieve
from zelo.seeding import stream
from zelo.store import Store, digest

STAGES = (load, retrieve, compare, judge, rate)
LISTED = 20  # at most so many worst queries, and documents returned too low, are listed
SURE = 1.96  # standard errors of the difference of two Elos
EXCERPT = 160  # characters


class Audit(Component):
    """What `zelo audit LOG` does (`conf/audit.yaml`)."""

    seed: int = option(0, "of every random draw", ge=0)
    home: Path = option(
        Path("outputs"), "folder of the stage store and of the ledger", exclude=True
    )
    out: Path | None = option(None, "folder of the result; null: beside the log", exclude=True)
    embeddings_gib: float = option(
        10.0,
        "GiB of embeddings that are kept below home, for all runs; 0: none",
        ge=0,
        exclude=True,
    )
    top_k: int = option(20, "returned documents that are judged, per query", ge=2)
    data: Log = option(help="the log, and how much of it")
    sampler: DrawingSampler = option(help="which pairs are compared")
    judge: Ensemble = option(help="who compares")
    pretrained: PretrainedModel = option(help="the model that judges here refer to", exclude=True)
    budget: Budget = option(Budget(), "what judges may cost at most", exclude=True)
    rating: Rating = option(help="how comparisons become Elos")

    def run(self, say: Any) -> tuple[Path, dict[str, Any]]:
        """Judge and rate a sample; the folder that holds `audit.json`, and its content."""
        kept = keeping_embeddings(self.home, self.embeddings_gib)
        stages = frozenset(stage.name for stage in STAGES)
        store = Store(self.home / "store", stages, say, around=kept)
        check(self.rating)  # before anything is paid for
        seed = {"seed": self.seed}
        data = store.run(load, {}, {"source": self.data})
        order = {"retriever": LoggedOrder(log=self.data), "top_k": self.top_k}
        ranked = {"data": data, "candidates": store.run(retrieve, {"data": data}, order)}
        vote = {"vote": self.judge.vote}
        paid = {"ledger": self.home / "ledger.sqlite", "budget": self.budget,
                "run": digest(describe(self))}  # fmt: skip
        asked, judged = in_rounds(
            self.sampler,
            lambda judged, which: store.run(
                compare,
                {**ranked, **judged},
                {"sampler": self.sampler, "depth": self.top_k, **vote, **seed},
                label=f"compare{which}",
            ),
            lambda comparisons, earlier, which: store.run(
                judge,
                {"data": data, "comparisons": comparisons, **earlier},
                {"ensemble": self.judge, **seed},
                paid,
                label=f"judge{which}",
            ),
        )
        rated = store.run(rate, judged, {"rating": self.rating, **vote})
        found = findings(data.path, ranked["candidates"].path, rated.path, self.seed)
        counts = [answers.record["counts"] for answers in judged.values()]
        found["usd"] = sum(row["usd"] for row in counts)
        found["unanswered"] = sum(row["failed"] + row["missing"] for row in counts)
        found["comparisons"] = sum(map(count, asked.values()))
        out = self.out or self.data.path.with_name(f"{self.data.path.name.partition('.')[0]}.audit")
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "audit.json", found)
        return out, found


def findings(data: Path, candidates: Path, ratings: Path, seed: int) -> dict[str, Any]:
    """How good the logged order is by the Elos: means with intervals, the worst queries, and
    documents that were returned too low."""
    elos: dict[str, dict[str, float]] = {}
    errors: dict[str, dict[str, float]] = {}
    for row in read_table(ratings, "ratings").to_pylist():
        elos.setdefault(row["query_id"], {})[row["doc_id"]] = row["elo"]
        errors.setdefault(row["query_id"], {})[row["doc_id"]] = row["stderr"]
    if not elos:
        raise UserError("audit: no query of the log has two results that could be compared")
    returned = candidates_from(read_table(candidates, "candidates"))
    queries = query_texts(data)
    each = {
        query_id: dict(zip(ELO_MEASURES, elo_values(returned[query_id], elo), strict=True))
        for query_id, elo in elos.items()
    }
    means = {}
    for name in ELO_MEASURES:
        values = np.array([row[name] for row in each.values()])
        values = values[~np.isnan(values)]
        if len(values):
            low, high = bootstrap_interval(values, stream(seed, "audit", name))
            means[name] = {"value": float(values.mean()), "low": low, "high": high}
    worst = sorted(each, key=lambda query_id: each[query_id][ELO_NDCG])[:LISTED]
    low_documents = sorted(
        (row for i in elos for row in too_low(i, returned[i], elos[i], errors[i])),
        key=lambda row: -row["elo_above"],
    )[:LISTED]
    texts = document_texts(data, {row["doc_id"] for row in low_documents})
    return {
        "queries": len(each),
        "not_rated": len(queries) - len(each),
        "means": means,
        "worst_queries": [
            {
                "query_id": i,
                "query": queries[i],
                **{name: None if np.isnan(value) else value for name, value in each[i].items()},
            }
            for i in worst
        ],
        "returned_too_low": [
            {**row, "query": queries[row["query_id"]], "text": texts[row["doc_id"]][:EXCERPT]}
            for row in low_documents
        ],
    }


def too_low(
    query_id: str,
    ranked: list[str],
    elo: Mapping[str, float],
    stderr: Mapping[str, float],
) -> list[dict[str, Any]]:
    """Documents that are significantly better than the one returned first, and by how much."""
    first = next((doc_id for doc_id in ranked if doc_id in elo), None)
    if first is None:
        return []
    found = []
    for rank, doc_id in enumerate(ranked, start=1):
        if doc_id in elo and elo[doc_id] > elo[first]:
            above = elo[doc_id] - elo[first]
            if above > SURE * np.hypot(stderr[doc_id], stderr[first]):
                found.append({"query_id": query_id, "doc_id": doc_id, "rank": rank,
                              "elo_above": above})  # fmt: skip
    return found


def show(found: Mapping[str, Any]) -> None:
    """Print what an audit found."""
    from rich.console import Console

    console = Console(width=None if Console().is_terminal else 110, markup=False, highlight=False)
    console.print(f"{found['queries']} logged queries, {found['comparisons']:,} comparisons, "
                  f"${found['usd']:.2f}")  # fmt: skip
    if found["unanswered"]:
        console.print(f"! {found['unanswered']:,} questions have no answer")
    if found["not_rated"]:
        console.print(
            f"! {found['not_rated']} queries could not be rated: fewer than two "
            f"results, or no answer about them"
        )
    for name, e in found["means"].items():
        console.print(f"{name:>20}  {e['value']:.3f} [{e['low']:.3f}, {e['high']:.3f}]")
    console.print("\nworst queries")
    for row in found["worst_queries"][:5]:
        console.print(f"  {row[ELO_NDCG]:.3f}  {row['query']}")
    if found["returned_too_low"]:
        console.print("\nreturned too low")
        for row in found["returned_too_low"][:5]:
            console.print(f"  rank {row['rank']:>3}  {row['query']}  →  {row['text']}")
