"""Language models that write, as transformers loads them, and the control tokens of their texts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from zelo.models.loading import (
    loaded_from,
    loading,
    prepare_libraries,
    with_padding,
    with_words,
)


def load_causal_model(folder: Path, precision: str) -> tuple[Any, Any]:
    """A causal language model, ready to read, and its tokenizer; on the GPU where there is one.

    `precision` is a dtype of torch, or `auto`: as it was saved. Raises `UserError` where a file is
    damaged or missing.
    """
    from transformers import AutoModelForCausalLM

    return load(AutoModelForCausalLM, folder, precision)


def load_writer(folder: Path, precision: str) -> tuple[Any, Any]:
    """The same of a model of either kind, causal or sequence-to-sequence."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    with loaded_from(folder):
        config = AutoConfig.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    return load(kind, folder, precision)


def load(kind: Any, folder: Path, precision: str) -> tuple[Any, Any]:
    """A model by one of transformers' Auto classes, and its tokenizer."""
    import torch
    from transformers import AutoTokenizer

    prepare_libraries()
    with loaded_from(folder):
        tokenizer: Any = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
        with_words(tokenizer)
        model: Any = kind.from_pretrained(
            str(folder),
            trust_remote_code=False,
            local_files_only=True,
            dtype=precision,
            **loading(),
        )
    with_padding(tokenizer, model)
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer


def control_tokens(tokenizer: Any) -> re.Pattern[str]:
    """Finds what a tokenizer takes for a control token: no text that is read may bring one."""
    added = tokenizer.added_tokens_decoder.values()
    tokens = {*tokenizer.all_special_tokens, *(str(t) for t in added if t.special)}
    return re.compile("|".join(map(re.escape, sorted(tokens))) or "(?!)")
