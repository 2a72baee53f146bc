"""The command line, on a tiny model of each kind. In one process, except where the process itself is what is tested."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from commands import the_line
from PIL import Image
from run_files import edit_run, write_record
from sheets import shown

import aevae_jax
from aevae_jax import charts, keys, runs, values
from aevae_jax.checkpoints.saving import Saving
from aevae_jax.cli import console, generate, inputs
from aevae_jax.cli.main import AT_ONCE, COMMANDS, DATA_COMMANDS, main
from aevae_jax.data import Data, LastSplits, Scale, Standardize, from_arrays, prepare
from aevae_jax.models import VAE, Autoencoder, generation
from aevae_jax.models.architectures import MLP
from aevae_jax.models.likelihoods import NormalSharedScale, Tabular
from aevae_jax.models.priors import StandardNormal
from aevae_jax.objectives.losses import ELBO, ReconstructionError
from aevae_jax.runs import fitting, provenance, records
from aevae_jax.training.optimizers import AdamW
from aevae_jax.types import InputError

TYPED = [
    "--model",
    "VAE(latent=3, network=MLP((8,)), latent_prior=StandardNormal())",
    "--objective",
    "ELBO(beta=0.5)",
    "--optimizer",
    "AdamW(1e-2)",
    "--batch-size",
    "64",
    "--epochs",
    "2",
    "--seed",
    "7",
]
RUN = runs.Run(
    model=VAE(3, MLP((8,)), NormalSharedScale(), StandardNormal(), event_shape=(8, 8, 1)),
    objective=ELBO(beta=0.5),
    optimizer=AdamW(1e-2),
    batch_size=64,
    epochs=2,
    seed=7,
)
FAST_IMPORTS = ("jax", "jaxlib", "numpy", "flax", "optax", "sklearn", "matplotlib", "scipy")


def run_main(*argv):
    """Standard output of a command that must succeed."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        main([str(arg) for arg in argv])
    return out.getvalue()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A VAE's run directory, and what training it printed."""
    folder = tmp_path_factory.mktemp("runs") / "my vae"
    return folder, run_main("train", folder, *TYPED)


@pytest.fixture(scope="module")
def vae(trained):
    return trained[0]


@pytest.fixture(scope="module")
def trained_autoencoder(tmp_path_factory):
    """An autoencoder's run directory, and what training it said on both streams."""
    folder, err = tmp_path_factory.mktemp("runs") / "ae", io.StringIO()
    with contextlib.redirect_stderr(err):
        out = run_main("train", folder, "--model", "Autoencoder(2, MLP((8,)))", "--data", "digits", "--epochs", "1")
    return folder, out, err.getvalue()


@pytest.fixture(scope="module")
def autoencoder(trained_autoencoder):
    return trained_autoencoder[0]


@pytest.fixture(scope="module")
def test_images():
    """The digits' test images, as a model sees them."""
    return prepare(Scale(), Data().load()).test.x


def load(path):
    array = np.load(path, allow_pickle=False)
    return array if isinstance(array, np.ndarray) else {name: array[name] for name in array.files}


# ------------------------------------------------------------------------------------------------------------- train


def test_the_typed_values_are_the_run(vae):
    assert fitting.load_run(vae).run == RUN


def test_training_says_what_it_wrote_and_what_to_type_next(trained):
    folder, out = trained
    results = json.loads((folder / "results.json").read_text())
    assert f"= {results['test']['negative_elbo']:.1f} nats/example" in out
    for path in folder.iterdir():
        assert path.name in out
    assert f"next   aevae evaluate '{folder}'" in out
    assert f"aevae sample '{folder}' --out samples.png" in out


def test_the_objective_follows_the_model(autoencoder):
    run = fitting.load_run(autoencoder).run
    assert run.objective == ReconstructionError()
    assert run.model == Autoencoder(2, MLP((8,)), event_shape=(8, 8, 1))
    assert runs.Run(model=VAE()).objective == ELBO()


def test_progress_goes_to_standard_error(trained_autoencoder):
    _, out, err = trained_autoencoder
    *begun, last = [line for line in err.splitlines() if not line.startswith("compiled in ")]  # on a busy machine
    assert begun == ["reading digits ...", "epoch 1/1  compiling"]
    assert last.startswith("epoch 1/1  mse ")
    assert "examples/s" in last
    assert "epoch 1/1" not in out


# ---------------------------------------------------------------------------------------------------------- evaluate


@pytest.mark.parametrize("split", ["test", "validation"])
def test_evaluation_gives_the_numbers_of_the_training_at_any_batch_size(vae, tmp_path, split):
    run_main("evaluate", vae, "--split", split, "--batch-size", 50, "--json", tmp_path / "e.json")
    record = json.loads((tmp_path / "e.json").read_text())
    expected = json.loads((vae / "results.json").read_text())[split]
    assert set(record["metrics"]) == set(expected) == {"distortion", "rate", "negative_elbo", "mse_at_mean"}
    for name, value in expected.items():
        np.testing.assert_allclose(record["metrics"][name]["mean"], value, rtol=1e-5)
    assert record["seed"] == RUN.seed


def test_standard_errors_are_those_of_the_mean(vae, tmp_path, test_images):
    out = run_main("evaluate", vae, "--json", tmp_path / "e.json")
    record = json.loads((tmp_path / "e.json").read_text())
    fitted = fitting.load_run(vae)
    errors = np.square(generation.reconstruct(fitted.model, fitted.params, jnp.asarray(test_images)) - test_images)
    mse = np.asarray(errors, np.float64).reshape(len(test_images), -1).mean(axis=1)
    entry = record["metrics"]["mse_at_mean"]
    np.testing.assert_allclose(entry["mean"], mse.mean(), rtol=1e-4)
    np.testing.assert_allclose(entry["standard_error"], mse.std(ddof=1) / len(mse) ** 0.5, rtol=1e-4)
    assert entry["unit"] == "squared error per element"
    assert {record["metrics"][name]["unit"] for name in ("distortion", "rate", "negative_elbo")} == {"nats/example"}
    said = " ".join(out.split())
    assert list(record["metrics"]) == ["distortion", "rate", "negative_elbo", "mse_at_mean"]
    for text in ("standard error", "nats/example", "360 examples", "digits test", "Scale()", "NormalSharedScale()"):
        assert text in said


def test_another_seed_draws_other_codes_and_the_same_again(vae, tmp_path):
    for name, seed in (("a", 1), ("b", 2), ("c", 1)):
        run_main("evaluate", vae, "--seed", seed, "--json", tmp_path / f"{name}.json")
    a, b, c = (json.loads((tmp_path / f"{name}.json").read_text())["metrics"] for name in "abc")
    assert a == c
    assert a["distortion"]["mean"] != b["distortion"]["mean"]
    assert a["mse_at_mean"] == b["mse_at_mean"]  # it uses no sample


def test_an_autoencoder_has_neither_rate_nor_bound(autoencoder, tmp_path):
    out = run_main("evaluate", autoencoder, "--json", tmp_path / "e.json")
    assert set(json.loads((tmp_path / "e.json").read_text())["metrics"]) == {"distortion", "mse_at_mean"}
    assert "elbo" not in out


def test_other_data_under_the_same_name_is_refused(vae, tmp_path, capsys):
    changed = Path(shutil.copytree(vae, tmp_path / "run"))
    edit_run(changed, lambda record: record["provenance"]["data"].update(sha256="0" * 64))
    refused(capsys, ["evaluate", changed], "got other data under the name 'digits', expected that of the training")
    record = json.loads((changed / "run.json").read_text())
    del record["provenance"]
    write_record(changed, record)
    refused(capsys, ["evaluate", changed], "got no record of the data it was trained on")


# ------------------------------------------------------------------------------------------------ images and codes


def test_samples_are_those_of_the_function_with_the_documented_key(vae, tmp_path):
    run_main("sample", vae, "--out", tmp_path / "s.npy", "--seed", 3)
    fitted = fitting.load_run(vae)
    key = keys.stream(keys.root(3), keys.Stream.SAMPLE)
    expected = generation.sample(fitted.model, fitted.params, key, 64).mean()
    np.testing.assert_allclose(load(tmp_path / "s.npy"), expected, atol=1e-6)


def test_the_seed_decides_the_samples(vae, tmp_path):
    for name, seed in (("a", 3), ("b", 4), ("c", 3)):
        run_main("sample", vae, "--out", tmp_path / f"{name}.npy", "--seed", seed)
    a, b, c = (load(tmp_path / f"{name}.npy") for name in "abc")
    np.testing.assert_array_equal(a, c)
    assert np.abs(a - b).max() > 1e-3


def test_noise_is_that_of_the_likelihood(vae, tmp_path):
    run_main("sample", vae, "--out", tmp_path / "mean.npy")
    run_main("sample", vae, "--out", tmp_path / "noisy.npy", "--noise")
    noise = load(tmp_path / "noisy.npy") - load(tmp_path / "mean.npy")
    fitted = fitting.load_run(vae)
    scale = float(oracles.decode(fitted.model, fitted.params, jnp.zeros((1, 3))).scale.mean())
    standard_error = scale / (2 * noise.size) ** 0.5  # of the standard deviation of independent normals
    assert abs(noise.std() - scale) < 4 * standard_error


def test_the_seed_decides_the_noise_each_sample_has_its_own_and_codes_have_another(vae, tmp_path):
    noise = {}
    for name, seed in (("a", 3), ("b", 4), ("c", 3)):
        drawn = tmp_path / f"{name}.npy"
        for options in ([], ["--noise", "--force"]):
            before = load(drawn) if options else 0
            run_main("sample", vae, "--out", drawn, "--seed", seed, "--num", 5, *options)
        noise[name] = load(drawn) - before
    np.testing.assert_array_equal(noise["a"], noise["c"])
    assert not np.allclose(noise["a"], noise["b"], atol=1e-3)
    assert not np.allclose(noise["a"][0], noise["a"][1], atol=1e-3)
    fitted = fitting.load_run(vae)
    scale = float(oracles.decode(fitted.model, fitted.params, jnp.zeros((1, 3))).scale.mean())
    expected = [
        scale * jax.random.normal(jax.random.fold_in(keys.stream(keys.root(3), keys.Stream.NOISE), i), (1, 8, 8, 1))[0]
        for i in range(5)
    ]
    np.testing.assert_allclose(noise["a"], expected, atol=1e-5)


def test_a_sheet_of_samples_shows_them_in_order(vae, tmp_path):
    assert run_main("sample", vae, "--out", tmp_path / "s.png") == f"wrote {tmp_path / 's.png'}: 64 images\n"
    run_main("sample", vae, "--out", tmp_path / "s.npy")
    images, lengths = shown(tmp_path / "s.png", (8, 8))
    assert lengths == [8] * 8
    np.testing.assert_array_equal(images, as_bytes(load(tmp_path / "s.npy")))


def as_bytes(images):
    """What is seen of images `[N, h, w, 1]`."""
    return np.round(np.clip(images[..., 0], 0, 1) * 255)


def test_reconstructions_are_of_the_first_test_images(vae, tmp_path, test_images):
    out = run_main("reconstruct", vae, "--out", tmp_path / "r.npz", "--num", 5)
    assert "reconstructions float32 (5, 8, 8, 1), images float32 (5, 8, 8, 1)" in out
    arrays = load(tmp_path / "r.npz")
    np.testing.assert_array_equal(arrays["images"], test_images[:5])
    fitted = fitting.load_run(vae)
    expected = generation.reconstruct(fitted.model, fitted.params, jnp.asarray(test_images[:5]))
    np.testing.assert_allclose(arrays["reconstructions"], expected, atol=1e-5)


def test_a_sheet_of_reconstructions_has_pairs_of_rows(vae, tmp_path, test_images):
    for name in ("r.png", "r.npz"):
        run_main("reconstruct", vae, "--out", tmp_path / name, "--num", 10)
    images, lengths = shown(tmp_path / "r.png", (8, 8))
    assert lengths == [8, 8, 2, 2]
    np.testing.assert_array_equal(images[[*range(8), 16, 17]], as_bytes(test_images[:10]))
    made = load(tmp_path / "r.npz")["reconstructions"]
    np.testing.assert_array_equal(images[[*range(8, 16), 18, 19]], as_bytes(made))


def test_a_path_begins_and_ends_at_reconstructions_and_is_straight(vae, tmp_path, test_images):
    run_main("reconstruct", vae, "--out", tmp_path / "r.npz", "--num", 9)
    run_main("interpolate", vae, "--out", tmp_path / "i.npz", "--start", 3, "--end", 8)
    path, ends = load(tmp_path / "i.npz"), load(tmp_path / "r.npz")["reconstructions"][[3, 8]]
    assert path["images"].shape == (10, 8, 8, 1)
    np.testing.assert_allclose(path["images"][[0, -1]], ends, atol=1e-5)
    steps = np.diff(path["codes"], axis=0)
    np.testing.assert_allclose(steps, np.broadcast_to(steps[0], steps.shape), atol=1e-5)
    assert np.abs(steps).max() > 1e-3
    np.testing.assert_array_equal(path["inputs"], test_images[[3, 8]])
    run_main("interpolate", vae, "--out", tmp_path / "i.png", "--start", 3, "--end", 8)
    images, lengths = shown(tmp_path / "i.png", (8, 8))
    assert lengths == [12]
    np.testing.assert_array_equal(images[[0, -1]], as_bytes(test_images[[3, 8]]))  # beside their reconstructions
    np.testing.assert_array_equal(images[1:-1], as_bytes(path["images"]))


@pytest.fixture
def drawn(monkeypatch):
    """The words of each sheet that is drawn."""
    words = []
    monkeypatch.setattr(charts, "sheet", lambda path, images, columns, **said: words.append(said) or 1)
    return words


def test_pictures_say_what_they_are_of_and_name_the_classes(vae, tmp_path, drawn):
    classes = [str(label) for label in Data().load().test.labels[:9]]
    run_main("reconstruct", vae, "--out", tmp_path / "r.png", "--num", 5)
    run_main("interpolate", vae, "--out", tmp_path / "i.png", "--start", 3, "--end", 8, "--steps", 3)
    run_main("sample", vae, "--out", tmp_path / "s.png", "--seed", 7, "--noise")
    pairs, path, samples = drawn
    assert pairs["captions"] == classes[:5]
    assert pairs["rows"] == ("input", "reconstruction")
    assert path["captions"] == [f"input\n{classes[3]}", "0.00", "0.50", "1.00", f"input\n{classes[8]}"]
    assert "from test image 3 to test image 8" in path["title"]
    assert samples["note"] == "draws from p(x|z), z ~ StandardNormal(), seed 7"
    assert all(f"{vae}: "[-10:] in words["title"] for words in drawn)


def test_decoding_the_codes_gives_the_reconstructions(vae, tmp_path):
    run_main("reconstruct", vae, "--out", tmp_path / "r.npz", "--num", 5)
    run_main("encode", vae, "--input", tmp_path / "r.npz", "--out", tmp_path / "z.npz")
    run_main("encode", vae, "--input", tmp_path / "r.npz", "--out", tmp_path / "z.npy")
    codes = load(tmp_path / "z.npz")
    assert set(codes) == {"codes", "scale"}
    assert codes["codes"].shape == codes["scale"].shape == (5, 3)
    assert (codes["scale"] > 0).all()
    np.testing.assert_array_equal(codes["codes"], load(tmp_path / "z.npy"))
    for name in ("z.npz", "z.npy"):
        run_main("decode", vae, "--input", tmp_path / name, "--out", tmp_path / "d.npy", "--force")
        np.testing.assert_allclose(load(tmp_path / "d.npy"), load(tmp_path / "r.npz")["reconstructions"], atol=1e-5)
    run_main("decode", vae, "--input", tmp_path / "z.npy", "--out", tmp_path / "d.png")
    images, lengths = shown(tmp_path / "d.png", (8, 8))
    assert lengths == [5]
    np.testing.assert_array_equal(images, as_bytes(load(tmp_path / "d.npy")))


def test_an_autoencoder_has_codes_without_scale(autoencoder, tmp_path, test_images):
    np.save(tmp_path / "x.npy", test_images[:4])
    run_main("encode", autoencoder, "--input", tmp_path / "x.npy", "--out", tmp_path / "z.npz")
    codes = load(tmp_path / "z.npz")
    assert {name: a.shape for name, a in codes.items()} == {"codes": (4, 2)}


def test_raw_images_are_prepared_as_the_training_data(vae, tmp_path, test_images):
    np.save(tmp_path / "raw.npy", Data().load().test.x[:4])
    np.save(tmp_path / "floats.npy", test_images[:4])
    for name in ("raw", "floats"):
        run_main("encode", vae, "--input", tmp_path / f"{name}.npy", "--out", tmp_path / f"{name}_z.npy")
    np.testing.assert_array_equal(load(tmp_path / "raw_z.npy"), load(tmp_path / "floats_z.npy"))


def test_a_picture_is_reconstructed(vae, tmp_path, test_images):
    pixels = np.round(test_images[0, :, :, 0] * 255).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    run_main("reconstruct", vae, "--input", tmp_path / "x.png", "--out", tmp_path / "r.npz")
    np.testing.assert_allclose(load(tmp_path / "r.npz")["images"][0, :, :, 0], pixels / 255, atol=1e-6)


def test_parts_of_the_own_data_are_inputs(vae, tmp_path):
    dataset = Data().load()
    for split in ("train", "validation", "test"):
        run_main("encode", vae, "--split", split, "--out", tmp_path / f"{split}.npy")
        assert load(tmp_path / f"{split}.npy").shape == (len(getattr(dataset, split)), 3)
        run_main("reconstruct", vae, "--split", split, "--num", 3, "--out", tmp_path / "r.npz", "--force")
        expected = getattr(dataset, split).x[:3].astype(np.float32) / np.float32(16)
        np.testing.assert_array_equal(load(tmp_path / "r.npz")["images"], expected)
        run_main("encode", vae, "--input", tmp_path / "r.npz", "--out", tmp_path / "z.npy", "--force")
        np.testing.assert_allclose(load(tmp_path / "z.npy"), load(tmp_path / f"{split}.npy")[:3], atol=1e-5)


def test_a_folder_of_pictures_is_encoded_by_name(vae, tmp_path, capsys):
    (tmp_path / "new").mkdir()
    pixels = np.random.RandomState(0).randint(0, 256, (3, 8, 8)).astype(np.uint8)
    for n, suffix in enumerate((".png", ".webp", ".tif")):
        Image.fromarray(pixels[n]).save(tmp_path / "new" / f"{n}{suffix}", lossless=True)
    Image.new("RGB", (16, 12), (9, 9, 9)).save(tmp_path / "new" / "3.jpg")
    run_main("encode", vae, "--input", tmp_path / "new", "--out", tmp_path / "z.npy")
    assert (
        "1 of 4 pictures are scaled to 8x8, and 1 of them cropped: of 12x16 25 % is cut off" in capsys.readouterr().err
    )
    np.save(tmp_path / "x.npy", np.concatenate([pixels, np.full((1, 8, 8), 9)])[..., None] / np.float32(255))
    run_main("encode", vae, "--input", tmp_path / "x.npy", "--out", tmp_path / "expected.npy")
    np.testing.assert_allclose(load(tmp_path / "z.npy"), load(tmp_path / "expected.npy"), atol=1e-5)


def test_all_of_an_input_is_reconstructed_and_ends_of_the_test_set_are_in_it(vae, tmp_path, test_images):
    np.save(tmp_path / "x.npy", test_images[-20:])
    run_main("reconstruct", vae, "--input", tmp_path / "x.npy", "--out", tmp_path / "r.npz")
    reconstructions = load(tmp_path / "r.npz")["reconstructions"]
    assert reconstructions.shape == (20, 8, 8, 1)
    last = str(len(test_images) - 1)
    run_main("interpolate", vae, "--out", tmp_path / "i.npy", "--start", last, "--end", 0, "--steps", 2)
    np.testing.assert_allclose(load(tmp_path / "i.npy")[0], reconstructions[-1], atol=1e-5)


def test_what_is_made_of_each_row_is_counted_three_times(vae, tmp_path, capsys, monkeypatch, test_images):
    """Codes of 3 numbers, images of 64; images and their reconstructions."""
    from aevae_jax import memory

    asked = []

    def check(need, **said):
        if said["what"] in ("--num", "inputs"):
            asked.append((need, said["what"], said["got"]))
            raise InputError("memory", got="none", expected="some")

    monkeypatch.setattr(memory, "check", check)
    np.save(tmp_path / "x.npy", test_images[:7])
    for argv in (["sample", vae, "--num", 1000], ["reconstruct", vae, "--input", tmp_path / "x.npy"]):
        refused(capsys, [*argv, "--out", tmp_path / "out.npy"], "memory: got none")
    assert asked == [(3 * 1000 * (3 + 64) * 4, "--num", "1,000"), (3 * 7 * 128 * 4, "inputs", "7")]


def test_many_samples_make_a_square_sheet(vae, tmp_path):
    run_main("sample", vae, "--out", tmp_path / "s.png", "--num", 100)
    assert shown(tmp_path / "s.png", (8, 8))[1] == [10] * 10


def test_what_the_draws_need_is_known_before_they_are_made(vae, tmp_path, capsys, monkeypatch):
    from aevae_jax import memory

    room = iter((2**40, 0))  # for what becomes of the codes; for drawing them
    monkeypatch.setattr(memory, "free", lambda: next(room))
    refused(capsys, ["sample", vae, "--out", tmp_path / "s.npy", "--num", 5], "--num: got 5, which needs about")


@pytest.mark.parametrize("preparation", [Scale(), Standardize()], ids=["as it is", "standardised"])
def test_what_is_written_is_in_the_units_of_the_data(tmp_path, monkeypatch, preparation):  # mistake 45
    x = np.linspace(-40, 120, 160 * 6, dtype=np.float32).reshape(160, 2, 3, 1)
    prepared = prepare(preparation, from_arrays(x, splits=LastSplits(0.1, 0.1)))
    form = prepared.format
    perfect = SimpleNamespace(run=SimpleNamespace(data=Data("x.npy", preparation)), model=None, params=None)
    record = {"format": values.to_tree(prepared.format)}
    (tmp_path / "run.json").touch()
    monkeypatch.setattr(records, "read_record", lambda folder: record)
    monkeypatch.setattr(generate, "loaded", lambda folder: perfect)
    monkeypatch.setattr(inputs, "prepared_of", lambda folder, run, moved: prepared)
    monkeypatch.setattr(generation, "reconstruct", lambda model, params, x: x)
    monkeypatch.setattr(generate.evaluation, "per_example", lambda metric, *given, on_part: metric(*given))
    for name in ("r.npz", "r.png"):
        generate.reconstruct(tmp_path, out=tmp_path / name)
    np.testing.assert_allclose(load(tmp_path / "r.npz")["reconstructions"], x[-16:], rtol=1e-5)
    pixels, _ = shown(tmp_path / "r.png", (2, 3))
    assert (pixels[0, 0, 0], pixels[-1, -1, -1]) == (0, 255)  # the lowest and the highest value of the test data
    monkeypatch.setattr(
        generation,
        "reconstruct",
        lambda model, params, x: preparation.units(np.full((16, 2, 3, 1), 9000.0, np.float32), form),
    )
    generate.reconstruct(tmp_path, out=tmp_path / "far.png")
    far, _ = shown(tmp_path / "far.png", (2, 3))
    above, below = [*range(8), *range(16, 24)], [*range(8, 16), *range(24, 32)]
    np.testing.assert_array_equal(far[above], pixels[above])  # what is made of them sets neither black nor white
    assert (far[below] == 255).all()


def test_num_is_how_many(vae, tmp_path):
    run_main("sample", vae, "--out", tmp_path / "s.npy", "--num", 3)
    run_main("interpolate", vae, "--out", tmp_path / "i.npy", "--steps", 2)
    assert (load(tmp_path / "s.npy").shape, load(tmp_path / "i.npy").shape) == ((3, 8, 8, 1), (2, 8, 8, 1))


def test_nothing_is_replaced_unless_forced(vae, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a long path would be cut off in the message
    Path("s.npy").write_bytes(b"precious")
    refused(capsys, ["sample", vae, "--out", "s.npy"], "which exists, expected a new file")
    refused(capsys, ["evaluate", vae, "--json", Path("s.npy").rename("e.json")], "which exists")
    run_main("evaluate", vae, "--json", "e.json", "--force")
    assert json.loads(Path("e.json").read_text())["split"] == "test"


# --------------------------------------------------------------------------------------------------------- bad input


def tree(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(Path(folder).rglob("*"))}


def refused(capsys, argv, message):
    """Run a command that must end with code 2 and one line on standard error that contains `message`."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in argv])
    out, err = capsys.readouterr()
    assert (stop.value.code, out) == (2, "")
    assert the_line(err).startswith("error: ")
    assert message in the_line(err)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with inputs that no run of the digits accepts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "no data"))
    images = np.zeros((3, 8, 8, 1), np.float32)
    inputs = {
        "big": np.zeros((3, 28, 28, 1), np.float32),
        "int64": np.zeros((3, 8, 8, 1), np.int64),
        "nan": np.full_like(images, np.nan),
        "levels": np.full((3, 8, 8, 1), 200, np.uint8),
        "no": images[:0],
        "codes": np.zeros((3, 5), np.float32),
        "images": images,
    }
    for name, array in inputs.items():
        np.save(tmp_path / f"{name}.npy", array)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious.txt").write_text("precious")
    (tmp_path / "file").write_text("a file")
    return tmp_path


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("evalaute x", "command: got 'evalaute'; did you mean aevae evaluate x?"),
        ("dta x", "command: got 'dta'; did you mean aevae data x?"),
        ("data x", "command: got 'x', expected one of its commands; type: aevae data --help"),
        ("train LONG", "File name too long"),
        ("train new --model TEXT", "argument: got 10,004 characters, xxx"),
        ("train new --data fashionmnist", "; did you mean fashion_mnist?"),
        ("evaluate LONG", "File name too long"),
        ("evaluate RUN --data ./LONG", "File name too long"),
        ("sample RUN --out LONG.npy", "File name too long"),
        ("--verison", "command: got '--verison'; did you mean aevae --version?"),
        ("train", "the following arguments are required: DIRECTORY; such as: aevae train runs/first --model"),
        ("train new --epocs 3", "unrecognized arguments: --epocs 3; did you mean --epochs 3?"),
        ("train new --epochs three", "--epochs: got three, expected an integer"),
        ("train new --epochs 0", "epochs: got 0, expected at least 1"),
        ("train new --batch-size 5000", "batch size: got 5000, expected 1 to 1257"),
        ("train new --seed -1", "seed: got -1, expected 0 to 4294967295"),
        ("train new --model VAE(latent=0)", "latent size (VAE): got 0, expected at least 1"),
        ("train new --model vea", "--model: got 'vea'; did you mean --model VAE?"),
        ("train new --model autoencoder --objective elbo", "got ELBO, expected ReconstructionError()"),
        ("train new --model VAE(event_shape=(28,28,1))", "got (28, 28, 1), expected (8, 8, 1), as in digits"),
        ("train new --model VAE(likelihood=Bernoulli)", "expected 0 or 1, the support of the likelihood"),
        ("train new --data nothing", "data set: got 'nothing', expected digits, sprites, or one prepared in"),
        ("train full", "run directory: got full, which is not empty (precious.txt), expected a new or empty directory"),
        ("train file/new", "run directory: got file/new (Not a directory), expected a directory to write in"),
        ("evaluate nothing", "run (nothing): got no run.json, expected a run directory written by training"),
        ("evaluate full", "run (full): got no run.json"),
        (
            "evaluate RUN --split train",
            "--split: got 'train', expected test or validation; type: aevae evaluate --help",
        ),
        ("evaluate RUN --batch-size -1", "batch size: got -1, expected at least 1"),
        ("evaluate RUN --batch-size 1.5", "--batch-size: got 1.5, expected an integer"),
        ("evaluate RUN --seed 4294967296", "--seed: got 4294967296, expected 0 to 4294967295"),
        ("evaluate RUN --json numbers.txt", "output (--json): got numbers.txt, expected a name ending in .json"),
        ("sample RUN", "the following arguments are required: --out; such as: aevae sample runs/first --out"),
        ("sample RUN --out s.jpg", "output (--out): got s.jpg, expected a name ending in .png or .npy or .npz"),
        ("sample RUN --out no/s.png", "got no/s.png, expected a file in a directory that exists"),
        ("sample RUN --out s.png --num 0", "--num: got 0, expected at least 1"),
        ("sample RUN --out s.png --seed -1", "--seed: got -1, expected 0 to 4294967295"),
        ("sample nothing --out s.png", "got no run.json"),
        ("sample RUN --out s.npy --num 300000000000", "--num: got 300,000,000,000, which needs about"),
        (f"sample RUN --out {'x' * 300}.png", "output (--out): got a name that cannot be used (File name too long)"),
        (f"sample RUN --out {'x' * 300}/s.png", "expected a file in a directory that exists"),
        (f"reconstruct RUN --out r.png --input {'x' * 300}.npy", "got a file that cannot be read (File name too long)"),
        ("reconstruct RUN --out r.png --input full --split test", "input: got --input and --split, expected one of"),
        ("reconstruct RUN --out r.png --input full", "data (full): got no pictures, expected files ending in .png"),
        ("encode RUN --out z.npy", "input: got neither --input nor --split, expected one of them"),
        ("encode RUN --out z.npy --split val", "--split: got 'val', expected train or validation or test"),
        ("interpolate RUN --out i.npy --steps 300000000000", "--steps: got 300,000,000,000, which needs about"),
        ("reconstruct RUN --out r.png --num 0", "--num: got 0, expected at least 1"),
        ("reconstruct RUN --out r.png --input big.npy", "got (3, 28, 28, 1), expected (N, 8, 8, 1), as the model"),
        ("reconstruct RUN --out r.png --input nan.npy", "numbers (nan.npy): got NaN or infinity in example 0"),
        (
            "reconstruct RUN --out r.png --input nothing.npy",
            "input (nothing.npy): got no file, expected a file that exists",
        ),
        ("interpolate RUN --out i.png --steps 1", "--steps: got 1, expected at least 2"),
        ("interpolate RUN --out i.png --end 360", "--end: got 360, expected 0 to 359, an index of the test set"),
        ("interpolate RUN --out i.png --start -1", "--start: got -1, expected 0 to 359"),
        ("encode RUN --input int64.npy --out z.npy", "type of the images (int64.npy): got int64, expected uint8 or"),
        ("encode RUN --input levels.npy --out z.npy", "got uint8 up to 200, expected 0 to 16"),
        ("encode RUN --input no.npy --out z.npy", "got (0, 8, 8, 1), expected (N, 8, 8, 1)"),
        ("encode RUN --input images.npy --out z.png", "expected a name ending in .npy or .npz"),
        ("decode RUN --input codes.npy --out d.png", "got (3, 5), expected (N, 3), as the model was built for"),
        ("decode RUN --input images.npy --out d.png", "got (3, 8, 8, 1), expected (N, 3)"),
        ("decode RUN --input file --out e.png", "input: got file, expected a file ending in .npy or .npz"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(argv, message, vae, place, capsys):
    before, argv = (tree(place), tree(vae)), argv.replace(" ", "\0")
    for name, text in (("RUN", str(vae)), ("LONG", "n" * 300), ("TEXT", "x" * 10_004)):
        argv = argv.replace(name, text)
    refused(capsys, argv.split("\0"), message)
    assert (tree(place), tree(vae)) == before


def test_damaged_weights_are_one_line(vae, tmp_path, capsys):
    changed = Path(shutil.copytree(vae, tmp_path / "run"))
    weights = bytearray((changed / "weights.safetensors").read_bytes())
    weights[-5] ^= 1
    (changed / "weights.safetensors").write_bytes(bytes(weights))
    refused(capsys, ["sample", changed, "--out", tmp_path / "s.png"], "sha256")
    assert not (tmp_path / "s.png").exists()


def test_an_interrupted_command_says_so_and_leaves_no_output(vae, tmp_path, monkeypatch, capsys):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", interrupted)
    with pytest.raises(SystemExit) as stop:
        main(["sample", str(vae), "--out", str(tmp_path / "s.npy"), "--num", "2"])
    assert stop.value.code == 130
    out, err = capsys.readouterr()
    assert (out, the_line(err)) == ("", "interrupted")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_ctrl_c_saves_a_training_and_ends_it_in_one_line(tmp_path):
    code = "from aevae_jax.cli.main import main; main()"
    model = "vae(2, mlp((8,)), NormalSharedScale(), StandardNormal())"  # nothing left open that would be said first
    argv = ["train", "run", "--model", model, "--epochs", "1000000"]
    with subprocess.Popen(
        [sys.executable, "-c", code, *argv],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stderr is not None
        begun, first = process.stderr.readline(), process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert begun == "reading digits ...\n"
    assert first.startswith("epoch 1/1000000")
    assert (process.returncode, out) == (75, "")
    assert re.fullmatch(r"stopped by SIGINT, saved at step \d+: the same command resumes it", err.splitlines()[-1])
    assert "Traceback" not in err


# -------------------------------------------------------------------------------------------------------------- help

HELP = [[], ["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)]


@pytest.mark.parametrize("argv", HELP, ids=" ".join)
def test_help_loads_no_array_library(argv):
    code = (
        "import sys\nfrom aevae_jax.cli.main import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit as stop: assert not stop.code\n"
        f"sys.stderr.write(' '.join(name for name in {FAST_IMPORTS} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout


FIRST = """
import os, sys, time

class First:
    encoding = "utf-8"

    def write(self, text):
        early = time.process_time() < 1 and "jax" not in sys.modules
        os.write(1, (text if early else f"too late: {text}").encode())
        os._exit(0)

    def flush(self): ...
    def isatty(self): return False

sys.stderr = First()
from aevae_jax.cli.main import main
main(sys.argv[1:])
"""

BEGUN = {
    "train new": "reading digits",
    "evaluate RUN": "reading RUN",
    "compare RUN RUN": "reading RUN",
    "diagnose RUN": "reading RUN",
    "quality RUN": "reading RUN",
    "sample RUN --out s.png": "reading RUN",
    "reconstruct RUN --out s.png": "reading RUN",
    "interpolate RUN --out s.png": "reading RUN",
    "traverse RUN --out t.png": "reading RUN",
    "encode RUN --split test --out z.npy": "reading RUN",
    "decode RUN --input codes.npy --out s.png": "reading RUN",
    "reproduce RUN": "reading RUN",
    "replay RUN --step 1": "reading RUN",
    "compress RUN codes.npy codes.aev": "reading RUN",
    "decompress bits.aev bits.npy --run RUN": "reading RUN",
    "data inspect digits": "reading digits",
    "data prepare mnist": "preparing mnist",
}


@pytest.mark.slow
@pytest.mark.parametrize("typed", BEGUN)
def test_every_command_says_what_it_does_within_a_second_and_before_jax_is_imported(typed, vae, tmp_path):
    argv = [str(vae) if word == "RUN" else word for word in typed.split()]
    (tmp_path / "codes.npy").touch()
    shutil.copy(Path(__file__).parents[1] / "compression" / "golden" / "bits.aev", tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", FIRST, *argv], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == f"{BEGUN[typed].replace('RUN', str(vae))} ...\n"


def test_no_command_is_left_out_of_those_that_say_what_they_do():
    assert {typed.split()[0] for typed in BEGUN} - {"data"} == COMMANDS.keys() - set(AT_ONCE)
    assert {typed.split()[1] for typed in BEGUN if typed.startswith("data ")} == DATA_COMMANDS.keys()


@pytest.mark.parametrize("argv", [[], ["--version"], ["--help"], ["train", "--help"]], ids=" ".join)
def test_help_comes_within_half_a_second(argv):
    """Of processor time, the best of some: help is one thread that waits for nothing, and the cores may be taken."""
    best = float("inf")
    for _ in range(10):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-c", "from aevae_jax.cli.main import main; main()", *argv],
            capture_output=True,
            check=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
        if best < 0.5:
            break
    assert best < 0.5


def test_the_overview_names_every_command_and_its_purpose():
    out = run_main()
    assert out == run_main("--help")
    for name, command in COMMANDS.items():
        assert f"  {name} " in out
        assert command.__doc__.splitlines()[0] in out
    assert max(map(len, out.splitlines())) <= 88
    assert run_main("--version") == f"aevae {aevae_jax.__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_its_options_and_gives_an_example(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    out = capsys.readouterr().out
    assert not stop.value.code
    first = {"completion": "bash", "decompress": "images.aev", "info": "images.aev"}.get(name, "runs")
    assert f"Example: aevae {name} {first}" in out
    assert f"usage: aevae {name}" in out


def test_help_of_train_lists_what_can_be_typed(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    out = capsys.readouterr().out
    for cls in (VAE, Autoencoder, ELBO, MLP, AdamW):
        start, _, _ = values.signature(cls).partition(",")
        assert start in out
    assert "(default: VAE())" in out


def test_the_example_in_the_help_of_train_is_accepted(monkeypatch):
    import shlex

    seen = {}
    monkeypatch.setattr(fitting, "fit", lambda run, **kwargs: seen.update(kwargs, run=run) or exit_early())
    example = next(line for line in COMMANDS["train"].__doc__.splitlines() if "Example: aevae" in line)
    with pytest.raises(KeyError, match="early"):
        main(shlex.split(example.split("Example: aevae ")[1]))
    assert seen["directory"] == Path("runs/first")
    assert seen["run"].model.latent == 8


def test_all_that_is_typed_of_a_training_is_handed_on(monkeypatch):
    seen = {}
    monkeypatch.setattr(fitting, "fit", lambda run, **kwargs: seen.update(kwargs) or exit_early())
    monkeypatch.setattr(provenance, "make_deterministic", lambda: seen.update(deterministic=True))
    saving = Saving(seconds=5.0, last=3, best=0, every=7, steps=11)
    for typed, expected in (
        (["--saving", values.spell(saving), "--stream", "no", "--fresh"], (saving, False, True, None)),
        (["--stream", "yes", "--deterministic"], (Saving(), True, False, True)),
        ([], (Saving(), None, False, None)),
    ):
        seen.clear()
        with pytest.raises(KeyError, match="early"):
            main(["train", "runs/new", *typed])
        assert (seen["saving"], seen["stream"], seen["fresh"], seen.get("deterministic")) == expected
        assert (seen["directory"], seen["on_note"]) == (Path("runs/new"), console.note)


@pytest.mark.parametrize(
    ("typed", "fields", "seeds"),
    [
        (["--seeds", "3", "--seed", "5"], {}, range(5, 8)),
        (["--sweep", "objective.beta=0.5,1e1"], {"objective.beta": (0.5, 10.0)}, range(1)),
        (
            ["--sweep", "objective.beta=1,2", "optimizer.learning_rate=0.1,0.2", "--seeds", "2", "--fresh"],
            {"objective.beta": (1.0, 2.0), "optimizer.learning_rate": (0.1, 0.2)},
            range(2),
        ),
    ],
)
def test_what_is_typed_of_a_sweep_is_handed_on(monkeypatch, typed, fields, seeds):
    seen = []
    monkeypatch.setattr(fitting, "fit_members", lambda *given, **options: seen.append((given, options)) or exit_early())
    with pytest.raises(KeyError, match="early"):
        main(["train", "runs/new", *typed])
    (run, *given), options = seen[0]
    assert given == [fields, seeds]
    assert run.seed == seeds[0]
    assert (options["directory"], options["fresh"]) == (Path("runs/new"), "--fresh" in typed)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["--seeds", "0"], "error: --seeds: got 0, expected 1 to 1000"),
        (["--sweep", "objective.beta=1"], "error: --sweep: got 'objective.beta=1', expected a field and two numbers"),
        (["--sweep", "objective.beta=1,x"], "error: --sweep: got 'objective.beta=1,x', expected a field and two"),
        (
            ["--sweep", "objective.beta=1,1"],
            "error: objective.beta: got [1.0, 1.0], expected at least one number, each",
        ),
        (["--sweep", "objective.bet=1,2"], "error: sweep: got objective.bet; did you mean objective.beta?"),
        (["--sweep", "objective.beta=1,2", "objective.beta=3,4"], "error: --sweep: got objective.beta=1,2 objective."),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_in_a_line(tmp_path, capsys, typed, message):
    with pytest.raises(SystemExit) as left:
        main(["train", str(tmp_path / "run"), *typed])
    assert left.value.code == 2
    assert the_line(capsys.readouterr().err).startswith(message)
    assert not (tmp_path / "run").exists()


def test_what_came_of_a_sweep_is_said(monkeypatch, tmp_path, capsys):
    """Of each combination, the mean over seeds."""
    (tmp_path / "members" / "beta=1,seed=0").mkdir(parents=True)
    (tmp_path / "run.json").touch()
    tests = [{"distortion": d, "rate": 1.0, "negative_elbo": d + 1} for d in (2.0, 4.0, 6.0, 10.0)]
    found = [SimpleNamespace(results={"test": test}) for test in tests]
    monkeypatch.setattr(fitting, "fit_members", lambda *_, **__: found)
    main(["train", str(tmp_path), "--sweep", "objective.beta=1,4", "--seeds", "2"])
    assert capsys.readouterr().out.splitlines() == [
        "test   objective.beta 1: distortion 3.0 + rate 1.0 = 4.0 nats/example",
        "test   objective.beta 4: distortion 8.0 + rate 1.0 = 9.0 nats/example",
        f"wrote  {tmp_path}: members, run.json",
        f"next   aevae evaluate {tmp_path / 'members' / 'beta=1,seed=0'}",
    ]


@pytest.mark.parametrize(
    ("model", "suffix"),
    [
        (VAE(event_shape=(8, 8, 1)), ".png"),
        (VAE(event_shape=(6,)), ".npy"),
        (VAE(likelihood=Tabular((0, 2)), event_shape=(4, 1)), ".csv"),
    ],
)
@pytest.mark.parametrize(("finished", "fresh"), [(True, False), (True, True), (False, False)])
def test_what_came_of_a_training_is_said(monkeypatch, tmp_path, capsys, *, model, suffix, finished, fresh):
    results = {
        "test": {"distortion": 3.0, "rate": 1.25, "negative_elbo": 4.25, "mse_at_mean": 0.5},
        "validation": {"distortion": 7.0, "rate": 7.0, "negative_elbo": 14.0, "mse_at_mean": 7.0},
        "best_epoch": 2,
        "seconds": 61.26,
    }
    made = SimpleNamespace(run=SimpleNamespace(model=model), results=results, history=[{}, {}, {}])
    monkeypatch.setattr(fitting, "fit", lambda run, **options: made)
    if finished:
        (tmp_path / "results.json").touch()
    write_record(tmp_path, {"run": values.to_tree(runs.Run()), "format": {}, "provenance": {"data": {"sha256": ""}}})
    main(["train", str(tmp_path), *(["--fresh"] if fresh else [])])
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "test   distortion 3.0 + rate 1.2 = 4.2 nats/example; best epoch 2 of 3, 61.3 s",
        f"wrote  {tmp_path}: {'results.json, ' if finished else ''}run.json",
        f"next   aevae evaluate {tmp_path}",
        f"       aevae sample {tmp_path} --out samples{suffix}",
    ]
    assert ("was finished before; --fresh would train again" in err) is (finished and not fresh)
    results["test"]["negative_elbo"] = -4.25
    main(["train", str(tmp_path), *(["--fresh"] if fresh else [])])
    assert capsys.readouterr().out.splitlines()[1].startswith("       A total below 0 is no mistake: ")


def test_results_of_an_autoencoder_are_its_squared_error(monkeypatch, tmp_path, capsys):
    results = {"test": {"distortion": 3.0, "mse_at_mean": 0.012345}, "best_epoch": 1, "seconds": 0.04}
    made = SimpleNamespace(run=SimpleNamespace(model=Autoencoder()), results=results, history=[{}])
    monkeypatch.setattr(fitting, "fit", lambda run, **options: made)
    main(["train", str(tmp_path)])
    assert capsys.readouterr().out.startswith("test   mse 0.0123; best epoch 1 of 1, 0.0 s\n")


def exit_early():
    raise KeyError("early")


def test_tests_run_with_strict_flags():
    """The commands above were run with them: a key used twice would have been an error."""
    assert jax.config.jax_debug_key_reuse
