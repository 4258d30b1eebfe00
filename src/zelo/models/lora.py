"""LoRA: low-rank adapters in a transformer's linear layers, by peft."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

from zelo.config import Component, option
from zelo.errors import UserError

HEADS = r".*(classifier|score|lm_head|pooler|\bhead\b).*"  # new or small: trained in full


class Lora(Component):
    """Adapters of `rank` in every linear layer but the heads; the rest of the backbone is frozen.

    What ships is merged, so that any tool loads it; the adapter lies beside it in `adapter/`.
    """

    rank: int = option(16, "rank of the adapters", ge=1)
    alpha: int = option(32, "adapters are scaled by alpha / rank", ge=1)
    targets: str = option("all-linear", "layers: all-linear, or a regular expression of names")

    def adapt(self, backbone: Any) -> Any:
        """Put adapters into `backbone`, in place; what `merge` takes."""
        try:
            from peft import LoraConfig, get_peft_model
        except ImportError:
            raise UserError('model.lora needs peft: pip install "zelo[lora]"') from None

        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            target_modules=self.targets,
            exclude_modules=HEADS,
        )
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".*no modules were excluded.*")
                peft_model = get_peft_model(backbone, config)
        except ValueError as error:
            raise UserError(f"model.lora.targets={self.targets}: {error}") from None
        for name, parameter in backbone.named_parameters():
            if re.match(HEADS, name) and "lm_head" not in name and "pooler" not in name:
                parameter.requires_grad_(True)
        return peft_model


def prepare(backbone: Any, lora: Lora | None, gradient_checkpointing: bool) -> Any:
    """Put adapters in, have activations made anew, as asked; what `merge` takes, or None."""
    if gradient_checkpointing:
        backbone.gradient_checkpointing_enable({"use_reentrant": False})
        # Only the reentrant kind needs it; without it no gradient passes through frozen layers.
        backbone.disable_input_require_grads()
    peft_model = lora.adapt(backbone) if lora is not None else None
    if gradient_checkpointing:
        backbone.disable_input_require_grads()  # which peft asks for again
    return peft_model


def merge(peft_model: Any, folder: Path, base: str) -> None:
    """Write the adapter to `folder` and merge it into the backbone, in place.

    `base` is the name of the model that it adapts; peft would write the folder that this machine
    found it in, and its layers in whatever order a set has them.
    """
    peft_model.save_pretrained(str(folder), safe_serialization=True)
    about = folder / "adapter_config.json"
    content = json.loads(about.read_text(encoding="utf-8"))
    content["base_model_name_or_path"] = base
    if isinstance(content["target_modules"], list):
        content["target_modules"].sort()
    about.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty card
    peft_model.merge_and_unload()
