"""Rows as they were stored, and the symbols 0, 1, ... that are coded: those that give the rows back, bit for bit.

Bits may be stored as 0 and 1 or as 0 and 255, levels as integers or as level / (levels - 1), as a model sees them.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np

from aevae_jax.types import InputError

OWN_MODEL = "train a model of these: aevae train RUN --data FILE"
"""What to do with images that a model cannot have."""


def from_rows(rows: np.ndarray, levels: int, first: int = 0) -> tuple[np.ndarray, int]:
    """Return symbols, and which of `container.MAPPINGS` gives the rows back.

    Args:
      rows: `[n, ...]` of one of `container.TYPES`.
      levels: of the symbols.
      first: the number of the first row, for messages.

    Raises:
      InputError: no mapping gives the rows back to the last bit: NaN, values beyond the levels or between them.
    """
    for mapping in possible(rows.dtype, levels):
        symbols = _guess(rows, levels, mapping)
        if np.array_equal(_bytes(to_rows(symbols, rows.dtype, levels, mapping)), _bytes(rows)):
            return symbols, mapping
    raise _outside(rows, levels, first)


def to_rows(symbols: np.ndarray, dtype: np.dtype | str, levels: int, mapping: int) -> np.ndarray:
    """Return rows as they were stored, of their symbols.

    Args:
      symbols: `[n, ...]`, 0 to `levels - 1`.
      dtype: of the rows.
      levels: of the symbols.
      mapping: a number of `container.MAPPINGS`. A quotient is that of two numbers of the dtype, rounded once.
    """
    values = symbols.astype(np.dtype(dtype).newbyteorder("="))
    if mapping == 1:
        values *= values.dtype.type(255)
    elif mapping == 2:
        values /= values.dtype.type(levels - 1)
    return values.astype(dtype, copy=False)


def digest(rows: np.ndarray, about: bytes) -> bytes:
    """Return the first 16 bytes of the sha256 of the bytes of a header, and those of rows behind them."""
    total = hashlib.sha256(about)
    total.update(np.ascontiguousarray(rows).data)
    return total.digest()[:16]


def dtype_of(levels: int) -> np.dtype:
    """Return the type of symbols."""
    return np.dtype(np.uint8 if levels <= 256 else np.uint16)


def possible(dtype: np.dtype | str, levels: int) -> list[int]:
    """Return the numbers of `container.MAPPINGS` that can give values of a type."""
    dtype = np.dtype(dtype)
    holds = dtype.kind == "f" or (dtype.kind != "b" and np.iinfo(dtype).max >= 255)
    return [0, *([1] if levels == 2 and holds else []), *([2] if dtype.kind == "f" and levels > 2 else [])]


def _guess(rows: np.ndarray, levels: int, mapping: int) -> np.ndarray:
    """Return the symbols that a mapping may have made rows of; whether it has is to be seen."""
    if mapping == 1:
        return (rows == 255).astype(np.uint8)
    if mapping == 0 and rows.dtype.kind != "f":
        wide = rows if rows.dtype.kind != "b" else rows.view(np.uint8)
        inside = (wide >= 0) & (wide < levels)
        return np.where(inside, wide, 0).astype(dtype_of(levels))
    with np.errstate(all="ignore"):  # NaN and infinity become some symbol, which gives something else back
        scaled = np.rint(rows.astype(np.float64) * (levels - 1 if mapping == 2 else 1))
        return np.where((scaled >= 0) & (scaled < levels), scaled, 0).astype(dtype_of(levels))


def _bytes(rows: np.ndarray) -> np.ndarray:
    """Return the bytes of rows, so that -0.0 is not 0.0."""
    return np.ascontiguousarray(rows).reshape(-1).view(np.uint8)


def _outside(rows: np.ndarray, levels: int, first: int) -> InputError:
    """Return what is wrong with rows that have no symbols: the first value that cannot be one, if a single one is."""
    flat = rows.reshape(len(rows), -1)
    wrong = np.ones(flat.shape, bool)
    for mapping in possible(rows.dtype, levels):
        back = to_rows(_guess(flat, levels, mapping), rows.dtype, levels, mapping)
        same = (_bytes(back) == _bytes(flat)).reshape(*flat.shape, rows.dtype.itemsize).all(axis=-1)
        wrong &= ~same
    where = np.argwhere(wrong)
    if len(where):
        row, place = where[0]
        got = f"{flat[row, place]!s} in image {first + row:,}"
        value = float(flat[row, place])
    else:
        value = 0.0
        got = f"values of two kinds among images {first:,} to {first + len(rows) - 1:,}"
    shown = "0 or 1, or 0 or 255" if levels == 2 else f"integers of 0 to {levels - 1}"
    fractions = f", or multiples of 1/{levels - 1}" if rows.dtype.kind == "f" and levels > 2 else ""
    if levels == 2:
        hint = "binarise the images first, and save 0 and 1"
    elif not math.isfinite(value):
        hint = "leave such images out, or save np.nan_to_num(x)"
    elif rows.dtype.kind == "f" and 0 < value < levels - 1:
        hint = f"save np.rint({f'x * {levels - 1}' if value < 1 else 'x'}).astype(np.uint8)"
    else:
        hint = OWN_MODEL
    return InputError("values", got=got, expected=f"{shown}{fractions}, which the model has symbols for", hint=hint)
