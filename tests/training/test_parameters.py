"""Parameters of the loss with an optimizer of their own, and statistics that no gradient trains."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aevae_jax import keys
from aevae_jax.training import parameters, step as training
from aevae_jax.training.optimizers import AdamW
from aevae_jax.types import InputError


class Counting:
    """A model of one number that keeps a running mean of what it has seen, and how often."""

    def init(self, key):
        del key
        return {"w": jnp.full(2, 3.0), "statistics": {"mean": jnp.zeros(()), "count": jnp.int32(0)}}


def counted(model, params, x, key, step):
    """Half the squared norm of `w`, plus all that a gradient of statistics would show."""
    before = params["statistics"]
    mean = x.mean() * params["w"][0] / params["w"][0]  # whose gradient would not be 0
    after = {"mean": 0.9 * before["mean"] + 0.1 * mean, "count": before["count"] + 1}
    loss = 0.5 * (params["w"] ** 2).sum() + 1e3 * before["mean"] + x.sum() * 0
    return loss, {"seen": before["mean"]}, after


def run(objective, model, tx, batches, **more):
    step = training.make_train_step(model, objective, tx, **more)
    state = training.init_state(model, tx, keys.root(0), objective=objective, ema=more.get("ema_decay", 0) > 0)
    metrics = []
    for batch in batches:
        state, found = step(state, jnp.asarray(batch), keys.root(0))
        metrics.append(jax.device_get(found))
    return state, metrics


def test_statistics_are_put_in_place_after_the_step():
    state, metrics = run(counted, Counting(), optax.sgd(0.5), [[1.0], [2.0]])
    assert state.params["statistics"]["count"] == 2
    np.testing.assert_allclose(state.params["statistics"]["mean"], 0.9 * 0.1 + 0.2, rtol=1e-6)
    np.testing.assert_allclose([m["seen"] for m in metrics], [0.0, 0.1], rtol=1e-6)


def test_no_optimizer_decay_clipping_or_norm_sees_statistics():
    """Though the loss depends on them a thousand times as steeply as on the weights."""
    tx = AdamW(0.1, weight_decay=0.5, clip_norm=1e-3).build(10)
    state, metrics = run(counted, Counting(), tx, [[1.0]])
    np.testing.assert_allclose(metrics[0]["gradient_norm"], math.hypot(3.0, 3.0), rtol=1e-6)
    assert not any("statistics" in jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(state.opt_state))
    assert state.params["statistics"]["mean"] == np.float32(0.1)


def test_a_step_that_is_not_used_leaves_statistics():
    state, metrics = run(counted, Counting(), optax.sgd(0.5), [[1.0], [math.inf], [math.nan], [1.0]])
    assert [m["skipped"] for m in metrics] == [0, 1, 1, 0]
    assert state.params["statistics"]["count"] == 2
    np.testing.assert_allclose(state.params["statistics"]["mean"], 0.19, rtol=1e-6)


def test_the_moving_average_takes_statistics_as_they_are():
    state, _ = run(counted, Counting(), optax.sgd(0.5), [[1.0], [2.0]], ema_decay=0.9)
    assert state.ema["statistics"] == state.params["statistics"]
    assert state.ema["w"][0] > state.params["w"][0]


def test_statistics_of_another_shape_are_refused():
    def wrong(model, params, x, key, step):
        return counted(model, params, x, key, step)[0], {}, {"mean": jnp.zeros(2), "count": jnp.int32(0)}

    with pytest.raises(InputError, match=r"statistics of the objective: got .*expected arrays as in params\['statist"):
        run(wrong, Counting(), optax.sgd(0.5), [[1.0]])


@dataclass(frozen=True)
class Adversary:
    """Trains `w` towards 1 at the rate of `tx`, and its own `v` towards -2 at another."""

    rate: float = 0.25

    def init(self, key, model):
        return {"v": jax.random.normal(key, (3,))}

    def optimizer(self):
        return optax.sgd(self.rate)

    def __call__(self, model, params, x, key, step):
        w, v = params["w"], params["objective"]["v"]
        loss = 0.5 * ((w - 1) ** 2).sum() + 0.5 * ((v + 2) ** 2).sum() + 0.0 * x.sum()
        return loss, {"v": v[0]}


class Plain:
    """A model of one number."""

    def init(self, key):
        del key
        return {"w": jnp.full(2, 3.0)}


def test_parameters_of_the_loss_have_an_optimizer_of_their_own():
    objective, tx = Adversary(), optax.sgd(0.5)
    first = training.init_state(Plain(), tx, keys.root(0), objective=objective).params["objective"]["v"]
    state, _ = run(objective, Plain(), tx, [[0.0]] * 3)
    np.testing.assert_allclose(state.params["w"], 1 + 2 * 0.5**3, rtol=1e-6)
    np.testing.assert_allclose(state.params["objective"]["v"], -2 + (first + 2) * 0.75**3, rtol=1e-5)


def test_parameters_of_the_loss_change_none_of_the_model_at_the_start():
    alone = parameters.initial(Plain(), None, keys.root(3))
    both = parameters.initial(Plain(), Adversary(), keys.root(3))
    assert parameters.of_model(both).keys() == alone.keys()
    assert parameters.of_model(alone) is alone
    other = parameters.initial(Plain(), Adversary(), keys.root(4))["objective"]["v"]
    assert (both["objective"]["v"] != other).all()


def test_members_have_parameters_of_the_loss_each():
    objective, tx = Adversary(), optax.sgd(0.5)
    step = training.make_train_step(Plain(), objective, tx)
    roots = jax.vmap(keys.root)(jnp.arange(3))
    together = jax.vmap(lambda k: training.init_state(Plain(), tx, k, objective=objective))(roots)
    after, _ = jax.vmap(step, in_axes=(0, None, 0))(together, jnp.zeros(1), roots)
    for s in range(3):
        start = training.init_state(Plain(), tx, keys.root(s), objective=objective)
        alone, _ = step(start, jnp.zeros(1), keys.root(s))
        np.testing.assert_allclose(after.params["objective"]["v"][s], alone.params["objective"]["v"], rtol=1e-6)


@pytest.mark.parametrize("params", [jnp.zeros(2), {"objective": jnp.zeros(2)}], ids=["no dict", "taken"])
def test_a_model_that_has_no_place_for_them_is_refused(params):
    class Odd:
        """Parameters that cannot hold those of a loss."""

        def init(self, key):
            return params

    with pytest.raises(InputError, match=r"parameters of the Odd: got .*, expected a dict without 'objective', the"):
        training.init_state(Odd(), optax.sgd(0.1), keys.root(0), objective=Adversary())
