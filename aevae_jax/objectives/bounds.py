"""Per-example estimators: `[B]`, or `[K, B]` for K importance samples. Nats; nothing here reduces over the batch.

    -ELBO(x) = distortion + rate
    distortion = -log p(x|z),  rate = KL(q(z|x) || p(z)),  z ~ q(z|x)

The rate is that of the *encoder's* distribution from the prior.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import Array

from aevae_jax import conditions, keys
from aevae_jax.types import (
    ByLevel,
    Distribution,
    DrawnWithDensity,
    EstimatedDensity,
    InputError,
    Latent,
    LatentModel,
    Metric,
    Params,
    PartlyObserved,
    measure_of,
)


class Bound(NamedTuple):
    """One sample's terms of the ELBO, and what they were computed from."""

    distortion: Array
    """-log p(x|z), `[B]`."""
    rate: Array
    """KL(q(z|x) || p(z)) or its one-sample estimate, `[B]`."""
    posterior: Distribution
    """q(z|x)."""
    prior: Distribution
    """p(z)."""
    reconstruction: Distribution
    """p(x|z)."""
    z: Latent = None
    """The draw of q(z|x), `[B, *latent]`."""

    @property
    def negative_elbo(self) -> Array:
        """distortion + rate at beta = 1, `[B]`: an upper bound of -log p(x) on average over z."""
        return self.distortion + self.rate

    @property
    def terms(self) -> dict[str, Array]:
        """The terms by their names, `[B]` in nats: `distortion`, `rate` and `negative_elbo`, their sum.

        Codes that are points have a distortion alone. A profile likelihood is no density, and what holds it is no
        bound: its terms are `profile_distortion`, `rate` and `profile_loss`.
        """
        profile = measure_of(self.reconstruction) == "profile"
        terms = {"profile_distortion" if profile else "distortion": self.distortion}
        if measure_of(self.posterior) == "point":
            return terms
        return {**terms, "rate": self.rate, "profile_loss" if profile else "negative_elbo": self.negative_elbo}


def draw(q: Distribution, key: Array) -> tuple[Latent, Array | None]:
    """Return z ~ q, `[B, *latent]`, and log q(z), `[B]`, where q computes both in one pass. All estimators draw by it.

    `None` stands for a log density that is not computed yet, and that `log_density` computes where it is needed.
    """
    return q.sample_and_log_prob(key) if isinstance(q, DrawnWithDensity) else (q.sample(key), None)


def split_for(p: Distribution, key: Array) -> tuple[Array, Array | None]:
    """Return the key of a draw of q(z|x), and one for the density of p(z) where that is an estimate."""
    return _split(key) if isinstance(p, EstimatedDensity) else (key, None)


def split_for_prior(model: LatentModel, params: Params, n: int, key: Array) -> tuple[Array, Array | None]:
    """Return what `split_for` does of the prior of a model, of a batch of `n`, which is not computed here."""
    estimated: list[bool] = []

    def look(params: Params) -> None:  # nothing is returned: a prior need not be a pytree
        estimated.append(isinstance(model.prior(params, n), EstimatedDensity))

    jax.eval_shape(look, params)
    return _split(key) if estimated[0] else (key, None)


def _split(key: Array) -> tuple[Array, Array]:
    key_draw, key_density = jax.random.split(key)
    return key_draw, key_density


def log_density(
    p: Distribution, z: Latent, what: str, known: Array | None = None, *, key_density: Array | None = None
) -> Array:
    """Return log p(z), `[B]`, of any code z.

    Args:
      p: the distribution.
      z: the code.
      what: what it is needed for, to be said where p does not score a given code.
      known: the log density, where it was computed with the draw of z.
      key_density: of an estimate, where p is `types.EstimatedDensity` and one whose mean is the density will do.

    Raises:
      InputError: p does not score a given code.
    """
    if key_density is not None and isinstance(p, EstimatedDensity):
        return p.log_prob_estimate(z, key_density)
    log_p = p.log_prob(z) if known is None else known
    if log_p is NotImplemented:
        got = f"a {type(p).__name__}, which has no log_prob of a given code"
        raise InputError(what, got=got, expected="a distribution that scores every code")
    return log_p


def sampled_rate(
    q: Distribution, p: Distribution, z: Latent, *, log_q: Array | None = None, key_density: Array | None = None
) -> Array:
    """Return log q(z) - log p(z), `[B]`: for z ~ q an unbiased estimate of KL(q || p), with a variance.

    `log_q` is log q(z) where it was computed with the draw; `key_density` of the density of p where that is an
    estimate, with which this is on average no less than KL(q || p).
    """
    log_q = log_density(q, z, "q(z|x) of a sampled rate", log_q)
    return log_q - log_density(p, z, "p(z) of a sampled rate", key_density=key_density)


def levels(q: Distribution, p: Distribution, z: Latent) -> list[tuple[Distribution, Distribution, Latent]]:
    """Return q, p and z of each level, given those above it in z: the uppermost first; of one level, that alone."""
    if isinstance(q, ByLevel) and isinstance(p, ByLevel):
        of_q, of_p = q.levels(z), p.levels(z)
        if [jnp.shape(part) for _, part in of_q] == [jnp.shape(part) for _, part in of_p]:
            return [(q_level, p_level, part) for (q_level, part), (p_level, _) in zip(of_q, of_p, strict=True)]
    return [(q, p, z)]


def rate(
    q: Distribution,
    p: Distribution,
    z: Latent,
    *,
    log_q: Array | None = None,
    by_level: bool = False,
    key_density: Array | None = None,
) -> Array:
    """Return KL(q || p), `[B]`: in closed form where there is one, else the estimate from `z` ~ q.

    Args:
      q, p, z: q(z|x), p(z) and a draw of q.
      log_q: log q(z) where it was computed with the draw.
      by_level: sum over levels KL(q(z_l|x, z_above) || p(z_l|z_above)) at the levels z_above that were drawn: the mean
        is the same, and a level that has a closed form adds no noise of its own. Vahdat & Kautz 2020, section 3.
      key_density: see `sampled_rate`.
    """
    if by_level and len(parts := levels(q, p, z)) > 1:
        total, *others = (rate(*part) for part in parts)
        for other in others:
            total = total + other
        return total
    exact = q.kl(p)
    return sampled_rate(q, p, z, log_q=log_q, key_density=key_density) if exact is NotImplemented else exact


def distortion(likelihood: Distribution, x: Array) -> Array:
    """Return -log p(x|z), `[B]`."""
    return -likelihood.log_prob(x)


def squared_error(likelihood: Distribution, x: Array) -> Array:
    """Return the mean over elements of the squared distance of `x` from the likelihood's mean, `[B]`.

    Of a likelihood that is `PartlyObserved`, only elements that are data count.
    """
    mean = likelihood.mean()
    chex.assert_equal_shape([mean, x], custom_message=f"the mean of {type(likelihood).__name__} p(x|z) and x")
    error = ((mean - x) ** 2).reshape(x.shape[0], -1)
    if not isinstance(likelihood, PartlyObserved):
        return error.mean(axis=-1)
    weight = likelihood.observed(x).reshape(x.shape[0], -1)
    return (weight * error).sum(axis=-1) / jnp.maximum(weight.sum(axis=-1), 1.0)


def elbo(
    model: LatentModel,
    params: Params,
    x: Array,
    key: Array,
    *,
    sticking_the_landing: bool = False,
    by_level: bool = False,
) -> Bound:
    """Return the terms of the ELBO at one z ~ q(z|x) per example.

    Args:
      model: any latent model.
      params: its parameters.
      x: data `[B, *event]`.
      key: the only source of noise.
      sticking_the_landing: estimate the rate from z with q's own parameters held fixed in log q, which removes a term
        of the gradient whose mean is zero. Roeder, Wu & Duvenaud 2017. It needs log q at a given z.
      by_level: see `rate`; it has no meaning with `sticking_the_landing`, which needs the rate at the draw.

    Raises:
      InputError: q or p does not score a code where that is needed.
    """
    q, p = model.encode(params, x), model.prior(params, x.shape[0])
    _check_measures(q, p)
    key, key_prior = split_for(p, key)
    z, log_q = draw(q, key)
    likelihood = model.decode(params, z)
    if sticking_the_landing:
        log_q = log_density(jax.lax.stop_gradient(q), z, "q(z|x) of sticking_the_landing")
        kl = sampled_rate(q, p, z, log_q=log_q, key_density=key_prior)
    else:
        kl = rate(q, p, z, log_q=log_q, by_level=by_level, key_density=key_prior)
    bound = Bound(distortion(likelihood, x), kl, q, p, likelihood, z)
    _check_per_example(bound.distortion, x, f"log_prob of {type(likelihood).__name__} p(x|z)")
    _check_per_example(bound.rate, x, f"KL of {type(q).__name__} q(z|x) from {type(p).__name__} p(z)")
    return bound


def _check_measures(q: Distribution, p: Distribution) -> None:
    """Refuse to compare a probability with a density: discrete codes need a prior over codes, others one over space."""
    if {measure_of(q), measure_of(p)} == {"mass", "density"}:
        got, expected = f"{type(p).__name__}, which has a {measure_of(p)}", f"one with a {measure_of(q)}"
        raise InputError("prior p(z)", got=got, expected=f"{expected}, as {type(q).__name__} q(z|x)")


def _check_per_example(term: Array, x: Array, what: str) -> None:
    """Refuse at once, when it is traced, what has another shape than `[B]`: it would broadcast, and be met far away."""
    chex.assert_shape(term, (x.shape[0],), custom_message=f"{what}: expected one number per example")


def measures(model: LatentModel, params: Params, rows: Any) -> tuple[str, str]:
    """Return the base measures of q(z|x) and of p(x|z), as `types.Measure` has them. Nothing is computed.

    Args:
      model: any latent model.
      params: its parameters, or their shapes.
      rows: data as the model sees it, `[N, *event]` or `conditions.Conditioned`, of which the shapes are looked at.
    """

    def whole(params: Params, rows: Any) -> tuple[Distribution, Distribution]:
        own, x = conditions.bound_to(model, rows)
        q = own.encode(params, x)
        return q, own.decode(params, q.mean())

    q, p = jax.eval_shape(whole, params, conditions.shapes(rows, 1))
    return measure_of(q), measure_of(p)


def has_flow_posterior(model: LatentModel, params: Params, event_shape: tuple[int, ...]) -> bool:
    """Return whether q(z|x) is `types.DrawnWithDensity`: then no mixture is made of it. Nothing is computed.

    Args:
      model: any latent model.
      params: its parameters, or their shapes.
      event_shape: shape of one example.
    """
    x = jax.ShapeDtypeStruct((1, *event_shape), jnp.float32)
    return isinstance(jax.eval_shape(conditions.at_any(model, 1).encode, params, x), DrawnWithDensity)


def bound_terms(model: LatentModel, params: Params, x: Array, key: Array) -> dict[str, Array]:
    """Return per example `[B]` the terms of the ELBO at one sampled z, as `Bound.terms` names them, and `mse_at_mean`.

    The squared error at the mean of q(z|x) is per element.
    """
    bound = elbo(model, params, x, key)
    return {**bound.terms, "mse_at_mean": squared_error(model.decode(params, bound.posterior.mean()), x)}


@lru_cache(maxsize=64)
def weighted_terms(num_samples: int) -> Metric:
    """Return the metric `bound_terms` with `negative_importance_weighted_bound` `[B]` of K = `num_samples` beside it.

    One function per K: its identity decides what is compiled again.
    """

    def terms(model: LatentModel, params: Params, x: Array, key: Array) -> dict[str, Array]:
        key_one, key_many = jax.random.split(key)
        one = bound_terms(model, params, x, key_one)
        if "negative_elbo" not in one:  # points, or a profile likelihood: there is no bound
            return one
        bound = importance_weighted_bound(log_weights(model, params, x, key_many, num_samples))
        return {**one, "negative_importance_weighted_bound": -bound}

    return terms


def log_weight(
    model: LatentModel,
    params: Params,
    x: Array,
    q: Distribution,
    z: Latent,
    *,
    prior: Distribution | None = None,
    log_q: Array | None = None,
    what: str = "importance weight",
    key_density: Array | None = None,
) -> Array:
    """Return log p(x|z) + log p(z) - log q(z|x), `[B]`. Always at the sample: an analytic KL has no place in a weight.

    `prior` is p(z) where it is at hand: some are costly to make. `log_q` is log q(z|x) where it was computed with the
    draw. `what` it is needed for is said where q or p does not score a given code. `key_density` is of the density of p
    where that is an estimate: the mean of the weights is p(x) all the same.
    """
    p = model.prior(params, x.shape[0]) if prior is None else prior
    _check_measures(q, p)
    likelihood = model.decode(params, z)
    log_p = likelihood.log_prob(x), log_density(p, z, f"p(z) of {what}", key_density=key_density)
    terms = *log_p, log_density(q, z, f"q(z|x) of {what}", log_q)
    for term, of, name in zip(terms, (likelihood, p, q), ("p(x|z)", "p(z)", "q(z|x)"), strict=True):
        _check_per_example(term, x, f"log_prob of {type(of).__name__} {name}")
    return terms[0] + terms[1] - terms[2]


def log_weights(model: LatentModel, params: Params, x: Array, key: Array, num_samples: int) -> Array:
    """Log importance weights `[K, B]` of K = `num_samples` draws z_k ~ q(z|x).

    Sample k uses key k of `key`, so the first rows do not depend on how many are asked for.
    """
    q = model.encode(params, x)
    return jax.vmap(lambda k: drawn_log_weight(model, params, x, q, k))(keys.many(key, num_samples))


def drawn_log_weight(
    model: LatentModel, params: Params, x: Array, q: Distribution, key: Array, *, prior: Distribution | None = None
) -> Array:
    """Return `log_weight` at a draw z ~ q(z|x), `[B]`."""
    key, key_prior = split_for_prior(model, params, x.shape[0], key) if prior is None else split_for(prior, key)
    z, log_q = draw(q, key)
    return log_weight(model, params, x, q, z, prior=prior, log_q=log_q, key_density=key_prior)


def importance_weighted_bound(log_w: Array) -> Array:
    """Return log (1/K sum_k w_k), `[K, B] -> [B]`: a lower bound of log p(x), on average, that rises with K.

    Burda, Grosse & Salakhutdinov 2016, equation 8.
    """
    bound: Array = jax.nn.logsumexp(log_w, axis=0) - jnp.log(log_w.shape[0])
    return bound


def scale_gradient(tree: Any, factor: Array) -> Any:
    """Return `tree` unchanged, its leaves' gradients times `factor` `[B]`."""

    def scale(leaf: Array) -> Array:
        weight = factor.reshape(factor.shape[0], *([1] * (leaf.ndim - 1)))
        return jax.lax.stop_gradient(leaf) + weight * (leaf - jax.lax.stop_gradient(leaf))

    return jax.tree.map(scale, tree)


def doubly_reparameterised_bound(model: LatentModel, params: Params, x: Array, key: Array, num_samples: int) -> Array:
    """Return `importance_weighted_bound` of `log_weights`, with a gradient of lower variance: `[B]`.

    With normalised weights v_k, the gradient is sum_k v_k d log w_k for parameters met in p, and
    sum_k v_k^2 (d log w_k / d z_k)(d z_k / d phi) for those met through z, q's own held fixed in log q.
    Tucker, Lawson, Gu & Maddison 2019, equation 8.

    Raises:
      InputError: q does not score a given code.
    """
    q = model.encode(params, x)
    fixed = jax.lax.stop_gradient(q)
    draws = jax.vmap(lambda k: draw(q, k)[0])(keys.many(key, num_samples))

    def weigh(z: Latent) -> Array:
        return log_weight(model, params, x, fixed, z, what="doubly_reparameterised")

    log_w = jax.lax.stop_gradient(jax.vmap(weigh)(jax.lax.stop_gradient(draws)))
    v = jax.nn.softmax(log_w, axis=0)
    surrogate = (v * jax.vmap(lambda z, v_k: weigh(scale_gradient(z, v_k)))(draws, v)).sum(axis=0)
    return importance_weighted_bound(log_w) + surrogate - jax.lax.stop_gradient(surrogate)
