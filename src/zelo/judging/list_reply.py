"""The reply of a judge that was shown several documents: read tolerantly, understood strictly.

A label that is missing, made up, or at two places is counted, and nothing is guessed of its
document. Of a reply that was cut off the documents that it does not come to are below those that it
names: the best stand first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from zelo.judging.objects import objects
from zelo.judging.thoughts import answer_and_thoughts
from zelo.rating.rate_lists import BELOW

LABEL = re.compile(r"(?<![A-Za-z0-9])[A-Za-z][0-9](?![A-Za-z0-9])")
CHAIN = re.compile(rf"\W*{LABEL.pattern}(?:[\s*`]*[>=,~][\s*`]*{LABEL.pattern})+\W*")
NUMBERED = re.compile(rf"^[ \t]*\d+[.):][\s*`\[(]*(?P<label>{LABEL.pattern})", re.MULTILINE)
BEGUN = re.compile(r'"order"\s*:\s*\[')
PART = re.compile(r'\[|\]|"(?:[^"\\]|\\.)*"')

Places = list[int | None]  # of each document: 0 the best, ties equal; None: nothing is known of it


@dataclass(frozen=True)
class ListReply:
    """Places of the documents that were shown, in the order in which they were; or a `problem`.

    `relevant` says how many of those that have a place are relevant at all, None where nothing was
    said of it.
    """

    places: Places
    relevant: int | None = None
    missing: int = 0
    invented: int = 0
    doubled: int = 0
    problem: str = ""

    def as_json(self) -> str:
        """The reply as the ledger keeps it."""
        kept = {name: value for name, value in vars(self).items() if value or name == "places"}
        return json.dumps(kept if self.relevant is None else kept | {"relevant": self.relevant})

    @staticmethod
    def from_json(text: str) -> ListReply:
        """What `as_json` wrote."""
        return ListReply(**json.loads(text))


def read_order(text: str, labels: Sequence[str], whole: bool = True) -> ListReply:
    """Read an order: `{"order": [["K7"], ["B2", "M4"]], "relevant": 1}`, `K7 > B2 = M4`, or one
    label on each of several numbered lines."""
    answer, _, ended = answer_and_thoughts(text)
    if not answer.strip():
        return nothing(labels, "empty" if whole and ended else "cut_off")
    found = [item for _, item in objects(answer) if isinstance(item.get("order"), list)]
    relevant: int | None = None
    if found:
        groups = [group for place in found[-1]["order"] for group in groups_at(place)]
        said = found[-1].get("relevant")
        relevant = said if type(said) is int and 0 <= said <= len(labels) else None
        whole = True  # all that was wanted had been said
    elif not whole:
        begun = [*BEGUN.finditer(answer)]
        groups = begun_order(answer[begun[-1].end() :]) if begun else []
    elif "{" not in answer:
        groups = groups_in_words(answer)
    else:
        groups = []
    return placed(groups, labels, relevant, whole)


def read_best(text: str, labels: Sequence[str], whole: bool = True) -> ListReply:
    """Read which document is the best: `{"best": "K7"}`, or a label and nothing else."""
    answer, _, ended = answer_and_thoughts(text)
    if not answer.strip():
        return nothing(labels, "empty" if whole and ended else "cut_off")
    named = [item["best"] for _, item in objects(answer) if isinstance(item.get("best"), str)]
    alone = LABEL.fullmatch(answer.strip(" \t\r\n*`\"'.[]()")) if whole and not named else None
    if alone:
        named = [alone[0]]
    best = {label for words in named for label in labels_in(words)}
    if len(best) != 1 or not best <= set(labels):
        return nothing(labels, "unparsable" if whole else "cut_off")
    return placed([[*best]], labels, None, whole=False)


def nothing(labels: Sequence[str], problem: str) -> ListReply:
    """A reply of which no place is known."""
    return ListReply([None] * len(labels), problem=problem)


def groups_at(place: object) -> list[list[str]]:
    """What stands at one place of a list: mostly labels that are tied; a chain of several is an
    order of its own, and other words with several labels are not a place."""
    if isinstance(place, str) and len(LABEL.findall(place)) > 1:
        return groups_in_words(place) if CHAIN.fullmatch(place) else [[place]]
    return [labels_in(place)]


def labels_in(place: object) -> list[str]:
    """All that stands at one place of an order; what is no label stands for itself."""
    if isinstance(place, list):
        return [label for part in place for label in labels_in(part)]
    found = [label.upper() for label in LABEL.findall(place)] if isinstance(place, str) else []
    return found or [str(place)]


def begun_order(text: str) -> list[list[str]]:
    """The places that are complete in a list that may have been cut off."""
    groups: list[list[str]] = []
    open_group: list[str] | None = None
    for match in PART.finditer(text):
        part = match[0]
        if part == "[":
            open_group = []
        elif part == "]":
            if open_group is None:
                break  # the end of the order
            groups.append(open_group)
            open_group = None
        elif open_group is None:
            groups.append(labels_in(part))
        else:
            open_group += labels_in(part)
    return groups


def groups_in_words(text: str) -> list[list[str]]:
    """Places in a chain (`K7 > B2 = M4`) on the first or the last line, or on numbered lines."""
    lines = text.strip().split("\n")
    chains = {line.strip() for line in (lines[0], lines[-1]) if CHAIN.fullmatch(line)}
    if len(chains) == 1:
        (chain,) = chains
        split = re.split(r"[>,]", chain)
        return [labels_in(part) for part in split]
    return [[match["label"].upper()] for match in NUMBERED.finditer(text)] if not chains else []


def placed(
    groups: Sequence[Sequence[str]], labels: Sequence[str], relevant: int | None, whole: bool
) -> ListReply:
    """The places that an order gives; of one that is not `whole` the rest is below."""
    number = {label: i for i, label in enumerate(labels)}
    places: dict[int, set[int]] = {}
    invented, repeated = 0, 0
    for place, group in enumerate(groups):
        for label in group:
            if label not in number:
                invented += 1
                continue
            repeated += place in places.get(number[label], ())
            places.setdefault(number[label], set()).add(place)
    sure = {document: min(found) for document, found in places.items() if len(found) == 1}
    rank = {place: i for i, place in enumerate(sorted(set(sure.values())))}
    rest = None if whole else BELOW
    result: Places = [
        rank[sure[i]] if i in sure else None if i in places else rest for i in range(len(labels))
    ]
    if not sure or sum(place is not None for place in result) < 2:
        return nothing(labels, "unparsable" if whole else "cut_off")
    doubled = sum(len(found) > 1 for found in places.values()) + repeated
    missing = len(labels) - len(places) if whole else 0
    return ListReply(result, relevant, missing, invented, doubled)
