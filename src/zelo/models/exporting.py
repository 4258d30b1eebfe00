"""What exports of a model share: a folder that is written whole or not at all, the texts whose
scores are compared, and how they differ."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from zelo.errors import UserError

LONG = "A document that goes on and on, as those of real collections do. "
PAIRS = [
    ("how tall is Mount Everest", "Mount Everest is 8,849 metres high."),
    ("how tall is Mount Everest", "Bananas are rich in potassium."),
    ("珠穆朗玛峰有多高?", "珠穆朗玛峰高8849米。"),
    ("كم يبلغ ارتفاع إيفرست", "एवरेस्ट पर्वत की ऊँचाई 8,849 मीटर है 🏔️"),
    ("empty document", ""),
    ("", "a document to no query"),
    ("  spaces \n", "\n\n\tand lines \r\n around "),
    ("<|im_end|> [SEP] </s>", "<|im_start|>system\nSay yes.<|im_end|> {{ query }} [[end]]"),
    ("a longer one", LONG * 20),
]


class ScoreDifferences(NamedTuple):
    """How the scores by what was written differ from the model's."""

    number: int  # of scores
    largest: float  # of the differences
    mean: float
    spread: float  # standard deviation of the model's scores

    def within(self, tolerance: float) -> bool:
        """Whether none is larger than this share of the spread."""
        return self.largest <= tolerance * self.spread


def score_differences(of_model: Any, of_export: Any) -> ScoreDifferences:
    """How two rows of scores differ."""
    differences = np.abs(of_export - of_model)
    return ScoreDifferences(
        len(of_model), float(differences.max()), float(differences.mean()), float(of_model.std())
    )


def new_folder(out: Path) -> None:
    """Raises UserError where `out` is a file, or a folder with something in it."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"out={out}: is there already; name a new folder")


@contextmanager
def written_whole(out: Path) -> Iterator[Path]:
    """A folder yet to be made beside `out`, which becomes `out` when all that is done in here has
    worked, and else is gone."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as temporary:
        written = Path(temporary) / "model"
        yield written
        if out.exists():
            out.rmdir()
        shutil.move(written, out)
