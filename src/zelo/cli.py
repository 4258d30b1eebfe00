"""The `zelo` command."""

from __future__ import annotations

import io
import os
import shlex
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import zelo
from zelo.errors import UserError, crashed, of_the_system
from zelo.launch import GOES_ON, composed, run
from zelo.usage import HELP, RATE_HELP


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit: 0 done, 1 a bug, 2 a mistake that the user can mend, 130
    interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal cannot show is no error
            stream.reconfigure(errors="backslashreplace")
    # A batch queue (which may warn before it kills), a terminal that is closed.
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    try:
        try:
            dispatch(words)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # its reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(141)
    except KeyboardInterrupt:
        print(f"\ninterrupted; {NOTHING}", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        print(f"error: {of_the_system(error)}", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        traceback.print_exc()
        print(crashed(error, shlex.join(["zelo", *words])), file=sys.stderr)
        sys.exit(1)


def dispatch(arguments: list[str]) -> None:
    """Run the command that the words name."""
    match arguments:
        case ["run", *rest]:
            sys.exit(run(rest))
        case [
            "plan" | "evaluate" | "audit" | "data" | "compare" | "table" | "reproduce",
            *rest,
        ] if rest and rest[-1] in ("--help", "-h"):
            print(HELP, end="")
        case ["rate", file, *rest] if not file.startswith("-"):
            sys.exit(rate(file, rest))
        case ["rate", *_]:
            print(RATE_HELP, end="")
        case ["plan", *rest]:
            sys.exit(plan(rest))
        case ["evaluate", *rest]:
            sys.exit(evaluate(rest))
        case ["compare", *rest] if any(word.startswith("qrels=") for word in rest):
            sys.exit(compare(rest))
        case ["compare", *rest] if rest and not rest[0].startswith("-"):
            sys.exit(compare_sweeps(rest))
        case ["compare", *_]:
            print(
                "usage: zelo compare SWEEP ... [metric=zelo/NDCG@10,...] [csv=FILE] "
                "[plot=FILE.png]\n       zelo compare RUN RUN ... qrels=FILE [order=rank|score] "
                "[plot=FILE.png]",
                file=sys.stderr,
            )
            sys.exit(2)
        case ["table", *rest] if rest and not rest[0].startswith("-"):
            sys.exit(table(rest))
        case ["table", *_]:
            print(
                "usage: zelo table FOLDER FOLDER ... [baseline=SYSTEM] [metric=NDCG@10] "
                "[csv=FILE]", file=sys.stderr
            )  # fmt: skip
            sys.exit(2)
        case ["rerank", *rest]:
            sys.exit(rerank(rest))
        case ["audit", log, *rest] if not log.startswith("-") and "=" not in log:
            sys.exit(audit(log, rest))
        case ["audit", *_]:
            print("usage: zelo audit LOG.jsonl [judge=OPTION] [KEY=VALUE ...]", file=sys.stderr)
            sys.exit(2)
        case ["data", "describe", *rest]:
            sys.exit(describe_data(rest))
        case ["import" | "export" as command, place, out] if out.startswith("out="):
            sys.exit(convert(command, Path(place), Path(out.removeprefix("out="))))
        case ["import" | "export" as command, *_]:
            print(f"usage: zelo {command} {CONVERT[command]} out=FOLDER", file=sys.stderr)
            sys.exit(2)
        case ["reproduce", place, *rest] if not place.startswith("-") and homes(rest):
            sys.exit(reproduce(Path(place), homes(rest)[0], TRUSTED in rest))
        case ["reproduce", *_]:
            print("usage: zelo reproduce RUN|MANIFEST [home=FOLDER] [trust=true]", file=sys.stderr)
            sys.exit(2)
        case ["inspect", *rest]:
            sys.exit(inspect(rest))
        case ["publish", place, repo, *rest] if repo.startswith("repo=") and rest in PRIVATE:
            sys.exit(publish(Path(place), repo.removeprefix("repo="), PRIVATE.index(rest) < 2))
        case ["publish", *_]:
            usage = "usage: zelo publish RUN|MODEL repo=OWNER/NAME [private=true|false]"
            print(usage, file=sys.stderr)
            sys.exit(2)
        case ["--version"]:
            print(f"zelo {zelo.__version__}")
        case [] | ["--help"] | ["-h"]:
            print(HELP, end="")
        case [unknown, *_]:
            print(f"error: {unknown}: no such command; see zelo --help", file=sys.stderr)
            sys.exit(2)


def exit_status(interrupted: str) -> Callable[[Callable[..., int | None]], Callable[..., int]]:
    """Make a command return its exit status, and say of a mistake or an interruption a line."""

    def decorate(command: Callable[..., int | None]) -> Callable[..., int]:
        @wraps(command)
        def run(*arguments: Any) -> int:
            try:
                return command(*arguments) or 0
            except UserError as error:
                print(f"error: {error}", file=sys.stderr)
                return 2
            except KeyboardInterrupt:
                print(f"\ninterrupted; {interrupted}", file=sys.stderr)
                return 130

        return run

    return decorate


NOTHING = "nothing was written"


@exit_status(NOTHING)
def rate(file: str, overrides: Sequence[str]) -> None:
    """Rate a file of comparisons."""
    from zelo.rating.rate_file import judges_as_text

    out, counts = composed("rate", overrides, file=file).run()
    print_counts(counts)
    print(f"\n{judges_as_text(out)}\n\n{out}/ratings.parquet")


@exit_status(NOTHING)
def plan(overrides: Sequence[str]) -> None:
    """Print what a configuration will ask, cost and take."""
    from zelo.runs.plan import plan as make_plan
    from zelo.runs.show_plan import show

    configured = composed("config", overrides)
    show(configured, make_plan(configured))


@exit_status(GOES_ON)
def evaluate(overrides: Sequence[str]) -> None:
    """Compare rerankers."""
    from zelo.progress import say
    from zelo.reporting.results import print_evaluation

    print_evaluation(composed("evaluate", overrides).run(say))


@exit_status(GOES_ON)
def audit(log: str, overrides: Sequence[str]) -> None:
    """Audit the log of a live system."""
    from zelo.evaluation.audit import show
    from zelo.progress import say

    out, found = composed("audit", overrides, **{"data.path": log}).run(say)
    show(found)
    print(f"\n{out}/audit.json")


@exit_status(NOTHING)
def compare(words: Sequence[str]) -> None:
    """Compare TREC runs."""
    from zelo.evaluation.compare_runs import compare_runs, draw
    from zelo.reporting.results import print_systems

    options, paths = options_and_paths(words, ("qrels=", "plot=", "order="))
    order = options.get("order")
    found, tests, values = compare_runs(paths, Path(options["qrels"]), order=order)
    queries = len(next(iter(values.values())))
    print_systems(f"{queries} queries, mean and 95 % interval", found, tests)
    if "plot" in options:
        draw(values, "NDCG@10", Path(options["plot"]))


@exit_status(NOTHING)
def compare_sweeps(words: Sequence[str]) -> None:
    """Put the runs of sweeps side by side."""
    from zelo.reporting.sweep import (
        MEASURES,
        draw,
        failures,
        print_jobs,
        read_jobs,
        rows,
        write_sweep,
    )

    options, folders = options_and_paths(words, ("metric=", "csv=", "plot="))
    jobs = read_jobs(folders)
    found = rows(jobs, options["metric"].split(",") if "metric" in options else MEASURES)
    print_jobs(found)
    for line in failures(jobs):
        print(f"! left out: {line}")
    if "csv" in options:
        write_sweep(Path(options["csv"]), found)
    if "plot" in options:
        draw(Path(options["plot"]), found)


def options_and_paths(
    words: Sequence[str], options: tuple[str, ...]
) -> tuple[dict[str, str], list[Path]]:
    """What `options` (each with its =) are set to, and the other words as paths."""
    return (
        dict(word.split("=", 1) for word in words if word.startswith(options)),
        [Path(word) for word in words if not word.startswith(options)],
    )


@exit_status(NOTHING)
def table(words: Sequence[str]) -> None:
    """Put what `zelo evaluate` found on several collections together."""
    from zelo.evaluation.macro_average import (
        against_baseline,
        read_evaluations,
        rows,
        unlike,
        write_csv,
    )
    from zelo.reporting.results import print_collections

    options = {"metric": "NDCG@10", "baseline": "", "csv": ""}
    folders = []
    for word in words:
        key, is_option, value = word.partition("=")
        if not is_option or Path(word).is_dir():
            folders.append(Path(word))
        elif key in options:
            options[key] = value
        else:
            raise UserError(f"{key}: no such option; there are metric, baseline and csv")
    if not folders:
        raise UserError("table: name at least one folder of zelo evaluate")
    evaluated = read_evaluations(folders, options["metric"])
    baseline = options["baseline"] or evaluated[0].how["first_stage"]
    found = rows(evaluated)
    print_collections(options["metric"], baseline, found, against_baseline(evaluated, baseline))
    for line in unlike(evaluated):
        print(f"! {line}")
    if options["csv"]:
        write_csv(Path(options["csv"]), found)


@exit_status(NOTHING)
def rerank(words: Sequence[str]) -> None:
    """Order the documents of a file."""
    import argparse
    import json

    parser = argparse.ArgumentParser(
        "zelo rerank", description="Order documents by a model; ranked JSON lines come out."
    )
    parser.add_argument(
        "--model", type=Path, required=True, help="folder of a reranker or embedding model"
    )
    parser.add_argument("--query", required=True)
    parser.add_argument("--top", type=int, help="so many, the best")
    parser.add_argument("file", help="a document per line, or JSON lines with a text; - for stdin")
    given = parser.parse_args(words)
    from zelo.models.rerank_file import rerank_file

    for row in rerank_file(given.model.expanduser(), given.query, given.file)[: given.top]:
        print(json.dumps(row, ensure_ascii=False))


@exit_status(NOTHING)
def describe_data(overrides: Sequence[str]) -> None:
    """Print what a collection holds."""
    from zelo.data.describe import describe, show

    show(describe(composed("config", overrides).data))


CONVERT = {"import": "FILE|FOLDER", "export": "RUN"}


@exit_status(NOTHING)
def convert(command: str, place: Path, out: Path) -> None:
    """Read or write zbench's files."""
    from zelo.data.zbench import export_zbench, import_zbench
    from zelo.finished_run import FinishedRun

    if command == "import":
        counts = import_zbench(place, out)
    else:
        run = FinishedRun.at(place)
        folders = run.collection_folder(), run.judgments_folders(), run.ratings_folder()
        counts = export_zbench(*folders, out)
    print_counts(counts)
    for what, data in (("preferences", "annotated"), ("preferences_implied_by_scores", "scored")):
        if counts.get(what):
            stages = "stages=[load,retrieve,compare,judge,rate,train]"
            print(f"\nrate it and train on it:\n  zelo run data={data} data.path={out} {stages}")


TRUSTED = "trust=true"


def homes(words: Sequence[str]) -> list[Path]:
    """Where a reproduction goes: what `home=FOLDER` says, or a folder named by the time; none where
    the words say something else."""
    match [word for word in words if word != TRUSTED]:
        case []:
            return [Path("outputs") / "reproductions" / time.strftime("%Y-%m-%d_%H-%M-%S")]
        case [word] if word.startswith("home="):
            return [Path(word.removeprefix("home=")).expanduser()]
        case _:
            return []


@exit_status("another home=FOLDER begins anew")
def reproduce(place: Path, home: Path, trusted: bool) -> int:
    """Run again what a manifest describes; 0 the same, 1 something differs."""
    from zelo.runs.reproduce import reproduce as again

    found = again(place, home, trusted)
    print("\nthen and now:")
    for line in (*map(str, found.stages), *found.numbers):
        print(f"  {line}")
    for line in found.surroundings:
        print(f"  ! {line}")
    print("the same, bit for bit" if found.same else "not the same")
    return 0 if found.same else 1


@exit_status(NOTHING)
def inspect(words: Sequence[str]) -> None:
    """Print what a run knows of a query."""
    import argparse

    parser = argparse.ArgumentParser(
        "zelo inspect", description="One query's documents, comparisons, and what judges said."
    )
    parser.add_argument("run", type=Path, help="a run folder (outputs/runs/...)")
    parser.add_argument("--query", required=True, help="id of the query")
    parser.add_argument("--documents", type=int, default=20, help="so many, the best; 0: all")
    parser.add_argument(
        "--comparisons", type=int, default=10, help="so many, the most surprising; 0: all"
    )
    given = parser.parse_args(words)
    from zelo.finished_run import FinishedRun
    from zelo.reporting.one_query import one_query, show

    found = one_query(FinishedRun.at(given.run.expanduser()), given.query)
    show(found, given.documents or None, given.comparisons or None)


PRIVATE: list[list[str]] = [[], ["private=true"], ["private=false"]]  # unless said otherwise


@exit_status("the same command uploads what is missing")
def publish(place: Path, repo: str, private: bool) -> None:
    """Upload a model."""
    from zelo.models.publish import publish as upload

    print(upload(place, repo, private))


def print_counts(counts: Mapping[str, int]) -> None:
    """What was counted, a line each."""
    for what, number in counts.items():
        print(f"{number:>12,}  {what.replace('_', ' ')}")
