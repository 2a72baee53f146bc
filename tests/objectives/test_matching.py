"""Distances of codes from the prior by a kernel: their values, that they are unbiased, and what they are weighed by."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import assert_mean, random_params

from aevae_jax import VAE, Autoencoder
from aevae_jax.evaluation import statistics
from aevae_jax.models import architectures, likelihoods, priors
from aevae_jax.objectives.losses import ELBO, ReconstructionError
from aevae_jax.objectives.matching import MMD, mmd
from aevae_jax.runs.run import Run
from aevae_jax.types import InputError

A, B = np.random.default_rng(0).normal(size=(9, 3)), 1.5 * np.random.default_rng(1).normal(size=(7, 3)) + 0.5


@pytest.mark.parametrize("kernel", ["inverse_multiquadratic", "rbf"])
@pytest.mark.parametrize("bandwidth", [1.0, 0.25])
def test_the_discrepancy_is_the_unbiased_estimate_of_its_kernel(kernel, bandwidth):
    def similar(x, y):
        square = ((x - y) ** 2).sum()
        width = 2 * 3 * bandwidth
        return width / (width + square) if kernel == "inverse_multiquadratic" else np.exp(-square / width)

    def pairs(one, other, same):
        return np.mean([similar(x, y) for i, x in enumerate(one) for j, y in enumerate(other) if not (same and i == j)])

    expected = pairs(A, A, True) + pairs(B, B, True) - 2 * pairs(A, B, False)
    found = jax.jit(mmd, static_argnums=2)(jnp.asarray(A, jnp.float32), jnp.asarray(B, jnp.float32), kernel, bandwidth)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    if kernel != "rbf" and bandwidth == 1:
        np.testing.assert_allclose(found, statistics.mmd(A, B), rtol=1e-4)


def test_the_discrepancy_of_equal_distributions_is_zero_on_average():
    """Not so of a biased estimate, which counts each draw as its own neighbour."""

    def one(key):
        a, b = jax.random.normal(key, (2, 8, 2))
        return jnp.stack([mmd(a, b), mmd(a, b, "rbf")])

    draws = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 2000))
    assert_mean(draws, np.zeros(2))
    assert draws.std() > 1e-3


def test_equal_codes_have_a_finite_gradient():
    gradient = jax.jit(jax.grad(lambda z: mmd(z, jnp.ones((4, 2))) + mmd(z, z, "rbf")))(jnp.ones((4, 2)))
    assert np.isfinite(gradient).all()


SIZE = 4
X = jnp.asarray(np.random.default_rng(2).normal(size=(6, SIZE)), jnp.float32)
PARTS = {"network": architectures.MLP(()), "likelihood": likelihoods.Normal(), "event_shape": (SIZE,)}
MODELS = {"VAE": VAE(2, latent_prior=priors.StandardNormal(), **PARTS), "Autoencoder": Autoencoder(2, **PARTS)}


@pytest.mark.parametrize("name", MODELS)
def test_the_loss_is_made_of_its_weighed_terms(name):  # mistake 3, mistake 28
    """The discrepancy of draws of codes from as many of the prior; the rate where it has a weight."""
    model, rated = MODELS[name], 0.3 if name == "VAE" else 0.0
    params = random_params(model)

    @jax.jit
    def run(params):
        def loss(params, weight, rate_weight):
            return MMD(weight, rate_weight)(model, params, X, jax.random.key(0), 0)

        found = loss(params, 5.0, rated)[1]
        slope = jax.grad(lambda weight: loss(params, weight, rated)[0])(5.0)
        gradients = [jax.grad(loss, has_aux=True)(params, weight, rated)[0] for weight in (0.0, 5.0)]
        key_bound, key_prior = jax.random.split(jax.random.key(0))
        q, p = model.encode(params, X), model.prior(params, 6)
        return found, slope, gradients, (q.sample(key_bound), p.sample(key_prior))

    found, slope, gradients, codes = run(params)
    np.testing.assert_allclose(found["mmd"], statistics.mmd(*map(np.asarray, codes)), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(slope, found["mmd"], rtol=1e-5)
    rate = rated * found["rate"] if rated else 0.0
    np.testing.assert_allclose(found["loss"], found["distortion"] + rate + 5 * found["mmd"], rtol=1e-5)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), *gradients)
    assert max(jax.tree.leaves(moved["encoder"])) > 1e-3
    assert max(jax.tree.leaves(moved["decoder"])) < 1e-6


def test_codes_that_are_points_may_have_a_discrepancy_and_no_rate():
    assert Run(model=Autoencoder(), objective=MMD()).objective == MMD()
    with pytest.raises(InputError, match="objective of an Autoencoder: got MMD, expected"):
        Run(model=Autoencoder(), objective=MMD(rate_weight=0.1))


def test_selection_is_by_the_plain_bound_where_the_rate_has_a_weight():  # mistake 2, mistake 35
    """Where it has none q(z|x) becomes a point, and the bound gets worse as the model gets better."""
    for weight in (0.1, 3.0, lambda step: 1.0 * step):
        assert MMD(7.0, weight).validation() == ELBO().validation()
    assert MMD(7.0).validation() == ReconstructionError().validation()


def test_what_has_no_discrepancy_is_one_line():
    with pytest.raises(InputError, match="batch size: got 1, expected at least 2"):
        jax.eval_shape(lambda: MMD()(MODELS["VAE"], random_params(MODELS["VAE"]), X[:1], jax.random.key(0), 0))
    with pytest.raises(InputError, match="MMD bandwidth: got 0"):
        replace(MMD(), bandwidth=0.0)
