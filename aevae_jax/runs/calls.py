"""What a training was called with, and all that follows from it before the first step is taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aevae_jax.data import Dataset
from aevae_jax.lazy import modules
from aevae_jax.runs import processes, records
from aevae_jax.runs.callbacks import Callbacks
from aevae_jax.runs.fitted import Fitted
from aevae_jax.runs.run import Run
from aevae_jax.types import InputError, TrainingPart

if TYPE_CHECKING:
    from aevae_jax.runs import beginnings, members, provenance, resolution, sweeps, training_loop
    from aevae_jax.runs.resolution import ResolvedRun
    from aevae_jax.runs.resume import CheckpointManager, Follower
    from aevae_jax.runs.snapshots import Snapshot
    from aevae_jax.runs.sweeps import Population
    from aevae_jax.runs.tracking import Sink
    from aevae_jax.training import devices as placing, parameters
else:
    beginnings, members, provenance, resolution, sweeps, training_loop = modules(
        "aevae_jax.runs", "beginnings", "members", "provenance", "resolution", "sweeps", "training_loop"
    )
    placing, parameters = modules("aevae_jax.training", "devices", "parameters")

Initial = str | Path | Fitted | Mapping[str, Any] | None
"""What a training may begin at: see `fitting.fit`."""


class Call(NamedTuple):
    """What `fit` was called with."""

    run: Run
    dataset: Dataset | None
    stream: bool | None
    callbacks: Callbacks
    sweep: Sweep | None = None
    devices: int = 0
    shard_params: bool = False
    initial: Initial = None
    keep_optimizer: bool = False
    track: Sequence[tuple[str, Sink]] = ()


class Sweep(NamedTuple):
    """Which members a population has: see `fit_sweep`."""

    fields: Mapping[str, Sequence[float]]
    seeds: Sequence[int]


def resolve(call: Call) -> tuple[ResolvedRun, Population | None]:
    """Return the resolved run and its devices, of a sweep those of its first member; what should be known of its data
    is said.
    """
    run, population = call.run, None
    if call.sweep is not None:
        run, population = sweeps.combine(run, *call.sweep)
    resolved = resolution.resolve(run, call.dataset, call.stream)
    for text in (*resolved.prepared.notes, *filter(None, [resolved.warning])):
        call.callbacks.on_note(text)
    if population is not None:
        sweeps.check(resolved, population.fields)
        return _beginning(resolved, call), population
    resolved = _beginning(resolved, call)
    if processes.count() > 1:
        record = record_of(resolved, provenance.provenance(resolved.dataset))
        processes.check_equal("run or data", record["digest"])
    layout = placing.choose(resolved.run.batch_size, devices=call.devices, shard_params=call.shard_params)
    return resolved._replace(layout=layout), None


def record_of(resolved: ResolvedRun, made: dict[str, Any], population: Population | None = None) -> dict[str, Any]:
    """Return what `run.json` will hold of a run or a sweep."""
    return records.record_of(
        resolved.run,
        resolved.prepared.format,
        made,
        sweep=None if population is None else population._asdict(),
        beginning=resolved.beginning and resolved.beginning.entries,
    )


def _beginning(resolved: ResolvedRun, call: Call) -> ResolvedRun:
    """Return the resolved run with what it is to go on from."""
    found: Any = call.initial
    objective = resolved.run.objective
    if found is None:
        if isinstance(objective, TrainingPart):
            part = f"{type(objective).__name__} trains the {' and '.join(objective.trains)} alone"
            expected = f"those of a trained model, as {part}"
            raise InputError("weights to begin at", got="none", expected=expected, hint="type: --from RUN")
        return resolved
    if not isinstance(found, resolution.Beginning):
        found = beginnings.find(
            resolved,
            found,
            keep_optimizer=call.keep_optimizer,
            several=call.sweep is not None,
            note=call.callbacks.on_note,
        )
    return resolved._replace(beginning=found)


def train(resolved: ResolvedRun, manager: CheckpointManager | Follower | None, call: Call) -> Fitted:
    """Return the trained model of a run."""
    last, results = trained(resolved, None, manager, call)
    params = parameters.of_model(resolved.layout.whole(last.best))
    return Fitted(resolved.run, resolved.run.model, params, list(last.progress.history), results, last.losses)


def trained(
    resolved: ResolvedRun, population: Population | None, manager: CheckpointManager | Follower | None, call: Call
) -> tuple[Snapshot, dict[str, Any]]:
    """Return the last snapshot of a training, and the metrics of its best parameters; how it begins is said."""
    begins = resolved.beginning and resolved.beginning.text
    for text in filter(None, [resolved.chosen, begins, placing.explained(resolved.layout)]):
        call.callbacks.on_begin(text)
    return training_loop.train(resolved, population, manager, call.callbacks)


def fit_population(call: Call) -> list[Fitted]:
    """Return one entry per combination of the fields' numbers, with a leading axis of seeds."""
    refuse_processes()
    resolved, population = resolve(call)
    assert population is not None  # as `call` has a sweep
    return members.grouped(resolved, population, *trained(resolved, population, None, call))


def refuse_processes() -> None:
    """Refuse a population where several processes train as one."""
    if processes.count() > 1:
        raise InputError("processes", got=processes.count(), expected="1: members are trained on one device of one")
