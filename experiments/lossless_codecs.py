"""Codecs that everybody has, on the same images as a model's: general ones and those of images, each with the settings
that make its files smallest. For lossless.py.

A general codec gets all images one after another, a byte to a pixel, or eight pixels of two levels. A codec of images
gets each alone, and all side by side in one picture that is as square as their number allows. Sizes are those of whole
files; what would hold many of them together is not counted. Everything is decoded and compared.
"""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import lzma
import math
import platform
import time
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import PIL
from PIL import Image

from aevae_jax.lazy import np
from aevae_jax.types import InputError

STREAM, EACH, MOSAIC = "one stream", "each alone", "one mosaic"

INSTALL = "pip install imagecodecs"
"""What brings the codecs that neither Python nor Pillow has; pins.txt does without."""


class Codec(NamedTuple):
    """A codec of pictures `[H, W]`, uint8 below a number of levels."""

    name: str
    setting: str
    ways: tuple[str, ...]
    """How it gets many images: see `arranged`."""
    encode: Callable[[np.ndarray, int], bytes]
    """`(picture, levels) -> file`."""
    decode: Callable[[bytes, tuple[int, ...], int], np.ndarray]
    """`(file, shape of the picture, levels) -> picture`."""
    version: str
    """The version of the library; empty where it is not installed."""


def arranged(images: np.ndarray, way: str) -> list[np.ndarray]:
    """Return images `[N, H, W]` as the pictures that a codec gets.

    Args:
      images: in their order.
      way: `STREAM`, one below the other, so that their bytes follow each other; `EACH`; or `MOSAIC`.
    """
    count, height, width = images.shape
    if way == EACH:
        return list(images)
    across = 1 if way == STREAM else count // next(n for n in range(math.isqrt(count), 0, -1) if count % n == 0)
    rows = images.reshape(count // across, across, height, width).swapaxes(1, 2)
    return [np.ascontiguousarray(rows).reshape(count // across * height, across * width)]


def measure(codec: Codec, way: str, images: np.ndarray, levels: int) -> dict[str, Any]:
    """Return bytes of all files, and seconds, of a codec that gets images `[N, H, W]` in this way.

    Raises:
      InputError: it gives back other pixels.
    """
    pictures = arranged(images, way)
    began = time.perf_counter()
    files = [codec.encode(picture, levels) for picture in pictures]
    encoded = time.perf_counter()
    decoded = [codec.decode(file, pictures[0].shape, levels) for file in files]
    ended = time.perf_counter()
    if not all(map(np.array_equal, decoded, pictures)):
        raise InputError(f"{codec.name} {codec.setting}", got="other pixels than it was given", expected="the same")
    return {
        "codec": codec.name,
        "setting": codec.setting,
        "way": way,
        "version": codec.version,
        "bytes": sum(map(len, files)),
        "encode_seconds": encoded - began,
        "decode_seconds": ended - encoded,
    }


def _general(name: str, setting: str, compress: Any, decompress: Any, version: str) -> Codec:
    def encode(picture: np.ndarray, levels: int) -> bytes:
        return bytes(compress((np.packbits(picture) if levels == 2 else picture).tobytes()))

    def decode(file: bytes, shape: tuple[int, ...], levels: int) -> np.ndarray:
        found = np.frombuffer(decompress(file), np.uint8)
        return (np.unpackbits(found, count=math.prod(shape)) if levels == 2 else found).reshape(shape)

    return Codec(name, setting, (STREAM,), encode, decode, version)


def _pillow(name: str, setting: str, version: str, *, has_bits: bool, **options: Any) -> Codec:
    """Return a codec of Pillow; `has_bits` says that its files can have one bit to a pixel."""

    def encode(picture: np.ndarray, levels: int) -> bytes:
        file = io.BytesIO()
        Image.fromarray(picture.astype(bool) if has_bits and levels == 2 else picture).save(file, name, **options)
        return file.getvalue()

    def decode(file: bytes, shape: tuple[int, ...], levels: int) -> np.ndarray:
        with Image.open(io.BytesIO(file)) as opened:
            return np.asarray(opened).astype(np.uint8).reshape(*shape, -1)[..., 0]

    return Codec(name, setting, (EACH, MOSAIC), encode, decode, version)


def _others() -> list[Codec]:
    """Return the codecs of `imagecodecs`, without versions where it is not installed."""
    try:
        library: Any = importlib.import_module("imagecodecs")
    except ImportError:
        library = None
    version = f"imagecodecs {library.__version__}" if library else ""

    def images(name: str, setting: str, short: str, **options: Any) -> Codec:
        def encode(picture: np.ndarray, levels: int) -> bytes:
            return bytes(getattr(library, f"{short}_encode")(picture, **options))

        def decode(file: bytes, shape: tuple[int, ...], levels: int) -> np.ndarray:
            return np.asarray(getattr(library, f"{short}_decode")(file)).reshape(shape)

        return Codec(name, setting, (EACH, MOSAIC), encode, decode, version)

    return [
        _general("zstd", "-22", lambda x: library.zstd_encode(x, 22), getattr(library, "zstd_decode", None), version),
        images("JPEG-LS", "lossless", "jpegls"),
        *(
            images("JPEG XL", f"effort {effort}", "jpegxl", lossless=True, effort=effort, numthreads=1)
            for effort in (7, 9, 10)
        ),
    ]


@cache
def everything() -> tuple[Codec, ...]:
    """Return all codecs, with every setting that is tried; those that are not installed have no version."""
    python, pillow = f"Python {platform.python_version()}", f"Pillow {PIL.__version__}"
    return (
        _general("gzip", "-9", lambda x: gzip.compress(x, 9, mtime=0), gzip.decompress, f"zlib {zlib.ZLIB_VERSION}"),
        _general("bz2", "-9", bz2.compress, bz2.decompress, python),
        *(
            _general("xz", name, lambda x, preset=preset: lzma.compress(x, preset=preset), lzma.decompress, python)
            for name, preset in (("-6", 6), ("-9e", 9 | lzma.PRESET_EXTREME))
        ),
        _pillow("PNG", "optimised", pillow, has_bits=True, optimize=True),
        _pillow("WebP", "lossless, method 6", pillow, has_bits=False, lossless=True, quality=100, method=6),
        *_others(),
    )
