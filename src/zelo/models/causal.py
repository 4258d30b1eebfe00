"""Language models that write, as transformers loads them, and the control tokens of their texts."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zelo.models.loading import (
    loaded_from,
    loading,
    prepare_libraries,
    with_padding,
    with_words,
)

TOP_K, TOP_P = 50, 0.95  # the likeliest tokens, by number and by their share, that may be drawn


def load_causal_model(folder: Path, precision: str) -> tuple[Any, Any]:
    """A causal language model, ready to read, and its tokenizer; on the GPU where there is one.

    `precision` is a dtype of torch, or `auto`: as it was saved. Raises `UserError` where a file is
    damaged or missing.
    """
    from transformers import AutoModelForCausalLM

    return load(AutoModelForCausalLM, folder, precision)


def load_writer(folder: Path, precision: str) -> tuple[Any, Any]:
    """The same of a model of either kind, causal or sequence-to-sequence; how likely a token must
    be is for `drawing` to say, and not for the model's own settings."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    with loaded_from(folder):
        config = AutoConfig.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model, tokenizer = load(kind, folder, precision)
    for name in ("temperature", "top_k", "top_p"):
        setattr(model.generation_config, name, None)
    return model, tokenizer


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


def padded(rows: Sequence[Sequence[int]], pad: int, side: str = "left") -> tuple[Any, Any]:
    """Token ids (B, N) of texts of different lengths, and the mask (B, N) of what is no padding."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    ids = [torch.tensor(row, dtype=torch.long) for row in rows]
    ones = [torch.ones(len(row), dtype=torch.long) for row in rows]
    return pad_sequence(ids, True, pad, side), pad_sequence(ones, True, 0, side)


def logits_at_end(model: Any, ids: Any, mask: Any, last: int) -> Any:
    """Logits (B, `last`, vocabulary) at the last places of what is `padded` on the left."""
    import torch

    keep = "logits_to_keep" in inspect.signature(model.forward).parameters
    inputs = {
        "input_ids": ids,
        "attention_mask": mask,
        "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
    }
    with torch.inference_mode():
        return model(
            **{name: tensor.to(model.device) for name, tensor in inputs.items()},
            **({"logits_to_keep": last} if keep else {}),
        ).logits[:, -last:]


def drawing(temperature: float, seeds: Sequence[int]) -> Any:
    """What makes `generate`, told to take the likeliest token, draw one: a `LogitsProcessorList`.

    The likeliest after Gumbel noise is a draw from the softmax. The noise of each row comes from
    a seed of its own, so that what is written of a text depends on no other text of a batch.
    """
    import torch
    from transformers import (
        LogitsProcessor,
        LogitsProcessorList,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    class GumbelNoise(LogitsProcessor):  # type: ignore[misc]
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            size = scores.shape[1]
            # −log of an exponential draw is Gumbel noise.
            drawn = [torch.empty(size).exponential_(generator=one) for one in generators]
            return scores.float() - torch.stack(drawn).log().to(scores.device)

    likely = [
        TemperatureLogitsWarper(temperature),
        TopKLogitsWarper(TOP_K),
        TopPLogitsWarper(TOP_P),
    ]
    return LogitsProcessorList([*likely, GumbelNoise()])


def as_chat(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> str:
    """Messages as a tokenizer's template writes them, up to where the answer stands."""
    text: str = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=False, enable_thinking=False
    )
    return text


def control_tokens(tokenizer: Any) -> re.Pattern[str]:
    """Finds what a tokenizer takes for a control token: no text that is read may bring one."""
    added = tokenizer.added_tokens_decoder.values()
    tokens = {*tokenizer.all_special_tokens, *(str(t) for t in added if t.special)}
    return re.compile("|".join(map(re.escape, sorted(tokens))) or "(?!)")
