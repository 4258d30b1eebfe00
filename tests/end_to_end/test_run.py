"""Whole commands, in processes of their own, as a user runs them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import ir_measures
import pytest
from tests.conftest import Cli, small

from zelo.artifacts import read_table

STAGES = ["load", "retrieve", "compare", "judge", "rate", "train", "fuse", "evaluate", "report"]


def run_folder(
    cli: Cli, tmp_path: Path, *arguments: str
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    done = cli("run", *arguments)
    assert done.returncode == 0, done.stderr
    return tmp_path / "work" / re.findall(r"run folder\s+(\S+)", done.stdout)[0], done


def test_the_quickstart(cli: Cli, tmp_path: Path, toy: list[str]) -> None:
    search = "evaluation.search_at_most=60"
    folder, done = run_folder(cli, tmp_path, "experiment=quickstart", *toy, search)
    for word in (
        "BM25",
        "dense",
        "hybrid",
        "starting model",
        "zELO-trained",
        "trained + hybrid",
        "trained search+BM25",
        "was not held against the starting one: no query was held out",
        "sums: 0.5 of the model, 0.5 of hybrid",
        "NDCG@10",
        "Recall@100",
    ):
        assert word in done.stdout
    assert re.search(
        r"NDCG@10, trained against starting model: [+-]0\.\d+ \[.*\], p = [01]\.\d+", done.stdout
    )
    assert "Traceback" not in done.stderr
    assert "Loading weights" not in done.stderr

    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "done"
    assert [stage["stage"] for stage in manifest["stages"]] == STAGES
    assert all(stage["made_by_this_run"] for stage in manifest["stages"])
    assert (
        manifest["stages"][3]["counts"]["judgments"]
        == 3 * manifest["stages"][2]["counts"]["comparisons"]
    )
    assert manifest["packages"]["torch"]
    assert manifest["config"]["data"]["documents"] == 60
    assert "<svg" not in (folder / "report.html").read_text()  # pictures are images, not markup
    assert (folder / "model" / "README.md").is_file()
    assert json.loads((folder / "model" / "fusion.json").read_text())["weight"] == 0.5
    assert (folder / "logs" / "train" / "metrics.csv").is_file()

    from sentence_transformers import SentenceTransformer

    assert SentenceTransformer(str(folder / "model")).encode(["a"]).shape == (1, 32)

    # The metrics in the table are those that the run file and the labels give.
    store = tmp_path / "work" / "outputs" / "store"
    data = next((store / "load").glob("*/"))
    queries = read_table(data, "queries").to_pylist()
    tested = {row["query_id"] for row in queries if row["split"] == "test"}
    qrels = {
        row["query_id"].replace(" ", "%20"): {row["doc_id"]: row["relevance"]}
        for row in read_table(data, "qrels").to_pylist()
        if row["query_id"] in tested
    }
    run = list(ir_measures.read_trec_run(str(folder / "runs" / "zelo.trec")))
    expected = ir_measures.calc_aggregate([ir_measures.nDCG @ 10], qrels, run)[
        ir_measures.nDCG @ 10
    ]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["zelo/NDCG@10"] == pytest.approx(expected)

    # Nothing tested was trained on, and no label went into training.
    judged = {
        row["query_id"]
        for row in read_table(next((store / "judge").glob("*/")), "judgments").to_pylist()
    }
    assert judged
    assert not judged & tested

    start = time.monotonic()
    second = cli("run", "experiment=quickstart", *toy, search)
    seconds = time.monotonic() - start
    assert [f"  {stage}: already done" for stage in STAGES] == second.stderr.splitlines()
    assert (
        second.stdout.split("test queries")[1].split("report")[0]
        == done.stdout.split("test queries")[1].split("report")[0]
    )
    assert seconds < 15, "5 s on an idle machine"

    # A part, and a part whose inputs are not there.
    part = cli("run", "experiment=quickstart", *toy, "stages=[rate,train]", "rating.prior=1")
    assert part.returncode == 0, part.stderr
    assert "rate ..." in part.stderr
    assert "evaluate" not in part.stdout
    missing = cli("run", "experiment=quickstart", *toy, "stages=[rate]", "seed=1")
    assert missing.returncode == 2
    assert "error: stage rate needs judge, which has not run" in missing.stderr


def test_a_cross_encoder_with_a_distilled_judge(cli: Cli, tmp_path: Path, toy: list[str]) -> None:
    folder, _ = run_folder(
        cli, tmp_path, "experiment=quickstart_reranker", "distil=on", "sampler=dense", *toy
    )
    manifest = json.loads((folder / "manifest.json").read_text())
    labels = [stage["label"] for stage in manifest["stages"]]
    assert labels[2:7] == [
        "compare (few, for the ensemble)",
        "judge (the ensemble)",
        "distil",
        "compare",
        "judge (the distilled model)",
    ]
    counts = {stage["label"]: stage["counts"] for stage in manifest["stages"]}
    assert counts["judge (the ensemble)"]["comparisons"] == 12
    assert counts["judge (the distilled model)"]["comparisons"] == 12 * 15
    assert counts["judge (the distilled model)"]["judges"] == ["distilled"]

    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(folder / "model"), trust_remote_code=True)
    assert model.predict([("a", "b")]).shape == (1,)
    assert "trust_remote_code=True" in (folder / "model" / "README.md").read_text()


def test_a_training_that_makes_nothing_better_ships_the_start(
    cli: Cli, tmp_path: Path, toy: list[str]
) -> None:
    """What the run prints first, what its page and its card say; the weight needs no label."""
    ruined = [
        "training.optimizer.lr=0.5",
        "training.gradient_clip_val=100",
        "data.train_queries=30",
        "training.validation_fraction=0.5",
        "evaluation.search_at_most=60",
    ]
    folder, done = run_folder(cli, tmp_path, "experiment=quickstart", *toy, *ruined)
    said = "The starting model ships, as training made it not surely better: "
    assert done.stdout.split("this time")[1].strip().startswith(said)
    assert "what ships (the start)" in done.stdout
    assert "trained against starting model" not in done.stdout
    assert "held-out judged queries" in done.stdout
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["zelo/NDCG@10"] == pytest.approx(metrics["start/NDCG@10"])
    assert said in (folder / "report.html").read_text(encoding="utf-8")
    assert said in (folder / "model" / "README.md").read_text(encoding="utf-8")
    fusion = json.loads((folder / "model" / "fusion.json").read_text())
    assert fusion["queries"] >= 10
    # Both models are the start, and what both search for is fused alike.
    assert fusion["search_weight"] == fusion["start_search_weight"]
    assert len(fusion["ndcg_at_10"]["search_weight"]) == 11
    assert f"{fusion['search_weight']:g} of the search" in done.stdout.replace("\n", " ")
    manifest = json.loads((folder / "manifest.json").read_text())
    trained = next(stage for stage in manifest["stages"] if stage["stage"] == "train")
    assert trained["counts"]["shipped"] == "start"
    assert (tmp_path / "work" / trained["path"] / "unproven" / "modules.json").is_file()


def begin(zelo: str, tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [zelo, "run", *arguments],
        cwd=tmp_path / "work",
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        # A suite started in the background ignores interrupts, and its children would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


LONG = ["experiment=quickstart", "training.max_epochs=20", "training.checkpoint_minutes=0.001"]


@pytest.mark.parametrize(
    "sent", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_run_that_is_stopped_in_training_goes_on_from_there(
    cli: Cli,
    zelo_command: str,
    tmp_path: Path,
    toy: list[str],
    undisturbed: Path,
    sent: signal.Signals,
) -> None:
    work = tmp_path / "work"
    process = begin(zelo_command, tmp_path, *toy, *LONG)
    deadline = time.monotonic() + 240
    while not list(work.glob("outputs/store/train/.*.partial/checkpoints/last.ckpt")):
        assert process.poll() is None, "ended before its first checkpoint"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, sent)
    _, stderr = process.communicate(timeout=60)
    if sent == signal.SIGINT:
        assert process.returncode == 130
        assert "interrupted; the same command goes on where it stopped" in stderr
        assert "Traceback" not in stderr
        (manifest,) = work.glob("outputs/runs/*/manifest.json")
        assert json.loads(manifest.read_text())["status"] == "interrupted"
    assert not list(work.glob("outputs/store/train/*/stage.json"))
    resumed, done = run_folder(cli, tmp_path, *toy, *LONG)
    assert "judge: already done" in done.stderr
    assert "train: going on where it stopped" in done.stderr
    (whole,) = undisturbed.glob("runs/*/metrics.json")
    assert json.loads((resumed / "metrics.json").read_text()) == json.loads(whole.read_text())
    homes = (undisturbed, work / "outputs")
    losses = [read_table(next(home.glob("store/train/*/")), "losses") for home in homes]
    assert losses[0].num_rows == 60
    assert losses[0].equals(losses[1])


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, zelo_command: str
) -> Path:
    """Home of a long run that nobody stopped."""
    home = tmp_path_factory.mktemp("undisturbed")
    subprocess.run([zelo_command, "run", *small(tiny_model), *LONG, f"home={home}"], check=True)
    return home


@pytest.mark.parametrize(("retriever", "lonely"), [("bm25", 3), ("hybrid", 0)])
def test_a_users_own_collection(
    cli: Cli, tmp_path: Path, tiny_model: Path, beir_folder: Path, retriever: str, lonely: int
) -> None:
    """With what real collections hold: nothing, a megabyte, every alphabet, and lonely queries."""
    with (beir_folder / "corpus.jsonl").open("a", encoding="utf-8") as file:
        for doc_id, text in (
            ("empty", ""),
            ("long", "storms theory " * 70_000),
            ("日本 語", "東京 größer 🐍 history"),
        ):
            file.write(json.dumps({"_id": doc_id, "text": text}) + "\n")
    with (beir_folder / "queries.jsonl").open("a", encoding="utf-8") as file:
        for query_id, text in (("no candidate", "zzzz"), ("one candidate", "東京"), ("blank", " ")):
            file.write(json.dumps({"_id": query_id, "text": text}) + "\n")
    folder, done = run_folder(
        cli, tmp_path, "data=beir", f"data.path={beir_folder}", f"pretrained.path={tiny_model}",
        f"retriever={retriever}", "top_k=8", "model.max_length=32",
    )  # fmt: skip
    manifest = json.loads((folder / "manifest.json").read_text())
    counts = {stage["stage"]: stage["counts"] for stage in manifest["stages"]}
    assert counts["compare"]["queries_too_few_candidates"] == lonely
    assert counts["train"]["queries"] == 11 - lonely
    page = (folder / "report.html").read_text()
    assert ("3 training queries have too few candidates" in page) == (lonely == 3)
    assert ("3 queries too few candidates" in done.stderr) == (lonely == 3)


def test_a_dear_judge_is_asked_where_a_cheap_one_is_unsure(
    cli: Cli, tmp_path: Path, toy: list[str]
) -> None:
    options = ["sampler=informative", "sampler.comparisons=12", "sampler.random_share=0"]
    options += ["sampler.rounds=3", "sampler.top=2", "+judge.from_round.meaning=3"]
    folder, _ = run_folder(cli, tmp_path, "experiment=quickstart", *toy, *options)
    manifest = json.loads((folder / "manifest.json").read_text())
    stages = {stage["label"]: stage for stage in manifest["stages"]}
    for number, expected in ((1, 2), (2, 2), (3, 3)):
        counts = stages[f"judge, round {number}"]["counts"]
        assert len(counts["judges"]) == expected
        asked = stages[f"compare, round {number}"]["counts"]["comparisons"]
        assert counts["judgments"] == expected * asked
    never = cli("run", "experiment=quickstart", *toy, "+judge.from_round.meaning=2")
    assert never.returncode == 2
    assert "it is never asked: the sampler has 1 round; choose one" in never.stderr
    nobody = cli("run", "judge=graded", "+judge.from_round.first=2", "+judge.from_round.none=2")
    assert "from_round: no judge is called 'none'" in nobody.stderr


def test_a_sampler_that_learns_from_the_answers(cli: Cli, tmp_path: Path, toy: list[str]) -> None:
    """Judges are asked in rounds; a second run asks for nothing, and the report counts all."""
    options = ["sampler=informative", "sampler.comparisons=12", "sampler.random_share=0"]
    options += ["sampler.rounds=3", "sampler.top=2", "rating.joint_judges=true", "rating.prior=0.1"]
    folder, _ = run_folder(cli, tmp_path, "experiment=quickstart", *options, *toy)
    manifest = json.loads((folder / "manifest.json").read_text())
    stages = {stage["label"]: stage for stage in manifest["stages"]}
    rounds = [stages[f"compare, round {k}"]["counts"]["comparisons"] for k in (1, 2, 3)]
    queries = stages["compare, round 1"]["counts"]["queries"]
    assert sum(rounds) == 12 * queries
    assert rounds[1] == rounds[2] > 0
    work = tmp_path / "work"
    asked = {
        (row["query_id"], frozenset((row["doc_a"], row["doc_b"])))
        for k in (1, 2, 3)
        for row in read_table(
            work / stages[f"compare, round {k}"]["path"], "comparisons"
        ).to_pylist()
    }
    assert len(asked) == sum(rounds)
    assert stages["rate"]["counts"]["comparisons"] == 3 * sum(rounds)  # each judge on its own
    judges = read_table(work / stages["rate"]["path"], "judges").to_pylist()
    assert [row["judge"] for row in judges] == ["words", "characters", "meaning"]
    assert all(abs(row["bias"]) < 0.3 for row in judges)
    assert f"{3 * sum(rounds):,} judgments of {sum(rounds):,} comparisons" in (
        folder / "report.html"
    ).read_text(encoding="utf-8")
    again = cli("run", "experiment=quickstart", *options, *toy)
    assert again.returncode == 0
    assert all(line.endswith("already done") for line in again.stderr.splitlines())
