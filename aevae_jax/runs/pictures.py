"""The pictures of a finished run: how it learnt, samples from the prior, and inputs above their reconstructions."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np

from aevae_jax import figures, keys
from aevae_jax.checkpoints import array_files
from aevae_jax.data import Prepared
from aevae_jax.models import generation
from aevae_jax.runs import curves
from aevae_jax.runs.callbacks import Note
from aevae_jax.runs.fitted import Fitted
from aevae_jax.runs.resolution import ResolvedRun

NAMES = ("curves", "samples", "reconstructions")


def save(folder: Path, resolved: ResolvedRun, fitted: Fitted, note: Note) -> None:
    """Leave the curves, and pictures where events are images; what goes wrong with them is said, and no more."""
    try:
        curves.draw(
            folder / "curves.png", fitted.history, selects=resolved.selects, title=curves.title_of(folder, fitted.run)
        )
        if len(resolved.prepared.event_shape) == 3:
            _draw(folder, resolved.prepared, fitted)
    except Exception as error:
        note(f"{folder} is finished, but has no pictures ({type(error).__name__}: {array_files.reason(error)})")


def _draw(folder: Path, prepared: Prepared, fitted: Fitted) -> None:
    key = keys.stream(keys.root(fitted.run.seed), keys.Stream.SAMPLE)
    x = jax.device_put(prepared.test.x[:16])
    samples, reconstructions = map(np.asarray, generation.preview(fitted.model, fitted.params, x, key))
    pairs = np.concatenate([np.asarray(x), reconstructions])
    samples, pairs = (prepared.preparation.inverse(images, prepared.format) for images in (samples, pairs))
    span = figures.span_of(pairs[: len(x)], prepared.format.levels)
    for name, images, columns in zip(NAMES[1:], (samples, pairs), (8, len(x)), strict=True):
        figures.save_png(folder / f"{name}.png", figures.image_grid(images, columns, span=span).pixels)
