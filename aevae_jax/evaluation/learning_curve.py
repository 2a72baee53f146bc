"""What the validation bound of each epoch says of a training: too short, or so long that it overfits."""

from __future__ import annotations

import numpy as np

from aevae_jax.evaluation import metrics
from aevae_jax.evaluation.findings import Finding, Trained
from aevae_jax.types import InputError, TotalNeeding

FAULTS = ("overfitting", "under-trained")
"""What can be found here."""

LAST = 0.1
"""The share of the epochs that are the end of a training; one epoch at least."""

STILL_FALLING = 0.01
"""Share of the whole improvement of the validation bound that the end of the training brought, from which on the
training was too short."""

FALLING_RATE = (0.5, 0.03)
"""The same two where the learning rate falls with the epochs, as along a cosine: then the end is flat in any case."""

LONG_AGO = 0.75
"""Share of the epochs by which the best one of a training that overfits is over."""

RISEN = 0.03
"""Share of the whole improvement that is lost again at the end of a training that overfits, on average."""


def look(fitted: Trained) -> list[Finding]:
    """Return the finding that the validation bound was still falling, or has long been rising, if so.

    Raises:
      InputError: there is no history, or one without numbers.
    """
    if not fitted.history:
        raise InputError("history", got="no epoch", expected="one entry for each, in metrics.jsonl")
    chosen = [metrics.selection(fitted.run.objective, entry["validation"]) for entry in fitted.history]
    bound = np.array(chosen, np.float64)  # null becomes NaN
    if not np.isfinite(bound).all():
        raise InputError("history", got="an epoch without a validation bound", expected="a number in metrics.jsonl")
    count, best = len(bound), int(bound.argmin()) + 1
    optimizer = fitted.run.optimizer
    falls = isinstance(optimizer, TotalNeeding) and optimizer.needs_total
    part, limit = FALLING_RATE if falls else (LAST, STILL_FALLING)
    last = max(1, int(part * count))
    whole = bound[0] - bound.min()
    gained = bound[:-last].min() - bound.min() if count > last else 0.0
    lost = bound[-max(1, int(LAST * count)) :].mean() - bound.min()
    if _is_unfinished(fitted, count, best):
        evidence = f"{count} of {fitted.run.epochs} epochs are over"
        return [Finding("under-trained", evidence, "let it go on: type the command that began it", {})]
    if count == 1 or gained > limit * whole:
        evidence = "a single epoch does not show whether the validation bound still falls"
        if count > 1:
            evidence = (
                f"the validation bound was still falling: {gained:.3g} of {whole:.3g} nats came in the last {last} of "
                f"{count} epochs ({100 * limit:g} % or less has settled)"
            )
        return [Finding("under-trained", evidence, f"--epochs {2 * count}", {"epochs": 2 * count})]
    if best <= LONG_AGO * count and lost > RISEN * whole:
        patience = min(max(5, count // 10), count - best)
        evidence = (
            f"the validation bound was best in epoch {best} of {count}, whose parameters were kept, and has risen by "
            f"{lost:.3g} nats since, of {whole:.3g} that were gained: what was learned later is of the training data"
        )
        remedy = (
            f"stop earlier, as more epochs will not help: --patience {patience}; or a smaller network, or more data"
        )
        return [Finding("overfitting", evidence, remedy, {"patience": patience})]
    return []


def _is_unfinished(fitted: Trained, count: int, best: int) -> bool:
    """Return whether a training had not come to its end, by its epochs or its patience."""
    run = fitted.run
    return count < run.epochs and not (run.patience and count - best >= run.patience)
