"""Discrete codes through the commands: each does what it says, or says in a line why it has no meaning here."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from commands import refused, typed

from aevae_jax.evaluation import latents
from aevae_jax.models.code_priors import CausalTransformer
from aevae_jax.runs import fitting

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_pictures")]  # all are of what is trained for them

MODEL = "VQVAE((2, 2, 4), Conv((4, 8)), NormalSharedScale(), Codebook(12))"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vq") / "run"
    typed("train", folder, "--data", "digits", "--model", MODEL, "--epochs", 2)
    return folder


@pytest.fixture(scope="module")
def with_prior(run):
    """The same model, with an autoregressive prior that was fitted to its codes."""
    options = ["--model.latent_prior", "CausalTransformer(16, 1, 2)", "--objective", "PriorLikelihood()", "--epochs", 3]
    typed("train", run.parent / "prior", "--from", run, *options)
    return run.parent / "prior"


def load(path):
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def figure(text, name):
    """The number after the name of a metric, in a table or in a line of its own."""
    line = next(line for line in text.splitlines() if name in line)
    return next(float(word) for word in line.replace("│", " ").replace("|", " ").split() if word[0] in "-0123456789")


def test_what_is_measured_has_rate_and_codes_in_use(run):
    text = typed("evaluate", run)
    assert figure(text, "rate") == pytest.approx(4 * np.log(12), rel=1e-5)
    assert 1 < figure(text, "perplexity") <= figure(text, "codes used") <= 12
    history = fitting.load_run(run).history
    assert {"perplexity", "codes_used", "commitment"} <= history[-1]["train"].keys()
    assert {"perplexity", "codes_used"} <= history[-1]["validation"].keys()


def test_codes_go_out_with_their_indices_and_come_back(run, tmp_path):
    typed("encode", run, "--split", "test", "--out", tmp_path / "z.npz")
    found, fitted = load(tmp_path / "z.npz"), fitting.load_run(run)
    assert found.keys() == {"codes", "indices"}
    table = np.asarray(fitted.model.book(fitted.params).table)[0]
    np.testing.assert_array_equal(found["codes"].reshape(-1, 4), table[found["indices"].reshape(-1)])
    typed("decode", run, "--input", tmp_path / "z.npz", "--out", tmp_path / "x.npy")
    typed("reconstruct", run, "--num", 1000, "--out", tmp_path / "y.npy")
    np.testing.assert_allclose(np.load(tmp_path / "x.npy"), np.load(tmp_path / "y.npy"), atol=1e-5)


def test_between_two_codes_lie_codes(run, tmp_path):
    typed("interpolate", run, "--steps", 5, "--out", tmp_path / "i.npz")
    typed("interpolate", run, "--steps", 5, "--out", tmp_path / "i.png")
    fitted, path = fitting.load_run(run), load(tmp_path / "i.npz")["codes"]
    table = np.asarray(fitted.model.book(fitted.params).table)[0]
    distance = ((path.reshape(-1, 1, 4) - table) ** 2).sum(axis=-1).min(axis=1)
    np.testing.assert_array_equal(distance, 0)


def test_a_prior_of_their_order_is_fitted_to_codes(run, with_prior, tmp_path):
    """It has a lower rate at the same distortion, to the bit; and its samples are drawn from it."""
    before, after = fitting.load_run(run), fitting.load_run(with_prior)
    assert isinstance(after.model.latent_prior, CausalTransformer)
    for name in ("encoder", "decoder", "likelihood", "statistics"):
        jax.tree.map(np.testing.assert_array_equal, before.params[name], after.params[name])
    one, other = (found.results["test"] for found in (before, after))
    assert one["distortion"] == other["distortion"]
    assert other["rate"] < 0.95 * one["rate"]
    assert other["rate"] == pytest.approx(other["negative_log_prior"], rel=1e-5)
    typed("sample", with_prior, "--num", 9, "--out", tmp_path / "s.png")
    text = typed("evaluate", with_prior, "--samples", 3)
    assert figure(text, "negative log likelihood") == pytest.approx(figure(text, "negative elbo"), rel=1e-5)
    assert figure(text, "perplexity") == pytest.approx(one["perplexity"], rel=1e-5)  # the codes are the same ones
    assert figure(text, "codes used") == one["codes_used"]


def test_a_diagnosis_tells_codes_in_use_and_a_gap_that_a_fitted_prior_closes(run, with_prior, monkeypatch):
    text = typed("diagnose", run)
    assert 1 < figure(text, "codes used") <= 12
    assert figure(text, "prior gap") > 0
    assert figure(typed("diagnose", with_prior), "prior gap") < figure(text, "prior gap")
    monkeypatch.setattr(latents, "prior_gap", lambda *arguments, **options: 0.0)
    assert "none seen by 180 examples" in typed("diagnose", with_prior)


def test_a_command_without_a_meaning_says_so(run, tmp_path, capsys):
    error = refused(capsys, "traverse", run, "--out", tmp_path / "t.npz")
    assert error.endswith(
        "codes: got those of a VQVAE, which are discrete, expected dimensions to move along; try aevae interpolate"
    )
    np.save(tmp_path / "x.npy", np.zeros((2, 8, 8, 1), np.uint8))
    error = refused(capsys, "compress", run, tmp_path / "x.npy", tmp_path / "x.aev")
    assert "got Normal, which i" in error


@pytest.mark.parametrize(
    ("model", "choices", "levels"),
    [
        ("VQVAE((3, 4), MLP((8,)), NormalSharedScale(), Codebook(6, levels=2))", 6, 2),
        ("VQVAE((3, 2), MLP((8,)), NormalSharedScale(), FSQ((3, 4)))", 12, 1),
        ("CategoricalVAE((3, 5), MLP((8,)), NormalSharedScale())", 5, 1),
    ],
)
def test_all_kinds_of_discrete_codes_go_through_the_commands(model, choices, levels, tmp_path):
    run = tmp_path / "run"
    typed("train", run, "--data", "digits", "--model", model, "--epochs", 2)
    text = typed("evaluate", run)
    assert 1 <= figure(text, "perplexity") <= figure(text, "codes used") <= choices
    assert figure(text, "rate") <= 3 * levels * np.log(choices) * (1 + 1e-5)  # six digits are printed
    typed("encode", run, "--split", "test", "--out", tmp_path / "z.npz")
    typed("decode", run, "--input", tmp_path / "z.npz", "--out", tmp_path / "x.npy")
    typed("reconstruct", run, "--num", 1000, "--out", tmp_path / "y.npy")
    np.testing.assert_allclose(np.load(tmp_path / "x.npy"), np.load(tmp_path / "y.npy"), atol=1e-5)
    index = load(tmp_path / "z.npz")["indices"]
    assert index.shape == (360, 3, levels)
    assert 0 <= index.min() <= index.max() < choices
    typed("interpolate", run, "--steps", 4, "--out", tmp_path / "i.npz")
    path, fitted = load(tmp_path / "i.npz")["codes"], fitting.load_run(run)
    vectors = path.reshape(len(path), 3, -1)
    book = fitted.model.book(fitted.params)
    np.testing.assert_allclose(book.vectors(book.indices(vectors)), vectors, atol=1e-6)
    assert figure(typed("diagnose", run), "codes used") <= choices
