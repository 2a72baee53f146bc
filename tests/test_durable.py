"""Files that appear whole, follow no link, and are read only where they are regular and of a bounded size."""

from __future__ import annotations

import errno
import importlib
import io
import os
import re
import stat
import sys
from pathlib import Path

import pytest

from aevae_jax import durable
from aevae_jax.types import InputError


def test_a_file_appears_whole_and_nothing_stays_behind(tmp_path):
    durable.write_bytes(tmp_path / "a.json", b"one")
    durable.write_bytes(tmp_path / "a.json", b"two")
    assert (tmp_path / "a.json").read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["a.json"]


def test_room_is_made_before_the_work_or_it_is_said_that_there_is_none(tmp_path):
    durable.make_room(tmp_path / "new" / "folder" / "a.json")
    assert (tmp_path / "new" / "folder").is_dir()
    assert not list((tmp_path / "new" / "folder").iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"a[.]json, which cannot be written"):
        durable.make_room(tmp_path / "file" / "a.json")
    with pytest.raises(InputError, match=r"new, which cannot be written [(]Is a directory[)]"):
        durable.make_room(tmp_path / "new")


@pytest.mark.parametrize(
    "script",
    [
        *("ae_vs_vae", "defaults", "density", "faults.table", "linear_oracles"),
        *("lossless", "lossy", "posteriors", "semi_supervised", "speed"),
    ],
)
def test_experiments_look_for_room_before_they_begin(script, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "experiments"))
    (tmp_path / "file").touch()
    experiment = getattr(importlib.import_module(script), script.partition(".")[0])
    with pytest.raises(InputError, match=r"a[.]json, which cannot be written"):
        experiment(record=str(tmp_path / "file" / "a.json"))


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
    """The file with its byte in it, under a name of its own; then the directory, in which it has its name by then."""
    done = []

    def fsync(descriptor):
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        done.append((path, os.fstat(descriptor).st_size if path.is_file() else os.listdir(path)))

    monkeypatch.setattr(os, "fsync", fsync)
    durable.write_bytes(tmp_path / "a", b"x")
    (part, size), directory = done
    assert re.fullmatch(r"\.[0-9a-f]{16}\.part", part.name)
    assert part.parent == tmp_path
    assert size == 1
    assert directory == (tmp_path, ["a"])


def test_a_file_that_is_being_written_can_be_read_and_has_the_permissions_of_any_other(tmp_path):
    """Archives and pictures seek in what they have written."""
    before = os.umask(0o027)
    try:
        with durable.replacing(tmp_path / "a") as file:
            file.write(b"abc")
            file.seek(1)
            assert file.read() == b"bc"
        durable.append(tmp_path / "b", b"x")
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"] == [0o640, 0o640]


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    def written():
        with durable.replacing(tmp_path / "a.npz", what="codes") as file:
            file.write(b"x")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(InputError) as caught:
        written()
    assert str(caught.value) == (
        f"codes ({tmp_path}): got a.npz, which cannot be written (No space left on device), "
        "expected room and permission"
    )
    (tmp_path / "a.npz").mkdir()
    with pytest.raises(InputError, match=r"^weights \(.*got a.npz, which cannot be written \(Is a directory\)"):
        durable.write_bytes(tmp_path / "a.npz", b"x", what="weights")
    with pytest.raises(InputError, match=r"^losses \(.*got a.npz, which cannot be written \(Is a directory\)"):
        durable.append(tmp_path / "a.npz", b"x", what="losses")
    assert os.listdir(tmp_path) == ["a.npz"]


def test_no_file_stays_open(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    durable.write_bytes(tmp_path / "a", b"12345")
    durable.append(tmp_path / "a", b"6")
    durable.sync(tmp_path)
    durable.read_bytes(tmp_path / "a", limit=6)
    for path in (tmp_path, tmp_path / "a"):
        with pytest.raises(InputError):
            durable.open_regular(path, limit=5)
    assert len(os.listdir("/proc/self/fd")) == before


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
    with pytest.raises(InputError, match="cannot be written"):
        durable.append(tmp_path / "link", b"x")
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"
    with pytest.raises(InputError, match="cannot be written"):  # at once, though nobody reads it
        durable.append(tmp_path / "fifo", b"x")
    with io.FileIO(os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)) as reader:
        with pytest.raises(InputError, match=r"got fifo, which cannot be written \(not a regular file\)"):
            durable.append(tmp_path / "fifo", b"x")
        assert reader.read() == b""


NUL = "open: embedded null character in path" if sys.version_info >= (3, 13) else "embedded null byte"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "got no file, expected a file that exists"),
        ("missing/below", "got no file, expected a file that exists"),
        ("directory", "got a directory, expected a regular file"),
        ("fifo", "got a FIFO, device or socket, expected a regular file"),
        ("device", "got a FIFO, device or socket, expected a regular file"),
        ("loop", "got a file that cannot be read (Too many levels of symbolic links), expected a readable file"),
        ("giant", "got 1,099,511,627,776 bytes, expected at most 4"),
        ("endless", "got more than 4 bytes, expected a file of that size"),
        ("unreadable", "got a file that cannot be read (Input/output error), expected a readable file"),
        ("nul", f"got a file that cannot be read ({NUL}), expected a readable file"),
    ],
)
def test_what_is_no_bounded_regular_file_is_refused_at_once(tmp_path, kind, message):
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
    elif kind == "unreadable":  # opens, but has nothing at address 0
        path.symlink_to("/proc/self/mem")
    elif kind == "missing/below":
        path.parent.write_bytes(b"a file, and no directory")
    elif kind == "nul":
        path = tmp_path / "a\0b"
    with pytest.raises(InputError) as caught:
        durable.read_bytes(path, limit=4, what="picture")
    assert str(caught.value) == f"picture ({str(path).replace(chr(0), ' ')}): {message}"


def test_what_is_small_enough_is_read_through_a_link(tmp_path):
    (tmp_path / "a").write_bytes(b"1234")
    (tmp_path / "b").symlink_to("a")
    assert durable.read_bytes(tmp_path / "b", limit=4) == b"1234"


def test_a_directory_that_is_gone_is_one_line(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        durable.write_bytes(tmp_path / "gone" / "a", b"x")
