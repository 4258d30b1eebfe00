"""Options that have another name now: who uses the old one is told the new one."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

RENAMED: Mapping[str, str] = MappingProxyType(
    {
        "training.epochs": "training.max_epochs",
        "training.learning_rate": "training.optimizer.lr",
        "training.weight_decay": "training.optimizer.weight_decay",
        "training.warmup": "training.schedule.warmup_ratio",
        "training.warmup_ratio": "training.schedule.warmup_ratio",
        "training.clip": "training.gradient_clip_val",
        "training.batch": "training.batch_size",
        "training.candidates": "training.docs_per_query",
        "training.tokens": "training.max_tokens_per_forward",
        "training.accumulate": "training.accumulate_grad_batches",
        "training.held_out": "training.validation_fraction",
        "model.scale": "model.logit_scale",
        "max_tokens": "max_length",  # in every group of models
        "train_max_tokens": "train_max_length",
        "max_query_tokens": "max_query_length",
        "weights": "pretrained",
        "judge.cap": "judge.max_answers",
        "judge.stderr": "judge.max_stderr",
        "judges.*.document_tokens": "judges.*.max_document_tokens",
        "judges.*.system": "judges.*.system_role",
        "judges.*.extra": "judges.*.extra_body",
        "judges.*.scale": "judges.*.logit_scale",
        "judges.*.tokens": "judges.*.max_tokens_per_forward",
    }
)


def renamed(key: str) -> str | None:
    """What to say of an option that `key` names by its old name; None where it names none so.

    An old name counts wherever it lies in the key: `distil.training.batch`, `weights.path`. `*`
    stands for any one name.
    """
    steps = key.split(".")
    for old, new in RENAMED.items():
        words = old.split(".")
        for start in range(len(steps) - len(words) + 1):
            end = start + len(words)
            found = steps[start:end]
            if all(word in ("*", step) for word, step in zip(words, found, strict=True)):
                any_names = iter(
                    step for word, step in zip(words, found, strict=True) if word == "*"
                )
                new = ".".join(next(any_names) if w == "*" else w for w in new.split("."))
                now = ".".join([*steps[:start], new, *steps[end:]])
                return f"{key}: it is called {now} now"
    return None
