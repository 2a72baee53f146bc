"""Does any file make the reader of .aev files crash, hang or lie? Coverage-guided fuzzing, by Atheris.

Command:   pip install atheris && python experiments/fuzz_aev.py --seconds 600
Writes:    runs/fuzz_aev: the inputs that found new code, and those that failed, each as a file
Expected:  no failure; exit code 0

Each input is read, and what is left of it is recovered, as by `aevae decompress` with and without `--recover`. In half
of the inputs checksums are made right before, so that what lies behind them is reached. The coder is zlib: here the
format is tried, and what a model's coder does with hostile payloads by `experiments/faults --only aev`. An input fails
where anything but `InputError` is raised, where it takes more than 5 s or 512 MiB, and where images come out that no
writer put into it.
"""

from __future__ import annotations

import contextlib
import io
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from aevae_jax.cli import console
from aevae_jax.types import InputError, not_installed

SECONDS, MEGABYTES, COUNT, SHAPE = 5, 512, 23, (4, 3, 1)


class Zlib:
    """What codes symbols, without a model."""

    levels, event_shape, sha256 = 256, SHAPE, "ab" * 32

    def encode(self, symbols: Any) -> bytes:
        """Return a payload."""
        return zlib.compress(symbols.tobytes())

    def decode(self, payload: bytes, n: int) -> Any:
        """Return the symbols of a payload. Raises `ValueError`."""
        try:
            raw = zlib.decompressobj().decompress(payload, n * 12 + 1)
        except zlib.error as error:
            raise ValueError(str(error)) from None
        if len(raw) != n * 12:
            raise ValueError("another length")
        return np.frombuffer(raw, np.uint8).reshape(n, *SHAPE)

    def bound(self, symbols: Any) -> Any:
        """Return nothing that is looked at."""
        return np.zeros(len(symbols))


def fuzz(*, seconds: int = 600, seed: int = 1, out: Path = Path("runs/fuzz_aev")) -> None:
    """Fuzz the reader of .aev files.

    Args:
      seconds: how long.
      seed: of the fuzzer.
      out: directory for inputs.
    """
    try:
        import atheris
    except ImportError:
        raise not_installed("atheris", "dev", purpose="to fuzz: pip install atheris") from None
    with atheris.instrument_imports(include=["aevae_jax.compression"]):
        from aevae_jax.compression import archive, container, files, recovery
    coder, x = Zlib(), np.random.default_rng(0).integers(0, 256, (COUNT, *SHAPE)).astype(np.uint8)
    rows, file = files.of_array(x, "images"), io.BytesIO()
    archive.compress(coder, rows, archive.header_of(coder, rows, chunk=5), file)
    intact, known = file.getvalue(), {bytes(x[first : first + 5].data) for first in range(0, COUNT, 5)}

    def sealed(raw: bytes) -> bytes:
        """Return bytes with right checksums, wherever a header, a chunk and a trailer stand one after another."""
        content = bytearray(raw)
        length = int.from_bytes(content[10:12], "little")
        if not 98 <= length <= len(content):
            return raw
        content[length - 4 : length] = zlib.crc32(content[: length - 4]).to_bytes(4, "little")
        at = length
        while content[at : at + 4] == b"AEVC" and at + 48 <= len(content):
            end = at + 44 + int.from_bytes(content[at + 12 : at + 16], "little")
            content[at + 36 : at + 40] = content[length - 4 : length]
            content[at + 40 : at + 44] = zlib.crc32(content[at : at + 40]).to_bytes(4, "little")
            if end + 4 <= len(content):
                content[end : end + 4] = zlib.crc32(content[at + 44 : end]).to_bytes(4, "little")
            at = end + 4
        if content[at : at + 4] == b"AEVT" and at + 12 < len(content):
            content[-12:-8] = zlib.crc32(content[at:-12]).to_bytes(4, "little")
        return bytes(content)

    def try_one(raw: bytes) -> None:
        content = sealed(raw[1:]) if raw[:1] < b"\x80" else raw[1:]
        began = time.monotonic()
        for recovering in (False, True):
            got = list[bytes]()
            with contextlib.suppress(InputError):
                read(content, got, recovering)
                assert recovering or len(b"".join(got)) == x.nbytes or content[:94] != intact[:94], "too few images"
            assert known.issuperset(got) or content[:94] != intact[:94], "images that nobody wrote"
        assert time.monotonic() - began < SECONDS, "too long"

    def read(content: bytes, got: list[bytes], recovering: bool) -> None:
        def write(first: int, rows: Any) -> None:
            got.append(rows.tobytes())

        if recovering:
            found = recovery.look(io.BytesIO(content))
            archive.recover(coder, io.BytesIO(content), found, write)
        else:
            archive.decompress(coder, container.Reader(io.BytesIO(content)), write)

    corpus = out / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, start in enumerate((intact, intact[:-9], intact[:200], b"")):
        (corpus / f"start-{number}").write_bytes(bytes([64 * number]) + start)
    arguments = [
        sys.argv[0],
        str(corpus),
        f"-max_total_time={seconds}",
        f"-seed={seed}",
        f"-timeout={SECONDS}",
        f"-rss_limit_mb={MEGABYTES}",
        f"-artifact_prefix={out}/",
        f"-max_len={4 * len(intact)}",
    ]
    atheris.Setup(arguments, try_one)
    atheris.Fuzz()


if __name__ == "__main__":
    with console.one_line_errors():
        console.parse_arguments(fuzz, sys.argv[1:], prog="python experiments/fuzz_aev.py", compiles=False)()
