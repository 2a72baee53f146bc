"""Columns of a table: the kind that is inferred from their entries, and raw numbers of those whose kind is known."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from aevae_jax.data.datasets import Column
from aevae_jax.data.table_entries import (
    BLANKS,
    MakeError,
    check_finite,
    check_support,
    is_text,
    missing_to_null,
    no_number,
    numbers_in,
)
from aevae_jax.data.tables import WORDS, Reading, spelled

MAX_CATEGORIES = 1_000
"""How many different texts one column may have."""

NEAR_ZERO_STDS = 4.0
"""Numbers that are never negative are modelled so if their mean is less than this many standard deviations above 0."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_OTHER_NUMBER = re.compile(r"[+-]?(\d{1,3}([., '\u00a0\u202f]\d{3})+|\d*)([.,]\d+)?\s?%?", re.ASCII)
_PADDED = r"^0[0-9]+$"
_TIME = re.compile(r"\d{4}-\d\d?-\d\d?([ T].*)?|\d\d?:\d\d(:\d\d.*)?", re.ASCII)


def looks_like_number(text: str) -> bool:
    """Return whether a text is a finite decimal number with a point."""
    return _NUMBER.fullmatch(text) is not None and math.isfinite(float(text))


# ------------------------------------------------------------------------------------------------ what entries make


def infer(values: Any, name: str, reading: Reading, from_csv: bool, make_error: MakeError) -> tuple[np.ndarray, Column]:
    """Infer the kind of a column from its entries, and encode them.

    Args:
      values: a `pyarrow.ChunkedArray` `[N]` of numbers, texts or booleans.
      name: of the column.
      reading: how the table is read.
      from_csv: the entries are texts, which may be numbers.
      make_error: makes an error that names the column.

    Returns:
      Numbers or codes `[N]`, NaN where they are missing, and the column.

    Raises:
      InputError: what `table_files.read` refuses.
    """
    option = reading.named.get(name, "")
    quantity = option in ("numbers", "positive", "counts")
    if not is_text(values.type):
        x = values.cast("float64", safe=False).to_numpy()
        return (
            _categorical_numbers(x, name, make_error)
            if option == "categorical"
            else _numeric_column(x, values, name, option, make_error)
        )
    if quantity or (from_csv and not option):
        texts = missing_to_null(values, reading, from_csv)
        x = numbers_in(texts, reading)
        if x is not None:
            found = _numeric_column(x, texts, name, option, make_error)
            if not option and not found[1].categories:
                _check_padding(texts, name, found[1].kind, make_error)
            return found
        if quantity:
            raise no_number(texts, reading, make_error)
    code, categories = _encode_texts(values, reading, from_csv)
    _check_categories(categories, code, make_error)
    if option != "categorical":
        _check_texts(categories, name, from_csv, make_error)
    return code, Column(name, categories, "text")


def labels(values: Any, reading: Reading, from_csv: bool, make_error: MakeError) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return entries as labels, int32 `[N]`, -1 where they are missing, and the texts that they stand for."""
    if is_text(values.type):
        code, categories = _encode_texts(values, reading, from_csv)
    else:
        code, categories = _encode_numbers(values.cast("float64", safe=False).to_numpy())
    if not 0 < len(categories) <= MAX_CATEGORIES:
        raise make_error(got=f"{len(categories)} labels", expected=f"1 to {MAX_CATEGORIES}")
    return np.where(np.isnan(code), -1, code).astype(np.int32), categories


def _numeric_column(
    x: np.ndarray, values: Any, name: str, option: str, make_error: MakeError
) -> tuple[np.ndarray, Column]:
    """Return a column of numbers, or a binary one if only two values occur."""
    check_finite(x, make_error)
    present = x[~np.isnan(x)]
    if not present.size:
        raise make_error(got="no entries", expected="at least 1", hint="leave it out")
    low, high = present.min(), present.max()
    if not option and low < high and ((present == low) | (present == high)).all():
        return np.where(np.isnan(x), np.nan, x == high), Column(name, _binary_categories(low, high, values))
    kind = {"numbers": "number", "positive": "positive", "counts": "count"}.get(option) or _kind(present)
    column = Column(name, (), kind, _offset(present) if kind == "positive" else 0.0)  # type: ignore[arg-type]
    check_support(x, column, make_error)
    if max(abs(low), abs(high)) >= 2**53:
        from pyarrow import compute

        distinct, kept = compute.count_distinct(values).as_py(), len(np.unique(present))
        if distinct > 2 * kept:
            raise make_error(
                got=f"{distinct} different numbers, of which float64 tells {kept} apart",
                expected="numbers below 2**53",
                hint="subtract what they have in common, or leave it out",
            )
    return x, column


def _check_padding(texts: Any, name: str, kind: str, make_error: MakeError) -> None:
    """Refuse numbers such as 01067, which are probably names, as of postal areas: a number loses its leading zero."""
    from pyarrow import compute

    padded = texts.filter(compute.match_substring_regex(texts, _PADDED))
    if not len(padded):
        return
    few = compute.count_distinct(texts, mode="only_valid").as_py() <= MAX_CATEGORIES
    names = f"categorical=({name!r},), if they are names, or " if few else ""
    quantities = f"{'counts' if kind == 'count' else 'numbers'}=({name!r},), if they are quantities"
    raise make_error(
        got=f"numbers with leading zeros, such as {padded[0].as_py()!r}",
        expected="numbers or names",
        hint=f"leave it out, or type in Data: {names}{quantities}",
    )


def _kind(present: np.ndarray) -> str:
    """Return what numbers look like: counts, positive numbers that a normal distribution would make negative, or
    any.
    """
    if present.min() < 0 or present.min() == present.max():
        return "number"
    if (present == np.rint(present)).all():
        return "count"
    return "positive" if present.mean() < NEAR_ZERO_STDS * present.std() else "number"


def _offset(present: np.ndarray) -> float:
    """Return 0 for positive numbers; where there are zeros among them, as far below as the smallest twentieth is
    above.
    """
    positive = present[present > 0]
    return 0.0 if positive.size in (0, present.size) else -float(np.quantile(positive, 0.05))


def _binary_categories(low: float, high: float, values: Any) -> tuple[str, str]:
    """Return the texts of two numbers as they stand in the file, or with the fewest digits where there are several."""
    if is_text(values.type):
        texts = [text for text in values.unique().to_pylist() if text is not None and text not in WORDS]
        if len(texts) == 2 and all(map(looks_like_number, texts)):
            first, second = sorted(texts, key=float)
            return first, second
    return spelled(low), spelled(high)


def _categorical_numbers(x: np.ndarray, name: str, make_error: MakeError) -> tuple[np.ndarray, Column]:
    """Return typed numbers that are categories."""
    check_finite(x, make_error)
    code, categories = _encode_numbers(x)
    odd = x[x != np.rint(x)]
    odd = odd[~np.isnan(odd)]
    if odd.size:
        raise make_error(got=f"{odd[0]:g}", expected="whole numbers, as it is categorical")
    _check_categories(categories, code, make_error)
    return code, Column(name, categories, "text")


def _encode_numbers(x: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the codes of numbers `[N]`, NaN where they are, and their texts."""
    distinct = np.unique(x[~np.isnan(x)])
    return np.where(np.isnan(x), np.nan, np.searchsorted(distinct, x)), tuple(map(spelled, distinct))


def _encode_texts(values: Any, reading: Reading, from_csv: bool) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the codes of texts `[N]`, NaN where they are missing, and the texts in their order."""
    import pyarrow
    from pyarrow import types

    encoded = values if types.is_dictionary(values.type) else values.cast("large_string").dictionary_encode()
    encoded = encoded.unify_dictionaries()
    index = np.concatenate([chunk.indices.cast("int32").fill_null(-1).to_numpy() for chunk in encoded.chunks])
    dictionary = encoded.chunk(0).dictionary.cast("string")
    texts = missing_to_null(pyarrow.chunked_array([dictionary]), reading, from_csv)
    count = np.bincount(index + 1, minlength=len(texts) + 1)[1:]
    there = np.flatnonzero((count > 0) & texts.is_valid().to_numpy())
    used = texts.take(there).to_pylist()
    categories = sorted(set(used))
    if all(map(looks_like_number, categories)):
        categories.sort(key=float)
    places = {text: place for place, text in enumerate(categories)}
    code = np.full(len(texts) + 1, np.nan)  # the last one is that of index -1
    code[there] = [places[text] for text in used]
    return code[index], tuple(categories)


def _check_categories(categories: tuple[str, ...], code: np.ndarray, make_error: MakeError) -> None:
    count, present = len(categories), int((~np.isnan(code)).sum())
    if count == 0:
        raise make_error(got="no entries", expected="at least 1", hint="leave it out")
    if count == 1:
        raise make_error(got=f"{categories[0]!r} in every row", expected="at least 2 categories", hint="leave it out")
    if count > MAX_CATEGORIES or 2 < count == present:
        odd = next((text for text in categories if not looks_like_number(text)), categories[0])
        raise make_error(
            got=f"{count} categories in {present} rows, such as {odd!r}",
            expected=f"at most {MAX_CATEGORIES}, and some of them twice",
            hint="leave it out, or, if it holds numbers, leave missing entries empty",
        )


def _check_texts(categories: tuple[str, ...], name: str, from_csv: bool, make_error: MakeError) -> None:
    """Refuse texts that are probably numbers, dates or times; those of Parquet may be numbers with a point."""
    keep = f"categorical=({name!r},), if they are names"
    plain = [looks_like_number(text) for text in categories]
    other = [
        p or (any(map(str.isdigit, text)) and _OTHER_NUMBER.fullmatch(text) is not None)
        for p, text in zip(plain, categories, strict=True)
    ]
    if all(plain) and not from_csv:
        return
    odd = next((text for text, is_plain in zip(categories, plain, strict=True) if not is_plain), categories[0])
    if all(other):
        options = {"decimal": ".,", "thousands": ",' \u00a0\u202f"}
        found = [f"{option}={mark!r}" for option, marks in options.items() for mark in marks if mark in odd]
        cure = f"type in Data: {' or '.join([*found, keep])}" if found else f"leave out what is no digit, or {keep}"
        raise make_error(
            got=f"texts that look like numbers, such as {odd!r}", expected="numbers such as 1234.5", hint=cure
        )
    if any(plain):
        raise make_error(
            got=f"numbers and the text {odd!r}",
            expected="one or the other",
            hint=f"leave missing entries empty, or type in Data: missing=({odd!r},), or {keep}",
        )
    if all(_TIME.fullmatch(text) for text in categories):
        raise make_error(
            got=f"dates or times, such as {categories[0]!r}",
            expected="numbers, texts or booleans",
            hint=f"convert it, leave it out, or type in Data: {keep}",
        )


# ------------------------------------------------------------------------------------------- columns that are known


def read_known(values: Any, column: Column, reading: Reading, from_csv: bool, make_error: MakeError) -> np.ndarray:
    """Return the entries of a column that is known as numbers or codes `[N]`, NaN where they are missing.

    Args:
      values: a `pyarrow.ChunkedArray` `[N]` of numbers, texts or booleans.
      column: as the training data had it. Categories are its texts, character by character; those that are two numbers
        may be written otherwise.
      reading, from_csv, make_error: as in `infer`.

    Raises:
      InputError: a text among numbers, a category that is none, a number that is none of the kind.
    """
    if column.categories:
        return _encode_known(values, column, reading, from_csv, make_error)
    if is_text(values.type):
        texts = missing_to_null(values, reading, True)
        x = numbers_in(texts, reading)
        if x is None:
            raise no_number(texts, reading, make_error)
    else:
        x = values.cast("float64", safe=False).to_numpy()
    check_finite(x, make_error)
    check_support(x, column, make_error)
    return x


def _encode_known(values: Any, column: Column, reading: Reading, from_csv: bool, make_error: MakeError) -> np.ndarray:
    code = np.full(len(values), np.nan)
    places: dict[Any, float] = {None: math.nan}
    for row, entry in enumerate(values.to_pylist()):
        if entry not in places:
            found = _code_of(entry, column, reading, from_csv)
            if found is None:
                raise make_error(
                    got=f"{str(entry)!r} in data row {row + 1}", expected=" or ".join(column.categories[:20])
                )
            places[entry] = found
        code[row] = places[entry]
    return code


def _code_of(entry: Any, column: Column, reading: Reading, from_csv: bool) -> float | None:
    """Return the code of an entry, NaN if it is missing, None if it is no category of the column."""
    if isinstance(entry, float) and math.isnan(entry):
        return math.nan
    text = entry if isinstance(entry, str) else str(entry).lower() if isinstance(entry, bool) else spelled(entry)
    for spelling in (text, text.strip(BLANKS)) if from_csv else (text,):
        if spelling in column.categories:
            return column.categories.index(spelling)
    text = text.strip(BLANKS) if from_csv else text
    if text in reading.missing or (from_csv and not text):
        return math.nan
    if column.kind != "text":
        if text in WORDS:
            return math.nan
        number = float(text) if looks_like_number(text) else math.nan
        numbers = [float(c) if looks_like_number(c) else math.nan for c in column.categories]
        equal = [i for i, other in enumerate(numbers) if other == number]
        if len(equal) == 1:
            return equal[0]
    if isinstance(entry, bool):
        equal = [i for i, category in enumerate(column.categories) if category.lower() == text]
        return equal[0] if len(equal) == 1 else None
    return None
