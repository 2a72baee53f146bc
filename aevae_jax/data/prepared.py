"""A data set as training and evaluation consume it: what a preparation makes of it, and what to know of that."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from aevae_jax.data import tables
from aevae_jax.data.datasets import Dataset, Factor, Format, Mapped, Source, Split, blocks, class_texts
from aevae_jax.data.preparation import Preparation, Scale, is_coarse
from aevae_jax.lazy import jax, modules, np
from aevae_jax.types import InputError

if TYPE_CHECKING:
    from jax import Array

    from aevae_jax import conditions
    from aevae_jax.conditions import Conditioned
else:
    conditions = modules("aevae_jax", "conditions")

SAMPLE = 2**22
"""How many numbers are looked at to tell whether float32 is fine enough."""


@dataclass(frozen=True)
class Prepared:
    """A data set as training and evaluation consume it.

    Args:
      name: of the data set.
      preparation: what made it.
      format: what must be known to prepare more.
      train: raw rows; `batch` turns them into what the model sees.
      validation, test: as the model sees them, float32.
      notes: what whoever trains on it should be told, a line each.
      class_names, factors: as in `Dataset`.
    """

    name: str
    preparation: Preparation
    format: Format
    train: Split
    validation: Split
    test: Split
    notes: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    factors: tuple[Factor, ...] = ()

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one example as the model sees it."""
        return tuple(self.validation.x.shape[1:])

    def classes(self, part: str, rows: Any = slice(None)) -> list[str]:
        """Return the name of the class of each example of a split at `rows`; nothing where it has no labels."""
        labels = getattr(self, part).labels
        return class_texts(None if labels is None else labels[rows], self.class_names)

    def told(self, num: int) -> Any:
        """Return what a model is told of `num` samples that are shown: the classes in turn; or, where it is told more,
        what it is told of the first test examples, again and again. `None` where it is told nothing.
        """
        if self.test.condition is None:
            return None
        known = conditions.parts(self.test.condition)
        if known.keys() == {"label"}:
            return (np.arange(num) % max(1, len(self.class_names))).astype(np.int32)
        return jax.tree.map(lambda a: a[np.arange(num) % len(a)], self.test.condition)

    def batch(self, raw: Any, key: Array) -> Any:
        """Return a raw training batch as the model sees it, to be called in the step; what is known of it stays."""
        return conditions.with_examples(raw, lambda x: self.preparation.train(x, key, self.format))

    def rows(self, part: str, key: Array) -> Source | Conditioned:
        """Return a split as the model sees it, `[N, *event]`, float32, with what models are told of each example.

        Args:
          part: "train", "validation" or "test".
          key: of the noise of training rows, drawn anew whenever some are read; evaluation data have theirs already.
        """
        return conditions.with_examples(getattr(self, part).rows, lambda x: self._as_seen(part, x, key))

    def seen(self, part: str, key: Array) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the examples of `rows`, in blocks, each with the index of its first row."""
        yield from blocks(self._as_seen(part, getattr(self, part).x, key))

    def _as_seen(self, part: str, x: Source, key: Array) -> Source:
        def seen(raw: np.ndarray, indices: np.ndarray) -> np.ndarray:
            return np.asarray(self.preparation.train(raw, jax.random.fold_in(key, int(indices[0])), self.format))

        return Mapped(x, seen, self.event_shape, np.dtype(np.float32)) if part == "train" else x


def prepare(preparation: Preparation, dataset: Dataset) -> Prepared:
    """Return `dataset` as training and evaluation consume it: in memory where it was in memory, else prepared when
    read.

    Raises:
      InputError: data that this preparation does not take, or of which it leaves a single value.
    """
    format = preparation.fit(dataset)
    train = replace(dataset.train, x=preparation.training(dataset.train.x, format))
    parts = (dataset.validation, dataset.test)
    prepared = preparation.evaluation([part.x for part in parts], format)
    if not _varies(prepared) and _varies([part.x for part in parts]):
        hint = f"levels={dataset.levels} is not that of the data, or " if dataset.levels else ""
        if isinstance(preparation, Scale) and not dataset.levels:  # float32 holds one value where float64 held several
            hint = "take Standardize(), which takes the offset off first, or "
        raise InputError(
            f"{type(preparation).__name__} of {dataset.name}",
            expected="more than one value",
            got=f"nothing but {prepared[0][:1].flat[0]:g}",
            hint=f"{hint}choose another one",
        )
    validation, test = (replace(part, x=x) for part, x in zip(parts, prepared, strict=True))
    coarse = _run_together(dataset, train.x, format)
    notes = (*dataset.notes, *tables.notes(dataset.columns), *([coarse] if coarse else []))
    about = notes, dataset.class_names, dataset.factors
    return Prepared(dataset.name, preparation, format, train, validation, test, *about)


def _varies(parts: Sequence[Source]) -> bool:
    """Return whether there is more than one value in all parts; they are read until a second one is seen."""
    first = None
    for x in parts:
        for _, block in blocks(x):
            first = block.flat[0] if first is None else first
            if (block != first).any():
                return True
    return False


def _run_together(dataset: Dataset, prepared: Source, format: Format) -> str:
    """Return the names of float64 features whose values float32 cannot tell apart; empty where there are none.

    Args:
      dataset: the data, of which rows are looked at that are spread evenly over the training split.
      prepared: its training split as `Preparation.train` takes it.
      format: that it was prepared with.
    """
    if dataset.train.x.dtype != np.float64 or prepared.dtype != np.float32:
        return ""
    count = min(len(prepared), max(2, SAMPLE // math.prod(dataset.event_shape)))
    rows = np.unique(np.linspace(0, len(prepared) - 1, count).astype(int))
    linear = tables.linear(dataset.train.x[rows].reshape(-1, dataset.event_shape[-1]), dataset.columns)
    raw, seen = (
        np.nanquantile(np.where(np.isnan(x).all(axis=0), 0.0, x), (0.25, 0.75), axis=0)  # [2, D]
        for x in (linear, prepared[rows].reshape(linear.shape))
    )
    spread, size = raw[1] - raw[0], np.abs(raw).max(axis=0)
    there = spread > 8 * np.finfo(np.float64).eps * size  # less is rounding
    found = np.flatnonzero(there & is_coarse(np.abs(seen).max(axis=0), spread / np.array(format.scale or 1.0)))
    if not found.size:
        return ""
    names = [f"column {dataset.columns[i].name!r}" if dataset.columns else f"feature {i}" for i in found[:3].tolist()]
    more = f" and {found.size - 3} more" if found.size > 3 else ""
    cure = "take the largest values out" if format.scale else "use Standardize(), which takes the offset off first"
    return f"{dataset.name}: float32 is too coarse to tell the values of {', '.join(names)}{more} apart; {cure}"
