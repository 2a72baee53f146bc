"""Codes of all data together are to be distributed as the prior is, by a kernel: InfoVAE, Wasserstein autoencoders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from aevae_jax import limits
from aevae_jax.lazy import jax, jnp, modules
from aevae_jax.objectives.losses import ELBO, ReconstructionError, Weight, check_weight, weight_at
from aevae_jax.types import InputError, LatentModel, Metrics, Params, Validation

if TYPE_CHECKING:
    from jax import Array

    from aevae_jax.objectives import bounds
else:
    bounds = modules("aevae_jax.objectives", "bounds")

Kernel = Literal["inverse_multiquadratic", "rbf"]


def mmd(a: Array, b: Array, kernel: Kernel = "inverse_multiquadratic", bandwidth: float = 1.0) -> Array:
    """Return the unbiased estimate of the squared maximum mean discrepancy of two samples; it can be below 0.

    Gretton et al. 2012, lemma 6. With c = 2 L bandwidth, twice the mean squared distance of N(0, I) from 0, the kernel
    is c / (c + |x - y|^2) (Tolstikhin et al. 2018, section 4) or exp(-|x - y|^2 / c).

    Args:
      a: `[N, L]`, N >= 2.
      b: `[M, L]`, M >= 2.
      kernel: which of the two.
      bandwidth: its width.
    """
    scale = 2.0 * a.shape[1] * bandwidth

    def similar(x: Array, y: Array) -> Array:
        squares = ((x[:, None] - y[None, :]) ** 2).sum(axis=-1)
        return scale / (scale + squares) if kernel == "inverse_multiquadratic" else jnp.exp(-squares / scale)

    def within(x: Array) -> Array:
        count = x.shape[0]
        return (similar(x, x).sum() - count) / (count * (count - 1))  # of each with itself it is 1

    found: Array = within(a) + within(b) - 2 * similar(a, b).mean()
    return found


@dataclass(frozen=True)
class MMD:
    """distortion + rate_weight * rate + weight * MMD^2(q(z), p(z)), by a draw of each for each example of the batch.

    Zhao, Song & Ermon 2019 (InfoVAE), equation 6, with rate_weight = 1 - alpha and weight = alpha + lambda - 1; with a
    rate_weight of 0, Tolstikhin, Bousquet, Gelly & Schoelkopf 2018 (WAE-MMD), for an `Autoencoder`, too.

    Args:
      weight: of the discrepancy, a number from 0 on or a schedule of the step.
      rate_weight: likewise, of the rate; codes that are points have none, so that it must be 0.
      kernel: see `mmd`.
      bandwidth: see `mmd`.
    """

    weight: Weight = 100.0
    rate_weight: Weight = 0.0
    kernel: Kernel = "inverse_multiquadratic"
    bandwidth: float = 1.0

    def __post_init__(self) -> None:
        check_weight("MMD weight", self.weight)
        check_weight("MMD rate_weight", self.rate_weight)
        limits.check("MMD bandwidth", self.bandwidth, limits.SMALLEST, limits.LARGEST)

    @property
    def matches_prior(self) -> bool:
        """Whether the discrepancy has a weight."""
        return not limits.is_zero(self.weight)

    @property
    def needs_rate(self) -> bool:
        """Whether the rate has a weight."""
        return not limits.is_zero(self.rate_weight)

    def __call__(self, model: LatentModel, params: Params, x: Array, key: Array, step: Array) -> tuple[Array, Metrics]:
        size = x.shape[0]
        if size < 2:
            raise InputError("batch size", got=size, expected="at least 2: a discrepancy is of samples")
        key_bound, key_prior = jax.random.split(key)
        bound = bounds.elbo(model, params, x, key_bound)
        z, prior = (codes.reshape(size, -1) for codes in (bound.z, bound.prior.sample(key_prior)))
        apart = mmd(z, prior, self.kernel, self.bandwidth)
        loss = bound.distortion.mean() + weight_at(self.weight, step) * apart
        if self.needs_rate:
            loss = loss + weight_at(self.rate_weight, step) * bound.rate.mean()
        return loss, {"loss": loss, **{name: term.mean() for name, term in bound.terms.items()}, "mmd": apart}

    def validation(self) -> Validation:
        """Return that parameters are selected by the ELBO; where the rate has no weight and so no bound, by the
        distortion.
        """
        return ELBO().validation() if self.needs_rate else ReconstructionError().validation()
