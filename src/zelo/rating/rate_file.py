"""`zelo rate FILE`: comparisons in a Parquet or JSONL file in, Elos out, however large the file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from zelo.artifacts import SCHEMAS, Table, read_table, replacing, write_table
from zelo.config import Component, option
from zelo.data.arrow import is_text, read_json_lines, reading, valid
from zelo.errors import UserError
from zelo.progress import Progress
from zelo.rating.rate import JudgeTally, Rating, rate_encoded
from zelo.rating.tables import OPTIONAL, REQUIRED, encode

IN_MEMORY = 4_000_000  # rows up to which a file is held, and its queries may be in any order
BLOCK = 1_000_000  # rows read at once of a longer one


class RateFile(Component):
    """Rates the comparisons of a file (`conf/rate.yaml`).

    A row is one comparison: `query_id`, `doc_a`, `doc_b`, and `p` in [0, 1], P(a ≻ b), or `score`
    in [−1, 1], −1 for `doc_a`; null means that there is no answer. `weight` and `judge` are read
    where they are given. `doc_a` is the document that was shown first.
    """

    file: Path = option(help="Parquet, or JSON lines (.jsonl, .jsonl.gz)")
    out: Path | None = option(None, "folder for the result; null: beside the file")
    rating: Rating = option(help="how comparisons become Elos")
    vote: str = option(
        "soft", "`sign` counts an answer as 1, ½ or 0; `soft` keeps strengths",
        pattern="^(soft|sign)$",
    )  # fmt: skip

    def run(self) -> tuple[Path, dict[str, int]]:
        """Write `ratings`, `fits` and `judges` as Parquet; the folder, and what was counted."""
        name = re.sub(r"\.(parquet|jsonl(\.gz)?)$", "", self.file.name)
        out = self.out or self.file.with_name(f"{name}.ratings")
        total: dict[str, int] = {}
        tally, last = JudgeTally(), None
        blocks, rows = read(self.file, self.rating.joint_judges)
        progress = Progress(rows, "rating")
        try:
            out.mkdir(parents=True, exist_ok=True)
            with table_writer(out, "ratings") as ratings, table_writer(out, "fits") as fits:
                for first_row, block in blocks:
                    encoded = encode(block, self.vote, str(self.file), first_row)
                    rated = rate_encoded(encoded, self.rating)
                    tally.add(encoded, rated.ratings["elo"].to_numpy())
                    ratings.write_table(rated.ratings)
                    fits.write_table(rated.fits)
                    for key, count in rated.counts.items():
                        total[key] = total.get(key, 0) + count
                    last = (encoded, rated.judges)
                    progress.show(first_row + len(block))
            if last is None:
                raise UserError(f"{self.file}: no comparisons")
        except OSError as error:
            raise UserError(f"{out}: cannot be written ({error.strerror or error})") from None
        finally:
            progress.close()
        write_table(out, "judges", tally.table(*last))
        return out, total


def judges_as_text(folder: Path) -> str:
    """The judges of a rated file, a line each."""
    names = ("judge", "answers", "failed", "ties", "first", "agreement", "bias", "scale")
    lines = [f"{'judge':<24}" + "".join(f"{name:>11}" for name in names[1:])]
    for row in read_table(folder, "judges").to_pylist():
        cells = [f"{row[name]:>11,}" for name in ("answers", "failed", "ties")]
        cells += [f"{row[name]:>11.1%}" for name in ("first", "agreement")]
        cells += ["" if row[name] is None else f"{row[name]:>11.3f}" for name in ("bias", "scale")]
        lines.append(f"{row['judge'][:23]:<24}" + "".join(cells))
    return "\n".join(lines)


@contextmanager
def table_writer(folder: Path, name: str) -> Iterator[Any]:
    """Writer of a Parquet file that takes its place when the block succeeds."""
    with (
        replacing(folder / f"{name}.parquet") as temporary,
        pq.ParquetWriter(temporary, SCHEMAS[name], compression="zstd") as writer,
    ):
        yield writer


def read(path: Path, at_once: bool) -> tuple[Iterator[tuple[int, Table]], int | None]:
    """Tables in which every query is whole, each with the number of its first row; and all rows.

    A file longer than `IN_MEMORY` rows is read in blocks, for which the rows of a query must stand
    together; `at_once` refuses such a file.
    """
    with reading(path):
        texts = (*REQUIRED, "judge")
        if path.name.endswith((".jsonl", ".jsonl.gz")):
            whole = path.stat().st_size
            return iter([(0, read_json_lines(path, texts))] if whole else []), None
        schema = pq.read_schema(path)
        names = [name for name in schema.names if name in (*REQUIRED, *OPTIONAL)]
        valid(schema.empty_table(), path)
        # Ids repeat: as codes of a dictionary they take a tenth of the time and memory.
        ids = [name for name in names if name in texts and is_text(schema.field(name).type)]
        file = pq.ParquetFile(path, read_dictionary=ids)
    rows = file.metadata.num_rows
    if rows <= IN_MEMORY:
        return guarded(((0, file.read(columns=names)) for _ in range(min(rows, 1))), path), rows
    if at_once:
        raise UserError(
            f"{path}: {rows:,} rows; judges are modelled for at most {IN_MEMORY:,}: "
            f"leave out rating.joint_judges, or rate a part of the queries"
        )
    return guarded(whole_queries(file, names, path), path), rows


def guarded(blocks: Iterator[tuple[int, Table]], path: Path) -> Iterator[tuple[int, Table]]:
    """`blocks`, with one line in place of what Arrow says of a damaged file."""
    with reading(path):
        for first_row, block in blocks:
            block.validate(full=True)
            yield first_row, block


def whole_queries(file: Any, names: list[str], path: Path) -> Iterator[tuple[int, Table]]:
    """Blocks that end where a query ends; `UserError` where one comes back later."""
    rest, first_row = None, 0
    seen: set[str] = set()
    for batch in file.iter_batches(BLOCK, columns=names):
        block = pa.Table.from_batches([batch])
        block = block if rest is None else pa.concat_tables([rest, block])
        cut = start_of_last_query(block)
        if cut:
            check_new(block.slice(0, cut), seen, path)
            yield first_row, block.slice(0, cut)
            first_row += cut
        rest = block.slice(cut)
    if rest is not None and len(rest):
        check_new(rest, seen, path)
        yield first_row, rest


def start_of_last_query(block: Table) -> int:
    """Row at which the rows of the last row's query begin."""
    ids, last = block["query_id"], block["query_id"][-1].as_py()
    low, step = len(block), 1024
    while low:
        part = ids.slice(max(low - step, 0), min(step, low)).to_pylist()
        back = next((k for k, value in enumerate(reversed(part)) if value != last), None)
        if back is not None:
            return low - back
        low = max(low - step, 0)
    return 0


def check_new(block: Table, seen: set[str], path: Path) -> None:
    """Note the queries of `block`; `UserError` where one was in an earlier block."""
    ids = block["query_id"].unique().to_pylist()
    again = next((query_id for query_id in ids if query_id in seen), None)
    if again is not None:
        raise UserError(
            f"{path}: the rows of query {again!r} do not stand together, which a file of more than "
            f"{IN_MEMORY:,} rows needs; sort it by query_id"
        )
    seen.update(ids)
