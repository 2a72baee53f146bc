"""What a training holds beside weights of its model: parameters of the loss, and statistics that no gradient trains.

Both are entries of the dict of parameters, under the two names below, and nobody else has to know of them: whoever
evaluates, samples or compresses hands on the whole dict.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import optax
from jax import Array

from aevae_jax import keys
from aevae_jax.types import InputError, LatentModel, Metrics, Objective, Parametrised, Params, TrainingPart

OBJECTIVE = "objective"
"""The parameters of an objective that is `types.Parametrised`, such as those of a discriminator."""

STATISTICS = "statistics"
"""What no gradient trains, such as a codebook of moving averages: an objective returns what is put in its place."""


class Outcome(NamedTuple):
    """What an objective makes of a batch."""

    loss: Array
    metrics: Metrics
    statistics: Params
    """Those after this batch; `None` where there are none, or they stay as they are."""


def initial(model: LatentModel, objective: Objective | None, key: Array) -> Params:
    """Return the parameters before the first step, from the root key of the run. Errors as of `with_own`."""
    return _strong(with_own(model.init(keys.stream(key, keys.Stream.INIT)), objective, model, key))


def with_own(params: Params, objective: Objective | None, model: LatentModel, key: Array) -> Params:
    """Return the parameters of a model with fresh ones of the objective, where it has some.

    Args:
      params: of the model.
      objective: what is trained by.
      model: what is trained.
      key: the root key of the run.

    Raises:
      InputError: the model's parameters are no dict that could hold them.
    """
    if not isinstance(objective, Parametrised):
        return params
    if not isinstance(params, Mapping) or OBJECTIVE in params:
        raise InputError(
            f"parameters of the {type(model).__name__}",
            got=f"those with an entry {OBJECTIVE!r}" if isinstance(params, Mapping) else type(params).__name__,
            expected=f"a dict without {OBJECTIVE!r}, the entry of {type(objective).__name__}",
        )
    own = objective.init(keys.stream(key, keys.Stream.OBJECTIVE), model)
    return {**params, OBJECTIVE: own}


def of_model(params: Params) -> Params:
    """Return the parameters that a model keeps when its training is over: without those of the objective."""
    if not isinstance(params, Mapping) or OBJECTIVE not in params:
        return params
    return {name: own for name, own in params.items() if name != OBJECTIVE}


def transformation(tx: optax.GradientTransformation, objective: Objective | None) -> optax.GradientTransformation:
    """Return `tx` for the parameters of the model, with the objective's optimizer for its own where it has some.

    Of an objective that trains a part of the model, all else stays as it is, to the bit.
    """
    part = objective.trains if isinstance(objective, TrainingPart) else None
    own: dict[str, Any] = {OBJECTIVE: objective.optimizer()} if isinstance(objective, Parametrised) else {}
    if part is None and not own:
        return tx

    def label(params: Params) -> dict[str, str]:
        kept = {name: "model" if part is None or name in part else "kept" for name in params}
        return {**kept, **{name: name for name in own if name in params}}

    return optax.partition({"model": tx, "kept": optax.set_to_zero(), **own}, label)


def averaged(average: Params, trained: Params, objective: Objective | None) -> Params:
    """Return a moving average of trained parameters, with all that the objective does not train as it is: an average
    of equal numbers is rounded.
    """
    if not isinstance(objective, TrainingPart):
        return average
    return {name: average[name] if name in objective.trains else own for name, own in trained.items()}


def split(params: Params) -> tuple[Params, Params]:
    """Return what gradients train, and the statistics, `None` where there are none."""
    if not isinstance(params, Mapping) or STATISTICS not in params:
        return params, None
    return {name: own for name, own in params.items() if name != STATISTICS}, params[STATISTICS]


def joined(trained: Params, statistics: Params) -> Params:
    """Return the whole of what `split` took apart."""
    return trained if statistics is None else {**trained, STATISTICS: statistics}


def outcome(returned: tuple[Any, ...], params: Params) -> Outcome:
    """Return what an objective made of a batch, whether it has returned statistics or not.

    Args:
      returned: by the objective.
      params: that it was given.

    Raises:
      InputError: the statistics it returns are not like those that it was given.
    """
    loss, metrics, *rest = returned
    if not rest:
        return Outcome(loss, metrics, None)
    [statistics], (_, before) = rest, split(params)
    ours, theirs = (jax.tree.map(lambda a: (a.shape, a.dtype.name), tree) for tree in (statistics, before))
    if ours != theirs:
        raise InputError(
            "statistics of the objective", got=ours, expected=f"arrays as in params[{STATISTICS!r}]: {theirs}"
        )
    return Outcome(loss, metrics, jax.lax.stop_gradient(statistics))


def _strong(tree: Any) -> Any:
    """Return the same arrays without weak types, which a step would not keep: the second epoch would be another
    program.
    """

    def strong(a: Any) -> Any:
        return jax.lax.convert_element_type(a, a.dtype) if getattr(a, "weak_type", False) else a

    return jax.tree.map(strong, tree)
