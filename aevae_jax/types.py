"""The contracts that every other file is written against. Read this first.

A latent variable model is four pure functions: `init`, `encode`, `decode` and `prior`. Everything that trains,
evaluates, samples or compresses consumes these four and nothing else, so a model of your own only has to provide them.

Shapes are written as `[B, *event]`: `B` examples, each one event (an image `[H, W, C]` or a vector `[D]`).
Densities are in nats, summed over the event axes, with all their constants.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

from aevae_jax.errors import (  # handed on
    InputError as InputError,  # noqa: PLC0414
    not_installed as not_installed,  # noqa: PLC0414
    printable as printable,  # noqa: PLC0414
    shortened as shortened,  # noqa: PLC0414
)

if TYPE_CHECKING:  # at run time the contracts must not import JAX: `aevae --help` reads them
    from jax import Array

Params: TypeAlias = Any
"""A plain pytree of arrays."""

Latent: TypeAlias = Any
"""A batch of codes: an array `[B, *latent]`, or a pytree of such arrays for hierarchical models."""

Metrics: TypeAlias = "dict[str, Array]"
"""Named scalars; the unit of each is nats per example unless its name says otherwise."""


@runtime_checkable
class Distribution(Protocol):
    """`B` independent distributions over one event each: a frozen pytree whose leaves all have a leading axis `B`."""

    def sample(self, key: Array) -> Any:
        """Return one draw of each distribution, `[B, *event]`, differentiable in the parameters where that is
        possible.
        """
        ...

    def log_prob(self, value: Any) -> Array:
        """Log density (or log mass) in nats of `value` `[B, *event]`, summed over event axes: `[B]`; `NotImplemented`
        where it is not known of every value: see `DrawnWithDensity` and `EstimatedDensity`."""
        ...

    def mean(self) -> Any:
        """Return expected value, `[B, *event]`; where there is no closed form, the point that the docstring names."""
        ...

    def kl(self, other: Distribution) -> Any:
        """Return KL(self || other) in nats, `[B]`; `NotImplemented` where no closed form exists."""
        ...


@runtime_checkable
class LatentModel(Protocol):
    """p(z) p(x|z) with a recognition model q(z|x)."""

    def init(self, key: Array) -> Params:
        """Return fresh parameters."""
        ...

    def encode(self, params: Params, x: Array) -> Distribution:
        """Return q(z|x) of x `[B, *event]`."""
        ...

    def decode(self, params: Params, z: Latent) -> Distribution:
        """Return p(x|z) of z `[B, *latent]`."""
        ...

    def prior(self, params: Params, n: int) -> Distribution:
        """Return p(z) for a batch of `n`."""
        ...


class Objective(Protocol):
    """A scalar to be minimised, in nats per example, and metrics to be logged.

    Any function with this signature is an objective; those with hyper-parameters are frozen dataclasses.
    """

    def __call__(
        self, model: LatentModel, params: Params, x: Array, key: Array, step: Array
    ) -> tuple[Array, Metrics] | tuple[Array, Metrics, Params]:
        """Return the loss and its metrics; also, where it has any, what is put in place of `params["statistics"]`."""
        ...


# ----------------------------------------------------------------------------- what may be offered beyond the contracts
#
# Each of these is optional. What a model, a likelihood, a distribution or an objective of yours offers is found by
# `isinstance` of these protocols, which looks for the names alone; nothing else is looked for anywhere.

Metric: TypeAlias = "Callable[[LatentModel, Params, Array, Array], dict[str, Array]]"
"""(model, params, x, key) -> `{name: [B, ...]}`, with a stable identity: it is compiled once per function."""


class Validation(NamedTuple):
    """What is measured on validation data while an objective trains, and what selects the parameters."""

    metric: Metric
    minimised: tuple[str, ...]
    """Entries of the metric. The first one that is measured selects: a model of points, for one, has no bound."""


@runtime_checkable
class Validated(Protocol):
    """An objective that says what its parameters are selected by; others are selected as `evaluation` says."""

    def validation(self) -> Validation:
        """Return the metric and the entry of it that is minimised."""
        ...


@runtime_checkable
class Parametrised(Protocol):
    """An objective with parameters of its own, such as a discriminator's, which it finds in `params["objective"]`.

    They follow the same scalar as the model's: `stop_gradient` says in it which term trains whom.
    """

    def init(self, key: Array, model: LatentModel) -> Params:
        """Return fresh parameters of it."""
        ...

    def optimizer(self) -> Any:
        """Return the optax transformation that they are trained by."""
        ...


@runtime_checkable
class TrainingPart(Protocol):
    """An objective that trains some entries of the dict of parameters alone: no optimizer sees the others."""

    @property
    def trains(self) -> tuple[str, ...]:
        """Their names, such as `prior`."""
        ...


@runtime_checkable
class RateWeighted(Protocol):
    """An objective that multiplies the rate by `beta`."""

    @property
    def beta(self) -> Any:
        """A number, or a function of the step."""
        ...


@runtime_checkable
class RateNeeding(Protocol):
    """An objective that says whether it needs a rate, which codes that are points have not."""

    @property
    def needs_rate(self) -> bool:
        """Whether it does."""
        ...


@runtime_checkable
class SizeNeeding(Protocol):
    """An objective, a frozen dataclass, that depends on how many training examples there are; 0 is replaced by that."""

    @property
    def num_examples(self) -> int:
        """Their number."""
        ...


@runtime_checkable
class TotalNeeding(Protocol):
    """An optimizer that says whether it needs to know how many steps there will be; of others that is assumed."""

    @property
    def needs_total(self) -> bool:
        """Whether its steps depend on how many there will be, as along a cosine: more of them are another training."""
        ...


@runtime_checkable
class Shaped(Protocol):
    """A model, a frozen dataclass, that is built for one shape of event; `()` is replaced by that of the data."""

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        ...


@runtime_checkable
class PointCoded(Protocol):
    """A model that says whether its codes are points: then q(z|x) has no density, and it is trained without a rate."""

    @property
    def point_codes(self) -> bool:
        """Whether they are."""
        ...


@runtime_checkable
class Ranged(Protocol):
    """A model whose codes have bounds, which an objective may need."""

    @property
    def code_range(self) -> tuple[float, float]:
        """The least and the largest number of a code."""
        ...


@runtime_checkable
class WithLikelihood(Protocol):
    """A model, a frozen dataclass, that is given its p(x|z) as a value."""

    @property
    def likelihood(self) -> Any:
        """The likelihood: see `likelihoods`."""
        ...


@runtime_checkable
class Supported(Protocol):
    """A likelihood that can score some values alone: data are checked once, before any training."""

    @property
    def support(self) -> Any:
        """A `likelihoods.Support`."""
        ...


@runtime_checkable
class Columned(Protocol):
    """A likelihood of a table's rows, a frozen dataclass; `()` is replaced by the columns of the data."""

    @property
    def columns(self) -> tuple[int, ...]:
        """The number of categories of each column, 0 for numbers and counts."""
        ...

    @property
    def counts(self) -> tuple[tuple[int, float, float], ...]:
        """The place of each column of counts, where 0 lies among its values, and how far 1 is from it."""
        ...


@runtime_checkable
class Dequantising(Protocol):
    """A preparation that says whether it spreads integer levels evenly over [0, 1): densities are then code lengths."""

    @property
    def dequantises(self) -> bool:
        """Whether it does."""
        ...


@runtime_checkable
class Scaled(Protocol):
    """A distribution of which standard deviations are known, or a likelihood that takes one for granted."""

    @property
    def scale(self) -> Any:
        """Standard deviation of each element, `[B, *event]`; of a likelihood, one number in the units of the data."""
        ...


@runtime_checkable
class Factorised(Protocol):
    """A distribution of independent elements, each leaf of which has the leading axis `B`."""

    def log_prob_terms(self, value: Any) -> Array:
        """Log density per element, `[B, *event]`; `log_prob` is its sum."""
        ...

    def kl_terms(self, other: Distribution) -> Any:
        """Return KL(self || other) per element, `[B, *event]`; `NotImplemented` where no closed form exists."""
        ...


@runtime_checkable
class DrawnWithDensity(Protocol):
    """A distribution that computes a draw and its log density together, such as a normalising flow.

    Its `log_prob` of a value that was not drawn is another computation: it may invert the flow, or not be known.
    """

    def sample_and_log_prob(self, key: Array) -> tuple[Any, Array]:
        """Return what `sample` returns for this key, `[B, *event]`, and its log density in nats, `[B]`."""
        ...


@runtime_checkable
class EstimatedDensity(Protocol):
    """A distribution whose density is known by an unbiased estimate alone; its `log_prob` is `NotImplemented`."""

    def log_prob_estimate(self, value: Any, key: Array) -> Array:
        """Return the logarithm of the estimate in nats, `[B]`: on average a lower bound of the log density."""
        ...


@runtime_checkable
class ByLevel(Protocol):
    """A distribution over codes of several levels, each given those above it: its rate is known level by level."""

    def levels(self, value: Any) -> tuple[tuple[Distribution, Any], ...]:
        """Return the distribution of each level given the levels above it in `value` `[B, *event]`, and the part of
        `value` that is of this level: the uppermost first.
        """
        ...


@runtime_checkable
class PartlyObserved(Protocol):
    """A distribution over events whose elements may be missing."""

    def observed(self, value: Any) -> Array:
        """Return which elements of `value` are data: 1 or 0, `[B, *event]`."""
        ...


@runtime_checkable
class LeftOpen(Protocol):
    """A likelihood or a prior that is left to the data: `fit` puts in its place what suits them."""

    @property
    def without_data(self) -> Any:
        """What it stands for where nobody has put anything in its place."""
        ...


def left_open(model: object) -> dict[str, LeftOpen]:
    """Return which of a model's likelihood and prior are left to the data, by the names of their fields."""
    found = {name: getattr(model, name, None) for name in ("likelihood", "latent_prior")}
    return {name: value for name, value in found.items() if isinstance(value, LeftOpen)}


Measure: TypeAlias = Literal["density", "mass", "density and mass", "point", "profile"]
"""What `log_prob` is the logarithm of: a density with respect to volume in the units of the values; the probability of
levels or codes; the one of some elements and the other of the rest; 0 at a point; or the largest density of a family,
chosen for the value that is scored, which is no density of anything. Only numbers of one measure can be compared."""


@runtime_checkable
class Measured(Protocol):
    """A distribution that says what its `log_prob` is the logarithm of; others are taken to have a density or mass."""

    @property
    def measure(self) -> Measure:
        """The base measure."""
        ...


class Peers(Protocol):
    """Processes that work together; each of them calls `share` and `gather` as often as the others, in one order."""

    def index(self) -> int:
        """Return which of them this is, from 0."""
        ...

    def timeout(self) -> int:
        """Return after how many seconds what another has done must be seen."""
        ...

    def share(self, value: Any) -> Any:
        """Return the JSON value that process 0 gives."""
        ...

    def gather(self, value: Any) -> list[Any]:
        """Return the JSON values that all of them give."""
        ...


def measure_of(distribution: object) -> str:
    """Return the base measure of a distribution, "unknown" where it does not say."""
    return distribution.measure if isinstance(distribution, Measured) else "unknown"


def likelihood_of(model: object) -> Any:
    """Return the likelihood that a model was given, `None` where it has none as a value."""
    return model.likelihood if isinstance(model, WithLikelihood) else None


def support_of(model: object) -> Any:
    """Return the `likelihoods.Support` of a model's likelihood, `None` where it does not say."""
    likelihood = likelihood_of(model)
    return likelihood.support if isinstance(likelihood, Supported) else None


def has_point_codes(model: object) -> bool:
    """Return whether a model says that its codes are points."""
    return isinstance(model, PointCoded) and model.point_codes
