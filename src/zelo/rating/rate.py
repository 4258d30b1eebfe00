"""Stage `rate`: judgments in; Elo, standard error and training target of each document out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from zelo.artifacts import read_table, table, write_table
from zelo.config import Component, option
from zelo.errors import UserError, in_words
from zelo.rating.preferences import average
from zelo.store import stage

if TYPE_CHECKING:
    from zelo.artifacts import Table
    from zelo.rating.comparisons import Reals, Wholes
    from zelo.rating.judges import JudgeFit
    from zelo.rating.tables import EncodedComparisons


class Rating(Component):
    """How comparisons become Elos (`conf/rating/`)."""

    model: str = option(
        "thurstone", "probability model of a comparison", pattern="^(thurstone|bradley_terry)$"
    )
    prior: float = option(0.05, "precision of the Gaussian prior on an Elo", ge=1e-12)
    target: str = option(
        "centred", "map from Elo to training target", pattern="^(centred|cdf|minmax)$"
    )
    joint_judges: bool = option(
        False,
        "fit position bias and discrimination of each judge together with the Elos; of one that "
        "orders blocks, what each slot of them adds to a document",
    )

    def check(self) -> None:
        """Load the solver now, and so find out whether compiled code can be kept."""
        load_solver()


def load_solver() -> None:
    """Import the compiled solver; `UserError` where this machine cannot compile it."""
    try:
        from zelo.rating import kernels  # noqa: F401
    except Exception as error:
        raise UserError(f"rating: numba cannot compile here ({in_words(error)})") from None


@stage(version=5)
def rate(
    *,
    out: Path,
    rating: Rating,
    vote: str,
    cross: Path | None = None,
    cross_vote: str = "soft",
    **judgments: Path,
) -> Mapping[str, Any]:
    """Fit the Elos of every query and write `ratings`, `fits` and `judges`.

    `judgments` are folders, one for each round that judges were asked in. The answers of all judges
    about a comparison are averaged, unless the judges are modelled. Where judges ordered blocks,
    see `rate_lists`; with modelled judges the `slot_effects` are written then. `cross` has
    judgments across queries: the bias of each query is fitted to them, written as `query_biases`,
    and targets are on the common scale.
    """
    from zelo.rating.tables import encode

    answers = pa.concat_tables([read_table(folder, "judgments") for folder in judgments.values()])
    single = encode(answers, vote, "judgments")
    lists = "list_judgments"
    orders = [
        read_table(f, lists) for f in judgments.values() if (f / f"{lists}.parquet").is_file()
    ]
    if orders:
        from zelo.rating.rate_lists import rate_lists

        listed = rate_lists(
            answers,
            orders,
            vote,
            model=rating.model,
            prior=rating.prior,
            target=rating.target,
            joint_judges=rating.joint_judges,
        )
        rated = Rated(listed.ratings, listed.fits)
        if listed.slot_effects is not None:
            write_table(out, "slot_effects", listed.slot_effects)
    elif rating.joint_judges:  # which reads each answer, where others read their averages
        rated = rate_encoded(single, rating)
    else:
        rated = rate_judgments(answers, rating, vote)
    ratings, counts = rated.ratings, rated.counts
    if cross is not None:
        from zelo.rating.common_scale import on_common_scale

        ratings, biases, more = on_common_scale(
            ratings,
            read_table(cross, "judgments"),
            cross_vote,
            model=rating.model,
            prior=rating.prior,
            target=rating.target,
        )
        write_table(out, "query_biases", biases)
        counts |= more
    write_table(out, "ratings", ratings)
    write_table(out, "fits", rated.fits)
    tally = JudgeTally()
    tally.add(single, elos_of(single, rated.ratings))
    write_table(out, "judges", tally.table(single, rated.judges))
    return counts


def rate_judgments(judgments: Table, rating: Rating, vote: str) -> Rated:
    """Rate the queries of a table `judgments`."""
    from zelo.rating.tables import encode

    if rating.joint_judges:
        return rate_encoded(encode(judgments, vote, "judgments"), rating)
    preferences = average(judgments, vote)
    columns = {
        "query_id": preferences.query_ids + [key[0] for key in preferences.unanswered],
        "doc_a": preferences.doc_a + [key[1] for key in preferences.unanswered],
        "doc_b": preferences.doc_b + [key[2] for key in preferences.unanswered],
    }
    p = pa.array([*preferences.p, *[None] * len(preferences.unanswered)], pa.float64())
    arrays = {name: pa.array(column, pa.string()) for name, column in columns.items()}
    return rate_encoded(encode(pa.table({**arrays, "p": p}), "soft", "judgments"), rating)


class Rated:
    """Ratings of some queries, how each fit went, and their judges where these were modelled."""

    def __init__(self, ratings: Table, fits: Table, judges: JudgeFit | None = None) -> None:
        self.ratings, self.fits, self.judges = ratings, fits, judges

    @property
    def counts(self) -> dict[str, int]:
        """Counts for the record of the stage."""
        fits = self.fits
        return {
            "queries": len(fits),
            "documents": len(self.ratings),
            "comparisons": int(np.sum(fits["comparisons"].to_numpy())),
            "disconnected_queries": int((fits["components"].to_numpy() > 1).sum()),
            "not_converged": int((~fits["converged"].to_numpy()).sum()),
        }


def rate_encoded(encoded: EncodedComparisons, rating: Rating) -> Rated:
    """Elos, standard errors and targets of the documents of `encoded`, and how each fit went."""
    from zelo.rating.solver import fit, standard_errors
    from zelo.rating.targets import targets

    comparisons, judges = encoded.comparisons, None
    if rating.joint_judges:
        from zelo.rating.judges import fit_judges

        judges = fit_judges(
            comparisons, encoded.judge, len(encoded.judges), rating.model, rating.prior
        )
        elo, stderr = judges.elo, judges.stderr
        iterations = np.full(comparisons.queries, judges.iterations)
        converged = np.full(comparisons.queries, judges.converged)
    else:
        solution = fit(comparisons, rating.model, rating.prior)
        elo, iterations, converged = solution.elo, solution.iterations, solution.converged
        stderr = standard_errors(comparisons, elo, rating.model, rating.prior)
    ids = encoded.query_ids.filter(pa.array(encoded.answered))
    of = pa.array(np.repeat(np.arange(comparisons.queries), comparisons.sizes))
    ratings = table(
        "ratings",
        query_id=ids.take(of),
        doc_id=encoded.doc_ids,
        elo=elo,
        stderr=stderr,
        target=targets(rating.target, rating.model, elo, comparisons.offsets),
    )

    def of_all_queries(values: Any, otherwise: Any) -> Any:
        """A value per answered query, and `otherwise` for those that no judge answered."""
        whole = np.full(len(encoded.answered), otherwise)
        whole[encoded.answered] = values
        return whole

    fits = table(
        "fits",
        query_id=encoded.query_ids,
        documents=of_all_queries(comparisons.sizes, 0).astype(np.int32),
        comparisons=of_all_queries(np.diff(comparisons.row_offsets), 0).astype(np.int32),
        unanswered=encoded.unanswered.astype(np.int32),
        components=of_all_queries(comparisons.components, 0).astype(np.int32),
        iterations=of_all_queries(iterations, 0).astype(np.int32),
        converged=of_all_queries(converged, True),
    )
    return Rated(ratings, fits, judges)


class JudgeTally:
    """Counts of each judge's answers, added up over blocks of queries.

    `first` is the share of decided answers that prefer the document shown first, `agreement` the
    share that prefer the document of higher Elo. `bias` and `scale` are those of
    `zelo.rating.judges`, null where judges were not modelled.
    """

    def __init__(self) -> None:
        self.counts: dict[str, Wholes] = {}

    def add(self, encoded: EncodedComparisons, elo: Reals) -> None:
        """Count the answers of `encoded`, whose documents have the Elos `elo` (D,)."""
        k, comparisons = len(encoded.judges), encoded.comparisons
        choice, d = np.sign(comparisons.p - 0.5), comparisons.differences(elo)

        def per_judge(rows: Any) -> Wholes:
            return np.bincount(encoded.judge[rows], minlength=k)

        decided = (choice != 0) & (d != 0)
        columns = [
            per_judge(slice(None)),
            encoded.failed,
            per_judge(choice == 0),
            per_judge(choice > 0),
            per_judge(decided),
            per_judge(decided & (choice == np.sign(d))),
        ]
        for name, row in zip(encoded.judges, np.stack(columns, 1), strict=True):
            self.counts[name] = self.counts.get(name, np.zeros(len(columns), np.int64)) + row

    def table(self, encoded: EncodedComparisons, fitted: JudgeFit | None) -> Table:
        """The table `judges`; `fitted` has the judges of `encoded`, in their order."""
        answers, failed, ties, first, decided, right = np.array(list(self.counts.values())).T
        modelled = {
            name: None
            if fitted is None
            else dict(zip(encoded.judges, getattr(fitted, name), strict=True))
            for name in ("bias", "bias_stderr", "scale", "log_scale_stderr")
        }
        return table(
            "judges",
            judge=list(self.counts),
            answers=answers.astype(np.int32),
            failed=failed.astype(np.int32),
            ties=ties.astype(np.int32),
            first=first / np.maximum(answers - ties, 1),
            agreement=right / np.maximum(decided, 1),
            **{
                name: [None if values is None else values[judge] for judge in self.counts]
                for name, values in modelled.items()
            },
        )


def elos_of(encoded: EncodedComparisons, ratings: Table) -> Reals:
    """Elos of `ratings` in the order of the documents of `encoded`."""
    keys = zip(ratings["query_id"].to_pylist(), ratings["doc_id"].to_pylist(), strict=True)
    elo = dict(zip(keys, ratings["elo"].to_pylist(), strict=True))
    queries = encoded.query_ids.filter(pa.array(encoded.answered)).to_pylist()
    of = np.repeat(np.array(queries, dtype=object), encoded.comparisons.sizes)
    return np.array([elo[key] for key in zip(of, encoded.doc_ids.to_pylist(), strict=True)])
