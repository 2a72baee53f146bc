"""The tables of speed.py's results: in a terminal, in table.md and in the README. Never measures."""

from __future__ import annotations

from typing import Any

from written import typed


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


COLUMNS = {
    "minimal JAX loop": "minimal JAX loop",
    "PyTorch": "PyTorch",
    "PyTorch, torch.compile": "... compiled",
    "PyTorch, CUDA graph": "... as a CUDA graph",
    "PyTorch, DataLoader": "... with DataLoader",
    "PyTorch, usual network": "usual convolutional VAE in PyTorch",
    "products alone": "products alone",
}
"""Headings in the README of the programs beside ours."""


PRECISE = "ours, full float32"


def of_readme(results: dict[str, Any], path: str) -> str:
    """Return what the README says of one record.

    Args:
      results: what speed.py wrote.
      path: of the record, for a link.
    """
    beside = {entry["name"]: rows for entry in results["workloads"] if (rows := _by_program(entry))}
    shown = [name for name in COLUMNS if any("ratio" in rows.get(name, {}) for rows in beside.values())]
    rounded = any("seconds" in rows.get(PRECISE, {}) for rows in beside.values())
    lines = []
    for entry in results["workloads"]:
        ours = next((row for name, row in beside.get(entry["name"], {}).items() if name.startswith("ours")), None)
        if ours is None or "seconds" not in ours:
            continue
        found = (beside[entry["name"]].get(name, {}).get("ratio") for name in shown)
        what = entry["what"].partition(" (")[0]
        precise = beside[entry["name"]].get(PRECISE, ours if ours["precision"] == "float32" else {})
        cell = [f"{precise['seconds'][0]:.3g} s" if "seconds" in precise else ""] if rounded else []
        lines.append([what, f"{ours['seconds'][0]:.3g} s", *cell, *(_ratio(ratio) if ratio else "" for ratio in found)])
    loads = [value for entry in results["workloads"] for value in entry["load"]]
    head = ["what", "ours", *(["ours in full float32"] if rounded else []), *(COLUMNS[name] for name in shown)]
    table = "".join(f"| {' | '.join(line)} |\n" for line in [head, ["---"] * len(head), *lines])
    return (
        f"**Speed**, {machine(results)}, load {min(loads):.1f} to {max(loads):.1f}: seconds of ours, and how many "
        "times as long others take (PyTorch: as ours in full float32); medians of "
        f"{results['turns']} turns that alternate, and their range. `{typed(results['command'])}` "
        f"([protocol](experiments/speed.py), [figures]({path})).\n\n{table}{sentences(results)}"
    )


def _by_program(entry: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["program"]: row for row in entry.get("rows", ())}


def _ratio(ratio: list[float]) -> str:
    return f"{ratio[0]:.2f} ({ratio[1]:.2f} to {ratio[2]:.2f})"


def sentences(results: dict[str, Any]) -> str:
    """Return what does not stand beside other programs, a line each."""
    found = {
        entry["name"]: [row for row in entry.get("rows", ()) if "reason" not in row] for entry in results["workloads"]
    }
    lines = []
    if several := [row for row in found.get("seeds", ()) if "seeds" in row["program"].split()]:
        said = ", ".join(f"{row['program']} {_ratio(row['ratio'])}" for row in several if row["ratio"])
        lines.append(f"Seeds trained at once, the default VAE on the digits, times one seed: {said}.")
    if started := found.get("start"):
        said = "; ".join(f"{row['program']} {row['first_step']:.1f} s, {_memory(row)}" for row in started)
        lines.append(f"From the start of a process to the first step of 784-500-20, and peak memory: {said}.")
    if halved := [row for row in found.get("bf16", ()) if row["precision"] == "bfloat16"]:
        said = ", ".join(
            f"{row['program'].rpartition(',')[0]} {_ratio(row['ratio'])}" for row in halved if row["ratio"]
        )
        lines.append(f"Training in bfloat16, times as long as in float32: {said}.")
    for row in found.get("repeatable", ()):
        lines.append(f"`{row['program']}`, twice: {'equal' if row['repeatable'] else 'other'} bits.")
    return "\n" + "".join(f"- {line}\n" for line in lines) if lines else ""


def _memory(row: dict[str, Any]) -> str:
    held = f"{row['host_bytes'] / 2**20:,.0f} MiB"
    return f"{held} and {row['device_bytes'] / 2**20:,.0f} MiB on the device" if row["device_bytes"] else held
