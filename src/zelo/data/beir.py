"""A folder in BEIR layout: `corpus.jsonl`, `queries.jsonl`, `qrels/{train,dev,test}.tsv`.

Layout: https://github.com/beir-cellar/beir/wiki/Load-your-custom-dataset. Each file may be gzipped
(`corpus.jsonl.gz`). Queries without labels are what the method is for, so a query that no qrels
file names is a training query.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from zelo.config import option
from zelo.data.collection import SPLITS, Collection, Document, Label, LabelledSource
from zelo.data.lines import numbered_lines, read_records
from zelo.errors import UserError
from zelo.store import digest, digest_files

HEADER = ["query-id", "corpus-id", "score"]


class BeirFolder(LabelledSource):
    """`data=beir data.path=FOLDER`: a collection of one's own."""

    path: str = option(
        help="folder that holds corpus.jsonl, queries.jsonl and qrels/", exclude=True
    )

    @property
    def folder(self) -> Path:
        """The folder, `~` expanded."""
        return Path(self.path).expanduser()

    def files(self) -> list[Path]:
        """Every file that is read; `UserError` where a required one is missing."""
        found = []
        for name in ("corpus.jsonl", "queries.jsonl"):
            path = plain_or_gzipped(self.folder / name)
            if path is None:
                raise UserError(
                    f"{self.folder / name}: not found; data.path={self.path} must be a folder in "
                    f"BEIR layout (corpus.jsonl, queries.jsonl, qrels/test.tsv; or each with .gz)"
                )
            found.append(path)
        qrels = [plain_or_gzipped(self.folder / "qrels" / f"{split}.tsv") for split in SPLITS]
        return [*found, *(path for path in qrels if path is not None)]

    def fingerprint(self) -> str:
        """Digest of the names and the content of every file that is read."""
        return digest([[path.name, digest_files([path])] for path in self.files()])

    def load(self) -> Collection:
        """Read the folder; `UserError` names file and line of what is malformed.

        The corpus is read while its documents are taken.
        """
        corpus, queries, *qrels = self.files()
        asked = [(record["_id"], record["text"]) for record in read_records(queries)]
        if not asked:
            raise UserError(f"{queries}: empty, at least one record is needed")
        return self.collection(
            self.folder.resolve().name,
            (
                Document(record["_id"], record["title"], record["text"])
                for record in read_records(corpus, optional=("title",))
            ),
            asked,
            {path.name.partition(".")[0]: read_qrels(path) for path in qrels},
            (corpus.name, queries.name),
        )


def plain_or_gzipped(path: Path) -> Path | None:
    """The file, or the same with `.gz` after its name, whichever there is."""
    for found in (path, path.with_name(f"{path.name}.gz")):
        if found.is_file():
            return found
    return None


def read_qrels(path: Path) -> Iterator[Label]:
    """Rows of a BEIR qrels file; `UserError` names file and line."""
    for number, line in numbered_lines(path):
        fields = line.split("\t")
        if len(fields) != 3:
            raise UserError(
                f"{path}:{number}: expected 3 fields separated by tabs ({', '.join(HEADER)}), "
                f"found {len(fields)}"
            )
        if number == 1 and fields == HEADER:
            continue
        query_id, doc_id, relevance = fields
        yield Label(query_id, doc_id, grade(relevance, f"{path}:{number}"), f"{path}:{number}")


def grade(text: str, where: str) -> int:
    """A grade of relevance."""
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{where}: score must be a whole number, found {text!r}") from None
