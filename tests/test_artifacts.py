from __future__ import annotations

import contextlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zelo.artifacts import (
    read_json,
    read_table,
    replacing,
    table,
    write_json,
    write_table,
)
from zelo.errors import UserError

IDS = ["007", "a b", "ü/☃", "1e5", "None"]


def test_ids_come_back_as_they_went_in(tmp_path: Path) -> None:
    write_table(tmp_path, "privileged", table("privileged", doc_id=IDS, text=[""] * 5))
    assert read_table(tmp_path, "privileged")["doc_id"].to_pylist() == IDS


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"n": 1})
    with contextlib.suppress(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert read_json(path) == {"n": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ratings\.parquet: not found"):
        read_table(tmp_path, "ratings")
    (tmp_path / "ratings.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match=r"ratings\.parquet: cannot be read"):
        read_table(tmp_path, "ratings")
    pq.write_table(pa.table({"elo": [1.0]}), tmp_path / "fits.parquet")
    with pytest.raises(UserError, match=r"columns are \['elo'\], expected"):
        read_table(tmp_path, "fits")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(UserError, match=r"x\.json: not JSON"):
        read_json(tmp_path / "x.json")
