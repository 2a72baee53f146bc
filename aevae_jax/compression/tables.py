"""Functions of integers, fixed for ever: what a decoder looks up is the same on every machine.

All are made once in float64, rounded, and compared with a digest: a platform whose mathematics rounds otherwise is
refused in place of decoding wrongly.
"""

from __future__ import annotations

import hashlib
import math
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy import special

UNIT = 1 << 16
"""Arguments of `logistic` and `normal` are integers in units of 1/65536."""

ONE = 1 << 24
"""What `logistic` and `normal` return for probability 1."""

GRID = 16
"""Logarithms (of scales, of weights) are integers in units of 1/16 nat."""

BUCKETS = 1 << 14
"""Into so many intervals of equal probability the standard normal is cut."""

_KNOT = 10  # bits of an argument below one knot of a table: knots stand 1/64 apart
_REACH = {"logistic": 17, "normal": 9}  # beyond it, in whole units, the probability is 0 or 1
DIGEST = "0666f191553ecc1979e80f893650f0b749ba0a89d782546b37024770f30400a9"


class Tables(NamedTuple):
    """Integers; see the functions that look them up."""

    logistic: np.ndarray
    normal: np.ndarray
    exponential: np.ndarray
    centres: np.ndarray
    edges: np.ndarray


@cache
def tables() -> Tables:
    """Return all tables.

    Raises:
      RuntimeError: the mathematics of this platform rounds otherwise.
    """
    found = made()
    digest = hashlib.sha256(b"".join(table.astype("<i8").tobytes() for table in found)).hexdigest()
    if digest != DIGEST:
        raise RuntimeError(f"tables of the codec: got sha256 {digest}, expected {DIGEST}: nothing is coded with these")
    return found


def made() -> Tables:
    """Return all tables, not compared with anything."""

    def distribution(name: str, function: object) -> np.ndarray:
        reach = _REACH[name]
        knots = np.arange(-reach * 64, reach * 64 + 1) / 64
        table = np.rint([ONE * function(t) for t in knots.tolist()]).astype(np.int64)  # type: ignore[operator]
        table[0], table[-1] = 0, ONE
        return np.append(table, ONE)  # the last knot has one above it, too

    levels = np.arange(1, BUCKETS) / BUCKETS
    inner = np.rint(special.ndtri(levels) * UNIT).astype(np.int64)
    middle = np.rint(special.ndtri((np.arange(BUCKETS) + 0.5) / BUCKETS) * UNIT).astype(np.int64)
    far = 1 << 40
    return Tables(
        logistic=distribution("logistic", lambda t: 1 / (1 + math.exp(-t))),
        normal=distribution("normal", lambda t: 0.5 * math.erfc(-t / math.sqrt(2))),
        exponential=np.rint([(1 << 30) * math.exp(-i / GRID) for i in range(21 * GRID)]).astype(np.int64),
        centres=middle,
        edges=np.concatenate([[-far], inner, [far]]),
    )


def logistic(t: np.ndarray) -> np.ndarray:
    """Return the logistic function 1 / (1 + e^-t), in units of 1 / `ONE`, linear between knots and never falling."""
    return _interpolated(tables().logistic, _REACH["logistic"], t)


def normal(t: np.ndarray) -> np.ndarray:
    """Return the standard normal's distribution function, in units of 1 / `ONE`, linear between knots and never
    falling.
    """
    return _interpolated(tables().normal, _REACH["normal"], t)


def _interpolated(table: np.ndarray, reach: int, t: np.ndarray) -> np.ndarray:
    t = np.clip(t + reach * UNIT, 0, 2 * reach * UNIT)
    knot, rest = t >> _KNOT, t & ((1 << _KNOT) - 1)
    low = table[knot]
    return np.asarray(low + (((table[knot + 1] - low) * rest) >> _KNOT))


def exponential(i: np.ndarray) -> np.ndarray:
    """Return e^(-i / `GRID`) for i >= 0 in units of 2^-30; from 21 nats on 0."""
    table = tables().exponential
    return np.asarray(np.where(i < len(table), table[np.minimum(i, len(table) - 1)], 0))


@cache
def scales(lowest: int, highest: int) -> np.ndarray:
    """Return e^(i / `GRID`) for i from `lowest` to `highest`, as exact multiples of 2^-30."""
    return np.rint([math.exp(i / GRID) * (1 << 30) for i in range(lowest, highest + 1)]) / (1 << 30)
