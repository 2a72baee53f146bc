"""Importance-weighted likelihoods against closed forms, and what must not change them."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from scipy import stats

from aevae_jax import data
from aevae_jax.evaluation import estimates, importance, statistics
from aevae_jax.models import VAE, Autoencoder, likelihoods
from aevae_jax.models.architectures import MLP, Conv
from aevae_jax.models.priors import VampPrior
from aevae_jax.objectives import bounds
from aevae_jax.types import InputError

GAUSSIAN = oracles.linear_gaussian()
MODEL = VAE(latent=2, network=MLP(()), likelihood=likelihoods.Normal(GAUSSIAN.scale), event_shape=(5,))
BITS = VAE(latent=3, network=MLP((8,)), likelihood=likelihoods.Bernoulli(), event_shape=(4, 4, 1))


def parameters(encoder=1.0, scale=1.0):
    """Those of the linear-Gaussian model, with a posterior that is wrong by these factors."""
    a, s = GAUSSIAN.posterior_map()
    return GAUSSIAN.params(encoder * a, scale * s, MODEL.log_scale_range)


def draws(count, seed=0):
    covariance = GAUSSIAN.weight @ GAUSSIAN.weight.T + GAUSSIAN.scale**2 * np.eye(5)
    x = np.random.default_rng(seed).multivariate_normal(GAUSSIAN.bias, covariance, size=count)
    return x.astype(np.float32)


def bits(count, seed=0):
    return (np.random.default_rng(seed).random((count, 4, 4, 1)) < 0.3).astype(np.float32)


# what it is


def test_on_a_linear_gaussian_model_it_is_the_evidence():
    """To 1e-4 of its value, though q(z|x) is wrong in place and width."""
    x = draws(200)
    found = importance.estimate(MODEL, parameters(0.8, 1.4), x, jax.random.key(0))
    exact = -GAUSSIAN.log_evidence(x)
    assert found.nll.mean() == pytest.approx(exact.mean(), rel=1e-4)
    assert np.abs(found.nll - exact).max() < 6 * found.sampling_error.max()
    assert not found.untrusted.any()


def test_an_exact_posterior_makes_all_weights_equal():
    x = draws(20)
    found = importance.estimate(MODEL, parameters(), x, jax.random.key(0), num_samples=50)
    np.testing.assert_allclose(found.nll, -GAUSSIAN.log_evidence(x), rtol=1e-5)
    np.testing.assert_allclose(found.effective_samples, 50, rtol=1e-4)
    assert (found.pareto_k == -math.inf).all()


@pytest.mark.slow
def test_the_bound_rises_with_the_number_of_samples():  # mistake 15
    x, params = draws(300), parameters(0.7, 1.6)
    nll = [importance.estimate(MODEL, params, x, jax.random.key(1), num_samples=k).nll.mean() for k in (1, 5, 50, 500)]
    assert nll == sorted(nll, reverse=True)
    assert nll[0] - nll[1] > 0.1
    assert nll[-1] == pytest.approx(-GAUSSIAN.log_evidence(x).mean(), rel=1e-3)


@pytest.mark.parametrize("num_samples", [1, 7, 23])
def test_exactly_so_many_samples_are_used_whatever_the_chunk_and_the_batch(num_samples):  # mistakes 16 and 17
    """And what is said of each example is its own: of five in batches of two, the last one stands alone."""
    x, params = draws(5), parameters(0.8, 1.4)
    log_w = jax.jit(lambda x, k: bounds.log_weights(MODEL, params, x, k, num_samples))
    keys = [jax.random.fold_in(jax.random.key(4), i) for i in range(5)]
    each = np.stack([np.asarray(log_w(x[i : i + 1], keys[i])[:, 0], np.float64) for i in range(5)])
    share = np.exp(each - np.logaddexp.reduce(each, axis=1, keepdims=True))
    for chunk, batch_size in ((1, 5), (5, 2), (50, 0)):
        told = []
        found = importance.estimate(
            MODEL,
            params,
            x,
            jax.random.key(4),
            num_samples=num_samples,
            chunk=chunk,
            batch_size=batch_size,
            on_part=lambda *done, told=told: told.append(done),
        )
        np.testing.assert_allclose(found.nll, -oracles.log_mean_exp(each, axis=1), rtol=1e-5)
        np.testing.assert_allclose(found.effective_samples, 1 / (share**2).sum(axis=1), rtol=1e-4)
        variance = num_samples * share.var(axis=1)  # of the mean of w / (mean of w)
        np.testing.assert_allclose(found.sampling_error, np.sqrt(variance), rtol=1e-3, atol=1e-3)
        assert found.num_samples == num_samples
        assert told == ([(2, 5), (4, 5), (5, 5)] if batch_size == 2 else [(5, 5)])


class Prescribed:
    """A model whose log weights are x u with u ~ U(-1, 1): as far apart as x is large."""

    def encode(self, params, x):
        return _Drawn(jnp.zeros_like(x))

    def decode(self, params, z):
        return _Drawn(z)

    def prior(self, params, n):
        return _Drawn(jnp.zeros((n, 1)))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Drawn:
    factor: jax.Array  # [B, 1]

    def mean(self):
        return self.factor

    def sample(self, key):
        return jax.random.uniform(key, self.factor.shape, minval=-1.0)

    def log_prob(self, value):
        return (self.factor * value)[:, 0]


def prescribed(x, num_samples, chunk):
    """The estimate for `x` `[N]`, and the log weights `[K, N]` that it is made of."""
    x, key = np.asarray(x, np.float32)[:, None], jax.random.key(7)

    def draw(k, i):
        return jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, i), k), minval=-1.0)

    draws = jax.jit(jax.vmap(jax.vmap(draw, (None, 0)), (0, None)))
    log_w = np.asarray(draws(jnp.arange(num_samples), jnp.arange(len(x)))) * x[:, 0]
    found = importance.estimate(Prescribed(), {}, x, key, num_samples=num_samples, chunk=chunk)
    return found, log_w.astype(np.float64)


@pytest.mark.parametrize("chunk", [1, 4, 30])
def test_running_sums_are_those_of_all_weights_at_once(chunk):
    found, log_w = prescribed([1.0, 5.0, 20.0], 30, chunk)
    w = np.exp(log_w - log_w.max(axis=0))
    np.testing.assert_allclose(found.nll, -oracles.log_mean_exp(log_w), rtol=1e-5)
    np.testing.assert_allclose(found.effective_samples, w.sum(axis=0) ** 2 / (w**2).sum(axis=0), rtol=1e-5)
    largest = -np.sort(-log_w, axis=0)[: importance.tail_size(30) + 1]
    np.testing.assert_allclose(found.pareto_k, importance.pareto_shape(largest.T), rtol=1e-4)


class _Rejecting(Prescribed):
    """A model under which data are impossible where the code is negative: weights are 0 or 1."""

    def decode(self, params, z):
        return _Possible(z)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Possible(_Drawn):
    def log_prob(self, value):
        return jnp.where(self.factor[:, 0] > 0, 0.0, -jnp.inf)


def test_a_first_chunk_of_weights_that_are_0_is_one_like_any_other():
    _, draws = prescribed(np.ones(6), 8, 8)
    count = (draws > 0).sum(axis=0)
    assert (draws[0] < 0).any()
    assert count.all()
    found = importance.estimate(
        _Rejecting(), {}, np.ones((6, 1), np.float32), jax.random.key(7), num_samples=8, chunk=1
    )
    np.testing.assert_allclose(found.nll, np.log(8 / count), rtol=1e-6)
    np.testing.assert_allclose(found.effective_samples, count, rtol=1e-6)


def test_the_interval_of_the_data_covers_the_entropy_in_90_to_99_of_100_repetitions():
    """Fresh data in each; the mean of -log p(x) over the population is the entropy of its Gaussian."""
    x = draws(100 * 60, seed=5)
    found = importance.estimate(MODEL, parameters(0.9, 1.1), x, jax.random.key(2), num_samples=100, batch_size=500)
    covariance = GAUSSIAN.weight @ GAUSSIAN.weight.T + GAUSSIAN.scale**2 * np.eye(5)
    entropy = stats.multivariate_normal(GAUSSIAN.bias, covariance).entropy()
    intervals = [statistics.interval(part) for part in found.nll.reshape(100, 60)]
    assert 90 <= sum(i.low <= entropy <= i.high for i in intervals) <= 99


@pytest.mark.slow
def test_the_sampling_error_is_the_spread_over_other_noise():
    x, params = draws(20), parameters(0.8, 1.4)
    found = [importance.estimate(MODEL, params, x, jax.random.key(i), num_samples=200) for i in range(60)]
    spread = np.std([f.nll for f in found], axis=0, ddof=1)
    stated = np.mean([f.sampling_error for f in found], axis=0)
    assert np.mean(spread / stated) == pytest.approx(1, abs=0.1)


# what must not matter


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        BITS,
        VAE(2, Conv((2,)), likelihoods.Bernoulli(), event_shape=(4, 4, 1)),
        VAE(3, MLP((8,)), likelihoods.Bernoulli(), VampPrior(4), event_shape=(4, 4, 1)),
    ],
)
def test_batch_and_chunk_change_nothing_and_twice_is_the_same(model):  # mistakes 18 and 19
    """A VampPrior is computed once."""
    params, x = oracles.random_params(model), bits(9)
    first = importance.estimate(model, params, x, jax.random.key(0), num_samples=40)
    again = importance.estimate(model, params, x, jax.random.key(0), num_samples=40)
    assert (first.nll == again.nll).all()
    for batch_size, chunk in ((1, 40), (7, 13), (9, 8), (256, 100)):
        found = importance.estimate(
            model, params, x, jax.random.key(0), num_samples=40, batch_size=batch_size, chunk=chunk
        )
        assert found.nll.mean() == pytest.approx(first.nll.mean(), rel=1e-6)
        np.testing.assert_allclose(found.pareto_k, first.pareto_k, atol=1e-3)
        np.testing.assert_allclose(found.effective_samples, first.effective_samples, rtol=1e-4)


def test_weights_and_priors_are_computed_in_full_float32(monkeypatch):
    """The prior is computed once, outside the loop over the samples."""
    sizes = []

    class Watched(VAE):
        def prior(self, params, n):
            sizes.append(n)
            oracles.assert_products_in_full(lambda params: VAE.prior(self, params, n), params)
            return super().prior(params, n)

    model = Watched(2, MLP((3,)), likelihoods.Bernoulli(), VampPrior(4), event_shape=(5,))
    scans = oracles.recorded_scans(monkeypatch)
    params, x = oracles.random_params(model), np.ones((2, 5), np.float32)
    importance.estimate(model, params, x, jax.random.key(0), num_samples=10, chunk=5)
    assert sizes == [1]
    [scan] = scans
    oracles.assert_scan_in_full(scan)


@pytest.mark.parametrize(("backend", "examples"), [("cpu", 20), ("gpu", 300)])
def test_an_accelerator_takes_more_at_once(monkeypatch, backend, examples):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    done = []
    importance.estimate(
        MODEL, parameters(), draws(300), jax.random.key(0), num_samples=51, on_part=lambda part, _: done.append(part)
    )
    assert done[0] == examples


def test_it_is_compiled_once_for_all_batches():
    traces = []

    class Counting(VAE):
        def decode(self, params, z):
            traces.append(z.shape)
            return super().decode(params, z)

    model = Counting(latent=3, network=MLP((8,)), likelihood=likelihoods.Bernoulli(), event_shape=(4, 4, 1))
    importance.estimate(model, oracles.random_params(BITS), bits(20), jax.random.key(0), num_samples=6, batch_size=3)
    assert len(traces) <= 3  # its support, whether it convolves, and the program


DEVICES = """
import json, jax, numpy as np
import oracles
from aevae_jax import evaluation, importance
from aevae_jax.training import devices
from test_importance import BITS, bits
params, x, key = oracles.random_params(BITS), bits(64), jax.random.key(0)
sizes = (1, 7, 64, 256)
nll = {b: importance.estimate(BITS, params, x, key, num_samples=30, batch_size=b).nll.mean() for b in sizes}
elbo = {b: evaluation.evaluate(BITS, params, x, key, batch_size=b)["negative_elbo"] for b in sizes}
parts = len(devices.local().divide(jax.numpy.zeros(16)).sharding.device_set)
print(json.dumps([list(map(float, nll.values())), list(elbo.values()), parts]))
"""


@pytest.mark.slow
def test_one_and_eight_devices_give_the_same_numbers():  # mistake 34
    outputs = []
    for count in (1, 8):
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
        environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", DEVICES], capture_output=True, text=True, check=False, env=environment
        )
        assert done.returncode == 0, done.stderr
        *numbers, parts = json.loads(done.stdout)
        assert parts == count
        outputs.append(numbers)
    for one, eight in zip(*outputs, strict=True):
        np.testing.assert_allclose(one + eight, one[0], rtol=1e-6)


# when not to trust it


def test_a_posterior_that_is_too_narrow_is_found_out():
    x = draws(50)
    wide = importance.estimate(MODEL, parameters(1, 1.5), x, jax.random.key(0), num_samples=1000)
    narrow = importance.estimate(MODEL, parameters(1, 0.4), x, jax.random.key(0), num_samples=1000)
    assert wide.untrusted.mean() < 0.02
    assert narrow.untrusted.mean() > 0.5
    assert narrow.effective_samples.mean() < wide.effective_samples.mean()


@pytest.mark.parametrize("shape", [0.2, 0.7, 1.2])
def test_the_shape_of_a_pareto_tail_is_found(shape):
    y = stats.genpareto(shape).rvs((200, 400), random_state=1)
    largest = np.concatenate([np.sort(np.log(1 + y), axis=1)[:, ::-1], np.zeros((200, 1))], axis=1)
    found = importance.pareto_shape(largest)
    assert found.mean() == pytest.approx((400 * shape + 5) / 410, abs=0.03)
    assert found.std() < 0.12


def pareto_by_hand(exceedances):
    """Zhang & Stephens 2009, section 3, in the terms of Vehtari et al. 2024, appendix C, one number at a time."""
    x = sorted(exceedances)
    n = len(x)
    m = 30 + math.floor(math.sqrt(n))
    quartile = x[math.floor(n / 4 + 0.5) - 1]
    theta = [1 / x[-1] + (1 - math.sqrt(m / (j - 0.5))) / (3 * quartile) for j in range(1, m + 1)]

    def k(t):
        return math.fsum(math.log1p(-t * value) for value in x) / n

    profile = [n * (math.log(-t / k(t)) - k(t) - 1) for t in theta]
    weights = [1 / math.fsum(math.exp(other - own) for other in profile) for own in profile]
    return (n * k(math.fsum(t * w for t, w in zip(theta, weights, strict=True))) + 10 * 0.5) / (n + 10)


@pytest.mark.parametrize("size", [5, 6, 20, 21, 30])
def test_the_shape_is_that_of_the_published_fit(size):
    """Exceedances of either tail, beside each other, over a threshold of their own."""
    uneven = np.linspace(0.03, 0.97, size)
    tails = np.stack([(1 - uneven) ** -0.8 - 1, uneven**2])
    largest = np.log(0.7 + np.concatenate([-np.sort(-tails, axis=1), np.zeros((2, 1))], axis=1))
    found = importance.pareto_shape(largest)
    np.testing.assert_allclose(found, [pareto_by_hand(tail) for tail in tails], atol=1e-6)


def test_the_shape_of_one_example_does_not_depend_on_how_likely_others_are():
    """Nor on how likely it is itself: 12 nats below another its exceedances would be rounding, 1000 below 0."""
    largest = np.log(1 + np.append(np.linspace(1, 0.05, 20), 0.0))
    found = importance.pareto_shape(largest - np.array([[0.0], [12.0], [1000.0]]))
    np.testing.assert_allclose(found, importance.pareto_shape(largest[None])[0], rtol=1e-6)


def test_weights_that_differ_by_rounding_alone_have_no_tail():
    for span, flat in ((0.9e-4, True), (1.1e-4, False)):
        found = importance.pareto_shape(np.log(1 - span * np.linspace(0, 1, 21)[None] ** 0.5))
        assert np.isneginf(found).tolist() == [flat]


def test_an_estimate_is_trusted_up_to_the_shape_itself():
    shapes = np.array([0.69, 0.7, 0.71, np.nan, -np.inf])
    found = importance.Estimate(shapes, shapes, shapes, shapes, 5000)
    assert found.untrusted.tolist() == [False, False, True, False, False]
    assert importance.trusted_pareto_k(1) == -math.inf
    assert importance.trusted_pareto_k(1000) == pytest.approx(1 - 1 / 3)


def test_the_shape_of_a_short_tail_is_drawn_to_a_half():
    """Twenty exceedances spread evenly have shape -1; the prior, worth ten of them, makes that -1/2."""
    even = np.linspace(1, 0.05, 20)
    found = importance.pareto_shape(np.log(1 + np.append(even, 0.0))[None])
    assert found == pytest.approx((20 * -1 + 5) / 30, abs=0.1)


def test_few_samples_say_nothing_of_their_tail():
    """The tail of 20 weights is four of them, fewer than five; that of 100 is a fifth."""
    found = importance.estimate(MODEL, parameters(), draws(2), jax.random.key(0), num_samples=20)
    assert np.isnan(found.pareto_k).all()
    assert [importance.tail_size(count) for count in (20, 100, 225, 10_000)] == [4, 20, 45, 300]
    assert not found.untrusted.any()
    assert importance.trusted_pareto_k(5000) == pytest.approx(0.7)
    assert importance.trusted_pareto_k(100) == pytest.approx(0.5)


# units and refusals


def test_bits_per_dimension_are_those_of_the_levels():
    raw = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 1), np.uint8)
    dataset = data.from_arrays(raw)
    nll = np.array([16 * math.log(2)])
    scaled, noisy = (data.prepare(p, dataset) for p in (data.Scale(), data.Dequantize()))
    discrete = VAE(2, MLP(()), likelihoods.DiscretizedLogistic(), event_shape=(4, 4, 1))
    assert importance.bits_per_dim(nll, discrete, scaled)[0] == pytest.approx(1)
    assert importance.bits_per_dim(nll, VAE(2), noisy)[0] == pytest.approx(9)
    assert importance.bits_per_dim(nll, VAE(2), scaled) is None
    bits = VAE(2, MLP(()), likelihoods.Bernoulli(), event_shape=(4, 4, 1))
    assert importance.bits_per_dim(2 * nll, bits, data.prepare(data.Threshold(), dataset))[0] == pytest.approx(2)
    few = data.prepare(data.Dequantize(), data.from_arrays(raw // 16, levels=16))
    assert importance.bits_per_dim(nll, VAE(2), few)[0] == pytest.approx(1 + 4)
    # uniform noise has density 1, so dequantised uniform levels cost 8 bits
    assert importance.bits_per_dim(np.zeros(1), VAE(2), noisy)[0] == pytest.approx(8)


@pytest.mark.parametrize(
    ("model", "x", "options", "message"),
    [
        (BITS, bits(3), {"num_samples": 0}, "number of importance samples: got 0, expected at least 1"),
        (Autoencoder(2, MLP(()), event_shape=(4, 4, 1)), bits(3), {}, "got Autoencoder, whose codes are points"),
        (VAE(2, MLP(()), likelihoods.NormalOptimalScale(), event_shape=(4, 4, 1)), bits(3), {}, "no density"),
        (BITS, bits(3) * 0.5, {}, "evaluation data: got 0.5 .* expected 0 or 1"),
        (BITS, jnp.asarray(bits(3) * 0.5), {}, "evaluation data: got 0.5 .* expected 0 or 1"),
        (BITS, bits(0), {}, "evaluation data: got 0 examples"),
    ],
)
def test_what_has_no_likelihood_is_refused(model, x, options, message):  # mistakes 9 and 13
    with pytest.raises(InputError, match=message):
        importance.estimate(model, oracles.random_params(model), x, jax.random.key(0), **options)


def test_a_figure_carries_its_protocol():
    prepared = data.prepare(data.Threshold(), data.from_arrays((bits(60) * 255).astype(np.uint8)))
    params = oracles.random_params(BITS)
    told = []
    result, found = importance.result(
        BITS,
        params,
        prepared,
        jax.random.key(0),
        name="mine",
        split="test",
        num_samples=9,
        on_part=lambda *done: told.append(done),
    )
    assert result.mean == pytest.approx(found.nll.mean())
    assert (result.protocol.num_samples, result.protocol.measure) == (9, "mass")
    assert result.protocol.examples == len(prepared.test.x)
    assert "9 samples per example; arrays test" in str(result.protocol)
    assert told[-1] == (len(prepared.test.x),) * 2
    protocol = estimates.EvaluationProtocol(
        quantity="negative log likelihood",
        estimator="importance sampling from q(z|x)",
        num_samples=9,
        data="arrays",
        split="test",
        preparation="Threshold()",
        examples=len(prepared.test.x),
        sha256=data.datasets.digest_of(prepared.test.x),
        measure="mass",
        unit="nats/example",
    )
    assert (result.name, result.protocol) == ("mine", protocol)
    other, again = importance.result(
        BITS, params, prepared, jax.random.key(1), name="other", split="validation", num_samples=9
    )
    x = prepared.validation.x
    expected = importance.estimate(BITS, params, x, jax.random.key(1), num_samples=9)
    np.testing.assert_array_equal(other.values, expected.nll)
    np.testing.assert_array_equal(again.nll, expected.nll)
    digest = data.datasets.digest_of(x)
    assert digest != protocol.sha256
    assert other.protocol == dataclasses.replace(protocol, split="validation", examples=len(x), sha256=digest)
    for split in ("holdout", "train"):
        with pytest.raises(InputError, match=f"split: got '{split}', expected 'validation' or 'test'"):
            importance.result(BITS, params, prepared, jax.random.key(0), name="mine", split=split)


def test_data_in_files_are_looked_at_to_their_end(monkeypatch, tmp_path):
    """The last row of the second block is none of bits."""
    monkeypatch.setattr(data.datasets, "BLOCK_BYTES", 3 * 16 * 4)
    rows = np.memmap(tmp_path / "rows", np.float32, "w+", shape=(6, 4, 4, 1))
    params = oracles.random_params(BITS)
    assert importance.check_scorable(BITS, params, rows) == "mass"
    rows[5, 3, 3] = 0.25
    with pytest.raises(InputError, match=r"evaluation data: got 0\.25"):
        importance.check_scorable(BITS, params, rows)


def test_a_density_is_not_ranked_against_a_probability():  # mistake 41
    prepared = data.prepare(data.Scale(), data.from_arrays((bits(60) * 255).astype(np.uint8)))
    results = []
    for likelihood in (likelihoods.NormalSharedScale(), likelihoods.DiscretizedLogistic(256)):
        model = dataclasses.replace(BITS, likelihood=likelihood)
        params = oracles.random_params(model)
        results.append(
            importance.result(model, params, prepared, jax.random.key(0), name="one", split="test", num_samples=2)[0]
        )
    with pytest.raises(InputError, match="which differ in measure 'density' and 'mass'"):
        estimates.rank(results)


def test_the_estimate_is_free_of_the_order_of_magnitude():
    """Weights between e^-3000 and e^3000, in any order, do not leave the range of float32."""
    found, log_w = prescribed(np.full(20, 3000.0), 3, 2)
    steps = np.diff(log_w, axis=0)
    assert (steps > 1000).any()
    assert (steps < -1000).any()
    assert (log_w.max(axis=0) < -300).any()
    np.testing.assert_allclose(found.nll, -oracles.log_mean_exp(log_w), rtol=1e-6)
    share = np.exp(log_w - np.logaddexp.reduce(log_w, axis=0))
    np.testing.assert_allclose(found.effective_samples, 1 / (share**2).sum(axis=0), rtol=1e-3)
