"""The stages `compare` and `judge` in turn, as often as the sampler wants."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from zelo.comparison.sampler import BaseSampler
from zelo.store import Artifact

Folders = Mapping[str, Artifact]


def in_rounds(
    sampler: BaseSampler,
    compare: Callable[[Folders, str], Artifact],
    judge: Callable[[Artifact, Folders, str], Artifact],
) -> tuple[dict[str, Artifact], dict[str, Artifact]]:
    """Comparisons and judgments of all rounds, by the names that stages take them under.

    `compare` draws the pairs of a round, given the judgments before it, and `judge` has them
    answered, given the comparisons before them; both are told which round it is, in words. It ends
    early where no query needs more.
    """
    asked: dict[str, Artifact] = {}
    judged: dict[str, Artifact] = {}
    for number in range(1, sampler.max_rounds + 1):
        suffix, which = ("", "") if sampler.max_rounds == 1 else (f"_{number}", f", round {number}")
        comparisons = compare(judged, which)
        if comparisons.complete and number > 1 and not count(comparisons):
            break
        judgments = judge(comparisons, asked, which)
        judged[f"judgments{suffix}"] = judgments
        asked[f"comparisons{suffix}"] = comparisons
    return asked, judged


def count(comparisons: Artifact) -> int:
    """How many pairs there are."""
    found: int = comparisons.record["counts"]["comparisons"]
    return found
