"""`aevae list` and `aevae show`: what runs there are, and what is to be known of one. Neither imports JAX."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import shlex
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from aevae_jax import suggestions, values
from aevae_jax.cli import console
from aevae_jax.cli.terminal import say
from aevae_jax.runs import records, summaries
from aevae_jax.runs.run import Run
from aevae_jax.runs.summaries import Summary
from aevae_jax.types import Columned, InputError, Shaped, likelihood_of, shortened

_ROOM = 60
"""Characters of a name in the list, at most, and half of those of what tells it from others."""

_MANY = 1000
"""Names in a folder that are looked at for one that was meant, at most."""


def list_(directory: Path = Path("runs")) -> None:
    """List runs: state, best validation value, date, and what tells them apart.

    Of a sweep there is one line; its members are listed by naming it.

    Example: aevae list runs

    Args:
      directory: a folder of runs, or a sweep; left out, runs.
    """
    found = [summaries.summarize(folder) for folder in summaries.find(directory)]
    if len(found) == 1 and found[0].members:
        found = [*found[0].members]
    if not found:
        say(f"no runs in {directory}", "next   aevae train runs/first")
        return
    differing = _differing(found)
    rows = [
        (
            shortened(_name(each, directory), _ROOM),
            _date(each.changed),
            "damaged" if each.damage else _state(each),
            _best(each),
            shortened(_made_of(each, differing), 2 * _ROOM),
        )
        for each in found
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    for *columns, last in rows:
        aligned = [entry.ljust(width) for entry, width in zip(columns, widths, strict=True)]
        say("  ".join([*aligned, last]).rstrip())
    whole = next((each for each in found if not each.damage), None)
    if whole is not None:
        say(f"next   aevae show {shlex.quote(str(whole.folder))}")


def show(run: Path) -> None:
    """Show what there is to know of one run.

    The command that trains it, data with their hash, parameters, the best epoch, results, versions, and what can be
    typed next.

    Example: aevae show runs/first

    Args:
      run: a run directory, of a finished run or not, or of a sweep.
    """
    check_run(run)
    known = summaries.summarize(run, whole=True)
    say(f"{run}: {_state(known)}", *_facts(known))
    say(*(f"member {_name(member, run)}: {_best(member) or _state(member)}" for member in known.members))
    say(*(f"next   {command}" for command in _next(known)))


# ------------------------------------------------------------------------------------------------- a run in words


def _name(known: Summary, within: Path) -> str:
    """Return what a run is called in a folder."""
    inner = known.folder.relative_to(within) if known.folder.is_relative_to(within) else known.folder
    return str(inner if inner.parts else known.folder)


def _model(known: Summary) -> str:
    """Return a model as it is typed, less what its data decide."""
    if known.run is None:
        tree = known.tree.get("model")
        return str(tree.get("type") or tree.get("custom") or "") if isinstance(tree, dict) else ""
    model: Any = known.run.model
    fields = {each.name: each.default for each in dataclasses.fields(model)}
    open_to_data = {name: fields[name] for name in ("event_shape", "likelihood", "latent_prior") if name in fields}
    return values.spell(dataclasses.replace(model, **open_to_data))


def _state(known: Summary) -> str:
    """Return the state of a run, of a sweep with what its members differ in: `objective.beta 0.5, 1, 2 and 4 seeds`."""
    if not known.seeds:
        return known.state
    fields = [f"{name} {', '.join(f'{x:g}' for x in numbers)}" for name, numbers in known.sweep.items()]
    return f"{known.state}, sweep of {' and '.join([*fields, f'{known.seeds} seed' + 's' * (known.seeds > 1)])}"


def _best(known: Summary) -> str:
    return f"{known.metric.replace('_', ' ')} {known.value:.5g}" if known.metric else ""


def _date(seconds: float) -> str:
    """Return the minute of a time in seconds since 1970, here; empty where there is none."""
    with contextlib.suppress(ValueError, OverflowError, OSError):  # a file may be of any year
        return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M") if seconds else ""
    return ""


def _facts(known: Summary) -> Iterator[str]:
    """Yield lines on a run."""
    if command := _command(known):
        yield f"typed  {command}"
    if known.data:
        counts = ", ".join(f"{part} {count:,}" for part, count in known.examples.items())
        yield f"data   {known.data}: {counts}; sha256 {known.sha256}"
    if known.parameters:
        yield f"model  {_model(known)}, {known.parameters:,} parameters"
    if known.metric:
        at = f", at epoch {known.best_epoch} of {known.epoch}" if known.best_epoch else ""
        yield f"best   {known.metric.replace('_', ' ')} {known.value:.6g} of validation data{at}"
    for part, metrics in known.measured.items():
        yield f"{part[:5]:<6} {console.loss_terms(metrics)}"
    if below := console.below_zero(known.measured.get("test", {})):
        yield f"       {below}"
    if not math.isnan(known.seconds):
        yield f"took   {known.seconds:,.1f} s, written last {_date(known.changed)}"
    if known.holder:
        yield f"lock   {known.holder}"
    if known.made:
        yield f"made   by {known.made}"


def _command(known: Summary) -> str:
    """Return what trains a run or a sweep, as it is typed; empty where it can only be given from Python."""
    typed = "" if known.run is None else console.train_command(known.folder, known.run)
    fields = [f"{name}={','.join(f'{x:g}' for x in numbers)}" for name, numbers in known.sweep.items()]
    begins = (
        ["--from", shlex.quote(known.origin), *["--keep-optimizer"] * known.keeps_optimizer] if known.origin else []
    )
    sweep, seeds = ["--sweep", *fields] if fields else [], [f"--seeds {known.seeds}"] if known.seeds > 1 else []
    return typed and " ".join([typed, *begins, *sweep, *seeds])


def _next(known: Summary) -> Iterator[str]:
    """Yield what can be typed next."""
    place = shlex.quote(str(known.folder))
    if known.damage:
        return
    if known.members:
        yield f"aevae evaluate {shlex.quote(str(min(known.members, key=lambda each: each.value).folder))}"
        return
    if not known.finished and not known.holder and (command := _command(known)):
        yield f"{command}  # resumes it"
    if known.best_epoch and not known.seeds:
        yield f"aevae evaluate {place}"
        yield f"aevae sample {place} --out samples{suffix_of(known.run)}"


def suffix_of(run: Run | None) -> str:
    """Return the suffix of a file that people look at, of what a model of this run makes."""
    model = None if run is None else run.model
    if isinstance(likelihood_of(model), Columned):
        return ".csv"
    return ".png" if isinstance(model, Shaped) and len(model.event_shape) == 3 else ".npy"


def check_run(folder: Path) -> None:
    """Refuse a directory that holds no run, with the one that was probably meant.

    Raises:
      InputError: there is no record in it, nor a link of that name.
    """
    try:
        os.lstat(folder / records.RECORD)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError):  # such as a name that is too long: who reads the record will say so
        return
    else:
        return
    near, names = folder.parent, list[str]()
    with contextlib.suppress(OSError, ValueError):
        names = [name for name in os.listdir(near)[:_MANY] if records.holds(near / name, records.RECORD)]
    meant = suggestions.meant_by(folder.name, names)
    raise InputError(
        "run",
        where=str(folder),
        got=f"no {records.RECORD}",
        expected="a run directory written by training",
        hint=f"did you mean {shlex.quote(str(near / meant))}?" if meant else "type: aevae list",
    )


# ---------------------------------------------------------------------------------------- in what the runs differ


def _made_of(known: Summary, fields: Sequence[str]) -> str:
    """Return model, data, and these fields of a run: `VAE(latent=8) of digits, beta=4, epochs=50`."""
    tree = _flat(known.tree)
    own = [f"{name.rpartition('.')[2]}={tree[name]}" for name in fields if name in tree]
    return ", ".join(filter(None, [f"{_model(known)} of {known.data}" if known.data else "", *own]))


def _differing(found: Sequence[Summary]) -> list[str]:
    """Return the fields in which those runs differ that have them, but those that stand in the list anyway, and those
    of values that differ in their types.
    """
    trees = [_flat(each.tree) for each in found if each.tree]
    names = dict.fromkeys(name for tree in trees for name in tree)
    differ = [name for name in names if len({tree[name] for tree in trees if name in tree}) > 1]
    return [name for name in differ if not any(name.startswith(f"{other}.") for other in differ)]


_SHOWN = ("data.name", "data.directory", "model.latent", "model.network", "model.event_shape")


def _flat(tree: Any, name: str = "") -> dict[str, str]:
    """Return the leaves of a run's JSON tree by the path of their field; types by that of the value."""
    if name.startswith(_SHOWN):
        return {}
    if not isinstance(tree, dict):
        return {name: str(tree)}
    found = {name: str(tree["type"])} if name not in ("", "model") and "type" in tree else {}
    for key, item in tree.items():
        found |= _flat(item, f"{name}.{key}".strip(".")) if key != "type" else {}
    return found
