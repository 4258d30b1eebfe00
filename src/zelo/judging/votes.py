"""Votes of judges on comparisons: asked for until each comparison has enough of them."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from zelo.data.texts import distinct_instructions
from zelo.errors import UserError
from zelo.judging.asking import ask_all
from zelo.judging.base import JudgeSession, LocalSession, RemoteSession
from zelo.judging.ensemble import Ensemble
from zelo.judging.ledger import Ledger
from zelo.judging.probe import Consistency, both_votes, chosen, consistency
from zelo.judging.question import Answer, Question, swapped
from zelo.judging.spending import Budget, Spending
from zelo.progress import say, tell
from zelo.seeding import derived_seed


@dataclass(slots=True)
class ComparisonVotes:
    """What was asked about one comparison, and what was answered."""

    question: Question
    answers: list[tuple[str, Question, Answer | None]] = field(default_factory=list)  # by judge
    turns: int = 0  # judges asked, one counted as often as it was

    def scores(self) -> list[tuple[str, float]]:
        """Judges, and their scores as if the comparison had always been shown as it stands."""
        return [
            (name, answer.score if question.ids[0] == self.question.ids[0] else -answer.score)
            for name, question, answer in self.answers
            if answer is not None and answer.score is not None
        ]


@dataclass
class VoteCollector:
    """Asks an ensemble through the ledger, and counts what was asked in all."""

    ensemble: Ensemble  # of the judges that compare two
    sessions: Mapping[str, JudgeSession]  # of these, and of those that order blocks
    ledger: Ledger
    spending: Spending
    run: str  # what is spent counts for it
    new_answers: int = 0
    failed_attempts: dict[str, Counter[str]] = field(default_factory=dict)  # by judge and kind
    given_up: dict[str, str] = field(default_factory=dict)  # judges, and why
    consistencies: dict[str, Consistency] = field(default_factory=dict)  # of judges probed
    of_documents: list[Answer] = field(default_factory=list)  # of judges that grade

    def collect(self, comparisons: Sequence[ComparisonVotes]) -> None:
        """Ask until every comparison has answers enough.

        Raises `UserError` where the budget is reached, where a judge guesses, or where all judges
        are given up.
        """
        for name, session in self.sessions.items():
            if session.grades_documents:
                self._grade(name, comparisons)
        if self.ensemble.judges:
            self._collect(comparisons)
        if len(self.given_up) == len(self.sessions):
            why = "; ".join(f"{name}: {reason}" for name, reason in self.given_up.items())
            raise UserError(
                f"no judge can be asked ({why}); every answer so far is in {self.ledger.path}, and "
                f"the same command asks for the rest"
            )

    def order(self, blocks: Sequence[Question]) -> dict[str, list[Answer | None]]:
        """What each judge that orders blocks says of each; None where it was not reached.

        Raises `UserError` where the budget is reached.
        """
        names = [
            name
            for name, session in self.sessions.items()
            if name not in self.ensemble.judges and not session.grades_documents
        ]
        return self._ask(dict.fromkeys(names, blocks)) if names and blocks else {}

    def _grade(self, name: str, comparisons: Sequence[ComparisonVotes]) -> None:
        """Ask a judge about each document once, and compare by what it says."""
        pairs = [documents_of(comparison.question) for comparison in comparisons]
        wanted = list(dict.fromkeys(question for pair in pairs for question in pair))
        given = {} if name in self.given_up else self._ask({name: wanted})
        answers = dict(zip(wanted, given.get(name, [None] * len(wanted)), strict=True))
        self.of_documents += [answer for answer in answers.values() if answer is not None]
        for comparison, (a, b) in zip(comparisons, pairs, strict=True):
            first, second = answers[a], answers[b]
            answer = None
            if first is not None and second is not None:
                answer = self.sessions[name].compared(first, second)
            comparison.answers.append((name, comparison.question, answer))

    def _collect(self, comparisons: Sequence[ComparisonVotes]) -> None:
        self._refuse_guesses(comparisons)
        while due := self.next_questions(comparisons):
            wanted = {name: [question for _, question in asked] for name, asked in due.items()}
            for name, answers in self._ask(wanted).items():
                for (comparison, question), answer in zip(due[name], answers, strict=True):
                    comparison.answers.append((name, question, answer))

    def next_questions(
        self, comparisons: Sequence[ComparisonVotes]
    ) -> dict[str, list[tuple[ComparisonVotes, Question]]]:
        """The questions to ask next, by judge; empty when all comparisons have enough answers.

        First all judges are asked, then one more at a time, in turn, while the answers differ. What
        a judge that was given up should have been asked next is put down as missing.
        """
        ensemble = self.ensemble
        names = list(ensemble.judges)
        turns_at_most = ensemble.most * len(names) // ensemble.least
        due: dict[str, list[tuple[ComparisonVotes, Question]]] = {}
        for comparison in comparisons:
            if comparison.turns == 0:
                turns = range(len(names))
            elif comparison.turns < turns_at_most and not ensemble.settled(comparison.scores()):
                turns = range(comparison.turns, comparison.turns + 1)
            else:
                continue
            for turn in turns:
                comparison.turns = turn + 1
                repeat, place = divmod(turn, len(names))
                name = names[place]
                shown = presented(comparison.question, repeat, place, ensemble.both_orders)
                for question in dict.fromkeys(map(self.sessions[name].in_its_order, shown)):
                    if name in self.given_up:
                        comparison.answers.append((name, question, None))
                        comparison.turns = turns_at_most
                    else:
                        due.setdefault(name, []).append((comparison, question))
        return due

    def _ask(self, wanted: Mapping[str, Sequence[Question]]) -> dict[str, list[Answer | None]]:
        """Answers to questions, by judge; `UserError` where the budget is reached."""
        spending = self.spending
        outcome = ask_all(
            self.sessions, wanted, self.ledger, spending, self.run, self.ensemble.retry
        )
        self.new_answers += outcome.new_answers
        self.given_up |= outcome.given_up
        for name, kinds in outcome.failed_attempts.items():
            self.failed_attempts.setdefault(name, Counter()).update(kinds)
        if spending.exhausted:
            raise UserError(spending.refusal(self.ledger.path))
        return outcome.answers

    def _refuse_guesses(self, comparisons: Sequence[ComparisonVotes]) -> None:
        """Ask language models a few of the comparisons in both orders; `UserError` where one seems
        to guess, before it is asked the rest.

        Not of a small run, where there is little to save, nor where the ledger shows that a judge
        was asked more than the probe asks: it has passed one.
        """
        ensemble, ledger = self.ensemble, self.ledger
        if not ensemble.probed(len(comparisons)):
            return
        some = [comparisons[i].question for i in chosen(len(comparisons), ensemble.probe)]
        orders = [some, [swapped(question) for question in some]]
        asked_before = 2 * ensemble.probe
        votes = {}
        for name, session in self.sessions.items():
            if not session.may_guess or name not in ensemble.judges:
                continue
            if ledger.count_answers(session.fingerprint, asked_before + 1) > asked_before:
                continue
            if isinstance(session, LocalSession):
                votes[name] = both_votes(*map(session.answer_in_one_order, orders))
                continue
            answers = self._ask({name: [*orders[0], *orders[1]]})[name]
            votes[name] = both_votes(answers[: len(some)], answers[len(some) :])
        for name in votes:
            found = consistency(votes, name)
            self.consistencies[name] = found
            if found.guesses:
                raise UserError(
                    f"judge {name}: it seems to guess: {found}. What it said is in {ledger.path}, "
                    f"and nothing more was asked. Take another model, or judge.probe=0 to ask it "
                    f"the rest all the same"
                )
            doubt = "! it may be guessing: " if found.doubtful else ""
            say(f"  {name}: {doubt}{found}")


@contextlib.contextmanager
def vote_collector(
    ensemble: Ensemble,
    data: Path,
    pairs: Mapping[str, Sequence[str]],
    seed: int,
    ledger: Path,
    budget: Budget | None,
    run: str,
    in_blocks: bool = False,
) -> Iterator[VoteCollector]:
    """Get all judges ready to be asked about `pairs` (query id → documents of the collection
    `data`), and open the ledger, which knows what the `run` spent of its `budget` before.

    Where documents stand `in_blocks`, those that can order a block are asked to.
    """
    sessions = prepare_sessions(ensemble, data, pairs, seed, in_blocks)
    compares = {
        name: judge
        for name, judge in ensemble.judges.items()
        if not (in_blocks and judge.orders_lists) and not sessions[name].grades_documents
    }
    with Ledger(ledger) as opened:
        spending = Spending(budget or Budget(), *opened.spent(run))
        of_two = ensemble.model_copy(update={"judges": compares})
        yield VoteCollector(of_two, sessions, opened, spending, run)


def prepare_sessions(
    ensemble: Ensemble,
    data: Path,
    pairs: Mapping[str, Sequence[str]],
    seed: int,
    in_blocks: bool = False,
) -> dict[str, JudgeSession]:
    """Get all judges ready to be asked about `pairs`, or about blocks where they can.

    Raises `UserError` where two judges are one: its answer would be given once and counted twice.
    """
    sessions: dict[str, JudgeSession] = {}
    names: dict[str, str] = {}
    for name, judge in ensemble.judges.items():
        prepare = judge.prepare_lists if in_blocks and judge.orders_lists else judge.prepare
        session = prepare(data, pairs, derived_seed(seed, "judge", name))
        if not isinstance(session, LocalSession | RemoteSession):
            raise UserError(
                f"judge {name}: {type(judge).__name__}.prepare returned "
                f"{type(session).__name__}; a LocalSession or a RemoteSession is needed "
                f"(zelo.judging.base)"
            )
        sessions[name] = session
    if any(distinct_instructions(data)):
        deaf = [name for name, session in sessions.items() if not session.reads_instructions]
        if deaf:
            say(f"! judges that read no instructions answer by the query alone: {', '.join(deaf)}")
    for name, session in sessions.items():
        if session.logit_scale is not None:
            tell(f"{name}: P(a ≻ b) = sigmoid({session.logit_scale:g} · difference of its scores)")
        twin = names.setdefault(session.fingerprint, name)
        if twin != name:
            raise UserError(
                f"judge.judges: {twin} and {name} are the same judge (model, prompt and sampling), "
                f"whose one answer would count twice; for more answers of one judge set "
                f"judge.max_stderr, or give one of the two another temperature"
            )
    return sessions


def documents_of(q: Question) -> tuple[Question, Question]:
    """The questions about each document of a comparison by itself."""
    told = q.instructions
    first, second = (
        Question(query_id, doc_id, "", 0, query, text, "", instruction=told[side])
        for side, ((query_id, doc_id), (query, text)) in enumerate(zip(q.ids, q.pairs, strict=True))
    )
    return first, second


def presented(q: Question, repeat: int, place: int, both_orders: bool) -> list[Question]:
    """The comparison in the order that the judge at `place` sees, or in both.

    Which order a comparison stands in was drawn at random. From judge to judge and from repeat to
    repeat it is swapped, so that a leaning to the first document cancels out as far as it can.
    """
    orders = [replace(q, repeat=repeat), swapped(replace(q, repeat=repeat))]
    return orders if both_orders else [orders[(place + repeat) % 2]]
