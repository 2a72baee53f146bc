"""Codecs as pairs of functions, and bits back as what can be made of three of them.

After the craft of Townsend, Bird, Kunze & Barber 2020: `push` puts a value on a stack of bits, `pop` takes it off
again, and each undoes the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

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
