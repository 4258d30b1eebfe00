"""`zelo plan`: what a run will ask, cost and take, without calling anything."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np

from zelo.data.collection import NO_TRAINING
from zelo.data.planned import Planned
from zelo.data.token_estimate import estimated_tokens
from zelo.errors import UserError
from zelo.judging.ensemble import Ensemble
from zelo.judging.estimate import BlockWorkload, JudgeEstimate, JudgeWorkload, TextLengths
from zelo.judging.prompt import instruction_tokens
from zelo.pipeline import run_stages
from zelo.queries import realism
from zelo.queries.queries import QueryWriting
from zelo.retrieval.retrieve import EmbeddingRetriever
from zelo.run_config import STAGE_NAMES, Distillation, Run
from zelo.runs.planning_store import PlannedStage, PlanningStore
from zelo.runs.workload import Work, learning, parameters, reading
from zelo.training.bi_encoder import BiEncoder
from zelo.training.by_size import by_size
from zelo.training.loggers import Tracking
from zelo.training.options import TrainingOptions

SAMPLE = 5000  # documents and queries whose length is taken
WRITTEN_TOKENS = 15  # of a query that is not written yet
MOST_READ = 2  # documents that are read for each that is needed, where half of the drafts stay
NUMBERED = re.compile(r", (pass|round) \d+")  # in the label of a stage
TITLES = {  # label of a stage that chooses pairs → what a plan calls it, in the order of the plan
    "compare (few, for the ensemble)": "compare (few, for the ensemble)",
    "compare": "compare",
    "cross": "cross (between queries)",
    "compare (the sample)": "compare (the sample, for the ensemble)",
    "refine": "refine (for the ensemble, at most)",
}


@dataclass(frozen=True)
class Size:
    """How large a collection is."""

    name: str
    queries: int  # of the training split, those that are written included
    documents: int
    lengths: TextLengths
    written: int = 0  # of the queries, at most


@dataclass(frozen=True)
class Plan:
    """All of it."""

    size: Size
    comparisons: dict[str, float]  # by stage
    asked: list[JudgeEstimate]
    work: list[Work]


def plan(run: Run, today: date | None = None) -> Plan:
    """Count what `run` would ask and compute; texts are read, nothing is called or written.

    The stages are those that the pipeline asks its store for. Prices are doubted as of `today`.
    """
    size = measure(run)
    stages = planned_stages(run)
    pairs = pairs_by_artifact(run, stages, size)
    chosen: dict[str, float] = {}
    for planned in stages:
        if planned.artifact.fingerprint in pairs:
            title = TITLES[NUMBERED.sub("", planned.label)]
            chosen[title] = chosen.get(title, 0.0) + pairs[planned.artifact.fingerprint]
    ensembles = [run.judge.in_round(n + 1) for n in range(run.sampler.max_rounds)]
    judged = [planned for planned in stages if planned.stage == "judge"]
    asked_pairs = {
        name: sum(
            pairs[planned.inputs["comparisons"].fingerprint]
            for planned in judged
            if planned.options["ensemble"] in (run.judge, *ensembles)
            and name in planned.options["ensemble"].judges
        )
        for name in run.judge.judges
    }
    ledger, today = run.home / "ledger.sqlite", today or date.today()
    return Plan(
        size,
        {title: chosen[title] for title in TITLES.values() if title in chosen},
        [
            *writing_estimate(run, size, ledger, today),
            *run.judge.estimates(
                asked_pairs,
                size.lengths,
                ledger,
                today,
                blocks_of(run, size),
                float(size.queries * min(run.depth, run.top_k, size.documents)),
            ),
        ],
        list(work_of(run, stages, pairs, asked_pairs, size)),
    )


def written_by(run: Run, size: Size) -> QueryWriting | None:
    """How queries are written, where any are."""
    return run.writing(size.queries - size.written) if size.written else None


def writing_estimate(run: Run, size: Size, ledger: Path, today: date) -> Iterator[JudgeEstimate]:
    """What who writes queries would be asked, and who says how realistic they are, where that may
    cost something.

    Of a document that gives fewer queries than it may, another one is read in its place.
    """
    writing = written_by(run, size)
    if writing is not None:
        least = size.written / writing.per_document
        calls = (least, min(MOST_READ * least, float(size.documents)))
        workload = JudgeWorkload(calls, 0.0, size.lengths, ledger, today)
        estimate = writing.writer.estimate("queries", workload)
        if estimate is not None:
            yield estimate
        if writing.filters.realistic is not None and writing.realism_judge is not None:
            each = (float(size.written), MOST_READ * size.written)
            yield writing.realism_judge.estimate(
                realism.NAME, replace(workload, calls=each), asked_by=realism.PROMPT, documents=0
            )


def planned_stages(run: Run) -> list[PlannedStage]:
    """The stages of a run, none of which is run, in the order of the pipeline."""
    store = PlanningStore(Path(), frozenset(STAGE_NAMES))
    run_stages(run, store, Tracking(tracker=run.logger, folder=Path()))
    return store.stages


def pairs_by_artifact(run: Run, stages: Sequence[PlannedStage], size: Size) -> dict[str, float]:
    """Fingerprint of what a stage makes → how many pairs it chooses, at most."""
    found = {}
    for planned in stages:
        options = planned.options
        match planned.stage:
            case "compare":
                sampler = options["sampler"]
                n = min(options["depth"], run.top_k, size.documents)
                most = sampler.comparisons_at_most(n, options.get("queries", size.queries))
                number = most / sampler.max_rounds
            case "cross":
                number = float(size.queries * options["cross"].cycles * options["cross"].per_edge)
            case "refine":
                number = float(size.queries)
            case _:
                continue
        found[planned.artifact.fingerprint] = number
    return found


def blocks_of(run: Run, size: Size) -> BlockWorkload | None:
    """The blocks that are drawn for the ensemble; None where pairs are."""
    sampler, depth = run.sampler, run.depth
    if run.distil is not None:
        sampler, depth = run.distil.sampler, run.top_k
    if not sampler.in_blocks:
        return None
    n = min(depth, run.top_k, size.documents)
    sizes = sampler.blocks_at_most(n)
    return BlockWorkload(
        float(size.queries * len(sizes)),
        float(np.mean(sizes or [0])),
        float(sampler.comparisons_at_most(n, size.queries)),
    )


def measure(run: Run) -> Size:
    """Size of the collection: of its files, or as planned."""
    data = run.data
    if isinstance(data, Planned):
        lengths = np.array([data.document_tokens])
        texts = TextLengths(data.query_tokens, lengths)
        written = to_write(run, data.train_queries, data.documents)
        return Size(data.name, data.train_queries + written, data.documents, texts, written)
    collection = data.load()
    queries = [
        (text, instruction or "")
        for text, split, instruction in zip(
            *(collection.queries[name].to_pylist() for name in ("text", "split", "instruction")),
            strict=True,
        )
        if split == "train"
    ]
    rng = np.random.default_rng(0)
    number, lots, lengths = 0, np.empty(0), np.empty(0)
    for part in collection.documents:
        rows = zip(part["title"].to_pylist(), part["text"].to_pylist(), strict=True)
        number += len(part)
        # Each document draws a lot, and the lowest are the sample.
        lots = np.concatenate([lots, rng.random(len(part))])
        new = [estimated_tokens(f"{title} {text}".strip()) for title, text in rows]
        lengths = np.concatenate([lengths, new])
        drawn = np.argsort(lots)[:SAMPLE]
        lots, lengths = lots[drawn], lengths[drawn]
    written = to_write(run, len(queries), number)
    if not queries and not written:
        raise UserError(f"plan: no query is left to train on: {NO_TRAINING}")
    tokens = [estimated_tokens(text) for text, _ in queries[:SAMPLE]] or [WRITTEN_TOKENS]
    told = [instruction_tokens(instruction) for _, instruction in queries[:SAMPLE]] or [0]
    texts = TextLengths(float(np.mean(tokens)), lengths, float(np.mean(told)))
    return Size(collection.name, len(queries) + written, number, texts, written)


def to_write(run: Run, given: int, documents: int) -> int:
    """How many queries are written for a collection of so many training queries and documents."""
    writing = run.writing(given)
    if writing is None:
        return 0
    return min(writing.number, documents * writing.writer.drafts_of_each(writing.per_document))


def work_of(
    run: Run,
    stages: Sequence[PlannedStage],
    pairs: Mapping[str, float],
    asked_pairs: Mapping[str, float],
    size: Size,
) -> Iterator[Work]:
    """What the stages compute here, all passes together, as far as it is worth counting."""
    writing = written_by(run, size)
    if writing is not None and (local := writing.writer.local_reading(size.lengths)) is not None:
        yield reading("queries (written)", size.written * local.tokens, local.pretrained)
    if isinstance(run.retriever, EmbeddingRetriever):
        pretrained, max_length = run.retriever.embeds_with()
        tokens = size.lengths.truncated(max_length) * size.documents
        yield reading("retrieve (embedding)", tokens, pretrained)
    for name, judge in run.judge.judges.items():
        local = judge.local_reading(size.lengths)
        if local is not None:
            documents = size.queries * min(run.depth, run.top_k, size.documents)
            orders = blocks_of(run, size) if judge.orders_lists else None
            number = asked_pairs[name] - (orders.pairs if orders else 0.0)
            times = min(2 * number, documents) if local.once else number
            tokens = times * local.tokens
            if local.embeds and run.embeddings_gib:  # else a document is read again for others
                query_tokens = size.queries * size.lengths.query_tokens
                tokens = query_tokens + min(times, size.documents) * local.tokens
            if orders:
                another = (orders.documents - 2) * local.tokens_of_another
                tokens += orders.number * (local.tokens + another)
            yield reading(f"judge ({name})", tokens, local.pretrained)
    if run.distil is not None:
        yield from work_of_distilled(run.distil, run.judge, stages, pairs, size)
    trainings = sum(planned.stage == "train" for planned in stages)
    each: float = min(
        run.depth, run.top_k, run.training.docs_per_query or run.depth, size.documents
    )
    query = size.lengths.query_tokens
    document = size.lengths.truncated(run.model.training_length)
    training = training_by_size(run, size)
    tokens = each * (query + document)
    if isinstance(run.model, BiEncoder):  # reads a step's documents once for all of its queries
        if writing is not None and (near := writing.neighbourhood) is not None:
            together = min(near, size.documents)
            queries = together * writing.writer.drafts_of_each(writing.per_document)
            steps = math.ceil(queries / training.batch_size)
            each = min(each, steps * together / queries)
        tokens = query + each * document
    yield learning("train", trainings * training.reads(size.queries) * tokens, run.model, training)


def training_by_size(run: Run, size: Size) -> TrainingOptions:
    """The options of training as the stage will have them."""
    known = parameters(run.model.pretrained)
    layers = len(known.layers) if known else 0
    steps = math.ceil(size.queries / run.training.batch_size)
    return by_size(run.training, steps, layers, None, run.model.lora is not None)


def work_of_distilled(
    distillation: Distillation,
    ensemble: Ensemble,
    stages: Sequence[PlannedStage],
    pairs: Mapping[str, float],
    size: Size,
) -> Iterator[Work]:
    """What the pairwise model reads, to learn and to answer."""
    model, training = distillation.model, distillation.training
    answers = {  # judgments of whom → pairs
        planned.artifact.fingerprint: pairs[planned.inputs["comparisons"].fingerprint]
        for planned in stages
        if planned.stage == "judge"
    }
    learned = sum(
        training.reads(sum(answers.get(i.fingerprint, 0.0) for i in planned.inputs.values()))
        for planned in stages
        if planned.stage == "distil"
    )
    asked = sum(
        answers[planned.artifact.fingerprint]
        for planned in stages
        if planned.stage == "judge" and planned.options["ensemble"] != ensemble
    )
    query = min(size.lengths.query_tokens, model.max_query_length)
    triple = query + 2 * size.lengths.truncated((model.max_length - query) / 2)
    yield learning("distil", learned * triple, model, training)
    both_orders = 2
    yield reading("judge (the distilled model)", both_orders * asked * triple, model.pretrained)
