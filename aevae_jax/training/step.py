"""Training as pure functions of a state of arrays. Knows no VAE: it sees a model, a loss and an optax transformation.

Everything random or ordered is a function of the root key and `state.step`: the order of an epoch, the noise of a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from aevae_jax import conditions, keys
from aevae_jax.training import loops, parameters
from aevae_jax.training.devices import Layout
from aevae_jax.types import InputError, LatentModel, Metrics, Objective, Params


class TrainState(NamedTuple):
    """All that changes while training."""

    step: Array
    """Steps taken, int32."""
    params: Params
    opt_state: Any
    ema: Params
    """Exponential moving average of the parameters; `None` where none is kept."""

    @property
    def averaged(self) -> Params:
        """The parameters to evaluate with: the moving average where there is one."""
        return self.params if self.ema is None else self.ema


TrainStep = Callable[..., tuple[TrainState, Metrics]]
"""(state, batch, root key, *numbers) -> (state, metrics). Numbers are there for the members of a sweep."""

Prepare = Callable[[Any, Array], Any]
"""(raw batch, key) -> the batch that the model sees: an array `[B, *event]`, or `conditions.Conditioned` ones."""


def init_state(
    model: LatentModel,
    tx: optax.GradientTransformation,
    key: Array,
    *,
    objective: Objective | None = None,
    ema: bool = False,
) -> TrainState:
    """Return the state before the first step, from the root key of the run; `objective` where it has parameters."""
    return state_at(parameters.initial(model, objective, key), tx, objective=objective, ema=ema)


def state_at(
    params: Params, tx: optax.GradientTransformation, *, objective: Objective | None = None, ema: bool = False
) -> TrainState:
    """Return the state before the first step of a training that begins at given parameters."""
    average = jax.tree.map(jnp.copy, params) if ema else None  # a copy: both are donated
    trained, _ = parameters.split(params)
    opt_state = parameters.transformation(tx, objective).init(trained)
    return TrainState(jnp.zeros((), jnp.int32), params, opt_state, average)


def as_it_is(batch: Any, key: Array) -> Any:
    """Return the batch as it is: the preparation that does nothing."""
    del key
    return batch


class Differentiated(NamedTuple):
    """What one batch says of the parameters."""

    loss: Array
    metrics: Metrics
    statistics: Params
    """`params["statistics"]` after this batch; `None` where they stay as they are."""
    gradient: Params
    """The gradient of the loss, by all parameters but the statistics."""


def make_gradient(
    model: LatentModel, objective: Objective, *, prepare: Prepare = as_it_is
) -> Callable[[Params, Any, Array, Array], Differentiated]:
    """Return what a step follows, with its noise: `(params, raw batch, root key, step) -> Differentiated`."""

    def gradient(params: Params, batch: Any, key: Array, step: Array) -> Differentiated:
        trained, statistics = parameters.split(params)

        def loss(trained: Params) -> tuple[Array, tuple[Metrics, Params]]:
            seen = prepare(batch, keys.stream(key, keys.Stream.PREPARE, step))
            bound, x = conditions.bound_to(model, conditions.in_training(model, seen, key, step))
            noise, whole = keys.stream(key, keys.Stream.NOISE, step), parameters.joined(trained, statistics)
            value, metrics, after = parameters.outcome(objective(bound, whole, x, noise, step), whole)
            return value, (metrics, after)

        (value, (metrics, after)), gradient = jax.value_and_grad(loss, has_aux=True)(trained)
        return Differentiated(value, metrics, after, gradient)

    return gradient


def make_train_step(
    model: LatentModel,
    objective: Objective,
    tx: optax.GradientTransformation,
    *,
    prepare: Prepare = as_it_is,
    ema_decay: float = 0.0,
    max_norm: float = math.inf,
    layout: Layout = Layout(),
) -> TrainStep:
    """Return one jitted step of gradient descent on `objective`.

    Args:
      model: any `LatentModel`.
      objective: any `Objective`.
      tx: any optax transformation, for the parameters of the model; those of an objective that is
        `types.Parametrised` have its own. Statistics are seen by neither.
      prepare: turns a batch of raw data into what the model sees, inside the step, for example a fresh binarisation.
        Where that is `conditions.Conditioned`, the objective meets the model at the conditions of the batch.
      ema_decay: decay of the moving average of the parameters, 0 for none; it starts low, as (1 + t) / (10 + t).
      max_norm: a gradient of a larger global norm is not used.
      layout: the devices that the batch is divided among.

    Returns:
      `(state, batch, root key) -> (state, metrics)`. Noise comes from the root key and `state.step`. Metrics are the
      objective's, `loss` where it names none, `gradient_norm`, and `skipped`: 1 where loss or gradient was not finite
      or too large. Such a step leaves everything but `state.step` as it was.
    """

    differentiate, own = make_gradient(model, objective, prepare=prepare), parameters.transformation(tx, objective)

    def update(gradient: Params, after: Params, state: TrainState) -> tuple[Params, Any, Params]:
        trained, before = parameters.split(state.params)
        updates, opt_state = own.update(gradient, state.opt_state, trained)
        trained, statistics = optax.apply_updates(trained, updates), before if after is None else after
        params = parameters.joined(trained, statistics)
        if state.ema is None:
            return params, opt_state, None
        decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
        average = optax.incremental_update(trained, parameters.split(state.ema)[0], 1 - decay)
        average = parameters.averaged(average, trained, objective)
        return params, opt_state, parameters.joined(average, statistics)  # which may be averages themselves

    @jax.jit
    def train_step(state: TrainState, batch: Any, key: Array) -> tuple[TrainState, Metrics]:
        state, batch = layout.state(state), layout.batch(batch)
        found = differentiate(state.params, batch, key, state.step)
        norm = optax.tree.norm(found.gradient)
        sound = jnp.isfinite(found.loss) & jnp.isfinite(norm) & (norm <= max_norm)
        changed = loops.cond(sound, update, lambda *found: found[-1][1:], found.gradient, found.statistics, state)
        metrics = {"loss": found.loss, **found.metrics, "gradient_norm": norm, "skipped": 1.0 - sound}
        return layout.state(TrainState(state.step + 1, *changed)), layout.everywhere(metrics)

    return train_step


def steps_per_epoch(data: Any, batch_size: int) -> int:
    """Return how many whole batches `data`, a pytree of arrays `[N, ...]`, holds. What is left over sits out that
    epoch.
    """
    return _whole_batches(jax.tree.leaves(data)[0].shape[0], batch_size)


def _whole_batches(count: int, batch_size: int) -> int:
    if not 1 <= batch_size <= count:
        raise InputError(
            "batch size",
            got=batch_size,
            expected=f"1 to {count}, the number of training examples",
            hint=f"type --batch-size {min(count, max(1, batch_size))}",
        )
    return int(count // batch_size)


def train_epoch(
    train_step: TrainStep, state: TrainState, data: Any, key: Array, *, batch_size: int, steps: int | None = None
) -> tuple[TrainState, Metrics]:
    """Train to the end of an epoch over data that is resident on the device.

    For many seeds at once, give `state` and `key` a leading axis of seeds: each is trained as it would be alone.

    Args:
      train_step: from `make_train_step`; compiled once, whatever the number of epochs.
      state: at the start of an epoch, or inside one where `steps` says how far to go. Donated: do not use it again.
      data: a pytree of arrays `[N, ...]`, uint8 as it was loaded if `prepare` scales it.
      key: the root key, or one per seed `[S]`.
      batch_size: examples per step.
      steps: how many steps to take; those left must not be fewer. Default: a whole epoch.

    Returns:
      The new state, and metrics with one entry per step, `[T]` (`[T, S]` for seeds).
    """
    rows = batch_rows(key, state.step, jax.tree.leaves(data)[0].shape[0], batch_size=batch_size)
    chunk, steps = Chunk(data, rows), len(rows) if steps is None else steps
    metrics = empty_outputs(train_step, state, chunk, key, steps=len(rows))
    state, metrics = advance(train_step, state, chunk, key, metrics=metrics, start=0, stop=steps)
    if steps < len(rows):
        metrics = jax.tree.map(lambda m: jax.lax.slice_in_dim(m, 0, steps), metrics)
    return state, metrics


class Chunk(NamedTuple):
    """Batches on the device: step `first + i` sees `data[rows[i]]`."""

    data: Any
    """A pytree of arrays `[N, ...]`; `None` where the batches themselves are in `rows`."""
    rows: Any
    """`[T, batch size]`, or `[T, S, batch size]` for seeds: see `batch_rows`. Or the batches, `[T, batch size, ...]`:
    those of a stream, so that each device holds the part of every batch that it computes."""
    first: int = 0


def advance(
    train_step: TrainStep,
    state: TrainState,
    chunk: Chunk,
    key: Array,
    *numbers: Array,
    metrics: Metrics,
    start: int,
    stop: int,
) -> tuple[TrainState, Metrics]:
    """Take the steps `start` to `stop - 1` of `chunk`. Where a training is cut into such calls changes no bit of it.

    Args:
      train_step: from `make_train_step`; compiled once for all chunks of one shape.
      state: donated: do not use it again.
      chunk: where the batches of these steps are.
      key: the root key, or one per seed `[S]`.
      numbers: what else the step takes, `[S]` each.
      metrics: of the steps from 0 on, to be filled: see `empty_outputs`.
      start: the first step, counted as in the chunk.
      stop: the step to take no more.

    Returns:
      The new state, and `metrics` with those of these steps put in.
    """
    scan = loops.scan_members_between if key.ndim == 1 else loops.scan_between
    body, context = _body(train_step), (chunk.data, (key, *numbers))
    return scan(body, state, context, chunk.rows, metrics, start=start, stop=stop, first=chunk.first)


def empty_outputs(
    train_step: TrainStep, state: TrainState, chunk: Chunk, key: Array, *numbers: Array, steps: int
) -> Metrics:
    """Return zeros for the metrics of `steps` steps, `[steps]` each, or `[steps, S]`; only shapes are looked at."""
    empty = loops.empty_outputs_of_members if key.ndim == 1 else loops.empty_outputs
    found: Metrics = empty(_body(train_step), state, (chunk.data, (key, *numbers)), chunk.rows, steps)
    return found


def window_chunk(window: Any, key: Array, first: int = 0, *, layout: Layout = Layout()) -> Chunk:
    """Return batches that arrive from the host as a chunk: all of them used, in order.

    Args:
      window: a pytree of arrays `[T, batch size, ...]` (`[T, S, batch size, ...]` for seeds), raw as in resident data;
        of several processes, what this one has of each batch.
      key: the root key, or one per seed `[S]`.
      first: the step of the first batch.
      layout: the devices that each batch is divided among.
    """
    if layout.count > 1:
        return Chunk(None, layout.shared(window, axis=1), first)
    shape = jax.tree.leaves(window)[0].shape[: key.ndim + 2]
    flat = jax.tree.map(lambda a: a.reshape(-1, *a.shape[key.ndim + 2 :]), window)
    data, rows = jax.device_put((flat, np.arange(math.prod(shape), dtype=np.int32).reshape(shape)))
    return Chunk(data, rows, first)


def batch_rows(key: Array, step: Array, count: int, *, batch_size: int, steps: int | None = None) -> Array:
    """Return which examples the steps from `step` on see: `[T, batch_size]`, or `[T, S, batch_size]`.

    A function of the root key and the step alone: the same for data that is resident and data that is streamed.

    Args:
      key: the root key, or one per seed `[S]`.
      step: `state.step`.
      count: of the training examples.
      batch_size: examples per step.
      steps: how many steps, not more than are left of the epoch. Default: as many as the epoch has; those after its
        end are its first ones.
    """
    per_epoch = _whole_batches(count, batch_size)
    order = _order_of_seeds if key.ndim == 1 else _order
    rows: Array = order(key, step, count, batch_size, per_epoch if steps is None else steps)
    return rows


def epoch_order(key: Array, epoch: int | Array, count: int) -> Array:
    """Return the order in which an epoch visits `count` examples: a function of the root key and the epoch alone."""
    return jax.random.permutation(keys.stream(key, keys.Stream.ORDER, epoch), count)


@partial(jax.jit, static_argnums=(2, 3, 4))
def _order(key: Array, step: Array, count: int, batch_size: int, steps: int) -> Array:
    """Return indices `[steps, batch_size]` of the batches from `step` on, within its epoch."""
    per_epoch = count // batch_size
    rows = epoch_order(key, step // per_epoch, count)[: per_epoch * batch_size].reshape(per_epoch, batch_size)
    return jnp.roll(rows, -(step % per_epoch), axis=0)[:steps]


@partial(jax.jit, static_argnums=(2, 3, 4))
def _order_of_seeds(key: Array, step: Array, count: int, batch_size: int, steps: int) -> Array:
    """Return what `_order` does, one per seed: `[steps, S, batch_size]`."""
    return jax.vmap(lambda k, s: _order(k, s, count, batch_size, steps), out_axes=1)(key, step)


@lru_cache(maxsize=64)
def _body(train_step: TrainStep) -> loops.Body:
    """Return the loop's body; cached, so that its identity, and with it the compiled loop, outlives an epoch."""

    def body(state: TrainState, context: tuple[Any, Any], index: Array) -> tuple[TrainState, Metrics]:
        data, own = context
        batch = index if data is None else jax.tree.map(lambda a: a.at[index].get(mode="promise_in_bounds"), data)
        return train_step(state, batch, *own)

    return body
