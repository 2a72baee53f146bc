"""Images whose pixels come in four passes, each pass given the pixels of those before: few steps, near neighbours.

As in an interlaced file, the first pass is every second pixel of every second row, and the others fill the gaps. Within
a pass pixels are independent, so to sample or to decode an image takes four evaluations, not one for each pixel. Reed
et al. 2017, "Parallel multiscale autoregressive density estimation", for the idea; here one dense layer sees the pixels
of the passes before in the 3 x 3 cells of 2 x 2 pixels around, beside what p(x|z) says of the pixel.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from aevae_jax.distributions.elementary import bounded
from aevae_jax.distributions.logistic import DiscretizedLogisticMixture
from aevae_jax.types import Distribution, InputError, Measure

STARTS = ((0, 0), (1, 1), (0, 1), (1, 0))
"""Row and column in a cell of the pixel of each pass. The last two have known pixels on all sides."""

PASSES = len(STARTS)

NEAR = 9 * PASSES
"""Pixels of a cell and of those around it, cell after cell, each in the order of passes."""

_KNOWN = np.tile(np.arange(PASSES)[:, None] < np.arange(PASSES)[None], (9, 1)).astype(np.float32)
"""Which of these the pixel of each pass sees, `[NEAR, PASSES]`: those of earlier passes."""

_OWN = np.eye(PASSES, dtype=np.float32)[:, None, :, None]
"""Which features and which parameters belong to each pass."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class InterlacedLogisticMixture:
    """Mixtures of K rounded logistics whose parameters depend on earlier pixels, over `[B, H, W, C]` or `[B, D]`.

    Of a pixel with features f and known pixels n of the same channel around it, all parameters are an affine function
    of relu(f + n A_p) and n, which is another one for each pass p. Vectors are images of one row.

    Args:
      features: what p(x|z) says of each element, `[B, *event, F]`.
      context: A_p, `[36, 4, F]`; of what pass p does not see it is not used.
      hidden: from relu(f + n A_p) to the parameters, `[4, F, 3 K]`.
      direct: from n to the parameters, `[36, 4, 3 K]`, likewise.
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
        near = _around(_cells(value.reshape(-1, *shape, 1) - 0.5)[..., 0])
        features = _cells(self.features.reshape(-1, *shape, self.features.shape[-1]))
        each, out = features.shape[-1], self.bias.shape[-1]
        inner = features.reshape(*features.shape[:-2], -1) + near @ _seen(self.context)
        own = self.hidden[:, :, None] * jnp.asarray(_OWN, self.hidden.dtype)
        found = jax.nn.relu(inner) @ own.reshape(PASSES * each, -1)
        found += near @ _seen(self.direct) + self.bias.reshape(1, 1, 1, 1, -1)
        pixels = _pixels(found.reshape(*found.shape[:-1], PASSES, out), shape)
        logits, loc, raw = jnp.split(pixels.reshape(-1, *event, out), 3, axis=-1)
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
        """Return what `values(pass, distribution of its pixels [B, n] given the passes before)` gives, pass by pass."""
        shape, passes = self.features.shape[:-1], self.passes.reshape(-1)
        value = jnp.zeros((shape[0], len(passes)), self.features.dtype)
        for p in range(PASSES):
            its = np.flatnonzero(passes == p)
            all_logistics = self.logistics_given(value.reshape(shape))
            logits, loc, log_scale = (a.reshape(*value.shape, -1)[:, its] for a in all_logistics)
            given = DiscretizedLogisticMixture(logits, loc, log_scale, self.levels)
            value = value.at[:, its].set(values(p, given))
        return value.reshape(shape)


def _image_shape(event: tuple[int, ...]) -> tuple[int, int, int]:
    if len(event) == 1:
        return 1, event[0], 1
    if len(event) != 3:
        raise InputError(
            "event shape of InterlacedLogisticMixture", got=event, expected="images (H, W, C), or vectors (D,)"
        )
    return event[0], event[1], event[2]


def _seen(weights: Array) -> Array:
    """Return weights `[NEAR, PASSES, N]`, 0 of what a pass does not see, as a matrix."""
    known = jnp.asarray(_KNOWN, weights.dtype)[:, :, None]
    return (weights * known).reshape(NEAR, -1)


def _cells(pixels: Array) -> Array:
    """Return pixels `[B, H, W, C, N]` by the cells of 2 x 2 that they are in, `[B, C, h, w, PASSES, N]`, 0 beyond."""
    height, width = (-(-size // 2) for size in pixels.shape[1:3])
    beyond = [(0, 0), (0, 2 * height - pixels.shape[1]), (0, 2 * width - pixels.shape[2]), (0, 0), (0, 0)]
    cells = jnp.pad(pixels, beyond).reshape(-1, height, 2, width, 2, *pixels.shape[3:])
    return jnp.stack([jnp.moveaxis(cells[:, :, y, :, x], 3, 1) for y, x in STARTS], axis=-2)


def _pixels(cells: Array, shape: tuple[int, int, int]) -> Array:
    """Return what `_cells` made cells of, of an image of this shape."""
    place = [[STARTS.index((y, x)) for x in (0, 1)] for y in (0, 1)]
    rows = [jnp.stack([cells[..., p, :] for p in row], axis=-2) for row in place]  # [B, C, h, w, 2, N]
    both = jnp.moveaxis(jnp.stack(rows, axis=3), 1, -2)  # [B, h, 2, w, 2, C, N]
    batch, height, _, width, _, channels, numbers = both.shape
    return both.reshape(batch, 2 * height, 2 * width, channels, numbers)[:, : shape[0], : shape[1]]


def _around(cells: Array) -> Array:
    """Return what is in each cell and in those around it, `[B, C, h, w, NEAR]`; beyond the edge it is 0."""
    height, width = cells.shape[2:4]
    padded = jnp.pad(cells, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [padded[:, :, y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return jnp.concatenate(shifted, axis=-1)
