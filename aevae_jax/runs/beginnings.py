"""Where a training begins that is not to begin anew: at the weights of another run, or exactly where that run ended."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aevae_jax import values
from aevae_jax.checkpoints.store import Store
from aevae_jax.runs import records, resume, same_run
from aevae_jax.runs.callbacks import Note
from aevae_jax.runs.fitted import Fitted, load_as
from aevae_jax.runs.resolution import Beginning, ResolvedRun
from aevae_jax.runs.run import Run
from aevae_jax.runs.weights import compare, named, params_digest
from aevae_jax.training.step import TrainState, init_state
from aevae_jax.types import InputError, Params, TotalNeeding


def find(
    resolved: ResolvedRun,
    initial: str | Path | Fitted | Params,
    *,
    keep_optimizer: bool = False,
    several: bool = False,
    note: Note = lambda text: None,
) -> Beginning:
    """Return where the training of a run begins that is to go on from another.

    From the directory of a run that is the same but for fewer epochs, and of which nothing depends on how many there
    are, it goes on exactly: the bits are those of a training that was asked for all of them at once. Else it begins at
    the weights; where the prior is another one, at those of all else, and the prior is drawn.

    Args:
      resolved: the run that is to be trained.
      initial: the directory of a finished run, or a trained model, or parameters.
      keep_optimizer: begin with what the optimizer had gathered at the last step of the old run, and with the weights
        of that step, in place of those that validation selected.
      several: whether it is the first of several runs that are trained as one.
      note: is told of old runs without digests, and why a run with more epochs is another.

    Raises:
      InputError: no finished run there, other shapes, the same run, or an optimizer whose state cannot be kept.
    """
    if not isinstance(initial, str | Path):
        if keep_optimizer:
            raise InputError("keep_optimizer", got="weights alone", expected="the directory of a run as initial")
        params = jax.device_get(initial.params if isinstance(initial, Fitted) else initial)
        if isinstance(initial, Fitted):
            old = values.to_tree(initial.run)["model"]
            params = params if _prior_in(old) == _prior_of(resolved.run) else _without_prior(params)
        _check_shapes(params, resolved.run)
        return Beginning({"initial": {"params": params_digest(params)}}, "beginning at the weights given", params)
    folder = Path(initial)
    record = records.read_record(folder)
    old, digest = same_run.completed(record["run"]), records.digest_of(record)
    results = records.read_results(folder, digest)  # else it is not finished
    if not (keep_optimizer or several) and _differ_in_epochs_alone(resolved, record, old):
        epochs = resolved.run.epochs
        if epochs == old["epochs"]:
            raise InputError(
                "initial weights", got=f"{folder}, the same run", expected="a change", hint="try more --epochs"
            )
        if epochs > old["epochs"] and not _needs_total(resolved.run.optimizer):
            return _more_epochs(resolved, folder, record, len(results.history))
        if epochs > old["epochs"]:
            note(f"its learning rate follows the number of epochs, so that {epochs} are another run")
        else:
            note(f"{epochs} epochs are fewer than the {old['epochs']} of {folder}: a training of its own")
    entry: dict[str, Any] = {"run": digest, "place": str(folder.absolute())}
    if keep_optimizer:
        state = _last_state(folder, digest, resolved.run, old)
        entry |= {"params": params_digest(state.params), "optimizer": params_digest(resume.named(state.opt_state))}
        text = f"step {results.history[-1]['step']} of {folder}, with the state of its optimizer"
        return Beginning({"initial": entry}, f"beginning at {text}", state.params, state)
    before = _with_prior_of(resolved.run, old["model"], str(folder))
    params = jax.device_get(load_as(folder, before, record, note, wanted=_WANTED).params)
    another = before is not resolved.run
    params = _without_prior(params) if another else params
    new = "a new prior and a new optimizer" if another else "a new optimizer"
    text = f"beginning at the weights of epoch {results.figures['best_epoch']} of {folder}, with {new}"
    return Beginning({"initial": {**entry, "params": params_digest(params)}}, text, params)


_WANTED = "the model to be trained"


def again(resolved: ResolvedRun, record: Mapping[str, Any], place: str = "") -> ResolvedRun:
    """Return a resolved run that begins as its record says.

    Args:
      resolved: from that record.
      record: as `records.read_record` returns it.
      place: where the old run is by now, if it has moved.

    Raises:
      InputError: the old run is not there, or is another.
    """
    entry = record.get("initial")
    if entry is None:
        return resolved
    if "place" not in entry:
        raise InputError(
            "initial weights",
            got="some that were given from Python",
            expected="those of a run, which can be read again",
        )
    found = find(resolved, place or entry["place"], keep_optimizer="optimizer" in entry)
    if records.initial_of(found.entries) != records.initial_of(record):
        raise InputError(
            "initial weights",
            got="those of another run",
            where=str(place or entry["place"]),
            expected=f"those of run {entry.get('run', '')[:12]}, as in {records.RECORD}",
        )
    return resolved._replace(beginning=found)


def _more_epochs(resolved: ResolvedRun, folder: Path, record: dict[str, Any], epochs: int) -> Beginning:
    """Return how a run goes on that is the old one with more epochs."""
    store = Store(folder / records.CHECKPOINTS, run=records.digest_of(record))
    if not store.steps():
        raise InputError(
            "checkpoints of the old run", got="none", expected="its last one, to go on from", where=str(folder)
        )
    trained = [same_run.environment_of(record["provenance"]), *record.get("resumed", [])]
    entries = {"extends": {"run": records.digest_of(record), "epochs": epochs}, "resumed": trained}
    if "initial" in record:
        entries["initial"] = record["initial"]
    first = again(resolved, record).beginning
    text = f"going on from epoch {epochs} of {folder}: as if all {resolved.run.epochs} had been asked for at once"
    return (first or Beginning({}, ""))._replace(entries=entries, text=text, earlier=store)


def _differ_in_epochs_alone(resolved: ResolvedRun, record: dict[str, Any], old: dict[str, Any]) -> bool:
    """Return whether a run, and the value of an old one, are the same run but for the epochs, on the same data."""
    same_data = record["provenance"]["data"]["sha256"] == resolved.dataset.digest()
    return same_data and {**old, "epochs": resolved.run.epochs} == values.to_tree(resolved.run)


def _needs_total(optimizer: Any) -> bool:
    """Return whether an optimizer's steps depend on how many there will be; of one that does not say, they may."""
    return not isinstance(optimizer, TotalNeeding) or optimizer.needs_total


def _last_state(folder: Path, digest: str, run: Run, old: dict[str, Any]) -> TrainState:
    """Return the state at the last step of an old run.

    Raises:
      InputError: its optimizer is another, or follows the number of epochs.
    """
    ours, theirs = ((tree["optimizer"], tree["ema"] > 0) for tree in (values.to_tree(run), old))
    if ours != theirs or _needs_total(run.optimizer):
        raise InputError(
            "keep_optimizer",
            got="another optimizer or ema" if ours != theirs else "a learning rate that follows the number of epochs",
            expected="the same ones" if ours != theirs else "one that does not",
            where=str(folder),
            hint="leave --keep-optimizer out to begin with the weights alone",
        )
    tx = run.optimizer.build(1)

    def start(key: jax.Array) -> dict[str, Any]:
        return init_state(run.model, tx, key, objective=run.objective, ema=run.ema > 0)._asdict()

    shapes = jax.eval_shape(start, jax.random.key(0))
    like = resume.named(shapes, "state/")
    found = Store(folder / records.CHECKPOINTS, run=digest).restore_newest(lambda step, notes: like, partial=True)
    if found is None:
        raise InputError(
            "checkpoints of the old run", got="none", expected="its last one, with its optimizer", where=str(folder)
        )
    state = jax.tree.unflatten(jax.tree.structure(shapes), [found.arrays[name] for name in like])
    return jax.device_get(TrainState(**{**state, "step": jnp.zeros((), jnp.int32)}))


def _prior_in(tree: Any) -> Any:
    """Return the tree of the prior in that of a model, which may be of a class that only Python knows."""
    return tree.get("fields", tree).get("latent_prior")


def _prior_of(run: Run) -> Any:
    return _prior_in(values.to_tree(run.model))


def _with_prior_of(run: Run, tree: dict[str, Any], where: str) -> Run:
    """Return a run whose model has the prior of a recorded one: the same run, if that is its own."""
    prior = _prior_in(tree)
    if prior is None or prior == _prior_of(run):
        return run
    model: Any = run.model
    hint = typing.get_type_hints(type(model))["latent_prior"]
    return replace(run, model=replace(model, latent_prior=values.from_tree(hint, prior, where)))


def _without_prior(params: Params) -> Params:
    return {name: own for name, own in params.items() if name != "prior"}


def _check_shapes(params: Params, run: Run) -> None:
    """Refuse parameters that are not those of the run's model; it may have no prior, which is then drawn."""
    like = jax.eval_shape(run.model.init, jax.random.key(0))
    expected, found = named(like if "prior" in params else _without_prior(like)), named(params)
    shapes = ({name: np.shape(a) for name, a in each.items()} for each in (found, expected))
    compare(*shapes, wanted=_WANTED)
