"""Folders of pictures: what is decoded is what was drawn, in a stated order, and what does not fit is one line."""

from __future__ import annotations

import io
import os
import struct
import time
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from aevae_jax.data import Data, arrays, datasets, pictures
from aevae_jax.data.datasets import in_memory
from aevae_jax.data.splits import Found, assemble
from aevae_jax.types import InputError

FASHION_MNIST = Path(__file__).parents[3] / "shared" / "data" / "fashion-mnist"
GREY = np.random.RandomState(0).randint(0, 256, (12, 6, 5, 1)).astype(np.uint8)
RGB = np.random.RandomState(1).randint(0, 256, (12, 6, 5, 3)).astype(np.uint8)
DEEP = np.random.RandomState(2).randint(0, 65536, (4, 6, 5)).astype(np.uint16)
DEEP[:, 0, :2] = (0, 65535)


@contextmanager
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


def draw(path, pixels, mode=None, **options):
    """Write `[H, W, C]` to a file of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    (picture if mode is None else picture.convert(mode)).save(path, **options)
    return path


def draw_all(folder, images=GREY):
    for n, pixels in enumerate(images):
        draw(folder / f"{n:03}.png", pixels)
    return folder


# ------------------------------------------------------------------------------------------------------------- layouts


@pytest.mark.parametrize("images", [GREY, RGB], ids=["grey", "RGB"])
def test_a_flat_folder_is_the_training_data_by_name(tmp_path, images):
    for n in np.random.RandomState(2).permutation(12):
        draw(tmp_path / f"{n:03}.png", images[n])
    for name in (
        ".DS_Store",
        "notes.txt",
        "LABELS.CSV",
        "meta.json",
        "README",
        ".hidden.gif",
        "Thumbs.db",
        "desktop.ini",
    ):
        (tmp_path / name).write_text("not a picture")
    found = pictures.read(tmp_path)
    assert found.levels == 256
    assert list(found.parts) == ["train"]
    assert found.parts["train"].labels is None
    np.testing.assert_array_equal(found.parts["train"].x, images)


def test_class_folders_give_labels_and_leave_the_order_to_the_names(tmp_path):
    classes = np.array(["dog", "cat", "10", "9"])[np.random.RandomState(3).randint(0, 4, 12)]
    for n, label in enumerate(classes):
        draw(tmp_path / label / f"{n:03}.png", GREY[n])
    draw(tmp_path / "cat" / "005.png", GREY[0])  # of equal names, the class that comes first
    draw(tmp_path / "9" / "005.png", GREY[1])
    x, labels = pictures.read(tmp_path).parts["train"].x, pictures.read(tmp_path).parts["train"].labels
    names = sorted({(f"{n:03}", label) for n, label in enumerate(classes)} | {("005", "cat"), ("005", "9")})
    assert labels.tolist() == [["10", "9", "cat", "dog"].index(label) for _, label in names]
    assert labels.dtype == np.int32
    assert pictures.read(tmp_path).class_names == ("10", "9", "cat", "dog")
    expected = {(f"{n:03}", label): GREY[n] for n, label in enumerate(classes)}
    expected |= {("005", "cat"): GREY[0], ("005", "9"): GREY[1]}
    np.testing.assert_array_equal(x, np.stack([expected[name] for name in names]))


@pytest.mark.parametrize("validation", ["validation", "valid", "val", "VAL"])
def test_splits_are_folders_and_share_their_classes(tmp_path, validation):
    draw_all(tmp_path / validation, GREY[:3])  # flat
    for n in range(3, 8):
        draw(tmp_path / "train" / "ab"[n % 2] / f"{n}.png", GREY[n])
    for n in range(8, 12):
        draw(tmp_path / "test" / "bc"[n % 2] / f"{n:02}.png", GREY[n])
    parts = pictures.read(tmp_path).parts
    np.testing.assert_array_equal(parts["validation"].x, GREY[:3])
    np.testing.assert_array_equal(parts["train"].x, GREY[3:8])
    np.testing.assert_array_equal(parts["test"].x, GREY[8:])
    assert parts["validation"].labels is None
    assert parts["train"].labels.tolist() == [1, 0, 1, 0, 1]
    assert parts["test"].labels.tolist() == [1, 2, 1, 2]


@pytest.mark.parametrize(
    ("paths", "name", "message"),
    [
        ([], "folder", "got no pictures, expected files ending in .png, .jpg, .jpeg, .webp, .tif, .tiff"),
        (["notes.txt"], "folder", "got no pictures"),
        (["test/1.png"], "test", "got a folder called test and none called train, expected both"),
        (["train/1.png", "test/"], "test", "got no pictures"),
        (
            ["train/1.png", "car/1.png"],
            "car",
            "got car beside train, expected nothing beside train, validation and test",
        ),
        (["train/1.png", "2.png"], "2.png", "got 2.png beside train"),
        (["train/1.png", "val/2.png", "valid/3.png"], "valid", "got two folders for validation"),
        (["a/1.png", "2.png"], "2.png", "got 2.png beside the folder a, expected pictures, or class folders"),
        (["a/1.png", "b/"], "b", "got an empty class folder"),
        (["a/1.png", "b/notes.txt"], "b", "got an empty class folder"),
        (["a/1.png", "b/c/2.png"], "b/c", "got a folder in a class folder"),
        (["train/a/1.png", "test/a/1.png", "test/b/"], "test/b", "got an empty class folder"),
        (["1.png", "2.gif"], "2.gif", "got a .gif file, expected .png, .jpg, .jpeg, .webp, .tif, .tiff, or notes"),
        (["1.png", "2.png.bak"], "2.png.bak", "got a .bak file"),
    ],
)
def test_folders_of_another_layout_are_refused(tmp_path, paths, name, message):
    folder = tmp_path / "folder"
    folder.mkdir()
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("/"):
            (folder / path).mkdir()
        elif path.endswith(".png"):
            draw(folder / path, GREY[0])
        else:
            (folder / path).write_text("hello")
    with refused(name, message):
        pictures.read(folder)


def test_a_class_folder_that_is_not_there_is_no_note(tmp_path):
    draw_all(tmp_path / "folder" / "cat")
    (tmp_path / "folder" / "dog").symlink_to("/a/disk/that/is/not/mounted")
    with refused("dog", "got a pipe, a device or a broken link, expected a file"):
        pictures.read(tmp_path / "folder")


def test_links_stay_inside_the_folder(tmp_path):
    folder = draw_all(tmp_path / "folder")
    (folder / "012.png").symlink_to("003.png")
    np.testing.assert_array_equal(pictures.read(folder).parts["train"].x, GREY[[*range(12), 3]])
    (folder / "013.png").symlink_to(draw(tmp_path / "outside.png", GREY[0]))
    with refused("013.png", "got a link to .*outside.png, expected files, or links to files in the same folder"):
        pictures.read(folder)
    (folder / "013.png").unlink()
    (folder / "013.png").symlink_to("nowhere.png")
    with refused("013.png", "got a pipe, a device or a broken link, expected a file"):
        pictures.read(folder)
    (folder / "013.png").unlink()
    (folder / "013.png").symlink_to("013.png")
    with refused("013.png", "got a pipe, a device or a broken link"):
        pictures.read(folder)
    (folder / "013.png").unlink()
    os.mkfifo(folder / "013.png")
    with refused("013.png", "got a pipe"):
        pictures.read(folder)
    (folder / "013.png").unlink()
    (folder / "more").symlink_to(folder)
    with refused("more", "got a link to a folder"):
        pictures.read(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_refused(tmp_path):
    draw_all(tmp_path)
    (tmp_path / "003.png").chmod(0)
    with refused("003.png", "Permission denied"):
        pictures.read(tmp_path)


def test_names_with_line_breaks_are_one_line(tmp_path):
    draw_all(tmp_path)
    np.testing.assert_array_equal(pictures.read(tmp_path).parts["train"].x, GREY)
    (tmp_path / "0\n03.png").write_bytes(b"hello")
    with refused("0 03.png", "cannot identify image file"):
        pictures.read(tmp_path)


# --------------------------------------------------------------------------------------------------------------- kinds


@pytest.mark.parametrize(("mode", "channels"), [("1", 1), ("L", 1), ("P", 3), ("RGB", 3)])
def test_modes_of_8_bits(tmp_path, mode, channels):
    path = draw(tmp_path / "x.PNG", RGB[0], mode)
    x = pictures.read(tmp_path).parts["train"].x
    with Image.open(path) as picture:
        assert picture.mode == mode
        expected = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
    np.testing.assert_array_equal(x[0], expected.reshape(6, 5, channels))


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp"])
def test_kinds_of_file(tmp_path, suffix):
    smooth = np.asarray(Image.fromarray(RGB[0]).resize((40, 30), Image.Resampling.BICUBIC))
    with Image.open(draw(tmp_path / f"x{suffix}", smooth)) as picture:
        expected = np.asarray(picture.convert("RGB"))
    [x] = pictures.read(tmp_path).parts["train"].x
    np.testing.assert_array_equal(x, expected)
    assert np.abs(x.astype(int) - smooth).mean() < 20


def draw_deep(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)


@pytest.mark.parametrize("compression", ["raw", "packbits", "tiff_lzw", "tiff_deflate"])
def test_tiff_of_8_bits(tmp_path, compression):
    for n, pixels in enumerate(RGB):
        draw(tmp_path / f"{n:03}.{'tif' if n % 2 else 'TIFF'}", pixels, compression=compression)
    found = pictures.read(tmp_path)
    assert found.levels == 256
    np.testing.assert_array_equal(found.parts["train"].x, RGB)


def test_tiff_of_8_bits_where_0_is_white(tmp_path):
    (tmp_path / "x.tif").write_bytes(inverted(encoded("L", "TIFF", GREY[0, ..., 0])))
    np.testing.assert_array_equal(pictures.read(tmp_path).parts["train"].x[0], 255 - GREY[0])


@pytest.mark.usefixtures("resident_or_not")
def test_16_bits_are_floats_that_hold_every_level(tmp_path):
    draw_deep(tmp_path / "0.png", DEEP[0])
    draw_deep(tmp_path / "1.tif", DEEP[1])
    draw_deep(tmp_path / "2.tif", DEEP[2].astype(">u2"))
    draw_deep(tmp_path / "3.tiff", DEEP[3], compression="tiff_deflate")
    found = pictures.read(tmp_path)
    x = found.parts["train"].x
    assert (found.levels, x.shape, x.dtype) == (0, (4, 6, 5, 1), np.float32)
    np.testing.assert_array_equal(np.rint(x[:][..., 0] * 65535), DEEP)
    draw(tmp_path / "4.png", GREY[0])  # one of 8 bits among them has its own white
    np.testing.assert_array_equal(pictures.read(tmp_path).parts["train"].x[:][4], GREY[0] / np.float32(255))


def test_16_bits_are_scaled_and_stay_in_range(tmp_path):
    pixels = np.zeros((40, 20), np.uint16)
    pixels[:, 10:] = 65535
    draw_deep(tmp_path / "x.png", pixels)
    [x] = pictures.read(tmp_path, (10, 10), 3).parts["train"].x
    assert x.shape == (10, 10, 3)
    assert (x.min(), x.max()) == (0, 1)
    assert (x[:, :4] < 0.01).all()
    assert (x[:, 6:] > 0.99).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_or_rgb_on_request(tmp_path, channels):
    draw(tmp_path / "0.png", GREY[0])
    draw(tmp_path / "1.png", RGB[0])
    with refused("1.png", r"got grey in 0\.png, RGB in 1\.png, .*choose what all become: .*channels=1"):
        Data(str(tmp_path)).load()
    x = pictures.read(tmp_path, (), channels).parts["train"].x
    mode = {1: "L", 3: "RGB"}[channels]
    colours = np.asarray(Image.fromarray(RGB[0]).convert(mode)).reshape(6, 5, channels)
    np.testing.assert_array_equal(x, [np.broadcast_to(GREY[0], (6, 5, channels)), colours])
    draw_all(tmp_path, RGB)
    assert Data(str(tmp_path), channels=channels).load().event_shape == (6, 5, channels)
    with pytest.raises(InputError, match="Data channels: got 2, expected 1 for grey, 3 for RGB"):
        Data(str(tmp_path), channels=2)


def test_cameras_turn_pictures_and_add_previews(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.fromarray(RGB[0])
    for n, suffix in enumerate((".png", ".webp", ".tif")):
        picture.save(tmp_path / f"{n}{suffix}", exif=exif, lossless=True)
    np.testing.assert_array_equal(pictures.read(tmp_path).parts["train"].x, [np.rot90(RGB[0], -1)] * 3)
    picture.save(tmp_path / "3.jpg", format="MPO", save_all=True, append_images=[picture.resize((2, 2))])
    assert pictures.read(tmp_path, (6, 5)).parts["train"].x.shape == (4, 6, 5, 3)


TURNED = {
    1: lambda x: x,
    2: np.fliplr,
    3: lambda x: np.rot90(x, 2),
    4: np.flipud,
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.rot90(x, 2).swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", TURNED)
def test_every_orientation_is_applied(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB[0]).save(tmp_path / "0.png", exif=exif)
    np.testing.assert_array_equal(pictures.read(tmp_path).parts["train"].x, [TURNED[orientation](RGB[0])])


@pytest.fixture(params=[2**30, 0], ids=["resident", "lazy"])
def resident_or_not(monkeypatch, request):
    monkeypatch.setattr(datasets, "RESIDENT_BYTES", request.param)


def deep(pixels):
    """A PNG with 16 bits per channel, which Pillow reads but does not write."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return png(pixels.shape[1], pixels.shape[0], 16, 2, zlib.compress(rows))


def png(width, height, depth, colour, data):
    def chunk(kind, contents):
        check = struct.pack(">I", zlib.crc32(kind + contents))
        return struct.pack(">I", len(contents)) + kind + contents + check

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def encoded(mode, kind, pixels=RGB[0], **options):
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind, **options)
    return file.getvalue()


def of_12_bits(tiff):
    """A TIFF file that says that its samples have 12 bits: entry 258, a short, where it was 16."""
    deep, less = (struct.pack("<HHII", 258, 3, 1, bits) for bits in (16, 12))
    assert deep in tiff
    return tiff.replace(deep, less)


def inverted(tiff):
    """A TIFF file that says of itself that 0 is white: entry 262, a short, is 0 where it was 1."""
    black, white = (struct.pack("<HHII", 262, 3, 1, zero) for zero in (1, 0))
    assert black in tiff
    return tiff.replace(black, white)


WHOLE = encoded("RGB", "PNG")
MORE = [Image.fromarray(RGB[1])]
GREY_PICTURE = encoded("L", "PNG")


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("x.png", b"", "cannot identify image file"),
        ("x.png", b"hello", "cannot identify image file"),
        ("x.png", WHOLE[: len(WHOLE) // 2], "got a PNG file without its end, expected an intact picture"),
        ("x.png", WHOLE[:-1], "got a PNG file without its end"),
        ("x.png", WHOLE[:100] + bytes((WHOLE[100] ^ 255,)) + WHOLE[101:], "got a PNG file that is damaged: a checksum"),
        ("x.png", png(5, 6, 8, 2, zlib.compress(bytes(50))), "got something unreadable"),
        ("x.png", encoded("RGBA", "PNG"), "got mode RGBA, transparent, expected grey, or RGB of 8 bits, .*convert it"),
        ("x.png", encoded("LA", "PNG"), "got mode LA, transparent"),
        ("x.png", encoded("P", "PNG", transparency=0), "got mode P, transparent"),
        ("x.png", deep(RGB[0]), "got mode RGB, 16 bits"),
        (
            "x.png",
            encoded("RGB", "PNG", save_all=True, append_images=MORE),
            "got an animation or several pages, expected",
        ),
        ("x.png", encoded("RGB", "GIF"), "cannot identify image file"),
        ("x.png", GREY_PICTURE, "got grey in x.png, RGB in 000.png, expected either of them"),
        ("x.jpg", encoded("CMYK", "JPEG"), "got mode CMYK"),
        ("x.jpg", encoded("RGB", "JPEG")[:-20], "got something unreadable .*truncated"),
        ("x.webp", encoded("RGBA", "WEBP", np.dstack([RGB[0], RGB[0][..., :1]])), "got mode RGBA, transparent"),
        ("x.webp", encoded("RGB", "WEBP", save_all=True, append_images=MORE), "got an animation"),
        ("x.webp", encoded("RGB", "WEBP")[:-20], "got something unreadable"),
        ("x.tif", encoded("RGB", "TIFF", save_all=True, append_images=MORE), "got an animation or several pages"),
        ("x.tif", encoded("RGB", "TIFF", compression="jpeg"), "got mode RGB, jpeg"),
        ("x.tif", encoded("F", "TIFF"), "got mode F, expected grey, or RGB of 8 bits"),
        ("x.tif", encoded("I", "TIFF"), "got mode I, expected grey"),
        ("x.tif", encoded("RGBA", "TIFF"), "got mode RGBA, transparent"),
        ("x.tif", inverted(encoded("I;16", "TIFF", RGB[0][..., 0])), "got mode I;16, 16 bits, where 0 is white"),
        ("x.tif", of_12_bits(encoded("I;16", "TIFF", RGB[0][..., 0])), "got mode I;16, 12 bits, expected grey, or RGB"),
        ("x.tif", encoded("RGB", "TIFF")[:-1], "got something unreadable .*truncated"),
        ("x.png", png(9000, 9000, 8, 2, b""), "got 9000x9000 pixels, expected at most 67108864 pixels"),
        ("x.png", png(10_000, 10_000, 8, 2, b""), "got 10000x10000 pixels, expected at most"),
        ("x.png", png(2**31 - 1, 2**31 - 1, 8, 2, b""), "DecompressionBombError"),
        ("x.png", png(8192, 8192, 8, 2, zlib.compress(bytes(10**6))), "got something unreadable"),
    ],
)
@pytest.mark.usefixtures("resident_or_not")
def test_one_bad_picture_among_good_ones_is_refused(tmp_path, name, contents, message):
    draw_all(tmp_path, RGB)
    (tmp_path / name).write_bytes(contents)
    with refused(name, message, megabytes=4):
        assemble("bad", pictures.read(tmp_path))


@pytest.mark.parametrize("kind", ["grey", "palette", "deep"])
def test_every_flipped_bit_of_a_png_file_is_noticed(tmp_path, kind):
    pixels = {"grey": GREY[0, ..., 0], "palette": RGB[0], "deep": DEEP[0]}[kind]
    picture = Image.fromarray(pixels)
    file = io.BytesIO()
    (picture.quantize(4) if kind == "palette" else picture).save(file, "PNG", dpi=(72, 72))
    whole, path = file.getvalue(), tmp_path / "x.png"
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"x\.png\)"):
            pictures.read(tmp_path)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_deflate"}),
    ],
)
def test_no_picture_is_made_of_a_part_of_a_file(tmp_path, kind, options):
    whole, path = encoded("RGB", kind, **options), tmp_path / f"x.{kind.lower()}"
    for end in range(0, len(whole), 1 + len(whole) // 100):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"expected an intact picture"):
            pictures.read(tmp_path)
    path.write_bytes(whole[:-1])
    with pytest.raises(InputError, match=r"expected an intact picture"):
        pictures.read(tmp_path)


def test_a_part_of_a_png_file_may_be_longer_than_what_is_read_at_once(tmp_path):
    """A megabyte, of which the checksum goes on."""
    pixels = np.random.RandomState(0).randint(0, 256, (1100, 1000)).astype(np.uint8)
    rows = np.pad(pixels, ((0, 0), (1, 0))).tobytes()  # each begins with the number of its filter
    whole = png(1000, 1100, 8, 0, zlib.compress(rows, 0))
    assert len(whole) > 2**20
    (tmp_path / "x.png").write_bytes(whole)
    np.testing.assert_array_equal(pictures.read(tmp_path).parts["train"].x[0, ..., 0], pixels)
    for place in (1000, len(whole) - 1000):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        (tmp_path / "x.png").write_bytes(damaged)
        with refused("x.png", "got a PNG file that is damaged: a checksum is wrong"):
            pictures.read(tmp_path)


def test_a_picture_that_became_another_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "RESIDENT_BYTES", 0)
    x = pictures.read(draw_all(tmp_path)).parts["train"].x
    draw_deep(tmp_path / "003.png", DEEP[0])
    with refused("003.png", "got a picture of 16 bits, expected one of 8 bits, as it was before"):
        x[2:5]
    np.testing.assert_array_equal(x[4:6], GREY[4:6])


def test_a_file_too_large_for_a_picture_is_not_read(tmp_path):
    draw_all(tmp_path)
    with (tmp_path / "x.webp").open("wb") as file:
        file.write(b"RIFF\xff\xff\xff\x7fWEBPVP8 ")
        file.truncate(2**36)  # sparse: it takes no room
    with refused("x.webp", "got 68,719,476,736 bytes, expected at most 268,435,456"):
        pictures.read(tmp_path)


# --------------------------------------------------------------------------------------------------------------- sizes


def test_pictures_of_unlike_sizes_are_scaled_to_cover_the_smallest_sides_and_cropped(tmp_path):
    wide, high = (np.zeros((h, w, 1), np.uint8) for h, w in ((20, 60), (80, 10)))
    wide[:, 20:40] = 200  # what is left of 20 x 60 at 10 x 20 is its middle third and a half
    high[30:50] = 100
    draw(tmp_path / "1.png", wide)
    draw(tmp_path / "2.png", high)
    x = pictures.read(tmp_path).parts["train"].x
    assert x.shape == (2, 20, 10, 1)
    np.testing.assert_array_equal(x[0], np.full((20, 10, 1), 200))
    np.testing.assert_array_equal(x[1], np.full((20, 10, 1), 100))


def test_pictures_that_are_cropped_are_counted_with_what_is_cut_off(tmp_path):
    """Of 9x9, scaled to 6x6, a sixth is cut off to get 6x5; of 6x15 two thirds are; 12x10 is only scaled."""
    draw_all(tmp_path)
    assert Data(str(tmp_path)).load().notes == ()
    draw(tmp_path / "scaled.png", np.full((12, 10, 1), 9, np.uint8))
    [note] = Data(str(tmp_path)).load().notes
    assert note == f"{tmp_path}: 1 of 13 pictures are scaled to 6x5; size=(H, W) takes another size"
    draw(tmp_path / "large.png", np.zeros((9, 9, 1), np.uint8))
    [note] = Data(str(tmp_path)).load().notes
    told = "2 of 14 pictures are scaled to 6x5, and 1 of them cropped: of 9x9 17 % is cut off"
    assert note == f"{tmp_path}: {told}; size=(H, W) takes another size"
    draw(tmp_path / "wide.png", np.full((6, 15, 1), 99, np.uint8))
    [note] = Data(str(tmp_path), size=(6, 5)).load().notes
    assert note.endswith("3 of 15 pictures are scaled to 6x5, and 2 of them cropped: of 6x15 67 % is cut off")


def test_the_smallest_sides_are_those_of_all_parts(tmp_path):
    """Height from the training data, width from the test data."""
    for path, height, width in (("train/1.png", 6, 9), ("validation/1.png", 8, 8), ("test/1.png", 9, 5)):
        draw(tmp_path / path, np.full((height, width, 1), 7, np.uint8))
    parts = pictures.read(tmp_path).parts
    assert {part: split.x.shape for part, split in parts.items()} == dict.fromkeys(
        ("train", "validation", "test"), (1, 6, 5, 1)
    )


def test_parts_may_be_of_unlike_depth_and_all_become_floats(tmp_path):
    draw(tmp_path / "train" / "1.png", GREY[0])
    (tmp_path / "test").mkdir()
    draw_deep(tmp_path / "test" / "1.png", DEEP[0])
    found = pictures.read(tmp_path)
    assert found.levels == 0
    np.testing.assert_array_equal(found.parts["train"].x[0], GREY[0] / np.float32(255))
    np.testing.assert_array_equal(np.rint(found.parts["test"].x[0][..., 0] * 65535), DEEP[0])


def test_pictures_of_large_and_small_sides_come_in_order_from_several_threads(tmp_path, monkeypatch):
    """The threads are those of the largest picture, wherever it stands."""
    monkeypatch.setattr(pictures, "LARGE_PIXELS", 6 * 5)
    asked, pool = [], pictures.ThreadPoolExecutor
    monkeypatch.setattr(pictures, "ThreadPoolExecutor", lambda count: asked.append(count) or pool(count))
    draw_all(tmp_path)
    np.testing.assert_array_equal(pictures.read(tmp_path).parts["train"].x, GREY)
    assert asked == []
    draw(tmp_path / "005.png", np.full((6, 6, 1), 9, np.uint8))
    x = pictures.read(tmp_path).parts["train"].x
    assert len(asked) == 1
    np.testing.assert_array_equal(np.delete(x, 5, axis=0), np.delete(GREY, 5, axis=0))
    assert (x[5] == 9).all()


def test_a_size_can_be_asked_for(tmp_path):
    draw_all(tmp_path)
    np.testing.assert_array_equal(pictures.read(tmp_path, (6, 5)).parts["train"].x, GREY)  # no change of size
    x = Data(str(tmp_path), size=(12, 4)).load().train.x
    assert x.shape[1:] == (12, 4, 1)
    once = Image.fromarray(GREY[0, ..., 0]).resize((4, 12), Image.Resampling.LANCZOS, box=(1.5, 0, 3.5, 6))
    np.testing.assert_array_equal(x[0, ..., 0], np.asarray(once))
    with refused("size", "got 100000x100000, expected at most 67108864 pixels"):
        pictures.read(tmp_path, (100_000, 100_000))


def test_pictures_may_have_just_so_many_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_PIXELS", 30)
    draw_all(tmp_path)
    np.testing.assert_array_equal(pictures.read(tmp_path).parts["train"].x, GREY)
    assert pictures.read(tmp_path, (3, 10)).parts["train"].x.shape == (12, 3, 10, 1)
    with refused("size", "got 1x31, expected at most 30 pixels"):
        pictures.read(tmp_path, (1, 31))
    draw(tmp_path / "x.png", np.zeros((31, 1, 1), np.uint8))
    with refused("x.png", "got 1x31 pixels, expected at most 30 pixels"):
        pictures.read(tmp_path)


def test_a_palette_is_scaled_in_its_colours(tmp_path):
    picture = Image.fromarray(RGB[0]).convert("P")
    picture.save(tmp_path / "x.png")
    expected = ImageOps.fit(picture.convert("RGB"), (3, 3), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(pictures.read(tmp_path, (3, 3)).parts["train"].x[0], np.asarray(expected))


# ---------------------------------------------------------------------------------------------------------------- rows


@pytest.mark.parametrize("threads", [False, True])
def test_rows_are_decoded_when_asked_for(tmp_path, monkeypatch, threads):
    draw_all(tmp_path, RGB)
    monkeypatch.setattr(datasets, "RESIDENT_BYTES", 0)
    monkeypatch.setattr(pictures, "LARGE_PIXELS", 0 if threads else 2**20)
    x = pictures.read(tmp_path).parts["train"].x
    assert not in_memory(x)
    assert (len(x), x.shape, x.dtype) == (12, (12, 6, 5, 3), np.uint8)
    for rows in [
        slice(None),
        slice(2, 9, 3),
        slice(9, 2, -2),
        slice(3, 3),
        np.array([11, 0, 5, 5, 0]),
        np.array([], int),
    ]:
        np.testing.assert_array_equal(x[rows], RGB[rows])
    orders = [np.random.RandomState(seed).permutation(12) for seed in range(20)]
    with ThreadPoolExecutor(4) as pool:
        for order, rows in zip(orders, pool.map(x.__getitem__, orders), strict=True):
            np.testing.assert_array_equal(rows, RGB[order])


def test_the_limit_is_what_the_pictures_of_a_part_need(tmp_path, monkeypatch):
    draw_all(tmp_path / "train", GREY[:8])
    draw_all(tmp_path / "test", GREY[8:])
    for limit, resident in ((8 * 30, True), (8 * 30 - 1, False)):
        monkeypatch.setattr(datasets, "RESIDENT_BYTES", limit)
        parts = pictures.read(tmp_path).parts
        assert in_memory(parts["train"].x) == resident
        assert in_memory(parts["test"].x)
        np.testing.assert_array_equal(parts["train"].x[:], GREY[:8])


def test_resident_and_decoded_data_sets_are_the_same(tmp_path, monkeypatch):
    draw_all(tmp_path)
    resident = Data(str(tmp_path)).load()
    monkeypatch.setattr(datasets, "RESIDENT_BYTES", 0)
    assert Data(str(tmp_path)).load().digest() == resident.digest()


def test_fashion_mnist_as_pictures_is_fashion_mnist(tmp_path):
    if not FASHION_MNIST.is_dir():
        pytest.skip(f"the idx files of Fashion-MNIST are not in {FASHION_MNIST}")
    upstream = arrays.read_idx(FASHION_MNIST).parts
    counts = {"train": 300, "test": 60}
    for part, count in counts.items():
        for n in range(count):
            draw(tmp_path / part / str(upstream[part].labels[n]) / f"{n:05}.png", upstream[part].x[n])
    found = pictures.read(tmp_path)
    for part, count in counts.items():
        np.testing.assert_array_equal(found.parts[part].x, upstream[part].x[:count])
        np.testing.assert_array_equal(found.parts[part].labels, upstream[part].labels[:count])
    few = {part: upstream[part][:count] for part, count in counts.items()}
    assert assemble("pictures", found).digest() == assemble("idx", Found(few, 256)).digest()
