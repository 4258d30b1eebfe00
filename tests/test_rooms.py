"""Rooms of the package import one another in one direction; every class has its own name."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import zelo

SOURCE = Path(zelo.__file__).parent

# From the bottom to the top: each imports only those that stand before it. Imports inside functions
# count, and those for type checking: a reader follows them too.
ROOMS = (
    "errors", "renamed", "progress", "seeding", "versions", "config", "artifacts", "store",
    "data", "finished_run", "rating", "distributed", "models", "retrieval", "comparison",
    "judging", "queries", "training", "evaluation", "run_config", "reporting", "local_site",
    "annotation", "serving", "pipeline", "runs", "hydra_callbacks", "launch", "commands", "cli",
)  # fmt: skip


def room_of(path: Path) -> str:
    """The room of a file: its folder, or its own name at the root."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports() -> Iterator[tuple[Path, str]]:
    """Each file and each room that it imports from."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module == "zelo":
                names = [f"zelo.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [str(node.module)]
            for name in names:
                package, _, rest = name.partition(".")
                if package == "zelo" and rest:
                    yield path, rest.partition(".")[0]


def test_every_file_is_in_a_room_of_the_list() -> None:
    rooms = {room_of(path) for path in SOURCE.rglob("*.py")} - {"__init__"}
    assert rooms == set(ROOMS)


def test_a_room_imports_only_those_below_it() -> None:
    height = {room: n for n, room in enumerate(ROOMS)}
    wrong: dict[tuple[str, str], list[str]] = {}
    for path, other in imports():
        room = room_of(path)
        if height[other] > height[room]:
            wrong.setdefault((room, other), []).append(str(path.relative_to(SOURCE)))
    assert not wrong, "a room, one above it that it imports: the files"


def test_a_class_name_is_defined_once() -> None:
    names = Counter(
        node.name
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    )
    assert not {name for name, number in names.items() if number > 1}
