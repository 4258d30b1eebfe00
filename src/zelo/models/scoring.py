"""Scores of pairs of query and document, by a cross-encoder on one device or on many.

On many, pairs are tokenised once and cut into shards; a shard is scored by one rank and written
whole, so that a run that was stopped, on however many devices, goes on with those that are missing.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from zelo.artifacts import replacing
from zelo.models.cross_encoder import load_cross_encoder
from zelo.models.embedding import rerank_by_cosine
from zelo.models.instructions import NONE, base_prompt, told_all
from zelo.models.reading import Reader
from zelo.models.tokens import TokenFile, tokenize

if TYPE_CHECKING:
    from zelo.distributed.trainer import LightningTrainer

SHARD = 4096  # pairs
BATCH_SIZE = 32  # texts
PAIRS, SHARDS = "pairs.arrow", "shards"


def score_pairs(
    model: Any,
    pairs: Sequence[tuple[str, str]],
    trainer: LightningTrainer | None = None,
    max_tokens_per_forward: int | None = None,
    prompts: Sequence[str | None] | None = None,
) -> list[float]:
    """Scores (float32) of pairs by a cross-encoder, in their order.

    `prompts` stand before each, None: the model's own before all. It reads on the trainer's device
    and in its precision, None: where it is, on a GPU in bfloat16; at most `max_tokens_per_forward`
    tokens at once, None: as many as suit the device.
    """
    from zelo.progress import track

    if not pairs:
        return []
    with tempfile.TemporaryDirectory() as folder:
        before = base_prompt(model) if prompts is None else prompts
        tokenize(model, pairs, before, Path(folder) / PAIRS, "pairs")
        tokens = TokenFile(Path(folder) / PAIRS)
        reader = Reader(
            model, "scores", trainer or where(model), max_tokens_per_forward, tokens.lengths.sum()
        )
        scores = np.empty(len(pairs), dtype=np.float32)
        for rows in track(reader.parts(tokens), "scoring pairs"):
            scores[rows] = activated(model, reader.rows(tokens, rows))
    found: list[float] = scores.tolist()
    return found


def where(model: Any) -> LightningTrainer:
    """A trainer of the device that a model is on, in the precision that suits it."""
    from zelo.distributed.trainer import LightningTrainer

    kind = model.device.type
    half = kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return LightningTrainer(
        accelerator=kind if kind in ("cuda", "mps") else "cpu",
        precision="bf16-mixed" if half else "32-true",
    )


def activated(model: Any, scores: torch.Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Scores (pairs,) as the model gives them, of raw ones (pairs, 1)."""
    found: np.ndarray[Any, np.dtype[np.float32]] = model.activation_fn(scores.squeeze(-1)).numpy()
    return found


def score_candidates(
    model: Any,
    queries: Mapping[str, str],
    documents: Mapping[str, str],
    candidates: Mapping[str, Sequence[str]],
    trainer: LightningTrainer | None = None,
    batch_size: int = BATCH_SIZE,
    max_tokens_per_forward: int | None = None,
    instructions: Mapping[str, str] = NONE,
) -> dict[str, list[float]]:
    """Scores of each query's candidates, in their order, by a loaded model of either kind; queries
    may have `instructions`, by their ids.

    A cross-encoder reads them as pairs; of an embedding model they are cosines, each text being
    embedded once, `batch_size` at a time. For the rest see `score_pairs`.
    """
    from sentence_transformers import CrossEncoder

    trainer = trainer or where(model)
    if not isinstance(model, CrossEncoder):
        return rerank_by_cosine(
            model, queries, documents, candidates, batch_size, max_tokens_per_forward, trainer,
            instructions,
        )  # fmt: skip
    pairs, prompts = told_pairs(model, queries, documents, candidates, instructions)
    scores = score_pairs(model, pairs, trainer, max_tokens_per_forward, prompts)
    return by_query(candidates, scores)


def told_pairs(
    model: Any,
    queries: Mapping[str, str],
    documents: Mapping[str, str],
    candidates: Mapping[str, Sequence[str]],
    instructions: Mapping[str, str],
) -> tuple[list[tuple[str, str]], list[str | None] | None]:
    """`pairs_of` as a cross-encoder reads them, and the prompt before each; None: its own."""
    told = told_all(model, {query_id: queries[query_id] for query_id in candidates}, instructions)
    if told is None:
        return pairs_of(queries, documents, candidates), None
    texts = {query_id: query.text for query_id, query in told.items()}
    prompts = [told[query_id].prompt for query_id, docs in candidates.items() for _ in docs]
    return pairs_of(texts, documents, candidates), prompts


def pairs_of(
    queries: Mapping[str, str],
    documents: Mapping[str, str],
    candidates: Mapping[str, Sequence[str]],
) -> list[tuple[str, str]]:
    """Texts of every query with each of its candidates, query after query."""
    return [
        (queries[query_id], documents[doc_id])
        for query_id, doc_ids in candidates.items()
        for doc_id in doc_ids
    ]


def by_query(
    candidates: Mapping[str, Sequence[str]], scores: Iterable[float]
) -> dict[str, list[float]]:
    """Scores of `pairs_of`, of each query again."""
    left = iter(scores)
    return {query_id: [next(left) for _ in doc_ids] for query_id, doc_ids in candidates.items()}


def score_on_devices(
    folder: Path,
    pairs: Sequence[tuple[str, str]],
    out: Path,
    trainer: LightningTrainer,
    max_tokens_per_forward: int | None = None,
    prompts: Sequence[str | None] | None = None,
) -> list[float]:
    """Scores (float32) of pairs by the cross-encoder in `folder`, in their order.

    `prompts` stand before each, None: the model's own before all. Each device reads at most
    `max_tokens_per_forward` at once; None: as many as suit it. What is under way lies in `out`,
    which is gone at the end.
    """
    from zelo.distributed.ranks import on_devices

    out.mkdir(exist_ok=True)
    model = load_cross_encoder(folder)
    before = base_prompt(model) if prompts is None else prompts
    tokenize(model, pairs, before, out / PAIRS, "pairs")
    (out / SHARDS).mkdir(exist_ok=True)
    tokens = trainer.max_tokens_per_forward(max_tokens_per_forward)
    on_devices(score_shards, out, trainer, folder=folder, max_tokens_per_forward=tokens)
    scores = np.concatenate([np.load(path) for path in sorted((out / SHARDS).glob("*.npy"))])
    assert len(scores) == len(pairs), (len(scores), len(pairs))
    shutil.rmtree(out)
    found: list[float] = scores.tolist()
    return found


def score_shards(
    *, out: Path, trainer: LightningTrainer, folder: Path, max_tokens_per_forward: int
) -> None:
    """Score this rank's shards: every so many'th that is not there yet."""
    from zelo.distributed.ranks import this_process
    from zelo.progress import track

    rank, world, local = this_process()
    tokens = TokenFile(out / PAIRS)
    model: Any = load_cross_encoder(folder)
    own = tokens.lengths.sum() / world
    reader = Reader(model, "scores", trainer, max_tokens_per_forward, own, local)
    shards = range(rank, -(-len(tokens) // SHARD), world)
    for shard in track(shards, "scoring pairs") if rank == 0 else shards:
        path = out / SHARDS / f"{shard:08}.npy"
        if path.exists():
            continue
        rows = range(shard * SHARD, min((shard + 1) * SHARD, len(tokens)))
        scores = activated(model, reader.rows(tokens, rows))
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, scores)
