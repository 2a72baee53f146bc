"""Data sets that come with the library, so that compute nodes need no network: digits, and sprites of known factors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

from aevae_jax.data.datasets import Dataset, Factor, Split
from aevae_jax.lazy import np

SIZE = 32
"""Height and width of a sprite, in pixels: a quarter of the work of 64, the size of dSprites, which CPUs feel; smooth
edges show what is moved by a third of a pixel."""

SHAPES = ("square", "ellipse", "heart")

FACTORS = {"shape": len(SHAPES), "scale": 6, "orientation": 20, "x": 32, "y": 32}
"""What a sprite is made of: how many values each factor takes, independently of the others."""

UNORDERED = ("shape",)
"""Those of which no value lies between two others."""


def digits() -> Dataset:
    """Return scikit-learn's 1,797 handwritten digits, `[8, 8, 1]`, 17 levels, from UCI (Alpaydin & Kaynak 1998).

    They come in the order of their writers, so they are shuffled once, by a fixed permutation, and split into 1,257 for
    training, 180 for validation and 360 for test.
    """
    import sklearn
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.RandomState(0).permutation(len(bunch.data))
    x = bunch.data.astype(np.uint8).reshape(-1, 8, 8, 1)[order]
    labels = bunch.target.astype(np.int32)[order]
    train, validation, test = _split(x, labels, 1257, 1437)
    version = f"scikit-learn {sklearn.__version__}"
    return _labelled(Dataset("digits", train, validation, test, levels=17, version=version), tuple("0123456789"))


def sprites() -> Dataset:
    """Return 12,000 pictures of one white shape each, `[32, 32, 1]`, 256 levels, labelled by their shape.

    They are drawn here, the same bytes on every machine: 8,000 for training, 1,000 for validation, 3,000 for test, no
    two with the same `FACTORS`, which `Split.factors` gives. After dSprites (Matthey, Higgins, Hassabis & Lerchner
    2017), with smooth edges, and with orientations in a quarter turn, so that every picture has one orientation.
    """
    found = factors()
    x = np.concatenate([_draw(found[start : start + 1000]) for start in range(0, len(found), 1000)])
    found = found.astype(np.int32)
    train, validation, test = _split(x, found[:, 0], 8000, 9000, factors=found)
    known = tuple(Factor(name, name not in UNORDERED) for name in FACTORS)
    return _labelled(Dataset("sprites", train, validation, test, levels=256, version="1", factors=known), SHAPES)


def factors() -> np.ndarray:
    """Return the factors `[12000, 5]` of all sprites, those for training first, each as the index of its value."""
    sizes = tuple(FACTORS.values())
    drawn = np.random.RandomState(0).permutation(np.prod(sizes))[:12_000]
    return np.stack(np.unravel_index(drawn, sizes), axis=1)


def _draw(factors: np.ndarray) -> np.ndarray:
    """Return the sprites `[N, 32, 32, 1]` of factors `[N, 5]`.

    Sine and cosine, which differ between machines in their last digit, are rounded; everything else is exact by IEEE
    754, so that the bytes are the same everywhere.
    """
    shape, scale, orientation, column, row = (factors[:, i, None, None] for i in range(5))
    radius = 4.0 + 0.75 * scale
    angle = orientation * (np.pi / 2 / FACTORS["orientation"])
    cos, sin = (np.round(f(angle) * 2**20) / 2**20 for f in (np.cos, np.sin))
    first, last = 10.0, SIZE - 11.0  # centres, so that no shape is cut off
    across, down = (first + (last - first) * place / (FACTORS["x"] - 1) for place in (column, row))
    dx, dy = np.arange(SIZE) - across, np.arange(SIZE)[:, None] - down
    u, v = (cos * dx + sin * dy) / radius, (cos * dy - sin * dx) / radius

    distance = np.empty((len(factors), SIZE, SIZE))  # from the edge in pixels, about, negative inside
    for index, of_shape in enumerate((_square, _ellipse, _heart)):
        own = shape[:, 0, 0] == index
        distance[own] = of_shape(u[own], v[own]) * radius[own]
    return np.round(255 * (0.5 - distance).clip(0, 1)).astype(np.uint8)[..., None]


def _square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(u), np.abs(v)) - 0.85


def _ellipse(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    a, b = 1.2, 0.6
    value, slope = (u / a) ** 2 + (v / b) ** 2, np.sqrt((u / a**2) ** 2 + (v / b**2) ** 2)
    return (value - 1) / (2 * slope + 1e-9)


def _heart(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return the distance from the unit circle whose columns are lowered by the root of their place from the middle."""
    lifted = 0.25 - v - 0.6 * np.sqrt(np.abs(u) + 1e-9)
    return np.sqrt(u**2 + lifted**2) - 1.0


def _split(x: np.ndarray, labels: np.ndarray, *cuts: int, factors: np.ndarray | None = None) -> list[Split]:
    whole = Split(x, labels, factors)
    return [whole[start:stop] for start, stop in pairwise((0, *cuts, len(x)))]


def _labelled(dataset: Dataset, names: tuple[str, ...]) -> Dataset:
    return replace(dataset, classes=tuple(range(len(names))), class_names=names)


BUILT_IN: dict[str, Callable[[], Dataset]] = {"digits": digits, "sprites": sprites}
"""What needs neither files nor a network."""
