"""Rerankers to compare: anything that scores the candidates of a query."""

from __future__ import annotations

import http.client
import json
import math
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pydantic import field_validator

from zelo.artifacts import write_text
from zelo.config import Component, option
from zelo.distributed.trainer import LightningTrainer
from zelo.errors import UserError
from zelo.evaluation.pair_judging import PairJudging
from zelo.judging.endpoint import redact, retry_after, secret, wait_before_retry
from zelo.models.pretrained import PretrainedModel

Scores = dict[str, list[float]]
Candidates = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Pool:
    """What is reranked: candidates by query, and the texts of all of them by id."""

    queries: Mapping[str, str]
    documents: Mapping[str, str]
    candidates: Candidates
    data: Path  # the loaded collection
    instructions: Mapping[str, str] = field(default_factory=dict)  # of queries that have one

    def pairs(self) -> list[tuple[str, str]]:
        """Texts of each query and candidate, query after query."""
        return [
            (self.queries[query_id], self.documents[doc_id])
            for query_id, docs in self.candidates.items()
            for doc_id in docs
        ]


@runtime_checkable
class Reranker(Protocol):
    """Something that scores candidates (`conf/reranker/`)."""

    def score(self, pool: Pool, folder: Path) -> Scores:
        """Scores of each query's candidates, in their order; higher is better.

        `folder` outlives a kill: what costs money is kept there as it comes.
        """
        ...


class CrossEncoderReranker(Component):
    """Any model that `sentence_transformers.CrossEncoder` loads: sequence classifiers, models of
    this project, and decoders by the logit of their answer token (Qwen3-Reranker, zerank), used as
    their folder says (`1_LogitScore/config.json`, chat template, prompts). The first releases of
    zerank ship code instead, which is never run: how they score is known here."""

    pretrained: PretrainedModel = option(help="the model")
    max_length: int | None = option(None, "longer pairs are cut; null: as the model says", ge=8)
    trainer: LightningTrainer = option(LightningTrainer(), "device and precision")

    def check(self) -> None:
        """`UserError` where the model gives no scores."""
        from zelo.models.cross_encoder import load_cross_encoder
        from zelo.models.loading import trial

        with trial(self.pretrained.locate()):
            load_cross_encoder(self.pretrained.locate(), max_length=self.max_length)

    def score(self, pool: Pool, folder: Path) -> Scores:
        """Scores as the model gives them, its own activation included."""
        from zelo.models.cross_encoder import load_cross_encoder
        from zelo.models.scoring import score_candidates

        model = load_cross_encoder(self.pretrained.locate(), max_length=self.max_length)
        texts = pool.queries, pool.documents, pool.candidates
        return score_candidates(model, *texts, self.trainer, instructions=pool.instructions)


class EmbeddingReranker(Component):
    """Cosine similarity by any model that `SentenceTransformer` loads, with the model's prompts."""

    pretrained: PretrainedModel = option(help="the model")
    max_length: int | None = option(None, "longer texts are cut; null: as the model says", ge=8)
    batch_size: int = option(64, "texts embedded at once", ge=1, exclude=True)
    trainer: LightningTrainer = option(LightningTrainer(), "device and precision")

    def check(self) -> None:
        """`UserError` where the model embeds nothing."""
        from zelo.models.embedding import load_embedding_model
        from zelo.models.loading import trial

        with trial(self.pretrained.locate()):
            load_embedding_model(self.pretrained.locate(), self.max_length)

    def score(self, pool: Pool, folder: Path) -> Scores:
        """Cosine similarity of the query with each candidate."""
        from zelo.models.embedding import load_embedding_model
        from zelo.models.scoring import score_candidates

        model = load_embedding_model(self.pretrained.locate(), self.max_length)
        texts = pool.queries, pool.documents, pool.candidates
        return score_candidates(
            model, *texts, self.trainer, self.batch_size, instructions=pool.instructions
        )


class JudgeReranker(PairJudging):
    """Judges as a reranker: the best candidates are compared in pairs and rated (figure 11)."""

    def score(self, pool: Pool, folder: Path) -> Scores:
        """Elos of what was compared; the rest scores below all of these, in its old order."""
        compared = {i: docs[: self.top] for i, docs in pool.candidates.items()}
        found = self.elos(
            "reranker pairwise", pool.data, pool.queries, pool.documents, compared
        ).elos
        scores = {}
        for query_id, docs in pool.candidates.items():
            # Documents that no answer is about have an Elo of 0, and keep their order.
            elos = [found.get(query_id, {}).get(doc_id, 0.0) for doc_id in docs[: self.top]]
            rest = range(1, len(docs) - len(elos) + 1)
            scores[query_id] = [*elos, *(min(elos, default=0.0) - k for k in rest)]
        return scores


class EndpointReranker(Component):
    """An endpoint with a route `/rerank`, in one of three forms.

    Cohere, Jina, vLLM and Infinity use `cohere`, Voyage `voyage`, text-embeddings-inference `tei`.
    The scores of each query are kept as soon as they come.
    """

    base_url: str = option(help="up to and without /rerank", repr=False)
    model: str = option(help="its name there")
    key_variable: str | None = option(
        None, "environment variable that holds the key", exclude=True, repr=False
    )
    form: str = option(
        "cohere", "of requests and answers: cohere, voyage, tei", pattern="^(cohere|voyage|tei)$"
    )
    documents_at_once: int | None = option(
        None, "documents in one request (tei takes 32 unless told otherwise); null: all", ge=1
    )
    in_flight: int = option(4, "queries at once", ge=1, le=256, exclude=True)
    timeout: float = option(60.0, "seconds for one request", gt=0, exclude=True)
    attempts: int = option(6, "requests for one query before the run stops", ge=1, exclude=True)

    @field_validator("base_url")
    @classmethod
    def _address(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")) or re.search("[@?#]", url):
            raise ValueError("an http(s) address without a password or a query is needed")
        return url.rstrip("/")

    def check(self) -> None:
        """`UserError` where the variable that holds its key is not set."""
        self._key()

    def score(self, pool: Pool, folder: Path) -> Scores:
        """Relevance scores of the endpoint; `UserError` where it does not answer."""
        from zelo.progress import track

        kept = folder / "answers.jsonl"
        scores: Scores = dict(read_kept(kept, pool.candidates))
        asked = [i for i, docs in pool.candidates.items() if i not in scores and docs]
        key = self._key() if asked else ""
        trouble: UserError | None = None
        stop = threading.Event()  # nothing more is asked after an error

        def ask(query_id: str) -> list[float] | None:
            return None if stop.is_set() else self._ask(pool, query_id, key)

        with (
            kept.open("a", encoding="utf-8") as file,
            ThreadPoolExecutor(self.in_flight) as threads,
        ):
            waiting = {threads.submit(ask, query_id): query_id for query_id in asked}
            try:
                for done in track(as_completed(waiting), f"asking {self.model}"):
                    try:
                        found = done.result()
                    except UserError as error:
                        trouble = trouble or error
                        stop.set()
                        continue
                    if found is not None:
                        scores[waiting[done]] = found
                        row = {"query_id": waiting[done], "scores": found}
                        file.write(json.dumps(row) + "\n")
                        file.flush()
            finally:
                stop.set()
        if trouble is not None:
            raise trouble
        return {query_id: scores.get(query_id, []) for query_id in pool.candidates}

    def _key(self) -> str:
        """The key; `UserError` where its variable is not set."""
        return "" if self.key_variable is None else secret(self.key_variable, "reranker")

    def _ask(self, pool: Pool, query_id: str, key: str) -> list[float]:
        """Scores of a query's candidates."""
        texts = [pool.documents[doc_id] for doc_id in pool.candidates[query_id]]
        size = self.documents_at_once or len(texts)
        parts = [texts[start : start + size] for start in range(0, len(texts), size)]
        return [score for part in parts for score in self._request(pool, query_id, part, key)]

    def _request(self, pool: Pool, query_id: str, texts: list[str], key: str) -> list[float]:
        """Scores from one request, which is repeated after errors that may pass."""
        trouble = ""
        for attempt in range(self.attempts):
            status, headers, content = self._post(pool.queries[query_id], texts, key)
            if status == 200:
                found = relevance_scores(content, len(texts))
                if found is not None:
                    return found
                trouble = f"not a score for each of {len(texts)} documents"
            else:
                trouble = redact(str(content), key)[:200]
                if status is not None and status not in (408, 425, 429) and status < 500:
                    break
            if attempt + 1 < self.attempts:
                time.sleep(wait_before_retry(attempt, retry_after(headers)))
        raise UserError(
            f"reranker {self.model}: query {query_id!r}: {status or 'no answer'} {trouble}; what "
            f"came is kept, and the same command goes on from there"
        )

    def _post(
        self, query: str, texts: list[str], key: str
    ) -> tuple[int | None, Mapping[str, str], Any]:
        """Status (None: no response), headers and content."""
        body: dict[str, Any] = {"query": query, "texts": texts}
        if self.form != "tei":
            limit = "top_n" if self.form == "cohere" else "top_k"
            body = {"model": self.model, "query": query, "documents": texts, limit: len(texts)}
        headers = {"Content-Type": "application/json", "User-Agent": "zelo"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        data = json.dumps(body).encode()
        request = urllib.request.Request(f"{self.base_url}/rerank", data, headers)
        try:
            with OPENER.open(request, timeout=self.timeout) as response:
                return response.status, dict(response.headers), json.loads(response.read())
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read().decode("utf-8", "replace")
        except (OSError, ValueError, http.client.HTTPException) as error:
            return None, {}, error


def relevance_scores(content: Any, n: int) -> list[float] | None:
    """The score of each of `n` documents in a response; None where one is missing or not a number.

    Rows are in `results` (Cohere) or `data` (Voyage), or are the whole response (TEI).
    """
    try:
        if isinstance(content, dict):
            content = content["data" if "data" in content else "results"]
        scores_of = [
            (row["index"], row.get("relevance_score", row.get("score"))) for row in content
        ]
        found = {index: float(score) for index, score in scores_of}
        scores = [found[i] for i in range(n)]
    except (KeyError, TypeError, ValueError):
        return None
    return None if any(math.isnan(score) for score in scores) else scores


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirection, which could send the key to another host."""

    def redirect_request(self, *_: Any) -> None:
        """None: the redirection is the response."""


OPENER = urllib.request.build_opener(NoRedirects)


def read_kept(path: Path, candidates: Candidates) -> Iterator[tuple[str, list[float]]]:
    """Scores that an earlier attempt kept; a line that a kill cut short is left out."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    if whole != lines:
        write_text(path, "".join(whole))
    for line in whole:
        row = json.loads(line)
        if len(row["scores"]) == len(candidates.get(row["query_id"], ())):
            yield row["query_id"], row["scores"]
