"""`zelo evaluate`: rerankers side by side on one collection, each against the first stage."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import field_validator, model_validator

from zelo.artifacts import Table, read_table, write_json, write_table
from zelo.config import Component, check, describe, option
from zelo.data.collection import Data, load, title_of
from zelo.data.texts import document_texts, labelled_queries, query_instructions, query_texts
from zelo.errors import UserError
from zelo.evaluation.calibration import Pairs, calibrate
from zelo.evaluation.calibration import draw as draw_reliability
from zelo.evaluation.elo_truth import (
    ELO_NDCG,
    EloTruth,
    VerdictAgreement,
    agreement_of_verdicts,
    measure_by_elos,
)
from zelo.evaluation.evaluate import (
    CEILING,
    Evaluation,
    best_order,
    grades_to_evaluate,
    measure,
    summarise,
    values_by_system,
    write_runs,
)
from zelo.evaluation.rerankers import Pool, Reranker
from zelo.evaluation.significance import against
from zelo.judging.ensemble import Ensemble
from zelo.models.embedding_store import keeping_embeddings
from zelo.models.pretrained import PretrainedModel
from zelo.retrieval.ranking import (
    Ranking,
    candidates_from,
    rank_by_score,
    rankings_from,
    rankings_table,
)
from zelo.retrieval.retrieve import Retriever, first_stage_of, retrieve
from zelo.store import Store, stage


@stage(version=4)
def rank(
    *,
    out: Path,
    data: Path,
    candidates: Path,
    reranker: Reranker,
    split: str,
    depth: int,
    unlabelled: bool,
) -> Mapping[str, Any]:
    """Stage `rank`: the first `depth` candidates of a split's queries, ordered by one reranker.

    Queries without a relevant document are left out unless `unlabelled`. Writes `rankings`, and the
    seconds that scoring took. `UserError` where a score is no number.
    """
    queries = query_texts(data, split)
    asked = queries if unlabelled else grades_to_evaluate(data, split)
    pool = head(pool_of(candidates, asked), depth)
    documents = document_texts(data, {doc_id for docs in pool.values() for doc_id in docs})
    start = time.monotonic()
    scores = reranker.score(Pool(queries, documents, pool, data, query_instructions(data)), out)
    seconds = time.monotonic() - start
    for query_id, row in scores.items():
        if not np.isfinite(row).all():
            raise UserError(f"{type(reranker).__name__}: query {query_id!r}: a score is no number")
    write_table(
        out, "rankings", rankings_table("rankings", {"reranker": rank_by_score(pool, scores)})
    )
    return {
        "queries": len(pool),
        "pairs": sum(map(len, pool.values())),
        "seconds_scoring": round(seconds, 2),
    }


def pool_of(candidates: Path, query_ids: Iterable[str]) -> dict[str, list[str]]:
    """Candidates of each query; an empty list where it has none."""
    found = candidates_from(read_table(candidates, "candidates"))
    return {query_id: found.get(query_id, []) for query_id in query_ids}


def head(pool: Mapping[str, Sequence[str]], depth: int) -> dict[str, list[str]]:
    """The first `depth` candidates of each query."""
    return {query_id: list(docs[:depth]) for query_id, docs in pool.items()}


def with_rest(ranking: Ranking, first_stage: Ranking) -> Ranking:
    """A ranking of the first documents, followed by the others in the first stage's order."""
    whole: dict[str, list[tuple[str, float]]] = {}
    for query_id, everything in first_stage.items():
        ranked = list(ranking.get(query_id, []))
        lowest = ranked[-1][1] if ranked else 0.0
        rest = enumerate((doc_id for doc_id, _ in everything[len(ranked) :]), start=1)
        whole[query_id] = ranked + [(doc_id, lowest - n) for n, doc_id in rest]
    return whole


class Benchmark(Component):
    """What `zelo evaluate` compares (`conf/evaluate.yaml`)."""

    seed: int = option(0, "of bootstrap and tests", ge=0)
    home: Path = option(Path("outputs"), "folder of the stage store and of results", exclude=True)
    out: Path | None = option(None, "folder of the result; null: below home", exclude=True)
    embeddings_gib: float = option(
        10.0,
        "GiB of embeddings that are kept below home, for all runs; 0: none",
        ge=0,
        exclude=True,
    )
    top_k: int = option(100, "candidates per query", ge=1)
    depth: int = option(
        100, "of these, how many are reranked; the others stay in order below", ge=1
    )
    pretrained: PretrainedModel = option(help="the model that other options refer to")
    data: Data = option(help="the collection")
    retriever: Retriever = option(help="the first stage")
    rerankers: dict[str, Reranker] = option({}, "what is compared, by name")
    evaluation: Evaluation = option(help="what is reported")
    truth: EloTruth | None = option(None, "judges in the place of labels, or beside them")
    calibrate: str | None = option(
        None, "split whose labels choose thresholds of scores", pattern="^(train|dev)$"
    )
    domain: str | None = option(None, "what `zelo table` averages over: legal, medical, ...")
    judge: Ensemble = option(help="who compares, where a reranker or the truth asks", exclude=True)

    @field_validator("rerankers")
    @classmethod
    def _names(cls, rerankers: dict[str, Reranker]) -> dict[str, Reranker]:
        for name in rerankers:
            if name == CEILING or not re.fullmatch(r"[\w.+-]+", name):
                raise ValueError(f"{name!r} cannot be a reranker's name: choose another")
        return rerankers

    @model_validator(mode="after")
    def _apart(self) -> Benchmark:
        if self.calibrate and self.evaluation.split in (self.calibrate, "all"):
            raise ValueError(
                f"calibrate={self.calibrate}: evaluation.split={self.evaluation.split} would test "
                "a threshold on the queries that it is chosen on"
            )
        return self

    def run(self, say: Any) -> Path:
        """Rank, measure and compare.

        Returns the folder with runs, `per_query`, `metrics`, tests and, where they were asked for,
        `calibration.json` and the agreement of labels and Elos.
        """
        kept = keeping_embeddings(self.home, self.embeddings_gib)
        store = Store(
            self.home / "store", frozenset({"load", "retrieve", "rank"}), say, around=kept
        )
        split = self.evaluation.split
        data = store.run(load, {}, {"source": self.data})
        labels_needed = self.truth is None or self.calibrate is not None
        grades = (grades_to_evaluate if labels_needed else labelled_queries)(data.path, split)
        chosen_on = grades_to_evaluate(data.path, self.calibrate) if self.calibrate else {}
        queries = query_texts(data.path, split)
        asked = list(grades if self.truth is None else queries)
        if not asked:
            raise UserError(f"evaluate: the {split} split has no query; evaluation.split=all has")
        candidates = store.run(
            retrieve, {"data": data}, {"retriever": self.retriever, "top_k": self.top_k}
        )
        first_stage = first_stage_of(candidates.path, asked)
        if taken := first_stage.keys() & self.rerankers.keys():
            raise UserError(
                f"rerankers.{min(taken)}: the first stage has that name: choose another"
            )
        last = candidates.record["counts"]["retriever"]
        depth = min(self.depth, self.top_k)
        records: dict[str, Mapping[str, Any]] = {}

        inputs = {"data": data, "candidates": candidates}

        def rank_options(reranker: Reranker, split: str) -> dict[str, Any]:
            """Options of the stage `rank`."""
            unlabelled = self.truth is not None
            return {"reranker": reranker, "split": split, "depth": depth, "unlabelled": unlabelled}

        to_run = [
            r
            for r in self.rerankers.values()
            if store.pending(rank, inputs, rank_options(r, split))
        ]
        check(self.truth, *to_run)  # before any of them is paid for

        def ranked(split: str, query_ids: Iterable[str]) -> dict[str, Ranking]:
            """System → ranking of some queries; what a reranker did not read follows below."""
            found: dict[str, Ranking] = {
                system: {query_id: ranking.get(query_id, []) for query_id in query_ids}
                for system, ranking in first_stage.items()
            }
            for name, reranker in self.rerankers.items():
                ranked_by = store.run(
                    rank,
                    inputs,
                    rank_options(reranker, split),
                    label=f"rank ({name}{'' if split == self.evaluation.split else ', ' + split})",
                )
                ranking = rankings_from(read_table(ranked_by.path, "rankings")).get("reranker", {})
                found[name] = with_rest(ranking, found[last])
                records.setdefault(name, ranked_by.record["counts"])
            return found

        rankings = ranked(split, asked)
        pool = head(pool_of(candidates.path, asked), depth)
        about = {"config": describe(self), "collection": title_of(self.data), "domain": self.domain,
                 "first_stage": last, "split": split, "depth": depth, "queries": len(grades),
                 "rerankers": records}  # fmt: skip
        tables = []
        if grades:
            labelled = {
                system: {query_id: ranking[query_id] for query_id in grades}
                for system, ranking in rankings.items()
            }
            ideal = best_order({query_id: pool[query_id] for query_id in grades}, grades)
            tables.append(measure({CEILING: with_rest(ideal, labelled[last]), **labelled}, grades))
        if self.truth is not None:
            judged = self.truth.rate(data.path, queries, rankings)
            ideal = by_elo(pool, judged.elos)
            systems = {CEILING: with_rest(ideal, rankings[last]), **rankings}
            tables.append(measure_by_elos(systems, judged.elos))
            about["truth"] = {"queries": len(judged.elos), "asked": len(queries),
                              "comparisons": judged.comparisons,
                              "unanswered": judged.unanswered}  # fmt: skip
        per_query = pa.concat_tables(tables)
        if grades and self.truth is not None:
            about["agreement"] = agreement_by_query(per_query)._asdict()
        values = values_by_system(per_query)
        tests = against(values, last, list(self.rerankers), self.evaluation.resamples, self.seed)
        out = self.out or self.home / "evaluations" / time.strftime("%Y-%m-%d_%H-%M-%S")
        out.mkdir(parents=True, exist_ok=True)
        write_table(out, "per_query", per_query)
        write_table(out, "metrics", summarise(values, self.evaluation.resamples, self.seed))
        write_json(out / "comparisons.json", [test._asdict() for test in tests])
        write_json(out / "evaluation.json", about)
        write_runs(out, rankings)
        if self.calibrate:
            chosen = ranked(self.calibrate, chosen_on)
            rows = []
            for name in rankings:
                pairs = Pairs.of(chosen[name], chosen_on, depth)
                tested = {query_id: rankings[name][query_id] for query_id in grades}
                rows.append(calibrate(name, pairs, Pairs.of(tested, grades, depth)))
            write_json(out / "calibration.json", rows)
            draw_reliability(rows, out / "reliability.png")
        return out


def by_elo(pool: Mapping[str, Sequence[str]], elos: Mapping[str, Mapping[str, float]]) -> Ranking:
    """The candidates of each rated query by their Elos, unrated ones last."""
    return {
        query_id: sorted(
            ((doc_id, elo.get(doc_id, -np.inf)) for doc_id in pool[query_id]),
            key=lambda item: -item[1],
        )
        for query_id, elo in elos.items()
    }


def agreement_by_query(per_query: Table) -> VerdictAgreement:
    """Agreement of NDCG@10 by labels and by Elos, over the systems and queries that have both."""
    values: dict[str, dict[tuple[str, str], float]] = {"NDCG@10": {}, ELO_NDCG: {}}
    for row in per_query.to_pylist():
        if row["metric"] in values and row["system"] != CEILING:
            values[row["metric"]][row["system"], row["query_id"]] = row["value"]
    by_label, by_elo = values["NDCG@10"], values[ELO_NDCG]
    systems = list(dict.fromkeys(system for system, _ in by_elo))
    both = [query_id for system, query_id in by_elo if system == systems[0]]
    both = [query_id for query_id in both if (systems[0], query_id) in by_label]
    return agreement_of_verdicts(
        {system: [by_label[system, query_id] for query_id in both] for system in systems},
        {system: [by_elo[system, query_id] for query_id in both] for system in systems},
    )
