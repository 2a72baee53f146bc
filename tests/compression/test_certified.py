"""What is asked of a number before it is coded, and that all numbers that a decoder computes are asked."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

import aevae_jax as ae
from aevae_jax import distributions
from aevae_jax.compression import Coder, certified, tables
from aevae_jax.models.architectures import MLP
from aevae_jax.models.likelihoods import DiscretizedLogistic
from aevae_jax.models.priors import GaussianMixture, StandardNormal, VampPrior
from aevae_jax.types import InputError

X = np.arange(1.0, 6.0)[:, None]  # what float32 has exactly
GIVEN = {"network": MLP((5,)), "likelihood": DiscretizedLogistic(8), "event_shape": (6,)}


@pytest.mark.parametrize("number", [0.0, 1000.0])
@pytest.mark.parametrize("apart", [0.0, 1.0, 64.0])
def test_the_margin_is_what_the_page_says(number, apart):
    """2^-17 of the largest difference of the example, whichever number has it, and 2^-36 (1 + |v|)."""
    margin = apart * 2.0**-17 + 2.0**-36 * (1.5 + number)
    for share, expected in ((0.95, False), (1.05, True)):
        wide = np.array([[7.0, number + 0.5 - share * margin]] * 2)
        narrow = wide + np.array([[apart, 0], [0, 0]])  # of the second example nothing differs
        code = np.rint(wide)
        assert certified.certain(wide, narrow, code).tolist() == [expected, expected or apart > 0]


def test_an_example_must_be_certain_in_every_evaluation():
    networks = certified.Networks(SimpleNamespace(network=None), {"w": np.ones(1)})
    evaluate = certified.Evaluation(networks, 2, 64, certify=True)

    def scaled(model, params, x):
        return x * params["w"][None]

    near, safe = np.array([[0.5 - 1e-13], [0.0]]), np.zeros((2, 1))
    evaluate(scaled, near, again=False)  # the decoder computes nothing of this
    evaluate(scaled, safe)
    assert evaluate.sure.tolist() == [True, True]
    evaluate(scaled, near)
    evaluate(scaled, safe)
    assert evaluate.sure.tolist() == [False, True]


@dataclasses.dataclass(frozen=True)
class Narrow:
    """A prior that computes in float32 whatever it is given."""

    def init(self, key, model):
        return {"loc": jnp.zeros(model.latent)}

    def __call__(self, model, params, n):
        loc = jnp.tanh(params["prior"]["loc"].astype(jnp.float32))
        loc = jnp.broadcast_to(loc, (n, model.latent))
        return distributions.Normal(loc, jnp.zeros_like(loc))


class NarrowBelow(ae.TwoLevelVAE):
    """Two levels, of which the prior of the lower one does."""

    def prior(self, params, n):
        found = super().prior(params, n)

        def below(z2):
            p = found.below(z2)
            return distributions.Normal(p.loc.astype(jnp.float32), p.log_scale.astype(jnp.float32))

        return dataclasses.replace(found, below=jax.tree_util.Partial(below))


@pytest.mark.parametrize(
    "model", [ae.VAE(4, latent_prior=Narrow(), **GIVEN), NarrowBelow(4, latent_prior=StandardNormal(), **GIVEN)]
)
def test_a_prior_that_computes_in_float32_is_refused(model):
    with pytest.raises(InputError, match="arithmetic of the model: got float32, expected float64"):
        Coder(model, oracles.random_params(model))


def test_what_is_compared_with_is_computed_in_float32_throughout(monkeypatch):
    """A number without a type would be one of float64, and all that follows: what differs by nothing proves nothing."""
    apart = []

    def noted(wide, narrow, code):
        apart.append(np.abs(wide - narrow).max() / np.abs(wide).max())
        return np.ones(len(wide), bool)

    monkeypatch.setattr(certified, "certain", noted)
    networks = certified.Networks(SimpleNamespace(network=None), {"w": np.full(1, 0.3, np.float32)})
    networks.rounded(lambda model, params, x: (x + jnp.zeros(1)[None]) * params["w"][None] / 7, X, certify=True)
    model = ae.VAE(4, latent_prior=VampPrior(3), **GIVEN)
    Coder(model, oracles.random_params(model))
    assert len(apart) > 3
    assert 1e-9 < apart[0] < 1e-6
    assert max(apart[1:]) > 1e-9


def test_a_prior_on_a_boundary_encodes_nothing_and_decodes_what_another_machine_wrote(monkeypatch):
    model = ae.VAE(4, latent_prior=GaussianMixture(1), **GIVEN)
    params = jax.tree.map(np.zeros_like, oracles.random_params(model))
    symbols = np.arange(12).reshape(2, 6) % 8
    payload = Coder(model, params).encode(symbols)
    monkeypatch.setattr(certified, "certain", lambda wide, narrow, code: np.zeros(len(wide), bool))
    doubting = Coder(model, params)
    assert np.array_equal(doubting.decode(payload, 2), symbols)
    with pytest.raises(InputError, match="prior: got numbers on the boundary of rounding"):
        doubting.encode(symbols)
    monkeypatch.undo()
    params["prior"]["loc"] = np.full_like(params["prior"]["loc"], 0.5 / 1024)
    with pytest.raises(InputError, match="prior: got numbers on the boundary of rounding"):
        Coder(model, params).encode(symbols)


def test_more_components_than_can_be_coded_are_refused():
    model = ae.VAE(1, latent_prior=GaussianMixture(2**15 + 1), **GIVEN)
    with pytest.raises(InputError, match=r"components of the prior: got 32,769, expected at most 32,768"):
        Coder(model, jax.tree.map(np.zeros_like, oracles.random_params(model)))


def test_scales_do_not_depend_on_the_exponential_of_the_platform(monkeypatch):
    """Of a log scale of 20 the last of 53 bits counts: an exponential that is off by one there changed them."""
    before = tables.scales(-320, 320)
    np.testing.assert_allclose(before, np.exp(np.arange(-320, 321) / 16), rtol=2e-16, atol=2.0**-31)
    monkeypatch.setattr(math, "exp", lambda t: np.nextafter(np.exp(t), np.inf))
    monkeypatch.setattr(np, "exp", lambda t: np.nextafter(t, np.inf))
    assert np.array_equal(tables.scales.__wrapped__(-320, 320), before)
