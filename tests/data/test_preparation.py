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
from aevae_jax.data.datasets import Column
from aevae_jax.data.preparation import is_coarse
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


@pytest.mark.parametrize("preparation", [Dequantize(), DynamicBinarization()], ids=lambda p: type(p).__name__)
def test_no_two_blocks_of_training_rows_are_drawn_alike(preparation, monkeypatch):
    """All raw rows are the same, and stay so where nothing is drawn."""
    monkeypatch.setattr(datasets, "BLOCK_BYTES", 4 * 4 * 4 * 10)  # ten rows of floats
    row = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1) * 17
    dataset = Dataset("same", Split(row.repeat(30, axis=0)), Split(row), Split(row), levels=256)
    prepared = prepare(preparation, dataset)
    blocks = list(prepared.seen("train", jax.random.key(0)))
    assert [start for start, _ in blocks] == [0, 10, 20]
    (_, first), (_, second), (_, third) = blocks
    assert first.shape == (10, 4, 4, 1)
    assert first.dtype == prepared.rows("train", jax.random.key(0)).dtype == np.float32
    assert not np.array_equal(first, second)
    assert not np.array_equal(second, third)
    for (_, again), (_, other) in zip(
        prepared.seen("train", jax.random.key(0)), prepared.seen("train", jax.random.key(1)), strict=True
    ):
        assert not np.array_equal(again, other)
    np.testing.assert_array_equal(next(prepared.seen("train", jax.random.key(0)))[1], first)
    assert prepared.rows("test", jax.random.key(0)) is prepared.test.x  # drawn already
    [(_, plain), *_] = prepare(Scale(), dataset).seen("train", jax.random.key(0))
    np.testing.assert_array_equal(plain, row.repeat(10, axis=0) / np.float32(255))


def test_noise_of_evaluation_data_is_another_one_in_every_row():
    raw = np.full((30, 4, 4, 1), 100, np.uint8)
    for part in ("validation", "test"):
        x = getattr(prepare(Dequantize(), Dataset("same", *[Split(raw)] * 3, levels=256)), part).x
        assert len(np.unique(x.reshape(30, -1), axis=0)) == 30


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


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_moments_are_those_of_all_blocks(dtype, monkeypatch):
    """Of seven rows at a time, the last block short; the later ones lie far from the first."""
    x = (np.random.RandomState(0).rand(40, 3) * 20 + np.arange(40)[:, None] * [5, 0, 2]).astype(dtype)
    x[:, 1] = 3
    monkeypatch.setattr(datasets, "BLOCK_BYTES", 7 * x[0].nbytes)
    levels = 256 if dtype == np.uint8 else 0
    found = Standardize().fit(Dataset("x", Split(x), Split(x[:2]), Split(x[:2]), levels))
    unit = x / 255 if levels else x.astype(np.float64)
    np.testing.assert_allclose(found.mean, unit.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.scale, [unit[:, 0].std(), 1, unit[:, 2].std()], rtol=1e-12)
    assert (found.event_shape, found.levels) == ((3,), levels)


def test_moments_of_a_table_leave_out_what_is_missing_and_codes(monkeypatch):
    """Nothing is there in the first block of the first column; the second is of logarithms, the third of codes."""
    x = np.random.RandomState(0).lognormal(size=(40, 3)) + 1e9 * np.array([1, 0, 0])
    x[:, 2] = np.arange(40) % 3
    x[:8, 0] = x[30:, 1] = x[5, 2] = np.nan
    columns = (Column("a"), Column("b", kind="positive", offset=-0.5), Column("c", ("x", "y", "z")))
    monkeypatch.setattr(datasets, "BLOCK_BYTES", 7 * x[0].nbytes)
    dataset = Dataset("t", Split(x), Split(x[:4]), Split(x[4:9]), 0, columns)
    prepared = prepare(Standardize(), dataset)
    logs = np.log(x[:, 1] + 0.5)
    np.testing.assert_allclose(prepared.format.mean, [np.nanmean(x[:, 0]), np.nanmean(logs), 0], rtol=1e-12)
    np.testing.assert_allclose(prepared.format.scale, [np.nanstd(x[:, 0]), np.nanstd(logs), 1], rtol=1e-6)
    expected = (np.stack([x[:, 0], logs, x[:, 2]], axis=1) - prepared.format.mean) / prepared.format.scale
    np.testing.assert_array_equal(prepared.train.x, expected.astype(np.float32))
    for seen, rows in ((batch(prepared), slice(None)), (prepared.test.x, slice(4, 9))):  # number, is it there
        assert seen.shape[1] == prepared.event_shape[0] == 2 + 2 + 3
        np.testing.assert_array_equal(seen[:, :4:2], np.nan_to_num(prepared.train.x[rows, :2]))
        np.testing.assert_array_equal(seen[:, 1:4:2], ~np.isnan(x[rows, :2]))
        np.testing.assert_array_equal(seen[:, 4:], x[rows, 2:] == [0, 1, 2])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_differs_by_rounding_is_a_constant(dtype):
    x = np.full((40, 2), 0.3, dtype)
    x[::2, 0] = np.nextafter(x[0, 0], dtype(1))
    x[::2, 1] += 100 * np.finfo(dtype).eps
    scale = Standardize().fit(Dataset("x", Split(x), Split(x), Split(x), 0)).scale
    assert scale[0] == 1
    assert scale[1] == pytest.approx(50 * np.finfo(dtype).eps, rel=0.02)


def test_numbers_that_only_float64_holds_come_back_as_float64():
    """Such as northings, which differ by centimetres; neither their mean nor their scale says so."""
    for double, expected in ((True, 5_400_000.1), (False, 5_400_000)):
        form = Format((1,), 0, (Column("a", double=double),), (5.4e6,), (300.0,))
        back = Standardize().inverse(np.array([[1 / 3000, 1]], np.float32), form)
        assert back.dtype == (np.float64 if double else np.float32)
        assert back.tolist() == [[expected]]


def test_a_spread_of_128_steps_of_float32_is_fine():
    size, step = np.array([1024.0, -1024.0, 1.0]), np.array([2.0**-13, 2.0**-13, 2.0**-23])
    assert is_coarse(size, 127 * step).all()
    assert not is_coarse(size, 128 * step).any()


def test_noise_is_that_of_philox_keyed_by_a_number_and_the_row(monkeypatch):
    """Bits of training data by 777, noise of validation data by 0 and of test data by 1, whatever the version."""
    monkeypatch.setattr(datasets, "BLOCK_BYTES", 100)
    dataset = small_dataset()

    def drawn(number, raw):
        return np.stack(
            [np.random.Generator(np.random.Philox(key=[number, i])).random((4, 4, 1)) for i in range(len(raw))]
        )

    raw = dataset.train.x
    np.testing.assert_array_equal(prepare(StaticBinarization(), dataset).train.x, drawn(777, raw) < raw / 255)
    noisy = prepare(Dequantize(), dataset)
    for number, part in enumerate(("validation", "test")):
        raw = getattr(dataset, part).x
        np.testing.assert_array_equal(getattr(noisy, part).x, ((raw + drawn(number, raw)) / 256).astype(np.float32))


def test_codes_of_a_table_are_the_same_features_in_training():
    x = np.array([[0, 1], [2, np.nan], [np.nan, 0], [1, 1]], np.float32)
    columns = (Column("a", ("x", "y", "z")), Column("b", ("n", "y")))
    prepared = prepare(Scale(), Dataset("t", Split(x), Split(x), Split(x), 0, columns))
    expected = [[1, 0, 0, 1, 1], [0, 0, 1, 0, 0], [0, 0, 0, 0, 1], [0, 1, 0, 1, 1]]
    assert batch(prepared).tolist() == prepared.test.x.tolist() == expected
    assert prepared.event_shape == (5,)
    np.testing.assert_array_equal(prepared.preparation.units(x, prepared.format), expected)
    np.testing.assert_array_equal(prepared.preparation.inverse(prepared.test.x, prepared.format), x)


@pytest.mark.parametrize("preparation", [Scale(), Threshold(0.3)])
def test_training_data_is_never_float64_on_the_device(preparation):
    x = np.random.RandomState(0).rand(40, 3)
    prepared = prepare(preparation, data.from_arrays(x))
    assert prepared.train.x.dtype == np.float32
    seen = np.sort(x > np.float32(0.3) if preparation == Threshold(0.3) else x, axis=0)
    found = np.concatenate([batch(prepared), prepared.validation.x, prepared.test.x])
    np.testing.assert_array_equal(np.sort(found, axis=0), seen.astype(np.float32))


@pytest.mark.parametrize("preparation", [Dequantize(), *BITS], ids=lambda p: type(p).__name__)
def test_pictures_alone_have_pixels(preparation):
    x = np.zeros((4, 1), np.float32)
    table = Dataset("t.csv", Split(x), Split(x), Split(x), 0, (Column("a"),))
    name = type(preparation).__name__
    with pytest.raises(InputError, match=rf"^{name}: got a table \(t.csv\), expected images or .*use Standardize\(\)"):
        prepare(preparation, table)


def test_a_table_with_numbers_is_not_scaled():
    x = np.zeros((4, 3), np.float32)
    table = Dataset("t.csv", Split(x), Split(x), Split(x), 0, (Column("a", ("x", "y")), Column("b"), Column("c")))
    with pytest.raises(
        InputError, match=r"^Scale: got a table with numbers, in column 'b' \(t.csv\), .*Standardize\(\)"
    ):
        prepare(Scale(), table)


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


def test_positive_numbers_in_small_units_are_told_apart_by_their_logarithms():
    """Concentrations of 1e-6: what a model sees of them has a spread of 1, and the digits for it."""
    x = np.exp(np.random.RandomState(0).randn(300, 1)) * 1e-6
    dataset = Dataset("t", Split(x), Split(x[:20]), Split(x[20:40]), 0, columns=(Column("c", kind="positive"),))
    assert prepare(Standardize(), dataset).notes == ()


def test_three_features_that_run_together_are_named_and_the_others_counted(monkeypatch):
    """Columns of a table by their names; the rows that are looked at reach from the first to the last."""
    x = np.random.RandomState(0).rand(200, 6)
    x[7, [0, 2, 3, 4, 5]] = 1e30
    dataset = Dataset("t", Split(x), Split(x[:2]), Split(x[2:5]), 0)
    [note] = prepare(Standardize(), dataset).notes
    assert "the values of feature 0, feature 2, feature 3 and 2 more apart; take the largest" in note
    columns = tuple(Column(name) for name in "abcdef")
    [note] = prepare(Standardize(), replace(dataset, columns=columns)).notes
    assert "the values of column 'a', column 'c', column 'd' and 2 more apart" in note
    four = replace(dataset, **{part: Split(getattr(dataset, part).x[:, 1:5]) for part in datasets.PARTS})
    [note] = prepare(Standardize(), four).notes
    assert "the values of feature 1, feature 2, feature 3 apart" in note
    monkeypatch.setattr("aevae_jax.data.prepared.SAMPLE", 1)
    ends = np.where(np.arange(200) == 199, 0.25, 0.0)[:, None] + 1e9  # two rows of one feature
    [note] = prepare(Scale(), Dataset("e", Split(ends), Split(x[:4, 1:2]), Split(x[:4, 1:2]), 0)).notes
    assert "the values of feature 0 apart; use Standardize()" in note


def test_splits_of_one_value_each_are_more_than_one_value(monkeypatch):
    """Dark and light pictures, which are none of one value before they become bits."""
    monkeypatch.setattr(datasets, "BLOCK_BYTES", 4)
    whole = random_images(6)
    dark, light = random_images(3, 1) // 4, 255 - random_images(3, 2) // 4
    for validation, test in ((dark, light), (np.concatenate([dark, light]), dark), (light, dark)):
        found = prepare(Threshold(), Dataset("x", Split(whole), Split(validation), Split(test), 256))
        np.testing.assert_array_equal(found.validation.x, validation > 127)
    black = np.zeros((3, 4, 4, 1), np.uint8)
    constant = prepare(Threshold(), Dataset("x", Split(whole), Split(black), Split(black), 256))  # as the raw data is
    assert not constant.test.x.any()


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


@pytest.mark.parametrize("levels", [2, 5, 17])
def test_levels_are_those_of_the_data(levels):
    """Whatever a byte could hold; in training and evaluation, and on the way back."""
    raw = np.random.RandomState(0).randint(0, levels, (40, 3, 2, 1)).astype(np.uint8)
    dataset = Dataset("x", Split(raw[:30]), Split(raw[30:35]), Split(raw[35:]), levels=levels)
    noisy = prepare(Dequantize(), dataset)
    standard = prepare(Standardize(), dataset)
    unit = raw / (levels - 1)
    mean, std = unit[:30].mean(), unit[:30].std()
    for rows, found, other in (
        (slice(30), batch(noisy), batch(standard)),
        (slice(35, 40), noisy.test.x, standard.test.x),
    ):
        np.testing.assert_array_equal(np.floor(found * np.float32(levels)), raw[rows])
        np.testing.assert_allclose(other, (unit[rows] - mean) / std, rtol=1e-5, atol=1e-6)
    assert standard.train.x.dtype == np.uint8  # bytes until the step
    np.testing.assert_allclose(Standardize().inverse(standard.test.x, standard.format), unit[35:], atol=1e-6)
    for at in (0.3, 0.6):
        bits = prepare(Threshold(at), dataset)
        np.testing.assert_array_equal(bits.test.x, unit[35:] > at)
        np.testing.assert_array_equal(batch(bits), unit[:30] > at)


def test_one_feature_of_many_that_float32_would_lose_is_enough_for_float64():
    form = Format((2,), 0, mean=(0.0, 5.4e6), scale=(1.0, 1e-3))
    back = Standardize().inverse(np.array([[0.5, 1.0]], np.float32), form)
    assert back.dtype == np.float64
    np.testing.assert_allclose(back, [[0.5, 5_400_000.001]], rtol=1e-12)


def test_data_of_one_value_are_proposed_what_training_accepts():
    x = np.full((30, 2), 0.5, np.float32)
    dataset = data.from_arrays(x, keep_duplicates=True)
    fits = inspection.suitable(dataset, inspection.summarize(dataset.train))
    assert Scale() in fits["Normal()"]
    prepare(Scale(), dataset)


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
