"""What is wrong with a text that was typed, and what was probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence


def meant_by(word: str, names: Sequence[str]) -> str:
    """Return which of `names` was probably meant by `word`, else an empty text: `lr` is learning_rate, `beta-vae` is
    VAE.
    """
    lower = {name.lower(): name for name in names}
    word = word.lower()[:100]
    parts = set(re.split(r"[^a-z0-9]+", word))
    for known, name in lower.items():
        if known in parts or word == "".join(part[:1] for part in known.split("_")):
            return name
    for known, name in lower.items():
        if len(word) > 2 and (known.startswith(word) or word.startswith(known)):
            return name
    close = difflib.get_close_matches(word, lower, n=1)
    return lower[close[0]] if close else ""


def unbalanced(text: str) -> str:
    """Return what is wrong with the brackets and quotes of a text, in words, else an empty text."""
    waiting, quote = "", ""
    for c in text:
        if quote:
            quote = "" if c == quote else quote
        elif c in "'\"":
            quote = c
        elif c in "([{":
            waiting += {"(": ")", "[": "]", "{": "}"}[c]
        elif c in ")]}":
            if waiting[-1:] != c:
                return f"whose {c} closes nothing"
            waiting = waiting[:-1]
    if quote:
        return f"in which the quote {quote} is not closed"
    return f"which lacks {waiting[:-9:-1]} at the end" if waiting else ""
