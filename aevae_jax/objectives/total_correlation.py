"""The rate taken apart, so that its terms can be weighed one by one. Chen, Li, Grosse & Duvenaud 2018.

    E KL(q(z|x) || p(z)) = I(x; z) + TC(z) + sum_d KL(q(z_d) || p(z_d))

I is the mutual information of example and code, TC = KL(q(z) || prod_d q(z_d)) the total correlation, and q(z) the mean
of q(z|x) over all examples, of which a batch is seen: its density is estimated by weighted means over the batch. For
any weights the terms add up to log q(z|x) - log p(z) at each code. Of a batch of all examples they are those of
`evaluation.latents`.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from aevae_jax import limits
from aevae_jax.lazy import jax, jnp, modules
from aevae_jax.objectives.losses import ELBO, Weight, check_weight, weight_at
from aevae_jax.types import Factorised, InputError, LatentModel, Metrics, Params, Validation

if TYPE_CHECKING:
    from jax import Array

    from aevae_jax.objectives import bounds
    from aevae_jax.objectives.bounds import Bound
else:
    bounds = modules("aevae_jax.objectives", "bounds")

Sampling = Literal["stratified", "weighted"]


class Terms(NamedTuple):
    """The parts of the rate at a code of each example, `[B]` in nats; their sum is log q(z|x) - log p(z)."""

    mutual_information: Array
    total_correlation: Array
    dimension_wise_kl: Array
    """log prod_d q(z_d) - log p(z); of a prior whose dimensions are not independent, their dependence is in it."""


def weights(size: int, num_examples: Any, sampling: Sampling) -> Array:
    """Return how much q(z|x_j) counts in the estimate of q(z_i), `[B, B]`; each row sums to 1.

    Stratified: z_i comes of x_i, so x_i counts as the one example of N that it is, 1/N, and the others of the batch
    stand for all others, (N - 1)/N in equal parts. That is unbiased for the density, and exact where the batch is all
    there is. It is the mean of Chen et al. 2018, appendix C.2, over which of the others takes the place of the last one
    there.

    Weighted: all count alike, 1/B. In Chen et al. 2018, equation 5, the weights are 1/NB, which takes log N from each
    log density: a constant, so the gradient is the same, and the terms would not be exact of a batch of all examples.

    Args:
      size: of the batch, B, at least 2.
      num_examples: N.
      sampling: which of the two.
    """
    if sampling == "weighted":
        return jnp.full((size, size), 1 / size)
    others = (1 - 1 / num_examples) / (size - 1)
    return jnp.where(jnp.eye(size, dtype=bool), 1 / num_examples, others)


def terms(bound: Bound, num_examples: Any, sampling: Sampling = "stratified") -> Terms:
    """Return the parts of the rate at the codes of a bound.

    Args:
      bound: of a batch of at least 2.
      num_examples: of the data set that the batch was drawn from.
      sampling: see `weights`.

    Raises:
      InputError: a batch of one, a q(z|x) whose dimensions are not independent, or a p(z) that is only estimated.
    """
    q, z, size = bound.posterior, bound.z, bound.rate.shape[0]
    if not isinstance(q, Factorised):
        got, expected = f"a q(z|x) of type {type(q).__name__}", "one of independent dimensions, as of VAE()"
        raise InputError("total correlation", got=got, expected=expected)
    if size < 2:
        raise InputError("batch size", got=size, expected="at least 2: total correlation compares examples")

    def of_one(code: Array) -> Array:
        return q.log_prob_terms(jnp.broadcast_to(code, z.shape)).reshape(size, -1)

    log_q_given = jax.vmap(of_one)(z)  # [codes, examples, L]
    log_weights = jnp.log(weights(size, num_examples, sampling))
    joint = jax.nn.logsumexp(log_weights + log_q_given.sum(axis=-1), axis=1)
    product = jax.nn.logsumexp(log_weights[..., None] + log_q_given, axis=1).sum(axis=-1)
    own = jnp.diagonal(log_q_given.sum(axis=-1))
    log_prior = bounds.log_density(bound.prior, z, "p(z) of the parts of the rate")
    return Terms(own - joint, joint - product, product - log_prior)


@dataclass(frozen=True)
class BetaTCVAE:
    """The negative ELBO with weights on the parts of its rate. Chen, Li, Grosse & Duvenaud 2018, equation 4.

    Each part is added as often as its weight exceeds 1, so that with weights of 1 this is `ELBO()`.

    Args:
      total_correlation: weight of TC(z); a number from 0 on, or a schedule of the step.
      mutual_information: weight of I(x; z), likewise.
      dimension_wise_kl: weight of the sum of the KL divergences of q(z_d) from p(z_d), likewise.
      sampling: how q(z) is estimated from a batch: see `weights`.
      num_examples: how many training examples there are; `fit` takes it from the data where it is left at 0.
    """

    total_correlation: Weight = 6.0
    mutual_information: Weight = 1.0
    dimension_wise_kl: Weight = 1.0
    sampling: Sampling = "stratified"
    num_examples: int = 0

    needs_rate: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in Terms._fields:
            check_weight(f"BetaTCVAE {name}", getattr(self, name))
        limits.check("BetaTCVAE num_examples", self.num_examples, 0)

    def __call__(self, model: LatentModel, params: Params, x: Array, key: Array, step: Array) -> tuple[Array, Metrics]:
        if not self.num_examples:
            expected = "how many training examples there are; fit takes it from the data"
            raise InputError("BetaTCVAE num_examples", got=0, expected=expected)
        bound = bounds.elbo(model, params, x, key)
        parts = terms(bound, self.num_examples, self.sampling)._asdict()
        means = {name: part.mean() for name, part in parts.items()}
        of_weights = {name: weight_at(getattr(self, name), step) - 1 for name in means}
        if not isinstance(bound.prior, Factorised):
            if not isinstance(self.dimension_wise_kl, numbers.Real) or self.dimension_wise_kl != 1:
                got, expected = f"a prior of type {type(bound.prior).__name__}", "one of independent dimensions"
                hint = "leave it at 1, or take latent_prior=StandardNormal()"
                raise InputError("BetaTCVAE dimension_wise_kl", got=got, expected=expected, hint=hint)
            del of_weights["dimension_wise_kl"], means["dimension_wise_kl"]
        loss = (bound.distortion + bound.rate).mean()
        for name, weight in of_weights.items():
            loss = loss + weight * means[name]
        return loss, {"loss": loss, **{name: term.mean() for name, term in bound.terms.items()}, **means}

    def validation(self) -> Validation:
        """Return that parameters are selected by the ELBO, whatever the weights."""
        return ELBO().validation()
