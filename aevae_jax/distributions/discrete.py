"""Distributions over codes of which there are finitely many: at each place of a map, one vector of a book.

Codes are `[B, *shape]`, the last axis that of the vectors; the places are all axes before it, in their order.
Probabilities are masses: that of a code is what its indices cost to send.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from aevae_jax.distributions.elementary import sum_event
from aevae_jax.types import Distribution, Measure


@jax.custom_jvp
def straight_through(outputs: Array, code: Array) -> Array:
    """Return `code`, with the derivative of `outputs`: the identity. Bengio, Leonard & Courville 2013."""
    del outputs
    return code


@straight_through.defjvp
def _straight_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    return primals[1], tangents[0]


@jax.custom_jvp
def rotated(outputs: Array, code: Array) -> Array:
    """Return `code`, with the derivative of `outputs` turned and scaled as outputs would have to be to be codes.

    With unit vectors e and q of both, `[..., D]`, R = I - 2 r r^T + 2 q e^T, r = (e + q) / |e + q|, is the rotation in
    their plane that takes e to q. Fifty, Junkins, Duan, Iyengar, Liu, Amid, Thrun & Re 2024, section 4.2.
    """
    del outputs
    return code


@rotated.defjvp
def _rotated_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    outputs, code = primals
    e, size = _unit(outputs)
    q, wanted = _unit(code)
    r, _ = _unit(e + q)
    t = tangents[0]
    turned = t - 2 * r * (r * t).sum(axis=-1, keepdims=True) + 2 * q * (e * t).sum(axis=-1, keepdims=True)
    return code, turned * (wanted / size)


def _unit(vectors: Array) -> tuple[Array, Array]:
    size = jnp.maximum(jnp.sqrt((vectors**2).sum(axis=-1, keepdims=True)), 1e-6)
    return vectors / size, size


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Quantized:
    """All mass at one code of a book: `code` `[B, *shape]`, of the entries `index` `[B, places, L]`."""

    code: Array
    index: Array
    choices: int = field(metadata={"static": True})

    measure: ClassVar[Measure] = "mass"

    def sample(self, key: Array) -> Array:
        del key
        return self.code

    def log_prob(self, value: Array) -> Array:
        return _at(self.code, value)

    def mean(self) -> Array:
        return self.code

    def indices(self, value: Array) -> Array:
        """Return those of its code, whatever the value."""
        del value
        return self.index

    def kl(self, other: Distribution) -> Any:
        """Return -log p(code), `[B]`, under a distribution over indices; `NotImplemented` under any other."""
        return _cost(self.index, other)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class VectorQuantized:
    """A `Quantized` that knows what was quantised: for each level what was left, and its entry, `[B, places, L, D]`."""

    code: Array
    index: Array
    left: Array
    entry: Array
    choices: int = field(metadata={"static": True})
    learned: bool = field(default=False, metadata={"static": True})

    measure: ClassVar[Measure] = "mass"

    def sample(self, key: Array) -> Array:
        del key
        return self.code

    def log_prob(self, value: Array) -> Array:
        return _at(self.code, value)

    def mean(self) -> Array:
        return self.code

    def indices(self, value: Array) -> Array:
        """Return those of its code, whatever the value."""
        del value
        return self.index

    def kl(self, other: Distribution) -> Any:
        """Return -log p(code), `[B]`, under a distribution over indices; `NotImplemented` under any other."""
        return _cost(self.index, other)

    def commitment(self) -> Array:
        """Return the squared distance of what was left from the entries, which are held fixed, summed, `[B]`."""
        return sum_event((self.left - jax.lax.stop_gradient(self.entry)) ** 2)

    def codebook_error(self) -> Array:
        """Return the same, what was left held fixed."""
        return sum_event((jax.lax.stop_gradient(self.left) - self.entry) ** 2)


def _cost(index: Array, prior: Distribution) -> Any:
    if not isinstance(prior, IndependentCodes | SequentialCodes):
        return NotImplemented
    return -prior.log_mass(index)


def _at(code: Array, value: Array) -> Array:
    """Return 0 where values are the code, else minus infinity, `[B]`."""
    same = (code == value).reshape(code.shape[0], -1).all(axis=-1)
    return jnp.where(same, 0.0, -jnp.inf)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class OneHot:
    """Independent one-hot vectors, of K classes with log-odds `logits` `[B, *places, K]`.

    `log_prob` is linear in the value, so that a soft vector has the mean of the logarithms.
    """

    logits: Array

    measure: ClassVar[Measure] = "mass"

    @property
    def choices(self) -> int:
        """K, the number of classes."""
        return self.logits.shape[-1]

    def sample(self, key: Array) -> Array:
        """Return one-hot vectors, with the derivative of soft ones of temperature 1."""
        return self.relaxed(key, 1.0)[1]

    def relaxed(self, key: Array, temperature: Any) -> tuple[Array, Array]:
        """Return softmax((logits + g) / temperature), g of the Gumbel distribution, and the one-hot vector of the
        largest, with the derivative of the former. Jang, Gu & Poole 2017; Maddison, Mnih & Teh 2017.
        """
        scores = self.logits + jax.random.gumbel(key, self.logits.shape, self.logits.dtype)
        soft = jax.nn.softmax(scores / temperature)
        hard = jax.nn.one_hot(jnp.argmax(scores, axis=-1), self.choices, dtype=soft.dtype)
        return soft, straight_through(soft, hard)

    def log_prob(self, value: Array) -> Array:
        return sum_event(value * jax.nn.log_softmax(self.logits))

    def mean(self) -> Array:
        return jax.nn.softmax(self.logits)

    def classes(self) -> Array:
        """Return their log-odds, `[B, places, K]`."""
        return self.logits.reshape(self.logits.shape[0], -1, self.choices)

    def indices(self, value: Array) -> Array:
        """Return the classes of one-hot vectors, `[B, places, 1]`."""
        return jnp.argmax(value, axis=-1).reshape(value.shape[0], -1, 1).astype(jnp.int32)

    def kl(self, other: Distribution) -> Any:
        """Return KL(self || other), `[B]`; `NotImplemented` unless `other` is of independent classes, too."""
        if isinstance(other, OneHot):
            theirs = other.logits
        elif isinstance(other, IndependentCodes) and other.shape == self.logits.shape[1:]:
            theirs = other.logits.reshape(1, *other.shape)
        else:
            return NotImplemented
        log_q, log_p = jax.nn.log_softmax(self.logits), jax.nn.log_softmax(theirs)
        return sum_event(jnp.exp(log_q) * (log_q - log_p))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class IndependentCodes:
    """`size` copies of one distribution, of independent indices.

    Args:
      book: of the vectors, a `books.Book` of L levels and K choices.
      logits: log-odds of the choices, `[places, L, K]`.
      shape: of one code.
      size: the batch size B.
    """

    book: Any
    logits: Array
    shape: tuple[int, ...] = field(metadata={"static": True})
    size: int = field(metadata={"static": True})

    measure: ClassVar[Measure] = "mass"
    sequential: ClassVar[bool] = False

    def sample(self, key: Array) -> Array:
        index = jax.random.categorical(key, self.logits, shape=(self.size, *self.logits.shape[:-1]))
        return self.book.vectors(index).reshape(self.size, *self.shape)

    def log_prob(self, value: Array) -> Array:
        """Log mass of the nearest codes, `[B]`."""
        return self.log_mass(_indices(self.book, value))

    def log_mass(self, index: Array) -> Array:
        """Log probability of indices `[B, places, L]`, `[B]`."""
        log_p = jax.nn.log_softmax(self.logits)[None]
        return sum_event(jnp.take_along_axis(log_p, index[..., None], axis=-1))

    def log_odds(self, index: Array) -> Array:
        """Return those of each index of `index` `[B, places, L]`, whatever they are, `[B, places, L, K]`."""
        return jnp.broadcast_to(self.logits[None], (index.shape[0], *self.logits.shape))

    def mean(self) -> Array:
        """Return the mean of the vectors at each place, which is that of no code."""
        mean = jnp.einsum("vlk,lkd->vld", jax.nn.softmax(self.logits), self.book.entries())
        return jnp.broadcast_to(mean.reshape(1, *self.shape), (self.size, *self.shape))

    def kl(self, other: Distribution) -> Any:
        return NotImplemented


class Network(Protocol):
    """A pytree that says what the next index is, given those before it."""

    def logits(self, tokens: Array) -> Array:
        """Return the log-odds of every index given those before it, `[B, S]` -> `[B, S, K]`."""
        ...

    def start(self, size: int) -> Any:
        """Return the state before the first index of `size` sequences."""
        ...

    def step(self, state: Any, previous: Array, position: Array) -> tuple[Array, Any]:
        """Return the log-odds `[B, K]` of the index at a position, given the one before it `[B]`, and the new state."""
        ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class SequentialCodes:
    """`size` copies of one distribution, of indices that each depend on those before: p(code) = prod_s p(i_s | i_<s).

    The order is that of the places, and at each place that of the levels.

    Args:
      book: of the vectors, a `books.Book` of L levels and K choices.
      network: a `Network` for sequences of places times L.
      shape: of one code.
      size: the batch size B.
    """

    book: Any
    network: Any
    shape: tuple[int, ...] = field(metadata={"static": True})
    size: int = field(metadata={"static": True})

    measure: ClassVar[Measure] = "mass"
    sequential: ClassVar[bool] = True

    def sample(self, key: Array) -> Array:
        return self._drawn(lambda logits, s: jax.random.categorical(jax.random.fold_in(key, s), logits))

    def log_prob(self, value: Array) -> Array:
        """Log mass of the nearest codes, `[B]`."""
        return self.log_mass(_indices(self.book, value))

    def log_mass(self, index: Array) -> Array:
        """Log probability of indices `[B, places, L]`, `[B]`: one evaluation of the network."""
        tokens = index.reshape(index.shape[0], -1)
        log_p = jax.nn.log_softmax(self.network.logits(tokens))
        return sum_event(jnp.take_along_axis(log_p, tokens[..., None], axis=-1))

    def log_odds(self, index: Array) -> Array:
        """Return those of each index of `index` `[B, places, L]`, given those before it, `[B, places, L, K]`."""
        odds = self.network.logits(index.reshape(index.shape[0], -1))
        return odds.reshape(*index.shape, -1)

    def mean(self) -> Array:
        """Return, in place of the mean, the code of which each index is the most probable one given those before."""
        return self._drawn(lambda logits, s: jnp.argmax(logits, axis=-1))

    def kl(self, other: Distribution) -> Any:
        return NotImplemented

    def _drawn(self, choose: Callable[[Array, Array], Array]) -> Array:
        """Return codes of indices that are chosen one after the other, `(logits [B, K], position) -> [B]`."""
        places = math.prod(self.shape[:-1])
        tokens = jnp.zeros((self.size, places * self.book.levels), jnp.int32)

        def step(s: Array, carry: tuple[Array, Any]) -> tuple[Array, Any]:
            tokens, state = carry
            previous = jax.lax.dynamic_index_in_dim(tokens, jnp.maximum(s - 1, 0), axis=1, keepdims=False)
            logits, state = self.network.step(state, previous, s)
            return tokens.at[:, s].set(choose(logits, s).astype(jnp.int32)), state

        tokens, _ = jax.lax.fori_loop(0, tokens.shape[1], step, (tokens, self.network.start(self.size)))
        index = tokens.reshape(self.size, places, self.book.levels)
        return self.book.vectors(index).reshape(self.size, *self.shape)


def _indices(book: Any, value: Array) -> Array:
    """Return those of codes `[B, *shape]`, `[B, places, L]`."""
    return book.indices(value.reshape(value.shape[0], -1, value.shape[-1]))
