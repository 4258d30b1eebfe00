"""Embedding models as sentence-transformers loads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from zelo.models.batching import by_length, by_size_and_tokens
from zelo.models.loading import (
    limit,
    loaded_from,
    loading,
    placed,
    quiet_transformers,
    with_padding,
    with_words,
)

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def load_embedding_model(
    folder: Path,
    max_length: int | None = None,
    pooling: str | None = None,
    attention: str | None = None,
) -> SentenceTransformer:
    """Load a folder as an embedding model, in float32; texts longer than `max_length` are cut.

    `pooling` (mean, cls, lasttoken) replaces what the folder says, or the library's choice where it
    says nothing: last token of a causal language model, mean of others.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

    quiet_transformers()
    with loaded_from(folder):
        options = loading(attention)
        model = SentenceTransformer(str(folder), model_kwargs=options, local_files_only=True)
        tokenizer = getattr(model[0], "tokenizer", None)
        with_words(tokenizer)
        with_padding(tokenizer, getattr(model[0], "model", None))
        limit(model, folder, max_length, own=True)
    if pooling is not None:
        pool = Pooling(model[0].get_embedding_dimension(), pooling_mode=pooling)
        model = SentenceTransformer(
            modules=[model[0], pool, Normalize()],
            prompts=model.prompts,
            default_prompt_name=model.default_prompt_name,
            **placed(),
        )
    return model.float()


def without_tokens(model: Any, texts: Sequence[str], prompt: str | None) -> set[int]:
    """Indices of texts of which a tokenizer makes no token, as most decoders' make none of an empty
    one: no transformer reads them by themselves."""
    blank = [i for i, text in enumerate(texts) if not text.strip()]
    return {
        i for i in blank if not model.preprocess([texts[i]], prompt=prompt)["input_ids"].numel()
    }


def embed(
    model: SentenceTransformer,
    texts: Sequence[str],
    batch_size: int,
    task: str,
    what: str,
    tokens: int | None = None,
) -> torch.Tensor:
    """Unit embeddings of `texts`, float32 (texts, dimensions); `task` is query or document.

    At most `tokens` are read at once, padding included, where that is given. A text without a
    token has the embedding that it has beside others: 0.
    """
    from zelo.progress import track

    if tokens is None:
        batches = by_length([-len(text) for text in texts], batch_size)
    else:
        batches = by_size_and_tokens(lengths_of_texts(model, texts), batch_size, tokens)
    encode: Any = model.encode_query if task == "query" else model.encode_document
    rows = torch.zeros(len(texts), model.get_embedding_dimension() or 0)
    blank = without_tokens(model, texts, (model.prompts or {}).get(task))
    for part in track(batches, f"embedding {what}"):
        part = [i for i in part if i not in blank]
        if not part:
            continue
        rows[part] = encode(
            [texts[i] for i in part],
            batch_size=batch_size,
            convert_to_tensor=True,
            normalize_embeddings=True,
            show_progress_bar=False,
        ).cpu()
    return rows


def lengths_of_texts(model: SentenceTransformer, texts: Sequence[str]) -> list[int]:
    """Tokens of each text as `model` reads it, or a few more: as if by its longest prompt."""
    from zelo.models.tokens import lengths_of

    frames = [model.preprocess([prompt])["input_ids"].shape[1]
              for prompt in ["", *filter(None, model.prompts.values())]]  # fmt: skip
    of = lengths_of(model.tokenizer, texts)
    whole = [max(frames) + of[text] for text in texts]
    most = model.max_seq_length
    return whole if most is None else [min(length, most) for length in whole]


def rerank_by_cosine(
    model: SentenceTransformer,
    queries: Mapping[str, str],
    documents: Mapping[str, str],
    candidates: Mapping[str, Sequence[str]],
    batch_size: int,
    tokens: int | None = None,
) -> dict[str, list[float]]:
    """Cosine similarity of each query with each of its candidates, in the candidates' order."""
    wanted = sorted({doc_id for docs in candidates.values() for doc_id in docs})
    row_of = {doc_id: i for i, doc_id in enumerate(wanted)}
    texts = [documents[i] for i in wanted]
    d = embed(model, texts, batch_size, "document", "candidates", tokens)
    q = embed(model, [queries[i] for i in candidates], batch_size, "query", "queries", tokens)
    return {
        query_id: (d[[row_of[doc_id] for doc_id in docs]] @ q[row]).tolist() if docs else []
        for row, (query_id, docs) in enumerate(candidates.items())
    }
