"""Conditional models as they are typed: what is made, measured and said is that of the condition."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from commands import refused, typed

from aevae_jax import charts, keys
from aevae_jax.cli import evaluate, inputs
from aevae_jax.conditions import Conditioned
from aevae_jax.data import Data, from_arrays
from aevae_jax.models import ConditionalVAE, generation
from aevae_jax.models.architectures import MLP
from aevae_jax.runs import fitting, pictures
from aevae_jax.runs.run import Run
from aevae_jax.types import InputError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_pictures")]  # all are of what is trained for them

NAMES = ["4", "5", "6"]  # of the classes 0, 1 and 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of three classes called 4, 5 and 6, and a run of each kind of model."""
    folder = tmp_path_factory.mktemp("conditional")
    x = np.random.RandomState(0).randint(0, 256, (120, 4, 4, 1)).astype(np.uint8)
    np.savez(folder / "x.npz", x=x, y=np.arange(120) % 3 + 4)
    np.save(folder / "new.npy", x[:3][::-1])
    np.save(folder / "z.npy", np.zeros((2, 2), np.float32))
    data, small = f"Data('{folder / 'x.npz'}', condition='label')", "latent=2, network=MLP((4,))"
    for name, model in {"run": f"ConditionalVAE({small}, learned_prior=True)", "plain": f"VAE({small})"}.items():
        given = data if name == "run" else folder / "x.npz"
        typed("train", folder / name, "--data", given, "--model", model, "--epochs", 2, "--batch-size", 16)
    told = f"Data('{folder / 'x.npz'}', condition='label', labels_per_class=5)"
    semi = ["--model", f"SemiSupervisedVAE({small})", "--epochs", 2, "--batch-size", 16]
    typed("train", folder / "semi", "--data", told, *semi)
    own = from_arrays(x, labels=np.arange(120) % 3 + 4, vector=np.random.RandomState(1).normal(size=(120, 2)))
    both = Run(Data(condition="label"), ConditionalVAE(2, MLP((4,)), drop=0.1), epochs=1, batch_size=48)
    fitting.fit(both, own, directory=folder / "both", progress=False)
    return folder


@pytest.fixture(scope="module")
def fitted(folder):
    return fitting.load_run(folder / "run")


@pytest.fixture(scope="module")
def test_split(folder, fitted):
    return evaluate.prepared_of(folder / "run", fitted.run).test


def made(path, *argv):
    typed(*argv, "--out", path, "--force")
    return np.load(path)


@pytest.mark.parametrize(
    ("condition", "label"), [(["--condition", "5"], [1] * 6), (["--condition", "1"], [1] * 6), ([], [0, 1, 2] * 2)]
)
def test_samples_are_those_of_a_class_by_its_name_or_number_or_of_each_in_turn(
    folder, fitted, tmp_path, condition, label
):
    seen = made(tmp_path / "s.npy", "sample", folder / "run", "--num", 6, *condition)
    own = fitted.model.given(np.array(label, np.int32))
    key = keys.stream(keys.root(0), keys.Stream.SAMPLE)
    expected = generation.sample(own, fitted.params, key, 6).mean()
    np.testing.assert_allclose(seen, expected, atol=1e-5)
    typed("sample", folder / "run", *condition, "--num", 6, "--out", tmp_path / "s.png")


def test_codes_and_pictures_are_those_of_the_conditions_of_the_data(folder, fitted, test_split, tmp_path):
    x, label = test_split.x, test_split.condition
    codes = made(tmp_path / "z.npy", "encode", folder / "run", "--split", "test")
    expected = fitted.model.given(label).encode(fitted.params, x).mean()
    np.testing.assert_allclose(codes, expected, atol=1e-5)
    shown = made(tmp_path / "r.npz", "reconstruct", folder / "run", "--num", 5)
    means = fitted.model.given(label).decode(fitted.params, expected).mean()
    np.testing.assert_allclose(shown["reconstructions"], means[:5], atol=1e-5)
    np.testing.assert_allclose(shown["images"], x[:5], atol=1e-6)
    decoded = made(tmp_path / "d.npy", "decode", folder / "run", "--input", tmp_path / "z.npy", "--condition", "6")
    at = fitted.model.given(np.full(len(codes), 2))
    np.testing.assert_allclose(decoded, at.decode(fitted.params, codes).mean(), atol=1e-5)


def test_inputs_of_ones_own_are_told_what_is_typed(folder, fitted, tmp_path):
    x = np.load(folder / "new.npy").astype(np.float32) / 255
    codes = made(tmp_path / "z.npy", "encode", folder / "run", "--input", folder / "new.npy", "--condition", "4")
    expected = fitted.model.given(np.zeros(3, int)).encode(fitted.params, x).mean()
    np.testing.assert_allclose(codes, expected, atol=1e-5)


def test_a_path_ends_at_the_reconstructions_of_its_ends(folder, fitted, test_split, tmp_path):
    start, end = (int(np.flatnonzero(test_split.condition == c)[0]) for c in (0, 2))
    ends = test_split.rows[np.array([start, end])]
    shown = made(tmp_path / "p.npz", "interpolate", folder / "run", "--start", start, "--end", end, "--steps", 5)
    expected = generation.reconstruct(fitted.model, fitted.params, ends)
    np.testing.assert_allclose(shown["images"][[0, -1]], expected, atol=1e-5)
    near = fitted.model.given(np.array([0, 0, 2, 2, 2])).decode(fitted.params, shown["codes"]).mean()
    np.testing.assert_allclose(shown["images"], near, atol=1e-5)


def test_on_the_way_a_vector_is_on_the_line_and_a_class_that_of_the_nearer_end():
    told = {"label": np.array([2, 0]), "vector": np.array([[0.0, 4.0], [1.0, 0.0]], np.float32)}
    found = inputs.between(Conditioned(np.zeros((2, 3)), told), 5)
    assert found["label"].tolist() == [2, 2, 0, 0, 0]
    np.testing.assert_allclose(found["vector"], np.stack([np.linspace(0, 1, 5), np.linspace(4, 0, 5)], axis=1))
    assert inputs.between(np.zeros((2, 3)), 5) is None


def test_captions_name_the_class_that_codes_are_decoded_at():
    captions, remark = inputs.captions_between({"label": np.array([0, 0, 2, 2])}, ["4", "6"], 4)
    assert captions == ["input\n4", "0.00\n4", "0.33\n4", "0.67\n6", "1.00\n6", "input\n6"]
    assert remark == " at the class written below"
    assert inputs.captions_between(None, (3, 8), 2) == (["input\n3", "0.00", "1.00", "input\n8"], "")
    assert pictures.prior_of(ConditionalVAE()) == "StandardNormal()"
    assert pictures.prior_of(ConditionalVAE(learned_prior=True)) == "p(z|c)"  # in place of it


def test_pictures_say_what_codes_are_decoded_at(folder, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(charts, "sheet", lambda path, images, columns, **words: said.append(words) or 1)
    typed("traverse", folder / "run", "--out", tmp_path / "t.png", "--start", 2)
    typed("sample", folder / "both", "--out", tmp_path / "g.png", "--condition", "5,0,1", "--guidance", 2)
    assert said[0]["note"].startswith("means of p(x|z, c of test image 2); ")
    assert said[1]["note"] == "means of p(x|z), z ~ StandardNormal(), seed 0, guidance 2"


def test_a_traversal_is_at_the_condition_and_the_prior_of_its_start(folder, fitted, test_split, tmp_path):
    start = int(np.flatnonzero(test_split.condition == 1)[0])
    shown = made(tmp_path / "t.npz", "traverse", folder / "run", "--start", start, "--mean", "--steps", 3)
    at = fitted.model.given(np.full(6, 1))
    np.testing.assert_allclose(shown["images"], at.decode(fitted.params, shown["codes"]).mean(), atol=1e-5)
    np.testing.assert_allclose(shown["codes"][1], at.prior(fitted.params, 6).mean()[0], atol=1e-5)


def test_figures_of_each_class_are_means_whose_mean_is_that_of_all(folder, test_split, tmp_path):
    out = typed("evaluate", folder / "run", "--samples", 3, "--json", tmp_path / "e.json")
    found = json.loads((tmp_path / "e.json").read_text())
    assert list(found["classes"]) == NAMES
    counts = [int(own["examples"]) for own in found["classes"].values()]
    assert counts == np.bincount(test_split.condition).tolist()
    for name in ("negative_elbo", "mse_at_mean", "negative_log_likelihood"):
        means = [own[name] for own in found["classes"].values()]
        assert len(set(means)) == 3
        np.testing.assert_allclose(np.average(means, weights=counts), found["metrics"][name]["mean"], rtol=1e-5)
    assert "the same of each class" in out
    out = typed("diagnose", folder / "run")
    assert re.search(r"class.*\n.*\n *4 +\d+ ", out.partition("of each class that the model is told")[2], re.DOTALL)


def test_a_likelihood_given_the_label_is_ranked_with_its_like_alone(folder, capsys):
    assert "negative log likelihood given the label" in typed("compare", folder / "run", folder / "run", "--samples", 2)
    error = refused(capsys, "compare", folder / "run", folder / "plain", "--samples", 2)
    assert "differ in quantity" in error


def test_a_vector_is_typed_by_its_numbers_after_the_class(folder, tmp_path, capsys):
    fitted = fitting.load_run(folder / "both")
    numbers = [0.5, -2]
    typed_ones = ",".join(map(str, ["5", *numbers]))
    seen = made(tmp_path / "s.npy", "sample", folder / "both", "--num", 2, "--condition", typed_ones)
    told = {"label": np.full(2, 1), "vector": np.array([numbers, numbers], np.float32)}
    key = keys.stream(keys.root(0), keys.Stream.SAMPLE)
    expected = generation.sample(fitted.model.given(told), fitted.params, key, 2).mean()
    np.testing.assert_allclose(seen, expected, atol=1e-5)
    for wrong in ("", "5", "5,1,2,3", "5,1,nan", "cone,1,2"):
        error = refused(capsys, "sample", folder / "both", "--out", tmp_path / "x.npy", "--condition", wrong)
        assert error.startswith("error: --condition: got")


def test_of_a_class_and_a_vector_both_are_asked_for(tmp_path):
    run = Run(model=ConditionalVAE(classes=3, vector=2))
    fitted = fitting.Fitted(run, run.model, {}, [], {}, None)
    with pytest.raises(InputError, match="--condition: got none, expected a class and 2 numbers after it, with commas"):
        inputs.condition_of(tmp_path, fitted, "", 4, in_turn=True)


def test_a_model_that_learned_to_do_without_is_told_nothing(folder, tmp_path):
    fitted = fitting.load_run(folder / "both")
    seen = made(tmp_path / "s.npy", "sample", folder / "both", "--num", 3, "--condition", "none")
    key = keys.stream(keys.root(0), keys.Stream.SAMPLE)
    expected = generation.sample(fitted.model, fitted.params, key, 3).mean()
    np.testing.assert_allclose(seen, expected, atol=1e-5)
    codes = made(tmp_path / "z.npy", "encode", folder / "both", "--input", folder / "new.npy", "--condition", "none")
    x = np.load(folder / "new.npy").astype(np.float32) / 255
    np.testing.assert_allclose(codes, fitted.model.encode(fitted.params, x).mean(), atol=1e-5)
    typed("sample", folder / "both", "--num", 3, "--condition", "none", "--out", tmp_path / "s.png")
    given = ("sample", folder / "both", "--num", 2, "--condition", "5,0.5,-2", "--guidance", 1.5)
    told = {"label": np.full(2, 1), "vector": np.array([[0.5, -2]] * 2, np.float32)}
    own = generation.Guided(fitted.model, 1.5).given(told)
    expected = generation.sample(own, fitted.params, keys.stream(keys.root(0), keys.Stream.SAMPLE), 2).mean()
    np.testing.assert_allclose(made(tmp_path / "g.npy", *given), expected, atol=1e-5)
    assert inputs.names_told(folder / "both", {"label": np.array([-1, 1])}) == ["none", "5"]


def test_a_semi_supervised_model_says_how_often_its_classes_are_right_and_infers_those_that_are_missing(
    folder, tmp_path
):
    run, fitted = folder / "semi", fitting.load_run(folder / "semi")
    prepared = evaluate.prepared_of(run, fitted.run)
    out = typed("evaluate", run, "--json", tmp_path / "e.json")
    found = json.loads((tmp_path / "e.json").read_text())
    best = np.asarray(fitted.model.log_classes(fitted.params, prepared.test.x)).argmax(axis=1)
    right = best == prepared.test.condition
    np.testing.assert_allclose(found["metrics"]["accuracy"]["mean"], right.mean(), rtol=1e-6)
    assert found["metrics"]["accuracy"]["unit"] == "share"
    np.testing.assert_allclose(found["classes"]["5"]["accuracy"], right[prepared.test.condition == 1].mean())
    assert "accuracy" in out
    x = np.load(folder / "new.npy").astype(np.float32) / 255
    codes = made(tmp_path / "z.npy", "encode", run, "--input", folder / "new.npy")
    label = np.asarray(fitted.model.log_classes(fitted.params, x)).argmax(axis=1)
    np.testing.assert_allclose(codes, fitted.model.given(label).encode(fitted.params, x).mean(), atol=1e-5)
    shown = made(tmp_path / "r.npz", "reconstruct", run, "--split", "train", "--num", 40)
    seen, told = shown["images"], prepared.train.condition[:40]
    assert (told < 0).any()
    label = np.where(told < 0, np.asarray(fitted.model.log_classes(fitted.params, seen)).argmax(axis=1), told)
    at = fitted.model.given(label)
    expected = at.decode(fitted.params, at.encode(fitted.params, seen).mean()).mean()
    np.testing.assert_allclose(shown["reconstructions"], expected, atol=1e-5)
    assert "of each class" in typed("diagnose", run)


REFUSED = [
    (("sample", "run", "--condition", "12"), "--condition: got 12, expected a class: 4, 5, 6"),
    (("sample", "run", "--condition", "seven"), "--condition: got seven, expected a class: 4, 5, 6"),
    (("sample", "run", "--condition", "none"), "--condition: got none, expected a class: this ConditionalVAE has"),
    (("sample", "semi", "--condition", "none"), "--condition: got none, expected a class: this SemiSupervisedVAE has"),
    (("sample", "run", "--guidance", "1"), "guidance: got a ConditionalVAE, which was not"),
    (
        ("sample", "both", "--condition", "none", "--guidance", "1"),
        "--guidance: got 1 for --condition none, expected a",
    ),
    (("sample", "plain", "--condition", "4"), "--condition: got 4, expected none: a VAE is told nothing"),
    (("encode", "run", "--input", "new.npy"), "--condition: got none, expected a class: 4, 5, 6"),
    (("decode", "semi", "--input", "z.npy"), "--condition: got none, expected a class: 4, 5, 6"),
    (("encode", "run", "--split", "test", "--condition", "4"), "--condition: got 4 for --split test"),
]


@pytest.mark.parametrize(("argv", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_conditions_that_a_model_does_not_take_are_one_line(folder, tmp_path, capsys, argv, message):
    command, run, *rest = argv
    rest = [folder / argument if argument in ("new.npy", "z.npy") else argument for argument in rest]
    assert message in refused(capsys, command, folder / run, *rest, "--out", tmp_path / "x.npy")


def test_images_alone_are_not_compressed_by_a_model_that_must_be_told_more(folder, tmp_path, capsys):
    error = refused(capsys, "compress", folder / "run", folder / "new.npy", tmp_path / "x.aev")
    assert "got ConditionalVAE, told something of each image, expected one of" in error
    assert error.endswith('one of images alone; train with --model "VAE(likelihood=DiscretizedLogistic())"')


@pytest.mark.exact
def test_samples_of_a_class_are_recognised_as_that_class(tmp_path):
    """By classifiers that were trained on the data: far more often than by chance."""
    data = "Data('digits', condition='label')"
    typed("train", tmp_path / "run", "--data", data, "--model", "ConditionalVAE(8)", "--epochs", 15)
    out = typed("quality", tmp_path / "run")
    share = int(re.search(r"(\d+)% of samples are recognised", out.replace("\n", " "))[1])
    assert share > 50  # 10 by chance
    by_class = out.partition("of each class that the model is told")[2]
    assert all(name in by_class for name in ("mse", "psnr", "ssim"))
