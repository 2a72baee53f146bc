"""What stands in a run's directory beside its arrays: JSON that is easy to read and to compare."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from aevae_jax.types import InputError

FILES = (
    "run.json", "metrics.jsonl", "weights.safetensors", "losses.npy", "samples.png", "reconstructions.png",
    "results.json",
)  # fmt: skip
"""The files of a run, in the order in which they are written; `results.json` says that it is finished."""

CHECKPOINTS = "checkpoints"


def create_directory(folder: Path) -> Path:
    """Make a new directory; refuse one that already holds something."""
    if folder.is_dir() and any(folder.iterdir()):
        raise _taken(folder, "is not empty")
    return _writable(folder)


def open_directory(folder: Path) -> Path:
    """Make a directory for a run; accept one that holds a run, or what was left of one."""
    if folder.is_dir() and not (folder / "run.json").exists():
        ours = {*FILES, CHECKPOINTS, "lock"}
        if others := [path.name for path in folder.iterdir() if path.name not in ours and path.suffix != ".part"]:
            raise _taken(folder, f"is not empty ({min(others)})")
    return _writable(folder)


def clear_directory(folder: Path) -> None:
    """Delete a run, and nothing else."""
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    for name in reversed(FILES):  # the record goes last: what is left of a run is never taken for another
        (folder / name).unlink(missing_ok=True)


def _taken(folder: Path, state: str) -> InputError:
    return InputError("run directory", got=f"{folder}, which {state}", expected="a new or empty directory",
                      hint="choose another name or remove it first")  # fmt: skip


def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "probe.part").touch()
        (folder / "probe.part").unlink()
    except OSError as error:
        raise InputError(
            "run directory", got=f"{folder} ({error.strerror})", expected="a directory to write in"
        ) from None
    return folder


def write_json(path: Path, value: Any) -> None:
    """Write JSON that is easy to read and to compare; the file appears whole or not at all."""
    _write(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_lines(path: Path, entries: Iterable[Any]) -> None:
    """Write one line of JSON per entry; the file appears whole or not at all."""
    _write(path, "".join(map(line, entries)))


def line(entry: Any) -> str:
    """One entry of a file of lines."""
    return json.dumps(entry, allow_nan=False, sort_keys=True) + "\n"


def _write(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    try:
        part.write_text(text)
        part.replace(path)
    except OSError as error:
        raise InputError(path.name, got=f"a file that cannot be written ({error.strerror})",
                         expected="room and permission", where=str(path.parent)) from None  # fmt: skip


def read_json(path: Path, *, lines: bool = False) -> Any:
    """Read JSON, or a list of one per line, with one line of explanation where that cannot be done."""
    try:
        text = path.read_text()
        return [json.loads(line) for line in text.splitlines()] if lines else json.loads(text)
    except FileNotFoundError:
        unfinished = path.name == FILES[-1] and (path.parent / FILES[0]).exists()
        raise InputError("run", got=f"no {path.name}", expected="a run directory written by training",
                         where=str(path.parent),
                         hint="it is not finished: the command that began it goes on" if unfinished else "",
                         ) from None  # fmt: skip
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            path.name, got=f"an unreadable file ({error})", expected="JSON", where=str(path.parent)
        ) from None


def read_record(folder: Path) -> dict[str, Any]:
    """What `run.json` holds: objects `run`, `format` and `provenance`, and `resumed`, a list.

    Raises:
      InputError: no run there, or a damaged file.
    """
    path = folder / "run.json"
    record = read_json(path)
    if not isinstance(record, dict) or not isinstance(record.get("run"), dict):
        raise InputError("run", got="a file without one", expected='an object "run"', where=str(path))
    data = record.get("provenance")
    if not isinstance(data, dict) or not isinstance(data.get("data"), dict) or "sha256" not in data["data"]:
        raise InputError("run.json", where=str(folder), got="no record of the data it was trained on",
                         expected='"provenance": {"data": ...}')  # fmt: skip
    if not isinstance(record.get("resumed", []), list):
        raise InputError("run.json", where=str(folder), got='another thing under "resumed"', expected="a list")
    return record


def check_data(folder: Path, name: str, sha256: str) -> None:
    """Refuse data that is not what the run in `folder` was trained on."""
    data = read_record(folder)["provenance"]["data"]
    if data["sha256"] != sha256:
        raise InputError("data set", where=str(folder), got=f"other data under the name {name!r}",
                         expected=f"that of the training, {data.get('name')!r}, sha256 {str(data['sha256'])[:12]}",
                         hint="evaluate on data of your own from Python")  # fmt: skip


def differences(one: Any, other: Any, name: str = "") -> Iterator[str]:
    """Where two JSON trees differ, in words: `optimizer learning_rate 0.001, here 0.01`."""
    if isinstance(one, dict) and isinstance(other, dict) and one.get("type") == other.get("type"):
        for key in [*one, *(key for key in other if key not in one)]:
            yield from differences(one.get(key), other.get(key), f"{name} {key}".strip())
    elif one != other:
        yield f"{name} {_shown(one)}, here {_shown(other)}"


def _shown(tree: Any) -> str:
    text = str(tree["type"] if isinstance(tree, dict) and "type" in tree else tree)
    return text if len(text) <= 60 else f"{text[:60]}..."
