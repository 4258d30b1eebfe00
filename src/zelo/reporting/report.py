"""Stage `report`: everything that a run found, on one self-contained page, and the model's card."""

from __future__ import annotations

import base64
import json
import math
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zelo.artifacts import Table, read_json, read_table, write_text
from zelo.config import describe
from zelo.data.collection import title_of
from zelo.data.texts import distinct_instructions, query_instructions, query_texts, relevance_grades
from zelo.evaluation.calibration import Pairs, calibrate
from zelo.evaluation.evaluate import TRAINED
from zelo.models.fusion import FUSION
from zelo.progress import WIDTH, say
from zelo.rating.preferences import average
from zelo.reporting.changes import changes
from zelo.reporting.judges import Panel, ends_of_blocks, in_words, matrix, panel
from zelo.reporting.passes import passes
from zelo.reporting.results import (
    comparisons_with_start,
    differences,
    label,
    results,
    start_ships,
    weight_in_words,
    what_ships,
)
from zelo.retrieval.ranking import rankings_from
from zelo.seeding import stream
from zelo.store import RECORD, stage
from zelo.versions import code_version, package_versions

if TYPE_CHECKING:
    from zelo.judging.base import BaseJudge
    from zelo.run_config import Run

TEMPLATES = Path(__file__).parent
RATING_MODELS = {"thurstone": "Thurstone", "bradley_terry": "Bradley–Terry"}


DEPTH = 10  # documents of a ranking whose scores are calibrated
LEARNED = ("model", "objective", "training", "trainer", "rating")  # what the card says of the run


@stage(version=8)
def report(
    *,
    out: Path,
    data: Path,
    candidates: Path,
    ratings: Path,
    trained: Path,
    fusion: Path,
    run: Run,
    vote: str,
    metrics: Path | None = None,
    overrides: Sequence[str] = (),
    **asked: Path,
) -> Mapping[str, Any]:
    """Write `report.html`, its figures as `figures/*.svg`, and the model card `README.md`.

    Without `metrics` (of a collection that has no labels) the page says nothing of the model's
    quality. `vote` is that of the judges whose answers were rated, `overrides` are the words of the
    command that the page tells how to repeat. `asked` has the folders `comparisons` and
    `judgments`, numbered where there were several rounds, and `ensemble_comparisons`,
    `ensemble_judgments` and `pairwise` where a distilled model answered; of several passes also
    what each made (`pass_1_metrics`, ...) and what the ensemble was asked for them; and `loaded`,
    what `data` was before queries were written.
    """
    from zelo.reporting import figures
    from zelo.reporting.settled import settled

    evaluated = [] if metrics is None else [metrics]
    folders = dict.fromkeys(
        [data, candidates, *asked.values(), ratings, trained, fusion, *evaluated]
    )
    records = [read_json(folder / RECORD) for folder in folders]
    counts = {record["stage"]: record["counts"] for record in records}
    for stage_name, key in (("compare", "comparisons"), ("judge", "judgments")):
        rounds = [folder for name, folder in asked.items() if name.startswith(key)]
        counts[stage_name] = summed([read_json(folder / RECORD)["counts"] for folder in rounds])
    said, panels = read_panels(asked, data)
    for line in (line for found in panels for line in in_words(found)):
        for row in wrap(line, WIDTH - 2, subsequent_indent="  "):
            say(row)
    preferences = average(said, vote)
    rated = read_table(ratings, "ratings")
    example = figures.most_compared(preferences, candidates, ratings)
    # Halves of what orders say of pairs would share the orders.
    ordered = any(found.ordering for found in panels)
    stable = None if ordered else settled(said, vote, run.rating, run.seed)
    named = partial(label, trained=counts["train"])
    calibration: dict[str, Any] = {"reason": "no query has labels"}
    found, drawn = {}, {}
    won: list[Any] = []
    lost: list[Any] = []
    if metrics is not None:
        found = results(metrics)
        calibration = score_calibration(data, metrics, counts["evaluate"]["split"], run.seed)
        won, lost = changes(data, metrics)
        drawn = figures.of_results(metrics, found, calibration, named)
    drawn |= {
        **figures.of_elos(rated, example, stable, RATING_MODELS[run.rating.model]),
        **figures.of_training(trained),
    }
    (out / "figures").mkdir(exist_ok=True)
    for name, svg in drawn.items():
        write_text(out / "figures" / f"{name}.svg", svg)
    slots = ends_of_blocks(ratings)
    of_judges = read_table(ratings, "judges").to_pylist()
    content = {
        "run": run,
        "collection": title_of(run.data),
        "config": json.dumps(describe(run), indent=2, ensure_ascii=False, default=str),
        "learned": json.dumps(
            {name: describe(getattr(run, name)) for name in LEARNED}, indent=2, ensure_ascii=False
        ),
        "counts": counts,
        "instructions": [told for told in distinct_instructions(data) if told],
        "instructed": len(query_instructions(data)),
        "told_all": len(distinct_instructions(data)) == 1,
        "records": records,
        "results": found,
        "label": named,
        "start_ships": start_ships(counts["train"]),
        "differences": [] if metrics is None else differences(metrics),
        "fused": weight_in_words(counts["evaluate"]) if metrics else "",
        "weighed": read_json(fusion / FUSION)["ndcg_at_10"],
        "what_ships": what_ships(counts["train"]),
        "compared": [] if metrics is None else comparisons_with_start(metrics),
        "passes": passes(asked, run.evaluation.resamples, run.seed),
        "won": won,
        "lost": lost,
        "calibration": calibration,
        "calibration_depth": DEPTH,
        "settled": stable,
        "query": query_texts(data)[example.query_id] if example else None,
        "example": example,
        "fits": steps_of_fits(read_table(ratings, "fits")),
        "rating_model": RATING_MODELS[run.rating.model],
        "caveats": caveats(counts, records, panels),
        "panels": panels,
        "matrix": matrix,
        "fitted": {row["judge"]: row for row in of_judges},
        "modelled": any(row["bias"] is not None for row in of_judges),
        "slots": slots,
        "judges": [f"{name} ({kind(judge)})" for name, judge in run.judge.judges.items()],
        "start": run.model.pretrained.path or run.model.pretrained.name,
        "command": shlex.join(["zelo", "run", *overrides]),
        "code": code_version(),
        "packages": package_versions(),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "figures": {name: data_uri(svg) for name, svg in drawn.items()},
    }
    write_text(out / "report.html", render("report.html.j2", content))
    write_text(out / "README.md", render("card.md.j2", content))
    return {}


def read_panels(asked: Mapping[str, Path], data: Path) -> tuple[Table, list[Panel]]:
    """The judgments that were rated; and what is said of those who gave them, and of the ensemble
    that a distilled model learned from."""
    folders = [folder for name, folder in asked.items() if name.startswith("judgments")]
    said = pa.concat_tables([read_table(folder, "judgments") for folder in folders])
    if "ensemble_judgments" not in asked:
        return said, [panel("", folders, said, data)]
    few = asked["ensemble_judgments"]
    ensemble = panel("The ensemble, asked few", [few], read_table(few, "judgments"), data)
    return said, [ensemble, panel("The model distilled from it, asked many", folders, said, data)]


def summed(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts of several rounds of a stage as those of one; what is no number is the first's.

    Shares do not add up: those that the report shows are taken of all rounds' answers.
    """
    total = dict(rounds[0])
    for counts in rounds[1:]:
        for key, value in counts.items():
            if isinstance(value, int | float) and isinstance(total[key], int | float):
                total[key] += value
    return total


def score_calibration(data: Path, metrics: Path, split: str, seed: int) -> dict[str, Any]:
    """How reliable the trained model's scores are across queries: chosen on a random half of the
    evaluated queries and tested on the other, as `calibrate` returns it."""
    wanted = pc.field("system") == TRAINED
    ranking = rankings_from(read_table(metrics, "rankings", wanted)).get(TRAINED, {})
    grades = relevance_grades(data, split)
    order = stream(seed, "report", "halves").permutation(len(ranking))
    ids = sorted(ranking)
    halves = [
        Pairs.of({ids[i]: ranking[ids[i]] for i in half}, grades, DEPTH)
        for half in np.array_split(order, 2)
    ]
    return calibrate(TRAINED, *halves)


def steps_of_fits(fits: Table) -> dict[str, int]:
    """Newton steps of the fits of a run: their median and their most; empty where none was."""
    steps = fits["iterations"].to_numpy()
    return {"iterations": int(np.median(steps)), "most": int(steps.max())} if len(steps) else {}


def kind(judge: BaseJudge) -> str:
    """What a judge is, and what a simulated one sees: `simulated, Grades`."""
    view = getattr(judge, "view", None)
    name = type(judge).__name__.lower()
    return f"{name}, {type(view).__name__}" if view is not None else name


def caveats(
    counts: Mapping[str, Mapping[str, Any]],
    records: Sequence[Mapping[str, Any]],
    panels: Sequence[Panel],
) -> list[str]:
    """What a reader should know before trusting the numbers: counts of what went less than well."""
    loaded = counts.get("load", {})
    worth_saying = {
        "labels name documents that are not there: they count as not found": loaded.get(
            "labels_of_unknown_documents", 0
        ),
        "labels are left out: their queries are not there": loaded.get(
            "labels_of_unknown_queries", 0
        ),
        "queries have no candidate": counts["retrieve"]["queries_without_candidates"],
        "queries have only one candidate": counts["retrieve"]["queries_with_one_candidate"],
        "training queries have too few candidates to compare": counts["compare"][
            "queries_too_few_candidates"
        ],
        "judgments failed": sum(
            record["counts"]["failed"] for record in records if record["stage"] == "judge"
        ),
        "judgments are missing; the same command asks for them": sum(
            record["counts"]["missing"] for record in records if record["stage"] == "judge"
        ),
        "training queries have comparisons that do not connect all their documents": counts["rate"][
            "disconnected_queries"
        ],
        "fits did not converge": counts["rate"]["not_converged"],
        "comparisons across queries are of documents that were not rated": counts["rate"].get(
            "cross_left_out", 0
        ),
    }
    said = [f"{number:,} {what}" for what, number in worth_saying.items() if number]
    down = [
        f"judge {judge} was given up: {why}" for p in panels for judge, why in p.given_up.items()
    ]
    return said + down


def data_uri(svg: str) -> str:
    """An SVG as the address of an image, so that the page needs no other file and no script."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def render(template: str, content: Mapping[str, Any]) -> str:
    """Fill in a template of this folder; in HTML every value is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"exp": math.exp, "zip": zip}
    return environment.get_template(template).render(content)
