"""Sentences, clauses and names of documents, in prose and in code."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zelo.queries.prose import clauses, is_code, length, prose_of

PYTHON = '''def parse_args(argv, strict=False):
    """Read the options of a command line.

    :param argv: the words
    """
    # an empty one is allowed
    return vars(argv)
'''
JAVA = """public static int parseIntOrZero(String text) {
    /** Parses a number; 0 where there is none.
     * @param text what to read
     */
    return text.isEmpty() ? 0 : Integer.parseInt(text);
}
"""


@pytest.mark.parametrize(
    ("text", "sentences", "name"),
    [
        ("It works (as Smith et al. say [1, 2]). Nobody knows why.",
         ["It works (as Smith et al. say ).", "Nobody knows why."], ""),
        ("## Usage\n\n- [the guide](x.md) first\n- `make` it\n\n```sh\nrm -rf x\n```\n",
         ["Usage", "the guide first", "make it"], ""),
        ("METHODS We measured it. 4. Results were good.", ["We measured it.", "Results were good."],
         ""),
        ("the wing stalls . the air parts .", ["the wing stalls .", "the air parts ."], ""),
        ("1 2 3 4 5 6. ___", [], ""),
        ("水が沸騰する。蒸気が出る。", ["水が沸騰する。", "蒸気が出る。"], ""),
        (PYTHON, ["Read the options of a command line.", "an empty one is allowed"], "parse args"),
        (JAVA, ["Parses a number; 0 where there is none."], "parse int or zero"),
        ("", [], ""),
    ],
)  # fmt: skip
def test_prose(text: str, sentences: list[str], name: str) -> None:
    found = prose_of(text)
    assert found.sentences == sentences
    assert found.name == name


def test_code_is_told_from_prose() -> None:
    assert is_code(PYTHON)
    assert is_code("for (int i = 0; i < n; i++) {\n  total += i;\n}")
    assert not is_code("Define a class.\nImport what you need; return it.")


@given(st.text(max_size=200), st.integers(4, 12))
def test_clauses_are_short_and_of_the_sentence(text: str, longest: int) -> None:
    for clause in clauses(text, longest):
        assert length(clause.text) <= longest
    prose_of(text)
