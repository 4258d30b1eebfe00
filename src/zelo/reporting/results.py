"""Results and costs as rows, and their tables in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zelo.artifacts import read_json, read_table
from zelo.errors import shown
from zelo.evaluation.elo_truth import ELO_MEASURES, ELO_NDCG
from zelo.evaluation.evaluate import FUSED, SEARCH, TRAINED
from zelo.evaluation.evaluate import START as START_SYSTEM
from zelo.evaluation.macro_average import TableRow, Verdict
from zelo.evaluation.search import LEXICAL
from zelo.evaluation.significance import Difference, Estimate
from zelo.store import Artifact, Used
from zelo.training.never_worse import START

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

LABELS = {
    "bm25": "BM25",
    "dense": "dense",
    "hybrid": "hybrid (RRF)",
    "ceiling": "ideal order",
    "start": "starting model",
    "zelo": "zELO-trained",
    "start-search": "start search",
    "zelo-search": "trained search",
}
SHORT = {  # in the names of systems that are fused
    START_SYSTEM: "start",
    TRAINED: "trained",
    f"{START_SYSTEM}{SEARCH}": "start search",
    f"{TRAINED}{SEARCH}": "trained search",
    "bm25": "BM25",
}
SIGNIFICANT = 0.05
WIDER = ("NDCG@10", "Recall@100", "MRR@10", "Judged@10")
TESTED = ("NDCG@10", ELO_NDCG)
PRINTED = ("NDCG@10", "Recall@10", "Recall@100")  # what 80 columns hold


@dataclass(frozen=True)
class Comparison:
    """The paired test of the trained against the starting model in one metric."""

    metric: str
    difference: Estimate
    p_value: float
    wins: int
    losses: int
    ties: int

    @property
    def verdict(self) -> str:
        """What may be said, in one word or few."""
        if self.p_value > SIGNIFICANT:
            return "not significantly different"
        return "significantly better" if self.difference.value > 0 else "significantly worse"


def results(metrics: Path) -> dict[str, dict[str, Estimate]]:
    """System → metric → estimate, from the folder of the stage `evaluate`, in its order."""
    found: dict[str, dict[str, Estimate]] = {}
    for row in read_table(metrics, "metrics").to_pylist():
        found.setdefault(row["system"], {})[row["metric"]] = Estimate(
            row["value"], row["low"], row["high"]
        )
    return found


def comparisons_with_start(metrics: Path) -> list[Comparison]:
    """Paired tests of trained against starting model, one per metric."""
    return [
        Comparison(
            metric,
            Estimate(row["difference"], row["low"], row["high"]),
            row["p_value"],
            row["wins"],
            row["losses"],
            row["ties"],
        )
        for metric, row in read_json(metrics / "significance.json", "NDCG@10").items()
    ]


def label(system: str, trained: Mapping[str, Any] | None = None) -> str:
    """What a system is called in tables; `trained` are the counts of the stage `train`."""
    model, plus, first_stage = system.partition(FUSED)
    name = LABELS.get(system, system)
    if model in SHORT and plus:
        joined = "+" if model.endswith(SEARCH) else " + "  # 80 columns hold no more
        name = f"{SHORT[model]}{joined}{SHORT.get(first_stage, first_stage)}"
    if trained is None or not start_ships(trained) or not system.startswith(TRAINED):
        return name
    return "what ships (the start)" if system == TRAINED else name.replace("trained", "shipped")


def summary(metrics: Artifact) -> dict[str, float]:
    """Every number of the results under one flat name (`zelo/NDCG@10`), for files and trackers."""
    if not metrics.complete:
        return {}
    numbers = {
        f"{system}/{metric}": estimate.value
        for system, row in results(metrics.path).items()
        for metric, estimate in row.items()
    }
    for compared in comparisons_with_start(metrics.path):
        numbers[f"gain/{compared.metric}"] = compared.difference.value
        numbers[f"gain/{compared.metric}/p_value"] = compared.p_value
    return numbers


def ndcg_of_trained(metrics: Artifact) -> float | None:
    """NDCG@10 of the trained model, None where it was not evaluated."""
    return results(metrics.path)[TRAINED]["NDCG@10"].value if metrics.complete else None


def start_ships(trained: Mapping[str, Any]) -> bool:
    """Whether what ships is the starting model; `trained` are the counts of the stage `train`."""
    return bool(trained.get("shipped") == START)


def what_ships(trained: Mapping[str, Any]) -> str:
    """Which model ships and why, and what to change where it is the starting one."""
    if "val/gain" not in trained:
        return (
            f"The trained model ships, and was not held against the starting one: "
            f"{trained['shipped_because']}."
        )
    bound = trained.get("val/gain_at_least")
    sure = "" if bound is None else f", with 95 % certainty at least {bound:+.3f}"
    gained = (
        f"{trained['val/gain']:+.3f} NDCG@10 on {trained['validation_queries']:,} held-out judged "
        f"queries{sure}"
    )
    if not start_ships(trained):
        return f"The trained model ships: {gained}."
    return (
        f"The starting model ships, as training made it not surely better: {gained}. What may "
        f"change that: more training queries, other judges, another training.optimizer.lr. "
        f"training.never_worse=false ships the trained one."
    )


def print_what_ships(trained: Artifact) -> None:
    """Print which model ships, where one was trained."""
    if trained.complete and "shipped" in trained.record["counts"]:
        new_console(110).print(what_ships(trained.record["counts"]))
        print()


def print_results(metrics: Artifact, trained: Artifact) -> None:
    """Print systems by metrics with intervals, and the paired test."""
    found = results(metrics.path)
    training = trained.record["counts"] if trained.complete else {}
    counts = metrics.record["counts"]
    table = new_table(f"{counts['queries']} {counts['split']} queries, mean and 95 % interval")
    for metric in PRINTED:
        table.add_column(metric, justify="right", no_wrap=True)
    for system, row in found.items():
        cells = [cell(e) for e in map(row.__getitem__, PRINTED)]
        style = "bold" if system == TRAINED else None
        table.add_row(label(system, training), *cells, style=style)
    console = new_console(110)
    console.print(table)
    for compared in comparisons_with_start(metrics.path):
        if compared.metric not in PRINTED or start_ships(training):
            continue
        d = compared.difference
        console.print(
            f"{compared.metric}, trained against starting model: {d.value:+.3f} "
            f"[{d.low:+.3f}, {d.high:+.3f}], p = {compared.p_value:.4f}: {compared.verdict}"
        )
    for line in beside_the_models(metrics, training):
        console.print(line)
    console.print("(paired randomisation test; bootstrap intervals over queries)\n")


def beside_the_models(metrics: Artifact, trained: Mapping[str, Any]) -> list[str]:
    """What fused systems and searches gain in NDCG@10, a line each, and the weight of the fused."""
    counts = metrics.record["counts"]
    lines = [
        f"{test.metric}, {label(test.system, trained)} against {label(test.baseline)}: "
        f"{test.difference:+.3f} [{test.low:+.3f}, {test.high:+.3f}], p = {test.p_value:.4f}"
        for test in differences(metrics.path)
        if not (start_ships(trained) and test.baseline.startswith(START_SYSTEM))
    ]
    return [*lines, weight_in_words(counts)]


def differences(metrics: Path) -> list[Difference]:
    """Paired tests of fused systems and of searches, in NDCG@10."""
    return [Difference(**row) for row in read_json(metrics / "differences.json")]


def weight_in_words(evaluated: Mapping[str, Any]) -> str:
    """How a model is fused with the first stage; `evaluated` are the counts of `evaluate`."""
    fusion = evaluated["fusion"]
    chosen = (
        f"chosen on {fusion['queries']:,} held-out judged queries"
        if fusion["queries"]
        else "the default, as too few judged queries were held out to choose on"
    )
    sums = [("", fusion["first_stage"])]
    if f"{TRAINED}{SEARCH}{FUSED}{LEXICAL}" in evaluated["systems"]:
        sums.append(("search_", LABELS[LEXICAL]))
    of_each = [
        f"{fusion[f'{kind}weight']:g} of the {'search' if kind else 'model'}, "
        f"{1 - fusion[f'{kind}weight']:g} of {other} (of the starting model's "
        f"{fusion[f'start_{kind}weight']:g})"
        for kind, other in sums
    ]
    return f"sums: {'; '.join(of_each)}; z-scores within a query; {chosen}"


def print_systems(
    title: str, found: Mapping[str, Mapping[str, Estimate]], tests: Sequence[Difference]
) -> None:
    """Print systems by metrics with intervals, and what the tests say."""
    console = new_console(130)
    measured = {metric for row in found.values() for metric in row}
    for measures in (WIDER, ELO_MEASURES):
        if not (shown := [metric for metric in measures if metric in measured]):
            continue
        table = new_table(title)
        for metric in shown:
            table.add_column(metric, justify="right", no_wrap=True)
        for system, row in found.items():
            if shown[0] in row:
                table.add_row(label(system), *(cell(row[metric]) for metric in shown))
        console.print(table)
    for test in tests:
        if test.metric in TESTED:
            console.print(
                f"{test.metric}, {test.system} against {label(test.baseline)}: "
                f"{test.difference:+.3f} [{test.low:+.3f}, {test.high:+.3f}], p = "
                f"{test.p_value:.4f}, corrected {test.p_corrected:.4f}: "
                f"{how_sure(test.difference, test.p_corrected)}; {test.wins} "
                f"queries better, {test.losses} worse"
            )
    console.print(
        "(paired randomisation test, corrected by Holm's method; bootstrap intervals over queries)"
    )


def print_evaluation(folder: Path) -> None:
    """Print what `zelo evaluate` wrote into a folder."""
    about = read_json(folder / "evaluation.json")
    tests = [Difference(**row) for row in read_json(folder / "comparisons.json")]
    truth = about.get("truth")
    queries = about["queries"] or truth["queries"]  # without labels, those that have Elos
    split = "" if about["split"] == "all" else f"{about['split']} "
    print_systems(f"{queries} {split}queries, mean and 95 % interval", results(folder), tests)
    if truth:
        print(
            f"Elos of {truth['queries']:,} of {truth['asked']:,} queries, from "
            f"{truth['comparisons']:,} comparisons, {truth['unanswered']:,} of them unanswered"
        )
    agreement = about.get("agreement")
    if agreement and agreement["decided"] and agreement["pairs"]:
        print(
            f"labels and Elos find the same of two systems better in {agreement['of_systems']:.0%} "
            f"of {agreement['pairs']} pairs; query by query in {agreement['of_queries']:.0%} of "
            f"{agreement['decided']:,} verdicts"
        )
    if about["config"]["calibrate"]:
        print_calibration(about["config"]["calibrate"], read_json(folder / "calibration.json"))
    print(f"\n{folder}")


def print_collections(
    metric: str, baseline: str, rows: Sequence[TableRow], verdicts: Sequence[Verdict]
) -> None:
    """Print collections, domains and averages by systems, and what the tests say."""
    table = new_table(f"{metric}, mean and 95 % interval")
    table.add_column("queries", justify="right")
    for system in rows[0].values:
        table.add_column(label(system), justify="right")
    for before, row in zip([None, *rows], rows, strict=False):
        if before is not None and before.kind != row.kind:
            table.add_section()
        cells = [cell(Estimate(*estimate)) for estimate in row.values.values()]
        table.add_row(row.name, f"{row.queries:,}", *cells)
    console = new_console(150)
    console.print(table)
    for v in verdicts:
        console.print(
            f"{label(v.system)} against {label(baseline)}, average of collections: "
            f"{v.difference:+.3f} [{v.low:+.3f}, {v.high:+.3f}], p = {v.p_value:.4f}, corrected "
            f"{v.p_corrected:.4f}: {how_sure(v.difference, v.p_corrected)}; {v.better} collections "
            f"better, {v.worse} worse"
        )
    console.print(
        "(paired randomisation test over queries, each collection counting the same; Holm's method)"
    )


def print_calibration(split: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print what thresholds chosen on `split` do, and how reliable scores are."""
    table = new_table(f"Thresholds chosen on {split} queries")
    columns = ("threshold", f"F1 on {split}", "F1", "precision", "recall", "of at most",
               "kept per query", "calibration error", "AUC", "within queries")  # fmt: skip
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        if "reason" in row:
            continue
        kept, reliable = row["tested"], row["reliability"]
        numbers = (kept["threshold"], row["chosen"]["f1"], kept["f1"], kept["precision"],
                   kept["recall"], kept["recall_possible"], kept["kept_per_query"],
                   reliable["error"], reliable["auc"], reliable["auc_within"])  # fmt: skip
        table.add_row(label(row["system"]), *(f"{number:.3f}" for number in numbers))
    new_console(130).print(table)
    for row in rows:
        if "reason" in row:
            print(f"! {label(row['system'])} cannot be calibrated: {row['reason']}")


def new_table(title: str) -> RichTable:
    """A table of numbers with a first column of names."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False,
                  padding=(0, 0, 0, 1))  # fmt: skip
    table.add_column("", no_wrap=True)
    return table


def new_console(width: int) -> Console:
    """The terminal; in a file or a pipe, where there is no width to fit into, `width` columns."""
    from rich.console import Console

    class Plain(Console):
        """Prints no control characters of a text."""

        def print(self, *objects: Any, **options: Any) -> None:
            super().print(*(shown(o) if isinstance(o, str) else o for o in objects), **options)

    return Plain(width=None if Console().is_terminal else width, markup=False, highlight=False)


def how_sure(difference: float, p_corrected: float) -> str:
    """What may be said of a difference, in one word or few."""
    if p_corrected > SIGNIFICANT:
        return "not sure"
    return "significantly better" if difference > 0 else "significantly worse"


def cell(e: Estimate) -> str:
    """Mean and interval."""
    return f"{e.value:.3f} [{short(e.low)}, {short(e.high)}]"


def short(value: float) -> str:
    """Three decimals without the leading zero, as a table of 80 columns needs it."""
    return f"{value:.3f}".removeprefix("0").replace("1.000", "1.00")


def print_cost(used: Sequence[Used], seconds: float) -> None:
    """Print what each stage took, now or when it ran, and what was asked of the judges."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    print()
    table = Table(title="What it cost", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    columns = ("stage", "seconds", "comparisons", "judgments", "USD", "ran")
    for column in columns:
        table.add_column(column, justify="left" if column in ("stage", "ran") else "right")
    for row in costs(used):
        table.add_row(*(row[column] for column in columns))
    console = new_console(110)
    console.print(table)
    console.print(f"{seconds:.1f} s in all, this time\n")


def costs(used: Sequence[Used]) -> list[dict[str, Any]]:
    """Rows of the cost table, as text."""
    rows = []
    for entry in used:
        if not entry.artifact.complete:
            continue
        record = entry.artifact.record
        counts = record["counts"]
        asked = entry.artifact.stage == "judge"
        rows.append(
            {
                "stage": entry.label,
                "seconds": f"{record['seconds']:.1f}",
                "comparisons": f"{counts['comparisons']:,}" if asked else "",
                "judgments": f"{counts['judgments']:,}" if asked else "",
                "USD": f"{counts['usd']:.2f}" if asked else "",
                "ran": "now" if entry.made else "before",
            }
        )
    return rows
