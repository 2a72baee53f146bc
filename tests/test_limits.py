"""Which numbers a field may hold: the ends themselves, kinds, and what is said of what lies outside."""

from __future__ import annotations

import math

import numpy as np
import pytest

from aevae_jax import limits
from aevae_jax.types import InputError

F32 = np.finfo(np.float32)


def test_limits_are_those_of_32_bits():
    assert np.iinfo(np.int32).max == limits.MOST
    assert (float(F32.tiny), float(F32.max)) == (limits.SMALLEST, limits.LARGEST)


@pytest.mark.parametrize(
    ("got", "low", "high"),
    [
        (1, 1, limits.MOST),
        (2**31 - 1, 1, limits.MOST),
        (np.int64(5), 5, 5),
        (0.5, 0.5, 1.5),
        (1.5, 0.5, 1.5),
        (1, 0.5, 1.5),
        (np.float32(1), 0.5, 1.5),
        (float(F32.tiny), limits.SMALLEST, limits.LARGEST),
        (-float(F32.max), -limits.LARGEST, limits.LARGEST),
    ],
    ids=range(9),
)
def test_the_ends_are_included(got, low, high):
    limits.check("n", got, low, high)


@pytest.mark.parametrize(
    ("got", "low", "high", "shown", "expected"),
    [
        (0, 1, limits.MOST, "0", "at least 1"),
        (2**31, 1, limits.MOST, "2147483648", "at most 2147483647"),
        (1, 2, 10, "1", "2 to 10"),
        (11, 2, 10, "11", "2 to 10"),
        (-1.0, limits.SMALLEST, limits.LARGEST, "-1.0", "a positive number"),
        (0.0, limits.SMALLEST, limits.LARGEST, "0.0", "a positive number"),
        (1e-40, limits.SMALLEST, limits.LARGEST, "1e-40", "at least 1.17549e-38"),
        (1e39, limits.SMALLEST, limits.LARGEST, "1e+39", "at most 3.40282346639e+38"),
        (-0.1, 0.0, limits.LARGEST, "-0.1", "at least 0"),
        (math.nan, 0.0, 1.0, "nan", "a number"),
        (10**400, 0.0, 1.0, "1" + "0" * 44 + "...", "0 to 1"),
        (True, 0, 1, "True", "an integer"),
        (True, 0.0, 1.0, "True", "a number"),
        (1.0, 0, 1, "1.0", "an integer"),
        ("1", 0, 1, "'1'", "an integer"),
        (None, 0.0, 1.0, "None", "a number"),
    ],
    ids=range(16),
)
def test_what_is_outside_is_refused_with_the_end_that_was_passed(got, low, high, shown, expected):
    with pytest.raises(InputError) as caught:
        limits.check("n", got, low, high, where="a file")
    assert str(caught.value) == f"n (a file): got {shown}, expected {expected}"


def test_integers_have_32_bits_unless_another_end_is_given():
    limits.check("n", 2**31 - 1, 0)
    with pytest.raises(InputError, match=r"^n: got 2147483648, expected at most 2147483647$"):
        limits.check("n", 2**31, 0)


def test_sizes_are_positive_integers_side_by_side():
    limits.check_sizes("size", ())
    limits.check_sizes("size", (1, 2**31 - 1))
    limits.check_sizes("size", [3])
    limits.check_sizes("size", (0, 1), 0)
    for sizes, low, message in [
        (3, 1, r"size \(x\): got 3, expected a tuple of integers"),
        ("12", 1, r"size \(x\): got '12', expected a tuple of integers"),
        ((1, 0), 1, r"size \(x\): got 0, expected at least 1"),
        ((1, -1), 0, r"size \(x\): got -1, expected at least 0"),
        ((1, 2.0), 1, r"size \(x\): got 2.0, expected an integer"),
    ]:
        with pytest.raises(InputError, match=f"^{message}$"):
            limits.check_sizes("size", sizes, low, where="x")


def test_what_was_given_is_shown_in_45_characters():
    assert limits.shown("a" * 43) == f"'{'a' * 43}'"
    assert limits.shown("a" * 44) == f"'{'a' * 44}..."
    assert limits.shown(123456, 3) == "123..."
    nested = []
    for _ in range(100_000):
        nested = [nested]
    assert limits.shown(nested) == limits.shown(10**5000) == "a value too large to show"
