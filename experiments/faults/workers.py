"""Processes that do many hostile trials each: they import once, and are given up when they hang or die."""

from __future__ import annotations

import collections
import importlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faults import tiny
from faults.child import FOLDER
from faults.trials import Place, Subject, Verdict
from faults.watch import SECONDS, limit_memory

GRACE = 120
"""Seconds after which a worker that does not answer is ended, beyond `SECONDS`: it makes originals, too."""

ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3", "TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore"}


def subjects(section: str) -> dict[str, Subject]:
    """Return, by name, the subjects of the module `section` of this folder."""
    return {subject.name: subject for subject in importlib.import_module(f"faults.{section}").subjects()}


def serve(given: dict[str, Any]) -> None:
    """Do the trials whose names come on standard input, a line each, and say what became of them."""
    answers = os.dup(1)  # what the trials print goes elsewhere
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    asked = os.fdopen(os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # no trial reads it
    root = Path(given["root"])
    tiny.KEPT.append(Path(given["originals"]) / "trained")
    place, known = Place(root, Path(given["originals"])), subjects(given["section"])
    os.environ.update({"HOME": str(root / "home"), "XDG_CACHE_HOME": str(root / "cache")})
    for name in ("home", "cache"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in importlib.import_module(f"faults.{given['section']}").WARM:
        importlib.import_module(name)
    limit_memory()
    os.write(answers, b'{"ready": true}\n')
    for line in asked:
        trial = line.strip()
        began = time.monotonic()
        try:
            verdict = known[trial.split("/")[0]].run(trial, place, given["seed"])
        except Exception as error:  # of the harness itself, which is no result
            verdict = Verdict("broken", f"{type(error).__name__}: {error}")
        answer = {
            "trial": trial,
            "kind": verdict.kind,
            "detail": verdict.detail[:1500],
            "seconds": round(time.monotonic() - began, 3),
        }
        os.write(answers, json.dumps(answer).encode() + b"\n")


class Worker:
    """A process that serves."""

    def __init__(self, given: dict[str, Any]):
        self.given = given
        root = Path(given["root"])
        root.mkdir(parents=True, exist_ok=True)
        cache = {
            "JAX_COMPILATION_CACHE_DIR": str(Path(given["originals"]) / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        with (root / "stderr").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(FOLDER), "worker", json.dumps(given)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **ENVIRONMENT, **cache},
            )
        self._rest = b""
        self._answer(120)

    def ask(self, trial: str) -> dict[str, Any]:
        """Do one trial; where the process does not survive that, say how it ended."""
        assert self.process.stdin
        try:
            self.process.stdin.write(f"{trial}\n".encode())
            self.process.stdin.flush()
            return self._answer(SECONDS + GRACE)
        except TimeoutError:
            self.end()
            return {"trial": trial, "kind": "hang", "detail": "not even an alarm wakes it", "seconds": SECONDS + GRACE}
        except OSError:
            code = self.process.wait()
            return {"trial": trial, "kind": "traceback", "detail": f"the process died: {code}", "seconds": 0.0}

    def _answer(self, seconds: float) -> dict[str, Any]:
        assert self.process.stdout
        until = time.monotonic() + seconds
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise TimeoutError
            new = os.read(self.process.stdout.fileno(), 2**16)
            if not new:
                raise BrokenPipeError
            self._rest += new
        line, self._rest = self._rest.split(b"\n", 1)
        return dict(json.loads(line))

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def do(section: str, trials: Sequence[str], *, work: Path, seed: int, workers: int) -> list[dict[str, Any]]:
    """Do trials, `workers` at a time, with the time left on standard error; answers in the order of the trials."""
    queue, answers = collections.deque(trials), list[dict[str, Any]]()
    began, shown = time.monotonic(), [0.0]

    def serve_one(number: int) -> None:
        given = {
            "section": section,
            "root": str(work / section / f"worker-{number}"),
            "seed": seed,
            "originals": str(work / "originals"),
        }
        worker = Worker(given)
        try:
            while queue:
                try:
                    trial = queue.popleft()
                except IndexError:
                    return
                if not worker.alive:
                    worker = Worker(given)
                answers.append(worker.ask(trial))
                now, done = time.monotonic(), len(answers)
                if now - shown[0] > 10 or done == len(trials):
                    shown[0] = now
                    left = divmod(round((now - began) / done * (len(trials) - done)), 60)
                    print("{}: {}/{}  {}:{:02} left".format(section, done, len(trials), *left), file=sys.stderr)
        finally:
            worker.end()

    threads = [threading.Thread(target=serve_one, args=(number,)) for number in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(answers) < len(trials):
        raise RuntimeError(f"{section}: the workers did not start; see {work / section}/worker-*/stderr")
    places = {trial: n for n, trial in enumerate(trials)}
    return sorted(answers, key=lambda answer: places[answer["trial"]])
