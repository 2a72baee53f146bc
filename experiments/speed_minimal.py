"""The same networks in plain JAX, as a careful user would train them without this library.

Parameters are lists of weights and biases in the order of their use, the optimizer is optax's, and an epoch is one
jitted scan; convolutions on CPUs, which XLA runs slowly inside a scan, are a loop of jitted steps. Nothing is checked
or logged but the loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from speed_cases import Case

Layer = tuple[Array, Array]
LOG_2PI = math.log(2 * math.pi)
SCALE_RANGE = (-7.0, 2.0)


def init(case: Case, key: Array) -> Any:
    """Return fresh parameters: layers of encoder and decoder, and the raw log scale of a Gaussian likelihood."""

    def layer(key: Array, shape: tuple[int, ...]) -> Layer:
        if len(shape) == 1:  # of a normalisation
            return jnp.ones(shape), jnp.zeros(shape)
        scale = 1 / math.sqrt(math.prod(shape[:-1]))
        return scale * jax.random.normal(key, shape), jnp.zeros(shape[-1])

    shapes = encoder_shapes(case), decoder_shapes(case)
    keys = [jax.random.split(k, len(s)) for k, s in zip(jax.random.split(key), shapes, strict=True)]
    encoder, decoder = ([layer(k, s) for k, s in zip(*part, strict=True)] for part in zip(keys, shapes, strict=True))
    return {"encoder": encoder, "decoder": decoder, "log_scale": jnp.zeros(())}


def encoder_shapes(case: Case) -> list[tuple[int, ...]]:
    """Return the shapes of the encoder's weights, in the order of their use."""
    shapes: list[tuple[int, ...]] = []
    if not case.channels:
        sizes = [math.prod(case.event_shape), *case.hidden]
        for a, b in pairwise(sizes):
            shapes += [(a, b)] * (1 + case.gated)
        return [*shapes, (sizes[-1], 2 * case.latent)]
    before = case.event_shape[-1]
    for channels in case.channels:
        shapes += [(case.kernel, case.kernel, before, channels), *block_shapes(channels) * case.blocks]
        before = channels
    return [*shapes, (math.prod(smallest(case)), 2 * case.latent)]


def decoder_shapes(case: Case) -> list[tuple[int, ...]]:
    """Return the shapes of the decoder's weights, in the order of their use."""
    shapes: list[tuple[int, ...]] = []
    if not case.channels:
        sizes = [case.latent, *case.hidden[::-1]]
        for a, b in pairwise(sizes):
            shapes += [(a, b)] * (1 + case.gated)
        return [*shapes, (sizes[-1], math.prod(case.event_shape))]
    shapes.append((case.latent, math.prod(smallest(case))))
    for before, after in pairwise([*case.channels[::-1], case.event_shape[-1]]):
        shapes += [*block_shapes(before) * case.blocks, (4, 4, before, after)]
    return shapes


def block_shapes(channels: int) -> list[tuple[int, ...]]:
    """Return the shapes of a residual block: twice a normalisation and a convolution."""
    return [(channels,), (3, 3, channels, channels)] * 2


def smallest(case: Case) -> tuple[int, int, int]:
    """Return the shape of the smallest image between encoder and decoder; sizes must halve evenly."""
    height, width, _ = case.event_shape
    return height >> len(case.channels), width >> len(case.channels), case.channels[-1]


def encode(case: Case, layers: list[Layer], x: Array) -> tuple[Array, Array]:
    """Return mean and log standard deviation of q(z|x), `[B, latent]` each."""
    use = iter(layers)
    if case.channels:
        for _ in case.channels:
            x = convolve(x, next(use), stride=2)
            x = residual(x, use, case.blocks) if case.blocks else jax.nn.relu(x)
    x = hidden(case, x.reshape(len(x), -1), use)
    mean, raw = jnp.split(dense(x, next(use)), 2, axis=-1)
    return mean, bounded(raw, *case.log_scale_range)


def decode(case: Case, layers: list[Layer], z: Array) -> Array:
    """Return logits or means, `[B, H, W, C]`."""
    use = iter(layers)
    if not case.channels:
        return dense(hidden(case, z, use), next(use)).reshape(len(z), *case.event_shape)
    x = dense(z, next(use)).reshape(len(z), *smallest(case))
    for _ in case.channels:
        x = residual(x, use, case.blocks) if case.blocks else jax.nn.relu(x)
        w, b = next(use)
        x = jax.lax.conv_transpose(x, w, (2, 2), "SAME") + b
    return x


def hidden(case: Case, x: Array, use: Iterator[Layer]) -> Array:
    for _ in case.hidden:
        gate = jax.nn.sigmoid(dense(x, next(use))) if case.gated else None
        x = dense(x, next(use))
        x = jax.nn.relu(x) if gate is None else x * gate
    return x


def dense(x: Array, layer: Layer) -> Array:
    w, b = layer
    return x @ w + b


def convolve(x: Array, layer: Layer, stride: int = 1) -> Array:
    w, b = layer
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, w, (stride, stride), "SAME", dimension_numbers=numbers) + b


def residual(x: Array, use: Iterator[Layer], blocks: int) -> Array:
    for _ in range(blocks):
        y = x
        for _ in range(2):
            scale, shift = next(use)
            y = convolve(jax.nn.swish(normalise(y) * scale + shift), next(use))
        x = x + y
    return x


def normalise(x: Array) -> Array:
    """Return GroupNorm with 8 groups, before scale and shift."""
    grouped = x.reshape(len(x), -1, 8, x.shape[-1] // 8)
    mean = grouped.mean(axis=(1, 3), keepdims=True)
    variance = grouped.var(axis=(1, 3), keepdims=True)
    return ((grouped - mean) * jax.lax.rsqrt(variance + 1e-6)).reshape(x.shape)


def bounded(raw: Array, low: float, high: float) -> Array:
    """Return a smooth map of the real line into (low, high)."""
    u = (raw - (low + high) / 2) / ((high - low) / 2)
    return (low + high) / 2 + (high - low) / 2 * u / jnp.sqrt(1 + u * u)


def log_likelihood(case: Case, params: Any, logits: Array, x: Array) -> Array:
    """Return log p(x|z), `[B]`."""
    if case.binary:
        terms = x * logits - jax.nn.softplus(logits)
    else:
        log_scale = bounded(params["log_scale"], *SCALE_RANGE)
        terms = -0.5 * (((x - logits) * jnp.exp(-log_scale)) ** 2 + LOG_2PI) - log_scale
    return terms.reshape(len(logits), -1).sum(axis=-1)


def loss(case: Case, params: Any, x: Array, noise: Array) -> Array:
    """Return the negative ELBO in nats, the mean over images x `[B, H, W, C]` at the noise `[B, latent]`."""
    mean, log_scale = encode(case, params["encoder"], x)
    logits = decode(case, params["decoder"], mean + jnp.exp(log_scale) * noise)
    rate = 0.5 * (mean**2 + jnp.expm1(2 * log_scale) - 2 * log_scale).sum(axis=-1)
    return (rate - log_likelihood(case, params, logits, x)).mean()


def training(case: Case, x: Any, epochs: int = 1) -> Callable[[], float]:
    """Return what trains some epochs and gives the mean loss of the last."""
    tx = optax.adam(1e-3)
    params = init(case, jax.random.key(0))
    state, x, batch = (params, tx.init(params)), jnp.asarray(x), case.batch
    steps = len(x) // batch
    key = jax.random.key(1)

    def step(state: Any, data: Array, rows: Array, key: Array) -> tuple[Any, Array]:
        params, opt_state = state
        noise = jax.random.normal(key, (batch, case.latent))
        value, gradient = jax.value_and_grad(partial(loss, case))(params, data[rows], noise)
        updates, opt_state = tx.update(gradient, opt_state)
        return (optax.apply_updates(params, updates), opt_state), value

    @jax.jit
    def order(key: Array) -> tuple[Array, Array]:
        key_order, key_noise = jax.random.split(key)
        rows = jax.random.permutation(key_order, len(x))[: steps * batch].reshape(steps, batch)
        return rows, jax.random.split(key_noise, steps)

    @partial(jax.jit, donate_argnums=0)
    def scanned(state: Any, data: Array, key: Array) -> tuple[Any, Array]:
        return jax.lax.scan(lambda s, xs: step(s, data, *xs), state, order(key))

    jitted = jax.jit(step, donate_argnums=0)

    def looped(state: Any, data: Array, key: Array) -> tuple[Any, Array]:
        losses = []
        for rows, noise in zip(*order(key), strict=True):
            state, value = jitted(state, data, rows, noise)
            losses.append(value)
        return state, jnp.stack(losses)

    epoch = looped if case.channels and jax.default_backend() == "cpu" else scanned

    def train() -> float:
        nonlocal state, key
        for _ in range(epochs):
            key, key_epoch = jax.random.split(key)
            state, losses = epoch(state, x, key_epoch)
        jax.block_until_ready(state)
        return float(losses.mean())

    return train


def evaluation(case: Case, x: Any) -> Callable[[], float]:
    """Return what gives the mean negative ELBO of all images, in full float32; a last part of a batch is left out."""
    params, x = init(case, jax.random.key(0)), jnp.asarray(x)
    size = min(256, len(x))

    @jax.jit
    def evaluate(params: Any, x: Array, key: Array) -> Array:
        batches = x[: len(x) // size * size].reshape(-1, size, *case.event_shape)

        def body(_: Any, xs: tuple[Array, Array]) -> tuple[Any, Array]:
            return None, loss(case, params, xs[0], jax.random.normal(xs[1], (size, case.latent)))

        return jax.lax.scan(body, None, (batches, jax.random.split(key, len(batches))))[1].mean()

    def run() -> float:
        with jax.default_matmul_precision("highest"):
            return float(evaluate(params, x, jax.random.key(1)))

    return run


def likelihood(case: Case, x: Any, samples: int) -> Callable[[], float]:
    """Return what gives the mean negative log likelihood by importance weights, an image at a time, in float32."""
    params, x = init(case, jax.random.key(0)), jnp.asarray(x)

    @jax.jit
    def estimate(params: Any, x: Array, key: Array) -> Array:
        def one(xs: tuple[Array, Array]) -> Array:
            image, key = xs
            mean, log_scale = encode(case, params["encoder"], image[None])
            noise = jax.random.normal(key, (samples, case.latent))
            z = mean + jnp.exp(log_scale) * noise
            log_p = log_likelihood(case, params, decode(case, params["decoder"], z), image[None])
            log_ratio = (0.5 * (noise**2 - z**2) + log_scale).sum(axis=-1)
            return jax.nn.logsumexp(log_p.reshape(samples) + log_ratio) - math.log(samples)

        return -jax.lax.map(one, (x, jax.random.split(key, len(x)))).mean()

    def run() -> float:
        with jax.default_matmul_precision("highest"):
            return float(estimate(params, x, jax.random.key(1)))

    return run


def sampling(case: Case, count: int) -> Callable[[], float]:
    """Return what draws codes from the prior and decodes them to means, and gives the first pixel."""
    params = init(case, jax.random.key(0))

    @jax.jit
    def draw(params: Any, key: Array) -> Array:
        out = decode(case, params["decoder"], jax.random.normal(key, (count, case.latent)))
        return jax.nn.sigmoid(out) if case.binary else out

    return lambda: float(jax.block_until_ready(draw(params, jax.random.key(1)))[0, 0, 0, 0])
