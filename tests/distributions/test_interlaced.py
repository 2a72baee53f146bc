"""Images in four passes: what each pixel depends on, that probabilities sum to one, and that draws follow them."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aevae_jax import distributions
from aevae_jax.distributions import interlaced
from aevae_jax.models.likelihoods import DiscretizedLogisticMixture, InterlacedLogisticMixture
from aevae_jax.types import InputError


def example(event, levels=256, *, batch=1, components=2, features=4, seed=0):
    """A distribution whose pixels depend on their neighbours a good deal."""
    generator = np.random.default_rng(seed)
    likelihood = InterlacedLogisticMixture(levels, components, features)
    params = {
        name: jnp.asarray(value + 0.4 * generator.normal(size=value.shape), jnp.float32)
        for name, value in likelihood.init().items()
    }
    raw = jnp.asarray(generator.normal(size=(batch, *event, features)), jnp.float32)
    return likelihood(params, raw)


@pytest.mark.parametrize("event", [(2, 2, 1), (1, 3, 1), (4,)], ids=str)
def test_probabilities_of_all_images_sum_to_one(event):
    p = example(event, levels=3)
    images = np.array(list(itertools.product([0, 0.5, 1], repeat=int(np.prod(event)))), np.float32)
    log_p = jax.jit(jax.vmap(lambda x: p.log_prob(x.reshape(1, *event))[0]))(images)
    np.testing.assert_allclose(np.exp(np.asarray(log_p, np.float64)).sum(), 1, rtol=1e-5)
    assert np.ptp(log_p) > 1


@pytest.mark.parametrize("event", [(5, 6, 1), (4, 3, 2), (7,)], ids=str)
def test_a_pixel_depends_on_those_of_earlier_passes_near_it_and_on_no_other(event):
    p = example(event)
    value = jnp.asarray(np.random.default_rng(1).uniform(size=(1, *event)), jnp.float32)
    jacobian = np.asarray(jax.jit(jax.jacrev(lambda v: jnp.concatenate(p.logistics_given(v), axis=-1)[0]))(value))
    size = int(np.prod(event))
    depends = np.abs(jacobian.reshape(size, -1, size)).max(axis=1) > 0
    passes = p.passes.reshape(-1)
    places = np.argwhere(np.ones(event))
    if len(event) == 1:
        places = np.stack([np.zeros(size, int), places[:, 0], np.zeros(size, int)], axis=1)
    cells = places // [2, 2, 1]
    apart = np.abs(cells[:, None] - cells[None])
    near = (apart[..., 0] <= 1) & (apart[..., 1] <= 1) & (apart[..., 2] == 0)
    assert np.array_equal(depends, near & (passes[None] < passes[:, None]))


def test_passes_are_those_of_a_lattice_and_its_gaps():
    found = example((3, 4, 1)).passes[..., 0]
    np.testing.assert_array_equal(found, [[0, 2, 0, 2], [3, 1, 3, 1], [0, 2, 0, 2]])


@pytest.mark.slow
def test_draws_follow_the_probabilities():
    p = example((2, 2, 1), levels=2)
    draws = jax.jit(jax.vmap(lambda key: p.sample(key)[0]))(jax.random.split(jax.random.key(0), 20_000))
    for bits in itertools.product([0.0, 1.0], repeat=4):
        image = np.array(bits, np.float32).reshape(1, 2, 2, 1)
        share = float(np.exp(jax.jit(p.log_prob)(image))[0])
        found = (np.asarray(draws) == image).all(axis=(1, 2, 3)).mean()
        assert abs(found - share) <= 5 * np.sqrt(share * (1 - share) / len(draws)) + 3 / len(draws)


def test_the_first_pass_has_its_mean_and_all_are_given_those_before():
    p = example((4, 4, 1))
    mean = np.asarray(jax.jit(p.mean)())
    given = np.asarray(jax.jit(lambda mean: p.given(mean).mean())(mean))
    for number in range(interlaced.PASSES):
        inside = np.asarray(p.passes)[None] == number
        np.testing.assert_allclose(mean[inside], given[inside], rtol=1e-5)
    assert ((mean > 0) & (mean < 1)).all()


def test_it_begins_as_one_mixture_of_all_pixels():
    likelihood = InterlacedLogisticMixture(256, 3, 8)
    raw = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 4, 1, 8)), jnp.float32)
    x = jnp.asarray(np.random.default_rng(1).integers(0, 256, (2, 4, 4, 1)) / 255, jnp.float32)
    flat = DiscretizedLogisticMixture(256, 3)
    found = jax.jit(lambda raw, x: likelihood(likelihood.init(), raw).log_prob(x))(raw, x)
    expected = jax.jit(lambda x: flat({}, jnp.zeros((2, 4, 4, 1, 9))).log_prob(x))(x)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_after_one_step_of_descent_features_and_neighbours_count():
    """The parameters of the start are those of a saddle in most directions; one step leaves it."""
    likelihood = InterlacedLogisticMixture(256, 2, 4)
    raw = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 4, 1, 4)), jnp.float32)
    x = jnp.asarray(np.random.default_rng(1).integers(0, 256, (3, 4, 4, 1)) / 255, jnp.float32)

    def loss(params, raw):
        return -likelihood(params, raw).log_prob(x).mean()

    params = likelihood.init()
    gradient = jax.jit(jax.grad(loss))(params, raw)
    after = jax.tree.map(lambda a, g: a - 1e-3 * g, params, gradient)
    again, of_features = jax.jit(jax.grad(loss, argnums=(0, 1)))(after, raw)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(again))
    assert np.abs(of_features).max() > 0


def test_other_shapes_are_refused_in_a_line():
    with pytest.raises(InputError, match=r"event shape of InterlacedLogisticMixture: got \(2, 2\), expected images"):
        distributions.InterlacedLogisticMixture(jnp.zeros((1, 2, 2, 4)), *(jnp.zeros(1) for _ in range(4))).log_prob(
            jnp.zeros((1, 2, 2))
        )
