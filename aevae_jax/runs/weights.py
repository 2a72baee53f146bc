"""Weights on disk: one safetensors file, names such as `decoder/Dense_0/kernel`, a sha256 over all of them, and whose.

The format holds arrays and nothing else, so reading a file from a stranger executes nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from aevae_jax import durable
from aevae_jax.types import InputError, Params

LARGEST_HEADER = 2**24
"""Bytes of the header of a file of weights, at most."""

_WHAT = "weights"


def save_weights(path: Path, params: Params, *, run: str = "") -> None:
    """Write a dict of arrays; the file appears whole or not at all, and is durable.

    Args:
      path: where to.
      params: a dict of arrays.
      run: the digest of the run that they belong to, if there is one.

    Raises:
      InputError: the file cannot be written.
    """
    arrays = {name: np.asarray(a) for name, a in flatten_dict(params, sep="/").items()}
    durable.write_bytes(path, save(arrays, metadata={_entry(run): params_digest(params)}), what=path.name)


def load_weights(
    path: Path, like: Params, *, run: str = "", sha256: str | None = None, wanted: str = "run.json"
) -> Params:
    """Return the dict of arrays in `path`, if its names, shapes and types are those of `like` and its bytes are intact.

    A process that computes with 64 bits reads weights of 32 bits as they are; the converse is refused, as it would
    round them.

    Args:
      path: a file of `save_weights`.
      like: a dict of arrays, or of `jax.ShapeDtypeStruct` from `jax.eval_shape(model.init, key)`.
      run: as it was written.
      sha256: of the whole file, where that is known.
      wanted: what `like` was taken from, for messages.

    Raises:
      InputError: no such file, not a regular one, not safetensors, damaged, or weights of another model or run.
    """
    expected = {name: (tuple(a.shape), np.dtype(a.dtype).name) for name, a in flatten_dict(like, sep="/").items()}
    contents, header = _read(path, expected, wanted)
    if sha256 is not None and hashlib.sha256(contents).hexdigest() != sha256:
        raise _refused(path, "bytes that do not match their sha256 in results.json", "the file that training wrote")
    try:
        arrays = {  # and not by `safetensors.numpy.load`, which does not know all types that it saves
            name: np.frombuffer(entry["data"], np.dtype(_TYPES[entry["dtype"]])).reshape(entry["shape"])
            for name, entry in deserialize(contents)
        }
    except (SafetensorError, ValueError, KeyError) as error:
        raise _damaged(path, error) from None
    params, metadata = unnamed(arrays, like), header.get("__metadata__", {})
    if metadata and _entry(run) not in metadata:
        raise _refused(path, "weights of another run", "those of the run in run.json")
    if metadata.get(_entry(run)) != params_digest(params):
        raise _refused(path, "bytes that do not match their sha256", "an intact file")
    return params


def _entry(run: str) -> str:
    """Return the name of the only entry of the metadata: safetensors writes several in any order, and bytes must be
    equal.
    """
    return f"sha256 of run {run}" if run else "sha256"


def _read(path: Path, expected: Mapping[str, tuple[tuple[int, ...], str]], wanted: str) -> tuple[bytes, dict[str, Any]]:
    """Return the whole file and its header, if that announces what is expected; before that, no more than the header is
    read.

    https://github.com/huggingface/safetensors#format: the header's size in 8 bytes, the header in JSON, the arrays.
    """
    with durable.open_regular(path, what=_WHAT) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            first = file.read(8)
            length = int.from_bytes(first, "little")
            if len(first) < 8 or length > min(LARGEST_HEADER, size - 8):
                raise ValueError(f"{size:,} bytes, and a header of {length:,}")
            start = file.read(length)
            header = json.loads(start)
            found = {name: entry for name, entry in header.items() if name != "__metadata__"}
            shapes = {name: tuple(entry["shape"]) for name, entry in found.items()}
            types = {name: _TYPES.get(entry["dtype"], entry["dtype"]) for name, entry in found.items()}
            if not isinstance(header.get("__metadata__", {}), dict):
                raise ValueError("metadata that is no object")
            compare(shapes, {name: shape for name, (shape, _) in expected.items()}, where=path, wanted=wanted)
            wide = _as_wide(types, {name: dtype for name, (_, dtype) in expected.items()}, path)
            compare(types, wide, where=path, wanted=wanted)
            length += 8 + sum(math.prod(shapes[name]) * np.dtype(types[name]).itemsize for name in found)
            if size != length:
                raise ValueError(f"{size:,} bytes in place of {length:,}")
            return first + start + file.read(length), header
        except InputError:
            raise
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise _damaged(path, error) from None


_TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}


def _as_wide(found: Mapping[str, str], expected: Mapping[str, str], path: Path) -> dict[str, str]:
    """Return the types that are expected, with 32 bits where this process computes with 64 and the file has 32."""
    for name, dtype in expected.items():
        if found.get(name) == dtype.replace("32", "64") != dtype:
            raise InputError(
                f"weights {name!r}",
                got=f"{found[name]}, of a run with JAX_ENABLE_X64=1",
                where=str(path),
                expected=dtype,
                hint="set JAX_ENABLE_X64=1 as that run did",
            )
    narrow = {name: dtype.replace("64", "32") for name, dtype in expected.items()}
    return {name: narrow[name] if found.get(name) == narrow[name] else dtype for name, dtype in expected.items()}


def _refused(path: Path, got: str, expected: str) -> InputError:
    return InputError(_WHAT, got=got, expected=expected, where=str(path))


def _damaged(path: Path, error: Exception) -> InputError:
    return _refused(path, f"a damaged file ({error})", "safetensors")


def params_digest(params: Params) -> str:
    """Return the sha256 over names, shapes, types and bytes of a dict of arrays."""
    total = hashlib.sha256()
    for name, array in sorted(flatten_dict(params, sep="/").items()):
        a = np.ascontiguousarray(array)
        total.update(f"{name} {a.shape} {a.dtype.name}\n".encode())
        total.update(a.tobytes())
    return total.hexdigest()


def named(params: Params, prefix: str = "") -> dict[str, Any]:
    """Return the arrays of nested dicts by name, such as `decoder/Dense_0/kernel`, behind a prefix."""
    return {f"{prefix}{name}": array for name, array in flatten_dict(params, sep="/").items()}


def unnamed(arrays: Mapping[str, Any], like: Params, prefix: str = "") -> Params:
    """Return a nested dict with the structure of `like`, whose empty dicts have no arrays to be named by."""
    nodes = flatten_dict(like, sep="/", keep_empty_nodes=True)
    leaves = {name: arrays[f"{prefix}{name}"] if hasattr(node, "shape") else {} for name, node in nodes.items()}
    return unflatten_dict(jax.tree.map(jax.numpy.asarray, leaves), sep="/")


def compare(
    found: Mapping[str, object], expected: Mapping[str, object], *, where: Path | str = "", wanted: str
) -> None:
    """Refuse arrays of which one is not as it is wanted.

    Raises:
      InputError: with the first of them by name.
    """
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            raise InputError(
                f"weights {name!r}",
                got=found.get(name, "none"),
                expected=f"{expected.get(name, 'none')}, as in {wanted}",
                where=str(where),
            )
