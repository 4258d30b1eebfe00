"""`zelo annotate`: the page, and what is done with people's answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table as Rows

from zelo.annotation.agreement import as_judge, judgments_of_people, sharpness, with_people
from zelo.annotation.desk import Desk
from zelo.annotation.exchange import read_answers, write_answers
from zelo.annotation.pairs import pairs_of
from zelo.artifacts import read_table
from zelo.errors import UserError
from zelo.finished_run import FinishedRun
from zelo.judging.ledger import Ledger
from zelo.judging.person import PREFIX, Person
from zelo.progress import say
from zelo.reporting.results import new_console


@contextmanager
def desk_of(run: FinishedRun) -> Iterator[Desk]:
    """The pairs of a run, with the ledger of its home."""
    config = run.manifest["config"]
    pairs = pairs_of(run)
    with Ledger(Path(config["home"]) / "ledger.sqlite") as ledger:
        yield Desk.of_collection(run.collection_folder(), pairs, ledger)


def people_in(desk: Desk) -> list[str]:
    """Everybody who answered about pairs of this run."""
    names = [unquote(key.removeprefix(PREFIX)) for key in desk.ledger.judges(PREFIX)]
    return [name for name in names if desk.of(name)]


def open_page(run: FinishedRun, host: str, port: int, name: str) -> None:
    """Serve the page until Ctrl-C."""
    try:
        from zelo.annotation.server import serve
    except ImportError as error:
        raise UserError(
            f"annotate: package {error.name} is missing; pip install 'zelo[annotate]'"
        ) from None
    with desk_of(run) as desk:
        if not desk.pairs:
            raise UserError(f"{run.folder}: its judges compared nothing")
        serve(desk, host, port, name)


def export_answers(run: FinishedRun, path: Path) -> None:
    """Write everybody's answers to a file."""
    with desk_of(run) as desk:
        people = people_in(desk)
        say(f"{path}: {write_answers(desk, people, path):,} answers of {len(people)} people")


def import_answers(run: FinishedRun, path: Path) -> None:
    """Keep the answers of a file."""
    with desk_of(run) as desk:
        new, unknown = read_answers(desk, path)
    say(f"{path}: {new:,} new answers are kept")
    if unknown:
        say(f"! {unknown:,} answers are about pairs that this run did not compare: left out")


def report(run: FinishedRun) -> None:
    """Print how judges agree with people."""
    with desk_of(run) as desk:
        people = people_in(desk)
        if not people:
            raise UserError(
                f"{run.folder}: nobody has compared its documents yet: zelo annotate {run.folder}"
            )
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


def is_person(judge: Mapping[str, Any]) -> bool:
    """Whether a judge of a run's configuration is a person."""
    return str(judge.get("_target_")) == f"{Person.__module__}.{Person.__name__}"


def interval(values: tuple[float, float, float], form: str) -> str:
    """A number with its interval; – where it is not known."""
    found = [form.format(value) if value == value else "–" for value in values]
    return found[0] if found[1] == "–" else f"{found[0]} [{found[1]}, {found[2]}]"
