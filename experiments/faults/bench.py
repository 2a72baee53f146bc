"""Starts trainings, looks at what they leave, and keeps the rows of the table."""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

from aevae_jax.runs import records
from faults.child import FIELDS, FOLDER, SEEDS, run_of
from faults.process import Process

PER_EPOCH = 39
ALL = {"seconds": 0.0, "last": 10**6}
AGAIN = "the same command resumes it to the same outcome"


class Row(NamedTuple):
    """One line of the table; it holds if nothing failed. `skipped` says why it could not be tried.

    `counts` says how many trials of hostile inputs came to which verdict.
    """

    fault: str
    trials: int
    must: str
    failures: Sequence[str] = ()
    figure: str = ""
    skipped: str = ""
    counts: Mapping[str, int] = {}

    def to_json(self) -> dict[str, Any]:
        """Return as it is written down, with the first failures."""
        verdict = "skipped" if self.skipped else "does not hold" if self.failures else "holds"
        figure = "; ".join(filter(None, [f"{len(self.failures)} failures", self.figure]))
        texts = {"figure": self.skipped or figure, "failures": [failure[:1000] for failure in self.failures[:5]]}
        return {**self._asdict(), **texts, "failed": len(self.failures), "holds": verdict}


class Bench:
    """Starts processes and looks at what they leave."""

    def __init__(self, work: Path, short: bool, seed: int, python12: str):
        self.work, self.short, self.seed, self.python12 = work.absolute(), short, seed, python12
        self.epochs, self.outcomes = 2 if short else 8, Counter[str]()
        self._one = threading.RLock()  # one thread at a time uses JAX here

    def many(self, few: int, all: int) -> int:
        """Return how many trials."""
        return few if self.short else all

    def dice(self, *of: Any) -> random.Random:
        """Return chance that is the same each time."""
        return random.Random(f"{self.seed} {of}")

    def start(self, folder: Path, *, cache: bool = True, python: str = sys.executable, **given: Any) -> Process:
        """Return the command of all sections; without the cache it compiles everything."""
        settings = {"directory": str(folder), "epochs": self.epochs, **given}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
        if cache:
            environment |= {
                "JAX_COMPILATION_CACHE_DIR": str(self.work / "cache"),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            }
        folder.parent.mkdir(parents=True, exist_ok=True)
        return Process([python, str(FOLDER), "child", json.dumps(settings)], environment)

    def whole(self, sweep: bool = False) -> Path:
        """Return the run, or the sweep, that nobody disturbs, with a checkpoint at every step."""
        folder = self.work / ("whole-sweep" if sweep else "whole")
        with self._one:
            if not (folder / "results.json").exists():
                process = self.start(folder, saving={**ALL, "steps": 1}, sweep=sweep)
                if process.end():
                    raise RuntimeError(f"the undisturbed run failed: {process}")
        return folder

    def compare(self, folder: Path, sweep: bool = False) -> str:
        """Return what of the outcome of a finished run, or of the members of a sweep, is not that of the undisturbed
        one.
        """
        whole = self.whole(sweep)
        members = sorted(path.name for path in (whole / records.MEMBERS).iterdir()) if sweep else []
        wrong = []
        for run in [Path(records.MEMBERS, name) for name in members] or [Path()]:
            mine, other = outcome(folder / run), outcome(whole / run)
            wrong += [f"another {name} in {folder.name / run}" for name in mine if mine[name] != other[name]]
        return ", ".join(wrong)

    def finish(self, folder: Path, section: str, after: int = -1, **options: Any) -> str:
        """Let the same command finish, from step `after` on, and delete the run; what was wrong."""
        process = self.start(folder, **options)
        failed, sweep = process.end(), options.get("sweep", False)
        wrong = f"the next start failed in {folder.name}: {process}" if failed else self.compare(folder, sweep)
        if min(map(int, process.told("@saved")), default=after + 1) <= after:
            wrong = f"it did not go on at step {after} in {folder.name}"
        self.outcomes[section] += 1
        shutil.rmtree(folder)
        return wrong

    @functools.cache  # noqa: B019  # of one bench
    def _trainer(self, sweep: bool) -> Any:
        from aevae_jax.runs import sweeps
        from aevae_jax.runs.resolution import resolve
        from aevae_jax.runs.trainer import Trainer

        run, population = run_of(self.epochs), None
        if sweep:
            run, population = sweeps.combine(run, FIELDS, SEEDS)
        return Trainer(resolve(run), population)

    def restore(
        self, store: Any, until: int | None = None, *, sweep: bool = False
    ) -> tuple[int, dict[str, Any], list[str]]:
        """Return step and arrays of the newest checkpoint, -1 if there is none, and what was said of damaged ones."""
        import jax
        import numpy as np

        from aevae_jax.runs import resume

        notes: list[str] = []
        with self._one:
            found = resume.restore(store, self._trainer(sweep), until=until, note=notes.append)
            if found is None:
                return -1, {}, notes
            kept = {"state": found.state._asdict(), "best": found.best, "logged": (found.metrics, found.losses)}
            leaves = jax.tree_util.tree_flatten_with_path(kept)[0]
            return found.progress.step, {jax.tree_util.keystr(path): np.asarray(a) for path, a in leaves}, notes

    def newest(self, folder: Path, sweep: bool = False) -> int:
        """Return the step from which the next start would go on: found in a copy, as that start also tidies up."""
        from aevae_jax.checkpoints.store import Store

        copy = self.work / "copies" / f"{threading.get_ident()}"
        shutil.rmtree(copy, ignore_errors=True)
        if (folder / records.CHECKPOINTS).exists():
            shutil.copytree(folder / records.CHECKPOINTS, copy)
        store = Store(copy)
        store.clean()
        return self.restore(store, sweep=sweep)[0]

    def each(self, title: str, trial: Callable[[Any], str], items: Iterable[Any]) -> list[str]:
        """Do trials, two at a time, with the time left on standard error; what was wrong in any."""
        items, failures, began, shown = list(items), list[str](), time.monotonic(), 0.0
        with ThreadPoolExecutor(1 if self.short else 2) as pool:
            futures = {pool.submit(trial, item): item for item in items}
            for done, future in enumerate(as_completed(futures), 1):
                error = future.exception()
                if wrong := f"{type(error).__name__}: {error}" if error else future.result():
                    failures.append(f"{title} {futures[future]}: {wrong}")
                now = time.monotonic()
                if now - shown > 10 or done == len(items):
                    left = divmod(round((now - began) / done * (len(items) - done)), 60)
                    print(
                        "{}: {}/{}  {}:{:02} left".format(title, done, len(items), *left), file=sys.stderr, flush=True
                    )
                    shown = now
        return failures


def outcome(folder: Path) -> dict[str, bytes]:
    """Return all that a finished run leaves, but the seconds that it took."""
    results = records.read_json(folder / "results.json")
    results.pop("seconds")
    results.pop("sha256", None)  # over the seconds as well
    files = {name: (folder / name).read_bytes() for name in ("weights.safetensors", "losses.npy", "metrics.jsonl")}
    return {**files, "results.json": json.dumps(results, sort_keys=True).encode()}
