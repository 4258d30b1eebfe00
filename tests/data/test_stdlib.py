from __future__ import annotations

import ast
from pathlib import Path

import pyarrow as pa
import pytest

from zelo.data.collection import validate
from zelo.data.stdlib import StandardLibrary, documented_functions, functions_in
from zelo.errors import UserError

SOURCE = '''
class A:
    @property
    def f(self):
        """Give the number seven. Really."""
        # kept
        return 7

    def no(self):
        return 1

    def only(self):
        """Nothing but words here."""

if True:
    async def g(x):
        """First line
        goes on"""
        def h():
            """Inner help text"""
            return "é"
        return h
'''


def test_a_document_is_the_source_without_the_docstring() -> None:
    found = {f.name: f for f in functions_in(ast.parse(SOURCE), "m", SOURCE.splitlines())}
    assert list(found) == ["m.A.f", "m.g", "m.g.h"]
    assert found["m.A.f"].code == "@property\ndef f(self):\n    # kept\n    return 7"
    assert found["m.A.f"].summary == "Give the number seven."
    assert found["m.g"].summary == "First line goes on"
    assert found["m.g.h"].code == 'def h():\n    return "é"'


def test_a_form_feed_does_not_shift_the_lines(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('# \f\ndef f():\n    """Say a thing."""\n    return 1\n')
    assert [f.code for f in documented_functions(tmp_path)] == ["def f():\n    return 1"]


def test_files_that_do_not_parse_and_tests_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text('def f():\n    """Say a thing."""\n    return 1\n')
    (tmp_path / "bad.py").write_text("def f(:\n")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "t.py").write_text('def t():\n    """Say it."""\n    return 1\n')
    assert [f.name for f in documented_functions(tmp_path)] == ["good.f"]


def test_the_subset_is_fixed_and_split_by_query() -> None:
    source = StandardLibrary(documents=200, train_queries=50, dev_queries=20, test_queries=30)
    collection = source.load()
    documents = pa.concat_tables(collection.documents)
    validate(collection, documents["doc_id"])
    assert documents.equals(pa.concat_tables(source.load().documents))
    assert collection.queries["split"].to_pylist() == ["train"] * 50 + ["dev"] * 20 + ["test"] * 30
    texts = collection.queries["text"].to_pylist()
    assert len({text.lower() for text in texts}) == 100
    documents = dict(
        zip(
            documents["doc_id"].to_pylist(),
            documents["text"].to_pylist(),
            strict=True,
        )
    )
    for row, text in zip(collection.qrels.to_pylist(), texts, strict=True):
        assert row["query_id"] == f"q:{row['doc_id']}"
        assert text not in documents[row["doc_id"]]


def test_more_queries_than_there_are_is_refused() -> None:
    with pytest.raises(UserError, match=r"raise data\.documents or ask for fewer queries"):
        StandardLibrary(documents=20, train_queries=50).load()
