"""What options of training become that are left open: by how much there is to learn from, and by
what learns. The numbers are those of docs/faq.md, "Which settings"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zelo.errors import UserError
from zelo.training.optimization import LR
from zelo.training.options import TrainingOptions

if TYPE_CHECKING:
    from torch import nn

STEPS = 200  # that a training is to have, as far as it need not read a query too often for that
MOST_EPOCHS = 8
FEW_STEPS = 2_000  # of fewer the lower half of the layers learns nothing that lasts
WIDTH = 384  # of a model that learns at the rate `LR`; Adam's goes down as width goes up


def by_size(
    training: TrainingOptions,
    steps_per_epoch: int,
    layers: int,
    width: int | None,
    adapters: bool,
) -> TrainingOptions:
    """`training` with nothing left open, for a transformer of so many `layers` of this `width`
    (None: not known). With `adapters` (LoRA) no layer is frozen, and the rate is the same for any
    width."""
    found: dict[str, Any] = {}
    if training.max_epochs is None:
        wanted = -(-STEPS // max(steps_per_epoch, 1))
        found["max_epochs"] = min(max(wanted, 1), MOST_EPOCHS)
    if training.frozen_layers is None:
        steps = training.model_copy(update=found).steps(steps_per_epoch)
        found["frozen_layers"] = 0 if adapters or steps >= FEW_STEPS else layers // 2
    if training.optimizer.lr is None:
        lr = LR if adapters or width is None else float(f"{LR * min(WIDTH / width, 1.0):.2g}")
        found["optimizer"] = training.optimizer.model_copy(update={"lr": lr})
    return training.model_copy(update=found)


def sizes_of(backbone: nn.Module) -> tuple[int, int | None]:
    """Layers of a transformer, 0 where they are not one by one (ALBERT's are one that is read
    again), and its width where its configuration says that."""
    from zelo.models.layers import layers

    try:
        number = len(layers(backbone))
    except UserError:
        number = 0
    config: Any = backbone.config
    return number, getattr(config.get_text_config(), "hidden_size", None)


def left_open(training: TrainingOptions, chosen: TrainingOptions) -> dict[str, Any]:
    """What was chosen for `training`, by the names of its options."""
    return {
        name: now
        for name, before, now in (
            ("max_epochs", training.max_epochs, chosen.max_epochs),
            ("frozen_layers", training.frozen_layers, chosen.frozen_layers),
            ("optimizer.lr", training.optimizer.lr, chosen.optimizer.lr),
        )
        if before is None
    }
