"""How likely does a model find images it has not seen? Published test likelihoods, in exactly their protocol.

Command:   python experiments/density.py --rows vae --seeds 3          (about 45 minutes a seed on two CPU cores)
           python experiments/density.py --data digits --rows all      (all rows on small data: some minutes)
Writes:    runs/density/results.json and results.md; each run in a directory of its own, resumable at any step
Expected:  on Fashion-MNIST at most 228.70 nats for `vae` and 227.35 for `vampprior`, and never less than the floor, the
           entropy of the pixels: no model can know which bits will be drawn.

Protocol (Exemplar VAE; Tomczak & Welling 2018): first 50,000 images for training, last 10,000 of these files for
validation, 10,000 for test. Training bits are redrawn at every step, those of validation and test once, with seed 777.
Gated dense layers 300-300 both ways, 40 latent dimensions (two-level: 40 + 40), log variances within [-6, 2], batches of
100, KL warm-up over 100 epochs, the best validation bound, at most 50 epochs without a better one. The test likelihood
is importance-weighted with 5,000 samples per image. What training adds to theirs, and no network does: a larger learning
rate that falls along a cosine, a moving average of the parameters, and "sticking the landing" gradients.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from aevae_jax import console
from aevae_jax.architectures import MLP
from aevae_jax.data import Data, DynamicBinarization
from aevae_jax.likelihoods import Bernoulli
from aevae_jax.models import VAE, Model
from aevae_jax.objectives import ELBO, IWAE, Linear, Objective
from aevae_jax.optimizers import Adam
from aevae_jax.priors import VampPrior
from aevae_jax.runs import Run
from aevae_jax.types import InputError

if TYPE_CHECKING:
    pass


class Row(NamedTuple):
    """One line of the table."""

    model: str
    prior: str
    objective: str
    published: float | None
    """Test NLL on Fashion-MNIST of the Exemplar VAE's authors, in nats; at most this is asked for."""
    aim: float | None


ROWS = {
    "vae": Row("VAE", "N(0, I)", "ELBO", 228.70, 228.0),
    "vampprior": Row("VAE", "VampPrior, 500", "ELBO", 227.35, 226.75),
    "iwae_1": Row("VAE", "N(0, I)", "IWAE, K = 1", None, None),
    "iwae_5": Row("VAE", "N(0, I)", "IWAE, K = 5", None, None),
    "iwae_50": Row("VAE", "N(0, I)", "IWAE, K = 50", None, None),
}
EPOCHS, STEPS = 600, 6_000
"""Passes over Fashion-MNIST; training steps on any other data, where the number of epochs is not given."""

FASHION = "fashion_mnist"


def density(
    *,
    rows: tuple[str, ...] = ("vae",),
    seeds: int = 1,
    data: str = FASHION,
    epochs: int = 0,
    samples: int = 5_000,
    out: Path = Path("runs/density"),
    record: str = "",
) -> None:
    """Train density models by the published protocol and measure their test likelihood. Goes on where it was stopped.

    Args:
      rows: which: vae vampprior iwae_1 iwae_5 iwae_50, or all.
      seeds: how many of each, counted from 0.
      data: fashion_mnist, or any images with integer levels: digits is small and bundled.
      epochs: passes over the training data; 0 means 600 for Fashion-MNIST, else enough for 6,000 steps.
      samples: importance samples per image.
      out: directory for the runs and the table.
      record: also write the table, with rows not run marked as such, to this JSON file.
    """
    from aevae_jax import fitting

    names = tuple(ROWS) if rows == ("all",) else rows
    if unknown := [name for name in names if name not in ROWS]:
        raise InputError("--rows", got=unknown[0], expected=", ".join([*ROWS, "all"]))
    for name, value in (("--seeds", seeds), ("--samples", samples)):
        if value < 1:
            raise InputError(name, got=value, expected="at least 1")
    dataset = Data(data, DynamicBinarization()).load()
    per_epoch = len(dataset.train) // 100
    epochs = epochs or (EPOCHS if data == FASHION else -(-STEPS // per_epoch))
    for seed in range(seeds):
        for name in names:
            run, title = run_of(name, seed, data, steps_per_epoch=per_epoch, epochs=epochs), f"{name}, seed {seed}"
            with console.progress(title) as on_epoch:
                fitted = fitting.fit(
                    run, dataset, directory=out / f"{name}-{seed}", on_epoch=on_epoch, on_note=console.note
                )
            print(title, fitted.results["test"], flush=True)


def _warmup(steps_per_epoch: int, epochs: int) -> Linear:
    """Of the KL's weight: over 100 epochs, or over a quarter of a shorter training."""
    return Linear(steps_per_epoch * max(1, min(100, epochs // 4)))


def run_of(row: str, seed: int, data: str, *, steps_per_epoch: int, epochs: int) -> Run:
    """The run of a row: a value, whose digest is what was trained."""
    objective: Objective = ELBO(_warmup(steps_per_epoch, epochs), sticking_the_landing=True)
    model: Model = VAE(40, MLP((300, 300), gated=True), Bernoulli(), log_scale_range=(-3.0, 1.0))
    if row == "vampprior":
        model = replace(model, latent_prior=VampPrior(500))
    if row.startswith("iwae"):
        objective = IWAE(int(row.removeprefix("iwae_")), doubly_reparameterised=True)
    return Run(
        Data(data, DynamicBinarization()),
        model,
        objective,
        Adam(2e-3, warmup=500, weight_decay=0.05, cosine=True),
        batch_size=100,
        epochs=epochs,
        seed=seed,
        ema=0.9995,
        patience=50,
    )


if __name__ == "__main__":
    with console.one_line_errors():
        console.parse_arguments(density, sys.argv[1:], prog="density.py")()
