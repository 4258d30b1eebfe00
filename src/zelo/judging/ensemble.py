"""A set of judges whose answers are averaged."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
from pydantic import model_validator

from zelo.config import Component, option
from zelo.judging.base import BaseJudge
from zelo.judging.estimate import BlockWorkload, JudgeEstimate, JudgeWorkload, TextLengths
from zelo.rating.preferences import Vote, mean_preference


class Ensemble(Component):
    """Judges, and how their answers become one preference (`conf/judge/`)."""

    judges: dict[str, BaseJudge] = option(help="who is asked, by name", min_length=1)
    vote: str = option(
        "soft",
        "`sign` clamps each score to {−1, 0, 1} before averaging, as in the paper; `soft` keeps "
        "strengths",
        pattern="^(soft|sign)$",
    )
    weights: dict[str, float] = option(
        {},
        "what the answers of a judge count beside those of others in their mean; who is not named: "
        "1. `rating.joint_judges` finds out by itself, and does not read them",
    )
    from_round: dict[str, int] = option(
        {},
        "judges that are asked from this round of a run's sampler on alone: a dear one, where the "
        "Elos by cheaper ones are still unsure; who is not named: from the first. About pairs "
        "across queries, and by other commands than `zelo run`, all are asked",
        exclude=True,
    )
    both_orders: bool = option(
        False, "every question in both orders; otherwise in one, drawn at random"
    )
    max_stderr: float | None = option(
        None,
        "further answers are asked for until the standard error of their mean is at most this; "
        "null: one of each judge",
        gt=0,
    )
    max_answers: int = option(9, "most answers to one comparison when more are asked for", ge=1)
    retry: int = option(0, "how often what failed is asked again; 1 more for each time", ge=0)
    probe: int = option(
        40,
        "comparisons that language models are asked in both orders first: one that seems to guess "
        "ends the run before the rest is paid for; 0: none",
        ge=0,
        exclude=True,
    )

    def _refuse_unknown(self, option: str, name: str) -> None:
        if name not in self.judges:
            raise ValueError(
                f"{option}: no judge is called {name!r}; there are {', '.join(self.judges)}"
            )

    @model_validator(mode="after")
    def _weights_of_judges(self) -> Ensemble:
        for name, weight in self.weights.items():
            self._refuse_unknown("weights", name)
            if weight <= 0:
                raise ValueError(
                    f"weights.{name}={weight:g}: it must be above 0; to have a judge not count, "
                    f"leave it out of judges"
                )
        return self

    @model_validator(mode="after")
    def _somebody_first(self) -> Ensemble:
        for name, number in self.from_round.items():
            self._refuse_unknown("from_round", name)
            if number < 1:
                raise ValueError(f"from_round.{name}={number}: rounds are counted from 1")
        if all(self.from_round.get(name, 1) > 1 for name in self.judges):
            raise ValueError("from_round: nobody is left to be asked in the first round")
        return self

    @model_validator(mode="after")
    def _enough_answers(self) -> Ensemble:
        if self.max_stderr is not None and self.max_answers < self.least:
            raise ValueError(
                f"max_answers={self.max_answers} is less than the {self.least} answers that are "
                f"asked for anyway"
            )
        return self

    def in_round(self, number: int) -> Ensemble:
        """The judges that are asked in a round, counted from 1."""
        if not self.from_round:
            return self
        asked = {
            n: judge for n, judge in self.judges.items() if self.from_round.get(n, 1) <= number
        }
        weights = {name: weight for name, weight in self.weights.items() if name in asked}
        return self.model_copy(update={"judges": asked, "weights": weights, "from_round": {}})

    def probed(self, comparisons: float) -> bool:
        """Whether so many comparisons are enough to first look for judges that guess."""
        return self.probe > 0 and comparisons > 2 * self.probe

    @property
    def least(self) -> int:
        """Answers to one comparison that are asked for in any case."""
        return len(self.judges) * (2 if self.both_orders else 1)

    @property
    def most(self) -> int:
        """Answers to one comparison that may be asked for."""
        return self.least if self.max_stderr is None else self.max_answers

    @property
    def of_one_query(self) -> list[str]:
        """Names of the judges that cannot compare documents of different queries."""
        return [name for name, judge in self.judges.items() if not judge.compares_queries]

    def estimates(
        self,
        comparisons: Mapping[str, float],
        lengths: TextLengths,
        ledger: Path,
        today: date,
        blocks: BlockWorkload | None = None,
        documents: float = math.inf,
    ) -> Iterator[JudgeEstimate]:
        """What each judge that is paid, or may be, would be asked and cost.

        `comparisons` is how many each is asked about, `blocks` what is ordered in place of some,
        `documents` how many there are to be graded.
        """
        for name, judge in self.judges.items():
            orders = blocks if judge.orders_lists else None
            number = comparisons[name] - (orders.pairs if orders else 0.0)
            least, most = (n * number / len(self.judges) for n in (self.least, self.most))
            probed = self.probed(number) and not self.both_orders
            probe_calls = float(self.probe) if probed else 0.0
            calls = (least, most)
            workload = JudgeWorkload(
                calls, probe_calls, lengths, ledger, today, documents=documents
            )
            asked = [workload] if number > 0 or not orders else []
            if orders:
                calls = (orders.number, orders.number)
                asked.append(replace(workload, calls=calls, probe_calls=0.0, blocks=orders))
            for each in asked:
                estimate = judge.estimate(name, each)
                if estimate is not None:
                    yield estimate

    def weight(self, judge: str) -> float:
        """What an answer of a judge counts in the mean."""
        return self.weights.get(judge, 1.0)

    def votes(self, answers: Sequence[tuple[str, float]]) -> list[Vote]:
        """Judges' scores in [−1, 1] as they are averaged."""
        sign = self.vote == "sign"
        return [
            Vote(float(np.sign(score)) if sign else score, self.weight(judge))
            for judge, score in answers
        ]

    def preference(self, answers: Sequence[tuple[str, float]]) -> float:
        """P(first ≻ second) by judges' scores; NaN where there are none."""
        return mean_preference(self.votes(answers)) if answers else float("nan")

    def settled(self, answers: Sequence[tuple[str, float]]) -> bool:
        """Whether the standard error of the mean vote is small enough; never of fewer than two."""
        if self.max_stderr is None:
            return True
        if len(answers) < 2:
            return False
        value, weight = np.array(self.votes(answers)).T
        share = weight / weight.mean()
        residual = share * (value - (share * value).mean())
        deviation = np.sqrt((residual**2).sum() / (len(value) - 1))
        return bool(deviation <= self.max_stderr * len(value) ** 0.5)
