"""Every mistake in the list can be made, and the tests that are to notice it are there. mutations.py makes them."""

from __future__ import annotations

import ast
from pathlib import Path

import mistakes
import pytest

import aevae_jax

ROOT, TESTS = Path(aevae_jax.__file__).parents[1], Path(__file__).parent


@pytest.mark.parametrize("path", sorted({mutation.path for mutation in mistakes.MUTATIONS}))
def test_every_patch_applies(path):
    text = (ROOT / path).read_text(encoding="utf-8")
    patches = [(m.old, m.new) for m in mistakes.MUTATIONS if m.path == path]
    assert [old for old, _ in patches if old not in text] == []
    assert [old for old, new in patches if old == new] == []


def test_every_test_that_is_named_is_there():
    named = {test.partition("::")[::2] for mutation in mistakes.MUTATIONS for test in mutation.tests}
    for file in {file for file, _ in named}:
        tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
        there = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert {name.partition("[")[0] for f, name in named if f == file and name} <= there, file
