"""Queries out of the documents' own words, without any model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from zelo.artifacts import parquet_batches
from zelo.config import option
from zelo.data.texts import PART
from zelo.queries.base import (
    BaseWriter,
    CorpusTerms,
    Draft,
    SourceDocument,
    WriterSession,
    WritingContext,
)
from zelo.queries.prose import (
    BRACKETS,
    CLAUSE_END,
    NAME_JOINT,
    SPACE,
    WORD,
    Clause,
    Prose,
    beginning,
    clauses,
    length,
    prose_of,
    spaced,
    trimmed,
    without_markup,
)
from zelo.retrieval.languages import stop_words
from zelo.seeding import stream

KINDS = ("title", "keywords", "sentence", "claim")
COMMON = 0.1  # share of the documents that have a function word, where no list of them is known
FEW = 50  # documents, of which shares say little
RARE = 5  # documents; a word that fewer have tells no more than one that these have
PHRASE = 4  # words
SHORTEST = 5  # words of a sentence
LINK = 3  # words before a comma that may be no more than a link to what came before
LIGHT = 20  # a link's words are in more than one of so many documents
WHOLE = 1.25  # more counts what begins, or ends, where a sentence does
SENTENCES = 40  # of a document that are read


class Extractive(BaseWriter):
    """`queries=extractive`: titles, key phrases and shortened key sentences, of mixed kinds.

    What tells a document apart is weighed by how few documents have its words. Of code docstrings,
    comments and names are read.
    """

    longest: int = option(16, "words of a query, at most", ge=4)

    def drafts_of_each(self, wanted: int) -> int:
        """One of each kind."""
        return min(wanted, len(KINDS))

    def prepare(self, context: WritingContext) -> ExtractiveSession:
        """Count in how many documents each word is, and which titles several documents have."""
        titles: Counter[str] = Counter()
        for batch in parquet_batches(context.data / "documents.parquet", PART, ["title"]):
            titles.update(batch["title"].to_pylist())
        shared = frozenset(title for title, documents in titles.items() if documents > 1)
        return ExtractiveSession(context, self.longest, shared)


class ExtractiveSession(WriterSession):
    """The words of a collection, weighed."""

    def __init__(
        self, context: WritingContext, longest: int, shared_titles: frozenset[str]
    ) -> None:
        self.longest, self.shared_titles = longest, shared_titles
        self.per_document, self.seed = context.per_document, context.seed
        self.terms: CorpusTerms = context.terms
        self.function_words = function_words(context.terms.language)
        self.weights: dict[str, float] = {}  # of each word met so far

    def write(self, documents: Sequence[SourceDocument]) -> list[list[Draft]]:
        """Drafts of as many kinds as are wanted of a document, drawn at random for each."""
        return [self.drafts_of(document) for document in documents]

    def drafts_of(self, document: SourceDocument) -> list[Draft]:
        """The drafts of one document."""
        prose = prose_of(document.text)
        prose = Prose(prose.sentences[:SENTENCES], prose.name)
        kinds = stream(self.seed, "extractive", document.doc_id).permutation(len(KINDS))
        drafts: dict[str, str] = {}
        for kind in (KINDS[k] for k in kinds):
            text = getattr(self, kind)(document, prose)
            if self.says_enough(text) and text not in drafts:
                drafts[text] = kind
        return [Draft(text, kind) for text, kind in list(drafts.items())[: self.per_document]]

    def title(self, document: SourceDocument, prose: Prose) -> str:
        """The document's title; one that others have too with what this document says besides; the
        first sentence where there is none."""
        head = trimmed(SPACE.sub(" ", BRACKETS.sub("", without_markup(document.title))))
        if not head:
            first = prose.sentences[0] if prose.sentences else prose.name
            return self.best_clause([first])
        if document.title not in self.shared_titles:
            return self.tidy(
                Clause(beginning(head, self.longest), True, length(head) <= self.longest)
            )
        phrase = next(iter(self.phrases(document, prose, but=head)), "")
        return f"{beginning(head, max(self.longest - length(phrase), 3))} {phrase}".strip()

    def keywords(self, document: SourceDocument, prose: Prose) -> str:
        """The phrases that tell most, in the order of the text."""
        wanted: list[str] = []
        for phrase in self.phrases(document, prose):
            if sum(map(length, wanted)) + length(phrase) > self.longest // 2:
                break
            wanted.append(phrase)
        whole = " ".join([document.title, *prose.sentences])
        return " ".join(sorted(wanted, key=whole.find))

    def sentence(self, document: SourceDocument, prose: Prose) -> str:
        """The clauses of the first half that tell most."""
        first_half = prose.sentences[: max(len(prose.sentences) // 2, 1)]
        return self.best_clause(first_half)

    def claim(self, document: SourceDocument, prose: Prose) -> str:
        """The clauses of the second half that tell most, where conclusions stand."""
        return self.best_clause(prose.sentences[max(len(prose.sentences) // 2, 1) :])

    def best_clause(self, sentences: Iterable[str]) -> str:
        """Neighbouring clauses with the most weight, a long one with more than a short one."""
        found = [
            clause
            for text in sentences
            for clause in clauses(text, self.longest)
            if not spaced(clause.text) or length(clause.text) >= SHORTEST
        ]
        if not found:
            return ""
        return self.tidy(
            max(
                found,
                key=lambda clause: (
                    self.weight_of(clause.text) * WHOLE ** (clause.begins + clause.ends)
                ),
            )
        )

    def tidy(self, clause: Clause) -> str:
        """A clause without the words that join it to what came before; one that was cut ends where
        a phrase does."""
        if not spaced(clause.text):
            return clause.text
        words = clause.text.split()
        tell = [self.weight(trimmed(word).lower()) > 0 for word in words]
        first = 0 if clause.begins else next((i for i, told in enumerate(tell) if told), 0)
        comma = next((i for i, word in enumerate(words[:LINK]) if word.endswith(",")), -1)
        if all(self.weight(trimmed(word).lower()) < math.log(LIGHT) for word in words[: comma + 1]):
            first = max(first, comma + 1)  # `In contrast, ...`
        last = len(words)
        if not clause.ends:
            joints = [i for i in range(first + len(words) // 2, last) if not tell[i]]
            last = joints[-1] if joints else last
        while last > first + 1 and trimmed(words[last - 1]).lower() in self.function_words:
            last -= 1
        return trimmed(" ".join(words[first:last]))

    def weight_of(self, text: str) -> float:
        """What the words of a text tell, each counted once, to the root of their number."""
        words = {word.lower() for word in WORD.findall(text)}
        return sum(map(self.weight, words)) / math.sqrt(len(words) + 1)

    def phrases(self, document: SourceDocument, prose: Prose, but: str = "") -> list[str]:
        """Phrases that share no word with one another nor with `but`, those that tell most first.

        A phrase is a run of words that tell something; words that the document repeats count more.
        """
        sources = [document.title, *prose.sentences, prose.name]
        form = {phrase.lower(): phrase for source in sources for phrase in self.runs(source)}
        stems = {phrase: self.terms.words(phrase) for phrase in form}
        count = Counter(stem for source in sources for stem in self.terms.words(source))

        def weight(phrase: str) -> float:
            repeated = sum(1 + math.log(max(count[stem], 1)) for stem in stems[phrase])
            return self.weight_of(phrase) * repeated / max(len(stems[phrase]), 1)

        taken = set(self.terms.words(but))
        chosen = []
        for phrase in sorted(form, key=lambda phrase: (-weight(phrase), phrase)):
            if stems[phrase] and not taken & set(stems[phrase]):
                taken |= set(stems[phrase])
                chosen.append(form[phrase])
        return chosen

    def runs(self, text: str) -> Iterable[str]:
        """Runs of at most `PHRASE` neighbouring words with weight; of a script without spaces
        whole clauses."""
        if not spaced(text):
            yield from (beginning(part, PHRASE) for part in CLAUSE_END.split(text) if part)
            return
        run: list[str] = []
        end = 0
        for found in WORD.finditer(text):
            apart = text[end : found.start()].strip() != ""
            if run and (apart or len(run) == PHRASE or not self.weight(found[0].lower())):
                yield " ".join(run)
                run = []
            if self.weight(found[0].lower()):
                run.append(found[0])
            end = found.end()
        if run:
            yield " ".join(run)

    def weight(self, word: str) -> float:
        """What a word tells: the logarithm of how few documents have it; 0 for function words and
        for numbers."""
        known = self.weights.get(word)
        if known is None:
            known = self.weights[word] = self.weigh(word)
        return known

    def weigh(self, word: str) -> float:
        """See `weight`."""
        stems = self.terms.words(word)
        documents = len(self.terms.corpus)
        having = [self.terms.documents_with(stem) for stem in stems]
        if not having or word in self.function_words or not any(map(str.isalpha, word)):
            return 0.0
        if not self.function_words and documents >= FEW and max(having) > COMMON * documents:
            return 0.0
        return math.log(1 + documents / max(min(having), RARE))

    def says_enough(self, text: str) -> bool:
        """Whether at least two words of a text tell something."""
        if not spaced(text):
            return len(text) >= 2 * PHRASE
        words = {part.lower() for word in WORD.findall(text) for part in NAME_JOINT.split(word)}
        return sum(self.weight(word) > 0 for word in words) >= 2


def function_words(language: str) -> frozenset[str]:
    """Words of a language that tell nothing by themselves, in lower case; none where no list of
    them is known. For English a longer list than that of BM25, which leaves out what is rare."""
    if language == "english":
        from bm25s.stopwords import STOPWORDS_EN_PLUS

        return frozenset(STOPWORDS_EN_PLUS)
    return stop_words(language)
