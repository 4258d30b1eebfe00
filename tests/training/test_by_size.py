"""Options of training that are left open."""

from __future__ import annotations

import pytest
from transformers import AlbertConfig, AlbertModel, BertConfig, BertModel

from zelo.training.by_size import by_size, left_open, sizes_of
from zelo.training.optimization import Adafactor, AdamW
from zelo.training.options import TrainingOptions

MINILM, BERT = (6, 384), (12, 768)


@pytest.mark.parametrize(
    ("steps_per_epoch", "epochs"), [(0, 8), (3, 8), (25, 8), (29, 7), (100, 2), (199, 2), (200, 1)]
)
def test_few_queries_are_read_more_often(steps_per_epoch: int, epochs: int) -> None:
    chosen = by_size(TrainingOptions(), steps_per_epoch, *MINILM, adapters=False)
    assert chosen.max_epochs == epochs


@pytest.mark.parametrize(
    ("steps_per_epoch", "adapters", "frozen"),
    [(10, False, 3), (10, True, 0), (1999, False, 3), (2000, False, 0)],
)
def test_the_lower_half_stays_where_there_is_little_to_learn_from(
    steps_per_epoch: int, adapters: bool, frozen: int
) -> None:
    chosen = by_size(TrainingOptions(), steps_per_epoch, *MINILM, adapters)
    assert chosen.frozen_layers == frozen
    cut = by_size(TrainingOptions(max_steps=50), 9999, *MINILM, adapters=False)
    assert cut.frozen_layers == 3


@pytest.mark.parametrize(
    ("width", "adapters", "lr"),
    [(64, False, 1e-4), (384, False, 1e-4), (768, False, 5e-5), (2560, False, 1.5e-5),
     (2560, True, 1e-4), (None, False, 1e-4)],
)  # fmt: skip
def test_wide_models_learn_at_a_lower_rate(width: int | None, adapters: bool, lr: float) -> None:
    assert by_size(TrainingOptions(), 10, 12, width, adapters).optimizer.lr == pytest.approx(lr)


def test_sizes_are_read_off_the_model() -> None:
    small = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
             "intermediate_size": 64, "vocab_size": 50}  # fmt: skip
    assert sizes_of(BertModel(BertConfig(**small))) == (3, 32)
    shared = AlbertConfig(**small, embedding_size=16)
    assert sizes_of(AlbertModel(shared)) == (0, 32)
    assert by_size(TrainingOptions(), 5, 0, 32, adapters=False).frozen_layers == 0


def test_what_is_set_stays() -> None:
    mine = TrainingOptions(max_epochs=3, frozen_layers=0, optimizer=AdamW(lr=3e-5, eps=1e-6))
    assert by_size(mine, 10, *BERT, adapters=False) == mine
    assert left_open(mine, mine) == {}
    some = TrainingOptions(max_epochs=3, optimizer=Adafactor())
    chosen = by_size(some, 10, *BERT, adapters=False)
    assert chosen == some.model_copy(update={"frozen_layers": 6})
    assert left_open(some, chosen) == {"frozen_layers": 6}
