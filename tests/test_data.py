"""Data: splits, preparation, arrays of one's own, and what is said when something does not fit."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aevae_jax import data
from aevae_jax.data import Data, Dataset, DynamicBinarization, Scale, Split
from aevae_jax.types import InputError

PARTS = ("train", "validation", "test")


def hashes(split):
    return {hashlib.sha256(np.ascontiguousarray(row).data).hexdigest() for row in split.x}


def random_images(count, seed=0, shape=(4, 4, 1)):
    return np.random.RandomState(seed).randint(0, 256, (count, *shape)).astype(np.uint8)


@pytest.fixture(scope="module")
def digits():
    return data.digits()


@pytest.fixture(scope="module")
def fashion_mnist(fashion_mnist_directory):
    return Data("fashion_mnist", directory=str(fashion_mnist_directory)).load()


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
    seen = [(row.tobytes(), label) for part in PARTS
            for row, label in zip(getattr(digits, part).x, getattr(digits, part).labels, strict=True)]  # fmt: skip
    assert len(seen) == 1797
    assert all(label_of[row] == label for row, label in seen)


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


# preparation


def test_scale_divides_by_the_highest_level(digits):
    prepared = Scale().evaluation(digits)
    assert np.array_equal(prepared.test.x, digits.test.x.astype(np.float32) / np.float32(16))
    assert prepared.test.x.dtype == np.float32
    assert prepared.train.x is digits.train.x  # stays raw
    batch = Scale().train(jnp.asarray(digits.test.x), jax.random.key(0), 17)
    assert np.array_equal(batch, prepared.test.x)  # training sees exactly what evaluation sees
    floats = jnp.linspace(-2.0, 5.0, 7)
    assert np.array_equal(Scale().train(floats, jax.random.key(0), 0), floats)


@pytest.mark.parametrize("preparation", [Scale(), DynamicBinarization()], ids=lambda p: type(p).__name__)
def test_evaluation_data_is_drawn_once_and_never_changes(preparation):  # mistake 19
    dataset = small_dataset()
    before = dataset.digest()
    first, second = preparation.evaluation(dataset), preparation.evaluation(dataset)
    assert first.digest() == second.digest()
    assert dataset.digest() == before  # the raw data is left alone
    np.random.seed(5)  # noqa: NPY002 (a global generator that must not matter)
    assert preparation.evaluation(dataset).digest() == first.digest()


def test_evaluation_data_is_pure():  # mistake 21
    dataset = small_dataset()
    scaled = Scale().evaluation(dataset)
    assert np.array_equal(np.round(scaled.validation.x * 255), dataset.validation.x)
    order = np.random.RandomState(1).permutation(len(dataset.train))
    shuffled = Dataset("small", Split(dataset.train.x[order]), dataset.validation, dataset.test, 256)
    for preparation in (Scale(), DynamicBinarization()):  # nothing of the training data reaches it
        assert np.array_equal(preparation.evaluation(shuffled).test.x, preparation.evaluation(dataset).test.x)


def test_binarized_evaluation_follows_the_published_protocol():  # mistake 19
    dataset = small_dataset()
    prepared = DynamicBinarization().evaluation(dataset)
    np.random.seed(777)  # noqa: NPY002 (the protocol names this generator)
    validation = np.random.binomial(1, dataset.validation.x / 255)  # noqa: NPY002
    test = np.random.binomial(1, dataset.test.x / 255)  # noqa: NPY002
    assert np.array_equal(prepared.validation.x, validation)
    assert np.array_equal(prepared.test.x, test)
    assert prepared.test.x.dtype == np.float32
    assert prepared.train.x is dataset.train.x


def test_binarized_training_data_is_redrawn_with_the_key():
    """The mean of 200 draws is within 5 standard errors of level / 255, element by element."""
    raw = jnp.asarray(random_images(3))
    draw = jax.jit(jax.vmap(lambda seed: DynamicBinarization().train(raw, jax.random.key(seed), 256)))
    draws = np.asarray(draw(jnp.append(jnp.arange(200), 0)))
    assert np.array_equal(draws[0], draws[-1])  # the same key
    assert not np.array_equal(draws[0], draws[1])
    assert set(np.unique(draws)) == {0.0, 1.0}
    mean = draws[:-1].mean(axis=0)
    p = np.asarray(raw) / 255
    assert (np.abs(mean - p) <= 5 * np.sqrt(p * (1 - p) / 200) + 1e-6).all()


def test_binarization_of_floats_is_refused():
    with pytest.raises(InputError, match=r"DynamicBinarization: got float data .*use Scale\(\)"):
        DynamicBinarization().evaluation(data.from_arrays(np.random.RandomState(0).rand(40, 3)))


def test_preparation_of_names_the_levels_of_the_data(digits):
    prepare = data.preparation_of(Data(), digits)
    assert np.array_equal(prepare(digits.test.x[:2], jax.random.key(0)), digits.test.x[:2] / np.float32(16))


# arrays


def test_arrays_are_taken_as_they_are():
    train, validation, test = random_images(30), random_images(5, 1), random_images(6, 2)
    dataset = data.from_arrays(train, validation, test, labels=np.arange(30), name="mine")
    assert [len(getattr(dataset, part)) for part in PARTS] == [30, 5, 6]
    assert np.array_equal(dataset.train.x, train)
    assert np.array_equal(dataset.test.x, test)
    assert (dataset.name, dataset.levels, dataset.event_shape) == ("mine", 256, (4, 4, 1))
    assert np.array_equal(dataset.train.labels, np.arange(30))


def test_missing_splits_are_cut_from_the_end_and_disjoint():  # mistake 20
    train = random_images(50)
    dataset = data.from_arrays(train, labels=np.arange(50))
    assert [len(getattr(dataset, part)) for part in PARTS] == [40, 5, 5]
    assert np.array_equal(np.concatenate([getattr(dataset, part).x for part in PARTS]), train)
    assert np.array_equal(np.concatenate([getattr(dataset, part).labels for part in PARTS]), np.arange(50))
    assert len(set.union(*(hashes(getattr(dataset, part)) for part in PARTS))) == 50


@pytest.mark.parametrize(("array", "event_shape", "levels"), [
    (np.zeros((20, 5, 4), np.uint8), (5, 4, 1), 256),
    (np.zeros((20, 5, 4, 3), np.uint8), (5, 4, 3), 256),
    (np.zeros((20, 7), np.float64), (7,), 0),
    (np.zeros((20, 7), np.float16), (7,), 0),
    (np.zeros((20, 5, 4, 2), np.float32), (5, 4, 2), 0),
    (np.zeros((20, 7), np.uint8), (7,), 256),
])  # fmt: skip
def test_accepted_arrays(array, event_shape, levels):
    dataset = data.from_arrays(array)
    assert dataset.event_shape == event_shape
    assert dataset.levels == levels
    assert dataset.train.x.dtype == (np.uint8 if levels else np.float32)


GOOD = random_images(20)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"train": GOOD.astype(np.int64)}, r"arrays train: got type int64, expected uint8 images or float arrays; use x"),
    ({"train": GOOD > 3}, "arrays train: got type bool"),
    ({"train": GOOD.astype(str)}, "arrays train: got type <U3"),
    ({"train": GOOD.astype(object)}, "arrays train: got type object"),
    ({"train": GOOD.astype(complex)}, "arrays train: got type complex128"),
    ({"train": np.float32(1.0)}, r"arrays train: got shape \(\), expected \[N, D\] or \[N, H, W, C\]"),
    ({"train": np.zeros(5, np.float32)}, r"arrays train: got shape \(5,\)"),
    ({"train": np.zeros((5, 2, 2, 2, 2), np.uint8)}, r"arrays train: got shape \(5, 2, 2, 2, 2\)"),
    ({"train": np.zeros((5, 0), np.float32)}, r"arrays train: got shape \(5, 0\)"),
    ({"train": GOOD[:0]}, "arrays train: got 0 examples, expected at least 1"),
    ({"train": GOOD[:1]}, "arrays train: got 1 examples, expected enough to cut a split from"),
    ({"train": GOOD[:2]}, "arrays train: got 1 examples, expected enough to cut a split from"),
    ({"train": GOOD, "test": GOOD[:0]}, "arrays test: got 0 examples"),
    ({"train": GOOD, "validation": GOOD[:, :3]}, r"arrays validation: got uint8 \(3, 4, 1\), expected uint8 \(4, 4"),
    ({"train": GOOD, "test": GOOD / 255}, r"arrays test: got float32 \(4, 4, 1\), expected uint8"),
    ({"train": GOOD, "labels": np.arange(19)}, r"labels: got shape \(19,\), expected \(20,\), one per example"),
    ({"train": GOOD, "labels": np.zeros((20, 1), int)}, r"labels: got shape \(20, 1\)"),
    ({"train": GOOD, "labels": np.linspace(0, 1, 20)}, "labels: got type float64, expected integers"),
    ({"train": GOOD, "labels": np.array(["a"] * 20)}, "labels: got type <U1, expected integers"),
])  # fmt: skip
def test_refused_arrays(arguments, message):
    with pytest.raises(InputError, match=message):
        data.from_arrays(**arguments)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_values_that_are_no_float32_numbers_are_refused_with_their_place(bad):
    x = np.zeros((20, 3))
    x[13, 1] = bad
    with pytest.raises(InputError, match="mine test: got NaN or infinity in example 13, expected finite numbers"):
        data.from_arrays(np.zeros((20, 3)), test=x, name="mine")


# TensorFlow Datasets


@pytest.mark.parametrize("name", ["no_such_data_set", "../../etc/passwd", "", "digits2", "fashion_mnist:9.9.9"])
def test_unknown_data_set_is_one_line_with_a_hint_and_no_wait(tmp_path, monkeypatch, name):
    prepared = tmp_path / "fashion_mnist" / "3.0.1"
    prepared.mkdir(parents=True)
    (prepared / "dataset_info.json").write_text("{}")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    began = time.monotonic()
    with pytest.raises(InputError) as caught:
        Data(name).load()
    assert time.monotonic() - began < 5
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert repr(name) in message
    assert "expected digits, or one prepared in" in message
    assert "(fashion_mnist)" in message
    assert message.endswith("set TFDS_DATA_DIR to where it is prepared")


def test_a_data_directory_that_does_not_exist_is_empty(tmp_path):
    with pytest.raises(InputError, match=r"data set: got 'mnist', expected digits, or one prepared in .* \(none\)"):
        Data("mnist", directory=str(tmp_path / "nowhere")).load()


def test_a_damaged_prepared_data_set_is_one_line(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    prepared = tmp_path / "mnist" / "3.0.1"
    prepared.mkdir(parents=True)
    (prepared / "dataset_info.json").write_text("{")
    with pytest.raises(InputError, match="data set 'mnist'"):
        Data("mnist", directory=str(tmp_path)).load()


def test_an_unknown_data_set_does_not_load_tensorflow_datasets(tmp_path):
    code = (
        "import sys; from aevae_jax.data import Data; from aevae_jax.types import InputError\n"
        f"try: Data('nothing', directory={str(tmp_path)!r}).load()\n"
        "except InputError as error: print(error)\n"
        "print([name for name in ('tensorflow_datasets', 'tensorflow', 'jax') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[1:] == ["[]"]


def test_newest_version_is_by_number_and_not_by_spelling():
    assert max(["mnist/3.0.2", "mnist/3.0.10", "mnist/2.9.9"], key=data._version) == "mnist/3.0.10"


@pytest.mark.slow
def test_fashion_mnist_is_split_as_published(fashion_mnist):
    assert [len(getattr(fashion_mnist, part)) for part in PARTS] == [50_000, 10_000, 10_000]
    assert fashion_mnist.event_shape == (28, 28, 1)
    assert fashion_mnist.levels == 256
    assert np.bincount(fashion_mnist.test.labels).tolist() == [1000] * 10
    train, validation, test = (hashes(getattr(fashion_mnist, part)) for part in PARTS)
    assert not train & validation  # mistake 20
    assert not train & test
    assert not validation & test
    assert fashion_mnist.train.labels[:8].tolist() == [9, 0, 0, 3, 0, 2, 7, 2]  # the order of the upstream files
    assert fashion_mnist.test.labels[:8].tolist() == [9, 2, 1, 1, 6, 1, 4, 6]


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
    bits = DynamicBinarization().evaluation(fashion_mnist).test.x
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
