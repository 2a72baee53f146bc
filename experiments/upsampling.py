"""Does the decoder of `Conv`, which doubles images by sub-pixel convolutions, lose anything against the former one?

Command:   python experiments/upsampling.py --record experiments/results/upsampling_fashion_mnist.json
           (Fashion-MNIST, 8 epochs: half an hour on two CPU cores; it goes on where it was stopped, at any step)
           python experiments/upsampling.py --data digits --epochs 20      (small data, no download)
Writes:    runs/upsampling_DATA/results.json; each training in a directory of its own
Expected:  a negative ELBO that is at most 1 % higher, in a fraction of the time.

Protocol: bits redrawn at every step from the grey levels, those of validation and test drawn once; `Conv((32, 64))`
both ways, 16 latent dimensions, the Bernoulli likelihood, N(0, I), Adam at 0.001, batches of 128, the same number of
epochs and the same seeds for both. Parameters are those of the best epoch by the negative ELBO of validation data. What
is compared is that of the test images, one draw each, in nats per image: the difference is paired by seed, its mean and
the 95 % interval of Student's t.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import paired
from defaults import markdown

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
    from aevae_jax.runs import provenance, records
else:
    provenance, records = modules("aevae_jax.runs", "provenance", "records")

FORMER: Upsampling = "repeat"


def upsampling(
    *, seeds: int = 3, data: str = "fashion_mnist", epochs: int = 8, out: str = "", record: str = ""
) -> None:
    """Train VAEs that differ in how their decoder doubles images, and compare their negative ELBO. Goes on where it
    was stopped.

    Args:
      seeds: how many of each, counted from 0.
      data: fashion_mnist, or any images with integer levels: digits is small and bundled.
      epochs: of each training.
      out: directory for the runs and the results; where none is named, runs/upsampling_DATA.
      record: also write the results to this JSON file.
    """
    for option, value, least in (("--seeds", seeds, 2), ("--epochs", epochs, 1)):
        if value < least:
            raise InputError(option, got=value, expected=f"at least {least}")
    place = Path(out or f"runs/upsampling_{data}")
    files = [place / "results.json", *([Path(record)] if record else [])]
    for path in files:
        durable.make_room(path)
    terminal.begin(f"reading {data}, to train {seeds} VAEs of each kind")
    dataset = Data(data, DynamicBinarization()).load()
    rows = {}
    for name in get_args(Upsampling):
        runs = [run_of(name, seed, data, examples=len(dataset.train), epochs=epochs) for seed in range(seeds)]
        rows[name] = paired.measured([(place / f"{name}-{epochs}-{run.seed}", run) for run in runs], dataset)
    made = provenance.provenance(dataset)
    results = {
        "command": shlex.join(["python", "experiments/upsampling.py", *sys.argv[1:]]),
        "data": data,
        "data_sha256": made["data"]["sha256"],
        "epochs": epochs,
        "seeds": seeds,
        "made": {"code": made["code"], "versions": made["versions"], **made["device"], **made["host"]},
        "rows": rows,
    }
    for path in files:
        records.write_json(path, results)
    print(f"{table(results)}\n{says(results)}", flush=True)


def run_of(name: Upsampling, seed: int, data: str, *, examples: int, epochs: int) -> Run:
    """Return the run of a row on so many training examples."""
    model = VAE(16, Conv(upsampling=name), Bernoulli(), StandardNormal())
    return Run(Data(data, DynamicBinarization()), model, batch_size=min(128, examples), epochs=epochs, seed=seed)


def table(results: dict[str, Any]) -> str:
    """Return a Markdown table: means over seeds in nats per image, and minutes of training."""
    rows = results["rows"]
    lines = [[n, *paired.cells(row), f"{np.mean(row['seconds']) / 60:.1f}"] for n, row in rows.items()]
    return markdown(["upsampling", *paired.MEASURES.values(), "minutes"], lines)


def says(results: dict[str, Any]) -> str:
    """Return by how much the negative ELBO exceeds the former one, in nats and in hundredths of it."""
    base = np.mean(results["rows"][FORMER]["negative_elbo"])
    [(name, more)] = paired.more(results["rows"], FORMER).items()
    percent = [100 * value / base for value in (more.mean, more.low, more.high)]
    return (
        f"{results['data']}, {results['epochs']} epochs, {results['seeds']} seeds: the negative ELBO of {name} exceeds "
        f"that of {FORMER} by {paired.apart(more)} nats, {percent[0]:+.2f} % [{percent[1]:+.2f}, {percent[2]:+.2f}]."
    )


def of_readme(results: dict[str, Any], path: str) -> str:
    """Return the sentence and the rows.

    Args:
      results: as recorded.
      path: of the file.
    """
    typed = results["command"].partition(" --record")[0]
    return (
        f"**The decoder of `Conv()`** beside that of version 0.1, bits redrawn at every step, 16 latent dimensions, "
        f"nats per image of test data, paired by seed with 95 % intervals. On {says(results)} `{typed}` "
        f"([protocol](experiments/upsampling.py), [figures]({path})).\n\n{table(results)}"
    )


if __name__ == "__main__":
    with console.one_line_errors():
        console.parse_arguments(upsampling, sys.argv[1:], prog="upsampling.py")()
