"""What each dimension of a code does: how far it is moved, and how much it reacts to data."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import oracles

from aevae_jax.evaluation import traversal
from aevae_jax.models import VAE, Autoencoder
from aevae_jax.models.architectures import MLP
from aevae_jax.models.priors import FullGaussianMixture

X = np.random.default_rng(0).random((40, 6)).astype(np.float32)


def described(model, change=lambda params: params):
    params = change(oracles.random_params(model))
    return traversal.describe(model, params, X), np.asarray(oracles.encode(model, params, X).mean())


def test_a_standard_normal_prior_tells_its_moments_itself():
    found, means = described(VAE(2, MLP((5,)), event_shape=(6,)))
    np.testing.assert_array_equal(found.loc, [0, 0])
    np.testing.assert_array_equal(found.scale, [1, 1])
    np.testing.assert_allclose(found.activity, means.var(axis=0), rtol=1e-4)


def test_the_moments_of_a_mixture_are_estimated_by_draws():
    """Two equal components at -2 and 4 with scales 0.5 and 1: mean 1, variance (0.25 + 1) / 2 + 9."""
    scales = jnp.array([[0.5, 1.0], [1.0, 1.0]])
    own = {
        "logits": jnp.zeros(2),
        "loc": jnp.array([[-2.0, 0.0], [4.0, 0.0]]),
        "scale_tril": jax.vmap(jnp.diag)(scales),
    }
    model = VAE(2, MLP((5,)), latent_prior=FullGaussianMixture(2), event_shape=(6,))
    found, _ = described(model, lambda params: {**params, "prior": own})
    scale = np.sqrt([0.625 + 9, 1.0])
    error = 5 / np.sqrt(traversal.DRAWS)  # in standard deviations
    np.testing.assert_allclose(found.loc, [1, 0], atol=error * scale.max())
    np.testing.assert_allclose(found.scale, scale, rtol=error)


def test_codes_that_are_points_are_moved_over_their_own_range():
    found, codes = described(Autoencoder(2, MLP((5,)), event_shape=(6,)))
    np.testing.assert_allclose(found.loc, codes.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(found.scale, codes.std(axis=0), rtol=1e-4)


def test_a_dimension_is_moved_in_the_units_of_its_prior():
    found = traversal.Dimensions(np.array([1.0, 2.0, 3.0]), np.array([0.5, 1.0, 2.0]), np.zeros(3))
    codes = traversal.codes([7.0, 8.0, 9.0], np.array([2, 0]), found, np.array([-1.0, 0.0, 3.0]))
    np.testing.assert_array_equal(codes[0], [[7, 8, 1], [7, 8, 3], [7, 8, 9]])
    np.testing.assert_array_equal(codes[1], [[0.5, 8, 9], [1, 8, 9], [2.5, 8, 9]])
