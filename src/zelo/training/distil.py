"""Stage `distil`: the ensemble's judgments in, a pairwise reranker that stands in for it out."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from zelo.artifacts import read_table, writing_below
from zelo.config import Component, option
from zelo.data.texts import document_texts, query_texts
from zelo.distributed.ranks import on_devices
from zelo.distributed.trainer import LightningTrainer
from zelo.errors import UserError
from zelo.judging.ensemble import Preferences, average
from zelo.models.lora import Lora, merge, prepare
from zelo.models.pretrained import PretrainedModel
from zelo.store import stage
from zelo.training.options import TrainingOptions
from zelo.training.train import MODEL

TRIPLES = "triples.arrow"


class PairwiseModel(Component):
    """The pairwise cross-encoder that learns from the ensemble (METHOD, stage 3)."""

    pretrained: PretrainedModel = option(help="encoder to start from")
    max_query_length: int = option(48, "longer queries are cut here", ge=4)
    max_length: int = option(192, "query and both documents together", ge=16)
    logit_scale: float = option(6.0, "factor of the cosines in the head", gt=0)
    lora: Lora | None = option(None, "adapters in place of full fine-tuning")
    gradient_checkpointing: bool = option(
        False, "make activations anew in the backward pass: less memory, slower", exclude=True
    )


@stage(version=3)
def distil(
    *,
    out: Path,
    data: Path,
    model: PairwiseModel,
    training: TrainingOptions,
    trainer: LightningTrainer,
    vote: str,
    seed: int,
    logger: Callable[[str], Any],
    **judgments: Path,
) -> Mapping[str, Any]:
    """Train `R_pair` on soft preferences and write it to `out/model`.

    `judgments` are folders of the ensemble's answers, one for each time that it was asked.
    """
    from zelo.models.tokens import write_tokens
    from zelo.training.checkpoints import CHECKPOINTS, drop_damaged
    from zelo.training.fit import load_fitted
    from zelo.training.readers import TOKENS

    refuse_held_out(training)
    drop_damaged(out, TOKENS)
    said = answers(judgments, vote)
    queries, documents = query_texts(data), document_texts(data, {*said.doc_a, *said.doc_b})
    triples = [
        (queries[q], documents[a], documents[b])
        for q, a, b in zip(said.query_ids, said.doc_a, said.doc_b, strict=True)
    ]
    if not triples:
        raise UserError("distil: the ensemble answered no comparison; there is nothing to learn")
    steps = training.steps(-(-len(triples) // training.batch_size))
    reading = module_of(model, training, steps, seed).model
    both = [triple for q, a, b in triples for triple in ((q, a, b), (q, b, a))]
    write_tokens(reading.encode, both, out / TOKENS / TRIPLES, reading.tokenizer, "triples")
    pairs = len(triples)
    del queries, documents, triples, both, reading
    on_devices(
        learn_pairs,
        out,
        trainer,
        model=model,
        training=training,
        vote=vote,
        seed=seed,
        logger=logger,
        **judgments,
    )
    trained = module_of(model, training, steps, seed)
    fitted = load_fitted(trained, out)
    with writing_below(out / MODEL):
        if trained.adapted is not None:
            merge(trained.adapted, out / MODEL / "adapter", model.pretrained.name)
        trained.model.eval().save(out / MODEL)
    for folder in (TOKENS, CHECKPOINTS):  # what is dear last
        shutil.rmtree(out / folder)
    return {"pairs": pairs, "steps": steps, "final_loss": fitted["final_loss"]}


def learn_pairs(
    *,
    out: Path,
    model: PairwiseModel,
    training: TrainingOptions,
    trainer: LightningTrainer,
    vote: str,
    seed: int,
    logger: Callable[[str], Any],
    **judgments: Path,
) -> None:
    """Train on this rank's share of what `distil` tokenised."""
    from zelo.models.tokens import TokenFile
    from zelo.training.batches import Judged, PairwiseDataModule
    from zelo.training.fit import fit
    from zelo.training.readers import TOKENS

    said = answers(judgments, vote)
    judged = [
        Judged(query_id, 2 * i, p)
        for i, (query_id, p) in enumerate(zip(said.query_ids, said.p.tolist(), strict=True))
    ]
    batches = PairwiseDataModule(
        judged,
        TokenFile(out / TOKENS / TRIPLES),
        training.batch_size,
        seed,
        trainer.max_tokens_per_forward(training.max_tokens_per_forward),
        training.accumulate_grad_batches,
    )
    steps = training.steps(batches.loader.steps)
    module = module_of(model, training, steps, seed)
    with of_distil():
        fit(module, batches, out, steps, training, trainer, logger("distil"), "distilling")


@contextmanager
def of_distil() -> Iterator[None]:
    """Have errors name the options of the group `distil`."""
    try:
        yield
    except UserError as error:
        line = re.sub(r"(?<![\w.])(training|model)\.(?=[a-z])", r"distil.\1.", str(error))
        raise UserError(line) from None


def refuse_held_out(training: TrainingOptions) -> None:
    """`UserError` where some of what there is to learn from would be held out."""
    if training.validation_fraction:
        raise UserError(
            "distil.training.validation_fraction: only the model that is shipped is validated"
        )


def answers(judgments: Mapping[str, Path], vote: str) -> Preferences:
    """What the ensemble said, each pair once."""
    tables = [read_table(folder, "judgments") for folder in judgments.values()]
    return average(pa.concat_tables(tables), vote)


def module_of(model: PairwiseModel, training: TrainingOptions, steps: int, seed: int) -> Any:
    """The LightningModule, whose new parameters are the same wherever it is made."""
    import torch

    from zelo.models.pairwise import PairwiseReranker
    from zelo.training.modules import PairwiseModule

    torch.manual_seed(seed)
    reranker = PairwiseReranker(
        model.pretrained.locate(), model.max_query_length, model.max_length, model.logit_scale
    )
    adapted = prepare(reranker.encoder, model.lora, model.gradient_checkpointing)
    module = PairwiseModule(reranker, training, steps)
    module.remember(adapted)
    return module
