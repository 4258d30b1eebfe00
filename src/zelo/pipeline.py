"""The stages, in order.

    load → [queries →] retrieve → [compare → judge → distil →] (compare → judge)+ → rate → train
    → fuse → evaluate → [assess → refine → judge → distil → ...] → report;
    [cross → judge →] before rate

Each is a function of its inputs' folders and of components; the store calls it where its output
does not exist yet. Where a collection has few training queries more are written, and what `queries`
makes takes the place of what `load` made; of one without labels nothing is evaluated. With
distillation the ensemble is asked about few pairs, a pairwise model learns from them, and the same
two stages run again with that model as the judge. A sampler that learns from the answers has the
two run once for each of its rounds. With refinement the ensemble is asked where the trained model
fails, and everything from distillation on is another pass.

The sequence is written once, in `run_stages`. `zelo plan` hands it a store that runs nothing and
notes what each stage would be given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any

from zelo.comparison.compare import compare
from zelo.comparison.cross import cross
from zelo.comparison.rounds import count, in_rounds
from zelo.comparison.sampler import BaseSampler
from zelo.config import check
from zelo.data.collection import NO_TRAINING, load
from zelo.errors import UserError
from zelo.evaluation.assess import assess
from zelo.evaluation.evaluate import evaluate, grades_to_evaluate
from zelo.evaluation.fuse import fuse
from zelo.evaluation.refine import Refinement, known_to_refine, refine
from zelo.judging.distilled import Distilled
from zelo.judging.ensemble import Ensemble
from zelo.judging.judge import judge
from zelo.judging.scorer import Scorer
from zelo.judging.simulated import Simulated
from zelo.judging.views import NO_GRADES, Grades
from zelo.progress import say
from zelo.queries.queries import queries
from zelo.rating.rate import rate
from zelo.reporting.report import report
from zelo.retrieval.retrieve import retrieve
from zelo.run_config import Distillation, Run
from zelo.store import Artifact, Store
from zelo.training.distil import distil, refuse_instructions
from zelo.training.loggers import Tracking
from zelo.training.train import train
from zelo.training.trainable import MODEL

KEPT_OF_EACH_PASS = ("pairwise", "ratings", "trained", "metrics", "assessment")


def run_stages(
    run: Run, store: Store, tracking: Tracking, overrides: Sequence[str] = ()
) -> dict[str, Artifact]:
    """Run every selected stage that the store does not hold; training is logged by `tracking`.

    `overrides` are the words that `run` was composed with, which the report quotes.

    Returns the artefacts by what they are to the run; of several passes those of the last, and
    `pass_1_metrics`, `pass_1_pairwise`, ... of each.
    """
    runner = PipelineRunner(run, store, tracking, overrides)
    if run.distil is None:
        artifacts = runner.from_pairs_to_metrics(run.judge)
        return {**artifacts, "report": runner.report(artifacts, run.judge.vote)}
    few_pairs = runner.compare(run.distil.sampler, depth=run.top_k, note=" (few, for the ensemble)")
    judgments = runner.judge(run.judge, few_pairs, {}, " (the ensemble)")
    artifacts = {"ensemble_comparisons": few_pairs, "ensemble_judgments": judgments}
    training_judgments = {"judgments": judgments}  # what the pairwise model learns from
    asked_before = {"comparisons_few": few_pairs}  # what the ensemble need not be asked again
    passes, sample = 1, None
    if run.refine is not None:
        passes = run.refine.passes
        sample = runner.compare(
            run.refine.sample,
            depth=run.refine.sample_depth,
            queries=run.refine.sample_queries,
            note=" (the sample)",
        )
        sample_judgments = runner.judge(
            run.judge, sample, asked_before, " (the ensemble, the sample)"
        )
        artifacts |= {"sample_comparisons": sample, "sample_judgments": sample_judgments}
    for number in range(1, passes + 1):
        note = "" if passes == 1 else f", pass {number}"
        pairwise = runner.distil(run.distil, training_judgments, note)
        distilled = Distilled(
            folder=pairwise.path / MODEL,
            stage_fingerprint=pairwise.fingerprint,
            model=run.distil.model,
            trainer=run.trainer,
            max_tokens_per_forward=run.distil.training.max_tokens_per_forward,
        )
        judges = Ensemble(judges={"distilled": distilled}, vote="soft")
        of_pass = {
            "pairwise": pairwise,
            **runner.from_pairs_to_metrics(judges, " (the distilled model)", note),
        }
        artifacts |= of_pass
        if run.refine is None or sample is None:
            break
        answered = runner.judge(judges, sample, {}, f" (the distilled model, the sample){note}")
        of_pass["assessment"] = runner.assess(
            sample_judgments, answered, of_pass["ratings"], training_judgments, note
        )
        artifacts |= {f"pass_{number}_{name}": of_pass[name] for name in KEPT_OF_EACH_PASS}
        if number == passes:
            break
        failed = runner.refine(run.refine, of_pass["trained"], note)
        if failed.complete and not count(failed):
            break  # nothing to learn from
        of_failed = runner.judge(
            run.judge, failed, asked_before, f" (the ensemble, failures of pass {number})"
        )
        training_judgments |= {f"judgments_{number + 1}": of_failed}
        asked_before |= {f"comparisons_{number + 1}": failed}
        artifacts |= {
            f"failed_{number}_comparisons": failed,
            f"failed_{number}_judgments": of_failed,
        }
    return {**artifacts, "report": runner.report(artifacts, "soft")}


def reads_grades(judges: Ensemble) -> bool:
    """Whether some judge is simulated from labels."""
    return any(
        isinstance(judge, Simulated) and isinstance(judge.view, Grades)
        for judge in judges.judges.values()
    )


def judges_that_start_alike(run: Run) -> list[str]:
    """Names of the judges that score by the model which is trained, as it is before that; one that
    counts less than another judge is left out, since somebody chose that."""
    most = max(map(run.judge.weight, run.judge.judges))
    scorers = {
        name: judge
        for name, judge in run.judge.judges.items()
        if isinstance(judge, Scorer) and run.judge.weight(name) == most
    }
    start = run.model.pretrained.fingerprint() if scorers else ""
    return [name for name, judge in scorers.items() if judge.pretrained.fingerprint() == start]


class PipelineRunner:
    """The stages of one run, each with the options that the run has for it.

    The `note` of a stage is put behind its name on the screen.
    """

    def __init__(
        self, run: Run, store: Store, tracking: Tracking, overrides: Sequence[str]
    ) -> None:
        self.run, self.store, self.overrides = run, store, overrides
        self.rest_was_tried = False
        self.seed = {"seed": run.seed}
        self.logger = {"logger": tracking}
        tokens = run.trainer.max_tokens_per_forward(run.training.max_tokens_per_forward)
        self.scoring = {"tokens": tokens}
        self.paying = {
            "ledger": run.home / "ledger.sqlite",
            "budget": run.budget,
            "run": store.fingerprint(run),  # what it spent counts when it goes on after a stop
        }
        self.loaded = loaded = store.run(load, {}, {"source": run.data})
        self.labelled = not loaded.complete or bool(loaded.record["counts"]["labels"])
        if self.to_judge_by_labels_that_are_not_there():
            raise UserError(NO_GRADES)
        if evaluate.name in store.selected and not self.labelled:
            store.say("evaluate: left out, since no query has labels")
            store.selected -= {evaluate.name}
        if loaded.complete and evaluate.name in store.selected:
            grades_to_evaluate(loaded.path, run.evaluation.split)  # before anything is paid for
        if loaded.complete and refine.name in store.selected and run.refine is not None:
            known_to_refine(loaded.path)
        self.data = data = self.with_written_queries()
        asks = data.complete and compare.name in store.selected
        if asks and not data.record["counts"]["queries"].get("train"):
            raise UserError(f"data: no query is left to train on: {NO_TRAINING}")
        if data.complete and run.distil is not None:
            refuse_instructions(data.path)
        options = {"retriever": run.retriever, "top_k": run.top_k}
        if judge.name in store.selected and store.pending(retrieve, {"data": data}, options):
            self.try_the_rest()  # before what may take hours
        candidates = store.run(retrieve, {"data": data}, options)
        self.ranked = {"data": data, "candidates": candidates}

    def to_judge_by_labels_that_are_not_there(self) -> bool:
        """Whether judges are to read labels of queries that the collection has or gets, and none is
        there."""
        if (
            self.labelled
            or judge.name not in self.store.selected
            or not reads_grades(self.run.judge)
        ):
            return False
        given = self.loaded.record["counts"]["queries"].get("train", 0)
        return bool(given) or self.run.writing(given) is not None

    def try_the_rest(self) -> None:
        """Try once what the stages after judging need: nothing is paid for that cannot be used.

        Raises `UserError`.
        """
        from zelo.training.trial import try_distilling, try_training

        run, chosen = self.run, self.store.selected
        if self.rest_was_tried:
            return
        self.rest_was_tried = True
        for name in judges_that_start_alike(run):
            say(
                f"! judge {name}: it is the model that training starts from, and cannot teach what "
                f"that does not know; name another (judge.judges.{name}.pretrained.name=...), or "
                f"leave it out"
            )
        if rate.name in chosen:
            check(run.rating)
        if chosen & {train.name, distil.name}:
            check(run.logger)
        with self.store.around({"trainer": run.trainer}):
            if run.distil is not None and distil.name in chosen:
                try_distilling(run.distil.model, run.distil.training, run.trainer)
            if train.name in chosen:
                try_training(run.model, run.objective, run.training, run.trainer)

    def with_written_queries(self) -> Artifact:
        """The collection, with written training queries where it is to have some; what `load` made
        where it is not.

        With `queries=auto` nothing is written either where the stage may not run and has not run.
        """
        run, store, loaded = self.run, self.store, self.loaded
        counts = loaded.record["counts"] if loaded.complete else {"queries": {}}
        writing = run.writing(counts["queries"].get("train", 0))
        if writing is None:
            return loaded
        inputs = {"data": loaded}
        searching = {"retriever": run.retriever if writing.filters.round_trip else None}
        told = getattr(run.data, "instruction", None)
        options: dict[str, Any] = {"writing": writing, **searching, **self.seed}
        if told:
            options["instruction"] = told
        if writing.neighbourhood and run.training.validation_fraction is not None:
            options["validation_fraction"] = run.training.validation_fraction
        if judge.name in store.selected and store.pending(queries, inputs, options):
            self.try_the_rest()  # writers may be paid
        written = store.run(queries, inputs, options, self.paying)
        may_not = queries.name not in store.selected and not written.complete
        return loaded if may_not and writing.fewer_than is not None else written

    def compare(
        self,
        sampler: BaseSampler,
        depth: int,
        vote: str | None = None,
        queries: int | None = None,
        judged: Mapping[str, Artifact] = MappingProxyType({}),
        note: str = "",
    ) -> Artifact:
        """Pairs that a sampler draws, of `queries` or of all."""
        options = {"sampler": sampler, "depth": depth, "vote": vote or self.run.judge.vote}
        some = {} if queries is None else {"queries": queries}
        return self.store.run(
            compare,
            {**self.ranked, **judged},
            {**options, **some, **self.seed},
            label=f"compare{note}",
        )

    def judge(
        self,
        judges: Ensemble,
        comparisons: Artifact,
        earlier: Mapping[str, Artifact],
        note: str,
    ) -> Artifact:
        """What judges say of pairs; `earlier` are those that they were asked about before."""
        inputs = {"data": self.data, "comparisons": comparisons, **earlier}
        options = {"ensemble": judges, **self.seed}
        if self.store.pending(judge, inputs, options):
            self.try_the_rest()
        return self.store.run(judge, inputs, options, self.paying, label=f"judge{note}")

    @cached_property
    def cross_query_judgments(self) -> dict[str, Artifact]:
        """What the ensemble says of pairs across queries, which a distilled model cannot read."""
        if self.run.cross is None:
            return {}
        options = {"cross": self.run.cross, "depth": self.run.depth, **self.seed}
        pairs = self.store.run(cross, self.ranked, options)
        return {"cross": self.judge(self.run.judge, pairs, {}, " (across queries)")}

    def distil(
        self, distillation: Distillation, judgments: Mapping[str, Artifact], note: str
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
            label=f"distil{note}",
        )

    def from_pairs_to_metrics(
        self, judges: Ensemble, judge_note: str = "", note: str = ""
    ) -> dict[str, Artifact]:
        """From candidates to metrics, by the answers of `judges`; `judge_note` is the stage judge's
        alone."""
        run = self.run
        comparisons, judgments = in_rounds(
            run.sampler,
            lambda judged, which: self.compare(
                run.sampler, run.depth, judges.vote, judged=judged, note=f"{note}{which}"
            ),
            lambda pairs, earlier, which: self.judge(
                judges.in_round(len(earlier) + 1), pairs, earlier, f"{judge_note}{note}{which}"
            ),
        )
        across = self.cross_query_judgments
        rating = {"rating": run.rating, "vote": judges.vote}
        if across:
            rating["cross_vote"] = run.judge.vote
        ratings = self.store.run(rate, {**judgments, **across}, rating, label=f"rate{note}")
        trained = self.store.run(
            train,
            {
                "data": self.data,
                "ratings": ratings,
                **(judgments if run.objective.reads_judgments else {}),
            },
            {
                "model": run.model,
                "objective": run.objective,
                "training": run.training,
                "trainer": run.trainer,
                **self.seed,
            },
            self.logger,
            label=f"train{note}",
        )
        fusion = self.store.run(
            fuse,
            {**self.ranked, "ratings": ratings, "trained": trained},
            {
                "model": run.model,
                "trainer": run.trainer,
                "search_at_most": run.evaluation.search_at_most,
            },
            self.scoring,
            label=f"fuse{note}",
        )
        metrics = self.store.run(
            evaluate,
            {**self.ranked, "trained": trained, "fusion": fusion},
            {
                "model": run.model,
                "evaluation": run.evaluation,
                "trainer": run.trainer,
                **self.seed,
            },
            self.scoring,
            label=f"evaluate{note}",
        )
        outcome = {"ratings": ratings, "trained": trained, "fusion": fusion, "metrics": metrics}
        return {**comparisons, **judgments, **across, **self.ranked, **outcome}

    def refine(self, refinement: Refinement, trained: Artifact, note: str) -> Artifact:
        """Pairs where the trained model fails."""
        options = {
            "model": self.run.model,
            "threshold": refinement.threshold,
            "trainer": self.run.trainer,
            **self.seed,
        }
        return self.store.run(
            refine,
            {**self.ranked, "trained": trained},
            options,
            self.scoring,
            label=f"refine{note}",
        )

    def assess(
        self,
        asked: Artifact,
        answered: Artifact,
        ratings: Artifact,
        training_judgments: Mapping[str, Artifact],
        note: str,
    ) -> Artifact:
        """How near a pass comes to the ensemble."""
        return self.store.run(
            assess,
            {"ensemble": asked, "distilled": answered, "ratings": ratings, **training_judgments},
            {"rating": self.run.rating, "vote": self.run.judge.vote, **self.seed},
            label=f"assess{note}",
        )

    def report(self, artifacts: Mapping[str, Artifact], vote: str) -> Artifact:
        """The page and the model card."""
        options = {"run": self.run, "vote": vote}
        if self.data is not self.loaded:
            artifacts = {**artifacts, "loaded": self.loaded}
        if not self.labelled:
            artifacts = {k: made for k, made in artifacts.items() if made.stage != evaluate.name}
        return self.store.run(report, artifacts, options, {"overrides": self.overrides})
