"""What an LLM judge reads: the prompt file, filled in so that no document can leave its frame.

Documents are hostile text. Each request carries a code that no text in it contains and that nobody
who writes one can know, and only lines with that code are markers; characters that are not seen
(control characters, text direction, invisible tags) are taken out; what a tokenizer could take for
the end of a turn is broken by a space; placeholders are filled in one pass, so that one inside a
document stays as it is.

The code is the same for all requests about one query, so that these begin alike, up to the first
document that differs: what a server keeps of a prompt's beginning it need not read again.

An instruction is the user's own word on what counts as relevant. It stands in a frame of its own,
in the message of the system, where no document is.
"""

from __future__ import annotations

import hashlib
import random
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import TypeAlias

from zelo.data.token_estimate import estimated_tokens
from zelo.judging.question import Question
from zelo.store import digest

PROMPTS = Path(__file__).parent / "prompts"

Messages: TypeAlias = list[dict[str, str]]

UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e"
    "\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb\U000e0000-\U000e01ef]"
)
# Tokens that end a turn or begin one, and tags around what a model thinks, in the chat formats of
# the models that are served today.
CONTROL = re.compile(
    r"<(?=[|｜][^\s<>]{1,60}[|｜]>"
    r"|/?(?:s|bos|eos|pad|unk|mask|start_of_turn|end_of_turn|im_start|im_end"
    r"|think|thinking|thoughts?|reasoning|answer)>)"
    r"|\[(?=/?(?:THINK|INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\])|<(?=</?SYS>>)",
    re.IGNORECASE,
)
LINE_ENDS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
SECRET = secrets.token_bytes(32)  # no document's author can know what is made with it
CODES = random.Random(secrets.randbits(128))  # nor the next of these
PLACEHOLDER = re.compile(
    r"\{(code|limit|query|other|text_a|text_b|note_query|note_other|note_a|note_b|problem"
    r"|instruction|instruction_b|documents|count|labels|label|text|note)\}"
)
EXAMPLES = {"K7", "B2", "M4", "T5"}  # labels that prompts show as examples
LABELS = sorted({f"{a}{n}" for a in "BCDFGHJKLMNPQRSTVWXZ" for n in range(1, 10)} - EXAMPLES)
NO_INSTRUCTION = "(nothing was said: as above)"


@cache
def sections(name: str) -> dict[str, str]:
    """The parts of `prompts/<name>.md` by their headings; `version` is its first line."""
    text = (PROMPTS / f"{name}.md").read_text(encoding="utf-8")
    version, *parts = re.split(r"^# (\w+)\n", text, flags=re.MULTILINE)
    return {
        "version": version.strip(),
        **{title: part.strip() for title, part in zip(parts[::2], parts[1::2], strict=True)},
    }


@cache
def prompt_hash(name: str = "compare") -> str:
    """Digest of the prompt file: part of the key of every answer given to it."""
    return digest(sections(name))


def instruction_tokens(instruction: str) -> int:
    """About how many tokens an instruction adds to a prompt."""
    if not instruction:
        return 0
    return estimated_tokens(sections("instruction")["one"]) + estimated_tokens(instruction)


def messages(
    question: Question, limit: int, code: str | None = None, name: str = "compare"
) -> Messages:
    """The conversation that asks `question` by the prompt `name`; texts have about `limit` tokens.

    `code` is the marker code; by default that of the query, and where a text contains it, a new
    random one.
    """
    query, note_query = shown(question.query, limit)
    other, note_other = shown(question.query_b_text, limit)
    text_a, note_a = shown(question.text_a, limit)
    text_b, note_b = shown(question.text_b, limit)
    instruction, instruction_b = map(clean, question.instructions)
    code = unguessable((query, other, instruction, instruction_b), (text_a, text_b), code)
    values = {
        "code": code,
        "limit": f"{limit:,}",
        "query": query,
        "other": other,
        "text_a": text_a,
        "text_b": text_b,
        "note_query": note_query,
        "note_other": note_other,
        "note_a": note_a,
        "note_b": note_b,
        "instruction": instruction or NO_INSTRUCTION,
        "instruction_b": instruction_b or NO_INSTRUCTION,
    }
    return conversation(name, values)


def list_messages(
    query: str,
    texts: Sequence[str],
    labels: Sequence[str],
    instruction: str,
    limit: int,
    name: str,
    code: str | None = None,
) -> Messages:
    """The conversation that asks about documents `texts` under their labels by the prompt `name`;
    texts have about `limit` tokens. `code` is the marker code, as in `messages`."""
    query, note_query = shown(query, limit)
    instruction = clean(instruction)
    documents = [shown(text, limit) for text in texts]
    code = unguessable((query, instruction), (text for text, _ in documents), code)
    parts = sections(name)
    values = {
        "code": code,
        "limit": f"{limit:,}",
        "query": query,
        "note_query": note_query,
        "instruction": instruction,
        "instruction_b": instruction,
        "count": str(len(labels)),
        "labels": ", ".join(labels),
        "documents": "\n\n".join(
            fill(parts["document"], {"code": code, "label": label, "text": text, "note": note})
            for label, (text, note) in zip(labels, documents, strict=True)
        ),
    }
    return conversation(name, values)


def labels_of(query: str, texts: Sequence[str]) -> list[str]:
    """A letter and a digit for each text, drawn anew for each list of them: whoever writes one
    cannot know its label, and no order of labels tells anything."""
    drawn = random.Random(keyed("labels", query, *texts))
    return drawn.sample(LABELS, len(texts))


def conversation(name: str, values: dict[str, str]) -> Messages:
    """The prompt `name` with its placeholders filled."""
    system, user = (sections(name)[role] for role in ("system", "user"))
    if values["instruction"] != values["instruction_b"]:
        system = f"{system}\n\n{sections('instruction')['two']}"
    elif values["instruction"] not in ("", NO_INSTRUCTION):
        system = f"{system}\n\n{sections('instruction')['one']}"
    return [
        {"role": role, "content": fill(template, values)}
        for role, template in (("system", system), ("user", user))
    ]


def unguessable(asked: Sequence[str], texts: Iterable[str], code: str | None = None) -> str:
    """The marker code of what is asked; where a text contains it, a new random one."""
    written = [*asked, *texts]
    code = code or code_of(*asked)
    while any(code in text for text in written):
        code = f"{CODES.getrandbits(48):012x}"
    return code


@lru_cache(maxsize=1024)
def code_of(*asked: str) -> str:
    """The marker code of what is asked: a digest that this process alone can make."""
    return keyed(*asked)[:12]


@contextmanager
def made_with(secret: bytes) -> Iterator[None]:
    """Within it, codes and labels are those of a process that had this secret."""
    global SECRET
    own, SECRET = SECRET, secret
    try:
        yield
    finally:
        SECRET = own


def keyed(*texts: str) -> str:
    """A digest that this process alone can make."""
    return hashlib.blake2b("\0".join(texts).encode("utf-8", "replace"), key=SECRET).hexdigest()


def as_user_message(conversation: Messages) -> Messages:
    """The conversation as one message of the user, for models whose chat template knows no system
    role."""
    return [{"role": "user", "content": "\n\n".join(said["content"] for said in conversation)}]


def correction(problem: str, name: str = "compare") -> str:
    """What is said once to a model whose answer to the prompt `name` could not be read."""
    parts = sections(name if "correction" in sections(name) else "compare")
    return fill(parts["correction"], {"problem": problem})


def fill(template: str, values: dict[str, str]) -> str:
    """The template with each placeholder replaced, in one pass over the template alone."""
    texts, names = pieces(template)
    filled = [values[name] for name in names]
    return "".join([part for pair in zip(texts, [*filled, ""], strict=True) for part in pair])


@cache
def pieces(template: str) -> tuple[list[str], list[str]]:
    """The texts around the placeholders of a template, and the placeholders' names."""
    parts = PLACEHOLDER.split(template)
    return parts[::2], parts[1::2]


@lru_cache(maxsize=16384)
def shown(text: str, limit: int) -> tuple[str, str]:
    """The part of a text that is shown, cleaned, and a note for its marker line, "" if whole."""
    text = clean(text)
    whole = estimated_tokens(text)
    if whole <= limit:
        return text, ""
    end = min(4 * limit, len(text))
    while estimated_tokens(text[:end]) > limit:
        end = int(end * limit / estimated_tokens(text[:end]))
    space = max(text.rfind(" ", 0, end), text.rfind("\n", 0, end))
    end = space if space > 0.9 * end else end  # at a word's end where one is near
    return text[:end], f", cut: the first {limit:,} of about {whole:,} tokens"


def clean(text: str) -> str:
    """A text without what a reader would not see and without control tokens; line ends are
    newlines."""
    if not (text.isascii() and text.replace("\n", "").isprintable()):  # half the cost, mostly
        text = UNSEEN.sub("", LINE_ENDS.sub("\n", text))
    if "<" in text or "[" in text:
        text = CONTROL.sub(broken, text)
    return text.strip()


def broken(token: re.Match[str]) -> str:
    """A control token with a space after its first character: it is none any more."""
    return f"{token.group()[:1]} {token.group()[1:]}"
