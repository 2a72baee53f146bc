"""Checkpoints: back bit for bit, or a message and the one before it; a save is whole and durable, or did not happen."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore
from orbax.checkpoint import Checkpointer

from aevae_jax.checkpoints import array_files
from aevae_jax.checkpoints.saving import DamageError, OtherRunError, Saving
from aevae_jax.checkpoints.store import Store
from aevae_jax.types import InputError

BITS = np.array([0x80000000, 1, 0x7F7FFFFF, 0x7F800000, 0x7FC00001, 0xFFFFFFFF], np.uint32)
NOTES = {"epoch": 3, "value": 0.1 + 0.2, "boundary": False, "text": "ä\u2028", "tiny": 5e-324, "none": None}


@functools.cache
def arrays_of(seed=0):
    """Every kind of array, with names that contain one another."""
    normal, key = np.random.RandomState(seed).standard_normal, jax.random.key(seed)
    return {
        "state/w": jnp.asarray(normal((16, 8)), jnp.float32),
        "state/w/b": np.zeros(3, np.float32),
        "state/w.b": -jnp.zeros(3),
        "half": jnp.asarray(BITS[:2].view(np.uint16), jnp.uint16).view(jnp.bfloat16),
        "bool": np.array([True, False]),
        "int": jnp.asarray([-(2**31), 7]),
        "uint": np.array([2**32 - 1], np.uint32),
        "scalar": jnp.float32(seed),
        "count": np.int32(seed),
        "empty": jnp.zeros((0, 2)),
        "turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "logged/odd": BITS.view(np.float32),
        "key": key,
        "keys": jax.random.split(jax.random.key(1, impl="rbg"), 2),
        "no keys": jax.random.split(jax.random.key(2), 3)[:0],
    }


def like_of(arrays):
    return {name: jax.ShapeDtypeStruct(a.shape, a.dtype) for name, a in arrays.items()}


LIKE = like_of(arrays_of())


def newest(store, like=LIKE, **options):
    return store.restore_newest(lambda step, notes: like, **options)


def bits(array):
    return np.asarray(jax.random.key_data(array) if jnp.issubdtype(array.dtype, jax.dtypes.prng_key) else array)


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert isinstance(found[name], jax.Array)
        assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype)
        assert bits(found[name]).tobytes() == bits(array).tobytes(), name
        assert found[name].devices() == {jax.devices()[0]}
        assert not found[name].committed  # to that device: else what uses it would be compiled anew


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Steps 5 and 10, of which tests damage copies."""
    store = Store(tmp_path_factory.mktemp("run") / "checkpoints")
    for step in (5, 10):
        store.save(step, arrays_of(step), {**NOTES, "step": step})
    return store.folder


@pytest.fixture
def store(written, tmp_path):
    shutil.copytree(written, tmp_path / "run" / "checkpoints")
    return Store(tmp_path / "run" / "checkpoints")


def damaged(store, match, step=10, like=LIKE):
    with pytest.raises(DamageError, match=match) as caught:
        store.restore(step, like)
    assert "intact files" in str(caught.value)
    assert f"checkpoint of step {step} ({store.folder}" in str(caught.value)


def rewrite(folder, change=lambda manifest: None):
    """What someone who knows the format can do: a manifest with other contents, all its digests right."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = {
        p.relative_to(folder / "arrays").as_posix(): [p.stat().st_size, hashlib.sha256(p.read_bytes()).hexdigest()]
        for p in (folder / "arrays").rglob("*")
        if p.is_file()
    }
    change(manifest)
    manifest.pop("sha256", None)
    tight = {"sort_keys": True, "separators": (",", ":")}
    digest = hashlib.sha256(json.dumps(manifest, **tight).encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps({**manifest, "sha256": digest}, **tight))


# --------------------------------------------------------------------------------------------------------- round trip


def test_everything_comes_back_bit_for_bit(store):
    assert store.steps() == [5, 10]
    found = newest(store)
    assert (found.step, found.damaged) == (10, ())
    assert_same(found.arrays, arrays_of(10))
    assert found.notes == store.notes(10) == {**NOTES, "step": 10}
    assert np.array_equal(jax.random.normal(found.arrays["key"], (3,)), jax.random.normal(jax.random.key(10), (3,)))
    assert_same(newest(store, until=9).arrays, arrays_of(5))
    assert newest(store, until=5).step == 5
    assert newest(store, until=4) is None


def test_nothing_is_there_before_the_first_save(tmp_path):
    store = Store(tmp_path / "checkpoints")
    store.clean()
    store.retain(Saving())
    store.discard([3])
    assert (store.steps(), newest(store), list(tmp_path.iterdir())) == ([], None, [])
    store.save(0, {"empty": np.zeros((0, 2), np.float32)}, {})
    assert_same(store.restore(0, {"empty": LIKE["empty"]}), {"empty": np.zeros((0, 2), np.float32)})
    assert sorted(os.listdir(tmp_path / "checkpoints" / "0")) == ["arrays", "manifest.json"]


def test_few_files_and_no_device_in_them(written):
    files = [path for path in (written / "10").rglob("*") if path.is_file()]
    assert len(files) < 20
    assert not any(b"sharding" in p.read_bytes().lower() or b"device" in p.read_bytes().lower() for p in files)


def test_a_step_is_replaced_as_a_whole(store):
    store.save(10, {"w": np.ones(2, np.float32)}, {"again": True})
    assert_same(store.restore(10, like_of({"w": np.ones(2, np.float32)})), {"w": np.ones(2, np.float32)})
    assert store.notes(10) == {"again": True}
    assert sorted(os.listdir(store.folder)) == ["10", "5"]


def test_a_save_within_a_running_event_loop_as_of_a_notebook(store):
    import asyncio

    async def cell():
        store.save(11, arrays_of(11), {})
        return store.restore(11, LIKE)

    assert_same(asyncio.run(cell()), arrays_of(11))


def test_everything_is_on_disk_before_it_is_given_its_name(tmp_path, monkeypatch):
    events, fsync, rename = [], os.fsync, Path.rename
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd)))
    monkeypatch.setattr(Path, "rename", lambda a, b: (events.append("rename"), rename(a, b))[1])
    Store(tmp_path / "checkpoints").save(1, arrays_of(), {})
    at = events.index("rename")
    synced = {Path(path).relative_to(tmp_path / "checkpoints" / "1.tmp").as_posix() for path in events[1:at]}
    final = tmp_path / "checkpoints" / "1"
    assert synced == {".", *(path.relative_to(final).as_posix() for path in final.rglob("*"))}
    assert events[0] == str(tmp_path)
    assert events[at + 1 :] == [str(tmp_path / "checkpoints")]


# ------------------------------------------------------------------------------------------------------------- damage


def flip(path, random):
    contents = bytearray(path.read_bytes())
    contents[random.randint(len(contents))] ^= 1 << random.randint(8)
    path.write_bytes(contents)


def link(path, random):
    path.rename(path.parents[1] / "moved")
    path.symlink_to(path.parents[1] / "moved")


DAMAGE = {
    "flip": flip,
    "truncate": lambda path, random: os.truncate(path, random.randint(path.stat().st_size)),
    "extend": lambda path, random: path.write_bytes(path.read_bytes() + b"\0"),
    "empty": lambda path, random: path.write_bytes(b""),
    "delete": lambda path, random: path.unlink(),
    "link": link,
    "folder": lambda path, random: (path.unlink(), path.mkdir()),
    "pipe": lambda path, random: (path.unlink(), os.mkfifo(path)),
    "add": lambda path, random: path.with_name("manifest.json" if path.parent.name == "10" else "new").write_bytes(b""),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_every_damaged_file_is_noticed_and_the_step_before_is_found(store, written, kind):
    random = np.random.RandomState(0)
    names = [path.relative_to(written / "10") for path in (written / "10").rglob("*") if path.is_file()]
    assert Path("manifest.json") in names
    for name in names:
        for again in range(4 if kind == "flip" else 1):
            shutil.rmtree(store.folder / "10")
            shutil.copytree(written / "10", store.folder / "10")
            DAMAGE[kind](store.folder / "10" / name, random)
            damaged(store, "got ")
            if again == 0:
                found = newest(store)
                assert (found.step, len(found.damaged)) == (5, 1)
                assert f"checkpoint of step 10 ({store.folder / '10'}): got " in found.damaged[0]
                assert_same(found.arrays, arrays_of(5))
                assert store.steps() == [5, 10]


@pytest.mark.parametrize("name", ["10", "10/arrays", "10/arrays/d"])
def test_linked_folders_are_not_followed(store, name):
    (store.folder / name).rename(store.folder.parent / "moved")
    (store.folder / name).symlink_to(store.folder.parent / "moved")
    damaged(store, "a link or ")
    store.discard([10])
    assert (store.folder.parent / "moved").is_dir()
    assert store.steps() == [5]


def test_a_manifest_that_no_training_fills_is_not_read(store):
    os.truncate(store.folder / "10" / "manifest.json", 64 * 2**20 + 1)
    damaged(store, "something else in the place of manifest.json")


def test_all_damaged_is_an_error_that_says_so(store):
    for step in (5, 10):
        (store.folder / f"{step}" / "manifest.json").unlink()
    with pytest.raises(DamageError, match=r"2 of 2 damaged, the newest: .*step 10 .*No such file.*--fresh"):
        newest(store)
    with pytest.raises(DamageError, match=r"step 10 .*No such file or directory: manifest\.json"):
        store.notes(10)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"epoch":3', '"epoch":4'),
        ('"step":10}', '"step":11}'),
        ('"format":1', '"format":2'),
        ("{", "["),
        ('"text"', '"Text"'),
        ('"sha256":"', '"sha256":"0'),
        ('"epoch":3', '"epoch": 3'),
        ('"epoch":3', '"epoch":3,"epoch":3'),
        ('"epoch":3', '"epoch":NaN'),
        ('"epoch":3', '"epoch":1e999'),
        ('"epoch":3', f'"epoch":{"[" * 99999}'),
        ("5e-324", "5E-324"),
        ('"epoch":3', f'"epoch":{"1" * 5000}'),
        ('"text":"', '"text":"\udcff'),
    ],
)
def test_a_manifest_that_was_edited_is_noticed(store, old, new):
    path = store.folder / "10" / "manifest.json"
    text = path.read_text()
    assert old in text
    path.write_bytes(text.replace(old, new, 1).encode(errors="surrogateescape"))
    damaged(store, "got ")
    with pytest.raises(DamageError):
        store.notes(10)


def test_a_manifest_of_another_step_is_noticed(store):
    (store.folder / "10").rename(store.folder / "12")
    damaged(store, "the manifest.json of step 10", step=12)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["files"].update({"../../5/manifest.json": next(iter(m["files"].values()))}),
        lambda m: m["files"].update({"/etc/passwd": [1, ""]}),
        lambda m: m["files"].update({"manifest.ocdbt": [1, ""]}),
        lambda m: m["files"].update({"manifest.ocdbt": [m["files"]["manifest.ocdbt"][0], "0" * 64]}),
        lambda m: m["files"].update({"manifest.ocdbt": None}),
        lambda m: m.update(files=[1]),
        lambda m: m.pop("files"),
        lambda m: m.pop("arrays"),
        lambda m: m.update(arrays=3),
        lambda m: m.update(notes=[]),
        lambda m: m.pop("notes"),
        lambda m: m.pop("step"),
        lambda m: m.pop("format"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_damage_though_its_digest_is_right(store, change):
    rewrite(store.folder / "10")
    assert_same(store.restore(10, LIKE), arrays_of(10))
    rewrite(store.folder / "10", change)
    damaged(store, "got ")


def test_a_newer_format_is_not_damage(store):
    rewrite(store.folder / "10", lambda manifest: manifest.update(format=3))
    with pytest.raises(
        InputError, match="got format 3, expected format 1 or 2; use the version that wrote it"
    ) as caught:
        newest(store)
    assert not isinstance(caught.value, DamageError)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"state/w": jax.ShapeDtypeStruct((16, 9), np.float32)},
            r"\[\[16, 8\], 'float32'\] for state/w, of another model, "
            r"expected \[\[16, 9\], 'float32'\], as in run.json",
        ),
        ({"state/w": jax.ShapeDtypeStruct((16, 8), np.int32)}, r"\[\[16, 8\], 'float32'\] for state/w, of another"),
        ({"key": LIKE["uint"]}, r"\[\[\], 'key<fry>'\] for key, of another"),
        ({"more": LIKE["int"]}, "nothing for more, of another"),
    ],
)
def test_another_model_is_not_damage(store, change, message):
    with pytest.raises(InputError, match=message) as caught:
        newest(store, {**LIKE, **change})
    assert not isinstance(caught.value, DamageError)
    with pytest.raises(InputError, match=r"'float32'\] for turned, of another model, expected nothing, as in run.json"):
        newest(store, {name: spec for name, spec in LIKE.items() if name != "turned"})


HUGE = 2**44  # bytes of it fit nowhere


@pytest.mark.parametrize(
    "header",
    [
        {"shape": [HUGE, 8]},
        {"shape": [HUGE, 8], "chunks": [HUGE, 8]},
        {"chunks": [HUGE, 8]},
        {"dtype": "<f8"},
        {"shape": [128], "chunks": [128]},
        {"chunks": [HUGE, 8], "compressor": {"id": "zstd", "level": 1}},
    ],
)
def test_orbax_is_not_believed_about_shapes_and_types(store, header):
    folder = store.folder / "10"
    database = tensorstore.KvStore.open({"driver": "ocdbt", "base": f"file://{folder}/arrays/"}).result()
    database["state/w/.zarray"] = json.dumps({**json.loads(database["state/w/.zarray"]), **header})
    rewrite(folder)
    damaged(
        store,
        "got (another shape or type of state/w in arrays than in|parts of state/w that are larger than the whole)",
    )
    assert newest(store).step == 5


def test_orbax_is_not_believed_about_names_and_kinds(store):
    path = store.folder / "10" / "arrays" / "_METADATA"
    described = json.loads(path.read_text())
    entries = described["tree_metadata"]
    without = {name: entry for name, entry in entries.items() if name != "('half',)"}
    scalars = json.loads(json.dumps(entries).replace("np.ndarray", "scalar"))
    for changed in (without, {**without, "('half',)": entries["('int',)"]}, scalars, {}, None):
        path.write_text(json.dumps({**described, "tree_metadata": changed}))
        rewrite(store.folder / "10")
        damaged(store, "got ")


@pytest.mark.parametrize(
    "error", [ValueError("no"), KeyError("no"), RuntimeError("no"), OSError(5, "no"), AssertionError("no")]
)
@pytest.mark.parametrize("method", ["metadata", "restore"])
def test_whatever_orbax_raises_is_damage(store, monkeypatch, method, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(Checkpointer, method, fail)
    damaged(store, "got '?no'?, expected")


def test_arrays_that_orbax_changes_are_damage(store, monkeypatch):
    restore = Checkpointer.restore
    for change in (np.int64, np.ravel):
        with monkeypatch.context() as patched:
            patched.setattr(
                Checkpointer, "restore", lambda *a, c=change, **k: {**(r := restore(*a, **k)), "turned": c(r["turned"])}
            )
            damaged(store, "another shape or type of turned than was saved")


def test_files_much_larger_than_the_arrays_are_not_read(store, monkeypatch):
    with (store.folder / "10" / "arrays" / "_METADATA").open("ab") as file:
        file.truncate(2**26 + 2**20)
    rewrite(store.folder / "10")
    monkeypatch.setattr(array_files, "digest", lambda path: pytest.fail("read"))
    damaged(store, "files much larger than the arrays in them")
    with (store.folder / "10" / "manifest.json").open("ab") as file:
        file.truncate(2**40)
    damaged(store, "in the place of manifest.json")


def test_nothing_of_a_damaged_checkpoint_reaches_orbax(store, monkeypatch):
    flip(store.folder / "10" / "arrays" / "manifest.ocdbt", np.random.RandomState(0))
    monkeypatch.setattr(array_files, "read_arrays", lambda path, specs: pytest.fail("read"))
    damaged(store, "bytes of arrays/manifest.ocdbt that do not match their sha256")


def test_want_of_memory_is_not_damage(store, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(array_files, "read_arrays", fail)
    with pytest.raises(MemoryError):
        newest(store)


# -------------------------------------------------------------------------------------------------------------- saving


def everything(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_not_saved(store, bad):
    before = everything(store.folder)
    for name in ("state/w", "half", "scalar", "turned"):
        array = arrays_of()[name]
        arrays = {**arrays_of(), name: jnp.asarray(array).ravel().at[-1].set(bad).reshape(array.shape)}
        with pytest.raises(InputError, match=f"checkpoint of step 11: got NaN or infinity in {name}, expected finite"):
            store.save(11, arrays, {})
    for notes in ({"value": bad}, {"deep": [{"value": bad}]}):
        with pytest.raises(InputError, match="checkpoint of step 11: got NaN or infinity in its notes"):
            store.save(11, arrays_of(), notes)
    assert everything(store.folder) == before
    assert sorted(os.listdir(store.folder)) == ["10", "5"]


def test_numbers_of_every_kind_are_looked_at_but_for_those_that_are_logged():
    odd = np.array([0.0, np.nan])
    assert array_files.not_finite({"a": np.zeros(2), "b": np.arange(3), "logged/a": odd}) is None
    assert array_files.not_finite({"logged/a": odd, "logged": odd}) == "logged"
    assert array_files.not_finite({"logged/a": odd, "logged too": np.array([np.inf, 1])}) == "logged too"
    assert array_files.not_finite({"a": np.zeros(2), "b": odd + 1j, "c": odd}) == "b"
    assert array_files.not_finite({"half": jnp.asarray(odd, jnp.bfloat16)}) == "half"


def test_one_transfer_tells_whether_numbers_are_finite(monkeypatch):
    arrays, calls, asarray = {f"w{i}": jnp.ones(i) for i in range(9)}, [], np.asarray
    array_files.not_finite(arrays)  # compiled
    monkeypatch.setattr(
        np, "asarray", lambda a, *rest, **more: (calls.append((type(a), np.shape(a))), asarray(a, *rest, **more))[1]
    )
    array_files.not_finite(arrays)
    assert [shape for kind, shape in calls if issubclass(kind, jax.Array)] == [(9,)]


def fail_in(monkeypatch, where, error):
    def fail(*_, **__):
        raise error

    if where == "Orbax":
        monkeypatch.setattr(Checkpointer, "save", fail)
    elif where == "last rename":
        rename = Path.rename
        monkeypatch.setattr(Path, "rename", lambda a, b: fail() if a.name == "10.tmp" else rename(a, b))
    else:
        monkeypatch.setattr(where, "fsync", fail)


@pytest.mark.parametrize("where", ["Orbax", os, "last rename"])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (RuntimeError(), "RuntimeError"),
        (ValueError("OUT_OF_RANGE: Error writing, and so on [os_error_code='28'] more"), "No space left on device"),
        (ExceptionGroup("many", [ValueError("one")]), r"many \(1 sub-exception\)"),
    ],
)
def test_a_save_that_fails_leaves_the_others(store, monkeypatch, where, error, reason):
    before = everything(store.folder)
    with monkeypatch.context() as patched:
        fail_in(patched, where, error)
        message = rf"\({store.folder}/10\): got {reason}, expected room and permission to write; .* good one is step 10"
        with pytest.raises(InputError, match=message):
            store.save(10, arrays_of(99), {})
    assert everything(store.folder) == before
    assert_same(newest(store).arrays, arrays_of(10))
    store.save(11, arrays_of(11), {})
    assert_same(newest(store).arrays, arrays_of(11))


def test_an_interrupt_passes_through_and_leaves_nothing(store, monkeypatch):
    for error in (KeyboardInterrupt, SystemExit):
        fail_in(monkeypatch, "Orbax", error())
        with pytest.raises(error):
            store.save(11, arrays_of(), {})
        assert sorted(os.listdir(store.folder)) == ["10", "5"]


def test_a_failed_first_save_says_that_there_is_none(tmp_path, monkeypatch):
    fail_in(monkeypatch, "Orbax", RuntimeError("x"))
    with pytest.raises(InputError, match=r"got x, expected room .*; no checkpoint exists yet"):
        Store(tmp_path / "checkpoints").save(1, arrays_of(), {})


CHILD = """
import pathlib, sys, resource, numpy as np
from aevae_jax.checkpoints import Store
from aevae_jax.types import InputError
store, arrays = Store(pathlib.Path(sys.argv[1])), {"w": np.random.RandomState(0).standard_normal(300_000)}
arrays = {"w": arrays["w"].astype(np.float32)}
"""
LIMITED = """
for limit in (800_000, 10):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, 1_000_000))
    try:
        store.save(2, arrays, {})
    except InputError as error:
        print(error)
"""
ENDLESS = """
while True:
    step = max([*store.steps(), 0]) + 1
    store.save(step, arrays, {"step": step})
    print(step, flush=True)
"""
BIG = {"w": jax.ShapeDtypeStruct((300_000,), np.float32)}


def start(code, folder):
    command = [sys.executable, "-W", "error", "-c", CHILD + code, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_no_room_for_the_file_is_one_line(tmp_path):
    store = Store(tmp_path / "checkpoints")
    store.save(1, {"w": np.ones(300_000, np.float32)}, {})
    before = everything(tmp_path)
    with start(LIMITED, store.folder) as child:
        output, errors = child.communicate()
    assert output.count("got File too large, expected room and permission to write; the last good one is step 1") == 2
    assert output.count("\n") == 2
    assert errors == ""
    assert everything(tmp_path) == before
    assert newest(store, BIG).step == 1


def test_what_was_acknowledged_survives_a_kill_at_any_moment(tmp_path):
    store, random = Store(tmp_path / "checkpoints"), np.random.RandomState(0)
    for _ in range(2):
        with start(ENDLESS, store.folder) as child:
            acknowledged = [int(child.stdout.readline()) for _ in range(3)]
            time.sleep(random.uniform(0, 0.05))
            child.send_signal(signal.SIGKILL)
            acknowledged += [int(line) for line in child.stdout]
        store.clean()
        found = newest(store, BIG)
        assert (found.step in (acknowledged[-1], acknowledged[-1] + 1), found.damaged) == (True, ())
        assert found.notes == {"step": found.step}
        assert sorted(map(int, os.listdir(store.folder))) == store.steps() == list(range(1, found.step + 1))


@pytest.mark.parametrize("moment", ["before", "while"])
def test_a_removed_run_is_an_error_and_not_made_again(store, monkeypatch, moment):
    write = array_files.write_arrays
    if moment == "before":
        shutil.rmtree(store.folder.parent)
    else:
        monkeypatch.setattr(array_files, "write_arrays", lambda *a: (shutil.rmtree(store.folder.parent), write(*a)))
    with pytest.raises(InputError, match=r"got No such file or directory: .*, expected room and permission to write"):
        store.save(11, arrays_of(), {})
    assert not store.folder.parent.exists()
    assert (store.steps(), newest(store)) == ([], None)


# ----------------------------------------------------------------------------------------------- leftovers, retention


def test_what_a_killed_process_left_is_no_checkpoint_and_is_removed(store):
    for name in ("12.tmp", "5.tmp", "7.old.tmp", "10.old.tmp", "8.gone.tmp"):
        shutil.copytree(store.folder / "5", store.folder / name)
    shutil.move(store.folder / "7.old.tmp" / "manifest.json", store.folder / "5.gone.tmp")
    others = ["007", "-1", "mine.tmp", "1.5", "1.tmp.txt", "٣", "x.old.tmp"]
    for name in others:
        (store.folder / name).mkdir()
    assert store.steps() == [5, 10]
    assert newest(store).step == 10
    store.clean()
    assert sorted(os.listdir(store.folder)) == sorted(["5", "7", "10", *others])
    with pytest.raises(DamageError):  # moved out of the way by a save of step 7 that did not end: it is what there was
        store.notes(7)


def test_a_kill_between_the_two_renames_of_a_replacement_loses_nothing(store):
    (store.folder / "10").rename(store.folder / "10.old.tmp")
    shutil.copytree(store.folder / "5", store.folder / "10.tmp")
    Store(store.folder).clean()
    assert sorted(os.listdir(store.folder)) == ["10", "5"]
    assert_same(newest(store).arrays, arrays_of(10))


def test_a_save_over_leftovers_of_the_same_step(store):
    (store.folder / "11.tmp" / "arrays").mkdir(parents=True)
    (store.folder / "11.gone.tmp").write_text("x")
    store.save(11, arrays_of(11), {})
    store.discard([11, 11, 12])
    assert sorted(os.listdir(store.folder)) == ["10", "5"]


VALUES = {0: None, 10: 5.0, 20: 3.0, 30: 3.0, 40: 4, 50: None, 60: 6.0, 70: 7.0}
"""Step to value; an epoch has 20 steps, so that every other one is a boundary."""


@pytest.mark.parametrize(
    ("saving", "kept"),
    [
        (Saving(), [20, 60, 70]),
        (Saving(last=1, best=0), [70]),
        (Saving(last=3, best=0), [50, 60, 70]),
        (Saving(last=1, best=2), [20, 30, 70]),
        (Saving(last=1, best=3), [20, 30, 40, 70]),
        (Saving(last=9), [*VALUES]),
        (Saving(last=1, best=99), [10, 20, 30, 40, 60, 70]),
        (Saving(last=1, best=0, every=1), [20, 40, 60, 70]),
        (Saving(last=1, best=0, every=2), [40, 70]),
        (Saving(last=1, best=1, every=3), [20, 60, 70]),
    ],
)
def test_retention(tmp_path, saving, kept):
    store = Store(tmp_path / "checkpoints")
    for step, value in VALUES.items():
        store.save(step, {}, {"epoch": step // 20, "value": value, "boundary": step % 20 == 0})
    store.retain(saving)
    assert store.steps() == kept
    Store(store.folder).retain(saving)
    assert store.steps() == kept
    assert sorted(map(int, os.listdir(store.folder))) == kept


def test_what_belongs_to_no_epoch_is_neither_best_nor_for_good(tmp_path):
    store = Store(tmp_path / "c")
    for step, notes in enumerate([{"value": 1.0, "boundary": True}, {"epoch": 1, "value": 0.0}, {"epoch": 2}, {}]):
        store.save(step, {}, notes)
    store.retain(Saving(last=1, best=1, every=1))
    assert store.steps() == [1, 3]


def test_a_damaged_manifest_is_neither_best_nor_for_good(tmp_path):
    for step in (0, 1, 2, 3, 4):
        Store(tmp_path / "c").save(step, {}, {"epoch": step, "value": float(step), "boundary": True})
    for step in (1, 4):
        (tmp_path / "c" / str(step) / "manifest.json").write_text("{}")
    Store(tmp_path / "c").retain(Saving(last=1, best=2, every=1))
    assert Store(tmp_path / "c").steps() == [0, 2, 3, 4]
    Store(tmp_path / "c").retain(Saving(last=1, best=1, every=0))
    assert Store(tmp_path / "c").steps() == [0, 4]


def test_what_was_just_saved_is_kept_beside_newer_ones_and_read_once(store, monkeypatch):
    store.save(7, arrays_of(7), {"epoch": 1})
    store.retain(Saving(last=1, best=0))
    assert store.steps() == [7, 10]
    monkeypatch.setattr(store, "notes", lambda step: pytest.fail("read again"))
    store.retain(Saving(last=1, best=0))


def test_notes_of_a_replaced_step_count_and_the_working_directory_may_change(tmp_path, monkeypatch):
    for name in ("here", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    store = Store(Path("checkpoints"))
    for step, value in ((1, 5.0), (2, 4.0), (3, None)):
        store.save(step, {}, {"epoch": step, "value": value})
    store.retain(Saving(last=3))
    monkeypatch.chdir(tmp_path / "elsewhere")
    for step, value in ((1, 3.0), (3, None)):
        store.save(step, {}, {"epoch": step, "value": value})
    store.retain(Saving(last=1, best=1))
    assert store.steps() == [1, 3]
    assert sorted(os.listdir(tmp_path / "here" / "checkpoints")) == ["1", "3"]
    assert os.listdir(tmp_path / "elsewhere") == []


def test_what_is_deleted_is_out_of_the_way_before_anything_is_removed(store, monkeypatch):
    """Half of a checkpoint must not look like a damaged one, however the process ends."""
    events, rename, remove, fsync = [], Path.rename, array_files.remove, os.fsync
    monkeypatch.setattr(Path, "rename", lambda a, b: (events.append(f"{a.name} to {b.name}"), rename(a, b))[1])
    monkeypatch.setattr(array_files, "remove", lambda path: (path.exists() and events.append(path.name), remove(path)))
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append("sync"), fsync(fd)))
    store.discard([10, 3, 5])
    assert events == ["5 to 5.gone.tmp", "10 to 10.gone.tmp", "sync", "5.gone.tmp", "10.gone.tmp"]
    assert os.listdir(store.folder) == []


def test_whose_a_checkpoint_is_is_told_by_its_digest(tmp_path):
    """Of a damaged one nobody can tell; one of a newer version is said to be one."""
    folder = tmp_path / "c"
    for step, run in ((1, "a"), (2, "b"), (3, "")):
        Store(folder, run=run).save(step, {}, {"of": run})
    for run, readable in ((None, [1, 2, 3]), ("a", [1]), ("b", [2]), ("", [3])):
        store, found = Store(folder, run=run), []
        for step in store.steps():
            with contextlib.suppress(OtherRunError):
                assert store.notes(step)["of"] == {1: "a", 2: "b", 3: ""}[step]
                found.append(step)
        assert found == readable
        if run is not None:
            other = min({1, 2, 3} - set(readable))
            with pytest.raises(
                OtherRunError, match=rf"checkpoint of step {other} \(.*/c/{other}\): got that of another"
            ):
                store.check()
    Store(folder).check()
    for step in (2, 3):
        (folder / str(step) / "manifest.json").write_text("{}")
    Store(folder, run="a").check()
    rewrite(folder / "1", lambda manifest: manifest.update(format=3))
    with pytest.raises(InputError, match=r"checkpoint of step 1 .*got format 3"):
        Store(folder, run="a").check()


def test_a_file_in_the_place_of_the_checkpoints_is_refused(tmp_path):
    (tmp_path / "c").touch()
    for call in (Store(tmp_path / "c").steps, Store(tmp_path / "c").check, Store(tmp_path / "c").clean):
        with pytest.raises(InputError, match=r"checkpoints \(.*/c\): got a file, expected a directory; remove it, or"):
            call()


def test_failing_to_delete_is_one_line(store, monkeypatch):
    def fail(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(InputError, match=rf"checkpoints \({store.folder}\): got Read-only file system, expected"):
        store.discard([5])
    assert store.steps() == [5, 10]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seconds", -1.0),
        ("seconds", float("nan")),
        ("seconds", float("inf")),
        ("last", 0),
        ("best", -1),
        ("every", -1),
        ("steps", -1),
    ],
)
def test_savings_that_make_no_sense_are_refused(field, value):
    with pytest.raises(InputError, match=f"Saving {field}: got {value}, expected "):
        Saving(**{field: value})


def test_savings_print_and_compare():
    assert Saving(seconds=0, last=1, best=0, every=0) == Saving(0.0, 1, 0, 0)
    assert repr(Saving()) == "Saving(seconds=60.0, last=2, best=1, every=0, steps=0)"


def test_importing_is_light():
    code = "import sys, aevae_jax.checkpoints; assert not {'jax', 'numpy', 'orbax'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
