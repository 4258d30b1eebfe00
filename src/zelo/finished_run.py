"""What a run left: the folders of its stages, by its manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zelo.artifacts import read_json
from zelo.errors import UserError
from zelo.store import RECORD

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class FinishedRun:
    """A run folder, and the stages of it that have run to their end."""

    folder: Path
    manifest: Mapping[str, Any]
    stages: Sequence[Mapping[str, Any]]  # of the manifest, in their order

    @classmethod
    def at(cls, folder: Path) -> FinishedRun:
        """The run in `folder`; `UserError` where there is none."""
        manifest = folder / MANIFEST
        if not manifest.is_file():
            raise UserError(f"{folder}: no {MANIFEST}; a run folder is needed (outputs/runs/...)")
        content = read_json(manifest, "status", "config")
        return cls(folder, content, [s for s in content.get("stages", []) if s["complete"]])

    def has(self, stage: str) -> bool:
        """Whether the stage has run."""
        return any(entry["stage"] == stage for entry in self.stages)

    def last(self, stage: str) -> Path:
        """Folder of the stage, of several passes that of the last; `UserError` where it has not run
        or is not there any more."""
        for entry in reversed(self.stages):
            if entry["stage"] == stage:
                return there(entry)
        raise UserError(f"{self.folder}: its stage {stage} has not run; run it first")

    def inputs(self, stage: str, name: str) -> list[Path]:
        """Folders of what the last `stage` read as `name`, or as `name_1`, `name_2`, ..."""
        read = read_json(self.last(stage) / RECORD)["inputs"]
        wanted = [f for key, f in read.items() if key == name or key.startswith(f"{name}_")]
        entries = {entry["fingerprint"]: entry for entry in self.stages}
        return [there(entries[fingerprint]) for fingerprint in wanted]


def there(entry: Mapping[str, Any]) -> Path:
    """Folder of a stage of a manifest; `UserError` where it is not there."""
    path = Path(entry["path"])
    if not path.is_dir():
        raise UserError(
            f"{path}: not there; call the command in the folder that the run was started in, or "
            f"run it again"
        )
    return path
