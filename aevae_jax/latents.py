"""What a code holds: nats per dimension, active units, and where the rate goes.

    E KL(q(z|x) || p(z)) = I(x; z) + KL(q(z) || p(z))                   Hoffman & Johnson 2016
    KL(q(z) || p(z))     = TC(z)   + sum_d KL(q(z_d) || p(z_d))         Chen, Li, Grosse & Duvenaud 2018

q(z) = 1/N sum_i q(z|x_i) is the aggregate posterior of the N examples given, all of them: no minibatch weights. Each
term is a mean over one z_i ~ q(z|x_i) per example, so the identities hold for the estimates themselves. I(x; z) is the
information about *which of the N examples* it was, at most log N.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from aevae_jax import evaluation, loops, statistics
from aevae_jax.data.datasets import Source
from aevae_jax.distributions import Normal
from aevae_jax.types import InputError, LatentModel, Params

_LOG_2PI = 1.8378770664093453


class Latents(NamedTuple):
    """Of N examples; nats per example. Entries are `None` where the posterior or the prior does not factorise."""

    rate: float
    """E log q(z|x) - log p(z): the sum of the next two, and of the last three but one."""
    mutual_information: float
    marginal_kl: float
    """KL(q(z) || p(z)): how far the aggregate posterior is from the prior."""
    total_correlation: float
    """KL(q(z) || prod_d q(z_d))."""
    dimension_wise_kl: np.ndarray | None
    """KL(q(z_d) || p(z_d)), `[L]`; its sum and the total correlation are the marginal KL."""
    rate_per_dimension: np.ndarray | None
    """E KL(q(z_d|x) || p(z_d)) in closed form, `[L]`."""
    active: np.ndarray
    """Which dimensions react to the data, `[L]`: see `statistics.active_units`."""
    spread: np.ndarray
    """Variance of the posterior means over the data, `[L]`."""
    noise: np.ndarray
    """Mean posterior variance, `[L]`."""
    num_examples: int


def describe(model: LatentModel, params: Params, x: Array | Source, key: Array, *, block: int = 16) -> Latents:
    """The statistics of a model with a diagonal Gaussian posterior. Time grows as N^2: some thousands are enough.

    Args:
      model: any latent model whose `encode` gives a `Normal` over vectors.
      params: its parameters.
      x: data as the model sees it, `[N, *event]`, N >= 2.
      key: the noise of example i is `fold_in(key, i)`.
      block: codes that are scored at once.

    Raises:
      InputError: another posterior, or fewer than two examples.
    """
    count = x.shape[0]
    if count < 2:
        raise InputError("evaluation data", got=f"{count} examples", expected="at least 2")
    probe = jax.ShapeDtypeStruct((1, *x.shape[1:]), jnp.float32)
    if not isinstance(jax.eval_shape(model.encode, params, probe), Normal):
        raise InputError("latent statistics", got=type(model).__name__, expected="a diagonal Gaussian posterior q(z|x)")
    found = evaluation.per_example(_codes, model, params, x, key)
    loc, log_scale, z = (found[name].reshape(count, -1) for name in ("loc", "log_scale", "z"))
    size = min(block, count)
    starts = np.minimum(np.arange(0, count, size), count - size)  # the last block overlaps the one before
    body = _aggregate(size)
    _, (joint, marginal) = loops.scan(body, (), tuple(map(jnp.asarray, (loc, log_scale, z))), jnp.asarray(starts))
    rows = (starts[:, None] + np.arange(size)).reshape(-1)
    log_q, log_q_d = np.empty(count), np.empty((count, z.shape[1]))
    log_q[rows], log_q_d[rows] = np.asarray(joint).reshape(-1), np.asarray(marginal).reshape(len(rows), -1)
    own = _log_normal(z, loc, log_scale).sum(axis=1)
    prior = found["log_p_d"].reshape(count, -1) if "log_p_d" in found else None
    log_p = found["log_p"] if prior is None else prior.sum(axis=1, dtype=np.float64)
    kl = found.get("kl_terms")
    return Latents(
        rate=float((own - log_p).mean()),
        mutual_information=float((own - log_q).mean()),
        marginal_kl=float((log_q - log_p).mean()),
        total_correlation=float((log_q - log_q_d.sum(axis=1)).mean()),
        dimension_wise_kl=None if prior is None else (log_q_d - prior).mean(axis=0),
        rate_per_dimension=None if kl is None else kl.reshape(count, -1).mean(axis=0, dtype=np.float64),
        active=statistics.active_units(loc),
        spread=loc.var(axis=0, dtype=np.float64),
        noise=np.exp(2 * log_scale.astype(np.float64)).mean(axis=0),
        num_examples=count,
    )


def _codes(model: LatentModel, params: Params, x: Array, key: Array) -> dict[str, Array]:
    """q(z|x), a draw of it, and the prior there."""
    q: Any = model.encode(params, x)
    prior: Any = model.prior(params, x.shape[0])
    z = q.sample(key)
    terms = {"loc": q.loc, "log_scale": q.log_scale, "z": z, "log_p": prior.log_prob(z)}
    if isinstance(prior, Normal):
        residual = (z - prior.loc) * jnp.exp(-prior.log_scale)
        terms["log_p_d"] = -0.5 * (residual**2 + _LOG_2PI) - prior.log_scale
        terms["kl_terms"] = q.kl_terms(prior)
    return terms


def _log_normal(z: np.ndarray, loc: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
    """Per element, in float64."""
    z, loc, log_scale = (a.astype(np.float64) for a in (z, loc, log_scale))
    return -0.5 * (((z - loc) * np.exp(-log_scale)) ** 2 + _LOG_2PI) - log_scale


@lru_cache(maxsize=8)
def _aggregate(size: int) -> loops.Body:
    """log q(z_i) `[size]` and log q(z_i,d) `[size, L]` of a block of codes under the mixture of all posteriors."""

    def body(
        carry: tuple[()], context: tuple[Array, Array, Array], start: Array
    ) -> tuple[tuple[()], tuple[Array, Array]]:
        loc, log_scale, codes = context
        z = jax.lax.dynamic_slice_in_dim(codes, start, size)

        def one(z: Array) -> tuple[Array, Array]:
            terms = -0.5 * (((z[None] - loc) * jnp.exp(-log_scale)) ** 2 + _LOG_2PI) - log_scale  # [N, L]
            log_count = jnp.log(loc.shape[0])
            return jax.nn.logsumexp(terms.sum(axis=1)) - log_count, jax.nn.logsumexp(terms, axis=0) - log_count

        return carry, jax.vmap(one)(z)

    return body
