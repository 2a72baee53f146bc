"""Known factors: each row keeps its own, whatever is done with rows; they are recorded, and no part of the digest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from commands import typed

from aevae_jax import data
from aevae_jax.data import Factor, RandomSplits, Scale, datasets, prepare
from aevae_jax.data.datasets import PARTS
from aevae_jax.types import InputError

VALUES = np.random.RandomState(0).permutation(120).reshape(60, 2) % 11
"""The factors of sixty rows, which no two columns of pixels have in common."""


class Rows:
    """Rows that are read when they are asked for."""

    def __init__(self, x):
        self.x, self.shape, self.dtype = x, x.shape, x.dtype

    def __len__(self):
        return len(self.x)

    def __getitem__(self, rows):
        return self.x[rows]


def told(values=VALUES):
    """Rows that hold the values of their factors as their first two numbers, and a number of their own."""
    return np.concatenate([values, np.arange(len(values))[:, None]], axis=1).astype(np.float32)


def known(values=VALUES):
    return {"width": values[:, 0], Factor("kind", ordered=False): values[:, 1]}


@pytest.mark.parametrize("source", [np.asarray, Rows], ids=["in memory", "read"])
def test_each_row_keeps_its_factors_through_splits_slices_and_duplicates(source):
    values = np.concatenate([VALUES, VALUES[:9]])
    x = told(values)
    x[-9:] = x[:9]  # which are left out of what is trained on
    dataset = data.from_arrays(source(x), factors=known(values), labels=values[:, 0], splits=RandomSplits(0.2, 0.2))
    assert dataset.left_out > 0
    assert dataset.factors == (Factor("width", True), Factor("kind", False))
    for part in PARTS:
        split = getattr(dataset, part)
        assert split.factors.dtype == np.int32
        for some in (split, split[3:7], split[np.array([5, 2])]):
            assert len(some.factors) == len(some) > 0
            assert np.array_equal(some.factors, some.x[:][:, :2])
    prepared = prepare(Scale(), dataset)
    assert prepared.factors == dataset.factors
    assert np.array_equal(prepared.test.factors, prepared.test.x[:][:, :2])
    assert np.array_equal(prepared.train.factors, dataset.train.factors)


def test_values_are_numbered_in_their_order():
    dataset = data.from_arrays(told(), factors={"angle": np.array([-30, 45, 90])[VALUES[:, 0] % 3]})
    assert np.array_equal(dataset.train.factors[:, 0], dataset.train.x[:, 0] % 3)


def test_factors_are_recorded_and_no_part_of_the_digest():
    """No training sees them, so a run is of the same data whatever is known of it."""
    plain = data.from_arrays(told())
    one, other = (data.from_arrays(told(), factors=known(values)) for values in (VALUES, VALUES[::-1]))
    assert one.digest() == other.digest() == plain.digest()
    assert "factors" not in plain.record()
    assert one.record()["factors"]["names"] == ["width", "kind"]
    for part in PARTS:
        numbers = getattr(one, part).factors
        assert one.record()["factors"]["sha256"][part] == datasets.digest_of(numbers)
        assert one.record()["factors"]["sha256"][part] != other.record()["factors"]["sha256"][part]
    without = replace(one, test=replace(one.test, factors=None))
    assert list(without.record()["factors"]["sha256"]) == ["train", "validation"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "factors: got none, expected a name and values [N] of each"),
        ({"a": VALUES}, "factors a: got shape (60, 2), expected (60,), one per example"),
        ({"a": VALUES[:7, 0]}, "factors a: got shape (7,), expected (60,), one per example"),
        ({"a": VALUES[:, 0] / 2}, "factors a: got type float64, expected integers"),
    ],
    ids=["none", "two columns", "another length", "floats"],
)
def test_factors_of_another_form_are_one_line(given, message):
    with pytest.raises(InputError) as error:
        data.from_arrays(told(), factors=given)
    assert str(error.value) == message


@pytest.mark.parametrize("axes", [1, 2])
def test_factors_stand_in_a_file_beside_its_examples(tmp_path, axes):
    """As numbers of each column, without names; the same as from arrays."""
    number = np.arange(60)
    x, values = np.stack([number, number % 4, number % 3], axis=1).astype(np.float32), number[:, None] % [4, 3]
    values = values if axes == 2 else values[:, 0]
    np.savez(tmp_path / "x.npz", x=x, y=number % 2, factors=values)
    found = data.Data(str(tmp_path / "x.npz"), condition="factors").load()
    assert [factor.name for factor in found.factors] == ["factor 1", "factor 2"][:axes]
    for part in PARTS:
        split = getattr(found, part)
        np.testing.assert_array_equal(split.factors, split.x[:, 1 : 1 + axes])
        np.testing.assert_allclose(split.condition, split.factors / [3, 2][:axes], rtol=1e-6)


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        (np.zeros((5, 2), int), r"x.npz: factors factor 1: got .*5"),
        (np.zeros((60, 2, 2), int), r"x.npz: factors: got shape \(60, 2, 2\), expected integers \[N, F\]"),
        (np.zeros((60, 0), int), r"x.npz: factors: got"),
        (np.zeros((60, 2)), r"x.npz: factors factor 1: got"),
    ],
    ids=["fewer", "three axes", "none", "floats"],
)
def test_factors_of_another_form_in_a_file_are_one_line(tmp_path, factors, message):
    np.savez(tmp_path / "x.npz", x=np.random.RandomState(0).normal(size=(60, 3)), factors=factors)
    with pytest.raises(InputError, match=message) as error:
        data.Data(str(tmp_path / "x.npz")).load()
    assert "\n" not in str(error.value)
    assert len(str(error.value)) <= 200 + len(str(tmp_path))


def test_inspect_names_the_known_factors(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data.Data, "load", lambda self: data.from_arrays(told(), factors=known()))
    assert "known factors: width (11 values), kind (11 values)\n" in typed("data", "inspect", "sprites")
