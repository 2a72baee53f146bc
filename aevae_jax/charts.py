"""The one look of pictures with words in them: their size, font and colours, and how they are written.

`figures` makes the images in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from aevae_jax import durable, figures

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Of curves, told apart by any colour vision: Okabe & Ito 2008."""
MARKERS = "os^Dv<>"
"""Beside the colours, for who prints in grey."""
CLASSES = ("#3f90da", "#ffa90e", "#bd1f01", "#832db6", "#a96b59", "#e76300", "#92dadd", "#b9ac70", "#717581", "#94a4a2")
"""Of the classes of data, told apart by any colour vision: Petroff 2021."""

WIDTH = 8.0
"""Inches, of 160 pixels each: 1,280 pixels."""
_DPI = 160


def canvas(height: float, *, width: float = WIDTH, fixed: bool = False) -> Figure:
    """Return an empty picture of so many inches; where it is fixed, no time is taken to find room for words."""
    figure = Figure(figsize=(width, height), dpi=_DPI, layout=None if fixed else "constrained")
    FigureCanvasAgg(figure)
    return figure


def plot(figure: Figure, *position: int, **options: Any) -> Any:
    """Return axes for curves, with a light grid; position and options are those of `Figure.add_subplot`."""
    axes = figure.add_subplot(*position, **options)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def save(figure: Figure, path: Path) -> None:
    """Write a picture as a PNG file, whole or not at all.

    Raises:
      InputError: it cannot be written.
    """
    with durable.replacing(path, what=path.name) as file:
        figure.savefig(file, format="png")


def sheet(
    path: Path,
    images: np.ndarray,
    columns: int,
    *,
    title: str,
    rows: Sequence[str] = (),
    names: Sequence[str] = (),
    xlabel: str = "",
    ylabel: str = "",
    span: tuple[float, float] = (0.0, 1.0),
) -> int:
    """Draw images side by side, under a title, with the names of rows and columns.

    Args:
      path: of the PNG file.
      images: `[N, h, w, C]`, row after row.
      columns: how many stand in a row, at most.
      title: above all of it.
      rows: what stands beside each row; none where it is empty.
      names: what stands under each column; none where it is empty.
      xlabel: what the columns are.
      ylabel: what the rows are.
      span: the values of pixels that are black and white.

    Returns:
      How many of the images there was room for: the first ones.

    Raises:
      InputError: no images, or the file cannot be written.
    """
    made = figures.image_grid(images, columns, span=span)
    pixels = made.pixels
    factor = -(-_NARROWEST // pixels.shape[1])
    pixels = pixels.repeat(factor, axis=0).repeat(factor, axis=1)
    height, width = pixels.shape[:2]
    left = 40 + _LETTER * max(map(len, rows), default=0) + (50 if ylabel else 0)
    below = 40 + (40 if names else 0) + 40 * (xlabel.count("\n") + 1 if xlabel else 0)
    above = 40 + 40 * (title.count("\n") + 1)
    size = left + width + 40, below + height + above
    figure = Figure(figsize=(size[0] / _DPI, size[1] / _DPI), dpi=_DPI)
    FigureCanvasAgg(figure)
    place = (left / size[0], below / size[1], width / size[0], height / size[1])  # a pixel of the image is one of these
    axes = figure.add_axes(place, xlabel=xlabel, ylabel=ylabel)
    axes.imshow(pixels, interpolation="nearest", aspect="auto")
    axes.set_xticks(_middles(width, len(names)), names)
    axes.set_yticks(_middles(height, len(rows)), rows)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=11, loc="left")
    save(figure, path)
    return made.shown


_NARROWEST = 1000
"""Pixels that a sheet of images is wide, at least."""
_LETTER = 13
"""Pixels that a letter of a label takes."""


def _middles(pixels: int, count: int) -> np.ndarray:
    """Return the middles of so many tiles side by side."""
    return (np.arange(count) + 0.5) * pixels / max(count, 1) - 0.5
