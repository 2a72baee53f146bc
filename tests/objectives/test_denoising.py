"""Losses of models that see corrupted data: what is seen, what is scored, and what selects."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import LOG_2PI, assert_mean, random_params

from aevae_jax import VAE, Autoencoder, evaluation
from aevae_jax.models import architectures, likelihoods
from aevae_jax.objectives import bounds
from aevae_jax.objectives.denoising import Denoising, GaussianNoise, Masking, SaltAndPepper, Seeing
from aevae_jax.objectives.losses import ELBO, IWAE, ReconstructionError
from aevae_jax.types import InputError, RateNeeding

SIZE, LATENT, BATCH = 5, 2, 7
POINTS = Autoencoder(LATENT, architectures.MLP(()), likelihoods.Normal(), event_shape=(SIZE,))
MODEL = VAE(LATENT, architectures.MLP(()), likelihoods.Normal(), event_shape=(SIZE,))
X = jnp.asarray(np.random.default_rng(0).normal(size=(BATCH, SIZE)), jnp.float32)


# --- corruptions ---


def test_gaussian_noise_has_its_scale_and_is_independent():
    x = jnp.full((2000, 3), 2.0)
    noisy = np.asarray(GaussianNoise(0.5)(x, jax.random.key(0)))
    assert_mean(noisy, 2.0)
    assert_mean((noisy - 2) ** 2, 0.25)
    assert_mean((noisy[:, 0] - 2) * (noisy[:, 1] - 2), 0.0)


def test_masking_sets_a_share_of_the_elements():
    masked = np.asarray(Masking(0.3, -1.0)(jnp.ones((2000, 3)), jax.random.key(0)))
    assert set(np.unique(masked)) == {-1.0, 1.0}
    gone = masked == -1.0
    assert_mean(gone, 0.3)
    assert_mean(gone[:, 0] & gone[:, 1], 0.09)


def test_salt_and_pepper_sets_half_of_its_share_each():
    dirty = np.asarray(SaltAndPepper(0.4, -1.0, 2.0)(jnp.zeros((2000, 3)), jax.random.key(0)))
    assert set(np.unique(dirty)) == {-1.0, 0.0, 2.0}
    assert_mean(dirty == -1.0, 0.2)
    assert_mean(dirty == 2.0, 0.2)


@pytest.mark.parametrize("corruption", [GaussianNoise(0.0), Masking(0.0), SaltAndPepper(0.0)], ids=str)
def test_no_corruption_is_none(corruption):
    np.testing.assert_array_equal(corruption(X, jax.random.key(0)), X)


@pytest.mark.parametrize(
    ("make", "fields"),
    [
        (GaussianNoise, {"scale": -1.0}),
        (Masking, {"rate": 1.5}),
        (Masking, {"value": float("nan")}),
        (SaltAndPepper, {"rate": -0.1}),
        (SaltAndPepper, {"low": 1.0}),
    ],
)
def test_impossible_corruptions_are_one_line(make, fields):
    with pytest.raises(InputError, match=make.__name__):
        make(**fields)


# --- the loss ---


def test_the_clean_example_is_scored_at_the_code_of_the_corrupted_one():
    """Of inputs that are masked whole, each code is that of 0; the error is that of the example itself."""
    params = random_params(POINTS)
    loss, metrics = jax.jit(partial(Denoising(Masking(1.0)), POINTS))(params, X, jax.random.key(0), 0)
    encoder, decoder = (jax.tree.map(np.asarray, params[part]["out"]) for part in ("encoder", "decoder"))
    out = encoder["bias"] @ decoder["kernel"] + decoder["bias"]
    squares = ((out[None] - np.asarray(X, np.float64)) ** 2).sum(axis=1)
    np.testing.assert_allclose(loss, (squares / 2 + SIZE / 2 * LOG_2PI).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["mse"], squares.mean() / SIZE, rtol=1e-5)


@pytest.mark.parametrize("inner", [ReconstructionError(), ELBO(beta=2.0), IWAE(3), IWAE(3, True)], ids=str)
def test_without_corruption_it_is_the_loss_inside(inner):
    params, key = random_params(MODEL), jax.random.key(3)
    loss, metrics = jax.jit(partial(Denoising(Masking(0.0), inner), MODEL))(params, X, jax.random.clone(key), 0)
    expected, terms = jax.jit(partial(inner, MODEL))(params, X, jax.random.split(key)[1], 0)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert metrics.keys() == terms.keys()


def test_the_rate_is_that_of_what_is_seen():
    params = random_params(MODEL)
    _, metrics = jax.jit(partial(Denoising(Masking(1.0), ELBO()), MODEL))(params, X, jax.random.key(0), 0)
    unseen = jax.jit(lambda p: bounds.elbo(MODEL, p, jnp.zeros_like(X), jax.random.key(1)).rate)(params)
    np.testing.assert_allclose(metrics["rate"], unseen[0], rtol=1e-6)


def test_noise_is_another_at_each_key():
    params = random_params(POINTS)
    loss = jax.jit(lambda key: Denoising()(POINTS, params, X, key, 0)[0])
    assert loss(jax.random.key(0)) != loss(jax.random.key(1))


def test_what_the_loss_inside_offers_is_offered():
    assert isinstance(Denoising(), RateNeeding)
    assert not Denoising().needs_rate
    assert Denoising(objective=IWAE()).needs_rate


# --- validation ---


def test_validation_has_the_clean_and_the_corrupted_pair_by_names_of_their_own():
    params, objective = random_params(MODEL), Denoising(Masking(1.0), ELBO())
    metric, minimised = objective.validation()
    found = evaluation.per_example(metric, MODEL, params, X, jax.random.key(0))
    names = {"distortion", "rate", "negative_elbo", "mse_at_mean"}
    assert found.keys() == names | {f"{name}_from_corrupted" for name in names}
    assert np.ptp(found["rate_from_corrupted"]) < 1e-5 < np.ptp(found["rate"])
    clean = jax.jit(lambda p: bounds.elbo(MODEL, p, X, jax.random.key(1)).rate)(params)
    np.testing.assert_allclose(found["rate"], clean, rtol=1e-5)
    assert minimised == ("negative_elbo_from_corrupted", "profile_loss_from_corrupted")
    assert Denoising().validation().minimised[0] == "distortion_from_corrupted"
    assert "mse_at_mean_from_corrupted" in evaluation.UNITS


def test_a_model_that_sees_has_all_else_of_the_model():
    params, key = random_params(MODEL), jax.random.key(0)
    seeing = Seeing(MODEL, X)
    assert jax.tree.structure(seeing.init(key)) == jax.tree.structure(params)
    np.testing.assert_array_equal(seeing.encode(params, 2 * X).mean(), MODEL.encode(params, X).mean())
    z = jnp.ones((3, LATENT))
    np.testing.assert_array_equal(seeing.decode(params, z).mean(), MODEL.decode(params, z).mean())
    np.testing.assert_array_equal(seeing.prior(params, 3).mean(), MODEL.prior(params, 3).mean())
