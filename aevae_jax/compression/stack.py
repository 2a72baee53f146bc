"""A stack of bits: symbols are pushed and popped in intervals of integers, last in, first out.

A symbol of probability f / 2^p is an interval of f integers below 2^p, and to push it is to name one of them: which one
is chosen by bits that are popped from the stack first, and given back when the symbol is popped. So pushing costs
p - log2 f bits, whatever the distribution, and `constriction` (Bamler 2022) codes uniform integers alone. Asymmetric
numeral systems are Duda 2009; bits back are Hinton & van Camp 1993, Townsend et al. 2019.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import constriction
import numpy as np

_ans, _uniform = constriction.stream.stack, constriction.stream.model.Uniform
Find = Callable[[np.ndarray, slice], tuple[np.ndarray, np.ndarray, np.ndarray]]
"""(numbers below 2^p `[n]`, which of all symbols they belong to) -> symbol, start and length of its interval."""


class Slices(NamedTuple):
    """In how many parts symbols are pushed, and of how many each at least.

    Bits that one part pops are there again when it was pushed, so the more parts the fewer bits must be there before.
    """

    most: int
    least: int


SMALL, LARGE = Slices(64, 1), Slices(16, 64)


_ROUNDING = 2.0**-52
"""Twice what one addition in float64 is off by, as a part of the sum."""

_TERM = 2.0**-45
"""What p - log2 f is off by: log2 f < 32, whose last digit is 2^-48 at most; of 4 such digits mathematics are off."""


class Damaged(ValueError):
    """What is to be decoded cannot have been encoded by this codec."""


class Bits(Protocol):
    """What codecs push to and pop from: a `Stack`, or the `Tally` of what that would cost."""

    def push(self, start: np.ndarray, length: np.ndarray, precision: int) -> None:
        """Push symbols by their intervals below 2^precision, both `[B, ...]`."""
        ...

    def pop(self, find: Find, shape: tuple[int, ...], precision: int) -> np.ndarray:
        """Pop symbols `[B, ...]` of a shape."""
        ...


class Stack:
    """Bits as `constriction` keeps them, above a seed that bits back begin with.

    Args:
      seed: number of 32-bit words below all that is pushed.
      payload: what `payload` gave, to be popped from; `None` for the seed alone.

    Attributes:
      seed: number of words of the seed, by which `check_empty` knows what must be left.
      slices: how symbols are divided as they are pushed, which must be known to pop them.

    Raises:
      Damaged: a payload that no stack has.
    """

    slices = SMALL

    def __init__(self, seed: int, payload: bytes | None = None):
        self.seed = seed
        words = self._seed()
        if payload is not None:
            if len(payload) % 4:
                raise Damaged(f"chunk: got {len(payload)} bytes, expected a multiple of 4")
            words = np.frombuffer(payload, "<u4").astype(np.uint32)
        try:
            self._coder = _ans.AnsCoder(words, payload is None)
        except ValueError as error:
            raise Damaged(f"chunk: {error}") from None

    def copy(self) -> Stack:
        """Return a stack of the same bits."""
        other: Stack = object.__new__(Stack)
        other.__dict__ = {**self.__dict__, "_coder": self._coder.clone()}
        return other

    def payload(self) -> bytes:
        """Return all bits."""
        return bytes(self._coder.get_compressed().astype("<u4").tobytes())

    def check_empty(self) -> None:
        """Raise `Damaged` unless all that was pushed has been popped, and what is left is the seed."""
        try:
            left = self._coder.get_compressed(True)
        except (AssertionError, ValueError):  # no whole number of words
            left = None
        if left is None or not np.array_equal(left, self._seed()):
            raise Damaged("chunk: got other bits at its end than every chunk begins with")

    def push(self, start: np.ndarray, length: np.ndarray, precision: int) -> None:
        """Push symbols by their intervals, `[B, ...]`, to be popped in order.

        Raises:
          Damaged: an interval without integers, which nobody popped.
        """
        start, length = (np.ascontiguousarray(a, np.int32).reshape(-1) for a in (start, length))
        _check(length)
        for part in reversed(self._parts(start.size)):
            inside, of = np.zeros(len(start[part]), np.int32), length[part]
            several = of > 1
            inside[several] = self._coder.decode(_uniform(), of[several])
            self._coder.encode_reverse(start[part] + inside, _uniform(1 << precision))

    def pop(self, find: Find, shape: tuple[int, ...], precision: int) -> np.ndarray:
        """Pop symbols of a shape."""
        symbols = np.zeros(int(np.prod(shape)), np.int64)
        for part in self._parts(symbols.size):
            number = self._coder.decode(_uniform(1 << precision), len(symbols[part])).astype(np.int64)
            symbols[part], start, length = find(number, part)
            several = length > 1
            inside = (number - start)[several].astype(np.int32)
            self._coder.encode_reverse(inside, _uniform(), np.ascontiguousarray(length[several], np.int32))
        return symbols.reshape(shape)

    def _seed(self) -> np.ndarray:
        return np.frombuffer(hashlib.shake_256(b"aevae").digest(4 * self.seed), "<u4").astype(np.uint32)

    def _parts(self, size: int) -> list[slice]:
        step = max(self.slices.least, -(-size // self.slices.most))
        return [slice(first, min(first + step, size)) for first in range(0, size, step)]


def _check(length: np.ndarray) -> None:
    if (length < 1).any():
        raise Damaged("chunk: got a symbol that is impossible where it stands")


class Nothing:
    """What swallows all that is pushed, so that a `Tally` can count it."""

    def push(self, start: np.ndarray, length: np.ndarray, precision: int) -> None:
        """Raise `Damaged` where no stack would take it."""
        _check(length)

    def pop(self, find: Find, shape: tuple[int, ...], precision: int) -> np.ndarray:
        """Raise `Damaged`: there is nothing to be popped."""
        raise Damaged("bits: got a pop where there are none")


class Dice(Nothing):
    """What gives random bits, and swallows all that is pushed.

    Args:
      generator: of NumPy.
    """

    def __init__(self, generator: np.random.Generator):
        self._generator = generator

    def pop(self, find: Find, shape: tuple[int, ...], precision: int) -> np.ndarray:
        """Draw symbols of a shape."""
        number = self._generator.integers(0, 1 << precision, int(np.prod(shape)))
        return find(number, slice(0, number.size))[0].reshape(shape)


class Tally:
    """Pushes to and pops from other bits, and counts what that costs in bits per row.

    Args:
      rows: how many.
      bits: a `Stack`, or `Dice`.

    Attributes:
      bits: what was pushed less what was popped, `[rows]`.
      taken: what was popped.
      error: what `bits` may be off by at most, on any machine, `[rows]`; it grows with the number of symbols.
    """

    def __init__(self, rows: int, bits: Bits):
        self.bits, self.taken, self.error = np.zeros(rows), np.zeros(rows), np.zeros(rows)
        self._inner = bits

    def push(self, start: np.ndarray, length: np.ndarray, precision: int) -> None:
        """Push symbols `[rows, ...]`, and add their cost."""
        self._inner.push(start, length, precision)
        self._add(self._cost(length, precision))

    def pop(self, find: Find, shape: tuple[int, ...], precision: int) -> np.ndarray:
        """Pop symbols `[rows, ...]`, and take off their cost."""
        lengths = np.zeros(int(np.prod(shape)), np.int64)

        def noted(number: np.ndarray, part: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            found = find(number, part)
            lengths[part] = found[2]
            return found

        symbols, cost = self._inner.pop(noted, shape, precision), self._cost(lengths, precision)
        self._add(-cost)
        self.taken += cost
        return symbols

    def _add(self, cost: np.ndarray) -> None:
        self.bits += cost
        self.error += _ROUNDING * np.abs(self.bits)

    def _cost(self, length: np.ndarray, precision: int) -> np.ndarray:
        """Return the cost of each row, and add to `error` what that may be off by.

        Of n terms, sums of about sqrt(n) are added: in whatever order each of the sums is made, no term passes through
        more additions than there are terms in two of them, and each addition rounds what is at most the whole.
        """
        terms = precision - np.log2(length.reshape(len(self.bits), -1))
        n = terms.shape[1]
        if not n:
            return np.zeros(len(terms))
        starts = np.arange(0, n, math.isqrt(n))
        cost = np.asarray(np.add.reduceat(terms, starts, axis=1).sum(1))
        self.error += n * _TERM + (math.isqrt(n) + len(starts)) * _ROUNDING * cost
        return cost
