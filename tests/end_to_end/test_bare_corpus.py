"""From a folder of files to a model: no query, no label."""

from __future__ import annotations

import re
from pathlib import Path

from tests.conftest import Cli, write_model
from tests.judging.endpoint import running
from tests.language_models import write_causal

from zelo.artifacts import read_json, read_table

ANIMALS = ["otter", "heron", "badger", "salmon", "beetle", "viper", "falcon", "lynx"]
PAGE = """# The {0}

The {0} lives along {1} rivers. Its {2} coat keeps it warm in winter, which hunters value.

## Food of the {0}

Most of what the {0} eats is caught at dusk. In {1} valleys it prefers {2} insects and small fish.
"""


def test_a_folder_becomes_a_model(cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    for n, animal in enumerate(ANIMALS):
        words = f"northern{n}", f"brown{n}"
        (folder / f"{animal}.md").write_text(PAGE.format(animal, *words), encoding="utf-8")
    other = write_model(tmp_path / "other", seed=1)
    words = [
        f"data.path={folder}", "data.passage_tokens=40", f"pretrained.path={tiny_model}",
        "experiment=bare_corpus", f"judge.judges.embedding.pretrained.path={tiny_model}",
        "judge.judges.embedding.max_length=64",  # else it would be the start
        f"judge.judges.small_embedding.pretrained.path={other}", "queries.neighbourhood=6",
        "retriever=bm25", "queries.number=12", "top_k=6", "depth=6", "training.docs_per_query=6",
        "hydra.run.dir=run",
    ]  # fmt: skip
    planned = cli("plan", *words[:-1])
    assert planned.returncode == 0, planned.stderr
    assert re.search(r"12 training queries \(12 of them to be written\)", planned.stdout)
    done = cli("run", *words)
    assert done.returncode == 0, done.stderr
    assert "evaluate: left out, since no query has labels" in done.stderr
    assert "12 queries written from" in done.stderr
    run = tmp_path / "work" / "run"
    assert (run / "model" / "config.json").is_file()
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "<h1>zELO on notes</h1>" in page
    assert "(12 written from the documents)" in page
    assert "No query has labels" in page
    card = (run / "model" / "README.md").read_text(encoding="utf-8")
    assert "(12 of them written from its documents)" in card
    assert "It was not evaluated" in card
    assert f"with w = {read_json(run / 'model' / 'fusion.json')['weight']}, where" in card
    stages = {s["stage"]: s for s in read_json(run / "manifest.json")["stages"]}
    assert not stages["evaluate"]["complete"]
    written = read_table(tmp_path / "work" / stages["queries"]["path"], "written").to_pylist()
    assert {row["doc_id"].partition(".md#")[0] for row in written} <= set(ANIMALS)
    assert stages["train"]["counts"]["queries"] <= 12
    chosen = "training: training.frozen_layers=1, training.optimizer.lr=0.0001, by 12 queries and"
    assert f"{chosen} a model of 2 layers" in done.stderr
    assert stages["train"]["counts"]["by_size"] == {"frozen_layers": 1, "optimizer.lr": 1e-4}
    again = cli("run", *words)
    assert again.stderr.count("already done") == len(stages) - 1
    without_recipe = [
        "data=corpus", f"data.path={folder}", f"pretrained.path={tiny_model}", "top_k=6", "depth=6",
        f"judge.judges.embedding.pretrained.path={other}",
        "stages=[load,queries,retrieve,compare,judge]",
    ]  # fmt: skip
    done = cli("run", *without_recipe)
    assert done.returncode == 0, done.stderr
    assert "bm25: P(a ≻ b) = sigmoid(" in done.stderr
    for more, said in (
        (["queries=off", "judge=bm25"], "no query is left to train on: queries=auto or extractive"),
        (["judge=graded"], "no query is left to train on"),
        (["judge=graded", "queries=extractive"],
         "queries: written besides the collection's own, but judge first answers from"),
    ):  # fmt: skip
        few = [word for word in words if not word.startswith(("queries.", "judge", "experiment"))]
        few.append("data=corpus")
        wrong = cli("run", *few, *more)
        assert wrong.returncode == 2
        assert said in wrong.stderr


def test_models_write_queries(cli: Cli, tmp_path: Path) -> None:
    """At an endpoint, which `zelo plan` reckons with and is paid once; and on this machine."""
    folder = tmp_path / "notes"
    folder.mkdir()
    for n, animal in enumerate(ANIMALS):
        text = PAGE.format(animal, f"northern{n}", f"brown{n}")
        (folder / f"{animal}.md").write_text(text, encoding="utf-8")
    (tmp_path / "asked.txt").write_text("what do otters eat\n", encoding="utf-8")
    words = [
        "data=corpus", f"data.path={folder}", "data.passage_tokens=40", "retriever=bm25",
        "queries.filters.most_matches=null", "queries.number=8",
        f"queries.examples={tmp_path / 'asked.txt'}",
    ]  # fmt: skip
    stages = "stages=[load,queries]"
    with running() as endpoint:
        asked = [
            *words, "queries=llm", "judge=vllm",
            f"judge.judges.vllm.provider.base_url={endpoint.base_url}",
        ]  # fmt: skip
        planned = cli("plan", *asked)
        assert planned.returncode == 0, planned.stderr
        assert re.search(r"queries \(Qwen/Qwen3-8B\)\s+4 to 8", planned.stdout), planned.stdout
        done = cli("run", *asked, stages)
        assert done.returncode == 0, done.stderr
        assert "8 queries written from" in done.stderr
        requests = endpoint.counts()["requests"]
        again = cli("run", *asked, stages, "seed=0", "queries.filters.near_duplicates=0.9")
        assert again.returncode == 0, again.stderr
        assert endpoint.counts()["requests"] <= requests + 1
        realistic = [*asked, "queries.filters.realistic=0"]
        planned = cli("plan", *realistic)
        assert re.search(r"realism \(Qwen/Qwen3-8B\)\s+8 to 16", planned.stdout), planned.stdout
        done = cli("run", *realistic, stages)
        assert done.returncode == 0, done.stderr
        assert re.search(r"left out: .*unrealistic \d+", done.stderr), done.stderr
    beside = cli("plan", *words, "queries=llm", "judge@queries.writer.model=openai", "judge=bm25")
    assert re.search(r"queries \(gpt\S+\)\s+4 to 8", beside.stdout), (beside.stdout, beside.stderr)
    nobody = cli("plan", *words, "queries=llm", "judge@queries.writer.model=bm25")
    assert "none of bm25 is asked at an endpoint" in nobody.stderr
    writer = write_causal(tmp_path / "writer", with_template=True)
    done = cli(
        "run", *words, "queries=local", f"queries.writer.pretrained.path={writer}",
        "queries.writer.max_new_tokens=4", "judge=bm25", stages,
    )  # fmt: skip
    assert done.returncode == 2  # what random weights write finds no document
    assert "queries: none could be written from" in done.stderr
    nobody = cli("run", *words, "queries=extractive", "judge=bm25", "queries.filters.realistic=0")
    assert nobody.returncode == 2
    assert "queries.filters.realistic: no judge of this run is asked" in nobody.stderr
