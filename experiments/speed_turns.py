"""Programs that take turns: what is timed, how, and what becomes of one that fails."""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from speed_cases import Case

HERE = Path(__file__).parent
PATIENCE = 150.0
"""Seconds that PyTorch may take to answer, compilation included."""


class Clock:
    """The time that is left of a budget.

    Args:
      budget: seconds, 0 for no limit.
    """

    def __init__(self, budget: float = 0.0):
        self.ends = self.end_of_all = time.monotonic() + budget if budget else math.inf

    def left(self) -> float:
        """Return the seconds that are left, at least 0."""
        return max(0.0, self.ends - time.monotonic())

    def over(self) -> bool:
        """Return whether the whole budget is used up."""
        return time.monotonic() >= self.end_of_all

    def part(self, share: float) -> Clock:
        """Return the clock of a part that may take `share` of what is left."""
        clock = Clock()
        clock.ends, clock.end_of_all = time.monotonic() + share * self.left(), self.end_of_all
        return clock


class Unavailable(Exception):
    """What a row says in place of figures."""


class Program(NamedTuple):
    """One row of a workload."""

    name: str
    make: Callable[[], Callable[[], tuple[float, float | None]]]
    """Returns what takes one turn: it gives the seconds, and a number to compare with those of the other programs."""
    precision: str = "float32"
    """The precision of products: "default" where an accelerator rounds them to fewer bits."""
    base: bool = False
    """Whether ratios of other rows are over its time: of those of its group, and its precision where it is not the only
    base."""
    group: str = ""
    images: int | None = None
    """How many images a turn takes, for images per second."""


def timed(make: Callable[[], Callable[[], float]]) -> Callable[[], Callable[[], tuple[float, float | None]]]:
    """Return the `make` of a program of this process, which waits for its results itself."""

    def made() -> Callable[[], tuple[float, float | None]]:
        function = make()

        def turn() -> tuple[float, float | None]:
            began = time.perf_counter()
            value = function()
            return time.perf_counter() - began, value

        return turn

    return made


def take_turns(programs: Sequence[Program], turns: int, clock: Clock, *, threads: int = 1) -> list[dict[str, Any]]:
    """Return a row for each program: seconds of all turns, and the ratios to the base within the same turn.

    Every program is called twice before, which compiles it; what the first call took more than a usual one is recorded
    as `compilation`. Each turn begins with another program. A program that fails, or that there is no time for, becomes
    a row with the reason.

    Args:
      programs: the rows.
      turns: how often each is timed.
      clock: no program is compiled once its time is over, and no second turn begun once the whole budget is used up.
      threads: how many programs are compiled at once, in which case `compilation` is longer than it would be alone.
        Those that count are always timed one after the other.
    """
    rows: list[dict[str, Any]] = [{"program": program.name, "precision": program.precision} for program in programs]
    running: dict[int, Callable[[], tuple[float, float | None]]] = {}
    first, times, values = {}, {i: list[float]() for i in range(len(programs))}, dict[int, float | None]()

    def warm_up(i: int) -> None:
        try:
            if not clock.left():
                raise Unavailable("no time left in the budget")
            turn = programs[i].make()
            began = time.perf_counter()
            turn()
            first[i] = time.perf_counter() - began
            turn()
            running[i] = turn
        except Exception as error:  # one failing row must not lose the rest
            rows[i]["reason"] = reason(error)

    if threads == 1:  # in this thread, which sees settings made by a `with`
        for i in range(len(programs)):
            warm_up(i)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(warm_up, range(len(programs))))
    running = dict(sorted(running.items()))
    for turn in range(turns):
        if turn and clock.over():
            break
        for place in range(len(programs)):
            i = (place + turn) % len(programs)
            if i in running:
                try:
                    seconds, values[i] = running[i]()
                    times[i].append(seconds)
                except Exception as error:
                    del running[i]
                    rows[i]["reason"] = reason(error)
    for i in running:
        program = programs[i]
        base = [j for j in running if programs[j].base and programs[j].group == program.group]
        same = [j for j in base if programs[j].precision == program.precision] or base
        value, median = values[i], statistics.median(times[i])
        rows[i] |= {
            "times": times[i],
            "seconds": spread(times[i]),
            "compilation": max(0.0, first[i] - median),
            "value": value if value is not None and math.isfinite(value) else None,
            "ratio": spread([a / b for a, b in zip(times[i], times[same[0]], strict=True)]) if same else None,
            "images_per_second": program.images / median if program.images else None,
        }
    return rows


def spread(values: Sequence[float]) -> list[float]:
    """Return the median, the least and the largest."""
    return [statistics.median(values), min(values), max(values)]


def reason(error: BaseException) -> str:
    """Return an error as one line."""
    if isinstance(error, subprocess.TimeoutExpired):
        return f"no end within {error.timeout:.0f} s"
    text = str(error).strip().replace("|", "/").splitlines()
    if isinstance(error, Unavailable) and text:
        return text[0]
    return f"{type(error).__name__}{': ' if text else ''}{text[0][:300] if text else ''}"


class Torch:
    """PyTorch in its process: it is idle, and holds its own memory, while others take their turns.

    Its threads sleep where they wait for each other (`OMP_WAIT_POLICY`, unless that is set): on a machine with other
    work they would otherwise spin for most of the time, on a quiet one it hardly matters.

    Args:
      python: an interpreter with PyTorch.
      log: a file for what it prints.
      backend: of JAX: PyTorch uses a GPU where JAX does.
    """

    def __init__(self, python: str, log: Path, backend: str):
        self.missing, self.about = "", dict[str, Any]()
        self._python, self._log, self._backend = python, log, backend
        self._process: subprocess.Popen[str] | None = None
        self._count, self._lock = 0, threading.Lock()
        try:
            self.about = self.ask(do="hello")
        except Exception as error:
            self.missing = reason(error)
            self.close()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Return the answer to a request; start the process where there is none.

        Raises:
          Unavailable: it failed, ended or took too long.
        """
        if self.missing:
            raise Unavailable(self.missing)
        with self._lock:
            line = self.exchange(json.dumps(request))
        found: dict[str, Any] = json.loads(line)
        if "reason" in found:
            raise Unavailable(found["reason"])
        return found

    def exchange(self, request: str) -> str:
        """Return the line that answers a line. Raises `Unavailable`."""
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(request + "\n")
            process.stdin.flush()
            ready, _, _ = select.select([process.stdout], [], [], PATIENCE)
            line = process.stdout.readline() if ready else None
        except OSError:
            line = ""
        if not line:
            self.close()
            raise Unavailable(
                f"PyTorch ended, see {self._log}" if line is not None else f"no answer within {PATIENCE:.0f} s"
            )
        return line

    def program(self, name: str, maker: str, case: Case, *arguments: Any, tf32: bool = False) -> Program:
        """Return a program of `speed_torch.py`."""
        self._count += 1
        number = self._count

        def make() -> Callable[[], tuple[float, float | None]]:
            self.ask(do="make", id=number, maker=maker, case=case.record(), arguments=arguments, tf32=tf32)

            def turn() -> tuple[float, float | None]:
                found = self.ask(do="turn", id=number)
                return found["seconds"], found["value"]

            return turn

        return Program(name, make, "default" if tf32 else "float32")

    def forget(self) -> None:
        """Let go of all programs, so that a workload leaves no memory to the next; never fails."""
        if self._process is not None:
            with contextlib.suppress(Unavailable):
                self.ask(do="forget")

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()  # closes its pipes, too
            self._process = None

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            with self._log.open("a") as log:
                self._process = subprocess.Popen(
                    [self._python, str(HERE / "speed_torch.py")],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "SPEED_BACKEND": self._backend},
                )
        return self._process
