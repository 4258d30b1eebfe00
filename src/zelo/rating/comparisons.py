"""Comparisons of many queries as flat arrays: what every solver of this package takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Reals = NDArray[np.float64]
Wholes = NDArray[np.int64]


HEAVIEST = 1e12  # comparisons that one may stand for: sums of squares keep their precision
FARTHEST = 100.0  # Elo that may be known of a difference


class ComparisonError(ValueError):
    """A comparison that cannot be rated: in which row and of which query, and why."""

    def __init__(self, row: int, query: int, problem: str) -> None:
        super().__init__(f"row {row}, query {query}: {problem}")
        self.row, self.query, self.problem = row, query, problem


@dataclass(frozen=True, init=False)
class Comparisons:
    """`M` comparisons of the documents of `Q` queries, `D` documents in all.

    Documents are numbered 0..n−1 within their query; arrays of all documents (Elos, standard
    errors) hold those of query 0 first, then those of query 1, from `offsets[q]` on. A pair may be
    compared any number of times, and pairs of different queries may lie in any order.

    `query`, `i`, `j` (M,) are whole numbers, `p` (M,) in [0, 1] is P(i ≻ j), `weight` (M,) ≥ 0
    counts how often a comparison was made (default 1). `known` (M,), in Elo, is a part of the
    difference `e_i − e_j` that is known beforehand: a judge's position bias, or what is left when
    Elos of other documents are fixed. `sizes` (Q,) are documents per query, by default just those
    that occur. NumPy arrays, lists or torch tensors are taken; where `p` is a tensor, results are
    tensors of its device and dtype.

    Raises `ComparisonError`, a `ValueError` that names query and row, for a self-comparison, an
    index out of range, a preference outside [0, 1] or NaN, a weight that is negative or above 1e12,
    or a known part that is no number or beyond ±100; `ValueError` for a query without documents.
    """

    sizes: Wholes  # (Q,)
    query: Wholes  # (M,)
    i: Wholes  # (M,)
    j: Wholes  # (M,)
    p: Reals  # (M,)
    weight: Reals  # (M,)
    known: Reals  # (M,), or (0,) for none
    device: Any  # of `p`, if that was a tensor; None: it was an array
    dtype: Any  # of `p`, if that was a tensor of reals; None: float64

    def __init__(
        self,
        query: ArrayLike,
        i: ArrayLike,
        j: ArrayLike,
        p: ArrayLike,
        weight: ArrayLike | None = None,
        sizes: ArrayLike | None = None,
        known: ArrayLike | None = None,
    ) -> None:
        tensor: Any = p if _is_tensor(p) else None
        columns: dict[str, Any] = {
            "query": whole("query", query),
            "i": whole("i", i),
            "j": whole("j", j),
            "p": np.ascontiguousarray(host(p), dtype=np.float64),
            "device": None if tensor is None else tensor.device,
            "dtype": tensor.dtype if tensor is not None and tensor.is_floating_point() else None,
        }
        columns["weight"] = (
            np.ones(len(columns["p"]))
            if weight is None
            else np.ascontiguousarray(host(weight), dtype=np.float64)
        )
        columns["known"] = (
            np.zeros(0) if known is None else np.ascontiguousarray(host(known), dtype=np.float64)
        )
        compared = ["query", "i", "j", "p", "weight"] + ["known"] * (known is not None)
        same_length({key: columns[key] for key in compared})
        columns["sizes"] = (
            sizes_of(columns["query"], columns["i"], columns["j"])
            if sizes is None
            else whole("sizes", sizes)
        )
        for name, value in columns.items():
            object.__setattr__(self, name, value)
        self._check()

    def __len__(self) -> int:
        return len(self.p)

    @property
    def queries(self) -> int:
        """`Q`."""
        return len(self.sizes)

    @cached_property
    def offsets(self) -> Wholes:
        """(Q + 1,) index of each query's first document in arrays of all documents."""
        return np.concatenate([[0], np.cumsum(self.sizes)]).astype(np.int64)

    @cached_property
    def order(self) -> Wholes:
        """(M,) rows in the order of their queries."""
        return np.argsort(self.query, kind="stable").astype(np.int64)

    @cached_property
    def row_offsets(self) -> Wholes:
        """(Q + 1,) index of each query's first row in `order`."""
        counts = np.bincount(self.query, minlength=self.queries)
        return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    @cached_property
    def components(self) -> Wholes:
        """(Q,) connected components of each query's graph; Elos compare only within one."""
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        total = int(self.offsets[-1])
        counted = self.weight > 0
        ends = ((self.base + self.i)[counted], (self.base + self.j)[counted])
        edges = (np.ones(len(ends[0]), np.bool_), ends)
        count, label = connected_components(coo_matrix(edges, (total, total)), directed=False)
        first = np.zeros(count, np.int64)
        first[label] = np.repeat(np.arange(self.queries), self.sizes)
        return np.bincount(first, minlength=self.queries).astype(np.int64)

    @cached_property
    def packed(self) -> tuple[NDArray[Any], ...]:
        """`i`, `j`, `p`, `weight`, `known` in the order of their queries, for the kernels."""
        columns: list[NDArray[Any]] = [
            self.i.astype(np.uint32),
            self.j.astype(np.uint32),
            self.p,
            self.weight,
        ]
        columns.append(self.known)
        if (self.query[1:] < self.query[:-1]).any():
            columns = [column[self.order] if len(column) else column for column in columns]
        return tuple(columns)

    @cached_property
    def base(self) -> Wholes:
        """(M,) index of the first document of each comparison's query."""
        return self.offsets[self.query]

    def elos(self, elo: ArrayLike) -> Reals:
        """`elo` as an array of one finite Elo per document (D,); `ValueError` if it is not that."""
        elos = np.ascontiguousarray(host(elo), dtype=np.float64)
        if elos.shape != (self.offsets[-1],) or not np.isfinite(elos).all():
            raise ValueError(f"{self.offsets[-1]} finite Elos are needed, found shape {elos.shape}")
        return elos

    def differences(self, elo: ArrayLike) -> Reals:
        """`e_i − e_j` (M,), with what is known of it, at the Elos `elo` (D,)."""
        elos = self.elos(elo)
        d: Reals = elos[self.base + self.i] - elos[self.base + self.j]
        return d + self.known if len(self.known) else d

    def rows_of(self, query: int) -> Wholes:
        """Rows that compare documents of `query`."""
        return self.order[self.row_offsets[query] : self.row_offsets[query + 1]]

    def _check(self) -> None:
        if (self.sizes < 1).any():
            raise ValueError(f"query {int((self.sizes < 1).argmax())}: no documents to compare")
        strange = (self.query < 0) | (self.query >= self.queries)
        if strange.any():
            row = int(strange.argmax())
            raise ValueError(
                f"row {row}: query {self.query[row]} is out of range for {self.queries} queries"
            )
        problems: Mapping[str, NDArray[np.bool_]] = {
            "a document is compared with itself": self.i == self.j,
            "document index out of range": (np.minimum(self.i, self.j) < 0)
            | (np.maximum(self.i, self.j) >= self.sizes[self.query]),
            "preference is not in [0, 1]": ~((self.p >= 0) & (self.p <= 1)),
            "weight is not a number of at least 0": ~(
                (self.weight >= 0) & np.isfinite(self.weight)
            ),
            f"weight is above {HEAVIEST:g}": self.weight > HEAVIEST,
            f"known part of the difference is above {FARTHEST:g}": np.abs(self.known) > FARTHEST,
            "known part of the difference is not a number": ~np.isfinite(self.known),
        }
        for problem, bad in problems.items():
            if bad.any():
                row = int(bad.argmax())
                values = f"i={self.i[row]}, j={self.j[row]}, p={self.p[row]}"
                raise ComparisonError(
                    row,
                    int(self.query[row]),
                    f"{problem} ({values}, weight={self.weight[row]})",
                )


def host(values: Any) -> Any:
    """A tensor as an array on the CPU, reals as float64; anything else as it is."""
    if not _is_tensor(values):
        return values
    here = values.detach().cpu()
    return (here.double() if here.is_floating_point() else here).numpy()


def whole(name: str, values: Any) -> Wholes:
    """`values` as int64; `ValueError` where they are not whole numbers."""
    given = np.asarray(host(values))
    if given.size and not np.issubdtype(given.dtype, np.integer):
        raise ValueError(f"{name} must be whole numbers, found {given.dtype}")
    return np.ascontiguousarray(given, dtype=np.int64)


def same_length(columns: Mapping[str, NDArray[Any]]) -> None:
    """`ValueError` where columns are not one-dimensional and of one length."""
    shapes = {name: column.shape for name, column in columns.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
        raise ValueError(f"columns must be one-dimensional and of one length, found {shapes}")


def sizes_of(query: Wholes, i: Wholes, j: Wholes) -> Wholes:
    """Documents per query: one more than the highest index that occurs."""
    if len(query) == 0 or query.min() < 0:
        return np.zeros(0, np.int64)
    sizes = np.zeros(int(query.max()) + 1, np.int64)
    np.maximum.at(sizes, query, np.maximum(i, j) + 1)
    return sizes


def _is_tensor(values: Any) -> bool:
    return type(values).__module__.partition(".")[0] == "torch"
