"""Metrics: exact means over a data set, and the one by which an objective selects parameters.

A metric is a function `(model, params, x, key) -> {name: [B]}`. It is always called with one example and that example's
own key, under `vmap`, so no number depends on the batch size or on what else is in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import lru_cache
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from aevae_jax import conditions, keys
from aevae_jax.conditions import Conditioned
from aevae_jax.data.datasets import Source, size_in_bytes
from aevae_jax.objectives import bounds, quantization
from aevae_jax.training import devices, loops
from aevae_jax.training.devices import Layout
from aevae_jax.types import InputError, LatentModel, Metric, Params, Validated, Validation

bound_terms = bounds.bound_terms
"""The metric of every model: see `bounds`."""

SHOWN: tuple[Metric, ...] = (bound_terms,)
"""What `aevae evaluate` measures of every model, beside the metric that its objective is validated by."""

UNITS = dict.fromkeys(("mse_at_mean", "mse_at_mean_from_corrupted"), "squared error per element")
UNITS |= dict.fromkeys(("perplexity", "codes_used"), "codes")
UNITS |= {"accuracy": "share"}
"""Units of the entries that are not in nats per example."""

WHOLE: Mapping[str, Callable[[np.ndarray], dict[str, float]]] = {"code_indices": quantization.usage}
"""Entries `[N, ...]` that say something of a data set as a whole, and what: figures that are no means over examples."""

DEFAULT = Validation(bound_terms, ("negative_elbo", "profile_loss", "distortion", "profile_distortion"))
"""By what an objective is validated that does not say: the ELBO at beta = 1; codes that are points, the distortion."""


def validation_of(objective: object) -> Validation:
    """Return what is measured while `objective` trains, and the entry of it that selects the parameters."""
    return objective.validation() if isinstance(objective, Validated) else DEFAULT


def minimised(objective: object, names: Iterable[str]) -> str:
    """Return the one of the metrics' `names` that parameters trained by `objective` are selected by.

    Raises:
      InputError: none of them is what the objective asks for.
    """
    names, wanted = list(names), validation_of(objective).minimised
    found = next((name for name in wanted if name in names), None)
    if found is None:
        raise InputError(
            "objective",
            got=f"{type(objective).__name__}, which selects by {' or '.join(wanted)}",
            expected=f"one that selects by what this model has: {', '.join(names)}",
            hint="codes that are points have no rate, and a profile likelihood has no bound",
        )
    return found


def shown_for(objective: object) -> tuple[Metric, ...]:
    """Return the metric that `objective` is validated by, and those of `SHOWN`: of equal names the later one counts."""
    return tuple(dict.fromkeys((validation_of(objective).metric, *SHOWN)))


def selection(objective: object, metrics: Mapping[str, float]) -> float:
    """Return what selection minimises, of the validation metrics of a training by `objective`."""
    return metrics[minimised(objective, metrics)]


def per_example(
    metric: Metric,
    model: LatentModel,
    params: Params,
    x: Array | Source | Conditioned,
    key: Array,
    *,
    batch_size: int = 0,
    layout: Layout | None = None,
    on_part: Callable[[int, int], None] | None = None,
) -> dict[str, np.ndarray]:
    """Return `metric` of every example, once, in the order of `x`: `{name: [N, ...]}`.

    Args:
      metric: a function with a stable identity; it is compiled once.
      model: any latent model.
      params: its parameters.
      x: data as the model sees it, `[N, *event]`; rows in files are read a window at a time. Of `Conditioned` rows the
        metric is given the model at the condition of its example.
      key: the noise of example i is `fold_in(key, i)`: two calls see the same, and so do two models.
      batch_size: how many examples to compute at once, 0 for as many as suit: at most 256, and fewer where one is much
        work, such as K samples of a bound. The result does not depend on it.
      layout: the devices to use; by default all of this process.
      on_part: is told now and then how many examples are done, of how many.

    Raises:
      InputError: `x` is empty or the batch size is negative.
    """
    examples, layout = conditions.examples(x), devices.local() if layout is None else layout
    count = examples.shape[0]
    if count == 0:
        raise InputError("evaluation data", got="0 examples", expected="at least 1")
    if batch_size < 0:
        raise InputError("batch size", got=batch_size, expected="at least 1, or 0 for as many as suit")
    loaded = isinstance(examples, jax.Array | np.ndarray) and not isinstance(examples, np.memmap)
    window = count if loaded else min(count, max(1, WINDOW_BYTES * count // size_in_bytes(cast(Source, examples))))
    data = conditions.shapes(x, window)
    if not batch_size:
        most = min(count, MOST_AT_ONCE)
        batch_size = _suitable(metric, model, params, data, key, most=most, devices=layout.count)
    batch_size = min(batch_size, count)
    if on_part is not None:
        window = min(window, batch_size * max(1, TOLD_AFTER // batch_size))
    if loaded and window == count:
        return _window(metric, model, params, x, key, first=0, batch_size=batch_size, layout=layout)
    size = max(batch_size, window)
    found = []
    for start in range(0, count, size):
        first = min(start, count - size)  # the last window begins earlier, so that all are one compiled program
        rows = x[first : first + size]
        values = _window(metric, model, params, rows, key, first=first, batch_size=batch_size, layout=layout)
        found.append({name: v[start - first :] for name, v in values.items()})
        if on_part is not None:
            on_part(first + size, count)
    return {name: np.concatenate([values[name] for values in found]) for name in found[0]}


WINDOW_BYTES = 2**25
"""How much of data that is not in memory is sent to the device at once: 32 MiB."""


TOLD_AFTER = 2_000
"""Examples, about, after which it is told how many are done."""

MOST_AT_ONCE = 256
"""Examples, where none is much work."""

LARGEST_ARRAY = 2**26
"""Bytes of the largest array that evaluation makes on one device where the batch size is left open: 64 MiB."""


def _suitable(
    metric: Metric, model: LatentModel, params: Params, data: Any, key: Array, *, most: int, devices: int
) -> int:
    """Return the batch size whose largest array is of a size that suits, and that is `most` at most; of more examples
    each array has as many more rows.

    Looked at is the program of the most examples: if these suit, it is the one to run, and is not traced again.
    """
    context = (params, data, key, jax.ShapeDtypeStruct((), jnp.int32))
    batch = jax.ShapeDtypeStruct((1, most), jnp.int32)
    size = loops.largest_array(_metric_body(metric, cast(Hashable, model)), (), context, batch)
    fitting = most * LARGEST_ARRAY * devices // max(size, 1)
    return most if fitting >= most else max(1, fitting // devices) * devices


def _window(
    metric: Metric,
    model: LatentModel,
    params: Params,
    x: Any,
    key: Array,
    *,
    first: int,
    batch_size: int,
    layout: Layout,
) -> dict[str, np.ndarray]:
    """Return `metric` of every row of `x`, of which the first is example `first` of the data set."""
    count = len(x)
    steps = -(-count // batch_size)
    index = (
        np.arange(steps * batch_size, dtype=np.int32) % count
    )  # the last batch is filled up from the start, and cut off below
    context = layout.replicate((params, jax.tree.map(jnp.asarray, x), key, np.int32(first)))
    batches = layout.divide(index.reshape(steps, batch_size), axis=1)
    _, values = loops.scan(_metric_body(metric, cast(Hashable, model)), (), context, batches)
    return {name: devices.on_host(v).reshape(-1, *v.shape[2:])[:count] for name, v in values.items()}


def means(values: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the mean over examples of each entry, summed in float64; of those in `WHOLE`, what they say of all."""
    found: dict[str, float] = {}
    for name, v in values.items():
        found |= WHOLE[name](v) if name in WHOLE else {name: float(np.mean(v, dtype=np.float64))}
    return found


def evaluate(
    model: LatentModel,
    params: Params,
    x: Array | Source | Conditioned,
    key: Array,
    *,
    batch_size: int = 0,
    metric: Metric = bound_terms,
    layout: Layout | None = None,
) -> dict[str, float]:
    """Return data set means of a metric; arguments as in `per_example`."""
    return means(per_example(metric, model, params, x, key, batch_size=batch_size, layout=layout))


@lru_cache(maxsize=64)
def _metric_body(metric: Metric, model: Any) -> loops.Body:
    def body(
        carry: tuple[()], context: tuple[Params, Any, Array, Array], index: Array
    ) -> tuple[tuple[()], dict[str, Array]]:
        params, data, key, first = context

        def one(row: Any, k: Array) -> dict[str, Array]:
            own, x = conditions.bound_to(model, jax.tree.map(lambda a: a[None], row))
            return jax.tree.map(lambda v: v[0], metric(own, params, x, k))

        rows = jax.tree.map(lambda a: jnp.asarray(a).at[index].get(mode="promise_in_bounds"), data)
        with jax.default_matmul_precision("highest"):  # accelerators would otherwise round products to fewer bits
            return carry, jax.vmap(one)(rows, keys.each(key, index + first))

    return body
