"""Stage `report`: everything that a run found, on one self-contained page, and the model's card."""

from __future__ import annotations

import base64
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

import zelo
from zelo.artifacts import Table, read_json, read_table, write_text
from zelo.config import describe
from zelo.data.texts import query_texts
from zelo.judging.ensemble import Preferences, average
from zelo.reporting.judges import Panel, matrix, panel
from zelo.reporting.passes import passes
from zelo.reporting.results import comparisons_with_start, label, results
from zelo.retrieval.ranking import candidates_from
from zelo.store import RECORD, stage

if TYPE_CHECKING:
    from zelo.judging.protocol import Judge
    from zelo.pipeline import Run
    from zelo.reporting.plots import Matrix

TEMPLATES = Path(__file__).parent
RATING_MODELS = {"thurstone": "Thurstone", "bradley_terry": "Bradley–Terry"}


LEARNED = ("model", "objective", "training", "trainer", "rating")  # what the card says of the run


@stage(version=4)
def report(
    *,
    out: Path,
    data: Path,
    candidates: Path,
    ratings: Path,
    trained: Path,
    metrics: Path,
    run: Run,
    vote: str,
    **asked: Path,
) -> Mapping[str, Any]:
    """Write `report.html`, its figures as `figures/*.svg`, and the model card `README.md`.

    `vote` is that of the judges whose answers were rated. `asked` has the folders `comparisons` and
    `judgments`, numbered where there were several rounds, and `ensemble_comparisons`,
    `ensemble_judgments` and `pairwise` where a distilled model answered; of several passes also
    what each made (`pass_1_metrics`, ...) and what the ensemble was asked for them.
    """
    from zelo.reporting import plots

    folders = dict.fromkeys([data, candidates, *asked.values(), ratings, trained, metrics])
    records = [read_json(folder / RECORD) for folder in folders]
    counts = {record["stage"]: record["counts"] for record in records}
    for stage_name, key in (("compare", "comparisons"), ("judge", "judgments")):
        rounds = [folder for name, folder in asked.items() if name.startswith(key)]
        counts[stage_name] = summed([read_json(folder / RECORD)["counts"] for folder in rounds])
    said, panels = read_panels(asked)
    preferences = average(said, vote)
    rated = read_table(ratings, "ratings")
    example = matrices_of_one_query(preferences, candidates, ratings)
    found = results(metrics)
    figures: dict[str, str] = {
        "systems": plots.ndcg_by_system(found, "NDCG@10"),
        "elos": plots.elo_distribution(rated["elo"].to_pylist(), rated["stderr"].to_pylist()),
        "loss": plots.loss_curve(read_table(trained, "losses")["loss"].to_pylist()),
    }
    if example:
        figures["matrices"] = plots.preference_matrices(*example[1:])
    (out / "figures").mkdir(exist_ok=True)
    for name, svg in figures.items():
        write_text(out / "figures" / f"{name}.svg", svg)
    content = {
        "run": run,
        "config": json.dumps(describe(run), indent=2, ensure_ascii=False, default=str),
        "learned": json.dumps(
            {name: describe(getattr(run, name)) for name in LEARNED}, indent=2, ensure_ascii=False
        ),
        "counts": counts,
        "records": records,
        "results": found,
        "label": label,
        "compared": comparisons_with_start(metrics),
        "passes": passes(asked, run.evaluation.resamples, run.seed),
        "query": query_texts(data)[example[0]] if example else None,
        "rating_model": RATING_MODELS[run.rating.model],
        "caveats": caveats(counts, records, panels),
        "panels": panels,
        "matrix": matrix,
        "fitted": {row["judge"]: row for row in read_table(ratings, "judges").to_pylist()},
        "modelled": run.rating.joint_judges,
        "judges": [f"{name} ({kind(judge)})" for name, judge in run.judge.judges.items()],
        "start": run.model.weights.path or run.model.weights.name,
        "version": zelo.__version__,
        "python": sys.version.split()[0],
        "figures": {name: data_uri(svg) for name, svg in figures.items()},
    }
    write_text(out / "report.html", render("report.html.j2", content))
    write_text(out / "README.md", render("card.md.j2", content))
    return {}


def read_panels(asked: Mapping[str, Path]) -> tuple[Table, list[Panel]]:
    """The judgments that were rated; and what is said of those who gave them, and of the ensemble
    that a distilled model learned from."""
    folders = [folder for name, folder in asked.items() if name.startswith("judgments")]
    said = pa.concat_tables([read_table(folder, "judgments") for folder in folders])
    if "ensemble_judgments" not in asked:
        return said, [panel("", folders, said)]
    few = asked["ensemble_judgments"]
    ensemble = panel("The ensemble, asked few", [few], read_table(few, "judgments"))
    return said, [ensemble, panel("The model distilled from it, asked many", folders, said)]


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


def matrices_of_one_query(
    preferences: Preferences, candidates: Path, ratings: Path
) -> tuple[str, Matrix, Matrix] | None:
    """The query with the most comparisons: its id, `P(row ≻ column)` before and after sorting.

    Both (n, n), NaN where a pair was not compared. None where nothing was compared.
    """
    if not preferences.query_ids:
        return None
    query_ids, counts = np.unique(np.array(preferences.query_ids, dtype=object), return_counts=True)
    chosen = str(query_ids[counts.argmax()])
    rows = [row for row in read_table(ratings, "ratings").to_pylist() if row["query_id"] == chosen]
    elo = {row["doc_id"]: row["elo"] for row in rows}
    first = [d for d in candidates_from(read_table(candidates, "candidates"))[chosen] if d in elo]
    first += [d for d in elo if d not in first]  # compared, but no candidates: recorded pairs
    place = {doc_id: i for i, doc_id in enumerate(first)}
    matrix = np.full((len(first), len(first)), np.nan)
    for query_id, a, b, p in zip(
        preferences.query_ids, preferences.doc_a, preferences.doc_b, preferences.p, strict=True
    ):
        if query_id == chosen:
            matrix[place[a], place[b]], matrix[place[b], place[a]] = p, 1 - p
    order = sorted(range(len(first)), key=lambda i: -elo[first[i]])
    return chosen, matrix, matrix[np.ix_(order, order)]


def kind(judge: Judge) -> str:
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
    worth_saying = {
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
    environment.filters["exp"] = math.exp
    return environment.get_template(template).render(content)
