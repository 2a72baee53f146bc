"""Runs that are looked at before they are finished: as they were saved last, and undisturbed."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from run_files import write_record

from aevae_jax.checkpoints.saving import DamageError, OtherRunError, Saving
from aevae_jax.checkpoints.store import Store
from aevae_jax.cli import main
from aevae_jax.data import Data, from_arrays
from aevae_jax.models import VAE
from aevae_jax.models.architectures import MLP
from aevae_jax.models.likelihoods import Normal
from aevae_jax.models.priors import StandardNormal
from aevae_jax.runs import fitted, fitting, records
from aevae_jax.runs.run import Run
from aevae_jax.training.optimizers import AdamW
from aevae_jax.types import InputError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_pictures")]  # all are of what is trained for them

RUN = Run(Data(), VAE(2, MLP((4,)), Normal(1.0), StandardNormal()), None, AdamW(0.3), 10, epochs=4, seed=3)
STEPS = 8  # per epoch


def dataset():
    return from_arrays(np.random.RandomState(0).randint(0, 256, (100, 3, 3, 1)).astype(np.uint8))


@pytest.fixture(scope="module", params=[0.0, 0.9], ids=["plain", "ema"])
def whole(request, tmp_path_factory):
    """A finished run with a checkpoint at every second step, and it as it came out of the training."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run = replace(RUN, ema=request.param)
    return folder, fitting.fit(run, dataset(), directory=folder, saving=Saving(steps=2, last=1000))


def stopped(folder, place, step):
    """The run as it was when that step had been saved."""
    shutil.copytree(folder, place, ignore=lambda _, names: {*names} & {"weights.safetensors", "results.json"})
    for later in (place / "checkpoints").iterdir():
        if int(later.name) > step:
            shutil.rmtree(later)
    return place


def contents(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def arrays_under(found, prefix):
    return {name.removeprefix(prefix): array for name, array in found.items() if name.startswith(prefix)}


@pytest.mark.parametrize("step", [2, STEPS, STEPS + 2, 3 * STEPS + 4])
def test_a_run_is_looked_at_as_its_newest_checkpoint_has_it(whole, tmp_path, step):
    folder, finished = whole
    place, notes = stopped(folder, tmp_path / "run", step), []
    before = contents(place)
    found = fitted.load_run(place, unfinished=True, on_note=notes.append)
    assert contents(place) == before
    epochs = step // STEPS
    selects = [entry["validation"]["negative_elbo"] for entry in finished.history[:epochs]]
    best = 1 + int(np.argmin(selects)) if selects else 0
    assert found.history == finished.history[:epochs]
    assert found.results["best_epoch"] == best
    assert found.results["test"] == {}
    assert found.results["validation"] == (finished.history[best - 1]["validation"] if best else {})
    assert found.losses.tobytes() == finished.losses[: STEPS * epochs].tobytes()
    part = "best/" if best else "state/ema/" if finished.run.ema else "state/params/"
    saved = Store(folder / "checkpoints")
    kept = json.loads((folder / "checkpoints" / str(step) / "manifest.json").read_text())["arrays"]
    like = {n: np.zeros(shape, dtype) for n, (shape, dtype) in kept.items() if n.startswith(part)}
    expected = arrays_under(saved.restore(step, like, partial=True), part)
    own = {f"{a}/{b}/{c}": leaf for a, net in found.params.items() for b, d in net.items() for c, leaf in d.items()}
    assert own.keys() == expected.keys()
    assert all(np.array_equal(own[name], expected[name]) for name in own)
    [note] = notes
    assert f"at step {step} in epoch {epochs + 1} of 4" in note
    assert (f"epoch {best}, the best so far" if best else "that step, as no epoch is over") in note


def test_the_best_epoch_of_an_unfinished_run_has_the_parameters_of_a_run_that_ended_there(whole, tmp_path):
    folder, finished = whole
    place = stopped(folder, tmp_path / "run", 2 * STEPS + 2)
    found = fitted.load_run(place, unfinished=True, on_note=lambda text: None)
    shorter = fitting.fit(replace(finished.run, epochs=found.results["best_epoch"]), dataset())
    assert shorter.results["best_epoch"] == found.results["best_epoch"]
    for own, expected in zip(*map(_leaves, (found.params, shorter.params)), strict=True):
        assert own.tobytes() == expected.tobytes()


def _leaves(params):
    return [
        np.asarray(leaf) for _, net in sorted(params.items()) for _, d in sorted(net.items()) for leaf in d.values()
    ]


def test_a_finished_run_is_read_as_before_and_an_unfinished_one_only_where_that_is_asked_for(whole, tmp_path):
    folder, finished = whole
    found = fitted.load_run(folder, unfinished=True, on_note=pytest.fail)
    assert found.results == finished.results
    place = stopped(folder, tmp_path / "run", STEPS)
    with pytest.raises(InputError, match=r"no results\.json, expected .*the command that began it resumes it"):
        fitted.load_run(place)
    shutil.rmtree(place / "checkpoints")
    with pytest.raises(
        InputError, match=r"and no checkpoint: its training has just begun.*type the command that began"
    ):
        fitted.load_run(place, unfinished=True)


def test_what_a_training_deletes_while_it_is_read_is_looked_for_again(whole, tmp_path, monkeypatch):
    folder, _ = whole
    place = stopped(folder, tmp_path / "run", 0)
    restore, calls = Store.restore, []

    def deleted(store, step, like, **options):
        """The training has saved a step, and deleted the one that is being read."""
        calls.append(step)
        if len(calls) < 4:
            later = str(max(store.steps()) + 2)
            shutil.copytree(folder / "checkpoints" / later, place / "checkpoints" / later)
            shutil.rmtree(place / "checkpoints" / str(step))
        return restore(store, step, like, **options)

    monkeypatch.setattr(Store, "restore", deleted)
    assert fitted.load_run(place, unfinished=True, on_note=lambda text: None).losses.size == 0
    assert len(calls) >= 4


def test_damage_is_said_and_not_looked_at_for_ever(whole, tmp_path):
    folder, _ = whole
    place = stopped(folder, tmp_path / "run", 4)
    for path in (place / "checkpoints").glob("*/manifest.json"):
        path.write_text("{}")
    with pytest.raises(DamageError, match="3 of 3 damaged"):
        fitted.load_run(place, unfinished=True)


def test_checkpoints_of_another_run_are_refused(whole, tmp_path):
    place = stopped(whole[0], tmp_path / "run", 2)
    record = records.read_record(place)
    record["run"]["seed"] += 1
    write_record(place, record)
    with pytest.raises(OtherRunError, match="another run"):
        fitted.load_run(place, unfinished=True)


# while another process trains


def wait_for(pattern, training):
    while not list(Path().glob(pattern)):
        assert training.poll() is None
        time.sleep(0.05)


def answer(command, capsys):
    """The exit code of a command, and the last line on standard error."""
    code = 0
    try:
        main.main(command)
    except SystemExit as stop:
        code = stop.code
    return code, (capsys.readouterr().err.splitlines() or [""])[-1]


TRAIN = """
import sys
from aevae_jax.cli.main import main
main(sys.argv[1:])
"""


def test_commands_on_a_run_that_is_being_trained_are_right_or_one_line_and_change_no_bit(tmp_path, monkeypatch, capsys):
    """Fifty times, at moments that nobody chose; the training saves at every step and keeps two checkpoints."""
    rng = np.random.RandomState(0)
    np.save(tmp_path / "x.npy", rng.randint(0, 256, (200, 6, 6, 1)).astype(np.uint8))
    monkeypatch.chdir(tmp_path)
    model = "VAE(2, MLP((8,)), Normal(1.0), StandardNormal())"
    typed = ["train", "run", "--data", "./x.npy", "--model", model, "--batch-size", "20", "--epochs", "100000"]
    training = subprocess.Popen(
        [sys.executable, "-c", TRAIN, *typed, "--saving", "Saving(steps=1)"], stderr=subprocess.DEVNULL
    )
    commands = [
        ["evaluate", "run"],
        ["diagnose", "run"],
        ["sample", "run", "--out", "s.npy", "--force"],
        ["reconstruct", "run", "--out", "r.npy", "--force"],
        ["interpolate", "run", "--out", "i.npz", "--force"],
        ["encode", "run", "--split", "test", "--out", "z.npy", "--force"],
        ["traverse", "run", "--out", "t.npz", "--force"],
        ["show", "run"],
        ["list", "."],
        ["compare", "run", "run", "--samples", "3"],
    ]
    answered = 0
    try:
        for index in range(50):
            if index in (0, 5):  # the first five may come too early
                wait_for("run/run.json" if index == 0 else "run/checkpoints/[0-9]*", training)
            time.sleep(rng.uniform(0, 0.3))
            code, line = answer(commands[index % len(commands)], capsys)
            assert code == 0 or (code == 2 and line.startswith("error: ") and len(line) <= 200)
            answered += code == 0
            assert training.poll() is None
    finally:
        training.send_signal(signal.SIGTERM)
        assert training.wait(60) == 75
    assert answered >= 40
    found = fitted.load_run("run", unfinished=True, on_note=lambda text: None)
    epochs = len(found.history)
    assert epochs >= 2
    alone = fitting.fit(replace(found.run, epochs=epochs))
    assert alone.losses.tobytes() == found.losses.tobytes()
    assert alone.results["best_epoch"] == found.results["best_epoch"]
    for own, expected in zip(_leaves(found.params), _leaves(alone.params), strict=True):
        assert own.tobytes() == expected.tobytes()
