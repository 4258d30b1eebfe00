"""Run again what a manifest describes, and say what came out otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from zelo.artifacts import read_json
from zelo.errors import UserError
from zelo.finished_run import MANIFEST, FinishedRun
from zelo.runs.run_folder import execute

TOLD = ("report",)  # stages whose output tells how long the others took


@dataclass(frozen=True)
class StageThenAndNow:
    """One stage of a run, then and now."""

    label: str
    same_inputs: bool  # the fingerprint: options, inputs, version of the stage
    differing: list[str] = field(default_factory=list)  # files
    files: int = 0
    compared: bool = True  # False: files were not recorded, or tell times

    @property
    def same(self) -> bool:
        """Whether nothing is known to differ."""
        return self.same_inputs and not self.differing

    def __str__(self) -> str:
        """A line."""
        if self.differing:
            said = f"differs in {', '.join(self.differing)}"
        elif not self.compared:
            said = "made again, not compared"
        else:
            said = f"the same, {self.files} files"
        return f"{self.label}: {said}{'' if self.same_inputs else ' (from other inputs)'}"


@dataclass(frozen=True)
class Reproduction:
    """What a run came to when it was done again."""

    folder: Path
    surroundings: list[str]  # what differs in code, packages and machine
    stages: list[StageThenAndNow]
    numbers: list[str]  # results that differ

    @property
    def same(self) -> bool:
        """Whether all that was compared is the same, bit for bit."""
        return all(stage.same for stage in self.stages) and not self.numbers


def reproduce(run: Path, home: Path, trusted: bool = False) -> Reproduction:
    """Do the run that the manifest in `run` describes again, below the empty folder `home`.

    `run` is a run folder or its manifest alone. Nothing of what the run made is read, but answers
    of judges that its ledger holds are taken from there: they are not paid for twice. Paths in the
    configuration are taken as they were given, from the working directory. Raises `UserError` where
    there is no manifest of a run that is done, or `home` is not empty, or the manifest asks for
    more than a stranger's may, unless it is `trusted`.
    """
    manifest = manifest_of_done(run)
    if home.exists() and any(home.iterdir()):
        raise UserError(f"{home}: not empty; name another with home=FOLDER")
    if not trusted:
        refuse_what_needs_trust(manifest["config"], run)
    config = OmegaConf.create(manifest["config"])
    ledger = Path(str(config.home)) / "ledger.sqlite"
    config.home = str(home)
    config.logger = {"_target_": "zelo.training.loggers.Csv"}
    folder = home / "run"
    home.mkdir(parents=True, exist_ok=True)
    if ledger.is_file():
        copy_ledger(ledger, home / "ledger.sqlite")
    folder.mkdir()
    execute(config, folder, manifest.get("overrides", []))
    again = read_json(folder / MANIFEST)
    before, after = ({s["label"]: s for s in m["stages"]} for m in (manifest, again))
    stages = [compared(label, before.get(label, {}), now) for label, now in after.items()]
    old, new = (m.get("results", {}) for m in (manifest, again))
    numbers = [
        f"{name}: {old.get(name)} then, {new.get(name)} now"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]
    return Reproduction(folder, surroundings(manifest, again), stages, numbers)


def refuse_what_needs_trust(config: Any, run: Path) -> None:
    """`UserError` where a manifest would read the environment, import other code than this
    package's, or send texts and keys somewhere: anybody could have written it."""
    for key, value in leaves(config):
        name = key.rpartition(".")[2]
        text = str(value)
        if "${" in text:
            why = "refers to something outside the manifest"
        elif name == "_target_" and not text.startswith("zelo."):
            why = "is code of somebody else"
        elif name in ("base_url", "endpoint", "url") and value:
            why = "is an address that texts, and the key in an environment variable, are sent to"
        else:
            continue
        raise UserError(
            f"{run}: {key}={text} {why}; add trust=true if this manifest is yours, or has been read"
        )


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Key and value of everything in plain data."""
    pairs = node.items() if isinstance(node, Mapping) else enumerate(node)
    for key, value in pairs:
        where = f"{path}.{key}" if path else str(key)
        if isinstance(value, Mapping | list):
            yield from leaves(value, where)
        else:
            yield where, value


def manifest_of_done(place: Path) -> Mapping[str, Any]:
    """The manifest of a run; `UserError` where the run is not done, or its manifest not whole."""
    run = FinishedRun.at(place)
    path = place if place.is_file() else place / MANIFEST
    if run.manifest["status"] != "done":
        raise UserError(
            f"{path}: the run is {run.manifest['status']}; only one that is done can be compared "
            f"with"
        )
    missing = [key for key in ("config", "stages", "packages", "code") if key not in run.manifest]
    if missing:
        raise UserError(f"{path}: damaged, no {', '.join(missing)} in it")
    return run.manifest


def copy_ledger(path: Path, target: Path) -> None:
    """Copy a ledger that others may be writing to."""
    import sqlite3
    from contextlib import closing

    try:
        with closing(sqlite3.connect(path)) as old, closing(sqlite3.connect(target)) as new:
            old.backup(new)
    except sqlite3.Error as error:
        target.unlink(missing_ok=True)
        raise UserError(
            f"{path}: the ledger cannot be copied ({error}); mend it, or move it away: then what "
            f"judges answered is asked again"
        ) from None


def compared(label: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> StageThenAndNow:
    """One stage then and now."""
    same_inputs = then.get("fingerprint") == now["fingerprint"]
    old, new = then.get("files"), now.get("files")
    if now["stage"] in TOLD or old is None or new is None:
        return StageThenAndNow(label, same_inputs, compared=False)
    differing = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
    return StageThenAndNow(label, same_inputs, differing, len(new))


def surroundings(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs in code, packages and machine."""
    pairs = {
        "Python": (then["python"], now["python"]),
        "platform": (then["platform"], now["platform"]),
    }
    for name in ("code", "packages"):
        for key in dict.fromkeys([*then[name], *now[name]]):
            pairs[key] = then[name].get(key), now[name].get(key)
    return [f"{key}: {old} then, {new} now" for key, (old, new) in pairs.items() if old != new]
