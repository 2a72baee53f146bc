"""Guidance: the normalised p(x|z, c)^(1 + w) / p(x|z)^w, by log densities at several x."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from aevae_jax.models import VAE, ConditionalAutoencoder, ConditionalVAE, generation, likelihoods
from aevae_jax.models.architectures import MLP
from aevae_jax.models.generation import Guided
from aevae_jax.types import InputError

LABEL, COUNT = np.array([2, 0, 1], np.int32), 3
NATURAL = {
    "Normal": likelihoods.Normal(0.5),
    "NormalSharedScale": likelihoods.NormalSharedScale(),
    "Bernoulli": likelihoods.Bernoulli(),
    "ContinuousBernoulli": likelihoods.ContinuousBernoulli(),
    "Categorical": likelihoods.Categorical(4),
}


def made(likelihood, cls=ConditionalVAE, drop=0.1):
    model = cls(2, MLP((4,)), likelihood, classes=3, drop=drop, event_shape=(5,))
    return model, oracles.random_params(model)


def log_probs(p, levels):
    """log p(x|z) at ten x of numbers that every likelihood here scores, `[10, B]`."""
    x = np.random.default_rng(1).integers(0, levels, (10, COUNT, 5)) / (levels - 1)
    return np.asarray(jax.jit(jax.vmap(lambda p, each: p.log_prob(each), (None, 0)))(p, x.astype(np.float32)), float)


@pytest.mark.parametrize("name", NATURAL)
def test_it_is_the_density_with_the_condition_led_away_from_that_without(name):
    """Up to its constant: log p_guided(x) - (1 + w) log p(x|z, c) + w log p(x|z) is the same at every x."""
    model, params = made(NATURAL[name])
    z, weight, levels = jnp.ones((COUNT, 2)), 1.5, 4 if name == "Categorical" else 2
    guided, at, without = (
        log_probs(jax.jit(own.decode)(params, z), levels)
        for own in (Guided(model, weight).given(LABEL), model.given(LABEL), model)
    )
    constant = guided - (1 + weight) * at + weight * without
    np.testing.assert_allclose(constant, np.broadcast_to(constant[:1], constant.shape), rtol=1e-4, atol=1e-4)
    assert np.abs(at - guided - (at - guided)[:1]).max() > 1e-2


def test_without_weight_it_is_the_model_and_with_minus_one_that_without_a_condition():
    for cls in (ConditionalVAE, ConditionalAutoencoder):
        model, params = made(likelihoods.Normal(), cls)
        z = jnp.ones((COUNT, 2))
        found = Guided(model, 0.0).given(LABEL).decode(params, z).mean()
        np.testing.assert_array_equal(found, model.given(LABEL).decode(params, z).mean())
        found = Guided(model, -1.0).given(LABEL).decode(params, z).mean()
        np.testing.assert_allclose(found, model.decode(params, z).mean(), rtol=1e-5, atol=1e-6)
        draws = [
            generation.codes(own.given(LABEL), params, jax.random.key(0), COUNT) for own in (Guided(model, 2.0), model)
        ]
        np.testing.assert_array_equal(*draws)


BAD = [
    (lambda: Guided(made(likelihoods.Normal(), drop=0.0)[0], 1.0), "guidance: got a ConditionalVAE, which was not"),
    (lambda: Guided(VAE(), 1.0), "guidance: got a VAE, which was not, expected a model that was trained without"),
    (
        lambda: Guided(made(likelihoods.NormalElementScale())[0], 1.0),
        "got NormalElementScale, whose outputs are no nat",
    ),
    (lambda: Guided(made(likelihoods.DiscretizedLogistic())[0], 1.0), "got DiscretizedLogistic, whose outputs are no"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[message[:30] for _, message in BAD])
def test_models_and_likelihoods_that_it_has_no_meaning_for_are_refused_in_a_line(make, message):
    with pytest.raises(InputError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
    assert len(str(error.value)) <= 200
