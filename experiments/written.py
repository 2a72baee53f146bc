"""Tables and commands, as they stand in the README."""

from __future__ import annotations

import shlex
from collections.abc import Sequence


def typed(command: str) -> str:
    """Return a recorded command as anyone can type it: without the file that the results went to."""
    words = shlex.split(command)
    while "--record" in words:
        at = words.index("--record")
        del words[at : at + 2]
    return shlex.join(word for word in words if not word.startswith("--record="))


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table."""
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, ["---"] * len(head), *rows))
