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


def test_png_comes_back_byte_for_byte(tmp_path):
    image = np.random.RandomState(0).randint(0, 256, (5, 7, 3)).astype(np.uint8)
    figures.save_png(tmp_path / "picture.png", image)
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.format == "PNG"
        assert np.array_equal(np.asarray(picture), image)
