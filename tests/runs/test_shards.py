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
from aevae_jax.checkpoints.together import SharedStore
from aevae_jax.runs import fitting, processes
from aevae_jax.runs.run import Run

told = json.loads(sys.argv[1])
if told["place"]:
    processes.join(processes.place(told["place"]))
shared, reference, sizes = bool(told["place"]), told["reference"], []
kind, save = SharedStore if shared else Store, SharedStore.save
restore, read, write, gather = kind.restore_newest, pieces.read_bytes, pieces.write, multihost_utils.process_allgather

def divided(array):
    return isinstance(array, jax.Array) and not (array.is_fully_addressable or array.is_fully_replicated)

def saved(store, step, arrays, notes):
    whole = {name: np.asarray(gather(a, tiled=True) if divided(a) else a) for name, a in arrays.items()}
    if processes.index() == 0:
        np.savez(f"{reference}/{step}.npz", **whole)
    multihost_utils.process_allgather = None  # the test alone gathers
    save(store, step, arrays, notes)
    multihost_utils.process_allgather = gather

def same(step, arrays):
    with np.load(f"{reference}/{step}.npz") as found:
        assert set(found) == set(arrays)
        pairs = [(found[name], array) for name, array in arrays.items() if isinstance(array, jax.Array)]
    shards = [(np.asarray(shard.data), whole[shard.index]) for whole, a in pairs for shard in a.addressable_shards]
    return all(data.tobytes() == np.ascontiguousarray(whole).tobytes() for data, whole in shards)

def restored(*arguments, **options):
    multihost_utils.process_allgather = None
    found = restore(*arguments, **options)
    multihost_utils.process_allgather = gather
    arrays = {name: a for name, a in found.arrays.items() if name.startswith("state/params/")}
    here = sum(a.addressable_shards[0].data.nbytes for a in arrays.values()) / sum(a.nbytes for a in arrays.values())
    total = sum(a.nbytes for a in found.arrays.values())
    print(json.dumps([found.step, same(found.step, found.arrays), sum(sizes), total, here]), *found.damaged, flush=True)
    if told["stop"]:
        processes.gather(None)
        os._exit(0)
    return found

def counted(path, offset, size):
    sizes.append(size)
    return read(path, offset, size)

def killed(*arguments):
    found = write(*arguments)
    told["saves"] -= 1
    if told["saves"] == 0 and processes.index() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return found

pieces.read_bytes, pieces.write, SharedStore.save, kind.restore_newest = counted, killed, saved, restored
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


def trained(tmp_path, run, *, count=2, devices=2, stop=False, saves=0):
    """Exit codes of so many processes, and what they print; the last is killed in the middle of its so many-th save."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    variables = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": os.pathsep.join(sys.path), processes.TIMEOUT: "10"}
    address, begun = f"127.0.0.1:{port()}", []
    told = {"folder": str(tmp_path / "run"), "reference": str(tmp_path), "run": run, "stop": stop}
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
    """Step, whether all is equal to the bit, bytes that were read, those of all arrays, the share of a device."""
    line = next(line for line in text.splitlines() if line.startswith("["))
    return json.loads(line[: line.index("]") + 1])


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

    codes, texts = trained(tmp_path, values.to_json(run), saves=3)
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
        assert f"checkpoint of step {newest} " in text
        step, equal, read, total, here = restored(text)
        assert (step, equal) == (before, True)
        assert read < 2 * 0.6 * total  # of two checkpoints, of which one is damaged
        assert 0.25 < here < 0.4


def like_of(store, step):
    manifest = json.loads((store.folder / str(step) / "manifest.json").read_text())
    return {name: jax.ShapeDtypeStruct(shape, np.dtype(dtype)) for name, (shape, dtype) in manifest["arrays"].items()}
