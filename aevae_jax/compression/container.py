"""The bytes of an .aev file: a header, chunks one after another, and a trailer. docs/aev.md describes them one by one.

What is written needs no seeking, so that it may go into a pipe. What is read is believed only as far as a checksum and
a limit go: every size is compared with both before memory is taken. Knows bytes alone: no model and no array.
"""

from __future__ import annotations

import contextlib
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from aevae_jax.types import InputError

MAGIC = b"\x89AEV\r\n\x1a\n"
"""How a file begins. As that of PNG, it is damaged by whoever takes it for text, or for 7 bits."""

VERSION = 1
LARGEST_HEADER = 1024
"""Bytes of a header, at most."""

MOST_ELEMENTS = 2**26
"""Elements of a chunk, at most, each of up to 8 bytes once it is decoded."""

MOST_CHUNKS = 2**20
"""Chunks of a file, at most: each has 16 bytes in a table that is held."""

MOST_SAMPLES = 32
"""Codes, at most, of which one is chosen for an image."""

MOST_LEVELS = 2**16
MOST_AXES = 8

MAPPINGS = ("symbol", "255 * symbol", "symbol / (levels - 1)")
"""What an element of a chunk is, given its symbol; the number of one stands in each chunk."""

_WIDE = ("u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")
TYPES = ("|b1", "|u1", "|i1", *(f"<{kind}" for kind in _WIDE), *(f">{kind}" for kind in _WIDE))
"""Types of elements as NumPy writes them: order of the bytes, kind, size. The number of one stands in the header."""

_FIXED = struct.Struct("<8sHH32s32sQIIBB")
"""Magic, version, length of the header, model, run, count, rows of a chunk, levels, type, number of axes."""

_FRAME, _FRAME_MAGIC = struct.Struct("<4sIIIBxxx16s4s"), b"AEVC"
"""Magic, index, rows, bytes of the payload, mapping, digest of the rows, and the checksum that ends the file's header:
so that no chunk is taken for one of another file. (The CRC-32 of bytes that end with theirs is the same for all.)"""

_ENTRY = struct.Struct("<QII")
"""The entry of a chunk in the table: where it begins, bytes of its payload, checksum of its payload."""

_TRAILER, _END = b"AEVT", b"AEVE"
_CRC = struct.Struct("<I")
FRAME_BYTES = _FRAME.size + _CRC.size
_BLOCK = 2**20


@dataclass(frozen=True)
class Header:
    """What a file says of its contents before them.

    Args:
      model: sha256 in hex of the model that decodes it.
      run: digest in hex of the run that the model was taken from; empty where there is none.
      count: rows in all.
      rows: of each chunk but the last, which has the rest.
      levels: symbols are 0 to `levels - 1`.
      dtype: of the elements, as NumPy writes it: `|u1`, `<f4`.
      shape: of a row, as it was stored.
      name: of the array in its .npz file; empty where it had none.

    Raises:
      InputError: numbers beyond the limits of this file.
    """

    model: str
    run: str
    count: int
    rows: int
    levels: int
    dtype: str
    shape: tuple[int, ...]
    name: str = ""

    def __post_init__(self) -> None:
        """Refuse what no file may say."""
        _check("number of images", self.count, 2**40)
        _check("axes of an image", len(self.shape), MOST_AXES)
        for size in self.shape:
            _check("size of an image", size, MOST_ELEMENTS)
        _check("elements of an image", self.elements, MOST_ELEMENTS)
        _check("images in a chunk", self.rows, MOST_ELEMENTS // self.elements)
        _check("chunks", self.chunks, MOST_CHUNKS)
        _check("levels", self.levels, MOST_LEVELS, least=2)
        if self.dtype not in TYPES:
            raise refused(f"elements of type {self.dtype!r}", "bool, integers, float32 or float64")
        if len(self.name.encode()) > 255:
            raise refused("an array with a long name", "at most 255 bytes")

    @property
    def elements(self) -> int:
        """Elements of a row."""
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return int(self.dtype[2:])

    @property
    def nbytes(self) -> int:
        """Bytes of all rows as they were stored."""
        return self.count * self.elements * self.itemsize

    @property
    def chunks(self) -> int:
        """How many chunks there are."""
        return -(-self.count // self.rows)

    def rows_in(self, index: int) -> int:
        """Return how many rows chunk `index` has."""
        return min(self.rows, self.count - index * self.rows)

    def largest_payload(self, index: int) -> int:
        """Return how many bytes the payload of chunk `index` may have: far more than a code of raw symbols takes."""
        return 4 * self.elements * self.rows_in(index) + 2**16

    def largest_file(self, header: int) -> int:
        """Return how many bytes a file may have whose header has so many."""
        payloads = (self.chunks - 1) * self.largest_payload(0) + self.largest_payload(self.chunks - 1)
        return header + self.chunks * (FRAME_BYTES + _CRC.size) + payloads + trailer_bytes(self.chunks, header)

    def to_bytes(self) -> bytes:
        """Return the header as it stands at the beginning of a file."""
        kind, name = TYPES.index(self.dtype), self.name.encode()
        sizes = struct.pack(f"<{len(self.shape)}I", *self.shape)
        length = _FIXED.size + len(sizes) + 1 + len(name) + _CRC.size
        keys = bytes.fromhex(self.model), bytes.fromhex(self.run or "0" * 64)
        fixed = _FIXED.pack(MAGIC, VERSION, length, *keys, self.count, self.rows, self.levels, kind, len(self.shape))
        return sealed(fixed + sizes + bytes([len(name)]) + name)

    @classmethod
    def from_bytes(cls, raw: bytes) -> Header:
        """Return the header that is written so.

        Raises:
          InputError: it is damaged, of another version, or beyond the limits of this file.
        """
        if not intact(raw) or len(raw) < _FIXED.size:
            raise refused("a damaged header", "an intact file", hint="--recover reads the copy at its end")
        _, version, _, model, run, count, rows, levels, kind, axes = _FIXED.unpack_from(raw)
        if version != VERSION:
            raise refused(f"version {version} of the format", f"{VERSION}", hint="a newer aevae_jax reads it")
        try:
            shape = struct.unpack_from(f"<{axes}I", raw, _FIXED.size)
            length, name = raw[_FIXED.size + 4 * axes], raw[_FIXED.size + 4 * axes + 1 : -_CRC.size]
            if len(name) != length:
                raise ValueError("lengths that do not add up")
            text, dtype = name.decode(), TYPES[kind]
        except (ValueError, struct.error, IndexError) as error:
            raise refused(f"a header that no writer makes ({error})", "one that is written by aevae_jax") from None
        return cls(model.hex(), run.hex() if any(run) else "", count, rows, levels, dtype, shape, text)


class Chunk(NamedTuple):
    """Rows that are coded together, and decodable without the others."""

    number: int
    mapping: int
    """A number of `MAPPINGS`."""
    digest: bytes
    """The first 16 bytes of the sha256 of the header and the rows as they were stored."""
    payload: bytes


class Trailer(NamedTuple):
    """What a file says of its contents behind them."""

    table: tuple[tuple[int, int, int], ...]
    """Where each chunk begins, the bytes of its payload and their checksum."""
    sha256: bytes
    """The digest of all rows as they were stored."""
    header: bytes
    """A copy."""


# ------------------------------------------------------------------------------------------------------------ writing


class Writer:
    """Writes a file from its beginning to its end; what it writes to need not be able to seek.

    Args:
      file: where to; nothing else may have been written to it.
      header: of the file.
    """

    def __init__(self, file: BinaryIO, header: Header):
        self._file, self._header, self._raw = file, header, header.to_bytes()
        self._table: list[tuple[int, int, int]] = []
        self._file.write(self._raw)
        self.size = len(self._raw)
        """Bytes that are written."""

    def add(self, mapping: int, digest: bytes, payload: bytes) -> None:
        """Write the next chunk. Raises `InputError` where its payload is larger than a reader allows."""
        index = len(self._table)
        _check("bytes of a chunk", len(payload), self._header.largest_payload(index), least=0)
        rows = self._header.rows_in(index)
        frame = _FRAME.pack(_FRAME_MAGIC, index, rows, len(payload), mapping, digest[:16], self._raw[-4:])
        self._table.append((self.size, len(payload), zlib.crc32(payload)))
        self._write(sealed(frame), payload, _CRC.pack(zlib.crc32(payload)))

    def finish(self, sha256: bytes) -> None:
        """Write the trailer, with the sha256 of all rows."""
        if len(self._table) != self._header.chunks:
            raise refused(f"{len(self._table):,} chunks to write", f"{self._header.chunks:,}")
        table = b"".join(_ENTRY.pack(*entry) for entry in self._table)
        trailer = sealed(_TRAILER + _CRC.pack(len(self._table)) + table + sha256 + self._raw)
        self._write(trailer, _CRC.pack(len(trailer) + 8), _END)

    def _write(self, *parts: bytes) -> None:
        for part in parts:
            self._file.write(part)
            self.size += len(part)


# ------------------------------------------------------------------------------------------------------------ reading


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """Say in a line that a file cannot be read, where the system says so."""
    try:
        yield
    except OSError as error:
        raise refused(f"a file that cannot be read ({error.strerror or error})", "a readable one") from None


class Frame(NamedTuple):
    """What stands before the payload of a chunk."""

    number: int
    size: int
    """Bytes of the payload."""
    mapping: int
    digest: bytes


class Reader:
    """Reads a file from its beginning to its end, and refuses the first thing that is not as it was written.

    Args:
      file: open at its beginning; need not be able to seek.

    Raises:
      InputError: it does not begin with a header.
    """

    def __init__(self, file: BinaryIO):
        self._file = file
        raw = read_header(file)
        self.header = Header.from_bytes(raw)
        self._raw, self._at, self._table = raw, len(raw), list[tuple[int, int, int]]()
        self.size = 0
        """Bytes of the file, once it is read to its end."""

    @reading()
    def chunk(self) -> Chunk:
        """Read the next of the header's `chunks`. Raises `InputError` where it is damaged, missing or another."""
        index = len(self._table)
        first = index * self.header.rows
        rows = f"images {first:,} to {first + self.header.rows_in(index) - 1:,}"
        hint = "--recover gives the others"
        frame = parse_frame(exactly(self._file, FRAME_BYTES), self.header, self._raw[-4:])
        if frame is None or frame.number != index:
            raise refused(f"damage at the chunk of {rows}", "an intact file", hint=hint)
        payload = exactly(self._file, frame.size)
        [crc] = _CRC.unpack(exactly(self._file, _CRC.size))
        if zlib.crc32(payload) != crc:
            raise refused(f"damage in the chunk of {rows}", "an intact file", hint=hint)
        self._table.append((self._at, frame.size, crc))
        self._at += FRAME_BYTES + frame.size + _CRC.size
        return Chunk(index, frame.mapping, frame.digest, payload)

    @reading()
    def finish(self) -> Trailer:
        """Read the trailer, once all chunks are read. Raises `InputError` where it does not say what was read."""
        size = trailer_bytes(self.header.chunks, len(self._raw))
        trailer = parse_trailer(exactly(self._file, size))
        if trailer is None or trailer.header != self._raw or trailer.table != tuple(self._table):
            raise refused("a damaged trailer", "an intact file", hint="--recover does without it")
        if self._file.read(1):
            raise refused("more bytes behind the trailer", "an end")
        self.size = self._at + size
        return trailer


@reading()
def read_header(file: BinaryIO) -> bytes:
    """Return the bytes of the header that a file begins with, whatever is in it."""
    start = file.read(12)
    if start[: len(MAGIC)] != MAGIC:
        raise refused(f"a file that begins with {start[:8].hex(' ') or 'nothing'}", "an .aev file")
    length = int.from_bytes(start[10:], "little")
    if not len(start) < length <= LARGEST_HEADER:
        raise refused("a damaged header", "an intact file", hint="--recover reads the copy at its end")
    return start + exactly(file, length - len(start))


def exactly(file: BinaryIO, size: int) -> bytes:
    """Read so many bytes, no more memory being taken than there are. Raises `InputError` where the file ends."""
    parts, left = list[bytes](), size
    while left:
        part = file.read(min(left, _BLOCK))
        if not part:
            raise refused(f"an end {left:,} bytes too early", "an intact file", hint="--recover reads what is there")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def parse_frame(raw: bytes, header: Header, seal: bytes) -> Frame | None:
    """Return the frame that is written so, if it is intact and of the file whose header ends with `seal`."""
    if raw[:4] != _FRAME_MAGIC or len(raw) != FRAME_BYTES or not intact(raw):
        return None
    _, index, rows, size, mapping, digest, owner = _FRAME.unpack_from(raw)
    sound = owner == seal and index < header.chunks and mapping < len(MAPPINGS)
    if not sound or rows != header.rows_in(index) or size > header.largest_payload(index):
        return None
    return Frame(index, size, mapping, digest)


def trailer_bytes(chunks: int, header: int) -> int:
    """Return how long the trailer is of a file with so many chunks and so many bytes of header."""
    return 4 + 4 + chunks * _ENTRY.size + 32 + header + 3 * 4


def parse_trailer(raw: bytes) -> Trailer | None:
    """Return the trailer that is written so, if it is intact."""
    body, end = raw[:-8], raw[-8:]
    if end != _CRC.pack(len(raw)) + _END or body[:4] != _TRAILER or not intact(body):
        return None
    [chunks] = _CRC.unpack_from(body, 4)
    after = 8 + chunks * _ENTRY.size
    if chunks > MOST_CHUNKS or len(body) < after + 32 + _CRC.size:
        return None
    table = tuple(_ENTRY.iter_unpack(body[8:after]))
    return Trailer(table, body[after : after + 32], body[after + 32 : -_CRC.size])  # type: ignore[arg-type]


def sealed(raw: bytes) -> bytes:
    """Return bytes with their CRC-32 behind them."""
    return raw + _CRC.pack(zlib.crc32(raw))


def intact(raw: bytes) -> bool:
    """Return whether bytes end with their CRC-32."""
    return sealed(raw[: -_CRC.size]) == raw


def refused(got: str, expected: str, hint: str = "") -> InputError:
    """Return what is said of a file that cannot be used."""
    return InputError(".aev file", got=got, expected=expected, hint=hint)


def _check(what: str, got: int, most: int, *, least: int = 1) -> None:
    if not least <= got <= most:
        raise InputError(what, got=f"{got:,}", expected=f"{least:,} to {most:,}")
