"""Which failures are asked about."""

from __future__ import annotations

import pytest

from zelo.evaluation.refine import failures


@pytest.mark.parametrize(
    ("known", "threshold", "expected"),
    [
        ("a", 1, []),
        ("b", 1, [("b", "a")]),
        ("b", 2, []),
        ("de", 2, [("d", "c"), ("e", "c")]),  # the document above is not known itself
        ("abe", 2, [("e", "d")]),
        ("ab", 1, []),  # all that stands above is known
    ],
)
def test_failures(known: str, threshold: int, expected: list[tuple[str, str]]) -> None:
    assert failures("abcde", list(known), threshold) == expected
