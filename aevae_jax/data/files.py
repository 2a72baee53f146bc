"""What goes into a model and what comes out of it, in files: pictures, arrays and tables.

What is read is checked, block by block; what is written appears whole or not at all. Nothing is
unpickled.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aevae_jax import durable, suggestions
from aevae_jax.data import built_in, datasets, tables
from aevae_jax.lazy import modules, np
from aevae_jax.types import InputError, support_of

if TYPE_CHECKING:
    from aevae_jax.data import arrays, pictures, table_files
    from aevae_jax.data.datasets import Column, Format, Source
    from aevae_jax.data.loading import Data
    from aevae_jax.data.tables import Reading
else:
    arrays, pictures, table_files = modules("aevae_jax.data", "arrays", "pictures", "table_files")

ARRAYS = (".npy", ".npz")
IMAGES = (".png", *ARRAYS)
DATA = (*IMAGES, ".csv")


# ------------------------------------------------------------------------------------------------------------ reading


def read_images(path: Path, model: Any, data: Data, format: Format, *, note: Callable[[str], None]) -> Source:
    """Read examples `[N, *event]`, float32, as a model sees them.

    Raw uint8 is prepared as the training data was. Floats are in the units of the data, [0, 1] for images, and are only
    standardised where the training data was. Pictures are brought to the size and channels of the training data, as
    those of a folder are in training. Those of 16 bits are floats, those of 8 have 256 levels, or, where a model was
    trained on pictures of fewer, that many.

    Args:
      path: a picture, or a folder of them; .npy; .npz with one array or one called `images`; of a table, .csv or
        .parquet.
      model: its `event_shape` and the support of its likelihood are required of the examples.
      data: what the model was trained on: its preparation, and how files of a table are read.
      format: of the training data.
      note: is told what was done to the pictures.

    Raises:
      InputError: another type or shape, levels or numbers outside the model's range, NaN, or an unreadable file.
    """
    shape, where = model.event_shape, str(path)
    if format.columns:
        table = table_files.read_rows(path, format.columns, data.reading)
        [prepared] = data.preparation.evaluation([table], format)
        return prepared
    raw, levels = _raw(path, shape, data, format, note)
    _check_shape(raw, shape, "images", where)
    x: Source
    if raw.dtype == np.uint8:
        _check_levels(max(int(block.max()) for _, block in datasets.blocks(raw)), levels, format.levels, where)
        [x] = data.preparation.evaluation([raw], replace(format, levels=levels))
    else:

        def seen(rows: np.ndarray, _: Any) -> np.ndarray:
            return _float32(data.preparation.units(rows, format))

        x = datasets.Mapped(raw, seen, shape, np.dtype(np.float32))
        x = x[:] if datasets.in_memory(raw) else x
    support = support_of(model)
    for start, block in datasets.blocks(x):
        _check_finite(block, start, where)
        if support is not None:
            support.check(block, where)
    return x


def _raw(
    path: Path, shape: tuple[int, ...], data: Data, format: Format, note: Callable[[str], None]
) -> tuple[Source, int]:
    """Return images as they are in their files, `[N, *shape]` if they fit, and how many levels bytes have."""
    if os.path.isdir(path) or path.suffix.lower() in pictures.SUFFIXES:
        if len(shape) != 3 or shape[2] not in (1, 3):
            raise InputError("input", where=str(path), got="pictures", expected=f".npy or .npz, for events of {shape}")
        arrays = data.name in built_in.BUILT_IN or Path(data.name).suffix.lower() in ARRAYS
        levels = 256 if arrays or not format.levels else format.levels
        return pictures.read_new(path, (shape[0], shape[1], shape[2]), note), levels
    x = _read_array(path, "images", (*pictures.SUFFIXES, *ARRAYS))
    if x.dtype != "uint8" and x.dtype.kind != "f":
        raise InputError("type of the images", where=str(path), got=x.dtype, expected="uint8 or floats")
    if (*x.shape[1:], 1) == shape:
        x = datasets.Mapped(x, lambda rows, _: rows[..., None], shape, x.dtype)
    return x, format.levels


def _check_levels(top: int, levels: int, trained: int, where: str) -> None:
    """Refuse bytes up to `top` that are to have so many `levels`, where the training data had `trained`."""
    hint = "write floats as the model sees them, as .npy"
    if top >= levels:
        expected = f"0 to {levels - 1}, as in the training data" if levels else "floats, as in training"
        raise InputError("levels of the images", where=where, got=f"uint8 up to {top}", expected=expected, hint=hint)
    if 0 < top < trained < levels:
        raise InputError(
            "levels of the images",
            where=where,
            got=f"a picture of 0 to {top}",
            expected=f"0 to 255, as {top} could be nearly black or one of the {trained} levels of the training data",
            hint=hint,
        )


def read_codes(path: Path, latent: int | tuple[int, ...]) -> np.ndarray:
    """Read codes `[N, *latent]`, float32, from .npy, or from .npz with one array or one called `codes`.

    Raises:
      InputError: another type or shape, NaN, or an unreadable file.
    """
    z, where = _read_array(path, "codes", ARRAYS), str(path)
    if z.dtype.kind != "f":
        raise InputError("type of the codes", where=where, got=z.dtype, expected="floats")
    _check_shape(z, latent if isinstance(latent, tuple) else (latent,), "codes", where)
    codes = _float32(z[:])
    _check_finite(codes, 0, where)
    return codes


def _check_shape(x: Source, event: tuple[int, ...], what: str, where: str) -> None:
    if x.shape[1:] != event or len(x) == 0:
        expected = f"(N, {', '.join(map(str, event))}), as the model was built for"
        raise InputError(f"shape of the {what}", where=where, got=x.shape, expected=expected)


def _float32(x: np.ndarray) -> np.ndarray:
    """Return floats in the precision of models; what that cannot hold is infinite."""
    with np.errstate(over="ignore"):
        return x.astype(np.float32)


def _check_finite(x: np.ndarray, first: int, where: str) -> None:
    """Refuse NaN and infinity in examples, of which the first is number `first`."""
    bad = np.flatnonzero(~np.isfinite(x.reshape(len(x), -1)).all(axis=1))
    if bad.size:
        got = f"NaN or infinity in example {first + bad[0]}"
        raise InputError("numbers", where=where, got=got, expected="finite ones")


def _read_array(path: Path, name: str, suffixes: tuple[str, ...]) -> Source:
    if path.suffix.lower() not in ARRAYS:
        folder = "a folder of pictures, or " if suffixes != ARRAYS else ""
        raise InputError("input", got=path.name, expected=f"{folder}a file ending in {' or '.join(suffixes)}")
    durable.open_regular(path).close()
    return arrays.read_array(path, name)


# ------------------------------------------------------------------------------------------------------------ writing


def check_output(path: Path, suffixes: tuple[str, ...], *, force: bool, option: str = "--out") -> None:
    """Refuse an output file before any work is done.

    Args:
      path: of the file.
      suffixes: what its name may end in.
      force: accept one that exists.
      option: by which it was typed; empty for an argument.

    Raises:
      InputError: a suffix that is not listed, a directory that is missing or read-only, or, unless `force`, a file that
        exists.
    """
    typed, option = f"{option} ".lstrip(), option or "OUTPUT"
    if path.suffix not in suffixes:
        expected = f"a name ending in {' or '.join(suffixes)}"
        hint = f"did you mean {typed}{shlex.quote(str(path.with_suffix(suffixes[0])))}?" if path.name else ""
        raise InputError("output", where=option, got=path.name, expected=expected, hint=hint)
    if not os.path.isdir(path.parent) or not os.access(path.parent, os.W_OK | os.X_OK) or os.path.isdir(path):
        known = os.path.lexists(path.parent) or len(str(path.parent)) > 100
        hint = "" if known else f"type: mkdir -p {shlex.quote(str(path.parent))}"
        expected = "a file in a directory that exists and is writable"
        raise InputError("output", where=option, got=path, expected=expected, hint=hint)
    try:
        path.lstat()
    except FileNotFoundError:
        return
    except OSError as error:  # a name that is too long
        raise InputError(
            "output", where=option, got=f"a name that cannot be used ({error.strerror})", expected="another one"
        ) from None
    if not force:
        hint = f"type {typed}{shlex.quote(str(durable.unused(path)))}, or --force to replace it"
        raise InputError("output", where=option, got=f"{path}, which exists", expected="a new file", hint=hint)


def check_input(path: Path) -> None:
    """Refuse an input that is not there, before any work is done.

    Raises:
      InputError: there is no such file or folder.
    """
    if not os.path.exists(path) and len(path.name) < 200:  # of a name that is too long, the reader says so
        hint = suggestions.neighbour(path)
        raise InputError("input", where=str(path), got="no file", expected="a file that exists", hint=hint)


def check_contents(path: Path, format: Format, *, option: str = "--out") -> None:
    """Refuse an output file that cannot hold what a model of this data makes, before any work is done.

    Raises:
      InputError: a picture of what are no images, or a table of what is none.
    """
    images, table = len(format.event_shape) == 3 and not format.columns, bool(format.columns)
    for suffix, fits, kind in ((".png", images, "images"), (".csv", table, "a table")):
        if path.suffix == suffix and not fits:
            meant = path.with_suffix(".png" if images else ".csv" if table else ".npy")
            hint = f"did you mean {option} {shlex.quote(str(meant))}?"
            expected = f".npy or .npz, as the data are not {kind}"
            raise InputError("output", where=option, got=path.name, expected=expected, hint=hint)


def write(
    path: Path,
    arrays: Mapping[str, Any],
    *,
    table: tuple[Column, ...] = (),
    reading: Reading | None = None,
    given: Sequence[Sequence[str]] | None = None,
) -> str:
    """Write the first of `arrays` to .npy or .csv, or all of them to .npz; the suffix decides. `charts` draws images.

    Args:
      path: accepted by `check_output`.
      arrays: by the names they get in .npz.
      table: the columns, where the data are a table.
      reading: how its files are written, where that is not as usual.
      given: its entries that are written as they are: see `tables.write_csv`.

    Returns:
      What the file holds, in words.
    """
    contents: Any = {name: np.asarray(a) for name, a in arrays.items()}
    name, first = next(iter(contents.items()))
    if path.suffix == ".png":
        raise InputError("output", where="--out", got=path.name, expected=".npy or .npz, as the data are not images")
    if path.suffix == ".csv" and not table:
        raise InputError("output", where="--out", got=path.name, expected=".npy or .npz, as the data are not a table")
    if path.suffix == ".csv":
        tables.write_csv(path, first, table, reading or tables.AS_USUAL, given)
        return f"{len(first)} rows of {len(table)} columns"
    with durable.replacing(path) as file:
        if path.suffix == ".npy":
            np.save(file, first, allow_pickle=False)
            contents = {name: first}
        else:
            np.savez(file, **contents)
    return ", ".join(f"{name} {a.dtype} {a.shape}" for name, a in contents.items())
