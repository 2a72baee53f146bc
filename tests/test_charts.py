"""Pictures with words in them: large enough to be shown, and every image in its place."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from aevae_jax import charts


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L"))


@pytest.mark.parametrize(("shape", "count", "columns"), [((8, 8, 1), 6, 3), ((1, 30, 3), 4, 2), ((300, 200, 1), 40, 8)])
def test_a_sheet_is_wide_enough_to_be_shown_and_no_image_is_cut_off(shape, count, columns, tmp_path):
    """Each image is of one grey; each grey is there, in as large a part of the sheet, row after row."""
    greys = np.linspace(0.1, 0.9, count)
    images = np.ones((count, *shape)) * greys[:, None, None, None]
    words = {"title": "a title", "rows": [f"row {i}" for i in range(count // columns)], "xlabel": "x", "ylabel": "y"}
    assert charts.sheet(tmp_path / "s.png", images, columns, names=["a"] * columns, **words) == count
    sheet = pixels(tmp_path / "s.png")
    assert sheet.shape[1] >= 1000
    places = [np.argwhere(sheet == round(255 * grey)).mean(axis=0) for grey in greys]
    order = sorted(range(count), key=lambda i: (round(places[i][0] / sheet.shape[0], 2), places[i][1]))
    assert order == list(range(count))
    sizes = [(sheet == round(255 * grey)).sum() for grey in greys]
    assert min(sizes) > 0.9 * max(sizes)


def test_words_change_no_pixel_of_an_image(tmp_path):
    """A pixel of the image is a whole number of those of the sheet, with the same grey."""
    image = np.random.RandomState(0).randint(0, 256, (1, 8, 8, 1))
    charts.sheet(tmp_path / "s.png", image / 255, 1, title="a title", rows=["a long name of a row"])
    sheet = pixels(tmp_path / "s.png")
    rows, columns = np.nonzero(sheet == image[0, 0, 0, 0])
    top, left = next((r, c) for r, c in zip(rows, columns, strict=True) if _is_at(sheet, image[0, :, :, 0], r, c))
    side = _side(sheet, image[0, :, :, 0], top, left)
    np.testing.assert_array_equal(sheet[top : top + 8 * side : side, left : left + 8 * side : side], image[0, :, :, 0])


def _side(sheet, image, top, left):
    return next((n for n in range(300, 0, -1) if _fits(sheet, image, top, left, n)), 0)


def _fits(sheet, image, top, left, side):
    return np.array_equal(sheet[top : top + 8 * side : side, left : left + 8 * side : side], image)


def _is_at(sheet, image, top, left):
    return _side(sheet, image, top, left) > 0
