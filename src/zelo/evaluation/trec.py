"""TREC run files: `qid Q0 docid rank score tag`, separated by spaces."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

from zelo.artifacts import write_text
from zelo.retrieval.ranking import Ranking

BLANK = re.compile(r"\s")


def write_run(path: Path, ranking: Ranking, tag: str) -> None:
    """Write a ranking, ranks from 1.

    White space within an id, which the format cannot hold, is percent-encoded. Scores are replaced
    by falling whole numbers where they tie, since tools that read runs sort by score.
    """
    lines = []
    for query_id, ranked in ranking.items():
        scores = [score for _, score in ranked]
        tied = any(after >= before for before, after in pairwise(scores))
        for rank, (doc_id, score) in enumerate(ranked, start=1):
            value = len(ranked) - rank + 1 if tied else score
            lines.append(f"{encoded(query_id)} Q0 {encoded(doc_id)} {rank} {value!r} {tag}\n")
    write_text(path, "".join(lines))


def encoded(identifier: str) -> str:
    """An id without white space."""
    return BLANK.sub(lambda found: quote(found.group()), identifier)
