"""The bytes of an .aev file: each is where the page on the format says, and none can be another unnoticed."""

from __future__ import annotations

import hashlib
import io
import random
import struct
import tracemalloc
import zlib
from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st

from aevae_jax.compression import container
from aevae_jax.compression.container import Header, Reader, Writer
from aevae_jax.types import InputError

HEADER = Header("ab" * 32, "cd" * 32, 10, 4, 17, "<f4", (3, 2), "x")
PAYLOADS = (b"first", b"", b"the last")


def written(header=HEADER, payloads=PAYLOADS):
    file = io.BytesIO()
    writer = Writer(file, header)
    for number, payload in enumerate(payloads):
        writer.add(number % 3, hashlib.sha256(payload).digest(), payload)
    writer.finish(b"s" * 32)
    assert writer.size == len(file.getvalue())
    return file.getvalue()


class Pipe(io.RawIOBase):
    """What can be read once, a few bytes at a time, and not be sought in."""

    def __init__(self, content, most=7):
        self._inner, self._most = io.BytesIO(content), most

    def read(self, size=-1):
        return self._inner.read(min(size, self._most))


def read(raw):
    reader = Reader(io.BytesIO(raw))
    chunks = [reader.chunk() for _ in range(reader.header.chunks)]
    return reader.header, chunks, reader.finish()


def test_what_is_written_is_read():
    raw = written()
    header, chunks, trailer = read(raw)
    assert header == HEADER
    assert [chunk.payload for chunk in chunks] == list(PAYLOADS)
    assert [chunk.mapping for chunk in chunks] == [0, 1, 2]
    assert [chunk.digest for chunk in chunks] == [hashlib.sha256(p).digest()[:16] for p in PAYLOADS]
    assert trailer.sha256 == b"s" * 32
    for (offset, size, crc), payload in zip(trailer.table, PAYLOADS, strict=True):
        at = offset + container.FRAME_BYTES
        assert (raw[at : at + size], crc) == (payload, zlib.crc32(payload))


def test_bytes_are_where_the_page_says():
    """Read by hand, with nothing of the library."""
    raw = written()
    magic, version, length, model, run, count, rows, levels, kind, axes = struct.unpack_from("<8sHH32s32sQIIBB", raw)
    assert (magic, version, length, count, rows, levels, axes) == (b"\x89AEV\r\n\x1a\n", 1, 108, 10, 4, 17, 2)
    assert (model, run) == (b"\xab" * 32, b"\xcd" * 32)
    assert kind == 9  # |b1 |u1 |i1 <u2 <i2 <u4 <i4 <u8 <i8 <f4
    assert struct.unpack_from("<IIB1s", raw, 94) == (3, 2, 1, b"x")[0:4]
    assert struct.unpack_from("<I", raw, length - 4)[0] == zlib.crc32(raw[: length - 4])
    at = length
    for number, payload in enumerate(PAYLOADS):
        found = struct.unpack_from("<4sIIIBxxx16s4sI", raw, at)
        assert found[:5] == (b"AEVC", number, (4, 4, 2)[number], len(payload), number)
        assert found[5] == hashlib.sha256(payload).digest()[:16]
        assert found[6] == raw[length - 4 : length]
        assert found[7] == zlib.crc32(raw[at : at + 40])
        assert raw[at + 44 : at + 44 + len(payload)] == payload
        at += 44 + len(payload)
        assert struct.unpack_from("<I", raw, at)[0] == zlib.crc32(payload)
        at += 4
    assert struct.unpack_from("<4sI", raw, at) == (b"AEVT", 3)
    after = at + 8 + 3 * 16
    assert raw[after : after + 32] == b"s" * 32
    assert raw[after + 32 : after + 32 + length] == raw[:length]
    assert struct.unpack("<II4s", raw[-12:]) == (zlib.crc32(raw[at:-12]), len(raw) - at, b"AEVE")


def test_a_pipe_serves_that_gives_few_bytes_at_a_time():
    raw = written()
    reader = Reader(Pipe(raw, 13))
    assert [reader.chunk().payload for _ in range(3)] == list(PAYLOADS)
    assert reader.finish().sha256 == b"s" * 32
    assert reader.size == len(raw)


def test_every_bit_counts():
    raw = written()
    for place in range(len(raw)):
        for bit in range(8):
            other = bytearray(raw)
            other[place] ^= 1 << bit
            with pytest.raises(InputError):
                read(bytes(other))


def test_every_cut_and_every_addition_is_noticed():
    raw = written()
    for end in range(len(raw)):
        with pytest.raises(InputError):
            read(raw[:end])
    for more in (b"\0", raw, b"x" * 5000):
        with pytest.raises(InputError, match="behind the trailer"):
            read(raw + more)


def test_chunks_of_another_file_are_not_taken():
    raw, other = written(), written(replace(HEADER, name="y"))
    assert len(raw) == len(other)
    with pytest.raises(InputError, match="images 0 to 3"):
        read(raw[:108] + other[108:])


def test_chunks_in_another_order_are_not_taken():
    raw = written(payloads=(b"first", b"other", b"the last"))
    first, second = raw[108:161], raw[161:214]
    with pytest.raises(InputError, match="images 0 to 3"):
        read(raw[:108] + second + first + raw[214:])


def test_a_trailer_that_lists_other_chunks_is_refused():
    raw, other = written(), written(payloads=(b"other", b"", b"the last"))
    end = len(raw) - container.trailer_bytes(3, 108)
    with pytest.raises(InputError, match="a damaged trailer"):
        read(raw[:end] + other[end:])


def test_a_newer_version_is_named():
    raw = bytearray(HEADER.to_bytes())
    raw[8] = 2
    with pytest.raises(InputError, match=r"version 2 of the format, expected 1; a newer aevae_jax reads it"):
        Header.from_bytes(container.sealed(bytes(raw[:-4])))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"count": 0}, "number of images: got 0"),
        ({"count": 2**41}, "number of images"),
        ({"count": 2**40, "rows": 1}, "chunks: got 1,099,511,627,776"),
        ({"rows": 0}, "images in a chunk"),
        ({"rows": 2**26}, "images in a chunk"),
        ({"levels": 1}, "levels"),
        ({"levels": 2**16 + 1}, "levels"),
        ({"dtype": "<c8"}, "elements of type '<c8'"),
        ({"dtype": "|O"}, "elements of type"),
        ({"dtype": "=f4"}, "elements of type"),
        ({"shape": ()}, "axes of an image"),
        ({"shape": (1,) * 9}, "axes of an image"),
        ({"shape": (3, 0)}, "size of an image"),
        ({"shape": (2**31, 2**31)}, "size of an image"),
        ({"shape": (2**14, 2**14)}, "elements of an image"),
        ({"name": "x" * 256}, "long name"),
    ],
)
def test_limits_hold_for_who_writes_and_who_reads(changed, said):
    with pytest.raises(InputError, match=said):
        replace(HEADER, **changed)


def forged(**changed):
    """A header with a right checksum, and numbers that no writer would put into it."""
    fields = {"count": 10, "rows": 4, "levels": 17, "kind": 9, "axes": 2, "sizes": (3, 2), "name": b"\1x", **changed}
    fixed = struct.pack(
        "<8sHH32s32sQIIBB", container.MAGIC, 1, 0, b"a" * 32, b"b" * 32,
        fields["count"], fields["rows"], fields["levels"], fields["kind"], fields["axes"],
    )  # fmt: skip
    body = fixed + struct.pack(f"<{len(fields['sizes'])}I", *fields["sizes"]) + fields["name"]
    return container.sealed(body[:10] + struct.pack("<H", len(body) + 4) + body[12:])


@pytest.mark.parametrize(
    "changed",
    [
        {"count": 2**64 - 1},
        {"count": 0},
        {"rows": 2**32 - 1},
        {"levels": 2**32 - 1},
        {"kind": 255},
        {"kind": 19},
        {"axes": 0, "sizes": ()},
        {"axes": 255},
        {"axes": 3},
        {"sizes": (2**32 - 1, 2**32 - 1)},
        {"name": b"\7x"},
        {"name": b"\1\xff"},
        {"name": b""},
    ],
)
def test_forged_headers_are_refused_before_memory_is_taken(changed):
    raw = forged(**changed)
    assert Header.from_bytes(forged())
    tracemalloc.start()
    with pytest.raises(InputError):
        Reader(io.BytesIO(raw + b"x" * 1000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_a_length_that_lies_takes_no_more_memory_than_there_are_bytes():
    header = replace(HEADER, rows=10_000, count=10_000, shape=(6000,), name="")
    raw = header.to_bytes()
    frame = struct.pack("<4sIIIBxxx16s4s", b"AEVC", 0, 10_000, header.largest_payload(0), 0, b"d" * 16, raw[-4:])
    reader = Reader(io.BytesIO(raw + container.sealed(frame) + b"few bytes"))
    tracemalloc.start()
    with pytest.raises(InputError, match="bytes too early"):
        reader.chunk()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert header.largest_payload(0) > 2**27
    assert peak < 2**22


def test_a_writer_refuses_what_no_reader_takes():
    writer = Writer(io.BytesIO(), HEADER)
    with pytest.raises(InputError, match="bytes of a chunk"):
        writer.add(0, b"d" * 16, bytes(HEADER.largest_payload(0) + 1))
    with pytest.raises(InputError, match="0 chunks to write, expected 3"):
        writer.finish(b"s" * 32)


headers = st.builds(
    Header,
    model=st.binary(min_size=32, max_size=32).map(bytes.hex),
    run=st.binary(min_size=32, max_size=32).map(lambda x: x.hex() if any(x) else ""),
    count=st.integers(1, 10**6),
    rows=st.integers(1, 1000),
    levels=st.integers(2, 2**16),
    dtype=st.sampled_from(container.TYPES),
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple),
    name=st.text(st.characters(codec="utf-8"), max_size=40),
)


@settings(max_examples=200, deadline=None)
@given(headers)
def test_any_header_is_read_as_it_was_written(header):
    raw = header.to_bytes()
    assert len(raw) <= container.LARGEST_HEADER
    assert Header.from_bytes(raw) == header
    assert container.read_header(io.BytesIO(raw + b"more")) == raw


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 2**32))
def test_no_bytes_raise_anything_else(more, seed):
    dice = random.Random(seed)
    raw = bytearray(written())
    for _ in range(dice.randrange(4)):
        raw[dice.randrange(len(raw))] = dice.randrange(256)
    start = dice.randrange(len(raw))
    for content in (more, container.MAGIC + more, bytes(raw[:start]) + more + bytes(raw[start:])):
        try:
            header, chunks, trailer = read(content)
        except InputError:
            pass
        else:
            assert (header, [c.payload for c in chunks], trailer.sha256) == (HEADER, list(PAYLOADS), b"s" * 32)
