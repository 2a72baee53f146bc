"""Families of models and losses as runs: whatever holds of one must hold of each, without a line that knows which.

A new family is tested by an entry in `RUNS`; without `slow` only those that differ in what a run has to do, `QUICK`.
"""

from __future__ import annotations

import jax
import numpy as np
import pytest
from run_files import cut, outcome

from aevae_jax import VQVAE, Autoencoder, CategoricalVAE, evaluation, generation
from aevae_jax.checkpoints.saving import Saving
from aevae_jax.data import Data, Factor, from_arrays, prepare
from aevae_jax.models import VAE, ConditionalAutoencoder, ConditionalVAE, SemiSupervisedVAE, TwoLevelVAE
from aevae_jax.models.architectures import MLP
from aevae_jax.models.code_priors import CausalTransformer, MarginalCodes
from aevae_jax.models.codes import Sigmoid, TopK
from aevae_jax.models.flow_priors import MAF, RealNVP, TwoStage
from aevae_jax.models.likelihoods import Normal
from aevae_jax.models.posteriors import IAF, FullNormal, Householder, Planar
from aevae_jax.models.priors import StandardNormal, VampPrior
from aevae_jax.models.quantizers import FSQ, Codebook
from aevae_jax.objectives.adversarial import AAE, Discriminator, FactorVAE
from aevae_jax.objectives.contractive import Contractive
from aevae_jax.objectives.denoising import Denoising, Masking
from aevae_jax.objectives.losses import ELBO, IWAE
from aevae_jax.objectives.matching import MMD
from aevae_jax.objectives.moments import DIPVAE
from aevae_jax.objectives.sparse import ActivationKL, Sparse
from aevae_jax.objectives.total_correlation import BetaTCVAE
from aevae_jax.runs import fitting, pictures, same_run
from aevae_jax.runs.run import Run
from aevae_jax.runs.weights import params_digest
from aevae_jax.training.optimizers import AdamW

NETWORK = MLP((8,))


def a_run(model, objective=None, data=Data()):
    return Run(data, model, objective, AdamW(1e-2), batch_size=10, epochs=2, seed=3, ema=0.9)


RUNS = {
    "denoising autoencoder": a_run(Autoencoder(2, NETWORK), Denoising(Masking(0.3))),
    "denoising VAE": a_run(VAE(2, NETWORK, Normal(), StandardNormal()), Denoising(objective=ELBO(beta=2.0))),
    "sparse autoencoder": a_run(Autoencoder(6, NETWORK, code=Sigmoid()), Sparse(ActivationKL())),
    "k-sparse autoencoder": a_run(Autoencoder(6, NETWORK, code=TopK(2))),
    "contractive autoencoder": a_run(Autoencoder(2, NETWORK), Contractive(samples=1)),
    "beta-TCVAE": a_run(VAE(2, NETWORK, Normal(), StandardNormal()), BetaTCVAE()),
    "FactorVAE": a_run(VAE(2, NETWORK, Normal(), StandardNormal()), FactorVAE(discriminator=Discriminator((8,), 1e-3))),
    "DIP-VAE": a_run(VAE(2, NETWORK, Normal(), StandardNormal()), DIPVAE()),
    "Wasserstein autoencoder": a_run(Autoencoder(2, NETWORK), MMD(10.0)),
    "IAF and RealNVP": a_run(VAE(3, NETWORK, Normal(), RealNVP(2, (4,)), posterior=IAF(2, (4,)))),
    "planar flow and MAF": a_run(VAE(2, NETWORK, Normal(), MAF(2, (4,)), posterior=Planar(2)), IWAE(3)),
    "two stages": a_run(VAE(2, NETWORK, Normal(), TwoStage((4,)))),
    "full normal": a_run(VAE(2, NETWORK, Normal(), VampPrior(4), posterior=FullNormal())),
    "reflections": a_run(VAE(2, NETWORK, Normal(), StandardNormal(), posterior=Householder(2))),
    "two levels by level": a_run(
        TwoLevelVAE(4, NETWORK, Normal(), StandardNormal()), ELBO(free_bits=0.1, rate="by level")
    ),
    "VQ-VAE": a_run(VQVAE((3, 2), NETWORK, Normal(), Codebook(8, revival=2))),
    "residual VQ-VAE by gradient, bfloat16": a_run(
        VQVAE((3, 4), MLP((8,), dtype="bfloat16"), Normal(), Codebook(4, 2, "gradient", gradient="rotated"))
    ),
    "FSQ with a prior trained beside": a_run(VQVAE((3, 2), NETWORK, Normal(), FSQ((4, 3)), CausalTransformer(8, 1, 2))),
    "categorical VAE": a_run(CategoricalVAE((3, 4), NETWORK, Normal(), MarginalCodes())),
    "adversarial autoencoder": a_run(Autoencoder(2, NETWORK), AAE(discriminator=Discriminator((8,), 1e-3))),
    "conditional VAE": a_run(
        ConditionalVAE(2, NETWORK, Normal(), drop=0.2, learned_prior=True), data=Data(condition="label and factors")
    ),
    "semi-supervised VAE": a_run(
        SemiSupervisedVAE(2, NETWORK, Normal()), data=Data(condition="label", labels_per_class=5)
    ),
    "conditional autoencoder": a_run(ConditionalAutoencoder(2, NETWORK), data=Data(condition="label")),
}
QUICK = {
    "FactorVAE",  # an objective with parameters and an optimizer of its own
    "VQ-VAE",  # statistics that no gradient trains
    "semi-supervised VAE",  # told of labels, of which most are hidden
}


def dataset(run=None):
    """Images with labels and factors; with what the models of a run are told of them."""
    x = np.random.RandomState(0).randint(0, 256, (60, 4, 4, 1)).astype(np.uint8)
    number = np.arange(60)
    made = from_arrays(x, labels=number % 3, factors={"width": number % 4, Factor("kind", ordered=False): number % 2})
    return made if run is None else run.data.with_told(made)


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in RUNS]
)
def trained(request, tmp_path_factory):
    """A finished run of each family, with a checkpoint at every third step."""
    folder = tmp_path_factory.mktemp("family") / "run"
    run = RUNS[request.param]
    return folder, run, fitting.fit(run, dataset(), directory=folder, saving=Saving(steps=3, last=1000))


def test_a_family_is_a_run_like_any_other(trained, monkeypatch):
    """Stopped inside an epoch it goes on to the same bits; it is rebuilt from its record, measured and sampled."""
    folder, run, fitted = trained
    before = outcome(folder)
    assert {"curves.png", "samples.png", "reconstructions.png"} <= {path.name for path in folder.iterdir()}
    same_run.check_typed(folder, run)  # as the command line does, of which the rest is what follows
    cut(folder, 6)  # of 9, in the second epoch
    monkeypatch.setattr(pictures, "save", lambda *arguments: None)  # drawn once is enough
    fitting.fit(run, dataset(), directory=folder)
    assert outcome(folder) == before
    loaded = fitting.load_run(folder)
    assert loaded.run == fitted.run
    assert params_digest(loaded.params) == params_digest(fitted.params)
    prepared = prepare(run.data.preparation, dataset(run))
    rows = prepared.test.rows
    metric = evaluation.validation_of(run.objective).metric
    measured = evaluation.evaluate(loaded.model, loaded.params, rows, jax.random.key(0), metric=metric)
    assert evaluation.minimised(run.objective, measured) in fitted.history[-1]["validation"]
    assert np.isfinite(list(measured.values())).all()
    told = prepared.told(generation.PREVIEWED)
    for images in generation.preview(loaded.model, loaded.params, rows, jax.random.key(0), told):
        assert images.shape[1:] == prepared.event_shape
        assert np.isfinite(images).all()


def test_a_family_is_trained_for_several_seeds_at_once(trained):
    """Each as it would be alone."""
    _, run, fitted = trained
    together = fitting.fit_seeds(run, [3, 4], dataset())
    np.testing.assert_allclose(together.losses[:, 0], fitted.losses, rtol=1e-4)
    assert (together.losses[:, 1] != together.losses[:, 0]).all()
