"""Stage `rate`: judgments in; Elo, standard error and training target of each document out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from zelo.artifacts import read_table, table, write_table
from zelo.config import Component, option
from zelo.judging.ensemble import average
from zelo.progress import track
from zelo.store import stage

BLOCK = 256  # queries solved at once: bounds the memory of their Hessians


class Rating(Component):
    """How comparisons become Elos (`conf/rating/`)."""

    model: str = option(
        "thurstone", "probability model of a comparison", pattern="^(thurstone|bradley_terry)$"
    )
    prior: float = option(0.05, "precision of the Gaussian prior on an Elo", gt=0)
    target: str = option(
        "centred", "map from Elo to training target", pattern="^(centred|cdf|minmax)$"
    )


@dataclass
class QueryGraph:
    """The compared documents of one query and what was said of them."""

    query_id: str
    place: dict[str, int] = field(default_factory=dict)  # document id → index
    edges: list[tuple[int, int, float]] = field(default_factory=list)  # i, j, P(i ≻ j)
    unanswered: int = 0

    def index(self, doc_id: str) -> int:
        """Index of a document, given on first sight."""
        return self.place.setdefault(doc_id, len(self.place))

    @property
    def components(self) -> int:
        """Connected components of the graph: Elos are comparable only within one."""
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        i = [edge[0] for edge in self.edges]
        j = [edge[1] for edge in self.edges]
        n = len(self.place)
        return int(connected_components(coo_matrix((np.ones(len(i)), (i, j)), (n, n)))[0])


@stage(version=1)
def rate(*, out: Path, judgments: Path, rating: Rating, vote: str) -> Mapping[str, Any]:
    """Average the judges, fit the Elos of every query and write `ratings` and `fits`."""
    import torch

    from zelo.rating.likelihood import LIKELIHOODS
    from zelo.rating.solver import fit
    from zelo.rating.targets import TARGETS

    graphs = read_graphs(judgments, vote)
    ratings: dict[str, list[Any]] = {
        name: [] for name in ("query_id", "doc_id", "elo", "stderr", "target")
    }
    fits: dict[str, list[Any]] = {
        name: []
        for name in (
            [
                "query_id",
                "documents",
                "comparisons",
                "unanswered",
                "components",
                "iterations",
                "converged",
            ]
        )
    }
    target = TARGETS[f"cdf_{rating.model}" if rating.target == "cdf" else rating.target]
    for block in track(list(blocks(graphs)), "rating"):
        flat = [(q, *edge) for q, graph in enumerate(block) for edge in graph.edges]
        indices = torch.tensor([row[:3] for row in flat], dtype=torch.int64).reshape(-1, 3)
        solution = fit(
            torch.tensor([len(graph.place) for graph in block]),
            indices[:, 0],
            indices[:, 1],
            indices[:, 2],
            torch.tensor([row[3] for row in flat], dtype=torch.float64),
            LIKELIHOODS[rating.model],
            rating.prior,
        )
        for q, graph in enumerate(block):
            n = len(graph.place)
            elo = solution.elo[q, :n].numpy()
            ratings["query_id"] += [graph.query_id] * n
            ratings["doc_id"] += list(graph.place)
            ratings["elo"] += elo.tolist()
            ratings["stderr"] += solution.stderr[q, :n].tolist()
            ratings["target"] += target(elo).tolist()
            values = (
                graph.query_id,
                n,
                len(graph.edges),
                graph.unanswered,
                graph.components,
                int(solution.iterations[q]),
                bool(solution.converged[q]),
            )
            for name, value in zip(fits, values, strict=True):
                fits[name].append(value)
    write_table(out, "ratings", table("ratings", **ratings))
    write_table(out, "fits", table("fits", **fits))
    return {
        "queries": len(graphs),
        "documents": len(ratings["elo"]),
        "comparisons": sum(fits["comparisons"]),
        "disconnected_queries": sum(n > 1 for n in fits["components"]),
        "not_converged": fits["converged"].count(False),
    }


def read_graphs(judgments: Path, vote: str) -> list[QueryGraph]:
    """One graph per query that has judgments, documents in order of first comparison."""
    preferences = average(read_table(judgments, "judgments"), vote)
    graphs: dict[str, QueryGraph] = {}
    for query_id, a, b, p in zip(
        preferences.query_ids, preferences.doc_a, preferences.doc_b, preferences.p, strict=True
    ):
        graph = graphs.setdefault(query_id, QueryGraph(query_id))
        graph.edges.append((graph.index(a), graph.index(b), float(p)))
    for query_id, _, _ in preferences.unanswered:
        # Documents that no answer is about get no Elo: a failure is not a tie.
        graphs.setdefault(query_id, QueryGraph(query_id)).unanswered += 1
    return list(graphs.values())


def blocks(graphs: list[QueryGraph]) -> Iterator[list[QueryGraph]]:
    """Graphs in blocks of about equal size of query, so that padding stays small."""
    ordered = sorted(graphs, key=lambda graph: len(graph.place))
    for start in range(0, len(ordered), BLOCK):
        yield ordered[start : start + BLOCK]
