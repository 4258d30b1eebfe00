"""Comparisons asked in rounds, where the sampler learns from the answers; else in one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

from pydantic import AfterValidator

from zelo.comparison.adaptive import AdaptiveSampler
from zelo.comparison.compare import PairSource, Sampler
from zelo.store import Artifact

Folders = Mapping[str, Artifact]


def rounds_of(sampler: Sampler | AdaptiveSampler | PairSource) -> int:
    """How often a sampler may draw pairs of one query."""
    return sampler.rounds if isinstance(sampler, AdaptiveSampler) else 1


def in_rounds(
    sampler: Sampler | AdaptiveSampler | PairSource,
    compare: Callable[[Folders, str], Artifact],
    judge: Callable[[Artifact, Folders, str], Artifact],
) -> tuple[dict[str, Artifact], dict[str, Artifact]]:
    """Comparisons and judgments of all rounds, by the names that stages take them under.

    `compare` draws the pairs of a round, given the judgments before it, and `judge` has them
    answered, given the comparisons before them; both are told which round it is, in words. It ends
    early where no query needs more.
    """
    rounds = rounds_of(sampler)
    asked: dict[str, Artifact] = {}
    judged: dict[str, Artifact] = {}
    for number in range(1, rounds + 1):
        suffix, which = ("", "") if rounds == 1 else (f"_{number}", f", round {number}")
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


def at_once(sampler: Sampler) -> Sampler:
    """The sampler; `ValueError` where it works in rounds."""
    if isinstance(sampler, AdaptiveSampler):
        raise ValueError(
            "it chooses pairs from the answers, in rounds, and all are asked at once here: choose "
            "one that does not, sampler=cycles or dense for example"
        )
    return sampler


AtOnce = Annotated[Sampler, AfterValidator(at_once)]  # a sampler that draws all pairs at once
