"""Whether a directory holds the run that is asked for, as far as that is seen before any data is read."""

from __future__ import annotations

from dataclasses import replace

import pytest
from run_files import write_record

from aevae_jax import values
from aevae_jax.models import VAE, Autoencoder, ConditionalAutoencoder, ConditionalVAE, SemiSupervisedVAE
from aevae_jax.models.likelihoods import NormalSharedScale, Tabular
from aevae_jax.models.priors import StandardNormal, VampPrior
from aevae_jax.objectives.total_correlation import BetaTCVAE
from aevae_jax.runs import same_run
from aevae_jax.runs.run import Run
from aevae_jax.types import InputError

TYPED = Run(model=VAE(latent=3), epochs=5)
RECORDED = replace(
    TYPED,
    model=VAE(3, likelihood=NormalSharedScale(), latent_prior=VampPrior(7), event_shape=(8, 8, 1)),
    batch_size=128,
)


@pytest.fixture
def folder(tmp_path):
    """A directory with the record of a run that was trained on data."""
    write(tmp_path / "run")
    return tmp_path / "run"


def write(folder, **more):
    folder.mkdir(exist_ok=True)
    record = {"run": values.to_tree(RECORDED), "format": {}, "provenance": {"data": {"sha256": ""}}, **more}
    write_record(folder, record)


@pytest.mark.parametrize("run", [TYPED, RECORDED, replace(TYPED, epochs=9)], ids=["open", "closed", "longer"])
def test_what_may_be_the_same_run_is_accepted(run, folder, tmp_path):
    same_run.check_typed(folder, run)
    same_run.check_typed(tmp_path / "nothing", run)


def test_columns_that_a_likelihood_takes_from_a_table_are_no_difference(tmp_path):
    typed = replace(TYPED, model=VAE(3, likelihood=Tabular(), latent_prior=StandardNormal()))
    record = {
        "run": values.to_tree(replace(typed, batch_size=128)),
        "format": {},
        "provenance": {"data": {"sha256": ""}},
    }
    record["run"]["model"]["likelihood"]["columns"] = [0, 2]
    write_record(tmp_path, record)
    same_run.check_typed(tmp_path, typed)


@pytest.mark.parametrize("model", [ConditionalVAE, ConditionalAutoencoder, SemiSupervisedVAE])
def test_the_form_of_a_condition_that_a_model_takes_from_the_data_is_no_difference(model, tmp_path):
    typed = replace(TYPED, model=model(3, likelihood=NormalSharedScale()), objective=None)
    sizes = {"classes": 10} if model is SemiSupervisedVAE else {"classes": 10, "vector": 4}
    recorded = replace(typed, model=replace(typed.model, event_shape=(8, 8, 1), **sizes), batch_size=128)
    write_record(tmp_path, {"run": values.to_tree(recorded), "format": {}, "provenance": {"data": {"sha256": ""}}})
    same_run.check_typed(tmp_path, typed)
    with pytest.raises(InputError, match=r"model latent 3, here 4"):
        same_run.check_typed(tmp_path, replace(typed, model=replace(typed.model, latent=4)))


def test_the_number_of_examples_that_a_loss_takes_from_the_data_is_no_difference(tmp_path):
    typed = replace(TYPED, objective=BetaTCVAE(3.0))
    recorded = replace(typed, objective=BetaTCVAE(3.0, num_examples=80), batch_size=128)
    write_record(tmp_path, {"run": values.to_tree(recorded), "format": {}, "provenance": {"data": {"sha256": ""}}})
    same_run.check_typed(tmp_path, typed)
    with pytest.raises(InputError, match=r"objective total_correlation 3\.0, here 4\.0"):
        same_run.check_typed(tmp_path, replace(typed, objective=BetaTCVAE(4.0)))


@pytest.mark.parametrize(
    ("run", "difference"),
    [
        (replace(TYPED, batch_size=7), "batch_size 128, here 7"),
        (replace(TYPED, model=VAE(latent=4)), "model latent 3, here 4"),
        (replace(TYPED, model=Autoencoder(latent=3), objective=None), "model VAE, here Autoencoder"),
    ],
)
def test_another_run_is_refused_with_a_free_name(run, difference, folder):
    with pytest.raises(InputError, match=rf"which holds another run \({difference}.*such as .*/run-2, or --fresh"):
        same_run.check_typed(folder, run)


def test_a_sweep_is_left_to_whoever_knows_its_members(folder):
    write(folder, sweep={"seeds": [0], "fields": [], "numbers": []})
    same_run.check_typed(folder, replace(TYPED, batch_size=7))
