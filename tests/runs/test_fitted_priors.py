"""A prior that is fitted after training: the loss that trains it alone, and runs that begin at all else."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import refused, typed
from run_files import cut, outcome
from scipy import stats

from aevae_jax import Autoencoder, evaluation, keys, training
from aevae_jax.data import Data
from aevae_jax.models import VAE
from aevae_jax.models.architectures import MLP
from aevae_jax.models.likelihoods import Normal
from aevae_jax.models.priors import GaussianMixture, StandardNormal, VampPrior
from aevae_jax.objectives.fitted_priors import PriorLikelihood
from aevae_jax.objectives.losses import ReconstructionError
from aevae_jax.runs import fitting, records, reproduction
from aevae_jax.runs.run import Run
from aevae_jax.training.optimizers import AdamW
from aevae_jax.types import InputError

pytestmark = pytest.mark.usefixtures("no_pictures")

X = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
MODEL = Autoencoder(2, MLP(()), latent_prior=GaussianMixture(1), event_shape=(4,))


def trained(model, tx, steps, **more):
    step = training.make_train_step(model, PriorLikelihood(), tx, **more)
    state = training.init_state(model, tx, keys.root(0), objective=PriorLikelihood())
    before, metrics = jax.tree.map(jnp.copy, state.params), {}
    for _ in range(steps):
        state, metrics = step(state, jnp.asarray(X), keys.root(0))
    return before, state, metrics


def test_one_normal_becomes_that_of_the_codes():
    """Their mean and variance: what maximises the likelihood."""
    _, state, metrics = trained(MODEL, AdamW(0.05).build(400), 400)
    z = np.asarray(MODEL.encode(state.params, X).mean(), np.float64)
    own = state.params["prior"]
    np.testing.assert_allclose(own["loc"][0], z.mean(axis=0), atol=2e-3)
    np.testing.assert_allclose(MODEL.prior(state.params, 1).components.scale[0], z.std(axis=0), rtol=5e-3)
    best = -stats.norm(z.mean(axis=0), z.std(axis=0)).logpdf(z).sum(axis=1).mean()
    np.testing.assert_allclose(metrics["negative_log_prior"], best, rtol=1e-4)


@pytest.mark.parametrize("prior", [GaussianMixture(3), VampPrior(3)], ids=lambda prior: type(prior).__name__)
def test_all_else_stays_to_the_bit_whatever_the_optimizer_does(prior):
    """Weight decay moves what has no gradient, and a VampPrior is made of the encoder."""
    model = VAE(2, MLP(()), Normal(), prior, event_shape=(4,))
    tx = AdamW(0.1, weight_decay=0.5, clip_norm=1e-2).build(10)
    before, state, _ = trained(model, tx, 3)
    for name in ("encoder", "decoder", "likelihood"):
        jax.tree.map(np.testing.assert_array_equal, before[name], state.params[name])
    for old, new in zip(*(jax.tree.leaves(p["prior"]) for p in (before, state.params)), strict=True):
        assert not np.array_equal(old, new)
    assert not [
        path for path, _ in jax.tree.leaves_with_path(state.opt_state) if "encoder" in jax.tree_util.keystr(path)
    ]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "x.npy"
    np.save(path, np.random.RandomState(0).randint(0, 256, (100, 3, 3, 1)).astype(np.uint8))
    return Data(str(path))


OLD = Run(model=Autoencoder(2, MLP((4,))), optimizer=AdamW(0.05), batch_size=10, epochs=2, seed=3)


@pytest.fixture(scope="module")
def old(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("old") / "run"
    fitting.fit(dataclasses.replace(OLD, data=data), directory=folder)
    return folder


def with_prior(run, prior, **changes):
    model = dataclasses.replace(run.model, latent_prior=prior)
    return dataclasses.replace(run, model=model, objective=PriorLikelihood(), **changes)


def test_it_is_a_run_that_begins_at_another(old, tmp_path):
    """Another prior is drawn, all else is as it was selected; it is resumed, reproduced and loaded like any run."""
    before = fitting.load_run(old)
    run, folder = with_prior(before.run, GaussianMixture(2), ema=0.5), tmp_path / "prior"
    fitted = fitting.fit(run, directory=folder, initial=old)
    for name in ("encoder", "decoder", "likelihood"):
        jax.tree.map(np.testing.assert_array_equal, before.params[name], fitted.params[name])
    history = [entry["validation"]["negative_log_prior"] for entry in fitted.history]
    assert history[-1] < history[0]
    assert fitted.results["best_epoch"] == 1 + int(np.argmin(history))
    assert fitted.results["test"]["distortion"] == pytest.approx(before.results["test"]["distortion"], rel=1e-6)
    assert records.read_record(folder)["initial"]["run"] == records.digest_of(records.read_record(old))
    made = outcome(folder)
    cut(folder, 11)
    fitting.fit(run, directory=folder, initial=old)
    assert outcome(folder) == made
    assert reproduction.reproduce(folder).outcome == "PASS (bitwise)"
    by_hand = fitting.fit(run, initial=before)  # the weights alone
    jax.tree.map(np.testing.assert_array_equal, by_hand.params, fitted.params)
    assert fitting.load_run(folder).model.latent_prior == GaussianMixture(2)


@pytest.mark.slow
def test_of_a_vae_the_rate_gets_better_by_as_much(data):
    """Its posterior and likelihood stay, and so do distortion and entropy."""
    model = VAE(2, MLP((4,)), Normal(), StandardNormal())
    first = fitting.fit(Run(data, model, optimizer=AdamW(0.02), batch_size=10, epochs=1))
    longer = {"epochs": 12, "optimizer": AdamW(0.05)}
    fitted = fitting.fit(with_prior(first.run, GaussianMixture(2), **longer), initial=first)
    x = np.asarray(np.random.RandomState(1).rand(64, 3, 3, 1), np.float32)

    def measured(found):
        return evaluation.evaluate(
            found.model, found.params, x, jax.random.key(0), metric=PriorLikelihood().validation().metric
        )

    one, other = measured(first), measured(fitted)
    assert one["distortion"] == other["distortion"]
    assert fitted.history[-1]["validation"]["rate"] < first.history[-1]["validation"]["rate"]


def test_a_prior_without_parameters_is_refused(old, capsys, tmp_path):
    error = refused(capsys, "train", tmp_path / "new", "--from", old, "--objective", "PriorLikelihood()", "--epochs", 3)
    assert "prior of the Autoencoder: got one without parameters, expected one that can be fitted; type:" in error
    with pytest.raises(InputError, match="prior of the VAE"):
        PriorLikelihood()(VAE(), {}, X, jax.random.key(0), 0)


def test_a_prior_of_a_model_that_nothing_has_trained_is_refused(data, tmp_path, capsys):
    model = "Autoencoder(2, MLP((4,)), latent_prior=GaussianMixture(2))"
    typed_ones = ["--data", data.name, "--model", model, "--objective", "PriorLikelihood()", "--batch-size", 10]
    error = refused(capsys, "train", tmp_path / "new", *typed_ones)
    wanted = "expected those of a trained model, as PriorLikelihood trains the prior alone; type: --from RUN"
    assert f"error: weights to begin at: got none, {wanted}" in error
    assert not (tmp_path / "new").exists()


def test_it_is_typed_and_its_samples_are_no_longer_of_a_nominal_prior(old, tmp_path, capsys):
    options = ["--model.latent_prior", "GaussianMixture(2)", "--objective", "PriorLikelihood()"]
    typed("train", tmp_path / "new", "--from", old, *options)
    assert fitting.load_run(tmp_path / "new").run.objective == PriorLikelihood()
    for folder, nominal in ((old, True), (tmp_path / "new", False)):
        capsys.readouterr()
        typed("sample", folder, "--out", tmp_path / "x.npy", "--num", 2, "--force")
        assert ("an autoencoder has no prior" in capsys.readouterr().err) == nominal
    assert "negative log prior" in typed("evaluate", tmp_path / "new")


def test_another_loss_may_train_a_new_prior_with_all_else(old):
    """That is a training like any other, which begins at the old weights."""
    run = fitting.load_run(old).run
    run = with_prior(run, VampPrior(3), epochs=1)
    fitted = fitting.fit(dataclasses.replace(run, objective=ReconstructionError()), initial=old)
    assert fitted.params["prior"]["pseudo_inputs"].shape == (3, 3, 3, 1)
