"""The main experiment chooses on validation data, decides its claims by intervals, and does what can be done of any
images.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import oracles
import pytest

from aevae_jax import data, models
from aevae_jax.cli import console
from aevae_jax.evaluation import image_quality, statistics
from aevae_jax.models import likelihoods, priors
from aevae_jax.objectives import ReconstructionError
from aevae_jax.runs import fitting, judges
from aevae_jax.runs.snapshots import Steps
from aevae_jax.training import loops
from aevae_jax.types import InputError

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

import ae_vs_vae as experiment
import ae_vs_vae_measures as measures
import claims

MARK = 16
"""Of the first pixel, which is 0 in every digit."""


class Ensemble:
    """Stands for the judging classifiers, and remembers which pictures it was shown."""

    def __init__(self):
        self.shown = []

    def features(self, x):
        self.shown.append(np.asarray(x))
        return np.asarray(x, np.float64).reshape(1, len(x), -1)[..., ::9]

    def confident(self, x):
        return float(np.asarray(x).mean())

    def probabilities(self, x):
        return np.eye(10)[np.zeros(len(x), int)]


def untrained(run, sweep, seeds, dataset, *, on_steps=None):
    """Stand for `fit_sweep`: models as they are before any training."""
    del on_steps
    model = replace(run.model, event_shape=dataset.event_shape)
    params = jax.vmap(model.init)(jax.vmap(jax.random.key)(np.array(seeds)))
    [values] = sweep.values()

    def member(s):
        results = {"test": [{"mse_at_mean": s + 0.01 * seed, "rate": 1.0} for seed in seeds], "seconds": 1.0}
        return fitting.Fitted(run, model, jax.tree.map(lambda a: a * s, params), [], results, None)

    return [member(s) for s in range(1, len(values) + 1)]


MEASURES = {
    "reconstruction MSE": 0.01,
    "KL of aggregate posterior": 2.0,
    "MMD of aggregate posterior": 0.1,
    "Frechet distance": 5.0,
    "... above that of data to data": 4.0,
    "confident samples": 0.5,
    "gap to the prior": 3.0,
    "equal when encoded twice": 0.5,
    "difference of two encodings": 0.3,
    "posterior standard deviation": 0.2,
    "steepest step of a path": 1.5,
    "length of a path": 1.1,
    "confident reconstructions": 0.5,
    "confident on paths": 0.4,
    "rate per dimension": np.array([3.0, 2.0, 1.0]),
}
"""Of one seed of one column."""


@pytest.fixture
def quick(monkeypatch):
    """Put an untrained population, and a judge that remembers, in place of what takes long."""
    ensemble = Ensemble()
    monkeypatch.setattr(fitting, "fit_sweep", untrained)
    monkeypatch.setattr(judges, "ensemble", lambda *_, **__: ensemble)
    monkeypatch.setattr(measures, "SAMPLES", 60)
    return ensemble


def run(tmp_path, **options):
    experiment.ae_vs_vae(seeds=2, epochs=1, latent=2, hidden=(8,), out=tmp_path / "out", **options)
    return json.loads((tmp_path / "out" / "results.json").read_text())


@pytest.mark.slow
def test_nothing_is_chosen_on_test_data(quick, tmp_path, monkeypatch):
    digits = data.digits()
    marked = np.array(digits.test.x)
    marked[:, 0, 0] = MARK
    monkeypatch.setattr(data.Data, "load", lambda self: replace(digits, test=replace(digits.test, x=marked)))
    choose, judges, chosen = experiment.choose, [], []

    def watched(candidates, judge):
        judges.append(judge)
        chosen.append(candidates[-1])
        choose(candidates, judge)
        assert not any((x[:, 0, 0] == 1).all() for x in quick.shown if len(x) == len(marked))
        return len(candidates) - 1

    def measure(fit, seed, images, judge):
        measured.append((fit, images, judge))
        return {**MEASURES, "reconstruction MSE": fit.results["test"][seed]["mse_at_mean"]}

    def with_mixtures(fit, train):
        mixed.append((fit, train))
        return experiment.members_of(fit)

    monkeypatch.setattr(experiment, "choose", watched)
    monkeypatch.setattr(experiment, "with_mixtures", with_mixtures)
    monkeypatch.setattr(measures, "measure", measure)
    monkeypatch.setattr(experiment, "draw", lambda *_: None)
    monkeypatch.setattr(loops, "map_in_threads", lambda function, items, compiled: map(function, items))  # in order
    measured, mixed = [], []
    results = run(tmp_path)
    assert len(judges) == 2
    validation = digits.validation.x / np.float32(16)
    for judge in judges:
        np.testing.assert_array_equal(judge.halves.data, Ensemble().features(validation))
    test = marked / np.float32(16)  # what is reported is of it
    for _, images, judge in measured:
        np.testing.assert_array_equal(images, test)
        np.testing.assert_array_equal(judge.halves.data, Ensemble().features(test))
    assert results["chosen"] == {"weight decay of the AE": 0.3, "beta": 4.0}  # the last candidates, as `watched` says
    errors = [results["measures"][f"reconstruction MSE | {name}"]["mean"] for name in claims.COLUMNS[:4]]
    assert errors == pytest.approx([2.005, 1.005, 3.005, 1.005])  # of which candidate
    curve = [(point["beta"], point["reconstruction MSE"]["mean"]) for point in results["curve"]]
    assert curve == pytest.approx(np.array([(1.0, 1.005), (2.0, 2.005), (4.0, 3.005)]))
    for name, seen in zip(("AE", "VAE, beta"), chosen, strict=True):
        distances = [measured[0][2].measures(one)["Frechet distance"] for one in seen]
        assert results["measures"][f"Frechet distance | {name}"]["mean"] == pytest.approx(np.mean(distances))
    ae, vae, weighted, learned = (fit for fit, *_ in measured[::2])
    assert ae.run.objective == ReconstructionError()
    assert vae.run == weighted.run == replace(learned.run, model=vae.run.model)
    assert learned.run.model == replace(vae.run.model, latent_prior=priors.VampPrior(100))
    assert [fit for fit, _ in mixed] == [ae, vae]
    for _, train in mixed:
        np.testing.assert_array_equal(train, digits.train.x / np.float32(16))
    assert {name.split(" | ")[1] for name in results["measures"]} == set(claims.COLUMNS)
    assert len(results["claims"]) == 16


def test_an_error_of_one_training_ends_all(monkeypatch):

    def fit_sweep(run, fields, seeds, dataset, *, on_steps):
        for epoch in itertools.count(1):  # for ever
            on_steps(Steps(epoch, 9, 1, 2))
            time.sleep(0.001)

    def refuse():
        raise InputError("judge", got="this", expected="that")

    monkeypatch.setattr(fitting, "fit_sweep", fit_sweep)
    population = (SimpleNamespace(epochs=9), "objective.beta", (1.0, 2.0))
    with pytest.raises(InputError, match="judge: got this"):
        experiment.train_all([population] * 3, 5, None, refuse)


def test_the_candidate_whose_random_codes_lie_nearest_is_chosen():
    class Judge:
        def measures(self, distance):
            return {"Frechet distance": distance}

    assert experiment.choose([(3, 4), (1, 5), (9, 1)], Judge()) == 1


def test_a_mixture_is_fitted_to_the_codes_of_its_own_seed(monkeypatch):
    class Times:
        def encode(self, params, x):
            return SimpleNamespace(mean=lambda: params * x)

    monkeypatch.setattr(priors, "fit_mixture", lambda model, params, codes, seed: (params, codes.tolist(), seed))
    fit = fitting.Fitted(None, Times(), np.array([2.0, 3.0]), [], {"test": [{}, {}]}, None)
    assert experiment.with_mixtures(fit, np.array([1.0, 5.0])) == [(2, [2, 10], 0), (3, [3, 15], 1)]


def test_baselines_are_of_data_and_of_pca_of_training_data(quick):
    """Training images differ in their first pixel, in which they are far from the test images; these in the second."""
    rng = np.random.default_rng(0)
    train, test = np.zeros((80, 3, 3, 1)), np.zeros((100, 3, 3, 1))
    train[:, 0, 0, 0], test[:, 0, 1, 0] = 9 + rng.random(80), rng.random(100)
    judge = measures.Judge.of(quick, test)
    found = measures.baselines(train, data.Split(test, np.arange(100) % 4), judge, 1)
    assert found["reconstruction MSE of PCA"] == pytest.approx((test**2).mean())
    assert found["Frechet distance of training data"] == pytest.approx((train[:, 0, 0] ** 2).mean(), rel=0.02)
    assert found["Frechet distance of data to data"] == judge.floor == 0  # of the pixel that is seen
    assert found["confident held-out data"] == test.mean()
    assert found["accuracy of the classifiers"] == 0.25


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "labels", "words"),
    [
        ((9, 13, 3), None, "the data has no labels"),
        ((9, 13, 3), np.zeros(400, int), "all labels are the same"),
        ((7, 7, 1), np.arange(250) % 4, "25 pictures in the test split are fewer than 30"),
        ((5, 9, 3), np.arange(80) % 2, "8 pictures in the test split are fewer than 30"),
    ],
)
def test_without_a_judge_the_rest_is_done(tmp_path, capsys, shape, labels, words):
    count = 400 if labels is None else len(labels)
    random = np.random.default_rng(0)
    picture = random.integers(0, 200, shape)  # which all images show, more or less
    x = (random.random((count, 1, 1, 1)) * picture + random.integers(0, 50, (count, *shape))).astype(np.uint8)
    arrays = {"x": x} if labels is None else {"x": x, "y": labels}
    np.savez(tmp_path / "own.npz", **arrays)
    results = run(tmp_path, data=data.Data(str(tmp_path / "own.npz")))
    assert results["left out"].startswith(words)
    assert not any("Frechet" in name for name in results["measures"])
    assert {claim["about"] for claim in results["claims"]} == {"compression", "regularity", "smoothness", "latent use"}
    printed = capsys.readouterr()
    assert f"nothing is recognised: {words}" in printed.err
    assert f"Claims about pictures are left out: {words}" in " ".join(printed.out.split())
    assert (tmp_path / "out" / "report.png").stat().st_size > 1000


def test_what_is_no_image_is_refused_before_any_training(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32))
    with pytest.raises(InputError, match=r"data: got examples of shape \(3,\), expected images"):
        run(tmp_path, data=data.Data(str(tmp_path / "x.npy")))
    with pytest.raises(InputError, match="seeds: got 1, expected at least 2"):
        experiment.ae_vs_vae(seeds=1)


def test_a_second_run_in_a_directory_says_what_to_type(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "train_all", lambda *_: pytest.fail("trained"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.json").write_text("{}")
    with pytest.raises(InputError) as refused:
        run(tmp_path)
    out = tmp_path / "out"
    assert str(refused.value) == (
        f"--out: got {out}, which is not empty, expected a new directory; type --force to replace the results in it, "
        f"or --out {out}-2"
    )


def test_data_is_typed_as_for_a_training(tmp_path, monkeypatch):
    """Splits of one's own decide how many pictures judge."""
    np.savez(tmp_path / "own.npz", x=np.random.default_rng(0).integers(0, 256, (150, 4, 4, 1), np.uint8))
    given = []
    monkeypatch.setattr(experiment, "train_all", lambda populations, *_: given.extend(populations) or sys.exit())
    typed = f"Data('{tmp_path / 'own.npz'}', splits=RandomSplits(validation=0.2, test=0.3))"
    options = ["--data", typed, "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit):
        console.parse_arguments(experiment.ae_vs_vae, options, prog="ae_vs_vae", compiles=False)()
    loaded = given[0][0].data.load()
    assert (len(loaded.validation), len(loaded.test)) == (30, 45)


def table(**changes):
    """Return the measures of all columns, an entry for each of four seeds, which differ by little."""
    seeds = 1 + np.array([-1e-3, 1e-3, 2e-3, -2e-3])
    return {
        f"{key} | {name}": np.multiply.outer(seeds, value)
        for name in claims.COLUMNS
        for key, value in {**MEASURES, **changes.get(name, {})}.items()
    }


BASELINE = {"reconstruction MSE of PCA": 0.02}


def test_claims_are_decided_by_their_columns():
    changes = dict(
        AE={
            "... above that of data to data": 10.0,
            "confident samples": 0.2,
            "KL of aggregate posterior": 8.0,
            "MMD of aggregate posterior": 0.3,
            "Frechet distance": 12.0,
            "steepest step of a path": 1.4,
            "confident on paths": 0.3,
            "reconstruction MSE": 0.004,
        },
        **{
            "VAE, beta": {"... above that of data to data": 3.9},
            "VAE + VampPrior": {"... above that of data to data": -0.5, "confident samples": 0.1},
        },
    )
    found = claims.decide(table(**changes), BASELINE)
    assert len({c.claim for c in found}) == len(found)
    decided = [(c.number, round(c.mean, 2), c.verdict) for c in found]
    assert decided == [
        ("error of PCA / AE", 5.0, "holds"),
        ("error of PCA / VAE", 2.0, "holds"),
        ("error of AE / VAE", 0.4, "the reverse holds"),
        ("KL of AE / VAE", 4.0, "holds"),
        ("MMD of AE - VAE", 0.2, "holds"),
        ("distance of AE - 2.5 VAE", 0.0, "undecided"),
        ("share of VAE - AE", 0.3, "holds"),
        ("distance of AE - 2.5 VAE", 0.25, "holds"),
        ("share of VAE - AE", 0.3, "holds"),
        ("distance of AE - 2.5 VAE", 11.25, "holds"),
        ("share of VAE - AE", -0.1, "the reverse holds"),
        ("distance of AE / AE + mixture", 2.4, "holds"),
        ("distance of VAE / VAE + mixture", 1.0, "does not hold"),
        ("steepest step of AE - VAE", -0.1, "the reverse holds"),
        ("share of VAE - AE", 0.1, "holds"),
        ("largest / smallest rate", 3.0, "holds"),
    ]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_is_not_finite_decides_nothing():
    """The Gaussian fit to fewer codes than these have numbers is singular: its KL is infinite, or NaN."""
    for singular in (np.inf, np.nan):
        changes = {name: {"KL of aggregate posterior": singular} for name in ("AE", "VAE")}
        numbers = [c.number for c in claims.decide(table(**changes), BASELINE)]
        assert numbers == [c.number for c in claims.decide(table(), BASELINE) if c.number != "KL of AE / VAE"]


def test_a_claim_is_decided_by_its_interval():
    values = np.array([1.0, 2.0, 3.0, 4.0])
    half = 3.182446 * values.std(ddof=1) / 2  # Student's t, 3 degrees of freedom, 97.5 %
    found = claims.claim("a", "b", "n", values, 0.0)
    assert (found.mean, found.low, found.high) == pytest.approx((2.5, 2.5 - half, 2.5 + half), rel=1e-6)
    assert found.verdict == "holds"
    assert claims.claim("a", "b", "n", values, 2.0).verdict == "undecided"
    assert claims.claim("a", "b", "n", values, 5.0).verdict == "does not hold"
    assert claims.claim("a", "b", "n", -9 - values, 0.0).verdict == "the reverse holds"
    ratio = claims.claim("a", "b", "n", np.exp(values), 1.0, ratio=True)
    assert np.log([ratio.mean, ratio.low, ratio.high]) == pytest.approx([2.5, 2.5 - half, 2.5 + half], rel=1e-6)


@pytest.mark.parametrize(
    ("number", "limit", "values", "words"),
    [
        ("AE / VAE", 2, 1.5, "does not hold"),  # fewer times than asked
        ("AE / VAE", 2, 0.9, "the reverse holds"),
        ("AE / VAE", 0.5, 0.7, "holds"),
        ("AE / VAE", 0.5, 0.4, "the reverse holds"),
        ("AE - VAE", 0, -0.1, "the reverse holds"),
    ],
)
def test_what_misses_a_limit_is_told_from_what_is_reversed(number, limit, values, words):
    spread = values + 1e-3 * np.arange(4)
    found = claims.claim("a", "b", number, spread, limit, ratio="/" in number)
    assert found.verdict == words
    recorded = found._asdict() | {"verdict": "holds" if words == "holds" else "does not hold"}  # as once
    assert claims.verdict_of(recorded) == words


def test_a_claim_with_a_factor_is_reversed_where_it_is_without_the_factor():
    for vae, words in ((0.9, "does not hold"), (1.2, "the reverse holds")):
        column = {"... above that of data to data": vae}
        changes = {"AE": {"... above that of data to data": 1.0}, "VAE": column}
        [found] = [c for c in claims.decide(table(**changes), BASELINE) if "of the VAE decode 2.5" in c.claim]
        assert found.verdict == claims.verdict_of(found._asdict()) == words


def recorded(**changes):
    """Return the record of the digits, as the experiment has it."""
    path = Path(experiment.__file__).parent / "results" / "ae_vs_vae_digits.json"
    return json.loads(path.read_text()) | changes


def printed(monkeypatch, capsys, results, width):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    claims.show(results, Path("runs/x"))
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)


def test_no_word_is_cut_in_a_narrow_terminal_and_every_row_is_explained(monkeypatch, capsys):
    out = printed(monkeypatch, capsys, recorded(), 80)
    assert "…" not in out
    assert max(map(len, out.splitlines())) <= 80
    words = out.replace(",", " ").split()
    for name, row in claims.ROWS.items():
        assert {*row.short.replace(",", "").split()} <= {*words}, name
        assert " ".join([row.short, row.words])[:60] in " ".join(out.split())
    least = recorded()["measures"]["MMD of aggregate posterior | VAE, beta"]["mean"]  # of most digits
    assert {"VampPrior", "mixture", f"{least:.3g}"} <= {*words}


def test_rows_and_columns_of_which_nothing_was_measured_are_left_out(monkeypatch, capsys):
    known = recorded()["measures"]
    few = {name: value for name, value in known.items() if "Frechet" not in name and "mixture" not in name}
    out = printed(monkeypatch, capsys, recorded(measures=few), 120)
    assert "Frechet distance  " not in out
    assert "mixture" not in out.partition("Claims")[0]
    assert "prior gap" in out


def test_facts_are_no_claims():
    found = claims.facts(table(), latent=16, size=64)
    assert [fact["mean"] for fact in found] == pytest.approx([4.0, 0.5, 0.3, 0.2])
    texts = {c.claim for c in claims.decide(table(), BASELINE)}
    assert not texts & {fact["fact"] for fact in found}


def test_codes_of_a_seed_are_measured_against_their_prior():
    """q(z|x) = N(x, 0.4^2) of the second seed, x ~ N((0, 2), (0.3, 0.5)^2): all of it is known in closed form."""
    model = models.VAE(2, models.architectures.MLP(()), likelihoods.Normal(), priors.StandardNormal(), event_shape=(2,))
    own = model.init(jax.random.key(0))
    raw = oracles.unbounded(np.log(0.4), *model.log_scale_range)
    own["encoder"]["out"] = {"kernel": np.eye(2, 4), "bias": np.array([0, 0, raw, raw])}
    both = jax.tree.map(lambda a: np.stack([0 * np.asarray(a), a]).astype(np.float32), own)
    results = {"test": [{"mse_at_mean": 0.1}, {"mse_at_mean": 0.5}]}
    x = np.random.default_rng(0).normal([0.0, 2.0], [0.3, 0.5], (400, 2)).astype(np.float32)
    found = measures.measure(fitting.Fitted(None, model, both, [], results, None), 1, x, None)
    square, variance = np.array([0.0, 4.0]), np.array([0.09, 0.25]) + 0.16
    gap = 0.5 * (square + variance - 1 - np.log(variance)).sum()
    rates = 0.5 * (square + np.array([0.09, 0.25]) + 0.16 - 1 - np.log(0.16))
    assert found["rate per dimension"] == pytest.approx(rates[::-1], rel=0.05)
    assert found["rate"] == pytest.approx(rates.sum(), rel=0.05)
    assert found["KL of aggregate posterior"] == pytest.approx(gap, rel=0.05)
    codes = x + 0.4 * np.random.default_rng(1).normal(size=x.shape)
    normal = np.random.default_rng(2).normal(size=x.shape)
    of_codes, of_means = (statistics.mmd(z, normal) for z in (codes, x))
    assert abs(found["MMD of aggregate posterior"] - of_codes) < 0.3 * abs(of_means - of_codes)
    assert found["gap to the prior"] == pytest.approx(gap, rel=0.05)
    assert found["posterior standard deviation"] == pytest.approx(0.4, rel=1e-5)
    assert found["difference of two encodings"] == pytest.approx(2 * 0.4 / np.sqrt(np.pi), rel=0.05)
    assert (found["equal when encoded twice"], found["active units"]) == (0, 2)
    assert found["reconstruction MSE"] == 0.5


@pytest.mark.parametrize(
    ("flags", "event_shape", "after"),
    [
        ("", (8, 8, 1), "--xla_backend_optimization_level=1"),
        ("--xla_a=b", (10, 10, 1), "--xla_a=b --xla_backend_optimization_level=1"),
        ("--xla_a=b", (28, 28, 1), "--xla_a=b"),
        ("--xla_backend_optimization_level=3", (8, 8, 1), "--xla_backend_optimization_level=3"),
    ],
)
def test_small_images_are_compiled_sooner_unless_that_is_decided(monkeypatch, flags, event_shape, after):
    monkeypatch.setenv("XLA_FLAGS", flags)
    experiment.compile_sooner(event_shape)
    assert os.environ["XLA_FLAGS"] == after


def test_paths_of_points_on_a_line_are_even(quick):
    """A linear decoder moves evenly: the steepest step is the mean one, and the path as long as the fade."""
    model = models.Autoencoder(2, models.architectures.MLP(()), event_shape=(3, 3, 1))
    params = model.init(jax.random.key(0))
    x = np.random.default_rng(0).uniform(size=(40, 3, 3, 1)).astype(np.float32)
    fit = fitting.Fitted(
        None, model, jax.tree.map(lambda a: a[None], params), [], {"test": [{"mse_at_mean": 0.5}]}, None
    )
    found = measures.measure(fit, 0, x, measures.Judge(quick, image_quality.Halves(quick.features(x)), 0.25))
    assert found["steepest step of a path"] == pytest.approx(1.0, abs=1e-4)
    assert found["length of a path"] == pytest.approx(1.0, abs=1e-4)
    assert found["equal when encoded twice"] == 1
    assert found["difference of two encodings"] == 0
    assert found["reconstruction MSE"] == 0.5


def test_random_codes_are_compared_with_the_data_of_the_judge_and_its_floor(quick):
    model = models.Autoencoder(2, models.architectures.MLP(()), event_shape=(3, 3, 1))
    params = model.init(jax.random.key(0))
    x = np.random.default_rng(0).uniform(size=(90, 3, 3, 1)).astype(np.float32)
    judge = measures.Judge.of(quick, x)
    assert judge.floor == image_quality.frechet_distances(judge.halves.data, judge.halves.data[:, :60]).floor > 0
    seen = measures.pictures(quick, model, params, 3)
    images = measures.decoded(model, params, 3)
    assert images.shape == (60, 3, 3, 1)
    np.testing.assert_array_equal(seen.features, quick.features(images))
    found = judge.measures(seen)
    assert found["Frechet distance"] == image_quality.frechet_distances(judge.halves.data, seen.features).samples
    assert found["... above that of data to data"] == found["Frechet distance"] - judge.floor
    assert found["confident samples"] == seen.confident == quick.confident(images)
