"""Texts tokenised once: token ids in an Arrow file, memory-mapped, and batches made of its rows.

A row is what the model's own preprocessing made of one input (a text, a pair, a triple), padding
taken off, so that what is trained on is what is served.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from zelo.artifacts import replacing
from zelo.models.batching import by_tokens

BLOCK = 1024  # inputs tokenised at once
MASK = "attention_mask"
Features = dict[str, Any]
Flatten = Callable[[list[dict[str, list[int]]]], Features]


def tokenize(model: Any, inputs: Sequence[Any], prompt: str | None, path: Path, what: str) -> None:
    """Write token ids of texts or pairs as a sentence-transformers `model` reads them."""
    model[0].unpad_inputs = False  # rows are wanted; batches are made of them later

    def encode(block: list[Any]) -> Mapping[str, Any]:
        found: Mapping[str, Any] = model.preprocess(block, prompt=prompt)
        return found

    write_tokens(encode, inputs, path, model.tokenizer, what)


def lengths_of(tokenizer: Any, texts: Sequence[str]) -> dict[str, int]:
    """Tokens of each text by itself."""
    found: dict[str, int] = {}
    distinct = list(dict.fromkeys(texts))
    for start in range(0, len(distinct), BLOCK):
        block = distinct[start : start + BLOCK]
        ids = tokenizer(block, add_special_tokens=False, verbose=False)["input_ids"]
        found |= zip(block, map(len, ids), strict=True)
    return found


def write_tokens(
    encode: Callable[[list[Any]], Mapping[str, Any]],
    inputs: Sequence[Any],
    path: Path,
    tokenizer: Any,
    what: str,
) -> None:
    """Write `path`, if it is not there, whole or not at all: a row of token ids per input.

    `encode` gives padded features (inputs, length), `attention_mask` among them; what is no tensor
    of that shape (the kind of input, the length of a prompt) must be the same for all inputs.
    """
    from zelo.progress import track

    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    fixed: dict[str, Any] = {}
    with replacing(path) as temporary, pa.OSFile(str(temporary), "wb") as sink:
        writer = None
        for start in track(range(0, len(inputs), BLOCK), f"tokenising {what}"):
            features = encode(list(inputs[start : start + BLOCK]))
            mask = features[MASK].bool()
            offsets = pa.array(np.concatenate([[0], mask.sum(1).cumsum(0)]), pa.int32())
            columns = {
                name: pa.ListArray.from_arrays(offsets, pa.array(value[mask].numpy(), pa.int32()))
                for name, value in features.items()
                if isinstance(value, Tensor) and value.shape == mask.shape and name != MASK
            }
            rest = {n: v for n, v in features.items() if n not in columns and n != MASK}
            rest = {n: v.tolist() if isinstance(v, Tensor) else v for n, v in rest.items()}
            if writer is None:
                fixed = rest
                about = {
                    "fixed": fixed,
                    "pad": tokenizer.pad_token_id or 0,
                    "side": tokenizer.padding_side,
                }
                schema = pa.schema(
                    [(name, column.type) for name, column in columns.items()],
                    metadata={"zelo": json.dumps(about)},
                )
                writer = pa.ipc.new_file(sink, schema)
            assert rest == fixed, (rest, fixed)
            writer.write_batch(pa.record_batch(list(columns.values()), schema=schema))
        if writer is not None:
            writer.close()


class TokenFile:
    """What `tokenize` wrote, read from the disk as it is asked for."""

    def __init__(self, path: Path) -> None:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        about = json.loads(reader.schema.metadata[b"zelo"])
        self.fixed, self.pad, self.side = about["fixed"], about["pad"], about["side"]
        self.names = reader.schema.names
        self.blocks = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        starts = [block.column(0).offsets.to_numpy() for block in self.blocks]
        self.lengths = np.concatenate([np.diff(offsets) for offsets in starts])

    def __len__(self) -> int:
        """Rows."""
        return len(self.lengths)

    def row(self, index: int) -> dict[str, np.ndarray[Any, np.dtype[np.int32]]]:
        """Token-level features of one row, views of the file."""
        block, number = self.blocks[index // BLOCK], index % BLOCK
        row = {}
        for name, column in zip(self.names, block.columns, strict=True):
            start, end = column.offsets[number].as_py(), column.offsets[number + 1].as_py()
            row[name] = column.values.to_numpy()[start:end]
        return row

    def features(self, indices: Sequence[int]) -> Features:
        """Rows as a model takes them: int64 (rows, longest), padded on the tokenizer's side."""
        rows = [self.row(i) for i in indices]
        length = max(1, *(int(self.lengths[i]) for i in indices))  # no layer reads nothing at all
        found: Features = {
            name: torch.full((len(rows), length), self.pad if name == "input_ids" else 0)
            for name in self.names
        }
        found[MASK] = torch.zeros(len(rows), length, dtype=torch.long)
        for number, row in enumerate(rows):
            size = int(self.lengths[indices[number]])
            columns = slice(length - size, length) if self.side == "left" else slice(size)
            for name, values in row.items():
                found[name][number, columns] = torch.from_numpy(values.astype(np.int64))
            found[MASK][number, columns] = 1
        return {**found, **self.fixed}

    def chunks(
        self, indices: Sequence[int], max_tokens_per_forward: int, flat: Flatten | None = None
    ) -> Chunks:
        """Rows in chunks of similar length, each of at most so many tokens with its padding.

        With `flat`, for a model that reads without padding, a chunk is one sequence.
        """
        chunks = by_tokens([int(self.lengths[i]) for i in indices], max_tokens_per_forward)
        order = torch.tensor([i for chunk in chunks for i in chunk]).argsort()
        features = []
        for chunk in chunks:
            rows = [indices[i] for i in chunk]
            features.append(self.features(rows) if flat is None else self.flattened(rows, flat))
        return Chunks(features, order)

    def flattened(self, indices: Sequence[int], flat: Flatten) -> Features:
        """Rows one after another as one sequence, with what variable-length attention asks for."""
        rows = [{name: v.tolist() for name, v in self.row(i).items()} for i in indices]
        return {**flat(rows), **self.fixed}


def attends_by_flash(backbone: Any) -> bool:
    """Whether a transformer attends by flash attention, which knows no 32 bits."""
    return "flash" in str(getattr(backbone.config, "_attn_implementation", ""))


def flatten(model: Any) -> Flatten | None:
    """How a sentence-transformers `model` puts rows together where it reads without padding.

    It does with flash attention and a task that keeps tokens apart; None where it pads.
    """
    encoder = model[0]
    encoder.unpad_inputs = None
    if not encoder.can_flatten_inputs or "token_type_ids" in encoder.tokenizer.model_input_names:
        return None  # a head that tells segments apart needs rows

    def put_together(rows: list[dict[str, list[int]]]) -> Features:
        found: Features = dict(encoder.data_collator(rows))
        found.pop("labels", None)
        found["position_ids"] = found["position_ids"] + encoder._flatten_position_offset
        return found

    return put_together


@dataclass(frozen=True)
class Chunks:
    """Tokenised inputs as a model reads them, some at a time.

    `features` are what it takes, a chunk each; `order` (inputs,) int64 leads from the chunks' rows
    back to the inputs.
    """

    features: list[Features]
    order: Tensor

    def apply(self, model: Callable[[Features], Tensor]) -> Tensor:
        """Rows (inputs, ...) that `model` gives for the inputs, in their order."""
        return torch.cat([model(dict(chunk)) for chunk in self.features])[self.order]

    def to(self, device: torch.device) -> Chunks:
        """Tensors on `device`."""
        moved = [on_device(chunk, device) for chunk in self.features]
        return Chunks(moved, self.order.to(device))


def in_memory(model: Any, inputs: Sequence[Any], prompt: str | None) -> Chunks:
    """Texts or pairs as one chunk, tokenised as a sentence-transformers `model` reads them."""
    model[0].unpad_inputs = False
    features: Features = dict(model.preprocess(list(inputs), prompt=prompt))
    return Chunks([features], torch.arange(len(inputs)))


def on_device(features: Mapping[str, Any], device: torch.device) -> Features:
    """Tensors of `features` on `device`."""
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for name, value in features.items()
    }
