"""Images and codes in files: what is read is checked, what is written appears whole or not at all."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aevae_jax.data import Data, DynamicBinarization, Scale, Standardize, datasets, files
from aevae_jax.data.datasets import Column, Format
from aevae_jax.data.tables import Reading
from aevae_jax.models import VAE
from aevae_jax.models.likelihoods import Bernoulli, ContinuousBernoulli, Tabular
from aevae_jax.types import InputError

SHAPE = (4, 5, 1)
MODEL = VAE(latent=3, event_shape=SHAPE)
IMAGES = np.random.RandomState(0).randint(0, 17, (6, *SHAPE)).astype(np.uint8)


def read(path, model=MODEL, preparation=Scale(), levels=17, notes=None, *, name="digits"):  # noqa: B008
    note = pytest.fail if notes is None else notes.append
    return files.read_images(path, model, Data(name, preparation), Format(model.event_shape, levels), note=note)[:]


def saved(path: Path, array) -> Path:
    np.save(path, array)
    return path


# ------------------------------------------------------------------------------------------------------------ reading


def test_raw_images_are_scaled_by_the_levels_of_the_training_data(tmp_path):
    x = read(saved(tmp_path / "x.npy", IMAGES))
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, IMAGES.astype(np.float32) / np.float32(16))
    np.testing.assert_array_equal(x, read(saved(tmp_path / "flat.npy", IMAGES[..., 0])))  # one channel may be left out


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_what_the_model_sees(tmp_path, dtype):
    given = (IMAGES / 32).astype(dtype)
    x = read(saved(tmp_path / "x.npy", given))
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, given)


def test_raw_and_float_images_are_standardized_as_the_training_data_were(tmp_path):
    form = Format(SHAPE, 17, mean=(0.25,), scale=(0.5,))
    for array in (IMAGES, (IMAGES / 16).astype(np.float32), IMAGES / 16):
        path = saved(tmp_path / "x.npy", array)
        x = files.read_images(path, MODEL, Data("digits", Standardize()), form, note=pytest.fail)
        assert x.dtype == np.float32
        np.testing.assert_allclose(x, (IMAGES / 16 - 0.25) / 0.5, atol=1e-6)


def test_rows_of_a_table_are_read_as_its_own_were(tmp_path):
    """With its marks, moments and codes, whatever the order of its columns and whether labels are there."""
    columns = (Column("h"), Column("c", ("x", "y", "z"), "text"))
    form = Format((2,), 0, columns, mean=(170.0, 0.0), scale=(10.0, 1.0))
    data = Data("t.csv", Standardize(), decimal=",", separator=";", missing=("?",), label="l")
    model = VAE(latent=3, likelihood=Tabular((0, 3)), event_shape=(5,))
    (tmp_path / "new.csv").write_text("l;c;h\na;z;175,5\nb;?;160\n?;x;?\n")
    x = files.read_images(tmp_path / "new.csv", model, data, form, note=pytest.fail)
    np.testing.assert_allclose(x[:], [[0.55, 1, 0, 0, 1], [-1, 1, 0, 0, 0], [0, 0, 1, 0, 0]], rtol=1e-6)
    (tmp_path / "new.csv").write_text("c;h\nz;175,5\n")
    new = files.read_images(tmp_path / "new.csv", model, data, form, note=pytest.fail)
    np.testing.assert_array_equal(new[:], x[:1])


@pytest.mark.parametrize("row", [0, 3, 5])
def test_every_block_of_images_is_looked_at(tmp_path, monkeypatch, row):
    monkeypatch.setattr(datasets, "BLOCK_BYTES", 50)  # two images of bytes, or one of floats
    model = VAE(latent=3, likelihood=ContinuousBernoulli(), event_shape=SHAPE)
    for bad, message in ((17, "got uint8 up to 17, expected 0 to 16"), (17.5, r"expected numbers in \[0, 1\]")):
        x = IMAGES / 16 if isinstance(bad, float) else IMAGES.copy()
        x[row, -1, -1, 0] = bad
        with pytest.raises(InputError, match=message):
            read(saved(tmp_path / "x.npy", x), model)


@pytest.mark.parametrize(("top", "fits"), [(0, True), (1, False), (2, False), (3, True), (255, True)])
def test_a_picture_that_could_be_dark_or_of_few_levels_is_refused(tmp_path, top, fits):
    """The training data are an array of the levels 0, 1 and 2."""
    Image.new("L", (5, 4), top).save(tmp_path / "x.png")
    if fits:
        np.testing.assert_array_equal(
            read(tmp_path / "x.png", levels=3, name="./x.npy"),
            np.float32(top) / np.float32(255) * np.ones((1, *SHAPE), np.float32),
        )
    else:
        with pytest.raises(
            InputError, match=f"got a picture of 0 to {top}, .* as {top} could be nearly black or one of the 3 levels"
        ):
            read(tmp_path / "x.png", levels=3, name="./x.npy")


def test_raw_images_for_bits_are_drawn_once_and_for_all(tmp_path):
    model = VAE(latent=3, likelihood=Bernoulli(), event_shape=SHAPE)
    path = saved(tmp_path / "x.npy", IMAGES)
    first, second = (read(path, model, DynamicBinarization()) for _ in range(2))
    assert set(np.unique(first)) == {0.0, 1.0}
    np.testing.assert_array_equal(first, second)
    assert not first[IMAGES == 0].any()
    assert first[IMAGES == 16].all()


def test_the_suffix_of_an_input_may_be_in_capitals(tmp_path):
    saved(tmp_path / "x.npy", IMAGES).rename(tmp_path / "x.NPY")
    np.testing.assert_array_equal(read(tmp_path / "x.NPY"), IMAGES / np.float32(16))
    Image.fromarray(15 * IMAGES[0, ..., 0]).save(tmp_path / "x.PNG")
    np.testing.assert_array_equal(read(tmp_path / "x.PNG")[0], 15 * IMAGES[0] / np.float32(255))
    z = np.ones((2, 3), np.float32)
    saved(tmp_path / "z.npy", z).rename(tmp_path / "z.Npy")
    np.testing.assert_array_equal(files.read_codes(tmp_path / "z.Npy", 3), z)


def test_an_archive_gives_its_only_array_or_the_one_of_that_name(tmp_path):
    np.savez(tmp_path / "one.npz", anything=IMAGES)
    np.savez(tmp_path / "two.npz", codes=np.zeros((6, 3), np.float32), images=IMAGES)
    np.savez(tmp_path / "none.npz", a=IMAGES, b=IMAGES)
    np.testing.assert_array_equal(read(tmp_path / "one.npz"), read(tmp_path / "two.npz"))
    np.testing.assert_array_equal(files.read_codes(tmp_path / "two.npz", 3), np.zeros((6, 3)))
    with pytest.raises(InputError, match=r"none\.npz\): got a, b, expected one array, or one called 'images'"):
        read(tmp_path / "none.npz")


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1"])
def test_a_picture_has_256_levels_whatever_the_training_data_had(tmp_path, mode):
    grey = np.arange(20, dtype=np.uint8).reshape(4, 5) * 13
    picture = Image.fromarray(grey).convert(mode)
    picture.save(tmp_path / "x.png")
    x = read(tmp_path / "x.png")
    assert x.shape == (1, *SHAPE)
    if mode == "1":  # dithered by Pillow, but black and white
        assert set(np.unique(x)) == {0.0, 1.0}
    else:
        np.testing.assert_array_equal(x[0, :, :, 0], grey.astype(np.float32) / np.float32(255))


def test_pictures_have_the_levels_of_the_pictures_that_were_trained_on(tmp_path):
    masks = np.random.RandomState(0).randint(0, 3, (4, 5)).astype(np.uint8)
    Image.fromarray(masks).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read(tmp_path / "x.png", levels=3, name="./masks")[0, ..., 0], masks / np.float32(2))
    for name in ("./masks.npy", "./masks.NPY", "./masks.npz"):
        with pytest.raises(
            InputError, match="got a picture of 0 to 2, expected 0 to 255, as 2 could be nearly black or"
        ):
            read(tmp_path / "x.png", levels=3, name=name)
    Image.fromarray(masks * 127).save(tmp_path / "x.png")
    with pytest.raises(InputError, match="got uint8 up to 254, expected 0 to 2, as in the training data"):
        read(tmp_path / "x.png", levels=3, name="./masks")


def test_a_colour_picture_keeps_its_channels(tmp_path):
    colours = np.random.RandomState(1).randint(0, 256, (4, 5, 3)).astype(np.uint8)
    Image.fromarray(colours).save(tmp_path / "x.png")
    x = read(tmp_path / "x.png", VAE(latent=3, event_shape=(4, 5, 3)))
    np.testing.assert_array_equal(x[0], colours.astype(np.float32) / np.float32(255))


def with_nan(index):
    x = IMAGES / 16
    x[index] = np.nan
    return x


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (IMAGES.astype(np.int64), r"type of the images .*got int64, expected uint8 or floats"),
        (IMAGES.astype(complex), r"got an array of type complex128 and shape .*, expected uint8, floats"),
        (IMAGES > 3, r"got an array of type bool and shape .*, expected uint8, floats"),
        (IMAGES[:, :3], r"got \(6, 3, 5, 1\), expected \(N, 4, 5, 1\), as the model was built for"),
        (IMAGES[0], r"shape of the images .*got \(4, 5, 1\), expected \(N, 4, 5, 1\)"),
        (IMAGES[:0], r"got \(0, 4, 5, 1\), expected"),
        (IMAGES[None], r"got \(1, 6, 4, 5, 1\), expected \(N, 4, 5, 1\)"),
        (IMAGES[..., None], r"got \(6, 4, 5, 1, 1\), expected \(N, 4, 5, 1\)"),
        (np.float32(3), r"got an array of type float32 and shape \(\), expected"),
        (with_nan((4, 0, 0, 0)), r"got NaN or infinity in example 4, expected finite ones"),
        (np.full((1, *SHAPE), 1e300), r"got NaN or infinity in example 0"),
        (IMAGES + np.uint8(1), r"got uint8 up to 17, expected 0 to 16, as in the training data; write floats"),
    ],
)
def test_images_that_do_not_fit_the_model_are_refused(tmp_path, array, message):
    with pytest.raises(InputError, match=message):
        read(saved(tmp_path / "x.npy", array))


def test_images_outside_the_support_are_refused(tmp_path):
    path = saved(tmp_path / "x.npy", IMAGES / 10)
    with pytest.raises(InputError, match=r"expected numbers in \[0, 1\]"):
        read(path, VAE(latent=3, likelihood=ContinuousBernoulli(), event_shape=SHAPE))
    with pytest.raises(InputError, match="expected floats, as in training"):
        read(saved(tmp_path / "raw.npy", IMAGES), levels=0)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((6, 4), np.float32), r"shape of the codes .*got \(6, 4\), expected \(N, 3\)"),
        (np.zeros(3, np.float32), r"got \(3,\), expected \(N, 3\)"),
        (np.zeros((6, 1, 3), np.float32), r"got \(6, 1, 3\), expected \(N, 3\)"),
        (np.zeros((0, 3), np.float32), r"got \(0, 3\), expected \(N, 3\)"),
        (np.zeros((6, 3), np.int32), r"type of the codes .*got int32, expected floats"),
        (np.full((6, 3), np.inf), r"got NaN or infinity in example 0"),
        (
            np.where(np.arange(6)[:, None] < 2, 1.0, -1e300) * np.ones(3),
            r"got NaN or infinity in example 2",
        ),  # as float32
    ],
)
def test_codes_that_do_not_fit_the_model_are_refused(tmp_path, array, message):
    with pytest.raises(InputError, match=message):
        files.read_codes(saved(tmp_path / "z.npy", array), 3)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_codes_come_as_float32(tmp_path, dtype):
    z = np.random.RandomState(0).randn(6, 3).astype(dtype)
    codes = files.read_codes(saved(tmp_path / "z.npy", z), 3)
    assert codes.dtype == np.float32
    np.testing.assert_array_equal(codes, z.astype(np.float32))
    z[4, 2] = np.nan
    with pytest.raises(InputError, match="got NaN or infinity in example 4, expected finite ones"):
        files.read_codes(saved(tmp_path / "z.npy", z), 3)


class Trap:
    """Unpickling it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_nothing_is_unpickled(tmp_path, name):
    objects = np.array([Trap(tmp_path / "sprung")], dtype=object)
    save = np.save if name == "x.npy" else np.savez
    save(tmp_path / name, objects)
    with pytest.raises(InputError, match=r"got an array of type object and shape \(1,\), expected uint8, floats"):
        read(tmp_path / name)
    assert not (tmp_path / "sprung").exists()
    objects[0].__reduce__()[0](tmp_path / "sprung")
    assert (tmp_path / "sprung").exists()  # so the trap would have left a trace


def test_files_that_are_not_what_they_are_called_are_refused(tmp_path):
    whole = saved(tmp_path / "whole.npy", IMAGES).read_bytes()
    np.savez(tmp_path / "whole.npz", IMAGES)
    archive = (tmp_path / "whole.npz").read_bytes()
    Image.fromarray(IMAGES[0, :, :, 0]).save(tmp_path / "whole.png")
    picture = (tmp_path / "whole.png").read_bytes()
    damaged = {
        "cut.npy": whole[:-7],
        "text.npy": b"hello",
        "empty.npy": b"",
        "cut.npz": archive[:-40],
        "flipped.npz": archive[:200] + bytes([archive[200] ^ 255]) + archive[201:],
        "empty.npz": b"",
        "cut.png": picture[:50],
        "text.png": b"hello",
        "numbers.png": whole,
    }
    for name, contents in damaged.items():
        (tmp_path / name).write_bytes(contents)
        with pytest.raises(InputError, match=r"got .*expected") as error:
            read(tmp_path / name)
        assert name in str(error.value)
    with pytest.raises(InputError, match=r"^input \(.*missing\.npy\): got no file, expected a file that exists"):
        read(tmp_path / "missing.npy")
    with pytest.raises(
        InputError, match=r"got x\.gif, expected a folder of pictures, or a file ending in \.png .*\.npz"
    ):
        read(tmp_path / "x.gif")
    with pytest.raises(InputError, match=r"got x\.png, expected a file ending in \.npy or \.npz"):
        files.read_codes(tmp_path / "x.png", 3)


def test_a_transparent_picture_is_refused(tmp_path):
    Image.new("RGBA", (5, 4)).save(tmp_path / "x.png")
    with pytest.raises(InputError, match="got mode RGBA, transparent, expected grey, or RGB of 8 bits"):
        read(tmp_path / "x.png")


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".TIFF"])
def test_a_picture_of_any_kind_is_read(tmp_path, suffix):
    colours = np.random.RandomState(1).randint(0, 256, (4, 5, 3)).astype(np.uint8)
    Image.fromarray(colours).save(tmp_path / f"x{suffix}", lossless=True)
    x = read(tmp_path / f"x{suffix}", VAE(latent=3, event_shape=(4, 5, 3)))
    np.testing.assert_array_equal(x[0], colours.astype(np.float32) / np.float32(255))


def test_16_bits_are_floats(tmp_path):
    deep = np.random.RandomState(1).randint(0, 65536, (4, 5)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "x.png")
    np.testing.assert_array_equal(np.rint(read(tmp_path / "x.png")[0, ..., 0] * 65535), deep)
    grey = (deep // 256).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "y.png")  # a picture of 8 bits where the others had 16
    found = read(tmp_path / "y.png", levels=0, name="./deep")
    np.testing.assert_array_equal(found[0, ..., 0], grey / np.float32(255))


def test_a_folder_of_pictures_is_read_by_name_and_brought_to_the_size_of_the_data(tmp_path):
    folder, notes = tmp_path / "new", []
    (folder / "b").mkdir(parents=True)
    (folder / "a").mkdir()
    for n, path in enumerate(("b/1.png", "a/2.webp", "b/3.tif")):
        Image.new("L", (5, 4), 50 * n).save(folder / path, lossless=True)
    Image.new("L", (20, 8), 150).save(folder / "a/4.png")
    x = read(folder, notes=notes)
    np.testing.assert_allclose(x.reshape(4, -1) * 255, np.outer([0, 50, 100, 150], np.ones(20)), atol=1e-4)
    assert notes == ["1 of 4 pictures are scaled to 4x5, and 1 of them cropped: of 8x20 50 % is cut off"]
    (folder / "b").rename(folder / "test")
    (folder / "a").rename(folder / "train")
    with pytest.raises(InputError, match="got folders for test, train, expected pictures alone; name one"):
        read(folder)
    np.testing.assert_array_equal(read(folder / "test"), x[[0, 2]])


def test_pictures_of_another_size_are_counted_whatever_their_sizes(tmp_path):
    """Those that a camera turned have the size that they are seen with."""
    turned, notes = Image.Exif(), []
    turned[0x0112] = 6
    for n, size in enumerate([(20, 8)] * 3 + [(5, 4)] * 2 + [(4, 5)] * 2):  # width and height
        Image.new("L", size).save(tmp_path / f"{n}.png")
    Image.new("L", (4, 5)).save(tmp_path / "7.png", exif=turned)
    Image.new("L", (5, 4)).save(tmp_path / "8.png", exif=turned)
    assert len(read(tmp_path, notes=notes)) == 9
    assert notes == ["6 of 9 pictures are scaled to 4x5, and 6 of them cropped: of 8x20 50 % is cut off"]


def test_a_damaged_picture_is_refused(tmp_path):
    Image.fromarray(IMAGES[0, ..., 0]).save(tmp_path / "x.png")
    damaged = bytearray((tmp_path / "x.png").read_bytes())
    damaged[-20] ^= 1
    (tmp_path / "x.png").write_bytes(damaged)
    with pytest.raises(InputError, match="a checksum is wrong"):
        read(tmp_path / "x.png")


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.png", "x.jpg"])
def test_what_is_no_file_is_refused_at_once(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match=rf"{name}\): got a FIFO, device or socket, expected a regular file"):
        read(tmp_path / name)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(InputError, match="got a FIFO, device or socket"):
        read(tmp_path / name)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to(name)
    with pytest.raises(InputError, match=f"{name}"):
        read(tmp_path / name)
    with pytest.raises(InputError, match="File name too long"):
        read(tmp_path / ("x" * 300 + name))


def test_an_archive_that_expands_without_end_takes_no_memory(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", images=np.zeros((2**20, *SHAPE), np.uint8))
    tracemalloc.start()
    with pytest.raises(InputError, match=r"got \d+ bytes that expand to 209716\d\d, expected at most 100 times"):
        read(tmp_path / "x.npz")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_large_arrays_are_read_as_they_are_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "RESIDENT_BYTES", 0)
    monkeypatch.setattr(datasets, "BLOCK_BYTES", 50)
    path = saved(tmp_path / "x.npy", IMAGES)
    x = files.read_images(path, MODEL, Data(), Format(SHAPE, 17), note=pytest.fail)
    assert not datasets.in_memory(x)
    np.testing.assert_array_equal(x[:], IMAGES / np.float32(16))
    for preparation, scale in ((Scale(), 1), (Standardize(), 2)):
        form = Format(SHAPE, 17) if scale == 1 else Format(SHAPE, 17, mean=(0.0,), scale=(0.5,))
        path = saved(tmp_path / "floats.npy", IMAGES / 16)
        x = files.read_images(path, MODEL, Data(preparation=preparation), form, note=pytest.fail)
        assert (datasets.in_memory(x), x.dtype, x.shape) == (False, np.float32, IMAGES.shape)
        np.testing.assert_allclose(x[2:5], scale * IMAGES[2:5] / 16, rtol=1e-6)
    with pytest.raises(InputError, match="got NaN or infinity in example 4"):
        read(saved(tmp_path / "nan.npy", with_nan((4, 0, 0, 0))[..., 0]))


@pytest.mark.parametrize("shape", [(20,), (4, 5, 2)])
def test_a_picture_is_refused_where_the_data_are_none(tmp_path, shape):
    Image.new("L", (5, 4)).save(tmp_path / "x.png")
    with pytest.raises(InputError, match=r"got pictures, expected \.npy or \.npz"):
        read(tmp_path / "x.png", VAE(latent=3, event_shape=shape))


# ------------------------------------------------------------------------------------------------------------ writing


def test_output_files_are_refused_before_any_work(tmp_path):
    old = tmp_path / "old.npy"
    old.write_bytes(b"old")
    (tmp_path / "folder.npy").mkdir()
    for path, message in [
        (tmp_path / "x.jpg", r"output \(--out\): got x\.jpg, expected a name ending in \.npy or \.npz"),
        (tmp_path / "x", "expected a name ending in"),
        (tmp_path / "no" / "x.npy", "expected a file in a directory that exists and is writable"),
        (old / "x.npy", "expected a file in a directory that exists"),
        (tmp_path / "folder.npy", "expected a file in a directory"),
        (tmp_path / f"{'x' * 300}.npy", r"got a name that cannot be used \(File name too long\), expected another one"),
        (tmp_path / ("x" * 300) / "x.npy", "expected a file in a directory that exists"),
        (old, r"old\.npy, which exists, expected a new file; type --out .*old-2\.npy, or --force to replace it"),
    ]:
        with pytest.raises(InputError, match=message):
            files.check_output(path, files.ARRAYS, force=False)
    (tmp_path / "link.npy").symlink_to("nowhere")
    with pytest.raises(InputError, match=r"link\.npy, which exists, expected a new file"):
        files.check_output(tmp_path / "link.npy", files.ARRAYS, force=False)
    (tmp_path / "link.npy").unlink()
    files.check_output(old, files.ARRAYS, force=True)
    files.check_output(tmp_path / "new.npz", files.ARRAYS, force=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.npy", "old.npy"]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_directory_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="writable"):
        files.check_output(tmp_path / "x.npy", files.ARRAYS, force=False)


@pytest.mark.parametrize("missing", [os.W_OK, os.X_OK])
def test_a_directory_must_be_one_to_write_and_to_search_in(tmp_path, monkeypatch, missing):
    monkeypatch.setattr(os, "access", lambda path, mode: path == tmp_path and not mode & missing)
    with pytest.raises(InputError, match="expected a file in a directory that exists and is writable"):
        files.check_output(tmp_path / "x.npy", files.ARRAYS, force=True)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("a bug")])
def test_a_failed_write_leaves_everything_as_it_was(tmp_path, monkeypatch, error):
    path = tmp_path / "x.npy"
    path.write_bytes(b"old")

    def fail(file, array, **options):
        file.write(b"half")
        raise error

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(InputError if isinstance(error, OSError) else type(error)) as caught:
        files.write(path, {"images": IMAGES})
    if isinstance(error, OSError):
        assert "No space left on device" in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["x.npy"]
    assert path.read_bytes() == b"old"


def test_the_suffix_decides_what_is_written(tmp_path):
    x = np.linspace(0, 1, 3 * 20, dtype=np.float32).reshape(3, *SHAPE)
    arrays = {"images": x, "codes": np.zeros((3, 2), np.float32)}
    assert files.write(tmp_path / "x.npy", arrays) == "images float32 (3, 4, 5, 1)"
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), x)
    assert files.write(tmp_path / "x.npz", arrays) == "images float32 (3, 4, 5, 1), codes float32 (3, 2)"
    with np.load(tmp_path / "x.npz") as archive:
        assert set(archive.files) == {"images", "codes"}
        np.testing.assert_array_equal(archive["images"], x)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_table_is_written_with_its_marks_and_the_entries_that_were_given(tmp_path):
    columns = (Column("a"), Column("b", ("x", "y"), "text"))
    rows = {"rows": np.float32([[1.5, 0], [np.nan, 1]]), "more": np.zeros((2, 3), np.float32)}
    reading = Reading(decimal=",", separator=";")
    said = files.write(tmp_path / "x.csv", rows, table=columns, reading=reading, given=[["", "7,0"], ["z", ""]])
    assert said == "2 rows of 2 columns"
    assert (tmp_path / "x.csv").read_text() == "a;b\n1,5;z\n7,0;y\n"
    files.write(tmp_path / "x.csv", rows, table=columns)
    assert (tmp_path / "x.csv").read_text() == "a,b\n1.5,x\n,y\n"
    with pytest.raises(InputError, match=r"got x.csv, expected \.npy or \.npz, as the data are not a table"):
        files.write(tmp_path / "x.csv", rows)


def test_vectors_cannot_be_drawn(tmp_path):
    with pytest.raises(InputError, match=r"expected \.npy or \.npz, as the data are not images"):
        files.write(tmp_path / "x.png", {"images": np.zeros((3, 20), np.float32)})
    assert not list(tmp_path.iterdir())
