"""Texts tokenised once: token ids in an Arrow file, memory-mapped, and batches made of its rows.

A row is what the model's own preprocessing made of one input (a text, a pair, a triple), padding
taken off, so that what is trained on is what is served.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from zelo.artifacts import replacing
from zelo.models.batching import by_own_tokens, by_tokens
from zelo.models.packing import PACKING, Packing, pack

BLOCK = 1024  # inputs tokenised at once
MASK = "attention_mask"
PARTS = 8  # a sequence of fixed length is that of a whole chunk, or half of it, down to an 8th
Features = dict[str, Any]


@dataclass(frozen=True)
class Chunking:
    """How rows are cut into what is read at once."""

    max_tokens: int  # of a chunk: with its padding, or without if it is packed
    packed: bool = False  # texts are one sequence, without padding
    fixed: bool = False  # such a sequence is filled up to one of a few lengths

    def chunks(self, lengths: Sequence[int]) -> list[list[int]]:
        """Which rows are read together, longest first."""
        cut = by_own_tokens if self.packed else by_tokens
        return cut(lengths, self.max_tokens)

    def size(self, tokens: int) -> int:
        """Places of a sequence of so many tokens."""
        size = self.max_tokens
        while self.fixed and size // 2 >= max(tokens, self.max_tokens // PARTS):
            size //= 2
        return size if self.fixed else tokens


Prompt = str | None | Sequence[str | None]  # before all inputs, or before each


def tokenize(model: Any, inputs: Sequence[Any], prompt: Prompt, path: Path, what: str) -> None:
    """Write token ids of texts or pairs as a sentence-transformers `model` reads them."""
    model[0].unpad_inputs = False  # rows are wanted; batches are made of them later

    def encode(rows: range) -> Iterator[Mapping[str, Any]]:
        if prompt is None or isinstance(prompt, str):
            yield model.preprocess(list(inputs[rows.start : rows.stop]), prompt=prompt)
            return
        for before, part in groupby(rows, key=prompt.__getitem__):
            found = dict(model.preprocess([inputs[i] for i in part], prompt=before))
            found.pop("prompt_length", None)  # no model is read so that leaves its prompt out
            yield found

    write_tokens(encode, len(inputs), path, model.tokenizer, what)


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
    encode: Callable[[range], Iterable[Mapping[str, Any]]],
    count: int,
    path: Path,
    tokenizer: Any,
    what: str,
) -> None:
    """Write `path`, if it is not there, whole or not at all: a row of token ids for each of `count`
    inputs.

    `encode` gives padded features (inputs, length) of a range of them, all at once or some at a
    time, `attention_mask` among them; what is no tensor of that shape (the kind of input, the
    length of a prompt) must be the same for all inputs.
    """
    from zelo.progress import track

    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    fixed: dict[str, Any] = {}
    with replacing(path) as temporary, pa.OSFile(str(temporary), "wb") as sink:
        writer = None
        for start in track(range(0, count, BLOCK), f"tokenising {what}"):
            lengths: list[Tensor] = []
            ids: dict[str, list[Tensor]] = {}
            rests = []
            for features in encode(range(start, min(start + BLOCK, count))):
                mask = features[MASK].bool()
                lengths.append(mask.sum(1))
                rest = {}
                for name, value in features.items():
                    if name == MASK:
                        continue
                    if isinstance(value, Tensor) and value.shape == mask.shape:
                        ids.setdefault(name, []).append(value[mask])
                    else:
                        rest[name] = value.tolist() if isinstance(value, Tensor) else value
                rests.append(rest)
            offsets = pa.array(np.concatenate([[0], torch.cat(lengths).cumsum(0)]), pa.int32())
            columns = {
                name: pa.ListArray.from_arrays(
                    offsets, pa.array(torch.cat(parts).numpy(), pa.int32())
                )
                for name, parts in ids.items()
            }
            if writer is None:
                rest = rests[0]
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
            assert all(rest == fixed for rest in rests), (rests, fixed)
            writer.write_batch(pa.record_batch(list(columns.values()), schema=schema))
        if writer is not None:
            writer.close()


class TokenFile:
    """What `tokenize` wrote, read from the disk as it is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        about = json.loads(reader.schema.metadata[b"zelo"])
        self.fixed, self.pad, self.side = about["fixed"], about["pad"], about["side"]
        self.names = reader.schema.names
        self.blocks = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        starts = [block.column(0).offsets.to_numpy() for block in self.blocks]
        self.lengths = np.concatenate([np.diff(offsets) for offsets in starts])

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return int(self.lengths.max())

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

    def chunks(self, indices: Sequence[int], chunking: Chunking) -> Chunks:
        """Rows in chunks of similar length."""
        lengths = [int(self.lengths[i]) for i in indices]
        chunks = chunking.chunks(lengths)
        order = torch.tensor([i for chunk in chunks for i in chunk]).argsort()
        rows = [[indices[i] for i in chunk] for chunk in chunks]
        features = [self.features(own) for own in rows]
        if chunking.packed:
            for chunk, found in zip(chunks, features, strict=True):
                own = [lengths[i] for i in chunk]
                size = chunking.size(sum(own))
                longest = self.longest if chunking.fixed else 0
                found[PACKING] = pack(own, found[MASK].shape[1], self.side == "left", size, longest)
        return Chunks(features, order, self, rows)


@dataclass(frozen=True)
class Chunks:
    """Tokenised inputs as a model reads them, some at a time.

    `features` are what it takes, a chunk each; `order` (inputs,) int64 leads from the chunks' rows
    back to the inputs. Where they come from a `file`, `rows` are the chunks' rows in it.
    """

    features: list[Features]
    order: Tensor
    file: TokenFile | None = None
    rows: Sequence[Sequence[int]] = ()

    @property
    def tokens(self) -> int:
        """Tokens of all inputs, without padding."""
        return sum(int(chunk[MASK].sum()) for chunk in self.features)

    def apply(self, model: Callable[[Features], Tensor]) -> Tensor:
        """Rows (inputs, ...) that `model` gives for the inputs, in their order."""
        return torch.cat([model(dict(chunk)) for chunk in self.features])[self.order]

    def to(self, device: torch.device) -> Chunks:
        """Tensors on `device`."""
        moved = [on_device(chunk, device) for chunk in self.features]
        return replace(self, features=moved, order=self.order.to(device, non_blocking=True))

    def pin_memory(self) -> Chunks:
        """Tensors in pinned memory, from which `to` does not wait for the device."""
        pinned = [
            {n: v.pin_memory() if isinstance(v, Tensor | Packing) else v for n, v in chunk.items()}
            for chunk in self.features
        ]
        return replace(self, features=pinned, order=self.order.pin_memory())


def in_memory(model: Any, inputs: Sequence[Any], prompt: str | None) -> Chunks:
    """Texts or pairs as one chunk, tokenised as a sentence-transformers `model` reads them."""
    model[0].unpad_inputs = False
    features: Features = dict(model.preprocess(list(inputs), prompt=prompt))
    return Chunks([features], torch.arange(len(inputs)))


def on_device(features: Mapping[str, Any], device: torch.device) -> Features:
    """Tensors of `features` on `device`."""
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, Tensor | Packing) else value
        for name, value in features.items()
    }
