"""TensorFlow Datasets: the only file that imports it. Images are read without TensorFlow, which only `prepare` needs.

A data set lies in `directory/name/version` or `directory/name/config/version`. Its decoded arrays are cached beside its
files (cache.py), so that later starts decode nothing and import neither TensorFlow Datasets nor JAX.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib
import importlib.util
import io
import math
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from aevae_jax.data import built_in, cache, datasets, tfds_files
from aevae_jax.data.datasets import PARTS, Split
from aevae_jax.data.splits import Found
from aevae_jax.types import InputError, not_installed, shortened

NAME = re.compile(r"([a-z][a-z0-9_]*)(?:/(\w[\w.+-]*))?(?::(\d+\.\d+\.\d+))?", re.ASCII)
VERSION = re.compile(r"\d+\.\d+\.\d+", re.ASCII)

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""What a picture is decoded to, by the number of its channels."""

CHUNK = 1024
"""At most so many examples are decoded at once; fewer if their images are large."""

WELL_KNOWN = (
    *built_in.BUILT_IN,
    "mnist",
    "fashion_mnist",
    "kmnist",
    "emnist",
    "binarized_mnist",
    "cifar10",
    "cifar100",
    "svhn_cropped",
    "omniglot",
    "dsprites",
    "shapes3d",
    "smallnorb",
    "celeb_a",
    "stl10",
)
"""Names that are worth suggesting, prepared or not."""

# ------------------------------------------------------------------------------------------------------------ reading


def read(name: str, directory: str = "") -> Found:
    """Return an image data set that is prepared here: `name`, `name/config`, and either with `:version`, else the
    newest.

    Where no split needs more than `RESIDENT_BYTES`, all are decoded once, kept in memory and cached; else rows are
    decoded when they are asked for. MNIST and its relatives come in the order of their authors.

    Raises:
      InputError: not prepared here or damaged, `tensorflow-datasets` missing, no images of one size, or no split called
        train.
    """
    root = root_of(directory)
    folder = find(name, root)
    if folder is None:
        raise unprepared(name, directory)
    with one_line(name, folder):
        tfds_files.check_files(name, folder)
        state = cache.fingerprint(folder)
        parts = _splits(cache.load(folder, state) or {})
        if not parts or not _resident(parts):
            parts = _decode(name, folder)
            if _resident(parts):
                cache.store(folder, state, _arrays(parts))
    return Found(parts, levels=256, version=folder.name, class_names=tfds_files.class_names(folder))


def is_prepared(name: str, directory: str = "") -> bool:
    """Return whether there is a prepared data set of that name here."""
    return NAME.fullmatch(name) is not None and find(name, root_of(directory)) is not None


def is_own(directory: str) -> bool:
    """Return whether a directory is the one that is read where none is named."""
    return os.path.realpath(root_of(directory)) == os.path.realpath(root_of(""))


def root_of(directory: str) -> Path:
    """Return where prepared data sets lie: `directory`, `$TFDS_DATA_DIR` or `~/tensorflow_datasets`."""
    return expanded(directory or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def expanded(path: str) -> Path:
    """Return `path` with a leading ~ replaced; as it is where there is no such user, or no home directory."""
    return Path(os.path.expanduser(path))


def parse(name: str) -> tuple[str, str, str]:
    """Name, configuration and version; empty where they are not given. None of them leads out of a folder."""
    match = NAME.fullmatch(name)
    if match is None:
        meant = _meant(name)
        expected = "digits, a name such as mnist, name/config or name/config:version, or a path that starts with ./"
        raise InputError(
            "data set", got=repr(shortened(name, 60)), expected=expected, hint=f"did you mean {meant}?" if meant else ""
        )
    base, config, version = match.groups(default="")
    return base, config, version


def find(name: str, root: Path) -> Path | None:
    """Return where a data set is prepared, in the newest version on disk unless `name` says which."""
    base, config, version = parse(name)
    homes = [root / base / config]
    if not config:
        homes.append(root / base / _default_config(root / base))
    for home in homes:
        try:
            versions = [path.parent for path in home.glob("*/dataset_info.json") if VERSION.fullmatch(path.parent.name)]
        except OSError:  # no folder can have such a name
            continue
        if found := [path for path in versions if version in ("", path.name)]:
            return max(found, key=lambda path: [int(number) for number in path.name.split(".")])
    return None


def _default_config(home: Path) -> str:
    """Return the configuration that is meant where none is named, as TFDS noted it when it prepared one."""
    try:
        metadata = tfds_files.read_json(home / ".config" / "metadata.json")
        config = str(metadata["default_config_name"])
    except (InputError, ValueError, KeyError, TypeError, RecursionError):
        return ""
    return config if NAME.fullmatch(f"{home.name}/{config}") else ""


def unprepared(name: str, directory: str) -> InputError:
    """Return the error that a data set is not prepared here, with what to type."""
    root = root_of(directory)
    files = [*root.glob("*/*/dataset_info.json"), *root.glob("*/*/*/dataset_info.json")]
    paths = [path.parent.relative_to(root) for path in files]
    names = sorted(f"{path.parent}:{path.name}" for path in paths)
    here = shortened(", ".join(other for other in names if NAME.fullmatch(other)) or "none", 100)
    meant = _meant(name)
    hint = f"did you mean {meant}?" if meant else f"type: {command(name, directory)}"
    if meant and meant not in built_in.BUILT_IN and not find(meant, root):
        hint += f" type: {command(meant, directory)}"
    if "type: " in hint and importlib.util.find_spec("tensorflow") is None:
        hint += ', after pip install -e ".[prepare]"'
    if os.path.exists(name):
        hint += f", or write ./{name} for the folder of that name"
    return InputError(
        "data set",
        got=repr(shortened(name, 60)),
        hint=hint,
        expected=f"digits, sprites, or one prepared in {root} ({here})",
    )


def _meant(name: str) -> str:
    """Return the well-known data set whose name is misspelled as `name`; empty where it is not, or none is near."""
    base = re.split("[/:]", name.lower()[:60])[0]
    near = difflib.get_close_matches(base, WELL_KNOWN, 1, 0.75)
    return near[0] if near and near[0] != base else ""


def command(name: str, directory: str) -> str:
    """Return what is typed to prepare a data set."""
    return f"aevae data prepare {name}" + (f" --directory {shlex.quote(directory)}" if directory else "")


def _resident(parts: dict[str, Split]) -> bool:
    """Return whether every split is small enough to be kept in memory."""
    return max(datasets.size_in_bytes(split.x) for split in parts.values()) <= datasets.RESIDENT_BYTES


def _arrays(parts: dict[str, Split]) -> dict[str, Any]:
    """Return splits as the arrays that are cached."""
    labels = {f"{part}.labels": split.labels for part, split in parts.items() if split.labels is not None}
    return {**{f"{part}.x": split.x for part, split in parts.items()}, **labels}


def _splits(arrays: dict[str, Any]) -> dict[str, Split]:
    """Return cached arrays as splits."""
    return {p: Split(arrays[f"{p}.x"], arrays.get(f"{p}.labels")) for p in PARTS if f"{p}.x" in arrays}


# ----------------------------------------------------------------------------------------------------------- decoding


class Images:
    """The images of one split, `[N, H, W, C]` uint8, read and decoded when they are asked for, from any thread.

    Args:
      records: the data source of the split, which leaves images encoded.
      order: at which position of it each image lies, `[N]`.
      shape: of one image, `(height, width, channels)`; where a side is None, as in the first image.
      name, folder: of the data set, for messages.
    """

    def __init__(self, records: Any, order: np.ndarray, shape: tuple[Any, ...], name: str, folder: Path):
        self.records, self.order, self.name, self.folder = records, order, name, folder
        self.dtype, self.channels = np.dtype(np.uint8), shape[2]
        size = _picture(self.examples(slice(0, 1))[0]["image"], shape[2]).shape if None in shape else shape
        self.shape: tuple[int, ...] = (len(order), *size)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self.decode(self.examples(rows))

    def examples(self, rows: Any) -> list[dict[str, Any]]:
        """Return the features at `rows`, a slice or indices; their images are still encoded."""
        with one_line(self.name, self.folder):
            return list(self.records.__getitems__(self.order[rows].tolist()))

    def decode(self, examples: list[dict[str, Any]]) -> np.ndarray:
        """Return the images of some examples. Raises `InputError` at one that is damaged or of another size."""
        out = np.empty((len(examples), *self.shape[1:]), np.uint8)
        for row, example in zip(out, examples, strict=True):
            with one_line(self.name, self.folder):
                image = _picture(example["image"], self.channels)
            if image.shape != row.shape:
                raise InputError(
                    f"data set {self.name!r}",
                    where=str(self.folder),
                    got=f"an image of {image.shape}",
                    expected=f"images of one size, {row.shape} as the others",
                )
            row[...] = image
        return out


def _picture(data: bytes, channels: int) -> np.ndarray:
    """Return one encoded picture as uint8 `[H, W, C]`."""
    from PIL import Image

    picture = Image.open(io.BytesIO(data), formats=["PNG", "JPEG", "BMP", "GIF"])
    if picture.mode.startswith(("I", "F")):
        raise ValueError(f"a picture of mode {picture.mode}, which has more than 8 bits")
    image = np.asarray(picture.convert(MODES[channels]))
    return image.reshape(*image.shape[:2], channels)


def _decode(name: str, folder: Path) -> dict[str, Split]:
    """Return the splits of a data set: in memory if all are small enough, else their images are decoded on demand."""
    tfds_files.check_features(name, folder, command(name, "ANOTHER_DIRECTORY"))
    tfds = library()
    builder = tfds.builder_from_directory(folder)
    info, shape = builder.info, image_shape(builder.info, name)
    counts = {part: split.num_examples for part, split in info.splits.items()}
    if not counts.get("train"):
        raise InputError(
            f"data set {name!r}",
            got=f"splits {', '.join(sorted(counts)) or 'none'}",
            expected="one called train, with examples",
        )
    images = {}
    for part in PARTS:
        if part in counts:
            _check_count(info.splits[part], name, folder)
        if counts.get(part):
            records = builder.as_data_source(part, decoders={"image": tfds.decode.SkipDecoding()})
            order = _upstream_order(info.module_name, part, len(records))
            images[part] = Images(records, order, shape, name, folder)
    label = dict(info.features.items()).get("label")
    labelled = label is not None and label.shape == () and np.issubdtype(label.np_dtype, np.integer)
    whole = _resident({part: Split(x) for part, x in images.items()})
    return {part: _split(x, labelled, whole) for part, x in images.items()}


def _check_count(split: Any, name: str, folder: Path) -> None:
    """Refuse files with more or fewer records than `dataset_info.json` says: TFDS would read as many as it says."""
    source = importlib.import_module("array_record.python.array_record_data_source").ArrayRecordDataSource

    with one_line(name, folder):
        paths = [*map(str, split.filepaths)] or [*map(str, folder.glob(f"*-{split.name}.array_record*"))]
        found = len(source(paths)) if paths else 0
    if found != split.num_examples:
        raise InputError(
            f"data set {name!r}",
            where=str(folder),
            got=f"{found:,} records of {split.name}",
            expected=f"{split.num_examples:,}, as dataset_info.json says",
        )


def _split(images: Images, labelled: bool, whole: bool) -> Split:
    """Return images, in memory if `whole`, and their labels, from one pass over the files."""
    x: Any = np.empty(images.shape, np.uint8) if whole else images
    labels = np.empty(len(images), np.int32) if labelled else None
    step = min(CHUNK, max(1, datasets.BLOCK_BYTES // math.prod(images.shape[1:])))
    for start in range(0, len(images) if whole or labelled else 0, step):
        rows = slice(start, start + step)
        examples = images.examples(rows)
        if whole:
            x[rows] = images.decode(examples)
        if labels is not None:
            labels[rows] = [example["label"] for example in examples]
    return Split(x, labels)


def image_shape(info: Any, name: str) -> tuple[Any, ...]:
    """Return (height, width, channels) that a data set states for its images; height and width may be None."""
    tfds = library()
    image = dict(info.features.items()).get("image")
    if not isinstance(image, tfds.features.Image):
        raise InputError(
            f"data set {name!r}",
            got=f"features {', '.join(sorted(info.features))}",
            expected="images, in a feature called image",
        )
    if np.dtype(image.np_dtype) != np.uint8 or len(image.shape) != 3 or image.shape[2] not in MODES:
        raise InputError(
            f"data set {name!r}",
            got=f"images of type {image.np_dtype} and shape {image.shape}",
            expected="uint8 images (height, width, channels), with 1, 3 or 4 channels",
        )
    return tuple(image.shape)


def _upstream_order(module: str, part: str, count: int) -> np.ndarray:
    """Return where the examples of a split lie in TFDS's files, in the order of the data set's authors.

    TFDS stores examples by md5(split name, key). The keys of MNIST and its relatives are 0 .. count - 1, so their order
    can be had back; published splits and binarisations depend on it. Other data sets stay in the order of the files.
    """
    if module != "tensorflow_datasets.image_classification.mnist":
        return np.arange(count)
    stored = sorted(range(count), key=lambda key: hashlib.md5(f"{part}{key}".encode(), usedforsecurity=False).digest())
    return np.argsort(stored)


def library() -> Any:
    """Return the module `tensorflow_datasets`.

    Raises:
      InputError: it is not installed.
    """
    try:
        importlib.import_module("array_record")  # which TFDS would miss only later
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise not_installed("tensorflow-datasets", "tfds", purpose="to read its data sets", got=error) from None
    return tfds


@contextlib.contextmanager
def one_line(name: str, folder: Path, expected: str = "a data set as TFDS prepares it") -> Iterator[None]:
    """Turn whatever TFDS and the readers below it raise into an `InputError`: damage shows in many ways."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        got = f"{type(error).__name__}: {error}"
        raise InputError(f"data set {name!r}", where=str(folder), got=got, expected=expected) from error
