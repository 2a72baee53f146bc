"""The user's cache folder: where it is, who may write to it, and how it stays small."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aevae_jax import caches
from aevae_jax.types import InputError


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"AEVAE_CACHE_DIR": "/own", "XDG_CACHE_HOME": "/x", "HOME": "/home/me"}, "/own/part"),
        ({"XDG_CACHE_HOME": "/x", "HOME": "/home/me"}, "/x/aevae_jax/part"),
        ({"HOME": "/home/me"}, "/home/me/.cache/aevae_jax/part"),
        ({"AEVAE_CACHE_DIR": "~/c", "HOME": "/home/me"}, "/home/me/c/part"),
        ({"AEVAE_CACHE_DIR": "c"}, os.path.abspath("c/part")),
    ],
)
def test_the_first_of_three_places(monkeypatch, environment, expected):
    for name in ("AEVAE_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    assert caches.place("part") == Path(expected)


def test_without_a_home_folder_there_is_none(monkeypatch):
    monkeypatch.delenv("AEVAE_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert caches.place("part") is None


def test_a_private_folder_is_made_for_its_owner_alone(tmp_path):
    before = os.umask(0)
    try:
        caches.private(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    caches.private(tmp_path / "a" / "b")


def others_may_write(folder):
    folder.mkdir()
    folder.chmod(0o770)


def read_only(folder):
    folder.mkdir()
    folder.chmod(0o500)


def link_to_that_of_others(folder):
    others_may_write(folder.with_name("theirs"))
    folder.symlink_to("theirs")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (others_may_write, "which others may write to"),
        (link_to_that_of_others, "which others may write to"),
        (read_only, "which cannot be written"),
        (lambda folder: folder.write_text(""), "File exists"),
        (lambda folder: folder.symlink_to("nowhere"), "File exists"),
    ],
)
def test_a_folder_that_cannot_be_trusted_or_written_is_refused(tmp_path, make, message):
    make(tmp_path / "cache")
    with pytest.raises(InputError, match=rf"cache: got \S*cache.*{message}.*AEVAE_CACHE_DIR"):
        caches.private(tmp_path / "cache")


def test_somebody_elses_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(InputError, match="which others may write to"):
        caches.private(tmp_path)


def write(path, size, used):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (used, 0))


def test_trimming_keeps_what_was_used_last(tmp_path):
    for number in range(10):
        write(tmp_path / "abc"[number % 3] / str(number), 100, used=number)
    caches.trim(tmp_path, 1000)
    assert len(list(tmp_path.rglob("?/?"))) == 10  # it is as large as it may be
    write(tmp_path / "a" / "10", 50, used=10)
    caches.trim(tmp_path, 1000)
    assert sorted(int(path.name) for path in tmp_path.rglob("?/*")) == [6, 7, 8, 9, 10]


def test_trimming_goes_on_where_others_delete_as_well(tmp_path, monkeypatch):
    for number in range(4):
        write(tmp_path / str(number), 100, used=number)
    unlink, first = os.unlink, []

    def unlinked_already(path):
        if not first:
            first.append(path)
            unlink(path)
        unlink(path)

    monkeypatch.setattr(os, "unlink", unlinked_already)
    caches.trim(tmp_path, 399)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3"]
    caches.trim(tmp_path / "nowhere", 0)
