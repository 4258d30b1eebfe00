"""Rating where judges ordered blocks of documents: by Plackett–Luce, with what others say of two.

Elos are written on the scale of `rating.model`, so that targets and losses need no other settings:
a Plackett–Luce Elo is `LOGISTIC` times one of Thurstone, as `sigmoid(1.702 z)` is within 0.01 of
`Φ(z)` everywhere, and `Φ(√2 d) = (1 + erf d) / 2`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zelo.artifacts import Table, table
from zelo.progress import track
from zelo.rating.comparisons import Comparisons, Reals, Wholes
from zelo.rating.plackett_luce import RankingChoices, fit_rankings, ranking_errors
from zelo.rating.preferences import average
from zelo.rating.slot_effects import ShownChoices, SlotFit, fit_slot_effects
from zelo.rating.targets import targets

BELOW = -1  # a place below all others, in no known order
LOGISTIC = 1.702 * 2**0.5
SCALE = {"thurstone": LOGISTIC, "bradley_terry": 1.0}  # of a Plackett–Luce Elo, by the model


def which_is_above(a: int | None, b: int | None) -> float | None:
    """−1 where the place `a` is above `b`, +1 where it is below, 0 where they are one; None where
    that is not known."""
    if a is None or b is None or (a == BELOW and b == BELOW):
        return None
    lowest = max(a, b) + 1
    return float(np.sign((lowest if a == BELOW else a) - (lowest if b == BELOW else b)))


@dataclass(frozen=True)
class Order:
    """How a judge ordered a block: documents as numbers, in the order in which they were shown."""

    judge: str
    block: Wholes  # those of which something is known
    places: Wholes  # of each: 0 the best, ties equal, −1 below the rest
    slots: Wholes  # where each was shown
    weight: float  # those of all who ordered the block add up to 1

    @property
    def ranking(self) -> list[list[int]]:
        """Documents that have a place, the best first; those that are tied together."""
        found = sorted(set(self.places.tolist()) - {BELOW})
        return [self.block[self.places == place].tolist() for place in found]

    @property
    def below(self) -> list[int]:
        """Documents below all of these."""
        below: list[int] = self.block[self.places == BELOW].tolist()
        return below


@dataclass
class ListsOfQuery:
    """What was said of the documents of one query, which are numbered in order of appearance."""

    number: dict[str, int] = field(default_factory=dict)
    orders: list[Order] = field(default_factory=list)
    pairs: list[tuple[int, int, float]] = field(default_factory=list)  # with P(first ≻ second)
    unanswered: int = 0  # comparisons and orders that failed or did not come

    def document(self, doc_id: str) -> int:
        """The number of a document."""
        return self.number.setdefault(doc_id, len(self.number))

    @property
    def comparisons(self) -> Comparisons | None:
        """What judges say who compare two."""
        if not self.pairs:
            return None
        i, j, p = (np.array(column) for column in zip(*self.pairs, strict=True))
        query = np.zeros(len(p), np.int64)
        return Comparisons(query, i.astype(np.int64), j.astype(np.int64), p, sizes=[self.size])

    @property
    def size(self) -> int:
        """How many documents there are."""
        return len(self.number)

    @property
    def components(self) -> int:
        """How many parts of the documents are not connected by anything that was said."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        edges = [(i, j) for i, j, _ in self.pairs]
        edges += [(int(o.block[0]), d) for o in self.orders for d in o.block[1:].tolist()]
        i, j = np.array(edges, np.int64).reshape(-1, 2).T
        graph = coo_array((np.ones(len(i)), (i, j)), shape=(self.size, self.size))
        return int(connected_components(graph, directed=False)[0])


@dataclass(frozen=True)
class ListRatings:
    """The tables `ratings` and `fits`; `slot_effects` where judges were modelled."""

    ratings: Table
    fits: Table
    slot_effects: Table | None


def rate_lists(
    judgments: Table,
    orders: Sequence[Table],
    vote: str,
    *,
    model: str,
    prior: float,
    target: str,
    joint_judges: bool = False,
) -> ListRatings:
    """Rate all queries. `orders` are the `list_judgments` of each round; of `judgments`, those of
    judges who ordered nothing are averaged by `vote` and count beside the orders. Options as of
    `Rating`."""
    queries = lists_of_queries(judgments, orders, vote)
    scale = SCALE[model]
    prior /= scale**2
    ordered = any(said.orders for said in queries.values())
    slots = fitted_slots(queries, prior) if joint_judges and ordered else None
    elos, errors, iterations, converged = [], [], [], []
    for said in track(list(queries.values()), "fitting Elos"):
        if not said.size:
            iterations.append(0)
            converged.append(True)
            continue
        arguments: dict[str, Any] = {
            "query": np.zeros(len(said.orders), np.int64),
            "rankings": [order.ranking for order in said.orders],
            "sizes": [said.size],
            "below": [order.below for order in said.orders],
            "comparisons": said.comparisons,
            "weight": [order.weight for order in said.orders],
            "advantage": [slots.advantage(order, said.size) for order in said.orders]
            if slots
            else None,
            "prior": prior,
        }
        found = fit_rankings(**arguments)
        elos.append(found.elo / scale)
        errors.append(ranking_errors(elo=found.elo, **arguments) / scale)
        iterations.append(int(found.iterations[0]))
        converged.append(bool(found.converged[0]))
    sizes = np.array([said.size for said in queries.values()], np.int64)
    elo = np.concatenate([np.zeros(0), *elos])
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    ratings = table(
        "ratings",
        query_id=[query_id for query_id, said in queries.items() for _ in said.number],
        doc_id=[doc_id for said in queries.values() for doc_id in said.number],
        elo=elo,
        stderr=np.concatenate([np.zeros(0), *errors]),
        target=targets(target, model, elo, offsets),
    )
    fits = table(
        "fits",
        query_id=list(queries),
        documents=sizes.astype(np.int32),
        comparisons=[len(said.orders) + len(said.pairs) for said in queries.values()],
        unanswered=[said.unanswered for said in queries.values()],
        components=[said.components for said in queries.values()],
        iterations=iterations,
        converged=converged,
    )
    return ListRatings(ratings, fits, slots.table() if slots else None)


def lists_of_queries(
    judgments: Table, orders: Sequence[Table], vote: str
) -> dict[str, ListsOfQuery]:
    """What was said of each query, in order of first appearance."""
    found = {query_id: ListsOfQuery() for query_id in pc.unique(judgments["query_id"]).to_pylist()}
    who_ordered = {judge for rows in orders for judge in pc.unique(rows["judge"]).to_pylist()}
    of_two = pc.invert(pc.is_in(judgments["judge"], pa.array(sorted(who_ordered), pa.string())))
    pairs = average(judgments.filter(of_two), vote)
    for query_id, a, b, p in zip(pairs.query_ids, pairs.doc_a, pairs.doc_b, pairs.p, strict=True):
        said = found[query_id]
        said.pairs.append((said.document(a), said.document(b), float(p)))
    for query_id, _, _ in pairs.unanswered:
        found[query_id].unanswered += 1
    names = ("query_id", "block", "judge", "doc_ids", "places", "weight")
    for rows in orders:
        lists = list(zip(*(rows[name].to_pylist() for name in names), strict=True))
        total: dict[tuple[str, int], float] = {}
        for query_id, block, _, _, places, weight in lists:
            if places is not None:
                total[query_id, block] = total.get((query_id, block), 0.0) + weight
        for query_id, block, judge, doc_ids, places, weight in lists:
            said = found.setdefault(query_id, ListsOfQuery())
            if places is None:
                said.unanswered += 1
                continue
            known = [slot for slot, place in enumerate(places) if place is not None]
            said.orders.append(
                Order(
                    judge,
                    np.array([said.document(doc_ids[slot]) for slot in known], np.int64),
                    np.array([places[slot] for slot in known], np.int64),
                    np.array(known, np.int64),
                    weight / total[query_id, block],
                )
            )
    return found


@dataclass(frozen=True)
class FittedSlots:
    """What standing at each slot of a block adds to a document, for each judge."""

    first: dict[str, int]  # which of the effects is that of a judge's first slot
    fit: SlotFit

    def advantage(self, order: Order, size: int) -> Reals:
        """What each of a query's documents has on top of its Elo in an order."""
        found = np.zeros(size)
        found[order.block] = self.fit.effect[self.first[order.judge] + order.slots]
        return found

    def table(self) -> Table:
        """The table `slot_effects`."""
        starts = [*self.first.values(), len(self.fit.effect)]
        rows = [
            (judge, slot, start + slot)
            for judge, start, end in zip(self.first, starts, starts[1:], strict=False)
            for slot in range(end - start)
        ]
        return table(
            "slot_effects",
            judge=[judge for judge, _, _ in rows],
            slot=[slot for _, slot, _ in rows],
            effect=self.fit.effect,
            stderr=self.fit.stderr,
        )


def fitted_slots(queries: Mapping[str, ListsOfQuery], prior: float) -> FittedSlots:
    """The effects of all slots at which judges were shown documents."""
    longest: dict[str, int] = {}
    for order in (order for said in queries.values() for order in said.orders):
        longest[order.judge] = max(longest.get(order.judge, 0), int(order.slots.max()) + 1)
    starts = np.concatenate([[0], np.cumsum(list(longest.values()))]).astype(int)
    first = dict(zip(longest, starts.tolist(), strict=False))
    shown = []
    for said in queries.values():
        if not said.size:
            continue
        parts = []
        for order in said.orders:
            groups = [np.array(group, np.int64) for group in order.ranking]
            below = np.array(order.below, np.int64)
            effect = np.full(said.size, -1, np.int64)
            effect[order.block] = first[order.judge] + order.slots
            choices = RankingChoices.of_ranking(said.size, groups, below).of_judge(order.weight)
            parts.append(ShownChoices(choices, effect))
        if (comparisons := said.comparisons) is not None:
            nowhere = np.full(said.size, -1, np.int64)
            of_two = RankingChoices.of_pairs(said.size, comparisons, 0)
            parts.append(ShownChoices(of_two, nowhere))
        shown.append(parts)
    return FittedSlots(first, fit_slot_effects(shown, list(longest.values()), prior))
