"""The solver compiled for CPUs, one file for each thing that it computes.

Nothing here checks its input: `solver.py` does. Sizes: M comparisons and n documents of one query.
"""

from zelo.rating.kernels.likelihoods import BRADLEY_TERRY, THURSTONE, bradley_terry, thurstone
from zelo.rating.kernels.newton import solve
from zelo.rating.kernels.numbering import number_documents
from zelo.rating.kernels.uncertainty import standard_errors

__all__ = [
    "BRADLEY_TERRY",
    "THURSTONE",
    "bradley_terry",
    "number_documents",
    "solve",
    "standard_errors",
    "thurstone",
]
