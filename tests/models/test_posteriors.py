"""Posteriors as values: what they are made of, tight bounds, what they leave as it was, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from oracles import assert_mean, random_params
from scipy import stats

from aevae_jax import VAE, distributions, values
from aevae_jax.evaluation import importance
from aevae_jax.models import TwoLevelVAE, architectures, flow_networks, likelihoods, posteriors, priors
from aevae_jax.objectives import bounds
from aevae_jax.types import InputError

LATENT, SIZE, BATCH = 3, 5, 4
POSTERIORS = {
    "DiagonalNormal": posteriors.DiagonalNormal(),
    "FullNormal": posteriors.FullNormal(),
    "Householder": posteriors.Householder(2),
    "Planar": posteriors.Planar(2),
    "IAF": posteriors.IAF(2, (5,)),
}
each = pytest.mark.parametrize("name", POSTERIORS)
X = np.random.default_rng(0).normal(size=(BATCH, SIZE)).astype(np.float32)


def model_of(name: str, **fields: Any) -> VAE:
    base = VAE(LATENT, architectures.MLP(()), likelihoods.Normal(0.7), priors.StandardNormal(), event_shape=(SIZE,))
    return dataclasses.replace(base, posterior=POSTERIORS[name], **fields)


# --- the value ---


@each
def test_a_posterior_changes_neither_the_decoder_nor_the_prior_that_are_drawn(name):
    """Keys are split as they were: parameters of a seed do not depend on what is made of the encoder's outputs."""
    mixture = priors.GaussianMixture(3)
    init = jax.jit(model_of(name, latent_prior=mixture).init)
    params = init(jax.random.key(3))
    plain = jax.jit(model_of("DiagonalNormal", latent_prior=mixture).init)(jax.random.key(3))
    assert set(params) == {*plain, *(["posterior"] if name == "IAF" else [])}
    for part in ("decoder", "likelihood", "prior"):
        jax.tree.map(np.testing.assert_array_equal, params[part], plain[part])
    kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 2]
    assert len({leaf.ravel()[:3].tobytes() for leaf in kernels if np.any(leaf)}) == sum(map(np.any, kernels))


def test_a_value_of_before_has_the_default_and_is_written_as_it_was():
    tree = values.to_tree(VAE())
    assert "posterior" not in tree
    assert values.from_tree(VAE, json.loads(values.to_json(VAE())), "here") == VAE()
    assert values.from_tree(VAE, tree, "here").posterior == posteriors.DiagonalNormal()
    assert values.digest(VAE()) == "e34a1f3583353bc7c2af854fbd02f3424d0f695c5f94ea4bfb4ed44059232bc5"
    full = dataclasses.replace(VAE(), posterior=posteriors.FullNormal())
    assert values.to_tree(full)["posterior"] == {"type": "FullNormal"}
    assert values.parse(VAE, "VAE(8, posterior=IAF(3, (32, 16)))", "here") == VAE(
        8, posterior=posteriors.IAF(3, (32, 16))
    )


@each
@pytest.mark.parametrize("latent", [1, 2, 5])
def test_as_many_outputs_are_asked_for_as_are_used(name, latent):
    """Each is seen: the log density of a code that is not a draw depends on it."""
    posterior = POSTERIORS[name]
    shapes = jax.eval_shape(lambda key: posterior.init(key, latent), jax.random.key(0))
    own = jax.tree.map(lambda leaf: 0.5 * np.ones(leaf.shape, np.float32), shapes)
    raw = np.random.default_rng(1).normal(size=(2, posterior.outputs(latent))).astype(np.float32)
    z = np.random.default_rng(2).normal(size=(2, latent)).astype(np.float32)

    @jax.jit
    def gradient(raw, own):
        return jax.grad(lambda raw, own: posterior(own, raw, (-3.0, 1.0)).log_prob(z).sum(), (0, 1))(raw, own)

    of_raw, of_own = gradient(raw, own)
    seen = np.abs(of_raw).max(axis=0) > 1e-9
    if name == "Householder" and latent == 1:  # in one dimension a reflection is a change of sign
        seen[2:] = True
    if name == "Planar" and latent == 1:  # u and w count by what they make together
        assert seen[:2].all()
    else:
        assert seen.all()
    assert jax.tree.structure(of_own) == jax.tree.structure(own)


@each
def test_scales_stay_in_the_range_of_the_model(name):  # mistake 14
    posterior = POSTERIORS[name]
    shapes = jax.eval_shape(lambda key: posterior.init(key, LATENT), jax.random.key(0))
    own = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes)
    for size in (1e2, 1e4):
        raw = size * np.random.default_rng(1).normal(size=(4, posterior.outputs(LATENT))).astype(np.float32)

        @jax.jit
        def program(raw, own):
            def rate(raw, own):
                q = posterior(own, raw, (-3.0, 1.0))
                z, log_q = bounds.draw(q, jax.random.key(0))
                return bounds.rate(q, distributions.Normal(0 * z, 0 * z), z, log_q=log_q).sum(), q

            return jax.value_and_grad(rate, (0, 1), has_aux=True)(raw, own)

        (total, q), gradient = program(raw, own)
        assert np.isfinite(total)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
        base = q.base if isinstance(q, distributions.Flow) else q
        if isinstance(q, distributions.MultivariateNormal):
            log_scale = np.log(np.diagonal(q.scale_tril, axis1=1, axis2=2))
        else:
            log_scale = base.log_scale
        assert (log_scale >= -3.0 - 1e-5).all()
        assert (log_scale <= 1.0 + 1e-5).all()


def test_steps_of_an_iaf_are_gates_between_a_code_and_a_mean():
    """z <- sigma(s) z + (1 - sigma(s)) m, in one order and then in the other: Kingma et al. 2016, algorithm 1.

    Where m and s are 0, a gate keeps sigma(2) of the code.
    """
    posterior, key = posteriors.IAF(2, (5,)), jax.random.key(4)
    raw = np.random.default_rng(1).normal(size=(3, posterior.outputs(LATENT))).astype(np.float32)
    own = posterior.init(jax.random.key(0), LATENT)
    random = np.random.default_rng(2)
    trained = jax.tree.map(lambda leaf: (0.3 * random.normal(size=leaf.shape)).astype(np.float32), own)
    for params in (own, trained):
        q = posterior(params, raw, (-3.0, 1.0))
        z = np.asarray(q.base.sample(jax.random.clone(key)))
        for step in ("step_0", "step_1"):
            z = z if step == "step_0" else z[:, ::-1]
            mean, logit = np.moveaxis(
                np.asarray(flow_networks.MADE((5,)).apply({"params": params[step]}, z, raw[:, 2 * LATENT :])), 1, 0
            )
            logit = (logit + 2) / np.sqrt(1 + ((logit + 2) / 8) ** 2)  # stays within 8 of 0
            gate = 1 / (1 + np.exp(-logit))
            z = gate * z + (1 - gate) * mean
        np.testing.assert_allclose(q.sample(jax.random.clone(key)), z, rtol=1e-4, atol=1e-5)
        assert (params is own) == (not np.any(mean))


# --- tight bounds: a linear-Gaussian model whose posterior is correlated ---

WEIGHT = np.random.default_rng(3).normal(size=(SIZE, LATENT)) + 1.5 * np.random.default_rng(4).normal(size=(SIZE, 1))
BIAS, NOISE = np.random.default_rng(4).normal(size=SIZE), 0.7
PRECISION = np.eye(LATENT) + WEIGHT.T @ WEIGHT / NOISE**2
COVARIANCE = np.linalg.inv(PRECISION)
TO_MEAN = COVARIANCE @ WEIGHT.T / NOISE**2
EVIDENCE = stats.multivariate_normal(BIAS, WEIGHT @ WEIGHT.T + NOISE**2 * np.eye(SIZE)).logpdf(X.astype(np.float64))
GAP = 0.5 * (np.log(np.diag(PRECISION)).sum() - np.linalg.slogdet(PRECISION)[1])
"""KL of the best diagonal normal, of the same mean and variances 1 / precision, from the posterior."""


@cache
def tight(name: str) -> tuple[VAE, Any]:
    """A model with q(z|x) as near to p(z|x) as its family has one."""
    model = model_of(name)
    if name == "DiagonalNormal":
        log_scale, rest = -0.5 * np.log(np.diag(PRECISION)), np.zeros(0)
    elif name == "FullNormal":
        lower = np.linalg.cholesky(COVARIANCE)
        log_scale, rest = np.log(np.diag(lower)), lower[np.tril_indices(LATENT, -1)]
    else:  # two reflections turn the axes of three dimensions into any others
        variances, axes = np.linalg.eigh(COVARIANCE)
        first = np.eye(LATENT)[0] - axes[:, 0]
        reflected = axes - 2 * np.outer(first, first @ axes) / (first @ first)  # its first column is e_0
        second = np.eye(LATENT)[1] - reflected[:, 1]  # then the second is e_1, the third e_2 up to its sign
        log_scale, rest = 0.5 * np.log(variances), np.concatenate([second, first])
    raw = oracles.unbounded(log_scale, *model.log_scale_range)
    kernel = np.zeros((SIZE, model.posterior.outputs(LATENT)))
    kernel[:, :LATENT] = TO_MEAN.T
    tree = {
        "encoder": {"out": {"kernel": kernel, "bias": np.concatenate([-TO_MEAN @ BIAS, raw, rest])}},
        "decoder": {"out": {"kernel": WEIGHT.T, "bias": BIAS}},
        "likelihood": {},
        "prior": {},
    }
    return model, jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), tree)


@pytest.mark.parametrize("name", ["FullNormal", "Householder"])
def test_with_a_full_covariance_the_bound_is_the_evidence_of_a_correlated_model(name):
    """At every draw with the rate at the draw, in the mean with the rate in closed form; no diagonal one gets there."""
    model, params = tight(name)
    at_draw = jax.jit(lambda key: bounds.elbo(model, params, X, key, sticking_the_landing=True).negative_elbo)
    np.testing.assert_allclose(-at_draw(jax.random.key(0)), EVIDENCE, atol=2e-4)
    many = jax.random.split(jax.random.key(1), 4_000)
    elbo = jax.jit(jax.vmap(lambda key: -bounds.elbo(model, params, X, key).negative_elbo))(many)
    assert np.ptp(elbo) > 0.1
    assert_mean(elbo, EVIDENCE)


def test_the_best_diagonal_bound_is_below_by_what_correlations_are_worth():
    model, params = tight("DiagonalNormal")
    many = jax.random.split(jax.random.key(1), 4_000)
    elbo = jax.jit(jax.vmap(lambda key: -bounds.elbo(model, params, X, key).negative_elbo))(many)
    assert GAP > 0.3
    assert_mean(elbo, EVIDENCE - GAP)


def test_sticking_the_landing_has_no_variance_at_a_full_posterior():
    model, params = tight("FullNormal")

    def gradients(landing):
        def loss(params, key):
            return bounds.elbo(model, params, X, key, sticking_the_landing=landing).negative_elbo.mean()

        many = jax.random.split(jax.random.key(2), 50)
        found = jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, 0)))(params, many)
        return np.asarray(found["encoder"]["out"]["kernel"])

    noisy = np.abs(gradients(False)).max()
    assert noisy > 0.1
    assert np.abs(gradients(True)).max() < 1e-3 * noisy


# --- flows in the estimators ---


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Planar", "IAF"])
def test_gradients_through_the_inverse_have_the_mean_of_the_plain_ones(name):
    """Sticking the landing and the doubly reparameterised gradient need the density of a given code."""
    model = model_of(name)
    params = random_params(model)

    def gradient(loss):
        many = jax.random.split(jax.random.key(5), 1_000)
        found = jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, 0)))(params, many)
        kept = {part: found[part] for part in ("encoder", "posterior") if part in found}
        return np.concatenate([np.asarray(leaf).reshape(1_000, -1) for leaf in jax.tree.leaves(kept)], axis=1)

    def elbo(landing):
        return gradient(
            lambda p, key: bounds.elbo(model, p, X[:2], key, sticking_the_landing=landing).negative_elbo.mean()
        )

    plain, landed = elbo(False), elbo(True)
    assert_mean(plain - landed, 0.0)
    assert np.abs(plain - landed).max() > 1e-2
    weighted = gradient(
        lambda p, key: bounds.importance_weighted_bound(bounds.log_weights(model, p, X[:2], key, 3)).mean()
    )
    doubly = gradient(lambda p, key: bounds.doubly_reparameterised_bound(model, p, X[:2], key, 3).mean())
    assert_mean(weighted - doubly, 0.0)
    assert np.abs(weighted - doubly).max() > 1e-2


@pytest.mark.parametrize("name", ["Planar", "IAF", "FullNormal"])
def test_importance_sampling_by_it_finds_the_evidence(name):
    """Whatever q(z|x) is, the mean of the weights is p(x)."""
    model, params = model_of(name), random_params(model_of(name))
    _, tight_params = tight("FullNormal")
    params = {**params, "decoder": tight_params["decoder"]}
    encoder = {k: 0.3 * v for k, v in params["encoder"]["out"].items()}
    bias = np.array(encoder["bias"])
    bias[LATENT : 2 * LATENT] = 1.0  # wider than the posterior
    kernel = np.array(encoder["kernel"])
    kernel[:, :LATENT] = TO_MEAN.T
    bias[:LATENT] = -TO_MEAN @ BIAS
    params["encoder"] = {"out": {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}}
    found = importance.estimate(model, params, jnp.asarray(X), jax.random.key(0), num_samples=20_000)
    assert (np.abs(-found.nll - EVIDENCE) < 6 * found.sampling_error + 1e-3).all()
    assert (found.sampling_error < 0.2).all()


@dataclasses.dataclass(frozen=True)
class _OnceOnly(posteriors.DiagonalNormal):
    """A posterior whose density is known along a draw, and there alone."""

    def __call__(self, params, raw, log_scale_range):
        q = super().__call__(params, raw, log_scale_range)
        return _Once(q.loc, q.log_scale)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class _Once(distributions.Normal):
    def sample_and_log_prob(self, key):
        z = self.sample(key)
        return z, super().log_prob(z)

    def log_prob(self, value):
        return NotImplemented

    def kl(self, other):
        return NotImplemented


def test_a_density_along_draws_alone_is_enough_for_bounds_and_refused_where_it_is_not():
    model = dataclasses.replace(model_of("DiagonalNormal"), posterior=_OnceOnly())
    same = model_of("DiagonalNormal")
    params = random_params(model)

    def weights(model):
        return jax.jit(lambda key: bounds.log_weights(model, params, X, key, 3))(jax.random.key(0))

    np.testing.assert_allclose(weights(model), weights(same), rtol=1e-5)
    q, p = same.encode(params, X), same.prior(params, BATCH)
    expected = bounds.sampled_rate(q, p, q.sample(jax.random.key(0)))
    np.testing.assert_allclose(bounds.elbo(model, params, X, jax.random.key(0)).rate, expected, rtol=1e-4)
    for estimate, what in (
        (lambda p, k: bounds.elbo(model, p, X, k, sticking_the_landing=True).rate, "sticking_the_landing"),
        (lambda p, k: bounds.doubly_reparameterised_bound(model, p, X, k, 3), "doubly_reparameterised"),
    ):
        with pytest.raises(
            InputError, match=rf"^q\(z\|x\) of {what}: got a _Once, which has no log_prob of a given code, expec"
        ):
            jax.eval_shape(estimate, params, jax.random.key(0))


# --- beside other values ---


@pytest.mark.parametrize("name", ["FullNormal", "Householder"])
def test_a_vamp_prior_is_made_of_any_normal(name):
    model = model_of(name, latent_prior=priors.VampPrior(4))
    params = random_params(model)
    q = oracles.encode(model, params, params["prior"]["pseudo_inputs"])
    z = np.random.default_rng(1).normal(size=(2, LATENT)).astype(np.float32)
    each_component = np.stack([oracles.log_prob(q, np.repeat(z[i : i + 1], 4, axis=0)) for i in range(2)])
    expected = oracles.log_mean_exp(each_component.T)
    np.testing.assert_allclose(oracles.log_prob(model.prior(params, 2), z), expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["Planar", "IAF"])
def test_a_vamp_prior_of_flows_is_refused_in_a_line(name):
    model = model_of(name, latent_prior=priors.VampPrior(4))
    params = jax.eval_shape(model.init, jax.random.key(0))
    with pytest.raises(InputError, match=r"^VampPrior: got a posterior of type Flow, expected a normal") as error:
        jax.eval_shape(lambda p: model.prior(p, 2), params)
    assert len(str(error.value)) <= 200


def test_two_levels_keep_their_normals():
    """Its upper level is a `VAE` inside, which must not ask for other outputs than it did."""
    model = TwoLevelVAE(5, architectures.MLP((3,)), event_shape=(SIZE,))
    q = jax.eval_shape(lambda p: model.encode(p, jnp.asarray(X)), jax.eval_shape(model.init, jax.random.key(0)))
    assert isinstance(q.above, distributions.Normal)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: posteriors.Householder(0), r"^steps \(Householder\): got 0, expected at least 1$"),
        (lambda: posteriors.Planar(-1), r"^steps \(Planar\): got -1, expected at least 1$"),
        (lambda: posteriors.IAF(0), r"^steps \(IAF\): got 0, expected at least 1$"),
        (lambda: posteriors.IAF(1, ()), r"^hidden \(IAF\): got \(\), expected at least one hidden layer$"),
        (lambda: posteriors.IAF(1, (0,)), r"^hidden \(IAF\): got 0, expected at least 1$"),
    ],
)
def test_impossible_sizes_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
