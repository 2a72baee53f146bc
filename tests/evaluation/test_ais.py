"""Annealed importance sampling: unbiased forward and backward, and the truth in between."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np
import oracles
import pytest
from scipy import stats

from aevae_jax import keys
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
    first = state
    for index in range(3):
        state, (_, acceptance) = jax.jit(body)(state, context, ais._Move(index, 0.0, 1.0, 0.8))
    other = jax.jit(body)(first, context, ais._Move(1, 0.0, 1.0, 0.8))[0].z
    again = jax.jit(body)(first, context, ais._Move(0, 0.0, 1.0, 0.8))[0].z
    far, (_, never) = jax.jit(body)(first, context, ais._Move(0, 0.0, 1.0, 1e30))  # to where nothing is finite
    assert (far.z == first.z).all()
    assert float(never) == 0
    moved = np.asarray((other != again) & (other != first.z) & (again != first.z))
    assert moved.mean() > 0.1  # each temperature has a noise of its own
    assert 0.3 < float(acceptance) < 0.99
    drawn = np.asarray(state.z[:, 0], np.float64)
    oracles.assert_mean(drawn, mean)
    oracles.assert_mean((drawn - mean) ** 2, s**2)


def test_temperatures_are_those_of_a_logistic_curve():
    """1 / (1 + exp(-t)) = (1 + tanh(t/2)) / 2 between t = -4 and 4, moved and stretched to [0, 1]."""
    end = np.tanh(2)
    np.testing.assert_allclose(
        ais.sigmoid_betas(4), [0, (end - np.tanh(1)) / (2 * end), 0.5, (end + np.tanh(1)) / (2 * end), 1]
    )
    np.testing.assert_allclose(ais.sigmoid_betas(2, sharpness=1.0), [0, 0.5, 1])
    assert ais.sigmoid_betas(1).tolist() == [0, 1]


def test_backward_every_temperature_keeps_its_step_size():
    forward, backward = (ais._moves(np.array([0.0, 0.25, 1.0]), np.array([0.5, 0.125]), sign) for sign in (1, -1))
    assert [np.asarray(v).tolist() for v in forward] == [[0, 1], [0.25, 0.75], [0.25, 1.0], [0.5, 0.125]]
    assert [np.asarray(v).tolist() for v in backward] == [[0, 1], [-0.75, -0.25], [1.0, 0.25], [0.125, 0.5]]


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
