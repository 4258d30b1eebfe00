"""A folder in BEIR layout: `corpus.jsonl`, `queries.jsonl`, `qrels/{train,dev,test}.tsv`.

Layout: https://github.com/beir-cellar/beir/wiki/Load-your-custom-dataset. Each file may be gzipped
(`corpus.jsonl.gz`), or Parquet: in one file (`corpus.parquet`) or, as the hub ships sets, in parts
(`corpus/corpus-00000-of-00002.parquet`, `qrels/test-00000-of-00001.parquet`). The method is for
queries without labels, so a query that no qrels file names is a training query.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from zelo.config import option
from zelo.data.arrow import parquet_records
from zelo.data.collection import Collection, LabelledSource
from zelo.data.lines import json_objects, unique
from zelo.data.records import (
    DOC_ID,
    DOC_TEXT,
    QUERY,
    document_of,
    query_of,
    read_qrels,
    split_named,
    with_instructions,
)
from zelo.errors import UserError
from zelo.store import digest, digest_files

ENDINGS = (".jsonl", ".jsonl.gz", ".parquet")  # of documents and queries
LABEL_ENDINGS = (".tsv", ".tsv.gz", ".txt", ".txt.gz", ".qrels", ".qrels.gz", *ENDINGS)
PART = re.compile(r"(.*)-(\d+)-of-(\d+)\.parquet")  # of a file that the hub ships in parts
NO_QUERIES = (
    'write what users ask, one {"_id": "q1", "text": "..."} a line; labels are not needed, and '
    "queries without labels are trained on; data=corpus has queries written from the documents"
)


@dataclass(frozen=True)
class Files:
    """The files of a folder that are read, and a note about each one that is not read, though its
    name suggests it."""

    corpus: list[Path]
    queries: list[Path]
    qrels: dict[str, list[Path]]  # by split
    not_read: list[str]

    @property
    def all(self) -> list[Path]:
        """Those that are read."""
        return [*self.corpus, *self.queries, *chain.from_iterable(self.qrels.values())]


class BeirFolder(LabelledSource):
    """`data=beir data.path=FOLDER`: a collection of one's own."""

    path: str = option(
        help="folder that holds corpus.jsonl, queries.jsonl and qrels/", exclude=True
    )

    @property
    def folder(self) -> Path:
        """The folder, `~` expanded."""
        return Path(self.path).expanduser()

    def files(self) -> Files:
        """What is read; `UserError` where a required file is missing."""
        corpus, queries = (files_of(self.folder, name) for name in ("corpus", "queries"))
        if not corpus:
            raise UserError(
                f"{self.folder / 'corpus.jsonl'}: not found; data.path={self.path} must be a "
                f"folder in BEIR layout (corpus.jsonl, queries.jsonl, qrels/test.tsv; or each with "
                f".gz, or as Parquet)"
            )
        if not queries:
            raise UserError(f"{self.folder / 'queries.jsonl'}: not found; {NO_QUERIES}")
        qrels, others = files_of_labels(self.folder)
        not_read = [
            *(
                f"{self._name(form[0])} is not read, since {self._name(forms[0][0])} is"
                for forms in (corpus, queries)
                for form in forms[1:]
            ),
            *(
                f"{self._name(path)} is not read: labels are those of files in qrels/ that are "
                f"called train, dev (validation, valid, val) or test"
                for path in others
            ),
        ]
        return Files(corpus[0], queries[0], qrels, not_read)

    def fingerprint(self) -> str:
        """Digest of the names and the content of every file that is read."""
        files = self.files()
        content = [[self._name(path), digest_files([path])] for path in files.all]
        return digest([*content, *with_instructions(files.queries)])

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def load(self) -> Collection:
        """Read the folder; `UserError` names file and line of what is malformed.

        Documents are read only as the caller takes them.
        """
        files = self.files()
        queries = list(
            unique(
                lambda: (
                    (where, query_of(record, where))
                    for where, record in records_of(files.queries, QUERY)
                ),
                lambda query: query.query_id,
            )
        )
        if not queries:
            raise UserError(
                f"{files.queries[0]}: empty, at least one record is needed; {NO_QUERIES}"
            )
        documents = unique(
            lambda: (
                (where, document_of(record, where))
                for where, record in records_of(files.corpus, {*DOC_ID, *DOC_TEXT, "title"})
            ),
            lambda document: document.doc_id,
        )
        return self.collection(
            self.folder.resolve().name,
            documents,
            queries,
            {
                split: chain.from_iterable(map(read_qrels, paths))
                for split, paths in files.qrels.items()
            },
            (files.corpus[0].name, files.queries[0].name),
            files.not_read,
        )


def files_of(folder: Path, name: str) -> list[list[Path]]:
    """Every form in which a folder has the files of that name, the one that is read first: a single
    file, plain, gzipped or Parquet, or the Parquet files in a folder of that name. `UserError`
    where a part is missing."""
    single = [[path] for ending in ENDINGS if (path := folder / f"{name}{ending}").is_file()]
    parts = sorted((folder / name).glob("*.parquet"))
    forms = [*single, parts] if parts else single
    if forms:
        check_parts(forms[0])
    return forms


def check_parts(paths: Sequence[Path]) -> None:
    """Raise `UserError` where some parts of a file are missing, as after a broken download."""
    parts = [match for path in paths if (match := PART.fullmatch(path.name))]
    for of, count in dict.fromkeys((match[1], match[3]) for match in parts):
        there = {int(match[2]) for match in parts if (match[1], match[3]) == (of, count)}
        missing = sorted(set(range(int(count))) - there)
        if missing:
            folder = paths[0].parent
            raise UserError(
                f"{folder}/{of}-{missing[0]:0{len(count)}}-of-{count}.parquet: not found, of "
                f"{int(count)} parts {len(there)} are there; download the rest"
            )


def files_of_labels(folder: Path) -> tuple[dict[str, list[Path]], list[Path]]:
    """Files of `qrels/` by split, and those of no split; `UserError` where two are of the same
    split."""
    qrels: dict[str, list[Path]] = {}
    not_read = []
    for path in sorted((folder / "qrels").glob("*")):
        if path.name.startswith("."):
            continue
        split = split_named(stem(path.name))
        plain = path.with_name(path.name.removesuffix(".gz"))
        if split is None or path.is_dir() or (plain != path and plain.is_file()):
            not_read.append(path)
            continue
        qrels.setdefault(split, []).append(path)
    for split, paths in qrels.items():
        check_parts(paths)
        if len({PART.sub(r"\1", path.name) for path in paths}) > 1:
            raise UserError(
                f"{paths[0].parent}: {paths[0].name} and {paths[1].name} are both labels of "
                f"{split}: remove one, or put them into one file"
            )
    order = [split for split in ("train", "dev", "test") if split in qrels]
    return {split: qrels[split] for split in order}, not_read


def stem(name: str) -> str:
    """The name of a file of labels without its ending and the number of its part; "" where the
    ending is not one of such files."""
    part = PART.fullmatch(name)
    if part is not None:
        return part[1]
    ending = next((end for end in LABEL_ENDINGS if name.endswith(end)), None)
    return name.removesuffix(ending) if ending else ""


def records_of(paths: Sequence[Path], wanted: set[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """`file:line` and record of each row of files in JSON lines or Parquet."""
    for path in paths:
        if path.suffix == ".parquet":
            yield from parquet_records(path, wanted)
        else:
            for number, record in json_objects(path):
                yield f"{path}:{number}", record
