"""What the subjects of all formats share: how values are compared, and what is done to any file."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from faults.mutate import BYTES, at, things
from faults.trials import FREE, Change, Place


def draw(seed: int) -> Any:
    """NumPy's generator."""
    import numpy as np

    return np.random.default_rng(seed)


def rows(x: Any) -> Any:
    """Values in float32, however they are stored, without a last axis of one channel."""
    import numpy as np

    array = np.asarray(x[:])
    array = array[..., 0] if array.ndim == 4 and array.shape[-1] == 1 else array
    return array.astype(np.float32)


def read_data(name: str, **options: Any) -> Callable[[Path], Any]:
    """What the loader finds, and what `Data.load` says of it."""

    def read(folder: Path) -> Any:
        from aevae_jax import data

        value = data.Data(f"./{name}", **options)
        found = data._reader(Path(value.name))(Path(value.name), value)
        parts = {part: {"x": rows(split.x), "labels": None if split.labels is None else rows(split.labels)}
                 for part, split in found.parts.items()}  # fmt: skip
        return {"values": parts, "sha256": value.load().digest()}

    return read


def damaged(name: str, kinds: Mapping[str, int], *, each: int = 10) -> dict[str, tuple[int, Change]]:
    """What is done to the bytes and the place of any file; `kinds` says which are tried more often."""
    changes: dict[str, tuple[int, Change]] = {kind: (1, change) for kind, change in things(name).items()}
    return changes | {kind: (kinds.get(kind, each), at(name, edit)) for kind, edit in BYTES.items()}


def forged(name: str, makers: Mapping[str, Callable[[Path, random.Random], Any]]) -> dict[str, tuple[int, Change]]:
    """Files that lie or overflow, in place of the intact one; whatever a sound reader makes of them is right."""

    def change(make: Callable[[Path, random.Random], Any], folder: Path, dice: random.Random, place: Place) -> Any:
        make(folder / name, dice)
        return FREE

    return {f"forged-{kind}": (1, functools.partial(change, make)) for kind, make in makers.items()}


def pickled(name: str, *, archive: bool = False) -> Change:
    """An array of objects: whoever unpickles it touches the canary."""

    def change(folder: Path, dice: random.Random, place: Place) -> None:
        import numpy as np

        array = np.array([Touch(str(place.canary))], dtype=object)
        with (folder / name).open("wb") as file:
            if archive:
                np.savez(file, images=array, allow_pickle=True)
            else:
                np.save(file, array, allow_pickle=True)

    return change


class Touch:
    """Touches a file when it is unpickled."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self) -> Any:
        return _touch, (self.path,)


def _touch(path: str) -> None:
    Path(path).write_text("executed")
