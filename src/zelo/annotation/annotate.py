"""`zelo annotate`: the page, and what is done with people's answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table as Rows

from zelo.annotation.agreement import as_judge, judgments_of_people, sharpness, with_people
from zelo.annotation.desk import Desk
from zelo.annotation.exchange import keep_answers, rows_of, write_answers
from zelo.annotation.lists import ListDesk
from zelo.annotation.pairs import ids_of
from zelo.annotation.source import AnnotationSource
from zelo.annotation.two_systems import MOST, preference
from zelo.artifacts import read_table
from zelo.errors import UserError
from zelo.judging.person import PREFIX, Person
from zelo.progress import say
from zelo.reporting.results import new_console


def people_in(desk: Desk) -> list[str]:
    """Everybody who answered about pairs of this run."""
    names = [unquote(key.removeprefix(PREFIX)) for key in desk.ledger.judges(PREFIX)]
    return [name for name in names if desk.of(name)]


def open_page(
    source: AnnotationSource, list_size: int | None, host: str, port: int, name: str
) -> None:
    """Serve the page until Ctrl-C: two documents, or lists of `list_size` to be ordered."""
    try:
        from zelo.annotation.server import serve
    except ImportError as error:
        raise UserError(
            f"annotate: package {error.name} is missing; pip install 'zelo[annotate]'"
        ) from None
    with source.desk() if list_size is None else source.list_desk(list_size) as desk:
        if not (desk.lists if isinstance(desk, ListDesk) else desk.pairs):
            alike = f"{' and '.join(source.systems)} order alike"
            why = alike if source.systems else "its judges compared nothing"
            raise UserError(f"{source.place}: {why}")
        serve(desk, host, port, name)


def export_answers(source: AnnotationSource, path: Path) -> None:
    """Write everybody's answers to a file."""
    with source.desk_of_answers() as desk:
        people = people_in(desk)
        say(f"{path}: {write_answers(desk, people, path):,} answers of {len(people)} people")


def import_answers(source: AnnotationSource, path: Path) -> None:
    """Keep the answers of a file."""
    rows = [*rows_of(path)]
    given = [ids_of(row.query_id, row.doc_a, row.doc_b) for row in rows]
    with source.desk_of_answers(given) as desk:
        new, unknown = keep_answers(desk, rows)
    say(f"{path}: {new:,} new answers are kept")
    if unknown:
        say(f"! {unknown:,} answers are about pairs that are not asked about here: left out")


def report(source: AnnotationSource) -> None:
    """Print how judges agree with people."""
    run = source.of_run()
    with source.desk_of_answers() as desk:
        people = people_who_answered(desk, source)
        of_people = judgments_of_people(desk, people)
    people = [as_judge(name) for name in people]
    folders = run.judgments_folders()
    judgments = pa.concat_tables([read_table(folder, "judgments") for folder in folders])
    # People whom the run had among its judges stand there already.
    judges = run.manifest["config"]["judge"]["judges"]
    ours = pa.array([name for name, judge in judges.items() if is_person(judge)], pa.string())
    judgments = judgments.filter(pc.invert(pc.is_in(judgments["judge"], ours)))
    console = new_console(110)
    agreement = Rows(title="Judges beside people, on pairs drawn at random", title_justify="left")
    for title in ("judge", "person", "pairs", "chose alike", "beyond chance (κ)"):
        agreement.add_column(title, justify="right" if title == "pairs" else "left")
    for line in with_people(judgments, of_people, people):
        agreement.add_row(
            line.judge, line.person, str(line.pairs), interval(line.share, "{:.1%}"),
            interval(line.kappa, "{:.2f}"),
        )  # fmt: skip
    console.print(agreement)
    config = run.manifest["config"]["rating"]
    sharp = Rows(
        title="How sharply each tells documents apart (people's mean: 1)", title_justify="left"
    )
    sharp.add_column("judge")
    sharp.add_column("scale")
    for each in sharpness(judgments, of_people, config["model"], config["prior"], people):
        sharp.add_row(each.judge, f"{each.scale:.2f} × or ÷ {each.factor:.2f}")
    console.print(sharp)
    say("a judge far below 1 is one to weigh down: judge.weights.NAME, or rating.joint_judges=true")


def people_who_answered(desk: Desk, source: AnnotationSource) -> list[str]:
    """Everybody's names; `UserError` where there is nobody."""
    if people := people_in(desk):
        return people
    raise UserError(
        f"{source.place}: nobody has compared these documents yet: zelo annotate {source.place}"
    )


def report_between(source: AnnotationSource) -> None:
    """Print which of two systems people find better."""
    systems, pairs = source.systems, source.between()
    with source.desk(pairs) as desk:
        people = people_who_answered(desk, source)
        found = preference(desk.answered(people), pairs)
    say(
        f"{found.answers:,} answers of {len(people)} people where {' and '.join(systems)} "
        f"disagree; in {found.decided:,} one document was better"
    )
    say(f"they side with {systems[0]} in {interval(found.share, '{:.1%}')}")
    if found.settled:
        say(f"people find {systems[found.share[0] < 0.5]} better")
    elif found.decided:
        more = f"more than {MOST:,}" if found.more is None else f"about {max(found.more, 1):,}"
        say(f"not settled: {more} further decided answers would do, if the share stays as it is")


def is_person(judge: Mapping[str, Any]) -> bool:
    """Whether a judge of a run's configuration is a person."""
    return str(judge.get("_target_")) == f"{Person.__module__}.{Person.__name__}"


def interval(values: tuple[float, float, float], form: str) -> str:
    """A number with its interval; – where it is not known."""
    found = [form.format(value) if value == value else "–" for value in values]
    return found[0] if found[1] == "–" else f"{found[0]} [{found[1]}, {found[2]}]"
