"""Several devices train what one does: the same noise, losses apart by the order of sums, and nothing else for one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from commands import refused
from jax.sharding import PartitionSpec

from aevae_jax import keys
from aevae_jax.evaluation import metrics
from aevae_jax.models import VAE
from aevae_jax.models.architectures import MLP
from aevae_jax.objectives.losses import ELBO
from aevae_jax.training import devices, loops, step as training
from aevae_jax.types import InputError

TREE = {"a": np.zeros((4, 3)), "b": np.zeros((6,))}


@pytest.fixture
def two(monkeypatch):
    """Two devices, of which this process has one: what each would hold stands in the sharding."""
    monkeypatch.setattr(jax, "local_device_count", lambda: 2)
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    both = 2 * jax.devices()
    for name in ("devices", "local_devices"):
        monkeypatch.setattr(jax, name, lambda: both)
    placed = []
    monkeypatch.setattr(devices, "put", lambda tree, sharding: placed.append(sharding.spec) or tree)
    return placed


def test_one_device_computes_as_if_there_were_no_layout():
    layout = devices.local()
    assert layout == devices.choose(7) == devices.Layout()
    assert (layout.count, devices.explained(layout)) == (1, "")
    assert all(change(TREE) is TREE for change in (layout.batch, layout.state, layout.everywhere, layout.whole))
    model, tx = VAE(latent=2, network=MLP((5,)), event_shape=(6,)), optax.adam(1e-2)
    step = training.make_train_step(model, ELBO(), tx)
    state = training.init_state(model, tx, keys.root(0))
    program = jax.make_jaxpr(step)(state, jnp.zeros((4, 6)), keys.root(0))
    assert "sharding_constraint" not in set(loops.primitives(program.jaxpr))


def test_arrays_are_divided_where_they_can_be(two):
    layout = devices.local()
    assert layout.count == 2
    layout.divide(TREE)
    layout.divide(np.zeros((3, 4)), axis=1)
    layout.divide({**TREE, "odd": np.zeros((3, 4))})
    layout.replicate(TREE)
    assert two == [PartitionSpec("data"), PartitionSpec(None, "data"), PartitionSpec(), PartitionSpec()]


def test_large_parameters_are_divided_along_their_largest_axis(two):
    state = [np.zeros(shape) for shape in ((128, 256), (256, 129), (129, 255), (8, 4), ())]
    devices.Layout(devices.local().mesh, shard_params=True).place(state)
    assert two == [PartitionSpec(*axes) for axes in ((None, "data"), ("data",), (), (), ())]
    del two[:]
    devices.local().place(state)
    assert two == 5 * [PartitionSpec()]


def test_of_a_checkpoint_each_device_reads_its_region(two, monkeypatch):
    """Of what is divided; of the rest, and without a mesh, the whole."""
    made, whole = [], (slice(None), slice(None))
    monkeypatch.setattr(jax, "make_array_from_callback", lambda shape, sharding, read: made.append(sharding.spec))
    layout, read = devices.Layout(devices.local().mesh, shard_params=True), []
    for shape, everywhere in (((128, 256), False), ((128, 256), True), ((8, 4), False)):
        layout.read(np.zeros(shape), None, everywhere=everywhere)
    devices.local().read(np.zeros((128, 256)), None)
    assert made == [PartitionSpec(None, "data"), PartitionSpec(), PartitionSpec(), PartitionSpec()]
    found = devices.Layout().read(np.zeros((2, 3)), lambda region: read.append(region) or np.ones((2, 3)))
    assert (read, found.shape) == ([whole], (2, 3))


def test_only_parameters_divided_among_processes_are_apart(two, monkeypatch):
    assert not devices.Layout(devices.local().mesh, shard_params=True).apart
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert devices.Layout(devices.local().mesh, shard_params=True).apart
    assert not devices.local().apart


@pytest.mark.parametrize(
    ("batch_size", "wanted", "count", "said"),
    [(8, 0, 2, "2 of 2 devices: each batch is divided"), (7, 0, 1, "1 of 2 devices"), (8, 1, 1, "1 of 2 devices")],
)
def test_devices_are_used_that_divide_a_batch(two, batch_size, wanted, count, said):
    layout = devices.choose(batch_size, devices=wanted)
    assert layout.count == count
    assert devices.explained(layout).startswith(f"training on {said}")


@pytest.mark.parametrize(
    ("batch_size", "wanted", "message"),
    [(8, 3, "devices: got 3, expected at most 2"), (7, 2, "batch size: got 7, expected a multiple of the 2 devices")],
)
def test_devices_that_do_not_fit_are_refused(two, batch_size, wanted, message):
    with pytest.raises(InputError, match=message):
        devices.choose(batch_size, devices=wanted)


@pytest.mark.parametrize(("batch_size", "wanted", "count"), [(8, 1, 1), (8, 2, 2), (8, 0, 2), (6, 0, 1)])
def test_of_several_processes_each_has_as_many_devices_in_their_order(monkeypatch, batch_size, wanted, count):
    """JAX may list the devices of processes in any order, and a process has to read what its own compute."""
    listed = [
        SimpleNamespace(process_index=process, id=2 * process + number) for number in (0, 1) for process in (0, 1)
    ]
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "local_device_count", lambda: 2)
    monkeypatch.setattr(jax, "devices", lambda: listed)
    monkeypatch.setattr(devices, "Mesh", lambda found, names, axis_types: found)
    used = devices.choose(batch_size, devices=wanted).mesh
    assert [device.id for device in used] == ([0, 2] if count == 1 else [0, 1, 2, 3])


@pytest.mark.parametrize(
    "options",
    [["--devices", "9"], ["--devices", "2", "--seeds", "2"], ["--shard-params", "--sweep", "objective.beta=1,2"]],
)
def test_the_command_line_refuses_devices_in_a_line(capsys, tmp_path, options):
    line = refused(capsys, "train", tmp_path / "run", "--epochs", "1", *options)
    assert re.match("error: (--)?devices: got ", line)
    assert not (tmp_path / "run").exists()


def test_examples_are_what_devices_divide_in_evaluation():
    """The examples of a batch are divided, and not the batches."""
    found = []

    def divide(tree, axis):
        found.append((tree.shape, axis))
        return tree

    layout = SimpleNamespace(count=4, replicate=lambda tree: tree, divide=divide)
    metrics.per_example(lambda m, p, x, k: {"x": x[:, 0]}, None, (), np.zeros((30, 2)), keys.root(0), layout=layout)
    assert found == [((1, 30), 1)]


SEVERAL = """
import json, sys
from dataclasses import replace
import jax, numpy as np
from aevae_jax import Run, VAE
from aevae_jax.data import from_arrays
from aevae_jax.data.preparation import DynamicBinarization
from aevae_jax.models.architectures import MLP
from aevae_jax.models.likelihoods import Bernoulli
from aevae_jax.models.priors import StandardNormal
from aevae_jax.runs import fitting
from aevae_jax.runs.run import Data, Safeguard
from aevae_jax.training import devices
from aevae_jax.types import InputError

x = (np.random.default_rng(0).random((240, 8, 8, 1)) * 255).astype(np.uint8)
model = VAE(latent=3, network=MLP((256,)), likelihood=Bernoulli(), latent_prior=StandardNormal())
run = Run(data=Data("x", DynamicBinarization()), model=model, batch_size=16, epochs=5)
dataset, folder, losses = from_arrays(x, name="x"), sys.argv[1], {}

def trained(name, run=run, **options):
    losses[name] = fitting.fit(run, dataset, **options).losses.tolist()

for count in (1, 2, 4, 8):
    trained(f"{count}", devices=count)
trained("all")
trained("sharded", devices=4, shard_params=True)
trained("streamed", devices=4, stream=True)

class Stop(Exception):
    pass

def stop(epoch):
    raise Stop

for count, options in ((8, {"shard_params": True, "on_epoch": stop}), (2, {"on_epoch": stop}), (1, {"on_epoch": stop})):
    try:
        trained("resumed", devices=count, directory=folder, **options)
    except Stop:
        pass
trained("resumed", devices=4, directory=folder)

def broken(model, params, x, key, step):
    loss = (params["decoder"]["out"]["bias"] / 0.0).sum()
    return loss, {"loss": loss}

try:
    fitting.fit(replace(run, objective=broken, safeguard=Safeguard(in_a_row=1, rollbacks=0)), dataset, devices=4)
except InputError as error:
    said = str(error)

bits = {}
for count in (1, 2, 4, 8):
    layout = devices.choose(16, devices=count)
    drawn = jax.jit(lambda key: layout.batch(jax.random.normal(key, (16, 5))))(jax.random.key(3))
    assert len(drawn.sharding.device_set) == count
    bits[count] = np.asarray(drawn).tobytes().hex()
print(json.dumps({"losses": losses, "bits": list(bits.values()), "said": said}))
"""


@pytest.mark.slow
def test_one_two_four_and_eight_devices_train_the_same(tmp_path):  # mistake 34
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SEVERAL, str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(set(found["bits"])) == 1
    assert found["said"].startswith("step 0 (epoch 1): got NaN or infinity in loss, from training examples")
    one = found["losses"].pop("1")
    assert len(one) >= 50
    assert set(found["losses"]) == {"2", "4", "8", "all", "sharded", "streamed", "resumed"}
    for name, losses in found["losses"].items():
        np.testing.assert_allclose(losses, one, rtol=1e-5, err_msg=name)
    assert found["losses"]["all"] == found["losses"]["8"]
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert [each["settings"].get("devices") for each in (record["provenance"], *record["resumed"])] == [8, 2, None, 4]
