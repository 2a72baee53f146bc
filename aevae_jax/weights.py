"""Weights on disk: one safetensors file, names such as `decoder/Dense_0/kernel`, and a sha256 over all of them.

The format holds arrays and nothing else, so reading a file from a stranger executes nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from aevae_jax.types import InputError, Params


def save_weights(path: Path, params: Params) -> None:
    """Write a dict of arrays; the file appears whole or not at all."""
    arrays = {name: np.asarray(a) for name, a in flatten_dict(params, sep="/").items()}
    contents = save(arrays, metadata={"sha256": params_digest(params)})
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(contents)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def load_weights(path: Path, like: Params) -> Params:
    """The dict of arrays in `path`, if its names, shapes and types are those of `like` and its bytes are intact.

    Args:
      path: a file of `save_weights`.
      like: a dict of arrays, or of `jax.ShapeDtypeStruct` from `jax.eval_shape(model.init, key)`.

    Raises:
      InputError: no such file, not a safetensors file, damaged, or weights of another model.
    """
    expected = {name: (tuple(a.shape), np.dtype(a.dtype).name) for name, a in flatten_dict(like, sep="/").items()}
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            shapes = {name: tuple(s.get_shape()) for name, s in slices.items()}
            _compare(shapes, {name: shape for name, (shape, _) in expected.items()}, path)
            arrays = {name: file.get_tensor(name) for name in expected}
            digest = (file.metadata() or {}).get("sha256")
    except FileNotFoundError:
        raise InputError("weights", got="no file", expected="a file written by training", where=str(path)) from None
    except (SafetensorError, OSError) as error:
        raise InputError("weights", got=f"a damaged file ({error})", expected="safetensors", where=str(path)) from None
    types = {name: a.dtype.name for name, a in arrays.items()}
    _compare(types, {name: dtype for name, (_, dtype) in expected.items()}, path)
    params = _unflatten(arrays, like)
    if params_digest(params) != digest:
        raise InputError(
            "weights", got="bytes that do not match their sha256", expected="an intact file", where=str(path)
        )
    return params


def params_digest(params: Params) -> str:
    """sha256 over names, shapes, types and bytes of a dict of arrays."""
    total = hashlib.sha256()
    for name, array in sorted(flatten_dict(params, sep="/").items()):
        a = np.ascontiguousarray(array)
        total.update(f"{name} {a.shape} {a.dtype.name}\n".encode())
        total.update(a.tobytes())
    return total.hexdigest()


def _unflatten(arrays: dict[str, np.ndarray], like: Params) -> Params:
    """A nested dict with the structure of `like`, whose empty dicts have no arrays to be named by."""
    nodes = flatten_dict(like, sep="/", keep_empty_nodes=True)
    empty: Params = {name: {} for name, node in nodes.items() if not hasattr(node, "shape")}
    return unflatten_dict({**{name: jax.numpy.asarray(a) for name, a in arrays.items()}, **empty}, sep="/")


def _compare(found: Mapping[str, object], expected: Mapping[str, object], path: Path) -> None:
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            wanted = f"{expected.get(name, 'none')}, as in run.json"
            raise InputError(f"weights {name!r}", got=found.get(name, "none"), expected=wanted, where=str(path))
