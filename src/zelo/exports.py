"""Files that a user names: tables and figures; a line where they cannot be written."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from zelo.artifacts import replacing
from zelo.errors import UserError


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write `rows` under `header`; `UserError` where `path` cannot be written."""
    try:
        with (
            replacing(path) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            csv.writer(file, lineterminator="\n").writerows([header, *rows])
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure of matplotlib; `UserError` where its kind is unknown or it cannot be."""
    try:
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=150, format=path.suffix.removeprefix(".") or "png")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: the figure cannot be written ({error})") from None
