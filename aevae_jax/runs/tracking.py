"""Trackers of experiments that are told of a training: TensorBoard, Weights & Biases, MLflow, or one of your own.

`metrics.jsonl` is always written. A tracker gets the same numbers, as `train/` and `validation/`, and at the end those
of the selected parameters, as `final/validation/` and `final/test/`.

None of them can harm a training: what goes wrong with one before the first step is an error, and later a note.
"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from aevae_jax import suggestions
from aevae_jax.runs import records
from aevae_jax.runs.callbacks import Note, OnEpoch
from aevae_jax.runs.snapshots import Epoch
from aevae_jax.types import InputError, shortened

Name = Literal["tensorboard", "wandb", "mlflow"]
"""The trackers that are known by name; each comes with the extra of that name."""


class Sink(Protocol):
    """What a tracker of experiments is told. Of several processes, the first alone tells it."""

    def begin(self, folder: Path, record: Mapping[str, Any]) -> None:
        """Begin, or go on with the same run.

        Args:
          folder: of the run.
          record: as `run.json` holds it: `run` is the value, `digest` tells it from all others.
        """
        ...

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the finite metrics of an epoch that ended at a step; after a resumption some come again, unchanged."""
        ...

    def end(self, metrics: Mapping[str, float] | None) -> None:
        """Take the final metrics; `None` where the training was stopped and may be resumed."""
        ...


class TensorBoard:
    """Event files in `tensorboard/` of the run's directory: `tensorboard --logdir runs`."""

    def begin(self, folder: Path, record: Mapping[str, Any]) -> None:
        """Open a new event file."""
        self._step = 0
        self._writer = _module("tensorboard", "tensorboard.summary").Writer(str(folder / records.TENSORBOARD))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write scalars."""
        self._step = step
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def end(self, metrics: Mapping[str, float] | None) -> None:
        """Write the last scalars, and close the file."""
        self.log(self._step, metrics or {})
        self._writer.close()


class WandB:
    """A run of Weights & Biases, in `$WANDB_PROJECT` or `aevae_jax`; offline where `$WANDB_MODE` says so."""

    def begin(self, folder: Path, record: Mapping[str, Any]) -> None:
        """Begin or resume the run whose id is the beginning of the digest."""
        wandb = _module("wandb", "wandb")
        self._run = wandb.init(
            project=None if os.environ.get("WANDB_PROJECT") else "aevae_jax",
            id=record["digest"][:16],
            name=folder.name,
            dir=str(folder.parent),
            config=_flat(record["run"]),
            resume="allow",
            settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False),
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of a step."""
        self._run.log(dict(metrics), step=step)

    def end(self, metrics: Mapping[str, float] | None) -> None:
        """Put the last metrics in the summary."""
        self._run.summary.update(dict(metrics or {}))
        self._run.finish(exit_code=0 if metrics is not None else 1)


class MLflow:
    """A run of MLflow where `$MLFLOW_TRACKING_URI` says, in `$MLFLOW_EXPERIMENT_NAME` or `aevae_jax`."""

    def begin(self, folder: Path, record: Mapping[str, Any]) -> None:
        """Begin a run, or go on with the one whose tag `aevae.digest` is that of the record."""
        self._client, digest = _module("mlflow", "mlflow").MlflowClient(), record["digest"]
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "aevae_jax"
        known = self._client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self._client.create_experiment(name)
        found = self._client.search_runs([experiment], f"tags.`aevae.digest` = '{digest}'", max_results=1)
        if found:
            self._id, self._step = found[0].info.run_id, 0
            self._client.update_run(self._id, status="RUNNING")
            return
        made = self._client.create_run(experiment, tags={"aevae.digest": digest}, run_name=folder.name)
        self._id, self._step = made.info.run_id, 0
        for path, value in _flat(record["run"]).items():
            self._client.log_param(self._id, path, shortened(value, 200))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of a step."""
        self._step = step
        for name, value in metrics.items():
            self._client.log_metric(self._id, name, value, step=step)

    def end(self, metrics: Mapping[str, float] | None) -> None:
        """Log the last metrics, and terminate the run."""
        self.log(self._step, metrics or {})
        self._client.set_terminated(self._id, status="FINISHED" if metrics is not None else "KILLED")


_KNOWN: dict[str, type[Sink]] = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}


def sinks(given: Sequence[str | Sink]) -> list[tuple[str, Sink]]:
    """Return trackers, each with what it is called in messages.

    Args:
      given: names of `Name`, or trackers of your own.

    Raises:
      InputError: a name that is not known.
    """
    found = list[tuple[str, Sink]]()
    for each in given:
        if isinstance(each, str) and each not in _KNOWN:
            meant = suggestions.meant_by(each, get_args(Name))
            hint = f"did you mean {meant}?" if meant else ""
            raise InputError("track", got=repr(each[:40]), expected=" or ".join(_KNOWN), hint=hint)
        found.append((each, _KNOWN[each]()) if isinstance(each, str) else (type(each).__name__, each))
    return found


class Trackers:
    """Some trackers of one training, of which none can end it. A context: left early, they are told so.

    Args:
      given: of `sinks`.
      folder: of the run.
      record: as `run.json` holds it.
      note: is told if one of them fails after it has begun.

    Raises:
      InputError: one of them cannot begin.
    """

    def __init__(self, given: Sequence[tuple[str, Sink]], folder: Path, record: Mapping[str, Any], note: Note):
        self._sinks, self._note = list(given), note
        for name, sink in given:
            try:
                sink.begin(folder, record)
            except InputError:
                raise
            except Exception as error:
                raise InputError(
                    f"track {name}",
                    got=_said(error),
                    expected="a tracker that can be written",
                    hint="mend it, or leave --track out",
                ) from error

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, *_: object) -> None:
        self._tell("end", None)
        self._sinks.clear()

    def after(self, on_epoch: OnEpoch | None) -> OnEpoch | None:
        """Return what is to be called after an epoch, in place of `on_epoch`."""
        if not self._sinks:
            return on_epoch

        def both(epoch: Epoch) -> None:
            parts = {"train": epoch.train, "validation": epoch.validation}
            metrics = {f"{part}/{name}": value for part, found in parts.items() for name, value in found.items()}
            self._tell("log", epoch.step, {"epoch": epoch.epoch, **metrics})
            if on_epoch is not None:
                on_epoch(epoch)

        return both

    def end(self, results: Mapping[str, Any]) -> None:
        """Tell the final figures, which are those of the selected parameters."""
        parts = ("validation", "test")
        self._tell("end", {f"final/{part}/{name}": v for part in parts for name, v in results[part].items()})
        self._sinks.clear()

    def _tell(self, method: str, *given: Any) -> None:
        given = tuple(_finite(each) if isinstance(each, dict) else each for each in given)
        for name, sink in list(self._sinks):
            try:
                getattr(sink, method)(*given)
            except Exception as error:
                self._sinks.remove((name, sink))
                self._note(f"{name} is told no more of this training: {_said(error)}")


def _module(extra: str, name: str) -> Any:
    """Return a module of an optional package. Raises `InputError` where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(
            f"track {extra}",
            got="a tracker that is not installed",
            expected="its package",
            hint=f'type: pip install "aevae-jax[{extra}]"',
        ) from None


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Return the fields of a value's JSON tree by paths such as `model.latent`."""
    if isinstance(value, dict):
        return {
            k: v for name, part in value.items() for k, v in _flat(part, f"{path}.{name}" if path else name).items()
        }
    return {path: str(value) if isinstance(value, list) else value}


def _finite(metrics: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}


def _said(error: Exception) -> str:
    return shortened(f"{type(error).__name__}: {' '.join(str(error).split())}", 100)
