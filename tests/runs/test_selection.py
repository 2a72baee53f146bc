"""What selects parameters has one spelling: in training, in checkpoints, in results, on the line of progress."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from aevae_jax import data
from aevae_jax.checkpoints.saving import Saving
from aevae_jax.cli import console
from aevae_jax.models import VAE, Autoencoder, likelihoods
from aevae_jax.models.architectures import MLP
from aevae_jax.models.priors import StandardNormal
from aevae_jax.objectives.losses import ELBO, IWAE, ReconstructionError
from aevae_jax.runs import resume
from aevae_jax.runs.resolution import resolve
from aevae_jax.runs.run import Run
from aevae_jax.runs.snapshots import Progress
from aevae_jax.runs.trainer import Trainer
from aevae_jax.types import InputError

X = np.random.default_rng(0).random((30, 6)).astype(np.float32)
DATA = data.from_arrays(X[:10], X[10:20], X[20:], name="vectors")
RUN = Run(model=VAE(2, MLP(()), latent_prior=StandardNormal()), batch_size=10, epochs=1)
BOUND = "negative_importance_weighted_bound"


def own(model, params, x, key, step):
    """A loss that says nothing of its validation, and returns a metric of its own."""
    return jnp.square(params["decoder"]["out"]["kernel"]).sum(), {"sharpness": jnp.ones(())}


@pytest.mark.parametrize(
    ("run", "name"),
    [
        (RUN, "negative_elbo"),
        (replace(RUN, objective=IWAE(1)), "negative_elbo"),
        (replace(RUN, objective=IWAE(5)), BOUND),
        (replace(RUN, objective=ReconstructionError()), "distortion"),
        (replace(RUN, objective=own), "negative_elbo"),
        (replace(RUN, model=Autoencoder(2, MLP(())), objective=None), "distortion"),
        (replace(RUN, model=Autoencoder(2, MLP(())), objective=own), "distortion"),
        (replace(RUN, model=VAE(2, MLP(()), likelihoods.NormalOptimalScale())), "profile_loss"),
    ],
    ids=range(8),
)
def test_a_plan_says_what_selects(run, name):
    assert resolve(run, DATA).selects == name


class Points(Autoencoder):
    """A model that does not say beforehand that its codes are points."""

    point_codes = False


@pytest.mark.parametrize(
    ("model", "objective", "name"),
    [
        (Points(2, MLP(())), ELBO(), "negative_elbo or profile_loss"),
        (VAE(2, MLP(()), likelihoods.NormalOptimalScale()), IWAE(1), "negative_elbo"),
        (VAE(2, MLP(()), likelihoods.NormalOptimalScale()), IWAE(5), BOUND),
    ],
    ids=["points", "one sample of a profile", "many"],
)
def test_an_objective_that_cannot_select_is_refused_before_training(model, objective, name):
    with pytest.raises(InputError, match=f"which selects by {name}, expected"):
        resolve(replace(RUN, model=model, objective=objective), DATA)


@pytest.fixture(scope="module")
def trained():
    """One epoch by the bound of five samples, and a snapshot after it."""
    trainer = Trainer(resolve(replace(RUN, objective=IWAE(5)), DATA))
    snapshot, report = trainer.finish_epoch(trainer.advance(trainer.start(), 1))
    return trainer, snapshot, report


def test_training_results_and_progress_name_the_bound_that_selects(trained, capsys):
    trainer, snapshot, report = trained
    value = report.validation[BOUND]
    assert snapshot.progress.best_value == (value,)
    assert report.selects == BOUND
    assert value != report.validation["negative_elbo"]
    with console.progress() as on_epoch:
        on_epoch(report)
    assert f"validation {value:.1f}" in capsys.readouterr().err
    assert trainer.results(snapshot)["protocol"].endswith(f"of the least {BOUND} of validation data")


def test_a_checkpoint_carries_the_value_that_selects(trained, tmp_path, monkeypatch):
    """Not the ELBO, which IWAE makes worse."""
    trainer, snapshot, report = trained
    lock, saved = SimpleNamespace(check=lambda: None), []
    monkeypatch.setattr(resume.Store, "save", lambda self, step, arrays, notes: saved.append(notes))
    manager = resume.CheckpointManager(
        tmp_path, "0" * 64, Saving(), lock=lock, caught=None, note=print, selects=trainer.resolved.selects
    )
    manager.save(snapshot, boundary=True)
    assert saved[0]["value"] == report.validation[BOUND]
    assert Progress.from_notes(saved[0]) == snapshot.progress
