"""Reads pictures of images side by side as people see them: by the thin frame around each image."""

from __future__ import annotations

import numpy as np
from PIL import Image

from aevae_jax import charts


def rows_of(path):
    """The images of a sheet, uint8 `[h, w, 3]` in the size that they have there, row after row."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[1] >= 1000
    frame = np.pad((pixels == charts.FRAME).all(axis=-1), 1)
    right, below = frame[1:-1, 2:], frame[2:, 1:-1]
    corners = frame[1:-1, 1:-1] & right & below & ~frame[1:-1, :-2] & ~frame[:-2, 1:-1]
    rows = {}
    while corners.any():
        y, x = np.unravel_index(np.argmax(corners), corners.shape)
        width, height = (_run(line) for line in (frame[y + 1, x + 1 :], frame[y + 1 :, x + 1]))
        bottom, last = frame[y + height, x + 1 : x + 1 + width], frame[y + 1 : y + 1 + height, x + width]
        if min(width, height) >= 10 and bottom.all() and last.all():
            rows.setdefault(int(y), []).append(pixels[y + 1 : y + height - 1, x + 1 : x + width - 1])
            corners[y : y + height, x : x + width] = False  # within an image there may be as bright pixels
        corners[y, x] = False
    return list(rows.values())


def _run(line):
    """How many are true, from the first on."""
    return int(np.argmin(np.append(line, False)))


def shown(path, size):
    """The images of a sheet, `[N, h, w]` in their own size `(h, w)`, of the first channel, and the length of each
    row.
    """
    rows = rows_of(path)
    factors = [n // own for n, own in zip(rows[0][0].shape, size, strict=False)]
    images = [image for row in rows for image in row]
    small = np.stack([image[:: factors[0], :: factors[1], 0] for image in images])
    large = small.repeat(factors[0], axis=1).repeat(factors[1], axis=2)
    np.testing.assert_array_equal(large, np.stack(images)[..., 0])  # each pixel is a rectangle of one grey
    return small, [len(row) for row in rows]
