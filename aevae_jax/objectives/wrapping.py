"""What losses share that are made of another one: they are validated and refused as that one is."""

from __future__ import annotations

from aevae_jax.objectives.losses import ELBO, IWAE, ReconstructionError
from aevae_jax.types import RateNeeding, Validation

Inner = ReconstructionError | ELBO | IWAE
"""The losses that another one may be made of."""


class Wrapping:
    """A loss with a field `objective`, the one that it is made of."""

    objective: Inner

    @property
    def needs_rate(self) -> bool:
        """Whether the loss inside needs a rate."""
        return isinstance(self.objective, RateNeeding) and self.objective.needs_rate

    def validation(self) -> Validation:
        """Return that parameters are selected as by the loss inside."""
        return self.objective.validation()
