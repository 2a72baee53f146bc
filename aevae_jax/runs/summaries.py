"""What a folder of runs holds, for whoever looks: read without JAX, and without a trace in any of it."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from aevae_jax import durable
from aevae_jax.checkpoints import locks
from aevae_jax.checkpoints.store import Store
from aevae_jax.runs import records
from aevae_jax.runs.run import Run, read
from aevae_jax.types import InputError

DEEPEST = 3
"""Folders within folders that are looked through for runs."""

_HEADER = 2**24
"""Bytes of the header of a file of weights that are read, at most."""


@dataclass(frozen=True)
class Summary:
    """What there is to know of a run, or of a sweep, in a directory.

    Args:
      folder: where it is.
      damage: why it cannot be read; empty where it can.
      tree: the JSON tree of the run.
      run: the value; `None` where it cannot be built, as it has objects from Python.
      data: what it was trained on, by name.
      sha256: of the data.
      examples: how many there are, by split.
      made: versions, code and device, in words.
      sweep: of a sweep, the numbers by the path of their field; there may be none.
      seeds: of a sweep, how many each of these has; 0 of a run.
      origin: the run at whose weights it begins; empty where they are drawn.
      keeps_optimizer: whether it begins with the state of that run's optimizer, too.
      finished: whether there are results.
      holder: who trains it now; empty where nobody does.
      epoch: epochs that are trained.
      metric: the entry of the validation metrics that is minimised; empty as long as there is none.
      value: the least of it.
      best_epoch: the epoch of that; 0 as long as there is none.
      seconds: what the training took.
      measured: metrics of validation and test data, of a finished run.
      parameters: how many numbers the model has learned; 0 where that is not known.
      changed: seconds since 1970 when the training wrote last.
      members: the runs of a finished sweep.
    """

    folder: Path
    damage: str = ""
    tree: dict[str, Any] = field(default_factory=dict)
    run: Run | None = None
    data: str = ""
    sha256: str = ""
    examples: dict[str, int] = field(default_factory=dict)
    made: str = ""
    sweep: dict[str, tuple[float, ...]] = field(default_factory=dict)
    seeds: int = 0
    origin: str = ""
    keeps_optimizer: bool = False
    finished: bool = False
    holder: str = ""
    epoch: int = 0
    metric: str = ""
    value: float = math.nan
    best_epoch: int = 0
    seconds: float = math.nan
    measured: dict[str, dict[str, float]] = field(default_factory=dict)
    parameters: int = 0
    changed: float = 0.0
    members: tuple[Summary, ...] = ()

    @property
    def epochs(self) -> int:
        """How many epochs were asked for."""
        epochs = self.tree.get("epochs")
        return epochs if type(epochs) is int else 0

    @property
    def state(self) -> str:
        """`finished`, `epoch 3 of 20, being trained`, or what is wrong."""
        if self.damage:
            return f"damaged: {self.damage}"
        if self.finished:
            return "finished"
        begun = f"epoch {self.epoch} of {self.epochs}" if self.epoch else f"no epoch of {self.epochs} yet"
        return f"{begun}, being trained" if self.holder else f"{begun}, stopped"


def find(folder: Path) -> list[Path]:
    """Return the directories of runs in a folder, or the folder itself, by name.

    Links to directories are looked at and not followed any further: they may lead round in a circle. What cannot be
    read is passed over. Runs within a run, the members of a sweep, are not listed.

    Raises:
      InputError: there is no such folder, or it cannot be read.
    """
    try:
        os.listdir(folder)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "a name that no folder has"
        raise InputError("folder of runs", got=f"{folder} ({reason})", expected="a folder that can be read") from None
    return sorted(_within(folder, DEEPEST))


def _within(folder: Path, depth: int) -> Iterator[Path]:
    if records.holds(folder, records.RECORD):
        yield folder
        return
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            path = folder / entry.name
            if entry.is_symlink():
                if os.path.isdir(path) and records.holds(path, records.RECORD):
                    yield path
            elif depth and not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                yield from _within(path, depth - 1)


def summarize(folder: Path, *, whole: bool = False) -> Summary:
    """Return what there is to know of the run in a directory, whatever state it is in; nothing is written.

    Args:
      folder: of the run.
      whole: also read what takes longer: the number of parameters, and all digests of a finished run but those of the
        weights and losses.
    """
    return _summary(folder, whole, any_kind=True)


def _summary(folder: Path, whole: bool, *, any_kind: bool) -> Summary:
    known = Summary(folder, changed=_changed(folder))
    try:
        record = records.read_record(folder, any_kind=any_kind)
        known, digest = _recorded(known, record), records.digest_of(record)
        if records.holds(folder, records.RESULTS):
            known = _finished(known, digest, whole)
        else:
            known = _unfinished(known, digest)
        return replace(known, parameters=_parameters(known)) if whole else known
    except (InputError, OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        return replace(known, damage=str(error) or type(error).__name__)


def _recorded(known: Summary, record: dict[str, Any]) -> Summary:
    """Add what `run.json` says."""
    provenance, tree, folder = record["provenance"], record["run"], known.folder
    run, sweep = None, record.get("sweep", {"seeds": [], "fields": [], "numbers": []})
    with contextlib.suppress(InputError):  # it has objects from Python, or is of another version
        run = read(tree, str(folder / records.RECORD))
    versions = ", ".join(f"{name} {version}" for name, version in provenance.get("versions", {}).items())
    code, device = provenance.get("code", {}), provenance.get("device", {})
    made = [versions, f"code {str(code.get('revision') or code.get('sha256'))[:12]}", str(device.get("kind", ""))]
    return replace(
        known,
        tree=tree,
        run=run,
        data=str(provenance["data"].get("name", "")),
        sha256=str(provenance["data"]["sha256"]),
        examples={part: int(split["count"]) for part, split in provenance["data"].get("splits", {}).items()},
        made="; ".join(filter(None, made)),
        sweep={
            str(name): tuple(dict.fromkeys(map(float, numbers)))
            for name, numbers in zip(sweep["fields"], sweep["numbers"], strict=True)
        },
        seeds=len(set(map(int, sweep["seeds"]))),
        origin=str(record.get("initial", {}).get("place", "")),
        keeps_optimizer="optimizer" in record.get("initial", {}),
        holder=locks.holder(folder),
    )


def _finished(known: Summary, digest: str, whole: bool) -> Summary:
    """Add what `results.json` says, if it is as it was written."""
    folder = known.folder
    if known.seeds:
        names = records.read_json(folder / records.RESULTS)["members"]
        places = (folder / records.MEMBERS / os.path.basename(name) for name in names)
        members = tuple(_summary(place, False, any_kind=False) for place in places)
        best = min((each for each in members if each.metric), key=lambda each: each.value, default=Summary(folder))
        return replace(known, finished=True, members=members, metric=best.metric, value=best.value)
    if whole:
        found = records.read_results(folder, digest)
        figures, known = found.figures, replace(known, epoch=len(found.history))
    else:
        figures = records.read_json(folder / records.RESULTS)
        if digest and (records.sealed(figures) != figures or figures["run"] != digest):
            raise InputError(
                records.RESULTS, got="contents that do not match their sha256", expected="the file that training wrote"
            )
    measured = {
        part: {name: math.nan if value is None else float(value) for name, value in figures[part].items()}
        for part in ("validation", "test")
    }
    named = re.search(r"least (\w+) of validation", figures["protocol"])
    metric = named[1] if named and named[1] in measured["validation"] else ""
    return replace(
        known,
        finished=True,
        metric=metric,
        value=measured["validation"].get(metric, math.nan),
        best_epoch=int(figures["best_epoch"]),
        seconds=float(figures["seconds"]),
        measured=measured,
    )


def _unfinished(known: Summary, digest: str) -> Summary:
    """Add what the newest intact checkpoint says, and the log, which is ahead of it."""
    store = Store(known.folder / records.CHECKPOINTS, run=digest)
    notes: dict[str, Any] = {}
    for step in reversed(store.steps()):
        with contextlib.suppress(InputError):  # damaged, or deleted just now by the training
            notes = store.notes(step)
            break
    epoch = max([notes.get("epoch", 0), *_logged(known)])
    known = replace(known, epoch=int(epoch), seconds=float(notes.get("seconds", math.nan)))
    if not any(notes.get("best_epoch", ())):
        return known
    value, best_epoch = min(
        (value, best_epoch)
        for value, best_epoch in zip(notes["best_value"], notes["best_epoch"], strict=True)
        if best_epoch and value is not None
    )
    entries = [entry["validation"] for entry in notes["history"] if entry["epoch"] == best_epoch]
    metric = next((name for entry in entries for name, number in entry.items() if number == value), "")
    return replace(known, metric=metric, value=float(value), best_epoch=int(best_epoch))


def _logged(known: Summary) -> list[int]:
    """Return the last epoch of the log, if there is any."""
    try:
        log = records.read_bytes(known.folder / records.METRICS, limit=records.LARGEST_LOG)
        return [int(json.loads(line)["epoch"]) for line in log.splitlines()[-1:]]
    except (InputError, ValueError, TypeError, KeyError, RecursionError):  # not there, or being written
        return []


def _parameters(known: Summary) -> int:
    """Return how many numbers the model has learned; 0 where that is not known yet."""
    if known.members:
        return _parameters(known.members[0])
    if known.finished:
        with durable.open_regular(known.folder / records.WEIGHTS, what=records.WEIGHTS) as file:
            header = json.loads(file.read(min(int.from_bytes(file.read(8), "little"), _HEADER)))
        return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    with contextlib.suppress(InputError, OSError):
        folder = known.folder / records.CHECKPOINTS
        for step in Store(folder).steps()[-1:]:
            arrays = records.read_json(folder / str(step) / "manifest.json")["arrays"]
            total = sum(math.prod(shape) for name, (shape, _) in arrays.items() if name.startswith("best/"))
            return total // math.prod([max(1, known.seeds), *map(len, known.sweep.values())])
    return 0


def _changed(folder: Path) -> float:
    """Return when the training wrote last, in seconds since 1970."""
    found = 0.0
    for name in (records.RECORD, records.METRICS, records.CHECKPOINTS, records.RESULTS):
        with contextlib.suppress(OSError):
            found = max(found, os.lstat(folder / name).st_mtime)
    return found
