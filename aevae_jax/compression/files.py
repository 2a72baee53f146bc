"""The files that images are compressed from and decompressed to: .npy, .npz, idx, folders of pictures, and streams.

What is kept is the array: its values, their type and the shape of it, bit for bit, and the name that it had in an .npz
file. What else lies beside it, such as labels, is not, nor are the names of pictures and how a file was packed.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import re
import secrets
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
from numpy.lib import format

from aevae_jax import durable, memory
from aevae_jax.compression import container
from aevae_jax.compression.container import Header
from aevae_jax.data import arrays, pictures, rows as layouts
from aevae_jax.data.datasets import Source
from aevae_jax.types import InputError

STREAM = Path("-")
"""Standard input or standard output."""

Write = Callable[[int, np.ndarray], None]
"""Takes the number of the first row of a stretch, and its rows; stretches come in order, and may leave rows out."""

_IDX = re.compile(r".*\bidx\d?\b.*ubyte(\.gz)?|.*\.idx(\.gz)?", re.IGNORECASE)
_EXPECTED = ".npy, .npz, an idx file (images-idx3-ubyte, also .gz) or a folder of pictures"


class Rows(NamedTuple):
    """Images that are read once, in order."""

    shape: tuple[int, ...]
    """`[N, ...]`."""
    dtype: np.dtype
    name: str
    """What the array is called in its .npz file; empty where it has no name."""
    blocks: Callable[[int], Iterator[np.ndarray]]
    """Yields blocks of so many rows, the last with the rest; contiguous."""
    left: str = ""
    """What is not kept, in words; empty where nothing is left out."""


# ------------------------------------------------------------------------------------------------------------ reading


def of_array(x: Source, name: str = "", left: str = "") -> Rows:
    """Return the rows of an array, or of what is read like one."""

    def blocks(size: int) -> Iterator[np.ndarray]:
        for start in range(0, len(x), size):
            yield np.ascontiguousarray(x[start : start + size])

    return Rows(tuple(x.shape), np.dtype(x.dtype), name, blocks, left)


def read(path: Path, event_shape: tuple[int, ...], array: str = "") -> Rows:
    """Return the images in a file or folder.

    Args:
      path: .npy, .npz, an idx file, a picture, or a folder of pictures in the order of their names.
      event_shape: what pictures must have: none is scaled, cropped or turned to grey.
      array: which array of an .npz file; empty for its only one, or the one called `images`.

    Raises:
      InputError: another kind of file, a damaged one, or pictures of another size.
    """
    suffix = path.suffix.lower()
    if os.path.isdir(path) or suffix in pictures.SUFFIXES:
        return of_array(pictures.read_exactly(path, event_shape), left="names, classes and labels of pictures")
    if suffix == ".npy":
        return of_array(layouts.read_npy(path))
    if suffix == ".npz":
        name, x, others = arrays.read_named(path, array or "images", "--array")
        if array and name != array:
            expected, hint = f"{name}, the only one there", "leave it out"
            raise InputError("--array", where=str(path), got=array, expected=expected, hint=hint)
        return of_array(x, name, f"the arrays {', '.join(others)}" if others else "")
    if _IDX.fullmatch(path.name):
        return of_array(arrays.read_idx_images(path), left="labels, which idx files have beside them,")
    raise InputError("input", where=str(path), got=f"a file called {path.name}", expected=_EXPECTED)


def read_stream(file: BinaryIO) -> Rows:
    """Return the images in a stream, an .npy or idx file from its beginning to its end, which is never held whole.

    Raises:
      InputError: something else, columns before rows, or a header that is damaged.
    """
    start = file.read(4)
    with layouts.reading("-", "an .npy or idx file"):
        if start == bytes((0, 0, 8, 3)):
            layout = layouts.Layout(struct.unpack(">3I", _all(file, 12, "its header")), np.dtype(np.uint8), 16)
        else:
            layout = _npy_layout(start, file)
    if layout.fortran:
        raise InputError("input", got="columns before rows (Fortran order)", expected="rows before columns")
    if layout.shape[0] == 0:
        raise InputError("images", got="none", expected="at least 1")
    size = layout.nbytes // layout.shape[0]

    def blocks(count: int) -> Iterator[np.ndarray]:
        for first in range(0, layout.shape[0], count):
            n = min(count, layout.shape[0] - first)
            raw = _all(file, n * size, f"image {first:,} of {layout.shape[0]:,}")
            yield np.frombuffer(raw, layout.dtype).reshape(n, *layout.shape[1:])
        if file.read(1):
            raise InputError("input", got="more bytes than its header claims", expected="an end")

    return Rows(layout.shape, layout.dtype, "", blocks)


def _npy_layout(start: bytes, file: BinaryIO) -> layouts.Layout:
    """Return what the header of an .npy file says that comes in a stream, of which 4 bytes have been read."""
    head = start + file.read(8 if start != b"" else 0)
    wide = head[6:7] != b"\x01"
    length = int.from_bytes(head[8 : 12 if wide else 10], "little")
    if head[:6] != format.MAGIC_PREFIX or length > layouts.MAX_HEADER:
        raise ValueError(f"it begins with {head[:8].hex(' ') or 'nothing'}")
    head += _all(file, length - (0 if wide else 2), "its header")
    return layouts.npy_layout(head, None, "-")


def _all(file: BinaryIO, size: int, where: str) -> bytearray:
    """Read so many bytes of a stream, or say where it ends."""
    try:
        return bytearray(container.exactly(file, size))
    except InputError:
        raise InputError("input", got=f"an end at {where}", expected="as many as its header claims") from None


# ------------------------------------------------------------------------------------------------------------ writing


def check_output(path: Path, header: Header) -> None:
    """Refuse a name under which these images cannot be written, before any work is done. Raises `InputError`."""
    kind = kind_of(path)
    bytes_alone = header.dtype == "|u1"
    if kind == "idx" and not (bytes_alone and _grey(header.shape)):
        raise InputError("output", got=f"idx for {_described(header)}", expected=".npy, or uint8 of one channel")
    if kind == "pictures" and not (bytes_alone and _picture(header.shape)):
        raise InputError("output", got=f"pictures of {_described(header)}", expected=".npy, or uint8, grey or RGB")


def kind_of(path: Path) -> str:
    """Return what a name says that is written: `npy`, `npz`, `idx` or `pictures`. Raises `InputError`."""
    if path == STREAM or path.suffix == ".npy":
        return "npy"
    if path.suffix == ".npz":
        return "npz"
    if _IDX.fullmatch(path.name):
        return "idx"
    if path.suffix == "":
        return "pictures"
    expected = ".npy, .npz, an idx file (such as images-idx3-ubyte), or a folder without a suffix"
    raise InputError("output", got=path.name, expected=expected)


@contextlib.contextmanager
def writing(path: Path, header: Header, stream: BinaryIO | None = None) -> Iterator[Write]:
    """Open what images are written to: it appears whole or not at all, but in a stream, as they come.

    Rows that are left out are zeros; of pictures, there are none of them.

    Args:
      path: accepted by `check_output`; `STREAM` for .npy into the stream.
      header: of the images.
      stream: standard output, where `STREAM` is written.

    Yields:
      What takes them.
    """
    kind = kind_of(path)
    if stream is not None:
        with _array(stream, header) as write:
            yield write
    elif kind == "pictures":
        with _pictures(path, header) as write:
            yield write
    else:
        with durable.replacing(path) as file, _packed(kind, path, file, header) as inner:
            start = _idx_header(header) if kind == "idx" else _npy_header(header)
            with _array(inner, header, start) as write:
                yield write


@contextlib.contextmanager
def _packed(kind: str, path: Path, file: BinaryIO, header: Header) -> Iterator[BinaryIO]:
    """Open what an array is written to within a file: the file itself, a member of .npz, or gzip."""
    if kind == "npz":
        member = f"{header.name or 'images'}.npy"
        with zipfile.ZipFile(file, "w") as archive:
            info = zipfile.ZipInfo(member)  # of 1980: no file tells when it was written
            with archive.open(info, "w", force_zip64=True) as inner:
                yield cast(BinaryIO, inner)
    elif path.suffix.lower() == ".gz":
        with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as zipped:
            yield cast(BinaryIO, zipped)
    else:
        yield file


@contextlib.contextmanager
def _array(file: BinaryIO, header: Header, start: bytes | None = None) -> Iterator[Write]:
    """Write an array row by row behind what announces it; rows that are left out are zeros."""
    done, row = 0, header.elements * header.itemsize
    file.write(_npy_header(header) if start is None else start)

    def skip(to: int) -> None:
        nonlocal done
        while done < to:
            n = min(to - done, max(1, 2**20 // row))
            file.write(bytes(n * row))
            done += n

    def write(first: int, rows: np.ndarray) -> None:
        nonlocal done
        skip(first)
        file.write(cast(bytes, np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data))
        done += len(rows)

    yield write
    skip(header.count)


def _npy_header(header: Header) -> bytes:
    """Return how an .npy file of these images begins, as `np.save` writes it."""
    file = io.BytesIO()
    fields = {"descr": header.dtype, "fortran_order": False, "shape": (header.count, *header.shape)}
    format.write_array_header_1_0(file, fields)
    return file.getvalue()


def _idx_header(header: Header) -> bytes:
    """Return how an idx file of these images begins: type, axes, and the size of each."""
    return bytes((0, 0, 8, 3)) + struct.pack(">3I", header.count, *header.shape[:2])


@contextlib.contextmanager
def _pictures(folder: Path, header: Header) -> Iterator[Write]:
    """Write a folder of PNG files, which are called by their numbers; it appears with all of them."""
    from PIL import Image

    part = folder.with_name(f".{secrets.token_hex(8)}{durable.PART}")
    digits = max(5, len(str(header.count - 1)))
    height, width, *channels = header.shape
    shape = (height, width) if channels in ([], [1]) else (height, width, 3)

    def write(first: int, rows: np.ndarray) -> None:
        for number, row in enumerate(rows, first):
            Image.fromarray(row.reshape(shape)).save(part / f"{number:0{digits}}.png")

    try:
        with durable.begun(part):
            part.mkdir()
            yield write
            durable.sync(part)
            part.rename(folder)
            durable.sync(folder.parent)
    except OSError as error:
        raise durable.unwritable(folder, error, what="output") from None


def _grey(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 or (len(shape) == 3 and shape[2] == 1)


def _picture(shape: tuple[int, ...]) -> bool:
    return _grey(shape) or (len(shape) == 3 and shape[2] == 3)


def _described(header: Header) -> str:
    return f"{type_name(header)} of shape {header.shape}"


def type_name(header: Header) -> str:
    """Return the type of elements as people say it: `uint8`, `float32`."""
    return np.dtype(header.dtype).name


def check_memory(header: Header, threads: int) -> None:
    """Refuse chunks that fit into no memory, as many at a time. Raises `InputError`."""
    need: Any = 2 * threads * min(header.rows, header.count) * header.elements * (header.itemsize + 2)
    memory.check(need, what="chunks", got=f"{threads} of {header.rows:,} images at a time")
