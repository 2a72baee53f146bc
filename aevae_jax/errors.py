"""What is said of input that cannot be used: one line, with what to do next. `types` hands these names on."""

from __future__ import annotations


class InputError(ValueError):
    """Something the user gave cannot be used. The message is one line that says what to do next.

    Args:
      what: the thing that is wrong, for example "batch size".
      got: what was given.
      expected: what would have been accepted; empty where the hint says it.
      where: the file, option or argument it came from.
      hint: what to type next.
    """

    def __init__(self, what: str, *, got: object, expected: str, where: str = "", hint: str = ""):
        self.what, self.got, self.expected, self.hint = shortened(what), shortened(got), expected, hint
        self.where = shortened(where)
        super().__init__(self._composed(self.got, self.where, self.expected))

    def line(self, most: int) -> str:
        """Return the message in at most `most` characters, where that is possible: where it is, what was given and what
        would have been accepted are cut in their middle, a place first and then the longest, and what to type next is
        not.
        """
        parts = [self.got, self.where, self.expected]
        for attempt in range(len(parts) + 1):
            over = len(self._composed(*parts)) - most
            if over <= 0:
                break
            index = max(range(len(parts)), key=lambda i: len(parts[i])) if attempt else 1
            parts[index] = shortened(parts[index], max(20 if attempt else 40, len(parts[index]) - over - 3))
        return self._composed(*parts)

    def _composed(self, got: str, where: str, expected: str) -> str:
        place, wanted, advice = where and f" ({where})", expected and f", expected {expected}", self.hint
        return printable(f"{self.what}{place}: got {got}{wanted}{advice and f'; {advice}'}")


def not_installed(package: str, extra: str, *, purpose: str, got: object = "not installed") -> InputError:
    """Return what to say of a package that is missing.

    The package index has no project of this name, and whoever made one there could be installed in its place: what is
    typed names the checkout.

    Args:
      package: what is missing.
      extra: the optional dependencies in pyproject.toml that bring it.
      purpose: what it is needed for: "to stream data".
      got: what is there in its place.
    """
    return InputError(
        package,
        got=got,
        expected=f"installed, {purpose}",
        hint=f'type in the checkout of this project: pip install -e ".[{extra}]"',
    )


def printable(text: object) -> str:
    """Return `text` with a blank for each character that could steer a terminal, break the line or not be encoded."""
    return "".join(c if c.isprintable() else " " for c in str(text))


def shortened(text: object, limit: int = 300) -> str:
    """Return at most about `limit` characters of `text`, from its beginning and its end: it may be a whole file."""
    shown, tail = str(text), limit // 4
    return shown if len(shown) <= limit else f"{shown[: limit - tail]}...{shown[-tail:]}"
