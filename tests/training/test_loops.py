"""Loops: which programs hold a convolution, how each is dispatched, and that all ways give the same."""

from __future__ import annotations

import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aevae_jax import keys
from aevae_jax.evaluation import metrics
from aevae_jax.models.architectures import MLP, Conv, ResidualConv
from aevae_jax.models.vae import VAE, Autoencoder
from aevae_jax.objectives.losses import ELBO, ReconstructionError
from aevae_jax.training import loops, step as training

NETWORKS = [
    (VAE(latent=2, network=MLP(hidden=(5,)), event_shape=(6, 6, 1)), False),
    (VAE(latent=2, network=MLP(hidden=(5,), gated=True), event_shape=(6, 6, 1)), False),
    (VAE(latent=2, network=Conv(channels=(2,)), event_shape=(6, 6, 1)), True),
    (Autoencoder(latent=2, network=ResidualConv(channels=(2,)), event_shape=(6, 6, 1)), True),
]


@pytest.mark.parametrize(("model", "expected"), NETWORKS)
def test_convolutions_are_found(model, expected):
    tx = optax.adam(1e-2)
    step = training.make_train_step(model, ELBO() if isinstance(model, VAE) else ReconstructionError(), tx)
    state = jax.eval_shape(lambda k: training.init_state(model, tx, k), keys.root(0))
    context = (jax.ShapeDtypeStruct((40, 6, 6, 1), jnp.float32), keys.root(0))
    assert loops.has_convolution(training._body(step, False), state, context, jnp.zeros((4, 10), int)) is expected


def test_convolutions_are_found_inside_control_flow():
    kernel = jnp.ones((3, 1, 1))

    def conv(x):
        return jax.lax.conv_general_dilated(x, kernel, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))

    def body(carry, context, x):
        return carry, jax.lax.cond(x.sum() > 0, lambda: jax.lax.map(conv, x[None])[0], lambda: x)

    assert loops.has_convolution(body, (), (), jnp.ones((2, 1, 5, 1)))


@pytest.mark.parametrize(
    ("backend", "with_convolution", "scans"), [("cpu", False, 1), ("cpu", True, 0), ("gpu", True, 1), ("tpu", True, 1)]
)
def test_only_convolutions_on_a_cpu_are_stepped(monkeypatch, backend, with_convolution, scans):
    calls = {"scan": 0, "step": 0}

    def scan(body, carry, context, xs):
        calls["scan"] += 1
        return carry, xs

    def step(body, carry, context, x):
        calls["step"] += 1
        return carry, x

    monkeypatch.setattr(loops, "_scan", scan)
    monkeypatch.setattr(loops, "_step", step)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(loops, "has_convolution", lambda *arguments: with_convolution)
    _, ys = loops.scan(lambda c, k, x: (c, x), (), (), {"a": jnp.arange(3)})
    assert np.array_equal(ys["a"], np.arange(3))
    assert calls == {"scan": scans, "step": 3 * (1 - scans)}


@pytest.mark.parametrize(("model", "expected"), NETWORKS)
def test_convolutions_are_found_in_evaluation(model, expected):
    params = jax.eval_shape(model.init, keys.root(0))
    context = (params, jax.ShapeDtypeStruct((9, 6, 6, 1), jnp.float32), keys.root(0), jnp.asarray(0))
    body = metrics._metric_body(metrics.bound_terms, model)
    assert loops.has_convolution(body, (), context, jnp.zeros((3, 3), int)) is expected


def blur(carry, context, x):
    """A step with a convolution, a carry and two outputs."""
    moved = jax.lax.conv_general_dilated(x["a"][None], context, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))
    carry = {"sum": 0.5 * carry["sum"] + moved[0]}
    return carry, {"total": carry["sum"].sum(), "count": x["n"] + 1}


def test_steps_and_scan_give_the_same_carry_and_stacked_outputs():
    x = {"a": jnp.asarray(np.random.RandomState(0).rand(7, 5, 1), jnp.float32), "n": jnp.arange(7)}
    kernel = jnp.array([0.25, 0.5, 0.25]).reshape(3, 1, 1)
    carry, expected = np.zeros((5, 1)), []
    for row in np.asarray(x["a"], np.float64):
        padded = np.pad(row, ((1, 1), (0, 0)))
        carry = 0.5 * carry + 0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:]
        expected.append(carry.sum())
    for run in (loops.scan, loops._scan):
        start = {"sum": jnp.zeros((5, 1))}
        last, ys = run(blur, start, kernel, x)
        np.testing.assert_allclose(last["sum"], carry, rtol=1e-6)
        np.testing.assert_allclose(ys["total"], expected, rtol=1e-6)
        assert ys["count"].tolist() == list(range(1, 8))
        assert start["sum"].is_deleted()  # the carry is donated


@pytest.mark.parametrize("stepped", [True, False])
def test_steps_of_a_later_span_see_its_own_rows(monkeypatch, stepped):
    monkeypatch.setattr(loops, "has_convolution", lambda *arguments: stepped)

    def body(carry, context, x):
        return carry + context * x, carry

    carry, ys = jnp.asarray(0), np.zeros(7, int)
    for start, stop, first in ((0, 3, 0), (3, 4, 3), (4, 6, 3), (6, 7, 3)):
        xs = np.arange(3) if first == 0 else np.arange(3, 7)
        carry, ys = loops.scan_between(body, carry, jnp.asarray(2), xs, ys, start=start, stop=stop, first=first)
    assert int(carry) == 2 * 21
    assert np.asarray(ys).tolist() == [0, 0, 2, 6, 12, 20, 30]


def test_side_by_side_keeps_the_order_and_runs_the_first_alone_then_two():
    running, seen, lock = set(), [], threading.Lock()

    def work(item):
        with lock:
            running.add(item)
            seen.append((item, len(running)))
        time.sleep(0.05)
        with lock:
            running.remove(item)
        return item**2

    assert list(loops.side_by_side(work, iter(range(6)))) == [0, 1, 4, 9, 16, 25]
    assert seen[0] == (0, 1)
    assert max(count for _, count in seen) == 2
    assert list(loops.side_by_side(work, [])) == []


def test_side_by_side_begins_nothing_more_after_an_error():
    done = []

    def work(item):
        if item == 1:
            raise ValueError("no")
        time.sleep(0.02)
        done.append(item)

    with pytest.raises(ValueError, match="no"):
        list(loops.side_by_side(work, range(1000)))
    assert len(done) < 500


def test_side_by_side_takes_one_at_a_time_elsewhere(monkeypatch):
    threads = set()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    list(loops.side_by_side(lambda item: threads.add(threading.get_ident()), range(5)))
    assert threads == {threading.get_ident()}
