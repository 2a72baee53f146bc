"""Which examples each step sees: by key and step alone, on the device or from windows of a stream."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aevae_jax import keys
from aevae_jax.data import streams
from aevae_jax.runs.batches import Batches
from aevae_jax.training.devices import Layout

X = np.arange(23 * 5, dtype=np.uint8).reshape(23, 5)
BATCH, STEPS = 4, 5


@pytest.fixture(scope="module")
def of_seeds():
    """Batches of three seeds."""
    key = jax.vmap(keys.root)(jnp.array([7, 8, 5], jnp.uint32))
    return Batches(X, key, BATCH, Layout(), stream=False)


def test_every_seed_sees_each_example_at_most_once_an_epoch_in_an_order_of_its_own(of_seeds):
    rows = np.array([of_seeds.rows_of(step) for step in range(3 * STEPS)]).reshape(3, STEPS, 3, BATCH)
    orders = {tuple(rows[epoch, :, s].ravel()) for epoch in range(3) for s in range(3)}
    assert len(orders) == 9
    for order in orders:
        assert len(set(order)) == STEPS * BATCH
        assert set(order) <= set(range(23))


@pytest.mark.parametrize("first", [0, 3, STEPS + 1])
def test_windows_of_a_stream_hold_the_batches_of_resident_data_from_any_step_on(monkeypatch, first):
    monkeypatch.setattr(streams, "WINDOW_BYTES", 2 * BATCH * 5)  # two steps each
    resident, streamed = (Batches(X, keys.root(3), BATCH, Layout(), stream=stream) for stream in (False, True))
    lengths = set()
    for step in range(first, 2 * STEPS):
        expected = X[resident.rows_of(step)]
        for batches in (resident, streamed):
            chunk = batches.chunk_at(step)
            rows = np.asarray(chunk.rows)[step % STEPS - chunk.first]
            np.testing.assert_array_equal(np.asarray(chunk.data)[rows], expected)
        lengths.add(len(chunk.rows))
    assert lengths == {2}


def test_an_epoch_is_put_in_order_once(of_seeds):
    assert of_seeds.chunk_at(STEPS + 1) is of_seeds.chunk_at(2 * STEPS - 1)
    assert of_seeds.chunk_at(2 * STEPS) is not of_seeds.chunk_at(2 * STEPS - 1)


def test_shapes_are_those_of_an_epoch(of_seeds):
    chunk, shapes = of_seeds.chunk_at(0), of_seeds.shapes()
    for part in ("data", "rows"):
        found, expected = getattr(chunk, part), getattr(shapes, part)
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
