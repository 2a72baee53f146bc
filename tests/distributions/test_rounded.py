"""Codes with noise and the density that they are coded by: against SciPy, quadrature and counts of integers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import assert_distribution, assert_mean, log_prob, mean, sample
from scipy import integrate, special, stats

from aevae_jax.distributions import rounded
from aevae_jax.objectives import bounds

LOGITS, LOC, LOG_SCALE = ([0.3, -0.2, 1.0], [-1.7, 0.4, 2.6], [-0.5, 0.3, -2.0])


def mixture(count: int) -> rounded.SmoothedLogisticMixture:
    """One mixture of three logistics, as a batch of `count` with one element each."""
    return rounded.SmoothedLogisticMixture(
        *(jnp.tile(jnp.asarray(a, jnp.float32), (count, 1, 1)) for a in (LOGITS, LOC, LOG_SCALE))
    )


def mass(value: np.ndarray) -> np.ndarray:
    """Of the unsmoothed mixture within half a unit of `value`, by SciPy in float64."""
    weights, scales = special.softmax(LOGITS), np.exp(LOG_SCALE)
    parts = [
        w * (stats.logistic.cdf(value + 0.5, m, s) - stats.logistic.cdf(value - 0.5, m, s))
        for w, m, s in zip(weights, LOC, scales, strict=True)
    ]
    return np.sum(parts, axis=0)


def test_the_density_is_the_mass_of_the_bin_around_a_code():
    value = np.linspace(-8, 9, 103, dtype=np.float32)
    found = log_prob(mixture(103), jnp.asarray(value)[:, None])
    np.testing.assert_allclose(np.exp(found), mass(value.astype(np.float64)), rtol=2e-5)


def test_it_is_a_density_of_codes_with_noise_and_a_mass_of_integers():
    integers = np.arange(-60, 61, dtype=np.float32)
    at = np.exp(np.asarray(log_prob(mixture(121), jnp.asarray(integers)[:, None]), np.float64))
    assert at.sum() == pytest.approx(1, abs=1e-6)
    fine = np.linspace(-60, 60, 12_001, dtype=np.float32)
    density = np.exp(np.asarray(log_prob(mixture(12_001), jnp.asarray(fine)[:, None]), np.float64))
    assert integrate.simpson(density, x=fine) == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_samples_follow_the_density_and_its_mean():
    draws = np.asarray(sample(mixture(20_000), jax.random.key(0)), np.float64)
    assert_mean(draws, mean(mixture(1))[0])

    def cdf(x: np.ndarray) -> np.ndarray:
        """The smoothed mixture's: the mean of the logistic's over the noise."""
        noise = (np.arange(400) + 0.5) / 400 - 0.5
        weights, scales = special.softmax(LOGITS), np.exp(LOG_SCALE)
        return sum(
            w * stats.logistic.cdf(x[:, None] - noise, m, s).mean(axis=1)
            for w, m, s in zip(weights, LOC, scales, strict=True)
        )

    assert_distribution(draws[:, 0], cdf)


@pytest.mark.parametrize("log_scale", [-5.0, 0.0, 8.0])
@pytest.mark.parametrize("distance", [0.0, 0.5, 30.0, 1e4])
def test_rates_and_their_gradients_are_finite_however_far_a_code_lies(log_scale, distance):  # mistake 10
    def rate(loc, log_scale):
        q = rounded.SmoothedLogisticMixture(*(jnp.reshape(a, (1, 1, 1)) for a in (0.0 * loc, loc, log_scale)))
        return -q.log_prob(jnp.asarray([[distance]]))[0]

    value, gradient = jax.jit(jax.value_and_grad(rate, argnums=(0, 1)))(jnp.float32(0), jnp.float32(log_scale))
    assert np.isfinite([value, *gradient]).all()
    assert value >= 0


def test_noise_is_as_wide_as_the_error_of_rounding_and_costs_nothing_itself():
    loc = np.random.default_rng(0).normal(scale=300, size=(4_000, 3)).astype(np.float32)
    q = rounded.Uniform(jnp.asarray(loc))
    z = sample(q, jax.random.key(0))
    noise = np.asarray(z, np.float64) - loc
    assert np.abs(noise).max() <= 0.501
    assert_mean(noise, 0.0)
    assert_mean(noise**2, 1 / 12)
    assert (log_prob(q, z) == 0).all()
    assert np.isneginf(log_prob(q, z + jnp.asarray([0.0, 1.1, 0.0])[None])).all()
    np.testing.assert_array_equal(mean(q), loc)


def test_the_rate_is_the_length_of_the_code():
    """Under noise it comes, on average, to the entropy of rounded codes, where these have the prior's distribution."""
    p = mixture(20_000)
    weights, scales = special.softmax(LOGITS), np.exp(LOG_SCALE)
    generator = np.random.default_rng(0)
    which = generator.choice(3, 20_000, p=weights)
    code = generator.logistic(np.asarray(LOC)[which], scales[which]).astype(np.float32)[:, None]
    q = rounded.Uniform(jnp.asarray(code))
    rate = jax.jit(bounds.rate)(q, p, sample(q, jax.random.key(1)))
    density = -mass(np.linspace(-40, 40, 40_001))
    entropy = integrate.simpson(density * np.log(np.maximum(-density, 1e-300)), x=np.linspace(-40, 40, 40_001))
    assert_mean(np.asarray(rate), entropy)
    lengths = -np.asarray(log_prob(p, jnp.round(jnp.asarray(code))))
    integers = mass(np.arange(-40, 41))
    assert_mean(lengths, stats.entropy(integers))
