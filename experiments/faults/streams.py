"""Subjects: whole `aevae` processes, their streams and what surrounds them."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults import tiny
from faults.mutate import ESCAPES, things
from faults.pictures import BOMBS, picture
from faults.trials import FREE, Change, Place, Subject
from faults.watch import MEMORY, judged

USUAL = 700 * 2**20
"""Bytes that a command needs for JAX and its compiler."""


def subject() -> Subject:
    """Return whole processes: their streams, their surroundings, and a sample of all that is hostile."""
    cases = _cases()

    def read(folder: Path) -> Any:
        case = json.loads((folder / "command").read_text())
        script = folder / "bin" / "aevae"
        script.parent.mkdir(exist_ok=True)
        script.write_text("from aevae_jax.cli.main import main\nmain()\n")
        said = [Path(case.get(name, folder / "bin" / name)) for name in ("stdout", "stderr")]
        argv, close = [sys.executable, str(script), *case["argv"]], ">&-" if case.get("closed") else ""
        with said[0].open("wb") as out, said[1].open("wb") as error:
            process = subprocess.Popen(
                ["sh", "-c", f'exec "$0" "$@" {close}', *argv],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=error,
                env={**os.environ, **case.get("environment", {})},
            )
            try:
                _, status, used = os.wait4(process.pid, 0)
            except BaseException:
                process.kill()
                raise
        if used.ru_maxrss * 1024 > MEMORY + USUAL:
            raise MemoryError(f"{used.ru_maxrss // 1024} MiB")
        code, encoding = os.waitstatus_to_exitcode(status), case.get("encoding", "utf-8")
        texts = [path.read_bytes().decode(encoding, "surrogateescape") if path.is_file() else "" for path in said]
        return judged(0 if code in case.get("codes", []) else code, *texts) and "done"

    def change(name: str) -> Change:
        def prepare(folder: Path, dice: random.Random, place: Place) -> Any:
            case = cases[name]
            if "make" in case:
                case["make"](folder, place)
            (folder / "command").write_text(json.dumps({k: v for k, v in case.items() if k != "make"}))
            return FREE

        return prepare

    def write(folder: Path) -> None:
        tiny.usable(folder)
        (folder / "command").write_text(json.dumps({"argv": ["--version"]}))

    return Subject("processes", write, read, {name: (1, change(name)) for name in cases}, share="commands-processes")


def _cases() -> dict[str, dict[str, Any]]:
    sample, inspect, small = ["sample", "a", "--out", "x.npy"], ["data", "inspect"], "VAE(network=MLP((8,)))"

    def modules(folder: Path, place: Place) -> None:
        for name in ("jax", "numpy", "sitecustomize", "aevae_jax", "tensorflow_datasets", "pyarrow", "orbax", "git"):
            (folder / f"{name}.py").write_text(f"open({str(place.canary)!r}, 'w').write('executed')\n")

    def bomb(kind: str) -> Callable[[Path, Place], None]:
        def write(folder: Path, place: Place) -> None:
            (folder / "data").mkdir()
            for n in range(3):
                picture(n, "L").save(folder / "data" / f"{n}.png")
            BOMBS[kind](folder / "data" / "0.png", random.Random(0))

        return write

    def thing(kind: str, name: str) -> Callable[[Path, Place], Any]:
        return lambda folder, place: things(name)[kind](folder, random.Random(0), place)

    def cyrillic(folder: Path, place: Place) -> None:
        tiny.table(folder, "возраст")

    cases: dict[str, dict[str, Any]] = {
        "output-full": {"argv": [*inspect, "digits"], "stdout": "/dev/full", "codes": [1, 2]},
        "output-closed": {"argv": [*inspect, "digits"], "closed": True, "codes": [1]},
        "errors-full": {"argv": ["train", "new", "--epochs", "1", "--model", small], "stderr": "/dev/full"},
        "modules": {"argv": sample, "make": modules},
        **{
            encoding: {
                "argv": [*inspect, "./x.csv"],
                "make": cyrillic,
                "encoding": encoding,
                "environment": {"PYTHONIOENCODING": encoding},
            }
            for encoding in ("cp1252", "ascii")
        },
        "no-home": {"argv": [*inspect, "nothing"], "environment": {"HOME": "/nowhere"}},
        "argument": {"argv": [*inspect, ESCAPES.replace("\0", "")]},
        "unknown": {"argv": ["\x1b[31m"]},
    }
    cases |= {
        f"picture-{kind}": {"argv": [*inspect, "./data"], "make": bomb(kind)}
        for kind in ("large", "more-data", "text-bomb", "profile-bomb")
    }
    for kind in ("fifo", "link-zero", "hollow", "link-loop", "link-memory"):
        cases[f"run-{kind}"] = {"argv": sample, "make": thing(kind, "a/run.json")}
        cases[f"weights-{kind}"] = {"argv": sample, "make": thing(kind, "a/weights.safetensors")}
        cases[f"data-{kind}"] = {"argv": [*inspect, "./images.npy"], "make": thing(kind, "images.npy")}
    return cases
