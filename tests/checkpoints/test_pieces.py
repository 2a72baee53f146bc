"""Checkpoints that several processes write and read: as many threads, with arrays divided among them, stand for these.

What only real processes and devices show is in runs/test_shards.py.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from test_store import DAMAGE, everything, rewrite

from aevae_jax.checkpoints import array_files, pieces, together
from aevae_jax.checkpoints.pieces import Piece
from aevae_jax.checkpoints.saving import DamageError, NonFiniteError
from aevae_jax.checkpoints.store import Store
from aevae_jax.types import InputError

DIVIDED = {"state/wide": 1, "state/long": 0, "half": 1}
"""The axis along which an array is divided; the others are the same in all processes."""


def arrays_of(seed):
    """An array of each kind; each process has them all, and is to write its part."""
    normal = np.random.RandomState(seed).standard_normal
    return {
        "state/wide": normal((6, 8)).astype(np.float32),
        "state/long": normal((16, 3, 2)).astype(np.float32),
        "half": normal((2, 8)).astype(ml_dtypes.bfloat16),
        "state/step": np.int32(seed).reshape(()),
        "state/small": np.array([-0.0, 1e-45, seed], np.float32),
        "empty": np.zeros((0, 2), np.float32),
        "logged/odd": np.array([np.nan, np.inf], np.float32),
    }


LIKE = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in arrays_of(0).items()}
BYTES = sum(array.nbytes for array in arrays_of(0).values())


def part(name, shape, process, count):
    """The region of an array that a process has."""
    region = [slice(0, size) for size in shape]
    if name in DIVIDED:
        each = shape[DIVIDED[name]] // count
        region[DIVIDED[name]] = slice(process * each, (process + 1) * each)
    return tuple(region)


def owned(count):
    """What stands for `pieces.own`, of arrays divided among so many processes."""

    def own(arrays, process):
        for name, array in arrays.items():
            if name in DIVIDED or process == 0:
                region = part(name, array.shape, process, count)
                yield Piece(name, tuple(each.start for each in region), array[region])

    return own


class Threads:
    """So many threads that tell each other values: what `runs.processes` is for processes."""

    def __init__(self, count, seconds=20):
        self.count, self._seconds = count, seconds
        self._here, self._values, self._all = threading.local(), [None] * count, threading.Barrier(count)

    def index(self):
        return self._here.index

    def timeout(self):
        return self._seconds

    def gather(self, value):
        self._values[self.index()] = json.dumps(value)
        self._all.wait(20)
        found = [json.loads(value) for value in self._values]
        self._all.wait(20)
        return found

    def share(self, value):
        return self.gather(value)[0]

    def do(self, function):
        """What the function returns in each thread, or the error that it raises; one ends all, as in processes."""
        found = [None] * self.count

        def run(index):
            self._here.index = index
            try:
                found[index] = function(index)
            except Exception as error:
                found[index] = error
                if not isinstance(error, NonFiniteError | DamageError):  # which all of them raise
                    self._all.abort()

        threads = [threading.Thread(target=run, args=(index,)) for index in range(self.count)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        return found


def save(folder, step, count, monkeypatch, *, arrays=None, folders=None, seconds=20):
    """What each of so many processes says of a save; `folders` where they have different ones."""
    monkeypatch.setattr(pieces, "own", owned(count))
    stores, peers = [Store(each) for each in folders or [folder] * count], Threads(count, seconds)
    given = arrays or [arrays_of(step)] * count
    return peers.do(lambda i: together.SharedStore(stores[i], peers).save(step, given[i], {"step": step, "process": i}))


def restore(folder, count, *, folders=None, seconds=20, until=None):
    """What each of so many processes restores: the step, the regions that it has, and the messages of damage."""
    peers = Threads(count, seconds)

    def place(process):
        return lambda name, spec, read: read(part(name, spec.shape, process, count))

    def restored(process):
        store = together.SharedStore(Store((folders or [folder] * count)[process]), peers)
        return store.restore_newest(lambda step, notes: LIKE, until=until, place=place(process))

    return peers.do(restored)


def assert_parts(found, step):
    """Each process has its part of every array of this step, bit for bit."""
    for process, restored in enumerate(found):
        assert not isinstance(restored, Exception), restored
        assert restored.step == step
        for name, array in arrays_of(step).items():
            expected = array[part(name, array.shape, process, len(found))]
            assert (restored.arrays[name].shape, restored.arrays[name].dtype) == (expected.shape, expected.dtype)
            assert restored.arrays[name].tobytes() == expected.tobytes(), name


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Steps 5 and 10 of two processes, of which tests damage copies."""
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    with pytest.MonkeyPatch.context() as patched:
        for step in (5, 10):
            assert save(folder, step, 2, patched) == [None, None]
    return folder


@pytest.fixture
def written(original, tmp_path):
    shutil.copytree(original, tmp_path / "run" / "checkpoints")
    return tmp_path / "run" / "checkpoints"


# --------------------------------------------------------------------------------------------------------- round trip


@pytest.mark.parametrize("writers", [1, 2, 4])
def test_any_number_of_processes_reads_what_any_number_wrote(tmp_path, monkeypatch, writers):
    folder = tmp_path / "checkpoints"
    assert save(folder, 7, writers, monkeypatch) == [None] * writers
    names = [f"{process}.{kind}" for process in range(writers) for kind in ("bin", "json")]
    assert sorted(os.listdir(folder / "7" / "arrays")) == sorted(names)
    assert sum((folder / "7" / "arrays" / f"{process}.bin").stat().st_size for process in range(writers)) == BYTES
    assert Store(folder).notes(7) == {"step": 7, "process": 0}
    for readers in (1, 2, 4):
        assert_parts(restore(folder, readers), 7)
    alone = Store(folder).restore_newest(lambda step, notes: LIKE)  # as `load_run` and `replay` read it
    assert_parts([alone._replace(arrays={name: np.asarray(array) for name, array in alone.arrays.items()})], 7)
    assert all(isinstance(array, jax.Array) and not array.committed for array in alone.arrays.values())


def test_each_process_writes_and_reads_its_part_and_no_more(written, monkeypatch):
    """Of two, a half of what is divided; whoever has another number reads the pieces that it needs, each once."""
    divided = sum(array.nbytes for name, array in arrays_of(0).items() if name in DIVIDED)
    assert (written / "10" / "arrays" / "1.bin").stat().st_size == divided // 2
    read, lock, real = [], threading.Lock(), pieces.read_bytes
    same = BYTES - divided

    def counted(path, offset, size):
        with lock:
            read.append((threading.current_thread().name, path.name, size))
        return real(path, offset, size)

    monkeypatch.setattr(pieces, "read_bytes", counted)
    for readers, each in ((2, same + divided // 2), (4, same + divided // 2), (1, same + divided)):
        del read[:]
        assert_parts(restore(written, readers), 10)
        threads = {name for name, _, _ in read}
        assert [sum(size for by, _, size in read if by == name) for name in threads] == [each] * readers
    del read[:]
    Store(written).restore(10, {"half": LIKE["half"]}, partial=True)
    assert [(name, size) for _, name, size in read] == [("0.bin", 16), ("1.bin", 16)]


def test_a_region_of_several_pieces_is_put_together(written):
    """Cut anywhere, along any axis; a piece that several regions need is read once."""
    found = pieces.Pieces(written / "10" / "arrays", *listed(written / "10"))
    for region in ((slice(1, 5), slice(2, 7)), (slice(None), slice(3, 4)), (slice(2, 2), slice(0, 8))):
        got = found.read("state/wide", LIKE["state/wide"], region)
        assert np.array_equal(got, arrays_of(10)["state/wide"][region])


def listed(folder):
    """The arguments of `pieces.Pieces` beside the folder."""
    return json.loads((folder / "manifest.json").read_text())["files"], array_files.walk(folder / "arrays")


def test_of_equal_pieces_the_first_device_has_one_to_write():
    """Arrays that lie on devices: their shards; those that all processes have: process 0."""
    array = jnp.arange(4)
    assert [len(list(pieces.own({"a": array, "b": np.ones(2)}, process))) for process in (0, 1)] == [2, 0]
    key = next(pieces.own({"key": jax.random.key(3)}, 0))
    assert (key.start, key.data.tolist()) == ((0,), [0, 3])


# ------------------------------------------------------------------------------------------------------- what may fail


def test_a_save_that_is_not_complete_leaves_the_step_before_as_the_newest(written, monkeypatch):
    """Each file that is missing, and the manifest: what a process that was killed leaves."""
    before = everything(written)
    real = pieces.write

    def fails(folder, process, its):
        if process == 1:
            raise InputError("checkpoint", got="1.bin, which cannot be written", expected="room and permission")
        return real(folder, process, its)

    monkeypatch.setattr(pieces, "write", fails)
    first, second = save(written, 11, 2, monkeypatch)
    assert str(second).startswith("checkpoint: got 1.bin, which cannot be written")
    assert isinstance(first, Exception)
    assert everything(written) == before
    monkeypatch.setattr(pieces, "write", real)
    shutil.copytree(written / "10", written / "12.tmp")
    Store(written).clean()
    assert everything(written) == before
    assert_parts(restore(written, 2), 10)


def test_a_checkpoint_has_no_name_before_all_files_are_seen(tmp_path, monkeypatch):
    """Process 0 waits for them, and each is on disk before."""
    folder, seen, real = tmp_path / "checkpoints", [], pieces.complete

    def complete(arrays, process, sha256):
        seen.append((process, sorted(os.listdir(folder)), real(arrays, process, "0" * 64)))
        return real(arrays, process, sha256) and len(seen) > 3

    monkeypatch.setattr(pieces, "complete", complete)
    assert save(folder, 3, 2, monkeypatch) == [None, None]
    assert [process for process, *_ in seen] == [0, 0, 0, 0, 1]
    assert all(names == ["3.tmp"] and not other for _, names, other in seen)
    assert sorted(os.listdir(folder)) == ["3"]


@pytest.mark.parametrize("name", ["state/wide", "half"])
def test_numbers_of_any_process_that_are_not_finite_are_not_saved(written, monkeypatch, name):
    before, broken = everything(written), arrays_of(11)
    broken[name][-1, -1] = np.nan
    for error in save(written, 11, 2, monkeypatch, arrays=[arrays_of(11), broken]):
        assert isinstance(error, NonFiniteError)
        assert str(error) == f"checkpoint of step 11: got NaN or infinity in {name}, expected finite numbers"
    assert everything(written) == before


def test_processes_that_see_different_folders_say_so_in_time(written, tmp_path, monkeypatch):
    """Where they read, by the lock and by the checkpoints, and where they write."""
    line = (
        r"process 1 \(.*\): got none of the files of process 0 within 0 s, expected a directory that all processes "
        "share; choose one, or train without --shard-params"
    )
    (tmp_path / "own").mkdir()
    own = [written, tmp_path / "own" / "checkpoints"]
    shutil.copytree(written, own[1])
    monkeypatch.setattr(together, "LOOK_SECONDS", 0.0)
    assert_parts(restore(written, 2, folders=own, seconds=0), 10)
    (written.parent / "lock").write_text("process 7")
    for change in (lambda: None, lambda: (written.parent / "lock").unlink() or shutil.rmtree(own[1] / "10")):
        change()
        first, second = restore(written, 2, folders=own, seconds=0)
        assert isinstance(first, Exception)
        with pytest.raises(InputError, match=line):
            raise second
    first, second = save(written, 11, 2, monkeypatch, folders=own, seconds=0)
    assert isinstance(first, Exception)
    with pytest.raises(InputError, match=line):
        raise second
    assert sorted(os.listdir(written)) == ["10", "5"]


# ------------------------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("kind", DAMAGE)
def test_every_damaged_file_makes_all_processes_find_the_step_before(written, kind):
    random, intact = np.random.RandomState(0), written.parent / "intact"
    shutil.copytree(written / "10", intact)
    for name in ("manifest.json", *(f"arrays/{process}.{suffix}" for process in (0, 1) for suffix in ("bin", "json"))):
        shutil.rmtree(written / "10")
        shutil.copytree(intact, written / "10")
        DAMAGE[kind](written / "10" / name, random)
        found = restore(written, 2)
        assert_parts(found, 5)
        for restored in found:
            assert len(restored.damaged) == 1
            assert restored.damaged[0].startswith(f"checkpoint of step 10 ({written / '10'}): got ")
        with pytest.raises(DamageError, match="expected intact files"):
            Store(written).restore(10, LIKE)


def test_damage_that_one_process_reads_counts_for_all(written):
    path = written / "10" / "arrays" / "1.bin"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert_parts(restore(written, 2), 5)
    assert_parts(restore(written, 1), 5)
    (written / "5" / "arrays" / "1.bin").unlink()
    for error in restore(written, 2):
        assert isinstance(error, DamageError)
        assert "2 of 2 damaged, the newest: checkpoint of step 10" in str(error)


def changed(piece=None, **fields):
    """A change of what describes the pieces of process 1, its digests right: of the second piece, or of a field."""

    def change(index):
        index.update(fields)
        if piece is not None:
            index["pieces"][1] = piece(index["pieces"][1])

    return change


@pytest.mark.parametrize(
    "change",
    [
        changed(lambda p: [*p[:3], 10**9, p[4]]),
        changed(lambda p: [*p[:3], -1, p[4]]),
        changed(lambda p: [p[0], [0, 10**9, 0], *p[2:]]),
        changed(lambda p: [p[0], [-8, 0, 0], *p[2:]]),
        changed(lambda p: [*p[:2], [16, 3, 2], *p[3:]]),
        changed(lambda p: [*p[:2], [4, 3, 2], *p[3:]]),
        changed(lambda p: [*p[:2], [8, 3], *p[3:]]),
        changed(lambda p: [*p[:2], "xyz", *p[3:]]),
        changed(lambda p: ["another", *p[1:]]),
        changed(lambda p: p[:4]),
        changed(pieces=3),
        changed(size=3),
        changed(size=None),
    ],
)
def test_descriptions_that_make_no_sense_are_damage_though_their_digests_are_right(written, change):
    path = written / "10" / "arrays" / "1.json"
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))

    def listed_alone(manifest):
        manifest["files"] = {name: entry for name, entry in manifest["files"].items() if name.endswith(".json")}

    rewrite(written / "10", listed_alone)
    with pytest.raises(DamageError, match=r"checkpoint of step 10 .*: got "):
        Store(written).restore(10, LIKE)
    assert Store(written).restore_newest(lambda step, notes: LIKE).step == 5


def test_too_large_a_description_is_not_read(written, monkeypatch):
    monkeypatch.setattr(pieces, "LARGEST_INDEX", 10)
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail("read") if path.name == "0.json" else b"")
    with pytest.raises(ValueError, match=r"bytes of arrays/0\.json"):
        pieces.Pieces(written / "10" / "arrays", {"0.json": [11, ""]}, {"0.json": 11})


def test_want_of_memory_on_the_way_to_a_device_is_not_damage(written):
    def place(name, spec, read):
        raise MemoryError

    with pytest.raises(MemoryError):
        Store(written).restore_newest(lambda step, notes: LIKE, place=place)
