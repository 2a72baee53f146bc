"""Priors against SciPy and quadrature: densities, draws, and what they learn from."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from oracles import assert_mean, log_prob, mean, random_params, sample
from scipy import special, stats

from aevae_jax import VAE, Autoencoder, TwoLevelVAE
from aevae_jax.models import architectures, priors
from aevae_jax.objectives import bounds
from aevae_jax.types import Distribution, InputError

LATENT, COMPONENTS = 2, 3
PRIORS = {
    "StandardNormal": priors.StandardNormal(),
    "GaussianMixture": priors.GaussianMixture(COMPONENTS),
    "FullGaussianMixture": priors.FullGaussianMixture(COMPONENTS),
    "VampPrior": priors.VampPrior(COMPONENTS),
}
each = pytest.mark.parametrize("name", PRIORS)
MODELS = {name: VAE(LATENT, architectures.MLP(()), latent_prior=p, event_shape=(4,)) for name, p in PRIORS.items()}


def params_of(name: str):
    params = random_params(MODELS[name])
    if name == "FullGaussianMixture":
        prior = params["prior"]
        params = {**params, "prior": {**prior, "scale_tril": prior["scale_tril"] + jnp.eye(LATENT)[None]}}
    return params


PARAMS = {name: params_of(name) for name in PRIORS}


def f64(x) -> np.ndarray:
    return np.asarray(x, np.float64)


def oracle(name: str, z: np.ndarray) -> np.ndarray:
    """log p(z) in float64, `[N, 2] -> [N]`."""
    own = jax.tree.map(f64, PARAMS[name]["prior"])
    if name == "StandardNormal":
        return stats.norm().logpdf(z).sum(axis=1)
    if name == "FullGaussianMixture":
        lower = np.tril(own["scale_tril"])
        laws = [stats.multivariate_normal(m, s @ s.T) for m, s in zip(own["loc"], lower, strict=True)]
        parts = np.stack([law.logpdf(z) for law in laws], axis=1)
        return special.logsumexp(parts, b=special.softmax(own["logits"]), axis=1)
    if name == "VampPrior":  # the encoder's own answer to the pseudo-inputs, equally weighted
        q = oracles.encode(MODELS[name], PARAMS[name], PARAMS[name]["prior"]["pseudo_inputs"])
        loc, scale, weights = f64(q.loc), f64(q.scale), np.full(COMPONENTS, 1 / COMPONENTS)
    else:
        low, high = MODELS[name].log_scale_range
        u = (own["log_scale"] - (low + high) / 2) / ((high - low) / 2)
        scale = np.exp((low + high) / 2 + (high - low) / 2 * u / np.sqrt(1 + u * u))
        loc, weights = own["loc"], special.softmax(own["logits"])
    parts = stats.norm(loc, scale).logpdf(z[:, None]).sum(axis=2)
    return special.logsumexp(parts, b=weights, axis=1)


def plane(half: float = 12.0, points: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Nodes `[points^2, 2]` and weights of a Gauss-Legendre rule on a square."""
    nodes, weights = np.polynomial.legendre.leggauss(points)
    grid = np.stack(np.meshgrid(half * nodes, half * nodes, indexing="ij"), axis=-1).reshape(-1, 2)
    return grid, np.outer(half * weights, half * weights).reshape(-1)


@each
def test_log_prob_is_the_oracles(name):
    z = np.random.default_rng(0).normal(scale=2, size=(50, LATENT)).astype(np.float32)
    p = MODELS[name].prior(PARAMS[name], 50)
    assert isinstance(p, Distribution)
    np.testing.assert_allclose(log_prob(p, z), oracle(name, f64(z)), rtol=1e-5, atol=1e-5)


@each
def test_density_integrates_to_one_and_to_its_mean(name):
    z, weights = plane()
    density = np.exp(f64(log_prob(MODELS[name].prior(PARAMS[name], len(z)), z.astype(np.float32))))
    np.testing.assert_allclose(weights @ density, 1.0, rtol=1e-4)
    expected = mean(MODELS[name].prior(PARAMS[name], 1))[0]
    np.testing.assert_allclose((weights * density) @ z, expected, atol=1e-3)


@each
def test_draws_have_the_moments_of_the_density(name):  # mistake 5, mistake 6
    z, weights = plane()
    density = weights * np.exp(oracle(name, z))
    draws = sample(MODELS[name].prior(PARAMS[name], 10_000), jax.random.key(0))
    assert draws.shape == (10_000, LATENT)
    assert_mean(draws, density @ z)
    assert_mean(f64(draws) ** 2, density @ z**2)
    assert_mean(f64(draws).prod(axis=1), density @ z.prod(axis=1))


@each
def test_every_parameter_of_the_prior_is_trained_by_the_rate(name):  # mistake 28
    x = jnp.asarray(np.random.default_rng(1).normal(size=(6, 4)), jnp.float32)

    def rate(params):
        return bounds.elbo(MODELS[name], params, x, jax.random.key(0)).rate.mean()

    gradient = jax.jit(jax.grad(rate))(PARAMS[name])
    for leaf in jax.tree.leaves(gradient["prior"]):
        assert np.isfinite(leaf).all()
        assert np.any(leaf)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient["encoder"]))


@each
def test_rate_is_the_integral(name):  # mistake 4
    """In closed form for N(0, I); for mixtures the mean of the sampled rate is the integral of q log(q / p)."""
    x = jnp.asarray(np.random.default_rng(1).normal(size=(1, 4)), jnp.float32)
    model, params = MODELS[name], PARAMS[name]
    q = oracles.encode(model, params, x)
    z, weights = plane()
    log_q = stats.norm(f64(q.loc[0]), f64(q.scale[0])).logpdf(z).sum(axis=1)
    expected = weights @ (np.exp(log_q) * (log_q - oracle(name, z)))
    assert expected > 0
    keys = jax.random.split(jax.random.key(1), 5_000)
    rates = jax.jit(jax.vmap(lambda key: bounds.elbo(model, params, x, key).rate[0]))(keys)
    if name == "StandardNormal":
        np.testing.assert_allclose(rates, expected, rtol=1e-4)
    else:
        assert np.ptp(rates) > 0
        assert_mean(rates, expected)


def test_vamp_prior_follows_the_encoder():
    """It is made of q(z|u): moving the encoder moves the prior."""
    model, params = MODELS["VampPrior"], PARAMS["VampPrior"]
    moved = jax.tree.map(lambda leaf: leaf, params)
    moved["encoder"]["out"]["bias"] = moved["encoder"]["out"]["bias"] + jnp.asarray([1.0, 1.0, 0.0, 0.0])
    np.testing.assert_allclose(mean(model.prior(moved, 1)), mean(model.prior(params, 1)) + 1, atol=1e-5)


def test_vamp_prior_starts_in_the_range_of_the_data():
    start = priors.VampPrior(20).init(jax.random.key(0), MODELS["VampPrior"])["pseudo_inputs"]
    assert start.shape == (20, 4)
    assert (start >= 0).all()
    assert (start <= 1).all()


@pytest.mark.parametrize("cls", [priors.GaussianMixture, priors.FullGaussianMixture, priors.VampPrior])
def test_a_mixture_needs_a_component(cls):
    with pytest.raises(InputError, match=f"{cls.__name__} components: got 0, expected at least 1"):
        cls(0)


# --- fitted after training ---


def codes() -> np.ndarray:
    """Two well separated clusters, one of them slanted."""
    noise = np.random.default_rng(4).normal(size=(2, 400, LATENT))
    return np.concatenate([noise[0] * 0.3 - 3, noise[1] @ [[1.0, 0.9], [0.0, 0.4]] + 2])


def test_a_fitted_prior_takes_the_place_of_the_old_one():
    model = Autoencoder(LATENT, architectures.MLP(()), event_shape=(4,))
    params = random_params(model)
    fitted, new = priors.fit_mixture(model, params, codes(), components=2)
    assert fitted == dataclasses.replace(model, latent_prior=priors.FullGaussianMixture(2))
    assert all(new[part] is params[part] for part in ("encoder", "decoder", "likelihood"))
    assert params["prior"] == {}
    x = jnp.ones((3, 4))
    np.testing.assert_array_equal(mean(oracles.encode(fitted, new, x)), mean(oracles.encode(model, params, x)))

    z = codes()
    halves = [stats.multivariate_normal(part.mean(axis=0), np.cov(part.T, bias=True)) for part in (z[:400], z[400:])]
    expected = np.logaddexp(*(half.logpdf(z) for half in halves)) - np.log(2)
    ours = log_prob(fitted.prior(new, len(z)), z.astype(np.float32))
    # the floor under the covariance, a ten-thousandth of the variance of the codes, is all that differs
    np.testing.assert_allclose(f64(ours).mean(), expected.mean(), atol=1e-2)

    draws = sample(fitted.prior(new, 10_000), jax.random.key(0))
    assert_mean(draws, z.mean(axis=0))


def test_a_fitted_prior_weighs_its_components_as_the_codes_do():
    """Four fifths of them in one cluster: weights in the place of log weights would make that two thirds."""
    noise = np.random.default_rng(5).normal(size=(500, LATENT)) * 0.3
    unequal = noise + np.where(np.arange(500) < 400, -3.0, 3.0)[:, None]
    model = Autoencoder(LATENT, architectures.MLP(()), event_shape=(4,))
    _, new = priors.fit_mixture(model, random_params(model), unequal, components=2)
    np.testing.assert_allclose(np.sort(special.softmax(f64(new["prior"]["logits"]))), [0.2, 0.8], atol=1e-6)


def test_a_fitted_prior_depends_on_the_seed_of_its_start():
    """Of one cloud, in which EM ends where it was begun."""
    cloud = np.random.default_rng(6).normal(size=(60, LATENT))
    model = Autoencoder(LATENT, architectures.MLP(()), event_shape=(4,))
    params = random_params(model)
    first, again, other = (
        priors.fit_mixture(model, params, cloud, components=4, seed=seed)[1]["prior"]["loc"] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(np.sort(first, axis=0) - np.sort(other, axis=0)).max() > 1e-3


def test_a_prior_of_ones_own_replaces_the_old_one_through_the_params():
    """`dataclasses.replace` and `params["prior"]`: the model needs no other change."""
    model = VAE(LATENT, architectures.MLP(()), event_shape=(4,))
    params = random_params(model)
    mixture = dataclasses.replace(model, latent_prior=PRIORS["GaussianMixture"])
    own = {
        "logits": jnp.zeros(COMPONENTS),
        "loc": 3 * jnp.ones((COMPONENTS, LATENT)),
        "log_scale": jnp.zeros((COMPONENTS, LATENT)),
    }
    new = {**params, "prior": own}
    np.testing.assert_allclose(mean(mixture.prior(new, 2)), 3.0, rtol=1e-6)
    np.testing.assert_allclose(mean(model.prior(params, 2)), 0.0)
    x = jnp.ones((2, 4))
    np.testing.assert_array_equal(oracles.encode(mixture, new, x).loc, oracles.encode(model, params, x).loc)


def test_a_prior_of_two_levels_is_fitted_to_codes_of_the_upper_one():
    model = TwoLevelVAE(2 * LATENT, architectures.MLP((3,)), event_shape=(4,))
    params = random_params(model)
    fitted, new = priors.fit_mixture(model, params, codes(), components=2)
    assert jax.eval_shape(lambda p: fitted.prior(p, 3).sample(jax.random.key(0)), new).shape == (3, 2 * LATENT)
    whole = np.tile(codes(), 2)
    with pytest.raises(
        InputError, match=r"codes \(prior of a TwoLevelVAE\): got shape \(800, 4\), expected \(N, 2\).*codes\[:, -2:\]$"
    ):
        priors.fit_mixture(model, params, whole)


@pytest.mark.parametrize(
    ("model", "z", "message"),
    [
        (Autoencoder(LATENT, architectures.MLP(()), event_shape=(4,)), np.zeros((9, LATENT)), "N at least 10"),
        (
            Autoencoder(LATENT, architectures.MLP(()), event_shape=(4,)),
            np.full((20, LATENT), np.nan),
            "NaN or infinity",
        ),
        (object(), np.zeros((20, LATENT)), "got object, which has none as a value"),
    ],
)
def test_codes_that_no_mixture_fits_are_refused(model, z, message):
    with pytest.raises(InputError, match=message):
        priors.fit_mixture(model, {}, z)


# --- at the start ---


@pytest.mark.parametrize("cls", [priors.GaussianMixture, priors.FullGaussianMixture])
def test_a_mixture_starts_with_equal_weights_around_draws_from_the_standard_normal(cls):
    """Components at one place would stay there: their gradients are the same."""
    many = cls(2000)
    start = many.init(jax.random.key(0), MODELS["StandardNormal"])
    np.testing.assert_array_equal(start["logits"], np.zeros(2000))
    assert_mean(start["loc"], 0.0)
    assert_mean(f64(start["loc"]) ** 2, 1.0)
    other = many.init(jax.random.key(1), MODELS["StandardNormal"])
    assert (start["loc"] != other["loc"]).all()
    if cls is priors.GaussianMixture:
        np.testing.assert_array_equal(start["log_scale"], np.zeros((2000, LATENT)))
    else:
        np.testing.assert_array_equal(start["scale_tril"], np.broadcast_to(np.eye(LATENT), (2000, LATENT, LATENT)))


def test_pseudo_inputs_start_all_over_the_unit_interval():
    start = f64(priors.VampPrior(500).init(jax.random.key(0), MODELS["VampPrior"])["pseudo_inputs"])
    assert_mean(start, 0.5)
    assert_mean((start - 0.5) ** 2, 1 / 12)


def test_a_component_on_one_point_keeps_a_ten_thousandth_of_the_variance():
    """Whatever the unit of the codes: half of them at one place have no variance of their own."""
    one = np.concatenate([np.full((50, LATENT), -30.0), 30 + np.random.default_rng(0).normal(size=(50, LATENT))])
    model = Autoencoder(LATENT, architectures.MLP(()), event_shape=(4,))
    _, new = priors.fit_mixture(model, {"prior": {}}, one, components=2)
    own = jax.tree.map(f64, new["prior"])
    least = own["scale_tril"][np.argmin(own["loc"][:, 0])]
    np.testing.assert_allclose(least, np.eye(LATENT) * np.sqrt(1e-4 * one.var()), rtol=1e-4)


def test_as_many_codes_as_components_are_enough_and_never_one():
    model = Autoencoder(LATENT, architectures.MLP(()), event_shape=(4,))
    z = np.random.default_rng(0).normal(size=(3, LATENT))
    assert priors.fit_mixture(model, {}, z, components=3)[1]["prior"]["loc"].shape == (3, LATENT)
    with pytest.raises(InputError, match=r"codes .*: got shape \(1, 2\), expected \(N, 2\), N at least 2"):
        priors.fit_mixture(model, {}, z[:1], components=1)
    with pytest.raises(InputError, match=r"got shape \(3, 2\), expected \(N, 2\), N at least 4"):
        priors.fit_mixture(model, {}, z, components=4)
    with pytest.raises(InputError, match="codes: got NaN or infinity"):
        priors.fit_mixture(model, {}, np.where(z == z[2, 1], np.inf, z), components=2)


def test_log_scales_of_a_mixture_lie_in_the_range_of_its_model():
    model = dataclasses.replace(MODELS["GaussianMixture"], log_scale_range=(-1.0, 0.5))
    own = PARAMS["GaussianMixture"]["prior"]
    raw = jnp.asarray([[-1e6, 1e6], [-0.25, 1e6], [1e6, -1e6]])
    found = model.prior({"prior": {**own, "log_scale": raw}}, 1).components.log_scale
    np.testing.assert_allclose(found, [[-1.0, 0.5], [-0.25, 0.5], [0.5, -1.0]], atol=1e-3)
