"""`training.max_tokens_per_forward` limits what is read at once in scoring, too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import write_beir

from zelo.config import build_from, conf_folder
from zelo.distributed.trainer import LightningTrainer
from zelo.judging.distilled import Distilled
from zelo.judging.question import Question
from zelo.models.batching import by_size_and_tokens
from zelo.models.pairwise import PairwiseCrossEncoder
from zelo.models.pretrained import PretrainedModel
from zelo.pipeline import run_stages
from zelo.run_config import STAGE_NAMES
from zelo.store import Store
from zelo.training.bi_encoder import BiEncoder
from zelo.training.cross_encoder import CrossEncoder
from zelo.training.loggers import Tracking
from zelo.training.objectives import CentredMSE
from zelo.training.options import TrainingOptions

WORDS = 30522  # of the tokenizer; other tables are smaller
QUERIES = {f"q{i}": f"query number {i} " * (1 + i) for i in range(4)}
DOCUMENTS = {f"d{i}": "some words of a document " * (1 + 2 * i) for i in range(9)}
CANDIDATES = {query_id: list(DOCUMENTS) for query_id in QUERIES}


@contextmanager
def reading() -> Iterator[list[int]]:
    """Sizes of all batches of token ids that models embed meanwhile, padding included."""
    sizes: list[int] = []

    def note(module: torch.nn.Module, inputs: Any, _: Any) -> None:
        if isinstance(module, torch.nn.Embedding) and module.num_embeddings >= WORDS:
            sizes.append(inputs[0].numel())

    handle = torch.nn.modules.module.register_module_forward_hook(note)
    try:
        yield sizes
    finally:
        handle.remove()


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 9), st.integers(1, 200))
def test_batches_are_within_both_limits(lengths: list[int], size: int, budget: int) -> None:
    batches = by_size_and_tokens(lengths, size, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert 1 <= len(batch) <= size
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget
    longest = [max(lengths[i] for i in batch) for batch in batches]
    assert longest == sorted(longest, reverse=True)


@pytest.mark.parametrize("kind", [BiEncoder, CrossEncoder])
def test_candidates_are_scored_within_the_limit(
    tiny_model: Path, tmp_path: Path, kind: type[BiEncoder] | type[CrossEncoder]
) -> None:
    model = kind(pretrained=PretrainedModel(name=str(tiny_model)), max_length=96)
    model.module(CentredMSE(), TrainingOptions()).save_pretrained(tmp_path / "model")
    for folder in (None, tmp_path / "model"):
        arguments = (folder, QUERIES, DOCUMENTS, CANDIDATES, tmp_path, LightningTrainer())
        with reading() as sizes:
            free = model.score(*arguments)
        assert max(sizes) > 200
        with reading() as sizes:
            held = model.score(*arguments, max_tokens_per_forward=200)
        assert 96 <= max(sizes) <= 200
        for query_id, scores in free.items():
            assert held[query_id] == pytest.approx(scores, abs=1e-5)


def test_a_distilled_judge_reads_within_the_limit(tiny_model: Path, tmp_path: Path) -> None:
    PairwiseCrossEncoder(tiny_model, 16, 96).save(tmp_path)
    pairs = [(a, b) for a in DOCUMENTS.values() for b in DOCUMENTS.values() if a < b]
    questions = [Question("q", a[:9], b[:9], 0, "query", a, b) for a, b in pairs]
    answers = []
    for tokens in (None, 200):
        judge = Distilled(folder=tmp_path, max_tokens_per_forward=tokens).prepare(tmp_path, {}, 0)
        with reading() as sizes:
            answers.append([answer.score for answer in judge.answer(questions)])
        assert (max(sizes) <= 200) == (tokens is not None)
    assert answers[0] == pytest.approx(answers[1], abs=1e-6)


NOTED: list[int] = []


class Noting(BiEncoder):
    """Notes how many tokens it may read at once."""

    def score(self, *arguments: Any) -> dict[str, list[float]]:
        NOTED.append(arguments[-1])
        return super().score(*arguments)


def test_the_option_reaches_the_stages_that_score(tmp_path: Path, tiny_model: Path) -> None:
    """`evaluate`, of two models in two passes, and `refine` between them."""
    documents = {f"d{i}": f"text of document number {i}" for i in range(14)}
    queries = {f"q{i}": f"query for document {i}" for i in range(6)}
    labels = {"train": [("q0", "d13", 1), ("q1", "d12", 1), ("q2", "d11", 1)],
              "test": [("q4", "d4", 1), ("q5", "d5", 1)]}  # fmt: skip
    folder = write_beir(tmp_path / "own", documents, queries, labels)
    options = [
        "data=beir", f"data.path={folder}", "retriever=bm25", "distil=on", "refine=on",
        "refine.threshold=1", f"model._target_={__name__}.Noting", f"pretrained.path={tiny_model}",
        "training.max_tokens_per_forward=300", "depth=6", "sampler.cycles=1",
        "refine.sample_queries=2",
        "refine.sample_depth=3", "evaluation.resamples=100", f"home={tmp_path}",
    ]  # fmt: skip
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        run = build_from(compose("config", overrides=options))
    selected = frozenset(STAGE_NAMES) - {"report"}
    store = Store(tmp_path / "store", selected, lambda _: None)
    NOTED.clear()
    run_stages(run, store, Tracking(tracker=run.logger, folder=tmp_path))
    assert NOTED == [300] * 5
