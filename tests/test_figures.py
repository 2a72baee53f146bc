"""Pictures as arrays: clipping, layout, files."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from aevae_jax import figures
from aevae_jax.types import InputError


def test_values_outside_the_range_are_clipped_before_the_cast():  # mistake 39
    values = np.array([-0.5, -0.001, 0.0, 0.5, 1.0, 1.001, 1.01, 300.0], np.float32)
    assert figures.to_uint8(values).tolist() == [0, 0, 0, 128, 255, 255, 255, 255]
    assert figures.to_uint8(values).dtype == np.uint8


def test_every_grey_level_comes_back():
    levels = np.arange(256, dtype=np.uint8)
    assert np.array_equal(figures.to_uint8(levels / np.float32(255)), levels)


def test_grid_places_images_row_by_row_with_white_between():
    images = np.stack([np.full((2, 3, 1), i / 255, np.float32) for i in range(5)])
    sheet = figures.grid(images, columns=2)
    assert sheet.shape == (3 * 2 + 2, 2 * 3 + 1, 3)
    assert sheet.dtype == np.uint8
    for i in range(5):
        top, left = 3 * (i // 2), 4 * (i % 2)
        assert (sheet[top : top + 2, left : left + 3] == i).all()
    assert (sheet[2] == 255).all()
    assert (sheet[:, 3] == 255).all()
    assert (sheet[6:, 4:] == 255).all()  # the place of the sixth image stays white


def test_grid_keeps_orientation_and_colours():
    image = np.arange(18, dtype=np.float32).reshape(1, 2, 3, 3) / 255
    assert np.array_equal(figures.grid(image, columns=1)[:, :, :], np.arange(18).reshape(2, 3, 3))


def test_grid_magnifies_each_pixel():
    image = np.array([[0.0, 1.0]], np.float32).reshape(1, 1, 2, 1)
    sheet = figures.grid(image, columns=1, scale=3)
    assert sheet.shape == (3, 6, 3)
    assert (sheet[:, :3] == 0).all()
    assert (sheet[:, 3:] == 255).all()


@pytest.mark.parametrize("channels", [2, 5])
def test_other_numbers_of_channels_show_their_mean(channels):
    image = np.zeros((1, 2, 2, channels), np.float32)
    image[..., 0] = 1.0
    assert (figures.grid(image, columns=1) == round(255 / channels)).all()


def test_wide_gap_and_a_single_column():
    sheet = figures.grid(np.zeros((3, 2, 2, 1), np.float32), columns=1, gap=4)
    assert sheet.shape == (14, 2, 3)
    assert (sheet[:, 0, 0] == [0, 0, 255, 255, 255, 255] * 2 + [0, 0]).all()


@pytest.mark.parametrize("shape", [(3, 4, 4), (4, 4), (2, 3, 4, 4, 1)])
def test_what_is_no_batch_of_images_is_refused(shape):
    with pytest.raises(InputError, match=r"images: got shape .*, expected \[N, H, W, C\]"):
        figures.grid(np.zeros(shape), columns=2)
    with pytest.raises(InputError, match=r"images: got shape .*, expected \[N, H, W, C\]"):
        figures.image_grid(np.zeros(shape), 2)


def test_png_comes_back_byte_for_byte(tmp_path):
    image = np.random.RandomState(0).randint(0, 256, (5, 7, 3)).astype(np.uint8)
    figures.save_png(tmp_path / "picture.png", image)
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.format == "PNG"
        assert np.array_equal(np.asarray(picture), image)


@pytest.mark.parametrize("side", [8, 28, 64])
def test_an_image_grid_of_small_images_magnifies_each_pixel(side):
    images = np.random.RandomState(0).rand(11, side, side, 1).astype(np.float32)
    sheet = figures.image_grid(images, 4)
    assert sheet.shown == 11
    assert np.array_equal(sheet.pixels, figures.grid(images, 4, scale=max(1, 56 // side)))


@pytest.mark.parametrize(
    ("shape", "columns"),
    [
        ((64, 1, 48, 1), 8),
        ((64, 1, 512, 1), 8),
        ((64, 512, 1, 1), 8),
        ((2, 1, 40_000, 1), 8),
        ((3, 200, 300, 3), 8),
        ((300, 1, 1, 1), 8),
        ((500, 8, 8, 1), 8),
        ((60, 8, 8, 1), 60),
        ((1, 3, 5, 1), 1),
        ((4, 400, 20, 1), 3),
        ((4, 20, 400, 1), 3),
        ((9, 512, 1, 1), 8),
        ((100, 30, 2, 3), 56),
    ],
)
def test_an_image_grid_is_bounded_both_ways(shape, columns, monkeypatch):
    monkeypatch.setattr(figures, "MAX_SIDE", 512)
    images = np.zeros(shape, np.float32)
    images[-1] = 1
    sheet = figures.image_grid(images, columns)
    assert max(sheet.pixels.shape) <= figures.MAX_SIDE
    assert sheet.shown == min(len(images), 57 * columns)  # 57 rows of 8 pixels, each with one between
    assert sheet.pixels[0, 0].tolist() == ([255] * 3 if len(images) == 1 else [0] * 3)
    white_columns = (sheet.pixels == 255).all(axis=(0, 2)).nonzero()[0]
    first = white_columns[0] if len(images) > 1 else sheet.pixels.shape[1]
    assert first >= figures.MIN_TILE


@pytest.mark.parametrize(
    ("shape", "columns", "most", "expected"),
    [
        ((1, 1, 5, 1), 1, 4096, (11, 55)),  # 56 // 5 times, both ways
        ((1, 5, 1, 1), 1, 4096, (55, 11)),
        ((1, 1, 40, 1), 1, 4096, (8, 40)),
        ((1, 40, 1, 1), 1, 4096, (40, 8)),
        ((1, 3, 60, 1), 1, 4096, (9, 60)),  # not 6, which is less than 8
        ((1, 800, 400, 3), 1, 400, (400, 200)),
        ((1, 400, 800, 3), 1, 400, (200, 400)),
        ((1, 1, 40_000, 1), 1, 512, (8, 512)),
        ((2, 400, 400, 1), 1, 401, (401, 200)),
        ((4, 400, 400, 1), 3, 401, (267, 401)),  # two rows of three places of 133
        ((4, 400, 100, 1), 3, 401, (401, 152)),  # two rows of 200, though the second holds one alone
        ((7, 300, 60, 1), 3, 401, (401, 80)),  # three rows of 133
        ((3, 100, 400, 1), 2, 401, (101, 401)),
        ((100, 5, 5, 1), 10, 100, (59, 59)),  # in places of 9 there is no room for 10
        ((3, 20, 20, 1), 3, 100, (20, 62)),  # there is no room for twice as many
    ],
)
def test_an_image_grid_takes_the_room_there_is(monkeypatch, shape, columns, most, expected):
    monkeypatch.setattr(figures, "MAX_SIDE", most)
    assert figures.image_grid(np.zeros(shape, np.float32), columns).pixels.shape == (*expected, 3)


def test_each_pixel_of_a_shrunk_image_is_the_mean_of_what_it_covers(monkeypatch):
    monkeypatch.setattr(figures, "MAX_SIDE", 20)
    image = np.random.default_rng(0).integers(0, 256, (40, 20, 3)) / 255
    sheet = figures.image_grid(image[None].astype(np.float32), 1).pixels
    expected = 255 * image.reshape(20, 2, 10, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(sheet, expected, atol=1)


def test_large_images_are_shrunk_to_their_means(monkeypatch):
    monkeypatch.setattr(figures, "MAX_SIDE", 401)
    checkers = np.indices((400, 400)).sum(axis=0) % 2
    sheet = figures.image_grid(checkers[None, :, :, None].astype(np.float32), 2)
    assert sheet.pixels.shape == (200, 401, 3)
    assert (sheet.pixels[:, :200] == 128).all()


def test_floats_are_shown_in_their_own_units():
    x = np.array([-40.0, 0.0, 120.0], np.float32).reshape(1, 1, 3, 1)
    span = figures.span_of(x, 0)
    assert span == (-40, 120)
    assert figures.span_of(x, 256) == (0, 1)
    sheet = figures.image_grid(x, 1, span=span).pixels
    assert [sheet[0, 18 * i, 0] for i in range(3)] == [0, 64, 255]
    constant = np.full((1, 2, 2, 1), 7.0, np.float32)
    assert not figures.image_grid(constant, 1, span=figures.span_of(constant, 0)).pixels.any()


def test_colours_of_an_image_grid_are_those_of_the_images_within_the_span():
    x = np.random.RandomState(0).rand(5, 28, 28, 3).astype(np.float32)
    sheet = figures.image_grid(60 * x - 20, 3, span=(-20, 40))
    np.testing.assert_allclose(sheet.pixels, figures.grid(x, 3, scale=2).astype(int), atol=1)
    two = figures.image_grid(np.stack([x[..., 0], x[..., 1]], axis=-1), 3).pixels
    assert (two[..., :1] == two).all()
    np.testing.assert_allclose(two[:56:2, :56:2, 0], 255 * x[0, ..., :2].mean(axis=-1), atol=0.51)


def test_a_span_is_that_of_all_images_and_never_empty():
    x = np.zeros((3, 2, 2, 1), np.float32)
    x[1, 0, 1], x[2, 1, 0] = -2.5, 7
    assert figures.span_of(x, 0) == (-2.5, 7)
    for value in (0.0, -3.0, 1e30):
        low, high = figures.span_of(np.full((2, 2, 2, 1), value, np.float32), 0)
        assert low == np.float32(value) < high
        assert np.float32(high) > np.float32(low)


@pytest.mark.parametrize(("count", "columns"), [(1, 8), (64, 8), (65, 9), (81, 9), (82, 10), (100, 10), (101, 11)])
def test_a_sheet_is_eight_wide_or_square(count, columns):
    assert figures.columns_of(count) == columns
