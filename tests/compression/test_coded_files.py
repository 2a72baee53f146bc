"""What images are compressed from and decompressed to: arrays are kept bit for bit, and nothing appears by halves."""

from __future__ import annotations

import gzip
import io
import os
import struct

import numpy as np
import pytest
from PIL import Image

from aevae_jax.compression import files
from aevae_jax.compression.container import Header
from aevae_jax.types import InputError


def images(shape=(7, 4, 3), dtype=np.uint8):
    return np.random.default_rng(3).integers(0, 256, shape).astype(dtype)


def all_of(rows, size=3):
    blocks = list(rows.blocks(size))
    assert [len(block) for block in blocks[:-1]] == [size] * (len(blocks) - 1)
    assert all(block.flags.c_contiguous for block in blocks)
    assert {block.dtype for block in blocks} == {rows.dtype}
    x = np.concatenate(blocks).astype(rows.dtype)
    assert (x.shape, x.dtype) == (rows.shape, rows.dtype)
    return x


def idx(x):
    return bytes((0, 0, 8, x.ndim)) + struct.pack(f">{x.ndim}I", *x.shape) + x.tobytes()


def npy(x, version=(1, 0)):
    file = io.BytesIO()
    np.lib.format.write_array(file, x, version=version)
    return file.getvalue()


def pictures(folder, x):
    folder.mkdir()
    for number, picture in enumerate(x):
        Image.fromarray(picture).save(folder / f"{number:03}.png")


class Trickle(io.RawIOBase):
    """A pipe that gives a few bytes at a time."""

    def __init__(self, content):
        self._inner = io.BytesIO(content)

    def read(self, size=-1):
        return self._inner.read(min(size, 11))


# ------------------------------------------------------------------------------------------------------------ reading


@pytest.mark.parametrize("dtype", ["|u1", ">i2", "<f4", "<f8"])
def test_npy_is_read_as_it_is(tmp_path, dtype):
    x = images(dtype=dtype)
    np.save(tmp_path / "x.npy", x)
    rows = files.read(tmp_path / "x.npy", (4, 3, 1))
    assert (rows.dtype.str, rows.name, rows.left) == (dtype, "", "")
    assert all_of(rows).tobytes() == x.tobytes()


def test_columns_before_rows_are_rows_before_columns(tmp_path):
    x = images()
    np.save(tmp_path / "x.npy", np.asfortranarray(x))
    assert all_of(files.read(tmp_path / "x.npy", (4, 3, 1))).tobytes() == x.tobytes()


def test_npz_gives_one_array_and_says_what_is_left(tmp_path):
    x, y = images(), np.arange(7)
    np.savez(tmp_path / "one.npz", anything=x)
    np.savez(tmp_path / "two.npz", images=x, labels=y)
    np.savez(tmp_path / "split.npz", x_train=x, y_train=y)
    one, two = (files.read(tmp_path / f"{name}.npz", (4, 3, 1)) for name in ("one", "two"))
    assert (one.name, one.left) == ("anything", "")
    assert (two.name, two.left) == ("images", "the arrays labels")
    named = files.read(tmp_path / "split.npz", (4, 3, 1), "x_train")
    assert (named.name, named.left) == ("x_train", "the arrays y_train")
    for rows in (one, two, named):
        assert (all_of(rows) == x).all()
    with pytest.raises(InputError, match="x_train, y_train, expected one array, or one called 'images'"):
        files.read(tmp_path / "split.npz", (4, 3, 1))


@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte", "train-images.idx3-ubyte.gz", "mine.idx", "mine.idx.gz"])
def test_idx_is_read_by_any_such_name(tmp_path, name):
    x, path = images(), tmp_path / name
    path.write_bytes(gzip.compress(idx(x)) if name.endswith(".gz") else idx(x))
    rows = files.read(path, (4, 3, 1))
    assert (all_of(rows) == x).all()
    assert rows.left.startswith("labels")


def test_a_folder_of_pictures_is_read_by_name_and_nothing_is_scaled(tmp_path):
    x = images()
    pictures(tmp_path / "grey", x)
    rows = files.read(tmp_path / "grey", (4, 3, 1))
    assert (all_of(rows)[..., 0] == x).all()
    assert rows.left == "names, classes and labels of pictures"
    pictures(tmp_path / "rgb", images((7, 4, 3, 3)))
    assert all_of(files.read(tmp_path / "rgb", (4, 3, 3))).shape == (7, 4, 3, 3)
    [one] = files.read(tmp_path / "grey" / "002.png", (4, 3, 1)).blocks(9)
    assert (one[0, ..., 0] == x[2]).all()
    for shape, folder in [((8, 6, 1), "grey"), ((4, 3, 3), "grey"), ((4, 3, 1), "rgb"), ((12,), "grey")]:
        with pytest.raises(InputError, match=r"got 4x3x\d, expected .* of 8 bits, as nothing is scaled"):
            files.read(tmp_path / folder, shape)


def test_pictures_of_several_sizes_or_of_16_bits_are_refused(tmp_path):
    pictures(tmp_path / "mixed", images())
    Image.fromarray(images((1, 5, 3))[0]).save(tmp_path / "mixed" / "other.png")
    with pytest.raises(InputError, match="got 4x3x1, 5x3x1, expected 4x3x1"):
        files.read(tmp_path / "mixed", (4, 3, 1))
    (tmp_path / "deep").mkdir()
    Image.fromarray(images((4, 3), np.uint16)).save(tmp_path / "deep" / "x.png")
    with pytest.raises(InputError, match="4x3x1, of 16 bits"):
        files.read(tmp_path / "deep", (4, 3, 1))


def test_other_files_are_refused(tmp_path):
    (tmp_path / "x.txt").write_text("no images")
    with pytest.raises(InputError, match=r"a file called x.txt, expected .npy, .npz, an idx file"):
        files.read(tmp_path / "x.txt", (4, 3, 1))


# ------------------------------------------------------------------------------------------------------------ streams


@pytest.mark.parametrize("content", [npy(images()), npy(images(), (2, 0)), idx(images())])
def test_a_stream_is_read_in_blocks(content):
    rows = files.read_stream(Trickle(content))
    assert (all_of(rows) == images()).all()


def test_what_follows_an_array_in_a_stream_is_not_taken_for_its_header():
    """The header is read byte for byte: a stream cannot go back."""
    for n in range(1, 300, 7):
        x = images((n, 2, 1))
        assert (all_of(files.read_stream(Trickle(npy(x)))) == x).all()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "begins with nothing"),
        (b"PK\3\4 an archive of some length", "begins with 50 4b"),
        (npy(images())[:-1], "got an end at image 6 of 7"),
        (npy(images()) + b"x", "more bytes than its header claims"),
        (npy(images())[:40], "got an end at its header"),
        (idx(images())[:9], "got an end at its header"),
        (npy(np.asfortranarray(images())), "columns before rows"),
        (npy(images((0, 4, 3))), "images: got none"),
        (idx(images((0, 4, 3))), "images: got none"),
        (npy(images()).replace(b"|u1", b"|O8"), "type object"),
        (b"\x93NUMPY\1\0\xff\xff" + b"x" * 70000, "begins with 93"),
    ],
)
def test_streams_of_another_kind_are_refused_in_a_line(content, said):
    with pytest.raises(InputError, match=said):
        for _ in files.read_stream(Trickle(content)).blocks(3):
            pass


# ------------------------------------------------------------------------------------------------------------ writing


def header(x, name=""):
    return Header("ab" * 32, "", len(x), 3, 256, x.dtype.str, x.shape[1:], name)


def put(path, x, *, leave_out=(), name="", stream=None):
    with files.writing(path, header(x, name), stream) as write:
        for first in range(0, len(x), 3):
            if first not in leave_out:
                write(first, x[first : first + 3])


@pytest.mark.parametrize("dtype", ["|u1", ">i2", "<f8"])
def test_npy_is_what_numpy_would_have_written(tmp_path, dtype):
    x = images(dtype=dtype)
    put(tmp_path / "x.npy", x)
    assert (tmp_path / "x.npy").read_bytes() == npy(x)
    stream = io.BytesIO()
    put(files.STREAM, x, stream=stream)
    assert stream.getvalue() == npy(x)
    assert not stream.closed


@pytest.mark.parametrize("name", ["", "x_train"])
def test_npz_has_the_array_under_its_name(tmp_path, name):
    x = images(dtype="<f4")
    put(tmp_path / "x.npz", x, name=name)
    with np.load(tmp_path / "x.npz") as archive:
        assert archive.files == [name or "images"]
        assert archive[name or "images"].tobytes() == x.tobytes()
    again = tmp_path / "again.npz"
    put(again, x, name=name)
    assert again.read_bytes() == (tmp_path / "x.npz").read_bytes()  # nothing of the time in it


@pytest.mark.parametrize("shape", [(7, 4, 3), (7, 4, 3, 1)])
def test_idx_is_what_it_was(tmp_path, shape):
    x = images(shape)
    put(tmp_path / "images-idx3-ubyte", x)
    put(tmp_path / "images-idx3-ubyte.gz", x)
    expected = idx(x.reshape(7, 4, 3))
    assert (tmp_path / "images-idx3-ubyte").read_bytes() == expected
    assert gzip.decompress((tmp_path / "images-idx3-ubyte.gz").read_bytes()) == expected


@pytest.mark.parametrize("shape", [(7, 4, 3), (7, 4, 3, 1), (7, 4, 3, 3)])
def test_pictures_have_numbers_that_sort_as_they_count(tmp_path, shape):
    x = images(shape)
    put(tmp_path / "pictures", x)
    assert sorted(os.listdir(tmp_path / "pictures")) == [f"{n:05}.png" for n in range(7)]
    back = all_of(files.read(tmp_path / "pictures", (*x.shape[1:3], x.shape[3] if x.ndim == 4 else 1)))
    assert back.tobytes() == x.tobytes()


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.idx", "x"])
def test_images_that_are_left_out_are_zeros_or_no_pictures(tmp_path, name):
    x = images((8, 4, 3))
    for leave_out, gone in (((0,), [0, 1, 2]), ((3,), [3, 4, 5]), ((6,), [6, 7]), ((0, 3, 6), range(8))):
        path = tmp_path / f"{gone[0]}-{len(gone)}{name}"
        put(path, x, leave_out=leave_out)
        if name == "x":
            assert sorted(os.listdir(path)) == [f"{n:05}.png" for n in range(8) if n not in gone]
            continue
        expected = x.copy()
        expected[list(gone)] = 0
        assert (all_of(files.read(path, (4, 3, 1))) == expected).all()


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.idx.gz", "x"])
def test_nothing_appears_when_something_goes_wrong_meanwhile(tmp_path, name):
    def begin():
        with files.writing(tmp_path / name, header(images())) as write:
            write(0, images()[:3])
            raise RuntimeError("meanwhile")

    with pytest.raises(RuntimeError, match="meanwhile"):
        begin()
    assert os.listdir(tmp_path) == []


def test_a_folder_that_has_appeared_meanwhile_stays_as_it_is(tmp_path):
    folder = tmp_path / "x"

    def write():
        with files.writing(folder, header(images())) as write:
            write(0, images())
            folder.mkdir()
            (folder / "mine").touch()

    with pytest.raises(InputError, match="cannot be written"):
        write()
    assert os.listdir(tmp_path) == ["x"]
    assert os.listdir(folder) == ["mine"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("-", "npy"),
        ("x.npy", "npy"),
        ("x.npz", "npz"),
        ("t10k-images-idx3-ubyte", "idx"),
        ("x.idx3-ubyte.gz", "idx"),
        ("x.idx", "idx"),
        ("pictures", "pictures"),
    ],
)
def test_a_name_says_what_is_written(name, kind):
    assert files.kind_of(files.Path(name)) == kind


def test_what_a_kind_of_file_cannot_hold_is_refused():
    for name in ("x.csv", "x.png", "x.gz"):
        with pytest.raises(InputError, match="output: got"):
            files.kind_of(files.Path(name))
    for name, x in [
        ("x.idx", images(dtype="<f4")),
        ("x.idx", images((7, 4, 3, 3))),
        ("x.idx", images((7, 12))),
        ("x", images(dtype="<u2")),
        ("x", images((7, 4, 3, 2))),
    ]:
        with pytest.raises(InputError, match=r"output: got (idx|pictures)"):
            files.check_output(files.Path(name), header(x))
    for name in ("x.npy", "x.npz", "-"):
        files.check_output(files.Path(name), header(images((7, 12), "<f4")))


def test_chunks_that_fit_into_no_memory_are_refused(monkeypatch):
    monkeypatch.setattr("aevae_jax.memory.free", lambda: 2**20)
    files.check_memory(header(images()), 2)
    large = Header("ab" * 32, "", 10**6, 10**4, 256, "|u1", (28, 28))
    with pytest.raises(InputError, match="2 of 10,000 images at a time"):
        files.check_memory(large, 2)


def test_the_only_array_is_not_taken_for_another_that_is_named(tmp_path):
    np.savez(tmp_path / "one.npz", anything=np.zeros((2, 4, 3), np.uint8))
    with pytest.raises(InputError, match=r"--array \(.*one.npz\): got other, expected anything, the only one there"):
        files.read(tmp_path / "one.npz", (4, 3, 1), "other")
