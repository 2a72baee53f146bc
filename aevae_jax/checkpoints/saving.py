"""When checkpoints are written and which are kept, as a value; and what may be wrong with one."""

from __future__ import annotations

from dataclasses import dataclass

from aevae_jax import limits
from aevae_jax.types import InputError


class DamageError(InputError):
    """A checkpoint whose bytes are not those that were written."""


class OtherRunError(InputError):
    """A checkpoint of another run."""


class NonFiniteError(InputError):
    """What was to be saved holds NaN or infinity, and no checkpoint may."""


@dataclass(frozen=True)
class Saving:
    """When checkpoints are written, and which of them are kept.

    Attributes:
      seconds: one is written when so many have passed since the last; at most that much is lost in a crash. 0: at
        every opportunity.
      last: how many of the newest to keep, at least 1.
      best: how many of those with the best validation bound to keep, 0 for none.
      every: keep one every so many epochs for good, 0 for none.
      steps: write one every so many steps as well, 0 for none.
    """

    seconds: float = 60.0
    last: int = 2
    best: int = 1
    every: int = 0
    steps: int = 0

    def __post_init__(self) -> None:
        limits.check("Saving seconds", self.seconds, 0.0, limits.LARGEST)
        for name, least in (("last", 1), ("best", 0), ("every", 0), ("steps", 0)):
            limits.check(f"Saving {name}", getattr(self, name), least)
