"""What judges answer, what they are asked, and the ledger's keys."""

from __future__ import annotations

import json
import math
import random
import time
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

from benchmarks.fuzz.inputs import FOLDER, ODD, expect, mutated, odd_text
from zelo.data.token_estimate import estimated_tokens
from zelo.judging.endpoint import retry_after
from zelo.judging.ledger import Ledger, ledger_question
from zelo.judging.limits import Bucket
from zelo.judging.prompt import CONTROL, UNSEEN, messages, shown
from zelo.judging.question import Question
from zelo.judging.reply import Reply, as_asked_for, read_reply, read_tolerantly
from zelo.judging.spending import Price
from zelo.judging.wire import Wire

PERIODS = ("done.", "I think so", "", "the\nfinal", "Both are fine.")


Answer = tuple[str, float | None, str | None]


def draw_answer(rng: random.Random) -> Answer:
    """A well-formed answer: its text, the score it says, and the reasons if they are apart.

    The score is None where the answer says two.
    """
    if rng.random() < 0.05:
        one, two = rng.sample(("-1", "-0.5", "0", "0.5", "1"), 2)
        form = rng.choice((
            '{"score": ONE, "score": TWO}', '{"score": ONE} {"score": TWO}',
            "score: ONE\nscore: TWO",
            '{"a": {"score": ONE}, "b": {"score": TWO}}', '{"score": ONE, "b": {"score": TWO}}',
        ))  # fmt: skip
        return form.replace("ONE", one).replace("TWO", two), None, None
    score: float = rng.choice(
        (rng.uniform(-1, 1), round(rng.uniform(-1, 1), 2), -1, 0, 1, -0.0, 5e-324)
    )
    reasons = odd_text(rng)
    content = {"score": rng.choice((score, str(score))), "reasons": reasons}
    items = list(content.items())
    rng.shuffle(items)
    text = json.dumps(dict(items), ensure_ascii=rng.random() < 0.5, indent=rng.choice((None, 2)))
    match rng.randrange(6):
        case 0:
            return text, score, reasons
        case 1:
            return f"```json\n{text}\n```", score, reasons
        case 2:
            return f"{rng.choice(PERIODS)}\n{text}\n{rng.choice(PERIODS)}", score, reasons
        case 3:
            return f'{{"answer": {text}}}', score, reasons
        case 4:
            front, back = rng.choice((("", ""), ("**", "**"), ("> ", ""), ("`", "`")))
            minus = (
                repr(score).replace("-", rng.choice("-\u2212")) if "e" not in repr(score) else score
            )
            return f"{rng.choice(PERIODS)}\n{front}Score{back}: {minus}\n", score, None
        case _:
            return f" {score}\n", score, None


def check_answer(example: Answer) -> None:
    """What a well-formed answer says comes out; two scores are none."""
    text, score, reasons = example
    quick = as_asked_for(text)
    expect(quick in (None, read_tolerantly(text, True)), "read quickly, something else", text)
    check_thoughts(text, read_reply(text))
    reply = read_reply(text)
    if score is None:
        expect(reply.score is None, "one of two scores", text, reply)
        return
    expect(reply.problem == "" and reply.score == score, "another score", text, reply)
    expect(reasons is None or reply.reasons == reasons, "other reasons", text, reply)


def check_thoughts(text: str, plain: Reply) -> None:
    """Thoughts before an answer, whatever score they name, change nothing of it."""
    for form in ("<think>{}</think>", "{}</think>", "[THINK]{}[/THINK]\n"):
        for thought in ('{"score": -0.125}', "score: -0.125\n", "**A**\n", "{"):
            reply = read_reply(form.format(thought) + text)
            expect(
                (reply.score, reply.problem) == (plain.score, plain.problem),
                "a thought counts", form, thought, text, reply,
            )  # fmt: skip


def draw_noise(rng: random.Random) -> str:
    """A spoilt answer, or odd pieces alone."""
    return mutated(draw_answer(rng)[0] if rng.random() < 0.8 else odd_text(rng), rng)


def check_noise(text: str) -> None:
    """Any text is a score in [−1, 1] or has one of five problems, the quick way as the other."""
    quick = as_asked_for(text)
    expect(quick in (None, read_tolerantly(text, True)), "read quickly, something else", text)
    for whole in (True, False):
        reply = read_reply(text, whole)
        if reply.score is None:
            known = ("empty", "unparsable", "not_a_number", "out_of_range", "cut_off")
            expect(reply.problem in known, "no problem is named", reply)
        else:
            expect(-1 <= reply.score <= 1 and not reply.problem, "a score out of range", reply)
            expect(math.copysign(1, reply.score or 1) * abs(reply.score) == reply.score, "minus 0")


def check_long_reply(text: str) -> None:
    """The longest reply that is read takes a second at most, of a core."""
    start = time.process_time()
    read_reply(text)
    expect(time.process_time() - start < 1.5, "a reply takes seconds", text[:40], len(text))


def draw_long_reply(rng: random.Random) -> str:
    """A short pattern again and again."""
    pattern = "".join(rng.choices((*ODD, "score", ":", "1", "-", "the", "final ", "my\n"), k=2))
    return rng.choice(("", "score", "{", "the ")) + pattern * (50_000 // max(len(pattern), 1))


def draw_question(rng: random.Random) -> Question:
    """Ids and texts that differ in little, with the separators that keys might be joined by."""
    pool = ("", "a", "b", "\0", "a\0b", "b\0c", "c", "a\0", "\0a", "\ud800", "é", "e\u0301", "\n")
    q, a, b, text, text_a, text_b, other = rng.choices(pool, k=7)
    across = rng.random() < 0.3
    return Question(
        q, a, b, rng.randrange(2), text, text_a, text_b, rng.choice(pool) if across else None,
        other if across else "",
    )  # fmt: skip


def draw_questions(rng: random.Random) -> tuple[Question, Question, bool]:
    """Two questions, often alike, and whether their judge's answers depend on ids."""
    first, second = draw_question(rng), draw_question(rng)
    kept = rng.sample(("query_id", "doc_a", "doc_b", "repeat", "query", "text_a", "text_b"), 5)
    if rng.random() < 0.7:
        second = replace(second, **{name: getattr(first, name) for name in kept})
    if rng.random() < 0.5:
        second = replace(second, query_b=first.query_b, query_b_text=first.query_b_text)
    return first, second, rng.random() < 0.5


@cache
def ledger() -> Ledger:
    """An empty ledger."""
    return Ledger(FOLDER / "ledger.sqlite")


def check_keys(example: tuple[Question, Question, bool]) -> None:
    """Two questions have one key exactly where the same was asked."""
    first, second, by_ids = example
    ledger()._hashes.clear()
    keys = [ledger()._key("f", ledger_question(q, by_ids)) for q in (first, second)]

    def asked(q: Question) -> tuple[Any, ...]:
        across = None if q.query_b is None else q.query_b_text
        ids = (q.query_id, q.doc_a, q.doc_b, q.query_b) if by_ids else ()
        return (q.query, across, q.text_a, q.text_b, q.repeat, *ids)

    same = asked(first) == asked(second)
    expect((keys[0] == keys[1]) == same, f"keys {'differ' if same else 'collide'}", first, second)


def draw_prompt(rng: random.Random) -> tuple[Question, int, str]:
    """A question of hostile texts, how much of each is shown, and a code."""
    query, a, b, other = (mutated(odd_text(rng) * rng.choice((1, 1, 9)), rng) for _ in range(4))
    cross = rng.random() < 0.3
    question = Question(
        "q", "a", "b", 0, query, a, b, "r" if cross else None, other if cross else ""
    )
    return question, rng.choice((1, 2, 7, 100)), rng.choice(("0a1b", "a", "score", "{code}"))


def check_prompt(example: tuple[Question, int, str]) -> None:
    """Texts stand in their frames, cleaned and short enough; nothing in them leaves the frame."""
    question, limit, code = example
    said = messages(question, limit, code, "compare" if question.query_b is None else "cross")
    expect([m["role"] for m in said] == ["system", "user"], "not two messages", said)
    for text in (question.query, question.query_b_text, question.text_a, question.text_b):
        part, note = shown(text, limit)
        expect(estimated_tokens(part) <= limit, "longer than the limit", part, limit)
        expect(not UNSEEN.search(part), "unseen characters", part)
        expect(not CONTROL.search(part), "a control token", part)
        expect(part in said[1]["content"] and note in said[1]["content"], "not in the prompt", part)
    json.dumps(said).encode()


class Response:
    """What a session's `post` returns, without a network."""

    def __init__(self, raw: bytes, status: int, headers: dict[str, str]) -> None:
        self.raw, self.status, self.headers = raw, status, headers

    async def __aenter__(self) -> Response:
        return self

    async def __aexit__(self, *error: object) -> None:
        return None

    async def read(self) -> bytes:
        """The body."""
        return self.raw


def check_wire(example: tuple[bytes, int, str]) -> None:
    """Whatever an endpoint returns is an outcome of a known kind."""
    raw, status, wait = example
    headers = {"Retry-After": wait, "retry-after-ms": wait}
    wire = Wire.__new__(Wire)
    wire.key, wire.url, wire.price = "secret-key", "", Price(input=1, output=1)
    wire.provider = SimpleNamespace(timeout=1)  # type: ignore[assignment]
    answer = Response(raw, status, headers)
    wire.http = SimpleNamespace(post=lambda *_, **__: answer)  # type: ignore[assignment]
    try:
        wire._post(b"").send(None)
    except StopIteration as end:
        outcome, _ = end.value
    expect(outcome.usd >= 0 and isinstance(outcome.text, str), "no outcome", outcome)
    expect("secret-key" not in outcome.text, "the key is said", outcome)
    asked = retry_after(headers)
    expect(asked is None or 0 <= asked <= 3600, "no time to wait", asked)


def draw_gaps(rng: random.Random) -> tuple[float, list[float]]:
    """A limit per minute, and seconds between those who want to send."""
    longest = rng.choice((0.0, 0.01, 1.0, 5.0))
    gaps = [rng.uniform(0, longest) for _ in range(rng.randrange(1, 80))]
    return rng.choice((2.0, 60.0, rng.uniform(2, 100), rng.uniform(2, 10_000))), gaps


def check_bucket(example: tuple[float, list[float]]) -> None:
    """No minute has more requests than the limit."""
    per_minute, gaps = example
    bucket, now, sent = Bucket(per_minute), 0.0, []
    bucket.at = now
    for gap in gaps:
        now += gap
        now += bucket.wait(1.0, now)
        left = bucket.wait(1.0, now)
        expect(left < 1e-6, "waited too short", left, example)
        bucket.take(1.0)
        sent.append(now)
    for first in sent:
        count = sum(first <= at < first + 59.999 for at in sent)
        expect(count <= per_minute + 1e-6, "more than the limit", count, example)
