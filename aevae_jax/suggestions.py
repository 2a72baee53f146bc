"""What is wrong with a text that was typed, and what was probably meant."""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path


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


def neighbour(path: Path) -> str:
    """Return the question whether something of nearly the same name in the same folder was meant; empty where there is
    nothing.
    """
    try:
        names = os.listdir(path.parent)
    except (OSError, ValueError):
        return ""
    close = difflib.get_close_matches(path.name, names[:1000], n=1, cutoff=0.7)
    return f"did you mean {shlex.quote(os.path.join(os.path.dirname(path) or '.', close[0]))}?" if close else ""


def unbalanced(text: str) -> str:
    """Return what is wrong with the brackets and quotes of a text, in words, else an empty text."""
    waiting, quote, stray = _open(text)
    if stray:
        return f"whose {stray} closes nothing"
    if quote:
        return f"in which the quote {quote} is not closed"
    return f"which lacks {waiting[:8]} at the end" if waiting else ""


def closed(text: str) -> str:
    """Return a text with the quote and the brackets at its end that it lacks, and without one that closes nothing."""
    while stray := _open(text)[2]:
        index = next(i for i in range(len(text)) if _open(text[: i + 1])[2] == stray)
        text = text[:index] + text[index + 1 :]
    waiting, quote, _ = _open(text)
    return f"{text}{quote}{waiting}"


def _open(text: str) -> tuple[str, str, str]:
    """Return the brackets that would close a text, the quote that would, and the first bracket that closes nothing."""
    waiting, quote = "", ""
    for c in text:
        if quote:
            quote = "" if c == quote else quote
        elif c in "'\"":
            quote = c
        elif c in "([{":
            waiting = {"(": ")", "[": "]", "{": "}"}[c] + waiting
        elif c in ")]}":
            if waiting[:1] != c:
                return waiting, "", c
            waiting = waiting[1:]
    return waiting, quote, ""
