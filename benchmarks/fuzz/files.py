"""Readers of files: a result or one line that names the file, and no record lost."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.fuzz.inputs import FOLDER, Broken, T, expect
from zelo.data.beir import BeirFolder
from zelo.data.collection import Collection, validate
from zelo.data.columns import Columns, is_column
from zelo.data.lines import numbered_lines, plain, title_field
from zelo.data.log import Log
from zelo.data.records import DOC_ID, DOC_TEXT, QUERY_ID, QUERY_TEXT
from zelo.data.texts import Corpus
from zelo.data.trec import TrecFiles, encoded, read_run, single, write_run
from zelo.data.zbench import import_zbench
from zelo.errors import UserError
from zelo.evaluation.compare_runs import read_grades
from zelo.judging.question import Question
from zelo.judging.recorded import Recorded
from zelo.models.rerank_file import documents_of, is_cross_encoder
from zelo.rating.rate import Rating
from zelo.rating.rate_file import RateFile
from zelo.retrieval.run_file import RunFile


def saved(name: str, content: bytes) -> Path:
    """A file of the folder in memory."""
    path = FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def read(what: Callable[[], T], *paths: Path) -> T | None:
    """What a reader returns; None where it refused in one line that names one of the files."""
    try:
        return what()
    except UserError as error:
        said = str(error)
        if "\n" in said or "\r" in said:
            raise Broken(f"the message has two lines: {said!r}") from error
        if not any(path.name in said for path in paths):
            raise Broken(f"the message names no file: {said!r}") from error
        return None


def lines(content: bytes) -> list[str]:
    """Lines that are not blank."""
    whole = content.decode("utf-8-sig").split("\n")
    return [line for line in (part.rstrip("\r") for part in whole) if line.strip()]


def objects(content: bytes) -> list[dict[str, Any]] | None:
    """The objects of JSON lines; None where they do not stand in a line each, or repeat a key."""
    try:
        rows = [json.loads(line, object_pairs_hook=list) for line in lines(content)]
    except (ValueError, RecursionError):
        return None
    return [dict(row) for row in rows] if all(len(dict(row)) == len(row) for row in rows) else None


def loaded(source: Any) -> tuple[Collection, list[dict[str, str]]]:
    """A collection and its documents, validated as the stage `load` does."""
    collection: Collection = source.load()
    documents = pa.concat_tables(collection.documents)
    validate(collection, documents["doc_id"])
    return collection, documents.to_pylist()


def told(record: dict[str, Any], names: tuple[str, ...]) -> str:
    """What a record has under the first of several names."""
    fields = {plain(name): value for name, value in reversed(record.items())}
    return str(next(fields[name] for name in names if name in fields))


def labels_in(content: bytes, separators: tuple[str | None, ...]) -> list[list[str]]:
    """Fields of rows of labels below a first line that names them, which has no number."""
    rows = lines(content)
    if not rows:
        return []
    split = next(s for s in separators if len(rows[0].split(s)) in (3, 4))
    first = rows[0].split(split)
    named = not any(map(str.isdigit, rows[0])) and not is_number(first[-1])
    fields = [row.split(split) for row in rows[named:]]
    return [[row[0], row[-2], row[-1]] for row in fields]


def is_number(text: str) -> bool:
    """Whether a text is a number."""
    try:
        return not np.isnan(float(text))
    except ValueError:
        return False


def check_beir(example: tuple[bytes, bytes, bytes, bool]) -> None:
    """Every document, query and label of the three files is there, as it stands, but labels of
    queries that are not there, which are counted."""
    *files, packed = example
    places = ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv")
    shutil.rmtree(FOLDER / "beir", ignore_errors=True)
    paths = [
        saved(f"beir/{name}{'.gz' * packed}", gzip.compress(file, 1) if packed else file)
        for name, file in zip(places, files, strict=True)
    ]
    found = read(lambda: loaded(BeirFolder(path=str(FOLDER / "beir"))), *paths)
    if found is None:
        return
    collection, documents = found
    corpus, queries = ([json.loads(line) for line in lines(file)] for file in files[:2])
    wanted = [
        {"doc_id": told(d, DOC_ID), "title": title_field(d, ""), "text": told(d, DOC_TEXT)}
        for d in corpus
    ]
    expect(documents == wanted, "documents are not the file's", documents, wanted)
    asked = dict(
        zip(*(collection.queries[c].to_pylist() for c in ("query_id", "text")), strict=True)
    )
    given = {told(q, QUERY_ID): told(q, QUERY_TEXT) for q in queries}
    expect(asked == given, "queries are not the file's", asked)
    rows = [(q, d, int(float(g))) for q, d, g in labels_in(files[2], ("\t", None))]
    labels = [tuple(row.values()) for row in collection.qrels.to_pylist()]
    expect(labels == [row for row in rows if row[0] in asked], "labels are not the file's", labels)
    expect(collection.labels_left_out == len(rows) - len(labels), "labels left out", labels)


def check_trec(example: tuple[tuple[str, bytes], bytes, bytes]) -> None:
    """As many documents, topics and labels as the files have; fields as they stand."""
    (ending, documents), topics, qrels = example
    paths = saved(f"d.{ending}", documents), saved("topics.txt", topics), saved("t.qrels", qrels)
    source = TrecFiles(documents=str(paths[0]), topics=str(paths[1]), qrels={"test": str(paths[2])})
    found = read(lambda: loaded(source), *paths)
    if found is None:
        return
    collection, rows = found
    count = len(lines(documents)) - (ending == "tsv" and names_columns(documents, DOC_ID, DOC_TEXT))
    expect(len(rows) == count, "documents were lost", len(rows))
    asked = lines(topics)
    if asked[0].lstrip().startswith("<"):
        begun = len(re.findall(r"<top(?:ic)?\b", "\n".join(asked), re.IGNORECASE))
        expect(len(collection.queries) == begun, "topics were lost", begun, len(collection.queries))
    else:
        count = len(asked) - names_columns(topics, QUERY_ID, QUERY_TEXT)
        expect(len(collection.queries) == count, "topics were lost", asked)
    count = len(labels_in(qrels, (None, "\t")))
    expect(len(collection.qrels) + collection.labels_left_out == count, "labels were lost", count)


def names_columns(content: bytes, *names: tuple[str, ...]) -> bool:
    """Whether a first line names its columns."""
    fields = [plain(field) for field in lines(content)[0].split("\t")]
    return all(set(fields) & set(of) for of in names)


def check_run(example: tuple[str, bytes]) -> None:
    """Rows are all there, in trec_eval's order, whatever the order of lines; and come back."""
    ending, content = example
    path = saved(f"candidates.{ending}", content)
    run = read(lambda: read_run(path), path)
    if run is None:
        return
    given = lines(content)
    if ending == "jsonl":
        ids = []
        for row in map(json.loads, given):
            if "candidates" not in row:
                ids += [row["query_id"], row["doc_id"]]
            for candidate in row.get("candidates", ()):
                ids += [row["query"]["qid"], candidate["docid"]]
        expect(all(type(i) in (str, int) for i in ids), "ids that are no text are taken", ids)
        rows = sum(len(row.get("candidates", [0])) for row in map(json.loads, given))
    else:
        rows = len(given)
    expect(sum(map(len, run.values())) == rows, "rows were lost", run)
    for ranked in run.values():
        keys = [(single(score), doc_id) for doc_id, score in ranked]
        expect(keys == sorted(keys, reverse=True), "not in trec_eval's order", keys)
    other = saved(f"r.{ending}", "\n".join(given[::-1]).encode())
    again = read(lambda: read_run(other), other)
    if ending == "jsonl" or len(given[0].split()) == 6:  # else the order tells ranks from scores
        expect(again == run, "depends on the order of lines", again, run)
    ids = sorted({doc_id for ranked in run.values() for doc_id, _ in ranked})
    queries = dict.fromkeys(run, "")
    hits = RunFile(path=path).search(queries, Corpus.of(dict.fromkeys(ids, "")), 3)["run"]
    back = hits.ranking(list(run), pa.array(ids, pa.string()))
    expect(back == {q: ranked[:3] for q, ranked in run.items()}, "hits are not the run's", back)
    write_run(FOLDER / "back.trec", run, "tag")
    order = {encoded(q): [encoded(d) for d, _ in ranked] for q, ranked in run.items() if ranked}
    written = {q: [d for d, _ in ranked] for q, ranked in read_run(FOLDER / "back.trec").items()}
    expect(written == order, "what is written is not what is read", written, order)


def check_grades(example: tuple[str, bytes]) -> None:
    """As many grades as there are lines, in BEIR's or TREC's columns."""
    content = example[1]
    path = saved("grades.qrels", content)
    found = read(lambda: read_grades(path), path)
    if found is not None:
        rows = labels_in(content, ("\t", None))
        expect(sum(map(len, found.values())) == len(rows), "grades were lost", found)


def check_columns(example: tuple[str, bytes]) -> None:
    """Every query and document text is there once."""
    ending, content = example
    path = saved(f"columns.{ending}", content)
    found = read(lambda: loaded(Columns(files={"train": str(path)})), path)
    if found is None:
        return
    collection, documents = found
    if ending == "tsv":
        rows = [line.split("\t") for line in lines(content)]
        if all(map(is_column, rows[0])):
            return
        asked, said = {row[0] for row in rows}, {text for row in rows for text in row[1:]}
    else:
        asked = set(collection.queries["text"].to_pylist())
        for row in map(json.loads, lines(content)):
            query = next(row[n] for n in ("query", "anchor", "question", "sentence1") if n in row)
            expect(str(query) in asked, "a query was lost", row)
        return
    expect({d["text"] for d in documents} == said, "documents were lost", documents, said)
    expect(set(collection.queries["text"].to_pylist()) == asked, "queries were lost", asked)


def check_zbench(example: tuple[bytes, bytes | None]) -> None:
    """The import is a collection that loads, with each document of each query and no NaN."""
    dataset, scored = example
    shutil.rmtree(FOLDER / "zbench", ignore_errors=True)
    paths = [saved("zbench/dataset.jsonl", dataset)]
    if scored is not None:
        paths.append(saved("zbench/ai_scores.json", scored))
    out = FOLDER / "imported"
    shutil.rmtree(out, ignore_errors=True)
    counts = read(lambda: import_zbench(FOLDER / "zbench", out), *paths)
    if counts is None:
        return
    given = [json.loads(line) for line in lines(dataset)]
    if not any(line["documents"] for line in given):
        return
    corpus = {d["doc_id"]: d["text"] for d in loaded(BeirFolder(path=str(out)))[1]}
    for line in given:
        for document in line["documents"]:
            ids = document["id"], f"{line['query']['id']}/{document['id']}"
            kept = [corpus[doc_id] for doc_id in ids if doc_id in corpus]
            expect(document["content"] in kept, "a document was lost", line["query"], document)
    if (out / "preferences.jsonl").is_file():
        content = (out / "preferences.jsonl").read_text(encoding="utf-8")
        expect("NaN" not in content, "a preference is not a number", content)
        Recorded(
            path=out / "preferences.jsonl", judge=None if scored is None else "openai"
        ).prepare(out, {}, 0)


def check_log(content: bytes) -> None:
    """Every result that was returned is a document with its text."""
    path = saved("log.jsonl", content)
    log = Log(path=path)
    found = read(lambda: loaded(log), path)
    if found is None:
        return
    collection, documents = found
    texts = {d["doc_id"]: (d["title"], d["text"]) for d in documents}
    logged = log.lines()
    expect(len(logged) == len(lines(content)) == len(collection.queries), "lines were lost")
    for line in logged:
        for doc in line.results:
            expect(texts.get(doc.doc_id) == doc[1:], "a result lost its text", doc, texts)


def check_recorded(example: tuple[str, bytes]) -> None:
    """Ids come back as they stand, answers are numbers in [−1, 1]."""
    ending, content = example
    path = saved(f"preferences.{ending}", content)
    prepared = read(lambda: Recorded(path=path).prepare(FOLDER, {}, 0), path)
    if prepared is None:
        return
    if ending == "jsonl" and (rows := objects(content)):
        wanted = {tuple(row[n] for n in ("query_id", "doc_a", "doc_b")) for row in rows}
        plain = all(isinstance(i, str) for ids in wanted for i in ids)
        what = "ids are changed" if plain else "ids that are no text are taken"
        expect(set(prepared.said) == wanted, what, prepared.said, wanted)
    asked = [Question(*key, 0, "", "", "") for key in prepared.said]
    for answer in prepared.answer(asked):
        expect(answer.score is None or -1 <= answer.score <= 1, "no score", answer)


def check_rate_file(example: tuple[str, bytes, Rating, str]) -> None:
    """Every query has a fit, and every document of an answered comparison a finite Elo."""
    ending, content, rating, vote = example
    path = saved(f"comparisons.{ending}", content)
    found = read(lambda: RateFile(file=path, rating=rating, vote=vote).run(), path)
    if found is None:
        return
    ratings = pq.read_table(found[0] / "ratings.parquet").to_pylist()
    fits = pq.read_table(found[0] / "fits.parquet").to_pylist()
    for row in ratings:
        expect(np.isfinite([row["elo"], row["stderr"], row["target"]]).all(), "not finite", row)
    if ending == "jsonl" and (rows := objects(content)):
        expect({f["query_id"] for f in fits} == {r["query_id"] for r in rows}, "queries lost", fits)
        answered = [r for r in rows if (r.get("p") if "p" in r else r.get("score")) is not None]
        wanted = {(r["query_id"], r[n]) for r in answered for n in ("doc_a", "doc_b")}
        expect({(r["query_id"], r["doc_id"]) for r in ratings} == wanted, "documents lost", ratings)


def check_rerank(content: bytes) -> None:
    """A document per line, with a text that can be encoded."""
    path = saved("documents.jsonl", content)
    found = read(lambda: list(documents_of(str(path))), path)
    if found is not None:
        expect(len(found) == len(lines(content)), "documents were lost", found)
        json.dumps(found, ensure_ascii=False).encode()


def check_lines(example: tuple[bytes, bool]) -> None:
    """Lines of any bytes, under a name of a gzipped file or not."""
    content, packed = example
    path = saved("bytes.gz" if packed else "bytes", content)
    found = read(lambda: list(numbered_lines(path)), path)
    if found is not None and not packed:
        expect([line for _, line in found] == lines(content), "lines are not the file's", found)


def check_model_folder(example: tuple[bytes, bytes | None]) -> None:
    """What kind of model a folder holds, or one line."""
    config, modules = example
    path = saved("model/config.json", config)
    other = FOLDER / "model" / "config_sentence_transformers.json"
    other.unlink(missing_ok=True)
    if modules is not None:
        saved("model/config_sentence_transformers.json", modules)
    read(lambda: is_cross_encoder(path.parent), path, other, path.parent)
