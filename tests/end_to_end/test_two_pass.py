"""The paper's two passes, as a user runs them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.conftest import Cli, append
from tests.end_to_end.test_run import run_folder

from zelo.artifacts import read_table


def test_two_passes_on_the_built_in_data(cli: Cli, tmp_path: Path, toy: list[str]) -> None:
    options = ("experiment=two_pass", *toy, "refine.sample_queries=5", "refine.sample_depth=4")
    folder, done = run_folder(cli, tmp_path, *options, "refine.threshold=1")
    stages = json.loads((folder / "manifest.json").read_text())["stages"]
    one_pass = ["compare", "judge", "rate", "train", "fuse", "evaluate", "judge", "assess"]
    assert [stage["stage"] for stage in stages] == [
        *("load", "retrieve", "compare", "judge", "compare", "judge", "distil"),
        *(*one_pass[:2], "cross", "judge", *one_pass[2:]),  # asked once, used in both passes
        *("refine", "judge", "distil", *one_pass, "report"),
    ]
    counts = {stage["label"]: stage["counts"] for stage in stages}
    failed = counts["refine, pass 1"]["comparisons"]
    assert 0 < failed <= counts["refine, pass 1"]["known_documents"]
    before = counts["distil, pass 1"]["pairs"]
    assert before < counts["distil, pass 2"]["pairs"] <= before + failed  # some were asked before
    assert counts["judge (the ensemble, failures of pass 1)"]["comparisons"] == failed
    assert counts["judge (the ensemble, the sample)"]["comparisons"] == 5 * 6
    assert counts["rate, pass 2"]["cross_comparisons"] == counts["cross"]["comparisons"]
    assert counts["rate, pass 2"]["cross_left_out"] == 0

    # The second pass learned from the first one's failures: a known document, and one that is not.
    paths = {stage["label"]: Path(stage["path"]) for stage in stages}
    work = tmp_path / "work"
    known = {
        (row["query_id"], row["doc_id"])
        for row in read_table(work / paths["load"], "qrels").to_pylist()
    }
    for row in read_table(work / paths["refine, pass 1"], "comparisons").to_pylist():
        assert ((row["query_id"], row["doc_a"]) in known) != (
            (row["query_id"], row["doc_b"]) in known
        )

    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["pass_2/NDCG@10"] == metrics["zelo/NDCG@10"]
    for number in (1, 2):
        assert 0 <= metrics[f"pass_{number}/agreement"] <= 1
        assert metrics[f"pass_{number}/elo_mse"] > 0
    assert "Passes" in done.stdout
    assert re.search(r"NDCG@10, pass 2 against pass 1: [+-]0\.\d+", done.stdout)
    page = (folder / "report.html").read_text()
    assert "<h3>Passes</h3>" in page
    for training in ("train", "train-2", "distil", "distil-2"):  # each pass has a log of its own
        assert (folder / "logs" / training / "metrics.csv").is_file()
    assert f"{metrics['pass_1/elo_mse']:.3f}" in page

    # A model that fails nowhere has nothing to learn: there is no second pass.
    folder, done = run_folder(cli, tmp_path, *options, "refine.threshold=100")
    stages = json.loads((folder / "manifest.json").read_text())["stages"]
    assert [s["label"] for s in stages][-2:] == ["refine, pass 1", "report"]
    assert "Passes" not in done.stdout


def test_two_passes_on_a_folder(
    cli: Cli, tmp_path: Path, tiny_model: Path, beir_folder: Path
) -> None:
    """With labels of what is not there, and a query that is a document, as published sets have."""
    own = {"_id": "q-storms-history", "text": "history of storms"}
    append(beir_folder / "corpus.jsonl", json.dumps(own))
    append(
        beir_folder / "qrels" / "train.tsv",
        "q-apples-history\tgone\t3",
        "q-rivers-history\tlost\t3",
        "q-storms-history\tq-storms-history\t3",
        "nobody\td0-apples\t1",
    )
    append(beir_folder / "qrels" / "test.tsv", "q-apples-theory\tgone\t2")
    folder, done = run_folder(
        cli, tmp_path, "experiment=two_pass", "data=beir", "judge=graded",
        f"data.path={beir_folder}", f"pretrained.path={tiny_model}", "top_k=10", "depth=6",
        "training.docs_per_query=6", "training.frozen_layers=0", "evaluation.resamples=500",
        "refine.threshold=1",
        "refine.sample_queries=5", "refine.sample_depth=4",
    )  # fmt: skip
    stages = json.loads((folder / "manifest.json").read_text())["stages"]
    assert [s["label"] for s in stages if s["stage"] == "train"] == [
        "train, pass 1", "train, pass 2",
    ]  # fmt: skip
    by_label = {stage["label"]: stage for stage in stages}
    assert "judge (the ensemble, failures of pass 1)" in by_label
    counts = {label: stage["counts"] for label, stage in by_label.items()}
    assert counts["load"]["labels_of_unknown_documents"] == 3
    assert counts["load"]["labels_of_unknown_queries"] == 1
    assert counts["load"]["queries_that_are_documents"] == 1
    assert done.stderr.count("1 queries are documents too, the first 'q-storms-history'") == 1
    # Known are the best documents of those that are there, and not a query's own text.
    assert counts["refine, pass 1"]["queries_with_labels"] == 8
    assert counts["refine, pass 1"]["known_documents"] == 8
    for stage in stages:
        made = tmp_path / "work" / stage["path"]
        if (made / "comparisons.parquet").is_file():
            for row in read_table(made, "comparisons").to_pylist():
                assert row["query_id"] not in (row["doc_a"], row["doc_b"])
    assert "3 labels name documents that are not there" in (folder / "report.html").read_text()
    shown = cli("inspect", str(folder), "--query", "q-apples-theory").stdout
    assert "labelled 2: gone, which is not among the candidates" in shown
    # What is exported is what the last ratings were made from, not all that was ever asked.
    exported = cli("export", str(folder), f"out={tmp_path / 'zbench'}")
    assert exported.returncode == 0, exported.stderr
    pairs = json.loads((tmp_path / "zbench" / "ai_scores.json").read_text())["scored_pairs"]
    asked = by_label["judge (the distilled model), pass 2"]["counts"]["comparisons"]
    assert len(pairs) == asked
    work = tmp_path / "work"
    rated = read_table(work / by_label["rate, pass 2"]["path"], "ratings").to_pylist()
    lines = (tmp_path / "zbench" / "annotated.jsonl").read_text().splitlines()
    scores = {d["id"]: d["score"] for line in lines for d in json.loads(line)["documents"]}
    assert scores == {row["doc_id"]: row["elo"] for row in rated}
    assert "NDCG@10, pass 2 against pass 1" in done.stdout


def test_what_refinement_needs_is_said(cli: Cli, tmp_path: Path, toy: list[str]) -> None:
    done = cli("run", "experiment=quickstart", "refine=on", *toy)
    assert done.returncode == 2
    assert "it needs distil=on" in done.stderr
