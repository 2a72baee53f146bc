"""Tiny data sets that TFDS writes itself: it needs TensorFlow only to encode images, and these come encoded."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aevae_jax.data import tfds
from aevae_jax.types import InputError

library = pytest.importorskip("tensorflow_datasets")


def random_images(count, seed=0, shape=(4, 4, 1)):
    return np.random.RandomState(seed).randint(0, 256, (count, *shape)).astype(np.uint8)


TINY = {"train": random_images(30), "test": random_images(6, 1)}


def png(image, mode=None):
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).convert(mode).save(file, "PNG")
    return file.getvalue()


def builder_class(splits, name="tiny", *, shape=(4, 4, 1), labels=True, features=None, **attributes):
    """A builder of TFDS that generates these pictures, as arrays or encoded, with the labels 0, 1, ... 9, 0 ..."""
    pictured = features or {"image": library.features.Image(shape=shape)}
    stated = {**pictured, "label": library.features.ClassLabel(num_classes=10)} if labels else pictured

    class Tiny(library.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = library.core.Version("1.0.0")

        def _info(self):
            return library.core.DatasetInfo(builder=self, features=library.features.FeaturesDict(stated))

        def _split_generators(self, dl_manager):
            return {part: self._generate_examples(pictures) for part, pictures in splits.items()}

        def _generate_examples(self, pictures):
            for index, picture in enumerate(pictures):
                data = picture if isinstance(picture, bytes) else png(picture)
                example = dict.fromkeys(pictured, data)
                yield index, {**example, "label": index % 10} if labels else example

    Tiny.name = name
    for key, value in attributes.items():
        setattr(Tiny, key, value)
    return Tiny


def prepared(root, splits, name="tiny", **options):
    """The folder of a data set that TFDS has written: `root/name/1.0.0`."""
    builder = builder_class(splits, name, **options)(data_dir=root, file_format="array_record")
    builder.download_and_prepare()
    return Path(builder.data_dir)


def stored_order(part, count):
    """The keys 0 ... count - 1 in the order of TFDS's files."""
    return sorted(range(count), key=lambda key: hashlib.md5(f"{part}{key}".encode()).digest())


def read(folder):
    """The splits of the data set `root/tiny/1.0.0`."""
    return tfds.read("tiny", str(folder.parents[1])).parts


def check_tiny(parts, splits=TINY):
    """The arrays and labels are those that were prepared."""
    assert set(parts) == set(splits)
    for part, images in splits.items():
        order = stored_order(part, len(images))
        assert np.array_equal(parts[part].x[:], images[order])
        assert parts[part].x.dtype == np.uint8
        assert parts[part].labels.dtype == np.int32
        assert parts[part].labels.tolist() == [key % 10 for key in order]


def refused(message, function, *arguments):
    """The one line that a call is refused with."""
    with pytest.raises(InputError, match=message) as caught:
        function(*arguments)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def contents(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
