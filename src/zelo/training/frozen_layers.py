"""What the lowest layers make of a text, where they do not learn: computed once and kept.

Dropout is off and their weights stay: whenever a text is read again they would say the same. What
the last of them gives lies in a file without a name, which is gone with the process. This is for a
CPU; a GPU computes it about as fast as it would fetch it.
"""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zelo.errors import in_words
from zelo.models.tokens import MASK, Chunks, Features, TokenFile
from zelo.progress import tell

LARGEST = 8 * 2**30  # bytes that are kept of one file of texts, at most
SHARE = 0.25  # of what is free on the disk, at most
WORTH = 1.2  # times that a text must be read for this to pay
CLOSE = {torch.float32: 1e-3, torch.bfloat16: 0.05}  # of outputs, as a share of the largest
ROWS = "rows"  # of the token file, among the features of a chunk


class NotKeptError(Exception):
    """What cannot be kept, in words."""


class KeptOutputs:
    """Outputs (tokens, width) of a layer for the rows of `tokens`, as far as they are known.

    Raises `NotKeptError` where they would take too much of the disk.
    """

    def __init__(self, tokens: TokenFile, width: int, dtype: torch.dtype) -> None:
        self.tokens = tokens
        self.ends = np.concatenate([[0], np.cumsum(tokens.lengths, dtype=np.int64)])
        self.known = np.zeros(len(tokens), dtype=np.bool_)
        size = max(int(self.ends[-1]), 1) * width * dtype.itemsize
        folder = tokens.path.parent
        room = min(LARGEST, int(SHARE * shutil.disk_usage(folder).free))
        if size > room:
            raise NotKeptError(
                f"it would take {size:,} bytes of the disk, and {room:,} are at most"
            )
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                file.truncate(size)
                if hasattr(os, "posix_fallocate"):  # a full disk is found here, or ends the process
                    os.posix_fallocate(file.fileno(), 0, size)
                kept = mmap.mmap(file.fileno(), size)
        except OSError as error:
            raise NotKeptError(in_words(error)) from None
        self.outputs = torch.frombuffer(kept, dtype=dtype).view(-1, width)

    def put(self, row: int, outputs: Tensor) -> None:
        """Keep what the layer gave for one row (its tokens, width)."""
        self.outputs[self.ends[row] : self.ends[row + 1]] = outputs
        self.known[row] = True

    def get(self, rows: Sequence[int], length: int) -> Tensor:
        """The same of some rows (rows, length, width), 0 where these have no token."""
        found = self.outputs.new_zeros(len(rows), length, self.outputs.shape[1])
        for row, padded in zip(rows, found, strict=True):
            size = int(self.tokens.lengths[row])
            kept = self.outputs[self.ends[row] : self.ends[row + 1]]
            padded[where(self.tokens, size, length)] = kept
        return found


class FrozenLayers:
    """The lowest `layers` of a transformer, which do not learn, in a training of so many `batches`.

    Where a text is read more than once, it passes them only the first time.
    """

    def __init__(self, layers: Sequence[nn.Module], batches: int) -> None:
        self.layers, self.batches = layers, batches
        self.kept: dict[TokenFile, KeptOutputs | None] = {}  # None: that cannot be
        self.most: dict[TokenFile, int] = {}  # rows in a batch
        self.autocast: bool | None = None  # as it was when the first outputs were computed
        self.beside: tuple[None, ...] | None = None  # what a layer gives besides its output
        self.checked = False

    def skipped(
        self, inputs: Chunks, model: Callable[[Features], Tensor]
    ) -> tuple[Chunks, Callable[[Features], Tensor]]:
        """Inputs and a model in the place of these, with the same result."""
        tokens = inputs.file
        if tokens is None:
            return inputs, model
        self.most[tokens] = max(self.most.get(tokens, 0), sum(map(len, inputs.rows)))
        read_again = self.batches * self.most[tokens] >= WORTH * len(tokens)
        impossible = tokens in self.kept and self.kept[tokens] is None
        autocast = torch.is_autocast_enabled("cpu")
        if self.autocast is None:
            self.autocast = autocast
        if impossible or not read_again or autocast != self.autocast:
            return inputs, model
        marked = zip(inputs.features, inputs.rows, strict=True)
        features = [{**chunk, ROWS: rows} for chunk, rows in marked]
        return replace(inputs, features=features), lambda chunk: self.read(tokens, chunk, model)

    def read(
        self, tokens: TokenFile, features: Features, model: Callable[[Features], Tensor]
    ) -> Tensor:
        """What `model` gives for a chunk of `tokens`."""
        features = dict(features)
        rows: Sequence[int] = features.pop(ROWS)
        try:
            outputs = self.outputs(tokens, rows, features, model)
        except NotKeptError as error:
            self.kept[tokens] = None
            tell(f"training: what lies below the layers that learn is not kept: {error}")
            return model(features)
        with self.skipping(outputs):
            return model(features)

    def outputs(
        self,
        tokens: TokenFile,
        rows: Sequence[int],
        features: Features,
        model: Callable[[Features], Tensor],
    ) -> Tensor:
        """What the last of the layers gives for a chunk; `NotKeptError` where that is not known."""
        kept = self.kept.get(tokens)
        some = kept is not None and bool(kept.known[list(rows)].any())
        for number, row in enumerate(rows):
            if kept is not None and kept.known[row]:
                continue
            # By itself: what is kept is the same to the last bit, whatever it was read with first.
            size = int(tokens.lengths[row])
            computed = self.computed(alone(features, number, tokens, size), model)[0, :size]
            if kept is None:
                kept = KeptOutputs(tokens, computed.shape[1], computed.dtype)
                self.kept[tokens] = kept
            kept.put(row, computed)
        assert kept is not None
        outputs = kept.get(rows, features[MASK].shape[1])
        if some and not self.checked:
            self.checked = True
            self.check(features, outputs, model)
        return outputs

    def computed(self, features: Features, model: Callable[[Features], Tensor]) -> Tensor:
        """What the last of the layers gives for `features` (rows, length, width), computed."""
        found: list[Any] = []

        def stop(module: nn.Module, inputs: Any, output: Any) -> None:
            found.append(output)
            raise ReachedError

        hook = self.layers[-1].register_forward_hook(stop)
        try:
            model(features)
        except ReachedError:
            pass
        finally:
            hook.remove()
        output, *beside = found[0] if isinstance(found[0], tuple) else found
        self.beside = tuple(beside) if isinstance(found[0], tuple) else None
        strange = any(one is not None for one in beside)
        if strange or not isinstance(output, Tensor) or output.shape[:-1] != features[MASK].shape:
            raise NotKeptError("a layer gives something else than one vector for each token")
        if output.requires_grad:
            raise NotKeptError("something that learns is among what they compute with")
        return output

    @contextmanager
    def skipping(self, outputs: Tensor) -> Iterator[None]:
        """Have the last of the layers give `outputs`, and those below it nothing of their own."""

        def given(output: Any) -> Any:
            return output if self.beside is None else (output, *self.beside)

        def last(*_: Any, **__: Any) -> Any:
            return given(outputs)

        def lower(*inputs: Any, **options: Any) -> Any:
            return given(inputs[0] if inputs else options["hidden_states"])

        before = [vars(layer).get("forward") for layer in self.layers]
        try:
            for layer in self.layers:
                layer.forward = last if layer is self.layers[-1] else lower
            yield
        finally:
            for layer, forward in zip(self.layers, before, strict=True):
                if forward is not None:
                    layer.forward = forward
                elif "forward" in vars(layer):
                    del layer.forward

    @torch.no_grad()
    def check(
        self, features: Features, outputs: Tensor, model: Callable[[Features], Tensor]
    ) -> None:
        """`NotKeptError` where the model says something else when it skips them."""
        whole = model(dict(features)).float()
        with self.skipping(outputs):
            skipped = model(dict(features)).float()
        torch.clear_autocast_cache()  # of weights that learn, without their gradient
        half = torch.bfloat16 if self.autocast else torch.float32
        if float((skipped - whole).abs().max()) > CLOSE[half] * float(whole.abs().max()):
            raise NotKeptError("the model does not give the same without them")


class ReachedError(Exception):
    """The last of the layers has given its output; those above it are not needed."""


def where(tokens: TokenFile, size: int, length: int) -> slice:
    """Where `size` tokens are in a row that is padded to `length`."""
    return slice(length - size, length) if tokens.side == "left" else slice(size)


def alone(features: Features, number: int, tokens: TokenFile, size: int) -> Features:
    """One row of a padded chunk, which has `size` tokens, without its padding."""
    mask = features[MASK]
    columns = where(tokens, max(size, 1), mask.shape[1])  # no layer reads nothing at all
    return {
        name: value[number : number + 1, columns]
        if isinstance(value, Tensor) and value.shape == mask.shape
        else value
        for name, value in features.items()
    }
