"""Integers without bounds, coded by mixtures of logistics: a window of counts, and what lies beyond."""

from __future__ import annotations

import numpy as np

from aevae_jax.compression import elements, tables
from aevae_jax.compression.codecs import Codec, independent
from aevae_jax.compression.elements import LOC_GRID, TOTAL
from aevae_jax.compression.stack import Bits, Damaged

FARTHEST = 1 << 20
"""The size of an integer, at most."""

_REACH = 14  # of a window to each side, in scales: what lies beyond has a probability of e^-14
_MOST = 4096  # integers in a window
_LOWEST, _HIGHEST = elements.Mixture.LOWEST, 78  # of log scales: up to a window of 3,700


class Windows:
    """A mixture of K logistics per element, rounded to integers: those of a window, or none of them.

    Symbol 0 is the lowest integer of the window and takes what lies below, the last but one the highest and takes what
    lies above; the last symbol says that it is another integer. Each has at least one of 2^16.

    Args:
      parameters: `[*shape, 3 K]`: log weights and log scales in units of 1 / `GRID`, places in units of 1 / `LOC_GRID`,
        in the order weights, places, scales.
    """

    precision = elements.PRECISION

    def __init__(self, parameters: np.ndarray):
        self.shape = parameters.shape[:-1]
        parameters = parameters.reshape(-1, parameters.shape[-1])
        logits, place, log_scale = np.split(parameters, 3, -1)
        place = np.clip(place, -FARTHEST * LOC_GRID, FARTHEST * LOC_GRID)
        log_scale = np.clip(log_scale, _LOWEST, _HIGHEST)
        reach = np.ceil(_REACH * tables.scales(_LOWEST, _HIGHEST)[log_scale - _LOWEST]).astype(np.int64) + 1
        first, last = ((place // LOC_GRID) + sign * reach for sign in (-1, 1))
        self.first = first.min(-1)
        self.last = np.minimum(last.max(-1), self.first + _MOST - 1)
        self.levels = int((self.last - self.first).max(initial=0)) + 2
        self._mixture = elements.Mixture(logits, place, log_scale)

    def cumulative(self, k: np.ndarray, part: slice) -> np.ndarray:
        first, inside = self.first[part], self.last[part] - self.first[part] + 1
        below = self._mixture.below(2 * (first + k) - 1, part)
        counts = (below * (TOTAL - inside - 1) >> 40) + k
        counts = np.where(k <= 0, 0, np.where(k >= inside, TOTAL - 1, counts))
        return np.where(k > inside, TOTAL, counts)


def integers(parameters: np.ndarray) -> Codec:
    """Return the codec of integers of size `FARTHEST` at most, of the parameters of `Windows`."""
    windows = Windows(parameters)
    first, last = (a.reshape(windows.shape) for a in (windows.first, windows.last))
    other = last - first + 1

    def push(bits: Bits, k: np.ndarray) -> None:
        outside = (k < first) | (k > last)
        _far(int(outside.sum())).push(bits, np.stack(np.divmod(k[outside] + FARTHEST, 1 << 16), -1))
        elements.push(bits, windows, np.where(outside, other, k - first))

    def pop(bits: Bits) -> np.ndarray:
        symbols = elements.pop(bits, windows)
        outside = symbols == other
        high, low = _far(int(outside.sum())).pop(bits).T
        k = symbols + first
        k[outside] = (high << 16) + low - FARTHEST
        if (np.abs(k[outside]) > FARTHEST).any():
            raise Damaged("chunk: got an integer beyond all that are coded")
        return k

    return Codec(push, pop)


def _far(n: int) -> Codec:
    """Return the codec of `n` integers of 32 bits, as two of 16."""
    return independent(elements.Uniform(1 << 16, (n, 2)))


def cost(parameters: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Return what integers `[n, ...]` cost in bits, `[n]`."""
    windows = Windows(parameters)
    first, last = (a.reshape(windows.shape) for a in (windows.first, windows.last))
    outside = (k < first) | (k > last)
    _, length = elements.interval(windows, np.where(outside, last - first + 1, k - first))
    bits = elements.PRECISION - np.log2(length) + 32 * outside
    return np.asarray(bits.reshape(len(k), -1).sum(1))
