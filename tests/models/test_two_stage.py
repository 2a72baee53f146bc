"""A second VAE as a prior: its estimate of the density against a closed form, honest bounds, and what is refused."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import refused, typed
from jax.tree_util import Partial
from oracles import assert_mean, sample
from scipy import stats

from aevae_jax import VAE, Autoencoder, distributions as d
from aevae_jax.data import Data
from aevae_jax.evaluation import ais, importance
from aevae_jax.models import TwoLevelVAE, architectures, likelihoods
from aevae_jax.models.flow_priors import TwoStage
from aevae_jax.models.likelihoods import DiscretizedLogistic
from aevae_jax.objectives import bounds
from aevae_jax.objectives.fitted_priors import PriorLikelihood
from aevae_jax.objectives.losses import ELBO
from aevae_jax.runs import fitting
from aevae_jax.runs.run import Run
from aevae_jax.training.optimizers import AdamW
from aevae_jax.types import EstimatedDensity, InputError

pytestmark = pytest.mark.usefixtures("no_pictures")

SCALE, NOISE, LATENT, SIZE = 0.6, 0.7, 2, 4
WEIGHT = np.random.default_rng(0).normal(size=(LATENT, LATENT)).astype(np.float32)
COVARIANCE = WEIGHT.T @ WEIGHT + SCALE**2 * np.eye(LATENT)
Z = np.random.default_rng(1).normal(size=(3, LATENT)).astype(np.float32)
PRECISION = np.eye(LATENT) + WEIGHT @ WEIGHT.T / SCALE**2
LOWER = np.linalg.cholesky(np.linalg.inv(PRECISION))
TO_MEAN = (WEIGHT.T / SCALE**2 @ np.linalg.inv(PRECISION)).astype(np.float32)


def visible(weight, u):
    loc = u @ weight
    return d.Normal(loc, jnp.full_like(loc, np.log(SCALE)))


def exactly(lower, z):
    return d.MultivariateNormal(z @ TO_MEAN, jnp.broadcast_to(lower, (z.shape[0], *lower.shape)))


def wide(log_scale, z):
    return d.Normal(z @ TO_MEAN, log_scale + 0 * z)


def marginal(recognition, n=3):
    return d.Marginal(d.Normal(jnp.zeros((n, LATENT)), jnp.zeros((n, LATENT))), Partial(visible, WEIGHT), recognition)


def test_its_estimate_of_the_density_is_unbiased_and_exact_where_q_is():
    expected = stats.multivariate_normal(np.zeros(LATENT), COVARIANCE).logpdf(Z)
    exact = marginal(Partial(exactly, jnp.asarray(LOWER, jnp.float32)))
    estimate = jax.jit(lambda p, key: p.log_prob_estimate(Z, key))
    np.testing.assert_allclose(estimate(exact, jax.random.key(0)), expected, atol=1e-4)
    many = jax.random.split(jax.random.key(1), 20_000)
    found = np.asarray(jax.jit(jax.vmap(lambda key: marginal(Partial(wide, 0.0)).log_prob_estimate(Z, key)))(many))
    assert_mean(np.exp(found.astype(np.float64) - expected), 1.0)
    assert (found.mean(axis=0) < expected - 0.1).all()  # on average it is a lower bound


def test_its_draws_are_those_of_the_closed_form():
    draws = np.asarray(sample(marginal(Partial(wide, 0.0), 20_000), jax.random.key(0)), np.float64)
    assert_mean(draws, 0.0)
    assert_mean(draws[:, :, None] * draws[:, None, :], COVARIANCE)
    p = marginal(Partial(wide, 0.0))
    assert isinstance(p, EstimatedDensity)
    assert p.log_prob(Z) is NotImplemented
    assert p.kl(p) is NotImplemented
    assert p.measure == "density"


# --- in a model of which all is linear: log p(x) is known ---

MODEL = VAE(LATENT, architectures.MLP(()), likelihoods.Normal(NOISE), TwoStage((3,)), event_shape=(SIZE,))
X = np.random.default_rng(2).normal(size=(3, SIZE)).astype(np.float32)


class Linear(VAE):
    """The same model with the linear p(z) above in place of a network's."""

    def prior(self, params, n):
        return marginal(Partial(wide, 0.0), n)


LINEAR = Linear(LATENT, architectures.MLP(()), likelihoods.Normal(NOISE), TwoStage((3,)), event_shape=(SIZE,))
DECODER = np.random.default_rng(3).normal(size=(LATENT, SIZE)).astype(np.float32)
EVIDENCE = stats.multivariate_normal(np.zeros(SIZE), DECODER.T @ COVARIANCE @ DECODER + NOISE**2 * np.eye(SIZE)).logpdf(
    X
)


def linear_params():
    zeros = np.zeros((SIZE, 2 * LATENT), np.float32)
    encoder = {"out": {"kernel": zeros, "bias": np.asarray([0, 0, 0.5, 0.5], np.float32)}}
    decoder = {"out": {"kernel": DECODER, "bias": np.zeros(SIZE, np.float32)}}
    return jax.tree.map(jnp.asarray, {"encoder": encoder, "decoder": decoder, "likelihood": {}, "prior": {}})


@pytest.mark.slow
def test_the_bound_stays_one_and_importance_sampling_finds_the_evidence():
    params = linear_params()
    many = jax.random.split(jax.random.key(0), 4_000)
    elbo = np.asarray(jax.jit(jax.vmap(lambda key: -bounds.elbo(LINEAR, params, X, key).negative_elbo))(many))
    error = elbo.std(axis=0) / np.sqrt(len(elbo))
    assert (elbo.mean(axis=0) + 5 * error < EVIDENCE).all()
    found = importance.estimate(LINEAR, params, jnp.asarray(X), jax.random.key(1), num_samples=50_000)
    assert (np.abs(-found.nll - EVIDENCE) < 6 * found.sampling_error + 1e-3).all()
    assert (found.sampling_error < 0.3).all()
    log_w = jax.jit(lambda key: bounds.log_weights(LINEAR, params, X, key, 20_000))(jax.random.key(2))
    w = np.exp(np.asarray(log_w, np.float64) - EVIDENCE)
    assert_mean(w, 1.0, k=6.0)


def test_the_draw_of_z_and_the_draw_of_u_have_keys_of_their_own():
    """One key for both would make them the same numbers: then q(u|z) would be correlated with z beyond its mean."""
    key = jax.random.key(0)
    key_draw, key_density = bounds.split_for(marginal(Partial(wide, 0.0)), key)
    drawn = [jax.random.key_data(k).tolist() for k in (jax.random.key(0), key_draw, key_density)]
    assert len({tuple(words) for words in drawn}) == 3
    plain = d.Normal(jnp.zeros((1, 2)), jnp.zeros((1, 2)))
    kept, none = bounds.split_for(plain, jax.random.key(0))
    assert none is None
    assert jax.random.key_data(kept).tolist() == drawn[0]  # trainings of before keep their noise


def test_every_parameter_is_trained():
    params = jax.tree.map(
        lambda leaf: jnp.asarray(np.random.default_rng(5).normal(scale=0.5, size=leaf.shape), jnp.float32),
        jax.eval_shape(MODEL.init, jax.random.key(0)),
    )
    for objective in (ELBO(), PriorLikelihood()):
        gradient = jax.jit(jax.grad(lambda p, o=objective: o(MODEL, p, X, jax.random.key(0), 0)[0]))(params)
        for leaf in jax.tree.leaves(gradient["prior"]):
            assert np.isfinite(leaf).all()
            assert np.any(leaf)


# --- as a run ---


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "x.npy"
    np.save(path, np.random.RandomState(0).randint(0, 256, (120, 3, 3, 1)).astype(np.uint8))
    return Data(str(path))


@pytest.mark.slow
def test_fitted_to_an_autoencoder_it_generates_and_says_what_it_cannot(data, tmp_path, capsys):
    old = tmp_path / "old"
    network, optimizer = architectures.MLP((4,)), AdamW(0.02)
    model = Autoencoder(2, network, DiscretizedLogistic())
    fitting.fit(Run(data, model, optimizer=optimizer, batch_size=10, epochs=2), directory=old)
    options = ["--model.latent_prior", "TwoStage((8,))", "--objective", "PriorLikelihood()", "--epochs", 4]
    typed("train", tmp_path / "new", "--from", old, *options)
    fitted = fitting.load_run(tmp_path / "new")
    history = [entry["validation"]["negative_log_prior"] for entry in fitted.history]
    assert history[-1] < history[0]
    typed("sample", tmp_path / "new", "--out", tmp_path / "x.npz", "--num", 3)
    assert np.load(tmp_path / "x.npz")["images"].shape == (3, 3, 3, 1)
    assert "negative log prior" in typed("evaluate", tmp_path / "new")
    line = refused(capsys, "diagnose", tmp_path / "new")
    assert "p(z) of a prior gap: got a Marginal, which has no log_prob of a given code" in line
    assert len(line) <= 200
    line = refused(capsys, "compress", tmp_path / "new", data.name, tmp_path / "x.aev")
    assert re.search(r"prior \(.*\): got Marginal, expected independent normals", line) or "got Delta" in line
    assert line.endswith('; train with --model "VAE(likelihood=DiscretizedLogistic())"')


def test_what_needs_the_density_itself_is_refused_in_a_line():
    x, params = jnp.asarray(X), linear_params()
    for estimate, what in (
        (lambda: ais.tune(LINEAR, params, x, jax.random.key(0), num_temperatures=3, leapfrogs=1), "annealing"),
        (
            lambda: bounds.doubly_reparameterised_bound(LINEAR, params, x, jax.random.key(0), 2),
            "doubly_reparameterised",
        ),
    ):
        with pytest.raises(InputError, match=rf"^p\(z\) of {what}: got a Marginal, which has no log_prob") as error:
            estimate()
        assert len(str(error.value)) <= 200
    two = TwoLevelVAE(4, architectures.MLP((3,)), likelihoods.Normal(), TwoStage((3,)), event_shape=(SIZE,))
    shapes = jax.eval_shape(two.init, jax.random.key(0))
    with pytest.raises(InputError, match=r"^p\(z\) of a sampled rate: got a Chained, which has no log_prob of a given"):
        jax.eval_shape(lambda p: bounds.elbo(two, p, x, jax.random.key(0)).rate, shapes)
    maps = VAE((2, 2, 3), architectures.Conv((4,)), likelihoods.Normal(), TwoStage(), event_shape=(4, 4, 1))
    with pytest.raises(InputError, match=r"^latent of a TwoStage prior: got \(2, 2, 3\), expected a number"):
        jax.eval_shape(maps.init, jax.random.key(0))
    with pytest.raises(InputError, match=r"^hidden \(TwoStage\): got \(\), expected at least one hidden layer$"):
        TwoStage(())
