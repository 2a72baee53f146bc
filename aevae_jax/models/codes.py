"""What becomes of the encoder's outputs before they are the code of an autoencoder."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aevae_jax import limits
from aevae_jax.lazy import jax
from aevae_jax.types import InputError

if TYPE_CHECKING:
    from jax import Array


@dataclass(frozen=True)
class Identity:
    """The outputs are the code."""

    def __call__(self, raw: Array) -> Array:
        """Return `raw`."""
        return raw

    @property
    def range(self) -> tuple[float, float]:
        """Bounds of the numbers of a code."""
        return -math.inf, math.inf


@dataclass(frozen=True)
class Sigmoid:
    """The code is between 0 and 1, so that its mean over data is a share of them: see `objectives.sparse`."""

    def __call__(self, raw: Array) -> Array:
        """Return 1 / (1 + exp(-raw))."""
        return jax.nn.sigmoid(raw)

    @property
    def range(self) -> tuple[float, float]:
        """Bounds of the numbers of a code."""
        return 0.0, 1.0


@dataclass(frozen=True)
class TopK:
    """The k largest outputs of each example are its code, all others are 0. Makhzani & Frey 2014, section 2.1.

    Args:
      k: how many; of equal ones, the first.
    """

    k: int = 4

    def __post_init__(self) -> None:
        limits.check("TopK k", self.k, 1)

    def __call__(self, raw: Array) -> Array:
        """Return `raw` `[B, *latent]` with all but the k largest of each example at 0.

        Raises:
          InputError: an example has fewer than k.
        """
        rows = raw.reshape(raw.shape[0], -1)
        if self.k > rows.shape[1]:
            raise InputError("TopK k", got=self.k, expected=f"at most the latent size {rows.shape[1]}")
        _, kept = jax.lax.top_k(jax.lax.stop_gradient(rows), self.k)
        mask = jax.nn.one_hot(kept, rows.shape[1], dtype=raw.dtype).sum(axis=1)
        return (rows * mask).reshape(raw.shape)

    @property
    def range(self) -> tuple[float, float]:
        """Bounds of the numbers of a code."""
        return -math.inf, math.inf


Code = Identity | Sigmoid | TopK
"""The codes that a run may name."""
