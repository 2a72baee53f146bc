"""What is left of an .aev file that is damaged: the chunks that are found to be intact, wherever they lie in it.

A chunk says itself which rows it has, of which file, and has two checksums, so neither what stands before it nor the
table is needed; bytes that were lost or put in between cost the chunks that they hit.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterable
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
    """Where the payload of each intact chunk begins, and what stands before it, by the index of the chunk."""
    trailer: Trailer | None
    """`None` where it is damaged: then nothing says what the sha256 of all rows is."""


def lost(header: Header, present: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Return the first and the last row of each stretch of rows that none of some chunks has."""
    found, end = list[tuple[int, int]](), 0
    for number in sorted(present):
        first = number * header.rows
        if first > end:
            found.append((end, first - 1))
        end = first + header.rows_in(number)
    return (*found, (end, header.count - 1)) if end < header.count else tuple(found)


@container.reading()
def look(file: BinaryIO) -> Found:
    """Return what is intact in a file that can seek.

    Raises:
      InputError: neither its header nor the copy of it is, or it cannot be read.
    """
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
    most = min(size, 2 * header.largest_file(len(raw)))  # what is longer is no file of this header
    places, at, work = dict[int, tuple[int, Frame]](), 0, _WORK * most
    scan = _Scan(file, header, raw[-4:], most)
    while found := scan.next(at):
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


@container.reading()
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


class _Scan:
    """Looks for intact frames in a file, from its beginning to its end, and reads little more than once."""

    def __init__(self, file: BinaryIO, header: Header, seal: bytes, most: int):
        self._file, self._header, self._seal, self._most = file, header, seal, most
        self._at, self._window = 0, b""

    def next(self, start: int) -> tuple[int, Frame] | None:
        """Return the first frame from `start` on, and where it begins; `start` is never less than before."""
        while True:
            place = self._window.find(b"AEVC", max(0, start - self._at))
            if place >= 0 and place + container.FRAME_BYTES <= len(self._window):
                raw = self._window[place : place + container.FRAME_BYTES]
                if frame := container.parse_frame(raw, self._header, self._seal):
                    return self._at + place, frame
                start = self._at + place + 1
            else:  # what is not looked at yet, and where a frame may have begun
                start = max(start, self._at + max(0, len(self._window) - container.FRAME_BYTES + 1))
                self._file.seek(start)
                self._at, self._window = start, self._file.read(min(_WINDOW, max(0, self._most - start)))
                if len(self._window) < container.FRAME_BYTES:
                    return None


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
