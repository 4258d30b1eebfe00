"""Embedding models as retrievers of a whole corpus."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from zelo.data.texts import Corpus
from zelo.distributed.trainer import LightningTrainer
from zelo.models.instructions import NONE
from zelo.retrieval.ranking import Ranking, documents_left_out_of
from zelo.retrieval.retrieve import RANKED
from zelo.training.bi_encoder import BiEncoder
from zelo.training.trainable import TrainableModel

LEXICAL = "bm25"  # the first stage's ranking that a search is fused with


def searcher(model: TrainableModel, corpus: Corpus, at_most: int) -> BiEncoder | None:
    """The model, where it is one that searches and the corpus has at most so many documents."""
    return model if isinstance(model, BiEncoder) and len(corpus) <= at_most else None


def search_corpus(
    model: BiEncoder,
    folder: Path | None,
    queries: Mapping[str, str],
    corpus: Corpus,
    trainer: LightningTrainer,
    instructions: Mapping[str, str] = NONE,
) -> Ranking:
    """The best `RANKED` documents of each query, by the model in `folder` (None: the start)."""
    from zelo.retrieval.dense import search_by

    k = RANKED + bool(corpus.left_out)
    loaded = model.to_score(folder)
    hits = search_by(loaded, queries, corpus, k, model.batch_size, trainer, instructions)
    left_out_Q = documents_left_out_of(queries, corpus)
    return hits.without(left_out_Q).top(RANKED).ranking(list(queries), corpus.ids)
