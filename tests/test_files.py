"""Images and codes in files: what is read is checked, what is written appears whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aevae_jax import files
from aevae_jax.data import DynamicBinarization, Format, Scale
from aevae_jax.likelihoods import Bernoulli, ContinuousBernoulli
from aevae_jax.models import VAE
from aevae_jax.types import InputError

SHAPE = (4, 5, 1)
MODEL = VAE(latent=3, event_shape=SHAPE)
IMAGES = np.random.RandomState(0).randint(0, 17, (6, *SHAPE)).astype(np.uint8)


def read(path, model=MODEL, preparation=Scale(), levels=17):  # noqa: B008 (a frozen value)
    return files.read_images(path, model, preparation, Format(model.event_shape, levels))


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


def test_raw_images_for_bits_are_drawn_once_and_for_all(tmp_path):
    model = VAE(latent=3, likelihood=Bernoulli(), event_shape=SHAPE)
    path = saved(tmp_path / "x.npy", IMAGES)
    first, second = (read(path, model, DynamicBinarization()) for _ in range(2))
    assert set(np.unique(first)) == {0.0, 1.0}
    np.testing.assert_array_equal(first, second)
    assert not first[IMAGES == 0].any()
    assert first[IMAGES == 16].all()


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
        (IMAGES.astype(complex), r"got complex128, expected uint8 or floats"),
        (IMAGES > 3, r"got bool, expected uint8 or floats"),
        (IMAGES[:, :3], r"got \(6, 3, 5, 1\), expected \(N, 4, 5, 1\), as the model was built for"),
        (IMAGES[0], r"shape of the images .*got \(4, 5, 1\), expected \(N, 4, 5, 1\)"),
        (IMAGES[:0], r"got \(0, 4, 5, 1\), expected"),
        (np.float32(3), r"got \(1,\), expected"),
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
        (np.zeros((6, 3), np.int32), r"type of the codes .*got int32, expected floats"),
        (np.full((6, 3), np.inf), r"got NaN or infinity in example 0"),
    ],
)
def test_codes_that_do_not_fit_the_model_are_refused(tmp_path, array, message):
    with pytest.raises(InputError, match=message):
        files.read_codes(saved(tmp_path / "z.npy", array), 3)


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
    with pytest.raises(InputError, match=r"cannot be read .*Object arrays"):
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
        "cut.npy": whole[:-7], "text.npy": b"hello", "empty.npy": b"",
        "cut.npz": archive[:-40], "flipped.npz": archive[:200] + bytes([archive[200] ^ 255]) + archive[201:],
        "empty.npz": b"", "cut.png": picture[:50], "text.png": b"hello", "numbers.png": whole,
    }  # fmt: skip
    for name, contents in damaged.items():
        (tmp_path / name).write_bytes(contents)
        with pytest.raises(InputError, match=r"got .*expected") as error:
            read(tmp_path / name)
        assert name in str(error.value)
    with pytest.raises(InputError, match=r"got .*missing\.npy, expected a file that exists"):
        read(tmp_path / "missing.npy")
    with pytest.raises(InputError, match=r"got x\.jpg, expected a file ending in \.png or \.npy or \.npz"):
        read(tmp_path / "x.jpg")
    with pytest.raises(InputError, match=r"got x\.png, expected a file ending in \.npy or \.npz"):
        files.read_codes(tmp_path / "x.png", 3)


@pytest.mark.parametrize(
    ("mode", "size", "message"),
    [
        ("L", (4, 5), "size of the picture .*got 4x5, expected 5x4"),
        ("RGBA", (5, 4), "got mode RGBA, expected 8-bit grey or RGB"),
        ("I;16", (5, 4), "got mode I;16, expected 8-bit"),
    ],
)
def test_pictures_that_do_not_fit_the_model_are_refused(tmp_path, mode, size, message):
    Image.new(mode, size).save(tmp_path / "x.png")
    with pytest.raises(InputError, match=message):
        read(tmp_path / "x.png")


@pytest.mark.parametrize("shape", [(20,), (4, 5, 2)])
def test_a_picture_is_refused_where_the_data_are_none(tmp_path, shape):
    Image.new("L", (5, 4)).save(tmp_path / "x.png")
    with pytest.raises(InputError, match=r"got a picture, expected \.npy or \.npz"):
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
        (old, r"old\.npy, which exists, expected a new file; choose another name, or add --force"),
    ]:
        with pytest.raises(InputError, match=message):
            files.check_output(path, files.ARRAYS, force=False)
    files.check_output(old, files.ARRAYS, force=True)
    files.check_output(tmp_path / "new.npz", files.ARRAYS, force=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.npy", "old.npy"]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_directory_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="writable"):
        files.check_output(tmp_path / "x.npy", files.ARRAYS, force=False)


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
    assert files.write(tmp_path / "x.png", arrays, columns=2) == "3 images"
    with Image.open(tmp_path / "x.png") as picture:
        pixels = np.asarray(picture)
    scale = 56 // 4
    assert pixels.shape == (2 * (4 * scale + 1) - 1, 2 * (5 * scale + 1) - 1, 3)
    tile = pixels[: 4 * scale : scale, : 5 * scale : scale, 0]
    np.testing.assert_array_equal(tile, np.round(x[0, :, :, 0] * 255))
    assert (pixels[4 * scale + 1 :, 5 * scale + 1 :] == 255).all()  # there is no fourth image
    assert len(list(tmp_path.iterdir())) == 3


def test_vectors_cannot_be_drawn(tmp_path):
    with pytest.raises(InputError, match=r"expected \.npy or \.npz, as the data are not images"):
        files.write(tmp_path / "x.png", {"images": np.zeros((3, 20), np.float32)})
    assert not list(tmp_path.iterdir())


def test_each_row_of_inputs_is_above_its_reconstructions():
    x, y = (np.arange(n, n + 5, dtype=np.float32).reshape(5, 1, 1, 1) / 100 for n in (10, 20))
    sheet = files.pairs(x, y, 3).reshape(4, 3)
    np.testing.assert_allclose(
        sheet * 100, [[10, 11, 12], [20, 21, 22], [13, 14, 100], [23, 24, 100]], rtol=1e-6
    )  # fmt: skip
