"""`zelo evaluate`: rerankers side by side on one collection, each against the first stage."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import field_validator

from zelo.artifacts import read_table, write_json, write_table
from zelo.config import Component, describe, option
from zelo.data.collection import Data, load
from zelo.data.texts import document_texts, query_texts
from zelo.errors import UserError
from zelo.evaluation.evaluate import (
    CEILING,
    Evaluation,
    best_order,
    grades_to_evaluate,
    measure,
    rerank,
    summarise,
    values_by_system,
    write_runs,
)
from zelo.evaluation.rerankers import Pool, Reranker
from zelo.evaluation.significance import against
from zelo.judging.ensemble import Ensemble
from zelo.models.weights import Weights
from zelo.retrieval.ranking import Ranking, candidates_from, rankings_from, rankings_table
from zelo.retrieval.retrieve import Retriever, retrieve
from zelo.store import Store, stage


@stage(version=2)
def rank(
    *, out: Path, data: Path, candidates: Path, reranker: Reranker, split: str
) -> Mapping[str, Any]:
    """Stage `rank`: the candidates of a split's labelled queries, ordered by one reranker.

    Writes `rankings`, and the seconds that scoring took.
    """
    pool = pool_of(candidates, grades_to_evaluate(data, split))
    documents = document_texts(data, {doc_id for docs in pool.values() for doc_id in docs})
    queries = query_texts(data, split)
    start = time.monotonic()
    scores = reranker.score(Pool(queries, documents, pool, data), out)
    seconds = time.monotonic() - start
    write_table(out, "rankings", rankings_table("rankings", {"reranker": rerank(pool, scores)}))
    return {
        "queries": len(pool),
        "pairs": sum(map(len, pool.values())),
        "seconds_scoring": round(seconds, 2),
    }


def pool_of(candidates: Path, query_ids: Iterable[str]) -> dict[str, list[str]]:
    """Candidates of each query, none where a query has none."""
    found = candidates_from(read_table(candidates, "candidates"))
    return {query_id: found.get(query_id, []) for query_id in query_ids}


class Benchmark(Component):
    """What `zelo evaluate` compares (`conf/evaluate.yaml`)."""

    seed: int = option(0, "of bootstrap and tests", ge=0)
    home: Path = option(Path("outputs"), "folder of the stage store and of results", exclude=True)
    out: Path | None = option(None, "folder of the result; null: below home", exclude=True)
    top_k: int = option(100, "candidates per query", ge=1)
    weights: Weights = option(help="the model that other options refer to")
    data: Data = option(help="the collection")
    retriever: Retriever = option(help="the first stage")
    rerankers: dict[str, Reranker] = option({}, "what is compared, by name")
    evaluation: Evaluation = option(help="what is reported")
    judge: Ensemble = option(help="who compares, where a reranker asks", exclude=True)

    @field_validator("rerankers")
    @classmethod
    def _names(cls, rerankers: dict[str, Reranker]) -> dict[str, Reranker]:
        for name in rerankers:
            if name == CEILING or not re.fullmatch(r"[\w.+-]+", name):
                raise ValueError(f"{name!r} cannot be a reranker's name: choose another")
        return rerankers

    def run(self, say: Any) -> Path:
        """Rank, measure and compare; the folder with runs, `per_query`, `metrics` and tests."""
        store = Store(self.home / "store", frozenset({"load", "retrieve", "rank"}), say)
        split = self.evaluation.split
        data = store.run(load, {}, {"source": self.data})
        grades = grades_to_evaluate(data.path, split)
        candidates = store.run(
            retrieve, {"data": data}, {"retriever": self.retriever, "top_k": self.top_k}
        )
        pool = pool_of(candidates.path, grades)
        first_stage = rankings_from(read_table(candidates.path, "first_stage"))
        rankings: dict[str, Ranking] = {
            system: {query_id: ranking.get(query_id, []) for query_id in grades}
            for system, ranking in first_stage.items()
        }
        if taken := rankings.keys() & self.rerankers.keys():
            raise UserError(
                f"rerankers.{min(taken)}: the first stage has that name: choose another"
            )
        last = candidates.record["counts"]["retriever"]
        records = {}
        for name, reranker in self.rerankers.items():
            ranked = store.run(
                rank,
                {"data": data, "candidates": candidates},
                {"reranker": reranker, "split": split},
                label=f"rank ({name})",
            )
            found = rankings_from(read_table(ranked.path, "rankings")).get("reranker", {})
            rankings[name] = {query_id: found.get(query_id, []) for query_id in grades}
            records[name] = ranked.record["counts"]
        per_query = measure({CEILING: best_order(pool, grades), **rankings}, grades)
        values = values_by_system(per_query)
        tests = against(values, last, list(self.rerankers), self.evaluation.resamples, self.seed)
        out = self.out or self.home / "evaluations" / time.strftime("%Y-%m-%d_%H-%M-%S")
        out.mkdir(parents=True, exist_ok=True)
        write_table(out, "per_query", per_query)
        write_table(out, "metrics", summarise(values, self.evaluation.resamples, self.seed))
        write_json(out / "comparisons.json", [test._asdict() for test in tests])
        about = {"config": describe(self), "first_stage": last, "split": split,
                 "queries": len(grades), "rerankers": records}  # fmt: skip
        write_json(out / "evaluation.json", about)
        write_runs(out, rankings)
        return out
