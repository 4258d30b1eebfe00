"""A run under an instruction: judges are told, the model is told, and what ships says how."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer
from tests.conftest import Cli, write_beir
from tests.judging.endpoint import LEAST, running

from zelo.artifacts import read_table


def test_from_the_judges_to_what_ships(cli: Cli, tmp_path: Path, toy: list[str]) -> None:
    documents = {f"d{i}": f"query document worth={i / 12:.2f}" for i in range(12)}
    queries = {f"q{i}": f"query for document {i}" for i in range(6)}
    write_beir(tmp_path / "own", documents, queries, {"test": [("q0", "d0", 1)]})
    told_by = f'data.instruction="{LEAST}"'
    with running() as endpoint:
        options = [
            "data=beir", f"data.path={tmp_path / 'own'}", "retriever=bm25", toy[0], "depth=4",
            "judge=vllm", "judge.vote=soft", "evaluation.resamples=100", "training.max_epochs=1",
            f"judge.judges.vllm.provider.base_url={endpoint.base_url}",
            told_by, "hydra.run.dir=outputs/runs/told",
            'model.instruction_template="Instruct: {instruction} Query: "',
        ]  # fmt: skip
        done = cli("run", *options)
        assert done.returncode == 0, done.stderr
    store = tmp_path / "work" / "outputs" / "store"
    (judged,) = store.glob("judge/*/stage.json")
    for row in read_table(judged.parent, "judgments").to_pylist():
        a, b = (round(int(row[name][1:]) / 12, 2) for name in ("doc_a", "doc_b"))
        assert row["score"] == pytest.approx((a - b) / 2, abs=0.01)
    folder = tmp_path / "work" / "outputs" / "runs" / "told" / "model"
    model = SentenceTransformer(str(folder))
    assert model.prompts["query"] == f"Instruct: {LEAST} Query: "
    card = (folder / "README.md").read_text()
    assert f"> {LEAST}\n" in card
    assert "The model reads every query under that instruction as it is loaded" in card
    assert 'prompt = "Instruct: {instruction} Query: ".replace(' in card
    (evaluated,) = store.glob("evaluate/*/rankings.parquet")
    rows = [
        r for r in read_table(evaluated.parent, "rankings").to_pylist() if r["system"] == "zelo"
    ]
    texts = [documents[row["doc_id"]] for row in rows]
    expected = model.similarity(model.encode_query(queries["q0"]), model.encode_document(texts))[0]
    assert [row["score"] for row in rows] == pytest.approx(expected.tolist(), abs=1e-5)
    (tmp_path / "work" / "file").write_text("".join(f"{text}\n" for text in texts))
    asked = ("rerank", "--model", str(folder), "--query", queries["q0"], "file")
    plain, told, other = (
        [json.loads(line)["score"] for line in cli(*asked, *more).stdout.splitlines()]
        for more in ((), ("--instruction", LEAST), ("--instruction", "another"))
    )
    assert plain == told == pytest.approx([row["score"] for row in rows], abs=1e-5)
    assert other != pytest.approx(plain, abs=1e-5)
    shown = cli("inspect", "outputs/runs/told", "--query", "q1").stdout
    assert f"under the instruction: {LEAST}" in shown
    said = cli("data", "describe", *options[:2], told_by).stdout
    assert "instructions: 1, of 6 queries" in said
    with_more = '{"_id": "q6", "text": "more", "instruction": "another"}\n'
    with (tmp_path / "own" / "queries.jsonl").open("a") as file:
        file.write(with_more)
    refused = cli("run", *options, "distil=on")
    assert refused.returncode == 2
    assert "queries have 2 different ones" in refused.stderr
