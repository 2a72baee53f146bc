"""The pictures of a finished run: how it learnt, samples from the prior, and inputs above their reconstructions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from aevae_jax import charts, conditions, figures, keys, values
from aevae_jax.checkpoints import array_files
from aevae_jax.data import Prepared, datasets
from aevae_jax.models import generation
from aevae_jax.runs import curves
from aevae_jax.runs.callbacks import Note
from aevae_jax.runs.fitted import Fitted
from aevae_jax.runs.resolution import ResolvedRun
from aevae_jax.types import LatentModel, has_point_codes, shortened

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
    """Draw both with the same black and white, and with words that follow from the run alone, as its other files do."""
    model, seed, levels = fitted.model, fitted.run.seed, prepared.format.levels
    key = keys.stream(keys.root(seed), keys.Stream.SAMPLE)
    batch = jax.device_put(prepared.test.rows[:16])
    x, told = conditions.examples(batch), prepared.told(generation.PREVIEWED)
    made = (x, *reversed(generation.preview(model, fitted.params, batch, key, told)))
    images, reconstructions, samples = (prepared.preparation.inverse(np.asarray(y), prepared.format) for y in made)
    span = figures.span_of(images, levels)
    name, ends = shortened(prepared.name, 50), ends_of(span, levels)
    charts.sheet(
        folder / "samples.png",
        samples,
        8,
        title=f"{name}: random codes, decoded",
        note=f"{MEANS}, z ~ {prior_of(model)}, seed {seed}{ends}",
        captions=captions_of(told, prepared.class_names),
        span=span,
    )
    charts.sheet(
        folder / "reconstructions.png",
        [images, reconstructions],
        8,
        title=f"{name}: test images and their reconstructions",
        note=reconstruction_of(model) + ends,
        rows=PAIR,
        captions=prepared.classes("test", range(len(x))),
        span=span,
    )


MEANS, DRAWS = "means of p(x|z)", "draws from p(x|z)"
"""What is shown of a code."""
PAIR = ("input", "reconstruction")
"""The rows of a picture of reconstructions."""


def captions_of(told: Any, class_names: Sequence[str]) -> list[str]:
    """Return the names of the classes that samples were told; nothing where they were told none."""
    label = None if told is None else conditions.parts(told).get("label")
    return datasets.class_texts(label, class_names)


def prior_of(model: LatentModel) -> str:
    """Return the prior of a model as it is typed, if it has a field for it and no other one is learned."""
    if isinstance(model, conditions.LearnsPrior) and model.learned_prior:
        return "p(z|c)"
    return shortened(values.spell(model.latent_prior) if hasattr(model, "latent_prior") else "p(z)", 60)


def reconstruction_of(model: LatentModel) -> str:
    """Return what a reconstruction is."""
    return f"{MEANS} at {'the code of x' if has_point_codes(model) else 'the mean of q(z|x)'}"


def ends_of(span: tuple[float, float], levels: int) -> str:
    """Return which values are black and white, to be added to a note; nothing for integer levels."""
    return "" if levels else f"; {span[0]:.4g} is black, {span[1]:.4g} white"
