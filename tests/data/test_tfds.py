"""TensorFlow Datasets: names, versions and splits, what is read without TensorFlow, and what is refused."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_tfds import TINY, check_tiny, library, png, prepared, random_images, read, refused, stored_order

from aevae_jax.data import Data, cache, datasets, tfds, tfds_files, tfds_prepare
from aevae_jax.types import InputError

PARTS = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test writes to the cache of whoever runs it."""
    monkeypatch.setenv("AEVAE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)


@pytest.fixture
def tiny(tmp_path):
    return prepared(tmp_path / "data", TINY)


# what is not prepared here


@pytest.fixture
def without_tensorflow(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)


@pytest.mark.usefixtures("without_tensorflow")
@pytest.mark.parametrize("name", ["no_such_data_set", "numerals", "fashion_mnist:9.9.9", "emnist/letters"])
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
        f"data set: got {name!r}, expected digits, sprites, or one prepared in {tmp_path} "
        f"(emnist/digits:3.1.0, fashion_mnist:3.0.1); type: aevae data prepare {name}, "
        'after pip install -e ".[prepare]"'
    )
    assert not tfds.is_prepared(name)


def test_the_command_names_the_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "tensorflow")  # nothing is to be installed
    root = tmp_path / "a b"  # that does not exist is empty
    message = refused(
        r"got 'mnist', expected digits, sprites, or one prepared in .* \(none\)", tfds.read, "mnist", str(root)
    )
    assert message.endswith(f"type: aevae data prepare mnist --directory '{root}'")


def test_a_folder_of_that_name_is_reached_with_a_dot(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    message = refused("got 'mine'", tfds.read, "mine", str(tmp_path))
    assert message.endswith(", or write ./mine for the folder of that name")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "../..",
        "../../etc/passwd",
        "a/../b",
        "a/..",
        "Mnist",
        "mnist\n",
        "mnist:3",
        "mnist/x:3.*.*",
        "/etc",
        "a b",
        "a;b",
        "$(a)",
        "ünder",
        "a/b/c",
        "3d",
        "a:b",
    ],
)
def test_what_cannot_be_a_name_is_refused_without_a_look_at_the_disk(monkeypatch, name):
    def looked(*_, **__):
        raise AssertionError("the disk was touched")

    for method in ("glob", "exists", "iterdir", "stat", "open"):
        monkeypatch.setattr(Path, method, looked)
    for function in (tfds.read, tfds_prepare.prepare):
        refused("data set: got .*, expected digits, a name such as mnist, name/config or", function, name)
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


@pytest.mark.parametrize(
    ("name", "folder"),
    [
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
    ],
)
def test_the_newest_version_and_the_default_configuration_are_found(tmp_path, name, folder):
    for made in (
        "mnist/3.0.2",
        "mnist/3.0.10",
        "mnist/2.9.9",
        "mnist/incomplete.ABCDEF_4.0.0",
        "mnist/.aevae_cache",
        "emnist/letters/1.0.0",
        "emnist/digits/2.0.0",
        "smallnorb/a/1.0.0",
    ):
        (tmp_path / made).mkdir(parents=True)
        (tmp_path / made / "dataset_info.json").write_text("{}")
    for home, config in (("emnist", "letters"), ("smallnorb", "../mnist"), ("mnist", 7)):
        (tmp_path / home / ".config").mkdir()
        (tmp_path / home / ".config" / "metadata.json").write_text(json.dumps({"default_config_name": config}))
    assert tfds.find(name, tmp_path) == (tmp_path / folder if folder else None)
    assert tfds.is_prepared(name, str(tmp_path)) == (folder is not None)


# reading


def test_classes_are_called_as_the_data_set_says(tmp_path):
    (tmp_path / "label.labels.txt").write_bytes("T-shirt/top\nB\u00e4r\n\n\xff".encode("latin-1"))
    assert tfds_files.class_names(tmp_path) == ("T-shirt/top", "B\ufffdr", "", "\ufffd")
    (tmp_path / "label.labels.txt").unlink()
    assert tfds_files.class_names(tmp_path) == ()


def test_images_and_labels_are_those_that_were_prepared(tiny):
    check_tiny(read(tiny))
    (tiny / ".hidden").symlink_to("nowhere")  # is none of its files
    found = tfds.read("tiny:1.0.0", str(tiny.parents[1]))
    check_tiny(found.parts)
    assert (found.levels, found.version, found.columns) == (256, "1.0.0", ())
    (tiny / "label.labels.txt").write_text("cat\ndog\n")
    assert tfds.read("tiny", str(tiny.parents[1])).class_names == ("cat", "dog")


@pytest.mark.parametrize("limit", [2**30, 16])
def test_mnist_and_its_relatives_come_in_the_order_of_their_authors(tiny, monkeypatch, limit):
    monkeypatch.setattr(datasets, "RESIDENT_BYTES", limit)
    info = tiny / "dataset_info.json"
    module = {"moduleName": "tensorflow_datasets.image_classification.mnist"}
    info.write_text(json.dumps({**json.loads(info.read_text()), **module}))
    parts = read(tiny)
    for part, images in TINY.items():
        assert datasets.in_memory(parts[part].x) == (limit == 2**30)
        assert np.array_equal(parts[part].x[:], images)
        assert parts[part].labels.tolist() == [key % 10 for key in range(len(images))]


def test_the_splits_that_exist_are_taken(tmp_path):
    splits = {"train": random_images(9), "validation": random_images(3, 1), "extra": random_images(4, 2)}
    check_tiny(read(prepared(tmp_path, splits)), {part: splits[part] for part in ("train", "validation")})


def test_a_split_without_examples_is_none(tiny):
    info = json.loads((tiny / "dataset_info.json").read_text())
    for split in info["splits"]:
        if split["name"] == "test":
            split["shardLengths"], split["numBytes"] = [], "0"
    (tiny / "dataset_info.json").write_text(json.dumps(info))
    for path in tiny.glob("tiny-test*"):
        path.unlink()
    check_tiny(read(tiny), {"train": TINY["train"]})


IMAGE, TEXT = library.features.Image, library.features.Text


@pytest.mark.parametrize("features", [{}, {"label": TEXT()}, {"label": IMAGE()}])
def test_images_without_labels_are_taken(tmp_path, features):
    folder = prepared(tmp_path, TINY, labels=False, features={"image": IMAGE(shape=(4, 4, 1)), **features})
    for _ in ("decoded", "cached"):
        parts = read(folder)
        assert parts["train"].labels is None
        assert np.array_equal(parts["train"].x, TINY["train"][stored_order("train", 30)])


def test_pictures_are_brought_to_the_stated_number_of_channels(tmp_path):
    """Grey pictures and palettes in a colour data set are what they show, as TensorFlow decodes them."""
    grey = np.repeat(random_images(2), 3, axis=3)
    few = np.array([[0, 0, 0], [250, 0, 0], [0, 0, 255]], np.uint8)[np.random.RandomState(0).randint(0, 3, (4, 4))]
    palette = io.BytesIO()
    Image.fromarray(few).convert("P", palette=Image.Palette.ADAPTIVE).save(palette, "PNG")
    folder = prepared(tmp_path, {"train": [png(grey[0], "L"), grey[1], palette.getvalue()]}, shape=(4, 4, 3))
    assert np.array_equal(read(folder)["train"].x, np.stack([*grey, few])[stored_order("train", 3)])


def test_transparent_pictures_keep_their_four_channels(tmp_path):
    splits = {"train": random_images(3, shape=(4, 4, 4))}
    check_tiny(read(prepared(tmp_path, splits, shape=(4, 4, 4))), splits)


@pytest.mark.parametrize("limit", [2**30, 16])
def test_a_size_that_is_not_stated_is_that_of_the_first_image(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(datasets, "RESIDENT_BYTES", limit)
    same, other = random_images(5, shape=(3, 4, 3)), random_images(1, shape=(4, 3, 3))
    check_tiny(read(prepared(tmp_path / "same", {"train": same}, shape=(None, None, 3))), {"train": same})
    unequal = prepared(tmp_path / "unequal", {"train": [*same, *other]}, shape=(None, None, 3))
    message = r"data set 'tiny' \(.*\): got an image of \(\d, \d, 3\), expected images of one size, \(\d, \d, 3\) as"
    refused(message, lambda: read(unequal)["train"].x[:])


ONE = {"train": [b"a text"]}


@pytest.mark.parametrize(
    ("options", "splits", "message"),
    [
        ({}, {"learn": TINY["train"], "test": TINY["test"]}, "got splits learn, test, expected one called train"),
        ({"features": {"text": TEXT()}}, ONE, "got features label, text, expected images, in a feature called image"),
        ({"features": {"image": TEXT()}}, ONE, "got features image, label, expected images, in a feature called image"),
        (
            {"features": {"image": IMAGE(shape=(4, 4, 1), dtype=np.uint16)}},
            TINY,
            "got images of type .*uint16.* and shape",
        ),
        ({"shape": (2, 4, 4, 3)}, {"train": TINY["train"]}, r"got images of type .*uint8.* and shape \(2, 4, 4, 3\)"),
        ({}, {"train": [b"no picture"]}, "UnidentifiedImageError"),
        ({}, {"train": [png(TINY["train"][0])[:60]]}, "got .*Error: .*, expected a data set as TFDS prepares it"),
        ({}, {"train": [png(TINY["train"][0], "I;16")]}, "a picture of mode I;16, which has more than 8 bits"),
        (
            {},
            {"train": [png(TINY["train"][0][:3])]},
            r"an image of \(3, 4, 1\), expected images of one size, \(4, 4, 1\)",
        ),
    ],
)
def test_what_holds_no_images_of_8_bits_and_one_size_is_one_line(tmp_path, options, splits, message):
    folder = prepared(tmp_path, splits, **options)
    refused(f"data set 'tiny'.*{message}", read, folder)
    assert not (folder / cache.FOLDER).exists()


def test_files_that_only_tensorflow_reads_are_one_line(tmp_path):
    (tmp_path / "tiny" / "1.0.0").mkdir(parents=True)
    (tmp_path / "tiny" / "1.0.0" / "dataset_info.json").write_text('{"fileFormat": "tfrecord"}')
    for function in (tfds.read, tfds_prepare.prepare):
        message = "got tfrecord files, expected array_record .*; type: aevae data prepare tiny --directory ANOTHER"
        refused(message, function, "tiny", str(tmp_path))


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({}, "got tfrecord files, expected array_record"),
        ({"fileFormat": "riegeli", "alternativeFileFormats": ["parquet"]}, "got riegeli files"),
        ({"fileFormat": "tfrecord", "alternativeFileFormats": ["array_record"]}, ""),
        ({"fileFormat": "array_record"}, ""),
    ],
)
def test_one_of_the_formats_must_be_read_without_tensorflow(tmp_path, info, message):
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    (tmp_path / "features.json").write_text("{}")
    if message:
        refused(f"{message}.*; type: the command", tfds_files.check_features, "tiny", tmp_path, "the command")
    else:
        tfds_files.check_features("tiny", tmp_path, "the command")


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json", "tiny-train.array_record-00000-of-00001"])
@pytest.mark.parametrize("damage", ["gone", "empty", "half", "flipped"])
def test_a_damaged_data_set_is_one_line(tiny, name, damage):
    whole = bytearray((tiny / name).read_bytes())
    flipped = whole[:]
    flipped[len(whole) // 2 + 20] ^= 0x80  # of records: in the header of their second block
    (tiny / name).unlink()
    if damage != "gone":
        (tiny / name).write_bytes({"empty": b"", "half": whole[: len(whole) // 2], "flipped": flipped}[damage])
    refused("data set '?tiny'?|data set: got 'tiny'", read, tiny)


@pytest.mark.parametrize(
    ("part", "counts"), [("train", ["29"]), ("train", ["31"]), ("test", ["5"]), ("test", ["0"]), ("test", [])]
)
def test_there_are_as_many_records_as_it_says(tiny, part, counts):
    info = json.loads((tiny / "dataset_info.json").read_text())
    for split in info["splits"]:
        if split["name"] == part:
            split["shardLengths"] = counts
    (tiny / "dataset_info.json").write_text(json.dumps(info))
    refused(
        f"data set 'tiny' .*: got {len(TINY[part])} records of {part}, expected .*dataset_info.json says", read, tiny
    )


@pytest.mark.parametrize("package", ["tensorflow_datasets", "array_record"])
def test_without_tensorflow_datasets_it_is_one_line(tiny, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    refused(r'tensorflow-datasets: got .*; type in the checkout .*: pip install -e "\.\[tfds\]"', read, tiny)


# larger than memory


@pytest.fixture
def large(tiny, monkeypatch):
    monkeypatch.setattr(datasets, "RESIDENT_BYTES", 30 * 16 - 1)  # one byte less than the training images
    return read(tiny)


def test_large_data_is_decoded_when_it_is_asked_for(large, tiny):
    check_tiny(large)
    x, whole = large["train"].x, TINY["train"][stored_order("train", 30)]
    assert not datasets.in_memory(x)
    assert (x.shape, x.dtype, len(x)) == ((30, 4, 4, 1), np.uint8, 30)
    for rows in (slice(3, 9), slice(None, None, -7), slice(40, 50), np.array([5, 5, 29, 0]), np.array([], int), [-1]):
        assert np.array_equal(x[rows], whole[rows])
    assert not (tiny / cache.FOLDER).exists()  # nothing is cached


def test_the_limit_is_what_the_images_of_a_split_need(tiny, monkeypatch):
    monkeypatch.setattr(datasets, "RESIDENT_BYTES", 30 * 16)
    assert datasets.in_memory(read(tiny)["train"].x)
    monkeypatch.setattr(datasets, "RESIDENT_BYTES", 30 * 16 - 1)  # whatever the cache holds
    assert not datasets.in_memory(read(tiny)["train"].x)


def test_large_and_small_data_are_the_same_data_set(tiny, monkeypatch):
    small = Data("tiny", directory=str(tiny.parents[1])).load()
    monkeypatch.setattr(datasets, "RESIDENT_BYTES", 16)
    again = Data("tiny", directory=str(tiny.parents[1])).load()
    assert again.record() == small.record()
    assert np.array_equal(again.validation.labels, small.validation.labels)


def test_rows_are_the_same_from_any_thread(large):
    whole = TINY["train"][stored_order("train", 30)]
    asked = [np.random.RandomState(seed).permutation(30)[:20] for seed in range(64)]
    with ThreadPoolExecutor(8) as pool:
        for rows, images in zip(asked, pool.map(large["train"].x.__getitem__, asked), strict=True):
            assert np.array_equal(images, whole[rows])


def test_examples_of_large_images_are_read_a_few_at_a_time(tiny, monkeypatch):
    monkeypatch.setattr(datasets, "BLOCK_BYTES", 50)  # three images
    asked, examples = [], tfds.Images.examples
    monkeypatch.setattr(tfds.Images, "examples", lambda self, rows: asked.append(rows) or examples(self, rows))
    check_tiny(read(tiny))
    assert [rows.stop - rows.start for rows in asked] == [3] * 12


# Fashion-MNIST


@pytest.mark.slow
def test_fashion_mnist_is_split_as_published_and_starts_at_once_the_second_time(fashion_mnist_directory, tmp_path):
    code = (
        "import sys; from aevae_jax.data import Data; Data('fashion_mnist').load()\n"
        "print([name for name in ('tensorflow_datasets', 'tensorflow', 'jax') if name in sys.modules])"
    )
    environment = {**os.environ, "TFDS_DATA_DIR": str(fashion_mnist_directory)}
    seconds = []
    for imported in (["tensorflow_datasets"], [], []):
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300, env=environment
        )
        seconds.append(time.monotonic() - began)
        assert done.stdout == f"{imported}\n"
    assert min(seconds[1:]) < 3  # of the whole process
    dataset = Data("fashion_mnist", directory=str(fashion_mnist_directory)).load()
    assert [len(getattr(dataset, part)) for part in PARTS] == [50_000, 10_000, 10_000]
    assert (dataset.event_shape, dataset.levels) == ((28, 28, 1), 256)
    assert np.bincount(dataset.test.labels).tolist() == [1000] * 10
    assert dataset.train.labels[:8].tolist() == [9, 0, 0, 3, 0, 2, 7, 2]  # the order of the upstream files
    assert dataset.test.labels[:8].tolist() == [9, 2, 1, 1, 6, 1, 4, 6]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("fashionmnist", "did you mean fashion_mnist? type: aevae data prepare fashion_mnist"),
        ("Fashion-MNIST", "did you mean fashion_mnist?"),
        ("cifar-10", "did you mean cifar10?"),
        ("digit", "did you mean digits?"),
        ("minst", "did you mean mnist?"),
        ("kmnst", "did you mean kmnist?"),
        ("emnst", "did you mean emnist?"),
        ("binarised_mnist", "did you mean binarized_mnist?"),
        ("cifar-100", "did you mean cifar100?"),
        ("svhn_croped", "did you mean svhn_cropped?"),
        ("omniglott", "did you mean omniglot?"),
        ("dsprite", "did you mean dsprites?"),
        ("shape3d", "did you mean shapes3d?"),
        ("small_norb", "did you mean smallnorb?"),
        ("celeba", "did you mean celeb_a?"),
        ("stl_10", "did you mean stl10?"),
        ("mnist_corrupted", "type: aevae data prepare mnist_corrupted"),
        ("colorectal_histology", "type: aevae data prepare colorectal_histology"),
    ],
)
def test_a_misspelled_name_is_recognised(name, hint, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(InputError) as error:
        Data(name).load()
    assert str(error.value).split("; ")[-1].startswith(hint)


def test_what_is_meant_and_prepared_need_not_be_prepared(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    (tmp_path / "mnist" / "3.0.1").mkdir(parents=True)
    (tmp_path / "mnist" / "3.0.1" / "dataset_info.json").write_text("{}")
    assert refused("got 'mnst'", tfds.read, "mnst").endswith("(mnist:3.0.1); did you mean mnist?")
    assert refused("got 'digit'", tfds.read, "digit").endswith("(mnist:3.0.1); did you mean digits?")


def test_a_directory_is_ones_own_if_it_is_the_one_that_is_read(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "link"))
    assert [tfds.is_own(str(path)) for path in ("", tmp_path / "data", tmp_path / "link", tmp_path)] == [True] * 3 + [
        False
    ]
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tfds.root_of("") == tmp_path / "tensorflow_datasets"
    assert tfds.root_of("~/mine") == tmp_path / "mine"
    assert tfds.is_own("~/tensorflow_datasets")


def test_no_such_user_is_no_such_folder(monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", "~nosuchuser/data")
    with pytest.raises(InputError, match=r"prepared in ~nosuchuser/data \(none\)"):
        Data("mnist").load()


# what a stranger's folder may hold

DICT = "tensorflow_datasets.core.features.features_dict.FeaturesDict"


@pytest.mark.parametrize(
    "spelled",
    [
        '{{"pythonClassName": "{0}", "featuresDict": {{"features": {{}}}}}}',
        '{{"python_class_name": "{0}", "jsonFeature": {{"json": "{{}}"}}}}',
        '{{"type": "{0}", "content": {{}}}}',
        '{{"pythonClassName": "{0}", "pythonClassName": "tensorflow_datasets.core.features.text_feature.Text"}}',
        '{{"pythonClassName": "'
        + DICT
        + '", "featuresDict": {{"features": {{"image": {{"pythonClassName": "{0}"}}}}}}}}',
        '{{"pythonClassName": "' + DICT + '", "jsonFeature": '
        '{{"json": "{{\\"x\\": {{\\"type\\": \\"{0}\\", \\"content\\": {{}}}}}}"}}}}',
    ],
)
def test_no_module_that_features_name_is_imported(tiny, tmp_path, monkeypatch, spelled):
    (tmp_path / "strange_module.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    (tiny / "features.json").write_text(spelled.format("strange_module.Image"))
    refused("got the class strange_module.Image, expected features that TensorFlow Datasets itself defines", read, tiny)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("file", ["features.json", "dataset_info.json", "label.labels.txt", "another"])
def test_a_pipe_in_a_data_set_is_one_line(tiny, file):
    (tiny / file).unlink(missing_ok=True)
    os.mkfifo(tiny / file)
    refused("got (a FIFO, a device or a broken link|'tiny')", read, tiny)


def test_a_giant_without_content_is_not_read(tiny):
    with (tiny / "features.json").open("r+b") as file:
        file.truncate(2**40)
    refused("got 1,099,511,627,776 bytes, expected at most 16,777,216", read, tiny)


def test_a_missing_home_folder_is_one_line(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", "~nosuchuser/data")
    refused("expected digits, sprites, or one prepared in ~nosuchuser/data", tfds.read, "mnist")
    refused("directory: got ~nosuchuser/data, expected a home folder that exists", tfds_prepare.prepare, "mnist")
    assert not list(tmp_path.iterdir())
