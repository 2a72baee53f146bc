"""Compiled programs are kept from one start to the next, by JAX's compilation cache in the user's cache folder.

Nine tenths of a short command is XLA compiling what it compiled the last time. JAX knows an entry by its program,
versions and flags; a folder for each processor and number of cores sees to the rest. An entry is machine code, and so
the folder is one that nobody else may write to.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aevae_jax import caches, cores
from aevae_jax.cli.terminal import note
from aevae_jax.types import InputError

FOLDER = "programs"

LARGEST = 2**28
"""Bytes of all programs that are kept; a command leaves some 20 kB for each of a dozen or two that it compiles."""

_TROUBLE = re.compile(r"Error (reading|writing) persistent compilation cache entry for '(.+?)': (.*)", re.DOTALL)
"""The warning of JAX about an entry, without which it then goes on."""


@contextlib.contextmanager
def kept(wanted: bool = True) -> Iterator[None]:
    """Keep the programs that are compiled in this context, and take those that were kept; before JAX has compiled any.

    The environment has the last word: whoever sets `JAX_COMPILATION_CACHE_DIR` or `JAX_ENABLE_COMPILATION_CACHE`
    decides. Where it cannot be done, that is said once, and all goes on without.

    Args:
      wanted: if not, neither keep nor take any, nor anything else in the user's cache folder.
    """
    if not wanted:
        with settings(jax_enable_compilation_cache=False), _environment(AEVAE_NO_CACHE="1"):
            yield
        return
    base = caches.place(FOLDER)
    if base is None or {"JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"} & os.environ.keys():
        yield
        return
    machine = _machine()
    folder = base / hashlib.sha256(machine.encode()).hexdigest()[:16]
    try:
        caches.private(base)
        caches.private(folder)
    except InputError as error:
        note(f"compiled programs are not kept for the next start: {error}, or type --no-cache")
        yield
        return
    caches.trim(base, LARGEST)
    options: dict[str, Any] = {"jax_compilation_cache_dir": str(folder)}
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        options["jax_persistent_cache_min_compile_time_secs"] = 0
    if re.search(r"^bugs\b.*\bgds\b", machine, re.MULTILINE):
        # XLA prints a line of 2,000 characters for each program that it loads on these processors, as LLVM prefers no
        # gathers there and calls that a feature, which a processor has not (openxla/xla 44565). Errors are raised, too.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with settings(**options), _repaired(folder):
        yield


@contextlib.contextmanager
def settings(**options: Any) -> Iterator[None]:
    """Set options of JAX, without importing it: by its environment, until this context ends."""
    if "jax" in sys.modules:
        for name, value in options.items():
            sys.modules["jax"].config.update(name, value)
    with _environment(**{name.upper(): str(value) for name, value in options.items()}):
        yield


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Set environment variables until this context ends."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, text in before.items():
            if text is None:
                del os.environ[name]
            else:
                os.environ[name] = text


def _machine() -> str:
    """Return what a program was compiled for: XLA divides work among cores while it compiles."""
    lines = [f"{platform.machine()} {platform.processor()} {cores.available()}"]
    with contextlib.suppress(OSError):
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
        lines += [line for line in first if re.match("model name|flags|Features|bugs|CPU (implementer|part)", line)]
    return "\n".join(lines)


@contextlib.contextmanager
def _repaired(folder: Path) -> Iterator[None]:
    """Delete entries that JAX warns of, which it would never write anew; say so once."""
    said: set[str] = set()
    usual = warnings.showwarning

    def show(message: Any, *where: Any) -> None:
        found = _TROUBLE.match(str(message))
        if found is None:
            usual(message, *where)
            return
        doing, program, reason = found.groups()
        text = f"a compiled program in {folder} is damaged and is compiled again"
        try:
            if doing == "reading":
                for entry in os.scandir(folder):
                    if entry.name.startswith(f"{program}-"):
                        os.unlink(entry)
            elif folder.is_dir():
                text = f"compiled programs are not kept for the next start: {' '.join(reason.split())[:100]}"
            else:  # it was deleted, as anyone may at any moment
                folder.mkdir(mode=0o700, parents=True)
                return
        except OSError:
            pass  # another process was faster
        if doing not in said:
            said.add(doing)
            note(text)

    with warnings.catch_warnings():
        warnings.filterwarnings("always", _TROUBLE.pattern)
        warnings.showwarning = show  # type: ignore[assignment]  # whatever comes after the message is handed on
        yield
