"""Codecs as pairs of functions, and bits back as what can be made of three of them.

After the craft of Townsend, Bird, Kunze & Barber 2020: `push` puts a value on a stack of bits, `pop` takes it off
again, and each undoes the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from aevae_jax.compression import elements
from aevae_jax.compression.stack import Bits


class Codec(NamedTuple):
    """How values of one kind are put on a stack of bits and taken off again."""

    push: Callable[[Bits, Any], None]
    pop: Callable[[Bits], Any]


def independent(element: elements.Element) -> Codec:
    """Return the codec of independent integers."""
    return Codec(lambda bits, k: elements.push(bits, element, k), lambda bits: elements.pop(bits, element))


def sequence(next_of: Callable[[tuple[Any, ...]], Codec], count: int) -> Codec:
    """Return the codec of tuples of which each entry is coded given those before it: the chain rule.

    Args:
      next_of: entries so far -> codec of the next one.
      count: number of entries.
    """

    def push(bits: Bits, entries: tuple[Any, ...]) -> None:
        for index in reversed(range(count)):
            next_of(entries[:index]).push(bits, entries[index])

    def pop(bits: Bits) -> tuple[Any, ...]:
        entries: tuple[Any, ...] = ()
        for _ in range(count):
            entries = (*entries, next_of(entries).pop(bits))
        return entries

    return Codec(push, pop)


def bits_back(prior: Codec, likelihood: Callable[[Any], Codec], posterior: Callable[[Any], Codec]) -> Codec:
    """Return the codec of x that costs -log p(x|z) - log p(z) + log q(z|x), on average the negative ELBO.

    z is popped by q(z|x), from bits that are there already and come back when x is popped. Townsend et al. 2019.

    Args:
      prior: of z.
      likelihood: z -> codec of x.
      posterior: x -> codec of z.
    """

    def push(bits: Bits, x: Any) -> None:
        z = posterior(x).pop(bits)
        likelihood(z).push(bits, x)
        prior.push(bits, z)

    def pop(bits: Bits) -> Any:
        z = prior.pop(bits)
        x = likelihood(z).pop(bits)
        posterior(x).push(bits, z)
        return x

    return Codec(push, pop)


def monte_carlo_bits_back(
    prior: Codec,
    likelihood: Callable[[Any], Codec],
    posterior: Callable[[Any], Codec],
    choice: Callable[[Any, list[Any]], Codec],
    samples: int,
) -> Codec:
    """Return the codec of x that costs -log of the mean of `samples` importance weights, on average the IWAE bound.

    So many z are popped, one of them is chosen by its weight, and x is pushed given that one; before, the others are
    pushed back. The choice itself is pushed as one of `samples`, all equally likely. BB-IS of Ruan et al. 2021, section
    3.2.

    Args:
      prior, likelihood, posterior: as in `bits_back`; a code is a tuple of arrays `[B, ...]`.
      choice: (x, all z) -> codec of which one `[B]`, by the weights p(x, z) / q(z|x) of each.
      samples: how many, 2 or more.
    """

    def push(bits: Bits, x: Any) -> None:
        q = posterior(x)
        codes = [q.pop(bits) for _ in range(samples)]
        chosen = choice(x, codes).pop(bits)
        order = _first(chosen, samples)
        z, *others = (_picked(codes, order[:, place]) for place in range(samples))
        _one_of(len(chosen), samples).push(bits, chosen)
        for other in others:
            q.push(bits, other)
        likelihood(z).push(bits, x)
        prior.push(bits, z)

    def pop(bits: Bits) -> Any:
        z = prior.pop(bits)
        x = likelihood(z).pop(bits)
        q = posterior(x)
        others = [q.pop(bits) for _ in range(samples - 1)][::-1]
        chosen = _one_of(len(z[0]), samples).pop(bits)
        back = np.argsort(_first(chosen, samples), axis=1)
        codes = [_picked([z, *others], back[:, place]) for place in range(samples)]
        choice(x, codes).push(bits, chosen)
        for code in reversed(codes):
            q.push(bits, code)
        return x

    return Codec(push, pop)


def _one_of(rows: int, samples: int) -> Codec:
    return independent(elements.Uniform(samples, (rows,)))


def _first(chosen: np.ndarray, samples: int) -> np.ndarray:
    """Return for each row all places, the chosen one first and the others in order, `[B, samples]`."""
    places = np.arange(samples)
    return np.argsort(places[None] != chosen[:, None], axis=1, kind="stable")


def _picked(codes: list[Any], which: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the code that has in each row that of the one named."""
    rows = np.arange(len(which))
    return tuple(np.stack(parts)[which, rows] for parts in zip(*codes, strict=True))
