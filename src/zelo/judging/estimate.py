"""What a judge would be asked, cost and compute, for `zelo plan`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from zelo.models.pretrained import PretrainedModel


@dataclass(frozen=True)
class TextLengths:
    """How long the texts of a collection are, in tokens."""

    query_tokens: float  # mean
    document_tokens: np.ndarray[Any, np.dtype[np.float64]]  # of a sample
    instruction_tokens: float = 0.0  # mean that instructions add to a prompt

    def truncated(self, limit: float) -> float:
        """Mean tokens of a document of which at most `limit` are read."""
        return float(np.minimum(self.document_tokens, limit).mean())


@dataclass(frozen=True)
class BlockWorkload:
    """Blocks that are to be ordered."""

    number: float
    documents: float  # of one, on average
    pairs: float  # comparisons that judges of two are asked in their place


@dataclass(frozen=True)
class JudgeWorkload:
    """What one judge of an ensemble would be asked."""

    calls: tuple[float, float]  # the least, and the most where further answers may be asked for
    probe_calls: float  # on top, of a language model: the same comparisons in the other order
    lengths: TextLengths
    ledger: Path  # where answers of earlier runs lie, which tell the tokens of one
    today: date  # prices are doubted as of this day
    blocks: BlockWorkload | None = None  # that are ordered, where the judge can
    documents: float = math.inf  # of all queries together, at most


@dataclass(frozen=True)
class JudgeEstimate:
    """What a judge that is paid, or may be, would be asked and cost."""

    judge: str  # its name in the ensemble
    model: str
    provider: str  # judges of one provider share its limits
    calls: tuple[float, float]  # the least, and the most where further answers may be asked for
    tokens_in: float | None = None  # of one call; None: this judge is not paid by them
    tokens_out: float | None = None
    usd: tuple[float, float] | None = None  # None: the price is not known
    hours: float | None = None  # least time at the configured limits; None: there are none
    measured: int = 0  # answers in the ledger that the tokens were taken from; 0: estimated
    price_doubts: str | None = None  # what speaks against the listed price


@dataclass(frozen=True)
class LocalReading:
    """What a model on this machine reads for one comparison, one document or one prompt."""

    pretrained: PretrainedModel
    tokens: float
    tokens_of_another: float = 0.0  # more for each document beyond two, of one that orders blocks
    once: bool = False  # `tokens` are of one document, read once however often it is compared
    embeds: bool = False  # ... and once for all queries, which are read by themselves
