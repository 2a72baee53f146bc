"""One value, `Data`, names any data set: by name, by a path, with all that must be said of it."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from aevae_jax import durable, limits, suggestions
from aevae_jax.data.built_in import BUILT_IN
from aevae_jax.data.datasets import Dataset
from aevae_jax.data.preparation import Preparation, Scale
from aevae_jax.data.splits import Found, OwnSplits, Splits, assemble, check_levels
from aevae_jax.data.tables import Reading
from aevae_jax.data.told import Told, told
from aevae_jax.lazy import modules
from aevae_jax.types import InputError

if TYPE_CHECKING:
    from aevae_jax.data import arrays, pictures, table_files, tfds
else:
    arrays, pictures, table_files, tfds = modules("aevae_jax.data", "arrays", "pictures", "table_files", "tfds")


@dataclass(frozen=True)
class Data:
    """Names a data set and its preparation.

    Args:
      name: "digits" or "sprites", which need no network; a TensorFlow Datasets name such as `fashion_mnist` or
        `name/config:version`; or a path: .npy, .npz, .csv, .parquet, or a folder of idx files, .npy files or images. A
        path that could be a name of TensorFlow Datasets is written with ./ in front.
      preparation: how raw values become what the model sees.
      directory: where prepared TFDS data sets live; empty for `$TFDS_DATA_DIR`, then `~/tensorflow_datasets`.
      splits: how validation and test splits are made where the data set does not come with them.
      size: (height, width) that a folder's images are brought to, scaled until they cover it and their centre cut out;
        left out, the smallest height and width among them.
      channels: 1 for grey or 3 for RGB, which a folder's images are brought to; left out, what they all have.
      categorical: columns of a table whose entries are names, even where they look like numbers.
      numbers, positive, counts: columns of a table of that kind, whatever `table_files.read` would see in them.
      missing: words that stand for a missing entry of a table, such as "NA" or "?"; an empty one always does.
      decimal, thousands, separator: how a CSV file writes numbers and what stands between its fields.
      label: the column of a table that holds labels; it is none of the data.
      levels: how many values the elements of integer data can take: 2 for bits, 3 for masks of 0, 1 and 2, 256 for
        8-bit images. Left out, it is found where that is plain, and asked for where it is not.
      keep_duplicates: leave no example out because it also stands in another split.
      condition: what a conditional model is told of each example: "label" is its class, "factors" a vector of what it
        was made of where that is known, "label and factors" both; left out, nothing, as of models that are none.
      hidden_labels: the share of the training labels of each class that the model is not told: semi-supervised.
      hidden_seed: of the choice of these.
      labels_per_class: how many training labels of each class the model is told, in place of a share that it is not.
    """

    name: str = "digits"
    preparation: Preparation = Scale()
    directory: str = ""
    splits: Splits = OwnSplits()
    size: tuple[int, ...] = ()
    categorical: tuple[str, ...] = ()
    channels: int = 0
    numbers: tuple[str, ...] = ()
    positive: tuple[str, ...] = ()
    counts: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    decimal: str = "."
    thousands: str = ""
    separator: str = ","
    label: str = ""
    levels: int = 0
    keep_duplicates: bool = False
    condition: Told = ""
    hidden_labels: float = 0.0
    hidden_seed: int = 0
    labels_per_class: int = 0

    def __post_init__(self) -> None:
        limits.check_sizes("Data size", self.size)
        if len(self.size) not in (0, 2):
            raise InputError("Data size", got=self.size, expected="(height, width)")
        if self.channels not in (0, 1, 3):
            raise InputError("Data channels", got=self.channels, expected="1 for grey, 3 for RGB, 0 for what there is")
        check_levels(self.levels)
        limits.check("Data hidden_labels", self.hidden_labels, 0.0, 1.0)
        limits.check("Data hidden_seed", self.hidden_seed, 0, 2**32 - 1)
        if self.condition not in get_args(Told):
            raise InputError(
                "Data condition", got=repr(self.condition), expected=" or ".join(map(repr, get_args(Told)))
            )
        limits.check("Data labels_per_class", self.labels_per_class, 0)
        for name in ("hidden_labels", "labels_per_class"):
            if getattr(self, name) and "label" not in self.condition:
                expected = "condition='label', of which some are hidden"
                raise InputError(f"Data {name}", got=f"condition={self.condition!r}", expected=expected)
        if self.hidden_labels and self.labels_per_class:
            raise InputError("Data hidden_labels and labels_per_class", got="both", expected="one of them")
        _ = self.reading

    @property
    def reading(self) -> Reading:
        """How files of a table are read and written."""
        return Reading(
            self.categorical,
            self.numbers,
            self.positive,
            self.counts,
            self.missing,
            self.decimal,
            self.thousands,
            self.separator,
            self.label,
        )

    def check(self) -> None:
        """Refuse a name or a path of which there is nothing, without reading anything else.

        Raises:
          InputError: as `load`.
        """
        if self.name in BUILT_IN:
            return
        if _is_path(self.name, self.directory):
            reader_of(Path(os.path.expanduser(self.name)))
        elif not tfds.is_prepared(self.name, self.directory):
            raise tfds.unprepared(self.name, self.directory)

    def load(self) -> Dataset:
        """Return the raw data set. Raises `InputError` if there is none of that name here, or none that can be used."""
        return self.with_told(self._loaded())

    def with_told(self, dataset: Dataset) -> Dataset:
        """Return a data set with what models are told of each example. Raises `InputError` where that is not known."""
        share, each = self.hidden_labels, self.labels_per_class
        return told(dataset, self.condition, hidden=share, per_class=each, seed=self.hidden_seed)

    def _loaded(self) -> Dataset:
        if self.name in BUILT_IN:
            dataset = BUILT_IN[self.name]()
            if self.levels not in (0, dataset.levels):
                expected = f"{dataset.levels}, which {self.name} have"
                raise InputError("Data levels", got=self.levels, expected=expected)
            return dataset
        if _is_path(self.name, self.directory):
            path = Path(os.path.expanduser(self.name))  # Path.expanduser raises where there is no such user
            found = reader_of(path)(path, self)
        else:
            found = tfds.read(self.name, self.directory)
        return assemble(self.name, found, self.splits, levels=self.levels, keep_duplicates=self.keep_duplicates)


def _is_path(name: str, directory: str) -> bool:
    """Return whether `name` is spelled as a path, or is one and no name that TensorFlow Datasets could have prepared
    here.
    """
    if name.startswith((".", "/", "~")) or Path(name).suffix.lower() in _FILES or re.match(r"[A-Za-z]:[\\/]", name):
        return True
    return os.path.exists(name) and not tfds.is_prepared(name, directory)


Reader = Callable[[Path, Data], Found]


def _npy(path: Path, data: Data) -> Found:
    return arrays.read_npy(path)


def _npz(path: Path, data: Data) -> Found:
    return arrays.read_npz(path)


def _table(path: Path, data: Data) -> Found:
    return table_files.read(path, data.reading)


def _folder(path: Path, data: Data) -> Found:
    if arrays.is_idx_folder(path):
        return arrays.read_idx(path)
    if os.path.isfile(path / "train.npy"):
        return arrays.read_npy_folder(path)
    return pictures.read(path, data.size, data.channels)


_FILES: dict[str, Reader] = {".npy": _npy, ".npz": _npz, ".csv": _table, ".parquet": _table}


def reader_of(path: Path) -> Reader:
    """Return the function that reads a file or folder.

    Raises:
      InputError: it is not there, or nothing that can be read.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            "data", got=path, expected="a file or folder that exists", hint=suggestions.neighbour(path)
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise durable.unreadable(path, error, what="data") from None
    if stat.S_ISDIR(mode):
        return _folder
    if path.suffix.lower() not in _FILES:
        raise InputError("data", got=path.name, expected=f"a folder, or a file ending in {', '.join(_FILES)}")
    if not stat.S_ISREG(mode):
        raise InputError("data", got="a FIFO, device or socket", expected="a file or folder", where=str(path))
    return _FILES[path.suffix.lower()]
