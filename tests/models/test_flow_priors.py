"""Flow priors against quadrature, automatic differentiation and a density that no normal has; sizes that are odd."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from oracles import log_prob, mean, sample
from scipy import stats

from aevae_jax import VAE, Autoencoder, keys, training
from aevae_jax.evaluation import importance
from aevae_jax.models import TwoLevelVAE, architectures, likelihoods, priors
from aevae_jax.models.flow_priors import MAF, RealNVP
from aevae_jax.objectives import bounds
from aevae_jax.objectives.fitted_priors import PriorLikelihood
from aevae_jax.types import InputError

PRIORS = {"RealNVP": RealNVP(3, (5,)), "MAF": MAF(3, (5,))}
each = pytest.mark.parametrize("name", PRIORS)


def model_of(name: str, latent: Any) -> VAE:
    return VAE(latent, architectures.MLP(()), likelihoods.Normal(0.7), PRIORS[name], event_shape=(4,))


@cache
def params_of(name: str, latent: int, scale: float = 0.5) -> Any:
    """Parameters at which it is no normal, and every one of them counts."""
    generator = np.random.default_rng(latent)
    shapes = jax.eval_shape(model_of(name, latent).init, jax.random.key(0))
    return jax.tree.map(lambda leaf: generator.normal(scale=scale, size=leaf.shape).astype(np.float32), shapes)


def prior_of(name: str, latent: int, n: int, scale: float = 0.5) -> Any:
    return model_of(name, latent).prior(params_of(name, latent, scale), n)


@pytest.mark.parametrize(("name", "latent"), [("MAF", 1), ("MAF", 2), ("RealNVP", 2)])
def test_density_integrates_to_one_and_is_that_of_the_draws(name, latent):
    half, points = 24.0, 400
    x, w = np.polynomial.legendre.leggauss(points)
    axes = np.meshgrid(*[half * x] * latent, indexing="ij")
    z = np.stack(axes, axis=-1).reshape(-1, latent)
    weights = (half * w if latent == 1 else half**2 * np.outer(w, w)).reshape(-1)
    density = weights * np.exp(
        np.asarray(log_prob(prior_of(name, latent, len(z), 0.35), z.astype(np.float32)), np.float64)
    )
    np.testing.assert_allclose(density.sum(), 1.0, atol=1e-3)
    draws = np.asarray(sample(prior_of(name, latent, 20_000, 0.35), jax.random.key(0)), np.float64)
    for moment in (lambda z: z, np.tanh, lambda z: np.tanh(z.prod(axis=1, keepdims=True))):
        values = moment(draws)
        off = 5 * values.std(axis=0) / np.sqrt(len(draws)) + 2e-3
        assert (np.abs(values.mean(axis=0) - density @ moment(z)) < off).all()


@pytest.mark.parametrize(
    ("name", "latent"), [("RealNVP", 2), ("RealNVP", 5), ("RealNVP", 6), ("MAF", 1), ("MAF", 4), ("MAF", 5)]
)
def test_log_determinant_is_that_of_automatic_differentiation(name, latent):
    """Of all layers together, of odd sizes, too; a draw has the density that it has as a given code."""
    flow = prior_of(name, latent, 3)

    @jax.jit
    def program(flow, key):
        noise = flow.base.sample(jax.random.clone(key))
        z, log_p = flow.sample_and_log_prob(key)

        def moved(noise):
            for each in flow.maps:
                noise = each.forward(noise)[0]
            return noise

        return noise, log_p, flow.log_prob(z), jax.jacfwd(moved)(noise)

    noise, along, given, jacobian = program(flow, jax.random.key(1))
    log_det = [np.linalg.slogdet(np.asarray(jacobian[i, :, i], np.float64))[1] for i in range(3)]
    expected = stats.norm().logpdf(np.asarray(noise, np.float64)).sum(axis=1) - log_det
    np.testing.assert_allclose(along, expected, atol=2e-4)
    np.testing.assert_allclose(given, along, atol=2e-3)
    assert np.ptp(log_det) > 1e-2 or latent == 1
    blocks = np.stack([np.abs(jacobian[i, :, i]) for i in range(3)])
    assert (blocks > 0).sum(axis=(1, 2)).min() >= 0.75 * latent**2  # elements depend on one another, not in blocks


@each
def test_it_begins_at_the_standard_normal(name):
    model = model_of(name, 3)
    params = jax.jit(model.init)(jax.random.key(0))
    z = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_allclose(log_prob(model.prior(params, 5), z), stats.norm().logpdf(z).sum(axis=1), rtol=1e-5)
    np.testing.assert_allclose(mean(model.prior(params, 5)), 0.0, atol=1e-6)
    kernels = [leaf for leaf in jax.tree.leaves(params["prior"]) if leaf.ndim == 2 and np.any(leaf)]
    assert len({kernel.tobytes() for kernel in kernels}) == len(kernels) == 3  # no two layers are drawn by one key


@each
def test_every_parameter_is_trained_by_the_rate_of_the_ordinary_bound(name):  # mistake 28
    model, params = model_of(name, 3), params_of(name, 3)
    x = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)

    def terms(params):
        bound = bounds.elbo(model, params, x, jax.random.key(0))
        return bound.rate.mean(), bound.distortion.mean()

    rate, distortion = jax.jit(jax.jacrev(terms))(params)
    own = jax.tree.leaves(rate["prior"])
    masked = sum(not np.any(leaf) for leaf in own)
    assert all(np.isfinite(leaf).all() for leaf in own)
    assert masked == 0
    assert all(np.any(leaf) for leaf in jax.tree.leaves(rate["encoder"]))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(distortion["prior"]))


@pytest.mark.parametrize("name", PRIORS)
def test_likelihood_by_importance_sampling_is_the_integral(name):
    """p(x) = integral of p(z) p(x|z), by quadrature in two dimensions."""
    model, params = model_of(name, 2), params_of(name, 2, 0.3)
    x = np.random.default_rng(1).normal(size=(2, 4)).astype(np.float32)
    nodes, w = np.polynomial.legendre.leggauss(200)
    z = np.stack(np.meshgrid(8 * nodes, 8 * nodes, indexing="ij"), axis=-1).reshape(-1, 2)
    log_p = np.asarray(log_prob(model.prior(params, len(z)), z.astype(np.float32)), np.float64)
    layer = {k: np.asarray(v, np.float64) for k, v in params["decoder"]["out"].items()}
    loc = z @ layer["kernel"] + layer["bias"]
    weights = 64 * np.outer(w, w).reshape(-1)
    log_likelihood = stats.norm(loc[:, None], 0.7).logpdf(x[None]).sum(axis=-1)
    expected = np.log(weights @ np.exp(log_p[:, None] + log_likelihood))
    found = importance.estimate(model, params, jnp.asarray(x), jax.random.key(0), num_samples=20_000)
    assert (found.sampling_error < 0.1).all()
    assert (np.abs(-found.nll - expected) < 6 * found.sampling_error + 1e-3).all()


@pytest.mark.slow
@each
def test_fitted_to_the_codes_of_an_autoencoder_it_is_nearer_than_any_normal(name):
    """Codes on a bent line: the best normal is known in closed form. So the autoencoder generates."""
    t, noise = np.random.default_rng(0).normal(size=(2, 400))
    codes = np.stack([3 * t, t**2 + 0.2 * noise], axis=1).astype(np.float32)
    model = Autoencoder(2, architectures.MLP(()), likelihoods.Normal(), PRIORS[name], event_shape=(2,))
    params = jax.jit(model.init)(jax.random.key(1))
    params["encoder"] = {"out": {"kernel": jnp.eye(2), "bias": jnp.zeros(2)}}
    tx = optax.adam(0.02)
    step = training.make_train_step(model, PriorLikelihood(), tx)
    state = training.state_at(params, tx, objective=PriorLikelihood())
    rows = jnp.tile(jnp.arange(400)[None], (500, 1))
    whole = training.step.Chunk(jnp.asarray(codes), rows)
    metrics = training.empty_outputs(step, state, whole, keys.root(0), steps=500)
    state, metrics = training.advance(step, state, whole, keys.root(0), metrics=metrics, start=0, stop=500)
    normal = stats.multivariate_normal(codes.mean(axis=0), np.cov(codes.T, bias=True)).logpdf(codes).mean()
    assert -float(metrics["negative_log_prior"][-1]) > normal + 0.4
    draws = np.asarray(sample(model.prior(state.params, 4_000), jax.random.key(0)), np.float64)
    bent = stats.spearmanr(draws[:, 1], draws[:, 0] ** 2)[0]  # by ranks: a few draws lie far out
    assert bent > 0.8  # of a normal it is 0 where its elements are not correlated
    np.testing.assert_array_equal(state.params["encoder"]["out"]["kernel"], np.eye(2))


@each
def test_codes_may_be_maps_or_of_an_upper_level(name):
    image = VAE((2, 2, 3), architectures.Conv((4,)), likelihoods.Normal(), PRIORS[name], event_shape=(4, 4, 1))
    params = jax.eval_shape(image.init, jax.random.key(0))
    assert params["prior"]["loc"].shape == (12,)

    def program(params, key):
        p = image.prior(params, 3)
        z = p.sample(key)
        return z, p.log_prob(z), image.decode(params, z).mean()

    z, log_p, made = jax.eval_shape(program, params, jax.random.key(0))
    assert (z.shape, log_p.shape, made.shape) == ((3, 2, 2, 3), (3,), (3, 4, 4, 1))
    two = TwoLevelVAE(5, architectures.MLP((3,)), likelihoods.Normal(), PRIORS[name], event_shape=(4,))
    params = jax.eval_shape(two.init, jax.random.key(0))
    assert params["prior"]["loc"].shape == (2,)
    assert jax.eval_shape(lambda p: two.prior(p, 3).sample(jax.random.key(0)), params).shape == (3, 5)


def test_impossible_sizes_are_refused_in_a_line():
    with pytest.raises(InputError, match=r"^latent size of a RealNVP: got 1, expected at least 2: one half says"):
        jax.eval_shape(model_of("RealNVP", 1).init, jax.random.key(0))
    for make, message in (
        (lambda: RealNVP(0), r"^layers \(RealNVP\): got 0, expected at least 1$"),
        (lambda: MAF(-1), r"^layers \(MAF\): got -1, expected at least 1$"),
        (lambda: MAF(1, ()), r"^hidden \(MAF\): got \(\), expected at least one hidden layer$"),
        (lambda: RealNVP(1, (0,)), r"^hidden \(RealNVP\): got 0, expected at least 1$"),
    ):
        with pytest.raises(InputError, match=message):
            make()
    assert priors.RealNVP is RealNVP
