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
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from filelock import FileLock, Timeout

from zelo.judging.ledger import Ledger
from zelo.judging.limits import Limiter
from zelo.judging.protocol import Answer, Asking, Batched, PreparedJudge, Question, Remote
from zelo.judging.spending import Spending
from zelo.progress import Progress

FIRST_BATCH, LONGEST_BATCH = 32, 5.0  # questions, seconds: what a kill may cost a local judge
POLL = 0.05  # seconds


@dataclass
class Asked:
    """What became of the questions to all judges."""

    answers: dict[str, list[Answer | None]]  # by judge, in the order of its questions; None missing
    new: int = 0
    trouble: dict[str, Counter[str]] = field(default_factory=dict)  # failed attempts by kind
    down: dict[str, str] = field(default_factory=dict)  # judges given up, and why


def ask_all(
    judges: Mapping[str, PreparedJudge],
    questions: Mapping[str, Sequence[Question]],
    ledger: Ledger,
    spending: Spending,
    run: str,
) -> Asked:
    """Answers to each judge's questions: from the ledger, and the rest asked for.

    What is spent goes into the ledger under `run`. On Ctrl-C what is in flight is finished and
    written, then `KeyboardInterrupt` is raised.
    """
    found = {
        name: ledger.find(judges[name].fingerprint, asked) for name, asked in questions.items()
    }
    result = Asked(found)
    remote = [name for name in questions if isinstance(judges[name], Remote)]
    with contextlib.ExitStack() as stack:
        if any(None in found[name] for name in remote):
            # Those that compute here cost nothing, and may be asked by two processes at once.
            for fingerprint in sorted({judges[name].fingerprint for name in remote}):  # one order
                stack.enter_context(exclusively(ledger, fingerprint))
            for name in remote:
                found[name] = ledger.find(judges[name].fingerprint, questions[name])
        missing = {
            name: list(unanswered(questions[name], answers))
            for name, answers in found.items()
            if None in answers
        }
        for name in missing:
            judge = judges[name]
            if isinstance(judge, Remote):
                judge.ready(spending)
        if missing:
            Session(judges, missing, ledger, spending, run, result).go()
    for name in missing:
        found[name] = ledger.find(judges[name].fingerprint, questions[name])
    return result


def unanswered(
    questions: Sequence[Question], answers: Sequence[Answer | None]
) -> Iterator[Question]:
    """Questions without an answer, each once though it be asked of two pairs of equal texts."""
    seen = set()
    for question, answer in zip(questions, answers, strict=True):
        key = (question.query, question.text_a, question.text_b, question.repeat)
        if answer is None and key not in seen:
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
        ledger: Ledger,
        spending: Spending,
        run: str,
        result: Asked,
    ) -> None:
        self.judges, self.missing, self.ledger = judges, missing, ledger
        self.spending, self.run, self.result = spending, run, result
        self.came: queue.SimpleQueue[tuple[str, Question, Answer]] = queue.SimpleQueue()
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
                    self._write()
                    progress.show(self.result.new, self._note())
        except BaseException:
            if thread.is_alive():
                self.loop.call_soon_threadsafe(self.stop.set)
            raise
        finally:
            progress.close()
        if self.failure is not None:
            raise self.failure
        self._report()
        if self.interrupted:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def _on_interrupt(self) -> Iterator[None]:
        """Ctrl-C lets what is in flight come home; a second one does not wait for it."""

        def stop(number: int, frame: object) -> None:
            if self.interrupted:
                raise KeyboardInterrupt
            self.interrupted = True
            self.loop.call_soon_threadsafe(self.stop.set)
            flying = self.spending.open
            what = f"{flying} requests in flight" if flying else "what is being computed"
            print(f"\n  finishing {what}; Ctrl-C again abandons it", file=sys.stderr, flush=True)

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _write(self) -> None:
        """Put all answers that came into the ledger, waiting for one if there is none."""
        try:
            rows = [self.came.get(timeout=POLL)]
        except queue.Empty:
            rows = []
        with contextlib.suppress(queue.Empty):
            while True:
                rows.append(self.came.get_nowait())
        spent = (self.run, self.spending.calls, self.spending.usd)
        if rows or spent != self.spent:
            self.spent = spent
            self.ledger.keep(
                [(self.judges[name].fingerprint, q, answer) for name, q, answer in rows], spent
            )
        self.result.new += len(rows)

    def _note(self) -> str:
        """Money spent and failed attempts by kind, for the progress line."""
        kinds: Counter[str] = sum(self.result.trouble.values(), Counter())
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
                        group.create_task(self._ask_remote(name, judge, questions, limiters))
                    else:
                        group.create_task(self._ask_here(name, judge, questions, pool))

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
            deliver=lambda question, answer: came.put((name, question, answer)),
            trouble=count,
            spending=self.spending,
            limiters=limiters,
            stop=self.stop,
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
        """Batches that grow while they are quick."""
        size, start = FIRST_BATCH, 0
        while start < len(questions) and not self.stop.is_set():
            batch = questions[start : start + size]
            began = time.monotonic()
            answers = await self.loop.run_in_executor(pool, judge.answer, batch)
            for question, answer in zip(batch, answers, strict=True):
                self.came.put((name, question, answer))
            start += len(batch)
            if time.monotonic() - began < LONGEST_BATCH / 2:
                size = min(2 * size, 4096)


def only(error: BaseException) -> BaseException:
    """The one error in a group of errors, however deep; the group where there are several."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
