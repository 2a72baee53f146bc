"""The loop between epochs: what is reported of each, and of which parameters the results are."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aevae_jax import data, evaluation, keys
from aevae_jax.models.architectures import MLP
from aevae_jax.models.vae import VAE
from aevae_jax.runs import plans, trainer
from aevae_jax.runs.run import Run

RUN = Run(model=VAE(2, MLP((4,))), batch_size=10, epochs=3)
SEEDS, STEPS = (0, 1, 2), 2


@pytest.fixture(scope="module")
def several():
    """Three seeds before their first step."""
    x = np.random.default_rng(0).integers(0, 256, (40, 2, 2, 1)).astype(np.uint8)
    made = trainer.Trainer(plans.plan_of(RUN, data.from_arrays(x[:20], x[20:30], x[30:])), SEEDS)
    return made, made.start()


def test_speed_counts_the_examples_of_all_seeds_and_no_compilation(several, monkeypatch):
    made, snapshot = several
    monkeypatch.setattr(trainer, "time", SimpleNamespace(perf_counter=map(float, count()).__next__))
    reports = []
    snapshot = snapshot._replace(state=jax.tree.map(jnp.copy, snapshot.state))  # it is donated
    for epoch in (1, 2):
        snapshot, report = made.finish_epoch(made.advance(snapshot, epoch * STEPS))
        reports.append(report)
    assert np.isnan(reports[0].examples_per_second)
    assert reports[1].examples_per_second == len(SEEDS) * RUN.batch_size * STEPS  # in one second of this clock


def test_results_are_those_of_the_selected_parameters_and_not_of_the_last(several):
    """Each seed's best parameters, of an epoch that is not the last, are others than where its training ended."""
    made, snapshot = several
    selected = jax.tree.map(lambda leaf: leaf + 0.5, snapshot.best)
    results = made.results(snapshot._replace(best=selected))
    prepared = data.prepare(RUN.data.preparation, made.plan.dataset)
    for lane, seed in enumerate(SEEDS):
        params = jax.tree.map(lambda leaf, lane=lane: leaf[lane], selected)
        key = keys.stream(keys.root(seed), keys.Stream.EVALUATE)
        for part in ("validation", "test"):
            measured = evaluation.evaluate(made.plan.run.model, params, getattr(prepared, part).x, key)
            assert results[part][lane] == pytest.approx(measured, rel=1e-5)


def test_the_last_epoch_of_the_patience_may_be_the_best(several):
    """A seed that has waited for longer has stopped, though others go on."""
    made, snapshot = several
    patient = trainer.Trainer(made.plan._replace(run=replace(made.plan.run, patience=2)), SEEDS)
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
