"""VAEs that differ in one thing, compared by the negative ELBO of test data, paired by seed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aevae_jax.cli import console
from aevae_jax.lazy import modules, np
from aevae_jax.types import InputError

if TYPE_CHECKING:
    from aevae_jax.data import Dataset
    from aevae_jax.evaluation import statistics
    from aevae_jax.runs import fitting
    from aevae_jax.runs.run import Run
else:
    statistics = modules("aevae_jax.evaluation", "statistics")
    fitting = modules("aevae_jax.runs", "fitting")

MEASURES = {"negative_elbo": "negative ELBO", "distortion": "distortion", "rate": "rate"}
"""What is measured on test data, in nats per image, and what it is called."""

Row = dict[str, list[float]]
"""The measures and the seconds of training, one number per seed."""


def check(seeds: int, epochs: int) -> None:
    """Refuse numbers that give no interval, or no training."""
    for option, value, least in (("--seeds", seeds, 2), ("--epochs", epochs, 1)):
        if value < least:
            raise InputError(option, got=value, expected=f"at least {least}")


def measure(row: Row, folder: Path, run: Run, dataset: Dataset) -> None:
    """Train a run, or find it trained, and append what is measured of it on test data to a row.

    Args:
      row: of the same runs with other seeds.
      folder: of the run, in which it goes on where it was stopped.
      run: what is trained.
      dataset: the data.
    """
    with console.progress(folder.name) as shown:
        fitted = fitting.fit(run, dataset, directory=folder, on_epoch=shown, on_note=console.note, on_steps=shown)
    one = {measure: fitted.results["test"][measure] for measure in MEASURES}
    for measure, value in {**one, "seconds": fitted.results["seconds"]}.items():
        row.setdefault(measure, []).append(float(value))


def made_of(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a provenance is recorded with results: code, versions and machine."""
    made = {name: provenance[name] for name in ("code", "versions")}
    return {**made, **provenance["device"], **provenance["host"]}


def more(rows: Mapping[str, Row], plain: str) -> dict[str, Any]:
    """Return by how much the negative ELBO of each row exceeds that of the row called `plain`: an interval, paired by
    seed; below 0 the row is better. Without that row nothing is compared.
    """
    if plain not in rows:
        return {}
    base = np.array(rows[plain]["negative_elbo"])
    return {n: statistics.interval(np.array(row["negative_elbo"]) - base) for n, row in rows.items() if n != plain}


def cells(row: Row) -> list[str]:
    """Return the means over seeds, as they stand in a table."""
    return [f"{np.mean(row[measure]):.2f}" for measure in MEASURES]


def apart(interval: Any) -> str:
    """Return a difference with its interval, as it stands in a table."""
    return f"{interval.mean:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]"
