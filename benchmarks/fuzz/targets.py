"""Every contract, what draws its inputs, and how many of a million it gets."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from benchmarks.fuzz.configuration import check_config, draw_overrides
from benchmarks.fuzz.evaluation import (
    check_calibration,
    check_elo_truth,
    check_metrics,
    check_metrics_by_ir_measures,
    check_significance,
    draw_elo_truth,
    draw_graded,
    draw_pairs,
    draw_values,
)
from benchmarks.fuzz.files import (
    check_beir,
    check_columns,
    check_grades,
    check_lines,
    check_log,
    check_model_folder,
    check_rate_file,
    check_recorded,
    check_rerank,
    check_run,
    check_trec,
    check_zbench,
)
from benchmarks.fuzz.graphs import (
    check_bm25,
    check_fusion,
    check_graph,
    check_rounds,
    draw_corpus,
    draw_graph,
    draw_hits,
    draw_rounds,
)
from benchmarks.fuzz.inputs import (
    VALUES,
    dumped,
    edited,
    good_texts,
    json_lines,
    lines_of,
    names,
    near_names,
    plain_names,
    records,
    tables,
    texts,
)
from benchmarks.fuzz.judging import (
    check_answer,
    check_bucket,
    check_keys,
    check_long_reply,
    check_noise,
    check_prompt,
    check_wire,
    draw_answer,
    draw_gaps,
    draw_long_reply,
    draw_noise,
    draw_prompt,
    draw_questions,
)
from benchmarks.fuzz.rating import (
    check_bad_comparisons,
    check_judges,
    check_query_biases,
    check_rankings,
    check_reference,
    check_sameness,
    check_solver,
    check_targets,
    draw_bad_comparisons,
    draw_comparisons,
    draw_elos,
    draw_query_biases,
    draw_rankings,
)
from zelo.rating.rate import Rating
from zelo.rating.solver import MODELS
from zelo.rating.targets import TARGETS


@dataclass(frozen=True)
class Target:
    """A contract: what draws an input, what checks it, and inputs of a million that it gets."""

    name: str
    source: SearchStrategy[Any] | Callable[[random.Random], Any]
    check: Callable[[Any], None]
    share: int


comparison = records(
    query_id=plain_names, doc_a=names, doc_b=names,
    p=st.sampled_from((0, 1, 0.5, 0.3, None)),
    judge=st.sampled_from(("openai", "openai", "gemini")),
)  # fmt: skip
weighted = records(
    query_id=plain_names, doc_a=plain_names, doc_b=plain_names, score=st.sampled_from((0, 1, -0.3)),
    weight=st.sampled_from((1, 0, 2.5, None, 1e6, 1e-300, 1e12)),
)  # fmt: skip
ratings = st.builds(
    Rating, model=st.sampled_from(MODELS), target=st.sampled_from(TARGETS),
    joint_judges=st.booleans(),
)  # fmt: skip
one_judge = records(
    query_id=names, doc_a=names, doc_b=names, score=st.sampled_from((0, 1.0, -1.0, 0.3, None)),
    reasons=texts,
)  # fmt: skip
grades = st.sampled_from(("0", "1", "2.0", "-1", "x", "1.5", "9" * 20, "", "1_0"))
documents = records(
    id=st.one_of(names, near_names), content=texts, score=st.sampled_from((0, 1.5, -2, 1e308))
)
zbench = records(
    query=records(id=st.one_of(names, near_names), query=texts),
    documents=st.lists(documents, max_size=4),
)
one_score = records(thought=texts, score=st.sampled_from((0, 1, -1, 0.5)))
one_document = records(document_id=names)
ai_scores = st.builds(
    lambda rows: dumped({"scored_pairs": rows}),
    st.lists(
        records(pair=records(query_id=names, document_a=one_document, document_b=one_document),
                openai_score=one_score, gemini_score=one_score, anthropic_score=one_score),
        max_size=3,
    ),
)  # fmt: skip
choice = records(
    message=records(content=texts, refusal=st.none()),
    finish_reason=st.sampled_from(("stop", "length")),
)
bodies = st.one_of(
    records(choices=st.lists(choice, max_size=2),
            usage=records(prompt_tokens=st.integers(0, 9), completion_tokens=st.integers(0, 9))),
    records(error=records(code=texts, message=texts, type=texts)),
    st.sampled_from(VALUES), st.lists(st.sampled_from(VALUES), max_size=2),
).map(dumped)  # fmt: skip
waits = st.one_of(
    st.sampled_from(("1", "-1", "nan", "1e400", "", "Wed, 21 Oct 2015 07:28:00 GMT")), texts,
    st.lists(st.sampled_from(("Wed,", "21", "Oct", "2015", "9" * 20, "07:28:00", "GMT", "-0000",
                              "+99999999", "Jan", "0", ":", "-")), max_size=6).map(" ".join),
)  # fmt: skip
configs = records(
    architectures=st.lists(st.sampled_from(("BertForSequenceClassification", "X")), max_size=2),
    model_type=texts,
).map(dumped)
topics = st.lists(
    st.builds(lambda i, t: f"<top>\n<num> Number: {i}\n<title> {t}\n</top>\n",
              st.sampled_from("123"), st.sampled_from(("apples", "a &lt; b", "")))
    | st.builds(lambda i, t: f'<topic number="{i}"><query>{t}</query></topic>\n',
                st.sampled_from("456"), st.sampled_from(("pears", "x y"))),
    min_size=1, max_size=4,
).map(lambda rows: "".join(rows).encode())  # fmt: skip

TARGETS_OF = (
    Target("lines", st.tuples(
        st.one_of(st.binary(max_size=40), lines_of("\t", names, texts),
                  edited(lines_of(" ", texts).map(lambda b: gzip.compress(b, 1)))),
        st.booleans()), check_lines, 10_000),
    Target("beir", st.tuples(
        json_lines(records(_id=st.one_of(names, st.integers(0, 9)), text=texts)),
        json_lines(records(_id=names, text=texts)),
        st.one_of(lines_of("\t", names, names, grades), st.just(b""),
                  lines_of("\t", plain_names, plain_names, st.sampled_from(("1", "2.0"))),
                  lines_of(" ", plain_names, st.just("0"), plain_names, grades)),
        st.booleans()), check_beir, 12_000),
    Target("trec", st.tuples(
        st.one_of(st.tuples(st.just("jsonl"), json_lines(records(docid=names, contents=texts))),
                  st.tuples(st.just("tsv"), lines_of("\t", plain_names, good_texts))),
        st.one_of(edited(topics), lines_of("\t", plain_names, good_texts)),
        st.one_of(st.just(b""), lines_of(" ", plain_names, st.just("0"), plain_names, grades)),
    ), check_trec, 12_000),
    Target("run", st.one_of(
        st.tuples(st.just("trec"), lines_of(" ", plain_names, plain_names, texts)),
        st.tuples(st.just("trec"), lines_of(" ", plain_names, plain_names,
                                            st.sampled_from(("1", "2", "3")))),
        st.tuples(st.just("trec"), lines_of(" ", plain_names, st.just("Q0"), names, st.just("1"),
                                            st.sampled_from(("1.5", "-0.0", "1e40", "nan", "inf")),
                                            st.just("t"))),
        st.tuples(st.just("jsonl"), json_lines(records(query_id=plain_names, doc_id=names,
                                                       score=st.sampled_from((1, 0.5, 1e40))))),
        st.tuples(st.just("jsonl"), json_lines(records(
            query=records(qid=names), candidates=st.lists(
                records(docid=names, score=st.sampled_from((1, 2.5))), max_size=3)))),
    ), check_run, 12_000),
    Target("columns", st.one_of(
        st.tuples(st.just("tsv"), lines_of("\t", texts, texts, texts)),
        st.tuples(st.just("jsonl"), json_lines(records(query=texts, positive=texts,
                                                       negative=texts))),
        st.tuples(st.just("jsonl"), json_lines(records(query=texts,
                                                       pos=st.lists(texts, max_size=2)))),
        st.tuples(st.just("jsonl"), json_lines(records(query=texts, document=texts,
                                                       label=st.sampled_from((0, 1, 2.0, -1))))),
    ), check_columns, 12_000),
    Target("zbench", st.tuples(
        json_lines(zbench), st.one_of(st.none(), ai_scores, edited(ai_scores)),
    ), check_zbench, 8_000),
    Target("log", json_lines(records(query=texts, query_id=near_names, results=st.lists(
        records(id=near_names, text=texts), max_size=3))), check_log, 10_000),
    Target("grades", st.tuples(st.just("qrels"), st.one_of(
        lines_of("\t", plain_names, names, grades),
        lines_of(" ", plain_names, st.just("0"), plain_names, grades))), check_grades, 6_000),
    Target("recorded", st.one_of(tables(one_judge), tables(comparison)), check_recorded, 10_000),
    Target("rate_file", st.builds(
        lambda table, *options: (*table, *options), st.one_of(tables(comparison), tables(weighted)),
        ratings, st.sampled_from(("soft", "sign"))), check_rate_file, 5_000),
    Target("rerank", json_lines(records(text=texts, title=texts)), check_rerank, 8_000),
    Target("model_folder", st.tuples(edited(configs), st.none() | edited(configs)),
           check_model_folder, 4_000),
    Target("wire", st.tuples(edited(bodies), st.sampled_from((200, 400, 401, 413, 429, 500, 504)),
                             waits), check_wire, 20_000),
    Target("answer", draw_answer, check_answer, 160_000),
    Target("noise", draw_noise, check_noise, 180_000),
    Target("long_reply", draw_long_reply, check_long_reply, 300),
    Target("prompt", draw_prompt, check_prompt, 60_000),
    Target("keys", draw_questions, check_keys, 180_000),
    Target("bucket", draw_gaps, check_bucket, 10_000),
    Target("elo_truth", draw_elo_truth, check_elo_truth, 30_000),
    Target("metrics", draw_graded, check_metrics, 60_000),
    Target("ir_measures", draw_graded, check_metrics_by_ir_measures, 6_000),
    Target("significance", draw_values, check_significance, 30_000),
    Target("calibration", draw_pairs, check_calibration, 6_000),
    Target("solver", draw_comparisons, check_solver, 50_000),
    Target("sameness", draw_comparisons, check_sameness, 20_000),
    Target("reference", draw_comparisons, check_reference, 5_000),
    Target("bad_comparisons", draw_bad_comparisons, check_bad_comparisons, 40_000),
    Target("judges", lambda rng: (draw_comparisons(rng), rng.randrange(100)), check_judges, 3_000),
    Target("rankings", draw_rankings, check_rankings, 15_000),
    Target("query_biases", draw_query_biases, check_query_biases, 15_000),
    Target("targets", draw_elos, check_targets, 20_000),
    Target("graph", draw_graph, check_graph, 40_000),
    Target("rounds", draw_rounds, check_rounds, 2_000),
    Target("fusion", draw_hits, check_fusion, 30_000),
    Target("bm25", draw_corpus, check_bm25, 8_000),
    Target("config", draw_overrides, check_config, 2_000),
)  # fmt: skip
