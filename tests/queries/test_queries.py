"""The stage: what is written, what stays of it, and what others read of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import append, write_beir

from zelo.artifacts import read_table, table, write_table
from zelo.data.beir import BeirFolder
from zelo.data.collection import hash_share, load
from zelo.data.texts import (
    document_texts,
    neighbourhoods_of_written,
    query_instructions,
    query_texts,
    sources_of_written,
)
from zelo.errors import UserError
from zelo.queries.extractive import KINDS, Extractive
from zelo.queries.filters import Filters
from zelo.queries.queries import QueryWriting, queries
from zelo.retrieval.bm25 import BM25
from zelo.retrieval.ranking import candidates_from
from zelo.retrieval.retrieve import retrieve
from zelo.training.loader import ResumableLoader, steps_of
from zelo.training.objectives import InfoNCE
from zelo.training.rated_queries import RatedDataset, RatedQuery, grouped
from zelo.training.thurstone_data_module import ThurstoneDataModule

SUBJECTS = {
    "valve": "The {0} valve opens when pressure in the boiler rises above {1} bar. A spring of "
    "hardened steel holds the valve shut, and the engineer may adjust its tension. Tests showed "
    "that {0} valves last twice as long as older valves with leather seals.",
    "owl": "The {0} owl hunts small mammals at night over open fields near {1}. Its feathers are "
    "fringed, which makes its flight silent. Observers counted {0} owls during nine winters and "
    "found that mild winters raise the number of chicks.",
    "sonnet": "The {0} sonnet was printed in {1} by an unknown publisher. Its couplet turns the "
    "argument round, as critics have noted. Scholars now agree that the {0} sonnet was written "
    "for a patron who never paid.",
}
WORDS = [
    "copper",
    "barred",
    "silver",
    "spotted",
    "hollow",
    "tawny",
    "bronze",
    "painted",
    "tall",
    "old",
]


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Thirty documents and one query, loaded."""
    documents = {
        f"{kind}-{word}": text.format(word, n + 3)
        for kind, text in SUBJECTS.items()
        for n, word in enumerate(WORDS)
    }
    asked = {"mine": "how is a valve kept shut"}
    folder = write_beir(tmp_path / "collection", documents, asked, {})
    (tmp_path / "load").mkdir()
    load(out=tmp_path / "load", source=BeirFolder(path=str(folder)))
    return tmp_path / "load"


def writing(**options: object) -> QueryWriting:
    return QueryWriting(**{"writer": Extractive(), "filters": Filters(), **options})


def write(out: Path, data: Path, **options: object) -> dict[str, str]:
    """Text → document of the queries that were kept."""
    out.mkdir()
    queries(out=out, data=data, writing=writing(**options), retriever=BM25(), seed=0)
    sources = sources_of_written(out)
    return {text: sources[i] for i, text in query_texts(out, "train").items() if i in sources}


def test_queries_are_of_their_documents_and_of_every_kind(collection: Path, tmp_path: Path) -> None:
    found = write(tmp_path / "out", collection, number=30)
    assert len(found) == 30
    documents = document_texts(collection)
    for text, doc_id in found.items():
        assert len(text.split()) <= 16
        of_document = documents[doc_id].lower()
        assert all(word.strip(".,").lower() in of_document for word in text.split())
    rows = read_table(tmp_path / "out", "written").to_pylist()
    assert {row["kind"] for row in rows} == set(KINDS)
    assert {row["writer"] for row in rows} == {"Extractive"}
    lines = (tmp_path / "out" / "written.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == rows
    assert len({doc_id.partition("-")[0] for doc_id in list(found.values())[:9]}) == 3
    assert query_texts(tmp_path / "out")["mine"] == "how is a valve kept shut"
    other, same = tmp_path / "out" / "documents.parquet", collection / "documents.parquet"
    assert other.stat().st_ino == same.stat().st_ino
    for name in ("documents", "qrels"):
        assert read_table(tmp_path / "out", name).equals(read_table(collection, name))


@pytest.mark.parametrize("judged", [True, False])
def test_a_query_s_source_is_its_candidate_or_left_out(
    judged: bool, collection: Path, tmp_path: Path
) -> None:
    write(tmp_path / "out", collection, source_is_candidate=judged)
    (tmp_path / "found").mkdir()
    retrieve(out=tmp_path / "found", data=tmp_path / "out", retriever=BM25(), top_k=30)
    candidates = candidates_from(read_table(tmp_path / "found", "candidates"))
    sources = sources_of_written(tmp_path / "out")
    assert {query_id for query_id, doc_id in sources.items() if doc_id in candidates[query_id]} == (
        set(sources) if judged else set()
    )
    assert all(candidates[query_id] for query_id in sources)


def test_queries_of_a_neighbourhood_have_its_documents_as_candidates(
    collection: Path, tmp_path: Path, rated: Callable[[Path, list[str]], Path]
) -> None:
    write(tmp_path / "out", collection, source_is_candidate=False, neighbourhood=8)
    near = read_table(tmp_path / "out", "neighbourhoods").to_pylist()
    documents: dict[int, set[str]] = {}
    for row in near:
        documents.setdefault(row["neighbourhood"], set()).add(row["doc_id"])
    assert sorted(map(len, documents.values())) == [7, 7, 8, 8]  # thirty documents
    (tmp_path / "found").mkdir()
    retrieve(out=tmp_path / "found", data=tmp_path / "out", retriever=BM25(), top_k=5)
    candidates = candidates_from(read_table(tmp_path / "found", "candidates"))
    sources = sources_of_written(tmp_path / "out")
    number = neighbourhoods_of_written(tmp_path / "out")
    for query_id, n in number.items():
        assert set(candidates[query_id]) == documents[n] - {sources[query_id]}
    without = set(candidates) - set(number)
    assert "mine" in without
    assert all(len(candidates[query_id]) <= 5 for query_id in without)
    for one, after in pairwise(read_table(tmp_path / "found", "candidates").to_pylist()):
        assert one["query_id"] != after["query_id"] or one["score"] >= after["score"]

    # Those without are the ones that validate; of the others each step's are of one neighbourhood.
    ids = list(query_texts(tmp_path / "out", "train"))
    data = RatedDataset.read(tmp_path / "out", rated(tmp_path, ids), validation_fraction=None)
    assert {one.query_id for one in data.validation} - {"mine"} == without - {"mine"}
    groups = [one.group for one in data.train]
    loader = ResumableLoader(
        data.train, 6, 0, lambda items, *_: [one.group for one in items], None, groups
    )
    batches = list(loader)
    assert len(batches) == loader.steps == steps_of(groups, 6)
    assert all(len(set(batch)) == 1 for batch in batches)
    assert sorted(group for batch in batches for group in batch) == sorted(groups)
    assert list(loader) != batches
    every = RatedDataset.read(tmp_path / "out", tmp_path, validation_fraction=0.0).train
    assert {one.query_id: one.group for one in every}.items() >= number.items()


@pytest.mark.parametrize(
    ("own", "groups"),
    [([3, 3, 3, 8, 9, 2], [-1, -1, -2, -3, -4, -5]), ([9, 1], [-1, -2]), ([4, 4], [-1, -1])],
)
def test_a_step_of_other_queries_reads_no_more_than_one_of_a_neighbourhood(
    own: list[int], groups: list[int]
) -> None:
    """A query with more documents than that makes a step of its own."""
    near = [RatedQuery(f"w{n}", ["d"] * size, [0.0] * size) for n, size in enumerate([8, 7])]
    others = [RatedQuery(f"q{n}", ["d"] * size, [0.0] * size) for n, size in enumerate(own)]
    found = grouped([near[0], *others, near[1]], {"w0": 0, "w1": 3})
    assert [one.query_id for one in found] == ["w0", *(q.query_id for q in others), "w1"]
    assert [one.group for one in found] == [0, *groups, 3]


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_as_many_queries_are_of_no_neighbourhood_as_will_validate(
    collection: Path,
    tmp_path: Path,
    rated: Callable[[Path, list[str]], Path],
    share: float,
) -> None:
    (tmp_path / "out").mkdir()
    near = writing(neighbourhood=8)
    queries(out=tmp_path / "out", data=collection, writing=near, retriever=BM25(), seed=0,
            validation_fraction=share)  # fmt: skip
    number = neighbourhoods_of_written(tmp_path / "out")
    ids = list(query_texts(tmp_path / "out", "train"))
    data = RatedDataset.read(tmp_path / "out", rated(tmp_path, ids), validation_fraction=share)
    assert {one.query_id for one in data.train} - {"mine"} == set(number)
    assert bool(data.validation) == bool(share)


def test_a_source_may_be_the_positive_of_a_contrastive_baseline(
    collection: Path,
    tmp_path: Path,
    tiny_model: Path,
    rated: Callable[..., Path],
) -> None:
    """It is nowhere among the rated documents, and drawn in every epoch all the same."""
    write(tmp_path / "out", collection, number=20)
    sources, texts = sources_of_written(tmp_path / "out"), query_texts(tmp_path / "out", "train")
    others = ["valve-tall", "owl-old", "sonnet-barred"]
    ratings = rated(tmp_path, list(texts), others)
    objective = InfoNCE(positives="source")
    assert objective.source_is_positive
    assert not InfoNCE().source_is_positive
    data = ThurstoneDataModule(
        tmp_path / "out", ratings, tiny_model, architecture="bi_encoder",
        batch_size=4, docs_per_query=2, validation_fraction=0.3, cache_dir=tmp_path / "tokens",
        source_is_positive=objective.source_is_positive,
    )  # fmt: skip
    data.prepare_data()
    data.setup()
    for one in data.dataset.train:
        if one.query_id in sources:
            assert one.doc_ids[np.argmax(one.targets)] == sources[one.query_id]
        else:
            assert one.positive is None
    assert all(one.positive is None for one in data.dataset.validation)
    known = [one for one in data.dataset.train if one.positive is not None]
    assert known
    rng = np.random.default_rng(0)
    for _ in range(5):
        batch = data.collate(known[:4], rng)
        best = [max(one.targets) for one in known[:4]]
        assert batch.target.shape == (4, 2)
        np.testing.assert_allclose(batch.target.max(1).values, best, rtol=1e-6)


def test_the_same_is_written_whatever_else_there_is(collection: Path, tmp_path: Path) -> None:
    """Every document draws from a stream of its own: only weights of words change by a new one."""
    assert write(tmp_path / "a", collection) == write(tmp_path / "b", collection)
    few = Filters(round_trip=None, most_matches=None, near_duplicates=None)
    all_of_them = write(tmp_path / "c", collection, filters=few)
    append(
        tmp_path / "collection" / "corpus.jsonl", json.dumps({"_id": "new", "text": "Unlike all."})
    )
    (tmp_path / "again").mkdir()
    load(out=tmp_path / "again", source=BeirFolder(path=str(tmp_path / "collection")))
    after = write(tmp_path / "d", tmp_path / "again", filters=few)
    assert len(after.items() & all_of_them.items()) > 0.9 * len(all_of_them)


def test_what_was_dropped_is_said_with_its_filter(collection: Path, tmp_path: Path) -> None:
    strict = Filters(longest_copy=3, near_duplicates=0.5, most_matches=5, round_trip=1)
    (tmp_path / "out").mkdir()
    counts = queries(
        out=tmp_path / "out", data=collection, writing=writing(filters=strict), retriever=BM25(),
        seed=0, instruction="Prefer what is old.",
    )  # fmt: skip
    assert {"copy", "generic", "not found", "duplicate"} >= counts["left_out"].keys() > {"copy"}
    told = query_instructions(tmp_path / "out")
    assert set(told) == set(sources_of_written(tmp_path / "out"))  # and not the one that was given
    assert counts["drafts"] == counts["written"] + sum(counts["left_out"].values())
    with pytest.raises(UserError, match=r"queries: none could be written from 30 documents \(copy"):
        nothing_left(collection, tmp_path)


@pytest.mark.parametrize(
    ("own", "written"),
    [(["Statutes."] * 3, "Statutes."), (["Statutes.", "Cases.", None], None), ([None] * 3, None)],
)
def test_written_queries_have_the_instruction_that_all_others_have(
    own: list[str | None], written: str | None, collection: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    asked = [
        {"_id": f"own{n}", "text": f"own query {n}", **({"instruction": told} if told else {})}
        for n, told in enumerate(own)
    ]
    lines = "".join(json.dumps(one) + "\n" for one in asked)
    (tmp_path / "collection" / "queries.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "again").mkdir()
    load(out=tmp_path / "again", source=BeirFolder(path=str(tmp_path / "collection")))
    write(tmp_path / "out", tmp_path / "again")
    told = query_instructions(tmp_path / "out")
    assert {told.get(i) for i in sources_of_written(tmp_path / "out")} == {written}
    assert ("do not all have the same instruction" in capsys.readouterr().err) == (
        len(set(own)) > 1
    )


def nothing_left(collection: Path, tmp_path: Path) -> None:
    """Of a collection without a query, by a filter that drops all."""
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in collection.glob("*.parquet"):
        (bare / path.name).write_bytes(path.read_bytes())
    rows = read_table(collection, "queries").slice(0, 0)
    write_table(bare, "queries", rows)
    none = Filters(longest_copy=1)
    write(tmp_path / "none", bare, filters=none)


def test_a_document_s_queries_are_held_out_together(
    collection: Path, tmp_path: Path, rated: Callable[[Path, list[str]], Path]
) -> None:
    found = write(tmp_path / "out", collection)
    ids = list(query_texts(tmp_path / "out", "train"))
    data = RatedDataset.read(tmp_path / "out", rated(tmp_path, ids), validation_fraction=0.4)
    sources = sources_of_written(tmp_path / "out")
    assert len(set(sources.values())) < len(sources) == len(found)
    held_out = {sources.get(one.query_id, "") for one in data.validation}
    assert held_out
    assert held_out.isdisjoint({sources.get(one.query_id, "") for one in data.train})
    own = hash_share(query_texts(tmp_path / "out")["mine"]) < 0.4  # by its text, as before
    assert ("mine" in {one.query_id for one in data.validation}) == own


@pytest.fixture
def rated() -> Callable[..., Path]:
    def write_ratings(folder: Path, ids: list[str], docs: Sequence[str] = ("a", "b")) -> Path:
        pairs = [(query_id, doc_id) for query_id in ids for doc_id in docs]
        write_table(
            folder, "ratings",
            table("ratings", query_id=[q for q, _ in pairs], doc_id=[d for _, d in pairs],
                  elo=[0.0] * len(pairs), stderr=[1.0] * len(pairs), target=[0.0] * len(pairs)),
        )  # fmt: skip
        return folder

    return write_ratings


@pytest.mark.parametrize(
    ("given", "most", "fewer_than", "written"),
    [(0, None, 200, 1000), (199, None, 200, 1000), (200, None, 200, 0), (12, 12, 200, 0),
     (0, 8, 200, 8), (500, None, None, 1000), (500, 600, None, 100)],
)  # fmt: skip
def test_when_queries_are_written(
    given: int, most: int | None, fewer_than: int | None, written: int
) -> None:
    found = writing(fewer_than=fewer_than).beside(given, most)
    assert (found.number if found else 0) == written
