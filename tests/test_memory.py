"""How much memory is free, and what is said of what needs more."""

from __future__ import annotations

import sys

import pytest

from aevae_jax import memory
from aevae_jax.types import InputError


def test_what_is_free_is_less_than_there_is():
    assert 2**20 < memory.free() < sys.maxsize


@pytest.mark.parametrize("names", memory._GROUP_FILES, ids=["v2", "v1"])
def test_a_container_leaves_what_its_limit_says(tmp_path, monkeypatch, names):
    folder, limit, used, reclaimable = names
    root = tmp_path / folder
    root.mkdir(exist_ok=True)
    monkeypatch.setattr(memory, "_GROUPS", tmp_path)
    before = memory.free()
    (root / limit).write_text("10000\n")
    (root / used).write_text("7000\n")
    (root / "memory.stat").write_text(f"anon 5\n{reclaimable} 2000\nfile 9\n")
    assert before > 2**20
    assert memory.free() == 10_000 - 7_000 + 2_000
    (root / limit).write_text("max\n")
    assert memory.free() > 2**20


def test_what_needs_more_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(memory, "free", lambda: 3 * 2**30)
    memory.check(3 * 2**30, what="--num", got=7)
    message = "--num: got 9, which needs about 3.5 GiB of memory, expected less, as 3 GiB are free; type less"
    with pytest.raises(InputError) as caught:
        memory.check(7 * 2**29, what="--num", got=9, hint="type less")
    assert str(caught.value) == message
    with pytest.raises(InputError, match=r"which needs about 1,000,000,000,000 GiB of memory"):
        memory.check(10**12 * 2**30, what="--num", got=9)


def test_sizes_are_written_as_they_are_read():
    sizes = {0: "0 bytes", 1023: "1023 bytes", 1024: "1 KiB", 5 * 2**20: "5 MiB", 2**40: "1,024 GiB"}
    assert {size: memory.shown(size) for size in sizes} == sizes
