"""Judges who compare the documents of a pool in pairs: what a reranker and a ground truth share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from zelo.comparison.compare import in_random_order
from zelo.comparison.sampler import DrawingSampler, Edges
from zelo.config import Component, describe, option
from zelo.data.texts import query_instructions
from zelo.errors import UserError
from zelo.judging.ensemble import Ensemble
from zelo.judging.question import Question
from zelo.judging.spending import Budget
from zelo.judging.votes import ComparisonVotes, vote_collector
from zelo.rating.rate import load_solver
from zelo.seeding import stream
from zelo.store import digest


class PoolElos(NamedTuple):
    """What judges found about the documents of a pool."""

    elos: dict[str, dict[str, float]]  # query id → document id → Elo
    comparisons: int
    unanswered: int


class PairJudging(Component):
    """Who compares which pairs of a query's documents, and where the answers are kept."""

    judge: Ensemble = option(help="who compares")
    sampler: DrawingSampler = option(help="which pairs of a query are compared")
    top: int = option(20, "documents from the top of a ranking that are compared", ge=2)
    seed: int = option(0, "of the pairs, and of which document is shown first", ge=0)
    ledger: Path = option(Path("outputs/ledger.sqlite"), "where answers are kept", exclude=True)
    budget: Budget = option(Budget(), "what judges may cost at most", exclude=True)

    def check(self) -> None:
        """`UserError` where answers could not be rated on this machine."""
        load_solver()

    def elos(
        self,
        asker: str,
        data: Path,
        queries: Mapping[str, str],
        documents: Mapping[str, str],
        pool: Mapping[str, Sequence[str]],
    ) -> PoolElos:
        """Compare the documents of `pool` and rate those that at least one answer is about.

        Every answer is in the ledger as it comes. Raises `UserError` where a judge was given up, or
        no question was answered; `asker` is who asks, for messages.
        """
        from zelo.rating import Comparisons, fit

        compared = {query_id: docs for query_id, docs in pool.items() if len(docs) > 1}
        told = query_instructions(data)
        run = digest([describe(self), list(compared.items())])
        votes: list[ComparisonVotes] = []
        indices: list[tuple[int, int, int]] = []  # of a query and its two documents
        rounds = self.sampler.max_rounds
        going = dict(enumerate(compared.items()))  # queries that need more
        with vote_collector(
            self.judge, data, compared, self.seed, self.ledger, self.budget, run
        ) as collector:
            for number in range(1, rounds + 1):
                drawn = self._draw(going, indices, votes, number, rounds)
                going = {n: query for n, query in going.items() if len(drawn[n])}
                if not going:
                    break
                start = len(votes)
                for n, (query_id, docs) in going.items():
                    for i, j in drawn[n].tolist():
                        texts = (documents[docs[i]], documents[docs[j]])
                        ids = (query_id, docs[i], docs[j])
                        question = Question(
                            *ids, 0, queries[query_id], *texts, instruction=told.get(query_id, "")
                        )
                        votes.append(ComparisonVotes(question))
                        indices.append((n, i, j))
                collector.collect(votes[start:])
                for name, why in collector.given_up.items():
                    raise UserError(
                        f"{asker}: judge {name} was given up ({why}); every answer so far is in "
                        f"{self.ledger}, and the same command asks for the rest"
                    )
        preferences = [self.judge.preference(comparison.scores()) for comparison in votes]
        rated = zip(indices, preferences, strict=True)
        answered = [(*index, p) for index, p in rated if not np.isnan(p)]
        if not answered:
            raise UserError(f"{asker}: no comparison was answered")
        sizes = [len(docs) for docs in compared.values()]
        query, i, j, p = zip(*answered, strict=True)
        elos_of = fit(Comparisons(query, i, j, p, sizes=sizes), "thurstone")
        known = {(q, index) for q, *pair, _ in answered for index in pair}
        elos = {
            query_id: {
                doc_id: float(elo)
                for index, (doc_id, elo) in enumerate(zip(docs, elos_of.of(number), strict=True))
                if (number, index) in known
            }
            for number, (query_id, docs) in enumerate(compared.items())
        }
        return PoolElos(elos, len(votes), len(votes) - len(answered))

    def _draw(
        self,
        going: Mapping[int, tuple[str, Sequence[str]]],
        indices: Sequence[tuple[int, int, int]],
        votes: Sequence[ComparisonVotes],
        number: int,
        rounds: int,
    ) -> dict[int, Edges]:
        """Pairs of each query for round `number`, in the order in which they are shown."""
        before: dict[int, list[tuple[int, int, float]]] = {n: [] for n in going}
        for (n, i, j), comparison in zip(indices, votes, strict=True):
            if n in before:
                before[n].append((i, j, self.judge.preference(comparison.scores())))
        drawn = {}
        for n, (query_id, docs) in going.items():
            rng = stream(self.seed, "pairwise", query_id, *[str(number)] * (number > 1))
            if number == 1:
                edges = self.sampler.edges(len(docs), rng)
            else:
                asked = np.array([(i, j) for i, j, _ in before[n]], dtype=np.int64)
                p = np.array([p for _, _, p in before[n]])
                edges = self.sampler.next_edges(len(docs), asked, p, rounds - number + 1, rng)
            drawn[n] = in_random_order(edges, rng)
        return drawn
