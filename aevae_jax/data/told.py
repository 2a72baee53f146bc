"""What models are told of each example: made of its label, of its known factors, or of both."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from aevae_jax.data.datasets import PARTS, Dataset, Split
from aevae_jax.lazy import modules, np
from aevae_jax.types import InputError

if TYPE_CHECKING:
    from aevae_jax import conditions
else:
    conditions = modules("aevae_jax", "conditions")

Told = Literal["", "label", "factors", "label and factors"]
"""What a model is told of each example beside the example: nothing, or one of these."""


def told(dataset: Dataset, kind: Told, *, hidden: float = 0.0, per_class: int = 0, seed: int = 0) -> Dataset:
    """Return the data set with what models are told of each example; where nothing is asked for, as it is.

    A label is the code of its class, int32; -1 where it is missing or hidden. Examples for validation and test that
    have none are left out: nothing could be said of them. Factors are a vector: of a factor whose values lie on a line
    its place between the first and the last, from 0 to 1, and of another one a 1 in the place of its value. A vector
    that the data have already stays beside a label.

    Args:
      dataset: the data.
      kind: what is told.
      hidden: the share of the labels of each class that is hidden in the training data; at least one is not.
      per_class: in its place, how many labels of each class are not, or all where there are fewer; 0 for no such limit.
      seed: of which they are.

    Raises:
      InputError: what is asked for is not known of these data.
    """
    if not kind:
        return dataset
    names, parts = kind.split(" and "), {part: getattr(dataset, part) for part in PARTS}
    if "label" in names:
        parts = {part: _labelled(split, part, dataset.name) for part, split in parts.items()}
    if "factors" in names and any(split.factors is None for split in parts.values()):
        hint = "--data \"Data('sprites', condition='factors')\" has some; from Python: from_arrays(x, factors={...})"
        raise InputError(f"factors of {dataset.name}", got="none that are known", expected=_needed(kind), hint=hint)
    left_out = sum(len(getattr(dataset, part)) - len(split) for part, split in parts.items())
    remarks = [f"{left_out} examples of validation or test are left out, as they have no label"] if left_out else []

    def condition(part: str, split: Split) -> Any:
        found: dict[str, Any] = {}
        if "label" in names:
            found["label"] = _hidden(split.labels, hidden, per_class, seed) if part == "train" else split.labels
        if "factors" in names:
            found["vector"] = _vectors(dataset, split.factors)
        elif (vector := _own_vector(split)) is not None:
            found["vector"] = vector
        return found if len(found) > 1 else next(iter(found.values()))

    with_told = {part: replace(split, condition=condition(part, split)) for part, split in parts.items()}
    return replace(dataset, **with_told, remarks=(*dataset.remarks, *remarks))


def _own_vector(split: Split) -> Any:
    """Return the vectors that models are told already; `None` where these are none."""
    return None if split.condition is None else conditions.parts(split.condition).get("vector")


def _needed(kind: str) -> str:
    return f"those of each example, for condition={kind!r}"


def _labelled(split: Split, part: str, name: str) -> Split:
    """Return a split as it is for training, and for validation and test those of its examples that have a label."""
    known = np.zeros(0, int) if split.labels is None else np.flatnonzero(split.labels >= 0)
    if not len(known):
        raise InputError(
            f"labels of {name} {part}",
            got="none",
            expected="those of each example, for condition='label'",
            hint="of a table, name their column: Data(..., label='COLUMN')",
        )
    return split if part == "train" or len(known) == len(split) else split[known]


def _hidden(labels: Any, share: float, per_class: int, seed: int) -> Any:
    """Return the labels, of each class all but some -1: a share of them, or so many of each."""
    told, generator = labels.astype(np.int32), np.random.RandomState(seed)
    for label in np.unique(labels[labels >= 0]) if share or per_class else ():
        own = generator.permutation(np.flatnonzero(labels == label))
        told[own[per_class or max(1, round((1 - share) * len(own))) :]] = -1
    return told


def _vectors(dataset: Dataset, factors: Any) -> Any:
    """Return the factors of a split as vectors `[N, C]`, float32."""
    counts = np.max([getattr(dataset, part).factors.max(axis=0) for part in PARTS], axis=0) + 1
    columns = []
    for factor, values, count in zip(dataset.factors, factors.T, counts.tolist(), strict=True):
        if factor.ordered:
            columns.append(values[:, None] / max(1, count - 1))
        else:
            columns.append(values[:, None] == np.arange(count))
    return np.concatenate(columns, axis=1).astype(np.float32)
