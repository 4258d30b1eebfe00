"""`zelo serve` in a process of its own, by the clients that people have."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
import torch
from openai import AsyncOpenAI, OpenAI
from sentence_transformers import CrossEncoder, SentenceTransformer
from tests.zelo_server import ZeloServer

from zelo.evaluation.rerankers import EndpointReranker, Pool
from zelo.models.cross_encoder import new_cross_encoder, save_cross_encoder
from zelo.serving.batcher import Batcher, FullError

QUERY = "how to sort a list"
DOCUMENTS = ["sorted(list)", "", "größer 東京 \U0001f40d", "def f(x):\n    return x\n" * 50, "x"]


@pytest.fixture(scope="module")
def reranker(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "model"
    torch.manual_seed(0)
    model = new_cross_encoder(tiny_model, "mean")
    model.max_seq_length = 64
    save_cross_encoder(model, folder)
    return folder


class ServedProcess(ZeloServer):
    """`zelo serve` with an address."""

    def __init__(self, zelo: str, model: Path, *words: str, **environment: str) -> None:
        super().__init__(zelo, "serve", str(model), "port=0", *words, **environment)

    def post(self, path: str, content: Any, **headers: str) -> Any:
        """What it answers, or (status, answer) of an error."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        request = urllib.request.Request(
            f"{self.address}{path}", data, {"Content-Type": "application/json", **headers}
        )
        try:
            with urllib.request.urlopen(request) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)


@contextmanager
def served(zelo: str, model: Path, *words: str, **environment: str) -> Iterator[ServedProcess]:
    running = ServedProcess(zelo, model, *words, **environment)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def test_a_reranker_as_cohere_and_jina_have_it(zelo_command: str, reranker: Path) -> None:
    expected = CrossEncoder(str(reranker)).predict([(QUERY, d) for d in DOCUMENTS])
    with served(zelo_command, reranker) as running:
        asked = {"query": QUERY, "documents": DOCUMENTS, "model": "any"}
        found = running.post("/v1/rerank", asked)
        order = [one["index"] for one in found["results"]]
        assert order == np.argsort(-expected, kind="stable").tolist()
        scores = [one["relevance_score"] for one in found["results"]]
        assert scores == pytest.approx(expected[order].tolist(), abs=1e-5)
        two = running.post("/v2/rerank", asked | {"top_n": 2, "return_documents": True})["results"]
        assert [one["document"]["text"] for one in two] == [DOCUMENTS[i] for i in order[:2]]
        objects = [{"text": text} for text in DOCUMENTS]
        assert (
            running.post("/rerank", asked | {"documents": objects})["results"] == found["results"]
        )
        documents = {f"d{i}": d for i, d in enumerate(DOCUMENTS)}
        pool = Pool({"q": QUERY}, documents, {"q": [*documents]}, Path())
        client = EndpointReranker(base_url=running.address, model="any")
        (folder := reranker.parent / "answers").mkdir()
        assert client.score(pool, folder)["q"] == pytest.approx(expected.tolist(), abs=1e-5)
        status, said = running.post("/v1/embeddings", {"input": "x"})
        assert (status, said["message"]) == (404, "model is a reranker: it has /rerank")


def test_an_embedding_model_as_openai_has_it(zelo_command: str, tiny_model: Path) -> None:
    model = SentenceTransformer(str(tiny_model))
    expected = model.encode_document(DOCUMENTS, normalize_embeddings=True)
    asked = model.encode_query([QUERY], normalize_embeddings=True)
    with served(zelo_command, tiny_model) as running:
        client = OpenAI(base_url=f"{running.address}/v1", api_key="none")
        for form in ("float", "base64"):  # the SDK asks for the second unless told otherwise
            found = client.embeddings.create(model="any", input=DOCUMENTS, encoding_format=form)
            rows = [
                np.frombuffer(base64.b64decode(one.embedding), np.float32)
                if isinstance(one.embedding, str) else one.embedding for one in found.data
            ]  # fmt: skip
            np.testing.assert_allclose(rows, expected, atol=1e-5)
        query = running.post("/embeddings", {"input": QUERY, "input_type": "query"})
        np.testing.assert_allclose(query["data"][0]["embedding"], asked[0], atol=1e-5)
        ranked = running.post("/rerank", {"query": QUERY, "documents": DOCUMENTS})["results"]
        cosines = (asked @ expected.T)[0]
        assert [one["relevance_score"] for one in ranked] == pytest.approx(
            sorted(cosines.tolist(), reverse=True), abs=1e-5
        )
        assert [m.id for m in client.models.list()] == [tiny_model.name]
        for wrong in ({"dimensions": 8}, {"encoding_format": "int8"}, {"input_type": "text"}):
            assert running.post("/embeddings", {"input": "x", **wrong})[0] == 422
        assert running.post("/nowhere", {})[1]["message"] == "POST /nowhere: no such route"


@pytest.mark.parametrize(
    ("content", "status", "why"),
    [
        (b"{", 422, "no JSON"),
        (b"[]", 422, "no JSON object"),
        ({"documents": ["x"]}, 422, "query: a text is needed"),
        ({"query": "x"}, 422, "documents: a list of texts is needed"),
        ({"query": "x", "documents": []}, 422, "documents: a list"),
        ({"query": "x", "documents": ["a", 1]}, 422, "documents[1]: no text"),
        ({"query": "x", "documents": ["a"], "top_n": 0}, 422, "top_n=0"),
        (b'{"query": "\\ud83d", "documents": ["a"]}', 422, "no JSON"),
        (b'{"query": ' + b"[" * 100_000, 422, "no JSON"),
        ({"query": "x", "documents": ["a"] * 51}, 413, "51 texts, and 50 may be in one"),
        (b"x" * (33 * 2**20), 413, "more than 32 MiB"),
    ],
)
def test_mistakes_are_said_and_the_next_request_is_answered(
    limited: ServedProcess, content: Any, status: int, why: str
) -> None:
    found = limited.post("/rerank", content)
    assert found[0] == status
    assert why in found[1]["message"]
    assert limited.post("/rerank", {"query": "x", "documents": ["a"]})["results"]


@pytest.fixture(scope="module")
def limited(zelo_command: str, reranker: Path) -> Iterator[ServedProcess]:
    with served(zelo_command, reranker, "documents=50") as running:
        yield running


def test_a_key(zelo_command: str, tiny_model: Path) -> None:
    with served(zelo_command, tiny_model, "key_variable=MY_KEY", MY_KEY="s3cret") as running:
        asked = {"query": "x", "documents": ["a"]}
        assert running.post("/rerank", asked)[0] == 401
        assert running.post("/rerank", asked, Authorization="Bearer wrong")[0] == 401
        assert running.post("/rerank", asked, Authorization="Bearer s3cret")["results"]
        with urllib.request.urlopen(f"{running.address}/health") as response:
            assert json.load(response) == {"status": "ok", "waiting": 0}


def test_sixty_four_at_once_with_faults_and_nothing_is_lost(
    zelo_command: str, tiny_model: Path
) -> None:
    """Among them requests that are given up, broken ones, and too large ones."""

    async def go() -> None:
        with served(zelo_command, tiny_model, "waiting=100000") as running:
            client = AsyncOpenAI(base_url=f"{running.address}/v1", api_key="x", max_retries=0)
            gate = asyncio.Semaphore(64)

            async def embedded(n: int) -> None:
                async with gate:
                    texts = [f"text {n} {k} " * (1 + n % 7) for k in range(1 + n % 5)]
                    found = await client.embeddings.create(model="m", input=texts)
                    rows[n] = [one.embedding for one in found.data]

            async def given_up(n: int) -> None:
                timeout = aiohttp.ClientTimeout(total=0.02)
                asked = {"query": "q", "documents": ["word " * 60] * 30}
                try:
                    await http.post(f"{running.address}/rerank", json=asked, timeout=timeout)
                except TimeoutError:
                    gone.append(n)

            async def broken(n: int) -> None:
                async with http.post(f"{running.address}/rerank", data=b"{" * n) as response:
                    assert response.status == 422

            rows: dict[int, Any] = {}
            gone: list[int] = []
            async with aiohttp.ClientSession() as http:
                await asyncio.gather(
                    *(embedded(n) for n in range(300)),
                    *(given_up(n) for n in range(20)),
                    *(broken(n) for n in range(1, 20)),
                )
                async with http.get(f"{running.address}/health") as response:
                    assert (await response.json())["waiting"] == 0
            assert sorted(rows) == [*range(300)]
            assert gone
            model = SentenceTransformer(str(tiny_model))
            for n in range(0, 300, 23):
                texts = [f"text {n} {k} " * (1 + n % 7) for k in range(1 + n % 5)]
                exact = model.encode_document(texts, normalize_embeddings=True)
                np.testing.assert_allclose(rows[n], exact, atol=1e-5)

    asyncio.run(go())


def test_too_much_is_told_to_come_again(zelo_command: str, tiny_model: Path) -> None:
    with served(zelo_command, tiny_model, "waiting=10") as running:
        status, said = running.post("/rerank", {"query": "x", "documents": ["a"] * 11})
        assert (status, said["message"]) == (413, "11 texts, and 9 may be in one")

        async def go() -> list[int]:
            asked = {"query": "x", "documents": ["long " * 300] * 9}
            async with aiohttp.ClientSession() as http:

                async def one() -> tuple[int, str]:
                    async with http.post(f"{running.address}/rerank", json=asked) as response:
                        return response.status, response.headers.get("Retry-After", "")

                return sorted(set(await asyncio.gather(*(one() for _ in range(20)))))

        assert asyncio.run(go()) == [(200, ""), (429, "1")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_waits_for_what_is_under_way(zelo_command: str, reranker: Path, number: int) -> None:
    running = ServedProcess(zelo_command, reranker, "documents=5000", "waiting=5000", "at_once=8")

    async def go() -> int:
        async with aiohttp.ClientSession() as http:
            asked = {"query": "q", "documents": [f"document {n} " * 20 for n in range(2000)]}
            waiting = asyncio.create_task(
                http.post(f"{running.address}/rerank", json=asked).__aenter__()
            )
            async with asyncio.timeout(60):
                while True:
                    async with http.get(f"{running.address}/health") as response:
                        if (await response.json())["waiting"]:
                            break
            running.process.send_signal(number)
            response = await waiting
            return len((await response.json())["results"])

    try:
        assert asyncio.run(go()) == 2000
        assert running.process.wait(timeout=60) == 0
    finally:
        running.process.kill()


def test_what_cannot_be_served(zelo_command: str, tmp_path: Path, tiny_model: Path) -> None:
    for words, why in (
        ([str(tmp_path)], "not a model's folder"),
        ([str(tiny_model), "host=192.0.2.1"], "host=192.0.2.1 port=8000: cannot be served there"),
        ([str(tiny_model), "at_once=0"], "numbers from 1 on"),
    ):
        command = [zelo_command, "serve", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert why in done.stderr


def test_items_of_many_requests_are_read_together_and_bad_ones_alone() -> None:
    read: list[int] = []

    def double(kind: Any, contents: Any) -> list[float]:
        time.sleep(0.005)
        read.append(len(contents))
        if any(one < 0 for one in contents):
            raise ValueError("below 0")
        return [2.0 * one for one in contents]

    async def go() -> None:
        batcher = Batcher(double, 16, 1000)
        running = asyncio.create_task(batcher.run())
        found = await asyncio.gather(
            *(batcher.results("a", [n, n + 1]) for n in range(100)),
            batcher.results("a", [-1.0]),
            *(batcher.results("b", [n]) for n in range(5)),
            return_exceptions=True,
        )
        assert found[:100] == [[2 * n, 2 * n + 2] for n in range(100)]
        assert isinstance(found[100], ValueError)
        assert found[101:] == [[2 * n] for n in range(5)]
        assert 5 in read  # of one kind, whatever came between
        assert max(read) == 16 == batcher.largest
        assert not batcher.waiting
        one = asyncio.create_task(batcher.results("a", [1] * 1000))
        await asyncio.sleep(0)
        with pytest.raises(FullError):
            await batcher.results("a", [1])
        before = sum(read)
        one.cancel()  # nobody waits for them any more
        await asyncio.sleep(0)
        assert await batcher.results("a", [7]) == [14]
        assert sum(read) - before < 100
        running.cancel()

    asyncio.run(go())
