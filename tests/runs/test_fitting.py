"""Runs that are stopped and go on: the same bits as if they had not been, and nothing lost or mixed up."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from run_files import cut, edit_run, outcome, write_record

import aevae_jax
from aevae_jax.checkpoints import locks, signals
from aevae_jax.checkpoints.saving import DamageError, Saving
from aevae_jax.checkpoints.store import Store
from aevae_jax.data import Data, DynamicBinarization, LastSplits, from_arrays, prepare, streams
from aevae_jax.models import VAE
from aevae_jax.models.architectures import MLP, Conv
from aevae_jax.models.likelihoods import Bernoulli
from aevae_jax.models.priors import StandardNormal
from aevae_jax.objectives.losses import ELBO, LinearWarmup
from aevae_jax.runs import fitting, provenance, records, resolution, resume, trainer, training_loop
from aevae_jax.runs.callbacks import Callbacks
from aevae_jax.runs.run import Run, Safeguard
from aevae_jax.runs.snapshots import Broken, Progress, Snapshot, Steps
from aevae_jax.runs.sweeps import Population
from aevae_jax.runs.weights import params_digest
from aevae_jax.training.devices import Layout
from aevae_jax.training.optimizers import AdamW
from aevae_jax.training.step import TrainState
from aevae_jax.types import InputError

pytestmark = pytest.mark.usefixtures("no_pictures")

RUN = Run(
    data=Data(preparation=DynamicBinarization()),
    model=VAE(2, MLP((8,)), Bernoulli(), StandardNormal()),
    objective=ELBO(beta=LinearWarmup(20)),
    optimizer=AdamW(1e-2, warmup=5, cosine=True),
    batch_size=10,
    epochs=4,
    seed=3,
    ema=0.9,
)
CONVOLUTIONAL = replace(RUN, model=VAE(2, Conv((2,)), Bernoulli(), StandardNormal()), epochs=2)
STEPS = 8  # per epoch
ALL = Saving(steps=1, last=1000)


def images(count=100, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (count, 4, 4, 1)).astype(np.uint8)


def dataset(seed=0):
    return from_arrays(images(seed=seed))


def fit(folder, run=RUN, **options):
    return fitting.fit(run, dataset(), directory=folder, **options)


@pytest.fixture(scope="module", params=[RUN, CONVOLUTIONAL], ids=["dense", "convolutional"])
def whole(request, tmp_path_factory):
    """A finished run with a checkpoint at every step."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    fit(folder, request.param, saving=ALL)
    return folder, request.param


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dense") / "run"
    fit(folder, saving=Saving(steps=3, last=1000))
    return folder


@pytest.mark.parametrize("in_directory", [False, True])
def test_steps_are_told_on_the_way_and_change_no_bit(whole, tmp_path, monkeypatch, in_directory):
    monkeypatch.setattr(resume.ChunkSizer, "steps", lambda sizer: 1)
    folder, run = whole
    told = []
    options = {"directory": tmp_path / "run", "saving": Saving(seconds=1e9)} if in_directory else {}
    fitted = fitting.fit(run, dataset(), on_steps=told.append, on_epoch=told.append, **options)
    assert fitted.losses.tobytes() == np.load(folder / "losses.npy").tobytes()
    assert params_digest(fitted.params) == params_digest(fitting.load_run(folder).params)
    shown = [each.done if isinstance(each, Steps) else "epoch" for each in told]
    assert shown == [0, *([*range(1, STEPS + 1), "epoch"] * run.epochs)]
    assert all(each[1:2] == (run.epochs,) and each.steps == STEPS for each in told if isinstance(each, Steps))
    assert [each.epoch for each in told if isinstance(each, Steps)][:: STEPS + 1] == [1, 2, 3, 4][: run.epochs]


def test_epochs_that_nobody_watches_are_not_cut(monkeypatch):
    stops, advance = [], trainer.Trainer.advance
    monkeypatch.setattr(trainer.Trainer, "advance", lambda *given: stops.append(given[2]) or advance(*given))
    fitting.fit(RUN, dataset())
    assert stops == [STEPS * number for number in range(1, RUN.epochs + 1)]
    stops.clear()
    fitting.fit(RUN, dataset(), on_steps=lambda steps: None)
    assert stops[:3] == [1, 2, 6]  # no more than that: a chunk takes a second, and all of these epochs take less
    assert stops[3:] == [STEPS * number for number in range(1, RUN.epochs + 1)]


@pytest.fixture
def copied(dense, tmp_path):
    return Path(shutil.copytree(dense, tmp_path / "run"))


# exact resume


@pytest.mark.exact
@pytest.mark.parametrize("stream", [False, True], ids=["resident", "streamed"])
def test_going_on_from_any_step_makes_the_same_run(whole, tmp_path, monkeypatch, stream):  # mistakes 29 and 30
    monkeypatch.setattr(streams, "WINDOW_BYTES", 16 * 10 * 3)
    folder, run = whole
    last = run.epochs * STEPS
    steps = {STEPS, *np.random.RandomState(stream).randint(1, last, 1).tolist()}
    for step in sorted(steps | ({1, last} if run is RUN and not stream else set())):
        again = Path(shutil.copytree(folder, tmp_path / str(step)))
        cut(again, step)
        epochs = []
        fit(again, run, stream=stream, on_epoch=lambda epoch, seen=epochs: seen.append(epoch.epoch))
        assert outcome(again) == outcome(folder), step
        assert epochs == list(
            range((step + (step == 0)) // STEPS + 1 if step < last else run.epochs + 1, run.epochs + 1)
        )


def test_a_directory_changes_no_bit(whole):
    folder, run = whole
    fitted = fitting.fit(run, dataset())
    assert params_digest(fitted.params) == params_digest(fitting.load_run(folder).params)
    assert fitted.losses.tobytes() == np.load(folder / "losses.npy").tobytes()
    assert fitted.history == records.read_json(folder / "metrics.jsonl", lines=True)


def test_lines_past_the_restored_step_are_cut(copied):
    """The log is rewritten from the checkpoint: what was appended since, or half of a line, is gone."""
    before = outcome(copied)
    cut(copied, 12)
    (copied / "metrics.jsonl").write_text((copied / "metrics.jsonl").read_text() + '{"epoch": 99, "st')
    seen = []

    def look(epoch):
        seen.append([entry["epoch"] for entry in records.read_json(copied / "metrics.jsonl", lines=True)])

    notes = []
    fit(copied, on_epoch=look, on_note=notes.append)
    assert notes == ["resuming at step 12, in epoch 2"]
    assert seen == [[1, 2], [1, 2, 3], [1, 2, 3, 4]]
    assert outcome(copied) == before


def test_a_finished_run_is_given_back_and_left_as_it_is(copied):
    before = outcome(copied)
    fitted = fit(copied, on_epoch=pytest.fail)
    assert outcome(copied) == before
    assert params_digest(fitted.params) == params_digest(fitting.load_run(copied).params)
    assert fitted.results == fitting.load_run(copied).results


def test_fresh_starts_over(copied):
    (copied / "notes.txt").write_text("mine")
    before, epochs = outcome(copied), []
    fit(copied, fresh=True, on_epoch=epochs.append)
    assert len(epochs) == 4
    assert outcome(copied) == before
    fit(copied, replace(RUN, seed=4), fresh=True)
    assert outcome(copied) != before
    assert (copied / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("run", "data", "message"),
    [
        (replace(RUN, optimizer=AdamW(0.5)), dataset(), r"another run \(optimizer learning_rate 0.01, here 0.5; optim"),
        (
            replace(RUN, model=VAE(2, Conv((2,)), Bernoulli(), StandardNormal())),
            dataset(),
            r"\(model network MLP, here Conv\)",
        ),
    ],
)
def test_another_run_is_refused_and_left_as_it_is(copied, run, data, message):
    before = outcome(copied)
    with pytest.raises(InputError, match=rf"run directory: got .*{message}.*, expected the same run.*--fresh"):
        fitting.fit(run, data, directory=copied, on_epoch=pytest.fail)
    assert outcome(copied) == before


def test_another_width_of_numbers_is_refused_and_named(copied):
    (copied / "results.json").unlink()
    edited = records.read_record(copied)
    edited["provenance"]["settings"]["x64"] = True
    write_record(copied, edited)
    message = "got 0, expected 1, as where this run was begun; set JAX_ENABLE_X64=1, or --fresh"
    with pytest.raises(InputError, match=message):
        fit(copied, on_epoch=pytest.fail)


@pytest.mark.slow
def test_runs_of_64_bits_go_on_and_are_loaded(tmp_path):
    """Weights of 32 bits are read as they are where numbers have 64."""
    code = """
import sys
import test_fitting as t
found = []
for name in sys.argv[1:2] if "stop" in sys.argv else sys.argv[1:]:
    t.fitting.fit(t.RUN, t.dataset(), directory=name, on_epoch=t.stop if "stop" in sys.argv else None)
    found.append(str(t.fitting.load_run(name).losses.dtype))
print(*found)
"""
    for wide, arguments, output in (
        ("0", ["narrow"], "float32"),
        ("1", ["run", "stop"], ""),
        ("1", ["run", "run", "narrow"], "float32 float32 float32"),
    ):
        path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=tmp_path,
            env={**os.environ, "JAX_ENABLE_X64": wide, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout.strip()) == (0, output), done.stderr


def test_other_data_is_refused(copied):
    with pytest.raises(InputError, match=r"data set .*got other data under the name 'arrays', expected that of the"):
        fitting.fit(RUN, dataset(seed=1), directory=copied)


def stop(*arguments):
    raise SystemExit


@dataclass(frozen=True)
class Weighted:
    """The ELBO of someone else."""

    beta: object

    def __call__(self, model, params, x, key, step):
        return ELBO(beta=float(self.beta))(model, params, x, key, step)


class Number:
    """What no record can hold."""

    def __init__(self, value):
        self.value = value

    def __float__(self):
        return self.value


def own(beta):
    def objective(model, params, x, key, step):
        return ELBO(beta=beta)(model, params, x, key, step)

    return objective


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Weighted, "objective fields beta 1, here 4"),
        (own, "objective fields enclosed beta 1, here 4"),
        (lambda n: ELBO(beta=optax.linear_schedule(0, 1, n)), "beta fields enclosed transition_steps 1, here 4"),
    ],
)
def test_objects_of_ones_own_are_compared(tmp_path, monkeypatch, make, message):
    monkeypatch.setattr(training_loop, "train", stop)
    for _ in range(2):
        with pytest.raises(SystemExit):
            fit(tmp_path / "run", replace(RUN, objective=make(1)))
    with pytest.raises(InputError, match=message):
        fit(tmp_path / "run", replace(RUN, objective=make(4)))


def test_fresh_needs_no_sound_record_and_leftovers_of_killed_processes_go(tmp_path, monkeypatch):
    monkeypatch.setattr(training_loop, "train", stop)
    for name in ("run.json", "notes.txt", ".0123456789abcdef.part", ".0123456789abcdef-run.json.part", "mine.part"):
        (tmp_path / name).write_text("{")
    with pytest.raises(InputError, match=r"run\.json"):
        fit(tmp_path)
    assert len(list(tmp_path.iterdir())) == 5
    (tmp_path / "notes.txt").unlink()
    with pytest.raises(SystemExit):
        fit(tmp_path, fresh=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.part", "run.json"]
    assert records.read_record(tmp_path)["run"]["seed"] == 3


def test_all_that_is_asked_of_a_training_is_handed_on(tmp_path, monkeypatch):
    """The same for one seed and for several, whose numbers may be as large as they can."""
    calls = []

    def train(resolved, population, manager, callbacks):
        calls.append((resolved, population, manager, callbacks))
        raise SystemExit

    monkeypatch.setattr(training_loop, "train", train)
    monkeypatch.setattr(
        resume, "CheckpointManager", lambda folder, run, saving, **rest: SimpleNamespace(folder=folder, saving=saving)
    )
    monkeypatch.setattr(
        resolution, "prepare", lambda preparation, data: replace(prepare(preparation, data), notes=("odd",))
    )
    told, data = [], dataset(seed=5)
    monkeypatch.setattr(warnings, "warn", lambda text: told.append(f"warned: {text}"))
    note = told.append
    for call, run, *rest, options in (
        (fitting.fit, RUN, data, {"on_epoch": print, "on_note": note, "stream": True}),
        (fitting.fit_seeds, RUN, [2**32 - 1, 0], data, {"on_epoch": print, "stream": True}),
        (fitting.fit, RUN, dataset(), {"on_note": note, "directory": tmp_path / "run", "saving": ALL, "stream": True}),
        (fitting.fit, RUN, dataset(), {"directory": tmp_path / "two"}),
    ):
        with pytest.raises(SystemExit):
            call(run, *rest, **options)
    assert told == ["odd", "warned: odd", "odd", "warned: odd"]
    assert [resolved.stream for resolved, *_ in calls] == [True, True, True, False]
    assert [resolved.dataset is data for resolved, *_ in calls] == [True, True, False, False]
    assert [population for _, population, *_ in calls] == [None, Population((2**32 - 1, 0)), None, None]
    assert [callbacks.on_epoch for *_, callbacks in calls] == [print, print, None, None]
    assert calls[0][3].on_begin == calls[0][3].on_note == note
    calls[3][3].on_begin("it is no news that a training goes on")
    assert len(told) == 4
    assert calls[0][2] is calls[1][2] is None
    for (*_, manager, _), saving in zip(calls[2:], (ALL, Saving()), strict=True):
        assert manager.saving == saving
        assert manager.folder.parent == tmp_path


def test_what_cannot_be_compared_is_the_same_only_as_long_as_it_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(training_loop, "train", stop)
    objective, notes = Weighted(Number(1.0)), []
    for _ in range(2):
        with pytest.raises(SystemExit):
            fit(tmp_path / "run", replace(RUN, objective=objective), on_note=notes.append)
    assert [note.partition(": ")[0] for note in notes] == ["objective of this run cannot be written down"]
    message = (
        r"objective of the run \(.*run\): got a Weighted that cannot be compared with the one it has, expected the s"
    )
    with pytest.raises(InputError, match=message):
        fit(tmp_path / "run", replace(RUN, objective=Weighted(Number(1.0))))
    moved = shutil.copytree(tmp_path / "run", tmp_path / "moved" / "run")  # where no training of this process was
    with pytest.raises(InputError, match=message):
        fit(moved, replace(RUN, objective=objective))
    with pytest.raises(SystemExit):
        fit(tmp_path / "run", replace(RUN, objective=objective), fresh=True, on_note=notes.append)


def test_a_record_of_a_version_with_fewer_fields_is_of_the_same_run(copied):
    def without(record):
        del record["run"]["safeguard"], record["run"]["objective"]["free_bits"]

    edit_run(copied, without)
    assert len(fit(copied, on_epoch=pytest.fail).history) == 4
    edit_run(copied, lambda record: record["run"].update(ema=0.5))
    with pytest.raises(InputError, match=r"another run \(ema 0.5, here 0.9\)"):
        fit(copied, on_epoch=pytest.fail)


# leaving


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_saves_and_leaves_and_the_same_call_goes_on(dense, tmp_path, name):
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    handlers = {number: (lambda *_, number=number: pytest.fail(f"{number}")) for number in numbers}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}

    def kill(epoch):
        if epoch.epoch == 2:
            os.kill(os.getpid(), getattr(signal, name))

    folder = tmp_path / "run"
    with pytest.raises(signals.Interrupted, match=f"stopped by {name}, saved at step 16: the same command") as stopped:
        fit(folder, on_epoch=kill)
    assert stopped.value.code == signals.EXIT_CODE == 75
    assert Store(folder / "checkpoints").steps() == [16]
    assert not (folder / "results.json").exists()
    assert not (folder / "lock").exists()
    assert {number: signal.getsignal(number) for number in handlers} == handlers
    for number, handler in before.items():
        signal.signal(number, handler)
    fit(folder)
    assert outcome(folder) == outcome(dense)


def test_a_signal_in_the_middle_of_an_epoch_saves_there(dense, tmp_path, monkeypatch):
    """The chunk that is under way ends at the step at which it would have ended."""
    monkeypatch.setattr(resume.ChunkSizer, "steps", lambda self: 3)
    took = []

    def kill(self, steps, seconds):
        took.append(steps)
        if len(took) == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(resume.ChunkSizer, "took", kill)
    with pytest.raises(signals.Interrupted, match="saved at step 14"):
        fit(tmp_path / "run")
    assert took == [3, 3, 2, 3, 3]
    fit(tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(dense)


@pytest.mark.parametrize(
    "way", [RuntimeError("mine"), SystemExit(3), KeyboardInterrupt()], ids=lambda w: type(w).__name__
)
def test_leaving_by_an_exception_of_the_callers_saves(dense, tmp_path, way):
    def leave(epoch):
        if epoch.epoch == 3:
            raise way

    saving, store = Saving(last=1, best=0, every=3), Store(tmp_path / "run" / "checkpoints")
    with pytest.raises(type(way)) as raised:
        fit(tmp_path / "run", on_epoch=leave, saving=saving)
    assert raised.value is way
    assert store.steps() == [24]
    fit(tmp_path / "run", saving=saving)
    assert store.steps() == [24, 32]  # it is one of an epoch's end, and kept as such
    assert outcome(tmp_path / "run") == outcome(dense)


def test_whoever_leaves_others_that_have_parts_of_a_checkpoint_waits_for_none_of_them(tmp_path, monkeypatch):
    """What a callback of one process raises, such as a tracker of the first, the others do not know of."""

    def leave(epoch):
        raise InterruptedError

    monkeypatch.setattr(Layout, "apart", True)
    with pytest.raises(InterruptedError):
        fit(tmp_path / "run", on_epoch=leave, saving=Saving(seconds=1e9))
    assert Store(tmp_path / "run" / "checkpoints").steps() == []


def test_two_threads_train_at_once_and_leave_nothing_behind(dense, tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    from absl import logging

    before = asyncio.new_event_loop, logging.get_absl_logger().disabled
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(fit, tmp_path / name, saving=Saving(steps=3, last=2)) for name in ("one", "two")]:
            done.result()
    assert outcome(tmp_path / "one") == outcome(tmp_path / "two") == outcome(dense)
    assert (asyncio.new_event_loop, logging.get_absl_logger().disabled) == before


def test_outside_the_main_thread_training_goes_on_without_signals(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        fitted = pool.submit(fit, tmp_path / "run").result()
    assert len(fitted.history) == 4


def test_chunks_take_about_as_long_as_asked():
    timer = resume.ChunkSizer(1.0)
    assert timer.steps() == 1
    timer.took(1, 30.0)  # compiles
    assert timer.steps() == 1
    timer.took(1, 0.01)
    assert timer.steps() == 4  # not 100: one fast step says little
    for _ in range(10):
        timer.took(timer.steps(), 0.01 * timer.steps())
    assert 90 <= timer.steps() <= 100
    timer.took(timer.steps(), 100.0)
    assert timer.steps() == 1


def test_retention_is_applied_and_the_last_state_is_kept(tmp_path):
    fit(tmp_path / "run", saving=Saving(seconds=0, last=1, best=0, every=2))
    assert Store(tmp_path / "run" / "checkpoints").steps() == [16, 32]


def test_every_second_epoch_is_saved_and_those_between_are_not(tmp_path):
    """What comes due by the clock would hide it."""
    fit(tmp_path / "run", saving=Saving(seconds=1e9, last=10, best=0, every=2))
    assert Store(tmp_path / "run" / "checkpoints").steps() == [16, 32]


@pytest.mark.parametrize("selects", ["negative_elbo", "another"])
def test_the_checkpoint_that_is_kept_is_that_of_the_best_epoch(tmp_path, selects):
    """By the value of its own epoch, of what selects the parameters; neither the first epoch nor the last is best."""
    bounds = {"negative_elbo": [5.0, 2.0, 3.0, 4.0], "another": [5.0, 4.0, 1.0, 9.0]}
    history = [
        {"epoch": epoch, "validation": {name: bounds[name][epoch - 1] for name in bounds}} for epoch in range(1, 5)
    ]
    manager = resume.CheckpointManager(
        tmp_path,
        "0" * 64,
        Saving(last=1, best=1),
        lock=locks.Lock.claim(tmp_path),
        caught=signals.Caught(),
        note=print,
        selects=selects,
    )
    state = TrainState(jnp.zeros((), int), {"w": jnp.zeros(3)}, (), None)
    for epoch in range(1, 5):
        progress = Progress(epoch, epoch, (1.0,), (1,), (0,), history=tuple(history[:epoch]))
        manager.save(Snapshot(state, {"w": jnp.zeros(3)}, {}, np.zeros(0, np.float32), progress), boundary=True)
    best = 1 + int(np.argmin(bounds[selects]))
    assert Store(tmp_path / "checkpoints").steps() == [best, 4]


SECOND = """
import sys
from aevae_jax.runs import fitting
from aevae_jax.runs.run import Run
from aevae_jax.types import InputError
try:
    fitting.fit(Run(), directory=sys.argv[1], on_epoch=print)
except InputError as error:
    print("in use" in str(error), "jax" in sys.modules)
"""


def test_a_second_run_is_refused_at_once_without_waiting_for_jax(copied):
    with locks.Lock.claim(copied):
        done = subprocess.run([sys.executable, "-c", SECOND, copied], capture_output=True, text=True, check=True)
    assert done.stdout == "True False\n"


def test_a_second_run_in_one_directory_is_refused(copied):
    with locks.Lock.claim(copied), pytest.raises(InputError, match=r"in use by process \d+"):
        fit(copied)


# damage


def damage(folder, step):
    path = max(
        (path for path in (folder / "checkpoints" / str(step)).rglob("*") if path.is_file()),
        key=lambda path: path.stat().st_size,
    )
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 16
    path.write_bytes(bytes(raw))


def test_damaged_checkpoints_are_passed_over_and_named(copied):
    before, notes = outcome(copied), []
    cut(copied, 21)
    damage(copied, 21)
    damage(copied, 18)
    fit(copied, on_note=notes.append)
    assert [note.partition(" (")[0] for note in notes[:2]] == ["checkpoint of step 21", "checkpoint of step 18"]
    assert all(note.endswith("; resuming at step 15") for note in notes[:2])
    assert notes[2:] == ["resuming at step 15, in epoch 2"]
    assert outcome(copied) == before


def test_where_all_checkpoints_are_damaged_the_error_names_the_way_out(copied):
    cut(copied, 6)
    for step in Store(copied / "checkpoints").steps():
        damage(copied, step)
    with pytest.raises(DamageError, match=r"3 of 3 damaged.*start over with --fresh"):
        fit(copied)


@pytest.mark.parametrize(
    "notes",
    [{}, {"step": "x"}, {"step": 3, "epoch": 0, "best_value": 1}, {**Progress(step=3).to_notes(), "rollbacks": [[1]]}],
)
def test_notes_that_no_training_wrote_are_refused(notes):
    with pytest.raises(InputError, match="checkpoint: got notes that no training wrote"):
        Progress.from_notes(notes)


def test_a_checkpoint_of_another_model_is_refused(copied):
    cut(copied, 6)
    resolved = resolution.resolve(replace(RUN, model=VAE(3, MLP((8,)), Bernoulli(), StandardNormal())), dataset())
    run = records.read_record(copied)["digest"]
    progress = Progress.from_notes(Store(copied / "checkpoints", run=run).notes(6))
    with locks.Lock.claim(copied) as lock:
        manager = resume.CheckpointManager(
            copied, run, ALL, lock=lock, caught=signals.Caught(), note=print, selects=resolved.selects
        )
        manager.save(trainer.Trainer(resolved).start()._replace(progress=progress), boundary=False)
    with pytest.raises(InputError, match=r"of another model, expected .*as in run\.json"):
        fit(copied)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Another seed, stopped at step 8."""
    folder = tmp_path_factory.mktemp("other") / "run"

    def leave(epoch):
        raise SystemExit

    with pytest.raises(SystemExit):
        fit(folder, replace(RUN, seed=4), on_epoch=leave)
    return folder


@pytest.mark.parametrize("newest", [6, 12])
def test_a_checkpoint_of_another_seed_is_refused(copied, other, newest):
    """It has the same shapes, and is newer or older than those of the run."""
    cut(copied, newest)
    shutil.copytree(other / "checkpoints" / "8", copied / "checkpoints" / "8")
    message = r"checkpoint of step 8 \(.*\): got that of another run, expected one of .*run\.json; remove it, or start"
    with pytest.raises(InputError, match=message):
        fit(copied, on_epoch=pytest.fail)
    shutil.rmtree(copied / "checkpoints" / "8")
    assert len(fit(copied).history) == 4


# when numbers break


@dataclass(frozen=True)
class Poisoned:
    """The ELBO, with something that is no number in it at some steps."""

    first: int
    after: int
    place: str = "loss"

    def __call__(self, model, params, x, key, step):
        bad = (step >= self.first) & (step < self.after)
        if self.place == "batch":
            x = jnp.where(bad, jnp.nan, x)
        loss, metrics = ELBO()(model, params, x, key, step)
        if self.place == "loss":
            loss = loss + jnp.where(bad, jnp.inf, 0.0)
        if self.place == "gradient":
            zero = 0 * sum(jnp.sum(leaf) for leaf in jax.tree.leaves(params))
            loss = loss + jax.lax.cond(bad, lambda: jnp.sqrt(zero), lambda: 0.0 * zero)
        if self.place == "scale":
            loss = loss * jnp.where(bad, 1e8, 1.0)
        return loss, {**metrics, "loss": loss}


def test_steps_that_cannot_be_used_change_nothing_and_are_counted():
    """NaN in the batch, an infinite loss, and a loss whose gradient alone is infinite."""

    def poisoned(model, params, x, key, step):
        loss, metrics = Poisoned(9, 10, "batch")(model, params, x, key, step)
        loss = loss + jnp.where(step == 11, jnp.inf, 0.0)
        zero = 0 * sum(jnp.sum(leaf) for leaf in jax.tree.leaves(params))
        loss = loss + jax.lax.cond(step == 13, lambda: jnp.sqrt(zero), lambda: 0.0 * zero)
        return loss, {**metrics, "loss": loss}

    fitted = fitting.fit(replace(RUN, objective=poisoned, epochs=2), dataset())
    assert [entry["skipped"] for entry in fitted.history] == [0, 3]
    assert np.isfinite(fitted.history[1]["train"]["loss"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fitted.params))
    assert np.flatnonzero(~np.isfinite(fitted.losses)).tolist() == [9, 11]


def test_a_gradient_beyond_the_limit_is_not_used():
    norms = fitting.fit(RUN, dataset()).history[0]["train"]["gradient_norm"]
    guarded = fitting.fit(replace(RUN, safeguard=Safeguard(max_norm=norms, in_a_row=100)), dataset())
    assert 0 < guarded.history[0]["skipped"] < STEPS
    assert guarded.history[0]["train"]["gradient_norm"] < norms


@pytest.mark.slow
def test_the_run_goes_back_and_round_the_batches_that_led_to_trouble(tmp_path):
    """By itself, stopped at every chunk, and without any checkpoint it goes the same way."""
    run, notes = replace(RUN, objective=Poisoned(18, 23), epochs=4), []
    fitted = fit(tmp_path / "run", run, saving=ALL, on_note=notes.append)
    assert notes == [
        "no finite loss or gradient in steps 18 to 22: rolled back to step 13, to skip the batches of steps 13 to 22"
    ]
    assert [entry["skipped"] for entry in fitted.history] == [0, 3, 7, 0]
    lone = fitting.fit(run, dataset(), on_note=notes.append)
    assert notes[1].startswith("no finite loss or gradient in steps 18 to 22: rolled back to step 0")
    assert params_digest(lone.params) == params_digest(fitted.params)
    assert lone.history == fitted.history

    def leave(epoch):
        raise SystemExit

    for _ in range(4):
        with pytest.raises(SystemExit):
            fit(tmp_path / "stopped", run, on_epoch=leave, on_note=notes.append)
    fit(tmp_path / "stopped", run)
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "run")


def test_params_that_broke_are_left_behind(tmp_path, monkeypatch):
    """An update that spoils them comes with a sound loss and gradient; they never reach a checkpoint."""
    import optax

    def spoil(updates, state, params=None):
        return jax.tree.map(lambda u: jnp.where(optax.tree.norm(updates) > 1e6, jnp.nan, u), updates), state

    spoiling = optax.GradientTransformation(lambda params: optax.EmptyState(), spoil)
    monkeypatch.setattr(AdamW, "build", lambda self, steps: optax.chain(spoiling, optax.adam(1e-2)))
    notes = []
    run = replace(RUN, objective=Poisoned(12, 13, "scale"))
    fitted = fit(tmp_path / "run", run, on_note=notes.append, saving=Saving(seconds=0, last=100))
    assert len(notes) == 1
    assert "rolled back" in notes[0]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fitted.params))
    assert np.isfinite(fitted.results["test"]["negative_elbo"])


def test_each_rollback_begins_twice_as_far_ahead_and_none_before_the_first_step(monkeypatch):
    notes = []
    resolved = SimpleNamespace(run=replace(RUN, safeguard=Safeguard(in_a_row=5, rollbacks=4)), beginning=None)

    def advance(snapshot, stop):
        if len(snapshot.progress.rollbacks) < 4:
            raise Broken(25, 30, 0)
        return snapshot._replace(progress=replace(snapshot.progress, step=stop))

    untrained = SimpleNamespace(
        resolved=resolved,
        population=None,
        start=lambda: Snapshot(None, None, {}, None, Progress()),
        finished=lambda progress: progress.step > 0,
        end_of_epoch=lambda progress: STEPS,
        advance=advance,
        used=lambda progress: True,
        results=lambda snapshot: {},
    )
    monkeypatch.setattr(training_loop, "Trainer", lambda resolved, population: untrained)
    last, _ = training_loop.train(resolved, None, None, Callbacks(None, notes.append, notes.append))
    assert last.progress.rollbacks == ((20, 30), (15, 30), (5, 30), (0, 30))
    assert notes[2].endswith("to skip the batches of steps 5 to 29")


@pytest.mark.slow
def test_after_enough_rollbacks_it_stops_and_names_step_examples_and_term(tmp_path):
    run = replace(RUN, objective=Poisoned(11, 10_000), safeguard=Safeguard(in_a_row=2, rollbacks=2))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(InputError) as stopped:
            fit(tmp_path / "run", run, saving=ALL)
    assert len(caught) == 2
    message = str(stopped.value)
    assert message.startswith("step 15 (epoch 2): got NaN or infinity in loss, from training examples ")
    assert f"aevae replay {tmp_path / 'run'} --step 15" in message


def test_only_the_examples_at_fault_are_named():
    """One training image has a pixel that the network turns into NaN."""
    x = np.random.RandomState(0).rand(100, 6).astype(np.float32)
    x[17, 2] = 1e30  # finite, but its square is not
    run = Run(
        model=VAE(2, MLP((8,)), latent_prior=StandardNormal()),
        batch_size=10,
        safeguard=Safeguard(in_a_row=1, rollbacks=0),
    )
    with pytest.raises(
        InputError, match=r"step \d+ \(epoch 1\): got NaN or infinity in .*distortion.*, from training examples 17,"
    ):
        fitting.fit(run, from_arrays(x, splits=LastSplits()))


@pytest.mark.parametrize(
    ("epochs", "message"),
    [
        (
            1,
            r"training: got 2 steps, none of which could be used, expected finite .*; the data reach 5\.38e\+06 with a "
            r"standard deviation of 9\.\d*e\+05: try the preparation Standardize\(\); or lower the learning rate",
        ),
        (40, r"step \d+ \(epoch \d+\): got .* with a standard deviation of .* Standardize\(\)"),
    ],
)
def test_a_training_without_a_step_that_could_be_used_is_an_error(tmp_path, epochs, message):
    """What stands at 3e6 +- 1e6 has squares that break the first gradients."""
    x = np.random.RandomState(0).normal(3e6, 1e6, (50, 6)).astype(np.float32)
    run = Run(
        model=VAE(2, MLP((8,)), latent_prior=StandardNormal()),
        batch_size=15,
        epochs=epochs,
        safeguard=Safeguard(max_norm=1e6),
    )
    for _ in range(2):
        with pytest.raises(InputError, match=message) as caught, warnings.catch_warnings(action="ignore"):
            fitting.fit(run, from_arrays(x), directory=tmp_path / "run")
        assert len(str(caught.value).splitlines()) == 1
        assert not (tmp_path / "run" / "results.json").exists()


def test_metrics_that_are_not_finite_are_written_as_none(tmp_path):
    def infinite(model, params, x, key, step):
        loss, metrics = ELBO()(model, params, x, key, step)
        return loss, {**metrics, "largest": jnp.inf}

    fitted = fit(tmp_path / "run", replace(RUN, objective=infinite, epochs=1))
    assert fitted.history[0]["train"]["largest"] is None
    assert fitting.load_run(tmp_path / "run", model=fitted.model).history == fitted.history
    figures = {"protocol": "", "best_epoch": 1, "seconds": 0.0, "validation": {"a": 1.0}, "test": {"a": float("nan")}}
    records.write_results(tmp_path / "run", figures, "x")
    found = records.read_results(tmp_path / "run", "x").figures
    assert found["validation"] == {"a": 1.0}
    assert np.isnan(found["test"]["a"])


@pytest.mark.slow
def test_many_seeds_stop_and_name_the_seed():
    run = replace(RUN, objective=Poisoned(3, 100))
    with pytest.raises(InputError, match="training of seed 7: got no finite loss or gradient in steps 3 to 7"):
        fitting.fit_seeds(run, [7, 8], dataset())


@pytest.mark.parametrize(
    ("error", "size", "half"),
    [
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: allocating 17592186044416 bytes."), 10, 5),
        (jax.errors.JaxRuntimeError("INTERNAL: Out of memory"), 7, 3),
        (MemoryError(), 1, 1),
    ],
)
def test_too_little_memory_names_the_batch_size_and_a_remedy(monkeypatch, error, size, half):
    def exhausted(*arguments):
        raise error

    monkeypatch.setattr(trainer.Trainer, "start", exhausted)
    message = rf"memory: got too little on cpu for batches of {size}, .*--batch-size {half}, or --stream"
    with pytest.raises(InputError, match=message):
        fitting.fit(replace(RUN, batch_size=size), dataset())


def test_other_errors_of_the_device_are_no_want_of_memory(monkeypatch):
    def failing(*arguments):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(trainer.Trainer, "start", failing)
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        fitting.fit(RUN, dataset())


# what a run records


def test_the_record_is_there_before_the_first_step_with_all_it_rests_on(tmp_path, monkeypatch):
    monkeypatch.setattr(training_loop, "train", stop)
    monkeypatch.setattr(sys, "argv", ["train.py", "--fast"])
    with pytest.raises(SystemExit):
        fit(tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["run"]["seed"] == 3
    assert len(record["digest"]) == 64
    found = record["provenance"]
    assert found["command"] == ["train.py", "--fast"]
    assert found["data"]["sha256"] == dataset().digest()
    assert found["versions"]["jax"] == jax.__version__
    assert found["versions"]["orbax-checkpoint"]
    assert found["device"] == {"kind": "cpu", "count": 1, "backend": "cpu"}
    assert found["host"]["cores"] == len(os.sched_getaffinity(0))
    assert found["settings"] == {
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "prng": "threefry2x32",
        "matmul_precision": None,
        "x64": False,
        "deterministic": True,
    }
    assert len(found["installed_sha256"]) == 64
    pins = Path(aevae_jax.__file__).parents[1] / "pins.txt"
    assert (found["pins_sha256"] is not None) == pins.is_file()


def test_the_code_is_named_by_its_revision(tmp_path):
    def git(*arguments):
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert provenance.revision(tmp_path) is None
    git("init", "-q")
    (tmp_path / "code.py").write_text("one")
    git("add", "-A")
    git("commit", "-q", "-m", "one")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    assert provenance.revision(tmp_path / "deep" / "er") == git("rev-parse", "HEAD")
    git("pack-refs", "--all")
    assert provenance.revision(tmp_path) == git("rev-parse", "HEAD")
    git("worktree", "add", "-q", "-b", "side", str(tmp_path / "tree"))
    for path in ("tree", "."):
        (tmp_path / path / "code.py").write_text("two")
        git("-C", path, "commit", "-q", "-a", "-m", path)
        assert provenance.revision(tmp_path / path) == git("-C", path, "rev-parse", "HEAD")
    git("pack-refs", "--all")  # of all worktrees, in the folder that they share
    for path in ("tree", "."):
        assert provenance.revision(tmp_path / path) == git("-C", path, "rev-parse", "HEAD")
    git("checkout", "-q", "--detach")
    git("-C", "tree", "checkout", "-q", "--detach")
    for path in ("tree", "."):
        assert provenance.revision(tmp_path / path) == git("-C", path, "rev-parse", "HEAD")


def test_a_revision_is_that_of_the_nearest_checkout_and_of_the_whole_name(tmp_path):
    """A submodule, whose file leads to its folder by a relative path; in packed-refs, names that begin alike."""
    own = tmp_path / ".git" / "modules" / "sub"
    own.mkdir(parents=True)
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    (tmp_path / "sub" / ".git").write_text("gitdir: ../.git/modules/sub\n")
    for git in (tmp_path / ".git", own):
        (git / "HEAD").write_text("ref: refs/heads/main\n")
    a, b, c, d = (letter * 40 for letter in "abcd")
    packed = f"# pack-refs with: peeled fully-peeled sorted\n{b} refs/heads/main2\n{c} refs/tags/v\n^{d}\n"
    (own / "packed-refs").write_text(f"{packed}{b} refs/heads/a/refs/heads/main\n{a} refs/heads/main\n")
    (tmp_path / ".git" / "packed-refs").write_text(packed)
    assert provenance.revision(tmp_path / "sub" / "deep") == a
    assert provenance.revision(tmp_path) is None
    (own / "refs" / "heads").mkdir(parents=True)
    (own / "refs" / "heads" / "main").write_text(f"{'e' * 64}\n")  # newer than what was packed; of SHA-256
    assert provenance.revision(tmp_path / "sub") == "e" * 64
    for odd in ("e" * 41, "E" * 40, "e" * 39):
        (own / "refs" / "heads" / "main").write_text(odd)
        assert provenance.revision(tmp_path / "sub") is None
    (own / "refs" / "worktree").mkdir()  # names that a worktree has for itself
    for place, text in ((own, "ref: refs/worktree/x"), (own / "refs" / "worktree", a)):
        (place / ("HEAD" if place == own else "x")).write_text(f"{text}\n")
    (own / "commondir").write_text("../..\n")
    assert provenance.revision(tmp_path / "sub") == a


@pytest.mark.parametrize(
    "head", ["ref: refs/heads/../../../outside", "ref: refs/heads/none", "ref: /outside", "", "x" * 40]
)
def test_a_checkout_that_is_none_has_no_revision(tmp_path, monkeypatch, head):
    (tmp_path / "a" / ".git" / "refs" / "heads").mkdir(parents=True)
    (tmp_path / "a" / "outside").write_text("0" * 40)
    (tmp_path / "a" / ".git" / "HEAD").write_text(head)
    monkeypatch.chdir(tmp_path / "a")
    assert provenance.revision(Path()) is None
    (tmp_path / "a" / ".git" / "HEAD").unlink()
    os.mkfifo(tmp_path / "a" / ".git" / "HEAD")
    assert provenance.revision(Path()) is None
    shutil.rmtree(tmp_path / "a")
    assert provenance.revision(Path()) is None


def test_nothing_that_a_checkout_names_is_run(tmp_path, monkeypatch):
    """The folder that somebody works in may be a stranger's."""
    git = ["git", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "config", "core.fsmonitor", f"touch {tmp_path / 'executed'}; false"], check=True)
    monkeypatch.chdir(tmp_path)
    provenance.environment()
    assert not (tmp_path / "executed").exists()
    subprocess.run([*git, "status"], check=True, capture_output=True)
    assert (tmp_path / "executed").exists()  # else this would show nothing


def test_the_code_is_named_by_its_bytes(tmp_path, monkeypatch):
    (tmp_path / "package" / "runs").mkdir(parents=True)
    (tmp_path / "package" / "losses.py").write_text("one")
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "package" / "runs" / "provenance.py"))
    one = provenance.environment()["code"]
    (tmp_path / "package" / "losses.py").write_text("two")
    two = provenance.environment()["code"]
    assert (one["revision"], two["revision"]) == (None, None)
    assert len({one["sha256"], two["sha256"], provenance.environment()["code"]["sha256"]}) == 2
    (tmp_path / "package" / "losses.py").rename(tmp_path / "package" / "runs" / "losses.py")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("ab" * 20)
    moved = provenance.environment()["code"]
    assert moved["revision"] == "ab" * 20
    assert moved["sha256"] != two["sha256"]
    (tmp_path / "package" / "runs" / "losses.py").write_text("three")  # in a folder of the package
    assert provenance.environment()["code"]["sha256"] != moved["sha256"]


def test_a_package_within_somebodys_checkout_has_no_revision(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("ab" * 20)
    (tmp_path / "venv" / "package" / "runs").mkdir(parents=True)
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "venv" / "package" / "runs" / "provenance.py"))
    assert provenance.environment()["code"]["revision"] is None


def test_going_on_elsewhere_is_written_down_once(copied, monkeypatch):
    cut(copied, 6)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(99), raising=False)
    fit(copied, on_epoch=lambda epoch: None)
    for name in ("results.json",):
        (copied / name).unlink()
    fit(copied)
    resumed = records.read_record(copied)["resumed"]
    assert [entry["host"]["cores"] for entry in resumed] == [99]


def test_the_deterministic_switch_sets_the_flag_and_is_refused_too_late(monkeypatch):
    jax.devices()
    monkeypatch.setenv("XLA_FLAGS", "")
    with pytest.raises(InputError, match="deterministic: got a process in which JAX has been used already"):
        provenance.make_deterministic()
    code = (
        "import os, jax; from aevae_jax.runs import provenance as e; e.make_deterministic(); e.make_deterministic();"
        "print(os.environ['XLA_FLAGS']); print(e.environment()['settings']['xla_flags'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["--xla_gpu_deterministic_ops=true"] * 2


def test_a_full_disk_is_named_and_the_last_checkpoint_stays(copied, monkeypatch):
    cut(copied, 12)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records.Path, "replace", full)
    with pytest.raises(InputError, match=r"metrics\.jsonl .*No space left on device"):
        fit(copied)
    monkeypatch.undo()
    assert Store(copied / "checkpoints").steps()[-1] == 12


def test_a_callback_may_change_the_working_directory(tmp_path, monkeypatch):
    """All of a run lies where it was begun, though its directory was named from there."""
    for name in ("here", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    fitted = fit(Path("run"), on_epoch=lambda epoch: monkeypatch.chdir(tmp_path / "elsewhere"))
    assert os.listdir(tmp_path / "elsewhere") == []
    assert fitting.load_run(tmp_path / "here" / "run").results == fitted.results


def test_a_directory_removed_under_the_run_is_named(tmp_path):
    folder = tmp_path / "run"

    def remove(epoch):
        shutil.rmtree(folder)

    began = time.monotonic()
    with pytest.raises(InputError, match=r"removed or replaced|cannot be written"):
        fit(folder, on_epoch=remove, saving=Saving(seconds=0))
    assert time.monotonic() - began < 60
    assert not folder.exists()


def test_the_first_chunk_of_a_process_compiles_and_counts_in_no_speed():
    training = trainer.Trainer(resolution.resolve(RUN, dataset(), False))
    snapshot, speeds = training.start(), []
    for _ in range(2):
        snapshot = training.advance(snapshot, training.end_of_epoch(snapshot.progress))
        snapshot, report = training.finish_epoch(snapshot)
        speeds.append(report.examples_per_second)
    assert np.isnan(speeds[0])
    assert speeds[1] > 0
