"""The table and the picture of speed.py's results. Never measures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from aevae_jax import durable

COLOURS = {"ours": "#0072B2", "minimal": "#56B4E9", "PyTorch": "#E69F00", "products": "#999999"}
"""Okabe & Ito 2008: told apart by all."""


def machine(results: dict[str, Any]) -> str:
    """Return the device and the versions in a line."""
    made, torch = results["made"], results["torch"]
    device, host, versions = made["device"], made["host"], made["versions"]
    kind = f"{host['cores']} CPU cores" if device["backend"] == "cpu" else device["kind"]
    pytorch = f"PyTorch {torch['version']}" if "version" in torch else torch["reason"]
    return f"{kind}, {host['processor']}; Python {versions['python']}, JAX {versions['jax']}, {pytorch}"


def lines(entry: dict[str, Any]) -> str:
    """Return one workload as text: a line for itself, and one for each row."""
    head = f"{entry['name']}: {entry.get('what', '')}".rstrip(": ")
    if "reason" in entry:
        return f"{head}: {entry['reason']}"
    rows = [f"  {row['program']}: {', '.join(filter(None, cells(row)[1:]))}" for row in entry["rows"]]
    return "\n".join([f"{head} (load {entry['load'][0]:.1f} to {entry['load'][1]:.1f})", *rows])


def cells(row: dict[str, Any]) -> list[str]:
    """Return the cells of a row: program, precision of the products, time, ratio, compilation, rest."""
    name = [row["program"], row["precision"]]
    if "reason" in row:
        return [*name, "", "", "", row["reason"]]
    if "repeatable" in row:
        return [*name, "", "", "", f"repeatable: {str(row['repeatable']).lower()}"]
    if "first_step" in row:
        device = f", on the device {row['device_bytes'] / 2**20:,.0f} MiB" if row["device_bytes"] else ""
        memory = f"imports {row['imports']:.1f} s; peak memory {row['host_bytes'] / 2**20:,.0f} MiB{device}"
        return [*name, f"{row['first_step']:.1f} s", "", "", memory]
    seconds, ratio = row["seconds"], row["ratio"]
    rate = row["images_per_second"]
    return [
        *name,
        f"{seconds[0]:.3g} s ({seconds[1]:.3g} to {seconds[2]:.3g})",
        f"{ratio[0]:.2f} ({ratio[1]:.2f} to {ratio[2]:.2f})" if ratio else "",
        f"{row['compilation']:.1f} s",
        f"{rate:,.0f} images/s" if rate else "",
    ]


def table(results: dict[str, Any]) -> str:
    """Return all workloads as Markdown."""
    parts = [
        f"# Speed\n\n{machine(results)}. Median, least and largest of {results['turns']} turns; times the base are "
        f"ratios within a turn, to ours or the first row of equal precision. `{results['command']}`\n"
    ]
    for entry in results["workloads"]:
        load = "load {:.1f} before, {:.1f} after".format(*entry["load"])
        head = f"\n## {entry['name']}{': ' if 'what' in entry else ''}{entry.get('what', '')}\n\n"
        if "reason" in entry:
            parts.append(f"{head}{entry['reason']}\n")
            continue
        columns = ["program", "products", "time", "times the base", "compilation", ""]
        rows = [columns, ["---"] * len(columns), *map(cells, entry["rows"])]
        parts.append(f"{head}{load}\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows))
    return "".join(parts)


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
        [max(2, sum(_seconds(row) is not None for row in entry["rows"])) for entry in bars[i : i + 2]]
        for i in range(0, len(bars), 2)
    ]
    heights = [0.28 * max(row) + 0.9 for row in sizes] + ([2.6] if curves else [])
    figure = Figure(figsize=(13, sum(heights) + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"Seconds of our programs and of others: {machine(results)}", size=12)
    grid = figure.add_gridspec(len(heights), 12, height_ratios=heights)
    for i, entry in enumerate(bars):
        _bars(figure.add_subplot(grid[i // 2, 6 * (i % 2) : 6 * (i % 2) + 6]), entry)
    width = 12 // max(1, len(curves))
    for i, (entry, axis) in enumerate(curves):
        _curve(figure.add_subplot(grid[len(heights) - 1, i * width : (i + 1) * width]), entry, axis)
    with durable.replacing(path) as file:
        figure.savefig(file, dpi=110, format="png")


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
        axes.text(max(most, median) + 0.01 * largest, place, f"{median:.3g} s{ratio}", va="center", size=8)
    axes.set_yticks(range(len(rows)), [_label(row) for row, _ in rows], size=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.3 * largest)
    axes.set_xlabel("seconds" if entry["name"] != "start" else "seconds to the end of the first step", size=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_title(f"{entry['name']}: {_wrapped(entry['what'])}", size=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def _label(row: dict[str, Any]) -> str:
    return (
        f"{row['program']} (TF32)" if row["precision"] == "default" and "TF32" not in row["program"] else row["program"]
    )


def _wrapped(text: str, width: int = 84) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


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
    axes.set_yticks(y, [f"{value:.3g}" for value in y], size=7)
    axes.minorticks_off()
    axes.set_xlabel(
        {"images": "images per epoch", "batch": "batch size", "latent": "latent dimensions"}.get(axis, axis), size=8
    )
    axes.set_ylabel("seconds", size=8)
    axes.set_title(f"growth with {axis}", size=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
