"""Commands on models whose posterior and prior are flows: what has a meaning works, what has none is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from commands import refused, typed

from aevae_jax.data import Data
from aevae_jax.evaluation import latents
from aevae_jax.models import VAE, posteriors, priors
from aevae_jax.models.architectures import MLP
from aevae_jax.models.flow_priors import MAF
from aevae_jax.models.likelihoods import DiscretizedLogistic
from aevae_jax.runs import fitting
from aevae_jax.runs.run import Run
from aevae_jax.training.optimizers import AdamW

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_pictures")]  # all are of what is trained for them

FLOWS = VAE(3, MLP((8,)), DiscretizedLogistic(), MAF(2, (4,)), posterior=posteriors.IAF(2, (4,)))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "x.npy"
    np.save(path, np.random.RandomState(0).randint(0, 256, (120, 4, 4, 1)).astype(np.uint8))
    return Data(str(path))


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("flows") / "run"
    fitting.fit(Run(data, FLOWS, optimizer=AdamW(0.01), batch_size=10, epochs=2), directory=folder)
    return folder


def test_it_is_measured_and_diagnosed(run):
    shown = " ".join(typed("evaluate", run, "--samples", 20).split())  # lines break where the path lets them
    assert "negative elbo" in shown
    assert "by importance sampling" in shown
    said = typed("diagnose", run)
    for name in ("rate", "mutual information", "marginal kl", "prior gap", "active units"):
        assert name in said
    assert "inversion" not in said


def test_a_diagnosis_says_of_how_many_examples_flows_were_inverted(run, monkeypatch):
    """Of the 12 validation examples, 3 dimensions: 12 / sqrt(3) = 6."""
    monkeypatch.setattr(latents, "INVERTED", 12)
    said = typed("diagnose", run)
    assert "of the first 6 of them: mutual information, marginal kl and active units" in said


def test_it_samples_interpolates_and_encodes(run, tmp_path):
    for name, *options in (
        ("sample", "--num", 5),
        ("interpolate", "--steps", 5),
        ("reconstruct", "--num", 5),
        ("traverse", "--num", 1, "--steps", 5),
    ):
        typed(name, run, "--out", tmp_path / f"{name}.npz", *options)
        made = np.load(tmp_path / f"{name}.npz")
        images = made["reconstructions" if name == "reconstruct" else "images"]
        assert images.shape == (5, 4, 4, 1)
    typed("encode", run, "--split", "test", "--out", tmp_path / "codes.npy")
    assert np.isfinite(np.load(tmp_path / "codes.npy")).all()


@pytest.mark.parametrize("part", ["prior", "posterior"])
def test_it_cannot_be_a_codec_and_says_so_in_a_line(run, data, part, tmp_path, capsys):
    folder = run
    if part == "posterior":
        model = VAE(3, MLP((8,)), DiscretizedLogistic(), priors.StandardNormal(), posterior=posteriors.FullNormal())
        folder = tmp_path / "full"
        fitting.fit(Run(data, model, batch_size=10, epochs=1), directory=folder)
    line = refused(capsys, "compress", folder, data.name, tmp_path / "x.aev")
    got = "Flow" if part == "prior" else "MultivariateNormal"
    assert f"error: {part} (" in line
    assert f"): got {got}, expected independent normals, or mixtures of these; train with --model" in line
    assert line.endswith('"VAE(likelihood=DiscretizedLogistic())"')
    assert len(line) <= 200
    assert not (tmp_path / "x.aev").exists()


def test_a_prior_that_is_left_open_is_one_that_its_posterior_can_have(data, tmp_path):
    """Grey images get a mixture of posteriors, which flows cannot be made into."""
    for posterior, prior in (("IAF(1, (4,))", "GaussianMixture"), ("FullNormal()", "VampPrior")):
        folder = tmp_path / prior
        model = f"VAE(2, MLP((4,)), posterior={posterior})"
        typed("train", folder, "--data", data.name, "--model", model, "--epochs", 1, "--batch-size", 10)
        record = json.loads((folder / "run.json").read_text())["run"]["model"]
        assert record["latent_prior"] == {"type": prior, "components": 100}
        assert record["posterior"]["type"] == posterior.partition("(")[0]


def test_sizes_that_a_flow_cannot_have_are_refused(data, tmp_path, capsys):
    def error(model):
        return refused(capsys, "train", tmp_path / "x", "--data", data.name, "--model", model, "--epochs", 1)

    assert "latent size of a RealNVP: got 1, expected at least 2" in error("VAE(1, latent_prior=RealNVP())")
    assert "VampPrior: got a posterior of type Flow" in error("VAE(2, latent_prior=VampPrior(3), posterior=IAF())")
    assert "latent of posterior=FullNormal(): got (2, 2, 3)" in error(
        "VAE((2, 2, 3), network=Conv((4,)), posterior=FullNormal())"
    )
