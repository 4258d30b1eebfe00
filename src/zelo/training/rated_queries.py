"""What there is to learn: queries with their rated documents, and the comparisons between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from zelo.artifacts import read_table
from zelo.data.collection import hash_share
from zelo.data.hold_out import limit_to_hold_out
from zelo.data.texts import neighbourhoods_of_written, query_texts, sources_of_written
from zelo.errors import UserError
from zelo.rating.targets import weights


@dataclass(frozen=True)
class RatedQuery:
    """One training query with its rated documents."""

    query_id: str
    doc_ids: Sequence[str]
    targets: Sequence[float]
    weights: Sequence[float] | None = None  # None: 1 for all
    judged: Sequence[tuple[int, int, float]] = ()  # indices of doc_ids, preference for the first
    group: int = 0  # no step has queries of two groups
    positive: int | None = None  # index of the document that is drawn whenever some are
    elos: Sequence[float] | None = None  # the truth where it validates; None: the targets


@dataclass(frozen=True)
class RatedDataset:
    """Rated training queries: those that are trained on, and those that validate."""

    all: Sequence[RatedQuery]
    train: Sequence[RatedQuery]
    validation: Sequence[RatedQuery] = ()

    @classmethod
    def read(
        cls,
        collection: Path,
        ratings: Path,
        judgments: Sequence[Path] = (),
        validation_fraction: float | None = 0.0,
        stderr_weights: bool = False,
        source_is_positive: bool = False,
    ) -> RatedDataset:
        """Of the artefacts in these folders.

        Queries validate by a hash of their text, written ones by that of the document that they
        were written from, so that those of one document stay together: those below
        `validation_fraction`, None: the lowest, so many as `queries_to_hold_out` says. With
        `source_is_positive` a written query that is trained on has its source as its best document.
        Raises `UserError` where nothing is left to train on, or to validate on.
        """
        texts = query_texts(collection, "train")
        rated = read_rated(list(texts), ratings, judgments, stderr_weights)
        if not rated:
            raise UserError(
                "train: no training query has two rated documents; more candidates per query, or "
                "judges that answer, are needed"
            )
        sources = sources_of_written(collection)
        hashed = {
            one.query_id: hash_share(sources.get(one.query_id, texts[one.query_id]))
            for one in rated
        }
        limit = validation_fraction
        if limit is None:
            limit = limit_to_hold_out(hashed.values())
        if source_is_positive:
            rated = [
                with_positive(one, sources[one.query_id])
                if one.query_id in sources and hashed[one.query_id] >= limit
                else one
                for one in rated
            ]
        validation = [one for one in rated if hashed[one.query_id] < limit]
        train = [one for one in rated if hashed[one.query_id] >= limit]
        if neighbourhood := neighbourhoods_of_written(collection):
            train = grouped(train, neighbourhood)
        if not train or (validation_fraction and not validation):
            missing = "train on" if not train else "validate on"
            raise UserError(
                f"training.validation_fraction={validation_fraction}: of {len(rated)} rated "
                f"queries none is left to {missing}"
            )
        return cls(rated, train, validation)


def grouped(rated: Sequence[RatedQuery], neighbourhood: Mapping[str, int]) -> list[RatedQuery]:
    """Queries, those of one neighbourhood in one group.

    Those without one fill groups, so that a step reads about as many documents of theirs as it
    reads of a neighbourhood's, of which there are as many as its query with the most has.
    """
    most = max((len(q.doc_ids) for q in rated if q.query_id in neighbourhood), default=0)
    found: list[RatedQuery] = []
    group, documents = -1, 0
    for one in rated:
        if one.query_id in neighbourhood:
            found.append(replace(one, group=neighbourhood[one.query_id]))
            continue
        if documents and documents + len(one.doc_ids) > most:
            group, documents = group - 1, 0
        documents += len(one.doc_ids)
        found.append(replace(one, group=group))
    return found


def with_positive(one: RatedQuery, doc_id: str) -> RatedQuery:
    """A query with a document, rated or not, as better than all others."""
    docs, targets = list(one.doc_ids), list(one.targets)
    weight = None if one.weights is None else list(one.weights)
    if doc_id not in docs:
        docs.append(doc_id)
        targets.append(0.0)
        if weight is not None:
            weight.append(1.0)
    positive = docs.index(doc_id)
    targets[positive] = max(one.targets) + 1.0
    return replace(one, doc_ids=docs, targets=targets, weights=weight, positive=positive, elos=None)


def read_rated(
    query_ids: Sequence[str], ratings: Path, judgments: Sequence[Path], stderr_weights: bool
) -> list[RatedQuery]:
    """Queries with at least two rated documents, in the order of `query_ids`."""
    found: dict[str, dict[str, tuple[float, float, float]]] = {}
    rows = read_table(ratings, "ratings")
    elo, stderr = (rows[name].to_numpy() for name in ("elo", "stderr"))
    weight = weights(elo, stderr) if stderr_weights else np.ones_like(elo)
    columns = (rows[name].to_pylist() for name in ("query_id", "doc_id", "target"))
    for query_id, doc_id, *numbers in zip(*columns, weight.tolist(), elo.tolist(), strict=True):
        target, w, its_elo = numbers
        found.setdefault(query_id, {})[doc_id] = target, w, its_elo
    judged = comparisons_of(judgments, found)
    return [
        RatedQuery(
            query_id,
            list(found[query_id]),
            [target for target, _, _ in found[query_id].values()],
            [w for _, w, _ in found[query_id].values()] if stderr_weights else None,
            judged.get(query_id, []),
            elos=[its_elo for _, _, its_elo in found[query_id].values()],
        )
        for query_id in query_ids
        if len(found.get(query_id, {})) > 1
    ]


def comparisons_of(
    judgments: Sequence[Path], rated: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[tuple[int, int, float]]]:
    """Each query's judged pairs by the indices of their documents, and the preference."""
    if not judgments:
        return {}
    import pyarrow as pa

    from zelo.rating.preferences import average

    said = average(pa.concat_tables([read_table(i, "judgments") for i in judgments]), "soft")
    position = {q: {doc_id: i for i, doc_id in enumerate(docs)} for q, docs in rated.items()}
    found: dict[str, list[tuple[int, int, float]]] = {}
    for q, a, b, p in zip(said.query_ids, said.doc_a, said.doc_b, said.p.tolist(), strict=True):
        if q in position:
            found.setdefault(q, []).append((position[q][a], position[q][b], p))
    return found
