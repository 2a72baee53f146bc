"""Compiled programs that are kept from one start to the next: the same bits, fewer compilations, and no trouble."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
import warnings
import zlib

import pytest

from aevae_jax import caches
from aevae_jax.cli import arguments, programs


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """The environment of a user: nothing is set of JAX's own cache, and ours is in a folder of the test's."""
    for name in [name for name in os.environ if name.startswith(("JAX_COMPILATION", "JAX_ENABLE", "JAX_PERSISTENT"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AEVAE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "environ", dict(os.environ))  # what is set here is gone after the test
    return os.environ


@pytest.fixture
def settings(environment, monkeypatch):
    """What JAX is told, where it is imported already."""
    told = {}
    monkeypatch.setitem(
        sys.modules, "jax", types.SimpleNamespace(config=types.SimpleNamespace(update=told.__setitem__))
    )
    return told


def test_jax_is_told_of_a_folder_that_only_its_owner_may_write_to(settings, environment, tmp_path):
    with programs.kept():
        folder = next((tmp_path / "cache" / "programs").iterdir())
        assert environment["JAX_COMPILATION_CACHE_DIR"] == str(folder)  # for a JAX that is imported later
        assert environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "0"
    assert not {name for name in environment if "CACHE" in name} - {"AEVAE_CACHE_DIR"}
    assert settings == {"jax_compilation_cache_dir": str(folder), "jax_persistent_cache_min_compile_time_secs": 0}
    assert folder.stat().st_mode & 0o777 == folder.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"])
def test_whoever_sets_jax_up_decides(settings, environment, tmp_path, name):
    environment[name] = "0"
    with programs.kept():
        assert settings == {}
    assert not (tmp_path / "cache").exists()


def test_a_least_time_of_ones_own_is_left(settings, environment):
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "3"
    with programs.kept():
        assert list(settings) == ["jax_compilation_cache_dir"]
    assert environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "3"


def test_other_processors_and_other_cores_have_other_folders(settings, tmp_path, monkeypatch):
    for cores in ({0}, {0, 1}, {1}):
        monkeypatch.setattr(os, "sched_getaffinity", lambda process, cores=cores: cores)
        with programs.kept():
            pass
    assert len(list((tmp_path / "cache" / "programs").iterdir())) == 2


def command(*, size: int = 1) -> int:
    """Do what is asked."""
    return size


def test_no_cache_keeps_nothing(settings, tmp_path):
    def asked(*, size: int = 1) -> object:
        return caches.place(str(size))

    assert arguments.parse_arguments(asked, ["--no-cache", "--size", "3"], prog="x")() is None
    assert caches.place("3") is not None
    assert settings == {"jax_enable_compilation_cache": False}
    assert not (tmp_path / "cache").exists()
    settings.clear()
    assert arguments.parse_arguments(command, [], prog="x")() == 1
    assert "jax_compilation_cache_dir" in settings


def test_what_does_not_compile_has_no_such_option(settings, capsys):
    assert arguments.parse_arguments(command, [], prog="x", compiles=False)() == 1
    assert settings == {}
    with pytest.raises(SystemExit):
        arguments.parse_arguments(command, ["--no-cache"], prog="x", compiles=False)
    assert "unrecognized arguments: --no-cache" in capsys.readouterr().err


def test_where_nothing_can_be_kept_that_is_said_once(settings, tmp_path, capsys):
    (tmp_path / "cache").write_text("a file")
    with programs.kept():
        assert settings == {}
    (first,) = capsys.readouterr().err.splitlines()
    assert first.startswith(f"note: compiled programs are not kept for the next start: cache: got {tmp_path}/cache/")
    assert "--no-cache" in first
    assert len(first) < 300 + 2 * len(str(tmp_path))


def test_damaged_entries_are_deleted_and_named_once(settings, tmp_path, capsys):
    with programs.kept():
        folder = next((tmp_path / "cache" / "programs").iterdir())
        for name in ("jit_f-1-cache", "jit_f-2-cache", "jit_fg-1-cache", "jit_g-1-cache"):
            (folder / name).write_text("")
        for name in ("jit_f", "jit_g", "jit_h"):
            warnings.warn(f"Error reading persistent compilation cache entry for '{name}': zlib.error: x", stacklevel=1)
        assert [path.name for path in folder.iterdir()] == ["jit_fg-1-cache"]
    line = capsys.readouterr().err
    assert line == f"note: a compiled program in {folder} is damaged and is compiled again\n"


def test_a_full_disk_is_said_once_and_a_deleted_folder_is_made_again(settings, tmp_path, capsys):
    with programs.kept():
        folder = next((tmp_path / "cache" / "programs").iterdir())
        folder.rmdir()
        folder.parent.rmdir()
        warnings.warn("Error writing persistent compilation cache entry for 'jit_f': FileNotFoundError", stacklevel=1)
        assert folder.stat().st_mode & 0o777 == 0o700
        assert capsys.readouterr().err == ""
        for name in "fg":
            text = f"Error writing persistent compilation cache entry for 'jit_{name}': OSError: No space\nleft"
            warnings.warn(text, stacklevel=1)
    assert (
        capsys.readouterr().err == "note: compiled programs are not kept for the next start: OSError: No space left\n"
    )


def test_other_warnings_are_left_alone(settings):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with programs.kept():
            pass
        warnings.warn("of something else", stacklevel=1)
    assert [str(each.message) for each in caught] == ["of something else"]


COUNTED = """
import json, sys
import jax.monitoring
from aevae_jax.cli.main import main

counts = dict.fromkeys(("hits", "misses"), 0)

def count(event, **_):
    name = event.rpartition("cache_")[2]
    if name in counts:
        counts[name] += 1

jax.monitoring.register_event_listener(count)
main(sys.argv[1:])
print(json.dumps(counts))
"""


def run(tmp_path, environment, *argv):
    """What a command of its own process prints as an error, and how many programs it took and kept."""
    done = subprocess.run(
        [sys.executable, "-c", COUNTED, *argv],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stderr, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_the_second_start_compiles_nothing_and_gives_the_same_bits(environment, tmp_path):
    model = ["--model", "VAE(2, Conv((4,)))", "--epochs", "2"]
    cold, first = run(tmp_path, environment, "train", "cold", *model)
    warm, second = run(tmp_path, environment, "train", "warm", *model)
    none, third = run(tmp_path, environment, "train", "none", *model, "--no-cache")
    assert first["misses"] > 10
    assert second["misses"] == 0
    assert second["hits"] >= first["misses"]
    assert third == {"hits": 0, "misses": 0}
    for name in ("weights.safetensors", "losses.npy"):
        assert len({(tmp_path / kind / name).read_bytes() for kind in ("cold", "warm", "none")}) == 1
    assert "note: a compiled" not in cold + warm + none

    run(tmp_path, environment, "sample", "cold", "--out", "cold.npy")
    run(tmp_path, environment, "sample", "warm", "--out", "none.npy", "--no-cache")
    assert run(tmp_path, environment, "sample", "warm", "--out", "warm.npy")[1]["misses"] == 0
    assert len({(tmp_path / f"{kind}.npy").read_bytes() for kind in ("cold", "warm", "none")}) == 1

    entries = sorted((tmp_path / "cache" / "programs").rglob("*-cache"))
    for number, entry in enumerate(entries):  # cut off, not what it says, and not machine code
        contents = entry.read_bytes()
        damaged = (contents[: len(contents) // 2], b"", zlib.compress(b"0000 no program"))
        entry.write_bytes(damaged[number % 3])
    said, counts = run(tmp_path, environment, "sample", "warm", "--out", "again.npy")
    assert counts["misses"] > 0
    assert said.count("note: a compiled program") == 1
    assert "Error" not in said
    assert (tmp_path / "again.npy").read_bytes() == (tmp_path / "cold.npy").read_bytes()
    said, counts = run(tmp_path, environment, "sample", "warm", "--out", "again.npy", "--force")
    assert counts["misses"] == 0
    assert "note: a compiled" not in said
