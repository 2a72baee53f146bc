"""How good pictures are: measures with known values."""

from __future__ import annotations

import numpy as np
import pytest

from aevae_jax import data
from aevae_jax.evaluation import classifiers, image_quality, statistics
from aevae_jax.types import InputError

RNG = np.random.default_rng(0)


def test_two_halves_of_one_set_are_alike():
    a, b = RNG.normal(size=(2, 600, 4))
    found = statistics.manifold(a, b)
    assert all(value > 0.85 for value in found)
    assert found.density == pytest.approx(1, abs=0.15)


def test_far_sets_share_nothing():
    a = RNG.normal(size=(200, 3))
    assert tuple(statistics.manifold(a, a + 100)) == (0, 0, 0, 0)


def test_samples_of_one_mode_are_precise_and_cover_half():
    two = np.concatenate([RNG.normal(size=(300, 3)), RNG.normal(size=(300, 3)) + 50])
    one = RNG.normal(size=(600, 3))
    found = statistics.manifold(two, one)
    assert found.precision > 0.9
    assert found.recall == pytest.approx(0.5, abs=0.06)
    assert found.coverage == pytest.approx(0.5, abs=0.06)


def test_an_outlier_raises_precision_but_not_density():
    """A single far point of the data has a ball that holds everything: Naeem et al. 2020."""
    a, b = RNG.normal(size=(200, 2)), RNG.normal(size=(200, 2)) + 8
    far = np.concatenate([a, [[60.0, 60.0]]])
    found = statistics.manifold(far, b)
    assert found.precision > 0.9
    assert found.density < 0.3
    assert found.coverage < 0.1


def test_by_hand_on_a_line():
    """Balls of radius 1 around 0, 1, 2, 3 and of 0.5 around the samples."""
    data_, samples = np.array([[0.0], [1], [2], [3]]), np.array([[0.5], [1.0], [9.0], [9.5]])
    found = statistics.manifold(data_, samples, neighbours=1)
    assert found == (0.5, 0.5, (2 + 3) / 4, 0.75)


@pytest.mark.parametrize(
    ("neighbours", "message"), [(0, "neighbours: got 0"), (4, "neighbours: got 4, expected 1 to 3")]
)
def test_neighbours_must_be_there(neighbours, message):
    with pytest.raises(InputError, match=message):
        statistics.manifold(np.zeros((4, 2)), np.zeros((5, 2)), neighbours)


def test_reconstructions_pixel_by_pixel():
    images = RNG.random((3, 9, 9, 1)).astype(np.float32) * 0.5
    found = image_quality.of_reconstructions(images, images + np.float32(0.1))
    np.testing.assert_allclose(found.mse, 0.01, rtol=1e-5)
    np.testing.assert_allclose(found.psnr, 20, rtol=1e-5)
    same = image_quality.of_reconstructions(images, images)
    assert (same.psnr == np.inf).all()
    np.testing.assert_allclose(same.ssim, 1)
    assert (found.ssim < 0.99).all()
    assert image_quality.of_reconstructions(images[:, :5, :5], images[:, :5, :5]).ssim is None


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.zeros((2, 8, 8, 1)), np.zeros((2, 8, 8, 3)), r"got \(2, 8, 8, 1\) and \(2, 8, 8, 3\)"),
        (np.zeros((2, 8, 8, 1)), np.full((2, 8, 8, 1), 2.0), "reconstructions: got values from 2 to 2"),
        (np.full((2, 8, 8, 1), np.nan), np.zeros((2, 8, 8, 1)), "images: got values from nan"),
    ],
)
def test_what_are_no_images_is_refused(a, b, message):
    with pytest.raises(InputError, match=message):
        image_quality.of_reconstructions(a, b)


@pytest.mark.slow
def test_samples_are_judged_by_classifiers_of_the_same_data():
    source = data.Data()
    dataset = source.load()
    prepared = data.prepare(source.preparation, dataset)
    judge = classifiers.train_ensemble(data.prepare(source.preparation, dataset), range(2), steps=60)
    x = np.asarray(prepared.test.x)
    alike = image_quality.of_samples(x[:180], x[180:], judge)
    noise = image_quality.of_samples(x[:180], RNG.random(x[180:].shape).astype(np.float32), judge)
    assert alike.num_samples == 180
    assert alike.frechet_distance < 0.2 * noise.frechet_distance
    assert alike.manifold.coverage > 0.7
    assert noise.manifold.coverage < 0.2


def images_of_range(low, high, preparation):
    """Floats between two values, and what stands for their decoded images, shifted by a tenth of the range."""
    raw = RNG.uniform(low, high, (60, 8, 8, 1)).astype(np.float32)
    prepared = data.prepare(preparation, data.from_arrays(raw[:20], raw[20:40], raw[40:], name="floats"))
    return prepared, raw[40:], np.clip(raw[40:] + 0.1 * (high - low), None, raw[:40].max())


@pytest.mark.parametrize(("low", "high"), [(0, 240), (-1, 1)])
@pytest.mark.parametrize("preparation", [data.Scale(), data.Standardize()], ids=repr)
def test_quality_is_in_the_units_of_the_data(low, high, preparation):  # mistake 45
    prepared, raw, decoded = images_of_range(low, high, preparation)
    found, ends = image_quality.of_decoded(prepared, prepared.test.x[:], preparation.units(decoded, prepared.format))
    mse = ((np.clip(decoded, *ends) - raw) ** 2).reshape(20, -1).mean(axis=1, dtype=np.float64)
    np.testing.assert_allclose(found.mse, mse, rtol=1e-4)
    assert ends == pytest.approx(
        (min(prepared.train.x.min(), raw.min()), max(prepared.train.x.max(), raw.max())), abs=1e-3
    )
    np.testing.assert_allclose(found.psnr, 10 * np.log10((ends[1] - ends[0]) ** 2 / mse), rtol=1e-4)
    assert (found.ssim < 0.999).all()


def test_psnr_and_ssim_do_not_depend_on_the_units():
    images = RNG.random((3, 9, 9, 1))
    other = np.clip(images + RNG.normal(scale=0.1, size=images.shape), 0, 1)
    here, there = (image_quality.of_reconstructions(c * images, c * other, data_range=(0, c)) for c in (1.0, 240.0))
    np.testing.assert_allclose(there.psnr, here.psnr)
    np.testing.assert_allclose(there.ssim, here.ssim)
    np.testing.assert_allclose(there.mse, 240**2 * here.mse)


@pytest.mark.parametrize("preparation", [data.StaticBinarization(), data.Scale()], ids=repr)
def test_classifiers_are_trained_on_what_a_model_sees(monkeypatch, preparation):  # mistake 49
    """Bits that were drawn for training, not the grey levels that they were drawn from; and examples with a label."""
    raw = RNG.integers(0, 256, (60, 6), np.uint8)
    labels = np.arange(60) % 3 - 1
    source = data.datasets.Dataset(
        "own", *(data.Split(raw[rows], labels[rows]) for rows in (slice(20), slice(20, 40), slice(40, 60))), 256
    )
    prepared = data.prepare(preparation, source)
    seen = []

    def once(step, state, examples, key, **options):
        seen.append([np.asarray(part) for part in examples])
        return state, {}

    monkeypatch.setattr(classifiers.training, "train_epoch", once)
    judge = classifiers.train_ensemble(prepared, range(2), steps=1)
    [(x, kept)] = seen
    np.testing.assert_array_equal(x, prepared.train.x[:][labels[:20] >= 0])
    assert set(np.unique(x)) == {0, 1} or preparation == data.Scale()
    assert set(kept.tolist()) == {0, 1}
    assert judge.classifier.classes == 2


def test_the_frechet_distance_of_one_feature_is_that_of_two_normals_on_a_line():
    a, b = RNG.normal(1, 2, (500, 1)), RNG.normal(-1, 3, (400, 1))
    expected = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert statistics.frechet_distance(a, b) == pytest.approx(expected)
