"""Discrete distributions of integers: cumulative counts out of 2^precision, by integer arithmetic alone.

Each is made of integer parameters `[..., P]`, rounded from what a network gives, and has `levels` symbols. Its
`cumulative(k)` is what lies below symbol k, and the interval of k is what lies between that of k and of k + 1. Where a
`floor` is 1 and not 0 no interval is empty, so that whatever is pushed has a finite cost; what is popped first needs no
floor.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from aevae_jax.compression import tables
from aevae_jax.compression.stack import Bits
from aevae_jax.compression.tables import GRID
from aevae_jax.types import InputError

LOC_GRID = 16
"""Places of logistics are integers in units of 1/16 level."""

PLACE_GRID = 4096
"""Means of posteriors are integers in units of 1/4096 standard deviation of the prior."""

PRECISION, TOTAL = 16, 1 << 16
"""The precision of all distributions but `Gaussians` and bits, and what their counts sum to."""

OF_BITS = 12
"""The precision of two levels: `constriction` divides 2^24 evenly only by integers that are small against it, and
lengths of bits that are nearly certain are nearly the whole; of 2^16 each would cost a hundredth of a bit more.
"""

FINE, FINE_TOTAL = 20, 1 << 20
"""The precision of `Gaussians`, whose buckets are many, and what their counts sum to."""

MOST_LEVELS = 4096
"""So many levels leave each at least one of 65536 and the rest for the distribution."""


MOST_CHOICES = 1 << 15
"""So many choices of a code, or of a component, leave half of 65536 for the distribution."""


def check_choices(what: str, got: int) -> None:
    """Raise `InputError` where there are more than `MOST_CHOICES`."""
    if got > MOST_CHOICES:
        raise InputError(what, got=f"{got:,}", expected=f"at most {MOST_CHOICES:,} to be coded")


class Element(Protocol):
    """What can be pushed and popped: independent integers."""

    levels: int
    precision: int

    def cumulative(self, k: np.ndarray, part: slice) -> np.ndarray:
        """Return what lies below k `[n]`, for a part of all elements in order: 0 at 0, 2^precision from `levels` on."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of what is pushed and popped."""
        ...


def interval(element: Element, k: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return start and length of the intervals of symbols, of the shape of `element`."""
    flat, everything = k.reshape(-1), slice(0, k.size)
    start = element.cumulative(flat, everything)
    length = element.cumulative(flat + 1, everything) - start
    return start.reshape(k.shape), length.reshape(k.shape)


def push(bits: Bits, element: Element, k: np.ndarray) -> None:
    """Push symbols of the shape of `element`."""
    bits.push(*interval(element, k), element.precision)


def pop(bits: Bits, element: Element) -> np.ndarray:
    """Pop symbols of the shape of `element`."""

    def find(number: np.ndarray, part: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        symbol, start = np.zeros(number.size, np.int64), np.zeros(number.size, np.int64)
        for bit in reversed(range((element.levels - 1).bit_length())):  # the largest whose start is not above number
            larger = symbol + (1 << bit)
            above = element.cumulative(larger, part)
            reached = above <= number
            symbol, start = np.where(reached, larger, symbol), np.where(reached, above, start)
        return symbol, start, element.cumulative(symbol + 1, part) - start

    return bits.pop(find, element.shape, element.precision)


def shares(weights: np.ndarray, floor: int, precision: int = PRECISION) -> np.ndarray:
    """Return cumulative counts `[..., L + 1]` of weights `[..., L]`, integers >= 0 of sum < 2^46, each count at least
    `floor`.
    """
    total = weights.sum(-1, keepdims=True)
    below = np.cumsum(weights, -1)
    counts = below * ((1 << precision) - floor * weights.shape[-1]) // total + floor * np.arange(
        1, weights.shape[-1] + 1
    )
    return np.concatenate([np.zeros_like(counts[..., :1]), counts], -1)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return weights `[..., L]` of which the largest is 2^30, from log weights in units of 1 / `GRID`."""
    return tables.exponential(logits.max(-1, keepdims=True) - logits)


class Table:
    """Any distribution over few levels, by its cumulative counts `[*shape, levels + 1]`."""

    def __init__(self, counts: np.ndarray, precision: int = PRECISION):
        self.levels, self.shape, self.precision = counts.shape[-1] - 1, counts.shape[:-1], precision
        self._counts = counts.reshape(-1, self.levels + 1)

    @classmethod
    def of(cls, logits: np.ndarray, *, floor: int = 1) -> Table:
        """Return that of log weights `[*shape, levels]` in units of 1 / `GRID`."""
        precision = OF_BITS if logits.shape[-1] == 2 else PRECISION
        return cls(shares(softmax(logits), floor, precision), precision)

    def cumulative(self, k: np.ndarray, part: slice) -> np.ndarray:
        return self.at(np.arange(len(self._counts))[part], k)

    def at(self, places: np.ndarray, k: np.ndarray) -> np.ndarray:
        """Return what lies below k `[n]` at places `[n]` of all elements in order."""
        return np.asarray(self._counts[places, np.minimum(k, self.levels)])


class Repeated:
    """The same table `[*each]` for each of some rows, `[rows, *each]`, held once."""

    def __init__(self, table: Table, rows: int):
        self.levels, self.precision, self.shape = table.levels, table.precision, (rows, *table.shape)
        self._table, self._each = table, int(np.prod(table.shape))

    def cumulative(self, k: np.ndarray, part: slice) -> np.ndarray:
        return self._table.at(np.arange(part.start, part.stop) % self._each, k)


class Uniform:
    """Integers below a power of two, all equally likely: `[*shape]` of `levels`."""

    precision = PRECISION

    def __init__(self, levels: int, shape: tuple[int, ...]):
        self.levels, self.shape = levels, shape

    def cumulative(self, k: np.ndarray, part: slice) -> np.ndarray:
        return np.asarray(np.minimum((k * TOTAL) // self.levels, TOTAL))


class Mixture:
    """What lies below a place under a mixture of K logistics, for each of `n` elements.

    Args:
      logits, place, log_scale: `[n, K]`: log weights and log scales in units of 1 / `GRID`, places in units of
        1 / `LOC_GRID`.
    """

    LOWEST, HIGHEST = -4 * GRID, 9 * GRID  # of log scales

    def __init__(self, logits: np.ndarray, place: np.ndarray, log_scale: np.ndarray):
        rates = np.rint((tables.STEP << 8) / tables.scales(self.LOWEST, self.HIGHEST)).astype(np.int64)
        rate = rates[np.clip(log_scale, self.LOWEST, self.HIGHEST) - self.LOWEST]
        share = np.diff(shares(softmax(logits), 0), axis=-1)  # of 2^16, in all exactly
        self._components = [np.ascontiguousarray(a.T) for a in (share, place, rate)]  # [K, n] each

    def below(self, halves: np.ndarray, part: slice) -> np.ndarray:
        """Return it in units of 2^-40, of places in halves."""
        edge, mixed = halves * (LOC_GRID // 2), np.zeros(halves.size, np.int64)
        for share, place, rate in zip(*(a[:, part] for a in self._components), strict=True):
            mixed += share * tables.logistic(((edge - place) * rate) >> 12)
        return mixed


class Logistics:
    """A mixture of K logistics per element, rounded to levels, the first and the last taking what lies beyond.

    Args:
      parameters: `[*shape, 3 K]`, those of `Mixture` in the order weights, places, scales, in levels.
      levels: how many.
    """

    precision = PRECISION

    def __init__(self, parameters: np.ndarray, levels: int):
        self.levels, self.shape = levels, parameters.shape[:-1]
        parameters = parameters.reshape(-1, parameters.shape[-1])
        logits, place, log_scale = np.split(parameters, 3, -1)
        limit = 8 * levels * LOC_GRID
        self._mixture = Mixture(logits, np.clip(place, -limit, limit), log_scale)

    def cumulative(self, k: np.ndarray, part: slice) -> np.ndarray:
        counts = (self._mixture.below(2 * k - 1, part) * (TOTAL - self.levels) >> (PRECISION + 24)) + k
        return np.where(k <= 0, 0, np.where(k >= self.levels, TOTAL, counts))


class Gaussians:
    """A normal over the buckets of a standard normal, of which each has the same probability.

    Args:
      place: means `[*shape]` in units of 1 / `PLACE_GRID`.
      log_scale: log standard deviations in units of 1 / `GRID`.
      floor: 1 where anything may be pushed.
    """

    precision = FINE
    LOWEST, HIGHEST = -8 * GRID, 8 * GRID

    def __init__(self, place: np.ndarray, log_scale: np.ndarray, floor: int = 0):
        self.levels, self.shape = tables.BUCKETS, place.shape
        self._floor = floor
        limit = 16 * PLACE_GRID
        self._place = np.clip(place.reshape(-1), -limit, limit) * (tables.UNIT // PLACE_GRID)
        rates = np.rint(4096 / tables.scales(self.LOWEST, self.HIGHEST)).astype(np.int64)
        self._rate = rates[np.clip(log_scale, self.LOWEST, self.HIGHEST).reshape(-1) - self.LOWEST]

    def cumulative(self, k: np.ndarray, part: slice) -> np.ndarray:
        edge = tables.tables().edges[np.minimum(k, self.levels)]
        t = ((edge - self._place[part]) * self._rate[part]) >> 12
        counts = (tables.normal(t) * (FINE_TOTAL - self._floor * self.levels) >> 24) + self._floor * k
        return np.where(k <= 0, 0, np.where(k >= self.levels, FINE_TOTAL, counts))
