"""Arrays in pieces, those of each process in a file of its own: no process holds a whole array that is divided.

Of process 3, `3.bin` has the pieces one after the other, as they lie in memory in C order, and `3.json` says of each
which array it is of, where in that it begins, its shape, where in the file it lies, and its sha256. Whoever reads a
region of an array reads the pieces that it touches, and checks those.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aevae_jax import durable
from aevae_jax.checkpoints import array_files
from aevae_jax.checkpoints.saving import NonFiniteError
from aevae_jax.lazy import jax, jnp, np

if TYPE_CHECKING:
    from jax import ShapeDtypeStruct
    from numpy import ndarray

LARGEST_INDEX = 64 * 2**20
"""Bytes that the description of the pieces of a process may take."""


class Piece(NamedTuple):
    """A block of an array."""

    name: str
    """The name of the array."""
    start: tuple[int, ...]
    """Where in the array it begins, along each axis."""
    data: ndarray


class Described(NamedTuple):
    """Where a piece of an array lies."""

    file: str
    start: tuple[int, ...]
    shape: tuple[int, ...]
    offset: int
    """Where in the file it begins, in bytes."""
    sha256: str


def own(arrays: Mapping[str, Any], process: int) -> Iterator[Piece]:
    """Yield the pieces that a process is to write; of equal ones that several have, the first has it to write.

    Args:
      arrays: flat, as `Store.save` takes them; all processes give the same ones, each with the pieces that it has.
      process: which of them this is.
    """
    for name, array in array_files.plain(arrays).items():
        if not isinstance(array, jax.Array) or array.is_fully_addressable:  # all have it
            if process == 0:
                yield Piece(name, (0,) * array.ndim, np.asarray(array))
            continue
        for shard in array.addressable_shards:
            if shard.replica_id == 0:
                yield Piece(name, tuple(part.start or 0 for part in shard.index), np.asarray(shard.data))


def write(folder: Path, process: int, pieces: Iterable[Piece]) -> str:
    """Write the pieces of a process, durable once this returns, and return the sha256 of what describes them.

    Raises:
      NonFiniteError: NaN or infinity in an array whose name does not start with `logged/`; nothing is written then.
      InputError: a file cannot be written.
    """
    described: list[list[Any]] = []
    with durable.replacing(folder / f"{process}.bin", what="checkpoint") as file:
        for name, start, data in pieces:
            inexact = jnp.issubdtype(data.dtype, jnp.inexact) and not name.startswith("logged/")
            if inexact and not np.isfinite(data).all():
                raise NonFiniteError("checkpoint", got=f"NaN or infinity in {name}", expected="finite numbers")
            flat = np.ascontiguousarray(data).reshape(-1).view(np.uint8).data
            described.append([name, start, data.shape, file.tell(), hashlib.sha256(flat).hexdigest()])
            file.write(flat)
        size = file.tell()
    text = array_files.canonical({"pieces": described, "size": size})
    durable.write_bytes(folder / f"{process}.json", text, what="checkpoint")
    return hashlib.sha256(text).hexdigest()


def complete(folder: Path, process: int, sha256: str) -> bool:
    """Return whether the files of a process can be seen whole, as `write` left them with this sha256."""
    try:
        text, size = (folder / f"{process}.json").read_bytes(), (folder / f"{process}.bin").lstat().st_size
    except OSError:
        return False
    return hashlib.sha256(text).hexdigest() == sha256 and size == json.loads(text)["size"]


class Pieces:
    """The pieces in a folder, of which each is read where it is needed.

    Args:
      folder: where `write` put them.
      listed: the size and sha256 of each file that describes some.
      found: the size of each file that is there.

    Raises:
      ValueError: such a file is not the one that was written, or makes no sense.
    """

    def __init__(self, folder: Path, listed: Mapping[str, Any], found: Mapping[str, int]):
        self._folder = folder
        self._pieces: dict[str, list[Described]] = {}
        self._cached: tuple[str, dict[Described, ndarray]] = ("", {})
        self.sizes: dict[str, int] = {}
        """The size that each file of pieces must have."""
        for name, (size, sha256) in listed.items():
            path = folder / name
            if found.get(name) != size or size > LARGEST_INDEX or array_files.digest(path) != sha256:
                raise ValueError(f"bytes of arrays/{name} that do not match their sha256")
            contents, file = json.loads(path.read_bytes()), path.with_suffix(".bin").name
            self.sizes[file] = contents["size"]
            for of, start, shape, offset, digest in contents["pieces"]:
                described = Described(file, tuple(start), tuple(shape), offset, digest)
                self._pieces.setdefault(of, []).append(described)

    def read(self, name: str, spec: ShapeDtypeStruct, region: tuple[slice, ...]) -> ndarray:
        """Return a region of an array, read from the pieces that it touches, each of which is checked.

        Raises:
          ValueError: a piece is not as it was written, or there is none of a part of the region.
          OSError: a file cannot be read.
        """
        bounds = [part.indices(size)[:2] for part, size in zip(region, spec.shape, strict=True)]
        shape = tuple(stop - start for start, stop in bounds)
        found, filled = None, 0
        if self._cached[0] != name:  # several devices may need one piece
            self._cached = (name, {})
        for piece in self._pieces.get(name, ()):
            ends = [start + size for start, size in zip(piece.start, piece.shape, strict=True)]
            if len(ends) != len(bounds) or any(end > size for end, size in zip(ends, spec.shape, strict=True)):
                raise ValueError(f"a piece of {name} that is not within it")
            both = [(max(a, s), min(b, e)) for (a, b), s, e in zip(bounds, piece.start, ends, strict=True)]
            if any(first >= after for first, after in both):
                continue
            data = self._of(piece, spec)
            if piece.shape == shape and all(s == a for s, (a, _) in zip(piece.start, bounds, strict=True)):
                return data
            found = np.zeros(shape, spec.dtype) if found is None else found
            here = tuple(slice(first - a, after - a) for (first, after), (a, _) in zip(both, bounds, strict=True))
            there = tuple(slice(first - s, after - s) for (first, after), s in zip(both, piece.start, strict=True))
            found[here] = data[there]
            filled += math.prod(after - first for first, after in both)
        if filled != math.prod(shape):
            raise ValueError(f"pieces that do not make up {name}")
        return np.zeros(shape, spec.dtype) if found is None else found

    def _of(self, piece: Described, spec: ShapeDtypeStruct) -> ndarray:
        """Return a piece of an array of this type, read once while the same array is being read."""
        cached = self._cached[1]
        if piece not in cached:
            size = math.prod(piece.shape) * spec.dtype.itemsize
            if min(piece.start, default=0) < 0 or not 0 <= piece.offset <= self.sizes[piece.file] - size:
                raise ValueError(f"a piece beyond the end of arrays/{piece.file}")
            contents = read_bytes(self._folder / piece.file, piece.offset, size)
            if hashlib.sha256(contents.data).hexdigest() != piece.sha256:
                raise ValueError(f"bytes of arrays/{piece.file} that do not match their sha256")
            cached[piece] = contents.view(spec.dtype).reshape(piece.shape)
        return cached[piece]


def read_bytes(path: Path, offset: int, size: int) -> ndarray:
    """Return `size` bytes of a file, uint8."""
    with path.open("rb") as file:
        file.seek(offset)
        contents = np.empty(size, np.uint8)
        if file.readinto(contents.data) != size:
            raise ValueError(f"too few bytes in arrays/{path.name}")
    return contents
