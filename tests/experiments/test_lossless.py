"""The experiment on compression: what other codecs get and give back, what is counted, refused and written."""

from __future__ import annotations

import bz2
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from aevae_jax.data import Data
from aevae_jax.models.architectures import MLP
from aevae_jax.types import InputError

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "experiments"))

import lossless  # noqa: E402
import lossless_codecs as codecs  # noqa: E402
import lossless_table as tables  # noqa: E402

IMAGES = np.random.default_rng(0).integers(0, 2, (6, 5, 4), np.uint8)


@pytest.fixture
def codec_list():
    """What is known of the libraries that are installed is forgotten before and after."""
    codecs.everything.cache_clear()
    yield codecs.everything
    codecs.everything.cache_clear()


# other codecs


def test_codecs_get_each_image_once_in_its_place():
    [stream], [mosaic] = (codecs.arranged(IMAGES, way) for way in (codecs.STREAM, codecs.MOSAIC))
    assert stream.tobytes() == IMAGES.tobytes()
    assert mosaic.shape == (2 * 5, 3 * 4)
    for index, image in enumerate(IMAGES):
        row, column = divmod(index, 3)
        assert (mosaic[5 * row : 5 * row + 5, 4 * column : 4 * column + 4] == image).all()
    assert np.array_equal(codecs.arranged(IMAGES, codecs.EACH), IMAGES)
    assert codecs.arranged(np.zeros((10_000, 28, 28), np.uint8), codecs.MOSAIC)[0].shape == (2800, 2800)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_every_codec_gives_back_what_it_is_given(levels):
    images = np.random.default_rng(1).integers(0, levels, (6, 9, 7), np.uint8)
    for codec in codecs.everything():
        for way in codec.ways if codec.version else ():
            entry = codecs.measure(codec, way, images, levels)
            assert entry["bytes"] > images.size * np.log2(levels) / 8  # these are random


def test_a_codec_that_loses_something_is_refused():
    [codec] = [one for one in codecs.everything() if one.name == "bz2"]
    lossy = codec._replace(decode=lambda file, shape, levels: codec.decode(file, shape, levels) & 0xFE)
    with pytest.raises(InputError, match="bz2 -9: got other pixels than it was given"):
        codecs.measure(lossy, codecs.STREAM, IMAGES, 17)


def test_sizes_are_of_whole_files_and_bits_are_packed():
    [codec] = [one for one in codecs.everything() if one.name == "bz2"]
    sizes = [codecs.measure(codec, way, IMAGES, 17)["bytes"] for way in (codecs.STREAM, codecs.EACH)]
    assert sizes == [len(bz2.compress(IMAGES.tobytes())), sum(len(bz2.compress(image.tobytes())) for image in IMAGES)]
    packed = codecs.measure(codec, codecs.STREAM, IMAGES, 2)["bytes"]
    assert packed == len(bz2.compress(np.packbits(IMAGES).tobytes()))


def test_codecs_that_are_not_installed_are_named(tmp_path, monkeypatch, codec_list):
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    test = lossless.Test("few", IMAGES[..., None], 2)
    found, missing = lossless.others(test, tmp_path / "codecs.json")
    assert missing == ["zstd", "JPEG-LS", "JPEG XL"]
    assert {entry["codec"] for entry in found} == {"gzip", "bz2", "xz", "PNG", "WebP"}
    assert "zstd, JPEG-LS, JPEG XL (`pip install imagecodecs`)" in tables.said(one(missing=missing))


def test_codecs_are_measured_once(tmp_path, monkeypatch):
    test, path = lossless.Test("few", IMAGES[..., None], 2), tmp_path / "codecs.json"
    found = lossless.others(test, path)
    monkeypatch.setattr(codecs, "measure", lambda *arguments: pytest.fail("measured again"))
    assert lossless.others(test, path) == found


@pytest.mark.slow
def test_published_sizes_are_reached(fashion_mnist_directory, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(fashion_mnist_directory))
    images = Data("fashion_mnist").load().test.x[:][..., 0]
    known = {"bz2 -9": 4.120, "xz -9e": 3.855, "JPEG XL effort 7": 3.673}
    for codec in codecs.everything():
        bits = known.get(f"{codec.name} {codec.setting}")
        if bits and codec.version:
            found = codecs.measure(codec, codec.ways[-1], images, 256)
            assert 8 * found["bytes"] / images.size == pytest.approx(bits, abs=1e-3), codec.name


# the models


@pytest.mark.parametrize("name", lossless.ROWS)
def test_every_row_has_the_levels_of_its_data(name):
    row = lossless.ROWS[name]
    assert row.run.model.likelihood.support.levels == {"digits": 17, "Fashion-MNIST": 256}.get(row.images, 2)
    assert row.run.model.event_shape == ()


def test_a_set_is_of_test_images(tmp_path, monkeypatch):
    dataset = Data("digits").load()
    monkeypatch.setattr(lossless.fitting, "fit", lambda *arguments, **options: "fitted")
    monkeypatch.setattr(lossless, "others", lambda test, path: ([], ["JPEG XL"]))
    monkeypatch.setattr(lossless, "ours", lambda name, row, fitted, test, out: (name, fitted, test))
    found = lossless.measure("digits", lossless.ROWS["digits"], tmp_path)
    [(name, fitted, test)] = found["ours"]
    assert (name, fitted) == ("digits", "fitted")
    assert np.array_equal(test.symbols, dataset.test.x[:])
    assert (test.symbols.dtype, test.levels, found["levels"]) == (np.uint8, 17, 17)
    assert (found["count"], found["pixels"], found["missing"]) == (360, 360 * 64, ["JPEG XL"])
    assert test.sha256 == found["sha256"] != lossless.Test("other", test.symbols[:-1], 17).sha256


ROW = lossless.ROWS["digits"]._replace(samples=3, chunk=700)


def commands(monkeypatch, change):
    """Stand for `aevae`: what is compressed is copied, and changed when it is decompressed. Returns what is typed."""
    seen = []

    def run(words, **options):
        seen.append(words[3:])
        arguments = [Path(word) for word in words[3:]]
        if arguments[0].name == "compress":
            arguments[3].write_bytes(arguments[2].read_bytes())
        else:
            np.save(arguments[2], change(np.load(arguments[1], allow_pickle=False)))
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(lossless.subprocess, "run", run)
    return seen


def changed(x):
    x = x.copy()
    x[-1, -1, -1] ^= 1
    return x


def test_a_file_counts_with_all_that_is_in_it(tmp_path, monkeypatch):
    seen = commands(monkeypatch, lambda x: x)
    size = lossless.written_and_read(tmp_path / "few", IMAGES, tmp_path, ROW)
    assert size == (tmp_path / "few.aev").stat().st_size > IMAGES.size
    assert seen[0][-4:] == ["--samples", "3", "--chunk", "700"]


@pytest.mark.parametrize("change", [changed, lambda x: x[:-1], lambda x: x.astype(np.int64)])
def test_a_file_that_gives_other_bytes_is_refused(tmp_path, monkeypatch, change):
    commands(monkeypatch, change)
    with pytest.raises(InputError, match=r"few[.]aev: got other bytes than were compressed"):
        lossless.written_and_read(tmp_path / "few", IMAGES, tmp_path, ROW)


def test_a_command_that_fails_is_told(tmp_path, monkeypatch):
    failed = SimpleNamespace(returncode=2, stderr="error: model: got none\n")
    monkeypatch.setattr(lossless.subprocess, "run", lambda words, **options: failed)
    with pytest.raises(InputError, match="aevae compress: got error: model: got none, expected exit code 0"):
        lossless.written_and_read(tmp_path / "few", IMAGES, tmp_path, ROW)


def test_rows_that_do_not_exist_are_refused():
    with pytest.raises(InputError, match="--rows: got none, expected digits, fashion_mnist"):
        lossless.lossless(rows=("digits", "none"))


# the table


def entry(codec="xz", setting="-6", way=codecs.STREAM, size=1000):
    return {
        "codec": codec,
        "setting": setting,
        "way": way,
        "version": "1",
        "bytes": size,
        "encode_seconds": 0.5,
        "decode_seconds": 0.25,
    }


def model(row="digits", size=500, bound=3900.0):
    return {
        "row": row,
        "words": f"model of {row}",
        "command": "python experiments/lossless.py --record a.json",
        "bytes": size,
        "bound_bits": bound,
        "encode_seconds": 2.0,
        "decode_seconds": 4.0,
        "model_bytes": 10_000,
        "training_seconds": 60.0,
        "training_cores": 2,
    }


def one(images="digits", sha256="1", found=(), ours=(), missing=()):
    return {
        "images": images,
        "sha256": sha256,
        "count": 100,
        "event_shape": [5, 4, 1],
        "pixels": 2000,
        "levels": 2,
        "codecs": list(found),
        "ours": list(ours),
        "missing": list(missing),
    }


def test_of_each_codec_the_smallest_setting_counts():
    found = [entry(size=900), entry(setting="-9e", size=800), entry("WebP", "a", codecs.EACH, 700)]
    found.append(entry("WebP", "a", codecs.MOSAIC, 600))
    assert [(e["codec"], e["bytes"]) for e in tables.smallest(found)] == [("xz", 800), ("WebP", 700), ("WebP", 600)]


def test_a_model_pays_where_it_and_its_file_are_as_small_as_the_other_file():
    ours, other, count = model(size=500), entry(size=700), 100
    images = tables.pays_from(ours, other, count)
    assert ours["model_bytes"] + images * ours["bytes"] / count == pytest.approx(images * other["bytes"] / count)
    assert tables.pays_from(ours, entry(size=500), count) == float("inf")


def test_the_excess_is_that_of_the_file_over_the_bound():
    assert tables.excess(model(size=500, bound=4000.0)) == 0
    assert tables.excess(model(size=505, bound=4000.0)) == pytest.approx(0.01)


def test_a_row_says_all_of_a_model():
    text = tables.table([one(found=[entry(), entry("WebP", "a", codecs.EACH, 700)], ours=[model()])])
    ours = "| **ours: model of digits** | one .aev | 2.000 | 500 | 50 | 25 | 10,000 | 5,000 images | 1.950 (+2.56 %) |"
    lines = text.splitlines()
    assert lines[0] == (
        "digits: 100 test images of 5x4 pixels with 2 levels. The smallest file of a model takes 0.500 times that of "
        "xz and 0.714 times that of WebP."
    )
    assert lines[4] == f"{ours} 1:00, 2 cores |"  # the smallest first
    assert lines[5].startswith("| WebP a | each alone | 2.800 | 700 | 200 | 400 |")
    assert "| never |" in tables.table([one(found=[entry(size=400)], ours=[model()])])


def test_results_of_other_days_stay_and_those_of_other_images_go():
    old = [one(found=[entry(size=900), entry("JPEG XL", size=1)], ours=[model(), model("b")]), one("bits", "7")]
    [digits, bits] = tables.merged(old, [one(found=[entry(size=800)], ours=[model(size=400)], missing=["JPEG XL"])])
    assert [(e["codec"], e["bytes"]) for e in digits["codecs"]] == [("xz", 800), ("JPEG XL", 1)]
    assert [(e["row"], e["bytes"]) for e in digits["ours"]] == [("digits", 400), ("b", 500)]
    assert (digits["missing"], bits["images"]) == ([], "bits")
    [other, _] = tables.merged(old, [one(sha256="2", found=[entry(size=800)], missing=["JPEG XL"])])
    assert ([e["bytes"] for e in other["codecs"]], other["ours"], other["missing"]) == ([800], [], ["JPEG XL"])


def test_results_are_written_and_drawn(tmp_path):
    sets = [one(found=[entry(), entry("WebP", "a", codecs.EACH, 700)], ours=[model()]), one("bits", "2", [], [model()])]
    lossless.publish(sets[:1], tmp_path / "a.json")
    lossless.publish(sets[1:], tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text())["sets"] == sets
    assert (tmp_path / "a.png").stat().st_size > 10_000
    text = tables.of_readme({"sets": sets}, "results/a.json")
    assert "`python experiments/lossless.py` (" in text
    assert "(results/a.png)" in text


def test_what_was_measured_is_measured_again_where_that_is_asked(tmp_path, monkeypatch):
    for name in ("codecs-1.json", "digits.json", "fashion_mnist.json"):
        (tmp_path / name).write_text("[]")
    left = []
    monkeypatch.setattr(lossless, "measure", lambda *given: left.extend(tmp_path.glob("*.json")) or one(ours=[model()]))
    lossless.lossless(out=tmp_path, again=True)
    assert [path.name for path in left] == ["fashion_mnist.json"]


@pytest.mark.slow
def test_a_small_table_is_made_and_made_again_at_once(tmp_path, monkeypatch, capsys):
    row = lossless.ROWS["digits"]
    run = replace(row.run, model=replace(row.run.model, network=MLP((32,))), epochs=12)
    monkeypatch.setattr(lossless, "ROWS", {"digits": row._replace(run=run)})
    arguments = {"out": tmp_path / "runs", "record": str(tmp_path / "r.json")}
    lossless.lossless(**arguments)
    first = capsys.readouterr().out
    [found] = json.loads((tmp_path / "r.json").read_text())["sets"]
    [ours] = found["ours"]
    assert ours["bytes"] == (tmp_path / "runs" / "digits.aev").stat().st_size
    assert ours["bound_bits"] < 8 * ours["bytes"]
    assert ours["bound_bits"] / 360 == pytest.approx(ours["negative_elbo"] / np.log(2), rel=0.02)
    monkeypatch.setattr(lossless, "written_and_read", lambda *given: pytest.fail("written again"))
    lossless.lossless(**arguments)
    assert capsys.readouterr().out == first
