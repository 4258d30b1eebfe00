"""Stage `judge`: comparisons in, every judge's answer out, through the ledger."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from zelo.artifacts import read_table, table, write_table
from zelo.data.texts import document_texts, query_instructions, query_texts
from zelo.judging.agreement import choices, consensus
from zelo.judging.api import ApiSession
from zelo.judging.base import JudgeSession
from zelo.judging.ensemble import Ensemble
from zelo.judging.lists import (
    UNTOLD,
    implied,
    label_counts,
    list_judgments,
    list_questions,
    read_blocks,
)
from zelo.judging.question import ANSWERED, MISSING, Question
from zelo.judging.spending import Budget
from zelo.judging.votes import ComparisonVotes, vote_collector
from zelo.progress import say
from zelo.store import stage


@stage(version=5)
def judge(
    *,
    out: Path,
    data: Path,
    comparisons: Path,
    ensemble: Ensemble,
    ledger: Path,
    seed: int,
    budget: Budget | None = None,
    run: str = "",
    **earlier: Path,
) -> Mapping[str, Any]:
    """Ask every judge about every comparison and write the `judgments`.

    Where there are `blocks`, judges that can order one are asked to; their orders are written as
    `list_judgments`, and what these say of the comparisons stands among the judgments.

    Answers that the ledger at `ledger` holds are not asked for again. `earlier` are the comparisons
    of earlier rounds: judges get ready for their documents too, so that one that measures what it
    is asked about (a simulated one) is the same judge in every round. What is spent counts for
    `run`, and no request is sent that could pass the `budget`. Answers that are missing because a
    judge is down are counted, and the next run asks for them. Raises `UserError` where the budget
    is reached, or where all judges are down.
    """
    questions = read_questions(comparisons, data)
    pairs: dict[str, dict[str, None]] = {}
    for folder in (*earlier.values(), comparisons):
        rows = read_table(folder, "comparisons")
        names = ("query_id", "doc_a", "query_b", "doc_b")
        for q, a, r, b in zip(*(rows[name].to_pylist() for name in names), strict=True):
            pairs.setdefault(q, {})[a] = None
            pairs.setdefault(q if r is None else r, {})[b] = None
    compared = {query_id: list(docs) for query_id, docs in pairs.items()}
    blocks = read_blocks(comparisons)
    of_two_queries = any(question.query_b is not None for question in questions)
    votes = [ComparisonVotes(question) for question in questions]
    asked = (ensemble, data, compared, seed, ledger, budget, run)
    with vote_collector(*asked, in_blocks=bool(blocks)) as collector:
        spent_before = collector.spending.usd
        shown_before = [block for folder in earlier.values() for block in read_blocks(folder)]
        orders = collector.order(list_questions(blocks, data, shown_before))
        collector.collect(votes)
    answers = [entry for comparison in votes for entry in comparison.answers]
    # Of a judge that grades, what it said of documents is what was paid for.
    given = collector.of_documents + [
        answer
        for name, _, answer in answers
        if answer is not None and not collector.sessions[name].grades_documents
    ]
    unreached = Counter(name for name, _, answer in answers if answer is None)
    for name, of_blocks in orders.items():
        said = implied(questions, blocks, of_blocks)
        answers += [
            (name, question, answer)
            for question, answer in zip(questions, said, strict=True)
            if answer is None or answer.status != UNTOLD
        ]
        given += [answer for answer in of_blocks if answer is not None]
        unreached[name] += of_blocks.count(None)
    judgments = table(
        "judgments",
        query_id=[q.query_id for _, q, _ in answers],
        doc_a=[q.doc_a for _, q, _ in answers],
        doc_b=[q.doc_b for _, q, _ in answers],
        repeat=[q.repeat for _, q, _ in answers],
        judge=[name for name, _, _ in answers],
        score=[answer.score if answer else None for _, _, answer in answers],
        status=[answer.status if answer else MISSING for _, _, answer in answers],
        reasons=[answer.reasons if answer else "" for _, _, answer in answers],
        query_b=[q.query_b for _, q, _ in answers],
        weight=[ensemble.weight(name) for name, _, _ in answers],
    )
    write_table(out, "judgments", judgments)
    if orders:
        weights = {name: ensemble.weight(name) for name in orders}
        write_table(out, "list_judgments", list_judgments(blocks, orders, weights))
    for name, n in (+unreached).items():
        asks = "the next run" if collector.sessions[name].can_be_asked else "zelo annotate RUN"
        print(f"  {name}: {n:,} answers are missing; {asks} asks for them", file=sys.stderr)
    failures = Counter(answer.status for answer in given if answer.status != ANSWERED)
    if failures:
        kinds = ", ".join(f"{kind} {n:,}" for kind, n in failures.most_common())
        say(
            f"  ! {failures.total():,} answers are failures ({kinds}); "
            f"judge.retry={ensemble.retry + 1} asks those again"
        )
    failed_attempts = {name: dict(kinds) for name, kinds in collector.failed_attempts.items()}
    return {
        "comparisons": len(questions),
        "judges": list(ensemble.judges),
        "judgments": len(given),
        "asked_now": collector.new_answers,
        "failed": failures.total(),
        "missing": unreached.total(),
        "usd": sum(answer.usd for answer in given),
        "usd_now": collector.spending.usd - spent_before,
        "tokens_in": sum(answer.tokens_in for answer in given),
        "tokens_out": sum(answer.tokens_out for answer in given),
        **({"blocks": len(blocks), "labels": label_counts(orders)} if orders else {}),
        "consensus": None if of_two_queries else consensus(choices(judgments)),
        "cached": cached_shares(collector.sessions),
        "failures": dict(failures),
        "failed_attempts": {name: kinds for name, kinds in failed_attempts.items() if kinds},
        "given_up": collector.given_up,
        "probed": {name: found.numbers() for name, found in collector.consistencies.items()},
        "logit_scales": {
            name: session.logit_scale
            for name, session in collector.sessions.items()
            if session.logit_scale is not None
        },
        "documents_cut": count_truncated(
            collector.sessions, {d for docs in compared.values() for d in docs}, data
        ),
    }


def cached_shares(sessions: Mapping[str, JudgeSession]) -> dict[str, float]:
    """Which share of what each judge at an endpoint read now the provider had kept, where it says
    so; said."""
    shares = {
        name: round(session.cached_tokens / session.read_tokens, 4)
        for name, session in sessions.items()
        if isinstance(session, ApiSession) and session.cached_tokens
    }
    for name, share in shares.items():
        say(f"  {name}: {share:.0%} of the tokens that it read had been kept by the provider")
    return shares


def count_truncated(
    sessions: Mapping[str, JudgeSession], doc_ids: Set[str], data: Path
) -> dict[str, int]:
    """Of how many documents each judge that truncates them sees only the beginning.

    Those of earlier rounds are counted too.
    """
    # Of no texts too a judge says whether it truncates any.
    truncating = {n: s for n, s in sessions.items() if s.count_truncated([]) is not None}
    if not truncating:
        return {}
    texts = list(document_texts(data, doc_ids).values())
    return {name: session.count_truncated(texts) or 0 for name, session in truncating.items()}


def read_questions(comparisons: Path, data: Path) -> list[Question]:
    """The comparisons with their texts, in the order of the table."""
    rows = read_table(comparisons, "comparisons")
    wanted = {doc_id for name in ("doc_a", "doc_b") for doc_id in rows[name].to_pylist()}
    queries, documents = query_texts(data), document_texts(data, wanted)
    told = query_instructions(data)
    names = ("query_id", "doc_a", "doc_b", "repeat", "query_b")
    return [
        Question(
            q,
            a,
            b,
            repeat,
            queries[q],
            documents[a],
            documents[b],
            r,
            queries[r] if r else "",
            told.get(q, ""),
            told.get(r, "") if r else "",
        )
        for q, a, b, repeat, r in zip(*(rows[name].to_pylist() for name in names), strict=True)
    ]
