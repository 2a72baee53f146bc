"""Pictures from saved results and arrays. Never trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aevae_jax.types import InputError


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Images in [0, 1] as bytes. Clipped before the cast: a value of 1.01 must not come out black."""
    return np.round(np.clip(images, 0.0, 1.0) * 255).astype(np.uint8)


def grid(images: np.ndarray, columns: int, *, scale: int = 1, gap: int = 1) -> np.ndarray:
    """One uint8 image `[H, W, 3]` of many `[N, h, w, 1 or 3]` in rows of `columns`, each pixel `scale` wide.

    More or fewer channels than 1 or 3 are shown as their mean.
    """
    if images.ndim != 4:
        raise InputError("images", got=f"shape {images.shape}", expected="[N, H, W, C]")
    if images.shape[-1] != 3:
        images = np.repeat(images.mean(axis=-1, keepdims=True), 3, axis=-1)
    tiles = np.kron(to_uint8(images), np.ones((1, scale, scale, 1), np.uint8))
    count, height, width, _ = tiles.shape
    rows = -(-count // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for i, tile in enumerate(tiles):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = tile
    return sheet


def save_png(path: Path, image: np.ndarray) -> None:
    """Write a uint8 image `[H, W, 3]`."""
    from PIL import Image

    Image.fromarray(image).save(path)
