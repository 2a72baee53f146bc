"""Tables: rows and features, CSV and Parquet, what is refused and how, and a model that learns from one."""

from __future__ import annotations

import builtins
import datetime

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st
from pyarrow import parquet

from aevae_jax import VAE, keys, training
from aevae_jax.data import Standardize, datasets, prepare, table_files, table_text, tables
from aevae_jax.data.datasets import Column, Format
from aevae_jax.data.splits import assemble
from aevae_jax.data.tables import Reading
from aevae_jax.models import architectures, likelihoods
from aevae_jax.objectives.losses import ELBO
from aevae_jax.training.optimizers import AdamW
from aevae_jax.types import InputError

NAN = np.nan


def columns_of(*widths: int) -> tuple[Column, ...]:
    return tuple(Column(f"c{i}", tuple(f"text {k}" for k in range(width))) for i, width in enumerate(widths))


def format_of(*widths: int) -> Format:
    return Format((len(widths),), 0, columns_of(*widths))


def random_rows(seed: int, count: int, *widths: int) -> np.ndarray:
    """Raw rows of which a third of the entries are missing."""
    generator = np.random.default_rng(seed)
    columns = [generator.integers(width, size=count) if width else generator.normal(size=count) for width in widths]
    x = np.stack(columns, axis=1).astype(np.float32)
    return np.where(generator.random(x.shape) < 1 / 3, np.float32(NAN), x)


# --- rows and features ---

MIXED = (0, 2, 3, 0, 4)
RAW = np.array([[0.5, 1, 2, -3, 0], [NAN, NAN, NAN, NAN, NAN], [-1, 0, 0, NAN, 3]], np.float32)
FEATURES = np.array(
    [[0.5, 1, 1, 1, 0, 0, 1, -3, 1, 1, 0, 0, 0], [0] * 13, [-1, 1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1]], np.float32
)


def test_features_stand_where_they_should():
    x = tables.features(RAW, format_of(*MIXED))
    np.testing.assert_array_equal(x, FEATURES)
    assert x.dtype == np.float32
    assert tables.feature_count(columns_of(*MIXED)) == 13
    assert tables.widths(columns_of(*MIXED)) == MIXED


def test_jax_and_numpy_make_the_same_features():
    format, raw = format_of(*MIXED), random_rows(0, 50, *MIXED)
    expected = tables.features(raw, format)
    for x in (tables.features(jnp.asarray(raw), format), jax.jit(lambda r: tables.features(r, format))(raw)):
        assert isinstance(x, jax.Array)
        assert x.dtype == jnp.float32
        np.testing.assert_array_equal(x, expected)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([0, 2, 3, 7]), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_rows_come_back_from_features(widths, seed):
    raw, format = random_rows(seed, 20, *widths), format_of(*widths)
    x = tables.features(raw, format)
    assert np.isfinite(x).all()
    np.testing.assert_array_equal(tables.rows(x, format), raw)
    assert tables.rows(x, format).dtype == np.float32


def test_rows_of_means_have_the_likeliest_codes():
    means = [[0.3, 1, 0.4, 1, 0.2, 0.5, 0.3], [0.1, 1, 0.6, 1, 0.5, 0.2, 0.3], [0.2, 1, 0.5, 1, 0.4, 0.2, 0.4]]
    expected = np.float32([[0.3, 0, 1], [0.1, 1, 0], [0.2, 0, 0]])  # the first of equally likely ones
    np.testing.assert_array_equal(tables.rows(np.float32(means), format_of(0, 2, 3)), expected)


def test_a_source_is_mapped_when_it_is_read(tmp_path, monkeypatch):
    raw, format = random_rows(0, 30, *MIXED), format_of(*MIXED)
    monkeypatch.setattr(datasets, "BLOCK_BYTES", 300)  # a few rows at once
    resident = tables.mapped(raw, format)
    assert isinstance(resident, np.ndarray)
    np.testing.assert_array_equal(resident, tables.features(raw, format))
    np.save(tmp_path / "raw.npy", raw)
    lazy = tables.mapped(np.load(tmp_path / "raw.npy", mmap_mode="r"), format)
    assert isinstance(lazy, datasets.Mapped)
    assert (lazy.shape, lazy.dtype) == (resident.shape, resident.dtype)
    np.testing.assert_array_equal(lazy[np.array([3, 1])], resident[[3, 1]])


# --- reading ---


def csv(tmp_path, text: str | bytes, categorical: tuple[str, ...] = (), **reading):
    path = tmp_path / "table.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return table_files.read(path, Reading(categorical, **reading))


def parquet_file(tmp_path, columns: dict, categorical: tuple[str, ...] = (), **options):
    path = tmp_path / "table.parquet"
    parquet.write_table(pa.table(columns), path, **options)
    return table_files.read(path, Reading(categorical))


def texts(name: str, *categories: str) -> Column:
    return Column(name, categories, "text")


def refused(read, *arguments, match: str, where: str = "table.") -> None:
    with pytest.raises(InputError, match=match) as error:
        read(*arguments)
    assert "\n" not in str(error.value)
    assert where in str(error.value)


PEOPLE = """age,sex,colour,children,smokes,height
31,f,red,0,true,1.75
45,m,blue,2,false,NA
,f,red,,true,1.5
22,f,NA,1,,1.25
60,m,"green, dark",0,true,
"""


def test_every_kind_of_column_of_a_csv_file(tmp_path):
    parts, levels, columns, *_ = csv(tmp_path, PEOPLE, ("children",), missing=("NA",))
    assert levels == 0
    assert columns == (
        Column("age", kind="count"),
        texts("sex", "f", "m"),
        texts("colour", "blue", "green, dark", "red"),
        texts("children", "0", "1", "2"),
        texts("smokes", "false", "true"),
        Column("height"),
    )
    expected = np.float32(
        [
            [31, 0, 2, 0, 1, 1.75],
            [45, 1, 0, 2, 0, NAN],
            [NAN, 0, 2, NAN, 1, 1.5],
            [22, 0, NAN, 1, NAN, 1.25],
            [60, 1, 1, 0, 1, NAN],
        ]
    )
    np.testing.assert_array_equal(parts["train"].x, expected)
    assert parts["train"].x.dtype == np.float32
    assert list(parts) == ["train"]


def test_a_parquet_file_is_the_same_table(tmp_path):
    columns = {
        "age": pa.array([31, 45, None, 22, 60], pa.int16()),
        "sex": pa.array(["f", "m", "f", "f", "m"]).dictionary_encode(),
        "colour": pa.array(["red", "blue", "red", None, "green, dark"], pa.large_string()),
        "children": pa.array([0, 2, NAN, 1, 0], pa.float32()),
        "smokes": [True, False, True, None, True],
        "height": pa.array([1.75, None, 1.5, 1.25, NAN]),
    }
    expected = csv(tmp_path, PEOPLE, ("children",), missing=("NA",))
    for options in ({}, {"row_group_size": 2, "use_dictionary": False}, {"row_group_size": 1, "compression": "zstd"}):
        found = parquet_file(tmp_path, columns, ("children",), **options)
        assert found.columns == expected.columns
        np.testing.assert_array_equal(found.parts["train"].x, expected.parts["train"].x)


@pytest.mark.parametrize(
    ("entries", "categorical", "categories", "codes"),
    [
        ("7 7 9 7", False, ("7", "9"), [0, 0, 1, 0]),  # two values are a bit, whatever they are
        ("0.5 -1 -1 NA", False, ("-1", "0.5"), [1, 0, 0, NAN]),
        ("10 9 9 1", True, ("1", "9", "10"), [2, 1, 1, 0]),  # by number, not by text
        ("10 9 9 NA", False, ("9", "10"), [1, 0, 0, NAN]),
        ("0.50 0.50 1.5 NA", False, ("0.50", "1.5"), [0, 0, 1, NAN]),  # as they stand in the file
        ("1.1 1.10 01 1E10 1.1", True, ("01", "1.1", "1.10", "1E10"), [1, 2, 0, 3, 1]),  # every character counts
        ("True False true True", False, ("False", "True", "true"), [1, 0, 2, 1]),
        ("02134 2134 02134", True, ("02134", "2134"), [0, 1, 0]),
        ("08:30 09:00 closed 08:30", False, ("08:30", "09:00", "closed"), [0, 1, 2, 0]),
        ("NA DE FR NA", False, ("DE", "FR", "NA"), [2, 0, 1, 2]),  # Namibia
        ("5 0 5 17", False, (), [5, 0, 5, 17]),
        ("20230101 20230102 20230103 20230103", True, ("20230101", "20230102", "20230103"), [0, 1, 2, 2]),
        ("5 5 5 5", False, (), [5, 5, 5, 5]),  # a constant stays a number
        ("1 ? 2 1", True, ("1", "2", "?"), [0, 2, 1, 0]),
        ("nan null N/A 1", False, (), [NAN, NAN, NAN, 1]),
    ],
)
def test_kinds_follow_from_the_entries(tmp_path, entries, categorical, categories, codes):
    text = "\n".join(["a", *entries.split()])
    found = csv(tmp_path, text, ("a",) if categorical else ())
    assert found.columns[0].categories == categories
    np.testing.assert_array_equal(found.parts["train"].x[:, 0], np.float32(codes))


def test_kinds_follow_from_the_whole_file_and_not_from_its_start(tmp_path, monkeypatch):
    monkeypatch.setattr(table_files, "MAX_ROW_BYTES", 20)  # what pyarrow reads at once
    numbers = "1\n2\n3\n" * 20
    assert csv(tmp_path, f"a\n{numbers}2.5\n").parts["train"].x[-1] == 2.5
    refused(csv, tmp_path, f"a\n{numbers}?\n", match=r"column 'a' .*numbers and the text '\?'")
    found = csv(tmp_path, "a\n" + '"x\ny"\nz\n' * 20)  # whatever the line breaks that stand where it stops reading
    assert found.columns == (texts("a", "x\ny", "z"),)
    assert len(found.parts["train"]) == 40
    refused(csv, tmp_path, "a\n" + "x" * 100 + "\nz\n", match="cannot be read")


def test_two_typed_numbers_are_a_bit(tmp_path):
    found = parquet_file(tmp_path, {"a": [2.5, -1.0, None, 2.5], "b": [10, 9, 9, 9], "c": [1.5, 2.5, 4, 1]})
    assert found.columns[:2] == (Column("a", ("-1", "2.5")), Column("b", ("9", "10")))
    np.testing.assert_array_equal(found.parts["train"].x[:, :2], [[1, 1], [0, 0], [NAN, 0], [1, 0]])


def test_numbers_as_texts_are_sorted_as_numbers(tmp_path):
    found = parquet_file(tmp_path, {"a": ["10", "9", "1", "9"]})
    assert found.columns == (texts("a", "1", "9", "10"),)


@pytest.mark.parametrize(
    "text", ["\ufeffa,b\n1,2\n2,3\n3,5\n", "a,b\r1,2\r2,3\r3,5\r", "\n\na,b\r\n1,2\r\n\r\n2,3\n3,5"]
)
def test_lines_may_end_in_any_way_and_a_mark_may_come_first(tmp_path, text):
    found = csv(tmp_path, text)
    assert [column.name for column in found.columns] == ["a", "b"]
    np.testing.assert_array_equal(found.parts["train"].x, [[1, 2], [2, 3], [3, 5]])


@pytest.mark.parametrize("other", [PEOPLE.replace("red", "rot"), PEOPLE.replace("colour", "color")])
def test_what_codes_and_columns_are_called_is_in_the_sha256(tmp_path, other):
    one, two = (assemble("x", csv(tmp_path, text)).digest() for text in (PEOPLE, other))
    assert one != two


def test_a_column_may_say_which_split_a_row_belongs_to(tmp_path):
    found = csv(tmp_path, "a,split\n1,train\n2,test\n3,train\n4,validation\n5,test\n")
    assert found.columns == (Column("a", kind="count"),)
    assert {part: split.x.tolist() for part, split in found.parts.items()} == {
        "train": [[1], [3]],
        "validation": [[4]],
        "test": [[2], [5]],
    }
    assert list(csv(tmp_path, "a,split\n1,train\n2,train\n3,train\n").parts) == ["train"]


@pytest.mark.parametrize("entries", [("train", "test", "train", "else"), ("train", "test", "train", ""), "1123"])
def test_a_column_called_split_may_be_any_other(tmp_path, entries):
    found = csv(tmp_path, "\n".join(["a,split", *(f"{i},{entry}" for i, entry in enumerate(entries))]))
    assert list(found.parts) == ["train"]
    assert [column.name for column in found.columns] == ["a", "split"]


BAD_CSV = {
    "empty": ("", r"table \(.*Empty CSV file.*expected UTF-8 text"),
    "blank": ("\n\n", "Empty CSV file"),
    "header only": ("a,b\n", "got no rows"),
    "header without an end": ("a,b", "cannot be read"),
    "long row": ("a,b\n1,2\n1,2,3\n", r"Row #3: Expected 2 columns, got 3"),
    "short row": ("a,b\n1,2\n1\n", r"Row #3: Expected 2 columns, got 1"),
    "open quote": ('a,b\n"1,2\n3,4\n', "a quote that is not closed in data row 1"),
    "open quote at the end": ('a,b\n1,x\n2,"y\n3,z\n4,z\n', "a quote that is not closed in data row 2"),
    "open quote up to the next": ('a,b\n\n1,"x"\n2,"y\n3,"z"\n4,"z"\n', "a quote that is not closed in data row 2"),
    "open quote in the header": ('a,"b\n1,x\n', "a quote that is not closed in the header"),
    "not UTF-8": (b"a,b\nx,1\n\xff,2\n", "column #0.*invalid UTF8.*expected UTF-8 text"),
    "name not UTF-8": (b"\xff,b\nx,1\n", "cannot be read"),
    "UTF-16": ("a,b\n1,2\n".encode("utf-16"), "cannot be read"),
    "one name twice": ("a,b,a\n1,2,3\n", "2 of the name 'a'"),
    "no name": (",a\n0,1\n1,2\n", r"no name for column 1.*index=False"),
    "blank name": ("a, \n0,1\n1,2\n", "no name for column 2"),
    "no header": ("0.5,1.5\n1,2\n", r"first row .*got 0.5,1.5, expected the columns' names"),
    "semicolons": ("a;b\n1;2\n3;4\n", "expected the columns' names, with ',' between them; .*separator=';'"),
    "tabs": ("a\tb\n1\t2\n3\t4\n", "expected the columns' names, .*separator="),
    "infinity": ("a\n1\n2\n-inf\n", r"column 'a' .*got -inf in data row 3"),
    "too large": ("a,b\n1,1\n2,1e39\n3,3\n", r"column 'b' .*got 1e\+39 in data row 2, expected numbers that float32"),
    "nothing": ("a,b\n1,\n2,NA\n", "column 'b' .*no entries"),
    "date": ("a\n2020-01-01\n2020-01-02\n", "column 'a' .*dates or times, such as '2020-01-01'.*categorical="),
    "time": ("a\n12:30\n13:30\n", "column 'a' .*dates or times, such as '12:30'"),
    "identifier": ("a\nx1\nx2\nx3\n", "column 'a' .*3 categories in 3 rows, such as 'x1'.*leave it out"),
    "one text": ("a\nx\nx\n", "column 'a' .*'x' in every row"),
    "text among numbers": ("a\n1\n?\n1\n2\n", r"column 'a' .*numbers and the text '\?'.*missing entries empty"),
    "only splits": ("split\ntrain\ntest\n", "got 0 features"),
}


@pytest.mark.parametrize("case", BAD_CSV)
def test_bad_csv_is_one_line_that_says_where(tmp_path, case):
    text, match = BAD_CSV[case]
    refused(csv, tmp_path, text, match=match)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a,b\n1,2\n", r"categorical .*got 'c', expected columns of it: a, b"),
        ("c\n1\n1\n", "column 'c' .*'1' in every row"),
        ("c\n1\n2\n3\n", "column 'c' .*3 categories in 3 rows"),
    ],
)
def test_bad_categories_are_one_line(tmp_path, text, match):
    refused(csv, tmp_path, text, ("c",), match=match)


def test_a_text_among_too_many_numbers_is_named(tmp_path):
    """What marks a missing entry is found even where the numbers around it are too many for categories."""
    numbers = "\n".join(str(i % 1500) for i in range(4000))
    refused(
        csv, tmp_path, f"a\n?\n{numbers}\n", match=r"1501 categories in 4001 rows, such as '\?'.*expected at most 1000"
    )


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ([datetime.datetime(2020, 1, 1)], "type timestamp"),
        ([datetime.timedelta(1)], "type duration"),
        ([[1.0]], "type list"),
        ([{"b": 1}], "type struct"),
        ([b"x"], "column 'a' .*bytes"),
        ([None], "no entries"),
        ([NAN], "no entries"),
        ([1.0, -np.inf], "-inf in data row 2"),
        (pa.array([], pa.float32()), "no rows"),
    ],
)
def test_columns_of_parquet_that_are_no_numbers_or_texts(tmp_path, values, match):
    refused(parquet_file, tmp_path, {"a": values}, match=match)


def test_the_index_of_pandas_is_no_column(tmp_path):
    refused(parquet_file, tmp_path, {"a": [1, 2, 3], "__index_level_0__": [5, 6, 7]}, match=r"column 2.*index=False")


def test_texts_of_parquet_must_be_utf_8(tmp_path):
    texts = pa.Array.from_buffers(pa.string(), 2, [None, pa.py_buffer(np.int32([0, 1, 2])), pa.py_buffer(b"\xff\xfe")])
    refused(parquet_file, tmp_path, {"a": texts}, match="cannot be read")


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[:-3],
        lambda b: b[: len(b) // 2],
        lambda b: b"",
        lambda b: b"PAR1",
        lambda b: b"a,b\n1,2\n" * 10,
        lambda b: b[:100] + bytes(500) + b[600:],
        lambda b: b[:-100] + bytes(80) + b[-20:],
    ],
)
def test_damaged_parquet_is_one_line(tmp_path, damage):
    path = tmp_path / "table.parquet"
    parquet.write_table(pa.table({"a": np.arange(1000.0)}), path)
    path.write_bytes(damage(path.read_bytes()))
    refused(table_files.read, path, match=r"table \(.*what cannot be read.*expected a whole Parquet file")


def test_damage_that_only_a_checksum_shows_is_noticed(tmp_path):
    path = tmp_path / "table.parquet"
    options = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
    parquet.write_table(pa.table({"a": np.arange(1000.0)}), path, **options)
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes(data)
    refused(table_files.read, path, match="cannot be read .*CRC")


def claiming(path, rows: int) -> None:
    """A file of 1,000 rows whose footer says something else."""
    parquet.write_table(pa.table({"a": np.arange(1000.0)}), path, store_schema=False)
    data = path.read_bytes()
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    assert data[start:-8].count(varint(1000)) == 4  # the file, its row group, the column, and its statistics
    footer = data[start:-8].replace(varint(1000), varint(rows))
    path.write_bytes(data[:start] + footer + len(footer).to_bytes(4, "little") + b"PAR1")


def varint(number: int) -> bytes:
    """As Thrift's compact protocol writes an integer."""
    out, number = [], 2 * number
    while number >= 128:
        out.append(number % 128 + 128)
        number //= 128
    return bytes([*out, number])


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        (2**40, "1099511627776 rows, 49152.0 GiB when expanded, expected at most 4 GiB"),
        (1_000_000, "column 'a' .*1000 entries, expected 1000000"),
        (1_001, "column 'a' .*1000 entries, expected 1001"),
    ],
)
def test_a_parquet_file_that_claims_more_rows_than_it_has(tmp_path, rows, match):
    claiming(tmp_path / "table.parquet", rows)
    refused(table_files.read, tmp_path / "table.parquet", match=match)


def test_limits_are_kept(tmp_path, monkeypatch):
    refused(csv, tmp_path, "a," * 10_000 + "a\n", match="got 10001 columns, expected at most 10000")
    refused(csv, tmp_path, "\n\n" + "," * 10**6, match="got 1000001 columns")
    monkeypatch.setattr(table_files, "MAX_COLUMNS", 2)
    refused(parquet_file, tmp_path, {"a": [1], "b": [2], "c": [3]}, match="got 3 columns, expected at most 2")
    monkeypatch.setattr(table_files, "MAX_FEATURES", 4)
    refused(csv, tmp_path, "a,b\n1,x\n2,y\n3,z\n4,z\n", match="got 5 features, expected 1 to 4")
    assert len(csv(tmp_path, "a,b\n1,2\n2,3\n3,5\n").columns) == 2  # as many columns and features as there may be
    assert len(parquet_file(tmp_path, {"a": [1, 2, 3], "b": [2, 3, 5]}).columns) == 2
    assert len(csv(tmp_path, "a,b\r1,2\r2,3\r3,5\r").columns) == 2  # however its lines end
    monkeypatch.setattr(table_files, "MAX_BYTES", 3000)
    refused(parquet_file, tmp_path, {"a": np.arange(100)}, match="got 100 rows, .* when expanded")
    for end in ("\n", "\r", "\r\n"):
        refused(csv, tmp_path, end.join(["a", *map(str, range(100))]), match="got 101 rows, .* when expanded")
    monkeypatch.setattr(table_text, "MAX_CSV_BYTES", 10)
    refused(csv, tmp_path, "a,b\n1,2\n3,4\n", match="MiB of CSV.*write it as Parquet")


def test_without_pyarrow_it_says_what_to_type(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    refused(
        csv, tmp_path, PEOPLE, match=r'pyarrow: got not installed.*in the checkout.*: pip install -e "\.\[tables\]"'
    )


# --- describing and writing ---


def test_description_of_each_column(monkeypatch):
    raw = np.float32([[1.5, 0, 2, NAN], [NAN, 1, 0, NAN], [-0.5, NAN, 2, NAN], [2, 1, NAN, NAN]])
    for size in (2**25, 16):  # at once, and row by row
        monkeypatch.setattr(datasets, "BLOCK_BYTES", size)
        assert tables.describe(raw, columns_of(0, 2, 3, 0)) == [
            {"name": "c0", "kind": "number", "missing": 1, "min": -0.5, "mean": 1.0, "max": 2.0},
            {"name": "c1", "kind": "binary", "missing": 1, "counts": {"text 0": 1, "text 1": 2}},
            {"name": "c2", "kind": "categorical", "missing": 1, "counts": {"text 0": 1, "text 1": 0, "text 2": 2}},
            {"name": "c3", "kind": "number", "missing": 4, "min": None, "mean": None, "max": None},
        ]


def test_means_of_columns_are_summed_in_float64():
    raw = np.float32([[2**24], [1], [1], [1], [1]])
    [found] = tables.describe(raw, columns_of(0))
    assert found["mean"] == (2**24 + 4) / 5


def test_numbers_are_written_with_the_digits_they_need(tmp_path):
    path = tmp_path / "out.csv"
    rows = np.float32([[0.1, 1], [3, NAN], [NAN, 0], [1e20, 1], [-1.5e-8, 0]])
    tables.write_csv(path, rows, (Column("x, y"), Column("kind", ('say "no"', "a\rb"))))
    expected = '"x, y",kind\r\n0.1,"a\rb"\r\n3,\r\n,"say ""no"""\r\n1e+20,"a\rb"\r\n-1.5e-08,"say ""no"""\r\n'
    assert path.read_bytes().decode() == expected


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.floats(width=32, allow_infinity=False), min_size=8, max_size=8),
    st.lists(st.text(st.characters(codec="utf-8"), max_size=5), min_size=3, max_size=3, unique=True),
)
def test_what_is_written_can_be_read_again(tmp_path_factory, numbers, texts):
    """Any float32 and any three texts that are neither numbers nor marks of missing entries."""
    path = tmp_path_factory.mktemp("tables") / "table.csv"
    texts = sorted(f"t{text}t" for text in texts)
    codes = [0, 1, 2, NAN, 0, 1, 2, 0]
    rows = np.stack([np.float32([*numbers[:6], 1, 2]), np.float32(codes)], axis=1)
    columns = (Column("number"), Column("text", tuple(texts), "text"))
    tables.write_csv(path, rows, columns)
    parts, _, found, *_ = table_files.read(path)
    if found[0].categories:  # two distinct numbers are a bit
        decoded = [NAN if np.isnan(code) else float(found[0].categories[int(code)]) for code in parts["train"].x[:, 0]]
        parts["train"].x[:, 0] = decoded
    assert found[1] == columns[1]
    np.testing.assert_array_equal(parts["train"].x, rows)


def test_one_column_keeps_its_missing_entries(tmp_path):
    rows = np.float32([[1], [NAN], [2], [3], [NAN]])
    tables.write_csv(tmp_path / "table.csv", rows, columns_of(0))
    np.testing.assert_array_equal(table_files.read(tmp_path / "table.csv").parts["train"].x, rows)


# --- from a file to a model ---


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """From a CSV file to trained parameters: b is a plus a little noise, a third of it missing; c says where a is."""
    generator = np.random.default_rng(0)
    a = generator.normal(size=1000)
    b = 10 * (a + 0.1 * generator.normal(size=1000)) + 3
    shown = np.where(generator.random(1000) < 1 / 3, "", np.char.mod("%.5f", b))
    sign = np.where(a < -0.4, "low", np.where(a > 0.4, "high", "middle"))
    path = tmp_path_factory.mktemp("learned") / "table.csv"
    path.write_text("\n".join(["a,b,c", *map(",".join, zip(np.char.mod("%.5f", a), shown, sign, strict=True))]))
    data = prepare(Standardize(), assemble("table", table_files.read(path)))
    model = VAE(
        2,
        architectures.MLP((32,)),
        likelihoods.Tabular(tables.widths(data.format.columns)),
        event_shape=data.event_shape,
    )
    tx = AdamW(3e-3).build(steps=1)
    step = training.make_train_step(model, ELBO(), tx, prepare=data.batch)
    state, losses = training.init_state(model, tx, keys.root(0)), []
    for _ in range(40):
        state, metrics = training.train_epoch(step, state, data.train.x, keys.root(0), batch_size=50)
        losses.append(metrics)
    return data, model, state.params, losses


def test_the_loss_of_a_table_with_missing_entries_falls(learned):
    data, model, _, losses = learned
    assert model.likelihood.columns == (0, 0, 3)
    assert np.isnan(data.train.x).mean() > 0.05
    assert all(np.isfinite(values).all() for metrics in losses for values in metrics.values())
    first, last = (float(np.mean(metrics["negative_elbo"])) for metrics in (losses[0], losses[-1]))
    assert last < first - 1


def test_what_is_missing_is_better_told_from_the_rest_than_by_the_mean(learned):
    data, model, params, _ = learned
    raw = data.preparation.inverse(np.asarray(data.validation.x), data.format)
    raw = raw[~np.isnan(raw[:, 1])]
    hidden = raw.copy()
    hidden[:, 1] = NAN

    @jax.jit
    def decoded(x):
        return model.decode(params, model.encode(params, x).mean()).mean()

    imputed = data.preparation.inverse(np.asarray(decoded(data.preparation.units(hidden, data.format))), data.format)
    assert np.isfinite(imputed).all()
    error, deviation = np.sqrt(np.mean((imputed[:, 1] - raw[:, 1]) ** 2)), raw[:, 1].std()
    assert error < 0.5 * deviation
    assert (imputed[:, 2] == raw[:, 2]).mean() > 0.8


def test_samples_of_a_model_are_rows_of_the_table(learned, tmp_path):
    data, model, params, _ = learned
    z = jax.random.normal(jax.random.key(0), (200, 2))
    x = np.asarray(jax.jit(lambda z, key: model.decode(params, z).sample(key))(z, jax.random.key(1)))
    rows = data.preparation.inverse(x, data.format)
    assert np.isfinite(rows).all()
    tables.write_csv(tmp_path / "table.csv", rows, data.format.columns)
    again = table_files.read(tmp_path / "table.csv")
    assert again.columns == data.format.columns
    np.testing.assert_array_equal(again.parts["train"].x, rows)
