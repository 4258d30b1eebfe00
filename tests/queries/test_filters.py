"""Each filter drops what it is for, and nothing where it is switched off."""

from __future__ import annotations

import numpy as np
import pytest

from zelo.data.texts import Corpus
from zelo.queries.base import CorpusTerms, SourceDocument
from zelo.queries.filters import Filters, NearDuplicates, longest_run
from zelo.queries.sampling import in_breadth, texts_at
from zelo.retrieval.bm25 import BM25

OFF = Filters(
    longest_copy=None, share_of_document=None, near_duplicates=None, most_matches=None,
    round_trip=None,
)  # fmt: skip
LONG = SourceDocument(0, "d", "A title", " ".join(f"word{n}" for n in range(100)))


@pytest.fixture(scope="module")
def terms() -> CorpusTerms:
    texts = {f"d{n}": f"apples and pears number{n}" for n in range(60)}
    return CorpusTerms.of(Corpus.of(texts))


def test_copies() -> None:
    long_piece = " ".join(LONG.text.split()[10:31])
    assert Filters().is_copy(long_piece, LONG)
    assert not Filters().is_copy(" ".join(LONG.text.split()[10:30]), LONG)
    assert Filters().is_copy("A short document", SourceDocument(0, "d", "A short", "document"))
    assert not OFF.is_copy(LONG.text, LONG)
    characters = "".join(chr(0x4E00 + n) for n in range(200))  # each once, no spaces
    chinese = SourceDocument(0, "d", "", characters)
    assert Filters().is_copy(characters[50:91], chinese)
    assert not Filters().is_copy(characters[50:90], chinese)  # as long as twenty words
    thai = SourceDocument(
        0, "d", "",
        "แม่น้ำโขงไหลผ่านหกประเทศและเป็นแหล่งอาหารของผู้คนหลายล้านคน ชาวประมงจับปลาในฤดูฝนเมื่อน้ำขึ้นสูง "
        "และปลูกผักริมฝั่งในฤดูแล้งเมื่อน้ำลดลง เขื่อนทางต้นน้ำทำให้ระดับน้ำเปลี่ยนแปลงอย่างรวดเร็ว",
    )  # fmt: skip
    assert not Filters().is_copy("เขื่อนมีผลต่อการจับปลาของชาวบ้านอย่างไร", thai)
    assert Filters().is_copy(thai.text[:150], thai)
    assert longest_run(list("abcd"), list("cdabc")) == 3
    assert longest_run([], ["a"]) == 0


def test_general_queries(terms: CorpusTerms) -> None:
    assert Filters().is_generic("pears and apples", terms)
    assert Filters().is_generic("of the", terms)
    assert not Filters().is_generic("apples number7", terms)
    assert not OFF.is_generic("pears", terms)
    assert terms.matching(terms.words("apples number7")) == 1
    assert terms.matching(terms.words("apples nowhere")) == 0


def test_near_duplicates(terms: CorpusTerms) -> None:
    before = NearDuplicates(terms, 0.75, ["the green apple of Newton"])
    assert before.has("Newton: green apples")
    assert not before.has("green apples of Newton and Leibniz in 1666")
    before.add("green apples of Newton and Leibniz in 1666")
    assert before.has("apples of Newton, Leibniz, 1666, green")
    assert not NearDuplicates(terms, None, ["a word"]).has("a word")


def test_the_round_trip(terms: CorpusTerms) -> None:
    drafts = {"a": ("number7", 7), "b": ("number7", 8), "c": ("nothing", 9)}
    found = Filters(round_trip=1).found_again(drafts, BM25(), terms.corpus)
    assert found == {"a"}
    assert OFF.found_again(drafts, BM25(), terms.corpus) == set(drafts)


def test_documents_are_from_all_over_the_collection() -> None:
    """Nine documents of ten are about one thing; among the first that are drawn nearly all of ten
    other things are met, of which a random draw would meet three."""
    rng = np.random.default_rng(0)
    about = [0] * 540 + list(range(1, 11)) * 6
    texts = {
        f"d{n}": " ".join(f"kind{kind}word{rng.integers(6)}" for _ in range(8))
        for n, kind in enumerate(about)
    }
    corpus = Corpus.of(texts)
    words = BM25(language="none").words_of(corpus)
    order = in_breadth(corpus, words, 0)
    assert sorted(order.tolist()) == list(range(600))
    assert len({about[i] for i in order[:40]}) > 8
    assert (in_breadth(corpus, words, 0) == order).all()
    assert texts_at(corpus, np.array([3, 500])) == [texts["d3"], texts["d500"]]
