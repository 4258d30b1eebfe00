"""Files of text as passages with titles: plain text, Markdown, HTML, PDF.

Passages are split where the text itself is (sections, paragraphs, sentences) by
semantic-text-splitter; a heading becomes part of the title of the passages below it.
"""

from __future__ import annotations

import codecs
import logging
import re
from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from zelo.data.token_estimate import estimated_tokens
from zelo.errors import UserError

PLAIN, MARKDOWN, HTML, PDF = (".txt", ".text"), (".md", ".markdown"), (".html", ".htm"), (".pdf",)
TEXT_ENDINGS = (*PLAIN, *MARKDOWN, *HTML, *PDF)
LARGEST = 2**28  # bytes of a file that is held in memory whole
SMALL = 8  # a piece of less than this part of the tokens that it may have
MARKS = {  # how a file begins that is in another encoding than UTF-8, and says so
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*$\n?", re.DOTALL | re.MULTILINE)
FRONT_TITLE = re.compile(r"^title:[ \t]*(['\"]?)(.+?)\1[ \t]*$", re.MULTILINE)
NO_CONTENT = ("script", "style", "noscript", "template", "nav", "footer", "aside", "svg", "form")


class UnreadableFileError(Exception):
    """Why a file has no text that could be read, in words."""


class Passage(NamedTuple):
    """A piece of a file, with what it is called."""

    title: str
    text: str


def passages_of(path: Path, tokens: int) -> Iterator[Passage]:
    """Passages of a file of `TEXT_ENDINGS`, of about `tokens` tokens at most.

    Raises `UnreadableFileError`, and `UserError` where a package is missing.
    """
    try:
        size = path.stat().st_size
        if not size:
            raise UnreadableFileError("empty")
        if size > LARGEST:
            raise UnreadableFileError(f"larger than {LARGEST >> 20} MiB")
        ending = path.suffix.lower()
        if ending in PDF:
            title, text = text_of_pdf(path)
        elif ending in HTML:
            title, text = text_of_html(path.read_bytes())
        else:
            title, text = "", decoded(path.read_bytes())
    except OSError as error:
        raise UnreadableFileError(error.strerror or "unreadable") from None
    if not text.strip():
        raise UnreadableFileError("without text")
    if ending in (*MARKDOWN, *HTML):
        yield from passages_of_markdown(text, title, named(path), tokens)
    else:
        for _, passage in split(text, tokens):
            yield Passage(title or named(path), passage)


def named(path: Path) -> str:
    """A title by the name of a file: `getting_started.txt` is `getting started`."""
    return re.sub(r"[-_\s]+", " ", path.stem).strip()


def decoded(content: bytes) -> str:
    """Bytes as text: UTF-8, or what their first bytes say; `UnreadableFileError` where they are
    neither."""
    encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        raise UnreadableFileError("not UTF-8") from None
    if "\0" in text:
        raise UnreadableFileError("not text")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def split(text: str, tokens: int, markdown: bool = False) -> list[tuple[int, str]]:
    """Pieces of a text of about `tokens` tokens at most, and the index of each one's first
    character.

    A piece that is next to nothing, as the first line of a block of code, goes with the next one;
    one without a letter or digit is left out.
    """
    from semantic_text_splitter import MarkdownSplitter, TextSplitter

    splitter = MarkdownSplitter if markdown else TextSplitter
    pieces = splitter.from_callback(estimated_tokens, tokens).chunk_indices(text)
    found: list[tuple[int, str]] = []
    for start, piece in pieces:
        if found and estimated_tokens(found[-1][1]) < tokens // SMALL:
            end = start + len(piece)
            start = found.pop()[0]
            piece = text[start:end]
        found.append((start, piece))
    return [(start, piece) for start, piece in found if any(map(str.isalnum, piece))]


def passages_of_markdown(text: str, given: str, name: str, tokens: int) -> Iterator[Passage]:
    """Passages of Markdown, each called after the document and the heading that it stands under.

    The document's title is the `given` one, else that of its front matter, else its first heading
    of the first level, else `name`.
    """
    front = FRONT_MATTER.match(text)
    stated = FRONT_TITLE.search(front[1]) if front else None
    text = text[front.end() :] if front else text
    headings = headings_of(text)
    first = next((heading for _, level, heading in headings if level == 1), "")
    title = given or (stated[2] if stated else first or name)
    starts = [start for start, _, _ in headings]
    for start, passage in split(text, tokens, markdown=True):
        above = bisect_right(starts, start) - 1
        heading = headings[above][2] if above >= 0 else ""
        yield Passage(title if heading in ("", title) else f"{title}: {heading}", passage)


def headings_of(text: str) -> list[tuple[int, int, str]]:
    """Headings of Markdown: index of the first character, level, words."""
    from markdown_it import MarkdownIt

    lines = [0]
    lines += [found.end() for found in re.finditer("\n", text)]
    tokens = MarkdownIt().parse(text)
    found = []
    for token, inline in pairwise(tokens):
        if token.type == "heading_open" and token.map:
            parts = inline.children or []
            words = "".join(" " if part.type == "softbreak" else part.content for part in parts)
            if words.strip():
                found.append((lines[token.map[0]], int(token.tag[1:]), words.strip()))
    return found


def text_of_html(content: bytes) -> tuple[str, str]:
    """Title and text of a page, the text as Markdown without links and images; menus, footers and
    scripts are left out."""
    try:
        from bs4 import BeautifulSoup
        from markdownify import MarkdownConverter
    except ImportError:
        raise missing("HTML", "markdownify", "html") from None
    try:
        page = BeautifulSoup(content, "html.parser")
        title = page.title.get_text(" ", strip=True) if page.title else ""
        for part in page.find_all([*NO_CONTENT, "title"]):
            part.decompose()
        converter = MarkdownConverter(
            heading_style="ATX", strip=["a", "img"],
            escape_asterisks=False, escape_underscores=False, escape_misc=False,
        )  # fmt: skip
        return title, str(converter.convert_soup(page))
    except RecursionError:
        raise UnreadableFileError("nested too deeply") from None


def text_of_pdf(path: Path) -> tuple[str, str]:
    """Title and text of a PDF, its pages one after the other."""
    try:
        from pypdf import PdfReader
    except ImportError:
        raise missing("PDF", "pypdf", "pdf") from None
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it tells of each flaw that it mends
    try:
        with path.open("rb") as file:
            reader = PdfReader(file)
            if reader.is_encrypted and not reader.decrypt(""):
                raise UnreadableFileError("encrypted")
            title = (reader.metadata.title if reader.metadata else None) or ""
            text = "\n\n".join(page.extract_text() for page in reader.pages)
    except UnreadableFileError:
        raise
    except Exception:  # of many kinds, on files that are no PDF or a broken one
        raise UnreadableFileError("damaged") from None
    # Half characters, which a table of characters in the file may name, are in no UTF-8.
    plain = text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
    return title.encode("utf-8", "replace").decode("utf-8").strip(), plain


def missing(kind: str, package: str, extra: str) -> UserError:
    """What to say where files of a kind cannot be read."""
    return UserError(
        f"data.path: to read {kind} the package {package} is needed: pip install 'zelo[{extra}]'"
    )
