"""The networks whose speed is measured, and their data, for every program alike. Needs NumPy alone.

PyTorch may live in another environment, so what both sides read imports neither it nor JAX.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Case:
    """A VAE under a Bernoulli or Gaussian likelihood, and how it is trained: Adam with a learning rate of 0.001.

    Args:
      what: the network in words.
      event_shape: of one image, `(H, W, C)`.
      latent: number of latent dimensions.
      hidden: sizes of dense hidden layers, the decoder's in reverse order.
      gated: each hidden layer times a sigmoid gate.
      channels: of convolutions of stride 2, in place of dense layers; back they are transposed, 4 x 4.
      kernel: height and width of the encoder's kernels.
      blocks: residual blocks after each change of scale.
      binary: bits under a Bernoulli, else numbers under a Gaussian whose one scale is learned.
      log_scale_range: the posterior's log standard deviation is held smoothly inside these bounds.
      batch: examples per step.
    """

    what: str
    event_shape: tuple[int, int, int]
    latent: int
    hidden: tuple[int, ...] = ()
    gated: bool = False
    channels: tuple[int, ...] = ()
    kernel: int = 3
    blocks: int = 0
    binary: bool = True
    log_scale_range: tuple[float, float] = (-7.0, 3.0)
    batch: int = 128

    def record(self) -> dict[str, Any]:
        """Return the fields, as JSON has them."""
        return dataclasses.asdict(self)


def case_of(record: dict[str, Any]) -> Case:
    """Return the case of a `record` that went through JSON."""
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in record.items()}
    return Case(**fields)


DIGITS = Case("64-256-256-16", (8, 8, 1), 16, hidden=(256, 256), binary=False)
MLP = Case("784-500-20", (28, 28, 1), 20, hidden=(500,))
CONV = Case("Conv() on 28x28x1", (28, 28, 1), 16, channels=(32, 64))
USUAL = dataclasses.replace(CONV, what="4x4, stride 2, transposed back", kernel=4)
RESIDUAL = Case("ResidualConv() on 32x32x3", (32, 32, 3), 16, channels=(32, 64), blocks=1, binary=False)
PUBLISHED = Case("gated 784-300-300-40", (28, 28, 1), 40, hidden=(300, 300), gated=True, log_scale_range=(-3.0, 1.0))


@lru_cache(maxsize=2)
def images_of(case: Case, count: int) -> np.ndarray:
    """Return random images `[count, H, W, C]`, float32: bits, of which three of ten are 1, or 17 levels of grey."""
    random = np.random.default_rng(0)
    shape = (count, *case.event_shape)
    if case.binary:
        return (random.random(shape, np.float32) < 0.3).astype(np.float32)
    return random.integers(0, 17, shape, np.uint8) / np.float32(16)
