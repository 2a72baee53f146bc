"""Flows and normals of full covariance: densities against quadrature, inversion and SciPy, rates in closed form."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import assert_mean, kl, log_prob, mean, repeated, sample
from scipy import stats

from aevae_jax import distributions as d
from aevae_jax.models import posteriors
from aevae_jax.types import DrawnWithDensity

B, SIZES, RANGE = 3, (1, 2), (-3.0, 1.0)
POSTERIORS = {
    "FullNormal": posteriors.FullNormal(),
    "Householder": posteriors.Householder(3),
    "Planar": posteriors.Planar(3),
    "IAF": posteriors.IAF(2, (5,)),
}
each = pytest.mark.parametrize("name", POSTERIORS)
each_size = pytest.mark.parametrize("latent", SIZES)


def f64(x: Any) -> np.ndarray:
    return np.asarray(x, np.float64)


def array(seed: int, *shape: int, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=scale, size=shape).astype(np.float32)


@cache
def example(name: str, latent: int, batch: int = B) -> Any:
    """A distribution that is far from a diagonal normal."""
    posterior = POSTERIORS[name]
    shapes = jax.eval_shape(lambda key: posterior.init(key, latent), jax.random.key(0))
    leaves, tree = jax.tree.flatten(shapes)
    own = jax.tree.unflatten(tree, [array(5 + i, *leaf.shape, scale=0.8) for i, leaf in enumerate(leaves)])
    raw = array(2, batch, posterior.outputs(latent), scale=1.5)
    raw[:, latent : 2 * latent] = array(3, batch, latent, scale=0.5) - 0.5
    return jax.jit(lambda own, raw: posterior(own, raw, RANGE))(own, raw)


def of_first(q: Any, times: int) -> Any:
    """The first of B distributions, so many times; what all share stays as it is."""
    return jax.tree.map(lambda leaf: np.repeat(leaf[:1], times, axis=0) if leaf.shape[0] == B else leaf, q)


def nodes(latent: int, half: float = 11.0, points: int = 240) -> tuple[np.ndarray, np.ndarray]:
    """A Gauss-Legendre rule on an interval or a square: `[N, latent]` and weights."""
    x, w = np.polynomial.legendre.leggauss(points)
    if latent == 1:
        return half * x[:, None], half * w
    return np.stack(np.meshgrid(half * x, half * x, indexing="ij"), axis=-1).reshape(-1, 2), half**2 * np.outer(
        w, w
    ).reshape(-1)


drawn = jax.jit(lambda q, key: q.sample_and_log_prob(key))


@each
@each_size
def test_density_integrates_to_one_and_is_that_of_the_draws(name, latent):
    """To its mass, and to the moments of the draws: linear, square and mixed."""
    q = example(name, latent)
    z, weights = nodes(latent)
    density = weights * np.exp(f64(log_prob(of_first(q, len(z)), z.astype(np.float32))))
    np.testing.assert_allclose(density.sum(), 1.0, atol=2e-3)
    draws = f64(sample(of_first(q, 20_000), jax.random.key(1)))
    for moment in (lambda z: z, np.square, lambda z: z.prod(axis=1, keepdims=True), np.tanh):
        off = 1e-3 * np.abs(density @ moment(z)) + 1e-3  # of the quadrature
        values = moment(draws)
        assert (np.abs(values.mean(axis=0) - density @ moment(z)) < 5 * values.std(axis=0) / 141 + off).all()


@pytest.mark.parametrize("name", ["Planar", "IAF"])
@pytest.mark.parametrize("latent", [1, 3, 6])
def test_density_along_a_draw_is_that_by_inversion(name, latent):
    q = example(name, latent)
    assert isinstance(q, DrawnWithDensity)
    z, log_q = drawn(q, jax.random.key(2))
    np.testing.assert_allclose(log_q, log_prob(q, z), atol=1e-3)
    np.testing.assert_allclose(z, sample(q, jax.random.key(2)), atol=1e-5)
    assert np.ptp(log_q) > 0.1


@pytest.mark.parametrize("name", ["Planar", "IAF"])
def test_mean_of_a_flow_is_where_the_mean_of_its_base_goes(name):
    q = example(name, 3)
    narrow = d.Flow(d.Normal(q.base.loc, jnp.full_like(q.base.loc, -20.0)), q.maps)
    np.testing.assert_allclose(mean(q), sample(narrow, jax.random.key(0)), atol=1e-5)
    assert q.kl(d.Normal(q.base.loc, q.base.loc)) is NotImplemented


# --- normals of full covariance ---


def covariance(name: str, q: Any) -> np.ndarray:
    """`[B, D, D]`, in float64."""
    if name == "FullNormal":
        lower = np.tril(f64(q.scale_tril))
        return lower @ np.swapaxes(lower, 1, 2)
    found = []
    for log_scale, vectors in zip(f64(q.log_scale), f64(q.vectors), strict=True):
        rotation = np.eye(len(log_scale))
        for v in vectors:  # the first one acts first
            rotation = (np.eye(len(v)) - 2 * np.outer(v, v) / (v @ v)) @ rotation
        found.append(rotation @ np.diag(np.exp(2 * log_scale)) @ rotation.T)
    return np.stack(found)


each_normal = pytest.mark.parametrize("name", ["FullNormal", "Householder"])


@each_normal
@pytest.mark.parametrize("latent", [1, 4])
def test_density_and_scale_are_those_of_the_covariance(name, latent):
    q, value = example(name, latent), array(6, B, latent)
    expected = [
        stats.multivariate_normal(m, c).logpdf(x)
        for m, c, x in zip(f64(q.loc), covariance(name, q), f64(value), strict=True)
    ]
    np.testing.assert_allclose(log_prob(q, value), expected, rtol=1e-4, atol=1e-4)
    variances = np.diagonal(covariance(name, q), axis1=1, axis2=2)
    np.testing.assert_allclose(q.scale, np.sqrt(variances), rtol=1e-5)
    np.testing.assert_array_equal(mean(q), q.loc)
    if latent > 1:
        assert np.abs(covariance(name, q)[:, 0, 1]).min() > 1e-3


@each_normal
def test_draws_have_the_covariance(name):
    q = example(name, 4)
    draws = f64(sample(repeated(q, 20_000), jax.random.key(3))).reshape(B, 20_000, 4) - f64(q.loc)[:, None]
    assert_mean(np.moveaxis(draws, 1, 0), 0.0)
    assert_mean(np.moveaxis(draws[..., :, None] * draws[..., None, :], 1, 0), covariance(name, q))


@each_normal
@pytest.mark.parametrize("latent", [1, 4])
def test_kl_from_a_normal_is_the_closed_form_and_the_mean_over_draws(name, latent):  # mistake 4
    q = example(name, latent)
    p = jax.tree.map(jnp.asarray, d.Normal(array(7, B, latent), array(8, B, latent, scale=0.4)))
    cov, loc, scale = covariance(name, q), f64(p.loc), np.exp(f64(p.log_scale))
    trace = (np.diagonal(cov, axis1=1, axis2=2) / scale**2).sum(axis=1)
    distance = (((f64(q.loc) - loc) / scale) ** 2).sum(axis=1)
    log_ratio = 2 * np.log(scale).sum(axis=1) - np.linalg.slogdet(cov)[1]
    expected = 0.5 * (trace + distance - latent + log_ratio)
    np.testing.assert_allclose(kl(q, p), expected, rtol=1e-4)
    draws = sample(repeated(q, 5_000), jax.random.key(4))
    ratio = log_prob(repeated(q, 5_000), draws) - log_prob(repeated(p, 5_000), draws)
    assert_mean(f64(ratio).reshape(B, 5_000).T, expected)


def test_kl_is_zero_at_the_prior_and_unknown_from_another_family():  # mistake 4
    zeros, eye = jnp.zeros((B, 3)), jnp.broadcast_to(jnp.eye(3), (B, 3, 3))
    p = d.Normal(zeros, zeros)
    for q in (d.MultivariateNormal(zeros, eye), d.Householder(zeros, zeros, array(0, B, 2, 3))):
        np.testing.assert_allclose(kl(q, p), 0.0, atol=1e-5)
        assert q.kl(d.Mixture(jnp.zeros(1), p, B)) is NotImplemented
    # what lies above the diagonal is no part of the factor
    above = jnp.triu(array(1, B, 3, 3), 1)
    np.testing.assert_allclose(kl(d.MultivariateNormal(zeros, eye + above), p), 0.0, atol=1e-6)


def test_reflections_do_not_depend_on_the_length_of_their_vectors():
    q = example("Householder", 4)
    longer = d.Householder(q.loc, q.log_scale, 1e3 * q.vectors)
    np.testing.assert_allclose(sample(longer, jax.random.key(0)), sample(q, jax.random.key(0)), atol=1e-5)
    none = d.Householder(q.loc, q.log_scale, 0 * q.vectors)  # a vector of no length reflects nothing
    diagonal = sample(d.Normal(q.loc, q.log_scale), jax.random.key(0))
    np.testing.assert_allclose(sample(none, jax.random.key(0)), diagonal, atol=1e-6)
    gradient = jax.jit(jax.grad(lambda q: q.log_prob(q.loc + 1).sum()))(none)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
