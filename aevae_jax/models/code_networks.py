"""Networks that predict each index of a sequence from those before it, whole or one by one."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from aevae_jax.types import Params

Past = tuple[Array, Array]
"""Keys and values of a layer at all positions, `[B, S, heads, width / heads]` each."""


class Block(nn.Module):
    """Causal attention and two dense layers, each after LayerNorm and added to its input. Vaswani et al. 2017."""

    heads: int

    @nn.compact
    def __call__(self, x: Array, past: Past | None, first: Array) -> tuple[Array, Past]:
        """Return the outputs at the positions of x `[B, T, width]`, of which the first is `first`, and the new past.

        Without a past, x is the whole sequence from its beginning.
        """
        width = x.shape[-1]
        made = nn.Dense(3 * width, name="attention")(nn.LayerNorm()(x))
        query, *own = (a.reshape(*x.shape[:2], self.heads, width // self.heads) for a in jnp.split(made, 3, axis=-1))
        keys, values = own if past is None else (_placed(old, new, first) for old, new in zip(past, own, strict=True))
        scores = jnp.einsum("bthd,bshd->bhts", query, keys) / math.sqrt(width // self.heads)
        positions = first + jnp.arange(x.shape[1])
        seen = jnp.arange(keys.shape[1])[None] <= positions[:, None]
        weights = jax.nn.softmax(jnp.where(seen[None, None], scores, -jnp.inf))
        mixed = jnp.einsum("bhts,bshd->bthd", weights, values).reshape(x.shape)
        x = x + nn.Dense(width, name="mixed")(mixed)
        hidden = nn.gelu(nn.Dense(4 * width, name="hidden")(nn.LayerNorm()(x)))
        return x + nn.Dense(width, name="out")(hidden), (keys, values)


def _placed(old: Array, new: Array, first: Array) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(old, new, first, axis=1)


class CausalTransformer(nn.Module):
    """Log-odds of each index of sequences of `length`, of `choices` each, from the index before it and all before that.

    The indices of a sequence go round `levels` kinds, each with embeddings and a last layer of its own. The last layer
    begins at 0: all choices are equally likely.
    """

    length: int
    levels: int
    choices: int
    width: int
    layers: int
    heads: int

    @nn.compact
    def __call__(self, previous: Array, past: list[Past] | None, first: Array) -> tuple[Array, list[Past]]:
        """Return log-odds `[B, T, K]` at T positions from `first` on, and the new past.

        Args:
          previous: the index before each of these positions, `[B, T]`; whatever it is, position 0 has none.
          past: of the positions before, where they do not begin at 0.
          first: the first position.
        """
        small, count = nn.initializers.normal(0.02), self.levels * self.choices
        table = self.param("embedding", small, (count + 1, self.width))
        places = self.param("position", small, (self.length, self.width))
        positions = first + jnp.arange(previous.shape[1])
        kinds = (positions - 1) % self.levels
        tokens = jnp.where((positions == 0)[None], count, previous + (kinds * self.choices)[None])
        x = table[tokens] + places[positions][None]
        new: list[Past] = []
        for layer in range(self.layers):
            x, made = Block(self.heads, name=f"layer_{layer}")(x, None if past is None else past[layer], first)
            new.append(made)
        shape = (self.levels, self.width, self.choices)
        heads = self.param("heads", nn.initializers.zeros, shape), self.param("bias", nn.initializers.zeros, shape[::2])
        kernel, bias = (a[positions % self.levels] for a in heads)
        return jnp.einsum("btw,twk->btk", nn.LayerNorm(name="norm")(x), kernel) + bias[None], new


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Predictor:
    """A `CausalTransformer` with its parameters, as `distributions.discrete.Network` wants it."""

    params: Params
    module: CausalTransformer = field(metadata={"static": True})

    def logits(self, tokens: Array) -> Array:
        previous = jnp.pad(tokens[:, :-1], ((0, 0), (1, 0)))
        return self._apply(previous, None, jnp.int32(0))[0]

    def start(self, size: int) -> list[Past]:
        shape = (size, self.module.length, self.module.heads, self.module.width // self.module.heads)
        return [(jnp.zeros(shape), jnp.zeros(shape)) for _ in range(self.module.layers)]

    def step(self, state: Any, previous: Array, position: Array) -> tuple[Array, Any]:
        logits, state = self._apply(previous[:, None], state, position)
        return logits[:, 0], state

    def _apply(self, *inputs: Any) -> Any:
        return self.module.apply({"params": self.params}, *inputs)
