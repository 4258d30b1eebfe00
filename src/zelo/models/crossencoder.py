"""The cross-encoder: query and document read together, and what the stages do with one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zelo.config import Component, option
from zelo.models.batching import by_length
from zelo.models.biencoder import DEFAULT_SCALE
from zelo.models.weights import Weights

if TYPE_CHECKING:
    from zelo.training.modules import CrossEncoderModule
    from zelo.training.objectives import Objective
    from zelo.training.options import TrainingOptions


class CrossEncoder(Component):
    """`model=reranker`: one score per pair of query and document.

    Three heads: `segments` starts as the bi-encoder that the backbone came from (`segments.py`) and
    ships with its own code; `mean` (mean pooling and a linear layer) and `cls` (the usual
    sequence-classification head) are stock and load everywhere.
    """

    weights: Weights = option(help="encoder to start from")
    head: str = option(
        "segments", "what turns tokens into a score", pattern="^(segments|mean|cls)$"
    )
    max_tokens: int = option(256, "longer pairs are cut here, in training and after", ge=8)
    train_max_tokens: int | None = option(
        None, "cut shorter than that in training, for speed", ge=8
    )
    scale: float | None = option(
        None,
        "factor of the cosine in the `segments` head; null: so that the starting model's "
        "predictions spread as the targets do (6 where the objective fixes their level)",
        gt=0,
    )
    batch_size: int = option(64, "pairs scored at once", ge=1, exclude=True)
    kind: str = option("cross-encoder", "what it is called in reports", exclude=True)

    def module(
        self, objective: Objective, training: TrainingOptions, steps: int
    ) -> CrossEncoderModule:
        """Return the LightningModule that trains it for `steps` steps."""
        from zelo.training.modules import CrossEncoderModule

        model = new_cross_encoder(self.weights.locate(), self.head, self.scale or DEFAULT_SCALE)
        model.max_seq_length = self.train_max_tokens or self.max_tokens
        return CrossEncoderModule(model, objective, training, steps)

    def export(self, module: CrossEncoderModule, folder: Path) -> None:
        """Write a folder that `sentence_transformers.CrossEncoder(folder)` loads."""
        module.model.max_seq_length = self.max_tokens
        # Scores leave the shipped model as the objective compared them with targets.
        module.model.activation_fn = module.objective.activation()
        save_cross_encoder(module.model, folder)

    def score(
        self,
        folder: Path | None,
        queries: Mapping[str, str],
        documents: Mapping[str, str],
        candidates: Mapping[str, Sequence[str]],
    ) -> dict[str, list[float]]:
        """Scores of each query's candidates by the model in `folder`.

        With None the starting model scores: the embedding model that the backbone came from.
        """
        if folder is None:
            from zelo.models.embedding import load_embedding_model, rerank_by_cosine

            start: Any = load_embedding_model(self.weights.locate(), self.max_tokens)
            return rerank_by_cosine(start, queries, documents, candidates, self.batch_size)
        model = load_cross_encoder(folder)
        pairs = [
            (queries[query_id], documents[doc_id])
            for query_id, docs in candidates.items()
            for doc_id in docs
        ]
        scores = iter(predict(model, pairs, self.batch_size))
        return {query_id: [next(scores) for _ in docs] for query_id, docs in candidates.items()}


def new_cross_encoder(folder: Path, head: str, scale: float = 6.0) -> Any:
    """Build a `sentence_transformers.CrossEncoder` on the encoder in `folder` with a new `head`."""
    import torch
    from sentence_transformers import CrossEncoder as Stock
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    from zelo.models.embedding import quiet_transformers
    from zelo.models.segments import SegmentHead

    quiet_transformers()
    identity = torch.nn.Identity()
    options = {"model_kwargs": {"use_safetensors": True}}
    if head == "cls":
        return Stock(
            str(folder), num_labels=1, activation_fn=identity, local_files_only=True, **options
        ).float()
    encoder = Transformer(str(folder), transformer_task="feature-extraction", **options)
    dimension = encoder.get_embedding_dimension()
    encoder.model.config.num_labels = 1  # where the library looks for what an own head gives
    if head == "segments":
        modules = [encoder, SegmentHead(dimension, scale)]
    else:
        last = Dense(dimension, 1, activation_function=identity, module_output_name="scores")
        modules = [encoder, Pooling(dimension, pooling_mode="mean"), last]
    return Stock(modules=modules, num_labels=1, activation_fn=identity).float()


def save_cross_encoder(model: Any, folder: Path) -> None:
    """Write `model` as a folder; a `segments` head takes its code along."""
    from zelo.models import segments

    model.save_pretrained(str(folder), create_model_card=False)
    record = folder / "modules.json"
    modules = json.loads(record.read_text(encoding="utf-8"))
    for module in modules:
        if module["type"] == f"{segments.__name__}.{segments.SegmentHead.__name__}":
            shutil.copy(str(segments.__file__), folder / "segments.py")
            module["type"] = "segments.SegmentHead"
    record.write_text(json.dumps(modules, indent=2), encoding="utf-8")


def load_cross_encoder(folder: Path) -> Any:
    """Load a folder that `save_cross_encoder` wrote; its head's code is the installed one."""
    from sentence_transformers import CrossEncoder as Stock

    from zelo.models.embedding import quiet_transformers
    from zelo.models.segments import SegmentHead

    quiet_transformers()
    with_own_head = (folder / "segments.py").is_file()

    class Loader(Stock):  # type: ignore[misc]
        _module_classes = {"segments.SegmentHead": SegmentHead}  # noqa: RUF012

    return (Loader if with_own_head else Stock)(str(folder), local_files_only=True).float()


def predict(model: Any, pairs: Sequence[tuple[str, str]], batch_size: int) -> list[float]:
    """Scores of pairs in their order, float32, longest texts first so that batches pad little."""
    from zelo.progress import track

    batches = by_length([-len(query) - len(document) for query, document in pairs], batch_size)
    scores = [0.0] * len(pairs)
    for part in track(batches, "scoring pairs"):
        values = model.predict(
            [pairs[i] for i in part], batch_size=batch_size, show_progress_bar=False
        )
        for i, value in zip(part, values.tolist(), strict=True):
            scores[i] = value
    return scores
