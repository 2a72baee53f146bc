"""Splits that share no example: those that a data set comes with, and those that are made of its training data."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

from aevae_jax import limits
from aevae_jax.data import checks, datasets
from aevae_jax.data.datasets import PARTS, Column, Dataset, Factor, Source, Split, blocks
from aevae_jax.lazy import np
from aevae_jax.types import InputError


class Found(NamedTuple):
    """What a loader found: see `assemble`, which makes a `Dataset` of it."""

    parts: dict[str, Split]
    """`train`, and whichever of `validation` and `test` there are."""
    levels: int
    columns: tuple[Column, ...] = ()
    version: str = ""
    """The version of the source, where it has one."""
    class_names: tuple[str, ...] = ()
    """What the labels 0, 1, ... are called, where the source says so."""
    remarks: tuple[str, ...] = ()
    """What the loader did that whoever trains on it should be told."""
    factors: tuple[Factor, ...] = ()
    """What the examples were made of, where the source knows it."""


@dataclass(frozen=True)
class OwnSplits:
    """The splits that the data set comes with.

    Where it has a test but no validation split, the last sixth of the training data becomes it: of MNIST and its
    relatives the 10,000 that published work uses. Where it has none at all, `RandomSplits()` makes them.
    """


@dataclass(frozen=True)
class RandomSplits:
    """Splits that the data set does not come with are drawn from its training data by a fixed permutation.

    Args:
      validation: fraction of the training data that becomes the validation split.
      test: fraction that becomes the test split, where there is none.
      seed: of the permutation. It does not depend on the run's seed: runs of other seeds are measured on the same data.
    """

    validation: float = 0.1
    test: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        _check_fractions(self)
        limits.check("RandomSplits seed", self.seed, 0, 2**32 - 1)


@dataclass(frozen=True)
class LastSplits:
    """Splits that the data set does not come with are cut from the end of its training data: of a time series, say.

    Args:
      validation: fraction of the training data that becomes the validation split.
      test: fraction that becomes the test split, where there is none; it comes last.
    """

    validation: float = 0.1
    test: float = 0.1

    def __post_init__(self) -> None:
        _check_fractions(self)


Splits: TypeAlias = OwnSplits | RandomSplits | LastSplits
"""How the splits that a data set does not come with are made."""


def _check_fractions(splits: RandomSplits | LastSplits) -> None:
    for name in ("validation", "test"):
        limits.check(f"{type(splits).__name__} {name}", getattr(splits, name), -limits.LARGEST, limits.LARGEST)
        if not 0 < getattr(splits, name) < 1:
            raise InputError(f"{type(splits).__name__} {name}", got=getattr(splits, name), expected="between 0 and 1")
    if splits.validation + splits.test >= 1:
        raise InputError(
            f"{type(splits).__name__} validation + test",
            got=splits.validation + splits.test,
            expected="less than 1, to leave something to train on",
        )


FREQUENT = 10
"""An example that stands in the data more often than this is one of its frequent values, not a copy that slipped in."""


def assemble(
    name: str, found: Found, splits: Splits = OwnSplits(), *, levels: int = 0, keep_duplicates: bool = False
) -> Dataset:
    """Return a data set of what a loader found: checked, cut into splits, and freed of examples that stand in two
    splits.

    An example of the training data that also stands in the validation or test split is left out, and one of the
    validation data that also stands in the test split; how many is recorded. What chance repeats keeps its frequency:
    examples that occur more than `FREQUENT` times, such as black frames, and all of data that can take so few values
    that some must be equal. Rows of a table are observations of their own even where they are equal, and all stay.

    Args:
      name: for messages and records.
      found: what a loader found.
      splits: how missing splits are made.
      levels: how many values the elements of integer data can take; 0 to find out (`checks.find_levels`).
      keep_duplicates: leave no example out.

    Raises:
      InputError: splits of unlike shapes or types, none to train on, too few examples, NaN or infinity, or a number of
        levels that cannot be found or is not that of the data.
    """
    parts, known, columns, remarks = found.parts, found.levels, found.columns, found.remarks
    if "train" not in parts:
        raise InputError(f"data set {name!r}", got=f"splits {sorted(parts)}", expected="one called train")
    like = parts["train"].x
    parts = {part: replace(split, x=datasets.cast(split.x, like.dtype)) for part, split in parts.items()}
    for part, split in parts.items():
        if split.x.shape[1:] != like.shape[1:] or split.x.dtype != like.dtype:
            raise InputError(
                f"{name} {part}",
                got=f"{split.x.dtype} {tuple(split.x.shape[1:])}",
                expected=f"{like.dtype} {tuple(like.shape[1:])}, as in train",
            )
        if len(split) == 0:
            raise InputError(f"{name} {part}", got="0 examples", expected="at least 1")
        if known == 0:
            low, high = _check_finite(split.x, f"{name} {part}", missing=bool(columns))
            if part == "train" and len(like.shape) == 4 and low >= 0 and 2 < high <= 255:
                remarks += (
                    f"floats of {low:g} to {high:g}: if these are images of 256 levels, write the array anew, "
                    "x.astype(numpy.uint8); else divide by 255, or prepare them by Standardize()",
                )
    if known:
        known = checks.find_levels(name, parts, levels)
    elif levels:
        raise InputError(
            f"levels of {name}",
            got=f"{levels}, for {'a table' if columns else 'floats'}",
            expected="no levels, which only integers have",
        )
    parts, classes = checks.recoded(parts)
    whole, cut = _cut(parts, splits, name)
    dataset = Dataset(
        name,
        whole["train"],
        whole["validation"],
        whole["test"],
        known,
        columns,
        version=found.version,
        classes=classes,
        class_names=tuple(dict(enumerate(found.class_names)).get(label, str(label)) for label in classes),
        remarks=remarks,
        cut=cut,
        factors=found.factors,
    )
    return dataset if columns or keep_duplicates else _disjoint(dataset)


def _check_finite(x: Source, what: str, *, missing: bool) -> tuple[float, float]:
    """Return the least and the largest number, NaN where one is missing; refuse what is not finite."""
    low, high = math.inf, -math.inf
    for start, block in blocks(x):
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite
            seen = block.astype(np.float32, copy=False)
        bad = np.isinf(seen) if missing else ~np.isfinite(seen)
        if bad.any():
            row = start + int(np.flatnonzero(bad.reshape(len(block), -1).any(axis=1))[0])
            got = f"{'infinity' if missing else 'NaN or infinity'} in example {row}"
            raise InputError(what, got=got, expected="finite numbers")
        low, high = np.minimum(low, seen.min()), np.maximum(high, seen.max())
    return float(low), float(high)


def _cut(parts: dict[str, Split], splits: Splits, name: str) -> tuple[dict[str, Split], str]:
    """Return all three parts, those that are missing taken out of the training data, and how that is done, in words."""
    whole, missing = parts["train"], [part for part in ("test", "validation") if part not in parts]
    if not missing:
        return parts, ""
    if isinstance(splits, OwnSplits):
        splits = RandomSplits() if "test" in missing else LastSplits(validation=1 / 6)
    counts = [max(1, round(len(whole) * getattr(splits, part))) for part in missing]
    if sum(counts) >= len(whole):
        raise InputError(f"{name} train", got=f"{len(whole)} examples", expected="enough to cut a split from")
    rows = np.arange(len(whole))
    if isinstance(splits, RandomSplits):
        rows = np.random.default_rng(splits.seed).permutation(len(whole))
    for part, count in zip(missing, counts, strict=True):
        rows, chosen = rows[:-count], rows[-count:]
        parts[part] = _rows(whole, chosen)
    parts["train"] = _rows(whole, rows)
    how = "drawn at random, by a fixed seed, from" if isinstance(splits, RandomSplits) else "cut from the end of"
    shares = " and ".join(f"{part} ({100 * getattr(splits, part):.0f} %)" for part in reversed(missing))
    return parts, f"{shares} {'are' if len(missing) > 1 else 'is'} {how} what there is to train on"


def _rows(split: Split, rows: np.ndarray) -> Split:
    """Return rows in ascending order, as a slice where they follow each other: a view, not a copy."""
    rows = np.sort(rows)
    consecutive = rows[-1] - rows[0] == len(rows) - 1
    return split[int(rows[0]) : int(rows[-1]) + 1] if consecutive else split[rows]


def _disjoint(dataset: Dataset) -> Dataset:
    """Return the data set without the examples that also stand in a later split, but for those that chance repeats."""
    prints = {part: fingerprints(getattr(dataset, part).x) for part in PARTS}
    values, counts = np.unique(np.concatenate(list(prints.values())), return_counts=True)
    frequent = values if _few_values(dataset) else values[counts > FREQUENT]
    for part, later in (("validation", ("test",)), ("train", ("validation", "test"))):
        again = np.isin(prints[part], np.concatenate([prints[other] for other in later]))
        keep = ~again | np.isin(prints[part], frequent)
        if not keep.any():
            raise InputError(
                f"{dataset.name} {part}",
                got=f"only examples that also stand in {' or '.join(later)}",
                expected="splits without a common example",
                hint="give keep_duplicates=True if they are to stay",
            )
        dataset = replace(dataset, repeated=dataset.repeated + int((again & keep).sum()))
        if not keep.all():
            kept, prints[part] = getattr(dataset, part)[np.flatnonzero(keep)], prints[part][keep]
            dataset = replace(dataset, **{part: kept}, left_out=dataset.left_out + int((~keep).sum()))
    return dataset


def _few_values(dataset: Dataset) -> bool:
    """Return whether examples can take so few values that some are equal by chance: about N^2 / 2 of them, or fewer.

    Their number is that of the values which occur, to the power of the elements of an example.
    """
    count = sum(len(getattr(dataset, part)) for part in PARTS)
    most = int((count * count / 2) ** (1 / math.prod(dataset.event_shape)))
    if most < 2:  # two values are the least, so nothing needs to be read
        return False
    seen = np.zeros(0, dataset.train.x.dtype)
    for part in PARTS:
        for _, block in blocks(getattr(dataset, part).x):
            seen = np.union1d(seen, block)
            if len(seen) > most:
                return False
    return True


def fingerprints(x: Source) -> np.ndarray:
    """Return a 64-bit hash of each row's bytes, uint64 `[N]`: equal for equal rows, else different but for bad luck."""
    out = np.empty(len(x), np.uint64)
    for start, block in blocks(x):
        rows = np.ascontiguousarray(block).reshape(len(block), -1).view(np.uint8)
        digests = b"".join(hashlib.blake2b(row.data, digest_size=8).digest() for row in rows)
        out[start : start + len(rows)] = np.frombuffer(digests, np.uint64)
    return out


def from_arrays(
    train: Source,
    validation: Source | None = None,
    test: Source | None = None,
    *,
    labels: np.ndarray | None = None,
    factors: Mapping[str | Factor, np.ndarray] | None = None,
    vector: np.ndarray | None = None,
    name: str = "arrays",
    splits: Splits = OwnSplits(),
    levels: int = 0,
    keep_duplicates: bool = False,
) -> Dataset:
    """Return your own arrays as a data set: checked, cut into splits, and freed of examples that stand in two of them.

    They become the same data set as from a file.

    Args:
      train: uint8 images `[N, H, W, C]` or `[N, H, W]`, or floats `[N, D]` or `[N, H, W, C]`; in memory, a
        `numpy.memmap`, or any `Source` of your own.
      validation, test: the same; where one is left out, `splits` says how it is made.
      labels: integer labels `[N]` of `train`, of any values: they name classes, and -1 means none.
      factors: what the examples of `train` were made of, integers `[N]` by name, such as {"width": w, "height": h};
        `Factor("shape", ordered=False)` in place of a name says that no value lies between two others.
      vector: numbers `[N, C]` that a conditional model is told of the examples of `train`; of the label, too, with
        `Data(condition="label")`.
      name: for messages and records.
      splits: by default a random tenth of `train` for each (at least one example), or the last sixth for validation
        where there is a test split.
      levels: how many values the elements of integer data can take; 0 to find out where that is plain.
      keep_duplicates: leave no example out because it also stands in another split.

    Raises:
      InputError: another type or number of axes, NaN or infinity, an empty split, splits of unlike shapes, labels of
        another length or type, levels that must be given, or nothing left to train on when what stands in other splits
        is left out.
    """
    check_levels(levels)
    arrays = {part: x for part, x in zip(PARTS, (train, validation, test), strict=True) if x is not None}
    parts = {part: Split(checks.as_source(x, f"{name} {part}")) for part, x in arrays.items()}
    x = parts["train"].x
    if labels is not None:
        parts["train"] = Split(x, checks.check_labels(labels, x))
    known: tuple[Factor, ...] = ()
    if factors is not None:
        values, known = checks.check_factors(factors, x)
        parts["train"] = replace(parts["train"], factors=values)
    if vector is not None:
        parts["train"] = replace(parts["train"], condition=checks.check_vector(vector, x))
    found = Found(parts, datasets.levels_of(x), factors=known)
    return assemble(name, found, splits, levels=levels, keep_duplicates=keep_duplicates)


def check_levels(levels: int) -> None:
    """Refuse a number of levels that bytes cannot have; 0 stands for one that is to be found."""
    if levels != 0 and not 2 <= levels <= 256:
        raise InputError("levels", got=levels, expected="2 to 256, or 0 to find out")
