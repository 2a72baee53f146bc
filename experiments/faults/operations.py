"""A kill at every operation on files of a short training, one after the other; then the same call goes on."""

from __future__ import annotations

import builtins
import hashlib
import io
import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults import tiny, workers
from faults.bench import AGAIN, Bench, Row
from faults.trials import Place, Verdict
from faults.watch import SECONDS

WARM = (
    "aevae_jax.figures",
    "aevae_jax.runs.fitting",
    "aevae_jax.models.generation",
    "aevae_jax.runs.resume",
    "aevae_jax.runs.resolution",
    "aevae_jax.runs.trainer",
    "aevae_jax.runs.weights",
    "jax",
    "orbax.checkpoint",
    "sklearn.datasets",
)
"""What a worker imports; it computes nothing, as JAX must not have threads when this process is forked."""

OPERATIONS = (
    "rename",
    "replace",
    "remove",
    "unlink",
    "rmdir",
    "mkdir",
    "truncate",
    "ftruncate",
    "link",
    "symlink",
    "fsync",
    "write",
)
"""Functions of the module `os`; opening a file in order to write comes beside them."""

FEW = 1
"""How many operations the short form kills before."""


def operations(bench: Bench) -> list[Row]:
    """Return the row of this section."""
    options: Any = {"work": bench.work, "seed": bench.seed, "workers": 1 if bench.short else 2}
    [counted] = workers.do("operations", ["training/0"], **options)
    if counted["kind"] != "counted":
        raise RuntimeError(f"the undisturbed training failed: {counted}")
    total = int(counted["detail"])
    numbers = sorted(bench.dice("operations").sample(range(1, total + 1), FEW)) if bench.short else range(1, total + 1)
    answers = workers.do("operations", [f"training/{n}" for n in numbers], **options)
    answers = [answer for answer in answers if answer["kind"] != "ended before"]
    failures = [
        f"at operation {answer['trial'].split('/')[1]}: {answer['kind']}: {answer['detail']}"
        for answer in answers
        if answer["kind"] != "same"
    ]
    figure = f"a training has {len(answers)} operations on files; a kill before each of them" if not bench.short else ""
    return [Row("SIGKILL at each operation on files", len(answers), AGAIN, failures, figure)]


def subjects() -> list[Any]:
    """Return the only one."""
    return [Training()]


class Training:
    """What `workers.serve` runs."""

    name = "training"

    def run(self, trial: str, place: Place, seed: int) -> Verdict:
        """Train in a fork of this process, killed at the operation that the trial names; 0 counts them."""
        number, kept = int(trial.split("/")[1]), place.originals / "operations"
        place.prepare()
        code = _forked(lambda: _train(place.trial, number))
        if not number:
            kept.mkdir(parents=True, exist_ok=True)
            (kept / "outcome").write_text(_outcome(place.trial))
            return (
                Verdict("counted", (place.trial / "count").read_text()) if code == 0 else Verdict("broken", str(code))
            )
        if code == 0:  # how many operations there are depends on time
            return Verdict("ended before")
        if code != -signal.SIGKILL:
            return Verdict("broken", f"it was not killed: {code}")
        seen = kept / _state(place.trial / "run")
        if seen.exists():  # what lies there was left by another kill, too
            return Verdict("same")
        code = _forked(lambda: _train(place.trial, 0))
        if code:
            return Verdict("traceback", f"exit code {code}: {(place.trial / 'error').read_text()[:500]}")
        same = _outcome(place.trial) == (kept / "outcome").read_text()
        if not same:
            return Verdict("silent", "another outcome")
        seen.touch()
        return Verdict("same")


def _state(folder: Path) -> str:
    """Return a digest of what a killed training left, but names that are drawn and who held the lock."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        total.update(f"{re.sub('[0-9a-f]{16}', '', str(path.relative_to(folder)))} {path.is_file()}\n".encode())
        if path.is_file() and path.name != "lock":
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _outcome(folder: Path) -> str:
    """Return all that a run leaves, but the seconds that it took."""
    results = json.loads((folder / "run" / "results.json").read_text())
    for name in ("seconds", "sha256"):
        results.pop(name, None)
    names = ("weights.safetensors", "losses.npy", "metrics.jsonl")
    files = {name: hashlib.sha256((folder / "run" / name).read_bytes()).hexdigest() for name in names}
    return json.dumps({**files, "results": results, "listed": sorted(os.listdir(folder / "run"))})


def _forked(work: Any) -> int:
    """Return the exit code of a fork of this process that does some work."""
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            Path("error").write_text(f"{type(error).__name__}: {error}")
            os._exit(1)
    until = time.monotonic() + 3 * SECONDS
    while time.monotonic() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise TimeoutError("a training hangs")


def _train(folder: Path, number: int) -> None:
    """Train, and die just before operation `number`; 0 lives, and leaves their count."""
    count = 0

    def counted(original: Any, is_one: Callable[..., bool]) -> Any:
        def operation(*args: Any, **options: Any) -> Any:
            nonlocal count
            if is_one(*args, **options):
                count += 1
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **options)

        return operation

    def writes(path: Any, mode: str = "r", *_: Any, **__: Any) -> bool:
        return not isinstance(path, int) and mode not in ("r", "rb") and os.fspath(path).startswith(str(folder))

    def creates(path: Any, flags: int, *_: Any, **__: Any) -> bool:
        return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) and str(path).startswith(str(folder))

    for name in OPERATIONS:
        setattr(os, name, counted(getattr(os, name), lambda *args, **options: True))
    os.open = counted(os.open, creates)
    io.open = builtins.open = counted(io.open, writes)  # type: ignore[assignment]
    tiny.train(folder / "run", 1)
    total, number = count, -1  # what follows is not of the training
    (folder / "count").write_text(str(total))
