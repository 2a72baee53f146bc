"""A trained model, and how it is read from the directory of a run: finished, or as far as it has got."""

from __future__ import annotations

import io
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aevae_jax import values
from aevae_jax.checkpoints.saving import DamageError
from aevae_jax.lazy import jax, modules, np
from aevae_jax.runs import records
from aevae_jax.runs.callbacks import Note
from aevae_jax.runs.run import Run, as_recorded, read
from aevae_jax.types import InputError, LatentModel, Params

if TYPE_CHECKING:
    from aevae_jax.checkpoints import store
    from aevae_jax.runs import snapshots, weights
else:
    store = modules("aevae_jax.checkpoints", "store")
    snapshots, weights = modules("aevae_jax.runs", "snapshots", "weights")


class Fitted(NamedTuple):
    """A trained model, ready to call."""

    run: Run
    model: LatentModel
    params: Params
    """The parameters of the epoch with the best validation bound; with several seeds, each leaf has a leading axis."""
    history: list[dict[str, Any]]
    """One entry per epoch: epoch, step, train and validation metrics, steps that were skipped."""
    results: dict[str, Any]
    """Validation and test metrics of `params`; with several seeds, one list entry per seed. Those of a run that is not
    finished have no test metrics."""
    losses: Any
    """Loss of every step, float32 `[steps]`; with several seeds, `[steps, S]`."""

    def __repr__(self) -> str:
        """Say which run it is and what came of it, without the arrays."""
        figures = {name: self.results[name] for name in ("best_epoch", "validation", "test") if name in self.results}
        return f"Fitted(run={values.spell(self.run)}, epochs={len(self.history)}, results={figures})"


def load_run(
    directory: str | Path, model: LatentModel | None = None, *, unfinished: bool = False, on_note: Note | None = None
) -> Fitted:
    """Return a finished run's directory as a model and parameters ready to call.

    Every file must be as it was written, and of this run: their digests are compared, which runs of version 0.1 do not
    have.

    Args:
      directory: written by `fit`.
      model: needed only if the run was trained with modules, losses or likelihoods of your own. The objective of the
        run that is given back is then the default of that model.
      unfinished: allow a run that is not finished, be it stopped or in training at this moment: its parameters are
        those of the best epoch so far, or of the last step where no epoch is over, as its newest checkpoint has them.
      on_note: is told in a line which step that is, or that the run has no digests; by default these are warnings.

    Raises:
      InputError: no run there, one that is not finished, or has no checkpoint yet; a damaged or edited file, one of
        another run; a field or type that no run can have; weights of another model.
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
    if unfinished and not records.holds(folder, records.RESULTS):
        return _best_so_far(folder, run, record, on_note or warnings.warn)
    return load_as(folder, run, record, on_note or warnings.warn)


def load_as(folder: Path, run: Run, record: dict[str, Any], note: Note, *, wanted: str = records.RECORD) -> Fitted:
    """Return a finished run, whose record has been read, as this one; `wanted` says where its model is from."""
    digest = records.digest_of(record)
    results = records.read_results(folder, digest)
    shapes = jax.eval_shape(run.model.init, jax.random.key(0))
    path = folder / records.WEIGHTS
    sha256 = results.sha256.get(records.WEIGHTS)
    params = weights.load_weights(path, shapes, run=digest, sha256=sha256, wanted=wanted)
    losses = read_losses(folder, results)
    if not digest:
        note(f"{folder} was written by version 0.1: it has no digests, so edited or exchanged files are not noticed")
    return Fitted(run, run.model, params, results.history, results.figures, losses)


def _best_so_far(folder: Path, run: Run, record: dict[str, Any], note: Note) -> Fitted:
    """Return a run that is not finished, as its newest checkpoint has it. Nothing is written, and where it is being
    trained, that is not disturbed.
    """
    kept = store.Store(folder / records.CHECKPOINTS, run=records.digest_of(record))
    shapes = jax.eval_shape(run.model.init, jax.random.key(0))
    progress, part = snapshots.Progress(), ""

    def like(step: int, notes: dict[str, Any]) -> dict[str, Any]:
        nonlocal progress, part
        progress = snapshots.Progress.from_notes(notes)
        records.check_history(
            folder / records.CHECKPOINTS / str(step), progress.history, max(progress.best_epoch, default=0)
        )
        part = "best/" if any(progress.best_epoch) else "state/ema/" if run.ema else "state/params/"
        losses = jax.ShapeDtypeStruct((progress.history[-1]["step"] if progress.history else 0,), np.float32)
        return {"logged/losses": losses, **weights.named(shapes, part)}

    while True:
        steps = kept.steps()
        try:
            found = kept.restore_newest(like, partial=True)
            break
        except DamageError:
            if steps == kept.steps():  # else the training has deleted what was just being read
                raise
    if found is None:
        raise InputError(
            "run",
            got=f"no {records.RESULTS} and no checkpoint: its training has just begun, or was stopped at once",
            expected="one that is finished or has saved",
            where=str(folder),
            hint="wait a minute, or type the command that began it",
        )
    best = max(progress.best_epoch, default=0)
    which = f"epoch {best}, the best so far" if best else "that step, as no epoch is over"
    epoch = min(progress.epoch + 1, run.epochs)
    note(f"{folder} is not finished, at step {progress.step} in epoch {epoch} of {run.epochs}: parameters of {which}")
    results = {
        "protocol": "validation alone, as the training is not finished",
        "best_epoch": best,
        "seconds": round(progress.seconds, 3),
        "validation": progress.history[best - 1]["validation"] if best else {},
        "test": {},
    }
    params = weights.unnamed(found.arrays, shapes, part)
    return Fitted(run, run.model, params, list(progress.history), results, np.asarray(found.arrays["logged/losses"]))


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
