"""Closed forms in float64 NumPy and SciPy, and the statistics with which draws are held against them.

Nothing here calls the package's own densities, so agreement means something.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from aevae_jax.training import loops

LOG_2PI = np.log(2 * np.pi)


def assert_mean(draws: Any, expected: Any, k: float = 5.0) -> None:
    """The mean of independent draws `[N, ...]` lies within `k` standard errors of `expected`.

    Five standard errors fail by chance once in two million comparisons. The sum itself is rounded to float32, hence
    the second term; where all draws are equal, it is the only one.
    """
    draws = np.asarray(draws, np.float64)
    expected = np.broadcast_to(np.asarray(expected, np.float64), draws.shape[1:])
    error = draws.std(axis=0, ddof=1) / np.sqrt(len(draws))
    allowed = k * error + 1e-6 * (1e-3 + np.abs(draws).max(axis=0))
    distance = np.abs(draws.mean(axis=0) - expected)
    worst = np.argmax(distance - allowed)
    assert (distance <= allowed).all(), (
        f"mean {draws.mean(axis=0).flat[worst]:.8g}, expected {expected.flat[worst]:.8g}, "
        f"standard error {error.flat[worst]:.3g}"
    )


def assert_distribution(draws: Any, cdf: Any) -> None:
    """Independent draws `[N]` follow `cdf`: the largest gap is below the Dvoretzky-Kiefer-Wolfowitz bound at 1e-6."""
    draws = np.sort(np.asarray(draws, np.float64))
    count = len(draws)
    f = cdf(draws)
    gap = max((np.arange(1, count + 1) / count - f).max(), (f - np.arange(count) / count).max())
    assert gap < np.sqrt(np.log(2 / 1e-6) / (2 * count)), gap


# The methods of a distribution, compiled once per type and shape: eager calls compile every operation by itself.
log_prob = jax.jit(lambda q, value: q.log_prob(value))
mean = jax.jit(lambda q: q.mean())
sample = jax.jit(lambda q, key: q.sample(key))
kl = jax.jit(lambda q, p: q.kl(p))

# Those of a model, likewise.
encode = jax.jit(lambda model, params, x: model.encode(params, x), static_argnums=0)
decode = jax.jit(lambda model, params, z: model.decode(params, z), static_argnums=0)
reconstruct = jax.jit(
    lambda model, params, x: model.decode(params, model.encode(params, x).mean()).mean(), static_argnums=0
)


def repeated(distribution: Any, times: int) -> Any:
    """Each of B distributions `times` times: a batch of `B * times`, because every leaf has the leading axis B."""
    return jax.tree.map(lambda leaf: np.repeat(leaf, times, axis=0), distribution)


def log_mean_exp(log_w: Any, axis: int = 0) -> np.ndarray:
    """log of the mean of exp, in float64."""
    log_w = np.asarray(log_w, np.float64)
    return np.logaddexp.reduce(log_w, axis=axis) - np.log(log_w.shape[axis])


def unbounded(value: Any, low: float, high: float) -> np.ndarray:
    """The raw number that a smooth map u / sqrt(1 + u^2) into (low, high) takes to `value`."""
    middle, half = (low + high) / 2, (high - low) / 2
    t = (np.asarray(value, np.float64) - middle) / half
    return middle + half * t / np.sqrt(1 - t * t)


def normal_kl(loc: Any, scale: Any, other_loc: Any = 0.0, other_scale: Any = 1.0) -> np.ndarray:
    """KL between normals, per element."""
    ratio = (np.asarray(scale, np.float64) / other_scale) ** 2
    return 0.5 * (ratio + ((np.asarray(loc, np.float64) - other_loc) / other_scale) ** 2 - 1 - np.log(ratio))


def random_params(model: Any, seed: int = 0) -> Any:
    """Parameters of a model from NumPy, at the scale of an initialisation: compiling one takes longer than using it."""
    generator = np.random.default_rng(seed)

    def fill(path: Any, leaf: Any) -> jax.Array:
        if path[-1] == jax.tree_util.DictKey("scale"):  # of GroupNorm
            return jnp.ones(leaf.shape, leaf.dtype)
        inputs = np.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 10
        return jnp.asarray(generator.normal(scale=inputs**-0.5, size=leaf.shape), leaf.dtype)

    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return jax.tree_util.tree_map_with_path(fill, shapes)


class LinearGaussian(NamedTuple):
    """z ~ N(0, I), x | z ~ N(weight z + bias, scale^2 I). Columns of `weight` are orthogonal, so p(z|x) is diagonal."""

    weight: np.ndarray  # [D, L]
    bias: np.ndarray  # [D]
    scale: float

    def log_evidence(self, x: Any) -> np.ndarray:
        """log p(x), `[B]`."""
        covariance = self.weight @ self.weight.T + self.scale**2 * np.eye(len(self.bias))
        return np.atleast_1d(stats.multivariate_normal(self.bias, covariance).logpdf(np.asarray(x, np.float64)))

    def posterior_map(self) -> tuple[np.ndarray, np.ndarray]:
        """A `[L, D]` and s `[L]` of p(z|x) = N(A (x - bias), diag(s^2))."""
        precision = np.eye(self.weight.shape[1]) + self.weight.T @ self.weight / self.scale**2
        assert np.allclose(precision, np.diag(np.diag(precision))), "the columns of weight must be orthogonal"
        return np.linalg.inv(precision) @ self.weight.T / self.scale**2, np.diag(precision) ** -0.5

    def distortion(self, x: Any, loc: Any, scale: Any) -> np.ndarray:
        """E_q[-log p(x|z)] for q = N(loc, diag(scale^2)), both `[B, L]`: `[B]`."""
        residual = np.asarray(x, np.float64) - self.bias - np.asarray(loc, np.float64) @ self.weight.T
        spread = (np.asarray(scale, np.float64) ** 2) @ (self.weight**2).sum(axis=0)
        constant = len(self.bias) / 2 * (LOG_2PI + 2 * np.log(self.scale))
        return constant + ((residual**2).sum(axis=1) + spread) / (2 * self.scale**2)

    def params(self, encoder: np.ndarray, posterior_scale: np.ndarray, log_scale_range: tuple[float, float]) -> Any:
        """Parameters of a `VAE` with linear networks whose q(z|x) is N(encoder (x - bias), posterior_scale^2)."""
        raw_scale = unbounded(np.log(posterior_scale), *log_scale_range)
        tree = {
            "encoder": {
                "out": {
                    "kernel": np.concatenate([encoder.T, np.zeros_like(encoder.T)], axis=1),
                    "bias": np.concatenate([-encoder @ self.bias, raw_scale]),
                }
            },
            "decoder": {"out": {"kernel": self.weight.T, "bias": self.bias}},
            "likelihood": {},
            "prior": {},
        }
        return jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), tree)


def linear_gaussian(size: int = 5, latent: int = 2, scale: float = 0.7) -> LinearGaussian:
    """One such model with fixed numbers."""
    generator = np.random.default_rng(3)
    basis = np.linalg.qr(generator.normal(size=(size, latent)))[0]
    return LinearGaussian(basis * np.linspace(1.5, 0.6, latent), generator.normal(size=size), scale)


@dataclass(frozen=True)
class AsMaps:
    """A model of normal codes `[B, L]` whose codes are maps `[B, *shape]` in place of that: the same numbers.

    Its noise is the same as well: JAX draws so many numbers, and then gives them their shape.
    """

    flat: Any
    shape: tuple[int, ...]

    def init(self, key: Any) -> Any:
        return self.flat.init(key)

    def encode(self, params: Any, x: Any) -> Any:
        return self._folded(self.flat.encode(params, x))

    def decode(self, params: Any, z: Any) -> Any:
        return self.flat.decode(params, z.reshape(z.shape[0], -1))

    def prior(self, params: Any, n: int) -> Any:
        return self._folded(self.flat.prior(params, n))

    def _folded(self, q: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[0], *self.shape), q)


def recorded_scans(monkeypatch: Any, *, run: bool = True) -> list[tuple[Any, Any, Any, Any]]:
    """A list of the loops that `loops.scan` is given from here on: body, shapes of the carry, context and xs.

    Without `run` none is computed: the carry comes back as it was, and all outputs are 0.
    """
    found, scan = [], loops.scan

    def record(body: Any, carry: Any, context: Any, xs: Any) -> tuple[Any, Any]:
        found.append((body, jax.eval_shape(lambda: carry), context, xs))
        if run:
            return scan(body, carry, context, xs)
        return carry, loops.empty_outputs(body, carry, context, xs, len(jax.tree.leaves(xs)[0]))

    monkeypatch.setattr(loops, "scan", record)
    return found


def assert_scan_in_full(recorded: tuple[Any, Any, Any, Any]) -> None:
    """`assert_products_in_full` of one step of a loop that `recorded_scans` found."""
    body, carry, context, xs = recorded
    assert_products_in_full(body, carry, context, jax.tree.map(lambda a: a[0], xs))


def train_windows(train_step, state, windows, key):
    """All steps of some windows, one after the other: the new state, and the metrics of every step."""
    from aevae_jax import training

    found = []
    for window in windows:
        chunk = training.window_chunk(window, key)
        steps = len(chunk.rows)
        metrics = training.empty_outputs(train_step, state, chunk, key, steps=steps)
        state, metrics = training.advance(train_step, state, chunk, key, metrics=metrics, start=0, stop=steps)
        found.append(metrics)
    return state, jax.tree.map(lambda *m: np.concatenate(m), *found)


def assert_products_in_full(program, *arguments):
    """Every matrix product of a program is in full float32, on accelerators too."""
    products = [
        equation
        for equation in equations(jax.make_jaxpr(program)(*arguments).jaxpr)
        if equation.primitive.name == "dot_general"
    ]
    assert products
    assert all(equation.params["precision"] == (jax.lax.Precision.HIGHEST,) * 2 for equation in products)


def equations(jaxpr):
    """All of a program's, those of inner programs included."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=lambda v: hasattr(v, "eqns")):
            if hasattr(value, "eqns"):
                yield from equations(value)
