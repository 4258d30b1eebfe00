"""No file imports one that imports it, by whatever way, nor does a room."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import zelo

SOURCE = Path(zelo.__file__).parent
FILES = {
    ".".join(("zelo", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in sorted(SOURCE.rglob("*.py"))
}


def imported(module: str) -> set[str]:
    """Modules of the package that one imports; imports inside functions and for type checking
    count: a reader follows them too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            of = str(node.module)
            names = {f"{of}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else of for name in names}
    return found & FILES.keys() - {module}


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """One circle, or nothing."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def test_no_circle_of_imports() -> None:
    files = {module: imported(module) for module in FILES}
    assert circle(files) == []
    rooms: dict[str, set[str]] = {}
    for module, others in files.items():
        room = module.split(".")[1:2]
        if room:
            rooms.setdefault(room[0], set()).update(
                name for other in others for name in other.split(".")[1:2] if name != room[0]
            )
    assert circle(rooms) == []
