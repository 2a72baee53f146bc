"""Tables: the features that a model sees of their rows and the way back; what is in a column; CSV.

A raw row is one float per column: a number, or the code 0, 1, ... of a category, and NaN where the entry is missing.
Positive numbers become logarithms, all numbers are standardised, and then features stand for them, as
`distributions/table_layout.py` says. `table_files.py` reads files.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aevae_jax import durable
from aevae_jax.data.datasets import Column, Format, Mapped, Source, blocks, in_memory
from aevae_jax.distributions import table_layout
from aevae_jax.lazy import np
from aevae_jax.models.likelihoods import Tabular
from aevae_jax.types import InputError

WORDS = ("NA", "N/A", "NaN", "nan", "NULL", "null")
"""Words that stand for a missing entry among the numbers of a CSV file. Among texts they are texts."""


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
            raise InputError(
                "Data",
                got=f"column {name!r} in {times} places",
                expected="one of categorical, numbers, positive, counts and label",
            )

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
    """Return the number of categories of each column, 0 for numbers: what `likelihoods.Tabular` must know."""
    return tuple(len(column.categories) for column in columns)


def feature_count(columns: tuple[Column, ...]) -> int:
    """Return how many features a model sees of a row."""
    return table_layout.feature_count(widths(columns))


def features(raw: Any, format: Format) -> Any:
    """Return raw rows `[B, D]` as features `[B, F]`, float32, all finite: NumPy from NumPy; JAX from JAX, in a step,
    too.
    """
    xp, columns = raw.__array_namespace__(), widths(format.columns)

    def part(group: table_layout.Group) -> Any:  # [B, K, W]
        x = raw[:, group.columns]
        if group.categories > 2:
            return (x[..., None] == xp.arange(group.categories)[None, None]).astype("float32")  # NaN equals nothing
        missing = xp.isnan(x)
        return xp.stack([xp.where(missing, 0.0, x), ~missing], axis=-1).astype("float32")

    return table_layout.joined(columns, [part(group) for group in table_layout.groups(columns)])


def mapped(x: Source, format: Format) -> Source:
    """Return the raw rows `[N, D]` as features `[N, F]`: at once where they are in memory, else when they are read."""
    lazy = Mapped(x, lambda raw, rows: features(raw, format), (feature_count(format.columns),), np.dtype(np.float32))
    return np.concatenate([block for _, block in blocks(lazy)]) if in_memory(x) else lazy


def rows(x: np.ndarray, format: Format) -> np.ndarray:
    """Return features `[N, F]`, of data or means of p(x|z), as raw rows `[N, D]`: of categories the most likely
    one's code.
    """
    out = np.empty((len(x), len(format.columns)), np.float32)
    for group in table_layout.groups(widths(format.columns)):
        part = x[:, group.slots]
        value = part.argmax(axis=-1) if group.categories > 2 else part[..., 0]
        value = value > 0.5 if group.categories == 2 else value
        out[:, group.columns] = np.where(table_layout.observed(group.categories, part), value, np.nan)
    return out


def linear(x: np.ndarray, columns: tuple[Column, ...]) -> np.ndarray:
    """Return raw rows `[..., D]`, float64, with logarithms in place of positive numbers: a copy, if there are any."""
    places = [i for i, column in enumerate(columns) if column.kind == "positive"]
    if places:
        x = x.copy()
        x[..., places] = np.log(x[..., places] - [columns[i].offset for i in places])
    return x


def natural(x: np.ndarray, format: Format) -> np.ndarray:
    """Return the inverse of `linear`, of data or of what a model made: counts whole, nothing below 0 where nothing can
    be.

    Numbers that stay float64 have as many decimals as float32 leaves them when they are standardised.
    """
    x = x.copy()
    for i, (column, scale) in enumerate(zip(format.columns, format.scale, strict=True)):
        if column.kind == "positive":
            x[:, i] = np.maximum(np.exp(np.minimum(x[:, i], 88.0)) + column.offset, 0.0)  # e^88 is a float32
        elif column.kind == "count":
            x[:, i] = np.maximum(np.rint(x[:, i]), 0.0)
        elif column.double:
            x[:, i] = np.round(x[:, i], math.ceil(-math.log10(scale * 2.0**-24)))
    return x


def likelihood(format: Format) -> Tabular:
    """Return the likelihood of a table's rows, standardised with the moments of `format`."""
    counts = [
        (i, -format.mean[i] / format.scale[i], 1 / format.scale[i])
        for i, column in enumerate(format.columns)
        if column.kind == "count"
    ]
    return Tabular(widths(format.columns), tuple(counts))


def notes(columns: tuple[Column, ...]) -> tuple[str, ...]:
    """Return what whoever trains on a table should be told of its categories, a line each."""
    found = []
    for column in columns:
        words = [text for text in column.categories if text in WORDS]
        if words and column.kind == "text":
            found.append(
                f"column {column.name!r}: {words[0]} is a category; where it stands for a missing entry, "
                f"type in Data: missing=({words[0]!r},)"
            )
    return tuple(found)


# -------------------------------------------------------------------------------------------- describing and writing


def describe(x: Source, columns: tuple[Column, ...]) -> list[dict[str, Any]]:
    """Return what there is in each column of raw rows `[N, D]`, which are read once, in blocks.

    Returns:
      For each column its `name`, its `kind` ("number", "positive", "count", "binary" or "categorical"), and how many
      entries are `missing`; then, of those that are not, `min`, `mean` and `max` of numbers (None where there are
      none), or `counts`, how often each category occurs.
    """
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
        kind = {0: column.kind, 2: "binary"}.get(len(column.categories), "categorical")
        row: dict[str, Any] = {"name": column.name, "kind": kind, "missing": int(len(x) - present[i])}
        if column.categories:
            row["counts"] = dict(zip(column.categories, counts[i].tolist(), strict=True))
        else:
            values = {"min": low[i], "mean": total[i] / max(present[i], 1), "max": high[i]}
            row |= {name: float(value) if present[i] else None for name, value in values.items()}
        found.append(row)
    return found


def write_csv(
    path: Path,
    rows: np.ndarray,
    columns: tuple[Column, ...],
    reading: Reading = AS_USUAL,
    given: Sequence[Sequence[str]] | None = None,
) -> None:
    """Write raw rows `[N, D]` as CSV under the names of the columns, such that `read` gives the same numbers and texts
    again.

    Numbers have the fewest digits that tell them apart, as float32 unless their column needs more, codes are written as
    their texts, and missing entries are empty. Lines end as RFC 4180 says, with a carriage return and a line feed.

    Args:
      path, rows, columns: what is written, and where.
      reading: the separator, and the mark of decimals.
      given: texts `[D][N]` of entries, to be written as they are; empty for those that `rows` fills in.
    """
    with durable.replacing(path) as file:
        text = io.TextIOWrapper(file, newline="", encoding="utf-8")
        writer = csv.writer(text, delimiter=reading.separator)
        writer.writerow([column.name for column in columns])
        for i, row in enumerate(rows):
            entries = [_entry(value, column, reading) for value, column in zip(row, columns, strict=True)]
            writer.writerow(entries if given is None else [own[i] or e for own, e in zip(given, entries, strict=True)])
        text.detach()  # flushes, and leaves the file open for whoever opened it


def _entry(value: Any, column: Column, reading: Reading) -> str:
    if math.isnan(value):
        return ""
    if column.categories:
        return column.categories[int(value)]
    return spelled(value if column.double else value.astype("float32")).replace(".", reading.decimal)


def spelled(value: Any) -> str:
    """Return a NumPy number with the fewest digits that tell it from its neighbours; whole numbers without a point."""
    return str(value).removesuffix(".0")
