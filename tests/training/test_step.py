"""Training: what a step computes, in which order, how often it is traced, and how its loop is dispatched."""

from __future__ import annotations

import math
import statistics
import time
from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend.core import Primitive
from jax.interpreters import mlir

from aevae_jax import keys
from aevae_jax.models import VAE, likelihoods, priors
from aevae_jax.models.architectures import MLP, Conv, ResidualConv
from aevae_jax.objectives.losses import ELBO
from aevae_jax.training import loops, step as training
from aevae_jax.training.optimizers import AdamW
from aevae_jax.types import InputError

DENSE = VAE(latent=2, network=MLP(hidden=(5,)), event_shape=(6, 6, 1))
CONVOLUTIONAL = VAE(latent=2, network=Conv(channels=(2,)), event_shape=(6, 6, 1))


class Point:
    """The smallest thing that can be trained: one number. Only `init` of the contract is needed for that."""

    def init(self, key):
        del key
        return {"w": jnp.zeros(())}


def squares(model, params, batch, key, step):
    """Half the squared distance of `w` from the mean of the batch; also what the step was given."""
    x, labels = batch
    loss = 0.5 * (params["w"] - x.mean()) ** 2
    return loss, {"x": x, "labels": labels, "noise": jax.random.uniform(key), "step": step}


def point_data(count=20):
    """Examples that carry their own index, and labels that can be told from it."""
    return jnp.arange(count, dtype=jnp.float32), jnp.arange(count) + 100


@pytest.fixture(scope="module")
def point_step():
    return training.make_train_step(Point(), squares, optax.sgd(0.5), ema_decay=0.6)


@pytest.fixture
def point_state():
    return training.init_state(Point(), optax.sgd(0.5), keys.root(0), ema=True)


def images(count=40):
    return np.random.RandomState(0).randint(0, 256, (count, 6, 6, 1)).astype(np.uint8)


def scaled(batch, key):
    del key
    return batch.astype(jnp.float32) / 255


class Trained(NamedTuple):
    """A VAE after three epochs of four steps, and what that took."""

    step: training.TrainStep
    start: training.TrainState
    state: training.TrainState
    losses: np.ndarray
    objective_calls: int
    programs: int
    """Those that compute the objective."""


def train_epoch(trained, state, steps=None):
    """From a copy of the state, since it is donated."""
    copy = jax.tree.map(jnp.copy, state)
    return training.train_epoch(trained.step, copy, jnp.asarray(images()), keys.root(0), batch_size=10, steps=steps)


@pytest.fixture(scope="module", params=[DENSE, CONVOLUTIONAL], ids=["dense", "convolutional"])
def trained(request):
    calls, programs = [], []
    seen = Primitive("seen")  # the identity; it is known when a program with it is lowered, to be compiled
    seen.def_abstract_eval(lambda x: x)
    mlir.register_lowering(seen, lambda context, x: programs.append(x) or [x])

    def counted(model, params, x, key, step):
        calls.append(x)
        return ELBO()(model, params, seen.bind(x), key, step)

    tx = optax.adam(1e-2)
    step = training.make_train_step(request.param, counted, tx, prepare=scaled, ema_decay=0.9)
    start = jax.jit(lambda k: training.init_state(request.param, tx, k, ema=True))(keys.root(0))
    result = Trained(step, start, start, np.zeros(0), 0, 0)
    for _ in range(3):
        state, metrics = train_epoch(result, result.state)
        result = result._replace(state=state, losses=np.append(result.losses, metrics["loss"]))
    return result._replace(objective_calls=len(calls), programs=len(programs))


# what a step computes


def test_a_plain_function_trains_on_a_pytree_as_computed_by_hand(point_step, point_state):
    _, metrics = training.train_epoch(point_step, point_state, point_data(), keys.root(0), batch_size=5)
    assert metrics["x"].shape == (4, 5)
    assert np.array_equal(metrics["labels"], metrics["x"] + 100)
    w = 0.0
    for x, loss, norm in zip(metrics["x"], metrics["loss"], metrics["gradient_norm"], strict=True):
        gradient = w - float(x.mean())
        assert float(loss) == pytest.approx(0.5 * gradient**2, rel=1e-6)
        assert float(norm) == pytest.approx(abs(gradient), rel=1e-6)
        w -= 0.5 * gradient


def test_a_gradient_whose_norm_overflows_is_not_used(point_state):
    """Every entry is finite, and so is the loss; the square is not."""

    def steep(model, params, batch, key, step):
        return 1e30 * params["w"], {}

    step = training.make_train_step(Point(), steep, optax.sgd(0.5))
    state, metrics = step(point_state, point_data(), keys.root(0))
    assert metrics["skipped"] == 1
    assert np.isinf(metrics["gradient_norm"])
    assert state.params["w"] == 0


@pytest.mark.parametrize(
    ("objective", "skipped"),
    [
        (lambda w: -3.0 * w, 0),  # a norm of 3, the largest that is allowed
        (lambda w: -3.001 * w, 1),
        (lambda w: w + jnp.inf, 1),
        (lambda w: w + jnp.nan, 1),
        (lambda w: jnp.sqrt(jnp.abs(w)) * 0.0, 1),  # of which only the derivative is no number
    ],
)
def test_a_step_that_is_not_used_changes_the_count_of_steps_alone(objective, skipped):
    """Of Adam, whose state would move even if the parameters did not; the loss is the one that was minimised."""
    tx = optax.adam(0.5)
    step = training.make_train_step(
        Point(),
        lambda model, params, *_: (objective(params["w"]), {"of": params["w"]}),
        tx,
        ema_decay=0.5,
        max_norm=3.0,
    )
    start = training.init_state(Point(), tx, keys.root(0), ema=True)._replace(step=jnp.int32(7))
    state, metrics = step(start, jnp.zeros(2), keys.root(0))
    assert float(metrics["skipped"]) == skipped
    assert set(metrics) == {"of", "loss", "gradient_norm", "skipped"}
    assert int(state.step) == 8
    same = jax.tree.map(lambda a, b: bool(a == b), start[1:], state[1:])
    assert jax.tree.leaves(same) == [bool(skipped)] * len(jax.tree.leaves(same))


def test_what_an_objective_calls_its_loss_is_reported_and_the_norm_of_the_gradient_is_whole():
    class Pair:
        def init(self, key):
            return {"a": jnp.array([1.0, 2.0]), "b": jnp.array(3.0)}

    def objective(model, params, batch, key, step):
        return 3.0 * params["a"][0] + 4.0 * params["b"] + 12.0 * params["a"][1], {"loss": 7.0, "gradient_norm": 0.0}

    step = training.make_train_step(Pair(), objective, optax.sgd(0.1))
    _, metrics = step(training.init_state(Pair(), optax.sgd(0.1), keys.root(0)), jnp.zeros(2), keys.root(0))
    assert float(metrics["loss"]) == 7
    assert float(metrics["gradient_norm"]) == pytest.approx(13)


def test_moving_average_follows_its_formula(point_step, point_state):
    data, key = point_data(), keys.root(0)
    average, state = 0.0, point_state
    for t in range(4):
        state, _ = training.train_epoch(point_step, state, data, key, batch_size=5, steps=1)
        decay = min(0.6, (1 + t) / (10 + t))
        average = decay * average + (1 - decay) * float(state.params["w"])
        assert float(state.ema["w"]) == pytest.approx(average, rel=1e-6)
        assert float(state.averaged["w"]) == float(state.ema["w"]) != float(state.params["w"])
    assert int(state.step) == 4


def test_late_moving_average_uses_the_given_decay(point_step, point_state):
    late = point_state._replace(step=jnp.int32(1000), params={"w": jnp.float32(1.0)}, ema={"w": jnp.float32(10.0)})
    before = float(late.ema["w"])
    after, _ = point_step(late, (jnp.full(5, 1.0), jnp.zeros(5)), keys.root(0))  # at its optimum, w stays
    assert float(after.params["w"]) == 1.0
    assert float(after.ema["w"]) == pytest.approx(0.6 * before + 0.4 * 1.0, rel=1e-6)


def test_without_a_moving_average_the_parameters_are_evaluated():
    state = training.init_state(Point(), optax.sgd(0.5), keys.root(0))
    assert state.ema is None
    assert state.averaged is state.params


def test_noise_of_a_step_is_a_function_of_root_key_and_step(point_step, point_state):  # mistake 31
    key = keys.root(5)
    _, metrics = training.train_epoch(point_step, point_state, point_data(), key, batch_size=5)
    expected = [jax.random.uniform(keys.stream(key, keys.Stream.NOISE, t)) for t in range(4)]
    assert np.array_equal(metrics["noise"], np.asarray(expected))
    assert len(np.unique(metrics["noise"])) == 4
    assert np.array_equal(metrics["step"], np.arange(4))


def test_preparation_has_a_fresh_key_of_its_own_at_every_step():
    def prepare(batch, key):
        return batch, jax.random.uniform(key)

    def objective(model, params, batch, key, step):
        return params["w"] ** 2, {"prepared": batch[1], "noise": jax.random.uniform(key)}

    step = training.make_train_step(Point(), objective, optax.sgd(0.1), prepare=prepare)
    state = training.init_state(Point(), optax.sgd(0.1), keys.root(0))
    _, metrics = training.train_epoch(step, state, jnp.zeros(20), keys.root(0), batch_size=5)
    expected = [jax.random.uniform(keys.stream(keys.root(0), keys.Stream.PREPARE, t)) for t in range(4)]
    assert np.array_equal(metrics["prepared"], np.asarray(expected))
    assert not set(np.asarray(metrics["prepared"])) & set(np.asarray(metrics["noise"]))
    assert np.array_equal(metrics["loss"], np.zeros(4))  # logged although the objective does not name it


def test_initial_parameters_come_from_their_own_stream():
    class Random:
        def init(self, key):
            return {"w": jax.random.normal(key, (2,))}

    state = training.init_state(Random(), optax.sgd(0.1), keys.root(4))
    assert np.array_equal(state.params["w"], jax.random.normal(keys.stream(keys.root(4), keys.Stream.INIT), (2,)))
    assert int(state.step) == 0


# order


def test_order_is_a_function_of_key_and_epoch():
    order = jax.jit(partial(training.epoch_order, count=50))
    first, again, later = order(keys.root(1), 0), order(keys.root(1), 0), order(keys.root(1), 1)
    other = order(keys.root(2), 0)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, later)
    assert not np.array_equal(first, other)
    assert all(np.array_equal(np.sort(rows), np.arange(50)) for rows in (first, later, other))


def test_the_order_has_a_stream_of_its_own():
    """Stream 1; and the last steps of an epoch are followed by its first ones, where no more is asked for."""

    def order(seed, epoch, count):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), epoch)
        return np.asarray(jax.random.permutation(key, count))

    assert np.array_equal(training.epoch_order(keys.root(3), 2, 11), order(3, 2, 11))
    first, second = (order(3, epoch, 11)[:10].reshape(5, 2) for epoch in (0, 1))
    for step, steps, expected in (
        (0, None, first),
        (3, None, first[[3, 4, 0, 1, 2]]),
        (3, 2, first[3:]),
        (4, 1, first[4:]),
        (5, 1, second[:1]),
        (7, 3, second[2:]),
    ):
        found = training.batch_rows(keys.root(3), jnp.int32(step), 11, batch_size=2, steps=steps)
        assert np.array_equal(found, expected), (step, steps)
    seeds = jax.vmap(keys.root)(jnp.asarray([3, 9], jnp.uint32))
    found = training.batch_rows(seeds, jnp.asarray([6, 6], jnp.int32), 11, batch_size=2, steps=2)
    other = order(9, 1, 11)[:10].reshape(5, 2)
    assert np.array_equal(found, np.stack([second[1:3], other[1:3]], axis=1))


def test_whole_batches_make_an_epoch():
    counts = [training.steps_per_epoch({"x": np.zeros((22, 3)), "y": np.zeros(22)}, size) for size in (1, 5, 11, 22)]
    assert counts == [22, 4, 2, 1]
    for size, hint in ((0, 1), (23, 22)):
        with pytest.raises(InputError, match=f"got {size}, expected 1 to 22, .*; type --batch-size {hint}$"):
            training.steps_per_epoch(np.zeros((22, 3)), size)


@pytest.mark.parametrize("seeds", [0, 2])
def test_batches_from_the_host_are_all_used_in_order(seeds):
    """Three steps of two examples each, of shape [5], for every seed; the first is step 4."""
    key = jax.vmap(keys.root)(jnp.arange(seeds, dtype=jnp.uint32)) if seeds else keys.root(0)
    shape = (3, seeds, 2) if seeds else (3, 2)
    window = {"x": np.random.default_rng(0).integers(0, 256, (*shape, 5), np.uint8), "y": np.arange(math.prod(shape))}
    window["y"] = window["y"].reshape(shape)
    chunk = training.window_chunk(window, key, 4)
    assert chunk.first == 4
    assert chunk.rows.shape == shape
    assert chunk.data["x"].dtype == np.uint8
    for name, whole in window.items():
        assert np.array_equal(np.asarray(chunk.data[name])[np.asarray(chunk.rows)], whole)
    assert training.window_chunk(window, key).first == 0


def test_an_epoch_visits_every_example_at_most_once(point_step, point_state):
    key, state = keys.root(0), point_state
    for epoch in range(3):
        expected = np.asarray(training.epoch_order(key, epoch, 22))[:20].reshape(4, 5)
        state, metrics = training.train_epoch(point_step, state, point_data(22), key, batch_size=5)
        assert np.array_equal(metrics["x"], expected)
        assert len(np.unique(metrics["x"])) == 20


def test_no_example_is_left_out_for_ever(point_step, point_state):
    """22 examples in batches of 5: two sit out each epoch. That one sits out all of 8 has probability 22 (2/22)^8."""
    key, state, seen = keys.root(0), point_state, set()
    for _ in range(8):
        state, metrics = training.train_epoch(point_step, state, point_data(22), key, batch_size=5)
        seen |= set(np.asarray(metrics["x"]).ravel().tolist())
    assert seen == set(range(22))


@pytest.mark.exact
@pytest.mark.parametrize("parts", [(1, 3), (3, 1), (2, 1, 1)])
def test_chunks_of_an_epoch_equal_the_whole_bitwise(point_step, point_state, parts):
    key = keys.root(0)
    start = jax.tree.map(jnp.copy, point_state)
    whole, expected = training.train_epoch(point_step, point_state, point_data(), key, batch_size=5)
    state, metrics = start, []
    for steps in parts:
        state, some = training.train_epoch(point_step, state, point_data(), key, batch_size=5, steps=steps)
        metrics.append(some)
    chex.assert_trees_all_equal(state, whole)
    chex.assert_trees_all_equal(jax.tree.map(lambda *m: jnp.concatenate(m), *metrics), expected)


@pytest.mark.exact
def test_chunks_of_a_vae_equal_the_whole_bitwise(trained):
    whole, expected = train_epoch(trained, trained.state)
    half, first = train_epoch(trained, trained.state, steps=2)
    both, second = train_epoch(trained, half, steps=2)
    chex.assert_trees_all_equal(both, whole)
    assert np.array_equal(np.concatenate([first["loss"], second["loss"]]), expected["loss"])


@pytest.mark.parametrize("batch_size", [0, -1, 21])
def test_batch_size_must_fit_the_data(point_step, point_state, batch_size):
    with pytest.raises(InputError, match=r"batch size: got -?\d+, expected 1 to 20, .*; type --batch-size (1|20)$"):
        training.train_epoch(point_step, point_state, point_data(), keys.root(0), batch_size=batch_size)


# traces, transfers, buffers


def test_objective_is_traced_once_and_compiled_once_over_epochs(trained):  # mistake 33
    assert trained.objective_calls == 1
    assert trained.programs == 1


def test_a_step_in_a_loop_of_ones_own_is_traced_once():
    """By whoever calls it without `train_epoch`."""
    calls = []

    def counted(model, params, batch, key, step):
        calls.append(1)
        return squares(model, params, batch, key, step)

    tx = AdamW().build(9)
    step = training.make_train_step(WeaklyTyped(), counted, tx)
    state, batch = training.init_state(WeaklyTyped(), tx, keys.root(0)), (jnp.ones(3), jnp.arange(3))
    for _ in range(3):
        state, _ = step(state, batch, keys.root(0))
    assert len(calls) == 1


def test_training_lowers_the_loss(trained):
    assert trained.losses.shape == (12,)
    assert trained.losses[-4:].mean() < trained.losses[:4].mean()


class WeaklyTyped:
    """As a user would write it: the type of `jnp.log(0.25)` gives way to others."""

    def init(self, key):
        del key
        return {"w": jnp.log(0.25)}


def test_state_keeps_its_types_from_step_to_step():
    """A leaf that loses its weak type would make the second epoch another program than the first."""
    tx = AdamW(warmup=3, cosine=True, weight_decay=0.1, clip_norm=1.0).build(9)
    step = training.make_train_step(WeaklyTyped(), squares, tx, ema_decay=0.9)
    state = jax.eval_shape(lambda k: training.init_state(WeaklyTyped(), tx, k, ema=True), keys.root(0))
    batch = (jax.ShapeDtypeStruct((3,), jnp.float32), jax.ShapeDtypeStruct((3,), jnp.int32))
    after, _ = jax.eval_shape(step, state, batch, keys.root(0))
    assert jax.tree.leaves(after) == jax.tree.leaves(state)  # shapes, types and weak types


def test_nothing_is_copied_from_the_host_inside_an_epoch(point_step, point_state):  # mistake 33
    key, data = keys.root(0), point_data()
    state, _ = training.train_epoch(point_step, point_state, data, key, batch_size=5)
    with jax.transfer_guard("disallow"):
        state, metrics = training.train_epoch(point_step, state, data, key, batch_size=5)
        with pytest.raises(Exception, match=r"Disallowed .* transfer"):  # the guard is awake
            training.train_epoch(point_step, state, jax.tree.map(np.asarray, data), key, batch_size=5)
    assert metrics["loss"].shape == (4,)
    assert all(isinstance(m, jax.Array) for m in metrics.values())


def test_nothing_is_fetched_by_the_host_inside_an_epoch(trained, monkeypatch):  # mistake 33
    """On a CPU no guard sees a fetch, since nothing has to be copied: count who asks for a value."""
    key, data, state = keys.root(0), jnp.asarray(images()), jax.tree.map(jnp.copy, trained.state)
    fetched = []
    original = type(data)._value
    monkeypatch.setattr(type(data), "_value", property(lambda a: fetched.append(a) or original.fget(a)))
    with jax.transfer_guard_host_to_device("disallow"):
        _, metrics = training.train_epoch(trained.step, state, data, key, batch_size=10)
    assert not fetched
    assert math.isfinite(float(metrics["loss"][0]))
    assert len(fetched) == 1  # the count is of what it says


def test_the_step_calls_nothing_on_the_host():
    step = training.make_train_step(DENSE, ELBO(), optax.adam(1e-3), prepare=scaled)
    state = jax.eval_shape(lambda k: training.init_state(DENSE, optax.adam(1e-3), k), keys.root(0))
    jaxpr = jax.make_jaxpr(step)(state, jax.ShapeDtypeStruct((3, 6, 6, 1), jnp.uint8), keys.root(0))
    names = set(loops.primitives(jaxpr))
    assert "dot_general" in names
    assert not [name for name in names if "callback" in name]


def test_state_is_donated(point_step, point_state):
    leaves = jax.tree.leaves((point_state.params, point_state.ema))
    after, _ = training.train_epoch(point_step, point_state, point_data(), keys.root(0), batch_size=5)
    assert all(leaf.is_deleted() for leaf in leaves)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(after))


# dispatch


@pytest.mark.exact
def test_loop_of_jitted_steps_gives_the_losses_of_the_scan(trained, monkeypatch):
    """Tolerance: float32 rounding of other loop bodies, through four steps of Adam."""
    found = []
    for stepped in (True, False):
        monkeypatch.setattr(loops, "has_convolution", lambda *_, stepped=stepped: stepped)
        found.append(train_epoch(trained, trained.start))
    (by_steps, metrics), (by_scan, metrics_of_scan) = found
    np.testing.assert_allclose(metrics["loss"], metrics_of_scan["loss"], rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], trained.losses[:4], rtol=1e-5)  # whichever of the two was chosen
    chex.assert_trees_all_close(by_scan.params, by_steps.params, rtol=1e-3, atol=1e-5)


def bare_step_seconds(step, state, batches, key):
    began = time.perf_counter()
    for batch in batches:
        state, metrics = step(state, batch, key)
    jax.block_until_ready((state, metrics))
    return time.perf_counter() - began, state


def epoch_seconds(step, state, data, key, batch_size):
    began = time.perf_counter()
    state, metrics = training.train_epoch(step, state, data, key, batch_size=batch_size)
    jax.block_until_ready((state, metrics))
    return time.perf_counter() - began, state


@pytest.mark.slow
def test_convolutional_vae_keeps_the_speed_of_its_bare_step():
    """Interleaved, so that both meet the same noise of a shared machine; the median of the ratios decides."""
    model = VAE(latent=8, network=Conv(channels=(16, 32)), event_shape=(28, 28, 1))
    tx, key, batch_size, steps = optax.adam(1e-3), keys.root(0), 32, 8
    step = training.make_train_step(model, ELBO(), tx, prepare=scaled)
    bare = jax.jit(step, donate_argnums=0)
    rows = np.random.RandomState(0).randint(0, 256, (steps * batch_size, 28, 28, 1)).astype(np.uint8)
    data = jnp.asarray(rows)
    batches = list(data.reshape(steps, batch_size, 28, 28, 1))
    start = jax.jit(lambda k: training.init_state(model, tx, k))
    one, other = start(key), start(key)
    _, one = bare_step_seconds(bare, one, batches, key)  # compilation
    _, other = epoch_seconds(step, other, data, key, batch_size)
    ratios = []
    for _ in range(7):
        seconds, one = bare_step_seconds(bare, one, batches, key)
        took, other = epoch_seconds(step, other, data, key, batch_size)
        ratios.append(seconds / took)
    assert statistics.median(ratios) >= 0.8, ratios


# many seeds at once


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_seeds_together_are_each_trained_as_alone(point_step, monkeypatch, backend):
    """Order and noise of each seed are its own, the numbers those of the seed alone."""
    tx, data, together = optax.sgd(0.5), point_data(), jax.vmap(keys.root)(jnp.arange(3, dtype=jnp.uint32))
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    states = jax.vmap(lambda key: training.init_state(Point(), tx, key, ema=True))(together)
    states, metrics = training.train_epoch(point_step, states, data, together, batch_size=5)
    assert metrics["x"].shape == (4, 3, 5)  # [T, S, B]
    assert states.step.tolist() == [4, 4, 4]
    for s in range(3):
        start = training.init_state(Point(), tx, keys.root(s), ema=True)
        state, alone = training.train_epoch(point_step, start, data, keys.root(s), batch_size=5)
        for name in ("x", "labels", "noise", "step"):
            assert np.array_equal(metrics[name][:, s], alone[name])
        np.testing.assert_allclose(metrics["loss"][:, s], alone["loss"], rtol=1e-5)
        jax.tree.map(lambda a, b, s=s: np.testing.assert_allclose(a[s], b, rtol=1e-5), states, state)
    assert len({tuple(metrics["x"][0, s].tolist()) for s in range(3)}) == 3


# optimizers


def adam_by_hand(optimizer, gradients, start, steps):
    """Kingma & Ba 2015, algorithm 1, with clipping, decoupled decay and a schedule, in float64."""
    w, m, v, path = start.astype(float), np.zeros(3), np.zeros(3), []
    for t, raw in enumerate(gradients):
        norm = np.linalg.norm(raw)
        g = raw * optimizer.clip_norm / norm if 0 < optimizer.clip_norm < norm else raw
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        rate = optimizer.learning_rate
        if t < optimizer.warmup:
            rate *= t / optimizer.warmup
        elif optimizer.cosine:
            rate *= 0.5 * (1 + math.cos(math.pi * (t - optimizer.warmup) / (steps - optimizer.warmup)))
        m_hat, v_hat = m / (1 - 0.9 ** (t + 1)), v / (1 - 0.999 ** (t + 1))
        w = w - rate * (m_hat / (np.sqrt(v_hat) + 1e-8) + optimizer.weight_decay * w)
        path.append(w)
    return np.array(path)


@pytest.mark.parametrize(
    "optimizer",
    [
        AdamW(learning_rate=0.1),
        AdamW(learning_rate=0.1, warmup=4),
        AdamW(learning_rate=0.1, cosine=True),
        AdamW(learning_rate=0.1, warmup=3, cosine=True, weight_decay=0.5, clip_norm=0.7),
    ],
    ids=["plain", "warmup", "cosine", "all"],
)
def test_adam_is_the_algorithm_of_the_paper(optimizer):
    """In float32 1 - 0.999^t is wrong by up to 6e-5 of itself, a step of 0.1 thus by 3e-6; there are 12 of them."""
    steps = 12
    gradients = np.random.RandomState(0).randn(steps, 3) * np.linspace(0.1, 3, steps)[:, None]
    tx, start = optimizer.build(steps), np.array([1.0, -2.0, 0.5])

    def body(carry, gradient):
        w, opt_state = carry
        updates, opt_state = tx.update({"kernel": gradient}, opt_state, w)
        w = optax.apply_updates(w, updates)
        return (w, opt_state), w["kernel"]

    first = {"kernel": jnp.asarray(start, jnp.float32)}
    _, path = jax.jit(lambda c, g: jax.lax.scan(body, c, g))((first, tx.init(first)), jnp.float32(gradients))
    np.testing.assert_allclose(path, adam_by_hand(optimizer, gradients, start, steps), atol=12 * 3e-6)


def test_weight_decay_shrinks_kernels_and_nothing_else():  # mistake 46
    model = VAE(
        latent=2,
        network=Conv(channels=(2,)),
        likelihood=likelihoods.NormalSharedScale(),
        latent_prior=priors.VampPrior(3),
        event_shape=(4, 4, 1),
    )
    shapes = {**jax.eval_shape(model.init, jax.random.key(0)), "codebook": jax.ShapeDtypeStruct((4, 2), float)}
    shapes["no_kernel"] = shapes["codebook"]
    params = jax.tree.map(lambda a: np.ones(a.shape, np.float32), shapes)
    tx = AdamW(learning_rate=0.1, weight_decay=0.5).build(1)
    updates, _ = jax.jit(tx.update)(jax.tree.map(np.zeros_like, params), jax.jit(tx.init)(params), params)
    moved = {
        jax.tree_util.keystr(path, simple=True, separator="/"): bool((update != 0).any())
        for path, update in jax.tree_util.tree_leaves_with_path(updates)
    }
    assert {name for name, does in moved.items() if does} == {name for name in moved if name.endswith("/kernel")}
    assert {name.split("/")[0] for name in moved} == {*shapes}


def test_a_warmup_longer_than_the_training_is_possible():
    """Its rates rise from 0 by a fiftieth a step, of which Adam's step has the size, while gradients stay the same."""
    tx = AdamW(0.1, warmup=50, cosine=True).build(10)
    state, path = tx.init(jnp.ones(2)), []
    for _ in range(3):
        updates, state = tx.update(jnp.ones(2), state, jnp.ones(2))
        path.append(updates)
    np.testing.assert_allclose(path, -0.002 * np.array([[0, 0], [1, 1], [2, 2]]), rtol=1e-4)


@pytest.mark.parametrize(
    "fields",
    [
        {"learning_rate": 0.0},
        {"learning_rate": -1.0},
        {"learning_rate": math.nan},
        {"learning_rate": math.inf},
        {"warmup": -1},
        {"clip_norm": -0.1},
        {"weight_decay": -1.0},
        {"clip_norm": math.nan},
        {"clip_norm": math.inf},
        {"weight_decay": math.inf},
        {"weight_decay": math.nan},
        {"warmup": 1.5},
        {"warmup": 2**31},
    ],
)
def test_impossible_optimizers_are_refused(fields):
    with pytest.raises(InputError, match=f"AdamW {next(iter(fields))}: got"):
        AdamW(**fields)


def test_adam_without_fields_is_plain():
    assert AdamW() == AdamW(0.001, 0, False, 0.0, 0.0)
    assert AdamW(1e-2, 3, True, 0.1, 2.0) == AdamW(
        learning_rate=1e-2, warmup=3, cosine=True, weight_decay=0.1, clip_norm=2.0
    )


# shapes


@pytest.mark.parametrize(
    "network",
    [MLP(hidden=(5,)), Conv(channels=(2, 3)), ResidualConv(channels=(2, 4))],
    ids=lambda network: type(network).__name__,
)
@pytest.mark.parametrize("shape", [(33, 33, 1), (48, 64, 5)], ids=str)
def test_a_step_builds_for_odd_shapes(network, shape):  # mistake 38
    """That each network fits many more is tested of networks."""
    model, tx = VAE(latent=3, network=network, event_shape=shape), optax.adam(1e-3)
    state = jax.eval_shape(lambda k: training.init_state(model, tx, k), keys.root(0))
    step = training.make_train_step(model, ELBO(), tx, prepare=scaled)
    after, metrics = jax.eval_shape(step, state, jax.ShapeDtypeStruct((4, *shape), jnp.uint8), keys.root(0))
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    assert all(value.shape == () for value in metrics.values())


def test_a_step_builds_for_vectors():  # mistake 38
    model, tx = VAE(latent=3, network=MLP(hidden=(5,)), event_shape=(7,)), optax.adam(1e-3)
    state = jax.eval_shape(lambda k: training.init_state(model, tx, k), keys.root(0))
    step = training.make_train_step(model, ELBO(), tx)
    _, metrics = jax.eval_shape(step, state, jax.ShapeDtypeStruct((4, 7), jnp.float32), keys.root(0))
    assert metrics["loss"].shape == ()
