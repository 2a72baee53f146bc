"""Data sets and their preparation. The only file that imports tfds.

A `Data` value names a data set and how its raw values become what the model sees. Raw images stay uint8, as loaded;
`levels` says how many values they can take. Evaluation data is prepared once and never redrawn.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aevae_jax.types import InputError

if TYPE_CHECKING:
    import numpy as np
    from jax import Array


@dataclass(frozen=True)
class Split:
    """Examples `[N, *event]` and, where there are any, their integer labels `[N]`."""

    x: np.ndarray
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return int(self.x.shape[0])


@dataclass(frozen=True)
class Dataset:
    """Three disjoint splits, as loaded: uint8 images `[N, H, W, C]`, or float vectors or images.

    Args:
      name: for messages and records.
      train, validation, test: the splits.
      levels: number of values an integer element can take (256 for 8-bit images); 0 for floats.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    levels: int

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return tuple(self.train.x.shape[1:])

    def digest(self) -> str:
        """sha256 over the shapes, types and bytes of the three splits."""
        import numpy as np

        total = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            total.update(f"{split.x.shape}{split.x.dtype}".encode())
            total.update(np.ascontiguousarray(split.x).data)
        return total.hexdigest()


@dataclass(frozen=True)
class Scale:
    """Integer levels 0 .. L-1 to [0, 1] by division by L - 1. Floats pass as they are."""

    def train(self, raw: Any, key: Array, levels: int) -> Array:
        """A raw batch `[B, *event]` to what the model sees, inside the training step."""
        import jax.numpy as jnp

        return raw.astype(jnp.float32) / max(levels - 1, 1)

    def evaluation(self, dataset: Dataset) -> Dataset:
        """Validation and test data as the model sees them, float32; the training data stays raw."""
        import numpy as np

        def scaled(split: Split) -> Split:
            # the same float32 division as in training, not a multiplication by the reciprocal
            return replace(split, x=split.x.astype(np.float32) / np.float32(max(dataset.levels - 1, 1)))

        return replace(dataset, validation=scaled(dataset.validation), test=scaled(dataset.test))


@dataclass(frozen=True)
class DynamicBinarization:
    """Pixels as bits: b ~ Bernoulli(level / (L - 1)), redrawn at every training step, fixed for evaluation.

    Validation, then test data are drawn once, in this order, by NumPy's legacy generator seeded with 777: the published
    protocol (Larochelle & Murray 2011 for the idea; the seed is that of the Exemplar-VAE and VampPrior repositories).
    """

    def train(self, raw: Any, key: Array, levels: int) -> Array:
        """A fresh binarisation of a raw batch `[B, *event]`."""
        import jax
        import jax.numpy as jnp

        return jax.random.bernoulli(key, raw.astype(jnp.float32) / (levels - 1)).astype(jnp.float32)

    def evaluation(self, dataset: Dataset) -> Dataset:
        """Validation and test data as bits, float32, the same at every call."""
        import numpy as np

        if dataset.levels < 2:
            raise InputError("DynamicBinarization", got=f"float data ({dataset.name})", expected="integer levels",
                             hint="use Scale()")  # fmt: skip
        generator = np.random.RandomState(777)

        def drawn(split: Split) -> Split:
            return replace(split, x=generator.binomial(1, split.x / (dataset.levels - 1)).astype(np.float32))

        validation = drawn(dataset.validation)
        return replace(dataset, validation=validation, test=drawn(dataset.test))


Preparation = Scale | DynamicBinarization
"""How raw values become what the model sees."""


@dataclass(frozen=True)
class Data:
    """Names a data set and its preparation.

    Args:
      name: "digits" (bundled, no network), or a TensorFlow Datasets image data set that has been prepared.
      preparation: how raw values become what the model sees.
      directory: where prepared TFDS data sets live; empty for `$TFDS_DATA_DIR`, then `~/tensorflow_datasets`.
    """

    name: str = "digits"
    preparation: Preparation = Scale()
    directory: str = ""

    def load(self) -> Dataset:
        """The raw data set. Raises `InputError` if there is none of that name here."""
        return digits() if self.name == "digits" else from_tfds(self.name, self.directory)


def preparation_of(data: Data, dataset: Dataset) -> Any:
    """`(raw batch, key) -> x` for `make_train_step`."""
    return partial(_prepare, data.preparation, dataset.levels)


def _prepare(preparation: Preparation, levels: int, raw: Array, key: Array) -> Array:
    return preparation.train(raw, key, levels)


def digits() -> Dataset:
    """scikit-learn's 1,797 handwritten digits, `[8, 8, 1]`, 17 levels, from UCI (Alpaydin & Kaynak 1998).

    They come in the order of their writers, so they are shuffled once, by a fixed permutation, and split into 1,257 for
    training, 180 for validation and 360 for test.
    """
    import numpy as np
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.RandomState(0).permutation(len(bunch.data))
    x = bunch.data.astype(np.uint8).reshape(-1, 8, 8, 1)[order]
    labels = bunch.target.astype(np.int32)[order]
    train, validation, test = (
        Split(x[part], labels[part]) for part in (slice(0, 1257), slice(1257, 1437), slice(1437, None))
    )
    return Dataset("digits", train, validation, test, levels=17)


def from_arrays(
    train: np.ndarray,
    validation: np.ndarray | None = None,
    test: np.ndarray | None = None,
    *,
    labels: np.ndarray | None = None,
    name: str = "arrays",
) -> Dataset:
    """Your own arrays as a data set.

    Args:
      train: uint8 images `[N, H, W, C]` or `[N, H, W]`, or floats `[N, D]` or `[N, H, W, C]`.
      validation, test: the same; where one is left out, the last tenth of `train` is taken for it (at least one).
      labels: integer labels `[N]` of `train`.
      name: for messages and records.

    Raises:
      InputError: another type or number of axes, NaN or infinity, an empty split, splits of unlike shapes, labels of
        another length or type.
    """
    import numpy as np

    if labels is not None:
        labels = np.asarray(labels)
        if labels.shape != train.shape[:1]:
            raise InputError("labels", got=f"shape {labels.shape}", expected=f"{train.shape[:1]}, one per example")
        if not np.issubdtype(labels.dtype, np.integer):
            raise InputError("labels", got=f"type {labels.dtype}", expected="integers")
    parts = {"train": train, "validation": validation, "test": test}
    given = {part: _array(x, f"{name} {part}") for part, x in parts.items() if x is not None}
    for part, x in given.items():
        if x.shape[1:] != given["train"].shape[1:] or x.dtype != given["train"].dtype:
            raise InputError(
                f"{name} {part}", got=f"{x.dtype} {x.shape[1:]}",
                expected=f"{given['train'].dtype} {given['train'].shape[1:]}, as in train",
            )  # fmt: skip
    whole = Split(given["train"], labels)
    splits = {part: Split(x) for part, x in given.items() if part != "train"}
    for part in ("test", "validation"):
        if part not in splits:
            whole, splits[part] = _cut(whole, max(1, len(given["train"]) // 10), name)
    levels = 256 if given["train"].dtype == np.uint8 else 0
    return Dataset(name, whole, splits["validation"], splits["test"], levels)


def _cut(split: Split, count: int, name: str) -> tuple[Split, Split]:
    """All but the last `count` examples, and those."""
    if len(split) <= count:
        raise InputError(f"{name} train", got=f"{len(split)} examples", expected="enough to cut a split from")
    labels = split.labels
    return (
        Split(split.x[:-count], None if labels is None else labels[:-count]),
        Split(split.x[-count:], None if labels is None else labels[-count:]),
    )


def _array(x: np.ndarray, what: str) -> np.ndarray:
    import numpy as np

    x = np.asarray(x)
    if x.dtype in (np.float64, np.float32, np.float16):
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused below
            x = x.astype(np.float32)
    elif x.dtype != np.uint8:
        raise InputError(what, got=f"type {x.dtype}", expected="uint8 images or float arrays", hint="use x.astype(...)")
    if x.ndim == 3 and x.dtype == np.uint8:
        x = x[..., None]
    if x.ndim not in (2, 4) or 0 in x.shape[1:]:
        raise InputError(what, got=f"shape {x.shape}", expected="[N, D] or [N, H, W, C]")
    if len(x) == 0:
        raise InputError(what, got="0 examples", expected="at least 1")
    if x.dtype == np.float32 and not np.isfinite(x).all():
        row = int(np.flatnonzero(~np.isfinite(x).reshape(len(x), -1).all(axis=1))[0])
        raise InputError(what, got=f"NaN or infinity in example {row}", expected="finite numbers")
    return x


def from_tfds(name: str, directory: str = "") -> Dataset:
    """An image data set that TensorFlow Datasets has prepared here; read without TensorFlow and without network.

    Takes the newest version on disk. Where there is no split called `validation`, the last sixth of `train` becomes it
    (10,000 of the 60,000 of MNIST and Fashion-MNIST, the same ones as in published work).

    Raises:
      InputError: not prepared here or damaged, `tensorflow-datasets` missing, or no image or test split in it.
    """
    root = Path(directory or os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets").expanduser()
    found = _prepared(root)
    wanted = name.replace(":", "/")
    versions = [path for path in found if path == wanted or path.rsplit("/", 1)[0] == wanted]
    if not versions:
        here = ", ".join(sorted({path.rsplit("/", 1)[0] for path in found})) or "none"
        raise InputError("data set", got=repr(name), expected=f"digits, or one prepared in {root} ({here})",
                         hint="set TFDS_DATA_DIR to where it is prepared")  # fmt: skip
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise InputError("tensorflow-datasets", got="not installed", expected=f"installed, to read {name!r}",
                         hint="type: pip install 'aevae-jax[tfds]'") from None  # fmt: skip
    newest = root / max(versions, key=_version)
    try:
        builder = tfds.builder_from_directory(newest)
        parts = [part for part in ("train", "validation", "test") if part in builder.info.splits]
        splits = {part: _read_tfds(builder, part, name) for part in parts}
    except InputError:
        raise
    except Exception as error:  # damage shows as whatever the reader of that part of the files raises
        raise InputError(f"data set {name!r}", got=f"files that cannot be read ({type(error).__name__}: {error})",
                         expected="a data set as TFDS prepares it", where=str(newest)) from error  # fmt: skip
    if "train" not in splits or "test" not in splits:
        raise InputError(f"data set {name!r}", got=f"splits {sorted(builder.info.splits)}", expected="train and test")
    if "validation" not in splits:
        splits["train"], splits["validation"] = _cut(splits["train"], len(splits["train"]) // 6, name)
    return Dataset(name, splits["train"], splits["validation"], splits["test"], levels=256)


def _prepared(root: Path) -> list[str]:
    """`name/version` and `name/config/version` of what is prepared under `root`."""
    files = [*root.glob("*/*/dataset_info.json"), *root.glob("*/*/*/dataset_info.json")]
    return [str(path.parent.relative_to(root)) for path in files]


def _version(path: str) -> tuple[int, ...]:
    parts = path.rsplit("/", 1)[-1].split(".")
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else ()


def _read_tfds(builder: Any, part: str, name: str) -> Split:
    import numpy as np

    source = builder.as_data_source(split=part)
    if len(source) == 0 or "image" not in source[0]:
        raise InputError(f"data set {name!r}, split {part}", got="no images", expected="a feature called 'image'")
    examples = source.__getitems__(_upstream_positions(builder, part, len(source)))  # half the time of one by one
    labels = np.asarray([e["label"] for e in examples], np.int32) if "label" in examples[0] else None
    return Split(np.stack([e["image"] for e in examples]), labels)


def _upstream_positions(builder: Any, part: str, count: int) -> list[int]:
    """Where the examples of a split lie in TFDS's files, in the order of the data set's authors.

    TFDS stores examples by md5(split name, key). The keys of MNIST and its relatives are 0 .. count - 1, so their order
    can be had back; published splits and binarisations depend on it. Other data sets stay in the order of the files.
    """
    if builder.info.module_name != "tensorflow_datasets.image_classification.mnist":
        return list(range(count))
    stored = sorted(range(count), key=lambda key: hashlib.md5(f"{part}{key}".encode(), usedforsecurity=False).digest())
    positions = [0] * count
    for position, key in enumerate(stored):
        positions[key] = position
    return positions
