"""People's answers as files, in and out: a CSV, or Label Studio's JSON of pairwise comparisons."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from zelo.annotation.desk import SCORES, Desk, answer_of
from zelo.annotation.pairs import Ids, ids_of
from zelo.artifacts import write_csv, write_text
from zelo.errors import UserError
from zelo.judging.person import CANNOT_SAY, checked_name

HEADER = ["query_id", "doc_a", "doc_b", "person", "choice"]
CHOSEN = {-1.0: "a", 0.0: "tie", 1.0: "b", None: CANNOT_SAY}
READ = {"a": -1.0, "b": 1.0, "left": -1.0, "right": 1.0, "tie": 0.0, "equal": 0.0, CANNOT_SAY: None}
FROM_NAME, TO_NAME = "preference", "left,right"  # of Label Studio's tag <Pairwise>


class FileAnswer(NamedTuple):
    """One answer of a file; the score is −1 for `doc_a`, None where one cannot say."""

    query_id: str
    doc_a: str
    doc_b: str
    person: str
    score: float | None


def write_answers(desk: Desk, people: Sequence[str], path: Path) -> int:
    """Write all answers to a .csv or a .json file; how many there are."""
    rows = desk.answered(people)
    if path.suffix == ".csv":
        lines = [[q.query_id, q.doc_a, q.doc_b, who, CHOSEN[a.score]] for q, who, a in rows]
        write_csv(path, HEADER, lines)
    elif path.suffix == ".json":
        sides = {score: side for side, score in SCORES.items()}
        tasks = [
            {
                "data": {
                    "query_id": q.query_id, "doc_a": q.doc_a, "doc_b": q.doc_b,
                    "query": q.query, "left": q.text_a, "right": q.text_b,
                },
                "annotations": [
                    {
                        "completed_by": {"email": who},
                        "was_cancelled": answer.score is None,
                        "result": [] if answer.score is None else [
                            {
                                "type": "pairwise", "from_name": FROM_NAME, "to_name": TO_NAME,
                                "value": {"selected": sides[answer.score]},
                            }
                        ],
                    }
                ],
            }
            for q, who, answer in rows
        ]  # fmt: skip
        write_text(path, json.dumps(tasks, indent=1, ensure_ascii=False))
    else:
        raise UserError(f"{path}: answers are written as .csv or .json (Label Studio's)")
    return len(rows)


def keep_answers(desk: Desk, rows: Iterable[FileAnswer]) -> tuple[int, int]:
    """Keep answers of a file: how many are new, and how many are about pairs that the desk has
    not."""
    numbers: dict[Ids, int] = {ids: n for n, ids in enumerate(desk.pairs)}
    by_text = {
        (q, frozenset((desk.documents[a], desk.documents[b]))): n
        for n, (q, a, b) in enumerate(desk.pairs)
    }
    new = unknown = 0
    for row in rows:
        number = numbers.get(ids_of(row.query_id, row.doc_a, row.doc_b))
        texts = [desk.documents.get(doc_id) for doc_id in (row.doc_a, row.doc_b)]
        if number is None and None not in texts:  # of equal texts one pair alone is there
            number = by_text.get((row.query_id, frozenset(filter(None, texts))))
        if number is None:
            unknown += 1
            continue
        if number in desk.of(row.person):
            continue
        score = row.score
        if score and desk.question(number).text_a != texts[0]:
            score = -score
        new += len(desk.keep(row.person, {number: answer_of(score)}))
    return new, unknown


def rows_of(path: Path) -> Iterator[FileAnswer]:
    """The answers in a file; `UserError` naming file and place where one cannot be read."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    if path.suffix == ".csv":
        yield from rows_of_csv(path, text)
    elif path.suffix == ".json":
        yield from rows_of_tasks(path, text)
    else:
        raise UserError(f"{path}: answers are read from .csv or .json (Label Studio's)")


def rows_of_csv(path: Path, text: str) -> Iterator[FileAnswer]:
    """Rows with the columns of `HEADER`, in any order."""
    rows = csv.DictReader(io.StringIO(text, newline=""), restval="")
    missing = [name for name in HEADER if name not in (rows.fieldnames or [])]
    if missing:
        raise UserError(f"{path}: no column {', '.join(missing)}; {', '.join(HEADER)} are needed")
    for row in rows:
        where = f"{path}, line {rows.line_num}"
        yield answer_at(where, row, row["person"], row["choice"])


def rows_of_tasks(path: Path, text: str) -> Iterator[FileAnswer]:
    """Label Studio's export: tasks with `data` and `annotations`."""
    try:
        tasks = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: no JSON ({error})") from None
    if not isinstance(tasks, list):
        raise UserError(f"{path}: a list of Label Studio's tasks is needed")
    for i, task in enumerate(tasks):
        where = f"{path}, task {i}"
        try:
            for annotation in task["annotations"]:
                by = annotation.get("completed_by", "")
                who = str(by.get("email") or by.get("id")) if isinstance(by, dict) else str(by)
                results = [r for r in annotation["result"] if r["type"] == "pairwise"]
                chosen = [result["value"]["selected"] for result in results]
                if len(chosen) > 1:
                    raise UserError(f"{where}: {len(chosen)} answers in one annotation")
                yield answer_at(where, task["data"], who, chosen[0] if chosen else CANNOT_SAY)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{where}: not as Label Studio writes it ({error!r})") from None


def answer_at(where: str, row: Mapping[str, Any], person: str, choice: str) -> FileAnswer:
    """One answer; `UserError` where it says nothing known."""
    if choice not in READ:
        raise UserError(f"{where}: choice {choice!r}; there are {', '.join(READ)}")
    try:
        who = checked_name(person)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None
    query_id, doc_a, doc_b = (str(row[name]) for name in HEADER[:3])
    if doc_a == doc_b:
        raise UserError(f"{where}: document {doc_a!r} against itself")
    return FileAnswer(query_id, doc_a, doc_b, who, READ[choice])
