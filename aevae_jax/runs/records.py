"""What stands in a run's directory beside its arrays: JSON that is easy to read, and that says whose it is.

A run has a digest, a sha256 over its value and its data. `run.json` holds it; every checkpoint, `weights.safetensors`
and `results.json` carry it. `run.json` and `results.json` end with a sha256 over the rest of themselves, and the latter
has those of `metrics.jsonl`, `losses.npy` and `weights.safetensors` as well: whoever reads a run compares them all.
Runs of version 0.1 have none of these entries, and may not have some of them.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aevae_jax import durable, values
from aevae_jax.checkpoints import array_files
from aevae_jax.data import Format
from aevae_jax.types import InputError

if TYPE_CHECKING:
    from aevae_jax.runs.run import Run

RECORD, METRICS, WEIGHTS, LOSSES, RESULTS = (
    "run.json",
    "metrics.jsonl",
    "weights.safetensors",
    "losses.npy",
    "results.json",
)
FILES = (RECORD, METRICS, WEIGHTS, LOSSES, RESULTS, "curves.png", "samples.png", "reconstructions.png")
"""The files of a run, in the order in which they are written; `results.json` says that it is finished."""

CHECKPOINTS = "checkpoints"
MEMBERS, CURVE = "members", ("rate_distortion.json", "rate_distortion.png")
TENSORBOARD = "tensorboard"
PARTS = (*FILES, *CURVE, CHECKPOINTS, MEMBERS, TENSORBOARD)
"""All that training leaves; a sweep has its members' directories in `members`."""

_AS_WRITTEN = "the file that training wrote"

LARGEST_JSON = 2**24
"""Bytes of a JSON file, at most, or of one line of `metrics.jsonl`."""
LARGEST_LOG = 2**27
"""Bytes of `metrics.jsonl`, at most."""


def holds(folder: Path, name: str) -> bool:
    """Return whether there is something with that name in a directory, be it a link that leads nowhere."""
    return os.path.lexists(folder / name)


# ----------------------------------------------------------------------------------------------------------------- JSON


def write_json(path: Path, value: Any) -> None:
    """Write JSON that is easy to read and to compare; the file appears whole or not at all, and is durable."""
    durable.write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode(), what=path.name)


def write_lines(path: Path, entries: Iterable[Any]) -> None:
    """Write one line of JSON per entry; the file appears whole or not at all, and is durable."""
    durable.write_bytes(path, b"".join(map(line, entries)), what=path.name)


def line(entry: Any) -> bytes:
    """Return one entry of a file of lines."""
    return (json.dumps(entry, allow_nan=False, sort_keys=True) + "\n").encode()


def read_json(path: Path, *, lines: bool = False, sha256: str | None = None) -> Any:
    """Read JSON, or a list of one per line.

    Args:
      path: a file of a run, or of an experiment.
      lines: whether each line is JSON of its own.
      sha256: what the bytes must have, where that is known.

    Raises:
      InputError: there is no such file, it is not a regular one, too large, not JSON, or not the one that was written.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        unfinished = path.name == RESULTS and holds(path.parent, RECORD)
        raise InputError(
            "run",
            got=f"no {path.name}",
            expected="a run directory written by training",
            where=str(path.parent),
            hint="it is not finished: the command that began it resumes it" if unfinished else "type: aevae list",
        ) from None
    except (OSError, ValueError) as error:
        raise durable.unreadable(path, error, what=path.name) from None
    contents = read_bytes(path, limit=LARGEST_LOG if lines else LARGEST_JSON, sha256=sha256)
    try:
        if not lines:
            return _parsed(contents)
        return [_parsed(text) for text in contents.decode().splitlines()]
    except (ValueError, RecursionError) as error:
        raise InputError(
            path.name, got=f"an unreadable file ({error})", expected="JSON", where=str(path.parent)
        ) from None


def read_bytes(path: Path, *, limit: int, sha256: str | None = None) -> bytes:
    """Read a file of a run whole, if it has at most `limit` bytes and, where that is known, this sha256."""
    contents = durable.read_bytes(path, limit=limit, what=path.name)
    if sha256 is not None and hashlib.sha256(contents).hexdigest() != sha256:
        raise InputError(
            path.name,
            got=f"bytes that do not match their sha256 in {RESULTS}",
            expected=_AS_WRITTEN,
            where=str(path.parent),
        )
    return contents


def _parsed(text: bytes | str) -> Any:
    if len(text) > LARGEST_JSON:
        raise ValueError(f"a line of {len(text):,} bytes")
    return json.loads(text, parse_constant=_finite, parse_float=_finite)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text}, which is no finite number")
    return number


# -------------------------------------------------------------------------------------------------- the record of a run


def sealed(value: dict[str, Any]) -> dict[str, Any]:
    """Return a JSON object with a sha256 over all its other entries."""
    rest = {name: entry for name, entry in value.items() if name != "sha256"}
    return {**rest, "sha256": hashlib.sha256(array_files.canonical(rest)).hexdigest()}


def record_of(
    run: Run,
    format: Format,
    provenance: dict[str, Any],
    *,
    sweep: dict[str, Any] | None = None,
    beginning: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the record of a run, or of a sweep with these members, as `run.json` will hold it, with the entries of
    where its training begins, if that is at another run.
    """
    record = {
        "run": values.to_tree(run),
        "format": values.to_tree(format),
        "provenance": provenance,
        **(beginning or {}),
    }
    if sweep is not None:
        record["sweep"] = {name: values.to_tree(each) for name, each in sweep.items()}
    return sealed({"digest": identity(record), **record})


def identity(record: dict[str, Any]) -> str:
    """Return the digest of a run: a sha256 over its value, its data and their form, the members of a sweep, and the
    weights that it begins at, if these are not drawn.
    """
    parts = {"run": record["run"], "format": record["format"], "data": record["provenance"]["data"]["sha256"]}
    if "sweep" in record:
        parts["sweep"] = record["sweep"]
    if "initial" in record:
        parts["initial"] = initial_of(record)
    return hashlib.sha256(array_files.canonical(parts)).hexdigest()


def initial_of(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return which weights a training begins at, wherever they lie; `None` where they are drawn."""
    entry = record.get("initial")
    return None if entry is None else {name: value for name, value in entry.items() if name != "place"}


def digest_of(record: dict[str, Any]) -> str:
    """Return the digest that all files of a run carry; it is empty for a run of version 0.1, whose files carry none."""
    return str(record["digest"]) if "sha256" in record else ""


def read_record(folder: Path, *, any_kind: bool = False) -> dict[str, Any]:
    """Return what `run.json` holds: objects `run`, `format` and `provenance`, `digest`, and `resumed`, a list.

    That of a sweep has an object `sweep`, too, and is refused unless `any_kind` is allowed.

    Raises:
      InputError: no run there, a damaged file, or one that is not as it was written.
    """
    path = folder / RECORD
    record = _intact(read_json(path), path)
    if not isinstance(record, dict) or not isinstance(record.get("run"), dict):
        raise InputError("run", got="a file without one", expected='an object "run"', where=str(path))
    data = record.get("provenance")
    if not isinstance(data, dict) or not isinstance(data.get("data"), dict) or "sha256" not in data["data"]:
        raise InputError(
            RECORD,
            where=str(folder),
            got="no record of the data it was trained on",
            expected='"provenance": {"data": ...}',
        )
    initial = record.get("initial", {})
    if not isinstance(initial, dict) or not all(type(text) is str for text in initial.values()):
        raise InputError(RECORD, where=str(folder), got='another thing under "initial"', expected="an object of texts")
    if "format" not in record:
        raise InputError(
            RECORD, where=str(folder), got="no record of the form of its data", expected='an object "format"'
        )
    resumed = record.get("resumed", [])
    if not isinstance(resumed, list) or not all(isinstance(entry, dict) for entry in resumed):
        raise InputError(RECORD, where=str(folder), got='another thing under "resumed"', expected="a list of objects")
    if "sha256" in record:
        digest = identity(record)
    else:  # version 0.1: over the value alone, and never read
        digest = hashlib.sha256(json.dumps(record["run"], sort_keys=True).encode()).hexdigest()
    if record.get("digest") != digest:
        raise InputError(RECORD, where=str(folder), got="a run that does not match its digest", expected=_AS_WRITTEN)
    if "sweep" in record and not any_kind:
        raise InputError(
            "run", where=str(folder), got="a sweep", expected="one of its runs", hint=f"type: aevae list {folder}"
        )
    return record


def read_value(path: Path) -> Any:
    """Return the JSON tree of a run in a file: in a `run.json` or by itself.

    Raises:
      InputError: no such file, or one that holds no run.
    """
    path = path / RECORD if path.is_dir() else path
    if not os.path.lexists(path):
        raise InputError("config", got=f"no {path}", expected="a run.json, or what aevae train --print-config printed")
    tree = _intact(read_json(path), path)
    tree = tree["run"] if isinstance(tree, dict) and isinstance(tree.get("run"), dict) else tree
    if not isinstance(tree, dict) or tree.get("type") != "Run":
        raise InputError("config", where=str(path), got="something else", expected='a run: an object of "type" "Run"')
    return tree


def _intact(value: Any, path: Path) -> Any:
    """Return `value`, if it is as it was sealed, or was never sealed."""
    try:
        sha256 = sealed(value)["sha256"] if isinstance(value, dict) else None
    except RecursionError:
        raise InputError(
            path.name, where=str(path.parent), got="objects nested too deeply", expected=_AS_WRITTEN
        ) from None
    if sha256 and value.get("sha256", sha256) != sha256:
        raise InputError(
            path.name, where=str(path.parent), got="contents that do not match their sha256", expected=_AS_WRITTEN
        )
    return value


# --------------------------------------------------------------------------------------------- what a finished run made


class Results(NamedTuple):
    """What `results.json` and `metrics.jsonl` of a finished run hold."""

    figures: dict[str, Any]
    """Validation and test metrics, `best_epoch`, `seconds` and `protocol`."""
    history: list[dict[str, Any]]
    """One entry per epoch."""
    sha256: dict[str, str]
    """sha256 of each file that was written before the results; empty for a run of version 0.1."""


def write_results(folder: Path, figures: dict[str, Any], digest: str) -> None:
    """Write `results.json`, which makes a run finished. Figures that are not finite are written as null.

    Args:
      folder: of the run, with its metrics, losses and weights in it.
      figures: as `Trainer.results` returns them.
      digest: of the run; empty for one that was begun by version 0.1.
    """
    figures = as_written(figures)
    if digest:
        digests = {name: array_files.digest(folder / name) for name in (METRICS, WEIGHTS, LOSSES)}
        figures = sealed({**figures, "run": digest, "files": digests})
    write_json(folder / RESULTS, figures)


def as_written(figures: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of a run as `results.json` holds them: what is not finite, be it NaN or infinite, is null."""
    return {
        name: {n: v if math.isfinite(v) else None for n, v in part.items()} if isinstance(part, dict) else part
        for name, part in figures.items()
    }


def read_results(folder: Path, digest: str) -> Results:
    """Read what a finished run made, if it belongs to the run with this digest.

    Raises:
      InputError: the run is not finished, or these files are damaged, edited, or another run's.
    """
    path = folder / RESULTS
    figures = _intact(read_json(path), path)
    sha256: Any = {}
    if isinstance(figures, dict):
        owner, sha256 = figures.pop("run", ""), figures.pop("files", {})
        figures.pop("sha256", None)
        if owner != digest:
            raise InputError(
                RESULTS, where=str(folder), got="the results of another run", expected=f"those of the run in {RECORD}"
            )
    names = {METRICS, WEIGHTS, LOSSES} if digest else set()
    if not _are_results(figures) or not isinstance(sha256, dict) or sha256.keys() != names:
        raise InputError(
            RESULTS, where=str(folder), got="a file without the figures of a training", expected=_AS_WRITTEN
        )
    history = read_json(folder / METRICS, lines=True, sha256=sha256.get(METRICS))
    check_history(folder / METRICS, history, max(1, figures["best_epoch"]))
    for part in ("validation", "test"):
        figures[part] = {name: math.nan if value is None else value for name, value in figures[part].items()}
    return Results(figures, history, sha256)


def _are_results(tree: Any) -> bool:
    return (
        isinstance(tree, dict)
        and _is_count(tree.get("best_epoch"))
        and type(tree.get("seconds")) in (int, float)
        and isinstance(tree.get("protocol"), str)
        and all(_are_metrics(tree.get(part)) for part in ("validation", "test"))
        and tree["validation"].keys() == tree["test"].keys()
    )


def check_history(path: Path, entries: Sequence[Any], least: int = 0) -> None:
    """Refuse what is not an entry for each epoch, of at least so many, in the place that is named."""
    if len(entries) < least or not all(
        isinstance(entry, dict)
        and entry.get("epoch") == number
        and _is_count(entry.get("step"))
        and _is_count(entry.get("skipped"))
        and all(_are_metrics(entry.get(part)) for part in ("train", "validation"))
        for number, entry in enumerate(entries, start=1)
    ):
        raise InputError(
            path.name, where=str(path.parent), got="something else than an entry for each epoch", expected=_AS_WRITTEN
        )


def _are_metrics(tree: Any) -> bool:
    return isinstance(tree, dict) and all(v is None or type(v) in (int, float) for v in tree.values())


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63
