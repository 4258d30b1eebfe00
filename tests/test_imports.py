"""What the package imports is what it says that it needs."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def named(requirements: list[str]) -> set[str]:
    """Names of distributions as packaging writes them."""
    return {plain(Requirement(line).name) for line in requirements}


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


NEEDED = named(PROJECT["dependencies"])
EXTRA = named([line for extra in PROJECT["optional-dependencies"].values() for line in extra])


# Files that are imported as a whole by a function, and need an extra in all they do
BEHIND_AN_EXTRA = {
    "src/zelo/annotation/server.py",
    "src/zelo/local_site.py",
    "src/zelo/serving/server.py",
}

OF_OTHERS = {"accelerate"}  # which transformers imports where a model is placed (models/loading.py)


def imports(source: str) -> Iterator[tuple[str, bool]]:
    """Top-level modules that a file imports, and whether the file's import does."""
    tree = ast.parse(source)
    waits = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test))
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [str(node.module)]
        yield from ((name.partition(".")[0], id(node) not in waits) for name in names)


def test_every_import_is_declared() -> None:
    installed = packages_distributions()
    used: set[str] = set()
    for path in sorted((ROOT / "src").rglob("*.py")):
        for module, at_once in imports(path.read_text(encoding="utf-8")):
            if module in sys.stdlib_module_names or module == "zelo":
                continue
            where = f"{path.relative_to(ROOT)} imports {module}"
            of = {plain(name) for name in installed.get(module, [module])}  # or an extra's
            used |= of
            # What an extra brings is imported by the function that needs it, never at once.
            at_once = at_once and str(path.relative_to(ROOT)) not in BEHIND_AN_EXTRA
            assert of & (NEEDED if at_once else NEEDED | EXTRA), f"{where}: not in pyproject.toml"
    assert not NEEDED - used - OF_OTHERS, "declared, and imported nowhere"


def test_what_is_behind_an_extra_is_imported_by_functions_alone() -> None:
    behind = {file.removeprefix("src/").removesuffix(".py") for file in BEHIND_AN_EXTRA}
    modules = {name.replace("/", ".") for name in behind}
    for path in sorted((ROOT / "src").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            assert not (isinstance(node, ast.ImportFrom) and node.module in modules), path
