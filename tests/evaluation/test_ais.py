"""Annealed importance sampling: unbiased forward and backward, and the truth in between."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np
import oracles
import pytest
from scipy import stats

from aevae_jax.evaluation import ais
from aevae_jax.models import VAE, Autoencoder, likelihoods
from aevae_jax.models.architectures import MLP
from aevae_jax.models.priors import VampPrior
from aevae_jax.types import InputError

GAUSSIAN = oracles.linear_gaussian()
MODEL = VAE(latent=2, network=MLP(()), likelihood=likelihoods.Normal(GAUSSIAN.scale), event_shape=(5,))
PARAMS = GAUSSIAN.params(*GAUSSIAN.posterior_map(), MODEL.log_scale_range)
AE = Autoencoder(2, MLP(()), event_shape=(5,))
SCHEDULE = ais.Schedule(ais.sigmoid_betas(8), np.full(8, 0.4), 3, 0.7)


def simulated(count, seed=0):
    """Codes `[count, 2]` and data `[count, 5]` drawn from the model."""
    generator = np.random.default_rng(seed)
    z = generator.normal(size=(count, 2))
    x = z @ GAUSSIAN.weight.T + GAUSSIAN.bias + GAUSSIAN.scale * generator.normal(size=(count, 5))
    return z.astype(np.float32), x.astype(np.float32)


def log_likelihood(z, x):
    """log p(x|z), `[N]`."""
    mean = np.asarray(z, np.float64) @ GAUSSIAN.weight.T + GAUSSIAN.bias
    return stats.norm(mean, GAUSSIAN.scale).logpdf(x).sum(axis=-1)


OVERFLOW = 1e30
"""A step size that leads to where nothing is finite: such a move is not accepted."""


def backward(z, x, betas, step_sizes, leapfrogs=1):
    """One chain per example. At temperatures [0, 1, ..., 1], what it gives is log p(x|z) where the chain ends."""
    schedule = ais.Schedule(np.array(betas, float), np.array(step_sizes), leapfrogs, 0.7)
    return ais.upper_bound(MODEL, PARAMS, x, jax.random.key(3), schedule, z=z, num_chains=1)


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
    x = simulated(1)[1]
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
    """From exact posterior draws, a chain that stays at b = 1 gives posterior draws again.

    They are seen by log p(x|z): with the residual r at the mean of z, that is -|r - W s e|^2 / (2 scale^2) and a
    constant, e ~ N(0, I), whose mean and variance have closed forms.
    """
    x = np.repeat(simulated(1)[1], 40_000, axis=0)
    a, s = GAUSSIAN.posterior_map()
    mean = (x[0] - GAUSSIAN.bias) @ a.T
    z = (mean + s * np.random.default_rng(1).normal(size=(40_000, 2))).astype(np.float32)
    found = backward(z, x, [0, 1, 1, 1], [0.8, 0.8, 0.8], leapfrogs=3)
    assert 0.3 < found.acceptance < 0.99
    expected = -GAUSSIAN.distortion(x[:1], mean[None], s[None])
    slope, curvature = mean * s, (GAUSSIAN.weight**2).sum(axis=0) * s**2 / GAUSSIAN.scale**2  # W'r / scale^2 = mean
    oracles.assert_mean(found.log_likelihood[:, None], expected)
    deviation = found.log_likelihood[:, None] - expected
    oracles.assert_mean(deviation**2, [(slope**2 + curvature**2 / 2).sum()])
    moved = np.abs(deviation[:, 0] + expected - log_likelihood(z, x)) > 1e-3
    assert moved.mean() > 0.3


def test_each_temperature_has_a_noise_of_its_own_and_what_overflows_is_not_accepted():
    z, x = simulated(200)
    there = log_likelihood(z, x)
    never = backward(z, x, [0, 1, 1], [OVERFLOW, OVERFLOW])
    np.testing.assert_allclose(never.log_likelihood, there, rtol=1e-5)
    assert never.acceptance == 0
    one = backward(z, x, [0, 1, 1], [OVERFLOW, 0.8]).log_likelihood
    other = backward(z, x, [0, 1, 1], [0.8, OVERFLOW]).log_likelihood
    moved = (np.abs(np.stack([one - other, other - there, one - there])) > 1e-3).all(axis=0)
    assert moved.mean() > 0.1


def test_examples_far_apart_have_their_own_likelihoods():
    """exp(-1000), beside the likelihood of another example, is 0 even in float64."""
    z, x = simulated(2)
    x[1] += 50 * GAUSSIAN.scale
    there = log_likelihood(z, x)
    assert there[0] - there[1] > 1000
    found = backward(z, x, [0, 1, 1], [OVERFLOW, OVERFLOW])
    np.testing.assert_allclose(found.log_likelihood, there, rtol=1e-5)
    np.testing.assert_allclose(found.effective_chains, 1.0)


def test_temperatures_are_those_of_a_logistic_curve():
    """1 / (1 + exp(-t)) = (1 + tanh(t/2)) / 2 between t = -4 and 4, moved and stretched to [0, 1]."""
    end = np.tanh(2)
    np.testing.assert_allclose(
        ais.sigmoid_betas(4), [0, (end - np.tanh(1)) / (2 * end), 0.5, (end + np.tanh(1)) / (2 * end), 1]
    )
    np.testing.assert_allclose(ais.sigmoid_betas(2, sharpness=1.0), [0, 0.5, 1])
    assert ais.sigmoid_betas(1).tolist() == [0, 1]


def test_backward_every_temperature_keeps_its_step_size():
    """Of two moves one is not accepted: what the other one gives tells when it is made, where it stays, and its weight.

    Between b = 0, 1/4 and 1 the weights are 1/4 and 3/4. Forward the move at 1/4 comes first, backward that at 1.
    """
    z, x = simulated(200)
    at_one = backward(z, x, [0, 1, 1], [OVERFLOW, 0.8]).log_likelihood
    found = backward(z, x, [0, 0.25, 1], [OVERFLOW, 0.8]).log_likelihood
    np.testing.assert_allclose(found, at_one, rtol=1e-5)
    at_a_quarter = backward(z, x, [0, 0.25, 0.25], [0.8, OVERFLOW]).log_likelihood
    found = backward(z, x, [0, 0.25, 1], [0.8, OVERFLOW]).log_likelihood
    np.testing.assert_allclose(found, 0.75 * log_likelihood(z, x) + at_a_quarter, rtol=1e-5)

    def forward(betas, step_sizes):
        schedule = ais.Schedule(np.array(betas), np.array(step_sizes), 1, 0.7)
        return ais.lower_bound(MODEL, PARAMS, x, jax.random.key(3), schedule, num_chains=1).log_likelihood

    start = forward([0, 0.25, 1], [OVERFLOW, OVERFLOW])
    np.testing.assert_array_equal(forward([0, 0.25, 1], [OVERFLOW, 0.8]), start)  # after the last weight
    at_a_quarter = forward([0, 0.25, 0.5], [0.8, OVERFLOW]) - 0.25 * start
    found = forward([0, 0.25, 1], [0.8, OVERFLOW])
    np.testing.assert_allclose(found, 0.25 * start + 3 * at_a_quarter, rtol=1e-4)
    assert (np.abs(found - start) > 1e-3).mean() > 0.1


def test_chains_of_one_example_are_averaged_before_the_logarithm():
    """With one temperature and no move, forward they are draws of the prior, each by its own key."""
    x, key, still = simulated(2)[1], jax.random.key(6), ais.Schedule(np.array([0.0, 1.0]), np.array([0.3]), 0, 0.7)
    found = ais.lower_bound(MODEL, PARAMS, x, key, still, num_chains=3)
    keys_ = [jax.random.fold_in(jax.random.fold_in(key, i), 2**31 - 1) for i in range(2)]
    prior = MODEL.prior(PARAMS, 1)
    z = np.array(
        [[oracles.sample(prior, jax.random.fold_in(k, chain))[0] for chain in range(3)] for k in keys_], np.float64
    )
    mean = z @ GAUSSIAN.weight.T + GAUSSIAN.bias
    log_w = stats.norm(mean, GAUSSIAN.scale).logpdf(np.asarray(x, np.float64)[:, None]).sum(axis=-1)
    w = np.exp(log_w)
    np.testing.assert_allclose(found.log_likelihood, np.log(w.mean(axis=1)), rtol=1e-5)
    np.testing.assert_allclose(found.effective_chains, w.sum(axis=1) ** 2 / (w**2).sum(axis=1), rtol=1e-4)
    assert found.acceptance == 1
    upper = ais.upper_bound(MODEL, PARAMS, x, key, still, z=z[:, 0].astype(np.float32), num_chains=2)
    np.testing.assert_allclose(upper.log_likelihood, log_w[:, 0], rtol=1e-5)
    np.testing.assert_allclose(upper.effective_chains, 2, rtol=1e-6)


def test_a_bracket_hands_on_all_it_is_told(monkeypatch):
    """The three parts have noise of their own, and the upper bound the codes that its data were drawn from."""
    calls = {}

    def called(name):
        def call(model, params, x, key, *schedule, **options):
            calls[name] = (np.asarray(x), tuple(jax.random.key_data(key).tolist()), schedule, options)
            return name

        return call

    for name in ("tune", "lower_bound", "upper_bound"):
        monkeypatch.setattr(ais, name, called(name))
    found = ais.bracket(MODEL, PARAMS, jax.random.key(0), num=3, num_temperatures=7, leapfrogs=2, num_chains=5)
    assert (found.lower, found.upper) == ("lower_bound", "upper_bound")
    assert all(np.array_equal(x, found.x) for x, *_ in calls.values())
    assert len({key for _, key, *_ in calls.values()}) == 3
    assert calls["tune"][2:] == ((), {"num_temperatures": 7, "leapfrogs": 2})
    assert calls["lower_bound"][2:] == (("tune",), {"num_chains": 5})
    schedule, options = calls["upper_bound"][2:]
    z = np.asarray(options.pop("z"), np.float64)
    assert (schedule, options) == (("tune",), {"num_chains": 5})
    assert z.shape == (3, 2)
    residual = found.x - z @ GAUSSIAN.weight.T - GAUSSIAN.bias
    assert 0.2 < residual.std() / GAUSSIAN.scale < 2
    assert np.abs(residual).max() < 5 * GAUSSIAN.scale


@pytest.mark.parametrize("options", [{}, {"target": 0.9}])
def test_tuning_reaches_the_acceptance_that_was_asked_for(options):
    schedule = ais.tune(
        MODEL, PARAMS, simulated(30)[1], jax.random.key(0), num_temperatures=100, leapfrogs=3, **options
    )
    assert schedule.acceptance == pytest.approx(options.get("target", 0.65), abs=0.1)
    assert schedule.leapfrogs == 3
    assert schedule.step_sizes[0] == pytest.approx(0.3)
    assert schedule.step_sizes.shape == (100,)
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
            lambda: ais.upper_bound(
                MODEL, PARAMS, simulated(1)[1], jax.random.key(0), SCHEDULE, z=np.zeros((1, 2)), num_chains=0
            ),
            "number of chains: got 0",
        ),
        (
            lambda: ais.lower_bound(AE, oracles.random_params(AE), simulated(1)[1], jax.random.key(0), SCHEDULE),
            "Autoencoder, whose codes are points",
        ),
        (
            lambda: ais.upper_bound(
                AE, oracles.random_params(AE), simulated(1)[1], jax.random.key(0), SCHEDULE, z=np.zeros((1, 2))
            ),
            "Autoencoder, whose codes are points",
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
