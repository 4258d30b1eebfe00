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

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from machine import save
from tests.judging.endpoint import CONTENT, WIRE
from tests.judging.storm import Storm, collection, storm

QUERIES, DOCUMENTS = 200, 50
COMPARISONS = QUERIES * DOCUMENTS * 2
IN_FLIGHT, KILLS = 128, 10
# Each comparison is asked once, in one order.
WORDS = ("judge.probe=0", f"judge.judges.vllm.provider.in_flight={IN_FLIGHT}")


def main() -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    found: dict[str, Storm] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = collection(folder / "collection", QUERIES, DOCUMENTS)
        latency = {"latency": 0.05}

        def run(what: str, kills: int = 0, **options: object) -> Storm:
            found[what] = storm(
                folder / f"run{len(found)}",
                data,
                COMPARISONS,
                kills,
                words=WORDS,
                **latency,
                **options,
            )
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
            apart = [
                abs(a[2] - b[2]) for a, b in zip(disturbed.elos, calm.elos, strict=True) if a != b
            ]
            assert not apart, f"{len(apart)} Elos differ, by {max(apart)} at most"
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
    save(
        "judging_faults.csv",
        [
            {
                "run": what,
                "requests": one.requests,
                "faults": one.faults.total(),
                "kinds": len(one.faults),
                "answers": one.in_ledger,
                "failed": one.failed.total(),
                "answered_twice": one.answered_twice,
                "same_elos": one.elos == calm.elos,
                "seconds": round(one.seconds),
            }
            for what, one in found.items()
        ],
    )


if __name__ == "__main__":
    main()
