"""Judges that are shown a whole block of documents and order it, in place of two at a time.

What such a judge is asked and answers goes through the ledger as comparisons do: the question's
`doc_a` and `text_a` hold the block's ids and texts, in the order shown, as JSON; the answer has a
score of 0, and `reasons` hold its places (`zelo.judging.list_reply`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from zelo.artifacts import Table, read_table, table
from zelo.comparison.blocks import Block
from zelo.data.texts import document_texts, query_instructions, query_texts
from zelo.judging.list_reply import ListReply
from zelo.judging.question import ANSWERED, FAILED, MISSING, Answer, Question
from zelo.rating.rate_lists import which_is_above

UNTOLD = "untold"  # a pair of which no order says which is better
HAS_ORDER = 0.0  # the score of an answer that is an order


def read_blocks(comparisons: Path) -> list[Block]:
    """The blocks that a sampler drew; none where it drew pairs."""
    if not (comparisons / "blocks.parquet").is_file():
        return []
    rows = read_table(comparisons, "blocks")
    names = ("query_id", "block", "doc_ids")
    return [Block(*row) for row in zip(*(rows[name].to_pylist() for name in names), strict=True)]


def list_questions(
    blocks: Sequence[Block], data: Path, earlier: Sequence[Block] = ()
) -> list[Question]:
    """The question about each block; of equal ones `repeat` counts how often it came before, in
    `earlier` rounds too."""
    queries, told = query_texts(data), query_instructions(data)
    texts = document_texts(data, {doc_id for block in blocks for doc_id in block.doc_ids})
    before = Counter((block.query_id, *block.doc_ids) for block in earlier)
    questions = []
    for block in blocks:
        key = (block.query_id, *block.doc_ids)
        questions.append(
            Question(
                block.query_id,
                json.dumps(block.doc_ids),
                "",
                before[key],
                queries[block.query_id],
                json.dumps([texts[doc_id] for doc_id in block.doc_ids], ensure_ascii=False),
                "",
                instruction=told.get(block.query_id, ""),
            )
        )
        before[key] += 1
    return questions


def shown_ids(question: Question) -> list[str]:
    """Ids of the documents of a block, in the order shown."""
    ids: list[str] = json.loads(question.doc_a)
    return ids


def shown_texts(question: Question) -> list[str]:
    """Their texts."""
    texts: list[str] = json.loads(question.text_a)
    return texts


def list_answer(reply: ListReply) -> Answer:
    """An order, as an answer that costs nothing."""
    return Answer(HAS_ORDER, reasons=reply.as_json())


def reply_in(answer: Answer | None) -> ListReply | None:
    """The order that an answer holds; None where there is none."""
    return None if answer is None or answer.score is None else ListReply.from_json(answer.reasons)


ByBlock = Mapping[str, Sequence[Answer | None]]  # by judge, in the order of the blocks


def list_judgments(
    blocks: Sequence[Block], answers: ByBlock, weights: Mapping[str, float]
) -> Table:
    """The table `list_judgments`: what each judge said of each block."""
    rows = [
        (block, name, answer, reply_in(answer))
        for name, given in answers.items()
        for block, answer in zip(blocks, given, strict=True)
    ]
    return table(
        "list_judgments",
        query_id=[block.query_id for block, *_ in rows],
        block=[block.number for block, *_ in rows],
        judge=[name for _, name, *_ in rows],
        doc_ids=[block.doc_ids for block, *_ in rows],
        places=[reply.places if reply else None for *_, reply in rows],
        relevant=[reply.relevant if reply else None for *_, reply in rows],
        status=[answer.status if answer else MISSING for *_, answer, _ in rows],
        reasons=["" if reply or not answer else answer.reasons for *_, answer, reply in rows],
        weight=[weights[name] for _, name, *_ in rows],
    )


def implied(
    comparisons: Sequence[Question], blocks: Sequence[Block], answers: Sequence[Answer | None]
) -> Iterator[Answer | None]:
    """What a judge's orders say of each comparison.

    −1 where the first document is above the other in all blocks that have both, +1 where it is
    below, 0 for a tie, the mean where blocks differ. A failure of kind `UNTOLD` where orders do not
    tell; None where none of the blocks was reached.
    """
    said: dict[tuple[str, str, str], list[float]] = {}
    status: dict[tuple[str, str, str], str] = {}  # of what is not said
    wanted = {(q.query_id, *sorted((q.doc_a, q.doc_b))) for q in comparisons}
    for block, answer in zip(blocks, answers, strict=True):
        reply = reply_in(answer)
        places = reply.places if reply else [None] * len(block.doc_ids)
        for shown in combinations(zip(block.doc_ids, places, strict=True), 2):
            (first, higher), (second, lower) = sorted(shown, key=lambda one: one[0])
            key = (block.query_id, first, second)
            if key not in wanted:
                continue
            if answer is not None and status.get(key) != UNTOLD:
                status[key] = UNTOLD if reply else FAILED
            if (score := which_is_above(higher, lower)) is not None:
                said.setdefault(key, []).append(score)
    for q in comparisons:
        first, second = sorted((q.doc_a, q.doc_b))
        key = (q.query_id, first, second)
        if key in said:
            mean = float(np.mean(said[key]))
            yield Answer(mean if first == q.doc_a else -mean, ANSWERED)
        else:
            yield Answer(None, status[key]) if key in status else None


def label_counts(answers: ByBlock) -> dict[str, float]:
    """How many labels were missing, made up or doubled in all orders, and which share of the
    documents was called relevant, where that was said."""
    replies = [reply for given in answers.values() for a in given if (reply := reply_in(a))]
    counts: dict[str, float] = {
        kind: sum(getattr(reply, kind) for reply in replies)
        for kind in ("missing", "invented", "doubled")
    }
    said = [(r.relevant, len(r.places)) for r in replies if r.relevant is not None]
    if said:
        counts["relevant"] = round(sum(n for n, _ in said) / sum(of for _, of in said), 4)
    return counts
