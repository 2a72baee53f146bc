"""The one look of pictures with words in them: their size, font and colours, and how they are written.

`figures` makes the images in them.
"""

from __future__ import annotations

import functools
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from aevae_jax import durable, figures

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""The colours of curves, told apart by any colour vision: Okabe & Ito 2008."""
MARKERS = "os^Dv<>"
"""Beside the colours, for who prints in grey."""
CLASSES = ("#3f90da", "#ffa90e", "#bd1f01", "#832db6", "#a96b59", "#e76300", "#92dadd", "#b9ac70", "#717581", "#94a4a2")
"""The colours of classes, told apart by any colour vision: Petroff 2021."""

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
    images: np.ndarray | Sequence[np.ndarray],
    columns: int,
    *,
    title: str,
    note: str = "",
    captions: Sequence[str] = (),
    rows: Sequence[str] = (),
    xlabel: str = "",
    ylabel: str = "",
    span: tuple[float, float] = (0.0, 1.0),
) -> int:
    """Draw images side by side, each with a thin frame, under a title.

    Args:
      path: of the PNG file.
      images: `[N, h, w, C]`, row after row; or several of these, whose rows stand one below the other: the first row of
        each, the second of each, and so on.
      columns: how many stand side by side, at most.
      title: above all of it; wrapped where it is long.
      note: below the title, in smaller letters.
      captions: what stands below each image, the last of several; cut off where it is wider than the image.
      rows: what stands beside each row, if it is tall enough; again from the first one where there are more rows.
      xlabel: what the columns are.
      ylabel: what the rows are, above what stands beside them.
      span: the values of pixels that are black and white.

    Returns:
      How many of the images there was room for: the first ones.

    Raises:
      InputError: arrays of another shape, or the file cannot be written.
    """
    tiles, columns = _magnified([images] if isinstance(images, np.ndarray) else images, columns, span)
    versions, count, height, width = tiles.shape[:4]
    across = columns * (width + _GAP) - _GAP
    large, medium, small = (points * max(1.0, across / _WIDE) for points in (11, 10, 9))
    rows, ylabel = (rows, ylabel) if _line(_SMALLEST) <= height else ((), "")
    beside = min(small, small * height / _line(small))
    widest = max((_width(line, small) for text in captions for line in text.split("\n")), default=0)
    below = small * max(0.75, min(1.0, width / max(1, widest)))

    room = max((_width(text, beside) + 2 * _GAP for text in (ylabel, *rows) if text), default=0)
    page = _Page(max(_NARROWEST, room + across + 2 * _MARGIN))
    left = room + (page.width - room - across) // 2
    page.write(title, large)
    page.write(note, small, color=_GREY)
    page.down += 2 * _GAP
    if ylabel:
        page.put(ylabel, left - 2 * _GAP, page.down, beside, ha="right", color=_GREY)
        page.down += _line(beside)
    for line in range(versions * -(-count // columns)):
        block, version = divmod(line, versions)
        shown = range(block * columns, min((block + 1) * columns, count))
        places = [left + i * (width + _GAP) for i in range(len(shown))]
        page.images += [(tiles[version, n], page.down, place) for n, place in zip(shown, places, strict=True)]
        if rows:
            page.put(rows[line % len(rows)], left - 2 * _GAP, page.down + height // 2, beside, ha="right", va="center")
        page.down += height + _GAP
        if version < versions - 1:
            continue
        texts = [captions[n].splitlines() for n in shown] if captions else []
        for text, place in zip(texts, places, strict=bool(captions)):
            for i, words in enumerate(text):
                said = _cut(words, width, below)
                page.put(said, place + width // 2, page.down + i * _line(below), below, ha="center")
        page.down += max(map(len, texts), default=0) * _line(below)
        page.down += 2 * _GAP if any(texts) or versions > 1 else 0
    page.write(xlabel, medium, x=left + across // 2, ha="center")
    figures.save_png(path, page.drawn())
    return count


FRAME = 190
"""The grey around an image, by which black ones are told apart as well as white ones."""
_GREY = "#555555"
_NARROWEST = 1000
"""Pixels that a sheet of images is wide, at least."""
_WIDE = 1400
"""Pixels from which on letters grow with the images, so that they stay legible on a slide."""
_TALLEST = 640
"""Images are magnified to this height in pixels, at most."""
_MARGIN, _GAP = 40, 6
"""Pixels around a sheet, and between its images."""
_SMALLEST = 6
"""Points of the smallest letters that are read."""


def _magnified(versions: Sequence[np.ndarray], columns: int, span: tuple[float, float]) -> tuple[np.ndarray, int]:
    """Return uint8 images `[V, N, h, w, 3]` in the size that they have on a sheet, and how many stand side by side."""
    columns = min(columns, len(versions[0]))
    made = [figures.tiles(images, columns, versions=len(versions), span=span) for images in versions]
    pixels, columns = np.stack([each.pixels for each in made]), made[0].columns
    height, width = pixels.shape[2:4]
    lines = len(versions) * -(-pixels.shape[1] // columns)
    factor = min(-(-_NARROWEST // (columns * width)), _TALLEST // height, figures.MAX_SIDE // (lines * height))
    return pixels.repeat(max(1, factor), axis=2).repeat(max(1, factor), axis=3), columns


class _Page:
    """Words and images at places in pixels from the upper left corner, and how far down it is written."""

    def __init__(self, width: int):
        self.width, self.down = width, _MARGIN
        self.images: list[tuple[np.ndarray, int, int]] = []
        self._words: list[tuple[str, int, int, dict[str, Any]]] = []

    def put(self, text: str, x: int, y: int, size: float, **options: Any) -> None:
        """Write a text whose upper corner is there; options are those of `Figure.text`."""
        self._words.append((text, x, y, {"va": "top", "color": "black", **options, "fontproperties": _font(size)}))

    def write(self, text: str, size: float, *, x: int = _MARGIN, **options: Any) -> None:
        """Write the lines of a text below all that is written, wrapped at the width of the page."""
        room = self.width - 2 * _MARGIN
        for line in text.splitlines():
            for part in textwrap.wrap(line, max(10, len(line) * room // max(1, _width(line, size)))):
                self.put(part, x, self.down, size, **options)
                self.down += _line(size)

    def drawn(self) -> np.ndarray:
        """Return the pixels, uint8 `[H, W, 3]`."""
        height = self.down + _MARGIN
        figure = Figure(((self.width + 0.5) / _DPI, (height + 0.5) / _DPI), dpi=_DPI, facecolor="white")
        canvas = FigureCanvasAgg(figure)
        for text, x, y, options in self._words:
            figure.text(x / self.width, 1 - y / height, _legible(text), parse_math=False, usetex=False, **options)
        canvas.draw()
        picture = np.asarray(canvas.buffer_rgba())[..., :3].copy()
        for image, top, left in self.images:
            height, width = image.shape[:2]
            picture[top - 1 : top + height + 1, left - 1 : left + width + 1] = FRAME
            picture[top : top + height, left : left + width] = image
        return picture


def _font(size: float) -> FontProperties:
    return FontProperties(family="DejaVu Sans", size=size)  # which comes with Matplotlib


def _line(size: float) -> int:
    """Return how many pixels tall a line is of letters of so many points."""
    return round(1.4 * size * _DPI / 72)


@functools.lru_cache(4096)
def _width(text: str, size: float) -> int:
    """Return how many pixels wide a line is."""
    return math.ceil(_measure().get_text_width_height_descent(_legible(text), _font(size), ismath=False)[0])


@functools.cache
def _measure() -> RendererAgg:
    return RendererAgg(1, 1, _DPI)


@functools.cache
def _letters() -> frozenset[int]:
    """Return what the font has a letter for."""
    return frozenset(get_font(findfont(_font(10))).get_charmap())


def _cut(text: str, width: int, size: float) -> str:
    """Return a line that ends in dots where it would be wider; nothing where there is no room for a letter."""
    most = next((n for n in range(len(text), 0, -1) if _width(text[:n], size) <= width), 0)
    return text if most == len(text) else f"{text[: most - 1]}\N{HORIZONTAL ELLIPSIS}" if most else ""


def _legible(text: str) -> str:
    """Return text with a square for what the font has no letter for: a stranger's names may hold anything."""
    return "".join(c if ord(c) in _letters() else "\N{WHITE SQUARE}" for c in text)
