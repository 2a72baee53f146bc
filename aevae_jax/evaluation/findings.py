"""What is wrong with a trained model: the numbers that show it, and the run that is to be trained in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple, Protocol

from aevae_jax import objectives
from aevae_jax.types import InputError, LatentModel, Params, RateWeighted


class Trained(Protocol):
    """A trained model with its history; `runs.Fitted` is one."""

    @property
    def run(self) -> Any:
        """What it was trained by, a dataclass: at least `model`, `objective`, `optimizer`, `epochs` and `patience`."""

    @property
    def model(self) -> LatentModel:
        """The model, fitted to the shape of the data."""

    @property
    def params(self) -> Params:
        """Its parameters."""

    @property
    def history(self) -> list[dict[str, Any]]:
        """One entry per epoch: epoch, step, train and validation metrics."""


class Finding(NamedTuple):
    """One thing that is wrong."""

    fault: str
    evidence: str
    """The numbers that show it."""
    remedy: str
    """What to do about it, in words."""
    changes: Mapping[str, Any]
    """The same as fields of the run that is to be trained in its place; none where they cannot be told."""


def of_model(fitted: Trained, **changed: Any) -> dict[str, Any]:
    """Return the change of some fields of the model; none where it is not one that takes them."""
    model: Any = fitted.run.model
    try:
        return {"model": replace(model, **changed)}
    except (TypeError, InputError):
        return {}


def beta(fitted: Trained) -> float:
    """Return the weight of the rate at the last step; 1 where the loss has none."""
    objective = fitted.run.objective
    weight: Any = objective.beta if isinstance(objective, RateWeighted) else 1.0
    step: Any = fitted.history[-1]["step"] if fitted.history else 0
    return float(objectives.weight_at(weight, step))


def improved(run: Any, found: Sequence[Finding]) -> Any:
    """Return the run with the changes of all findings; where two change the same, the first one's counts."""
    model: Any = run.model
    changes: dict[str, Any] = {}
    for finding in reversed(found):
        changes |= finding.changes
        new = finding.changes.get("model", run.model)
        if type(new) is not type(run.model):
            model = new
        elif type(new) is type(model):
            differing = {each.name: getattr(new, each.name) for each in fields(new)}
            model = replace(model, **{n: v for n, v in differing.items() if v != getattr(run.model, n)})
    return replace(run, **{**changes, "model": model})
