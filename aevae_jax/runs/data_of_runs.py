"""The data of a run: loaded as its record names it, or from where it lies by now; other data are refused."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from aevae_jax import values
from aevae_jax.data import Data, Dataset, Format, built_in
from aevae_jax.lazy import modules
from aevae_jax.runs import records
from aevae_jax.types import InputError

if TYPE_CHECKING:
    from aevae_jax.data import tfds
else:
    tfds = modules("aevae_jax.data", "tfds")


def load_data(folder: Path, data: Data, moved: str = "") -> Dataset:
    """Load the data that a run was trained on, raw.

    Args:
      folder: of the run.
      data: as its record names it.
      moved: what was typed for `--data`, where the data is by now elsewhere. A directory of TensorFlow Datasets that
        only the record names, which may be a stranger's, is used if it is the user's own.

    Raises:
      InputError: it is not there, it is not the same data, or its place must be named.
    """
    record = records.read_record(folder)
    recorded, named = record["provenance"]["data"], data
    if moved:
        place: Data = values.parse(type(data), moved, "--data")
        if place != type(data)(name=place.name, directory=place.directory):
            raise InputError("--data", got=moved, expected="a name or path, and its directory; all else is the run's")
        named = dataclasses.replace(data, name=place.name, directory=place.directory)
    elif data.directory and not tfds.is_own(data.directory):
        raise InputError(
            "directory of the data",
            where=str(folder),
            got=f"{data.directory}, which only the record of the run names",
            expected="your own, or one that you name",
            hint=f"if you trust it: export TFDS_DATA_DIR={shlex.quote(data.directory)}",
        )
    levels = recorded.get("levels")
    if named.name not in built_in.BUILT_IN and type(levels) is int and 2 <= levels <= 256:
        named = dataclasses.replace(named, levels=levels)  # as they were found then, by this version or another
    dataset = named.load()
    check_data(folder, dataset)
    if dataset.columns:  # their kinds are those that the model was trained with, whatever this version sees in them
        format: Format = values.from_tree(Format, record["format"], f"{folder}, format")
        dataset = dataclasses.replace(dataset, columns=format.columns)
    return dataclasses.replace(dataset, name=data.name)


def check_data(folder: Path, dataset: Dataset) -> None:
    """Refuse data that is not what the run in `folder` was trained on."""
    record = records.read_record(folder, any_kind=True)
    data = record["provenance"]["data"]
    if data["sha256"] == dataset.digest():
        return
    if "sha256" not in record and data["sha256"] == dataset.earlier_digest():  # of version 0.1
        return
    if dataset.columns:  # to be told which
        _check_columns(folder, dataset, values.from_tree(Format, record["format"], f"{folder}, format"))
    raise InputError(
        "data set",
        where=str(folder),
        got=f"other data under the name {dataset.name!r}",
        expected=f"that of the training, {data.get('name')!r}, sha256 {str(data['sha256'])[:12]}",
        hint="evaluate on data of your own from Python",
    )


def _check_columns(folder: Path, dataset: Dataset, format: Format) -> None:
    """Refuse a table whose columns, or categories of texts, are called otherwise than in the training."""
    named, known = (
        [(column.name, column.categories if column.kind == "text" else ()) for column in columns]
        for columns in (dataset.columns, format.columns)
    )
    for new, old in zip(named, known, strict=False):
        if new == old:
            continue
        raise InputError(
            "data set",
            where=str(folder),
            got=f"the column {_spelled(*new)}",
            expected=f"that of the training, {_spelled(*old)}",
        )


def _spelled(name: str, categories: tuple[str, ...]) -> str:
    return f"{name!r} of {', '.join(map(repr, categories))}" if categories else repr(name)
