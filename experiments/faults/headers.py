"""Files whose headers lie, and bombs: small files that expand without end. Each writes one at a path."""

from __future__ import annotations

import gzip
import io
import os
import random
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

Maker = Callable[[Path, random.Random], object]


def written(content: bytes) -> Maker:
    """Return what writes just this."""
    return lambda path, dice: path.write_bytes(content)


def sparse(path: Path, head: bytes, size: int) -> None:
    """Make a file of that size with nothing behind its head, which takes no room on the disk."""
    path.write_bytes(head)
    os.truncate(path, size)


ZEROS = 2**28
"""Bytes of a bomb, expanded: 256 MiB. In some the header claims so many, in others it says nothing of them."""


def npy(header: str | bytes, body: bytes = bytes(720), *, version: int = 1) -> bytes:
    """Return a .npy file with this header, padded as it should be."""
    text = header.encode() if isinstance(header, str) else header
    size = 2 if version == 1 else 4
    text += b" " * (-(8 + size + len(text) + 1) % 64) + b"\n"
    length = len(text) % (1 << 8 * size)
    return b"\x93NUMPY" + bytes((version, 0)) + length.to_bytes(size, "little") + text + body


def _described(descr: str, shape: str, fortran: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}"


_HEADERS: dict[str, str | bytes] = {
    "large": _described("'|u1'", "(1000000000000, 28, 28)"),
    "huge": _described("'<f8'", f"({2**62}, 4)"),
    "larger-than-any": _described("'<f8'", f"({10**30}, 4)"),
    "negative": _described("'|u1'", "(-1, 6, 5)"),
    "empty": _described("'|u1'", "(0, 6, 5)"),
    "scalar": _described("'|u1'", "()"),
    "no-features": _described("'|u1'", f"({2**40}, 0)"),
    "flags": _described("'|u1'", "(True, 6, 5)"),
    "many-axes": _described("'|u1'", f"({'1, ' * 70})"),
    "objects": _described("'|O'", "(24, 6, 5)"),
    "texts": _described("'<U180'", "(1,)"),
    "fields": _described("[('a', '<f4'), ('b', '|O')]", "(90,)"),
    "void": _described("'|V720'", "(1,)"),
    "dates": _described("'<M8[s]'", "(90,)"),
    "complex": _described("'<c16'", "(45,)"),
    "half": _described("'<f2'", "(24, 15)"),
    "long-double": _described("'<f16'", "(9, 5)"),
    "big-endian": _described("'>f4'", "(36, 5)"),
    "no-type": _described("'<q99'", "(90,)"),
    "code": "__import__('os').system('touch ../executed')",
    "code-in-shape": _described("'|u1'", "(__import__('os').system('touch ../executed'), 6, 5)"),
    "list": "[1, 2]",
    "keys-missing": "{'descr': '|u1'}",
    "key-twice": "{'descr': '|u1', 'descr': '|O', 'fortran_order': False, 'shape': (24, 6, 5), }",
    "nested": "(" * 5000 + ")" * 5000,
    "deep": "-" * 9000 + "1",
    "long": _described("'|u1'", "(24, 6, 5)") + " " * 60000,
    "no-text": b"\xff\xfe\0\0",
}
NPY: Mapping[str, Maker] = {
    **{kind: written(npy(header)) for kind, header in _HEADERS.items()},
    "version-2": written(npy(_described("'|u1'", "(24, 6, 5)"), version=2)),
    "version-3": written(npy(_described("'|u1'", "(24, 6, 5)"), version=3)),
    "version-9": written(npy(_described("'|u1'", "(24, 6, 5)"), version=9)),
    "header-of-4-GiB": lambda path, dice: path.write_bytes(b"\x93NUMPY\2\0\xff\xff\xff\xff{" + bytes(1000)),
    "sparse": lambda path, dice: sparse(path, npy(_described("'|u1'", f"({2**30}, 8, 8)"), b""), 2**36),
    "nan": lambda path, dice: path.write_bytes(
        npy(_described("'<f4'", "(45, 4)"), struct.pack("<f", float("nan")) * 180)
    ),
    "infinite": lambda path, dice: path.write_bytes(
        npy(_described("'<f4'", "(45, 4)"), struct.pack("<f", float("inf")) * 180)
    ),
    "largest": lambda path, dice: path.write_bytes(npy(_described("'<f8'", "(30, 3)"), struct.pack("<d", 1e308) * 90)),
    "denormal": lambda path, dice: path.write_bytes(
        npy(_described("'<f8'", "(30, 3)"), struct.pack("<d", 5e-324) * 90)
    ),
}


# --------------------------------------------------------------------------------------------------------------- .npz


def _archive(path: Path, members: Mapping[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", method) as archive:
        warnings.simplefilter("ignore")
        for name, content in members.items():
            archive.writestr(name, content)


def _bomb(path: Path, claimed: str) -> None:
    """Put zeros behind a header that claims what it claims."""
    _archive(path, {"images.npy": npy(claimed, b"")[:-1] + b"\n" + bytes(ZEROS)})


def _lies(path: Path, field: int, value: int) -> None:
    """Change a number in the archive's directory: 20 the compressed size, 24 the size, 42 where it begins."""
    _archive(path, {"images.npy": npy(_described("'|u1'", "(24, 6, 5)"))})
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\1\2")
    content[entry + field : entry + field + 4] = struct.pack("<I", value)
    path.write_bytes(content)


def _overlapping(path: Path) -> None:
    """Write a directory in which 2,000 names stand for the same compressed bytes."""
    body = npy(_described("'|u1'", f"({2**20 - 128},)"), bytes(2**20 - 128))
    _archive(path, {"a.npy": body})
    content = path.read_bytes()
    start, end = content.index(b"PK\1\2"), content.index(b"PK\5\6")
    entry = content[start:end]
    entries = b"".join(entry[:46] + f"{n:05}"[:1].encode() + entry[47:] for n in range(2000))
    tail = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 2000, 2000, len(entries), start, 0)
    path.write_bytes(content[:start] + entries + tail)


def _encrypted(path: Path) -> None:
    _archive(path, {"images.npy": npy(_described("'|u1'", "(24, 6, 5)"))})
    content = bytearray(path.read_bytes())
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(mark) + place] |= 1
    path.write_bytes(content)


_SOUND = npy(_described("'|u1'", "(24, 6, 5)"))
NPZ: Mapping[str, Maker] = {
    "no-member": lambda path, dice: _archive(path, {}),
    "many-members": lambda path, dice: _archive(path, {f"{n}.npy": b"" for n in range(20_000)}),
    "bomb": lambda path, dice: _bomb(path, _described("'|u1'", f"({2**22}, 8, 8)")),
    "bomb-beyond": lambda path, dice: _bomb(path, _described("'|u1'", "(24, 6, 5)")),
    "bomb-lzma": lambda path, dice: _archive(path, {"images.npy": bytes(ZEROS // 8)}, method=zipfile.ZIP_LZMA),
    "bomb-bzip2": lambda path, dice: _archive(path, {"images.npy": bytes(ZEROS // 8)}, method=zipfile.ZIP_BZIP2),
    "size-less": lambda path, dice: _lies(path, 24, 10),
    "size-more": lambda path, dice: _lies(path, 24, 2**31),
    "packed-less": lambda path, dice: _lies(path, 20, 3),
    "packed-more": lambda path, dice: _lies(path, 20, 2**31),
    "elsewhere": lambda path, dice: _lies(path, 42, 2**30),
    "method": lambda path, dice: _lies(path, 10, 99),
    "overlapping": lambda path, dice: _overlapping(path),
    "encrypted": lambda path, dice: _encrypted(path),
    "not-arrays": lambda path, dice: _archive(path, {"images.npy": b"x" * 100}),
    "path-up": lambda path, dice: _archive(path, {"../../outside/precious": _SOUND, "images.npy": _SOUND}),
    "escapes": lambda path, dice: _archive(path, {"\x1b[31m[/s]\u202e.npy": _SOUND, "images.npy": _SOUND}),
    "long-name": lambda path, dice: _archive(path, {"x" * 60000 + ".npy": _SOUND}),
    "within": lambda path, dice: _archive(path, {"images.npz": _SOUND}),
    "header-of-an-object": lambda path, dice: _archive(path, {"images.npy": npy(_described("'|O'", "(9,)"))}),
    "header-large": lambda path, dice: _archive(path, {"images.npy": npy(_HEADERS["large"])}),
    "header-code": lambda path, dice: _archive(path, {"images.npy": npy(_HEADERS["code"])}),
    "header-deep": lambda path, dice: _archive(path, {"images.npy": npy(_HEADERS["deep"])}),
    "zeros-of-a-million": lambda path, dice: _archive(
        path, {"images.npy": npy(_described("'|u1'", f"({2**20}, 2)"), bytes(2**21))}
    ),
}

# --------------------------------------------------------------------------------------------------------------- idx


def _head(axes: int, *sizes: int, kind: int = 8) -> bytes:
    return bytes((0, 0, kind, axes)) + struct.pack(f">{len(sizes)}I", *sizes)


_IDX = {
    "large": _head(3, 2**32 - 1, 28, 28) + bytes(720),
    "largest": _head(3, 2**32 - 1, 2**32 - 1, 2**32 - 1),
    "empty": _head(3, 0, 6, 5),
    "no-pixels": _head(3, 2**31, 0, 5),
    "axes": _head(255, *([1] * 255)) + bytes(1),
    "floats": _head(3, 24, 6, 5, kind=13) + bytes(2880),
    "no-axes": _head(0),
    "less": _head(3, 30, 6, 5) + bytes(720),
    "more": _head(3, 20, 6, 5) + bytes(720),
}
IDX: Mapping[str, Maker] = {
    **{kind: written(content) for kind, content in _IDX.items()},
    "sparse": lambda path, dice: sparse(path, _head(3, 24, 6, 5), 2**36),
}


def _gzip_bomb(path: Path, head: bytes) -> None:
    out, packer = io.BytesIO(), zlib.compressobj(9, zlib.DEFLATED, 31)
    out.write(packer.compress(head))
    for _ in range(ZEROS // 2**22):
        out.write(packer.compress(bytes(2**22)))
    out.write(packer.flush())
    path.write_bytes(out.getvalue())


IDX_GZ: Mapping[str, Maker] = {
    **{kind: written(gzip.compress(content)) for kind, content in _IDX.items()},
    "bomb-claimed": lambda path, dice: _gzip_bomb(path, _head(3, ZEROS // 64, 8, 8)),
    "bomb-beyond": lambda path, dice: _gzip_bomb(path, _head(3, 24, 6, 5)),
    "many-members": lambda path, dice: path.write_bytes(gzip.compress(b"") * 50_000),
    "plain": lambda path, dice: path.write_bytes(_head(3, 24, 6, 5) + bytes(720)),
    "name-in-header": lambda path, dice: path.write_bytes(
        b"\x1f\x8b\x08\x08\0\0\0\0\0\3" + b"x" * 10**7 + b"\0" + gzip.compress(_head(3, 24, 6, 5) + bytes(720))[10:]
    ),
}
