"""Runs made to have each fault, and one that has none."""

from __future__ import annotations

import jax
import pytest

from aevae_jax import checkup, fitting, likelihoods, values
from aevae_jax.architectures import MLP
from aevae_jax.data import Data, prepare
from aevae_jax.models import VAE, Autoencoder, TwoLevelVAE
from aevae_jax.objectives import ELBO, Linear
from aevae_jax.optimizers import Adam
from aevae_jax.priors import VampPrior
from aevae_jax.runs import Run

SMALL = VAE(4, MLP((32,)))
DATASET = Data().load()
VALIDATION = prepare(Data().preparation, DATASET).validation.x


def checked(model=SMALL, objective=None, epochs=300, rate=1e-2):
    run = Run(model=model, objective=objective, optimizer=Adam(rate, cosine=True), batch_size=256, epochs=epochs)
    return checkup.check(fitting.fit(run, DATASET), VALIDATION, jax.random.key(0))


@pytest.mark.slow
@pytest.mark.parametrize(("options", "faults", "remedy"), [
    ({}, [], ""),
    ({"objective": ELBO(beta=Linear(9, end=50.0)), "epochs": 60}, ["over-regularised", "posterior collapse"], "ELBO()"),
    ({"objective": ELBO(beta=4.0)}, ["over-regularised"], "ELBO()"),
    ({"model": VAE(4, MLP((32,)), likelihoods.Normal(0.4))}, ["over-regularised"], "NormalSharedScale()"),
    ({"model": VAE(40, MLP((32,)))}, ["dead units"], "latent="),
    ({"epochs": 10}, ["under-trained"], "--epochs 40"),
    ({"objective": ELBO(beta=0.0), "epochs": 200}, ["variance collapsed"], "ELBO()"),
    ({"model": VAE(4, MLP((32,)), likelihoods.Normal(1e-3)), "epochs": 200}, ["variance collapsed"],
     "NormalSharedScale()"),
])  # fmt: skip
def test_each_fault_is_found_and_no_other(options, faults, remedy):
    found = checked(**options)
    assert [finding.fault for finding in found.findings] == faults, found
    if faults:
        assert remedy in found.findings[0].remedy


def test_an_autoencoder_is_only_asked_whether_it_was_trained_long_enough():
    """And what is to be typed against a fault can be read: a remedy that the command line refuses is none."""
    found = checked(Autoencoder(4, MLP((32,))), epochs=8)
    assert [finding.fault for finding in found.findings] == ["under-trained"]
    assert set(found.measured) == {"distortion", "mse_at_mean"}


def test_remedies_can_be_typed():
    for finding in checked(objective=ELBO(beta=50.0), epochs=10).findings:
        if "--objective" in finding.remedy:
            text = finding.remedy.split('"')[1]
            assert isinstance(values.parse(ELBO, text, "--objective"), ELBO)


@pytest.mark.parametrize("model", [TwoLevelVAE(40, MLP((32,))), VAE(40, MLP((32,)), latent_prior=VampPrior(5))])
def test_dead_units_of_a_rate_without_a_closed_form_are_not_to_be_given_free_bits(model):
    """`ELBO(free_bits=...)` refuses such a model."""
    found = checked(model, epochs=60)
    assert found.findings[0].fault == "dead units"
    assert "latent=" in found.findings[0].remedy
    assert "free_bits" not in found.findings[0].remedy
