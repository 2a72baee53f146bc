"""What the families of models share: checks, and an encoder and a decoder of given architecture.

A `model` here has `latent`, `network`, `likelihood`, `latent_prior`, `log_scale_range` and `event_shape`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from aevae_jax import distributions, limits
from aevae_jax.lazy import jax, jnp
from aevae_jax.types import Distribution, InputError, Params

if TYPE_CHECKING:
    from jax import Array

LatentShape = int | tuple[int, ...]
"""How many numbers a code has; or, of a code that is a map, its shape: places first, and channels last."""


def code_shape(latent: LatentShape) -> tuple[int, ...]:
    """Return the shape of one code."""
    return latent if isinstance(latent, tuple) else (latent,)


def times(number: int, latent: LatentShape) -> LatentShape:
    """Return the shape of what has so many numbers for each number of a code, side by side in its last axis."""
    return (*latent[:-1], number * latent[-1]) if isinstance(latent, tuple) else number * latent


def check(model: Any) -> None:
    """Refuse sizes and bounds that no model can have."""
    _check_latent(model.latent, type(model).__name__)
    limits.check_sizes("event_shape", model.event_shape, where=type(model).__name__)
    bounds = model.log_scale_range
    if not isinstance(bounds, tuple) or len(bounds) != 2:
        raise InputError("log_scale_range", got=limits.shown(bounds), expected="(low, high)")
    for bound in bounds:  # exp(bound) is the scale, and is squared
        limits.check("log_scale_range", bound, -1000.0, 1000.0)
    if not bounds[0] < bounds[1]:
        raise InputError("log_scale_range", got=bounds, expected="(low, high) with low < high")


def _check_latent(latent: Any, where: str) -> None:
    if not isinstance(latent, tuple):
        limits.check("latent size", latent, 1, where=where)
        return
    limits.check_sizes("latent shape", latent, where=where)
    if len(latent) < 2:
        example = f"{latent[0] if latent else 16}, or a shape such as (7, 7, 4)"
        raise InputError("latent shape", got=latent, expected=example, where=where)
    limits.check("latent size", math.prod(latent), 1, where=where)


def check_built(model: Any) -> None:
    """Refuse a model that does not know the shape of an example yet."""
    if not model.event_shape:
        raise InputError(
            "event_shape",
            got="()",
            expected="the shape of one example, such as (28, 28, 1)",
            where=type(model).__name__,
            hint="write dataclasses.replace(model, event_shape=x.shape[1:])",
        )


def check_codes(model: Any, z: Array, latent: LatentShape | None = None) -> None:
    """Refuse codes of another shape than the model's, or than this one."""
    shape = code_shape(model.latent if latent is None else latent)
    if z.shape[1:] != shape:
        where = f"decode, batch of shape {z.shape}"
        raise InputError("shape of one code", got=z.shape[1:], expected=f"{shape}", where=where)


def normal(model: Any, out: Array) -> Distribution:
    """Return a network's output `[B, ..., 2 L]`, means and then raw log scales, as normals `[B, ..., L]`."""
    return bounded_normal(out, model.log_scale_range)


def bounded_normal(out: Array, log_scale_range: tuple[float, float]) -> distributions.Normal:
    """Return numbers `[B, ..., 2 L]`, means and then raw log scales, as normals whose log scales lie in a range."""
    loc, raw = jnp.split(out, 2, axis=-1)
    return distributions.Normal(loc, distributions.bounded(raw, *log_scale_range))


def init(model: Any, key: Array, codes: LatentShape, latent: LatentShape | None = None) -> Params:
    """Return fresh parameters of an encoder with outputs `[B, *codes]`, a decoder, a likelihood and a prior.

    The decoder is for codes of the model's shape, or of `latent`.
    """
    check_built(model)
    key_encoder, key_decoder, key_prior = jax.random.split(key, 3)
    seen = code_shape(model.latent if latent is None else latent)
    encoder = model.network.encoder(model.event_shape, codes)
    decoder = model.network.decoder(model.event_shape, model.likelihood.outputs)
    return {
        "encoder": encoder.init(key_encoder, jnp.zeros((1, *model.event_shape)))["params"],
        "decoder": decoder.init(key_decoder, jnp.zeros((1, *seen)))["params"],
        "likelihood": model.likelihood.init(),
        "prior": model.latent_prior.init(key_prior, model),
    }


def check_event(model: Any, x: Array) -> None:
    """Refuse examples of another shape than the model's."""
    check_built(model)
    if x.shape[1:] != model.event_shape:
        where = f"encode, batch of shape {x.shape}"
        raise InputError("shape of one example", got=x.shape[1:], expected=f"{model.event_shape}", where=where)


def encoder_outputs(model: Any, params: Params, x: Array, codes: LatentShape) -> Array:
    """Return the encoder's outputs `[B, *codes]` of x `[B, *event]`."""
    check_event(model, x)
    return encoded(model, params, x, codes)


def encoded(model: Any, params: Params, seen: Array, codes: LatentShape) -> Array:
    """Return the encoder's outputs `[B, *codes]` of what it sees, be it more than an example."""
    network = model.network.encoder(seen.shape[1:], codes)
    return _as(network.apply({"params": params["encoder"]}, seen), code_shape(codes), "the encoder's output")


def decode(model: Any, params: Params, z: Array, latent: LatentShape | None = None) -> Distribution:
    """Return p(x|z) of z `[B, *latent]`, by default of the model's shape."""
    check_built(model)
    check_codes(model, z, latent)
    return decoded(model, params, z)


def decoded(model: Any, params: Params, z: Array) -> Distribution:
    """Return the likelihood at what the decoder sees, be it more than a code."""
    return model.likelihood(params["likelihood"], decoder_outputs(model, params, z))


def decoder_outputs(model: Any, params: Params, z: Array) -> Array:
    """Return the decoder's outputs `[B, *event, outputs]` of what it sees."""
    network = model.network.decoder(model.event_shape, model.likelihood.outputs)
    shape = (*model.event_shape, model.likelihood.outputs)
    return _as(network.apply({"params": params["decoder"]}, z), shape, "the decoder's output")


def _as(out: Any, shape: tuple[int, ...], what: str) -> Array:
    """Return a network's output as `[B, *shape]`; modules that leave out axes of size 1 or flatten them are welcome."""
    if math.prod(out.shape[1:]) != math.prod(shape):
        raise InputError(what, got=f"{out.shape[1:]} numbers per example", expected=f"{math.prod(shape)}, as {shape}")
    array: Array = out.reshape(out.shape[0], *shape)
    return array
