"""Dense retrieval: cosine similarity of embeddings, exact or by a FAISS index.

Documents are embedded in parts, and only the best hits of each part are kept: memory holds the
embeddings of the queries and of one part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zelo.config import Component, option
from zelo.data.texts import PART, Corpus
from zelo.distributed.trainer import LightningTrainer
from zelo.errors import UserError
from zelo.models.instructions import NONE
from zelo.models.pretrained import PretrainedModel
from zelo.retrieval.ranking import Hits

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

PASSAGE_PART = 1000  # documents of a part where they are split into passages
BLOCK = 1024  # queries scored at once, which limits the size of the matrix of similarities
TRAINED_ON = 100_000  # embeddings that a FAISS index learns its cells and codes from


class Dense(Component):
    """`retriever=dense`: an embedding model's cosine similarity, with the model's prompts."""

    pretrained: PretrainedModel = option(help="embedding model to search with")
    max_length: int = option(256, "longer texts are cut here, or split", ge=8)
    passages: bool = option(
        False,
        "split documents longer than max_length into passages that overlap by a quarter; the best "
        "passage counts",
    )
    faiss: str | None = option(
        None, "index factory of FAISS (IVF4096,PQ64; Flat): approximate; null: exact"
    )
    faiss_probes: int = option(32, "cells of an IVF index that are searched", ge=1)
    batch_size: int = option(64, "texts embedded at once", ge=1, exclude=True)
    trainer: LightningTrainer = option(LightningTrainer(), "device and precision")

    def search(self, queries: Mapping[str, str], corpus: Corpus, k: int) -> dict[str, Hits]:
        """Best `k` documents of each query, with their cosine similarity."""
        from zelo.models.embedding import embed, load_embedding_model

        model = load_embedding_model(self.pretrained.locate(), self.max_length)
        asked = list(queries.values())
        q = embed(model, asked, self.batch_size, "query", "queries", trainer=self.trainer)
        k = min(k, len(corpus))
        if self.faiss is not None:
            return {"dense": self._by_faiss(self.faiss, model, q, corpus, k)}
        parts = corpus.parts(PASSAGE_PART if self.passages else PART)
        embedded = ((*self._embed(model, part), len(part)) for part in parts)
        return {"dense": nearest_of_all(q.to(model.device), embedded, k)}

    def embeds_with(self) -> tuple[PretrainedModel, int]:
        """The model that embeds, and the tokens at which documents are cut."""
        return self.pretrained, self.max_length

    def _embed(
        self, model: SentenceTransformer, texts: Sequence[str]
    ) -> tuple[torch.Tensor, np.ndarray[Any, np.dtype[np.int64]]]:
        """Embeddings of texts or of their passages, and the index of the text of each."""
        from zelo.models.embedding import embed

        owner = np.arange(len(texts))
        if self.passages:
            length = model.max_seq_length - tokens_of_prompt(model)
            passages = [split(model.tokenizer, text, length) for text in texts]
            owner = np.repeat(owner, [len(of_text) for of_text in passages])
            texts = [passage for of_text in passages for passage in of_text]
        d = embed(model, texts, self.batch_size, "document", "documents", trainer=self.trainer)
        return d, owner

    def _by_faiss(
        self, factory: str, model: SentenceTransformer, q: torch.Tensor, corpus: Corpus, k: int
    ) -> Hits:
        """Search a FAISS index of inner products, which holds codes instead of embeddings."""
        try:
            import faiss
        except ImportError:
            raise UserError(
                "retriever.faiss: package faiss is missing; pip install 'zelo[faiss]'"
            ) from None
        if self.passages:
            raise UserError("retriever.faiss: not with passages=true: search exactly, or cut")
        try:
            index = faiss.index_factory(q.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
            return self._search_faiss(faiss, index, model, q, corpus, k)
        except RuntimeError as error:  # of FAISS itself
            reason = str(error).strip().splitlines()[-1]
            raise UserError(f"retriever.faiss={factory}: {reason}") from None

    def _search_faiss(
        self, faiss: Any, index: Any, model: SentenceTransformer, q: torch.Tensor,
        corpus: Corpus, k: int,
    ) -> Hits:  # fmt: skip
        """Fill an index part by part and search it."""
        waiting: list[Any] = []
        for part in corpus.parts():
            waiting.append(self._embed(model, part)[0].numpy())
            if not index.is_trained and sum(map(len, waiting)) < min(TRAINED_ON, len(corpus)):
                continue
            if not index.is_trained:
                index.train(np.concatenate(waiting))
            index.add(np.concatenate(waiting))
            waiting.clear()
        if "IVF" in str(self.faiss):
            faiss.extract_index_ivf(index).nprobe = self.faiss_probes
        score, document = index.search(q.numpy(), k)
        return Hits(
            document.astype(np.int64), np.where(document < 0, -np.inf, score.astype(np.float64))
        )


def search_by(
    model: SentenceTransformer,
    queries: Mapping[str, str],
    corpus: Corpus,
    k: int,
    batch_size: int,
    trainer: LightningTrainer,
    instructions: Mapping[str, str] = NONE,
) -> Hits:
    """Best `k` documents of each query, read under its instruction, by the cosine similarity of a
    loaded model's embeddings."""
    from zelo.models.embedding import embed, embed_queries

    q = embed_queries(model, queries, batch_size, None, trainer, instructions)
    embedded = (
        (embed(model, part, batch_size, "document", "documents", trainer=trainer), len(part))
        for part in corpus.parts()
    )
    each_its_own = ((d, np.arange(texts), texts) for d, texts in embedded)
    return nearest_of_all(q.to(model.device), each_its_own, min(k, len(corpus)))


def nearest_of_all(
    q: torch.Tensor,
    parts: Iterable[tuple[torch.Tensor, np.ndarray[Any, np.dtype[np.int64]], int]],
    k: int,
) -> Hits:
    """Best `k` texts for queries `q` (Q, dimensions) of all parts; each is embeddings, the index of
    each one's text, and how many texts there are."""
    best, first = Hits.empty(len(q), k), 0
    for d, owner, texts in parts:
        best = merged(best, nearest(q, d, owner, texts, k), first, k)
        first += texts
    return best


def nearest(
    q: torch.Tensor,
    d: torch.Tensor,
    owner: np.ndarray[Any, np.dtype[np.int64]],
    texts: int,
    k: int,
) -> Hits:
    """Best texts of a part for queries `q` (Q, dimensions): the best passage of each counts.

    `d` (passages, dimensions) are embeddings of passages, and `owner` (passages,) the index of each
    one's text. Ties are broken arbitrarily. Computed on the device of `q`.
    """
    import torch

    documents, scores = [], []
    d, owners = d.to(q.device), torch.from_numpy(owner).to(q.device)
    for start in range(0, len(q), BLOCK):
        similarity = q[start : start + BLOCK] @ d.T
        if len(d) > texts:
            whole = torch.full((len(similarity), texts), -torch.inf, device=q.device)
            similarity = whole.scatter_reduce(
                1, owners.expand(len(similarity), -1), similarity, "amax"
            )
        score, document = similarity.topk(min(k, texts), dim=1)
        documents.append(document.cpu().numpy())
        scores.append(score.double().cpu().numpy())
    return Hits(np.concatenate(documents), np.concatenate(scores))


def merged(best: Hits, part: Hits, first: int, k: int) -> Hits:
    """The best `k` of two rankings; document 0 of `part` has index `first` in the collection."""
    doc_QK = np.concatenate([best.doc_QK, part.doc_QK + first], axis=1)
    score_QK = np.concatenate([best.score_QK, part.score_QK], axis=1)
    order = np.lexsort((doc_QK, -score_QK), axis=1)[:, :k]  # equal scores: the collection's order
    return Hits(
        np.take_along_axis(doc_QK, order, axis=1), np.take_along_axis(score_QK, order, axis=1)
    )


def tokens_of_prompt(model: SentenceTransformer) -> int:
    """Tokens that the model puts before a document."""
    prompt = (model.prompts or {}).get("document") or ""
    return len(model.tokenizer(prompt, add_special_tokens=False)["input_ids"]) if prompt else 0


def split(tokenizer: Any, text: str, max_length: int) -> list[str]:
    """A text in passages of at most `max_length` tokens, special ones included; each overlaps the
    one before by a quarter. A text that is short enough is one passage."""
    encoded = tokenizer(
        text, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False
    )
    spans = encoded["offset_mapping"]
    length = max(max_length - tokenizer.num_special_tokens_to_add(), 1)
    if len(spans) <= length:
        return [text]
    step = max(length - length // 4, 1)
    starts = range(0, max(len(spans) - length // 4, 1), step)
    return [text[spans[s][0] : spans[min(s + length, len(spans)) - 1][1]] for s in starts]
