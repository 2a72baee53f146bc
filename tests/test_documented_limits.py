"""Limits are those that the documentation names: in a docstring beside each, or in the README."""

from __future__ import annotations

import ast
import importlib
import itertools
import re
from pathlib import Path

import pytest

import aevae_jax

PACKAGE = Path(aevae_jax.__file__).parent
UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def documented():
    """Every constant of a module whose docstring names a size: `(module, name, size in bytes)`."""
    for path in sorted(PACKAGE.rglob("*.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        for constant, text in itertools.pairwise(body):
            if not (
                isinstance(constant, ast.Assign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
            ):
                continue
            sizes = re.findall(r"(\d+) ([KMG]iB)", str(text.value.value))
            if len(sizes) == 1:
                [(number, unit)] = sizes
                module = ".".join(("aevae_jax", *path.relative_to(PACKAGE).with_suffix("").parts))
                yield module, constant.targets[0].id, int(number) * UNITS[unit]


@pytest.mark.parametrize(("module", "name", "size"), [*documented()])
def test_a_limit_of_bytes_is_what_its_docstring_says(module, name, size):
    assert getattr(importlib.import_module(module), name) == size


@pytest.mark.parametrize(
    ("module", "limits"),
    [
        ("data.arrays", {"MAX_RATIO": 100}),
        ("data.cache", {"STALE_SECONDS": 60 * 60}),
        ("data.splits", {"FREQUENT": 10}),
        ("data.table_columns", {"MAX_CATEGORIES": 1000}),
        ("data.table_files", {"MAX_RATIO": 100, "MAX_COLUMNS": 10**4, "MAX_FEATURES": 10**5}),
        ("data.tfds", {"CHUNK": 1024}),
        ("data.tfds_files", {"MAX_JSON_BYTES": 16 * 2**20}),
        ("evaluation.importance", {"ROWS": 1024, "ROWS_ON_ACCELERATORS": 16384}),
        ("evaluation.metrics", {"MOST_AT_ONCE": 256}),
        ("checkpoints.signals", {"EXIT_CODE": 75}),
        ("runs.records", {"LARGEST_JSON": 16 * 2**20, "LARGEST_LOG": 128 * 2**20}),
        ("runs.reproduction", {"FIRST_STEPS": 20, "LOSS_TOLERANCE": 1e-4, "RESULT_TOLERANCE": 0.01}),
        ("runs.resume", {"CHUNK_SECONDS": 1.0}),
        ("runs.weights", {"LARGEST_HEADER": 16 * 2**20}),
    ],
)
def test_other_limits_are_as_they_have_been(module, limits):
    """What is above one was refused, or read, by every version so far; the README names some of them."""
    found = importlib.import_module(f"aevae_jax.{module}")
    assert {name: getattr(found, name) for name in limits} == limits
