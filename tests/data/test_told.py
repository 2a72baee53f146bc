"""What models are told of each example: made of labels and factors, kept with its row, and part of what a run is of."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from aevae_jax import data, values
from aevae_jax.conditions import Conditioned
from aevae_jax.data import Data, Factor, prepare
from aevae_jax.data.datasets import PARTS
from aevae_jax.types import InputError

COUNT = 90
NUMBER = np.arange(COUNT)
X = np.stack([NUMBER, NUMBER % 3, NUMBER % 5, NUMBER % 2], axis=1).astype(np.float32)  # each row tells what is known
FACTORS = {"place": NUMBER % 5, Factor("kind", ordered=False): NUMBER % 2}


def dataset(labels=NUMBER % 3 + 4, **more):
    return data.from_arrays(X, labels=labels, **more)


def told(kind="label", given=None, **more):
    return Data(condition=kind, **more).with_told(dataset(factors=FACTORS) if given is None else given)


def test_a_label_is_the_code_of_the_class_of_its_row():
    found = told()
    for part in PARTS:
        split = getattr(found, part)
        for some in (split, split[2:5], split[np.array([4, 1])]):
            assert some.condition.dtype == np.int32
            np.testing.assert_array_equal(some.condition, some.x[:, 1])
            assert isinstance(some.rows, Conditioned)
            np.testing.assert_array_equal(some.rows.condition, some.condition)
    assert found.record()["class_names"] == ["4", "5", "6"]


def test_factors_are_a_vector_of_places_and_of_kinds():
    for part in PARTS:
        split = getattr(told("factors"), part)
        expected = np.stack([split.x[:, 2] / 4, split.x[:, 3] == 0, split.x[:, 3] == 1], axis=1)
        np.testing.assert_allclose(split.condition, expected, atol=1e-6)
        both = getattr(told("label and factors"), part).condition
        np.testing.assert_array_equal(both["label"], split.x[:, 1])
        np.testing.assert_allclose(both["vector"], expected, atol=1e-6)


def test_a_vector_of_ones_own_goes_with_its_row_beside_a_label():
    vector = np.stack([NUMBER, -NUMBER], axis=1)
    own = dataset(vector=vector)
    np.testing.assert_array_equal(own.validation.condition, own.validation.x[:, :1] * [1, -1])
    both = told(given=own)
    np.testing.assert_array_equal(both.test.condition["vector"], both.test.x[:, :1] * [1, -1])
    np.testing.assert_array_equal(both.test.condition["label"], both.test.x[:, 1])
    assert own.digest() != dataset(vector=vector + 1).digest() != dataset().digest()


def test_hidden_labels_are_a_share_of_each_class_of_the_training_data_alone():
    found = told(hidden_labels=0.75)
    for label in range(3):
        own = found.train.x[:, 1] == label
        kept = found.train.condition[own] >= 0
        assert abs(kept.sum() - 0.25 * own.sum()) <= 0.5
        assert (found.train.condition[own][kept] == label).all()
    assert (found.train.labels >= 0).all()  # who judges samples still knows them
    assert (found.test.condition >= 0).all()
    again, other = told(hidden_labels=0.75), told(hidden_labels=0.75, hidden_seed=1)
    np.testing.assert_array_equal(found.train.condition, again.train.condition)
    assert (found.train.condition != other.train.condition).any()
    assert (np.bincount(told(hidden_labels=1.0).train.condition + 1)[1:] == 1).all()  # one of each class


def test_so_many_labels_of_each_class_are_told():
    found = told(labels_per_class=4)
    condition = found.train.condition
    assert np.bincount(condition + 1)[1:].tolist() == [4, 4, 4]
    assert (condition == np.where(condition < 0, -1, found.train.x[:, 1])).all()
    assert (found.test.condition >= 0).all()
    other = told(labels_per_class=4, hidden_seed=1).train.condition
    assert (condition != other).any()
    more = told(labels_per_class=8).train.condition
    assert (more[condition >= 0] >= 0).all()  # of one seed, more labels are those and others
    np.testing.assert_array_equal(condition, told(labels_per_class=4).train.condition)


def test_what_is_told_is_asked_for_again_without_a_change():
    """As `fit` asks for it of a data set that `load` has made."""
    kind = Data(condition="label", hidden_labels=0.5)
    labels = np.where(NUMBER % 7 == 0, -1, NUMBER % 3)
    once = kind.with_told(dataset(labels))
    twice = kind.with_told(once)
    assert once.remarks == twice.remarks
    assert once.digest() == twice.digest()
    jax.tree.map(np.testing.assert_array_equal, once.train.condition, twice.train.condition)


def test_examples_without_a_label_are_trained_on_and_not_measured_by():
    found = told(given=dataset(np.where(NUMBER % 7 == 0, -1, NUMBER % 3)))
    assert (found.train.condition == -1).any()
    for part in ("validation", "test"):
        split = getattr(found, part)
        assert (split.x[:, 0] % 7 > 0).all()
        np.testing.assert_array_equal(split.condition, split.x[:, 1])
    assert any("left out, as they have no label" in note for note in found.notes)


def test_the_record_of_a_run_covers_what_it_is_told():
    """Labels are part of any digest; factors are where they are told."""
    assert told().record()["sha256"] != dataset(factors=FACTORS).record()["sha256"]
    others = dataset(factors={**FACTORS, "place": NUMBER % 5 // 2})
    assert dataset(factors=FACTORS).digest() == others.digest()
    assert told("factors").digest() != told("factors", others).digest()
    assert "class_names" not in dataset().record()


def test_records_without_a_condition_are_as_they_were():
    assert not {"condition", "hidden_labels", "hidden_seed", "labels_per_class"} & values.to_tree(Data()).keys()
    tree = values.to_tree(Data(condition="label", hidden_labels=0.5))
    assert values.from_tree(Data, tree, "here") == Data(condition="label", hidden_labels=0.5)
    assert values.parse(Data, "Data('digits', condition='label')", "--data") == Data("digits", condition="label")


def test_prepared_rows_are_those_that_a_model_is_given():
    """Training rows raw, for the step to prepare; `rows` as the model sees them, of every part."""
    prepared = prepare(Data().preparation, told("label and factors"))
    key = jax.random.key(0)
    for part in PARTS:
        rows = prepared.rows(part, key)
        some = rows[np.array([3, 1])]
        np.testing.assert_array_equal(some.condition["label"], some.x[:, 1])
        plain = np.concatenate([block for _, block in prepared.seen(part, key)])
        np.testing.assert_array_equal(plain, rows.x[:])
    batch = prepared.batch(prepared.train.rows[:4], key)
    np.testing.assert_array_equal(batch.condition["label"], prepared.train.condition["label"][:4])
    np.testing.assert_array_equal(prepare(Data().preparation, told()).told(5), [0, 1, 2, 0, 1])
    shown = prepared.told(20)
    np.testing.assert_array_equal(shown["label"][9:18], prepared.test.condition["label"][:9])


BAD = [
    (lambda: told(given=data.from_arrays(X)), "labels of arrays train: got none, expected those of each example"),
    (lambda: told("factors", dataset()), "factors of arrays: got none that are known"),
    (lambda: told(given=dataset(np.where(NUMBER % 90 > 5, -1, 0))), "labels of arrays (validation|test): got none"),
    (lambda: Data(condition="colour"), "Data condition: got 'colour', expected '' or 'label'"),
    (lambda: Data(hidden_labels=0.5), "Data hidden_labels: got condition=''"),
    (lambda: Data(labels_per_class=5), "Data labels_per_class: got condition=''"),
    (lambda: Data(condition="label", labels_per_class=-1), "Data labels_per_class: got -1, expected"),
    (lambda: Data(condition="label", labels_per_class=1, hidden_labels=0.5), "got both, expected one of them"),
    (lambda: Data(condition="label", hidden_labels=1.5), "Data hidden_labels: got 1.5, expected 0 to 1"),
    (lambda: data.from_arrays(X, vector=X[:5]), r"vector: got float32 of shape \(5, 4\), expected numbers \(90, C\)"),
    (lambda: data.from_arrays(X, vector=X * np.nan), "vector: got NaN or infinity"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[message[:30] for _, message in BAD])
def test_what_is_not_known_is_refused_in_a_line(make, message):
    with pytest.raises(InputError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
    assert len(str(error.value)) <= 200


def test_plain_splits_are_their_own_rows():
    split = dataset().train
    assert split.rows is split.x
    assert dataclasses.replace(split, labels=None).rows is split.x
