"""What is said of samples by the shares of them and of data that judges see."""

from __future__ import annotations

import dataclasses

import jax
import pytest

from aevae_jax.evaluation import random_codes
from aevae_jax.evaluation.findings import Finding
from aevae_jax.evaluation.image_quality import Judgement, SampleQuality
from aevae_jax.evaluation.statistics import Manifold
from aevae_jax.models import VAE, Autoencoder, priors
from aevae_jax.models.architectures import Conv
from aevae_jax.objectives.adversarial import AAE
from aevae_jax.objectives.losses import ELBO, ReconstructionError
from aevae_jax.objectives.matching import MMD
from aevae_jax.objectives.nominal import has_nominal_prior
from aevae_jax.runs import fitting
from aevae_jax.runs.run import Run

MODEL = VAE(16, latent_prior=priors.StandardNormal(), event_shape=(8, 8, 1))
DATA = SampleQuality(2.0, Manifold(0.97, 0.97, 0.99, 0.98), 0.72, 180)


def judged(count=180, **shares):
    """Samples with these shares, and for the rest those of data."""
    confident = shares.pop("confident", DATA.confident)
    made = SampleQuality(5.6, DATA.manifold._replace(**shares), confident, count)
    return Judgement(made, DATA._replace(num_samples=count))


@pytest.mark.parametrize(
    ("found", "short"),
    [
        (judged(), []),
        (judged(confident=0.117), ["confident 0.12 (data 0.72)"]),
        (judged(recall=0.002, coverage=0.5), ["recall 0.002 (data 0.97)", "coverage 0.5 (data 0.98)"]),
        (judged(confident=0.49), []),  # more than two thirds
        (judged(confident=0.47), ["confident 0.47 (data 0.72)"]),
        (judged(15, confident=0.3), []),  # 2.3 standard errors
        (judged(40, confident=0.3), ["confident 0.3 (data 0.72)"]),
        (judged(15, precision=0.0), ["precision 0 (data 0.97)"]),
        (judged(density=0.01), []),  # which is no share
    ],
)
def test_shares_are_clearly_worse_by_a_third_and_three_standard_errors(found, short):
    assert random_codes.shortfalls(found) == short


@pytest.mark.parametrize(("objective", "larger"), [(MMD(10.0), MMD(40.0)), (AAE(), AAE(4.0))], ids=["MMD", "AAE"])
def test_an_autoencoder_whose_codes_are_trained_to_follow_its_prior_is_not_said_to_have_none(objective, larger):
    """Only a prior that nothing was done for is nominal; and codes come nearer by a larger weight, not by a VAE."""
    run = Run(model=Autoencoder(4), objective=objective)
    [found] = random_codes.holes(fitting.Fitted(run, run.model, {}, [{"step": 8}], {}, None), 5.0)
    assert found.evidence.startswith("random codes fall into holes: ")
    assert found.changes == {"objective": larger}
    assert not has_nominal_prior(run.model, {}, objective)
    for other in (dataclasses.replace(objective, weight=0.0), ReconstructionError()):
        assert has_nominal_prior(run.model, {}, other)


def verdict(found, recognised, model=MODEL, gap=0.0, curve=()):
    run = Run(model=model)
    params = jax.eval_shape(run.model.init, jax.random.key(0))  # nothing is computed with them
    fitted = fitting.Fitted(run, run.model, params, [{"step": 8}], {}, None)
    return random_codes.bad_samples(fitted, found, recognised, gap=gap, examples=1257, curve=list(curve))


def test_samples_that_are_worse_than_data_and_their_reconstructions_are_those_of_the_prior():
    [bad] = verdict(judged(confident=0.117), 0.76)
    assert bad.evidence.startswith(
        "samples are clearly worse than data: confident 0.12 (data 0.72), Frechet distance 5.6 (data 2); "
    )
    assert "reconstructions are not (confident 0.76), so it is the random codes" in bad.evidence
    assert "holes" not in bad.evidence
    assert bad.changes == {"model": dataclasses.replace(MODEL, latent_prior=priors.VampPrior(100))}
    assert (
        "codes of data are at least 6.6 nats from the prior" in verdict(judged(recall=0.1), 0.76, gap=6.6)[0].evidence
    )
    assert verdict(judged(), 0.1, gap=6.6) == []


def test_samples_that_are_as_bad_as_reconstructions_are_blurred_by_the_decoder():
    """A training that was too short is told first."""
    [bad] = verdict(judged(confident=0.1), 0.3)
    assert "so are reconstructions (confident 0.3): the decoder blurs" in bad.evidence
    assert bad.changes == {"model": dataclasses.replace(MODEL, network=Conv())}
    assert bad.remedy.endswith("; or a larger code: latent=32 in --model")
    longer = Finding("under-trained", "", "--epochs 200", {"epochs": 200})
    [bad] = verdict(judged(confident=0.1), 0.3, curve=[longer])
    assert bad.changes == {"epochs": 200}


def test_an_autoencoder_gets_a_vae_of_its_architecture():
    model = Autoencoder(3, Conv((4,)), event_shape=(8, 8, 1))
    [bad] = verdict(judged(precision=0.06), 0.7, model, gap=19.2)
    assert bad.changes == {"model": VAE(3, Conv((4,)), event_shape=(8, 8, 1)), "objective": ELBO()}
    assert '--model "VAE(latent=3, network=Conv(channels=(4,)))"; or a prior that is fitted to the codes' in bad.remedy
