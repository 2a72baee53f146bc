"""Whether the run that is in a directory is the one that is asked for: then it is resumed, or given back."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from aevae_jax import durable, values
from aevae_jax.data import Dataset
from aevae_jax.runs import data_of_runs, records
from aevae_jax.runs.run import Run, as_recorded, read
from aevae_jax.types import InputError

Unwritten = list[tuple[str, Any]]
"""Those parts of a run that a record cannot hold, each with a name such as `objective beta`."""

_KNOWN: dict[str, tuple[str, Unwritten]] = {}
"""Digest, by directory, of the run that this process trained there last, and its parts that are not written:
whether a run has the same ones is only known as long as they are there."""


def remember(folder: Path, record: dict[str, Any], parts: Unwritten) -> None:
    """Keep in mind which objects the run in a directory has."""
    _KNOWN[os.path.realpath(folder)] = records.digest_of(record), parts


def begun(run: Run, tree: Any) -> Run:
    """Return the run that is asked for, with what it leaves open as this tree has it.

    It is that of the run in the directory: so the command that began a run resumes it, whatever has come to suit the
    data since.
    """
    tree = tree if isinstance(tree, dict) else {}
    if not run.batch_size and type(size := tree.get("batch_size")) is int:
        run = replace(run, batch_size=size)
    model = tree.get("model")
    if not isinstance(model, dict) or model.get("type") != type(run.model).__name__:
        return run
    try:
        return replace(run, model=as_recorded(run.model, model, records.RECORD))
    except InputError:  # an object from Python, which cannot be built
        return run


def go_on(folder: Path, record: dict[str, Any], dataset: Dataset, parts: Unwritten) -> dict[str, Any]:
    """Refuse to resume another run or other data; write down an environment that is another.

    Args:
      folder: with a run in it.
      record: of the run that is asked for.
      dataset: its data.
      parts: those of it that `unwritten` finds.

    Returns:
      The record that is there; of a run that version 0.1 began, it has no digests, and nor will the rest of that run.

    Raises:
      InputError: it is another run, or that cannot be known.
    """
    written = records.read_record(folder, any_kind=True)
    found = [*differences(completed(written["run"]), record["run"])]
    found += differences(written.get("sweep"), record.get("sweep"), "sweep")
    if records.initial_of(written) != records.initial_of(record):
        found.append(f"{_begun(written)}, here {_begun(record)}")
    if found:
        raise _another(folder, found, _advice(folder, written, record))
    digest, before = _KNOWN.get(os.path.realpath(folder), ("", []))
    if parts and (digest != record["digest"] or any(a is not b for (_, a), (_, b) in zip(before, parts, strict=True))):
        name, value = parts[0]
        raise InputError(
            f"{name} of the run",
            where=str(folder),
            expected="the same object, in the same process",
            got=f"a {type(value).__name__} that cannot be compared with the one it has",
            hint="write it as a frozen dataclass or a function, and start over with --fresh",
        )
    data_of_runs.check_data(folder, dataset)
    here = environment_of(record["provenance"])
    x64 = _x64(written)
    if x64 != _x64(record) and not records.holds(folder, records.RESULTS):
        raise InputError(
            "JAX_ENABLE_X64",
            got=int(_x64(record)),
            expected=f"{int(x64)}, as where this run was begun",
            where=str(folder),
            hint=f"set JAX_ENABLE_X64={int(x64)}, or --fresh",
        )
    known = [written["provenance"], *written.get("resumed", [])]
    if not any(here.items() <= entry.items() for entry in known):
        resumed = {**written, "resumed": [*written.get("resumed", []), here]}
        written = records.sealed(resumed) if "sha256" in written else resumed
        records.write_json(folder / records.RECORD, written)
    return written


def check_typed(folder: Path, run: Run) -> None:
    """Refuse another run than the one in a directory where that is seen without its data, and so before JAX is
    imported: in all but its epochs, the shapes of its events and conditions, and what may be left open.

    Raises:
      InputError: it is another run, or its record is damaged.
    """
    if not records.holds(folder, records.RECORD):
        return
    written = records.read_record(folder, any_kind=True)
    if "sweep" in written:
        return
    asked = values.to_tree(begun(run, written["run"]))
    one, other = (_without_data(tree) for tree in (completed(written["run"]), asked))
    if found := [*differences(one, other)]:
        raise _another(folder, found, _otherwise(folder))


def _without_data(tree: dict[str, Any]) -> dict[str, Any]:
    """Return the tree of a run without its epochs, and without what its model and loss may take from the data."""
    open_to_data = ("event_shape", "classes", "vector", "likelihood", "latent_prior", "num_examples")
    parts = {
        part: {name: item for name, item in tree[part].items() if name not in open_to_data}
        for part in ("model", "objective")
        if isinstance(tree.get(part), dict)
    }
    return {name: item for name, item in {**tree, **parts}.items() if name != "epochs"}


def _another(folder: Path, found: list[str], hint: str) -> InputError:
    """Return the error that another run is in a directory."""
    got = f"{folder}, which holds another run ({'; '.join(found)})"
    return InputError("run directory", got=got, expected="the same run, or a new directory", hint=hint)


def _otherwise(folder: Path) -> str:
    """Return what to type in place of a directory that is taken."""
    return f"such as {shlex.quote(str(durable.unused(folder)))}, or --fresh to start over"


def _advice(folder: Path, written: dict[str, Any], record: dict[str, Any]) -> str:
    """Return what to type in place of what asks for another run than the one that is there."""
    before, epochs = completed(written["run"]), record["run"]["epochs"]
    more = "sweep" not in written and {**before, "epochs": epochs} == record["run"] and epochs > before["epochs"]
    if more and records.holds(folder, records.RESULTS):
        new = shlex.quote(str(durable.unused(folder)))
        return f"to go on from it: aevae train {new} --from {shlex.quote(str(folder))} --epochs {epochs}"
    return _otherwise(folder)


def environment_of(provenance: dict[str, Any]) -> dict[str, Any]:
    """Return what a provenance says of where it was, without the data and what was typed."""
    return {name: value for name, value in provenance.items() if name not in ("command", "data")}


def _x64(record: dict[str, Any]) -> bool:
    """Return whether a run was begun with numbers of 64 bits."""
    settings = record["provenance"].get("settings")
    return isinstance(settings, dict) and settings.get("x64") is True


def _begun(record: dict[str, Any]) -> str:
    """Return where the training of a record begins, in words."""
    entry = record.get("initial")
    return "begun anew" if entry is None else f"begun from {entry.get('place', 'weights given in Python')}"


def completed(tree: dict[str, Any]) -> dict[str, Any]:
    """Return the tree of a run with the fields that later versions added, at their defaults."""
    try:
        return dict(values.to_tree(read(tree, records.RECORD)))
    except InputError:  # an object from Python, which cannot be built; or a field that no run can have
        known = {"ema": 0.0, **tree}
        for name, kinds in (("epochs", (int,)), ("ema", (int, float))):
            if type(known.get(name)) not in kinds:
                raise InputError(f"{name} in {records.RECORD}", got=known.get(name), expected="a number") from None
        return known


def differences(one: Any, other: Any, name: str = "") -> Iterator[str]:
    """Yield where two JSON trees differ, in words: `optimizer learning_rate 0.001, here 0.01`."""
    if isinstance(one, dict) and isinstance(other, dict) and one.get("type") == other.get("type"):
        for key in [*one, *(key for key in other if key not in one)]:
            yield from differences(one.get(key), other.get(key), f"{name} {key}".strip())
    elif one != other:
        yield f"{name} {_shown(one)}, here {_shown(other)}"


def unwritten(tree: Any, value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield those parts of a value that its JSON tree does not determine, each with a name such as `objective beta`."""
    if values.comparable(tree):
        return
    if isinstance(tree, dict) and "custom" not in tree:
        for field in [field for field in tree if field != "type"]:
            yield from unwritten(tree[field], getattr(value, field), f"{name} {field}".strip())
    elif isinstance(tree, list):
        for item, part in zip(tree, value, strict=True):
            yield from unwritten(item, part, name)
    else:
        yield name, value


def _shown(tree: Any) -> str:
    text = str(tree["type"] if isinstance(tree, dict) and "type" in tree else tree)
    return text if len(text) <= 60 else f"{text[:60]}..."
