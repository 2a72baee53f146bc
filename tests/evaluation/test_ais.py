"""Annealed importance sampling: unbiased forward and backward, and the truth in between."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np
import oracles
import pytest

from aevae_jax import keys
from aevae_jax.evaluation import ais
from aevae_jax.models import likelihoods
from aevae_jax.models.architectures import MLP
from aevae_jax.models.priors import VampPrior
from aevae_jax.models.vae import VAE, Autoencoder
from aevae_jax.types import InputError

GAUSSIAN = oracles.linear_gaussian()
MODEL = VAE(latent=2, network=MLP(()), likelihood=likelihoods.Normal(GAUSSIAN.scale), event_shape=(5,))
PARAMS = GAUSSIAN.params(*GAUSSIAN.posterior_map(), MODEL.log_scale_range)
AE = Autoencoder(2, MLP(()), event_shape=(5,))
SCHEDULE = ais.Schedule(ais.sigmoid_betas(8), np.full(8, 0.4), 3, 0.7)


def simulated(count, seed=0):
    key_z, key_x = jax.random.split(jax.random.key(seed))
    return ais._simulate(MODEL, PARAMS, key_z, key_x, count)


@pytest.mark.slow
def test_the_truth_lies_between_the_bounds_and_they_close():
    gaps = []
    for num_temperatures in (4, 40):
        found = ais.bracket(
            MODEL, PARAMS, jax.random.key(1), num=100, num_temperatures=num_temperatures, leapfrogs=3, num_chains=4
        )
        exact = GAUSSIAN.log_evidence(found.x)
        lower, upper = found.lower.log_likelihood, found.upper.log_likelihood
        for outside in (lower - exact, exact - upper):  # on average below 0: within 4 standard errors
            assert outside.mean() < 4 * outside.std(ddof=1) / np.sqrt(len(outside))
        gaps.append(upper.mean() - lower.mean())
    assert 0 < gaps[1] < 0.2 * gaps[0]
    assert lower.mean() == pytest.approx(exact.mean(), rel=0.01)


@pytest.mark.parametrize("sign", [1, -1])
def test_weights_are_unbiased_with_few_temperatures(sign):
    """The mean of w over many chains is p(x); backward from exact posterior draws that of 1/w is 1/p(x).

    Each of 4,000 copies of one x has its own posterior draw, from the closed form.
    """
    x = np.asarray(simulated(1)[1])
    copies = np.repeat(x, 4000, axis=0)
    exact = GAUSSIAN.log_evidence(x)[0]
    if sign > 0:
        found = ais.lower_bound(MODEL, PARAMS, copies, jax.random.key(2), SCHEDULE, num_chains=1)
    else:
        a, s = GAUSSIAN.posterior_map()
        z = (x - GAUSSIAN.bias) @ a.T + s * np.random.default_rng(0).normal(size=(4000, 2))
        found = ais.upper_bound(
            MODEL, PARAMS, copies, jax.random.key(2), SCHEDULE, z=z.astype(np.float32), num_chains=1
        )
    oracles.assert_mean(np.exp(sign * (found.log_likelihood - exact)), 1.0)
    assert 0.2 < found.acceptance < 1


def test_moves_leave_the_posterior_as_it_is():
    """From exact posterior draws, a chain that stays at b = 1 gives posterior draws again."""
    x = np.asarray(simulated(1)[1])
    a, s = GAUSSIAN.posterior_map()
    mean = (x[0] - GAUSSIAN.bias) @ a.T
    z = mean + s * np.random.default_rng(1).normal(size=(3000, 1, 2))
    body = ais._body(MODEL, 3, 1, 0.0)
    state = ais._State(jax.numpy.asarray(z, "float32"), jax.numpy.zeros((3000, 1)), jax.numpy.zeros(()))
    context = (
        PARAMS,
        MODEL.prior(PARAMS, 1),
        jax.numpy.repeat(x, 3000, axis=0),
        keys.each(jax.random.key(3), jax.numpy.arange(3000)),
    )
    for index in range(3):
        state, (_, acceptance) = jax.jit(body)(state, context, ais._Move(index, 0.0, 1.0, 0.8))
    assert 0.3 < float(acceptance) < 0.99
    drawn = np.asarray(state.z[:, 0], np.float64)
    oracles.assert_mean(drawn, mean)
    oracles.assert_mean((drawn - mean) ** 2, s**2)


def test_tuning_reaches_the_acceptance_that_was_asked_for():
    schedule = ais.tune(MODEL, PARAMS, simulated(30)[1], jax.random.key(0), num_temperatures=100, leapfrogs=3)
    assert schedule.acceptance == pytest.approx(0.65, abs=0.1)
    assert schedule.betas[0] == 0
    assert schedule.betas[-1] == 1
    assert (np.diff(schedule.betas) > 0).all()
    assert (schedule.step_sizes > 0).all()


class InParts:
    """The same model with z as a pytree."""

    def encode(self, params, x):  # only its mean and type are looked at
        return _Parts(MODEL.encode(params, x))

    def decode(self, params, z):
        return MODEL.decode(params, jax.numpy.concatenate([z["a"], z["b"]], axis=1))

    def prior(self, params, n):
        return _Parts(MODEL.prior(params, n))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Parts:
    whole: object

    def _split(self, z):
        return {"a": z[:, :1], "b": z[:, 1:]}

    def sample(self, key):
        return self._split(self.whole.sample(key))

    def mean(self):
        return self._split(self.whole.mean())

    def log_prob(self, z):
        return self.whole.log_prob(jax.numpy.concatenate([z["a"], z["b"]], axis=1))


@pytest.mark.slow
def test_codes_may_be_pytrees():
    z, x = simulated(5)
    parts = {"a": z[:, :1], "b": z[:, 1:]}
    for one, other in (
        (
            ais.lower_bound(MODEL, PARAMS, x, jax.random.key(0), SCHEDULE, num_chains=2),
            ais.lower_bound(InParts(), PARAMS, x, jax.random.key(0), SCHEDULE, num_chains=2),
        ),
        (
            ais.upper_bound(MODEL, PARAMS, x, jax.random.key(0), SCHEDULE, z=z, num_chains=2),
            ais.upper_bound(InParts(), PARAMS, x, jax.random.key(0), SCHEDULE, z=parts, num_chains=2),
        ),
    ):
        np.testing.assert_allclose(one.log_likelihood, other.log_likelihood, rtol=1e-5)


@pytest.mark.slow
def test_bits_under_a_vamp_prior_are_bracketed():
    model = VAE(2, MLP((6,)), likelihoods.Bernoulli(), VampPrior(3), event_shape=(3, 3, 1))
    found = ais.bracket(
        model, oracles.random_params(model), jax.random.key(0), num=40, num_temperatures=20, leapfrogs=2, num_chains=4
    )
    gap = found.upper.log_likelihood - found.lower.log_likelihood
    assert -4 * gap.std(ddof=1) / np.sqrt(len(gap)) < gap.mean() < 0.05


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ais.sigmoid_betas(0), "number of temperatures: got 0"),
        (lambda: ais.bracket(MODEL, PARAMS, jax.random.key(0), num=0), "number of examples: got 0"),
        (
            lambda: ais.lower_bound(MODEL, PARAMS, simulated(1)[1], jax.random.key(0), SCHEDULE, num_chains=0),
            "number of chains: got 0",
        ),
        (
            lambda: ais.tune(AE, oracles.random_params(AE), simulated(1)[1], jax.random.key(0)),
            "Autoencoder, whose codes are points",
        ),
    ],
)
def test_what_cannot_be_annealed_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
