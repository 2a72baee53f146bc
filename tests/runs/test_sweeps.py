"""A sweep is one program, whose members are what each would be alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import numpy as np
import pytest

import aevae_jax as ae
from aevae_jax import data
from aevae_jax.models import VAE, likelihoods, priors
from aevae_jax.models.architectures import MLP
from aevae_jax.objectives.losses import ELBO, LinearWarmup
from aevae_jax.runs import fitting, resolution, sweeps
from aevae_jax.runs.run import Run
from aevae_jax.training.optimizers import AdamW
from aevae_jax.types import InputError

PLAIN = VAE(2, MLP((8,)), likelihoods.NormalSharedScale(), priors.StandardNormal())
RUN = Run(model=PLAIN, batch_size=10, epochs=12, patience=2, optimizer=AdamW(1e-2, cosine=True, warmup=3))
SEEDS = (4, 2)


def vectors():
    x = np.random.RandomState(0).rand(60, 6).astype(np.float32)
    return data.from_arrays(x[:20], x[20:40], x[40:], name="vectors")


@pytest.mark.slow
def test_a_sweep_is_what_its_runs_are_with_the_same_seeds():
    """Within float32 rounding: also where some stop earlier than others, and where 0 alone would be another program."""
    run = replace(RUN, model=replace(RUN.model, likelihood=likelihoods.Normal()))
    rates, scales = (0.05, 0.001), (2, 1)
    fields = {"optimizer.learning_rate": rates, "objective.free_bits": (0, 0.5), "model.likelihood.scale": scales}
    told = []
    swept = ae.fit_sweep(run, fields, SEEDS, vectors(), on_steps=told.append)
    assert told[0].part[0] == 0
    assert told[-1].part[0] == len(swept[0].losses) <= told[-1].part[1] == 2 * run.epochs
    runs = [
        replace(
            run,
            model=replace(run.model, likelihood=likelihoods.Normal(scale), event_shape=(6,)),
            objective=ELBO(free_bits=bits),
            optimizer=replace(run.optimizer, learning_rate=rate),
        )
        for rate in rates
        for bits in (0.0, 0.5)
        for scale in map(float, scales)
    ]
    assert [fitted.run for fitted in swept] == runs
    assert len({len(fitted.history) for fitted in swept}) > 1
    for index in (0, 7):
        alone, fitted = fitting.fit_seeds(runs[index], SEEDS, vectors()), swept[index]
        assert fitted.results["best_epoch"] == alone.results["best_epoch"]
        np.testing.assert_allclose(fitted.losses, alone.losses, rtol=1e-4)
        for ours, theirs in zip(jax.tree.leaves(fitted.params), jax.tree.leaves(alone.params), strict=True):
            assert np.linalg.norm(ours - theirs) <= 1e-4 * np.linalg.norm(theirs)
        for part in ("validation", "test"):
            for ours, theirs in zip(fitted.results[part], alone.results[part], strict=True):
                assert ours == pytest.approx(theirs, rel=1e-4)
        assert len(fitted.history) == len(alone.history)
        for ours, theirs in zip(fitted.history, alone.history, strict=True):
            assert ours.keys() == theirs.keys()
            for part in ("train", "validation"):
                assert ours[part] == pytest.approx(theirs[part], rel=1e-4)


@dataclass(frozen=True)
class Rounded:
    """An objective that computes something else for every number."""

    power: float = 1.0
    scale: float = 1.0
    other: int = 3

    def __call__(self, model, params, x, key, step):
        loss, metrics = ELBO()(model, params, x, key, step)
        return self.scale * loss ** int(self.power), metrics


def resolved(**fields):
    return resolution.resolve(replace(RUN, **fields), vectors())


@pytest.mark.parametrize(
    "fields",
    [
        ["objective.beta", "objective.free_bits"],
        ["objective.beta.start", "objective.beta.end"],
        ["model.likelihood.initial_scale"],
        ["optimizer.learning_rate", "optimizer.weight_decay", "optimizer.clip_norm"],
    ],
)
def test_every_number_of_a_value_can_be_swept(fields):
    start = "objective.beta.start" in fields
    sweeps.check(resolved(objective=ELBO(LinearWarmup(5) if start else 1.0)), fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"objective.bet": (1, 2)}, "sweep: got objective.bet; did you mean objective.beta[?]"),
        ({"objective.groups": (1, 2)}, "sweep: got objective.groups, expected .*, objective.beta, objective.free_bits"),
        ({"model.log_scale_range": (1, 2)}, "sweep: got model.log_scale_range, expected"),
        ({"ema": (0.9, 0.99)}, "sweep: got ema, expected"),
        ({"kl": (1, 2)}, "sweep: got kl, expected a number that can be traced: model.likelihood"),
        ({"lr": (1, 2)}, "sweep: got lr; did you mean optimizer.learning_rate[?]"),
        ({"optimizer.learning_rate": (0.1, 0)}, "optimizer.learning_rate: got 0, expected a positive number"),
        ({"objective.beta": (1, -0.5)}, "objective.beta: got -0.5, expected at least 0"),
        ({"objective.beta": (float("inf"), 1)}, "objective.beta: got inf, expected at most"),
        ({"objective.beta": (1, float("nan"))}, "objective.beta: got nan, expected a number"),
        ({"objective.beta": (1, "2")}, "objective.beta: got '2', expected a number"),
        ({"objective.beta": (2, 2.0)}, r"objective.beta: got \[2, 2.0\], expected at least one number, each once"),
        ({"objective.beta": ()}, r"objective.beta: got \[\], expected at least one number, each once"),
        ({}, "sweep: got no field, expected numbers by field"),
    ],
)
def test_what_cannot_be_swept_is_refused(fields, message):
    with pytest.raises(InputError, match=message) as caught:
        ae.fit_sweep(RUN, fields, SEEDS, vectors())
    assert len(str(caught.value).splitlines()) == 1


def test_a_number_that_decides_what_is_computed_is_refused_with_those_that_do_not():
    run = replace(RUN, objective=Rounded())
    message = "got objective.power, expected a number that can be traced: .*scale, objective.scale, optimizer"
    with pytest.raises(InputError, match=message):
        ae.fit_sweep(run, {"objective.scale": (1, 2), "objective.power": (1, 2)}, SEEDS, vectors())


def test_members_are_named_by_seed_and_number():
    _, population = sweeps.combine(RUN, {"objective.beta": (1, 0.5), "optimizer.weight_decay": (0, 1)}, SEEDS)
    names = [population.name(member) for member in range(8)]
    assert names[:3] == [
        "seed 4, objective.beta 1, optimizer.weight_decay 0",
        "seed 2, objective.beta 1, optimizer.weight_decay 0",
        "seed 4, objective.beta 1, optimizer.weight_decay 1",
    ]
    assert names[-1] == "seed 2, objective.beta 0.5, optimizer.weight_decay 1"
    assert len(set(names)) == 8


def test_an_epoch_of_several_members_has_their_means_and_all_steps_that_were_skipped():
    entries = [
        {
            "epoch": 2,
            "step": 8,
            "train": {"loss": loss, "mse": mse},
            "validation": {"bound": loss + 1},
            "skipped": steps,
        }
        for loss, mse, steps in ((1.0, 4.0, 1), (2.0, None, 0), (6.0, 8.0, 2))
    ]
    assert sweeps.mean_entry(entries) == {
        "epoch": 2,
        "step": 8,
        "train": {"loss": 3.0, "mse": None},
        "validation": {"bound": 4.0},
        "skipped": 3,
    }
