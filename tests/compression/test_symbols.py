"""What was stored comes back bit for bit, or is refused with the first value that has no symbol."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from aevae_jax.compression import container, symbols
from aevae_jax.types import InputError


def stored(given, dtype, levels, mapping):
    """The rows that a person would make of symbols."""
    dtype = np.dtype(dtype)
    if mapping == 2:
        return given.astype(dtype) / dtype.type(levels - 1).astype(dtype)
    return (given * (255 if mapping == 1 else 1)).astype(dtype)


@pytest.mark.parametrize("dtype", container.TYPES)
@pytest.mark.parametrize("levels", [2, 17, 100, 256, 1000])
def test_levels_of_every_type_come_back(dtype, levels):
    kind = np.dtype(dtype)
    most = {"b": 1, "f": 2**24}.get(kind.kind, 0) or np.iinfo(kind).max
    if most < levels - 1:
        pytest.skip("the type does not hold them")
    given = np.arange(2 * levels).reshape(2, levels) % levels
    rows = stored(given, dtype, levels, 0)
    found, mapping = symbols.from_rows(rows, levels)
    assert mapping == 0
    assert found.dtype == symbols.dtype_of(levels)
    np.testing.assert_array_equal(found, given)
    back = symbols.to_rows(found, dtype, levels, mapping)
    assert (back.dtype, back.tobytes()) == (rows.dtype, rows.tobytes())


@pytest.mark.parametrize("dtype", ["|u1", "<i2", ">u4", "<f4", ">f8"])
def test_bits_of_0_and_255_come_back(dtype):
    given = np.array([[0, 1, 1], [1, 0, 0]])
    rows = stored(given, dtype, 2, 1)
    found, mapping = symbols.from_rows(rows, 2)
    assert mapping == 1
    np.testing.assert_array_equal(found, given)
    assert symbols.to_rows(found, dtype, 2, mapping).tobytes() == rows.tobytes()


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("levels", [3, 17, 256, 65536])
def test_fractions_come_back(dtype, levels):
    given = np.arange(levels)[None]
    rows = (given.astype(np.dtype(dtype).newbyteorder("=")) / (levels - 1)).astype(dtype)
    found, mapping = symbols.from_rows(rows, levels)
    assert mapping == 2
    np.testing.assert_array_equal(found, given)
    back = symbols.to_rows(found, dtype, levels, mapping)
    assert (back.dtype, back.tobytes()) == (rows.dtype, rows.tobytes())


@pytest.mark.parametrize(
    ("rows", "levels", "said"),
    [
        (np.array([[0, 3], [17, 2]], np.uint8), 17, r"got 17 in image 6, expected integers of 0 to 16"),
        (np.array([[0, 3], [-1, 2]], np.int64), 17, r"got -1 in image 6"),
        (np.array([[0, 3], [2**40, 2]], np.int64), 256, r"got 1099511627776 in image 6"),
        (np.array([[0, np.nan]], np.float32), 256, r"got nan in image 5"),
        (np.array([[0, np.inf]], np.float32), 256, r"got inf in image 5"),
        (np.array([[1.0, -0.0]], np.float32), 256, r"got -0.0 in image 5"),
        (np.array([[0.5, 1.0]], np.float32), 256, r"got 0.5 in image 5, .* or multiples of 1/255"),
        (np.array([[0, 255, 254]], np.uint8), 2, r"got 254 in image 5, .*0 or 255.*binarise the images first"),
        (np.array([[0, 1, 255]], np.uint8), 2, r"got values of two kinds among images 5 to 5"),
        (np.array([[2.0, 1 / 255]], np.float32), 256, r"got values of two kinds"),
        (np.array([[0.1]], np.float64), 2, r"got 0.1 in image 5"),
    ],
)
def test_the_first_value_without_a_symbol_is_named(rows, levels, said):
    with np.errstate(all="raise"), pytest.raises(InputError, match=said):
        symbols.from_rows(rows, levels, 5)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_bytes_come_back_or_are_refused(data):
    dtype = np.dtype(data.draw(st.sampled_from([t for t in container.TYPES if t != "|b1"])))
    levels = data.draw(st.sampled_from([2, 3, 17, 256, 65536]))
    raw = data.draw(st.binary(min_size=dtype.itemsize, max_size=6 * dtype.itemsize))
    rows = np.frombuffer(raw[: len(raw) // dtype.itemsize * dtype.itemsize], dtype)[None]
    try:
        found, mapping = symbols.from_rows(rows, levels)
    except InputError:
        return
    assert found.max() < levels
    assert symbols.to_rows(found, dtype, levels, mapping).tobytes() == rows.tobytes()
