"""Schedules and the capacity of the rate, by their formulas."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import random_params

from aevae_jax import VAE
from aevae_jax.models import architectures, likelihoods, priors
from aevae_jax.objectives.capacity import Capacity
from aevae_jax.objectives.losses import ELBO, Cyclical, LinearWarmup, weight_at
from aevae_jax.types import InputError

MODEL = VAE(2, architectures.MLP(()), likelihoods.Normal(), priors.StandardNormal(), event_shape=(4,))
PARAMS = random_params(MODEL)
X = jnp.asarray(np.random.default_rng(2).normal(size=(6, 4)), jnp.float32)


def fu(step, total, cycles, rise):
    """Fu et al. 2019, equations 6 and 7, with f linear."""
    tau = (step % np.ceil(total / cycles)) / (total / cycles)
    return tau / rise if tau <= rise else 1.0


@pytest.mark.parametrize(("total", "cycles", "rise"), [(40, 4, 0.5), (30, 2, 0.8), (12, 1, 1.0)])
def test_a_cycle_rises_and_stays_and_begins_anew(total, cycles, rise):
    weight = Cyclical(total // cycles, cycles=cycles, rise=rise)
    found = [float(weight_at(weight, jnp.asarray(step))) for step in range(total)]
    np.testing.assert_allclose(found, [fu(step, total, cycles, rise) for step in range(total)], atol=1e-6)
    after = [float(weight(jnp.asarray(step))) for step in (total, total + 1, 10 * total)]
    np.testing.assert_allclose(after, 1.0)


def test_cycles_have_ends_and_may_go_on():
    weight = Cyclical(10, cycles=0, start=0.2, end=0.6)
    found = [float(weight(jnp.asarray(step))) for step in (0, 1, 5, 9, 10, 1011)]
    np.testing.assert_allclose(found, [0.2, 0.28, 0.6, 0.6, 0.2, 0.28], atol=1e-6)
    for field, value in (("steps", 0), ("cycles", -1), ("rise", 0.0), ("rise", 1.5), ("start", -1.0), ("end", -1.0)):
        with pytest.raises(InputError, match=f"Cyclical {field}: got"):
            Cyclical(**{"steps": 10, field: value})


def test_a_cyclical_weight_weighs_the_rate():
    @jax.jit
    def run(step):
        loss, found = ELBO(Cyclical(10))(MODEL, PARAMS, X, jax.random.key(0), step)
        return (loss - found["distortion"]) / found["rate"]

    found = [float(run(jnp.asarray(step))) for step in (0, 2, 7, 12)]
    np.testing.assert_allclose(found, [0.0, 0.4, 1.0, 0.4], atol=1e-4)


def test_the_rate_is_held_at_its_capacity():
    """The loss rises by gamma per nat on both sides of it, and the capacity follows its schedule."""

    @jax.jit
    def run(capacity):
        def loss(capacity):
            return Capacity(capacity, gamma=7.0)(MODEL, PARAMS, X, jax.random.key(0), 0)

        return *loss(capacity), jax.grad(loss, has_aux=True)(capacity)[0]

    _, terms, _ = run(0.0)
    rate = float(terms["rate"])
    assert rate > 0.1
    for capacity, slope in ((0.0, -7.0), (rate + 1.5, 7.0)):
        loss, found, gradient = run(capacity)
        expected = found["distortion"] + 7 * abs(rate - capacity)
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
        np.testing.assert_allclose(gradient, slope, rtol=1e-6)
        np.testing.assert_allclose(found["capacity"], capacity, rtol=1e-6)
        np.testing.assert_allclose(found["rate"], rate, rtol=1e-5)
    loss, found, _ = run(rate)  # of some examples it is more, of others less
    np.testing.assert_allclose(loss, found["distortion"], atol=1e-3)
    schedule = Capacity(LinearWarmup(10, 0.0, 25.0))
    found = jax.jit(lambda step: schedule(MODEL, PARAMS, X, jax.random.key(0), step)[1]["capacity"])
    np.testing.assert_allclose([found(jnp.asarray(step)) for step in (0, 4, 99)], [0.0, 10.0, 25.0])


def test_selection_is_by_the_plain_bound():  # mistake 2, mistake 35
    assert Capacity(3.0).validation() == ELBO().validation()
    with pytest.raises(InputError, match="Capacity gamma: got -1"):
        Capacity(gamma=-1.0)
