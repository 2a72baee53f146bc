"""Classifiers that judge the samples of a data set: trained once, and then kept in the user's cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Sequence

import jax

from aevae_jax import caches, values
from aevae_jax.data import Prepared, datasets
from aevae_jax.evaluation import classifiers
from aevae_jax.evaluation.classifiers import Ensemble
from aevae_jax.runs import provenance
from aevae_jax.runs.callbacks import Note
from aevae_jax.runs.weights import load_weights, save_weights
from aevae_jax.types import InputError

FOLDER = "classifiers"

LARGEST = 2**28
"""Bytes of all that are kept; those of a data set of images take less than a megabyte for each seed."""


def ensemble(
    prepared: Prepared,
    seeds: Sequence[int],
    *,
    steps: int = 600,
    cycles: int = 1,
    note: Note,
    begin: Note,
    on_part: Callable[[int, int], None] | None = None,
) -> Ensemble:
    """Return what `classifiers.train_ensemble` does, from the cache where the same was trained before.

    That is of the same data, by the same code, versions, device and settings, and so with the same bits.

    Args:
      prepared: the data set.
      seeds: one per classifier.
      steps: see `classifiers.train_ensemble`.
      cycles: see there.
      note: is told of classifiers that were kept, and are damaged.
      begin: is told that a training begins.
      on_part: is told of its steps.

    Raises:
      InputError: the data set has no labels.
    """
    classifier = classifiers.of(prepared)
    like = jax.eval_shape(jax.vmap(classifier.init), jax.random.split(jax.random.key(0), len(seeds)))
    key, folder = _digest(prepared, seeds, steps, cycles), caches.place(FOLDER)
    path = None if folder is None else folder / f"{key}.safetensors"
    if path is not None and path.exists():
        try:
            kept = load_weights(path, like, run=key)
            os.utime(path)  # of use now
            return Ensemble(classifier, kept)
        except (InputError, OSError) as error:
            note(f"kept classifiers are trained again: {error}")
    begin(f"training {len(seeds)} classifiers of {prepared.name}, to judge samples by")
    made = classifiers.train_ensemble(prepared, seeds, steps=steps, cycles=cycles, on_part=on_part)
    if folder is not None and path is not None:
        with contextlib.suppress(InputError):  # who cannot keep compiled programs there has been told so
            caches.private(folder)
            save_weights(path, made.params, run=key)
            caches.trim(folder, LARGEST)
    return made


def _digest(prepared: Prepared, seeds: Sequence[int], steps: int, cycles: int) -> str:
    """Return the sha256 over all that the classifiers' bits depend on."""
    environment = provenance.environment()
    read = [prepared.train] if cycles == 1 else [prepared.train, prepared.validation]
    arrays = [array for part in read for array in (part.x, part.labels) if array is not None]
    depends = {
        "data": [datasets.digest_of(array) for array in arrays],
        "training": [steps, cycles],
        "preparation": values.to_json(prepared.preparation),
        "format": values.to_json(prepared.format),
        "seeds": list(map(int, seeds)),
        **{name: environment[name] for name in ("versions", "code", "device", "host", "settings")},
    }
    return hashlib.sha256(json.dumps(depends, sort_keys=True, default=str).encode()).hexdigest()
