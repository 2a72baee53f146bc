"""Statistics of codes and samples against closed forms, on points whose moments are exact."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from scipy import linalg, stats

from aevae_jax.evaluation import classifiers, image_quality, statistics
from aevae_jax.models.architectures import MLP, Conv
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


def test_frechet_distance_of_fewer_points_than_dimensions_is_that_of_their_span():
    """Rounding makes eigenvalues of such covariances negative. Turned, points are as far apart as they were."""
    a, b = with_moments(M, A), with_moments(N, B, count=60, seed=1)
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(8, 3)))[0].T
    expected = statistics.frechet_distance(a, b)
    assert statistics.frechet_distance(a @ turn, b @ turn) == pytest.approx(expected, rel=1e-6)


def test_the_interval_is_students_two_sided_one():
    """t of 3 degrees of freedom: 2.5 % lie above 3.1824, 5 % above 2.3534. The standard error is sqrt(5/12)."""
    values = np.array([1.0, 2.0, 3.0, 4.0])
    assert statistics.interval(values) == pytest.approx((2.5, 2.5 - 2.05426, 2.5 + 2.05426), rel=1e-5)
    assert statistics.interval(values, 0.9).high == pytest.approx(2.5 + 1.51911, rel=1e-5)
    assert statistics.interval(values[:1]) == (1.0, -np.inf, np.inf)


def test_the_standard_error_is_that_of_a_mean():
    assert statistics.standard_error(np.array([1, 2, 3, 4])) == pytest.approx((5 / 12) ** 0.5, rel=1e-12)
    assert statistics.standard_error(np.array([2.0])) == np.inf
    large = np.float32(2**24) + np.array([0, 2, 4, 6], np.float32)  # whose float32 sum is rounded
    assert statistics.standard_error(large) == pytest.approx((5 / 3) ** 0.5, rel=1e-12)
    assert statistics.interval(large).mean == 2**24 + 3


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


def test_mmd_of_points_in_a_plane_is_the_sum_over_pairs():
    """As many as there are in each set; the scale is twice the number of dimensions."""
    a, b = np.array([[0.0, 0.0], [1.0, 2.0], [3.0, -1.0]]), np.array([[0.5, 0.5], [2.0, 2.0]])

    def k(x, y):
        return 4 / (4 + (x[0] - y[0]) ** 2 + (x[1] - y[1]) ** 2)

    within_a = (k(a[0], a[1]) + k(a[0], a[2]) + k(a[1], a[2])) / 3
    between = sum(k(x, y) for x in a for y in b) / 6
    assert statistics.mmd(a, b) == pytest.approx(within_a + k(b[0], b[1]) - 2 * between, rel=1e-12)
    assert statistics.mmd(b, a) == pytest.approx(statistics.mmd(a, b), rel=1e-12)


def test_mmd_is_at_most_2_where_squared_distances_are_lost_in_rounding():
    """Of points 7e7 from the origin some come out as -4, the negative of the scale."""
    a, b = 7e7 + np.random.default_rng(0).normal(size=(2, 20, 2))
    assert abs(statistics.mmd(a, b)) <= 2


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


def test_the_error_of_pca_is_what_lies_off_its_components():
    """Axes of lengths 3, 2 and 1 through the mean; another one's test data are centred by the training data's mean."""
    mean = np.array([10.0, -5.0, 2.0])
    train = mean + np.concatenate([np.diag([3.0, 2.0, 1.0]), -np.diag([3.0, 2.0, 1.0])])
    test = mean + np.array([[1.0, 2.0, 4.0], [7.0, 0.0, -2.0]])
    for components, expected in ((1, (2**2 + 4**2 + 2**2) / 6), (2, (4**2 + 2**2) / 6), (3, 0.0), (50, 0.0)):
        found = statistics.pca_error(train.reshape(6, 3, 1), test.reshape(2, 3, 1), components)
        assert found == pytest.approx(expected, abs=1e-12)


def test_units_vary_about_their_mean_over_the_data():
    """Means of +-s about 7 have the variance s^2, whatever their number."""
    z = 7.0 + np.array([[0.0999, 0.1001], [-0.0999, -0.1001]])
    assert statistics.active_units(z).tolist() == [False, True]


@pytest.mark.parametrize(("count", "neighbours"), [((2500, 700), 4), ((900, 1200), 1)])
def test_shares_of_many_points_are_those_of_all_distances_at_once(count, neighbours):
    """More points than are compared at a time, and other numbers of data than of samples."""
    generator = np.random.default_rng(sum(count))
    data, samples = generator.normal(size=(count[0], 2)), generator.normal(size=(count[1], 2)) * [1.5, 0.7] + [0.5, 0]
    samples = np.round(samples, 1)  # many have no distance from each other, and others are not covered

    def distances(a, b):
        return np.sqrt((a[:, None, 0] - b[None, :, 0]) ** 2 + (a[:, None, 1] - b[None, :, 1]) ** 2)

    apart = distances(data, samples)
    radius_data, radius_samples = (
        np.partition(distances(x, x), neighbours, axis=1)[:, neighbours] for x in (data, samples)
    )
    inside = apart <= radius_data[:, None]
    expected = (
        inside.any(axis=0).mean(),
        (apart <= radius_samples[None, :]).any(axis=1).mean(),
        inside.sum() / (neighbours * len(samples)),
        inside.any(axis=1).mean(),
    )
    assert statistics.manifold(data, samples, neighbours) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("measure", [statistics.frechet_distance, statistics.mmd, statistics.manifold])
@pytest.mark.parametrize("shapes", [((4, 2), (4, 3)), ((1, 2), (4, 2)), ((4, 2), (1, 2)), ((4,), (4,))])
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
    """Two classifiers: the features of the second are three times those of the first; confident of what is above 2."""

    def features(self, x):
        return np.stack([x, 3 * x])

    def confident(self, x):
        return float((x > 2).mean())


def test_frechet_distances_of_all_classifiers_are_averaged():
    """Of equal points they are squared distances: 3 and 9 apart; and 0 within the data."""
    data, samples = np.zeros((40, 1)), np.full((30, 1), 3.0)
    found = image_quality.of_samples(data, samples, Judge())
    assert found.samples.frechet_distance == found.excess == pytest.approx((9 + 81) / 2, rel=1e-9)
    assert found.floor.frechet_distance == 0
    assert (found.samples.confident, found.floor.confident) == (1, 0)
    judge = Judge()
    alone = image_quality.frechet_distances(judge.features(data), judge.features(samples))
    assert alone == (found.samples.frechet_distance, found.floor.frechet_distance, 20)


def test_halves_that_are_compared_with_many_sets_are_those_of_each_alone():
    rng = np.random.default_rng(0)
    data = rng.normal(size=(2, 40, 3))
    halves = image_quality.Halves(data, halvings=3)
    for count in (30, 7, 30):
        samples = rng.normal(size=(2, count, 3))
        found = halves.distances(samples)
        assert found == image_quality.frechet_distances(data, samples, halvings=3)
        assert found.samples != found.floor > 0
    with pytest.raises(InputError, match="width of features: got 4, expected 3"):
        halves.distances(np.ones((2, 30, 4)))


@pytest.mark.parametrize(("num_data", "num_samples", "count"), [(40, 100, 20), (41, 100, 20), (40, 7, 7)])
def test_samples_and_data_are_compared_with_as_many_data(monkeypatch, num_data, num_samples, count):
    """The halves have no point in common, and every halving is another."""
    data, samples, seen = np.arange(num_data)[:, None] + 0.0, 1000.0 + np.arange(num_samples)[:, None], []
    shares = statistics.Manifold(0.1, 0.2, 0.3, 0.4)
    monkeypatch.setattr(image_quality.statistics, "manifold", lambda a, b, k: seen.append((a, b, k)) or shares)
    told = []
    found = image_quality.of_samples(
        data, samples, Judge(), neighbours=2, halvings=3, on_part=lambda *part: told.append(part)
    )
    assert told == [(done, 12) for done in range(1, 13)]
    assert found.samples.num_samples == found.floor.num_samples == count
    assert found.samples.manifold == found.floor.manifold == pytest.approx(shares)
    assert len(seen) == 3 * 2 * 2  # halvings, sets, classifiers
    halves = []
    for a, b, k in seen:
        assert len(a) == len(b) == len(np.unique(a)) == len(np.unique(b)) == count
        assert k == 2
        assert not np.isin(a, b).any()
        halves.append(tuple(np.sort(a[:, 0] / (1 if a.max() < num_data else 3))))
    assert len(set(halves)) == 3
    assert sum(b.min() >= 1000 for _, b, _ in seen) == 6  # a half of the comparisons are of samples


def test_the_fewer_the_data_the_more_often_they_are_halved(monkeypatch):
    calls = []
    monkeypatch.setattr(image_quality.statistics, "manifold", lambda a, b, k: calls.append(len(a)) or (0, 0, 0, 0))
    for count, times in ((4, 5), (1000, 2), (2500, 1)):
        calls.clear()
        image_quality.of_samples(np.zeros((2 * count, 1)), np.zeros((count, 1)), Judge(), neighbours=1)
        assert calls == [count] * times * 4


@pytest.mark.parametrize(("num_data", "num_samples"), [(11, 100), (100, 5)])
def test_too_few_pictures_to_judge_are_refused(num_data, num_samples):
    message = f"pictures to judge: got {num_samples} samples and {num_data} of the data, expected at least 6 samples"
    with pytest.raises(InputError, match=message):
        image_quality.of_samples(np.zeros((num_data, 1)), np.zeros((num_samples, 1)), Judge())


def test_samples_that_are_nearer_to_data_than_data_are_have_a_negative_excess():
    """Samples without noise of sampling: their moments are those of N(0, 1), and so only those of one half are off."""
    data = np.random.default_rng(0).normal(size=(4000, 1))
    samples = stats.norm.ppf((np.arange(50) + 0.5) / 50)[:, None]
    found = image_quality.of_samples(data[:100], samples, Judge(), halvings=20)
    assert found.excess < 0
    assert found.samples.frechet_distance < 0.8 * found.floor.frechet_distance


def test_probabilities_are_averaged_and_not_logits():
    """One network sure of the first class, one of the second: together they are unsure. The mean logit is sure."""

    def classifier(params, x):
        return jnp.stack([jnp.full(len(x), params), jnp.zeros(len(x))], axis=-1), x

    found = classifiers.Ensemble(classifier, jnp.asarray([12.0, -4.0])).probabilities(np.zeros((3, 2), np.float32))
    expected = np.mean([1 / (1 + np.exp(-12.0)), 1 / (1 + np.exp(4.0))])
    np.testing.assert_allclose(found, np.tile([expected, 1 - expected], (3, 1)), rtol=1e-5)


def test_pictures_of_all_blocks_are_judged_once_in_their_order():
    """More than are sent to the classifiers at once; features stand by classifier, and probabilities sum to 1."""

    def classifier(params, x):
        return jnp.stack([params * x, jnp.zeros(len(x))], axis=-1), params * x[:, None]

    x = np.linspace(-1, 1, 2003).astype(np.float32)
    judge = classifiers.Ensemble(classifier, jnp.asarray([1.0, 3.0]))
    features = judge.features(x)
    assert features.shape == (2, 2003, 1)
    np.testing.assert_allclose(features[..., 0], [x, 3 * x], rtol=1e-6)
    expected = (1 / (1 + np.exp(-x)) + 1 / (1 + np.exp(-3 * x))) / 2
    np.testing.assert_allclose(judge.probabilities(x), np.stack([expected, 1 - expected], axis=1), rtol=1e-5)


@pytest.mark.slow
def test_classifiers_minimise_the_mean_cross_entropy_of_blends_of_pairs():
    """As much of each image as its class counts. The network says what it sees: two classes, two bits."""
    seen = []

    def network(params, x):
        seen.append(np.asarray(x))
        return params * x, None

    x, labels = np.eye(2, dtype=np.float32)[[0, 1, 1, 1]], np.array([0, 1, 1, 1])
    loss, metrics = classifiers.mixed_cross_entropy(network, 2.0, (x, labels), jax.random.key(0), 0)
    [blends] = seen
    share = np.asarray(jax.random.beta(jax.random.key(0), 0.2, 0.2, (4,)))
    np.testing.assert_allclose(blends, share[:, None] * x + (1 - share[:, None]) * x[::-1], rtol=1e-6)
    sure = 1 / (1 + np.exp(-2 * (2 * blends - 1)))  # softmax of 2 b and 2 (1 - b)
    own, other = (-np.log(sure[np.arange(4), classes]) for classes in (labels, labels[::-1]))
    assert float(loss) == pytest.approx((share * own + (1 - share) * other).mean(), rel=1e-5)
    assert metrics == {"loss": loss}
    images, drawn = np.ones((3, 2, 2, 1), np.float32), jax.random.key(1)  # events may have any shape
    loss, _ = classifiers.mixed_cross_entropy(
        lambda params, x: (x.reshape(3, -1)[:, :2], None), 0.0, (images, np.zeros(3, int)), drawn, 0
    )
    assert float(loss) == pytest.approx(np.log(2), rel=1e-6)


@pytest.mark.parametrize(("shape", "network"), [((4, 4, 1), Conv((2,))), ((6,), MLP((3,)))], ids=["images", "rows"])
def test_a_classifier_has_logits_and_the_features_before_them(shape, network):
    classifier = classifiers.Classifier(shape, 3, network, features=5)
    params = oracles.random_params(classifier)
    logits, features = classifier(params, jnp.ones((2, *shape)))
    assert (logits.shape, features.shape) == ((2, 3), (2, 5))
    assert (np.asarray(features) >= 0).all()
    last = jax.tree.map(np.asarray, params["Dense_0"])
    np.testing.assert_allclose(logits, np.asarray(features) @ last["kernel"] + last["bias"], rtol=1e-5)
    assert classifiers.Classifier(shape, 3, network).features == 64
