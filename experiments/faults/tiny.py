"""A run that takes a second, of which hostile files are made."""

from __future__ import annotations

import csv
import fcntl
import json
import shutil
from pathlib import Path
from typing import Any

STEPS = (6, 12)
"""Those that have a checkpoint."""


def run_of(seed: int) -> Any:
    """Return a run that takes a second."""
    from aevae_jax import VAE, Data, Run
    from aevae_jax.models.architectures import MLP
    from aevae_jax.models.likelihoods import NormalSharedScale
    from aevae_jax.models.priors import StandardNormal

    model = VAE(2, MLP((8,)), NormalSharedScale(), StandardNormal())
    return Run(Data("digits"), model, batch_size=256, epochs=3, seed=seed)


def train(folder: Path, seed: int) -> None:
    """Train that run in a folder, and keep checkpoints."""
    from aevae_jax.checkpoints.saving import Saving
    from aevae_jax.runs import fitting

    fitting.fit(
        run_of(seed),
        directory=folder,
        saving=Saving(seconds=1e6, steps=STEPS[0], last=9, best=9),
        on_note=lambda text: None,
    )


KEPT: list[Path] = []
"""Where trained runs are kept, so that each is trained once; a worker says where."""


def trained(folder: Path, seed: int) -> None:
    """Return a copy of that run, trained."""
    [kept] = KEPT
    kept.mkdir(parents=True, exist_ok=True)
    with (kept / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (kept / str(seed) / "results.json").exists():
            train(kept / str(seed), seed)
    shutil.copytree(kept / str(seed), folder)


def usable(folder: Path) -> None:
    """Make a run that commands can use, and inputs for them."""
    import numpy as np

    trained(folder / "a", 1)
    shutil.rmtree(folder / "a" / "checkpoints")
    np.save(folder / "images.npy", np.random.default_rng(0).integers(0, 17, (5, 8, 8, 1)).astype(np.uint8))
    np.save(folder / "codes.npy", np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32))


def table(folder: Path, name: str) -> None:
    """Write a table with such a heading, and such a category."""
    with (folder / "x.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([name, "other", "third"])
        writer.writerows([n * 1.5, ("x", f"{name} z", "y")[n % 3], n * n] for n in range(60))
    (folder / "name").write_text(json.dumps(name))
