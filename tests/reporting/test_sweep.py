"""What a sweep's runs varied."""

from __future__ import annotations

from pathlib import Path

from zelo.artifacts import write_json
from zelo.reporting.sweep import read_jobs, varied


def test_an_override_that_takes_something_away_has_no_value(tmp_path: Path) -> None:
    for number, words in enumerate((["~judge.judges.words", "seed=1"], ["+a.b=c=d", "seed=2"])):
        (tmp_path / str(number)).mkdir()
        manifest = {"status": "done", "overrides": words}
        write_json(tmp_path / str(number) / "manifest.json", manifest)
    jobs = read_jobs([tmp_path])
    assert jobs[0].overrides == {"~judge.judges.words": "", "seed": "1"}
    assert jobs[1].overrides == {"a.b": "c=d", "seed": "2"}
    assert varied(jobs) == ["~judge.judges.words", "a.b"]
