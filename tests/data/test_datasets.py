"""Data: splits, preparation, arrays of one's own, and what is said when something does not fit."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pyarrow.parquet
import pytest
import scipy.sparse

from aevae_jax import data, values
from aevae_jax.data import Data, Dataset, LastSplits, OwnSplits, RandomSplits, Scale, Split, datasets, prepare
from aevae_jax.data.splits import Found, assemble, fingerprints
from aevae_jax.data.tables import Reading
from aevae_jax.types import InputError

PARTS = ("train", "validation", "test")


def hashes(split):
    return {hashlib.sha256(np.ascontiguousarray(row).data).hexdigest() for row in split.x}


def random_images(count, seed=0, shape=(4, 4, 1)):
    return np.random.RandomState(seed).randint(0, 256, (count, *shape)).astype(np.uint8)


@pytest.fixture(scope="module")
def digits():
    return data.digits()


def small_dataset():
    whole = random_images(60)
    return Dataset("small", Split(whole[:30]), Split(whole[30:50]), Split(whole[50:]), levels=256)


# digits


def test_digits_have_the_documented_splits(digits):
    assert [len(getattr(digits, part)) for part in PARTS] == [1257, 180, 360]
    assert digits.event_shape == (8, 8, 1)
    assert digits.levels == 17
    for part in PARTS:
        split = getattr(digits, part)
        assert split.x.dtype == np.uint8
        assert (split.x.min(), split.x.max()) == (0, 16)
        assert split.labels.shape == (len(split),)
        assert set(split.labels) == set(range(10))


def test_digits_are_those_of_scikit_learn_with_their_labels(digits):
    from sklearn.datasets import load_digits

    bunch = load_digits()
    label_of = {row.astype(np.uint8).tobytes(): label for row, label in zip(bunch.data, bunch.target, strict=True)}
    seen = [
        (row.tobytes(), label)
        for part in PARTS
        for row, label in zip(getattr(digits, part).x, getattr(digits, part).labels, strict=True)
    ]
    assert len(seen) == 1797
    assert all(label_of[row] == label for row, label in seen)


def test_digits_are_shuffled_as_they_have_always_been(digits):
    """Numbers of other runs are of these splits."""
    assert digits.train.labels[:8].tolist() == [2, 8, 2, 6, 6, 7, 1, 9]
    assert digits.validation.labels[:8].tolist() == [1, 9, 9, 7, 1, 8, 5, 0]
    assert digits.test.labels[:8].tolist() == [7, 9, 4, 7, 0, 2, 6, 1]
    assert digits.classes == tuple(range(10))
    assert digits.name == "digits"
    assert digits.version == f"scikit-learn {importlib.metadata.version('scikit-learn')}"


def test_splits_of_digits_are_disjoint(digits):  # mistake 20
    train, validation, test = (hashes(getattr(digits, part)) for part in PARTS)
    assert not train & validation
    assert not train & test
    assert not validation & test
    assert len(train | validation | test) == 1797


def test_digits_and_their_digest_are_the_same_at_every_load(digits):
    again = data.digits()
    assert again.digest() == digits.digest()
    assert np.array_equal(again.test.x, digits.test.x)


def test_digest_sees_every_byte_and_the_cut_between_splits():
    one = small_dataset()
    changed = one.train.x.copy()
    changed[7, 1, 2, 0] ^= 1
    whole = np.concatenate([one.train.x, one.validation.x])
    other_cut = Dataset("small", Split(whole[:29]), Split(whole[29:]), one.test, 256)
    assert Dataset("small", Split(changed), one.validation, one.test, 256).digest() != one.digest()
    assert other_cut.digest() != one.digest()


# arrays


def test_arrays_are_taken_as_they_are():
    train, validation, test = random_images(30), random_images(5, 1), random_images(6, 2)
    dataset = data.from_arrays(train, validation, test, labels=np.arange(30), name="mine")
    assert [len(getattr(dataset, part)) for part in PARTS] == [30, 5, 6]
    assert np.array_equal(dataset.train.x, train)
    assert np.array_equal(dataset.test.x, test)
    assert (dataset.name, dataset.levels, dataset.event_shape) == ("mine", 256, (4, 4, 1))
    assert np.array_equal(dataset.train.labels, np.arange(30))


def test_missing_splits_can_be_cut_from_the_end_and_are_disjoint():  # mistake 20
    train = random_images(50)
    dataset = data.from_arrays(train, labels=np.arange(50), splits=LastSplits())
    assert [len(getattr(dataset, part)) for part in PARTS] == [40, 5, 5]
    assert np.array_equal(np.concatenate([getattr(dataset, part).x for part in PARTS]), train)
    assert np.array_equal(np.concatenate([getattr(dataset, part).labels for part in PARTS]), np.arange(50))
    assert len(set.union(*(hashes(getattr(dataset, part)) for part in PARTS))) == 50


def distinct(shape, dtype):
    return np.broadcast_to(np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1)), shape).astype(dtype)


@pytest.mark.parametrize(
    ("array", "event_shape", "levels"),
    [
        (200 + distinct((20, 5, 4), np.uint8), (5, 4, 1), 256),
        (200 + distinct((20, 5, 4, 3), np.uint8), (5, 4, 3), 256),
        (distinct((20, 7), np.float64), (7,), 0),
        (distinct((20, 7), np.float16), (7,), 0),
        (distinct((20, 5, 4, 2), np.float32), (5, 4, 2), 0),
        (200 + distinct((20, 7), np.uint8), (7,), 256),
    ],
)
def test_accepted_arrays(array, event_shape, levels):
    dataset = data.from_arrays(array)
    assert dataset.event_shape == event_shape
    assert dataset.levels == levels
    assert dataset.train.x.dtype == (np.float32 if array.dtype == np.float16 else array.dtype)


class Unread:
    """A source that has its shape and type, and of which no row can be read."""

    def __init__(self, x):
        self.shape, self.dtype = x.shape, x.dtype

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        raise IndexError(rows)


GOOD = random_images(20)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"train": GOOD.astype(np.int64)},
            r"arrays train: got type int64, expected uint8 images or float arrays; use x",
        ),
        ({"train": GOOD > 3}, "arrays train: got type bool"),
        ({"train": GOOD.astype(str)}, "arrays train: got type <U3"),
        ({"train": GOOD.astype(object)}, "arrays train: got type object"),
        ({"train": GOOD.astype(complex)}, "arrays train: got type complex128"),
        ({"train": np.float32(1.0)}, r"arrays train: got shape \(\), expected \[N, D\] or \[N, H, W, C\]"),
        ({"train": np.zeros(5, np.float32)}, r"arrays train: got shape \(5,\)"),
        ({"train": np.zeros((5, 2, 2, 2, 2), np.uint8)}, r"arrays train: got shape \(5, 2, 2, 2, 2\)"),
        ({"train": np.zeros((5, 4, 4), np.float32)}, r"arrays train: got shape \(5, 4, 4\), expected \[N, D\] or"),
        ({"train": np.zeros((5, 0), np.float32)}, r"arrays train: got shape \(5, 0\)"),
        ({"train": GOOD[:0]}, "arrays train: got 0 examples, expected at least 1"),
        ({"train": Unread(GOOD[:0])}, "arrays train: got 0 examples, expected at least 1"),
        ({"train": GOOD[:1]}, "arrays train: got 1 examples, expected enough to cut a split from"),
        ({"train": GOOD[:2]}, "arrays train: got 2 examples, expected enough to cut a split from"),
        ({"train": GOOD, "test": GOOD[:0]}, "arrays test: got 0 examples"),
        (
            {"train": GOOD, "validation": GOOD[:, :3]},
            r"arrays validation: got uint8 \(3, 4, 1\), expected uint8 \(4, 4",
        ),
        ({"train": GOOD, "test": GOOD / 255}, r"arrays test: got float64 \(4, 4, 1\), expected uint8"),
        ({"train": GOOD, "labels": np.arange(19)}, r"labels: got shape \(19,\), expected \(20,\), one per example"),
        ({"train": GOOD, "labels": np.zeros((20, 2), int)}, r"labels: got shape \(20, 2\)"),
        ({"train": GOOD, "labels": np.linspace(0, 1, 20)}, "labels: got type float64, expected integers"),
        ({"train": GOOD, "labels": np.array(["a"] * 20)}, "labels: got type <U1, expected integers"),
    ],
)
def test_refused_arrays(arguments, message):
    with pytest.raises(InputError, match=message):
        data.from_arrays(**arguments)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_values_that_are_no_float32_numbers_are_refused_with_their_place(bad):
    x = np.zeros((20, 3))
    x[13, 1] = bad
    with pytest.raises(InputError, match="mine test: got NaN or infinity in example 13, expected finite numbers"):
        data.from_arrays(distinct((20, 3), np.float32), test=x, name="mine")


@pytest.mark.parametrize(("train", "other"), [(np.float32, np.float64), (np.float64, np.float32)])
def test_floats_of_all_splits_are_as_precise_as_those_of_training(train, other):
    x = np.random.RandomState(0).rand(20, 3)
    dataset = data.from_arrays(x.astype(train), x[:3].astype(other) + 1, x[3:5].astype(other) + 2)
    assert {getattr(dataset, part).x.dtype for part in PARTS} == {np.dtype(train)}
    np.testing.assert_array_equal(dataset.test.x, (x[3:5].astype(other) + 2).astype(train))


def test_a_table_may_lack_entries_and_holds_no_infinity():
    x = np.array([[1, np.nan], [2, 3], [4, np.inf]])
    columns = (datasets.Column("a"), datasets.Column("b"))
    with pytest.raises(InputError, match="t train: got infinity in example 2, expected finite numbers"):
        assemble("t", Found({"train": Split(x)}, 0, columns))
    found = Found({part: Split(x[:2]) for part in PARTS}, 0, columns, "1.2.3")
    assert assemble("t", found).version == "1.2.3"
    with pytest.raises(InputError, match="levels of t: got 3, for a table, expected no levels"):
        assemble("t", found, levels=3)


def test_what_a_loader_finds_has_a_part_called_train():
    with pytest.raises(
        InputError, match=r"data set 'x': got splits \['test', 'validation'\], expected one called train"
    ):
        assemble("x", Found({"validation": Split(GOOD), "test": Split(GOOD)}, 256))
    with pytest.raises(InputError, match="x test: got 0 examples, expected at least 1"):
        assemble("x", Found({"train": Split(GOOD), "test": Split(GOOD[:0])}, 256))


# splits


def indexed(count):
    """Examples that carry their own index."""
    return np.arange(count, dtype=np.float32)[:, None]


def cut(splits, count=60, **parts):
    given = {"train": indexed(count), **parts}
    found = Found({part: Split(x) for part, x in given.items()}, 0)
    dataset = assemble("x", found, splits)
    return [getattr(dataset, part).x[:, 0].astype(int).tolist() for part in PARTS]


def test_own_splits_give_up_the_last_sixth_where_there_is_a_test_split():
    train, validation, test = cut(OwnSplits(), test=indexed(3) + 100)
    assert (train, validation, test) == (list(range(50)), list(range(50, 60)), [100, 101, 102])


def test_own_splits_are_random_where_there_are_none():
    assert cut(OwnSplits()) == cut(RandomSplits())
    with_validation = {"validation": indexed(4) + 200}
    assert cut(OwnSplits(), **with_validation) == cut(RandomSplits(), **with_validation)


def test_random_splits_are_those_of_a_permutation_that_stays():
    """Of NumPy's generator seeded with 0: the last tenth for tests, the one before for validation."""
    order = np.random.default_rng(0).permutation(60)
    expected = [sorted(rows.tolist()) for rows in (order[:48], order[48:54], order[54:])]
    assert cut(RandomSplits()) == expected


@pytest.mark.parametrize("splits", [RandomSplits(0.2, 0.3), LastSplits(0.2, 0.3)])
def test_splits_share_nothing_and_lose_nothing(splits):  # mistake 20
    train, validation, test = cut(splits)
    assert [len(part) for part in (train, validation, test)] == [30, 12, 18]
    assert sorted(train + validation + test) == list(range(60))
    assert all(part == sorted(part) for part in (train, validation, test))


@pytest.mark.parametrize("splits", [RandomSplits(), LastSplits()])
def test_sizes_of_splits_are_rounded_to_the_nearest(splits):
    assert [len(part) for part in cut(splits, train=indexed(57))] == [45, 6, 6]


def test_random_splits_depend_on_their_seed_alone():
    assert cut(RandomSplits(seed=1)) == cut(RandomSplits(seed=1))
    assert cut(RandomSplits(seed=1)) != cut(RandomSplits(seed=2))


def test_splits_that_exist_are_kept():
    parts = {"validation": indexed(4) + 200, "test": indexed(5) + 300}
    assert cut(RandomSplits(), **parts)[0] == list(range(60))
    assert [len(part) for part in cut(LastSplits(), validation=parts["validation"])] == [54, 4, 6]


@pytest.mark.parametrize(
    ("mean", "scale", "columns"),
    [
        ((0.0,), (0.0,), 0),
        ((0.0,), (-1.0,), 0),
        ((0.0,), (float("nan"),), 0),
        ((0.0,), (1.0, 1.0), 0),
        ((0.0,), (), 0),
        ((0.0,), (1.0,), 2),
    ],
)
def test_moments_that_nothing_can_have_are_refused(mean, scale, columns):
    """They may come from an edited file."""
    with pytest.raises(InputError, match="moments of the data: got 1 means and the scales"):
        datasets.Format((2,), 0, tuple(datasets.Column(name) for name in "ab"[:columns]), mean, scale)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomSplits(validation=0.0), "RandomSplits validation: got 0.0, expected between 0 and 1"),
        (lambda: LastSplits(test=1.0), "LastSplits test: got 1.0"),
        (lambda: RandomSplits(0.5, 0.5), r"RandomSplits validation \+ test: got 1.0, expected less than 1"),
        (lambda: RandomSplits(seed=-1), "RandomSplits seed: got -1, expected 0 to 4294967295"),
    ],
)
def test_refused_fractions(make, message):
    with pytest.raises(InputError, match=message):
        make()


def wide(*numbers):
    """Examples of so many elements that chance makes no two alike: each carries its own index."""
    return np.repeat(np.array(numbers, np.float32)[:, None], 64, axis=1)


def test_an_example_that_stands_in_two_splits_is_left_out_of_the_earlier_one():  # mistake 20
    dataset = data.from_arrays(wide(*range(20)), wide(3, 30, 32), wide(30, 5, 31))
    assert dataset.left_out == 3  # 3 and 5 of train, 30 of validation
    assert dataset.validation.x[:, 0].tolist() == [3, 32]
    assert dataset.test.x[:, 0].tolist() == [30, 5, 31]
    assert dataset.train.x[:, 0].tolist() == [i for i in range(20) if i not in (3, 5)]
    assert not hashes(dataset.train) & hashes(dataset.test)
    assert dataset.record()["left_out"] == 3
    [note] = prepare(Scale(), dataset).notes
    assert note.startswith("arrays: 3 examples of train or validation are left out")


def test_duplicates_stay_where_they_are_wanted():
    dataset = data.from_arrays(wide(*range(20)), wide(3, 30, 32), wide(30, 5, 31), keep_duplicates=True)
    assert [len(getattr(dataset, part)) for part in PARTS] == [20, 3, 3]
    assert dataset.left_out == 0
    assert not dataset.notes


def test_frequent_examples_keep_their_frequency():
    frames = random_images(300)
    frames[::5] = 0  # black
    frames[1] = frames[2] = frames[3]  # copies
    dataset = data.from_arrays(frames, splits=LastSplits())
    black = [(getattr(dataset, part).x == 0).all(axis=(1, 2, 3)).mean() for part in PARTS]
    np.testing.assert_allclose(black, 0.2, atol=0.01)
    assert dataset.repeated == 48 + 6
    assert "54 examples of train or validation also stand in a later split, and stay" in dataset.notes[0]


@pytest.mark.parametrize(("times", "left_out"), [(10, 9), (11, 0)])
def test_an_example_is_frequent_from_its_eleventh_time_on(times, left_out):
    train = wide(*range(20), *[99] * (times - 1))
    dataset = data.from_arrays(train, wide(50, 51), wide(99, 52))
    assert (dataset.left_out, dataset.repeated) == (left_out, 10 if times == 11 else 0)


@pytest.mark.parametrize(("elements", "left_out"), [(20, 0), (21, 1)])
def test_bits_are_few_values_up_to_as_many_as_pairs_of_examples(elements, left_out):
    """2,000 examples make 2 million pairs: of 2^20 values some are equal by chance, of 2^21 a copy is a copy."""
    codes = np.random.RandomState(0).permutation(2**20)[:2000]
    bits = (codes[:, None] >> np.arange(elements) & 1).astype(np.uint8)
    bits[7] = bits[-1]
    dataset = data.from_arrays(bits, splits=LastSplits())
    assert (dataset.left_out, dataset.repeated) == (left_out, 1 - left_out)


def test_values_are_counted_over_all_blocks_and_splits(monkeypatch):
    """Twenty of them in twenty examples of two elements are not few; those of each block and each split are."""
    monkeypatch.setattr(datasets, "BLOCK_BYTES", 16)
    x = np.repeat(np.arange(20, dtype=np.float32), 2).reshape(20, 2)
    for test, left_out in ((x[16:], 0), (x[14:], 2)):
        other = np.concatenate([x[:12], x[14:16]])
        assert data.from_arrays(other, x[12:14], test).left_out == left_out


@pytest.mark.parametrize("elements", [6, 10])
def test_examples_of_few_values_keep_their_frequencies(elements):
    bits = np.random.RandomState(0).randint(0, 2, (2000, elements)).astype(np.uint8)
    dataset = data.from_arrays(bits)
    assert [len(getattr(dataset, part)) for part in PARTS] == [1600, 200, 200]
    assert dataset.levels == 2


def test_labels_stay_with_their_examples_when_some_are_left_out():
    dataset = data.from_arrays(wide(*range(20)), test=wide(4), labels=np.arange(20) + 100)
    given = np.array(dataset.classes)[dataset.train.labels]
    assert (given == dataset.train.x[:, 0] + 100).all()
    assert len(dataset.train) == 16  # less three for validation, and one that stands in test


def test_nothing_left_to_train_on_is_refused():
    with pytest.raises(InputError, match=r"arrays validation: got only examples that also stand in test.*keep_dup"):
        data.from_arrays(wide(*[0] * 8))


@pytest.mark.parametrize(
    ("highest", "given", "levels"),
    [(0, 0, 2), (1, 0, 2), (255, 0, 256), (128, 0, 256), (2, 3, 3), (16, 17, 17), (2, 256, 256), (1, 256, 256)],
)
def test_the_number_of_levels_is_found_where_it_is_plain(highest, given, levels):  # mistake 42
    masks = random_images(40).clip(max=highest)
    masks[-1] = highest
    assert data.from_arrays(masks, levels=given).levels == levels
    assert data.from_arrays(Rows(masks), levels=given).levels == levels


@pytest.mark.parametrize(
    ("highest", "given", "message"),
    [
        (
            2,
            0,
            r"levels of arrays: got bytes of 0 to 2, expected to be told .*give levels=3 \(Data\('arrays', levels=3\)",
        ),
        (100, 0, "or levels=256 if these are dark 8-bit pictures"),
        (127, 0, r"got bytes of 0 to 127, .*give levels=128 \(.*from_arrays\(x, levels=128\)\), or levels=256"),
        (2, 2, "arrays train: got the level 2, expected 0 to 1, as levels=2 says; give levels=3"),
        (2, 257, "levels: got 257, expected 2 to 256, or 0"),
        (2, 1, "levels: got 1"),
        (2, -1, "levels: got -1"),
    ],
)
def test_other_numbers_of_levels_are_asked_for(highest, given, message):
    masks = random_images(40).clip(max=highest)
    masks[0] = highest
    with pytest.raises(InputError, match=message):
        data.from_arrays(masks, levels=given, splits=LastSplits())


def test_floats_have_no_levels_and_digits_have_theirs():
    with pytest.raises(InputError, match="levels of arrays: got 2, for floats"):
        data.from_arrays(np.random.RandomState(0).rand(30, 4), levels=2)
    with pytest.raises(InputError, match="Data levels: got 16, expected 17"):
        Data(levels=16).load()
    assert Data(levels=17).load().digest() == data.digits().digest()
    with pytest.raises(InputError, match="levels: got 257, expected 2 to 256, or 0 to find out"):
        Data(levels=257)


def test_levels_are_looked_for_in_all_blocks_and_splits(monkeypatch):
    monkeypatch.setattr(datasets, "BLOCK_BYTES", 16)
    masks = random_images(40).clip(max=1)
    for part, row in (("train", 17), ("validation", 3), ("test", 9)):
        parts = {name: masks.copy() for name in PARTS}
        parts[part][row] = 200
        assert data.from_arrays(**parts, keep_duplicates=True).levels == 256
        with pytest.raises(InputError, match=f"arrays {part}: got the level 200, expected 0 to 3, as levels=4 says"):
            data.from_arrays(**parts, levels=4)


LABELS = np.arange(60) % 3


@pytest.mark.parametrize(
    "given",
    [LABELS * 10 - 5, 20_231_100 + LABELS, LABELS + 2**31, LABELS.astype(np.uint64) << 60, np.uint8(100 * LABELS)],
)
def test_labels_are_recoded_by_their_value(given):
    dataset = data.from_arrays(random_images(60), labels=given, splits=LastSplits())
    assert dataset.classes == tuple(np.unique(given).tolist())
    assert dataset.train.labels.dtype == np.int32
    assert np.array_equal(dataset.train.labels, LABELS[:48])
    assert dataset.class_counts("test") == {-1: 0} | dict.fromkeys(dataset.classes, 2)


def test_the_label_of_minus_one_means_none_and_is_said():
    given = np.where(LABELS == 0, -1, LABELS + 7)
    dataset = data.from_arrays(random_images(60), labels=given, splits=LastSplits())
    assert dataset.classes == (8, 9)
    assert dataset.train.labels[:6].tolist() == [-1, 0, 1, -1, 0, 1]
    assert dataset.class_counts("train") == {-1: 16, 8: 16, 9: 16}
    assert dataset.notes == ("arrays: 20 examples have the label -1, which is taken for none",)


def test_labels_are_recoded_over_all_splits():
    """One that occurs in the test data alone has a code as well."""
    given = {"train": [7, 40, 7, -1], "validation": [40, 7], "test": [20, 40, -1]}
    x = {part: Split(wide(*range(10 * i, 10 * i + len(y))), np.array(y)) for i, (part, y) in enumerate(given.items())}
    dataset = assemble("x", Found(x, 0))
    assert dataset.classes == (7, 20, 40)
    assert dataset.train.labels.tolist() == [0, 2, 0, -1]
    assert dataset.test.labels.tolist() == [1, 2, -1]
    assert dataset.class_counts("train") == {-1: 1, 7: 2, 20: 0, 40: 1}
    total = hashlib.sha256()
    for part, labels in given.items():  # they are hashed as they were given
        rows, y = x[part].x, np.array(labels, np.int64)
        text = f"{rows.shape}float32".encode() + rows.tobytes() + b"labels" + f"{y.shape}int64".encode() + y.tobytes()
        assert dataset.record()["splits"][part]["sha256"] == hashlib.sha256(text).hexdigest()
        total.update(text)
    assert dataset.digest() == total.hexdigest()
    x["validation"] = Split(x["validation"].x)
    assert assemble("x", Found(x, 0)).class_counts("validation") == {-1: 0, 7: 0, 20: 0, 40: 0}
    codes = Split(GOOD[:4], np.array([0, 3, -1, 3]))
    assert Dataset("x", codes, codes, codes, 256).class_counts("train") == {-1: 1, 0: 1, 1: 0, 2: 0, 3: 2}


def test_classes_are_called_by_their_names_and_else_by_their_labels():
    x = {part: Split(wide(*range(4 * i, 4 * i + 4)), np.array([7, 0, -1, 3])) for i, part in enumerate(PARTS)}
    dataset = assemble("x", Found(x, 0, class_names=("cat", "dog", "cow", "hen")))
    assert dataset.class_names == ("cat", "hen", "7")
    prepared = prepare(Scale(), dataset)
    assert prepared.classes("test") == ["7", "cat", "", "hen"]
    assert prepared.classes("train", [3, 1]) == ["hen", "cat"]
    assert prepared.classes("test", slice(2)) == ["7", "cat"]
    assert datasets.class_texts(np.array([1, -1, 0]), ()) == [
        "1",
        "",
        "0",
    ]  # of a data set that says nothing of classes
    assert datasets.class_texts(None, ("cat",)) == []


def test_labels_beyond_64_bits_are_one_line():
    with pytest.raises(InputError, match="labels: got numbers up to 18446744073709551615, expected labels that int64"):
        data.from_arrays(random_images(20), labels=np.full(20, 2**64 - 1, np.uint64))
    with pytest.raises(InputError, match="labels: got numbers up to 9223372036854775808"):
        data.from_arrays(random_images(20), labels=np.full(20, 2**63, np.uint64))
    assert data.from_arrays(random_images(20), labels=np.full(20, 2**63 - 1, np.uint64)).classes == (2**63 - 1,)


def test_labels_are_part_of_the_digest_and_the_earlier_digest_knows_none():
    x = random_images(60)
    plain, one, other = (data.from_arrays(x, labels=labels) for labels in (None, LABELS, LABELS + 1))
    assert len({dataset.digest() for dataset in (plain, one, other)}) == 3
    assert one.record()["splits"]["train"]["sha256"] != other.record()["splits"]["train"]["sha256"]
    assert {dataset.earlier_digest() for dataset in (plain, one, other)} == {plain.digest()}
    floats = np.random.RandomState(0).rand(60, 5)
    assert data.from_arrays(floats).earlier_digest() == data.from_arrays(floats.astype(np.float32)).digest()


def test_arrays_are_cut_into_the_same_splits_as_their_file(tmp_path):
    x = random_images(60)
    np.save(tmp_path / "x.npy", x)
    assert data.from_arrays(x).digest() == Data(str(tmp_path / "x.npy")).load().digest()


def test_equal_rows_of_a_table_are_observations_of_their_own():
    x = np.zeros((20, 1), np.float32)
    dataset = assemble("t", Found({"train": Split(x)}, 0, (datasets.Column("a", ("n", "y")),)))
    assert [len(getattr(dataset, part)) for part in PARTS] == [16, 2, 2]
    assert dataset.left_out == 0


def test_record_names_count_and_hash_of_every_split():
    dataset = small_dataset()
    record = dataset.record()
    assert record["sha256"] == dataset.digest()
    assert [record["splits"][part]["count"] for part in PARTS] == [30, 20, 10]
    for part in PARTS:
        x = getattr(dataset, part).x
        expected = hashlib.sha256(f"{x.shape}{x.dtype}".encode() + x.tobytes()).hexdigest()
        assert record["splits"][part]["sha256"] == expected == datasets.digest_of(x)
    whole = replace(dataset, left_out=3, repeated=4, version="1.2.3").record()
    assert {key: whole[key] for key in whole.keys() - {"sha256", "splits"}} == {
        "name": "small",
        "version": "1.2.3",
        "levels": 256,
        "left_out": 3,
        "repeated": 4,
    }


def test_what_is_hashed_does_not_depend_on_the_size_of_blocks(monkeypatch):
    x = random_images(60)
    labelled = Dataset("x", *[Split(x, np.arange(60))] * 3, levels=256)
    digests = labelled.digest(), labelled.earlier_digest(), datasets.digest_of(x)
    monkeypatch.setattr(datasets, "BLOCK_BYTES", 100)
    again = replace(labelled, name="y")
    assert (again.digest(), again.earlier_digest(), datasets.digest_of(x)) == digests
    np.testing.assert_array_equal(fingerprints(x)[6:13], fingerprints(x[6:13]))
    source = Rows(x)
    for size, rows in ((32, 2), (31, 1), (1, 1)):
        monkeypatch.setattr(datasets, "BLOCK_BYTES", size)
        assert datasets.digest_of(source) == digests[2]
        assert set(source.read[-len(x) // rows :]) == {rows}


def test_digest_is_that_of_all_splits_in_order():
    dataset, total = small_dataset(), hashlib.sha256()
    for part in PARTS:
        x = getattr(dataset, part).x
        total.update(f"{x.shape}{x.dtype}".encode() + x.tobytes())
    assert dataset.digest() == total.hexdigest()


# sources


class Rows:
    """An array that is only read on demand, and says how."""

    def __init__(self, x):
        self.x, self.shape, self.dtype, self.read = x, x.shape, x.dtype, []

    def __len__(self):
        return len(self.x)

    def __getitem__(self, rows):
        found = self.x[rows]
        self.read.append(len(found))
        return found


def test_a_source_of_ones_own_is_a_data_set_like_the_array(monkeypatch):
    monkeypatch.setattr(datasets, "BLOCK_BYTES", 100)
    x, test = random_images(60), random_images(9, 1)
    test[2] = x[7]  # to be left out of the training data
    resident = data.from_arrays(x, test=test, splits=RandomSplits())
    source = Rows(x)
    lazy = data.from_arrays(source, test=Rows(test), splits=RandomSplits())
    assert lazy.digest() == resident.digest()
    assert lazy.left_out == resident.left_out == 1
    assert max(source.read) <= 100 // 16
    rows = np.array([5, 0, 5, 33])
    for part in PARTS:
        assert not datasets.in_memory(getattr(lazy, part).x)
        assert np.array_equal(getattr(lazy, part).x[rows % 5], getattr(resident, part).x[rows % 5])
        assert np.array_equal(getattr(lazy, part).x[1:4], getattr(resident, part).x[1:4])


def test_a_source_is_converted_as_an_array_is():
    x = np.random.RandomState(0).rand(30, 4)  # float64
    lazy, resident = data.from_arrays(Rows(x)), data.from_arrays(x)
    assert lazy.train.x.dtype == resident.train.x.dtype == np.float64
    assert np.array_equal(lazy.train.x[:], resident.train.x)
    grey = Rows(random_images(30)[..., 0])
    assert data.from_arrays(grey).event_shape == (4, 4, 1)


def test_infinity_in_a_source_is_found_with_its_place(monkeypatch):
    monkeypatch.setattr(datasets, "BLOCK_BYTES", 32)
    x = np.random.RandomState(0).rand(30, 4).astype(np.float32)
    x[17, 2] = np.inf
    with pytest.raises(InputError, match="arrays train: got NaN or infinity in example 17"):
        data.from_arrays(Rows(x))


def test_fingerprints_are_equal_for_equal_rows_only():
    x = random_images(50)
    x[30] = x[4]
    prints = fingerprints(x)
    assert prints[30] == prints[4]
    assert len(set(prints.tolist())) == 49
    np.testing.assert_array_equal(fingerprints(np.asfortranarray(x.reshape(50, 16))), prints)


@pytest.mark.parametrize("rows", [slice(None), slice(-3, None), slice(1, 9, 4), slice(8, 2, -2), np.array([7, 0, 7])])
def test_rows_through_a_function_are_told_their_places(rows):
    x = np.arange(10.0)[:, None] ** 2
    source = datasets.Mapped(Rows(x), lambda values, places: values + 1000 * places[:, None], (1,), np.float64)
    assert (len(source), source.shape) == (10, (10, 1))
    np.testing.assert_array_equal(source[rows], (x + 1000 * np.arange(10)[:, None])[rows])


# names and paths


@pytest.mark.parametrize(
    "name",
    [
        "./x.npy",
        "/no/such/place",
        "../../etc/nothing",
        "~/nothing-of-that-name",
        "x.csv",
        "~nosuchuser/x.npy",
        "./x\0.npy",
        "C:\\photos",
        "c:/photos",
        "X.CSV",
    ],
)
def test_a_path_that_does_not_exist_is_one_line(name):
    with pytest.raises(InputError, match=r"data.*: got .*, expected a .*file") as caught:
        Data(name).load()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "a" * 300,
        "./" + "a" * 300,
        "a" * 300 + ".npy",
        "a" * 5000 + "/x.csv",
        "loop.npy",
        "loop",
        "./no\udcffsuch",
        "pipe.npy",
        "pipe",
    ],
)
def test_names_that_the_system_refuses_are_one_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    for loop in ("loop", "loop.npy"):
        Path(loop).symlink_to(loop)
    os.mkfifo("pipe.npy")
    os.mkfifo("pipe")
    with pytest.raises(InputError) as caught:
        Data(name).load()
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["table (1).csv", "2024.csv", "it's.csv", "x[1].csv", "photos (1)", "a=b.npy", "1"])
def test_a_path_that_exists_is_a_path(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(name).touch()
    assert values.parse(Data, name, "--data") == Data(name)


def test_a_file_of_an_unknown_kind_is_refused(tmp_path):
    path = tmp_path / "x.mat"
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"data: got x.mat, expected a folder, or a file ending in .npy, .npz, .csv"):
        Data(str(path)).load()


def test_a_folder_of_the_name_is_taken_if_there_is_no_prepared_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    folder = tmp_path / "mine"
    folder.mkdir()
    np.save(folder / "train.npy", random_images(40))
    assert Data("mine").load().event_shape == (4, 4, 1)
    prepared = tmp_path / "tfds" / "mine" / "1.0.0"
    prepared.mkdir(parents=True)
    (prepared / "dataset_info.json").write_text("{")
    with pytest.raises(InputError, match="data set 'mine'"):
        Data("mine").load()
    assert len(Data("./mine").load().train) == 32


def test_a_size_is_a_height_and_a_width():
    with pytest.raises(InputError, match=r"Data size: got \(8,\), expected \(height, width\)"):
        Data("./x", size=(8,))
    with pytest.raises(InputError, match=r"Data size: got 0"):
        Data("./x", size=(8, 0))


@pytest.mark.parametrize("name", ["X.NPY", "x.Npz", "X.CSV", "x.Parquet"])
def test_capitals_in_the_names_of_files_do_not_matter(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    x = np.random.RandomState(0).rand(40, 2)
    table = pyarrow.table({"a": x[:, 0], "b": x[:, 1]})
    with Path(name).open("wb") as file:
        {
            ".npy": lambda: np.save(file, x),
            ".npz": lambda: np.savez(file, x=x),
            ".csv": lambda: np.savetxt(file, x, delimiter=",", header="a,b", comments="", fmt="%.17g"),
            ".parquet": lambda: pyarrow.parquet.write_table(table, file),
        }[Path(name).suffix.lower()]()
    np.testing.assert_allclose(Data(name, splits=LastSplits()).load().test.x, x[-4:], rtol=1e-6)


def test_all_that_is_said_of_a_data_set_is_handed_on(tmp_path):
    """Where its splits, levels and duplicates come from, and how a table is read, each field under its own name."""
    masks = np.repeat(np.eye(8, dtype=np.uint8)[:, None], 8, axis=1).repeat(3, axis=0)
    np.save(tmp_path / "x.npy", masks)
    found = Data(str(tmp_path / "x.npy"), splits=LastSplits(0.2, 0.3), levels=3, keep_duplicates=True).load()
    assert [len(getattr(found, part)) for part in PARTS] == [12, 5, 7]
    assert found.levels == 3
    np.testing.assert_array_equal(found.test.x[..., 0], masks[17:])
    assert Data(str(tmp_path / "x.npy"), splits=LastSplits(0.2, 0.3)).load().left_out == 2  # of three alike
    given = {
        "categorical": ("a",),
        "numbers": ("b",),
        "positive": ("c",),
        "counts": ("d",),
        "missing": ("?",),
        "decimal": ",",
        "thousands": ".",
        "separator": ";",
        "label": "e",
    }
    named = Data(str(tmp_path / "x.csv"), **given)
    assert named.reading == Reading(**given)
    assert named.reading.named == {"a": "categorical", "b": "numbers", "c": "positive", "d": "counts", "e": "label"}
    rows = "".join(f"{i % 3};{i % 2};{1 + i % 5},5;1.00{i % 4};{'?' if i == 3 else i % 2}\n" for i in range(40))
    (tmp_path / "x.csv").write_text(f"a;b;c;d;e\n{rows}")
    table = replace(named, splits=LastSplits()).load()
    assert table.columns == (
        datasets.Column("a", ("0", "1", "2"), "text"),
        datasets.Column("b"),
        datasets.Column("c", kind="positive"),
        datasets.Column("d", kind="count"),
    )
    assert table.train.x[7].tolist() == [1, 1, 3.5, 1003]
    assert table.train.labels[:5].tolist() == [0, 1, 0, -1, 0]


def test_a_prepared_data_set_is_looked_for_where_it_is_said_to_lie(tmp_path, monkeypatch):
    """There it comes before a folder of its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "empty"))
    (tmp_path / "mine").mkdir()
    np.save(tmp_path / "mine" / "train.npy", random_images(40))
    (tmp_path / "tfds" / "mine" / "1.0.0").mkdir(parents=True)
    (tmp_path / "tfds" / "mine" / "1.0.0" / "dataset_info.json").write_text("{}")
    assert len(Data("mine").load().train) == 32
    with pytest.raises(InputError, match=r"data set 'mine' \(.*tfds.*\): got tfrecord files, expected array_record"):
        Data("mine", directory=str(tmp_path / "tfds")).load()


# what is no array


class Increasing(Rows):
    """As h5py's data sets: rows can only be asked for in increasing order."""

    def __getitem__(self, rows):
        if not isinstance(rows, slice) and (np.diff(rows) <= 0).any():
            raise TypeError("Indexing elements must be in increasing order")
        return super().__getitem__(rows)


IMAGES = random_images(20)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (scipy.sparse.csr_array(np.eye(20)), r"got a csr_array, whose rows are no NumPy arrays, .*; use x.toarray\(\)"),
        (scipy.sparse.csr_matrix(np.eye(20)), r"use x.toarray\(\)"),
        (scipy.sparse.coo_matrix(np.eye(20)), r"use x.toarray\(\)"),
        (Increasing(IMAGES), r"got a Increasing, of which rows cannot be read in any order .*; use x\[:\]"),
        (np.ma.masked_equal(IMAGES, IMAGES.max()), r"got masked entries, expected every entry; use x.filled\(VALUE\)"),
        (np.ma.masked_invalid([[np.nan, 1.0]] * 9), r"got masked entries"),
    ],
)
def test_what_is_no_array_is_one_line(source, message):
    with pytest.raises(InputError, match=f"arrays train: .*{message}"):
        data.from_arrays(source)


def test_arrays_of_others_are_arrays():
    plain = data.from_arrays(IMAGES).digest()
    assert data.from_arrays(np.ma.array(IMAGES)).digest() == plain
    assert data.from_arrays(np.ma.array(IMAGES, mask=np.zeros(IMAGES.shape, bool))).digest() == plain
    assert data.from_arrays(jax.numpy.asarray(IMAGES)).digest() == plain
    assert data.from_arrays(np.asfortranarray(IMAGES)).digest() == plain
    rows = np.random.RandomState(0).rand(20, 3)
    assert data.from_arrays(rows.tolist()).digest() == data.from_arrays(rows).digest()
    assert data.from_arrays(np.asfortranarray(rows)).digest() == data.from_arrays(rows).digest()


@pytest.mark.parametrize(
    ("shape", "told"),
    [((3, 16, 12), True), ((1, 28, 28), True), ((28, 28, 1), False), ((1, 30, 1), False), ((3, 3, 3), False)],
)
def test_images_whose_channels_seem_to_come_first_are_noted(shape, told):
    notes = data.from_arrays(random_images(20, shape=shape)).notes
    assert any("if channels come first" in note for note in notes) is told
    if told:
        assert f"images of {shape[0]}x{shape[1]} pixels and {shape[2]} channels" in notes[0]
