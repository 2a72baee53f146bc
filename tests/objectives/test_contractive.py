"""The penalty of codes that change with the data: the norm itself, and Hutchinson's estimate of it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import assert_mean, random_params

from aevae_jax import VAE, Autoencoder
from aevae_jax.models import architectures
from aevae_jax.objectives.contractive import Contractive, estimated_norm, jacobian_norm
from aevae_jax.objectives.losses import ELBO, LinearWarmup, ReconstructionError
from aevae_jax.types import InputError

X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3, 2)), jnp.float32)
DEEP = Autoencoder(3, architectures.MLP((5,)), event_shape=(3, 2))
LINEAR = VAE(3, architectures.MLP(()), event_shape=(3, 2))


def exact(model, params):
    """Example by example, by forward differentiation: `[B]`."""

    def mean(x):
        return model.encode(params, x[None]).mean()[0]

    jacobians = jax.jit(jax.vmap(jax.jacfwd(mean)))(X)  # [B, L, *event]
    return np.square(np.asarray(jacobians, np.float64)).reshape(len(X), -1).sum(axis=1)


def test_the_norm_is_that_of_the_jacobian_of_each_example():
    params = random_params(DEEP)
    found = jax.jit(lambda p: jacobian_norm(DEEP, p, X))(params)
    np.testing.assert_allclose(found, exact(DEEP, params), rtol=1e-5)
    assert np.ptp(found) > 1e-3


def test_of_a_linear_encoder_it_is_the_norm_of_its_weights():
    """Those of the means alone: the scales of q(z|x) may change with x as they like."""
    params = random_params(LINEAR)
    kernel = np.asarray(params["encoder"]["out"]["kernel"])[:, :3]
    np.testing.assert_allclose(jax.jit(lambda p: jacobian_norm(LINEAR, p, X))(params), (kernel**2).sum(), rtol=1e-5)


@pytest.mark.parametrize("samples", [1, 3])
def test_the_estimate_is_unbiased(samples):
    params = random_params(DEEP)
    one = jax.jit(jax.vmap(lambda key: estimated_norm(DEEP, params, X, key, samples)))
    assert_mean(one(jax.random.split(jax.random.key(0), 4000)), exact(DEEP, params), k=4)


def test_more_directions_have_less_variance():
    params, keys = random_params(DEEP), jax.random.split(jax.random.key(0), 2000)
    few, many = (
        np.var(jax.jit(jax.vmap(lambda k, n=n: estimated_norm(DEEP, params, X, k, n)))(jax.random.clone(keys)), axis=0)
        for n in (1, 4)
    )
    np.testing.assert_allclose(many / few, 0.25, rtol=0.25)


@pytest.mark.parametrize("samples", [0, 2])
def test_the_loss_is_that_inside_and_the_weighted_penalty(samples):
    params, key = random_params(DEEP), jax.random.key(0)
    objective = Contractive(LinearWarmup(10, end=0.5), samples=samples)
    loss, metrics = jax.jit(lambda p: objective(DEEP, p, X, jax.random.clone(key), 4))(params)
    inner = jax.jit(lambda p: ReconstructionError()(DEEP, p, X, jax.random.clone(key), 4)[0])(params)
    np.testing.assert_allclose(loss, inner + 0.2 * metrics["squared_jacobian_norm"], rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"], loss)
    np.testing.assert_allclose(metrics["distortion"], inner, rtol=1e-6)
    if not samples:
        np.testing.assert_allclose(metrics["squared_jacobian_norm"], exact(DEEP, params).mean(), rtol=1e-5)


def test_the_penalty_trains_the_encoder_and_nothing_else():
    params, key = random_params(DEEP), jax.random.key(0)
    with_it, without = (
        jax.jit(jax.grad(lambda p, w=w: Contractive(w)(DEEP, p, X, jax.random.clone(key), 0)[0]))(params)
        for w in (1.0, 0.0)
    )
    moved = jax.tree.map(lambda a, b: bool((abs(a - b) > 1e-6).any()), with_it, without)
    assert any(jax.tree.leaves(moved["encoder"]))
    assert not any(jax.tree.leaves(moved["decoder"]))


def test_it_selects_as_the_loss_inside():
    assert Contractive().validation() == ReconstructionError().validation()
    assert Contractive(objective=ELBO()).validation() == ELBO().validation()


@pytest.mark.parametrize("fields", [{"weight": -1.0}, {"samples": -1}])
def test_impossible_ones_are_one_line(fields):
    with pytest.raises(InputError, match=f"Contractive {next(iter(fields))}"):
        Contractive(**fields)
