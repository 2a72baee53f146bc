"""What a code costs and what it saves: rate against distortion of the members of a sweep, with intervals over seeds.

Alemi et al. 2018: models of equal ELBO lie on a line of slope -1; beta says where on the curve a VAE ends up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aevae_jax import charts
from aevae_jax.evaluation import statistics

_AXES = ("rate", "distortion")


def points(numbers: Sequence[Mapping[str, float]], measured: Sequence[Sequence[Mapping[str, float]]]) -> list[Any]:
    """Return a point of the curve per combination of numbers, as JSON.

    Args:
      numbers: of each combination, by field.
      measured: test metrics of each combination, one entry per seed; `rate` and `distortion` are used, in nats.

    Returns:
      `numbers`; and of each axis the values `[S]`, their mean and its 95 % interval, `None` for a single seed.
    """
    found = []
    for own, seeds in zip(numbers, measured, strict=True):
        point: dict[str, Any] = {"numbers": dict(own)}
        for axis in _AXES:
            values = [each[axis] for each in seeds]
            mean, low, high = statistics.interval(np.array(values))
            point[axis] = {
                "mean": mean,
                "interval": [low, high] if math.isfinite(low + high) else None,
                "seeds": values,
            }
        found.append(point)
    return found


def draw(path: Path, points: Sequence[Any]) -> None:
    """Draw the points, joined where only the first field differs; each is labelled with its number."""
    first, *others = points[0]["numbers"]
    figure = charts.canvas(6)
    axes = charts.plot(figure, xlabel="rate (nats per example)", ylabel="distortion (nats per example)")
    curves: dict[tuple[float, ...], list[Any]] = {}
    for point in points:
        curves.setdefault(tuple(point["numbers"][name] for name in others), []).append(point)
    for index, (rest, curve) in enumerate(curves.items()):
        curve.sort(key=lambda point: point["numbers"][first])
        x, y = ([point[axis]["mean"] for point in curve] for axis in _AXES)
        xerr, yerr = ([_half_width(point[axis]) for point in curve] for axis in _AXES)
        label = ", ".join(f"{name} = {number:g}" for name, number in zip(others, rest, strict=True))
        colour, marker = charts.COLOURS[index % len(charts.COLOURS)], charts.MARKERS[index % len(charts.MARKERS)]
        axes.errorbar(x, y, yerr, xerr, color=colour, marker=marker, linewidth=1, capsize=3, label=label or None)
        for point, right, up in zip(curve, x, y, strict=True):
            axes.annotate(f"{point['numbers'][first]:g}", (right, up), (6, 6), textcoords="offset points", color=colour)
    if others:
        axes.legend()
    seeds = len(points[0]["rate"]["seeds"])
    shown = f"means and 95 % intervals over {seeds} seeds" if seeds > 1 else "one seed"
    axes.set_title(f"Test data, {shown}; labels: {first}", fontsize=11)
    charts.save(figure, path)


def _half_width(values: Any) -> float:
    return (values["interval"][1] - values["mean"]) if values["interval"] else 0.0
