"""Subjects: tables, as CSV and as Parquet."""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from faults import names
from faults.formats import damaged, draw, forged, payload
from faults.headers import sparse
from faults.mutate import ESCAPES
from faults.trials import Subject

WARM = ("numpy", "pyarrow.csv", "pyarrow.parquet", "aevae_jax.data.table_files")
"""What a worker imports before its first trial."""

ROWS = 40
MISSING = ("", "NA", "N/A", "NaN", "nan", "NULL", "null")


def subjects() -> list[Subject]:
    """Return files that hold tables."""
    return [
        _csv(),
        *(_parquet(f"{codec}.parquet", codec, sums=sums) for codec, sums in CODECS),
        _new_rows(),
        names.subject(),
    ]


CODECS = (("none", False), ("snappy", False), ("zstd", True))
"""Compressions, and whether the file has checksums of its pages."""


def columns() -> dict[str, list[Any]]:
    """Return a number, a code, a text, a bit, and holes in them."""
    dice = draw(11)
    income = [round(float(x), 3) for x in dice.normal(30, 9, ROWS)]
    age = [int(x) for x in dice.integers(18, 90, ROWS)]
    town = [("Oslo", "Paris", "Rome", "New York")[n] for n in dice.integers(0, 4, ROWS)]
    owns = [int(x) for x in dice.integers(0, 2, ROWS)]
    return {"income": [*income[:-1], None], "age": age, "town": [None, *town[1:]], "owns": owns}


def read_table(name: str, **options: Any) -> Callable[[Path], Any]:
    """Return all entries as texts, by column, as the loader understands them."""

    def read(folder: Path) -> Any:
        from aevae_jax.data import loading

        value = loading.Data(f"./{name}", **options)
        found = loading.reader_of(Path(value.name))(Path(value.name), value)
        dataset = value.load()
        return {"values": _entries(found.parts["train"].x, dataset.columns), "sha256": dataset.digest()}

    return read


def _entries(rows: Any, columns: Any) -> dict[str, list[str]]:
    """Return the texts of all entries, by column."""
    entries, x = {}, rows[:]
    for n, column in enumerate(columns):
        texts = [None if math.isnan(v) else column.categories[int(v)] if column.categories else v for v in x[:, n]]
        entries[column.name] = [plain(text) for text in texts]
    return entries


def plain(entry: Any) -> str:
    """Return one way to write an entry, whether it is taken as a text or as a number."""
    import numpy as np

    if (
        entry is None
        or (isinstance(entry, float) and math.isnan(entry))
        or (isinstance(entry, str) and entry.strip() in MISSING)
    ):
        return ""
    try:
        with np.errstate(over="ignore"):
            return repr(float(np.float32(float(entry))))
    except (TypeError, ValueError):
        return str(entry).strip()


# ---------------------------------------------------------------------------------------------------------------- CSV


def write_csv(path: Path, count: int = ROWS) -> None:
    """Write the first rows of the table."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns())
        writer.writerows(list(zip(*columns().values(), strict=True))[:count])


def reference_of(name: str) -> Callable[[Path], Any]:
    """Return what Python's reader of CSV says, in its strict mode."""

    def reference(folder: Path) -> Any:
        with (folder / name).open(newline="", encoding="utf-8-sig") as file:
            head, *body = [row for row in csv.reader(file, strict=True) if row]
        if any(len(row) != len(head) for row in body):
            raise ValueError("rows of unlike lengths")
        return {name: [plain(row[n]) for row in body] for n, name in enumerate(head)}

    return reference


def _csv() -> Subject:
    changes = damaged("x.csv", {"flip": 60, "cut": 40, "remove": 25, "repeat": 25})
    changes |= forged("x.csv", CSV)
    return Subject(
        "x.csv", lambda folder: write_csv(folder / "x.csv"), read_table("x.csv"), changes, reference_of("x.csv")
    )


def _new_rows() -> Subject:
    """Return rows that are encoded, of a table that a model was trained on."""

    def write(folder: Path) -> None:
        write_csv(folder / "x.csv")
        write_csv(folder / "new.csv", 12)

    def read(folder: Path) -> Any:
        from aevae_jax.data import Data, table_files

        data = Data("./x.csv")
        known = data.load().columns
        entries = _entries(table_files.read_rows(folder / "new.csv", known, data.reading), known)
        return {"values": entries, "sha256": str(entries)}

    changes = damaged("new.csv", {"flip": 40, "cut": 20, "remove": 20}) | forged("new.csv", CSV)
    return Subject("new.csv", write, read, changes, reference_of("new.csv"))


def _text(*lines: str, encoding: str = "utf-8") -> Callable[[Path, random.Random], Any]:
    return lambda path, dice: path.write_bytes("\n".join(lines).encode(encoding, "surrogateescape"))


def _many(head: str, row: Callable[[int], str], count: int) -> Callable[[Path, random.Random], Any]:
    return lambda path, dice: path.write_text("\n".join([head, *(row(n) for n in range(count))]))


_BODY = [f"{n},{n % 3}" for n in range(30)]
_QUOTED = [*_BODY[:10], '5,"x', *_BODY[10:]]
CSV: Mapping[str, Callable[[Path, random.Random], Any]] = {
    "quote-not-closed": _text("a,b", *_QUOTED),
    "quotes": _text('"a""b","c,d"', *(f'"{n}","{n % 2}"' for n in range(30))),
    "no-rows": _text("a,b"),
    "one-row": _text("a,b", "1,2"),
    "no-header": _text(*_BODY),
    "same-names": _text("a,a", *_BODY),
    "no-names": _text(",", *_BODY),
    "no-columns": _text("", "", ""),
    "escapes": _text(f'"{ESCAPES}","[/red]"', *(f'{n},"{ESCAPES}{n % 3}"' for n in range(30))),
    "infinite": _text("a,b", "inf,1", *_BODY),
    "nan": _text("a,b", *(f"nan,{n}" for n in range(30))),
    "huge-integers": _text("a,b", *(f"{10**400 + n},{n % 3}" for n in range(30))),
    "huge-floats": _text("a,b", *(f"1e{300 + n},{n % 3}" for n in range(30))),
    "tiny-floats": _text("a,b", *(f"1e-{300 + n},{n % 3}" for n in range(30))),
    "hexadecimal": _text("a,b", *(f"0x{n:x},{n % 3}" for n in range(30))),
    "underscores": _text("a,b", *(f"1_{n:03},{n % 3}" for n in range(30))),
    "formulas": _text("a,b", *(f"=cmd|' /C calc'!A{n % 3},{n}" for n in range(30))),
    "latin-1": _text("größe,b", *_BODY, encoding="latin-1"),
    "utf-16": _text("a,b", *_BODY, encoding="utf-16"),
    "utf-32": _text("a,b", *_BODY, encoding="utf-32"),
    "mark": _text("\ufeffa,b", *_BODY),
    "nul": _text("a,b\0c", *(f"{n},\0{n % 3}" for n in range(30))),
    "carriage-returns": lambda path, dice: path.write_bytes("\r".join(["a,b", *_BODY]).encode()),
    "semicolons": _text("a;b", *(f"{n},5;{n % 3}" for n in range(30))),
    "tabs": _text("a\tb", *(f"{n}\t{n % 3}" for n in range(30))),
    "ragged": _text("a,b", *_BODY, "1", *_BODY),
    "wide": _text(",".join(f"c{n}" for n in range(50_000)), *(",".join(["1"] * 50_000) for _ in range(3))),
    "long-name": _text("a" * 10**6 + ",b", *_BODY),
    "long-entry": _text("a,b", "1," + "x" * 2**25, *_BODY),
    "long-line": lambda path, dice: path.write_bytes(b"a,b\n" + b"1" * 2**26),
    "only-quotes": lambda path, dice: path.write_bytes(b'"' * 2**24),
    "only-commas": lambda path, dice: path.write_bytes(b"," * 2**20),
    "only-newlines": lambda path, dice: path.write_bytes(b"\n" * 2**25),
    "many-categories": _many("a,b", lambda n: f"t{n},{n % 3}", 20_000),
    "zeros": lambda path, dice: path.write_bytes(bytes(2**20)),
    "noise": lambda path, dice: path.write_bytes(dice.randbytes(2**16)),
    "hollow-512-MiB": lambda path, dice: sparse(path, b"a,b\n", 2**29 - 1),
}


# ------------------------------------------------------------------------------------------------------------ Parquet


def _parquet(name: str, codec: str, *, sums: bool) -> Subject:
    def write(folder: Path) -> None:
        import pyarrow
        import pyarrow.parquet

        table = pyarrow.table(columns())
        pyarrow.parquet.write_table(table, folder / name, compression=codec, write_page_checksum=sums)

    def reference(folder: Path) -> Any:
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(folder / name, page_checksum_verification=sums, memory_map=False)
        return {column: [plain(entry) for entry in table[column].to_pylist()] for column in table.column_names}

    changes = damaged(name, {"flip": 50, "flip-early": 25, "flip-late": 60, "cut": 25, "number": 25})
    changes |= forged(name, PARQUET)
    return Subject(name, write, read_table(name), changes, reference)


def _table(make: Callable[[Any], Any], **options: Any) -> Callable[[Path, random.Random], Any]:
    def write(path: Path, dice: random.Random) -> None:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(make(pyarrow), path, **options)

    return write


def _equal_rows(path: Path, dice: random.Random) -> None:
    """Write 10^8 equal rows, in less than half a megabyte."""
    import numpy as np
    import pyarrow
    import pyarrow.parquet

    block = pyarrow.table({"a": np.zeros(10**6), "b": np.zeros(10**6, np.int8)})
    with pyarrow.parquet.ParquetWriter(path, block.schema, compression="zstd") as writer:
        for _ in range(100):
            writer.write_table(block)


def _extension(path: Path, dice: random.Random) -> None:
    """Write a column whose type is a pickle, as old versions of Arrow would load it."""
    import pyarrow
    import pyarrow.parquet

    metadata = payload(Path("../executed").absolute())
    told = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": metadata}
    schema = pyarrow.schema([pyarrow.field("a", pyarrow.float64(), metadata=told), pyarrow.field("b", pyarrow.int64())])
    pyarrow.parquet.write_table(pyarrow.table({"a": [1.0, 2.5] * 20, "b": list(range(40))}, schema=schema), path)


_N = list(range(30))
PARQUET: Mapping[str, Callable[[Path, random.Random], Any]] = {
    "equal-rows": _equal_rows,
    "extension": _extension,
    "no-rows": _table(lambda pa: pa.table({"a": pa.array([], pa.float64())})),
    "no-columns": _table(lambda pa: pa.table({})),
    "nulls": _table(lambda pa: pa.table({"a": pa.nulls(30), "b": _N})),
    "lists": _table(lambda pa: pa.table({"a": [[n] for n in _N], "b": _N})),
    "structures": _table(lambda pa: pa.table({"a": [{"x": {"y": n}} for n in _N], "b": _N})),
    "bytes": _table(lambda pa: pa.table({"a": [b"\xff\xfe"] * 15 + [b"x"] * 15, "b": _N})),
    "dates": _table(lambda pa: pa.table({"a": pa.array(_N, pa.timestamp("ns")), "b": _N})),
    "decimals": _table(lambda pa: pa.table({"a": pa.array(_N).cast(pa.decimal128(38, 10)), "b": _N})),
    "unsigned": _table(lambda pa: pa.table({"a": pa.array([2**64 - 1 - n for n in _N], pa.uint64()), "b": _N})),
    "half": _table(lambda pa: pa.table({"a": pa.array(_N, pa.float64()).cast(pa.float16()), "b": _N})),
    "dictionary": _table(lambda pa: pa.table({"a": pa.array(["x", "y", "z"] * 10).dictionary_encode(), "b": _N})),
    "infinite": _table(lambda pa: pa.table({"a": [math.inf] * 30, "b": _N})),
    "nan": _table(lambda pa: pa.table({"a": [math.nan] * 30, "b": _N})),
    "same-names": _table(lambda pa: pa.Table.from_arrays([pa.array(_N), pa.array(_N)], names=["a", "a"])),
    "no-name": _table(lambda pa: pa.table({"": _N, "b": _N})),
    "escapes": _table(lambda pa: pa.table({ESCAPES: _N, "[/b]": [f"{ESCAPES}{n % 3}" for n in _N]})),
    "long-name": _table(lambda pa: pa.table({"a" * 10**6: _N, "b": _N})),
    "long-text": _table(lambda pa: pa.table({"a": ["x" * 10**7, "y"] * 15, "b": _N})),
    "wide": _table(lambda pa: pa.table({f"c{n}": [1.0, 2.0, 3.0] for n in range(12_000)})),
    "many-groups": _table(lambda pa: pa.table({"a": list(range(3000)), "b": list(range(3000))}), row_group_size=1),
    "metadata": _table(lambda pa: pa.table({"a": _N, "b": _N}).replace_schema_metadata({"x": "y" * 10**7})),
    "pandas": _table(
        lambda pa: pa.table({"a": _N, "b": _N}).replace_schema_metadata({"pandas": '{"index_columns": 1}'})
    ),
    "empty-texts": _table(lambda pa: pa.table({"a": ["", " "] * 15, "b": _N})),
}
