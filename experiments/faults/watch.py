"""Calls that are watched: how long they take, how much memory, and what they raise."""

from __future__ import annotations

import contextlib
import resource
import signal
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from aevae_jax.types import InputError

SECONDS = 20
"""A trial that takes longer hangs."""

MEMORY = 2**30
"""Bytes that a trial may take beyond what the process had. No file here needs more than a few MiB."""

CEILING = 4 * 2**30
"""Bytes of address space beyond those that a worker begins with: what would take all of a machine fails at that."""


class Found(NamedTuple):
    """`read` with the value, or `refused`, or one of `BAD`."""

    kind: str
    detail: str = ""
    value: Any = None


class _TooLong(BaseException):
    pass


class RawError(Exception):
    """What a command printed is not one line, or would steer a terminal."""


def attempt(call: Callable[[], Any]) -> Found:
    """Call, and watch time, memory and what is raised."""
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    with _alarm():
        try:
            found = Found("read", value=call())
        except _TooLong as late:
            found = Found("hang", f"{SECONDS} s, in {_frame(late)}")
        except InputError as error:
            found = _line(str(error), error)
        except RawError as error:
            found = Found("raw", str(error))
        except Exception as error:
            found = Found("traceback", f"{type(error).__name__}: {str(error)[:300]} at {_frame(error)}")
            if _no_memory(error):
                found = Found("memory", found.detail)
    peak = _memory("VmHWM") - before
    return Found("memory", f"{peak / 2**20:.0f} MiB, {found.detail}") if peak > MEMORY else found


def _line(message: str, error: InputError) -> Found:
    if len(message.splitlines()) != 1 or not message.isprintable() or len(message) > 3000:
        return Found("raw", f"{len(message)} characters: {message[:300]!r}")
    if _no_memory(error):
        return Found("memory", f"MemoryError behind: {message[:300]}")
    return Found("refused", message)


def _no_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError) and "ast.py" not in str(traceback.extract_tb(error.__traceback__)[-1:]):
            return True  # Python's parser says so, too, of what is nested too deeply
        error = error.__cause__ or error.__context__
    return False


def _frame(error: BaseException) -> str:
    """Return the innermost line of ours."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "aevae_jax" in frame.filename] or frames
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno} ({ours[-1].name})"


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    def ring(*_: Any) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _memory(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {name}")


def limit_memory() -> None:
    """Let this process fail before the machine does."""
    size = _memory("VmSize") + CEILING
    resource.setrlimit(resource.RLIMIT_AS, (size, resource.getrlimit(resource.RLIMIT_AS)[1]))


def judged(code: int, out: str, error: str) -> str:
    """Return what a command printed, if it ended well."""
    if steering := [c for c in out + error if not c.isprintable() and c not in "\n\t"]:
        raise RawError(f"{steering[0]!r} in what it printed: {(error or out)[:300]!r}")
    said = [line for line in error.splitlines() if not line.startswith("note: ") and not line.endswith(" ...")]
    if "Traceback (most recent call last)" in error:
        raise AssertionError(f"traceback: {' | '.join(said[-3:])[:600]}")
    if code == 2:
        if len(said) != 1 or not said[0].startswith("error: "):
            raise RawError(f"{len(said)} lines: {' | '.join(said)[:300]}")
        raise InputError("command", got=said[0], expected="")
    if code:
        raise AssertionError(f"exit code {code}: {' | '.join(said)[:600]}")
    return out
