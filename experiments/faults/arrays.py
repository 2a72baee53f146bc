"""Subjects: arrays in files, as data (.npy, .npz, idx) and as what is encoded or decoded."""

from __future__ import annotations

import gzip
import os
import random
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults import headers, inputs
from faults.formats import damaged, draw, forged, pickled, read_data, rows
from faults.mutate import things
from faults.trials import FREE, Change, Place, Subject

WARM = ("numpy", "aevae_jax.data.arrays", "aevae_jax.data.files")
"""What a worker imports before its first trial."""

IMAGES = (24, 6, 5)
"""Examples, height, width."""


def subjects() -> list[Subject]:
    """Return files that hold arrays."""
    return [
        _npy("bytes.npy", lambda np, dice: dice.integers(0, 256, IMAGES).astype(np.uint8)),
        _npy("floats.npy", lambda np, dice: dice.normal(size=(30, 4)).astype(np.float32)),
        _npy("fortran.npy", lambda np, dice: np.asfortranarray(dice.normal(size=(30, 4)))),
        _npz("stored.npz", compressed=False),
        _npz("deflated.npz", compressed=True),
        _idx("idx", zipped=False),
        _idx("idx.gz", zipped=True),
        _folder(),
        *inputs.subjects(),
    ]


# --------------------------------------------------------------------------------------------------------------- .npy


def _npy(name: str, make: Callable[[Any, Any], Any]) -> Subject:
    def write(folder: Path) -> None:
        import numpy as np

        np.save(folder / name, make(np, draw(len(name))), allow_pickle=False)

    def reference(folder: Path) -> Any:
        import numpy as np

        return {"train": {"x": rows(np.load(folder / name, allow_pickle=False)), "labels": None}}

    changes = damaged(name, {"flip": 40, "flip-early": 40, "cut": 25, "number": 25})
    changes |= forged(name, headers.NPY)
    changes["pickled"] = (1, pickled(name))
    return Subject(name, write, read_data(name), changes, reference)


# --------------------------------------------------------------------------------------------------------------- .npz


def _npz(name: str, *, compressed: bool) -> Subject:
    def write(folder: Path) -> None:
        import numpy as np

        dice = draw(3)
        arrays: Any = {
            f"x_{part}": dice.integers(0, 256, (n, *IMAGES[1:])).astype(np.uint8)
            for part, n in (("train", 24), ("test", 8))
        }
        arrays |= {f"y_{part}": dice.integers(0, 3, n) for part, n in (("train", 24), ("test", 8))}
        (np.savez_compressed if compressed else np.savez)(folder / name, **arrays)

    def reference(folder: Path) -> Any:
        import numpy as np

        with np.load(folder / name, allow_pickle=False) as archive:
            arrays = {key.lower(): archive[key] for key in archive.files}
        return {
            part: {
                "x": rows(arrays[f"x_{part}"]),
                "labels": rows(arrays[f"y_{part}"]) if f"y_{part}" in arrays else None,
            }
            for part in ("train", "test")
            if f"x_{part}" in arrays
        }

    changes = damaged(name, {"flip": 60, "flip-late": 40, "cut": 25, "number": 25})
    changes |= forged(name, headers.NPZ)
    changes |= {f"of-{kind}": (4, _member(name, kind)) for kind in ("empty", "cut", "exchanged", "renamed", "twice")}
    changes["pickled"] = (1, pickled(name, archive=True))
    return Subject(name, write, read_data(name), changes, reference)


def _member(name: str, kind: str) -> Change:
    """Return an archive that is intact, of members that are not, or that are exchanged."""

    def change(folder: Path, dice: random.Random, place: Place) -> None:
        with zipfile.ZipFile(folder / name) as archive:
            members = [(info.filename, archive.read(info)) for info in archive.infolist()]
        n = dice.randrange(len(members))
        title, content = members[n]
        if kind == "exchanged":
            m = dice.randrange(len(members))
            members[n], members[m] = (title, members[m][1]), (members[m][0], content)
        elif kind == "renamed":
            names = (f"../{title}", "/etc/x.npy", "x.npy", "\x1b[31m.npy", ".npy", title[:-4])
            members[n] = (dice.choice(names), content)
        elif kind == "twice":
            members.append((title, bytes(content)))
        else:
            members[n] = (title, b"" if kind == "empty" else content[: dice.randrange(len(content))])
        with warnings.catch_warnings(), zipfile.ZipFile(folder / name, "w") as archive:
            warnings.simplefilter("ignore")  # of equal names
            for member in members:
                archive.writestr(*member)

    return change


# --------------------------------------------------------------------------------------------------------------- idx


def _idx(name: str, *, zipped: bool) -> Subject:
    suffix = ".gz" if zipped else ""
    kinds = ("images-idx3", "labels-idx1")
    files = {f"{part}-{kind}-ubyte{suffix}": part for part in ("train", "t10k") for kind in kinds}

    def write(folder: Path) -> None:
        dice = draw(5)
        (folder / "data").mkdir()
        for file, part in files.items():
            n = 24 if part == "train" else 8
            shape = (n, 6, 5) if "idx3" in file else (n,)
            head = bytes((0, 0, 8, len(shape))) + struct.pack(f">{len(shape)}I", *shape)
            content = head + dice.integers(0, 256 if len(shape) == 3 else 3, shape).astype("uint8").tobytes()
            (folder / "data" / file).write_bytes(gzip.compress(content, mtime=0) if zipped else content)

    def reference(folder: Path) -> Any:
        import numpy as np

        found: dict[str, Any] = {}
        for file, part in files.items():
            path = folder / "data" / file
            found.setdefault("test" if part == "t10k" else part, {"labels": None})
            if "labels" in file and not path.exists():
                continue
            content = path.read_bytes()
            content = gzip.decompress(content) if zipped else content
            axes = content[3]
            shape = struct.unpack(f">{axes}I", content[4 : 4 + 4 * axes])
            array = np.frombuffer(content[4 + 4 * axes :], np.uint8).reshape(shape)
            found["test" if part == "t10k" else part]["x" if "idx3" in file else "labels"] = rows(array)
        return found

    changes: dict[str, tuple[int, Change]] = {}
    for file in list(files)[:2]:
        kind = "images" if "idx3" in file else "labels"
        found = damaged(f"data/{file}", {"flip": 30, "flip-early": 20, "cut": 15}, each=6)
        found |= forged(f"data/{file}", headers.IDX_GZ if zipped else headers.IDX)
        changes |= {f"{kind}-{key}": change for key, change in found.items()}
    changes["exchanged"] = (1, _exchanged(list(files)))
    return Subject(name, write, read_data("data"), changes, reference)


def _exchanged(files: list[str]) -> Change:
    """Return images and labels have each other's names."""

    def change(folder: Path, dice: random.Random, place: Place) -> None:
        one, other = (folder / "data" / file for file in files[:2])
        one.rename(folder / "x")
        other.rename(one)
        (folder / "x").rename(other)

    return change


def _folder() -> Subject:
    """Return `train.npy` and `test.npy` in a folder."""

    def write(folder: Path) -> None:
        import numpy as np

        (folder / "data").mkdir()
        for seed, part, n in ((1, "train", 24), (2, "test", 8)):
            np.save(folder / "data" / f"{part}.npy", draw(seed).integers(0, 256, (n, 6, 5)).astype(np.uint8))

    def reference(folder: Path) -> Any:
        import numpy as np

        paths = sorted((folder / "data").glob("*.npy"), reverse=True)
        return {path.stem: {"x": rows(np.load(path)), "labels": None} for path in paths}

    changes = damaged("data/test.npy", {})
    changes |= {f"folder-{kind}": (1, change) for kind, change in things("data").items()}
    changes |= {f"more-{n}": (1, _more(n)) for n in range(6)}
    return Subject("folder", write, read_data("data"), changes, reference)


def _more(n: int) -> Change:
    """Put something else into the folder."""

    def change(folder: Path, dice: random.Random, place: Place) -> Any:
        names: list[str | bytes] = ["x.npy", "\x1b[31m.npy", b"\xff\xfe.npy", "[bold].npy", "a" * 251 + ".npy", ".npy"]
        path = os.path.join(os.fsencode(folder / "data"), os.fsencode(names[n]))
        with open(path, "wb") as file:
            file.write((folder / "data" / "test.npy").read_bytes())
        return FREE

    return change
