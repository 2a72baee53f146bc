"""The programs that a training compiles to; numbers in which members of a population differ are inputs of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax
from jax import Array

from aevae_jax import conditions, evaluation, training
from aevae_jax.runs import sweeps
from aevae_jax.training.devices import Layout
from aevae_jax.training.step import TrainState
from aevae_jax.types import Metric, Metrics, Params


@dataclass(frozen=True)
class Recipe:
    """What the programs of a training depend on."""

    model: Any
    objective: Any
    optimizer: Any
    steps: int
    ema: float
    max_norm: float
    preparation: Any
    format: Any
    fields: tuple[str, ...]
    """Paths of the numbers that the programs take as inputs, after the key."""
    layout: Layout


class Programs(NamedTuple):
    """The functions of a training that are compiled."""

    step: training.TrainStep
    init: Callable[..., TrainState]
    """(key, *numbers) -> the state before the first step."""
    init_at: Callable[..., TrainState]
    """(parameters, key, *numbers) -> that of a training that begins at these; entries that they lack are drawn."""
    metric: Metric
    """The metric of validation; where there are numbers, its `params` are `(params, *numbers)`."""


def programs_of(recipe: Recipe) -> Programs:
    """Return the programs of a recipe: the same ones for the same recipe, which is compiled once per process."""
    try:
        return _build(recipe)
    except TypeError:  # something given from Python that has no hash
        return _build.__wrapped__(recipe)


@lru_cache(maxsize=32)
def _build(recipe: Recipe) -> Programs:
    def prepare(raw: Any, key: Array) -> Any:
        return conditions.with_examples(raw, lambda x: recipe.preparation.train(x, key, recipe.format))

    def step_of(recipe: Recipe) -> training.TrainStep:
        return training.make_train_step(
            recipe.model,
            recipe.objective,
            recipe.optimizer.build(recipe.steps),
            prepare=prepare,
            ema_decay=recipe.ema,
            max_norm=recipe.max_norm or math.inf,
            layout=recipe.layout,
        )

    def init(key: Array, *numbers: Array) -> TrainState:
        placed = sweeps.place(recipe, recipe.fields, numbers)
        tx = placed.optimizer.build(recipe.steps)
        state = training.init_state(placed.model, tx, key, objective=placed.objective, ema=recipe.ema > 0)
        return recipe.layout.state(state)

    def init_at(params: Params, key: Array, *numbers: Array) -> TrainState:
        placed = sweeps.place(recipe, recipe.fields, numbers)
        shapes = jax.eval_shape(placed.model.init, key)
        if isinstance(shapes, Mapping) and shapes.keys() - params.keys():  # a new prior
            params = {**training.parameters.initial(placed.model, None, key), **params}
        params = jax.tree.map(lambda a, spec: a.astype(spec.dtype), params, shapes)
        params = training.parameters.with_own(params, placed.objective, placed.model, key)
        tx = placed.optimizer.build(recipe.steps)
        state = training.state_at(params, tx, objective=placed.objective, ema=recipe.ema > 0)
        return recipe.layout.state(state)

    metric = evaluation.validation_of(recipe.objective).metric
    if not recipe.fields:
        return Programs(step_of(recipe), jax.jit(init), jax.jit(init_at), metric)

    def step(state: TrainState, batch: Any, key: Array, *numbers: Array) -> tuple[TrainState, Metrics]:
        return step_of(sweeps.place(recipe, recipe.fields, numbers))(state, batch, key)

    def metric_at(model: Any, params: tuple[Params, ...], x: Array, key: Array) -> Metrics:
        own, *numbers = params
        placed = sweeps.place(recipe, recipe.fields, numbers).model
        return metric(conditions.rebound(placed, model), own, x, key)  # `model` has the numbers of the first member

    return Programs(step, jax.jit(init), jax.jit(init_at), metric_at)
