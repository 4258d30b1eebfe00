"""Which of two systems people find better: the pairs that tell, and how many answers that takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from zelo.annotation.pairs import TOP, Ids
from zelo.artifacts import Table
from zelo.data.collection import hash_share
from zelo.errors import UserError
from zelo.judging.agreement import share_of
from zelo.judging.question import Answer, Question

SURE, POWER = 1.959964, 0.841621  # normal quantiles: 95 % in two directions, and 80 % of success
MOST = 100_000  # answers; whoever needs more will not get them

Ranks = Mapping[str, Mapping[str, int]]  # query → document → rank
FirstOfPair = Mapping[Ids, bool]  # whether the first system ranks the first document of it higher


@dataclass(frozen=True)
class Preference:
    """How often people sided with the first of two systems, where the two disagree."""

    answers: int
    decided: int
    share: tuple[float, float, float]  # of the decided ones, with an interval of 95 %
    more: int | None  # decided answers that would settle it in four of five cases; None: above MOST

    @property
    def settled(self) -> bool:
        """Whether one of the two is surely better."""
        return self.share[1] > 0.5 or self.share[2] < 0.5


def pairs_between(one: Ranks, other: Ranks) -> FirstOfPair:
    """Pairs that two systems order otherwise, in the order in which to ask.

    Of a query they are the documents that the two show at the same rank among the first ten, at the
    first rank where they differ, at the second, and so on; all queries' first pairs come before any
    second one, queries in the order of a hash.
    """
    found: dict[str, dict[Ids, bool]] = {}
    for query_id in sorted(one.keys() & other.keys(), key=hash_share):
        rank, rank_there = one[query_id], other[query_id]
        for doc_id, instead in zip(best(rank), best(rank_there), strict=False):
            here = rank[doc_id] < rank.get(instead, math.inf)
            there = rank_there[instead] < rank_there.get(doc_id, math.inf)
            if here and there:
                low, high = sorted((doc_id, instead))
                found.setdefault(query_id, {}).setdefault((query_id, low, high), low == doc_id)
    turns = max(map(len, found.values()), default=0)
    lists = [list(of_query.items()) for of_query in found.values()]
    return dict(pairs[turn] for turn in range(turns) for pairs in lists if turn < len(pairs))


def best(rank: Mapping[str, int]) -> list[str]:
    """The first ten documents."""
    return sorted(rank, key=lambda doc_id: rank[doc_id])[:TOP]


def ranks_in_table(rankings: Table | None, system: str) -> Ranks:
    """Those of one system in the table `rankings` of an evaluation; `UserError` where there is no
    such system."""
    there = rankings["system"].unique().to_pylist() if rankings else []
    if rankings is None or system not in there:
        have = f"; the results have {', '.join(sorted(there))}" if there else ""
        raise UserError(f"between: {system!r} is no file, and no system of a run{have}")
    rows = rankings.filter(pc.equal(rankings["system"], system))
    found: dict[str, dict[str, int]] = {}
    columns = (rows[name].to_pylist() for name in ("query_id", "doc_id", "rank"))
    for query_id, doc_id, rank in zip(*columns, strict=True):
        found.setdefault(query_id, {})[doc_id] = rank
    return found


def preference(answered: Sequence[tuple[Question, str, Answer]], pairs: FirstOfPair) -> Preference:
    """What people's answers about such pairs say; each person's counts."""
    right: list[float] = []
    queries: list[str] = []
    answers = 0
    for question, _, answer in answered:
        if answer.score is None:
            continue
        answers += 1
        if answer.score == 0:
            continue
        better, worse = question.doc_a, question.doc_b
        if answer.score > 0:
            better, worse = worse, better
        low, high = sorted((better, worse))
        first = pairs[question.query_id, low, high]
        right.append(float((better == low) == first))
        queries.append(question.query_id)
    of_query = np.unique(np.array(queries, str), return_inverse=True)[1].astype(np.int64)
    share = share_of(np.array(right), of_query)
    return Preference(answers, len(right), share, answers_to_settle(share[0], len(right)))


def answers_to_settle(share: float, decided: int) -> int | None:
    """Further decided answers after which an interval of 95 % would leave out ½ in four of five
    cases, were `share` the truth and answers independent; None where they are more than MOST."""
    if not decided or share == 0.5:
        return None
    sure, power = SURE * 0.5, POWER * math.sqrt(share * (1 - share))
    needed = ((sure + power) / (share - 0.5)) ** 2
    return None if needed > MOST else max(math.ceil(needed) - decided, 0)
