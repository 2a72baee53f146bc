"""The estimators against a linear-Gaussian model, whose log p(x), posterior and ELBO are known in closed form."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from oracles import AsMaps, assert_mean, linear_gaussian, log_mean_exp, normal_kl
from scipy import stats

from aevae_jax import VAE, Autoencoder, distributions, keys
from aevae_jax.models import architectures, likelihoods
from aevae_jax.objectives import bounds

SIZE, LATENT, BATCH = 5, 2, 3
ORACLE = linear_gaussian(SIZE, LATENT)
MODEL = VAE(LATENT, architectures.MLP(()), likelihoods.Normal(ORACLE.scale), event_shape=(SIZE,))
X = np.random.default_rng(0).normal(scale=1.5, size=(BATCH, SIZE)).astype(np.float32)
EVIDENCE = ORACLE.log_evidence(X)

ENCODER, POSTERIOR_SCALE = ORACLE.posterior_map()
EXACT = ORACLE.params(ENCODER, POSTERIOR_SCALE, MODEL.log_scale_range)
OFF_ENCODER, OFF_SCALE = 0.8 * ENCODER + 0.05, 1.4 * POSTERIOR_SCALE
OFF = ORACLE.params(OFF_ENCODER, OFF_SCALE, MODEL.log_scale_range)
"""A recognition model that is wrong in mean and scale."""
OFF_LOC = (X - ORACLE.bias) @ OFF_ENCODER.T
OFF_RATE = normal_kl(OFF_LOC, OFF_SCALE).sum(axis=1)
OFF_DISTORTION = ORACLE.distortion(X, OFF_LOC, np.broadcast_to(OFF_SCALE, OFF_LOC.shape))

log_weights = jax.jit(lambda params, x, key, k: bounds.log_weights(MODEL, params, x, key, k), static_argnums=3)


@cache
def many_log_weights() -> np.ndarray:
    """`[16384, B]`, float64."""
    return np.asarray(log_weights(OFF, X, jax.random.key(5), 16_384), np.float64)


@cache
def many_elbos() -> dict[str, np.ndarray]:
    """The terms at many keys, `[4000, B]`."""

    def terms(key):
        bound = bounds.elbo(MODEL, OFF, X, key)
        return {"distortion": bound.distortion, "rate": bound.rate, "negative_elbo": bound.negative_elbo}

    return jax.jit(jax.vmap(terms))(jax.random.split(jax.random.key(0), 4_000))


def draws_of(params, key, num_samples: int):
    """q(z|x), and the samples that `log_weights` uses: sample k uses key k."""
    q = oracles.encode(MODEL, params, X)
    return q, jax.jit(jax.vmap(q.sample))(keys.many(key, num_samples))


# --- the ELBO ---


def test_the_oracle_is_the_model():
    """The parameters are those of the oracle's posterior and likelihood."""
    q = oracles.encode(MODEL, OFF, X)
    np.testing.assert_allclose(q.loc, OFF_LOC, atol=1e-5)
    np.testing.assert_allclose(q.scale, np.broadcast_to(OFF_SCALE, q.scale.shape), rtol=1e-5)
    p = oracles.decode(MODEL, OFF, q.loc)
    np.testing.assert_allclose(p.loc, OFF_LOC @ ORACLE.weight.T + ORACLE.bias, atol=1e-5)
    np.testing.assert_allclose(p.scale, ORACLE.scale, rtol=1e-5)


def test_elbo_terms_are_the_closed_form():  # mistake 1, mistake 4, mistake 5, mistake 7
    """The distortion's mean contains the spread of q: at z = mean it would be too small."""
    terms = many_elbos()
    np.testing.assert_allclose(terms["rate"], np.broadcast_to(OFF_RATE, terms["rate"].shape), rtol=1e-5)
    assert_mean(terms["distortion"], OFF_DISTORTION)
    assert_mean(terms["negative_elbo"], OFF_DISTORTION + OFF_RATE)
    np.testing.assert_allclose(terms["negative_elbo"], terms["distortion"] + terms["rate"], rtol=1e-6)
    at_mean = ORACLE.distortion(X, OFF_LOC, 0 * OFF_LOC)
    assert (OFF_DISTORTION - at_mean > 10 * np.std(terms["distortion"], axis=0) / np.sqrt(4_000)).all()


def test_negative_elbo_exceeds_the_evidence_by_the_posterior_kl():  # mistake 1, mistake 4
    gap = normal_kl(OFF_LOC, OFF_SCALE, (X - ORACLE.bias) @ ENCODER.T, POSTERIOR_SCALE).sum(axis=1)
    assert_mean(many_elbos()["negative_elbo"], -EVIDENCE + gap)


def test_evaluation_samples_and_names_what_it_computes_at_the_mean():  # mistake 7
    metric = jax.jit(jax.vmap(lambda key: bounds.bound_terms(MODEL, OFF, X, key)))
    terms = metric(jax.random.split(jax.random.key(0), 2_000))
    assert_mean(terms["negative_elbo"], OFF_DISTORTION + OFF_RATE)
    assert (np.std(terms["distortion"], axis=0) > 0).all()
    residual = X - ORACLE.bias - OFF_LOC @ ORACLE.weight.T
    expected = np.broadcast_to((residual**2).mean(axis=1), (2_000, BATCH))
    np.testing.assert_allclose(terms["mse_at_mean"], expected, rtol=1e-4)


def test_sampled_rate_has_the_mean_of_the_rate():  # mistake 4
    q, z = draws_of(OFF, jax.random.key(1), 4_000)
    p = MODEL.prior(OFF, BATCH)
    assert_mean(jax.jit(jax.vmap(lambda z: bounds.sampled_rate(q, p, z)))(z), OFF_RATE)
    np.testing.assert_allclose(bounds.rate(q, p, z[0]), OFF_RATE, rtol=1e-5)


def test_rate_is_zero_only_at_the_prior():  # mistake 4
    p = MODEL.prior(OFF, BATCH)
    same = distributions.Normal(jnp.zeros((BATCH, LATENT)), jnp.zeros((BATCH, LATENT)))
    np.testing.assert_array_equal(bounds.rate(same, p, same.loc), 0.0)
    for shift in (0.1, -0.1):
        for moved in (
            distributions.Normal(same.loc + shift, same.log_scale),
            distributions.Normal(same.loc, same.log_scale + shift),
        ):
            assert (bounds.rate(moved, p, moved.loc) > 0).all()


@pytest.mark.parametrize(
    "likelihood",
    [likelihoods.Normal(0.5), likelihoods.Bernoulli(), likelihoods.DiscretizedLogistic()],
    ids=lambda value: type(value).__name__,
)
def test_duplicating_every_pixel_doubles_the_distortion_alone(likelihood):  # mistake 1
    """Both are sums over what they are about, so showing each pixel twice changes one and not the other."""
    generator = np.random.default_rng(2)
    x = generator.integers(0, 2, size=(BATCH, SIZE)).astype(np.float32)
    outputs = likelihood.outputs
    kernel, bias = generator.normal(size=(LATENT, SIZE, outputs)), generator.normal(size=(SIZE, outputs))
    encoder = {"kernel": generator.normal(size=(SIZE, 2 * LATENT)), "bias": generator.normal(size=2 * LATENT)}

    def terms(times: int):
        model = VAE(LATENT, architectures.MLP(()), likelihood, event_shape=(SIZE * times,))
        params = {
            "encoder": {"out": {**encoder, "kernel": np.repeat(encoder["kernel"], times, axis=0) / times}},
            "decoder": {
                "out": {
                    "kernel": np.repeat(kernel, times, axis=1).reshape(LATENT, -1),
                    "bias": np.repeat(bias, times, axis=0).reshape(-1),
                }
            },
            "likelihood": {},
            "prior": {},
        }
        params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), params)
        return jax.jit(lambda x, key: bounds.elbo(model, params, x, key)[:2])(
            np.repeat(x, times, axis=1), jax.random.key(0)
        )

    (distortion, rate), (doubled, same_rate) = terms(1), terms(2)
    assert (distortion > 0).all()
    np.testing.assert_allclose(doubled, 2 * distortion, rtol=1e-4)
    np.testing.assert_allclose(same_rate, rate, rtol=1e-4)


# --- importance weights ---


def test_with_the_exact_posterior_every_weight_is_the_evidence():  # mistake 15, mistake 16
    log_w = log_weights(EXACT, X, jax.random.key(0), 7)
    # sums of about ten float32 terms of size up to ten
    np.testing.assert_allclose(log_w, np.broadcast_to(EVIDENCE, log_w.shape), atol=5e-5)
    np.testing.assert_allclose(bounds.importance_weighted_bound(log_w), EVIDENCE, atol=5e-5)


def test_log_weights_are_those_of_the_samples():  # mistake 15
    """Every density at the sample, in float64: an analytic KL among them would be another number."""
    _, z = draws_of(OFF, jax.random.key(3), 6)
    z = np.asarray(z, np.float64)
    expected = (
        stats.norm(z @ ORACLE.weight.T + ORACLE.bias, ORACLE.scale).logpdf(X).sum(axis=-1)
        + stats.norm().logpdf(z).sum(axis=-1)
        - stats.norm(OFF_LOC, OFF_SCALE).logpdf(z).sum(axis=-1)
    )
    np.testing.assert_allclose(log_weights(OFF, X, jax.random.key(3), 6), expected, rtol=1e-4, atol=1e-4)


def test_one_sample_is_the_elbo_with_a_sampled_rate():  # mistake 15
    bound = bounds.importance_weighted_bound(log_weights(OFF, X, jax.random.key(4), 1))
    q, z = draws_of(OFF, jax.random.key(4), 1)
    rate = bounds.sampled_rate(q, MODEL.prior(OFF, BATCH), z[0])
    distortion = bounds.distortion(oracles.decode(MODEL, OFF, z[0]), X)
    np.testing.assert_allclose(bound, -(distortion + rate), rtol=1e-5)
    assert_mean(many_log_weights(), -(OFF_DISTORTION + OFF_RATE))


def test_the_bound_rises_with_the_samples_to_the_evidence():  # mistake 15, mistake 16
    """In the mean over disjoint groups of K out of the same samples, by more than five standard errors of the gain."""
    log_w = many_log_weights().astype(np.float32)
    bound = {}
    for k in (1, 4, 16, 256):
        groups = np.moveaxis(log_w.reshape(64, 256 // k, k, BATCH), 2, 0)
        bound[k] = np.asarray(bounds.importance_weighted_bound(groups), np.float64).mean(axis=1)  # [64, B]
    for fewer, more in [(1, 4), (4, 16), (16, 256)]:
        gain = bound[more] - bound[fewer]
        assert (gain.mean(axis=0) > 5 * gain.std(axis=0, ddof=1) / np.sqrt(64)).all()
    assert (bound[256].mean(axis=0) < EVIDENCE + 5 * bound[256].std(axis=0, ddof=1) / np.sqrt(64)).all()
    # all samples together: w / p(x) has mean 1, and its standard error is that of the logarithm
    w = np.exp(many_log_weights() - EVIDENCE)
    error = w.std(axis=0) / np.sqrt(len(w))
    assert (error < 0.05).all()
    assert (np.abs(np.asarray(bounds.importance_weighted_bound(log_w)) - EVIDENCE) < 5 * error).all()


finite = st.floats(-50, 50, width=32)
matrices = hnp.arrays(np.float32, st.tuples(st.sampled_from([2, 4, 8]), st.just(3)), elements=finite)


@settings(max_examples=50, deadline=None)
@given(matrices)
def test_bound_is_the_log_of_the_mean(log_w):  # mistake 16
    np.testing.assert_allclose(bounds.importance_weighted_bound(log_w), log_mean_exp(log_w), rtol=1e-5, atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(matrices)
def test_bound_is_at_least_the_mean_over_its_halves(log_w):  # mistake 16
    half = len(log_w) // 2
    halves = [np.asarray(bounds.importance_weighted_bound(part)) for part in (log_w[:half], log_w[half:])]
    assert (np.asarray(bounds.importance_weighted_bound(log_w)) >= np.mean(halves, axis=0) - 1e-5).all()


def test_bound_is_finite_where_weights_under_and_overflow():  # mistake 10
    log_w = jnp.asarray([[-1e4, 1e4, 0.0], [-1e4 - 1, 1e4, -1e4]])
    value, gradient = jax.value_and_grad(lambda w: bounds.importance_weighted_bound(w).sum())(log_w)
    assert np.isfinite(value)
    np.testing.assert_allclose(gradient.sum(axis=0), 1.0, rtol=1e-6)


def test_permuting_samples_changes_nothing_and_permuting_examples_permutes():  # mistake 16
    log_w = many_log_weights()[:64].astype(np.float32)
    bound = bounds.importance_weighted_bound(log_w)
    shuffled, order = np.random.default_rng(0).permutation(64), np.asarray([2, 0, 1])
    np.testing.assert_allclose(bounds.importance_weighted_bound(log_w[shuffled]), bound, rtol=1e-6)
    np.testing.assert_allclose(bounds.importance_weighted_bound(log_w[:, order]), bound[order], rtol=1e-6)
    evidence = log_weights(EXACT, X[order], jax.random.key(0), 7)[0]
    np.testing.assert_allclose(evidence, EVIDENCE[order], atol=5e-5)


def test_an_example_does_not_see_the_others():  # mistake 16
    moved = X.copy()
    moved[0] += 1
    before, after = (log_weights(OFF, x, jax.random.key(6), 7) for x in (X, moved))
    np.testing.assert_array_equal(before[:, 1:], after[:, 1:])
    assert (before[:, 0] != after[:, 0]).all()


@pytest.mark.parametrize("k", [1, 3, 8])
def test_exactly_that_many_samples_are_used(k):  # mistake 17
    """Distinct draws, each one used: the first rows are those of fewer samples, and none is repeated."""
    log_w = log_weights(OFF, X, jax.random.key(5), k)
    assert log_w.shape == (k, BATCH)
    assert len(np.unique(log_w[:, 0])) == k
    np.testing.assert_allclose(log_w, many_log_weights()[:k], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(bounds.importance_weighted_bound(log_w), log_mean_exp(log_w), rtol=1e-5)


# --- gradients ---

K, REPEATS = 8, 2_000


def flat(tree) -> np.ndarray:
    return np.concatenate([np.asarray(leaf).reshape(len(leaf), -1) for leaf in jax.tree.leaves(tree)], axis=1)


@cache
def gradients(estimator: str) -> dict[str, np.ndarray]:
    """Gradients of the mean bound at many keys: `[REPEATS, parameters]` for encoder and decoder."""

    def bound(params, key):
        if estimator == "doubly":
            return bounds.doubly_reparameterised_bound(MODEL, params, X, key, K).mean()
        return bounds.importance_weighted_bound(bounds.log_weights(MODEL, params, X, key, K)).mean()

    gradient = jax.jit(jax.vmap(jax.grad(bound), in_axes=(None, 0)))(OFF, jax.random.split(jax.random.key(7), REPEATS))
    return {part: flat(gradient[part]) for part in ("encoder", "decoder")}


def explicit_bound(params, eps):
    """The importance-weighted bound written out, `eps` `[K, B, L]`."""
    encoder, decoder = params["encoder"]["out"], params["decoder"]["out"]
    out = X @ encoder["kernel"] + encoder["bias"][None]
    low, high = MODEL.log_scale_range
    u = (out[:, LATENT:] - (low + high) / 2) / ((high - low) / 2)
    loc, log_scale = out[:, :LATENT], (low + high) / 2 + (high - low) / 2 * u / jnp.sqrt(1 + u * u)
    z = loc[None] + jnp.exp(log_scale)[None] * eps
    residual = (X[None] - z @ decoder["kernel"] - decoder["bias"][None, None]) / ORACLE.scale
    log_2pi = np.log(2 * np.pi)
    log_likelihood = -0.5 * (residual**2 + log_2pi + 2 * np.log(ORACLE.scale)).sum(axis=-1)
    log_prior = -0.5 * (z**2 + log_2pi).sum(axis=-1)
    log_q = -0.5 * (eps**2 + log_2pi).sum(axis=-1) - log_scale.sum(axis=-1)[None]
    w = log_likelihood + log_prior - log_q
    return jnp.log(jnp.mean(jnp.exp(w), axis=0)).mean()


def test_gradient_is_that_of_the_bound_written_out():  # mistake 15
    key = jax.random.key(8)
    eps = jax.vmap(lambda k: jax.random.normal(k, (BATCH, LATENT)))(keys.many(key, K))
    value, expected = jax.jit(jax.value_and_grad(explicit_bound))(OFF, eps)

    def ours(params):
        return bounds.importance_weighted_bound(bounds.log_weights(MODEL, params, X, jax.random.key(8), K)).mean()

    ours_value, ours_gradient = jax.jit(jax.value_and_grad(ours))(OFF)
    np.testing.assert_allclose(ours_value, value, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), ours_gradient, expected)


def test_doubly_reparameterised_value_is_the_bound():  # mistake 15, mistake 17
    ours = jax.jit(lambda key: bounds.doubly_reparameterised_bound(MODEL, OFF, X, key, K))(jax.random.key(5))
    np.testing.assert_allclose(ours, log_mean_exp(many_log_weights()[:K]), rtol=1e-5)


def test_doubly_reparameterised_gradient_has_the_same_mean_and_less_variance():
    plain, doubly = gradients("plain"), gradients("doubly")
    assert_mean(plain["encoder"] - doubly["encoder"], 0.0)
    assert doubly["encoder"].var(axis=0).sum() < plain["encoder"].var(axis=0).sum()
    # the decoder is met in p alone, where both are the same estimator
    np.testing.assert_allclose(doubly["decoder"], plain["decoder"], rtol=1e-3, atol=1e-4)
    assert (np.abs(plain["encoder"].mean(axis=0)) > 0).all()


def test_doubly_reparameterised_gradient_vanishes_at_the_exact_posterior():
    """Every path through z carries d log w / dz = 0, so the encoder's gradient has no variance at all."""

    def bound(params, key):
        return bounds.doubly_reparameterised_bound(MODEL, params, X, key, K).mean()

    gradient = jax.jit(jax.vmap(jax.grad(bound), in_axes=(None, 0)))(EXACT, jax.random.split(jax.random.key(9), 20))
    # differences of float32 numbers of the size of the plain gradient
    assert np.abs(flat(gradient["encoder"])).max() < 1e-4 * np.abs(gradients("plain")["encoder"]).max()


@cache
def elbo_gradients(landing: bool, exact: bool) -> np.ndarray:
    """Encoder gradients of the negative ELBO, `[REPEATS, parameters]`."""

    def loss(params, key):
        return bounds.elbo(MODEL, params, X, key, sticking_the_landing=landing).negative_elbo.mean()

    keys_ = jax.random.split(jax.random.key(10), REPEATS)
    return flat(jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, 0)))(EXACT if exact else OFF, keys_)["encoder"])


def test_sticking_the_landing_has_the_mean_of_the_gradient():
    assert_mean(elbo_gradients(True, False) - elbo_gradients(False, False), 0.0)
    assert np.abs(elbo_gradients(False, False).mean(axis=0)).max() > 0.1


def test_sticking_the_landing_has_no_variance_at_the_exact_posterior():
    noisy = np.abs(elbo_gradients(False, True)).max()
    assert noisy > 0.1
    assert np.abs(elbo_gradients(True, True)).max() < 1e-4 * noisy


def test_sticking_the_landing_has_the_sampled_rate_as_its_value():
    bound = bounds.elbo(MODEL, EXACT, X, jax.random.key(0), sticking_the_landing=True)
    np.testing.assert_allclose(-bound.negative_elbo, EVIDENCE, atol=5e-5)


@dataclass(frozen=True)
class _Unsummed(likelihoods.Normal):
    """Forgets to sum over the event, or brings an axis too many."""

    axis: bool = False

    def __call__(self, params, raw):
        q = super().__call__(params, raw)
        return _Elements(q.loc[..., None], q.log_scale) if self.axis else _Elements(q.loc, q.log_scale)


class _Elements(distributions.Normal):
    def log_prob(self, value):
        return -((value - self.loc) ** 2)

    def kl(self, other):
        return self.kl_terms(other)


class _UnsummedRate(VAE):
    def encode(self, params, x):
        q = super().encode(params, x)
        return _Elements(q.loc, q.log_scale)


class _UnsummedPrior(VAE):
    def prior(self, params, n):
        p = super().prior(params, n)
        return _Elements(p.loc, p.log_scale)


def test_what_is_no_number_per_example_is_refused_where_it_is_met():
    """It would broadcast to a loss that looks like one."""
    model = VAE(2, architectures.MLP(()), _Unsummed(), event_shape=(5,))
    params, x, key = oracles.random_params(model), jnp.ones((3, 5)), jax.random.key(1)
    refused = r"shape \(3, 5\) but expected \(3\). \[log_prob of _Elements p\(x\|z\): expected one number per example"
    with pytest.raises(AssertionError, match=refused):
        bounds.elbo(model, params, x, key)
    with pytest.raises(AssertionError, match=refused):
        bounds.log_weights(model, params, x, key, 4)
    codes = _UnsummedRate(2, architectures.MLP(()), event_shape=(5,))
    refused = r"shape \(3, 2\) but expected \(3\). \[KL of _Elements q\(z\|x\) from Normal p\(z\): expected one number"
    with pytest.raises(AssertionError, match=refused):
        jax.eval_shape(partial(bounds.elbo, codes), jax.eval_shape(codes.init, key), x, key)
    for other, name in ((codes, "q"), (_UnsummedPrior(2, architectures.MLP(()), event_shape=(5,)), "p")):
        log_weights = partial(bounds.log_weights, other, num_samples=4)
        with pytest.raises(
            AssertionError, match=rf"log_prob of _Elements {name}\(z.*: expected one number per example"
        ):
            jax.eval_shape(log_weights, jax.eval_shape(other.init, key), x, key)
    with pytest.raises(AssertionError, match=r"the mean of _Elements p\(x\|z\) and x"):
        bounds.squared_error(_Unsummed(axis=True)({}, jnp.ones((3, 5, 1))), x)


def test_scale_gradient_keeps_the_value_and_scales_the_gradient():
    tree = {"a": jnp.ones((2, 3)), "b": jnp.ones((2,))}
    factor = jnp.asarray([2.0, -0.5])

    def total(tree):
        scaled = bounds.scale_gradient(tree, factor)
        return sum((leaf**2).sum() for leaf in jax.tree.leaves(scaled)), scaled

    gradient, scaled = jax.grad(total, has_aux=True)(tree)
    chex.assert_trees_all_equal(scaled, tree)
    np.testing.assert_allclose(gradient["a"], np.repeat([[4.0], [-1.0]], 3, axis=1))
    np.testing.assert_allclose(gradient["b"], [4.0, -1.0])


# --- codes that are trees ---


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Two:
    """Two distributions side by side; a draw is a dict of both."""

    top: Any
    bottom: Any

    def sample(self, key):
        a, b = jax.random.split(key)
        return {"top": self.top.sample(a), "bottom": self.bottom.sample(b)}

    def log_prob(self, value):
        return self.top.log_prob(value["top"]) + self.bottom.log_prob(value["bottom"])

    def mean(self):
        return {"top": self.top.mean(), "bottom": self.bottom.mean()}

    def kl(self, other):
        return NotImplemented


class TwoLevels:
    """Someone's own latent model: the same linear-Gaussian model, its code split into a dict."""

    def init(self, key):
        return EXACT

    def encode(self, params, x):
        return self.split(MODEL.encode(params, x))

    def decode(self, params, z):
        return MODEL.decode(params, jnp.concatenate([z["top"], z["bottom"]], axis=-1))

    def prior(self, params, n):
        return self.split(MODEL.prior(params, n))

    def split(self, q):
        return Two(*(distributions.Normal(q.loc[:, i : i + 1], q.log_scale[:, i : i + 1]) for i in range(2)))


def test_a_hierarchical_code_passes_through_the_same_estimators():
    model = TwoLevels()
    log_w = jax.jit(lambda key: bounds.log_weights(model, EXACT, X, key, 4))(jax.random.key(0))
    np.testing.assert_allclose(log_w, np.broadcast_to(EVIDENCE, (4, BATCH)), atol=5e-5)
    negative_elbo = jax.jit(lambda key: bounds.elbo(model, EXACT, X, key).negative_elbo)(jax.random.key(1))
    np.testing.assert_allclose(-negative_elbo, EVIDENCE, atol=5e-5)
    doubly = jax.jit(lambda key: bounds.doubly_reparameterised_bound(model, EXACT, X, key, 4))(jax.random.key(0))
    np.testing.assert_allclose(doubly, EVIDENCE, atol=5e-5)


@pytest.mark.slow
def test_codes_that_are_maps_have_the_estimates_of_their_numbers():
    """And the gradients, which reach every element of a map by the weight of its own example."""
    maps = AsMaps(MODEL, (1, LATENT, 1))

    def estimates(model, params):
        one = bounds.elbo(model, params, X, jax.random.key(1))
        log_w = bounds.log_weights(model, params, X, jax.random.key(2), 3)
        doubly = bounds.doubly_reparameterised_bound(model, params, X, jax.random.key(2), 3)
        return one.distortion.sum(), one.rate.sum(), log_w.sum(), doubly.sum()

    def with_gradients(model):
        def twice(params):
            found = estimates(model, params)
            return found, found

        gradients, found = jax.jit(jax.jacrev(twice, has_aux=True))(OFF)
        return found, gradients

    (found, gradients), (expected, others) = (with_gradients(model) for model in (maps, MODEL))
    chex.assert_trees_all_close(gradients, others, rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_close(found, expected, rtol=1e-6)


# --- what is measured, and by which measure ---


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (Autoencoder(2, architectures.MLP(()), likelihoods.Bernoulli()), ("point", "mass")),
        (VAE(2, architectures.MLP(()), likelihoods.NormalOptimalScale()), ("density", "profile")),
    ],
    ids=["points and bits", "codes and a profile"],
)
def test_measures_are_those_of_codes_and_of_data(model, expected):
    model = dataclasses.replace(model, event_shape=(2, 3))
    params = jax.eval_shape(model.init, jax.random.key(0))
    assert bounds.measures(model, params, np.zeros((1, 2, 3), np.float32)) == expected


def test_points_with_a_profile_likelihood_have_its_distortion_alone():
    zero = jnp.zeros((1, 2))
    profile, point = distributions.NormalOptimalScale(zero), distributions.Delta(zero)
    terms = bounds.Bound(jnp.asarray([2.0]), jnp.asarray([3.0]), point, point, profile).terms
    assert terms == {"profile_distortion": jnp.asarray([2.0])}


def test_many_samples_beside_one_need_a_bound():
    """Of points, or of a profile likelihood, nothing is added; K belongs to the metric, and 2 are not 3."""
    assert bounds.weighted_terms(2) is bounds.weighted_terms(2) is not bounds.weighted_terms(3)
    points = Autoencoder(LATENT, architectures.MLP(()), event_shape=(SIZE,))
    profile = VAE(LATENT, architectures.MLP(()), likelihoods.NormalOptimalScale(), event_shape=(SIZE,))
    for model, names in (
        (points, {"distortion", "mse_at_mean"}),
        (profile, {"profile_distortion", "rate", "profile_loss", "mse_at_mean"}),
    ):
        params = jax.eval_shape(model.init, jax.random.key(0))
        assert set(jax.eval_shape(partial(bounds.weighted_terms(2), model), params, X, jax.random.key(0))) == names


def test_a_prior_at_hand_takes_the_place_of_the_models():
    q = oracles.encode(MODEL, OFF, X)
    z = q.loc
    other = distributions.Normal(jnp.full((BATCH, LATENT), 0.5), jnp.full((BATCH, LATENT), -0.7))
    usual, weight = (bounds.log_weight(MODEL, OFF, X, q, z, prior=p) for p in (None, other))
    laws = stats.norm(0.5, np.exp(-0.7)), stats.norm()
    expected = [law.logpdf(np.asarray(z, np.float64)).sum(axis=1) for law in laws]
    np.testing.assert_allclose(weight - usual, expected[0] - expected[1], rtol=1e-4)
