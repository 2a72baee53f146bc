"""The cache of decoded arrays: what it saves, what it notices, where it lies, and who may write it at once."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_tfds import TINY, check_tiny, contents, library, prepared, random_images, read

from aevae_jax.data import cache, datasets


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test writes to the cache of whoever runs it."""
    monkeypatch.setenv("AEVAE_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def tiny(tmp_path):
    return prepared(tmp_path / "data", TINY)


def forget_how_to_decode(monkeypatch):
    def decoded(*_):
        raise AssertionError("it was decoded again")

    monkeypatch.setattr(library, "builder_from_directory", decoded)


def count_decodings(monkeypatch):
    """What grows whenever TFDS opens a data set, from which images can then be decoded."""
    counts, build = [], library.builder_from_directory
    monkeypatch.setattr(library, "builder_from_directory", lambda *given: counts.append(given) or build(*given))
    return counts


def test_the_second_start_decodes_nothing_and_imports_nothing_large(tiny, tmp_path):
    code = (
        "import sys; from aevae_jax.data import Data\n"
        f"print(Data('tiny', directory={str(tiny.parents[1])!r}).load().digest())\n"
        "print([name for name in ('tensorflow_datasets', 'tensorflow', 'jax') if name in sys.modules])"
    )
    first, second = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        for _ in range(2)
    )
    assert first.stdout.splitlines()[1] == "['tensorflow_datasets']"
    assert second.stdout.splitlines() == [first.stdout.splitlines()[0], "[]"]
    assert first.stderr == second.stderr == ""
    assert not (tmp_path / "cache").exists()  # it lies beside the data set


def test_tfds_does_not_see_the_cache(tiny):
    read(tiny)
    assert sorted(path.name for path in (tiny / cache.FOLDER).iterdir()) == [
        "manifest.json",
        "test.labels.npy",
        "test.x.npy",
        "train.labels.npy",
        "train.x.npy",
    ]
    builder = library.builder_from_directory(tiny)
    assert len(builder.as_data_source("train")) == 30
    assert library.builder("tiny", data_dir=str(tiny.parents[1])).version == "1.0.0"
    assert [path.name for path in tiny.glob(".*")] == [cache.FOLDER]  # and nothing that was in the making


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


def edit(folder, change):
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def swap(folder):
    for old, new in (("train.x.npy", "third"), ("test.x.npy", "train.x.npy"), ("third", "test.x.npy")):
        (folder / old).rename(folder / new)


def lengthen(path):
    """One byte more, and no trace of it in the time of change."""
    before = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes() + b"\n")
    os.utime(path, ns=(before, before))


def pipe(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    os.mkfifo(path)


DAMAGE = {
    "first byte": lambda folder: flip(folder / "train.x.npy", 0),
    "header": lambda folder: flip(folder / "train.x.npy", 70),
    "last byte": lambda folder: flip(folder / "train.x.npy", -1),
    "label": lambda folder: flip(folder / "test.labels.npy", -1),
    "truncated": lambda folder: os.truncate(folder / "train.x.npy", 200),
    "longer": lambda folder: os.truncate(folder / "train.x.npy", 2000),
    "empty": lambda folder: os.truncate(folder / "test.labels.npy", 0),
    "missing": lambda folder: (folder / "test.labels.npy").unlink(),
    "a pipe": lambda folder: pipe(folder / "train.x.npy"),
    "a pipe in its place": pipe,
    "a giant": lambda folder: os.truncate(folder / "train.x.npy", 2**40),
    "a giant manifest": lambda folder: os.truncate(folder / "manifest.json", 2**40),
    "a path": lambda folder: edit(folder, lambda m: m["shape"].update({"../x": m["shape"].pop("train.x")})),
    "swapped": swap,
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "no json": lambda folder: flip(folder / "manifest.json", 0),
    "bytes": lambda folder: (folder / "manifest.json").write_bytes(b"\xff\xfe\x00"),
    "nested": lambda folder: (folder / "manifest.json").write_text("[" * 100_000),
    "a list": lambda folder: (folder / "manifest.json").write_text("[]"),
    "other format": lambda folder: edit(folder, lambda m: m.update(format=m["format"] + 1)),
    "other source": lambda folder: edit(folder, lambda m: m.update(source="0" * 64)),
    "other shape": lambda folder: edit(folder, lambda m: m["shape"].update({"train.x": [15, 8, 4, 1]})),
    "other type": lambda folder: edit(folder, lambda m: m["type"].update({"train.x": "int8"})),
    "other sha256": lambda folder: edit(folder, lambda m: m["sha256"].update({"train.x.npy": "0" * 64})),
    "no sha256": lambda folder: edit(folder, lambda m: m.update(sha256=None)),
    "one entry less": lambda folder: edit(folder, lambda m: m["shape"].popitem()),
    "no folder": shutil.rmtree,
    "no array": lambda folder: [path.unlink() for path in folder.glob("*.npy")],
    "newer source": lambda folder: os.utime(folder.parent / "features.json"),
    "longer source": lambda folder: lengthen(folder.parent / "features.json"),
    "source with one more file": lambda folder: (folder.parent / "more").touch(),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_cache_that_is_damaged_or_of_another_source_is_made_anew(tiny, monkeypatch, damage):
    read(tiny)
    damage(tiny / cache.FOLDER)
    counts = count_decodings(monkeypatch)
    check_tiny(read(tiny))
    assert len(counts) == 1
    forget_how_to_decode(monkeypatch)
    check_tiny(read(tiny))


def test_every_single_byte_of_the_cache_counts(tiny, monkeypatch):
    """Whichever byte of an array or the manifest is flipped, what is loaded is what was stored, or nothing."""
    read(tiny)
    state, folder = cache.fingerprint(tiny), tiny / cache.FOLDER
    for path in (folder / "test.labels.npy", folder / "manifest.json"):
        for position in range(path.stat().st_size):
            flip(path, position)
            assert cache.load(tiny, state) is None
            flip(path, position)
    assert cache.load(tiny, state) is not None


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_the_cache_unpickles_nothing(tiny, tmp_path):
    read(tiny)
    trap = tmp_path / "sprung"
    for content in ("object", "plain"):
        path = tiny / cache.FOLDER / "test.labels.npy"
        if content == "object":
            np.save(path, np.array([Trap(trap)], object), allow_pickle=True)
        else:
            path.write_bytes(pickle.dumps(Trap(trap)))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        edit(tiny / cache.FOLDER, lambda m, digest=digest: m["sha256"].update({"test.labels.npy": digest}))
        check_tiny(read(tiny))
        assert not trap.exists()


@pytest.mark.parametrize("variable", ["AEVAE_CACHE_DIR", "XDG_CACHE_HOME", "HOME"])
def test_what_is_read_only_is_cached_elsewhere(tiny, tmp_path, monkeypatch, variable):
    """Root can write into a folder without write bits, and leaves it alone as well."""
    place = {"AEVAE_CACHE_DIR": "own", "XDG_CACHE_HOME": "own/aevae_jax", "HOME": "own/.cache/aevae_jax"}[variable]
    for name in ("AEVAE_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path / "own"))
    before = contents(tiny)
    tiny.chmod(0o555)
    check_tiny(read(tiny))
    assert contents(tiny) == before
    assert len(list((tmp_path / place / "arrays").glob("*/train.x.npy"))) == 1
    forget_how_to_decode(monkeypatch)
    check_tiny(read(tiny))
    tiny.chmod(0o755)


def test_data_sets_elsewhere_have_caches_of_their_own(tmp_path):
    for seed, home in enumerate(("one", "two")):
        splits = {"train": random_images(5, seed)}
        folder = prepared(tmp_path / home, splits)
        folder.chmod(0o555)
        check_tiny(read(folder), splits)
        check_tiny(read(folder), splits)
    assert len(list((tmp_path / "cache" / "arrays").iterdir())) == 2


@pytest.mark.parametrize("why", ["no write bits", "a file", "disk full"])
def test_without_a_place_that_can_be_written_nothing_is_cached(tiny, tmp_path, monkeypatch, why):
    tiny.chmod(0o555)
    if why == "no write bits":
        (tmp_path / "cache").mkdir(mode=0o555)
    elif why == "a file":
        (tmp_path / "cache").touch()
    else:
        monkeypatch.setattr(np, "save", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.ENOSPC, "disk full")))
    counts = count_decodings(monkeypatch)
    for _ in range(2):
        check_tiny(read(tiny))
    assert len(counts) == 2
    assert not list(tmp_path.rglob("*.npy"))
    assert not list((tmp_path / "cache").glob("arrays/*"))


WRITER = """
import sys, numpy as np
from pathlib import Path
from aevae_jax.data import cache
source, state, rounds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
arrays = {"train.x": np.arange(100_000), "test.x": np.arange(1000)}
for _ in range(rounds):
    cache.store(source, state, arrays)
    found = cache.load(source, state)
    assert found is None or all(np.array_equal(found[name], arrays[name]) for name in arrays)
"""


def test_processes_that_cache_at_once_do_not_harm_each_other(tmp_path):
    """Each finds all arrays or none, and afterwards one cache is there and nothing else."""
    source = tmp_path / "source"
    source.mkdir()
    command = [sys.executable, "-c", WRITER, str(source), "state", "25"]
    writers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [writer.communicate(timeout=120)[1] for writer in writers] == [""] * 3
    assert np.array_equal(cache.load(source, "state")["test.x"], np.arange(1000))
    assert not (tmp_path / "cache").exists()
    assert contents(source) == [
        cache.FOLDER,
        *(f"{cache.FOLDER}/{name}" for name in ("manifest.json", "test.x.npy", "train.x.npy")),
    ]


def test_a_writer_that_is_killed_leaves_nothing_that_is_read(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    kill = "import os; from pathlib import Path; Path.rename = lambda *_: os._exit(9)\n"  # all is written
    done = subprocess.run([sys.executable, "-c", kill + WRITER, str(source), "state", "1"], check=False, timeout=60)
    assert done.returncode == 9
    (left,) = source.iterdir()
    assert cache.load(source, "state") is None
    cache.store(source, "state", {"x": np.arange(3)})
    assert cache.load(source, "state")["x"].tolist() == [0, 1, 2]
    assert left.exists()  # it may be another process at work
    os.utime(left, (0, 0))
    cache.store(source, "state", {"x": np.arange(3)})
    assert [path.name for path in source.iterdir()] == [cache.FOLDER]


@pytest.mark.parametrize(("minutes", "stays"), [(59, True), (61, False)])
def test_what_was_left_unfinished_stays_for_an_hour(tmp_path, minutes, stays):
    left, other = tmp_path / "source" / f"{cache.FOLDER}.1234", tmp_path / "source" / "mine.1234"
    for folder in (left, other):
        folder.mkdir(parents=True)
        (folder / "x.npy").touch()
        os.utime(folder, (time.time() - 60 * minutes,) * 2)
    cache.store(tmp_path / "source", "state", {"x": np.arange(3)})
    assert left.exists() == stays
    assert other.exists()
    assert cache.load(tmp_path / "source", "state")["x"].tolist() == [0, 1, 2]


def test_an_array_of_the_largest_size_is_found_again(tmp_path, monkeypatch):
    """Its file is longer than the array by a header."""
    (tmp_path / "source").mkdir()
    x = np.arange(600, dtype=np.uint16)
    monkeypatch.setattr(datasets, "RESIDENT_BYTES", x.nbytes)
    cache.store(tmp_path / "source", "state", {"train.x": x})
    assert np.array_equal(cache.load(tmp_path / "source", "state")["train.x"], x)


def test_of_two_places_ones_own_comes_first(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    source = tmp_path / "source"
    source.mkdir(mode=0o555)
    cache.store(source, "state", {"x": np.arange(3)})
    assert list((tmp_path / "cache" / "arrays").glob("*/x.npy"))
    assert not (tmp_path / "other").exists()
    assert cache.load(source, "state")["x"].tolist() == [0, 1, 2]
    assert cache.load(source, "another") is None
    monkeypatch.delenv("AEVAE_CACHE_DIR")
    assert cache.load(source, "state") is None
    cache.store(source, "state", {"x": np.arange(3)})
    assert list((tmp_path / "other" / "aevae_jax" / "arrays").glob("*/x.npy"))
    assert cache.load(source, "state")["x"].tolist() == [0, 1, 2]
    monkeypatch.setenv("XDG_CACHE_HOME", "")  # as if it were not set
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    cache.store(source, "state", {"x": np.arange(3)})
    assert list((tmp_path / "home" / ".cache" / "aevae_jax" / "arrays").glob("*/x.npy"))


def test_without_a_home_folder_nothing_is_left_where_one_stands(tiny, tmp_path, monkeypatch):
    monkeypatch.delenv("AEVAE_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "~nosuchuser/cache")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    tiny.chmod(0o555)
    check_tiny(read(tiny))
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_that_changed_by_a_nanosecond_is_another(tmp_path):
    """Which no float holds beside the seconds since 1970."""
    (tmp_path / "a").touch()
    found = []
    for last in (0, 1):
        os.utime(tmp_path / "a", ns=(0, 1_700_000_000_000_000_000 + last))
        found.append(cache.fingerprint(tmp_path))
    assert found[0] != found[1]
