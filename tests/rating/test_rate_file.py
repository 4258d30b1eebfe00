from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zelo.errors import UserError
from zelo.rating import Comparisons, fit, rate_file, standard_errors
from zelo.rating.rate import Rating
from zelo.rating.rate_file import RateFile

QUERIES, DOCUMENTS, EACH = 7, 6, 20


def rows(seed: int = 0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    out = []
    for q in range(QUERIES):
        for _ in range(EACH):
            a, b = rng.choice(DOCUMENTS, 2, replace=False)
            p = None if rng.random() < 0.1 else float(rng.random())
            judge = "xy"[int(rng.integers(2))]
            out.append(
                {"query_id": f"q{q}", "doc_a": f"d{a}", "doc_b": f"d{b}", "p": p, "judge": judge}
            )
    return out


def write(path: Path, content: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(content), path)
    else:
        text = "".join(json.dumps(row) + "\n" for row in content)
        data = text.encode()
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def ratings(folder: Path) -> dict[tuple[str, str], tuple[float, float]]:
    return {
        (row["query_id"], row["doc_id"]): (row["elo"], row["stderr"])
        for row in pq.read_table(folder / "ratings.parquet").to_pylist()
    }


@pytest.mark.parametrize("name", ["c.parquet", "c.jsonl", "c.jsonl.gz", "run.v2.parquet"])
def test_a_file_is_rated_as_its_comparisons_are(tmp_path: Path, name: str) -> None:
    content = rows()
    out, counts = RateFile(file=write(tmp_path / name, content), rating=Rating()).run()
    assert out == tmp_path / f"{name.split('.parquet')[0].split('.jsonl')[0]}.ratings"
    found = ratings(out)
    assert counts["queries"] == QUERIES
    for q in range(QUERIES):
        mine = [row for row in content if row["query_id"] == f"q{q}" and row["p"] is not None]
        docs = list(dict.fromkeys(d for row in mine for d in (row["doc_a"], row["doc_b"])))
        c = Comparisons(
            [0] * len(mine),
            [docs.index(row["doc_a"]) for row in mine],
            [docs.index(row["doc_b"]) for row in mine],
            [row["p"] for row in mine],
        )
        elo = fit(c).elo
        stderr = standard_errors(c, elo)
        for doc, e, s in zip(docs, elo, stderr, strict=True):
            assert found[f"q{q}", doc] == pytest.approx((e, s), abs=1e-9)
    judges = pq.read_table(out / "judges.parquet").to_pylist()
    assert sum(row["answers"] for row in judges) == counts["comparisons"]
    assert sum(row["answers"] + row["failed"] for row in judges) == len(content)


def test_scores_weights_and_votes(tmp_path: Path) -> None:
    pairs = [("a", "b", -0.4), ("b", "c", -1.0), ("a", "c", 0.0), ("a", "c", 0.2)]
    content = [
        {"query_id": "q", "doc_a": a, "doc_b": b, "score": s, "weight": 2} for a, b, s in pairs
    ]
    path = write(tmp_path / "c.jsonl", content)
    soft, _ = RateFile(file=path, out=tmp_path / "soft", rating=Rating()).run()
    sign, _ = RateFile(file=path, out=tmp_path / "sign", rating=Rating(), vote="sign").run()
    i, j = [0, 1, 0, 0], [1, 2, 2, 2]
    for folder, p in ((soft, [0.7, 1.0, 0.5, 0.4]), (sign, [1.0, 1.0, 0.5, 0.0])):
        elo = fit(Comparisons([0] * 4, i, j, p, [2.0] * 4)).elo
        assert [ratings(folder)["q", d][0] for d in "abc"] == pytest.approx(elo, abs=1e-9)


def test_any_order_and_any_block_give_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = rows(1)
    whole = write(tmp_path / "whole.parquet", content)
    expected = ratings(RateFile(file=whole, rating=Rating()).run()[0])
    shuffled = [content[k] for k in np.random.default_rng(0).permutation(len(content))]
    mixed = ratings(
        RateFile(file=write(tmp_path / "mixed.parquet", shuffled), rating=Rating()).run()[0]
    )
    assert mixed.keys() == expected.keys()
    for key, values in expected.items():
        assert mixed[key] == pytest.approx(values, abs=1e-8)
    monkeypatch.setattr(rate_file, "IN_MEMORY", 10)
    for block in (7, 20, 33, 1000):
        monkeypatch.setattr(rate_file, "BLOCK", block)
        out, counts = RateFile(file=whole, rating=Rating()).run()
        assert counts["queries"] == QUERIES
        assert ratings(out) == expected
        fits = pq.read_table(out / "fits.parquet")["query_id"].to_pylist()
        assert fits == [f"q{q}" for q in range(QUERIES)]
    with pytest.raises(UserError, match=r"query 'q\d' do not stand together.*sort it by query_id"):
        RateFile(file=tmp_path / "mixed.parquet", rating=Rating()).run()
    with pytest.raises(UserError, match="judges are modelled for at most 10"):
        RateFile(file=whole, rating=Rating(joint_judges=True)).run()
    assert sorted(p.name for p in (tmp_path / "mixed.ratings").iterdir()) == [
        "fits.parquet",
        "judges.parquet",
        "ratings.parquet",
    ]


def test_judges_are_modelled_where_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "c.parquet", rows())
    out, _ = RateFile(file=path, rating=Rating(joint_judges=True)).run()
    for row in pq.read_table(out / "judges.parquet").to_pylist():
        assert np.isfinite([row["bias"], row["scale"], row["bias_stderr"]]).all()


GOOD = {"query_id": "q", "doc_a": "a", "doc_b": "b", "p": 0.5}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"p": 1.5}, r"row 1, query 'q': preference is not in \[0, 1\]"),
        ({"doc_b": "a"}, "row 1, query 'q': a document is compared with itself"),
        ({"query_id": None}, "row 1: query_id is empty"),
        ({"p": "yes"}, "c.jsonl: "),
        ({"weight": -1.0}, "row 1, query 'q': weight is not a number of at least 0"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "c.jsonl", [GOOD, {**GOOD, **change}])
    with pytest.raises(UserError, match=message):
        RateFile(file=path, rating=Rating()).run()
    assert not (tmp_path / "c.ratings" / "ratings.parquet").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"query_id": "q", "doc_a": "a", "p": 0.5}], "no column doc_b"),
        ([{"query_id": "q", "doc_a": "a", "doc_b": "b"}], "no column score"),
        ([{**GOOD, "query_id": 3}], "query_id must be text, found int64"),
        ([], "no comparisons"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, content: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        RateFile(file=write(tmp_path / "c.jsonl", content), rating=Rating()).run()


COLUMNS = {"query_id": ["q", "q"], "doc_a": ["x", "y"], "doc_b": ["y", "z"], "p": [0.5, 1.0]}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"doc_a": [1, 2]}, "doc_a must be text, found int64"),
        ({"doc_b": ["x", None]}, "row 1: doc_b is empty"),
        ({"judge": ["x", None]}, "row 1: judge is empty"),
        ({"p": [[1.0], [2.0]]}, "p must be a number, found list"),
        ({"p": [0.5, float("nan")]}, "row 1, query 'q': preference is not in"),
        ({"weight": ["much", "little"]}, "weight must be a number, found string"),
        ({"score": [0.0, 1.0]}, "both p and score are given"),
    ],
)
def test_a_bad_column_is_named(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    path = tmp_path / "c.parquet"
    pq.write_table(pa.table({**COLUMNS, **columns}), path)
    with pytest.raises(UserError, match=message):
        RateFile(file=path, rating=Rating()).run()


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int16(), pa.string())])
def test_text_of_any_kind_is_read(tmp_path: Path, kind: pa.DataType) -> None:
    ids = {name: pa.array(COLUMNS[name]).cast(kind) for name in ("query_id", "doc_a", "doc_b")}
    path = tmp_path / "c.parquet"
    pq.write_table(pa.table({**COLUMNS, **ids}), path)
    out, _ = RateFile(file=path, rating=Rating()).run()
    assert {key[1] for key in ratings(out)} == {"x", "y", "z"}


@pytest.mark.parametrize("damage", ["short", "zeros", "nothing"])
def test_a_damaged_file_is_one_line(tmp_path: Path, damage: str) -> None:
    path = write(tmp_path / "c.parquet", rows())
    raw = path.read_bytes()
    damaged = {"short": raw[:-20], "zeros": raw[:40] + b"\0" * 40 + raw[80:], "nothing": b""}
    path.write_bytes(damaged[damage])
    with pytest.raises(UserError, match=r"c.parquet: (cannot be read|neither Parquet)"):
        RateFile(file=path, rating=Rating()).run()


def test_no_answer_at_all_rates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    pq.write_table(pa.table({**COLUMNS, "p": pa.nulls(2, pa.float64())}), path)
    RateFile(file=path, rating=Rating(joint_judges=True)).run()
    out, counts = RateFile(file=path, rating=Rating()).run()
    assert counts["documents"] == 0
    (fitted,) = pq.read_table(out / "fits.parquet").to_pylist()
    assert (fitted["query_id"], fitted["unanswered"]) == ("q", 2)


def test_the_command(zelo_command: str, tmp_path: Path) -> None:
    def zelo(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [zelo_command, "rate", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    write(tmp_path / "c.parquet", rows())
    done = zelo("c.parquet", "rating=bradley_terry", "rating.prior=0.5", "rating.target=cdf")
    assert done.returncode == 0, done.stderr
    assert "7  queries" in done.stdout
    assert "c.ratings/ratings.parquet" in done.stdout
    target = pq.read_table(tmp_path / "c.ratings" / "ratings.parquet")["target"].to_numpy()
    assert ((target > 0) & (target < 1)).all()
    for arguments, message in (
        (["nothing.parquet"], "nothing.parquet: not found"),
        (
            ["c.parquet", "rating.prior=-1"],
            "rating.prior=-1: input should be greater than or equal to",
        ),
        (["c.parquet", "rating.depth=1"], "rating.depth: no such option"),
        (["c.parquet", "rating=elo"], "elo"),
        (["c.parquet", "out=c.parquet"], "c.parquet"),
    ):
        refused = zelo(*arguments)
        assert refused.returncode == 2, refused.stderr
        assert message in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1
    assert "usage:" in zelo("--help").stdout
