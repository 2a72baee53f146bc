"""Entries of one column of a table: texts, numbers among them, and what is no number of its kind. With pyarrow."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from aevae_jax.data.datasets import Column
from aevae_jax.data.tables import WORDS, Reading
from aevae_jax.types import InputError

BLANKS = " \t"
"""What may stand around an entry of a CSV file."""

MakeError: TypeAlias = Callable[..., InputError]
"""An `InputError` about a column, still to be told what is wrong with it."""


def is_text(type: Any) -> bool:
    """Return whether a pyarrow type is that of texts, booleans, or a dictionary of them."""
    from pyarrow import types

    kinds = (types.is_string, types.is_large_string, types.is_string_view, types.is_boolean, types.is_dictionary)
    return any(kind(type) for kind in kinds)


def missing_to_null(values: Any, reading: Reading, from_csv: bool) -> Any:
    """Return texts, null where an entry is missing; those of CSV without blanks around them."""
    import pyarrow
    from pyarrow import compute

    texts = values.cast("string") if str(values.type) != "string" else values
    if from_csv:
        texts = compute.utf8_trim(texts, BLANKS)
    missing = [*([""] if from_csv else []), *reading.missing]
    if not missing:
        return texts
    return compute.if_else(
        compute.is_in(texts, pyarrow.array(missing, "string")), pyarrow.scalar(None, "string"), texts
    )


def numbers_in(texts: Any, reading: Reading) -> np.ndarray | None:
    """Return texts as float64 `[N]`, NaN where they are missing; None if there is one that is no number."""
    import pyarrow
    from pyarrow import compute

    words = compute.is_in(texts, pyarrow.array(WORDS, "string"))
    texts = compute.if_else(words, pyarrow.scalar(None, "string"), texts)
    if reading.decimal != "." or reading.thousands:
        # a mark in another place than between thousands makes no number: 1,5 is never 15
        mark, point = re.escape(reading.thousands or "_"), re.escape(reading.decimal)
        whole = rf"(\d+|\d{{1,3}}({mark}\d{{3}})+)" if reading.thousands else r"\d+"
        pattern = rf"^[+-]?({whole}({point}\d*)?|{point}\d+)([eE][+-]?\d+)?$"
        if not compute.all(compute.match_substring_regex(texts, pattern)).as_py() and texts.null_count < len(texts):
            return None
        if reading.thousands:
            texts = compute.replace_substring(texts, reading.thousands, "")
        texts = compute.replace_substring(texts, reading.decimal, ".")
    try:
        return texts.cast("float64").to_numpy()
    except pyarrow.ArrowInvalid:
        return None


def no_number(texts: Any, reading: Reading, make_error: MakeError) -> InputError:
    """Return the error that names the first text that is no number."""
    import pyarrow

    def is_number(text: str) -> bool:
        return numbers_in(pyarrow.chunked_array([[text]], "string"), reading) is not None

    odd = next(text for text in texts.unique().to_pylist() if text is not None and not is_number(text))
    return make_error(
        got=f"{odd!r} in data row {texts.index(odd).as_py() + 1}",
        expected="a number",
        hint=f"leave missing entries empty, or type in Data: missing=({odd!r},)",
    )


def check_finite(x: np.ndarray, make_error: MakeError) -> None:
    """Refuse numbers `[N]` that float32 cannot hold. Raises `InputError`."""
    with np.errstate(over="ignore"):
        too_large = np.isinf(x.astype(np.float32))
    if too_large.any():
        row = int(too_large.argmax())
        raise make_error(got=f"{x[row]:g} in data row {row + 1}", expected="numbers that float32 can hold")


def check_support(x: np.ndarray, column: Column, make_error: MakeError) -> None:
    """Refuse numbers `[N]` that are none of their column's kind.

    Raises:
      InputError: counts that are negative or not whole, positive numbers that are not, or 0 where none was in training.
    """
    if column.kind == "count":
        bad, expected = (x < 0) | (x != np.rint(x)), "whole numbers from 0, as it holds counts"
    elif column.kind == "positive":
        bad, expected = (x < 0) | (x <= column.offset), "numbers above 0, as it holds positive ones"
    else:
        return
    bad &= ~np.isnan(x)
    if bad.any():
        row = int(bad.argmax())
        raise make_error(got=f"{x[row]:g} in data row {row + 1}", expected=expected)
