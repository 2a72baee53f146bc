"""What families.py shows of its results: a table for each data set, and the one of the README."""

from __future__ import annotations

import re
from typing import Any

from families_rows import PLAIN, families
from written import markdown, typed

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


def of_readme(results: dict[str, Any], path: str) -> str:
    """Return the families of all data sets in one table: the digits, and of the others what differs most.

    Args:
      results: as recorded.
      path: of the file.
    """
    sets = {name: found for name, found in results["data"].items() if name in COLUMNS}
    titles = dict.fromkeys(title for found in sets.values() for title in found["rows"])
    lines = []
    for title in titles:
        line = [title]
        for name, found in sets.items():
            row = found["rows"].get(title)
            line += [cell(row, measure, halves=False) if row else "" for measure in COLUMNS[name]]
        lines.append(line)
    head = [f"{SHORT[measure]}, {SPELLED[name]}" for name in sets for measure in COLUMNS[name]]
    steps = ", ".join(f"{SPELLED[name]} {found['steps']:,}" for name, found in sets.items())
    seeds = min(found["seeds"] for found in sets.values())
    return (
        f"**Families side by side**, the same data, networks, optimizer and number of steps ({steps}), means of "
        f"{seeds} seeds on test data: MSE at the mean code; the negative ELBO in nats per image, which codes that are "
        "points do not have (discrete ones have: reconstruction - log p(indices)); Frechet distance of decoded random "
        "codes of the prior, and of a mixture that is fitted to the codes afterwards; active units, or the perplexity "
        f"of the indices{'; MIG' if 'sprites' in sets else ''}. Rows that are empty were not run. "
        f"{so_far(len(titles))}{says(results)}{commands(results)} ([protocol](experiments/families.py), "
        f"[figures with intervals]({path})).\n\n{markdown(['family', *head], lines)}"
    )


COLUMNS = {
    "digits": ("mse", "nats", "distance", "with mixture", "used"),
    "sprites": ("nats", "distance", "mig"),
    "fashion_mnist": ("nats", "distance", "with mixture"),
}
"""What the README shows of each data set."""

SHORT = {
    "mse": "MSE",
    "nats": "negative ELBO",
    "distance": "distance",
    "with mixture": "with mixture",
    "used": "units or codes",
    "mig": "MIG",
}
SPELLED = {"digits": "digits", "sprites": "sprites", "fashion_mnist": "Fashion-MNIST"}


def of_library(ours: dict[str, Any], theirs: dict[str, Any], path: str) -> str:
    """Return what both have of the data that both were trained on, in as many steps: ours, and pythae's.

    Args:
      ours: as families.py records it.
      theirs: as families_torch.py does.
      path: of the file of theirs.
    """
    parts = []
    for name, found in theirs["data"].items():
        known = ours["data"].get(name)
        if known is None or any(known[field] != found[field] for field in ("steps", "seeds")):
            continue
        lines = []
        for title, each in found["figures"].items():
            mine = LIKE.get(title, title)
            if mine not in known["rows"]:
                continue
            other = {measure: [one[measure] for one in each] for measure in BESIDE}
            cells = [cell(row, measure) for measure in BESIDE for row in (known["rows"][mine], other)]
            lines.append([title, *cells])
        head = ["family", *(f"{SHORT[measure]}, {whose}" for measure in BESIDE for whose in ("ours", "pythae"))]
        versions = found["versions"]
        parts.append(
            f"**The same by pythae** {versions['pythae']} (PyTorch {versions['torch']}), {SPELLED[name]}, "
            f"{found['steps']:,} steps, means of {found['seeds']} seeds with the half widths of their 95 % intervals. "
            "Its Gaussian has a scale of 1 in training, which weighs the rate as a beta-VAE does: a weight of 0.02 is "
            "that of the scale which suits digits, from the first step on. Ours learns its scale, from 0.25 on. "
            f"`{typed(found['command'])}` ([protocol](experiments/families_torch.py), "
            f"[figures]({path})).\n\n{markdown(head, lines)}"
        )
    return "\n".join(parts)


BESIDE = ("mse", "nats", "distance", "with mixture")
"""What another library is measured by."""

LIKE = {"VAE, rate weighed 0.02": "VAE"}
"""Which of ours a row of theirs stands beside, where it is called another name."""


def so_far(recorded: int) -> str:
    """Return how many families are recorded, where it is not all."""
    everything = len(families((8, 8, 1)))
    return "" if recorded >= everything else f"Recorded so far: {recorded} of {everything} families. "


def says(results: dict[str, Any]) -> str:
    """Return, of the data sets that have them, by how much a fitted prior lowers the bound of the same model."""
    parts = []
    for name, found in results["data"].items():
        for title, row in found["rows"].items():
            before = found["rows"].get(title.partition(", then ")[0])
            if before is None or before is row or None in (*row["nats"], *before["nats"]):
                continue
            gain = interval([old - new for old, new in zip(before["nats"], row["nats"], strict=True)])
            assert gain is not None  # both have it
            parts.append(f"{title} {gain[0]:.1f} ± {gain[1]:.1f} ({SPELLED.get(name, name)})")
    if not parts:
        return ""
    return f"By how much a prior fitted after training lowers the negative ELBO, paired by seed: {', '.join(parts)}. "


def commands(results: dict[str, Any]) -> str:
    """Return what was typed, without where it is recorded; without names of families, it is of all of them."""
    typed = dict.fromkeys(re.split(" --rec| --rows", str(found["command"]))[0] for found in results["data"].values())
    return ", ".join(f"`{each}`" for each in typed)
