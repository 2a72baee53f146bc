"""From files to trained models by the command line alone: pictures, arrays, tables, and what is said of bad ones."""

from __future__ import annotations

import csv
import json
import re
import shlex

import numpy as np
import pytest
from PIL import Image

from aevae_jax import values
from aevae_jax.cli.main import main
from aevae_jax.data import Data, Split, Standardize, inspection
from aevae_jax.runs import fitting
from aevae_jax.runs.run import Run


def typed(capsys, *arguments):
    """What a command prints."""
    main([str(argument) for argument in arguments])
    return capsys.readouterr().out


def refused(capsys, *arguments):
    """The one line that a command leaves with, and its exit code 2."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    assert left.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes of CIFAR-shaped pictures: a gradient in red, or in blue."""
    folder, generator = tmp_path_factory.mktemp("photos"), np.random.RandomState(0)
    ramp = np.linspace(0, 200, 32)[None, :, None] + np.zeros((32, 32, 3))
    for i in range(120):
        name = ("red", "blue")[i % 2]
        (folder / name).mkdir(exist_ok=True)
        picture = ramp * np.eye(3)[0 if name == "red" else 2] + generator.randint(0, 56, (32, 32, 3))
        Image.fromarray(picture.astype(np.uint8)).save(folder / name / f"{i:04}.png")
    return folder


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A table of three kinds of columns, a tenth of its entries missing."""
    path, g = tmp_path_factory.mktemp("tables") / "people.csv", np.random.RandomState(0)
    rows = [["height", "smoker", "colour"]]
    for _ in range(600):
        smoker = g.rand() < 0.4
        colour = ("red", "green", "blue, dark")[g.choice(3, p=(0.2, 0.2, 0.6) if smoker else (0.7, 0.2, 0.1))]
        row = [f"{170 + (5 if smoker else -5) + 4 * g.randn():.1f}", "yes" if smoker else "no", colour]
        rows.append([entry if g.rand() > 0.1 else "" for entry in row])
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


# inspect


def test_inspect_says_what_is_in_a_folder_of_pictures(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    out = typed(capsys, "data", "inspect", photos, "--num", 10)
    for text in (
        "uint8, 32x32x3",
        "train",
        "96",
        "validation",
        "12",
        "0 to 255",
        "256 levels",
        "labels of train: 0: ",
        "Categorical()",
        "DynamicBinarization()",
        f"sha256 {Data(str(photos)).load().digest()}",
        f"aevae train runs/first --data {photos}",
    ):
        assert text in out, text
    [sheet] = (tmp_path / "runs" / "inspect").iterdir()
    with Image.open(sheet) as picture:
        assert picture.size == (8 * 33 - 1, 2 * 33 - 1)
    capsys.readouterr()
    typed(capsys, "data", "inspect", photos, "--out", "sheet.png")
    assert (tmp_path / "sheet.png").is_file()


def test_inspect_says_what_is_in_a_table(people, capsys):
    out = typed(capsys, "data", "inspect", people)
    missing = sum(row.count("") for row in read_csv(people))
    found = [
        int(line.split()[-2]) for line in out.splitlines() if line.strip().startswith(("train ", "valid", "test "))
    ]
    assert sum(found) == missing
    for text in (
        "height",
        "number",
        "smoker",
        "binary",
        "no: ",
        "yes: ",
        "colour",
        "categorical",
        "blue, dark: ",
        "Tabular()",
        "Standardize()",
        '--model "VAE(likelihood=Tabular())"',
    ):
        assert text in out, text


@pytest.mark.parametrize(
    ("scale", "fits", "unfit"),
    [
        (1.0, ("ContinuousBernoulli()", "Normal()"), ("Categorical", "Bernoulli() ")),
        (50.0, ("Normal()",), ("ContinuousBernoulli", "Categorical")),
    ],
)
def test_inspect_lists_the_likelihoods_that_fit(scale, fits, unfit, tmp_path, capsys):
    np.save(tmp_path / "x.npy", scale * np.random.RandomState(0).rand(50, 3))
    out = typed(capsys, "data", "inspect", tmp_path / "x.npy")
    table = out[out.index("likelihoods that can score it") :]
    names = [line.split()[0] for line in table.splitlines()[2:] if line.strip()]
    assert set(fits) <= set(names)
    assert not [name for name in names if name.startswith(unfit)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data", "inspect", "./nothing.npy"], "error: data: got nothing.npy, expected a file or folder that exists"),
        (["data", "inspect", "digits", "--out", "x.jpg"], "error: output (--out): got x.jpg, expected a name ending"),
        (["data", "inspect", "digits", "--num", "0"], "error: --num: got 0, expected 1 to 1000"),
        (["data", "look"], "error: command: got 'look', expected inspect, prepare; type: aevae data --help"),
        (
            ["data", "inspct", "digits"],
            "error: command: got 'inspct', expected inspect, prepare; did you mean inspect?",
        ),
        (["data", "inspect", "digits", "--num", "1001"], "error: --num: got 1001, expected 1 to 1000"),
        (["data", "inspect", "VAE()"], "error: data: got VAE"),
    ],
)
def test_refused_commands(arguments, message, capsys):
    assert refused(capsys, *arguments).startswith(message)


def test_names_in_a_table_reach_the_terminal_as_text(tmp_path, capsys):
    """Neither an escape nor markup: the second would vanish, or end the command."""
    reds = ("a[b]", "\x1b[2J")
    rows = ["flow [/s],age [years],\x1b[31mred", *(f"{i}.5,{i % 7},{reds[i % 2]}" for i in range(30))]
    (tmp_path / "t[bold].csv").write_text("\n".join(rows))
    out = typed(capsys, "data", "inspect", tmp_path / "t[bold].csv")
    assert "\x1b" not in out
    for text in ("flow [/s]", "age [years]", " [31mred", "a[b]: ", " [2J: "):
        assert text in out


def test_labels_are_counted_by_value(tmp_path, capsys):
    """Not up to the largest: that could be a date, or an identifier. A negative one says that there is none."""
    y = np.array([-1] * 20 + [20_231_100] * 20 + [2_000_000_000] * 40)
    np.savez(tmp_path / "x.npz", x=np.random.RandomState(0).rand(80, 3), y=y)
    out = typed(capsys, "data", "inspect", tmp_path / "x.npz")
    counts = re.search(r"labels of train: 20231100: (\d+), 2000000000: (\d+); (\d+) are -1, which means none", out)
    assert counts
    assert sum(map(int, counts.groups())) == 64


@pytest.mark.parametrize("count", [3, 30, 90])
def test_what_comes_next_can_be_typed_for_few_rows(count, tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "a b.npy", 1e6 * np.random.RandomState(0).rand(count, 3))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "first").mkdir(parents=True)
    out = typed(capsys, "data", "inspect", "./a b.npy")
    command, _, rest = out.splitlines()[-1].removeprefix("next   aevae ").partition(" ")
    _, directory, *options = [command, *shlex.split(rest)]
    assert directory == "runs/first-2"
    given = dict(zip(options[::2], options[1::2], strict=True))
    run = Run(data=values.parse(Data, given["--data"], "--data"), batch_size=int(given["--batch-size"]))
    assert run.data == Data("./a b.npy", Standardize())  # such numbers are far from what a network starts at
    assert 1 <= run.batch_size <= len(run.data.load().train)


@pytest.mark.parametrize("taken", ["runs", "runs/inspect"])
def test_no_place_for_the_contact_sheet_is_a_note(taken, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / taken).parent.mkdir(exist_ok=True)
    (tmp_path / taken).write_text("a file")
    main(["data", "inspect", "digits"])
    out, err = capsys.readouterr()
    assert "next   aevae train runs/first --data digits" in out
    assert err.startswith("note: no contact sheet: ")
    assert err.count("\n") == 1
    assert refused(capsys, "data", "inspect", "digits", "--out", "runs/no/x.png").startswith("error: output (--out)")


@pytest.mark.parametrize(
    ("x", "levels"),
    [
        (np.array([[0.0, 1.0, 0.25, 0.0], [0.5, 0.75, 0.25, 1.0]]), 0),
        (np.array([[0, 3, 1, 0], [2, 1, 1, 3]], np.uint8), 4),
    ],
)
def test_both_ends_of_the_range_count_as_ends(x, levels):
    assert inspection.summarize(Split(x), levels).ends == 4 / 8


def test_exact_zeros_and_ones_under_a_continuous_bernoulli_are_warned_of(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.random.RandomState(0).rand(50, 3))
    assert "WARNING" not in typed(capsys, "data", "inspect", tmp_path / "x.npy")
    assert "WARNING: 58 % of the values are exactly 0 or 1" in typed(capsys, "data", "inspect", "digits", "--num", "1")


def test_data_alone_shows_its_commands(capsys):
    for arguments in (["data"], ["data", "--help"]):
        out = typed(capsys, *arguments)
        assert "inspect" in out
        assert "prepare" in out


# from files to models


@pytest.mark.slow
def test_a_folder_of_pictures_trains_end_to_end(photos, tmp_path, capsys):
    out = typed(
        capsys,
        "train",
        tmp_path / "run",
        "--data",
        photos,
        "--model",
        "VAE(latent=4, network=Conv((4, 8)))",
        "--batch-size",
        32,
        "--epochs",
        3,
    )
    assert "samples.png" in out
    history = fitting.load_run(tmp_path / "run").history
    assert history[-1]["train"]["loss"] < history[0]["train"]["loss"]
    assert "12 examples" in typed(capsys, "evaluate", tmp_path / "run").replace("\n", " ")
    typed(capsys, "sample", tmp_path / "run", "--out", tmp_path / "s.npy", "--num", 5)
    assert np.load(tmp_path / "s.npy").shape == (5, 32, 32, 3)


@pytest.mark.slow
@pytest.mark.parametrize("preparation", ["Standardize()", "Dequantize()"])
def test_arrays_of_an_odd_shape_train_streamed_end_to_end(preparation, tmp_path, capsys):
    images = np.random.RandomState(0).randint(0, 256, (90, 33, 33, 1)).astype(np.uint8)
    np.save(tmp_path / "x.npy", images)
    data = f"Data('{tmp_path / 'x.npy'}', {preparation}, splits=LastSplits())"
    typed(
        capsys,
        "train",
        tmp_path / "run",
        "--data",
        data,
        "--model",
        "VAE(latent=2, network=Conv((2, 2)))",
        "--batch-size",
        30,
        "--epochs",
        1,
        "--stream",
        "yes",
    )
    typed(capsys, "reconstruct", tmp_path / "run", "--out", tmp_path / "r.npz", "--num", 6)
    with np.load(tmp_path / "r.npz") as found:
        assert found["reconstructions"].shape == (6, 33, 33, 1)
        off = np.abs(found["images"] - images[-9:-3] / 255).max()  # pictures come back in the units of the data
        assert off <= (1 / 255 if preparation == "Dequantize()" else 1e-6)
    np.save(tmp_path / "raw.npy", images[:4])
    typed(capsys, "encode", tmp_path / "run", "--input", tmp_path / "raw.npy", "--out", tmp_path / "a.npy")
    if preparation != "Dequantize()":
        np.save(tmp_path / "unit.npy", images[:4].astype(np.float32) / 255)
        typed(capsys, "encode", tmp_path / "run", "--input", tmp_path / "unit.npy", "--out", tmp_path / "b.npy")
        np.testing.assert_allclose(np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy"), atol=1e-5)


@pytest.fixture(scope="module")
def table_run(people, tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "people"
    model = "VAE(latent=3, network=MLP((32,)), likelihood=Tabular())"
    main(
        [
            "train",
            str(directory),
            "--data",
            f"Data('{people}', Standardize())",
            "--model",
            model,
            "--optimizer",
            "Adam(3e-3)",
            "--batch-size",
            "50",
            "--epochs",
            "200",
        ]
    )
    return directory


@pytest.mark.slow
def test_a_table_trains_from_csv_to_samples(people, table_run, tmp_path, capsys):
    record = json.loads((table_run / "run.json").read_text())
    assert [column["name"] for column in record["format"]["columns"]] == ["height", "smoker", "colour"]
    history = fitting.load_run(table_run).history
    assert history[-1]["validation"]["negative_elbo"] < history[0]["validation"]["negative_elbo"]
    out = typed(capsys, "sample", table_run, "--out", tmp_path / "s.csv", "--num", 2000, "--noise")
    assert "2000 rows of 3 columns" in out
    header, *rows = read_csv(tmp_path / "s.csv")
    assert header == ["height", "smoker", "colour"]
    heights = np.array([float(row[0]) for row in rows])
    smoker = np.array([row[1] == "yes" for row in rows])
    assert {row[1] for row in rows} == {"yes", "no"}
    assert {row[2] for row in rows} == {"red", "green", "blue, dark"}
    assert abs(heights.mean() - 169) < 2  # cm
    assert abs(smoker.mean() - 0.4) < 0.1
    assert heights[smoker].mean() - heights[~smoker].mean() > 4  # 10 in the data: the columns depend on each other


@pytest.mark.slow
def test_a_row_with_missing_entries_is_completed(table_run, tmp_path, capsys):
    """The reconstruction of a row whose height is missing tells smokers from others."""
    (tmp_path / "new.csv").write_text('height,smoker,colour\n,yes,"blue, dark"\n,no,red\n')
    typed(capsys, "reconstruct", table_run, "--input", tmp_path / "new.csv", "--out", tmp_path / "r.csv")
    _, smoker, other = read_csv(tmp_path / "r.csv")
    assert float(smoker[0]) > float(other[0]) + 3
    typed(capsys, "encode", table_run, "--input", tmp_path / "new.csv", "--out", tmp_path / "z.npy")
    assert np.load(tmp_path / "z.npy").shape == (2, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("height,smoker\n170,yes\n", "got no column 'colour'"),
        ("height,smoker,colour,age\n170,yes,red,3\n", "got the column 'age'"),
        ("height,smoker,colour\n170,maybe,red\n", "got 'maybe'"),
        ("height,smoker,colour\ntall,yes,red\n", "got 'tall'"),
        ("height,smoker,colour\n", "got no rows"),
    ],
)
def test_rows_of_another_table_are_refused(text, message, table_run, tmp_path, capsys):
    (tmp_path / "new.csv").write_text(text)
    said = refused(capsys, "encode", table_run, "--input", tmp_path / "new.csv", "--out", tmp_path / "z.npy")
    assert message in said
    assert "new.csv" in said


def test_tables_ask_for_what_they_need(people, tmp_path, capsys):
    said = refused(capsys, "train", tmp_path / "run", "--data", people)
    assert said.endswith("type: --data \"Data('PATH', Standardize())\"")
    said = refused(capsys, "train", tmp_path / "run", "--data", f"Data('{people}', Standardize())")
    assert said.endswith("type: --model 'VAE(likelihood=Tabular())'")
    said = refused(capsys, "train", tmp_path / "run", "--model", "VAE(likelihood=Tabular())")
    assert "digits is not a table" in said
    assert not (tmp_path / "run").exists()
