"""Pictures in files, alone or in folders: PNG, JPEG, WebP and TIFF, decoded by Pillow.

Whatever a file claims is compared with limits before anything is decoded. The checksums of a PNG file are compared; the
other kinds have none, and damage that leaves them readable cannot be seen."""

from __future__ import annotations

import contextlib
import os
import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from aevae_jax import cores, durable
from aevae_jax.data import datasets
from aevae_jax.data.datasets import Source, Split
from aevae_jax.data.rows import inside, reading, refused, regular
from aevae_jax.data.splits import Found
from aevae_jax.types import InputError

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

MAX_PIXELS = 2**26
"""A picture may have at most 67 million pixels."""

MAX_FILE_BYTES = 2**28
"""A picture's file may have at most 256 MiB; Pillow reads some kinds of file whole."""

LARGE_PIXELS = 2**15
"""Larger pictures are decoded by several threads; for smaller ones they would only wait for each other."""

_PARTS = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "test": "test"}
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
_NOTES = ("", ".txt", ".md", ".rst", ".html", ".pdf", ".json", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".ini", ".db")
_KINDS = {"1": (1, 8), "L": (1, 8), "P": (3, 8), "RGB": (3, 8), "I;16, 16 bits": (1, 16), "I;16B, 16 bits": (1, 16)}
"""Channels and bits of the modes that are taken."""
_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = ("raw", "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate")
"""Compressions of TIFF that lose nothing."""

_MODES = {1: "L", 3: "RGB"}
_ORIENTATION = 0x0112
"""The EXIF tag; from 5 on, height and width are exchanged."""
_PHOTOMETRIC = 262
"""The TIFF tag that says whether 0 is black."""


class _File(NamedTuple):
    """Sorted in this order: by name, then by class."""

    name: str
    label: str
    path: str


def read(folder: Path, size: tuple[int, ...] = (), channels: int = 0) -> Found:
    """Read all pictures in a folder, grey `[N, H, W, 1]` or RGB `[N, H, W, 3]`.

    Layout: pictures, or one folder of pictures per class; or either of the two in each of the folders `train`,
    `validation` (`valid`, `val`) and `test`. Labels are the places of the classes in the sorted names of all class
    folders, those of all splits together. Hidden files, files without suffix and notes such as .txt, .json and .csv are
    passed over. Links to files must stay inside the folder.

    Order: by the name of the file, whatever its class; equal names by the name of the class folder. So files numbered
    in the order of a data set come back in that order. Names are compared letter by letter: write 00010, not 10.

    Sizes: pictures of one size stay as they are. Otherwise, or if `size` is given, each is scaled (Lanczos,
    antialiased) until it just covers the target, and its centre is cut out. The target is `size`, or the smallest
    height and the smallest width among all pictures.

    Pixels: 8 bits are bytes. If a picture has 16 bits (grey PNG or TIFF), all are floats in [0, 1], level / 65535 or
    level / 255, as no likelihood here has 65,536 levels and float32 holds them all. A palette counts as RGB; grey from
    RGB is ITU-R 601-2 luma. Orientation is applied, colour profiles are not.

    A part of at most `datasets.RESIDENT_BYTES` is decoded into memory, a larger one as its rows are asked for.

    Args:
      folder: where the pictures are.
      size: (height, width), or nothing.
      channels: 1 or 3; left out, what all pictures have.

    Raises:
      InputError: another layout, no pictures in a folder, files or links of other kinds, pictures that are damaged,
        animated, transparent, RGB of 16 bits, too large (`MAX_PIXELS`, `MAX_FILE_BYTES`), or, unless `channels` says
        what they become, grey and RGB mixed.
    """
    files = _files(folder)
    seen = _look([file.path for found in files.values() for file in found])
    height, width = size or (min(sides[0] for sides in seen.sizes), min(sides[1] for sides in seen.sizes))
    if height * width > MAX_PIXELS:
        raise InputError("size", got=f"{height}x{width}", expected=f"at most {MAX_PIXELS} pixels")
    classes = sorted({file.label for found in files.values() for file in found} - {""})
    number = {label: n for n, label in enumerate(classes)}
    parts = {}
    for part, found in files.items():
        x = seen.rows([file.path for file in found], (height, width, channels or _one_kind(seen, folder)))
        labels = np.array([number[file.label] for file in found], np.int32) if found[0].label else None
        parts[part] = Split(x, labels)
    told = _resized(seen.sizes, (height, width))
    if told and not size:
        told += "; size=(H, W) takes another size"
    levels = datasets.levels_of(parts["train"].x)
    return Found(parts, levels, class_names=tuple(classes), remarks=(told,) if told else ())


def read_new(path: Path, shape: tuple[int, int, int], note: Callable[[str], None]) -> Source:
    """Read one picture, or all in a folder by the names of their files, as `read` does.

    Args:
      path: a picture, or a folder as in `read` without train, validation and test.
      shape: height, width and channels that all are brought to.
      note: is told how many were scaled.

    Raises:
      InputError: as `read`.
    """
    paths = _of_one_part(path)
    seen = _look(paths)
    if told := _resized(seen.sizes, shape[:2]):
        note(told)
    return seen.rows(paths, shape)


def read_exactly(path: Path, event_shape: tuple[int, ...]) -> Source:
    """Read one picture, or all in a folder by the names of their files, if none would be changed: uint8 `[N, H, W, C]`.

    Args:
      path: a picture, or a folder as in `read` without train, validation and test.
      event_shape: height, width and channels that all must have.

    Raises:
      InputError: as `read`, or pictures of another size, of other channels or of 16 bits.
    """
    paths = _of_one_part(path)
    seen = _look(paths)
    told = {(height, width, channels) for height, width in seen.sizes for channels in seen.examples}
    if told != {event_shape} or seen.bits != 8:
        shown = ", ".join(f"{h}x{w}x{c}" for h, w, c in sorted(told)[:3])
        got = f"{shown}{', of 16 bits' if seen.bits != 8 else ''}"
        raise refused(path, got, f"{'x'.join(map(str, event_shape))} of 8 bits, as nothing is scaled")
    return seen.rows(paths, event_shape)  # type: ignore[arg-type]  # those of pictures


def _of_one_part(path: Path) -> list[str]:
    """Return the paths of one picture, or of those in a folder without parts."""
    if not os.path.isdir(path):
        return [str(path)]
    files = _files(path)
    if len(files) > 1:
        raise refused(path, f"folders for {', '.join(files)}", "pictures alone", "name one of the folders")
    return [file.path for file in files["train"]]


def _resized(sizes: Counter[tuple[int, int]], target: tuple[int, int]) -> str:
    """Return how many pictures are scaled and cropped to a size, and by how much, in a line; empty where none is."""
    others = {sides: count for sides, count in sizes.items() if sides != target}
    if not others:
        return ""
    (height, width), lost = target, {}
    for h, w in others:
        scale = max(height / h, width / w)  # it just covers the target
        lost[h, w] = 1 - height * width / (h * w * scale**2)
    cropped = sum(count for sides, count in others.items() if lost[sides] > 0.005)
    (h, w), most = max(lost.items(), key=lambda item: item[1])
    cut = f", and {cropped:,} of them cropped: of {h}x{w} {100 * most:.0f} % is cut off" if cropped else ""
    return f"{sum(others.values()):,} of {sizes.total():,} pictures are scaled to {height}x{width}{cut}"


class PictureRows:
    """Pictures that are decoded when their rows are asked for: a `Source` `[N, H, W, C]`, uint8 or floats in [0, 1].

    Args:
      paths: one for each row.
      shape: height, width and channels; pictures of another size are scaled and cropped as `read` says.
      dtype: uint8, or float32 for `level / 255` of pictures with 8 bits and `level / 65535` of those with 16.
      threads: whether several decode at once.
    """

    def __init__(self, paths: Sequence[str], shape: tuple[int, int, int], dtype: Any, *, threads: bool):
        self.paths, self.shape, self.dtype, self._threads = paths, (len(paths), *shape), np.dtype(dtype), threads

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Return the rows of a slice or of indices. Raises `InputError` with the name of the first file that is
        damaged.
        """
        paths = self.paths[rows] if isinstance(rows, slice) else [self.paths[row] for row in np.asarray(rows).tolist()]
        out = np.empty((len(paths), *self.shape[1:]), self.dtype)

        def fill(place: int) -> None:
            out[place] = _pixels(paths[place], self.shape[1:], self.dtype)

        if self._threads:
            with ThreadPoolExecutor(min(8, cores.available())) as pool:
                for _ in pool.map(fill, range(len(paths))):
                    pass
        else:
            for place in range(len(paths)):
                fill(place)
        return out


def _pixels(path: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return one picture, `[height, width, channels]`."""
    from PIL import Image, ImageOps

    height, width, channels = shape
    with _opened(path) as file:
        turned = ImageOps.exif_transpose(file) if "exif" in file.info else file
        deep = turned.mode.startswith("I;16")
        if deep and dtype == np.uint8:
            raise refused(path, "a picture of 16 bits", "one of 8 bits, as it was before")
        picture: Any = Image.fromarray(np.asarray(turned, np.float32)) if deep else turned.convert(_MODES[channels])
        if picture.size != (width, height):
            picture = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
        x = np.asarray(picture).reshape(height, width, -1)
        if dtype != np.uint8:
            x = np.clip(x.astype(np.float32) / np.float32(65535 if deep else 255), 0, 1)  # Lanczos goes beyond edges
        return np.broadcast_to(x, shape)


# ------------------------------------------------------------------------------------------------- before any decoding


class _Seen(NamedTuple):
    """What the headers of some pictures say."""

    examples: dict[int, str]
    """By the number of channels, the path of one."""
    bits: int
    """The most that one has: 8 or 16."""
    sizes: Counter[tuple[int, int]]
    """How many there are of each height and width."""

    def rows(self, paths: Sequence[str], shape: tuple[int, int, int]) -> Source:
        """Return some of these pictures, brought to `shape`; in memory if that is little."""
        threads = max(height * width for height, width in self.sizes) > LARGE_PIXELS
        rows = PictureRows(paths, shape, "uint8" if self.bits == 8 else "float32", threads=threads)
        return rows[:] if datasets.size_in_bytes(rows) <= datasets.RESIDENT_BYTES else rows


def _look(paths: Sequence[str]) -> _Seen:
    seen = _Seen({}, 8, Counter())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of large pictures, which are refused
        for path in paths:
            with _opened(path) as picture:
                channels, bits = _KINDS[_kind(picture)]
                width, height = picture.size
                turned = "exif" in picture.info and picture.getexif().get(_ORIENTATION, 1) >= 5
                seen.sizes[(width, height) if turned else (height, width)] += 1
                seen.examples.setdefault(channels, path)
                seen = seen._replace(bits=max(bits, seen.bits))
    return seen


def _one_kind(seen: _Seen, folder: Path) -> int:
    """Return the channels that all pictures have."""
    if len(seen.examples) > 1:
        grey, colour = (os.path.relpath(seen.examples[channels], folder) for channels in (1, 3))
        raise refused(
            folder,
            f"grey in {grey}, RGB in {colour}",
            "either of them in all pictures",
            "choose what all become: Data('PATH', channels=1) or channels=3",
        )
    return next(iter(seen.examples))


@contextlib.contextmanager
def _opened(path: str) -> Iterator[ImageFile]:
    """Open a picture that is not decoded yet, if it is of a kind that can be used."""
    from PIL import Image

    with (
        reading(path, "an intact picture"),
        durable.open_regular(Path(path), limit=MAX_FILE_BYTES, what="picture") as file,
    ):
        if file.read(len(_PNG)) == _PNG:
            _check_png(file, path)
        file.seek(0)
        with Image.open(file, formats=("PNG", "JPEG", "WEBP", "TIFF")) as picture:
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise refused(path, f"{width}x{height} pixels", f"at most {MAX_PIXELS} pixels")
            if getattr(picture, "is_animated", False) and picture.format != "MPO":  # cameras put a preview into MPO
                raise refused(path, "an animation or several pages", "one picture in a file")
            if _kind(picture) not in _KINDS:
                raise refused(
                    path,
                    f"mode {_kind(picture)}",
                    "grey, or RGB of 8 bits, not transparent",
                    "convert it, with Pillow: picture.convert('L') or ('RGB')",
                )
            yield picture


def _kind(picture: Any) -> str:
    """Return mode of a picture, and whatever else decides whether it can be used."""
    transparent = ", transparent" if picture.has_transparency_data else ""
    coded = str(picture.tile)  # how the bytes in the file become those of the mode
    deep = next((f", {bits} bits" for bits in (16, 12) if f";{bits}" in coded), "")
    odd = ""
    if picture.format == "TIFF":
        compression = picture.info.get("compression", "raw")
        odd = f", {compression}" if compression not in _TIFF else ""
        if deep and picture.tag_v2.get(_PHOTOMETRIC) != 1:  # Pillow would give its negative
            odd += ", where 0 is white"
    return f"{picture.mode}{transparent}{deep}{odd}"


def _check_png(file: BinaryIO, path: str) -> None:
    """Compare the checksums of all chunks behind the signature. Pillow passes over some, and over a missing end."""

    def take(size: int) -> bytes:
        taken = file.read(size)
        if len(taken) < size:
            raise refused(path, "a PNG file without its end", "an intact picture")
        return taken

    kind = b""
    while kind != b"IEND":
        left, kind = struct.unpack(">I4s", take(8))
        checksum = zlib.crc32(kind)
        while left:
            block = take(min(left, 2**20))  # a length may claim 4 GiB
            checksum, left = zlib.crc32(block, checksum), left - len(block)
        if take(4) != struct.pack(">I", checksum):
            raise refused(path, "a PNG file that is damaged: a checksum is wrong", "an intact picture")


# ------------------------------------------------------------------------------------------------------ what lies where


def _files(root: Path) -> dict[str, list[_File]]:
    """Return the pictures of each part, in order."""
    folders, pictures = _entries(root, root)
    splits = [folder for folder in folders if folder.name.lower() in _PARTS]
    if not splits:
        return {"train": _part(root, root)}
    others = [entry.name for entry in (*folders, *pictures) if entry.name.lower() not in _PARTS]
    if others:
        raise refused(root, f"{others[0]} beside {splits[0].name}", "nothing beside train, validation and test")
    parts: dict[str, list[_File]] = {}
    for folder in splits:
        part = _PARTS[folder.name.lower()]
        if part in parts:
            raise refused(root, f"two folders for {part}, one of them {folder.name}", "one")
        parts[part] = _part(folder, root)
    if "train" not in parts:
        raise refused(root, f"a folder called {splits[0].name} and none called train", "both")
    return parts


def _part(folder: Path, root: Path) -> list[_File]:
    """Return the pictures of one part, which lie in `folder`, or in a folder for each class."""
    classes, pictures = _entries(folder, root)
    if classes and pictures:
        raise refused(folder, f"{pictures[0].name} beside the folder {classes[0].name}", "pictures, or class folders")
    files = [_File(picture.name, "", str(picture)) for picture in pictures]
    for one in classes:
        deeper, pictures = _entries(one, root)
        if deeper:
            raise refused(deeper[0], "a folder in a class folder", "pictures alone")
        files += [_File(picture.name, one.name, str(picture)) for picture in pictures]
        if not pictures:
            raise refused(one, "an empty class folder", f"pictures ({', '.join(SUFFIXES)})")
    if not files:
        raise refused(folder, "no pictures", f"files ending in {', '.join(SUFFIXES)}, or class folders of them")
    return sorted(files)


def _entries(folder: Path, root: Path) -> tuple[list[Path], list[Path]]:
    """Return the folders and the pictures in `folder`, by name."""
    folders, pictures = [], []
    with reading(folder, "a folder that can be read"):
        for path in sorted(folder.iterdir()):
            if path.name.startswith("."):
                continue
            if path.is_dir():
                if path.is_symlink():
                    raise refused(path, "a link to a folder", "the folder itself")
                folders.append(path)
            elif path.suffix.lower() in SUFFIXES:
                pictures.append(regular(inside(path, root)))
            elif not path.is_file():  # a class folder may have been here, and its disk not be mounted
                regular(path)
            elif path.suffix.lower() not in _NOTES:
                raise refused(path, f"a {path.suffix} file", f"{', '.join(SUFFIXES)}, or notes as .txt and .json")
    return folders, pictures
