"""Batches of data that fit neither on the device nor in memory, read ahead by Grain. The only file that imports it.

A stream has no state of its own: which rows a step sees is a function of the run's key and the step (see
`training.batch_rows`), so it can begin at any step and meets the same batches as training on resident data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from aevae_jax import conditions
from aevae_jax.conditions import Conditioned
from aevae_jax.data.datasets import Source, size_in_bytes
from aevae_jax.types import InputError, not_installed

WINDOW_BYTES = 2**23
"""How much is read and sent to the device at once: 8 MiB, of which a handful exist at a time."""


def steps_per_window(x: Source | Conditioned, rows: np.ndarray) -> int:
    """Return how many steps are read and sent to the device at once: about 8 MiB, in windows of nearly equal length.

    Args:
      x: what is read.
      rows: which of its rows each step sees, `[T, ...]`.
    """
    step_bytes = max(1, rows[0].size * size_in_bytes(conditions.examples(x)) // len(x))
    most = max(1, WINDOW_BYTES // step_bytes)
    return math.ceil(len(rows) / math.ceil(len(rows) / most))


def windows(
    x: Source | Conditioned,
    rows: np.ndarray,
    *,
    steps: int | None = None,
    process: int = 0,
    processes: int = 1,
    ahead: int = 2,
) -> Iterator[Any]:
    """Yield what the steps see, a window of several steps at a time, read ahead in threads of Grain.

    Args:
      x: where rows are read; from several threads at once.
      rows: which rows each step sees, `[T, batch size]`, or `[T, seeds, batch size]`.
      steps: of each window; the last one is filled up with the batch that comes last. By default windows are of nearly
        equal length and none is filled up.
      process: of `processes`: each reads only its share of every batch, a contiguous one; shares of all processes
        laid side by side are the batch.
      processes: how many there are; must divide the batch size.
      ahead: windows to hold ready.

    Yields:
      `[steps, ..., share, *event]`, the raw values of the next steps, in order; `Conditioned` where `x` is.

    Raises:
      InputError: Grain is not installed, or the batch size cannot be shared equally.
    """
    try:
        import grain
    except ImportError:
        raise not_installed("grain", "streams", purpose="to stream data") from None
    batch_size = rows.shape[-1]
    if batch_size % processes:
        raise InputError("batch size", got=batch_size, expected=f"a multiple of the {processes} processes")
    share = batch_size // processes
    own = rows[..., process * share : (process + 1) * share]
    if steps is None:
        steps = steps_per_window(x, own)
    else:
        own = np.concatenate([own, own[-1:].repeat(-len(own) % steps, axis=0)])

    def read(index: int) -> Any:
        wanted = own[index * steps : (index + 1) * steps]
        try:
            return jax.tree.map(lambda a: a.reshape(*wanted.shape, *a.shape[1:]), x[wanted.reshape(-1)])
        except Exception as error:  # raised below: Grain would add to its message
            return error

    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=ahead)
    for window in grain.MapDataset.range(math.ceil(len(own) / steps)).map(read).to_iter_dataset(options):
        if isinstance(window, Exception):
            raise window
        yield window
