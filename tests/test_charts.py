"""Pictures with words in them: large enough to be shown, and every image in its place."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from sheets import rows_of, shown

from aevae_jax import charts, figures


def greys(count, shape):
    """Images of random pixels, none of which is as the frame is, and the bytes that they are shown as."""
    pixels = np.random.RandomState(0).randint(0, charts.FRAME, (count, *shape))
    return pixels / 255, pixels


@pytest.mark.parametrize(
    ("shape", "count", "columns", "rows"),
    [
        ((8, 8, 1), 6, 3, [3, 3]),
        ((8, 8, 1), 7, 3, [3, 3, 1]),
        ((28, 28, 3), 1, 8, [1]),  # alone, and not as large as the page
        ((1, 30, 1), 5, 2, [2, 2, 1]),
        ((300, 2, 1), 9, 8, [8, 1]),
        ((300, 200, 3), 3, 2, [2, 1]),
        ((5, 4, 1), 200, 15, [15] * 13 + [5]),
    ],
)
def test_each_image_of_a_sheet_is_in_its_place(shape, count, columns, rows, tmp_path):
    images, pixels = greys(count, shape)
    assert charts.sheet(tmp_path / "s.png", images, columns, title="a title", captions=["a", "b\nc"] * count) == count
    found, lengths = shown(tmp_path / "s.png", shape[:2])
    np.testing.assert_array_equal(found, pixels[..., 0])
    assert lengths == rows


def test_rows_of_several_stand_one_below_the_other(tmp_path):
    images, pixels = greys(12, (8, 8, 1))
    names = {"rows": ("input", "reconstruction"), "captions": list("abcdef"), "note": "a note"}
    charts.sheet(tmp_path / "s.png", [images[:6], images[6:]], 4, title="a title", **names)
    found, lengths = shown(tmp_path / "s.png", (8, 8))
    assert lengths == [4, 4, 2, 2]
    order = [0, 1, 2, 3, 6, 7, 8, 9, 4, 5, 10, 11]
    np.testing.assert_array_equal(found, pixels[order, ..., 0])


def test_colours_are_those_of_the_images_within_the_span(tmp_path):
    images, pixels = greys(3, (8, 8, 3))
    charts.sheet(tmp_path / "s.png", 60 * images - 20, 3, title="a title", span=(-20, 40))
    side = rows_of(tmp_path / "s.png")[0][0].shape[0] // 8
    found = np.stack([image[::side, ::side] for image in rows_of(tmp_path / "s.png")[0]])
    np.testing.assert_allclose(found, pixels.astype(int), atol=1)


def test_a_sheet_shows_as_many_pairs_as_there_is_room_for(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "MAX_SIDE", 100)
    images, _ = greys(81, (8, 8, 1))
    assert charts.sheet(tmp_path / "s.png", images, 8, title="a title") == 81
    assert charts.sheet(tmp_path / "s.png", [images, images], 8, title="a title") == 40  # five rows above five
    assert [len(row) for row in rows_of(tmp_path / "s.png")] == [8] * 10


def written(path, **words):
    """How many pixels are darker than a frame where no image is."""
    charts.sheet(path, np.ones((6, 8, 8, 1)), 3, **words)
    with Image.open(path) as picture:
        return int((np.asarray(picture) < charts.FRAME).sum())


def test_all_words_are_written_whatever_they_are(tmp_path, recwarn):
    """Those of a stranger, too: what the font lacks, what Matplotlib takes for mathematics, and what is too long."""
    seen = [written(tmp_path / "s.png", title="t")]
    for words in (
        {"title": "t" * 300 + " " + "t" * 300},
        {"title": "t", "note": "a note"},
        {"title": "t", "captions": ["7"] * 6},
        {"title": "t", "captions": ["a long name of a class, which does not fit"] * 6},
        {"title": "t", "rows": ("input", "reconstruction")},
        {"title": "t", "xlabel": "share of the way", "ylabel": "dimension"},
        {"title": "$\\frac{ $_ \udc80 \u65e5\u672c \x1b[0m \u200b"},
    ):
        seen.append(written(tmp_path / "s.png", **words))
        assert seen[-1] > seen[0] > 0, words
    assert not recwarn.list


def test_words_are_black_on_white_whatever_the_style(tmp_path):
    import matplotlib.style

    plain = written(tmp_path / "s.png", title="t")
    with matplotlib.style.context("dark_background"):
        assert written(tmp_path / "s.png", title="t") == plain


def test_black_images_and_white_ones_have_an_edge(tmp_path):
    for grey in (0.0, 1.0):
        charts.sheet(tmp_path / "s.png", np.full((6, 8, 8, 1), grey), 3, title="a title")
        assert [len(row) for row in rows_of(tmp_path / "s.png")] == [3, 3]
