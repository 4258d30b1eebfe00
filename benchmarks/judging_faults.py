"""Does a run that goes through every fault, and through ten kills, end as an undisturbed one?

    python benchmarks/judging_faults.py          20,000 comparisons, four times; some minutes

`zelo run` up to the ratings, in a process of its own, with the endpoint of `tests/judging/` as the
judge: over real HTTP it answers by what the documents are worth, or goes wrong in one of eleven
ways. Each run is followed by the same command once more, which must not ask anything. The script
ends with an error unless

- every comparison has exactly one answer, in the ledger and in the judgments,
- judgments and Elos equal those of the undisturbed run to the last bit,
- with refusals among the faults, exactly the refused comparisons have a failed answer,
- only what was in flight at a kill (at most 128 requests) was answered twice.
"""

from __future__ import annotations

import csv
import os
import platform
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.judging.endpoint import CONTENT, WIRE
from tests.judging.storm import Storm, collection, storm

QUERIES, DOCUMENTS = 200, 50
COMPARISONS = QUERIES * DOCUMENTS * 2
IN_FLIGHT, KILLS = 128, 10
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    found: dict[str, Storm] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = collection(folder / "collection", QUERIES, DOCUMENTS)
        latency = {"latency": 0.05}

        def run(what: str, kills: int = 0, **options: object) -> Storm:
            found[what] = storm(folder / f"run{len(found)}", data, COMPARISONS, kills, **latency, **options)
            print(f"{what}: {found[what]}", flush=True)
            return found[what]

        calm = run("undisturbed")
        assert calm.requests == calm.in_ledger == len(calm.judgments) == COMPARISONS
        for disturbed in (
            run("20 % faults", faults=0.2),
            run(f"20 % faults, {KILLS} kills", kills=KILLS, faults=0.2),
        ):
            assert disturbed.in_ledger == disturbed.questions == COMPARISONS
            assert disturbed.judgments == calm.judgments
            assert disturbed.elos == calm.elos
            assert disturbed.answered_twice <= disturbed.kills * IN_FLIGHT
        kinds = (*WIRE, *CONTENT, "refused", "too_long")
        refused = run("20 % faults, refusals too", faults=0.2, kinds=",".join(kinds))
        assert refused.in_ledger == COMPARISONS
        assert refused.answered_twice == 0
        served = {kind: refused.faults[kind] for kind in ("refused", "too_long")}
        assert refused.failed == served
        calmly = {row[:3]: row for row in calm.judgments}
        answered = [row for row in refused.judgments if row[4] == "answered"]
        assert len(answered) == refused.questions == COMPARISONS - refused.failed.total()
        assert all(calmly[row[:3]] == row for row in answered)
    machine = f"{os.cpu_count()} cores of {cpu()}, Python {platform.python_version()}"
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "judging_faults.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        columns = ("requests", "faults", "kinds", "answers", "failed", "answered_twice")
        writer.writerow(["run", *columns, "same_elos", "seconds", "machine"])
        for what, storm_ in found.items():
            counts = (
                storm_.requests,
                storm_.faults.total(),
                len(storm_.faults),
                storm_.in_ledger,
                storm_.failed.total(),
                storm_.answered_twice,
                storm_.elos == calm.elos,
            )
            writer.writerow([what, *counts, round(storm_.seconds), machine])


def cpu() -> str:
    """The processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
