"""CSV and Parquet files as raw rows: see `tables.py`. The only file that imports pyarrow."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from aevae_jax.data.datasets import PARTS, Column, Found, Split
from aevae_jax.data.tables import feature_count, spelled
from aevae_jax.types import InputError

if TYPE_CHECKING:
    import numpy as np

MISSING = ("", "NA", "N/A", "NaN", "nan", "NULL", "null")
"""Texts that stand for a missing entry, with or without quotes."""

MAX_CSV_BYTES = 2**29
"""The largest CSV file, 512 MiB; the worst, numbers of one digit, needs 20 times its size in memory."""

MAX_ROW_BYTES = 2**24
"""The longest row of a CSV file, 16 MiB."""

MAX_BYTES = 2**32
"""The largest Parquet file when expanded, 4 GiB; it is read column by column."""

MAX_COLUMNS = 10_000
MAX_CATEGORIES = 1_000
"""Of one column."""

MAX_FEATURES = 100_000
"""Of one row: two for each number, one for each of three or more categories."""


def read(path: Path, categorical: tuple[str, ...] = ()) -> Found:
    """A table from a .csv or .parquet file, by pyarrow.

    A CSV file is UTF-8 text with commas, a header, and equally many fields in every row; empty lines are skipped. An
    entry is missing where it is null, NaN, or one of `MISSING`. What kind a column is of follows from all its entries:

        texts and booleans                        categories, sorted as texts, or as numbers if they all are
        numbers named in `categorical`            categories, sorted by number; they must be whole
        numbers with exactly two distinct values  a binary column
        all other numbers                         numbers, rounded to float32

    Two categories make a binary column. A column of numbers that are all equal stays one. A column of texts called
    `split`, all of them train, validation or test, is no column of the data, but says which split a row belongs to.

    Args:
      path: of the file.
      categorical: names of columns whose numbers are codes, not quantities.

    Raises:
      InputError: no pyarrow; a damaged file (the checksums of a Parquet file are looked at where it has any), or one
        larger than `MAX_CSV_BYTES`, `MAX_ROW_BYTES`, `MAX_BYTES`, `MAX_COLUMNS`, `MAX_CATEGORIES` or `MAX_FEATURES`
        allow; names that are empty, repeated, or none; a column of dates or another type, without entries, with
        infinity, with texts among numbers (unless it is named in `categorical`), with one category, or with as many
        categories as rows.
    """
    import numpy as np

    where = str(path)
    with _opened(path) as table:
        _check_columns(table, categorical, where)
        parts = _own_splits(table)
        names = [name for name in table.names if parts is None or name != "split"]
        x, columns = np.empty((table.rows, len(names)), np.float32), []
        for i, name in enumerate(names):
            values, refuse = table.column(name), partial(InputError, f"column {name!r}", where=where)
            if len(values) != table.rows:
                raise refuse(got=f"{len(values)} entries", expected=f"{table.rows}, as the file says")
            convert = _categories if _is_text(values.type) else _numbers
            x[:, i], categories = convert(values, name in categorical, refuse)
            columns.append(Column(name, categories))
    if not 0 < feature_count(tuple(columns)) <= MAX_FEATURES:
        raise InputError("table", got=f"{feature_count(tuple(columns))} features", where=where,
                         expected=f"1 to {MAX_FEATURES}")  # fmt: skip
    splits = {"train": Split(x)} if parts is None else {part: Split(x[of]) for part, of in parts.items() if of.any()}
    return Found(splits, 0, tuple(columns))


def read_rows(path: Path, columns: tuple[Column, ...]) -> np.ndarray:
    """Raw rows `[N, D]` of a file with the columns of a table that was read before, in any order.

    Raises:
      InputError: as `read`; a column that is missing or unknown, a text among numbers, a category that is none.
    """
    import numpy as np

    where = str(path)
    with _opened(path) as table:
        _check_columns(table, (), where)
        wanted = [column.name for column in columns]
        for name in table.names:
            if name not in wanted:
                raise InputError("table", got=f"the column {name!r}", expected=", ".join(wanted), where=where)
        x = np.empty((table.rows, len(columns)), np.float32)
        for i, column in enumerate(columns):
            if column.name not in table.names:
                raise InputError("table", got=f"no column {column.name!r}", expected=", ".join(wanted), where=where)
            refuse = partial(InputError, f"column {column.name!r}", where=where)
            x[:, i] = [_code(value, column, refuse) for value in table.column(column.name).to_pylist()]
    return x


def _code(value: Any, column: Column, refuse: Refuse) -> float:
    """One entry as in `read`: its number or its category's code, NaN where it is missing."""
    if value is None or str(value) in MISSING:
        return math.nan
    if column.categories:
        text = str(value).lower() if isinstance(value, bool) else spelled(value)
        if text not in column.categories:
            raise refuse(got=repr(text), expected=" or ".join(column.categories[:20]))
        return column.categories.index(text)
    if isinstance(value, str) or not math.isfinite(value):
        raise refuse(got=repr(value), expected="finite numbers")
    return float(value)


class _Table(NamedTuple):
    names: list[str]
    types: list[Any]
    rows: int
    column: Callable[[str], Any]
    """A column by its name, as a `pyarrow.ChunkedArray`."""


@contextmanager
def _opened(path: Path) -> Iterator[_Table]:
    """The table in a file. What goes wrong until it is closed becomes one line."""
    try:
        import pyarrow
        from pyarrow import parquet, types
    except ImportError:
        raise InputError("pyarrow", got="not installed", expected=f"installed, to read {path.name}",
                         hint="type: pip install 'aevae-jax[tables]'") from None  # fmt: skip
    is_csv = path.suffix.lower() == ".csv"
    try:
        if is_csv:
            yield _csv(path)
            return
        schema = parquet.read_schema(path)
        texts = [field.name for field in schema if _is_text(field.type) and not types.is_boolean(field.type)]
        # texts stay dictionaries, so that repeated ones take no memory
        with parquet.ParquetFile(path, read_dictionary=texts, page_checksum_verification=True) as file:
            _check_size(file.metadata, len(schema), str(path))
            yield _Table(schema.names, schema.types, file.metadata.num_rows,
                         lambda name: file.read(columns=[name]).column(name))  # fmt: skip
    except InputError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError) as error:  # ValueError: names or texts that are not UTF-8
        expected = "UTF-8 text, a header, and equally many fields in every row" if is_csv else "a whole Parquet file"
        raise InputError("table", got=f"what cannot be read ({error})", expected=expected, where=str(path)) from error


def _csv(path: Path) -> _Table:
    from pyarrow import csv as reader

    size = path.stat().st_size
    if size > MAX_CSV_BYTES:
        raise InputError("table", got=f"{size / 2**20:.0f} MiB of CSV", where=str(path),
                         expected=f"at most {MAX_CSV_BYTES / 2**20:g} MiB", hint="write it as Parquet")  # fmt: skip
    with path.open("rb") as file:
        start = file.read(MAX_ROW_BYTES).lstrip(b"\r\n").splitlines()[:1]
    if start and start[0].count(b",") >= MAX_COLUMNS:  # before a name is made of each
        raise _too_many_columns(start[0].count(b",") + 1, str(path))
    table = reader.read_csv(
        path,
        reader.ReadOptions(use_threads=False, block_size=MAX_ROW_BYTES),  # one thread, so that errors name the row
        reader.ParseOptions(newlines_in_values=True),
        reader.ConvertOptions(null_values=list(MISSING)),
    )
    names = table.column_names
    headless = all(map(_looks_like_number, names)) and names != [str(i) for i in range(len(names))]
    if headless or (len(names) == 1 and (";" in names[0] or "\t" in names[0])):
        raise InputError("first row", got=",".join(names), expected="the columns' names, with commas between them",
                         where=str(path))  # fmt: skip
    return _Table(names, table.schema.types, table.num_rows, table.column)


def _check_size(metadata: Any, columns: int, where: str) -> None:
    """Of a Parquet file, by what it says of itself."""
    claimed = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    size = max(claimed, 4 * columns * metadata.num_rows)
    if size > MAX_BYTES:
        raise InputError("table", got=f"{metadata.num_rows} rows, {size / 2**30:.1f} GiB when expanded", where=where,
                         expected=f"at most {MAX_BYTES / 2**30:g} GiB", hint="write numbers alone as .npy")  # fmt: skip


def _check_columns(table: _Table, categorical: tuple[str, ...], where: str) -> None:
    """Their number, names and types; before any of them is read."""
    names = table.names
    if not (table.rows and names):
        raise InputError("table", got="no rows", expected="at least 1", where=where)
    if len(names) > MAX_COLUMNS:
        raise _too_many_columns(len(names), where)
    for i, (name, type) in enumerate(zip(names, table.types, strict=True)):
        if not name.strip() or name.startswith("__index_level_"):  # how pandas writes an index
            raise InputError("column", got=f"no name for column {i + 1}", expected="a name for each", where=where,
                             hint="with pandas, write index=False")  # fmt: skip
        if not _is_text(type) and not _is_number(type):
            got = "bytes that are not UTF-8 text" if str(type) == "binary" else f"type {type}"
            raise InputError(f"column {name!r}", got=got, expected="numbers, texts or booleans", where=where,
                             hint="convert it, or leave it out")  # fmt: skip
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise InputError("column", got=f"{times} of the name {name!r}", expected="one of each name", where=where)
    for name in categorical:
        if name not in names:
            raise InputError("categorical", got=repr(name), expected=f"columns of it: {', '.join(names[:50])}",
                             where=where)  # fmt: skip


def _too_many_columns(count: int, where: str) -> InputError:
    return InputError("table", got=f"{count} columns", expected=f"at most {MAX_COLUMNS}", where=where)


def _is_text(type: Any) -> bool:
    """Whether a pyarrow type becomes categories."""
    from pyarrow import types

    kinds = (types.is_string, types.is_large_string, types.is_string_view, types.is_boolean, types.is_dictionary)
    return any(kind(type) for kind in kinds)


def _is_number(type: Any) -> bool:
    """Whether a pyarrow type becomes numbers; null is that of a CSV column without entries."""
    from pyarrow import types

    return any(kind(type) for kind in (types.is_integer, types.is_floating, types.is_decimal, types.is_null))


def _own_splits(table: _Table) -> dict[str, np.ndarray] | None:
    """Which rows belong to each split, `[N]`, if a column says so."""
    from pyarrow import compute

    if "split" not in table.names or not _is_text(table.types[table.names.index("split")]):
        return None
    values = table.column("split").cast("string")
    unique = values.unique()
    if len(unique) > len(PARTS) or not set(unique.to_pylist()) <= set(PARTS):
        return None
    return {part: compute.equal(values, part).to_numpy() for part in PARTS}


Refuse: TypeAlias = Callable[..., InputError]
"""An `InputError` about a column, still to be told what is wrong with it."""


def _numbers(values: Any, categorical: bool, refuse: Refuse) -> tuple[np.ndarray, tuple[str, ...]]:
    """A `pyarrow.ChunkedArray` of numbers as numbers or codes `[N]`, NaN where they are missing, and the categories."""
    import numpy as np

    x = values.cast("float64", safe=False).to_numpy()
    with np.errstate(over="ignore"):
        infinite = np.isinf(x.astype(np.float32))
    if infinite.any():
        row = int(infinite.argmax())
        raise refuse(got=f"{x[row]:g} in data row {row + 1}", expected="numbers that float32 can hold")
    present = x[~np.isnan(x)]
    if not present.size:
        raise refuse(got="no entries", expected="at least 1", hint="leave it out")
    if categorical:
        distinct = np.unique(present)
        if (distinct != np.rint(distinct)).any():
            raise refuse(got=f"{distinct[distinct != np.rint(distinct)][0]:g}",
                         expected="whole numbers, as it is categorical")  # fmt: skip
        _check_categories(len(distinct), present.size, spelled(distinct[0]), refuse)
    else:
        distinct = np.unique([present.min(), present.max()])
        if len(distinct) == 1 or not ((present == distinct[0]) | (present == distinct[1])).all():
            return x, ()
    return np.where(np.isnan(x), np.nan, np.searchsorted(distinct, x)), tuple(map(spelled, distinct))


def _categories(values: Any, categorical: bool, refuse: Refuse) -> tuple[np.ndarray, tuple[str, ...]]:
    """A `pyarrow.ChunkedArray` of texts as codes `[N]`, NaN where they are missing, and the categories."""
    import numpy as np
    import pyarrow
    from pyarrow import compute, types

    encoded = values if types.is_dictionary(values.type) else values.cast("large_string").dictionary_encode()
    encoded = encoded.unify_dictionaries()
    texts = encoded.chunk(0).dictionary.cast("large_string")
    index = np.concatenate([chunk.indices.cast("int64").fill_null(-1).to_numpy() for chunk in encoded.chunks])
    counts = np.bincount(index + 1, minlength=len(texts) + 1)[1:]
    missing = compute.is_in(texts, pyarrow.array([None, *MISSING], texts.type)).to_numpy(zero_copy_only=False)
    used = np.flatnonzero((counts > 0) & ~missing)
    if not used.size:
        raise refuse(got="no entries", expected="at least 1", hint="leave it out")
    some = texts.take(used[:MAX_CATEGORIES]).to_pylist()
    odd = next((text for text in some if not _looks_like_number(text)), some[0])
    _check_categories(used.size, counts[used].sum(), odd, refuse)
    if not categorical and 0 < sum(map(_looks_like_number, some)) < len(some):
        raise refuse(got=f"numbers and the text {odd!r}", expected="one or the other",
                     hint="leave missing entries empty, or name it in `categorical`")  # fmt: skip
    categories = sorted(set(some))
    if all(map(_looks_like_number, some)):
        categories.sort(key=float)
    code = np.full(len(texts) + 1, np.nan)  # the last one is that of index -1
    code[used] = [categories.index(text) for text in some]
    return code[index], tuple(categories)


def _check_categories(count: int, present: int, example: str, refuse: Refuse) -> None:
    if count == 1:
        raise refuse(got=f"{example!r} in every row", expected="at least 2 categories", hint="leave it out")
    if count > MAX_CATEGORIES or 2 < count == present:
        raise refuse(got=f"{count} categories in {present} rows, such as {example!r}",
                     expected=f"at most {MAX_CATEGORIES}, and some of them twice",
                     hint="leave it out, or, if it holds numbers, leave missing entries empty")  # fmt: skip


def _looks_like_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
