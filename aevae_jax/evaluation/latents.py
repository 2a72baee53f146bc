"""What a code holds: nats per dimension, active units, and where the rate goes.

    E KL(q(z|x) || p(z)) = I(x; z) + KL(q(z) || p(z))                   Hoffman & Johnson 2016
    KL(q(z) || p(z))     = TC(z)   + sum_d KL(q(z_d) || p(z_d))         Chen, Li, Grosse & Duvenaud 2018

q(z) = 1/N sum_i q(z|x_i) is the aggregate posterior of the N examples given, all of them: no minibatch weights. Each
term is a mean over one z_i ~ q(z|x_i) per example, so the identities hold for the estimates themselves. I(x; z) is the
information about *which of the N examples* it was, at most log N.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache, partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from aevae_jax import conditions, threads
from aevae_jax.conditions import Conditioned
from aevae_jax.data.datasets import Source
from aevae_jax.discrete import Indexed
from aevae_jax.evaluation import metrics, statistics
from aevae_jax.objectives import bounds
from aevae_jax.training import loops
from aevae_jax.types import DrawnWithDensity, Factorised, InputError, LatentModel, Params, Scaled, measure_of


class Latents(NamedTuple):
    """Statistics of the codes of N examples, in nats. What needs a factorised q(z|x) or p(z) is `None` without it."""

    rate: float
    """E log q(z|x) - log p(z): the sum of the next two, and of the last three but one."""
    mutual_information: float
    marginal_kl: float
    """KL(q(z) || p(z)): how far the aggregate posterior is from the prior."""
    total_correlation: float | None
    """KL(q(z) || prod_d q(z_d))."""
    dimension_wise_kl: np.ndarray | None
    """KL(q(z_d) || p(z_d)), `[L]`; its sum and the total correlation are the marginal KL."""
    rate_per_dimension: np.ndarray | None
    """E KL(q(z_d|x) || p(z_d)) in closed form, `[L]`."""
    active: np.ndarray
    """Which dimensions react to the data, `[L]`: `statistics.active_units` above 1 % of the variance of the codes, as
    that is 1 under N(0, I), and anything under a prior that is learned."""
    variance_of_means: np.ndarray
    """Variance of the posterior means over the data, `[L]`."""
    mean_variance: np.ndarray
    """Mean posterior variance, `[L]`; half the mean squared difference of two draws where q is not `Scaled`."""
    num_examples: int


def describe(
    model: LatentModel, params: Params, x: Array | Source | Conditioned, key: Array, *, block: int = 16
) -> Latents:
    """Return the statistics of a model whose posterior has a density. Time grows as N^2: some thousands are enough.

    Of `Conditioned` examples each q(z|x) and p(z) is at the condition of its example; where p(z) depends on it, the
    marginal KL is that of one density only among examples of one condition.

    Args:
      model: any latent model over vectors; a diagonal Gaussian posterior tells most.
      params: its parameters.
      x: data as the model sees it, `[N, *event]`, N >= 2. A posterior that is not `Factorised` is
        computed of all at once.
      key: the noise of example i is `fold_in(key, i)`.
      block: codes that are scored at once.

    Raises:
      InputError: codes that are points or no arrays, or fewer than two examples.
    """
    count = len(x)
    if count < 2:
        raise InputError("evaluation data", got=f"{count} examples", expected="at least 2")
    q: Any
    q, mean = jax.eval_shape(partial(_posterior, model), params, conditions.shapes(x, 1))
    if measure_of(q) == "point":
        raise InputError("latent statistics", got=f"{type(model).__name__}, whose codes are points", expected="a VAE")
    if not isinstance(mean, jax.ShapeDtypeStruct):
        raise InputError(
            "latent statistics",
            got=f"{type(model).__name__}, whose codes are of type {type(mean).__name__}",
            expected="codes that are one array [B, latent]",
        )
    found = metrics.per_example(_codes, model, params, x, key)
    if isinstance(q, Factorised):
        leaves = [jnp.asarray(found.pop(_leaf(i))) for i in range(len(jax.tree.leaves(q)))]
        q = jax.tree.unflatten(jax.tree.structure(q), leaves)
    else:
        q = _encode(cast(Hashable, model), params, jax.tree.map(jnp.asarray, x[:]))
    size = min(block, count)
    starts = np.minimum(np.arange(0, count, size), count - size)  # the last block overlaps the one before
    _, aggregate = loops.scan(_aggregate(size), (), (q, jnp.asarray(found["z"])), jnp.asarray(starts))
    wide = {name: value.reshape(count, -1).astype(np.float64) for name, value in found.items()}
    own, log_p, log_p_d, means = wide["log_q"][:, 0], wide["log_p"][:, 0], wide.get("log_p_d"), wide["mean"]
    of_means, of_noise = means.var(axis=0), wide["variance"].mean(axis=0)
    log_q = _in_order(aggregate["joint"], starts, count)
    log_q_d = _in_order(aggregate["per_dimension"], starts, count) if "per_dimension" in aggregate else None
    return Latents(
        rate=float((own - log_p).mean()),
        mutual_information=float((own - log_q).mean()),
        marginal_kl=float((log_q - log_p).mean()),
        total_correlation=None if log_q_d is None else float((log_q - log_q_d.sum(axis=1)).mean()),
        dimension_wise_kl=None if log_q_d is None or log_p_d is None else (log_q_d - log_p_d).mean(axis=0),
        rate_per_dimension=wide["kl_terms"].mean(axis=0) if "kl_terms" in wide else None,
        active=statistics.active_units(means, 0.01 * (of_means + of_noise)),
        variance_of_means=of_means,
        mean_variance=of_noise,
        num_examples=count,
    )


INVERTED = 2_000
"""So many codes of one dimension, each for each example, are sent back through a flow at most."""


def affordable(model: LatentModel, params: Params, x: Array | Source | Conditioned) -> int:
    """Return how many of the examples `describe` may take without being slow: all, unless q(z|x) is a flow.

    The density of a code at the q(z|x) of another example is then found by inversion, which of autoregressive maps
    takes a pass of their networks for each of D dimensions: of `INVERTED` / sqrt(D) examples, that is as many passes as
    of `INVERTED` where a density takes one.

    Args:
      model, params: any latent model.
      x: data as the model sees it, `[N, *event]`.
    """
    q, mean = jax.eval_shape(partial(_posterior, model), params, conditions.shapes(x, 1))
    if not isinstance(q, DrawnWithDensity):
        return len(x)
    size = sum(leaf.size for leaf in jax.tree.leaves(mean))
    return min(len(x), max(2, int(INVERTED / size**0.5)))


FOLDS = 5
"""Parts of the codes, of which each is scored by a density that was fitted to the others."""


def prior_gap(
    model: LatentModel,
    params: Params,
    x: Array | Source | Conditioned,
    key: Array,
    *,
    components: tuple[int, ...] = (1, 10),
    others: Array | Source | Conditioned | None = None,
    on_part: Callable[[int, int], None] | None = None,
) -> float:
    """Return how far the aggregate posterior of the data is from the prior, at least, in nats.

    KL(q(z) || p(z)) >= E_q log g(z) - log p(z) for any density g, and here g is a Gaussian mixture that was fitted to
    the codes of other examples; the best of those tried counts. Of discrete codes, g has their frequencies at each
    place. `Latents.marginal_kl` is of the aggregate posterior of these N examples alone, and so at least the rate less
    log N; this one is of all data.

    Args:
      model, params: the model.
      x: data as the model sees it, `[N, *event]`.
      key: of the codes, one for each example.
      components: the numbers of components that are tried.
      others: data to whose codes the mixtures are fitted, such as training data, of which there are more; left out,
        they are fitted to parts of `x`, and scored by the others.
      on_part: called after each density that is fitted with how many are, of how many.

    Returns:
      The bound, 0 where there is none: few examples show little.
    """
    found = metrics.per_example(_draws, model, params, x, key)
    z, log_p = _rows(found), found["log_p"].astype(np.float64)
    fold = np.arange(len(z)) % FOLDS
    parts = [(z[fold != part], fold == part) for part in range(min(FOLDS, len(z)))]
    if others is not None:
        other_key = jax.random.fold_in(key, len(x))
        parts = [(_rows(metrics.per_example(_draws, model, params, others, other_key)), fold >= 0)]
    floor = max(1e-4 * z.var(), 1e-12)  # of the variances: codes may all be the same
    enough = [count for count in components if all(len(known) >= 2 * count for known, _ in parts)]
    tried = [partial(_mixture, count, floor) for count in enough]
    if "indices" in found:
        tried = [partial(_frequencies, weight, int(found["choices"][0])) for weight in (1.0, 0.1)]
    gaps, done = [0.0], 0
    for density in tried:
        log_g = np.empty(len(z))
        for known, scored in parts:
            log_g[scored] = density(known, z[scored])
            done += 1
            if on_part is not None:
                on_part(done, len(parts) * len(tried))
        gaps.append(float((log_g - log_p).mean()))
    return max(gaps)


def _mixture(components: int, floor: float, known: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return log g of codes `[N, L]`, of a mixture that is fitted to known ones; `floor` is added to variances."""
    from sklearn.mixture import GaussianMixture

    with threads.one():
        mixture = GaussianMixture(components, reg_covar=floor, random_state=0).fit(known)
        return np.asarray(mixture.score_samples(z))


def _frequencies(weight: float, choices: int, known: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return log g of indices `[N, S]`, independent with the frequencies of known ones, to each of which as many as
    `weight` are added.
    """
    log_g = np.zeros(len(index))
    for column, own in zip(known.T, index.T, strict=True):
        counts = np.bincount(column, minlength=choices) + weight
        log_g += np.log(counts / counts.sum())[own]
    return log_g


def _rows(found: dict[str, np.ndarray]) -> np.ndarray:
    """Return codes as rows, of discrete ones their indices."""
    if "indices" in found:
        return found["indices"].reshape(len(found["indices"]), -1)
    return found["z"].reshape(len(found["z"]), -1).astype(np.float64)


def _draws(model: LatentModel, params: Params, x: Array, key: Array) -> dict[str, Array]:
    """Return a code of each example and its density under the prior; of discrete ones their indices."""
    q = model.encode(params, x)
    z, _ = bounds.draw(q, key)
    found = {"z": z, "log_p": bounds.log_density(model.prior(params, x.shape[0]), z, "p(z) of a prior gap")}
    if not isinstance(q, Indexed):
        return found
    return {**found, "indices": q.indices(z), "choices": jnp.full(x.shape[0], q.choices)}


def _codes(model: LatentModel, params: Params, x: Array, key: Array) -> dict[str, Array]:
    """Return q(z|x), leaf by leaf where these are of its examples, a draw of it, and the densities there."""
    q, prior = model.encode(params, x), model.prior(params, x.shape[0])
    key_z, key_other = jax.random.split(key)
    z, log_q = bounds.draw(q, key_z)
    log_q = bounds.log_density(q, z, "q(z|x) of latent statistics", log_q)
    log_p = bounds.log_density(prior, z, "p(z) of latent statistics")
    terms = {"mean": q.mean(), "z": z, "log_q": log_q, "log_p": log_p}
    terms["variance"] = q.scale**2 if isinstance(q, Scaled) else (z - q.sample(key_other)) ** 2 / 2
    if isinstance(q, Factorised):
        terms |= {_leaf(i): leaf for i, leaf in enumerate(jax.tree.leaves(q))}
        if isinstance(prior, Factorised):
            terms["log_p_d"] = prior.log_prob_terms(z)
        if (kl := q.kl_terms(prior)) is not NotImplemented:
            terms["kl_terms"] = kl
    return terms


def _leaf(index: int) -> str:
    return f"q(z|x) leaf {index}"


def _posterior(model: LatentModel, params: Params, rows: Any) -> tuple[Any, Any]:
    own, x = conditions.bound_to(model, rows)
    q = own.encode(params, x)
    return q, q.mean()


@partial(jax.jit, static_argnums=0)
def _encode(model: Any, params: Params, rows: Any) -> Any:
    own, x = conditions.bound_to(model, rows)
    with jax.default_matmul_precision("highest"):  # as `evaluation` encodes
        return own.encode(params, x)


@lru_cache(maxsize=8)
def _aggregate(size: int) -> loops.Body:
    """Return the aggregate posterior at a block of codes: log q(z_i) `[size]`, and log q(z_i,d) `[size, L]` if there
    is.
    """

    def body(carry: tuple[()], context: tuple[Any, Array], start: Array) -> tuple[tuple[()], dict[str, Array]]:
        q, codes = context

        def mixed(log_q: Array) -> Array:
            return jax.nn.logsumexp(log_q, axis=0) - jnp.log(log_q.shape[0])

        def one(z: Array) -> dict[str, Array]:
            repeated = jnp.broadcast_to(z, codes.shape)
            if not isinstance(q, Factorised):
                return {"joint": mixed(bounds.log_density(q, repeated, "q(z|x) of mutual information"))}
            terms = q.log_prob_terms(repeated).reshape(len(codes), -1)  # [N, L]
            return {"joint": mixed(terms.sum(axis=1)), "per_dimension": mixed(terms)}

        with jax.default_matmul_precision("highest"):
            return carry, jax.vmap(one)(jax.lax.dynamic_slice_in_dim(codes, start, size))

    return body


def _in_order(blocks: Array, starts: np.ndarray, count: int) -> np.ndarray:
    """Return `[blocks, size, ...]`, of which the last one may overlap the one before: `[count, ...]` in float64."""
    out = np.empty((count, *blocks.shape[2:]))
    for start, block in zip(starts, np.asarray(blocks), strict=True):
        out[start : start + len(block)] = block
    return out
