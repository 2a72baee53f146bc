"""What is known of each example beside the example itself, what models may offer for it, and where the two meet.

A batch is a pytree of rows: an array `[B, *event]`, or `Conditioned(x, condition)`. A model that is `Conditional`
turns the condition into a `LatentModel` of these examples, so that objectives, estimators and metrics take a model and
plain `x`, whether there is a condition or not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jax import Array

from aevae_jax import keys
from aevae_jax.types import Distribution, InputError, Latent, LatentModel, Params


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Conditioned:
    """Examples with what is known of each of them. It has a length and is indexed as an array of rows is.

    Args:
      x: `[B, *event]`, or rows that are read when they are asked for.
      condition: of each example: classes, integers `[B]`; a vector, floats `[B, C]`; or `{"label": classes, "vector":
        vectors}`.
    """

    x: Any
    condition: Any

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Any) -> Conditioned:
        return Conditioned(self.x[rows], jax.tree.map(lambda known: known[rows], self.condition))

    def __iter__(self) -> Any:
        raise TypeError("Conditioned rows are no sequence: take .x and .condition, or index them")

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("Conditioned rows are no array: take .x")


@dataclass(frozen=True, eq=False)
class Given:
    """A model at the conditions of some examples: the four functions, for just as many.

    Args:
      model: whose `encode`, `decode` and `prior` take a condition as their last argument.
      condition: as of `Conditioned`.
    """

    model: Any
    condition: Any

    def init(self, key: Array) -> Params:
        """Return fresh parameters of the model."""
        return self.model.init(key)

    def encode(self, params: Params, x: Array) -> Distribution:
        """Return q(z|x, c) of x `[B, *event]`."""
        found: Distribution = self.model.encode(params, x, self.condition)
        return found

    def decode(self, params: Params, z: Latent) -> Distribution:
        """Return p(x|z, c) of z `[B, *latent]`."""
        found: Distribution = self.model.decode(params, z, self.condition)
        return found

    def prior(self, params: Params, n: int) -> Distribution:
        """Return p(z|c), for a batch of `n`."""
        found: Distribution = self.model.prior(params, n, self.condition)
        return found


@runtime_checkable
class Conditional(Protocol):
    """A model that can be told something of each example: see `Conditioned`.

    Without `given`, its four functions are those of examples of which nothing is known, or refuse.
    """

    def given(self, condition: Any) -> LatentModel:
        """Return the model of as many examples as `condition` is of; `Given(self, condition)` is one."""
        ...


@runtime_checkable
class ConditionShaped(Protocol):
    """A conditional model, a frozen dataclass, that is built for one form of condition; 0 is replaced by that of the
    data.
    """

    @property
    def classes(self) -> int:
        """The number of classes; 0 where it is told no class."""
        ...

    @property
    def vector(self) -> int:
        """The number of entries of the vector; 0 where it is told none."""
        ...


@runtime_checkable
class DropsConditions(Protocol):
    """A conditional model that is not told some of the conditions while it is trained."""

    @property
    def drop(self) -> float:
        """The probability of that, for each example; 0 for never."""
        ...

    def dropped(self, condition: Any, key: Array) -> Any:
        """Return the condition of a training batch without those that the model does not see at this step."""
        ...


@runtime_checkable
class LearnsPrior(Protocol):
    """A conditional model that says whether it learns p(z|c) in place of a p(z) that all conditions share."""

    @property
    def learned_prior(self) -> bool:
        """Whether it does."""
        ...


@runtime_checkable
class Natural(Protocol):
    """A likelihood that says whether its raw outputs are the natural parameters of an exponential family, but for a
    factor that does not depend on them.
    """

    @property
    def natural(self) -> bool:
        """Whether they are."""
        ...


@runtime_checkable
class WithOutputs(Protocol):
    """A conditional model with a decoder whose raw outputs its likelihood turns into p(x|z, c)."""

    @property
    def likelihood(self) -> Any:
        """The likelihood."""
        ...

    def decoder_outputs(self, params: Params, z: Latent, condition: Any = None) -> Array:
        """Return the raw outputs `[B, *event, outputs]` at codes z `[B, *latent]`."""
        ...


@runtime_checkable
class Inferring(Protocol):
    """A model that is told the class of an example, and infers it where it is missing: a label of -1."""

    def log_classes(self, params: Params, x: Array) -> Array:
        """Return log q(y|x) of x `[B, *event]` for each class y, `[B, classes]`."""
        ...


@runtime_checkable
class TrainsClassifier(Protocol):
    """An objective that trains the classifier of a model that is `Inferring`."""

    @property
    def classification(self) -> Any:
        """The weight of its cross-entropy, a number or a function of the step."""
        ...


def given(model: LatentModel, condition: Any) -> LatentModel:
    """Return the model at a condition; the model itself where there is none.

    Raises:
      InputError: a model that takes none.
    """
    if condition is None:
        return model
    if not isinstance(model, Conditional):
        raise InputError(
            "condition",
            got=f"one for a {type(model).__name__}",
            expected="a model that takes one",
            hint="such as: --model 'ConditionalVAE()'",
        )
    return model.given(condition)


def at_any(model: LatentModel, count: int) -> LatentModel:
    """Return a model at some condition of the form that it takes, for `count` examples, where only shapes matter."""
    if not isinstance(model, Conditional) or not isinstance(model, ConditionShaped):
        return model
    label, vector = np.zeros(count, np.int32), np.zeros((count, model.vector), np.float32)
    sizes = {"label": model.classes, "vector": model.vector}
    return given(model, {name: part for name, part in (("label", label), ("vector", vector)) if sizes[name]})


def bound_to(model: LatentModel, batch: Any) -> tuple[LatentModel, Any]:
    """Return the model at the conditions of a batch, and its examples alone; both as they are where it has none."""
    return (given(model, batch.condition), batch.x) if isinstance(batch, Conditioned) else (model, batch)


def rebound(model: LatentModel, like: LatentModel) -> LatentModel:
    """Return the model at the conditions that another one, of other numbers, was given."""
    return given(model, like.condition) if isinstance(like, Given) else model


def in_training(model: LatentModel, batch: Any, key: Array, step: Array) -> Any:
    """Return a training batch of which the model drops some conditions, if it does; else the batch as it is.

    Args:
      model: see `DropsConditions`.
      batch: as the model sees it.
      key: the root key of the run.
      step: of the training.
    """
    if not (isinstance(batch, Conditioned) and isinstance(model, DropsConditions)):
        return batch
    return Conditioned(batch.x, model.dropped(batch.condition, keys.stream(key, keys.Stream.CONDITION, step)))


_KINDS = {"label": ("iu", 1), "vector": ("f", 2), "known": ("f", 1)}
"""Kinds of numbers, and axes, of the parts of a condition."""


def parts(condition: Any) -> dict[str, Any]:
    """Return the parts of a condition by name: `label`, integers `[B]`; `vector`, floats `[B, C]`; and, where a model
    has dropped some of them, `known`, 1 or 0 `[B]`.

    Raises:
      InputError: it is another thing.
    """
    found = condition
    if not isinstance(condition, dict):
        array = _array(condition)
        found = {"label" if array.dtype.kind in "iu" else "vector": array}
    arrays = {name: _array(part) for name, part in found.items()}
    for name, array in arrays.items():
        kinds, axes = _KINDS.get(name, ("", 0))
        if array.dtype.kind not in kinds or array.ndim != axes:
            raise InputError(
                "condition",
                got=f"{name} of type {array.dtype} and shape {array.shape}",
                expected="classes, integers [B]; a vector, floats [B, C]; or a dict of both: label, vector",
            )
    return arrays


def none(model: Any, count: int) -> dict[str, Any]:
    """Return the condition of `count` examples of which a model is told nothing."""
    found: dict[str, Any] = {"known": np.zeros(count, np.float32)}
    if model.classes:
        found["label"] = np.full(count, -1, np.int32)
    if model.vector:
        found["vector"] = np.zeros((count, model.vector), np.float32)
    return found


def _array(part: Any) -> Any:
    return part if isinstance(part, jax.Array | np.ndarray) else np.asarray(part)


def beside(x: Any, condition: Any) -> Any:
    """Return examples with a condition as rows; the examples themselves where it is `None`."""
    return x if condition is None else Conditioned(x, condition)


def examples(rows: Any) -> Any:
    """Return the examples of rows alone."""
    return rows.x if isinstance(rows, Conditioned) else rows


def condition_of(rows: Any) -> Any:
    """Return what is known of the examples of rows, `None` where nothing is."""
    return rows.condition if isinstance(rows, Conditioned) else None


def with_examples(rows: Any, change: Callable[[Any], Any]) -> Any:
    """Return rows with what `change` makes of their examples; what is known of them stays."""
    return Conditioned(change(rows.x), rows.condition) if isinstance(rows, Conditioned) else change(rows)


def shapes(rows: Any, count: int) -> Any:
    """Return the shapes and types on the device of `count` such rows."""

    def spec(a: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((count, *a.shape[1:]), jax.dtypes.canonicalize_dtype(a.dtype))

    return jax.tree.map(spec, rows)
