"""The text of a CSV file, before it is made a table: its size, its quotes, its header."""

from __future__ import annotations

import os
import re
from pathlib import Path

from aevae_jax import durable
from aevae_jax.types import InputError

MAX_CSV_BYTES = 2**29
"""The largest CSV file, 512 MiB."""

_BOM = b"\xef\xbb\xbf"
_QUOTED = rb'"(?:[^"]++|"")*+"[ \t]*+'


def contents(path: Path, separator: str) -> bytes:
    """Return the bytes of a CSV file whose quotes are all closed.

    Args:
      path: of the file.
      separator: what stands between fields.

    Raises:
      InputError: not a regular file, more than `MAX_CSV_BYTES`, or a quote that is not closed before its field ends.
    """
    with durable.open_regular(path, what="table") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= MAX_CSV_BYTES:
            text = file.read(MAX_CSV_BYTES + 1)
            size = max(size, len(text))
    if size > MAX_CSV_BYTES:
        raise InputError(
            "table",
            got=f"{size / 2**20:.0f} MiB of CSV",
            where=str(path),
            expected=f"at most {MAX_CSV_BYTES / 2**20:g} MiB",
            hint="write it as Parquet",
        )
    _check_quotes(text, separator.encode(), str(path))
    return text


def lines(text: bytes) -> int:
    """Return how many lines there are, at most."""
    return max(text.count(b"\n"), text.count(b"\r")) + 1


def fields(text: bytes, separator: str) -> int:
    """Return how many fields the first line has, at least."""
    return text[: 2**24].lstrip(b"\r\n").partition(b"\n")[0].partition(b"\r")[0].count(separator.encode()) + 1


def _check_quotes(text: bytes, separator: bytes, where: str) -> None:
    """Refuse what RFC 4180 does not allow: a quoted field that has no end, or that goes on after its end.

    A quote that is not closed swallows the rows after it, up to the next quote or the end of the file.
    """
    if b'"' not in text:
        return
    start = len(_BOM) if text.startswith(_BOM) else 0
    between = re.escape(separator)
    field = rb'(?:%s|[^"%s\r\n][^%s\r\n]*+|)' % (_QUOTED, between, between)
    whole = re.compile(rb"(?:%s(?:%s|[\r\n]))*+(%s)" % (field, between, field)).match(text, start)
    if whole is None or whole.end() == len(text):
        return
    row = re.compile(rb"%s(?:%s%s)*+(?:\r\n|\r|\n)" % (field, between, field))
    rows = sum(found[0].strip(b"\r\n") != b"" for found in row.finditer(text, start, whole.start(1)))
    raise InputError(
        "table",
        got=f"a quote that is not closed in data row {rows}" if rows else "a quote that is not closed in the header",
        expected='each field in quotes to end with one, and quotes inside as ""',
        where=where,
    )
