"""The parts of the rate: against sums over all examples in float64, against `latents`, and against one another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import linear_gaussian
from scipy import stats
from scipy.special import logsumexp

from aevae_jax import VAE, distributions
from aevae_jax.evaluation import latents
from aevae_jax.models import architectures, likelihoods, priors
from aevae_jax.objectives import bounds, total_correlation
from aevae_jax.objectives.losses import ELBO
from aevae_jax.objectives.total_correlation import BetaTCVAE, terms, weights
from aevae_jax.types import InputError

SIZE, LATENT, BATCH = 5, 3, 6
ORACLE = linear_gaussian(SIZE, LATENT)
MODEL = VAE(
    LATENT, architectures.MLP(()), likelihoods.Normal(ORACLE.scale), priors.StandardNormal(), event_shape=(SIZE,)
)
X = jnp.asarray(np.random.default_rng(0).normal(size=(BATCH, SIZE)), jnp.float32)
ENCODER, SCALE = ORACLE.posterior_map()
MIXED = ENCODER + 0.4 * ENCODER[::-1]  # so that the codes of different dimensions have something in common
PARAMS = ORACLE.params(MIXED, SCALE * np.asarray([1.0, 1.3, 0.8]), MODEL.log_scale_range)
PARTS = ("mutual_information", "total_correlation", "dimension_wise_kl")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Still:
    """A normal whose draw is the same at any key: two estimators that draw by themselves see one code."""

    q: Any

    def sample(self, key):
        return self.q.loc + 0.6 * self.q.scale

    def log_prob(self, value):
        return self.q.log_prob(value)

    def log_prob_terms(self, value):
        return self.q.log_prob_terms(value)

    def mean(self):
        return self.q.mean()

    def kl(self, other):
        return self.q.kl(other)

    def kl_terms(self, other):
        return self.q.kl_terms(other)

    measure = "density"


@dataclass(frozen=True)
class StillModel:
    """`MODEL` with such a posterior."""

    def init(self, key):
        return MODEL.init(key)

    def encode(self, params, x):
        return Still(MODEL.encode(params, x))

    def decode(self, params, z):
        return MODEL.decode(params, z)

    def prior(self, params, n):
        return MODEL.prior(params, n)


def key():
    """The key of all draws, as if it had not been used."""
    return jax.random.key(7)


@cache
def bound_at() -> bounds.Bound:
    return jax.jit(lambda: bounds.elbo(MODEL, PARAMS, X, key()))()


def log_densities(bound) -> np.ndarray:
    """log q(z_i,d | x_j) in float64, `[codes, examples, L]`."""
    loc, scale, z = (np.asarray(a, np.float64) for a in (bound.posterior.loc, bound.posterior.scale, bound.z))
    return stats.norm.logpdf(z[:, None], loc[None], scale[None])


def by_hand(bound, of_batch: np.ndarray) -> np.ndarray:
    """The three parts for weights `[codes, examples]`, `[3, B]`."""
    found, z = log_densities(bound), np.asarray(bound.z, np.float64)
    with np.errstate(divide="ignore"):
        log_w = np.log(of_batch)
    joint = logsumexp(log_w + found.sum(axis=2), axis=1)
    product = logsumexp(log_w[..., None] + found, axis=1).sum(axis=1)
    own = found.sum(axis=2)[np.arange(BATCH), np.arange(BATCH)]
    return np.stack([own - joint, joint - product, product - stats.norm.logpdf(z).sum(axis=1)])


@pytest.mark.parametrize("sampling", ["stratified", "weighted"])
@pytest.mark.parametrize("count", [BATCH, 40])
def test_weights_of_a_batch_sum_to_one(sampling, count):  # mistake 23
    found = np.asarray(weights(BATCH, count, sampling))
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-6)
    others = (1 - 1 / count) / (BATCH - 1)
    expected = (
        np.where(np.eye(BATCH), 1 / count, others) if sampling == "stratified" else np.full_like(found, 1 / BATCH)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    if count == BATCH:
        np.testing.assert_allclose(found, 1 / BATCH, rtol=1e-6)


def test_stratified_weights_are_unbiased_for_the_density_of_all_examples():  # mistake 23
    """The mean over all batches of three of six examples that hold a given one is exact; equal weights are not."""
    q = np.exp(log_densities(bound_at()).sum(axis=2))  # [codes, examples]

    def mean_over_batches(sampling: str, code: int) -> float:
        of_batch = np.asarray(weights(3, BATCH, sampling), np.float64)[0]
        others = combinations([j for j in range(BATCH) if j != code], 2)
        return float(np.mean([of_batch @ q[code, [code, *pair]] for pair in others]))

    exact = q.mean(axis=1)
    np.testing.assert_allclose([mean_over_batches("stratified", i) for i in range(BATCH)], exact, rtol=1e-5)
    assert np.mean([mean_over_batches("weighted", i) for i in range(BATCH)]) > 1.05 * exact.mean()


@pytest.mark.parametrize("sampling", ["stratified", "weighted"])
def test_parts_are_those_of_the_weighted_densities_and_telescope_to_the_rate(sampling):  # mistake 23
    bound = bound_at()
    found = np.stack(jax.jit(lambda b: terms(b, 40, sampling))(bound))
    np.testing.assert_allclose(found, by_hand(bound, np.asarray(weights(BATCH, 40, sampling))), rtol=2e-4, atol=2e-5)
    rate = bounds.sampled_rate(bound.posterior, bound.prior, bound.z)
    np.testing.assert_allclose(found.sum(axis=0), rate, rtol=1e-4, atol=1e-5)
    assert (np.abs(found.mean(axis=1)) > 0.01).all()


@pytest.mark.parametrize("sampling", ["stratified", "weighted"])
def test_parts_of_a_batch_of_all_examples_are_those_of_the_exact_aggregate_posterior(sampling):  # mistake 23
    """Of the same codes, as `latents.describe` has them."""
    exact = latents.describe(StillModel(), PARAMS, X, jax.random.key(0))
    objective = BetaTCVAE(sampling=sampling, num_examples=BATCH)
    _, found = jax.jit(lambda: objective(StillModel(), PARAMS, X, key(), 0))()
    np.testing.assert_allclose(found["mutual_information"], exact.mutual_information, rtol=1e-4)
    np.testing.assert_allclose(found["total_correlation"], exact.total_correlation, rtol=1e-4)
    np.testing.assert_allclose(found["dimension_wise_kl"], exact.dimension_wise_kl.sum(), rtol=1e-4)
    np.testing.assert_allclose(sum(found[part] for part in PARTS), exact.rate, rtol=1e-4)


def test_equal_weights_give_the_gradient_of_the_published_ones():
    """Chen et al. 2018, equation 5: 1/NB each, whose logarithm differs by a constant."""

    def published(params):
        bound = bounds.elbo(MODEL, params, X, key())
        each = jax.vmap(lambda z: bound.posterior.log_prob_terms(jnp.broadcast_to(z, bound.z.shape)))(bound.z)
        joint = jax.nn.logsumexp(each.sum(axis=2), axis=1) - jnp.log(40 * BATCH)
        product = (jax.nn.logsumexp(each, axis=1) - jnp.log(40 * BATCH)).sum(axis=1)
        return (joint - product).mean()

    def ours(params):
        return terms(bounds.elbo(MODEL, params, X, key()), 40, "weighted").total_correlation.mean()

    (value, gradient), (other, expected) = jax.jit(lambda p: [jax.value_and_grad(f)(p) for f in (ours, published)])(
        PARAMS
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), gradient, expected)
    np.testing.assert_allclose(other - value, (LATENT - 1) * np.log(40), rtol=1e-5)


def test_each_part_is_weighed_by_its_own_weight():  # mistake 3, mistake 28
    """With weights of 1 the loss is that of `ELBO`; its derivative in each weight is the part of that name."""

    @jax.jit
    def run():
        plain = ELBO()(MODEL, PARAMS, X, key(), 0)[0]

        def loss(*of_parts):
            objective = BetaTCVAE(**dict(zip(PARTS, of_parts, strict=True)), num_examples=40)
            return objective(MODEL, PARAMS, X, key(), 0)

        unit, _ = loss(1.0, 1.0, 1.0)
        slopes, found = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(1.0, 6.0, 2.0)
        return plain, unit, slopes, found

    plain, unit, slopes, found = run()
    np.testing.assert_allclose(unit, plain, rtol=1e-6)
    np.testing.assert_allclose(slopes, [found[part] for part in PARTS], rtol=1e-5)
    expected = plain + 5 * found["total_correlation"] + found["dimension_wise_kl"]
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(found["negative_elbo"], plain, rtol=1e-6)


def test_the_total_correlation_falls_along_its_own_gradient():
    """Of the encoder: a small step against the gradient makes it less, and the decoder has none."""

    def of(params):
        return terms(bounds.elbo(MODEL, params, X, key()), BATCH).total_correlation.mean()

    before, gradient = jax.jit(jax.value_and_grad(of))(PARAMS)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient["decoder"]))
    after = jax.jit(of)(jax.tree.map(lambda p, g: p - 0.01 * g, PARAMS, gradient))
    norm = sum((leaf**2).sum() for leaf in jax.tree.leaves(gradient))
    np.testing.assert_allclose(before - after, 0.01 * norm, rtol=0.1)


def test_maps_of_codes_have_the_parts_of_vectors():
    """A code's dimensions are all its elements, whatever their shape."""
    bound = bound_at()
    folded = jax.tree.map(lambda a: a.reshape(BATCH, LATENT, 1), (bound.posterior, bound.prior, bound.z))
    maps = bound._replace(posterior=folded[0], prior=folded[1], z=folded[2])
    for ours, theirs in zip(*jax.jit(lambda *both: [terms(each, 40) for each in both])(maps, bound), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def refusal(objective, model=MODEL, params=PARAMS, x=X) -> str:
    with pytest.raises(InputError) as error:
        jax.eval_shape(lambda: objective(model, params, x, key(), jnp.zeros((), int)))
    assert len(str(error.value)) <= 200
    return str(error.value)


def test_what_has_no_parts_is_one_line():
    sized = BetaTCVAE(num_examples=40)
    assert refusal(sized, x=X[:1]).startswith("batch size: got 1, expected at least 2")
    assert "num_examples: got 0, expected how many training examples there are" in refusal(BetaTCVAE())
    whole = distributions.MultivariateNormal(jnp.zeros((2, 2)), jnp.stack([jnp.eye(2)] * 2))
    bound = bound_at()._replace(posterior=whole, z=jnp.zeros((2, 2)))
    with pytest.raises(InputError, match=r"total correlation: got .* of type MultivariateNormal, expected one of"):
        terms(bound, 40)
    with pytest.raises(InputError, match="BetaTCVAE total_correlation: got -1"):
        BetaTCVAE(total_correlation=-1.0)


def test_a_prior_of_dependent_dimensions_has_no_kl_by_dimension():
    """Its dependence is no dimension's own: the entry is left out, and refused a weight."""
    model = replace(MODEL, latent_prior=priors.VampPrior(2))
    params = {**PARAMS, "prior": jax.eval_shape(model.init, key())["prior"]}
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), params)
    loss = jax.eval_shape(lambda: BetaTCVAE(num_examples=40)(model, params, X, key(), 0))
    assert {"mutual_information", "total_correlation"} <= set(loss[1])
    assert "dimension_wise_kl" not in loss[1]
    message = refusal(BetaTCVAE(dimension_wise_kl=2.0, num_examples=40), model, params)
    assert message.startswith("BetaTCVAE dimension_wise_kl: got a prior of type Mixture, expected one of independent")


def test_a_prior_of_which_the_density_is_only_estimated_is_one_line():
    model = replace(MODEL, latent_prior=priors.TwoStage((4,)))
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), jax.eval_shape(model.init, key()))
    message = refusal(BetaTCVAE(num_examples=40), model, params)
    assert message.startswith("p(z) of the parts of the rate: got a Marginal, which has no log_prob of a given code")


def test_wherever_codes_are_weighed_selection_is_by_the_plain_bound():  # mistake 2, mistake 35
    assert BetaTCVAE(9.0, 2.0, 3.0, num_examples=4).validation() == ELBO().validation()
    assert total_correlation.BetaTCVAE.needs_rate
