"""Penalties of codes that are not near 0, and codes that are 0 for the most part."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import random_params

from aevae_jax import VAE, Autoencoder
from aevae_jax.models import architectures
from aevae_jax.models.codes import Identity, Sigmoid, TopK
from aevae_jax.objectives.losses import ELBO, LinearWarmup, ReconstructionError
from aevae_jax.objectives.sparse import L1, ActivationKL, Sparse
from aevae_jax.types import InputError

X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 5)), jnp.float32)
LINEAR = architectures.MLP(())
SPARSE = Autoencoder(4, LINEAR, event_shape=(5,), code=Sigmoid())
Z = jnp.asarray(np.random.default_rng(1).uniform(0.1, 0.9, size=(6, 4)), jnp.float32)


def test_l1_is_the_sum_over_a_code_and_the_mean_over_examples():
    signed = Z * jnp.asarray([1.0, -1.0, 1.0, -1.0])[None]
    np.testing.assert_allclose(L1()(SPARSE, signed), np.abs(signed).sum() / 6, rtol=1e-6)


def test_activation_kl_is_that_of_bits_with_the_mean_activation_of_each_dimension():
    on, target = np.asarray(Z, np.float64).mean(axis=0), 0.2
    expected = (target * np.log(target / on) + (1 - target) * np.log((1 - target) / (1 - on))).sum()
    np.testing.assert_allclose(ActivationKL(target)(SPARSE, Z), expected, rtol=1e-5)
    assert abs(ActivationKL(0.25)(SPARSE, jnp.tile(jnp.asarray([[0.0], [0.5]]), (3, 4)))) < 1e-6


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_codes_at_the_ends_of_their_range_are_finite(value):
    out, gradient = jax.value_and_grad(lambda z: ActivationKL()(SPARSE, z))(jnp.full((6, 4), value))
    assert np.isfinite(out)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("model", [Autoencoder(4, LINEAR, event_shape=(5,)), VAE(4, LINEAR, event_shape=(5,))], ids=str)
def test_codes_without_a_range_have_no_activation(model):
    with pytest.raises(InputError, match=r"codes of the .*; type: --model 'Autoencoder\(code=Sigmoid\(\)\)'"):
        Sparse(ActivationKL())(model, random_params(model), X, jax.random.key(0), 0)


@pytest.mark.parametrize("penalty", [L1(), ActivationKL(0.1)], ids=str)
def test_the_loss_is_that_inside_and_the_weighted_penalty(penalty):
    params, key = random_params(SPARSE), jax.random.key(0)
    loss, metrics = jax.jit(
        lambda p: Sparse(penalty, LinearWarmup(10, end=0.5))(SPARSE, p, X, jax.random.clone(key), 4)
    )(params)
    z = SPARSE.encode(params, X).mean()
    np.testing.assert_allclose(loss, metrics["distortion"] + 0.2 * penalty(SPARSE, z), rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"], loss)
    np.testing.assert_allclose(metrics["sparsity_penalty"], penalty(SPARSE, z), rtol=1e-6)
    np.testing.assert_allclose(metrics["share_of_code_used"], (np.abs(z) > 0.01).mean())
    assert Sparse(penalty).validation() == ReconstructionError().validation()
    assert Sparse(penalty, objective=ELBO()).needs_rate


def test_top_k_keeps_the_k_largest_of_each_row_also_of_equal_ones():
    raw = jnp.asarray([[3.0, -1.0, 2.0, 1.0], [1.0, 1.0, 1.0, 1.0], [-4.0, -3.0, -2.0, -1.0]])
    np.testing.assert_array_equal(TopK(2)(raw), [[3, 0, 2, 0], [1, 1, 0, 0], [0, 0, -2, -1]])


def test_what_top_k_leaves_out_is_not_trained():
    gradient = jax.grad(lambda raw: (TopK(2)(raw) * jnp.arange(1.0, 5.0)[None]).sum())(
        jnp.asarray([[3.0, -1.0, 2.0, 1.0]])
    )
    np.testing.assert_array_equal(gradient, [[1, 0, 3, 0]])


def test_an_autoencoder_has_the_code_that_it_was_given():
    model = Autoencoder(4, LINEAR, event_shape=(5,), code=TopK(3))
    params = random_params(model)
    z = model.encode(params, X).mean()
    assert ((np.asarray(z) != 0).sum(axis=1) == 3).all()
    raw = Autoencoder(4, LINEAR, event_shape=(5,)).encode(params, X).mean()
    np.testing.assert_array_equal(SPARSE.encode(params, X).mean(), jax.nn.sigmoid(raw))


def test_more_than_all_is_refused():
    with pytest.raises(InputError, match="TopK k: got 5, expected at most the latent size 4"):
        TopK(5)(jnp.zeros((1, 4)))
    assert Identity()(Z) is Z
