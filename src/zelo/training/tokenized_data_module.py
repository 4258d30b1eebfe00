"""What both DataModules have in common: a collection, and token ids of its texts in a cache.

Texts are tokenised once, into a folder of `cache_dir`, as the model reads them; a rank maps the
files into memory. Rank, world size and accumulation are the trainer's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning.pytorch import LightningDataModule

from zelo.config import dump
from zelo.data.beir import BeirFolder
from zelo.data.collection import load
from zelo.distributed.trainer import suitable_tokens
from zelo.models.tokens import Chunking
from zelo.store import digest
from zelo.training.batches import PairwiseBatch, ScoredBatch

CACHE = Path("~/.cache/zelo/tokens")
AnyBatch = TypeVar("AnyBatch", ScoredBatch, PairwiseBatch)


class TokenizedDataModule(LightningDataModule):  # type: ignore[misc]
    """What the two have in common: a collection, and token ids of it in a cache."""

    def __init__(
        self,
        collection: str | Path,
        batch_size: int,
        max_tokens_per_forward: int | None,
        seed: int,
        cache_dir: str | Path | None,
    ) -> None:
        super().__init__()
        self.source, self.batch_size, self.seed = Path(collection), batch_size, seed
        self.asked_tokens = max_tokens_per_forward
        self.asked_cache = None if cache_dir is None else Path(cache_dir)
        self.cache_dir = (self.asked_cache or CACHE).expanduser()

    def keep_options(self, **own: Any) -> None:
        """Save what it is made from as plain data, `own` and what both have: in checkpoints, and
        for ranks to make it again. Paths are absolute."""
        shared = {
            "collection": self.source,
            "model": self.model,
            "batch_size": self.batch_size,
            "max_tokens_per_forward": self.asked_tokens,
            "seed": self.seed,
            "cache_dir": self.asked_cache,
        }
        self.save_hyperparameters(dump({**shared, **own}), logger=False)

    @cached_property
    def collection(self) -> Path:
        """Folder of the collection as the stages read it; of one in BEIR layout below the cache."""
        if (self.source / "queries.parquet").is_file():
            return self.source
        files = BeirFolder(path=str(self.source)).files().all
        return self.cache_dir / digest(stamps(files))

    def prepare_collection(self) -> None:
        """Read a folder in BEIR layout, where that has not been done."""
        if self.collection.is_dir():
            return
        self.cache_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.cache_dir) as folder:
            load(out=Path(folder), source=BeirFolder(path=str(self.source)))
            with suppress(OSError):  # another process was faster
                Path(folder).rename(self.collection)
            Path(folder).mkdir(exist_ok=True)

    @property
    def max_tokens_per_forward(self) -> int:
        """As asked, or what suits the trainer's device."""
        return self.asked_tokens or suitable_tokens(self.device.type)

    @property
    def device(self) -> torch.device:
        """Where batches go."""
        if self.trainer is None:
            return torch.device("cpu")
        device: torch.device = self.trainer.strategy.root_device
        return device

    def ready(self, batch: AnyBatch) -> AnyBatch:
        """`batch` where a GPU fetches it from while the host goes on."""
        if self.device.type != "cuda":
            return batch
        with torch.cuda.device(self.device):  # a thread begins with the first one
            return batch.pin_memory()

    @property
    def chunking(self) -> Chunking:
        """How inputs are cut into what is read at once, as suits the module that reads them."""
        module = None if self.trainer is None else self.trainer.lightning_module
        return Chunking(
            self.max_tokens_per_forward,
            packed=getattr(module, "packed", False),
            fixed=getattr(module, "fixed_lengths", False),
        )

    def cached_in(self, model: Any, sources: Sequence[Path]) -> Path:
        """Folder of the token ids that `model` makes of these files; another one after a change."""
        tokenizer = [
            path
            for path in sorted(model.pretrained.locate().rglob("*"))
            if path.suffix in (".json", ".txt", ".model", ".jinja")
        ]
        return self.cache_dir / digest([stamps([*sources, *tokenizer]), dump(model)])


def stamps(files: Sequence[Path]) -> list[list[str | int]]:
    """What changes when a file does, without reading it."""
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]
