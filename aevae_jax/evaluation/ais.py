"""log p(x) by annealed importance sampling, without the encoder: a second lower bound, and an upper one.

    f_t(z) = p(z) p(x|z)^b_t,   b_0 = 0, ..., b_T = 1
    log w = sum_t (b_t - b_{t-1}) log p(x|z_{t-1}),   z_t from z_{t-1} by Hamiltonian moves that leave f_t as it is

Forward from z ~ p(z), the mean of w is p(x), so log mean w is on average a lower bound of log p(x) (Neal 2001).
Backward from an exact draw of p(z|x), which is at hand where x itself was drawn from the model, the mean of 1/w is
1/p(x), and -log mean 1/w is an upper bound (Grosse, Ghahramani & Adams 2015). On such data the gap is known.

Step sizes are tuned in a pilot with noise of its own and then held fixed: moves that adapt to the chain they move would
not leave f_t as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache, partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from aevae_jax import conditions, keys
from aevae_jax.conditions import Conditioned
from aevae_jax.evaluation import importance
from aevae_jax.objectives import bounds
from aevae_jax.training import loops
from aevae_jax.types import InputError, Latent, LatentModel, Params


class Schedule(NamedTuple):
    """Temperatures with the step size of the moves at each."""

    betas: np.ndarray
    """b_0 = 0 to b_T = 1, `[T + 1]`."""
    step_sizes: np.ndarray
    """Step sizes of the moves that leave f_t as it is, t = 1 .. T, `[T]`."""
    leapfrogs: int
    """Leapfrog steps per move."""
    acceptance: float
    """Mean acceptance rate in the pilot."""


class Annealed(NamedTuple):
    """A bound of log p(x) for every example."""

    log_likelihood: np.ndarray
    """Nats, `[N]`: a lower bound on average forward, an upper one backward."""
    effective_chains: np.ndarray
    """(sum w)^2 / sum w^2 over the chains, `[N]`."""
    acceptance: float
    """Mean acceptance rate of the moves."""


class Bracket(NamedTuple):
    """Data drawn from the model, and both bounds of its log likelihood."""

    x: np.ndarray
    lower: Annealed
    upper: Annealed


def sigmoid_betas(num: int, sharpness: float = 4.0) -> np.ndarray:
    """Return T + 1 temperatures, close together at both ends. Grosse et al. 2015, section 6; Wu et al. 2017."""
    if num < 1:
        raise InputError("number of temperatures", got=num, expected="at least 1")
    t = 1 / (1 + np.exp(-np.linspace(-sharpness, sharpness, num + 1)))
    return (t - t[0]) / (t[-1] - t[0])


def tune(
    model: LatentModel,
    params: Params,
    x: Array | Conditioned,
    key: Array,
    *,
    num_temperatures: int = 1000,
    leapfrogs: int = 10,
    target: float = 0.65,
) -> Schedule:
    """Return a schedule whose step sizes were tuned on a pilot: one chain on each of some examples.

    Args:
      model: any latent model whose codes are arrays of floats, or pytrees of them.
      params: its parameters.
      x: examples for the pilot, `[N, *event]` or `Conditioned`; some tens are enough.
      key: noise of the pilot; use another for the estimates.
      num_temperatures: T.
      leapfrogs: per move.
      target: the acceptance rate that the step size is steered to. Neal 2011, section 5.4.4.3.
    """
    _check_movable(model, params, x)
    betas = sigmoid_betas(num_temperatures)
    body = _body(cast(Hashable, model), leapfrogs, 1, target)
    example_keys = keys.each(key, jnp.arange(len(x)))
    with jax.default_matmul_precision("highest"):
        context = (params, importance.prior_of_all(model, params, x), jax.tree.map(jnp.asarray, x), example_keys)
        start = _from_prior(cast(Hashable, model), params, conditions.condition_of(x), example_keys, 1)
        _, (step_sizes, acceptance) = loops.scan(body, start, context, _moves(betas, np.zeros(num_temperatures)))
    return Schedule(betas, np.asarray(step_sizes, np.float64), leapfrogs, float(acceptance.mean()))


def lower_bound(
    model: LatentModel, params: Params, x: Array | Conditioned, key: Array, schedule: Schedule, *, num_chains: int = 16
) -> Annealed:
    """Return annealed importance sampling from the prior to the posterior: on average a lower bound of log p(x).

    Args:
      model, params: as in `tune`.
      x: data as the model sees it, `[N, *event]`, or `Conditioned`: then it bounds log p(x|c); all is moved at once.
      key: the noise of example i is `fold_in(key, i)`.
      schedule: from `tune`.
      num_chains: per example; the bound rises with their number.
    """
    _check_movable(model, params, x)
    _check_chains(num_chains)
    with jax.default_matmul_precision("highest"):
        example_keys = keys.each(key, jnp.arange(len(x)))
        start = _from_prior(cast(Hashable, model), params, conditions.condition_of(x), example_keys, num_chains)
        return _run(model, params, x, key, schedule, start=start, sign=1)


def upper_bound(
    model: LatentModel,
    params: Params,
    x: Array | Conditioned,
    key: Array,
    schedule: Schedule,
    *,
    z: Latent,
    num_chains: int = 16,
) -> Annealed:
    """Return the same chain backward from exact posterior draws: on average an upper bound of log p(x).

    Args:
      model, params, key, schedule, num_chains: as in `lower_bound`.
      x: data that was drawn from p(x|z), `[N, *event]`; with the conditions that it was drawn at, `Conditioned`.
      z: the codes that it was drawn from, `[N, *latent]`. With any others this is no bound.
    """
    _check_movable(model, params, x)
    _check_chains(num_chains)
    flat = jax.vmap(lambda z: ravel_pytree(z)[0])(z)
    chains = jnp.broadcast_to(flat[:, None], (flat.shape[0], num_chains, flat.shape[1]))
    start = _State(jnp.array(chains), jnp.zeros(chains.shape[:2]), jnp.zeros(()))
    with jax.default_matmul_precision("highest"):
        return _run(model, params, x, key, schedule, start=start, sign=-1)


def bracket(
    model: LatentModel,
    params: Params,
    key: Array,
    *,
    num: int = 100,
    num_temperatures: int = 1000,
    leapfrogs: int = 10,
    num_chains: int = 16,
    condition: Any = None,
) -> Bracket:
    """Return both bounds on `num` examples drawn from the model: how far annealing is from log p(x) there.

    Bidirectional Monte Carlo: Grosse, Ghahramani & Adams 2015. A conditional model draws them at `condition`, which is
    of as many examples.
    """
    if num < 1:
        raise InputError("number of examples", got=num, expected="at least 1")
    key_z, key_x, key_pilot, key_lower, key_upper = jax.random.split(key, 5)
    z, drawn = _simulate(cast(Hashable, model), params, condition, (key_z, key_x), num)
    x = drawn if condition is None else Conditioned(drawn, condition)
    schedule = tune(model, params, x, key_pilot, num_temperatures=num_temperatures, leapfrogs=leapfrogs)
    lower = lower_bound(model, params, x, key_lower, schedule, num_chains=num_chains)
    upper = upper_bound(model, params, x, key_upper, schedule, z=z, num_chains=num_chains)
    return Bracket(np.asarray(drawn), lower, upper)


# ---------------------------------------------------------------------------------------------------------- the chain


class _State(NamedTuple):
    """M chains for each of N examples."""

    z: Array
    """Flat codes, `[N, M, D]`."""
    log_w: Array
    """`[N, M]`."""
    step_size: Array
    """Step size of the next move where it is being tuned, `[]`."""


class _Move(NamedTuple):
    """From one temperature to the next; with a leading axis, all of them."""

    index: Any
    change: Any
    """Change of the temperature, for which the chain is weighed."""
    stay: Any
    """The temperature whose f the Hamiltonian move leaves as it is."""
    step_size: Any


def _moves(betas: np.ndarray, step_sizes: np.ndarray, sign: int = 1) -> _Move:
    """Return forward (`sign` 1) or backward (-1) through all temperatures; t and its step size stay together."""
    return _Move(
        jnp.arange(len(betas) - 1),
        *(jnp.asarray(v[::sign], jnp.float32) for v in (sign * np.diff(betas), betas[1:], step_sizes)),
    )


def _run(
    model: LatentModel, params: Params, x: Any, key: Array, schedule: Schedule, *, start: _State, sign: int
) -> Annealed:
    body = _body(cast(Hashable, model), schedule.leapfrogs, sign, 0.0)
    prior, example_keys = importance.prior_of_all(model, params, x), keys.each(key, jnp.arange(len(x)))
    context = (params, prior, jax.tree.map(jnp.asarray, x), example_keys)
    moves = _moves(schedule.betas, schedule.step_sizes, sign)
    state, (_, acceptance) = loops.scan(body, start, context, moves)
    log_w = np.asarray(state.log_w, np.float64)
    peak = log_w.max(axis=1, keepdims=True)
    w = np.exp(log_w - peak)
    log_mean = peak[:, 0] + np.log(w.mean(axis=1))
    return Annealed(sign * log_mean, w.sum(axis=1) ** 2 / (w**2).sum(axis=1), float(acceptance.mean()))


@lru_cache(maxsize=64)
def _body(model: Any, leapfrogs: int, sign: int, target: float) -> loops.Body:
    """Return one temperature: weigh, then move; backward the other way round. With a `target`, the step size is
    tuned.
    """

    def body(state: _State, context: Any, move: _Move) -> tuple[_State, tuple[Array, Array]]:
        params, prior, rows, example_keys = context
        step_size = state.step_size if target else move.step_size

        def moved(log_f: Callable[[Array], Array], z: Array, key: Array) -> tuple[Array, Array]:
            key_momentum, key_accept = jax.random.split(key)
            momentum = jax.random.normal(key_momentum, z.shape)
            value, gradient = jax.value_and_grad(log_f)(z)
            end, p, new = z, momentum, value
            for _ in range(leapfrogs):
                p = p + 0.5 * step_size * gradient
                end = end + step_size * p
                new, gradient = jax.value_and_grad(log_f)(end)
                p = p + 0.5 * step_size * gradient
            change = new - value + 0.5 * ((momentum**2).sum() - (p**2).sum())
            probability = jnp.where(jnp.isfinite(change), jnp.exp(jnp.minimum(change, 0.0)), 0.0)
            accepted = jax.random.uniform(key_accept) < probability
            return jnp.where(accepted, end, z), probability

        def chains(z: Array, log_w: Array, row: Any, key: Array) -> tuple[Array, Array, Array]:
            """Return those of one example: `[M, D]`, `[M]`."""
            own, x = conditions.bound_to(model, jax.tree.map(lambda a: a[None], row))
            p: Any = own.prior(params, 1) if prior is None else prior
            like = jax.eval_shape(p.sample, jax.random.key(0))
            unravel = ravel_pytree(jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), like))[1]

            def log_likelihood(z: Array) -> Array:
                return own.decode(params, unravel(z)).log_prob(x)[0]

            def log_f(z: Array) -> Array:
                return bounds.log_density(p, unravel(z), "p(z) of annealing")[0] + move.stay * log_likelihood(z)

            chain_keys = keys.many(jax.random.fold_in(key, move.index), z.shape[0])
            if sign > 0:
                log_w = log_w + move.change * jax.vmap(log_likelihood)(z)
            z, probability = jax.vmap(partial(moved, log_f))(z, chain_keys)
            if sign < 0:
                log_w = log_w + move.change * jax.vmap(log_likelihood)(z)
            return z, log_w, probability

        z, log_w, probability = jax.vmap(chains)(state.z, state.log_w, rows, example_keys)
        acceptance = probability.mean()
        tuned = state.step_size * jnp.exp(0.3 * (acceptance - target)) if target else state.step_size
        return _State(z, log_w, tuned), (step_size, acceptance)

    return body


@partial(jax.jit, static_argnums=(0, 4))
def _from_prior(model: Any, params: Params, condition: Any, example_keys: Array, num_chains: int) -> _State:
    """Return chains at their start; their keys are apart from those of the moves, which begin at 0."""

    def of_one(condition: Any, key: Array) -> Array:
        prior = conditions.given(model, jax.tree.map(lambda a: a[None], condition)).prior(params, 1)
        return jax.vmap(lambda key: ravel_pytree(prior.sample(key))[0])(
            keys.many(jax.random.fold_in(key, _START), num_chains)
        )

    z = jax.vmap(of_one)(condition, example_keys)
    return _State(z, jnp.zeros(z.shape[:2]), jnp.asarray(0.3))


@partial(jax.jit, static_argnums=(0, 4))
def _simulate(model: Any, params: Params, condition: Any, own_keys: tuple[Array, Array], num: int) -> tuple[Any, Array]:
    (key_z, key_x), own = own_keys, conditions.given(model, condition)
    z = own.prior(params, num).sample(key_z)
    return z, own.decode(params, z).sample(key_x)


def _check_movable(model: LatentModel, params: Params, x: Array | Conditioned) -> None:
    """Refuse codes that no gradient can move, and what has no likelihood."""
    importance.check_scorable(model, params, x)
    if bounds.measures(model, params, x)[0] == "mass":
        raise InputError(
            "annealing",
            got=f"{type(model).__name__}, whose codes are discrete",
            expected="codes that can be moved by a gradient",
            hint="the bound of discrete codes is that of importance.estimate",
        )


def _check_chains(num_chains: int) -> None:
    if num_chains < 1:
        raise InputError("number of chains", got=num_chains, expected="at least 1")


_START = 2**31 - 1
