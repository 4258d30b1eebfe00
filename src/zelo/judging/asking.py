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
from zelo.judging.ledger import Ledger
from zelo.judging.limits import Limiter
from zelo.judging.probe import Consistency
from zelo.judging.protocol import (
    Answer,
    Asking,
    Batched,
    PreparedJudge,
    Question,
    Remote,
    checked,
    filed,
)
from zelo.judging.spending import Spending
from zelo.progress import Progress

LOT = 1024  # questions that a judge here is asked at once: what a kill may cost
POLL = 0.05  # seconds
LEAST_ROOM = 4 * 2**20  # bytes on the ledger's disk below which nothing more is asked
PATIENCE = 120.0  # seconds that what is in flight is waited for when the ledger cannot be written
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


@dataclass
class Asked:
    """What became of the questions to all judges."""

    answers: dict[str, list[Answer | None]]  # by judge, in the order of its questions; None missing
    new: int = 0
    trouble: dict[str, Counter[str]] = field(default_factory=dict)  # failed attempts by kind
    down: dict[str, str] = field(default_factory=dict)  # judges given up, and why
    probed: dict[str, Consistency] = field(default_factory=dict)  # judges asked in both orders


def ask_all(
    judges: Mapping[str, PreparedJudge],
    questions: Mapping[str, Sequence[Question]],
    ledger: Ledger,
    spending: Spending,
    run: str,
    retry: int = 0,
) -> Asked:
    """Answers to each judge's questions: from the ledger, and the rest asked for.

    A failure is an answer, and asked again only up to `retry` times. What is spent goes into the
    ledger under `run`. On Ctrl-C what is in flight is finished and
    written, then `KeyboardInterrupt` is raised.
    """
    filings = {name: [filed(judges[name], q) for q in asked] for name, asked in questions.items()}

    def look(name: str) -> list[Answer | None]:
        keys[name], answers = search(ledger, judges[name].fingerprint, filings[name], retry)
        return answers

    keys: dict[str, list[str]] = {}
    found = {name: look(name) for name in questions}
    result = Asked(found)
    remote = [name for name in questions if isinstance(judges[name], Remote)]
    with contextlib.ExitStack() as stack:
        if any(None in found[name] for name in remote):
            # Those that compute here cost nothing, and may be asked by two processes at once.
            for fingerprint in sorted({judges[name].fingerprint for name in remote}):  # one order
                stack.enter_context(exclusively(ledger, fingerprint))
            for name in remote:
                found[name] = look(name)
        missing = {
            name: list(unanswered(questions[name], filings[name], answers))
            for name, answers in found.items()
            if None in answers
        }
        for name in missing:
            judge = judges[name]
            if isinstance(judge, Remote):
                judge.ready(spending)
        if missing:
            kept_under = {
                name: {known_by(q): key for q, key in zip(filings[name], keys[name], strict=True)}
                for name in missing
            }
            session = Session(judges, missing, kept_under, ledger, spending, run, result)
            session.go()
    for name in missing:
        given = session.given[name]
        found[name] = [
            given.get(known_by(q)) if answer is None else answer
            for q, answer in zip(filings[name], found[name], strict=True)
        ]
    return result


def search(
    ledger: Ledger, fingerprint: str, filings: Sequence[Question], retry: int
) -> tuple[list[str], list[Answer | None]]:
    """The key under which an answer to each question is kept, and the answer if there is one.

    That to a question that failed and is asked again has a key of its own, so that what is paid
    for is never written over, and a killed run asks nothing twice.
    """
    keys, answers = [fingerprint] * len(filings), ledger.find(fingerprint, filings)
    for number in range(1, retry + 1):
        failed = [i for i, a in enumerate(answers) if a is not None and a.score is None]
        again = f"{fingerprint}+{number}"
        for i, answer in zip(failed, ledger.find(again, [filings[i] for i in failed]), strict=True):
            keys[i], answers[i] = again, answer
    return keys, answers


def known_by(filing: Question) -> tuple[str, str, str, int]:
    """What tells one filed question of a judge from another."""
    return filing.query, filing.text_a, filing.text_b, filing.repeat


def unanswered(
    questions: Sequence[Question], filings: Sequence[Question], answers: Sequence[Answer | None]
) -> Iterator[Question]:
    """Questions without an answer, each once though it be asked of two pairs of equal texts."""
    seen = set()
    for question, filing, answer in zip(questions, filings, answers, strict=True):
        if answer is None and (key := known_by(filing)) not in seen:
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


class Session:
    """One round of asking."""

    def __init__(
        self,
        judges: Mapping[str, PreparedJudge],
        missing: Mapping[str, Sequence[Question]],
        keys: Mapping[str, Mapping[tuple[str, str, str, int], str]],
        ledger: Ledger,
        spending: Spending,
        run: str,
        result: Asked,
    ) -> None:
        self.judges, self.missing, self.keys, self.ledger = judges, missing, keys, ledger
        self.usable = {name for name in missing if ledger.has_usable(judges[name].fingerprint)}
        self.spending, self.run, self.result = spending, run, result
        self.came: queue.SimpleQueue[list[tuple[str, Question, Answer]]] = queue.SimpleQueue()
        self.given: dict[str, dict[tuple[str, str, str, int], Answer]] = {n: {} for n in missing}
        self.unwritten: list[tuple[str, Question, Answer]] = []
        self.uncovered: list[tuple[int, asyncio.Future[None]]] = []  # reservation, who waits for it
        self.failures: dict[str, BaseException] = {}  # by judge
        self.failure: BaseException | None = None
        self.interrupted = False
        self.spent = (run, spending.calls, spending.usd)  # as the ledger has it
        self.loop = asyncio.new_event_loop()
        self.stop = asyncio.Event()
        result.trouble = {name: Counter() for name in missing}

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
                    alive = thread.is_alive()
                    self._room()
                    self._write()
                    progress.show(self.result.new, self._note())
        except UserError as error:
            self._call(self.stop.set)
            self._come_home(thread)
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

    def _room(self) -> None:
        """`UserError` where what is in flight may soon not fit on the disk."""
        if (free := self.ledger.free()) < LEAST_ROOM:
            raise UserError(
                f"{self.ledger.path}: only {free // 1024:,} KiB are left on its disk, and answers "
                f"that are paid for must fit there; make room and run the same command again"
            )

    def _come_home(self, thread: threading.Thread) -> None:
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
            flying = self.spending.open
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

    def _write(self) -> None:
        """Put all answers that came into the ledger, waiting for one if there is none."""
        with contextlib.suppress(queue.Empty):
            came = self.came.get(timeout=POLL)
            while True:
                self.unwritten += came
                came = self.came.get_nowait()
        rows = [
            (name, filed(self.judges[name], question), checked(answer))
            for name, question, answer in self.unwritten
        ]
        spent = (self.run, self.spending.calls, self.spending.usd)
        if rows or spent != self.spent:
            self.ledger.keep(
                [(self.keys[name][known_by(q)], q, answer) for name, q, answer in rows], spent
            )
            self.spent = spent
            if self.uncovered:
                self._call(self._release, spent[1])
        self.unwritten = []
        for name, q, answer in rows:  # in the ledger, so that they may be used
            self.given[name][known_by(q)] = answer
        self.result.new += len(rows)

    async def _covered(self) -> None:
        """Wait until the ledger counts every request reserved so far, if there is a budget.

        A run that is killed then knows no less than it may have spent.
        """
        if self.spending.budget.limited:
            future = self.loop.create_future()
            self.uncovered.append((self.spending.calls, future))
            self.came.put([])
            await future

    def _release(self, calls: int) -> None:
        """Let those go on whose reservation is among the first `calls`."""
        waiting, self.uncovered = self.uncovered, []
        for number, future in waiting:
            if number > calls:
                self.uncovered.append((number, future))
            elif not future.done():
                future.set_result(None)

    def _note(self) -> str:
        """Money spent and failed attempts by kind, for the progress line."""
        # Copies, since the asking thread goes on counting.
        kinds = sum((Counter(dict(k)) for k in self.result.trouble.values()), Counter[str]())
        money = [f"${self.spending.usd:.2f}"] if self.spending.usd else []
        return ", ".join([*money, *(f"{kind} {n}" for kind, n in kinds.most_common(3))])

    def _report(self) -> None:
        """Say which judges had trouble, and of what kinds."""
        for name, kinds in self.result.trouble.items():
            if kinds:
                listed = ", ".join(f"{kind} {n:,}" for kind, n in kinds.most_common())
                print(f"  {name}: failed attempts: {listed}", file=sys.stderr, flush=True)
        for name, why in self.result.down.items():
            print(f"  {name}: given up: {why}", file=sys.stderr, flush=True)

    def _ask(self) -> None:
        """The asking thread."""
        try:
            self.loop.run_until_complete(self._ask_each())
        except BaseException as error:
            self.failure = only(error)
        finally:
            self.loop.close()

    async def _ask_each(self) -> None:
        limiters: dict[str, Limiter] = {}
        with ThreadPoolExecutor(1, "judge") as pool:
            async with asyncio.TaskGroup() as group:
                for name, questions in self.missing.items():
                    judge = self.judges[name]
                    if isinstance(judge, Remote):
                        asking = self._ask_remote(name, judge, questions, limiters)
                    else:
                        asking = self._ask_here(name, judge, questions, pool)
                    group.create_task(self._guarded(name, asking))

    async def _guarded(self, name: str, asking: Coroutine[Any, Any, None]) -> None:
        """Give a judge up that breaks, so that the others go on."""
        try:
            await asking
        except Exception as error:
            self.failures[name] = first = only(error)
            self.result.down[name] = in_words(first)

    async def _ask_remote(
        self,
        name: str,
        judge: Remote,
        questions: Sequence[Question],
        limiters: dict[str, Limiter],
    ) -> None:
        came, trouble = self.came, self.result.trouble[name]

        def count(kind: str) -> None:
            trouble[kind] += 1

        asking = Asking(
            deliver=lambda question, answer: came.put([(name, question, answer)]),
            trouble=count,
            spending=self.spending,
            limiters=limiters,
            stop=self.stop,
            covered=self._covered,
            usable=name in self.usable,
        )
        await judge.answer_each(questions, asking)
        if asking.down:
            self.result.down[name] = asking.down

    async def _ask_here(
        self,
        name: str,
        judge: Batched,
        questions: Sequence[Question],
        pool: ThreadPoolExecutor,
    ) -> None:
        """Lots of the questions that are missing, each written whole or not at all.

        A model's answers depend in their last bits on what it reads at the same time. Lots are cut
        at the same places whatever is answered already, so that after a kill those that are left
        are asked as they would have been.
        """
        size = getattr(judge, "lot", LOT)
        for start in range(0, len(questions), size):
            if self.stop.is_set():
                return
            lot = questions[start : start + size]
            answers = await self.loop.run_in_executor(pool, judge.answer, lot)
            self.came.put([(name, q, a) for q, a in zip(lot, answers, strict=True)])


def only(error: BaseException) -> BaseException:
    """The first error in a group of errors, however deep."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
