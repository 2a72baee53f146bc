"""Rows into an .aev file and back, with a coder without a model; and what is left of a file that is damaged."""

from __future__ import annotations

import errno
import hashlib
import io
import random
import struct
import threading
import time
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stand_in import StandIn

from aevae_jax.compression import archive, container, files, recovery, symbols
from aevae_jax.compression.container import Reader
from aevae_jax.types import InputError

GOLDEN = Path(__file__).parent / "golden"


def images(n=23, shape=(4, 3), dtype="|u1"):
    return np.random.default_rng(n).integers(0, 256, (n, *shape)).astype(dtype)


def packed(x, coder=None, *, chunk=5, run="", **options):
    coder = coder or StandIn()
    rows, file = files.of_array(x), io.BytesIO()
    header = archive.header_of(coder, rows, chunk=chunk, run=run)
    archive.compress(coder, rows, header, file, **options)
    return file.getvalue()


class Sink:
    """Takes rows, and makes an array of them; those that never came are zeros."""

    def __init__(self, x):
        self.x, self.firsts = np.zeros_like(x), []

    def __call__(self, first, rows):
        self.x[first : first + len(rows)] = rows
        self.firsts.append(first)


def unpacked(raw, x, coder=None, **options):
    sink = Sink(x)
    archive.decompress(coder or StandIn(), Reader(io.BytesIO(raw)), sink, **options)
    return sink.x


def recovered(raw, x, coder=None):
    sink, file = Sink(x), io.BytesIO(raw)
    done = archive.recover(coder or StandIn(), file, recovery.look(file), sink)
    return sink.x, done


@pytest.mark.parametrize("n", [1, 4, 5, 6, 23])
@pytest.mark.parametrize("threads", [1, 3])
def test_what_goes_in_comes_out(n, threads):
    x = images(n)
    raw = packed(x, threads=threads)
    assert raw == packed(x)
    assert unpacked(raw, x, threads=threads).tobytes() == x.tobytes()


@pytest.mark.parametrize("dtype", ["<i2", ">f4", "<f8", "<u8"])
def test_types_and_the_order_of_bytes_come_back(dtype):
    x = images(7, dtype=dtype)
    header = Reader(io.BytesIO(packed(x))).header
    assert (header.dtype, header.shape, header.count) == (dtype, (4, 3), 7)
    assert unpacked(packed(x), x).tobytes() == x.tobytes()


def test_bits_may_change_how_they_are_stored_from_chunk_to_chunk():
    x = np.concatenate([np.zeros((5, 4, 3)), images(5) % 2, 255 * (images(6) % 2)]).astype(np.uint8)
    coder = StandIn(levels=2)
    raw = packed(x, coder)
    reader = Reader(io.BytesIO(raw))
    assert [reader.chunk().mapping for _ in range(reader.header.chunks)] == [0, 0, 1, 1]
    assert unpacked(raw, x, coder).tobytes() == x.tobytes()


def test_figures_are_those_of_the_file():
    x, coder = images(), StandIn()
    rows, file = files.of_array(x), io.BytesIO()
    told = []
    header = archive.header_of(coder, rows, chunk=5)
    done = archive.compress(coder, rows, header, file, on_part=lambda *part: told.append(part))
    assert done.size == len(file.getvalue())
    assert done.bits_per_dim == 8 * done.size / x.size
    assert (done.measured, done.bound_bits) == (x.size, 8.0 * x.size)
    assert done.measured_images == 23
    assert done.measured_bits == 8 * sum(len(coder.encode(x[i : i + 5, ..., None])) for i in range(0, 23, 5))
    assert told == [(5, 23), (10, 23), (15, 23), (20, 23), (23, 23)]


def test_the_bound_is_computed_of_the_first_chunks_alone():
    x, rows, file = images(60), files.of_array(images(60)), io.BytesIO()
    done = archive.compress(StandIn(), rows, archive.header_of(StandIn(), rows, chunk=5), file)
    assert done.measured == archive.MEASURED * 5 * x[0].size
    assert done.bound_bits == 8.0 * done.measured


class Wrong(StandIn):
    """Decodes something else than it coded."""

    def decode(self, payload, n):
        found = super().decode(payload, n).copy()
        found[-1, 0] ^= 1
        return found


@pytest.mark.parametrize("threads", [1, 2])
def test_a_coder_that_does_not_decode_what_it_coded_is_seen_at_once(threads):
    with pytest.raises(InputError, match=r"verification: got other images than were coded, from 0 to 4"):
        packed(images(), Wrong(), threads=threads)
    assert packed(images(), Wrong(), verify=False)


def test_a_coder_that_decodes_something_else_later_is_refused_and_nothing_of_it_written():
    sink = Sink(images())
    with pytest.raises(InputError, match=r"a chunk of images from 0 on that is no code of this model"):
        archive.decompress(Wrong(), Reader(io.BytesIO(packed(images()))), sink)
    assert sink.firsts == []


class Growing(StandIn):
    """Gives symbols beyond its levels, of another type, or of another shape."""

    wrong = staticmethod(lambda symbols: symbols)

    def decode(self, payload, n):
        return self.wrong(super().decode(payload, n))


@pytest.mark.parametrize(
    "wrong", [lambda x: x.astype(np.int64), lambda x: x[:, :2], lambda x: x + 17, lambda x: x[:-1]]
)
def test_symbols_of_another_kind_are_refused(wrong, monkeypatch):
    x = images() % 17
    raw = packed(x, StandIn(levels=17))
    monkeypatch.setattr(Growing, "wrong", staticmethod(wrong))
    with pytest.raises(InputError, match="no code of this model"):
        unpacked(raw, x, Growing(levels=17))


def test_another_model_is_refused_before_anything_is_decoded():
    raw = packed(images())
    for coder in (StandIn(sha256="cd" * 32), StandIn((3, 4, 1)), StandIn(levels=255)):
        with pytest.raises(InputError, match=r"hash cdcd|shape of the images of the file|256 levels"):
            unpacked(raw, images(), coder)
        with pytest.raises(InputError, match=r"hash cdcd|shape of the images of the file|256 levels"):
            recovered(raw, images(), coder)


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (images(0), "images: got none"),
        (images(3, (3, 4)), r"shape of the images: got \(N, 3, 4\), expected \(N, 4, 3, 1\)"),
        (images(3, (4, 3, 2)), "shape of the images"),
        (images(3).astype(np.complex64), "images: got complex64, expected bool, integers, float32 or float64$"),
    ],
)
def test_images_that_do_not_suit_the_model_are_refused(x, said):
    with pytest.raises(InputError, match=said):
        packed(x)


def test_values_that_have_no_symbol_are_refused_with_the_number_of_their_image():
    x = images(23).astype(np.int16)
    x[17, 2, 1] = 256
    with pytest.raises(InputError, match=r"got 256 in image 17"):
        packed(x)


def test_large_images_are_in_smaller_chunks():
    rows = files.of_array(np.zeros((3, 2**13, 2**12), np.uint8))
    header = archive.header_of(StandIn((2**13, 2**12, 1)), rows)
    assert header.rows == 2


# ------------------------------------------------------------------------------------------------------------ threads


class Slow(StandIn):
    """Says how many chunks it works on at a time."""

    def __init__(self):
        super().__init__()
        self.now, self.most, self.lock = 0, 0, threading.Lock()

    def encode(self, symbols):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.02)
        with self.lock:
            self.now -= 1
        return super().encode(symbols)


@pytest.mark.parametrize("threads", [1, 2])
def test_as_many_chunks_are_coded_at_a_time_as_there_are_threads(threads):
    coder = Slow()
    packed(images(), coder, threads=threads)
    assert coder.most == threads


class Waiting(StandIn):
    """Codes the first chunk at once, and waits with others until it is let go."""

    def __init__(self):
        super().__init__()
        self.go = threading.Event()

    def encode(self, symbols):
        if not np.array_equal(symbols[0].ravel(), images()[0].ravel()):
            self.go.wait(30)
        return super().encode(symbols)


def test_who_is_interrupted_does_not_wait_for_chunks_that_are_being_coded():
    def interrupted(done, count):
        raise KeyboardInterrupt

    coder, began = Waiting(), time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            packed(images(), coder, threads=2, on_part=interrupted)
        assert time.monotonic() - began < 10
    finally:
        coder.go.set()


def test_memory_does_not_grow_with_the_number_of_images():
    """Neither while compressing nor while decompressing: rows are made as they are asked for."""
    block = images(1000, (16, 16))

    def blocks(size):
        for _ in range(count // size):
            yield block.copy()

    class Nowhere(io.RawIOBase):
        def write(self, raw):
            return len(raw)

    peaks = []
    coder = StandIn((16, 16, 1))
    for count in (10_000, 40_000):
        rows = files.Rows((count, 16, 16), np.dtype("|u1"), "", blocks)
        tracemalloc.start()
        archive.compress(coder, rows, archive.header_of(coder, rows), Nowhere(), verify=False, threads=2)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


# ------------------------------------------------------------------------------------------------------------ damage


def places(raw):
    """Where the header, each chunk and the trailer begin."""
    reader = Reader(io.BytesIO(raw))
    for _ in range(reader.header.chunks):
        reader.chunk()
    table = reader.finish().table
    return [0, *(at for at, _, _ in table), table[-1][0] + container.FRAME_BYTES + table[-1][1] + 4]


def test_every_damaged_byte_costs_one_chunk_at_most():
    x = images(12)
    raw = packed(x)
    _, *chunks, trailer = places(raw)
    for at in range(len(raw)):
        other = bytearray(raw)
        other[at] ^= 0x41
        with pytest.raises(InputError):
            unpacked(bytes(other), x)
        found, done = recovered(bytes(other), x)
        hit = [n for n, first in enumerate(chunks) if first <= at < [*chunks, trailer][n + 1]]
        lost = {(5 * n, min(5 * n + 4, 11)) for n in hit}
        assert set(done.lost) == lost
        assert done.whole == (at < chunks[0])  # then the trailer has the header, too
        kept = np.ones(12, bool)
        for first, last in lost:
            kept[first : last + 1] = False
        assert (found[kept] == x[kept]).all()
        assert not found[~kept].any()


@pytest.mark.parametrize("seed", range(40))
def test_bytes_that_are_lost_or_put_in_between_cost_the_chunks_that_they_hit(seed):
    dice, x = random.Random(seed), images(40)
    raw = bytearray(packed(x))
    at, size = dice.randrange(len(raw)), dice.randrange(1, 200)
    if seed % 2:
        gone = range(at, min(at + size, len(raw)))
        del raw[at : at + size]
    else:
        gone = range(at, at)
        raw[at:at] = dice.randbytes(size)
    _, *chunks, trailer = places(packed(x))
    ends = [*chunks[1:], trailer]
    hit = {
        n
        for n, (first, end) in enumerate(zip(chunks, ends, strict=True))
        if first < at < end or any(first <= place < end for place in gone)
    }
    found, done = recovered(bytes(raw), x)
    lost = {row // 5 for first, last in done.lost for row in range(first, last + 1)}
    assert lost == hit
    kept = np.repeat([n not in hit for n in range(8)], 5)
    assert (found[kept] == x[kept]).all()


def test_what_is_cut_off_leaves_what_came_before():
    x = images(40)
    raw = packed(x)
    _, *chunks, _ = places(raw)
    found, done = recovered(raw[: chunks[5] + 50], x)
    assert (done.lost, done.whole) == (((25, 39),), False)
    assert (found[:25] == x[:25]).all()


def test_a_whole_file_is_recovered_whole():
    x = images(40)
    found, done = recovered(packed(x), x)
    assert (done.lost, done.whole) == ((), True)
    assert (found == x).all()


def test_without_a_header_there_is_nothing_to_recover():
    raw = bytearray(packed(images()))
    raw[20] ^= 1
    raw[-20] ^= 1
    with pytest.raises(InputError, match="a damaged header"):
        recovery.look(io.BytesIO(bytes(raw)))
    for content in (b"", b"x", b"nothing of the kind" * 100):
        with pytest.raises(InputError, match="begins with"):
            recovery.look(io.BytesIO(content))


def test_chunks_of_a_file_with_the_same_header_are_neither_taken_nor_recovered():
    """Both have the same model and the same numbers: only what the trailer says tells them apart."""
    x, y = images(20), images(20)[::-1].copy()
    raw, other = packed(x), packed(y)
    assert raw[:100] == other[:100]
    cuts, theirs = places(raw), places(other)
    mixed = raw[: cuts[2]] + other[theirs[2] : theirs[3]] + raw[cuts[3] :]
    with pytest.raises(InputError, match=r"trailer|sha256"):
        unpacked(mixed, x)
    found, done = recovered(mixed, x)
    assert done.lost == ((5, 9),)
    assert (found[10:] == x[10:]).all()


def test_a_forged_sha256_is_seen():
    x = images(20)
    raw = packed(x)
    body = bytearray(raw[places(raw)[-1] : -12])
    at = len(body) - len(Reader(io.BytesIO(raw)).header.to_bytes()) - 32
    body[at] ^= 1
    forged = raw[: places(raw)[-1]] + container.sealed(bytes(body)) + raw[-8:]
    with pytest.raises(InputError, match="images of another sha256 than the file names"):
        unpacked(forged, x)
    assert not recovered(forged, x)[1].whole


class Counting(io.BytesIO):
    """Counts the bytes that are read of it."""

    count = 0

    def read(self, size=-1):
        found = super().read(size)
        self.count += len(found)
        return found


def test_a_file_is_read_twice_to_see_what_is_left_of_it_however_small_its_chunks():
    x = images(3000)
    file = Counting(packed(x, chunk=1))
    assert len(recovery.look(file).places) == 3000
    assert file.count < 3 * len(file.getvalue())


def test_a_forged_file_takes_no_time_without_end():
    """Thousands of chunks that claim to be as long as the file, each with a right checksum of its own."""
    header = replace(Reader(io.BytesIO(packed(images()))).header, count=5 * 20_000, shape=(400, 30))
    raw = header.to_bytes()
    frames = [
        container.sealed(struct.pack("<4sIIIBxxx16s4s", b"AEVC", number, 5, 200_000, 0, bytes(16), raw[-4:]))
        for number in range(20_000)
    ]
    file = Counting(raw + b"".join(frames))
    found = recovery.look(file)
    assert file.count < 64 * len(file.getvalue())
    assert found.places == {}


# ------------------------------------------------------------------------------------------------------- golden files


def test_version_1_is_decoded_for_ever():
    """The file was written by the first version of this format, and must never be written anew."""
    raw = (GOLDEN / "version-1.aev").read_bytes()
    x = np.load(GOLDEN / "version-1.npy")
    assert unpacked(raw, x).tobytes() == x.tobytes()
    header = Reader(io.BytesIO(raw)).header
    assert (header.name, header.run, header.dtype) == ("images", "12" * 32, "<f4")


def test_a_digest_is_that_of_hashlib():
    x = images(3, dtype=">i4")
    assert symbols.digest(x, b"header") == hashlib.sha256(b"header" + x.tobytes()).digest()[:16]


def resealed(raw, at, value):
    """A file with another byte in its header, and all checksums made right."""
    [length] = struct.unpack_from("<H", raw, 10)
    header = bytearray(raw[: length - 4])
    header[at] = value
    header, reader = container.sealed(bytes(header)), Reader(io.BytesIO(raw))
    body, table = header, b""
    for _ in range(reader.header.chunks):
        chunk = reader.chunk()
        n = reader.header.rows_in(chunk.number)
        frame = struct.pack("<4sIIIBxxx16s4s", b"AEVC", chunk.number, n, len(chunk.payload), chunk.mapping,
                            chunk.digest, header[-4:])  # fmt: skip
        table += struct.pack("<QII", len(body), len(chunk.payload), zlib.crc32(chunk.payload))
        body += container.sealed(frame) + container.sealed(chunk.payload)
    end = container.sealed(b"AEVT" + struct.pack("<I", reader.header.chunks) + table + reader.finish().sha256 + header)
    return body + end + struct.pack("<I4s", len(end) + 8, b"AEVE")


@pytest.mark.parametrize(("at", "value"), [(92, 2), (92, 0), (44, 1), (76, 22), (12, 0xAC)])
def test_a_header_that_says_something_else_of_the_same_bytes_is_refused(at, value):
    """Such as int8 for uint8: no checksum can tell, and the digest of each chunk does."""
    raw, x = packed(images()), images()
    assert resealed(raw, 92, 1) == raw
    coder = StandIn(sha256="ab" * 32 if at != 12 else "ac" + "ab" * 31)
    with pytest.raises(InputError, match="no code of this model"):
        unpacked(resealed(raw, at, value), x, coder)


def test_a_mapping_that_its_type_cannot_have_is_refused():
    raw, x = bytearray(packed(images())), images()
    at = places(raw)[1]
    for mapping in (1, 2):
        raw[at + 16] = mapping
        raw[at : at + 44] = container.sealed(bytes(raw[at : at + 40]))
        with pytest.raises(InputError, match="no code of this model"):
            unpacked(bytes(raw), x)


def test_a_giant_is_not_searched_to_its_end(tmp_path):
    x = images()
    raw = packed(x)
    with (tmp_path / "giant").open("wb+") as file:
        file.write(raw)
        file.truncate(2**40)
        found = recovery.look(file)
    assert len(found.places) == 5


def test_of_two_copies_of_a_chunk_the_first_is_taken():
    """Without a trailer nothing says which is the file's: what was put behind it replaces nothing."""
    x = images()
    raw = packed(x)
    _, *chunks, end = places(raw)
    first = bytearray(raw[chunks[0] : chunks[1]])
    first[50] ^= 1
    first[-4:] = zlib.crc32(first[container.FRAME_BYTES : -4]).to_bytes(4, "little")
    found, done = recovered(raw[:end] + bytes(first), x)
    assert done.lost == ()
    assert np.array_equal(found, x)


class Watched(io.BytesIO):
    """A file that notes how much is asked of it at once."""

    most = 0

    def read(self, size=-1):
        self.most = max(self.most, size)
        return super().read(size)


def test_no_more_is_read_at_once_than_a_limit_allows():
    """Who reads a size of a forged file takes no memory for it before bytes are there."""
    file = Watched(bytes(100))
    with pytest.raises(InputError, match=r"an end 2,147,483,548 bytes too early"):
        container.exactly(file, 2**31)
    assert file.most <= 2**20
    limit = container.trailer_bytes(container.MOST_CHUNKS, container.LARGEST_HEADER)
    size = limit + 2**20
    file = Watched(packed(images()) + bytes(size) + (size - 8).to_bytes(4, "little") + b"AEVE")
    assert len(recovery.look(file).places) == 5
    assert file.most <= limit


class Broken(io.BytesIO):
    """A file on a disk that fails."""

    def read(self, size=-1):
        raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("read", [Reader, recovery.look])
def test_a_disk_that_fails_is_a_line(read):
    with pytest.raises(InputError, match=r"a file that cannot be read \(Input/output error\)"):
        read(Broken(packed(images())))
