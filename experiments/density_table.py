"""The rows of density.py, what was measured of each on whatever day, and the table that they make."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aevae_jax.cli import console
from aevae_jax.lazy import modules, np
from aevae_jax.types import InputError

if TYPE_CHECKING:
    from aevae_jax.runs import records
else:
    records = modules("aevae_jax.runs", "records")

FASHION = "fashion_mnist"


class Row(NamedTuple):
    """One line of the table."""

    model: str
    prior: str
    objective: str
    epochs: int
    """Passes over Fashion-MNIST."""
    batch: int
    warmup: int
    """Epochs until the KL has its whole weight."""
    weight_decay: float
    published: float | None
    """Test NLL on Fashion-MNIST of the Exemplar VAE's authors, in nats."""


ROWS = {
    "vae": Row("VAE", "N(0, I)", "ELBO", 400, 100, 200, 0.02, 228.70),
    "vampprior": Row("VAE", "VampPrior, 500", "ELBO", 400, 200, 100, 0.05, 227.35),
    "two_level": Row("two-level VAE", "N(0, I)", "ELBO", 400, 100, 200, 0.02, 227.37),
    "two_level_vampprior": Row("two-level VAE", "VampPrior, 500", "ELBO", 400, 200, 100, 0.05, 226.72),
    "iwae_1": Row("VAE", "N(0, I)", "IWAE, K = 1", 40, 100, 0, 0.02, None),
    "iwae_5": Row("VAE", "N(0, I)", "IWAE, K = 5", 40, 100, 0, 0.02, None),
    "iwae_50": Row("VAE", "N(0, I)", "IWAE, K = 50", 40, 100, 0, 0.02, None),
}

HEADINGS = ("model", "prior", "trained on", "seeds", "test NLL", "above the floor", "negative ELBO", "active units")
"""Headings of the cells of a row."""


def entries(out: Path, record: str, key: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return what was measured of each row, by seed: here, and in the record of other days.

    Raises:
      InputError: the record is of other data or another number of samples.
    """
    found: dict[str, dict[int, Any]] = {name: {} for name in ROWS}
    if record and Path(record).exists():
        old = records.read_json(Path(record))
        if differs := [name for name in key if old[name] != key[name]]:
            name = differs[0]
            raise InputError(
                f"{name} (--record)", got=key[name], expected=f"{old[name]}, as in {record}", hint="name another file"
            )
        found.update({row["row"]: {entry["seed"]: entry for entry in row["seeds"]} for row in old["rows"]})
    for name in ROWS:
        for path in out.glob(f"{name}-[0-9]*.json"):
            entry = records.read_json(path)
            if entry["num_samples"] == key["num_samples"]:
                found[name][entry["seed"]] = entry
    return {name: [by_seed[seed] for seed in sorted(by_seed)] for name, by_seed in found.items()}


def summary(measured: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return all rows, with the figures of the seeds that are there."""
    rows = []
    for name, row in ROWS.items():
        found = measured[name]
        nll = [entry["nll"] for entry in found]
        rows.append(
            {
                "row": name,
                **row._asdict(),
                "nll": float(np.mean(nll)) if nll else None,
                "standard_deviation": float(np.std(nll, ddof=1)) if len(nll) > 1 else None,
                "seeds": found,
            }
        )
    return rows


def table(results: dict[str, Any]) -> str:
    """Return the rows as Markdown, with what was not run marked as such."""
    lowest, fashion = results["floor"]["drawn_bits"], results["data"] == FASHION
    head = [*HEADINGS, "training", *(["published"] if fashion else [])]
    lines = [head, ["---"] * len(head)]
    for row in results["rows"]:
        seconds = [entry["training_seconds"] for entry in row["seeds"]]
        lines.append([*cells(row, lowest), console.duration(sum(seconds) / len(seconds)) if seconds else ""])
        if fashion:
            lines[-1].append(f"{row['published']:.2f}" if row["published"] else "")
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return (
        f"{text}\n{results['data']}, nats per image, {results['num_samples']:,} importance samples per test image; "
        f"floor {lowest:.2f}, entropy of the pixels {results['floor']['entropy']:.2f}.\n"
    )


def cells(row: dict[str, Any], lowest: float) -> list[str]:
    """Return the first eight cells of a row: means over its seeds, with the standard deviation of the likelihood."""
    label, seeds = [row["model"], row["prior"], row["objective"]], row["seeds"]
    if not seeds:
        return [*label, "not yet run", *[""] * 4]
    spread = f" ± {row['standard_deviation']:.2f}" if row["standard_deviation"] is not None else ""
    bound, active = (
        sum(values) / len(seeds)
        for values in zip(*((entry["test"]["negative_elbo"], entry["active_units"]) for entry in seeds), strict=True)
    )
    above = f"{row['nll'] - lowest:.2f}"
    return [*label, str(len(seeds)), f"{row['nll']:.2f}{spread}", above, f"{bound:.2f}", f"{active:.3g}"]
