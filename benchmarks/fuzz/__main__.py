"""Inputs that nobody means to write, against what every reader, parser and solver promises.

    python -m benchmarks.fuzz                              a million inputs, half an hour of a core
    python -m benchmarks.fuzz --examples 20000 --only run  some targets, 2 % as many inputs
    python -m benchmarks.fuzz --seed 7                     the same as at seed 7 before

Inputs are new at every call, and follow from the seed that it prints.

A target draws inputs, valid ones and ones that were spoilt, and checks each against its contract.
Files are drawn and shrunk by Hypothesis. What takes microseconds is drawn from a seeded generator,
since Hypothesis would take longer than the check: there the smallest failing input seen is shown.
A failure is one place in the code; the search goes on behind it. Exit status 1 where there is any.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import secrets
import shutil
import signal
import sys
import time
import traceback
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded

from benchmarks.fuzz.inputs import FOLDER, LONGEST, SHOWN, Broken
from benchmarks.fuzz.targets import TARGETS_OF, Target
from benchmarks.machine import save


@dataclass
class Outcome:
    """What came of a target: inputs that were run, seconds, and failures by their place."""

    inputs: int = 0
    seconds: float = 0.0
    failures: dict[str, tuple[Any, BaseException, int]] = field(default_factory=dict)

    def note(self, place: str, example: Any, error: BaseException) -> None:
        """Keep the smallest example of a failure, and count it."""
        before = self.failures.get(place)
        seen = before[2] + 1 if before else 1
        if before is None or len(repr(example)) < len(repr(before[0])):
            self.failures[place] = example, error, seen
        else:
            self.failures[place] = (*before[:2], seen)


class TooSlowError(Exception):
    """An input took longer than `LONGEST`."""


def too_slow(*_: object) -> None:
    """The alarm."""
    raise TooSlowError


def tried(target: Target, example: Any, outcome: Outcome) -> tuple[str, Exception] | None:
    """Check one input; where and how it failed."""
    outcome.inputs += 1
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    try:
        target.check(example)
    except Exception as error:
        return place_of(error), error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return None


def place_of(error: BaseException) -> str:
    """What failed and the last line of the package that was on the way there."""
    frames = traceback.extract_tb((error.__cause__ or error).__traceback__)
    inside = [frame for frame in frames if f"{os.sep}zelo{os.sep}" in frame.filename]
    inside = [frame for frame in inside if frame.filename != __file__]
    what = str(error).partition(":")[0] if isinstance(error, Broken) else type(error).__name__
    if not inside:
        return what
    return (
        f"{what} ({inside[-1].filename.rpartition(f'{os.sep}zelo{os.sep}')[2]}:{inside[-1].lineno})"
    )


def by_hypothesis(target: Target, examples: int, seed: int) -> Outcome:
    """Run a target by Hypothesis, which shrinks each new failure; known ones are passed over."""
    outcome, start = Outcome(), time.perf_counter()
    last: dict[str, tuple[Any, Exception]] = {}
    while outcome.inputs < examples:

        @seeded(seed + outcome.inputs)
        @settings(
            max_examples=examples - outcome.inputs, database=None, deadline=None,
            suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
            phases=(Phase.generate, Phase.shrink),
        )  # fmt: skip
        @given(target.source)  # type: ignore[arg-type]
        def search(example: Any) -> None:
            failed = tried(target, example, outcome)
            if failed is None:
                return
            place, error = failed
            if place in outcome.failures:
                outcome.note(place, example, error)
                return
            last[place] = example, error
            raise error

        before = outcome.inputs
        try:
            search()
            if outcome.inputs - before < 10:  # it has seen all that there is
                break
        except Exception as error:
            for place, found in last.items():
                outcome.note(place, *found)
            if not last:
                raise error
            last.clear()
    outcome.seconds = time.perf_counter() - start
    return outcome


def by_seed(target: Target, examples: int, seed: int) -> Outcome:
    """Run a target on inputs that follow from the seed and their number."""
    outcome, start = Outcome(), time.perf_counter()
    for number in range(examples):
        example = target.source(random.Random(seed << 32 | number))  # type: ignore[operator]
        failed = tried(target, example, outcome)
        if failed is not None:
            outcome.note(failed[0], example, failed[1])
    outcome.seconds = time.perf_counter() - start
    return outcome


def brief(text: str) -> str:
    """A text on one line, long runs of a character shortened."""
    return re.sub(r"(.)\1{40,}", r"\1\1…\1", " ".join(text.split()))[:SHOWN]


def main() -> None:
    """Run the targets and say what each found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--examples", type=int, default=1_090_000, help="inputs of all targets")
    parser.add_argument("--only", nargs="*", default=[], help="names of targets")
    parser.add_argument("--seed", type=int, help="of inputs to draw again; by default new ones")
    given_words = parser.parse_args()
    seed = secrets.randbelow(10**6) if given_words.seed is None else given_words.seed
    signal.signal(signal.SIGALRM, too_slow)
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    print(f"seed {seed}")
    whole = sum(target.share for target in TARGETS_OF)
    total, seconds, failures = 0, 0.0, 0
    rows: list[dict[str, object]] = []
    try:
        for target in TARGETS_OF:
            if given_words.only and target.name not in given_words.only:
                continue
            examples = max(target.share * given_words.examples // whole, 1)
            run = by_seed if callable(target.source) else by_hypothesis
            found = run(target, examples, seed)
            total, seconds = total + found.inputs, seconds + found.seconds
            failures += len(found.failures)
            rows.append(row(target.name, found.inputs, found.seconds, len(found.failures)))
            print(f"{target.name:<16}{found.inputs:>9,} inputs{found.seconds:>8.1f} s", flush=True)
            for place, (example, error, seen) in found.failures.items():
                print(f"    {place}, {seen:,} times")
                print(f"        {brief(f'{type(error).__name__}: {error}')}")
                print(f"        {brief(repr(example))}", flush=True)
    finally:
        shutil.rmtree(FOLDER, ignore_errors=True)
    print(f"{'all':<16}{total:>9,} inputs{seconds:>8.1f} s, {failures} failures")
    if total >= 1_000_000:
        save("fuzz.csv", [*rows, row("all", total, seconds, failures)])
    sys.exit(failures > 0)


def row(target: str, inputs: int, seconds: float, failed: int) -> dict[str, object]:
    """A row of the results."""
    return {
        "target": target,
        "inputs": inputs,
        "seconds": round(seconds, 1),
        "places_that_failed": failed,
    }


if __name__ == "__main__":
    main()
