"""Noticing a judge that guesses, before most of the answers are paid for.

A judge that reads what it is shown names the same document when the two are swapped. One that
names what stands first, or anything, does not: of some comparisons that are asked in both orders it
names the same document about as often as a coin would, or less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import bdtrc

from zelo.judging.question import Answer

FEWEST = 10  # decided comparisons below which nothing is concluded
ALL_TIES = 0.9  # share of ties from which on a judge tells nothing apart
# Chance that a coin would be as consistent as the judge was. Above the first it is taken to guess:
# of 40 comparisons a judge that names the same document in 70 % is taken so in 3 of 100 cases, a
# coin in 78.
GUESSES, DOUBTFUL = 0.25, 0.01


@dataclass(frozen=True)
class Consistency:
    """How a judge answered comparisons that it was shown in both orders."""

    comparisons: int  # answered in both
    decided: int  # of these, without a tie
    same: int  # of those, the same document was named in both orders
    first: float  # share of the answers, ties apart, that name the document shown first
    ties: float  # share of ties among all answers
    agreement: float | None  # share of the comparisons in which it and the others name the same

    @property
    def chance(self) -> float:
        """Probability that a coin names the same document as often as that or more often."""
        return float(bdtrc(self.same - 1, self.decided, 0.5))

    @property
    def guesses(self) -> bool:
        """Whether it answers no better than a coin, or calls nearly all comparisons ties."""
        if self.comparisons >= FEWEST and self.ties >= ALL_TIES:
            return True
        return self.decided >= FEWEST and self.chance > GUESSES

    @property
    def doubtful(self) -> bool:
        """Whether a coin could well have answered so."""
        return self.decided >= FEWEST and self.chance > DOUBTFUL

    def __str__(self) -> str:
        agrees = "" if self.agreement is None else f", with the others in {self.agreement:.0%}"
        return (
            f"of {self.comparisons} comparisons asked in both orders it names the same document in "
            f"{self.same} of the {self.decided} without a tie{agrees}; {self.first:.0%} of its "
            f"choices stood first, {self.ties:.0%} of its answers are ties"
        )

    def numbers(self) -> dict[str, Any]:
        """What the record of a stage holds."""
        return {
            "comparisons": self.comparisons,
            "decided": self.decided,
            "same": self.same,
            "first": round(self.first, 4),
            "ties": round(self.ties, 4),
            "agreement": None if self.agreement is None else round(self.agreement, 4),
        }


def chosen(total: int, number: int) -> list[int]:
    """`number` of `total` places, spread evenly, so that they belong to many queries."""
    places = np.unique(np.linspace(0, total - 1, number).astype(int))
    return [int(place) for place in places]


def both_votes(
    shown: Sequence[Answer | None], swapped: Sequence[Answer | None]
) -> list[tuple[float, float] | None]:
    """Signs of the scores of each comparison in its two orders, as each was shown; None where one
    was not answered."""
    return [
        None
        if a is None or b is None or a.score is None or b.score is None
        else (float(np.sign(a.score)), float(np.sign(b.score)))
        for a, b in zip(shown, swapped, strict=True)
    ]


def consistency(
    votes: Mapping[str, Sequence[tuple[float, float] | None]], name: str
) -> Consistency:
    """Of the judge `name`, by what all judges said of the same comparisons (`both_votes`)."""
    given = [pair for pair in votes[name] if pair is not None]
    answers = np.array(given, dtype=float).reshape(-1, 2)
    decided = answers[(answers != 0).all(1)]
    chose = answers[answers != 0]
    ours, theirs = [], []
    for place, pair in enumerate(votes[name]):
        others = [votes[other][place] for other in votes if other != name]
        means = [(a - b) / 2 for a, b in (o for o in others if o is not None)]
        if pair is not None and means and (other := np.sign(np.mean(means))) != 0:
            own = np.sign(pair[0] - pair[1])
            if own != 0:
                ours.append(own)
                theirs.append(other)
    return Consistency(
        comparisons=len(answers),
        decided=len(decided),
        same=int((decided[:, 0] == -decided[:, 1]).sum()),
        first=float((chose < 0).mean()) if len(chose) else 0.0,
        ties=float((answers == 0).mean()) if len(answers) else 0.0,
        agreement=float(np.mean(np.equal(ours, theirs))) if ours else None,
    )
