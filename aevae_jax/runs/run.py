"""A run is a value: training is a pure function of it. See `fitting` for that function."""

from __future__ import annotations

import warnings
from dataclasses import InitVar, dataclass

from aevae_jax import limits
from aevae_jax.data import Data
from aevae_jax.models import VAE, Model
from aevae_jax.objectives.losses import ELBO, Loss, ReconstructionError
from aevae_jax.training.optimizers import AdamW
from aevae_jax.types import InputError, RateNeeding, has_point_codes


@dataclass(frozen=True)
class Safeguard:
    """What happens when numbers break.

    A step whose loss or gradient is not finite, or whose gradient is too large, changes nothing and is counted. After
    several in a row the training rolls back to before they began and skips the batches that led there: those of the
    failing steps, and of as many before them, twice as many each time. After several such rollbacks it stops and says
    which step, which examples and which term it was.

    Args:
      max_norm: the largest global norm of a gradient that is used, 0 for no limit.
      in_a_row: how many failing steps make a rollback.
      rollbacks: how many there may be.
      detours: what version 0.1 called `rollbacks`.
    """

    max_norm: float = 0.0
    in_a_row: int = 5
    rollbacks: int = 3
    detours: InitVar[int | None] = None

    def __post_init__(self, detours: int | None) -> None:
        if detours is not None:
            warnings.warn("Safeguard(detours=...) is rollbacks=... now", DeprecationWarning, stacklevel=3)
            object.__setattr__(self, "rollbacks", detours)
        limits.check("Safeguard max_norm", self.max_norm, 0.0, limits.LARGEST)
        limits.check("Safeguard in_a_row", self.in_a_row, 1)
        limits.check("Safeguard rollbacks", self.rollbacks, 0)


@dataclass(frozen=True)
class Run:
    """Everything that a training depends on.

    Args:
      data: the data set and its preparation.
      model: what is trained; its `event_shape` is taken from the data where it is left empty.
      objective: the loss; left out, it follows the model: ReconstructionError() for an Autoencoder, else ELBO().
      optimizer: how it is minimised.
      batch_size: examples per step.
      epochs: passes over the training data, at most.
      seed: of everything random.
      ema: decay of the moving average of the parameters that evaluation uses, 0 for none.
      patience: stop after so many epochs without a better validation bound, 0 for never.
      safeguard: what happens when numbers break.
    """

    data: Data = Data()
    model: Model = VAE()
    objective: Loss = None  # type: ignore[assignment]  # never None after __post_init__
    optimizer: AdamW = AdamW()
    batch_size: int = 128
    epochs: int = 100
    seed: int = 0
    ema: float = 0.0
    patience: int = 0
    safeguard: Safeguard = Safeguard()

    def __post_init__(self) -> None:
        if self.objective is None:
            default = ReconstructionError() if has_point_codes(self.model) else ELBO()
            object.__setattr__(self, "objective", default)
        limits.check("batch_size", self.batch_size, 1)
        limits.check("epochs", self.epochs, 1)
        limits.check("seed", self.seed, 0, 2**32 - 1)
        limits.check("ema", self.ema, -limits.LARGEST, limits.LARGEST)
        if not 0 <= self.ema < 1:
            raise InputError("ema", got=self.ema, expected="at least 0 and less than 1")
        limits.check("patience", self.patience, 0)
        objective = self.objective
        if has_point_codes(self.model) and isinstance(objective, RateNeeding) and objective.needs_rate:
            raise InputError(
                f"objective of an {type(self.model).__name__}",
                got=type(objective).__name__,
                expected="ReconstructionError(): its codes are points, which have no KL",
            )
