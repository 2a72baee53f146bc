"""Images whose pixels come in four passes, each pass given the pixels of those before: few steps, near neighbours.

As in an interlaced file, the first pass is every second pixel of every second row, and the others fill the gaps. Within
a pass pixels are independent, so to sample or to decode an image takes four evaluations, not one for each pixel. Reed
et al. 2017, "Parallel multiscale autoregressive density estimation", for the idea; here one small dense layer sees the
5 x 5 neighbourhood of a pixel in the passes before, beside what p(x|z) says of the pixel.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from aevae_jax.distributions.elementary import bounded
from aevae_jax.distributions.logistic import DiscretizedLogisticMixture
from aevae_jax.types import Distribution, InputError, Measure

STARTS = ((0, 0), (1, 1), (0, 1), (1, 0))
"""Row and column at which each pass begins; all go on in steps of two. The last two have known pixels on all sides."""

PASSES = len(STARTS)

OFFSETS = tuple((y, x) for y in range(-2, 3) for x in range(-2, 3) if (y, x) != (0, 0))
"""The neighbours of a pixel: rows and columns from it."""

_KNOWN = np.array(
    [[STARTS.index(((r + y) % 2, (c + x) % 2)) < p for y, x in OFFSETS] for p, (r, c) in enumerate(STARTS)], np.float32
)
"""Which neighbours a pixel of each pass sees, `[PASSES, 24]`."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class InterlacedLogisticMixture:
    """Mixtures of K rounded logistics whose parameters depend on earlier pixels, over `[B, H, W, C]` or `[B, D]`.

    Of a pixel with features f and known neighbours n of the same channel, in pass p, all parameters are an affine
    function of relu(f + n A_p) and n. Vectors are images of one row.

    Args:
      features: what p(x|z) says of each element, `[B, *event, F]`.
      context: A_p, `[4, 24, F]`.
      hidden: from relu(f + n A_p) to the parameters, `[4, F, 3 K]`.
      direct: from n to the parameters, `[4, 24, 3 K]`.
      bias: `[4, 3 K]`: K logits, K places and K raw log scales.
      scale_range: bounds of log scales.
      levels: the points of [0, 1] that values are rounded to.
    """

    features: Array
    context: Array
    hidden: Array
    direct: Array
    bias: Array
    scale_range: tuple[float, float] = field(default=(-7.0, 2.0), metadata={"static": True})
    levels: int = field(default=256, metadata={"static": True})

    measure: ClassVar[Measure] = "mass"

    @property
    def passes(self) -> np.ndarray:
        """Return the pass of each element, an integer array `[*event]`."""
        event = self.features.shape[1:-1]
        height, width, channels = _image_shape(event)
        order = np.array([[STARTS.index((r % 2, c % 2)) for c in range(width)] for r in range(height)])
        return np.broadcast_to(order[:, :, None], (height, width, channels)).reshape(event)

    def logistics_given(self, value: Array) -> tuple[Array, Array, Array]:
        """Return log weights, places and log scales of all elements, `[B, *event, K]`, given the values before each.

        Args:
          value: `[B, *event]`; of each pass, only what stands in the passes before is looked at.
        """
        event = self.features.shape[1:-1]
        shape = _image_shape(event)
        neighbours = _neighbours(value.reshape(-1, *shape) - 0.5)
        features = self.features.reshape(-1, *shape, self.features.shape[-1])
        bias = self.bias[:, None, None, None, None]
        out = jnp.zeros((*features.shape[:-1], bias.shape[-1]), features.dtype)
        for p, (row, column) in enumerate(STARTS):
            near = neighbours[:, row::2, column::2] * jnp.asarray(_KNOWN[p], features.dtype)[None, None, None, None]
            inner = jax.nn.relu(features[:, row::2, column::2] + near @ self.context[p])
            out = out.at[:, row::2, column::2].set(inner @ self.hidden[p] + near @ self.direct[p] + bias[p])
        logits, loc, raw = jnp.split(out.reshape(-1, *event, out.shape[-1]), 3, axis=-1)
        return logits, loc, bounded(raw, *self.scale_range)

    def given(self, value: Array) -> DiscretizedLogisticMixture:
        """Return the distribution of each element given the values before it in `value` `[B, *event]`."""
        return DiscretizedLogisticMixture(*self.logistics_given(value), self.levels)

    def sample(self, key: Array) -> Array:
        keys = jax.random.split(key, PASSES)
        return self._in_passes(lambda p, given: given.sample(keys[p]))

    def log_prob(self, value: Array) -> Array:
        return self.given(value).log_prob(value)

    def mean(self) -> Array:
        """Return the mean of each pixel given the means before it: the mean itself has no closed form."""
        return self._in_passes(lambda p, given: given.mean())

    def kl(self, other: Distribution) -> Any:
        return NotImplemented

    def _in_passes(self, values: Any) -> Array:
        """Return what `values(pass, distribution given the passes before)` gives, pass after pass."""
        passes = jnp.asarray(self.passes)[None]
        value = jnp.zeros(self.features.shape[:-1], self.features.dtype)
        for p in range(PASSES):
            value = jnp.where(passes == p, values(p, self.given(value)), value)
        return value


def _image_shape(event: tuple[int, ...]) -> tuple[int, int, int]:
    if len(event) == 1:
        return 1, event[0], 1
    if len(event) != 3:
        raise InputError(
            "event shape of InterlacedLogisticMixture", got=event, expected="images (H, W, C), or vectors (D,)"
        )
    return event[0], event[1], event[2]


@partial(jax.jit, inline=True)
def _neighbours(image: Array) -> Array:
    """Return the neighbours of each pixel, `[B, H, W, C, 24]`; beyond the edge they are 0."""
    height, width = image.shape[1:3]
    padded = jnp.pad(image, ((0, 0), (2, 2), (2, 2), (0, 0)))
    shifted = [padded[:, 2 + y : 2 + y + height, 2 + x : 2 + x + width] for y, x in OFFSETS]
    return jnp.stack(shifted, axis=-1)
