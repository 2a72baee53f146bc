"""Classifiers that are kept: those that would be trained, to the bit, and no others."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest

from aevae_jax.data import Scale, Split, from_arrays, prepare
from aevae_jax.evaluation import classifiers
from aevae_jax.runs import judges, provenance
from aevae_jax.runs.weights import params_digest
from aevae_jax.types import InputError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("AEVAE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / judges.FOLDER


@pytest.fixture
def trained(monkeypatch):
    """The seeds of each training, which is none: here it does not matter what they have learned."""
    found = []

    def made(prepared, seeds, **told):
        found.append(list(seeds))
        one, noise = classifiers.of(prepared), np.random.RandomState(len(found))
        shapes = jax.eval_shape(one.init, jax.random.key(0))
        draw = lambda a: noise.normal(size=(len(seeds), *a.shape)).astype(np.float32)  # noqa: E731
        return classifiers.Ensemble(one, jax.tree.map(draw, shapes))

    monkeypatch.setattr(classifiers, "train_ensemble", made)
    return found


@pytest.fixture(scope="module")
def prepared():
    x = np.random.RandomState(0).randint(0, 256, (40, 4, 4, 1)).astype(np.uint8)
    made = prepare(Scale(), from_arrays(x))
    return replace(made, train=Split(made.train.x, np.arange(len(made.train)) % 3))


def judge(prepared, seeds=(3, 5), notes=None, **length):
    notes = [] if notes is None else notes
    return judges.ensemble(prepared, seeds, **length, note=notes.append, begin=lambda text: None)


def test_the_same_are_trained_once_and_read_to_the_bit(folder, trained, prepared):
    first, again = judge(prepared), judge(prepared)
    assert trained == [[3, 5]]
    assert again.classifier == first.classifier
    assert params_digest(again.params) == params_digest(first.params)
    x = np.asarray(prepared.test.x)
    assert again.features(x).tobytes() == first.features(x).tobytes()
    assert folder.stat().st_mode & 0o777 == 0o700


def test_others_are_trained(folder, trained, prepared, monkeypatch):
    labels, x = np.asarray(prepared.train.labels), np.asarray(prepared.train.x)
    others = [
        replace(prepared, train=Split(x[::-1], labels)),
        replace(prepared, train=Split(x, labels[::-1])),
        replace(prepared, format=replace(prepared.format, levels=255)),
    ]
    judge(prepared)
    for other in others:
        judge(other)
    judge(prepared, (5, 3))
    longer = replace(prepared, validation=Split(prepared.validation.x[::-1]))
    for own in (prepared, longer):  # validation data decide how long the training of several cycles is
        judge(own, steps=7)
        judge(own, cycles=2)
    assert len(trained) == 8
    environment = provenance.environment()
    for name in ("versions", "code", "device", "host", "settings"):
        monkeypatch.setattr(provenance, "environment", lambda name=name: {**environment, name: "another"})
        judge(prepared)
    assert len(trained) == 13
    monkeypatch.setattr(provenance, "environment", lambda: {**environment, "project": "another"})
    judge(prepared)
    assert len(trained) == 13


def flip(path):
    contents = bytearray(path.read_bytes())
    contents[-3] ^= 1
    path.write_bytes(bytes(contents))


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def another(path):
    shutil.copy(next(each for each in path.parent.iterdir() if each != path), path)


def pickled(path):
    path.write_bytes(b"cos\nsystem\n(S'false'\ntR.")


def pipe(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("damage", [flip, cut, another, pickled, pipe])
def test_damaged_ones_are_trained_again_and_named_once(folder, trained, prepared, damage):
    judge(prepared)
    (path,) = folder.iterdir()
    judge(prepared, (4, 6))
    damage(path)
    notes = []
    judge(prepared, notes=notes)
    assert trained == [[3, 5], [4, 6], [3, 5]]
    (note,) = notes
    assert note.startswith("kept classifiers are trained again: weights ")
    judge(prepared, notes=notes)
    assert len(trained) == 3
    assert len(notes) == 1


@pytest.mark.parametrize("how", ["a file in its place", "switched off"])
def test_where_nothing_can_be_kept_it_goes_on_without(folder, trained, prepared, monkeypatch, how):
    if how == "switched off":
        monkeypatch.setenv("AEVAE_NO_CACHE", "1")
    else:
        folder.parent.write_text("")
    judge(prepared)
    judge(prepared)
    assert len(trained) == 2
    assert not folder.exists()


def test_without_labels_there_are_none(folder, prepared):
    with pytest.raises(InputError, match="labels: got none, expected integer labels"):
        judge(replace(prepared, train=Split(prepared.train.x)))
