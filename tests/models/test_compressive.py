"""The compressive autoencoder: its rate, what each level is coded by, and that it trains and resumes."""

from __future__ import annotations

import dataclasses
import json
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import encode, random_params
from scipy import stats

from aevae_jax import ELBO, CompressiveAutoencoder, Data, Run, fit, load_run, values
from aevae_jax.checkpoints import signals
from aevae_jax.distributions import rounded
from aevae_jax.models import Model, architectures, likelihoods
from aevae_jax.objectives import bounds
from aevae_jax.training.optimizers import AdamW
from aevae_jax.types import InputError

pytestmark = pytest.mark.usefixtures("no_pictures")

EVENT, BATCH = (4, 4, 1), 5
X = jnp.asarray(np.random.default_rng(0).uniform(size=(BATCH, *EVENT)), jnp.float32)
MLP, MIXER = architectures.MLP((6,)), architectures.Mixer(2, 3, 1)
LINEAR = architectures.MLP(())
FLAT = CompressiveAutoencoder(12, MLP, step=0.1, event_shape=EVENT)
DEEP = dataclasses.replace(FLAT, network=MIXER, levels=(4, 4))


@partial(jax.jit, static_argnums=0)
def rates(model, params, z):
    return -model.prior(params, z.shape[0]).log_prob(z)


def codes(model, seed: int = 0) -> jnp.ndarray:
    return jnp.round(jnp.asarray(np.random.default_rng(seed).normal(scale=5, size=(BATCH, model.latent)), jnp.float32))


@pytest.mark.parametrize("model", [FLAT, DEEP], ids=["one level", "three levels"])
def test_the_rate_is_the_length_of_the_code_with_noise(model):
    """Nothing of q remains in it: the negative ELBO is distortion - log p(z), z within half a unit of the code."""
    params = random_params(model)
    bound = jax.jit(partial(bounds.elbo, model))(params, X, jax.random.key(0))
    q = encode(model, params, X)
    assert isinstance(q, rounded.Uniform)
    z = jax.jit(lambda q, key: q.sample(key))(q, jax.random.key(0))
    assert (np.abs(z - q.mean()) <= 0.5001).all()
    np.testing.assert_allclose(bound.rate, rates(model, params, z), rtol=1e-5)


def test_codes_are_outputs_in_units_of_the_step_and_a_finer_step_costs_its_logarithm():
    """At a given picture halving the step doubles codes, and each costs a bit more: where bins are small."""
    params = random_params(FLAT)
    first = params["prior"]["first"]
    params = {**params, "prior": {"first": {**first, "log_scale": 0 * first["log_scale"] + 0.5}}}
    fine, finer = (dataclasses.replace(FLAT, step=step) for step in (0.1, 0.05))
    q, doubled = (encode(model, params, X).mean() for model in (fine, finer))
    np.testing.assert_allclose(2 * q, doubled, rtol=1e-5)
    more = rates(finer, params, doubled) - rates(fine, params, q)
    np.testing.assert_allclose(more, FLAT.latent * np.log(2), rtol=0.02)
    one, other = (jax.jit(m.decode)(params, z).mean() for m, z in ((fine, q), (finer, doubled)))
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_codes_of_the_first_level_are_coded_each_on_its_own():
    """By a mixture of logistics smoothed by noise, against SciPy."""
    params, z = random_params(FLAT), codes(FLAT)
    own = {name: np.asarray(a, np.float64) for name, a in params["prior"]["first"].items()}
    weights = np.exp(own["logits"]) / np.exp(own["logits"]).sum(axis=-1, keepdims=True)
    raw = own["log_scale"] - np.log(0.1) - 1
    u = (raw - 1.5) / 6.5
    scale = np.exp(1.5 + 6.5 * u / np.sqrt(1 + u**2))
    cdf = partial(stats.logistic.cdf, loc=own["loc"] / 0.1, scale=scale)
    value = np.asarray(z, np.float64)[..., None]
    expected = -np.log(((cdf(value + 0.5) - cdf(value - 0.5)) * weights).sum(axis=-1)).sum(axis=-1)
    np.testing.assert_allclose(rates(FLAT, params, z), expected, rtol=1e-4)


@pytest.mark.parametrize("network", [MLP, MIXER], ids=["MLP", "Mixer"])
def test_a_level_depends_on_those_before_it_and_on_no_later_one(network):
    """Codes stand with the last level first: `[third, second, first]`."""
    model = dataclasses.replace(DEEP, network=network)
    params, z = random_params(model), codes(model)

    @jax.jit
    def parameters(z):
        second = model.level_given(params["prior"]["level_1"], z[:, 8:])
        third = model.level_given(params["prior"]["level_2"], z[:, 4:])
        return second, third

    second, third = parameters(z)
    assert second.loc.shape == third.loc.shape == (BATCH, 4, 1)
    changed = parameters(z.at[:, 4:8].add(3.0))
    chex.assert_trees_all_equal(changed[0], second)
    assert (changed[1].loc != third.loc).any()
    assert (parameters(z.at[:, 8:].add(3.0))[1].log_scale != third.log_scale).any()
    first = {name: jnp.broadcast_to(a[None], (BATCH, *a.shape)) for name, a in params["prior"]["first"].items()}
    whole = rates(model, params, z)
    alone = rates(dataclasses.replace(model, latent=4, levels=()), params, z[:, 8:])
    parts = alone - second.log_prob(z[:, 4:8]) - third.log_prob(z[:, :4])
    np.testing.assert_allclose(whole, parts, rtol=1e-5)
    assert first["loc"].shape == (BATCH, 4, 3)


def test_a_step_changes_what_codes_say_of_others_by_nothing():
    """In units of the encoder's outputs a level is predicted alike, however fine the codes are."""
    fine, params = dataclasses.replace(DEEP, step=DEEP.step / 2), random_params(DEEP)
    above = codes(DEEP)[:, :4]
    own = params["prior"]["level_1"]
    one, other = (jax.jit(m.level_given)(own, z) for m, z in ((DEEP, above), (fine, 2 * above)))
    np.testing.assert_allclose(2 * one.loc, other.loc, rtol=1e-4, atol=1e-4)


def test_draws_from_the_prior_have_all_levels():
    params = random_params(DEEP)
    z = jax.jit(lambda key: DEEP.prior(params, 3).sample(key))(jax.random.key(0))
    assert z.shape == (3, DEEP.latent)
    assert np.isfinite(z).all()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Where runs of a large and of a small scale are, and what they came to."""
    folder, model = tmp_path_factory.mktemp("runs"), CompressiveAutoencoder(16, LINEAR, levels=(4,), step=0.2)
    fitted = {}
    for scale in (0.5, 0.05):
        trained = dataclasses.replace(model, likelihood=likelihoods.Normal(scale))
        run = Run(Data("digits"), trained, ELBO(), AdamW(1e-2), epochs=6, batch_size=32)
        fitted[scale] = fit(run, directory=folder / f"{scale}")
    return folder, fitted


@pytest.mark.slow
def test_a_smaller_scale_spends_more_bits_on_a_better_picture_and_the_run_reloads(found):
    """The trade is the likelihood's; what was trained is given back by its record."""
    folder, fitted = found
    rate, error = zip(
        *((f.results["validation"]["rate"], f.results["validation"]["mse_at_mean"]) for f in fitted.values()),
        strict=True,
    )
    assert rate[1] > 2 * rate[0]
    assert error[1] < error[0] / 2
    again = load_run(folder / "0.05")
    assert again.run == fitted[0.05].run
    chex.assert_trees_all_equal(again.params, fitted[0.05].params)


@pytest.mark.slow
def test_a_stopped_training_goes_on_with_the_same_bits(found, tmp_path):
    whole = found[1][0.05]

    def stop(record, *_):
        signals_sent.append(record)
        raise signals.Interrupted("test")

    signals_sent: list = []
    run = dataclasses.replace(whole.run, model=dataclasses.replace(whole.run.model, event_shape=()))
    with pytest.raises(signals.Interrupted):
        fit(run, directory=tmp_path / "run", on_epoch=stop)
    chex.assert_trees_all_equal(fit(run, directory=tmp_path / "run").params, whole.params)


def test_it_goes_to_json_and_back():
    model = dataclasses.replace(DEEP, likelihood=likelihoods.Normal(0.02))
    assert values.from_tree(Model, json.loads(values.to_json(model)), "here") == model
    assert model.sizes == (4, 4, 4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"levels": (8, 4)},
            r"^levels \(CompressiveAutoencoder\): got \(8, 4\), 12 codes, expected fewer than latent=12",
        ),
        ({"levels": (0,)}, r"^levels \(CompressiveAutoencoder\): got 0, expected at least 1"),
        ({"step": 0.0}, r"^step \(CompressiveAutoencoder\): got 0\.0"),
        ({"step": float("nan")}, r"^step \(CompressiveAutoencoder\): got nan"),
        ({"components": 0}, r"^components \(CompressiveAutoencoder\): got 0, expected at least 1"),
        ({"latent": 0}, r"^latent size \(CompressiveAutoencoder\): got 0"),
    ],
)
def test_what_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(FLAT, **fields)
