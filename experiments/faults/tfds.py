"""Subjects: a prepared directory of TensorFlow Datasets, and the cache of what was decoded from it."""

from __future__ import annotations

import importlib
import io
import json
import os
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faults.formats import damaged, forged, rows
from faults.mutate import json_changes, things
from faults.pictures import BOMBS, picture
from faults.trials import FREE, Change, Place, Subject

WARM = ("array_record.python.array_record_data_source", "tensorflow_datasets", "aevae_jax.data.tfds")
"""What a worker imports before its first trial."""

HOME = "tiny/1.0.0"
COUNTS = {"train": 12, "test": 5}


def subjects() -> list[Subject]:
    """Return the files of such a directory."""
    return [_json("features.json"), _json("dataset_info.json"), _records(), _whole(), _pictures(), _cache()]


def prepare(folder: Path, pictures: Mapping[str, list[bytes]]) -> None:
    """Let TFDS itself write a data set of encoded pictures."""
    import tensorflow_datasets as library

    features = {"image": library.features.Image(shape=(7, 6, 1)), "label": library.features.ClassLabel(num_classes=3)}

    class Tiny(library.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg, misc]
        """Pictures that are given."""

        VERSION = library.core.Version("1.0.0")

        def _info(self) -> Any:
            return library.core.DatasetInfo(builder=self, features=library.features.FeaturesDict(features))

        def _split_generators(self, dl_manager: Any) -> Any:
            return {part: self._generate_examples(found) for part, found in pictures.items()}

        def _generate_examples(self, found: Any) -> Any:
            for n, content in enumerate(found):
                yield n, {"image": content, "label": n % 3}

    Tiny.name = Tiny.__module__ = "tiny"  # not of a package, in which TFDS would look for more
    Tiny(data_dir=folder, file_format="array_record").download_and_prepare()


def make(folder: Path) -> None:
    """Write two splits."""
    prepare(
        folder, {part: [_encoded(n + 100 * (part == "test")) for n in range(count)] for part, count in COUNTS.items()}
    )


def _encoded(seed: int) -> bytes:
    file = io.BytesIO()
    picture(seed, "L").save(file, "PNG")
    return file.getvalue()


def read(folder: Path) -> Any:
    """Return what the reader finds in this directory, and what `Data.load` says of it."""
    from aevae_jax.data import Data, tfds

    dataset = Data("tiny", directory=".").load()
    parts = {
        part: {"x": rows(split.x), "labels": None if split.labels is None else rows(split.labels)}
        for part, split in tfds.read("tiny", ".").parts.items()
    }
    return {"values": parts, "sha256": dataset.digest()}


def reference(folder: Path) -> Any:
    """Return the records themselves, if there are as many as the JSON says, in the form that it says."""
    import numpy as np
    from PIL import Image

    records = importlib.import_module(WARM[0]).ArrayRecordDataSource
    info = json.loads((folder / HOME / "dataset_info.json").read_text())
    features = json.loads((folder / HOME / "features.json").read_text())["featuresDict"]["features"]
    told = (features["image"]["image"]["shape"] or {}).get("dimensions")
    channels = int(told[-1]) if told else 3  # as TFDS takes it where nothing is said
    labelled = "label" in features and features["label"]["pythonClassName"].endswith(".ClassLabel")
    labels = {_encoded(n + 100 * (part == "test")): n % 3 for part, count in COUNTS.items() for n in range(count)}
    found = {}
    for split in info["splits"]:
        if split["name"] in ("train", "validation", "test"):
            source = records(str(folder / HOME / f"tiny-{split['name']}.array_record-00000-of-00001"))
            if [len(source)] != [int(count) for count in split["shardLengths"]]:
                raise ValueError(f"{len(source)} records")
            contents = [_inner(source[n]) for n in range(len(source))]
            images = [Image.open(io.BytesIO(one)).convert("RGB" if channels == 3 else "L") for one in contents]
            told = rows(np.array([labels[one] for one in contents])) if labelled else None
            found[split["name"]] = {"x": rows(np.stack([np.asarray(image) for image in images])), "labels": told}
    return found


def _inner(record: bytes) -> bytes:
    """Return the PNG file in a record."""
    return record[record.index(b"\x89PNG") : record.index(b"IEND\xaeB`\x82") + 8]


def _json(name: str) -> Subject:
    path = f"{HOME}/{name}"
    changes = damaged(path, {"flip": 40, "cut": 20})
    changes |= {kind: (60 if kind == "value" else 40, change) for kind, change in json_changes(path).items()}
    if name == "features.json":
        changes |= {f"class-{n}": (1, _class(n)) for n in range(len(CLASSES))}
    return Subject(name, make, read, changes, reference, share="tfds")


CLASSES = (
    "evil.Feature",
    "evil",
    "os.system",
    "builtins.exec",
    "subprocess.Popen",
    "evil.Feature\n",
    ".evil",
    "evil..Feature",
    "tensorflow_datasets.core.features.evil.Feature",
    "tensorflow_datasets.testing.evil",
    "__main__.Touch",
    "tensorflow_datasets.core.features.features_dict.os.system",
    "tensorflow_datasets.scripts.cli.main",
    "tensorflow_datasets.core.features.text_feature.Text",
    "faults.runs.Touch",
    "this",
    "antigravity",
    "idlelib.idle",
)
"""Names of classes that a stranger may want to have imported."""


def _class(n: int) -> Change:
    """Return some feature is of another class, and a module of that name lies in the current folder."""

    def change(folder: Path, dice: random.Random, place: Place) -> Any:
        code = f"open({str(place.canary)!r}, 'w').write('executed')\nclass Feature:\n    pass\n"
        (folder / "evil.py").write_text(code)
        path = folder / HOME / "features.json"
        tree = json.loads(path.read_text())
        inner = dice.choice([tree, *tree["featuresDict"]["features"].values()])
        inner["pythonClassName"] = CLASSES[n]
        path.write_text(json.dumps(tree))
        sys.path[:] = [str(folder), *(path for path in sys.path if path != str(folder))]  # as after `python -c`
        for name in [name for name in sys.modules if name.partition(".")[0] == "evil"]:
            del sys.modules[name]
        return FREE

    return change


def _records() -> Subject:
    name = f"{HOME}/tiny-train.array_record-00000-of-00001"
    changes = damaged(name, {"flip": 60, "flip-early": 20, "flip-late": 20, "cut": 20, "number": 15})
    changes["of-test"] = (1, _exchanged)
    return Subject("array_record", make, read, changes, share="tfds")


def _exchanged(folder: Path, dice: random.Random, place: Place) -> None:
    """Give the files of the two splits each other's names."""
    one, other = (folder / HOME / f"tiny-{part}.array_record-00000-of-00001" for part in COUNTS)
    one.rename(folder / "x")
    other.rename(one)
    (folder / "x").rename(other)


def _whole() -> Subject:
    changes: dict[str, tuple[int, Change]] = {}
    for name in ("tiny", HOME):
        changes |= {f"{Path(name).name}-{kind}": (1, change) for kind, change in things(name).items()}
    changes |= {f"version-{n}": (1, _version(n)) for n in range(6)}
    return Subject("directory", make, read, changes, share="tfds")


def _version(n: int) -> Change:
    """Return another version beside the one that is there."""

    def change(folder: Path, dice: random.Random, place: Place) -> Any:
        other = ("9.9.9", "1.0.0.0", "99999999999999999999.0.0", "2.0", "\x1b[31m", "..")[n]
        path = folder / "tiny" / other
        path.mkdir(exist_ok=True)
        if n < 3:
            (path / "dataset_info.json").write_text("{}")
            return FREE
        return None

    return change


def _pictures() -> Subject:
    """Return what is sound as a record need not be a sound picture."""

    def bomb(kind: str) -> Change:
        def change(folder: Path, dice: random.Random, place: Place) -> Any:
            BOMBS[kind](folder / "bomb", dice)
            content = (folder / "bomb").read_bytes()
            import shutil

            shutil.rmtree(folder / "tiny")
            prepare(folder, {"train": [content, *(_encoded(n) for n in range(11))], "test": [_encoded(99)] * 2})
            return FREE

        return change

    return Subject("pictures", make, read, {kind: (1, bomb(kind)) for kind in BOMBS}, share="tfds")


# ---------------------------------------------------------------------------------------------------------------- cache


def _cache() -> Subject:
    """Damage the cache, or not: what is read is what was decoded."""
    home = f"{HOME}/.aevae_cache"

    def write(folder: Path) -> None:
        make(folder)
        before = Path.cwd()
        os.chdir(folder)
        read(folder)
        os.chdir(before)

    changes = damaged(f"{home}/train.x.npy", {"flip": 30}, each=6)
    changes |= forged(f"{home}/train.x.npy", {})
    changes |= {f"manifest-{kind}": change for kind, change in damaged(f"{home}/manifest.json", {}, each=6).items()}
    changes |= {f"value-{kind}": (10, change) for kind, change in json_changes(f"{home}/manifest.json").items()}
    changes |= {f"folder-{kind}": (1, change) for kind, change in things(home).items()}
    changes["exchanged"] = (1, _cached_otherwise)
    return Subject("cache", write, read, changes)


def _cached_otherwise(folder: Path, dice: random.Random, place: Place) -> None:
    """Give the cached arrays of the two splits each other's names."""
    one, other = (folder / HOME / ".aevae_cache" / f"{part}.x.npy" for part in COUNTS)
    one.rename(folder / "x")
    other.rename(one)
    (folder / "x").rename(other)
