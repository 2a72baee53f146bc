"""Linen modules of flows: networks that see a part of a vector and say how to move the rest.

Both begin as maps to zero, so that a flow begins at its base.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array


class _MaskedDense(nn.Module):
    """A dense layer of whose weights only those count that the mask `[inputs, features]` has."""

    mask: Any  # a tuple of tuples: modules are hashed
    kernel_init: Any = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        mask = np.asarray(self.mask, np.float32).reshape(x.shape[-1], -1)
        kernel = self.param("kernel", self.kernel_init, mask.shape)
        bias = self.param("bias", nn.initializers.zeros, mask.shape[1:])
        return x @ (kernel * mask) + bias[None]


class MADE(nn.Module):
    """Dense layers `[B, D] -> [B, outputs, D]` whose element d sees inputs 1 to d - 1 alone. Germain et al. 2015.

    A context `[B, C]`, which all may see, is added to the first hidden layer. Hidden units are spread evenly over how
    many inputs they may see, 1 to D - 1. Where D is 1, there is nothing to see but the context.
    """

    hidden: tuple[int, ...]
    outputs: int = 2

    @nn.compact
    def __call__(self, z: Array, context: Array | None = None) -> Array:
        size = z.shape[-1]
        x, seen = z, np.arange(1, size + 1)
        for number, features in enumerate(self.hidden):
            sees = np.round(np.linspace(min(1, size - 1), size - 1, features)).astype(int)
            x = _MaskedDense(_mask(sees[None] >= seen[:, None]), name=f"hidden_{number}")(x)
            if number == 0 and context is not None:
                x = x + nn.Dense(features, use_bias=False, name="context")(context)
            x, seen = nn.elu(x), sees
        last = np.tile(np.arange(1, size + 1)[None] > seen[:, None], self.outputs)
        x = _MaskedDense(_mask(last), nn.initializers.zeros, name="out")(x)
        return x.reshape(x.shape[0], self.outputs, size)


def _mask(allowed: np.ndarray) -> tuple[tuple[bool, ...], ...]:
    return tuple(map(tuple, allowed.tolist()))


class Conditioner(nn.Module):
    """Dense layers `[B, kept] -> [B, outputs, size]`: what one part of a vector says of the other."""

    hidden: tuple[int, ...]
    size: int
    outputs: int = 2

    @nn.compact
    def __call__(self, a: Array) -> Array:
        x = a
        for features in self.hidden:
            x = nn.elu(nn.Dense(features)(x))
        x = nn.Dense(self.outputs * self.size, kernel_init=nn.initializers.zeros, name="out")(x)
        return jnp.reshape(x, (x.shape[0], self.outputs, self.size))
