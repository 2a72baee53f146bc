"""Which examples each step of a training sees, and where they are read: on the device, or in windows of a stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax import Array

from aevae_jax import conditions, training
from aevae_jax.conditions import Conditioned
from aevae_jax.data import streams
from aevae_jax.data.datasets import Source
from aevae_jax.training import devices
from aevae_jax.training.devices import Layout
from aevae_jax.training.step import Chunk


class Batches:
    """The batches of a training, by step: a function of its key.

    Args:
      x: the training data, with what models are told of it.
      key: of the run, or `[S]` of the seeds.
      batch_size: examples per step.
      layout: of devices.
      stream: read windows of several steps from `x` as they come, in place of having all of it on the device.
    """

    def __init__(self, x: Source | Conditioned, key: Array, batch_size: int, layout: Layout, *, stream: bool):
        self._x, self._key, self._batch_size, self._layout = x, key, batch_size, layout
        self._steps = training.steps_per_epoch(conditions.examples(x), batch_size)
        # on every device: a batch is a random choice of rows, which others would have to send at each step
        self._data = None if stream else layout.replicate(x[:])
        self._chunk, self._epoch = Chunk(None, np.zeros((0, 1), np.int32)), -1
        self._windows: Iterator[Any] = iter(())
        self._next_window = -1
        """The step at which the next window begins."""

    def rows_of(self, step: int) -> np.ndarray:
        """Return which training examples a step sees, `[batch size]`, or `[S, batch size]` for seeds."""
        epoch, within = divmod(step, self._steps)
        return np.asarray(self._order(epoch))[within]

    def chunk_at(self, step: int) -> Chunk:
        """Return the batch of `step` and those after it: the whole epoch, or the next window of the stream."""
        epoch, within = divmod(step, self._steps)
        if self._epoch == epoch and 0 <= within - self._chunk.first < len(self._chunk.rows):
            return self._chunk
        if self._data is not None:
            self._chunk = Chunk(self._data, self._layout.divide(self._order(epoch), axis=1))
        else:
            if self._next_window != step:
                rows = np.asarray(self._order(epoch))
                size = streams.steps_per_window(self._x, rows)
                self._windows = streams.windows(self._x, rows[within:], steps=size, **devices.share())
            self._chunk = training.window_chunk(next(self._windows), self._key, within, layout=self._layout)
            after = within + len(self._chunk.rows)
            self._next_window = step - within + after if after < self._steps else -1
        self._epoch = epoch
        return self._chunk

    def shapes(self) -> Chunk:
        """Return the shapes of an epoch on the device."""
        data = conditions.shapes(self._x, len(self._x))
        rows: Any = jax.ShapeDtypeStruct((self._steps, *self._key.shape, self._batch_size), np.int32)
        return Chunk(data, rows)

    def _order(self, epoch: int) -> Array:
        """Return the rows of all steps of an epoch."""
        first = self._layout.replicate(np.full(self._key.shape, epoch * self._steps, np.int32))
        return training.batch_rows(self._key, first, len(self._x), batch_size=self._batch_size)
