"""log p(x) by importance sampling from q(z|x): as many samples as one likes, in little memory, with warnings.

    log p(x) >= E log (1/K sum_k w_k),   w_k = p(x, z_k) / q(z_k|x),   z_k ~ q(z|x)

The bound rises with K (Burda, Grosse & Salakhutdinov 2016). The weights are met a chunk at a time; what is kept of them
is their running sums and their largest few, whose tail says whether the estimate can be trusted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from functools import lru_cache, partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from aevae_jax import conditions, keys, values
from aevae_jax.conditions import Conditioned
from aevae_jax.data import Prepared
from aevae_jax.data.datasets import Source, blocks, digest_of
from aevae_jax.evaluation.estimates import EvaluationProtocol, Result
from aevae_jax.objectives import bounds
from aevae_jax.training import devices, loops
from aevae_jax.types import Dequantising, InputError, LatentModel, Params, support_of

OnPart = Callable[[int, int], None]
"""Is told how many examples are done, and of how many."""

ROWS = 1024
"""Decoded codes at once, where the batch size and the chunk are left open: large products that stay in a cache."""

ROWS_ON_ACCELERATORS = 16 * ROWS
"""The same where each program that is begun costs as much as some thousand rows."""


class Estimate(NamedTuple):
    """log p(x) of every example, and how far to trust it. All `[N]`, float64."""

    nll: np.ndarray
    """-log (1/K sum_k w_k) in nats: on average an upper bound of -log p(x)."""
    sampling_error: np.ndarray
    """Standard error of `nll` in nats that comes from the K samples: sqrt(sum w^2 / (sum w)^2 - 1/K)."""
    effective_samples: np.ndarray
    """(sum w)^2 / sum w^2, between 1 and K. Kong 1992."""
    pareto_k: np.ndarray
    """Shape of the tail of the weights; above `trusted_pareto_k(K)` the estimate is not to be trusted. NaN for few."""
    num_samples: int
    """K."""

    @property
    def untrusted(self) -> np.ndarray:
        """Whose tail is too heavy, `[N]`, bool."""
        return self.pareto_k > trusted_pareto_k(self.num_samples)


def estimate(
    model: LatentModel,
    params: Params,
    x: Array | Source | Conditioned,
    key: Array,
    *,
    num_samples: int = 5000,
    batch_size: int = 0,
    chunk: int = 0,
    on_part: OnPart | None = None,
) -> Estimate:
    """Estimate the log likelihood of every example of `x`, in the order of `x`, by importance weights.

    Of `Conditioned` examples it is log p(x|c), at the condition of each.

    Args:
      model: any latent model whose posterior and likelihood have densities.
      params: its parameters.
      x: data as the model sees it, `[N, *event]`.
      key: sample k of example i uses key k of `fold_in(key, i)`: two calls, and two models, see the same noise.
      num_samples: K.
      batch_size: examples at once, 0 for as many as suit; the result does not depend on it, beyond rounding.
      chunk: samples of each at once, 0 for as many as suit; the same.
      on_part: is told of the progress.

    Raises:
      InputError: an autoencoder, a likelihood that is no density, data that it cannot score, or K < 1.
    """
    if num_samples < 1:
        raise InputError("number of importance samples", got=num_samples, expected="at least 1")
    check_scorable(model, params, x)
    count = len(x)
    chunk = min(chunk or 256, num_samples)
    rows = ROWS if jax.default_backend() == "cpu" else ROWS_ON_ACCELERATORS
    layout = devices.local()
    batch_size = min(batch_size or layout.count * max(1, rows // chunk), count)
    params = layout.replicate(params)
    body = _body(cast(Hashable, model), num_samples, chunk)
    starts = layout.replicate(jnp.arange(0, num_samples, chunk))
    prior = prior_of_all(model, params, x)

    def batch(start: int) -> _Sums:
        first = min(start, count - batch_size)  # the last batch begins earlier, so that all are one program
        rows = layout.divide(jax.tree.map(jnp.asarray, x[first : first + batch_size]))
        example_keys = layout.divide(keys.each(key, first + jnp.arange(batch_size)))
        context = (params, prior, rows, example_keys)
        sums, _ = loops.scan(body, layout.divide(_start(batch_size, num_samples)), context, starts)
        return cast(_Sums, jax.tree.map(lambda leaf: np.asarray(leaf, np.float64)[start - first :], sums))

    found = []
    for sums in loops.map_in_threads(batch, range(0, count, batch_size)):
        found.append(sums)
        if on_part is not None:
            on_part(min(len(found) * batch_size, count), count)
    sums = jax.tree.map(lambda *leaves: np.concatenate(leaves), *found)
    log_mean = sums.peak + np.log(sums.total / num_samples)
    share = sums.squares / sums.total**2
    return Estimate(
        nll=-log_mean,
        sampling_error=np.sqrt(np.maximum(share - 1 / num_samples, 0.0)),
        effective_samples=1 / share,
        pareto_k=pareto_shape(sums.largest),
        num_samples=num_samples,
    )


def check_scorable(model: LatentModel, params: Params, x: Array | Source | Conditioned) -> str:
    """Refuse what has no likelihood; return the base measure of what has one, as in `types.Measure`.

    Raises:
      InputError: a posterior without a density, a likelihood that is none, or data outside its support.
    """
    examples = conditions.examples(x)
    if examples.shape[0] == 0:
        raise InputError("evaluation data", got="0 examples", expected="at least 1")
    name, (codes, measure) = type(model).__name__, bounds.measures(model, params, x)
    if codes == "point":
        raise InputError(
            "likelihood",
            got=f"{name}, whose codes are points",
            expected="a VAE",
            hint="an autoencoder has a distortion and a squared error, and no density",
        )
    if measure == "profile":
        raise InputError(
            "likelihood",
            got=f"{name}, whose likelihood is fitted to what it scores and so no density",
            expected="a likelihood such as NormalSharedScale()",
        )
    support = support_of(model)
    if support is not None:
        for _, block in blocks(examples) if not isinstance(examples, jax.Array) else [(0, np.asarray(examples))]:
            support.check(block, "evaluation data")
    return measure


def result(
    model: LatentModel,
    params: Params,
    prepared: Prepared,
    key: Array,
    *,
    name: str,
    split: str,
    num_samples: int = 5000,
    on_part: OnPart | None = None,
) -> tuple[Result, Estimate]:
    """Return the negative log likelihood of a split with its protocol, to be compared with others of the same one.

    Args:
      model, params: of the model.
      prepared: its data set.
      key: the noise of example i is `fold_in(key, i)`.
      name: whose figure it is.
      split: "validation" or "test".
      num_samples, on_part: as in `estimate`.

    Raises:
      InputError: as in `estimate`, or no such split.
    """
    if split not in ("validation", "test"):
        raise InputError("split", got=repr(split), expected="'validation' or 'test'")
    x, rows = getattr(prepared, split).x, getattr(prepared, split).rows
    measure = check_scorable(model, params, rows)
    found = estimate(model, params, rows, key, num_samples=num_samples, on_part=on_part)
    told = conditions.condition_of(rows)
    given = "" if told is None else f" given the {' and '.join(sorted(conditions.parts(told)))}"
    counts = [column.name for column in prepared.format.columns if column.kind == "count"]  # which have a mass
    protocol = EvaluationProtocol(
        quantity=f"negative log likelihood{given}",
        estimator="importance sampling from q(z|x)",
        num_samples=num_samples,
        data=prepared.name,
        split=split,
        preparation=values.spell(prepared.preparation) + (f" with counts {counts}" if counts else ""),
        examples=x.shape[0],
        sha256=digest_of(x),
        measure=measure,
    )
    return Result(name, found.nll, protocol), found


def bits_per_dim(nll: np.ndarray, model: LatentModel, prepared: Prepared) -> np.ndarray | None:
    """Return nats per example as bits per dimension of integer levels; `None` where that is not a code length.

    nll / (D ln 2) where the likelihood gives levels a probability. Of dequantised data, whose density bounds it, log2
    of the number of levels is added: Theis, van den Oord & Bethge 2016, section 3.1.
    """
    size = math.prod(prepared.event_shape)
    support = support_of(model)
    if support is not None and support.levels is not None:
        return np.asarray(nll / (size * math.log(2)))
    preparation = prepared.preparation
    if isinstance(preparation, Dequantising) and preparation.dequantises:
        return np.asarray(nll / (size * math.log(2)) + math.log2(prepared.format.levels))
    return None


# ------------------------------------------------------------------------------------------------------- the weights


class _Sums(NamedTuple):
    """What is kept of the log weights of B examples."""

    peak: Array
    """The largest so far, `[B]`."""
    total: Array
    """Sum of w / exp(peak), `[B]`."""
    squares: Array
    """Sum of its square, `[B]`."""
    largest: Array
    """Log weights of the tail and of the one below it, in descending order, `[B, M + 1]`."""


def _start(batch_size: int, num_samples: int) -> _Sums:
    nothing = jnp.full((batch_size, tail_size(num_samples) + 1), -jnp.inf)
    return _Sums(jnp.full(batch_size, -jnp.inf), jnp.zeros(batch_size), jnp.zeros(batch_size), nothing)


def _add(sums: _Sums, log_w: Array) -> _Sums:
    """Add more log weights `[B, C]`; -inf for none."""
    peak = jnp.maximum(sums.peak, log_w.max(axis=1))
    safe = jnp.where(jnp.isfinite(peak), peak, 0.0)
    kept, w = jnp.exp(sums.peak - safe), jnp.exp(log_w - safe[:, None])
    largest = jax.lax.top_k(jnp.concatenate([sums.largest, log_w], axis=1), sums.largest.shape[1])[0]
    return _Sums(peak, sums.total * kept + w.sum(axis=1), sums.squares * kept**2 + (w**2).sum(axis=1), largest)


@lru_cache(maxsize=64)
def _body(model: Any, num_samples: int, chunk: int) -> loops.Body:
    def body(sums: _Sums, context: Any, start: Array) -> tuple[_Sums, tuple[()]]:
        params, prior, rows, example_keys = context
        index = start + jnp.arange(chunk)

        def weigh(row: Any, key: Array) -> Array:  # one example: [chunk]
            own, x = conditions.bound_to(model, jax.tree.map(lambda a: a[None], row))
            q = own.encode(params, x)  # a hundredth of the work of a chunk

            def one(key: Array) -> Array:
                return bounds.drawn_log_weight(own, params, x, q, key, prior=prior)[0]

            return jax.vmap(one)(keys.each(key, index))

        with jax.default_matmul_precision("highest"):  # accelerators would otherwise round products to fewer bits
            log_w = jax.vmap(weigh)(rows, example_keys)
        return _add(sums, jnp.where(index < num_samples, log_w, -jnp.inf)), ()

    return body


def prior_of_all(model: LatentModel, params: Params, rows: Any) -> Any:
    """Return p(z) for one example, the same for all of them; `None` where each has its own, at its condition."""
    return _prior(model, params) if conditions.condition_of(rows) is None else None


@partial(jax.jit, static_argnums=0)
def _prior(model: Any, params: Params) -> Any:
    with jax.default_matmul_precision("highest"):
        return model.prior(params, 1)


# ------------------------------------------------------------------------------------------------------------ the tail


def tail_size(num_samples: int) -> int:
    """Return M, how many of the largest of K weights the tail is fitted to: min(K/5, 3 sqrt K). Vehtari et al. 2024,
    section 2.4.
    """
    return min(num_samples // 5, math.ceil(3 * math.sqrt(num_samples)))


def trusted_pareto_k(num_samples: int) -> float:
    """Return the largest shape with which K samples suffice: min(1 - 1/log10 K, 0.7). Vehtari et al. 2024, section
    3.2.5.
    """
    return min(1 - 1 / math.log10(num_samples), 0.7) if num_samples > 1 else -math.inf


def pareto_shape(largest: np.ndarray) -> np.ndarray:
    """Return the shape k of a generalised Pareto distribution fitted to the largest weights, `[N, M + 1] -> [N]`.

    The fit of Zhang & Stephens 2009, with the weak prior of Vehtari et al. 2024 (appendix C) that draws k to 1/2. Fewer
    than five weights say nothing: NaN. Weights that are all equal have no tail: -inf.

    Args:
      largest: log weights in descending order, M = `tail_size(K)` of them; the last one is the threshold.
    """
    largest = np.asarray(largest, np.float64)
    size = largest.shape[1] - 1
    if size < 5:
        return np.full(len(largest), np.nan)
    w = np.exp(largest - largest[:, :1])
    y = (w[:, :-1] - w[:, -1:])[:, ::-1]  # exceedances, ascending
    flat = y[:, -1] <= 1e-4  # rounding of float32 log weights
    y = np.where(flat[:, None], 1.0, np.maximum(y, 1e-300))
    grid = 30 + int(math.sqrt(size))
    quartile = y[:, (size + 2) // 4 - 1]
    spread = 1 - np.sqrt(grid / (np.arange(1, grid + 1) - 0.5))
    theta = 1 / y[:, -1:] + spread / (3 * quartile[:, None])  # [N, grid], each less than 1 / max(y)
    shape = np.stack([np.log1p(-t[:, None] * y).mean(axis=1) for t in theta.T], axis=1)
    profile = size * (np.log(-theta / shape) - shape - 1)
    weight = np.exp(profile - profile.max(axis=1, keepdims=True))
    best = (weight * theta).sum(axis=1) / weight.sum(axis=1)
    k = np.log1p(-best[:, None] * y).mean(axis=1)
    k = (size * k + 10 * 0.5) / (size + 10)
    return np.where(flat, -np.inf, k)
