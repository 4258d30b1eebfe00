"""Whether a run's Elos are settled: how far they depend on which comparisons were made, and whether
they say what judges answer about pairs that they were not fitted to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from zelo.artifacts import Table
from zelo.rating.comparisons import Comparisons
from zelo.rating.preferences import average
from zelo.rating.rate import Rating
from zelo.rating.solver import fit
from zelo.rating.tables import encode
from zelo.rating.targets import CDF
from zelo.seeding import stream

Reals = NDArray[np.float64]
SHARES = (0.0625, 0.125, 0.25, 0.5)  # of a query's comparisons, in each of two parts
QUERIES = 1_000  # that are looked at, at most
BINS = 10


@dataclass(frozen=True)
class Settled:
    """What two disjoint parts of a run's comparisons make of the same documents.

    `curve` has, for parts of growing size, comparisons per document and the mean over queries of
    the correlation between the Elos of two such parts. `whole` is what the Spearman–Brown formula
    expects of two sets as large as all comparisons: the share of the variance of the Elos that is
    not chance. `predicted` has a row per bin of as many comparisons each: the preference that Elos
    of one half expect for the document of the higher Elo, and the mean answer of judges in the
    other half; `right` is the share of the decided answers there that prefer it.
    """

    queries: int
    curve: list[tuple[float, float]]
    whole: float
    per_document: float  # comparisons, of the whole
    predicted: list[tuple[float, float]]
    right: float


def settled(said: Table, vote: str, rating: Rating, seed: int) -> Settled | None:
    """Split the comparisons of a table `judgments` in two and rate each part alone; None where no
    query has comparisons enough to be split.

    Judges' answers are averaged, whether or not the run models each of them.
    """
    comparisons = sample_of(said, vote, seed)
    if comparisons is None:
        return None
    place = random_places(comparisons, stream(seed, "report", "settled"))
    curve = []
    for share in SHARES:
        first, second = place < share, place >= 1 - share
        parts = [part_elos(comparisons, part, rating) for part in (first, second)]
        both = correlations(comparisons, *parts)
        if len(both):
            size = (first.sum() + second.sum()) / comparisons.offsets[-1]
            curve.append((float(size), float(both.mean())))
    if not curve:
        return None
    r = curve[-1][1]
    predicted, right = held_out(comparisons, parts[0], second, rating.model)
    return Settled(
        queries=comparisons.queries,
        curve=curve,
        whole=2 * r / (1 + r) if r > 0 else 0.0,
        per_document=float(2 * len(comparisons.p) / comparisons.offsets[-1]),
        predicted=predicted,
        right=right,
    )


def sample_of(said: Table, vote: str, seed: int) -> Comparisons | None:
    """One averaged comparison per pair, of `QUERIES` queries drawn at random or of all."""
    ids = pc.unique(said["query_id"])
    if len(ids) > QUERIES:
        drawn = stream(seed, "report", "queries").permutation(len(ids))[:QUERIES]
        said = said.filter(pc.is_in(said["query_id"], ids.take(pa.array(np.sort(drawn)))))
    p = average(said, vote)
    if not p.query_ids:
        return None
    columns = {"query_id": p.query_ids, "doc_a": p.doc_a, "doc_b": p.doc_b}
    arrays = {name: pa.array(column, pa.string()) for name, column in columns.items()}
    return encode(pa.table({**arrays, "p": p.p}), "soft", "judgments").comparisons


def random_places(comparisons: Comparisons, draw: np.random.Generator) -> Reals:
    """Each comparison's place (M,) in a random order of its query's, in (0, 1)."""
    place = np.empty(len(comparisons.p))
    for query in range(comparisons.queries):
        rows = comparisons.rows_of(query)
        place[rows] = (draw.permutation(len(rows)) + 0.5) / len(rows)
    return place


def part_elos(comparisons: Comparisons, part: NDArray[np.bool_], rating: Rating) -> Reals:
    """Elos (D,) by the comparisons of a part; NaN for documents that none of them compares."""
    of_part = Comparisons(
        comparisons.query[part],
        comparisons.i[part],
        comparisons.j[part],
        comparisons.p[part],
        sizes=comparisons.sizes,
    )
    elo = np.array(fit(of_part, rating.model, rating.prior).elo)
    seen = np.zeros(len(elo), bool)
    for side in (of_part.i, of_part.j):
        seen[of_part.base + side] = True
    elo[~seen] = np.nan
    return elo


def correlations(comparisons: Comparisons, one: Reals, other: Reals) -> Reals:
    """Pearson's correlation of the Elos of each query's documents that both parts compare, of the
    queries where it is defined."""
    found = []
    for a, b in zip(comparisons.offsets[:-1], comparisons.offsets[1:], strict=True):
        x, y = one[a:b], other[a:b]
        known = np.isfinite(x) & np.isfinite(y)
        x, y = x[known], y[known]
        if len(x) >= 3 and x.std() > 0 and y.std() > 0:
            found.append(np.corrcoef(x, y)[0, 1])
    return np.array(found)


def held_out(
    comparisons: Comparisons, elo: Reals, rows: NDArray[np.bool_], model: str
) -> tuple[list[tuple[float, float]], float]:
    """Preferences expected by `elo` against those answered in `rows`, in bins; and the share of the
    decided answers that prefer the document of the higher Elo."""
    base = comparisons.base[rows]
    d = elo[base + comparisons.i[rows]] - elo[base + comparisons.j[rows]]
    p = comparisons.p[rows]
    known = np.isfinite(d) & (d != 0)
    d, p = d[known], p[known]
    p = np.where(d > 0, p, 1 - p)
    expected = CDF[model](np.abs(d))
    parts = [
        part for part in np.array_split(np.argsort(expected, kind="stable"), BINS) if len(part)
    ]
    curve = [(float(expected[part].mean()), float(p[part].mean())) for part in parts]
    decided = p[p != 0.5]
    return curve, float((decided > 0.5).mean()) if len(decided) else np.nan
