"""All that a training is at a step, what it tells after an epoch, and how it says that its numbers broke."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np

from aevae_jax.training.step import TrainState
from aevae_jax.types import InputError, Metrics, Params


class Epoch(NamedTuple):
    """What is known after an epoch; with several seeds, means over them."""

    epoch: int
    epochs: int
    step: int
    train: dict[str, float]
    """Means over the steps that were used."""
    validation: dict[str, float]
    skipped: int
    """Steps that were not used: see `runs.Safeguard`."""
    examples_per_second: float
    """Speed of training, less what a compilation took; NaN where all of it was one."""
    losses: np.ndarray
    """Loss of each step, float32 `[T]`; with several seeds, `[T, S]`."""
    selects: str
    """The entry of `validation` that parameters are selected by."""


class Steps(NamedTuple):
    """How far a training has got within an epoch."""

    epoch: int
    """The one that is being trained, from 1."""
    epochs: int
    done: int
    """Steps of it that are taken; 0, or where it resumes, before the first chunk, which is compiled then."""
    steps: int
    """Steps of an epoch."""

    @property
    def part(self) -> tuple[int, int]:
        """How many steps of all epochs are taken, of how many."""
        return (self.epoch - 1) * self.steps + self.done, self.epochs * self.steps


@dataclass(frozen=True)
class Progress:
    """The part of a snapshot that is not arrays. Lists have one entry per seed."""

    step: int = 0
    epoch: int = 0
    """Epochs that are trained and evaluated."""
    best_value: tuple[float, ...] = ()
    best_epoch: tuple[int, ...] = ()
    """0 as long as there is none."""
    in_a_row: tuple[int, ...] = ()
    """Steps skipped up to here, one after the other."""
    rollbacks: tuple[tuple[int, int], ...] = ()
    """Steps that are skipped, `(first, after the last)`, in the order in which they were found."""
    seconds: float = 0.0
    history: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    """One entry per epoch, and within it per member: epoch, step, train and validation metrics, skipped steps."""

    def streaks(self, skipped: np.ndarray, jumped: np.ndarray, *, limit: int) -> tuple[int, ...]:
        """Return `in_a_row` after the steps that come next.

        Args:
          skipped: which of them could not be used, `[T]` or `[T, S]`.
          jumped: which of them belong to a rollback, and so were not tried, `[T]`.
          limit: how many in a row are too many.

        Raises:
          Broken: there were as many, of one seed.
        """
        found = []
        for s, flags in enumerate(skipped.reshape(len(skipped), -1).T):
            streak = self.in_a_row[s]
            for index, failed in enumerate(flags > jumped if streak or flags.any() else ()):
                streak = streak + 1 if failed else 0
                if streak == limit:
                    after = self.step + index + 1
                    raise Broken(after - limit, after, s)
            found.append(streak)
        return tuple(found)

    def to_notes(self) -> dict[str, Any]:
        """Return as JSON."""
        return {**asdict(self), "best_value": [None if math.isinf(v) else v for v in self.best_value]}

    @staticmethod
    def from_notes(notes: dict[str, Any]) -> Progress:
        """Return the progress that `to_notes` wrote.

        Raises:
          InputError: what no training wrote.
        """
        notes = {"rollbacks": notes.get("detours"), **notes}  # as version 0.1 called them
        try:
            return Progress(
                step=int(notes["step"]),
                epoch=int(notes["epoch"]),
                best_value=tuple(math.inf if v is None else float(v) for v in notes["best_value"]),
                best_epoch=tuple(int(v) for v in notes["best_epoch"]),
                in_a_row=tuple(int(v) for v in notes["in_a_row"]),
                rollbacks=tuple((int(first), int(after)) for first, after in notes["rollbacks"]),
                seconds=float(notes["seconds"]),
                history=tuple(dict(entry) for entry in notes["history"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                "checkpoint", got=f"notes that no training wrote ({error})", expected="those of this version"
            ) from None


class Snapshot(NamedTuple):
    """A training at a step: what has to be kept to resume as if nothing had happened."""

    state: TrainState
    best: Params
    """The parameters of the least `ResolvedRun.selects` so far."""
    metrics: Metrics
    """Metrics of the steps of the epoch that is being trained, `[T]` or `[T, S]`."""
    losses: np.ndarray
    """Losses of all steps of the epochs before this one, float32 `[steps]` or `[steps, S]`."""
    progress: Progress


class Broken(Exception):
    """Too many steps in a row could not be used, or the validation bound is not finite."""

    def __init__(self, first: int, after: int, seed_index: int):
        super().__init__(f"steps {first} to {after - 1}" if after > first else f"the validation after step {after}")
        self.first, self.after, self.seed_index = first, after, seed_index
