"""Which language a corpus is in, how its words are stemmed and which words are left out.

Languages by py3langid, stemmers of Snowball (PyStemmer), stop words of bm25s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

SAMPLE, BEGINNING = 200, 1000  # documents, and characters of each, that are classified
# ISO 639-1 → Snowball's name
STEMMERS = {
    "ar": "arabic", "hy": "armenian", "eu": "basque", "ca": "catalan", "cs": "czech",
    "da": "danish", "nl": "dutch", "en": "english", "eo": "esperanto", "et": "estonian",
    "fi": "finnish", "fr": "french", "de": "german", "el": "greek", "hi": "hindi",
    "id": "indonesian", "ga": "irish", "it": "italian", "lt": "lithuanian", "ne": "nepali",
    "no": "norwegian", "nb": "norwegian", "nn": "norwegian", "fa": "persian", "pl": "polish",
    "pt": "portuguese", "ro": "romanian", "ru": "russian", "sr": "serbian", "es": "spanish",
    "sv": "swedish", "ta": "tamil", "tr": "turkish",
}  # fmt: skip
STOPWORDS = {
    "danish": "DANISH", "dutch": "DUTCH", "english": "EN", "french": "FRENCH",
    "german": "GERMAN", "italian": "ITALIAN", "norwegian": "NORWEGIAN",
    "portuguese": "PORTUGUESE", "russian": "RUSSIAN", "spanish": "SPANISH",
    "swedish": "SWEDISH", "turkish": "TURKISH",
}  # fmt: skip


def language_of(texts: Iterable[str]) -> str:
    """Snowball's name of the language of most texts; `none` if it has no stemmer for it."""
    from py3langid import classify

    found = Counter(classify(text[:BEGINNING])[0] for text in texts if text.strip())
    return STEMMERS.get(found.most_common(1)[0][0], "none") if found else "none"


def stop_words(language: str) -> frozenset[str]:
    """Words that are left out, in lower case; empty where there is no list of them."""
    from bm25s import stopwords

    if language not in STOPWORDS:
        return frozenset()
    return frozenset(getattr(stopwords, f"STOPWORDS_{STOPWORDS[language]}"))
