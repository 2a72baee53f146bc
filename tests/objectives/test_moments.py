"""Covariances of codes: what they are of, along which axis, and that whitened codes cost nothing."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aevae_jax import distributions
from aevae_jax.objectives import moments
from aevae_jax.objectives.losses import ELBO
from aevae_jax.objectives.moments import DIPVAE
from aevae_jax.types import InputError

RAW = np.random.default_rng(0).normal(size=(12, 3)) @ np.array([[2.0, 0.3, 0.0], [0.0, 0.5, 0.7], [0.1, 0.0, 1.0]]) + 5
WHITE = np.linalg.qr(RAW - RAW.mean(axis=0))[0] * np.sqrt(12)  # of mean 0 and covariance I, with 1/12


@dataclass(frozen=True)
class Told:
    """A model whose data are the means of its codes; each dimension has a scale of its own."""

    scales: tuple[float, ...] = (0.5, 0.5, 0.5)

    def encode(self, params, x):
        return distributions.Normal(x, jnp.broadcast_to(jnp.log(jnp.asarray(self.scales)), x.shape))

    def decode(self, params, z):
        return distributions.Normal(z, jnp.zeros_like(z))

    def prior(self, params, n):
        return distributions.Normal(jnp.zeros((n, 3)), jnp.zeros((n, 3)))


def measured(objective, x, model=Told()) -> dict[str, float]:
    """The metrics, and `elbo`, the loss of `ELBO` at the same draw."""

    @jax.jit
    def run(x):
        return {
            **objective(model, {}, x, jax.random.key(0), 0)[1],
            "elbo": ELBO()(model, {}, x, jax.random.key(0), 0)[0],
        }

    return {name: float(value) for name, value in run(jnp.asarray(x, jnp.float32)).items()}


def test_whitened_codes_cost_nothing():  # mistake 24
    """Means of covariance I; or codes, whose noise of scale s leaves 1 - s^2 to their means."""
    for objective, x in ((DIPVAE("I"), WHITE), (DIPVAE("II"), WHITE * np.sqrt(1 - 0.25))):
        found = measured(objective, x + 3)  # the mean is no part of it
        assert found["covariance_diagonal"] == pytest.approx(0, abs=1e-5)
        assert found["covariance_off_diagonal"] == pytest.approx(0, abs=1e-5)
        assert found["loss"] == pytest.approx(found["elbo"], abs=1e-3)
    assert measured(DIPVAE("II"), WHITE)["covariance_diagonal"] == pytest.approx(3 * 0.25**2, rel=1e-3)


@pytest.mark.parametrize("version", ["I", "II"])
def test_the_penalty_is_that_of_the_covariance_over_the_batch(version):  # mistake 24
    model = Told((0.5, 1.0, 2.0))
    expected = np.cov(RAW, rowvar=False, bias=True) + (version == "II") * np.diag([0.25, 1.0, 4.0])
    found = measured(DIPVAE(version, off_diagonal=3.0, diagonal=0.5), RAW, model)
    beside = (expected**2).sum() - (np.diag(expected) ** 2).sum()
    apart = ((np.diag(expected) - 1) ** 2).sum()
    assert found["covariance_off_diagonal"] == pytest.approx(beside, rel=1e-4)
    assert found["covariance_diagonal"] == pytest.approx(apart, rel=1e-4)
    assert found["loss"] == pytest.approx(found["elbo"] + 3 * beside + 0.5 * apart, rel=1e-4)
    assert found["negative_elbo"] == pytest.approx(found["elbo"], rel=1e-5)


def test_the_covariance_is_of_all_elements_of_a_map_of_codes():
    maps = moments.covariance(jnp.asarray(RAW, jnp.float32).reshape(12, 3, 1))
    np.testing.assert_allclose(maps, np.cov(RAW, rowvar=False, bias=True), rtol=1e-4, atol=1e-5)


def test_each_penalty_has_a_gradient_and_a_schedule():  # mistake 28
    def loss(x, objective, step):
        return objective(Told(), {}, x, jax.random.key(0), step)[0]

    x = jnp.asarray(RAW, jnp.float32)
    plain, off, own, late = jax.jit(
        lambda x: [
            jax.grad(loss)(x, *each)
            for each in (
                (DIPVAE("I", 0.0, 0.0), 0),
                (DIPVAE("I", 1.0, 0.0), 0),
                (DIPVAE("I", 0.0, 1.0), 0),
                (DIPVAE("I", lambda step: step * 0.5, 0.0), 2),
            )
        ]
    )(x)
    centred = RAW - RAW.mean(axis=0)
    covariance = centred.T @ centred / 12
    beside = covariance - np.diag(np.diag(covariance))
    np.testing.assert_allclose(off - plain, 4 * centred @ beside / 12, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(own - plain, 4 * centred * (np.diag(covariance) - 1) / 12, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(late, off, rtol=1e-5)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Scaleless:
    """A distribution that does not say its scale."""

    loc: jax.Array


def test_what_has_no_covariance_is_one_line():
    with pytest.raises(InputError, match="batch size: got 1, expected at least 2"):
        measured(DIPVAE(), RAW[:1])
    with pytest.raises(InputError, match=r"DIPVAE of codes: got .* of type Scaleless, expected one with a"):
        moments.covariance_of_codes(Scaleless(jnp.zeros((2, 2))))
    with pytest.raises(InputError, match="DIPVAE off_diagonal: got -1"):
        DIPVAE(off_diagonal=-1.0)


def test_wherever_codes_are_weighed_selection_is_by_the_plain_bound():  # mistake 2, mistake 35
    assert DIPVAE("I", 5.0, 5.0).validation() == ELBO().validation()
