"""Tables: the features that a model sees of their rows and the way back; what is in a column; CSV.

A raw row is one float32 per column: a number, or the code 0, 1, ... of a category, and NaN where the entry is missing.
`aevae_jax/layout.py` says which features stand for it, `table_files.py` reads files.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aevae_jax import durable, layout
from aevae_jax.data.datasets import Column, Format, Mapped, Source, blocks, in_memory
from aevae_jax.types import InputError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Reading:
    """How the files of a table are read and written; the fields are those of `Data`."""

    categorical: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    positive: tuple[str, ...] = ()
    counts: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    decimal: str = "."
    thousands: str = ""
    separator: str = ","
    label: str = ""

    def __post_init__(self) -> None:
        for name, allowed in (("decimal", ".,"), ("thousands", ",.' _\u00a0\u202f"), ("separator", ",;:|\t")):
            value = getattr(self, name)
            if not (value in tuple(allowed) or value == self.__dataclass_fields__[name].default):
                raise InputError(f"Data {name}", got=repr(value), expected=" or ".join(map(repr, allowed)))
        if self.decimal == self.thousands:
            raise InputError("Data thousands", got=f"{self.thousands!r}, the decimal mark as well", expected="another")
        named = [*self.categorical, *self.numbers, *self.positive, *self.counts, *([self.label] if self.label else [])]
        name, times = Counter(named).most_common(1)[0] if named else ("", 1)
        if times > 1:
            raise InputError("Data", got=f"column {name!r} in {times} places",
                             expected="one of categorical, numbers, positive, counts and label")  # fmt: skip

    @property
    def named(self) -> dict[str, str]:
        """The names of columns, each with the option that names it."""
        given = {option: getattr(self, option) for option in ("categorical", "numbers", "positive", "counts")}
        found = {name: option for option, names in given.items() for name in names}
        return found | ({self.label: "label"} if self.label else {})


AS_USUAL = Reading()
"""Commas between fields, points in numbers, and kinds as they are seen."""


# ------------------------------------------------------------------------------------------- between rows and features


def widths(columns: tuple[Column, ...]) -> tuple[int, ...]:
    """The number of categories of each column, 0 for numbers: what `likelihoods.Tabular` must know."""
    return tuple(len(column.categories) for column in columns)


def feature_count(columns: tuple[Column, ...]) -> int:
    """How many features a model sees of a row."""
    return layout.feature_count(widths(columns))


def features(raw: Any, format: Format) -> Any:
    """Raw rows `[B, D]` as features `[B, F]`, float32, all finite: NumPy from NumPy; JAX from JAX, in a step, too."""
    xp, columns = raw.__array_namespace__(), widths(format.columns)

    def part(group: layout.Group) -> Any:  # [B, K, W]
        x = raw[:, group.columns]
        if group.categories > 2:
            return (x[..., None] == xp.arange(group.categories)[None, None]).astype("float32")  # NaN equals nothing
        missing = xp.isnan(x)
        return xp.stack([xp.where(missing, 0.0, x), ~missing], axis=-1).astype("float32")

    return layout.joined(columns, [part(group) for group in layout.groups(columns)])


def mapped(x: Source, format: Format) -> Source:
    """Raw rows `[N, D]` as features `[N, F]`: at once where they are in memory, else when they are read."""
    import numpy as np

    lazy = Mapped(x, lambda raw, rows: features(raw, format), (feature_count(format.columns),), np.dtype(np.float32))
    return np.concatenate([block for _, block in blocks(lazy)]) if in_memory(x) else lazy


def rows(x: np.ndarray, format: Format) -> np.ndarray:
    """Features `[N, F]`, of data or means of p(x|z), as raw rows `[N, D]`: of categories the most likely one's code."""
    import numpy as np

    out = np.empty((len(x), len(format.columns)), np.float32)
    for group in layout.groups(widths(format.columns)):
        part = x[:, group.slots]
        value = part.argmax(axis=-1) if group.categories > 2 else part[..., 0]
        value = value > 0.5 if group.categories == 2 else value
        out[:, group.columns] = np.where(layout.observed(group.categories, part), value, np.nan)
    return out


# -------------------------------------------------------------------------------------------- describing and writing


def describe(x: Source, columns: tuple[Column, ...]) -> list[dict[str, Any]]:
    """What there is in each column of raw rows `[N, D]`, which are read once, in blocks.

    Returns:
      For each column its `name`, its `kind` ("number", "binary" or "categorical"), and how many entries are `missing`;
      then, of those that are not, `min`, `mean` and `max` of numbers (None where there are none), or `counts`, how
      often each category occurs.
    """
    import numpy as np

    size = len(columns)
    low, high, total, present = np.full(size, np.nan), np.full(size, np.nan), np.zeros(size), np.zeros(size, int)
    counts = [np.zeros(len(column.categories), int) for column in columns]
    for _, raw in blocks(x):
        there = ~np.isnan(raw)
        low, high = np.fmin(low, np.fmin.reduce(raw)), np.fmax(high, np.fmax.reduce(raw))
        total, present = total + np.where(there, raw, 0.0).sum(axis=0, dtype=np.float64), present + there.sum(axis=0)
        for i, column in enumerate(columns):
            if column.categories:
                counts[i] += np.bincount(raw[there[:, i], i].astype(int), minlength=len(column.categories))
    found = []
    for i, column in enumerate(columns):
        kind = {0: "number", 2: "binary"}.get(len(column.categories), "categorical")
        row: dict[str, Any] = {"name": column.name, "kind": kind, "missing": int(len(x) - present[i])}
        if column.categories:
            row["counts"] = dict(zip(column.categories, counts[i].tolist(), strict=True))
        else:
            values = {"min": low[i], "mean": total[i] / max(present[i], 1), "max": high[i]}
            row |= {name: float(value) if present[i] else None for name, value in values.items()}
        found.append(row)
    return found


def write_csv(path: Path, rows: np.ndarray, columns: tuple[Column, ...]) -> None:
    """Raw rows `[N, D]` as CSV under the names of the columns, such that `read` gives the same numbers and texts again.

    Numbers have the fewest digits that tell float32 numbers apart, codes are written as their texts, and missing
    entries are empty. Lines end as RFC 4180 says, with a carriage return and a line feed.
    """
    with durable.replacing(path) as file:
        text = io.TextIOWrapper(file, newline="", encoding="utf-8")
        writer = csv.writer(text)
        writer.writerow([column.name for column in columns])
        writer.writerows([_entry(value, column) for value, column in zip(row, columns, strict=True)] for row in rows)
        text.detach()  # flushes, and leaves the file open for whoever opened it


def _entry(value: Any, column: Column) -> str:
    if math.isnan(value):
        return ""
    return column.categories[int(value)] if column.categories else spelled(value)


def spelled(value: Any) -> str:
    """A NumPy number with the fewest digits that tell it from its neighbours; whole numbers without a point."""
    return str(value).removesuffix(".0")
