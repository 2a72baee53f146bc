"""Subjects: arrays that are encoded, decoded or reconstructed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from faults import headers
from faults.formats import damaged, draw, forged, pickled, rows
from faults.trials import Change, Subject


def subjects() -> list[Subject]:
    """Return images and codes."""
    names = ("npy", "npz")
    return [*(_images(f"images.{name}") for name in names), *(_codes(f"codes.{name}") for name in names)]


class _Model:
    """What `files.read_images` asks of a model."""

    def __init__(self, event_shape: tuple[int, ...]):
        self.event_shape = event_shape

    @property
    def likelihood(self) -> Any:
        from aevae_jax.models.likelihoods import NormalSharedScale

        return NormalSharedScale()


def read_images(path: Path, shape: tuple[int, ...]) -> Any:
    """Return what is encoded of a file of images."""
    from aevae_jax.data import Data, Format, files

    return rows(files.read_images(path, _Model(shape), Data("x"), Format(shape, levels=256), note=lambda text: None))


def _images(name: str) -> Subject:
    def write(folder: Path) -> None:
        import numpy as np

        x = draw(7).integers(0, 256, (9, 6, 5, 1)).astype(np.uint8)
        np.savez_compressed(folder / name, images=x) if name.endswith("z") else np.save(folder / name, x)

    def read(folder: Path) -> Any:
        x = read_images(folder / name, (6, 5, 1))
        return {"values": x, "sha256": str(x.tolist())}

    def reference(folder: Path) -> Any:
        import numpy as np

        loaded = np.load(folder / name)
        x = loaded if isinstance(loaded, np.ndarray) else loaded[loaded.files[0]]
        return rows((x / np.float32(255)).astype(np.float32) if x.dtype == np.uint8 else x.astype(np.float32))

    changes = damaged(name, {"flip": 30, "flip-early": 30}) | _forged(name)
    changes["pickled"] = (1, pickled(name, archive=name.endswith("z")))
    return Subject(f"encode-{name}", write, read, changes, reference)


def _codes(name: str) -> Subject:
    def write(folder: Path) -> None:
        import numpy as np

        z = draw(8).normal(size=(9, 4)).astype(np.float32)
        np.savez_compressed(folder / name, codes=z) if name.endswith("z") else np.save(folder / name, z)

    def read(folder: Path) -> Any:
        from aevae_jax.data import files

        z = files.read_codes(folder / name, 4)
        return {"values": rows(z), "sha256": str(rows(z).tolist())}

    def reference(folder: Path) -> Any:
        import numpy as np

        loaded = np.load(folder / name)
        z = loaded if isinstance(loaded, np.ndarray) else loaded[loaded.files[0]]
        return rows(z.astype(np.float32))

    changes = damaged(name, {"flip": 20, "flip-early": 30}) | _forged(name)
    changes["pickled"] = (1, pickled(name, archive=name.endswith("z")))
    return Subject(f"decode-{name}", write, read, changes, reference)


def _forged(name: str) -> dict[str, tuple[int, Change]]:
    return forged(name, headers.NPZ if name.endswith("z") else headers.NPY)
