"""Stage `fuse`: how much the model counts beside the first stage, by held-out judged queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from zelo.artifacts import read_json, read_table, write_json
from zelo.data.texts import Corpus, document_texts, query_texts, told_with
from zelo.distributed.trainer import LightningTrainer
from zelo.evaluation.elo_truth import elo_ndcg
from zelo.evaluation.search import LEXICAL, search_corpus, searcher
from zelo.models.fusion import FUSION, NORMALISATION, fused_scores
from zelo.retrieval.fusion import fused_by_score
from zelo.retrieval.ranking import Ranking, rank_by_score
from zelo.retrieval.retrieve import RANKED, SYSTEMS, first_stage_of
from zelo.store import stage
from zelo.training.train import HELD_OUT
from zelo.training.trainable import MODEL, TrainableModel

WEIGHTS = tuple(round(0.1 * step, 1) for step in range(11))  # of the model
DEFAULT = 0.5  # where fewer than LEAST queries are held out
SURE = 1.645  # standard errors: 95 %, one-sided
LEAST, MOST = 10, 500  # queries that a weight is chosen on


@stage(version=4)
def fuse(
    *,
    out: Path,
    data: Path,
    candidates: Path,
    ratings: Path,
    trained: Path,
    model: TrainableModel,
    trainer: LightningTrainer,
    tokens: int,
    search_at_most: int,
) -> Mapping[str, Any]:
    """Choose the weights of the trained and of the starting model in sums with the first stage.

    One weight is for the candidates' scores and those of the first stage; another, where an
    embedding model is to search a corpus of at most `search_at_most` documents, for what it finds
    and what BM25 finds. Scores are normalised within a query; what counts is NDCG@10 of its rated
    documents, with exp(Elo) as the gain. No label is read.
    """
    held_out = read_json(trained / HELD_OUT)[:MOST]
    elos = elos_of(ratings, held_out)
    weights = ("weight", "start_weight", "search_weight", "start_search_weight")
    chosen: dict[str, Any] = dict.fromkeys(weights, DEFAULT)
    curves: dict[str, Any] = {}

    def choose(name: str, rankings: Sequence[Ranking]) -> None:
        ndcg_WQ = ndcg_by_weight(rankings, elos)
        means = ndcg_WQ.mean(1).round(6).tolist()
        curves[name] = dict(zip(map(str, WEIGHTS), means, strict=True))
        chosen[name] = best_weight(ndcg_WQ)

    if len(elos) >= LEAST:
        first_stage = first_stage_scores(candidates, list(elos))
        pool = {query_id: list(row) for query_id, row in first_stage.items()}
        queries = query_texts(data, "train")
        asked = {query_id: queries[query_id] for query_id in pool}
        texts = document_texts(data, {doc_id for docs in pool.values() for doc_id in docs})
        told, corpus = told_with(data), Corpus.at(data)
        searches = searcher(model, corpus, search_at_most)
        lexical = first_stage_of(candidates, elos).get(LEXICAL) if searches else None
        for prefix, folder in (("", trained / MODEL), ("start_", None)):
            scores = model.score(folder, asked, texts, pool, out, trainer, tokens, **told)
            by_weight = [fused_ranking(first_stage, scores, weight) for weight in WEIGHTS]
            choose(f"{prefix}weight", by_weight)
            if searches and lexical:
                found = search_corpus(searches, folder, asked, corpus, trainer, **told)
                by_weight = [fused_by_score(lexical, found, w, 2 * RANKED) for w in WEIGHTS]
                choose(f"{prefix}search_weight", by_weight)
    about = {
        **chosen,
        "normalisation": NORMALISATION,
        "first_stage": read_json(candidates / SYSTEMS)[-1],
        "queries": len(elos) if curves else 0,
    }
    write_json(out / FUSION, {**about, "ndcg_at_10": curves})
    return about


def elos_of(ratings: Path, query_ids: Sequence[str]) -> dict[str, dict[str, float]]:
    """Query → document → Elo, of these queries."""
    wanted = pc.field("query_id").isin(pa.array(query_ids, pa.string()))
    rows = read_table(ratings, "ratings", wanted)
    found: dict[str, dict[str, float]] = {}
    columns = (rows[name].to_pylist() for name in ("query_id", "doc_id", "elo"))
    for query_id, doc_id, elo in zip(*columns, strict=True):
        found.setdefault(query_id, {})[doc_id] = elo
    return found


def first_stage_scores(candidates: Path, query_ids: Sequence[str]) -> dict[str, dict[str, float]]:
    """Query → candidate → score by the first stage, best first, of these queries."""
    wanted = pc.field("query_id").isin(pa.array(query_ids, pa.string()))
    rows = read_table(candidates, "candidates", wanted)
    found: dict[str, dict[str, float]] = {query_id: {} for query_id in query_ids}
    ordered = rows.sort_by([("query_id", "ascending"), ("rank", "ascending")])
    columns = (ordered[name].to_pylist() for name in ("query_id", "doc_id", "score"))
    for query_id, doc_id, score in zip(*columns, strict=True):
        found[query_id][doc_id] = score
    return found


def fused_ranking(
    first_stage: Mapping[str, Mapping[str, float]],
    scores: Mapping[str, Sequence[float]],
    weight: float,
) -> Ranking:
    """Candidates by the weighted sum; equal ones keep the order of the first stage."""
    fused = {
        query_id: fused_scores(list(row.values()), scores[query_id], weight).tolist()
        for query_id, row in first_stage.items()
    }
    return rank_by_score({query_id: list(row) for query_id, row in first_stage.items()}, fused)


def ndcg_by_weight(
    rankings: Sequence[Ranking], elos: Mapping[str, Mapping[str, float]]
) -> NDArray[np.float64]:
    """NDCG@10 (W, Q) of each query's rated documents in the ranking of each weight.

    What is not rated is left out of the rankings: it was not looked at, and is not known to be bad.
    """
    return np.array(
        [
            [elo_ndcg([d for d, _ in ranking[q] if d in row], row) for q, row in elos.items()]
            for ranking in rankings
        ]
    )


def best_weight(ndcg_WQ: NDArray[np.float64]) -> float:
    """Halfway between `DEFAULT` and the best of the `WEIGHTS`.

    Half, since the judges that say which is the best are liker to the model, which learned from
    them, than to the truth: experiments/bare_corpus has what labels say. Of weights that are not
    surely worse than the best the one nearest to `DEFAULT` counts as the best: over some hundred
    queries the means of most are the same but for noise.
    """
    best = int(ndcg_WQ.mean(1).argmax())
    loss_WQ = ndcg_WQ[best] - ndcg_WQ
    error_W = loss_WQ.std(1) / np.sqrt(loss_WQ.shape[1])
    close = loss_WQ.mean(1) <= SURE * error_W + 1e-12
    as_good = [weight for weight, good in zip(WEIGHTS, close, strict=True) if good]
    nearest = min(as_good, key=lambda weight: abs(weight - DEFAULT))
    return round((DEFAULT + nearest) / 2, 2)
