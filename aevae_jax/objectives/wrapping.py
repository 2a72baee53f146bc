"""What losses share that are made of another one: they are validated, weighted and refused as that one is."""

from __future__ import annotations

from typing import Any

from aevae_jax.objectives.losses import ELBO, IWAE, ReconstructionError
from aevae_jax.types import RateNeeding, RateWeighted, Validation

Inner = ReconstructionError | ELBO | IWAE
"""The losses that another one may be made of."""


class Wrapping:
    """A loss with a field `objective`, the one that it is made of."""

    objective: Inner

    @property
    def needs_rate(self) -> bool:
        """Whether the loss inside needs a rate."""
        return isinstance(self.objective, RateNeeding) and self.objective.needs_rate

    @property
    def beta(self) -> Any:
        """The weight of the rate; an `AttributeError`, and so none, where the loss inside has none."""
        if not isinstance(self.objective, RateWeighted):
            raise AttributeError(f"{type(self.objective).__name__} has no rate")
        return self.objective.beta

    def validation(self) -> Validation:
        """Return that parameters are selected as by the loss inside."""
        return self.objective.validation()
