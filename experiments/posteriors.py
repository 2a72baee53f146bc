"""Is a diagonal normal posterior what keeps a VAE's bound from its likelihood? Others beside it, by the negative ELBO.

Command:   python experiments/posteriors.py --record experiments/results/posteriors_fashion_mnist.json
           (Fashion-MNIST, 100 epochs: some hours on two CPU cores; it goes on where it was stopped, at any step)
           python experiments/posteriors.py --data digits --epochs 20      (small data, no download)
           with --record FILE the rows are added to those that the file has already
Writes:    runs/posteriors_DATA/results.json and table.md; each training in a directory of its own
Expected:  full covariance and inverse autoregressive flows lower the negative ELBO, by about a nat (Kingma et al. 2016;
           Tomczak & Welling 2016); reflections and planar maps, which bend less, by less. The decoder may also learn
           codes whose posteriors are diagonal, and then nothing is gained.

Protocol: bits redrawn at every step from the grey levels, those of validation and test drawn once; dense layers
300-300 both ways, 40 latent dimensions, the Bernoulli likelihood, N(0, I), Adam at 0.001, batches of 128, a KL warm-up
over the first tenth of the training, the same number of epochs and the same seeds for all. Parameters are those of the
best epoch by the negative ELBO of validation data. What is compared is that of the test images, one draw each, in nats
per image. A row's difference from the diagonal normal is paired by seed: the mean and the 95 % interval of Student's t.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paired
from written import markdown, typed

from aevae_jax import durable
from aevae_jax.cli import console, terminal
from aevae_jax.data import Data, DynamicBinarization
from aevae_jax.lazy import modules, np
from aevae_jax.models import VAE
from aevae_jax.models.architectures import MLP
from aevae_jax.models.likelihoods import Bernoulli
from aevae_jax.models.posteriors import IAF, DiagonalNormal, FullNormal, Householder, Planar, Posterior
from aevae_jax.models.priors import StandardNormal
from aevae_jax.objectives.losses import ELBO, LinearWarmup
from aevae_jax.runs.run import Run
from aevae_jax.types import InputError

if TYPE_CHECKING:
    from aevae_jax.runs import provenance, records
else:
    provenance, records = modules("aevae_jax.runs", "provenance", "records")

FASHION = "fashion_mnist"
PLAIN = "diagonal"
POSTERIORS: dict[str, Posterior] = {
    PLAIN: DiagonalNormal(),
    "full": FullNormal(),
    "iaf": IAF(2, (320,)),
    "householder": Householder(10),
    "planar": Planar(10),
}
"""What is compared, by name."""


def posteriors(
    *,
    rows: tuple[str, ...] = ("diagonal", "full", "iaf"),
    seeds: int = 3,
    data: str = FASHION,
    epochs: int = 100,
    out: str = "",
    record: str = "",
) -> None:
    """Train VAEs that differ in their posterior, and compare their negative ELBO. Goes on where it was stopped.

    Args:
      rows: which: diagonal full iaf householder planar, or all.
      seeds: how many of each, counted from 0.
      data: fashion_mnist, or any images with integer levels: digits is small and bundled.
      epochs: of each training.
      out: directory for the runs and the table; where none is named, runs/posteriors_DATA.
      record: also write the results to this JSON file, beside those of other rows that it holds already, which must be
        of the same data, epochs and seeds.
    """
    names = tuple(POSTERIORS) if rows == ("all",) else rows
    if unknown := [name for name in names if name not in POSTERIORS]:
        raise InputError("--rows", got=unknown[0], expected=", ".join([*POSTERIORS, "all"]))
    paired.check(seeds, epochs)
    place = Path(out or f"runs/posteriors_{data}")
    files = [place / "results.json", *([Path(record)] if record else [])]
    for path in files:
        durable.make_room(path)
    terminal.begin(f"reading {data}, to train {' '.join(names)}, {seeds} of each")
    dataset = Data(data, DynamicBinarization()).load()
    made = provenance.provenance(dataset)
    key = {"data": data, "data_sha256": made["data"]["sha256"], "epochs": epochs, "seeds": seeds}
    held = [rows_in(path, key) for path in files]
    if record and Path(record).is_file() and not held[-1]:
        got, expected = f"{record}, which holds something else", f"{data}, {epochs} epochs, {seeds} seeds, or no file"
        raise InputError("--record", got=got, expected=expected)
    done = {name: row for rows in held for name, row in rows.items()}
    results: dict[str, Any] = {
        **key,
        "command": shlex.join(["python", "experiments/posteriors.py", *sys.argv[1:]]),
        "made": paired.made_of(made),
        "rows": done,
    }
    for name in names:
        if name not in done:
            done[name] = {}
            for seed in range(seeds):
                run = run_of(name, seed, data, examples=len(dataset.train), epochs=epochs)
                paired.measure(done[name], place / f"{name}-{epochs}-{seed}", run, dataset)
        results["rows"] = {each: done[each] for each in POSTERIORS if each in done}
        for path in files:
            records.write_json(path, results)
    (place / "table.md").write_text(table(results))
    print(table(results), flush=True)


def rows_in(path: Path, key: dict[str, Any]) -> dict[str, paired.Row]:
    """Return the rows that a file holds already; none where there is no such file, or of something else.

    Args:
      path: of the file.
      key: what all of its rows have in common: data, epochs and seeds.
    """
    found = records.read_json(path) if path.is_file() else None
    if not isinstance(found, dict) or {name: found.get(name) for name in key} != key:
        return {}
    return dict(found["rows"])


def run_of(name: str, seed: int, data: str, *, examples: int, epochs: int) -> Run:
    """Return the run of a row on so many training examples: a value, whose digest is what was trained."""
    batch = min(128, examples)
    warmup = LinearWarmup(max(1, epochs * (examples // batch) // 10))
    model = VAE(40, MLP((300, 300)), Bernoulli(), StandardNormal(), posterior=POSTERIORS[name])
    preparation = DynamicBinarization()
    return Run(Data(data, preparation), model, ELBO(warmup), batch_size=batch, epochs=epochs, seed=seed)


def gained(results: dict[str, Any]) -> dict[str, Any]:
    """Return by how much the negative ELBO of each row exceeds that of the diagonal normal."""
    return paired.more(results["rows"], PLAIN)


def table(results: dict[str, Any]) -> str:
    """Return a Markdown table, with minutes of training, and which posteriors are better by their intervals."""
    says = f"{lower(results)}." if gained(results) else ""
    about = f"{results['data']}, {results['epochs']} epochs, means of {results['seeds']} seeds. {says}"
    return f"{rows_of(results, minutes=True)}\n{about}\n"


def of_readme(results: dict[str, Any], path: str) -> str:
    """Return the rows with a sentence that says which posteriors are better, by their intervals.

    Args:
      results: as recorded, of Fashion-MNIST.
      path: of the file.
    """
    return (
        f"**Other posteriors than the diagonal normal**, Fashion-MNIST with bits redrawn at every step, dense layers "
        f"300-300, 40 latent dimensions, {results['epochs']} epochs, means of {results['seeds']} seeds on test data in "
        "nats per image, and by how much the negative ELBO exceeds that of the diagonal normal, paired by seed, with "
        f"95 % intervals: {lower(results).lower()}. `{typed(results['command'])}` "
        f"([protocol](experiments/posteriors.py), [figures]({path})).\n\n{rows_of(results)}"
    )


def lower(results: dict[str, Any]) -> str:
    """Return which posteriors have a lower negative ELBO than the diagonal normal, by their intervals."""
    return f"Lower by these intervals: {', '.join(n for n, more in gained(results).items() if more.high < 0) or 'none'}"


def rows_of(results: dict[str, Any], *, minutes: bool = False) -> str:
    """Return a Markdown table: means over seeds in nats per image, and differences with their intervals."""
    lines, more = [], gained(results)
    for name, row in results["rows"].items():
        cells = paired.cells(row)
        apart = paired.apart(more[name]) if name in more else ""
        took = [f"{np.mean(row['seconds']) / 60:.0f}"] if minutes else []
        lines.append([name, cells[0], apart, *cells[1:], *took])
    first, *others = paired.MEASURES.values()
    return markdown(["posterior", first, "more than diagonal", *others, *(["minutes"] if minutes else [])], lines)


if __name__ == "__main__":
    with console.one_line_errors():
        console.parse_arguments(posteriors, sys.argv[1:], prog="posteriors.py")()
