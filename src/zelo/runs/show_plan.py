"""What `zelo plan` prints."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from omegaconf import OmegaConf

from zelo.config import conf_folder
from zelo.data.planned import Planned
from zelo.judging.estimate import JudgeEstimate
from zelo.run_config import Run
from zelo.runs.plan import Plan
from zelo.runs.workload import Device


def show(run: Run, made: Plan) -> None:
    """Print a plan."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if Console().is_terminal else 110, markup=False, highlight=False)
    size = made.size
    kind = "as planned" if isinstance(run.data, Planned) else "as its files say"
    console.print(
        f"{size.name}, {kind}: {size.queries:,} training queries"
        f"{f' ({size.written:,} of them to be written)' if size.written else ''} of about "
        f"{size.lengths.query_tokens:.0f} tokens, {size.documents:,} documents of about "
        f"{size.lengths.document_tokens.mean():.0f}"
    )
    if made.asked and 0 < size.written < size.queries:
        own = size.queries - size.written
        console.print(f"(queries=off asks about the {own:,} queries of the collection alone)")
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
            *(device.name for device in devices),
        )
        for work in made.work:
            hours = [device.hours(work) for device in devices]
            rows.add_row(
                work.stage,
                f"{work.tokens / 1e6:,.1f} M",
                "unknown" if work.parameters is None else f"{work.parameters / 1e6:,.1f} M",
                *("unknown" if h is None else f"{h:,.2f}" for h in hours),
            )
        console.print(rows)
        console.print("BM25, rating and reports: minutes. Throughput (conf/throughput.yaml):")
        for device in devices:
            console.print(f"{device.name}: {device.source}.")


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


def throughput() -> list[Device]:
    """Devices of conf/throughput.yaml."""
    content: Any = OmegaConf.to_container(OmegaConf.load(conf_folder() / "throughput.yaml"))
    return [Device(name, **entry) for name, entry in content["devices"].items()]
