"""zbench's files, read and written: `zelo import` and `zelo export`.

zbench (zeroentropy-ai/zbench) annotates lines of `{"query": {"id", "query"}, "documents": [{"id",
"content", "metadata"}]}`. Its working folder holds `dataset.jsonl`, `pairs.json` and
`ai_scores.json`; its result is the same lines with a `score`, an Elo, per document.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa

from zelo.artifacts import Table, read_json, read_table, replacing, write_json
from zelo.data.lines import json_objects, text_field
from zelo.data.texts import document_texts, query_texts
from zelo.errors import UserError
from zelo.seeding import stream

FIELDS = {"openai": "openai_score", "gemini": "gemini_score", "anthropic": "anthropic_score"}
NO_ANSWER = "No answer of this judge: the mean of the others stands here."
SWAPPED = "(SWAPPED)\n"  # how zbench marks a thought about (b, a); its score is swapped back
WHOLE_SCORE = re.compile(r"<score>\s*([-+][01])\s*</score>\s*$")  # zbench reads it as 0

LARGEST = 1e12  # a larger score is no Elo

Pair = tuple[str, str, str]


def import_zbench(source: Path, out: Path) -> dict[str, int]:
    """Turn a working folder of zbench, or a JSONL file, into a collection in BEIR layout.

    Writes `corpus.jsonl`, `queries.jsonl` and `preferences.jsonl`: of `ai_scores.json` a row per
    judge and pair as it was shown or, where there is none, what the documents' scores imply if they
    are Elos. A score of 0 without a thought is what zbench writes when a call fails: it becomes a
    failed answer (null). Returns counts; raises `UserError` naming file and line.
    """
    dataset = source / "dataset.jsonl" if source.is_dir() else source
    if not dataset.is_file():
        raise UserError(f"{dataset}: not found; a zbench JSONL file or working folder is needed")
    lines = [checked(line, f"{dataset}:{number}") for number, line in json_objects(dataset)]
    if not lines:
        raise UserError(f"{dataset}: empty, at least one query is needed")
    contents: dict[str, set[str]] = {}
    for line in lines:
        for document in line["documents"]:
            contents.setdefault(document["id"], set()).add(document["content"])
    shared = all(len(found) == 1 for found in contents.values())

    def named(query_id: str, doc_id: str) -> str:
        """An id that means different texts for different queries gets the query's in front."""
        return doc_id if shared else f"{query_id}/{doc_id}"

    corpus: dict[str, dict[str, Any]] = {}
    queries: dict[str, str] = {}
    scores: dict[str, dict[str, float]] = {}
    for line in lines:
        query_id = line["query"]["id"]
        if query_id in queries:
            raise UserError(f"{dataset}: query id {query_id!r} occurs more than once")
        queries[query_id] = line["query"]["query"]
        for document in line["documents"]:
            doc_id = named(query_id, document["id"])
            metadata = document.get("metadata") or {}
            if doc_id in corpus and corpus[doc_id]["text"] != document["content"]:
                raise UserError(
                    f"{dataset}: query {query_id!r}: document {doc_id!r} has two texts; give each "
                    f"an id of its own"
                )
            corpus[doc_id] = {"_id": doc_id, "title": "", "text": document["content"],
                              "metadata": metadata}  # fmt: skip
            if "score" in document:
                scores.setdefault(query_id, {})[doc_id] = float(document["score"])
    judged = source.is_dir() and (source / "ai_scores.json").is_file()
    if judged:
        preferences = read_ai_scores(source / "ai_scores.json", queries, corpus, named)
    else:
        preferences = [row for i, elos in scores.items() for row in implied_preferences(i, elos)]
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_lines(out / "corpus.jsonl", list(corpus.values()))
        write_lines(out / "queries.jsonl", [{"_id": i, "text": t} for i, t in queries.items()])
        if preferences:
            write_lines(out / "preferences.jsonl", preferences)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror})") from None
    return {
        "queries": len(queries),
        "documents": len(corpus),
        "preferences" if judged else "preferences_implied_by_scores": len(preferences),
        "failed_calls": sum(row["score"] is None for row in preferences),
    }


def implied_preferences(query_id: str, elos: Mapping[str, float]) -> list[dict[str, Any]]:
    """Preferences whose Thurstone ratings are these Elos: about the pairs of four random cycles,
    which connect the best with the worst, and about neighbours in the ranking, which tell most."""
    ids = sorted(elos, key=lambda doc_id: -elos[doc_id])
    rng = stream(0, "implied", query_id)
    cycles = [rng.permutation(len(ids)).tolist() for _ in range(4)]
    pairs = [*pairwise(range(len(ids)))]
    pairs += [pair for cycle in cycles for pair in pairwise([*cycle, *cycle[:1]])]
    edges = sorted({(min(i, j), max(i, j)) for i, j in pairs if i != j})
    return [
        {
            "query_id": query_id,
            "doc_a": ids[i],
            "doc_b": ids[j],
            "judge": "recorded",
            "score": -math.erf(elos[ids[i]] - elos[ids[j]]),  # p = (1 + erf(eᵢ − eⱼ)) / 2
            "reasons": "",
        }
        for i, j in edges
    ]


def checked(line: dict[str, Any], where: str) -> dict[str, Any]:
    """A line of the dataset, all fields that are read of it being valid."""
    try:
        texts = [line["query"]["id"], line["query"]["query"]]
        for document in line["documents"]:
            texts += [document["id"], document["content"]]
            score = document.get("score", 0)
            if type(score) not in (int, float) or not abs(score) <= LARGEST:
                raise UserError(
                    f"{where}: score of document {document['id']!r} must be a finite number, found "
                    f"{score!r:.40}"
                )
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{where}: not a line of zbench ({type(error).__name__}: {error}); expected "
            f'{{"query": {{"id", "query"}}, "documents": [{{"id", "content"}}]}}'
        ) from None
    if not all(isinstance(text, str) for text in texts):
        raise UserError(f"{where}: ids and texts must be strings")
    if not all([line["query"]["id"], *(document["id"] for document in line["documents"])]):
        raise UserError(f"{where}: an id is empty")
    for text in texts:
        text_field({"ids and texts": text}, "ids and texts", where)
    return line


def read_ai_scores(
    path: Path, queries: Mapping[str, str], corpus: Mapping[str, Any], named: Any
) -> list[dict[str, Any]]:
    """A row per judge and scored pair, in the order in which the judge saw the documents."""
    rows = []
    content = read_json(path)
    try:
        for number, scored in enumerate(content["scored_pairs"]):
            where = f"{path}: scored_pairs[{number}]"
            pair = scored["pair"]
            query_id = pair["query_id"]
            a, b = (named(query_id, pair[d]["document_id"]) for d in ("document_a", "document_b"))
            if query_id not in queries or a not in corpus or b not in corpus:
                raise UserError(f"{where}: {query_id!r}, {a!r} or {b!r} is not in dataset.jsonl")
            for judge, field in FIELDS.items():
                thought, score = str(scored[field]["thought"]), scored[field]["score"]
                text_field({field: thought}, field, where)
                if type(score) not in (int, float) or not -1 <= score <= 1:
                    raise UserError(f"{where}: {field} is {score!r}, not between -1 and 1")
                swapped = thought.startswith(SWAPPED)
                whole = WHOLE_SCORE.search(thought)
                if score == 0 and whole:
                    score = -int(whole[1]) if swapped else int(whole[1])
                failed = thought == NO_ANSWER or (score == 0 and not thought.removeprefix(SWAPPED))
                rows.append(
                    {
                        "query_id": query_id,
                        "doc_a": b if swapped else a,
                        "doc_b": a if swapped else b,
                        "judge": judge,
                        "score": None if failed else float(-score if swapped else score),
                        "reasons": thought.removeprefix(SWAPPED),
                    }
                )
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: not zbench's ({type(error).__name__}: {error})") from None
    return rows


def export_zbench(
    data: Path, judgments: Sequence[Path], ratings: Path, out: Path
) -> dict[str, int]:
    """Write what a run annotated as zbench's files: working folder and annotated lines.

    `data`, `judgments` and `ratings` are the folders of the run's collection, answers and Elos.

    `out` gets `dataset.jsonl`, `pairs.json`, `ai_scores.json` and `annotated.jsonl`, whose scores
    are the Elos. zbench knows three judges, openai, gemini and anthropic: judges of these names go
    to their places and others to those that are free. Where a place has no answer the mean of the
    others stands there, and its thought says so; a pair without any answer is left out and counted.
    """
    judged = pa.concat_tables([read_table(folder, "judgments") for folder in judgments])
    rated: dict[str, dict[str, float]] = {}
    for row in read_table(ratings, "ratings").to_pylist():
        rated.setdefault(row["query_id"], {})[row["doc_id"]] = row["elo"]
    queries = query_texts(data)
    documents = document_texts(data, {doc_id for elos in rated.values() for doc_id in elos})
    pairs, left_out = scored_pairs(judged, queries, documents)

    def line(query_id: str, elos: Mapping[str, float] | None) -> dict[str, Any]:
        docs = [
            {"id": d, "content": documents[d], "metadata": {}}
            | ({"score": elos[d]} if elos else {})
            for d in rated[query_id]
        ]
        return {"query": {"id": query_id, "query": queries[query_id]}, "documents": docs}

    try:
        out.mkdir(parents=True, exist_ok=True)
        write_lines(out / "dataset.jsonl", [line(query_id, None) for query_id in rated])
        write_lines(out / "annotated.jsonl", [line(i, elos) for i, elos in rated.items()])
        write_json(out / "pairs.json", {"pairs": [scored["pair"] for scored in pairs]})
        write_json(out / "ai_scores.json", {"scored_pairs": pairs})
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror})") from None
    return {
        "queries": len(rated),
        "documents": sum(map(len, rated.values())),
        "pairs": len(pairs),
        "pairs_without_answer": left_out,
    }


def scored_pairs(
    judgments: Table, queries: Mapping[str, str], documents: Mapping[str, str]
) -> tuple[list[dict[str, Any]], int]:
    """What judges said, pair by pair, in zbench's shape; and how many pairs had no answer."""
    field_of = field_of_judge(judgments["judge"].unique().to_pylist())
    answers: dict[Pair, dict[str, list[tuple[float, str]]]] = {}
    names = ("query_id", "doc_a", "doc_b", "judge", "score", "reasons")
    for query_id, a, b, judge, score, reasons in zip(
        *(judgments[name].to_pylist() for name in names), strict=True
    ):
        was_swapped = (query_id, b, a) in answers
        kept = answers[query_id, b, a] if was_swapped else answers.setdefault((query_id, a, b), {})
        if score is not None:
            thought = f"{SWAPPED if was_swapped else ''}{reasons}"
            kept.setdefault(field_of[judge], []).append((-score if was_swapped else score, thought))
    pairs, left_out = [], 0
    for (query_id, a, b), by_field in answers.items():
        if not by_field:
            left_out += 1
            continue
        means = {f: sum(s for s, _ in given) / len(given) for f, given in by_field.items()}
        mean = sum(means.values()) / len(means)
        scored: dict[str, Any] = {
            "pair": {
                "pair_id": f"{query_id}-{a}-{b}",
                "query_id": query_id,
                "query": queries[query_id],
                "document_a": {"document_id": a, "metadata": {}, "content": documents[a]},
                "document_b": {"document_id": b, "metadata": {}, "content": documents[b]},
            }
        }
        for field in FIELDS.values():
            thoughts = [t for _, t in by_field.get(field, [])]
            scored[field] = {
                # A score of 0 without a thought would be read as a failed call.
                "thought": ("\n\n".join(thoughts) or "-") if thoughts else NO_ANSWER,
                "score": means.get(field, mean),
            }
        pairs.append(scored)
    return pairs, left_out


def field_of_judge(judges: Sequence[str]) -> dict[str, str]:
    """Judge → one of zbench's three fields; `UserError` where there are more than three."""
    if len(judges) > len(FIELDS):
        raise UserError(
            f"export: zbench has room for three judges, and there are {len(judges)}: "
            f"{', '.join(judges)}"
        )
    fields = {judge: FIELDS[judge] for judge in judges if judge in FIELDS}
    free = iter(field for field in FIELDS.values() if field not in fields.values())
    return fields | {judge: next(free) for judge in judges if judge not in fields}


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write JSON lines, whole or not at all."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
