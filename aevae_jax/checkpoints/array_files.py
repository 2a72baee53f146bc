"""Named arrays in files, by Orbax, and files whose bytes are made sure of. What goes wrong is a `ValueError` or
`OSError` here; `store` says what that means. Orbax is imported where it is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import itertools
import json
import math
import os
import re
import shutil
import stat
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aevae_jax.lazy import jax, jnp, np

if TYPE_CHECKING:
    from jax import ShapeDtypeStruct

# ------------------------------------------------------------------------------------------------------------- arrays


def not_finite(arrays: Mapping[str, Any]) -> str | None:
    """Return the first array that holds NaN or infinity, leaving out those under `logged/`."""
    checked = {
        name: array
        for name, array in arrays.items()
        if jnp.issubdtype(array.dtype, jnp.inexact) and not name.startswith("logged/")
    }
    finite = np.asarray(_finite()(list(checked.values()))) if checked else ()
    return next((name for name, sound in zip(checked, finite, strict=True) if not sound), None)


@functools.cache
def _finite() -> Any:
    """Return a function from `N` arrays to `[N]` bools: however many arrays, the device is waited for once."""
    return jax.jit(lambda arrays: jnp.stack([jnp.isfinite(array).all() for array in arrays]))


def signatures(arrays: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the shape and dtype of each array, as JSON holds them."""
    return {name: [list(array.shape), array.dtype.name] for name, array in arrays.items()}


def raw(spec: Any) -> tuple[ShapeDtypeStruct, Any]:
    """Return what is stored of an array, and None; of typed keys, their numbers, and the name of their kind."""
    if not jax.numpy.issubdtype(spec.dtype, jax.dtypes.prng_key):
        return spec, None
    kinds: list[Any] = []
    jax.eval_shape(lambda key: kinds.append(jax.random.key_impl(key)), spec)  # a spec itself cannot be asked
    return jax.eval_shape(jax.random.key_data, spec), kinds[0]


def plain(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return arrays as they are stored: of typed keys, their numbers."""
    return {name: array if raw(array)[1] is None else jax.random.key_data(array) for name, array in arrays.items()}


@functools.cache
def _orbax() -> tuple[Any, Any]:
    """Return the module and a checkpointer. Without compression: weights hardly shrink, and it takes longer.

    Of several processes each reads and writes alone, and Orbax must not wait for the others.
    """
    import orbax.checkpoint as ocp

    this = jax.process_index()
    alone = {"primary_host": this, "active_processes": {this}, "barrier_sync_key_prefix": f"alone{this}"}
    options = ocp.options.MultiprocessingOptions(**(alone if jax.process_count() > 1 else {}))
    handler = ocp.PyTreeCheckpointHandler(use_compression=False, multiprocessing_options=options)
    return ocp, ocp.Checkpointer(handler, multiprocessing_options=options)


class _Loop(asyncio.SelectorEventLoop):
    """Takes no offence if it is told something after it was closed.

    Where a disk is full, one part of an array fails first, Orbax leaves, and TensorStore's threads report the others.
    """

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        with contextlib.suppress(RuntimeError):
            return super().call_soon_threadsafe(callback, *args, context=context)
        return asyncio.Handle(callback, args, self, context)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Drop the parts that failed after the first, whose error has been raised."""


_ONE_THREAD = threading.Lock()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep off the terminal what Orbax also raises, with a traceback for each of its threads."""
    from absl import logging

    with _ONE_THREAD:  # else the second would find, and leave behind, what the first has changed
        logger, new_event_loop = logging.get_absl_logger(), asyncio.new_event_loop
        before, logger.disabled, asyncio.new_event_loop = logger.disabled, True, _Loop
        try:
            yield
        finally:
            logger.disabled, asyncio.new_event_loop = before, new_event_loop


@_quiet()
def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write NumPy arrays, so that no file names a device; those without elements, which Orbax refuses, are left out."""
    host = {name: np.asarray(array) for name, array in jax.device_get(plain(arrays)).items() if array.size}
    if host:
        ocp, checkpointer = _orbax()
        checkpointer.save(path, args=ocp.args.PyTreeSave(host))
    else:
        path.mkdir()


@_quiet()
def read_arrays(path: Path, specs: Mapping[str, ShapeDtypeStruct], *, partial: bool = False) -> dict[str, Any]:
    """Read NumPy arrays: what goes wrong here is not for want of memory on a device. There are no others, but where a
    part of them is asked for.
    """
    arrays = {name: np.zeros(spec.shape, spec.dtype) for name, spec in specs.items() if not spec.size}
    stored = {name: spec for name, spec in specs.items() if spec.size}
    if stored:
        ocp, checkpointer = _orbax()
        told = getattr(
            checkpointer.metadata(path).item_metadata, "tree", {}
        )  # from the header of each array, which may say anything
        found = {
            name: [list(entry.shape), np.dtype(entry.dtype).name]
            for name, entry in told.items()
            if name in stored or not partial
        }
        if name := difference(found, signatures(stored)):
            raise ValueError(f"another shape or type of {name} in arrays than in manifest.json")
        if name := next((n for n in stored if math.prod(told[n].storage.chunk_shape) > stored[n].size), None):
            raise ValueError(f"parts of {name} that are larger than the whole")
        kinds = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in stored}
        wanted = ocp.args.PyTreeRestore(stored, restore_args=kinds, partial_restore=partial)
        arrays |= checkpointer.restore(path, args=wanted)
    if name := difference(signatures(arrays), signatures(specs)):
        raise ValueError(f"another shape or type of {name} than was saved")
    return {name: arrays[name] for name in specs}


# -------------------------------------------------------------------------------------------------------------- files


def difference(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str | None:
    """Return the first name whose entry is not the same in both."""
    return next((n for n in sorted(found.keys() | expected.keys()) if found.get(n) != expected.get(n)), None)


def canonical(value: Any) -> bytes:
    """Return JSON with one way to write each value, so that bytes can be compared; floats come back exactly."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def walk(folder: Path) -> dict[str, int]:
    """Return the size in bytes of each file, by its path in `folder`, which may hold nothing but files and
    directories.
    """
    sizes = {}
    for path in itertools.chain([folder], folder.rglob("*")):
        name, found = path.relative_to(folder).as_posix(), path.lstat()
        if stat.S_ISREG(found.st_mode):
            sizes[name] = found.st_size
        elif not stat.S_ISDIR(found.st_mode):
            raise ValueError(f"a link or a special file at arrays/{name}")
    return sizes


def digest(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove(path: Path) -> None:
    """Delete a file or a directory, if it is there; of a link, the link alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def reason(error: BaseException) -> str:
    """Return one line of what the system, TensorStore or Orbax said."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {Path(error.filename).name}" if error.filename else error.strerror
    number = re.search(r"os_error_code='(\d{1,4})'", str(error))  # TensorStore's, within a long message
    return os.strerror(int(number[1])) if number else str(error).partition("\n")[0] or type(error).__name__
