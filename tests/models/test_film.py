"""Feature-wise linear modulation: each channel times a number and plus a number, which the condition alone says."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from aevae_jax import values
from aevae_jax.models import VAE, ConditionalVAE, likelihoods, networks
from aevae_jax.models.architectures import MLP, Architecture, Conv, ResidualConv
from aevae_jax.types import InputError

COUNT, EVENT, CLASSES = 4, (6, 5, 2), 3
LABEL = np.array([2, 0, 1, 2], np.int32)
FILM = {"Conv": Conv((2, 3), conditioning="film"), "ResidualConv": ResidualConv((2, 3), conditioning="film")}
X = jnp.asarray(np.random.default_rng(0).normal(size=(COUNT, *EVENT)), jnp.float32)
Z = jnp.asarray(np.random.default_rng(1).normal(size=(COUNT, 2)), jnp.float32)
SLOW = {"ResidualConv": [pytest.mark.slow]}
each_film = pytest.mark.parametrize(
    "network", [pytest.param(network, id=name, marks=SLOW.get(name, [])) for name, network in FILM.items()]
)


def test_each_channel_is_scaled_and_shifted_by_what_the_condition_says():
    """By hand: gamma and beta are linear in what is known, and gamma is 1 where that is nothing. Perez et al. 2018."""
    draw = np.random.default_rng(2)
    x, known = draw.normal(size=(3, 4, 5, 2)).astype(np.float32), draw.normal(size=(3, 6)).astype(np.float32)
    film = networks.FiLM()
    shapes = jax.eval_shape(film.init, jax.random.key(0), x, known)
    params = jax.tree.map(lambda a: draw.normal(size=a.shape).astype(np.float32), shapes)
    own = params["params"]
    gamma = 1 + known @ own["scale"]["kernel"] + own["scale"]["bias"]
    beta = known @ own["shift"]["kernel"] + own["shift"]["bias"]
    expected = gamma[:, None, None] * x + beta[:, None, None]
    np.testing.assert_allclose(film.apply(params, x, known), expected, rtol=1e-4, atol=1e-5)
    assert sum(a.size for a in jax.tree.leaves(own)) == 2 * (6 * 2 + 2)


def conditional(network):
    model = ConditionalVAE(2, network, likelihoods.Normal(), classes=CLASSES, event_shape=EVENT)
    return model, VAE(2, network, likelihoods.Normal(), event_shape=EVENT)


def without_film(tree):
    return {
        name: without_film(part) if isinstance(part, dict) else part
        for name, part in tree.items()
        if not name.startswith("FiLM")
    }


@each_film
def test_with_scale_1_and_shift_0_it_is_the_network_without_a_condition(network):
    """As it begins, and to the bit: parameters, codes and decoded means."""
    model, plain = conditional(network)
    params = jax.jit(model.init)(jax.random.key(0))
    bare = without_film(params)
    assert params != bare
    shapes = jax.eval_shape(plain.init, jax.random.key(0))
    for name in ("encoder", "decoder"):
        assert jax.tree.structure(bare[name]) == jax.tree.structure(shapes[name])
    known, unknown = (
        jax.jit(lambda params, own=own: (own.encode(params, X), own.decode(params, Z).mean()))(of)
        for own, of in ((model.given(LABEL), params), (plain, bare))
    )
    (found, decoded), (expected, means) = known, unknown
    np.testing.assert_array_equal(found.loc, expected.loc)
    np.testing.assert_array_equal(found.log_scale, expected.log_scale)
    np.testing.assert_array_equal(decoded, means)
    init, x = jax.jit(network.encoder(EVENT, 4).init), jnp.zeros((1, *EVENT))
    fresh = init(jax.random.key(1), networks.Beside(x, jnp.zeros((1, 4))))["params"]
    other = init(jax.random.key(1), x)["params"]
    jax.tree.map(np.testing.assert_array_equal, without_film(fresh), other)


@each_film
def test_every_scale_of_the_image_is_modulated(network):
    """One layer at each, in encoder and decoder, all of which have a gradient at the start."""
    model, _ = conditional(network)
    params = jax.jit(model.init)(jax.random.key(0))
    for name in ("encoder", "decoder"):
        assert sum(part.startswith("FiLM") for part in params[name]) == 2

    @jax.jit
    def gradient(params):
        own = model.given(LABEL)
        return jax.grad(lambda p: own.decode(p, own.encode(p, X).mean()).log_prob(X).sum())(params)

    moved = gradient(oracles.random_params(model))
    for name in ("encoder", "decoder"):
        films = {part: leaves for part, leaves in moved[name].items() if part.startswith("FiLM")}
        assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(films))


@each_film
def test_examples_are_told_their_own_condition(network):
    model, _ = conditional(network)
    params = oracles.random_params(model)
    for other in (np.array([2, 1, 1, 2]), np.array([0, 0, 1, 2])):
        for of in (
            lambda label: model.given(label).encode(params, X).loc,
            lambda label: model.given(label).decode(params, Z).mean(),
        ):
            moved = np.abs(of(LABEL) - of(other)).reshape(COUNT, -1).max(axis=1) > 1e-7
            np.testing.assert_array_equal(moved, other != LABEL)


def test_maps_of_codes_are_modulated_as_well():
    model = ConditionalVAE(
        (2, 2, 3), FILM["Conv"], likelihoods.Normal(), classes=CLASSES, vector=2, drop=0.1, event_shape=EVENT
    )
    params = oracles.random_params(model)
    told = {"label": LABEL, "vector": np.ones((COUNT, 2), np.float32)}
    z = model.given(told).encode(params, X).mean()
    assert z.shape == (COUNT, 2, 2, 3)
    known, none = model.given(told).decode(params, z).mean(), model.decode(params, z).mean()
    assert (np.abs(known - none).reshape(COUNT, -1).max(axis=1) > 1e-6).all()


def test_records_without_it_are_as_they_were():
    assert "conditioning" not in values.to_tree(Conv())
    for network in FILM.values():
        assert values.from_tree(Architecture, values.to_tree(network), "here") == network
    assert values.parse(Architecture, "Conv(conditioning='film')", "--model") == Conv(conditioning="film")
    with pytest.raises(InputError, match="conditioning"):
        values.parse(Architecture, "Conv(conditioning='none')", "--model")
    assert MLP() == values.parse(Architecture, "MLP", "--model")
