"""What lossy.py says of its results: rates at the same PSNR, whom ours is below, and the README's section."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import lossy_codecs as codecs

RANGE = (20, 22, 24, 26, 28, 30, 32, 34, 35)
"""PSNR in dB at which rates are compared."""


def table(others: dict[str, Any], ours: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """Return bits per pixel at each PSNR of `RANGE`, of every codec; what was not measured so far is left out.

    Args:
      others: the points of codecs, a file for each image under `curves`, one file of all of them under `mosaics`.
      ours: the points of trained models.
    """
    found = []
    for wanted in RANGE:
        row = {"ours": codecs.bits_at(frontier(ours), wanted)}
        for name, points in others["curves"].items():
            row[name] = codecs.bits_at(points, wanted)
            if "bare" in points[0]:
                row[f"{name} bare"] = codecs.bits_at(points, wanted, "bare")
        row |= {f"{name} mosaic": codecs.bits_at(points, wanted) for name, points in others["mosaics"].items()}
        found.append({"psnr": wanted, **{name: bits for name, bits in row.items() if math.isfinite(bits)}})
    return found


def frontier(points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the points than which no other has both fewer bits and a higher PSNR, the lowest rate first."""
    best = [p for p in points if not any(q["psnr"] > p["psnr"] and q["bits"] < p["bits"] for q in points)]
    return sorted(best, key=lambda point: point["bits"])


def lines(results: dict[str, Any]) -> list[str]:
    """Return what is said: a table, and whether ours is below all others wherever it was measured."""
    absent = (f"{name}: {why}" for name, why in results["absent"].items())
    return [*_markdown(results["table"]), *absent, verdict(results["table"])]


def _markdown(rows: list[dict[str, float]]) -> list[str]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    shown = ["| " + " | ".join(names) + " |", "| --- " * len(names) + "|"]
    return [*shown, *("| " + " | ".join(f"{row[n]:.3g}" if n in row else "" for n in names) + " |" for row in rows)]


def verdict(rows: list[dict[str, float]]) -> str:
    """Return in a line whom ours is below at every PSNR, and whom it is not."""
    rivals = dict.fromkeys(name for row in rows for name in row if name not in ("psnr", "ours"))
    lost = {n: [row["psnr"] for row in rows if n in row and not row.get("ours", math.inf) < row[n]] for n in rivals}
    below = [name for name, where in lost.items() if not where]
    above = [f"{name} at {', '.join(f'{psnr:g}' for psnr in where)} dB" for name, where in lost.items() if where]
    return f"ours is below {', '.join(below) or 'none'}" + (f"; not below {'; '.join(above)}" if above else "")


def of_readme(results: dict[str, Any], path: str) -> str:
    """Return the README's section.

    Args:
      results: of lossy.py.
      path: where they are recorded; the picture lies beside.
    """
    ours, said = frontier(results["ours"]), verdict(results["table"]).removeprefix("ours ")
    speeds = [min(point[f"{what}_per_second"] for point in ours) for what in ("encoded", "decoded")]
    plain = [point for point in results["ours"] if point["row"].endswith("factorised")]
    levels = "".join(
        f" At {point['psnr']:.1f} dB levels of codes take {codecs.bits_at(ours, point['psnr']):.3g}, and codes with a "
        f"density of each on its own {point['bits']:.3g}."
        for point in plain[:1]
    )
    return (
        f"**Lossy compression**, bits per pixel at the same PSNR in dB, {results['data']}, {results['images']:,} test "
        "images. Ours are real files of all images, decoded again; of the others a file for each image, the same "
        "without what a format needs for any image (bare), and one file of all images side by side (mosaic); of PCA "
        "the entropy code of quantised coefficients alone. Models are not counted: "
        f"{max(point['parameters'] for point in ours):,} numbers at most. Ours {said}.{levels} "
        f"At least {speeds[0]:,} images a second are encoded, and {speeds[1]:,} decoded. `{results['command']}` "
        f"([protocol](experiments/lossy.py), [figures]({path})).\n\n"
        f"![Bits per pixel against PSNR]({path.removesuffix('json')}png)\n\n"
        + "".join(f"{line}\n" for line in _markdown(results["table"]))
    )
