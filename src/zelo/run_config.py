"""The configuration of a whole run (`conf/config.yaml`)."""

from __future__ import annotations

from pathlib import Path

from pydantic import field_validator, model_validator

from zelo.comparison.cross import CrossQuery
from zelo.comparison.sampler import OneRoundSampler, Sampler
from zelo.config import Component, option
from zelo.data.collection import Data
from zelo.distributed.trainer import LightningTrainer
from zelo.errors import UserError
from zelo.evaluation.evaluate import Evaluation
from zelo.evaluation.refine import Refinement
from zelo.judging.ensemble import Ensemble
from zelo.judging.spending import Budget
from zelo.models.pairwise_model import BasePairwiseModel
from zelo.models.pretrained import PretrainedModel
from zelo.queries.queries import QueryWriting
from zelo.rating.rate import Rating
from zelo.retrieval.retrieve import Retriever
from zelo.retrieval.run_file import RunFile
from zelo.training.loggers import Tracker
from zelo.training.objectives import BaseObjective
from zelo.training.options import TrainingOptions
from zelo.training.trainable import TrainableModel

STAGE_NAMES = (  # as the pipeline calls them
    "load", "queries", "retrieve", "compare", "cross", "judge", "distil", "rate", "train", "fuse",
    "evaluate", "assess", "refine", "report",
)  # fmt: skip


class Distillation(Component):
    """`distil=on`: a small model learns the ensemble's answers and gives the rest of them."""

    sampler: OneRoundSampler = option(help="pairs that the ensemble is asked")
    model: BasePairwiseModel = option(help="what learns")
    training: TrainingOptions = option(help="how it learns")


class Run(Component):
    """A whole run: one component per group of `conf/`, and what they share."""

    seed: int = option(0, "of every random draw", ge=0)
    stages: list[str] | None = option(None, "stages that may run; null: all", exclude=True)
    home: Path = option(Path("outputs"), "folder of runs, stage store and ledger", exclude=True)
    embeddings_gib: float = option(
        10.0,
        "GiB of embeddings that are kept below home, for all runs; 0: none",
        ge=0,
        exclude=True,
    )
    top_k: int = option(100, "candidates per query", ge=1)
    depth: int = option(100, "of these, how many are compared", ge=2)
    pretrained: PretrainedModel = option(help="the starting point that other options refer to")
    data: Data = option(help="the collection")
    queries: QueryWriting | None = option(help="whether queries are written, and how")
    retriever: Retriever = option(help="the first stage")
    sampler: Sampler = option(help="which pairs are compared")
    judge: Ensemble = option(help="who compares")
    budget: Budget = option(Budget(), "what judges may cost at most", exclude=True)
    distil: Distillation | None = option(None, "whether a distilled model answers in their place")
    cross: CrossQuery | None = option(None, "whether queries get a common level, and how")
    refine: Refinement | None = option(None, "whether failures are learned from, and how")
    rating: Rating = option(help="how comparisons become Elos")
    model: TrainableModel = option(help="what is trained")
    objective: BaseObjective = option(help="what it learns")
    training: TrainingOptions = option(help="how it learns")
    trainer: LightningTrainer = option(help="precision and devices")
    logger: Tracker = option(help="where metrics go", exclude=True)
    evaluation: Evaluation = option(help="what is reported")

    @property
    def given_queries_only(self) -> str | None:
        """Who works on the collection's own queries alone, so that written ones are of no use, in
        words; None where nobody does."""
        if isinstance(self.retriever, RunFile):
            return "retriever=run has no candidates for others"
        if self.sampler.recorded:
            return "sampler=recorded has no pairs of others"
        for name, judge in self.judge.judges.items():
            if judge.knows_given_queries_only:
                return f"judge {name} answers from what is known of these alone"
        return None

    def writing(self, given: int) -> QueryWriting | None:
        """Which queries are written for a collection of so many training queries; None: none.

        `data.train_queries` counts those that are written too. `UserError` where they would be of
        no use and are asked for all the same.
        """
        if self.queries is None:
            return None
        most = getattr(self.data, "train_queries", None)
        wanted = self.queries.in_run_with(self.judge).beside(given, most)
        why = self.given_queries_only
        if wanted is not None and why and self.queries.fewer_than is None:
            raise UserError(
                f"queries: written besides the collection's own, but {why}: choose another, or "
                f"queries=off"
            )
        return None if why else wanted

    @model_validator(mode="after")
    def _refined(self) -> Run:
        if self.refine is not None and self.distil is None:
            raise ValueError(
                "refine=on teaches the distilled model what the first pass got wrong; it needs "
                "distil=on"
            )
        if self.cross is not None and (names := self.judge.of_one_query):
            raise ValueError(
                f"judge {names[0]}: it compares documents of one query only; choose cross=off, or "
                f"another judge (one of your own that can says so: compares_queries = True)"
            )
        if self.cross is not None and self.objective.shift_invariant:
            raise ValueError(
                "cross=on gives queries a common level, of which this objective learns nothing: "
                "choose objective=mse, or cross=off"
            )
        return self

    @model_validator(mode="after")
    def _rounds_there(self) -> Run:
        rounds = 1 if self.distil is not None else self.sampler.max_rounds
        for name, number in self.judge.from_round.items():
            if number > rounds:
                more = "choose one with more (sampler=informative)"
                if self.distil is not None:
                    more = "with distil=on there is one alone: leave from_round out"
                raise ValueError(
                    f"judge.from_round.{name}={number}: it is never asked: the sampler has "
                    f"{rounds} round{'s' * (rounds > 1)}; {more}"
                )
        return self

    @model_validator(mode="after")
    def _blocks_small_enough(self) -> Run:
        sampler, depth = self.sampler, self.depth
        if self.distil is not None:
            sampler, depth = self.distil.sampler, self.top_k
        sizes = sampler.blocks_at_most(min(depth, self.top_k)) if sampler.in_blocks else []
        for name, judge in self.judge.judges.items():
            most = judge.most_in_block
            if judge.orders_lists and most is not None and max(sizes, default=0) > most:
                raise ValueError(
                    f"judge {name}: it orders {most} documents at most, and a block has "
                    f"{max(sizes)}: set sampler.size={most} or less"
                )
        return self

    @field_validator("stages")
    @classmethod
    def _known(cls, stages: list[str] | None) -> list[str] | None:
        unknown = sorted(set(stages or []) - set(STAGE_NAMES))
        if unknown:
            raise ValueError(f"no stage {', '.join(unknown)}; there are {', '.join(STAGE_NAMES)}")
        return stages
