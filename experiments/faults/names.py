"""Subject: the name of a table's file, as it is typed."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

from faults.trials import FREE, Change, Place, Subject

NAMES: tuple[str | bytes, ...] = (
    "table (1).csv",
    "2024.csv",
    "it's.csv",
    "x[1].csv",
    "a b.csv",
    "-.csv",
    "\x1b[31m.csv",
    b"\xff.csv",
    "x.CSV",
    ".csv",
    "$(touch ..executed).csv",
    '"; import os.csv',
    "Data('x.csv').csv",
    "x.csv\n",
    "x\0.csv",
    "x" * 251 + ".csv",
    "x" * 300 + ".csv",
    "~nosuchuser/x.csv",
    "x.csv/../x.csv",
    "/dev/stdin",
    "x.csv/",
    "Ä.csv",
    "None",
    "True",
    "1e5",
    "(1, 2)",
    "digits.csv",
    "",
    ".",
    "..",
    "/",
    "~",
    "x.csv ",
    "\u202e.csv",
    "https://example.org/x.csv",
    "file:x.csv",
)


def subject() -> Subject:
    """Return `--data` is typed as the name of a file, which is there where a file can have that name."""

    def write(folder: Path) -> None:
        with (folder / "x.csv").open("w") as file:
            file.write("\n".join(["a,b", *(f"{n},{n % 3}" for n in range(30))]))
        (folder / "name").write_text("./x.csv")

    def read(folder: Path) -> Any:
        from aevae_jax import values
        from aevae_jax.data import Data

        text = os.fsdecode((folder / "name").read_bytes())
        dataset = values.parse(Data, text, "--data").load()
        return {"rows": [row.tolist() for row in dataset.train.x[:]], "names": [c.name for c in dataset.columns]}

    def named(n: int, start: bytes) -> Change:
        def change(folder: Path, dice: random.Random, place: Place) -> Any:
            raw = NAMES[n] if isinstance(NAMES[n], bytes) else str(NAMES[n]).encode()
            assert isinstance(raw, bytes)
            there = b"\0" not in raw and b"/" not in raw and len(raw) < 256 and raw not in (b"", b".", b"..")
            if there:
                os.rename(folder / "x.csv", os.path.join(os.fsencode(folder), raw))
            (folder / "name").write_bytes(start + raw)
            return None if there else FREE

        return change

    changes: dict[str, tuple[int, Change]] = {}
    for n in range(len(NAMES)):
        changes |= {f"plain-{n}": (1, named(n, b"")), f"dotted-{n}": (1, named(n, b"./"))}
    return Subject("names", write, read, changes)
