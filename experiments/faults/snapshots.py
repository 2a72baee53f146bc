"""Subjects: the files of a checkpoint, and checkpoints of two runs."""

from __future__ import annotations

import functools
import hashlib
import json
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aevae_jax.types import InputError
from faults import tiny
from faults.mutate import BYTES, at, json_changes, nudged, things
from faults.tiny import STEPS
from faults.trials import Change, Place, Subject, digest, freely, remove


def subjects() -> list[Subject]:
    """Return a checkpoint, and several."""
    return [*_checkpoint(), _checkpoints()]


def make_checkpoints(folder: Path) -> None:
    """Write checkpoints of two runs, at two steps each."""
    for name, seed in (("a", 1), ("b", 2)):
        tiny.trained(folder / "runs" / name, seed)
        for step in STEPS:
            shutil.move(folder / "runs" / name / "checkpoints" / str(step), folder / name / str(step))
    record = json.loads((folder / "runs" / "a" / "run.json").read_text())
    (folder / "digest").write_text(record["digest"])
    remove(folder / "runs")


def make_checkpoint(folder: Path) -> None:
    """Write one of them."""
    make_checkpoints(folder)
    remove(folder / "b")
    remove(folder / "a" / str(STEPS[0]))


@functools.cache
def _trainer() -> Any:
    from aevae_jax.runs.resolution import resolve
    from aevae_jax.runs.trainer import Trainer

    return Trainer(resolve(tiny.run_of(1)))


def restore(folder: Path) -> dict[str, Any]:
    """Return the snapshot that run `a` would go on from; none is no fault, as it then begins anew."""
    import jax
    import numpy as np

    from aevae_jax.checkpoints.store import Store
    from aevae_jax.runs import resume

    store = Store(folder / "a", run=(folder / "digest").read_text())
    store.clean()
    found = resume.restore(store, _trainer())
    if found is None:
        raise InputError("checkpoints", got="none", expected="one")
    kept = {"state": found.state._asdict(), "best": found.best, "logged": (found.metrics, found.losses)}
    leaves = jax.tree_util.tree_flatten_with_path(kept)[0]
    arrays = {jax.tree_util.keystr(path): _plain(leaf) for path, leaf in leaves}
    return {"arrays": {n: np.asarray(a) for n, a in arrays.items()}, "notes": found.progress.to_notes()}


def _plain(leaf: Any) -> Any:
    import jax

    return jax.random.key_data(leaf) if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def _files(folder: Path) -> list[str]:
    """Return the files of the checkpoint, by path, in an order that stays."""
    return sorted(path.relative_to(folder).as_posix() for path in (folder / "a").rglob("*") if path.is_file())


def _checkpoint() -> list[Subject]:
    """Return one checkpoint: its manifest, and a file of its arrays, whichever."""

    def any_file(kind: str) -> Change:
        def change(folder: Path, dice: random.Random, place: Place) -> Any:
            name = dice.choice([name for name in _files(folder) if not name.endswith("manifest.json")])
            changes: Mapping[str, Change] = {**{k: at(name, edit) for k, edit in BYTES.items()}, **things(name)}
            if kind in BYTES and not (folder / name).stat().st_size:
                return None
            return changes[kind](folder, dice, place)

        return change

    manifest = f"a/{STEPS[1]}/manifest.json"
    edits: dict[str, tuple[int, Change]] = {kind: (1, c) for kind, c in things(manifest).items()}
    edits |= {kind: (12, at(manifest, edit)) for kind, edit in BYTES.items()}
    edits |= {kind: (40, change) for kind, change in json_changes(manifest).items()}
    edits |= {"forged": (60, freely(_forged(manifest)))}
    arrays: dict[str, tuple[int, Change]] = {kind: (5, any_file(kind)) for kind in things("")}
    arrays |= {kind: (30 if kind == "flip" else 15, any_file(kind)) for kind in BYTES}
    arrays |= {f"folder-{kind}": (1, c) for kind, c in things(f"a/{STEPS[1]}/arrays").items()}
    arrays |= {f"step-{kind}": (1, c) for kind, c in things(f"a/{STEPS[1]}").items()}
    arrays["more"] = (6, _more)
    return [
        Subject("manifest.json", make_checkpoint, restore, edits, share="checkpoint"),
        Subject("arrays", make_checkpoint, restore, arrays, share="checkpoint"),
    ]


def _more(folder: Path, dice: random.Random, place: Place) -> None:
    """Add a file, a folder or a link that was not saved."""
    path = folder / "a" / str(STEPS[1]) / "arrays" / dice.choice(("x", "_METADATA.bak", ".hidden"))
    dice.choice((path.touch, path.mkdir, lambda: path.symlink_to(place.outside)))()


def _forged(name: str) -> Change:
    """Return a value of the manifest is another, and its sha256 is right again."""

    def change(folder: Path, dice: random.Random, place: Place) -> None:
        from aevae_jax.checkpoints import array_files

        manifest = nudged(json.loads((folder / name).read_text()), dice)
        manifest.pop("sha256", None)
        sha256 = hashlib.sha256(array_files.canonical(manifest)).hexdigest()
        (folder / name).write_bytes(array_files.canonical({**manifest, "sha256": sha256}))

    return change


def _checkpoints() -> Subject:
    """Mix checkpoints of two runs at two steps."""

    def change(folder: Path, dice: random.Random, place: Place) -> frozenset[str]:
        older = folder / "older"
        older.mkdir()
        shutil.copytree(folder / "a" / str(STEPS[0]), older / "a" / str(STEPS[0]))
        shutil.copy(folder / "digest", older)
        right = digest(restore(older))
        steps = [folder / name / str(step) for name in "ab" for step in STEPS]
        one, other = dice.sample(steps, 2)
        part = dice.choice(("", "arrays", "manifest.json"))
        swap = folder / "swap"
        (one / part).rename(swap)
        (other / part).rename(one / part)
        if dice.random() < 0.5:
            swap.rename(other / part)
        if dice.random() < 0.2 and (folder / "a" / str(STEPS[1])).exists():
            (folder / "a" / str(STEPS[1])).rename(folder / "a" / dice.choice(("13", "7", "0", "1000000", "012")))
        return frozenset({right})

    return Subject("checkpoints", make_checkpoints, restore, {"swapped": (60, change)}, share="checkpoints")
