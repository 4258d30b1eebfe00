"""Rerankers side by side, on tiny models and against a real endpoint on loopback."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import ir_measures
import pytest
from tests.conftest import Cli, append, write_beir
from tests.judging.endpoint import running

from zelo.artifacts import read_json, read_table
from zelo.data.trec import read_run
from zelo.errors import UserError
from zelo.evaluation.rerankers import EndpointReranker, Pool

QUERIES = {"q1": "apple pie", "q2": "river"}
DOCUMENTS = {"a": "apple", "b": "apple pie recipe", "c": "a river bank"}
POOL = Pool(QUERIES, DOCUMENTS, {"q1": ["a", "b", "c"], "q2": ["c", "a"], "q3": []}, Path())


class Cohere(BaseHTTPRequestHandler):
    """`/rerank` by shared words; what goes wrong first is in `trouble`."""

    trouble: ClassVar[list[tuple[int, str]]] = []
    asked: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append({**body, "path": self.path, "key": self.headers["Authorization"]})
        if self.trouble:
            status, said = self.trouble.pop(0)
            return self.answer(status, said)
        words = set(body["query"].split())
        form = "cohere" if "top_n" in body else "voyage" if "top_k" in body else "tei"
        texts = body["texts" if form == "tei" else "documents"]
        if form == "tei" and len(texts) > 2:
            return self.answer(422, '{"error": "batch size 3 > maximum allowed batch size 2"}')
        name = "score" if form == "tei" else "relevance_score"
        rows = [
            {"index": i, name: len(words & set(text.split())) + 0.01 * i}
            for i, text in enumerate(texts)
        ]
        rows.sort(key=lambda row: -row[name])
        match form:
            case "cohere":
                return self.answer(200, json.dumps({"results": rows[: body["top_n"]]}))
            case "voyage":
                found = {"object": "list", "data": rows[: body["top_k"]]}
                return self.answer(200, json.dumps(found))
            case _:
                return self.answer(200, json.dumps(rows))

    def answer(self, status: int, said: str) -> None:
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/stolen")
        self.send_header("Content-Length", str(len(said.encode())))
        self.end_headers()
        self.wfile.write(said.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Cohere)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Cohere.trouble, Cohere.asked = [], []
    yield f"http://127.0.0.1:{server.server_port}/v2"
    server.shutdown()
    server.server_close()


def test_an_endpoint_scores_in_the_order_of_the_candidates(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "secret-key-0123")
    reranker = EndpointReranker(base_url=endpoint, model="m", key_variable="SOME_KEY")
    Cohere.trouble.append((429, "slow down"))
    found = reranker.score(POOL, tmp_path)
    assert found == {"q1": [1.0, 2.01, 0.02], "q2": [1.0, 0.01], "q3": []}
    assert len(Cohere.asked) == 3
    monkeypatch.setenv("SOME_KEY", "secret-key-0123\r\n")  # as a file with Windows line ends has it
    assert Cohere.asked[0]["path"] == "/v2/rerank"
    assert Cohere.asked[0]["key"] == "Bearer secret-key-0123"
    assert {asked["top_n"] for asked in Cohere.asked} == {3, 2}
    again = reranker.score(POOL, tmp_path)
    assert again == found
    assert len(Cohere.asked) == 3  # what was paid for is not asked again
    with (tmp_path / "answers.jsonl").open("a") as file:
        file.write('{"query_id": "q2", "sco')  # as a kill leaves it
    assert reranker.score(POOL, tmp_path) == found


def test_voyage_and_tei_are_spoken(endpoint: str, tmp_path: Path) -> None:
    for form in ("voyage", "tei"):
        (tmp_path / form).mkdir()
    voyage = EndpointReranker(base_url=endpoint, model="m", form="voyage")
    expected = {"q1": [1.0, 2.01, 0.02], "q2": [1.0, 0.01], "q3": []}
    assert voyage.score(POOL, tmp_path / "voyage") == expected
    tei = EndpointReranker(base_url=endpoint, model="m", form="tei", attempts=1)
    with pytest.raises(UserError, match=r"422 .*maximum allowed batch size 2"):
        tei.score(POOL, tmp_path / "tei")
    by_two = EndpointReranker(base_url=endpoint, model="m", form="tei", documents_at_once=2)
    assert by_two.score(POOL, tmp_path / "tei") == {**expected, "q1": [1.0, 2.01, 0.0]}


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ((401, "no such key secret-key-0123"), r"reranker m: query 'q1': 401 no such key \*\*\*"),
        ((200, '{"results": [{"index": 0, "relevance_score": 1}]}'), "not a score for each of 3"),
        ((200, '{"data": []}'), "not a score for each of 3"),
    ],
)
def test_what_an_endpoint_does_wrong_is_said(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    trouble: tuple[int, str], message: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("SOME_KEY", "secret-key-0123")
    reranker = EndpointReranker(
        base_url=endpoint, model="m", key_variable="SOME_KEY", attempts=1, in_flight=1
    )
    Cohere.trouble.append(trouble)
    with pytest.raises(UserError, match=message):
        reranker.score(POOL, tmp_path)


def test_what_came_is_kept_though_one_query_fails(endpoint: str, tmp_path: Path) -> None:
    queries = {f"q{i}": "apple" for i in range(30)}
    pool = Pool(queries, DOCUMENTS, {i: ["a", "b"] for i in queries}, Path())
    Cohere.trouble.append((400, "no"))
    reranker = EndpointReranker(base_url=endpoint, model="m", in_flight=1)
    with pytest.raises(UserError, match="query 'q0': 400 no"):
        reranker.score(pool, tmp_path)
    asked = len(Cohere.asked)
    kept = (tmp_path / "answers.jsonl").read_text().count("\n")
    assert kept == asked - 1  # every answer that came
    assert len(reranker.score(pool, tmp_path)) == 30
    assert len(Cohere.asked) == asked + 30 - kept


def test_a_key_follows_no_redirection(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "secret-key-0123")
    Cohere.trouble.append((302, "elsewhere"))
    reranker = EndpointReranker(base_url=endpoint, model="m", key_variable="SOME_KEY", in_flight=1)
    with pytest.raises(UserError, match="302 elsewhere"):
        reranker.score(POOL, tmp_path)
    assert len([row for row in Cohere.asked if row["path"] != "/v2/rerank"]) == 0


def test_evaluate_and_compare(
    cli: Cli, tmp_path: Path, beir_folder: Path, tiny_model: Path
) -> None:
    arguments = [
        "evaluate",
        "data=beir",
        f"data.path={beir_folder}",
        f"pretrained.path={tiny_model}",
        "reranker=[embedding]",
        "top_k=10",
        "evaluation.resamples=500",
        "out=first",
    ]
    done = cli(*arguments)
    assert done.returncode == 0, done.stderr
    assert "embedding against hybrid (RRF)" in done.stdout
    assert "ideal order" in done.stdout
    folder = tmp_path / "work" / "first"
    metrics = {
        (row["system"], row["metric"]): row["value"]
        for row in read_table(folder, "metrics").to_pylist()
    }
    assert metrics["ceiling", "NDCG@10"] >= metrics["embedding", "NDCG@10"]
    # The same model ranks the same, by whichever way it is asked.
    dense, reranked = (read_run(folder / "runs" / f"{n}.trec") for n in ("dense", "embedding"))
    common = {q: [d for d, _ in dense[q] if d in dict(reranked[q])] for q in reranked}
    assert {q: [d for d, _ in ranked][:3] for q, ranked in reranked.items()} == {
        q: docs[:3] for q, docs in common.items()
    }
    again = cli(*arguments)
    assert "rank (embedding): already done" in again.stderr
    tests = read_json(folder / "comparisons.json")
    (ndcg,) = [test for test in tests if test["metric"] == "NDCG@10"]
    assert ndcg["difference"] == pytest.approx(
        metrics["embedding", "NDCG@10"] - metrics["hybrid", "NDCG@10"]
    )
    runs = ["first/runs/hybrid.trec", "first/runs/embedding.trec"]
    done = cli("compare", *runs, f"qrels={beir_folder}/qrels/test.tsv", "plot=gain.png")
    assert done.returncode == 0, done.stderr
    assert f"embedding against hybrid (RRF): {ndcg['difference']:+.3f}" in done.stdout
    assert (tmp_path / "work" / "gain.png").read_bytes().startswith(b"\x89PNG")
    assert cli("compare", f"qrels={beir_folder}/qrels/test.tsv").returncode == 2
    done = cli("compare", *runs, "qrels=nothing.tsv")
    assert done.returncode == 2
    assert done.stderr == "error: nothing.tsv: not found\n"


def test_labels_of_what_is_not_there_count_as_trec_eval_counts_them(
    cli: Cli, tmp_path: Path, beir_folder: Path
) -> None:
    qrels = beir_folder / "qrels" / "test.tsv"
    append(qrels, "q-apples-theory\tgone\t2", "q-rivers-theory\tlost\t1", "nobody\td0-apples\t1")
    done = cli(
        "evaluate", "data=beir", f"data.path={beir_folder}", "retriever=bm25", "top_k=3",
        "evaluation.resamples=100", "out=out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 labels name 2 documents that are not there, the first 'gone'" in done.stderr
    assert "1 labels are left out: their 1 queries are not in queries.jsonl" in done.stderr
    out = tmp_path / "work" / "out"
    labels = [line.split("\t") for line in qrels.read_text().splitlines()[1:]]
    grades: dict[str, dict[str, int]] = {}
    for query_id, doc_id, grade in labels:
        grades.setdefault(query_id, {})[doc_id] = int(grade)
    run = {q: dict(ranked) for q, ranked in read_run(out / "runs" / "bm25.trec").items()}
    names = {"NDCG@10": ir_measures.nDCG @ 10, "Recall@10": ir_measures.R @ 10}
    theirs = {
        (row.query_id, str(row.measure)): row.value
        for row in ir_measures.iter_calc(list(names.values()), grades, run)
        if row.query_id != "nobody"  # who has no text, and no ranking
    }
    ours = {
        (row["query_id"], str(names[row["metric"]])): row["value"]
        for row in read_table(out, "per_query").to_pylist()
        if row["system"] == "bm25" and row["metric"] in names
    }
    assert ours == pytest.approx(theirs, abs=1e-6)
    assert ours["q-apples-theory", "R@10"] < 1
    done = cli(
        "evaluate", "data=beir", f"data.path={beir_folder}", "retriever=bm25", "data.strict=true"
    )
    assert done.returncode == 2
    assert "test.tsv:36: query 'nobody' is not in queries.jsonl" in done.stderr


def test_ranks_and_scores_of_three_fields(cli: Cli, tmp_path: Path) -> None:
    work = tmp_path / "work"
    (work / "qrels").write_text("q 0 a 1\n")
    (work / "ranks.tsv").write_text("q\ta\t1\nq\tb\t2\nq\tc\t3\n")
    (work / "scores.tsv").write_text("q\ta\t0.9\nq\tb\t0.5\nq\tc\t0.1\n")
    done = cli("compare", "ranks.tsv", "scores.tsv", "qrels=qrels")
    assert done.returncode == 0, done.stderr
    assert "scores against ranks: +0.000" in done.stdout
    (work / "gap.tsv").write_text("q\ta\t1\nq\tb\t3\n")
    done = cli("compare", "ranks.tsv", "gap.tsv", "qrels=qrels")
    assert done.returncode == 2
    assert done.stderr == (
        "error: gap.tsv: the last of three fields could be ranks or scores: say order=rank or "
        "order=score\n"
    )
    done = cli("compare", "ranks.tsv", "gap.tsv", "qrels=qrels", "order=rank")
    assert done.returncode == 0, done.stderr
    assert "gap against ranks: +0.000" in done.stdout
    done = cli("compare", "scores.tsv", "gap.tsv", "qrels=qrels", "order=rank")
    assert "scores.tsv:1: the rank must be a whole number, found '0.9'" in done.stderr
    assert "must be rank or score" in cli("compare", "a", "qrels=qrels", "order=x").stderr


def test_only_the_first_are_reranked_and_thresholds_are_chosen_apart(
    cli: Cli, tmp_path: Path, beir_folder: Path, tiny_model: Path
) -> None:
    done = cli(
        "evaluate", "data=beir", f"data.path={beir_folder}", f"pretrained.path={tiny_model}",
        "retriever=dense", "reranker=[embedding]", "top_k=8", "depth=6", "calibrate=train",
        "evaluation.resamples=100", "out=out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "work" / "out"
    first, reranked = (read_run(folder / "runs" / f"{n}.trec") for n in ("dense", "embedding"))
    for query_id, ranked in first.items():
        docs, others = [d for d, _ in ranked], [d for d, _ in reranked[query_id]]
        assert others[6:] == docs[6:]
        assert sorted(others[:6]) == sorted(docs[:6])
    assert {len(docs) for docs in reranked.values()} == {32}
    assert "Thresholds chosen on train queries" in done.stdout
    rows = read_json(folder / "calibration.json")
    assert [row["system"] for row in rows] == ["dense", "embedding"]
    assert rows[1]["reliability"]["pairs"] == 48
    assert rows[1]["best_possible"]["f1"] >= rows[1]["tested"]["f1"]
    assert (folder / "reliability.png").read_bytes().startswith(b"\x89PNG")


def test_rerank_orders_a_file(
    cli: Cli, zelo_command: str, tmp_path: Path, tiny_model: Path
) -> None:
    work = tmp_path / "work"
    (work / "docs.txt").write_text("a river bank\n\napple pie recipe\n")
    (work / "docs.jsonl").write_text(
        '{"id": 7, "title": "T", "text": "a river bank"}\n'
        '{"id": 8, "content": "apple pie", "rank": 9, "score": 99}\n'
    )
    rerank = ["rerank", "--model", str(tiny_model), "--query", "apple pie"]
    done = cli(*rerank, "docs.txt")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["rank"] for row in rows] == [1, 2]
    assert rows[0]["score"] >= rows[1]["score"]
    done = cli(*rerank, "--top", "1", "docs.jsonl")
    (row,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert row["id"] in (7, 8)
    assert row["rank"] == 1
    assert row["score"] < 2
    piped = subprocess.run(
        [zelo_command, *rerank, "-"], input="one\ntwo\n", capture_output=True, text=True, cwd=work
    )
    assert len(piped.stdout.splitlines()) == 2, piped.stderr
    for file, message in (("none", "none: not found"), ("bad.jsonl", "bad.jsonl:1: no field text")):
        (work / "bad.jsonl").write_text('{"id": 1}\n')
        done = cli(*rerank, file)
        assert done.returncode == 2
        assert message in done.stderr


def test_data_describe_says_what_looks_wrong(cli: Cli, tmp_path: Path, beir_folder: Path) -> None:
    with (beir_folder / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "copy", "text": "apples history about apple number 0"}\n')
        file.write('{"_id": "nothing", "text": ""}\n')
    with (beir_folder / "queries.jsonl").open("a") as file:
        file.write('{"_id": "q-again", "text": "History of  apples"}\n')
    done = cli("data", "describe", "data=beir", f"data.path={beir_folder}")
    assert done.returncode == 0, done.stderr
    assert "34" in done.stdout
    assert "! 1 documents are empty" in done.stdout
    assert "! 1 documents are copies of another" in done.stdout
    assert "! 1 queries repeat the text of another" in done.stdout
    assert "labels by grade: 1: 48, 2: 16" in done.stdout


def test_judges_rerank_in_pairs(cli: Cli, tmp_path: Path) -> None:
    """By worth, which the endpoint reads; what is not among the first keeps its place below."""
    documents = {f"d{i}": f"subject worth={i / 4:.2f}" for i in range(12)}
    folder = write_beir(
        tmp_path / "c", documents, {"q": "subject", "none": "zebra"},
        {"test": [("q", "d3", 1), ("none", "d1", 1)]},
    )  # fmt: skip
    with running() as endpoint:
        arguments = [
            "evaluate",
            "data=beir",
            f"data.path={folder}",
            "retriever=bm25",
            "reranker=[pairwise]",
            "rerankers.pairwise.top=8",
            "judge=vllm",
            "judge.vote=soft",
            f"judge.judges.vllm.provider.base_url={endpoint.base_url}",
            "evaluation.resamples=100",
            "out=out",
        ]
        done = cli(*arguments)
        assert done.returncode == 0, done.stderr
        asked = endpoint.counts()["requests"]
        (tmp_path / "work" / "outputs" / "store").rename(tmp_path / "gone")
        assert cli(*arguments).returncode == 0
        assert endpoint.counts()["requests"] == asked > 0  # all of it is in the ledger
    ranked = [doc_id for doc_id, _ in read_run(tmp_path / "work" / "out/runs/pairwise.trec")["q"]]
    assert ranked == [*(f"d{i}" for i in range(7, -1, -1)), "d8", "d9", "d10", "d11"]


def test_a_model_that_scores_no_numbers_ranks_nothing(
    cli: Cli, tmp_path: Path, tiny_model: Path
) -> None:
    """Weights that overflow, or are damaged, give scores that no order can be made of."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    words = AutoTokenizer.from_pretrained(tiny_model)
    model = AutoModel.from_pretrained(tiny_model)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[words.convert_tokens_to_ids("river")] = torch.nan
    shutil.copytree(tiny_model, tmp_path / "model")
    model.save_pretrained(tmp_path / "model")
    file = tmp_path / "documents.txt"
    file.write_text("apple pie\na river bank\nplum jam\n")
    done = cli("rerank", "--model", str(tmp_path / "model"), "--query", "apple", str(file))
    assert done.returncode == 2
    assert done.stdout == ""
    assert "1 scores are no numbers, the first that of 'a river bank'" in done.stderr


def test_a_first_stage_that_finds_nothing_scores_nothing(
    cli: Cli, tmp_path: Path, tiny_model: Path
) -> None:
    """It has no row anywhere, and stands in the table all the same."""
    documents = {f"d{i}": f"text number{i} of things" for i in range(4)}
    folder = write_beir(
        tmp_path / "data",
        documents,
        {"q1": "zebra", "q2": "quokka"},
        {"test": [("q1", "d1", 1), ("q2", "d2", 1)]},
    )
    words = ["data=beir", f"data.path={folder}", f"pretrained.path={tiny_model}",
             "evaluation.resamples=200"]  # fmt: skip
    out = tmp_path / "out"
    done = cli("evaluate", *words, "retriever=bm25", "reranker=[embedding]", f"out={out}")
    assert done.returncode == 0, done.stderr
    found = {(row["system"], row["metric"]): row["value"]
             for row in read_table(out, "metrics").to_pylist()}  # fmt: skip
    assert found["bm25", "NDCG@10"] == found["embedding", "NDCG@10"] == 0
    done = cli("evaluate", *words, "reranker=[]", f"out={out}2")
    assert done.returncode == 0, done.stderr
    rows = read_table(Path(f"{out}2"), "metrics").to_pylist()
    found = {row["system"]: row["queries"] for row in rows if row["metric"] == "NDCG@10"}
    assert found == {"ceiling": 2, "bm25": 2, "dense": 2, "hybrid": 2}
