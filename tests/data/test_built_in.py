"""Sprites: the same bytes everywhere, each of known factors."""

from __future__ import annotations

import numpy as np
import pytest

from aevae_jax import data
from aevae_jax.data import Data, built_in
from aevae_jax.data.datasets import PARTS
from aevae_jax.types import InputError


@pytest.fixture(scope="module")
def sprites():
    return Data("sprites").load()


@pytest.fixture(scope="module")
def pictures(sprites):
    return np.concatenate([getattr(sprites, part).x for part in PARTS])[..., 0]


def test_sprites_are_the_same_bytes_on_every_machine(sprites):
    assert sprites.digest() == "0397a4dde5a2be5834f810dc50fe009c7d9840d2147e8eaa0740cd934bb54dd1"
    assert [len(getattr(sprites, part)) for part in PARTS] == [8000, 1000, 3000]
    assert (sprites.event_shape, sprites.levels, sprites.classes) == ((32, 32, 1), 256, (0, 1, 2))
    assert sprites.class_names == ("square", "ellipse", "heart")


def test_no_sprite_is_another_and_none_is_cut_off(pictures):
    assert len({picture.tobytes() for picture in pictures}) == 12_000
    border = np.concatenate([pictures[:, [0, -1]], pictures[:, :, [0, -1]].swapaxes(1, 2)])
    assert border.max() < 128


def test_sprites_are_where_and_as_large_as_their_factors_say(sprites, pictures):
    shape, scale, _, column, row = built_in.factors().T
    labels = np.concatenate([getattr(sprites, part).labels for part in PARTS])
    assert np.array_equal(labels, shape)
    mass = pictures.astype(float)
    total = mass.sum(axis=(1, 2))
    places = np.arange(32)
    for factor, axis, centre in ((column, 1, mass.sum(axis=1)), (row, 2, mass.sum(axis=2))):
        found = centre @ places / total
        expected = 10 + 11 * factor / 31
        exact = shape < 2  # a heart's centre of mass is not where it is turned about
        assert np.abs(found - expected)[exact].max() < 0.1, axis
    radius = 4 + 0.75 * scale
    assert np.allclose(total[shape == 0] / 255, (1.7 * radius[shape == 0]) ** 2, rtol=0.05)
    assert np.allclose(total[shape == 1] / 255, np.pi * 0.72 * radius[shape == 1] ** 2, rtol=0.05)


def test_each_sprite_has_its_own_factors(sprites):
    """Which are recorded, and no part of the digest above; every value occurs in every split."""
    assert [factor.name for factor in sprites.factors] == list(built_in.FACTORS)
    assert [factor.name for factor in sprites.factors if not factor.ordered] == ["shape"]
    start = 0
    for part in PARTS:
        split = getattr(sprites, part)
        assert np.array_equal(split.factors, built_in.factors()[start : start + len(split)])
        assert np.array_equal(split.factors[:, 0], split.labels)
        assert [len(np.unique(column)) for column in split.factors.T] == list(built_in.FACTORS.values())
        start += len(split)
    assert sprites.record()["factors"]["names"] == list(built_in.FACTORS)


def test_squares_and_ellipses_are_turned_by_their_factor(pictures):
    shape, _, orientation, column, row = built_in.factors().T
    own = np.flatnonzero(shape == 1)
    places = np.arange(32)
    for i in own[:200]:
        mass = pictures[i] / pictures[i].sum()
        dx, dy = places - (10 + 11 * column[i] / 31), (places - (10 + 11 * row[i] / 31))[:, None]
        xx, yy, xy = (mass * dx**2).sum(), (mass * dy**2).sum(), (mass * dx * dy).sum()
        angle = 0.5 * np.arctan2(2 * xy, xx - yy)
        apart = (angle - orientation[i] * np.pi / 40 + np.pi / 2) % np.pi - np.pi / 2
        assert abs(apart) < 0.05


def test_levels_of_what_is_built_in_are_its_own():
    assert data.sprites().levels == 256
    with pytest.raises(InputError, match="Data levels: got 2, expected 256, which sprites have"):
        Data("sprites", levels=2).load()
