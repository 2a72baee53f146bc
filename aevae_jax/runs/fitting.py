"""Training as a function of a run, and the directory that it leaves behind.

`run.json` holds the value and what its bits rest on, `metrics.jsonl` a line per epoch, `checkpoints` what is needed to
go on, `weights.safetensors` the selected parameters, `losses.npy` the loss of every step, `results.json`, which says
that the run is finished, the final figures. Each says whose it is and that it is whole: see `records`.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aevae_jax import durable, figures, values
from aevae_jax.checkpoints import array_files, signals
from aevae_jax.checkpoints.locks import Lock
from aevae_jax.checkpoints.saving import Saving
from aevae_jax.data import Dataset
from aevae_jax.lazy import jax, modules, np
from aevae_jax.runs import directory as places, records, same_run
from aevae_jax.runs.callbacks import Callbacks, Note, OnEpoch
from aevae_jax.runs.run import Run, as_recorded, read
from aevae_jax.types import InputError, LatentModel, Params

if TYPE_CHECKING:
    from aevae_jax import keys
    from aevae_jax.data import Prepared
    from aevae_jax.models import generation
    from aevae_jax.runs import provenance, resolution, resume, sweeps, training_loop, weights
    from aevae_jax.runs.resolution import ResolvedRun
    from aevae_jax.runs.resume import CheckpointManager
else:
    resolution, provenance, resume, sweeps, training_loop, weights = modules(
        "aevae_jax.runs", "resolution", "provenance", "resume", "sweeps", "training_loop", "weights"
    )
    keys = modules("aevae_jax", "keys")
    generation = modules("aevae_jax.models", "generation")


class Fitted(NamedTuple):
    """A trained model, ready to call."""

    run: Run
    model: LatentModel
    params: Params
    """The parameters of the epoch with the best validation bound; with several seeds, each leaf has a leading axis."""
    history: list[dict[str, Any]]
    """One entry per epoch: epoch, step, train and validation metrics, steps that were skipped."""
    results: dict[str, Any]
    """Validation and test metrics of `params`; with several seeds, one list entry per seed."""
    losses: Any
    """Loss of every step, float32 `[steps]`; with several seeds, `[steps, S]`."""


def fit(
    run: Run,
    dataset: Dataset | None = None,
    *,
    directory: str | Path | None = None,
    stream: bool | None = None,
    saving: Saving | None = None,
    fresh: bool = False,
    on_epoch: OnEpoch | None = None,
    on_note: Note | None = None,
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
      on_epoch: called after every epoch.
      on_note: is told in a line what should be known of the data (`Prepared.notes`), what a run that leaves likelihood
        or prior open takes from it, and when it resumes from a checkpoint, passes over damaged ones, or skips batches
        that broke the numbers. By default these troubles are warnings.

    Raises:
      InputError: before anything is written, if the run, the data and the directory do not fit, or another process is
        at work there; or when the numbers break for good, or the disk is full.
      signals.Interrupted: a signal came, and the training is saved.
    """
    call = _Call(run, dataset, stream, Callbacks(on_epoch, on_note or warnings.warn, on_note or _silent))
    if directory is not None:
        with signals.caught() as caught:
            return _fit_in(Path(directory), saving or Saving(), fresh, caught, call)
    return _train(_resolve(call), None, call)


def fit_seeds(
    run: Run,
    seeds: Sequence[int],
    dataset: Dataset | None = None,
    *,
    stream: bool | None = None,
    on_epoch: OnEpoch | None = None,
) -> Fitted:
    """Train one model per seed, all as one program. `run.seed` is not used.

    Each seed has its own initialisation, order and noise, as if trained alone, within float32 rounding. `stream` is as
    in `fit`; every seed reads its own batches.
    """
    call = _Call(run, dataset, stream, Callbacks(on_epoch, warnings.warn, _silent))
    return _fit_population(call, {}, seeds)[0]


def fit_sweep(
    run: Run,
    fields: Mapping[str, Sequence[float]],
    seeds: Sequence[int],
    dataset: Dataset | None = None,
    *,
    stream: bool | None = None,
    on_epoch: OnEpoch | None = None,
) -> list[Fitted]:
    """Train every combination of some numbers with every seed, all as one program, which is compiled once.

    Args:
      run: what is trained, but for these numbers and the seed.
      fields: numbers by the dotted path of the field that takes them: `{"objective.beta": (0.5, 1, 2)}`.
      seeds: of every combination.
      dataset: as in `fit`.
      stream: as in `fit`; every member reads its own batches.
      on_epoch: called after every epoch with the means over all members.

    Returns:
      One entry per combination, in the order of `itertools.product`: what `fit_seeds` returns for the run with these
      numbers, within float32 rounding.

    Raises:
      InputError: a field is none, holds no float, or decides what is computed, such as a size; a number is not in its
        range; or the numbers of a member break.
    """
    if not fields:
        raise InputError("sweep", got="no field", expected='numbers by field, such as {"objective.beta": (0.5, 1, 2)}')
    return _fit_population(_Call(run, dataset, stream, Callbacks(on_epoch, warnings.warn, _silent)), fields, seeds)


def load_run(directory: str | Path, model: LatentModel | None = None, *, on_note: Note | None = None) -> Fitted:
    """Return a finished run's directory as a model and parameters ready to call.

    Every file must be as it was written, and of this run: their digests are compared, which runs of version 0.1 do not
    have.

    Args:
      directory: written by `fit`.
      model: needed only if the run was trained with modules, losses or likelihoods of your own. The objective of the
        run that is given back is then the default of that model.
      on_note: is told in a line if the run has no digests; by default that is a warning.

    Raises:
      InputError: no run there, a damaged or edited file, one of another run, a field or type that no run can have,
        weights of another model.
    """
    folder = Path(directory)
    record = records.read_record(folder)
    tree = record["run"]
    if model is not None:  # objects given from Python cannot be rebuilt, and need not be
        tree = {name: field for name, field in tree.items() if name not in ("model", "objective")}
    run = read(tree, str(folder / records.RECORD))
    if model is not None:
        model = as_recorded(model, record["run"].get("model", {}), str(folder / records.RECORD))
        run = replace(run, model=model, objective=None)  # type: ignore[arg-type]  # any model; None is the default of it
    return _load(folder, run, record, on_note or warnings.warn)


def _load(folder: Path, run: Run, record: dict[str, Any], note: Note) -> Fitted:
    digest = records.digest_of(record)
    results = records.read_results(folder, digest)
    shapes = jax.eval_shape(run.model.init, jax.random.key(0))
    path = folder / records.WEIGHTS
    params = weights.load_weights(path, shapes, run=digest, sha256=results.sha256.get(records.WEIGHTS))
    losses = read_losses(folder, results)
    if not digest:
        note(f"{folder} was written by version 0.1: it has no digests, so edited or exchanged files are not noticed")
    return Fitted(run, run.model, params, results.history, results.figures, losses)


def read_losses(folder: Path, results: records.Results) -> np.ndarray:
    """Return the loss of every step of a finished run, float32 `[steps]`.

    Raises:
      InputError: a file that is missing, damaged, or not the one that was written.
    """
    steps = results.history[-1]["step"]
    path, sha256 = folder / records.LOSSES, results.sha256.get(records.LOSSES)
    file = io.BytesIO(records.read_bytes(path, limit=4 * steps + 4096, sha256=sha256))
    try:
        version = np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        numbers = file.read()
        if version != (1, 0) or shape != (steps,) or dtype != np.float32 or len(numbers) != 4 * steps:
            raise ValueError(f"not {steps} float32 numbers")
    except Exception as error:  # a damaged header may make NumPy raise anything
        raise InputError(
            records.LOSSES, got=f"an unreadable file ({error})", expected="the loss of every step", where=str(folder)
        ) from None
    return np.frombuffer(numbers, np.float32)


# --------------------------------------------------------------------------------------------------- in a directory


def _fit_in(folder: Path, saving: Saving, fresh: bool, caught: signals.Caught, call: _Call) -> Fitted:
    places.check_place(folder)
    with contextlib.ExitStack() as held:
        lock = held.enter_context(Lock.claim(folder)) if folder.is_dir() else None  # at once, before JAX is imported

        if not fresh and records.holds(folder, records.RECORD):
            call = call._replace(run=same_run.begun(call.run, folder))  # a damaged one is refused before any work
        resolved = _resolve(call)
        values.to_json(resolved.run)  # refuses numbers that are not finite
        record = {
            "run": values.to_tree(resolved.run),
            "format": values.to_tree(resolved.prepared.format),
            "provenance": provenance.provenance(resolved.dataset),
        }
        record = records.sealed({"digest": records.identity(record), **record})
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
            if records.holds(folder, records.RESULTS):
                fitted = _load(folder, resolved.run, record, call.callbacks.on_note)
                if not all(records.holds(folder, f"{name}.png") for name in _PICTURES):  # it was killed just then
                    _save_pictures(folder, resolved, fitted, call.callbacks.on_note)
                return fitted
        digest = records.digest_of(record)
        same_run.remember(folder, record, unwritten)
        manager = resume.CheckpointManager(
            folder, digest, saving, lock=lock, caught=caught, note=call.callbacks.on_note, selects=resolved.selects
        )
        place = folder.absolute()  # a callback may change the working directory
        fitted = _train(resolved, manager, call)
        _finish(place, resolved, fitted, digest, call.callbacks.on_note)
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
    _save_pictures(folder, resolved, fitted, note)


_PICTURES = ("samples", "reconstructions")


def _save_pictures(folder: Path, resolved: ResolvedRun, fitted: Fitted, note: Note) -> None:
    """Leave pictures where events are images; what goes wrong with them is said, and no more."""
    try:
        if len(resolved.prepared.event_shape) == 3:
            _draw(folder, resolved.prepared, fitted)
    except Exception as error:
        note(f"{folder} is finished, but has no pictures ({type(error).__name__}: {array_files.reason(error)})")


def _draw(folder: Path, prepared: Prepared, fitted: Fitted) -> None:
    """Draw samples from the prior, and inputs above their reconstructions."""
    key = keys.stream(keys.root(fitted.run.seed), keys.Stream.SAMPLE)
    x = jax.device_put(prepared.test.x[:16])
    samples, reconstructions = map(np.asarray, generation.preview(fitted.model, fitted.params, x, key))
    pairs = np.concatenate([np.asarray(x), reconstructions])
    samples, pairs = (prepared.preparation.inverse(images, prepared.format) for images in (samples, pairs))
    span = figures.span_of(pairs[: len(x)], prepared.format.levels)
    for name, images, columns in zip(_PICTURES, (samples, pairs), (8, len(x)), strict=True):
        figures.save_png(folder / f"{name}.png", figures.image_grid(images, columns, span=span).pixels)


class _Call(NamedTuple):
    """What `fit` was called with."""

    run: Run
    dataset: Dataset | None
    stream: bool | None
    callbacks: Callbacks


def _resolve(call: _Call) -> ResolvedRun:
    """Return the resolved run; what should be known of its data is said."""
    resolved = resolution.resolve(call.run, call.dataset, call.stream)
    for text in (*resolved.prepared.notes, *filter(None, [resolved.warning])):
        call.callbacks.on_note(text)
    return resolved


def _silent(text: str) -> None:
    """Drop what a resumed training says where nobody asked to be told."""


def _train(resolved: ResolvedRun, manager: CheckpointManager | None, call: _Call) -> Fitted:
    if resolved.chosen:
        call.callbacks.on_begin(resolved.chosen)
    last, results = training_loop.train(resolved, None, manager, call.callbacks)
    return Fitted(resolved.run, resolved.run.model, last.best, list(last.progress.history), results, last.losses)


def _fit_population(call: _Call, fields: Mapping[str, Sequence[float]], seeds: Sequence[int]) -> list[Fitted]:
    """Return one entry per combination of the fields' numbers, with a leading axis of seeds."""
    runs, population = sweeps.combine(call.run, fields, seeds)
    resolved = _resolve(call._replace(run=runs[0]))
    sweeps.check(resolved, population.fields)
    last, results = training_loop.train(resolved, population, None, call.callbacks)
    count, history, patience = len(seeds), last.progress.history, resolved.run.patience
    found = []
    for index in range(len(runs)):
        first, after = index * count, (index + 1) * count
        members = [history[m :: len(population.seeds)] for m in range(first, after)]
        epochs = len(members[0])
        if patience:  # others may have gone on
            epochs = min(epochs, max(results["best_epoch"][first:after]) + patience)
        run = sweeps.replaced(resolved.run, population, first)
        found.append(
            Fitted(
                run,
                run.model,
                jax.tree.map(lambda a, own=slice(first, after): a[own], last.best),
                [sweeps.mean_entry(entries) for entries in zip(*members, strict=True)][:epochs],
                {name: each[first:after] if isinstance(each, list) else each for name, each in results.items()},
                last.losses[: members[0][epochs - 1]["step"], first:after],
            )
        )
    return found
