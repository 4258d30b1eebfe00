"""How many tokens a text has, estimated without any model's vocabulary."""

from __future__ import annotations


def estimated_tokens(text: str) -> int:
    """About how many tokens a language model counts in a text.

    A quarter token per ASCII character, and half a token more per further byte of UTF-8: rather
    too many than too few for scripts beyond Latin.
    """
    extra = 0 if text.isascii() else len(text.encode("utf-8", "replace")) - len(text)
    return -(-len(text) // 4) + -(-extra // 2)
