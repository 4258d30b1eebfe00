"""Figures of the report, as SVG text.

A figure is as wide as a phone; where a subject has two panels they are two figures, which a wide
page shows side by side. Ink, accents and grid follow the reader's light or dark scheme.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from zelo.evaluation.evaluate import TRAINED
from zelo.evaluation.significance import Estimate
from zelo.reporting.results import label

INK, ACCENT, MUTED, GRID, LOSS = "#24292f", "#0969da", "#8c959f", "#eaeef2", "#cf222e"
IN_THE_DARK = {
    INK: "#e6edf3",
    ACCENT: "#4493f8",
    MUTED: "#8b949e",
    GRID: "#2a313c",
    LOSS: "#f85149",
}
STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "svg.fonttype": "path",  # a document's text is drawn, never markup
    "svg.hashsalt": "zelo",  # the same figure is the same file
    "text.parse_math": False,  # a name with $ in it is not mathematics
}
WIDTH, HEIGHT = 3.7, 2.6  # inches
POINTS = 1_000  # of a curve over queries

Matrix = NDArray[np.float64]


def ndcg_by_system(
    found: Mapping[str, Mapping[str, Estimate]],
    metric: str,
    label: Callable[[str], str] = label,
) -> str:
    """Mean of `metric` of every system, by its `label`, with its 95 % interval."""
    with mpl.rc_context(STYLE):
        figure, axes = canvas(1.3 * WIDTH, 0.42 * len(found) + 0.9)
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
        axes.grid(axis="x", color=GRID)
        axes.set_axisbelow(True)
        return _svg(figure)


def gains(gain: NDArray[np.float64], metric: str) -> str:
    """Each query's gain in `metric`, the largest first."""
    with mpl.rc_context(STYLE):
        figure, axes = canvas(1.3 * WIDTH)
        ordered = np.sort(gain)[::-1]
        share = (np.arange(len(ordered)) + 0.5) / len(ordered)
        if len(ordered) > POINTS:
            at = np.linspace(0, len(ordered) - 1, POINTS).round().astype(int)
            ordered, share = ordered[at], share[at]
        axes.fill_between(share, 0, ordered, where=ordered >= 0, color=ACCENT, step="mid")
        axes.fill_between(share, 0, ordered, where=ordered <= 0, color=LOSS, step="mid")
        axes.axhline(0, color=MUTED, linewidth=0.8)
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.set_xlabel("queries, the largest gain first")
        axes.set_ylabel(f"gain in {metric}")
        return _svg(figure)


def preference_matrix(matrix: Matrix, title: str) -> str:
    """P(row ≻ column) (n, n) in [0, 1] of one query's candidates; NaN: not compared."""
    with mpl.rc_context(STYLE):
        figure, axes = canvas(height=3.2)
        image = axes.imshow(matrix, cmap="RdBu", vmin=0, vmax=1, interpolation="nearest")
        axes.set_facecolor("#c4cbd3")
        axes.set_title(title)
        axes.set_xlabel("candidate")
        axes.set_ylabel("candidate")
        axes.spines[:].set_visible(False)
        figure.colorbar(image, ax=axes, shrink=0.8, label="P(row ≻ column)")
        return _svg(figure)


def elos_of_one_query(elo: Sequence[float], stderr: Sequence[float]) -> str:
    """Elos of one query's documents with 95 % intervals, best first."""
    with mpl.rc_context(STYLE):
        figure, axes = canvas()
        order = np.argsort(-np.asarray(elo), kind="stable")
        place = np.arange(1, len(order) + 1)
        error = 1.96 * np.asarray(stderr)[order]
        axes.errorbar(
            place, np.asarray(elo)[order], error, fmt="o", markersize=3, color=ACCENT,
            ecolor=MUTED, elinewidth=0.9,
        )  # fmt: skip
        axes.axhline(0, color=MUTED, linewidth=0.8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("candidate, sorted by Elo")
        axes.set_ylabel("Elo ± 1.96 standard errors")
        return _svg(figure)


def histogram(values: Sequence[float], what: str, color: str = ACCENT) -> str:
    """How many documents have which value."""
    with mpl.rc_context(STYLE):
        figure, axes = canvas()
        axes.hist(values, bins=60, color=color)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel(what)
        axes.set_ylabel("documents")
        return _svg(figure)


def settling(curve: Sequence[tuple[float, float]], whole: tuple[float, float]) -> str:
    """Correlation of two parts' Elos by comparisons per document, and what is expected of all."""
    with mpl.rc_context(STYLE):
        figure, axes = canvas()
        axes.plot(*zip(*curve, strict=True), "o-", color=ACCENT, label="measured")
        axes.plot(*whole, "o", color=ACCENT, markerfacecolor="none", label="all, expected")
        axes.set_ylim(min(0, *(y for _, y in curve)), 1)
        axes.set_xlim(left=0)
        axes.grid(axis="y", color=GRID)
        axes.set_axisbelow(True)
        axes.set_xlabel("comparisons per document")
        axes.set_ylabel("correlation of Elos")
        axes.legend(loc="lower right", frameon=False, fontsize=8)
        return _svg(figure)


def reliability(curve: Sequence[tuple[float, float]], said: str, seen: str, least: float) -> str:
    """Predicted against observed shares, from `least` to 1; the diagonal is perfect."""
    with mpl.rc_context(STYLE):
        figure, axes = canvas()
        axes.plot([least, 1], [least, 1], color=MUTED, linewidth=0.8)
        axes.plot(*zip(*curve, strict=True), "o-", color=ACCENT, markersize=4)
        axes.set_xlim(least, 1)
        axes.set_ylim(min([least, *(y for _, y in curve)]), 1)
        axes.set_xlabel(said)
        axes.set_ylabel(seen)
        return _svg(figure)


def loss_curve(loss: Sequence[float]) -> str:
    """Loss of every step, and a running mean over a twentieth of them."""
    with mpl.rc_context(STYLE):
        figure, axes = canvas(1.3 * WIDTH)
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


def canvas(width: float = WIDTH, height: float = HEIGHT) -> tuple[Figure, Axes]:
    """An empty figure of some size in inches, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return in_both_schemes(text.getvalue())


def in_both_schemes(svg: str) -> str:
    """A figure whose colours follow the scheme of the page that shows it."""
    light = {color: f"--c{n}" for n, color in enumerate(IN_THE_DARK)}
    for color, name in light.items():
        svg = svg.replace(color, f"var({name})")
    dark = "".join(f"{light[color]}:{other};" for color, other in IN_THE_DARK.items())
    bright = "".join(f"{name}:{color};" for color, name in light.items())
    style = f"svg{{{bright}}}@media (prefers-color-scheme:dark){{svg{{{dark}}}}}"
    begin = svg.index(">", svg.index("<svg")) + 1
    return f"{svg[:begin]}<style>{style}</style>{svg[begin:]}"
