"""What a run left: its manifest, and through it the folders of its stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from zelo.artifacts import read_json, read_table
from zelo.data.texts import document_texts, query_texts
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
    def at(cls, place: str | Path) -> FinishedRun:
        """The run whose folder or manifest `place` is; `UserError` where there is none."""
        place = Path(place)
        path = place if place.is_file() else place / MANIFEST
        if not path.is_file():
            raise UserError(
                f"{place}: no run lies there ({MANIFEST}); a run folder is needed "
                f"(outputs/runs/...)"
            )
        manifest: Any = read_json(path)
        if not (isinstance(manifest, dict) and "status" in manifest):
            raise UserError(f"{path}: not the manifest of a run")
        complete = [stage for stage in manifest.get("stages", []) if stage["complete"]]
        return cls(path.parent, manifest, complete)

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

    def collection_folder(self) -> Path:
        """Folder of the collection's tables: queries, those that were written too, documents,
        qrels."""
        return self.last("queries" if self.has("queries") else "load")

    def ratings_folder(self) -> Path:
        """Folder of the ratings, those of the last pass."""
        return self.last("rate")

    def judgments_folders(self) -> list[Path]:
        """Folders of the judgments that these ratings are of, one for each round of questions."""
        return self.inputs("rate", "judgments")

    def scored_dataset(self) -> Any:
        """The rated documents as a training set in the columns of sentence-transformers.

        A row is a rated document: `query` and `document`, their texts, and `score`, the target that
        the document's Elo became. A `datasets.Dataset` where that package is installed, as the
        trainers of sentence-transformers take it; else a dictionary of the columns.
        """
        rated = read_table(self.ratings_folder(), "ratings")
        query_ids, doc_ids, targets = (
            rated[name].to_pylist() for name in ("query_id", "doc_id", "target")
        )
        queries = query_texts(self.collection_folder())
        documents = document_texts(self.collection_folder(), set(doc_ids))
        columns = {
            "query": [queries[query_id] for query_id in query_ids],
            "document": [documents[doc_id] for doc_id in doc_ids],
            "score": targets,
        }
        if find_spec("datasets") is None:
            return columns
        from datasets import Dataset

        return Dataset.from_dict(columns)


def there(entry: Mapping[str, Any]) -> Path:
    """Folder of a stage of a manifest; `UserError` where it is not there."""
    path = Path(entry["path"])
    if not path.is_dir():
        raise UserError(
            f"{path}: not there; call the command in the folder that the run was started in, or "
            f"run it again"
        )
    return path
