"""Loops: which programs hold a convolution, how each is dispatched, and that all ways give the same."""

from __future__ import annotations

import threading
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aevae_jax import cores, keys
from aevae_jax.evaluation import metrics
from aevae_jax.models import VAE, Autoencoder
from aevae_jax.models.architectures import MLP, Conv, Modules, ResidualConv
from aevae_jax.objectives.losses import ELBO, ReconstructionError
from aevae_jax.training import loops, step as training

THEIRS = Modules(nn.Sequential([nn.Conv(1, (3, 3)), lambda x: x.reshape(len(x), -1), nn.Dense(4)]), nn.Dense(36))
"""With a convolution of Flax, whose gradients XLA runs slowly inside a loop."""

NETWORKS = [
    (VAE(latent=2, network=MLP(hidden=(5,)), event_shape=(6, 6, 1)), False),
    (VAE(latent=2, network=MLP(hidden=(5,), gated=True), event_shape=(6, 6, 1)), False),
    (VAE(latent=2, network=Conv(channels=(2,)), event_shape=(6, 6, 1)), False),
    (Autoencoder(latent=2, network=ResidualConv(channels=(2,)), event_shape=(6, 6, 1)), False),
    (VAE(latent=2, network=THEIRS, event_shape=(6, 6, 1)), True),
]


@pytest.mark.parametrize(("model", "expected"), NETWORKS)
def test_convolutions_are_found(monkeypatch, model, expected):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")  # elsewhere all are those of lax
    tx = optax.adam(1e-2)
    step = training.make_train_step(model, ELBO() if isinstance(model, VAE) else ReconstructionError(), tx)
    state = jax.eval_shape(lambda k: training.init_state(model, tx, k), keys.root(0))

    def body(state, context, rows):
        return step(state, context[0][rows], context[1])

    context = (jax.ShapeDtypeStruct((40, 6, 6, 1), jnp.float32), keys.root(0))
    assert loops.has_convolution(body, state, context, jnp.zeros((4, 10), int)) is expected


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

    def scan(function, carry, xs):
        calls["scan"] += 1
        return carry, xs

    def body(carry, context, x):
        calls["step"] += 1
        return carry, x

    monkeypatch.setattr(jax.lax, "scan", scan)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(loops, "has_convolution", lambda *arguments: with_convolution)
    with jax.disable_jit():
        _, ys = loops.scan(body, (), (), {"a": jnp.arange(3)})
    assert np.array_equal(ys["a"], np.arange(3))
    assert calls == {"scan": scans, "step": 3 * (1 - scans)}


@pytest.mark.parametrize(
    ("backend", "with_convolution", "whole"),
    [("cpu", False, True), ("cpu", True, False), ("gpu", True, True), ("tpu", True, True)],
)
def test_parts_of_a_scan_are_dispatched_as_it_is(monkeypatch, backend, with_convolution, whole):
    calls = []

    def body(carry, context, x):
        calls.append("step")
        return carry, x

    monkeypatch.setattr(jax.lax, "fori_loop", lambda start, stop, step, loop: calls.append("scan") or loop)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(loops, "has_convolution", lambda *arguments: with_convolution)
    with jax.disable_jit():
        loops.scan_between(body, (), (), np.arange(5), np.zeros(5, int), start=1, stop=4)
    assert calls == (["scan"] if whole else ["step"] * 3)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("predicate", [True, False])
def test_a_choice_is_the_first_where_the_predicate_holds(monkeypatch, backend, predicate):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    a, b = jnp.arange(3), jnp.asarray(2)

    def first(a, b):
        return {"x": a + b, "y": (b,)}

    def second(a, b):
        return {"x": a * b, "y": (-b,)}

    found = loops.cond(jnp.asarray(predicate), first, second, a, b)
    assert jax.tree.map(lambda v: v.tolist(), found) == (
        {"x": [2, 3, 4], "y": (2,)} if predicate else {"x": [0, 2, 4], "y": (-2,)}
    )


def test_there_is_room_for_the_outputs_of_every_step():
    x = {"a": jnp.zeros((7, 5, 1)), "n": jnp.zeros(7, jnp.int32)}
    found = loops.empty_outputs(blur, {"sum": jnp.zeros((5, 1))}, jnp.ones((3, 1, 1)), x, 9)
    assert {name: (type(a), a.shape, a.dtype.name) for name, a in found.items()} == {
        "total": (np.ndarray, (9,), "float32"),
        "count": (np.ndarray, (9,), "int32"),
    }
    assert not any(a.any() for a in found.values())


def test_a_body_is_traced_once_whatever_is_asked_of_it():
    """For its outputs, its largest array, whether it has convolutions, and to be run."""
    traced = []

    def body(carry, context, x):
        traced.append(x.shape)
        return carry + x, {"y": x * context}

    arguments = jnp.zeros(3), jnp.ones(()), jnp.ones((4, 3))
    ys = loops.empty_outputs(body, *arguments, 4)
    assert not loops.has_convolution(body, *arguments)
    assert loops.largest_array(body, *arguments) == 12
    carry, _ = loops.scan(body, *arguments)
    loops.scan_between(body, carry, *arguments[1:], ys, start=1, stop=3)
    assert traced == [(3,)]


def test_the_largest_array_is_that_of_most_bytes_in_inner_programs_too():
    """Twelve bytes of floats are more than ten of int8; inside the branch that is not taken there are 28."""

    def small(x):
        return jnp.broadcast_to(x.astype(jnp.int8), (10,)), jnp.broadcast_to(x, (3,))

    def branched(x):
        return jax.lax.cond(x > 0, lambda: x, lambda: jnp.broadcast_to(x, (7,)).sum())

    one = jax.ShapeDtypeStruct((), jnp.float32)
    assert loops.largest(jax.make_jaxpr(small)(one).jaxpr) == ((3,), 12)
    assert loops.largest(jax.make_jaxpr(jax.jit(branched))(one).jaxpr) == ((7,), 28)
    assert loops.largest(jax.make_jaxpr(lambda x: x)(one).jaxpr) == ((), 0)
    steps = jnp.zeros((50, 6))  # of which a step sees six numbers
    assert loops.largest_array(lambda carry, context, x: (carry, x + context), (), jnp.ones(()), steps) == 24


@pytest.mark.parametrize(("model", "expected"), NETWORKS)
def test_convolutions_are_found_in_evaluation(monkeypatch, model, expected):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    shapes = jax.eval_shape(model.init, keys.root(0))
    params, found = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), shapes), []

    def scan(*arguments):
        found.append(loops.has_convolution(*arguments))
        raise StopIteration

    monkeypatch.setattr(loops, "scan", scan)
    with pytest.raises(StopIteration):
        metrics.per_example(
            metrics.bound_terms, model, params, np.zeros((9, 6, 6, 1), np.float32), keys.root(0), batch_size=3
        )
    assert found == [expected]


def blur(carry, context, x):
    """A step with a convolution, a carry and two outputs."""
    moved = jax.lax.conv_general_dilated(x["a"][None], context, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))
    carry = {"sum": 0.5 * carry["sum"] + moved[0]}
    return carry, {"total": carry["sum"].sum(), "count": x["n"] + 1}


def test_steps_and_scan_give_the_same_carry_and_stacked_outputs(monkeypatch):
    x = {"a": jnp.asarray(np.random.RandomState(0).rand(7, 5, 1), jnp.float32), "n": jnp.arange(7)}
    kernel = jnp.array([0.25, 0.5, 0.25]).reshape(3, 1, 1)
    carry, expected = np.zeros((5, 1)), []
    for row in np.asarray(x["a"], np.float64):
        padded = np.pad(row, ((1, 1), (0, 0)))
        carry = 0.5 * carry + 0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:]
        expected.append(carry.sum())
    for stepped in (True, False):
        monkeypatch.setattr(loops, "has_convolution", lambda *_, stepped=stepped: stepped)
        start = {"sum": jnp.zeros((5, 1))}
        last, ys = loops.scan(blur, start, kernel, x)
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
        before = carry
        carry, ys = loops.scan_between(body, carry, jnp.asarray(2), xs, ys, start=start, stop=stop, first=first)
        assert before.is_deleted()  # the carry is donated
    assert int(carry) == 2 * 21
    assert np.asarray(ys).tolist() == [0, 0, 2, 6, 12, 20, 30]


@pytest.mark.parametrize(("number", "members"), [(0, 3), (1, 3), (2, 3), (5, 10), (5, 3)], ids=str)
@pytest.mark.parametrize(("start", "stop"), [(3, 7), (4, 5), (2, 2)])
def test_members_take_the_steps_that_each_would_take_alone(monkeypatch, number, members, start, stop):
    """Also where cores (0: an accelerator) do not divide their number, in an odd number of steps, of later rows."""
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu" if number else "gpu")
    monkeypatch.setattr(cores, "available", lambda: number)
    calls, scan_between, pools, executor = [], loops.scan_between, [], loops.ThreadPoolExecutor
    monkeypatch.setattr(loops, "ThreadPoolExecutor", lambda workers: pools.append(workers) or executor(workers))
    monkeypatch.setattr(loops, "scan_between", lambda *a, **span: calls.append(span) or scan_between(*a, **span))
    traced = []

    def body(carry, context, x):
        shared, (own, power) = context
        traced.append(x)
        return {"a": carry["a"] * power + shared[x] + own}, carry["a"].sum()

    shared, carry = np.arange(10.0, dtype=np.float32), np.arange(2 * members, dtype=np.float32).reshape(members, 2)
    own, power = np.resize(np.float32([[1, 2, 4], [0.5, 1, 2]]), (2, members))
    rows = np.arange(6 * members, dtype=np.int32).reshape(6, members) % 7
    context, xs, device = (shared, (own, power)), rows, jax.device_put
    ys = loops.empty_outputs_of_members(body, {"a": carry}, context, xs, 8)
    assert (ys.shape, ys.dtype) == ((8, members), np.float32)
    arguments = device(({"a": carry}, context, xs))
    found, ys = loops.scan_members_between(body, *arguments, ys, start=start, stop=stop, first=2)
    expected, outputs = carry.copy(), np.zeros((8, members))
    for step in range(start, stop):
        outputs[step] = expected.sum(axis=1)
        expected = expected * power[:, None] + shared[rows[step - 2]][:, None] + own[:, None]
    np.testing.assert_array_equal(found["a"], expected)
    np.testing.assert_array_equal(ys, outputs)
    assert len(traced) == 1
    if number:
        assert pools == [number]
        assert len(calls) == members * (2 if (number, members) == (2, 3) else 1)  # halves where one of them would idle
    else:
        assert (pools, len(calls)) == ([], 1)


@pytest.mark.parametrize("devices", [1, 2])
def test_members_are_computed_one_by_one_where_there_are_several_devices(monkeypatch, devices):
    """Programs of several devices that are begun at once, in different orders, may wait for one another for good."""
    pools, executor = [], loops.ThreadPoolExecutor
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    monkeypatch.setattr(jax, "local_device_count", lambda: devices)
    monkeypatch.setattr(cores, "available", lambda: 3)
    monkeypatch.setattr(loops, "ThreadPoolExecutor", lambda workers: pools.append(workers) or executor(workers))
    carry, rows, ys = jnp.arange(2), jnp.arange(4).reshape(2, 2), jnp.zeros((2, 2), int)

    def body(carry, context, x):
        return carry + x, carry

    found, _ = loops.scan_members_between(body, carry, (None, jnp.zeros(2)), rows, ys, start=0, stop=2)
    assert found.tolist() == [2, 5]
    assert len(pools) == 1
    assert pools == [1] or devices == 1


def of_members(count):
    """Arguments for members that count their steps, two each."""
    carry, rows, ys = jnp.zeros(count, int), jnp.ones((2, count), int), jnp.zeros((2, count), int)
    return lambda carry, context, x: (carry + x, carry), carry, (None, jnp.zeros(count)), rows, ys


def test_one_member_compiles_and_then_as_many_are_computed_at_a_time_as_there_are_cores(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    monkeypatch.setattr(cores, "available", lambda: 2)
    running, seen, lock, scan_between = set(), [], threading.Lock(), loops.scan_between

    def noted(*arguments, **span):
        with lock:
            running.add(threading.get_ident())
            seen.append(len(running))
        time.sleep(0.05)
        found = jax.block_until_ready(scan_between(*arguments, **span))
        with lock:
            running.remove(threading.get_ident())
        return found

    monkeypatch.setattr(loops, "scan_between", noted)
    assert loops.scan_members_between(*of_members(6), start=0, stop=2)[0].tolist() == 6 * [2]
    assert seen[:2] == [1, 1]  # the second begins when the first has ended
    assert max(seen) == 2


def test_no_member_begins_after_an_error(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    monkeypatch.setattr(cores, "available", lambda: 2)
    begun = []

    def failing(*arguments, **span):
        begun.append(1)
        time.sleep(0.01)
        if len(begun) > 1:
            raise ValueError("no")
        return arguments[1], arguments[4]

    monkeypatch.setattr(loops, "scan_between", failing)
    with pytest.raises(ValueError, match="no"):
        loops.scan_members_between(*of_members(400), start=0, stop=2)
    assert len(begun) < 200


def test_threads_keep_the_order_and_runs_the_first_alone_then_two(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    running, seen, lock = set(), [], threading.Lock()

    def work(item):
        with lock:
            running.add(item)
            seen.append((item, len(running)))
        time.sleep(0.05)
        with lock:
            running.remove(item)
        return item**2

    assert list(loops.map_in_threads(work, iter(range(6)))) == [0, 1, 4, 9, 16, 25]
    assert seen[0] == (0, 1)
    assert seen[1][1] == 1
    assert max(count for _, count in seen) == 2
    assert list(loops.map_in_threads(work, [])) == []


def test_threads_begin_nothing_more_after_an_error():
    done = []

    def work(item):
        if item == 1:
            raise ValueError("no")
        time.sleep(0.02)
        done.append(item)

    with pytest.raises(ValueError, match="no"):
        list(loops.map_in_threads(work, range(1000)))
    assert len(done) < 500


@pytest.mark.parametrize(("backend", "devices"), [("gpu", 1), ("cpu", 2)])
def test_threads_take_one_at_a_time_elsewhere(monkeypatch, backend, devices):
    threads = []
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(jax, "local_device_count", lambda: devices)
    found = loops.map_in_threads(lambda item: threads.append(threading.get_ident()) or item, range(5))
    assert list(found) == [*range(5)]
    assert threads == 5 * [threading.get_ident()]
