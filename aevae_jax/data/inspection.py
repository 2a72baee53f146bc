"""What there is to know of a data set before training on it: counts, ranges, levels, labels, and which likelihoods fit.

Everything is read in blocks and each split once, so data of any size can be inspected.
"""

from __future__ import annotations

import math
import typing
from dataclasses import dataclass, replace

from aevae_jax import values
from aevae_jax.data import suited, tables
from aevae_jax.data.datasets import PARTS, Dataset, Split, blocks
from aevae_jax.data.preparation import (
    Dequantize,
    DynamicBinarization,
    Preparation,
    Scale,
    Standardize,
    StaticBinarization,
    Threshold,
)
from aevae_jax.lazy import jax, np
from aevae_jax.models import likelihoods
from aevae_jax.types import InputError

FEW = 30
"""Examples of validation or test data that are too few to measure by: a share of them is uncertain by 18 %."""


@dataclass(frozen=True)
class Summary:
    """What there is to know of one split.

    Args:
      count: of its examples.
      shape: of one example.
      dtype: of its elements, raw.
      low, high: the range of the elements that are not missing.
      values: the distinct raw values `[V]` of bytes; empty for floats.
      missing: how many entries of a table are missing.
      ends: share of the elements that are exactly at one of the two ends of the range of images: 0 or 1, of bytes 0 or
        the largest level.
    """

    count: int
    shape: tuple[int, ...]
    dtype: str
    low: float
    high: float
    values: tuple[int, ...]
    missing: int
    ends: float


def summarize(split: Split, levels: int = 0) -> Summary:
    """Read a split once.

    Args:
      split: the examples.
      levels: of the data set.
    """
    x, low, high, missing, ends = split.x, math.inf, -math.inf, 0, 0
    counts = np.zeros(256, np.int64)
    for _, block in blocks(x):
        if block.dtype == np.uint8:
            flat = block.reshape(-1)
            for start in range(0, flat.size, 2**20):  # bincount needs eight times the memory of what it counts
                counts += np.bincount(flat[start : start + 2**20], minlength=256)
            continue
        present = block[~np.isnan(block)]
        missing += block.size - present.size
        ends += int(((present == 0) | (present == 1)).sum())
        if present.size:
            low, high = min(low, float(present.min())), max(high, float(present.max()))
    occur = np.flatnonzero(counts)
    if occur.size:
        low, high, ends = float(occur[0]), float(occur[-1]), int(counts[0] + counts[max(levels - 1, 1)])
    share = ends / max(1, math.prod(x.shape))
    return Summary(len(split), tuple(x.shape[1:]), str(x.dtype), low, high, tuple(occur.tolist()), missing, share)


def suitable(dataset: Dataset, train: Summary) -> dict[str, list[Preparation]]:
    """Return the likelihoods that can score this data, each with the preparations under which they can.

    Args:
      dataset: the data.
      train: the summary of its training split.

    Returns:
      `{likelihood as it is typed: preparations}`. Preparations that make bits are listed for likelihoods of bits alone.
    """
    if dataset.columns:
        numbers = any(not column.categories for column in dataset.columns)
        return {"Tabular()": [Standardize() if numbers else Scale()]}
    seen = {preparation: _seen(preparation, dataset, train) for preparation in _PREPARATIONS}
    found = {}
    for cls in typing.get_args(likelihoods.Likelihood):
        likelihood = cls()
        if "levels" in cls.__dataclass_fields__ and dataset.levels:
            likelihood = replace(likelihood, levels=dataset.levels)
        bits = likelihood.support.levels == 2
        wanted = [p for p in _PREPARATIONS if isinstance(p, _BITS) == bits or isinstance(p, Scale)]
        fits = [p for p in wanted if _fits(likelihood.support, seen[p])]
        if fits and cls not in (likelihoods.Tabular, likelihoods.FromData):
            found[values.spell(likelihood)] = fits
    return found


_BITS = (DynamicBinarization, StaticBinarization, Threshold)
_PREPARATIONS = (Scale(), Standardize(), Dequantize(), DynamicBinarization(), StaticBinarization(), Threshold())


def _seen(preparation: Preparation, dataset: Dataset, train: Summary) -> list[np.ndarray]:
    """Return what the model sees of the values that occur; nothing where the data cannot be prepared so."""
    try:
        format = preparation.fit(dataset)
    except InputError:
        return []
    if isinstance(preparation, StaticBinarization):
        return [np.array([0.0, 1.0])]
    if train.values:
        raw = np.broadcast_to(np.array(train.values, np.uint8)[:, None], (len(train.values), train.shape[-1]))
        return [np.asarray(preparation.train(raw, jax.random.key(0), format))]
    some = [preparation.training(block, format)[:] for block in _some(dataset)]
    seen = [np.asarray(preparation.train(block, jax.random.key(0), format)) for block in some]
    alike = train.low < train.high and all((x == seen[0].flat[0]).all() for x in seen)
    return [] if alike else seen  # of which `prepared.prepare` refuses to make anything


def _some(dataset: Dataset) -> list[np.ndarray]:
    """Return the first block of each split: enough floats to tell which supports are out of the question."""
    return [next(blocks(getattr(dataset, part).x))[1] for part in PARTS]


def _fits(support: likelihoods.Support, seen: list[np.ndarray]) -> bool:
    try:
        for x in seen:
            support.check(x, "")
    except InputError:
        return False
    return bool(seen)


def warnings(dataset: Dataset) -> list[str]:
    """Return what can be done with this data and should not be, in sentences."""
    found = list(tables.notes(dataset.columns))
    count, part = min((len(getattr(dataset, part)), part) for part in PARTS[1:])
    if count < FEW:
        found.append(
            f"{count} examples of {part} are too few to measure much by, or to tell one model from another; choose "
            "other splits, such as splits=RandomSplits(validation=0.2, test=0.2), or take more data"
        )
    return found


def unsuited(train: Summary) -> dict[str, str]:
    """Return why likelihoods that can score this data should not, by how they are typed.

    Args:
      train: the summary of the training split.
    """
    continuous = values.spell(likelihoods.ContinuousBernoulli())
    why = f"{100 * train.ends:.0f} % of the values are exactly 0 or 1, where its density has no bound"
    return {continuous: why} if train.ends >= suited.END_SHARE else {}


def examples(split: Split, num: int) -> Split:
    """Return `num` examples spread evenly over a split, or all of them where there are fewer: for a picture."""
    return split[np.unique(np.linspace(0, len(split) - 1, min(num, len(split))).astype(int))]
