"""How arrays lie in files that are not compressed, how their rows are read, and what is said of damaged files."""

from __future__ import annotations

import contextlib
import io
import math
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.lib import format

from aevae_jax import durable
from aevae_jax.data import datasets
from aevae_jax.data.datasets import Source
from aevae_jax.types import InputError

MAX_HEADER = 2**14
"""A .npy header is looked for in the first 16 KiB."""


class Layout(NamedTuple):
    """How an array lies in its file: from `offset` to the end."""

    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int
    fortran: bool = False

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class FileRows:
    """Rows of an array in a file, read when they are asked for: a `Source`.

    They are read, not mapped: where a file is cut short meanwhile, reading is an error of one line, and a mapping would
    end the process. The file stays open, so that another one of its name is not taken for it.

    Args:
      path: the file.
      shape, dtype: of the array.
      offset: where it begins, in bytes.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype, offset: int):
        self.path, self.shape, self.dtype, self.offset = path, shape, dtype, offset
        self._row_bytes = math.prod(shape[1:]) * dtype.itemsize
        self._file = durable.open_regular(path, what="data")
        weakref.finalize(self, self._file.close)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Return rows at a slice, or at indices from 0 on, in that order. Raises `IndexError` for indices beyond the
        end.
        """
        indices = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else np.asarray(rows, np.int64)
        if indices.size and not 0 <= indices.min() <= indices.max() < len(self):
            raise IndexError(f"rows {indices.min()} to {indices.max()} of {len(self)}")
        out = np.empty((len(indices), *self.shape[1:]), self.dtype)
        if not out.size:
            return out
        order = np.argsort(indices, kind="stable")  # in the order of the file
        together = (np.diff(indices[order]) == 1) & (np.diff(order) == 1)  # neighbours there and here are read at once
        firsts = np.flatnonzero(np.append(True, ~together))
        counts = np.diff(firsts, append=len(order))
        sources, places, sizes = (
            (rows * self._row_bytes).tolist() for rows in (indices[order[firsts]], order[firsts], counts)
        )
        view, file, offset = out.reshape(-1).view(np.uint8).data, self._file.fileno(), self.offset
        with reading(self.path, "the file as it was before"):
            for source, place, size in zip(sources, places, sizes, strict=True):
                done = os.preadv(file, [view[place : place + size]], offset + source)
                while done < size:  # a signal came, or more was asked for than one call reads
                    more = os.preadv(file, [view[place + done : place + size]], offset + source + done)
                    if not more:
                        raise EOFError("it has been cut short")
                    done += more
        return out


def rows_of(file: Any, path: Path, layout: Layout) -> Source:
    """Return the array in a file that is not compressed: in memory, or if it is too large for that, read by rows."""
    if layout.nbytes <= datasets.RESIDENT_BYTES:
        with reading(path, "an intact file"):
            file.seek(layout.offset)
            return read_all(file, layout)
    if layout.fortran:
        raise refused(
            path,
            "columns before rows (Fortran order)",
            "rows before columns, to be read row by row",
            "save it with np.save(path, np.ascontiguousarray(x))",
        )
    return FileRows(path, layout.shape, layout.dtype, layout.offset)


def read_all(file: Any, layout: Layout) -> np.ndarray:
    """Return the array that `file` holds from where it stands to its end. A megabyte at a time: zip and gzip copy
    it.
    """
    out = np.empty(layout.nbytes, np.uint8)
    view, done = out.data, 0
    while done < len(out):
        count = file.readinto(view[done : done + 2**20])
        if not count:
            raise EOFError(f"{done} bytes of {len(out)}")
        done += count
    if file.read(1):  # this also makes gzip and zip compare their checksums
        raise ValueError("more bytes than its header claims")
    x = out.view(layout.dtype)
    return np.ascontiguousarray(x.reshape(layout.shape[::-1]).T) if layout.fortran else x.reshape(layout.shape)


def read_npy(path: Path) -> Source:
    """Read a .npy file, in memory or, if it is too large for that, by rows."""
    with durable.open_regular(path, what="data") as file:
        return read_open(file, path)


def read_open(file: BinaryIO, path: Path) -> Source:
    """Read the array of a .npy file, `path`, that is open at its beginning."""
    with reading(path, "an intact .npy file"):
        layout = npy_layout(file.read(MAX_HEADER), os.fstat(file.fileno()).st_size, path)
    return rows_of(file, path, layout)


def npy_layout(head: bytes, size: int | None, where: object) -> Layout:
    """Return what the header of a .npy file of `size` bytes claims, if the file has it; `head` is how it begins. The
    size of a stream is `None`: it is seen at its end.
    """
    file = io.BytesIO(head)  # NumPy would read as long a header as the file claims to have
    with reading(where, "an intact .npy header"):
        version = format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version} of the format")
        read = format.read_array_header_1_0 if version == (1, 0) else format.read_array_header_2_0
        shape, fortran, dtype = read(file, max_header_size=MAX_HEADER)
    if dtype.kind not in "iuf" or not shape or min(shape) < 0:
        hint = "save it with x.astype(np.uint8)" if dtype.kind == "b" else ""
        raise refused(
            where, f"an array of type {dtype} and shape {shape}", "uint8, floats, or integers for labels", hint
        )
    layout = Layout(shape, dtype, file.tell(), fortran)
    return layout if size is None else checked(layout, size, where)


def checked(layout: Layout, size: int, where: object) -> Layout:
    """Return `layout`, if a file of `size` bytes ends where it does."""
    claim = layout.offset + layout.nbytes
    if claim != size:
        raise refused(where, f"{size} bytes", f"the {claim} that its header claims")
    return layout


# --------------------------------------------------------------------------------------------- what is said of files


def refused(where: object, got: str, expected: str, hint: str = "") -> InputError:
    """Return what is said of a file or folder that cannot be used."""
    return InputError("data", where=str(where), got=got, expected=expected, hint=hint)


@contextlib.contextmanager
def reading(where: object, expected: str) -> Iterator[None]:
    """Turn whatever goes wrong while a file is read into one line: damage shows as whatever its reader then raises."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        got = f"something unreadable ({type(error).__name__}: {error})"
        raise refused(where, got, expected) from error


def inside(path: Path, folder: Path) -> Path:
    """Return `path`, unless it is a link out of `folder`."""
    end = Path(os.path.realpath(path))  # Path.resolve raises where links lead in a circle
    if path.is_symlink() and not end.is_relative_to(os.path.realpath(folder)):
        raise refused(path, f"a link to {end}", "files, or links to files in the same folder")
    return path


def regular(path: Path) -> Path:
    """Return `path`, if it is a file that ends."""
    if not os.path.isfile(path):
        raise refused(path, "a pipe, a device or a broken link", "a file")
    return path
