"""A run is a value: training is a pure function of it. See `fitting` for that function."""

from __future__ import annotations

from dataclasses import dataclass

from aevae_jax.data import Data
from aevae_jax.models import VAE, Autoencoder, Model
from aevae_jax.objectives import ELBO, IWAE, Objective, ReconstructionError
from aevae_jax.optimizers import Adam
from aevae_jax.types import InputError


@dataclass(frozen=True)
class Safeguard:
    """What happens when numbers break.

    A step whose loss or gradient is not finite, or whose gradient is too large, changes nothing and is counted. After
    several in a row the training goes back to before they began and goes round the batches that led there: those of the
    failing steps, and of as many before them, twice as many each time. After several such detours it stops and says
    which step, which examples and which term it was.

    Args:
      max_norm: the largest global norm of a gradient that is used, 0 for no limit.
      in_a_row: how many failing steps make a detour.
      detours: how many there may be.
    """

    max_norm: float = 0.0
    in_a_row: int = 5
    detours: int = 3

    def __post_init__(self) -> None:
        if not 0 <= self.max_norm < float("inf"):
            raise InputError("Safeguard max_norm", got=self.max_norm, expected="a number, at least 0")
        if self.in_a_row < 1:
            raise InputError("Safeguard in_a_row", got=self.in_a_row, expected="at least 1")
        if self.detours < 0:
            raise InputError("Safeguard detours", got=self.detours, expected="at least 0")


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
    objective: Objective = None  # type: ignore[assignment]  # never None after __post_init__
    optimizer: Adam = Adam()
    batch_size: int = 128
    epochs: int = 100
    seed: int = 0
    ema: float = 0.0
    patience: int = 0
    safeguard: Safeguard = Safeguard()

    def __post_init__(self) -> None:
        if self.objective is None:
            default = ReconstructionError() if isinstance(self.model, Autoencoder) else ELBO()
            object.__setattr__(self, "objective", default)
        for name in ("batch_size", "epochs"):
            if getattr(self, name) < 1:
                raise InputError(name, got=getattr(self, name), expected="at least 1")
        if not 0 <= self.seed < 2**32:
            raise InputError("seed", got=self.seed, expected="0 to 4294967295")
        if not 0 <= self.ema < 1:
            raise InputError("ema", got=self.ema, expected="at least 0 and less than 1")
        if self.patience < 0:
            raise InputError("patience", got=self.patience, expected="at least 0")
        if isinstance(self.model, Autoencoder) and isinstance(self.objective, ELBO | IWAE):
            raise InputError("objective of an Autoencoder", got=type(self.objective).__name__,
                             expected="ReconstructionError(): its codes are points, which have no KL")  # fmt: skip
