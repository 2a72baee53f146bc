"""Arrays in files: what is read is what was written, and what is damaged or out of all proportion is one line."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import shutil
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from aevae_jax import memory
from aevae_jax.data import Data, arrays, datasets
from aevae_jax.data.datasets import in_memory
from aevae_jax.data.splits import assemble
from aevae_jax.types import InputError

FASHION_MNIST = Path(__file__).parents[3] / "shared" / "data" / "fashion-mnist"
IMAGES = np.random.RandomState(0).randint(0, 256, (40, 5, 4, 1)).astype(np.uint8)
LABELS = np.arange(40) % 10


@contextlib.contextmanager
def refused(name, message, *, seconds=1.0, megabytes=4.0):
    """One line with the file's name and a reason that matches `message`, in little time and memory."""
    tracemalloc.start()
    began = time.process_time()
    try:
        with pytest.raises(InputError, match=message) as caught:
            yield
        assert time.process_time() - began < seconds
        assert tracemalloc.get_traced_memory()[1] < megabytes * 2**20
    finally:
        tracemalloc.stop()
    assert name in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def saved(path, array):
    np.save(path, array)
    return path


def npy_bytes(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def header(shape, descr="|u1", fortran=False):
    """A .npy header that may claim anything."""
    text = repr({"descr": descr, "fortran_order": fortran, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.fixture
def mapped(monkeypatch):
    """Nothing is loaded into memory."""
    monkeypatch.setattr(datasets, "RESIDENT_BYTES", 0)


# ---------------------------------------------------------------------------------------------------------------- .npy


@pytest.mark.parametrize(
    ("array", "event"),
    [
        (IMAGES, (5, 4, 1)),
        (IMAGES[..., 0], (5, 4, 1)),
        (np.repeat(IMAGES, 3, axis=3), (5, 4, 3)),
        (IMAGES.reshape(40, 20) / 255, (20,)),
        ((IMAGES / 255).astype(np.float32), (5, 4, 1)),
        ((IMAGES / 255).astype(np.float16), (5, 4, 1)),
        (np.asfortranarray(IMAGES.reshape(40, 20) / 255), (20,)),
        (np.asfortranarray(np.repeat(IMAGES, 3, axis=3)), (5, 4, 3)),
    ],
)
def test_an_array_is_the_training_data(tmp_path, array, event):
    found = arrays.read_npy(saved(tmp_path / "x.npy", array))
    x = found.parts["train"].x
    floats = array.dtype != np.uint8
    assert list(found.parts) == ["train"]
    assert found.levels == (0 if floats else 256)
    assert x.dtype == (np.float32 if array.dtype == np.float16 else array.dtype)
    assert x.flags.c_contiguous
    np.testing.assert_array_equal(x, array.reshape(40, *event).astype(x.dtype))


@pytest.mark.parametrize("array", [IMAGES, IMAGES[..., 0], IMAGES.reshape(40, 20) / 255], ids=["4", "3", "floats"])
def test_rows_of_a_file_are_those_of_the_array(tmp_path, monkeypatch, array):
    path = saved(tmp_path / "x.npy", array)
    resident = arrays.read_npy(path).parts["train"].x
    monkeypatch.setattr(datasets, "RESIDENT_BYTES", 0)
    x = arrays.read_npy(path).parts["train"].x
    assert in_memory(resident)
    assert not in_memory(x)
    assert (len(x), x.shape, x.dtype) == (40, resident.shape, resident.dtype)
    random = np.random.RandomState(0).randint(0, 40, 100)
    slices = [slice(None), slice(3, 17), slice(30, 3, -7), slice(5, 5), slice(35, 99), slice(-3, None)]
    indices = [np.array([7]), np.array([39, 0, 3, 3, 0]), random, random.astype(np.uint8), np.array([], int)]
    for rows in (*slices, *indices):
        np.testing.assert_array_equal(x[rows], resident[rows])
        assert x[rows].flags.writeable


def test_rows_beyond_the_end_are_refused(tmp_path, mapped):
    x = arrays.read_npy(saved(tmp_path / "x.npy", IMAGES)).parts["train"].x
    for rows in ([40], [3, -1]):
        with pytest.raises(IndexError, match="of 40"):
            x[np.array(rows)]


def test_rows_that_come_in_pieces_are_whole(tmp_path, mapped, monkeypatch):
    """A system may read less than it was asked for."""
    x = arrays.read_npy(saved(tmp_path / "x.npy", IMAGES)).parts["train"].x
    read = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, views, offset: read(file, [views[0][:7]], offset))
    for rows in (slice(3, 17), np.array([30, 0, 1, 2, 5])):  # row 30 is read last, and to its end alone
        np.testing.assert_array_equal(x[rows], IMAGES[rows])


@pytest.mark.parametrize("kind", ["npy", "idx"])
def test_the_limit_is_what_the_array_needs(tmp_path, monkeypatch, kind):
    saved(tmp_path / "x.npy", IMAGES)
    idx_folder(tmp_path)

    def read():
        return arrays.read_npy(tmp_path / "x.npy") if kind == "npy" else arrays.read_idx(tmp_path)

    size = IMAGES.nbytes if kind == "npy" else IMAGES[:30].nbytes
    for limit, resident in ((size, True), (size - 1, False)):
        monkeypatch.setattr(datasets, "RESIDENT_BYTES", limit)
        x = read().parts["train"].x
        assert in_memory(x) == resident
        np.testing.assert_array_equal(x[:], IMAGES[: len(x)])


def test_the_second_version_of_the_format_is_read(tmp_path, monkeypatch):
    """Which NumPy writes where a header is longer than 64 KiB."""
    for array in (IMAGES, np.asfortranarray(IMAGES.reshape(40, 20) / 255)):
        with (tmp_path / "x.npy").open("wb") as file:
            np.lib.format.write_array(file, array, version=(2, 0))
        np.testing.assert_array_equal(arrays.read_npy(tmp_path / "x.npy").parts["train"].x, array)
        archive(tmp_path / "x.npz", ("x.npy", (tmp_path / "x.npy").read_bytes()))
        np.testing.assert_array_equal(arrays.read_npz(tmp_path / "x.npz").parts["train"].x, array)
    archive(tmp_path / "x.npz", ("x.npy", header(IMAGES.shape) + IMAGES.tobytes()))  # a header of another length
    np.testing.assert_array_equal(arrays.read_npz(tmp_path / "x.npz").parts["train"].x, IMAGES)


def test_threads_read_the_same_rows(tmp_path, mapped):
    x = arrays.read_npy(saved(tmp_path / "x.npy", IMAGES)).parts["train"].x
    orders = [np.random.RandomState(seed).permutation(40) for seed in range(100)]
    with ThreadPoolExecutor(8) as pool:
        for order, rows in zip(orders, pool.map(x.__getitem__, orders), strict=True):
            np.testing.assert_array_equal(rows, IMAGES[order])


def test_resident_and_mapped_data_sets_are_the_same(tmp_path, monkeypatch):
    path = saved(tmp_path / "x.npy", IMAGES)
    resident = Data(str(path)).load()
    monkeypatch.setattr(datasets, "RESIDENT_BYTES", 0)
    assert Data(str(path)).load().digest() == resident.digest()


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of resident memory from /proc")
def test_reading_a_large_file_keeps_little_of_it_in_memory(tmp_path):
    """256 MiB are read in random order: less than 64 MiB more than before."""
    path = tmp_path / "x.npy"
    with path.open("wb") as file:
        file.write(header((2**18, 32, 32)))
        for _ in range(16):
            file.write(bytes(2**24))
    code = f"""if True:
        import numpy as np
        from pathlib import Path
        from aevae_jax.data import arrays, datasets
        datasets.RESIDENT_BYTES = 0
        def peak():
            return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
        x = arrays.read_npy(Path({str(path)!r})).parts["train"].x
        x[:10]
        before = peak()
        for rows in np.random.default_rng(0).permutation(len(x)).reshape(64, -1):
            x[rows]
        print(peak() - before)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert float(done.stdout) < 64


def test_a_file_that_changes_while_it_is_read_is_one_line(tmp_path, mapped):
    path = saved(tmp_path / "x.npy", IMAGES)
    x = arrays.read_npy(path).parts["train"].x
    path.write_bytes(path.read_bytes()[:-100])
    with refused("x.npy", "expected the file as it was before"):
        x[:]
    x = arrays.read_npy(saved(path, IMAGES)).parts["train"].x
    path.unlink()
    saved(path, IMAGES + 1)  # another file of that name is not taken for it
    np.testing.assert_array_equal(x[:], IMAGES)


def test_a_file_that_is_cut_short_while_it_is_read_ends_no_process(tmp_path):
    """A mapping of it would: the signal SIGBUS cannot be caught."""
    np.save(tmp_path / "x.npy", np.zeros((64, 4096), np.uint8))
    code = f"""if True:
        import os
        from pathlib import Path
        from aevae_jax.data import arrays, datasets
        from aevae_jax.types import InputError
        datasets.RESIDENT_BYTES = 0
        x = arrays.read_npy(Path({str(tmp_path / "x.npy")!r})).parts["train"].x
        x[:1]
        os.truncate({str(tmp_path / "x.npy")!r}, 4096)
        try:
            x[60:]
        except InputError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "it has been cut short" in done.stdout


WHOLE = npy_bytes(IMAGES)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "expected an intact .npy header"),
        (b"hello", "expected an intact .npy header"),
        (WHOLE[:50], "expected an intact .npy header"),
        (WHOLE[:-7], r"got 921 bytes, expected the 928 that its header claims"),
        (WHOLE + b"more", "got 932 bytes, expected the 928 that its header claims"),
        (header((10**15, 28, 28)) + bytes(100), "expected the 784000000000000088 that its header claims"),
        (header((2**70,)), "that its header claims"),
        (header((-1, 4, 4, 1)) + bytes(16), r"shape \(-1, 4, 4, 1\)"),
        (header(()) + bytes(1), r"shape \(\)"),
        (header((0, 4, 4, 1)), "got 0 examples"),
        (header((4, 4), "|O") + bytes(128), "got an array of type object .*expected uint8, floats"),
        (header((4, 4), "<U7") + bytes(448), "got an array of type <U7"),
        (header((4, 4), [("a", "<f4")]) + bytes(64), "got an array of type"),
        (header((4, 4), "|S0"), "got an array of type"),
        (header((4, 4), "<i8") + bytes(128), "got type int64, expected uint8 images or float arrays"),
        (header((4, 4), ">f4") + bytes(64), "got type >f4"),
        (header((16,), "<f4") + bytes(64), r"got shape \(16,\), expected \[N, D\]"),
        (header((4, 4), "?") + bytes(16), "got an array of type bool"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(50_000), "expected an intact .npy header"),
        (b"\x93NUMPY\x09\x00" + WHOLE[8:], r"version \(9, 0\)"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535, "expected an intact .npy header"),
    ],
)
def test_damaged_arrays_are_refused(tmp_path, contents, message):
    (tmp_path / "bad.npy").write_bytes(contents)
    with refused("bad.npy", message):
        arrays.read_npy(tmp_path / "bad.npy")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 140), st.integers(0, 255)), min_size=1, max_size=4), st.integers(0, 400))
def test_a_changed_header_loads_or_is_refused(tmp_path_factory, changes, length):
    contents = bytearray(npy_bytes(IMAGES[:4]))
    for place, byte in changes:
        contents[place] = byte
    path = tmp_path_factory.getbasetemp() / "fuzzed.npy"
    path.write_bytes(contents if length > 300 else contents[:length])
    with contextlib.suppress(InputError):
        assert len(arrays.read_npy(path).parts["train"].x)


def test_large_arrays_by_columns_are_refused(tmp_path, mapped):
    path = saved(tmp_path / "x.npy", np.asfortranarray(IMAGES.reshape(40, 20) / 255))
    with refused("x.npy", r"got columns before rows .*; save it with np.save\(path, np.ascontiguousarray"):
        arrays.read_npy(path)


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "x.npy")
    for read in (arrays.read_npy, arrays.read_npz):
        with refused("x.npy", "got a FIFO, device or socket, expected a regular file"):
            read(tmp_path / "x.npy")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_refused(tmp_path):
    saved(tmp_path / "x.npy", IMAGES).chmod(0)
    with refused("x.npy", "Permission denied"):
        arrays.read_npy(tmp_path / "x.npy")


# ------------------------------------------------------------------------------------------------------ folder of .npy


def test_a_folder_of_arrays_has_splits_and_labels(tmp_path):
    for name, array in {
        "train": IMAGES[:20],
        "validation": IMAGES[20:30],
        "test": IMAGES[30:],
        "train_labels": LABELS[:20],
        "test_labels": LABELS[30:, None],
    }.items():
        saved(tmp_path / f"{name}.npy", array)
    dataset = Data(str(tmp_path)).load()
    np.testing.assert_array_equal(dataset.train.x, IMAGES[:20])
    np.testing.assert_array_equal(dataset.validation.x, IMAGES[20:30])
    np.testing.assert_array_equal(dataset.test.x, IMAGES[30:])
    np.testing.assert_array_equal(dataset.train.labels, LABELS[:20])
    np.testing.assert_array_equal(dataset.test.labels, LABELS[30:])
    assert dataset.train.labels.dtype == dataset.test.labels.dtype == np.int32
    assert dataset.validation.labels is None


@pytest.mark.parametrize(
    ("files", "name", "message"),
    [
        (
            {"train": IMAGES, "other": IMAGES},
            "other",
            "got arrays called other, train, expected train, validation, test",
        ),
        ({"train": IMAGES, "val": IMAGES, "valid": IMAGES}, "valid", "got val and valid, expected one for validation"),
        ({"test": IMAGES}, "test", "got test, expected train"),
        ({"train": IMAGES, "test_labels": LABELS}, "test_labels", "got test_labels alone, expected the test images"),
        (
            {"train": IMAGES, "train_labels": LABELS[1:]},
            "train_labels",
            r"got shape \(39,\), expected \(40,\), one per",
        ),
        ({"train": IMAGES, "train_labels": LABELS / 2}, "train_labels", "got type float64, expected integers"),
        (
            {"train": IMAGES, "train_labels": LABELS.astype(np.uint64) + 2**63},
            "train_labels",
            "expected labels that int64",
        ),
        ({"train": IMAGES, "test": LABELS}, "test", "got type int64"),
    ],
)
def test_folders_of_other_arrays_are_refused(tmp_path, files, name, message):
    for stem, array in files.items():
        saved(tmp_path / f"{stem}.npy", array)
    with refused(name, message):
        arrays.read_npy_folder(tmp_path)


def test_links_stay_inside_the_folder(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "train.npy").symlink_to(saved(folder / ".hidden.npy", IMAGES))
    np.testing.assert_array_equal(arrays.read_npy_folder(folder).parts["train"].x, IMAGES)
    (folder / "test.npy").symlink_to(saved(tmp_path / "outside.npy", IMAGES))
    with refused("test.npy", "got a link to .*outside.npy, expected files, or links to files in the same folder"):
        arrays.read_npy_folder(folder)
    (folder / "test.npy").unlink()
    (folder / "test.npy").symlink_to("test.npy")
    with refused("test.npy", "Too many levels of symbolic links"):
        arrays.read_npy_folder(folder)
    (folder / "test.npy").unlink()
    (folder / "test.npy").symlink_to(folder / "nowhere")
    with refused("test.npy", "got no file, expected a file that exists"):
        arrays.read_npy_folder(folder)


# ---------------------------------------------------------------------------------------------------------------- .npz


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "deflated"])
@pytest.mark.parametrize(
    "names",
    [
        ("x_train", "y_train", "x_validation", "x_test", "y_test"),
        ("train", "labels", "valid", "test", "test_labels"),
        ("train_images", "train_labels", "val_images", "test_images", "test_labels"),
        ("X_train", "Y_train", "X_val", "X_test", "Y_test"),
        ("train_x", "train_y", "validation_x", "test_x", "test_y"),
        ("images", "y", "validation", "t10k", "t10k_labels"),
        ("data", "y_train", "x_valid", "t10k_images", "y_t10k"),
    ],
    ids=lambda names: names[0],
)
def test_an_archive_has_splits_and_labels(tmp_path, save, names):
    contents = (IMAGES[:20], LABELS[:20], IMAGES[20:30], IMAGES[30:], LABELS[30:].astype(np.uint8))
    save(tmp_path / "x.npz", **dict(zip(names, contents, strict=True)))
    parts, levels = arrays.read_npz(tmp_path / "x.npz")[:2]
    assert levels == 256
    for part, x, labels in (("train", *contents[:2]), ("validation", contents[2], None), ("test", *contents[3:])):
        np.testing.assert_array_equal(parts[part].x, x)
        np.testing.assert_array_equal(parts[part].labels, labels)
    assert parts["train"].labels.dtype == parts["test"].labels.dtype == np.int64


def test_archives_of_one_array_or_of_images_and_labels(tmp_path):
    floats = np.asfortranarray(IMAGES.reshape(40, 20) / 255)
    for contents in (
        {"anything": floats},
        {"images": floats, "labels": LABELS},
        {"x": floats, "y": LABELS},
        {"data": floats},
    ):
        np.savez(tmp_path / "x.npz", **contents)
        [(part, split)] = arrays.read_npz(tmp_path / "x.npz").parts.items()
        assert part == "train"
        np.testing.assert_array_equal(split.x, floats)
        np.testing.assert_array_equal(split.labels, LABELS if len(contents) == 2 else None)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({}, "got no arrays, expected train, validation, test or x_train"),
        ({"a": IMAGES, "b": IMAGES}, "got arrays called a, b, expected train, validation, test or x_train, y_train"),
        ({"x": IMAGES, "x_train": IMAGES}, "got x and x_train, expected one for train images"),
        ({"x_test": IMAGES, "y_test": LABELS}, "got x_test, y_test, expected train"),
        ({"x": IMAGES.astype(object)}, "got an array of type object"),
        ({"anything": IMAGES.astype(object)}, "anything.*got an array of type object"),
        ({"x": IMAGES, "y": np.array(list("abcd") * 10, object)}, "y.*got an array of type object"),
        ({"X": IMAGES, "Y": np.array(list("abcd") * 10, object)}, "Y.*got an array of type object"),
        ({"x": IMAGES, "y": LABELS[:7]}, r"got shape \(7,\), expected \(40,\)"),
        ({"x": IMAGES, "y": np.int64(3)}, r"shape \(\)"),
        ({"x": IMAGES, "other": IMAGES, "meta": np.array({})}, "got arrays called x, other, expected train"),
    ],
)
def test_archives_of_other_arrays_are_refused(tmp_path, contents, message):
    np.savez(tmp_path / "x.npz", **contents)
    with refused("x.npz", message):
        arrays.read_npz(tmp_path / "x.npz")


def test_arrays_of_objects_that_are_not_needed_are_passed_over(tmp_path):
    np.savez(tmp_path / "x.npz", images=IMAGES, meta=np.array({"author": "unknown"}), words=np.array(["a", None]))
    found = arrays.read_npz(tmp_path / "x.npz")
    assert np.array_equal(found.parts["train"].x, IMAGES)
    np.savez(tmp_path / "x.npz", anything=IMAGES, meta=np.array({}))
    assert np.array_equal(arrays.read_npz(tmp_path / "x.npz").parts["train"].x, IMAGES)
    later = io.BytesIO()
    np.lib.format.write_array(later, np.array([{}]), version=(2, 0))
    archive(tmp_path / "x.npz", ("images.npy", WHOLE), ("meta.npy", later.getvalue()))
    assert np.array_equal(arrays.read_npz(tmp_path / "x.npz").parts["train"].x, IMAGES)


def test_a_flipped_bit_in_a_compressed_archive_is_one_line(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", x=IMAGES[:12, :, :, 0], y=LABELS[:12])
    whole = (tmp_path / "x.npz").read_bytes()
    for place in range(0, 8 * len(whole), 7):
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        (tmp_path / "x.npz").write_bytes(flipped)
        with contextlib.suppress(InputError):  # or it lies in what nobody reads: a date, the name of a system
            assert np.array_equal(arrays.read_npz(tmp_path / "x.npz").parts["train"].x, IMAGES[:12])


def archive(path, *members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, contents in members:
            file.writestr(name, contents)
    return path


def test_an_archive_that_expands_a_thousandfold_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as file, file.open("x.npy", "w") as member:
        member.write(header((2**12, 128, 128)))
        for _ in range(2**6):
            member.write(bytes(2**20))
    with refused("bomb.npz", "bytes that expand to 6710.*expected at most 100 times as many; save the training"):
        arrays.read_npz(tmp_path / "bomb.npz")


def test_small_arrays_may_expand_as_they_like(tmp_path):
    labels = np.sort(np.arange(40_000) % 2)
    x = np.arange(80_000, dtype=np.float32).reshape(40_000, 2)
    np.savez_compressed(tmp_path / "x.npz", x=x, y=labels)
    with zipfile.ZipFile(tmp_path / "x.npz") as file:
        assert file.getinfo("y.npy").file_size > 100 * file.getinfo("y.npy").compress_size
    np.testing.assert_array_equal(arrays.read_npz(tmp_path / "x.npz").parts["train"].labels, labels)


def test_archives_are_refused_beyond_a_total(tmp_path, monkeypatch):
    np.savez(tmp_path / "x.npz", x=IMAGES, test=IMAGES)
    monkeypatch.setattr(arrays, "MAX_BYTES", 1856)
    assert len(arrays.read_npz(tmp_path / "x.npz").parts) == 2
    monkeypatch.setattr(arrays, "MAX_BYTES", 1800)
    with refused("x.npz", "got arrays of 1856 bytes in .*at most 1800 bytes in all; save the training data alone"):
        arrays.read_npz(tmp_path / "x.npz")


def test_archives_are_refused_where_there_is_no_room_for_them(tmp_path, monkeypatch):
    np.savez(tmp_path / "x.npz", x=IMAGES, test=IMAGES)
    for free, room in ((1856, True), (1855, False)):
        monkeypatch.setattr(memory, "free", lambda free=free: free)
        if room:
            assert len(arrays.read_npz(tmp_path / "x.npz").parts) == 2
            assert len(arrays.read_array(tmp_path / "x.npz", "test")) == 40
            continue
        with refused("x.npz", r"got 1856 bytes that expand, which needs about 1.81 KiB of memory, .*save the training"):
            arrays.read_npz(tmp_path / "x.npz")
        monkeypatch.setattr(memory, "free", lambda: 927)
        with refused("x.npz", r"got 928 bytes that expand, which needs about 928 bytes of memory"):
            arrays.read_array(tmp_path / "x.npz", "test")


def test_arrays_that_share_their_bytes_are_refused(tmp_path):
    """The members of a crafted archive may overlap, so that a small one expands to much."""
    whole = bytearray(archive(tmp_path / "x.npz", ("x.npy", WHOLE), compression=zipfile.ZIP_STORED).read_bytes())
    directory, end = whole.index(b"PK\x01\x02"), whole.index(b"PK\x05\x06")
    entries = b"".join(whole[directory:end].replace(b"x.npy", name) for name in (b"x.npy", b"y.npy", b"z.npy"))
    head = struct.pack("<4s4H2I", b"PK\x05\x06", 0, 0, 3, 3, len(entries), directory)
    with refused("x.npz", "got arrays of 2784 bytes in .*, expected each once, and at most"):
        arrays.read_npz(rewritten(tmp_path / "x.npz", whole[:directory] + entries + head + b"\0\0"))


def test_one_array_of_an_archive_may_not_expand_because_another_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "SMALL_BYTES", 1000)
    np.savez_compressed(tmp_path / "x.npz", a=np.zeros(10**5, np.uint8), b=IMAGES)
    assert (tmp_path / "x.npz").stat().st_size > 1100
    with refused("x.npz", r"got \d{3} bytes that expand to 100128, expected at most 100 times as many"):
        arrays.read_array(tmp_path / "x.npz", "a")
    np.testing.assert_array_equal(arrays.read_array(tmp_path / "x.npz", "b"), IMAGES)


def test_of_an_archive_one_array_can_be_asked_for(tmp_path):
    np.savez(tmp_path / "x.npz", a=IMAGES, b=LABELS)
    np.testing.assert_array_equal(arrays.read_array(tmp_path / "x.npz", "b"), LABELS)
    rewritten(tmp_path / "X.NPY", WHOLE)
    np.testing.assert_array_equal(arrays.read_array(tmp_path / "X.NPY", "b"), IMAGES)
    with refused("x.npz", "got a, b, expected one array, or one called 'c'"):
        arrays.read_array(tmp_path / "x.npz", "c")
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive(tmp_path / "two.npz", ("x.npy", WHOLE), ("x.npy", WHOLE))
    with refused("two.npz", "got x, x, expected one array, or one called 'x'"):
        arrays.read_array(tmp_path / "two.npz", "x")
    with refused("one.npz", "got a member called 'x.txt'"):
        arrays.read_array(archive(tmp_path / "one.npz", ("x.txt", WHOLE)), "x")


def rewritten(path, contents):
    path.write_bytes(contents)
    return path


def test_damaged_archives_are_refused(tmp_path):
    whole = archive(tmp_path / "whole.npz", ("x.npy", WHOLE)).read_bytes()
    directory = whole.index(b"PK\x01\x02")
    encrypted = bytearray(whole)
    encrypted[directory + 8] |= 1
    encrypted[6] |= 1
    wrong_crc = bytearray(whole)
    wrong_crc[directory + 16] ^= 1
    wrong_crc[14] ^= 1
    claims_less = bytearray(whole)
    claims_less[directory + 24 : directory + 28] = struct.pack("<I", len(WHOLE) - 100)
    for name, contents, message in [
        ("empty.npz", b"", "BadZipFile"),
        ("text.npz", b"hello" * 100, "BadZipFile"),
        ("array.npz", WHOLE, "BadZipFile"),
        ("cut.npz", whole[:-40], "BadZipFile"),
        ("flipped.npz", whole[:200] + bytes((whole[200] ^ 255,)) + whole[201:], "expected an intact array"),
        ("crc.npz", bytes(wrong_crc), "Bad CRC-32"),
        ("encrypted.npz", bytes(encrypted), "got encryption"),
        ("less.npz", bytes(claims_less), "Bad CRC-32"),
    ]:
        with refused(name, message):
            arrays.read_npz(rewritten(tmp_path / name, contents))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("x.npy", WHOLE[:-5])], "got 923 bytes, expected the 928 that its header claims"),
        ([("x.npy", header((10**15, 28, 28)))], "expected the 784000000000000088 that its header claims"),
        ([("x.npy", b"")], "expected an intact .npy header"),
        ([("../../x.npy", WHOLE)], "got a member called '../../x.npy', expected arrays, called NAME.npy"),
        ([("/x.npy", WHOLE)], "got a member called '/x.npy'"),
        ([("a\\x.npy", WHOLE)], "got a member called"),
        ([(".npy", WHOLE)], "got a member called '.npy'"),
        ([("x.npy", WHOLE), ("readme.txt", b"hello")], "got a member called 'readme.txt'"),
    ],
)
def test_archives_with_other_members_are_refused(tmp_path, members, message):
    with refused("x.npz", message):
        arrays.read_npz(archive(tmp_path / "x.npz", *members))


def test_archives_of_two_equal_names_or_another_compression_are_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive(tmp_path / "two.npz", ("x.npy", WHOLE), ("x.npy", WHOLE))
    with refused("two.npz", "got two arrays of one name"):
        arrays.read_npz(tmp_path / "two.npz")
    archive(tmp_path / "lzma.npz", ("x.npy", WHOLE), compression=zipfile.ZIP_LZMA)
    with refused("lzma.npz", "another compression than deflate"):
        arrays.read_npz(tmp_path / "lzma.npz")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=3))
def test_a_changed_archive_loads_or_is_refused(tmp_path_factory, changes):
    path = archive(tmp_path_factory.getbasetemp() / "fuzzed.npz", ("x.npy", npy_bytes(IMAGES[:4, :2, :2])))
    contents = bytearray(path.read_bytes())
    for place, byte in changes:
        contents[place % len(contents)] = byte
    path.write_bytes(contents)
    with contextlib.suppress(InputError):
        assert len(arrays.read_npz(path).parts["train"].x)


# ----------------------------------------------------------------------------------------------------------------- idx


def idx(array):
    return (
        bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()
    )


def packed(text):
    """Without the time, which would be in the names of tests."""
    return gzip.compress(text, mtime=0)


def idx_folder(folder, names=("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte")):
    contents = (idx(IMAGES[:30, ..., 0]), idx(LABELS[:30]), idx(IMAGES[30:, ..., 0]))
    for name, text in zip(names, contents, strict=True):
        (folder / name).write_bytes(packed(text) if name.endswith(".gz") else text)
    return folder


@pytest.mark.parametrize(
    "names",
    [
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"),
        ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz"),
        ("train-images.idx3-ubyte", "train-labels.idx1-ubyte", "t10k-images.idx3-ubyte"),
        (
            "emnist-letters-train-images-idx3-ubyte.gz",
            "emnist-letters-train-labels-idx1-ubyte",
            "emnist-letters-test-images-idx3-ubyte.gz",
        ),
    ],
    ids=lambda names: names[0],
)
def test_idx_files_are_read_by_their_names(tmp_path, names):
    assert not arrays.is_idx_folder(tmp_path)
    assert arrays.is_idx_folder(idx_folder(tmp_path, names))
    (tmp_path / "train-images-idx3-ubyte-folder").mkdir()  # some archives unpack to one beside the files
    (tmp_path / "._train-images-idx3-ubyte").write_bytes(b"hidden")  # of a system that leaves such everywhere
    found = arrays.read_idx(tmp_path)
    assert found.levels == 256
    assert list(found.parts) == ["train", "test"]
    np.testing.assert_array_equal(found.parts["train"].x, IMAGES[:30])
    np.testing.assert_array_equal(found.parts["train"].labels, LABELS[:30])
    assert found.parts["train"].labels.dtype == np.int64
    np.testing.assert_array_equal(found.parts["test"].x, IMAGES[30:])
    assert found.parts["test"].labels is None


def test_a_folder_of_idx_files_is_a_data_set(tmp_path):
    dataset = Data(str(idx_folder(tmp_path)), levels=256).load()
    assert [len(getattr(dataset, part)) for part in datasets.PARTS] == [25, 5, 10]
    np.testing.assert_array_equal(dataset.test.x, IMAGES[30:])
    np.testing.assert_array_equal(dataset.train.labels, LABELS[:25])


def test_idx_files_that_are_large_stay_in_their_file(tmp_path, mapped):
    x = arrays.read_idx(idx_folder(tmp_path)).parts["train"].x
    assert not in_memory(x)
    np.testing.assert_array_equal(x[::-1], IMAGES[29::-1])


def test_labels_alone_make_no_folder_of_images(tmp_path):
    idx_folder(tmp_path)
    for path in tmp_path.glob("*-images-*"):
        path.unlink()
    assert not arrays.is_idx_folder(tmp_path)


def test_of_a_file_and_its_gzip_the_first_is_read(tmp_path):
    idx_folder(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"not read")
    np.testing.assert_array_equal(arrays.read_idx(tmp_path).parts["train"].x, IMAGES[:30])


def test_blank_images_compress_as_well_as_gzip_can(tmp_path):
    blank = np.zeros((3000, 28, 28), np.uint8)
    blanks = packed(idx(blank))
    assert blank.nbytes > 900 * len(blanks)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(blanks)
    np.testing.assert_array_equal(arrays.read_idx(tmp_path).parts["train"].x, blank[..., None])


PACKED = packed(idx(IMAGES[..., 0]))
CLAIM = bytes((0, 0, 8, 3)) + struct.pack(">3I", 2**32 - 1, 2**16, 2**8)


def test_labels_that_are_a_folder_are_not_passed_over(tmp_path):
    idx_folder(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    (tmp_path / "train-labels-idx1-ubyte").mkdir()
    with refused("train-labels-idx1-ubyte", "got a folder, expected a file"):
        arrays.read_idx(tmp_path)


def test_gigabytes_of_zeros_after_a_packed_file_are_not_read(tmp_path):
    idx_folder(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").unlink()
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(PACKED)
    os.truncate(tmp_path / "train-images-idx3-ubyte.gz", 2**40)
    with refused("train-images-idx3-ubyte.gz", "got 1,099,511,627,776 bytes, expected no more than the 800 that"):
        arrays.read_idx(tmp_path)


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("train-images-idx3-ubyte.gz", PACKED[:-30], "EOFError"),
        ("train-images-idx3-ubyte.gz", PACKED[:-8], "EOFError"),
        ("train-images-idx3-ubyte.gz", PACKED[:-8] + bytes(4) + PACKED[-4:], "CRC check failed"),
        ("train-images-idx3-ubyte.gz", idx(IMAGES[..., 0]), "Not a gzipped file"),
        ("train-images-idx3-ubyte.gz", b"", "got a file that begins with nothing, expected 00 00 08 03"),
        ("train-images-idx3-ubyte.gz", packed(CLAIM), "got 33 bytes that expand to 720575.*at most 100 times"),
        ("train-images-idx3-ubyte.gz", packed(idx(IMAGES[..., 0]) + b"x"), "more bytes than its header claims"),
        ("train-images-idx3-ubyte.gz", packed(idx(IMAGES[..., 0])[:-1]), "EOFError: 799 bytes of 800"),
        ("train-images-idx3-ubyte.gz", PACKED + b"junk", "Not a gzipped file"),
        ("train-images-idx3-ubyte", CLAIM + bytes(100), "got 116 bytes, expected the 720575.* that its header claims"),
        ("train-images-idx3-ubyte", idx(IMAGES[..., 0]) + b"x", "got 817 bytes, expected the 816 that its header"),
        ("train-images-idx3-ubyte", idx(IMAGES[..., 0])[:-1], "got 815 bytes, expected the 816 that its header"),
        ("train-images-idx3-ubyte", PACKED, "got a file that begins with 1f 8b 08 00, expected 00 00 08 03, the magic"),
        ("train-images-idx3-ubyte", idx(LABELS), "got a file that begins with 00 00 08 01, expected 00 00 08 03"),
        ("train-images-idx3-ubyte", b"\0\0\x0d\3" + bytes(12), "got a file that begins with 00 00 0d 03"),
        ("train-images-idx3-ubyte", b"\0\0\x08\3" + bytes(5), "got a file that begins with 00 00 08 03, .* 3 sizes"),
        ("train-images-idx3-ubyte", idx(IMAGES[:0, ..., 0]), "got 0 examples"),
        ("train-images-idx3-ubyte", idx(IMAGES[:, :0, :, 0]), r"got shape \(40, 0, 4\)"),
        ("train-labels-idx1-ubyte", idx(LABELS[:29]), r"got shape \(29,\), expected \(30,\), one per example"),
        (
            "train-labels-idx1-ubyte",
            idx(IMAGES[..., 0]),
            "got a file that begins with 00 00 08 03, expected 00 00 08 01",
        ),
        (
            "other-train-images-idx3-ubyte",
            idx(IMAGES[..., 0]),
            "and train-images-idx3-ubyte, expected one for train imag",
        ),
        ("x-images-idx3-ubyte", idx(IMAGES[..., 0]), "got a name without train, t10k or test"),
        ("val-labels-idx1-ubyte", idx(LABELS), "got val-labels-idx1-ubyte alone, expected the validation images"),
    ],
)
def test_damaged_idx_files_are_refused(tmp_path, name, contents, message):
    idx_folder(tmp_path)
    if name.endswith(".gz"):
        (tmp_path / name[:-3]).unlink()
    (tmp_path / name).write_bytes(contents)
    with refused(name, message):
        arrays.read_idx(tmp_path)


def test_idx_folders_need_training_images_of_their_own(tmp_path):
    idx_folder(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").rename(tmp_path.parent / "moved")
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with refused("t10k-images-idx3-ubyte", "got t10k-images-idx3-ubyte, expected train"):
        arrays.read_idx(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").symlink_to(tmp_path.parent / "moved")
    with refused("train-images-idx3-ubyte", "got a link to"):
        arrays.read_idx(tmp_path)


@pytest.fixture(scope="module")
def fashion_mnist():
    if not FASHION_MNIST.is_dir():
        pytest.skip(f"the idx files of Fashion-MNIST are not in {FASHION_MNIST}")
    return assemble("fashion", arrays.read_idx(FASHION_MNIST))


def test_fashion_mnist_comes_in_its_published_order_and_splits(fashion_mnist):
    with gzip.open(FASHION_MNIST / "train-images-idx3-ubyte.gz") as file:
        upstream = np.frombuffer(file.read()[16:], np.uint8).reshape(60_000, 28, 28, 1)
    np.testing.assert_array_equal(fashion_mnist.train.x, upstream[:50_000])
    np.testing.assert_array_equal(fashion_mnist.validation.x, upstream[50_000:])
    assert fashion_mnist.train.labels[:8].tolist() == [9, 0, 0, 3, 0, 2, 7, 2]
    assert np.bincount(fashion_mnist.test.labels).tolist() == [1000] * 10


def test_fashion_mnist_is_the_same_whatever_files_it_comes_from(fashion_mnist, tmp_path):
    """As unpacked idx files, and as the archive that Keras ships of MNIST."""
    folder = tmp_path / "unpacked"
    folder.mkdir()
    for path in FASHION_MNIST.glob("*.gz"):
        with gzip.open(path) as packed, (folder / path.stem).open("wb") as file:
            shutil.copyfileobj(packed, file)
    whole = np.concatenate([fashion_mnist.train.x, fashion_mnist.validation.x])[..., 0]
    np.savez(
        tmp_path / "fashion.npz",
        x_train=whole,
        x_test=fashion_mnist.test.x[..., 0],
        y_train=np.concatenate([fashion_mnist.train.labels, fashion_mnist.validation.labels]).astype(np.uint8),
        y_test=fashion_mnist.test.labels.astype(np.uint8),
    )
    for found in (arrays.read_idx(folder), arrays.read_npz(tmp_path / "fashion.npz")):
        dataset = assemble("other name", found)
        assert dataset.digest() == fashion_mnist.digest()
        for part in datasets.PARTS:
            np.testing.assert_array_equal(getattr(dataset, part).labels, getattr(fashion_mnist, part).labels)
