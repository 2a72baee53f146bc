"""Discriminators: who is trained by which term, what is permuted, and that a logit is a density ratio."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from oracles import AsMaps, random_params

from aevae_jax import VAE, Autoencoder, distributions
from aevae_jax.models import ConditionalVAE, architectures, likelihoods, priors
from aevae_jax.objectives import adversarial, bounds
from aevae_jax.objectives.adversarial import AAE, Discriminator, FactorVAE
from aevae_jax.objectives.losses import ELBO, ReconstructionError
from aevae_jax.training import parameters
from aevae_jax.types import InputError, Parametrised

SIZE, LATENT = 5, 3
SMALL = Discriminator((8,))
NETWORKS = {"network": architectures.MLP(()), "likelihood": likelihoods.Normal(), "event_shape": (SIZE,)}
MODELS = {
    "FactorVAE": VAE(LATENT, latent_prior=priors.StandardNormal(), **NETWORKS),
    "AAE of a VAE": VAE(LATENT, latent_prior=priors.StandardNormal(), **NETWORKS),
    "AAE": Autoencoder(LATENT, **NETWORKS),
}
X = jnp.asarray(np.random.default_rng(0).normal(size=(7, SIZE)), jnp.float32)


def objective_of(name, weight):
    return FactorVAE(weight, SMALL) if name == "FactorVAE" else AAE(weight, SMALL)


@pytest.mark.parametrize("name", MODELS)
def test_each_term_trains_its_own(name):  # mistake 22
    """The discriminator's term has no gradient on the model, and the model's term none on the discriminator."""
    model, plain = MODELS[name], ELBO() if name == "FactorVAE" else ReconstructionError()
    assert isinstance(objective_of(name, 1.0), Parametrised)

    @jax.jit
    def run(params):
        own = objective_of(name, 1.0).init(jax.random.key(1), model)
        params = {**params, "objective": own}

        def gradient(weight):
            return jax.grad(lambda p: objective_of(name, weight)(model, p, X, jax.random.key(0), 0)[0])(params)

        def alone(params):
            key = jax.random.split(jax.random.key(0), 3 if name == "FactorVAE" else 2)[0]
            return plain(model, params, X, key, 0)[0]

        return gradient(0.0), gradient(5.0), jax.grad(alone)(params)

    without, weighed, alone = run(random_params(model))
    close = jax.tree.map(lambda a, b: np.allclose(a, b, rtol=1e-5, atol=1e-6), without, alone)
    assert all(jax.tree.leaves({part: close[part] for part in ("encoder", "decoder")}))
    assert all(np.abs(leaf).max() > 1e-6 for leaf in jax.tree.leaves(without["objective"]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), without["objective"], weighed["objective"])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), without["decoder"], weighed["decoder"]
    )
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), without["encoder"], weighed["encoder"])
    assert max(jax.tree.leaves(moved)) > 1e-4


@pytest.mark.parametrize("name", MODELS)
def test_the_loss_is_the_sum_of_its_terms(name):  # mistake 3
    model = MODELS[name]

    @jax.jit
    def run(params):
        params = {**params, "objective": objective_of(name, 1.0).init(jax.random.key(1), model)}

        def loss(weight):
            return objective_of(name, weight)(model, params, X, jax.random.key(0), 0)

        return loss(5.0)[1], jax.grad(lambda weight: loss(weight)[0])(5.0)

    found, slope = run(random_params(model))
    term = found["total_correlation" if name == "FactorVAE" else "matching_loss"]
    np.testing.assert_allclose(slope, term, rtol=1e-5)
    rate = found["rate"] if name == "FactorVAE" else 0.0
    expected = found["distortion"] + rate + 5 * term + found["discriminator_loss"]
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-5)


@pytest.mark.slow
def test_codes_that_are_permuted_are_drawn_anew(monkeypatch):
    """Of the same draw, some dimensions of a code would stand beside each other in both."""
    model, given = MODELS["FactorVAE"], []
    monkeypatch.setattr(adversarial, "permuted", lambda key, z: given.append(z) or z)
    params = {**random_params(model), "objective": SMALL.init(jax.random.key(1), LATENT)}
    FactorVAE(discriminator=SMALL)(model, params, X, jax.random.key(0), 0)
    own = bounds.elbo(model, params, X, jax.random.split(jax.random.key(0), 3)[0])
    noise = (given[0] - own.posterior.mean()) / own.posterior.scale
    assert np.abs(noise).max() < 5
    assert np.abs(given[0] - own.z).min() > 1e-5


def test_each_dimension_is_permuted_by_itself():
    z = jnp.asarray(np.random.default_rng(0).normal(size=(200, 3)), jnp.float32)
    mixed = jax.jit(adversarial.permuted)(jax.random.key(0), z)
    np.testing.assert_array_equal(np.sort(mixed, axis=0), np.sort(z, axis=0))
    places = [np.argsort(np.argsort(np.asarray(a), axis=0), axis=0) for a in (z, mixed)]
    came_from = [np.argsort(places[0][:, d])[places[1][:, d]] for d in range(3)]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (came_from[one] == came_from[other]).mean() < 0.05
    assert all((of_one == np.arange(200)).mean() < 0.05 for of_one in came_from)


def test_nothing_to_tell_costs_log_two():
    """And codes that lie apart cost nothing, once they are told apart."""
    z = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2)), jnp.float32)
    params = SMALL.init(jax.random.key(0), 2)
    flat = jax.tree.map(jnp.zeros_like, params)
    np.testing.assert_allclose(adversarial.told_apart(SMALL, flat, z, z), np.log(2), rtol=1e-6)
    steep = {"layer_0": {"kernel": jnp.full((2, 1), 50.0), "bias": jnp.zeros(1)}}
    linear = Discriminator(())
    assert adversarial.told_apart(linear, steep, jnp.abs(z) + 1, -jnp.abs(z) - 1) < 1e-6
    np.testing.assert_allclose(adversarial.told_apart(linear, steep, jnp.ones((1, 2)), jnp.ones((1, 2))), 50, rtol=1e-3)


RHO = 0.8


@dataclass(frozen=True)
class Correlated:
    """A model whose codes, over its data, are a normal of correlation `RHO`, whatever is learned."""

    def init(self, key):
        return {}

    def encode(self, params, x):
        mixed = jnp.stack([x[:, 0], RHO * x[:, 0] + (1 - RHO**2) ** 0.5 * x[:, 1]], axis=1)
        return distributions.Normal(mixed, jnp.full_like(mixed, -7.0))

    def decode(self, params, z):
        return distributions.Normal(z, jnp.zeros_like(z))

    def prior(self, params, n):
        return distributions.Normal(jnp.zeros((n, 2)), jnp.zeros((n, 2)))


@pytest.mark.slow
def test_the_density_ratio_is_the_total_correlation_of_a_correlated_gaussian():
    """-1/2 ln(1 - rho^2) nats, within five standard errors of its mean over 20,000 codes and what training leaves."""
    objective = FactorVAE(discriminator=Discriminator((32, 32), learning_rate=3e-3))
    tx, model = objective.optimizer(), Correlated()

    @jax.jit
    def run(key):
        key_init, key_train, key_test = jax.random.split(key, 3)
        own = objective.init(key_init, model)

        def step(state, key):
            own, opt_state = state
            key_x, key_z = jax.random.split(key)
            x = jax.random.normal(key_x, (256, 2))
            gradient = jax.grad(lambda own: objective(model, {"objective": own}, x, key_z, 0)[0])(own)
            updates, opt_state = tx.update(gradient, opt_state)
            return (optax.apply_updates(own, updates), opt_state), None

        (own, _), _ = jax.lax.scan(step, (own, tx.init(own)), jax.random.split(key_train, 1000))
        key_x, key_z = jax.random.split(key_test)
        x = jax.random.normal(key_x, (20_000, 2))
        mean = objective(model, {"objective": own}, x, key_z, 0)[1]["total_correlation"]
        return mean, objective.discriminator(own, model.encode({}, x).mean())

    mean, logits = map(np.asarray, run(jax.random.key(0)))
    np.testing.assert_allclose(mean, logits.mean(), atol=1e-3)
    expected = -0.5 * np.log(1 - RHO**2)
    assert abs(mean - expected) < 5 * logits.std() / 20_000**0.5 + 0.05
    assert expected > 0.5


def test_a_discriminator_is_of_all_elements_of_a_map_of_codes():
    """And it is sized by the model, without computing anything of it."""
    flat = VAE(4, latent_prior=priors.StandardNormal(), **NETWORKS)
    maps, objective = AsMaps(flat, (2, 2, 1)), FactorVAE(5.0, SMALL)
    own, other = (objective.init(jax.random.key(1), model) for model in (flat, maps))
    assert own["layer_0"]["kernel"].shape == (4, 8)
    params = random_params(flat)
    losses = [
        jax.jit(lambda model=model, own=own: objective(model, {**params, "objective": own}, X, jax.random.key(0), 0))()
        for model, own in ((flat, own), (maps, other))
    ]
    np.testing.assert_allclose(losses[0][0], losses[1][0], rtol=1e-5)


@pytest.mark.parametrize("name", ["FactorVAE", "AAE"])
def test_a_discriminator_of_a_batch_of_one_is_one_line(name):
    with pytest.raises(InputError) as error:
        jax.eval_shape(lambda: objective_of(name, 1.0)(MODELS[name], {}, X[:1], jax.random.key(0), 0))
    assert str(error.value).startswith("batch size: got 1, expected at least 2")
    with pytest.raises(InputError, match=f"{name} (total_correlation|weight): got -1"):
        objective_of(name, -1.0)
    with pytest.raises(InputError, match="Discriminator hidden: got 0"):
        Discriminator((0,))
    with pytest.raises(InputError, match="Discriminator learning_rate: got 0"):
        Discriminator(learning_rate=0.0)


@pytest.mark.slow
def test_a_discriminator_is_of_the_codes_of_a_model_with_a_prior_for_each_condition():
    """Its size does not depend on which condition; and it is trained at those of the batch."""
    label = np.array([0, 2, 1, 0])
    model = ConditionalVAE(LATENT, classes=3, learned_prior=True, **NETWORKS)
    for name in ("FactorVAE", "AAE"):
        objective = objective_of(name, 1.0)
        params = parameters.with_own(random_params(model), objective, model, jax.random.key(0))
        assert params["objective"]["layer_0"]["kernel"].shape == (LATENT, 8)
        losses = [
            jax.jit(objective, static_argnums=0)(model.given(each), params, X[:4], jax.random.key(1), 0)[0]
            for each in (label, label[::-1])
        ]
        assert np.isfinite(losses[0])
        assert abs(losses[0] - losses[1]) > 1e-4


def test_selection_is_by_the_plain_bound_whatever_the_weight():  # mistake 2, mistake 35
    """An adversarial autoencoder has no rate in its loss, and so no bound that it would lower."""
    assert FactorVAE(3.0).validation() == ELBO().validation()
    assert FactorVAE.needs_rate
    assert AAE(3.0).validation() == ReconstructionError().validation()
