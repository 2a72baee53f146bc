"""What a trained model makes, as files: of float images in units of their own, and of a table."""

from __future__ import annotations

import csv
from types import SimpleNamespace

import jax
import numpy as np
import oracles
import pytest
from commands import refused, typed
from run_files import write_record
from sheets import shown

from aevae_jax import keys, memory, values
from aevae_jax.cli import evaluate, generate
from aevae_jax.data import Format
from aevae_jax.evaluation import collapse
from aevae_jax.models import VAE, generation
from aevae_jax.models.architectures import MLP
from aevae_jax.models.priors import GaussianMixture
from aevae_jax.runs import data_of_runs, fitting
from aevae_jax.runs.run import Run
from aevae_jax.types import InputError

pytestmark = pytest.mark.usefixtures("no_pictures")


def load(path):
    array = np.load(path, allow_pickle=False)
    return array if isinstance(array, np.ndarray) else {name: array[name] for name in array.files}


def read_csv(path, separator=";"):
    with path.open(newline="") as file:
        return list(csv.reader(file, delimiter=separator))


# ------------------------------------------------------------------------------------------- images in their own units


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A run of standardised float images between 100 and 200, and its folder."""
    folder = tmp_path_factory.mktemp("warm")
    np.save(folder / "x.npy", np.random.default_rng(0).uniform(100, 200, (80, 4, 5, 1)).astype(np.float32))
    data = f"Data('{folder / 'x.npy'}', Standardize())"
    model = "VAE(2, MLP((4,)), latent_prior=StandardNormal())"
    typed("train", folder / "run", "--data", data, "--model", model, "--batch-size", 16, "--epochs", 1)
    return folder / "run"


@pytest.fixture(scope="module")
def test_rows(warm):
    """Its test images in the units of the data, and as the model sees them."""
    run = fitting.load_run(warm).run
    return data_of_runs.load_data(warm, run.data).test.x, evaluate.prepared_of(warm, run).test.x[:]


def test_what_is_made_is_in_the_units_of_the_data_and_codes_are_left_as_they_are(warm, test_rows, tmp_path):
    raw, seen = test_rows
    fitted = fitting.load_run(warm)
    posterior = oracles.encode(fitted.model, fitted.params, seen)
    codes, scales = np.asarray(posterior.mean()), np.asarray(posterior.scale)
    np.save(tmp_path / "raw.npy", raw)
    for given in (["--input", tmp_path / "raw.npy"], ["--split", "test"]):
        typed("encode", warm, *given, "--out", tmp_path / "z.npz", "--force")
        found = load(tmp_path / "z.npz")
        np.testing.assert_allclose(found["codes"], codes, atol=1e-5)
        np.testing.assert_allclose(found["scale"], scales, atol=1e-5)

    def natural(x):
        return np.asarray(
            fitted.run.data.preparation.inverse(np.asarray(x), evaluate.prepared_of(warm, fitted.run).format)
        )

    decoded = natural(oracles.mean(oracles.decode(fitted.model, fitted.params, codes)))
    assert 100 < decoded.mean() < 200
    typed("decode", warm, "--input", tmp_path / "z.npz", "--out", tmp_path / "d.npz")
    typed("reconstruct", warm, "--input", tmp_path / "raw.npy", "--out", tmp_path / "r.npz")
    typed("reconstruct", warm, "--input", tmp_path / "raw.npy", "--out", tmp_path / "r.npy")
    assert load(tmp_path / "d.npz").keys() == {"images"}
    for made in (
        load(tmp_path / "d.npz")["images"],
        load(tmp_path / "r.npz")["reconstructions"],
        load(tmp_path / "r.npy"),
    ):
        np.testing.assert_allclose(made, decoded, rtol=1e-4)
    np.testing.assert_allclose(load(tmp_path / "r.npz")["images"], raw, rtol=1e-5)

    typed("interpolate", warm, "--start", 2, "--end", 5, "--steps", 3, "--out", tmp_path / "i.npz")
    path = load(tmp_path / "i.npz")
    np.testing.assert_allclose(path["codes"], [codes[2], (codes[2] + codes[5]) / 2, codes[5]], atol=1e-5)
    np.testing.assert_allclose(path["images"][[0, 2]], decoded[[2, 5]], rtol=1e-4)

    typed("sample", warm, "--seed", 5, "--num", 6, "--out", tmp_path / "s.npz")
    key = keys.stream(keys.root(5), keys.Stream.SAMPLE)
    drawn = natural(generation.sample(fitted.model, fitted.params, key, 6).mean())
    np.testing.assert_allclose(load(tmp_path / "s.npz")["images"], drawn, rtol=1e-4)
    assert load(tmp_path / "s.npz").keys() == {"images"}


COMMANDS = (
    ["sample"],
    ["reconstruct"],
    ["interpolate"],
    ["traverse"],
    ["encode", "--split", "test"],
    ["decode", "--input", "z.npy"],
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_file_is_replaced_only_if_that_is_asked_for(warm, tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    np.save("z.npy", np.zeros((3, 2), np.float32))
    (tmp_path / "out.npy").write_text("precious")
    name, *options = command
    message = "output (--out): got out.npy, which exists, expected a new file; type --out out-2.npy, or --force"
    assert message in refused(capsys, name, warm, *options, "--out", "out.npy")
    assert (tmp_path / "out.npy").read_text() == "precious"
    assert typed(name, warm, *options, "--out", "out.npy", "--force").startswith("wrote out.npy: ")
    assert load("out.npy").ndim == (2 if name == "encode" else 4)


def test_one_dimension_at_a_time_is_moved_over_what_the_prior_holds_likely(warm, test_rows, tmp_path):
    fitted, seen = fitting.load_run(warm), test_rows[1]
    means = np.asarray(oracles.encode(fitted.model, fitted.params, seen).mean())
    typed("traverse", warm, "--start", 3, "--steps", 5, "--out", tmp_path / "t.npz")
    found = load(tmp_path / "t.npz")
    order = np.argsort(-means.var(axis=0))
    np.testing.assert_array_equal(found["dimensions"], order)
    np.testing.assert_allclose(found["activity"], means.var(axis=0)[order], rtol=1e-4)
    np.testing.assert_array_equal(found["values"], [-3, -1.5, 0, 1.5, 3])
    codes = found["codes"].reshape(2, 5, 2)
    for row, dimension in zip(codes, order, strict=True):
        np.testing.assert_allclose(row[:, dimension], [-3, -1.5, 0, 1.5, 3], atol=1e-6)  # of N(0, I)
        np.testing.assert_allclose(row[:, 1 - dimension], means[3, 1 - dimension], atol=1e-5)
    decoded = oracles.mean(oracles.decode(fitted.model, fitted.params, found["codes"]))
    natural = fitted.run.data.preparation.inverse(np.asarray(decoded), evaluate.prepared_of(warm, fitted.run).format)
    np.testing.assert_allclose(found["images"], natural, rtol=1e-4)

    typed("traverse", warm, "--mean", "--num", 1, "--steps", 2, "--out", tmp_path / "m.npz")
    codes = load(tmp_path / "m.npz")["codes"]
    np.testing.assert_allclose(codes[:, order[0]], [-3, 3], atol=1e-6)
    np.testing.assert_allclose(codes[:, order[1]], 0, atol=1e-6)
    assert typed("traverse", warm, "--start", 3, "--out", tmp_path / "t.png").endswith("t.png: 14 images\n")
    typed("traverse", warm, "--start", 3, "--out", tmp_path / "t.npy")
    images, lengths = shown(tmp_path / "t.png", (4, 5))
    x = load(tmp_path / "t.npy")[..., 0]
    np.testing.assert_allclose(images, (x - x.min()) / np.ptp(x) * 255, atol=0.51)
    assert lengths == [7, 7]


def test_rows_of_a_sheet_are_as_long_as_what_they_show(warm, tmp_path):
    """At most 12 steps of a path side by side; those of several rows are about as long."""
    np.save(tmp_path / "z.npy", np.zeros((65, 2), np.float32))
    for command, lengths in (
        (["reconstruct", "--num", 5], [5, 5]),
        (["interpolate", "--steps", 10], [12]),
        (["interpolate", "--steps", 11], [7, 6]),
        (["sample", "--num", 3], [3]),
        (["sample", "--num", 82], [10] * 8 + [2]),
        (["decode", "--input", tmp_path / "z.npy"], [9] * 7 + [2]),
    ):
        name, *options = command
        typed(name, warm, *options, "--out", tmp_path / "x.png", "--force")
        assert shown(tmp_path / "x.png", (4, 5))[1] == lengths, command


def test_samples_of_floats_are_black_and_white_where_they_are_lowest_and_highest(warm, tmp_path):
    for name in ("s.png", "s.npy"):
        typed("sample", warm, "--num", 8, "--noise", "--out", tmp_path / name)
    x = load(tmp_path / "s.npy")[..., 0]
    images, _ = shown(tmp_path / "s.png", (4, 5))
    np.testing.assert_allclose(images, (x - x.min()) / np.ptp(x) * 255, atol=0.51)


# --------------------------------------------------------------------------------------------------------------- tables

HEADER = ["height", "city", "smokes"]


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A run of a table whose file is written in another way than usual, and its folder."""
    folder, g = tmp_path_factory.mktemp("people"), np.random.default_rng(0)
    rows = [f"{170 + g.normal():.2f};{('Rom', 'Ulm', 'Oslo')[i % 3]};{('yes', 'no')[i % 2]}" for i in range(80)]
    (folder / "t.csv").write_text("\n".join(["height;city;smokes", *rows]).replace(".", ","))
    data = f"Data('{folder / 't.csv'}', Standardize(), separator=';', decimal=',', missing=('?',))"
    model = "VAE(2, MLP((4,)), Tabular())"
    typed("train", folder / "run", "--data", data, "--model", model, "--batch-size", 16, "--epochs", 1)
    return folder / "run"


def check_rows(rows, count):
    """Rows as the file of the training data has them."""
    header, *rows = rows
    assert header == HEADER
    assert len(rows) == count
    for height, city, smokes in rows:
        assert 100 < float(height.replace(",", ".")) < 250
        assert "." not in height
        assert city in {"Rom", "Ulm", "Oslo"}
        assert smokes in {"yes", "no"}


def test_rows_are_drawn_and_decoded_as_their_file_is_written(people, tmp_path, capsys):
    said = typed("sample", people, "--num", 7, "--noise", "--out", tmp_path / "s.csv")
    assert said == f"wrote {tmp_path / 's.csv'}: 7 rows of 3 columns\n"
    check_rows(read_csv(tmp_path / "s.csv"), 7)
    assert len({tuple(row) for row in read_csv(tmp_path / "s.csv")}) == 8
    typed("encode", people, "--split", "test", "--out", tmp_path / "z.npy")
    typed("decode", people, "--input", tmp_path / "z.npy", "--out", tmp_path / "d.csv")
    check_rows(read_csv(tmp_path / "d.csv"), len(load(tmp_path / "z.npy")))
    typed("interpolate", people, "--steps", 4, "--out", tmp_path / "i.csv")
    check_rows(read_csv(tmp_path / "i.csv"), 4)
    typed("sample", people, "--num", 7, "--out", tmp_path / "s.npy")
    assert load(tmp_path / "s.npy").shape == (7, 3)
    assert "as the data are not images" in refused(capsys, "sample", people, "--out", tmp_path / "s.png")


def test_rows_of_a_file_are_completed_and_encoded(people, tmp_path, capsys):
    (tmp_path / "new.csv").write_text("smokes;height;city\n?; 169,500;Ulm\nno;?;?\n")
    typed("reconstruct", people, "--input", tmp_path / "new.csv", "--out", tmp_path / "r.csv")
    rows = read_csv(tmp_path / "r.csv")
    check_rows(rows, 2)
    assert rows[1][:2] == [" 169,500", "Ulm"]
    assert rows[2][2] == "no"
    typed("reconstruct", people, "--input", tmp_path / "new.csv", "--out", tmp_path / "r.npz")
    arrays = load(tmp_path / "r.npz")
    assert arrays.keys() == {"reconstructions", "images"}
    np.testing.assert_array_equal(np.isnan(arrays["images"]), [[False, False, True], [True, True, False]])
    assert not np.isnan(arrays["reconstructions"]).any()
    typed("encode", people, "--input", tmp_path / "new.csv", "--out", tmp_path / "z.npy")
    assert load(tmp_path / "z.npy").shape == (2, 2)
    both = ("--input", tmp_path / "new.csv", "--split", "test")
    for name in ("reconstruct", "encode"):
        assert "input: got --input and --split" in refused(capsys, name, people, *both, "--out", tmp_path / "x.npy")


def test_rows_of_its_own_parts_are_completed_wherever_they_are_by_now(people, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    dataset = data_of_runs.load_data(people, fitting.load_run(people).run.data)
    for options, rows in (
        ([], dataset.test.x),
        (["--num", 3], dataset.test.x[:3]),
        (["--split", "validation", "--num", 2], dataset.validation.x[:2]),
        (["--split", "train", "--num", 4], dataset.train.x[:4]),
    ):
        typed("reconstruct", people, *options, "--out", "r.npz", "--force")
        np.testing.assert_array_equal(load("r.npz")["reconstructions"], rows[:16])  # nothing is missing
    (people.parent / "t.csv").rename(tmp_path / "moved.csv")
    try:
        assert "t.csv" in refused(capsys, "reconstruct", people, "--out", "r.csv")
        typed("reconstruct", people, "--out", "r.csv", "--data", "./moved.csv")
        assert len(read_csv(tmp_path / "r.csv")) == 1 + min(16, len(dataset.test.x))
    finally:
        (tmp_path / "moved.csv").rename(people.parent / "t.csv")


# ------------------------------------------------------------------------------------------- what is handed on, and how


def test_the_key_of_a_diagnosis_is_that_of_its_seed(warm, monkeypatch):
    given, found, diagnose = [], [], collapse.diagnose

    def seen(fitted, x, key, **told):
        given.append((len(x), jax.random.key_data(key).tolist()))
        found[:] = found or [diagnose(fitted, x, key, **told)]  # one is enough to go on with
        return found[0]

    monkeypatch.setattr(collapse, "diagnose", seen)
    count = len(data_of_runs.load_data(warm, fitting.load_run(warm).run.data).validation)
    for seed in (0, 3):
        typed("diagnose", warm, *(["--seed", seed] if seed else []))
        key = keys.stream(keys.root(seed), keys.Stream.EVALUATE)
        assert given.pop() == (count, jax.random.key_data(key).tolist())


@pytest.mark.parametrize(
    ("command", "what", "count"),
    [
        (["decode", "--input", "z.npy"], "codes", 9),
        (["interpolate", "--steps", 7], "--steps", 7),
        (["reconstruct", "--num", 3], "inputs", 3),
        (["sample", "--num", 5, "--noise"], "--num", 5),
    ],
)
def test_what_is_made_must_fit_into_memory_before_any_is_made(
    warm, tmp_path, monkeypatch, capsys, *, command, what, count
):
    """Codes of 2 numbers, images of 20, each held three times as float32."""
    monkeypatch.chdir(tmp_path)
    np.save("z.npy", np.zeros((9, 2), np.float32))
    asked = []

    def check(need, **said):
        asked.append((need, said))
        raise InputError("memory", got="none", expected="some")

    monkeypatch.setattr(memory, "check", check)
    name, *options = command
    assert "memory: got none" in refused(capsys, name, warm, *options, "--out", "out.npy")
    numbers = 20 + (20 if name == "reconstruct" else 2)
    assert asked == [(3 * count * numbers * 4, {"what": what, "got": f"{count}"})]
    assert not (tmp_path / "out.npy").exists()


def test_draws_from_a_mixture_of_many_components_need_room_for_all_of_them(tmp_path, monkeypatch, capsys):
    """A thousand draws from 500 components: each is chosen by 500 numbers, and is a code of two."""
    model = VAE(2, MLP((4,)), latent_prior=GaussianMixture(500), event_shape=(3,))
    fitted = SimpleNamespace(run=Run(model=model), model=model, params=oracles.random_params(model))
    monkeypatch.setattr(generate, "loaded", lambda folder: fitted)
    form = values.to_tree(Format((3,), 0))
    write_record(tmp_path, {"run": {}, "format": form, "provenance": {"data": {"sha256": ""}}})
    asked = []

    def check(need, **said):
        asked.append(need)
        if len(asked) == 2:
            raise InputError("memory", got="none", expected="some")

    monkeypatch.setattr(memory, "check", check)
    assert "memory: got none" in refused(capsys, "sample", tmp_path, "--num", 1000, "--out", tmp_path / "s.npy")
    assert asked[0] == 3 * 1000 * (2 + 3) * 4
    assert asked[1] > 1000 * 2 * 4  # more than the codes; how much more, the compiler decides
