"""Stage `judge`: comparisons in, every judge's answer out, through the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zelo.artifacts import read_table, table, write_table
from zelo.data.texts import document_texts, query_texts
from zelo.judging.ensemble import Ensemble
from zelo.judging.ledger import Ledger
from zelo.judging.protocol import ANSWERED, Answer, PreparedJudge, Question
from zelo.progress import track
from zelo.seeding import derived_seed
from zelo.store import stage

BATCH = 2048  # answers written to the ledger in one transaction


@stage(version=1)
def judge(
    *,
    out: Path,
    data: Path,
    comparisons: Path,
    judge: Ensemble,
    ledger: Path,
    seed: int,
    **earlier: Path,
) -> Mapping[str, Any]:
    """Ask every judge about every comparison and write the `judgments`.

    Answers that the ledger at `ledger` holds are not asked for again. `earlier` are the comparisons
    of earlier rounds: judges get ready for their documents too, so that one that measures what it
    is asked about (a simulated one) is the same judge in every round.
    """
    questions = read_questions(comparisons, data)
    pairs: dict[str, dict[str, None]] = {}
    for folder in (*earlier.values(), comparisons):
        rows = read_table(folder, "comparisons")
        names = ("query_id", "doc_a", "doc_b")
        for query_id, a, b in zip(*(rows[name].to_pylist() for name in names), strict=True):
            pairs.setdefault(query_id, {}).update({a: None, b: None})
    compared = {query_id: list(docs) for query_id, docs in pairs.items()}
    columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    statuses: Counter[str] = Counter()
    asked = usd = 0.0
    with Ledger(ledger) as kept:
        for name, member in judge.judges.items():
            prepared = member.prepare(data, compared, derived_seed(seed, "judge", name))
            answers, new = ask(name, prepared, questions, kept)
            asked += new
            usd += sum(answer.usd for answer in answers)
            statuses.update(answer.status for answer in answers)
            for question, answer in zip(questions, answers, strict=True):
                row = (question.query_id, question.doc_a, question.doc_b, question.repeat)
                for column, value in zip(
                    _COLUMNS, (*row, name, answer.score, answer.status), strict=True
                ):
                    columns[column].append(value)
    write_table(out, "judgments", table("judgments", **columns))
    return {
        "comparisons": len(questions),
        "judges": list(judge.judges),
        "judgments": sum(statuses.values()),
        "asked_now": int(asked),
        "failed": sum(n for status, n in statuses.items() if status != ANSWERED),
        "usd": usd,
    }


_COLUMNS = ("query_id", "doc_a", "doc_b", "repeat", "judge", "score", "status")


def read_questions(comparisons: Path, data: Path) -> list[Question]:
    """The comparisons with their texts, in the order of the table."""
    queries, documents = query_texts(data), document_texts(data)
    rows = read_table(comparisons, "comparisons")
    return [
        Question(query_id, a, b, repeat, queries[query_id], documents[a], documents[b])
        for query_id, a, b, repeat in zip(
            *(rows[name].to_pylist() for name in ("query_id", "doc_a", "doc_b", "repeat")),
            strict=True,
        )
    ]


def ask(
    name: str, prepared: PreparedJudge, questions: Sequence[Question], ledger: Ledger
) -> tuple[list[Answer], int]:
    """Answers of one judge in the order of `questions`, and how many of them are new."""
    answers: list[Answer] = []
    new = 0
    for start in track(range(0, len(questions), BATCH), f"asking {name}"):
        batch = questions[start : start + BATCH]
        found = ledger.find(prepared.fingerprint, batch)
        missing = [q for q, answer in zip(batch, found, strict=True) if answer is None]
        fresh = prepared.answer(missing)
        ledger.keep(prepared.fingerprint, missing, fresh)
        new += len(fresh)
        supply = iter(fresh)
        answers += [answer if answer is not None else next(supply) for answer in found]
    return answers, new
