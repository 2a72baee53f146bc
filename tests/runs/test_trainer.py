"""The loop between epochs: what is reported of each, and of which parameters the results are."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aevae_jax import data, evaluation, keys
from aevae_jax.models import VAE
from aevae_jax.models.architectures import MLP
from aevae_jax.models.priors import StandardNormal
from aevae_jax.runs import non_finite, resolution, trainer, training_loop
from aevae_jax.runs.callbacks import Callbacks
from aevae_jax.runs.run import Run
from aevae_jax.runs.snapshots import Broken, Progress
from aevae_jax.runs.sweeps import Population, mean_entry
from aevae_jax.training import loops
from aevae_jax.training.optimizers import AdamW
from aevae_jax.types import InputError

RUN = Run(model=VAE(2, MLP((4,)), latent_prior=StandardNormal()), batch_size=10, epochs=3)
SEEDS, STEPS = (7, 8, 5), 2  # none of which is its own place
POPULATION = Population(SEEDS)


@pytest.fixture(scope="module")
def several():
    """Three seeds before their first step."""
    x = np.random.default_rng(0).integers(0, 256, (40, 2, 2, 1)).astype(np.uint8)
    made = trainer.Trainer(resolution.resolve(RUN, data.from_arrays(x[:20], x[20:30], x[30:])), POPULATION)
    return made, made.start()


def test_speed_counts_the_examples_of_all_seeds_and_no_compilation(several, monkeypatch):
    made, snapshot = several
    monkeypatch.setattr(trainer, "time", SimpleNamespace(perf_counter=map(float, count()).__next__))
    reports, seconds = [], []
    snapshot = snapshot._replace(state=jax.tree.map(jnp.copy, snapshot.state))  # it is donated
    for epoch in (1, 2):
        snapshot, report = made.finish_epoch(made.advance(snapshot, epoch * STEPS))
        reports.append(report)
        seconds.append(snapshot.progress.seconds)
    assert np.isnan(reports[0].examples_per_second)
    assert 2 <= seconds[0] <= seconds[1] - 2  # of the training and of the evaluation, in all epochs so far
    assert reports[1].examples_per_second == len(SEEDS) * RUN.batch_size * STEPS  # in one second of this clock


def test_results_are_those_of_the_selected_parameters_and_not_of_the_last(several):
    """Each seed's best parameters, of an epoch that is not the last, are others than where its training ended."""
    made, snapshot = several
    selected = jax.tree.map(lambda leaf: leaf + 0.5, snapshot.best)
    progress = replace(snapshot.progress, best_epoch=(3, 1, 2), seconds=12.34567)
    results = made.results(snapshot._replace(best=selected, progress=progress))
    assert (results["best_epoch"], results["seconds"]) == ([3, 1, 2], 12.346)
    prepared = data.prepare(RUN.data.preparation, made.resolved.dataset)
    for s, seed in enumerate(SEEDS):
        params = jax.tree.map(lambda leaf, s=s: leaf[s], selected)
        key = keys.stream(keys.root(seed), keys.Stream.EVALUATE)
        for part in ("validation", "test"):
            measured = evaluation.evaluate(made.resolved.run.model, params, getattr(prepared, part).x, key)
            assert results[part][s] == pytest.approx(measured, rel=1e-5)


def test_the_last_epoch_of_the_patience_may_be_the_best(several):
    """A seed that has waited for longer has stopped, though others go on."""
    made, snapshot = several
    patient = trainer.Trainer(made.resolved._replace(run=replace(made.resolved.run, patience=2)), POPULATION)
    snapshot = patient.advance(snapshot._replace(state=jax.tree.map(jnp.copy, snapshot.state)), STEPS)
    third, _ = patient.finish_epoch(
        snapshot._replace(progress=replace(snapshot.progress, epoch=2, best_epoch=(1, 0, 2)))
    )
    assert third.progress.best_epoch == (3, 0, 3)


def test_the_best_parameters_are_kept_when_a_later_epoch_is_worse(several):
    made, snapshot = several
    snapshot = snapshot._replace(state=jax.tree.map(jnp.copy, snapshot.state))
    snapshot, _ = made.finish_epoch(made.advance(snapshot, STEPS))
    worse = jax.tree.map(lambda leaf: 1e3 + leaf, snapshot.state.params)
    last, _ = made.finish_epoch(made.advance(snapshot, 2 * STEPS)._replace(state=snapshot.state._replace(params=worse)))
    assert last.progress.best_epoch == (1, 1, 1)
    chex.assert_trees_all_equal(last.best, snapshot.best)


def test_the_best_parameters_are_kept_of_the_seed_alone_that_became_worse(several, monkeypatch):
    made, snapshot = several
    snapshot = snapshot._replace(state=jax.tree.map(jnp.copy, snapshot.state))
    bounds = iter((3.0, 3.0, 3.0, 2.0, 4.0, 2.0))
    monkeypatch.setattr(evaluation, "evaluate", lambda *_, **__: {"negative_elbo": next(bounds)})
    monkeypatch.setattr(loops, "map_in_threads", lambda function, items, **_: map(function, items))  # in their order
    first, _ = made.finish_epoch(made.advance(snapshot, STEPS))
    kept = jax.tree.map(np.array, first.best)
    last, _ = made.finish_epoch(made.advance(first, 2 * STEPS))
    assert last.progress.best_epoch == (2, 1, 2)
    for seed, best in enumerate((last.state.params, kept, last.state.params)):
        chex.assert_trees_all_equal(*(jax.tree.map(lambda a, seed=seed: a[seed], tree) for tree in (last.best, best)))


def test_the_seed_whose_validation_is_no_number_is_named(several, monkeypatch):
    """Not one that is sound, and not by its place."""
    made, snapshot = several
    params = jax.tree.map(lambda leaf: leaf.at[1].set(jnp.nan), snapshot.state.params)
    spoilt = snapshot._replace(
        state=snapshot.state._replace(params=params), progress=replace(snapshot.progress, step=STEPS)
    )
    with pytest.raises(Broken, match="the validation after step 2") as caught:
        made.finish_epoch(spoilt)
    assert (caught.value.first, caught.value.after, caught.value.seed_index) == (2, 2, 1)
    monkeypatch.setattr(non_finite, "scale_advice", lambda resolved: "")
    message = "training of seed 8: got no finite loss or gradient in the validation after step 2, expected finite"
    monkeypatch.setattr(made, "start", lambda: spoilt)
    monkeypatch.setattr(training_loop, "Trainer", lambda resolved, population: made)
    with pytest.raises(InputError, match=message):
        training_loop.train(made.resolved, POPULATION, None, Callbacks(None, print, print))


def test_means_are_over_the_steps_that_each_seed_used(several, monkeypatch):
    """And then over the seeds; the losses of all steps are kept."""
    made, snapshot = several
    losses = np.array([[1.0, 2.0, 3.0], [5.0, 1e30, 7.0]], np.float32)
    measured = [{"negative_elbo": bound, "rate": rate} for bound, rate in ((1.0, 4.0), (3.0, 5.0), (8.0, 0.0))]
    values = iter(measured)
    monkeypatch.setattr(evaluation, "evaluate", lambda *_, **__: next(values))
    monkeypatch.setattr(loops, "map_in_threads", lambda function, items, **_: map(function, items))  # in their order
    metrics = {"loss": losses, "skipped": np.array([[0, 0, 0], [0, 1, 0]])}
    progress = Progress(4, 1, (0.5, 3.0, 9.0), (1, 1, 1), (0, 0, 0), history=({"epoch": 1},))
    before = np.full((STEPS, 3), 9.0, np.float32)
    last, report = made.finish_epoch(snapshot._replace(metrics=metrics, losses=before, progress=progress))
    assert (report.epoch, report.epochs, report.step, report.skipped) == (2, 3, 4, 1)
    assert report.train == {"loss": (3.0 + 2.0 + 5.0) / 3}
    assert report.validation == {"negative_elbo": 4.0, "rate": 3.0}
    np.testing.assert_array_equal(report.losses, losses)
    np.testing.assert_array_equal(last.losses, [*before, *losses])
    entry = {"epoch": 2, "step": 4, "train": report.train, "validation": report.validation, "skipped": 1}
    each = [
        {**entry, "train": {"loss": loss}, "validation": found, "skipped": skipped}
        for loss, found, skipped in zip((3.0, 2.0, 5.0), measured, (0, 1, 0), strict=True)
    ]
    assert last.progress.history == ({"epoch": 1}, *each)  # as of the members alone
    assert mean_entry(each) == entry
    assert mean_entry([each[0], {**each[1], "train": {"loss": None}}])["train"] == {"loss": None}
    assert last.progress.best_value == (0.5, 3.0, 8.0)  # an equal one is none better
    assert last.progress.best_epoch == (1, 1, 2)
    assert np.asarray(last.metrics["skipped"]).min() == 1  # of the steps to come


def test_the_end_is_where_all_seeds_have_waited_or_all_epochs_are_done(several):
    made, _ = several
    patient = SimpleNamespace(resolved=made.resolved._replace(run=replace(made.resolved.run, epochs=9, patience=2)))
    for epoch, best, patience, ends in (
        (9, (9, 9, 9), True, True),
        (8, (1, 1, 1), False, False),
        (3, (1, 1, 1), True, True),
        (3, (1, 2, 1), True, False),
        (2, (1, 1, 1), True, False),
        (0, (0, 0, 0), True, False),
    ):
        progress = Progress(epoch=epoch, best_epoch=best)
        impatient = SimpleNamespace(resolved=patient.resolved._replace(run=replace(patient.resolved.run, patience=0)))
        assert trainer.Trainer.finished(patient if patience else impatient, progress) is ends, (epoch, best)


@pytest.mark.parametrize(("skipped", "used"), [(5, True), (6, False)])
def test_a_training_is_of_use_if_one_step_of_one_seed_was(several, skipped, used):
    history = ({"skipped": 2}, {"skipped": skipped - 2})
    assert several[0].used(Progress(step=2, history=history)) is used


@pytest.mark.parametrize(
    ("step", "epoch", "lanes", "message"),
    [
        (2, 0, 3, ""),
        (2, 1, 3, ""),
        (4, 1, 3, ""),
        (6, 3, 3, ""),
        (3, 0, 3, "got step 3 in epoch 1, expected 2 steps per epoch"),
        (1, 1, 3, "got step 1 in epoch 2, expected 2"),
        (-1, 0, 3, "got step -1 in epoch 1"),
        (8, 4, 3, "got notes of another training, expected those of this run"),
        (2, 1, 1, "got notes of another training"),
    ],
)
def test_progress_that_this_run_cannot_have_made_is_refused(several, step, epoch, lanes, message):
    made, snapshot = several
    progress = Progress(step, epoch, (1.0,) * lanes, (1,) * lanes, (0,) * lanes)
    if message:
        with pytest.raises(InputError, match=f"checkpoint: {message}"):
            made.shapes(progress)
        return
    found = made.shapes(progress)
    assert found.losses.shape == (2 * epoch, 3)  # of the epochs that are done
    assert jax.tree.map(lambda a: a.shape, found.state) == jax.tree.map(lambda a: a.shape, snapshot.state)


def test_seeds_of_32_bits_are_those_of_a_run(several):
    """The largest ones, too, together and alone."""
    largest = 2**32 - 1
    made = trainer.Trainer(several[0].resolved, Population((largest, 2**31)))
    assert jax.random.key_data(made.key).tolist() == [[0, largest], [0, 2**31]]
    assert jax.random.key_data(keys.root(largest)).tolist() == [0, largest]


def test_streaks_go_on_across_chunks_by_seed_and_not_across_what_was_gone_round():
    no = np.zeros(4, bool)

    def streaks(before, flags, jumped=no):
        found = Progress(step=10, in_a_row=before).streaks(np.array(flags), jumped, limit=3)
        assert isinstance(found, tuple)
        return found

    assert streaks((2,), [0, 1, 1, 0]) == (0,)
    assert streaks((0,), [0, 0, 1, 1]) == (2,)
    assert streaks((2, 0), [[0, 0], [0, 1], [1, 0], [1, 1]]) == (2, 1)
    assert streaks((2,), [1, 1, 0, 1], np.array([True, True, False, False])) == (1,)
    for before, flags, expected in (
        ((2,), [1, 0, 0, 0], (8, 11, 0)),
        ((0,), [0, 1, 1, 1], (11, 14, 0)),
        ((0, 1), [[0, 1], [0, 1], [0, 0], [0, 0]], (9, 12, 1)),
    ):
        with pytest.raises(Broken) as caught:
            streaks(before, flags)
        assert (caught.value.first, caught.value.after, caught.value.seed_index) == expected


def test_no_program_is_compiled_for_each_array_of_the_parameters(caplog):
    """XLA takes as long for the smallest of them as for one that copies, or chooses, all."""
    x = np.random.default_rng(0).integers(0, 256, (50, 3, 2, 1)).astype(np.uint8)  # a shape of no other test
    with jax.log_compiles():
        made = trainer.Trainer(resolution.resolve(RUN, data.from_arrays(x[:20], x[20:30], x[30:])), POPULATION)
        snapshot = made.start()
        last, _ = made.finish_epoch(snapshot._replace(progress=replace(snapshot.progress, step=STEPS)))
    chex.assert_trees_all_equal(last.best, snapshot.state.params)
    compiled = Counter(found[1] for found in map(re.compile(r"Compiling jit\((.+?)\)").match, caplog.messages) if found)
    assert {"init", "copied", "_choose", "_scan"} <= compiled.keys()
    assert max(compiled.values()) <= 3, compiled  # there are six shapes of parameters


def test_the_optimizer_is_built_for_all_steps_of_the_run(several, monkeypatch):
    """Its schedules end with the training."""
    built = []
    monkeypatch.setattr(AdamW, "build", lambda self, steps: built.append(steps) or optax.sgd(0.1))
    trainer.Trainer(several[0].resolved._replace(run=replace(several[0].resolved.run, optimizer=AdamW(0.123))))
    assert built == [3 * STEPS]
