"""What both codecs ask of models and examples, and how an example is coded that its model does not code."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from aevae_jax.compression import elements
from aevae_jax.compression.codecs import Codec, independent
from aevae_jax.types import InputError, Params


def check_finite(params: Params) -> None:
    """Raise `InputError` where a parameter is NaN or infinite."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not np.isfinite(np.asarray(leaf)).all():
            got = f"NaN or infinity in {jax.tree_util.keystr(path)}"
            raise InputError("parameters", got=got, expected="finite numbers")


def check_examples(what: str, symbols: np.ndarray, event_shape: tuple[int, ...], levels: int) -> None:
    """Raise `InputError` unless `symbols` are `[n, *event_shape]`, n >= 1, of integers below `levels`."""
    if symbols.shape[1:] != event_shape or not len(symbols):
        raise InputError(what, got=f"shape {symbols.shape}", expected=f"(n, {event_shape}), n >= 1")
    if symbols.dtype.kind not in "biu" or symbols.min() < 0 or symbols.max() >= levels:
        got = f"{symbols.dtype} from {symbols.min()} to {symbols.max()}"
        raise InputError(what, got=got, expected=f"integers from 0 to {levels - 1}")


def dtype_of(levels: int) -> Any:
    """Return what symbols are decoded to: uint8 up to 256 levels, else uint16."""
    return np.uint8 if levels <= 256 else np.uint16


def uniform(n: int, event_shape: tuple[int, ...], levels: int) -> Codec:
    """Return the codec of examples without a model: all symbols are equally likely."""
    return independent(elements.Uniform(levels, (n, *event_shape)))


def marks(n: int, share: int) -> Codec:
    """Return the codec of which of `n` examples are coded without the model: so many of 65536, as is expected."""
    counts = np.array([0, elements.TOTAL - share, elements.TOTAL])
    return independent(elements.Table(np.broadcast_to(counts, (n, len(counts)))))
