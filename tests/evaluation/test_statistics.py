"""Statistics of codes and samples against closed forms, on points whose moments are exact."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg

from aevae_jax.evaluation import classifiers as features, image_quality, statistics
from aevae_jax.types import InputError


def with_moments(mean, cov, count: int = 40, seed: int = 0) -> np.ndarray:
    """Points `[count, D]` whose sample mean and covariance are exactly these."""
    z = np.random.default_rng(seed).normal(size=(count, len(mean)))
    z = z - z.mean(axis=0)
    z = z @ np.linalg.inv(np.linalg.cholesky(np.atleast_2d(np.cov(z, rowvar=False)))).T
    return z @ np.linalg.cholesky(np.asarray(cov, float)).T + mean


A = np.array([[2.0, 0.6, 0.0], [0.6, 1.0, -0.3], [0.0, -0.3, 0.5]])
B = np.array([[0.7, -0.2, 0.1], [-0.2, 1.5, 0.4], [0.1, 0.4, 3.0]])  # does not commute with A
M, N = np.array([1.0, -2.0, 0.5]), np.array([0.0, 1.0, 0.25])


def test_frechet_distance_is_the_closed_form():
    """|m - n|^2 + tr(A + B - 2 (A B)^1/2), the root by Schur decomposition; the numbers of points may differ."""
    expected = ((M - N) ** 2).sum() + np.trace(A + B - 2 * np.real(linalg.sqrtm(A @ B)))
    a, b = with_moments(M, A), with_moments(N, B, count=60, seed=1)
    assert statistics.frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert statistics.frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)
    assert statistics.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    shifted = statistics.frechet_distance(a.astype(np.float32), (a + np.array([3.0, 0.0, 4.0])).astype(np.float32))
    assert shifted == pytest.approx(25, rel=1e-5)


def test_the_interval_is_students_two_sided_one():
    """t of 3 degrees of freedom: 2.5 % lie above 3.1824, 5 % above 2.3534. The standard error is sqrt(5/12)."""
    values = np.array([1.0, 2.0, 3.0, 4.0])
    assert statistics.interval(values) == pytest.approx((2.5, 2.5 - 2.05426, 2.5 + 2.05426), rel=1e-5)
    assert statistics.interval(values, 0.9).high == pytest.approx(2.5 + 1.51911, rel=1e-5)
    assert statistics.interval(values[:1]) == (1.0, -np.inf, np.inf)


def test_kl_of_a_gaussian_fit_is_the_closed_form():
    expected = 0.5 * (np.trace(A) + M @ M - 3 - np.log(np.linalg.det(A)))
    assert statistics.kl_of_gaussian_fit(with_moments(M, A)) == pytest.approx(expected, rel=1e-9)
    assert statistics.kl_of_gaussian_fit(with_moments(0 * M, np.eye(3))) == pytest.approx(0, abs=1e-12)
    assert statistics.kl_of_gaussian_fit(with_moments([3.0], [[1.0]])) == pytest.approx(4.5)  # the mean alone
    assert statistics.kl_of_gaussian_fit(np.zeros((5, 2))) == np.inf


def test_mmd_is_unbiased_as_counted_by_hand():
    """Pairs of a point with itself are left out: two points of each set, kernel 2 / (2 + squared distance)."""
    a, b = np.array([[0.0], [1.0]]), np.array([[0.0], [2.0]])
    within_a, within_b = 2 / 3, 2 / 6
    between = (1 + 2 / 6 + 2 / 3 + 2 / 3) / 4
    assert statistics.mmd(a, b) == pytest.approx(within_a + within_b - 2 * between, rel=1e-12)


def test_mmd_of_one_distribution_is_zero_on_average():
    """Within four standard errors; the biased statistic of so few points is far above."""
    draws = np.random.default_rng(0).normal(size=(400, 2, 8, 2))
    found = np.array([statistics.mmd(a, b) for a, b in draws])
    assert abs(found.mean()) < 4 * found.std() / 20
    assert statistics.mmd(draws[0, 0], draws[0, 0] + 50) > 0.5


def test_units_are_active_above_a_hundredth():
    z = np.random.default_rng(0).normal(size=(1000, 4))
    z = (z - z.mean(axis=0)) / z.std(axis=0) * np.sqrt([0.005, 0.02, 0.0, 3.0])
    assert statistics.active_units(z).tolist() == [False, True, False, True]
    assert statistics.active_units(z, threshold=0.001).tolist() == [True, True, False, True]


@pytest.mark.parametrize("measure", [statistics.frechet_distance, statistics.mmd])
@pytest.mark.parametrize("shapes", [((4, 2), (4, 3)), ((1, 2), (4, 2)), ((4,), (4,))])
def test_sets_that_cannot_be_compared_are_refused(measure, shapes):
    with pytest.raises(InputError, match="two sets of points: got"):
        measure(*(np.zeros(shape) for shape in shapes))


def test_ssim_of_even_images_is_the_closed_form():
    """Without variance (2 a b + c) / (a^2 + b^2 + c) is left, c = (0.01 times the range)^2: Wang et al. 2004."""
    a, b, c = 0.02, 0.05, 1e-4
    images, others = (np.full((2, 9, 9, 1), value, np.float32) for value in (a, b))
    found = image_quality.of_reconstructions(images, others)
    np.testing.assert_allclose(found.ssim, (2 * a * b + c) / (a**2 + b**2 + c), rtol=1e-5)


class Judge:
    """Two classifiers: the features of the second are three times those of the first."""

    def features(self, x):
        return np.stack([x, 3 * x])


def test_frechet_distances_of_all_classifiers_are_averaged():
    data, samples = with_moments([0.0, 0.0], np.eye(2)), with_moments([1.0, 0.0], np.eye(2), seed=1)
    found = image_quality.of_samples(data, samples, Judge())
    assert found.frechet_distance == pytest.approx((1 + 9) / 2, rel=1e-9)


def test_probabilities_are_averaged_and_not_logits():
    """One network sure of the first class, one of the second: together they are unsure. The mean logit is sure."""

    def classifier(params, x):
        return jnp.stack([jnp.full(len(x), params), jnp.zeros(len(x))], axis=-1), x

    found = features.Ensemble(classifier, jnp.asarray([12.0, -4.0])).probabilities(np.zeros((3, 2), np.float32))
    expected = np.mean([1 / (1 + np.exp(-12.0)), 1 / (1 + np.exp(4.0))])
    np.testing.assert_allclose(found, np.tile([expected, 1 - expected], (3, 1)), rtol=1e-5)
