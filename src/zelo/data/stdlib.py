"""The built-in collection: code search over the running interpreter's standard library.

A query is the first sentence of a function's docstring, a document is the source of a function
with its docstring cut out, and the relevant document of a query is the function it was taken
from. The docstring itself is kept apart as *privileged* text: simulated judges may read it, a
model never does. Every machine with Python has this collection, and its numbers depend on the
Python version.
"""

from __future__ import annotations

import ast
import os
import re
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from zelo.artifacts import Table, table
from zelo.config import Component, option
from zelo.data.collection import Collection
from zelo.errors import UserError
from zelo.seeding import stream
from zelo.store import digest, digest_files

LEFT_OUT = {
    *("test", "tests", "idlelib", "lib2to3", "turtledemo", "ensurepip", "pydoc_data"),
    *("site-packages", "dist-packages", "__pycache__"),
}
LINE_END = re.compile(r"\r\n|\r|\n")  # as Python's parser; str.splitlines has more line ends
SENTENCE = re.compile(r"(.+?[.!?])(?:\s|$)", re.DOTALL)


@dataclass(frozen=True)
class Function:
    """One documented function of the standard library."""

    name: str  # module path and qualified name, unique
    code: str  # the source without the docstring, dedented
    docstring: str

    @property
    def summary(self) -> str:
        """First sentence of the docstring, on one line."""
        paragraph = self.docstring.split("\n\n")[0]
        found = SENTENCE.match(paragraph)
        return " ".join((found.group(1) if found else paragraph).split())


class StandardLibrary(Component):
    """`data=stdlib`: a seeded subset of the standard library, split by query."""

    documents: int = option(2500, "functions in the corpus, the relevant ones included", ge=2)
    train_queries: int = option(1000, "queries that are judged and trained on", ge=1)
    dev_queries: int = option(400, "queries that settings are chosen on", ge=0)
    test_queries: int = option(600, "queries that results are reported on", ge=0)
    min_words: int = option(4, "fewest words of a docstring's first sentence to be a query", ge=1)
    seed: int = option(0, "which subset is drawn; apart from the run's seed, so data stay fixed")
    name: str = option("stdlib", "what the collection is called in reports")

    def fingerprint(self) -> str:
        """Digest of the interpreter's version and of every source file that is read."""
        return digest([sys.version, digest_files(source_files(stdlib_root()))])

    def load(self) -> Collection:
        """Draw the subset; raise `UserError` where the library is too small for the request."""
        rng = stream(self.seed, "stdlib")
        functions = library_functions(stdlib_root())
        order = rng.permutation(len(functions))
        corpus = [functions[i] for i in order[: self.documents]]
        with_summary = [f for f in corpus if len(f.summary.split()) >= self.min_words]
        wanted = self.train_queries + self.dev_queries + self.test_queries
        if wanted > len(with_summary):
            raise UserError(
                f"data: {wanted} queries asked, but {len(with_summary)} of {len(corpus)} functions "
                f"have a summary of {self.min_words} words: raise data.documents or ask for fewer "
                f"queries"
            )
        splits = np.repeat(
            ["train", "dev", "test"], [self.train_queries, self.dev_queries, self.test_queries]
        )
        return Collection(
            name=self.name,
            documents=[
                table(
                    "documents",
                    doc_id=[f.name for f in corpus],
                    title=[""] * len(corpus),
                    text=[f.code for f in corpus],
                )
            ],
            queries=table(
                "queries",
                query_id=[f"q:{f.name}" for f in with_summary[:wanted]],
                text=[f.summary for f in with_summary[:wanted]],
                split=splits.tolist(),
            ),
            qrels=table(
                "qrels",
                query_id=[f"q:{f.name}" for f in with_summary[:wanted]],
                doc_id=[f.name for f in with_summary[:wanted]],
                relevance=[1] * wanted,
            ),
            privileged=privileged_table(corpus),
        )


def privileged_table(functions: list[Function]) -> Table:
    """What a simulated judge may read of each document: its docstring."""
    return table(
        "privileged",
        doc_id=[f.name for f in functions],
        text=[f.docstring for f in functions],
    )


def stdlib_root() -> Path:
    """Folder of the standard library of the interpreter that runs this."""
    return Path(sysconfig.get_paths()["stdlib"])


def source_files(root: Path) -> list[Path]:
    """Python files below `root` in a stable order, tests and the like left out."""
    found = []
    for folder, below, files in os.walk(root):
        below[:] = sorted(set(below) - LEFT_OUT)
        found += [Path(folder, name) for name in sorted(files) if name.endswith(".py")]
    return found


@cache
def library_functions(root: Path) -> tuple[Function, ...]:
    """The distinct functions below `root`, read once in a process, as it takes seconds."""
    return tuple(distinct(documented_functions(root)))


def documented_functions(root: Path) -> Iterator[Function]:
    """Every function below `root` that has a docstring, in the order of the files."""
    for path in source_files(root):
        source = path.read_text(encoding="utf-8", errors="replace")
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):
            continue  # a template, or a file for another version of Python
        module = ".".join(path.relative_to(root).with_suffix("").parts)
        yield from functions_in(tree, module, LINE_END.split(source))


def functions_in(node: ast.AST, scope: str, lines: list[str]) -> Iterator[Function]:
    """Documented functions below `node`, classes and nested functions included."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{scope}.{child.name}"
            if not isinstance(child, ast.ClassDef):
                docstring = ast.get_docstring(child)
                if docstring and len(child.body) > 1:
                    yield Function(name, code_without_docstring(child, lines), docstring)
            yield from functions_in(child, name, lines)
        elif not isinstance(child, ast.expr):
            yield from functions_in(child, scope, lines)


def code_without_docstring(node: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> str:
    """Source of `node` from the file, dedented, without the lines of its docstring."""
    first, after = node.body[0], node.body[1]
    start = min([node.lineno, *(d.lineno for d in node.decorator_list)])
    head = lines[start - 1 : first.lineno - 1]
    # A comment between the docstring and the next statement belongs to the code.
    tail = lines[first.end_lineno or after.lineno : node.end_lineno]
    indent = len(lines[node.lineno - 1]) - len(lines[node.lineno - 1].lstrip())
    return "\n".join(line[indent:].rstrip() for line in head + tail if line.strip())


def distinct(functions: Iterator[Function]) -> list[Function]:
    """Drop a second function of the same name, the same code or the same summary.

    With overloads or copies a query would have several right answers, only one of them labelled.
    """
    seen: set[str] = set()
    kept = []
    for function in functions:
        keys = {"n:" + function.name, "c:" + function.code, "s:" + function.summary.lower()}
        if function.summary and not keys & seen:
            kept.append(function)
            seen |= keys
    return kept
