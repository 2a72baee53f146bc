"""What is left of an .aev file that is damaged: the chunks that are found to be intact, wherever they lie in it.

A chunk says itself which rows it has, of which file, and has two checksums, so neither what stands before it nor the
table is needed; bytes that were lost or put in between cost the chunks that they hit.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from aevae_jax.compression import container
from aevae_jax.compression.container import Chunk, Frame, Header, Trailer
from aevae_jax.types import InputError

_WINDOW = 2**16
_WORK = 16
"""What is compared with checksums may be so many times as long as the file, in all: a forged one could make it long."""


class Found(NamedTuple):
    """What is intact in a file."""

    header: Header
    places: dict[int, tuple[int, Frame]]
    """Of each chunk that is, by its index, where its payload begins, and what stands before that."""
    trailer: Trailer | None
    """`None` where it is damaged: then nothing says what the sha256 of all rows is."""

    @property
    def lost(self) -> tuple[tuple[int, int], ...]:
        """The first and the last row of each stretch of rows that are not there."""
        return stretches(self.header, set(range(self.header.chunks)) - self.places.keys())


def stretches(header: Header, chunks: set[int]) -> tuple[tuple[int, int], ...]:
    """Return the first and the last row of each stretch that some chunks hold."""
    found = list[tuple[int, int]]()
    for index in sorted(chunks):
        first = index * header.rows
        last = first + header.rows_in(index) - 1
        if found and found[-1][1] == first - 1:
            found[-1] = (found[-1][0], last)
        else:
            found.append((first, last))
    return tuple(found)


def look(file: BinaryIO) -> Found:
    """Return what is intact in a file that can seek. Raises `InputError` where no header is, neither of two."""
    size = file.seek(0, os.SEEK_END)
    trailer = _trailer(file, size)
    file.seek(0)
    try:
        raw = container.read_header(file)
        header = Header.from_bytes(raw)
    except InputError:
        if trailer is None:
            raise
        raw = trailer.header
        header = Header.from_bytes(raw)
    if trailer is not None and (trailer.header != raw or len(trailer.table) != header.chunks):
        trailer = None  # another file's
    places, at, work = dict[int, tuple[int, Frame]](), 0, _WORK * size
    while found := _next_frame(file, header, raw[-4:], at):
        at, frame = found
        work -= frame.size
        if work < 0:
            break
        payload_at = at + container.FRAME_BYTES
        crc = _crc(file, payload_at, frame.size)
        if crc is not None and frame.number not in places and _listed(trailer, frame, crc):
            places[frame.number] = (payload_at, frame)
            at = payload_at + frame.size
        else:
            at += 1
    return Found(header, places, trailer)


def chunk(file: BinaryIO, found: Found, index: int) -> Chunk | None:
    """Return a chunk of a file; `None` where it is lost, by now or from the beginning."""
    if index not in found.places:
        return None
    at, frame = found.places[index]
    file.seek(at)
    payload = file.read(frame.size)
    return Chunk(index, frame.mapping, frame.digest, payload) if len(payload) == frame.size else None


def _listed(trailer: Trailer | None, frame: Frame, crc: int) -> bool:
    """Return whether the table, if there is one, has a chunk of this payload: another file's may have been put here."""
    return trailer is None or trailer.table[frame.number][1:] == (frame.size, crc)


def _next_frame(file: BinaryIO, header: Header, seal: bytes, start: int) -> tuple[int, Frame] | None:
    """Return the first intact frame from `start` on, and where it begins."""
    for at, window in _windows(file, start):
        place = window.find(b"AEVC")
        while place >= 0:
            raw = window[place : place + container.FRAME_BYTES]
            if frame := container.parse_frame(raw, header, seal):
                return at + place, frame
            place = window.find(b"AEVC", place + 1)
    return None


def _windows(file: BinaryIO, start: int) -> Iterator[tuple[int, bytes]]:
    """Yield stretches of a file and where they begin; each has the end of the one before, where a frame may begin."""
    at, overlap = start, container.FRAME_BYTES - 1
    while True:
        file.seek(at)
        window = file.read(_WINDOW)
        if window:
            yield at, window
        if len(window) < _WINDOW:
            return
        at += _WINDOW - overlap


def _crc(file: BinaryIO, at: int, size: int) -> int | None:
    """Return the checksum of a payload, if it is the one that stands behind it."""
    file.seek(at)
    crc = 0
    with contextlib.suppress(InputError):
        while size:
            part = container.exactly(file, min(size, _WINDOW))
            crc, size = zlib.crc32(part, crc), size - len(part)
        return crc if container.exactly(file, 4) == crc.to_bytes(4, "little") else None
    return None


def _trailer(file: BinaryIO, size: int) -> Trailer | None:
    """Return what a file ends with, if that is an intact trailer."""
    file.seek(max(0, size - 8))
    length = int.from_bytes(file.read(8)[:4], "little")
    if not 8 < length <= min(size, container.trailer_bytes(container.MOST_CHUNKS, container.LARGEST_HEADER)):
        return None
    file.seek(size - length)
    return container.parse_trailer(file.read(length))
