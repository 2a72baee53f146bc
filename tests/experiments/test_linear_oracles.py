"""LinearWarmup models against linear algebra: PCA and probabilistic PCA on all 1,797 digits, scaled to [0, 1].

A linear autoencoder's best error is that of PCA (Baldi & Hornik 1989). The best likelihood of a linear VAE with one
noise scale is that of probabilistic PCA (Tipping & Bishop 1999), and its bound is tight there (Lucas et al. 2019).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from aevae_jax import data, evaluation, keys, training
from aevae_jax.models import VAE, Autoencoder, generation
from aevae_jax.models.architectures import MLP
from aevae_jax.objectives.losses import ELBO, ReconstructionError
from aevae_jax.training.optimizers import AdamW

PCA_ERROR = {8: 0.02391325, 16: 0.01104368}  # mean square per pixel
LOG_LIKELIHOOD = {8: 14.2098, 16: 23.9294}  # nats per image


def rows():
    """All digits, `[1797, 64]`, float64."""
    return load_digits().data / 16


@pytest.fixture(scope="module")
def dataset():
    """A data set whose training split is all of them."""
    x = rows().astype(np.float32)
    return data.Dataset("digits", data.Split(x), data.Split(x[:10]), data.Split(x[:10]), levels=0)


def eigen(x):
    """Eigenvalues, largest first, and eigenvectors of the population covariance."""
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    return values[::-1], vectors[:, ::-1]


# the oracles themselves


@pytest.mark.parametrize("k", [8, 16])
def test_pca_error_is_that_of_scikit_learn_and_of_the_discarded_eigenvalues(k):
    x = rows()
    pca = PCA(k, svd_solver="full").fit(x)
    error = ((pca.inverse_transform(pca.transform(x)) - x) ** 2).mean()
    assert error == pytest.approx(PCA_ERROR[k], abs=5e-9)
    assert eigen(x)[0][k:].sum() / 64 == pytest.approx(PCA_ERROR[k], abs=5e-9)


@pytest.mark.parametrize("k", [8, 16])
def test_likelihood_of_probabilistic_pca_is_the_density_of_its_gaussian(k):
    x = rows()
    values, vectors = eigen(x)
    noise = values[k:].mean()
    w = vectors[:, :k] * np.sqrt(values[:k] - noise)
    gaussian = multivariate_normal(x.mean(axis=0), w @ w.T + noise * np.eye(64))
    assert gaussian.logpdf(x).mean() == pytest.approx(LOG_LIKELIHOOD[k], abs=5e-5)
    worse = multivariate_normal(x.mean(axis=0), w @ w.T + 1.05 * noise * np.eye(64))
    assert worse.logpdf(x).mean() < LOG_LIKELIHOOD[k]


# what training makes of them


def train(model, objective, optimizer, dataset, epochs):
    """Parameters after `epochs` of batches of 128."""
    x, key = jnp.asarray(dataset.train.x), keys.root(0)
    tx = optimizer.build(epochs * training.steps_per_epoch(x, 128))
    step = training.make_train_step(model, objective, tx)
    state = jax.jit(lambda k: training.init_state(model, tx, k))(key)
    for _ in range(epochs):
        state, _ = training.train_epoch(step, state, x, key, batch_size=128)
    return state.params


@pytest.mark.slow
def test_linear_autoencoder_reaches_pca(dataset):
    model = Autoencoder(latent=8, network=MLP(hidden=()), event_shape=(64,))
    params = train(model, ReconstructionError(), AdamW(0.05, cosine=True), dataset, epochs=250)
    x = rows()
    reconstructed = np.asarray(generation.reconstruct(model, params, jnp.asarray(x, jnp.float32)), np.float64)
    error = ((reconstructed - x) ** 2).mean()
    assert error == pytest.approx(PCA_ERROR[8], rel=1e-3)
    assert error > PCA_ERROR[8] * (1 - 1e-5)  # nothing linear is better, float32 rounding aside
    kernel = np.asarray(params["decoder"]["out"]["kernel"], np.float64)  # [8, 64]
    basis = np.linalg.qr(kernel.T)[0]
    overlap = np.linalg.svd(basis.T @ eigen(x)[1][:, :8], compute_uv=False)  # cosines of the principal angles
    assert overlap.min() > 0.99  # the decoder spans the leading eigenvectors


class LinearWarmup(NamedTuple):
    """A linear VAE in float64: x ~ N(W z + mean, noise I), q(z|x) = N(loc, diag(variance))."""

    w: np.ndarray
    mean: np.ndarray
    noise: float
    loc: np.ndarray
    variance: np.ndarray

    def log_likelihood(self, x):
        """log p(x), `[N]`, in closed form."""
        return multivariate_normal(self.mean, self.w @ self.w.T + self.noise * np.eye(64)).logpdf(x)

    def elbo(self, x):
        """E_q log p(x|z) - KL, `[N]`, in closed form."""
        squares = ((x - self.mean - self.loc @ self.w.T) ** 2).sum(axis=1)
        spread = self.variance @ (self.w**2).sum(axis=0)
        distortion = (squares + spread) / (2 * self.noise) + 32 * math.log(2 * math.pi * self.noise)
        rate = 0.5 * (self.loc**2 + self.variance - 1 - np.log(self.variance)).sum(axis=1)
        return -distortion - rate


@pytest.fixture(scope="module")
def linear_vae(dataset):
    """The model, its parameters after training, and the same in float64."""
    model = VAE(latent=8, network=MLP(hidden=()), event_shape=(64,))
    params = train(model, ELBO(), AdamW(0.02, cosine=True), dataset, epochs=800)
    q = jax.tree.map(lambda a: np.asarray(a, np.float64), model.encode(params, jnp.asarray(dataset.train.x)))
    out = {name: np.asarray(a, np.float64) for name, a in params["decoder"]["out"].items()}
    log_scale = float(model.decode(params, jnp.zeros((1, 8))).log_scale[0, 0])
    exact = LinearWarmup(out["kernel"].T, out["bias"], math.exp(2 * log_scale), q.loc, np.exp(2 * q.log_scale))
    return model, params, exact


@pytest.mark.slow
def test_linear_vae_reaches_the_likelihood_of_probabilistic_pca(linear_vae):
    reached = linear_vae[2].log_likelihood(rows()).mean()
    assert reached == pytest.approx(LOG_LIKELIHOOD[8], rel=1e-3)
    assert reached <= LOG_LIKELIHOOD[8] + 5e-5  # nothing of this form is better


@pytest.mark.slow
def test_bound_of_the_linear_vae_is_below_its_likelihood_and_nearly_tight(linear_vae):
    exact = linear_vae[2]
    gap = exact.log_likelihood(rows()) - exact.elbo(rows())
    assert gap.min() >= -1e-6
    assert gap.mean() < 0.02


@pytest.mark.slow
def test_evaluated_bound_is_that_of_the_closed_form(linear_vae, dataset):
    """Within 4 standard errors of 20 evaluations, and so not above the likelihood beyond them."""
    model, params, exact = linear_vae
    x = jnp.asarray(dataset.train.x)
    elbos = np.array([-evaluation.evaluate(model, params, x, jax.random.key(i))["negative_elbo"] for i in range(20)])
    standard_error = elbos.std(ddof=1) / math.sqrt(len(elbos))
    assert abs(elbos.mean() - exact.elbo(rows()).mean()) < 4 * standard_error
    assert elbos.mean() <= exact.log_likelihood(rows()).mean() + 4 * standard_error
    assert standard_error < 0.02
