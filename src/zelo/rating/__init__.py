"""From comparisons to Elos, with what is not known about them.

    from zelo.rating import Comparisons, fit, standard_errors

    comparisons = Comparisons(query=[0, 0, 0], i=[0, 1, 0], j=[1, 2, 2], p=[0.9, 0.8, 1.0])
    elo = fit(comparisons).elo
    stderr = standard_errors(comparisons, elo)

Arrays or tensors in, the same out: tensors on a GPU are rated on the machine's cores and come back
on their device. Nothing here reads a file or knows what a judge is made of, but for the stage
`rate` and `zelo rate`.
"""

from zelo.rating.comparisons import ComparisonError, Comparisons
from zelo.rating.plackett_luce import fit_rankings
from zelo.rating.query_bias import QueryBiases, fit_query_biases
from zelo.rating.solver import (
    Fit,
    covariance,
    difference_errors,
    dispersion,
    fit,
    standard_errors,
)
from zelo.rating.targets import targets, weights

__all__ = [
    "ComparisonError",
    "Comparisons",
    "Fit",
    "QueryBiases",
    "covariance",
    "difference_errors",
    "dispersion",
    "fit",
    "fit_query_biases",
    "fit_rankings",
    "standard_errors",
    "targets",
    "weights",
]
