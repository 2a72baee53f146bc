"""Subjects: directories that are hostile to whoever trains in them or writes a file there."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

from faults import tiny
from faults.mutate import things
from faults.runs import FILES, PICTURES, read
from faults.tiny import STEPS
from faults.trials import Change, Place, Subject

WARM = ("jax", "aevae_jax.runs.fitting", "aevae_jax.data.files")
"""What a worker imports before its first trial."""

NAMES = (*FILES, *PICTURES, "lock", "checkpoints")
PARTS = (
    "metrics.part",
    "run.part",
    "results.part",
    "weights.part",
    "losses.part",
    "probe.part",
    ".losses.npy",
    "lock.part",
    "checkpoints/0.tmp",
    "checkpoints/6.tmp",
    "checkpoints/6",
    "checkpoints/6.old.tmp",
    "checkpoints/6.gone.tmp",
)
"""Names that something unfinished has, or had in older versions."""


def subjects() -> list[Subject]:
    """Return who writes: a new training, one that is resumed, commands with an output."""
    return [_new(), _going_on(), _around(), _output()]


def _made(folder: Path) -> None:
    """Make a run that is half done, in `half`."""
    tiny.trained(folder / "whole", 1)
    half = Path(shutil.copytree(folder / "whole", folder / "half", ignore=_late))
    lines = (half / "metrics.jsonl").read_text().splitlines(keepends=True)
    (half / "metrics.jsonl").write_text("".join(lines[: STEPS[0] // 6 or 1]))
    shutil.rmtree(folder / "whole")


def _late(folder: str, names: list[str]) -> list[str]:
    left = {"weights.safetensors", "losses.npy", "results.json", *PICTURES}
    return [name for name in names if name in left or (name.isdigit() and int(name) > STEPS[0])]


def _again(folder: Path) -> Any:
    """Train in `a`, and read what is there then, but the seconds that it took."""
    from aevae_jax.checkpoints.saving import Saving
    from aevae_jax.runs import fitting

    fitting.fit(
        tiny.run_of(1),
        directory=folder / "a",
        saving=Saving(seconds=1e6, steps=STEPS[0], last=9, best=9),
        on_note=lambda text: None,
    )
    found = read(folder)
    found["results"] = {name: value for name, value in found["results"].items() if name not in ("seconds", "sha256")}
    regular = not any((folder / "a" / name).is_symlink() for name in FILES[1:])  # a link to run.json is read, no more
    return {**found, "regular": regular}


def _new() -> Subject:
    """Return a new training, where something lies in the directory already."""

    def write(folder: Path) -> None:
        (folder / "a").mkdir()

    changes: dict[str, tuple[int, Change]] = {}
    for name in (*NAMES, *PARTS):
        some = (
            things(f"a/{name}").items() if name in ("run.json", "lock", "checkpoints") else _links(f"a/{name}").items()
        )
        changes |= {f"{name.replace('/', '-')}-{kind}": (1, change) for kind, change in some if kind != "missing"}
    changes |= {f"directory-{kind}": (1, change) for kind, change in things("a").items()}
    return Subject("new", write, _again, changes)


def _links(name: str) -> dict[str, Change]:
    kinds = ("link-precious", "link-nowhere", "link-folder", "fifo", "directory")
    return {kind: change for kind, change in things(name).items() if kind in kinds}


def _going_on() -> Subject:
    """Return a training that was stopped, and what it would go on from."""

    def write(folder: Path) -> None:
        _made(folder)
        (folder / "half").rename(folder / "a")

    changes: dict[str, tuple[int, Change]] = {}
    for name in ("run.json", "metrics.jsonl", "lock", "checkpoints"):
        changes |= {f"{name}-{kind}": (1, change) for kind, change in things(f"a/{name}").items()}
    for name in (*FILES[2:], *PICTURES, *PARTS):
        changes |= {f"{name.replace('/', '-')}-{kind}": (1, change) for kind, change in _links(f"a/{name}").items()}
    return Subject("going-on", write, _again, changes)


def _around() -> Subject:
    """Return the current folder is a stranger's repository, whose settings run commands."""

    def write(folder: Path) -> None:
        (folder / "a").mkdir()

    changes: dict[str, tuple[int, Change]] = {f"git-{n}": (1, _git(n)) for n in range(len(GIT))}
    return Subject("around", write, _again, changes)


GIT = (
    "core.fsmonitor",
    "core.hooksPath",
    "core.pager",
    "core.sshCommand",
    "core.editor",
    "diff.external",
    "filter.x.clean",
    "include.path",
    "alias.rev-parse",
    "alias.status",
    "gpg.program",
    "credential.helper",
    "core.gitProxy",
)
"""Settings of a repository that run a command."""


def _git(n: int) -> Change:
    def change(folder: Path, dice: random.Random, place: Place) -> Any:
        import subprocess

        home = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}

        def git(*argv: str) -> None:
            subprocess.run(["git", *argv], cwd=folder, env=home, check=True, capture_output=True)

        git("init", "-q")
        (folder / "file").write_text("x")
        (folder / ".gitattributes").write_text("* filter=x diff=x\n")
        git("add", "file")
        git("-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "x")
        (folder / "file").write_text("another")
        hook = folder / "hooks" / "post-index-change"
        hook.parent.mkdir()
        hook.write_text(f"#!/bin/sh\ntouch {place.canary}\n")
        hook.chmod(0o755)
        value = str(hook.parent) if GIT[n] == "core.hooksPath" else str(hook)
        if GIT[n] == "include.path":
            (folder / "more").write_text(f"[core]\n\tfsmonitor = {hook}\n")
            value = str(folder / "more")
        git("config", GIT[n], f"!{value}" if GIT[n].startswith("alias") else value)
        place.canary.unlink(missing_ok=True)  # it was git that was called here

    return change


# -------------------------------------------------------------------------------------------------- outputs of commands


def _output() -> Subject:
    """Return a file that is written by `files.write`, and one by `durable`."""

    def write(folder: Path) -> None:
        (folder / "out.npy").write_bytes(b"old")
        (folder / "out.json").write_bytes(b"{}")

    def again(folder: Path) -> Any:
        import numpy as np

        from aevae_jax import durable
        from aevae_jax.data import files

        x = np.arange(12.0, dtype=np.float32).reshape(4, 3)
        files.check_output(folder / "out.npy", (".npy",), force=True)
        files.write(folder / "out.npy", {"images": x})
        files.check_output(folder / "out.json", (".json",), force=True)
        durable.write_bytes(folder / "out.json", b'{"a": 1}')
        regular = not any((folder / name).is_symlink() for name in ("out.npy", "out.json"))
        return {
            "npy": np.load(folder / "out.npy"),
            "json": json.loads((folder / "out.json").read_text()),
            "regular": regular,
        }

    changes: dict[str, tuple[int, Change]] = {}
    for name in ("out.npy", "out.json"):
        changes |= {f"{name}-{kind}": (1, change) for kind, change in things(name).items()}
    return Subject("output", write, again, changes)
