"""Subjects: every file of a run, and of its checkpoints."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

from faults import forgeries, snapshots, tiny
from faults.formats import pickled
from faults.mutate import BYTES, at, json_changes, things
from faults.trials import Change, Place, Subject, digest

WARM = ("jax", "flax.traverse_util", "aevae_jax.runs.fitting", "aevae_jax.runs.weights", "aevae_jax.runs.resume")
"""What a worker imports before its first trial."""

FILES = ("run.json", "metrics.jsonl", "losses.npy", "results.json", "weights.safetensors")
PICTURES = ("samples.png", "reconstructions.png")


def subjects() -> list[Subject]:
    """Return all that a finished run consists of, and a checkpoint."""
    whole = [*map(_file, FILES), *map(_picture, PICTURES), _whole()]
    return [*whole, *forgeries.subjects(), *snapshots.subjects()]


# ---------------------------------------------------------------------------------------------------- a finished run


def make(folder: Path) -> None:
    """Train two runs, `a` and `b`, which differ in their seed."""
    for name, seed in (("a", 1), ("b", 2)):
        tiny.trained(folder / name, seed)
        shutil.rmtree(folder / name / "checkpoints")


def read(folder: Path, name: str = "a") -> dict[str, Any]:
    """Return all that `load_run` and the commands know of a finished run."""
    from flax.traverse_util import flatten_dict

    from aevae_jax import values
    from aevae_jax.runs import fitting, records

    fitted = fitting.load_run(folder / name)
    record = records.read_record(folder / name)
    return {
        "run": values.to_tree(fitted.run),
        "params": flatten_dict(fitted.params, sep="/"),
        "history": fitted.history,
        "results": fitted.results,
        "losses": fitted.losses,
        "format": record["format"],
        "data": record["provenance"]["data"],
    }


def _file(name: str) -> Subject:
    path = f"a/{name}"
    changes: dict[str, tuple[int, Change]] = {kind: (1, change) for kind, change in things(path).items()}
    times = {"flip": 40, "cut": 25}
    changes |= {kind: (times.get(kind, 12), at(path, edit)) for kind, edit in BYTES.items()}
    if "json" in name:
        edited = json_changes(path, lines=name.endswith("jsonl"))
        changes |= {kind: (80 if kind == "value" else 40, change) for kind, change in edited.items()}
    changes["of-another-run"] = (1, _taken({name}))
    if name == "metrics.jsonl":
        changes["lines"] = (12, at(path, _lines))
    if name == "losses.npy":
        changes["pickled"] = (1, pickled(path))
    return Subject(name, make, read, changes, share="runs")


def _picture(name: str) -> Subject:
    """Change what nobody reads, where nothing may matter."""
    changes: dict[str, tuple[int, Change]] = {kind: (1, c) for kind, c in things(f"a/{name}").items()}
    changes["flip"] = (3, at(f"a/{name}", BYTES["flip"]))
    return Subject(name, make, read, changes, share="runs")


def _whole() -> Subject:
    """Return files of two runs mixed."""

    def mixed(folder: Path, dice: random.Random, place: Place) -> frozenset[str]:
        chosen = {name for name in FILES if dice.random() < 0.5} or set(FILES)
        return _taken(chosen)(folder, dice, place)

    def lost(folder: Path, dice: random.Random, place: Place) -> None:
        for name in dice.sample(FILES, dice.randint(1, 4)):
            (folder / "a" / name).unlink()

    changes: dict[str, tuple[int, Change]] = {kind: (1, c) for kind, c in things("a").items()}
    changes |= {"mixed": (60, mixed), "lost": (20, lost)}
    return Subject("run", make, read, changes, share="runs")


def _taken(names: set[str]) -> Change:
    """Return these files come from the other run; all together they are that run."""

    def change(folder: Path, dice: random.Random, place: Place) -> frozenset[str]:
        for name in names:
            shutil.copy(folder / "b" / name, folder / "a" / name)
        return frozenset({digest(read(folder, "b"))} if names == set(FILES) else ())

    return change


def _lines(content: bytearray, dice: random.Random) -> bytes:
    """Lose, exchange or repeat lines of a log."""
    rows = bytes(content).splitlines(keepends=True)
    n = dice.randrange(len(rows))
    kind = dice.randrange(4)
    if kind == 0:
        del rows[n]
    elif kind == 1:
        rows.insert(n, rows[n])
    elif kind == 2:
        rows = rows[:n]
    else:
        rows.reverse()
    return b"".join(rows)
