"""CSV and Parquet files as raw rows: see `tables.py`. With `table_columns.py` the only file that imports pyarrow."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from aevae_jax import durable
from aevae_jax.data import table_columns, table_entries, table_text
from aevae_jax.data.datasets import PARTS, Column, Split
from aevae_jax.data.splits import Found
from aevae_jax.data.table_columns import looks_like_number
from aevae_jax.data.table_entries import is_text
from aevae_jax.data.tables import AS_USUAL, Reading, feature_count, spelled
from aevae_jax.types import InputError, not_installed

MAX_ROW_BYTES = 2**24
"""The longest row of a CSV file, 16 MiB."""

MAX_BYTES = 2**32
"""The most memory that reading a table may take, 4 GiB."""

MAX_RATIO = 100
"""A table that takes more than `SMALL_BYTES` may take at most this many times the size of its Parquet file."""

SMALL_BYTES = 2**28
"""256 MiB, up to which any ratio will do."""

ENTRY_BYTES = 40
"""What is held of each entry of the column that is being read."""

MAX_COLUMNS = 10_000

MAX_FEATURES = 100_000
"""Features of one row at most: two for each number, one for each of three or more categories."""


def read(path: Path, reading: Reading = AS_USUAL) -> Found:
    """Return a table from a .csv or .parquet file, by pyarrow.

    A CSV file is UTF-8 text with a header and equally many fields in every row, and empty lines are skipped. Blanks
    around its entries do not count. An entry is missing where it is empty or one of `reading.missing`, and among
    numbers where it is one of `tables.WORDS`; in a Parquet file where it is null, NaN or one of
    `reading.missing`. What kind a column is of follows from all its entries, unless `reading` says it:

        texts and booleans                        categories, sorted as texts, or as numbers if they all are
        numbers named in `categorical`            categories; those of a CSV file keep every character
        numbers with exactly two distinct values  a binary column
        whole numbers from 0                      counts
        other numbers, never negative, with a     positive numbers
          mean below 4 standard deviations
        all other numbers                         numbers

    Two categories make a binary column. Numbers that are all equal stay numbers. Rows are float32, or float64 where
    some column's numbers are so much alike that float32 would not tell them apart. A column of texts called `split`,
    all of them train, validation or test, is no column of the data, but says which split a row belongs to; nor is the
    column of labels.

    Args:
      path: of the file.
      reading: how it is written, and what its columns are.

    Raises:
      InputError: no pyarrow; not a regular file; a damaged file (the checksums of a Parquet file are looked at where it
        has any), or one that would take more than the limits above; a quote that is not closed; names that are empty,
        repeated, or none; a column of dates or another type, without entries, with infinity, with texts among numbers,
        with texts that look like numbers, dates or times (unless it is named in `categorical`), with one category, or
        with as many categories as rows.
    """
    where = str(path)
    with _opened(path, reading) as table:
        _check_columns(table, reading, where)
        parts = _own_splits(table)
        names = [name for name in table.names if name != reading.label and (parts is None or name != "split")]
        x, columns = np.zeros((table.rows, len(names)), np.float32), []
        for i, name in enumerate(names):
            entries, column = table_columns.infer(
                table.column(name), name, reading, table.from_csv, _about(name, where)
            )
            column = replace(column, double=not column.categories and _needs_double(entries))
            x = x.astype(np.float64) if column.double and x.dtype == np.float32 else x
            x[:, i] = _rounded(entries, column)
            columns.append(column)
        labels = None
        if reading.label:
            values, make_error = table.column(reading.label), _about(reading.label, where)
            labels = table_columns.labels(values, reading, table.from_csv, make_error)[0]
    if not 0 < feature_count(tuple(columns)) <= MAX_FEATURES:
        raise InputError(
            "table", got=f"{feature_count(tuple(columns))} features", where=where, expected=f"1 to {MAX_FEATURES}"
        )
    whole = Split(x, labels)
    splits = {"train": whole} if parts is None else {part: whole[of] for part, of in parts.items() if of.any()}
    return Found(splits, 0, tuple(columns))


def read_rows(path: Path, columns: tuple[Column, ...], reading: Reading = AS_USUAL) -> np.ndarray:
    """Return the raw rows `[N, D]`, float64, of a file with the columns of a table that was read before, in any order.

    Entries are read as those of the training data were, so that one row has one code. A column of labels and one of
    splits may be there, too, and are not looked at.

    Raises:
      InputError: as `read`; a column that is missing or unknown, and what `table_columns.read_known` refuses.
    """
    with _opened(path, reading) as table:
        _check_known(table, columns, reading, str(path))
        x = np.empty((table.rows, len(columns)))
        for i, column in enumerate(columns):
            make_error = _about(column.name, str(path))
            entries = table_columns.read_known(table.column(column.name), column, reading, table.from_csv, make_error)
            x[:, i] = _rounded(entries, column)
    return x


def read_texts(path: Path, columns: tuple[Column, ...], reading: Reading = AS_USUAL) -> list[list[str]]:
    """Return the entries of a file with these columns as they stand there, `[D][N]`; of Parquet as CSV would have them.

    Raises:
      InputError: as `read_rows`.
    """
    with _opened(path, reading) as table:
        _check_known(table, columns, reading, str(path))
        return [[_text(entry) for entry in table.column(column.name).to_pylist()] for column in columns]


def _text(entry: Any) -> str:
    if isinstance(entry, str):
        return entry
    return "" if entry is None else str(entry).lower() if isinstance(entry, bool) else spelled(entry)


def _about(name: str, where: str) -> table_entries.MakeError:
    return partial(InputError, f"column {name!r}", where=where)


def _rounded(x: np.ndarray, column: Column) -> np.ndarray:
    """Return the same number of one entry, whatever other columns there are."""
    return x if column.double else x.astype("float32")


def _needs_double(x: np.ndarray) -> bool:
    """Return whether float32 spends its digits on what numbers `[N]` have in common, or is too small for them."""
    x = x[~np.isnan(x)]
    rounded = x.astype(np.float32)
    if (rounded == x).all():
        return False
    apart = np.abs(x - np.quantile(x, 0.5, method="lower"))
    common = np.median(np.abs(x)) / np.median(apart[apart > 0])
    distinct, kept = len(np.unique(x)), len(np.unique(rounded))
    return bool(common > 1024 or (common > 16 and kept < distinct) or 2 * kept < distinct)


class _Table(NamedTuple):
    names: list[str]
    types: list[Any]
    rows: int
    column: Callable[[str], Any]
    """A column by its name, as a `pyarrow.ChunkedArray`."""
    from_csv: bool
    """Columns are the texts of a CSV file, which may be numbers."""


@contextmanager
def _opened(path: Path, reading: Reading) -> Iterator[_Table]:
    """Open the table in a file. What goes wrong until it is closed becomes one line."""
    try:
        import pyarrow
        from pyarrow import parquet, types
    except ImportError:
        raise not_installed("pyarrow", "tables", purpose=f"to read {path.name}") from None
    is_csv = path.suffix.lower() == ".csv"
    try:
        if is_csv:
            yield _csv(path, reading)
            return
        with durable.open_regular(path, limit=MAX_BYTES, what="table") as opened:
            schema = parquet.ParquetFile(opened).schema_arrow
            texts = [field.name for field in schema if is_text(field.type) and not types.is_boolean(field.type)]
            # texts stay dictionaries, so that repeated ones take no memory
            with parquet.ParquetFile(opened, read_dictionary=texts, page_checksum_verification=True) as file:
                _check_size(file.metadata, len(schema), opened, str(path))
                yield _Table(
                    schema.names, schema.types, file.metadata.num_rows, partial(_parquet_column, file, str(path)), False
                )
    except InputError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError) as error:  # ValueError: names or texts that are not UTF-8
        expected = "UTF-8 text, a header, and equally many fields in every row" if is_csv else "a whole Parquet file"
        raise InputError("table", got=f"what cannot be read ({error})", expected=expected, where=str(path)) from error


def _parquet_column(file: Any, where: str, name: str) -> Any:
    values = file.read(columns=[name]).column(name)
    if len(values) != file.metadata.num_rows:
        raise _about(name, where)(got=f"{len(values)} entries", expected=f"{file.metadata.num_rows}, as the file says")
    return values


def _csv(path: Path, reading: Reading) -> _Table:
    """Return a CSV file with its entries as texts."""
    from pyarrow import csv

    where, text = str(path), table_text.contents(path, reading.separator)
    columns = table_text.fields(text, reading.separator)
    if columns > MAX_COLUMNS:  # before a name is made of each
        raise _too_many_columns(columns, where)
    rows = table_text.lines(text)
    _check_memory(rows, rows * (5 * columns + ENTRY_BYTES + 8 * columns) + len(text), where, "write it as Parquet")
    options = (
        csv.ReadOptions(use_threads=False, block_size=MAX_ROW_BYTES),  # one thread, so that errors name the row
        csv.ParseOptions(newlines_in_values=True, delimiter=reading.separator),
    )
    with csv.open_csv(io.BytesIO(text), *options) as start:
        names = start.schema.names
    table = csv.read_csv(io.BytesIO(text), *options, csv.ConvertOptions(column_types=dict.fromkeys(names, "string")))
    headless = all(map(looks_like_number, names)) and names != [str(i) for i in range(len(names))]
    other = next((mark for mark in ";\t|" if len(names) == 1 and mark in names[0]), "")
    if headless or other:
        raise InputError(
            "first row",
            got=reading.separator.join(names),
            where=where,
            expected=f"the columns' names, with {reading.separator!r} between them",
            hint=f"type in Data: separator={other!r}" if other else "",
        )
    table = table.rename_columns([name.strip(table_entries.BLANKS) for name in names])
    return _Table(table.column_names, table.schema.types, table.num_rows, table.column, True)


def _check_size(metadata: Any, columns: int, file: BinaryIO, where: str) -> None:
    """Refuse a Parquet file that is too large by what it says of itself: before anything is expanded."""
    claimed = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    need, size = claimed + metadata.num_rows * (8 * columns + ENTRY_BYTES), os.fstat(file.fileno()).st_size
    _check_memory(metadata.num_rows, need, where, "write numbers alone as .npy")
    if need > max(SMALL_BYTES, MAX_RATIO * size):
        raise InputError(
            "table",
            got=f"{metadata.num_rows} rows, {need / 2**20:.0f} MiB from {size / 2**20:.2g} MiB",
            where=where,
            expected=f"at most {MAX_RATIO} times the size of the file",
        )


def _check_memory(rows: int, need: int, where: str, hint: str) -> None:
    if need > MAX_BYTES:
        raise InputError(
            "table",
            got=f"{rows} rows, {need / 2**30:.1f} GiB when expanded",
            where=where,
            expected=f"at most {MAX_BYTES / 2**30:g} GiB",
            hint=hint,
        )


def _check_columns(table: _Table, reading: Reading, where: str) -> None:
    """Refuse columns by their number, names and types; before any of them is read."""
    names = table.names
    if not (table.rows and names):
        raise InputError("table", got="no rows", expected="at least 1", where=where)
    if len(names) > MAX_COLUMNS:
        raise _too_many_columns(len(names), where)
    for i, (name, type) in enumerate(zip(names, table.types, strict=True)):
        if not name.strip() or name.startswith("__index_level_"):  # how pandas writes an index
            raise InputError(
                "column",
                got=f"no name for column {i + 1}",
                expected="a name for each",
                where=where,
                hint="with pandas, write index=False",
            )
        if not is_text(type) and not _is_number(type):
            got = "bytes that are not UTF-8 text" if str(type) == "binary" else f"type {type}"
            raise InputError(
                f"column {name!r}",
                got=got,
                expected="numbers, texts or booleans",
                where=where,
                hint="convert it, or leave it out",
            )
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise InputError("column", got=f"{times} of the name {name!r}", expected="one of each name", where=where)
    for name, option in reading.named.items():
        if name not in names:
            raise InputError(option, got=repr(name), expected=f"columns of it: {', '.join(names[:50])}", where=where)


def _check_known(table: _Table, columns: tuple[Column, ...], reading: Reading, where: str) -> None:
    """Refuse new rows that lack columns of the training data, or have others but labels and splits."""
    _check_columns(table, AS_USUAL, where)
    wanted = [column.name for column in columns]
    for name in wanted:
        if name not in table.names:
            raise InputError("table", got=f"no column {name!r}", expected=", ".join(wanted), where=where)
    for name in table.names:
        if name not in (*wanted, reading.label) and not (name == "split" and _own_splits(table)):
            raise InputError("table", got=f"the column {name!r}", expected=", ".join(wanted), where=where)


def _too_many_columns(count: int, where: str) -> InputError:
    return InputError("table", got=f"{count} columns", expected=f"at most {MAX_COLUMNS}", where=where)


def _is_number(type: Any) -> bool:
    """Return whether a pyarrow type becomes numbers; null is that of a CSV column without entries."""
    from pyarrow import types

    return any(kind(type) for kind in (types.is_integer, types.is_floating, types.is_decimal, types.is_null))


def _own_splits(table: _Table) -> dict[str, np.ndarray] | None:
    """Return which rows belong to each split, `[N]`, if a column says so."""
    from pyarrow import compute

    if "split" not in table.names or not is_text(table.types[table.names.index("split")]):
        return None
    values = table.column("split").cast("string")
    unique = values.unique()
    if len(unique) > len(PARTS) or not set(unique.to_pylist()) <= set(PARTS):
        return None
    return {part: compute.equal(values, part).to_numpy() for part in PARTS}
