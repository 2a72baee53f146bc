"""A run is a value: training is a pure function of it. See `fitting` for that function."""

from __future__ import annotations

import typing
import warnings
from dataclasses import InitVar, dataclass, replace
from typing import Any

from aevae_jax import limits, values
from aevae_jax.data import Data
from aevae_jax.discrete import Preferring
from aevae_jax.models import VAE, Model
from aevae_jax.objectives.families import Loss
from aevae_jax.objectives.losses import ELBO, ReconstructionError
from aevae_jax.training.optimizers import AdamW
from aevae_jax.types import InputError, RateNeeding, Shaped, SizeNeeding, has_point_codes, left_open


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
      model: what is trained; its `event_shape` is taken from the data where it is left empty, and so are its likelihood
        and prior where they are left out.
      objective: the loss; left out, it follows the model: ReconstructionError() for an Autoencoder, VQ() for a VQVAE,
        GumbelSoftmax() for a CategoricalVAE, SemiSupervised() for a SemiSupervisedVAE, else ELBO().
      optimizer: how it is minimised.
      batch_size: examples per step; left at 0, what suits their number: 128, and fewer of fewer than 1,024.
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
    batch_size: int = 0
    epochs: int = 100
    seed: int = 0
    ema: float = 0.0
    patience: int = 0
    safeguard: Safeguard = Safeguard()

    def __post_init__(self) -> None:
        if self.objective is None:
            default = usual_objective(self.model)
            object.__setattr__(self, "objective", default)
        limits.check("batch_size", self.batch_size, 0)
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


def unsized(objective: Any) -> Any:
    """Return an objective that takes the number of examples from the data anew, where it needs to know it."""
    return replace(objective, num_examples=0) if isinstance(objective, SizeNeeding) else objective  # type: ignore[type-var]


def usual_objective(model: Any) -> Any:
    """Return what a model is trained by where nobody says."""
    if isinstance(model, Preferring):
        return model.usual_objective()
    return ReconstructionError() if has_point_codes(model) else ELBO()


def read(tree: dict[str, Any], where: str, *, recorded: bool = True) -> Run:
    """Return the run that a JSON tree describes.

    A record leaves nothing open: where it does not name a likelihood, a prior or a batch size, those are meant that
    were the defaults when it was written.

    Args:
      tree: of the run.
      where: the file it came from, for messages.
      recorded: whether it is that of a record, and no value that somebody wrote.

    Raises:
      InputError: a field or type that no run can have.
    """
    run: Run = values.from_tree(Run, tree, where)
    if recorded:
        run = run if "batch_size" in tree else replace(run, batch_size=128)
        limits.check(f"{where} batch_size", run.batch_size, 1)
    return replace(run, model=as_recorded(run.model, {}, where))


def as_recorded(model: Any, tree: dict[str, Any], where: str) -> Any:
    """Return a model with what a recorded one has in place of what it leaves open: likelihood, prior, event shape.

    Args:
      model: any model.
      tree: the JSON tree of the recorded one, which may be of a class that only Python knows.
      where: the file it came from, for messages.

    Raises:
      InputError: these are objects from Python, which cannot be built.
    """
    fields = tree.get("fields", tree)
    hints = typing.get_type_hints(type(model)) if left_open(model) else {}
    found = {
        name: values.from_tree(hints[name], fields[name], where) if name in fields else value.without_data
        for name, value in left_open(model).items()
    }
    if isinstance(model, Shaped) and not model.event_shape and "event_shape" in fields:
        found["event_shape"] = values.from_tree(tuple[int, ...], fields["event_shape"], where)
    return replace(model, **found) if found else model
