"""Does a training survive anything? Real faults, injected into real processes.

Command:   python experiments/faults.py            (about half an hour on two CPU cores)
           python experiments/faults.py --short    (a few trials of each kind: about a minute)
Writes:    runs/faults/<section>.json, with the first failures in words; what the runs left is in runs/faults/work
Expected:  every row "holds"; what this machine does not allow is "skipped", with the reason.

One tiny VAE of the digits is trained, each time in a process of its own (`Child`) that says on its standard output what
it is doing and which checkpoints `Store.save` has acknowledged. It is killed, interrupted, starved of disk or fed NaN;
then its directory is looked at, and the same command is started again. The outcome of a run is its weights, the losses
of all steps, its log and its results, and must be, to the bit, that of a run that nobody disturbed. A kill is the end
of a process, not of a machine: what a loss of power leaves on a disk is not tried here.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from aevae_jax import console, records
from aevae_jax.signals import EXIT_CODE
from aevae_jax.types import InputError

PER_EPOCH = 39
OFTEN = {"seconds": 0.0, "steps": 13}
"""`Saving`: at every opportunity, and every 13 steps."""
ALL = {"seconds": 0.0, "last": 10**6}
HANGS = 180.0
"""Seconds after which a process is given up."""
AGAIN = "the same command goes on to the same outcome"
Section = Literal["kills", "nan", "signals", "exits", "damage", "disk", "lock", "resume", "machines"]


class Row(NamedTuple):
    """One line of the table; it holds if nothing failed. `skipped` says why it could not be tried."""

    fault: str
    trials: int
    must: str
    failures: Sequence[str] = ()
    figure: str = ""
    skipped: str = ""

    def to_json(self) -> dict[str, Any]:
        """As it is written down, with the first failures."""
        verdict = "skipped" if self.skipped else "does not hold" if self.failures else "holds"
        figure = "; ".join(filter(None, [f"{len(self.failures)} failures", self.figure]))
        texts = {"figure": self.skipped or figure, "failures": [failure[:1000] for failure in self.failures[:5]]}
        return {**self._asdict(), **texts, "failed": len(self.failures), "holds": verdict}


def faults(
    *,
    only: tuple[Section, ...] = (),
    short: bool = False,
    resume: bool = False,
    seed: int = 0,
    python12: str = "",
    out: Path = Path("runs/faults"),
    record: str = "",
) -> None:
    """Train under every kind of fault and count what was lost; the exit code is 1 if anything was.

    Args:
      only: the sections to run; all where left out.
      short: a few trials of each, in a run of 2 epochs in place of 8.
      resume: reuse the figures of sections that were finished in the output directory.
      seed: of the moments and places of faults.
      python12: an interpreter of Python 3.12 that has this package, to compare numbers with.
      out: directory for figures and runs; those of an earlier call are deleted.
      record: also write all figures to this JSON file.
    """
    from aevae_jax import environment

    if not resume:
        shutil.rmtree(out / "work", ignore_errors=True)
    bench, names = Bench(out / "work", short, seed, python12), tuple[str, ...](only or SECTIONS)

    def figures(name: str) -> Any:
        path, began = out / f"{name}.json", time.monotonic()
        if not (resume and path.exists()):
            path.unlink(missing_ok=True)
            shutil.rmtree(out / "work" / name, ignore_errors=True)
            rows = [row.to_json() for row in SECTIONS[name](bench)]
            records.write_json(path, {"short": short, "seconds": round(time.monotonic() - began, 1), "rows": rows})
        return records.read_json(path)

    with ThreadPoolExecutor(2 if short else 1) as pool:  # at any time two processes, in the one way or the other
        found = dict(zip(names, pool.map(figures, names), strict=True))
    command = " ".join(["python", "experiments/faults.py", *sys.argv[1:]])
    if record:
        records.write_json(Path(record), {"command": command, "sections": found, **environment.environment()})
    if _show([row for section in found.values() for row in section["rows"]]):
        raise SystemExit(1)


def _show(rows: list[dict[str, Any]]) -> int:
    """Print the table; how many rows do not hold."""
    from rich.console import Console
    from rich.table import Table

    colours = {"holds": "green", "does not hold": "red", "skipped": "yellow"}
    table = Table("fault", "trials", "what must hold", "figure", "holds", title="Faults", show_lines=True)
    for row in rows:
        verdict = f"[{colours[row['holds']]}]{row['holds']}[/]"
        table.add_row(row["fault"], str(row["trials"]), row["must"], row["figure"], verdict)
    output = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    output.print(table)
    for row in rows:
        for failure in row["failures"][:1]:
            output.print(f"{row['fault']}: {row['failed']} failed, the first: {failure}", markup=False)
    return sum(row["holds"] == "does not hold" for row in rows)


# --------------------------------------------------------------------------------------- the process that is disturbed


@dataclass(frozen=True)
class Poisoned:
    """The ELBO, with something that is no number in it at the steps `first` to `after - 1`."""

    first: int
    after: int
    place: str

    def __call__(self, model: Any, params: Any, x: Any, key: Any, step: Any) -> Any:
        import jax
        import jax.numpy as jnp

        from aevae_jax.objectives import ELBO

        bad = (step >= self.first) & (step < self.after)
        loss, metrics = ELBO()(model, params, jnp.where(bad & (self.place == "batch"), jnp.nan, x), key, step)
        if self.place == "loss":
            loss = jnp.where(bad, jnp.inf, loss)
        if self.place == "gradient":  # that of a square root at 0
            zero = 0 * sum(jnp.sum(leaf) for leaf in jax.tree.leaves(params))
            loss = loss + jax.lax.cond(bad, lambda: jnp.sqrt(zero), lambda: 0.0 * zero)
        if self.place == "params":  # a mark for `_spoiled`
            loss = loss * jnp.where(bad, 1e8, 1.0)
        return loss, {**metrics, "loss": loss}


def _spoiled(inner: Any) -> Any:
    """An optimizer whose update is NaN where the gradient is marked, though sound."""
    import jax
    import jax.numpy as jnp
    import optax

    def update(gradient: Any, state: Any, params: Any = None) -> Any:
        updates, state = inner.update(gradient, state, params)
        return jax.tree.map(lambda u: jnp.where(optax.tree.norm(gradient) > 1e6, jnp.nan, u), updates), state

    return optax.GradientTransformation(inner.init, update)


def run_of(epochs: int, poison: dict[str, Any] | None = None) -> Any:
    """The run of all sections."""
    from aevae_jax import VAE, Adam, Data, Run
    from aevae_jax.architectures import MLP
    from aevae_jax.data import DynamicBinarization
    from aevae_jax.likelihoods import Bernoulli

    adam, data = Adam(1e-2, warmup=5, cosine=True), Data(preparation=DynamicBinarization())
    run = Run(data, VAE(2, MLP((16,)), Bernoulli()), optimizer=adam, batch_size=32, epochs=epochs, seed=1, ema=0.9)
    return replace(run, objective=Poisoned(**poison)) if poison else run


class Child:
    """A training that says, a line each, which phase it is in and what was saved, and has a fault in a phase."""

    def __init__(self, given: dict[str, Any]):
        self.given, self.phase, self.entered = given, "start", Counter[str]()
        self.fault = {"kind": "", "phase": "", "n": 0, **given.get("fault", {})}

    def say(self, text: str) -> None:
        """At once: it stays said, however the process ends."""
        os.write(1, f"@{text}\n".encode())

    def mark(self, owner: Any, name: str, phase: str, first: str = "") -> None:
        """Let calls of a function be a phase; the fault of its n-th call comes before it."""
        original = getattr(owner, name)

        @functools.wraps(original)
        def marked(*args: Any, **options: Any) -> Any:
            outer, fault = self.phase, self.fault
            self.entered[phase] += 1
            self.phase = first if first and self.entered[phase] == 1 else phase
            self.say(f"phase {self.phase}")
            if (fault["phase"], fault["n"]) == (phase, self.entered[phase]) and fault["kind"] != "kill":
                if fault["kind"] == "raise":
                    raise SystemExit(3) if fault["exit"] else RuntimeError("a fault")
                resource.setrlimit(resource.RLIMIT_FSIZE, (fault["bytes"],) * 2)
                self.say("fault")
            result = original(*args, **options)
            if name == "save":
                self.say(f"saved {args[1]}")
            self.phase = outer
            self.say(f"phase {outer}")
            return result

        setattr(owner, name, marked)

    def kill_at(self, name: str) -> None:
        """Let a function of `os` be among those whose n-th call in the phase, or in any, ends the process."""
        original = getattr(os, name)

        def operation(*args: Any, **options: Any) -> Any:
            self.fault["n"] -= self.fault["phase"] in ("", self.phase)
            if self.fault["n"] == 0 and self.fault["phase"] in ("", self.phase):
                if self.fault["late"]:
                    original(*args, **options)
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **options)

        setattr(os, name, operation)

    def run(self) -> None:
        """The training, in the directory that is given."""
        given = self.given
        if given.get("cores"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: given["cores"]])
        if given.pop("weak", False):  # root may write anywhere; not so after this and a new start
            ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE
            os.execv(sys.executable, [sys.executable, __file__, "child", json.dumps(given)])
        from aevae_jax import fitting, optimizers
        from aevae_jax.checkpoints import Saving, Store
        from aevae_jax.data import streams

        def train(*args: Any, original: Any = fitting._train) -> Any:  # JAX is imported by now, and not earlier
            from aevae_jax.trainer import Trainer

            self.mark(Trainer, "advance", "train", first="first compilation")
            self.mark(Trainer, "finish_epoch", "evaluate")
            return original(*args)

        setattr(fitting, "_train", train)  # noqa: B010
        streams.WINDOW_BYTES = given.get("window", streams.WINDOW_BYTES)
        if given.get("poison", {}).get("place") == "params":
            build = optimizers.Adam.build
            setattr(optimizers.Adam, "build", lambda adam, steps: _spoiled(build(adam, steps)))  # noqa: B010
        for owner, name, phase in (
            (Store, "save", "save"), (Store, "retain", "clean up"), (Store, "discard", "clean up"),
            (Store, "clean", "clean up"), (fitting, "_finish", "finish"), (fitting, "fit", "prepare"),
            (self, "on_epoch", "epoch"),
        ):  # fmt: skip
            self.mark(owner, name, phase)
        if self.fault["kind"] == "kill":
            for name in ("fsync", "rename", "replace", "unlink", "remove", "rmdir", "mkdir"):
                self.kill_at(name)
        run, began = run_of(given["epochs"], given.get("poison")), time.monotonic()
        saving = Saving(**given.get("saving", OFTEN))
        try:
            fitting.fit(run, directory=given["directory"], stream=given.get("stream"), saving=saving,
                        on_epoch=self.on_epoch, on_note=console.note)  # fmt: skip
        except InputError:
            self.say(f"refused {time.monotonic() - began}")
            raise

    def on_epoch(self, epoch: Any) -> None:
        """Nothing but a phase."""


# --------------------------------------------------------------------------------------------------- those who watch it


class Process:
    """A `Child` that has been started, and what it has said, with the time."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]):
        self.began, self.ended, self.said = time.monotonic(), 0.0, list[tuple[float, str]]()
        self.popen = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout
        with self.popen.stdout as lines:
            for line in lines:
                with self._news:
                    self.said.append((time.monotonic(), line.strip()))
                    self._news.notify_all()
        self.popen.wait()
        with self._news:
            self.ended = time.monotonic()
            self._news.notify_all()

    def told(self, start: str, after: float = 0.0, before: float = float("inf")) -> list[str]:
        """What followed, in the lines that begin so."""
        return [line[len(start) :].strip() for at, line in self.said[:]
                if line.startswith(start) and after <= at <= before]  # fmt: skip

    def wait_for(self, start: str) -> bool:
        """Until a line begins so; False if the process ends first."""
        with self._news:
            self._news.wait_for(lambda: self.ended or self.told(start), HANGS)
        return bool(self.told(start))

    def end(self, *, kill: bool = False) -> int:
        """Wait for the exit code."""
        if kill:
            self.popen.kill()
        self._reader.join(HANGS)
        if self._reader.is_alive():
            self.popen.kill()
            raise TimeoutError(f"hangs: {self}")
        return int(self.popen.returncode)

    @property
    def saved(self) -> int:
        """The newest step that was acknowledged."""
        return max(map(int, self.told("@saved")), default=-1)

    @property
    def phase(self) -> str:
        """Where it is, or was when it ended."""
        return (self.told("@phase") or ["start"])[-1]

    @property
    def lines(self) -> list[str]:
        """What a user sees, apart from notes."""
        return [line for _, line in self.said[:] if not line.startswith(("@", "note:"))]

    def __str__(self) -> str:
        lines, code = self.lines, self.popen.returncode
        shown = lines if len(lines) < 5 else [*lines[:2], f"... {len(lines) - 4} more lines ...", *lines[-2:]]
        return f"exit code {code}, phase {self.phase!r}, saved {self.saved}: {' | '.join(shown)}"


class Bench:
    """Starts processes and looks at what they leave."""

    def __init__(self, work: Path, short: bool, seed: int, python12: str):
        self.work, self.short, self.seed, self.python12 = work.absolute(), short, seed, python12
        self.epochs, self.outcomes = 2 if short else 8, Counter[str]()
        self._one = threading.RLock()  # one thread at a time uses JAX here

    def many(self, few: int, all: int) -> int:
        """How many trials."""
        return few if self.short else all

    def dice(self, *of: Any) -> random.Random:
        """Chance that is the same each time."""
        return random.Random(f"{self.seed} {of}")

    def start(self, folder: Path, *, cache: bool = True, python: str = sys.executable, **given: Any) -> Process:
        """The command of all sections; without the cache it compiles everything."""
        settings = {"directory": str(folder), "epochs": self.epochs, **given}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
        if cache:
            environment |= {
                "JAX_COMPILATION_CACHE_DIR": str(self.work / "cache"),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            }
        folder.parent.mkdir(parents=True, exist_ok=True)
        return Process([python, __file__, "child", json.dumps(settings)], environment)

    def whole(self) -> Path:
        """The run that nobody disturbs, with a checkpoint at every step."""
        folder = self.work / "whole"
        with self._one:
            if not (folder / "results.json").exists():
                process = self.start(folder, saving={**ALL, "steps": 1})
                if process.end():
                    raise RuntimeError(f"the undisturbed run failed: {process}")
        return folder

    def compare(self, folder: Path) -> str:
        """What of the outcome of a finished run is not that of the undisturbed run."""
        mine, other = outcome(folder), outcome(self.whole())
        return ", ".join(f"another {name} in {folder.name}" for name in mine if mine[name] != other[name])

    def finish(self, folder: Path, section: str, after: int = -1, **options: Any) -> str:
        """Let the same command finish, from step `after` on, and delete the run; what was wrong."""
        process = self.start(folder, **options)
        wrong = f"the next start failed in {folder.name}: {process}" if process.end() else self.compare(folder)
        if min(map(int, process.told("@saved")), default=after + 1) <= after:
            wrong = f"it did not go on at step {after} in {folder.name}"
        self.outcomes[section] += 1
        shutil.rmtree(folder)
        return wrong

    @functools.cached_property
    def _trainer(self) -> Any:
        from aevae_jax.plans import plan_of
        from aevae_jax.trainer import Trainer

        return Trainer(plan_of(run_of(self.epochs)))

    def restore(self, store: Any, until: int | None = None) -> tuple[int, dict[str, Any], list[str]]:
        """Step and arrays of the newest checkpoint, -1 if there is none, and what was said of damaged ones."""
        import jax
        import numpy as np

        from aevae_jax import keeping

        notes: list[str] = []
        with self._one:
            found = keeping.restore(store, self._trainer, until=until, note=notes.append)
            if found is None:
                return -1, {}, notes
            kept = {"state": found.state._asdict(), "best": found.best, "logged": (found.metrics, found.losses)}
            leaves = jax.tree_util.tree_flatten_with_path(kept)[0]
            return found.progress.step, {jax.tree_util.keystr(path): np.asarray(a) for path, a in leaves}, notes

    def newest(self, folder: Path) -> int:
        """The step from which the next start would go on: found in a copy, as that start also tidies up."""
        from aevae_jax.checkpoints import Store

        copy = self.work / "copies" / f"{threading.get_ident()}"
        shutil.rmtree(copy, ignore_errors=True)
        if (folder / records.CHECKPOINTS).exists():
            shutil.copytree(folder / records.CHECKPOINTS, copy)
        store = Store(copy)
        store.clean()
        return self.restore(store)[0]

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
    """All that a finished run leaves, but the seconds that it took."""
    results = records.read_json(folder / "results.json")
    results.pop("seconds")
    results.pop("sha256", None)  # over the seconds as well
    files = {name: (folder / name).read_bytes() for name in ("weights.safetensors", "losses.npy", "metrics.jsonl")}
    return {**files, "results.json": json.dumps(results, sort_keys=True).encode()}


# ------------------------------------------------------------------------------------------------------------- sections


def kills(bench: Bench) -> list[Row]:
    """Half at any time of a process's life, half at an operation on files."""
    lost, phases, starts, each = list[str](), Counter[str](), Counter[str](), bench.many(2, 10)
    bench.whole()  # fills the cache
    life = {True: 6.0, False: 12.0}  # seconds
    for cache in () if bench.short else life:
        process = bench.start(bench.work / "kills" / f"life-{cache}", cache=cache)
        process.end()
        life[cache] = process.ended - process.began

    def series(number: int) -> str:
        folder, saved, cache = bench.work / "kills" / str(number), -1, bench.short or number % 5 > 1
        dice, wrong, done = bench.dice("kills", number), list[str](), 0
        while done < each:
            fault: dict[str, Any] = {}
            if done % 2:
                phase, most = dice.choice([("", 1500), ("", 1500), ("save", 300), ("clean up", 60), ("finish", 12)])
                fault = {"kind": "kill", "phase": phase, "n": round(most ** dice.random()), "late": dice.random() < 0.5}
            process = bench.start(folder, cache=cache, fault=fault)
            if not fault:
                time.sleep(dice.uniform(0, life[cache]))
            code = process.end(kill=not fault)
            starts[str(cache)] += 1
            if code == -signal.SIGKILL:
                done, saved = done + 1, max(saved, process.saved)
                phases[process.phase] += 1
                if (newest := bench.newest(folder)) < saved:
                    lost.append(f"{saved} was acknowledged in {folder.name}, the newest is {newest}; {process}")
            elif code:
                wrong.append(f"a start failed in {folder.name}: {process}")
                shutil.rmtree(folder)
                done, saved = done + 1, -1
            else:  # it ended before it could be killed
                wrong.append(bench.finish(folder, "kills"))
                saved = -1
        return "; ".join(filter(None, [*wrong, bench.finish(folder, "kills")]))

    failures = bench.each("kills", series, range(bench.many(2, 200) // each))
    during = "during " + ", ".join(f"{phase} {n}" for phase, n in phases.most_common())
    figure = f"{bench.outcomes['kills']} finished, after {starts.total()} starts, {starts['False']} without a cache"
    return [
        Row("SIGKILL", phases.total(), "every acknowledged checkpoint, or a newer one, restores", lost, during),
        Row("... and then", bench.outcomes["kills"], AGAIN, failures, figure),
    ]


def signals(bench: Bench) -> list[Row]:
    """At any moment of preparation, training, evaluation and saving."""
    import numpy as np

    names = ["SIGTERM"] * bench.many(1, 50) + ["SIGINT"] * bench.many(0, 50) + ["SIGUSR1"] * bench.many(0, 10)
    bench.dice("signals").shuffle(names)
    failed, took, before = defaultdict[str, list[str]](list), defaultdict[str, list[float]](list), list[float]()
    late, per, rows = Counter[str](), bench.many(1, 11), list[Row]()

    def series(number: int) -> str:
        folder, dice, wrong = bench.work / "signals" / str(number), bench.dice("signals", number), list[str]()
        left = names[number * per : number * per + per]
        while left:
            process, early = bench.start(folder), not bench.short and dice.random() < 0.15
            process.wait_for("@phase prepare" if early else "@saved")
            time.sleep(dice.uniform(0, 3) if early else dice.uniform(0, 0.8))
            sent = time.monotonic()
            process.popen.send_signal(getattr(signal, left[0]))
            code = process.end()
            if (folder / "results.json").exists():  # it was finished before, or nearly so
                late[left[0]] += 1
                wrong.append(bench.finish(folder, "signals"))
                continue
            (took[left[0]] if process.told("@saved", before=sent) else before).append(process.ended - sent)
            told = f"stopped by {left[0]}, saved at step {bench.newest(folder)}: "
            if code != EXIT_CODE or len(process.lines) != 1 or not process.lines[0].startswith(told):
                failed[left[0]].append(f"not {told!r} in {folder.name}: {process}")
            left = left[1:]
        return "; ".join(filter(None, [*wrong, bench.finish(folder, "signals")]))

    failures = bench.each("signals", series, range(len(names) // per))
    must = f"exit code {EXIT_CODE}, one line, saved at the step that it names"
    for name in sorted(set(names)):
        parts = np.percentile(took[name] or [np.nan], [50, 95, 100])
        figure = "exit after {:.2f} s (median), {:.2f} s (95 %), {:.2f} s (most)".format(*parts)
        figure += f"; {late[name]} more came after the last step"
        rows.append(Row(name, names.count(name), must, failed[name], figure))
    figure = f"{len(before)} signals came before a first checkpoint: exit after at most {max(before, default=0):.1f} s"
    rows.append(Row("... and then", bench.outcomes["signals"], AGAIN, failures, figure))
    return rows


def exits(bench: Bench) -> list[Row]:
    """By itself, and from within `on_epoch` or the training."""
    cases = {
        "return": ("", 0), "exception in on_epoch": ("epoch", 1), "sys.exit in on_epoch": ("epoch", 3),
        "exception in training": ("train", 1),
    }  # fmt: skip

    def trial(item: tuple[str, int]) -> str:
        (phase, code), dice = cases[item[0]], bench.dice("exits", *item)
        folder = bench.work / "exits" / f"{item}"
        n = dice.randint(1, bench.epochs) if phase == "epoch" else dice.randint(3, 8)
        fault = {"kind": "raise", "phase": phase, "n": n, "exit": code == 3}
        process = bench.start(folder, saving=OFTEN if phase == "train" else {"seconds": 1e6}, fault=fault)
        process.end()
        asked = {"": bench.epochs, "epoch": n}.get(phase, 0) * PER_EPOCH or process.saved
        newest, code_too = bench.newest(folder), process.popen.returncode
        return "" if (newest, code_too) == (asked, code) and asked > 0 else f"{asked} asked, newest {newest}; {process}"

    rows, trials = [], bench.many(1, 10)
    for title, (phase, code) in list(cases.items())[bench.many(1, 0) : bench.many(2, 4)]:
        failures = bench.each("exits", trial, [(title, number) for number in range(trials)])
        asked = "that was acknowledged last" if phase == "train" else "of the last epoch, never due before,"
        rows.append(Row(title, trials, f"exit code {code}; the checkpoint {asked} is there", failures))
    return rows


def damage(bench: Bench) -> list[Row]:
    """Of every file of a checkpoint, and of the weights of a finished run; here files suffer, and not processes."""
    import numpy as np

    from aevae_jax.checkpoints import DamageError, Store
    from aevae_jax.fitting import load_run

    whole, folder, dice = bench.whole(), bench.work / "damage", bench.dice("damage")
    new, old, rows = bench.epochs * PER_EPOCH, bench.epochs * PER_EPOCH - 1, list[Row]()
    files: dict[int, list[Path]] = {}
    for step in (old, new):
        shutil.copytree(whole / records.CHECKPOINTS / str(step), folder / str(step))
        files[step] = sorted(path for path in (folder / str(step)).rglob("*") if path.is_file())
    store = Store(folder)
    _, intact, _ = bench.restore(store, until=old)

    def restored(paths: list[Path]) -> str:
        try:
            step, arrays, notes = bench.restore(store)
        except DamageError as error:
            return "" if len(paths) == 2 else f"{error}"
        same = all(np.array_equal(a, arrays[name], equal_nan=True) for name, a in intact.items())
        named = len(notes) == 1 and notes[0].startswith(f"checkpoint of step {new} ")
        return "" if step == old and same and named and len(paths) == 1 else f"silently restored {step}: {notes}"

    def loaded(paths: list[Path]) -> str:
        try:
            load_run(paths[0].parent)
        except InputError:
            return ""
        return "silently loaded"

    shutil.copytree(whole, folder / "finished", ignore=shutil.ignore_patterns(records.CHECKPOINTS))
    weights = [folder / "finished" / "weights.safetensors"]
    for kind, (targets, look) in [(k, t) for t in ((files[new], restored), (weights, loaded)) for k in DAMAGE]:
        failures, both = list[str](), 0
        for path in targets * (times := bench.many(1, 50)):
            paths = [path, dice.choice(files[old])] if look is restored and dice.random() < 0.2 else [path]
            both += len(paths) == 2
            contents = [file.read_bytes() for file in paths]
            for file in paths:
                DAMAGE[kind](file, dice)
            try:
                wrong = look(paths)
            except Exception as error:
                wrong = f"{type(error).__name__}: {error}"
            if wrong:
                failures.append(f"{[str(file.relative_to(folder)) for file in paths]}: {wrong}")
            for file, content in zip(paths, contents, strict=True):
                file.write_bytes(content)
        must, title = "load_run refuses", f"weights of a finished run {kind}"
        if look is restored:
            must, title = "the older one restores, the damage is named; DamageError if both are", f"checkpoint {kind}"
        figure = f"{len(targets)} file(s), {times} times each" + (f", {both} times both damaged" if both else "")
        rows.append(Row(title, len(targets) * times, must, failures, figure))
    return rows


def _flip(path: Path, dice: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path, random.Random], None]] = {
    "with a bit flipped": _flip,
    "truncated": lambda path, dice: os.truncate(path, dice.randrange(path.stat().st_size)),
    "deleted": lambda path, dice: path.unlink(),
}


def disk(bench: Bench) -> list[Row]:
    """No room, no permission, no directory."""

    def wrong(process: Process, folder: Path, late: int) -> str:
        if process.end() != 2 or len(process.lines) != 1 or late > 0:
            return f"{late} saved after the fault; {process}"
        newest = bench.newest(folder) if folder.exists() else process.saved
        return "" if newest >= process.saved else f"newest {newest}; {process}"

    def limited(item: tuple[str, int]) -> str:
        dice, folder = bench.dice("limit", *item), bench.work / "disk" / f"limit-{item}"
        n, size = {"prepare": (1, 3000), "save": (12, 5000), "evaluate": (2, 300), "finish": (1, 9000)}[item[0]]
        fault = {"kind": "limit", "phase": item[0], "n": dice.randint(1, n), "bytes": dice.randrange(size)}
        process = bench.start(folder, cache=False, fault=fault)  # which it would leave with half a program in it
        process.end()
        late = "".join(line for _, line in process.said).partition("@fault")[2].count("@saved")
        return wrong(process, folder, late) or bench.finish(folder, "disk")

    def mounted(number: int) -> str:
        folder, size = bench.work / "disk" / f"tmpfs-{number}", bench.dice("tmpfs", number).randint(300, 1500)
        _mount(folder, f"size={size}k")
        try:
            process = bench.start(folder / "run", saving={**OFTEN, **ALL})
            failure = wrong(process, folder / "run", 0)
            _mount(folder, "remount,size=100m")
            return failure or bench.finish(folder / "run", "disk")
        finally:
            subprocess.run(["umount", str(folder)], check=True)

    def closed(number: int) -> str:
        folder = bench.work / "disk" / f"closed-{number}"
        process = bench.start(folder, weak=True)
        process.wait_for("@saved")
        time.sleep(bench.dice("closed", number).uniform(0, 0.5))
        _permit(folder, 0o555)
        since = time.monotonic()
        process.end()
        failure = wrong(process, folder, len(process.told("@saved", since)) - 1)  # one may have been on its way
        failure = failure or wrong(bench.start(folder, weak=True), folder, 0)
        _permit(folder, 0o755)
        return failure or bench.finish(folder, "disk")

    def removed(number: int) -> str:
        folder = bench.work / "disk" / f"removed-{number}"
        process = bench.start(folder)
        process.wait_for("@saved")
        time.sleep(bench.dice("removed", number).uniform(0, 0.5))
        if number % 2:
            folder.rename(folder.with_name(f"{folder.name}.elsewhere"))
        while folder.exists():
            shutil.rmtree(folder, ignore_errors=True)
        since = time.monotonic()
        process.end()
        failure = wrong(process, folder, len(process.told("@saved", since)) - 1)
        return failure or (f"made again; {process}" if folder.exists() else "")

    must, rows = "exit code 2, one line, within one save; what was saved restores", list[Row]()
    on = f"{must}; with room again, the same outcome"
    for phase in ("prepare", "save", "evaluate", "finish")[bench.many(3, 0) :]:
        items = [(phase, number) for number in range(bench.many(1, 6))]
        rows.append(Row(f"no room for files, from {phase!r} on", len(items), on, bench.each("limit", limited, items)))
    reason, trials = _mountable(bench.work / "probe"), bench.many(1, 6)
    failures = [] if reason else bench.each("tmpfs", mounted, range(trials))
    rows.append(Row("small tmpfs, full", trials, on, failures, skipped=reason))
    if not bench.short:
        failures = bench.each("read-only", closed, range(trials))
        rows.append(Row("directory made read-only", trials, f"{on}; until then refused", failures))
    failures = bench.each("removed", removed, range(trials))
    must = "exit code 2, one line, within one save; it is not made again"
    return [*rows, Row("directory removed, or renamed", trials, must, failures)]


def _permit(folder: Path, mode: int) -> None:
    for path in (folder, folder / records.CHECKPOINTS):
        path.chmod(mode)


def _mount(folder: Path, options: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True, capture_output=True)


def _mountable(folder: Path) -> str:
    """Why no tmpfs can be mounted here; nothing if it can."""
    try:
        _mount(folder, "size=100k")
    except (OSError, subprocess.CalledProcessError) as error:
        return f"cannot be mounted here: {error}"
    subprocess.run(["umount", str(folder)], check=True)
    return ""


def lock(bench: Bench) -> list[Row]:
    """A second process, which is refused; then the first is killed, and the next start takes over."""
    second, inside, outside, slow = list[str](), list[float](), list[float](), {**ALL, "steps": 1}

    def trial(number: int) -> str:
        folder = bench.work / "lock" / str(number)
        holder = bench.start(folder, saving=slow)
        holder.wait_for("@saved")
        other = bench.start(folder, saving=slow)
        code = other.end()
        inside.append(float((other.told("@refused") or ["inf"])[0]))
        outside.append(other.ended - other.began)
        named = f"in use by process {holder.popen.pid} " in "".join(other.lines)
        if code != 2 or len(other.lines) != 1 or not named or inside[-1] >= 1:
            second.append(f"after {inside[-1]:.2f} s: {other}")
        holder.end(kill=True)
        heir = bench.start(folder, saving=slow)
        took_over = heir.wait_for("@saved")
        heir.end(kill=True)
        return "" if took_over and heir.saved > holder.saved else str(heir)

    trials = bench.many(1, 20)
    third = bench.each("lock", trial, range(trials))
    figure = f"at most {max(inside):.2f} s after the call, {max(outside):.2f} s from exec to exit"
    return [
        Row("second process in a directory", trials, "exit code 2, one line, within 1 s of the call", second, figure),
        Row("... and the first killed", trials, "the next start takes over", third),
    ]


def nan(bench: Bench) -> list[Row]:
    """In the batch, the loss, the gradient or the parameters, for some steps or for ever."""
    import numpy as np

    from aevae_jax.checkpoints import Store

    epochs, rows = bench.many(2, 4), list[Row]()
    cases = {
        "1 to 4 steps": (1, 4, "they are skipped and counted, and nothing else"),
        "more in a row": (5, 19, "it goes back and round them, once for every 5 (params: up to 3 times), and finishes"),
        "ever": (10**6, 10**6, "exit code 2, one line that names the step, after 3 detours"),
    }

    def trial(item: tuple[str, int]) -> str:
        (low, high, _), dice, folder = cases[item[0]], bench.dice("nan", *item), bench.work / "nan" / f"{item}"
        places = ["batch", "loss", "gradient", "params"][: 3 if high < 5 else 4]  # spoiled params spoil what follows
        place, first = places[item[1] % len(places)], dice.randint(1, PER_EPOCH * epochs - 45)
        steps = dice.randint(low, 6 if place == "params" and high < 20 else high)
        process = bench.start(folder, epochs=epochs, saving={**OFTEN, **ALL},
                              poison={"first": first, "after": first + steps, "place": place})  # fmt: skip
        code, back = process.end(), sum("went back" in line for line in process.told("note:"))
        if high > 19:
            step = int("".join(process.told("error: step")).partition(" ")[0] or -1)
            named = step > first if place == "params" else step == first + 15
            sound = code == 2 and len(process.lines) == 1 and named and back == 3
        else:
            log = records.read_json(folder / "metrics.jsonl", lines=True)
            skipped = sum(entry["skipped"] for entry in log)
            sound = code == 0 and (1 <= back <= 3 if place == "params" else back == steps // 5)
            sound &= skipped == steps if high < 5 else skipped >= steps
        store = Store(folder / records.CHECKPOINTS)
        for step in store.steps():
            found, arrays, notes = bench.restore(store, step)
            numbers = [a for name, a in arrays.items() if a.dtype.kind == "f" and "logged" not in name]
            bench.outcomes["checkpoints"] += 1
            if found != step or notes or not all(np.isfinite(a).all() for a in numbers):
                return f"checkpoint of step {step}: {notes or 'not finite'}"
        shutil.rmtree(folder)
        return "" if sound else f"{place}, from step {first} for {steps}: went back {back} times; {process}"

    for number, (title, (*_, must)) in enumerate(cases.items()):
        if bench.short and number < 2:  # the last skips steps and makes detours, too
            continue
        items = [(title, trial) for trial in range(bench.many(1, 17 - (number == 2)))]
        failures, read = bench.each("NaN for", trial, items), bench.outcomes.pop("checkpoints", 0)
        figure = f"{read} checkpoints were read, and all must be free of NaN"
        rows.append(Row(f"NaN for {title}", len(items), must, failures, figure))
    return rows


def resume(bench: Bench) -> list[Row]:
    """A copy of the undisturbed run, as it was when a step had just been saved, goes on."""

    def trial(item: tuple[bool, int]) -> str:
        stream, step = item
        later = [str(s) for s in range(step + 1, bench.epochs * PER_EPOCH + 1)]
        ignored = shutil.ignore_patterns("weights.*", "losses.*", "results.*", "*.png", *later)
        folder = Path(shutil.copytree(bench.whole(), bench.work / "resume" / f"{stream}-{step}", ignore=ignored))
        return bench.finish(folder, "resume", step, stream=stream, window=32 * 64 * 10)

    rows, trials = [], bench.many(1, 15)
    for stream in (False, True)[bench.many(1, 0) :]:
        steps = bench.dice("resume", stream).sample(range(1, bench.epochs * PER_EPOCH), trials)
        failures = bench.each("resume", trial, [(stream, step) for step in steps])
        title = f"going on at any step, data {'streamed' if stream else 'on the device'}"
        rows.append(Row(title, trials, "the outcome is the same", failures))
    return rows


def machines(bench: Bench) -> list[Row]:
    """Fresh processes; fewer cores; another Python."""
    import numpy as np

    trials, whole, folder = bench.many(0, 3), bench.whole(), bench.work / "machines"
    failures = bench.each("machines", lambda n: bench.finish(folder / f"{n}", "machines", cache=n > 0), range(trials))
    figure = "the first compiled everything anew"
    rows = [Row("another process", trials, "the outcome is the same", failures, figure)] if trials else []
    others: list[tuple[str, str, dict[str, Any]]] = [
        ("1 core in place of 2", "" if len(os.sched_getaffinity(0)) > 1 else "there is only 1", {"cores": 1}),
        ("Python 3.12", "" if bench.python12 else "give --python12 an interpreter", {"python": bench.python12}),
    ]
    must = "the losses of 20 steps within 1e-5, the test bound within 1 %, relative"
    for name, reason, options in others:
        if reason:
            rows.append(Row(name, 0, must, skipped=reason))
            continue
        process = bench.start(folder / name, cache=False, **options)
        if process.end():
            rows.append(Row(name, 1, must, [str(process)]))
            continue
        one, two = (np.load(path / "losses.npy").astype(np.float64) for path in (whole, folder / name))
        off = np.abs(one - two) / np.abs(one)
        bounds = [records.read_json(path / "results.json")["test"]["negative_elbo"] for path in (whole, folder / name)]
        bound = abs(bounds[0] - bounds[1]) / abs(bounds[0])
        figure = f"losses differ by up to {off[:20].max():.1e} in 20 steps, {off[:100].max():.1e} in 100, "
        figure += f"{off.max():.1e} in all {len(off)}; the bound by {bound:.1e}" + ("" if off.any() else "; equal bits")
        rows.append(Row(name, 1, must, [figure] if off[:20].max() > 1e-5 or bound > 0.01 else [], figure))
    return rows


SECTIONS: dict[str, Callable[[Bench], list[Row]]] = {
    "kills": kills, "nan": nan, "signals": signals, "exits": exits, "damage": damage, "disk": disk, "lock": lock,
    "resume": resume, "machines": machines,
}  # fmt: skip

if __name__ == "__main__":
    with console.one_line_errors():
        if sys.argv[1:2] == ["child"]:
            Child(json.loads(sys.argv[2])).run()
        else:
            console.parse_arguments(faults, sys.argv[1:], prog="faults.py")()
