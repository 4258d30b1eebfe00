"""The distilled pairwise reranker as a judge, on all devices of this machine.

Each device has a process with the model, as in training, but none waits for another: questions are
dealt out as processes become free, and answers come back to the one that writes the ledger.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from zelo.config import Component, option
from zelo.distributed.trainer import LightningTrainer
from zelo.errors import UserError
from zelo.judging.protocol import Answer, Question
from zelo.models.batching import by_length
from zelo.store import digest, digest_files

if TYPE_CHECKING:
    from zelo.models.pairwise import PairwiseCrossEncoder, Triple

LOT = 256  # questions, at most, that a device is given at once


class Distilled(Component):
    """Answers with a pairwise model that the `distil` stage made."""

    usd_per_answer: ClassVar[float] = 0.0
    folder: Path = option(help="the model's folder", exclude=True)
    made_by: str | None = option(
        None, "fingerprint of the stage that makes the model; null: it is there already"
    )
    trainer: LightningTrainer | None = option(None, "precision and devices; null: the CPU")
    tokens: int | None = option(
        None,
        "tokens per forward pass, padding included; null: 2,048 on a CPU, 32,768 on a GPU",
        ge=1,
        exclude=True,
    )

    def fingerprint(self) -> str | None:
        """Digest of the weights, where no stage is yet to make them."""
        return None if self.made_by else digest_files(self._weights())

    def _weights(self) -> list[Path]:
        found = sorted(self.folder.expanduser().glob("*.safetensors"))
        if not found:
            raise UserError(f"judge: {self.folder}: no distilled pairwise model is there")
        return found

    def prepare(
        self, data: Path, pairs: Mapping[str, Sequence[str]], seed: int
    ) -> PreparedDistilled:
        """Load the model; its weights and the precision are the fingerprint."""
        trainer = self.trainer or LightningTrainer()
        said = ["distilled", digest_files(self._weights())]
        if trainer.precision != "32-true":
            said.append(trainer.precision)
        budget = trainer.max_tokens_per_forward(self.tokens)
        return PreparedDistilled(digest(said), self.folder.expanduser(), trainer, budget)


class PreparedDistilled:
    """The loaded model, or the processes that have it."""

    def __init__(
        self, fingerprint: str, folder: Path, trainer: LightningTrainer, tokens: int
    ) -> None:
        self.fingerprint = fingerprint
        self.processes: ProcessPoolExecutor | None = None
        self.ask: Callable[[list[list[Triple]]], Iterable[list[float]]]  # lots of questions
        if trainer.devices == 1:
            self.ask = partial(map, Reading(folder, trainer, tokens, 0))
            return
        context = multiprocessing.get_context("spawn")
        numbers: Any = context.Queue()
        for number in range(trainer.devices):
            numbers.put(number)
        self.processes = ProcessPoolExecutor(
            trainer.devices, context, open_reading, (folder, trainer, tokens, numbers)
        )
        self.ask = partial(self.processes.map, read)
        # Here, not where they are asked: they end with the thread that started them.
        for ready in [self.processes.submit(read, []) for _ in range(trainer.devices)]:
            ready.result()

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Score `1 − 2p` of each question, both orders averaged; similar lengths read together."""
        triples = [(q.query, q.text_a, q.text_b) for q in questions]
        lots = by_length([-len(q.text_a) - len(q.text_b) for q in questions], LOT)
        told = [[triples[i] for i in lot] for lot in lots]
        scores = [0.0] * len(questions)
        try:
            for lot, found in zip(lots, self.ask(told), strict=True):
                for i, p in zip(lot, found, strict=True):
                    scores[i] = 1.0 - 2.0 * p
        except BrokenProcessPool:
            raise UserError(
                "distilled judge: one of its processes was ended from outside (out of memory?); "
                "what was answered is in the ledger, and the same command goes on"
            ) from None
        return [Answer(score) for score in scores]


class Reading:
    """The model on one device."""

    def __init__(self, folder: Path, trainer: LightningTrainer, tokens: int, number: int) -> None:
        from zelo.models.pairwise import PairwiseCrossEncoder

        self.device, self.trainer, self.tokens = trainer.device(number), trainer, tokens
        self.model: PairwiseCrossEncoder = PairwiseCrossEncoder.load(folder).to(self.device)

    def __call__(self, triples: Sequence[Triple]) -> list[float]:
        """P(a ≻ b) of triples."""
        with self.trainer.autocast(self.device):
            p: list[float] = self.model.preference(triples, self.tokens).tolist()
        return p


OPEN: list[Reading] = []  # the one of a process that answers for a device


def open_reading(folder: Path, trainer: LightningTrainer, tokens: int, numbers: Any) -> None:
    """Load the model in a process of its own, on a device that no other has."""
    from zelo.distributed.ranks import die_with_parent, share_cores

    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asked stops them
    share_cores(trainer)
    OPEN.append(Reading(folder, trainer, tokens, numbers.get()))


def read(triples: Sequence[Triple]) -> list[float]:
    """Have the model of this process read triples."""
    return OPEN[0](triples)
