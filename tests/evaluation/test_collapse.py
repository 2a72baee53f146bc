"""Runs made to have each fault, and one that has none."""

from __future__ import annotations

import dataclasses
import re

import jax
import numpy as np
import pytest

from aevae_jax import values
from aevae_jax.data import Data, prepare
from aevae_jax.evaluation import collapse, latents, learning_curve, random_codes
from aevae_jax.evaluation.findings import Finding, improved
from aevae_jax.models import VAE, Autoencoder, Model, TwoLevelVAE, likelihoods, priors
from aevae_jax.models.architectures import MLP
from aevae_jax.models.posteriors import IAF, DiagonalNormal
from aevae_jax.objectives.families import Loss
from aevae_jax.objectives.losses import ELBO, IWAE, LinearWarmup
from aevae_jax.runs import fitting
from aevae_jax.runs.run import Run
from aevae_jax.training.optimizers import AdamW
from aevae_jax.types import InputError

SMALL = VAE(4, MLP((32,)), likelihoods.NormalSharedScale(), priors.StandardNormal())
DATASET = Data().load()
VALIDATION = prepare(Data().preparation, DATASET).validation.x


def checked(model=SMALL, objective=None, epochs=300, rate=1e-2):
    run = Run(model=model, objective=objective, optimizer=AdamW(rate, cosine=True), batch_size=256, epochs=epochs)
    return collapse.diagnose(fitting.fit(run, DATASET), VALIDATION, jax.random.key(0))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "faults", "remedy"),
    [
        ({}, [], ""),
        (
            {"objective": ELBO(beta=LinearWarmup(9, end=50.0)), "epochs": 60},
            ["over-regularised", "posterior collapse"],
            "ELBO()",
        ),
        ({"objective": ELBO(beta=4.0)}, ["over-regularised"], "ELBO()"),
        (
            {"model": dataclasses.replace(SMALL, likelihood=likelihoods.Normal(0.4))},
            ["over-regularised"],
            "NormalSharedScale()",
        ),
        ({"model": dataclasses.replace(SMALL, latent=40)}, ["dead units"], "latent="),
        ({"epochs": 10}, ["holes", "under-trained"], "VampPrior(components=100)"),
        ({"objective": ELBO(beta=0.0), "epochs": 200}, ["variance collapsed"], "ELBO()"),
        (
            {"model": dataclasses.replace(SMALL, likelihood=likelihoods.Normal(1e-3)), "epochs": 200},
            ["variance collapsed"],
            "NormalSharedScale()",
        ),
    ],
)
def test_each_fault_is_found_and_no_other(options, faults, remedy):
    found = checked(**options)
    assert [finding.fault for finding in found.findings] == faults, found
    if faults:
        assert remedy in found.findings[0].remedy


def test_an_autoencoder_is_asked_whether_its_codes_are_like_its_prior(monkeypatch):
    """And not what it cannot have. Its codes are spread out far here: random ones decode to noise."""
    run = Run(model=Autoencoder(4, MLP((32,)), event_shape=(8, 8, 1)), epochs=2)
    params = jax.jit(run.model.init)(jax.random.key(0))
    params["encoder"] = jax.tree.map(lambda a: 9 * a, params["encoder"])
    history = [{"epoch": i, "step": i, "validation": {"distortion": 1.0}} for i in (1, 2)]
    fitted = fitting.Fitted(run, run.model, params, history, {}, None)
    train = prepare(Data().preparation, DATASET).rows("train", jax.random.key(0))
    found = collapse.diagnose(fitted, VALIDATION, jax.random.key(0), train=train)
    [holes] = found.findings
    assert holes.fault == "holes"
    assert holes.evidence.startswith("the prior of an autoencoder is not trained")
    assert holes.changes["model"] == VAE(4, MLP((32,)), event_shape=(8, 8, 1))
    assert set(found.measured) == {"distortion", "mse_at_mean", "prior_gap"}
    assert found.absent == ("density without limit", "overfitting", "under-trained")
    monkeypatch.setattr(collapse.latents, "prior_gap", lambda *arguments, **told: 2.9)
    found = collapse.diagnose(fitted, VALIDATION, jax.random.key(0))
    assert found.findings == []
    assert found.unjudged["holes"].startswith("180 examples show a gap of at least 2.9 nats between codes and prior")


def typed(remedy, run):
    """The fields of a run in its place, as the first thing that the remedy tells to type makes them."""
    objective, field, epochs = re.search(r'--objective "([^"]*)"|(\w+=\S+) in --model|--epochs (\d+)', remedy).groups()
    if objective:
        return {"objective": values.parse(Loss, objective, "--objective")}
    if epochs:
        return {"epochs": values.parse(int, epochs, "--epochs")}
    name, model = field.partition("=")[0], values.parse(Model, f"VAE({field})", "--model")
    return {"model": dataclasses.replace(run.model, **{name: getattr(model, name)})}


MODEL = dataclasses.replace(SMALL, event_shape=(8, 8, 1))
SOUND = latents.Latents(
    8.0, 7.0, 1.0, 0.5, np.full(4, 0.25), np.full(4, 2.0), np.ones(4, bool), np.ones(4), np.full(4, 0.1), 180
)
NARROW = SOUND._replace(mean_variance=np.full(4, 1e-3))
"""A thousandth of the variance of the codes is that of q(z|x): too little only where the rate was cheap."""
NONE, HALF = np.zeros(4, bool), np.array([True, True, False, False])
OVER, POINTS = ("over-regularised", {"objective": ELBO()}), ("variance collapsed", {"objective": ELBO()})
COLLAPSE = ("posterior collapse", {"objective": ELBO(LinearWarmup(6))})


def of_noise(*mean_variance):
    """Codes of which these are the mean posterior variances, or this one of all; their means have a variance of 1."""
    return SOUND._replace(mean_variance=np.array(mean_variance if len(mean_variance) > 1 else 4 * mean_variance))


def checkup(monkeypatch, run, found, bounds, x=VALIDATION, *, gap=2.9, described=None):
    """The check of a run of 8 steps an epoch that was measured so: the squared error is 0.04, the distortion -50.

    `bounds` are those of validation: numbers, or whole entries of the history. What the codes are those of is left in
    `described`.
    """

    def describe(*arguments):
        (described if described is not None else []).append(arguments)
        return found

    monkeypatch.setattr(collapse.latents, "prior_gap", lambda *arguments, **told: gap)
    run = dataclasses.replace(run, epochs=len(bounds))
    terms = {"distortion": -50.0, "rate": found.rate, "negative_elbo": found.rate - 50.0, "mse_at_mean": 0.04}
    monkeypatch.setattr(collapse.metrics, "evaluate", lambda *arguments: terms)
    monkeypatch.setattr(collapse.latents, "describe", describe)
    entries = [bound if isinstance(bound, dict) else {"negative_elbo": bound} for bound in bounds]
    history = [{"epoch": i, "step": 8 * i, "validation": entry} for i, entry in enumerate(entries, 1)]
    params = jax.eval_shape(run.model.init, jax.random.key(0))
    return collapse.diagnose(fitting.Fitted(run, run.model, params, history, {}, None), x, jax.random.key(0))


@pytest.mark.parametrize(("posterior", "compared"), [(IAF(1, (4,)), 20), (DiagonalNormal(), 180)])
def test_codes_of_flows_are_compared_for_so_many_examples_that_it_stays_quick(monkeypatch, posterior, compared):
    """Of four dimensions, each inverted in four passes: half as many as where a density takes one."""
    monkeypatch.setattr(latents, "INVERTED", 40)
    run, described = Run(model=dataclasses.replace(MODEL, posterior=posterior)), []
    found = checkup(monkeypatch, run, SOUND, (3.0, 1.0, 1.0), described=described)
    assert found.compared == compared
    [(model, _, x, key)] = described
    assert (model, key) == (run.model, jax.random.key(0))
    np.testing.assert_array_equal(x, VALIDATION[:compared])
    assert found.measured["mutual_information"] == SOUND.mutual_information
    assert found.measured["marginal_kl"] == SOUND.marginal_kl


@pytest.mark.parametrize(
    ("run", "found", "bounds", "expected"),
    [
        (Run(model=MODEL), SOUND, (3.0, 1.0, 1.0), []),
        (
            Run(model=MODEL),
            SOUND._replace(rate=0.01, mutual_information=0.01, active=NONE),
            (3.0, 1.0, 1.0),
            [("posterior collapse", {"objective": ELBO(LinearWarmup(6))})],
        ),
        (Run(model=MODEL, objective=ELBO(50.0)), SOUND, (3.0, 1.0, 1.0), [("over-regularised", {"objective": ELBO()})]),
        (
            Run(model=MODEL),
            SOUND._replace(active=HALF),
            (3.0, 1.0, 1.0),
            [("dead units", {"model": dataclasses.replace(MODEL, latent=2)})],
        ),
        (
            Run(model=MODEL, objective=ELBO(0.1)),
            SOUND._replace(mean_variance=np.full(4, 1e-6)),
            (3.0, 1.0, 1.0),
            [("variance collapsed", {"objective": ELBO()})],
        ),
        (
            Run(model=dataclasses.replace(MODEL, likelihood=likelihoods.Normal(4.0))),
            SOUND,
            (3.0, 1.0, 1.0),
            [("over-regularised", {"model": MODEL})],
        ),
        (
            Run(model=dataclasses.replace(MODEL, likelihood=likelihoods.Normal(0.1))),
            NARROW,
            (3.0, 1.0, 1.0),
            [("variance collapsed", {"model": MODEL})],
        ),
        (Run(model=dataclasses.replace(MODEL, likelihood=likelihoods.Normal(0.2))), NARROW, (3.0, 1.0, 1.0), []),
        (Run(model=MODEL), NARROW, (3.0, 1.0, 1.0), []),
        (Run(model=MODEL), SOUND, (3.0, 2.0, 1.0), [("under-trained", {"epochs": 6})]),
        (Run(model=MODEL), SOUND, (3.0,), [("under-trained", {"epochs": 2})]),
        (Run(model=MODEL, objective=ELBO(50.0)), SOUND._replace(active=HALF), (3.0, 1.0, 1.0), [OVER]),
        (
            Run(model=MODEL, objective=ELBO(50.0)),
            SOUND._replace(rate=0.01, active=NONE),
            (3.0, 1.0, 1.0),
            [OVER, COLLAPSE],
        ),
        (Run(model=MODEL, objective=ELBO(LinearWarmup(48, end=4.0))), SOUND, (3.0, 1.0, 1.0), [OVER]),  # 2 by now
        (Run(model=MODEL, objective=ELBO(LinearWarmup(24, start=5.0))), SOUND, (3.0, 1.0, 1.0), []),  # 1 by now
        (Run(model=MODEL), SOUND._replace(rate=0.09), (3.0, 1.0, 1.0), [COLLAPSE]),
        (Run(model=MODEL), SOUND._replace(rate=0.11), (3.0, 1.0, 1.0), []),
        (Run(model=MODEL), SOUND._replace(mutual_information=0.09), (3.0, 1.0, 1.0), [COLLAPSE]),
        (Run(model=MODEL), SOUND._replace(active=NONE), (3.0, 1.0, 1.0), []),  # which its 7 nats deny
        (Run(model=dataclasses.replace(MODEL, likelihood=likelihoods.Normal(0.29))), SOUND, (3.0, 1.0, 1.0), []),
        (
            Run(model=dataclasses.replace(MODEL, likelihood=likelihoods.Normal(0.31))),
            SOUND,
            (3.0, 1.0, 1.0),
            [("over-regularised", {"model": MODEL})],
        ),
        (Run(model=MODEL, objective=ELBO(0.5)), of_noise(0.0099), (3.0, 1.0, 1.0), [POINTS]),
        (Run(model=MODEL, objective=ELBO(0.5)), of_noise(0.0103), (3.0, 1.0, 1.0), []),
        (Run(model=MODEL), of_noise(0.99e-4), (3.0, 1.0, 1.0), [("variance collapsed", {"model": MODEL})]),
        (Run(model=MODEL), of_noise(1.03e-4), (3.0, 1.0, 1.0), []),
        (Run(model=MODEL), of_noise(1e-6, 1e-6, 0.1, 0.1), (3.0, 1.0, 1.0), []),
        (Run(model=MODEL, objective=ELBO(0.5)), of_noise(1e-6, 1e-6, 1e-6, 0.1), (3.0, 1.0, 1.0), [POINTS]),
        (
            Run(model=MODEL),
            of_noise(0.1, 0.1, 1e-6, 1e-6)._replace(active=HALF),
            (3.0, 1.0, 1.0),
            [("dead units", {"model": dataclasses.replace(MODEL, latent=2)})],
        ),
    ],
)
def test_remedies_can_be_typed(monkeypatch, run, found, bounds, expected):
    """Each finding's remedy, as it is typed, makes the run that the finding says it makes."""
    findings = checkup(monkeypatch, run, found, bounds).findings
    assert [(finding.fault, finding.changes) for finding in findings] == expected
    assert [typed(finding.remedy, run) for finding in findings] == [finding.changes for finding in findings]


@pytest.mark.parametrize(
    ("run", "found", "bounds", "evidence"),
    [
        (
            Run(model=MODEL),
            SOUND._replace(rate=0.012, active=NONE),
            (3.0, 1.0, 1.0),
            "the code tells 7 nats about the data at a rate of 0.012 (below 0.1 is nothing), and 0 of 4 dimensions",
        ),
        (
            Run(model=MODEL, objective=ELBO(50.0)),
            SOUND,
            (3.0, 1.0, 1.0),
            "the loss multiplied the rate by 50: it holds 8 nats, the distortion is -50",
        ),
        (
            Run(model=MODEL),
            SOUND._replace(active=np.array([True, True, True, False])),
            (3.0, 1.0, 1.0),
            "1 of 4 dimensions do not react to the data",
        ),
        (
            Run(model=MODEL, objective=ELBO(0.1)),
            of_noise(1e-6, 1e-6, 1e-6, 0.1),
            (3.0, 1.0, 1.0),
            "in 3 of 4 active dimensions less than 1 % of the variance of the code is that of q(z|x): codes are "
            "points, 1.25 nats from the prior",
        ),
        (Run(model=MODEL), of_noise(1e-6), (3.0, 1.0, 1.0), "in 4 of 4 active dimensions less than 0.01 % of"),
        (
            Run(model=dataclasses.replace(MODEL, likelihood=likelihoods.Normal(4.0))),
            SOUND,
            (3.0, 1.0, 1.0),
            "the likelihood takes a noise of 4 for granted, 20 times the reconstruction error of 0.2:",
        ),
        (
            Run(model=MODEL),
            SOUND,
            (9.0, 5.0, 4.5, 3.0),
            "the validation bound was still falling: 1.5 of 6 nats came in the last 1 of 4 epochs",
        ),
    ],
)
def test_a_finding_shows_its_numbers(monkeypatch, run, found, bounds, evidence):
    [finding] = checkup(monkeypatch, run, found._replace(marginal_kl=1.25), bounds).findings
    assert finding.evidence.startswith(evidence)


def test_what_was_measured_is_told_by_name(monkeypatch):
    x = np.zeros((2001, 8, 8, 1), np.float32)
    measured = {
        "distortion": -50.0,
        "rate": 8.0,
        "mse_at_mean": 0.04,
        "mutual_information": 7.0,
        "marginal_kl": 1.0,
        "prior_gap": 2.9,
        "total_correlation": 0.5,
        "active_units": 2.0,
        "latent_dimensions": 4.0,
    }
    run, found = Run(model=MODEL, epochs=1), SOUND._replace(active=HALF)
    assert checkup(monkeypatch, run, found, (3.0, 1.0, 1.0), x).measured == measured
    del measured["total_correlation"]
    assert checkup(monkeypatch, run, found._replace(total_correlation=None), (3.0, 1.0, 1.0)).measured == measured
    looked_at = []
    monkeypatch.setattr(
        collapse.metrics,
        "evaluate",
        lambda model, params, x, key: looked_at.append(len(x)) or {"rate": 9.0, "mse_at_mean": 1.0},
    )
    history = [{"step": 8, "validation": {"negative_elbo": 1.0}}]
    params = jax.eval_shape(MODEL.init, jax.random.key(0))
    collapse.diagnose(fitting.Fitted(run, run.model, params, history, {}, None), x, jax.random.key(0))
    assert looked_at == [2000]
    with pytest.raises(InputError, match=r"history: got no epoch, expected one entry for each, in metrics\.jsonl"):
        collapse.diagnose(fitting.Fitted(run, run.model, params, [], {}, None), x, jax.random.key(0))


def curve(*bounds, epochs=None, patience=0, cosine=False):
    """What is found in the bounds of a training by importance samples, whose ELBO says nothing."""
    run = Run(model=MODEL, objective=IWAE(5), epochs=epochs or len(bounds), patience=patience)
    run = dataclasses.replace(run, optimizer=AdamW(cosine=cosine))
    entries = [{"negative_importance_weighted_bound": bound, "negative_elbo": 1.0} for bound in bounds]
    history = [{"epoch": i, "step": 8 * i, "validation": entry} for i, entry in enumerate(entries, 1)]
    return learning_curve.look(fitting.Fitted(run, run.model, {}, history, {}, None))


@pytest.mark.parametrize(
    ("bounds", "short"),
    [
        ([10, 9, 8, 7, 6, 5, 4, 3, 2, 2.5], False),  # the last tenth brought nothing
        ([10, 9, 8, 7, 6, 5, 4, 3, 2.5, 2.4], True),
        ([101, 50, 20, 10, 4, 3, 2.5, 2, 1.98, 1], False),  # 0.98 of 100 nats
        ([101, 50, 20, 10, 4, 3, 2.5, 2.2, 2.1, 1], True),
        ([5, 5, 5, 5], False),
        ([2, 100, 1.9, 1.8, 1.7, 1.65, 1.6, 1.55, 1.52, 1.5], True),  # what one bad epoch lost is no improvement
        ([100 - n for n in range(18)] + [83, 82.7, 82.7], True),  # the last two of 21: one that is flat is no end
    ],
)
def test_a_training_was_too_short_if_its_last_tenth_brought_more_than_a_hundredth(bounds, short):
    findings = curve(*bounds)
    assert [(finding.fault, finding.changes) for finding in findings] == [
        ("under-trained", {"epochs": 2 * len(bounds)})
    ] * short


@pytest.mark.parametrize(
    ("bounds", "patience"),
    [
        ([9, 3, 2, 1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6], 5),  # 0.6 of 8 nats
        ([9, 3, 2, 1, 1.1, 1.1, 1.1, 1.2, 1.2, 1.23], None),  # 0.23
        ([9, 3, 2, 1.5, 1.4, 1.3, 1.2, 1, 2, 3], None),  # the eighth of ten is late
        ([9, *np.linspace(3, 1, 40), *np.linspace(1.1, 3, 59)], 10),
        ([9, 1, 3, 3], 2),  # fewer than there were to wait
    ],
)
def test_a_bound_that_has_long_been_rising_is_overfitting(bounds, patience):
    findings = curve(*bounds)
    assert [(finding.fault, finding.changes) for finding in findings] == [("overfitting", {"patience": patience})] * (
        patience is not None
    )


def test_a_rate_that_falls_with_the_epochs_is_judged_by_their_second_half():
    """Its end is flat, however much is missing."""
    for end, faults in ((6, ["under-trained"]), (9.7, ["under-trained"]), (9.85, [])):
        found = curve(15, 13, 12, 11, 10, *[end] * 5, cosine=True)
        assert [finding.fault for finding in found] == faults
        assert curve(15, 13, 12, 11, 10, *[end] * 5) == []


def test_a_training_that_has_not_ended_is_to_be_ended():
    """One that its patience stopped has."""
    [finding] = curve(9, 5, 3, epochs=8)
    assert (finding.fault, finding.evidence, finding.changes) == ("under-trained", "3 of 8 epochs are over", {})
    assert curve(9, 1, 1.1, 1.1, epochs=8, patience=2) == []
    assert len(curve(9, 1, 1.1, epochs=8, patience=2)) == 1


def test_a_history_without_numbers_is_one_line(monkeypatch):
    with pytest.raises(InputError, match="got an epoch without a validation bound"):
        checkup(monkeypatch, Run(model=MODEL), SOUND, [None])


def test_dead_units_of_a_rate_without_a_closed_form_are_not_to_be_given_free_bits(monkeypatch):
    """`ELBO(free_bits=...)` refuses a model whose rate has no parts, as `latents.describe` says of it."""
    run, dead = Run(model=MODEL), SOUND._replace(active=HALF)
    for found, remedies in ((dead._replace(rate_per_dimension=None), 0), (dead, 1)):
        [finding] = checkup(monkeypatch, run, found, (3.0, 1.0, 1.0)).findings
        assert finding.fault == "dead units"
        assert "latent=2 in --model" in finding.remedy
        assert finding.remedy.count("free_bits") == remedies


def test_a_density_of_values_at_the_ends_of_its_support_is_a_finding(monkeypatch):
    """`ContinuousBernoulli` on images that are black and white in places: its density there has no limit."""

    def ends(likelihood, x):
        run = Run(model=VAE(4, MLP((3,)), likelihood, event_shape=(4,)))
        return checkup(monkeypatch, run, SOUND, (1.0, 0.0, 0.0), np.asarray(x, np.float32)).findings

    grey = np.linspace(0.01, 0.99, 400).reshape(100, 4)
    assert ends(likelihoods.ContinuousBernoulli(), grey) == []
    levels = np.round(grey * 16) / 16
    [finding] = ends(likelihoods.ContinuousBernoulli(), levels)
    assert "of the values are exactly 0 or 1, where" in finding.evidence
    assert "likelihood=DiscretizedLogistic(levels=17)" in finding.remedy
    assert finding.changes["model"].likelihood == likelihoods.DiscretizedLogistic(17)
    finding.changes["model"].likelihood.support.check(levels, "data")
    [finding] = ends(likelihoods.ContinuousBernoulli(), levels > 0.5)
    assert finding.changes["model"].likelihood == likelihoods.Bernoulli()
    [finding] = ends(likelihoods.ContinuousBernoulli(), np.where(grey < 0.1, 0, grey))
    assert finding.changes["model"].likelihood == likelihoods.NormalSharedScale()
    few = np.where(np.arange(400).reshape(100, 4) < 4, 1.0, grey)
    [finding] = ends(likelihoods.ContinuousBernoulli(), few)
    assert finding.evidence.startswith("1 % of the values are exactly 0 or 1")
    few[0, 0] = 0.5
    assert ends(likelihoods.ContinuousBernoulli(), few) == []
    every = np.append(np.arange(256), [0, 0, 0, 255]).reshape(65, 4) / 255
    [finding] = ends(likelihoods.ContinuousBernoulli(), every)
    assert finding.changes["model"].likelihood == likelihoods.DiscretizedLogistic(256)
    for likelihood in (likelihoods.NormalSharedScale(), likelihoods.Bernoulli()):
        assert ends(likelihood, every > 0.5) == []


def test_a_remedy_that_the_model_does_not_take_changes_nothing(monkeypatch):
    """A code of two levels has two dimensions at least."""
    for active, latent in ((1, None), (3, 3)):
        run = Run(model=TwoLevelVAE(4, MLP((3,)), event_shape=(8, 8, 1)))
        found = SOUND._replace(active=np.arange(4) < active)
        [finding] = checkup(monkeypatch, run, found, (3.0, 1.0, 1.0)).findings
        assert f"latent={active} in --model" in finding.remedy
        assert finding.changes == ({} if latent is None else {"model": dataclasses.replace(run.model, latent=latent)})


def vamp(components):
    return dataclasses.replace(MODEL, latent_prior=priors.VampPrior(components))


@pytest.mark.parametrize(
    ("run", "changes", "remedies"),
    [
        (Run(model=MODEL), {"model": vamp(45)}, ["latent_prior=VampPrior(components=45)", "ELBO(beta=4.0)"]),
        (Run(model=MODEL, objective=IWAE(1)), {"model": vamp(45)}, ["learned: latent_prior=VampPrior(components=45)"]),
        (Run(model=vamp(20)), {"model": vamp(40)}, ["more components of the prior: latent_prior=", "ELBO(beta=4.0)"]),
        (Run(model=vamp(40)), {"model": vamp(45)}, ["VampPrior(components=45)", "ELBO(beta=4.0)"]),
        (Run(model=vamp(45)), {"objective": ELBO(beta=4.0)}, ["ELBO(beta=4.0)"]),
        (Run(model=vamp(500), objective=IWAE(1)), {}, ["a smaller code"]),
        (
            Run(model=dataclasses.replace(MODEL, event_shape=(8, 8, 3))),
            {"model": dataclasses.replace(MODEL, event_shape=(8, 8, 3), latent_prior=priors.GaussianMixture(45))},
            ["GaussianMixture(components=45)", "ELBO"],
        ),
    ],
)
def test_codes_far_from_the_prior_leave_holes(run, changes, remedies):
    """At most two ways are told, and the first is typed: of a prior with at most a component for 4 of 180 examples."""
    params = jax.eval_shape(run.model.init, jax.random.key(0))  # nothing is computed with them
    fitted = fitting.Fitted(run, run.model, params, [{"step": 8}], {}, None)
    [found] = random_codes.holes(fitted, 3.0, 180)
    assert (found.fault, dict(found.changes)) == ("holes", changes)
    assert found.evidence.startswith("random codes fall into holes: the codes of data are at least 3 nats from the")
    assert [part for part in remedies if part not in found.remedy] == []
    assert found.remedy.count("; or ") == len(remedies) - 1
    assert random_codes.holes(fitted, 2.9, 180) == []


def test_holes_are_told_beside_other_faults_and_before_smaller_ones(monkeypatch):
    """Not those that say themselves where random codes are. Where it cannot be told, that is said."""
    dead = SOUND._replace(active=HALF)
    diagnosis = checkup(monkeypatch, Run(model=MODEL), dead, (3.0, 1.0, 1.0), gap=6.6)
    assert [finding.fault for finding in diagnosis.findings] == ["holes", "dead units"]
    assert diagnosis.measured["prior_gap"] == 6.6
    narrow = checkup(monkeypatch, Run(model=MODEL), of_noise(1e-6), (3.0, 1.0, 1.0), gap=6.6)
    assert [finding.fault for finding in narrow.findings] == ["variance collapsed"]
    assert "holes" not in (*narrow.absent, *narrow.unjudged)
    for most, why in ((2.9, None), (3.1, "180 examples show no gap between codes and prior, at most 3.1; see ")):
        found = checkup(monkeypatch, Run(model=MODEL), SOUND._replace(marginal_kl=most), (3.0, 1.0, 1.0), gap=0.0)
        assert ("holes" in found.absent) == (why is None)
        assert found.unjudged == ({} if why is None else {"holes": f"{why}aevae quality"})


def test_dead_units_are_judged_by_enough_examples_and_after_the_training(monkeypatch):
    dead, run = SOUND._replace(active=HALF), Run(model=MODEL)
    for x, bounds, why in (
        (VALIDATION[:29], (3.0, 1.0, 1.0), "29 examples are fewer than 30"),
        (VALIDATION, (3.0, 2.0, 1.0), "but the training had not settled"),
    ):
        found = checkup(monkeypatch, run, dead, bounds, x)
        assert why in found.unjudged["dead units"]
        assert "dead units" not in [*found.absent, *(finding.fault for finding in found.findings)]
    assert "dead units" in checkup(monkeypatch, run, SOUND, (3.0, 2.0, 1.0), VALIDATION[:3]).absent


def test_all_findings_are_changed_at_once_and_the_first_decides():
    """Fields of the model one by one; another model in its place has none of the old one's."""
    mixture = dataclasses.replace(MODEL, latent_prior=priors.GaussianMixture(3))
    smaller = dataclasses.replace(MODEL, latent=2, latent_prior=priors.VampPrior(9))
    made = [
        Finding("a", "", "", {"objective": ELBO(0.5), "model": mixture}),
        Finding("b", "", "", {"objective": ELBO(2.0), "epochs": 7}),
        Finding("c", "", "", {"model": smaller}),
    ]
    both = dataclasses.replace(mixture, latent=2)
    assert improved(Run(model=MODEL), made) == Run(model=both, objective=ELBO(0.5), epochs=7)
    other = Finding("d", "", "", {"model": VAE(3), "objective": ELBO()})
    point = Finding("e", "", "", {"model": Autoencoder(4, likelihood=likelihoods.Normal(0.5))})
    assert improved(Run(model=Autoencoder(4)), [other, point]) == Run(model=VAE(3))
    assert improved(Run(), []) == Run()
