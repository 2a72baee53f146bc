"""A run computed again from its record alone: all of it, to learn whether it comes out the same, or one step of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from aevae_jax.checkpoints.store import Store
from aevae_jax.runs import beginnings, data_of_runs, fitting, provenance, records, resume, same_run
from aevae_jax.runs.non_finite import BrokenStep, examine
from aevae_jax.runs.resolution import ResolvedRun, resolve
from aevae_jax.runs.run import read
from aevae_jax.runs.snapshots import Epoch, Steps
from aevae_jax.runs.trainer import Trainer
from aevae_jax.runs.weights import params_digest
from aevae_jax.types import InputError

FIRST_STEPS = 20
"""Rounding grows with every step, so losses are compared at the beginning, and figures at the end."""
LOSS_TOLERANCE = 1e-4
"""How much the losses of the first steps may differ on another device, core count or version, relatively."""
RESULT_TOLERANCE = 1e-2
"""How much validation and test figures may, relatively."""

MATTER = ("versions", "code", "device", "host", "settings")
"""The parts of an environment on which bits rest."""


class Verdict(NamedTuple):
    """What came of training again."""

    outcome: str
    """`PASS (bitwise)`, `PASS within tolerance` or `FAIL`."""
    reason: str
    differences: tuple[str, ...]
    """Differences of the environment."""
    step: int | None
    """The first whose loss differs: at all where the environment is the same, else by more than the tolerance."""

    @property
    def passed(self) -> bool:
        """Whether it came out the same, or near enough."""
        return self.outcome != "FAIL"


def reproduce(
    directory: str | Path,
    *,
    data: str = "",
    initial: str = "",
    on_epoch: Callable[[Epoch], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    on_steps: Callable[[Steps], None] | None = None,
) -> Verdict:
    """Train again what `run.json` says, and compare every loss, the weights and all figures.

    In the same environment all bits must be equal. In another, named one, the losses of the first `FIRST_STEPS` steps
    must agree within `LOSS_TOLERANCE` and the figures at the end within `RESULT_TOLERANCE`.

    Args:
      directory: of a finished run.
      data: where its data is by now, a name or path, if it has moved.
      initial: where the run is by now that it began from, if that has moved.
      on_epoch: called after every epoch.
      on_note: as in `fitting.load_run`.
      on_steps: as in `fitting.fit`.

    Raises:
      InputError: no finished run there, other data, or parts that only Python can supply.
    """
    folder = Path(directory)
    resolved, original = resolve_again(folder, data, initial), fitting.load_run(folder, on_note=on_note)
    record = records.read_record(folder)
    devices = _devices(record)
    differences = _differences(record, devices)

    class Differs(Exception):
        """Training on would tell nothing more."""

    found: list[int] = []

    def compare(epoch: Epoch) -> None:
        if on_epoch is not None:
            on_epoch(epoch)
        first = epoch.step - len(epoch.losses)
        step = first_difference(original.losses[first : epoch.step], epoch.losses, first, exact=not differences)
        if step is not None:
            found.append(step)
            theirs = original.losses[step] if step < len(original.losses) else "none"
            raise Differs(
                f"the loss of step {step} (epoch {epoch.epoch}) is {epoch.losses[step - first]}, was {theirs}"
            )

    try:
        options: dict[str, Any] = {"stream": resolved.stream, "devices": devices, "on_epoch": compare}
        options["initial"] = resolved.beginning
        again = fitting.fit(resolved.run, resolved.dataset, **options, on_note=_silent, on_steps=on_steps)
    except Differs as differs:
        return Verdict("FAIL", str(differs), differences, found[0])
    steps = [len(fitted.losses) for fitted in (again, original)]
    if not differences and steps[0] != steps[1]:
        return Verdict("FAIL", f"training ended after {steps[0]} steps, was {steps[1]}", differences, min(steps))
    ours, theirs = (params_digest(fitted.params) for fitted in (again, original))
    results = [
        records.as_written({**fitted.results, "seconds": None, "protocol": None}) for fitted in (again, original)
    ]
    same_losses = again.losses.tobytes() == original.losses.tobytes()
    if same_losses and ours == theirs and results[0] == results[1] and again.history == original.history:
        reason = f"{len(again.losses)} losses, the weights ({ours[:12]}) and all figures are equal"
        return Verdict("PASS (bitwise)", reason, differences, None)
    if not differences:
        what = "the weights" if ours != theirs else "the figures in results.json or metrics.jsonl"
        return Verdict("FAIL", f"all losses are equal, but {what} are not those of this run", differences, None)
    gap = max(
        _relative(results[1][part][name], value)
        for part in ("validation", "test")
        for name, value in results[0][part].items()
    )
    reason = f"figures within {gap:.1e} ({RESULT_TOLERANCE:g} is allowed)"
    return Verdict("PASS within tolerance" if gap <= RESULT_TOLERANCE else "FAIL", reason, differences, None)


class Replay(NamedTuple):
    """One step of a run, computed again with checks on."""

    diagnosis: BrokenStep
    recorded: float | None
    """Its loss in `losses.npy`, of a finished run."""
    rollback: tuple[int, int] | None
    """The steps that were skipped, if it is one of them: then this is how it was before that."""


def replay(
    directory: str | Path, step: int, *, data: str = "", note: Callable[[str], None] = lambda text: None
) -> Replay:
    """Compute one step of a run again, from the checkpoint before it, and say what in it is not finite.

    Args:
      directory: of a run, finished or not. Nothing is written to it.
      step: counted from 0.
      data: where its data is by now, a name or path, if it has moved.
      note: is told which checkpoints are damaged.

    Raises:
      InputError: no run there, no such step, other data, or parts that only Python can supply.
    """
    folder, resolved = Path(directory), resolve_again(Path(directory), data)
    run = records.digest_of(records.read_record(folder))
    trainer = Trainer(resolved)
    last = resolved.run.epochs * trainer.steps_per_epoch - 1
    if not 0 <= step <= last:
        raise InputError("step", got=step, expected=f"0 to {last}")
    store = Store(folder / records.CHECKPOINTS, run=run)
    store.check()
    newest = resume.restore(store, trainer, note=note)
    rollbacks = () if newest is None else newest.progress.rollbacks
    index = next((i for i, (first, after) in enumerate(rollbacks) if first <= step < after), len(rollbacks))
    # checkpoints from before any rollback that was not yet known when this step was taken
    until = min([step, *(first for first, _ in rollbacks[index:])])
    snapshot = resume.restore(store, trainer, until=until) or trainer.start()
    snapshot = snapshot._replace(progress=replace(snapshot.progress, rollbacks=rollbacks[:index]))
    diagnosis = examine(trainer, trainer.train_to(snapshot, step), trace=True)
    recorded = None
    if (folder / "results.json").exists():
        losses = fitting.read_losses(folder, records.read_results(folder, run))
        recorded = float(losses[step]) if step < len(losses) else None
    return Replay(diagnosis, recorded, rollbacks[index] if index < len(rollbacks) else None)


def resolve_again(folder: Path, moved: str = "", initial: str = "") -> ResolvedRun:
    """Return the resolved run, from its record alone; its data and the run that it began at, both of which may have
    moved, are refused if they have changed.
    """
    record = records.read_record(folder)
    run = read(record["run"], str(folder / records.RECORD))
    return beginnings.again(resolve(run, data_of_runs.load_data(folder, run.data, moved)), record, initial)


def _silent(text: str) -> None:
    """Drop what is said of rollbacks: they are the run's own, and not news."""


def _devices(record: dict[str, Any]) -> int:
    """Return on how many devices to train again: as many as it was, if they are here."""
    settings = record["provenance"].get("settings")
    count = settings.get("devices", 1) if isinstance(settings, dict) else 1
    return count if type(count) is int and 1 <= count <= jax.local_device_count() else 1


def _differences(record: dict[str, Any], devices: int) -> tuple[str, ...]:
    """Return the differences between here, on so many devices, and wherever the run was trained."""
    here = provenance.environment(devices=devices)
    found: list[str] = []
    for there in (record["provenance"], *record.get("resumed", [])):
        for name in MATTER:
            found += same_run.differences(there.get(name), here[name], name)
    return tuple(dict.fromkeys(found))


def first_difference(theirs: np.ndarray, ours: np.ndarray, first: int, *, exact: bool) -> int | None:
    """Return the first step whose loss differs, or was not recorded; `None` where there is none.

    Args:
      theirs: the losses that were recorded, of consecutive steps.
      ours: those of the same steps now, and of later ones.
      first: the step of the first of them.
      exact: every bit counts; else only the first `FIRST_STEPS` steps of a run, within `LOSS_TOLERANCE`.
    """
    count = min(len(theirs), len(ours))
    if exact:
        bits = [np.frombuffer(losses[:count].tobytes(), np.uint32) for losses in (theirs, ours)]
        bad = np.flatnonzero(bits[0] != bits[1])
        if not bad.size and len(ours) > len(theirs):
            return first + count
    else:
        count = max(0, min(FIRST_STEPS - first, count))
        close = np.isclose(ours[:count], theirs[:count], rtol=LOSS_TOLERANCE, atol=0, equal_nan=True)
        bad = np.flatnonzero(~close)
    return first + int(bad[0]) if bad.size else None


def _relative(one: float | None, other: float | None) -> float:
    """Return the relative difference of two figures, of which `None` stands for one that is not finite."""
    if one is None or other is None:
        return 0.0 if one is other else math.inf
    return abs(one - other) / max(abs(one), abs(other), 1e-12)
