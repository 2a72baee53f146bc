"""Files that appear whole, follow no link, and are read only where they are regular and of a bounded size."""

from __future__ import annotations

import os

import pytest

from aevae_jax import durable
from aevae_jax.types import InputError


def test_a_file_appears_whole_and_nothing_stays_behind(tmp_path):
    durable.write_bytes(tmp_path / "a.json", b"one")
    durable.write_bytes(tmp_path / "a.json", b"two")
    assert (tmp_path / "a.json").read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["a.json"]


def test_an_error_leaves_the_old_file(tmp_path):
    durable.write_bytes(tmp_path / "a", b"old")

    def interrupted():
        with durable.replacing(tmp_path / "a") as file:
            file.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_link_in_the_place_of_the_file_is_replaced_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").symlink_to(outside)
    durable.write_bytes(tmp_path / "run" / "run.json", b"new")
    assert outside.read_bytes() == b"precious"
    assert not (tmp_path / "run" / "run.json").is_symlink()


def test_names_as_long_as_a_name_can_be_are_written(tmp_path):
    durable.write_bytes(tmp_path / ("n" * 255), b"x")
    assert (tmp_path / ("n" * 255)).read_bytes() == b"x"


def test_file_and_directory_are_synced_before_and_after_the_rename(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: done.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    durable.write_bytes(tmp_path / "a", b"x")
    assert done[0].endswith(durable.PART)
    assert done[1] == str(tmp_path)


def test_what_is_appended_is_synced(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: done.append(os.fstat(descriptor).st_size))
    durable.append(tmp_path / "log", b"one\n")
    durable.append(tmp_path / "log", b"two\n")
    assert done == [4, 8]  # with the new bytes in it, not before


def test_appending_adds_and_follows_no_link(tmp_path):
    durable.append(tmp_path / "log", b"one\n")
    durable.append(tmp_path / "log", b"two\n")
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"
    (tmp_path / "link").symlink_to(tmp_path / "log")
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo"):
        with pytest.raises(InputError, match="cannot be written"):
            durable.append(tmp_path / name, b"x")


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo", "device", "loop", "giant", "endless", "nul"])
def test_what_is_no_bounded_regular_file_is_refused_at_once(tmp_path, kind):
    path = tmp_path / kind
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "giant":
        path.touch()
        os.truncate(path, 2**40)
    elif kind == "endless":  # says that it is empty, and is not
        path = path.with_name("cmdline")
        path.symlink_to("/proc/self/environ")
    elif kind == "nul":
        path = tmp_path / "a\0b"
    with pytest.raises(InputError) as caught:
        durable.read_bytes(path, limit=4)
    assert "\n" not in str(caught.value)


def test_what_is_small_enough_is_read_through_a_link(tmp_path):
    (tmp_path / "a").write_bytes(b"1234")
    (tmp_path / "b").symlink_to("a")
    assert durable.read_bytes(tmp_path / "b", limit=4) == b"1234"


def test_a_directory_that_is_gone_is_one_line(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        durable.write_bytes(tmp_path / "gone" / "a", b"x")
