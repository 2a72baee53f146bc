"""Images and codes in files: .npy, .npz and .png. What is read is checked; what is written appears whole or not at all.

Nothing is unpickled. NumPy is imported inside the functions, so that an output file can be refused at once.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aevae_jax import durable
from aevae_jax.types import InputError, support_of

if TYPE_CHECKING:
    import numpy as np

    from aevae_jax.data import Column, Format, Preparation

ARRAYS = (".npy", ".npz")
IMAGES = (".png", *ARRAYS)
DATA = (*IMAGES, ".csv")


# ------------------------------------------------------------------------------------------------------------ reading


def read_images(path: Path, model: Any, preparation: Preparation, format: Format) -> np.ndarray:
    """Images `[N, *event]` as a model sees them, float32.

    Raw uint8 is prepared as the training data was. Floats are in the units of the data, [0, 1] for images, and are only
    standardised where the training data was. A picture has 256 levels.

    Args:
      path: .npy, or .npz with one array or one called `images`, or one .png; of a table, .csv or .parquet.
      model: its `event_shape` and the support of its likelihood are required of the images.
      preparation: of raw uint8.
      format: of the training data.

    Raises:
      InputError: another type or shape, levels or numbers outside the model's range, NaN, or an unreadable file.
    """
    import numpy as np

    shape, where, levels = model.event_shape, str(path), format.levels
    if format.columns:
        from aevae_jax.data import table_files

        [prepared] = preparation.evaluation([table_files.read_rows(path, format.columns)], format)
        return prepared[:]
    if path.suffix == ".png":
        x, levels = _read_picture(path, shape), 256
    else:
        x = _read_array(path, "images", IMAGES)
    if (*x.shape[1:], 1) == shape:
        x = x[..., None]
    if x.dtype != np.uint8 and x.dtype.kind != "f":
        raise InputError("type of the images", where=where, got=x.dtype, expected="uint8 or floats")
    _check_shape(x, shape, "images", where)
    if x.dtype != np.uint8:
        x = preparation.units(_finite(x, where), format)
    elif x.max() >= levels:
        raise InputError("levels of the images", where=where, got=f"uint8 up to {x.max()}",
                         expected=f"0 to {levels - 1}, as in the training data" if levels else "floats, as in training",
                         hint="write floats as the model sees them")  # fmt: skip
    else:
        [prepared] = preparation.evaluation([x], replace(format, levels=levels))
        x = prepared[:]
    support = support_of(model)
    if support is not None:
        support.check(x, where)
    return x


def read_codes(path: Path, latent: int) -> np.ndarray:
    """Codes `[N, latent]`, float32, from .npy, or from .npz with one array or one called `codes`.

    Raises:
      InputError: another type or shape, NaN, or an unreadable file.
    """
    z, where = _read_array(path, "codes", ARRAYS), str(path)
    if z.dtype.kind != "f":
        raise InputError("type of the codes", where=where, got=z.dtype, expected="floats")
    _check_shape(z, (latent,), "codes", where)
    return _finite(z, where)


def _check_shape(x: np.ndarray, event: tuple[int, ...], what: str, where: str) -> None:
    if x.shape[1:] != event or len(x) == 0:
        expected = f"(N, {', '.join(map(str, event))}), as the model was built for"
        raise InputError(f"shape of the {what}", where=where, got=x.shape, expected=expected)


def _finite(x: np.ndarray, where: str) -> np.ndarray:
    """Floats as float32, if all are finite."""
    import numpy as np

    with np.errstate(over="ignore"):
        x = x.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(x.reshape(len(x), -1)).all(axis=1))
    if bad.size:
        raise InputError("numbers", where=where, got=f"NaN or infinity in example {bad[0]}", expected="finite ones")
    return x


def _read_array(path: Path, name: str, suffixes: tuple[str, ...]) -> np.ndarray:
    import numpy as np

    if path.suffix not in ARRAYS:
        raise InputError("input", got=path.name, expected=f"a file ending in {' or '.join(suffixes)}")
    try:
        with path.open("rb") as file:  # opened here, as NumPy does not close a damaged archive
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return np.atleast_1d(loaded)
            names = loaded.files
            chosen = name if name in names else names[0] if len(names) == 1 else None
            array = None if chosen is None else np.atleast_1d(loaded[chosen])
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from None
    if array is None:
        got = ", ".join(names) or "no arrays"
        raise InputError("input", where=str(path), got=got, expected=f"one array, or one called {name!r}")
    return array


def _read_picture(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """One 8-bit picture as uint8 `[1, H, W, C]`, if it has the height, width and channels of `shape`."""
    import numpy as np
    from PIL import Image

    modes = {1: "L", 3: "RGB"}
    if len(shape) != 3 or shape[2] not in modes:
        raise InputError("input", where=str(path), got="a picture", expected=f".npy or .npz, for data of shape {shape}")
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            if picture.mode not in ("1", "L", "P", "RGB"):
                raise InputError("picture", where=str(path), got=f"mode {picture.mode}",
                                 expected="8-bit grey or RGB, without transparency")  # fmt: skip
            if picture.size != (shape[1], shape[0]):
                raise InputError("size of the picture", where=str(path), got="{}x{}".format(*picture.size),
                                 expected=f"{shape[1]}x{shape[0]}, as the model was built for")  # fmt: skip
            return np.asarray(picture.convert(modes[shape[2]]), np.uint8).reshape(1, *shape)
    except InputError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: BaseException) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError("input", got=path, expected="a file that exists")
    got = f"a file that cannot be read ({error})"
    return InputError("input", where=str(path), got=got, expected=f"an intact {path.suffix} file without objects")


# ------------------------------------------------------------------------------------------------------------ writing


def check_output(path: Path, suffixes: tuple[str, ...], *, force: bool, option: str = "--out") -> None:
    """Refuse an output file before any work is done.

    Raises:
      InputError: a suffix that is not listed, a directory that is missing or read-only, or, unless `force`, a file that
        exists.
    """
    if path.suffix not in suffixes:
        raise InputError("output", where=option, got=path.name, expected=f"a name ending in {' or '.join(suffixes)}")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK) or path.is_dir():
        raise InputError("output", where=option, got=path, expected="a file in a directory that exists and is writable")
    if path.exists() and not force:
        hint = "choose another name, or add --force to replace it"
        raise InputError("output", where=option, got=f"{path}, which exists", expected="a new file", hint=hint)


def write(
    path: Path,
    arrays: Mapping[str, Any],
    *,
    table: tuple[Column, ...] = (),
    columns: int = 8,
    paired: bool = False,
) -> str:
    """Write the first of `arrays` to .npy, .png or .csv, or all of them to .npz; the suffix decides.

    Args:
      path: accepted by `check_output`.
      arrays: by the names they get in .npz; images in [0, 1].
      table: the columns, where the data are a table.
      columns: images per row of a sheet.
      paired: the first two arrays belong together: a sheet shows each row of the second above that of the first.

    Returns:
      What the file holds, in words.
    """
    import numpy as np

    from aevae_jax import figures
    from aevae_jax.data import tables

    given = {name: np.asarray(a) for name, a in arrays.items()}
    name, first = next(iter(given.items()))
    if path.suffix == ".png" and first.ndim != 4:
        raise InputError("output", where="--out", got=path.name, expected=".npy or .npz, as the data are not images")
    if path.suffix == ".csv" and not table:
        raise InputError("output", where="--out", got=path.name, expected=".npy or .npz, as the data are not a table")
    if path.suffix == ".png":
        tiles = pairs(list(given.values())[1], first, columns) if paired else first
        figures.save_png(path, figures.grid(tiles, columns, scale=max(1, 56 // tiles.shape[1])))
        return f"{len(first)} images"
    if path.suffix == ".csv":
        tables.write_csv(path, first, table)
        return f"{len(first)} rows of {len(table)} columns"
    with durable.replacing(path) as file:
        if path.suffix == ".npy":
            np.save(file, first, allow_pickle=False)
            given = {name: first}
        else:
            contents: Any = given
            np.savez(file, **contents)
    return ", ".join(f"{name} {a.dtype} {a.shape}" for name, a in given.items())


def pairs(x: np.ndarray, y: np.ndarray, columns: int) -> np.ndarray:
    """Rows of `columns` inputs, each followed by the row of their reconstructions; white where the last is not full."""
    import numpy as np

    blank = np.ones((-len(x) % columns, *x.shape[1:]), np.float32)
    rows = [np.concatenate([a, blank]).reshape(-1, columns, *x.shape[1:]) for a in (x, y)]
    return np.stack(rows, axis=1).reshape(-1, *x.shape[1:])
