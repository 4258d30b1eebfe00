"""Stage `judge`: comparisons in, every judge's answer out, through the ledger."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from zelo.artifacts import read_table, table, write_table
from zelo.data.texts import document_texts, query_texts
from zelo.errors import UserError
from zelo.judging.agreement import consensus
from zelo.judging.asking import Asked, ask_all
from zelo.judging.ensemble import Ensemble
from zelo.judging.ledger import Ledger
from zelo.judging.probe import both_votes, chosen, consistency
from zelo.judging.protocol import (
    ANSWERED,
    MISSING,
    Answer,
    Cutting,
    InOneOrder,
    PreparedJudge,
    Question,
    Remote,
    turned,
)
from zelo.judging.recorded import PreparedRecorded
from zelo.judging.spending import Budget, Spending
from zelo.progress import say
from zelo.seeding import derived_seed
from zelo.store import stage


@stage(version=4)
def judge(
    *,
    out: Path,
    data: Path,
    comparisons: Path,
    judge: Ensemble,
    ledger: Path,
    seed: int,
    budget: Budget | None = None,
    run: str = "",
    **earlier: Path,
) -> Mapping[str, Any]:
    """Ask every judge about every comparison and write the `judgments`.

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
    judges = prepare_judges(judge, data, compared, seed)
    across = any(question.query_b is not None for question in questions)
    polls = [Poll(question) for question in questions]
    with Ledger(ledger) as kept:
        spending = Spending(budget or Budget(), *kept.spent(run))
        spent_before = spending.usd
        sums = hold_polls(polls, judge, judges, kept, spending, run)
    said = [entry for poll in polls for entry in poll.said]
    judgments = table(
        "judgments",
        query_id=[q.query_id for _, q, _ in said],
        doc_a=[q.doc_a for _, q, _ in said],
        doc_b=[q.doc_b for _, q, _ in said],
        repeat=[q.repeat for _, q, _ in said],
        judge=[name for name, _, _ in said],
        score=[answer.score if answer else None for _, _, answer in said],
        status=[answer.status if answer else MISSING for _, _, answer in said],
        reasons=[answer.reasons if answer else "" for _, _, answer in said],
        query_b=[q.query_b for _, q, _ in said],
    )
    write_table(out, "judgments", judgments)
    for name, n in Counter(name for name, _, answer in said if answer is None).items():
        print(f"  {name}: {n:,} answers are missing; the next run asks for them", file=sys.stderr)
    given = [answer for _, _, answer in said if answer is not None]
    failures = Counter(answer.status for answer in given if answer.status != ANSWERED)
    if failures:
        kinds = ", ".join(f"{kind} {n:,}" for kind, n in failures.most_common())
        say(
            f"  ! {failures.total():,} answers are failures ({kinds}); "
            f"judge.retry={judge.retry + 1} asks those again"
        )
    return {
        "comparisons": len(questions),
        "judges": list(judge.judges),
        "judgments": len(given),
        "asked_now": sums.new,
        "failed": failures.total(),
        "missing": len(said) - len(given),
        "usd": sum(answer.usd for answer in given),
        "usd_now": spending.usd - spent_before,
        "tokens_in": sum(answer.tokens_in for answer in given),
        "tokens_out": sum(answer.tokens_out for answer in given),
        "consensus": None if across else consensus(judgments),
        "failures": dict(failures),
        "failed_attempts": {name: dict(kinds) for name, kinds in sums.trouble.items() if kinds},
        "given_up": sums.down,
        "probed": {name: found.numbers() for name, found in sums.probed.items()},
        "documents_cut": documents_cut(
            judges, {d for docs in compared.values() for d in docs}, data
        ),
    }


def prepare_judges(
    ensemble: Ensemble, data: Path, pairs: Mapping[str, Sequence[str]], seed: int
) -> dict[str, PreparedJudge]:
    """Get all judges ready to be asked about `pairs` (query id → documents)."""
    judges = {
        name: member.prepare(data, pairs, derived_seed(seed, "judge", name))
        for name, member in ensemble.judges.items()
    }
    refuse_twins(judges)
    return judges


def hold_polls(
    polls: Sequence[Poll],
    ensemble: Ensemble,
    judges: Mapping[str, PreparedJudge],
    ledger: Ledger,
    spending: Spending,
    run: str,
) -> Asked:
    """Ask until every comparison has answers enough; what was asked in all.

    Raises `UserError` where the budget is reached, or where all judges are down.
    """
    recorded = {name: j for name, j in judges.items() if isinstance(j, PreparedRecorded)}
    sums = Asked({})
    refuse_guesses(polls, ensemble, judges, ledger, spending, run, sums)
    while due := wave(polls, ensemble, sums.down, recorded):
        wanted = {name: [question for _, question in asked] for name, asked in due.items()}
        asked = ask_within(judges, wanted, ledger, spending, run, ensemble.retry, sums)
        for name, answers in asked.items():
            for (poll, question), answer in zip(due[name], answers, strict=True):
                poll.said.append((name, question, answer))
    if len(sums.down) == len(judges):
        told = "; ".join(f"{name}: {why}" for name, why in sums.down.items())
        raise UserError(
            f"no judge can be asked ({told}); every answer so far is in {ledger.path}, and the "
            f"same command asks for the rest"
        )
    return sums


def ask_within(
    judges: Mapping[str, PreparedJudge],
    wanted: Mapping[str, Sequence[Question]],
    ledger: Ledger,
    spending: Spending,
    run: str,
    retry: int,
    sums: Asked,
) -> dict[str, list[Answer | None]]:
    """Answers to questions, counted in `sums`; `UserError` where the budget is reached."""
    asked = ask_all(judges, wanted, ledger, spending, run, retry)
    sums.new += asked.new
    sums.down |= asked.down
    for name, kinds in asked.trouble.items():
        sums.trouble.setdefault(name, Counter()).update(kinds)
    if spending.exhausted:
        raise UserError(
            f"{spending.reached} would be passed: {spending.calls:,} requests and "
            f"${spending.usd:.4g} are spent, and every answer is in {ledger.path}; the same "
            f"command with a higher budget goes on from here"
        )
    return asked.answers


def refuse_guesses(
    polls: Sequence[Poll],
    ensemble: Ensemble,
    judges: Mapping[str, PreparedJudge],
    ledger: Ledger,
    spending: Spending,
    run: str,
    sums: Asked,
) -> None:
    """Ask language models a few of the comparisons in both orders; `UserError` where one seems to
    guess, before it is asked the rest.

    Not of a small run, where there is little to save, nor where the ledger shows that a judge was
    asked more than the probe asks: it has passed one.
    """
    if not ensemble.probed(len(polls)):
        return
    some = [polls[place].question for place in chosen(len(polls), ensemble.probe)]
    language_models = {
        name: judge
        for name, judge in judges.items()
        if isinstance(judge, Remote | InOneOrder)
        and ledger.answers(judge.fingerprint, 2 * ensemble.probe + 1) <= 2 * ensemble.probe
    }
    orders = [some, [turned(question) for question in some]]
    votes = {}
    for name, judge in language_models.items():
        if isinstance(judge, InOneOrder):
            votes[name] = both_votes(*(judge.in_one_order(order) for order in orders))
            continue
        both = [*orders[0], *orders[1]]
        said = ask_within(judges, {name: both}, ledger, spending, run, ensemble.retry, sums)[name]
        votes[name] = both_votes(said[: len(some)], said[len(some) :])
    for name in votes:
        found = consistency(votes, name)
        sums.probed[name] = found
        if found.guesses:
            raise UserError(
                f"judge {name}: it seems to guess: {found}. What it said is in {ledger.path}, and "
                f"nothing more was asked. Take another model, or judge.probe=0 to ask it the rest "
                f"all the same"
            )
        doubt = "! it may be guessing: " if found.doubtful else ""
        say(f"  {name}: {doubt}{found}")


def refuse_twins(judges: Mapping[str, PreparedJudge]) -> None:
    """`UserError` where two judges are one: its answer would be given once and counted twice."""
    names: dict[str, str] = {}
    for name, prepared in judges.items():
        twin = names.setdefault(prepared.fingerprint, name)
        if twin != name:
            raise UserError(
                f"judge.judges: {twin} and {name} are the same judge (model, prompt and sampling), "
                f"whose one answer would count twice; for more answers of one judge set "
                f"judge.stderr, or give one of the two another temperature"
            )


@dataclass(slots=True)
class Poll:
    """What was asked about one comparison, and what was said."""

    question: Question
    said: list[tuple[str, Question, Answer | None]] = field(default_factory=list)
    turns: int = 0  # judges asked, one counted as often as it was

    def scores(self) -> list[float]:
        """Scores as if the comparison had always been shown as it stands."""
        return [
            answer.score if question.ids[0] == self.question.ids[0] else -answer.score
            for _, question, answer in self.said
            if answer is not None and answer.score is not None
        ]


def wave(
    polls: Sequence[Poll],
    ensemble: Ensemble,
    down: Mapping[str, str],
    recorded: Mapping[str, PreparedRecorded],
) -> dict[str, list[tuple[Poll, Question]]]:
    """The questions to ask next, by judge; empty when all comparisons have enough answers.

    First all judges are asked, then one more at a time, in turn, while the answers differ. What a
    judge that is `down` should have been asked next is put down as missing.
    """
    names = list(ensemble.judges)
    turns_at_most = ensemble.most * len(names) // ensemble.least
    due: dict[str, list[tuple[Poll, Question]]] = {}
    for poll in polls:
        if poll.turns == 0:
            turns = range(len(names))
        elif poll.turns < turns_at_most and not ensemble.settled(poll.scores()):
            turns = range(poll.turns, poll.turns + 1)
        else:
            continue
        for turn in turns:
            poll.turns = turn + 1
            repeat, place = divmod(turn, len(names))
            name = names[place]
            asked = presented(poll.question, repeat, place, ensemble.both_orders)
            if name in recorded:
                asked = list(dict.fromkeys(map(recorded[name].as_shown, asked)))
            for question in asked:
                if name in down:
                    poll.said.append((name, question, None))
                    poll.turns = turns_at_most
                else:
                    due.setdefault(name, []).append((poll, question))
    return due


def presented(q: Question, repeat: int, place: int, both_orders: bool) -> list[Question]:
    """The comparison in the order that the judge at `place` sees, or in both.

    Which order a comparison stands in was drawn at random. From judge to judge and from repeat to
    repeat it is turned, so that a leaning to the first document cancels out as far as it can.
    """
    orders = [replace(q, repeat=repeat), turned(replace(q, repeat=repeat))]
    return orders if both_orders else [orders[(place + repeat) % 2]]


def documents_cut(
    judges: Mapping[str, PreparedJudge], doc_ids: Set[str], data: Path
) -> dict[str, int]:
    """Of how many documents each judge that cuts them sees only the beginning.

    Those of earlier rounds are counted too.
    """
    cutting = {name: judge for name, judge in judges.items() if isinstance(judge, Cutting)}
    if not cutting:
        return {}
    texts = list(document_texts(data, doc_ids).values())
    return {name: judge.documents_cut(texts) for name, judge in cutting.items()}


def read_questions(comparisons: Path, data: Path) -> list[Question]:
    """The comparisons with their texts, in the order of the table."""
    rows = read_table(comparisons, "comparisons")
    wanted = {doc_id for name in ("doc_a", "doc_b") for doc_id in rows[name].to_pylist()}
    queries, documents = query_texts(data), document_texts(data, wanted)
    names = ("query_id", "doc_a", "doc_b", "repeat", "query_b")
    return [
        Question(
            q, a, b, repeat, queries[q], documents[a], documents[b], r, queries[r] if r else ""
        )
        for q, a, b, repeat, r in zip(*(rows[name].to_pylist() for name in names), strict=True)
    ]
