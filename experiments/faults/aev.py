"""Subjects: .aev files, which a model of random weights codes and decodes.

Decompressing gives the images as they were or refuses in one line; recovering gives every image as it was or says that
it is lost. Numbers in the file are also changed by whoever makes all checksums right again.
"""

from __future__ import annotations

import functools
import io
import random
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults.formats import damaged
from faults.mutate import at
from faults.trials import FREE, Change, Place, Subject

WARM = ("aevae_jax.compression.chunks", "aevae_jax.compression.archive", "aevae_jax.models")

NAME, COUNT, CHUNK, SHAPE = "x.aev", 36, 8, (5, 4, 1)
LIMIT = 5.0
"""Seconds that a file may take; one that takes more hangs."""

_FIELDS = {"version": (8, 2), "length": (10, 2), "count": (76, 8), "rows": (84, 4), "levels": (88, 4), "type": (92, 1),
           "axes": (93, 1), "size": (94, 4), "name": (106, 1)}  # fmt: skip
"""Where the numbers of the header are, and how many bytes each has."""

_NUMBERS = (0, 1, 2, 3, 7, 16, 18, 35, 37, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**16, 2**26, 2**31, 2**32 - 1, 2**40,
            2**63, 2**64 - 1)  # fmt: skip


def subjects() -> list[Subject]:
    """Return a file that is decompressed, and one that is recovered."""
    kinds = {"flip": 1000, "flip-early": 400, "flip-late": 400, "scatter": 500, "cut": 500, "number": 700}
    bytes_ = damaged(NAME, kinds, each=250)
    sealed: dict[str, tuple[int, Change]] = {
        "header-sealed": (400, at(NAME, _header)),
        "frame-sealed": (300, at(NAME, _frame)),
        "payload-sealed": (600, at(NAME, _payload)),
        "spliced": (300, at(NAME, _spliced)),
        "noise": (200, at(NAME, _noise)),
    }
    forged: dict[str, tuple[int, Change]] = {"forged": (300, _forged)}
    return [
        Subject("decompress", _make, _decompress, bytes_ | sealed | forged),
        Subject("recover", _make, _recover, bytes_ | sealed),
    ]


# ------------------------------------------------------------------------------------------- the file and its readers


@functools.cache
def _coder() -> Any:
    """Return the codec of a small model; a process makes it once."""
    import jax

    from aevae_jax import VAE
    from aevae_jax.compression.chunks import Coder
    from aevae_jax.models.architectures import MLP
    from aevae_jax.models.likelihoods import DiscretizedLogistic
    from aevae_jax.models.priors import StandardNormal

    model = VAE(2, MLP((4,)), DiscretizedLogistic(17), StandardNormal(), event_shape=SHAPE)
    return Coder(model, model.init(jax.random.key(0)))


def _images(seed: int = 0) -> Any:
    import numpy as np

    return np.random.default_rng(seed).integers(0, 17, (COUNT, *SHAPE)).astype(np.uint8)


@functools.cache
def _written(seed: int) -> bytes:
    """Return the file of some images."""
    from aevae_jax.compression import archive, files

    rows, file = files.of_array(_images(seed), "x"), io.BytesIO()
    header = archive.header_of(_coder(), rows, chunk=CHUNK)
    archive.compress(_coder(), rows, header, file)
    return file.getvalue()


def _make(folder: Path) -> None:
    (folder / NAME).write_bytes(_written(0))


def _timed(read: Callable[[Path], Any]) -> Callable[[Path], Any]:
    def timed(folder: Path) -> Any:
        _coder()
        began = time.monotonic()
        try:
            return read(folder)
        finally:
            if time.monotonic() - began > LIMIT:
                raise TimeoutError(f"it took {time.monotonic() - began:.1f} s")

    return timed


@_timed
def _decompress(folder: Path) -> Any:
    """Return the array that a file gives, which must then lie there as a whole."""
    import numpy as np

    from aevae_jax import durable
    from aevae_jax.compression import archive, container, files

    out = folder / "x.npy"
    with durable.open_regular(folder / NAME) as file:
        reader = container.Reader(file)
        files.check_output(out, reader.header)
        files.check_memory(reader.header, 1)
        archive.check_model(_coder(), reader.header)
        with files.writing(out, reader.header) as write:
            archive.decompress(_coder(), reader, write)
    return np.load(out)


@_timed
def _recover(folder: Path) -> Any:
    """Return whether any image is another one, and none where it should be one."""
    from aevae_jax import durable
    from aevae_jax.compression import archive, files, recovery

    x, wrong = _images(), list[int]()

    def compared(first: int, rows: Any) -> None:
        if x[first : first + len(rows)].tobytes() != rows.tobytes():
            wrong.append(first)

    with durable.open_regular(folder / NAME) as file:
        found = recovery.look(file)
        files.check_memory(found.header, 1)
        archive.recover(_coder(), file, found, compared)
    return {"images that are others": wrong}


# ------------------------------------------------------------------------------ what is changed under right checksums


def _parts(content: bytes | bytearray) -> tuple[bytearray, list[bytearray], bytearray]:
    """Return the header, the chunks and the trailer of an intact file."""
    length = int.from_bytes(content[10:12], "little")
    header, rest, chunks = content[:length], content[length:], list[bytearray]()
    while rest[:4] == b"AEVC":
        size = 44 + int.from_bytes(rest[12:16], "little") + 4
        chunks.append(bytearray(rest[:size]))
        rest = rest[size:]
    return bytearray(header), chunks, bytearray(rest)


def _joined(header: bytearray, chunks: list[bytearray], trailer: bytearray) -> bytearray:
    """Return a file whose checksums are all right, and whose trailer lists what there is."""
    header[-4:] = _crc(header[:-4])
    table, place = b"", len(header)
    for chunk in chunks:
        size = len(chunk) - 48
        chunk[36:40], chunk[-4:] = header[-4:], _crc(chunk[44:-4])
        chunk[40:44] = _crc(chunk[:40])
        table += struct.pack("<QI4s", place, size, chunk[-4:])
        place += len(chunk)
    sha256 = trailer[8 + 16 * ((len(trailer) - 52 - len(header)) // 16) :][:32]
    body = b"AEVT" + struct.pack("<I", len(chunks)) + table + sha256 + header
    return bytearray(header + b"".join(chunks) + body + _crc(body) + struct.pack("<I", len(body) + 12) + b"AEVE")


def _crc(raw: bytes | bytearray) -> bytes:
    return zlib.crc32(raw).to_bytes(4, "little")


def _header(content: bytearray, dice: random.Random) -> bytearray:
    """Return another number in the header."""
    header, chunks, trailer = _parts(content)
    before = bytes(header)
    while header == before:
        place, size = _FIELDS[dice.choice(list(_FIELDS))]
        header[place : place + size] = (dice.choice(_NUMBERS) % 256**size).to_bytes(size, "little")
    return _joined(header, chunks, trailer)


def _frame(content: bytearray, dice: random.Random) -> bytearray:
    """Return another number before a payload."""
    header, chunks, trailer = _parts(content)
    chunk = dice.choice(chunks)
    before = bytes(chunk)
    while chunk == before:
        place, size = dice.choice([(4, 4), (8, 4), (12, 4), (16, 1), (20, 4)])
        chunk[place : place + size] = (dice.choice(_NUMBERS) % 256**size).to_bytes(size, "little")
    return _joined(header, chunks, trailer)


def _payload(content: bytearray, dice: random.Random) -> bytearray:
    """Return another payload: a bit, a byte, fewer, more, none."""
    header, chunks, trailer = _parts(content)
    number = dice.randrange(len(chunks))
    payload = chunks[number][44:-4]
    before = bytes(payload)
    while payload == before:
        kind = dice.randrange(6)
        if kind == 0:
            payload[dice.randrange(len(payload))] ^= 1 << dice.randrange(8)
        elif kind == 1:
            payload[dice.randrange(len(payload))] = dice.randrange(256)
        elif kind == 2:
            payload = payload[: dice.randrange(len(payload))]
        elif kind == 3:
            payload += dice.randbytes(dice.randint(1, 40))
        elif kind == 4:
            payload = bytearray(dice.randbytes(dice.randint(0, 100)))
        else:
            payload = payload[dice.randrange(1, len(payload)) :]
    head = chunks[number][:44]
    head[12:16] = len(payload).to_bytes(4, "little")
    chunks[number] = head + payload + bytearray(4)
    return _joined(header, chunks, trailer)


def _spliced(content: bytearray, dice: random.Random) -> bytearray:
    """Return a file with chunks of another one, or of its own in other places; each is as it was written."""
    header, chunks, trailer = _parts(content)
    others = _parts(_written(1))
    kind = dice.randrange(5)
    one, two = dice.sample(range(len(chunks)), 2)
    if kind == 0:
        chunks[one] = others[1][one]
    elif kind == 1:
        chunks[one], chunks[two] = chunks[two], chunks[one]
    elif kind == 2:
        chunks.insert(one, others[1][two])
    elif kind == 3:
        trailer = others[2]
    else:
        del chunks[one]
    spliced = bytearray(header + b"".join(chunks) + trailer)
    return spliced if spliced != content else spliced[:-1]


def _noise(content: bytearray, dice: random.Random) -> bytes:
    """Return anything, behind a right beginning or none."""
    return bytes(content[: dice.choice((0, 8, 12, 94, 111))]) + dice.randbytes(dice.randrange(2000))


def _forged(folder: Path, dice: random.Random, place: Place) -> Any:
    """Return a file in which several numbers are others, and everything is right with it."""
    path = folder / NAME
    content = bytearray(path.read_bytes())
    for _ in range(dice.randint(1, 3)):
        try:
            content = dice.choice((_header, _frame, _payload))(content, dice)
        except (IndexError, ValueError):  # nothing is left to be changed
            break
    path.write_bytes(content)
    return FREE
