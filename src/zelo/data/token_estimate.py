"""How many tokens a text has, estimated without any model's vocabulary."""

from __future__ import annotations


def estimated_tokens(text: str) -> int:
    """About how many tokens a language model counts in a text.

    A quarter of a token per character, and half a token for each byte of UTF-8 beyond its first:
    for scripts other than Latin rather too many than too few.
    """
    extra = 0 if text.isascii() else len(text.encode("utf-8", "replace")) - len(text)
    return -(-len(text) // 4) + -(-extra // 2)
