"""`aevae train --dry-run`: what a training would be, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aevae_jax import memory, runs, values
from aevae_jax.cli import console
from aevae_jax.cli.terminal import begin, say
from aevae_jax.data import datasets
from aevae_jax.lazy import modules
from aevae_jax.runs.callbacks import Callbacks
from aevae_jax.runs.calls import Call, Sweep

if TYPE_CHECKING:
    from aevae_jax.runs import rehearsal
else:
    rehearsal = modules("aevae_jax.runs", "rehearsal")


def say_what_it_takes(
    run: runs.Run,
    stream: bool | None,
    sweep: tuple[Mapping[str, Sequence[float]], Sequence[int]] | None,
    **options: Any,
) -> None:
    """Print the sizes of a training, and about how long it takes; nothing is written.

    Args:
      run: what would be trained.
      stream: as in `runs.fit`, and so are the other options.
      sweep: numbers by field and seeds, where several models would be trained.
      options: those of `Call`.
    """
    callbacks = Callbacks(None, console.note, console.note)
    swept = None if sweep is None else Sweep(*sweep)
    begin("compiling, and timing some steps")
    found = rehearsal.rehearse(Call(run, None, stream, callbacks, swept, **options))
    resolved, each = found.resolved, f", each of {found.members} models" if found.members > 1 else ""
    parts = ", ".join(f"{name} {number:,}" for name, number in found.parameters.items())
    counts = ", ".join(f"{part} {len(getattr(resolved.prepared, part)):,}" for part in datasets.PARTS)
    state, data, peak = map(memory.shown, (found.state, found.data, found.peak))
    step, evaluation, compiling = map(_short, (found.step, found.evaluation, found.compiling))
    say(
        f"model   {values.spell(resolved.run.model)}",
        f"        {sum(found.parameters.values()):,} parameters{each}: {parts}",
        f"data    {resolved.dataset.name}: {counts}; batches of {'x'.join(map(str, found.batch))}",
        f"memory  {state} for parameters and optimizer, {'streamed' if resolved.stream else data} data, {peak} at most",
        f"steps   {found.steps_per_epoch:,} per epoch, {found.steps:,} in {resolved.run.epochs:,} epochs",
        f"time    about {console.duration(found.seconds)}, an estimate from {found.timed:,} steps of {step}; "
        f"{evaluation} to evaluate an epoch, {compiling} to compile",
        "nothing was trained or written; the same command without --dry-run trains",
    )


def _short(seconds: float) -> str:
    """Return `1.23 ms`, `3.4 s` or `120 s`."""
    return f"{seconds:.0f} s" if seconds >= 100 else f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
