"""The rate of a model of several levels, level by level at the levels above that were drawn, and its free bits."""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import assert_mean, normal_kl, random_params

from aevae_jax import VAE, Autoencoder, distributions as d, values
from aevae_jax.models import TwoLevelVAE, architectures, likelihoods, priors
from aevae_jax.objectives import bounds
from aevae_jax.objectives.losses import ELBO
from aevae_jax.types import InputError

SIZE, LATENT, BATCH, DRAWS = 5, 5, 4, 3_000
RANGE = (-1.5, 0.5)
MODEL, VAMP = (
    TwoLevelVAE(LATENT, architectures.MLP((6,)), likelihoods.Normal(), prior, RANGE, (SIZE,))
    for prior in (priors.StandardNormal(), priors.VampPrior(3))
)
PARAMS, VAMP_PARAMS = jax.tree.map(lambda leaf: 0.6 * leaf, (random_params(MODEL), random_params(VAMP)))
X = jnp.asarray(np.random.default_rng(0).normal(size=(BATCH, SIZE)), jnp.float32)
UPPER = LATENT // 2


def per_level(model, params, z) -> list[np.ndarray]:
    """KL of each level per dimension given the codes `[B, L]`, in float64: the uppermost first; both are normals."""

    @jax.jit
    def normals(params, z2):
        q, p = model.encode(params, X), model.prior(params, BATCH)
        pairs = [(q.above, p.above), (q.below(z2), p.below(z2))]
        return [(q.loc, q.scale, p.loc, p.scale) for q, p in pairs]

    return [normal_kl(*(np.asarray(a, np.float64) for a in of)) for of in normals(params, z[:, -UPPER:])]


@cache
def rates() -> dict[str, np.ndarray]:
    """Both estimates at many draws, `[DRAWS, B]`, and their gradients by the encoder `[DRAWS, parameters]`."""

    def both(params, key):
        copy = jax.random.clone(key)
        return [bounds.elbo(MODEL, params, X, k, by_level=b).rate for k, b in ((key, False), (copy, True))]

    def gradient(key, by_level):
        def rate(params):
            return bounds.elbo(MODEL, params, X, key, by_level=by_level).rate.mean()

        leaves = jax.tree.leaves(jax.grad(rate)(PARAMS)["encoder"])
        return jnp.concatenate([leaf.ravel() for leaf in leaves])

    def many():
        return jax.random.split(jax.random.key(0), DRAWS)

    whole, by_level = jax.jit(jax.vmap(lambda key: both(PARAMS, key)))(many())
    slopes = [jax.jit(jax.vmap(lambda key, b=b: gradient(key, b)))(many()) for b in (False, True)]
    return {"whole": whole, "by level": by_level, "slope": slopes[0], "slope by level": slopes[1]}


@pytest.mark.slow
def test_by_level_it_has_the_same_mean_and_less_variance():
    found = rates()
    assert_mean(found["whole"] - found["by level"], 0.0)
    assert (found["by level"].var(axis=0) < 0.5 * found["whole"].var(axis=0)).all()
    assert (found["by level"].var(axis=0) > 0).all()  # that of the levels above remains


def test_by_level_its_gradient_has_the_same_mean_and_less_variance():
    plain, by_level = rates()["slope"], rates()["slope by level"]
    assert_mean(plain - by_level, 0.0)
    assert by_level.var(axis=0).sum() < 0.5 * plain.var(axis=0).sum()
    assert np.abs(plain.mean(axis=0)).max() > 0.05


def test_it_is_the_closed_form_at_the_upper_code_that_was_drawn():

    @jax.jit
    def drawn_and_rate(key):
        bound = bounds.elbo(MODEL, PARAMS, X, key, by_level=True)
        return bound.z, bound.rate

    z, rate = drawn_and_rate(jax.random.key(3))
    expected = sum(terms.sum(axis=1) for terms in per_level(MODEL, PARAMS, z))
    np.testing.assert_allclose(rate, expected, rtol=1e-4)
    other = sum(terms.sum(axis=1) for terms in per_level(MODEL, PARAMS, z[::-1]))
    assert np.abs(expected - other).min() > 1e-3  # it does depend on the draw


def test_a_level_without_a_closed_form_is_estimated_and_the_others_are_not():
    bound = bounds.elbo(VAMP, VAMP_PARAMS, X, jax.random.key(3), by_level=True)
    q, p, z2 = bound.posterior, bound.prior, bound.z[:, -UPPER:]
    lower = normal_kl(*(np.asarray(a, np.float64) for of in (q.below(z2), p.below(z2)) for a in (of.loc, of.scale)))
    expected = lower.sum(axis=1) + np.asarray(q.above.log_prob(z2) - p.above.log_prob(z2), np.float64)
    np.testing.assert_allclose(bound.rate, expected, rtol=1e-4, atol=1e-4)


def shifted(scale, z):
    return d.Normal(scale * z[:, :1], 0.1 * z[:, :1])


def three(seed: int) -> d.Chained:
    a = np.random.default_rng(seed).normal(size=(3, BATCH, 2)).astype(np.float32)
    two = d.Chained(d.Normal(a[0], 0.1 * a[1]), jax.tree_util.Partial(shifted, a[2, :, :1]), 1)
    return d.Chained(two, jax.tree_util.Partial(shifted, a[2, :, 1:]), 1)


def test_three_levels_are_three_terms_and_of_others_there_is_one():
    q, p = three(0), three(1)
    z = q.sample(jax.random.key(0))
    found = bounds.levels(q, p, z)
    assert [part.shape for _, _, part in found] == [(BATCH, 2), (BATCH, 1), (BATCH, 1)]
    np.testing.assert_array_equal(jnp.concatenate([part for *_, part in found][::-1], axis=1), z)
    total = sum(np.asarray(q.kl(p)) for q, p, _ in found)
    np.testing.assert_allclose(bounds.rate(q, p, z, by_level=True), total, rtol=1e-5)
    log_q = sum(q.log_prob(part) for q, _, part in found)
    np.testing.assert_allclose(log_q, q.log_prob(z), rtol=1e-5)
    flat = d.Normal(z, 0 * z)
    assert bounds.levels(q, flat, z) == [(q, flat, z)]
    assert bounds.levels(q, three(1).above, z)[0][:1] == (q,)  # of other sizes
    np.testing.assert_array_equal(bounds.rate(flat, flat, z, by_level=True), 0.0)


# --- the objective ---


def loss_of(objective, model=MODEL, params=PARAMS):
    loss, metrics = objective(model, params, X, jax.random.key(3), 0)
    return loss, metrics


def test_the_objective_takes_the_rate_that_is_asked_for():
    whole, by_level = (loss_of(ELBO(rate=rate))[1]["rate"] for rate in ("whole", "by level"))
    expected = [bounds.elbo(MODEL, PARAMS, X, jax.random.key(3), by_level=b).rate.mean() for b in (False, True)]
    np.testing.assert_allclose([whole, by_level], expected, rtol=1e-6)
    assert abs(whole - by_level) > 1e-2
    loss, metrics = loss_of(ELBO(0.5, rate="by level"))
    np.testing.assert_allclose(loss, metrics["distortion"] + 0.5 * metrics["rate"], rtol=1e-6)


def test_of_one_level_both_rates_are_the_same():
    model = VAE(2, architectures.MLP(()), likelihoods.Normal(), priors.StandardNormal(), event_shape=(SIZE,))
    losses = [loss_of(ELBO(rate=rate), model, random_params(model))[0] for rate in ("whole", "by level")]
    assert losses[0] == losses[1]


def means_per_level() -> tuple[np.ndarray, np.ndarray]:
    z = bounds.elbo(MODEL, PARAMS, X, jax.random.key(3)).z
    upper, lower = (terms.mean(axis=0) for terms in per_level(MODEL, PARAMS, z))
    return upper, lower


def test_free_bits_limit_each_group_of_each_level():  # mistake 25
    upper, lower = means_per_level()
    assert upper.sum() < lower.sum()
    for groups, limit in ((0, float(np.median(np.concatenate([upper, lower])))), (1, (upper.sum() + lower.sum()) / 2)):
        loss, metrics = loss_of(ELBO(free_bits=limit, groups=groups))
        size = groups or None
        parts = [part if size is None else part.reshape(groups, -1).sum(axis=1) for part in (upper, lower)]
        expected = sum(np.maximum(limit, part).sum() for part in parts)
        np.testing.assert_allclose(loss - metrics["distortion"], expected, rtol=1e-4)
        assert expected > 1.001 * (upper.sum() + lower.sum())
        np.testing.assert_allclose(metrics["rate"], loss_of(ELBO())[1]["rate"])  # the one that is logged is the raw one


@pytest.mark.slow
def test_below_its_limit_a_level_has_no_gradient_and_above_it_the_whole():  # mistake 25, mistake 28
    """The lower level alone is above: the gradient is that of its rate, also by the upper codes that it is given."""
    upper, lower = means_per_level()
    limit = float(upper.sum() + lower.sum()) / 2

    def limited(params, free_bits):
        loss, metrics = ELBO(free_bits=free_bits, groups=1)(MODEL, params, X, jax.random.key(3), 0)
        return loss - metrics["distortion"]

    def of_level(params, number):
        bound = bounds.elbo(MODEL, params, X, jax.random.key(3))
        q, p, z = bounds.levels(bound.posterior, bound.prior, bound.z)[number]
        return bounds.rate(q, p, z).mean()

    def slope(function, number):
        return jax.jit(jax.grad(lambda params: function(params, number)))(PARAMS)

    def check(found, expected):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), found, expected)

    found, lower_alone = slope(limited, limit), slope(of_level, 1)
    check(found, lower_alone)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(found["encoder"]))
    check(slope(limited, 1e6), jax.tree.map(jnp.zeros_like, PARAMS))
    check(slope(limited, 1e-6), jax.tree.map(jnp.add, lower_alone, slope(of_level, 0)))


def test_free_bits_of_a_level_that_is_estimated_are_of_the_whole_of_it():
    bound = bounds.elbo(VAMP, VAMP_PARAMS, X, jax.random.key(3))
    upper, lower = (bounds.rate(*level).mean() for level in bounds.levels(bound.posterior, bound.prior, bound.z))
    limit = float(max(upper, lower)) + 1
    loss, metrics = loss_of(ELBO(free_bits=limit, groups=1), VAMP, VAMP_PARAMS)
    np.testing.assert_allclose(loss - metrics["distortion"], 2 * limit, rtol=1e-5)
    loss, metrics = loss_of(ELBO(free_bits=1e-6, groups=1), VAMP, VAMP_PARAMS)
    expected = max(upper, 1e-6) + max(lower, 1e-6)  # an estimate may be below 0
    np.testing.assert_allclose(loss - metrics["distortion"], expected, rtol=1e-4)
    with pytest.raises(
        InputError,
        match=r"^free_bits: got a prior of type Mixture, expected a rate in closed form per dimension; type groups=1",
    ):
        jax.eval_shape(lambda p: loss_of(ELBO(free_bits=0.1), VAMP, p), VAMP_PARAMS)
    with pytest.raises(InputError, match="groups: got 2, expected a divisor of the latent size 3"):
        jax.eval_shape(lambda p: loss_of(ELBO(free_bits=0.1, groups=2), MODEL, p), PARAMS)


def test_points_have_no_free_bits_of_any_kind():
    model = Autoencoder(2, architectures.MLP(()), event_shape=(SIZE,))
    for groups in (0, 1):
        with pytest.raises(InputError, match="free_bits: got a prior of type Normal, expected a rate in closed form"):
            jax.eval_shape(lambda p, g=groups: loss_of(ELBO(free_bits=0.1, groups=g), model, p), random_params(model))


def test_what_it_is_called_and_what_it_leaves_as_it_was():
    """A record of before, which has no such field, is that of the rate as a whole, and keeps its sha256."""
    assert values.digest(ELBO()) == "da0c42f8520de62aed8f7486df1c807614970111e09a03af4aad6036a5e99ca4"
    assert values.from_tree(ELBO, values.to_tree(ELBO()), "here") == ELBO(rate="whole")
    again = values.parse(ELBO, "ELBO(rate='by level')", "here")
    assert again == values.from_tree(ELBO, values.to_tree(again), "here") == ELBO(rate="by level")
    for make, message in (
        (lambda: ELBO(rate="per level"), "^rate: got 'per level', expected 'whole' or 'by level'$"),
        (
            lambda: ELBO(rate="by level", sticking_the_landing=True),
            "^rate='by level' with sticking_the_landing: got both",
        ),
    ):
        with pytest.raises(InputError, match=message):
            make()
