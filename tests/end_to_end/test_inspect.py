"""`zelo inspect`: why a document is ranked where it is."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.conftest import Cli
from tests.end_to_end.test_run import run_folder

from zelo.artifacts import read_table


def test_a_query_is_shown_with_what_was_said_of_it(
    cli: Cli, tmp_path: Path, beir_folder: Path
) -> None:
    q, (history, theory, practice) = "q-apples-history", ("d0-apples", "d1-apples", "d2-apples")
    said = [
        {
            "query_id": q,
            "doc_a": history,
            "doc_b": theory,
            "p": 0.9,
            "reasons": "It is\na history.",
        },
        {"query_id": q, "doc_a": practice, "doc_b": history, "p": 0.75},  # against the other two
        {"query_id": q, "doc_a": theory, "doc_b": practice, "p": 0.875},
        {"query_id": q, "doc_a": theory, "doc_b": "d3-apples", "p": None},
    ]
    preferences = tmp_path / "p.jsonl"
    preferences.write_text("".join(json.dumps(row) + "\n" for row in said))
    folder, _ = run_folder(
        cli, tmp_path, "data=beir", f"data.path={beir_folder}", "retriever=bm25", "judge=recorded",
        f"judge.judges.recorded.path={preferences}", "sampler=recorded",
        f"sampler.path={preferences}", "stages=[load,retrieve,compare,judge,rate]",
    )  # fmt: skip
    done = cli("inspect", str(folder), "--query", q)
    assert done.returncode == 0, done.stderr
    assert f"{q} (train): history of apples" in done.stdout
    manifest = json.loads((folder / "manifest.json").read_text())
    paths = {s["stage"]: tmp_path / "work" / s["path"] for s in manifest["stages"]}
    rated = {row["doc_id"]: row for row in read_table(paths["rate"], "ratings").to_pylist()}
    best = max(rated, key=lambda doc_id: rated[doc_id]["elo"])
    assert best == history
    first = next(line for line in done.stdout.splitlines() if history in line)
    elo, error = rated[history]["elo"], rated[history]["stderr"]
    assert re.match(rf"\s*1\s+{re.escape(f'{elo:+.2f} ± {error:.2f}')}\s+\d\s+2\s+", first), first
    # One answer goes against the Elos, of a judge that saw the better document second.
    assert re.search(r"^#1 over #\d   0\.25 \(0\.\d\d\)   recorded 0\.25'$", done.stdout, re.M)
    compared = [line for line in done.stdout.splitlines() if line.startswith("#")]
    shown = [re.findall(r"   (0\.\d\d) \((0\.\d\d)\)", line) for line in compared[:-1]]
    surprises = [abs(float(p) - float(expected)) for [(p, expected)] in shown]
    assert surprises == sorted(surprises, reverse=True)
    assert "  recorded: It is a history." in done.stdout
    assert "recorded failed" in compared[-1]  # no answer, no surprise

    signs = ["data=beir", f"data.path={beir_folder}", "retriever=bm25", "judge=recorded",
             f"judge.judges.recorded.path={preferences}", "sampler=recorded", "judge.vote=sign",
             f"sampler.path={preferences}",
             "stages=[load,retrieve,compare,judge,rate]"]  # fmt: skip
    by_sign, _ = run_folder(cli, tmp_path, *signs)
    counted = cli("inspect", str(by_sign), "--query", q).stdout
    # As it was rated: each answer whole; what the judge said stands beside it.
    assert re.search(r"^#\d over #\d   [01]\.00 \(0\.50\)   recorded 0\.(25|75)'?$", counted, re.M)

    one = cli("inspect", str(folder), "--query", q, "--comparisons", "1", "--documents", "1")
    assert "... and 3 more; --comparisons 0 shows all" in one.stdout
    # A labelled document that the shown ones leave out is named.
    assert re.search(r"labelled 1: #\d, d1-apples", one.stdout)


def test_a_query_that_was_not_compared(cli: Cli, tmp_path: Path, toy: list[str]) -> None:
    folder, _ = run_folder(cli, tmp_path, "experiment=quickstart", *toy)
    manifest = json.loads((folder / "manifest.json").read_text())
    paths = {s["stage"]: tmp_path / "work" / s["path"] for s in manifest["stages"]}
    queries = read_table(paths["load"], "queries").to_pylist()
    test = next(row["query_id"] for row in queries if row["split"] == "test")
    done = cli("inspect", str(folder), "--query", test)
    assert done.returncode == 0, done.stderr
    per_query = read_table(paths["evaluate"], "per_query").to_pylist()
    ndcg = {r["system"]: r["value"] for r in per_query
            if r["query_id"] == test and r["metric"] == "NDCG@10"}  # fmt: skip
    assert f"NDCG@10 of the zELO-trained: {ndcg['zelo']:.3f}" in done.stdout
    assert "were not compared" in done.stdout
    rankings = read_table(paths["evaluate"], "rankings").to_pylist()
    top = next(r["doc_id"] for r in rankings
               if (r["query_id"], r["system"], r["rank"]) == (test, "zelo", 1))  # fmt: skip
    assert re.search(rf"^ *1 .*{re.escape(top[:30])}", done.stdout, re.MULTILINE)

    unknown = cli("inspect", str(folder), "--query", "nowhere")
    assert unknown.returncode == 2
    assert re.match(r"error: nowhere: no such query; there are 26: \S+, ", unknown.stderr)
    no_run = cli("inspect", str(tmp_path), "--query", test)
    assert no_run.returncode == 2
    assert "a run folder is needed" in no_run.stderr
