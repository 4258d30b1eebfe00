"""The labelled baseline: sentence-transformers' own trainer with MultipleNegativesRankingLoss.

Every (query, labelled positive) of the training queries, each with a hard negative: one of the
query's first unlabelled candidates, drawn anew for each use of the pair.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.base.training_args import BatchSamplers
from sentence_transformers.cross_encoder import CrossEncoderTrainer
from sentence_transformers.cross_encoder.losses import (
    MultipleNegativesRankingLoss as CrossEncoderLoss,
)
from sentence_transformers.cross_encoder.training_args import CrossEncoderTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.training_args import (
    SentenceTransformerTrainingArguments,
)

from zelo.artifacts import read_table
from zelo.data.texts import document_texts, documents_there, query_texts, relevance_grades
from zelo.models.cross_encoder import load_cross_encoder, save_cross_encoder
from zelo.retrieval.ranking import candidates_from
from zelo.seeding import stream
from zelo.training.base_module import freeze


def triples(data: Path, candidates: Path, mined: int, wanted: int) -> list[tuple[str, str, str]]:
    """(query, positive, hard negative) texts, `wanted` of them, in passes over all positives.

    Negatives come from the first `mined` candidates without a label. Raises `ValueError` where
    every candidate of a query has one.
    """
    grades = relevance_grades(data, "train")
    pool = candidates_from(read_table(candidates, "candidates"))
    queries = query_texts(data, "train")
    pairs = [(q, d) for q in queries for d, grade in grades.get(q, {}).items() if grade > 0]
    there = documents_there(data, {d for _, d in pairs})
    pairs = [(q, d) for q, d in pairs if d in there]
    negatives = {q: [d for d in pool[q] if not grades[q].get(d)][:mined] for q, _ in pairs}
    if not all(negatives.values()):
        raise ValueError("a training query has no candidate without a label")
    texts = document_texts(data, {d for _, d in pairs} | {d for n in negatives.values() for d in n})
    rng = stream(0, "baseline")
    found: list[tuple[str, str, str]] = []
    while len(found) < wanted:
        for i in rng.permutation(len(pairs)):
            q, positive = pairs[i]
            negative = negatives[q][rng.integers(len(negatives[q]))]
            found.append((queries[q], texts[positive], texts[negative]))
    return found[:wanted]


def train(
    kind: str, start: Path, examples: list[tuple[str, str, str]], steps: int, rate: float,
    frozen: int, tokens: tuple[int, int], out: Path,
) -> None:  # fmt: skip
    """Train `kind` (embedding or reranker) from `start` for `steps` steps and save it to `out`.

    `tokens`: longest text in training, and in the model that is saved.
    """
    names = ("anchor", "positive", "negative")
    rows = dict(zip(names, map(list, zip(*examples, strict=True)), strict=True))
    options: dict[str, Any] = {
        "output_dir": str(out.with_name(out.name + "-trainer")), "max_steps": steps,
        "per_device_train_batch_size": len(examples) // steps, "learning_rate": rate,
        "warmup_steps": round(0.1 * steps), "weight_decay": 0.01, "seed": 0, "use_cpu": True,
        "batch_sampler": BatchSamplers.NO_DUPLICATES, "save_strategy": "no", "report_to": "none",
        "logging_steps": max(steps // 10, 1), "disable_tqdm": True,
    }  # fmt: skip
    model: Any
    if kind == "embedding":
        model = SentenceTransformer(str(start), local_files_only=True).float()
        trainer, args = SentenceTransformerTrainer, SentenceTransformerTrainingArguments
        loss: Any = MultipleNegativesRankingLoss(model)
    else:
        model = load_cross_encoder(start)
        trainer, args = CrossEncoderTrainer, CrossEncoderTrainingArguments
        # Logits of 20 · cosine, the library's own temperature for cosines; the head gives 6 of it.
        loss = CrossEncoderLoss(model, num_negatives=2, scale=20 / 6, activation_fn=None)
    model.max_seq_length = tokens[0]
    freeze(model[0].model, frozen)
    trainer(
        model=model, args=args(**options), train_dataset=Dataset.from_dict(rows), loss=loss
    ).train()
    model.max_seq_length = tokens[1]
    if kind == "embedding":
        model.save_pretrained(str(out), create_model_card=False)
    else:
        save_cross_encoder(model, out)
