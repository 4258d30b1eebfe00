"""Stage `evaluate`: a model, the candidates and the labels in; runs and metrics out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zelo.artifacts import Table, read_json, read_table, table, write_json, write_table
from zelo.config import Component, option
from zelo.data.texts import Corpus, document_texts, labelled_queries, query_texts, told_with
from zelo.distributed.trainer import LightningTrainer
from zelo.errors import UserError
from zelo.evaluation.fuse import first_stage_scores, fused_ranking
from zelo.evaluation.metrics import METRICS, evaluate_rankings
from zelo.evaluation.search import LEXICAL, search_corpus, searcher
from zelo.evaluation.significance import against
from zelo.models.fusion import FUSION
from zelo.retrieval.fusion import fused_by_score
from zelo.retrieval.ranking import (
    Ranking,
    candidates_from,
    rank_by_score,
    rankings_table,
)
from zelo.retrieval.retrieve import RANKED, SYSTEMS, first_stage_of
from zelo.seeding import stream
from zelo.store import stage
from zelo.training.trainable import MODEL, TrainableModel

START, TRAINED = "start", "zelo"
FUSED, SEARCH = "+", "-search"  # parts of names: zelo+hybrid, zelo-search+bm25
FUSION_TOLD = (  # of the stage `fuse`
    "weight", "start_weight", "search_weight", "start_search_weight", "first_stage", "queries",
)  # fmt: skip
CEILING = "ceiling"  # the candidates in ideal order: what no reranker of them can pass


class Evaluation(Component):
    """Which queries are evaluated on, and how many samples bootstrap and test draw."""

    split: str = option("test", "queries that are evaluated on", pattern="^(train|dev|test|all)$")
    resamples: int = option(10_000, "draws of the bootstrap and of the test", ge=100)
    search_at_most: int = option(
        100_000,
        "largest corpus, in documents, that embedding models are also evaluated on as retrievers; "
        "0: none",
        ge=0,
    )


@stage(version=5)
def evaluate(
    *,
    out: Path,
    data: Path,
    candidates: Path,
    trained: Path,
    fusion: Path,
    model: TrainableModel,
    evaluation: Evaluation,
    seed: int,
    trainer: LightningTrainer,
    tokens: int,
) -> Mapping[str, Any]:
    """Rank the candidates by the starting and the trained model and compare all systems.

    Each is also fused with the first stage (`zelo+hybrid`), and an embedding model searches the
    whole corpus (`zelo-search`), alone and fused with BM25 where the first stage has it, both by
    the weights of the stage `fuse`. Writes `rankings`, a TREC run per system, `per_query`,
    `metrics` with bootstrap intervals, and `significance.json`: the paired test of trained against
    starting model; `differences.json` has those of fused systems.
    """
    grades = grades_to_evaluate(data, evaluation.split)
    queries = query_texts(data, evaluation.split)
    judged = {query_id: text for query_id, text in queries.items() if query_id in grades}
    pool = candidates_from(read_table(candidates, "candidates"))
    pool = {query_id: pool.get(query_id, []) for query_id in judged}
    documents = document_texts(data, {doc_id for docs in pool.values() for doc_id in docs})
    told = told_with(data)
    first_stage = first_stage_of(candidates, judged)
    rankings: dict[str, Ranking] = {
        system: {query_id: ranking.get(query_id, []) for query_id in judged}
        for system, ranking in first_stage.items()
    }
    folders = {START: None, TRAINED: trained / MODEL}
    found_first = first_stage_scores(candidates, list(judged))
    last = read_json(candidates / SYSTEMS)[-1]
    weights = read_json(fusion / FUSION, *FUSION_TOLD)
    fused: dict[str, Ranking] = {}
    for system, folder in folders.items():
        scores = model.score(folder, judged, documents, pool, out, trainer, tokens, **told)
        rankings[system] = rank_by_score(pool, scores)
        weight = weights["weight" if system == TRAINED else "start_weight"]
        fused[f"{system}{FUSED}{last}"] = fused_ranking(found_first, scores, weight)
    rankings |= fused
    corpus = Corpus.at(data)
    if (searches := searcher(model, corpus, evaluation.search_at_most)) is not None:
        for system, folder in folders.items():
            search = f"{system}{SEARCH}"
            rankings[search] = search_corpus(searches, folder, judged, corpus, trainer, **told)
            if (lexical := first_stage.get(LEXICAL)) is not None:
                weight = weights["search_weight" if system == TRAINED else "start_search_weight"]
                rankings[f"{search}{FUSED}{LEXICAL}"] = fused_by_score(
                    lexical, rankings[search], weight, RANKED
                )

    write_table(out, "rankings", rankings_table("rankings", rankings))
    ideal = {CEILING: best_order(pool, grades)}
    per_query = measure({**ideal, **rankings}, grades)
    write_table(out, "per_query", per_query)
    values = values_by_system(per_query)
    write_table(out, "metrics", summarise(values, evaluation.resamples, seed))
    tests = against(values, START, [TRAINED], evaluation.resamples, seed)
    write_json(out / "significance.json", {test.metric: test._asdict() for test in tests})
    at_ten = {key: of_queries for key, of_queries in values.items() if key[1] == METRICS[0]}
    differences = [
        against(at_ten, baseline, [system], evaluation.resamples, seed)[0]
        for system, baseline in pairs_to_test(rankings, last)
    ]
    write_json(out / "differences.json", [test._asdict() for test in differences])
    write_runs(out, rankings)
    return {
        "queries": len(judged),
        "systems": list(rankings),
        "split": evaluation.split,
        "fusion": {name: weights[name] for name in FUSION_TOLD},
    }


def pairs_to_test(systems: Collection[str], first_stage: str) -> list[tuple[str, str]]:
    """Systems beside the two models, and what each is compared with."""
    fused, search = f"{FUSED}{first_stage}", f"{SEARCH}{FUSED}{LEXICAL}"
    wanted = [
        (f"{TRAINED}{fused}", first_stage),
        (f"{TRAINED}{fused}", f"{START}{fused}"),
        (f"{TRAINED}{SEARCH}", f"{START}{SEARCH}"),
        (f"{TRAINED}{search}", f"{START}{search}"),
        (f"{TRAINED}{search}", first_stage),
    ]
    return [pair for pair in wanted if pair[0] in systems]


def grades_to_evaluate(data: Path, split: str) -> dict[str, dict[str, int]]:
    """Query id → document id → grade of a split's queries that have a relevant document.

    `UserError` where there is none. (trec_eval leaves out queries without relevant documents.)
    """
    grades = labelled_queries(data, split)
    if not grades:
        raise UserError(
            f"evaluate: no query of the {split} split has labels; choose another with "
            f"evaluation.split=..., or give qrels/{split}.tsv"
        )
    return grades


def best_order(
    pool: Mapping[str, Sequence[str]], grades: Mapping[str, Mapping[str, int]]
) -> Ranking:
    """The candidates of each query by their true grades, unjudged ones last."""
    return {
        query_id: sorted(
            ((doc_id, float(grades[query_id].get(doc_id, 0))) for doc_id in docs),
            key=lambda item: -item[1],
        )
        for query_id, docs in pool.items()
    }


def measure(
    rankings: Mapping[str, Ranking],
    grades: Mapping[str, Mapping[str, int]],
    measures: Sequence[str] = METRICS,
) -> Table:
    """Every metric of every query under every system, as a `per_query` table."""
    rows = []
    for system, ranking in rankings.items():
        ids = {query_id: [doc_id for doc_id, _ in ranked] for query_id, ranked in ranking.items()}
        for metric, values in evaluate_rankings(ids, grades, measures).items():
            rows += [
                (system, query_id, metric, value)
                for query_id, value in zip(ids, values.tolist(), strict=True)
            ]
    names = ("system", "query_id", "metric", "value")
    return table("per_query", **dict(zip(names, zip(*rows, strict=True), strict=True)))


Values = Mapping[
    tuple[str, str], np.ndarray[Any, np.dtype[np.float64]]
]  # (system, metric) → queries


def values_by_system(per_query: Any) -> Values:
    """Values of each system and metric, queries in one order for all systems."""
    ordered = per_query.sort_by([("query_id", "ascending")])
    values: dict[tuple[str, str], list[float]] = {}
    for system, metric, value in zip(
        *(ordered[name].to_pylist() for name in ("system", "metric", "value")), strict=True
    ):
        values.setdefault((system, metric), []).append(value)
    first_seen = dict.fromkeys(
        zip(per_query["system"].to_pylist(), per_query["metric"].to_pylist(), strict=True)
    )
    return {key: np.array(values[key]) for key in first_seen}


def summarise(values: Values, resamples: int, seed: int) -> Any:
    """Mean and 95 % bootstrap interval of each system and metric, as a `metrics` table."""
    from zelo.evaluation.significance import bootstrap_interval

    rows = []
    for (system, metric), sample in values.items():
        # One stream for all systems: their intervals are drawn over the same queries.
        low, high = bootstrap_interval(sample, stream(seed, "bootstrap", metric), resamples)
        rows.append((system, metric, float(sample.mean()), low, high, len(sample)))
    names = ("system", "metric", "value", "low", "high", "queries")
    return table("metrics", **dict(zip(names, zip(*rows, strict=True), strict=True)))


def write_runs(out: Path, rankings: Mapping[str, Ranking]) -> None:
    """Write a TREC run per system below `out/runs`."""
    from zelo.data.trec import write_run

    runs = out / "runs"
    runs.mkdir(exist_ok=True)
    for system, ranking in rankings.items():
        write_run(runs / f"{system}.trec", ranking, tag=f"zelo-{system}")
