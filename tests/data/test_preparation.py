"""Preparation: what the model sees in training and evaluation, and how it gets back to the units of the data."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aevae_jax import data
from aevae_jax.data import (
    Data,
    Dataset,
    Dequantize,
    DynamicBinarization,
    Format,
    LastSplits,
    Scale,
    Split,
    Standardize,
    StaticBinarization,
    Threshold,
    datasets,
    inspection,
    prepare,
)
from aevae_jax.types import InputError

ALL = [Scale(), Standardize(), Dequantize(), DynamicBinarization(), StaticBinarization(), Threshold(0.3)]
BITS = [DynamicBinarization(), StaticBinarization(), Threshold(0.3)]
each = pytest.mark.parametrize("preparation", ALL, ids=lambda p: type(p).__name__)


def random_images(count, seed=0, shape=(4, 4, 1)):
    return np.random.RandomState(seed).randint(0, 256, (count, *shape)).astype(np.uint8)


def small_dataset(shape=(4, 4, 1)):
    whole = random_images(60, shape=shape)
    return Dataset("small", Split(whole[:30]), Split(whole[30:50]), Split(whole[50:]), levels=256)


class Rows:
    """An array that is only read on demand."""

    def __init__(self, x):
        self.x, self.shape, self.dtype = x, x.shape, x.dtype

    def __len__(self):
        return len(self.x)

    def __getitem__(self, rows):
        return self.x[rows]


def lazily(dataset):
    return replace(dataset, **{part: Split(Rows(getattr(dataset, part).x)) for part in datasets.PARTS})


@pytest.fixture(scope="module")
def digits():
    return data.digits()


def batch(prepared, seed=0, rows=slice(None)):
    return np.asarray(prepared.batch(jnp.asarray(prepared.train.x[rows]), jax.random.key(seed)))


# what all of them hold


@each
def test_evaluation_data_is_drawn_once_and_never_changes(preparation):  # mistake 19
    dataset = small_dataset()
    before = dataset.digest()
    first, second = prepare(preparation, dataset), prepare(preparation, dataset)
    np.random.seed(5)  # noqa: NPY002 (a global generator that must not matter)
    third = prepare(preparation, dataset)
    for part in ("validation", "test"):
        x = getattr(first, part).x
        assert x.dtype == np.float32
        assert np.array_equal(x, getattr(second, part).x)
        assert np.array_equal(x, getattr(third, part).x)
    assert dataset.digest() == before  # the raw data is left alone


@each
def test_evaluation_data_is_pure(preparation):  # mistake 21
    """It depends on the data alone, and not on the order of the training data."""
    dataset = small_dataset()
    order = np.random.RandomState(1).permutation(len(dataset.train))
    shuffled = replace(dataset, train=Split(dataset.train.x[order]))
    one, other = prepare(preparation, dataset).test.x, prepare(preparation, shuffled).test.x
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)  # moments are summed in another order


@each
def test_rows_from_files_are_prepared_as_rows_in_memory(preparation, monkeypatch):
    monkeypatch.setattr(datasets, "BLOCK_BYTES", 100)
    resident, lazy = prepare(preparation, small_dataset()), prepare(preparation, lazily(small_dataset()))
    assert resident.format == lazy.format
    rows = np.array([7, 2, 2, 9])
    for part in datasets.PARTS:
        assert datasets.in_memory(getattr(resident, part).x)
        assert not datasets.in_memory(getattr(lazy, part).x)
        assert np.array_equal(getattr(resident, part).x[rows], getattr(lazy, part).x[rows])
        assert np.array_equal(getattr(resident, part).x[3:8], getattr(lazy, part).x[3:8])


@each
def test_training_compiles_and_needs_no_implicit_broadcast(preparation):
    prepared = prepare(preparation, small_dataset((5, 3, 3)))
    seen = jax.jit(prepared.batch)(jnp.asarray(prepared.train.x[:4]), jax.random.key(0))
    assert seen.shape == (4, 5, 3, 3)
    assert seen.dtype == jnp.float32
    assert np.isfinite(seen).all()


@each
def test_units_and_inverse_undo_each_other(preparation):
    prepared = prepare(preparation, small_dataset())
    x = np.random.RandomState(2).rand(3, 4, 4, 1).astype(np.float32)
    back = preparation.inverse(preparation.units(x, prepared.format), prepared.format)
    np.testing.assert_allclose(back, x, atol=1e-6)


@each
def test_inverse_gives_pictures_between_0_and_1(preparation):
    prepared = prepare(preparation, small_dataset())
    shown = preparation.inverse(prepared.test.x, prepared.format)
    assert shown.min() >= -1e-6
    assert shown.max() <= 1 + 1e-6
    if preparation in (Scale(), Standardize()):
        np.testing.assert_allclose(shown, small_dataset().test.x / 255, atol=1e-6)


# each


def test_scale_divides_by_the_highest_level(digits):
    prepared = prepare(Scale(), digits)
    assert np.array_equal(prepared.test.x, digits.test.x.astype(np.float32) / np.float32(16))
    assert prepared.train.x is digits.train.x  # stays raw
    seen = prepared.batch(jnp.asarray(digits.test.x), jax.random.key(0))
    assert np.array_equal(seen, prepared.test.x)  # training sees exactly what evaluation sees
    floats = jnp.linspace(-2.0, 5.0, 7)
    assert np.array_equal(Scale().train(floats, jax.random.key(0), Format((), 0)), floats)


def test_data_names_its_preparation(digits):
    prepared = prepare(Data().preparation, digits)
    assert np.array_equal(prepared.batch(digits.test.x[:2], jax.random.key(0)), digits.test.x[:2] / np.float32(16))


def test_binarized_evaluation_follows_the_published_protocol(monkeypatch):  # mistake 19
    monkeypatch.setattr(datasets, "BLOCK_BYTES", 100)  # drawn in blocks: the same bits
    dataset = small_dataset()
    np.random.seed(777)  # noqa: NPY002 (the protocol names this generator)
    validation = np.random.binomial(1, dataset.validation.x / 255)  # noqa: NPY002
    test = np.random.binomial(1, dataset.test.x / 255)  # noqa: NPY002
    for preparation in (DynamicBinarization(), StaticBinarization()):
        prepared = prepare(preparation, dataset)
        assert np.array_equal(prepared.validation.x, validation)
        assert np.array_equal(prepared.test.x, test)


def test_binarized_training_data_is_redrawn_with_the_key():
    """The mean of 200 draws is within 5 standard errors of level / 255, element by element."""
    raw, format = jnp.asarray(random_images(3)), Format((4, 4, 1), 256)
    draw = jax.jit(jax.vmap(lambda seed: DynamicBinarization().train(raw, jax.random.key(seed), format)))
    draws = np.asarray(draw(jnp.append(jnp.arange(200), 0)))
    assert np.array_equal(draws[0], draws[-1])  # the same key
    assert not np.array_equal(draws[0], draws[1])
    assert set(np.unique(draws)) == {0.0, 1.0}
    p = np.asarray(raw) / 255
    assert (np.abs(draws[:-1].mean(axis=0) - p) <= 5 * np.sqrt(p * (1 - p) / 200) + 1e-6).all()


@pytest.mark.parametrize("levels", [2, 5])
def test_the_highest_level_is_always_1_and_the_lowest_0_in_training(levels):
    raw, format = jnp.asarray(np.tile(np.uint8([0, levels - 1]), (2000, 1))), Format((2,), levels)
    drawn = DynamicBinarization().train(raw, jax.random.key(0), format)
    assert np.array_equal(drawn, np.tile([0.0, 1.0], (2000, 1)))
    fixed = StaticBinarization().training(np.asarray(raw), format)
    assert np.array_equal(fixed, drawn)


def test_static_bits_of_training_data_are_fixed_and_fair():
    """The same for every key; means over 2,000 rows of one level within 5 standard errors of its probability."""
    raw = np.repeat(np.array([0, 64, 200, 255], np.uint8), 2000).reshape(4, 2000).T.reshape(2000, 2, 2, 1)
    dataset = Dataset("levels", Split(raw), Split(raw[:1]), Split(raw[:1]), 256)
    prepared = prepare(StaticBinarization(), dataset)
    assert prepared.train.x.dtype == np.uint8
    assert np.array_equal(batch(prepared, seed=0), batch(prepared, seed=1))
    p = np.array([0, 64, 200, 255]) / 255
    mean = prepared.train.x.reshape(2000, 4).mean(axis=0)
    assert (np.abs(mean - p) <= 5 * np.sqrt(p * (1 - p) / 2000) + 1e-9).all()
    assert len(np.unique(prepared.train.x.reshape(2000, 4)[:, 1:3], axis=0)) == 4  # pixels are drawn by themselves


def test_dequantized_levels_are_spread_over_their_bins():
    dataset = small_dataset()
    prepared = prepare(Dequantize(), dataset)
    for raw, x in ((dataset.test.x, prepared.test.x), (dataset.train.x, batch(prepared))):
        assert np.array_equal(np.floor(x.astype(np.float64) * 256), raw)
        assert x.max() < 1
    noise = prepared.test.x.astype(np.float64) * 256 - dataset.test.x
    assert abs(noise.mean() - 0.5) < 5 * np.sqrt(1 / 12 / noise.size)
    assert not np.array_equal(batch(prepared, 0), batch(prepared, 1))
    other = prepare(Dequantize(), replace(dataset, validation=dataset.test)).validation.x
    assert not np.array_equal(other, prepared.test.x)  # each split has noise of its own


def test_the_largest_level_stays_below_1_when_dequantized():
    raw = np.full((4000, 2, 2, 1), 255, np.uint8)
    x = prepare(Dequantize(), Dataset("white", Split(raw), Split(raw), Split(raw), 256)).test.x
    assert x.max() < 1


@pytest.mark.parametrize("at", [0.0, 0.3, 0.99])
def test_threshold_is_strict(at):
    dataset = small_dataset()
    prepared = prepare(Threshold(at), dataset)
    assert np.array_equal(prepared.test.x, dataset.test.x / np.float32(255) > np.float32(at))
    assert np.array_equal(batch(prepared), dataset.train.x / np.float32(255) > np.float32(at))


def test_standardized_images_have_zero_mean_and_unit_variance_per_channel():
    dataset = small_dataset((5, 6, 3))
    x = batch(prepare(Standardize(), dataset))
    np.testing.assert_allclose(x.mean(axis=(0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(x.std(axis=(0, 1, 2)), 1, atol=1e-5)


def test_standardized_vectors_use_the_moments_of_the_training_data_alone():
    generator = np.random.RandomState(0)
    x = (generator.randn(200, 3) * [1e-3, 1, 1e4] + [5, 0, -1e6]).astype(np.float32)
    dataset = data.from_arrays(x[:150], x[150:170], 100 * x[170:])
    prepared = prepare(Standardize(), dataset)
    np.testing.assert_allclose(prepared.format.mean, x[:150].astype(float).mean(axis=0), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(prepared.format.scale, x[:150].astype(float).std(axis=0), rtol=1e-5)
    expected = (dataset.test.x.astype(float) - prepared.format.mean) / prepared.format.scale
    assert np.array_equal(prepared.test.x, expected.astype(np.float32))


def times(count=1200):
    """Float64 that float32 knows ten of."""
    return 1.7327e9 + np.random.RandomState(0).permutation(count)[:, None].astype(float)


@pytest.mark.parametrize(
    "x",
    [times(), -times(), 1e12 + np.arange(320.0)[:, None], 48.1 + 1e-9 * np.arange(1000.0)[:, None]],
    ids=["times", "before", "identifiers", "latitudes"],
)
@pytest.mark.parametrize("lazy", [False, True])
def test_an_offset_is_taken_off_before_anything_is_rounded_to_float32(x, lazy):  # mistake 43
    prepared = prepare(Standardize(), data.from_arrays(Rows(x) if lazy else x, x[:40] + 0.5, x[-40:] + 0.25))
    seen = batch(prepared)
    assert seen.dtype == np.float32
    assert len(np.unique(seen)) == len(x)
    assert np.std(seen) == pytest.approx(1, abs=1e-3)
    assert not prepared.notes
    back = prepared.preparation.inverse(prepared.test.x[:], prepared.format)
    np.testing.assert_allclose(back - x.min(), x[-40:] + 0.25 - x.min(), atol=1e-4 * np.ptp(x))


def test_a_unit_so_small_that_numbers_look_like_zero_is_no_constant():
    x = np.random.RandomState(0).randn(100, 2) * [1e-9, 1]
    assert np.std(batch(prepare(Standardize(), data.from_arrays(x))), axis=0) == pytest.approx(1, abs=1e-3)


def test_a_feature_that_float32_runs_together_is_named():
    x = np.concatenate([np.random.RandomState(0).rand(1200, 1), times(), np.full((1200, 1), 1e9)], axis=1)
    [note] = prepare(Scale(), data.from_arrays(x)).notes
    assert note.startswith("arrays: float32 is too coarse to tell the values of feature 1 apart; use Standardize()")
    x[7, 0] = 1e30  # which leaves nothing of the others
    [note] = prepare(Standardize(), data.from_arrays(x, splits=LastSplits())).notes
    assert note == "arrays: float32 is too coarse to tell the values of feature 0 apart; take the largest values out"
    assert not prepare(Scale(), data.from_arrays(x[:, :1].astype(np.float32))).notes  # nothing can be lost


def bits_as_bytes(levels):
    x = (np.random.RandomState(0).rand(60, 8, 8, 1) < 0.3).astype(np.uint8)
    return data.from_arrays(x, levels=levels)


@pytest.mark.parametrize("preparation", BITS, ids=lambda p: type(p).__name__)
def test_bits_are_not_divided_by_255(preparation):  # mistake 42
    prepared = prepare(preparation, bits_as_bytes(0))
    for x in (batch(prepared), prepared.test.x):
        assert np.unique(x).tolist() == [0, 1]
    assert np.array_equal(prepared.test.x, bits_as_bytes(0).test.x)


@pytest.mark.parametrize("lazy", [False, True])
def test_a_preparation_that_leaves_one_value_is_refused(lazy):
    dataset = bits_as_bytes(256)
    with pytest.raises(
        InputError, match="Threshold of arrays: got nothing but 0, expected more than one value; levels=2"
    ):
        prepare(Threshold(), lazily(dataset) if lazy else dataset)


def test_an_offset_that_float32_drowns_in_is_to_be_taken_off_first():
    """What the command line proposes for this data is what training accepts."""
    x = 1e9 + np.random.default_rng(0).normal(size=(60, 3))
    dataset = data.from_arrays(x)
    with pytest.raises(
        InputError, match=r"got nothing but 1e\+09, expected more than one value; take Standardize\(\), "
    ):
        prepare(Scale(), dataset)
    fits = inspection.suitable(dataset, inspection.summarize(dataset.train))
    assert {type(p) for found in fits.values() for p in found} == {Standardize}
    assert list(fits) == ["Normal()", "NormalElementScale()", "NormalSharedScale()", "NormalOptimalScale()"]


def test_dequantized_levels_never_reach_one_in_training():
    raw = np.full((4, 512, 512, 1), 255, np.uint8)  # of 2**20 draws eight are rounded up to 256
    prepared = prepare(Dequantize(), Dataset("white", Split(raw), Split(raw[:1]), Split(raw[:1]), levels=256))
    assert batch(prepared).max() == np.nextafter(np.float32(1), np.float32(0))


def test_a_constant_column_is_only_shifted():
    x = np.stack([np.arange(40), np.full(40, 7.0)], axis=1).astype(np.float32)
    prepared = prepare(Standardize(), data.from_arrays(x))
    assert prepared.format.scale[1] == 1
    assert (batch(prepared)[:, 1] == 0).all()


@pytest.mark.parametrize("preparation", [Dequantize(), DynamicBinarization(), StaticBinarization()])
def test_what_needs_levels_refuses_floats(preparation):
    with pytest.raises(InputError, match=r"got float data \(arrays\), expected integer levels; use Scale\(\)"):
        prepare(preparation, data.from_arrays(np.random.RandomState(0).rand(40, 3)))


@pytest.mark.parametrize("preparation", BITS, ids=lambda p: type(p).__name__)
def test_bits_are_bits(preparation):
    prepared = prepare(preparation, small_dataset())
    for x in (batch(prepared), prepared.validation.x, prepared.test.x):
        assert set(np.unique(x)) == {0.0, 1.0}


# Fashion-MNIST


@pytest.fixture(scope="module")
def fashion_mnist(fashion_mnist_directory):
    return Data("fashion_mnist", directory=str(fashion_mnist_directory)).load()


def entropy_in_nats(x):
    """Mean over images of the entropy of b ~ Bernoulli(x / 255)."""
    level = np.arange(256) / 255
    with np.errstate(divide="ignore", invalid="ignore"):
        per_level = -(level * np.log(level) + (1 - level) * np.log1p(-level))
    return np.nan_to_num(per_level)[x].sum() / len(x)


@pytest.mark.slow
def test_fashion_mnist_floor_and_drawn_bits_are_those_of_the_protocol(fashion_mnist):  # mistake 19
    """No model of the drawn bits can be better than the floor; the drawn test bits lie within sampling error of it."""
    raw = fashion_mnist.test.x
    bits = prepare(DynamicBinarization(), fashion_mnist).test.x
    p = raw / 255
    with np.errstate(divide="ignore"):
        log_p = np.where(bits == 1, np.log(p), np.log1p(-p))
    assert -log_p.sum() / len(raw) == pytest.approx(189.8686, abs=5e-5)
    floor = entropy_in_nats(raw)
    assert floor == pytest.approx(189.858, abs=5e-4)
    inner = p[(p > 0) & (p < 1)]
    variance = (inner * (1 - inner) * np.log(inner / (1 - inner)) ** 2).sum()  # of the sum of -log p over all images
    assert abs(-log_p.sum() / len(raw) - floor) < 4 * np.sqrt(variance) / len(raw)
    whole = np.concatenate([fashion_mnist.train.x, fashion_mnist.validation.x])
    assert entropy_in_nats(whole) == pytest.approx(188.281, abs=5e-4)
