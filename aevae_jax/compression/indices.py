"""Discrete codes as integers: the indices of their vectors in a book.

A code that is one of its model's vectors, as vector quantisation and rounding have it, follows from the example, so
nothing has to be brought back: it costs -log p(z), and the example -log p(x|z). Of one-hot codes, which have a
posterior, bits come back as always. Indices depend on nothing, or on those before them, by a network that is evaluated
once for each index by who decodes, with 0 in place of what is not known yet; it looks at none of that.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aevae_jax import codable, discrete
from aevae_jax.compression import elements, tables
from aevae_jax.compression.certified import Evaluation, Networks
from aevae_jax.compression.codecs import Codec, independent
from aevae_jax.compression.elements import Repeated, Table
from aevae_jax.compression.latents import Code
from aevae_jax.compression.stack import Bits
from aevae_jax.types import InputError


class Indices:
    """The codecs of q(z|x) and p(z) over indices. A code is a tuple of a single array of them, `[B, places L]`.

    Args:
      networks: of a model whose prior is one of indices.

    Raises:
      InputError: more choices than can be coded.
    """

    def __init__(self, networks: Networks):
        prior = networks.shapes(prior_of)
        nothing = jnp.zeros((1, math.prod(prior.shape[:-1]) * prior.book.levels))
        *_, self.width, choices = networks.shapes(lambda model, params: _log_odds(model, params, nothing)).shape
        elements.check_choices("choices of a code", choices)
        self._networks, self._sequential, self._drawn = networks, prior.sequential, False
        self._bits = int(choices).bit_length()
        self.sure, self._odds = True, None
        if not prior.sequential:
            odds, sure = networks.rounded(_log_odds, np.zeros((1, self.width)), certify=True)
            self._odds, self.sure = Table.of(odds[0]), bool(sure.all())

    def check(self, event_shape: tuple[int, ...]) -> None:
        """Raise `InputError` where the prior, or a posterior that is drawn from, computes in float32."""
        self._networks.check(_log_odds, (1, self.width))
        x = jnp.zeros((1, *event_shape))
        posterior = self._networks.shapes(lambda model, params: model.encode(params, x))
        self._drawn = isinstance(posterior, codable.OfClasses)
        if self._drawn:
            self._networks.check(_classes, (1, *event_shape))
        elif not isinstance(posterior, discrete.Indexed):
            raise InputError("posterior", got=type(posterior).__name__, expected="discrete codes, as the prior has")

    @property
    def seed(self) -> int:
        """Number of 32-bit words that the first code may pop."""
        return self.width * self._bits // 32 + 2 if self._drawn else 2

    def codes(self, evaluate: Evaluation, code: Code) -> np.ndarray:
        """Return what networks see of a code: its indices, `[B, places L]`."""
        return code[0].astype(np.float64)

    def prior(self, evaluate: Evaluation, rows: int) -> Codec:
        """Return p(z) of a batch."""
        codec = self._in_order(evaluate, rows) if self._odds is None else independent(Repeated(self._odds, rows))
        return _alone(codec)

    def posterior(self, evaluate: Evaluation, x: np.ndarray) -> Codec:
        """Return q(z|x) of x `[B, *event]`, float64: of a code that follows from x it costs nothing."""
        if self._drawn:
            return _alone(independent(Table.of(evaluate(_classes, x), floor=0)))
        return Codec(lambda bits, code: None, lambda bits: (evaluate(_chosen, x, again=False),))

    def _in_order(self, evaluate: Evaluation, rows: int) -> Codec:
        """Return the codec of indices `[B, S]` that each depend on those before."""

        def odds(index: np.ndarray) -> np.ndarray:
            return np.asarray(evaluate(_log_odds, index.astype(np.float64)))

        def push(bits: Bits, index: np.ndarray) -> None:
            found = odds(index)  # of an index it looks at those before alone, as `pop` does
            for place in reversed(range(self.width)):
                independent(Table.of(found[:, place])).push(bits, index[:, place])

        def pop(bits: Bits) -> np.ndarray:
            index = np.zeros((rows, self.width), np.int64)
            for place in range(self.width):
                index[:, place] = independent(Table.of(odds(index)[:, place])).pop(bits)
            return index

        return Codec(push, pop)


def prior_of(model: Any, params: Any) -> Any:
    """Return the prior of one example."""
    return model.prior(params, 1)


def _alone(codec: Codec) -> Codec:
    """Return the codec of a tuple of what a codec codes."""
    return Codec(lambda bits, code: codec.push(bits, code[0]), lambda bits: (codec.pop(bits),))


def _log_odds(model: Any, params: Any, index: Any) -> Any:
    """Return log probabilities of each of indices `[B, places L]` in units of the grid, `[B, places L, K]`."""
    prior = model.prior(params, index.shape[0])
    found = prior.log_odds(index.astype(jnp.int32).reshape(index.shape[0], -1, prior.book.levels))
    return jax.nn.log_softmax(found.reshape(*index.shape, -1)) * tables.GRID


def _classes(model: Any, params: Any, x: Any) -> Any:
    return jax.nn.log_softmax(model.encode(params, x).classes()) * tables.GRID


def _chosen(model: Any, params: Any, x: Any) -> Any:
    """Return the indices of the code of x, `[B, places L]`."""
    posterior = model.encode(params, x)
    return posterior.indices(posterior.mean()).reshape(x.shape[0], -1)
