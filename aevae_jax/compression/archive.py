"""Rows into an .aev file and back, chunk by chunk, several of them at a time and none of them longer than needed."""

from __future__ import annotations

import hashlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np

from aevae_jax import codable
from aevae_jax.compression import container, recovery, symbols as levels_of
from aevae_jax.compression.container import Chunk, Header, Reader, Writer
from aevae_jax.compression.files import Rows, Write
from aevae_jax.compression.symbols import OWN_MODEL
from aevae_jax.types import InputError

OnPart = Callable[[int, int], None]

MEASURED = 10
"""Chunks of a file, at most, of which the bound is computed: it costs about as much as coding them."""


class SymbolCoder(Protocol):
    """What codes symbols: `chunks.Coder`."""

    @property
    def levels(self) -> int:
        """Symbols are 0 to `levels - 1`."""
        ...

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        ...

    @property
    def sha256(self) -> str:
        """What a file must be decoded with, in hex."""
        ...

    def encode(self, symbols: np.ndarray) -> bytes:
        """Return the payload of one chunk of symbols `[n, *event_shape]`."""
        ...

    def decode(self, payload: bytes, n: int) -> np.ndarray:
        """Return the symbols of one chunk. Raises `ValueError` where the payload cannot be what `encode` wrote."""
        ...

    def bound(self, symbols: np.ndarray) -> np.ndarray:
        """Return the negative ELBO of each example in bits, `[n]`."""
        ...


class Compressed(NamedTuple):
    """What came of compressing. Seconds are those of all threads together."""

    header: Header
    size: int
    """Bytes of the file."""
    measured: int
    """Elements of which the bound was computed: those of the first images."""
    measured_bits: int
    """What they take as they are coded."""
    bound_bits: float
    encoding: float
    verifying: float
    verified: bool
    squared_error: float = 0.0
    """Mean of the squared distances of what will be decoded from what was given, in levels; 0 without loss."""

    @property
    def bits_per_dim(self) -> float:
        """Bits of the whole file per element."""
        return 8 * self.size / (self.header.count * self.header.elements)

    @property
    def measured_images(self) -> int:
        """Images of which the bound was computed."""
        return self.measured // self.header.elements


class Decompressed(NamedTuple):
    """What came of decompressing."""

    lost: tuple[tuple[int, int], ...]
    """The first and the last row of each stretch that could not be recovered."""
    whole: bool
    """Whether the sha256 of all rows was compared, and is right."""
    decoding: float


def header_of(coder: SymbolCoder, rows: Rows, *, chunk: int = 1000, run: str = "") -> Header:
    """Return the header of a file of these rows.

    Args:
      coder: what they are coded with.
      rows: what is coded.
      chunk: rows in a chunk; fewer where so many elements are more than a chunk may have.
      run: digest of the run that the model was taken from.

    Raises:
      InputError: rows of another shape than the model's, of a type that is not stored, or none.
    """
    shape = rows.shape[1:]
    _check_shape(shape, coder.event_shape, "images", hint=_reshaped(rows.shape, coder.event_shape))
    if rows.shape[0] == 0:
        raise InputError("images", got="none", expected="at least 1", hint="name a file that has some")
    if rows.dtype.str not in container.TYPES:
        hint = "save them with x.astype(np.float32)" if rows.dtype.kind == "f" else ""
        raise InputError("images", got=str(rows.dtype), expected="bool, integers, float32 or float64", hint=hint)
    most = max(1, container.MOST_ELEMENTS // math.prod(shape))
    return Header(coder.sha256, run, rows.shape[0], min(chunk, most), coder.levels, rows.dtype.str, shape, rows.name)


def compress(
    coder: SymbolCoder,
    rows: Rows,
    header: Header,
    file: BinaryIO,
    *,
    verify: bool = True,
    threads: int = 1,
    on_part: OnPart | None = None,
) -> Compressed:
    """Write rows as an .aev file, from its beginning to its end.

    Of a lossy coder the file has the digests of what will be decoded, in place of those of what was given.

    Args:
      coder: what they are coded with.
      rows: what is coded; read once, in order.
      header: `header_of` them.
      file: where to; need not be able to seek.
      verify: decode each chunk, and compare it with what was coded.
      threads: chunks that are coded at a time; as many more are held.
      on_part: is told how many rows are done, of how many.

    Raises:
      InputError: values that have no symbol, a chunk that does not come back as it was, or fewer rows than were
        announced.
    """

    lossy = isinstance(coder, codable.Lossy) and coder.lossy

    def code(numbered: tuple[int, np.ndarray]) -> tuple[np.ndarray, int, bytes, float, float, float, float]:
        index, block = numbered
        began = time.perf_counter()
        given, mapping = levels_of.from_rows(block, header.levels, index * header.rows)
        given = given.reshape(len(block), *coder.event_shape)
        payload = coder.encode(given)
        encoded = time.perf_counter()
        error = 0.0
        if verify or lossy:
            back = _decoded(coder, payload, len(block))
            if back is None or not (lossy or np.array_equal(back, given)):
                raise _unfaithful(index, header)
            error = float(np.sum((back.astype(np.float64) - given) ** 2))
            if lossy:
                block = levels_of.to_rows(back.reshape(block.shape), block.dtype, header.levels, mapping)
        verified = time.perf_counter()
        bits = float(np.sum(coder.bound(given))) if index < MEASURED else 0.0
        return block, mapping, payload, bits, encoded - began, verified - encoded, error

    writer, sha256, about = Writer(file, header), hashlib.sha256(), header.to_bytes()
    done, measured, measured_bits, bound, encoding, verifying, squares = 0, 0, 0, 0.0, 0.0, 0.0, 0.0
    for index, (block, mapping, payload, bits, encoded, verified, error) in enumerate(
        _in_order(code, enumerate(rows.blocks(header.rows)), threads)
    ):
        sha256.update(block)
        writer.add(mapping, levels_of.digest(block, about), payload)
        done, encoding, verifying = done + len(block), encoding + encoded, verifying + verified
        squares += error
        if index < MEASURED:
            measured, measured_bits, bound = measured + block.size, measured_bits + 8 * len(payload), bound + bits
        if on_part is not None:
            on_part(done, header.count)
    writer.finish(sha256.digest())
    error = squares / (header.count * header.elements)
    return Compressed(header, writer.size, measured, measured_bits, bound, encoding, verifying, verify or lossy, error)


def decompress(
    coder: SymbolCoder, reader: Reader, write: Write, *, threads: int = 1, on_part: OnPart | None = None
) -> Decompressed:
    """Read the rest of a file, and write its rows.

    Args:
      coder: must have the hash that the header names.
      reader: of the file, whose header has been read.
      write: is given the number of the first row of each stretch, and its rows.
      threads: chunks that are decoded at a time.
      on_part: is told how many rows are done, of how many.

    Raises:
      InputError: another model, or a file that is damaged anywhere: the first damage that is met. What was written by
        then is to be thrown away.
    """
    header = reader.header
    check_model(coder, header)
    sha256, seconds = hashlib.sha256(), 0.0
    chunks = (reader.chunk() for _ in range(header.chunks))
    for chunk, rows, took in _in_order(lambda one: (one, *_rows(coder, header, one)), chunks, threads):
        if rows is None:
            raise container.refused(
                f"a chunk of images from {chunk.number * header.rows:,} on that is no code of this model",
                "what it was made from; the file was forged, or the model computes something else here",
            )
        sha256.update(rows)
        write(chunk.number * header.rows, rows)
        seconds += took
        if on_part is not None:
            on_part(chunk.number * header.rows + len(rows), header.count)
    if reader.finish().sha256 != sha256.digest():
        raise container.refused("images of another sha256 than the file names", "an intact file")
    return Decompressed((), True, seconds)


def recover(
    coder: SymbolCoder,
    file: BinaryIO,
    found: recovery.Found,
    write: Write,
    *,
    threads: int = 1,
    on_part: OnPart | None = None,
) -> Decompressed:
    """Write the rows that a damaged file still has, in order, and say which are lost; `write` is not called for those.

    Args:
      coder: must have the hash that the header names.
      file: the file.
      found: what was found in it.
      write, threads, on_part: as for `decompress`.

    Raises:
      InputError: another model.
    """
    header = found.header
    check_model(coder, header)
    sha256, seconds, good = hashlib.sha256(), 0.0, set[int]()
    chunks = (recovery.chunk(file, found, index) for index in sorted(found.places))
    there = (chunk for chunk in chunks if chunk is not None)
    for chunk, rows, took in _in_order(lambda one: (one, *_rows(coder, header, one)), there, threads):
        if rows is None:
            continue
        good.add(chunk.number)
        sha256.update(rows)
        write(chunk.number * header.rows, rows)
        seconds += took
        if on_part is not None:
            on_part(chunk.number * header.rows + len(rows), header.count)
    lost = recovery.lost(header, good)
    whole = not lost and found.trailer is not None and found.trailer.sha256 == sha256.digest()
    return Decompressed(lost, whole, seconds)


def check_model(coder: SymbolCoder, header: Header) -> None:
    """Refuse a model that is not the one a file was made with. Raises `InputError`."""
    if coder.sha256 != header.model:
        raise InputError(
            "model",
            got=f"one with the hash {coder.sha256[:16]}",
            expected=f"{header.model[:16]}, weights and structure of the one that this file was made with",
            hint="type: aevae info FILE, which says the run",
        )
    _check_shape(header.shape, coder.event_shape, "images of the file")
    if coder.levels != header.levels:
        raise container.refused(f"{header.levels} levels", f"{coder.levels}, as its model has")


def _reshaped(shape: tuple[int, ...], event: tuple[int, ...]) -> str:
    """Return what makes images of a model's shape of an array, or a model of its own for it."""
    if event in (shape, (*shape, 1)):
        return "save one image with x[None]"
    if math.prod(shape[1:]) == math.prod(event):
        return f"save them with x.reshape{(-1, *event)}"
    return OWN_MODEL


def _check_shape(shape: tuple[int, ...], event: tuple[int, ...], what: str, *, hint: str = "") -> None:
    """Refuse images that are not of the shape of a model's; one channel may be left out."""
    if event not in (shape, (*shape, 1)):
        raise InputError(
            f"shape of the {what}",
            got=f"(N, {', '.join(map(str, shape))})",
            expected=f"(N, {', '.join(map(str, event))}), as the model was built for",
            hint=hint,
        )


def _decoded(coder: SymbolCoder, payload: bytes, n: int) -> np.ndarray | None:
    """Return the symbols of a payload; `None` where it is no code."""
    try:
        symbols: Any = coder.decode(payload, n)
    except InputError:
        raise
    except ValueError:
        return None
    sound = symbols.shape == (n, *coder.event_shape) and symbols.dtype == levels_of.dtype_of(coder.levels)
    return symbols if sound else None


def _rows(coder: SymbolCoder, header: Header, chunk: Chunk) -> tuple[np.ndarray | None, float]:
    """Return the rows of a chunk, `None` where they are not those that were coded; and the seconds that took."""
    began, n = time.perf_counter(), header.rows_in(chunk.number)
    symbols = _decoded(coder, chunk.payload, n)
    if symbols is None or chunk.mapping not in levels_of.possible(header.dtype, header.levels):
        return None, 0.0
    rows = levels_of.to_rows(symbols.reshape(n, *header.shape), header.dtype, header.levels, chunk.mapping)
    rows = np.ascontiguousarray(rows)
    return (rows if levels_of.digest(rows, header.to_bytes()) == chunk.digest else None), time.perf_counter() - began


def _unfaithful(index: int, header: Header) -> InputError:
    """Return what is said of a chunk that did not come back: then nothing was written under the output's name."""
    first = index * header.rows
    return InputError(
        "verification",
        got=f"other images than were coded, from {first:,} to {first + header.rows_in(index) - 1:,}",
        expected="the same ones",
        hint="this is a mistake of aevae_jax or of this machine: try --device cpu, and report it",
    )


def _in_order(work: Callable[[Any], Any], items: Iterable[Any], threads: int) -> Iterator[Any]:
    """Yield what is made of items, in their order, by some threads; twice as many items as these are held."""
    pool, waiting = ThreadPoolExecutor(threads), deque[Any]()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # after an error or a signal, whoever asked does not wait for what is being computed
        pool.shutdown(wait=False, cancel_futures=True)
