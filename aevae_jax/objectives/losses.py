"""Scalar losses, in nats per example, made of the bounds. To be minimised; each signs its metrics by name.

An objective is any function `(model, params, x, key, step) -> (loss, metrics)`. Metrics are `loss` as trained, and
`distortion`, `rate` and `negative_elbo` (their sum, whatever the weights in the loss), all in nats per example.

Each names what its parameters are selected by on validation data: see `types.Validated`. The weights of the loss have
no part in that.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from aevae_jax import limits
from aevae_jax.lazy import jnp, modules
from aevae_jax.types import Distribution, Factorised, InputError, LatentModel, Metrics, Params, Validation, measure_of

if TYPE_CHECKING:
    from jax import Array

    from aevae_jax.objectives import bounds
    from aevae_jax.objectives.bounds import Bound
else:
    bounds = modules("aevae_jax.objectives", "bounds")


@dataclass(frozen=True)
class LinearWarmup:
    """A weight that goes from `start` to `end` in `steps` training steps and stays there: KL warm-up."""

    steps: int
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        limits.check("LinearWarmup steps", self.steps, 1)
        limits.check("LinearWarmup start", self.start, 0.0, limits.LARGEST)
        limits.check("LinearWarmup end", self.end, 0.0, limits.LARGEST)

    def __call__(self, step: Any) -> Any:
        return self.start + (self.end - self.start) * jnp.minimum(step / self.steps, 1.0)


@dataclass(frozen=True)
class Cyclical:
    """A weight that goes from `start` to `end` again and again: in each cycle it rises along a line, and then stays.

    Fu, Li, Liu, Gao, Celikyilmaz & Carin 2019, equations 6 and 7. After the last cycle it stays at `end`.

    Args:
      steps: training steps of a cycle.
      cycles: how many there are; 0 for as many as the training lasts.
      rise: the share of a cycle in which it rises.
      start, end: where it begins, and where it stays.
    """

    steps: int
    cycles: int = 4
    rise: float = 0.5
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        limits.check("Cyclical steps", self.steps, 1)
        limits.check("Cyclical cycles", self.cycles, 0)
        limits.check("Cyclical rise", self.rise, limits.SMALLEST, 1.0)
        limits.check("Cyclical start", self.start, 0.0, limits.LARGEST)
        limits.check("Cyclical end", self.end, 0.0, limits.LARGEST)

    def __call__(self, step: Any) -> Any:
        risen = jnp.minimum((step % self.steps) / (self.steps * self.rise), 1.0)
        if self.cycles:
            risen = jnp.where(step < self.cycles * self.steps, risen, 1.0)
        return self.start + (self.end - self.start) * risen


Weight = float | LinearWarmup | Cyclical | Callable[[Any], Any]
"""A number from 0 on, or a function of the step; every optax schedule is one."""


def weight_at(weight: Any, step: Array) -> Any:
    """Return the value of a `Weight` at `step`."""
    return weight(step) if callable(weight) else weight


def check_weight(what: str, weight: Any) -> None:
    """Refuse a number that is no weight: a term that is weighed by less than 0 is made as large as can be.

    Of a schedule it is seen when a training begins, and a number that is traced may be anything.

    Raises:
      InputError: about `what`.
    """
    if isinstance(weight, numbers.Real):
        limits.check(what, weight, 0.0, limits.LARGEST)


@dataclass(frozen=True)
class ReconstructionError:
    """The autoencoder's loss: the distortion at z ~ q(z|x), which for a `Delta` is the code itself.

    Under `likelihoods.Normal(1.0)` this is half the squared error plus a constant, D/2 ln 2 pi; `mse` is the mean
    squared error itself.
    """

    def __call__(self, model: LatentModel, params: Params, x: Array, key: Array, step: Array) -> tuple[Array, Metrics]:
        likelihood = model.decode(params, bounds.draw(model.encode(params, x), key)[0])
        loss = bounds.distortion(likelihood, x).mean()
        name = "profile_distortion" if measure_of(likelihood) == "profile" else "distortion"
        return loss, {"loss": loss, name: loss, "mse": bounds.squared_error(likelihood, x).mean()}

    def validation(self) -> Validation:
        """Return that parameters are selected by the distortion at z ~ q(z|x)."""
        return Validation(bounds.bound_terms, ("distortion", "profile_distortion"))


@dataclass(frozen=True)
class ELBO:
    """distortion + beta * rate; at beta = 1 the negative ELBO. Kingma & Welling 2013; Higgins et al. 2017.

    Args:
      beta: weight of the rate; a number from 0 on, or a schedule of the step.
      free_bits: nats per group of latent dimensions below which the rate costs nothing. The limit is on the batch mean
        of each group's rate, as in Kingma et al. 2016, appendix C.8; the rate that is logged is the raw one.
      groups: into how many consecutive groups the latent dimensions of each level fall; 0 means one per dimension, for
        which the rate must be known per dimension; 1 is the whole level, whose rate may be an estimate.
      sticking_the_landing: see `bounds.elbo`.
      rate: of a model of several levels, such as `TwoLevelVAE`, the rate is estimated at the draw as a whole, or
        "by level": in closed form given the levels above that were drawn, which has the same mean and less variance.
        Free bits are by level in any case.
    """

    beta: Weight = 1.0
    free_bits: float = 0.0
    groups: int = 0
    sticking_the_landing: bool = False
    rate: Literal["whole", "by level"] = "whole"

    needs_rate: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_weight("beta", self.beta)
        limits.check("free_bits", self.free_bits, 0.0, limits.LARGEST)
        limits.check("groups", self.groups, 0)
        if self.free_bits and self.sticking_the_landing:
            raise InputError(
                "free_bits with sticking_the_landing", got="both", expected="one: free bits need the rate per dimension"
            )
        if self.rate not in ("whole", "by level"):
            raise InputError("rate", got=limits.shown(self.rate), expected="'whole' or 'by level'")
        if self.rate == "by level" and self.sticking_the_landing:
            expected = "one: sticking_the_landing needs the rate at the draw"
            raise InputError("rate='by level' with sticking_the_landing", got="both", expected=expected)

    def __call__(self, model: LatentModel, params: Params, x: Array, key: Array, step: Array) -> tuple[Array, Metrics]:
        landing, by_level = self.sticking_the_landing, self.rate == "by level"
        bound = bounds.elbo(model, params, x, key, sticking_the_landing=landing, by_level=by_level)
        rate = bound.rate.mean() if limits.is_zero(self.free_bits) else self._limited(bound)
        loss = bound.distortion.mean() + weight_at(self.beta, step) * rate
        return loss, {"loss": loss, **{name: term.mean() for name, term in bound.terms.items()}}

    def validation(self) -> Validation:
        """Return that parameters are selected by the ELBO at beta = 1, with neither free bits nor warm-up."""
        return Validation(bounds.bound_terms, ("negative_elbo", "profile_loss"))

    def _limited(self, bound: Bound) -> Array:
        """Return sum over groups of max(free_bits, batch mean of the group's rate)."""
        levels = bounds.levels(bound.posterior, bound.prior, bound.z)
        total, *others = (self._limited_level(*level, bound.rate if len(levels) == 1 else None) for level in levels)
        for other in others:
            total = total + other
        return total

    def _limited_level(self, q: Distribution, p: Distribution, z: Any, known: Array | None) -> Array:
        """Return the same of one level, of which the rate as a whole may be known."""
        kl_terms = q.kl_terms(p) if isinstance(q, Factorised) else NotImplemented  # [B, *latent]
        if kl_terms is NotImplemented:
            points = measure_of(q) == "point"
            if points or self.groups != 1:
                raise InputError(
                    "free_bits",
                    got=f"a prior of type {type(p).__name__}",
                    expected="a rate in closed form per dimension",
                    hint="" if points else "type groups=1 for a limit on the rate as a whole",
                )
            whole = bounds.rate(q, p, z) if known is None else known
            return jnp.maximum(self.free_bits, whole.mean())
        per_dimension = kl_terms.mean(axis=0).reshape(-1)
        groups = self.groups or per_dimension.size
        if per_dimension.size % groups:
            raise InputError("groups", got=groups, expected=f"a divisor of the latent size {per_dimension.size}")
        return jnp.maximum(self.free_bits, per_dimension.reshape(groups, -1).sum(axis=1)).sum()


@dataclass(frozen=True)
class IWAE:
    """The negative importance-weighted bound with K = `num_samples`. Burda, Grosse & Salakhutdinov 2016.

    With K > 1 a run is selected by this bound on validation data, not by the ELBO, which it makes worse.

    Args:
      num_samples: K; 1 gives the ELBO with a sampled rate.
      doubly_reparameterised: use the encoder gradient of Tucker et al. 2019, which does not fade as K grows.
    """

    num_samples: int = 50
    doubly_reparameterised: bool = False

    needs_rate: ClassVar[bool] = True

    def __post_init__(self) -> None:
        limits.check("num_samples", self.num_samples, 1)

    def __call__(self, model: LatentModel, params: Params, x: Array, key: Array, step: Array) -> tuple[Array, Metrics]:
        if self.doubly_reparameterised:
            bound = bounds.doubly_reparameterised_bound(model, params, x, key, self.num_samples)
        else:
            bound = bounds.importance_weighted_bound(bounds.log_weights(model, params, x, key, self.num_samples))
        loss = -bound.mean()
        return loss, {"loss": loss, "negative_importance_weighted_bound": loss}

    def validation(self) -> Validation:
        """Return that parameters are selected by this bound of K samples; the ELBO gets worse the longer it trains."""
        if self.num_samples == 1:
            return Validation(bounds.bound_terms, ("negative_elbo",))
        return Validation(bounds.weighted_terms(self.num_samples), ("negative_importance_weighted_bound",))
