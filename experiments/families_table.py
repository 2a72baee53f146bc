"""What families.py shows of its results: a table for each data set, and the one of the README."""

from __future__ import annotations

from typing import Any

from defaults import markdown
from families_rows import PLAIN

from aevae_jax.lazy import np

MEASURES = {
    "mse": ("MSE", "{:.4f}"),
    "nats": ("negative ELBO, nats", "{:.2f}"),
    "distance": ("distance, prior", "{:.2f}"),
    "with mixture": ("distance, mixture", "{:.2f}"),
    "used": ("active units, or codes used", "{:.1f}"),
    "mig": ("MIG", "{:.3f}"),
    "dci_disentanglement": ("DCI disentanglement", "{:.3f}"),
}

WHY_NONE = {"nats": "none: points", "with mixture": "none"}
"""What is said where a family has not a measure, and why."""


def interval(values: list[Any]) -> tuple[float, float] | None:
    """Return the mean of seeds and the half width of its 95 % interval, of Student's t; `None` of what was not seen."""
    from scipy import stats

    if any(value is None for value in values):
        return None
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    return float(np.mean(values)), float(stats.t.ppf(0.975, len(values) - 1) * error)


def cell(row: dict[str, Any], measure: str, *, halves: bool = True) -> str:
    """Return a measure of a row, with the half width of its interval unless that is not asked for."""
    kept, after = measure, ""
    if measure == "used":
        discrete = row["perplexity"][0] is not None
        kept, after = ("perplexity", f" of {row['choices'][0]:.0f}") if discrete else ("active units", "")
    value, spelled = interval(row[kept]), MEASURES[measure][1]
    if value is None:
        return WHY_NONE.get(measure, "")
    return spelled.format(value[0]) + (f" ± {spelled.format(value[1])}" if halves else "") + after


def slower(found: dict[str, Any], title: str) -> str:
    """Return how many times as long as the plain VAE a family takes."""
    rows = found["rows"]
    return f"{rows[title]['epoch_seconds'] / rows[PLAIN]['epoch_seconds']:.2f}" if PLAIN in rows else ""


def seen(found: dict[str, Any], measure: str) -> bool:
    """Return whether a data set has a measure at all."""
    return measure == "used" or any(interval(row[measure]) for row in found["rows"].values())


def table(name: str, found: dict[str, Any]) -> str:
    """Return the rows of a data set as Markdown."""
    shown = [measure for measure in MEASURES if seen(found, measure)]
    lines = [
        [title, *(cell(row, measure) for measure in shown), slower(found, title)]
        for title, row in found["rows"].items()
    ]
    head = ["family", *(MEASURES[measure][0] for measure in shown), "time"]
    return f"{markdown(head, lines)}\n{name}, {found['steps']:,} steps, {found['seeds']} seeds.\n\n"
