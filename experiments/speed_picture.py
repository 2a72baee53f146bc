"""The picture of speed.py's results. Never measures."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from speed_table import machine

from aevae_jax import charts

COLOURS = {"ours": charts.COLOURS[0], "minimal": charts.COLOURS[5], "PyTorch": charts.COLOURS[4], "products": "#999999"}


def draw(path: Path, results: dict[str, Any]) -> None:
    """Draw bars of seconds for every workload, and curves of growth.

    Args:
      path: the PNG to write.
      results: of speed.py.
    """
    entries = [entry for entry in results["workloads"] if "reason" not in entry and entry["name"] != "repeatable"]
    entries = [entry for entry in entries if any(_seconds(row) for row in entry["rows"])]
    if not entries:
        return
    bars = [entry for entry in entries if "axes" not in entry]
    curves = [(entry, axis) for entry in entries for axis in entry.get("axes", ())]
    curves += [(entry, "seeds") for entry in entries if entry["name"] == "seeds"]
    sizes = [
        [max(3, sum(_seconds(row) is not None for row in entry["rows"])) for entry in bars[i : i + 2]]
        for i in range(0, len(bars), 2)
    ]
    heights = [0.28 * max(row) + 1.1 for row in sizes] + ([2.6] if curves else [])
    figure = charts.canvas(sum(heights) + 0.8, width=13)
    figure.suptitle(
        f"Seconds of our programs and of others; ratios to ours of equal precision, or to the base\n{machine(results)}",
        size=12,
    )
    parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, first in zip(parts, range(0, len(bars), 2), strict=False):
        both = part.subplots(1, 2)
        for axes, entry in zip(both, bars[first : first + 2], strict=False):
            _bars(axes, entry)
        for axes in both[len(bars) - first :]:
            axes.set_axis_off()
    if curves:
        for axes, (entry, axis) in zip(parts[-1].subplots(1, len(curves), squeeze=False)[0], curves, strict=True):
            _curve(axes, entry, axis)
    charts.save(figure, path)


def _seconds(row: dict[str, Any]) -> list[float] | None:
    """Return median, least and largest; of a start, the time to the first step."""
    if "first_step" in row:
        return [row["first_step"]] * 3
    return row.get("seconds")


def _bars(axes: Any, entry: dict[str, Any]) -> None:
    rows = [(row, found) for row in entry["rows"] if (found := _seconds(row))]
    largest = max(found[2] for _, found in rows)
    for place, (row, (median, least, most)) in enumerate(rows):
        kind = next((colour for name, colour in COLOURS.items() if row["program"].startswith(name)), COLOURS["ours"])
        axes.barh(place, median, color=kind, height=0.72)
        axes.plot([least, most], [place, place], color="black", linewidth=1.2)
        ratio = f"  (ratio {row['ratio'][0]:.2f})" if row.get("ratio") else ""
        said = axes.text(max(most, median) + 0.01 * largest, place, f"{median:.3g} s{ratio}", va="center", size=8)
        said.set_in_layout(False)  # the axis is long enough
    axes.set_yticks(range(len(rows)), [_label(row) for row, _ in rows], size=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.3 * largest)
    axes.set_xlabel("seconds" if entry["name"] != "start" else "seconds to the end of the first step", size=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_title(textwrap.fill(f"{entry['name']}: {entry['what']}", 66), size=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def _label(row: dict[str, Any]) -> str:
    return (
        f"{row['program']} (TF32)" if row["precision"] == "default" and "TF32" not in row["program"] else row["program"]
    )


def _curve(axes: Any, entry: dict[str, Any], axis: str) -> None:
    points = []
    for row in entry["rows"]:
        found, words = _seconds(row), row["program"].split()
        if found and axis == "seeds" and words[1:] in (["seed"], ["seeds"]):
            points.append((int(words[0]), found))
        elif found and words[0] == axis:
            points.append((int(words[1]), found))
    points.sort()
    if not points:
        return
    x, y = [n for n, _ in points], [found[0] for _, found in points]
    axes.plot(x, y, "o-", color=COLOURS["ours"], label="measured")
    axes.fill_between(x, [f[1] for _, f in points], [f[2] for _, f in points], color=COLOURS["minimal"], alpha=0.4)
    if axis in ("images", "seeds"):
        axes.plot(x, [y[0] * n / x[0] for n in x], "--", color="#999999", label="in proportion")
        axes.legend(fontsize=7)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(x, [f"{n:,}" for n in x], size=7, rotation=30)
    axes.set_yticks([min(y), max(y)], [f"{value:.3g}" for value in (min(y), max(y))], size=7)
    axes.minorticks_off()
    axes.set_xlabel(
        {"images": "images per epoch", "batch": "batch size", "latent": "latent dimensions"}.get(axis, axis), size=8
    )
    axes.set_ylabel("seconds", size=8)
    axes.set_title(f"growth with {axis}", size=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
