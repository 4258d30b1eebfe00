"""Public collections by name: Hugging Face `datasets` in BEIR or MTEB layout, and `ir_datasets`.

Both packages come with the extra `data`; each keeps its downloads in a cache of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import field_validator

from zelo.config import option
from zelo.data.collection import SPLITS, Collection, Document, Label, LabelledSource
from zelo.data.lines import title_field
from zelo.data.records import document_of, grade, label_of, query_of, split_named
from zelo.errors import UserError, in_words
from zelo.store import digest, digest_files

NEEDED = "pip install 'zelo[data]'"


class HubDataset(LabelledSource):
    """`data=hub data.path=mteb/scifact`: subsets `corpus` and `queries`, and one of labels."""

    path: str = option(help="name on the hub, or a folder that was downloaded from there")
    revision: str = option("main", "branch, tag or commit on the hub; a commit never changes")
    corpus: str = option("corpus", "subset of documents: _id, title, text")
    queries: str = option("queries", "subset of queries: _id, text")
    qrels: str = option("default", "subset of labels: query-id, corpus-id, score")
    qrels_path: str | None = option(
        None, "where labels are, if elsewhere (BeIR/scifact-qrels); null: beside the rest"
    )
    qrels_revision: str = option("main", "branch, tag or commit of `qrels_path`")
    split: str | None = option(
        None,
        "the one split that all three subsets have, tested on (NanoSciFact of NanoBEIR); null: "
        "splits of the labels are train, dev or validation, test",
    )

    def fingerprint(self) -> str:
        """Digest of the files of local folders, and of names and revisions on the hub."""
        places = ((self.path, self.revision), (self.qrels_path, self.qrels_revision))
        return digest([identity(path, revision) for path, revision in places if path])

    def load(self) -> Collection:
        """Download or open the subsets; `UserError` where one cannot be read or lacks a split."""
        corpus = self._subset(self.path, self.corpus, self.revision)
        queries = self._subset(self.path, self.queries, self.revision)
        qrels = (
            self._subset(self.qrels_path, self.qrels, self.qrels_revision)
            if self.qrels_path
            else self._subset(self.path, self.qrels, self.revision)
        )
        if self.split is not None and self.split not in qrels:
            raise UserError(f"data.split={self.split}: labels have {', '.join(qrels)}")
        name_of = {
            split: split_named(split) if self.split is None else "test"
            for split in qrels
            if self.split in (None, split)
        }
        known = {split: name for split, name in name_of.items() if name is not None}
        others = sorted(set(name_of) - set(known))
        if not known:
            raise UserError(
                f"{self.path}: the labels' split {min(name_of)!r} is none of {', '.join(SPLITS)}; "
                f"name it by data.split={min(name_of)}"
            )
        if len(set(known.values())) < len(known):
            raise UserError(
                f"{self.path}: of the labels' splits {', '.join(known)} two are the same; name "
                f"the one to test on by data.split"
            )
        labels = {
            name: self._labels(qrels[split], f"{self.path}/{self.qrels}/{split}")
            for split, name in known.items()
        }
        found = [query_of(row, where) for row, where in self._rows(queries, self.queries)]
        sources = (f"{self.path}/{self.corpus}", f"{self.path}/{self.queries}")
        return self.collection(
            Path(self.path).name,
            (document_of(row, where) for row, where in self._rows(corpus, self.corpus)),
            found,
            labels,
            sources,
            [f"the labels' split {split} is not read" for split in others],
        )

    def _subset(self, path: str, subset: str, revision: str) -> Any:
        """All splits of a subset."""
        try:
            import datasets
        except ImportError:
            raise UserError(f"data=hub: package datasets is missing; {NEEDED}") from None
        datasets.disable_progress_bars()
        at = {} if Path(path).expanduser().is_dir() else {"revision": revision}
        try:
            return datasets.load_dataset(str(Path(path).expanduser()), subset, **at)
        except Exception as error:  # of any class: the package passes on those of others
            raise UserError(
                f"data.path={path}: subset {subset!r} cannot be loaded ({in_words(error)})"
            ) from None

    def _rows(self, splits: Any, subset: str) -> Iterator[tuple[dict[str, Any], str]]:
        chosen = [self.split] if self.split in splits else list(splits)
        for split in chosen:
            for number, row in enumerate(splits[split]):
                yield row, f"{self.path}/{subset}/{split}: row {number}"

    @staticmethod
    def _labels(rows: Any, what: str) -> Iterator[Label]:
        for number, row in enumerate(rows):
            yield label_of(row, f"{what}: row {number}")


def identity(path: str, revision: str) -> str:
    """Digest of a local folder's files and their names or, on the hub, of name and revision."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return digest([path, revision])
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return digest([[str(path.relative_to(folder)) for path in files], digest_files(files)])


class IrDataset(LabelledSource):
    """`data=ir_datasets 'data.ids={train: beir/scifact/train, test: beir/scifact/test}'`."""

    ids: dict[str, str] = option(
        help="ir_datasets id of each split; documents are those of the last", min_length=1
    )

    @field_validator("ids")
    @classmethod
    def _splits(cls, ids: dict[str, str]) -> dict[str, str]:
        if unknown := set(ids) - set(SPLITS):
            raise ValueError(f"{min(unknown)} is no split; there are {', '.join(SPLITS)}")
        return ids

    def fingerprint(self) -> str:
        """Digest of the ids and of the package's version, which decides what they stand for."""
        try:
            return digest([list(self.ids.items()), metadata.version("ir_datasets")])
        except metadata.PackageNotFoundError:
            raise UserError(f"data=ir_datasets: the package is missing; {NEEDED}") from None

    def load(self) -> Collection:
        """Download what is not there yet, and read it."""
        self.fingerprint()
        import ir_datasets

        found = {}
        for split, name in self.ids.items():
            try:
                found[split] = ir_datasets.load(name)
            except KeyError:
                raise UserError(f"data.ids.{split}={name}: ir_datasets has no such id") from None
        last = list(self.ids.values())[-1]
        queries = {
            query.query_id: query.default_text()
            for dataset in found.values()
            for query in dataset.queries_iter()
        }
        return self.collection(
            last.replace("/", "-"),
            (
                Document(
                    doc.doc_id,
                    title_field({"title": getattr(doc, "title", None)}, f"{last}: {doc.doc_id}"),
                    ir_text(doc),
                )
                for doc in found[list(found)[-1]].docs_iter()
            ),
            list(queries.items()),
            {
                split: (
                    Label(row.query_id, row.doc_id, grade(row.relevance, where), where)
                    for where in [f"{self.ids[split]}: qrels"]
                    for row in dataset.qrels_iter()
                )
                for split, dataset in found.items()
                if dataset.has_qrels()
            },
            (f"the documents of {last}", f"the queries of {', '.join(self.ids.values())}"),
        )


def ir_text(doc: Any) -> str:
    """Text of a document without its title, which is read as a field of its own."""
    return str(doc.text if hasattr(doc, "text") else doc.default_text())
