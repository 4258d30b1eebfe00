"""`zelo plan`: what a run will ask, cost and take, without calling anything."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import OmegaConf

from zelo.config import conf_folder
from zelo.data.collection import NO_TRAINING
from zelo.data.planned import Planned
from zelo.data.token_estimate import estimated_tokens
from zelo.errors import UserError
from zelo.judging.estimate import JudgeEstimate, TextLengths
from zelo.retrieval.dense import Dense
from zelo.training.bi_encoder import BiEncoder
from zelo.training.cross_encoder import CrossEncoder

if TYPE_CHECKING:
    from zelo.models.lora import Lora
    from zelo.models.pretrained import PretrainedModel
    from zelo.run_config import Run
    from zelo.training.options import TrainingOptions

SAMPLE = 5000  # documents and queries whose length is taken
LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?)\.(\d+)\.")  # number, in the name of a weight


@dataclass(frozen=True)
class Size:
    """How large a collection is."""

    name: str
    queries: int  # of the training split
    documents: int
    lengths: TextLengths


@dataclass(frozen=True)
class Parameters:
    """How many a transformer has, embeddings apart, as far as it is known without loading it."""

    total: float
    layers: Mapping[int, float] = field(default_factory=dict)  # of each; empty: not known
    sides: Mapping[int, float] = field(default_factory=dict)  # Σ (rows + columns) of its matrices

    @property
    def to_read(self) -> float:
        """Operations that reading a token takes: a product and a sum for each parameter."""
        return 2 * self.total

    def to_learn(
        self, lora: Lora | None, training: TrainingOptions, gradient_checkpointing: bool
    ) -> float:
        """Operations that learning from a token takes.

        Forward 2 for each parameter; back 2 for the gradients of activations and, where it learns
        itself, 2 for its own. Below the lowest layer that learns there is no way back, but with
        gradient checkpointing, which transformers leads to the inputs. What is made anew on the way
        back is read twice.
        """
        fixed = {n for n in self.layers if n < training.frozen_layers}
        low = sum(self.layers[n] for n in fixed)
        way = self.total if gradient_checkpointing else self.total - low
        operations = self.to_read + 2 * way
        if training.gradient_cache:
            operations += self.to_read
        elif gradient_checkpointing:
            operations += 2 * way
        if lora is None:
            return operations + 2 * (self.total - low)
        for n, size in self.sides.items():  # adapters of rank r have r (rows + columns)
            operations += (2 if n in fixed else 6) * lora.rank * size
        return operations


@dataclass(frozen=True)
class Work:
    """What one stage computes on this machine."""

    stage: str
    tokens: float
    parameters: float | None  # None: not known without the model
    operations: float | None  # for a token
    training: bool = False

    def hours(self, tera: float) -> float | None:
        """Hours on a device of so many 10¹² operations a second."""
        if self.operations is None:
            return None
        return self.tokens * self.operations / (tera * 1e12) / 3600


def reading(stage: str, tokens: float, weights: PretrainedModel) -> Work:
    """Work that only reads."""
    p = parameters(weights)
    return Work(stage, tokens, p.total, p.to_read) if p else Work(stage, tokens, None, None)


def learning(stage: str, tokens: float, model: Any, training: TrainingOptions) -> Work:
    """Work that trains `model`."""
    p = parameters(model.pretrained)
    if p is None:
        return Work(stage, tokens, None, None, training=True)
    each = p.to_learn(model.lora, training, model.gradient_checkpointing)
    return Work(stage, tokens, p.total, each, training=True)


@dataclass(frozen=True)
class Plan:
    """All of it."""

    size: Size
    comparisons: dict[str, float]  # by stage
    asked: list[JudgeEstimate]
    work: list[Work]


def plan(run: Run, today: date | None = None) -> Plan:
    """Count what `run` would ask and compute; texts are read, nothing is called or written.

    Prices are doubted as of `today`.
    """
    size = measure(run)
    n = min(run.depth, run.top_k, size.documents)
    total = float(run.sampler.comparisons_at_most(n, size.queries))
    comparisons = {"compare": total}
    for_ensemble = total
    if run.distil is not None:
        n = min(run.top_k, size.documents)
        for_ensemble = float(run.distil.sampler.comparisons_at_most(n, size.queries))
        comparisons = {"compare (few, for the ensemble)": for_ensemble, "compare": total}
    learned = for_ensemble
    if run.cross is not None:
        edges = float(size.queries * run.cross.cycles * run.cross.per_edge)
        comparisons["cross (between queries)"] = edges
        for_ensemble += edges
    if (more := run.refine) is not None:
        n = min(more.sample_depth, size.documents)
        sample = float(more.sample.comparisons_at_most(n, more.sample_queries))
        asked = {
            "compare (the sample, for the ensemble)": sample,
            "refine (for the ensemble, at most)": float(size.queries * (more.passes - 1)),
        }
        comparisons |= asked
        for_ensemble += sum(asked.values())
    ledger = run.home / "ledger.sqlite"
    return Plan(
        size,
        comparisons,
        list(run.judge.estimates(for_ensemble, size.lengths, ledger, today or date.today())),
        list(work_of(run, for_ensemble, learned, total, size)),
    )


def measure(run: Run) -> Size:
    """Size of the collection: of its files, or as planned."""
    data = run.data
    if isinstance(data, Planned):
        lengths = np.array([data.document_tokens])
        texts = TextLengths(data.query_tokens, lengths)
        return Size(data.name, data.train_queries, data.documents, texts)
    collection = data.load()
    queries = [
        text
        for text, split in zip(
            *(collection.queries[name].to_pylist() for name in ("text", "split")), strict=True
        )
        if split == "train"
    ]
    if not queries:
        raise UserError(f"plan: no query is left to train on: {NO_TRAINING}")
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
    return Size(
        collection.name,
        len(queries),
        number,
        TextLengths(float(np.mean([estimated_tokens(text) for text in queries[:SAMPLE]])), lengths),
    )


def work_of(
    run: Run, for_ensemble: float, learned: float, total: float, size: Size
) -> Iterator[Work]:
    """What the stages compute here, all passes together, as far as it is worth counting."""
    lengths = size.lengths
    passes = 1 if run.refine is None else run.refine.passes
    dense = getattr(run.retriever, "dense", run.retriever)
    if isinstance(dense, Dense):
        read = lengths.truncated(dense.max_length) * size.documents
        yield reading("retrieve (embedding)", read, dense.pretrained)
    for name, judge in run.judge.judges.items():
        local = judge.local_reading(lengths)
        if local is not None:
            yield reading(f"judge ({name})", for_ensemble * local.tokens, local.pretrained)
    if run.distil is not None:
        model = run.distil.model
        room = (model.max_length - min(lengths.query_tokens, model.max_query_length)) / 2
        triple = min(lengths.query_tokens, model.max_query_length) + 2 * lengths.truncated(room)
        read = run.distil.training.reads(learned) * triple
        yield learning("distil", passes * read, model, run.distil.training)
        both = passes * 2 * total * triple  # orders
        yield reading("judge (the distilled model)", both, model.pretrained)
    if isinstance(run.model, BiEncoder | CrossEncoder):
        length = float(getattr(run.model, "train_max_length", None) or run.model.max_length)
        each = min(run.depth, run.top_k, run.training.docs_per_query or run.depth, size.documents)
        tokens = (
            run.training.reads(size.queries)
            * each
            * (lengths.query_tokens + lengths.truncated(length))
        )
        yield learning("train", passes * tokens, run.model, run.training)


def parameters(weights: PretrainedModel) -> Parameters | None:
    """Parameters of a model without its embeddings: by its files, or else by its name (`-4B`)."""
    folder = weights.at_hand()
    if folder is not None:
        from safetensors import safe_open

        count = 0.0
        layers: dict[int, float] = {}
        sides: dict[int, float] = {}
        for path in folder.glob("*.safetensors"):
            with safe_open(path, "np") as file:
                for key in file.keys():  # noqa: SIM118  # it is no dict
                    if "embed" in key:
                        continue
                    shape = file.get_slice(key).get_shape()
                    count += float(np.prod(shape))
                    if found := LAYER.search(key):
                        number = int(found[1])
                        layers[number] = layers.get(number, 0.0) + float(np.prod(shape))
                        if len(shape) == 2:
                            sides[number] = sides.get(number, 0.0) + sum(shape)
        if count:
            return Parameters(count, layers, sides)
    size = re.search(r"[-_](\d+(?:\.\d+)?)([BM])\b", weights.name, re.IGNORECASE)
    if size is None:
        return None
    return Parameters(float(size[1]) * (1e9 if size[2].upper() == "B" else 1e6))


def show(run: Run, made: Plan) -> None:
    """Print a plan."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if Console().is_terminal else 110, markup=False, highlight=False)
    size = made.size
    kind = "as planned" if isinstance(run.data, Planned) else "as its files say"
    console.print(
        f"{size.name}, {kind}: {size.queries:,} training queries of about "
        f"{size.lengths.query_tokens:.0f} tokens, {size.documents:,} documents of about "
        f"{size.lengths.document_tokens.mean():.0f}"
    )
    for stage, count in made.comparisons.items():
        console.print(f"{stage}: {count:,.0f} comparisons")

    def table(title: str, *columns: str) -> Table:
        drawn = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        for i, column in enumerate(columns):
            drawn.add_column(column, justify="right" if i else "left", no_wrap=i > 0)
        return drawn

    console.print()
    if made.asked:
        rows = table("Judges that are paid", "judge", "calls", "tokens in", "out", "USD", "hours")
        for asked in made.asked:
            rows.add_row(
                f"{asked.judge} ({asked.model})",
                span(asked.calls[0], asked.calls[1], "{:,.0f}"),
                millions(asked.calls[0], asked.tokens_in),
                millions(asked.calls[0], asked.tokens_out),
                span(asked.usd[0], asked.usd[1], "{:,.2f}") if asked.usd else "unknown",
                "-" if asked.hours is None else f"{asked.hours:,.1f}",
            )
        known = [asked.usd for asked in made.asked if asked.usd]
        calls = [sum(asked.calls[k] for asked in made.asked) for k in (0, 1)]
        usd = [sum(pair[k] for pair in known) for k in (0, 1)]
        rows.add_row(
            "all",
            span(calls[0], calls[1], "{:,.0f}"),
            f"{sum(a.calls[0] * (a.tokens_in or 0) for a in made.asked) / 1e6:,.2f} M",
            f"{sum(a.calls[0] * (a.tokens_out or 0) for a in made.asked) / 1e6:,.2f} M",
            span(usd[0], usd[1], "{:,.2f}") + " + unknown" * (len(known) < len(made.asked)),
            f"{max(by_provider(made.asked).values(), default=0.0):,.1f}",
            style="bold",
        )
        console.print(rows)
        measured = sum(asked.measured for asked in made.asked)
        source = f"of {measured:,} answers in the ledger" if measured else "estimated"
        console.print(
            f"Tokens are {source}. Prices are those of conf/prices.yaml, or set at the judge: "
            f"check them before you spend. Hours are the least that the configured limits allow; "
            f"providers are asked at the same time. Answers that the ledger has are not asked for "
            f"again."
        )
        for asked in made.asked:
            if asked.price_doubts:
                console.print(
                    f"! the price of {asked.provider}/{asked.model} {asked.price_doubts}: look it "
                    f"up, and set judge.judges.{asked.judge}.price"
                )
            elif asked.usd is None and asked.tokens_in is None:
                console.print(
                    f"! judge {asked.judge} does not say what it costs: give its class "
                    f"usd_per_answer, 0 where it costs nothing"
                )
        if run.judge.max_stderr is not None:
            console.print(
                f"The higher numbers are for {run.judge.max_answers} answers to every comparison, "
                f"which only those need whose answers differ."
            )
        for name, limit in (("usd", run.budget.usd), ("calls", run.budget.calls)):
            if limit is not None:
                console.print(f"budget.{name}={limit:g} stops the run before it is passed.")
    else:
        console.print("No judge is paid.")
    console.print()
    if made.work:
        devices = throughput()
        rows = table(
            "Computed here, in hours",
            "stage",
            "tokens",
            "parameters",
            *(name if entry["measured"] else f"{name} (assumed)" for name, entry in devices),
        )
        for work in made.work:
            hours = [
                work.hours(entry["training" if work.training else "inference"])
                for _, entry in devices
            ]
            rows.add_row(
                work.stage,
                f"{work.tokens / 1e6:,.1f} M",
                "unknown" if work.parameters is None else f"{work.parameters / 1e6:,.1f} M",
                *("unknown" if h is None else f"{h:,.2f}" for h in hours),
            )
        console.print(rows)
        console.print(
            "Throughput is that of conf/throughput.yaml; BM25, rating and reports: minutes."
        )


def millions(calls: float, tokens: float | None) -> str:
    """So many calls of so many tokens."""
    return "-" if tokens is None else f"{calls * tokens / 1e6:,.2f} M"


def by_provider(asked: Iterable[JudgeEstimate]) -> dict[str, float]:
    """Least hours of each provider's judges together."""
    hours: dict[str, float] = {}
    for one in asked:
        hours[one.provider] = hours.get(one.provider, 0.0) + (one.hours or 0.0)
    return hours


def span(low: float, high: float, form: str) -> str:
    """One number, or two."""
    texts = [form.format(low), form.format(high)]
    return texts[0] if texts[0] == texts[1] else " to ".join(texts)


def throughput() -> list[tuple[str, dict[str, Any]]]:
    """Devices of conf/throughput.yaml."""
    content: Any = OmegaConf.to_container(OmegaConf.load(conf_folder() / "throughput.yaml"))
    return list(content["devices"].items())
