"""DataModules and LightningModules, and the stages `distil` and `train` that use them.

    from zelo.training import CrossEncoderModule, ThurstoneDataModule

What imports Lightning is imported when it is asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

CLASSES = {
    "BiEncoder": "zelo.training.bi_encoder",
    "BiEncoderModule": "zelo.training.bi_encoder_module",
    "CrossEncoder": "zelo.training.cross_encoder",
    "CrossEncoderModule": "zelo.training.cross_encoder_module",
    "PairwiseDataModule": "zelo.training.pairwise_data_module",
    "PairwiseModel": "zelo.models.pairwise_model",
    "PairwiseModule": "zelo.training.pairwise_module",
    "ThurstoneDataModule": "zelo.training.thurstone_data_module",
    "TrainingOptions": "zelo.training.options",
}
__all__ = sorted(CLASSES)


def __getattr__(name: str) -> Any:
    """A class by its name."""
    if name not in CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(CLASSES[name]), name)
