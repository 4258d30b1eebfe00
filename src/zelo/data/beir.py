"""A folder in BEIR layout: `corpus.jsonl`, `queries.jsonl`, `qrels/{train,dev,test}.tsv`.

Layout: https://github.com/beir-cellar/beir/wiki/Load-your-custom-dataset. Queries without labels
are what the method is for, so a query that no qrels file names is a training query.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from zelo.artifacts import table
from zelo.config import Component, option
from zelo.data.collection import SPLITS, Collection
from zelo.errors import UserError
from zelo.store import digest, digest_files

HEADER = ["query-id", "corpus-id", "score"]
MAX_GRADE = 2**31 - 1  # what the schema of labels holds


class BeirFolder(Component):
    """`data=beir data.path=FOLDER`: a collection of one's own."""

    path: str = option(
        help="folder that holds corpus.jsonl, queries.jsonl and qrels/", exclude=True
    )
    name: str | None = option(None, "what the collection is called in reports; default: the folder")
    train_queries: int | None = option(None, "use only so many training queries", ge=1)
    train_share: float = option(
        0.0,
        "share of the test queries, chosen by a hash of their id, to train on instead",
        ge=0,
        lt=1,
    )

    @property
    def folder(self) -> Path:
        """The folder, `~` expanded."""
        return Path(self.path).expanduser()

    def files(self) -> list[Path]:
        """Every file that is read; `UserError` where a required one is missing."""
        qrels = [self.folder / "qrels" / f"{split}.tsv" for split in SPLITS]
        required = [self.folder / "corpus.jsonl", self.folder / "queries.jsonl"]
        for path in required:
            if not path.is_file():
                raise UserError(
                    f"{path}: not found; data.path={self.path} must be a folder in BEIR layout "
                    f"(corpus.jsonl, queries.jsonl, qrels/test.tsv)"
                )
        return required + [path for path in qrels if path.is_file()]

    def fingerprint(self) -> str:
        """Digest of the names and the content of every file that is read."""
        return digest([[path.name, digest_files([path])] for path in self.files()])

    def load(self) -> Collection:
        """Read the folder; `UserError` names file and line of what is malformed."""
        corpus, queries, *qrels = self.files()
        documents = list(read_records(corpus, optional=("title",)))
        asked = list(read_records(queries))
        for path, records in ((corpus, documents), (queries, asked)):
            if not records:
                raise UserError(f"{path}: empty, at least one record is needed")
        doc_ids = {record["_id"] for record in documents}
        query_ids = {record["_id"] for record in asked}
        labels: dict[tuple[str, str], int] = {}
        split_of: dict[str, str] = {}
        for path in qrels:
            for query_id, doc_id, relevance in read_qrels(path, query_ids, doc_ids):
                if (query_id, doc_id) in labels:
                    raise UserError(
                        f"{path}: query {query_id!r} and document {doc_id!r} are labelled twice"
                    )
                labels[query_id, doc_id] = relevance
                if split_of.setdefault(query_id, path.stem) != path.stem:
                    raise UserError(
                        f"{path}: query {query_id!r} is also in qrels/{split_of[query_id]}.tsv; "
                        f"a query may belong to one split only, or it would be tested on after "
                        f"training"
                    )
        kept = []
        trained = 0
        for record in asked:
            split = split_of.get(record["_id"], "train")
            if split == "test" and hash_share(record["_id"]) < self.train_share:
                split = "train"
            trained += split == "train"
            if split != "train" or self.train_queries is None or trained <= self.train_queries:
                kept.append((record["_id"], record["text"], split))
        kept_ids = {query_id for query_id, _, _ in kept}
        labels = {key: value for key, value in labels.items() if key[0] in kept_ids}
        return Collection(
            name=self.name or self.folder.resolve().name,
            documents=table(
                "documents",
                doc_id=[record["_id"] for record in documents],
                title=[record.get("title") or "" for record in documents],
                text=[record["text"] for record in documents],
            ),
            queries=table(
                "queries",
                query_id=[query_id for query_id, _, _ in kept],
                text=[text for _, text, _ in kept],
                split=[split for _, _, split in kept],
            ),
            qrels=table(
                "qrels",
                query_id=[query_id for query_id, _ in labels],
                doc_id=[doc_id for _, doc_id in labels],
                relevance=list(labels.values()),
            ),
        )


def read_records(path: Path, optional: tuple[str, ...] = ()) -> Iterator[dict[str, str]]:
    """Records of a JSON-lines file with string fields `_id`, `text` and `optional`; ids unique."""
    seen: dict[str, int] = {}
    for number, line in numbered_lines(path):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}:{number}: not JSON ({error})") from None
        if not isinstance(record, dict):
            raise UserError(f"{path}:{number}: expected an object, found {type(record).__name__}")
        for field in ("_id", "text"):
            if not isinstance(record.get(field), str):
                found = repr(record[field]) if field in record else "nothing"
                raise UserError(f"{path}:{number}: field {field!r} must be a string, found {found}")
        for field in optional:
            if not isinstance(record.get(field) or "", str):
                raise UserError(f"{path}:{number}: field {field!r} must be a string")
        for field in ("_id", "text", *optional):
            try:
                (record.get(field) or "").encode()
            except UnicodeEncodeError:
                raise UserError(
                    f"{path}:{number}: field {field!r} holds half a character (a lone surrogate)"
                ) from None
        if record["_id"] in seen:
            raise UserError(
                f"{path}:{number}: id {record['_id']!r} was used before, on line "
                f"{seen[record['_id']]}"
            )
        seen[record["_id"]] = number
        yield record


def read_qrels(
    path: Path, query_ids: set[str], doc_ids: set[str]
) -> Iterator[tuple[str, str, int]]:
    """Rows of a BEIR qrels file: query id, document id, relevance."""
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
        try:
            grade = int(relevance)
        except ValueError:
            raise UserError(
                f"{path}:{number}: score must be a whole number, found {relevance!r}"
            ) from None
        if abs(grade) > MAX_GRADE:
            raise UserError(f"{path}:{number}: score {grade} is out of range")
        if query_id not in query_ids:
            raise UserError(f"{path}:{number}: query {query_id!r} is not in queries.jsonl")
        if doc_id not in doc_ids:
            raise UserError(f"{path}:{number}: document {doc_id!r} is not in corpus.jsonl")
        yield query_id, doc_id, grade


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a UTF-8 file that are not blank, counted from 1, without their line ends."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise UserError(f"{path}:{number}: not UTF-8 ({error.reason})") from None
            if line.strip():
                yield number, line


def hash_share(query_id: str) -> float:
    """Place of an id in [0, 1), the same on every machine."""
    return int.from_bytes(hashlib.sha256(query_id.encode()).digest()[:8], "big") / 2**64
