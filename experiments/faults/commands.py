"""Subjects: the command line itself, in this process and in processes of its own."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from faults import streams, tiny
from faults.forgeries import seal
from faults.headers import NPY, Maker
from faults.mutate import ESCAPES, things
from faults.pictures import NAMES
from faults.trials import FREE, Change, Place, Subject
from faults.watch import judged

WARM = ("jax", "aevae_jax.cli.main")
"""What a worker imports before its first trial."""


def subjects() -> list[Subject]:
    """Return commands, by what is hostile."""
    return [_columns(), _named_run(), _numbers(), _weights(), _inputs(), streams.subject()]


def run_here(*argv: str) -> str:
    """Return what a command prints, in this process.

    Raises:
      InputError: it ended with exit code 2 and one line.
      RawError: it printed what a terminal would obey, or ended otherwise than it should.
    """
    from aevae_jax.cli.main import main

    out, error, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            main(list(argv))
        except SystemExit as stop:
            code = int(stop.code or 0)
    return judged(code, out.getvalue(), error.getvalue())


# ------------------------------------------------------------------------------------------------ names within the data

COLUMNS = (
    "flow [/s]",
    "age [years]",
    "[bold]",
    "[/]",
    "[link=x]y[/link]",
    ":smile:",
    "a|b",
    ESCAPES,
    "\u202eabc",
    "é",
    "Ω" * 300,
    "\x9b31m",
    "\x07",
    "%s",
    "{0}",
    "\\",
    "`",
    "$(x)",
    "'",
    '"',
    "#",
    "None",
    "split",
    "日本",
    "\u200b",
)
"""Headings."""


def _columns() -> Subject:
    """Return `inspect` shows columns and categories by their names."""

    def write(folder: Path) -> None:
        tiny.table(folder, "plain")

    def read(folder: Path) -> Any:
        name = json.loads((folder / "name").read_text())
        shown = "".join(run_here("data", "inspect", "./x.csv").split())
        wanted = "".join(c for c in name.partition("\x1b")[0] if c.isprintable() and not c.isspace())[:20]
        return {"shown": wanted in shown or len(wanted) < 1 or name == "split"}

    def named(n: int) -> Change:
        return lambda folder, dice, place: tiny.table(folder, COLUMNS[n])

    return Subject("columns", write, read, {f"name-{n}": (1, named(n)) for n in range(len(COLUMNS))})


# -------------------------------------------------------------------------------------------------------- a trained run


def _named_run() -> Subject:
    """Return the directory of a run has a name that steers, quotes or misleads."""

    def read(folder: Path) -> Any:
        path = next(path for path in Path().iterdir() if path.is_dir())
        run_here("sample", f"./{path}", "--out", "x.npy", "--num", "3")
        text = run_here("diagnose", f"./{path}")
        return {"sampled": Path("x.npy").exists(), "measured": "nats/example" in text}

    def named(n: int) -> Change:
        def change(folder: Path, dice: random.Random, place: Place) -> Any:
            name = NAMES[n]
            raw = name if isinstance(name, bytes) else name.encode()
            os.rename(folder / "a", os.path.join(os.fsencode(folder), raw.replace(b"/", b"_") + b"."))
            return FREE

        return change

    changes = {f"name-{n}": (1, named(n)) for n in range(len(NAMES))}
    return Subject("named-run", tiny.usable, read, changes, share="commands")


COUNTS = ("300000000", "10000000000000", "9" * 30, "-1", "0", "1e9", "nan", "", "0x7f", "\uff11\uff12")
OPTIONS: tuple[tuple[str, ...], ...] = (
    ("sample", "a", "--out", "x.npy", "--num"),
    ("sample", "a", "--out", "x.png", "--num"),
    ("sample", "a", "--out", "x.npy", "--seed"),
    ("interpolate", "a", "--out", "x.npy", "--steps"),
    ("interpolate", "a", "--out", "x.npy", "--start"),
    ("evaluate", "a", "--batch-size"),
    ("reconstruct", "a", "--out", "x.npy", "--num"),
    ("replay", "a", "--step"),
    ("data", "inspect", "digits", "--num"),
)


def _told(folder: Path) -> Any:
    """Return the command that stands in `command`."""
    argv = json.loads((folder / "command").read_text())
    return run_here(*argv) and "done"


def _command(argv: Sequence[str]) -> Change:
    def change(folder: Path, dice: random.Random, place: Place) -> Any:
        (folder / "command").write_text(json.dumps(argv))
        return FREE

    return change


def _made_with(argv: Sequence[str]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        tiny.usable(folder)
        (folder / "command").write_text(json.dumps(argv))

    return write


def _numbers() -> Subject:
    """Return numbers that are typed, and are no numbers for this."""
    changes = {
        f"{'-'.join((argv[0], *argv[-1:]))}-{n}": (1, _command([*argv, count]))
        for argv in OPTIONS
        for n, count in enumerate(COUNTS)
    }
    return Subject("numbers", _made_with(["sample", "a", "--out", "x.npy"]), _told, changes, share="commands-numbers")


def _weights() -> Subject:
    """Put weights that are no numbers, or too large, into a run that is consistent otherwise."""
    commands = (
        ["sample", "a", "--out", "x.npy"],
        ["evaluate", "a"],
        ["diagnose", "a"],
        ["encode", "a", "--input", "images.npy", "--out", "x.npy"],
        ["reconstruct", "a", "--out", "x.png"],
    )

    def change(value: float, argv: Sequence[str]) -> Change:
        def spoil(folder: Path, dice: random.Random, place: Place) -> Any:
            import numpy as np

            path = folder / "a" / "weights.safetensors"
            content = bytearray(path.read_bytes())
            size = 8 + int.from_bytes(content[:8], "little")
            content[size:] = np.full((len(content) - size) // 4, value, "<f4").tobytes()
            path.write_bytes(content)
            seal(folder / "a")
            (folder / "command").write_text(json.dumps(argv))
            return FREE

        return spoil

    values = {"nan": float("nan"), "infinite": float("inf"), "large": 1e30, "zero": 0.0}
    changes = {f"{argv[0]}-{name}": (1, change(value, argv)) for argv in commands for name, value in values.items()}
    entries: dict[str, Any] = {"null": None, "large": 1e300, "zero": 0}
    changes |= {f"history-{name}": (1, _history(value)) for name, value in entries.items()}
    return Subject("weights", _made_with(commands[0]), _told, changes, share="commands-numbers")


def _history(value: Any) -> Change:
    """Return all metrics of all epochs are this, in a run that is consistent otherwise."""

    def change(folder: Path, dice: random.Random, place: Place) -> Any:
        path = folder / "a" / "metrics.jsonl"
        entries = [json.loads(row) for row in path.read_text().splitlines()]
        for entry in entries:
            for part in ("train", "validation"):
                entry[part] = dict.fromkeys(entry[part], value)
        path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        seal(folder / "a")
        (folder / "command").write_text(json.dumps(["diagnose", "a"]))
        return FREE

    return change


def _inputs() -> Subject:
    """Return what is encoded, decoded and reconstructed, through the commands."""
    encode = ["encode", "a", "--input", "images.npy", "--out", "x.npy"]
    decode = ["decode", "a", "--input", "codes.npy", "--out", "x.npy"]
    changes: dict[str, tuple[int, Change]] = {}

    def after(change: Change, argv: Sequence[str]) -> Change:
        def both(folder: Path, dice: random.Random, place: Place) -> Any:
            change(folder, dice, place)
            (folder / "command").write_text(json.dumps(argv))
            return FREE

        return both

    for argv in (encode, decode):
        file = argv[3]
        changes |= {f"{argv[0]}-{kind}": (1, after(change, argv)) for kind, change in things(file).items()}
        for kind, forge in NPY.items():
            changes[f"{argv[0]}-forged-{kind}"] = (1, after(functools.partial(_forged, forge, file), argv))
    return Subject("inputs", _made_with(encode), _told, changes, share="commands-numbers")


def _forged(forge: Maker, file: str, folder: Path, dice: random.Random, place: Place) -> None:
    forge(folder / file, dice)
