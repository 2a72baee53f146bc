"""Figures of each class, of models that are told the class of an example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aevae_jax.cli.terminal import show_table
from aevae_jax.lazy import modules, np

if TYPE_CHECKING:
    from aevae_jax import conditions
    from aevae_jax.data import Prepared
else:
    conditions = modules("aevae_jax", "conditions")


def rows_of(prepared: Prepared, rows: Any) -> dict[str, Any]:
    """Return which of some rows are of each class that a model is told, by the name of the class; nothing where it is
    told none.
    """
    told = conditions.condition_of(rows)
    label = None if told is None else conditions.parts(told).get("label")
    if label is None:
        return {}
    names = dict(enumerate(prepared.class_names))
    return {names.get(code, str(code)): np.flatnonzero(label == code) for code in np.unique(label).tolist()}


def means(values: Mapping[str, Any], of_classes: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return the mean of each entry, `[N]`, over the examples of each class, with their number."""
    return {
        name: {"examples": len(own), **{entry: float(np.mean(v[own], dtype=np.float64)) for entry, v in values.items()}}
        for name, own in of_classes.items()
    }


def show(title: str, found: Mapping[str, Mapping[str, float]], caption: str = "") -> None:
    """Print a table with a line for each class; nothing where there are none."""
    if not found:
        return
    entries = list(next(iter(found.values())))
    headings = [entry.replace("_", " ") for entry in entries]
    lines = [[name, *(f"{own[entry]:.4g}" for entry in entries)] for name, own in found.items()]
    show_table(title, ("class", *headings), lines, right=headings, caption=caption)
