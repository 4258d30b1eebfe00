"""The stages, in order.

    load → retrieve → [compare → judge → distil →] (compare → judge)+ → rate → train → evaluate
    → report

Each is a function of its inputs' folders and of components; the store calls it where its output
does not exist yet. With distillation the ensemble is asked about few pairs, a pairwise model
learns from them, and the same two stages run again with that model as the judge. A sampler that
learns from the answers has the two run once for each of its rounds.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import field_validator

from zelo.comparison.adaptive import AdaptiveSampler
from zelo.comparison.compare import PairSource, Sampler, compare
from zelo.config import Component, describe, option
from zelo.data.collection import Data, load
from zelo.errors import UserError
from zelo.evaluation.evaluate import Evaluation, evaluate, grades_to_evaluate
from zelo.judging.distilled import Distilled
from zelo.judging.ensemble import Ensemble
from zelo.judging.judge import judge
from zelo.judging.spending import Budget
from zelo.models.weights import Weights
from zelo.rating.rate import Rating, rate
from zelo.reporting.report import report
from zelo.retrieval.retrieve import Retriever, retrieve
from zelo.store import Artifact, Store, digest
from zelo.training.distil import PairwiseModel, distil
from zelo.training.loggers import Tracker, Tracking
from zelo.training.objectives import Objective
from zelo.training.options import LightningTrainer, TrainingOptions
from zelo.training.train import MODEL, Model, train

STAGES = (load, retrieve, compare, judge, distil, rate, train, evaluate, report)
STAGE_NAMES = tuple(stage.name for stage in STAGES)


class Distillation(Component):
    """`distil=on`: a small model learns the ensemble's answers and gives the rest of them."""

    sampler: Sampler = option(help="pairs that the ensemble is asked")
    model: PairwiseModel = option(help="what learns")
    training: TrainingOptions = option(help="how it learns")


class Run(Component):
    """A whole run: one component per group of `conf/`, and what they share."""

    seed: int = option(0, "of every random draw", ge=0)
    stages: list[str] | None = option(None, "stages that may run; null: all", exclude=True)
    home: Path = option(Path("outputs"), "folder of runs, stage store and ledger", exclude=True)
    top_k: int = option(100, "candidates per query", ge=1)
    depth: int = option(100, "of these, how many are compared", ge=2)
    weights: Weights = option(help="the starting point that other options refer to")
    data: Data = option(help="the collection")
    retriever: Retriever = option(help="the first stage")
    sampler: Sampler | AdaptiveSampler | PairSource = option(help="which pairs are compared")
    judge: Ensemble = option(help="who compares")
    budget: Budget = option(Budget(), "what judges may cost at most", exclude=True)
    distil: Distillation | None = option(None, "whether a distilled model answers in their place")
    rating: Rating = option(help="how comparisons become Elos")
    model: Model = option(help="what is trained")
    objective: Objective = option(help="what it learns")
    training: TrainingOptions = option(help="how it learns")
    trainer: LightningTrainer = option(help="precision and devices")
    logger: Tracker = option(help="where metrics go", exclude=True)
    evaluation: Evaluation = option(help="what is reported")

    @field_validator("stages")
    @classmethod
    def _known(cls, stages: list[str] | None) -> list[str] | None:
        unknown = sorted(set(stages or []) - set(STAGE_NAMES))
        if unknown:
            raise ValueError(f"no stage {', '.join(unknown)}; there are {', '.join(STAGE_NAMES)}")
        return stages


def run_stages(run: Run, store: Store, folder: Path) -> dict[str, Artifact]:
    """Run every selected stage that the store does not hold; `folder` is the run's own.

    Returns the artefacts by what they are to the run.
    """
    seed = {"seed": run.seed}
    logger = {
        "logger": Tracking(tracker=run.logger, folder=folder, config=json.dumps(describe(run)))
    }
    paid = {
        "ledger": run.home / "ledger.sqlite",
        "budget": run.budget,
        "run": digest(describe(run)),  # what it spent counts on when it goes on after a stop
    }

    data = store.run(load, {}, {"source": run.data})
    asks = data.complete and compare.name in store.selected
    if asks and not data.record["counts"]["queries"].get("train"):
        raise UserError(
            "data: no query is left to train on, since every query has labels to test with; "
            "data.train_share=0.5 trains on half of them"
        )
    if data.complete and evaluate.name in store.selected:
        grades_to_evaluate(data.path, run.evaluation.split)  # before anything is paid for
    candidates = store.run(
        retrieve, {"data": data}, {"retriever": run.retriever, "top_k": run.top_k}
    )
    ranked = {"data": data, "candidates": candidates}
    ensemble, made = run.judge, {}
    if run.distil is not None:
        few = store.run(
            compare,
            ranked,
            {
                "sampler": run.distil.sampler,
                "depth": run.top_k,
                "vote": run.judge.vote,
                **seed,
            },
            label="compare (few, for the ensemble)",
        )
        asked = store.run(
            judge,
            {"data": data, "comparisons": few},
            {"judge": run.judge, **seed},
            paid,
            label="judge (the ensemble)",
        )
        pairwise = store.run(
            distil,
            {"data": data, "judgments": asked},
            {
                "model": run.distil.model,
                "training": run.distil.training,
                "trainer": run.trainer,
                "vote": run.judge.vote,
                **seed,
            },
            logger,
        )
        made = {"ensemble_comparisons": few, "ensemble_judgments": asked, "pairwise": pairwise}
        student = Distilled(
            folder=pairwise.path / MODEL, made_by=pairwise.fingerprint, trainer=run.trainer
        )
        ensemble = Ensemble(judges={"distilled": student}, vote="soft")
    rounds = run.sampler.rounds if isinstance(run.sampler, AdaptiveSampler) else 1
    judged: dict[str, Artifact] = {}
    earlier: dict[str, Artifact] = {}
    for number in range(1, rounds + 1):
        suffix, about = ("", "") if rounds == 1 else (f"_{number}", f", round {number}")
        comparisons = store.run(
            compare,
            {**ranked, **judged},
            {"sampler": run.sampler, "depth": run.depth, "vote": ensemble.vote, **seed},
            label=f"compare{about}",
        )
        if comparisons.complete and number > 1 and not comparisons.record["counts"]["comparisons"]:
            break  # no query needs more
        judgments = store.run(
            judge,
            {"data": data, "comparisons": comparisons, **earlier},
            {"judge": ensemble, **seed},
            paid,
            label=("judge" if run.distil is None else "judge (the distilled model)") + about,
        )
        judged[f"judgments{suffix}"] = judgments
        earlier[f"comparisons{suffix}"] = comparisons
        made |= {f"comparisons{suffix}": comparisons, f"judgments{suffix}": judgments}
    ratings = store.run(rate, judged, {"rating": run.rating, "vote": ensemble.vote})
    trained = store.run(
        train,
        {"data": data, "ratings": ratings, **(judged if run.objective.reads_judgments else {})},
        {
            "model": run.model,
            "objective": run.objective,
            "training": run.training,
            "trainer": run.trainer,
            **seed,
        },
        logger,
    )
    metrics = store.run(
        evaluate,
        {**ranked, "trained": trained},
        {"model": run.model, "evaluation": run.evaluation, **seed},
        {"trainer": run.trainer},
    )
    made |= {
        **ranked,
        "ratings": ratings,
        "trained": trained,
        "metrics": metrics,
    }
    reported = store.run(report, made, {"run": run, "vote": ensemble.vote})
    return {**made, "report": reported}
