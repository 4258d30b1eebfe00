"""Options of whatever is fine-tuned from a pretrained model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from zelo.config import Component, build, dump, option
from zelo.errors import UserError
from zelo.models.lora import Lora
from zelo.models.pretrained import PretrainedModel


class FineTuned(Component):
    """A model that starts as a pretrained one."""

    pretrained: PretrainedModel = option(help="what training starts from")
    lora: Lora | None = option(None, "adapters in place of full fine-tuning")
    gradient_checkpointing: bool = option(
        False, "make activations anew in the backward pass: less memory, slower", exclude=True
    )

    @classmethod
    def of(cls, model: str | Path | Mapping[str, Any] | Self, **options: Any) -> Self:
        """A component by its hub name or folder, as it was dumped, or itself.

        `options` that are not None are set. Raises `UserError` where one is not right.
        """
        given = {name: value for name, value in options.items() if value is not None}
        if isinstance(model, str | Path):
            start = {"_target_": target_of(PretrainedModel), "name": str(model)}
            content: Any = {"_target_": target_of(cls), "pretrained": start}
        elif isinstance(model, Mapping):
            content = dict(model)
        elif not given:
            return model
        else:
            content = dump(model)
        built = build({**content, **given}, "model")
        if not isinstance(built, cls):
            raise UserError(f"model: {type(built).__name__} is no {cls.__name__}")
        return built


def target_of(cls: type) -> str:
    """Import path of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"
