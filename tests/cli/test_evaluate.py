"""`aevae evaluate --samples`, `compare`, `diagnose` and `quality`, as they are typed."""

from __future__ import annotations

import contextlib
import io
import json
import math
import shlex
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
from commands import refused, typed
from jax import jit
from jax.random import key_data
from run_files import edit_run

from aevae_jax import evaluation, keys
from aevae_jax.cli import diagnose, evaluate
from aevae_jax.cli.arguments import BY_FIELD, parse_arguments
from aevae_jax.data import Factor
from aevae_jax.evaluation import collapse, disentanglement, estimates, image_quality, importance, latents, statistics
from aevae_jax.evaluation.findings import Finding
from aevae_jax.models import generation
from aevae_jax.models.likelihoods import DiscretizedLogistic
from aevae_jax.objectives.losses import ELBO
from aevae_jax.runs import fitting, judges
from aevae_jax.runs.run import Run
from aevae_jax.training.optimizers import AdamW

pytestmark = pytest.mark.usefixtures("no_pictures")

TRAIN = [
    "--model",
    "VAE(2, MLP((8,)), Bernoulli(), StandardNormal())",
    "--data",
    "Data('digits', DynamicBinarization())",
    "--epochs",
    "2",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of bits, one of grey levels, and an autoencoder."""
    folder = tmp_path_factory.mktemp("runs")
    with contextlib.redirect_stderr(io.StringIO()):
        typed("train", folder / "one", *TRAIN)
        typed("train", folder / "two", *TRAIN, "--seed", "1")
        typed("train", folder / "grey", "--model", "VAE(2, MLP((8,)), latent_prior=StandardNormal())", "--epochs", "1")
        typed("train", folder / "ae", "--model", "Autoencoder(2, MLP((8,)))", "--epochs", "1")
    return folder


def test_a_likelihood_comes_with_its_protocol(runs, tmp_path):
    out = typed("evaluate", runs / "one", "--samples", "50", "--json", tmp_path / "test.json")
    record = json.loads((tmp_path / "test.json").read_text())
    metrics = record["metrics"]
    nll, bound = metrics["negative_log_likelihood"]["mean"], metrics["negative_elbo"]["mean"]
    assert nll < bound
    assert metrics["bits_per_dim"]["mean"] == pytest.approx(nll / (64 * math.log(2)))
    assert 1 <= metrics["effective_samples"]["mean"] <= 50
    units = {name: metrics[name]["unit"] for name in ("negative_log_likelihood", "bits_per_dim", "effective_samples")}
    assert [*units.values()] == ["nats/example", "bits/dimension", "of 50"]
    assert "Probability of Bernoulli() at one z" in record["protocol"]
    for words in ("50 samples per example", "importance sampling", "DynamicBinarization()", "digits test"):
        assert words in record["protocol"]
    assert "negative log likelihood" in out
    few = typed("evaluate", runs / "one", "--samples", "2")
    assert "Too few samples to judge" in " ".join(few.split())


def test_the_seed_is_that_of_the_run_or_the_one_that_is_typed_be_it_0(runs, tmp_path):
    rates = {}
    for seed in ("", "0", "1"):
        typed("evaluate", runs / "two", "--json", tmp_path / f"seed{seed}.json", *(["--seed", seed] if seed else []))
        record = json.loads((tmp_path / f"seed{seed}.json").read_text())
        assert record["seed"] == int(seed or 1)
        rates[seed] = record["metrics"]["distortion"]["mean"]
    assert rates[""] == rates["1"] != rates["0"]


def test_grey_levels_have_no_bits_per_dimension(runs, tmp_path):
    typed("evaluate", runs / "grey", "--samples", "5", "--json", tmp_path / "grey.json")
    assert "bits_per_dim" not in json.loads((tmp_path / "grey.json").read_text())["metrics"]


def test_two_runs_are_compared_example_by_example(runs):
    out = typed("compare", runs / "one", runs / "two", "--samples", "20")
    first, second, verdict, protocol = out.splitlines()
    assert first.startswith(str(runs / "one"))
    means = [float(line.split()[-4]) for line in (first, second)]
    better = runs / ("one" if means[0] < means[1] else "two")
    assert verdict.startswith(f"{better} is better by {abs(means[0] - means[1]):.2f}"[:-1])
    assert "20 samples per example" in protocol
    again = typed("compare", runs / "one", runs / "one", "--samples", "5")
    assert "0.0000, 95 % interval 0.0000 to 0.0000: no difference is shown" in again


def test_what_is_typed_of_a_comparison_is_handed_on(runs, monkeypatch):
    """And the same noise is used for both."""
    asked = []

    def result(model, params, prepared, key, **options):
        asked.append((options["name"], options["split"], options["num_samples"], key_data(key).tolist()))
        protocol = estimates.EvaluationProtocol("q", "e", 3, "digits", "validation", "p", 4, "0", "mass")
        nll = {"one": [5.0, 6.0, 7.0, 8.0], "two": [4.0, 5.5, 6.0, 7.5]}[Path(options["name"]).name]
        return (estimates.Result(options["name"], np.array(nll), protocol),)

    monkeypatch.setattr(importance, "result", result)
    out = typed(
        "compare", runs / "one", runs / "two", "--split", "validation", "--samples", "3", "--seed", "9"
    ).splitlines()
    key = key_data(keys.stream(keys.root(9), keys.Stream.EVALUATE)).tolist()
    assert asked == [(str(runs / name), "validation", 3, key) for name in ("one", "two")]
    error = np.std([5.0, 6.0, 7.0, 8.0], ddof=1) / 2
    assert out[0].split()[1:] == ["6.5000", "+-", f"{error:.2g}", "nats/example"]
    assert out[1].split()[1:2] == ["5.7500"]
    assert out[2].startswith(f"{runs / 'two'} is better by 0.7500, 95 % interval 0.")
    assert out[2].count(":") == 0


def test_a_difference_that_is_smaller_than_its_error_is_not_shown(runs, monkeypatch):
    def result(model, params, prepared, key, **options):
        protocol = estimates.EvaluationProtocol("q", "e", 3, "digits", "test", "p", 3, "0", "mass")
        nll = {"one": [1.0, 2.0, 3.0], "two": [2.0, 1.0, 6.0]}[Path(options["name"]).name]
        return (estimates.Result(options["name"], np.array(nll), protocol),)

    monkeypatch.setattr(importance, "result", result)
    verdict = typed("compare", runs / "one", runs / "two").splitlines()[2]
    assert verdict == f"{runs / 'one'} is better by 1.0000, 95 % interval -3.9683 to 5.9683: no difference is shown"


def test_unlike_protocols_are_not_ranked(runs, capsys, monkeypatch):
    monkeypatch.chdir(runs)
    assert "which differ in preparation" in refused(capsys, "compare", "one", "grey")


def trained_by(run: Annotated[Run, BY_FIELD]) -> Run:
    return run


def test_a_run_is_diagnosed_in_words(runs):
    out = typed("diagnose", runs / "one")
    assert "under-trained: the validation bound was still falling: " in out
    assert "try: --epochs 4" in out
    [again] = [line for line in out.splitlines() if "type: " in line]
    assert again == f"  type: aevae train {runs / 'one-2'} --from {runs / 'one'} --epochs 4"
    old = fitting.load_run(runs / "one").run
    lines = {line[:20].strip(): line[20:].split(maxsplit=1) for line in out.splitlines()}
    assert lines["rate"][1:] == ["nats/example"]
    assert lines["mutual information"][1].startswith("nats/example")
    assert lines["prior gap"][1].endswith("; holes from 3 on")
    assert lines["mse at mean"][1:] == ["squared error per element"]
    assert lines["latent dimensions"] == ["2"]
    assert len(lines["active units"]) == 1
    assert f"the first {len(old.data.load().validation)} examples of the validation data" in out


def test_a_code_is_scored_by_the_factors_that_are_known(runs, monkeypatch):
    """With them a diagnosis says so, and on demand what each score is, beside that of other examples' factors."""
    rng, whole, nothing = np.random.default_rng(0), evaluate.prepared_of, collapse.Diagnosis({}, [])

    def known(*arguments):
        prepared = whole(*arguments)
        factors = (Factor("width"), Factor("kind", ordered=False))
        values = rng.integers(3, size=(len(prepared.test), 2))
        return replace(prepared, factors=factors, test=replace(prepared.test, factors=values))

    monkeypatch.setattr(diagnose, "prepared_of", known)
    monkeypatch.setattr(collapse, "diagnose", lambda *_, **told: nothing)
    monkeypatch.setattr(collapse, "MOST_EXAMPLES", 60)
    command = f"aevae diagnose {runs / 'one'} --factors"
    assert f"known factors: width, kind; what codes tell of them: {command}" in typed("diagnose", runs / "one")
    monkeypatch.setattr(disentanglement, "of_model", lambda *given, **told: seen.append((given, told)) or SCORES)
    seen = []
    out = typed("diagnose", runs / "one", "--factors")
    assert "what single dimensions of the code tell of width, kind: 60 test examples" in out
    assert out.split("sap")[1].split()[:2] == ["0.250", "0.031"]
    [((_, _, x, factors, _), told)] = seen
    assert len(x) == len(factors) == 60
    assert told == {"ordered": [True, False]}


SCORES = {"sap": disentanglement.Score(0.25, 0.03125)}


def test_what_several_findings_change_is_one_command(runs, monkeypatch):
    """Where a cosine follows the number of epochs, more of them are another training, and it is typed as a whole."""
    fitted = fitting.load_run(runs / "one")
    found = [
        Finding("a", "", "", {"objective": ELBO(0.5)}),
        Finding("b", "", "", {"epochs": 4}),
        Finding("c", "", "", {}),
    ]
    monkeypatch.setattr(collapse, "diagnose", lambda *_, **told: collapse.Diagnosis({}, found, ("f",), {"d": "e"}))
    out = typed("diagnose", runs / "one").splitlines()
    [again] = [line for line in out if "type" in line]
    assert again.startswith(f"type, for all of these: aevae train {runs / 'one-2'} --data ")
    run = parse_arguments(trained_by, shlex.split(again)[8:], prog="x")()
    assert replace(run, epochs=2, objective=ELBO(), model=fitted.run.model) == fitted.run
    assert (run.epochs, run.objective) == (4, ELBO(0.5))
    assert out[-2:] == ["no sign of: f", "not judged: d: e"]
    found[:] = [Finding("b", "", "", {"epochs": 4})]
    cosine = fitted._replace(run=replace(fitted.run, optimizer=AdamW(cosine=True)))
    monkeypatch.setattr(diagnose, "loaded", lambda run: cosine)
    assert "--from" not in typed("diagnose", runs / "one")


def test_a_history_without_epochs_is_one_line(runs, tmp_path, capsys):
    place = shutil.copytree(runs / "one", tmp_path / "run")
    (place / "metrics.jsonl").write_text("")
    assert refused(capsys, "diagnose", place).startswith("error: ")


@pytest.mark.slow
def test_pictures_are_judged(runs, monkeypatch, tmp_path):
    """By classifiers that are trained here, for a few steps."""
    monkeypatch.setenv("AEVAE_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(judges, "ensemble", partial(judges.ensemble, steps=100))
    out = typed("quality", runs / "grey", "--num", "100")
    for name in ("psnr", "ssim", "frechet distance", "precision", "recall", "density", "coverage", "confident"):
        assert name in out
    assert "same data" in " ".join(out.split())
    assert "WARNING" not in out


class RECOGNISED:
    """Classifiers that are confident of whatever they see."""

    confident = staticmethod(lambda x: 1.0)


QUALITY = image_quality.SampleQuality(1.0, statistics.Manifold(0.5, 0.25, 2.0, 1.0), 0.75, 20)


@pytest.mark.parametrize(
    ("seed", "seeds", "floor"),
    [
        (0, [0, 1, 2], 0.5),
        (7, [7, 8, 9], 1.0),
        (2**32 - 2, [2**32 - 2, 2**32 - 1, 0], 1.5),
        (2**32 - 1, [2**32 - 1, 0, 1], 0.5),
    ],
)
def test_any_seed_judges_pictures_by_three_classifiers(runs, monkeypatch, seed, seeds, floor):
    """And decides the samples. The distance of data to data stands beside; less than it is a fault of the judge."""
    given, drawn = [], []

    def train(prepared, seeds, **told):
        given.append([int(np.uint32(seed)) for seed in seeds])
        return RECOGNISED

    def judged(x, made, ensemble, **told):
        drawn.append((x, made))
        return image_quality.Judgement(QUALITY, QUALITY._replace(frechet_distance=floor, confident=0.125))

    monkeypatch.setattr(judges, "ensemble", train)
    monkeypatch.setattr(image_quality, "of_samples", judged)
    monkeypatch.setattr(latents, "prior_gap", lambda *_, **told: 2 + floor)
    out = typed("quality", runs / "grey", "--num", "20", "--seed", seed)
    assert given == [seeds]
    fitted = fitting.load_run(runs / "grey")
    key = keys.stream(keys.root(seed), keys.Stream.SAMPLE)
    expected = generation.sample(fitted.model, fitted.params, key, 20).mean()
    [(x, made)] = drawn
    np.testing.assert_allclose(made, expected, atol=1e-6)
    assert len(x) == 40  # two halves of as many
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert f"frechet distance 1 {floor:g} features" in lines
    shares = {"precision": "0.5 0.5", "recall": "0.25 0.25", "density": "2 2", "coverage": "1 1"}
    for name, values in {**shares, "confident": "0.75 0.125"}.items():
        assert f"{name} {values} share" in lines
    text = " ".join(lines)
    assert "20 samples against as many test images, and others of these in their place (data)" in text
    assert ("WARNING: the samples are nearer to data than data are" in text) == (floor > 1)
    assert ("holes: random codes fall into holes" in text) == (floor >= 1)  # from 3 nats on
    assert ("type: aevae train " in text) == (floor >= 1)
    assert ("samples are not clearly worse than data in any share" in text) == (floor < 1)


@pytest.mark.parametrize(
    ("labels", "count", "words"),
    [
        (None, 20, "samples are not judged: the data has no labels"),
        ([3, -1], 20, "samples are not judged: all labels are the same"),
        ([0, 1], 29, "29 pictures in the test split are fewer than 30"),
    ],
)
def test_without_a_judge_reconstructions_are_measured_all_the_same(runs, monkeypatch, labels, count, words):
    whole = evaluate.prepared_of

    def some(*arguments):
        prepared = whole(*arguments)
        train = prepared.train
        train = replace(train, labels=None if labels is None else np.resize(np.array(labels), len(train)))
        return replace(prepared, train=train, test=replace(prepared.test, x=prepared.test.x[:count]))

    monkeypatch.setattr(diagnose, "prepared_of", some)
    monkeypatch.setattr(judges, "ensemble", lambda *_, **__: pytest.fail("trained"))
    monkeypatch.setattr(latents, "prior_gap", lambda *_, **told: 0.0)
    out = " ".join(typed("quality", runs / "grey", "--num", "20").split())
    assert words in out
    assert "psnr" in out
    assert "frechet" not in out


def test_bits_are_judged_as_bits(runs, monkeypatch):
    """Samples of a model of bits are drawn, as their mean is grey; those of grey levels are not."""
    drawn, judged = [], []
    monkeypatch.setattr(judges, "ensemble", lambda prepared, seeds, **told: RECOGNISED)
    monkeypatch.setattr(latents, "prior_gap", lambda *_, **told: 0.0)
    monkeypatch.setattr(RECOGNISED, "confident", lambda x: judged.append(x) or 1.0)
    monkeypatch.setattr(
        image_quality,
        "of_samples",
        lambda x, made, ensemble, **told: drawn.append(made) or image_quality.Judgement(*2 * [QUALITY]),
    )
    typed("quality", runs / "one", "--num", "20")
    typed("quality", runs / "grey", "--num", "20")
    fitted = fitting.load_run(runs / "grey")
    levels = replace(fitted.model, likelihood=DiscretizedLogistic(17))
    untrained = fitted._replace(model=levels, params=jit(levels.init)(keys.root(0)))
    monkeypatch.setattr(diagnose, "loaded", lambda run: untrained)
    typed("quality", runs / "grey", "--num", "20")
    assert set(np.unique(drawn[0])) == set(np.unique(judged[0])) == {0, 1}
    assert len(np.unique(judged[1])) > 100
    assert len(np.unique(drawn[1])) > 100
    assert len(np.unique(drawn[2])) > 100


def test_a_seed_that_is_none_is_refused_before_anything_is_trained(runs, monkeypatch, capsys):
    monkeypatch.setattr(judges, "ensemble", lambda *_, **__: pytest.fail("trained"))
    for seed in (-1, 2**32):
        assert f"--seed: got {seed}, expected 0 to 4294967295" in refused(
            capsys, "quality", runs / "grey", "--seed", seed
        )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["evaluate", "ae", "--samples", "10"], "likelihood: got Autoencoder, whose codes are points, expected a VAE"),
        (["evaluate", "one", "--samples", "0"], "--samples: got 0, expected at least 1"),
        (["compare", "one", "two", "--samples", "0"], "--samples: got 0, expected at least 1"),
        (["compare", "one", "ae"], "likelihood: got Autoencoder"),
        (
            ["compare", "one", "two", "--samples", "4000000000"],
            "--samples: got 4000000000, expected at most 2147483647",
        ),
        (["quality", "one", "--num", "4000000000"], "--num: got 4000000000, expected at most"),
        (["evaluate", "one", "--split", "holdout"], "--split"),
        (["evaluate", "one", "--split", "train"], "--split"),
        (["diagnose", "nothing"], "no run.json"),
        (["quality", "grey", "--num", "3"], "--num: got 3, expected at least 15"),
        (["diagnose", "one", "--seed", "-1"], "--seed: got -1"),
        (["diagnose", "one", "--factors"], "factors of the data (digits): got none that are known, expected those"),
    ],
)
def test_what_cannot_be_measured_is_one_line(runs, capsys, argv, message):
    command, *rest = argv
    places = [runs / text if text in ("one", "two", "ae", "grey", "nothing") else text for text in rest]
    assert message in refused(capsys, command, *places)


def measured(run, path, monkeypatch, found, *options):
    """The record of an evaluation that measures what it is given here: nothing is computed."""
    monkeypatch.setattr(evaluation, "per_example", lambda *_, **__: found)
    typed("evaluate", run, "--json", path, "--force", *options)
    return json.loads(path.read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("heavy", "said"), [(0.25, "WARNING: of 25 % of"), (0.01, "of 1 % of"), (0.005, ""), (0.0, ""), (1.0, "of 100 %")]
)
def test_heavy_tails_are_told_from_one_percent_on(runs, tmp_path, monkeypatch, heavy, said):
    """With 100 samples a shape of up to 1 - 1 / log10(100) = 0.5 is trusted."""
    shapes = np.where(np.arange(400) < 400 * heavy, 0.51, 0.5)

    def protocol(found):
        monkeypatch.setattr(importance, "estimate", lambda *_, **__: found)
        return measured(runs / "one", tmp_path / "e.json", monkeypatch, {}, "--samples", 100)["protocol"]

    text = protocol(importance.Estimate(shapes, shapes, shapes, shapes, 100))
    assert "100 samples per example" in text
    assert said in text
    assert ("too heavy a tail (Pareto k above 0.50)" in text) == ("WARNING" in text) == bool(said)
    few = protocol(importance.Estimate(shapes, shapes, shapes, shapes * np.nan, 4))
    assert few.endswith("4 samples per example. Too few samples to judge their tail.")


def test_an_entry_is_a_mean_with_its_standard_error_and_unit(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(runs)
    x = np.array([1.0, 2.0, 4.0, 9.0], np.float32)
    found = {"first_name": x + 1234563, "second": x[:1]}
    unit = "nats/example"
    assert measured("one", tmp_path / "e.json", monkeypatch, found)["metrics"] == {
        "first_name": {"mean": 1234567.0, "standard_error": pytest.approx(np.std(x, ddof=1) / 2), "unit": unit},
        "second": {"mean": 1.0, "standard_error": None, "unit": unit},
    }
    large = measured("one", tmp_path / "e.json", monkeypatch, {"second": x * np.float32(np.inf), "first": x})
    assert [entry["mean"] for entry in large["metrics"].values()] == [4.0, None]  # JSON has no infinity
    assert large["metrics"]["second"]["standard_error"] is None
    monkeypatch.setattr(evaluation, "per_example", lambda *_, **__: found)
    rows = [line.split() for line in typed("evaluate", "one").splitlines() if line.strip()]
    assert rows[0] == ["one,", "digits", "test"]
    assert rows[1] == ["metric", "mean", "standard", "error", "unit"]
    assert rows[3:5] == [["first", "name", "1.23457e+06", "1.8", unit], ["second", "1", unit]]
    assert rows[5][:2] == ["Means", "over"]


def test_terms_stand_before_their_sum_and_squared_errors_have_a_unit(runs, tmp_path, monkeypatch):
    names = [
        "zeta",
        "mse_at_mean",
        "profile_loss",
        "negative_elbo",
        "alpha",
        "rate",
        "distortion",
        "profile_distortion",
    ]
    ordered = [
        "distortion",
        "profile_distortion",
        "rate",
        "negative_elbo",
        "profile_loss",
        "mse_at_mean",
        "alpha",
        "zeta",
    ]
    prepared = evaluate.prepared_of(runs / "one", fitting.load_run(runs / "one").run)
    for mean, unit in (((), "squared error per element"), ((0.5,), "squared error per standardised element")):
        given = replace(prepared, format=replace(prepared.format, mean=mean, scale=mean))
        monkeypatch.setattr(evaluate, "prepared_of", lambda folder, run, moved, given=given: given)
        found = measured(runs / "one", tmp_path / "e.json", monkeypatch, dict.fromkeys(names, np.ones(2)))["metrics"]
        assert list(found) == ordered
        assert found.pop("mse_at_mean")["unit"] == unit
        assert {entry["unit"] for entry in found.values()} == {"nats/example"}


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A run of data in a file, and the file's array; the file is gone."""
    folder = tmp_path_factory.mktemp("own")
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), np.uint8)
    np.save(folder / "x.npy", images, allow_pickle=False)
    with contextlib.redirect_stderr(io.StringIO()):
        typed(
            "train",
            folder / "run",
            "--data",
            folder / "x.npy",
            "--model",
            "VAE(2, MLP((4,)), latent_prior=StandardNormal())",
            "--epochs",
            "1",
            "--batch-size",
            "8",
        )
    (folder / "x.npy").unlink()
    return folder / "run", images


OF_DATA = (
    ["evaluate"],
    ["diagnose"],
    ["quality"],
    ["reconstruct", "--out", "r.npy"],
    ["interpolate", "--out", "i.npy"],
    ["reproduce"],
    ["replay", "--step", "0"],
)


@pytest.mark.parametrize("command", OF_DATA, ids=lambda command: command[0])
def test_data_that_moved_is_found_again_and_other_data_is_refused(own, tmp_path, monkeypatch, capsys, command):
    """By its hash, whatever its name."""
    place, images = own
    monkeypatch.chdir(tmp_path)
    name, *options = command
    assert "x.npy" in refused(capsys, name, place, *options)
    np.save("moved.npy", images, allow_pickle=False)
    typed(name, place, *options, "--data", "moved.npy")
    capsys.readouterr()
    images = images.copy()
    images[0, 0, 0] ^= 1
    np.save("other.npy", images, allow_pickle=False)
    again = [*options, "--force"] if "--out" in options else options
    message = refused(capsys, name, place, *again, "--data", "./other.npy")
    assert "other data under the name './other.npy'" in message


def test_pictures_without_labels_are_judged_pixel_by_pixel(own, tmp_path):
    place, images = own
    np.save(tmp_path / "moved.npy", images, allow_pickle=False)
    out = typed("quality", place, "--num", "15", "--data", tmp_path / "moved.npy")
    said = " ".join(out.split())
    assert "samples are not judged: the data has no labels" in said
    assert "squared error per element" in said
    assert "psnr" in said
    assert " dB" in said
    assert "in the units of the data, clipped to its range, 0 to 1." in said


def test_both_sides_of_a_comparison_are_on_the_data_that_moved(own, tmp_path):
    place, images = own
    np.save(tmp_path / "moved.npy", images, allow_pickle=False)
    assert "no difference" in typed("compare", place, place, "--samples", "2", "--data", tmp_path / "moved.npy")


def test_only_the_place_of_data_can_be_said_anew(own, capsys):
    assert "all else is the run's" in refused(capsys, "evaluate", own[0], "--data", "Data('x.npy', Standardize())")


def test_grey_levels_under_a_bernoulli_are_refused(runs, tmp_path, capsys):  # mistake 9
    place = tmp_path / "run"
    shutil.copytree(runs / "one", place)
    edit_run(place, lambda record: record["run"]["data"].update(preparation={"type": "Scale"}))
    message = refused(capsys, "evaluate", place, "--samples", "5")
    assert "evaluation data: got" in message
    assert "expected 0 or 1, the support of the likelihood" in message
