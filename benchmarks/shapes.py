"""Models of the true architectures with random weights, as folders: for speed and for dry runs.

    python benchmarks/shapes.py qwen3-toy FOLDER

No hub is needed. Speed does not depend on the weights; `-toy` shapes are small enough for a laptop
to run a whole experiment on (`zelo run experiment=zerank_1 model.pretrained.path=FOLDER ...`).
The tokenizer is a byte-level BPE of the Python standard library with ChatML's special tokens.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
QWEN3 = {"vocab_size": 151_936, "head_dim": 128, "num_key_value_heads": 8}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3-toy": ("Qwen3", {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}),
    "llama-toy": ("Llama", {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1}),
    "qwen3-0.6b": ("Qwen3", {**QWEN3, "hidden_size": 1024, "intermediate_size": 3072,
        "num_hidden_layers": 28, "num_attention_heads": 16}),
    "qwen3-1.7b": ("Qwen3", {**QWEN3, "hidden_size": 2048, "intermediate_size": 6144,
        "num_hidden_layers": 28, "num_attention_heads": 16}),
    "qwen3-4b": ("Qwen3", {**QWEN3, "hidden_size": 2560, "intermediate_size": 9728,
        "num_hidden_layers": 36, "num_attention_heads": 32}),
}  # fmt: skip


def tokenizer(size: int = 2000) -> Any:
    """Byte-level BPE with `yes`, `no`, `Yes` and `No` as tokens of their own."""
    import argparse
    import inspect
    import json
    import typing

    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(
        [inspect.getsource(module) for module in (argparse, json, typing)],
        trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    made.add_tokens(
        [
            AddedToken(word, single_word=True, normalized=False)
            for word in ("yes", "no", "Yes", "No")
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=32768,
    )


def make(shape: str, folder: Path, seed: int = 0) -> Path:
    """Write a causal language model of a shape, in bfloat16 where it is large."""
    import torch
    import transformers

    family, sizes = SHAPES[shape]
    words = tokenizer()
    toy = {"vocab_size": len(words)} if shape.endswith("-toy") else {}
    config = getattr(transformers, f"{family}Config")(
        **{**sizes, **toy}, tie_word_embeddings=True, max_position_embeddings=32768
    )
    torch.manual_seed(seed)
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    if not toy:
        model = model.bfloat16()
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(make(sys.argv[1], Path(sys.argv[2])))
    else:
        print("usage: shapes.py SHAPE FOLDER; shapes:", *SHAPES)
