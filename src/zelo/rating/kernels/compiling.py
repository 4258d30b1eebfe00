"""How functions are compiled, and what their machine code is kept by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from zelo.progress import tell

# Between arrays in one piece of memory. Compiled loops check whether their arrays overlap, take
# those that touch for such, and then add in another order: the last bits of a query's Elos would
# depend on the size of the largest query beside it.
APART = 64


def can_cache() -> bool:
    """Whether there is a folder to keep compiled code in; the user is told where there is none."""

    def identity(x):
        return x

    try:
        njit(cache=True)(identity)
    except RuntimeError:  # beside this file, nor in the user's cache
        tell(
            "no folder can be written that keeps compiled code: what rates is compiled anew, "
            "seconds; NUMBA_CACHE_DIR=FOLDER names one"
        )
        return False
    return True


# "contract" allows fused multiply-adds; "reassoc" lets sums over documents be taken in lanes.
ELEMENTWISE = {
    "fastmath": {"contract"},
    "error_model": "numpy",
    "cache": can_cache(),
    "nogil": True,
}
SUMMING = {**ELEMENTWISE, "fastmath": {"contract", "reassoc", "nsz"}}


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit`, whose cache is that of all files in the folder of the function.

    Numba keeps machine code by the time and size of the file that a function is in, and would go on
    with old code of what the function calls from other files.
    """

    def compile_function(function: Callable[..., Any]) -> Any:
        compiled_function = njit(**options)(function)
        if options["cache"]:
            file = compiled_function._cache._cache_file
            folder = Path(function.__code__.co_filename).parent
            file._source_stamp = (file._source_stamp, stamps(folder))
        return compiled_function

    return compile_function


def stamps(folder: Path) -> list[tuple[str, float, int]]:
    """Name, time of change and size of each Python file in a folder."""
    files = [(path.name, path.stat()) for path in sorted(folder.glob("*.py"))]
    return [(name, stat.st_mtime, stat.st_size) for name, stat in files]


def polynomial(*coefficients: float) -> Any:
    """A compiled function of x: Σ coefficients[k] xᵏ by Estrin's scheme, unrolled.

    A loop over a tuple would be left as a loop, and keep the loop around it from using lanes.
    """

    @intrinsic
    def evaluate(typing_context, x):
        def generate(context, builder, signature, arguments):
            power, terms = arguments[0], [ir.Constant(ir.DoubleType(), c) for c in coefficients]
            while len(terms) > 1:
                products = [builder.fmul(c, power, flags=("contract",)) for c in terms[1::2]]
                sums = [
                    builder.fadd(c, product, flags=("contract",))
                    for c, product in zip(terms[::2], products, strict=False)
                ]
                terms = sums + terms[len(terms) - len(terms) % 2 :]
                power = builder.fmul(power, power)
            return terms[0]

        return types.float64(types.float64), generate

    return evaluate
