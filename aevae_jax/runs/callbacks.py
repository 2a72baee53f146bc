"""Who is told what of a training on its way."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from aevae_jax.runs.snapshots import Epoch, Steps

OnEpoch = Callable[["Epoch"], None]
OnSteps = Callable[["Steps"], None]
Note = Callable[[str], None]
"""Is told what happened, in a line."""


class Callbacks(NamedTuple):
    """What is called on the way of a training."""

    on_epoch: OnEpoch | None
    on_note: Note
    on_begin: Note
    """Is told what the run takes from its data, or where it resumes."""
    on_steps: OnSteps | None = None
    """Is called before the first step, and then about once a second of training."""
