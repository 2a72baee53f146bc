"""How raw values become what the model sees, as values.

Training batches are prepared inside the training step, from the run's key; evaluation data is prepared once, without
the run's seed, and never redrawn. Every preparation has the same methods:

    fit(dataset) -> Format                    what it must know; refuses data that it cannot prepare
    training(x, format) -> source             what is kept of the training data, where that is not the raw rows
    train(rows, key, format) -> x             a batch of them `[B, *event]`, in the step, with JAX
    evaluation(parts, format) -> [x, ...]     whole splits in their published order, with NumPy, float32
    units(x, format), inverse(x, format)      between what the model sees and the units of pictures and tables

Tables become features, as `tables.py` says; only `Scale` and `Standardize` take them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from aevae_jax.data import tables
from aevae_jax.data.datasets import Dataset, Format, Mapped, Source, blocks, cast, in_memory
from aevae_jax.lazy import jnp, modules, np
from aevae_jax.types import InputError

if TYPE_CHECKING:
    from jax import Array

    from aevae_jax import keys
else:
    keys = modules("aevae_jax", "keys")


BELOW_ONE = 1 - 2.0**-24
"""The largest float32 below 1."""

FINE_STEPS = 128
"""Float32 must have at least so many steps within the spread of a feature; with fewer, its values run together."""


@dataclass(frozen=True)
class _Pixels:
    """What the preparations share that leave the units alone: pictures lie in [0, 1] on both sides."""

    needs_levels: ClassVar[bool] = True

    def fit(self, dataset: Dataset) -> Format:
        """Return the data's own format. Raises `InputError` for floats, where levels are needed, and for tables."""
        name = type(self).__name__
        if dataset.columns:
            raise InputError(
                name, got=f"a table ({dataset.name})", expected="images or vectors", hint="use Standardize()"
            )
        if self.needs_levels and dataset.levels < 2:
            raise InputError(name, got=f"float data ({dataset.name})", expected="integer levels", hint="use Scale()")
        return dataset.format

    def training(self, x: Source, format: Format) -> Source:
        """Return the training data as `train` takes it: raw, but never float64."""
        return cast(x, "float32")

    def units(self, x: np.ndarray, format: Format) -> np.ndarray:
        """Return what the model sees, from values in the units of the data ([0, 1] for images)."""
        return x

    def inverse(self, x: np.ndarray, format: Format) -> np.ndarray:
        """Return values in the units of the data ([0, 1] for images), from what the model sees."""
        return x


@dataclass(frozen=True)
class Scale(_Pixels):
    """Integer levels 0 .. L-1 to [0, 1] by division by L - 1. Floats pass as they are. Tables: codes alone."""

    needs_levels: ClassVar[bool] = False

    def fit(self, dataset: Dataset) -> Format:
        """Return the data's own format. Raises `InputError` for a table with columns of numbers."""
        numbers = [column.name for column in dataset.columns if not column.categories]
        if numbers:
            raise InputError(
                "Scale",
                got=f"a table with numbers, in column {numbers[0]!r} ({dataset.name})",
                expected="Standardize(), for columns of unlike units",
                hint="""type: --data \"Data('PATH', Standardize())\"""",
            )
        return dataset.format

    def train(self, raw: Any, key: Array, format: Format) -> Array:
        """Return a raw batch `[B, *event]` to what the model sees."""
        if format.columns:
            return tables.features(raw, format)
        return raw.astype("float32") / max(format.levels - 1, 1)

    def evaluation(self, parts: Sequence[Source], format: Format) -> list[Source]:
        """Return whole splits as the model sees them, float32."""
        if format.columns:
            return [tables.mapped(x, format) for x in parts]
        # the same float32 division as in training, not a multiplication by the reciprocal
        return [_mapped(x, lambda raw, rows: _float32(raw) / _float32(max(format.levels - 1, 1))) for x in parts]

    def units(self, x: np.ndarray, format: Format) -> np.ndarray:
        """Return what the model sees, from values in the units of the data ([0, 1] for images, codes for tables)."""
        return tables.features(x, format) if format.columns else x

    def inverse(self, x: np.ndarray, format: Format) -> np.ndarray:
        """Return values in the units of the data ([0, 1] for images, codes for tables), from what the model sees."""
        return tables.rows(x, format) if format.columns else x


@dataclass(frozen=True)
class Standardize:
    """Zero mean and unit variance, per channel or column, with the moments of the training data.

    Integer levels are first divided by L - 1, so that moments are in units of [0, 1], and stay bytes until the step.
    Floats are standardised once, in float64: an offset that float32 could not hold beside the values, of times or of
    coordinates, is gone before they become float32. A table's numbers are standardised over the entries that are not
    missing, positive ones as logarithms; its codes become features and stay as they are. A channel or column without
    variance is only shifted.
    Densities are those of standardised values: add the sum of ln scale over the elements for a density in the data's
    own units.
    """

    def fit(self, dataset: Dataset) -> Format:
        """Return the data's format with the moments of its training data, summed in float64."""
        format = dataset.format
        count, total, squares, shift, size = (np.zeros(dataset.event_shape[-1]) for _ in range(5))
        for _, raw in blocks(dataset.train.x):
            x = raw.reshape(-1, raw.shape[-1]).astype(np.float64) / max(format.levels - 1, 1)
            x = tables.linear(x, format.columns)
            present = ~np.isnan(x)
            if not count.all():  # near zero, the difference of squares below keeps its digits
                first = np.where(present, x, 0.0).sum(axis=0) / np.maximum(present.sum(axis=0), 1)
                shift = np.where(count, shift, first)
            size = np.maximum(size, np.where(present, np.abs(x), 0.0).max(axis=0))
            x = np.where(present, x - shift, 0.0)
            count, total, squares = count + present.sum(axis=0), total + x.sum(axis=0), squares + (x * x).sum(axis=0)
        mean = total / np.maximum(count, 1)
        scale = np.sqrt(np.maximum(squares / np.maximum(count, 1) - mean**2, 0.0))
        digits = np.finfo(np.float64 if dataset.train.x.dtype == np.float64 else np.float32).eps
        mean, scale = mean + shift, np.where(scale > 8 * digits * size, scale, 1.0)  # less is rounding, not variance
        coded = [bool(column.categories) for column in format.columns]
        if coded:
            mean, scale = np.where(coded, 0.0, mean), np.where(coded, 1.0, scale)
        return replace(format, mean=tuple(mean.tolist()), scale=tuple(scale.tolist()))

    def training(self, x: Source, format: Format) -> Source:
        """Return the training data as `train` takes it: bytes raw, floats standardised."""
        return x if format.levels else self._standardized(x, format)

    def train(self, raw: Any, key: Array, format: Format) -> Array:
        """Return a batch `[B, *event]` of what `training` left to what the model sees."""
        x = raw.astype("float32")
        if not format.levels:
            return tables.features(x, format) if format.columns else x
        each = (1,) * (raw.ndim - 1) + (-1,)  # ranks are spelled out
        return (x / (format.levels - 1) - _float32(format.mean).reshape(each)) / _float32(format.scale).reshape(each)

    def evaluation(self, parts: Sequence[Source], format: Format) -> list[Source]:
        """Return whole splits as the model sees them, float32."""
        standard = [self._standardized(x, format) for x in parts]
        return [tables.mapped(x, format) for x in standard] if format.columns else standard

    def units(self, x: np.ndarray, format: Format) -> np.ndarray:
        """Return what the model sees, from values in the units of the data ([0, 1] for images)."""
        [prepared] = self.evaluation([x], replace(format, levels=0))
        return prepared[:]

    def inverse(self, x: np.ndarray, format: Format) -> np.ndarray:
        """Return values in the units of the data ([0, 1] for images, codes and numbers for tables).

        They are float32, or float64 where float32 would lose what tells them apart beside their offset.
        """
        x = tables.rows(x, format) if format.columns else x
        mean, scale = np.array(format.mean), np.array(format.scale)
        if is_coarse(mean, scale).any() or any(column.double for column in format.columns):
            x = x.astype(np.float64) * scale + mean
        else:
            x = x * _float32(scale) + _float32(mean)
        return tables.natural(x, format) if format.columns else x

    def _standardized(self, x: Source, format: Format) -> Source:
        """Return rows as float32: from levels in float32, as in the step; from floats in float64."""
        if format.levels:
            mean, scale, levels = _float32(format.mean), _float32(format.scale), _float32(format.levels - 1)
            return _mapped(x, lambda raw, rows: (_float32(raw) / levels - mean) / scale)
        offset, unit = np.array(format.mean), np.array(format.scale)
        return _mapped(
            x, lambda raw, rows: _float32((tables.linear(raw.astype(np.float64), format.columns) - offset) / unit)
        )


@dataclass(frozen=True)
class Dequantize(_Pixels):
    """Integer levels to [0, 1) as (level + u) / L, u ~ U[0, 1) redrawn at every training step, fixed for evaluation.

    What float32 rounds up to 1 becomes the largest float32 below it, in training as in evaluation.

    The density of the result bounds the probability of the levels: Theis, van den Oord & Bethge 2016, section 3.1.
    A density of it, in nats, plus D ln L of the D elements is comparable with -log p of the levels.
    """

    dequantises: ClassVar[bool] = True

    def train(self, raw: Any, key: Array, format: Format) -> Array:
        """Return fresh noise on a raw batch `[B, *event]`."""
        noisy = (raw.astype(jnp.float32) + keys.uniform(key, raw.shape)) / format.levels
        return jnp.minimum(noisy, BELOW_ONE)

    def evaluation(self, parts: Sequence[Source], format: Format) -> list[Source]:
        """Return whole splits with noise that depends on the split and the row alone."""

        def noisy(raw: np.ndarray, rows: np.ndarray, part: int) -> np.ndarray:
            u = _uniform(part, rows, raw.shape[1:])
            return _float32(((raw + u) / format.levels).clip(max=BELOW_ONE))

        return [_mapped(x, partial(noisy, part=i)) for i, x in enumerate(parts)]


@dataclass(frozen=True)
class DynamicBinarization(_Pixels):
    """Pixels as bits: b ~ Bernoulli(level / (L - 1)), redrawn at every training step, fixed for evaluation.

    Validation, then test data are drawn once, in this order, by NumPy's legacy generator seeded with 777: the published
    protocol (Larochelle & Murray 2011 for the idea; the seed is that of the Exemplar-VAE and VampPrior repositories).
    """

    def train(self, raw: Any, key: Array, format: Format) -> Array:
        """Return a fresh binarisation of a raw batch `[B, *event]`."""
        return (keys.uniform(key, raw.shape) < raw.astype(jnp.float32) / (format.levels - 1)).astype(jnp.float32)

    def evaluation(self, parts: Sequence[Source], format: Format) -> list[Source]:
        """Return whole splits as bits, the same at every call."""
        return _published_bits(parts, format)


@dataclass(frozen=True)
class StaticBinarization(_Pixels):
    """Pixels as bits, drawn once for training, too: b ~ Bernoulli(level / (L - 1)).

    Evaluation bits are those of `DynamicBinarization`, the published ones. A training example's bits depend on its row
    alone (the counter-based generator Philox, keyed by 777 and the row), so that a stream sees what memory holds.
    """

    def training(self, x: Source, format: Format) -> Source:
        """Return the training data as bits, uint8."""

        def drawn(raw: np.ndarray, rows: np.ndarray) -> np.ndarray:
            return (_uniform(777, rows, raw.shape[1:]) < raw / (format.levels - 1)).astype(np.uint8)

        return _mapped(x, drawn, np.uint8)

    def train(self, raw: Any, key: Array, format: Format) -> Array:
        """Return bits `[B, *event]` as floats."""
        return raw.astype("float32")

    def evaluation(self, parts: Sequence[Source], format: Format) -> list[Source]:
        """Return whole splits as bits, the same at every call."""
        return _published_bits(parts, format)


@dataclass(frozen=True)
class Threshold(_Pixels):
    """Pixels as bits: 1 where level / (L - 1), or a float, is above `at`. Nothing is random.

    Args:
      at: the threshold, in units of [0, 1] for integer levels.
    """

    at: float = 0.5

    needs_levels: ClassVar[bool] = False

    def train(self, raw: Any, key: Array, format: Format) -> Array:
        """Return a raw batch `[B, *event]` as bits."""
        return (raw.astype("float32") / max(format.levels - 1, 1) > self.at).astype("float32")

    def evaluation(self, parts: Sequence[Source], format: Format) -> list[Source]:
        """Return whole splits as bits."""
        divisor = _float32(max(format.levels - 1, 1))
        return [_mapped(x, lambda raw, rows: _float32(_float32(raw) / divisor > self.at)) for x in parts]


Preparation: TypeAlias = Scale | Standardize | Dequantize | DynamicBinarization | StaticBinarization | Threshold
"""How raw values become what the model sees."""


# ------------------------------------------------------------------------------------------------------------- helpers


def is_coarse(size: Any, spread: Any) -> np.ndarray:
    """Return whether float32 has fewer than `FINE_STEPS` steps within `spread` at numbers of this `size`,
    element-wise.
    """
    return np.asarray(FINE_STEPS * np.spacing(np.abs(_float32(size))) > spread)


def _float32(values: Any) -> np.ndarray:
    return np.asarray(values, np.float32)


def _mapped(x: Source, function: Any, dtype: Any = "float32") -> Source:
    """Return rows through `function(raw, rows)`, at once where they are in memory."""
    if not in_memory(x):
        return Mapped(x, function, tuple(x.shape[1:]), np.dtype(dtype))
    out = np.empty(x.shape, dtype)
    for start, block in blocks(x):
        out[start : start + len(block)] = function(block, np.arange(start, start + len(block)))
    return out


def _uniform(stream: int, rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return numbers in [0, 1) `[len(rows), *shape]` that depend on the stream and the row alone."""
    out = np.empty((len(rows), *shape))
    for u, row in zip(out, rows, strict=True):
        u[...] = np.random.Generator(np.random.Philox(key=[stream, int(row)])).random(shape)
    return out


def _published_bits(parts: Sequence[Source], format: Format) -> list[Source]:
    """Return bits of whole splits, one after the other from one legacy generator; kept as bytes where rows come from
    files.
    """
    generator = np.random.RandomState(777)

    def drawn(x: Source) -> Source:
        bits = np.empty(x.shape, np.float32 if in_memory(x) else np.uint8)
        for start, block in blocks(x):
            bits[start : start + len(block)] = generator.binomial(1, block / (format.levels - 1))
        return bits if in_memory(x) else Mapped(bits, lambda raw, rows: _float32(raw), bits.shape[1:], np.dtype("f4"))

    return [drawn(x) for x in parts]
