"""Whether p(z) of a model means anything: that of an autoencoder is nominal, unless something was done for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from aevae_jax.types import Params, has_point_codes


@runtime_checkable
class PriorMatching(Protocol):
    """An objective that says whether codes are to be distributed as p(z) is, whatever the rate."""

    @property
    def matches_prior(self) -> bool:
        """Whether they are."""
        ...

    @property
    def weight(self) -> Any:
        """How much that counts, a number or a function of the step."""
        ...


def has_nominal_prior(model: object, params: Params, objective: object) -> bool:
    """Return whether p(z) was neither trained nor fitted, nor codes made to follow it.

    Args:
      model: any model; only of one whose codes are points, the rate does not do that.
      params: its parameters; where there are some in `params["prior"]`, they are of a prior that was fitted.
      objective: what the model was trained by.
    """
    matched = isinstance(objective, PriorMatching) and objective.matches_prior
    return has_point_codes(model) and not matched and not (isinstance(params, Mapping) and params.get("prior"))
