"""Figures of the report, as SVG text."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from zelo.evaluation.evaluate import TRAINED
from zelo.reporting.results import Estimate, label

INK, ACCENT, MUTED = "#24292f", "#0969da", "#8c959f"
STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.fonttype": "path",  # a document's text is drawn, never markup
    "svg.hashsalt": "zelo",  # the same figure is the same file
    "text.parse_math": False,  # a name with $ in it is not mathematics
}

Matrix = NDArray[np.float64]


def ndcg_by_system(found: Mapping[str, Mapping[str, Estimate]], metric: str) -> str:
    """Mean of `metric` of every system with its 95 % interval."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 0.42 * len(found) + 0.9), layout="constrained")
        axes = figure.add_subplot()
        for row, (system, estimates) in enumerate(found.items()):
            e = estimates[metric]
            color = ACCENT if system == TRAINED else INK
            axes.plot([e.low, e.high], [row, row], color=color, linewidth=2, alpha=0.55)
            axes.plot(e.value, row, "o", color=color)
            axes.annotate(
                f"{e.value:.3f}", (e.value, row), (0, 6), textcoords="offset points", ha="center"
            )
        axes.set_yticks(range(len(found)), [label(system) for system in found])
        axes.set_ylim(len(found) - 0.4, -0.7)
        axes.set_xlabel(metric)
        axes.grid(axis="x", color="#eaeef2")
        axes.set_axisbelow(True)
        return _svg(figure)


def preference_matrices(before: Matrix, after: Matrix) -> str:
    """One query's P(row ≻ column), candidates in first-stage order and sorted by Elo.

    Both (n, n) in [0, 1], NaN where a pair was not compared.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 3.5), layout="constrained")
        panels = figure.subplots(1, 2)
        titles = ("in the order of the first stage", "sorted by Elo")
        for axes, matrix, title in zip(panels, (before, after), titles, strict=True):
            image = axes.imshow(matrix, cmap="RdBu", vmin=0, vmax=1, interpolation="nearest")
            axes.set_facecolor("#c4cbd3")
            axes.set_title(title)
            axes.set_xlabel("candidate")
            axes.spines[:].set_visible(False)
        panels[0].set_ylabel("candidate")
        figure.colorbar(image, ax=panels, shrink=0.85, label="P(row ≻ column)")
        return _svg(figure)


def elo_distribution(elo: Sequence[float], stderr: Sequence[float]) -> str:
    """Histogram of all Elos, and how sure they are."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 2.7), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.hist(elo, bins=60, color=ACCENT)
        left.set_xlabel("Elo (zero-sum within a query)")
        left.set_ylabel("documents")
        right.hist(stderr, bins=60, color=MUTED)
        right.set_xlabel("standard error of the Elo")
        return _svg(figure)


def loss_curve(loss: Sequence[float]) -> str:
    """Loss of every step, and a running mean over a twentieth of them."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 2.7), layout="constrained")
        axes = figure.add_subplot()
        steps = np.arange(1, len(loss) + 1)
        axes.plot(steps, loss, color=MUTED, linewidth=0.7, alpha=0.7)
        width = max(len(loss) // 20, 1)
        mean = np.convolve(loss, np.ones(width) / width, mode="valid")
        axes.plot(steps[width - 1 :], mean, color=ACCENT, linewidth=1.8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("step")
        axes.set_ylabel("training loss")
        axes.set_ylim(bottom=0)
        return _svg(figure)


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()
