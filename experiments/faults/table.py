"""The sections, and the table of what they found."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from aevae_jax import durable
from aevae_jax.cli import terminal
from aevae_jax.runs import records
from aevae_jax.types import InputError
from faults import deaths, operations, outcomes, places, workers
from faults.bench import Bench, Row
from faults.trials import BAD, FINE

Section = Literal[
    "kills",
    "sweeps",
    "nan",
    "signals",
    "exits",
    "damage",
    "disk",
    "lock",
    "resume",
    "machines",
    "operations",
    "runs",
    "arrays",
    "aev",
    "pictures",
    "tables",
    "tfds",
    "typed",
    "writes",
    "commands",
]

SECTIONS: dict[str, Callable[[Bench], list[Row]]] = {
    "kills": deaths.kills,
    "sweeps": deaths.sweeps,
    "nan": outcomes.nan,
    "signals": deaths.signals,
    "exits": deaths.exits,
    "damage": outcomes.damage,
    "disk": places.disk,
    "lock": places.lock,
    "resume": outcomes.resume,
    "machines": outcomes.machines,
    "operations": operations.operations,
}

FAULTS = {
    "kills": "SIGKILL at any moment and at operations on files",
    "sweeps": "the same of a sweep, whose four members are trained as one",
    "nan": "NaN in batch, loss, gradient or parameters",
    "signals": "SIGTERM, SIGINT, SIGUSR1",
    "exits": "exit by return, exception or `sys.exit`",
    "damage": "every file of a checkpoint, and the weights, flipped, truncated, deleted",
    "disk": "no room, by a limit and on a small tmpfs; directory made read-only, removed or renamed",
    "lock": "two trainings in one directory",
    "resume": "going on at a random step, data resident and streamed",
    "machines": "another process, fewer cores, another Python",
    "operations": "SIGKILL before each operation on files of a training",
}
"""What the sections are, in a few words."""

HOSTILE = {
    "runs": "every file of a run and of its checkpoints",
    "arrays": ".npy, .npz, idx, as data and as inputs",
    "aev": "compressed files, decompressed and recovered",
    "pictures": "folders of PNG, JPEG, WebP and TIFF",
    "tables": "CSV and Parquet",
    "tfds": "directories of TensorFlow Datasets, and the cache",
    "typed": "what is typed for an option",
    "writes": "directories that are written in",
    "commands": "commands, with all of these",
}
"""The modules of this folder that have subjects, and what they are."""

FEW = {"writes": 6, "commands": 10}
"""Trials of a section in the short form, where not 40."""


def faults(
    *,
    only: tuple[Section, ...] = (),
    trial: str = "",
    short: bool = False,
    resume: bool = False,
    seed: int = 0,
    python12: str = "",
    out: Path = Path("runs/faults"),
    record: str = "",
) -> None:
    """Train under every kind of fault, read every kind of hostile file, and count what was lost or wrong.

    The exit code is 1 if anything was.

    Args:
      only: the sections to run; all where left out.
      trial: of hostile inputs, only those whose names begin so, such as run.json/flip; one section must be named.
      short: a few trials of each, in a run of 2 epochs in place of 8.
      resume: reuse the figures of sections that were finished in the output directory.
      seed: of the moments and places of faults.
      python12: an interpreter of Python 3.12 that has this package, to compare numbers with.
      out: directory for figures and runs; those of an earlier call are deleted.
      record: also write all figures to this JSON file; sections that are not run stay as they are there.
    """
    from aevae_jax.runs import provenance

    if trial and (len(only) != 1 or only[0] not in HOSTILE):
        raise InputError("--trial", got=trial, expected=f"--only with one of {', '.join(HOSTILE)} beside it")
    if record:
        durable.make_room(Path(record))
    if not resume:
        shutil.rmtree(out / "work", ignore_errors=True)
    bench, names = Bench(out / "work", short, seed, python12), tuple[str, ...](only or (*SECTIONS, *HOSTILE))

    terminal.begin(f"trying {', '.join(names)}")

    def figures(name: str) -> Any:
        path, began = out / f"{name}.json", time.monotonic()
        if not (resume and path.exists()):
            path.unlink(missing_ok=True)
            shutil.rmtree(out / "work" / name, ignore_errors=True)
            rows = SECTIONS[name](bench) if name in SECTIONS else hostile(bench, name, trial)
            found = [row.to_json() for row in rows]
            told = {"what": {**FAULTS, **HOSTILE}[name], "short": short, "seconds": round(time.monotonic() - began, 1)}
            records.write_json(path, {**told, "rows": found})
        return records.read_json(path)

    with ThreadPoolExecutor(2 if short else 1) as pool:  # at any time two processes, in the one way or the other
        found = dict(zip(names, pool.map(figures, names), strict=True))
    if record:
        command = shlex.join(["python", "experiments/faults", *sys.argv[1:]])
        before = records.read_json(Path(record))["sections"] if Path(record).exists() else {}
        records.write_json(
            Path(record), {"command": command, "sections": {**before, **found}, **provenance.environment()}
        )
    if show([row for section in found.values() for row in section["rows"]]):
        raise SystemExit(1)


def hostile(bench: Bench, section: str, trial: str = "") -> list[Row]:
    """Return a row for each subject of a section."""
    subjects, rows = workers.subjects(section), list[Row]()
    names = [name for subject in subjects.values() for name in subject.trials() if name.startswith(trial)]
    if bench.short and not trial:
        names = bench.dice(section).sample(names, min(len(names), FEW.get(section, 40)))
    answers = workers.do(section, names, work=bench.work, seed=bench.seed, workers=1 if bench.short else 2)
    records.write_lines(bench.work.parent / f"{section}.trials.jsonl", answers)
    for subject in subjects:
        found = [answer for answer in answers if answer["trial"].split("/")[0] == subject]
        if not found:
            continue
        failures = [
            f"{answer['kind']}: {answer['detail']}; repeat by: {_command(section, answer['trial'], bench.seed)}"
            for answer in found
            if answer["kind"] not in FINE
        ]
        counts = Counter(answer["kind"] for answer in found)
        said = ", ".join(f"{counts[kind]} {kind}" for kind in (*FINE, *BAD, "broken") if counts[kind])
        slowest = max(answer["seconds"] for answer in found)
        must = "read as before, or one line and exit code 2"
        figure = f"{said}; {slowest:.1f} s at most"
        rows.append(Row(f"{section}: {subject}", len(found), must, failures, figure, counts=counts))
    return rows


def _command(section: str, trial: str, seed: int) -> str:
    chosen = f" --seed {seed}" if seed else ""
    return f"python experiments/faults --only {section} --trial {trial}{chosen}"


def show(rows: list[dict[str, Any]]) -> int:
    """Print the table; how many rows do not hold."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    colours = {"holds": "green", "does not hold": "red", "skipped": "yellow"}
    table = Table("fault", "trials", "what must hold", "figure", "holds", title="Faults", show_lines=True)
    for row in rows:
        verdict = f"[{colours[row['holds']]}]{row['holds']}[/]"
        table.add_row(escape(row["fault"]), str(row["trials"]), row["must"], escape(row["figure"]), verdict)
    output = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    output.print(table)
    for row in rows:
        for failure in row["failures"][:1]:
            output.print(f"{row['fault']}: {row['failed']} failed, the first: {failure}", markup=False)
    return sum(row["holds"] == "does not hold" for row in rows)
