"""Embedding models as sentence-transformers loads them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch

from zelo.artifacts import read_json, write_json
from zelo.models.batching import by_length, by_size_and_tokens
from zelo.models.embedding_store import Rows, Shelf, open_store
from zelo.models.instructions import NONE, Told, as_read, base_prompt, without_prompt
from zelo.models.loading import (
    limit,
    loaded_from,
    loading,
    placed,
    prepare_libraries,
    with_padding,
    with_words,
    without_cache,
)
from zelo.models.pretrained import digest_of_model

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from zelo.distributed.trainer import LightningTrainer

PACKAGES = ("sentence-transformers", "transformers")  # how they read a text may change
TEXTS = "texts.json"  # that devices share in
WORTH = 512  # texts of each device; for fewer, one device is done before others have begun
VERSION = 1  # raised when the same model gives a text another embedding


class Origin(NamedTuple):
    """What a loaded model was made of, and its weights' counts of changes at that time."""

    folder: Path
    digest: str  # empty where nothing was kept then
    pooling: str | None
    changes: list[tuple[str, int]]


_origins: WeakKeyDictionary[Any, Origin] = WeakKeyDictionary()  # where embeddings are kept


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

    prepare_libraries()
    with loaded_from(folder):
        options = loading(attention)
        model = SentenceTransformer(str(folder), model_kwargs=options, local_files_only=True)
        tokenizer = getattr(model[0], "tokenizer", None)
        with_words(tokenizer)
        with_padding(tokenizer, getattr(model[0], "model", None))
        without_cache(getattr(model[0], "model", None))
        limit(model, folder, max_length, own=True)
    if pooling is not None:
        pool = Pooling(model[0].get_embedding_dimension(), pooling_mode=pooling)
        model = SentenceTransformer(
            modules=[model[0], pool, Normalize()],
            prompts=model.prompts,
            default_prompt_name=model.default_prompt_name,
            **placed(),
        )
    model = model.float()
    digest = "" if open_store() is None else digest_of_model(folder)
    _origins[model] = Origin(folder, digest, pooling, changes(model))
    return model


def changes(model: Any) -> list[tuple[str, int]]:
    """Each weight's name, and how often it was changed in place."""
    named = model.named_parameters()
    return [(name, 0 if p.is_inference() else p._version) for name, p in named]


def shelf_of(model: SentenceTransformer, task: str) -> Shelf | None:
    """Where the embeddings of `model` are kept; None where none are kept, or where it is not as
    `load_embedding_model` made it any more."""
    store, origin = open_store(), _origins.get(model)
    if store is None or not origin or not origin.digest or origin.changes != changes(model):
        return None
    device = model.device.type
    autocast = torch.is_autocast_enabled(device) and str(torch.get_autocast_dtype(device))
    about = {
        "version": VERSION,
        "digest": origin.digest,
        "pooling": origin.pooling,
        "task": task,
        "prompts": model.prompts,
        "default_prompt": model.default_prompt_name,
        "max_length": model.max_seq_length,
        "dimensions": model.truncate_dim,
        "device": device,
        "weights": sorted({str(weight.dtype) for weight in model.parameters()}),
        "autocast": autocast,
        "matmul": torch.get_float32_matmul_precision(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }
    return Shelf(store, about, str(origin.folder))


def ready_to_embed(model: SentenceTransformer, trainer: LightningTrainer, local: int = 0) -> None:
    """Have `model` read on the trainer's `local`th device of this machine and in its precision; its
    heads do in 32 bits."""
    from zelo.models.heads import heads_in_32_bits
    from zelo.models.reading import made_ready

    device = trainer.device(local)
    model.to(device)
    transformer = getattr(model[0], "model", None)
    if trainer.precision == "32-true" or transformer is None:  # word vectors have none
        return
    heads_in_32_bits(model)
    made_ready(transformer, trainer, device, by_mask=True)


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
    trainer: LightningTrainer | None = None,
) -> torch.Tensor:
    """Unit embeddings of `texts`, float32 (texts, dimensions); `task` is query or document.

    A text is read once, and not at all where its embedding is kept from before (`embeddings_kept`).
    At most `tokens` are read at once, padding included, where that is given. A text without a
    token has the embedding that it has beside others: 0. It reads on the trainer's device and in
    its precision, None: where the model is, in 32 bits.
    """
    if trainer is None:
        return torch.from_numpy(embed_here(model, texts, batch_size, task, what, tokens))
    ready_to_embed(model, trainer)
    with trainer.autocast(model.device):
        rows = embed_here(model, texts, batch_size, task, what, tokens, trainer)
    return torch.from_numpy(rows)


def embed_here(
    model: SentenceTransformer,
    texts: Sequence[str],
    batch_size: int,
    task: str,
    what: str,
    tokens: int | None = None,
    trainer: LightningTrainer | None = None,
) -> Rows:
    """As `embed`, by a model that is where it is to read, in an array; where the trainer has more
    devices, they share in many texts. No progress is shown of `what` without a name."""
    from zelo.progress import track

    distinct = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    encode: Any = model.encode_query if task == "query" else model.encode_document
    origin = _origins.get(model)

    def compute(texts: Sequence[str]) -> Iterator[tuple[list[int], Rows]]:
        if trainer is not None and origin is not None and shared(trainer, texts):
            yield (
                list(range(len(texts))),
                embed_on_devices(
                    texts,
                    trainer,
                    folder=origin.folder,
                    pooling=origin.pooling,
                    max_length=model.max_seq_length,
                    prompts=model.prompts,
                    task=task,
                    what=what,
                    batch_size=batch_size,
                    tokens=tokens,
                ),
            )
            return
        if tokens is None:
            batches = by_length([-len(text) for text in texts], batch_size)
        else:
            batches = by_size_and_tokens(lengths_of_texts(model, texts), batch_size, tokens)
        blank = without_tokens(model, texts, (model.prompts or {}).get(task))
        for batch in track(batches, f"embedding {what}") if what else batches:
            part = [i for i in batch if i not in blank]
            if not part:
                continue
            found = encode(
                [texts[i] for i in part],
                batch_size=batch_size,
                convert_to_tensor=True,
                normalize_embeddings=True,
                show_progress_bar=False,
            )
            yield part, found.float().cpu().numpy()

    rows_ND = np.zeros((len(distinct), model.get_embedding_dimension() or 0), dtype=np.float32)
    shelf = shelf_of(model, task)
    if shelf is not None:
        shelf.complete(rows_ND, list(distinct), compute)
    else:
        for part, found in compute(list(distinct)):
            rows_ND[part] = found
    return rows_ND if len(distinct) == len(texts) else rows_ND[[distinct[text] for text in texts]]


def shared(trainer: LightningTrainer, texts: Sequence[str]) -> bool:
    """Whether devices share in these texts: those of one machine do, in many."""
    return trainer.num_nodes == 1 < trainer.devices and len(texts) >= WORTH * trainer.devices


def embed_on_devices(texts: Sequence[str], trainer: LightningTrainer, **how: Any) -> Rows:
    """Unit embeddings (texts, dimensions); `how` is what `embed_share` is told besides."""
    from zelo.distributed.ranks import on_devices

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        write_json(out / TEXTS, {"texts": list(texts)})
        on_devices(embed_share, out, trainer, **how)
        shares = [np.load(out / f"{rank}.npy") for rank in range(trainer.processes)]
    rows = np.empty((len(texts), shares[0].shape[1]), dtype=np.float32)
    for rank, share in enumerate(shares):
        rows[share_of(texts, rank, trainer.processes)] = share
    return rows


def share_of(texts: Sequence[str], rank: int, world_size: int) -> list[int]:
    """Indices of a rank's texts: all shares are about as long."""
    return sorted(range(len(texts)), key=lambda i: -len(texts[i]))[rank::world_size]


def embed_share(
    *,
    out: Path,
    trainer: LightningTrainer,
    folder: Path,
    pooling: str | None,
    max_length: int | None,
    prompts: Mapping[str, str],
    task: str,
    what: str,
    batch_size: int,
    tokens: int | None,
) -> None:
    """Embed this rank's texts by the model in `folder`, as `load_embedding_model` and `embed`."""
    from zelo.distributed.ranks import this_process

    rank, world_size, local = this_process()
    texts = read_json(out / TEXTS)["texts"]
    own = [texts[i] for i in share_of(texts, rank, world_size)]
    model = load_embedding_model(folder, max_length, pooling)
    model.prompts = dict(prompts)
    ready_to_embed(model, trainer, local)
    with trainer.autocast(model.device):
        rows = embed_here(model, own, batch_size, task, "" if rank else what, tokens)
    np.save(out / f"{rank}.npy", rows)


def lengths_of_texts(model: SentenceTransformer, texts: Sequence[str]) -> list[int]:
    """Tokens of each text as `model` reads it, or a few more: as if by its longest prompt."""
    from zelo.models.tokens import lengths_of

    frames = [model.preprocess([prompt])["input_ids"].shape[1]
              for prompt in ["", *filter(None, model.prompts.values())]]  # fmt: skip
    of = lengths_of(model.tokenizer, texts)
    whole = [max(frames) + of[text] for text in texts]
    most = model.max_seq_length
    return whole if most is None else [min(length, most) for length in whole]


def embed_queries(
    model: SentenceTransformer,
    queries: Mapping[str, str],
    batch_size: int,
    tokens: int | None = None,
    trainer: LightningTrainer | None = None,
    instructions: Mapping[str, str] = NONE,
) -> torch.Tensor:
    """Unit embeddings of queries, each read under its instruction, as `embed` gives them."""
    told = as_read(model, queries, instructions)
    return embed_told(model, list(told.values()), batch_size, tokens, trainer)


def embed_told(
    model: SentenceTransformer,
    queries: Sequence[Told],
    batch_size: int,
    tokens: int | None = None,
    trainer: LightningTrainer | None = None,
) -> torch.Tensor:
    """Unit embeddings of queries, each read as it is told, as `embed` gives them."""
    base = base_prompt(model)
    if all(query.prompt == base for query in queries):
        texts = [query.text for query in queries]
        return embed(model, texts, batch_size, "query", "queries", tokens, trainer)
    texts = [f"{query.prompt or ''}{query.text}" for query in queries]
    with without_prompt(model):
        return embed(model, texts, batch_size, "query", "queries", tokens, trainer)


def rerank_by_cosine(
    model: SentenceTransformer,
    queries: Mapping[str, str],
    documents: Mapping[str, str],
    candidates: Mapping[str, Sequence[str]],
    batch_size: int,
    tokens: int | None = None,
    trainer: LightningTrainer | None = None,
    instructions: Mapping[str, str] = NONE,
) -> dict[str, list[float]]:
    """Cosine similarity of each query with each of its candidates, in the candidates' order."""
    wanted = sorted({doc_id for docs in candidates.values() for doc_id in docs})
    row_of = {doc_id: i for i, doc_id in enumerate(wanted)}
    texts = [documents[i] for i in wanted]
    asked = {i: queries[i] for i in candidates}
    d = embed(model, texts, batch_size, "document", "candidates", tokens, trainer)
    q = embed_queries(model, asked, batch_size, tokens, trainer, instructions)
    return {
        query_id: (d[[row_of[doc_id] for doc_id in docs]] @ q[row]).tolist() if docs else []
        for row, (query_id, docs) in enumerate(candidates.items())
    }
