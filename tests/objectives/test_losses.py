"""Losses: what they are made of, how they are weighted, and what is reported beside them."""

from __future__ import annotations

import dataclasses
import math
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
from oracles import LOG_2PI, assert_mean, linear_gaussian, log_mean_exp, normal_kl, random_params

from aevae_jax import VAE, Autoencoder, objectives
from aevae_jax.models import architectures, likelihoods, priors
from aevae_jax.objectives import bounds
from aevae_jax.objectives.losses import ELBO, IWAE, LinearWarmup, ReconstructionError
from aevae_jax.types import InputError

SIZE, LATENT, BATCH = 5, 4, 6
ORACLE = linear_gaussian(SIZE, LATENT)
MODEL = VAE(LATENT, architectures.MLP(()), likelihoods.Normal(ORACLE.scale), event_shape=(SIZE,))
POINTS = Autoencoder(LATENT, architectures.MLP(()), likelihoods.Normal(), event_shape=(SIZE,))
X = jnp.asarray(np.random.default_rng(0).normal(scale=1.5, size=(BATCH, SIZE)), jnp.float32)
ENCODER, SCALE = ORACLE.posterior_map()
SCALE = SCALE * np.asarray([1.0, 1.3, 0.8, 1.1])
PARAMS = ORACLE.params(ENCODER, SCALE, MODEL.log_scale_range)
KL_TERMS = normal_kl((np.asarray(X) - ORACLE.bias) @ ENCODER.T, SCALE)  # [B, L]


PER_DIMENSION = KL_TERMS.mean(axis=0)
POINT_PARAMS = random_params(POINTS)
LIMITS = {groups: float(np.median(PER_DIMENSION.reshape(groups, -1).sum(axis=1))) for groups in (2, 4)}
LOW_LIMIT = 0.9 * float(PER_DIMENSION.min())
IWAES = [IWAE(k, doubly) for k in (1, 5) for doubly in (False, True)]
VARIANTS = [
    ELBO(),
    *(ELBO(beta=beta) for beta in (0.0, 0.5, 4.0)),
    *(ELBO(free_bits=limit, groups=groups) for groups, limit in LIMITS.items()),
    ELBO(free_bits=LIMITS[4]),
    ELBO(free_bits=LOW_LIMIT),
    ELBO(free_bits=100.0),
    ELBO(free_bits=100.0, groups=1),
    ELBO(beta=0.5, free_bits=100.0, groups=2),
    ELBO(sticking_the_landing=True),
    *IWAES,
]


@cache
def results():
    """Loss and metrics of every variant at one key, and of the autoencoder's loss at two: one compilation for all."""

    @jax.jit
    def run(params, point_params, x, seed):
        def at(objective, model=MODEL, p=params, shift=0):
            return objective(model, p, x, jax.random.key(seed + shift), 0)

        points = [at(ReconstructionError(), POINTS, point_params, shift) for shift in (0, 1)]
        draws = {f"VAE at key {shift}": at(ReconstructionError(), shift=shift) for shift in (0, 1)}
        return {
            **{repr(variant): at(variant) for variant in VARIANTS},
            **draws,
            "points": points[0],
            "other key": points[1],
        }

    return run(PARAMS, POINT_PARAMS, X, 0)


def call(objective) -> tuple[float, dict[str, float]]:
    loss, metrics = results()[repr(objective)]
    return float(loss), {name: float(value) for name, value in metrics.items()}


# --- the autoencoder's loss ---


def test_reconstruction_error_is_the_gaussian_nll_with_its_constant_and_mse_goes_by_its_name():  # mistake 36
    loss, metrics = results()["points"]
    encoder, decoder = (jax.tree.map(np.asarray, POINT_PARAMS[part]["out"]) for part in ("encoder", "decoder"))
    code = np.asarray(X, np.float64) @ encoder["kernel"] + encoder["bias"]
    out = code @ decoder["kernel"] + decoder["bias"]
    squares = ((out - np.asarray(X)) ** 2).sum(axis=1)
    np.testing.assert_allclose(loss, (squares / 2 + SIZE / 2 * LOG_2PI).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["distortion"], loss)
    np.testing.assert_allclose(metrics["mse"], (squares / SIZE).mean(), rtol=1e-5)


def test_reconstruction_error_of_a_vae_is_that_of_a_draw():  # mistake 7
    """Not of the mean of q(z|x), which would be the same at every key."""
    assert results()["VAE at key 0"][0] != results()["VAE at key 1"][0]


def test_reconstruction_error_of_an_autoencoder_has_no_noise():  # mistake 8
    assert results()["points"][0] == results()["other key"][0]


# --- the ELBO's weights ---


def plain() -> dict[str, float]:
    return call(ELBO())[1]


def test_elbo_is_the_batch_mean_of_the_bound():  # mistake 1, mistake 2
    bound = jax.jit(lambda key: bounds.elbo(MODEL, PARAMS, X, key)[:2])(jax.random.key(0))
    np.testing.assert_allclose(plain()["distortion"], bound[0].mean(), rtol=1e-6)
    np.testing.assert_allclose(plain()["rate"], bound[1].mean(), rtol=1e-6)
    np.testing.assert_allclose(plain()["rate"], KL_TERMS.sum(axis=1).mean(), rtol=1e-5)
    np.testing.assert_allclose(plain()["loss"], plain()["distortion"] + plain()["rate"], rtol=1e-6)
    assert plain()["rate"] > 0  # mistake 4


@pytest.mark.parametrize("beta", [0.0, 0.5, 4.0])
def test_beta_weighs_the_rate_in_the_loss_and_nothing_that_is_reported(beta):  # mistake 2, mistake 3
    loss, metrics = call(ELBO(beta=beta))
    np.testing.assert_allclose(loss, plain()["distortion"] + beta * plain()["rate"], rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], loss)
    for name in ("distortion", "rate", "negative_elbo"):
        np.testing.assert_allclose(metrics[name], plain()[name], rtol=1e-6)


def test_the_derivative_in_beta_is_the_rate():  # mistake 3
    slope = jax.jit(jax.grad(lambda beta: ELBO(beta=beta)(MODEL, PARAMS, X, jax.random.key(0), 0)[0]))(2.0)
    np.testing.assert_allclose(slope, plain()["rate"], rtol=1e-5)


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        (0.3, [0.3, 0.3, 0.3]),
        (LinearWarmup(10), [0.0, 0.5, 1.0]),
        (LinearWarmup(10, start=0.2, end=0.6), [0.2, 0.4, 0.6]),
        (optax.linear_schedule(1.0, 3.0, 10), [1.0, 2.0, 3.0]),
        (lambda step: step * 0.1, [0.0, 0.5, 2.0]),
    ],
    ids=["number", "LinearWarmup", "LinearWarmup from to", "optax", "function"],
)
def test_a_weight_is_a_number_or_a_function_of_the_step(weight, expected):  # mistake 3
    losses = jax.jit(jax.vmap(lambda step: ELBO(beta=weight)(MODEL, PARAMS, X, jax.random.key(0), step)[0]))(
        jnp.asarray([0, 5, 20])
    )
    np.testing.assert_allclose((losses - plain()["distortion"]) / plain()["rate"], expected, atol=1e-4)
    steps = [objectives.weight_at(weight, jnp.asarray(step)) for step in (0, 5, 20)]
    np.testing.assert_allclose(steps, expected, atol=1e-6)


# --- what each term trains ---


def test_every_term_trains_what_it_should():  # mistake 28
    """The rate trains encoder and prior; the distortion encoder, decoder and likelihood. Neither touches the rest."""
    model = VAE(
        2,
        architectures.MLP((3,), gated=True),
        likelihoods.NormalSharedScale(),
        priors.GaussianMixture(2),
        event_shape=(SIZE,),
    )

    def terms(params):
        metrics = ELBO()(model, params, X, jax.random.key(0), 0)[1]
        return metrics["distortion"], metrics["rate"]

    distortion, rate = (
        {part: [bool(np.any(leaf)) for leaf in jax.tree.leaves(gradient[part])] for part in gradient}
        for gradient in jax.jit(jax.jacrev(terms))(random_params(model))
    )
    assert all(distortion["encoder"] + distortion["decoder"] + distortion["likelihood"])
    assert not any(distortion["prior"])
    assert all(rate["encoder"] + rate["prior"])
    assert not any(rate["decoder"] + rate["likelihood"])


# --- free bits ---


@pytest.mark.parametrize("groups", LIMITS)
def test_free_bits_limit_the_batch_mean_of_each_group(groups):  # mistake 25
    per_group = PER_DIMENSION.reshape(groups, -1).sum(axis=1)
    loss, metrics = call(ELBO(free_bits=LIMITS[groups], groups=groups))
    expected = np.maximum(LIMITS[groups], per_group).sum()
    assert expected > per_group.sum() * 1.001
    np.testing.assert_allclose(loss - metrics["distortion"], expected, rtol=1e-4)


def test_free_bits_are_per_dimension_unless_grouped():  # mistake 25
    assert call(ELBO(free_bits=LIMITS[4])) == call(ELBO(free_bits=LIMITS[4], groups=LATENT))


def test_free_bits_are_not_limited_per_example():  # mistake 25
    """Some examples lie below the limit and some above; a limit on each would cost more than one on their mean."""
    assert (LOW_LIMIT > KL_TERMS).any()
    each = np.maximum(LOW_LIMIT, KL_TERMS).mean(axis=0).sum()
    loss, metrics = call(ELBO(free_bits=LOW_LIMIT))
    np.testing.assert_allclose(loss - metrics["distortion"], PER_DIMENSION.sum(), rtol=1e-4)
    assert each > PER_DIMENSION.sum() * 1.001


def test_the_rate_is_reported_without_its_limit():  # mistake 25
    loss, metrics = call(ELBO(free_bits=100.0))
    np.testing.assert_allclose(metrics["rate"], plain()["rate"], rtol=1e-6)
    np.testing.assert_allclose(metrics["negative_elbo"], plain()["negative_elbo"], rtol=1e-6)
    np.testing.assert_allclose(loss - metrics["distortion"], 100.0 * LATENT, rtol=1e-5)
    loss, metrics = call(ELBO(free_bits=100.0, groups=1))
    np.testing.assert_allclose(loss - metrics["distortion"], 100.0, rtol=1e-5)


def test_free_bits_weigh_with_beta():
    loss, metrics = call(ELBO(beta=0.5, free_bits=100.0, groups=2))
    np.testing.assert_allclose(loss - metrics["distortion"], 0.5 * 200.0, rtol=1e-5)


def test_below_its_limit_a_dimension_has_no_gradient_and_above_it_the_whole():  # mistake 25, mistake 28
    order = np.argsort(PER_DIMENSION)
    limit = float(PER_DIMENSION[order[1:3]].mean())

    def limited(params, objective):
        loss, metrics = objective(MODEL, params, X, jax.random.key(0), 0)
        return loss - metrics["distortion"]

    both = jax.jit(jax.jacrev(lambda p: (limited(p, ELBO(free_bits=limit)), limited(p, ELBO()))))(PARAMS)
    gradient, whole = (g["encoder"]["out"]["bias"] for g in both)
    for part in (slice(0, LATENT), slice(LATENT, None)):  # means, then raw log scales
        np.testing.assert_allclose(gradient[part][order[:2]], 0.0, atol=1e-6)
        np.testing.assert_allclose(gradient[part][order[2:]], whole[part][order[2:]], rtol=1e-4)


def test_free_bits_need_a_rate_per_dimension():
    model = dataclasses.replace(MODEL, latent_prior=priors.GaussianMixture(2))
    with pytest.raises(InputError, match=r"free_bits: got a prior of type Mixture, expected a rate in closed form"):
        jax.eval_shape(lambda p: ELBO(free_bits=0.1)(model, p, X, jax.random.key(0), 0), random_params(model))
    with pytest.raises(InputError, match="groups: got 3, expected a divisor of the latent size 4"):
        jax.eval_shape(lambda p: ELBO(free_bits=0.1, groups=3)(MODEL, p, X, jax.random.key(0), 0), PARAMS)


# --- sticking the landing, IWAE ---


def test_sticking_the_landing_is_passed_on():
    _, metrics = call(ELBO(sticking_the_landing=True))
    q = oracles.encode(MODEL, PARAMS, X)
    sampled = bounds.sampled_rate(q, MODEL.prior(PARAMS, BATCH), q.sample(jax.random.key(0)))
    np.testing.assert_allclose(metrics["rate"], sampled.mean(), rtol=1e-5)
    assert abs(float(metrics["rate"]) - plain()["rate"]) > 1e-3


@cache
def log_weights() -> np.ndarray:
    return np.asarray(jax.jit(lambda key: bounds.log_weights(MODEL, PARAMS, X, key, 8))(jax.random.key(0)))


@pytest.mark.parametrize("objective", IWAES, ids=repr)
def test_iwae_is_the_negative_bound_of_exactly_k_samples(objective):  # mistake 15, mistake 16, mistake 17
    loss, metrics = call(objective)
    expected = -log_mean_exp(log_weights()[: objective.num_samples]).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["negative_importance_weighted_bound"], expected, rtol=1e-5)
    for other in {objective.num_samples - 1, objective.num_samples + 1} - {0}:
        assert abs(loss + log_mean_exp(log_weights()[:other]).mean()) > 1e-3


def test_iwae_of_one_sample_is_the_elbo_in_the_mean():  # mistake 15
    keys = jax.random.split(jax.random.key(1), 4_000)
    one = jax.jit(jax.vmap(lambda key: IWAE(1)(MODEL, PARAMS, X, key, 0)[0]))(keys)
    scales = np.broadcast_to(SCALE, KL_TERMS.shape)
    distortion = ORACLE.distortion(X, (np.asarray(X) - ORACLE.bias) @ ENCODER.T, scales)
    assert_mean(one, (distortion + KL_TERMS.sum(axis=1)).mean())


def test_the_two_iwae_gradients_differ_draw_by_draw():
    """So that the option cannot be lost on the way."""

    def losses(params):
        return [IWAE(5, doubly)(MODEL, params, X, jax.random.key(0), 0)[0] for doubly in (False, True)]

    plain, doubly = (g["encoder"]["out"]["kernel"] for g in jax.jit(jax.jacrev(losses))(PARAMS))
    assert np.abs(plain - doubly).max() > 1e-2


# --- extremes, names, settings ---

EXTREME_LIKELIHOODS = [likelihoods.Bernoulli(), likelihoods.NormalElementScale(), likelihoods.DiscretizedLogistic()]


@pytest.mark.parametrize("likelihood", EXTREME_LIKELIHOODS, ids=lambda value: type(value).__name__)
def test_losses_stay_finite_at_a_hundred_times_the_inputs_and_weights(likelihood):  # mistake 10, mistake 11, mistake 14
    model = VAE(2, architectures.MLP((3,)), likelihood, event_shape=(SIZE,))
    params, x = random_params(model), (X > 0).astype(jnp.float32)

    def total(params, x):
        return sum(o(model, params, x, jax.random.key(0), 0)[0] for o in (ELBO(), IWAE(2)))

    both = jax.jit(jax.value_and_grad(total))
    for weights, inputs in [(100, 1), (1, 100), (100, 100)]:
        loss, gradient = both(jax.tree.map(lambda leaf, w=weights: w * leaf, params), inputs * x)
        assert np.isfinite(loss)
        assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("name", [repr(ELBO()), repr(IWAE(5)), "points"])
def test_no_metric_is_called_a_likelihood_or_an_elbo_to_be_minimised(name):  # mistake 4, mistake 9
    """Signs are in the names; a cross-entropy or an MSE is never an NLL."""
    loss, metrics = results()[name]
    assert loss.shape == ()
    assert all(value.shape == () for value in metrics.values())
    assert not {"elbo", "nll", "likelihood", "kl"} & set(metrics)
    np.testing.assert_array_equal(metrics["loss"], loss)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ELBO(free_bits=-1.0),
        lambda: ELBO(groups=-1),
        lambda: ELBO(free_bits=1.0, sticking_the_landing=True),
        lambda: IWAE(0),
        lambda: LinearWarmup(0),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(InputError, match=r"got .*, expected") as error:
        make()
    assert "\n" not in str(error.value)


def test_each_names_what_selects_its_parameters():
    found = {repr(o): o.validation() for o in (ReconstructionError(), ELBO(beta=4.0), IWAE(1), IWAE(2))}
    assert {name: minimised for name, (_, minimised) in found.items()} == {
        repr(ReconstructionError()): ("distortion", "profile_distortion"),
        repr(ELBO(beta=4.0)): ("negative_elbo", "profile_loss"),
        repr(IWAE(1)): ("negative_elbo",),
        repr(IWAE(2)): ("negative_importance_weighted_bound",),
    }
    metrics = [metric for metric, _ in found.values()]
    assert metrics == [bounds.bound_terms] * 3 + [bounds.weighted_terms(2)]
    assert (ELBO().needs_rate, IWAE().needs_rate, hasattr(ReconstructionError(), "needs_rate")) == (True, True, False)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LinearWarmup(0), "LinearWarmup steps: got 0, expected at least 1"),
        (lambda: LinearWarmup(1, start=1e39), r"LinearWarmup start: got 1e\+39, expected at most 3.40282346639e\+38"),
        (lambda: LinearWarmup(1, start=-0.1), "LinearWarmup start: got -0.1, expected at least 0"),
        (lambda: LinearWarmup(1, end=-1e-9), "LinearWarmup end: got -1e-09, expected at least 0"),
        (lambda: ELBO(-1), "beta: got -1, expected at least 0"),
        (lambda: ELBO(np.float32(-1)), r"beta: got np.float32\(-1.0\), expected at least 0"),
        (lambda: ELBO(math.nan), "beta: got nan, expected a number"),
        (lambda: ELBO(math.inf), r"beta: got inf, expected at most 3.40282346639e\+38"),
        (lambda: ELBO(free_bits=-0.1), "free_bits: got -0.1, expected at least 0"),
        (lambda: ELBO(groups=-1), "groups: got -1, expected at least 0"),
        (lambda: IWAE(0), "num_samples: got 0, expected at least 1"),
    ],
    ids=range(11),
)
def test_what_is_refused_goes_by_its_name(make, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        make()


def test_a_warm_up_may_take_one_step_and_free_bits_may_be_few():
    assert [float(LinearWarmup(1, start=0.5)(step)) for step in (0, 1, 2)] == [0.5, 1.0, 1.0]
    assert ELBO(free_bits=1e-3).free_bits == 1e-3


def test_free_bits_cannot_be_had_without_a_rate_in_closed_form():
    """Points have none, whatever the prior."""
    with pytest.raises(InputError, match="free_bits: got a prior of type Normal, expected a rate in closed form"):
        jax.eval_shape(lambda p: ELBO(free_bits=0.1)(POINTS, p, X, jax.random.key(0), 0), POINT_PARAMS)
