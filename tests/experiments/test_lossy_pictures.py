"""What the experiment on lossy compression says of codecs, and of ours, on images that are known."""

from __future__ import annotations

import io
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aevae_jax.data import Data
from aevae_jax.models import CompressiveAutoencoder
from aevae_jax.models.architectures import MLP
from aevae_jax.runs import records

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

import lossy
import lossy_codecs as codecs
import lossy_picture
import lossy_table


def photographs(n: int, size: int = 16, seed: int = 0) -> np.ndarray:
    """Smooth images, `[n, size, size]` uint8."""
    generator = np.random.default_rng(seed)
    waves = np.sin(np.linspace(0, 3, size)[None, :, None] * generator.uniform(0.5, 3, (n, 1, 1)))
    columns = np.cos(np.linspace(0, 3, size)[None, None] * generator.uniform(0.5, 3, (n, 1, 1)))
    return (
        np.rint(127 + 90 * waves * columns + generator.normal(scale=4, size=(n, size, size))).clip(0, 255).astype("u1")
    )


def test_psnr_is_that_of_the_largest_level():
    assert codecs.psnr(255**2) == 0
    assert codecs.psnr(65.025) == pytest.approx(30)


@pytest.mark.parametrize("name", ["JPEG", "WebP"])
def test_a_codec_is_counted_as_its_files_are_and_its_error_is_that_of_what_it_decodes(name):
    images, codec = photographs(5), codecs.codecs()[0][name]._replace(qualities=(5, 90))
    low, high = codecs.curve(name, codec, images)
    assert low["bits"] < high["bits"]
    assert low["psnr"] < high["psnr"]
    assert 0 < high["bare"] < high["bits"]
    sizes, errors = 0, []
    for image in images:
        file = io.BytesIO()
        options = {"optimize": True} if name == "JPEG" else {"method": 6}
        Image.fromarray(image).save(file, name, quality=90, **options)
        sizes += len(file.getvalue())
        errors.append(((np.asarray(Image.open(file).convert("L"), float) - image) ** 2).mean())
    assert high["bits"] == 8 * sizes / images.size
    assert high["psnr"] == pytest.approx(codecs.psnr(np.mean(errors)))


def test_what_is_bare_of_jpeg_is_its_scan():
    """Quality and content change the scan; what is left out is all before it, and the end of the file."""
    codec, image = codecs.codecs()[0]["JPEG"]._replace(qualities=(50,)), photographs(1)
    raw = codec.encode(image[0], 50)
    bare = codecs.curve("JPEG", codec, image)[0]["bare"] * image.size / 8
    start = raw.index(b"\xff\xda") + 2
    header = int.from_bytes(raw[start : start + 2], "big")
    assert bare == len(raw) - start - header - 2
    assert raw.endswith(b"\xff\xd9")


def test_a_mosaic_is_one_file_of_all_images_in_their_places():
    seen = []

    def encode(image, quality):
        seen.append(image)
        return bytes(10)

    codec = codecs.Codec(encode, lambda raw: seen[-1].astype(float) + 2, (1,))
    images = photographs(6)
    (point,) = codecs.mosaic(codec, images)
    assert seen[0].shape == (2 * 16, 3 * 16)
    np.testing.assert_array_equal(seen[0][16:32, 32:48], images[5])
    assert point["psnr"] == pytest.approx(codecs.psnr(4))
    assert point["bits"] == 80 / images.size


def test_pca_costs_what_normal_coefficients_must_and_errs_by_a_twelfth_of_the_step_squared():
    """White images: every component is a normal of one scale, with a known entropy once it is rounded."""
    generator = np.random.default_rng(0)
    train, test = (np.rint(generator.normal(127, 20, (n, 3, 3))).clip(0, 255).astype("u1") for n in (40_000, 5_000))
    points = codecs.pca(train, test, [0.05])
    assert len(points) >= 1
    best = max(points, key=lambda point: point["psnr"])
    scale, step = 20 / 255, 0.05
    k = np.arange(-9, 10)
    erf = np.vectorize(math.erf)
    mass = 0.5 * (erf((k + 0.5) * step / scale / 2**0.5) - erf((k - 0.5) * step / scale / 2**0.5))
    assert best["bits"] == pytest.approx(-(mass * np.log2(mass + 1e-300)).sum(), rel=0.01)
    assert best["psnr"] == pytest.approx(codecs.psnr((255 * step) ** 2 / 12), abs=0.4)
    assert best["psnr"] > codecs.psnr((255 * step) ** 2 / 12)  # the mean of a bin is nearer than its middle


def test_rates_are_read_between_points_and_never_beyond_the_best():
    points = [{"psnr": 22.0, "bits": 1.0}, {"psnr": 30.0, "bits": 2.0}]
    assert codecs.bits_at(points, 26) == 1.5
    assert codecs.bits_at(points, 20) == 1.0  # it cannot do with less
    assert math.isnan(codecs.bits_at(points, 31))
    worse = {"psnr": 25.0, "bits": 1.9}
    assert lossy_table.frontier([*points, worse]) == [points[0], worse, points[1]]
    assert lossy_table.frontier([*points, {"psnr": 25.0, "bits": 2.5}]) == points


def test_the_verdict_names_whom_it_is_below_and_where_it_is_not():
    rows = [{"psnr": 20, "ours": 0.5, "JPEG": 1.0, "PCA": 0.4}, {"psnr": 22, "ours": 0.6, "JPEG": 1.2, "PCA": 0.7}]
    assert lossy_table.verdict(rows) == "ours is below JPEG; not below PCA at 20 dB"
    assert lossy_table.verdict([{"psnr": 20, "JPEG": 1.0}]) == "ours is below none; not below JPEG at 20 dB"


RESULTS = {
    "command": "python experiments/lossy.py --data few",
    "data": "few",
    "images": 1000,
    "curves": {"JPEG": [{"psnr": 20.0, "bits": 1.0, "bare": 0.3}, {"psnr": 30.0, "bits": 2.0, "bare": 1.3}]},
    "mosaics": {"JPEG": [{"psnr": 20.0, "bits": 0.25}, {"psnr": 36.0, "bits": 1.25}]},
    "absent": {},
    "ours": [
        {"row": r, "psnr": p, "bits": b, "parameters": n, "encoded_per_second": 40, "decoded_per_second": d}
        for r, p, b, n, d in (
            ("0.2", 20.0, 0.2, 7000, 50),
            ("0.02", 36.0, 1.0, 9000, 30),
            ("0.05-factorised", 28.0, 3.0, 9999, 1),
        )
    ],
}


def test_the_table_has_files_what_is_bare_and_mosaics_at_the_same_psnr():
    first, *_, last = lossy_table.table(RESULTS, RESULTS["ours"])
    assert first == {"psnr": 20, "ours": 0.2, "JPEG": 1.0, "JPEG bare": 0.3, "JPEG mosaic": 0.25}
    assert last == pytest.approx({"psnr": 35, "ours": 0.95, "JPEG mosaic": 1.1875})  # what nobody measured is left out


def test_the_readme_says_whom_ours_is_below_and_what_the_models_of_the_curve_cost():
    results = {**RESULTS, "table": lossy_table.table(RESULTS, RESULTS["ours"])}
    said = lossy_table.of_readme(results, "a/lossy.json")
    assert "Ours is below JPEG, JPEG bare, JPEG mosaic." in said
    assert "9,000 numbers at most" in said  # the third model is on no curve
    assert "At 28.0 dB levels of codes take 0.6, and codes with a density of each on its own 3." in said
    assert "At least 40 images a second are encoded, and 30 decoded." in said
    assert "![Bits per pixel against PSNR](a/lossy.png)" in said
    assert "| 20 | 0.2 | 1 | 0.3 | 0.25 |" in said
    assert "| 35 | 0.95 |  |  | 1.19 |" in said


def test_the_runs_are_those_of_the_protocol():
    for rows in lossy.ROWS.values():
        for name, row in rows.items():
            model = lossy.run_of(row, "digits").model
            assert isinstance(model, CompressiveAutoencoder)
            assert model.likelihood.scale == row.scale == float(name.split("-")[0])
            assert bool(model.levels) != name.endswith("factorised")
            assert not row.begins or list(rows).index(row.begins) < list(rows).index(name)


@pytest.mark.slow
def test_the_whole_experiment_on_digits(tmp_path, monkeypatch, capsys):
    row = lossy.Row(0.1, MLP(()), 64, (8,), 8, 32, 5e-3)
    monkeypatch.setattr(lossy, "ROWS", {"digits": {"0.1": row}})
    lossy.lossy(data="digits", out=str(tmp_path / "out"), record=str(tmp_path / "record.json"))
    results = records.read_json(tmp_path / "record.json")
    assert (tmp_path / "record.png").stat().st_size > 10_000
    first, *_, finer = results["ours"]
    assert finer["bits"] > first["bits"]
    assert finer["psnr"] > first["psnr"]
    assert first["bits"] == 8 * first["bytes"] / (results["images"] * 64)
    assert abs(first["over_model_percent"]) < 10
    assert len(Data("digits").load().test) == results["images"]
    assert "ours is below" in capsys.readouterr().out
    lossy_picture.draw(tmp_path / "again.png", {**results, "ours": []})
    assert (tmp_path / "again.png").exists()
