"""Parameters divided among two processes of two devices: each saves and restores its own part, and no more."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest

from aevae_jax import values
from aevae_jax.checkpoints.store import Store
from aevae_jax.models import VAE
from aevae_jax.models.architectures import MLP
from aevae_jax.models.likelihoods import Bernoulli
from aevae_jax.models.priors import StandardNormal
from aevae_jax.runs import fitting, processes
from aevae_jax.runs.run import Run

X = (np.random.default_rng(0).random((240, 8, 8, 1)) * 2).astype(np.uint8)
LIMIT = 180
"""Seconds after which a process counts as hanging, on a machine that is busy."""

CHILD = """
import json, os, signal, sys
import jax, numpy as np
from jax.experimental import multihost_utils
from aevae_jax import values
from aevae_jax.checkpoints import pieces
from aevae_jax.checkpoints.saving import Saving
from aevae_jax.checkpoints.store import Store
from aevae_jax.runs import fitting, processes, resume
from aevae_jax.runs.run import Run
from aevae_jax.training import devices

told = json.loads(sys.argv[1])
if told["place"]:
    processes.join(processes.place(told["place"]))
mine, reference, sizes = processes.index(), told["reference"], []
save, restore, read, write, commit, gather = (
    resume._save, resume.restore, pieces._read, pieces.write, Store._commit, multihost_utils.process_allgather
)

def host(array):
    divided = isinstance(array, jax.Array) and not (array.is_fully_addressable or array.is_fully_replicated)
    return np.asarray(gather(array, tiled=True) if divided else array)

def saved(store, snapshot, notes):
    whole = {name: host(array) for name, array in resume._flatten(snapshot).items()}  # the test alone gathers
    if mine == 0:
        np.savez(f"{reference}/{snapshot.progress.step}.npz", **whole)
    multihost_utils.process_allgather = None
    save(store, snapshot, notes)
    multihost_utils.process_allgather = gather
    print("saved", snapshot.progress.step, flush=True)

def same(snapshot):
    arrays = resume._flatten(snapshot)
    with np.load(f"{reference}/{snapshot.progress.step}.npz") as found:
        pairs = [(found[name], array) for name, array in arrays.items()]
        assert set(found) == set(arrays)
    shards = [
        (np.asarray(shard.data), whole[shard.index])
        for whole, array in pairs if isinstance(array, jax.Array) for shard in array.addressable_shards
    ]
    return all(data.tobytes() == np.ascontiguousarray(whole).tobytes() for data, whole in shards)

def restored(*arguments, **options):
    multihost_utils.process_allgather = None
    snapshot = restore(*arguments, **options)
    multihost_utils.process_allgather = gather
    total = sum(array.nbytes for array in resume._flatten(snapshot).values())
    local = sum(array.addressable_shards[0].data.nbytes for array in jax.tree.leaves(snapshot.state.params))
    print(json.dumps([snapshot.progress.step, same(snapshot), sum(sizes), total, local]), flush=True)
    if told["stop"]:
        processes.gather(None)
        os._exit(0)
    return snapshot

def counted(path, offset, size):
    sizes.append(size)
    return read(path, offset, size)

def killed_after(function):
    def wrapped(*arguments, **options):
        found = None if function is commit else function(*arguments, **options)
        told["saves"] -= 1
        if mine == told["killed"] and told["saves"] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return commit(*arguments, **options) if function is commit else found
    return wrapped

pieces._read, resume._save, resume.restore = counted, saved, restored
if told["killed"]:
    pieces.write = killed_after(write)
else:
    Store._commit = killed_after(commit)
run = values.from_tree(Run, json.loads(told["run"]), "")
fitting.fit(run, directory=told["folder"], shard_params=True, saving=Saving(seconds=0), on_note=print)
"""


class Stop(Exception):
    """Leaves a training after an epoch."""


def stop(epoch):
    raise Stop


def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def trained(tmp_path, run, *, count=2, devices=2, stop=False, killed=None, saves=0):
    """What so many processes print, and their exit codes; one is killed in the course of its so many-th save."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    variables = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": os.pathsep.join(sys.path), processes.TIMEOUT: "10"}
    address, begun = f"127.0.0.1:{port()}", []
    told = {"folder": str(tmp_path / "run"), "reference": str(tmp_path), "run": run, "stop": stop, "killed": killed}
    for index in range(count):
        place = f"{address},{index},{count}" if count > 1 else ""
        command = [sys.executable, "-c", CHILD, json.dumps({**told, "saves": saves, "place": place})]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": variables}
        begun.append(subprocess.Popen(command, **pipes))
    try:
        texts = [process.communicate(timeout=LIMIT) for process in begun]
    finally:
        for process in begun:
            process.kill()
    return [process.returncode for process in begun], texts


def restored(text):
    """Step, whether all is equal to the bit, bytes that were read, those of all arrays, of the parameters here."""
    return json.loads(next(line for line in text.splitlines() if line.startswith("[")))


@pytest.mark.slow
def test_divided_parameters_are_saved_and_restored_by_those_that_have_them(tmp_path):
    """One process trains; two go on, of which one is killed between its part and the commit; then 1, 4 and 2 x 2."""
    np.save(tmp_path / "x.npy", X)
    model = VAE(latent=3, network=MLP((256,)), likelihood=Bernoulli(), latent_prior=StandardNormal())
    run = Run(data=replace(Run().data, name=str(tmp_path / "x.npy")), model=model, batch_size=16, epochs=3)
    store = Store(tmp_path / "run" / "checkpoints")
    with pytest.raises(Stop):
        fitting.fit(run, directory=tmp_path / "run", on_epoch=stop)
    first = store.steps()[-1]
    like = like_of(store, first)
    np.savez(tmp_path / f"{first}.npz", **store.restore(first, like))
    assert (store.folder / str(first) / "arrays" / "manifest.ocdbt").exists()  # as ever

    codes, texts = trained(tmp_path, values.to_json(run), killed=1, saves=3)
    assert codes[1] == -signal.SIGKILL, texts
    assert codes[0] != 0
    assert [restored(text)[:2] for text, _ in texts] == [[first, True]] * 2
    *_, before, newest = store.steps()
    (half,) = store.folder.glob("*.tmp")
    assert int(half.stem) > newest
    assert {path.name for path in (half / "arrays").iterdir()} >= {"1.bin", "1.json"}
    assert (half / "manifest.json").stat().st_size == 0
    parts = [(store.folder / str(newest) / "arrays" / f"{process}.bin").stat().st_size for process in (0, 1)]
    assert 0.4 * sum(parts) < parts[1] < parts[0] < 0.6 * sum(parts)

    found = store.restore_newest(lambda step, notes: like_of(store, step))
    assert found.step == newest
    with np.load(tmp_path / f"{newest}.npz") as expected:
        assert {name: array.tobytes() for name, array in expected.items()} == {
            name: np.asarray(array).tobytes() for name, array in found.arrays.items()
        }
    codes, texts = trained(tmp_path, values.to_json(run), count=1, devices=4, stop=True)
    assert codes == [0], texts
    step, equal, read, total, _ = restored(texts[0][0])
    assert (step, equal, read) == (newest, True, total)

    path = store.folder / str(newest) / "arrays" / "1.bin"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    codes, texts = trained(tmp_path, values.to_json(run), stop=True)
    assert codes == [0, 0], texts
    for text, _ in texts:
        step, equal, read, total, local = restored(text)
        assert (step, equal) == (before, True)
        assert read < 2 * 0.6 * total  # of two checkpoints, of which one is damaged
        assert local < total / 8  # a quarter of the parameters, of which there are four copies and more
    assert f"checkpoint of step {newest} " in texts[0][0]


def like_of(store, step):
    manifest = json.loads((store.folder / str(step) / "manifest.json").read_text())
    return {name: jax.ShapeDtypeStruct(shape, np.dtype(dtype)) for name, (shape, dtype) in manifest["arrays"].items()}
