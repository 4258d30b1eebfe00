"""Stage `queries`: a collection in, the same with written training queries out."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zelo.artifacts import parquet_batches, read_table, replacing, table, write_table
from zelo.config import Component, name_of, option
from zelo.data.collection import hash_share
from zelo.data.hold_out import limit_to_hold_out
from zelo.data.lines import numbered_lines
from zelo.data.texts import PART, Corpus, documents_left_out
from zelo.errors import UserError
from zelo.judging.api import ApiJudge
from zelo.judging.ensemble import Ensemble
from zelo.judging.spending import Budget
from zelo.progress import say
from zelo.queries.base import BaseWriter, CorpusTerms, Draft, SourceDocument, WritingContext
from zelo.queries.filters import (
    COPY,
    DUPLICATE,
    GENERIC,
    KEPT,
    NOT_FOUND,
    SURPLUS,
    UNANSWERED,
    UNREALISTIC,
    Filters,
    NearDuplicates,
)
from zelo.queries.paid_answers import first_asked
from zelo.queries.realism import realism
from zelo.queries.sampling import in_breadth, neighbourhoods
from zelo.retrieval.retrieve import Retriever
from zelo.store import digest, stage

HANDED_ON = ("documents", "qrels", "privileged")  # tables that stay as they are
FIRST_GUESS = 0.9  # share of the wanted queries that are kept, until one round has been read
LEAST = 0.1  # share that is reckoned with after that, so that no round reads the whole collection


class QueryWriting(Component):
    """`queries=auto`, `queries=extractive`: which queries are written, and how many."""

    writer: BaseWriter = option(help="who writes")
    fewer_than: int | None = option(
        200, "only where the collection has fewer training queries; null: always", ge=1,
        exclude=True,
    )  # fmt: skip
    number: int = option(1000, "queries that are written, at most", ge=1)
    per_document: int = option(2, "queries from one document, at most", ge=1)
    examples: str | None = option(
        None,
        "file of queries that people asked, one a line, which a language model imitates; null: the "
        "collection's training queries",
        exclude=True,
    )
    source_is_candidate: bool = option(
        False, "the document that a query was written from is judged as others are; false: left out"
    )
    neighbourhood: int | None = option(
        None,
        "candidates of a written query are so many documents that are similar to its source, the "
        "same for all queries of these; null: what the first stage finds. Queries that validate "
        "have the latter",
        ge=3,
    )
    filters: Filters = option(help="which of those that were written stay")
    realism_judge: ApiJudge | None = option(
        None, "who says how realistic a query is; null: as filters.realistic says", added=True
    )

    def fingerprint(self) -> str:
        """Digest of the examples."""
        return digest(self.shown())

    def shown(self) -> list[str]:
        """The queries in the file of examples; `UserError` where there are none."""
        if self.examples is None:
            return []
        path = Path(self.examples).expanduser()
        if not path.is_file():
            raise UserError(f"{path}: not found; queries.examples names a file, a query a line")
        found = [line.strip() for _, line in numbered_lines(path)]
        if not found:
            raise UserError(f"{path}: empty; queries.examples names a file, a query a line")
        return found

    def beside(self, given: int, most: int | None) -> QueryWriting | None:
        """What is written for a collection of so many training queries, which has no more than
        `most` with those that are written; None where nothing is."""
        few = self.fewer_than is None or given < self.fewer_than
        number = self.number if most is None else min(self.number, most - given)
        return self.model_copy(update={"number": number}) if few and number > 0 else None

    def in_run_with(self, judges: Ensemble) -> QueryWriting:
        """The same, with what the writer takes over from the judges of a run, and who says how
        realistic a query is; `UserError` where that is asked for and nobody can say it."""
        writer = self.writer.in_run_with(judges)
        update: dict[str, Any] = {"writer": writer}
        if self.filters.realistic is not None and self.realism_judge is None:
            model = writer.asks or first_asked(judges)
            if model is None:
                raise UserError(
                    "queries.filters.realistic: no judge of this run is asked at an endpoint: "
                    "choose one (judge=openai), or null"
                )
            update["realism_judge"] = model
        return self.model_copy(update=update)


class Written(NamedTuple):
    """A draft and what became of it."""

    query_id: str
    text: str
    doc_id: str
    kind: str
    status: str
    neighbourhood: int | None = None


@stage(version=4)
def queries(
    *,
    out: Path,
    data: Path,
    writing: QueryWriting,
    retriever: Retriever | None,
    seed: int,
    instruction: str | None = None,
    validation_fraction: float | None = None,
    ledger: Path | None = None,
    budget: Budget | None = None,
    run: str = "",
) -> Mapping[str, Any]:
    """Write training queries from the documents of the collection in `data`, and put them with its
    own into `out`, a collection too.

    The table `written`, and `written.jsonl` for readers, say of every draft which document it was
    written from and which filter dropped it. The document is known to nobody who judges or rates.
    `instruction` is what makes a document relevant to any query of the collection, and goes with
    the written ones; None: what all queries have that are there. `retriever` is that of the run,
    None where drafts need not find their document. `validation_fraction` is that of training, as
    queries that validate are of no neighbourhood.
    """
    given = read_table(data, "queries")
    corpus = Corpus.at(data)
    terms = CorpusTerms.of(corpus)
    own = given["text"].to_pylist()
    to_train = [
        text for text, split in zip(own, given["split"].to_pylist(), strict=True)
        if split == "train"
    ]  # fmt: skip
    examples = writing.shown() or to_train
    context = WritingContext(
        data, corpus, terms, writing.per_document, examples, seed, ledger, budget, run
    )
    session = writing.writer.prepare(context)
    before = NearDuplicates(terms, writing.filters.near_duplicates, own)
    near = (
        neighbourhoods(corpus, terms.words, writing.neighbourhood, seed)
        if writing.neighbourhood
        else []
    )
    order = (np.concatenate(near) if near else in_breadth(corpus, terms.words, seed)).tolist()
    found: list[Written] = []
    read, kept, share = 0, 0, FIRST_GUESS
    while kept < writing.number and read < len(order):
        missing = writing.number - kept
        most = missing / writing.per_document
        indices = order[read : read + math.ceil(most / max(share, LEAST))]
        documents = documents_at(data, indices)
        drafts = [
            (document, draft)
            for document, its in zip(documents, session.write(documents), strict=True)
            for draft in its[: writing.per_document]
        ]
        new = filtered(drafts, writing, context, before, retriever, missing)
        found += new
        read += len(indices)
        kept += sum(one.status == KEPT for one in new)
        share = kept / (read * writing.per_document)
    if not kept and not to_train:
        why = counts_in_words(Counter(one.status for one in found))
        raise UserError(
            f"queries: none could be written from {len(order):,} documents ({why or 'no draft'}), "
            f"and the collection has none to train on; queries.filters.NAME=null switches a filter "
            f"off, or add queries to the collection"
        )
    chosen = [one for one in found if one.status == KEPT]
    told = instruction_of_written(instruction, instructions_of_own(given))
    written = table(
        "queries",
        query_id=[one.query_id for one in chosen],
        text=[one.text for one in chosen],
        split=["train"] * len(chosen),
        instruction=[told] * len(chosen),
    )
    left_out = documents_left_out(data)
    if not writing.source_is_candidate:
        left_out |= {one.query_id: one.doc_id for one in chosen}
    if left_out:
        write_table(
            out, "left_out", table("left_out", query_id=[*left_out], doc_id=[*left_out.values()])
        )
    every = pa.concat_tables([given, written])
    write_table(out, "queries", every)
    if near:
        number = {
            doc_id: n
            for n, indices in enumerate(near)
            for doc_id in corpus.ids.take(pa.array(indices)).to_pylist()
        }
        columns = {"doc_id": [*number], "neighbourhood": [*number.values()]}
        write_table(out, "neighbourhoods", table("neighbourhoods", **columns))
        sources = [one.doc_id for one in chosen]
        to_validate = held_out(sources, to_train, validation_fraction)
        found = [
            one._replace(neighbourhood=number[one.doc_id])
            if one.status == KEPT and one.doc_id not in to_validate
            else one
            for one in found
        ]
    write_written(out, found, name_of(type(writing.writer)))
    for name in HANDED_ON:
        if (data / f"{name}.parquet").exists():
            link(data / f"{name}.parquet", out / f"{name}.parquet")
    status = Counter(one.status for one in found)
    say(
        f"  {kept:,} queries written from {read:,} of {len(corpus):,} documents"
        + (f"; left out: {words}" if (words := counts_in_words(status)) else "")
    )
    return {
        "written": kept,
        "drafts": len(found),
        "left_out": {name: n for name, n in status.items() if name != KEPT},
        "kinds": dict(Counter(one.kind for one in chosen)),
        "documents_read": read,
        "queries": dict(Counter(every["split"].to_pylist())),
        "missing": session.missing + status[UNANSWERED],
        "failed": session.failed,
    }


def filtered(
    drafts: Sequence[tuple[SourceDocument, Draft]],
    writing: QueryWriting,
    context: WritingContext,
    before: NearDuplicates,
    retriever: Retriever | None,
    wanted: int,
) -> list[Written]:
    """What becomes of drafts; those that are kept, `wanted` at most, are counted in `before`.

    The first draft of every document comes before the second of any.
    """
    filters = writing.filters
    turn: Counter[str] = Counter()
    ranked = []
    for document, draft in drafts:
        ranked.append((turn[document.doc_id], document, draft))
        turn[document.doc_id] += 1
    ranked.sort(key=lambda entry: entry[0])
    status: dict[str, str] = {}
    searched: dict[str, tuple[str, int]] = {}
    rows: dict[str, Written] = {}
    for _, document, draft in ranked:
        query_id = id_of(document.doc_id, draft.text)
        rows[query_id] = Written(query_id, draft.text, document.doc_id, draft.kind, "")
        if filters.is_copy(draft.text, document):
            status[query_id] = COPY
        elif filters.is_generic(draft.text, context.terms):
            status[query_id] = GENERIC
        else:
            searched[query_id] = draft.text, document.position
    there = (
        set(searched) if retriever is None
        else filters.found_again(searched, retriever, context.corpus)
    )  # fmt: skip
    asked = {
        query_id: text
        for query_id, (text, _) in searched.items()
        if query_id in there and not before.has(text)
    }
    least, model = filters.realistic, writing.realism_judge
    if least is not None and model is not None:
        for query_id, answer in realism(model, asked, context).items():
            if answer is None:
                status[query_id] = UNANSWERED
            elif answer.score is None or answer.score < least:
                status[query_id] = UNREALISTIC
    for query_id, (text, _) in searched.items():
        if query_id in status:
            continue
        if query_id not in there:
            status[query_id] = NOT_FOUND
        elif before.has(text):
            status[query_id] = DUPLICATE
        elif not wanted:
            status[query_id] = SURPLUS
        else:
            status[query_id] = KEPT
            before.add(text)
            wanted -= 1
    return [row._replace(status=status[query_id]) for query_id, row in rows.items()]


def instruction_of_written(common: str | None, own: Sequence[str | None]) -> str | None:
    """What judges of written queries are told: what is said of the whole collection, or what all
    of its `own` queries have; where these differ nothing, which is said."""
    if common and common.strip():
        return common.strip()
    if len(own) > 1:
        say(
            "  ! the collection's queries do not all have the same instruction, and written ones "
            "have none: data.instruction='...' is what judges are told of these"
        )
    return own[0] if len(own) == 1 else None


def instructions_of_own(given: pa.Table) -> list[str | None]:
    """Each instruction of the queries that are there, once: of those to train on, or of all where
    there are none."""
    to_train = given.filter(pc.equal(given["split"], "train"))
    found: list[str | None] = (to_train or given)["instruction"].unique().to_pylist()
    return found


def held_out(sources: Sequence[str], own: Sequence[str], share: float | None) -> set[str]:
    """Sources whose queries will validate, if all queries are rated: this share of them, None: as
    many as without anybody's word. The collection's own ones count by their texts."""
    limit = share
    if limit is None:
        limit = limit_to_hold_out([hash_share(text) for text in (*sources, *own)])
    return {doc_id for doc_id in sources if hash_share(doc_id) < limit}


def id_of(doc_id: str, text: str) -> str:
    """The id of a written query, by its document and its text."""
    return f"written-{digest([doc_id, text])}"


def documents_at(data: Path, indices: Sequence[int]) -> list[SourceDocument]:
    """Documents by their index, in the order that is asked for; read part by part."""
    wanted = sorted(indices)
    found: dict[int, SourceDocument] = {}
    first = 0
    for batch in parquet_batches(data / "documents.parquet", PART):
        here = [i for i in wanted if first <= i < first + len(batch)]
        rows = batch.take(pa.array([i - first for i in here], pa.int64()))
        names = ("doc_id", "title", "text")
        columns = (rows.column(name).to_pylist() for name in names)
        for index, *of_row in zip(here, *columns, strict=True):
            found[index] = SourceDocument(index, *of_row)
        first += len(batch)
    return [found[index] for index in indices]


def write_written(out: Path, found: Iterable[Written], writer: str) -> None:
    """Write the table `written`, and the same as JSON lines."""
    rows = [{**one._asdict(), "writer": writer} for one in found]
    names = ("query_id", "text", "doc_id", "kind", "writer", "status", "neighbourhood")
    write_table(out, "written", table("written", **{n: [row[n] for row in rows] for n in names}))
    with replacing(out / "written.jsonl") as path, path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps({n: row[n] for n in names}, ensure_ascii=False) + "\n")


def counts_in_words(status: Counter[str]) -> str:
    """How many drafts each filter dropped: `copy 3, duplicate 12`."""
    return ", ".join(f"{name} {n:,}" for name, n in sorted(status.items()) if name != KEPT)


def link(source: Path, target: Path) -> None:
    """Have a file under a second name, without its content being copied where that can be."""
    target.unlink(missing_ok=True)  # left by a process that was killed
    try:
        os.link(source, target)
    except OSError:  # the file system has no such links
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)
