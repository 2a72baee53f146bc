"""Subjects: folders of pictures, and single pictures that are encoded."""

from __future__ import annotations

import io
import os
import random
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from faults.formats import damaged, draw, forged, read_data, rows
from faults.headers import written
from faults.inputs import read_images
from faults.mutate import things
from faults.trials import FREE, Change, Place, Subject, freely

WARM = ("numpy", "PIL.Image", "aevae_jax.data.pictures", "aevae_jax.data.files")
"""What a worker imports before its first trial."""

FILES = 9
"""Pictures in a folder."""

HEAVY = {"flip": 40, "flip-early": 25, "cut": 20, "number": 20}


def subjects() -> list[Subject]:
    """Return pictures of every kind that is read."""
    return [
        _folder("grey.png", "L"),
        _folder("colour.png", "RGB"),
        _folder("palette.png", "P"),
        _folder("deep.png", "I;16"),
        _folder("grey.jpg", "L"),
        _folder("colour.jpg", "RGB"),
        _folder("colour.webp", "RGB"),
        _folder("grey.tif", "L"),
        _folder("colour.tiff", "RGB"),
        *map(_single, ("one.png", "one.jpg", "one.tif", "folder")),
        _classes(),
    ]


def picture(seed: int, mode: str, height: int = 7, width: int = 6) -> Any:
    """Return a smooth one, so that JPEG and WebP have something to leave out."""
    import numpy as np
    from PIL import Image

    dice = draw(seed)
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    if mode == "I;16":
        return Image.fromarray(dice.integers(0, 2**16, shape).astype(np.uint16))
    image = Image.fromarray(dice.integers(0, 256, shape).astype(np.uint8))
    return image.convert("P") if mode == "P" else image


def _folder(name: str, mode: str) -> Subject:
    """Return a folder of such pictures, of which the first is damaged."""
    suffix = Path(name).suffix

    def write(folder: Path) -> None:
        (folder / "data").mkdir()
        for n in range(FILES):
            picture(n, mode).save(folder / "data" / f"{n}{suffix}")

    def reference(folder: Path) -> Any:
        """Read by Pillow alone; the others are what they were."""
        import numpy as np
        from PIL import Image, ImageOps

        found = []
        for n in range(FILES):
            with Image.open(folder / "data" / f"{n}{suffix}") as image:
                channels = {"P": "RGB", "RGB": "RGB", "L": "L"}.get(mode)
                found.append(image.convert(channels) if channels else image.copy())
        size = min(image.width for image in found), min(image.height for image in found)
        found = [
            image if image.size == size else ImageOps.fit(image, size, Image.Resampling.LANCZOS) for image in found
        ]
        return {"train": {"x": rows(np.stack([np.asarray(image) for image in found])), "labels": None}}

    exact = suffix == ".png"  # it has checksums
    target = f"data/0{suffix}"
    changes = damaged(target, HEAVY, each=8)
    changes |= forged(target, BOMBS)
    changes |= {f"name-{n}": (1, _named(n, suffix)) for n in range(len(NAMES))}
    changes["missing"] = (1, freely(changes["missing"][1]))  # one less is another data set
    changes |= {f"folder-{kind}": (1, change) for kind, change in things("data").items()}
    return Subject(name, write, read_data("data"), changes, None if exact else reference)


def _single(name: str) -> Subject:
    """Return one picture that is encoded, or a folder of them, whose first is damaged."""
    file = name if "." in name else f"{name}/0.png"

    def write(folder: Path) -> None:
        (folder / file).parent.mkdir(exist_ok=True)
        picture(1, "L").save(folder / file)
        if file != name:
            picture(2, "L").save(folder / name / "1.png")

    def read(folder: Path) -> Any:
        x = read_images(folder / name, (7, 6, 1))
        return {"values": x, "sha256": str(x.tolist())}

    def reference(folder: Path) -> Any:
        import numpy as np
        from PIL import Image, ImageOps

        with Image.open(folder / file) as image:
            found = image if image.size == (6, 7) else ImageOps.fit(image, (6, 7), Image.Resampling.LANCZOS)
            return rows((np.asarray(found.convert("L")) / np.float32(255))[None])

    changes = damaged(file, HEAVY) | forged(file, BOMBS)
    if file != name:
        changes["missing"] = (1, freely(changes["missing"][1]))  # one less is another input
    return Subject(f"encode-{name}", write, read, changes, None if file.endswith(".png") else reference)


def _classes() -> Subject:
    """Return class folders in folders of splits: something else lies there, or is called otherwise."""

    def write(folder: Path) -> None:
        for part in ("train", "test"):
            for label in ("cat", "dog"):
                (folder / "data" / part / label).mkdir(parents=True)
                for n in range(4):
                    seed = n + 10 * (label == "dog") + 100 * (part == "test")
                    picture(seed, "L").save(folder / "data" / part / label / f"{n}.png")

    changes: dict[str, tuple[int, Change]] = {}
    for name, free in (("train", ()), ("train/cat", ("missing", *PLAIN)), ("train/cat/0.png", ("missing",))):
        for kind, change in things(f"data/{name}").items():
            label = f"{name.replace('/', '-')}-{kind}"
            changes[label] = (1, freely(change) if kind in free else change)
    changes |= {f"name-{n}": (1, _class_named(n)) for n in range(len(NAMES))}
    return Subject("classes", write, read_data("data"), changes | {"missing-any": (8, _lose_one)}, share="classes")


PLAIN = ("empty", "giant", "hollow", "link-outside", "link-precious", "link-environment", "link-memory")
"""A file without suffix is a note, and passed over."""


def _lose_one(folder: Path, dice: random.Random, place: Place) -> Any:
    """Return a picture less is another data set."""
    paths = sorted((folder / "data").rglob("*.png"))
    dice.choice(paths).unlink()
    return FREE


# --------------------------------------------------------------------------------------------------------------- names

NAMES: tuple[str | bytes, ...] = (
    "\x1b[31mred",
    "[bold]",
    "[",
    "\n",
    "\r",
    "\u202e",
    b"\xff\xfe",
    "a" * 240,
    "-",
    "--help",
    "'",
    '"',
    "$(touch x)",
    "`touch x`",
    ";",
    "%s",
    "{0}",
    "\\",
    " ",
    "~",
    "*",
    "NUL",
    ".hidden",
    "\u0130",
    "e\u0301",
    "\U0001f600",
    "../..x",
)
"""Names of files without their suffix."""


def _moved(path: Path, name: str | bytes, suffix: str) -> None:
    raw = name if isinstance(name, bytes) else name.encode()
    os.rename(path, os.path.join(os.fsencode(path.parent), raw.replace(b"/", b"_") + suffix.encode()))


def _named(n: int, suffix: str) -> Change:
    """Return a picture is called something else; that changes the order, and no more."""

    def change(folder: Path, dice: random.Random, place: Place) -> Any:
        _moved(folder / "data" / f"0{suffix}", NAMES[n], suffix)
        return FREE

    return change


def _class_named(n: int) -> Change:
    def change(folder: Path, dice: random.Random, place: Place) -> Any:
        _moved(folder / "data" / "train" / "dog", NAMES[n], "")
        return FREE

    return change


# --------------------------------------------------------------------------------------------------------------- bombs


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return a part of a PNG file, with its checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(height: int, width: int, data: bytes, *more: bytes, depth: int = 8, colour: int = 0) -> bytes:
    """Return a PNG file whose header says this, whatever its data are."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _zeros(size: int) -> bytes:
    packer = zlib.compressobj(9)
    parts = [packer.compress(bytes(2**20)) for _ in range(size // 2**20)]
    return b"".join(parts) + packer.flush()


def _saved(form: str, **options: Any) -> Callable[[Path, random.Random], Any]:
    def make(path: Path, dice: random.Random) -> None:
        picture(0, "RGB").save(path, form, **options)

    return make


def _animated(path: Path, dice: random.Random) -> None:
    picture(0, "L").save(path, "PNG", save_all=True, append_images=[picture(1, "L")])


def _jpeg(path: Path, dice: random.Random) -> None:
    """Say in the header 65,500 x 65,500."""
    out = io.BytesIO()
    picture(0, "L").save(out, "JPEG")
    content = bytearray(out.getvalue())
    start = content.index(b"\xff\xc0")
    content[start + 5 : start + 9] = struct.pack(">HH", 65500, 65500)
    path.write_bytes(content)


TIFF = (
    (256, 4, 6),
    (257, 4, 7),
    (258, 3, 8),
    (259, 3, 1),
    (262, 3, 1),
    (273, 4, 8),
    (277, 3, 1),
    (278, 4, 7),
    (279, 4, 42),
)
"""Tags, types and values of the directory of a sound file."""


def _tiff(*entries: tuple[int, int, int, int]) -> Callable[[Path, random.Random], Any]:
    """Return its directory says this: tag, type, count and value."""

    def make(path: Path, dice: random.Random) -> None:
        known = {tag: (tag, kind, 1, value) for tag, kind, value in TIFF}
        known |= {entry[0]: entry for entry in entries}
        body = bytes(range(42)) + b"\0\0"
        directory = struct.pack("<H", len(known)) + b"".join(struct.pack("<HHII", *known[tag]) for tag in sorted(known))
        path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(body)) + body + directory + bytes(4))

    return make


_DATA = zlib.compress(b"".join(b"\0" + bytes(range(6)) for _ in range(7)))
BOMBS: Mapping[str, Callable[[Path, random.Random], Any]] = {
    "large": written(png(60_000, 60_000, _DATA)),
    "largest": written(png(2**31 - 1, 2**31 - 1, _DATA)),
    "no-size": written(png(0, 0, _DATA)),
    "high": written(png(67_000_000, 1, _DATA)),
    "under-the-limit": lambda path, dice: path.write_bytes(png(8000, 8000, _zeros(2**26))),
    "more-data": lambda path, dice: path.write_bytes(png(7, 6, _zeros(2**28))),
    "less-data": written(png(7, 6, zlib.compress(b"\0"))),
    "depth-16": written(png(7, 6, zlib.compress(bytes(7 * 13)), depth=16)),
    "depth-3": written(png(7, 6, _DATA, depth=3)),
    "no-palette": written(png(7, 6, _DATA, colour=3)),
    "alpha": written(png(7, 6, zlib.compress(bytes(7 * 25)), colour=6)),
    "text-bomb": lambda path, dice: path.write_bytes(png(7, 6, _DATA, chunk(b"zTXt", b"a\0\0" + _zeros(2**28)))),
    "profile-bomb": lambda path, dice: path.write_bytes(png(7, 6, _DATA, chunk(b"iCCP", b"a\0\0" + _zeros(2**28)))),
    "exif-noise": lambda path, dice: path.write_bytes(png(7, 6, _DATA, chunk(b"eXIf", dice.randbytes(3000)))),
    "exif-loop": written(
        png(7, 6, _DATA, chunk(b"eXIf", b"II*\0\x08\0\0\0\1\0\x69\x87\4\0\1\0\0\0\x08\0\0\0\0\0\0\0"))
    ),
    "many-chunks": lambda path, dice: path.write_bytes(png(7, 6, _DATA, chunk(b"tEXt", b"a\0b") * 100_000)),
    "long-chunk": written(png(7, 6, _DATA)[:33] + struct.pack(">I", 2**31 - 1) + b"IDATx"),
    "animated": _animated,
    "jpeg-large": _jpeg,
    "tiff-large": _tiff((256, 4, 1, 2**31 - 1), (257, 4, 1, 2**31 - 1)),
    "tiff-strips": _tiff((278, 4, 1, 2**32 - 1), (279, 4, 1, 2**32 - 1)),
    "tiff-offset": _tiff((273, 4, 1, 2**32 - 1)),
    "tiff-counts": _tiff((273, 4, 2**32 - 1, 8), (279, 4, 2**32 - 1, 8)),
    "tiff-samples": _tiff((277, 3, 1, 65535)),
    "tiff-compression": _tiff((259, 3, 1, 7)),
    "tiff-lzma": _tiff((259, 3, 1, 34925)),
    "gif": _saved("GIF"),
    "bmp": _saved("BMP"),
    "svg": written(b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'),
    "postscript": written(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 7\n(../executed) (w) file closefile\n"),
    "zip": written(b"PK\3\4" + bytes(100)),
    "text": written(b"no picture"),
}
