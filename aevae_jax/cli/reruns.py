"""`aevae reproduce` and `aevae replay`: a run computed again from its record alone, all of it or one step."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from aevae_jax.cli import console
from aevae_jax.cli.evaluate import Moved
from aevae_jax.cli.terminal import begin, say
from aevae_jax.lazy import modules
from aevae_jax.runs import provenance, records

if TYPE_CHECKING:
    from aevae_jax.runs import reproduction
else:
    reproduction = modules("aevae_jax.runs", "reproduction")


def reproduce(run: Path, *, data: Moved = "", origin: Annotated[str, "--from RUN"] = "") -> None:
    """Train a run again from its record, and say if it comes out the same.

    PASS (bitwise): every loss, the weights and all figures are equal to the last bit. PASS within tolerance: trained on
    another device, core count or version, which is named. FAIL: with the first step that differs, and exit code 1.

    Example: aevae reproduce runs/first

    Args:
      run: the directory of a finished run.
      data: where the run's data is by now, a name or path, if it has moved; its sha256 must be the same.
      origin: where the run is by now that it began from, if that has moved.
    """
    settings = records.read_record(run)["provenance"].get("settings")
    if isinstance(settings, dict) and provenance.DETERMINISTIC in str(settings.get("xla_flags")).split():
        provenance.make_deterministic()

    begin(f"reading {run}")
    with console.progress("again") as shown:
        verdict = reproduction.reproduce(
            run, data=data, initial=origin, on_epoch=shown, on_note=console.note, on_steps=shown
        )
    say(f"{verdict.outcome}: {verdict.reason}")
    for difference in verdict.differences:
        say(f"  {difference}")
    if not verdict.passed:
        if not verdict.differences:
            say("  device, versions and settings are the same")
        raise SystemExit(1)


def replay(run: Path, *, step: int, data: Moved = "") -> None:
    """Compute one training step of a run again, and say what broke in it.

    Example: aevae replay runs/first --step 1200

    Args:
      run: a run directory, of a finished run or not; nothing is written to it.
      step: which step, counted from 0.
      data: where the run's data is by now, a name or path, if it has moved; its sha256 must be the same.
    """
    records.read_record(run)
    begin(f"reading {run}")
    found = reproduction.replay(run, step, data=data, note=console.note)
    diagnosis, culprit = found.diagnosis, found.diagnosis.culprit
    say(f"step {step} of {run}, training examples {_shortened(diagnosis.rows)}")
    if found.rollback is not None:
        first, last = found.rollback[0], found.rollback[1] - 1
        say(f"  steps {first} to {last} were skipped after a rollback; this is how it was before that")
    for name, value in diagnosis.metrics.items():
        say(f"  {name.replace('_', ' '):<16} {value:.9g}{'' if math.isfinite(value) else '  <- not finite'}")
    if found.recorded is not None:
        same = found.recorded == diagnosis.metrics["loss"] or math.isnan(found.recorded)
        say(f"  {'recorded loss':<16} {found.recorded:.9g}{'' if same else '  <- another'}")
    if not diagnosis.broken:
        say("all of it is finite and can be used")
        return
    say(f"cannot be used: {', '.join(diagnosis.broken)}")
    if diagnosis.examples:
        say(f"of these examples, taken alone: {_shortened(diagnosis.examples)}")
    if culprit is not None and culprit.operation == "input":
        say(f"the first {culprit.value} came in from outside: {culprit.where}")
    elif culprit is not None:
        say(f"the first {culprit.value} was made by {culprit.operation} at {culprit.where}, shape {culprit.shape}")


def _shortened(rows: tuple[int, ...]) -> str:
    text = ", ".join(map(str, rows[:12]))
    return text if len(rows) <= 12 else f"{text} and {len(rows) - 12} more"
