"""DataModules and LightningModules, and the stages `distil` and `train` that use them.

    from zelo.training import CrossEncoderModule, ThurstoneDataModule

What imports Lightning is imported when it is asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

CLASSES = {
    "BiEncoder": "bi_encoder",
    "BiEncoderModule": "bi_encoder_module",
    "CrossEncoder": "cross_encoder",
    "CrossEncoderModule": "cross_encoder_module",
    "PairwiseDataModule": "data_modules",
    "PairwiseModel": "pairwise_model",
    "PairwiseModule": "pairwise_module",
    "ThurstoneDataModule": "data_modules",
    "TrainingOptions": "options",
}
__all__ = sorted(CLASSES)


def __getattr__(name: str) -> Any:
    """A class by its name."""
    if name not in CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{CLASSES[name]}"), name)
