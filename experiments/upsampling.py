"""Does the decoder of `Conv`, which doubles images by sub-pixel convolutions, lose anything against the former one?

Command:   python experiments/upsampling.py --record experiments/results/upsampling_fashion_mnist.json
           (Fashion-MNIST, 8 epochs: half an hour on two CPU cores; it goes on where it was stopped, at any step)
           python experiments/upsampling.py --data digits --epochs 20      (small data, no download)
Writes:    runs/upsampling_DATA/results.json; each training in a directory of its own
Expected:  on Fashion-MNIST a negative ELBO that is at most 1 % higher (how fast both are, speed.py measures); on the
           digits, after few steps, anything

Protocol: bits redrawn at every step from the grey levels, those of validation and test drawn once; `Conv((32, 64))`
both ways, 16 latent dimensions, the Bernoulli likelihood, N(0, I), Adam at 0.001, batches of 128, the same number of
epochs and the same seeds for both. Parameters are those of the best epoch by the negative ELBO of validation data. What
is compared is that of the test images, one draw each, in nats per image: the difference is paired by seed, its mean and
the 95 % interval of Student's t.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import paired
from written import markdown, typed

from aevae_jax import durable
from aevae_jax.cli import console, terminal
from aevae_jax.data import Data, DynamicBinarization
from aevae_jax.lazy import modules, np
from aevae_jax.models import VAE
from aevae_jax.models.architectures import Conv, Upsampling
from aevae_jax.models.likelihoods import Bernoulli
from aevae_jax.models.priors import StandardNormal
from aevae_jax.runs.run import Run
from aevae_jax.types import InputError

if TYPE_CHECKING:
    from aevae_jax.runs import records
else:
    records = modules("aevae_jax.runs", "records")

KINDS: tuple[Upsampling, ...] = get_args(Upsampling)
FORMER: Upsampling = "repeat"


def upsampling(
    *, seeds: int = 3, data: Data = Data("fashion_mnist"), epochs: int = 8, out: str = "", record: str = ""
) -> None:
    """Train VAEs that differ in how their decoder doubles images, and compare their negative ELBO: half an hour on two
    CPU cores where nothing else is said. Goes on where it was stopped.

    Args:
      seeds: how many of each, counted from 0.
      data: fashion_mnist, digits, sprites, or other images with integer levels, as for aevae train.
      epochs: of each training.
      out: directory for the runs and the results; where none is named, runs/upsampling_DATA.
      record: also write the results to this JSON file.
    """
    paired.check(seeds, epochs)
    terminal.begin(f"reading {data.name}, to train {seeds} VAEs of each kind")
    data = replace(data, preparation=DynamicBinarization())
    dataset = data.load()
    if len(dataset.event_shape) != 3:
        raise InputError("--data", got=f"examples of shape {dataset.event_shape}", expected="images")
    place = Path(out or f"runs/upsampling_{Path(dataset.name).stem}")
    files = [place / "results.json", *([Path(record)] if record else [])]
    for path in files:
        durable.make_room(path)
    rows: dict[str, paired.Row] = {name: {} for name in KINDS}
    for seed in range(seeds):
        for name in KINDS:
            run = run_of(name, seed, data, examples=len(dataset.train), epochs=epochs)
            paired.measure(rows[name], place / f"{name}-{epochs}-{seed}", run, dataset)
    results = {
        "command": shlex.join(["python", "experiments/upsampling.py", *sys.argv[1:]]),
        "data": dataset.name,
        "epochs": epochs,
        "seeds": seeds,
        "made": paired.made_of(records.read_record(place / f"{KINDS[0]}-{epochs}-0")["provenance"]),
        "rows": rows,
    }
    print(f"{table(results)}\n{says(results)}", flush=True)
    for path in files:
        records.write_json(path, results)


def run_of(name: Upsampling, seed: int, data: Data, *, examples: int, epochs: int) -> Run:
    """Return the run of a row on so many training examples."""
    model = VAE(16, Conv(upsampling=name), Bernoulli(), StandardNormal())
    return Run(data, model, batch_size=min(128, examples), epochs=epochs, seed=seed)


def table(results: dict[str, Any]) -> str:
    """Return a Markdown table: means over seeds in nats per image."""
    lines = [[name, *paired.cells(row)] for name, row in results["rows"].items()]
    return markdown(["upsampling", *(f"{measure}, nats" for measure in paired.MEASURES.values())], lines)


def says(results: dict[str, Any]) -> str:
    """Return the difference of the negative ELBO from the former one, in nats and in hundredths of it."""
    base = np.mean(results["rows"][FORMER]["negative_elbo"])
    [(name, more)] = paired.more(results["rows"], FORMER).items()
    percent = more._replace(**{field: 100 * value / base for field, value in more._asdict().items()})
    return (
        f"{results['data']}, epochs: {results['epochs']}, seeds: {results['seeds']}. The negative ELBO of {name} less "
        f"that of {FORMER} is {paired.apart(more)} nats, or {paired.apart(percent)} %: the mean over seeds and its "
        "95 % interval, paired by seed."
    )


def of_readme(results: dict[str, Any], path: str) -> str:
    """Return the sentence and the rows.

    Args:
      results: as recorded.
      path: of the file.
    """
    return (
        "**The decoder of `Conv()`** beside that of version 0.1, bits redrawn at every step, 16 latent dimensions, "
        f"test data. {says(results)} `{typed(results['command'])}` ([protocol](experiments/upsampling.py), "
        f"[figures]({path})).\n\n{table(results)}"
    )


if __name__ == "__main__":
    with console.one_line_errors():
        console.parse_arguments(upsampling, sys.argv[1:], prog="upsampling.py")()
