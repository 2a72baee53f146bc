"""How much memory is free, and what is said of what needs more."""

from __future__ import annotations

import os
import sys

import pytest

from aevae_jax import memory
from aevae_jax.types import InputError


def test_what_is_free_is_less_than_there_is():
    assert 2**20 < memory.free() < sys.maxsize


VERSION_1 = {
    "memory/memory.limit_in_bytes": "10000\n",
    "memory/memory.usage_in_bytes": "7000\n",
    "memory/memory.stat": "cache 9\ninactive_file 50\nhierarchical_memory_limit 3\ntotal_inactive_file 2000\n",
}
VERSION_2 = {
    "memory.max": "10000\n",
    "memory.current": "7000\n",
    "memory.stat": "anon 5\ninactive_anon 40\ninactive_file 2000\nfile 9\n",
}
"""What the kernel calls the files of a control group, and what stands in them. Of version 1, those named `total_` count
the groups within, as its use does."""


@pytest.mark.parametrize(("files", "limit"), [(VERSION_1, "memory/memory.limit_in_bytes"), (VERSION_2, "memory.max")])
def test_a_container_leaves_what_its_limit_says(tmp_path, monkeypatch, files, limit):
    monkeypatch.setattr(memory, "GROUPS", tmp_path)
    before = memory.free()
    (tmp_path / "memory").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert before > 2**20
    assert memory.free() == 10_000 - 7_000 + 2_000
    (tmp_path / limit).write_text("max\n")
    assert memory.free() > 2**20
    (tmp_path / limit).write_text("4000\n")  # lowered below what is in use
    assert memory.free() == 0


def test_the_least_of_all_limits_counts_and_what_is_not_given_back_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "GROUPS", tmp_path)
    (tmp_path / "memory").mkdir()
    for name, text in {**VERSION_1, **VERSION_2, "memory.max": "9000\n", "memory.stat": "anon 5\n"}.items():
        (tmp_path / name).write_text(text)
    assert memory.free() == 9_000 - 7_000
    (tmp_path / "memory.max").write_text("20000\n")
    assert memory.free() == 5_000


def test_the_system_says_what_is_available_else_what_there_is(tmp_path, monkeypatch):
    """The kernel counts in KiB. Where it says nothing, the memory of the machine; where nothing does, no limit."""
    said = tmp_path / "meminfo"
    asked = []
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "no groups")
    monkeypatch.setattr(memory, "Path", lambda name: asked.append(name) or said)
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 3, "SC_PAGE_SIZE": 4096}.__getitem__)
    said.write_text("MemTotal:       9000 kB\nMemFree:          10 kB\nMemAvailable:   2000 kB\n")
    assert memory.free() == 2_048_000
    assert asked == ["/proc/meminfo"]
    said.write_text("MemTotal:       9000 kB\n")
    assert memory.free() == 3 * 4096
    said.unlink()
    assert memory.free() == 3 * 4096
    monkeypatch.delattr(os, "sysconf")
    assert memory.free() == sys.maxsize


def test_what_needs_more_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(memory, "free", lambda: 3 * 2**30)
    memory.check(3 * 2**30, what="--num", got=7)
    message = "--num: got 9, which needs about 3.5 GiB of memory, expected less, as 3 GiB are free; type less"
    with pytest.raises(InputError) as caught:
        memory.check(7 * 2**29, what="--num", got=9, hint="type less")
    assert str(caught.value) == message
    with pytest.raises(InputError, match=r"which needs about 1,000,000,000,000 GiB of memory"):
        memory.check(10**12 * 2**30, what="--num", got=9)


def test_the_room_may_be_that_of_an_accelerator():
    memory.check(5, what="--batch-size", got=1, available=5)
    message = (
        "--batch-size (run.json): got 64, which needs about 6 bytes of memory, expected at most 40, as 5 bytes are free"
    )
    with pytest.raises(InputError) as caught:
        memory.check(6, what="--batch-size", got=64, expected="at most 40", where="run.json", available=5)
    assert str(caught.value) == message
    with pytest.raises(InputError, match="as 0 bytes are free"):
        memory.check(1, what="--batch-size", got=64, available=0)


def test_sizes_are_written_as_they_are_read():
    sizes = {
        0: "0 bytes",
        1023: "1023 bytes",
        1024: "1 KiB",
        1010 * 1024: "1,010 KiB",
        5 * 2**20: "5 MiB",
        1_234_567: "1.18 MiB",
        1023 * 2**20: "1,023 MiB",
        2**30: "1 GiB",
        999 * 2**30: "999 GiB",
        1000 * 2**30 - 1: "1,000 GiB",
        2**40: "1,024 GiB",
    }
    assert {size: memory.shown(size) for size in sizes} == sizes
