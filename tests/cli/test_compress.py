"""`aevae compress`, `decompress` and `info`, with a trained model: what went in comes out, or there is no file."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from commands import refused, typed
from run_files import edit_results, edit_run

from aevae_jax.compression.container import Reader
from aevae_jax.data import built_in
from aevae_jax.runs import fitting, records, weights

pytestmark = pytest.mark.usefixtures("no_pictures")

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
SMALL = "VAE(2, MLP((4,)), DiscretizedLogistic(17), StandardNormal())"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a run, test images and an .aev file of them."""
    folder = tmp_path_factory.mktemp("place")
    before = os.getcwd()
    os.chdir(folder)
    typed("train", "runs/first", "--data", "digits", "--model", SMALL, "--epochs", 1, "--batch-size", 512)
    x = built_in.digits().test.x[:][:40]
    np.save("x.npy", x)
    np.savez("x.npz", images=x, labels=np.arange(40))
    typed("compress", "runs/first", "x.npy", "x.aev", "--chunk", 10, "--threads", 2)
    yield folder
    os.chdir(before)


@pytest.fixture(autouse=True)
def _there(place, monkeypatch):
    monkeypatch.chdir(place)


def damage(source, target, at):
    raw = bytearray(Path(source).read_bytes())
    raw[at] ^= 1
    with open(target, "wb") as file:
        file.write(raw)


def start(*arguments, **options):
    command = [sys.executable, "-m", "aevae_jax", *arguments]
    return subprocess.run(command, check=False, capture_output=True, env=ENVIRONMENT, **options)


def test_what_goes_in_comes_out_and_figures_are_said(tmp_path):
    said = typed("compress", "runs/first", "x.npz", tmp_path / "x.aev", "--compare", "--threads", 1)
    size = os.path.getsize(tmp_path / "x.aev")
    assert "images 40 of 8x8x1, uint8: 2,560 bytes" in said
    assert f"coded  {size:,} bytes, {8 * size / 2560:.4f} bits/dimension" in said
    assert re.search(r"bound  \d\.\d{4} bits/dimension, the negative ELBO; their code is [-+]\d", said)
    assert re.search(r"speed  encoded at [\d,]+ images/s, verified at [\d,]+ images/s", said)
    assert re.search(r"xz     [\d,]+ bytes", said)
    said = typed("decompress", tmp_path / "x.aev", tmp_path / "back.npz")
    assert "decoded with runs/first" in said
    with np.load(tmp_path / "back.npz") as back:
        assert back.files == ["images"]
        assert back["images"].tobytes() == np.load("x.npy").tobytes()


def test_a_file_decodes_by_itself_with_the_run_beside_it_or_named(tmp_path, monkeypatch, capsys):
    shutil.copytree("runs/first", tmp_path / "moved")
    shutil.copy("x.aev", tmp_path)
    original = Path("x.npy").read_bytes()
    monkeypatch.chdir(tmp_path)
    typed("decompress", "x.aev", "beside.npy")
    shutil.move("moved", tmp_path.parent / "elsewhere")
    line = refused(capsys, "decompress", "x.aev", "none.npy")
    assert "got none in runs or beside x.aev" in line
    assert "name it: --run RUN" in line
    typed("decompress", "x.aev", "named.npy", "--run", tmp_path.parent / "elsewhere")
    for name in ("beside.npy", "named.npy"):
        assert Path(name).read_bytes() == original
    assert not os.path.exists("none.npy")


def with_other_weights(folder):
    """A copy of the run, whose weights were changed by somebody who makes all digests right."""
    shutil.copytree("runs/first", folder)
    fitted = fitting.load_run(folder)
    digest = records.digest_of(records.read_record(folder))
    weights.save_weights(folder / "weights.safetensors", jax.tree.map(lambda x: x * 1.5, fitted.params), run=digest)
    edit_results(folder)
    return folder


def test_another_model_and_changed_weights_are_refused_by_name(capsys, tmp_path):
    changed = with_other_weights(tmp_path / "changed")
    line = refused(capsys, "decompress", "x.aev", tmp_path / "y.npy", "--run", changed)
    assert re.match(r"error: --run \(.*changed\): got this run with changed weights, expected the model of x.aev", line)
    other = with_other_weights(tmp_path / "other")
    edit_run(other, lambda record: record["run"].update(seed=7))
    line = refused(capsys, "decompress", "x.aev", tmp_path / "y.npy", "--run", other)
    assert re.search(
        r"got another model, \w{12}, expected the model of x.aev, \w{12}; the run with digest \w{16}", line
    )
    assert not (tmp_path / "y.npy").exists()


def test_a_run_of_the_same_digest_and_other_weights_is_passed_over(capsys, tmp_path, monkeypatch):
    shutil.copy("x.aev", tmp_path)
    with_other_weights(tmp_path / "runs" / "a")
    shutil.copytree("runs/first", tmp_path / "runs" / "b")
    monkeypatch.chdir(tmp_path)
    assert "decoded with runs/b" in typed("decompress", "x.aev", "y.npy")
    assert "note: runs/a has the digest of the run, and other weights" in capsys.readouterr().err
    shutil.rmtree("runs/b")
    with pytest.raises(SystemExit) as stop:
        typed("decompress", "x.aev", "z.npy")
    assert stop.value.code == 2
    assert "got none in runs or beside x.aev that has its model" in capsys.readouterr().err


def test_damage_is_refused_or_what_is_left_is_recovered(capsys, tmp_path):
    with open("x.aev", "rb") as file:
        reader = Reader(file)
        for _ in range(4):
            reader.chunk()
        at = reader.finish().table[1][0] + 60
    damage("x.aev", "damaged.aev", at)
    line = refused(capsys, "decompress", "damaged.aev", "y.npy")
    assert "(damaged.aev): got damage in the chunk of images 10 to 19" in line
    assert not os.path.exists("y.npy")
    line = refused(capsys, "info", "damaged.aev")
    assert "type: aevae decompress damaged.aev damaged.npy --recover" in line
    with pytest.raises(SystemExit) as stop:
        typed("decompress", "damaged.aev", tmp_path / "y.npy", "--recover")
    assert stop.value.code == 1
    assert "10 of 40 images are lost, and are zeros in the output: 10 to 19" in capsys.readouterr().err
    x, y = np.load("x.npy"), np.load(tmp_path / "y.npy")
    kept = [n for n in range(40) if not 10 <= n < 20]
    assert (y[kept] == x[kept]).all()
    assert not y[10:20].any()
    with pytest.raises(SystemExit) as stop:
        typed("decompress", "damaged.aev", tmp_path / "pictures", "--recover")
    assert stop.value.code == 1
    assert len(os.listdir(tmp_path / "pictures")) == 30


def test_info_says_what_is_in_a_file():
    said = typed("info", "x.aev")
    size = os.path.getsize("x.aev")
    assert "images 40 of 8x8x1, uint8" in said
    assert "which is runs/first" in said
    assert "chunks 4 of 10 images" in said
    assert f"size   {size:,} bytes, {8 * size / 2560:.4f} bits/dimension" in said
    assert "intact: all checksums are right" in said


BAD = [
    (("compress", "runs/none", "x.npy", "y.aev"), "run .*: got no run.json"),
    (("compress", "runs/first", "none.npy", "y.aev"), "input .*got no file"),
    (("compress", "runs/first", "x.npy", "x.aev"), "got x.aev, which exists, .*type x-2.aev, or --force"),
    (("compress", "runs/first", "x.npy", "y.zip"), r"a name ending in .aev; did you mean y.aev\?"),
    (("compress", "runs/first", "x.npy", "none/y.aev"), "a directory that exists"),
    (("compress", "runs/first", "x.npy", "y.aev", "--chunk", "0"), "--chunk: got 0"),
    (("compress", "runs/first", "x.npy", "y.aev", "--threads", "-1"), "--threads: got -1"),
    (("decompress", "none.aev", "y.npy"), "got no file"),
    (("decompress", "x.npy", "y.npy"), "x.npy.*a file that begins with 93 4e"),
    (("decompress", "x.aev", "x.npy"), "x.npy, which exists"),
    (("decompress", "x.aev", "runs"), "runs, which exists, expected a new folder; .*runs-2"),
    (("decompress", "x.aev", "y.jpg"), "expected .npy, .npz, an idx file"),
    (("decompress", "x.aev", "y.npy", "--run", "x.npy"), "no run.json"),
    (("decompress", "-", "y.npy", "--recover"), "--recover: got standard input"),
    (("info", "none.aev"), "got no file"),
    (("info", "runs"), "a directory"),
]


@pytest.mark.parametrize(("typed_", "said"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_what_can_be_seen_before_is_refused_in_a_line(capsys, typed_, said):
    before = sorted(os.listdir())
    assert re.search(said, refused(capsys, *typed_))
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (
            np.zeros((3, 8, 9), np.uint8),
            r"shape of the images \(bad.npy\): got \(N, 8, 9\), expected \(N, 8, 8, 1\), .*; train a model of these",
        ),
        (np.zeros((3, 64), np.uint8), r"got \(N, 64\), .*; save them with x.reshape\(-1, 8, 8, 1\)$"),
        (np.zeros((8, 8), np.uint8), r"got \(N, 8\), .*; save one image with x\[None\]$"),
        (
            np.full((3, 8, 8), 17, np.int64),
            r"values \(bad.npy\): got 17 in image 0, expected integers of 0 to 16, .*; train a model of these",
        ),
        (np.full((3, 8, 8), -1, np.int64), r"values \(bad.npy\): got -1 in image 0, .*; train a model of these"),
        (np.full((3, 8, 8), np.nan, np.float32), r"values \(bad.npy\): got nan in image 0, .*; .* np.nan_to_num\(x\)$"),
        (np.full((3, 8, 8), 0.3), r"got 0.3 in image 0, .*, or multiples of 1/16, .*; save np.rint\(x \* 16\).astype"),
        (np.full((3, 8, 8), 5.5), r"got 5.5 in image 0, .*; save np.rint\(x\).astype\(np.uint8\)$"),
        (
            np.zeros((3, 8, 8), np.float16),
            r"images \(bad.npy\): got float16, .*; save them with x.astype\(np.float32\)$",
        ),
        (
            np.zeros((0, 8, 8), np.uint8),
            r"images \(bad.npy\): got none, expected at least 1; name a file that has some$",
        ),
        (np.zeros((3, 8, 8), np.complex64), "complex64.*; type: aevae data inspect bad.npy$"),
        (np.zeros((3, 8, 8), bool), r"type bool .*; save it with x.astype\(np.uint8\)$"),
    ],
)
def test_images_that_do_not_suit_the_model_are_refused_and_leave_nothing(capsys, x, said):
    np.save("bad.npy", x)
    before = sorted(os.listdir())
    assert re.search(said, refused(capsys, "compress", "runs/first", "bad.npy", "bad.aev"))
    assert sorted(os.listdir()) == before


def test_an_archive_of_several_arrays_says_how_one_is_named(capsys, tmp_path):
    x = np.zeros((3, 8, 8), np.uint8)
    np.savez(tmp_path / "two.npz", first=x, second=x)
    line = refused(capsys, "compress", "runs/first", tmp_path / "two.npz", tmp_path / "y.aev")
    assert line.endswith("got first, second, expected one array, or one called 'images'; add --array first")
    line = refused(capsys, "compress", "runs/first", "x.npz", tmp_path / "y.aev", "--array", "none")
    assert line.endswith("got images, labels, expected one array, or one called 'none'; add --array images")
    assert os.listdir(tmp_path) == ["two.npz"]


def test_a_run_that_is_not_finished_is_refused_as_its_weights_will_be_others(capsys, tmp_path):
    shutil.copytree("runs/first", tmp_path / "begun")
    (tmp_path / "begun" / "results.json").unlink()
    line = refused(capsys, "compress", tmp_path / "begun", "x.npy", tmp_path / "y.aev")
    assert "got no results.json" in line
    assert not (tmp_path / "y.aev").exists()


@pytest.mark.slow
def test_a_model_without_levels_is_refused(capsys):
    model = "VAE(2, MLP((4,)), NormalSharedScale(), StandardNormal())"
    typed("train", "runs/normal", "--data", "digits", "--model", model, "--epochs", 1, "--batch-size", 512)
    line = refused(capsys, "compress", "runs/normal", "x.npy", "y.aev")
    assert "likelihood (runs/normal): got Normal" in line
    assert line.endswith('train with --model "VAE(likelihood=DiscretizedLogistic())", or Bernoulli() on bits')
    assert not os.path.exists("y.aev")


@pytest.mark.slow
def test_streams_are_files_that_come_and_go():
    with open("x.npy", "rb") as file:
        packed = start("compress", "runs/first", "-", "-", "--chunk", "10", stdin=file)
    assert packed.returncode == 0
    assert packed.stdout == Path("x.aev").read_bytes()
    assert b"bits/dimension" in packed.stderr
    back = start("decompress", "-", "-", input=packed.stdout)
    assert (back.returncode, back.stdout) == (0, Path("x.npy").read_bytes())
    assert b"intact: all checksums" in start("info", "-", input=packed.stdout).stdout
    cut = start("decompress", "-", "-", input=packed.stdout[:-30])
    assert cut.returncode == 2
    assert cut.stderr.splitlines()[-1].startswith(b"error: .aev file (standard input): got an end 30 bytes too early")


@pytest.mark.slow
def test_a_full_disk_leaves_no_file_and_a_full_pipe_says_so():
    line = "ulimit -f 1; exec $0 -m aevae_jax compress runs/first x.npy full.aev --no-cache --chunk 1"  # 1024 bytes
    done = subprocess.run(["bash", "-c", line, sys.executable], check=False, capture_output=True, env=ENVIRONMENT)
    assert done.returncode == 2
    assert re.search(rb"error: output .*which cannot be written \(File too large\)", done.stderr)
    assert not os.path.exists("full.aev")
    assert not [name for name in os.listdir() if name.endswith(".part")]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "aevae_jax", "decompress", "x.aev", "-"],
            check=False, stdout=full, stderr=subprocess.PIPE, env=ENVIRONMENT,
        )  # fmt: skip
    assert done.returncode == 2
    assert b"error: standard output: got no room to print on" in done.stderr


@pytest.mark.slow
def test_something_is_said_within_a_second():
    began = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "aevae_jax", "compress", "runs/first", "x.npy", "soon.aev"],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=ENVIRONMENT,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        assert process.stderr.readline() == b"reading runs/first ...\n"
        assert time.monotonic() - began < 3  # one, on a machine that does nothing else
        assert process.wait() == 0


# --- with loss ---


@pytest.mark.slow
def test_with_loss_a_picture_like_each_image_comes_back_and_that_is_said(tmp_path, capsys):
    rounded = "CompressiveAutoencoder(16, MLP(()), step=0.3, levels=(4,))"
    how = ("--data", "digits", "--optimizer", "AdamW(1e-2)", "--epochs", 2, "--batch-size", 64)
    typed("train", "runs/rounded", "--model", rounded, *how)
    where = ("runs/rounded", "x.npy", tmp_path / "x.aev")
    assert "expected the grey levels of the images, as codes of a CompressiveAutoencoder are rounded" in refused(
        capsys, "compress", *where
    )
    assert "expected nothing: a VAE compresses without loss" in refused(
        capsys, "compress", "runs/first", "x.npy", tmp_path / "x.aev", "--lossy", 17
    )
    said = typed("compress", *where, "--lossy", 17, "--threads", 1)
    found = re.search(r"loss   mean squared error ([\d.]+) in levels, PSNR ([\d.]+) dB", said)
    assert "the rounded code by the model's own density" in said
    typed("decompress", tmp_path / "x.aev", tmp_path / "back.npy")
    original, back = (np.load(path) for path in ("x.npy", tmp_path / "back.npy"))
    assert (back.shape, back.dtype) == (original.shape, original.dtype)
    assert back.max() <= 16
    error = ((back.astype(float) - original) ** 2).mean()
    assert 0 < error < 30
    assert float(found[1]) == pytest.approx(error, rel=1e-3)
    assert float(found[2]) == pytest.approx(10 * np.log10(16**2 / error), abs=0.01)
    again = typed("compress", "runs/rounded", tmp_path / "back.npy", tmp_path / "again.aev", "--lossy", 17)
    assert "coded" in again
