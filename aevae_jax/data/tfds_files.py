"""What is looked at in a folder of TensorFlow Datasets before TFDS reads any of it: it may be a stranger's."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aevae_jax import durable
from aevae_jax.types import InputError

OWN_CLASS = re.compile(r"tensorflow_datasets\.core\.features\.[a-z_0-9]+\.[A-Za-z]\w*", re.ASCII)
"""Features that TFDS itself defines, as features.json names them."""

MAX_JSON_BYTES = 2**24


def check_files(name: str, folder: Path) -> None:
    """Refuse what would never end when it is read."""
    for path in sorted(folder.iterdir()):
        if not path.name.startswith(".") and not (os.path.isfile(path) or os.path.isdir(path)):
            raise InputError(
                f"data set {name!r}", where=str(path), got="a FIFO, a device or a broken link", expected="a file"
            )


def check_features(name: str, folder: Path, command: str) -> None:
    """Refuse files that only TensorFlow can read, as TFDS writes them by default, and features of others' classes.

    TFDS imports whatever module features.json names: what is not its own is refused before it reads that file.
    """
    info = read_json(folder / "dataset_info.json", f"data set {name!r}")
    formats = [info.get("fileFormat", "tfrecord"), *info.get("alternativeFileFormats", [])]
    if "array_record" not in formats:
        raise InputError(
            f"data set {name!r}",
            where=str(folder),
            got=f"{formats[0]} files",
            expected="array_record files, which can be read without TensorFlow",
            hint=f"type: {command}",
        )
    features = read_json(folder / "features.json", f"data set {name!r}")
    foreign = [cls for cls in _classes(features) if not OWN_CLASS.fullmatch(cls)]
    if foreign:
        raise InputError(
            f"data set {name!r}",
            where=str(folder / "features.json"),
            got=f"the class {foreign[0]}",
            expected="features that TensorFlow Datasets itself defines",
        )


def class_names(folder: Path) -> tuple[str, ...]:
    """Return what the labels 0, 1, ... are called, as TFDS wrote it; nothing where it did not."""
    path = folder / "label.labels.txt"
    if not os.path.isfile(path):
        return ()
    text = durable.read_bytes(path, limit=MAX_JSON_BYTES, what="class names").decode(errors="replace")
    return tuple(text.removesuffix("\n").split("\n"))


def read_json(path: Path, what: str = "data set") -> Any:
    """Return what a regular file of a bounded size holds."""
    contents = durable.read_bytes(path, limit=MAX_JSON_BYTES, what=what)
    return json.loads(contents, object_pairs_hook=_Entries)


class _Entries(dict[str, Any]):
    """A JSON object that keeps all its pairs: of a name that comes twice, another parser may take the other one."""

    def __init__(self, pairs: list[tuple[str, Any]]):
        super().__init__(pairs)
        self.pairs = pairs


def _classes(tree: Any) -> Iterator[str]:
    """Yield the classes that TFDS looks for in a tree of features, in JSON within JSON, too, and by their older key."""
    if isinstance(tree, list):
        for item in tree:
            yield from _classes(item)
    if isinstance(tree, _Entries):
        for key, entry in tree.pairs:
            if isinstance(entry, str) and key in ("pythonClassName", "python_class_name", "type"):
                yield entry
            elif isinstance(entry, str) and key == "json":
                yield from _classes(json.loads(entry, object_pairs_hook=_Entries))
            yield from _classes(entry)
