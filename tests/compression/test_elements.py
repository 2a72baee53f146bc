"""Integer counts against the distributions they stand for."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from aevae_jax.compression import elements, tables
from aevae_jax.compression.elements import TOTAL


def masses(element):
    """Probabilities `[n, levels]` of a one-dimensional element."""
    n = int(np.prod(element.shape))
    everything = slice(0, n)
    counts = [element.cumulative(np.full(n, k), everything) for k in range(element.levels + 1)]
    return np.diff(np.stack(counts, -1), axis=-1) / (1 << element.precision)


def test_functions_of_integers_are_the_functions():
    t = np.arange(-20 * tables.UNIT, 20 * tables.UNIT, 997)
    steps = np.arange(-20 * tables.STEP, 20 * tables.STEP, 97)
    np.testing.assert_allclose(tables.logistic(steps) / tables.ONE, special.expit(steps / tables.STEP), atol=5e-8)
    np.testing.assert_allclose(tables.normal(t) / tables.ONE, special.ndtr(t / tables.UNIT), atol=8e-6)
    for function in (tables.logistic, tables.normal):
        values = function(np.arange(-tables.UNIT, tables.UNIT))
        assert (np.diff(values) >= 0).all()
        assert function(np.array([-(1 << 40), 1 << 40])).tolist() == [0, tables.ONE]
    i = np.arange(0, 400)
    np.testing.assert_allclose(tables.exponential(i) / 2**30, np.where(i < 336, np.exp(-i / 16), 0), atol=1e-9)
    np.testing.assert_allclose(tables.scales(-40, 40), np.exp(np.arange(-40, 41) / 16), rtol=1e-7)


def test_buckets_have_equal_probability_and_their_middles_lie_in_them():
    made = tables.tables()
    inside = special.ndtr(made.edges / tables.UNIT)
    np.testing.assert_allclose(np.diff(inside), 1 / tables.BUCKETS, atol=1e-5)
    assert (made.edges[:-1] < made.centres).all()
    assert (made.centres < made.edges[1:]).all()


def test_logistics_are_the_rounded_mixture():
    generator = np.random.default_rng(0)
    logits, place = generator.integers(-40, 1, (30, 2)), generator.integers(-100, 16 * 30, (30, 2))
    log_scale = generator.integers(-20, 50, (30, 2))
    element = elements.Logistics(np.concatenate([logits, place, log_scale], -1), 24)
    edges = np.arange(1, 24) - 0.5
    weights = special.softmax(logits / 16, -1)
    distance = (edges[:, None] - place[:, None] / 16) / np.exp(log_scale[:, None] / 16)
    inner = (weights[:, None] * special.expit(distance)).sum(-1)
    expected = np.diff(np.concatenate([np.zeros((30, 1)), inner, np.ones((30, 1))], -1), axis=-1)
    found = masses(element)
    np.testing.assert_allclose(found, expected * (1 - 24 / TOTAL) + 1 / TOTAL, atol=6e-5)
    assert (found > 0).all()
    np.testing.assert_allclose(found.sum(-1), 1)


def test_normals_over_buckets_are_those_of_the_frame():
    place, log_scale = np.array([0, 4096, -6000, 100]), np.array([0, -16, -48, -100])
    found = masses(elements.Gaussians(place, log_scale))
    centres = tables.tables().centres / tables.UNIT
    mean, deviation = place / 4096, np.exp(log_scale / 16)
    np.testing.assert_allclose(found @ centres, mean, atol=2e-3)
    spread = np.sqrt((found * (centres - mean[:, None]) ** 2).sum(-1))
    np.testing.assert_allclose(spread, deviation, rtol=0.01, atol=2e-3)
    upper = special.ndtr((tables.tables().edges[8192] / tables.UNIT - mean) / deviation)
    np.testing.assert_allclose(found[:, :8192].sum(-1), upper, atol=6e-5)


def test_tables_are_the_softmax_and_no_symbol_is_impossible_where_floored():
    logits = np.random.default_rng(1).integers(-500, 1, (20, 40))
    expected = special.softmax(logits / 16, -1)
    np.testing.assert_allclose(masses(elements.Table.of(logits)), expected, atol=40 / TOTAL)
    assert (masses(elements.Table.of(logits)) > 0).all()
    assert (masses(elements.Table.of(logits, floor=0)) == 0).any()


@pytest.mark.parametrize("extreme", [-(2**40), 2**40])
def test_no_parameter_breaks_the_counts(extreme):
    for element in (
        elements.Logistics(np.full((3, 6), extreme), 256),
        elements.Gaussians(np.full(3, extreme), np.full(3, extreme)),
        elements.Table.of(np.array([[0, extreme], [extreme, 0], [extreme, extreme]])),
    ):
        found = masses(element)
        assert (found >= 0).all()
        np.testing.assert_allclose(found.sum(-1), 1)
