"""zbench's files, both ways; the shapes are those of its `common_types.py`."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Cli, small

from zelo.artifacts import read_table
from zelo.data.zbench import NO_ANSWER, import_zbench
from zelo.errors import UserError
from zelo.judging.recorded import Recorded

JUDGES = ("openai", "gemini", "anthropic")
QUERIES = {f"q{n}": f"question {n} of topic{n}" for n in range(4)}
DOCUMENTS = {q: {f"{q}-d{i}": f"topic{q[1:]} told in way {i}" for i in range(8)} for q in QUERIES}


def dataset_lines(scores: dict[str, dict[str, float]] | None = None) -> list[dict[str, Any]]:
    return [
        {
            "query": {"id": q, "query": text},
            "documents": [
                {"id": d, "content": content, "metadata": {"source": "made up"}}
                | ({"score": scores[q][d]} if scores else {})
                for d, content in DOCUMENTS[q].items()
            ],
        }
        for q, text in QUERIES.items()
    ]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def pair(q: str, a: str, b: str) -> dict[str, Any]:
    side = {
        name: {"document_id": d, "metadata": {}, "content": DOCUMENTS[q][d]}
        for name, d in (("document_a", a), ("document_b", b))
    }
    return {"pair_id": f"{q}-{a}-{b}", "query_id": q, "query": QUERIES[q], **side}


def annotation(folder: Path) -> list[dict[str, Any]]:
    """A working folder of zbench: three judges with opinions, swapped at random as zbench does."""
    folder.mkdir()
    write_lines(folder / "dataset.jsonl", dataset_lines())
    chance = random.Random(0)
    scored = []
    for q, documents in DOCUMENTS.items():
        ids = list(documents)
        for i, a in enumerate(ids):
            for b in (ids[(i + 1) % 8], ids[(i + 3) % 8]):
                entry = {"pair": pair(q, a, b)}
                for judge in JUDGES:
                    gap = int(b[-1]) - int(a[-1])
                    score = max(-1.0, min(1.0, round(-0.3 * gap + chance.gauss(0, 0.1), 2))) or 0.1
                    swapped = "(SWAPPED)\n" if chance.random() < 0.5 else ""
                    thought = f"{swapped}{judge} weighs {a} and {b}"
                    entry[f"{judge}_score"] = {"thought": thought, "score": score}
                scored.append(entry)
    (folder / "ai_scores.json").write_text(json.dumps({"scored_pairs": scored}))
    (folder / "pairs.json").write_text(json.dumps({"pairs": [s["pair"] for s in scored]}))
    return scored


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_what_it_gets_wrong_is_put_right_where_the_file_still_tells(tmp_path: Path) -> None:
    """Failed calls are no votes, "-1" is a score, and positions are those the judge saw."""
    scored = annotation(tmp_path / "zbench")[:1]
    scored[0]["openai_score"] = {"thought": "", "score": 0.0}  # what a failed call leaves
    scored[0]["gemini_score"] = {"thought": "(SWAPPED)\nthe first", "score": 0.75}
    # zbench's pattern does not know "-1": it stores 0 with the whole answer as the thought.
    scored[0]["anthropic_score"] = {
        "thought": "(SWAPPED)\nFirst.\n<score>\n-1\n</score>",
        "score": 0,
    }
    (tmp_path / "zbench" / "ai_scores.json").write_text(json.dumps({"scored_pairs": scored}))
    counts = import_zbench(tmp_path / "zbench", tmp_path / "out")
    assert counts == {"queries": 4, "documents": 32, "preferences": 3, "failed_calls": 1}
    failed, swapped, whole = lines(tmp_path / "out" / "preferences.jsonl")
    a, b = (scored[0]["pair"][d]["document_id"] for d in ("document_a", "document_b"))
    assert (failed["judge"], failed["doc_a"], failed["doc_b"], failed["score"]) == (
        "openai", a, b, None,
    )  # fmt: skip
    assert (swapped["doc_a"], swapped["doc_b"], swapped["score"]) == (b, a, -0.75)
    assert (whole["doc_a"], whole["score"]) == (b, -1.0)


def test_what_export_puts_in_an_empty_place_is_no_answer(tmp_path: Path) -> None:
    scored = annotation(tmp_path / "zbench")[:1]
    scored[0]["openai_score"] = {"thought": NO_ANSWER, "score": 0.3}
    (tmp_path / "zbench" / "ai_scores.json").write_text(json.dumps({"scored_pairs": scored}))
    assert import_zbench(tmp_path / "zbench", tmp_path / "out")["failed_calls"] == 1
    assert lines(tmp_path / "out" / "preferences.jsonl")[0]["score"] is None


def test_a_document_id_may_mean_another_text_for_another_query(tmp_path: Path) -> None:
    rows = [
        {"query": {"id": q, "query": q}, "documents": [{"id": "1", "content": f"of {q}"}]}
        for q in ("x", "y")
    ]
    import_zbench(write_lines(tmp_path / "d.jsonl", rows), tmp_path / "out")
    ids = [row["_id"] for row in lines(tmp_path / "out" / "corpus.jsonl")]
    assert ids == ["x/1", "y/1"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", r"d\.jsonl:2: not JSON"),
        ('{"query": "q", "documents": []}', r"d\.jsonl:2: not a line of zbench"),
        ('{"query": {"id": 1, "query": "x"}, "documents": []}', r":2: ids and texts must be str"),
        (json.dumps(dataset_lines()[0]), r"query id 'q0' occurs more than once"),
        (
            '{"query": {"id": "z", "query": "x"}, '
            '"documents": [{"id": "d", "content": "c", "score": "high"}]}',
            r":2: score of document 'd' must be a finite number, found 'high'",
        ),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, row: str, message: str) -> None:
    path = write_lines(tmp_path / "d.jsonl", dataset_lines()[:1])
    with path.open("a") as file:
        file.write(row + "\n")
    with pytest.raises(UserError, match=message):
        import_zbench(path, tmp_path / "out")


def test_an_annotation_is_rated_and_trained_on_here_and_goes_back(
    cli: Cli, tmp_path: Path, tiny_model: Path
) -> None:
    scored = annotation(tmp_path / "zbench")
    done = cli("import", str(tmp_path / "zbench"), "out=imported")
    assert done.returncode == 0, done.stderr
    assert "192  preferences" in done.stdout
    assert "zelo run data=annotated data.path=imported" in done.stdout
    stages = "stages=[load,retrieve,compare,judge,rate,train]"
    options = [*(o for o in small(tiny_model) if not o.startswith(("data.", "eval"))), "top_k=8"]
    done = cli("run", "data=annotated", "data.path=imported", stages, "retriever=bm25", *options)
    assert done.returncode == 0, done.stderr
    work = tmp_path / "work"
    (run,) = (work / "outputs" / "runs").glob("*/")
    done = cli("export", str(run), "out=exported")
    assert done.returncode == 0, done.stderr
    found = json.loads((work / "exported" / "ai_scores.json").read_text())["scored_pairs"]
    assert len(found) == len(scored) == 64
    back = {tuple(sorted(side(entry).values())): entry for entry in found}
    for entry in scored:
        other = back[tuple(sorted(side(entry).values()))]
        turned = 1 if side(other) == side(entry) else -1
        for judge in JUDGES:
            assert other[f"{judge}_score"]["score"] * turned == entry[f"{judge}_score"]["score"]
            assert (
                other[f"{judge}_score"]["thought"].splitlines()[-1]
                == (entry[f"{judge}_score"]["thought"].splitlines()[-1])
            )
    # What was written can be read again, with the same answers of the same judges.
    import_zbench(work / "exported", tmp_path / "again")
    judged = [
        Recorded(path=folder / "preferences.jsonl", judge="gemini").prepare(Path(), {}, 0).said
        for folder in (work / "imported", tmp_path / "again")
    ]
    assert judged[0] == judged[1]
    annotated = lines(work / "exported" / "annotated.jsonl")
    assert [line["query"] for line in annotated] == [
        {"id": q, "query": text} for q, text in QUERIES.items()
    ]
    for line in annotated:
        elos = {document["id"]: document["score"] for document in line["documents"]}
        ranked = sorted(elos, key=elos.__getitem__)
        assert ranked[0].endswith("d7")  # earlier documents are better, by what the judges said
        assert ranked[-1].endswith("d0")


def side(entry: dict[str, Any]) -> dict[str, str]:
    return {d: entry["pair"][d]["document_id"] for d in ("document_a", "document_b")}


def test_annotated_lines_give_their_elos_back(cli: Cli, tmp_path: Path) -> None:
    chance = random.Random(1)
    elos = {q: {d: chance.gauss(0, 1) for d in documents} for q, documents in DOCUMENTS.items()}
    path = write_lines(tmp_path / "annotated.jsonl", dataset_lines(elos))
    done = cli("import", str(path), "out=imported")
    assert done.returncode == 0, done.stderr
    assert "preferences implied by scores" in done.stdout
    assert "zelo run data=scored data.path=imported" in done.stdout
    stages = "stages=[load,retrieve,compare,judge,rate]"
    done = cli("run", "data=scored", "data.path=imported", stages, "retriever=bm25", "top_k=8")
    assert done.returncode == 0, done.stderr
    (rate,) = (tmp_path / "work" / "outputs" / "store" / "rate").glob("*/")
    rated = read_table(rate, "ratings").to_pylist()
    assert len(rated) == 32
    for q, expected in elos.items():
        mean = sum(expected.values()) / len(expected)
        for row in rated:
            if row["query_id"] == q:
                assert row["elo"] == pytest.approx(expected[row["doc_id"]] - mean, abs=1e-3)
