"""What a data set is: rows that can be read, splits that share no example, and what must be known of them.

A split's `x` is a `Source`: an array in memory, or anything that reads rows when they are asked for. Everything that
looks at a whole split does so in blocks of bounded size, so no file here cares whether the data fits into memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from aevae_jax.types import InputError

if TYPE_CHECKING:
    import numpy as np

PARTS = ("train", "validation", "test")

RESIDENT_BYTES = 2**30
"""Training data of at most 1 GiB is loaded and kept on the device; more is streamed."""

BLOCK_BYTES = 2**25
"""How much of a source is read at once: 32 MiB."""


class Source(Protocol):
    """Rows `[N, *event]` that are read when they are asked for. Every NumPy array is one.

    `shape` and `dtype` are as an array's. `source[rows]`, with a slice or an integer array, reads those rows into
    memory. Reading the same row twice gives the same values, from any thread.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...
    def __len__(self) -> int: ...
    def __getitem__(self, rows: Any) -> np.ndarray: ...


class Picked:
    """Some rows of a source, in an order of their own.

    Args:
      source: where they are read.
      rows: their indices `[M]`.
    """

    def __init__(self, source: Source, rows: np.ndarray):
        self.source, self.rows = source, rows
        self.shape, self.dtype = (len(rows), *source.shape[1:]), source.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self.source[self.rows[rows]]


class Mapped:
    """Rows of a source through a function.

    Args:
      source: where they are read.
      function: `(values [M, *event], indices [M]) -> [M, *shape]`, the same for a row whatever it is read with.
      shape: of one row that comes out.
      dtype: of what comes out.
    """

    def __init__(
        self,
        source: Source,
        function: Callable[[np.ndarray, np.ndarray], np.ndarray],
        shape: tuple[int, ...],
        dtype: Any,
    ):
        self.source, self.function = source, function
        self.shape, self.dtype = (len(source), *shape), dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        import numpy as np

        indices = np.arange(len(self))[rows] if isinstance(rows, slice) else np.asarray(rows)
        return self.function(self.source[rows], indices)


def in_memory(x: Source) -> bool:
    """Whether `x` is an array in memory, as opposed to rows in a file."""
    import numpy as np

    return isinstance(x, np.ndarray) and not isinstance(x, np.memmap)


def size_in_bytes(x: Source) -> int:
    """How much memory all rows of `x` need."""
    import math

    import numpy as np

    return math.prod(x.shape) * np.dtype(x.dtype).itemsize


def blocks(x: Source) -> Iterator[tuple[int, np.ndarray]]:
    """All rows in order, in blocks of about `BLOCK_BYTES`, each with the index of its first row."""
    rows = max(1, BLOCK_BYTES * len(x) // max(1, size_in_bytes(x)))
    for start in range(0, len(x), rows):
        yield start, x[start : start + rows]


@dataclass(frozen=True)
class Split:
    """Examples `[N, *event]` and, where there are any, their integer labels `[N]`."""

    x: Source
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return int(self.x.shape[0])

    def __getitem__(self, rows: Any) -> Split:
        """The examples at `rows`, a slice or indices: a view of an array in memory, else read when asked for."""
        import numpy as np

        labels = None if self.labels is None else self.labels[rows]
        if in_memory(self.x):
            return Split(self.x[rows], labels)
        return Split(Picked(self.x, np.arange(len(self))[rows]), labels)


class Found(NamedTuple):
    """What a loader found: see `assemble`, which makes a `Dataset` of it."""

    parts: dict[str, Split]
    """`train`, and whichever of `validation` and `test` there are."""
    levels: int
    columns: tuple[Column, ...] = ()


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Args:
      name: its heading.
      categories: the texts that its codes 0, 1, ... stand for, two for a binary column; empty for numbers.
    """

    name: str
    categories: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """All that must be known of a data set to prepare more of its kind. `run.json` records it.

    Args:
      event_shape: shape of one raw example.
      levels: number of values an integer element can take (256 for 8-bit images); 0 for floats.
      columns: of a table, whose raw examples are one float per column: a number or a code, NaN where it is missing.
      mean, scale: of the training data, per channel or column, where the preparation asks for them.
    """

    event_shape: tuple[int, ...]
    levels: int
    columns: tuple[Column, ...] = ()
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """Three splits without a common example, as loaded: uint8 images `[N, H, W, C]`, floats, or a table's rows.

    Args:
      name: for messages and records.
      train, validation, test: the splits.
      levels: number of values an integer element can take (256 for 8-bit images); 0 for floats.
      columns: of a table; empty for everything else.
      left_out: how many examples were left out of training and validation because they also stand in a later split.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    levels: int
    columns: tuple[Column, ...] = ()
    left_out: int = 0

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return tuple(self.train.x.shape[1:])

    @property
    def format(self) -> Format:
        """What must be known of it to prepare more of its kind."""
        return Format(self.event_shape, self.levels, self.columns)

    def digest(self) -> str:
        """sha256 over the shapes, types and bytes of the three splits."""
        return self._digests[0]

    def record(self) -> dict[str, Any]:
        """What a run records of its data: name, levels, sha256, and the count and sha256 of each split."""
        total, parts = self._digests
        splits = {
            part: {"count": len(getattr(self, part)), "sha256": digest}
            for part, digest in zip(PARTS, parts, strict=True)
        }
        return {"name": self.name, "levels": self.levels, "sha256": total, "left_out": self.left_out, "splits": splits}

    @cached_property
    def _digests(self) -> tuple[str, list[str]]:
        """Of everything, and of each split; one pass over the data."""
        import numpy as np

        total, parts = hashlib.sha256(), []
        for x in (getattr(self, part).x for part in PARTS):
            one, header = hashlib.sha256(), f"{x.shape}{x.dtype}".encode()
            contents: Iterable[Any] = (np.ascontiguousarray(block).data for _, block in blocks(x))
            for text in chain([header], contents):
                total.update(text)
                one.update(text)
            parts.append(one.hexdigest())
        return total.hexdigest(), parts


# ------------------------------------------------------------------------------------------------------------- splits


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
        if not 0 <= self.seed < 2**32:
            raise InputError("RandomSplits seed", got=self.seed, expected="0 to 4294967295")


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
        if not 0 < getattr(splits, name) < 1:
            raise InputError(f"{type(splits).__name__} {name}", got=getattr(splits, name), expected="between 0 and 1")
    if splits.validation + splits.test >= 1:
        raise InputError(f"{type(splits).__name__} validation + test", got=splits.validation + splits.test,
                         expected="less than 1, to leave something to train on")  # fmt: skip


def assemble(name: str, found: Found, splits: Splits = OwnSplits()) -> Dataset:
    """A data set of what a loader found: checked, cut into splits, and freed of examples that stand in two splits.

    An example of the training data that also stands in the validation or test split is left out, and one of the
    validation data that also stands in the test split; how many is recorded. Rows of a table are observations of their
    own even where they are equal, and all stay.

    Args:
      name: for messages and records.
      found: what a loader found.
      splits: how missing splits are made.

    Raises:
      InputError: splits of unlike shapes or types, none to train on, too few examples, NaN or infinity.
    """
    parts, levels, columns = found
    if "train" not in parts:
        raise InputError(f"data set {name!r}", got=f"splits {sorted(parts)}", expected="one called train")
    like = parts["train"].x
    for part, split in parts.items():
        if split.x.shape[1:] != like.shape[1:] or split.x.dtype != like.dtype:
            raise InputError(f"{name} {part}", got=f"{split.x.dtype} {tuple(split.x.shape[1:])}",
                             expected=f"{like.dtype} {tuple(like.shape[1:])}, as in train")  # fmt: skip
        if len(split) == 0:
            raise InputError(f"{name} {part}", got="0 examples", expected="at least 1")
        if levels == 0:
            _check_finite(split.x, f"{name} {part}", missing=bool(columns))
    whole = _cut(dict(parts), splits, name)
    dataset = Dataset(name, whole["train"], whole["validation"], whole["test"], levels, columns)
    return dataset if columns else _disjoint(dataset)


def _check_finite(x: Source, what: str, *, missing: bool) -> None:
    import numpy as np

    for start, block in blocks(x):
        bad = np.isinf(block) if missing else ~np.isfinite(block)
        if bad.any():
            row = start + int(np.flatnonzero(bad.reshape(len(block), -1).any(axis=1))[0])
            got = f"{'infinity' if missing else 'NaN or infinity'} in example {row}"
            raise InputError(what, got=got, expected="finite numbers")


def _cut(parts: dict[str, Split], splits: Splits, name: str) -> dict[str, Split]:
    """All three parts: those that are missing are taken out of the training data."""
    import numpy as np

    whole, missing = parts["train"], [part for part in ("test", "validation") if part not in parts]
    if not missing:
        return parts
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
    return parts


def _rows(split: Split, rows: np.ndarray) -> Split:
    """Rows in ascending order, as a slice where they follow each other: a view, not a copy."""
    import numpy as np

    rows = np.sort(rows)
    consecutive = rows[-1] - rows[0] == len(rows) - 1
    return split[int(rows[0]) : int(rows[-1]) + 1] if consecutive else split[rows]


def _disjoint(dataset: Dataset) -> Dataset:
    """Without the examples that also stand in a later split."""
    import numpy as np

    prints = {part: fingerprints(getattr(dataset, part).x) for part in PARTS}
    for part, later in (("validation", ("test",)), ("train", ("validation", "test"))):
        keep = ~np.isin(prints[part], np.concatenate([prints[other] for other in later]))
        if not keep.any():
            raise InputError(f"{dataset.name} {part}", got=f"only examples that also stand in {' or '.join(later)}",
                             expected="splits without a common example")  # fmt: skip
        if not keep.all():
            kept, prints[part] = getattr(dataset, part)[np.flatnonzero(keep)], prints[part][keep]
            dataset = replace(dataset, **{part: kept}, left_out=dataset.left_out + int((~keep).sum()))
    return dataset


def fingerprints(x: Source) -> np.ndarray:
    """A 64-bit hash of each row's bytes, uint64 `[N]`: equal for equal rows, else different but for bad luck."""
    import numpy as np

    out = np.empty(len(x), np.uint64)
    for start, block in blocks(x):
        rows = np.ascontiguousarray(block).reshape(len(block), -1).view(np.uint8)
        digests = b"".join(hashlib.blake2b(row.data, digest_size=8).digest() for row in rows)
        out[start : start + len(rows)] = np.frombuffer(digests, np.uint64)
    return out


# ----------------------------------------------------------------------------------------------------- your own arrays


def from_arrays(
    train: Source,
    validation: Source | None = None,
    test: Source | None = None,
    *,
    labels: np.ndarray | None = None,
    name: str = "arrays",
    splits: Splits = LastSplits(),
) -> Dataset:
    """Your own arrays as a data set: checked, cut into splits, and freed of examples that stand in two of them.

    To keep such examples, say to measure on training data, build a `Dataset` of `Split`s instead.

    Args:
      train: uint8 images `[N, H, W, C]` or `[N, H, W]`, or floats `[N, D]` or `[N, H, W, C]`; in memory, a
        `numpy.memmap`, or any `Source` of your own.
      validation, test: the same; where one is left out, `splits` says how it is made.
      labels: integer labels `[N]` of `train`.
      name: for messages and records.
      splits: by default the last tenth of `train` for each (at least one example).

    Raises:
      InputError: another type or number of axes, NaN or infinity, an empty split, splits of unlike shapes, labels of
        another length or type, or nothing left to train on when what stands in other splits is left out.
    """
    given = {part: x for part, x in zip(PARTS, (train, validation, test), strict=True) if x is not None}
    sources = {part: as_source(x, f"{name} {part}") for part, x in given.items()}
    parts = {part: Split(x) for part, x in sources.items()}
    parts["train"] = Split(sources["train"], None if labels is None else check_labels(labels, sources["train"]))
    return assemble(name, Found(parts, levels_of(sources["train"])), splits)


def levels_of(x: Source) -> int:
    """256 for bytes, 0 for floats."""
    return 256 if x.dtype == "uint8" else 0


def check_labels(labels: Any, x: Source, what: str = "labels") -> np.ndarray:
    """`labels` as an array, if they are integers, one for each example."""
    import numpy as np

    labels = np.asarray(labels)
    if labels.shape != tuple(x.shape[:1]):
        raise InputError(what, got=f"shape {labels.shape}", expected=f"{tuple(x.shape[:1])}, one per example")
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(what, got=f"type {labels.dtype}", expected="integers")
    return labels


def as_source(x: Any, what: str) -> Source:
    """`x` as rows of uint8 or float32 with the axes of an image or a vector; read or converted only when asked for.

    Raises:
      InputError: another type or number of axes, or no examples.
    """
    import numpy as np

    x = x if hasattr(x, "shape") and hasattr(x, "dtype") and hasattr(x, "__getitem__") else np.asarray(x)
    if x.dtype not in (np.float64, np.float32, np.float16, np.uint8):
        raise InputError(what, got=f"type {x.dtype}", expected="uint8 images or float arrays", hint="use x.astype(...)")
    shape = (*x.shape, 1) if len(x.shape) == 3 and x.dtype == np.uint8 else tuple(x.shape)
    if len(shape) not in (2, 4) or 0 in shape[1:]:
        raise InputError(what, got=f"shape {x.shape}", expected="[N, D] or [N, H, W, C]")
    if shape[0] == 0:
        raise InputError(what, got="0 examples", expected="at least 1")
    dtype = x.dtype if x.dtype == np.uint8 else np.dtype(np.float32)

    def converted(rows: np.ndarray, indices: Any = None) -> np.ndarray:
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused later
            return rows.astype(dtype, copy=False).reshape(len(rows), *shape[1:])

    if in_memory(x):
        return converted(x)
    return x if x.shape == shape and x.dtype == dtype else Mapped(x, converted, shape[1:], dtype)
