"""Sentences and phrases of a document: of prose in any script, and of code what it says in words.

Pure functions of texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import regex

MARKUP = (  # Markdown and what else is no wording, and what stands in its place
    (re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE), "\n\n"),
    (re.compile(r"!?\[([^\]\n]*)\]\([^)\n]*\)"), r"\1"),
    (re.compile(r"<[^<>\n]{1,80}>|https?://\S+|\[\d+(?:[,–-]\s?\d+)*\]"), " "),
    (re.compile(r"^\s*(?:#+|[-*+]|\d+[.)])\s+", re.MULTILINE), "\n\n"),
    (re.compile(r"[`*|]+|_{2,}|\.{4,}"), " "),
)
# The end of a sentence; or of a paragraph. A point that has a space before it, as in old
# collections, ends one too; one behind a single letter or a short form does not.
SENTENCE_END = regex.compile(
    r"(?<=[\p{L}\p{N}]{2}[.!?]|[)\]\"'”’»][.!?]|\s[.!?])\s+(?=[\p{Lu}\p{N}\p{Lo}\"“„«(]|\p{Ll}+\s)"
    r"|(?<=[。！？।॥؟])\s*|\n\s*\n"
)
SHORT_FORM = regex.compile(
    r"(?:\b(?:\p{L}|e\.g|i\.e|cf|vs|al|fig|figs|eq|no|nos|vol|dr|mr|mrs|ms|st|inc|co|corp|ltd|sec|"
    r"art|approx|resp|etc|bzw|ca|z\.b|d\.h)\.)$",
    regex.IGNORECASE,
)
CLAUSE_END = regex.compile(r"(?<=[,;:，、；：])\s*(?=\S)(?!\d)|\s[–—-]+\s|\s(?=\()|(?<=\))\s")
# What stands before a sentence: its number, or the name of its part in capitals.
LABEL = regex.compile(
    r"^(?:[(\[]?(?:\d+(?:\.\d+)*|\p{L})[.)\]]+\s+|\d+(?:\.\d+)+\s+|[(\[]\p{L}+[)\]]\s+"
    r"|(?:\p{Lu}{5,}(?:\s+AND)?[:.]?\s+)+(?=\p{Lu}[\p{Ll}\s]|\d))+"
)
BRACKETS = re.compile(r"\s*[(\[][^()\[\]]*[)\]]")
SPACE = re.compile(r"\s+")
WORD = regex.compile(r"[\p{L}\p{N}\p{M}](?:[\p{L}\p{N}\p{M}\u200c\u200d'’_./-]*[\p{L}\p{N}\p{M}])?")
SCRIPTS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
UNSPACED = regex.compile(rf"[{SCRIPTS}]")
CHARACTERS = regex.compile(rf"[{SCRIPTS}]|[^{SCRIPTS}]+")  # one by one where no spaces are

# What lines of code have and lines of prose do not, in the languages that are read most.
CODE_LINE = re.compile(
    r"^\s*(?:def |class |func |fn |function |public |private |protected |static |import |#include|"
    r"return\b|if ?\(|for ?\(|while ?\(|var |let |const |[})\]]+[;,]?\s*$)|[{;]\s*$|^\s*@\w+|"
    r"^\s*\w[\w.\[\]]*(?:\s*[-+*/|]?=[^=]|\(.*\)\s*$)|:\s*$",
    re.MULTILINE,
)
CODE_BEGINS = re.compile(
    r"\s*(?:@\w.*\n\s*)*(?:(?:async|export|pub|public|private|protected|static|final)\s+)*"
    r"(?:(?:def|class|func|fn|function)\s+\w+.*[({:]|#include\b|import\s+[\w.{*\"]+|package\s+\w)"
)
DOCSTRING = re.compile(r"(\"\"\"|''')(.*?)(?:\1|\Z)|/\*\*?(.*?)\*/", re.DOTALL)
COMMENT = re.compile(r"(?:^|\s)(?:#|//|--)\s?([^\n#/!-][^\n]*)")
DOC_FIELD = re.compile(  # where a docstring turns to its parameters, examples or directives
    r"^\s*(?:[:@]\w+|\.\. |>>>|(?:Args|Arguments|Parameters|Params|Returns?|Raises|Yields|Example"
    r"|Examples|Usage|Notes?|Inputs?|Outputs?|Keyword [Aa]rguments)\s*:?\s*$|-{3,})",
    re.MULTILINE,
)
DEFINED = re.compile(r"\b(?:def|class|func|fn|function|sub)\s+(?:\([^)]*\)\s*)?(\w+)|\b(\w+)\s*\(")
NAME_JOINT = re.compile(r"_+|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class Prose(NamedTuple):
    """What a document says in words."""

    sentences: list[str]
    name: str = ""  # of a function or class, in words; "" where a document is no code


def prose_of(text: str) -> Prose:
    """Sentences of a document; of code those of its docstrings and comments."""
    if not is_code(text):
        return Prose(list(sentences(without_markup(text))))
    said = [found[1] or found[2] or "" for found in DOCSTRING.findall(text)]
    parts = [DOC_FIELD.split(re.sub(r"^\s*\*+", "", part, flags=re.MULTILINE))[0] for part in said]
    parts += COMMENT.findall(DOCSTRING.sub("\n", text))
    found = DEFINED.search(text)
    name = " ".join(part.lower() for part in NAME_JOINT.split(found[1] or found[2]) if part) if (
        found
    ) else ""  # fmt: skip
    return Prose([sentence for part in parts for sentence in sentences(part)], name)


def is_code(text: str) -> bool:
    """Whether a text begins as code, or most of its lines are, docstrings apart."""
    if CODE_BEGINS.match(text):
        return True
    lines = [line for line in DOCSTRING.sub("", text).splitlines() if line.strip()]
    return len(lines) > 1 and 2 * sum(bool(CODE_LINE.search(line)) for line in lines) > len(lines)


def without_markup(text: str) -> str:
    """A text without the signs of Markdown, blocks of code, addresses and numbers of references."""
    for pattern, instead in MARKUP:
        text = pattern.sub(instead, text)
    return text


def sentences(text: str) -> Iterator[str]:
    """Sentences of a text on one line each, those that are more numbers and signs than words left
    out."""
    waiting = ""
    for piece in SENTENCE_END.split(text):
        line = LABEL.sub("", SPACE.sub(" ", f"{waiting} {piece or ''}").strip())
        if SHORT_FORM.search(line) and len(line) < 400:
            waiting = line
            continue
        waiting = ""
        if mostly_words(line):
            yield line
    if mostly_words(waiting):
        yield waiting


def mostly_words(line: str) -> bool:
    """Whether a line is made of letters, by far."""
    letters = sum(character.isalpha() or character == " " for character in line)
    return letters >= 3 and letters >= 0.8 * len(line)


class Clause(NamedTuple):
    """A part of a sentence, and whether it has its beginning and its end."""

    text: str
    begins: bool
    ends: bool


def clauses(sentence: str, longest: int) -> Iterator[Clause]:
    """Runs of neighbouring clauses of a sentence of at most `longest` words, without what stands
    in brackets; of a longer clause its beginning."""
    sentence = BRACKETS.sub("", sentence)
    parts = [part.strip() for part in CLAUSE_END.split(sentence) if part and part.strip()]
    lengths = [length(part) for part in parts]
    for first in range(len(parts)):
        total = 0
        for last in range(first, len(parts)):
            total += lengths[last]
            if total > longest:
                break
            text = trimmed(" ".join(parts[first : last + 1]))
            yield Clause(text, first == 0, last == len(parts) - 1)
        if lengths[first] > longest:
            yield Clause(beginning(parts[first], longest), first == 0, False)


def beginning(text: str, longest: int) -> str:
    """The first words of a text, at most `longest`."""
    if not spaced(text):
        return trimmed(text[: 2 * longest])
    return trimmed(" ".join(text.split()[:longest]))


def trimmed(text: str) -> str:
    """A text without what ends a sentence or a clause."""
    return text.strip(" \t\n.,;:!?…–—-\"'“”„«»|/\\，、；：。！？")


def length(text: str) -> int:
    """Words of a text; in scripts without spaces two characters count as one."""
    return len(text.split()) if spaced(text) else -(-len(text) // 2)


def spaced(text: str) -> bool:
    """Whether a text's script puts spaces between words."""
    return 3 * len(UNSPACED.findall(text)) < len(text)
