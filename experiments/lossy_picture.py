"""The picture of lossy.py's results: curves of rate against PSNR. Never measures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lossy_table

from aevae_jax import charts


def draw(path: Path, results: dict[str, Any]) -> None:
    """Draw bits per pixel against PSNR, of files for each image and, dotted, of one file of all; lower is better.

    Args:
      path: the PNG to write.
      results: of lossy.py.
    """
    figure = charts.canvas(5.5, width=10)
    axes = charts.plot(figure, 1, 1, 1)
    for (name, points), colour, marker in zip(
        results["curves"].items(), charts.COLOURS[1:], charts.MARKERS[1:], strict=False
    ):
        whole = "code alone" if name == "PCA" else "a file each"
        _line(axes, points, "bits", f"{name}, {whole}", color=colour, marker=marker)
        if name in results["mosaics"]:
            mosaic, options = results["mosaics"][name], {"linestyle": ":", "alpha": 0.8}
            _line(axes, mosaic, "bits", f"{name}, one mosaic", color=colour, marker=marker, **options)
    if results["ours"]:
        best = lossy_table.frontier(results["ours"])
        _line(axes, best, "bits", "ours, one .aev file", color=charts.COLOURS[0], marker="o", linewidth=2.5)
    axes.set_xlim(18, 37)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("PSNR of the mean squared error in dB")
    axes.set_ylabel("bits per pixel")
    axes.set_title(f"{results['data']}, {results['images']:,} test images: what a picture costs")
    axes.legend(fontsize=8)
    charts.save(figure, path)


def _line(axes: Any, points: list[dict[str, Any]], key: str, label: str, **options: Any) -> None:
    ordered = sorted(points, key=lambda point: point["psnr"])
    axes.plot([p["psnr"] for p in ordered], [p[key] for p in ordered], label=label, markersize=4, **options)
