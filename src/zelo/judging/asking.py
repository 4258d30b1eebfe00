"""Asking all judges at once; each answer is in the ledger before anyone uses it.

An event loop in a thread of its own asks; this thread writes what comes to the ledger, many
answers in one transaction, and shows how far it is. Judges that compute here take turns in a
second thread. A process holds a lock for every remote judge it asks, so that another one with the
same ledger waits and then finds the answers there.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from filelock import FileLock, Timeout

from zelo.errors import UserError, in_words
from zelo.judging.base import JudgeSession, LocalSession, RemoteSession, RequestContext
from zelo.judging.ledger import Ledger, ledger_question
from zelo.judging.limits import Limiter
from zelo.judging.question import Answer, Question, checked
from zelo.judging.spending import Spending
from zelo.progress import Progress

WRITE_EVERY = 0.05  # seconds: how often what came is written
LEAST_FREE = 4 * 2**20  # bytes on the ledger's disk below which nothing more is asked
PATIENCE = 120.0  # seconds that what is in flight is waited for when the ledger cannot be written
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


TextKey = tuple[str, str, str, int]  # what tells one `ledger_question` of a judge from another


@dataclass
class AskOutcome:
    """What became of the questions to all judges."""

    answers: dict[str, list[Answer | None]]  # by judge, in the order of its questions; None missing
    new_answers: int = 0  # that the ledger did not have
    failed_attempts: dict[str, Counter[str]] = field(default_factory=dict)  # by judge and kind
    given_up: dict[str, str] = field(default_factory=dict)  # judges, and why


def ask_all(
    sessions: Mapping[str, JudgeSession],
    questions: Mapping[str, Sequence[Question]],
    ledger: Ledger,
    spending: Spending,
    run: str,
    retry: int = 0,
) -> AskOutcome:
    """Answers to each judge's questions: from the ledger, and the rest asked for.

    A failure is an answer, and asked again only up to `retry` times. What is spent goes into the
    ledger under `run`. On Ctrl-C what is in flight is finished and written, then
    `KeyboardInterrupt` is raised.
    """
    known = {
        name: [as_known(sessions[name], question) for question in asked]
        for name, asked in questions.items()
    }

    def look(name: str) -> list[Answer | None]:
        times = retry if sessions[name].can_be_asked else 0
        fingerprints[name], answers = find_answers(
            ledger, sessions[name].fingerprint, known[name], times
        )
        return answers

    fingerprints: dict[str, list[str]] = {}
    found = {name: look(name) for name in questions}
    outcome = AskOutcome(found)
    remote = {
        name: session for name in questions if isinstance(session := sessions[name], RemoteSession)
    }
    with contextlib.ExitStack() as stack:
        if any(None in found[name] for name in remote):
            # Those that compute here cost nothing, and may be asked by two processes at once.
            one_order = sorted({session.fingerprint for session in remote.values()})
            for fingerprint in one_order:
                stack.enter_context(exclusively(ledger, fingerprint))
            for name in remote:
                found[name] = look(name)
        missing = {
            name: list(unanswered(questions[name], known[name], answers))
            for name, answers in found.items()
            if None in answers
        }
        for name, session in remote.items():
            if name in missing:
                session.check(spending)
        if missing:
            kept_under = {
                name: dict(zip(map(text_key, known[name]), fingerprints[name], strict=True))
                for name in missing
            }
            asking = AskingRound(sessions, missing, kept_under, ledger, spending, run, outcome)
            asking.go()
    for name in missing:
        given = asking.given[name]
        found[name] = [
            given.get(text_key(q)) if answer is None else answer
            for q, answer in zip(known[name], found[name], strict=True)
        ]
    return outcome


def find_answers(
    ledger: Ledger, fingerprint: str, questions: Sequence[Question], retry: int
) -> tuple[list[str], list[Answer | None]]:
    """The fingerprint under which the answer to each `ledger_question` is kept, and the answer if
    there is one.

    An answer to a question that failed and is asked again has a fingerprint of its own, so that
    what is paid for is never written over, and a killed run asks nothing twice.
    """
    fingerprints, answers = [fingerprint] * len(questions), ledger.find(fingerprint, questions)
    for number in range(1, retry + 1):
        failed = [i for i, a in enumerate(answers) if a is not None and a.score is None]
        again = f"{fingerprint}+{number}"
        found = ledger.find(again, [questions[i] for i in failed])
        for i, answer in zip(failed, found, strict=True):
            fingerprints[i], answers[i] = again, answer
    return fingerprints, answers


def as_known(session: JudgeSession, question: Question) -> Question:
    """The question to a judge as the ledger knows it."""
    return ledger_question(question, session.depends_on_ids, session.reads_instructions)


def text_key(q: Question) -> TextKey:
    """Texts and repeat of a `ledger_question`."""
    return q.query, q.text_a, q.text_b, q.repeat


def unanswered(
    questions: Sequence[Question], known: Sequence[Question], answers: Sequence[Answer | None]
) -> Iterator[Question]:
    """Questions without an answer; of several with equal texts the first alone."""
    seen = set()
    for question, as_known, answer in zip(questions, known, answers, strict=True):
        if answer is None and (key := text_key(as_known)) not in seen:
            seen.add(key)
            yield question


@contextlib.contextmanager
def exclusively(ledger: Ledger, fingerprint: str) -> Iterator[None]:
    """Be the only process that asks one judge for this ledger; a killed one holds no lock."""
    lock = FileLock(ledger.path.with_name(f".{ledger.path.name}.{fingerprint}.lock"))
    try:
        lock.acquire(timeout=0.2)
    except Timeout:
        print("  waiting for another process that asks the same judge", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


class AskingRound:
    """Asks all judges the questions that the ledger has no answer to."""

    def __init__(
        self,
        sessions: Mapping[str, JudgeSession],
        missing: Mapping[str, Sequence[Question]],
        fingerprints: Mapping[str, Mapping[TextKey, str]],
        ledger: Ledger,
        spending: Spending,
        run: str,
        outcome: AskOutcome,
    ) -> None:
        self.sessions, self.missing, self.fingerprints = sessions, missing, fingerprints
        self.ledger, self.spending, self.run, self.outcome = ledger, spending, run, outcome
        self.usable = {name for name in missing if ledger.has_usable(sessions[name].fingerprint)}
        self.came: queue.SimpleQueue[list[tuple[str, Question, Answer]]] = queue.SimpleQueue()
        self.given: dict[str, dict[TextKey, Answer]] = {n: {} for n in missing}
        self.unwritten: list[tuple[str, Question, Answer]] = []
        self.unrecorded: list[tuple[int, asyncio.Future[None]]] = []  # reservation, and its future
        self.failures: dict[str, BaseException] = {}  # by judge
        self.failure: BaseException | None = None
        self.interrupted = False
        self.ended = False  # the asking thread will put nothing more into `came`
        self.spent = (run, spending.calls, spending.usd)  # as the ledger has it
        self.loop = asyncio.new_event_loop()
        self.stop = asyncio.Event()
        outcome.failed_attempts = {name: Counter() for name in missing}

    def go(self) -> None:
        """Ask everything, write what comes, and return when nothing more will come."""
        names = list(self.missing)
        whom = names[0] if len(names) == 1 else f"{len(names)} judges"
        progress = Progress(sum(map(len, self.missing.values())), f"asking {whom}")
        thread = threading.Thread(target=self._ask, name="asking", daemon=True)
        try:
            with self._on_interrupt():
                thread.start()
                alive = True
                while alive or not self.came.empty():
                    alive = not self.ended
                    self._check_disk()
                    self._write(WRITE_EVERY if alive else 0.0)
                    progress.show(self.outcome.new_answers, self._note())
        except UserError as error:
            self._call(self.stop.set)
            self._write_what_is_in_flight(thread)
            left = len(self.unwritten)
            lost = f"; {left:,} answers that were paid for are lost" if left else ""
            raise UserError(f"{error}; what was in flight was waited for{lost}") from None
        except BaseException:
            self._call(self.stop.set)
            with contextlib.suppress(UserError):
                self._write()  # what came meanwhile, and what an interrupted write did not keep
            raise
        finally:
            progress.close()
        if self.failure is None and len(self.failures) == len(self.missing):
            self.failure = next(iter(self.failures.values()))  # nobody else was asked
        if self.failure is not None:
            raise self.failure
        self._report()
        if self.interrupted:
            raise KeyboardInterrupt

    def _check_disk(self) -> None:
        """`UserError` where what is in flight may soon not fit on the disk."""
        if (free := self.ledger.free()) < LEAST_FREE:
            raise UserError(
                f"{self.ledger.path}: only {free // 1024:,} KiB are left on its disk, and answers "
                f"that are paid for must fit there; make room and run the same command again"
            )

    def _write_what_is_in_flight(self, thread: threading.Thread) -> None:
        """Write what is still in flight, as far as that can be done."""
        end, alive = time.monotonic() + PATIENCE, True
        while alive and time.monotonic() < end:
            alive = thread.is_alive()
            with contextlib.suppress(UserError):
                self._write()
        with contextlib.suppress(UserError):
            self._write()

    @contextlib.contextmanager
    def _on_interrupt(self) -> Iterator[None]:
        """Ctrl-C lets what is in flight come home, as what ends a job does; a second one does not
        wait for it."""

        def stop(number: int, frame: object) -> None:
            if self.interrupted:
                raise KeyboardInterrupt
            self.interrupted = True
            self._call(self.stop.set)
            flying = self.spending.open - self.spending.batched
            what = f"{flying} requests in flight" if flying else "what is being computed"
            print(f"\n  finishing {what}; Ctrl-C again abandons it", file=sys.stderr, flush=True)

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, stop) for number in INTERRUPTS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        """Have the asking thread call a function, if it is still there."""
        with contextlib.suppress(RuntimeError):  # its loop is closed
            self.loop.call_soon_threadsafe(function, *arguments)

    def _write(self, wait: float = WRITE_EVERY) -> None:
        """Put all answers that came into the ledger, waiting so long for one if there is none."""
        with contextlib.suppress(queue.Empty):
            came = self.came.get(timeout=wait)
            while True:
                self.unwritten += came
                came = self.came.get_nowait()
        rows = [
            (name, self._as_known(name, question), checked(answer))
            for name, question, answer in self.unwritten
        ]
        spent = (self.run, self.spending.calls, self.spending.usd)
        if rows or spent != self.spent:
            self.ledger.keep(
                [(self.fingerprints[name][text_key(q)], q, answer) for name, q, answer in rows],
                spent,
            )
            self.spent = spent
        if self.unrecorded:  # also where it was written before somebody began to wait for it
            self._call(self._release, spent[1])
        self.unwritten = []
        for name, q, answer in rows:  # in the ledger, so that they may be used
            self.given[name][text_key(q)] = answer
        self.outcome.new_answers += len(rows)

    def _as_known(self, name: str, question: Question) -> Question:
        return as_known(self.sessions[name], question)

    async def _spending_recorded(self) -> None:
        """Wait until the ledger counts every request reserved so far, if there is a budget.

        A run that is killed then knows no less than it may have spent.
        """
        if self.spending.budget.limited:
            future = self.loop.create_future()
            self.unrecorded.append((self.spending.calls, future))
            self.came.put([])
            await future

    def _release(self, calls: int) -> None:
        """Let those go on whose reservation is among the first `calls`."""
        waiting, self.unrecorded = self.unrecorded, []
        for number, future in waiting:
            if number > calls:
                self.unrecorded.append((number, future))
            elif not future.done():
                future.set_result(None)

    def _note(self) -> str:
        """Money spent and failed attempts by kind, for the progress line."""
        # Copies, since the asking thread goes on counting.
        copies = (Counter(dict(kinds)) for kinds in self.outcome.failed_attempts.values())
        kinds = sum(copies, Counter[str]())
        money = [f"${self.spending.usd:.2f}"] if self.spending.usd else []
        return ", ".join([*money, *(f"{kind} {n}" for kind, n in kinds.most_common(3))])

    def _report(self) -> None:
        """Say which judges had trouble, and of what kinds."""
        for name, kinds in self.outcome.failed_attempts.items():
            if kinds:
                listed = ", ".join(f"{kind} {n:,}" for kind, n in kinds.most_common())
                print(f"  {name}: failed attempts: {listed}", file=sys.stderr, flush=True)
        for name, why in self.outcome.given_up.items():
            print(f"  {name}: given up: {why}", file=sys.stderr, flush=True)

    def _ask(self) -> None:
        """The asking thread."""
        try:
            self.loop.run_until_complete(self._ask_each())
        except BaseException as error:
            self.failure = first_of(error)
        finally:
            self.loop.close()
            self.ended = True
            self.came.put([])  # so that nobody waits for more

    async def _ask_each(self) -> None:
        limiters: dict[str, Limiter] = {}
        with ThreadPoolExecutor(1, "judge") as pool:
            async with asyncio.TaskGroup() as group:
                for name, questions in self.missing.items():
                    session = self.sessions[name]
                    if isinstance(session, RemoteSession):
                        asking = self._ask_remote(name, session, questions, limiters)
                    else:
                        assert isinstance(session, LocalSession)
                        asking = self._ask_local(name, session, questions, pool)
                    group.create_task(self._guarded(name, asking))

    async def _guarded(self, name: str, asking: Coroutine[Any, Any, None]) -> None:
        """Give a judge up that breaks, so that the others go on."""
        try:
            await asking
        except Exception as error:
            self.failures[name] = first = first_of(error)
            self.outcome.given_up[name] = in_words(first)

    async def _ask_remote(
        self,
        name: str,
        session: RemoteSession,
        questions: Sequence[Question],
        limiters: dict[str, Limiter],
    ) -> None:
        came, failed_attempts = self.came, self.outcome.failed_attempts[name]

        def count(kind: str) -> None:
            failed_attempts[kind] += 1

        context = RequestContext(
            deliver=lambda question, answer: came.put([(name, question, answer)]),
            count_failure=count,
            spending=self.spending,
            limiters=limiters,
            stop=self.stop,
            spending_recorded=self._spending_recorded,
            ledger=self.ledger.path,
            run=self.run,
            kept_under=lambda q: self.fingerprints[name][text_key(self._as_known(name, q))],
            has_usable_answer=name in self.usable,
        )
        await session.answer_each(questions, context)
        if context.given_up:
            self.outcome.given_up[name] = context.given_up

    async def _ask_local(
        self,
        name: str,
        session: LocalSession,
        questions: Sequence[Question],
        pool: ThreadPoolExecutor,
    ) -> None:
        """Batches of the questions that are missing, each written whole or not at all.

        A model's answers depend in their last bits on what it reads at the same time. Batches
        are the same whatever is answered already, so that after a kill those that are left are
        asked as they would have been.
        """
        size = session.questions_per_batch
        for start in range(0, len(questions), size):
            if self.stop.is_set():
                return
            batch = questions[start : start + size]
            answers = await self.loop.run_in_executor(pool, session.answer, batch)
            self.came.put([(name, q, a) for q, a in zip(batch, answers, strict=True)])


def first_of(error: BaseException) -> BaseException:
    """The first error in a group of errors, however deep."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
