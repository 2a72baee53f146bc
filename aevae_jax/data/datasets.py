"""What a data set is: rows that can be read, splits that share no example, and what must be known of them.

A split's `x` is a `Source`: an array in memory, or anything that reads rows when they are asked for. Everything that
looks at a whole split does so in blocks of bounded size, so no file here cares whether the data fits into memory.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol

from aevae_jax.lazy import jax, modules, np
from aevae_jax.types import InputError

if TYPE_CHECKING:
    from aevae_jax import conditions
    from aevae_jax.conditions import Conditioned
else:
    conditions = modules("aevae_jax", "conditions")

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
        indices = np.arange(len(self))[rows] if isinstance(rows, slice) else np.asarray(rows)
        return self.function(self.source[rows], indices)


def in_memory(x: Source) -> bool:
    """Return whether `x` is an array in memory, as opposed to rows in a file."""
    return isinstance(x, np.ndarray) and not isinstance(x, np.memmap)


def size_in_bytes(x: Source) -> int:
    """Return how much memory all rows of `x` need."""
    return math.prod(x.shape) * np.dtype(x.dtype).itemsize


def blocks(x: Source) -> Iterator[tuple[int, np.ndarray]]:
    """Yield all rows in order, in blocks of about `BLOCK_BYTES`, each with the index of its first row."""
    rows = max(1, BLOCK_BYTES * len(x) // max(1, size_in_bytes(x)))
    for start in range(0, len(x), rows):
        yield start, x[start : start + rows]


@dataclass(frozen=True)
class Split:
    """Examples `[N, *event]` and, where there are any, their labels `[N]`: codes of classes 0, 1, ..., -1 for none.

    Of data that were made of known `Factor`s, also these `[N, F]`: of each the number of its value, int32. `condition`
    is what models are told of each example, as in `conditions.Conditioned`: see `told`.
    """

    x: Source
    labels: np.ndarray | None = None
    factors: np.ndarray | None = None
    condition: Any = None

    def __len__(self) -> int:
        return int(self.x.shape[0])

    @property
    def rows(self) -> Source | Conditioned:
        """The rows that a model is given: the examples, with what it is told of them if it is told anything."""
        return self.x if self.condition is None else conditions.Conditioned(self.x, self.condition)

    def __getitem__(self, rows: Any) -> Split:
        """Return the examples at `rows`, a slice or indices: a view of an array in memory, else read when asked for."""
        labels, factors = (None if known is None else known[rows] for known in (self.labels, self.factors))
        x = self.x[rows] if in_memory(self.x) else Picked(self.x, np.arange(len(self))[rows])
        told = None if self.condition is None else jax.tree.map(lambda known: known[rows], self.condition)
        return Split(x, labels, factors, told)


@dataclass(frozen=True)
class Factor:
    """One of the factors that examples were made of, independently of the others.

    Args:
      name: what it is called.
      ordered: whether its values lie on a line, as places do, and shapes do not.
    """

    name: str
    ordered: bool = True


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Args:
      name: its heading.
      categories: the texts that its codes 0, 1, ... stand for, two for a binary column; empty for numbers.
      kind: of entries: "number"; "positive", modelled as ln(x - offset); "count", whole and at least 0; or "text", of
        which every character counts. Two numbers that are categories are of the kind "number".
      offset: of positive numbers, 0, or below it where some of them are 0.
      double: whether its numbers stay float64 until their mean is taken off, as float32 would not tell them apart.
    """

    name: str
    categories: tuple[str, ...] = ()
    kind: Literal["number", "positive", "count", "text"] = "number"
    offset: float = 0.0
    double: bool = False

    def __post_init__(self) -> None:
        if not self.offset <= 0:
            raise InputError(f"offset of column {self.name!r}", got=self.offset, expected="0 or less")


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

    def __post_init__(self) -> None:
        expected = {0, len(self.columns) or len(self.mean)}
        if len(self.mean) != len(self.scale) or len(self.mean) not in expected or not all(s > 0 for s in self.scale):
            raise InputError(
                "moments of the data",
                got=f"{len(self.mean)} means and the scales {self.scale}",
                expected="as many as columns or channels, and positive scales",
            )


@dataclass(frozen=True)
class Dataset:
    """Three splits without a common example, as loaded: uint8 images `[N, H, W, C]`, floats, or a table's rows.

    Floats are float32, or float64 where they came so.

    Args:
      name: for messages and records.
      train, validation, test: the splits.
      levels: number of values an integer element can take (256 for 8-bit images); 0 for floats.
      columns: of a table; empty for everything else.
      left_out: how many examples were left out of training and validation because they also stand in a later split.
      version: of the source, where it has one.
      repeated: how many examples of training and validation also stand in a later split and stay, as chance repeats
        them: see `splits.assemble`.
      classes: the label that each class was given, in ascending order; empty without labels.
      class_names: what each class is called: its label as text where the source has no names.
      remarks: what whoever trains on it should be told of how it was read.
      cut: how the splits that the source does not come with were made, in words.
      factors: what the examples were made of, where that is known: the columns of `Split.factors`.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    levels: int
    columns: tuple[Column, ...] = ()
    left_out: int = 0
    version: str = ""
    repeated: int = 0
    classes: tuple[int, ...] = ()
    class_names: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    cut: str = ""
    factors: tuple[Factor, ...] = ()

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return tuple(self.train.x.shape[1:])

    @property
    def format(self) -> Format:
        """What must be known of it to prepare more of its kind."""
        return Format(self.event_shape, self.levels, self.columns)

    @property
    def notes(self) -> tuple[str, ...]:
        """What whoever trains on it should be told, a line each."""
        found = [*self.remarks]
        if len(self.event_shape) == 3 and self.event_shape[0] in (1, 3, 4) and min(self.event_shape[1:]) > 4:
            height, width, channels = self.event_shape
            found.append(
                f"images of {height}x{width} pixels and {channels} channels: if channels come first, write the array "
                "anew, x.transpose(0, 2, 3, 1)"
            )
        if self.left_out:
            found.append(
                f"{self.left_out} examples of train or validation are left out, as they also stand in a later "
                "split; keep_duplicates=True keeps them"
            )
        if self.repeated:
            found.append(
                f"{self.repeated} examples of train or validation also stand in a later split, and stay: the "
                "data repeats its values often"
            )
        if unlabelled := sum(self.class_counts(part)[-1] for part in PARTS):
            found.append(f"{unlabelled} examples have the label -1, which is taken for none")
        return tuple(f"{self.name}: {text}" for text in found)

    def class_counts(self, part: str) -> dict[int, int]:
        """Return how many examples of a split each class has, by the label that it was given; -1 counts those
        without.
        """
        labels = getattr(self, part).labels
        codes, counts = np.unique(np.zeros(0, int) if labels is None else labels, return_counts=True)
        found = dict(zip(codes.tolist(), counts.tolist(), strict=True))
        names = self.classes or range(max(found, default=-1) + 1)
        return {-1: found.get(-1, 0)} | {name: found.get(code, 0) for code, name in enumerate(names)}

    def digest(self) -> str:
        """Return the sha256 over shapes, types and bytes of all splits and labels, and what a table calls things."""
        return self._digests[0]

    def earlier_digest(self) -> str:
        """Return the digest as version 0.1 recorded it: without labels, and of floats as float32."""
        total = hashlib.sha256()
        for part in PARTS:
            x = getattr(self, part).x
            for text in _contents(x if x.dtype == "uint8" else cast(x, "float32")):
                total.update(text)
        return total.hexdigest()

    def record(self) -> dict[str, Any]:
        """Return what a run records of its data: name, version, levels, sha256, and the count and sha256 of each
        split. What models are told of examples is part of these; other factors are not, and have a sha256 of their own.
        """
        total, parts = self._digests
        splits = {
            part: {"count": len(getattr(self, part)), "sha256": digest}
            for part, digest in zip(PARTS, parts, strict=True)
        }
        made_of = {
            "names": [factor.name for factor in self.factors],
            "sha256": {part: digest_of(of) for part in PARTS if (of := getattr(self, part).factors) is not None},
        }
        return {
            "name": self.name,
            "version": self.version,
            "levels": self.levels,
            "sha256": total,
            "left_out": self.left_out,
            "repeated": self.repeated,
            "splits": splits,
            **({"factors": made_of} if self.factors else {}),
            **(
                {"class_names": list(self.class_names)} if self.train.condition is not None and self.class_names else {}
            ),
        }

    @cached_property
    def _digests(self) -> tuple[str, list[str]]:
        """The digest of everything, and of each split; one pass over the data."""
        total, parts = hashlib.sha256(), []
        if self.columns:
            total.update(json.dumps([[column.name, *column.categories] for column in self.columns]).encode())
        for part in PARTS:
            one = hashlib.sha256()
            for text in self._hashed(part):
                total.update(text)
                one.update(text)
            parts.append(one.hexdigest())
        return total.hexdigest(), parts

    def _hashed(self, part: str) -> Iterator[Any]:
        """Yield what is hashed of a split: its examples, its labels as they were given, and what models are told."""
        yield from _contents(getattr(self, part).x)
        codes, told = getattr(self, part).labels, getattr(self, part).condition
        if codes is not None:
            yield b"labels"
            yield from _contents(np.append(self.classes, -1)[codes] if self.classes else codes.astype(np.int64))
        for path, known in [] if told is None else jax.tree.leaves_with_path(told):
            yield f"condition{jax.tree_util.keystr(path)}".encode()
            yield from _contents(known)


def class_texts(labels: np.ndarray | None, class_names: Sequence[str]) -> list[str]:
    """Return what to call the class of each example, its code where there is no name; "" for one without a label.

    Args:
      labels: codes `[N]`, as in `Split`; of a split without labels the result is empty.
      class_names: as in `Dataset`.
    """
    codes = [] if labels is None else np.asarray(labels).tolist()
    return [class_names[code] if 0 <= code < len(class_names) else str(code) if code >= 0 else "" for code in codes]


def digest_of(x: Source) -> str:
    """Return the sha256 over the shape, type and bytes of `x`."""
    total = hashlib.sha256()
    for text in _contents(x):
        total.update(text)
    return total.hexdigest()


def _contents(x: Source) -> Iterator[Any]:
    """Yield what is hashed of a source."""
    yield f"{x.shape}{x.dtype}".encode()
    for _, block in blocks(x):
        yield np.ascontiguousarray(block).data


def levels_of(x: Source) -> int:
    """Return 256 for bytes, 0 for floats: what a source can say without being read."""
    return 256 if x.dtype == "uint8" else 0


def cast(x: Source, dtype: Any) -> Source:
    """Return floats in another precision; what float32 cannot hold becomes infinite. Anything else stays as it is."""
    return converted(x, tuple(x.shape), dtype if {x.dtype.kind, np.dtype(dtype).kind} == {"f"} else x.dtype)


def converted(x: Source, shape: tuple[int, ...], dtype: Any) -> Source:
    """Return `x` with another shape and type of each row: at once where it is in memory, else when it is read."""

    def each(rows: np.ndarray, indices: Any = None) -> np.ndarray:
        with np.errstate(over="ignore"):
            return rows.astype(dtype, copy=False).reshape(len(rows), *shape[1:])

    if x.shape == shape and x.dtype == dtype:
        return x
    return each(x[:]) if in_memory(x) else Mapped(x, each, shape[1:], dtype)
