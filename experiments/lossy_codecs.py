"""What others make of the same images at several qualities: JPEG, WebP, JPEG XL, and PCA with quantised coefficients.

Each point has bits per pixel and the PSNR of the mean squared error over all images. Bits of a codec are those of a
file for each image, as it is; and bare, without what the format says of the file: of JPEG the bytes of its scan alone,
so that tables are free as well; of the others what is above the file of a grey image of the same size. The mosaic is
one file of all images side by side, which nobody can take one image from.
"""

from __future__ import annotations

import importlib
import io
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

Point = dict[str, float]


class Codec(NamedTuple):
    """A codec of grey images, and the qualities that are tried."""

    encode: Callable[[np.ndarray, float], bytes]
    decode: Callable[[bytes], np.ndarray]
    qualities: tuple[float, ...]


def psnr(squared_error: float) -> float:
    """Return the peak signal to noise ratio in dB of a mean squared error in grey levels of 8 bits."""
    return 10 * math.log10(255**2 / squared_error)


def codecs() -> tuple[dict[str, Codec], dict[str, str]]:
    """Return those that are installed here, and why others are not."""
    found = {
        "JPEG": Codec(_pillow("JPEG", optimize=True), _opened, (1, 5, 12, 25, 50, 65, 75, 83)),
        "WebP": Codec(_pillow("WEBP", method=6), _opened, (0, 1, 3, 8, 20, 35, 50, 65)),
    }
    try:
        imagecodecs = importlib.import_module("imagecodecs")
    except ImportError:
        return found, {"JPEG XL": "left out: imagecodecs is not installed"}
    found["JPEG XL"] = Codec(
        lambda image, distance: bytes(imagecodecs.jpegxl_encode(image, distance=distance, effort=7, numthreads=1)),
        lambda raw: np.asarray(imagecodecs.jpegxl_decode(raw, numthreads=1)),
        (18, 12, 8, 5, 3, 2),
    )
    return found, {}


def _pillow(name: str, **options: Any) -> Callable[[np.ndarray, float], bytes]:
    def encode(image: np.ndarray, quality: float) -> bytes:
        file = io.BytesIO()
        Image.fromarray(image).save(file, name, quality=int(quality), **options)
        return file.getvalue()

    return encode


def _opened(raw: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(raw)).convert("L"))


def curve(name: str, codec: Codec, images: np.ndarray) -> list[Point]:
    """Return a point for each quality, of images `[N, H, W]` uint8, a file for each."""
    grey, points = np.full(images.shape[1:], 128, np.uint8), []
    for quality in codec.qualities:
        about, size, bare, error = len(codec.encode(grey, quality)), 0, 0, 0.0
        for image in images:
            raw = codec.encode(image, quality)
            size, bare = size + len(raw), bare + (_scan(raw) if name == "JPEG" else len(raw) - about)
            error += float(((codec.decode(raw).reshape(image.shape) - image.astype(np.float64)) ** 2).sum())
        points.append(_point(8 * size / images.size, error / images.size, bare=8 * bare / images.size, at=quality))
    return points


def mosaic(codec: Codec, images: np.ndarray) -> list[Point]:
    """Return a point for each quality, of one file of all images side by side, as nearly square as their number is."""
    rows = next(n for n in range(math.isqrt(len(images)), 0, -1) if len(images) % n == 0)
    shape = (rows, len(images) // rows, *images.shape[1:])
    large = np.ascontiguousarray(images.reshape(shape).transpose(0, 2, 1, 3)).reshape(rows * shape[2], -1)
    points = []
    for quality in codec.qualities:
        raw = codec.encode(large, quality)
        error = float(((codec.decode(raw).reshape(large.shape) - large.astype(np.float64)) ** 2).mean())
        points.append(_point(8 * len(raw) / images.size, error, at=quality))
    return points


def _scan(raw: bytes) -> int:
    """Return how many bytes of a JPEG file are those of its scan, without the marks of its beginning and its end."""
    start = raw.rindex(b"\xff\xda")
    return len(raw) - start - 4 - int.from_bytes(raw[start + 2 : start + 4], "big")


def pca(train: np.ndarray, test: np.ndarray, steps: Sequence[float]) -> list[Point]:
    """Return a point for each step, of quantised coefficients of all principal components; images `[N, H, W]` uint8.

    Coefficients of every component are rounded to multiples of one step, which is optimal at high rates, down to those
    that are always 0. They cost the entropy code of their counts in the training images, without any file; what is
    decoded is the mean of the training coefficients that were rounded to the same. Of three roundings, two of which
    round more to 0, that is taken which is best.
    """
    x, y = (images.reshape(len(images), -1) / 255 for images in (train, test))
    mean = x.mean(0)
    _, components = np.linalg.eigh(np.cov((x - mean).T, bias=True))
    codes, seen = (x - mean) @ components, (y - mean) @ components
    points = []
    for step in steps:
        for offset in (0.5, 0.45, 0.4):
            bits, decoded = _quantised(codes, seen, step, offset)
            pictures = np.clip(np.rint(255 * (decoded @ components.T + mean)), 0, 255)
            error = float(((pictures - test.reshape(len(test), -1)) ** 2).mean())
            points.append(_point(bits / y.size, error, at=step))
    return [p for p in points if not any(q["psnr"] >= p["psnr"] and q["bits"] < p["bits"] for q in points)]


def _quantised(codes: np.ndarray, seen: np.ndarray, step: float, offset: float) -> tuple[float, np.ndarray]:
    """Return the bits of quantised coefficients by the counts of others, and what is decoded."""
    bits, decoded = 0.0, np.zeros_like(seen)
    known, new = (np.sign(a) * np.floor(np.abs(a) / step + offset) for a in (codes, seen))
    for j, (before, now) in enumerate(zip(known.T, new.T, strict=True)):
        low, high = int(min(before.min(), now.min())), int(max(before.max(), now.max()))
        place = (before - low).astype(int)
        counts, sums = (np.bincount(place, weights, minlength=high - low + 1) for weights in (None, codes[:, j]))
        probabilities = (counts + 0.5) / (counts.sum() + 0.5 * len(counts))
        centres = np.where(counts > 0, sums / np.maximum(counts, 1), (low + np.arange(len(counts))) * step)
        at = (now - low).astype(int)
        bits -= float(np.log2(probabilities[at]).sum())
        decoded[:, j] = centres[at]
    return bits, decoded


def _point(bits: float, error: float, **others: float) -> Point:
    return {"bits": bits, "psnr": psnr(error), **others}


def bits_at(points: Sequence[Point], wanted: float, key: str = "bits") -> float:
    """Return the bits per pixel at a PSNR in dB, between the points beside it; NaN where there are none.

    Below the lowest PSNR of a curve its lowest rate is returned: the codec cannot do with less.
    """
    ordered = sorted(points, key=lambda point: point["psnr"])
    places, rates = [point["psnr"] for point in ordered], [point[key] for point in ordered]
    if not ordered or wanted > places[-1]:
        return math.nan
    return min(rates) if wanted < places[0] else float(np.interp(wanted, places, rates))
