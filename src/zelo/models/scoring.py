"""Scores of pairs of query and document, by a cross-encoder on one device or on many.

On many, pairs are tokenised once and cut into shards; a shard is scored by one rank and written
whole, so that a run that was stopped, on however many devices, goes on with those that are missing.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from zelo.artifacts import replacing
from zelo.models.batching import by_length, by_size_and_tokens
from zelo.models.cross_encoder import load_cross_encoder
from zelo.models.embedding import rerank_by_cosine
from zelo.models.tokens import (
    TokenFile,
    attends_by_flash,
    flatten,
    lengths_of,
    on_device,
    tokenize,
)

if TYPE_CHECKING:
    from zelo.distributed.trainer import LightningTrainer

SHARD = 4096  # pairs
PAIRS, SHARDS = "pairs.arrow", "shards"


def score_pairs(
    model: Any,
    pairs: Sequence[tuple[str, str]],
    batch_size: int,
    max_tokens_per_forward: int | None = None,
) -> list[float]:
    """Scores (float32) of pairs by a cross-encoder, in their order.

    The longest are read first, so that batches pad little; at most `max_tokens_per_forward` tokens
    are read at once, padding included, where that is given.
    """
    from zelo.progress import track

    if max_tokens_per_forward is None:
        batches = by_length([-len(query) - len(document) for query, document in pairs], batch_size)
    else:
        batches = by_size_and_tokens(
            lengths_of_pairs(model, pairs), batch_size, max_tokens_per_forward
        )
    scores = [0.0] * len(pairs)
    for part in track(batches, "scoring pairs"):
        values = model.predict(
            [pairs[i] for i in part], batch_size=batch_size, show_progress_bar=False
        )
        for i, value in zip(part, values.tolist(), strict=True):
            scores[i] = value
    return scores


def score_candidates(
    model: Any,
    queries: Mapping[str, str],
    documents: Mapping[str, str],
    candidates: Mapping[str, Sequence[str]],
    batch_size: int,
    max_tokens_per_forward: int | None = None,
) -> dict[str, list[float]]:
    """Scores of each query's candidates, in their order, by a loaded model of either kind.

    A cross-encoder reads them as pairs; of an embedding model they are cosines, each text being
    embedded once.
    """
    from sentence_transformers import CrossEncoder

    if not isinstance(model, CrossEncoder):
        return rerank_by_cosine(
            model, queries, documents, candidates, batch_size, max_tokens_per_forward
        )
    pairs = pairs_of(queries, documents, candidates)
    return by_query(candidates, score_pairs(model, pairs, batch_size, max_tokens_per_forward))


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


def lengths_of_pairs(model: Any, pairs: Sequence[tuple[str, str]]) -> list[int]:
    """Tokens of each pair as `model` reads it, or a few more."""
    prompt = model.prompts.get(model.default_prompt_name)
    frame = model.preprocess([("", "")], prompt=prompt)["input_ids"].shape[1]
    of = lengths_of(model.tokenizer, [text for pair in pairs for text in pair])
    whole = [frame + of[query] + of[document] for query, document in pairs]
    most = model.max_seq_length
    return whole if most is None else [min(length, most) for length in whole]


def score_on_devices(
    folder: Path,
    pairs: Sequence[tuple[str, str]],
    out: Path,
    trainer: LightningTrainer,
    max_tokens_per_forward: int | None = None,
) -> list[float]:
    """Scores (float32) of pairs by the cross-encoder in `folder`, in their order.

    Each device reads at most `max_tokens_per_forward` at once; None: as many as suit it. What is
    under way lies in `out`, which is gone at the end.
    """
    from zelo.distributed.ranks import on_devices

    out.mkdir(exist_ok=True)
    model = load_cross_encoder(folder)
    prompt = model.prompts.get(model.default_prompt_name)
    tokenize(model, pairs, prompt, out / PAIRS, "pairs")
    (out / SHARDS).mkdir(exist_ok=True)
    tokens = trainer.max_tokens_per_forward(max_tokens_per_forward)
    on_devices(score_shards, out, trainer, folder=folder, max_tokens_per_forward=tokens)
    scores = np.concatenate([np.load(path) for path in sorted((out / SHARDS).glob("*.npy"))])
    assert len(scores) == len(pairs), (len(scores), len(pairs))
    shutil.rmtree(out)
    found: list[float] = scores.tolist()
    return found


@torch.inference_mode()
def score_shards(
    *, out: Path, trainer: LightningTrainer, folder: Path, max_tokens_per_forward: int
) -> None:
    """Score this rank's shards: every so many'th that is not there yet."""
    from zelo.distributed.ranks import this_process
    from zelo.progress import track

    rank, world, local = this_process()
    device = trainer.device(local)
    model: Any = load_cross_encoder(folder).to(device).eval()
    tokens, flat = TokenFile(out / PAIRS), flatten(model)
    shards = range(rank, -(-len(tokens) // SHARD), world)
    half = attends_by_flash(model[0].model)  # else in 32 bits, as on one device
    for shard in track(shards, "scoring pairs") if rank == 0 else shards:
        path = out / SHARDS / f"{shard:08}.npy"
        if path.exists():
            continue
        rows = range(shard * SHARD, min((shard + 1) * SHARD, len(tokens)))
        with torch.autocast(device.type, torch.bfloat16) if half else nullcontext():
            scores = tokens.chunks(rows, max_tokens_per_forward, flat).apply(
                lambda chunk: model(on_device(chunk, device))["scores"].squeeze(-1).float().cpu()
            )
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, model.activation_fn(scores).numpy())
