"""How each judge agrees with people, corrected for chance, and how sharply each tells documents
apart where people count as judges too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zelo.annotation.desk import Desk
from zelo.annotation.pairs import Ids, ids_of, is_random
from zelo.artifacts import Table, table
from zelo.judging.agreement import choices, numbered, share_of
from zelo.seeding import stream

RESAMPLES = 2000
Signs = NDArray[np.float64]


@dataclass(frozen=True)
class WithPerson:
    """A judge, or another person, beside one person, on pairs that were drawn at random.

    `share` is how often both chose the same of those that both decided; `kappa` Cohen's, of the
    three answers first, second and equal: 0 is what chance would give, 1 is always the same.
    """

    judge: str
    person: str
    pairs: int  # that both answered
    decided: int
    share: tuple[float, float, float]  # with an interval of 95 %
    kappa: tuple[float, float, float]


@dataclass(frozen=True)
class Sharpness:
    """How sharply one tells documents apart: its discrimination in the joint model, as a multiple
    of the people's mean, with a factor that its interval of 95 % is wide in either direction."""

    judge: str
    scale: float
    factor: float


def as_judge(person: str) -> str:
    """What a person is called among judges, one of whom may have the same name."""
    return f"{person} (person)"


def judgments_of_people(desk: Desk, people: Sequence[str]) -> Table:
    """Their answers as a table `judgments`."""
    rows = desk.answered(people)
    return table(
        "judgments",
        query_id=[q.query_id for q, _, _ in rows],
        doc_a=[q.doc_a for q, _, _ in rows],
        doc_b=[q.doc_b for q, _, _ in rows],
        repeat=[0] * len(rows),
        judge=[as_judge(person) for _, person, _ in rows],
        score=pa.array([answer.score for *_, answer in rows], pa.float64()),
        status=[answer.status for *_, answer in rows],
        reasons=[answer.reasons for *_, answer in rows],
    )


def with_people(judgments: Table, of_people: Table, people: Sequence[str]) -> list[WithPerson]:
    """Every judge beside every person, and people beside one another."""
    found = choices(pa.concat_tables([judgments, of_people]))
    drawn = np.array([is_random(ids) for ids in found.pairs], bool)
    sign, query = found.sign[drawn], numbered(found.pairs)[drawn]
    column = {name: i for i, name in enumerate(found.judges)}
    pairs = [
        (judge, person)
        for k, person in enumerate(people)
        for judge in found.judges
        if judge not in people[: k + 1]
    ]
    lines = []
    for judge, person in pairs:
        if person not in column:
            continue
        one, other = sign[:, column[judge]], sign[:, column[person]]
        both = ~np.isnan(one) & ~np.isnan(other)
        decided = both & (one != 0) & (other != 0)
        same = (one[decided] == other[decided]).astype(np.float64)
        lines.append(
            WithPerson(
                judge,
                person,
                int(both.sum()),
                int(decided.sum()),
                share_of(same, query[decided]),
                kappa_with_interval(one[both], other[both], query[both]),
            )
        )
    return lines


def kappa_with_interval(one: Signs, other: Signs, query: Signs) -> tuple[float, float, float]:
    """Cohen's kappa of answers −1, 0, 1 (n,), and an interval of 95 % from queries drawn anew; NaN
    where nothing is known."""
    found = kappa(one, other, np.ones(len(one)))
    queries, of = np.unique(query, return_inverse=True)
    if not len(one) or np.isnan(found) or len(queries) < 2:
        return found, float("nan"), float("nan")
    rng = stream(0, "kappa")
    times = rng.multinomial(len(queries), np.full(len(queries), 1 / len(queries)), RESAMPLES)
    drawn = np.array([kappa(one, other, row[of].astype(np.float64)) for row in times])
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return found, float(low), float(high)


def kappa(one: Signs, other: Signs, weight: Signs) -> float:
    """Cohen's kappa, each pair counted `weight` times; NaN where chance alone would agree.

    Which of two documents is the first of a pair says nothing, so that "first" and "second" have
    one share between them: half of the decided answers each.
    """
    total = weight.sum()
    if not total:
        return float("nan")
    agree = float(weight[one == other].sum() / total)
    ties = [float(weight[answers == 0].sum() / total) for answers in (one, other)]
    chance = ties[0] * ties[1] + (1 - ties[0]) * (1 - ties[1]) / 2
    return (agree - chance) / (1 - chance) if chance < 1 else float("nan")


def sharpness(
    judgments: Table, of_people: Table, model: str, prior: float, people: Sequence[str]
) -> list[Sharpness]:
    """Everyone's discrimination, people included, from the pairs drawn at random that people
    answered."""
    from zelo.rating.judges import fit_judges
    from zelo.rating.tables import encode

    drawn = {ids for ids in pairs_in(of_people) if is_random(ids)}
    parts = [
        rows.filter(pa.array([ids in drawn for ids in pairs_in(rows)], pa.bool_()))
        for rows in (judgments, of_people)
    ]
    everyone = pa.concat_tables(parts)
    encoded = encode(everyone, "soft", "judgments")
    fitted = fit_judges(encoded.comparisons, encoded.judge, len(encoded.judges), model, prior)
    scale: Mapping[str, float] = dict(zip(encoded.judges, fitted.scale.tolist(), strict=True))
    of_all = [scale[person] for person in people if person in scale]
    mean = float(np.mean(of_all)) if of_all else 1.0
    return [
        Sharpness(judge, scale[judge] / mean, float(np.exp(1.96 * error)))
        for judge, error in zip(encoded.judges, fitted.log_scale_stderr.tolist(), strict=True)
    ]


def pairs_in(rows: Table) -> list[Ids]:
    """The pair of each row."""
    columns = [rows[name].to_pylist() for name in ("query_id", "doc_a", "doc_b")]
    return [ids_of(*row) for row in zip(*columns, strict=True)]
