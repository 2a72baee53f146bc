"""The picture of `ae_vs_vae.py`: an autoencoder and two VAEs side by side, by which alone the difference is understood.

Never trains.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aevae_jax import charts, figures
from aevae_jax.data import Prepared, datasets
from aevae_jax.models import generation
from aevae_jax.training import loops

COLUMNS = ("AE", "VAE, beta", "VAE + VampPrior")
PAIRS, SAMPLES, STEPS, CODES = 8, 32, 8, 1_000
_ACROSS = 3.5
"""Inches of a column."""


class Panel(NamedTuple):
    """What is shown of one model: images `[N, H, W, C]` and codes `[M, latent]`."""

    reconstructions: Any
    samples: Any
    interpolation: Any
    codes: Any
    random_codes: Any


class Shown(NamedTuple):
    """What the picture is of."""

    inputs: np.ndarray
    labels: np.ndarray | None
    """The class of each code, where there are classes."""
    panels: Mapping[str, Panel]
    class_names: tuple[str, ...] = ()


def panels(models: Mapping[str, tuple[Any, Any]], prepared: Prepared) -> Shown:
    """Return what is shown of each model, given with its parameters."""
    x, labels = prepared.test.x[:CODES], prepared.test.labels
    labels = None if labels is None else np.asarray(labels[:CODES])
    other = 1 if labels is None else int(np.append(np.flatnonzero(labels != labels[0]), 1)[0])

    def panel(member: tuple[Any, Any]) -> Panel:
        return jax.tree.map(np.asarray, _panel(*member, jnp.asarray(x), other))

    found = loops.map_in_threads(panel, models.values(), compiled=True)  # two programs are compiled at a time
    return Shown(x[:PAIRS], labels, dict(zip(models, found, strict=True)), prepared.class_names)


@partial(jax.jit, static_argnums=0)
def _panel(model: Any, params: Any, x: Any, other: Any) -> Any:
    random_codes = generation.codes(model, params, jax.random.key(0), CODES)
    ends = x[:1], jax.lax.dynamic_slice_in_dim(x, other, 1)
    return Panel(
        reconstructions=generation.reconstruct(model, params, x[:PAIRS]),
        samples=model.decode(params, random_codes[:SAMPLES]).mean(),
        interpolation=generation.interpolate(model, params, *ends, STEPS)[:, 0],
        codes=model.encode(params, x).mean(),
        random_codes=random_codes,
    )


def comparison(
    path: Path,
    shown: Shown,
    *,
    title: str,
    headings: Mapping[str, str],
    verdicts: Mapping[str, str],
    results: Mapping[str, Any] | None = None,
) -> None:
    """Draw models next to each other: the same inputs and their reconstructions, random codes decoded, a path between
    two codes, codes of data among random codes; below, where there is a curve, reconstruction against generation.

    Args:
      path: the PNG to write.
      shown: from `panels`.
      title: the data set's name.
      headings: what stands above the column of each model.
      verdicts: what stands above its random codes.
      results: of `ae_vs_vae.py`, for the curve.
    """
    curve = results is not None and bool(results["curve"])
    rows = ["pairs", "samples", "path", "codes"]
    mosaic: Any = [[f"{name}: {row}" for name in shown.panels] for row in rows] + [
        ["curve"] * len(shown.panels)
    ] * curve
    heights = [*_heights(shown), *([2.4] if curve else [])]
    figure = charts.canvas(sum(heights) + 0.35 * len(heights) + 0.7, width=_ACROSS * len(shown.panels))
    figure.set_layout_engine("constrained", h_pad=0.06, w_pad=0.08)
    axes = figure.subplot_mosaic(mosaic, height_ratios=heights)
    latent = next(iter(shown.panels.values())).codes.shape[1]
    figure.suptitle(f"Autoencoder or variational autoencoder? {title}, {latent} numbers per code", size=14)
    span = float(shown.inputs.min()), float(shown.inputs.max())
    for name, panel in shown.panels.items():
        pairs = np.concatenate([shown.inputs, panel.reconstructions])
        _show(axes[f"{name}: pairs"], pairs, len(shown.inputs), span, headings[name])
        axes[f"{name}: pairs"].set_ylabel("decoded    input", size=8)
        _show(axes[f"{name}: samples"], panel.samples, 8, span, verdicts.get(name, ""))
        axes[f"{name}: samples"].set_ylabel("random codes, decoded", size=8)
        _show(axes[f"{name}: path"], panel.interpolation, len(panel.interpolation), span, "")
        axes[f"{name}: path"].set_ylabel("between", size=8)
        _scatter(axes[f"{name}: codes"], panel, shown)
    if results is not None and curve:
        _curve(axes["curve"], results)
    charts.save(figure, path)


def headings(results: Mapping[str, Any]) -> dict[str, str]:
    """Return what the main experiment writes above its columns: what the model is, and how well it reconstructs."""
    weight = f", beta {results['chosen']['beta']:g}" if results["chosen"] else ""
    kinds = {
        "AE": "Autoencoder: a code is a point",
        "VAE, beta": f"VAE, prior N(0, I){weight}: a code is a cloud",
        "VAE + VampPrior": "VAE, learned prior (VampPrior)",
    }
    errors = {name: results["measures"][f"reconstruction MSE | {name}"]["mean"] for name in kinds}
    return {name: f"{kind}\nsquared error per pixel {errors[name]:.4f}" for name, kind in kinds.items()}


def verdicts(results: Mapping[str, Any]) -> dict[str, str]:
    """Return two numbers about the random codes of each column, beside what data score; nothing without a judge."""
    measures, base = results["measures"], results["baselines"]
    if "Frechet distance of data to data" not in base:
        return {}
    floor, best = base["Frechet distance of data to data"], 100 * base["confident held-out data"]
    found = {}
    for name in COLUMNS:
        distance, seen = (measures[f"{m} | {name}"]["mean"] for m in ("Frechet distance", "confident samples"))
        found[name] = (
            f"distance to data {distance:.2f} (data to data {floor:.2f})\n"
            f"recognised {100 * seen:.0f} % (data {best:.0f} %)"
        )
    return found


def _heights(shown: Shown) -> list[float]:
    """Return inches of the rows of images, which are nearly as wide as a column, and of the scatter."""
    height, width = shown.inputs.shape[1:3]
    tile = 0.94 * _ACROSS / 8 * height / width
    return [2 * tile, SAMPLES // 8 * tile, tile, 2.6]


def _show(axes: Any, images: np.ndarray, columns: int, span: tuple[float, float], title: str) -> None:
    low, high = span
    axes.imshow(figures.grid((images - low) / (high - low), columns), interpolation="nearest")
    axes.set_title(title, size=8.5)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _scatter(axes: Any, panel: Panel, shown: Shown) -> None:
    """Draw codes of data by class along their two directions of largest variance, and random codes in the same plane.

    Random codes that lie where no code of data is decode to what no data is like.
    """
    centre, labels = panel.codes.mean(axis=0), shown.labels
    _, _, directions = np.linalg.svd(panel.codes - centre, full_matrices=False)
    codes, random_codes = (_flat((z - centre) @ directions[:2].T) for z in (panel.codes, panel.random_codes))
    axes.scatter(*random_codes.T, marker="x", s=8, linewidth=0.6, color="black", alpha=0.45, label="random codes")
    for index in [0] if labels is None else np.unique(labels):
        own = codes if labels is None else codes[labels == index]
        colour = charts.CLASSES[int(index) % len(charts.CLASSES)]
        axes.scatter(*own.T, s=4, color=colour, label="codes of data" if index == 0 else None)
        if labels is not None:
            [name] = datasets.class_texts(np.array([index]), shown.class_names)
            box = {"boxstyle": "round,pad=0.15", "alpha": 0.85, "facecolor": "white", "edgecolor": colour}
            axes.annotate(name, np.median(own, axis=0), size=7.5, ha="center", va="center", bbox=box)
    low, high = np.quantile(np.concatenate([codes, random_codes]), [0.002, 0.998], axis=0)
    margin = 0.05 * (high - low) + 1e-6
    axes.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]))
    axes.set_xlabel("codes: first and second direction of largest variance", size=8)
    axes.tick_params(labelsize=7)
    axes.legend(loc="upper right", fontsize=7, framealpha=0.9)


def _flat(points: np.ndarray) -> np.ndarray:
    """Return points in the plane, also where a code is a single number."""
    return points if points.shape[1] > 1 else np.hstack([points, np.zeros_like(points)])


def _curve(axes: Any, results: Mapping[str, Any]) -> None:
    """Draw reconstruction against generation over beta, and where the other columns lie; bars are 95 % intervals."""
    error, excess = "reconstruction MSE", "... above that of data to data"
    points = [(row["beta"], row[error], row[excess]) for row in results["curve"]]
    colours, markers = charts.COLOURS, charts.MARKERS
    line = _bars([(x, y) for _, x, y in points])
    axes.errorbar(*line, color=colours[0], marker=markers[0], capsize=3, label="VAE, by beta")
    for beta, x, y in points:
        axes.annotate(f"{beta:g}", (x["mean"], y["mean"]), xytext=(6, 6), textcoords="offset points", size=8)
    measures = results["measures"]
    others = {"AE": "AE", "VAE + VampPrior": "VAE + VampPrior", "AE + mixture": "AE", "VAE + mixture": "VAE"}
    for (name, encoder), marker, colour in zip(others.items(), markers[1:], colours[1:], strict=False):
        pair = measures[f"{error} | {encoder}"], measures[f"{excess} | {name}"]
        axes.errorbar(*_bars([pair]), color=colour, marker=marker, capsize=3, linestyle="", label=name)
    axes.axhline(0, color="black", linewidth=1, linestyle="--")
    axes.text(0.995, 0.0, "data to data", transform=axes.get_yaxis_transform(), ha="right", va="bottom", size=8)
    axes.set_xlabel("squared error per pixel of reconstructions (left is better)", size=8.5)
    axes.set_ylabel("distance of random codes\nabove data to data (down is better)", size=8.5)
    axes.set_title("What a regular latent space costs and brings; bars are 95 % intervals over seeds", size=10)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8)


def _bars(points: list[Any]) -> tuple[np.ndarray, ...]:
    """Return x, y and the lengths of the bars below and above them."""
    x, y = (np.array([pair[i]["mean"] for pair in points]) for i in (0, 1))
    ends = [
        np.array([[pair[i]["mean"] - pair[i]["low"], pair[i]["high"] - pair[i]["mean"]] for pair in points]).T
        for i in (0, 1)
    ]
    return x, y, ends[1], ends[0]
