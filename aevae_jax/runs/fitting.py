"""Training as a function of a run, and the directory that it leaves behind.

`run.json` holds the value and what its bits rest on, `metrics.jsonl` a line per epoch, `checkpoints` what is needed to
go on, `weights.safetensors` the selected parameters, `losses.npy` the loss of every step, `results.json`, which says
that the run is finished, the final figures. Each says whose it is and that it is whole: see `records`.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aevae_jax import durable, values
from aevae_jax.checkpoints import signals
from aevae_jax.checkpoints.locks import Lock
from aevae_jax.checkpoints.saving import Saving
from aevae_jax.data import Dataset
from aevae_jax.lazy import modules, np
from aevae_jax.runs import calls, directory as places, processes, progress as said, records, same_run
from aevae_jax.runs.callbacks import Callbacks, Note, OnEpoch, OnSteps
from aevae_jax.runs.calls import Initial
from aevae_jax.runs.fitted import Fitted, load_as, load_run, read_losses
from aevae_jax.runs.run import Run
from aevae_jax.types import InputError

if TYPE_CHECKING:
    from aevae_jax.runs import curves, members, pictures, provenance, resume, tracking, weights
    from aevae_jax.runs.resolution import ResolvedRun
    from aevae_jax.runs.tracking import Sink
else:
    curves, members, pictures, provenance, resume, tracking, weights = modules(
        "aevae_jax.runs", "curves", "members", "pictures", "provenance", "resume", "tracking", "weights"
    )

__all__ = ["Fitted", "fit", "fit_members", "fit_seeds", "fit_sweep", "load_run", "read_losses"]


def fit(
    run: Run,
    dataset: Dataset | None = None,
    *,
    directory: str | Path | None = None,
    stream: bool | None = None,
    saving: Saving | None = None,
    fresh: bool = False,
    initial: Initial = None,
    keep_optimizer: bool = False,
    devices: int = 0,
    shard_params: bool = False,
    track: Sequence[str | Sink] = (),
    progress: bool | None = None,
    on_epoch: OnEpoch | None = None,
    on_note: Note | None = None,
    on_steps: OnSteps | None = None,
) -> Fitted:
    """Train one model; in a directory, so that it can be stopped anywhere and resumes where it was.

    With a directory, SIGTERM, SIGINT and SIGUSR1 save within about a second, or after the compilation or evaluation
    that is under way, and raise `signals.Interrupted`. The same call then resumes it; once the run is finished, it
    returns what is there. Whether and where a training was stopped changes no bit of it.

    Args:
      run: the value.
      dataset: data of your own, in place of what `run.data` names.
      directory: to leave the run in, or to resume it; `None` writes nothing.
      stream: read batches ahead from where the data is (True), or keep all of it on the device (False). By default it
        is kept if it is at most 1 GiB. The numbers are the same.
      saving: when to write checkpoints, and which to keep; `Saving()` by default.
      fresh: delete the run that is in the directory, and start over.
        A run is known by its fields, and by those of your own frozen dataclasses and functions in it. An object whose
        fields cannot be written is the same only as long as it is the very same object: in another process, such a run
        can be loaded by `load_run`, but is neither resumed nor given back.
      initial: what to begin at: the directory of a finished run, a `Fitted`, or parameters. A run in a directory that
        is the same but for fewer epochs is gone on from exactly, with the bits of all epochs at once, where nothing
        depends on how many there are; else the training begins at the selected weights, with a new optimizer.
      keep_optimizer: begin with the weights of the last step of the run in the directory `initial`, and with what its
        optimizer had gathered by then.
      devices: how many to divide each batch among; by default all that this process has, or as many as divide it. On
        another number, a training that is resumed goes on with the same noise, and with float32 sums in another order.
      shard_params: divide large parameters, and what the optimizer keeps of them, among the devices, too: for networks
        that are too large for one.
      track: trackers that are told of the training in the directory: "tensorboard", "wandb", "mlflow", or a
        `tracking.Sink` of your own.
      progress: show how far the training is, on standard error, and in a notebook its curves. By default it is shown
        where there is a terminal or a notebook, if neither `on_epoch` nor `on_steps` is given.
      on_epoch: called after every epoch.
      on_note: is told in a line what should be known of the data (`Prepared.notes`), what a run that leaves likelihood
        or prior open takes from it, and when it resumes from a checkpoint, passes over damaged ones, or skips batches
        that broke the numbers. By default these troubles are warnings.
      on_steps: called before the first step, and then about once a second, with the steps of the epoch that are taken.

    Of several processes that have met (`processes.join`, or `jax.distributed.initialize`), all must make the same call:
    each batch is divided among the devices of all, each process reads its share of streamed rows, and process 0 alone
    writes, but for checkpoints where `shard_params` divides parameters. An error of one ends all of them.

    Raises:
      InputError: before anything is written, if the run, the data and the directory do not fit, or another process is
        at work there; or when the numbers break for good, or the disk is full; or processes have other runs or data.
      signals.Interrupted: a signal came, and the training is saved.
    """
    callbacks = Callbacks(on_epoch, on_note or warnings.warn, on_note or _silent, on_steps)
    if track and directory is None:
        raise InputError("track", got="no directory", expected="fit(..., directory=...), which trackers are told of")
    told = tracking.sinks(track) if track else ()
    call = calls.Call(run, dataset, stream, callbacks, None, devices, shard_params, initial, keep_optimizer, told)
    with processes.together():
        if processes.index():
            if directory is None:
                return calls.train(calls.resolve(call)[0], None, call)
            with signals.caught() as caught:
                return _follow(Path(directory), caught, call)
        with said.shown(progress, callbacks) as callbacks:
            call = call._replace(callbacks=callbacks)
            if directory is None:
                return calls.train(calls.resolve(call)[0], None, call)
            with signals.caught() as caught:
                return _fit_in(Path(directory), saving or Saving(), fresh, caught, call)[0]


def fit_seeds(
    run: Run,
    seeds: Sequence[int],
    dataset: Dataset | None = None,
    *,
    stream: bool | None = None,
    progress: bool | None = None,
    on_epoch: OnEpoch | None = None,
    on_steps: OnSteps | None = None,
) -> Fitted:
    """Train one model per seed, all as one program. `run.seed` is not used.

    Each seed has its own initialisation, order and noise, as if trained alone, within float32 rounding. `stream` and
    `on_steps` are as in `fit`, and so is `progress`; every seed reads its own batches.
    """
    with said.shown(progress, Callbacks(on_epoch, warnings.warn, _silent, on_steps)) as callbacks:
        return calls.fit_population(calls.Call(run, dataset, stream, callbacks, calls.Sweep({}, seeds)))[0]


def fit_sweep(
    run: Run,
    fields: Mapping[str, Sequence[float]],
    seeds: Sequence[int],
    dataset: Dataset | None = None,
    *,
    stream: bool | None = None,
    progress: bool | None = None,
    on_epoch: OnEpoch | None = None,
    on_steps: OnSteps | None = None,
) -> list[Fitted]:
    """Train every combination of some numbers with every seed, all as one program, which is compiled once.

    Args:
      run: what is trained, but for these numbers and the seed.
      fields: numbers by the dotted path of the field that takes them: `{"objective.beta": (0.5, 1, 2)}`.
      seeds: of every combination.
      dataset: as in `fit`.
      stream: as in `fit`; every member reads its own batches.
      progress: as in `fit`.
      on_epoch: called after every epoch with the means over all members.
      on_steps: see `fit`.

    Returns:
      One entry per combination, in the order of `itertools.product`: what `fit_seeds` returns for the run with these
      numbers, within float32 rounding.

    Raises:
      InputError: a field is none, holds no float, or decides what is computed, such as a size; a number is not in its
        range; or the numbers of a member break.
    """
    if not fields:
        raise InputError("sweep", got="no field", expected='numbers by field, such as {"objective.beta": (0.5, 1, 2)}')
    with said.shown(progress, Callbacks(on_epoch, warnings.warn, _silent, on_steps)) as callbacks:
        return calls.fit_population(calls.Call(run, dataset, stream, callbacks, calls.Sweep(fields, seeds)))


def fit_members(
    run: Run,
    fields: Mapping[str, Sequence[float]],
    seeds: Sequence[int],
    dataset: Dataset | None = None,
    *,
    directory: str | Path,
    stream: bool | None = None,
    saving: Saving | None = None,
    fresh: bool = False,
    initial: Initial = None,
    progress: bool | None = None,
    on_epoch: OnEpoch | None = None,
    on_note: Note | None = None,
    on_steps: OnSteps | None = None,
) -> list[Fitted]:
    """Train every combination of some numbers with every seed as one program, in a directory, as `fit` does.

    `members/` in it then holds a directory for each of them, such as `beta=2,seed=1`, which is that of a run: all that
    reads a run reads it. Where rate and distortion are measured, `rate_distortion.png` and `.json` show the curve of
    the numbers. Until then a checkpoint holds all members.

    Args:
      run: as in `fit_sweep`.
      fields: as in `fit_sweep`; there may be none.
      seeds: of every combination.
      dataset: as in `fit`, and so are all others.
      directory: to leave the sweep in, or to resume it.
      stream: see `fit`.
      saving: see `fit`.
      fresh: see `fit`; all members are deleted.
      initial: see `fit`; all members begin at these weights.
      progress: see `fit`.
      on_epoch: called after every epoch with the means over all members.
      on_note: see `fit`.
      on_steps: see `fit`.

    Returns:
      What `fit` returns for each member alone, within float32 rounding: seed after seed of one combination, in the
      order of `itertools.product`, and then the next.

    Raises:
      InputError: as `fit_sweep` and `fit`.
      signals.Interrupted: a signal came, and the training is saved.
    """
    calls.refuse_processes()
    callbacks = Callbacks(on_epoch, on_note or warnings.warn, on_note or _silent, on_steps)
    with said.shown(progress, callbacks) as callbacks, signals.caught() as caught:
        call = calls.Call(run, dataset, stream, callbacks, calls.Sweep(fields, seeds), initial=initial)
        return _fit_in(Path(directory), saving or Saving(), fresh, caught, call)


# --------------------------------------------------------------------------------------------------- in a directory


def _fit_in(folder: Path, saving: Saving, fresh: bool, caught: signals.Caught, call: calls.Call) -> list[Fitted]:
    places.check_place(folder)
    if isinstance(call.initial, str | Path) and folder.resolve() == Path(call.initial).resolve():
        raise InputError(
            "initial weights",
            got=f"{folder}, the run that is to be trained",
            expected="another run",
            hint="choose a new directory for what goes on from it",
        )
    with contextlib.ExitStack() as held:
        lock = held.enter_context(Lock.claim(folder)) if folder.is_dir() else None  # at once, before JAX is imported

        there = not fresh and records.holds(folder, records.RECORD)  # a damaged one is refused before any work
        old = records.read_record(folder, any_kind=True)["run"] if there else None
        call = call._replace(run=same_run.begun(call.run, processes.share(old)))
        resolved, population = calls.resolve(call)
        values.to_json(resolved.run)  # refuses numbers that are not finite
        made = provenance.provenance(resolved.dataset, devices=resolved.layout.count)
        record = calls.record_of(resolved, made, population)
        unwritten = [*same_run.unwritten(record["run"], resolved.run)]
        places.open_directory(folder, fresh=fresh)
        lock = lock or held.enter_context(Lock.claim(folder))
        places.sweep(folder)
        if fresh:
            places.clear_directory(folder)
        if not records.holds(folder, records.RECORD):
            records.write_json(folder / records.RECORD, record)
            for name, _ in unwritten:
                call.callbacks.on_note(
                    f"{name} of this run cannot be written down: if this process ends, {folder} cannot be resumed; "
                    "a frozen dataclass or a function could"
                )
        else:
            record = same_run.go_on(folder, record, resolved.dataset, unwritten)
        if processes.share(records.holds(folder, records.RESULTS)):
            if population is not None:
                return members.load(folder, resolved, population, call.callbacks.on_note)
            fitted = load_as(folder, resolved.run, record, call.callbacks.on_note)
            if not all(records.holds(folder, f"{name}.png") for name in pictures.NAMES):  # it was killed just then
                pictures.save(folder, resolved, fitted, call.callbacks.on_note)
            return [fitted]
        digest = records.digest_of(record)
        same_run.remember(folder, record, unwritten)
        place, note = folder.absolute(), call.callbacks.on_note  # a callback may change the working directory
        live = None
        if population is None:
            title = curves.title_of(folder, resolved.run)
            live = curves.Live(place / "curves.png", selects=resolved.selects, title=title, note=note)
        manager = resume.CheckpointManager(
            folder, digest, saving, lock=lock, caught=caught, note=note, selects=resolved.selects, curves=live
        )
        if population is None:
            with tracking.Trackers(call.track, place, record, note) as trackers:
                callbacks = call.callbacks._replace(on_epoch=trackers.after(call.callbacks.on_epoch))
                fitted = calls.train(resolved, manager, call._replace(callbacks=callbacks))
                _finish(place, resolved, fitted, digest, note)
                trackers.end(fitted.results)
            processes.share(None)
            return [fitted]
        found = members.split(resolved, population, *calls.trained(resolved, population, manager, call))
        for index, own in enumerate(found):
            inner, its = members.place(place, population, index), resolved._replace(run=own.run)
            record = members.record_of(its, population, made)
            records.write_json(inner / records.RECORD, record)
            _finish(inner, its, own, records.digest_of(record), note)
        members.finish(place, population, found, digest)
        return found


def _follow(folder: Path, caught: signals.Caught, call: calls.Call) -> Fitted:
    """Take part, as a process that is not the first, in the training whose directory process 0 has."""
    resolved, _ = calls.resolve(call._replace(run=same_run.begun(call.run, processes.share(None))))
    if processes.share(None):  # it is finished
        return load_run(folder)
    fitted = calls.train(resolved, resume.Follower(folder, caught), call)
    processes.share(None)  # process 0 has written all
    return fitted


def _finish(folder: Path, resolved: ResolvedRun, fitted: Fitted, digest: str, note: Note) -> None:
    """Leave what `load_run` reads, and then pictures, which are not worth a training that is lost.

    The results come last of what is needed, as they say that the run is finished.
    """
    records.write_lines(folder / records.METRICS, fitted.history)
    weights.save_weights(folder / records.WEIGHTS, fitted.params, run=digest)
    with durable.replacing(folder / records.LOSSES, what=records.LOSSES) as file:
        np.save(file, fitted.losses, allow_pickle=False)
    records.write_results(folder, fitted.results, digest)
    pictures.save(folder, resolved, fitted, note)


def _silent(text: str) -> None:
    """Drop what a resumed training says where nobody asked to be told."""
