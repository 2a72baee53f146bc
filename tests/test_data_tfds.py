"""TensorFlow Datasets: what is read without TensorFlow, the cache of decoded arrays, and preparing without a network.

The tiny data sets here are written by TFDS itself, which needs TensorFlow only to encode images: these come encoded.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import importlib.util
import io
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aevae_jax.data import Data, cache, datasets, tfds
from aevae_jax.types import InputError

library = pytest.importorskip("tensorflow_datasets")

PARTS = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test writes to the caches of whoever runs it."""
    monkeypatch.setenv("AEVAE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)


def random_images(count, seed=0, shape=(4, 4, 1)):
    return np.random.RandomState(seed).randint(0, 256, (count, *shape)).astype(np.uint8)


def png(image, mode=None):
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).convert(mode).save(file, "PNG")
    return file.getvalue()


def builder_class(splits, name="tiny", *, shape=(4, 4, 1), labels=True, features=None, **attributes):
    """A builder of TFDS that generates these pictures, each split's as bytes or arrays; labels are 0, 1, ... 9, 0 ..."""
    stated = features or {"image": library.features.Image(shape=shape)}
    if labels:
        stated = {**stated, "label": library.features.ClassLabel(num_classes=10)}

    class Tiny(library.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = library.core.Version("1.0.0")

        def _info(self):
            return library.core.DatasetInfo(builder=self, features=library.features.FeaturesDict(stated))

        def _split_generators(self, dl_manager):
            return {part: self._generate_examples(pictures) for part, pictures in splits.items()}

        def _generate_examples(self, pictures):
            for index, picture in enumerate(pictures):
                data = picture if isinstance(picture, bytes) else png(picture)
                example = {"image": io.BytesIO(data)} if features is None else {key: data for key in features}
                yield index, {**example, "label": index % 10} if labels else example

    Tiny.name = name
    for key, value in attributes.items():
        setattr(Tiny, key, value)
    return Tiny


def prepared(root, splits, name="tiny", **options):
    """A folder of a data set that TFDS has written: `root/name/1.0.0`."""
    builder = builder_class(splits, name, **options)(data_dir=root, file_format="array_record")
    builder.download_and_prepare()
    return Path(builder.data_dir)


def stored_order(part, count):
    """The keys 0 ... count - 1 in the order of TFDS's files."""
    return sorted(range(count), key=lambda key: hashlib.md5(f"{part}{key}".encode()).digest())


TINY = {"train": random_images(30), "test": random_images(6, 1)}


@pytest.fixture
def tiny(tmp_path):
    return prepared(tmp_path / "data", TINY)


def root_of(folder):
    return str(folder.parents[1])


def check_tiny(parts, splits=TINY):
    """The arrays and labels are those that were prepared."""
    assert set(parts) == set(splits)
    for part, images in splits.items():
        order = stored_order(part, len(images))
        assert np.array_equal(parts[part].x[:], images[order])
        assert parts[part].x.dtype == np.uint8
        assert parts[part].labels.dtype == np.int32
        assert parts[part].labels.tolist() == [key % 10 for key in order]


def refused(message, *arguments, function=tfds.read):
    with pytest.raises(InputError, match=message) as caught:
        function(*arguments)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


# what is not prepared here


@pytest.mark.parametrize("name", ["no_such_data_set", "digits2", "fashion_mnist:9.9.9", "emnist/letters"])
def test_what_is_not_prepared_is_one_line_with_the_command_and_no_wait(tmp_path, monkeypatch, name):
    for folder in ("fashion_mnist/3.0.1", "emnist/digits/3.1.0", "downloads/extracted"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "dataset_info.json").write_text("{}")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    began = time.monotonic()
    with pytest.raises(InputError) as caught:
        Data(name).load()
    assert time.monotonic() - began < 5
    assert str(caught.value) == (
        f"data set: got {name!r}, expected digits, or one prepared in {tmp_path} "
        f"(emnist/digits:3.1.0, fashion_mnist:3.0.1); type: aevae data prepare {name}"
    )
    assert not tfds.is_prepared(name)


def test_the_command_names_the_directory(tmp_path):
    message = refused(r"got 'mnist', expected digits, or one prepared in .* \(none\)", "mnist", str(tmp_path / "a b"))
    assert message.endswith(f"type: aevae data prepare mnist --directory '{tmp_path / 'a b'}'")


def test_a_folder_of_that_name_is_reached_with_a_dot(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert refused("got 'mine'", "mine", str(tmp_path)).endswith(", or write ./mine for the folder of that name")


@pytest.mark.parametrize("name", ["", "../..", "../../etc/passwd", "a/../b", "a/..", "Mnist", "mnist\n", "mnist:3",
                                  "mnist/x:3.*.*", "/etc", "a b", "a;b", "$(a)", "ünder", "a/b/c", "3d", "a:b:c"])  # fmt: skip
def test_what_cannot_be_a_name_is_refused_without_a_look_at_the_disk(monkeypatch, name):
    def looked(*_, **__):
        raise AssertionError("the disk was touched")

    for method in ("glob", "exists", "iterdir", "stat", "open"):
        monkeypatch.setattr(Path, method, looked)
    for function in (tfds.read, tfds.prepare):
        refused("data set: got .*, expected digits, a name such as mnist, name/config or", name, function=function)
    assert not tfds.is_prepared(name)


def test_what_is_not_prepared_does_not_load_tensorflow_datasets(tmp_path):
    code = (
        "import sys; from aevae_jax.data import Data; from aevae_jax.types import InputError\n"
        f"try: Data('nothing', directory={str(tmp_path)!r}).load()\n"
        "except InputError as error: print(error)\n"
        "print([name for name in ('tensorflow_datasets', 'tensorflow', 'jax') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[1:] == ["[]"]


# which version and configuration


@pytest.mark.parametrize(("name", "folder"), [
    ("mnist", "mnist/3.0.10"),
    ("mnist:3.0.2", "mnist/3.0.2"),
    ("mnist:3.0.3", None),
    ("mnist/letters", None),
    ("emnist", "emnist/letters/1.0.0"),
    ("emnist/digits", "emnist/digits/2.0.0"),
    ("emnist/digits:2.0.0", "emnist/digits/2.0.0"),
    ("emnist:2.0.0", None),
    ("smallnorb", None),
    ("downloads", None),
])  # fmt: skip
def test_the_newest_version_and_the_default_configuration_are_found(tmp_path, name, folder):
    for made in ("mnist/3.0.2", "mnist/3.0.10", "mnist/2.9.9", "mnist/incomplete.ABCDEF_4.0.0", "mnist/.aevae_cache",
                 "emnist/letters/1.0.0", "emnist/digits/2.0.0", "smallnorb/a/1.0.0"):  # fmt: skip
        (tmp_path / made).mkdir(parents=True)
        (tmp_path / made / "dataset_info.json").write_text("{}")
    for home, text in (
        ("emnist", '{"default_config_name": "letters"}'),
        ("smallnorb", '{"default_config_name": ".."}'),
    ):
        (tmp_path / home / ".config").mkdir()
        (tmp_path / home / ".config" / "metadata.json").write_text(text)
    assert tfds._find(name, tmp_path) == (tmp_path / folder if folder else None)
    assert tfds.is_prepared(name, str(tmp_path)) == (folder is not None)


# reading


def test_images_and_labels_are_those_that_were_prepared(tiny):
    found = tfds.read("tiny", root_of(tiny))
    check_tiny(found.parts)
    assert (found.levels, found.columns) == (256, ())


def test_mnist_and_its_relatives_come_in_the_order_of_their_authors(tiny):
    info = tiny / "dataset_info.json"
    module = {"moduleName": "tensorflow_datasets.image_classification.mnist"}
    info.write_text(json.dumps({**json.loads(info.read_text()), **module}))
    for resident in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            if not resident:
                patch.setattr(datasets, "RESIDENT_BYTES", 16)
            parts = tfds.read("tiny", root_of(tiny)).parts
        for part, images in TINY.items():
            assert datasets.in_memory(parts[part].x) == resident
            assert np.array_equal(parts[part].x[:], images)
            assert parts[part].labels.tolist() == [key % 10 for key in range(len(images))]


def test_the_splits_that_exist_are_taken(tmp_path):
    splits = {"train": random_images(9), "validation": random_images(3, 1), "extra": random_images(4, 2)}
    prepared(tmp_path, splits)
    check_tiny(tfds.read("tiny", str(tmp_path)).parts, {part: splits[part] for part in ("train", "validation")})


def test_images_without_labels_and_other_features_are_taken(tmp_path):
    prepared(tmp_path, TINY, labels=False)
    prepared(tmp_path, TINY, "texts", labels=False,
             features={"image": library.features.Image(shape=(4, 4, 1)), "label": library.features.Text()})  # fmt: skip
    for name in ("tiny", "texts"):
        parts = tfds.read(name, str(tmp_path)).parts
        assert parts["train"].labels is None
        assert np.array_equal(parts["train"].x, TINY["train"][stored_order("train", 30)])
        assert tfds.read(name, str(tmp_path)).parts["train"].labels is None  # out of the cache


def test_pictures_are_brought_to_the_stated_number_of_channels(tmp_path):
    """Grey pictures and palettes in a colour data set are what they show, as TensorFlow decodes them."""
    grey = np.repeat(random_images(3), 3, axis=3)
    few = np.array([[0, 0, 0], [250, 0, 0], [0, 0, 255]], np.uint8)[np.random.RandomState(0).randint(0, 3, (4, 4))]
    palette = io.BytesIO()
    Image.fromarray(few).convert("P", palette=Image.Palette.ADAPTIVE).save(palette, "PNG")
    prepared(tmp_path, {"train": [png(grey[0], "L"), grey[1], palette.getvalue()]}, shape=(4, 4, 3))
    x = tfds.read("tiny", str(tmp_path)).parts["train"].x
    assert np.array_equal(x, np.stack([grey[0], grey[1], few])[stored_order("train", 3)])


@pytest.mark.parametrize("whole", [True, False])
def test_an_unstated_size_is_that_of_the_first_image(tmp_path, monkeypatch, whole):
    if not whole:
        monkeypatch.setattr(datasets, "RESIDENT_BYTES", 10)
    same, other = random_images(5, shape=(3, 4, 3)), random_images(1, shape=(4, 3, 3))
    prepared(tmp_path, {"train": same}, "same", shape=(None, None, 3))
    prepared(tmp_path, {"train": [*same, *other]}, "unequal", shape=(None, None, 3))
    check_tiny(tfds.read("same", str(tmp_path)).parts, {"train": same})
    refused(r"data set 'unequal' \(.*\): got an image of \(\d, \d, 3\), expected images of one size, \(\d, \d, 3\) as",
            "unequal", str(tmp_path), function=lambda *given: tfds.read(*given).parts["train"].x[:])  # fmt: skip


@pytest.mark.parametrize(("options", "splits", "message"), [
    ({}, {"learn": TINY["train"], "test": TINY["test"]}, "got splits learn, test, expected one called train"),
    ({"features": {"text": library.features.Text()}}, TINY, "got features text, label, expected images, in a feature"),
    ({"features": {"image": library.features.Text()}}, TINY, "got features image, label, expected images, in a feature"),
    ({"features": {"image": library.features.Image(shape=(4, 4, 1), dtype=np.uint16)}}, TINY, "got images of type uint"),
    ({"shape": (2, 4, 4, 3)}, {"train": TINY["train"]}, r"got images of type uint8 and shape \(2, 4, 4, 3\), expected"),
    ({}, {"train": [b"no picture"]}, "UnidentifiedImageError"),
    ({}, {"train": [png(TINY["train"][0])[:60]]}, "got .*Error: .*, expected a data set as TFDS prepares it"),
    ({}, {"train": [png(TINY["train"][0], "I;16")]}, "a picture of mode I;16, which has more than 8 bits"),
    ({}, {"train": [png(TINY["train"][0][:3])]}, r"an image of \(3, 4, 1\), expected images of one size, \(4, 4, 1\)"),
])  # fmt: skip
def test_what_holds_no_images_of_8_bits_and_one_size_is_one_line(tmp_path, options, splits, message):
    folder = prepared(tmp_path, splits, **options)
    refused(f"data set 'tiny'.*{message}", "tiny", str(tmp_path))
    assert not (folder / cache.FOLDER).exists()


def test_files_that_only_tensorflow_reads_are_one_line(tmp_path):
    (tmp_path / "tiny" / "1.0.0").mkdir(parents=True)
    (tmp_path / "tiny" / "1.0.0" / "dataset_info.json").write_text('{"fileFormat": "tfrecord"}')
    for function in (tfds.read, tfds.prepare):
        refused("got tfrecord files, expected array_record files, .*; type: aevae data prepare tiny --directory ANOTHER",
                "tiny", str(tmp_path), function=function)  # fmt: skip


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json", "tiny-train.array_record-00000-of-00001"])
@pytest.mark.parametrize("damage", ["gone", "empty", "half", "flipped"])
def test_a_damaged_data_set_is_one_line(tiny, name, damage):
    path = tiny / name
    whole = bytearray(path.read_bytes())
    flipped = whole[:]
    flipped[len(whole) // 2 + 20] ^= 0x80  # of records: in the header of their second block
    damaged = {"empty": b"", "half": whole[: len(whole) // 2], "flipped": flipped}
    path.unlink()
    if damage != "gone":
        path.write_bytes(damaged[damage])
    refused("data set:? '?tiny|data set: got 'tiny'", "tiny", root_of(tiny))


def test_without_tensorflow_datasets_it_is_one_line(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    refused(r"tensorflow-datasets: got .*; type: pip install 'aevae-jax\[tfds\]'", "tiny", root_of(tiny))
    refused(r"tensorflow-datasets: got .*; type: pip install 'aevae-jax\[prepare\]'", "mnist", root_of(tiny),
            function=tfds.prepare)  # fmt: skip


# larger than memory


@pytest.fixture
def large(tiny, monkeypatch):
    monkeypatch.setattr(datasets, "RESIDENT_BYTES", 30 * 16 - 1)  # one byte less than the training images
    return tfds.read("tiny", root_of(tiny)).parts


def test_large_data_is_decoded_when_it_is_asked_for(large, tiny):
    check_tiny(large)
    x, whole = large["train"].x, TINY["train"][stored_order("train", 30)]
    assert not datasets.in_memory(x)
    assert (x.shape, x.dtype, len(x)) == ((30, 4, 4, 1), np.uint8, 30)
    for rows in (
        slice(3, 9),
        slice(None, None, -7),
        slice(40, 50),
        np.array([5, 5, 29, 0]),
        np.array([], int),
        [-1, 2],
    ):
        assert np.array_equal(x[rows], whole[rows])
    assert not (tiny / cache.FOLDER).exists()  # nothing is cached


def test_the_limit_is_what_the_images_of_a_split_need(tiny, monkeypatch):
    monkeypatch.setattr(datasets, "RESIDENT_BYTES", 30 * 16)
    assert datasets.in_memory(tfds.read("tiny", root_of(tiny)).parts["train"].x)
    monkeypatch.setattr(datasets, "RESIDENT_BYTES", 30 * 16 - 1)  # whatever the cache holds
    assert not datasets.in_memory(tfds.read("tiny", root_of(tiny)).parts["train"].x)


def test_large_and_small_data_are_the_same_data_set(tiny, monkeypatch):
    small = Data("tiny", directory=root_of(tiny)).load()
    monkeypatch.setattr(datasets, "RESIDENT_BYTES", 16)
    again = Data("tiny", directory=root_of(tiny)).load()
    assert again.record() == small.record()
    assert np.array_equal(again.validation.labels, small.validation.labels)


def test_rows_are_the_same_from_any_thread(large):
    whole = TINY["train"][stored_order("train", 30)]
    asked = [np.random.RandomState(seed).permutation(30)[:20] for seed in range(64)]
    with ThreadPoolExecutor(8) as pool:
        for rows, read in zip(asked, pool.map(large["train"].x.__getitem__, asked), strict=True):
            assert np.array_equal(read, whole[rows])


def test_examples_of_large_images_are_read_a_few_at_a_time(tiny, monkeypatch):
    monkeypatch.setattr(datasets, "BLOCK_BYTES", 50)  # three images
    asked, examples = [], tfds.Images.examples
    monkeypatch.setattr(tfds.Images, "examples", lambda self, rows: asked.append(rows) or examples(self, rows))
    check_tiny(tfds.read("tiny", root_of(tiny)).parts)
    assert [rows.stop - rows.start for rows in asked] == [3] * 12


# the cache


def forget_how_to_decode(monkeypatch):
    def decoded(*_):
        raise AssertionError("it was decoded again")

    monkeypatch.setattr(tfds, "_decode", decoded)


def count_decodings(monkeypatch):
    counts, decode = [], tfds._decode
    monkeypatch.setattr(tfds, "_decode", lambda *given: counts.append(given) or decode(*given))
    return counts


def test_the_second_start_decodes_nothing_and_imports_nothing_large(tiny, tmp_path):
    code = (
        f"import sys; from aevae_jax.data import Data; print(Data('tiny', directory={root_of(tiny)!r}).load().digest())\n"
        "print([name for name in ('tensorflow_datasets', 'tensorflow', 'jax') if name in sys.modules])"
    )
    first, second = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        for _ in range(2)
    )
    assert first.stdout.splitlines()[1] == "['tensorflow_datasets']"
    assert second.stdout.splitlines() == [first.stdout.splitlines()[0], "[]"]
    assert first.stderr == second.stderr == ""
    assert not (tmp_path / "cache").exists()  # it lies beside the data set


def test_tfds_does_not_see_the_cache(tiny):
    tfds.read("tiny", root_of(tiny))
    assert sorted(path.name for path in (tiny / cache.FOLDER).iterdir()) == [
        "manifest.json", "test.labels.npy", "test.x.npy", "train.labels.npy", "train.x.npy",
    ]  # fmt: skip
    builder = library.builder_from_directory(tiny)
    assert len(builder.as_data_source("train")) == 30
    assert library.builder("tiny", data_dir=root_of(tiny)).version == "1.0.0"
    assert not list(tiny.glob("*.aevae*")) and sorted(path.name for path in tiny.glob(".*")) == [cache.FOLDER]  # noqa: PT018


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


def edit(folder, change):
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def swap(folder, source):
    for one, other in (("train.x.npy", "test.x.npy"),):
        (folder / one).rename(folder / "third")
        (folder / other).rename(folder / one)
        (folder / "third").rename(folder / other)


DAMAGE = {
    "first byte": lambda folder, source: flip(folder / "train.x.npy", 0),
    "header": lambda folder, source: flip(folder / "train.x.npy", 70),
    "last byte": lambda folder, source: flip(folder / "train.x.npy", -1),
    "label": lambda folder, source: flip(folder / "test.labels.npy", -1),
    "truncated": lambda folder, source: os.truncate(folder / "train.x.npy", 200),
    "longer": lambda folder, source: os.truncate(folder / "train.x.npy", 2000),
    "empty": lambda folder, source: os.truncate(folder / "test.labels.npy", 0),
    "missing": lambda folder, source: (folder / "test.labels.npy").unlink(),
    "one more": lambda folder, source: shutil.copy(folder / "train.x.npy", folder / "validation.x.npy"),
    "swapped": swap,
    "no manifest": lambda folder, source: (folder / "manifest.json").unlink(),
    "no json": lambda folder, source: flip(folder / "manifest.json", 0),
    "bytes": lambda folder, source: (folder / "manifest.json").write_bytes(b"\xff\xfe\x00"),
    "nested": lambda folder, source: (folder / "manifest.json").write_text("[" * 100_000),
    "a list": lambda folder, source: (folder / "manifest.json").write_text("[]"),
    "other format": lambda folder, source: edit(folder, lambda m: m.update(format=m["format"] + 1)),
    "other source": lambda folder, source: edit(folder, lambda m: m.update(source="0" * 64)),
    "other shape": lambda folder, source: edit(folder, lambda m: m["shape"].update({"train.x": [15, 8, 4, 1]})),
    "other type": lambda folder, source: edit(folder, lambda m: m["type"].update({"train.x": "int8"})),
    "other sha256": lambda folder, source: edit(folder, lambda m: m["sha256"].update({"train.x.npy": "0" * 64})),
    "no sha256": lambda folder, source: edit(folder, lambda m: m.update(sha256=None)),
    "one entry less": lambda folder, source: [m.pop("test.x") for m in ()] or edit(folder, lambda m: m["shape"].popitem()),
    "no folder": lambda folder, source: shutil.rmtree(folder),
    "no array": lambda folder, source: [path.unlink() for path in folder.glob("*.npy")],
    "newer source": lambda folder, source: os.utime(source / "features.json"),
    "source with one more file": lambda folder, source: (source / "more").touch(),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_cache_that_is_damaged_or_of_another_source_is_made_anew(tiny, monkeypatch, damage):
    tfds.read("tiny", root_of(tiny))
    damage(tiny / cache.FOLDER, tiny)
    counts = count_decodings(monkeypatch)
    check_tiny(tfds.read("tiny", root_of(tiny)).parts)
    assert len(counts) == 1
    forget_how_to_decode(monkeypatch)
    check_tiny(tfds.read("tiny", root_of(tiny)).parts)


def test_every_single_byte_of_the_cache_counts(tiny, monkeypatch):
    """Whichever byte of an array or the manifest is flipped, what is loaded is what was stored, or nothing."""
    tfds.read("tiny", root_of(tiny))
    state, folder = cache.fingerprint(tiny), tiny / cache.FOLDER
    for path in (folder / "test.labels.npy", folder / "manifest.json"):
        for position in range(path.stat().st_size):
            flip(path, position)
            assert cache.load(tiny, state) is None
            flip(path, position)
    assert cache.load(tiny, state) is not None


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_the_cache_unpickles_nothing(tiny, tmp_path):
    tfds.read("tiny", root_of(tiny))
    trap = tmp_path / "sprung"
    for content in ("object", "plain"):
        path = tiny / cache.FOLDER / "test.labels.npy"
        if content == "object":
            np.save(path, np.array([Trap(trap)], object), allow_pickle=True)
        else:
            path.write_bytes(pickle.dumps(Trap(trap)))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        edit(tiny / cache.FOLDER, lambda m, digest=digest: m["sha256"].update({"test.labels.npy": digest}))
        check_tiny(tfds.read("tiny", root_of(tiny)).parts)
        assert not trap.exists()


def contents(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("variable", ["AEVAE_CACHE_DIR", "XDG_CACHE_HOME", "HOME"])
def test_what_is_read_only_is_cached_elsewhere(tiny, tmp_path, monkeypatch, variable):
    """Root can write into a folder without write bits, and leaves it alone as well."""
    place = {"AEVAE_CACHE_DIR": "own", "XDG_CACHE_HOME": "own/aevae_jax", "HOME": "own/.cache/aevae_jax"}[variable]
    for name in ("AEVAE_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path / "own"))
    before = contents(tiny)
    tiny.chmod(0o555)
    check_tiny(tfds.read("tiny", root_of(tiny)).parts)
    assert contents(tiny) == before
    assert len(list((tmp_path / place / "arrays").glob("*/train.x.npy"))) == 1
    forget_how_to_decode(monkeypatch)
    check_tiny(tfds.read("tiny", root_of(tiny)).parts)
    tiny.chmod(0o755)


def test_data_sets_elsewhere_have_caches_of_their_own(tmp_path):
    for seed, home in enumerate(("one", "two")):
        splits = {"train": random_images(5, seed)}
        folder = prepared(tmp_path / home, splits)
        folder.chmod(0o555)
        check_tiny(tfds.read("tiny", str(tmp_path / home)).parts, splits)
        check_tiny(tfds.read("tiny", str(tmp_path / home)).parts, splits)
    assert len(list((tmp_path / "cache" / "arrays").iterdir())) == 2


@pytest.mark.parametrize("why", ["no write bits", "a file", "disk full"])
def test_without_a_place_that_can_be_written_nothing_is_cached(tiny, tmp_path, monkeypatch, why):
    tiny.chmod(0o555)
    if why == "no write bits":
        (tmp_path / "cache").mkdir(mode=0o555)
    elif why == "a file":
        (tmp_path / "cache").touch()
    else:
        monkeypatch.setattr(np, "save", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.ENOSPC, "disk full")))
    counts = count_decodings(monkeypatch)
    for _ in range(2):
        check_tiny(tfds.read("tiny", root_of(tiny)).parts)
    assert len(counts) == 2
    assert not [path for path in tmp_path.rglob("*.npy")]
    assert not list((tmp_path / "cache").glob("arrays/*"))


WRITER = """
import sys, numpy as np
from pathlib import Path
from aevae_jax.data import cache
source, state, rounds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
arrays = {"train.x": np.arange(100_000), "test.x": np.arange(1000)}
for _ in range(rounds):
    cache.store(source, state, arrays)
    found = cache.load(source, state)
    assert found is None or all(np.array_equal(found[name], arrays[name]) for name in arrays)
"""


def test_processes_that_cache_at_once_do_not_harm_each_other(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    command = [sys.executable, "-c", WRITER, str(source), "state", "25"]
    writers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [writer.communicate(timeout=120)[1] for writer in writers] == [""] * 3
    assert np.array_equal(cache.load(source, "state")["test.x"], np.arange(1000))
    assert contents(source) == [cache.FOLDER, *(f"{cache.FOLDER}/{name}" for name in
                                                ("manifest.json", "test.x.npy", "train.x.npy"))]  # fmt: skip


def test_a_writer_that_is_killed_leaves_nothing_that_is_read(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    kill = (
        "import os, aevae_jax.data.cache as c; c._sync = lambda path: os._exit(9)\n"  # all is written, and not renamed
    )
    done = subprocess.run([sys.executable, "-c", kill + WRITER, str(source), "state", "1"], check=False, timeout=60)
    assert done.returncode == 9
    (left,) = source.iterdir()
    assert cache.load(source, "state") is None
    cache.store(source, "state", {"x": np.arange(3)})
    assert cache.load(source, "state")["x"].tolist() == [0, 1, 2]
    assert left.exists()  # it may be another process at work
    os.utime(left, (0, 0))
    cache.store(source, "state", {"x": np.arange(3)})
    assert [path.name for path in source.iterdir()] == [cache.FOLDER]


# preparing


@pytest.fixture
def with_tensorflow(monkeypatch):
    """As if TensorFlow were installed: for pictures that are encoded already, TFDS does not miss it."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True if name == "tensorflow" else find(name))


@pytest.fixture
def offline(monkeypatch):
    def refuse(url, timeout):
        asked.append((url, timeout))
        raise urllib.error.URLError(socket.gaierror(-2, "Name or service not known"))

    asked = []
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return asked


def known_as(monkeypatch, builder):
    monkeypatch.setattr(tfds, "_builder_class", lambda base: builder)


URL = "http://data.example/files/images.gz"


def downloading(content=b"the file of the authors", **attributes):
    """A builder whose pictures come from one registered file; `fails` is raised after the third picture."""
    info = library.download.checksums.UrlInfo(
        size=len(content), checksum=hashlib.sha256(content).hexdigest(), filename="images.gz"
    )
    fails = attributes.pop("fails", None)

    class Downloading(builder_class(TINY), skip_registration=True):
        name = "tiny"
        url_infos = {URL: info}  # noqa: RUF012

        def _split_generators(self, dl_manager):
            assert dl_manager.download(URL).read_bytes() == content
            return super()._split_generators(dl_manager)

        def _generate_examples(self, pictures):
            for index, example in super()._generate_examples(pictures):
                if fails and index == 3:
                    raise fails
                yield index, example

    for key, value in attributes.items():
        setattr(Downloading, key, value)
    return Downloading


@pytest.fixture
def manual(tmp_path):
    folder = tmp_path / "manual"
    folder.mkdir()
    (folder / "images.gz").write_bytes(b"the file of the authors")
    return folder


def test_what_is_prepared_can_be_read_without_tensorflow(tmp_path, monkeypatch, with_tensorflow, offline, manual):
    known_as(monkeypatch, downloading())
    folder = tfds.prepare("tiny", str(tmp_path / "data"), str(manual))
    assert folder == tmp_path / "data" / "tiny" / "1.0.0"
    assert tfds.is_prepared("tiny", str(tmp_path / "data"))
    check_tiny(tfds.read("tiny", str(tmp_path / "data")).parts)
    assert offline == []  # with all files there, nobody is asked
    monkeypatch.setattr(tfds, "_import", lambda extra: pytest.fail("nothing is needed to say that it is there"))
    assert tfds.prepare("tiny", str(tmp_path / "data")) == folder


def test_files_in_the_folder_of_tfds_are_found_without_an_option(
    tmp_path, monkeypatch, with_tensorflow, offline, manual
):
    known_as(monkeypatch, downloading())
    (tmp_path / "data" / "downloads").mkdir(parents=True)
    manual.rename(tmp_path / "data" / "downloads" / "manual")
    tfds.prepare("tiny", str(tmp_path / "data"))
    check_tiny(tfds.read("tiny", str(tmp_path / "data")).parts)


def test_a_default_configuration_that_was_prepared_is_found(tmp_path, monkeypatch, with_tensorflow):
    configs = [library.core.BuilderConfig(name=name, version="2.0.0") for name in ("grey", "other")]
    known_as(monkeypatch, builder_class(TINY, BUILDER_CONFIGS=configs))
    assert tfds.prepare("tiny", str(tmp_path)) == tmp_path / "tiny" / "grey" / "2.0.0"
    for name in ("tiny", "tiny/grey", "tiny/grey:2.0.0"):
        check_tiny(tfds.read(name, str(tmp_path)).parts)
        assert tfds.prepare(name, str(tmp_path)) == tmp_path / "tiny" / "grey" / "2.0.0"
    assert not tfds.is_prepared("tiny/other", str(tmp_path))
    refused("data set 'tiny/none' .* BuilderConfig none not found .*expected a configuration and version", "tiny/none",
            str(tmp_path), function=tfds.prepare)  # fmt: skip


def test_without_tensorflow_nothing_is_prepared(tmp_path, monkeypatch, offline):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorflow" else find(name))
    message = refused("TensorFlow: got not installed", "mnist", str(tmp_path / "data"), function=tfds.prepare)
    assert message.endswith("type: pip install 'aevae-jax[prepare]'")
    assert not (tmp_path / "data").exists()
    assert offline == []


@pytest.mark.parametrize(("name", "message"), [
    ("fashion_mnst", "got 'fashion_mnst', expected a name that TensorFlow Datasets knows; did you mean fashion_mnist?"),
    ("qqqqqqqq", "got 'qqqqqqqq', expected a name that TensorFlow Datasets knows"),
    ("mnist:9.9.9", "Dataset mnist cannot be loaded at version 9.9.9, only: 3.0.1"),
    ("glue", "got features sentence, label, idx, expected images"),
])  # fmt: skip
def test_what_tfds_cannot_prepare_is_one_line_and_no_wait(tmp_path, with_tensorflow, offline, name, message):
    tfds._import("prepare")
    began = time.monotonic()
    assert message in refused("data set", name, str(tmp_path / "data"), function=tfds.prepare)
    assert time.monotonic() - began < 5
    assert offline == []
    assert not (tmp_path / "data").exists()


def test_without_a_network_the_files_to_fetch_are_named(tmp_path, with_tensorflow, offline):
    (tmp_path / "train-images-idx3-ubyte.gz").touch()
    data = str(tmp_path / "data")
    message = refused("network: got no answer from", "fashion_mnist", data, str(tmp_path), function=tfds.prepare)
    assert len(offline) == 1
    assert offline[0][1] == tfds.NETWORK_SECONDS == 5
    assert "Name or service not known" in message
    for file in ("train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
        assert f"/{file}" in message
    assert "train-images" not in message  # it is there
    assert message.endswith(f"into a folder DIR and type: aevae data prepare fashion_mnist --directory {data} "
                            "--manual-dir DIR")  # fmt: skip
    assert not (tmp_path / "data").exists()


def test_files_are_named_as_tfds_looks_for_them(tmp_path, with_tensorflow, offline):
    message = refused("network", "celeb_a", str(tmp_path), function=tfds.prepare)
    assert " as img_align_celeba.zip, " in message
    assert " and 1 more elsewhere" in message


def test_a_server_that_does_not_answer_is_waited_for_a_few_seconds(tmp_path, monkeypatch, with_tensorflow):
    monkeypatch.setattr(tfds, "NETWORK_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/images.gz"
        info = library.download.checksums.UrlInfo(size=1, checksum="0", filename="images.gz")
        known_as(monkeypatch, downloading(url_infos={url: info}))
        began = time.monotonic()
        refused(r"network: got no answer from 127.0.0.1 \(timed out\)", "tiny", str(tmp_path), function=tfds.prepare)
        assert time.monotonic() - began < 5


def test_a_server_that_refuses_is_left_to_tfds(tmp_path, monkeypatch, with_tensorflow):
    def forbidden(url, timeout):
        raise urllib.error.HTTPError(url, 403, "Forbidden", {}, None)

    monkeypatch.setattr(urllib.request, "urlopen", forbidden)
    tfds._check_downloads(downloading()(data_dir=tmp_path), tmp_path, "")


def test_files_that_are_only_given_by_hand_are_asked_for(tmp_path, with_tensorflow, offline):
    message = refused("files of imagenet2012: got none, expected some fetched by hand: manual_dir should contain two",
                      "imagenet2012", str(tmp_path), function=tfds.prepare)  # fmt: skip
    assert message.endswith(f"type: aevae data prepare imagenet2012 --directory {tmp_path} --manual-dir DIR")


def test_a_folder_of_files_that_does_not_exist_is_one_line(tmp_path, with_tensorflow):
    refused(r"folder \(--manual-dir\): got nowhere, expected one that exists", "mnist", str(tmp_path), "nowhere",
            function=tfds.prepare)  # fmt: skip


def test_another_file_of_that_name_is_one_line(tmp_path, monkeypatch, with_tensorflow, offline, manual):
    known_as(monkeypatch, downloading())
    (manual / "images.gz").write_bytes(b"another file of that name")
    refused("data set 'tiny' .*NonMatchingChecksumError.*images.gz", "tiny", str(tmp_path / "data"), str(manual),
            function=tfds.prepare)  # fmt: skip


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), RuntimeError("a bad\nfile"), OSError(errno.ENOSPC, "disk full")]
)
def test_what_fails_or_is_interrupted_leaves_nothing_behind(tmp_path, monkeypatch, with_tensorflow, manual, error):
    known_as(monkeypatch, downloading(fails=error))
    with pytest.raises((InputError, KeyboardInterrupt)) as caught:
        tfds.prepare("tiny", str(tmp_path / "data"), str(manual))
    if not isinstance(error, KeyboardInterrupt):
        assert str(caught.value).startswith(f"data set 'tiny' ({tmp_path / 'data'}): got {type(error).__name__}: ")
        assert "\n" not in str(caught.value)
    assert not tfds.is_prepared("tiny", str(tmp_path / "data"))
    assert [path for path in contents(tmp_path / "data") if not path.startswith("downloads")] == ["tiny"]
    known_as(monkeypatch, downloading())
    tfds.prepare("tiny", str(tmp_path / "data"), str(manual))
    check_tiny(tfds.read("tiny", str(tmp_path / "data")).parts)


# Fashion-MNIST


@pytest.fixture(scope="module")
def fashion_mnist(fashion_mnist_directory, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AEVAE_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield Data("fashion_mnist", directory=str(fashion_mnist_directory)).load()


def upstream(path, header):
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)


@pytest.mark.slow
def test_fashion_mnist_is_split_as_published(fashion_mnist, fashion_mnist_directory):
    assert [len(getattr(fashion_mnist, part)) for part in PARTS] == [50_000, 10_000, 10_000]
    assert (fashion_mnist.event_shape, fashion_mnist.levels, fashion_mnist.left_out) == ((28, 28, 1), 256, 0)
    assert np.bincount(fashion_mnist.test.labels).tolist() == [1000] * 10
    assert fashion_mnist.train.labels[:8].tolist() == [9, 0, 0, 3, 0, 2, 7, 2]  # the order of the upstream files
    assert fashion_mnist.test.labels[:8].tolist() == [9, 2, 1, 1, 6, 1, 4, 6]
    files = fashion_mnist_directory.parent / "fashion-mnist"
    if not files.is_dir():
        pytest.skip(f"the files of the authors are not in {files}")
    whole = {name: np.concatenate([getattr(fashion_mnist.train, name), getattr(fashion_mnist.validation, name)])
             for name in ("x", "labels")}  # fmt: skip
    assert np.array_equal(whole["x"].ravel(), upstream(files / "train-images-idx3-ubyte.gz", 16))
    assert np.array_equal(whole["labels"], upstream(files / "train-labels-idx1-ubyte.gz", 8))
    assert np.array_equal(fashion_mnist.test.x.ravel(), upstream(files / "t10k-images-idx3-ubyte.gz", 16))
    assert np.array_equal(fashion_mnist.test.labels, upstream(files / "t10k-labels-idx1-ubyte.gz", 8))


@pytest.mark.slow
def test_fashion_mnist_starts_at_once_the_second_time(fashion_mnist_directory, tmp_path):
    code = (
        "import sys; from aevae_jax.data import Data; dataset = Data('fashion_mnist').load()\n"
        "print([name for name in ('tensorflow_datasets', 'tensorflow', 'jax') if name in sys.modules])"
    )
    environment = {**os.environ, "TFDS_DATA_DIR": str(fashion_mnist_directory), "AEVAE_CACHE_DIR": str(tmp_path)}
    seconds = []
    for _ in range(3):
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300,
                              env=environment)  # fmt: skip
        seconds.append(time.monotonic() - began)
    assert done.stdout == "[]\n"
    assert min(seconds[1:]) < 3
