"""Convolutions that are fast on every backend, with their gradients, inside loops, and mapped over kernels.

XLA's CPU backend has a fast program for images `[N, H, W, C]` and kernels `[H, W, I, O]` alone. It transposes other
orders into these only outside of loops: inside, a gradient of `lax.conv_general_dilated` takes some 20 times as long.
So does one whose window is larger than what it moves over, anywhere; and a map over kernels, a convolution in groups,
takes twice as long as one kernel after the other. Here, gradients and maps are convolutions of the fast kind again.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

Pads = Sequence[tuple[int, int]]


def convolve(
    x: Array,
    kernel: Array,
    strides: Sequence[int],
    padding: str | Pads,
    *,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    **options: Any,
) -> Array:
    """Return `lax.conv_general_dilated` of the same arguments; a Linen `Conv` takes it as `conv_general_dilated`.

    Args:
      x: `[N, ..., C]`, for what is gained on CPUs.
      kernel: `[..., C, O]`, likewise.
      strides: one per spatial dimension.
      padding: "SAME", "VALID", or zeros before and after each spatial dimension.
      lhs_dilation: of `x`.
      rhs_dilation: of the kernel.
      dimension_numbers: the order of dimensions; other orders than these, and groups, are left to `lax`.
      feature_group_count: number of groups.
      options: the precision on accelerators, and what else `lax` takes.
    """
    spatial = x.ndim - 2
    numbers = lax.conv_dimension_numbers(x.shape, kernel.shape, dimension_numbers)
    if jax.default_backend() != "cpu" or numbers != _numbers(spatial) or feature_group_count != 1:
        return lax.conv_general_dilated(
            x, kernel, strides, padding, lhs_dilation, rhs_dilation, dimension_numbers, feature_group_count, **options
        )
    once = (1,) * spatial
    lhs, rhs = tuple(lhs_dilation or once), tuple(rhs_dilation or once)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(_dilated(x.shape[1:-1], lhs), _dilated(kernel.shape[:-2], rhs), strides, padding)
    pads = tuple((int(before), int(after)) for before, after in padding)
    out: Array = _convolution.bind(x, kernel, strides=tuple(strides), padding=pads, lhs=lhs, rhs=rhs)
    return out


def _numbers(spatial: int) -> lax.ConvDimensionNumbers:
    """Return the orders `[N, ..., C]` and `[..., I, O]`."""
    middle = range(1, spatial + 1)
    images, kernels = (0, spatial + 1, *middle), (spatial + 1, spatial, *range(spatial))
    return lax.ConvDimensionNumbers(images, kernels, images)


def _dilated(sizes: Sequence[int], dilation: Sequence[int]) -> list[int]:
    return [(size - 1) * step + 1 for size, step in zip(sizes, dilation, strict=True)]


def _computed(x: Array, kernel: Array, *, strides: Any, padding: Any, lhs: Any, rhs: Any) -> Array:
    return lax.conv_general_dilated(x, kernel, strides, padding, lhs, rhs, _numbers(x.ndim - 2))


def _gradient_of_input(g: Array, x: Any, kernel: Array, *, strides: Any, padding: Any, lhs: Any, rhs: Any) -> Array:
    """Return the sum over outputs: g, spread by the strides, under the mirrored kernel."""
    sizes, spreads = _dilated(x.aval.shape[1:-1], lhs), _dilated(g.shape[1:-1], strides)
    windows = _dilated(kernel.shape[:-2], rhs)
    each = zip(padding, sizes, windows, spreads, strict=True)
    pads = tuple((window - 1 - before, size + before - spread) for (before, _), size, window, spread in each)
    mirrored = jnp.flip(kernel, range(kernel.ndim - 2)).swapaxes(-1, -2)
    return _convolution.bind(g, mirrored, strides=lhs, padding=pads, lhs=strides, rhs=rhs)


def _gradient_of_kernel(g: Array, x: Array, kernel: Any, *, strides: Any, padding: Any, lhs: Any, rhs: Any) -> Array:
    """Return the sum over images and outputs: x under g as a kernel, examples in the place of channels."""
    sizes, spreads = _dilated(x.shape[1:-1], lhs), _dilated(g.shape[1:-1], strides)
    windows = _dilated(kernel.aval.shape[:-2], rhs)
    each = zip(padding, sizes, windows, spreads, strict=True)
    pads = tuple((before, window - 1 + spread - before - size) for (before, _), size, window, spread in each)
    if any(spread > size for spread, size in zip(spreads, sizes, strict=True)):
        # before the transposition below: XLA would make padding of the convolution of it again
        zeros = [(before, after, step - 1) for (before, after), step in zip(pads, lhs, strict=True)]
        x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *zeros, (0, 0, 0)])
        pads, lhs = ((0, 0),) * len(pads), (1,) * len(lhs)
    images, kernels = jnp.swapaxes(x, 0, -1), jnp.moveaxis(g, 0, -2)  # [C, ..., N] and [..., N, O]
    out = _convolution.bind(images, kernels, strides=rhs, padding=pads, lhs=lhs, rhs=strides)
    return jnp.moveaxis(out, 0, -2)


def _mapped(arguments: Sequence[Array], axes: Sequence[int | None], **options: Any) -> tuple[Array, int]:
    """Return a map of the convolution: more images, more channels, or one convolution after the other."""
    (x, kernel), (of_x, of_kernel) = arguments, axes
    if of_kernel is None:
        x = jnp.moveaxis(x, of_x or 0, 0)
        out = _convolution.bind(x.reshape(-1, *x.shape[2:]), kernel, **options)
        return out.reshape(*x.shape[:2], *out.shape[1:]), 0
    if of_x is None:
        kernel = jnp.moveaxis(kernel, of_kernel, -2)
        out = _convolution.bind(x, kernel.reshape(*kernel.shape[:-2], -1), **options)
        return out.reshape(*out.shape[:-1], *kernel.shape[-2:]), out.ndim - 1
    pair = jnp.moveaxis(x, of_x, 0), jnp.moveaxis(kernel, of_kernel, 0)
    return lax.map(lambda one: _convolution.bind(*one, **options), pair), 0


def _shape(x: Any, kernel: Any, **options: Any) -> Any:
    return jax.core.ShapedArray(jax.eval_shape(partial(_computed, **options), x, kernel).shape, x.dtype)


_convolution = Primitive("convolution")
_convolution.def_impl(jax.jit(_computed, static_argnames=("strides", "padding", "lhs", "rhs")))
_convolution.def_abstract_eval(_shape)
mlir.register_lowering(_convolution, mlir.lower_fun(_computed, multiple_results=False))
ad.defbilinear(_convolution, _gradient_of_input, _gradient_of_kernel)
batching.primitive_batchers[_convolution] = _mapped
