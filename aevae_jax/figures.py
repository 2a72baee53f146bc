"""Images of arrays: values as grey or colour, many of them side by side. `charts` puts words to them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aevae_jax import durable, renamed
from aevae_jax.lazy import np
from aevae_jax.types import InputError

MAX_SIDE = 4096
"""An image grid has at most so many pixels on a side, whatever it shows."""

TILE = 56
"""Small images are magnified while their longer side stays below this, in pixels."""

MIN_TILE = 8
"""An image takes at least so many pixels on a side; where that leaves no room for all, the last ones are not shown."""


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Return images in [0, 1] as bytes. Clipped before the cast: a value of 1.01 must not come out black."""
    return np.round(np.clip(images, 0.0, 1.0) * 255).astype(np.uint8)


def grid(images: np.ndarray, columns: int, *, scale: int = 1, gap: int = 1) -> np.ndarray:
    """Return one uint8 image `[H, W, 3]` of many `[N, h, w, C]` in rows of `columns`, each pixel `scale` wide.

    Three channels are colours; any other number of them is shown as their mean. Values are in [0, 1].
    """
    if images.ndim != 4:
        raise InputError("images", got=f"shape {images.shape}", expected="[N, H, W, C]")
    return _placed(to_uint8(_colours(images)).repeat(scale, axis=1).repeat(scale, axis=2), columns, gap)


class ImageGrid(NamedTuple):
    """Many images in one."""

    pixels: np.ndarray
    """uint8 `[H, W, 3]`."""
    shown: int
    """How many of the images it shows: the first ones."""


def image_grid(images: np.ndarray, columns: int, *, span: tuple[float, float] = (0.0, 1.0)) -> ImageGrid:
    """Lay images out in rows of `columns`, as large as `tiles` makes them, with a white pixel between them."""
    made = tiles(images, columns, span=span)
    return ImageGrid(_placed(made.pixels, made.columns, gap=1), len(made.pixels))


class Tiles(NamedTuple):
    """Images in the size in which they are shown."""

    pixels: np.ndarray
    """uint8 `[M, h, w, 3]`, of the first M images."""
    columns: int
    """How many stand side by side."""


def tiles(images: np.ndarray, columns: int, *, versions: int = 1, span: tuple[float, float] = (0.0, 1.0)) -> Tiles:
    """Bring images `[N, h, w, C]` to a size in which rows of `columns` take at most `MAX_SIDE` pixels each way.

    Small images are magnified by whole factors, large ones are shrunk to the mean of what each pixel covers. Strips,
    such as signals `[N, 1, L, 1]`, are drawn `MIN_TILE` pixels thick. Where there is no room for all, the last ones are
    left out.

    Args:
      images: as in `grid`.
      columns: how many stand side by side; fewer if there is no room for them.
      versions: how many rows of other images, of the same size, stand below each row of these, itself included.
      span: the values that are black and white.
    """
    if images.ndim != 4:
        raise InputError("images", got=f"shape {images.shape}", expected="[N, H, W, C]")
    most = (MAX_SIDE + 1) // (MIN_TILE + 1)
    columns = min(columns, most)
    shown = min(len(images), columns * (most // versions))
    lines = versions * -(-shown // columns)
    tile_room = ((MAX_SIDE + 1) // lines - 1, (MAX_SIDE + 1) // columns - 1)
    low, high = span
    made = [_tile(to_uint8((_colours(image) - low) / (high - low)), tile_room) for image in images[:shown]]
    return Tiles(np.stack(made), columns)


def columns_of(count: int) -> int:
    """Return how many images stand side by side in a grid of `count`: 8, or as many as make it square."""
    return max(8, math.isqrt(count - 1) + 1)


def span_of(images: np.ndarray, levels: int) -> tuple[float, float]:
    """Return the values to be shown black and white: 0 and 1 of integer levels; of floats, the lowest and highest."""
    if levels:
        return 0.0, 1.0
    low, high = float(images.min()), float(images.max())
    return low, max(high, np.nextafter(np.float32(low), np.float32(np.inf)).item())


def _colours(images: np.ndarray) -> np.ndarray:
    """Return images `[..., C]` as `[..., 3]`."""
    return images if images.shape[-1] == 3 else np.repeat(images.mean(axis=-1, keepdims=True), 3, axis=-1)


def _tile(image: np.ndarray, tile_room: tuple[int, int]) -> np.ndarray:
    """Return one uint8 image `[h, w, 3]` in the size that a grid with so many pixels for each gives it."""
    from PIL import Image

    sides = image.shape[:2]
    scale = min(max(1, TILE // max(sides)), tile_room[0] // sides[0], tile_room[1] // sides[1])
    if scale:
        down, across = (min(max(scale, -(-MIN_TILE // n)), most // n) for n, most in zip(sides, tile_room, strict=True))
        return image.repeat(down, axis=0).repeat(across, axis=1)
    factor = min(tile_room[0] / sides[0], tile_room[1] / sides[1])
    height, width = (max(int(n * factor), min(most, MIN_TILE)) for n, most in zip(sides, tile_room, strict=True))
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))


def _placed(tiles: np.ndarray, columns: int, gap: int) -> np.ndarray:
    """Return uint8 tiles `[N, h, w, 3]` in rows of `columns`, with white between them."""
    count, height, width, _ = tiles.shape
    rows = -(-count // columns)
    grid = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for i, tile in enumerate(tiles):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        grid[top : top + height, left : left + width] = tile
    return grid


def save_png(path: Path, image: np.ndarray) -> None:
    """Write a uint8 image `[H, W, 3]`, whole or not at all. Raises `InputError` if it cannot be written."""
    from PIL import Image

    grey = (image == image[..., :1]).all()
    with durable.replacing(path) as file:
        Image.fromarray(image[..., 0] if grey else image).save(file, "PNG")


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        return renamed.name_in(__name__, name)
