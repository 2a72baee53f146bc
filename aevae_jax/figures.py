"""Pictures from saved results and arrays. Never trains."""

from __future__ import annotations

from collections.abc import Mapping
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
    """Lay images `[N, h, w, C]` of any size out in rows of `columns`, on at most `MAX_SIDE` pixels each way.

    Small images are magnified by whole factors, large ones are shrunk to the mean of what each pixel covers. Strips,
    such as signals `[N, 1, L, 1]`, are drawn `MIN_TILE` pixels thick.

    Args:
      images: as in `grid`.
      columns: how many stand side by side; fewer if there is no room for them.
      span: the values that are black and white.
    """
    if images.ndim != 4:
        raise InputError("images", got=f"shape {images.shape}", expected="[N, H, W, C]")
    most = (MAX_SIDE + 1) // (MIN_TILE + 1) // 2 * 2  # even, so that rows that belong together stay together
    columns = min(columns, most)
    shown = min(len(images), columns * most)
    tile_room = ((MAX_SIDE + 1) // -(-shown // columns) - 1, (MAX_SIDE + 1) // columns - 1)
    low, high = span
    tiles = [_tile(to_uint8((_colours(image) - low) / (high - low)), tile_room) for image in images[:shown]]
    return ImageGrid(_placed(np.stack(tiles), columns, gap=1), shown)


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

    with durable.replacing(path) as file:
        Image.fromarray(image).save(file, "PNG")


class Panel(NamedTuple):
    """What is shown of one model: images `[N, H, W, C]` and codes `[M, latent]`."""

    reconstructions: np.ndarray
    samples: np.ndarray
    interpolation: np.ndarray
    codes: np.ndarray


def comparison(
    path: Path,
    *,
    title: str,
    inputs: np.ndarray,
    labels: np.ndarray,
    panels: Mapping[str, Panel],
    mixture: np.ndarray,
    captions: Mapping[str, str],
) -> None:
    """Draw an autoencoder and a VAE next to each other: reconstructions, random codes, interpolation, the latent space
    by class.

    Args:
      path: the PNG to write.
      title: the data set's name.
      inputs: what the reconstructions are of.
      labels: the class of each code.
      panels: one per model, a column each.
      mixture: samples of the autoencoder with a mixture in place of its prior.
      captions: a line for the samples of each column of samples.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 13), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(
        f"The same networks as an autoencoder (AE) and as a variational autoencoder (VAE): {title}", size=15
    )
    grids = figure.subplot_mosaic(
        [
            ["AE pairs", "AE pairs", "AE pairs", "VAE pairs", "VAE pairs", "VAE pairs"],
            ["AE", "AE", "VAE", "VAE", "AE + mixture", "AE + mixture"],
            [
                "AE interpolation",
                "AE interpolation",
                "AE interpolation",
                "VAE interpolation",
                "VAE interpolation",
                "VAE interpolation",
            ],
            ["AE codes", "AE codes", "AE codes", "VAE codes", "VAE codes", "VAE codes"],
        ],
        height_ratios=[2.2, 6, 1.2, 6],
    )
    samples = {**{name: panel.samples for name, panel in panels.items()}, "AE + mixture": mixture}
    sources = {"AE + mixture": "codes from a mixture fitted to the AE's"}
    for name, images in samples.items():
        source = sources.get(name, f"random codes z ~ N(0, I), decoded by the {name}")
        _show(grids[name], grid(images, 6), f"{source}\n{captions[name]}")
    for name, panel in panels.items():
        pairs = np.concatenate([inputs, panel.reconstructions])
        _show(grids[f"{name} pairs"], grid(pairs, len(inputs)), f"{name}: inputs, and their reconstructions below")
        _show(
            grids[f"{name} interpolation"],
            grid(panel.interpolation, len(panel.interpolation)),
            f"{name}: interpolation between two inputs' codes",
        )
        _scatter(grids[f"{name} codes"], panel.codes, labels, name)
    with durable.replacing(path) as file:
        figure.savefig(file, dpi=110, format="png")


def _show(axes: Any, image: np.ndarray, title: str) -> None:
    axes.imshow(image, interpolation="nearest")
    axes.set_title(title, size=10)
    axes.set_axis_off()


def _scatter(axes: Any, codes: np.ndarray, labels: np.ndarray, name: str) -> None:
    """Draw codes along their two directions of largest variance, with the ring inside which 95 % of N(0, I) would
    lie.
    """
    _, _, directions = np.linalg.svd(codes - codes.mean(axis=0), full_matrices=False)
    flat = codes @ directions[:2].T if codes.shape[1] > 1 else np.hstack([codes, np.zeros_like(codes)])
    points = axes.scatter(flat[:, 0], flat[:, 1], c=labels, cmap="tab10", s=6)
    turn = np.linspace(0, 2 * np.pi, 200)
    radius = np.sqrt(-2 * np.log(0.05))
    axes.plot(radius * np.cos(turn), radius * np.sin(turn), color="black", linewidth=1)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_title(
        f"{name}: codes of test data by class, two main directions; inside the ring, 95 % of N(0, I)", size=10
    )
    axes.legend(*points.legend_elements(), title="class", loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        return renamed.name_in(__name__, name)
