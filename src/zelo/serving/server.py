"""`zelo serve MODEL`: a reranker or an embedding model behind the routes that clients know.

`/rerank` as Cohere and Jina have it, `/embeddings` as OpenAI has it. It is for trying a model
behind a client that is there already, on this machine; for production there are servers that are
made for it (docs/serving.md).
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import uuid
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import web

from zelo.errors import in_words
from zelo.progress import say
from zelo.serving.batcher import Batcher, FullError

LARGEST = 32 * 2**20  # bytes of a request
GRACE = 60.0  # seconds that a stop waits for requests under way
QUERY, DOCUMENT, PAIR = "query", "document", "pair"  # kinds of what a model reads
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Limits:
    """How much is taken on."""

    at_once: int = 32  # texts or pairs that the model reads together
    documents: int = 1000  # of one request
    waiting: int = 4096  # texts or pairs of all requests


class ServedModel:
    """A model of either kind, and how it reads."""

    def __init__(self, folder: Path) -> None:
        from zelo.models.cross_encoder import load_cross_encoder
        from zelo.models.embedding import load_embedding_model
        from zelo.models.rerank_file import is_cross_encoder

        self.name = folder.resolve().name
        self.is_reranker = is_cross_encoder(folder)
        self.model: Any = (load_cross_encoder if self.is_reranker else load_embedding_model)(folder)

    def read(self, kind: Hashable, contents: Sequence[Any]) -> Sequence[Any]:
        """Scores of pairs, or embeddings (float32, of length 1) of texts."""
        how = {"batch_size": len(contents), "show_progress_bar": False}
        if kind == PAIR:
            scores: list[float] = self.model.predict(list(contents), **how).tolist()
            return scores
        encode = self.model.encode_query if kind == QUERY else self.model.encode_document
        rows = encode(list(contents), normalize_embeddings=True, **how)
        return list(np.asarray(rows, dtype=np.float32))


class ProblemError(Exception):
    """What is wrong with a request, for its client."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers

    def response(self) -> web.Response:
        """The same as clients read it."""
        said = {"error": {"message": str(self)}, "message": str(self)}
        return web.json_response(said, status=self.status, headers=self.headers)


class ModelServer:
    """Answers the requests."""

    def __init__(self, model: ServedModel, limits: Limits, key: str = "") -> None:
        self.model, self.limits, self.key = model, limits, key
        self.batcher = Batcher(model.read, limits.at_once, limits.waiting)
        self.stopping = False

    def application(self) -> web.Application:
        """The routes."""
        made = web.Application(middlewares=[self.guarded], client_max_size=LARGEST)
        made.router.add_get("/health", self.health)
        made.router.add_get("/v1/models", self.models)
        for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
            made.router.add_post(path, self.rerank)
        for path in ("/embeddings", "/v1/embeddings"):
            made.router.add_post(path, self.embeddings)
        made.cleanup_ctx.append(self.reading)
        return made

    async def reading(self, _: web.Application) -> Any:
        """The model reads as long as the server runs."""
        self.task = asyncio.create_task(self.batcher.run())
        yield
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task

    @web.middleware
    async def guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Say what is wrong with a request as JSON."""
        try:
            if self.stopping:
                raise ProblemError(503, "the server is stopping")
            if self.key and request.path != "/health":
                given = request.headers.get("Authorization", "").removeprefix("Bearer ")
                if not hmac.compare_digest(given.encode(), self.key.encode()):
                    raise ProblemError(401, "the key is missing or wrong")
            return await handler(request)
        except ProblemError as error:
            return error.response()
        except web.HTTPException as error:  # of aiohttp itself
            if error.status in (404, 405):
                said = f"{request.method} {request.path}: no such route"
                return ProblemError(404, said).response()
            if error.status == 413:
                said = f"a request has more than {LARGEST // 2**20} MiB"
                return ProblemError(413, said).response()
            raise
        except FullError:
            again = {"Retry-After": "1"}
            return ProblemError(429, "too much is waiting; try again", again).response()
        except Exception as error:  # of the model, which no other request hears of
            say(f"! {request.path}: {in_words(error)}")
            return ProblemError(500, f"the model could not read it ({in_words(error)})").response()

    async def health(self, _: web.Request) -> web.Response:
        """Whether it takes requests, and how much is waiting."""
        if self.task.done():
            raise ProblemError(503, "the model does not read any more: start it again")
        return web.json_response({"status": "ok", "waiting": self.batcher.waiting})

    async def models(self, _: web.Request) -> web.Response:
        """The one model."""
        return web.json_response(
            {"object": "list", "data": [{"id": self.model.name, "object": "model"}]}
        )

    async def rerank(self, request: web.Request) -> web.Response:
        """Documents by relevance, as Cohere and Jina say it."""
        asked = await content_of(request)
        query, documents = text_at(asked, "query"), texts_at(asked, "documents")
        top = asked.get("top_n")
        if top is not None and (type(top) is not int or top < 1):
            raise ProblemError(422, f"top_n={top!r}: a number from 1 on is needed")
        scores = await self.scores(query, self.within(documents))
        order = sorted(range(len(scores)), key=lambda i: -scores[i])[:top]
        results: list[dict[str, Any]] = [{"index": i, "relevance_score": scores[i]} for i in order]
        if asked.get("return_documents"):
            results = [{**one, "document": {"text": documents[one["index"]]}} for one in results]
        return web.json_response(
            {"id": uuid.uuid4().hex, "model": self.model.name, "results": results}
        )

    async def scores(self, query: str, documents: Sequence[str]) -> list[float]:
        """Of a reranker its scores, of an embedding model cosines."""
        if self.model.is_reranker:
            return await self.batcher.results(PAIR, [(query, text) for text in documents])
        (asked,), found = await asyncio.gather(
            self.batcher.results(QUERY, [query]), self.batcher.results(DOCUMENT, documents)
        )
        return [float(asked @ row) for row in found]

    async def embeddings(self, request: web.Request) -> web.Response:
        """Embeddings as OpenAI gives them; of documents, unless `input_type` says `query`."""
        if self.model.is_reranker:
            raise ProblemError(404, f"{self.model.name} is a reranker: it has /rerank")
        asked = await content_of(request)
        given = asked.get("input")
        texts = [given] if isinstance(given, str) else texts_at(asked, "input")
        kind = asked.get("input_type", DOCUMENT)
        if kind not in (QUERY, DOCUMENT):
            raise ProblemError(422, f"input_type={kind!r}: query or document is needed")
        form = asked.get("encoding_format") or "float"
        if form not in ("float", "base64"):
            raise ProblemError(422, f"encoding_format={form!r}: float or base64 is needed")
        if asked.get("dimensions") is not None:
            raise ProblemError(422, "dimensions: embeddings are given whole; leave it out")
        rows = await self.batcher.results(kind, self.within(texts))
        data = [
            {
                "object": "embedding",
                "index": i,
                "embedding": base64.b64encode(row.astype("<f4").tobytes()).decode()
                if form == "base64"
                else row.tolist(),
            }
            for i, row in enumerate(rows)
        ]
        usage = {"prompt_tokens": 0, "total_tokens": 0}  # not counted
        return web.json_response(
            {"object": "list", "data": data, "model": self.model.name, "usage": usage}
        )

    def within(self, texts: Sequence[str]) -> Sequence[str]:
        """The texts, where a request may have so many."""
        most = min(self.limits.documents, self.limits.waiting - 1)  # with the query
        if len(texts) > most:
            raise ProblemError(413, f"{len(texts)} texts, and {most} may be in one")
        return texts


async def content_of(request: web.Request) -> dict[str, Any]:
    """The JSON object of a request."""
    try:
        content = await request.json()
        json.dumps(content, ensure_ascii=False).encode()  # no half of a character
    except (ValueError, LookupError, RecursionError):  # of the text, its encoding, its depth
        raise ProblemError(422, "the request is no JSON") from None
    if not isinstance(content, dict):
        raise ProblemError(422, "the request is no JSON object")
    return content


def text_at(asked: dict[str, Any], name: str) -> str:
    """A text of a request."""
    if not isinstance(asked.get(name), str):
        raise ProblemError(422, f"{name}: a text is needed")
    return str(asked[name])


def texts_at(asked: dict[str, Any], name: str) -> list[str]:
    """Texts of a request, or objects with one."""
    given = asked.get(name)
    if not isinstance(given, list) or not given:
        raise ProblemError(422, f"{name}: a list of texts is needed")
    found = [one.get("text") if isinstance(one, dict) else one for one in given]
    if wrong := [i for i, text in enumerate(found) if not isinstance(text, str)]:
        raise ProblemError(422, f"{name}[{wrong[0]}]: no text")
    return [str(text) for text in found]


def serve(folder: Path, host: str, port: int, limits: Limits, key: str) -> None:
    """Serve a model until Ctrl-C or SIGTERM, which wait a minute for the requests under way.

    `UserError` where there is no model, or the port is taken.
    """
    from zelo.models.rerank_file import check_model

    check_model(folder)
    model = ServedModel(folder)
    asyncio.run(serving(model, host, port, limits, key))


async def serving(model: ServedModel, host: str, port: int, limits: Limits, key: str) -> None:
    """The same, in an event loop."""
    from zelo.local_site import serve_until_stopped

    server = ModelServer(model, limits, key)
    runner = web.AppRunner(
        server.application(), access_log=None, shutdown_timeout=GRACE, handler_cancellation=True
    )
    routes = "/rerank" if model.is_reranker else "/rerank and /v1/embeddings"

    def begun(shown: str, bound: int) -> None:
        say(f"http://{shown}:{bound} has {routes}; Ctrl-C ends it")

    await serve_until_stopped(runner, host, port, begun)
    server.stopping = True
    await runner.cleanup()
