"""Several processes that train as one, each with devices of its own, by JAX's distributed runtime.

All of them compute the same program; process 0 decides what depends on a clock or a disk, and tells the others through
the runtime's store of texts. JAX ends a process with a trace when it loses another one: see `cli.supervision`.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aevae_jax import limits
from aevae_jax.checkpoints.signals import EXIT_CODE, Interrupted
from aevae_jax.lazy import jax, modules, np
from aevae_jax.types import InputError

distributed = modules("jax._src", "distributed")
"""Where JAX keeps the store of texts: it has no public name for it, and Orbax takes it from there, too."""
multihost_utils = modules("jax.experimental", "multihost_utils")

TIMEOUT = "AEVAE_PROCESS_TIMEOUT"
"""The variable that says after how many seconds without a sign of life a process counts as lost; by default 60."""

WAIT_SECONDS = 600
"""How long processes wait for one another where one may have more to do: to start, to read data, to write."""


@dataclass(frozen=True)
class Place:
    """Which of the processes this one is."""

    index: int
    count: int
    coordinator: str = ""
    """`HOST:PORT`, of process 0; empty where JAX finds it in the environment."""


def place(text: str) -> Place | None:
    """Return which process this is; `None` if it is alone.

    Args:
      text: "" for one process; "cluster" for what Slurm or Open MPI say; or `HOST:PORT,INDEX,COUNT`.

    Raises:
      InputError: something else.
    """
    if not text:
        return None
    if text == "cluster":
        names = (("SLURM_PROCID", "SLURM_NTASKS"), ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"))
        known = next(((os.environ[i], os.environ[n]) for i, n in names if i in os.environ and n in os.environ), None)
        if known is None:
            return None
        index, count, coordinator = *known, ""
    elif match := re.fullmatch(r"([^\s,]+:\d{1,5}),(\d{1,7}),(\d{1,7})", text):
        coordinator, index, count = match.groups()
    else:
        raise InputError("--processes", got=repr(text), expected="cluster, or HOST:PORT,INDEX,COUNT")
    if not int(index) < int(count):
        raise InputError("--processes", got=f"process {index} of {count}", expected="an index below the count")
    return Place(int(index), int(count), coordinator) if int(count) > 1 else None


def join(where: Place) -> None:
    """Meet the other processes. To be called before JAX has computed anything.

    Raises:
      InputError: they do not come together in time.
    """
    seconds = timeout()
    jax.config.update("jax_enable_preemption_service", False)  # its handler would swallow SIGTERM
    given: dict[str, Any] = {"coordinator_address": where.coordinator, "cluster_detection_method": "deactivate"}
    try:
        jax.distributed.initialize(
            num_processes=where.count,
            process_id=where.index,
            initialization_timeout=WAIT_SECONDS,
            heartbeat_timeout_seconds=seconds,
            shutdown_timeout_seconds=seconds,
            **(given if where.coordinator else {}),
        )
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"process {where.index}",
            got=str(error).partition("\n")[0],
            expected=f"{where.count} processes that reach process 0 within {WAIT_SECONDS} s",
        ) from None


def timeout() -> int:
    """Return after how many seconds a process counts as lost."""
    text = os.environ.get(TIMEOUT, "60")
    if not text.isdecimal():
        raise InputError(TIMEOUT, got=repr(text), expected="a number of seconds")
    limits.check(TIMEOUT, int(text), 1, 86400)
    return int(text)


def count() -> int:
    """Return how many processes there are."""
    return jax.process_count() if _met() else 1


def index() -> int:
    """Return which of them this is."""
    return jax.process_index() if _met() else 0


def _met() -> bool:
    """Return whether this process has met others; without JAX it has not, and need not import it to know."""
    return "jax" in sys.modules and jax.distributed.is_initialized()


_NUMBERS = itertools.count()


def share(value: Any) -> Any:
    """Return what process 0 gives, a JSON value; all processes must call this in the same order.

    Raises:
      InputError: process 0 has ended with an error, or does not come within `WAIT_SECONDS`.
    """
    if count() == 1:
        return value
    number = next(_NUMBERS)
    if index() == 0:
        _client().key_value_set(f"aevae/{number}", json.dumps(value))
        if number >= 100:  # all have read it long ago: each of them has computed since
            _client().key_value_delete(f"aevae/{number - 100}")
        return json.loads(json.dumps(value))
    return json.loads(_awaited(f"aevae/{number}", "process 0"))


def gather(value: Any) -> list[Any]:
    """Return what each process gives, JSON values, on all of them; all must call this in the same order.

    Raises:
      InputError: a process has ended with an error, or does not come within `WAIT_SECONDS`.
    """
    if count() == 1:
        return [value]
    number = next(_NUMBERS)
    if index():
        _client().key_value_set(f"aevae/{number}/{index()}", json.dumps(value))
        return share(None)
    found = [value]
    for other in range(1, count()):
        found.append(json.loads(_awaited(f"aevae/{number}/{other}", f"process {other}")))
        _client().key_value_delete(f"aevae/{number}/{other}")  # nobody else reads it
    return share(found)


def check_equal(what: str, value: str) -> None:
    """Refuse to go on where another process has another text; every process says so.

    Raises:
      InputError: it has.
    """
    first, *others = gather(value)
    if found := [other for other, text in enumerate(others, 1) if text != first]:
        raise InputError(what, got=f"another one in process {', '.join(map(str, found))}", expected="that of process 0")


def signalled(name: str) -> str:
    """Return the signal that any process was sent, on process 0; the others tell it theirs."""
    if count() == 1:
        return name
    if index():
        if name:
            _client().key_value_set("aevae/signal", name, allow_overwrite=True)
        return ""
    return name or _known("aevae/signal")


def share_arrays(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arrays that process 0 gives, bit for bit; of those that others give, shapes and types count."""
    found = {}
    for name, array in arrays.items():
        given = np.asarray(array) if index() == 0 else np.zeros(array.shape, array.dtype)
        flat = np.ascontiguousarray(given).reshape(-1).view(np.uint8)  # sums of floats would lose the sign of zeros
        found[name] = np.asarray(multihost_utils.broadcast_one_to_all(flat)).view(given.dtype).reshape(given.shape)
    return found


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Let an error of one process end all of them, each with a line.

    They wait for one another when each has said it, since JAX ends a process at once when process 0 has gone.
    """
    try:
        yield
    except Exception as error:
        if count() == 1:
            raise
        known = isinstance(error, InputError)
        lost = isinstance(error, jax.errors.JaxRuntimeError) and re.search(
            "(?i)gloo|unavailable|connection", str(error)
        )
        with contextlib.suppress(Exception):
            text = f"process {index()}: {'' if known else type(error).__name__ + ': '}{error}"
            _client().key_value_set("aevae/error", text, allow_overwrite=True)
        atexit.register(_end, EXIT_CODE if lost else 2 if known else 1)
        if lost:
            raise Interrupted(LOST.format(index=index())) from None
        raise


def _end(code: int) -> None:
    """End this process, once the others are about to end, too: JAX would wait for them for longer."""
    with contextlib.suppress(Exception):
        _client().wait_at_barrier("aevae/error", 5000)  # process 0 takes the store with it
    os._exit(code)


LOST = (
    "process {index}: another process has ended or cannot be reached; the last checkpoint is intact: "
    "the same command, of all processes, resumes"
)


def _client() -> Any:
    return distributed.global_state.client


def _awaited(key: str, whose: str) -> str:
    """Return the text of a key, once it is there."""
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            return str(_client().blocking_key_value_get(key, 1000))
        if error := _known("aevae/error"):
            raise InputError("training", got=f"an error in {error}", expected="none in any process")
    raise InputError(whose, got="no answer", expected=f"one within {WAIT_SECONDS} s")


def _known(key: str) -> str:
    """Return the text of a key; empty where there is none."""
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        return str(_client().key_value_try_get(key))
    return ""
