"""What tables are in the wild: large offsets, texts like numbers, words for missing entries, special files, labels."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from aevae_jax import values
from aevae_jax.data import Data, Scale, Standardize, prepare, table_columns, table_files, table_text, tables
from aevae_jax.data.datasets import Column, Format
from aevae_jax.data.splits import assemble
from aevae_jax.data.tables import Reading
from aevae_jax.evaluation import estimates, importance
from aevae_jax.models.likelihoods import Likelihood
from aevae_jax.runs import data_of_runs, records
from aevae_jax.types import InputError

NAN = np.nan


@pytest.fixture
def read(tmp_path):
    """Reads a table of that text."""

    def read(text: str, **reading):
        path = tmp_path / "table.csv"
        path.write_bytes(text.encode())
        return table_files.read(path, Reading(**reading))

    return read


def column(entries, name="a") -> str:
    return "\n".join([name, *map(str, entries)]) + "\n"


def refused(call, *match: str) -> None:
    with pytest.raises(InputError) as error:
        call()
    assert "\n" not in str(error.value)
    for text in match:
        assert text in str(error.value)


# --- kinds of numbers ---

SKEWED = np.round(np.random.default_rng(0).lognormal(size=200), 3) + 0.001


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([0, 1, 2, 0, 5], "count"),
        ([2001, 2005.0, 1999], "count"),
        ([-1, 0, 3], "number"),
        ([5, 5, 5], "number"),
        (SKEWED, "positive"),
        (SKEWED - 1, "number"),
        (170.1 + 5 * SKEWED, "number"),  # a normal distribution does not reach 0
        ([*SKEWED, 0, 0], "positive"),
        ([3.3, 4.8, 6.3] * 2, "positive"),  # 3.9 standard deviations above 0
        ([3.5, 5.0, 6.5] * 2, "number"),  # 4.1
    ],
)
def test_kinds_of_numbers_are_seen(read, entries, expected):
    [found] = read(column(entries)).columns
    assert found == Column("a", (), expected, found.offset)
    assert (found.offset < 0) == (expected == "positive" and 0 in list(entries))


def test_positive_numbers_begin_as_far_below_0_as_their_smallest_twentieth_lies_above(read):
    assert read(column([0, *(i + 0.5 for i in range(21))])).columns == (Column("a", (), "positive", -1.5),)
    assert read(column([0.25, *(i + 0.5 for i in range(21))])).columns == (Column("a", (), "positive"),)


@pytest.mark.parametrize(
    ("option", "entries", "kind"),
    [
        ("numbers", [0, 1, 2], "number"),
        ("positive", [1, 2, 3], "positive"),
        ("counts", [0, 0, 7], "count"),
        ("numbers", [0, 1, 1], "number"),
        ("positive", [1, 2, 2], "positive"),
    ],
)
def test_kinds_of_numbers_can_be_named(read, tmp_path, option, entries, kind):
    found = read(column(entries), **{option: ("a",)})
    assert found.columns == (Column("a", kind=kind),)
    parquet.write_table(pa.table({"a": entries, "b": [1.5, 2.5, 7.0]}), tmp_path / "table.parquet")
    typed = table_files.read(tmp_path / "table.parquet", Reading(**{option: ("a",)}))
    assert typed.columns[0] == found.columns[0]
    np.testing.assert_array_equal(typed.parts["train"].x[:, 0], found.parts["train"].x[:, 0])


@pytest.mark.parametrize(
    ("option", "entries", "message"),
    [
        ("positive", [1, -2, 3], "got -2 in data row 2, expected numbers above 0"),
        ("counts", [1, 2, 2.5], "got 2.5 in data row 3, expected whole numbers from 0"),
        ("counts", [1, -2, 3], "got -2 in data row 2, expected whole numbers from 0"),
        ("numbers", [1, "x", 2], "got 'x' in data row 2, expected a number"),
    ],
)
def test_numbers_of_another_kind_than_they_are_named_are_refused(read, option, entries, message):
    refused(lambda: read(column(entries), **{option: ("a",)}), "column 'a'", message)


def test_the_number_of_categories_and_labels_is_limited(read, monkeypatch):
    monkeypatch.setattr(table_columns, "MAX_CATEGORIES", 3)
    assert len(read(column("xyzxyz")).columns[0].categories) == 3
    assert read(column("xy")).columns[0].categories == ("x", "y")  # in as many rows
    refused(lambda: read(column("xyzwxyzw")), "column 'a'", "4 categories in 8 rows, such as 'w'", "expected at most 3")
    text = "x,y\n" + "".join(f"{i + 0.5},{entry}\n" for i, entry in enumerate("abcabc"))
    assert read(text, label="y").parts["train"].labels.tolist() == [0, 1, 2, 0, 1, 2]
    refused(lambda: read(f"{text}9,d\n", label="y"), "column 'y'", "got 4 labels, expected 1 to 3")
    refused(lambda: read("x,y\n1,?\n2,?\n", label="y", missing=("?",)), "column 'y'", "got 0 labels, expected 1 to 3")
    codes = column(["007", "008", "009", "010"] * 2)
    refused(lambda: read(codes), "leave it out, or type in Data: counts=('a',), if they are quantities")
    codes = column(["007", "008", "009"] * 2)
    refused(lambda: read(codes), "type in Data: categorical=('a',), if they are names, or counts=('a',), if they")


def test_typed_categories_are_whole_numbers(tmp_path):
    path = tmp_path / "table.parquet"
    parquet.write_table(pa.table({"a": [3.0, 10.0, None, 3.0], "b": [1.5, 2.5, 1.5, NAN]}), path)
    found = table_files.read(path, Reading(categorical=("a",)))
    assert found.columns[0] == Column("a", ("3", "10"), "text")
    np.testing.assert_array_equal(found.parts["train"].x[:, 0], [0, 1, NAN, 0])
    refused(
        lambda: table_files.read(path, Reading(categorical=("b",))),
        "column 'b'",
        "got 1.5, expected whole numbers, as it is categorical",
    )


# --- large offsets ---

TIMES = [f"{1.7327e9 + i / 1000:.3f}" for i in np.sort(np.random.default_rng(0).permutation(1_200_000)[:1200])]


@pytest.mark.parametrize(
    "entries",
    [
        TIMES,
        [10**12 + i for i in range(320)],
        [f"{5.4e6 + i / 100:.2f}" for i in range(0, 10**5, 497)],
        [f"{52.52 + i * 1e-7:.7f}" for i in range(0, 50_000, 50)],
        ["0.0", *TIMES],
        [f"{i}e-46" for i in range(3, 300)],
    ],
    ids=["Unix times", "ids", "UTM northings", "latitudes", "an outlier", "tiny"],
)
def test_what_is_distinct_in_the_file_stays_distinct(read, entries):
    found = read(column(entries))
    assert found.columns[0].double
    x = found.parts["train"].x[:, 0]
    np.testing.assert_array_equal(x, np.array(entries, np.float64))


@pytest.mark.parametrize("entries", [[170.1, 169.35, 180.2], range(1950, 2024), SKEWED, np.linspace(0, 1, 1000)])
def test_other_numbers_are_float32_as_ever(read, entries):
    found = read(column(entries))
    assert found.parts["train"].x.dtype == np.float32
    assert not found.columns[0].double


@pytest.mark.parametrize(("offset", "double"), [(100, True), (10, False)])
def test_two_numbers_that_float32_runs_together_count_beside_what_all_have_in_common(read, offset, double):
    """Of numbers that have little in common they are rounding: float32 spends its digits on what differs."""
    near = [offset * (1 + 1e-8 * i) for i in (1, 2)]
    found = read(column([offset - 1.5, *near, offset + 1.5, offset + 3.25]))
    assert found.columns[0].double == double
    assert len(np.unique(found.parts["train"].x)) == (5 if double else 4)


def test_what_float64_does_not_tell_apart_is_named(tmp_path):
    path = tmp_path / "table.parquet"
    parquet.write_table(pa.table({"id": [10**18 + i for i in range(300)]}), path)
    refused(lambda: table_files.read(path), "column 'id'", "300 different numbers, of which float64 tells 3 apart")


def test_one_row_has_one_number_beside_columns_of_any_kind(read, tmp_path):
    found = read("h,t,l\n" + "".join(f"{170 + i / 10},{t},{i / 7}\n" for i, t in enumerate(TIMES)))
    assert [c.double for c in found.columns] == [False, True, False]
    again = table_files.read_rows(tmp_path / "table.csv", found.columns)
    np.testing.assert_array_equal(again, found.parts["train"].x)
    np.testing.assert_array_equal(again[:, ::2], again[:, ::2].astype(np.float32))
    np.testing.assert_array_equal(again[:, 1], np.array(TIMES, np.float64))


# --- missing entries ---


def test_a_category_may_be_called_like_a_missing_entry(read, tmp_path):
    text = "country,x\nNA,1\nDE, NA\n ,nan\nNA,4.5\nNA,2\n"
    found = read(text)
    assert found.columns[0] == Column("country", ("DE", "NA"), "text")
    np.testing.assert_array_equal(found.parts["train"].x, [[1, 1], [0, NAN], [NAN, NAN], [1, 4.5], [1, 2]])
    refused(lambda: read(text, missing=("NA",)), "'DE' in every row")
    path = tmp_path / "table.parquet"
    parquet.write_table(pa.table({"country": ["NA", "DE", None, "NA", ""], "n": ["1", "1", "2", None, "2"]}), path)
    found = table_files.read(path)
    assert found.columns == (Column("country", ("", "DE", "NA"), "text"), Column("n", ("1", "2"), "text"))
    assert np.isnan(found.parts["train"].x).sum(axis=0).tolist() == [1, 1]
    assert np.isnan(table_files.read(path, Reading(missing=("",))).parts["train"].x[:, 0]).sum() == 2


def test_words_for_missing_entries_among_numbers(read):
    words = ["NA", "N/A", "NaN", "nan", "NULL", "null", "", " "]
    found = read("a,b\n" + "".join(f"{entry},{i}\n" for i, entry in enumerate(["1.5", *words, "2.5", "-1"])))
    np.testing.assert_array_equal(found.parts["train"].x[:, 0], [1.5, *[NAN] * 8, 2.5, -1])
    refused(lambda: read(column(["1.5", "2.5", "None", "-1", "1.5"])), "numbers and the text 'None'")


def test_words_for_missing_entries_may_be_named(read):
    found = read("a,b\n1,x\n?,y\n3,?\n4,x\n", missing=("?",))
    np.testing.assert_array_equal(found.parts["train"].x, [[1, 0], [NAN, 1], [3, NAN], [4, 0]])
    assert found.columns[1].categories == ("x", "y")
    refused(lambda: read("a\n1\n?\n3\n1\n"), "numbers and the text '?'", "missing=('?',)")


# --- numbers as people write them ---


def test_blanks_around_entries_do_not_count(read):
    found = read("age,\tjob\n 39, State-gov\n 50\t,\tPrivate \t\n 38,Private\n\t, \t\n")
    assert [c.name for c in found.columns] == ["age", "job"]
    np.testing.assert_array_equal(found.parts["train"].x, [[39, 1], [50, 0], [38, 0], [NAN, NAN]])


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        ('a\n"0,5"\n"1.200,25"\n-3\n"1e1"\n', {"decimal": ",", "thousands": "."}),
        ("a;b\n0,5;\n1200,25;1\n-3;2\n10;3\n", {"decimal": ",", "separator": ";"}),
        ('a\n.5\n"1,200.25"\n-3\n10\n', {"thousands": ","}),
        ("a\n.5\n1'200.25\n-3\n10\n", {"thousands": "'"}),
        ("a\n.5\n1\u202f200.25\n-3\n10\n", {"thousands": "\u202f"}),
        ("a\tb\n.5\t1\n1200.25\t\n-3\t2\n10\t3\n", {"separator": "\t"}),
        ("a|b\n.5|1\n1200.25|\n-3|2\n10|3\n", {"separator": "|"}),
        ("a:b\n.5:1\n1 200.25:\n-3:2\n10:3\n", {"separator": ":", "thousands": " "}),
        ("a\n.5\n1_200.25\n-3\n1e1\n", {"thousands": "_"}),
        ("a\n.5\n1\u00a0200.25\n-3\n+10\n", {"thousands": "\u00a0"}),
    ],
)
def test_marks_within_numbers_and_between_fields_are_options(read, text, reading):
    np.testing.assert_array_equal(read(text, **reading).parts["train"].x[:, 0], np.float32([0.5, 1200.25, -3, 10]))


@pytest.mark.parametrize(
    ("entries", "reading", "message"),
    [
        (['"0,5"', '"1,5"', '"2,5"', '"0,5"'], {}, "texts that look like numbers, such as '0,5'"),
        (['"0,5"', '"1,5"', '"2,5"', '"0,5"'], {}, "decimal=',' or thousands=',' or categorical=('a',)"),
        (["12%", "13%", "12%", "7 %"], {}, "texts that look like numbers, such as '12%'"),
        (["1'000", "2'000", "1'000", "900"], {}, 'thousands="\'"'),
        (['"1,5"', "2", "3", "2"], {"thousands": ","}, "look like numbers, such as '1,5'"),  # is not 15
        (["0.5", "2", "3", "2"], {"decimal": ","}, "look like numbers, such as '0.5'"),
    ],
)
def test_texts_that_look_like_numbers_are_named(read, entries, reading, message):
    refused(lambda: read(column(entries), **reading), "column 'a'", message)


@pytest.mark.parametrize(
    "entries", [["1.1.2", "1.2.10", "1.1.2"], ["A1", "B2", "A1"], ["3-5", "5-9", "3-5"], ["-", "+"]]
)
def test_other_texts_are_categories(read, entries):
    assert read(column(entries)).columns[0].categories == tuple(sorted(set(entries)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decimal": "x"}, "Data decimal: got 'x', expected '.' or ','"),
        ({"separator": '"'}, "Data separator"),
        ({"decimal": ",", "thousands": ","}, "Data thousands: got ',', the decimal mark as well"),
        ({"counts": ("a",), "categorical": ("a",)}, "column 'a' in 2 places"),
        ({"label": "a", "numbers": ("a",)}, "column 'a' in 2 places"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, message):
    refused(lambda: Data("x.csv", **options), message)


# --- new rows ---

CATEGORIES = ["1.1", "1.10", "01", "True", "0.50", "1E10", "2020-01-01", "08:30", "02134", "NA", "other"]


@pytest.mark.parametrize("entry", CATEGORIES)
def test_a_new_row_is_read_as_the_training_data_were(read, tmp_path, entry):
    """From that entry alone one would guess a number, a truth value, a date or a time."""
    columns = (
        read(column(CATEGORIES * 2)).columns if False else read(column(CATEGORIES * 2), categorical=("a",)).columns
    )
    (tmp_path / "new.csv").write_text(column([entry]))
    [[code]] = table_files.read_rows(tmp_path / "new.csv", columns)
    assert columns[0].categories[int(code)] == entry
    assert table_files.read_texts(tmp_path / "new.csv", columns) == [[entry]]


@pytest.mark.parametrize("entry", ["1.100", "1", "true", "0.5", "1e10", "8:30", "2134", "na"])
def test_another_spelling_is_another_category(read, tmp_path, entry):
    columns = read(column(CATEGORIES * 2), categorical=("a",)).columns
    (tmp_path / "new.csv").write_text(column([CATEGORIES[0], entry]))
    refused(lambda: table_files.read_rows(tmp_path / "new.csv", columns), f"got {entry!r} in data row 2")


def test_truth_values_are_those_of_the_training_data(tmp_path):
    """A CSV file may spell them otherwise than Parquet does; where both spellings are categories, each is its own."""
    path = tmp_path / "new.parquet"
    parquet.write_table(pa.table({"a": [True, False, None]}), path)
    for categories, codes in ((("False", "True"), [1, 0, NAN]), (("FALSE", "True", "true", "x"), [2, 0, NAN])):
        [found] = table_files.read_rows(path, (Column("a", categories, "text"),)).T
        np.testing.assert_array_equal(found, codes)
    refused(
        lambda: table_files.read_rows(path, (Column("a", ("False", "TRUE", "True"), "text"),)), "'True' in data row 1"
    )
    assert table_files.read_texts(path, (Column("a", ("False", "True"), "text"),)) == [["true", "false", ""]]


def test_texts_of_typed_numbers_have_the_fewest_digits(tmp_path):
    path = tmp_path / "new.parquet"
    table = {"a": [1.0, 2.5, None], "b": pa.array([3, 40, 5], pa.int8()), "c": ["x ", "1.0", ""]}
    parquet.write_table(pa.table(table), path)
    columns = tuple(Column(name) for name in "cab")
    assert table_files.read_texts(path, columns) == [["x ", "1.0", ""], ["1", "2.5", ""], ["3", "40", "5"]]


def test_texts_of_parquet_in_new_rows(tmp_path):
    """Of numbers they are read as those of a CSV file; of categories every character counts."""
    path = tmp_path / "new.parquet"
    parquet.write_table(pa.table({"a": ["1.5", " 2 ", "", "NA"], "b": ["x", "y", None, "x"]}), path)
    rows = table_files.read_rows(path, (Column("a"), Column("b", ("x", "y"), "text")))
    np.testing.assert_array_equal(rows, [[1.5, 0], [2, 1], [NAN, NAN], [NAN, 0]])
    for entry in ("", " x"):
        parquet.write_table(pa.table({"b": ["x", entry]}), path)
        refused(lambda: table_files.read_rows(path, (Column("b", ("x", "y"), "text"),)), f"got {entry!r} in data row 2")
    parquet.write_table(pa.table({"b": ["x", "", "x"]}), path)
    columns = (Column("b", ("x", "y"), "text"),)
    np.testing.assert_array_equal(table_files.read_rows(path, columns, Reading(missing=("",))), [[0], [NAN], [0]])


def test_categories_are_those_that_occur(tmp_path):
    """A dictionary of texts may hold others."""
    path = tmp_path / "table.parquet"
    texts = pa.DictionaryArray.from_arrays(pa.array([3, 1, None, 3], pa.int8()), ["never", "y", "1", "x"])
    parquet.write_table(pa.table({"a": texts, "b": [1.5, 2.5, 4.0, 8.0]}), path)
    found = table_files.read(path)
    assert found.columns[0] == Column("a", ("x", "y"), "text")
    np.testing.assert_array_equal(found.parts["train"].x[:, 0], [0, 1, NAN, 0])


def test_words_for_missing_entries_count_in_new_rows(tmp_path):
    columns = (Column("a", ("x", "y", "z"), "text"), Column("b"), Column("c", ("0", "1")))
    (tmp_path / "new.csv").write_text("a,b,c\n?, ?,?\ny,1.5,1.0\n ,NA,NA\n")
    rows = table_files.read_rows(tmp_path / "new.csv", columns, Reading(missing=("?",)))
    np.testing.assert_array_equal(rows, [[NAN, NAN, NAN], [1, 1.5, 1], [NAN, NAN, NAN]])
    refused(
        lambda: table_files.read_rows(tmp_path / "new.csv", columns),
        "column 'a'",
        "got '?' in data row 1",
        "x or y or z",
    )
    (tmp_path / "new.csv").write_text("a,b,c\ny,2,NA\nNA,2,1\n")
    refused(lambda: table_files.read_rows(tmp_path / "new.csv", columns), "column 'a'", "got 'NA' in data row 2")


def test_zeros_are_positive_numbers_where_there_were_some(tmp_path):
    (tmp_path / "new.csv").write_text(column(["0", "0.25"]))
    rows = table_files.read_rows(tmp_path / "new.csv", (Column("a", (), "positive", -0.5),))
    np.testing.assert_array_equal(rows, [[0], [0.25]])
    (tmp_path / "new.csv").write_text(column(["0", "-0.25"]))
    refused(
        lambda: table_files.read_rows(tmp_path / "new.csv", (Column("a", (), "positive", -0.5),)),
        "got -0.25 in data row 2, expected numbers above 0",
    )


def test_a_column_of_splits_is_one_only_where_it_names_them(tmp_path):
    (tmp_path / "new.csv").write_text("a,split\n1.5,train\n2.5,training\n")
    refused(lambda: table_files.read_rows(tmp_path / "new.csv", (Column("a"),)), "got the column 'split', expected a")
    (tmp_path / "new.csv").write_text("a,split\n1.5,train\n2.5,test\n")
    np.testing.assert_array_equal(table_files.read_rows(tmp_path / "new.csv", (Column("a"),)), [[1.5], [2.5]])


def test_two_numbers_are_numbers_in_any_spelling(read, tmp_path):
    columns = read(column(["0", "1", "1", "NA"])).columns
    (tmp_path / "new.csv").write_text(column(["0.0", "1.0", '""', "NA"]))
    np.testing.assert_array_equal(table_files.read_rows(tmp_path / "new.csv", columns)[:, 0], [0, 1, NAN, NAN])
    parquet.write_table(pa.table({"a": [0.0, 1.0, NAN, None]}), tmp_path / "new.parquet")
    np.testing.assert_array_equal(table_files.read_rows(tmp_path / "new.parquet", columns)[:, 0], [0, 1, NAN, NAN])


@pytest.mark.parametrize(
    ("kind", "entry", "message"),
    [
        ("count", "1.5", "got 1.5 in data row 2, expected whole numbers"),
        ("count", "-1", "got -1 in data row 2, expected whole numbers"),
        ("positive", "0", "got 0 in data row 2, expected numbers above 0"),
        ("number", "x", "got 'x' in data row 2, expected a number"),
        ("number", "inf", "got inf in data row 2"),
    ],
)
def test_a_new_number_must_be_of_its_column_s_kind(tmp_path, kind, entry, message):
    (tmp_path / "new.csv").write_text(column(["3", entry]))
    refused(lambda: table_files.read_rows(tmp_path / "new.csv", (Column("a", (), kind),)), "column 'a'", message)


def test_rows_of_the_training_file_can_be_read_with_their_labels_and_splits(read, tmp_path):
    reading = {"label": "species"}
    found = read("x,species,split\n1.5,b,train\n2.5,a,test\n3,,train\n", **reading)
    assert [c.name for c in found.columns] == ["x"]
    assert [found.parts[part].labels.tolist() for part in ("train", "test")] == [[1, -1], [0]]
    rows = table_files.read_rows(tmp_path / "table.csv", found.columns, Reading(**reading))
    np.testing.assert_array_equal(rows, [[1.5], [2.5], [3]])
    refused(lambda: read("x\n1\n", label="y"), "label", "got 'y', expected columns of it: x")


def test_labels_may_be_numbers(read, tmp_path):
    assert read("x,y\n1,10\n2,9\n4,10\n", label="y").parts["train"].labels.tolist() == [1, 0, 1]
    parquet.write_table(pa.table({"x": [1.0, 2.0, 4.0], "y": [10, 9, None]}), tmp_path / "table.parquet")
    labels = table_files.read(tmp_path / "table.parquet", Reading(label="y")).parts["train"].labels
    assert labels.tolist() == [1, 0, -1]
    assert labels.dtype == np.int32


# --- headers ---


def test_headers_keep_every_character(read, tmp_path):
    names = ("flow [/s]", "age [years]", "[bold]", "a\x1b[31mb", "x\ty", "\u202ename")
    found = read(",".join(names) + "\n" + "1.5,2.5,3.5,4.5,5.5,6.5\n" * 2 + "1,2,3,4,5,6\n", numbers=names)
    assert tuple(c.name for c in found.columns) == names
    tables.write_csv(tmp_path / "out.csv", found.parts["train"].x, found.columns)
    assert table_files.read(tmp_path / "out.csv", Reading(numbers=names)).columns == found.columns


# --- special files ---


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_only_regular_files_of_a_bounded_size_are_read(tmp_path, suffix):
    os.mkfifo(tmp_path / f"fifo.{suffix}")
    (tmp_path / f"device.{suffix}").symlink_to("/dev/zero")
    (tmp_path / f"folder.{suffix}").mkdir()
    with (tmp_path / f"giant.{suffix}").open("wb") as file:
        file.truncate(2**40)
    for name, message in (("fifo", "a FIFO"), ("device", "a FIFO"), ("folder", "a directory"), ("giant", "at most")):
        path = tmp_path / f"{name}.{suffix}"
        refused(partial(table_files.read, path), message, path.name)
        refused(partial(table_files.read_rows, path, (Column("a"),)), message, path.name)
    size = {"csv": "1048576 MiB of CSV, expected at most 512 MiB", "parquet": "at most 4,294,967,296"}[suffix]
    refused(partial(table_files.read, tmp_path / f"giant.{suffix}"), size)


def test_a_csv_file_may_be_as_large_as_the_limit(read, monkeypatch):
    text = "a,b\n1,2\n3,4\n5,7\n"
    monkeypatch.setattr(table_text, "MAX_CSV_BYTES", len(text))
    assert len(read(text).parts["train"]) == 3
    monkeypatch.setattr(table_text, "MAX_CSV_BYTES", len(text) - 1)
    refused(lambda: read(text), "MiB of CSV", "write it as Parquet")


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ('a;b\n1;"x;y"\n2;"x"z\n3;x\n', 2),
        ('a;b\n1;"x""y"\n2;x\n3;"x\n', 3),
        ('a;b\n1;x"y\n"2";"x" \n3;"x"\t"\n', 3),
        ('\ufeff"a";b\r\n1;"x\r\ny"\r\n2;"x\r\n', 2),
        ('\ufeff"a\nb";c\n1;"x"\n2;"x\n', 2),
    ],
)
def test_quotes_are_closed_before_the_separator_whatever_it_is(read, text, row):
    refused(lambda: read(text, separator=";"), f"a quote that is not closed in data row {row}")


def test_quoted_fields_may_hold_anything(read):
    found = read('a;b\n1;"x;y"\n2;"x""y"\n3;x"y\n4;"x\r\ny"\n5;"x" \n6;""\n7;"x;y"\n', separator=";")
    assert found.columns[1].categories == ("x", "x\r\ny", 'x"y', "x;y")
    np.testing.assert_array_equal(found.parts["train"].x[:, 1], [3, 2, 2, 1, 0, NAN, 3])


def test_headers_of_numbers_are_those_of_pandas_and_no_others(read):
    """Which numbers the columns of arrays; other numbers are a first row of data."""
    assert [c.name for c in read("0,1\n1.5,2\n2.5,3\n4,9\n").columns] == ["0", "1"]
    for text in ("1,2\n1.5,2\n", "0,2\n1.5,2\n", "1,0\n1.5,2\n"):
        refused(lambda text=text: read(text), "first row", f"got {text[:3]}, expected the columns' names")
    refused(lambda: read("a|b\n1|2\n3|4\n"), "first row", "type in Data: separator='|'")


def test_what_a_parquet_file_expands_to_is_known_before_it_does(tmp_path, monkeypatch):
    """10^8 equal rows are 372 kB."""
    path = tmp_path / "table.parquet"
    parquet.write_table(pa.table({"a": np.zeros(10**6, np.int8)}), path)
    monkeypatch.setattr(table_files, "SMALL_BYTES", 2**20)
    monkeypatch.setattr(parquet.ParquetFile, "read", lambda *_: pytest.fail("it was read"))
    refused(lambda: table_files.read(path), "1000000 rows, 46 MiB from", "at most 100 times the size of the file")


def test_what_a_csv_file_takes_is_known_before_it_does(read, monkeypatch):
    monkeypatch.setattr(table_files, "MAX_BYTES", 2**20)
    refused(lambda: read(column(range(10**5))), "table", "when expanded", "write it as Parquet")


def test_old_records_of_columns_are_read():
    tree = {"type": "Column", "name": "a", "categories": ["x", "y"]}
    assert values.from_tree(Column, tree, "run.json") == Column("a", ("x", "y"))
    tree = values.to_tree(Data("x.csv", categorical=("a",)))
    old = {name: tree[name] for name in ("type", "name", "preparation", "directory", "splits", "size", "categorical")}
    assert values.from_tree(Data, old, "run.json") == Data("x.csv", categorical=("a",))


# --- what a model sees, and the way back ---

PEOPLE = "t,age,children,income,rain,height\n" + "".join(
    f"{time},{20 + i % 60},{i % 4},{1000 * v},{max(0, v - 1.5):.3f},{170 + 0.1 * (i % 90)}\n"
    for i, (time, v) in enumerate(zip(TIMES, np.tile(SKEWED, 6), strict=True))
)


@pytest.fixture
def people(read):
    return prepare(Standardize(), assemble("people", read(PEOPLE)))


def test_every_kind_comes_back_from_what_the_model_sees(people):
    assert [c.kind for c in people.format.columns] == ["number", "count", "count", "positive", "positive", "number"]
    raw = np.asarray(people.validation.x)
    back = people.preparation.inverse(raw, people.format)
    again = people.preparation.units(back, people.format)
    assert np.isfinite(raw).all()
    assert again.dtype == np.float32
    np.testing.assert_allclose(again, raw, atol=2e-5)
    assert len(np.unique(people.train.x[:, 0])) == len(people.train.x)  # 1,200 times, of which float32 keeps 10


def test_what_a_model_makes_is_brought_into_the_units_of_each_kind():
    """Logarithms that no float32 has are cut off; times get the decimals that float32 leaves them at their scale."""
    columns = (
        Column("income", kind="positive"),
        Column("rain", kind="positive", offset=-1.5),
        Column("count", kind="count"),
        Column("time", double=True),
        Column("height"),
    )
    form = Format((5,), 0, columns, (0.0,) * 5, (1.0, 1.0, 1.0, 100.0, 1.0))
    made = np.array([[1000, np.log(4), 2.4, 1732700000.12345678, -0.123], [-3, -1000, -2.6, 0.5, 7], [NAN] * 5])
    before = made.copy()
    found = tables.natural(made, form)
    expected = [[np.exp(88), 2.5, 2, 1732700000.123457, -0.123], [np.exp(-3), 0, 0, 0.5, 7], [NAN] * 5]
    np.testing.assert_allclose(found, expected, rtol=1e-15, atol=0)
    assert np.isfinite(found[:2].astype(np.float32)).all()
    np.testing.assert_array_equal(made, before)  # it is a copy
    there = np.array([[2.5, 0, 3, 5, 7]])
    np.testing.assert_allclose(tables.linear(there, columns), [[np.log(2.5), np.log(1.5), 3, 5, 7]], rtol=1e-15)
    assert there[0, 0] == 2.5


def test_moments_of_positive_numbers_are_those_of_their_logarithms(people, read):
    found = read(PEOPLE)
    income = np.log(found.parts["train"].x[:, 3])
    np.testing.assert_allclose(people.format.mean[3], income.mean(), atol=0.05)
    column = found.columns[4]
    assert column.offset < 0
    x = np.asarray(people.train.x, np.float64)
    np.testing.assert_allclose(np.nanmean(x[:, 1:5], axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(np.nanstd(x[:, 1:5], axis=0), 1, atol=1e-5)


def test_what_a_model_makes_is_never_negative_and_counts_are_whole(people, tmp_path):
    x = np.random.default_rng(0).normal(size=people.validation.x.shape).astype(np.float32) * 6
    x[:, 1::2] = 1.0  # every entry is there
    rows = people.preparation.inverse(x, people.format)
    assert (rows[:, :5] >= 0).all()
    np.testing.assert_array_equal(rows[:, 1:3], np.rint(rows[:, 1:3]))
    assert (rows[:, 3] > 0).all()
    assert (rows[:, 4] == 0).any()
    tables.write_csv(tmp_path / "out.csv", rows, people.format.columns)
    again = table_files.read_rows(tmp_path / "out.csv", people.format.columns)
    np.testing.assert_allclose(again[:, 0], rows[:, 0], rtol=0, atol=0)
    np.testing.assert_array_equal(again[:, 1:], rows[:, 1:].astype(np.float32))


def test_the_likelihood_of_a_table_knows_its_counts(people):
    likelihood = tables.likelihood(people.format)
    assert likelihood.columns == (0,) * 6
    assert [place for place, _, _ in likelihood.counts] == [1, 2]
    x = np.asarray(people.validation.x)
    for place, zero, step in likelihood.counts:
        k = (x[:, 2 * place].astype(np.float64) - zero) / step
        np.testing.assert_allclose(k, np.rint(k), atol=1e-4)
        assert k.min() > -0.01
    assert values.from_tree(Likelihood, values.to_tree(likelihood), "run.json") == likelihood


def test_codes_alone_come_back_without_moments(read):
    data = prepare(Scale(), assemble("codes", read("a,b\n" + "x,1\ny,2\nz,2\n,1\n" * 10)))
    raw = data.preparation.inverse(np.asarray(data.validation.x), data.format)
    assert raw.shape[1] == 2
    np.testing.assert_array_equal(data.preparation.units(raw, data.format), data.validation.x)


def test_a_run_keeps_the_kinds_of_its_columns(read, tmp_path, monkeypatch):
    """Runs of older versions were trained on numbers where counts and positive numbers are seen by now."""
    data = Data(str(tmp_path / "table.csv"), Standardize())
    found = assemble(data.name, read(PEOPLE))
    old = replace(found.format, columns=tuple(Column(c.name) for c in found.columns))
    record = {"format": values.to_tree(old), "provenance": {"data": {"sha256": found.digest(), "name": data.name}}}
    monkeypatch.setattr(records, "read_record", lambda folder, **_: record)
    seen = data_of_runs.load_data(tmp_path, data)
    assert seen.columns == old.columns
    assert seen.digest() == found.digest()


def test_a_mass_of_counts_is_not_ranked_with_a_density_of_them(people, monkeypatch):
    """Both score the same rows."""
    monkeypatch.setattr(importance, "check_scorable", lambda *_: "density and mass")
    estimate = importance.Estimate(**dict.fromkeys(importance.Estimate.__annotations__, np.zeros(len(people.test))))
    monkeypatch.setattr(importance, "estimate", lambda *_, **__: estimate)
    columns = tuple(
        replace(column, kind="number") if column.kind == "count" else column for column in people.format.columns
    )
    other = replace(people, format=replace(people.format, columns=columns))
    figures = [
        importance.result(None, None, p, None, name=str(i), split="test")[0] for i, p in enumerate((people, other))
    ]
    refused(lambda: estimates.rank(figures), "['age', 'children']")


@pytest.mark.parametrize(("text", "said"), [("NA,DE,NA,FR", True), ("N,DE,N,FR", False), ("NA,1,2,2.5", False)])
def test_categories_that_may_stand_for_missing_entries_are_said(read, text, said):
    rows = "".join(f"{entry},{i}\n" for i, entry in enumerate(text.split(",") * 9))
    data = prepare(Standardize(), assemble("x", read(f"c,x\n{rows}")))
    assert [note for note in data.notes if "missing=('NA',)" in note and "column 'c'" in note] == list(data.notes)
    assert bool(data.notes) == said


def test_a_file_is_written_with_the_marks_it_was_read_with(read, tmp_path):
    reading = Reading(decimal=",", separator=";", thousands=".")
    found = read("a;b\n1.200,5;x\n-3;y\n4,25;x\n", decimal=",", separator=";", thousands=".")
    tables.write_csv(tmp_path / "out.csv", found.parts["train"].x, found.columns, reading)
    assert (tmp_path / "out.csv").read_text() == "a;b\n1200,5;x\n-3;y\n4,25;x\n"
    np.testing.assert_array_equal(
        table_files.read_rows(tmp_path / "out.csv", found.columns, reading), found.parts["train"].x
    )


def test_given_entries_are_written_as_they_are(read, tmp_path):
    columns = read("a,b,c\n1.5,x,3\n2.5,y,4\n-3,x,9\n").columns
    (tmp_path / "new.csv").write_text('c,a,b\n007,1.50, x\n,"2e0",\n')
    given = table_files.read_texts(tmp_path / "new.csv", columns)
    tables.write_csv(tmp_path / "out.csv", np.float32([[9, 1, 9], [9, 1, 8]]), columns, given=given)
    assert (tmp_path / "out.csv").read_text() == "a,b,c\n1.50, x,007\n2e0,y,8\n"


@pytest.mark.parametrize(
    "tree",
    [
        {"type": "Column", "name": "a", "kind": "positive", "offset": 1.0},
        {
            "type": "Format",
            "event_shape": [1],
            "levels": 0,
            "columns": [{"type": "Column", "name": "a"}],
            "mean": [0.0],
            "scale": [0.0],
        },
        {
            "type": "Format",
            "event_shape": [1],
            "levels": 0,
            "columns": [{"type": "Column", "name": "a"}],
            "mean": [0.0, 1.0],
            "scale": [1.0, 1.0],
        },
        {"type": "Format", "event_shape": [1], "levels": 0, "mean": [0.0, 1.0], "scale": [1.0]},
    ],
)
def test_records_that_cannot_be_are_refused(tree):
    refused(lambda: values.from_tree(Column | Format, tree, "run.json"), "expected")


def test_names_of_digits_are_not_taken_for_quantities(read):
    """A postal code that is read as a number loses its leading zero, and is drawn between two others."""
    text = column(["01067", "10115", "02625"] * 3, "zip")
    refused(lambda: read(text), "column 'zip'", "leading zeros, such as '01067'", "categorical=('zip',), if they are")
    assert read(text, categorical=("zip",)).columns[0].categories == ("01067", "02625", "10115")
    assert read(text, counts=("zip",)).columns[0].kind == "count"
    many = column(f"{i:05d}" for i in range(2_000))
    refused(lambda: read(many), "type in Data: counts=('a',), if they are quantities")
    mixed = column(["01", "2.5", "-1"])
    refused(lambda: read(mixed), "categorical=('a',), if they are names, or numbers=('a',), if they are quantities")
    assert read(column(["0", "0.5", "10", "-0.25"] * 3)).columns[0].kind == "number"
    assert read(column(["00", "01"] * 3)).columns[0].categories == ("00", "01")


@pytest.mark.parametrize("sign", [1, -1])
def test_what_float64_tells_apart_is_looked_at_on_either_side_of_0(tmp_path, sign):
    path = tmp_path / "table.parquet"
    ids = [sign * (10**18 + i) for i in range(300)]
    parquet.write_table(pa.table({"id": ids}), path)
    refused(lambda: table_files.read(path), "300 different numbers, of which float64 tells 3 apart")


def test_two_spellings_of_one_number_are_the_number(read):
    """Two texts are kept as they stand in the file; of three, which are two numbers, the fewest digits are."""
    assert read(column(["1", "2.50", "1"])).columns[0].categories == ("1", "2.50")
    assert read(column(["1", "1.0", "2.50", "1"])).columns[0].categories == ("1", "2.5")
    assert read(column(["10", "9", "10"])).columns[0].categories == ("9", "10")


def test_categories_that_are_all_missing_are_no_column(read):
    refused(lambda: read("a,b\n,1\n,2\n,4\n", categorical=("a",)), "column 'a'", "got no entries, expected at least 1")
    refused(lambda: read("a;b\n;0,5\n;1,5\n", decimal=",", separator=";"), "column 'a'", "got no entries")


def test_numbers_of_new_rows_may_be_typed(tmp_path):
    """And a number that is neither of the two of a column is refused, as is one that both could be."""
    path = tmp_path / "new.parquet"
    parquet.write_table(pa.table({"a": pa.array([3, None, 7], pa.int16()), "c": [1.0, 0.0, None]}), path)
    found = table_files.read_rows(path, (Column("a", kind="count"), Column("c", ("0", "1"))))
    np.testing.assert_array_equal(found, [[3, 1], [NAN, 0], [7, NAN]])
    refused(lambda: table_files.read_rows(path, (Column("a"), Column("c", ("1", "2")))), "got '0.0' in data row 2")
    (tmp_path / "new.csv").write_text("c\n1.00\n")
    refused(
        lambda: table_files.read_rows(tmp_path / "new.csv", (Column("c", ("1", "1.0")),)), "got '1.00' in data row 1"
    )


def test_new_rows_lack_no_column(tmp_path):
    (tmp_path / "new.csv").write_text("a,b\n1,2\n")
    refused(
        lambda: table_files.read_rows(tmp_path / "new.csv", (Column("a"), Column("b"), Column("c"))),
        "table",
        "got no column 'c', expected a, b, c",
    )


def test_blanks_that_are_part_of_a_category_are_found(tmp_path):
    """As a Parquet file may have them; blanks that are part of none do not count."""
    (tmp_path / "new.csv").write_text("b\n x\nx\n  x\n")
    found = table_files.read_rows(tmp_path / "new.csv", (Column("b", (" x", "x"), "text"),))
    assert found[:, 0].tolist() == [0, 1, 1]


def test_names_of_columns_may_hold_other_marks(read):
    assert [c.name for c in read("a;x,b|y\n1.5,2\n2.5,3\n4,9\n").columns] == ["a;x", "b|y"]


def test_what_a_csv_file_takes_is_counted_in_entries_and_text(read, monkeypatch):
    """13 bytes for each entry, 40 for each line, and the text itself."""
    wide = "\n".join(",".join(f"{start}{i}" for i in range(100)) for start in "c125") + "\n"
    long = "a,b\n" + "".join(f"{i},{text}\n" for i, text in enumerate(["x" * 5000, "y"] * 2))
    for text, columns, lines in ((wide, 100, 5), (long, 2, 6)):
        need = lines * (13 * columns + 40) + len(text)
        monkeypatch.setattr(table_files, "MAX_BYTES", need - 1)
        refused(lambda text=text: read(text), "when expanded", "write it as Parquet")
        monkeypatch.setattr(table_files, "MAX_BYTES", need)
        assert len(read(text).columns) == columns


def test_what_is_no_number_is_missing_among_typed_categories(tmp_path):
    path = tmp_path / "new.parquet"
    parquet.write_table(pa.table({"a": [10.0, NAN, None, 3.0]}), path)
    [found] = table_files.read_rows(path, (Column("a", ("3", "10"), "text"),)).T
    np.testing.assert_array_equal(found, [1, NAN, NAN, 0])


def test_counts_and_positive_numbers_are_not_rounded_to_the_digits_of_others():
    """Though float32 would not tell them apart: at a scale of 10^9 it knows every 60th."""
    columns = (
        Column("id", kind="count", double=True),
        Column("x", kind="positive", double=True),
        Column("y", double=True),
    )
    form = Format((3,), 0, columns, (0.0,) * 3, (1e9,) * 3)
    found = tables.natural(np.array([[1234567891.4, np.log(1234567.0), 1234567891.4]]), form)
    np.testing.assert_allclose(found, [[1234567891, 1234567, 1234567890]], rtol=1e-15)


def test_no_offset_that_is_no_number():
    refused(lambda: Column("a", kind="positive", offset=NAN), "offset of column 'a': got nan, expected 0 or less")
