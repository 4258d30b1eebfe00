"""The pairs that a file already holds preferences about."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from zelo.comparison.sampler import BaseSampler
from zelo.config import option
from zelo.data.preference_file import existing, read_preferences
from zelo.store import digest_files


class RecordedPairs(BaseSampler):
    """`sampler=recorded`: asks about what was recorded, in the order in which it was shown then."""

    recorded: ClassVar[bool] = True
    path: Path = option(help="a file as `judge=recorded` reads it", exclude=True)

    def fingerprint(self) -> str:
        """Digest of the file."""
        return digest_files([existing(self.path)])

    def recorded_pairs(self) -> dict[str, list[tuple[str, str]]]:
        """Query id → pairs of documents, each once, the one shown first in front."""
        rows = read_preferences(self.path)
        found: dict[str, dict[frozenset[str], tuple[str, str]]] = {}
        names = ("query_id", "doc_a", "doc_b")
        for query_id, a, b in zip(*(rows[name].to_pylist() for name in names), strict=True):
            found.setdefault(query_id, {}).setdefault(frozenset((a, b)), (a, b))
        return {query_id: list(pairs.values()) for query_id, pairs in found.items()}

    def comparisons_at_most(self, n: int, queries: int) -> int:
        """How many pairs were recorded."""
        return sum(map(len, self.recorded_pairs().values()))
