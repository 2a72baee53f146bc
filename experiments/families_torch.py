"""The same families by the best-known PyTorch library of them, beside ours: pythae, on the same data and steps.

Command:   python experiments/families_torch.py --torch ../venv-torch/bin/python
           (a Python with pythae: python3 -m venv ../venv-torch && ../venv-torch/bin/pip install pythae scikit-learn)
Writes:    a table on standard output, and with --record a JSON file
Expected:  pythae's Gaussian has a scale of 1, so that its VAEs pay more for a nat of the code, as a beta-VAE does, and
           collapse on small images. With the rate weighed by 0.02, about the variance of what is left of digits, its
           VAE has the scale of a trained one from the first step on, where ours learns it, from 0.25 on in steps of
           Adam: in few steps its bound is the lower one.

Protocol: that of families.py where the library has what it needs: dense networks of two layers of 256, 16 latent
numbers or 16 indices of 64 vectors, Adam at 1e-3, the same batches and number of steps, parameters of the best epoch
by the library's own validation loss. MSE is that at the mean code. The bound is that of the trained networks under a
Gaussian of the one scale that is best on validation images, at draws of the code; where the library trains another
quantity (several samples, a penalty) it is still that bound. Distances are as in families.py. Of the library, families
are taken that its `BaseTrainer` trains.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from defaults import Judge
from families import SAMPLES, judge_of
from families_table import interval
from written import markdown

from aevae_jax import durable, keys, training
from aevae_jax.cli import console, terminal
from aevae_jax.data import Data, prepare, suited
from aevae_jax.runs import records
from aevae_jax.types import InputError

WORKER = Path(__file__).with_name("families_pythae.py")

ROWS = (
    "autoencoder",
    "VAE",
    "VAE, rate weighed 0.02",
    "beta-VAE, beta = 4",
    "beta-TCVAE, 6 times TC",
    "IWAE, 5 samples",
    "InfoVAE",
    "Wasserstein autoencoder",
    "VQ",
)
"""What both have, by the names of families.py, and once more the VAE with a weight that stands for a smaller scale."""

MEASURES = {"mse": "{:.4f}", "nats": "{:.2f}", "distance": "{:.2f}", "with mixture": "{:.2f}"}


def beside(
    *,
    data: str = "digits",
    rows: tuple[str, ...] = (),
    seeds: int = 3,
    steps: int = 2_000,
    torch: str = "",
    record: str = "",
) -> None:
    """Train families by pythae on data that families.py trains ours on, and measure them alike.

    Args:
      data: the name of labelled images: digits, sprites or fashion_mnist.
      rows: names of families; all that both have, where it is left out.
      seeds: how many of each to train.
      steps: of each training, rounded up to whole epochs.
      torch: a Python with pythae, where it is not this one.
      record: also write the results to this JSON file, in place of those of the same data.
    """
    if unknown := [name for name in rows if name not in ROWS]:
        raise InputError("--rows", got=repr(unknown[0]), expected=", ".join(map(repr, ROWS)))
    for option, value, least in (("--seeds", seeds, 2), ("--steps", steps, 1)):
        if value < least:
            raise InputError(option, got=value, expected=f"at least {least}")
    if record:
        durable.make_room(Path(record))
    prepared = prepare(Data().preparation, Data(data).load())
    size = suited.batch_size(len(prepared.train))
    per_epoch = training.steps_per_epoch(prepared.train.x, size)
    epochs = max(2, -(-steps // per_epoch))
    asked = {"rows": rows or ROWS, "seeds": seeds, "epochs": epochs, "batch_size": size, "samples": SAMPLES}
    with tempfile.TemporaryDirectory() as folder:
        images, made = Path(folder) / "images.npz", Path(folder) / "made.npz"
        parts = ("train", "validation", "test")
        arrays: Any = {part: np.asarray(prepared.rows(part, keys.root(0))[:]) for part in parts}
        np.savez(images, **arrays)
        found = answered(torch or sys.executable, {**asked, "images": str(images), "results": str(made)})
        judge = judge_of(prepared, per_epoch)
        with np.load(made) as pictures:
            for title, each in found["figures"].items():
                for seed, one in enumerate(each):
                    for name, measure in (("prior", "distance"), ("mixture", "with mixture")):
                        one[measure] = distance(judge, pictures[f"{title}/{seed}/{name}"])
    print(table(found["figures"]))
    told = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    print(f"{data}, {epochs * per_epoch:,} steps, {seeds} seeds, pythae with {told}.")
    if record:
        old = records.read_json(Path(record))["data"] if Path(record).exists() else {}
        typed = shlex.join(["python", "experiments/families_torch.py", *sys.argv[1:]])
        new = {"command": typed, "seeds": seeds, "steps": epochs * per_epoch, **found}
        records.write_json(Path(record), {"data": {**old, data: new}})


def answered(python: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Return what a Python with pythae makes of a request.

    Raises:
      InputError: it has no pythae, or does not run.
    """
    terminal.begin(f"training by pythae in {python}")
    try:
        quiet = {**os.environ, "TQDM_DISABLE": "1"}  # pythae's bars: what is said on the way are our rows
        done = subprocess.run(
            [python, str(WORKER)], input=json.dumps(asked), stdout=subprocess.PIPE, text=True, check=False, env=quiet
        )
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (OSError, IndexError, ValueError):
        raise InputError("--torch", got=f"{python}, which fails", expected="a Python that has pythae") from None
    if "missing" in found:
        hint = "type: pip install pythae scikit-learn, in an environment of its own"
        raise InputError("pythae", got=found["missing"], expected="it in the Python that --torch names", hint=hint)
    return found


def distance(judge: Judge, images: np.ndarray) -> float | None:
    """Return the Frechet distance of images above that of validation images; `None` where there are none."""
    if not images.size:
        return None
    found = judge.held_out.distances(judge.classifiers.features(images.clip(0, 1)))
    return float(found.samples - found.floor)


def table(figures: dict[str, list[dict[str, Any]]]) -> str:
    """Return the rows as Markdown: means of seeds with the half width of their 95 % interval."""
    lines = []
    for title, each in figures.items():
        values = {name: interval([one[name] for one in each]) for name in MEASURES}
        cells = [
            "none" if value is None else f"{form.format(value[0])} ± {form.format(value[1])}"
            for value, form in zip(values.values(), MEASURES.values(), strict=True)
        ]
        lines.append([title, *cells, f"{np.mean([one['epoch_seconds'] for one in each]):.3f}"])
    head = ["family, by pythae", "MSE", "negative ELBO, nats", "distance, prior", "distance, mixture", "s / epoch"]
    return markdown(head, lines)


if __name__ == "__main__":
    with console.one_line_errors():
        console.parse_arguments(beside, sys.argv[1:], prog="families_torch.py")()
