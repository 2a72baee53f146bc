"""The results of lossless.py: what is best, when a model's own size is paid back, tables and the picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lossless_codecs import INSTALL, STREAM
from written import typed

from aevae_jax.cli import console

HEADINGS = (
    "codec",
    "files",
    "bits per pixel",
    "bytes",
    "images/s encoded",
    "decoded",
    "model, bytes",
    "pays from",
    "bound",
    "trained in",
)


def merged(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the sets of both, with all that was measured of each; of what both have, the new one.

    What was measured of other images under the name of a set in `new` is left out.
    """
    found = {one["images"]: one for one in old}
    for one in new:
        before = found.get(one["images"], {})
        if before.get("sha256") != one["sha256"]:
            before = {}
        codecs = {_key(entry): entry for entry in [*before.get("codecs", []), *one["codecs"]]}
        ours = {entry["row"]: entry for entry in [*before.get("ours", []), *one["ours"]]}
        names = {entry["codec"] for entry in codecs.values()}
        missing = [name for name in one["missing"] if name not in names]
        found[one["images"]] = {**one, "codecs": list(codecs.values()), "ours": list(ours.values()), "missing": missing}
    return list(found.values())


def _key(entry: dict[str, Any]) -> tuple[str, ...]:
    return entry["codec"], entry["setting"], entry["way"]


def smallest(codecs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return of each codec, each way, the setting with the fewest bytes."""
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in codecs:
        key = entry["codec"], entry["way"]
        if key not in best or entry["bytes"] < best[key]["bytes"]:
            best[key] = entry
    return list(best.values())


def pays_from(ours: dict[str, Any], other: dict[str, Any], count: int) -> float:
    """Return from how many images on a model and its file are smaller together than the file of another codec.

    Both files are taken to grow with the number of images, as they did up to `count`; infinite where the model's is
    not the smaller one.
    """
    saved = (other["bytes"] - ours["bytes"]) / count
    return ours["model_bytes"] / saved if saved > 0 else math.inf


def excess(entry: dict[str, Any]) -> float:
    """Return by what share a model's file, all that is in it counted, is larger than the bound."""
    return float(8 * entry["bytes"] / entry["bound_bits"] - 1)


def rows(one: dict[str, Any]) -> list[list[str]]:
    """Return the cells of a set's rows, the smallest file first."""
    best = smallest(one["codecs"])
    strongest = min(best, key=lambda entry: entry["bytes"], default=None)
    found = []
    for entry in sorted([*best, *one["ours"]], key=lambda entry: entry["bytes"]):
        speeds = [f"{one['count'] / entry[f'{what}_seconds']:,.0f}" for what in ("encode", "decode")]
        cells = [f"{8 * entry['bytes'] / one['pixels']:.3f}", f"{entry['bytes']:,}", *speeds]
        if "row" not in entry:
            found.append([f"{entry['codec']} {entry['setting']}", entry["way"], *cells, "", "", "", ""])
            continue
        pays = math.inf if strongest is None else pays_from(entry, strongest, one["count"])
        bound = f"{entry['bound_bits'] / one['pixels']:.3f} ({100 * excess(entry):+.2f} %)"
        seconds = f"{console.duration(entry['training_seconds'])}, {entry['training_cores']} cores"
        paid = f"{pays:,.0f} images" if math.isfinite(pays) else "never"
        found.append(
            [f"**ours: {entry['words']}**", "one .aev", *cells, f"{entry['model_bytes']:,}", paid, bound, seconds]
        )
    return found


def said(one: dict[str, Any]) -> str:
    """Return what a set is, and what its table leaves out, in a sentence or two."""
    shape = "x".join(map(str, one["event_shape"][:2]))
    text = f"{one['images']}: {one['count']:,} test images of {shape} pixels with {one['levels']} levels"
    if one["missing"]:
        text += f"; left out, as they are not installed, are {', '.join(one['missing'])} (`{INSTALL}`)"
    return f"{text}.{claimed(one)}"


def claimed(one: dict[str, Any]) -> str:
    """Return how the smallest file of a model compares with that of xz and that of the best codec of images."""
    found = []
    ours = min((entry["bytes"] for entry in one["ours"]), default=0)
    of_images = [entry for entry in smallest(one["codecs"]) if entry["way"] != STREAM]
    for others in ([entry for entry in one["codecs"] if entry["codec"] == "xz"], of_images):
        best = min(others, key=lambda entry: entry["bytes"], default=None)
        if ours and best is not None:
            found.append(f"{ours / best['bytes']:.3f} times that of {best['codec']}")
    return f" The smallest file of a model takes {' and '.join(found)}." if found else ""


def table(sets: list[dict[str, Any]]) -> str:
    """Return all sets as Markdown."""
    return "\n".join(f"{said(one)}\n\n{_markdown(rows(one))}" for one in sets)


def _markdown(lines: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in [list(HEADINGS), ["---"] * len(HEADINGS), *lines])


def of_readme(results: dict[str, Any], path: str) -> str:
    """Return what the README says of a record.

    Args:
      results: what lossless.py wrote.
      path: of the record, for links to it and to the picture beside it.
    """
    commands = dict.fromkeys(entry["command"] for one in results["sets"] for entry in one["ours"])
    commands_typed = ", ".join(f"`{typed(command)}`" for command in commands)
    picture = Path(path).with_suffix(".png").as_posix()
    return (
        "**Lossless compression of test images**: whole files, decoded in another process and equal in every byte. "
        "Everything counts but the model, which must be at hand as the other codecs' programs must: its size, and from "
        "how many images on it pays against the best other codec, stand beside. The bound is the negative ELBO of the "
        "model as it is rounded for coding; in brackets, by how much the file exceeds it. Of each other codec the "
        f"setting with the smallest file, on one core. {commands_typed} ([protocol](experiments/lossless.py), "
        f"[figures]({path})).\n\n![Bits per pixel of files, and bytes with the model]({picture})\n\n"
        f"{table(results['sets'])}"
    )


def draw(path: Path, sets: list[dict[str, Any]]) -> None:
    """Draw a row for each set: bits per pixel as bars, and bytes against the number of images, model included.

    Args:
      path: the PNG to write.
      sets: of the results.
    """
    from aevae_jax import charts

    heights = [0.24 * (len(smallest(one["codecs"])) + len(one["ours"])) + 1.2 for one in sets]
    figure = charts.canvas(sum(heights), width=13)
    parts = figure.subfigures(len(sets), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, one in zip(parts, sets, strict=True):
        bars, growth = part.subplots(1, 2, width_ratios=(3, 2))
        _bars(bars, one)
        _growth(growth, one)
    charts.save(figure, path)


def _bars(axes: Any, one: dict[str, Any]) -> None:
    from aevae_jax import charts

    entries = sorted([*smallest(one["codecs"]), *one["ours"]], key=lambda entry: entry["bytes"])
    for place, entry in enumerate(entries):
        bits = 8 * entry["bytes"] / one["pixels"]
        axes.barh(place, bits, color=charts.COLOURS[0] if "row" in entry else "#bbbbbb", height=0.75)
        axes.text(bits, place, f" {bits:.3f}", va="center", size=8)
        if "row" in entry:
            bound = entry["bound_bits"] / one["pixels"]
            axes.plot([bound, bound], [place - 0.38, place + 0.38], color="black", linewidth=1.5)
    axes.set_yticks(range(len(entries)), [_name(entry) for entry in entries], size=8)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlabel("bits per pixel of the file, without the model; black: the bound", size=8)
    axes.set_title(f"{one['images']}, {one['count']:,} images", size=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def _growth(axes: Any, one: dict[str, Any]) -> None:
    from aevae_jax import charts

    others = sorted(smallest(one["codecs"]), key=lambda entry: entry["bytes"])[:2]
    counts = [10 ** (x / 20) for x in range(121)]
    for entry, colour in zip([*one["ours"], *others], charts.COLOURS * 2, strict=False):
        each = entry["bytes"] / one["count"]
        axes.plot(counts, [entry.get("model_bytes", 0) + n * each for n in counts], color=colour, label=_name(entry))
    axes.axvline(one["count"], color="#999999", linewidth=0.8)
    axes.set(xscale="log", yscale="log")
    axes.set_xlabel("images (grey line: so many were coded)", size=8)
    axes.set_ylabel("bytes, model included", size=8)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=8)


def _name(entry: dict[str, Any]) -> str:
    return f"ours: {entry['words']}" if "row" in entry else f"{entry['codec']} {entry['setting']}, {entry['way']}"
