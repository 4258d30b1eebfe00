"""Which pairs people are asked about: those whose answers teach most, and a share at random."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest

import numpy as np
import pyarrow as pa

from zelo.artifacts import read_table
from zelo.data.collection import hash_share
from zelo.finished_run import FinishedRun
from zelo.rating.preferences import average

RANDOM_SHARE = 0.2  # of all pairs, drawn by a hash: how judges agree on these is no one's choice
TOP = 10  # documents of a query whose set an answer may move

Ids = tuple[str, str, str]  # query and two documents, in the order of their ids
Ratings = Mapping[str, Mapping[str, tuple[float, float]]]  # query → document → Elo, standard error


def ids_of(query_id: str, one: str, other: str) -> Ids:
    """A pair, whichever document is named first."""
    return query_id, min(one, other), max(one, other)


def is_random(ids: Ids) -> bool:
    """Whether a pair belongs to the share that is drawn at random, whatever judges said."""
    return hash_share("\0".join(ids)) < RANDOM_SHARE


def pairs_of(run: FinishedRun) -> list[Ids]:
    """All pairs that the judges of a run compared, in the order in which to ask: in turn one at
    random, one that judges disagree about, and one whose answer may move the top ten."""
    folders = run.judgments_folders()
    judgments = pa.concat_tables([read_table(folder, "judgments") for folder in folders])
    found = average(judgments, "sign")
    p: dict[Ids, float] = {}
    for query_id, a, b, value in zip(
        found.query_ids, found.doc_a, found.doc_b, found.p.tolist(), strict=True
    ):
        p[ids_of(query_id, a, b)] = value
    rated = read_table(run.ratings_folder(), "ratings")
    ratings: dict[str, dict[str, tuple[float, float]]] = {}
    columns = (rated[name].to_pylist() for name in ("query_id", "doc_id", "elo", "stderr"))
    for query_id, doc_id, elo, stderr in zip(*columns, strict=True):
        ratings.setdefault(query_id, {})[doc_id] = (elo, stderr)
    return in_order(p, ratings)


def in_order(p: Mapping[Ids, float], ratings: Ratings) -> list[Ids]:
    """Pairs (with the judges' mean preference by signs) in the order in which to ask."""
    drawn = sorted(filter(is_random, p), key=lambda ids: hash_share("\0".join(ids)))
    chosen = [ids for ids in p if not is_random(ids)]
    unsettled = {ids: 1 - abs(2 * p[ids] - 1) for ids in chosen}
    moving = boundary_values(chosen, ratings)
    in_turn = zip_longest(drawn, by_value(unsettled), by_value(moving))
    asked = [ids for turn in in_turn for ids in turn if ids is not None]
    return list(dict.fromkeys([*asked, *chosen]))  # with all that is left


def by_value(values: Mapping[Ids, float]) -> list[Ids]:
    """Pairs of a value above 0, the best of each query first, then the second best of each."""
    best = sorted((ids for ids in values if values[ids] > 0), key=lambda ids: -values[ids])
    seen: dict[str, int] = {}
    turn = {}
    for ids in best:
        turn[ids] = seen[ids[0]] = seen.get(ids[0], -1) + 1
    return sorted(best, key=lambda ids: turn[ids])


def boundary_values(pairs: Iterable[Ids], ratings: Ratings) -> dict[Ids, float]:
    """How likely two documents on either side of the top are the other way round: the tail of
    their Elos' difference, from 0 to ½; 0 where both stand on one side."""
    from scipy.special import ndtr

    top: dict[str, set[str]] = {}
    values = {}
    for query_id, a, b in pairs:
        rated = ratings.get(query_id, {})
        if a not in rated or b not in rated:
            continue
        if query_id not in top:
            top[query_id] = set(highest(rated, TOP))
        if (a in top[query_id]) == (b in top[query_id]):
            continue
        (elo_a, error_a), (elo_b, error_b) = rated[a], rated[b]
        spread = max(float(np.hypot(error_a, error_b)), 1e-9)
        values[query_id, a, b] = float(ndtr(-abs(elo_a - elo_b) / spread))
    return values


def highest(rated: Mapping[str, tuple[float, float]], number: int) -> Sequence[str]:
    """Documents of the highest Elos."""
    return sorted(rated, key=lambda doc_id: (-rated[doc_id][0], doc_id))[:number]
