"""From files to trained models by the command line alone: pictures, arrays, tables, and what is said of bad ones."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import the_line
from PIL import Image
from sheets import shown

from aevae_jax import charts, values
from aevae_jax.cli.main import main
from aevae_jax.data import Data, LastSplits, Split, Standardize, datasets, from_arrays, inspection, tfds_prepare
from aevae_jax.models import Autoencoder
from aevae_jax.models.architectures import MLP
from aevae_jax.runs import fitting, resolution
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
    return the_line(capsys.readouterr().err)


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
        "labels of train: blue: ",
        "Categorical()",
        "DynamicBinarization()",
        f"sha256 {Data(str(photos)).load().digest()}",
        f"aevae train runs/first --data {photos}",
    ):
        assert text in out, text
    [sheet] = (tmp_path / "runs" / "inspect").iterdir()
    assert sheet.name == f"{photos.name}.png"
    assert shown(sheet, (32, 32))[1] == [8, 2]
    capsys.readouterr()
    for _ in range(2):  # what is there is replaced
        assert "wrote sheet.png: 64 images" in typed(capsys, "data", "inspect", photos, "--out", "sheet.png")
    assert (tmp_path / "sheet.png").is_file()


def test_each_picture_has_the_name_of_its_class_below(photos, tmp_path, monkeypatch, capsys):
    words = {}
    monkeypatch.setattr(charts, "sheet", lambda path, images, columns, **said: words.update(said, images=images) or 1)
    typed(capsys, "data", "inspect", photos, "--num", 10, "--out", tmp_path / "s.png")
    brightest = words["images"].mean(axis=(1, 2)).argmax(axis=-1)
    assert words["captions"] == [{0: "red", 2: "blue"}[channel] for channel in brightest.tolist()]
    assert words["title"].endswith(": training images, 10 of 96")
    assert words["note"] == "32x32x3 each, spread evenly over the split; 0 is black, 255 white"


@pytest.fixture
def splits(tmp_path, monkeypatch):
    """Bytes, of which no two splits have the same count, range or number of values; the folder is the current one."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.RandomState(0)
    parts = {
        "train": generator.randint(3, 10, (40, 4, 4)),
        "validation": generator.randint(0, 6, (7, 4, 4)),
        "test": generator.randint(5, 17, (9, 4, 4)),
    }
    named = {f"x_{part}": x.astype(np.uint8) for part, x in parts.items()}
    labels = np.arange(40) % 25 - 1
    np.savez("x.npz", y_train=labels, **named)
    return named


def rows_of(out, title):
    """The rows of a printed table, by their first entry."""
    lines = iter(out[out.index(title) :].splitlines())
    next(line for line in lines if set(line.strip()) == {"─"})  # below its headings
    return {line.split()[0]: " ".join(line.split()[1:]) for line in iter(lambda: next(lines).strip(), "")}


def test_each_split_has_a_row_of_its_own(splits, capsys):
    out = typed(capsys, "data", "inspect", "Data('./x.npz', levels=17)")
    rows = rows_of(out, "x.npz: uint8, 4x4x1 each, 17 levels")
    assert list(rows) == ["train", "validation", "test"]
    for part, row in rows.items():
        x = splits[f"x_{part}"]
        left, _, digest = row.rpartition(" ")
        assert left == f"{len(x)} {x.min()} to {x.max()} {len(np.unique(x))} distinct"
        if part != "train":  # which has labels
            text = f"{(*x.shape, 1)}uint8".encode() + x.tobytes()
            assert digest == hashlib.sha256(text).hexdigest()[:16]
    assert "./x.npz: 2 examples have the label -1, which is taken for none" in out
    counts = ", ".join(f"{label}: {2 if label < 14 else 1}" for label in range(20))
    assert f"labels of train: {counts}, ... (24 classes); 2 are -1, which means none" in out


def test_a_sheet_of_few_levels_is_as_bright_as_one_of_many(splits, capsys):
    """The highest of 17 levels is white, and examples come in order from the first to the last."""
    x = splits["x_train"]
    x[0], x[-1] = 0, 16
    np.savez("x.npz", **splits)
    assert "wrote s.png: 3 images" in typed(
        capsys, "data", "inspect", "Data('./x.npz', levels=17)", "--out", "s.png", "--num", 3
    )
    images, _ = shown("s.png", (4, 4))
    np.testing.assert_array_equal(images, np.rint(x[[0, 19, -1]] * (255 / 16)))
    assert (images[0].max(), images[2].min()) == (0, 255)


def test_a_sheet_of_floats_shows_the_lowest_black_and_the_highest_white(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    x = np.linspace(-40, 120, 48 * 4).reshape(12, 2, 2, 4)[..., :1].astype(np.float32)
    np.savez("x.npz", x_train=x, x_validation=2 * x[:3], x_test=3 * x[:3])
    assert "wrote runs/inspect/x_npz.png: 12 images" in typed(capsys, "data", "inspect", "./x.npz")
    images, lengths = shown("runs/inspect/x_npz.png", (2, 2))
    np.testing.assert_allclose(images, (x[..., 0] - x.min()) / np.ptp(x) * 255, atol=0.51)
    assert lengths == [8, 4]


def test_what_is_no_picture_has_no_sheet(people, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.random.RandomState(0).rand(50, 3))
    for data in ("./x.npy", people):
        assert "wrote" not in typed(capsys, "data", "inspect", data)
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]


def test_columns_of_a_table_are_those_of_its_training_data(tmp_path, monkeypatch, capsys):
    """At most six categories, with their counts; numbers that six digits do not tell apart with fifteen."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")  # nothing is folded
    letters = "aabbccddeeffgghh"
    rows = [f"{letters[i]},{-1.5 + i},{1732700000 + i / 8},{'' if i % 4 else i},train" for i in range(16)]
    Path("t.csv").write_text(
        "\n".join(["letter,x,time,some,split", *rows, "a,99,1732700000,5,validation", "b,98,,,test"])
    )
    out = typed(capsys, "data", "inspect", "./t.csv")
    splits = rows_of(out, "./t.csv: float64, 4 each")
    assert [split.split()[-2] for split in splits.values()] == ["12", "0", "2"]
    assert splits["validation"].startswith("1 0 to 1.7327e+09 floats 0 ")
    assert rows_of(out, "columns of train") == {
        "letter": "categorical 0 a: 2, b: 2, c: 2, d: 2, e: 2, f: 2",
        "x": "number 0 -1.5 to 13.5, mean 6",
        "time": "number 0 1732700000 to 1732700001.875, mean 1732700000.9375",
        "some": "count 12 0 to 12, mean 6",
    }


def test_what_is_missing_altogether_has_no_range(tmp_path, monkeypatch, capsys):
    """A column without an entry in the training data, and a split without an entry at all."""
    monkeypatch.setenv("COLUMNS", "200")
    rows = [f"{i + 0.5},,train" for i in range(12)]
    (tmp_path / "t.csv").write_text("\n".join(["x,y,split", *rows, ",,validation", "3.5,7.25,test", "4.5,8.5,test"]))
    out = typed(capsys, "data", "inspect", f"Data('{tmp_path / 't.csv'}', numbers=('x', 'y'))")
    splits = rows_of(out, "t.csv: float")
    assert splits["train"].startswith("12 0.5 to 11.5 floats 12 ")
    assert splits["validation"].startswith("1 none floats 2 ")
    assert splits["test"].startswith("2 3.5 to 8.5 floats 0 ")
    assert rows_of(out, "columns of train") == {"x": "number 0 0.5 to 11.5, mean 6", "y": "number 12 none"}


def test_a_table_of_categories_alone_needs_no_moments(tmp_path, capsys):
    (tmp_path / "t.csv").write_text("a,b\n" + "x,1\ny,2\nz,2\n" * 20)
    out = typed(capsys, "data", "inspect", tmp_path / "t.csv")
    assert rows_of(out, "likelihoods that can score it") == {"Tabular()": "Scale()"}
    assert out.splitlines()[-1].endswith(f"--data {tmp_path / 't.csv'}")


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
        "(rows of a table): likelihood=Tabular(), latent_prior=StandardNormal()",
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
        (["data", "look"], "error: command: got 'look', expected one of its commands; type: aevae data --help"),
        (["data", "inspct", "digits"], "error: command: got 'inspct'; did you mean aevae data inspect digits?"),
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


@pytest.mark.parametrize("classes", [20, 21])
def test_twenty_classes_are_shown_and_more_are_counted(classes, tmp_path, capsys):
    x, y = np.random.RandomState(0).rand(64, 3), np.arange(64) % classes
    np.savez(tmp_path / "x.npz", x_train=x, y_train=y, x_validation=x[:4] + 1, x_test=x[:4] + 2)
    out = typed(capsys, "data", "inspect", tmp_path / "x.npz")
    counts = ", ".join(f"{label}: {(y == label).sum()}" for label in range(20))
    assert f"labels of train: {counts}{', ... (21 classes)' if classes > 20 else ''}\n" in out


@pytest.mark.parametrize(("count", "batch_size"), [(3, 1), (30, 2), (90, 8), (200, 16)])
def test_what_comes_next_can_be_typed_for_few_rows(count, batch_size, tmp_path, monkeypatch, capsys):
    """At least eight steps to an epoch: a tenth of the rows is for validation, and a tenth for tests."""
    np.save(tmp_path / "a b.npy", 1e6 * np.random.RandomState(0).rand(count, 3))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "first").mkdir(parents=True)
    out = typed(capsys, "data", "inspect", "./a b.npy")
    command, _, rest = out.splitlines()[-1].removeprefix("next   aevae ").partition(" ")
    _, directory, *options = [command, *shlex.split(rest)]
    assert directory == "runs/first-2"
    given = dict(zip(options[::2], options[1::2], strict=True))
    assert given.keys() == {"--data"}
    data = values.parse(Data, given["--data"], "--data")
    assert data == Data("./a b.npy", Standardize())  # such numbers are far from what a network starts at
    assert f"; batch_size={batch_size}, as there are" in out
    assert resolution.resolve(Run(data, Autoencoder(2, MLP(())))).run.batch_size == batch_size


@pytest.mark.parametrize(("low", "high", "far"), [(0, 10, False), (0, 10.5, True), (-10.5, 0, True)])
def test_numbers_far_from_0_are_to_be_standardized(low, high, far, tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.linspace(low, high, 1200).reshape(600, 2))
    data = Data(str(tmp_path / "x.npy"), splits=LastSplits(0.01, 0.01))
    x = np.load(tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", np.concatenate([x[::-1], x[:12]]))  # both ends are of the training data
    *_, option, text = shlex.split(typed(capsys, "data", "inspect", values.spell(data)).splitlines()[-1])
    assert option == "--data"
    expected = replace(data, preparation=Standardize()) if far else data
    assert values.parse(Data, text, "--data") == expected


@pytest.mark.parametrize(
    ("name", "sheet"),
    [("ä ö", "data"), ("a b", "a_b"), (".._x-1", "x-1"), ("x" * 120, "x" * 98), ("fig (2).d", "fig_2_d")],
)
def test_an_image_grid_is_named_after_its_data(name, sheet, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for n in range(3):
        (tmp_path / name).mkdir(exist_ok=True)
        Image.fromarray(np.random.RandomState(n).randint(0, 256, (4, 5), np.uint8)).save(tmp_path / name / f"{n}.png")
    assert f"wrote runs/inspect/{sheet}" in typed(capsys, "data", "inspect", f"./{name}")
    [path] = (tmp_path / "runs" / "inspect").iterdir()
    assert path.stem.startswith(sheet)
    assert len(path.stem) <= 100


@pytest.mark.parametrize("taken", ["runs", "runs/inspect"])
def test_no_place_for_the_image_grid_is_a_note(taken, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / taken).parent.mkdir(exist_ok=True)
    (tmp_path / taken).write_text("a file")
    main(["data", "inspect", "digits"])
    out, err = capsys.readouterr()
    assert "next   aevae train runs/first --data digits" in out
    assert the_line(err).startswith("note: no picture of the images: ")
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
    assert "not advised" not in typed(capsys, "data", "inspect", tmp_path / "x.npy")
    out = typed(capsys, "data", "inspect", "digits", "--num", "1")
    assert "WARNING" not in out  # nobody asked for that likelihood
    rows = rows_of(out, "likelihoods that can score it")
    assert rows["ContinuousBernoulli()"].startswith("Scale(), Dequantize(); not advised:")
    assert "58 % of the values" in " ".join(out.split())


def test_how_splits_are_made_is_said_and_that_they_are_small(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.random.RandomState(0).rand(100, 3))
    out = typed(capsys, "data", "inspect", f"Data('{tmp_path / 'x.npy'}', splits=RandomSplits(0.3, 0.29))")
    assert "splits: validation (30 %) and test (29 %) are drawn at random, by a fixed seed, from what" in out
    assert "WARNING: 29 examples of test are too few" in out
    out = typed(capsys, "data", "inspect", f"Data('{tmp_path / 'x.npy'}', splits=LastSplits(0.3, 0.3))")
    assert "validation (30 %) and test (30 %) are cut from the end of what there is to train on" in out
    assert "WARNING" not in out
    assert "what there is to train on" not in typed(capsys, "data", "inspect", "digits")


def test_prepare_hands_on_where_files_lie_and_says_what_comes_next(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(tfds_prepare, "prepare", lambda *given: asked.append(given) or "their/mnist/3.0.1")
    out = typed(capsys, "data", "prepare", "mnist:3.0.1", "--directory", "their", "--manual-dir", "mine")
    typed(capsys, "data", "prepare", "mnist")
    assert asked == [("mnist:3.0.1", "their", "mine"), ("mnist", "", "")]
    assert out.splitlines() == ["wrote their/mnist/3.0.1", "next   aevae data inspect mnist:3.0.1"]


# what can be known of a data set


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_summary_is_of_all_blocks(dtype, monkeypatch):
    """The lowest and the highest value stand in blocks of their own, neither in the first nor in the last."""
    x = np.full((12, 4), 5).astype(dtype)
    x[4, 1], x[7, 2], x[2] = 0, 9, 1
    whole = inspection.summarize(Split(x), 10)
    monkeypatch.setattr(datasets, "BLOCK_BYTES", x[:1].nbytes)
    found = inspection.summarize(Split(x), 10)
    assert found == whole
    assert (found.count, found.shape, found.dtype, found.low, found.high) == (12, (4,), str(x.dtype), 0, 9)
    assert found.values == ((0, 1, 5, 9) if dtype == np.uint8 else ())
    assert found.ends == pytest.approx((2 if dtype == np.uint8 else 5) / 48)  # 0 and 9 of ten levels; 0 and 1 of floats
    assert found.missing == 0


def test_a_summary_counts_what_is_missing_in_all_blocks(monkeypatch):
    monkeypatch.setattr(datasets, "BLOCK_BYTES", 16)
    x = np.array([[np.nan, 1], [np.nan, np.nan], [3, -2], [np.nan, 0]])
    found = inspection.summarize(Split(x))
    assert (found.missing, found.low, found.high, found.ends) == (4, -2, 3, 2 / 8)
    empty = inspection.summarize(Split(np.full((2, 2), np.nan)))
    assert empty.low > empty.high  # which is no range


def test_a_summary_counts_bytes_beyond_a_million():
    x = np.zeros((2, 2**20 - 1), np.uint8)
    x[-1, -1] = 9
    assert inspection.summarize(Split(x), 10).ends == 1  # 0 and 9 of ten levels
    assert inspection.summarize(Split(x), 11).ends == 1 - 1 / x.size
    assert inspection.summarize(Split(x), 10).values == (0, 9)


def test_a_likelihood_must_fit_every_split():
    """Of floats in [0, 1] with a 2 among the test data; of bits; of 17 levels."""
    x = np.random.RandomState(0).rand(40, 2)
    for part in ("validation", "test"):
        other = {"validation": x[:4] / 2, "test": x[4:8] / 2}
        fits = [_fits(from_arrays(x, **given)) for given in (other, other | {part: 2 + x[:4]})]
        assert ["ContinuousBernoulli()" in found for found in fits] == [True, False]
        assert all(found["Normal()"] == ["Scale()", "Standardize()"] for found in fits)
    bits = _fits(from_arrays((x.repeat(30, axis=1) > 0.5).astype(np.uint8)))
    assert bits["Bernoulli()"] == ["Scale()", "DynamicBinarization()", "StaticBinarization()", "Threshold()"]
    assert bits["Categorical(levels=2)"] == bits["Bernoulli()"]
    digits = _fits(Data().load())
    assert digits["Bernoulli()"] == ["DynamicBinarization()", "StaticBinarization()", "Threshold()"]
    assert digits["Categorical(levels=17)"] == digits["DiscretizedLogistic(levels=17)"] == ["Scale()"]
    assert digits["ContinuousBernoulli()"] == ["Scale()", "Dequantize()"]
    assert digits["Normal()"] == ["Scale()", "Standardize()", "Dequantize()"]
    assert not any(name.startswith("Tabular") for name in digits)


def _fits(dataset):
    found = inspection.suitable(dataset, inspection.summarize(dataset.train, dataset.levels))
    return {likelihood: [values.spell(preparation) for preparation in fits] for likelihood, fits in found.items()}


@pytest.mark.parametrize(("ends", "said"), [(0.0099, False), (0.01, True), (0.584, True)])
def test_ends_are_warned_of_from_one_in_a_hundred_on(ends, said):
    train = inspection.Summary(10, (2,), "float32", 0, 1, (), 0, ends)
    why = f"{100 * ends:.0f} % of the values are exactly 0 or 1, where its density has no bound"
    assert inspection.unsuited(train) == ({"ContinuousBernoulli()": why} if said else {})


@pytest.mark.parametrize(("num", "rows"), [(1, [0]), (2, [0, 9]), (4, [0, 3, 6, 9]), (10, range(10)), (11, range(10))])
def test_examples_are_spread_from_the_first_to_the_last(num, rows):
    found = inspection.examples(Split(np.arange(10.0)[:, None], np.arange(10)), num)
    assert found.x[:, 0].tolist() == found.labels.tolist() == list(rows)


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
        "VAE(latent=4, network=Conv((4, 8)), latent_prior=StandardNormal())",
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
        "VAE(latent=2, network=Conv((2, 2)), latent_prior=StandardNormal())",
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
            "AdamW(3e-3)",
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
    standardized, normal = f"Data('{people}', Standardize())", "VAE(likelihood=Normal())"
    said = refused(capsys, "train", tmp_path / "run", "--data", standardized, "--model", normal)
    assert said.endswith("type: --model 'VAE(likelihood=Tabular())'")
    said = refused(capsys, "train", tmp_path / "run", "--model", "VAE(likelihood=Tabular())")
    assert "digits is not a table" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("high", "told"), [(255.0, True), (200.0, True), (1.0, False), (300.0, False)])
def test_floats_that_look_like_levels_of_images_are_warned_of(high, told):
    x = np.linspace(0, high, 20 * 16, dtype=np.float32).reshape(20, 4, 4, 1)
    found = from_arrays(x).notes
    assert [f"floats of 0 to {high:g}: if these are images of 256 levels" in text for text in found] == [True] * told
