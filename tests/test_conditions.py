"""Rows with what is known of each example: they are indexed, streamed and measured as rows without it are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aevae_jax import conditions, distributions
from aevae_jax.conditions import Conditioned
from aevae_jax.data import streams
from aevae_jax.evaluation import metrics
from aevae_jax.models import VAE
from aevae_jax.runs.batches import Batches
from aevae_jax.training.devices import Layout
from aevae_jax.types import InputError

COUNT = 23
X = np.arange(COUNT * 3, dtype=np.float32).reshape(COUNT, 3)
LABEL = (np.arange(COUNT) % 5).astype(np.int32)
ROWS = Conditioned(X, {"label": LABEL, "vector": X[:, :2] + 0.5})


@dataclass(frozen=True)
class Scaled:
    """A model of one's own, whose posterior and prior are at the label: what reaches it can be read off."""

    def init(self, key):
        return {"w": jnp.asarray(2.0)}

    def given(self, condition):
        return conditions.Given(self, conditions.parts(condition)["label"])

    def encode(self, params, x, label):
        return distributions.Delta(params["w"] * x + label[:, None])

    def decode(self, params, z, label):
        return distributions.Normal(z, jnp.zeros_like(z))

    def prior(self, params, n, label):
        return distributions.Normal(jnp.broadcast_to(label[:, None], (n, 3)), jnp.zeros((n, 3)))


def seen(model: Any, params: Any, x: Any, key: Any) -> dict[str, Any]:
    """A metric: the code, which tells x and label, and the noise."""
    return {"code": model.encode(params, x).mean(), "u": jax.random.uniform(key, (len(x),))}


EXPECTED = 2 * X + LABEL[:, None]


def test_rows_are_indexed_with_what_is_known_of_them():
    for rows in (slice(3, 9), np.array([7, 0, 7])):
        part = ROWS[rows]
        np.testing.assert_array_equal(part.x, X[rows])
        np.testing.assert_array_equal(part.condition["label"], LABEL[rows])
        np.testing.assert_array_equal(part.condition["vector"], X[rows, :2] + 0.5)
    assert len(ROWS[3:9]) == 6


def test_rows_are_taken_for_no_array_and_no_sequence():
    """Else the condition would be lost on the way, without a word."""
    with pytest.raises(TypeError, match=r"take \.x"):
        np.asarray(ROWS)
    with pytest.raises(TypeError, match=r"take \.x"):
        list(ROWS)


@pytest.mark.parametrize("batch_size", [1, 4, COUNT])
def test_a_metric_sees_each_example_at_its_own_condition(batch_size):
    found = metrics.per_example(seen, Scaled(), {"w": 2.0}, ROWS, jax.random.key(0), batch_size=batch_size)
    np.testing.assert_allclose(found["code"], EXPECTED)
    plain = metrics.per_example(_noise, Scaled(), {"w": 2.0}, X, jax.random.key(0), batch_size=batch_size)
    np.testing.assert_array_equal(found["u"], plain["u"])  # a condition changes no noise


def _noise(model, params, x, key):
    return {"u": jax.random.uniform(key, (len(x),))}


def test_rows_that_are_not_in_memory_are_measured_in_windows(monkeypatch, tmp_path):
    np.save(tmp_path / "x.npy", X)
    monkeypatch.setattr(metrics, "WINDOW_BYTES", 5 * X[0].nbytes)
    rows = Conditioned(np.load(tmp_path / "x.npy", mmap_mode="r"), ROWS.condition)
    found = metrics.per_example(seen, Scaled(), {"w": 2.0}, rows, jax.random.key(0), batch_size=2)
    np.testing.assert_allclose(found["code"], EXPECTED)


@pytest.mark.parametrize("stream", [False, True])
def test_batches_of_a_training_have_the_conditions_of_their_examples(stream, monkeypatch):
    """Resident or streamed: the same examples, with what is known of each."""
    if stream:
        pytest.importorskip("grain")
        monkeypatch.setattr(streams, "WINDOW_BYTES", 3 * 5 * X[0].nbytes)
    batches = Batches(ROWS, jax.random.key(0), 5, Layout(), stream=stream)
    found = []
    for step in range(4):
        chunk = batches.chunk_at(step)
        rows = chunk.rows[step - chunk.first]
        found.append(jax.tree.map(lambda a, rows=rows: np.asarray(a)[rows], chunk.data))
        wanted = ROWS[batches.rows_of(step)]
        jax.tree.map(np.testing.assert_array_equal, found[-1], wanted)
    assert len(np.unique(np.concatenate([batch.x[:, 0] for batch in found]))) == 20
    shapes, wanted = (jax.tree.leaves(rows) for rows in (batches.shapes().data, ROWS))
    assert [(a.shape, a.dtype) for a in shapes] == [(a.shape, a.dtype) for a in wanted]


def test_a_plain_batch_meets_the_model_as_it_is():
    model = VAE()
    assert conditions.bound_to(model, X) == (model, X)
    assert conditions.in_training(model, X, jax.random.key(0), jnp.asarray(0)) is X
    assert conditions.with_examples(X, lambda x: x) is X


def test_a_model_that_takes_no_condition_says_so():
    with pytest.raises(InputError, match="condition: got one for a VAE, expected a model that takes one"):
        conditions.bound_to(VAE(), ROWS)


def test_a_model_of_other_numbers_is_bound_to_the_same_condition():
    """As members of a sweep are, whose metric is given the model of the first of them."""
    bound = Scaled().given(ROWS.condition)
    again = conditions.rebound(Scaled(), bound)
    np.testing.assert_array_equal(again.encode({"w": 2.0}, X).mean(), EXPECTED)
    assert conditions.rebound(VAE(), VAE(3)) == VAE()
