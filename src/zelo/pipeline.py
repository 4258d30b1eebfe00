"""The stages, in order.

    load → retrieve → [compare → judge → distil →] (compare → judge)+ → rate → train → evaluate
    → [assess → refine → judge → distil → ...] → report; [cross → judge →] before rate

Each is a function of its inputs' folders and of components; the store calls it where its output
does not exist yet. With distillation the ensemble is asked about few pairs, a pairwise model
learns from them, and the same two stages run again with that model as the judge. A sampler that
learns from the answers has the two run once for each of its rounds. With refinement the ensemble
is asked where the trained model fails, and everything from distillation on is another pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

from pydantic import field_validator, model_validator

from zelo.comparison.compare import compare
from zelo.comparison.cross import CrossQuery, cross
from zelo.comparison.refine import Refinement, known_to_refine, refine
from zelo.comparison.rounds import count, in_rounds
from zelo.comparison.sampler import BaseSampler, OneRoundSampler, Sampler
from zelo.config import Component, check, describe, option
from zelo.data.collection import NO_TRAINING, Data, load
from zelo.distributed.trainer import LightningTrainer
from zelo.errors import UserError
from zelo.evaluation.assess import assess
from zelo.evaluation.evaluate import Evaluation, evaluate, grades_to_evaluate
from zelo.judging.distilled import Distilled
from zelo.judging.ensemble import Ensemble
from zelo.judging.judge import judge
from zelo.judging.spending import Budget
from zelo.models.pairwise_model import BasePairwiseModel
from zelo.models.pretrained import PretrainedModel
from zelo.rating.rate import Rating, rate
from zelo.reporting.report import report
from zelo.retrieval.retrieve import Retriever, retrieve
from zelo.store import Artifact, Store, digest
from zelo.training.distil import distil
from zelo.training.loggers import Tracker, Tracking
from zelo.training.objectives import BaseObjective
from zelo.training.options import TrainingOptions
from zelo.training.train import train
from zelo.training.trainable import MODEL, TrainableModel

STAGES = (
    load, retrieve, compare, cross, judge, distil, rate, train, evaluate, assess, refine, report,
)  # fmt: skip
STAGE_NAMES = tuple(stage.name for stage in STAGES)


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
    top_k: int = option(100, "candidates per query", ge=1)
    depth: int = option(100, "of these, how many are compared", ge=2)
    pretrained: PretrainedModel = option(help="the starting point that other options refer to")
    data: Data = option(help="the collection")
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

    @field_validator("stages")
    @classmethod
    def _known(cls, stages: list[str] | None) -> list[str] | None:
        unknown = sorted(set(stages or []) - set(STAGE_NAMES))
        if unknown:
            raise ValueError(f"no stage {', '.join(unknown)}; there are {', '.join(STAGE_NAMES)}")
        return stages


def run_stages(
    run: Run, store: Store, tracking: Tracking, overrides: Sequence[str] = ()
) -> dict[str, Artifact]:
    """Run every selected stage that the store does not hold; training is logged by `tracking`.

    `overrides` are the words that `run` was composed with, which the report quotes.

    Returns the artefacts by what they are to the run; of several passes those of the last, and
    `pass_1_metrics`, `pass_1_pairwise`, ... of each.
    """
    way = Way(run, store, tracking, overrides)
    if run.distil is None:
        made = way.one_pass(run.judge)
        return {**made, "report": way.report(made, run.judge.vote)}
    few = way.compare(run.distil.sampler, depth=run.top_k, about=" (few, for the ensemble)")
    asked = way.judge(run.judge, few, {}, " (the ensemble)")
    made = {"ensemble_comparisons": few, "ensemble_judgments": asked}
    learned = {"judgments": asked}  # what the pairwise model learns from
    compared = {"comparisons_few": few}
    passes, sample = 1, None
    if run.refine is not None:
        passes = run.refine.passes
        sample = way.compare(
            run.refine.sample,
            depth=run.refine.sample_depth,
            queries=run.refine.sample_queries,
            about=" (the sample)",
        )
        dense = way.judge(run.judge, sample, compared, " (the ensemble, the sample)")
        made |= {"sample_comparisons": sample, "sample_judgments": dense}
    for number in range(1, passes + 1):
        about = "" if passes == 1 else f", pass {number}"
        pairwise = way.distil(run.distil, learned, about)
        student = Distilled(
            folder=pairwise.path / MODEL,
            stage_fingerprint=pairwise.fingerprint,
            trainer=run.trainer,
            max_tokens_per_forward=run.distil.training.max_tokens_per_forward,
        )
        judges = Ensemble(judges={"distilled": student}, vote="soft")
        of_pass = {"pairwise": pairwise} | way.one_pass(judges, " (the distilled model)", about)
        made |= of_pass
        if run.refine is None or sample is None:
            break
        answered = way.judge(judges, sample, {}, f" (the distilled model, the sample){about}")
        of_pass["assessment"] = way.assess(dense, answered, made, learned, about)
        made |= {f"pass_{number}_{name}": of_pass[name] for name in OF_PASS}
        if number == passes:
            break
        failed = way.refine(run.refine, made["trained"], about)
        if failed.complete and not count(failed):
            break  # nothing to learn from
        more = way.judge(run.judge, failed, compared, f" (the ensemble, failures of pass {number})")
        learned = {**learned, f"judgments_{number + 1}": more}
        compared = {**compared, f"comparisons_{number + 1}": failed}
        made |= {f"failed_{number}_comparisons": failed, f"failed_{number}_judgments": more}
    return {**made, "report": way.report(made, "soft")}


OF_PASS = ("pairwise", "ratings", "trained", "metrics", "assessment")  # kept of each


class Way:
    """The stages of one run, each with the options that the run has for it."""

    def __init__(
        self, run: Run, store: Store, tracking: Tracking, overrides: Sequence[str]
    ) -> None:
        self.run, self.store, self.overrides = run, store, overrides
        self.tried = False
        self.seed = {"seed": run.seed}
        self.logger = {"logger": tracking}
        tokens = run.trainer.max_tokens_per_forward(run.training.max_tokens_per_forward)
        self.scoring = {"trainer": run.trainer, "tokens": tokens}
        self.paid = {
            "ledger": run.home / "ledger.sqlite",
            "budget": run.budget,
            "run": digest(describe(run)),  # what it spent counts on when it goes on after a stop
        }
        self.data = data = store.run(load, {}, {"source": run.data})
        asks = data.complete and compare.name in store.selected
        if asks and not data.record["counts"]["queries"].get("train"):
            raise UserError(
                f"data: no query is left to train on, since every query has labels to test with: "
                f"{NO_TRAINING}"
            )
        if data.complete and evaluate.name in store.selected:
            grades_to_evaluate(data.path, run.evaluation.split)  # before anything is paid for
        if data.complete and refine.name in store.selected and run.refine is not None:
            known_to_refine(data.path)
        options = {"retriever": run.retriever, "top_k": run.top_k}
        if judge.name in store.selected and store.pending(retrieve, {"data": data}, options):
            self.try_the_rest()  # before what may take hours
        candidates = store.run(retrieve, {"data": data}, options)
        self.ranked = {"data": data, "candidates": candidates}

    def try_the_rest(self) -> None:
        """Try once what the stages after judging need: nothing is paid for that cannot be used.

        Raises `UserError`.
        """
        from zelo.training.trial import try_distilling, try_training

        run, chosen = self.run, self.store.selected
        if self.tried:
            return
        self.tried = True
        if rate.name in chosen:
            check(run.rating)
        if chosen & {train.name, distil.name}:
            check(run.logger)
        if run.distil is not None and distil.name in chosen:
            try_distilling(run.distil.model, run.distil.training, run.trainer)
        if train.name in chosen:
            try_training(run.model, run.objective, run.training, run.trainer)

    def compare(
        self,
        sampler: BaseSampler,
        depth: int,
        vote: str | None = None,
        queries: int | None = None,
        judged: Mapping[str, Artifact] = MappingProxyType({}),
        about: str = "",
    ) -> Artifact:
        """Pairs that a sampler draws, of `queries` or of all."""
        options = {"sampler": sampler, "depth": depth, "vote": vote or self.run.judge.vote}
        some = {} if queries is None else {"queries": queries}
        return self.store.run(
            compare,
            {**self.ranked, **judged},
            {**options, **some, **self.seed},
            label=f"compare{about}",
        )

    def judge(
        self,
        judges: Ensemble,
        comparisons: Artifact,
        earlier: Mapping[str, Artifact],
        about: str,
    ) -> Artifact:
        """What judges say of pairs; `earlier` are those that they were asked about before."""
        inputs = {"data": self.data, "comparisons": comparisons, **earlier}
        options = {"ensemble": judges, **self.seed}
        if self.store.pending(judge, inputs, options):
            self.try_the_rest()
        return self.store.run(judge, inputs, options, self.paid, label=f"judge{about}")

    @cached_property
    def across(self) -> dict[str, Artifact]:
        """What the ensemble says of pairs across queries, which a distilled model cannot read."""
        if self.run.cross is None:
            return {}
        options = {"cross": self.run.cross, "depth": self.run.depth, **self.seed}
        pairs = self.store.run(cross, self.ranked, options)
        return {"cross": self.judge(self.run.judge, pairs, {}, " (across queries)")}

    def distil(
        self, distillation: Distillation, judgments: Mapping[str, Artifact], about: str
    ) -> Artifact:
        """The pairwise model that learns from the ensemble."""
        return self.store.run(
            distil,
            {"data": self.data, **judgments},
            {
                "model": distillation.model,
                "training": distillation.training,
                "trainer": self.run.trainer,
                "vote": self.run.judge.vote,
                **self.seed,
            },
            self.logger,
            label=f"distil{about}",
        )

    def one_pass(self, judges: Ensemble, whose: str = "", about: str = "") -> dict[str, Artifact]:
        """From candidates to metrics, by the answers of `judges`."""
        run = self.run
        asked, judged = in_rounds(
            run.sampler,
            lambda judged, which: self.compare(
                run.sampler, run.depth, judges.vote, judged=judged, about=f"{about}{which}"
            ),
            lambda comparisons, earlier, which: self.judge(
                judges, comparisons, earlier, f"{whose}{about}{which}"
            ),
        )
        rating = {"rating": run.rating, "vote": judges.vote}
        if self.across:
            rating["cross_vote"] = run.judge.vote
        ratings = self.store.run(rate, {**judged, **self.across}, rating, label=f"rate{about}")
        trained = self.store.run(
            train,
            {
                "data": self.data,
                "ratings": ratings,
                **(judged if run.objective.reads_judgments else {}),
            },
            {
                "model": run.model,
                "objective": run.objective,
                "training": run.training,
                "trainer": run.trainer,
                **self.seed,
            },
            self.logger,
            label=f"train{about}",
        )
        metrics = self.store.run(
            evaluate,
            {**self.ranked, "trained": trained},
            {"model": run.model, "evaluation": run.evaluation, **self.seed},
            self.scoring,
            label=f"evaluate{about}",
        )
        outcome = {"ratings": ratings, "trained": trained, "metrics": metrics}
        return {**asked, **judged, **self.across, **self.ranked, **outcome}

    def refine(self, refinement: Refinement, trained: Artifact, about: str) -> Artifact:
        """Pairs where the trained model fails."""
        options = {"model": self.run.model, "threshold": refinement.threshold, **self.seed}
        return self.store.run(
            refine,
            {**self.ranked, "trained": trained},
            options,
            self.scoring,
            label=f"refine{about}",
        )

    def assess(
        self,
        asked: Artifact,
        answered: Artifact,
        made: Mapping[str, Artifact],
        learned: Mapping[str, Artifact],
        about: str,
    ) -> Artifact:
        """How near a pass comes to the ensemble."""
        return self.store.run(
            assess,
            {"ensemble": asked, "distilled": answered, "ratings": made["ratings"], **learned},
            {"rating": self.run.rating, "vote": self.run.judge.vote, **self.seed},
            label=f"assess{about}",
        )

    def report(self, made: Mapping[str, Artifact], vote: str) -> Artifact:
        """The page and the model card."""
        options = {"run": self.run, "vote": vote}
        return self.store.run(report, made, options, {"overrides": self.overrides})
