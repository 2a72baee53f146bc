"""A trained model as a lossy codec: its rounded code is stored, and its decoder makes the picture of that.

Both are exact: the distributions that codes are coded by, and the picture, are networks in float64, rounded (the
picture to its grey levels), and certified to round so everywhere: see `certified`. An image of which anything is not
certain, or whose code would be longer than itself, is stored as it is.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from aevae_jax import codable, limits
from aevae_jax.compression import certified, elements, latents, plain, rounded, tables
from aevae_jax.compression.certified import Evaluation, Networks, Values
from aevae_jax.compression.chunks import digest
from aevae_jax.compression.stack import Slices, Stack
from aevae_jax.types import InputError, Params

_BATCH = 64
_RARE = 8  # of 65536 images so many are expected to be stored as they are
_SLICE, _SEED = 64, 34  # symbols that are pushed at a time, and words of which they may pop 16 bits each
_FINE = 1024  # lengths are integers in units of 1/1024 bit


def has_rounded_codes(model: Any, params: Params) -> bool:
    """Return whether a model has codes that `LossyCoder` can code; else `Coder` may."""
    prior = Networks(model, params).shapes(lambda model, params: latents.level(model.prior(params, 1), ()))
    return isinstance(prior, codable.Smoothed)


class LossyCoder:
    """A model whose codes are rounded, and its parameters, as a codec of images of some grey levels.

    What is decoded is not what was encoded, but it is the same on every machine.

    Args:
      model: with a prior of smoothed logistics, as that of a `CompressiveAutoencoder`.
      params: its parameters, as trained.
      levels: grey levels of an image, which the model sees as k / (levels - 1).

    Raises:
      InputError: a model that no codec can be made of, or parameters that are not finite.
    """

    lossy: ClassVar[bool] = True

    def __init__(self, model: Any, params: Params, levels: int = 256):
        limits.check("levels", levels, 2, 2**16)
        plain.check_finite(params)
        self.levels, self.event_shape = levels, tuple(model.event_shape)
        self._picture = partial(_picture, levels - 1)
        self.sha256 = digest(model, params)
        self._networks = Networks(model, params)
        width = self._networks.shapes(lambda model, params: model.prior(params, 1).mean()).shape[-1]
        self._sizes: list[int] = []
        while sum(self._sizes) < width:
            above = [jnp.zeros((1, size)) for size in self._sizes]
            self._sizes.append(self._networks.shapes(partial(_after, above)).shape[1])
        for level in range(len(self._sizes)):
            self._networks.check(_given, *((1, size) for size in self._sizes[:level] or [0]))
        self._networks.check(self._picture, (1, width))
        self._first, sure = self._networks.rounded(_given, np.zeros((1, 0)), certify=True)
        self._sure = bool(sure.all())

    @property
    def dtype(self) -> Any:
        """What pictures are decoded to: uint8 up to 256 levels, else uint16."""
        return plain.dtype_of(self.levels)

    def encode(self, symbols: np.ndarray) -> bytes:
        """Return a chunk of images `[n, *event_shape]`, n >= 1, of integers below `levels`.

        Raises:
          InputError: another shape, other numbers, or a prior that does not round surely.
        """
        certified.check_prior(self._sure)
        code, bits, given = self._code(symbols), np.zeros(len(symbols)), []
        _, sure = self._evaluate(self._picture, _joined(code), certify=True)
        for level, k in enumerate(code):
            parameters, certain = self._given(code[:level], len(k), certify=True)
            sure, bits = sure & certain, bits + rounded.cost(parameters, k)
            given.append(parameters)
        without = ~sure | (bits > symbols[0].size * np.log2(self.levels))
        stack = _stack()
        for k, parameters in reversed(list(zip(code, given, strict=True))):
            rounded.integers(parameters[~without]).push(stack, k[~without])
        plain.uniform(int(without.sum()), self.event_shape, self.levels).push(stack, symbols[without].astype(np.int64))
        plain.marks(len(symbols), _RARE).push(stack, without.astype(np.int64))
        return stack.payload()

    def decode(self, payload: bytes, n: int) -> np.ndarray:
        """Return the `n` pictures of a chunk, `[n, *event_shape]`.

        Raises:
          Damaged: the payload is not what `encode` gave for so many.
        """
        stack, out = _stack(payload), np.zeros((n, *self.event_shape), self.dtype)
        without = plain.marks(n, _RARE).pop(stack).astype(bool)
        rows = int((~without).sum())
        out[without] = plain.uniform(n - rows, self.event_shape, self.levels).pop(stack)
        code: list[np.ndarray] = []
        for _ in self._sizes:
            parameters = self._given(code, rows)[0]
            code.append(rounded.integers(parameters).pop(stack))
        stack.check_empty()
        out[~without] = np.clip(self._evaluate(self._picture, _joined(code))[0], 0, self.levels - 1)
        return out

    def bound(self, symbols: np.ndarray) -> np.ndarray:
        """Return the length of rounded codes by the model's own density, -log2 p, in bits per image, `[n]`."""
        return np.asarray(self._evaluate(_length, _joined(self._code(symbols)))[0] / _FINE)

    def _code(self, symbols: np.ndarray) -> list[np.ndarray]:
        """Return the rounded codes of images, the first level first."""
        plain.check_examples("images", symbols, self.event_shape, self.levels)
        k, _ = self._evaluate(_mean, symbols / (self.levels - 1))
        k = np.clip(k, -rounded.FARTHEST, rounded.FARTHEST)
        return np.split(k, np.cumsum(self._sizes[::-1])[:-1], axis=-1)[::-1]

    def _given(self, code: list[np.ndarray], rows: int, *, certify: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Return the parameters of the level after those of a code, and for which images they are certain."""
        if not code:
            return np.broadcast_to(self._first, (rows, *self._first.shape[1:])), np.ones(rows, bool)
        return self._evaluate(_given, *code, certify=certify)

    def _evaluate(self, values: Values, *arrays: np.ndarray, certify: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Return what networks say of rows, rounded, and for which it is certain."""
        evaluation = Evaluation(self._networks, len(arrays[0]), _BATCH, certify=certify)
        found: np.ndarray = evaluation(values, *(a.astype(np.float64) for a in arrays))
        return found, evaluation.sure


def _stack(payload: bytes | None = None) -> Stack:
    stack = Stack(_SEED, payload)
    stack.slices = Slices(1 << 30, _SLICE)
    return stack


def _joined(code: list[np.ndarray]) -> np.ndarray:
    """Return codes as models have them, the last level first."""
    return np.concatenate(code[::-1], axis=-1)


# ------------------------------------------------------------------- what networks say, in units of what is rounded


def _mean(model: Any, params: Any, x: Any) -> Any:
    return model.encode(params, x).mean()


def _picture(most: int, model: Any, params: Any, z: Any) -> Any:
    return most * model.decode(params, z).mean()


def _given(model: Any, params: Any, *above: Any) -> Any:
    """Return weights, places and scales of the level after those above, `[B, codes, 3 K]`; the first after no codes."""
    return _after([a for a in above if a.shape[1]], model, params)


def _after(above: list[Any], model: Any, params: Any) -> Any:
    found = latents.level(model.prior(params, len(above[0]) if above else 1), tuple(above))
    if not isinstance(found, codable.Smoothed):
        raise InputError(
            "prior",
            got=type(found).__name__,
            expected="the prior of rounded codes",
            hint="train with --model CompressiveAutoencoder()",
        )
    log_weight, loc, log_scale = found.smooth()
    scaled = (log_weight * tables.GRID, loc * elements.LOC_GRID, log_scale * tables.GRID)
    return jnp.concatenate(scaled, axis=-1)


def _length(model: Any, params: Any, z: Any) -> Any:
    return -model.prior(params, len(z)).log_prob(z) * (_FINE / np.log(2))
