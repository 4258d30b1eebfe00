"""Documents without labels, and perhaps without queries: `data=corpus data.path=FOLDER`.

    corpus.jsonl   the documents of a collection in BEIR layout, as they are: a folder that has one,
                   or the file itself (.jsonl, .jsonl.gz, .parquet)
    a folder       of .txt, .md, .html and .pdf, and of records in .jsonl and .parquet, with its
                   subfolders: each is split into passages

A passage's id says where it stands: `guide/install.md#3` is the third of that file,
`items.jsonl#a7` the record of the id `a7` (of its line where it has none), and `items.jsonl#a7.2`
the second passage of a long one.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from zelo.config import option
from zelo.data.beir import ENDINGS, files_of, records_of
from zelo.data.collection import Collection, Document, LabelledSource, Query
from zelo.data.lines import numbered_lines, text_field, title_field, unique
from zelo.data.passages import TEXT_ENDINGS, UnreadableFileError, named, passages_of, split
from zelo.data.records import (
    DOC_ID,
    DOC_TEXT,
    QUERY,
    column_of,
    document_of,
    field_of,
    query_of,
    read_qrels,
)
from zelo.errors import UserError
from zelo.store import digest, digest_files

Placed = tuple[str, Document]  # a document and its `file:line`


class DocumentFolder(LabelledSource):
    """`data=corpus data.path=FOLDER`: documents, from which queries are written."""

    path: str = option(
        help="folder of documents, or a file of them; a corpus.jsonl in it is read alone",
        exclude=True,
    )
    queries: str | None = option(
        None,
        "file of queries that users ask: .txt, one a line, or JSON lines as BEIR's queries.jsonl",
        exclude=True,
    )
    qrels: str | None = option(
        None, "file of labels for queries of JSON lines: these are then tested on", exclude=True
    )
    passage_tokens: int = option(
        200, "longer texts of a folder are split into passages of about so many tokens", ge=20
    )

    @property
    def folder(self) -> Path:
        """What `path` names, `~` expanded; `UserError` where there is nothing."""
        folder = Path(self.path).expanduser()
        if not folder.exists():
            raise UserError(f"{folder}: not found; data.path must be a folder of documents")
        return folder

    def records(self) -> list[Path]:
        """Files whose records are the documents, as they are; none where a folder is split."""
        folder = self.folder
        if folder.is_dir():
            return next(iter(files_of(folder, "corpus")), [])
        return [folder] if folder.name.endswith(ENDINGS) else []

    def fingerprint(self) -> str:
        """Digest of the names and the content of every file that is read."""
        found = self.records() or FilesFound.below(self.folder).read
        about = [[self._name(path), digest_files([path])] for path in found]
        asked = [digest_files([self._file(name)]) for name in (self.queries, self.qrels) if name]
        return digest([about, bool(self.queries), bool(self.qrels), asked])

    def _name(self, path: Path) -> str:
        """A file's path from the folder; of the file that `path` names its own name."""
        folder = self.folder
        return path.relative_to(folder if folder.is_dir() else folder.parent).as_posix()

    def _file(self, name: str) -> Path:
        path = Path(name).expanduser()
        if not path.is_file():
            raise UserError(f"{path}: not found; data.queries and data.qrels name files")
        return path

    def load(self) -> Collection:
        """Read the documents, part by part as the caller takes them; `UserError` names what is
        malformed, and a note counts what is not read."""
        notes: list[str] = []
        records = self.records()
        if records:
            documents = unique(lambda: as_they_are(records), lambda document: document.doc_id)
            notes += self._beside(records[0])
        else:
            found = FilesFound.below(self.folder)
            documents = self._passages(found, notes)
        if self.qrels and not self.queries:
            raise UserError("data.qrels: labels of which queries? name their file: data.queries=")
        queries = read_queries(self._file(self.queries)) if self.queries else []
        collection = self.collection(
            self.folder.resolve().stem,
            documents,
            queries,
            {"test": read_qrels(self._file(self.qrels))} if self.qrels else {},
            (self.path, self.queries or ""),
            notes,
        )
        notes += collection.notes[len(notes) :]  # the list is longer once all documents are read
        return replace(collection, notes=notes, may_lack_queries=True)

    def _beside(self, corpus: Path) -> Iterator[str]:
        """A note where queries lie beside a corpus that are not asked for."""
        queries = files_of(corpus.parent, "queries") if self.queries is None else []
        if queries:
            yield (
                f"{queries[0][0]} is not read: the documents alone are; data.queries= and "
                f"data.qrels= name what else is to be, and data=beir reads all of the folder"
            )

    def _passages(self, found: FilesFound, notes: list[str]) -> Iterator[Document]:
        """Every passage once; at the end `notes` gets what was left out."""
        left_out: dict[str, list[str]] = {}
        copies = 0
        seen: set[bytes] = set()

        def passages() -> Iterator[Placed]:
            left_out.clear()
            for path in found.read:
                name = self._name(path)
                if path.name.endswith(ENDINGS):
                    yield from self._of_records(path, name, left_out)
                    continue
                try:
                    for n, (title, text) in enumerate(passages_of(path, self.passage_tokens), 1):
                        yield f"{path}:{n}", Document(f"{name}#{n}", title, text)
                except UnreadableFileError as error:
                    left_out.setdefault(f"files left out, {error}", []).append(name)

        for document in unique(passages, lambda document: document.doc_id):
            content = hashlib.sha256(f"{document.title}\0{document.text}".encode()).digest()[:16]
            if content in seen:
                copies += 1
                continue
            seen.add(content)
            yield document
        notes += [counted(what, names) for what, names in left_out.items()]
        notes += found.notes
        if copies:
            notes.append(f"passages left out, copies of others: {copies:,}")

    def _of_records(
        self, path: Path, name: str, left_out: dict[str, list[str]]
    ) -> Iterator[Placed]:
        """Passages of a file of records."""
        for where, record in records_of([path], {*DOC_ID, *DOC_TEXT, "title"}):
            column = column_of(list(record), DOC_ID)
            line = where.rpartition(":")[2]
            own = text_field(record, list(record)[column], where) if column is not None else line
            text = text_field(record, field_of(record, DOC_TEXT, where), where)
            pieces = [piece for _, piece in split(text, self.passage_tokens)]
            if not pieces:
                left_out.setdefault("records left out, without text", []).append(f"{name}:{line}")
            title = title_field(record, where) or named(path)
            for n, piece in enumerate(pieces, 1):
                doc_id = f"{name}#{own}" if len(pieces) == 1 else f"{name}#{own}.{n}"
                yield where, Document(doc_id, title, piece)


@dataclass(frozen=True)
class FilesFound:
    """The files below a folder that are read, in the order of their names, and notes on others."""

    read: list[Path]
    notes: list[str]

    @classmethod
    def below(cls, folder: Path) -> FilesFound:
        """Look; `UserError` where no file is of a kind that is read.

        Links are not followed, so that nothing outside the folder is read and nothing twice.
        """
        if folder.is_file():
            if not folder.name.lower().endswith(TEXT_ENDINGS):
                raise UserError(f"{folder}: not one of {', '.join((*TEXT_ENDINGS, *ENDINGS))}")
            return cls([folder], [])
        read: list[Path] = []
        others: Counter[str] = Counter()
        hidden, links = [], []

        def fail(error: OSError) -> None:
            raise UserError(f"{error.filename}: cannot be read ({error.strerror})")

        for place, folders, files in os.walk(folder, onerror=fail):
            for name in sorted([*folders, *files]):
                path = Path(place) / name
                shown = path.relative_to(folder).as_posix()
                if name.startswith("."):
                    hidden.append(shown)
                elif path.is_symlink():
                    links.append(shown)
                elif name in folders:
                    continue
                elif path.is_file() and name.lower().endswith((*TEXT_ENDINGS, *ENDINGS)):
                    read.append(path)
                else:
                    others[path.suffix.lower() or name] += 1
            folders[:] = [
                name for name in folders
                if not name.startswith(".") and not (Path(place) / name).is_symlink()
            ]  # fmt: skip
        if not read:
            raise UserError(
                f"{folder}: no document in it; files of {', '.join((*TEXT_ENDINGS, *ENDINGS))} are "
                f"read"
            )
        notes = []
        if others:
            kinds = ", ".join(f"{kind} {n:,}" for kind, n in others.most_common(5))
            notes.append(f"files of kinds that are not read: {others.total():,} ({kinds})")
        if hidden:
            notes.append(counted("passed over, since their names begin with a dot", hidden))
        if links:
            notes.append(counted("links that are not followed", links))
        return cls(sorted(read, key=lambda path: path.relative_to(folder).as_posix()), notes)


def counted(what: str, names: list[str]) -> str:
    """A note that counts something, with the first of it."""
    return f"{what}: {len(names):,}, the first {names[0]}"


def as_they_are(paths: list[Path]) -> Iterator[Placed]:
    """Records of files as documents."""
    for where, record in records_of(paths, {*DOC_ID, *DOC_TEXT, "title"}):
        yield where, document_of(record, where)


def read_queries(path: Path) -> list[Query]:
    """Queries of JSON lines or Parquet, or of lines, each with an id by its text."""
    if path.name.endswith(ENDINGS):
        found = list(
            unique(
                lambda: ((w, query_of(record, w)) for w, record in records_of([path], QUERY)),
                lambda query: query.query_id,
            )
        )
    else:
        texts = dict.fromkeys(line.strip() for _, line in numbered_lines(path))
        found = [
            Query(f"q{hashlib.sha256(text.encode()).hexdigest()[:16]}", text) for text in texts
        ]
    if not found:
        raise UserError(f"{path}: empty, at least one query is needed")
    return found
