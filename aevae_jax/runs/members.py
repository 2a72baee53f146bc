"""What a population leaves: a run of each of its members, and the curve on which they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from aevae_jax import durable
from aevae_jax.evaluation import rate_distortion
from aevae_jax.runs import records, sweeps
from aevae_jax.runs.callbacks import Note
from aevae_jax.runs.fitted import Fitted, load_as
from aevae_jax.runs.resolution import ResolvedRun
from aevae_jax.runs.snapshots import Snapshot
from aevae_jax.runs.sweeps import Population
from aevae_jax.training import loops, parameters
from aevae_jax.types import InputError


def split(resolved: ResolvedRun, population: Population, last: Snapshot, results: dict[str, Any]) -> list[Fitted]:
    """Return every member as what `fit` returns of it alone; of the seconds, each has its share."""
    count, found = len(population.seeds), []
    for index, params in enumerate(loops.unstack(parameters.of_model(last.best))):
        run = member_run(resolved, population, index)
        history = last.progress.history[index::count]
        history = history[: _epochs(run.patience, len(history), results["best_epoch"][index])]
        own = {name: each[index] if isinstance(each, list) else each for name, each in results.items()}
        own["seconds"] = round(results["seconds"] / count, 3)
        losses = np.ascontiguousarray(last.losses[: history[-1]["step"], index])
        found.append(Fitted(run, run.model, params, list(history), own, losses))
    return found


def grouped(resolved: ResolvedRun, population: Population, last: Snapshot, results: dict[str, Any]) -> list[Fitted]:
    """Return one entry per combination of numbers, with a leading axis of seeds: what `fit_seeds` returns of it."""
    total, count, found = len(population.seeds), population.seeds_each, []
    every = loops.unstack(parameters.of_model(last.best))
    for first in range(0, total, count):
        own = slice(first, first + count)
        run = sweeps.replaced(resolved.run, population, first)
        entries = [last.progress.history[index::total] for index in range(first, first + count)]
        epochs = _epochs(run.patience, len(entries[0]), max(results["best_epoch"][own]))
        history = [sweeps.mean_entry(each) for each in zip(*entries, strict=True)][:epochs]
        figures = {name: each[own] if isinstance(each, list) else each for name, each in results.items()}
        found.append(
            Fitted(run, run.model, loops.stack(every[own]), history, figures, last.losses[: history[-1]["step"], own])
        )
    return found


def _epochs(patience: int, epochs: int, best: int) -> int:
    """Return after how many epochs a training would have stopped alone; others may have gone on."""
    return min(epochs, best + patience) if patience else epochs


def member_run(resolved: ResolvedRun, population: Population, index: int) -> Any:
    """Return the run that a member would be alone."""
    return replace(sweeps.replaced(resolved.run, population, index), seed=population.seeds[index])


def record_of(resolved: ResolvedRun, population: Population, provenance: dict[str, Any]) -> dict[str, Any]:
    """Return the record of a member: alone it may have other bits, as `aevae reproduce` will say."""
    settings = {**provenance["settings"], "members": len(population.seeds)}
    entries = resolved.beginning and resolved.beginning.entries
    made = {**provenance, "settings": settings}
    return records.record_of(resolved.run, resolved.prepared.format, made, beginning=entries)


def place(folder: Path, population: Population, index: int) -> Path:
    """Return the directory of a member, made where there is none. Raises `InputError` where it would be a link."""
    path = folder / records.MEMBERS
    for each in (path, path / population.folder(index)):
        if each.is_symlink():
            raise InputError("directory of a member", got=f"{each}, a link", expected="a directory")
        each.mkdir(exist_ok=True)
    return path / population.folder(index)


def finish(folder: Path, population: Population, fitted: Sequence[Fitted], digest: str) -> None:
    """Leave the curve, and `results.json`, which says that all is there."""
    count = population.seeds_each
    measured = [each.results["test"] for each in fitted]
    if population.fields and {"rate", "distortion"} <= measured[0].keys():
        groups = [measured[first : first + count] for first in range(0, len(measured), count)]
        points = rate_distortion.points([population.own(first) for first in range(0, len(measured), count)], groups)
        records.write_json(folder / records.CURVE[0], {"unit": "nats per example", "split": "test", "points": points})
        rate_distortion.draw(folder / records.CURVE[1], points)
    names = [population.folder(index) for index in range(len(fitted))]
    records.write_json(folder / records.RESULTS, records.sealed({"run": digest, "members": names}))
    durable.sync(folder)


def load(folder: Path, resolved: ResolvedRun, population: Population, note: Note) -> list[Fitted]:
    """Return the members of a finished sweep.

    Raises:
      InputError: one of them is damaged, or another run.
    """
    found = []
    for index in range(len(population.seeds)):
        inner, run = place(folder, population, index), member_run(resolved, population, index)
        record = records.read_record(inner)
        expected = record_of(resolved._replace(run=run), population, record["provenance"])
        if record["digest"] != expected["digest"]:
            raise InputError(
                records.RECORD, where=str(inner), got="another run", expected=f"that of {population.name(index)}"
            )
        found.append(load_as(inner, run, record, note))
    return found
