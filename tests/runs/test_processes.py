"""Two processes of two devices train as one, stop as one, and leave what one process resumes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from aevae_jax.cli import console
from aevae_jax.models import VAE
from aevae_jax.models.architectures import MLP
from aevae_jax.models.likelihoods import Bernoulli
from aevae_jax.models.priors import StandardNormal
from aevae_jax.runs import fitting, processes
from aevae_jax.runs.run import Run
from aevae_jax.types import InputError

X = (np.random.default_rng(0).random((240, 8, 8, 1)) * 2).astype(np.uint8)
TIMEOUT = 6


@pytest.fixture
def run(tmp_path):
    """A run whose data is a file, and which takes 12 steps an epoch."""
    np.save(tmp_path / "x.npy", X)
    model = VAE(latent=3, network=MLP((256,)), likelihood=Bernoulli(), latent_prior=StandardNormal())
    return Run(data=replace(Run().data, name=str(tmp_path / "x.npy")), model=model, batch_size=16, epochs=5)


def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


MAIN = "from aevae_jax.cli.main import main; main()"
SLOW = f"""
import time
from aevae_jax.cli import terminal
leave = terminal.leave
terminal.leave = lambda *said: time.sleep(3) or leave(*said)
{MAIN}"""


def started(tmp_path, run, *options, variables=None, changed="", second=MAIN):
    """Both processes of a training in `tmp_path / "run"`: `changed` is what the second is told beside."""
    address, begun = f"127.0.0.1:{port()}", []
    typed = console.train_command(tmp_path / "run", run).replace("aevae train ", "")
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    base = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": os.pathsep.join(sys.path), processes.TIMEOUT: str(TIMEOUT)}
    for index in range(2):
        where = "cluster" if variables else f"{address},{index},2"
        line = f"{typed} --processes {where} {' '.join(options)} {changed if index else ''}"
        begun.append(
            subprocess.Popen(
                ["sh", "-c", f"exec {sys.executable} -c '{second if index else MAIN}' train {line}"],
                env={**base, **(variables(index) if variables else {})},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return begun


def ended(begun, seconds=90):
    """Exit codes, and lines on both streams, of processes that must end by themselves."""
    try:
        texts = [process.communicate(timeout=seconds) for process in begun]
    finally:
        for process in begun:
            process.kill()
    return [process.returncode for process in begun], texts


def wait_for(condition, begun):
    end = time.monotonic() + 90
    while not condition() and time.monotonic() < end:
        assert all(process.poll() is None for process in begun), ended(begun)
        time.sleep(0.1)


def checkpoints(tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    return [path for path in folder.iterdir() if re.fullmatch("[1-9][0-9]*", path.name)] if folder.is_dir() else []


def slurm():
    job = {"SLURM_JOB_ID": str(port()), "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": "2"}
    return lambda index: {**job, "SLURM_PROCID": str(index), "SLURM_LOCALID": str(index)}


def open_mpi():
    job = {"OMPI_MCA_orte_hnp_uri": f"{port() << 12}.0;tcp://127.0.0.1:34911", "OMPI_COMM_WORLD_SIZE": "2"}
    return lambda index: {**job, "OMPI_COMM_WORLD_RANK": str(index), "OMPI_COMM_WORLD_LOCAL_RANK": str(index)}


@pytest.mark.slow
def test_two_processes_train_what_one_does_and_one_resumes_them(tmp_path, run):
    """Streamed, parameters divided; the second process alone is told to stop."""
    alone = fitting.fit(run)
    begun = started(tmp_path, run, "--stream yes", "--shard-params", '--saving "Saving(seconds=0)"')
    wait_for(lambda: checkpoints(tmp_path), begun)
    begun[1].send_signal(signal.SIGTERM)
    codes, texts = ended(begun)
    assert codes == [75, 75], texts
    assert texts[1][0] == ""
    assert "training on 4 of 4 devices" in texts[0][1]
    assert "stopped by SIG" in texts[0][1].splitlines()[-1]
    resumed = fitting.fit(run, directory=tmp_path / "run")
    assert len(resumed.losses) >= 50
    np.testing.assert_allclose(resumed.losses, alone.losses, rtol=1e-5)
    codes, texts = ended(started(tmp_path, run))
    assert (codes, texts[1]) == ([0, 0], ("", "")), texts
    assert "was finished before" in texts[0][1]


NOISE = """
import sys
import jax
from aevae_jax.runs import processes
from aevae_jax.training import devices
processes.join(processes.place(sys.argv[1]))
layout = devices.choose(16)
draw = jax.jit(lambda key: layout.batch(jax.random.normal(key, (16, 5))))
print(layout.count, devices.on_host(draw(layout.replicate(jax.random.key(3)))).tobytes().hex())
"""


@pytest.mark.slow
def test_two_processes_draw_the_noise_of_one():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    variables, address = (
        {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": os.pathsep.join(sys.path)},
        f"127.0.0.1:{port()}",
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": variables}
    commands = [[sys.executable, "-c", NOISE, f"{address},{index},2"] for index in range(2)]
    codes, texts = ended([subprocess.Popen(command, **pipes) for command in commands])
    assert codes == [0, 0], texts
    drawn = np.asarray(jax.random.normal(jax.random.key(3), (16, 5))).tobytes().hex()
    assert [text.splitlines()[-1] for text, _ in texts] == 2 * [f"4 {drawn}"]


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_where_one_is_killed_the_other_stops_in_time_and_the_checkpoint_restores(tmp_path, run, killed):
    endless = replace(run, epochs=100_000)
    begun = started(tmp_path, endless, '--saving "Saving(seconds=0)"')
    wait_for(lambda: checkpoints(tmp_path), begun)
    begun[killed].kill()
    since = time.monotonic()
    codes, texts = ended(begun)
    assert time.monotonic() - since < TIMEOUT + 10
    assert codes[1 - killed] == 75, texts
    assert texts[1 - killed][1].splitlines()[-1] == processes.LOST.format(index=1 - killed)
    notes = []

    def stop(epoch):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        fitting.fit(endless, directory=tmp_path / "run", on_epoch=stop, on_note=notes.append)
    assert notes[-1].startswith("resuming at step")


@pytest.mark.slow
@pytest.mark.parametrize(("variables", "changed"), [(slurm, "--seed 7"), (open_mpi, "--data {other}")])
def test_processes_that_disagree_say_so_and_stop(tmp_path, run, variables, changed):
    np.save(tmp_path / "y.npy", 1 - X)
    begun = started(tmp_path, run, variables=variables(), changed=changed.format(other=tmp_path / "y.npy"))
    codes, texts = ended(begun)
    assert codes == [2, 2], texts
    for _, errors in texts:
        assert errors.splitlines()[-1].startswith("error: run or data: got another one in process 1, expected that of")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("second", [MAIN, SLOW])
def test_batches_that_devices_do_not_divide_are_refused_in_each_process(tmp_path, run, second):
    """Even where one of them takes its time to say so."""
    codes, texts = ended(started(tmp_path, replace(run, batch_size=15), second=second))
    assert codes == [2, 2], texts
    for _, errors in texts:
        assert re.fullmatch(
            "error: batch size: got 15, expected a multiple of the 4 devices; .*", errors.splitlines()[-1]
        )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", None),
        ("cluster", None),
        ("10.0.0.1:1234,1,4", processes.Place(1, 4, "10.0.0.1:1234")),
        ("host:1234,0,1", None),
    ],
)
def test_the_place_of_a_process(monkeypatch, text, found):
    for name in ("SLURM_PROCID", "OMPI_COMM_WORLD_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert processes.place(text) == found


@pytest.mark.parametrize("text", ["host,0,2", "host:1,2,2", "slurm", "host:1,0", "host:1,-1,2"])
def test_what_is_no_place_is_refused(text):
    with pytest.raises(InputError, match="--processes: got "):
        processes.place(text)


def test_one_process_has_nothing_to_share():
    assert processes.share({"a": 1}) == {"a": 1}
    assert processes.signalled("SIGTERM") == "SIGTERM"
    assert (processes.count(), processes.index()) == (1, 0)
    processes.check_equal("run", "digest")


def test_what_is_shared_stays_until_all_have_read_it_and_not_for_good(monkeypatch):
    """The others may be up to a hundred values behind; a training of weeks must not fill the store."""
    there = {}
    client = SimpleNamespace(key_value_set=there.__setitem__, key_value_delete=lambda key: there.pop(key, None))
    monkeypatch.setattr(processes, "distributed", SimpleNamespace(global_state=SimpleNamespace(client=client)))
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "index", lambda: 0)
    for value in range(300):
        assert processes.share([value]) == [value]
        assert [json.loads(text) for text in there.values()] == [[v] for v in range(max(0, value - 99), value + 1)]


def test_all_are_given_what_each_gives(monkeypatch):
    """By process 0, which forgets it then."""
    there, gone = {}, []
    client = SimpleNamespace(
        key_value_set=there.__setitem__,
        key_value_delete=gone.append,
        blocking_key_value_get=lambda key, milliseconds: json.dumps({"1": "b", "2": "c"}[key.rpartition("/")[2]]),
    )
    monkeypatch.setattr(processes, "distributed", SimpleNamespace(global_state=SimpleNamespace(client=client)))
    monkeypatch.setattr(processes, "count", lambda: 3)
    monkeypatch.setattr(processes, "index", lambda: 0)
    assert processes.gather("a") == ["a", "b", "c"]
    assert [key[-1] for key in gone if key.count("/") == 2] == ["1", "2"]
    assert [json.loads(text) for text in there.values()] == [["a", "b", "c"]]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            "process 0: disk: got full",
            "training: got an error in process 0: disk: got full, expected none in any process",
        ),
        ("", "process 0: got no answer, expected one within 0 s"),
    ],
)
def test_whoever_waits_hears_of_an_error_of_another_and_waits_no_longer_than_is_said(monkeypatch, error, line):
    def absent(key, milliseconds=0):
        if not (error and key == "aevae/error"):
            raise jax.errors.JaxRuntimeError("NOT_FOUND")
        return error

    client = SimpleNamespace(blocking_key_value_get=absent, key_value_try_get=absent)
    monkeypatch.setattr(processes, "distributed", SimpleNamespace(global_state=SimpleNamespace(client=client)))
    monkeypatch.setattr(processes, "WAIT_SECONDS", 5 if error else 0)
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "index", lambda: 1)
    with pytest.raises(InputError) as caught:
        processes.share(None)
    assert str(caught.value) == line


@pytest.mark.parametrize("seconds", ["", "1.5", "0", "x"])
def test_a_time_that_is_none_is_refused(monkeypatch, seconds):
    monkeypatch.setenv(processes.TIMEOUT, seconds)
    with pytest.raises(InputError, match=processes.TIMEOUT):
        processes.timeout()
