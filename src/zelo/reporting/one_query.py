"""Why a document is ranked where it is: one query's documents, comparisons and judges' answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.compute as pc

from zelo.artifacts import read_json, read_table
from zelo.data.texts import document_texts, relevance_grades
from zelo.errors import UserError
from zelo.errors import shown as clean
from zelo.evaluation.evaluate import START, TRAINED
from zelo.finished_run import FinishedRun
from zelo.rating.targets import CDF
from zelo.reporting.results import label, new_console
from zelo.retrieval.ranking import rankings_from
from zelo.store import RECORD

FIRST = "first stage"
NAMED = 5  # query ids that an error names


@dataclass
class RankedDocument:
    """A document of the query."""

    doc_id: str
    text: str
    ranks: dict[str, int]  # system → rank, from 1
    grade: int | None  # None: not labelled
    elo: float | None  # None: not rated
    stderr: float | None


@dataclass(frozen=True)
class Said:
    """One answer of a judge about a pair."""

    judge: str
    p: float | None  # preference for the pair's higher document; None where it failed
    higher_first: bool  # whether that one was shown first
    status: str
    reasons: str
    weight: float = 1.0  # what it counts in the mean


@dataclass
class Pair:
    """Two documents that judges compared; `higher` has the higher Elo."""

    higher: RankedDocument
    lower: RankedDocument
    expected: float  # preference for the higher one by the Elos
    vote: str = "soft"  # how answers were averaged: `sign` counts each as 1, ½ or 0
    said: list[Said] = field(default_factory=list)

    @property
    def p(self) -> float | None:
        """Mean preference for the higher one, as it was rated; None where every judge failed."""
        given = [(one.p, one.weight) for one in self.said if one.p is not None]
        if self.vote == "sign":
            given = [((np.sign(p - 0.5) + 1) / 2, weight) for p, weight in given]
        p, weights = zip(*given, strict=True) if given else ((), ())
        return float(np.average(p, weights=weights)) if given else None

    @property
    def surprise(self) -> float:
        """How far the answers are from what the Elos expect."""
        return abs(self.p - self.expected) if self.p is not None else 0.0


@dataclass(frozen=True)
class OneQuery:
    """All that a run knows of a query."""

    query_id: str
    split: str
    text: str
    documents: list[RankedDocument]  # by Elo, or by the trained model where they were not rated
    pairs: list[Pair]  # the most surprising first
    metrics: Mapping[str, float]  # system → NDCG@10, where it was evaluated
    missed: Mapping[str, int]  # labelled documents that are not among them → grade
    instruction: str = ""  # what makes a document relevant to it, where that was said


def one_query(run: FinishedRun, query_id: str) -> OneQuery:
    """Gather what a run knows of a query; `UserError` where it knows none of that id."""
    data = run.collection_folder()
    this = pc.field("query_id") == query_id
    found = read_table(data, "queries", this).to_pylist()
    if not found:
        known = read_table(data, "queries")["query_id"]
        some = ", ".join(known.slice(0, NAMED).to_pylist())
        raise UserError(f"{query_id}: no such query; there are {len(known):,}: {some}, ...")
    ranks = ranks_of(run, query_id, this)
    rated = read_table(run.ratings_folder(), "ratings", this).to_pylist() if run.has("rate") else []
    elos = {row["doc_id"]: (row["elo"], row["stderr"]) for row in rated}
    folders = run.judgments_folders() if run.has("rate") else []
    judged = [r for folder in folders for r in read_table(folder, "judgments", this).to_pylist()]
    asked_about = [row[side] for row in judged for side in ("doc_a", "doc_b")]
    ranked = [doc_id for ranking in ranks.values() for doc_id in ranking]
    ids = list(dict.fromkeys([*elos, *ranked, *asked_about]))
    texts, grades = document_texts(data, set(ids)), relevance_grades(data).get(query_id, {})
    documents = {
        doc_id: RankedDocument(
            doc_id,
            texts[doc_id],
            {system: ranking[doc_id] for system, ranking in ranks.items() if doc_id in ranking},
            grades.get(doc_id),
            *elos.get(doc_id, (None, None)),
        )
        for doc_id in ids
    }
    order = sorted(documents.values(), key=place)
    pairs = []
    if run.has("rate"):
        rating = read_json(run.ratings_folder() / RECORD)["options"]
        pairs = pairs_of(judged, documents, rating["rating"]["model"], rating["vote"])
    metrics = {}
    if run.has("evaluate"):
        ndcg = this & (pc.field("metric") == "NDCG@10")
        rows = read_table(run.last("evaluate"), "per_query", ndcg).to_pylist()
        metrics = {row["system"]: row["value"] for row in rows}
    text, split = found[0]["text"], found[0]["split"]
    missed = {doc_id: grade for doc_id, grade in grades.items() if doc_id not in documents}
    told = found[0]["instruction"] or ""
    return OneQuery(query_id, split, text, order, pairs, metrics, missed, told)


def ranks_of(run: FinishedRun, query_id: str, this: pc.Expression) -> dict[str, dict[str, int]]:
    """System → document id → rank: the first stage, and the models where they were evaluated."""
    rows = read_table(run.last("retrieve"), "candidates", this).to_pylist()
    found = {FIRST: {row["doc_id"]: row["rank"] for row in rows}}
    if run.has("evaluate"):
        ranked = rankings_from(read_table(run.last("evaluate"), "rankings", this))
        for system in (START, TRAINED):
            if system in ranked:
                ids = [doc_id for doc_id, _ in ranked[system][query_id]]
                found[system] = {doc_id: rank for rank, doc_id in enumerate(ids, start=1)}
    return found


def place(document: RankedDocument) -> tuple[float, float]:
    """Rated documents first, by Elo; the others by the trained model, or by the first stage."""
    if document.elo is not None:
        return (-1, -document.elo)
    ranks = document.ranks
    return (0, ranks.get(TRAINED, ranks.get(FIRST, np.inf)))


def pairs_of(
    judged: Sequence[Mapping[str, Any]],
    documents: Mapping[str, RankedDocument],
    model: str,
    vote: str,
) -> list[Pair]:
    """The rated comparisons of a query, the most surprising first."""
    found: dict[frozenset[str], Pair] = {}
    for row in judged:
        a, b = documents[row["doc_a"]], documents[row["doc_b"]]
        # Where no judge answered there may be no Elo
        a_higher = (a.elo or 0.0) >= (b.elo or 0.0)
        higher, lower = (a, b) if a_higher else (b, a)
        key = frozenset((a.doc_id, b.doc_id))
        if key not in found:
            gap = (higher.elo or 0.0) - (lower.elo or 0.0)
            found[key] = Pair(higher, lower, float(CDF[model](np.array(gap))), vote)
        score = row["score"]
        p = None if score is None else (1 - score) / 2
        if p is not None and not a_higher:
            p = 1 - p
        weight = 1.0 if row["weight"] is None else row["weight"]
        found[key].said.append(
            Said(row["judge"], p, a_higher, row["status"], row["reasons"], weight)
        )
    return sorted(found.values(), key=lambda pair: -pair.surprise)


def show(found: OneQuery, documents: int | None, pairs: int | None) -> None:
    """Print a query's documents, best first, and its comparisons, so many of each or all."""
    console = new_console(110)
    console.print(f"{found.query_id} ({found.split}): {found.text}\n")
    if found.instruction:
        console.print(f"under the instruction: {found.instruction}\n")
    listed = found.documents[:documents]
    rest = found.documents[len(listed) :]
    console.print(documents_table(found.documents, len(listed)))
    if rest:
        console.print(f"... and {len(rest):,} more; --documents 0 shows all")
    for n, document in enumerate(rest, start=len(listed) + 1):
        if document.grade:
            console.print(f"labelled {document.grade}: #{n}, {document.doc_id}")
    for doc_id, grade in found.missed.items():
        if grade:
            console.print(f"labelled {grade}: {doc_id}, which is not among the candidates")
    for system, value in found.metrics.items():
        if system in (START, TRAINED):
            console.print(f"NDCG@10 of the {label(system)}: {value:.3f}")
    if not found.pairs:
        console.print("\nIts documents were not compared: judges are asked about training queries.")
        return
    numbers = {document.doc_id: n for n, document in enumerate(found.documents, start=1)}
    shown = found.pairs[:pairs]
    console.print(
        f"\n{len(found.pairs):,} comparisons, those first whose answers are furthest from the "
        f"Elos.\nPreference for the document of the higher Elo: mean (by the Elos) and each "
        f"judge's;\n' where it was shown second.\n"
    )
    for pair in shown:
        console.print(
            f"#{numbers[pair.higher.doc_id]} over #{numbers[pair.lower.doc_id]}   "
            f"{shown_p(pair.p)} ({pair.expected:.2f})   {', '.join(map(short, pair.said))}"
        )
        for one in pair.said:
            if one.reasons:
                console.print(f"  {one.judge}: {' '.join(one.reasons.split())}")
    if left := len(found.pairs) - len(shown):
        console.print(f"\n... and {left:,} more; --comparisons 0 shows all")


def documents_table(documents: Sequence[RankedDocument], rows: int) -> Any:
    """The first `rows` documents with Elo, ranks and label."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    systems = [s for s in (FIRST, START, TRAINED) if any(s in d.ranks for d in documents)]
    rated = any(d.elo is not None for d in documents)
    labelled = any(d.grade is not None for d in documents)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1), expand=True)
    table.add_column("#", justify="right")
    if rated:
        table.add_column("Elo ± error", justify="right", no_wrap=True)
    heads = {FIRST: "first", START: "start", TRAINED: "zELO"}
    for system in systems:
        table.add_column(heads[system], justify="right")
    if labelled:
        table.add_column("label", justify="right")
    table.add_column("document", no_wrap=True, overflow="ellipsis", ratio=1)
    for n, d in enumerate(documents[:rows], start=1):
        elo = "–" if d.elo is None else f"{d.elo:+.2f} ± {d.stderr:.2f}"
        ranks = [str(d.ranks.get(system, "–")) for system in systems]
        grade = "–" if d.grade is None else str(d.grade)
        table.add_row(
            str(n),
            *([elo] if rated else []),
            *ranks,
            *([grade] if labelled else []),
            clean(f"{d.doc_id}: {' '.join(d.text.split())}"),
        )
    return table


def short(one: Said) -> str:
    """A judge's answer: `words 0.91'`."""
    said = one.status if one.p is None else shown_p(one.p)
    return f"{one.judge} {said}{'' if one.higher_first else chr(39)}"


def shown_p(p: float | None) -> str:
    """A preference of two decimals."""
    return "–" if p is None else f"{p:.2f}"
