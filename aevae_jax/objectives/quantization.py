"""Losses of discrete codes, and what is measured of these: how many are in use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aevae_jax import limits
from aevae_jax.discrete import Adapting, Committed, Indexed, Relaxable
from aevae_jax.lazy import jax, jnp, modules, np
from aevae_jax.objectives.losses import LinearWarmup, Weight, check_weight, weight_at
from aevae_jax.types import InputError, LatentModel, Metrics, Params, Validation

if TYPE_CHECKING:
    from jax import Array

    from aevae_jax.objectives import bounds
else:
    bounds = modules("aevae_jax.objectives", "bounds")


@dataclass(frozen=True)
class VQ:
    """The negative ELBO, and what keeps encoder and codebook together. van den Oord et al. 2017, equation 3.

    Under a prior without parameters the rate is a constant; the distortion trains encoder and decoder, through the
    code as its gradient says. Both squared distances are summed over the vectors of an example, as the distortion is
    over its elements; the paper takes their mean over vectors. A codebook of moving averages has no term, and codes
    without a codebook have neither.

    Args:
      commitment: weight of the squared distance of the encoder's outputs from their codes.
    """

    commitment: Weight = 0.25

    def __post_init__(self) -> None:
        check_weight("VQ commitment", self.commitment)

    def __call__(
        self, model: LatentModel, params: Params, x: Array, key: Array, step: Array
    ) -> tuple[Array, Metrics] | tuple[Array, Metrics, Params]:
        key_code, key_statistics = jax.random.split(key)
        bound = bounds.elbo(model, params, x, key_code)
        q = bound.posterior
        if not isinstance(q, Indexed):
            raise _no_codes("VQ", model, "VQVAE()")
        loss = bound.negative_elbo.mean()
        metrics = {name: term.mean() for name, term in bound.terms.items()}
        if isinstance(q, Committed):
            metrics["commitment"] = q.commitment().mean()
            loss = loss + weight_at(self.commitment, step) * metrics["commitment"]
            if q.learned:
                metrics["codebook_error"] = q.codebook_error().mean()
                loss = loss + metrics["codebook_error"]
        metrics = {"loss": loss, **metrics, **batch_usage(q.indices(bound.z), q.choices)}
        after = model.adapted(params, bound.posterior, key_statistics) if isinstance(model, Adapting) else None
        return (loss, metrics) if after is None else (loss, metrics, after)

    def validation(self) -> Validation:
        """Return that parameters are selected by the ELBO."""
        return Validation(code_terms, ("negative_elbo", "profile_loss"))


@dataclass(frozen=True)
class GumbelSoftmax:
    """The negative ELBO of categorical codes, with a gradient through soft draws. Jang, Gu & Poole 2017.

    A soft draw is no code, and what it costs to reconstruct from it is no bound: it is `relaxed_distortion`. Validation
    has one-hot draws.

    Args:
      temperature: of the draws, a number or a schedule of the step, such as `LinearWarmup(5000, 1.0, 0.5)`. The lower,
        the nearer draws are to codes, and the larger is the variance of the gradient. 2/3 is that of Maddison, Mnih &
        Teh 2017.
      straight_through: decode one-hot vectors, with the gradient of the soft ones: a bound, with a biased gradient.
    """

    temperature: Weight = 0.67
    straight_through: bool = False

    def __post_init__(self) -> None:
        check_weight("GumbelSoftmax temperature", self.temperature)
        self._check(self.temperature)

    def __call__(self, model: LatentModel, params: Params, x: Array, key: Array, step: Array) -> tuple[Array, Metrics]:
        if isinstance(self.temperature, LinearWarmup):
            self._check(self.temperature.start, self.temperature.end)
        q = model.encode(params, x)
        if not isinstance(q, Relaxable):
            raise _no_codes("GumbelSoftmax", model, "CategoricalVAE()")
        soft, code = q.relaxed(key, weight_at(self.temperature, step))
        likelihood = model.decode(params, code if self.straight_through else soft)
        p = model.prior(params, x.shape[0])
        distortion, rate = bounds.distortion(likelihood, x), bounds.rate(q, p, code)
        terms = bounds.Bound(distortion, rate, q, p, likelihood, code).terms
        if not self.straight_through:
            terms = {"relaxed_distortion": distortion, "rate": rate}
        loss = (distortion + rate).mean()
        usage = batch_usage(q.indices(code), q.choices) if isinstance(q, Indexed) else {}
        return loss, {"loss": loss, **{name: term.mean() for name, term in terms.items()}, **usage}

    def validation(self) -> Validation:
        """Return that parameters are selected by the ELBO, of one-hot codes."""
        return Validation(code_terms, ("negative_elbo", "profile_loss"))

    def _check(self, *temperatures: Any) -> None:
        """Refuse draws that are no longer soft, and have no gradient."""
        if any(map(limits.is_zero, temperatures)):
            raise InputError("GumbelSoftmax temperature", got="0", expected="a positive number, such as 0.5")


def _no_codes(what: str, model: LatentModel, expected: str) -> InputError:
    name = type(model).__name__
    return InputError(f"model of {what}", got=f"{name}, whose codes it is not for", expected=f"one such as {expected}")


def code_terms(model: LatentModel, params: Params, x: Array, key: Array) -> dict[str, Array]:
    """Return what `bounds.bound_terms` does, and `code_indices` `[B, places, levels]` of the sampled code.

    Of a data set, these become the figures of `usage`.
    """
    bound = bounds.elbo(model, params, x, key)
    q = bound.posterior
    terms = {**bound.terms, "mse_at_mean": bounds.squared_error(model.decode(params, q.mean()), x)}
    return {**terms, "code_indices": q.indices(bound.z)} if isinstance(q, Indexed) else terms


def batch_usage(index: Array, choices: int) -> Metrics:
    """Return `usage` of the indices of a batch, `[B, places, levels]`, each one of `choices`."""
    rows = index.reshape(-1, index.shape[-1])
    used = jax.vmap(lambda column: jnp.zeros(choices).at[column].add(1.0), in_axes=1)(rows)  # [levels, choices]
    share = used / rows.shape[0]
    entropy = -jnp.where(share > 0, share * jnp.log(jnp.where(share > 0, share, 1.0)), 0.0).sum(axis=1)
    return {"perplexity": jnp.exp(entropy).mean(), "codes_used": (used > 0).sum(axis=1).mean(dtype=jnp.float32)}


def usage(index: Any) -> dict[str, float]:
    """Return how many codes of a book are in use, as means over its levels.

    Args:
      index: of the codes of all examples, `[N, places, levels]`.

    Returns:
      `perplexity`, the exponential of the entropy of their frequencies: so many codes that are equally frequent would
      have it; and `codes_used`, how many occur at all.
    """
    counts = [np.unique(level, return_counts=True)[1] for level in np.moveaxis(np.asarray(index), -1, 0)]
    shares = [count / count.sum() for count in counts]
    perplexities = [float(np.exp(-(share * np.log(share)).sum())) for share in shares]
    return {"perplexity": float(np.mean(perplexities)), "codes_used": float(np.mean([len(count) for count in counts]))}
