"""What stands in a run's directory beside its arrays: JSON that is easy to read, and what the numbers rest on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from aevae_jax import __version__
from aevae_jax.data import Dataset
from aevae_jax.types import InputError


def create_directory(folder: Path) -> Path:
    """Make a new directory; refuse one that already holds something."""
    try:
        if folder.is_dir() and any(folder.iterdir()):
            raise InputError("run directory", got=f"{folder}, which is not empty", expected="a new or empty directory",
                             hint="choose another name or remove it first")  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".probe").touch()
        (folder / ".probe").unlink()
    except OSError as error:
        raise InputError(
            "run directory", got=f"{folder} ({error.strerror})", expected="a directory to write in"
        ) from None
    return folder


def write_json(path: Path, value: Any) -> None:
    """Write JSON that is easy to read and to compare; the file appears whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")
    part.replace(path)


def read_json(path: Path, *, lines: bool = False) -> Any:
    """Read JSON, or a list of one per line, with one line of explanation where that cannot be done."""
    try:
        text = path.read_text()
        return [json.loads(line) for line in text.splitlines()] if lines else json.loads(text)
    except FileNotFoundError:
        raise InputError("run", got=f"no {path.name}", expected="a run directory written by training",
                         where=str(path.parent)) from None  # fmt: skip
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            path.name, got=f"an unreadable file ({error})", expected="JSON", where=str(path.parent)
        ) from None


def provenance(dataset: Dataset) -> dict[str, Any]:
    """What the numbers of a run rest on."""
    from importlib.metadata import version

    import jax

    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    return {
        "command": sys.argv,
        "data": dataset.record(),
        "versions": {
            "python": sys.version.split()[0],
            "aevae-jax": __version__,  # not from the metadata: a checkout on the path need not be installed
            **{name: version(name) for name in packages},
        },
        "device": {"kind": jax.devices()[0].device_kind, "count": jax.device_count(), "backend": jax.default_backend()},
    }
