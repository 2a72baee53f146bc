"""When a training saves, what it writes beside the arrays, and where it looks up; nothing here is trained."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from aevae_jax.checkpoints import signals
from aevae_jax.checkpoints.saving import Saving
from aevae_jax.runs import resume
from aevae_jax.runs.snapshots import Broken, Progress, Snapshot
from aevae_jax.training.devices import Layout
from aevae_jax.training.step import TrainState
from aevae_jax.types import InputError

ONE = {"best_value": (1.0,), "best_epoch": (1,), "in_a_row": (0,)}


def at(step, **progress):
    state = TrainState(np.int32(step), {"w": np.zeros(3, np.float32)}, (), None)
    return Snapshot(state, {}, {}, np.zeros(0, np.float32), Progress(step=step, **{**ONE, **progress}))


@pytest.fixture
def keep(tmp_path, monkeypatch):
    """Makes a keeper with a clock that is set by hand, and a list of what it saves."""

    def make(saving):
        clock, saved, checks, arrays = SimpleNamespace(now=1000.0), [], [], {}
        store = SimpleNamespace(
            save=lambda step, named, notes: (saved.append(notes), arrays.update(named)),
            retain=checks.append,
            clean=lambda: None,
            check=lambda: None,
        )
        monkeypatch.setattr(resume, "Store", lambda folder, run: store)
        monkeypatch.setattr(resume, "time", SimpleNamespace(monotonic=lambda: clock.now))
        lock, caught = SimpleNamespace(check=lambda: checks.append(len(saved))), signals.Caught()
        manager = resume.CheckpointManager(
            tmp_path, "0" * 64, saving, lock=lock, caught=caught, note=print, selects="bound"
        )
        return SimpleNamespace(manager=manager, clock=clock, saved=saved, caught=caught, checks=checks, arrays=arrays)

    return make


@pytest.mark.parametrize(
    ("offers", "saved"), [((0, 61, 62, 122), [61, 122]), ((0, 9, 10, 69, 70, 129), [10, 70]), ((9,), [])]
)
def test_seconds_are_counted_from_the_last_save_and_the_first_comes_sooner(keep, offers, saved):
    made = keep(Saving(seconds=60))
    for second in offers:
        made.clock.now = 1000.0 + second
        made.manager.save_if_due(at(second), boundary=False)
    assert [notes["step"] for notes in made.saved] == saved


def test_a_save_outside_the_turn_counts_as_one(keep):
    """At the end, or when it goes back: the next comes `seconds` later."""
    made = keep(Saving(seconds=60))
    made.clock.now = 1050.0
    made.manager.save(at(1), boundary=False)
    for second in (60, 109, 110):
        made.clock.now = 1000.0 + second
        made.manager.save_if_due(at(second), boundary=False)
    assert [notes["step"] for notes in made.saved] == [1, 110]
    assert made.checks == [0, Saving(seconds=60), 1, Saving(seconds=60)]  # the lock first, and what is kept last


def test_what_is_saved_already_is_not_saved_again(keep, monkeypatch):
    made, restored = keep(Saving(seconds=0, steps=5)), at(5)
    monkeypatch.setattr(resume, "restore", lambda store, trainer, until, note: restored if until == 7 else None)
    trainer = SimpleNamespace(layout=Layout())
    assert made.manager.restore(trainer, 6) is None
    assert made.manager.restore(trainer, 7).progress is restored.progress
    made.manager.save_if_due(restored, boundary=False)
    assert made.saved == []
    for snapshot in (at(6), at(6), at(6, epoch=1)):
        made.manager.save_if_due(snapshot, boundary=False)
    assert [(notes["step"], notes["epoch"]) for notes in made.saved] == [(6, 0), (6, 1)]
    made.caught.name = "SIGTERM"
    with pytest.raises(signals.Interrupted, match="stopped by SIGTERM, saved at step 6: the same command resumes it"):
        made.manager.save_if_due(at(6, epoch=1), boundary=True)
    assert len(made.saved) == 2
    with pytest.raises(signals.Interrupted, match="saved at step 7"):
        made.manager.save_if_due(at(7), boundary=False)


@pytest.mark.parametrize(
    ("saving", "saved"),
    [(Saving(seconds=1e9, steps=5), [5, 10]), (Saving(seconds=1e9, every=2), [8]), (Saving(seconds=1e9), [])],
)
def test_steps_and_epochs_that_are_asked_for(keep, saving, saved):
    """Four steps an epoch; an epoch counts when it has been evaluated."""
    made = keep(saving)
    for step in range(1, 12):
        if step != 8:
            made.manager.save_if_due(at(step, epoch=step // 4), boundary=step % 4 == 0)
        else:
            made.manager.save_if_due(at(step, epoch=1), boundary=False)
            made.manager.save_if_due(at(step, epoch=2), boundary=True)
    assert [notes["step"] for notes in made.saved] == saved


def test_the_next_look_is_after_a_chunk_or_where_a_save_is_due(keep):
    manager = keep(Saving(steps=5)).manager
    assert [manager.next_stop(step, chunk) for step, chunk in ((3, 10), (5, 3), (5, 7), (4, 1), (0, 5))] == [
        5,
        8,
        10,
        5,
        5,
    ]
    assert keep(Saving()).manager.next_stop(3, 10) == 13


def test_only_an_epoch_of_one_seed_has_a_value_to_be_kept_by(keep):
    made = keep(Saving())
    history = ({"validation": {"bound": 9.0}}, {"validation": {"bound": 2.5, "other": 1.0}})
    two = {"best_value": (1.0, 1.0), "best_epoch": (1, 1), "in_a_row": (0, 0)}
    for snapshot, boundary in (
        (at(8, history=history), True),
        (at(9, history=history), False),
        (at(10), True),
        (at(11, history=history, **two), True),
    ):
        made.manager.save(snapshot, boundary=boundary)
    assert [(notes.get("value"), notes["boundary"]) for notes in made.saved] == [
        (2.5, True),
        (None, False),
        (None, True),
        (None, True),
    ]
    assert "value" not in made.saved[1]


def test_a_pace_survives_a_chunk_that_took_no_time_and_a_long_one():
    timer = resume.ChunkSizer(2.0)
    for steps, seconds, following in ((1, 9.0, 1), (1, 0.0, 4), (4, 0.0, 16), (16, 8.0, 4), (4, 100.0, 1)):
        timer.took(steps, seconds)
        assert timer.steps() == following
    assert resume.CHUNK_SECONDS == 1.0  # "within about a second"


def test_a_checkpoint_whose_notes_are_of_another_step_is_refused():
    trainer = SimpleNamespace(shapes=lambda progress: at(progress.step), layout=Layout())
    store = SimpleNamespace(restore_newest=lambda like, until, place: like(8, Progress(step=3).to_notes()))
    with pytest.raises(InputError, match="checkpoint: got notes of step 3, expected those of step 8"):
        resume.restore(store, trainer)


def test_arrays_come_back_where_they_were(keep):
    snapshot = Snapshot(
        TrainState(np.int32(1), {"w": np.full(3, 2.0)}, ({"mu": np.full(3, 3.0)},), {"w": np.full(3, 4.0)}),
        {"w": np.full(3, 5.0)},
        {"loss": np.full(2, 6.0), "rate": np.full(2, 7.0)},
        np.full(8, 8.0),
        Progress(step=1, **ONE),
    )
    made = keep(Saving())
    made.manager.save(snapshot, boundary=False)
    named = made.arrays
    assert {name: float(np.max(array)) for name, array in named.items()} == {
        "state/step": 1,
        "state/params/w": 2,
        "state/opt_state/0/mu": 3,
        "state/ema/w": 4,
        "best/w": 5,
        "logged/metrics/loss": 6,
        "logged/metrics/rate": 7,
        "logged/losses": 8,
    }
    found = SimpleNamespace(
        step=1, arrays=dict(reversed(named.items())), notes=snapshot.progress.to_notes(), damaged=[]
    )
    trainer = SimpleNamespace(shapes=lambda progress: snapshot._replace(progress=progress), layout=Layout())
    again = resume.restore(SimpleNamespace(restore_newest=lambda like, until, place: found), trainer)
    assert again.progress == snapshot.progress
    assert isinstance(again.losses, np.ndarray)
    made = keep(Saving())
    made.manager.save(again, boundary=False)
    assert made.arrays.keys() == named.keys()
    assert all(array is named[name] for name, array in made.arrays.items() if name != "logged/losses")


def test_progress_comes_back_from_json():
    progress = Progress(
        step=21,
        epoch=2,
        best_value=(math.inf, 1.5),
        best_epoch=(0, 2),
        in_a_row=(3, 0),
        rollbacks=((1, 3), (4, 9)),
        seconds=1.25,
        history=({"epoch": 1}, {"epoch": 2}),
    )
    notes = json.loads(json.dumps(progress.to_notes(), allow_nan=False))
    assert notes["best_value"] == [None, 1.5]
    assert Progress.from_notes(notes) == progress


def test_what_broke_is_said_by_its_first_and_last_step():
    assert str(Broken(3, 8, 0)) == "steps 3 to 7"
    assert str(Broken(8, 8, 1)) == "the validation after step 8"
    assert (Broken(3, 8, 1).first, Broken(3, 8, 1).after, Broken(3, 8, 1).seed_index) == (3, 8, 1)
