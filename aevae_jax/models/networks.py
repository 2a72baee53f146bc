"""Linen modules: deterministic functions from array to array, images channels-last.

Encoders map `[B, *event] -> [B, *outputs]`, decoders `[B, *latent] -> [B, *event, outputs]`. They know nothing of
distributions or losses. `dtype` is the type of the arithmetic; parameters and results stay float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from aevae_jax.training.convolutions import convolve
from aevae_jax.types import Params

_KERNEL = jax.jit(nn.initializers.lecun_normal(), static_argnums=(1, 2), inline=True)
"""The initializer that Flax takes, too. It asks for its shape whenever a layer is applied: this one is traced once."""

_Dense = partial(nn.Dense, kernel_init=_KERNEL)
_Conv = partial(nn.Conv, kernel_init=_KERNEL, conv_general_dilated=convolve)


class GatedDense(nn.Module):
    """A dense layer times a sigmoid gate of the same input. Dauphin, Fan, Auli & Grangier 2017."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        gate = _Dense(self.features, dtype=self.dtype, name="gate")(x)
        return _Dense(self.features, dtype=self.dtype, name="value")(x) * nn.sigmoid(gate)


class MLP(nn.Module):
    """Dense layers between an input of any shape `[B, ...]` and an output `[B, *shape]`. No hidden layers: linear."""

    hidden: tuple[int, ...]
    shape: tuple[int, ...]
    gated: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = _hidden(x, self.hidden, self.gated, self.dtype)
        return _shaped(_Dense(math.prod(self.shape), dtype=self.dtype, name="out")(x), self.shape)


def _hidden(x: Array, sizes: tuple[int, ...], gated: bool, dtype: Any) -> Array:
    """Return hidden dense layers, inside a compact module: `[B, ...] -> [B, size]`."""
    x = x.reshape(x.shape[0], -1)
    for features in sizes:
        x = GatedDense(features, dtype=dtype)(x) if gated else nn.relu(_Dense(features, dtype=dtype)(x))
    return x


def _shaped(x: Array, shape: tuple[int, ...]) -> Array:
    return _wide(x).reshape(x.shape[0], *shape)


def _wide(x: Array) -> Array:
    """Return a result in float32, or in float64 where the arithmetic is."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def beside(x: Array, known: Array) -> Array:
    """Return `x` with numbers `[B, C]` of each example beside it: more entries of vectors, more channels of images."""
    places = jnp.expand_dims(known, tuple(range(1, x.ndim - 1)))
    return jnp.concatenate([x, jnp.broadcast_to(places, (*x.shape[:-1], known.shape[1]))], axis=-1)


class Beside(NamedTuple):
    """Images `[B, H, W, C]` or codes, and what is known of each example, `[B, K]`, which is no part of them."""

    x: Array
    known: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the images alone."""
        return tuple(self.x.shape)


class FiLM(nn.Module):
    """gamma(known) * x + beta(known), of x `[B, H, W, C]` and known `[B, K]`: a scale and a shift for each channel.

    Both are linear in what is known; the scale begins at 1 and the shift at 0. Perez, Strub, de Vries, Dumoulin &
    Courville 2018, "FiLM", equation 1.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, known: Array) -> Array:
        scale, shift = (
            nn.Dense(x.shape[-1], kernel_init=nn.initializers.zeros, dtype=self.dtype, name=name)(known)
            for name in ("scale", "shift")
        )
        return (1 + scale)[:, None, None] * x + shift[:, None, None]


def _apart(x: Array | Beside) -> tuple[Array, Array | None]:
    return (x.x, x.known) if isinstance(x, Beside) else (x, None)


def _modulated(x: Array, known: Array | None, dtype: Any) -> Array:
    """Return images that are modulated by what is known, if anything is, inside a compact module."""
    return x if known is None else FiLM(dtype=dtype)(x, known)


class JointMLP(nn.Module):
    """Dense layers from two inputs `[B, ...]` to `[B, *shape]`: one layer on each, then the others on both together."""

    hidden: tuple[int, ...]
    shape: tuple[int, ...]
    gated: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, a: Array, b: Array) -> Array:
        first, rest = self.hidden[:1], self.hidden[1:]
        sides = [_hidden(x, first, self.gated, self.dtype) for x in (a, b)]
        x = _hidden(jnp.concatenate(sides, axis=-1), rest, self.gated, self.dtype)
        return _shaped(_Dense(math.prod(self.shape), dtype=self.dtype, name="out")(x), self.shape)


class ResidualBlock(nn.Module):
    """x + f(x), f two 3x3 convolutions, each after GroupNorm and swish. He et al. 2016; Wu & He 2018."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        channels = x.shape[-1]
        y = x
        for _ in range(2):
            y = nn.swish(nn.GroupNorm(num_groups=math.gcd(8, channels), dtype=self.dtype)(y))
            y = _Conv(channels, (3, 3), dtype=self.dtype)(y)
        return x + y


def halved(size: tuple[int, int], times: int) -> tuple[int, int]:
    """Return the height and width after `times` convolutions of stride 2, rounding up."""
    for _ in range(times):
        size = ((size[0] + 1) // 2, (size[1] + 1) // 2)
    return size


class ConvEncoder(nn.Module):
    """One convolution of stride 2 per entry of `channels`, each followed by `blocks` residual blocks, then dense.

    Where `outputs` is the shape of a map, the last layer is dense at each place of it: a 1x1 convolution. What is
    `Beside` images modulates the output of each convolution of stride 2.
    """

    channels: tuple[int, ...]
    outputs: int | tuple[int, ...]
    blocks: int = 0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array | Beside) -> Array:
        x, known = _apart(x)
        for channels in self.channels:
            x = _Conv(channels, (3, 3), strides=(2, 2), dtype=self.dtype)(x)
            x = _modulated(x, known, self.dtype)
            x = x if self.blocks else nn.relu(x)
            for _ in range(self.blocks):
                x = ResidualBlock(dtype=self.dtype)(x)
        if isinstance(self.outputs, tuple):
            return _wide(_Conv(self.outputs[-1], (1, 1), dtype=self.dtype, name="out")(x))
        x = x.reshape(x.shape[0], -1)
        return _wide(_Dense(self.outputs, dtype=self.dtype, name="out")(x))


class SubPixelConv(nn.Module):
    """Images `[B, H, W, C]` to twice the size, `[B, 2H, 2W, features]`: a transposed 4x4 convolution of stride 2.

    It is computed at low resolution as one 2x2 convolution, whose outputs are the four pixels of a cell between four
    inputs (Shi et al. 2016). The four begin with one kernel, which leaves no chequerboard (Aitken et al. 2017).
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", _one_kernel_for_all, (2, 2, x.shape[-1], 4 * self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x, kernel, bias = (a.astype(self.dtype) for a in (x, kernel, bias))
        images, height, width, _ = x.shape
        cells = convolve(x, kernel, (1, 1), [(1, 1), (1, 1)], dimension_numbers=("NHWC", "HWIO", "NHWC"))
        cells = cells.reshape(images, height + 1, width + 1, 2, 2, self.features)
        pixels = jnp.swapaxes(cells, 2, 3).reshape(images, 2 * height + 2, 2 * width + 2, self.features)
        return pixels[:, 1:-1, 1:-1] + bias[None, None, None]


def _one_kernel_for_all(key: Array, shape: tuple[int, ...]) -> Array:
    """Return kernels of which each of the four pixels of a cell has the same."""
    return jnp.tile(_KERNEL(key, (*shape[:-1], shape[-1] // 4)), 4)


class ConvDecoder(nn.Module):
    """The mirror of `ConvEncoder`: dense, then blocks, doubling and cropping per scale, which reach any size exactly.

    Codes that are maps of the smallest scale begin with a 3x3 convolution in place of the dense layer.
    `repeat` doubles by repetition of pixels and a 3x3 convolution of the large image, and ends with one more, which
    leaves no chequerboard (Odena et al. 2016) and takes several times the multiplications of `SubPixelConv`. What is
    `Beside` codes modulates the images before each doubling.
    """

    channels: tuple[int, ...]
    event_shape: tuple[int, ...]
    outputs: int
    blocks: int = 0
    dtype: Any = jnp.float32
    repeat: bool = False

    @nn.compact
    def __call__(self, z: Array | Beside) -> Array:
        z, known = _apart(z)
        *image, image_channels = self.event_shape
        features = (image_channels * self.outputs, *self.channels)
        height, width = halved((image[0], image[1]), len(self.channels))
        if z.ndim == 4:
            x = _Conv(self.channels[-1], (3, 3), dtype=self.dtype)(z)
        else:
            x = _Dense(height * width * self.channels[-1], dtype=self.dtype)(z.reshape(z.shape[0], -1))
            x = x.reshape(x.shape[0], height, width, self.channels[-1])
        for scale in reversed(range(len(self.channels))):
            x = _modulated(x, known, self.dtype)
            for _ in range(self.blocks):
                x = ResidualBlock(dtype=self.dtype)(x)
            x = x if self.blocks else nn.relu(x)
            height, width = halved((image[0], image[1]), scale)
            if self.repeat:
                x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
            else:
                x = SubPixelConv(features[scale], dtype=self.dtype, name=None if scale else "out")(x)
            x = x[:, :height, :width]
            if self.repeat:
                x = _Conv(self.channels[max(scale - 1, 0)], (3, 3), dtype=self.dtype)(x)
        if self.repeat:
            x = _Conv(features[0], (3, 3), dtype=self.dtype, name="out")(nn.relu(x))
        return _wide(x).reshape(x.shape[0], *self.event_shape, self.outputs)


class MixerBlock(nn.Module):
    """Images as codes `[B, C, P]`, C channels at P places: two layers across places, then two across channels.

    Each pair is added to its input, as in Tolstikhin et al. 2021, "MLP-Mixer", without their normalisation. The second
    layers begin at 0, so that a network begins as a linear map of each place, the same for all.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for _ in range(2):
            y = nn.relu(_Dense(x.shape[-1], dtype=self.dtype)(x))
            y = nn.Dense(x.shape[-1], kernel_init=nn.initializers.zeros, dtype=self.dtype)(y)
            x = jnp.swapaxes(x + y, 1, 2)
        return x


class Mixer(nn.Module):
    """Codes to codes, `[B, inputs] -> [B, outputs]`: channels at `places`, one channel after another, and mixed.

    Channels that do not fill all places are filled up with zeros, and cut off again.
    """

    places: int
    outputs: int
    width: int
    blocks: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        channels, wanted = (-(-size // self.places) for size in (x.shape[1], self.outputs))
        x = jnp.pad(x, ((0, 0), (0, channels * self.places - x.shape[1])))
        x = jnp.swapaxes(x.reshape(x.shape[0], channels, self.places), 1, 2)  # [B, P, C]
        x = jnp.swapaxes(_Dense(self.width, dtype=self.dtype)(x), 1, 2)
        for _ in range(self.blocks):
            x = MixerBlock(dtype=self.dtype)(x)
        x = _Dense(wanted, dtype=self.dtype, name="out")(jnp.swapaxes(x, 1, 2))
        return _wide(jnp.swapaxes(x, 1, 2).reshape(x.shape[0], -1)[:, : self.outputs])


def patches(event_shape: tuple[int, ...], patch: int) -> tuple[int, int]:
    """Return how many patches cover an image, in height and width."""
    return -(-event_shape[0] // patch), -(-event_shape[1] // patch)


class MixerEncoder(nn.Module):
    """Images `[B, H, W, C]` cut into square patches, the pixels of which are the first channels, to `[B, outputs]`."""

    patch: int
    outputs: int
    width: int
    blocks: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        rows, columns = patches(x.shape[1:], self.patch)
        margins = (rows * self.patch - x.shape[1], columns * self.patch - x.shape[2])
        x = jnp.pad(x, ((0, 0), (0, margins[0]), (0, margins[1]), (0, 0)), mode="edge")
        x = x.reshape(x.shape[0], rows, self.patch, columns, self.patch, -1).transpose(0, 2, 4, 5, 1, 3)
        codes = x.reshape(x.shape[0], -1)
        return Mixer(rows * columns, self.outputs, self.width, self.blocks, self.dtype, name="mixer")(codes)


class MixerDecoder(nn.Module):
    """The mirror of `MixerEncoder`: `[B, latent] -> [B, *event, outputs]`, patches put side by side and cropped."""

    patch: int
    event_shape: tuple[int, ...]
    outputs: int
    width: int
    blocks: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, z: Array) -> Array:
        (rows, columns), channels = patches(self.event_shape, self.patch), self.event_shape[2] * self.outputs
        size = rows * columns * self.patch**2 * channels
        x = Mixer(rows * columns, size, self.width, self.blocks, self.dtype, name="mixer")(z.reshape(z.shape[0], -1))
        x = x.reshape(x.shape[0], self.patch, self.patch, channels, rows, columns).transpose(0, 4, 1, 5, 2, 3)
        x = x.reshape(x.shape[0], rows * self.patch, columns * self.patch, channels)
        x = x[:, : self.event_shape[0], : self.event_shape[1]]
        return x.reshape(x.shape[0], *self.event_shape, self.outputs)


class FromNNX:
    """An NNX module seen through Linen's `init` and `apply`, so that it passes through the same seam.

    Args:
      make: builds the module from an `nnx.Rngs`; its parameters must be of type `nnx.Param`.
    """

    def __init__(self, make: Callable[[nnx.Rngs], Any]):
        self.make = make

    def init(self, key: Array, x: Array) -> Params:
        del x
        return {"params": nnx.to_pure_dict(nnx.state(self.make(nnx.Rngs(key)), nnx.Param))}

    def apply(self, variables: Params, x: Array) -> Array:
        # the structure comes from shapes alone; no parameter is computed here
        graph, state = nnx.split(nnx.eval_shape(lambda: self.make(nnx.Rngs(0))))
        nnx.replace_by_pure_dict(state, variables["params"])
        return jax.numpy.asarray(nnx.merge(graph, state)(x))
