"""What people are asked about: pairs of a run, or what two systems order otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from zelo.annotation.desk import Desk
from zelo.annotation.lists import ListDesk, lists_of
from zelo.annotation.pairs import Ids, pairs_of
from zelo.annotation.two_systems import FirstOfPair, Ranks, pairs_between, ranks_in_table
from zelo.artifacts import Table, read_table
from zelo.data.beir import BeirFolder, files_of
from zelo.data.collection import load
from zelo.data.texts import Corpus, query_texts
from zelo.data.trec import encoded, read_run
from zelo.errors import UserError
from zelo.finished_run import MANIFEST, FinishedRun
from zelo.judging.ledger import Ledger
from zelo.progress import say
from zelo.store import Store


@dataclass(frozen=True)
class AnnotationSource:
    """A collection, the run that it belongs to where there is one, and the two `systems` that are
    held against each other where that is asked for: names of the run's results, or files of TREC
    runs."""

    place: Path
    data: Path
    home: Path
    run: FinishedRun | None
    systems: Sequence[str] = ()
    order: str | None = None  # what TREC runs are ordered by (see `read_run`)

    @classmethod
    def at(
        cls, place: Path, systems: Sequence[str], home: Path, order: str | None = None
    ) -> AnnotationSource:
        """That of a run folder, or of a collection in BEIR layout, which is loaded below `home`;
        `UserError` where `place` is neither."""
        if place.is_dir() and not (place / MANIFEST).is_file() and files_of(place, "corpus"):
            if not systems:
                raise UserError(
                    f"{place}: a collection alone has no pairs that judges compared: give a run "
                    f"folder, or between=A.trec,B.trec, two systems that searched it"
                )
            store = Store(home / "store", frozenset({"load"}), say)
            data = store.run(load, {}, {"source": BeirFolder(path=str(place))}).path
            return cls(place, data, home, None, systems, order)
        run = FinishedRun.at(place)
        home = Path(run.manifest["config"]["home"])
        return cls(run.folder, run.collection_folder(), home, run, systems, order)

    @contextmanager
    def desk(self, between: FirstOfPair | None = None) -> Iterator[Desk]:
        """The pairs, those `between` the two systems where they are known, with the ledger of the
        home."""
        if self.systems:
            pairs: Sequence[Ids] = list(self.between() if between is None else between)
        else:
            pairs = pairs_of(self.of_run())
        with Ledger(self.home / "ledger.sqlite") as ledger:
            yield Desk.of_collection(self.data, pairs, ledger)

    @contextmanager
    def desk_of_answers(self, given: Iterable[Ids] = ()) -> Iterator[Desk]:
        """The same, and of a run all other pairs of its documents that people have compared, or
        that are `given`."""
        with self.desk() as desk:
            if self.run is None:
                yield desk
                return
            rows = read_table(self.run.ratings_folder(), "ratings")
            candidates: dict[str, list[str]] = {}
            for query_id, doc_id in zip(
                *(rows[name].to_pylist() for name in ("query_id", "doc_id")), strict=True
            ):
                candidates.setdefault(query_id, []).append(doc_id)
            others = {doc_id for doc_ids in candidates.values() for doc_id in doc_ids}
            whole = Desk.of_all(self.data, desk.pairs, desk.ledger, others)
            yield whole.with_pairs_beyond(candidates, given)

    @contextmanager
    def list_desk(self, size: int) -> Iterator[ListDesk]:
        """Lists of at most `size` documents that have these pairs among theirs."""
        with self.desk() as desk:
            lists = lists_of(desk.pairs, size, desk.documents)
            pairs = [ids for one in lists for ids in one.pairs]
            yield ListDesk(Desk.of_all(self.data, [*dict.fromkeys(pairs)], desk.ledger), lists)

    def of_run(self) -> FinishedRun:
        """The run; `UserError` where there is none."""
        if self.run is None:
            raise UserError(f"{self.place}: a collection, where a run folder is needed")
        return self.run

    @cached_property
    def rankings(self) -> Table | None:
        """Those of the run's evaluation; None without a run."""
        return self.run and read_table(self.run.last("evaluate"), "rankings")

    def between(self) -> FirstOfPair:
        """What the two systems order otherwise."""
        one, other = (self.ranks(system) for system in self.systems)
        both = one.keys() & other.keys()
        if not both:
            raise UserError(f"{' and '.join(self.systems)}: have no query in common")
        if left_out := len(one.keys() | other.keys()) - len(both):
            say(f"! {left_out:,} queries are left out, which one of the two lacks")
        return pairs_between(one, other)

    def ranks(self, system: str) -> Ranks:
        """Query → document → rank by one system."""
        path = Path(system).expanduser()
        if not path.is_file():
            return ranks_in_table(self.rankings, system)
        ranked = read_run(path, self.order)
        # Ids in runs have their white space encoded
        queries = {encoded(query_id): query_id for query_id in query_texts(self.data)}
        documents = {encoded(doc_id): doc_id for doc_id in Corpus.at(self.data).ids.to_pylist()}
        found: dict[str, dict[str, int]] = {}
        for query_id, row in ranked.items():
            if query_id not in queries:
                raise UserError(f"{path}: query {query_id!r} is not in the collection")
            if missing := [doc_id for doc_id, _ in row if doc_id not in documents]:
                raise UserError(
                    f"{path}: query {query_id!r}: document {missing[0]!r} is not in the collection"
                )
            found[queries[query_id]] = {
                documents[doc_id]: rank for rank, (doc_id, _) in enumerate(row, 1)
            }
        return found
