"""What a model that leaves likelihood and prior open gets from its data, and what it should not be given."""

from __future__ import annotations

import numpy as np
import pytest

from aevae_jax import VAE, Autoencoder, data
from aevae_jax.data import datasets, suited
from aevae_jax.models import likelihoods, priors

RNG = np.random.default_rng(0)
BITS = RNG.integers(0, 2, (30, 4, 4, 1)).astype(np.uint8)
GREY = RNG.integers(0, 256, (30, 4, 4, 1)).astype(np.uint8)
VECTORS = RNG.normal(size=(30, 5)).astype(np.float32)


def split(x, **fields):
    return data.from_arrays(x[:10], x[10:20], x[20:], **fields)


def prepared(x, preparation=None, **fields):
    return data.prepare(preparation or data.Scale(), split(x, **fields))


TABLE = data.Dataset(
    "people",
    *(datasets.Split(np.array([[0.5, 2.0, 0.0], [1.5, 5.0, 1.0]] * 5)),) * 3,
    levels=0,
    columns=(datasets.Column("size"), datasets.Column("children", (), "count"), datasets.Column("hue", ("a", "b"))),
)

NORMAL, BERNOULLI = likelihoods.NormalSharedScale(), likelihoods.Bernoulli()
VAMP, MIXTURE, FLAT = priors.VampPrior(100), priors.GaussianMixture(100), priors.StandardNormal()


@pytest.mark.parametrize(
    ("found", "likelihood", "prior", "kind"),
    [
        (prepared(BITS, levels=2), BERNOULLI, VAMP, "grey images of bits"),
        (prepared(BITS * 255), BERNOULLI, VAMP, "grey images of bits"),
        (prepared(GREY, data.DynamicBinarization()), BERNOULLI, VAMP, "grey images of bits"),
        (prepared(GREY, data.Threshold()), BERNOULLI, VAMP, "grey images of bits"),
        (prepared(BITS.astype(np.float32)), BERNOULLI, VAMP, "grey images of bits"),
        (prepared(GREY), NORMAL, VAMP, "grey images"),
        (prepared(GREY.repeat(3, axis=3)), NORMAL, MIXTURE, "colour images"),
        (prepared(GREY.repeat(2, axis=3)), NORMAL, MIXTURE, "images"),
        (prepared(GREY, data.Standardize()), NORMAL, VAMP, "grey images"),
        (prepared(GREY / np.float32(255)), NORMAL, VAMP, "grey images of floats"),
        (prepared(BITS.reshape(30, 16).astype(np.float32)), BERNOULLI, FLAT, "vectors of bits"),
        (prepared(VECTORS), NORMAL, FLAT, "vectors of floats"),
        (data.prepare(data.Standardize(), TABLE), None, FLAT, "rows of a table"),
    ],
)
def test_each_kind_of_data_has_a_likelihood_and_a_prior(found, likelihood, prior, kind):
    chosen = suited.suited(found)
    assert (chosen.latent_prior, chosen.kind) == (prior, kind)
    assert chosen.likelihood == (likelihood or likelihoods.Tabular((0, 0, 2), chosen.likelihood.counts))


@pytest.mark.parametrize("row", [0, 9, 10, 29])
def test_one_value_between_0_and_1_makes_floats_of_bits(row, monkeypatch):
    monkeypatch.setattr(datasets, "BLOCK_BYTES", 64 * 4)
    x = BITS.astype(np.float32)
    x[row, 3, 3] = 0.5
    assert suited.suited(prepared(x)).likelihood == NORMAL


def test_what_is_left_open_is_said_and_nothing_else():
    chosen = suited.suited(prepared(GREY))
    both, one = (suited.explained(model, chosen) for model in (VAE(), VAE(likelihood=likelihoods.Normal())))
    assert both.startswith("left open, so taken from the data (grey images): likelihood=NormalSharedScale(), latent_pr")
    assert "latent_prior=VampPrior(components=100)" in one
    assert "likelihood" not in one
    assert not suited.explained(VAE(likelihood=NORMAL, latent_prior=FLAT), chosen)
    assert not suited.explained(Autoencoder(), chosen)
    table = suited.explained(VAE(), suited.suited(data.prepare(data.Standardize(), TABLE)))
    assert table.endswith("(rows of a table): likelihood=Tabular(), latent_prior=StandardNormal()")


@pytest.mark.parametrize(("ends", "share"), [(1, ""), (2, "1 %"), (100, "62 %")])
def test_densities_on_an_interval_are_warned_of_where_values_are_at_its_ends(ends, share):
    x = np.full((30, 4, 4, 1), 0.5, np.float32)
    x[10:20].flat[:ends] = np.arange(ends) % 2  # of 160 values of validation
    found = prepared(x + 0.1 * (x == 0.5) * RNG.random(x.shape, np.float32))
    said = suited.warning(likelihoods.ContinuousBernoulli(), found, NORMAL)
    assert said.partition(" of the values")[0] == share
    assert not said or said.endswith("leave likelihood out of --model, or type likelihood=NormalSharedScale()")
    for sound in (NORMAL, likelihoods.Bernoulli(), likelihoods.DiscretizedLogistic()):
        assert not suited.warning(sound, found, NORMAL)
