"""Which numbers a field of a value may hold: those that JAX, which counts in 32 bits, can compute with."""

from __future__ import annotations

import numbers
from typing import Any

from aevae_jax.types import InputError

MOST = 2**31 - 1
"""The largest integer of 32 bits."""

SMALLEST, LARGEST = 2.0**-126, float(2**128 - 2**104)
"""The smallest and the largest positive normal number in float32."""


def check(what: str, got: Any, low: float, high: float = MOST, *, where: str = "") -> None:
    """Refuse what is no number from `low` to `high`, both included; or no integer, where `low` is one.

    Raises:
      InputError: about `what`, in `where`.
    """
    kind, words = (numbers.Integral, "an integer") if isinstance(low, int) else (numbers.Real, "a number")
    if not isinstance(got, kind) or isinstance(got, bool):
        raise InputError(what, got=shown(got), expected=words, where=where)
    number: Any = got
    if not low <= number <= high:
        raise InputError(what, got=shown(got), expected=_range(number, low, high), where=where)


def _range(number: Any, low: float, high: float) -> str:
    """Return what would not have been outside, in words: the end that was passed, or both where both are narrow."""
    if number != number:  # noqa: PLR0124  # NaN; an integer may be too large for math.isnan
        return "a number"
    if high not in (MOST, LARGEST):
        return f"{low:g} to {high:.12g}"
    if number > high:
        return f"at most {high:.12g}"
    return "a positive number" if low == SMALLEST and number <= 0 else f"at least {low:g}"


def is_zero(number: Any) -> bool:
    """Return whether a number is known to be 0. One that is traced, as in a sweep, is not: it may be anything."""
    return isinstance(number, numbers.Real) and number == 0


def check_sizes(what: str, sizes: Any, low: int = 1, *, where: str = "") -> None:
    """Refuse what is no tuple of integers from `low` on.

    Raises:
      InputError: about `what`, in `where`.
    """
    if not isinstance(sizes, tuple | list):
        raise InputError(what, got=shown(sizes), expected="a tuple of integers", where=where)
    for size in sizes:
        check(what, size, low, where=where)


def shown(value: object, most: int = 45) -> str:
    """Return `repr` of what was given, in at most `most` characters; it may be nested too deeply, or too long, for
    that.
    """
    try:
        text = repr(value)
    except (RecursionError, ValueError):
        return "a value too large to show"
    return text if len(text) <= most else f"{text[:most]}..."
