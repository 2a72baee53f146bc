"""Likelihoods p(x|z) as values: how many numbers a decoder gives per element, and which distribution they make.

Calling a likelihood on `raw` `[B, *event, outputs]` gives a `Distribution` over `[B, *event]`. Each declares the
support that it can score, and data outside it is refused before training starts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from aevae_jax import distributions, limits
from aevae_jax.distributions import table_layout
from aevae_jax.lazy import jnp, modules, np
from aevae_jax.types import Distribution, InputError, Params

if TYPE_CHECKING:
    from jax import Array

    from aevae_jax.distributions import interlaced
else:
    interlaced = modules("aevae_jax.distributions", "interlaced")


SCALE_RANGE = (-7.0, 2.0)
"""Bounds of a learned log scale, in log units of the data: e^-7 is a quarter of one of 256 grey levels."""


@dataclass(frozen=True)
class Support:
    """The values a likelihood can score: an interval, or `levels` equally spaced points of it."""

    low: float
    high: float
    levels: int | None = None

    def __str__(self) -> str:
        if self.levels == 2:
            return "0 or 1"
        if self.levels is not None:
            return f"the {self.levels} levels k/{self.levels - 1} of [{self.low:g}, {self.high:g}]"
        return "finite numbers" if self.high == float("inf") else f"numbers in [{self.low:g}, {self.high:g}]"

    def check(self, x: np.ndarray, name: str) -> None:
        """Raise `InputError` unless every value of `x` lies in the support.

        Args:
          x: data as the model will see it, any shape.
          name: what to call it in the message.
        """
        if not np.isfinite(x).all():
            raise InputError(
                name, got=f"{int((~np.isfinite(x)).sum())} values that are NaN or infinite", expected=str(self)
            )
        outside = (x < self.low) | (x > self.high)
        if self.levels is not None:
            position = x * (self.levels - 1)
            outside |= np.abs(position - np.round(position)) > 1e-3
        if outside.any():
            hint = "choose another likelihood, or a preparation such as DynamicBinarization()"
            distinct = np.unique(x)
            if self.levels not in (None, 2) and distinct[0] >= self.low and distinct[-1] <= self.high:
                for levels in range(max(2, len(distinct)), 257):
                    if np.allclose(distinct * (levels - 1), np.round(distinct * (levels - 1)), 0, 1e-3):
                        hint = f"type levels={levels} in the likelihood, as the data has"
                        break
            raise InputError(
                name,
                got=f"{x[outside].flat[0]:.6g} ({100 * outside.mean():.2g} % of the values are outside)",
                expected=f"{self}, the support of the likelihood",
                hint=hint,
            )


REAL = Support(-float("inf"), float("inf"))
UNIT_INTERVAL = Support(0.0, 1.0)
BINARY = Support(0.0, 1.0, levels=2)


@dataclass(frozen=True)
class Normal:
    """Gaussian of one fixed standard deviation. With scale 1 the negative log likelihood is half the squared error."""

    scale: float = 1.0

    outputs: ClassVar[int] = 1
    natural: ClassVar[bool] = True
    support: ClassVar[Support] = REAL

    def __post_init__(self) -> None:
        limits.check("Normal scale", self.scale, limits.SMALLEST, limits.LARGEST)

    def init(self) -> Params:
        return {}

    def __call__(self, params: Params, raw: Array) -> Distribution:
        loc = raw[..., 0]
        return distributions.Normal(loc, jnp.full_like(loc, jnp.log(self.scale)))


@dataclass(frozen=True)
class NormalElementScale:
    """Gaussian whose standard deviation is predicted for every element of every example."""

    outputs: ClassVar[int] = 2
    support: ClassVar[Support] = REAL

    def init(self) -> Params:
        return {}

    def __call__(self, params: Params, raw: Array) -> Distribution:
        return distributions.Normal(raw[..., 0], distributions.bounded(raw[..., 1], *SCALE_RANGE))


@dataclass(frozen=True)
class NormalSharedScale:
    """Gaussian with one standard deviation for all elements and examples, learned with the other parameters.

    Args:
      initial_scale: where it starts. Too large a start makes the KL outweigh the reconstruction at first, and latent
        dimensions that switch off then seldom come back.
    """

    initial_scale: float = 0.25

    outputs: ClassVar[int] = 1
    natural: ClassVar[bool] = True
    support: ClassVar[Support] = REAL

    def __post_init__(self) -> None:
        low, high = (math.exp(bound) for bound in SCALE_RANGE)
        limits.check("initial_scale", self.initial_scale, -limits.LARGEST, limits.LARGEST)
        if not low < self.initial_scale < high:
            raise InputError("initial_scale", got=self.initial_scale, expected=f"between {low:.2g} and {high:.2g}")

    def init(self) -> Params:
        return {"log_scale": distributions.unbounded(jnp.log(self.initial_scale), *SCALE_RANGE)}

    def __call__(self, params: Params, raw: Array) -> Distribution:
        loc = raw[..., 0]
        log_scale = distributions.bounded(params["log_scale"], *SCALE_RANGE)
        return distributions.Normal(loc, jnp.broadcast_to(log_scale, loc.shape))


@dataclass(frozen=True)
class NormalOptimalScale:
    """Gaussian whose standard deviation is the best one for each example (sigma-VAE). See `distributions`."""

    outputs: ClassVar[int] = 1
    support: ClassVar[Support] = REAL

    def init(self) -> Params:
        return {}

    def __call__(self, params: Params, raw: Array) -> Distribution:
        return distributions.NormalOptimalScale(raw[..., 0])


@dataclass(frozen=True)
class Bernoulli:
    """Independent bits. Data must be binary: the cross-entropy of grey levels is no likelihood."""

    outputs: ClassVar[int] = 1
    natural: ClassVar[bool] = True
    support: ClassVar[Support] = BINARY

    def init(self) -> Params:
        return {}

    def __call__(self, params: Params, raw: Array) -> Distribution:
        return distributions.Bernoulli(raw[..., 0])


@dataclass(frozen=True)
class ContinuousBernoulli:
    """The normalised density on [0, 1] behind the cross-entropy of grey levels."""

    outputs: ClassVar[int] = 1
    natural: ClassVar[bool] = True
    support: ClassVar[Support] = UNIT_INTERVAL

    def init(self) -> Params:
        return {}

    def __call__(self, params: Params, raw: Array) -> Distribution:
        return distributions.ContinuousBernoulli(raw[..., 0])


@dataclass(frozen=True)
class _Grid:
    """What the likelihoods of discrete grey levels share: the number of levels, 256 for 8-bit images."""

    levels: int = 256

    def __post_init__(self) -> None:
        limits.check("levels", self.levels, 2, 2**16)

    @property
    def support(self) -> Support:
        return Support(0.0, 1.0, self.levels)

    def init(self) -> Params:
        return {}


@dataclass(frozen=True)
class Categorical(_Grid):
    """A free probability for every grey level of every element."""

    natural: ClassVar[bool] = True

    @property
    def outputs(self) -> int:
        return self.levels

    def __call__(self, params: Params, raw: Array) -> Distribution:
        return distributions.Categorical(raw)


@dataclass(frozen=True)
class DiscretizedLogistic(_Grid):
    """One rounded logistic per element."""

    outputs: ClassVar[int] = 2

    def __call__(self, params: Params, raw: Array) -> Distribution:
        log_scale = distributions.bounded(raw[..., 1] - 2.0, *SCALE_RANGE)  # starts at a seventh of the range
        return distributions.DiscretizedLogistic(raw[..., 0] + 0.5, log_scale, self.levels)


@dataclass(frozen=True)
class DiscretizedLogisticMixture(_Grid):
    """A mixture of rounded logistics per element, their centres spread over [0, 1] at the start."""

    components: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        limits.check("components", self.components, 1)

    @property
    def outputs(self) -> int:
        return 3 * self.components

    def __call__(self, params: Params, raw: Array) -> Distribution:
        logits, shift, raw_scale = jnp.split(raw, 3, axis=-1)
        centres = (jnp.arange(self.components) + 0.5) / self.components
        log_scale = distributions.bounded(raw_scale - 2.0, *SCALE_RANGE)
        loc = shift + jnp.broadcast_to(centres, shift.shape)
        return distributions.DiscretizedLogisticMixture(logits, loc, log_scale, self.levels)


@dataclass(frozen=True)
class InterlacedLogisticMixture(_Grid):
    """Mixtures of rounded logistics of pixels that come in four passes, each given its neighbours in those before.

    It knows what neighbours say of each other, so a code need not: files are smaller, random codes say less.

    Args:
      levels: of grey.
      components: logistics of a pixel.
      features: numbers that a decoder gives for each pixel, which a layer sees together with its neighbours.
    """

    components: int = 3
    features: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        limits.check("components", self.components, 1)
        limits.check("features", self.features, 1)

    @property
    def outputs(self) -> int:
        return self.features

    def init(self) -> Params:
        """Return parameters with which no pixel depends on anything: features differ, so they do not stay alike."""
        passes, near, out = interlaced.PASSES, interlaced.NEAR, 3 * self.components
        centres = (jnp.arange(self.components) + 0.5) / self.components
        flat = jnp.zeros(self.components)
        return {
            "context": jnp.zeros((near, passes, self.features)),
            "hidden": jnp.zeros((passes, self.features, out)),
            "direct": jnp.zeros((near, passes, out)),
            "bias": jnp.tile(jnp.concatenate([flat, centres, flat - 2.0])[None], (passes, 1)),
        }

    def __call__(self, params: Params, raw: Array) -> Distribution:
        return distributions.InterlacedLogisticMixture(raw, **params, scale_range=SCALE_RANGE, levels=self.levels)


@dataclass(frozen=True)
class Tabular:
    """A table's columns side by side: Gaussian numbers, rounded logistic counts, bits, categories; what is missing is
    left out.

    Data and outputs are features, as `table_layout` says, and there is one output for each feature. The mean and log
    scale of a number or count, which are predicted for every example, take the places of its value and of its mark of
    observation. `fit` takes both arguments from the data where they are left out.

    Args:
      columns: the number of categories of each column: 0 for numbers and counts, 2 for bits.
      counts: the place of each column of counts, where 0 lies among its standardised values, and how far 1 is from it.
    """

    columns: tuple[int, ...] = ()
    counts: tuple[tuple[int, float, float], ...] = ()

    outputs: ClassVar[int] = 1
    support: ClassVar[Support] = REAL

    def __post_init__(self) -> None:
        limits.check_sizes("Tabular columns", self.columns, 0)
        if 1 in self.columns:
            raise InputError("Tabular columns", got=self.columns, expected="0 for numbers, else 2 or more categories")
        for place, _, step in self.counts:
            of_numbers = not self.columns or self.columns[place : place + 1] == (0,)
            if place < 0 or step <= 0 or not of_numbers:
                raise InputError("Tabular counts", got=self.counts, expected="places of numbers, each with a step > 0")

    def init(self) -> Params:
        return {}

    def __call__(self, params: Params, raw: Array) -> Distribution:
        if not self.columns:
            raise InputError(
                "Tabular columns",
                got="()",
                expected="the number of categories of each, 0 for numbers",
                hint="write tables.likelihood(prepared.format), or let `fit` do so",
            )
        if raw.shape[1:] != (table_layout.feature_count(self.columns), 1):
            raise InputError(
                "features of a table",
                got=raw.shape[1:-1],
                where=f"Tabular({self.columns})",
                expected=f"({table_layout.feature_count(self.columns)},)",
            )
        outputs = raw[..., 0]
        is_log_scale = table_layout.log_scales(self.columns)[None]
        outputs = jnp.where(is_log_scale, distributions.bounded(outputs, *SCALE_RANGE), outputs)
        ranges = {place: (zero, step) for place, zero, step in self.counts}
        columns = tuple(table_layout.COUNT if place in ranges else width for place, width in enumerate(self.columns))
        return distributions.Tabular(outputs, columns, tuple(ranges[place] for place in sorted(ranges)))


@dataclass(frozen=True)
class FromData:
    """The likelihood that suits the data, which `fit` puts in its place: see `data.suited`.

    Where a model is used without `fit`, it is `NormalSharedScale()`.
    """

    without_data: ClassVar[NormalSharedScale] = NormalSharedScale()
    outputs: ClassVar[int] = without_data.outputs
    support: ClassVar[Support] = without_data.support

    def init(self) -> Params:
        return self.without_data.init()

    def __call__(self, params: Params, raw: Array) -> Distribution:
        return self.without_data(params, raw)


Likelihood = (
    Normal
    | NormalElementScale
    | NormalSharedScale
    | NormalOptimalScale
    | Bernoulli
    | ContinuousBernoulli
    | Categorical
    | DiscretizedLogistic
    | DiscretizedLogisticMixture
    | InterlacedLogisticMixture
    | Tabular
    | FromData
)
"""The likelihoods a saved run may name. One of your own needs `outputs`, `support`, `init` and `__call__`."""
