"""Distributions over codes of which there are finitely many, by enumeration of them all."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import assert_mean, kl, log_prob, mean, sample
from scipy.special import log_softmax, softmax

from aevae_jax import distributions
from aevae_jax.distributions import books
from aevae_jax.models import code_networks

K, PLACES, LEVELS, SHAPE = 3, 2, 2, (1, 2, 4)
RANDOM = np.random.default_rng(0)
BOOK = books.Codebooks(jnp.asarray(RANDOM.normal(size=(LEVELS, K, 2)), jnp.float32))
LOGITS = RANDOM.normal(size=(PLACES, LEVELS, K)).astype(np.float32)
ALL = np.array(list(itertools.product(range(K), repeat=PLACES * LEVELS))).reshape(-1, PLACES, LEVELS)
COUNT = len(ALL)


def every_code(book=BOOK, index=ALL, shape=SHAPE):
    return jax.jit(book.vectors)(jnp.asarray(index)).reshape(-1, *shape)


def transformer(length, levels, choices, seed=0):
    """A network with random parameters: fresh ones give all choices the same probability."""
    module = code_networks.CausalTransformer(length, levels, choices, width=8, layers=2, heads=2)
    start = jnp.zeros((1, 1), jnp.int32)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), start, None, jnp.int32(0)))["params"]
    random = np.random.default_rng(seed)
    params = jax.tree.map(lambda a: jnp.asarray(random.normal(size=a.shape) * 0.7, jnp.float32), shapes)
    return code_networks.Predictor(params, module)


def independent(size=COUNT):
    return distributions.IndependentCodes(BOOK, jnp.asarray(LOGITS), SHAPE, size)


def sequential(size=COUNT):
    return distributions.SequentialCodes(BOOK, transformer(PLACES * LEVELS, LEVELS, K), SHAPE, size)


# --- books ---


@pytest.mark.parametrize("sizes", [(8, 5, 5), (2, 3), (7,), (3, 3, 2, 4)], ids=str)
def test_codes_of_a_grid_are_a_bijection(sizes):
    """Every index has a vector of its own in [-1, 1], which leads back to it; and every vector of the grid has one."""
    grid = books.Grid(sizes)
    count = int(np.prod(sizes))
    index = np.arange(count)[:, None]
    vectors = np.asarray(jax.jit(grid.vectors)(jnp.asarray(index)))
    np.testing.assert_array_equal(jax.jit(grid.indices)(vectors), index)
    axes = [(np.arange(n) - n // 2) / (n // 2) for n in sizes]
    expected = {tuple(np.float32(row)) for row in itertools.product(*axes)}
    assert {tuple(row) for row in vectors} == expected
    assert len(expected) == grid.choices == count
    np.testing.assert_array_equal(np.asarray(grid.entries())[0], vectors)


@pytest.mark.parametrize("book", [BOOK, books.OneHots(5)], ids=lambda book: type(book).__name__)
def test_indices_and_vectors_lead_to_each_other(book):
    index = np.array(list(itertools.product(range(book.choices), repeat=book.levels)))
    vectors = np.asarray(jax.jit(book.vectors)(jnp.asarray(index)))
    np.testing.assert_array_equal(jax.jit(book.indices)(vectors), index)
    assert len({tuple(row) for row in vectors}) == len(index)


def test_each_level_is_nearest_to_what_those_before_it_leave():
    outputs = np.random.default_rng(1).normal(size=(50, 2)).astype(np.float32)
    index, left, entry = jax.jit(BOOK.quantised)(outputs)
    rest, table = outputs.astype(np.float64), np.asarray(BOOK.table, np.float64)
    for level in range(LEVELS):
        np.testing.assert_allclose(left[:, level], rest, atol=1e-6)
        nearest = ((rest[:, None] - table[level]) ** 2).sum(axis=-1).argmin(axis=1)
        np.testing.assert_array_equal(index[:, level], nearest)
        np.testing.assert_array_equal(entry[:, level], BOOK.table[level][nearest])
        rest = rest - table[level][nearest]


# --- probabilities ---


@pytest.mark.parametrize("prior", [independent, sequential], ids=["independent", "sequential"])
def test_probabilities_of_all_codes_sum_to_one(prior):
    p = prior()
    log_p = np.asarray(log_prob(p, every_code()), np.float64)
    assert np.exp(log_p).sum() == pytest.approx(1, abs=2e-6)
    assert log_p.std() > 0.5
    np.testing.assert_allclose(jax.jit(lambda p, i: p.log_mass(i))(p, jnp.asarray(ALL)), log_p, rtol=1e-5)


def test_independent_indices_have_the_product_of_their_probabilities():
    log_p = log_softmax(LOGITS.astype(np.float64), axis=-1)
    expected = [sum(log_p[v, level, i] for (v, level), i in np.ndenumerate(index)) for index in ALL]
    np.testing.assert_allclose(log_prob(independent(), every_code()), expected, rtol=1e-5)


@pytest.mark.parametrize("prior", [independent, sequential], ids=["independent", "sequential"])
def test_draws_follow_the_probabilities(prior):
    """Of the one drawn step by step, those are of the whole network at once: what is kept between steps is right."""
    draws = sample(prior(20_000), jax.random.key(1))
    index = np.asarray(jax.jit(BOOK.indices)(draws.reshape(-1, PLACES, 4))).reshape(len(draws), -1)
    number = index @ K ** np.arange(PLACES * LEVELS)[::-1]
    seen = np.bincount(number, minlength=COUNT) / len(number)
    expected = np.exp(np.asarray(log_prob(prior(), every_code()), np.float64))
    assert (np.abs(seen - expected) < 6 * np.sqrt(expected / len(number))).all()


def test_the_mean_of_independent_codes_is_that_of_their_vectors():
    p = np.exp(np.asarray(log_prob(independent(), every_code()), np.float64))
    expected = np.tensordot(p, np.asarray(every_code(), np.float64), 1)
    np.testing.assert_allclose(mean(independent(2)), np.broadcast_to(expected, (2, *SHAPE)), atol=1e-6)


def test_in_place_of_its_mean_a_sequence_has_its_most_probable_steps():
    found = mean(sequential(2))
    index = np.asarray(jax.jit(BOOK.indices)(found.reshape(2, PLACES, 4))).reshape(2, -1)
    logits = np.asarray(jax.jit(lambda n, t: n.logits(t))(sequential().network, jnp.asarray(index)))
    np.testing.assert_array_equal(index, logits.argmax(axis=-1))


@pytest.mark.parametrize("levels", [1, 2])
def test_an_index_is_predicted_from_those_before_it_alone(levels):
    """Whatever stands at a position changes the log-odds of later ones, and of no other."""
    network, tokens = transformer(6, levels, 4), np.random.default_rng(0).integers(0, 4, (1, 6))
    logits = jax.jit(network.logits)
    before = np.asarray(logits(jnp.asarray(tokens)))
    for place in range(6):
        other = tokens.copy()
        other[0, place] = (tokens[0, place] + 1) % 4
        changed = np.abs(np.asarray(logits(jnp.asarray(other))) - before).max(axis=-1)[0]
        assert (changed[: place + 1] == 0).all()
        assert (changed[place + 1 :] > 1e-4).all()


# --- posteriors ---


def test_the_rate_of_a_code_is_what_its_indices_cost():
    """q is at one code, so that KL(q || p) = -log p(code); by its indices and by its vectors."""
    code = every_code()[5:9]
    for p in (independent(4), sequential(4)):
        q = distributions.Quantized(code, jnp.asarray(ALL[5:9], jnp.int32), K)
        np.testing.assert_allclose(kl(q, p), -log_prob(p, code), rtol=1e-6)
        np.testing.assert_allclose(kl(q, p), log_prob(q, code) - log_prob(p, code), rtol=1e-6)
        both = distributions.VectorQuantized(code, jnp.asarray(ALL[5:9], jnp.int32), code, code, K)
        np.testing.assert_array_equal(kl(both, p), kl(q, p))
    assert np.isneginf(log_prob(q, code[::-1])).all()
    assert q.kl(distributions.Normal(code, code)) is NotImplemented


def test_the_gradient_that_passes_a_code_is_the_identity():
    outputs, code = (jnp.asarray(np.random.default_rng(s).normal(size=(3,)), jnp.float32) for s in (0, 1))
    value, jacobian = distributions.straight_through(outputs, code), jax.jacrev(distributions.straight_through)
    np.testing.assert_array_equal(value, code)
    np.testing.assert_array_equal(jacobian(outputs, code), np.eye(3))
    np.testing.assert_array_equal(jax.jacrev(distributions.straight_through, 1)(outputs, code), np.zeros((3, 3)))
    np.testing.assert_array_equal(jax.jacfwd(distributions.straight_through)(outputs, code), np.eye(3))


def test_a_rotated_gradient_is_that_of_the_rotation_that_takes_outputs_to_codes():
    """Its Jacobian is c R: R is orthogonal, turns outputs to the code, and leaves what is perpendicular to both."""
    outputs, code = (np.random.default_rng(s).normal(size=(4,)).astype(np.float32) for s in (0, 1))
    assert (np.asarray(distributions.rotated(outputs, code)) == code).all()
    jacobian = np.asarray(jax.jacrev(distributions.rotated)(outputs, code), np.float64)
    scale = np.linalg.norm(code) / np.linalg.norm(outputs)
    rotation = jacobian / scale
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(4), atol=1e-5)
    assert np.linalg.det(rotation) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(jacobian @ outputs, code, atol=1e-5)
    plane = np.linalg.svd(np.stack([outputs, code]))[2]
    np.testing.assert_allclose(rotation @ plane[2:].T, plane[2:].T, atol=1e-5)
    still = jax.jacrev(distributions.rotated)(jnp.zeros(4), jnp.asarray(code))
    assert np.isfinite(still).all()


# --- one-hot codes ---

ODDS = np.random.default_rng(3).normal(size=(2, 3, 4)).astype(np.float32)


def test_categorical_codes_have_their_divergence_in_closed_form():
    q, p = distributions.OneHot(jnp.asarray(ODDS)), distributions.OneHot(jnp.asarray(ODDS[::-1]))
    probabilities = softmax(ODDS.astype(np.float64), axis=-1)
    expected = (probabilities * np.log(probabilities / probabilities[::-1])).sum(axis=(1, 2))
    np.testing.assert_allclose(kl(q, p), expected, rtol=1e-5)
    prior = distributions.IndependentCodes(books.OneHots(4), jnp.asarray(ODDS[0][:, None]), (3, 4), 2)
    expected = (probabilities * np.log(probabilities / probabilities[0])).sum(axis=(1, 2))
    np.testing.assert_allclose(kl(q, prior), expected, rtol=1e-4, atol=1e-6)
    assert q.kl(distributions.SequentialCodes(books.OneHots(4), transformer(3, 1, 4), (3, 4), 2)) is NotImplemented
    uniform = distributions.IndependentCodes(books.OneHots(4), jnp.zeros((3, 1, 4)), (3, 4), 2)
    entropy = -(probabilities * np.log(probabilities)).sum(axis=(1, 2))
    np.testing.assert_allclose(kl(q, uniform), 3 * np.log(4) - entropy, rtol=1e-5)


def test_draws_are_one_hot_and_as_frequent_as_their_probabilities():
    q = distributions.OneHot(jnp.broadcast_to(ODDS[:1], (20_000, 3, 4)))
    draws = np.asarray(sample(q, jax.random.key(0)))
    assert ((draws == 0) | (draws == 1)).all()
    assert (draws.sum(axis=-1) == 1).all()
    assert_mean(draws, softmax(ODDS[0].astype(np.float64), axis=-1))
    index = np.asarray(q.indices(draws))
    np.testing.assert_array_equal(index[..., 0], draws.argmax(axis=-1))
    log_p = log_softmax(ODDS[0].astype(np.float64), axis=-1)
    np.testing.assert_allclose(log_prob(q, draws), (draws * log_p).sum(axis=(1, 2)), rtol=1e-5)


def test_soft_draws_become_hard_as_the_temperature_falls():
    q = distributions.OneHot(jnp.asarray(ODDS))
    relaxed = jax.jit(lambda temperature: q.relaxed(jax.random.key(0), temperature))
    soft, hard = relaxed(1e-3)
    np.testing.assert_allclose(soft, hard, atol=1e-3)
    softer, same = relaxed(5.0)
    np.testing.assert_array_equal(same, hard)
    np.testing.assert_allclose(softer.sum(axis=-1), 1, rtol=1e-6)
    assert softer.max() < 0.9


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_the_gradient_of_the_expectation_of_a_soft_draw_tends_to_the_exact_one(temperature):
    """Of f(z) at z ~ q, f not linear: its bias falls with the temperature; that of straight-through does not."""
    target = jnp.asarray([[0.8, -0.3, 0.5]])
    weight = jnp.asarray([[1.0, 3.0, -2.0]])

    def f(z):
        return ((z * weight).sum(axis=-1) - target.sum()) ** 2

    logits = jnp.asarray([0.3, -0.2, 0.1])
    exact = jax.grad(lambda a: (jax.nn.softmax(a) * f(jnp.eye(3))).sum())(logits)

    def soft(a, key):
        return f(distributions.OneHot(a[None, None]).relaxed(key, temperature)[0][:, 0])[0]

    keys = jax.random.split(jax.random.key(0), 40_000)
    gradients = np.asarray(jax.jit(jax.vmap(jax.grad(soft), in_axes=(None, 0)))(logits, keys), np.float64)
    bias = np.abs(gradients.mean(axis=0) - exact)
    error = gradients.std(axis=0) / np.sqrt(len(keys))
    if temperature < 0.5:
        assert (bias < 5 * error + 0.05 * np.abs(exact).max()).all()
    else:
        assert (bias > 5 * error).any()
