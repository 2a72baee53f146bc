"""Modules that are imported when something of them is used."""

from __future__ import annotations

import json.decoder
import sys
from types import ModuleType

import jax
import jax.numpy
import numpy
import optax
import pytest

from aevae_jax import keys, lazy, limits


def test_each_stands_for_the_module_of_its_name():
    assert lazy.jax.jit is jax.jit
    assert lazy.jnp.sum is jax.numpy.sum
    assert lazy.np.float32 is numpy.float32
    assert lazy.optax.adam is optax.adam
    assert [m.__name__ for m in (lazy.jax, lazy.jnp, lazy.np, lazy.optax)] == ["jax", "jax.numpy", "numpy", "optax"]
    assert isinstance(lazy.np, ModuleType)


def test_modules_of_a_package_come_in_the_order_of_their_names():
    one = lazy.modules("json", "decoder")
    assert one.JSONDecoder is json.decoder.JSONDecoder
    first, second = lazy.modules("aevae_jax", "limits", "keys")
    assert first.MOST == limits.MOST
    assert second.Stream is keys.Stream


def test_nothing_is_imported_before_it_is_asked_for():
    late = lazy.modules("no_such_package", "anything")
    assert "no_such_package" not in sys.modules
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        _ = late.something
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = lazy.np.no_such_name
