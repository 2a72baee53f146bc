"""The picture of `ae_vs_vae.py`: an autoencoder and a VAE next to each other. Never trains."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from aevae_jax import durable, figures


class Panel(NamedTuple):
    """What is shown of one model: images `[N, H, W, C]` and codes `[M, latent]`."""

    reconstructions: np.ndarray
    samples: np.ndarray
    interpolation: np.ndarray
    codes: np.ndarray


def comparison(
    path: Path,
    *,
    title: str,
    inputs: np.ndarray,
    labels: np.ndarray,
    panels: Mapping[str, Panel],
    mixture: np.ndarray,
    captions: Mapping[str, str],
) -> None:
    """Draw an autoencoder and a VAE next to each other: reconstructions, random codes, interpolation, the latent space
    by class.

    Args:
      path: the PNG to write.
      title: the data set's name.
      inputs: what the reconstructions are of.
      labels: the class of each code.
      panels: one per model, a column each.
      mixture: samples of the autoencoder with a mixture in place of its prior.
      captions: a line for the samples of each column of samples.
    """
    figure = Figure(figsize=(12, 13), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(
        f"The same networks as an autoencoder (AE) and as a variational autoencoder (VAE): {title}", size=15
    )
    grids = figure.subplot_mosaic(
        [
            ["AE pairs", "AE pairs", "AE pairs", "VAE pairs", "VAE pairs", "VAE pairs"],
            ["AE", "AE", "VAE", "VAE", "AE + mixture", "AE + mixture"],
            [
                "AE interpolation",
                "AE interpolation",
                "AE interpolation",
                "VAE interpolation",
                "VAE interpolation",
                "VAE interpolation",
            ],
            ["AE codes", "AE codes", "AE codes", "VAE codes", "VAE codes", "VAE codes"],
        ],
        height_ratios=[2.2, 6, 1.2, 6],
    )
    samples = {**{name: panel.samples for name, panel in panels.items()}, "AE + mixture": mixture}
    sources = {"AE + mixture": "codes from a mixture fitted to the AE's"}
    for name, images in samples.items():
        source = sources.get(name, f"random codes z ~ N(0, I), decoded by the {name}")
        _show(grids[name], figures.grid(images, 6), f"{source}\n{captions[name]}")
    for name, panel in panels.items():
        pairs = np.concatenate([inputs, panel.reconstructions])
        _show(
            grids[f"{name} pairs"], figures.grid(pairs, len(inputs)), f"{name}: inputs, and their reconstructions below"
        )
        _show(
            grids[f"{name} interpolation"],
            figures.grid(panel.interpolation, len(panel.interpolation)),
            f"{name}: interpolation between two inputs' codes",
        )
        _scatter(grids[f"{name} codes"], panel.codes, labels, name)
    with durable.replacing(path) as file:
        figure.savefig(file, dpi=110, format="png")


def _show(axes: Any, image: np.ndarray, title: str) -> None:
    axes.imshow(image, interpolation="nearest")
    axes.set_title(title, size=10)
    axes.set_axis_off()


def _scatter(axes: Any, codes: np.ndarray, labels: np.ndarray, name: str) -> None:
    """Draw codes along their two directions of largest variance, with the ring inside which 95 % of N(0, I) would
    lie.
    """
    _, _, directions = np.linalg.svd(codes - codes.mean(axis=0), full_matrices=False)
    flat = codes @ directions[:2].T if codes.shape[1] > 1 else np.hstack([codes, np.zeros_like(codes)])
    points = axes.scatter(flat[:, 0], flat[:, 1], c=labels, cmap="tab10", s=6)
    turn = np.linspace(0, 2 * np.pi, 200)
    radius = np.sqrt(-2 * np.log(0.05))
    axes.plot(radius * np.cos(turn), radius * np.sin(turn), color="black", linewidth=1)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_title(
        f"{name}: codes of test data by class, two main directions; inside the ring, 95 % of N(0, I)", size=10
    )
    axes.legend(*points.legend_elements(), title="class", loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
