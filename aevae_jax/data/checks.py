"""Arrays, labels and numbers of levels as people give them, or files hold them: checked, and put into one form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aevae_jax.data.datasets import Factor, Source, Split, blocks, converted
from aevae_jax.lazy import np
from aevae_jax.types import InputError

DARK = 128
"""Bytes that all lie below this may have fewer levels than 256, or be dark pictures: only their owner knows."""


def find_levels(name: str, parts: Mapping[str, Split], given: int = 0) -> int:
    """Return how many values the integer elements of a data set can take.

    Args:
      name: of the data set, for messages.
      parts: its splits, of bytes; they are read until the answer is known.
      given: what the user says; 0 where nothing is said. Then it is 2 where only 0 and 1 occur, and 256 where there are
        bytes of `DARK` or more.

    Raises:
      InputError: bytes beyond what was given; or nothing was given, and it cannot be told.
    """
    highest, enough = 0, given if given else DARK
    for part, split in parts.items():
        for _, block in blocks(split.x) if given != 256 else ():
            highest = max(highest, int(block.max()))
            if highest >= enough:
                if not given:
                    return 256
                raise InputError(
                    f"{name} {part}",
                    got=f"the level {highest}",
                    expected=f"0 to {given - 1}, as levels={given} says",
                    hint=f"give levels={highest + 1}",
                )
    if not given and highest > 1:
        levels = highest + 1
        raise InputError(
            f"levels of {name}",
            got=f"bytes of 0 to {highest}",
            expected="to be told how many values they can take",
            hint=f"give levels={levels} (Data({name!r}, levels={levels}) or from_arrays(x, "
            f"levels={levels})), or levels=256 if these are dark 8-bit pictures",
        )
    return given or 2


def check_labels(labels: Any, x: Source, what: str = "labels") -> np.ndarray:
    """Return `labels` as an array `[N]` of int64, if they are integers, one for each example. No label is read
    before that.
    """
    labels = labels if hasattr(labels, "shape") and hasattr(labels, "dtype") else np.asarray(labels)
    if tuple(labels.shape) not in ((len(x),), (len(x), 1)):
        raise InputError(what, got=f"shape {tuple(labels.shape)}", expected=f"{tuple(x.shape[:1])}, one per example")
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(what, got=f"type {labels.dtype}", expected="integers")
    numbers = np.asarray(labels[:]).reshape(-1)
    if numbers.dtype == np.uint64 and (numbers > np.iinfo(np.int64).max).any():
        raise InputError(what, got=f"numbers up to {numbers.max()}", expected="labels that int64 can hold")
    return numbers.astype(np.int64)


def check_vector(vector: Any, x: Source) -> np.ndarray:
    """Return numbers `[N, C]` that are known of the examples as float32, if they are finite and of each one."""
    numbers = np.asarray(vector)
    if numbers.ndim != 2 or len(numbers) != len(x) or not numbers.shape[1] or numbers.dtype.kind not in "fiu":
        got = f"{numbers.dtype} of shape {numbers.shape}"
        raise InputError("vector", got=got, expected=f"numbers ({len(x)}, C), some for each example")
    with np.errstate(over="ignore"):
        numbers = numbers.astype(np.float32)
    if not np.isfinite(numbers).all():
        raise InputError("vector", got="NaN or infinity", expected="finite numbers")
    return numbers


def check_factors(
    given: Mapping[str | Factor, Any], x: Source, what: str = "factors"
) -> tuple[np.ndarray, tuple[Factor, ...]]:
    """Return the values of factors as numbers `[N, F]`, int32, in ascending order of those that occur, and the factors.

    Args:
      given: the values of each, integers `[N]`; a name alone stands for a `Factor` whose values are ordered.
      x: the examples.
      what: for messages.

    Raises:
      InputError: another shape or type, or no factor.
    """
    if not given:
        raise InputError(what, got="none", expected="a name and values [N] of each")
    known = tuple(key if isinstance(key, Factor) else Factor(key) for key in given)
    values = [check_labels(of_one, x, f"{what} {one.name}") for one, of_one in zip(known, given.values(), strict=True)]
    numbers = [np.unique(of_one, return_inverse=True)[1].reshape(-1) for of_one in values]
    return np.stack(numbers, axis=1).astype(np.int32), known


def recoded(parts: Mapping[str, Split]) -> tuple[dict[str, Split], tuple[int, ...]]:
    """Return splits whose labels are codes 0, 1, ... of the labels that occur, int32, and those labels; -1 stays -1."""
    labels = [split.labels for split in parts.values() if split.labels is not None]
    if not labels:
        return dict(parts), ()
    classes = np.unique(np.concatenate([np.unique(part) for part in labels]))
    classes = classes[classes != -1]

    def coded(split: Split) -> Split:
        if split.labels is None:
            return split
        codes = np.searchsorted(classes, split.labels).astype(np.int32)
        return replace(split, labels=np.where(split.labels == -1, np.int32(-1), codes))

    return {part: coded(split) for part, split in parts.items()}, tuple(classes.tolist())


def as_source(x: Any, what: str) -> Source:
    """Return `x` as rows of uint8, float32 or float64 with the axes of an image or a vector; read or converted when
    asked for.

    float64 stays: what prepares it takes offset and scale from it before anything is rounded to float32.

    Raises:
      InputError: another type or number of axes, no examples, masked entries, or rows that cannot be read in any order
        or are no NumPy arrays.
    """
    x = _readable(x, what)
    if x.dtype not in (np.float64, np.float32, np.float16, np.uint8):
        raise InputError(what, got=f"type {x.dtype}", expected="uint8 images or float arrays", hint="use x.astype(...)")
    shape = (*x.shape, 1) if len(x.shape) == 3 and x.dtype == np.uint8 else tuple(x.shape)
    if len(shape) not in (2, 4) or 0 in shape[1:]:
        raise InputError(what, got=f"shape {x.shape}", expected="[N, D] or [N, H, W, C]")
    if shape[0] == 0:
        raise InputError(what, got="0 examples", expected="at least 1")
    dtype = np.dtype(np.float32) if x.dtype == np.float16 else x.dtype
    return converted(x, shape, dtype)


def _readable(x: Any, what: str) -> Any:
    """Return `x`, if its rows can be read as training reads them; what says that it is an array, as one."""
    if isinstance(x, np.ma.MaskedArray):
        if np.ma.is_masked(x):
            raise InputError(what, got="masked entries", expected="every entry", hint="use x.filled(VALUE)")
        return x.data
    if not (hasattr(x, "shape") and hasattr(x, "dtype") and hasattr(x, "__getitem__")):
        return np.asarray(x)
    if isinstance(x, np.ndarray) or len(x.shape) == 0 or x.shape[0] == 0:
        return x
    expected, dense = "an array or a source of rows", "use x.toarray()" if hasattr(x, "toarray") else ""
    try:
        rows = x[np.array([x.shape[0] - 1, 0])]
    except Exception as error:  # whatever a class of somebody's own may raise
        got = f"a {type(x).__name__}, of which rows cannot be read in any order ({error})"
        raise InputError(what, got=got, expected=expected, hint=dense or "use x[:]") from error
    if isinstance(rows, np.ndarray):
        return x
    if hasattr(x, "__array__"):
        return np.asarray(x)
    got = f"a {type(x).__name__}, whose rows are no NumPy arrays"
    raise InputError(what, got=got, expected=expected, hint=dense)
