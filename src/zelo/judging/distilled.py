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
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from zelo.config import name_of, option
from zelo.distributed.trainer import LightningTrainer
from zelo.errors import UserError
from zelo.judging.base import BaseJudge, LocalSession
from zelo.judging.question import Answer, Question
from zelo.models.batching import by_length
from zelo.models.pairwise_model import BasePairwiseModel, PairwiseModel
from zelo.models.pretrained import PretrainedModel
from zelo.store import digest, digest_files

if TYPE_CHECKING:
    from zelo.models.pairwise import PairwiseNetwork, Triple

CHARACTERS = 4  # of a token, about
QUESTIONS_PER_DEVICE = 256  # questions, at most, that a device is given at once


class Distilled(BaseJudge):
    """Answers with a pairwise model that the `distil` stage made."""

    usd_per_answer: ClassVar[float] = 0.0
    folder: Path = option(help="the model's folder", exclude=True)
    stage_fingerprint: str | None = option(
        None, "fingerprint of the stage that makes the model; null: it is there already"
    )
    model: BasePairwiseModel | None = option(
        None, "what loads the folder; null: the pairwise cross-encoder"
    )
    trainer: LightningTrainer | None = option(None, "precision and devices; null: the CPU")
    max_tokens_per_forward: int | None = option(
        None,
        "tokens per forward pass, padding included; null: 2,048 on a CPU, 16,384 on a GPU",
        ge=1,
        exclude=True,
    )

    def fingerprint(self) -> str | None:
        """Digest of the weights, where no stage is yet to make them."""
        return None if self.stage_fingerprint else digest_files(self._weights())

    def _weights(self) -> list[Path]:
        found = sorted(self.folder.expanduser().glob("*.safetensors"))
        if not found:
            raise UserError(f"judge: {self.folder}: no distilled pairwise model is there")
        return found

    def prepare(
        self, data: Path, pairs: Mapping[str, Sequence[str]], seed: int
    ) -> DistilledSession:
        """Load the model; its weights and the precision are the fingerprint."""
        trainer = self.trainer or LightningTrainer()
        said = ["distilled", digest_files(self._weights())]
        if trainer.precision != "32-true":
            said.append(trainer.precision)
        max_tokens = trainer.max_tokens_per_forward(self.max_tokens_per_forward)
        model = self.model or PairwiseModel(pretrained=PretrainedModel(name=str(self.folder)))
        if type(model) is not PairwiseModel:
            said.append(name_of(type(model)))
        load = partial(model.load, self.folder.expanduser())
        return DistilledSession(digest(said), load, trainer, max_tokens)


class DistilledSession(LocalSession):
    """The loaded model, or the processes that have it."""

    def __init__(
        self,
        fingerprint: str,
        load: Callable[[], PairwiseNetwork],
        trainer: LightningTrainer,
        tokens: int,
    ) -> None:
        self.fingerprint = fingerprint
        self.processes: ProcessPoolExecutor | None = None
        self.read_batches: Callable[[list[list[Triple]]], Iterable[list[float]]]  # P(a ≻ b) of each
        if trainer.devices == 1:
            self.read_batches = partial(map, DeviceModel(load, trainer, tokens, 0))
            return
        context = multiprocessing.get_context("spawn")
        device_numbers: Any = context.Queue()
        for number in range(trainer.devices):
            device_numbers.put(number)
        self.processes = ProcessPoolExecutor(
            trainer.devices, context, load_on_device, (load, trainer, tokens, device_numbers)
        )
        self.read_batches = partial(self.processes.map, preference_of)
        # Here, not where they are asked: they end with the thread that started them.
        for ready in [self.processes.submit(preference_of, []) for _ in range(trainer.devices)]:
            ready.result()

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Score `1 − 2p` of each question, both orders averaged; similar lengths read together."""
        triples = [(q.query, q.text_a, q.text_b) for q in questions]
        longest_first = [-len(q.text_a) - len(q.text_b) for q in questions]
        batches = by_length(longest_first, QUESTIONS_PER_DEVICE)
        asked = [[triples[i] for i in batch] for batch in batches]
        scores = [0.0] * len(questions)
        try:
            for batch, found in zip(batches, self.read_batches(asked), strict=True):
                for i, p in zip(batch, found, strict=True):
                    scores[i] = 1.0 - 2.0 * p
        except BrokenProcessPool:
            raise UserError(
                "distilled judge: one of its processes was ended from outside (out of memory?); "
                "what was answered is in the ledger, and the same command goes on"
            ) from None
        return [Answer(score) for score in scores]


class DeviceModel:
    """The model on one device."""

    def __init__(
        self,
        load: Callable[[], PairwiseNetwork],
        trainer: LightningTrainer,
        tokens: int,
        number: int,
    ) -> None:
        from zelo.models.reading import made_ready
        from zelo.models.tokens import Chunking

        self.device, self.trainer = trainer.device(number), trainer
        self.model: PairwiseNetwork = load().to(self.device)
        self.chunking = Chunking(tokens, made_ready(self.model.encoder, trainer, self.device))
        self.read = 0  # tokens
        self.compiled = self.device.type != "cuda"  # or it needs not be

    def __call__(self, triples: Sequence[Triple]) -> list[float]:
        """P(a ≻ b) of triples."""
        if not self.compiled:
            self.compile_if_worth(triples)
        with self.trainer.autocast(self.device):
            p: list[float] = self.model.preference(triples, self.chunking).tolist()
        return p

    def compile_if_worth(self, triples: Sequence[Triple]) -> None:
        """Compile the layers once as much has been read as would have paid for it: how much is to
        come is not known here."""
        from zelo.models.layers import compile_layers, worth_compiling
        from zelo.models.reading import READING

        self.read += 2 * sum(map(len, chain.from_iterable(triples))) // CHARACTERS
        if worth_compiling(self.model.encoder, self.read, READING, self.device):
            compile_layers(self.model.encoder, self.chunking.packed)
            self.chunking = replace(self.chunking, fixed=self.chunking.packed)
            self.compiled = True


LOADED: list[DeviceModel] = []  # the one of a process that answers for a device


def load_on_device(
    load: Callable[[], PairwiseNetwork],
    trainer: LightningTrainer,
    tokens: int,
    device_numbers: Any,
) -> None:
    """Load the model in a process of its own, on a device that no other has."""
    from zelo.distributed.ranks import die_with_parent, share_cores

    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asked stops them
    share_cores(trainer)
    LOADED.append(DeviceModel(load, trainer, tokens, device_numbers.get()))


def preference_of(triples: Sequence[Triple]) -> list[float]:
    """Have the model of this process read triples."""
    return LOADED[0](triples)
