"""What each command of `zelo` does with the words that it was given, as `cli.py` read them.

Mistakes are raised as `UserError`; what a command needs is imported when it is called.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

from zelo import launch
from zelo.errors import UserError
from zelo.launch import composed


def run(given: Namespace) -> int:
    """Run a configuration, or a sweep over several."""
    return launch.run(given.overrides)


def rate(given: Namespace) -> None:
    """Rate a file of comparisons."""
    from zelo.rating.rate_file import judges_as_text

    out, counts = composed("rate", given.overrides, file=given.file).run()
    print_counts(counts)
    print(f"\n{judges_as_text(out)}\n\n{out}/ratings.parquet")


def plan(given: Namespace) -> None:
    """Print what a configuration will ask, cost and take."""
    from zelo.runs.plan import plan as make_plan
    from zelo.runs.show_plan import show

    configured = composed("config", given.overrides)
    show(configured, make_plan(configured))


def evaluate(given: Namespace) -> int:
    """Compare rerankers; 2 where a collection of a suite failed."""
    from zelo.evaluation.suites import SuiteWords, evaluate_suite
    from zelo.models.publish import INDEX
    from zelo.progress import say
    from zelo.reporting.results import print_evaluation

    suite = SuiteWords.of(given.overrides)
    if suite is None:
        print_evaluation(composed("evaluate", given.overrides).run(say))
        return 0
    folders, failed = evaluate_suite(suite, composed, say)
    out = folders[0].parent
    show_table(folders, "NDCG@10", "", out / "table.csv")
    print(f"\n{out}; {INDEX} is for the front matter of a model's card")
    for line in failed:
        print(f"! not done: {line}")
    return 2 if failed else 0


def audit(given: Namespace) -> None:
    """Audit the log of a live system."""
    from zelo.evaluation.audit import show
    from zelo.progress import say

    out, found = composed("audit", given.overrides, **{"data.path": given.file}).run(say)
    show(found)
    print(f"\n{out}/audit.json")


def compare(given: Namespace) -> None:
    """Put the runs of sweeps side by side, or TREC runs where there are labels."""
    paths = [Path(path) for path in given.paths]
    if given.qrels is None:
        compare_sweeps(paths, given)
    else:
        compare_trec_runs(paths, given)


def compare_trec_runs(paths: list[Path], given: Namespace) -> None:
    """Compare TREC runs."""
    from zelo.evaluation.compare_runs import compare_runs, draw
    from zelo.reporting.results import print_systems

    found, tests, values = compare_runs(paths, Path(given.qrels), order=given.order)
    queries = len(next(iter(values.values())))
    print_systems(f"{queries} queries, mean and 95 % interval", found, tests)
    if given.plot:
        draw(values, "NDCG@10", Path(given.plot))


def compare_sweeps(folders: list[Path], given: Namespace) -> None:
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

    jobs = read_jobs(folders)
    found = rows(jobs, given.metric.split(",") if given.metric else MEASURES)
    print_jobs(found)
    for line in failures(jobs):
        print(f"! left out: {line}")
    if given.csv:
        write_sweep(Path(given.csv), found)
    if given.plot:
        draw(Path(given.plot), found)


def table(given: Namespace) -> None:
    """Put what `zelo evaluate` found on several collections together."""
    if not given.folders:
        raise UserError("table: name at least one folder of zelo evaluate")
    folders = [Path(folder) for folder in given.folders]
    show_table(folders, given.metric, given.baseline, Path(given.csv) if given.csv else None)


def show_table(folders: Sequence[Path], metric: str, baseline: str, csv: Path | None) -> None:
    """Print evaluations side by side, and write them; no `baseline`: the first stage."""
    from zelo.evaluation.macro_average import (
        against_baseline,
        differences,
        read_evaluations,
        table_rows,
        write_csv,
    )
    from zelo.reporting.results import print_collections

    evaluated = read_evaluations(folders, metric)
    baseline = baseline or evaluated[0].settings["first_stage"]
    found = table_rows(evaluated)
    print_collections(metric, baseline, found, against_baseline(evaluated, baseline))
    for line in differences(evaluated):
        print(f"! {line}")
    if csv is not None:
        write_csv(csv, found)


def rerank(given: Namespace) -> None:
    """Order the documents of a file."""
    import json

    from zelo.models.rerank_file import rerank_file

    rows = rerank_file(
        given.model.expanduser(), given.query, given.file, given.weight, given.instruction
    )
    for row in rows[: given.top]:
        print(json.dumps(row, ensure_ascii=False))


def describe_data(given: Namespace) -> None:
    """Print what a collection holds."""
    from zelo.data.describe import describe, show

    show(describe(composed("config", given.overrides).data))


def import_zbench(given: Namespace) -> None:
    """Read zbench's files as a collection."""
    from zelo.data import zbench

    counts = zbench.import_zbench(given.place, given.out)
    print_counts(counts)
    for what, data in (("preferences", "annotated"), ("preferences_implied_by_scores", "scored")):
        if counts.get(what):
            stages = "stages=[load,retrieve,compare,judge,rate,train]"
            print(
                f"\nrate it and train on it:\n  zelo run data={data} data.path={given.out} {stages}"
            )


def export(given: Namespace) -> None:
    """Write what a run annotated as the files of another tool, or its model for servers."""
    if given.to is not None:
        export_model(given.place.expanduser(), given.out.expanduser(), given.to)
        return
    from zelo.data import training_files, zbench
    from zelo.finished_run import FinishedRun

    run = FinishedRun.at(given.place.expanduser())
    data, ratings, out = run.collection_folder(), run.ratings_folder(), given.out.expanduser()
    form = getattr(given, "as")
    if form == "zbench":
        counts = zbench.export_zbench(data, run.judgments_folders(), ratings, out)
    else:
        counts = training_files.export_training(data, ratings, out, form, given.negatives)
    print_counts(counts)


def export_model(place: Path, out: Path, form: str) -> None:
    """Write a run's model, or that of a model's folder, as inference servers load it."""
    from zelo.models.rerank_file import model_at

    if form == "vllm":
        from zelo.models.sequence_classifier import export_classifier

        found, what = export_classifier(model_at(place), out), "logits of pairs"
    else:
        from zelo.models.graph import export_graph

        found, what = export_graph(model_at(place), form, out), "scores"
    print(
        f"{out}: {found.number} {what} differ by {found.largest:.1e} at most, where they spread by "
        f"{found.spread:.2g}; README.md says how it is served"
    )


def reproduce(given: Namespace) -> int:
    """Run again what a manifest describes; 0 the same, 1 something differs."""
    from zelo.runs.reproduce import reproduce as again

    home = given.home and given.home.expanduser()
    now = time.strftime("%Y-%m-%d_%H-%M-%S")
    found = again(given.run, home or Path("outputs/reproductions") / now, given.trust == "true")
    print("\nthen and now:")
    for line in (*map(str, found.stages), *found.numbers):
        print(f"  {line}")
    for line in found.surroundings:
        print(f"  ! {line}")
    print("the same, bit for bit" if found.same else "not the same")
    return 0 if found.same else 1


def inspect(given: Namespace) -> None:
    """Print what a run knows of a query."""
    from zelo.finished_run import FinishedRun
    from zelo.reporting.one_query import one_query, show

    found = one_query(FinishedRun.at(given.run.expanduser()), given.query)
    show(found, given.documents or None, given.comparisons or None)


def annotate(given: Namespace) -> None:
    """Have people compare documents, or use what they answered."""
    from zelo.annotation import annotate as people
    from zelo.annotation.source import AnnotationSource

    answers = getattr(given, "import")
    if sum(map(bool, (given.report, given.export, answers))) > 1:
        raise UserError("annotate: one of --report, export=FILE and import=FILE at a time")
    systems = [name.strip() for name in given.between.split(",")] if given.between else []
    if systems and not (len(systems) == len(set(systems)) == 2 and all(systems)):
        raise UserError(f"between={given.between}: two systems are needed, A,B")
    if systems and given.list is not None:
        raise UserError("annotate: one of between=A,B and list=N; systems differ in pairs")
    if given.list is not None and not 3 <= given.list <= 20:
        raise UserError(f"list={given.list}: 3 to 20 documents")
    home = given.home.expanduser()
    source = AnnotationSource.at(given.place.expanduser(), systems, home, given.order)
    if given.report:
        (people.report_between if systems else people.report)(source)
    elif given.export is not None:
        people.export_answers(source, given.export.expanduser())
    elif answers is not None:
        people.import_answers(source, answers.expanduser())
    else:
        people.open_page(source, given.list, given.host, given.port, given.name)


def serve(given: Namespace) -> None:
    """Serve a model behind the routes that clients know."""
    try:
        from zelo.serving.server import Limits
        from zelo.serving.server import serve as serve_model
    except ImportError as error:
        raise UserError(
            f"serve: package {error.name} is missing; pip install 'zelo[serve]'"
        ) from None
    from zelo.judging.endpoint import secret
    from zelo.models.rerank_file import model_at

    limits = Limits(given.at_once, given.documents, given.waiting)
    if min(given.at_once, given.documents, given.waiting) < 1:
        raise UserError("serve: at_once, documents and waiting are numbers from 1 on")
    key = secret(given.key_variable, "serve") if given.key_variable else ""
    folder = model_at(given.model.expanduser())
    serve_model(folder, given.host, given.port, limits, key)


def clean(given: Namespace) -> None:
    """Show which embeddings are kept, or remove them."""
    from zelo.models.embedding_store import remove, sizes

    home = given.home.expanduser()
    found = sizes(home)
    for shelf in found:
        day = time.strftime("%Y-%m-%d", time.localtime(shelf.used))
        about = shelf.about
        print(
            f"{shelf.size / 2**20:>10,.1f} MiB {shelf.texts:>11,} texts  used {day}  "
            f"{about['model']}, {about['task']}, {about['max_length']} tokens"
        )
    total = sum(shelf.size for shelf in found) / 2**20
    if given.remove == "true":
        remove(home)
        print(f"removed: {total:,.1f} MiB of embeddings below {home}")
    else:
        print(
            f"{total:>10,.1f} MiB of embeddings below {home}; zelo clean remove=true removes them"
        )


def publish(given: Namespace) -> None:
    """Upload a model."""
    from zelo.models.publish import publish as upload

    results = given.results and given.results.expanduser()
    print(upload(given.place, given.repo, given.private == "true", results))


def print_counts(counts: Mapping[str, int]) -> None:
    """What was counted, a line each."""
    for what, number in counts.items():
        print(f"{number:>12,}  {what.replace('_', ' ')}")
