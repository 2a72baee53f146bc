"""What the subjects of all formats share: how values are compared, and what is done to any file."""

from __future__ import annotations

import functools
import io
import random
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from faults.mutate import BYTES, at, things
from faults.trials import FREE, Change, Place


def draw(seed: int) -> Any:
    """Return NumPy's generator."""
    import numpy as np

    return np.random.default_rng(seed)


def rows(x: Any) -> Any:
    """Return values in float32, however they are stored, without a last axis of one channel."""
    import numpy as np

    array = np.asarray(x[:])
    array = array[..., 0] if array.ndim == 4 and array.shape[-1] == 1 else array
    return array.astype(np.float32)


def read_data(name: str, **options: Any) -> Callable[[Path], Any]:
    """Return what the loader finds, and what `Data.load` says of it."""

    def read(folder: Path) -> Any:
        from aevae_jax.data import loading

        value = loading.Data(f"./{name}", **options)
        found = loading.reader_of(Path(value.name))(Path(value.name), value)
        parts = {
            part: {"x": rows(split.x), "labels": None if split.labels is None else rows(split.labels)}
            for part, split in found.parts.items()
        }
        return {"values": parts, "sha256": value.load().digest()}

    return read


def damaged(name: str, kinds: Mapping[str, int], *, each: int = 10) -> dict[str, tuple[int, Change]]:
    """Return what is done to the bytes and the place of any file; `kinds` says which are tried more often."""
    changes: dict[str, tuple[int, Change]] = {kind: (1, change) for kind, change in things(name).items()}
    return changes | {kind: (kinds.get(kind, each), at(name, edit)) for kind, edit in BYTES.items()}


def forged(name: str, makers: Mapping[str, Callable[[Path, random.Random], Any]]) -> dict[str, tuple[int, Change]]:
    """Return files that lie or overflow, in place of the intact one; whatever a sound reader makes of them is right."""

    def change(make: Callable[[Path, random.Random], Any], folder: Path, dice: random.Random, place: Place) -> Any:
        make(folder / name, dice)
        return FREE

    return {f"forged-{kind}": (1, functools.partial(change, make)) for kind, make in makers.items()}


def pickled(name: str, *, archive: bool = False) -> Change:
    """Return an array of objects: whoever unpickles it makes the canary."""

    def change(folder: Path, dice: random.Random, place: Place) -> None:
        import numpy as np

        file = io.BytesIO()
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": (1,)})
        file.write(payload(place.canary))
        if archive:
            with zipfile.ZipFile(folder / name, "w") as members:
                members.writestr("images.npy", file.getvalue())
        else:
            (folder / name).write_bytes(file.getvalue())

    return change


def payload(canary: Path) -> bytes:
    """Return a pickle, written by hand in protocol 0, that makes the file `canary` as soon as it is read."""
    return f"cos\nmknod\n({str(canary)!r}\n".replace("(", "(S", 1).encode() + b"tR."
