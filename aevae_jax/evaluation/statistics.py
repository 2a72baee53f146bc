"""Statistics of codes and samples, on arrays in float64. Nothing here knows a model.

Distances between sets of points are estimates that depend on how many points there are: compare equal counts.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np

from aevae_jax.types import InputError


class Interval(NamedTuple):
    """A mean over repetitions with the ends of its 95 % confidence interval."""

    mean: float
    low: float
    high: float


def standard_error(values: np.ndarray) -> float:
    """Return the standard error of the mean of independent values `[N]`, in float64; infinite for a single one."""
    values = np.asarray(values, np.float64)
    with np.errstate(invalid="ignore"):  # of infinite values it is NaN
        return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("inf")


def interval(values: np.ndarray, confidence: float = 0.95) -> Interval:
    """Return Student's t interval of the mean of independent repetitions `[S]`; infinite for a single one."""
    from scipy import stats

    values = np.asarray(values, np.float64)
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean, -np.inf, np.inf)
    half = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1) * standard_error(values))
    return Interval(mean, mean - half, mean + half)


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the squared 2-Wasserstein distance of the Gaussian fits of two sets of features `[N, F]`, `[M, F]`.

    |m_a - m_b|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2). Frechet 1957; Heusel et al. 2017 for its use on features.
    """
    _same_width(a, b)
    return GaussianFit(a).distance(GaussianFit(b))


class GaussianFit:
    """Mean and covariance of features `[N, F]`, in float64, to be compared with those of other features."""

    def __init__(self, x: np.ndarray) -> None:
        self.mean = x.mean(axis=0, dtype=np.float64)
        self.cov = np.atleast_2d(np.cov(x, rowvar=False))

    @cached_property
    def root(self) -> np.ndarray:
        """The symmetric square root of the covariance, `[F, F]`: what costs most of a distance, and depends on one."""
        w, v = np.linalg.eigh(self.cov)
        return (v * np.sqrt(w.clip(0))) @ v.T

    def distance(self, other: GaussianFit) -> float:
        """Return the squared 2-Wasserstein distance of both: see `frechet_distance`.

        Raises:
          InputError: features of other widths.
        """
        if self.mean.shape != other.mean.shape:
            raise InputError("width of features", got=len(other.mean), expected=f"{len(self.mean)}, as of the others")
        cross = np.sqrt(np.linalg.eigvalsh(self.root @ other.cov @ self.root).clip(0)).sum()
        return float(((self.mean - other.mean) ** 2).sum() + np.trace(self.cov) + np.trace(other.cov) - 2 * cross)


class Manifold(NamedTuple):
    """Shares of points that lie near points of another set, 0 to 1; density may exceed 1."""

    precision: float
    """Share of the samples that lie in the support of the data. Kynkaanniemi et al. 2019."""
    recall: float
    """Share of the data that lies in the support of the samples."""
    density: float
    """How many balls around data a sample lies in, over k: precision that outliers do not raise. Naeem et al. 2020."""
    coverage: float
    """Share of the balls around data that hold a sample."""


def manifold(data: np.ndarray, samples: np.ndarray, neighbours: int = 5) -> Manifold:
    """Return precision, recall, density and coverage of features `[N, F]` of data and `[M, F]` of samples.

    The support of a set is taken to be the union of balls around its points, each as far as its k-th nearest neighbour.

    Raises:
      InputError: sets of other shapes, or fewer than k + 1 points.
    """
    from sklearn.metrics import pairwise_distances
    from sklearn.neighbors import NearestNeighbors

    _same_width(data, samples)
    fewest = min(len(data), len(samples))
    if not 1 <= neighbours < fewest:
        raise InputError("neighbours", got=neighbours, expected=f"1 to {fewest - 1}, less than the number of points")
    around_data, around_samples = (NearestNeighbors(n_neighbors=neighbours + 1).fit(set_) for set_ in (data, samples))
    radius_data, radius_samples = around_data.kneighbors(data)[0][:, -1], around_samples.kneighbors(samples)[0][:, -1]
    in_balls, recalled = np.zeros(len(samples), int), np.zeros(len(data), bool)
    for start in range(0, len(data), 1000):  # a block of the distances at a time
        rows = slice(start, start + 1000)
        distance = pairwise_distances(data[rows], samples)
        in_balls += (distance <= radius_data[rows, None]).sum(axis=0)
        recalled[rows] = (distance <= radius_samples[None, :]).any(axis=1)
    nearest = around_samples.kneighbors(data, n_neighbors=1)[0][:, 0]
    return Manifold(
        float((in_balls > 0).mean()),
        float(recalled.mean()),
        float(in_balls.mean() / neighbours),
        float((nearest <= radius_data).mean()),
    )


def kl_of_gaussian_fit(z: np.ndarray) -> float:
    """Return KL(N(m, C) || N(0, I)) in nats, m and C the mean and covariance of points `[N, D]`; infinite if C is
    singular.
    """
    mean, cov = z.mean(axis=0, dtype=np.float64), np.atleast_2d(np.cov(z, rowvar=False))
    sign, log_det = np.linalg.slogdet(cov)
    return float(0.5 * (np.trace(cov) + mean @ mean - len(cov) - log_det)) if sign > 0 else float("inf")


def mmd(a: np.ndarray, b: np.ndarray) -> float:
    """Return the unbiased squared maximum mean discrepancy of points `[N, D]`, `[M, D]`; it can be slightly negative.

    Gretton et al. 2012, with the inverse multiquadratic kernel c / (c + |x - y|^2), c = 2 D, which suits N(0, I):
    Tolstikhin et al. 2018, section 4.
    """
    _same_width(a, b)
    scale = 2.0 * a.shape[1]

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        x, y = x.astype(np.float64), y.astype(np.float64)
        squares = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1)[None, :] - 2 * x @ y.T
        return scale / (scale + squares.clip(0))

    n, m = len(a), len(b)
    within_a = (kernel(a, a).sum() - n) / (n * (n - 1))  # the diagonal is 1
    within_b = (kernel(b, b).sum() - m) / (m * (m - 1))
    return float(within_a + within_b - 2 * kernel(a, b).mean())


def active_units(posterior_means: np.ndarray, threshold: float | np.ndarray = 0.01) -> np.ndarray:
    """Return which latent dimensions react to the data: variance over `[N, D]` posterior means above `threshold`,
    `[D]`.

    Burda, Grosse & Salakhutdinov 2016, section 5.1.
    """
    return posterior_means.var(axis=0, dtype=np.float64) > threshold


def pca_error(train: np.ndarray, test: np.ndarray, components: int) -> float:
    """Return the mean squared error per element of `test` `[N, ...]` under a PCA of `train` with so many components."""
    from sklearn.decomposition import PCA

    train, test = train.reshape(len(train), -1), test.reshape(len(test), -1)
    pca = PCA(min(components, *train.shape), svd_solver="full").fit(train)
    return float(((pca.inverse_transform(pca.transform(test)) - test) ** 2).mean(dtype=np.float64))


def _same_width(a: np.ndarray, b: np.ndarray) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise InputError("two sets of points", got=f"{a.shape} and {b.shape}", expected="[N, D] and [M, D], N, M >= 2")
