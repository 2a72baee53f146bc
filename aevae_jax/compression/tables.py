"""Functions of integers, fixed for ever: what a decoder looks up is the same on every machine.

All are made once in float64, rounded, and compared with a digest: a platform whose mathematics rounds otherwise is
refused in place of decoding wrongly.
"""

from __future__ import annotations

import decimal
import hashlib
import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy import special

UNIT = 1 << 16
"""Arguments of `normal`, edges and middles of buckets are integers in units of 1/65536."""

STEP = 1 << 12
"""Arguments of `logistic` are integers in units of 1/4096."""

ONE = 1 << 24
"""What `logistic` and `normal` return for probability 1."""

GRID = 16
"""Logarithms (of scales, of weights) are integers in units of 1/16 nat."""

BUCKETS = 1 << 14
"""Into so many intervals of equal probability the standard normal is cut."""

_KNOT = 10  # bits of an argument of `normal` below one knot of its table: knots stand 1/64 apart
_FAR_LOGISTIC, _FAR_NORMAL = 17, 9  # farther out, in whole units, the probability is 0 or 1
DIGEST = "6daa8271cca45079809dadc9dce979866693913a0bac00db278fcc3b30f60397"


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

    def distribution(function: Callable[[float], float], far: int, steps: int) -> np.ndarray:
        knots = np.arange(-far * steps, far * steps + 1) / steps
        table = np.rint([ONE * function(t) for t in knots.tolist()]).astype(np.int64)
        table[0], table[-1] = 0, ONE
        return table

    levels = np.arange(1, BUCKETS) / BUCKETS
    inner = np.rint(special.ndtri(levels) * UNIT).astype(np.int64)
    middle = np.rint(special.ndtri((np.arange(BUCKETS) + 0.5) / BUCKETS) * UNIT).astype(np.int64)
    far = 1 << 36  # farther than any bucket, and no product of it leaves 64 bits
    return Tables(
        logistic=distribution(lambda t: 1 / (1 + math.exp(-t)), _FAR_LOGISTIC, STEP),
        normal=np.append(distribution(lambda t: 0.5 * math.erfc(-t / math.sqrt(2)), _FAR_NORMAL, 64), ONE),
        exponential=np.rint([(1 << 30) * math.exp(-i / GRID) for i in range(21 * GRID)]).astype(np.int64),
        centres=middle,
        edges=np.concatenate([[-far], inner, [far]]),
    )


def logistic(t: np.ndarray) -> np.ndarray:
    """Return the logistic function 1 / (1 + e^-t) of t in units of 1 / `STEP`, in units of 1 / `ONE`."""
    far = _FAR_LOGISTIC * STEP
    return np.asarray(tables().logistic[_within(t + far, 2 * far)])


def normal(t: np.ndarray) -> np.ndarray:
    """Return the standard normal's distribution function of t in units of 1 / `UNIT`, in units of 1 / `ONE`.

    It is linear between knots, and never falls.
    """
    far, table = _FAR_NORMAL * UNIT, tables().normal
    t = _within(t + far, 2 * far)
    knot, rest = t >> _KNOT, t & ((1 << _KNOT) - 1)
    low = table[knot]
    return np.asarray(low + (((table[knot + 1] - low) * rest) >> _KNOT))


def _within(t: np.ndarray, most: int) -> np.ndarray:
    """Return integers between 0 and `most`; `np.clip` of integers takes several times as long."""
    return np.minimum(np.maximum(t, 0), most)


def exponential(i: np.ndarray) -> np.ndarray:
    """Return e^(-i / `GRID`) for i >= 0 in units of 2^-30; from 21 nats on 0."""
    table = tables().exponential
    return np.asarray(np.where(i < len(table), table[np.minimum(i, len(table) - 1)], 0))


@cache
def scales(lowest: int, highest: int) -> np.ndarray:
    """Return e^(i / `GRID`) for i from `lowest` to `highest`, as exact multiples of 2^-30.

    Computed in decimal arithmetic: exponentials of the platform may differ in the last of 53 bits, and of the largest
    all of them are looked at.
    """
    with decimal.localcontext(prec=60):
        found = [float((decimal.Decimal(i) / GRID).exp() * (1 << 30)) for i in range(lowest, highest + 1)]
    return np.rint(found) / (1 << 30)
