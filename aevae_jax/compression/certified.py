"""Networks as functions that are the same everywhere: float64, rounded to integers, and certified to round so.

The outputs of a network differ in their last digits with the batch size, the number of threads, the device and the
version of the compiler, and one such digit would turn all that follows into noise. So every number that a decoder
takes from a network is rounded to a coarse grid, and the encoder, which makes each evaluation that the decoder will
make, accepts it only where its distance from the next rounding boundary exceeds what evaluations can differ by.

What they can differ by is bounded generously. The same evaluation is made in float32, whose rounding errors are 2^29
times those of float64; so the difference between both, d, is that of float32, and d / 2^29 is what float64 differs by.
Accepted are distances above d / 2^17, 4096 times as much, of the largest d of an example, and above 2^-36 of a number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aevae_jax import codable
from aevae_jax.types import InputError, Params

Values = Callable[..., Any]
"""(model, params, *arrays) -> a pytree of numbers `[B, ...]` in units of a grid, on which they are to be rounded."""


_FAR = 2.0**40  # no number of a model that means anything lies farther out, on any grid
_NARROW = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}


class Networks:
    """A model that is evaluated in float64, and in float32 for comparison.

    Args:
      model: one whose network has a field `dtype`, or computes in the type of what it is given.
      params: its parameters.
    """

    def __init__(self, model: Any, params: Params):
        self._wide, self._narrow = _computing_in(model, "float64"), _computing_in(model, "float32")
        with jax.enable_x64(True):
            self._wide_params = _cast(params, jnp.float64)
            self._narrow_params = _cast(params, jnp.float32)
        self._compiled: dict[Any, Any] = {}

    def rounded(self, values: Values, *arrays: Any, certify: bool) -> tuple[Any, np.ndarray]:
        """Return numbers rounded to integers, and for each example whether that is certain.

        Args:
          values: a function of stable identity, compiled once for each shape.
          arrays: float64, `[B, ...]`, or what `unrounded` returns.
          certify: whether to find out; else all are taken to be certain.
        """
        with jax.enable_x64(True):
            wide = jax.tree.map(np.asarray, self.unrounded(values, *arrays))
            leaves: list[Any] = jax.tree.leaves(wide)
            codes = [np.rint(leaf) for leaf in leaves]
            sure = np.ones(len(leaves[0]), bool)
            if certify:
                narrow_arrays = [np.asarray(a, np.float32) for a in arrays]
                with jax.enable_x64(False):  # else what has no type, such as zeros, makes all that follows float64
                    narrow = jax.tree.leaves(self.function(values, False)(self._narrow_params, *narrow_arrays))
                for leaf, other, code in zip(leaves, narrow, codes, strict=True):
                    sure &= certain(leaf, np.asarray(other, np.float64), code)
        codes = [np.fmin(np.fmax(code, -_FAR), _FAR).astype(np.int64) for code in codes]  # NaN becomes a number, too
        return jax.tree.unflatten(jax.tree.structure(wide), codes), sure

    def unrounded(self, values: Values, *arrays: Any) -> Any:
        """Return what a function gives in float64."""
        with jax.enable_x64(True):
            return self.function(values, True)(self._wide_params, *arrays)

    def check(self, values: Values, *shapes: tuple[int, ...]) -> None:
        """Raise `InputError` unless a function computes in float64 throughout, of arrays of these shapes."""
        with jax.enable_x64(True):
            arrays = [jax.ShapeDtypeStruct(shape, jnp.float64) for shape in shapes]
            made = str(jax.make_jaxpr(partial(values, self._wide))(self._wide_params, *arrays))
        found = [name for short, name in _NARROW.items() if f":{short}[" in made]
        if found:
            raise InputError(
                "arithmetic of the model",
                got=", ".join(found),
                expected="float64 where parameters and inputs are: decoding must be exact",
                hint="give layers no dtype, and cast nothing to float32",
            )

    def shapes(self, values: Values) -> Any:
        """Return what a function gives, as shapes."""
        return jax.eval_shape(partial(values, self._narrow), self._narrow_params)

    def function(self, values: Values, wide: bool) -> Any:
        """Return what computes a function of parameters and arrays, in float64 or in float32."""
        key = values, wide
        if key not in self._compiled:
            self._compiled[key] = jax.jit(partial(values, self._wide if wide else self._narrow))
        return self._compiled[key]


class Evaluation:
    """Evaluates networks on some examples, always `batch` at once, and notes which came out certain every time.

    Args:
      networks: of the model.
      rows: number of examples.
      batch: how many are evaluated at once: compiled for this number, and filled up with zeros.
      certify: whether to find out what is certain.
    """

    def __init__(self, networks: Networks, rows: int, batch: int, *, certify: bool):
        self.sure = np.ones(rows, bool)
        self._networks, self._batch, self._certify = networks, batch, certify

    def __call__(
        self,
        values: Values,
        *arrays: np.ndarray,
        kept: Sequence[Any] | None = None,
        shared: tuple[np.ndarray, ...] = (),
        again: bool = True,
    ) -> Any:
        """Return integers, of what was kept of each batch, of float64 arrays `[rows, ...]`, and of others that no batch
        has.

        Args:
          values, arrays, shared: a function, and what it is given.
          kept: what `keep` returns, of which nothing can be found to be certain.
          again: whether who decodes evaluates this, too, so that it must be certain.
        """
        found = []
        for number, (first, rows, filled) in enumerate(self._batches(arrays)):
            before = [] if kept is None else [kept[number]]
            certify = self._certify and again
            codes, sure = self._networks.rounded(values, *before, *filled, *shared, certify=certify)
            self.sure[first : first + rows] &= sure[:rows]
            found.append(jax.tree.map(lambda code, rows=rows: code[:rows], codes))
        return jax.tree.map(lambda *blocks: np.concatenate(blocks), *found)

    def keep(self, values: Values, *arrays: np.ndarray) -> list[Any]:
        """Return of each batch what a function gives, in float64 and not rounded. Who decodes evaluates others of that;
        together they must be a function that the encoder certifies as one.
        """
        return [self._networks.unrounded(values, *filled) for _, _, filled in self._batches(arrays)]

    def _batches(self, arrays: Sequence[np.ndarray]) -> Iterator[tuple[int, int, list[np.ndarray]]]:
        """Yield of each batch its first row, the number of its rows, and arrays that are filled up with zeros."""
        for first in range(0, max(len(self.sure), 1), self._batch):  # also of none: what they would be
            parts = [a[first : first + self._batch] for a in arrays]
            rows = len(parts[0])
            yield first, rows, [np.concatenate([a, np.zeros((self._batch - rows, *a.shape[1:]))]) for a in parts]


def check_prior(sure: bool) -> None:
    """Raise `InputError` where the numbers of a prior are not certain: nothing can be encoded by them."""
    if not sure:
        raise InputError("prior", got="numbers on the boundary of rounding", expected="a prior that rounds surely")


def certain(wide: np.ndarray, narrow: np.ndarray, code: np.ndarray) -> np.ndarray:
    """Return for each example whether all its numbers round alike wherever they are computed."""
    rows = len(wide)
    with np.errstate(invalid="ignore", over="ignore"):
        largest = np.abs(wide - narrow).reshape(rows, -1).max(1)
        margin = largest.reshape(rows, *[1] * (wide.ndim - 1)) * 2.0**-17 + 2.0**-36 * (1 + np.abs(wide))
        distance = 0.5 - np.abs(wide - code)
        certain = (distance > margin) & np.isfinite(wide)  # a NaN or an infinite difference is not certain
    return np.asarray(certain.reshape(rows, -1).all(1))


def _computing_in(model: Any, dtype: str) -> Any:
    """Return a model whose network, where it has a type of arithmetic as a field, has another."""
    network = getattr(model, "network", None)
    if not isinstance(network, codable.Typed):
        return model
    return replace(model, network=replace(network, dtype=dtype))  # type: ignore[type-var]


def _cast(params: Params, dtype: Any) -> Params:
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), dtype), params)
