"""Subjects: runs that a stranger has edited and made consistent again. What they say cannot be wrong, only unsound."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults.mutate import hostile_value, nudged, write_tree
from faults.trials import FREE, Change, Place, Subject

Edit = Callable[[Any, random.Random], Any]


def subjects() -> list[Subject]:
    """Return one for each file that is edited."""
    from faults import runs

    edits: dict[str, tuple[int, Edit]] = {"value": (80, hostile_value), "nudge": (40, nudged)}
    changes: dict[str, dict[str, tuple[int, Change]]] = {
        name: {kind: (times, functools.partial(_edited, name, edit)) for kind, (times, edit) in edits.items()}
        for name in ("run.json", "results.json", "metrics.jsonl")
    }
    changes["weights.safetensors"] = {"header": (80, functools.partial(_edited, "weights.safetensors", hostile_value))}
    changes["run.json"]["older"] = (40, _older)
    return [Subject(f"forged-{name}", runs.make, read, found, share="runs") for name, found in changes.items()]


def read(folder: Path) -> Any:
    """Return what `load_run` makes of it, and how it is typed again."""
    from aevae_jax import values
    from aevae_jax.runs import fitting
    from faults import runs

    found = runs.read(folder)
    run = fitting.load_run(folder / "a", on_note=lambda text: None).run
    return {**found, "again": values.spell(values.parse(type(run), values.spell(run), "again"))}


def _edited(name: str, edit: Edit, folder: Path, dice: random.Random, place: Place) -> Any:
    """Return some value in a file is another, and all digests are right again."""
    path = folder / "a" / name
    if name == "weights.safetensors":
        content = path.read_bytes()
        size = int.from_bytes(content[:8], "little")
        text = write_tree(edit(json.loads(content[8 : 8 + size]), dice)).encode(errors="surrogatepass")
        path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])
    elif name == "metrics.jsonl":
        entries = [json.loads(row) for row in path.read_text().splitlines()]
        n = dice.randrange(len(entries))
        texts = [write_tree(edit(entry, dice) if i == n else entry) for i, entry in enumerate(entries)]
        path.write_text("\n".join(texts) + "\n", errors="surrogatepass")
    else:
        tree = json.loads(path.read_text())
        inner = tree[dice.choice(("run", "format", "provenance"))] if name == "run.json" else tree
        edit(inner, dice)
        path.write_text(write_tree(tree), errors="surrogatepass")
    seal(folder / "a")
    return FREE


def _older(folder: Path, dice: random.Random, place: Place) -> Any:
    """Return a run as version 0.1 left it, without digests, and edited."""
    import hashlib

    record = json.loads((folder / "a" / "run.json").read_text())
    del record["sha256"]
    nudged(record["run"], dice)
    record["digest"] = hashlib.sha256(json.dumps(record["run"], sort_keys=True).encode()).hexdigest()
    (folder / "a" / "run.json").write_text(json.dumps(record))
    results = json.loads((folder / "a" / "results.json").read_text())
    for name in ("sha256", "run", "files"):
        del results[name]
    (folder / "a" / "results.json").write_text(json.dumps(results))
    _rename_entry(folder / "a" / "weights.safetensors", "sha256")
    return FREE


def seal(folder: Path) -> None:
    """Make all digests right, as far as the files can still be read."""
    from aevae_jax.checkpoints import array_files
    from aevae_jax.runs import records

    try:
        record = json.loads((folder / "run.json").read_text())
        digest = records.identity(record)
        (folder / "run.json").write_text(json.dumps(records.sealed({**record, "digest": digest})))
        _rename_entry(folder / "weights.safetensors", f"sha256 of run {digest}")
        results = json.loads((folder / "results.json").read_text())
        names = ("metrics.jsonl", "weights.safetensors", "losses.npy")
        results |= {"run": digest, "files": {name: array_files.digest(folder / name) for name in names}}
        (folder / "results.json").write_text(json.dumps(records.sealed(results)))
    except (ValueError, KeyError, TypeError, RecursionError, AttributeError):
        pass  # it has become a file that nobody can read


def _rename_entry(path: Path, entry: str) -> None:
    """Rename the entry of the metadata that says whose the weights are."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = {entry: next(iter(header["__metadata__"].values()))}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])
