"""Folders of pictures: PNG, JPEG and WebP, decoded by Pillow."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aevae_jax.data import datasets
from aevae_jax.data.arrays import inside, reading, refused, regular
from aevae_jax.data.datasets import Found, Source, Split
from aevae_jax.types import InputError

if TYPE_CHECKING:
    import numpy as np
    from PIL.ImageFile import ImageFile

MAX_PIXELS = 2**26
"""A picture may have at most 67 million pixels."""

MAX_FILE_BYTES = 2**28
"""A picture's file may have at most 256 MiB; Pillow reads some kinds of file whole."""

LARGE_PIXELS = 2**15
"""Larger pictures are decoded by several threads; for smaller ones they would only wait for each other."""

_PARTS = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "test": "test"}
_PICTURES = (".png", ".jpg", ".jpeg", ".webp")
_NOTES = ("", ".txt", ".md", ".rst", ".html", ".pdf", ".json", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".ini", ".db")
_CHANNELS = {"1": 1, "L": 1, "P": 3, "RGB": 3}
_PNG_END = b"IEND\xaeB`\x82"
_ORIENTATION = 0x0112
"""The EXIF tag; from 5 on, height and width are exchanged."""


class _File(NamedTuple):
    """Sorted in this order: by name, then by class."""

    name: str
    label: str
    path: str


def read(folder: Path, size: tuple[int, ...] = ()) -> Found:
    """All pictures in a folder, 8-bit grey `[N, H, W, 1]` or RGB `[N, H, W, 3]`.

    Layout: pictures, or one folder of pictures per class; or either of the two in each of the folders `train`,
    `validation` (`valid`, `val`) and `test`. Labels are the places of the classes in the sorted names of all class
    folders, those of all splits together. Hidden files, files without suffix and notes such as .txt, .json and .csv are
    passed over. Links to files must stay inside the folder.

    Order: by the name of the file, whatever its class; equal names by the name of the class folder. So files numbered
    in the order of a data set come back in that order. Names are compared letter by letter: write 00010, not 10.

    Sizes: pictures of one size stay as they are. Otherwise, or if `size` is given, each is scaled (Lanczos,
    antialiased) until it just covers the target, and its centre is cut out. The target is `size`, or the smallest
    height and the smallest width among all pictures.

    Pixels: a palette counts as RGB; EXIF orientation is applied, colour profiles are not.

    A part of at most `datasets.RESIDENT_BYTES` is decoded into memory, a larger one as its rows are asked for.

    Args:
      folder: where the pictures are.
      size: (height, width), or nothing.

    Raises:
      InputError: another layout, no pictures in a folder, files or links of other kinds, pictures that are damaged,
        animated, transparent, of 16 bits or too large (`MAX_PIXELS`), or grey and RGB mixed.
    """
    import numpy as np

    files = _files(folder)
    channels, smallest, largest = _look([file.path for found in files.values() for file in found], folder)
    height, width = size or smallest
    if height * width > MAX_PIXELS:
        raise InputError("size", got=f"{height}x{width}", expected=f"at most {MAX_PIXELS} pixels")
    classes = sorted({file.label for found in files.values() for file in found} - {""})
    number = {label: n for n, label in enumerate(classes)}
    parts = {}
    for part, found in files.items():
        rows = PictureRows([file.path for file in found], (height, width, channels), threads=largest > LARGE_PIXELS)
        x: Source = rows[:] if datasets.size_in_bytes(rows) <= datasets.RESIDENT_BYTES else rows
        labels = np.array([number[file.label] for file in found], np.int32) if found[0].label else None
        parts[part] = Split(x, labels)
    return Found(parts, levels=256)


class PictureRows:
    """Pictures that are decoded when their rows are asked for: a `Source` of uint8 `[N, H, W, C]`.

    Args:
      paths: one for each row.
      shape: height, width and channels; pictures of another size are scaled and cropped as `read` says.
      threads: whether several decode at once.
    """

    def __init__(self, paths: Sequence[str], shape: tuple[int, int, int], *, threads: bool):
        import numpy as np

        self.paths, self.shape, self.dtype, self._threads = paths, (len(paths), *shape), np.dtype(np.uint8), threads

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """The rows of a slice or of indices. Raises `InputError` with the name of the first file that is damaged."""
        import numpy as np

        paths = self.paths[rows] if isinstance(rows, slice) else [self.paths[row] for row in np.asarray(rows).tolist()]
        out = np.empty((len(paths), *self.shape[1:]), self.dtype)

        def fill(place: int) -> None:
            out[place] = _pixels(paths[place], *self.shape[1:])

        if self._threads:
            with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
                for _ in pool.map(fill, range(len(paths))):
                    pass
        else:
            for place in range(len(paths)):
                fill(place)
        return out


def _pixels(path: str, height: int, width: int, channels: int) -> np.ndarray:
    """One picture, `[height, width, channels]`."""
    import numpy as np
    from PIL import Image, ImageOps

    with _opened(path) as file:
        turned = ImageOps.exif_transpose(file) if "exif" in file.info else file
        picture = turned.convert("L" if channels == 1 else "RGB")
        if picture.size != (width, height):
            picture = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
        return np.asarray(picture).reshape(height, width, channels)


# ------------------------------------------------------------------------------------------------- before any decoding


def _look(paths: Sequence[str], folder: Path) -> tuple[int, tuple[int, int], int]:
    """Channels, (smallest height, smallest width) and the most pixels of one picture, from the headers alone."""
    example: dict[int, str] = {}
    height = width = MAX_PIXELS
    largest = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of large pictures, which are refused
        for path in paths:
            with _opened(path) as picture:
                if picture.format == "PNG" and _PNG_END not in Path(path).read_bytes():  # Pillow would let it pass
                    raise refused(path, "a PNG file without its end", "an intact picture")
                turned = "exif" in picture.info and picture.getexif().get(_ORIENTATION, 1) >= 5
                sides = picture.size if turned else picture.size[::-1]
                height, width, largest = min(height, sides[0]), min(width, sides[1]), max(largest, sides[0] * sides[1])
                example.setdefault(_CHANNELS[picture.mode], path)
    if len(example) > 1:
        grey, colour = (os.path.relpath(example[channels], folder) for channels in (1, 3))
        raise refused(folder, f"grey in {grey}, RGB in {colour}", "either of them in all pictures",
                      "convert them, with Pillow: picture.convert('L') or ('RGB')")  # fmt: skip
    return next(iter(example)), (height, width), largest


@contextlib.contextmanager
def _opened(path: str) -> Iterator[ImageFile]:
    """A picture that is not decoded yet, if it is of a kind that can be used."""
    from PIL import Image

    with reading(path, "an intact picture"):
        if os.path.getsize(path) > MAX_FILE_BYTES:
            raise refused(path, f"{os.path.getsize(path)} bytes", f"at most {MAX_FILE_BYTES}")
        with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as picture:
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise refused(path, f"{width}x{height} pixels", f"at most {MAX_PIXELS} pixels")
            if getattr(picture, "n_frames", 1) > 1 and picture.format != "MPO":  # cameras put a preview into MPO
                raise refused(path, "an animation", "one picture in a file")
            transparent = ", transparent" if picture.has_transparency_data else ""
            deep = ", 16 bits" if ";16" in str(picture.tile) else ""
            if picture.mode + transparent + deep not in _CHANNELS:
                raise refused(path, f"mode {picture.mode}{transparent}{deep}", "8-bit grey or RGB, not transparent",
                              "convert it, with Pillow: picture.convert('L') or ('RGB')")  # fmt: skip
            yield picture


# ------------------------------------------------------------------------------------------------------ what lies where


def _files(root: Path) -> dict[str, list[_File]]:
    """The pictures of each part, in order."""
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
    """The pictures of one part, which lie in `folder`, or in a folder for each class."""
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
            raise refused(one, "an empty class folder", f"pictures ({', '.join(_PICTURES)})")
    if not files:
        raise refused(folder, "no pictures", f"files ending in {', '.join(_PICTURES)}, or class folders of them")
    return sorted(files)


def _entries(folder: Path, root: Path) -> tuple[list[Path], list[Path]]:
    """The folders and the pictures in `folder`, by name."""
    folders, pictures = [], []
    with reading(folder, "a folder that can be read"):
        for path in sorted(folder.iterdir()):
            if path.name.startswith("."):
                continue
            if path.is_dir():
                if path.is_symlink():
                    raise refused(path, "a link to a folder", "the folder itself")
                folders.append(path)
            elif path.suffix.lower() in _PICTURES:
                pictures.append(regular(inside(path, root)))
            elif path.suffix.lower() not in _NOTES:
                raise refused(path, f"a {path.suffix} file", f"{', '.join(_PICTURES)}, or notes as .txt and .json")
    return folders, pictures
